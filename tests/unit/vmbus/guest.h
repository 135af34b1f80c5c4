/*
 * A guest's side of VMBus for tests: it posts control messages, owns rings in guest memory
 * and follows the producer's and consumer's rules of Linux' drivers. Memory, machine and bus
 * are the real ones, the SynIC is an array: messages arrive when the guest's slot is free.
 */
#ifndef TESTS_VMBUS_GUEST_H
#define TESTS_VMBUS_GUEST_H

#include "hv/vmbus/vmbus.h"
#include "tests/unit/machine/fake.h"

#define GUEST_RAM   (256 * MIB)
#define GUEST_VPS   4u
#define GUEST_POOL  ((gpa_t)(16 * MIB))      /* pages are given out from here on */

struct guest_message { uint16_t len; unsigned vp; uint8_t data[VMBUS_MESSAGE_MAX]; };

struct guest_channel {
    struct guest *g;
    uint32_t relid, connection, gpadl, pages, out_page;
    gpa_t ring;                     /* guest->host ring, then host->guest */
    uint32_t write, read;
    unsigned signals;               /* event flags that came */
};

struct guest {
    struct fake f;
    struct mem *mem;
    struct vmbus *bus;
    bool slot_busy;                 /* messages are not taken */
    unsigned slot_room;             /* or not more than so many; 0: any number */
    struct guest_message in[512];   /* delivered, oldest first */
    unsigned ins, taken;
    uint32_t version;
    struct { uint8_t m[VMBUS_SIZE_OFFER]; } offer[64];
    unsigned offers;
    gpa_t next_page;
    uint32_t next_gpadl;
    struct guest_channel ch[32];
    unsigned channels;
    unsigned signals[VMBUS_RELID_COUNT], signal_vp;
    void (*on_signal)(struct guest *g, unsigned flag);      /* in the middle of the host's work; NULL: nothing */
    unsigned faults;
    char fault[160];
};

static int guest_link_post(void *arg, unsigned vp, const void *payload, uint32_t len)
{
    struct guest *g = arg;
    if (g->slot_busy || (g->slot_room && g->ins >= g->slot_room))
        return -11;
    hv_assert(g->ins < ARRAY_SIZE(g->in));
    struct guest_message *m = &g->in[g->ins++];
    m->vp = vp;
    m->len = (uint16_t)len;
    memcpy(m->data, payload, len);
    return 0;
}

static void guest_link_signal(void *arg, unsigned vp, unsigned flag)
{
    struct guest *g = arg;
    g->signals[flag]++;
    g->signal_vp = vp;
    if (g->on_signal)
        g->on_signal(g, flag);
}

static void guest_fault(void *arg, const char *channel, const char *what)
{
    struct guest *g = arg;
    g->faults++;
    snprintf(g->fault, sizeof(g->fault), "%s: %s", channel, what);
}

static HV_UNUSED void guest_bus_new(struct guest *g)
{
    struct vmbus_config cfg = {.machine = g->f.m, .vcpus = GUEST_VPS,
                               .link = {guest_link_post, guest_link_signal, g}, .fault = guest_fault, .fault_arg = g};
    hv_assert(vmbus_new(&cfg, &g->bus, NULL) == 0);
}

static HV_UNUSED void guest_start(struct guest *g)
{
    memset(g, 0, sizeof(*g));
    hv_assert(mem_new("guest", -1, &g->mem, NULL) == 0 && mem_add_ram(g->mem, 0, GUEST_RAM, NULL) == 0);
    fake_start_mem(&g->f, g->mem);
    guest_bus_new(g);
    vmbus_resume(g->bus);
    g->next_page = GUEST_POOL;
    g->next_gpadl = 0xE1E10;
}

/* VSPs have gone before. */
static HV_UNUSED void guest_stop(struct guest *g)
{
    vmbus_free(g->bus);
    fake_stop(&g->f);
    mem_free(g->mem);
}

static HV_UNUSED void guest_turn(struct guest *g)
{
    fake_turn(&g->f);
}

/* ---- messages ---- */

static HV_UNUSED int guest_post(struct guest *g, const void *m, uint32_t len)
{
    uint32_t connection = g->version >= VMBUS_VERSION_5_0 ? VMBUS_CONNECTION_NEW : VMBUS_CONNECTION_OLD;
    int r = vmbus_post_message(g->bus, connection, VMBUS_MESSAGE_TYPE, m, len);
    guest_turn(g);
    return r;
}

