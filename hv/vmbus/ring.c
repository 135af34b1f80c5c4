/* Ring buffers: see ring.h for the rules. Barriers are named where they pair. */
#include "hv/vmbus/ring.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/vmbus/vmbus_proto.h"

static _Atomic uint32_t *field(const struct ring *r, unsigned off)
{
    return (_Atomic uint32_t *)(void *)(r->page[0] + off);
}

static uint32_t field_load(const struct ring *r, unsigned off, int order)
{
    return le32toh(__atomic_load_n((uint32_t *)field(r, off), order));
}

/* Every store to the guest's page is told to the memory's listeners (dirty log, dropped code). */
static void field_store(struct ring *r, unsigned off, uint32_t v, int order)
{
    __atomic_store_n((uint32_t *)field(r, off), htole32(v), order);
    const struct mem_pin *pin = &r->pin[r->pin_of[0]];
    mem_pin_written(pin, (uint64_t)(r->page[0] - (uint8_t *)pin->hva) + off, 4);
}

/* One pin for each run of adjacent pages. */
static int pin_pages(struct ring *r, struct mem *m, const uint64_t *pfn, uint32_t pages)
{
    for (uint32_t at = 0; at < pages;) {
        uint32_t n = 1;
        while (at + n < pages && pfn[at + n] == pfn[at] + n)
            n++;
        if (pfn[at] > UINT64_MAX >> HV_PAGE_SHIFT)
            return -EFAULT;
        struct mem_pin *pin = &r->pin[r->pins];
        int e = mem_pin(m, pfn[at] << HV_PAGE_SHIFT, n * HV_PAGE_SIZE, MEM_WRITE, pin);
        if (e == -EFAULT && n > 1) {        /* adjacent pages may lie in two regions */
            n = 1;
            e = mem_pin(m, pfn[at] << HV_PAGE_SHIFT, HV_PAGE_SIZE, MEM_WRITE, pin);
        }
        if (e < 0)
            return e;
        for (uint32_t i = 0; i < n; i++) {
            r->page[at + i] = (uint8_t *)pin->hva + i * HV_PAGE_SIZE;
            r->pin_of[at + i] = r->pins;
        }
        r->pins++;
        at += n;
    }
    return 0;
}

int ring_init(struct ring *r, struct mem *m, const uint64_t *pfn, uint32_t pages, bool incoming)
{
    *r = (struct ring){0};
    if (pages < 2 || pages > RING_MAX_PAGES)
        return -EINVAL;
    r->pin = hv_alloc_array(pages, sizeof(*r->pin));
    r->page = hv_alloc_array(pages, sizeof(*r->page));
    r->pin_of = hv_alloc_array(pages, sizeof(*r->pin_of));
    int e = r->pin && r->page && r->pin_of ? pin_pages(r, m, pfn, pages) : -ENOMEM;
    if (e == 0) {
        r->pages = pages;
        r->size = (pages - 1) * (uint32_t)HV_PAGE_SIZE;
        r->own = r->published = field_load(r, incoming ? RING_READ : RING_WRITE, __ATOMIC_RELAXED);
        if (!ring_index_ok(r, r->own))
            r->own = r->published = 0;  /* drivers start at 0; this one does not follow the rules */
    } else {
        ring_fini(r);
    }
    return e;
}

void ring_fini(struct ring *r)
{
    for (unsigned i = 0; i < r->pins; i++)
        mem_unpin(&r->pin[i]);
    free(r->pin);
    free(r->page);
    free(r->pin_of);
    *r = (struct ring){0};
}

/* Copy between buf[len] and the data area at index at, which wraps. */
static void copy_out(const struct ring *r, uint32_t at, void *buf, uint32_t len)
{
    uint8_t *p = buf;
    while (len) {
        uint32_t off = at % HV_PAGE_SIZE, n = MIN(len, (uint32_t)HV_PAGE_SIZE - off);
        memcpy(p, r->page[1 + at / HV_PAGE_SIZE] + off, n);
        p += n;
        len -= n;
        at = (at + n) % r->size;
    }
}

