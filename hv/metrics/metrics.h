/* The HTTP side of hv-metrics: one listener, GET /metrics. */
#ifndef HV_METRICS_METRICS_H
#define HV_METRICS_METRICS_H

#include "hv/base/error.h"

struct metrics_server;

/*
 * Serve at address ("127.0.0.1:9177", "[::1]:9177"; port 0: any) what the service at host (as
 * client_connect() has it) says. host must outlive the server. Errors: HV_USAGE, or why it cannot listen.
 */
int metrics_start(const char *address, const char *host, struct metrics_server **ret, struct hv_error *e);
void metrics_stop(struct metrics_server *s);
/* Where it listens in fact. */
unsigned metrics_port(const struct metrics_server *s);

#endif
