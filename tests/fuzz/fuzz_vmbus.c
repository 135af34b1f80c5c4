/*
 * A hostile guest on VMBus: the input is a program of steps, each a byte and what it needs.
 * Messages are arbitrary or nearly right, rings are opened as they should be and then written
 * to at random, dynamic memory is answered with ranges of the input's choosing, and in
 * between the VM is reset, paused, and saved and loaded. Besides memory safety: what the
 * guest has assigned stays within what it may have, and a good guest can always start anew.
 */
#include "hv/vsp/dynmem.h"
#include "hv/vsp/dynmem_proto.h"
#include "hv/vsp/heartbeat.h"
#include "hv/vsp/shutdown.h"
#include "hv/vsp/timesync.h"
#include "tests/unit/vmbus/guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define FUZZ_MAX_RAM (1 * GIB)
#define FUZZ_HOT     ((gpa_t)(5 * GIB))

struct fuzz {
    struct guest g;
    struct heartbeat *heartbeat;
    struct shutdown *shutdown;
    struct timesync *timesync;
    struct dynmem *dynmem;
    const uint8_t *p, *end;
    gpa_t ring[5];                     /* of relids 1..4 */
    uint32_t write[5];
};

enum { FUZZ_RING_PAGES = 4 };          /* each way */

/* How far programs get: a target that is refused at its first step proves nothing. */
static HV_UNUSED struct { unsigned ballooned, hot_added, beats, faults, loads, unballooned; } fuzz_seen;

static uint64_t fuzz_take(struct fuzz *f, unsigned n)
{
    uint64_t v = 0;
    for (; n && f->p < f->end; n--)
        v = v << 8 | *f->p++;
    return v;
}

static void fuzz_fill(struct fuzz *f, uint8_t *m, uint32_t len)
{
    for (uint32_t i = 0; i < len && f->p < f->end; i++)
        m[i] = *f->p++;
}

static uint64_t fuzz_reference(void *arg) { return 1; }

static void fuzz_devices(struct fuzz *f)
{
    struct guest *g = &f->g;
    struct dynmem_config cfg = {.bus = g->bus, .low_bytes = GUEST_RAM, .hot_base = FUZZ_HOT,
                                .hot_top = FUZZ_HOT + 4 * GIB, .max_bytes = FUZZ_MAX_RAM};
    hv_assert(heartbeat_new(g->bus, NULL, NULL, &f->heartbeat, NULL) == 0);
    hv_assert(shutdown_new(g->bus, &f->shutdown, NULL) == 0);
    hv_assert(timesync_new(g->bus, fuzz_reference, NULL, &f->timesync, NULL) == 0);
    hv_assert(dynmem_new(&cfg, &f->dynmem, NULL) == 0);
}

static void fuzz_no_devices(struct fuzz *f)
{
    heartbeat_free(f->heartbeat);
    shutdown_free(f->shutdown);
    timesync_free(f->timesync);
    dynmem_free(f->dynmem);
}

static void fuzz_post(struct fuzz *f, const uint8_t *m, uint32_t len)
{
    f->g.ins = f->g.taken = 0;
    (void)vmbus_post_message(f->g.bus, VMBUS_CONNECTION_NEW, VMBUS_MESSAGE_TYPE, m, len);
    guest_turn(&f->g);
}

static void fuzz_contact(struct fuzz *f)
{
    uint8_t m[VMBUS_SIZE_INITIATE_CONTACT] = {VMBUS_MSG_INITIATE_CONTACT};
    put_le32(m + CONTACT_VERSION, 0x00050003);
    m[CONTACT_SINT] = VMBUS_SINT;
    fuzz_post(f, m, sizeof(m));
    uint8_t r[8] = {VMBUS_MSG_REQUEST_OFFERS};
    fuzz_post(f, r, sizeof(r));
}