static void copy_in(struct ring *r, uint32_t at, const void *buf, uint32_t len)
{
    const uint8_t *p = buf;
    while (len) {
        uint32_t page = 1 + at / (uint32_t)HV_PAGE_SIZE;
        uint32_t off = at % HV_PAGE_SIZE, n = MIN(len, (uint32_t)HV_PAGE_SIZE - off);
        const struct mem_pin *pin = &r->pin[r->pin_of[page]];
        memcpy(r->page[page] + off, p, n);
        mem_pin_written(pin, (uint64_t)(r->page[page] - (uint8_t *)pin->hva) + off, n);
        p += n;
        len -= n;
        at = (at + n) % r->size;
    }
}

static uint32_t advance(const struct ring *r, uint32_t at, uint32_t len)
{
    return (uint32_t)(((uint64_t)at + len) % r->size);
}

/* Bytes from index a to index b. */
static uint32_t distance(const struct ring *r, uint32_t a, uint32_t b)
{
    return b >= a ? b - a : r->size - a + b;
}

/* ---- incoming ---- */

int64_t ring_readable(const struct ring *r)
{
    /* Acquire: pairs with the guest's publication of its write index; packets are there before it. */
    uint32_t w = field_load(r, RING_WRITE, __ATOMIC_ACQUIRE);
    return ring_index_ok(r, w) ? (int64_t)distance(r, r->own, w) : -EPROTO;
}

int ring_read(struct ring *r, void *buf, uint32_t size, struct ring_packet *ret)
{
    uint8_t desc[PKT_HEADER];
    int64_t avail = ring_readable(r);
    if (avail < 0)
        return (int)avail;
    if (avail == 0)
        return -EAGAIN;
    if (avail < PKT_HEADER + PKT_TRAILER)
        return -EPROTO;
    copy_out(r, r->own, desc, sizeof(desc));
    struct ring_packet p = {
        .type = get_le16(desc + PKT_TYPE),
        .flags = get_le16(desc + PKT_FLAGS),
        .transaction = get_le64(desc + PKT_TRANSACTION),
        .len = get_le16(desc + PKT_LEN8) * 8u,
        .offset = get_le16(desc + PKT_OFFSET8) * 8u,
    };
    if (p.offset < PKT_HEADER || p.offset > p.len || p.len > (uint64_t)avail - PKT_TRAILER)
        return -EPROTO;
    if (p.len > size)
        return -EMSGSIZE;
    /* The descriptor is taken from the copy that was checked, not read a second time. */
    memcpy(buf, desc, sizeof(desc));
    copy_out(r, advance(r, r->own, PKT_HEADER), (uint8_t *)buf + PKT_HEADER, p.len - PKT_HEADER);
    *ret = p;
    return 0;
}

void ring_consume(struct ring *r, const struct ring_packet *p)
{
    r->own = advance(r, r->own, p->len + PKT_TRAILER);
}

bool ring_publish(struct ring *r)
{
    if (r->own == r->published)
        return false;
    uint32_t freed = distance(r, r->published, r->own);
    /* Release: our reads of the packets come before the guest may overwrite them. */
    field_store(r, RING_READ, r->own, __ATOMIC_RELEASE);
    r->published = r->own;
    /* Full: pairs with the guest's barrier between its pending size and its second look at our index. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint32_t want = field_load(r, RING_PENDING, __ATOMIC_RELAXED);
    if (!want)
        return false;
    uint32_t w = field_load(r, RING_WRITE, __ATOMIC_ACQUIRE);
    if (!ring_index_ok(r, w))
        return true;                    /* the next read will say what is wrong */
    uint32_t room = r->size - distance(r, r->own, w);
    /* Only when this batch made the difference; at the border rather once too often. */
    return room >= want && (room < freed || room - freed <= want);
}

