/*
 * Channels: from the offer to the packets. See vmbus.h for what a VSP sees and
 * vmbus_impl.h for the states.
 */
#include <errno.h>

#include "hv/vmbus/vmbus_impl.h"

/* ---- offers ---- */

struct vmbus_channel *channel_new(struct vmbus *b, const struct vmbus_offer *o, uint32_t relid)
{
    struct vmbus_channel *ch = hv_alloc(sizeof(*ch));
    if (!ch)
        return NULL;
    ch->magic = CHANNEL_MAGIC;
    ch->bus = b;
    ch->offer = *o;
    hv_strlcpy(ch->name, o->name, sizeof(ch->name));
    ch->offer.name = ch->name;
    if (!ch->offer.max_packet)
        ch->offer.max_packet = DEFAULT_MAX_PACKET;
    ch->relid = relid;
    b->channel[relid] = ch;
    return ch;
}

void channel_free(struct vmbus_channel *ch)
{
    channel_shut(ch);
    ch->bus->channel[ch->relid] = NULL;
    ch->magic = 0;
    free(ch);
}

int vmbus_offer(struct vmbus *b, const struct vmbus_offer *o, const struct vmbus_channel_ops *ops, void *arg,
                struct vmbus_channel **ret, struct hv_error *e)
{
    HV_CHECK(b, VMBUS_MAGIC);
    hv_assert(ops->packet);
    uint32_t free_relid = 0;
    struct vmbus_channel *ch = NULL;
    for (uint32_t i = VMBUS_RELID_COUNT - 1; i; i--) {
        struct vmbus_channel *c = b->channel[i];
        if (!c)
            free_relid = i;
        else if (guid_equal(&c->offer.instance_id, &o->instance_id) && c->offer.sub_index == o->sub_index)
            ch = c;
    }
    if (ch && (ch->ops || ch->rescinded || !guid_equal(&ch->offer.class_id, &o->class_id))) {
        hv_fail(e, HV_CONFLICT, o->name, "the guest has not let go of this device yet");
        return -EEXIST;
    }
    if (ch) {                           /* loaded from a saved state, open perhaps: it is ours now */
        uint32_t max = ch->offer.max_packet;
        ch->offer = *o;
        hv_strlcpy(ch->name, o->name, sizeof(ch->name));
        ch->offer.name = ch->name;
        ch->offer.max_packet = MAX(max, o->max_packet ? o->max_packet : DEFAULT_MAX_PACKET);
        if (ch->open && ch->offer.max_packet > max) {
            free(ch->buf);
            ch->buf = hv_alloc(ch->offer.max_packet);
            if (!ch->buf)
                return hv_fail(e, HV_NO_RESOURCES, o->name, "out of memory");
        }
    } else if (!free_relid) {
        hv_fail(e, HV_NO_RESOURCES, o->name, "a VM has at most %u channels", VMBUS_RELID_COUNT - 1);
        return -ENOSPC;
    } else if (!(ch = channel_new(b, o, free_relid))) {
        return hv_fail(e, HV_NO_RESOURCES, o->name, "out of memory");
    }
    ch->ops = ops;
    ch->arg = arg;
    if (b->running && b->offers_sent && !ch->offered)
        message_offer(ch);
    *ret = ch;
    return 0;
}

void vmbus_withdraw(struct vmbus_channel *ch)
{
    if (!ch)
        return;
    HV_CHECK(ch, CHANNEL_MAGIC);
    hv_assert(!ch->in_call);
    channel_shut(ch);
    ch->ops = NULL;
    if (!ch->offered) {
        channel_free(ch);
        return;
    }
    ch->rescinded = true;               /* RELID_RELEASED frees it */
    message_rescind(ch);
}

/* ---- open and close ---- */

int channel_open(struct vmbus_channel *ch, struct gpadl *g, uint32_t in_page)
{
    struct vmbus *b = ch->bus;
    struct gpadl_range range;
    if (g->range_count != 1 || gpadl_range(g, 0, &range) < 0 || range.offset || range.len % HV_PAGE_SIZE ||
        in_page < 2 || in_page >= range.pages || range.pages - in_page < 2)
        return -EINVAL;
    int r = ring_init(&ch->in, b->mem, range.pfn, in_page, true);
    if (r == 0)
        r = ring_init(&ch->out, b->mem, range.pfn + in_page, range.pages - in_page, false);
    if (r == 0 && !(ch->buf = hv_alloc(ch->offer.max_packet)))
        r = -ENOMEM;
    if (r < 0) {
        ring_fini(&ch->in);
        ring_fini(&ch->out);
        return r;
    }
    ch->gpadl = g;
    g->users++;
    ch->in_page = in_page;
    ch->masked = ch->held = ch->blocked = false;
    ch->fault = NULL;
    ch->open = true;
    return 0;
}

void gpadl_unuse(struct vmbus *b, struct gpadl *g)
{
    hv_assert(g->users);
    if (--g->users)
        return;
    uint32_t handle = g->handle;
    if (!g->relid) {                    /* of a bus that is gone */
        gpadl_remove(&b->gpadls, g);
    } else if (g->ending) {
        gpadl_remove(&b->gpadls, g);
        message_gpadl_gone(b, handle);
    }
}

void channel_shut(struct vmbus_channel *ch)
{
    struct vmbus *b = ch->bus;
    if (!ch->open)
        return;
    ch->open = false;
    if (ch->ops && ch->ops->close)
        ch->ops->close(ch->arg);
    ring_fini(&ch->in);
    ring_fini(&ch->out);
    free(ch->buf);
    ch->buf = NULL;
    struct gpadl *g = ch->gpadl;
    ch->gpadl = NULL;
    ch->fault = NULL;
    gpadl_unuse(b, g);
}

