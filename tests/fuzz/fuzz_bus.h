/*
 * What fuzzers that play a guest on VMBus share: the input as a program, and the steps of a
 * driver, right or nearly so. Each relid has rings of its own in guest memory.
 */
#ifndef TESTS_FUZZ_FUZZ_BUS_H
#define TESTS_FUZZ_FUZZ_BUS_H

#include "tests/unit/vmbus/guest.h"

enum { FUZZ_RELIDS = 8, FUZZ_RING_PAGES = 4 };         /* pages each way */

struct fuzz_bus {
    struct guest g;
    const uint8_t *p, *end;
    gpa_t ring[FUZZ_RELIDS];           /* 0: was never opened */
    uint32_t write[FUZZ_RELIDS], handle[FUZZ_RELIDS];
};

static uint64_t fuzz_take(struct fuzz_bus *b, unsigned n)
{
    uint64_t v = 0;
    for (; n && b->p < b->end; n--)
        v = v << 8 | *b->p++;
    return v;
}

static HV_UNUSED void fuzz_fill(struct fuzz_bus *b, uint8_t *m, uint32_t len)
{
    for (uint32_t i = 0; i < len && b->p < b->end; i++)
        m[i] = *b->p++;
}

static void fuzz_post(struct fuzz_bus *b, const uint8_t *m, uint32_t len)
{
    b->g.ins = b->g.taken = 0;
    (void)vmbus_post_message(b->g.bus, VMBUS_CONNECTION_NEW, VMBUS_MESSAGE_TYPE, m, len);
    guest_turn(&b->g);
}

static HV_UNUSED void fuzz_contact(struct fuzz_bus *b)
{
    uint8_t m[VMBUS_SIZE_INITIATE_CONTACT] = {VMBUS_MSG_INITIATE_CONTACT};
    put_le32(m + CONTACT_VERSION, 0x00050003);
    m[CONTACT_SINT] = VMBUS_SINT;
    fuzz_post(b, m, sizeof(m));
    uint8_t r[8] = {VMBUS_MSG_REQUEST_OFFERS};
    fuzz_post(b, r, sizeof(r));
}

/* Open a channel as a driver does, with a GPADL handle of its own each time. */
static HV_UNUSED void fuzz_open(struct fuzz_bus *b, uint32_t relid)
{
    struct guest *g = &b->g;
    uint8_t m[VMBUS_MESSAGE_MAX] = {VMBUS_MSG_GPADL_HEADER}, o[VMBUS_SIZE_OPEN] = {VMBUS_MSG_OPEN};
    static const uint8_t zero[HV_PAGE_SIZE];
    uint32_t handle = g->next_gpadl++, pages = 2 * FUZZ_RING_PAGES;
    b->handle[relid] = handle;
    b->ring[relid] = GUEST_POOL + relid * pages * HV_PAGE_SIZE;
    b->write[relid] = 0;
    mem_write(g->mem, b->ring[relid], zero, sizeof(zero));
    mem_write(g->mem, b->ring[relid] + FUZZ_RING_PAGES * HV_PAGE_SIZE, zero, sizeof(zero));
    put_le32(m + MSG_RELID, relid);
    put_le32(m + GPADL_HANDLE, handle);
    put_le16(m + GPADL_RANGE_BYTES, (uint16_t)(8 + 8 * pages));
    put_le16(m + GPADL_RANGE_COUNT, 1);
    put_le32(m + GPADL_RANGES, pages * (uint32_t)HV_PAGE_SIZE);
    for (uint32_t i = 0; i < pages; i++)
        put_le64(m + GPADL_RANGES + 8 + 8 * i, (b->ring[relid] >> HV_PAGE_SHIFT) + i);
    fuzz_post(b, m, GPADL_RANGES + 8 + 8 * pages);
    put_le32(o + MSG_RELID, relid);
    put_le32(o + OPEN_GPADL, handle);
    put_le32(o + OPEN_OUT_PAGE, FUZZ_RING_PAGES);
    fuzz_post(b, o, sizeof(o));
}

static HV_UNUSED void fuzz_close(struct fuzz_bus *b, uint32_t relid)
{
    uint8_t m[VMBUS_SIZE_CLOSE] = {VMBUS_MSG_CLOSE};
    put_le32(m + MSG_RELID, relid);
    fuzz_post(b, m, sizeof(m));
}

