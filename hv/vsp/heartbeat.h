/* The heartbeat service: does the guest's kernel still answer? guest-abi 6.4.3. */
#ifndef HV_VSP_HEARTBEAT_H
#define HV_VSP_HEARTBEAT_H

#include "hv/vmbus/vmbus.h"

#define HEARTBEATS(X)                                                       \
    X(NO_CONTACT, "no-contact")   /* no driver yet, or none any more */      \
    X(OK, "ok")                                                             \
    X(LOST, "lost")               /* it has answered before and stopped */
enum heartbeat_status {
#define HEARTBEAT_ENUM(name, word) HEARTBEAT_##name,
    HEARTBEATS(HEARTBEAT_ENUM)
#undef HEARTBEAT_ENUM
    HEARTBEAT_COUNT
};

struct heartbeat;
struct ic;

/* changed: the status did. May be NULL. */
int heartbeat_new(struct vmbus *bus, void (*changed)(void *arg), void *arg, struct heartbeat **ret,
                  struct hv_error *e);
void heartbeat_free(struct heartbeat *h);
struct ic *heartbeat_ic(struct heartbeat *s);
enum heartbeat_status heartbeat_status(const struct heartbeat *h);
const char *heartbeat_word(enum heartbeat_status s);
uint64_t heartbeat_count(const struct heartbeat *h);      /* answers so far */

#endif
