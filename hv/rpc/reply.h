/* Reading replies: shared by the blocking client and the one on the loop. */
#ifndef HV_RPC_REPLY_H
#define HV_RPC_REPLY_H

#include "hv/rpc/varlink.h"

struct reply {
    json_t *params;     /* borrowed from the message; an object */
    bool continues;
};

/*
 * Take a message apart. method is what was called, more whether several replies may
 * come. 0 with *ret filled; the negative errno of the service's error with e filled;
 * -EPROTO (e: HV_FAILED) if the message is no reply to this call: the connection is
 * then of no more use. Creates missing parameters in msg.
 */
int reply_read(json_t *msg, const char *method, bool more, struct reply *ret, struct hv_error *e);

/* The message of a call (new reference), NULL without memory. params (steals, NULL: {}). */
json_t *call_message(const char *method, json_t *params, const char *flag);

#endif
