/*
 * Control messages: version negotiation, offers, GPADLs, open and close, unload. One
 * handler a type, in one table with the least size it needs; whatever else a guest posts
 * is counted and dropped. Layouts: vmbus_proto.h, rules: guest-abi 5.2 to 5.7.
 */
#include <errno.h>

#include "hv/vmbus/vmbus_impl.h"

/* ---- to the guest ---- */

void messages_deliver(struct vmbus *b)
{
    while (atomic_load(&b->out_count)) {
        const struct message *m = &b->out[b->out_first];
        int r = b->cfg.link.post(b->cfg.link.arg, m->vp, m->data, m->len);
        if (r == -EAGAIN)
            return;                     /* vmbus_slot_free() brings us back */
        if (r == 0)
            count(b, COUNT_MESSAGES_OUT);
        b->out_first = (b->out_first + 1) % QUEUE_OUT;
        atomic_fetch_sub(&b->out_count, 1);
    }
}

void message_send(struct vmbus *b, const void *data, uint32_t len)
{
    hv_assert(len <= VMBUS_MESSAGE_MAX);
    if (b->out_count >= QUEUE_OUT) {    /* requests are refused long before: see QUEUE_OUT_BUSY */
        bus_fault(b, "vmbus", "the guest does not take its messages: one is lost");
        return;
    }
    struct message *m = &b->out[(b->out_first + b->out_count) % QUEUE_OUT];
    m->vp = (uint16_t)b->message_vp;
    m->len = (uint16_t)len;
    memcpy(m->data, data, len);
    if (atomic_fetch_add(&b->out_count, 1) == 0 && b->running)
        messages_deliver(b);
}

/* A message of this type with up to three words after the header. */
static void send_words(struct vmbus *b, enum vmbus_message_type type, uint32_t size, uint32_t w0, uint32_t w1,
                       uint32_t w2)
{
    uint8_t m[20] = {0};
    hv_assert(size <= sizeof(m));
    put_le32(m, type);
    put_le32(m + 8, w0);
    put_le32(m + 12, w1);
    put_le32(m + 16, w2);
    message_send(b, m, size);
}

void message_offer(struct vmbus_channel *ch)
{
    const struct vmbus_offer *o = &ch->offer;
    uint8_t m[VMBUS_SIZE_OFFER] = {0};
    put_le32(m, VMBUS_MSG_OFFER);
    memcpy(m + OFFER_CLASS, o->class_id.b, 16);
    memcpy(m + OFFER_INSTANCE, o->instance_id.b, 16);
    put_le16(m + OFFER_FLAGS, o->flags);
    put_le16(m + OFFER_MMIO_MB, o->mmio_mb);
    put_le32(m + OFFER_USER, o->pipe_mode);
    put_le16(m + OFFER_SUB_INDEX, o->sub_index);
    put_le32(m + OFFER_RELID, ch->relid);
    m[OFFER_MONITOR_ID] = 0xFF;               /* no monitor pages: every signal is a hypercall */
    put_le16(m + OFFER_DEDICATED, 1);
    put_le32(m + OFFER_CONNECTION, ch->relid | VMBUS_SINT << 12);
    ch->offered = true;
    message_send(ch->bus, m, sizeof(m));
}

void message_rescind(struct vmbus_channel *ch)
{
    send_words(ch->bus, VMBUS_MSG_RESCIND, VMBUS_SIZE_RESCIND, ch->relid, 0, 0);
}

void message_gpadl_gone(struct vmbus *b, uint32_t handle)
{
    send_words(b, VMBUS_MSG_GPADL_TORNDOWN, VMBUS_SIZE_GPADL_TORNDOWN, handle, 0, 0);
}

/* ---- contact and unload ---- */

void bus_disconnect(struct vmbus *b)
{
    for (uint32_t i = 1; i < VMBUS_RELID_COUNT; i++) {
        struct vmbus_channel *ch = b->channel[i];
        if (!ch)
            continue;
        channel_shut(ch);
        ch->offered = ch->dead = false;
        if (!ch->ops)
            channel_free(ch);
    }
    /* Those that I/O in flight still holds go when it ends. */
    for (struct gpadl *g = b->gpadls.first, *next; g; g = next) {
        next = g->next;
        if (g->users == 0)
            gpadl_remove(&b->gpadls, g);
        else
            g->relid = 0;
    }
    atomic_store(&b->out_count, 0);
    b->out_first = 0;
    b->connected = b->offers_sent = false;
    b->version = 0;
}

