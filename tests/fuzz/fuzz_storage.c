/*
 * A hostile guest on the storage controller: the input is a program of steps. Channels are opened
 * and closed in any order, packets of any length and CDBs of any length and kind are sent with
 * pages that are RAM, at its end, or nowhere; commands are left hanging under a limit while the
 * channel, the unit or the whole machine goes away below them; all is saved and loaded.
 * Checked besides memory safety: nothing is written beyond a disk or to one that is read-only,
 * and a good guest can always start anew and finds the disk there.
 *
 * make fuzz builds it for libFuzzer; tests/unit/vsp/test_fuzz_storage.c runs it with fixed seeds.
 */
#include "hv/vsp/storage.h"

#include <errno.h>

#include "hv/vsp/storage_proto.h"
#include "tests/fuzz/fuzz_bus.h"
#include "tests/fuzz/fuzz_fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define FUZZ_DISK  (256 * KIB)
#define FUZZ_DATA  (GUEST_POOL + MIB)         /* pages that commands name */
#define FUZZ_PAGES 256u
enum { FUZZ_PRIMARY = 1, FUZZ_SUBS = 3, FUZZ_UNITS = 3 };

struct fuzz {
    struct fuzz_bus b;
    struct storage *s;
    struct disk_queue *queue;
    uint8_t bytes[FUZZ_UNITS][FUZZ_DISK];
    struct fuzz_bytes file[FUZZ_UNITS];
    struct disk *disk[FUZZ_UNITS];
    struct scsi_unit *unit[FUZZ_UNITS];        /* a disk, a DVD, a read-only disk */
};

/* How far programs get: a target that is refused at its first step proves nothing. */
static HV_UNUSED struct { unsigned reads, writes, errors, faults, loads, refused, subs, hanging, answers; } fuzz_seen;

static void fuzz_units_new(struct fuzz *f, unsigned i)
{
    static const enum scsi_kind kind[FUZZ_UNITS] = {SCSI_DISK, SCSI_DVD, SCSI_DISK};
    if (!f->disk[i])
        f->disk[i] = fuzz_disk(&f->file[i]);
    hv_assert(scsi_unit_new(kind[i], f->disk[i], i == 2, f->queue, &f->unit[i]) == 0);
    hv_assert(storage_set_unit(f->s, i, f->unit[i]) == 0);
}

static void fuzz_unit_free(struct fuzz *f, unsigned i)
{
    const struct scsi_counters *c = scsi_unit_counters(f->unit[i]);
    fuzz_seen.reads += c->reads != 0;
    fuzz_seen.writes += c->writes != 0;
    fuzz_seen.errors += c->errors != 0;
    hv_assert(storage_set_unit(f->s, i, NULL) == 0);
    scsi_unit_free(f->unit[i]);
    f->unit[i] = NULL;
}

static void fuzz_begin(struct fuzz *f)
{
    guest_start(&f->b.g);
    hv_assert(disk_queue_new(&f->b.g.f.loop, 1, false, &f->queue) == 0);
    struct storage_config cfg = {.bus = f->b.g.bus, .queue = f->queue, .sub_channels = FUZZ_SUBS};
    hv_assert(storage_new(&cfg, &f->s, NULL) == 0);
    for (unsigned i = 0; i < FUZZ_UNITS; i++) {
        for (unsigned k = 0; k < FUZZ_DISK; k++)
            f->bytes[i][k] = (uint8_t)(k / 512 + i);
        f->file[i] = (struct fuzz_bytes){f->bytes[i], FUZZ_DISK};
        fuzz_units_new(f, i);
    }
}

static void fuzz_end(struct fuzz *f)
{
    fuzz_seen.faults += f->b.g.faults != 0;
    for (unsigned i = 0; i < FUZZ_UNITS; i++) {
        if (f->unit[i])
            fuzz_unit_free(f, i);
        disk_close(f->disk[i], NULL);
    }
    storage_free(f->s);
    disk_queue_free(f->queue);
    guest_turn(&f->b.g);
    guest_stop(&f->b.g);
}

/* An operation with two bytes of payload. */
static void fuzz_operation(struct fuzz *f, uint32_t relid, uint32_t op, uint16_t value)
{
    uint8_t a[VSTOR_LEN] = {0};
    put_le32(a + VSTOR_OPERATION, op);
    put_le16(a + VSTOR_PAYLOAD, value);
    fuzz_packet(&f->b, relid, a, sizeof(a), 0);
}

