/* What the files of hv/vmbus share; nobody else includes it. */
#ifndef HV_VMBUS_IMPL_H
#define HV_VMBUS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "hv/base/endian.h"
#include "hv/base/log.h"
#include "hv/vmbus/gpadl.h"
#include "hv/vmbus/ring.h"
#include "hv/vmbus/vmbus.h"

#define VMBUS_MAGIC   0x564d4255u
#define CHANNEL_MAGIC 0x56434831u

/*
 * Messages on their way: in is filled by vCPUs and emptied by the loop, out waits for the
 * guest's slot. A network driver's start posts about 150 at once (guest-abi 3.3); out holds
 * an answer to each and every offer, and while it is long the guest is told to try again.
 */
enum { QUEUE_IN = 512, QUEUE_OUT = 4096, QUEUE_OUT_BUSY = QUEUE_OUT - VMBUS_RELID_COUNT - QUEUE_IN };
/* What one turn of the loop does for the guest before others get theirs. */
enum { BUDGET_MESSAGES = 64, BUDGET_PACKETS = 128 };
#define DEFAULT_MAX_PACKET (16u * 1024)
/* A guest that does not say when there is room (no pending send size) is asked at this interval. */
#define ROOM_POLL_NS (10 * NS_PER_MS)

struct message { uint16_t vp, len; uint8_t data[VMBUS_MESSAGE_MAX]; };

#define VMBUS_COUNTERS(X)                                                                  \
    X(MESSAGES_IN, "messages_in", "messages", "control messages of the guest")             \
    X(MESSAGES_OUT, "messages_out", "messages", "control messages to the guest")           \
    X(SIGNALS_IN, "signals_in", "signals", "channel signals of the guest")                 \
    X(INTERRUPTS, "interrupts", "signals", "channel signals to the guest")                 \
    X(PACKETS_IN, "packets_in", "packets", "packets of the guest")                         \
    X(PACKETS_OUT, "packets_out", "packets", "packets to the guest")                       \
    X(NO_ROOM, "ring_full", "packets", "packets that found a full ring")                   \
    X(REFUSED, "messages_refused", "messages", "control messages refused: too many at once") \
    X(MALFORMED, "malformed", "messages", "control messages that made no sense")           \
    X(FAULTS, "channel_faults", "channels", "channels closed for what the guest did")
enum vmbus_counter {
#define VMBUS_COUNTER_ENUM(id, name, unit, help) COUNT_##id,
    VMBUS_COUNTERS(VMBUS_COUNTER_ENUM)
#undef VMBUS_COUNTER_ENUM
    VMBUS_COUNTER_COUNT
};

/*
 *             offer            OPEN             CLOSE
 *   idle ───────────▶ offered ─────▶ open ──────────────▶ offered
 *                        │             │ fault: dead, until CLOSE
 *                        └──withdraw───┴────▶ rescinded ──RELID_RELEASED──▶ freed
 */
struct vmbus_channel {
    uint32_t magic;
    struct vmbus *bus;
    char name[32];
    struct vmbus_offer offer;         /* name points to the above */
    const struct vmbus_channel_ops *ops;   /* NULL: withdrawn, or loaded and not claimed yet */
    void *arg;
    uint32_t relid;
    bool offered, open, dead, rescinded;
    /* While open. */
    struct ring in, out;
    struct gpadl *gpadl;
    uint32_t open_id, target_vp, in_page;
    uint8_t user[OPEN_USER_LEN];
    uint8_t *buf;                     /* the packet being handled, offer.max_packet bytes */
    bool masked, held, blocked;       /* we mask signals; the VSP said -EAGAIN; it waits for room */
    bool in_call;                     /* a callback of ours is running: a fault waits for its end */
    const char *fault;
    unsigned holds;
    struct gpadl *held_gpadl;         /* what the holds keep, beyond the close if need be */
};

struct vmbus {
    uint32_t magic;
    struct vmbus_config cfg;
    struct loop *loop;
    struct mem *mem;
    struct loop_post post;
    struct loop_timer *timer;         /* ROOM_POLL_NS */
    bool running;

    pthread_mutex_t lock;             /* guards in[] only */
    struct message in[QUEUE_IN];
    unsigned in_first, in_count;
    struct message *out;              /* out[QUEUE_OUT] */
    unsigned out_first;
    _Atomic unsigned out_count;
    _Atomic bool slot_free;

    bool connected, offers_sent;
    uint32_t version, message_vp;
    unsigned holds;                   /* of all channels */
    bool unload_waits, contact_waits; /* for the holds */
    uint8_t contact[VMBUS_SIZE_INITIATE_CONTACT];

    _Atomic uint64_t signalled[VMBUS_RELID_COUNT / 64];
    struct vmbus_channel *channel[VMBUS_RELID_COUNT];
    struct gpadl_table gpadls;

    _Atomic uint64_t counter[VMBUS_COUNTER_COUNT];
    struct stats_table stats;
    struct log_ratelimit log_limit;
};

static inline void count(struct vmbus *b, enum vmbus_counter c) { stats_add(&b->stats, c, 1); }

/* vmbus.c */
/* Have the loop look at this channel. Any thread. */
void bus_mark(struct vmbus *b, uint32_t relid);
/* Look again soon whether blocked channels have room. */
void bus_poll_room(struct vmbus *b);
void bus_fault(struct vmbus *b, const char *channel, const char *what);

/* message.c: control messages. */
void messages_handle(struct vmbus *b);
/* Queue a message to the guest and deliver what its slot takes. data[len] begins with the type. */
void message_send(struct vmbus *b, const void *data, uint32_t len);
void messages_deliver(struct vmbus *b);
void message_offer(struct vmbus_channel *ch);
void message_rescind(struct vmbus_channel *ch);
void message_gpadl_gone(struct vmbus *b, uint32_t handle);
/* Forget everything the guest made: channels, GPADLs, messages. */
void bus_disconnect(struct vmbus *b);
/* A hold went: answers that waited for the last. */
void bus_released(struct vmbus *b);

/* channel.c */
void channel_dispatch(struct vmbus_channel *ch);
/* Pin the rings: g's pages before in_page are the guest's, the rest ours. ops->open is the caller's. */
int channel_open(struct vmbus_channel *ch, struct gpadl *g, uint32_t in_page);
void channel_shut(struct vmbus_channel *ch);
void channel_free(struct vmbus_channel *ch);
void channel_signal(struct vmbus_channel *ch);
void channel_fault(struct vmbus_channel *ch, const char *what);
void gpadl_unuse(struct vmbus *b, struct gpadl *g);
struct vmbus_channel *channel_new(struct vmbus *b, const struct vmbus_offer *o, uint32_t relid);

/* state.c */
extern const struct device_ops vmbus_device_ops;

#endif
