/*
 * Reset, save and load of the bus. Channels are saved by what names them to the guest
 * (instance and sub-channel index, relid); a load makes them anew and every VSP claims its
 * own with vmbus_offer(), in whichever order. The rings themselves are guest memory; our
 * indices into them are saved, and checked as the guest's are.
 */
#include <errno.h>

#include "hv/vmbus/vmbus_impl.h"

#define VMBUS_VERSION_SAVED 1

static void clear_queues(struct vmbus *b)
{
    pthread_mutex_lock(&b->lock);
    b->in_first = b->in_count = 0;
    pthread_mutex_unlock(&b->lock);
    for (unsigned i = 0; i < ARRAY_SIZE(b->signalled); i++)
        atomic_store(&b->signalled[i], 0);
}

static void reset(void *dev)
{
    struct vmbus *b = dev;
    HV_CHECK(b, VMBUS_MAGIC);
    hv_assert(b->holds == 0);           /* paused before: nothing is under way */
    bus_disconnect(b);
    clear_queues(b);
    b->unload_waits = b->contact_waits = false;
    b->message_vp = 0;
}

static void save_message(struct save_writer *w, const struct message *m)
{
    save_u16(w, m->vp);
    save_u16(w, m->len);
    save_bytes(w, m->data, m->len);
}

static void save_channel(struct save_writer *w, const struct vmbus_channel *ch)
{
    save_bytes(w, ch->offer.class_id.b, 16);
    save_bytes(w, ch->offer.instance_id.b, 16);
    save_u16(w, ch->offer.sub_index);
    save_u32(w, ch->offer.max_packet);
    save_u32(w, ch->relid);
    save_u8(w, ch->rescinded);
    save_u8(w, ch->dead);
    save_u8(w, ch->open);
    if (!ch->open)
        return;
    save_u32(w, ch->gpadl->handle);
    save_u32(w, ch->open_id);
    save_u32(w, ch->target_vp);
    save_u32(w, ch->in_page);
    save_bytes(w, ch->user, sizeof(ch->user));
    save_u32(w, ch->in.own);
    save_u32(w, ch->out.own);
    save_u8(w, ch->masked);
}

static void save(void *dev, struct save_writer *w)
{
    struct vmbus *b = dev;
    hv_assert(b->holds == 0 && !b->running);
    save_u8(w, b->connected);
    save_u8(w, b->offers_sent);
    save_u32(w, b->version);
    save_u32(w, b->message_vp);
    save_u32(w, b->in_count);
    for (unsigned i = 0; i < b->in_count; i++)
        save_message(w, &b->in[(b->in_first + i) % QUEUE_IN]);
    save_u32(w, b->out_count);
    for (unsigned i = 0; i < b->out_count; i++)
        save_message(w, &b->out[(b->out_first + i) % QUEUE_OUT]);
    gpadl_save(&b->gpadls, w);
    uint32_t n = 0;
    for (uint32_t i = 1; i < VMBUS_RELID_COUNT; i++)
        n += b->channel[i] && b->channel[i]->offered;
    save_u32(w, n);
    for (uint32_t i = 1; i < VMBUS_RELID_COUNT; i++)
        if (b->channel[i] && b->channel[i]->offered)
            save_channel(w, b->channel[i]);
}

/* ---- load ---- */

static int load_messages(struct load_section *s, struct message *queue, uint32_t size, unsigned vcpus,
                         uint32_t *ret_count)
{
    uint32_t n = load_u32(s);
    if (n > size)
        return -EINVAL;
    for (uint32_t i = 0; i < n; i++) {
        struct message *m = &queue[i];
        m->vp = load_u16(s);
        m->len = load_u16(s);
        if (m->vp >= vcpus || m->len < 8 || m->len > VMBUS_MESSAGE_MAX)
            return -EINVAL;
        load_bytes(s, m->data, m->len);
    }
    *ret_count = n;
    return s->bad ? -EINVAL : 0;
}

/* Give ch the relid it had; whoever has that now takes ch's. */
static void take_relid(struct vmbus *b, struct vmbus_channel *ch, uint32_t relid)
{
    struct vmbus_channel *other = b->channel[relid];
    b->channel[ch->relid] = other;
    if (other)
        other->relid = ch->relid;
    b->channel[relid] = ch;
    ch->relid = relid;
}