/* Say what came of the contact. */
static void answer_contact(struct vmbus *b, bool supported)
{
    uint32_t last = !supported ? 0
                    : b->version >= VMBUS_VERSION_5_0 ? VMBUS_CONNECTION_NEW : b->version;
    send_words(b, VMBUS_MSG_VERSION_RESPONSE, VMBUS_SIZE_VERSION_RESPONSE, supported, last, 0);
}

static void contact(struct vmbus *b, const uint8_t *m)
{
    static const uint32_t known[] = {
#define VMBUS_VERSION_ITEM(v) v,
        VMBUS_VERSIONS(VMBUS_VERSION_ITEM)
#undef VMBUS_VERSION_ITEM
    };
    uint32_t version = get_le32(m + CONTACT_VERSION), vp = get_le32(m + CONTACT_VP);
    bool good = false;
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
        good = good || known[i] == version;
    /* From 5.0 on the guest names the SINT and VTL of its messages: we have one of each. */
    if (version >= VMBUS_VERSION_5_0 && (m[CONTACT_SINT] != VMBUS_SINT || m[CONTACT_VTL] != 0))
        good = false;
    b->message_vp = vp < b->cfg.vcpus ? vp : 0;
    b->connected = good;
    b->version = good ? version : 0;
    answer_contact(b, good);
}

/* A new contact means a new kernel: whatever the last one had is void. */
static void on_contact(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    bus_disconnect(b);
    b->unload_waits = false;
    b->contact_waits = b->holds != 0;
    if (b->contact_waits)
        memcpy(b->contact, m, sizeof(b->contact));
    else
        contact(b, m);
}

static void on_unload(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    bus_disconnect(b);
    b->contact_waits = false;
    b->unload_waits = b->holds != 0;
    if (!b->unload_waits)
        send_words(b, VMBUS_MSG_UNLOAD_RESPONSE, VMBUS_SIZE_UNLOAD_RESPONSE, 0, 0, 0);
}

void bus_released(struct vmbus *b)
{
    if (b->holds)
        return;
    if (b->contact_waits) {
        b->contact_waits = false;
        contact(b, b->contact);
    } else if (b->unload_waits) {
        b->unload_waits = false;
        send_words(b, VMBUS_MSG_UNLOAD_RESPONSE, VMBUS_SIZE_UNLOAD_RESPONSE, 0, 0, 0);
    }
}

/* ---- offers ---- */

static void on_request_offers(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    if (b->offers_sent) {               /* asked twice: once is what the queue has room for */
        count(b, COUNT_MALFORMED);
        return;
    }
    b->offers_sent = true;
    for (uint32_t i = 1; i < VMBUS_RELID_COUNT; i++) {
        struct vmbus_channel *ch = b->channel[i];
        if (ch && ch->ops && !ch->offered && !ch->offer.sub_index)     /* those are asked for elsewhere */
            message_offer(ch);
    }
    send_words(b, VMBUS_MSG_ALL_OFFERS_DELIVERED, VMBUS_SIZE_ALL_OFFERS_DELIVERED, 0, 0, 0);
}

/* The channel a message names, if the guest may know it. */
static struct vmbus_channel *find(struct vmbus *b, const uint8_t *m)
{
    uint32_t relid = get_le32(m + MSG_RELID);
    struct vmbus_channel *ch = relid < VMBUS_RELID_COUNT ? b->channel[relid] : NULL;
    if (ch && ch->offered)
        return ch;
    count(b, COUNT_MALFORMED);
    return NULL;
}

static void on_released(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    struct vmbus_channel *ch = find(b, m);
    if (!ch)
        return;
    if (!ch->rescinded) {
        count(b, COUNT_MALFORMED);
        return;
    }
    /* Linux tears no GPADL down after a rescind: this is their end too. */
    for (struct gpadl *g = b->gpadls.first, *next; g; g = next) {
        next = g->next;
        if (g->relid == ch->relid && g->users == 0)
            gpadl_remove(&b->gpadls, g);
    }
    channel_free(ch);
}

/* ---- GPADLs ---- */