/* Header and up to three words. */
static HV_UNUSED void guest_post_words(struct guest *g, uint32_t type, uint32_t len, uint32_t a, uint32_t b, uint32_t c)
{
    uint8_t m[VMBUS_MESSAGE_MAX] = {0};
    put_le32(m, type);
    put_le32(m + 8, a);
    put_le32(m + 12, b);
    put_le32(m + 16, c);
    hv_assert(guest_post(g, m, len) == 0);
}

/* The next message that has not been looked at; NULL: none. */
static HV_UNUSED const uint8_t *guest_next(struct guest *g)
{
    return g->taken < g->ins ? g->in[g->taken++].data : NULL;
}

static HV_UNUSED const uint8_t *guest_expect(struct guest *g, uint32_t type)
{
    const uint8_t *m = guest_next(g);
    hv_assert(m && get_le32(m) == type);
    return m;
}

/* True if the host takes the version. */
static HV_UNUSED bool guest_contact(struct guest *g, uint32_t version)
{
    uint8_t m[VMBUS_SIZE_INITIATE_CONTACT] = {0};
    put_le32(m, VMBUS_MSG_INITIATE_CONTACT);
    put_le32(m + CONTACT_VERSION, version);
    put_le32(m + CONTACT_VP, 1);
    if (version >= VMBUS_VERSION_5_0)
        m[CONTACT_SINT] = VMBUS_SINT;
    g->version = version;
    hv_assert(guest_post(g, m, sizeof(m)) == 0);
    const uint8_t *a = guest_expect(g, VMBUS_MSG_VERSION_RESPONSE);
    return a[VERSION_SUPPORTED] == 1 && a[VERSION_STATE] == 0;
}

static HV_UNUSED void guest_take_offers(struct guest *g)
{
    for (const uint8_t *m; (m = guest_next(g));)
        if (get_le32(m) == VMBUS_MSG_OFFER) {
            hv_assert(g->offers < ARRAY_SIZE(g->offer));
            memcpy(g->offer[g->offers++].m, m, VMBUS_SIZE_OFFER);
        } else {
            hv_assert(get_le32(m) == VMBUS_MSG_ALL_OFFERS_DELIVERED);
        }
}

static HV_UNUSED void guest_connect(struct guest *g)
{
    hv_assert(guest_contact(g, 0x00050003));
    g->offers = 0;
    guest_post_words(g, VMBUS_MSG_REQUEST_OFFERS, VMBUS_SIZE_REQUEST_OFFERS, 0, 0, 0);
    guest_take_offers(g);
}

/* relid of the offer with this class; 0: there is none. */
static HV_UNUSED uint32_t guest_find(struct guest *g, const struct guid *class_id)
{
    for (unsigned i = 0; i < g->offers; i++)
        if (memcmp(g->offer[i].m + OFFER_CLASS, class_id->b, 16) == 0)
            return get_le32(g->offer[i].m + OFFER_RELID);
    return 0;
}

/* ---- memory ---- */

static HV_UNUSED gpa_t guest_pages(struct guest *g, unsigned n)
{
    gpa_t at = g->next_page;
    g->next_page += n * HV_PAGE_SIZE;
    hv_assert(g->next_page <= GUEST_RAM);
    return at;
}