/* Open a channel as a driver does, with a GPADL handle of its own each time. */
static void fuzz_open(struct fuzz *f, uint32_t relid)
{
    struct guest *g = &f->g;
    uint8_t m[VMBUS_MESSAGE_MAX] = {VMBUS_MSG_GPADL_HEADER}, o[VMBUS_SIZE_OPEN] = {VMBUS_MSG_OPEN};
    static const uint8_t zero[HV_PAGE_SIZE];
    uint32_t handle = g->next_gpadl++, pages = 2 * FUZZ_RING_PAGES;
    f->ring[relid] = GUEST_POOL + relid * pages * HV_PAGE_SIZE;
    f->write[relid] = 0;
    mem_write(g->mem, f->ring[relid], zero, sizeof(zero));
    mem_write(g->mem, f->ring[relid] + FUZZ_RING_PAGES * HV_PAGE_SIZE, zero, sizeof(zero));
    put_le32(m + MSG_RELID, relid);
    put_le32(m + GPADL_HANDLE, handle);
    put_le16(m + GPADL_RANGE_BYTES, (uint16_t)(8 + 8 * pages));
    put_le16(m + GPADL_RANGE_COUNT, 1);
    put_le32(m + GPADL_RANGES, pages * (uint32_t)HV_PAGE_SIZE);
    for (uint32_t i = 0; i < pages; i++)
        put_le64(m + GPADL_RANGES + 8 + 8 * i, (f->ring[relid] >> HV_PAGE_SHIFT) + i);
    fuzz_post(f, m, GPADL_RANGES + 8 + 8 * pages);
    put_le32(o + MSG_RELID, relid);
    put_le32(o + OPEN_GPADL, handle);
    put_le32(o + OPEN_OUT_PAGE, FUZZ_RING_PAGES);
    fuzz_post(f, o, sizeof(o));
}

/* One packet with this payload, well formed but for what `twist` says. */
static void fuzz_packet(struct fuzz *f, uint32_t relid, const uint8_t *data, uint32_t len, uint8_t twist)
{
    struct guest *g = &f->g;
    uint8_t p[4200] = {0};
    uint32_t total = (uint32_t)ROUND_UP(16 + len, 8), size = (FUZZ_RING_PAGES - 1) * (uint32_t)HV_PAGE_SIZE;
    if (!f->ring[relid] || total + 8 > sizeof(p))
        return;
    put_le16(p, twist & 1 ? VMBUS_PKT_GPA_DIRECT : VMBUS_PKT_INBAND);
    put_le16(p + 2, twist & 2 ? (uint16_t)fuzz_take(f, 2) : 2);
    put_le16(p + 4, twist & 4 ? (uint16_t)fuzz_take(f, 2) : (uint16_t)(total / 8));
    put_le64(p + 8, twist & 8 ? fuzz_take(f, 1) : 1);
    memcpy(p + 16, data, len);
    for (uint32_t i = 0; i < total + 8; i += 8)
        mem_write(g->mem, f->ring[relid] + HV_PAGE_SIZE + (f->write[relid] + i) % size, p + i, 8);
    f->write[relid] = (f->write[relid] + total + 8) % size;
    guest_set(g, f->ring[relid] + RING_WRITE, twist & 16 ? (uint32_t)fuzz_take(f, 4) : f->write[relid]);
    vmbus_signal_event(g->bus, relid | VMBUS_SINT << 12, 0);
    guest_turn(g);
}

/* A dynamic memory message: header right, the rest of the input's choosing. */
static void fuzz_dynmem(struct fuzz *f)
{
    static const uint16_t start[][2] = {{DM_VERSION_REQUEST, 16}, {DM_CAPABILITIES, 32}};
    uint8_t m[600] = {0};
    uint8_t what = (uint8_t)fuzz_take(f, 1);
    uint32_t len = 8 + (uint32_t)fuzz_take(f, 1) * 2;
    if (what & 0x80) {
        for (unsigned i = 0; i < 2; i++) {
            memset(m, 0, sizeof(m));
            put_le16(m, start[i][0]);
            put_le16(m + 2, start[i][1]);
            put_le32(m + 8, i == 0 ? DM_VERSION_2_0 : 0x1F);
            fuzz_packet(f, 4, m, start[i][1], 0);
        }
        return;
    }
    put_le16(m, what % (DM_TYPE_COUNT + 1));
    put_le16(m + 2, (uint16_t)len);
    fuzz_fill(f, m + 8, len - 8);
    if (what % (DM_TYPE_COUNT + 1) == DM_BALLOON_RESPONSE && len >= 24) {
        put_le32(m + DM_BALLOON_FLAGS, (uint32_t)((len - 16) / 8 * 2 | (m[12] & 1)));
        for (uint32_t i = 16; i + 8 <= len; i += 8)        /* near enough to be taken at times */
            put_le64(m + i, DM_RANGE(8192 + get_le16(m + i), get_le16(m + i + 2) == 0xFFFF ? 0 : 1 + get_le16(m + i + 2) % 600));
    }
    if (what % (DM_TYPE_COUNT + 1) == DM_HOT_ADD_RESPONSE && len >= 16) {
        put_le32(m + DM_HOT_ADDED, get_le16(m + DM_HOT_ADDED) % 4 * 32768u + (m[10] == 1));
        put_le32(m + DM_HOT_RESULT, m[DM_HOT_RESULT] & 1);
    }
    fuzz_packet(f, 4, m, len, 0);
}