/* How a packet's descriptor and index are made wrong. */
enum { FUZZ_DIRECT = 1, FUZZ_OFFSET = 2, FUZZ_LEN = 4, FUZZ_TRANSACTION = 8, FUZZ_WRITE = 16 };

/* One packet: extra header and payload in data[len], payload at payload_at, right but for what `twist` says. */
static HV_UNUSED void fuzz_packet_at(struct fuzz_bus *b, uint32_t relid, const uint8_t *data, uint32_t len,
                                     uint32_t payload_at, uint8_t twist)
{
    struct guest *g = &b->g;
    uint8_t p[4200] = {0};
    uint32_t total = (uint32_t)ROUND_UP(PKT_HEADER + len, 8), size = (FUZZ_RING_PAGES - 1) * (uint32_t)HV_PAGE_SIZE;
    if (!b->ring[relid] || total + PKT_TRAILER > sizeof(p))
        return;
    put_le16(p, twist & FUZZ_DIRECT ? VMBUS_PKT_GPA_DIRECT : VMBUS_PKT_INBAND);
    put_le16(p + PKT_OFFSET8, twist & FUZZ_OFFSET ? (uint16_t)fuzz_take(b, 2) : (uint16_t)(payload_at / 8));
    put_le16(p + PKT_LEN8, twist & FUZZ_LEN ? (uint16_t)fuzz_take(b, 2) : (uint16_t)(total / 8));
    put_le64(p + PKT_TRANSACTION, twist & FUZZ_TRANSACTION ? fuzz_take(b, 1) : 1);
    memcpy(p + PKT_HEADER, data, len);
    for (uint32_t i = 0; i < total + PKT_TRAILER; i += 8)
        mem_write(g->mem, b->ring[relid] + HV_PAGE_SIZE + (b->write[relid] + i) % size, p + i, 8);
    b->write[relid] = (b->write[relid] + total + PKT_TRAILER) % size;
    guest_set(g, b->ring[relid] + RING_WRITE, twist & FUZZ_WRITE ? (uint32_t)fuzz_take(b, 4) : b->write[relid]);
    vmbus_signal_event(g->bus, relid | VMBUS_SINT << 12, 0);
    guest_turn(g);
}

static HV_UNUSED void fuzz_packet(struct fuzz_bus *b, uint32_t relid, const uint8_t *data, uint32_t len, uint8_t twist)
{
    fuzz_packet_at(b, relid, data, len, PKT_HEADER, twist);
}

/* Take what the host answered, or leave it: a ring that is never read fills up. */
static HV_UNUSED void fuzz_read_answers(struct fuzz_bus *b, uint32_t relid)
{
    gpa_t in = b->ring[relid] + FUZZ_RING_PAGES * HV_PAGE_SIZE;
    if (!b->ring[relid])
        return;
    guest_set(&b->g, in + RING_READ, guest_get(&b->g, in + RING_WRITE));
    vmbus_signal_event(b->g.bus, relid | VMBUS_SINT << 12, 0);
    guest_turn(&b->g);
}

/*
 * Pause, save, load, go on. flip: a byte at this place of the state is another one (0: none).
 * False: the state was refused and the machine reset.
 */
static HV_UNUSED bool fuzz_save_load(struct fuzz_bus *b, uint32_t flip, uint8_t by)
{
    struct guest *g = &b->g;
    struct save_writer w;
    struct load_reader r;
    struct hv_error e = {0};
    vmbus_pause(g->bus);
    machine_clock_pause(g->f.m);
    save_init(&w);
    machine_save(g->f.m, &w);
    if (flip && flip % w.out.len >= 8)
        w.out.buf[flip % w.out.len] ^= (char)by;
    bool good = load_init(&r, w.out.buf, w.out.len, &e) < 0 || machine_load(g->f.m, &r, &e) == 0;
    if (!good)
        machine_reset(g->f.m);
    save_fini(&w);
    machine_clock_resume(g->f.m);
    vmbus_resume(g->bus);
    guest_turn(g);
    return good;
}

static HV_UNUSED void fuzz_reset(struct fuzz_bus *b)
{
    vmbus_pause(b->g.bus);
    machine_reset(b->g.f.m);
    vmbus_resume(b->g.bus);
    guest_turn(&b->g);
}

#endif