static void gpadl_answer(struct vmbus *b, uint32_t relid, uint32_t handle, bool good)
{
    send_words(b, VMBUS_MSG_GPADL_CREATED, VMBUS_SIZE_GPADL_CREATED, relid, handle, good ? 0 : 1);
}

/* All of it is there: is it sound? */
static void gpadl_finish(struct vmbus *b, struct gpadl *g)
{
    uint32_t relid = g->relid, handle = g->handle;
    bool good = gpadl_check(g) == 0;
    if (!good) {
        gpadl_remove(&b->gpadls, g);
        count(b, COUNT_MALFORMED);
    }
    gpadl_answer(b, relid, handle, good);
}

static void on_gpadl_header(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    struct vmbus_channel *ch = find(b, m);
    uint32_t relid = get_le32(m + MSG_RELID), handle = get_le32(m + GPADL_HANDLE);
    struct gpadl *g = NULL;
    int r = ch ? gpadl_begin(&b->gpadls, relid, handle, get_le16(m + GPADL_RANGE_BYTES),
                             get_le16(m + GPADL_RANGE_COUNT), m + GPADL_RANGES, len - GPADL_RANGES, &g)
               : -ENOENT;
    if (r < 0) {
        log_debug("vmbus", "GPADL 0x%x of channel %u refused: %d", handle, relid, r);
        gpadl_answer(b, relid, handle, false);
    } else if (gpadl_complete(g)) {
        gpadl_finish(b, g);
    }
}

static void on_gpadl_body(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    struct gpadl *g = gpadl_find(&b->gpadls, get_le32(m + GPADL_HANDLE));
    if (!g || gpadl_complete(g)) {
        count(b, COUNT_MALFORMED);
        return;
    }
    gpadl_add(g, m + GPADL_BODY_DATA, len - GPADL_BODY_DATA);
    if (gpadl_complete(g))
        gpadl_finish(b, g);
}

static void on_gpadl_teardown(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    uint32_t handle = get_le32(m + GPADL_HANDLE);
    struct gpadl *g = gpadl_find(&b->gpadls, handle);
    if (!g || g->ending) {
        count(b, COUNT_MALFORMED);
        return;
    }
    struct vmbus_channel *ch = g->relid < VMBUS_RELID_COUNT ? b->channel[g->relid] : NULL;
    if (ch && ch->open && ch->gpadl == g)
        channel_fault(ch, "the guest tore down the rings of an open channel");
    g->ending = true;
    if (g->users == 0) {
        gpadl_remove(&b->gpadls, g);
        message_gpadl_gone(b, handle);
    }
}

/* ---- open, close, modify ---- */

static void on_open(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    struct vmbus_channel *ch = find(b, m);
    uint32_t relid = get_le32(m + MSG_RELID), id = get_le32(m + OPEN_ID);
    int r = -ENOENT;
    if (ch && ch->rescinded)
        return;                         /* the rescind on its way wakes the guest */
    if (ch && !ch->open && !ch->dead && !ch->holds) {     /* held: a driver waits until its last GPADL is gone */
        struct gpadl *g = gpadl_find(&b->gpadls, get_le32(m + OPEN_GPADL));
        uint32_t vp = get_le32(m + OPEN_TARGET_VP);
        ch->open_id = id;
        ch->target_vp = vp;
        memcpy(ch->user, m + OPEN_USER, OPEN_USER_LEN);
        r = g && g->relid == relid && !g->ending && gpadl_complete(g) && (vp < b->cfg.vcpus || vp == UINT32_MAX)
                ? channel_open(ch, g, get_le32(m + OPEN_OUT_PAGE)) : -EINVAL;
    }
    send_words(b, VMBUS_MSG_OPEN_RESULT, VMBUS_SIZE_OPEN_RESULT, relid, id, r < 0);
    if (r < 0) {
        count(b, COUNT_MALFORMED);
        return;
    }
    log_debug("vmbus", "%s: open, VP %u", ch->name, ch->target_vp);
    ch->in_call = true;
    r = ch->ops && ch->ops->open ? ch->ops->open(ch->arg, ch->user) : 0;
    ch->in_call = false;
    if (r < 0)
        channel_fault(ch, "the device refused to be opened");
    else if (ch->fault)
        channel_fault(ch, ch->fault);
    else
        bus_mark(b, ch->relid);
}