void channel_fault(struct vmbus_channel *ch, const char *what)
{
    if (!ch->open)
        return;
    count(ch->bus, COUNT_FAULTS);
    bus_fault(ch->bus, ch->name, what);
    ch->dead = true;
    channel_shut(ch);
}

void vmbus_channel_fault(struct vmbus_channel *ch, const char *what)
{
    HV_CHECK(ch, CHANNEL_MAGIC);
    if (ch->in_call)
        ch->fault = what;
    else
        channel_fault(ch, what);
}

void vmbus_channel_hold(struct vmbus_channel *ch)
{
    HV_CHECK(ch, CHANNEL_MAGIC);
    hv_assert(ch->open && (!ch->held_gpadl || ch->held_gpadl == ch->gpadl));
    ch->held_gpadl = ch->gpadl;
    ch->gpadl->users++;
    ch->holds++;
    ch->bus->holds++;
}

void vmbus_channel_release(struct vmbus_channel *ch)
{
    HV_CHECK(ch, CHANNEL_MAGIC);
    hv_assert(ch->holds && ch->bus->holds);
    struct gpadl *g = ch->held_gpadl;
    if (--ch->holds == 0)
        ch->held_gpadl = NULL;
    ch->bus->holds--;
    gpadl_unuse(ch->bus, g);
    bus_released(ch->bus);
}

/* ---- signals and packets ---- */

void channel_signal(struct vmbus_channel *ch)
{
    struct vmbus *b = ch->bus;
    if (ch->target_vp >= b->cfg.vcpus)
        return;
    count(b, COUNT_INTERRUPTS);
    b->cfg.link.signal(b->cfg.link.arg, ch->target_vp, ch->relid);
}

static void set_mask(struct vmbus_channel *ch, bool masked)
{
    if (ch->masked == masked)
        return;
    ch->masked = masked;
    ring_mask(&ch->in, masked);
}

static const char *read_fault(int r)
{
    return r == -EMSGSIZE ? "a packet larger than any its driver sends" : "ring indices or a packet that make no sense";
}

/* Hand out what there is, BUDGET_PACKETS at most. False: the channel is gone. */
static bool drain(struct vmbus_channel *ch, unsigned *budget)
{
    for (; *budget && !ch->held; --*budget) {
        struct ring_packet p;
        int r = ring_read(&ch->in, ch->buf, ch->offer.max_packet, &p);
        if (r == -EAGAIN)
            return true;
        if (r < 0) {
            channel_fault(ch, read_fault(r));
            return false;
        }
        const struct vmbus_packet packet = {
            .type = p.type,
            .wants_completion = p.flags & PKT_FLAG_COMPLETION,
            .transaction = p.transaction,
            .payload = ch->buf + p.offset,
            .len = p.len - p.offset,
            .extra = ch->buf + PKT_HEADER,
            .extra_len = p.offset - PKT_HEADER,
        };
        ch->in_call = true;
        r = ch->ops->packet(ch->arg, &packet);
        ch->in_call = false;
        if (ch->fault || (r < 0 && r != -EAGAIN)) {
            channel_fault(ch, ch->fault ? ch->fault : "a packet its device does not understand");
            return false;
        }
        if (r == -EAGAIN) {
            ch->held = true;
            return true;
        }
        count(ch->bus, COUNT_PACKETS_IN);
        ring_consume(&ch->in, &p);
    }
    return true;
}

static void tell_writable(struct vmbus_channel *ch)
{
    ch->blocked = false;
    ring_stop_waiting(&ch->out);
    if (!ch->ops->writable)
        return;
    ch->in_call = true;
    ch->ops->writable(ch->arg);
    ch->in_call = false;
    if (ch->fault)
        channel_fault(ch, ch->fault);
}

void channel_dispatch(struct vmbus_channel *ch)
{
    struct vmbus *b = ch->bus;
    unsigned budget = BUDGET_PACKETS;
    if (!ch->ops)
        return;
    if (ch->blocked && ring_has_room(&ch->out))
        tell_writable(ch);
    while (ch->open) {
        int64_t left = ring_readable(&ch->in);
        if (left > 0 && !ch->held)
            set_mask(ch, true);
        if (!drain(ch, &budget))
            return;
        if (ring_publish(&ch->in))
            channel_signal(ch);
        if (ch->held)
            return;                     /* stays masked: vmbus_channel_resume() looks again */
        if (!budget) {
            bus_mark(b, ch->relid);
            return;
        }
        if (!ch->masked)
            return;
        /* Unmask, then look again: what came before is not signalled any more. */
        set_mask(ch, false);
        left = ring_readable(&ch->in);
        if (left < 0) {
            channel_fault(ch, read_fault(-EPROTO));
            return;
        }
        if (left == 0)
            return;
    }
}

void vmbus_channel_resume(struct vmbus_channel *ch)
{
    HV_CHECK(ch, CHANNEL_MAGIC);
    bool was = ch->held;
    ch->held = false;
    if (was && ch->open)
        bus_mark(ch->bus, ch->relid);
}

/* ---- questions ---- */

bool vmbus_channel_is_open(const struct vmbus_channel *ch) { return ch && ch->open; }
bool vmbus_channel_is_offered(const struct vmbus_channel *ch) { return ch && ch->offered; }
const char *vmbus_channel_name(const struct vmbus_channel *ch) { return ch->name; }
unsigned vmbus_channel_vp(const struct vmbus_channel *ch) { return ch->target_vp; }
uint32_t vmbus_channel_relid(const struct vmbus_channel *ch) { return ch->relid; }
struct vmbus *vmbus_channel_bus(const struct vmbus_channel *ch) { return ch->bus; }
