/*
 * The bus itself: its life, the loop's turn, and what other threads may call. vCPUs put
 * messages into a bounded queue and set bits; everything else happens on the loop.
 */
#include <errno.h>

#include "hv/vmbus/vmbus_impl.h"

static const struct stats_desc counter_desc[VMBUS_COUNTER_COUNT] = {
#define VMBUS_COUNTER_DESC(id, name, unit, help) {name, unit, help, STATS_COUNTER},
    VMBUS_COUNTERS(VMBUS_COUNTER_DESC)
#undef VMBUS_COUNTER_DESC
};

/* One turn: messages out and in, then every channel somebody signalled. */
static void turn(void *arg)
{
    struct vmbus *b = arg;
    HV_CHECK(b, VMBUS_MAGIC);
    if (!b->running)
        return;
    if (atomic_exchange(&b->slot_free, false))
        messages_deliver(b);
    messages_handle(b);
    for (unsigned w = 0; w < ARRAY_SIZE(b->signalled); w++) {
        uint64_t bits = atomic_load_explicit(&b->signalled[w], memory_order_relaxed)
                            ? atomic_exchange(&b->signalled[w], 0) : 0;
        for (; bits; bits &= bits - 1) {
            struct vmbus_channel *ch = b->channel[w * 64 + (unsigned)__builtin_ctzll(bits)];
            if (ch && ch->open)
                channel_dispatch(ch);
        }
    }
}

/* Channels whose guest does not say when it has read. */
static void poll_room(void *arg)
{
    struct vmbus *b = arg;
    bool some = false;
    for (uint32_t i = 1; i < VMBUS_RELID_COUNT; i++)
        if (b->channel[i] && b->channel[i]->open && b->channel[i]->blocked) {
            bus_mark(b, i);
            some = true;
        }
    if (some)
        bus_poll_room(b);
}

void bus_poll_room(struct vmbus *b)
{
    uint64_t at = machine_deadline(b->cfg.machine, machine_clock_ns(b->cfg.machine) + ROOM_POLL_NS);
    if (at != UINT64_MAX)               /* paused: resuming looks at every channel */
        loop_timer_set(b->loop, b->timer, at);
}

int vmbus_new(const struct vmbus_config *cfg, struct vmbus **ret, struct hv_error *e)
{
    struct vmbus *b = hv_alloc(sizeof(*b));
    if (!b)
        return hv_fail(e, HV_NO_RESOURCES, "vmbus", "out of memory");
    b->magic = VMBUS_MAGIC;
    b->cfg = *cfg;
    b->loop = machine_loop(cfg->machine);
    b->mem = machine_mem(cfg->machine);
    b->post = (struct loop_post){.fn = turn, .arg = b};
    b->log_limit = (struct log_ratelimit)LOG_RATELIMIT(10);
    b->out = hv_alloc_array(QUEUE_OUT, sizeof(*b->out));
    pthread_mutex_init(&b->lock, NULL);
    if (!b->out || loop_timer_new(b->loop, poll_room, b, &b->timer) < 0) {
        vmbus_free(b);
        return hv_fail(e, HV_NO_RESOURCES, "vmbus", "out of memory");
    }
    b->stats = (struct stats_table){.group = "vmbus", .desc = counter_desc, .count = VMBUS_COUNTER_COUNT,
                                    .value = b->counter};
    stats_register(machine_stats(cfg->machine), &b->stats);
    machine_add_device(cfg->machine, &vmbus_device_ops, 0, b);
    *ret = b;
    return 0;
}

void vmbus_free(struct vmbus *b)
{
    if (!b)
        return;
    HV_CHECK(b, VMBUS_MAGIC);
    bus_disconnect(b);
    for (uint32_t i = 1; i < VMBUS_RELID_COUNT; i++)
        if (b->channel[i])
            channel_free(b->channel[i]);
    loop_post_cancel(b->loop, &b->post);
    loop_timer_free(b->loop, b->timer);
    pthread_mutex_destroy(&b->lock);
    free(b->out);
    b->magic = 0;
    free(b);
}

