/* What a host and its VMs have and need as OpenMetrics text (openmetrics.io, version 1.0.0). */
#ifndef HV_CLIENT_OPENMETRICS_H
#define HV_CLIENT_OPENMETRICS_H

#include <jansson.h>

#define OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

/*
 * stats: a reply of org.hv.Manager.Stats that has the columns, or NULL where the service could
 * not be reached (hv_up is 0 then, and nothing else is there). free() the result; NULL: no memory.
 */
char *client_openmetrics(const json_t *stats);

#endif