/* What a driver does when it starts. */
static void fuzz_start(struct fuzz *f)
{
    fuzz_close(&f->b, FUZZ_PRIMARY);
    fuzz_open(&f->b, FUZZ_PRIMARY);
    fuzz_operation(f, FUZZ_PRIMARY, VSTOR_BEGIN_INIT, 0);
    fuzz_operation(f, FUZZ_PRIMARY, VSTOR_QUERY_VERSION, VSTOR_WIN10);
    fuzz_operation(f, FUZZ_PRIMARY, VSTOR_QUERY_PROPERTIES, 0);
    fuzz_operation(f, FUZZ_PRIMARY, VSTOR_END_INIT, 0);
    f->b.g.ins = f->b.g.taken = 0;
    fuzz_operation(f, FUZZ_PRIMARY, VSTOR_CREATE_SUB_CHANNELS, FUZZ_SUBS);
    for (const uint8_t *m; (m = guest_next(&f->b.g));)
        fuzz_seen.subs += get_le32(m) == VMBUS_MSG_OFFER && get_le16(m + OFFER_SUB_INDEX);
}

/* The ranges of a GPA-direct packet; `bad` picks what is wrong with them. Returns their length. */
static uint32_t fuzz_ranges(struct fuzz *f, uint8_t *x, uint32_t size, uint32_t *ret_bytes, uint8_t bad)
{
    uint32_t pages = 1 + (uint32_t)fuzz_take(&f->b, 1) % 40, offset = bad & 1 ? (uint32_t)fuzz_take(&f->b, 2) : 0;
    uint32_t len = pages * (uint32_t)HV_PAGE_SIZE - (offset % HV_PAGE_SIZE), at = PKT_GPA_RANGES - PKT_HEADER;
    uint64_t pfn = (FUZZ_DATA >> HV_PAGE_SHIFT) + fuzz_take(&f->b, 1) % (FUZZ_PAGES - 64), step = bad & 2 ? 2 : 1;
    put_le32(x + PKT_GPA_COUNT - PKT_HEADER, bad & 4 ? (uint32_t)fuzz_take(&f->b, 4) : 1);
    put_le32(x + at, bad & 8 ? (uint32_t)fuzz_take(&f->b, 4) : len);
    put_le32(x + at + 4, offset);
    if (bad & 16)
        pfn = bad & 32 ? fuzz_take(&f->b, 8) : (GUEST_RAM >> HV_PAGE_SHIFT) - fuzz_take(&f->b, 1) % 8;
    for (at += 8; pages && at + 8 <= size; pages--, at += 8, pfn += step)
        put_le64(x + at, bad & 64 && pages == 2 ? fuzz_take(&f->b, 8) : pfn);
    *ret_bytes = len;
    return at;
}