void bus_mark(struct vmbus *b, uint32_t relid)
{
    atomic_fetch_or(&b->signalled[relid / 64], UINT64_C(1) << relid % 64);
    loop_post(b->loop, &b->post);
}

int vmbus_signal_event(struct vmbus *b, uint32_t connection, uint16_t flag)
{
    HV_CHECK(b, VMBUS_MAGIC);
    uint32_t relid = connection & (VMBUS_RELID_COUNT - 1);
    if (connection != (relid | VMBUS_SINT << 12) || !relid || flag)
        return -ENOENT;
    count(b, COUNT_SIGNALS_IN);
    bus_mark(b, relid);                 /* whether there is such a channel the loop knows */
    return 0;
}

int vmbus_post_message(struct vmbus *b, uint32_t connection, uint32_t type, const void *payload, uint32_t len)
{
    HV_CHECK(b, VMBUS_MAGIC);
    if (connection != VMBUS_CONNECTION_OLD && connection != VMBUS_CONNECTION_NEW)
        return -ENOENT;
    if (type != VMBUS_MESSAGE_TYPE || len < 8 || len > VMBUS_MESSAGE_MAX)
        return -EINVAL;
    int r = -EAGAIN;
    pthread_mutex_lock(&b->lock);
    if (b->in_count < QUEUE_IN && atomic_load(&b->out_count) < QUEUE_OUT_BUSY) {
        struct message *m = &b->in[(b->in_first + b->in_count++) % QUEUE_IN];
        m->vp = 0;
        m->len = (uint16_t)len;
        memcpy(m->data, payload, len);
        r = 0;
    }
    pthread_mutex_unlock(&b->lock);
    count(b, r == 0 ? COUNT_MESSAGES_IN : COUNT_REFUSED);
    loop_post(b->loop, &b->post);
    return r;
}

void vmbus_slot_free(struct vmbus *b)
{
    HV_CHECK(b, VMBUS_MAGIC);
    atomic_store(&b->slot_free, true);
    loop_post(b->loop, &b->post);
}

void vmbus_pause(struct vmbus *b)
{
    HV_CHECK(b, VMBUS_MAGIC);
    for (uint32_t i = 1; i < VMBUS_RELID_COUNT; i++) {
        struct vmbus_channel *ch = b->channel[i];
        if (ch && ch->ops && ch->ops->quiesce)
            ch->ops->quiesce(ch->arg);
    }
    b->running = false;
    loop_timer_stop(b->loop, b->timer);
}

void vmbus_resume(struct vmbus *b)
{
    HV_CHECK(b, VMBUS_MAGIC);
    b->running = true;
    atomic_store(&b->slot_free, true);
    for (uint32_t i = 1; i < VMBUS_RELID_COUNT; i++) {
        struct vmbus_channel *ch = b->channel[i];
        if (!ch)
            continue;
        if (!ch->ops && ch->offered && !ch->rescinded) {
            /* Of a saved guest, and this machine does not have it any more. */
            ch->rescinded = true;
            channel_shut(ch);
            message_rescind(ch);
        } else if (ch->ops && !ch->offered && b->offers_sent) {
            message_offer(ch);
        }
        if (ch->open)
            bus_mark(b, i);
    }
    loop_post(b->loop, &b->post);
}

bool vmbus_running(const struct vmbus *b) { return b->running; }
uint32_t vmbus_version(const struct vmbus *b) { return b->connected ? b->version : 0; }
struct machine *vmbus_machine(const struct vmbus *b) { return b->cfg.machine; }

void bus_fault(struct vmbus *b, const char *channel, const char *what)
{
    if (!log_ratelimit_ok(&b->log_limit))
        return;
    log_debug("vmbus", "%s: %s", channel, what);
    if (b->cfg.fault)
        b->cfg.fault(b->cfg.fault_arg, channel, what);
}
