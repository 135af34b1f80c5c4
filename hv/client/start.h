/* Starting the caller's own service on demand. */
#ifndef HV_CLIENT_START_H
#define HV_CLIENT_START_H

#include "hv/base/paths.h"

struct varlink_client;

#define START_TIME_NS (15 * NS_PER_SEC)

/*
 * Connect to the service at p->socket, and start `hvd --user` if nobody answers there.
 * Several callers at once start one. Waits for the socket, not for a time.
 * Errors: HV_UNREACHABLE with the last line of the log, HV_NOT_FOUND without an hvd.
 */
int start_and_connect(const struct hv_paths *p, struct varlink_client **ret, struct hv_error *e);

/* Where hvd is: beside this program, PREFIX/libexec/hv, PREFIX/sbin, PATH. 0 or -ENOENT. */
int start_find_hvd(char *buf, size_t size);

#endif