static void fuzz_save_load(struct fuzz *f)
{
    struct guest *g = &f->g;
    struct save_writer w;
    struct load_reader r;
    struct hv_error e = {0};
    vmbus_pause(g->bus);
    machine_clock_pause(g->f.m);
    save_init(&w);
    machine_save(g->f.m, &w);
    /* A byte of it may be wrong. */
    uint64_t at = fuzz_take(f, 2);
    if (at % w.out.len >= 8 && at & 0x8000)
        w.out.buf[at % w.out.len] ^= (char)(1 + fuzz_take(f, 1) % 255);
    if (load_init(&r, w.out.buf, w.out.len, &e) == 0 && machine_load(g->f.m, &r, &e) < 0)
        machine_reset(g->f.m);
    else
        fuzz_seen.loads++;
    save_fini(&w);
    machine_clock_resume(g->f.m);
    vmbus_resume(g->bus);
    guest_turn(g);
}

static void fuzz_step(struct fuzz *f)
{
    struct guest *g = &f->g;
    uint8_t op = (uint8_t)fuzz_take(f, 1), m[VMBUS_MESSAGE_MAX] = {0}, data[1024];
    uint32_t relid = 1 + op / 16 % 4, n;
    g->ins = g->taken = 0;
    switch (op % 16) {
    case 0: case 1:
        n = 8 + (uint32_t)fuzz_take(f, 1) % 233;
        m[0] = (uint8_t)(fuzz_take(f, 1) % 26);
        fuzz_fill(f, m + 8, n - 8);
        fuzz_post(f, m, n);
        break;
    case 2: fuzz_contact(f); break;
    case 3: case 4: fuzz_open(f, relid); break;
    case 5:
        m[0] = VMBUS_MSG_CLOSE;
        m[MSG_RELID] = (uint8_t)relid;
        fuzz_post(f, m, VMBUS_SIZE_CLOSE);
        break;
    case 6:
        if (f->ring[relid]) {
            guest_set(g, f->ring[relid] + (op & 0x80 ? FUZZ_RING_PAGES * HV_PAGE_SIZE : 0) + fuzz_take(f, 1) % 20 * 4,
                      (uint32_t)fuzz_take(f, 4));
            vmbus_signal_event(g->bus, relid | VMBUS_SINT << 12, 0);
            guest_turn(g);
        }
        break;
    case 7: case 8:
        n = (uint32_t)fuzz_take(f, 1) * 4;
        memset(data, 0, sizeof(data));
        fuzz_fill(f, data, n);
        fuzz_packet(f, relid, data, n, op & 0x80 ? (uint8_t)fuzz_take(f, 1) : 0);
        break;
    case 9: case 10: case 11: fuzz_dynmem(f); break;
    case 12: (void)dynmem_set_target(f->dynmem, (uint64_t)fuzz_take(f, 1) * 4 * MIB, NULL); break;
    case 13: fake_advance(&g->f, (1 + fuzz_take(f, 1)) * NS_PER_SEC); break;
    case 14:
        if (op & 0x80) {
            vmbus_pause(g->bus);
            machine_reset(g->f.m);
            vmbus_resume(g->bus);
        } else {
            (void)shutdown_ask(f->shutdown, op & 16, op & 32, "fuzz", NULL, NULL);
        }
        guest_turn(g);
        break;
    default: fuzz_save_load(f); break;
    }
    struct dynmem_report r;
    dynmem_report(f->dynmem, &r);
    fuzz_seen.ballooned += r.ballooned != 0;
    fuzz_seen.hot_added += r.hot_added != 0;
    fuzz_seen.unballooned += r.op == DYNMEM_UNBALLOON;
    fuzz_seen.beats += heartbeat_status(f->heartbeat) == HEARTBEAT_OK;
    fuzz_seen.faults += g->faults != 0;
    hv_assert(r.assigned <= FUZZ_MAX_RAM && r.ballooned + r.assigned == r.visible && r.visible == GUEST_RAM + r.hot_added);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct fuzz f;
    f = (struct fuzz){.p = data, .end = data + len};
    guest_start(&f.g);
    fuzz_devices(&f);
    for (unsigned n = 0; f.p < f.end && n < 400; n++)
        fuzz_step(&f);
    /* Whatever it did: after a reset a guest connects and opens its channels. */
    vmbus_pause(f.g.bus);
    machine_reset(f.g.f.m);
    vmbus_resume(f.g.bus);
    guest_turn(&f.g);
    f.g.ins = f.g.taken = f.g.channels = f.g.offers = 0;
    f.g.next_page = GUEST_POOL + 4 * MIB;
    guest_connect(&f.g);
    hv_assert(f.g.offers == 4);
    guest_close(guest_open(&f.g, get_le32(f.g.offer[3].m + OFFER_RELID), 4));
    fuzz_no_devices(&f);
    guest_stop(&f.g);
    return 0;
}