void ring_mask(struct ring *r, bool masked)
{
    field_store(r, RING_MASK, masked, __ATOMIC_RELAXED);
    /* Full: pairs with the guest's barrier between its write index and its look at the mask. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- outgoing ---- */

/* Room for packets, with the one byte that keeps a full ring apart from an empty one; -EPROTO. */
static int64_t room(const struct ring *r)
{
    /* Acquire: the guest has read what it frees. */
    uint32_t at = field_load(r, RING_READ, __ATOMIC_ACQUIRE);
    return ring_index_ok(r, at) ? (int64_t)(r->size - distance(r, at, r->own)) : -EPROTO;
}

/* Tell the guest how much we wait for, then look again: it may have read in between. */
static int wait_for(struct ring *r, uint32_t need)
{
    r->wait = need;
    field_store(r, RING_PENDING, need, __ATOMIC_RELAXED);
    /* Full: pairs with the guest's barrier between its read index and its look at the size. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    int64_t now = room(r);
    if (now < 0)
        return (int)now;
    if (now <= need)
        return -EAGAIN;
    ring_stop_waiting(r);
    return 0;
}

int ring_write(struct ring *r, uint16_t type, uint16_t flags, uint64_t transaction, uint32_t payload_at,
               const struct iovec *iov, unsigned n, bool *ret_signal)
{
    uint64_t body = 0;
    for (unsigned i = 0; i < n; i++)
        body += iov[i].iov_len;
    uint64_t len = ROUND_UP(PKT_HEADER + body, 8);
    hv_assert(payload_at >= PKT_HEADER && payload_at % 8 == 0 && payload_at <= len);
    if (len / 8 > UINT16_MAX || len + PKT_TRAILER >= r->size)
        return -EMSGSIZE;
    uint32_t need = (uint32_t)len + PKT_TRAILER;
    int64_t now = room(r);
    if (now >= 0 && now <= need)
        now = wait_for(r, need);
    if (now < 0)
        return (int)now;

    uint8_t desc[PKT_HEADER], trailer[PKT_TRAILER] = {0};
    static const uint8_t zero[8];
    uint32_t start = r->own, at = start;
    put_le16(desc + PKT_TYPE, type);
    put_le16(desc + PKT_OFFSET8, (uint16_t)(payload_at / 8));
    put_le16(desc + PKT_LEN8, (uint16_t)(len / 8));
    put_le16(desc + PKT_FLAGS, flags);
    put_le64(desc + PKT_TRANSACTION, transaction);
    copy_in(r, at, desc, sizeof(desc));
    at = advance(r, at, sizeof(desc));
    for (unsigned i = 0; i < n; i++) {
        copy_in(r, at, iov[i].iov_base, (uint32_t)iov[i].iov_len);
        at = advance(r, at, (uint32_t)iov[i].iov_len);
    }
    uint32_t pad = (uint32_t)(len - PKT_HEADER - body);
    copy_in(r, at, zero, pad);
    at = advance(r, at, pad);
    put_le32(trailer + 4, start);
    copy_in(r, at, trailer, sizeof(trailer));
    r->own = r->published = advance(r, at, sizeof(trailer));

    /* Release: the packet is there before the index says so. */
    field_store(r, RING_WRITE, r->own, __ATOMIC_RELEASE);
    /* Full: pairs with the guest's barrier between clearing its mask and its look at our index. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    /*
     * A signal is due on the edge from empty; one too many is harmless, and channels whose guest
     * takes one packet an interrupt (guest-abi 6.4.1) need one for every packet.
     */
    *ret_signal = field_load(r, RING_MASK, __ATOMIC_RELAXED) == 0;
    return 0;
}

bool ring_has_room(const struct ring *r)
{
    int64_t now = room(r);
    return now < 0 || now > r->wait;
}

void ring_stop_waiting(struct ring *r)
{
    r->wait = 0;
    field_store(r, RING_PENDING, 0, __ATOMIC_RELAXED);
}

bool ring_peer_honours_pending(const struct ring *r)
{
    return field_load(r, RING_FEATURES, __ATOMIC_RELAXED) & RING_FEATURE_PENDING;
}