/* A command: of every opcode and length, aimed at a block that is there or not. */
static void fuzz_command(struct fuzz *f, uint32_t relid)
{
    static const uint8_t ops[] = {
        SCSI_READ_6, SCSI_READ_10, SCSI_READ_12, SCSI_READ_16, SCSI_WRITE_6, SCSI_WRITE_10, SCSI_WRITE_12, SCSI_WRITE_16,
        SCSI_UNMAP, SCSI_WRITE_SAME_10, SCSI_WRITE_SAME_16, SCSI_SYNC_CACHE_10, SCSI_INQUIRY, SCSI_MODE_SENSE_6,
        SCSI_MODE_SENSE_10, SCSI_REPORT_LUNS, SCSI_READ_CAPACITY_10, SCSI_SERVICE_ACTION_IN_16, SCSI_START_STOP,
        SCSI_PREVENT_ALLOW, SCSI_READ_TOC, SCSI_GET_CONFIGURATION, SCSI_GET_EVENT_STATUS, SCSI_REQUEST_SENSE,
        SCSI_VERIFY_10, SCSI_MODE_SELECT_6, SCSI_MECHANISM_STATUS, SCSI_READ_DISC_INFORMATION,
    };
    uint8_t p[64 * 8 + 8 + VSTOR_LEN] = {0}, flags = (uint8_t)fuzz_take(&f->b, 1), op = (uint8_t)fuzz_take(&f->b, 1);
    uint8_t bad = flags & 1 ? (uint8_t)fuzz_take(&f->b, 1) : 0, *a;
    uint32_t bytes = 0, head = flags & 2 ? 0 : fuzz_ranges(f, p, sizeof(p) - VSTOR_LEN, &bytes, bad);
    a = p + head;
    put_le32(a + VSTOR_OPERATION, VSTOR_EXECUTE_SRB);
    a[SRB_LUN] = (uint8_t)(flags & 4 ? fuzz_take(&f->b, 1) : op % FUZZ_UNITS);
    a[SRB_CDB_LEN] = flags & 8 ? (uint8_t)fuzz_take(&f->b, 1) : 16;
    put_le32(a + SRB_DATA_LEN, flags & 16 ? (uint32_t)fuzz_take(&f->b, 4) : bytes);
    fuzz_fill(&f->b, a + SRB_CDB, 16);
    a[SRB_CDB] = flags & 32 ? a[SRB_CDB] : ops[op % ARRAY_SIZE(ops)];
    if (!(flags & 64)) {                /* near enough to be done: a low block, few of them */
        static const uint8_t zero[8] = {0};
        uint8_t block = (uint8_t)fuzz_take(&f->b, 1), count = (uint8_t)fuzz_take(&f->b, 1);
        memcpy(a + SRB_CDB + 2, zero, 8);
        switch (a[SRB_CDB] >> 5) {
        case 0: a[SRB_CDB + 1] = 0; a[SRB_CDB + 3] = block; a[SRB_CDB + 4] = count; break;
        case 1: case 2: a[SRB_CDB + 5] = block; a[SRB_CDB + 8] = count; break;
        case 5: a[SRB_CDB + 5] = block; a[SRB_CDB + 9] = count; break;
        default: a[SRB_CDB + 9] = block; put_be32(a + SRB_CDB + 10, count); break;
        }
    }
    bool write = (a[SRB_CDB] & 0x1f) == 0x0a || a[SRB_CDB] == SCSI_UNMAP || a[SRB_CDB] == SCSI_WRITE_SAME_10 ||
                 a[SRB_CDB] == SCSI_WRITE_SAME_16;
    a[SRB_DATA_IN] = flags & 128 ? (uint8_t)fuzz_take(&f->b, 1) : write ? SRB_WRITE : SRB_READ;
    fuzz_packet_at(&f->b, relid, p, head + VSTOR_LEN, PKT_HEADER + head, head ? FUZZ_DIRECT : 0);
}

static void fuzz_step(struct fuzz *f)
{
    struct fuzz_bus *b = &f->b;
    uint8_t op = (uint8_t)fuzz_take(b, 1), m[VMBUS_MESSAGE_MAX] = {0};
    uint32_t relid = 1 + (op >> 4) % (FUZZ_SUBS + 1), n;
    unsigned lun = (op >> 4) % FUZZ_UNITS;
    b->g.ins = b->g.taken = 0;
    fuzz_seen.hanging += disk_queue_pending(f->queue) || (f->unit[0] && scsi_unit_busy(f->unit[0]));
    switch (op % 16) {
    case 0:
        n = 8 + (uint32_t)fuzz_take(b, 1) % 233;
        m[0] = (uint8_t)(fuzz_take(b, 1) % 26);
        fuzz_fill(b, m + 8, n - 8);
        fuzz_post(b, m, n);
        break;
    case 1:
        if (op & 0x80)
            fuzz_contact(b);
        else
            fuzz_start(f);
        break;
    case 2:
        if (!(op & 0x80))
            fuzz_close(b, relid);       /* else the rings of a channel that may be open change below it */
        fuzz_open(b, relid);
        break;
    case 3: fuzz_close(b, relid); break;
    case 4:
        m[0] = op & 0x40 ? VMBUS_MSG_RELID_RELEASED : VMBUS_MSG_GPADL_TEARDOWN;
        put_le32(m + MSG_RELID, relid);
        put_le32(m + GPADL_HANDLE, b->handle[relid]);
        fuzz_post(b, m, VMBUS_SIZE_GPADL_TEARDOWN);
        break;
    case 5:
        if (b->ring[relid]) {
            guest_set(&b->g, b->ring[relid] + (op & 0x80 ? FUZZ_RING_PAGES * HV_PAGE_SIZE : 0) + fuzz_take(b, 1) % 20 * 4,
                      (uint32_t)fuzz_take(b, 4));
            vmbus_signal_event(b->g.bus, relid | VMBUS_SINT << 12, 0);
            guest_turn(&b->g);
        }
        break;
    case 6: {                           /* a packet of any length, its operation known or not */
        uint8_t data[1024] = {0};
        n = (uint32_t)fuzz_take(b, 1) * 4;
        fuzz_fill(b, data, n);
        if (op & 0x40)
            put_le32(data, data[0] % 16);
        fuzz_packet(b, relid, data, n, op & 0x80 ? (uint8_t)fuzz_take(b, 1) : 0);
        break;
    }
    case 7: fuzz_operation(f, relid, (uint32_t)fuzz_take(b, 1) % 16, (uint16_t)fuzz_take(b, 1)); break;
    case 8: case 9: case 10: fuzz_command(f, relid); break;
    case 11: fuzz_read_answers(b, relid); break;
    case 12:
        if (f->unit[lun])
            scsi_unit_limit(f->unit[lun], op & 0x80 ? 0 : 1);
        break;
    case 13:
        if (!f->unit[lun])
            fuzz_units_new(f, lun);
        else if (op & 0x80)
            fuzz_unit_free(f, lun);
        else
            scsi_unit_resized(f->unit[lun]), storage_rescan(f->s);
        break;
    case 14:
        if (op >= 0xe0) {
            fuzz_reset(b);
            break;
        }
        for (unsigned i = 0; op < 0x80 && i < FUZZ_UNITS; i++)
            if (f->unit[i])
                scsi_unit_release(f->unit[i]);
        disk_queue_drain(f->queue);
        guest_turn(&b->g);
        break;
    default: {
        uint32_t flip = op & 0x80 ? (uint32_t)fuzz_take(b, 2) : 0;
        bool good = fuzz_save_load(b, flip, (uint8_t)(1 + fuzz_take(b, 1) % 255));
        fuzz_seen.loads += good;
        fuzz_seen.refused += !good;
        hv_assert(good || flip);
    }
    }
}

