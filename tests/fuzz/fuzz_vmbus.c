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
#include "tests/fuzz/fuzz_bus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define FUZZ_MAX_RAM (1 * GIB)
#define FUZZ_HOT     ((gpa_t)(5 * GIB))

struct fuzz {
    struct fuzz_bus b;
    struct heartbeat *heartbeat;
    struct shutdown *shutdown;
    struct timesync *timesync;
    struct dynmem *dynmem;
};

/* How far programs get: a target that is refused at its first step proves nothing. */
static HV_UNUSED struct { unsigned ballooned, hot_added, beats, faults, loads, unballooned, gpadls, gpadls_refused; } fuzz_seen;

static uint64_t fuzz_reference(void *arg) { return 1; }

static void fuzz_devices(struct fuzz *f)
{
    struct guest *g = &f->b.g;
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

/* A dynamic memory message: header right, the rest of the input's choosing. */
static void fuzz_dynmem(struct fuzz *f)
{
    static const uint16_t start[][2] = {{DM_VERSION_REQUEST, 16}, {DM_CAPABILITIES, 32}};
    uint8_t m[600] = {0};
    uint8_t what = (uint8_t)fuzz_take(&f->b, 1);
    uint32_t len = 8 + (uint32_t)fuzz_take(&f->b, 1) * 2;
    if (what & 0x80) {
        for (unsigned i = 0; i < 2; i++) {
            memset(m, 0, sizeof(m));
            put_le16(m, start[i][0]);
            put_le16(m + 2, start[i][1]);
            put_le32(m + 8, i == 0 ? DM_VERSION_2_0 : 0x1F);
            fuzz_packet(&f->b, 4, m, start[i][1], 0);
        }
        return;
    }
    put_le16(m, what % (DM_TYPE_COUNT + 1));
    put_le16(m + 2, (uint16_t)len);
    fuzz_fill(&f->b, m + 8, len - 8);
    if (what % (DM_TYPE_COUNT + 1) == DM_BALLOON_RESPONSE && len >= 24) {
        put_le32(m + DM_BALLOON_FLAGS, (uint32_t)((len - 16) / 8 * 2 | (m[12] & 1)));
        for (uint32_t i = 16; i + 8 <= len; i += 8)        /* near enough to be taken at times */
            put_le64(m + i, DM_RANGE(8192 + get_le16(m + i), get_le16(m + i + 2) == 0xFFFF ? 0 : 1 + get_le16(m + i + 2) % 600));
    }
    if (what % (DM_TYPE_COUNT + 1) == DM_HOT_ADD_RESPONSE && len >= 16) {
        put_le32(m + DM_HOT_ADDED, get_le16(m + DM_HOT_ADDED) % 4 * 32768u + (m[10] == 1));
        put_le32(m + DM_HOT_RESULT, m[DM_HOT_RESULT] & 1);
    }
    fuzz_packet(&f->b, 4, m, len, 0);
}

/*
 * GPADLs of the input's counts and lengths, in headers and bodies, torn down and used for rings: `how` says what
 * of it is right. Handles are few, so that a message now and then meets one that is there.
 */
static void fuzz_gpadl(struct fuzz *f, uint32_t relid)
{
    enum { RIGHT_BYTES = 1, RIGHT_COUNT = 2, RIGHT_LEN = 4, RIGHT_PAGES = 8, RIGHT_RELID = 16 };
    static const uint8_t types[] = {VMBUS_MSG_GPADL_HEADER, VMBUS_MSG_GPADL_HEADER, VMBUS_MSG_GPADL_BODY, VMBUS_MSG_GPADL_BODY,
                                    VMBUS_MSG_GPADL_TEARDOWN, VMBUS_MSG_OPEN, VMBUS_MSG_CLOSE};
    struct guest *g = &f->b.g;
    uint8_t m[VMBUS_MESSAGE_MAX] = {0}, how = (uint8_t)~fuzz_take(&f->b, 1), pick = (uint8_t)fuzz_take(&f->b, 1);
    uint32_t handle = 0x5000 + pick / 16 % 4, pages = 1 + (uint32_t)fuzz_take(&f->b, 1) % 60, at = 0, len;
    uint8_t type = types[pick % ARRAY_SIZE(types)];
    m[0] = type;
    put_le32(m + MSG_RELID, how & RIGHT_RELID ? relid : (uint32_t)fuzz_take(&f->b, 4));
    put_le32(m + GPADL_HANDLE, handle);
    len = type == VMBUS_MSG_OPEN ? VMBUS_SIZE_OPEN : GPADL_BODY_DATA;
    if (type == VMBUS_MSG_OPEN) {
        put_le32(m + OPEN_GPADL, handle);
        put_le32(m + OPEN_OUT_PAGE, (uint32_t)fuzz_take(&f->b, how & RIGHT_PAGES ? 1 : 4));
        put_le32(m + OPEN_TARGET_VP, (uint32_t)fuzz_take(&f->b, 1) % 3);
    } else if (type == VMBUS_MSG_GPADL_HEADER) {
        put_le16(m + GPADL_RANGE_BYTES, how & RIGHT_BYTES ? (uint16_t)(8 + 8 * pages) : (uint16_t)fuzz_take(&f->b, 2));
        put_le16(m + GPADL_RANGE_COUNT, how & RIGHT_COUNT ? 1 : (uint16_t)fuzz_take(&f->b, 2));
        put_le32(m + GPADL_RANGES, how & RIGHT_LEN ? pages * (uint32_t)HV_PAGE_SIZE : (uint32_t)fuzz_take(&f->b, 4));
        put_le32(m + GPADL_RANGES + 4, how & RIGHT_LEN ? 0 : (uint32_t)fuzz_take(&f->b, 2));
        at = GPADL_RANGES + 8;
    } else if (type == VMBUS_MSG_GPADL_BODY) {
        at = GPADL_BODY_DATA;
    }
    for (uint32_t i = 0; at && i < pages && at + 8 <= sizeof(m); i++, at += 8)
        put_le64(m + at, how & RIGHT_PAGES ? (GUEST_POOL >> HV_PAGE_SHIFT) + 512 + i : fuzz_take(&f->b, 8));
    g->ins = g->taken = 0;
    fuzz_post(&f->b, m, MAX(len, at));
    for (const uint8_t *a; (a = guest_next(g));)
        if (get_le32(a) == VMBUS_MSG_GPADL_CREATED)
            *(get_le32(a + GPADL_STATUS) ? &fuzz_seen.gpadls_refused : &fuzz_seen.gpadls) += 1;
}

/* A byte of what was saved may be wrong. */
static void fuzz_state(struct fuzz *f)
{
    uint32_t at = (uint32_t)fuzz_take(&f->b, 2);
    fuzz_seen.loads += fuzz_save_load(&f->b, at & 0x8000 ? at : 0, at & 0x8000 ? (uint8_t)(1 + fuzz_take(&f->b, 1) % 255) : 0);
}

static void fuzz_step(struct fuzz *f)
{
    struct guest *g = &f->b.g;
    uint8_t op = (uint8_t)fuzz_take(&f->b, 1), m[VMBUS_MESSAGE_MAX] = {0}, data[1024];
    uint32_t relid = 1 + op / 16 % 4, n;
    g->ins = g->taken = 0;
    switch (op % 16) {
    case 0:
        n = 8 + (uint32_t)fuzz_take(&f->b, 1) % 233;
        m[0] = (uint8_t)(fuzz_take(&f->b, 1) % 26);
        fuzz_fill(&f->b, m + 8, n - 8);
        fuzz_post(&f->b, m, n);
        break;
    case 1: fuzz_gpadl(f, relid); break;
    case 2: fuzz_contact(&f->b); break;
    case 3: case 4: fuzz_open(&f->b, relid); break;
    case 5:
        m[0] = VMBUS_MSG_CLOSE;
        m[MSG_RELID] = (uint8_t)relid;
        fuzz_post(&f->b, m, VMBUS_SIZE_CLOSE);
        break;
    case 6:
        if (f->b.ring[relid]) {
            guest_set(g, f->b.ring[relid] + (op & 0x80 ? FUZZ_RING_PAGES * HV_PAGE_SIZE : 0) + fuzz_take(&f->b, 1) % 20 * 4,
                      (uint32_t)fuzz_take(&f->b, 4));
            vmbus_signal_event(g->bus, relid | VMBUS_SINT << 12, 0);
            guest_turn(g);
        }
        break;
    case 7: case 8:
        n = (uint32_t)fuzz_take(&f->b, 1) * 4;
        memset(data, 0, sizeof(data));
        fuzz_fill(&f->b, data, n);
        fuzz_packet(&f->b, relid, data, n, op & 0x80 ? (uint8_t)fuzz_take(&f->b, 1) : 0);
        break;
    case 9: case 10: case 11: fuzz_dynmem(f); break;
    case 12: (void)dynmem_set_target(f->dynmem, (uint64_t)fuzz_take(&f->b, 1) * 4 * MIB, NULL); break;
    case 13: fake_advance(&g->f, (1 + fuzz_take(&f->b, 1)) * NS_PER_SEC); break;
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
    default: fuzz_state(f); break;
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
    f = (struct fuzz){.b = {.p = data, .end = data + len}};
    guest_start(&f.b.g);
    fuzz_devices(&f);
    for (unsigned n = 0; f.b.p < f.b.end && n < 400; n++)
        fuzz_step(&f);
    /* Whatever it did: after a reset a guest connects and opens its channels. */
    vmbus_pause(f.b.g.bus);
    machine_reset(f.b.g.f.m);
    vmbus_resume(f.b.g.bus);
    guest_turn(&f.b.g);
    f.b.g.ins = f.b.g.taken = f.b.g.channels = f.b.g.offers = 0;
    f.b.g.next_page = GUEST_POOL + 4 * MIB;
    guest_connect(&f.b.g);
    hv_assert(f.b.g.offers == 4);
    guest_close(guest_open(&f.b.g, get_le32(f.b.g.offer[3].m + OFFER_RELID), 4));
    fuzz_no_devices(&f);
    guest_stop(&f.b.g);
    return 0;
}