static void on_close(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    struct vmbus_channel *ch = find(b, m);
    if (!ch)
        return;
    log_debug("vmbus", "%s: closed by the guest", ch->name);
    channel_shut(ch);
    ch->dead = false;
}

static void on_modify(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    struct vmbus_channel *ch = find(b, m);
    uint32_t vp = get_le32(m + MODIFY_VP);
    bool good = ch && ch->open && vp < b->cfg.vcpus && b->version >= VMBUS_VERSION_4_1;
    if (good) {
        ch->target_vp = vp;
        channel_signal(ch);             /* what was raised at the old VP is seen there; new things here */
    }
    if (b->version >= VMBUS_VERSION_5_3)
        send_words(b, VMBUS_MSG_MODIFY_RESPONSE, VMBUS_SIZE_MODIFY_RESPONSE, get_le32(m + MSG_RELID), !good, 0);
}

/* No hv_sock here: say so rather than let the guest wait. */
static void on_tl_connect(struct vmbus *b, const uint8_t *m, uint32_t len)
{
    uint8_t a[VMBUS_SIZE_TL_CONNECT_RESULT] = {0};
    put_le32(a, VMBUS_MSG_TL_CONNECT_RESULT);
    memcpy(a + TL_IDS, m + TL_IDS, TL_IDS_LEN);
    put_le32(a + TL_STATUS, 0xC0000236u);      /* STATUS_CONNECTION_REFUSED */
    message_send(b, a, sizeof(a));
}

/* ---- dispatch ---- */

typedef void message_fn(struct vmbus *b, const uint8_t *m, uint32_t len);
static const struct { message_fn *fn; uint16_t size; bool unconnected; } handlers[VMBUS_MSG_COUNT] = {
    [VMBUS_MSG_INITIATE_CONTACT]   = {on_contact, VMBUS_SIZE_INITIATE_CONTACT, true},
    [VMBUS_MSG_UNLOAD]             = {on_unload, VMBUS_SIZE_UNLOAD, true},
    [VMBUS_MSG_REQUEST_OFFERS]     = {on_request_offers, VMBUS_SIZE_REQUEST_OFFERS, false},
    [VMBUS_MSG_OPEN]               = {on_open, VMBUS_SIZE_OPEN, false},
    [VMBUS_MSG_CLOSE]              = {on_close, VMBUS_SIZE_CLOSE, false},
    [VMBUS_MSG_GPADL_HEADER]       = {on_gpadl_header, VMBUS_SIZE_GPADL_HEADER, false},
    [VMBUS_MSG_GPADL_BODY]         = {on_gpadl_body, VMBUS_SIZE_GPADL_BODY, false},
    [VMBUS_MSG_GPADL_TEARDOWN]     = {on_gpadl_teardown, VMBUS_SIZE_GPADL_TEARDOWN, false},
    [VMBUS_MSG_RELID_RELEASED]     = {on_released, VMBUS_SIZE_RELID_RELEASED, false},
    [VMBUS_MSG_MODIFY_CHANNEL]     = {on_modify, VMBUS_SIZE_MODIFY_CHANNEL, false},
    [VMBUS_MSG_TL_CONNECT_REQUEST] = {on_tl_connect, VMBUS_SIZE_TL_CONNECT_REQUEST, false},
};

static void handle(struct vmbus *b, const struct message *m)
{
    uint32_t type = get_le32(m->data);
    if (type >= VMBUS_MSG_COUNT || !handlers[type].fn || m->len < handlers[type].size ||
        (!b->connected && !handlers[type].unconnected)) {
        count(b, COUNT_MALFORMED);
        bus_fault(b, "vmbus", "a control message that makes no sense here");
        return;
    }
    handlers[type].fn(b, m->data, m->len);
}

void messages_handle(struct vmbus *b)
{
    for (unsigned n = 0; n < BUDGET_MESSAGES; n++) {
        struct message m;
        bool more = false;
        pthread_mutex_lock(&b->lock);
        if (b->in_count) {
            m = b->in[b->in_first];
            b->in_first = (b->in_first + 1) % QUEUE_IN;
            b->in_count--;
            more = true;
        }
        pthread_mutex_unlock(&b->lock);
        if (!more)
            return;
        handle(b, &m);
    }
    loop_post(b->loop, &b->post);
}