static struct vmbus_channel *find_or_make(struct vmbus *b, const struct vmbus_offer *o, uint32_t relid)
{
    struct vmbus_channel *ch = NULL;
    uint32_t free_relid = 0;
    for (uint32_t i = VMBUS_RELID_COUNT - 1; i; i--) {
        struct vmbus_channel *c = b->channel[i];
        if (!c)
            free_relid = i;
        else if (guid_equal(&c->offer.instance_id, &o->instance_id) && c->offer.sub_index == o->sub_index)
            ch = c;
    }
    if (ch && !guid_equal(&ch->offer.class_id, &o->class_id))
        return NULL;
    if (!ch && free_relid)
        ch = channel_new(b, o, b->channel[relid] ? free_relid : relid);
    if (ch && ch->relid != relid)
        take_relid(b, ch, relid);
    return ch;
}

static int load_channel(struct vmbus *b, struct load_section *s)
{
    struct vmbus_offer o = {.name = "saved"};
    load_bytes(s, o.class_id.b, 16);
    load_bytes(s, o.instance_id.b, 16);
    o.sub_index = load_u16(s);
    o.max_packet = load_u32(s);
    uint32_t relid = load_u32(s);
    bool rescinded = load_u8(s), dead = load_u8(s), open = load_u8(s);
    /* 512 KiB: the largest packet there can be, length8 is 16 bits. */
    if (s->bad || !relid || relid >= VMBUS_RELID_COUNT || o.max_packet < PKT_HEADER || o.max_packet > 512 * KIB)
        return -EINVAL;
    if (b->channel[relid] && b->channel[relid]->offered)
        return -EINVAL;                 /* twice the same */
    struct vmbus_channel *ch = find_or_make(b, &o, relid);
    if (!ch || ch->offered || (rescinded && (open || ch->ops)))
        return -EINVAL;
    ch->offered = true;
    ch->rescinded = rescinded;
    ch->dead = dead;
    if (!open)
        return 0;
    struct gpadl *g = gpadl_find(&b->gpadls, load_u32(s));
    ch->open_id = load_u32(s);
    ch->target_vp = load_u32(s);
    uint32_t in_page = load_u32(s);
    load_bytes(s, ch->user, sizeof(ch->user));
    uint32_t in = load_u32(s), out = load_u32(s);
    bool masked = load_u8(s);
    if (s->bad || dead || !g || g->relid != relid || !gpadl_complete(g) ||
        (ch->target_vp >= b->cfg.vcpus && ch->target_vp != UINT32_MAX) || channel_open(ch, g, in_page) < 0)
        return -EINVAL;
    if (!ring_index_ok(&ch->in, in) || !ring_index_ok(&ch->out, out))
        return -EINVAL;
    ch->in.own = ch->in.published = in;
    ch->out.own = ch->out.published = out;
    ch->masked = masked;
    ch->blocked = true;                 /* whoever waited for room asks again */
    return 0;
}

static int load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct vmbus *b = dev;
    reset(b);
    b->connected = load_u8(s);
    b->offers_sent = load_u8(s);
    b->version = load_u32(s);
    b->message_vp = load_u32(s);
    if (b->message_vp >= b->cfg.vcpus)
        return -EINVAL;
    uint32_t out = 0, channels;
    int r = load_messages(s, b->in, QUEUE_IN, b->cfg.vcpus, &b->in_count);
    if (r == 0)
        r = load_messages(s, b->out, QUEUE_OUT, b->cfg.vcpus, &out);
    if (r == 0)
        r = gpadl_load(&b->gpadls, s);
    if (r < 0)
        return r;
    atomic_store(&b->out_count, out);
    channels = load_u32(s);
    for (uint32_t i = 0; r == 0 && i < channels; i++)
        r = load_channel(b, s);
    return r;
}

const struct device_ops vmbus_device_ops = {
    .tag = "vmbus", .version = VMBUS_VERSION_SAVED, .reset = reset, .save = save, .load = load,
};