/* Describe pages that follow each other; the handle, or 0 if it was refused. */
static HV_UNUSED uint32_t guest_gpadl(struct guest *g, uint32_t relid, gpa_t gpa, uint32_t pages)
{
    uint8_t m[VMBUS_MESSAGE_MAX] = {0};
    uint32_t handle = g->next_gpadl++, done = MIN(pages, 26u);
    put_le32(m, VMBUS_MSG_GPADL_HEADER);
    put_le32(m + MSG_RELID, relid);
    put_le32(m + GPADL_HANDLE, handle);
    put_le16(m + GPADL_RANGE_BYTES, (uint16_t)(8 + 8 * pages));
    put_le16(m + GPADL_RANGE_COUNT, 1);
    put_le32(m + GPADL_RANGES, pages * (uint32_t)HV_PAGE_SIZE);
    for (uint32_t i = 0; i < done; i++)
        put_le64(m + GPADL_RANGES + 8 + 8 * i, (gpa >> HV_PAGE_SHIFT) + i);
    hv_assert(guest_post(g, m, GPADL_RANGES + 8 + 8 * done) == 0);
    while (done < pages) {
        uint32_t n = MIN(pages - done, 28u);
        memset(m, 0, sizeof(m));
        put_le32(m, VMBUS_MSG_GPADL_BODY);
        put_le32(m + GPADL_HANDLE, handle);
        for (uint32_t i = 0; i < n; i++)
            put_le64(m + GPADL_BODY_DATA + 8 * i, (gpa >> HV_PAGE_SHIFT) + done + i);
        hv_assert(guest_post(g, m, GPADL_BODY_DATA + 8 * n) == 0);
        done += n;
    }
    const uint8_t *a = guest_expect(g, VMBUS_MSG_GPADL_CREATED);
    hv_assert(get_le32(a + MSG_RELID) == relid && get_le32(a + GPADL_HANDLE) == handle);
    return get_le32(a + GPADL_STATUS) == 0 ? handle : 0;
}

/* ---- channels ---- */

static uint32_t guest_get(struct guest *g, gpa_t gpa)
{
    uint8_t b[4];
    hv_assert(mem_read(g->mem, gpa, b, 4) == 0);
    return get_le32(b);
}

static void guest_set(struct guest *g, gpa_t gpa, uint32_t v)
{
    uint8_t b[4];
    put_le32(b, v);
    hv_assert(mem_write(g->mem, gpa, b, 4) == 0);
}

/* OPENCHANNEL; the host's status. */
static HV_UNUSED uint32_t guest_open_raw(struct guest *g, uint32_t relid, uint32_t gpadl, uint32_t vp, uint32_t out_page)
{
    uint8_t m[VMBUS_SIZE_OPEN] = {0};
    put_le32(m, VMBUS_MSG_OPEN);
    put_le32(m + MSG_RELID, relid);
    put_le32(m + OPEN_ID, relid);
    put_le32(m + OPEN_GPADL, gpadl);
    put_le32(m + OPEN_TARGET_VP, vp);
    put_le32(m + OPEN_OUT_PAGE, out_page);
    hv_assert(guest_post(g, m, sizeof(m)) == 0);
    const uint8_t *a = guest_expect(g, VMBUS_MSG_OPEN_RESULT);
    hv_assert(get_le32(a + MSG_RELID) == relid && get_le32(a + OPEN_ID) == relid);
    return get_le32(a + OPEN_STATUS);
}

/* pages: of each ring, its header included. */
static HV_UNUSED struct guest_channel *guest_open(struct guest *g, uint32_t relid, uint32_t pages)
{
    hv_assert(relid && g->channels < ARRAY_SIZE(g->ch));
    struct guest_channel *c = &g->ch[g->channels++];
    *c = (struct guest_channel){.g = g, .relid = relid, .connection = relid | VMBUS_SINT << 12, .pages = pages,
                                .ring = guest_pages(g, 2 * pages)};
    c->gpadl = guest_gpadl(g, relid, c->ring, 2 * pages);
    hv_assert(c->gpadl);
    guest_set(g, c->ring + RING_FEATURES, 1);
    guest_set(g, c->ring + pages * HV_PAGE_SIZE + RING_FEATURES, 1);
    hv_assert(guest_open_raw(g, relid, c->gpadl, relid % GUEST_VPS, pages) == 0);
    return c;
}

static HV_UNUSED void guest_close(struct guest_channel *c)
{
    guest_post_words(c->g, VMBUS_MSG_CLOSE, VMBUS_SIZE_CLOSE, c->relid, 0, 0);
    guest_post_words(c->g, VMBUS_MSG_GPADL_TEARDOWN, VMBUS_SIZE_GPADL_TEARDOWN, c->relid, c->gpadl, 0);
    const uint8_t *a = guest_expect(c->g, VMBUS_MSG_GPADL_TORNDOWN);
    hv_assert(get_le32(a + GPADL_GONE_HANDLE) == c->gpadl);
}

static gpa_t guest_in_ring(const struct guest_channel *c) { return c->ring + c->pages * HV_PAGE_SIZE; }
static uint32_t guest_ring_size(const struct guest_channel *c) { return (c->pages - 1) * (uint32_t)HV_PAGE_SIZE; }