/* A good guest after all that: connects, sets the controller up, reads the first block of the last disk. */
static void fuzz_good_guest(struct fuzz *f)
{
    struct guest *g = &f->b.g;
    uint8_t x[PKT_GPA_RANGES - PKT_HEADER + 16] = {0}, a[VSTOR_LEN] = {0}, block[512];
    uint16_t type;
    uint64_t transaction;
    for (unsigned i = 0; i < FUZZ_UNITS; i++) {
        if (f->unit[i])
            fuzz_unit_free(f, i);
        fuzz_units_new(f, i);
    }
    fuzz_reset(&f->b);
    g->ins = g->taken = g->channels = g->offers = 0;
    g->next_page = GUEST_POOL + 8 * MIB;
    guest_connect(g);
    hv_assert(g->offers == 1);
    struct guest_channel *c = guest_open(g, get_le32(g->offer[0].m + OFFER_RELID), 4);
    put_le32(x + PKT_GPA_COUNT - PKT_HEADER, 1);
    put_le32(x + 8, sizeof(block));
    put_le64(x + 16, FUZZ_DATA >> HV_PAGE_SHIFT);
    put_le32(a + VSTOR_OPERATION, VSTOR_EXECUTE_SRB);
    a[SRB_LUN] = 2;
    a[SRB_CDB_LEN] = 10;
    a[SRB_DATA_IN] = SRB_READ;
    put_le32(a + SRB_DATA_LEN, sizeof(block));
    a[SRB_CDB] = SCSI_READ_10;
    a[SRB_CDB + 8] = 1;
    hv_assert(guest_send_raw(c, VMBUS_PKT_GPA_DIRECT, PKT_FLAG_COMPLETION, 7, x, sizeof(x), a, sizeof(a)));
    guest_turn(g);
    disk_queue_drain(f->queue);
    hv_assert(guest_recv(c, &type, &transaction, a, sizeof(a)) == VSTOR_LEN);
    hv_assert(type == VMBUS_PKT_COMPLETION && transaction == 7 && a[SRB_STATUS] == SRB_OK);
    hv_assert(mem_read(g->mem, FUZZ_DATA, block, sizeof(block)) == 0 && block[0] == 2 && block[511] == 2);
    fuzz_seen.answers++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct fuzz f;
    f = (struct fuzz){.b = {.p = data, .end = data + len}};
    fuzz_begin(&f);
    for (unsigned n = 0; f.b.p < f.b.end && n < 300; n++)
        fuzz_step(&f);
    fuzz_good_guest(&f);
    for (unsigned i = 1; i < FUZZ_UNITS; i++)          /* a DVD, a disk that is read-only */
        for (unsigned k = 0; k < FUZZ_DISK; k++)
            hv_assert(f.bytes[i][k] == (uint8_t)(k / 512 + i));
    fuzz_end(&f);
    return 0;
}
