/*
 * What the integration services share: their channel, the framing, the negotiation of
 * versions, and one request at a time. The host speaks first.
 *
 *   closed ──open──▶ negotiating ──answer──▶ ready (──request──▶ busy ──reply──▶ ready)
 *                         └─ no common version: silent for good
 *
 * Linux' drivers/hv/hv_util.c is the other side; guest-abi 6.4.1.
 */
#ifndef HV_VSP_IC_H
#define HV_VSP_IC_H

#include "hv/vmbus/vmbus.h"
#include "hv/vsp/timer.h"

/* Status words of replies. */
#define IC_OK             0x00000000u
#define IC_FAIL           0x80004005u
#define IC_NO_MORE_ITEMS  0x80070103u
#define IC_NOT_SUPPORTED  0x80070032u
#define IC_INVALID        0x80070057u
#define IC_NOT_CONNECTED  0x8007048Fu
#define IC_EXISTS         0x80070050u
#define IC_DISK_FULL      0x80070070u
/* Ours: the guest did not answer in time, the channel went, or the host wants it no more. */
#define IC_TIMEOUT        0x800705B4u
#define IC_GONE           0x800704CFu
#define IC_CANCELLED      0x800704C7u

#define IC_VERSION(major, minor) ((uint32_t)(major) | (uint32_t)(minor) << 16)   /* as on the wire */
#define IC_MAX_BODY 7552u         /* the largest: IP settings, 7428 */

struct ic;

struct ic_service {
    const char *name;              /* "heartbeat": channel, saved section */
    struct guid class_id, instance_id;
    uint16_t type;                 /* of its messages; 0 is negotiation */
    uint32_t version[4];           /* IC_VERSION, all that we speak; 0 ends the list */
    bool only_framework_3;
};
struct ic_ops {
    void (*ready)(void *arg);      /* versions are agreed on */
    void (*gone)(void *arg);       /* the channel closed; the outstanding request got IC_GONE */
    /* What became of the request: status and the body as the guest left it. Not for load. */
    void (*reply)(void *arg, uint32_t status, const uint8_t *body, uint32_t len);
    /* The guest has answered a request that had run out of time: it can be asked again. */
    void (*returned)(void *arg, uint32_t status);
    /* A request was refused with -EAGAIN: there may be room now. */
    void (*writable)(void *arg);
    /* The rest of the saved section. */
    void (*save)(void *arg, struct save_writer *w);
    int (*load)(void *arg, struct load_section *s);
    void (*reset)(void *arg);
};

/* All ops but reply are optional. Offers the channel and registers with the machine. */
int ic_new(struct vmbus *bus, const struct ic_service *svc, const struct ic_ops *ops, void *arg, struct ic **ret,
           struct hv_error *e);
void ic_free(struct ic *ic);

/* Is the channel open / has the guest agreed on versions (its driver, and where it needs one, its daemon, run)? */
bool ic_open(const struct ic *ic);
bool ic_ready(const struct ic *ic);
bool ic_busy(const struct ic *ic);
/* Does the guest still hold a request whose time is over? Its daemon hangs, or has gone. */
bool ic_stalled(const struct ic *ic);
/*
 * Offer the channel, as it is at first, or take it away (the outstanding request gets IC_GONE). A guest that has
 * not let go of it yet is offered it when it has.
 */
void ic_offer(struct ic *ic, bool offered);
bool ic_offered(const struct ic *ic);
uint32_t ic_version(const struct ic *ic);       /* agreed message version, IC_VERSION; 0: none */
/*
 * Send a request and wait for its reply, timeout_ns of guest time at most. 0; -ENOTCONN: not ready;
 * -EBUSY: one is under way; -EAGAIN: no room in the ring.
 */
int ic_request(struct ic *ic, const void *body, uint32_t len, uint64_t timeout_ns);

#endif