static void guest_ring_copy(struct guest_channel *c, gpa_t ring, uint32_t at, uint8_t *p, uint32_t len, bool write)
{
    for (uint32_t i = 0; i < len; i += 8) {     /* whole words: where the ring wraps does not matter */
        gpa_t gpa = ring + HV_PAGE_SIZE + (at + i) % guest_ring_size(c);
        hv_assert((write ? mem_write(c->g->mem, gpa, p + i, 8) : mem_read(c->g->mem, gpa, p + i, 8)) == 0);
    }
}

/* Room in the ring towards the host. */
static HV_UNUSED uint32_t guest_room(struct guest_channel *c)
{
    uint32_t read = guest_get(c->g, c->ring + RING_READ), size = guest_ring_size(c);
    return read > c->write ? read - c->write : size - (c->write - read);
}

/* Write a packet as Linux does; false: no room. extra stands before the payload, a multiple of 8. */
static HV_UNUSED bool guest_send_raw(struct guest_channel *c, uint16_t type, uint16_t flags, uint64_t transaction,
                                     const void *extra, uint32_t extra_len, const void *data, uint32_t len)
{
    static uint8_t p[80 * 1024];
    struct guest *g = c->g;
    uint32_t total = (uint32_t)ROUND_UP(16 + extra_len + len, 8);
    hv_assert(extra_len % 8 == 0 && total + 8 <= sizeof(p));
    if (guest_room(c) <= total + 8)
        return false;
    memset(p, 0, total + 8);
    put_le16(p, type);
    put_le16(p + 2, (uint16_t)((16 + extra_len) / 8));
    put_le16(p + 4, (uint16_t)(total / 8));
    put_le16(p + 6, flags);
    put_le64(p + 8, transaction);
    if (extra_len)
        memcpy(p + 16, extra, extra_len);
    if (len)
        memcpy(p + 16 + extra_len, data, len);
    put_le32(p + total + 4, c->write);
    uint32_t old = c->write;
    guest_ring_copy(c, c->ring, old, p, total + 8, true);
    c->write = (old + total + 8) % guest_ring_size(c);
    guest_set(g, c->ring + RING_WRITE, c->write);
    if (guest_get(g, c->ring + RING_MASK) == 0 && guest_get(g, c->ring + RING_READ) == old)
        hv_assert(vmbus_signal_event(g->bus, c->connection, 0) == 0);
    return true;
}

static HV_UNUSED void guest_send(struct guest_channel *c, uint64_t transaction, const void *data, uint32_t len)
{
    hv_assert(guest_send_raw(c, VMBUS_PKT_INBAND, 0, transaction, NULL, 0, data, len));
    guest_turn(c->g);
}

/* The host's next packet: its payload to data[size]; the length, or -1 if there is none. */
static HV_UNUSED int guest_recv(struct guest_channel *c, uint16_t *ret_type, uint64_t *ret_transaction, void *data,
                                uint32_t size)
{
    static uint8_t p[80 * 1024];
    struct guest *g = c->g;
    gpa_t ring = guest_in_ring(c);
    uint32_t w = guest_get(g, ring + RING_WRITE);
    if (w == c->read)
        return -1;
    guest_ring_copy(c, ring, c->read, p, 16, false);
    uint32_t total = get_le16(p + 4) * 8u, at = get_le16(p + 2) * 8u;
    hv_assert(total >= 16 && at >= 16 && at <= total && total < sizeof(p) && total - at <= size);
    guest_ring_copy(c, ring, c->read, p, total, false);
    memcpy(data, p + at, total - at);
    if (ret_type)
        *ret_type = get_le16(p);
    if (ret_transaction)
        *ret_transaction = get_le64(p + 8);
    uint32_t before = w >= c->read ? guest_ring_size(c) - (w - c->read) : c->read - w;
    c->read = (c->read + total + 8) % guest_ring_size(c);
    guest_set(g, ring + RING_READ, c->read);
    uint32_t want = guest_get(g, ring + RING_PENDING), now = before + total + 8;
    if (want && before <= want && now > want) {
        hv_assert(vmbus_signal_event(g->bus, c->connection, 0) == 0);
        guest_turn(g);
    }
    return (int)(total - at);
}

#endif
