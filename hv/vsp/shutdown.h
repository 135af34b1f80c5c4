/* The shutdown service: ask the guest to power off or to restart. guest-abi 6.4.2. */
#ifndef HV_VSP_SHUTDOWN_H
#define HV_VSP_SHUTDOWN_H

#include "hv/vmbus/vmbus.h"

struct shutdown;
struct ic;

int shutdown_new(struct vmbus *bus, struct shutdown **ret, struct hv_error *e);
void shutdown_free(struct shutdown *s);
struct ic *shutdown_ic(struct shutdown *s);
/* Is there a driver that would hear it? */
bool shutdown_ready(const struct shutdown *s);
/*
 * Ask. The guest says at once whether it will; done(arg, status) comes with IC_OK, another
 * status of ic.h (IC_TIMEOUT after 10 s of guest time, IC_GONE), and then the power-off by itself.
 * reason: UTF-8 for the guest's log, cut to 1023 UTF-16 units. 0, -ENOTCONN, -EBUSY, -EAGAIN: as ic_request().
 */
int shutdown_ask(struct shutdown *s, bool restart, bool force, const char *reason,
                 void (*done)(void *arg, uint32_t status), void *arg);

#endif
