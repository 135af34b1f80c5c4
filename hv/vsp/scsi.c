/* The command set: one table of opcodes, one function a group. SPC-4, SBC-3, MMC-6 (DVD). */
#include "hv/vsp/scsi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/vsp/scsi_unit.h"

#define REPLY_MAX 1024u

/* ---- replies ---- */

static void end(struct scsi_task *t)
{
    if (t->unit) {
        t->unit->busy--;
        t->unit->count.wait_ns += t->began_ns ? hv_now_ns() - t->began_ns : 0;
    }
    t->done(t);
}

static void fail(struct scsi_task *t, enum scsi_sense s)
{
    t->status = SCSI_CHECK_CONDITION;
    t->sense = s;
    t->moved = 0;
    if (t->unit) {
        t->unit->count.errors++;
    }
    end(t);
}

static void good(struct scsi_task *t, uint32_t moved)
{
    t->status = SCSI_GOOD;
    t->sense = SENSE_NONE;
    t->moved = moved;
    end(t);
}

/* Data to the guest: as much as both its buffer and the CDB's allocation length take. */
static void reply(struct scsi_task *t, const uint8_t *data, uint32_t len, uint32_t allocation)
{
    uint32_t left = MIN(MIN(len, allocation), t->len), moved = left;

    if (t->to_device && t->len > 0) {
        fail(t, SENSE_INVALID_FIELD);
        return;
    }
    for (unsigned i = 0; i < t->iov_count && left > 0; i++) {
        size_t n = MIN((size_t)left, t->iov[i].iov_len);

        memcpy(t->iov[i].iov_base, data, n);
        data += n;
        left -= (uint32_t)n;
    }
    good(t, moved - left);
}

/* Parameters from the guest into buf[size]; bytes there are. */
static uint32_t parameters(const struct scsi_task *t, uint8_t *buf, uint32_t size)
{
    uint32_t at = 0;

    for (unsigned i = 0; t->to_device && i < t->iov_count && at < size; i++) {
        size_t n = MIN((size_t)(size - at), t->iov[i].iov_len);

        memcpy(buf + at, t->iov[i].iov_base, n);
        at += (uint32_t)n;
    }
    return at;
}

void scsi_sense_bytes(enum scsi_sense s, uint8_t out[SCSI_SENSE_LEN])
{
    memset(out, 0, SCSI_SENSE_LEN);
    out[0] = 0x70;                       /* current, fixed format */
    out[2] = (uint8_t)(s >> 16);
    out[7] = SCSI_SENSE_LEN - 8;
    out[12] = (uint8_t)(s >> 8);
    out[13] = (uint8_t)s;
}

/* ---- INQUIRY ---- */

static void put_text(uint8_t *at, const char *text, size_t len)
{
    memset(at, ' ', len);
    memcpy(at, text, MIN(strlen(text), len));
}

static uint32_t standard_inquiry(const struct scsi_unit *u, uint8_t *b)
{
    b[0] = !u ? 0x7f : u->kind == SCSI_DVD ? 0x05 : 0x00;
    b[1] = u && u->kind == SCSI_DVD ? 0x80 : 0;          /* removable */
    b[2] = 0x06;                                         /* SPC-4 */
    b[3] = 0x12;                                         /* HiSup, format 2 */
    b[4] = 36 - 5;
    b[7] = 0x02;                                         /* command queuing */
    put_text(b + 8, "Msft", 8);
    put_text(b + 16, u && u->kind == SCSI_DVD ? "Virtual DVD-ROM" : "Virtual Disk", 16);
    put_text(b + 32, "1.0", 4);
    return 36;
}

/* Page 0x83: an NAA locally assigned id (VHDX's page 83 identifier), and the same as T10 text. */
static uint32_t page_id(const struct scsi_unit *u, uint8_t *b)
{
    char text[GUID_TEXT_SIZE];
    uint8_t *p = b + 4;

    p[0] = 0x01;                         /* binary */
    p[1] = 0x03;                         /* NAA, of the logical unit */
    p[3] = 16;
    memcpy(p + 4, u->id.b, 16);
    p[4] = (uint8_t)(0x60 | (p[4] & 0x0f));
    p += 20;
    p[0] = 0x02;                         /* ASCII */
    p[1] = 0x01;                         /* T10 vendor id */
    p[3] = 8 + 32;
    put_text(p + 4, "MSFT", 8);
    guid_format(&u->id, text);
    for (unsigned i = 0, n = 0; text[i]; i++) {
        if (text[i] != '-') {
            p[12 + n++] = (uint8_t)text[i];
        }
    }
    p += 4 + 40;
    return (uint32_t)(p - b - 4);
}

static uint32_t page_serial(const struct scsi_unit *u, uint8_t *b)
{
    char text[GUID_TEXT_SIZE];
    uint32_t n = 0;

    guid_format(&u->id, text);
    for (unsigned i = 0; text[i]; i++) {
        if (text[i] != '-') {
            b[4 + n++] = (uint8_t)text[i];
        }
    }
    return n;
}

static uint32_t page_limits(const struct scsi_unit *u, uint8_t *b)
{
    uint32_t max_unmap = u->read_only ? 0 : UINT32_MAX;

    put_be16(b + 6, (uint16_t)MAX(u->physical / u->block, 1u));     /* optimal transfer length granularity */
    put_be32(b + 20, max_unmap);                         /* blocks in one UNMAP */
    put_be32(b + 24, u->read_only ? 0 : UNMAP_RANGES);
    put_be32(b + 28, MAX(u->physical / u->block, 1u));   /* optimal unmap granularity */
    put_be64(b + 36, UINT32_MAX);                        /* WRITE SAME: blocks at most */
    return 0x3c;
}

static void vpd(struct scsi_task *t, uint32_t allocation)
{
    static const uint8_t disk_pages[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
    const struct scsi_unit *u = t->unit;
    uint8_t b[REPLY_MAX] = { 0 }, page = t->cdb[2];
    uint32_t len = 0;

    b[0] = u->kind == SCSI_DVD ? 0x05 : 0x00;
    b[1] = page;
    switch (page) {
    case 0x00:
        len = u->kind == SCSI_DVD ? 3 : sizeof(disk_pages);
        memcpy(b + 4, disk_pages, len);
        break;
    case 0x80:
        len = page_serial(u, b);
        break;
    case 0x83:
        len = page_id(u, b);
        break;
    case 0xb0:
        len = page_limits(u, b);
        break;
    case 0xb1:
        put_be16(b + 4, 1);                              /* not rotating */
        len = 0x3c;
        break;
    case 0xb2:
        b[5] = 0xe0;                                     /* UNMAP, WRITE SAME(16) and (10) unmap */
        b[6] = 0x02;                                     /* thin */
        len = 4;
        break;
    default:
        fail(t, SENSE_INVALID_FIELD);
        return;
    }
    if (u->kind == SCSI_DVD && page >= 0xb0) {
        fail(t, SENSE_INVALID_FIELD);
        return;
    }
    put_be16(b + 2, (uint16_t)len);
    reply(t, b, len + 4, allocation);
}

static void inquiry(struct scsi_task *t)
{
    uint8_t b[36] = { 0 };
    uint32_t allocation = get_be16(t->cdb + 3);

    if (t->cdb[1] & 1) {
        if (t->unit) {
            vpd(t, allocation);
        } else {
            fail(t, SENSE_INVALID_FIELD);
        }
    } else if (t->cdb[2]) {
        fail(t, SENSE_INVALID_FIELD);
    } else {
        reply(t, b, standard_inquiry(t->unit, b), allocation);
    }
}

static void report_luns(struct scsi_task *t, uint64_t present)
{
    uint8_t b[8 + SCSI_LUNS * 8] = { 0 };
    uint32_t n = 0;

    for (unsigned i = 0; i < SCSI_LUNS; i++) {
        if (present >> i & 1) {
            b[8 + n++ * 8 + 1] = (uint8_t)i;
        }
    }
    put_be32(b, n * 8);
    reply(t, b, 8 + n * 8, get_be32(t->cdb + 6));
}

/* ---- what a unit is ---- */

static uint64_t blocks(const struct scsi_unit *u)
{
    return u->disk ? disk_size(u->disk) / u->block : 0;
}

static void read_capacity_10(struct scsi_task *t)
{
    uint64_t n = blocks(t->unit);
    uint8_t b[8];

    put_be32(b, n - 1 > UINT32_MAX ? UINT32_MAX : (uint32_t)(n - 1));
    put_be32(b + 4, t->unit->block);
    reply(t, b, sizeof(b), sizeof(b));
}

static void service_action_in(struct scsi_task *t)
{
    const struct scsi_unit *u = t->unit;
    uint8_t b[32] = { 0 };

    if ((t->cdb[1] & 0x1f) != SCSI_SAI_READ_CAPACITY_16 || u->kind == SCSI_DVD) {
        fail(t, SENSE_INVALID_FIELD);
        return;
    }
    put_be64(b, blocks(u) - 1);
    put_be32(b + 8, u->block);
    b[13] = (uint8_t)(u->physical > u->block ? __builtin_ctz(u->physical / u->block) : 0);
    b[14] = u->read_only ? 0 : 0xc0;                     /* LBPME: unmap; LBPRZ: reads as zeros after */
    reply(t, b, sizeof(b), get_be32(t->cdb + 10));
}

/* One mode page into b; 0 if there is none of that number. */
static uint32_t mode_page(const struct scsi_unit *u, uint8_t page, bool changeable, uint8_t *b)
{
    if (page == 0x08 && u->kind == SCSI_DISK) {          /* caching */
        b[0] = 0x08;
        b[1] = 0x12;
        b[2] = changeable || u->read_only ? 0 : 0x04;    /* WCE: the guest flushes */
        return 20;
    }
    if (page == 0x2a && u->kind == SCSI_DVD) {           /* capabilities (MMC-3 5.5.10) */
        b[0] = 0x2a;
        b[1] = 0x12;
        if (!changeable) {
            b[2] = 0x08;                                 /* reads DVD-ROM */
            b[4] = 0x00;
            b[6] = 0x29;                                 /* tray, lock, eject */
        }
        return 20;
    }
    if (page == 0x0a) {                                  /* control */
        b[0] = 0x0a;
        b[1] = 0x0a;
        return 12;
    }
    return 0;
}

static void mode_sense(struct scsi_task *t, bool ten)
{
    static const uint8_t all[] = { 0x08, 0x0a, 0x2a };
    const struct scsi_unit *u = t->unit;
    uint8_t b[128] = { 0 }, page = t->cdb[2] & 0x3f, control = t->cdb[2] >> 6;
    uint32_t head = ten ? 8 : 4, len = head;

    if (control == 3) {                                  /* saved values: there are none */
        fail(t, SENSE_INVALID_FIELD);
        return;
    }
    for (unsigned i = 0; i < sizeof(all); i++) {
        if (page == 0x3f || page == all[i]) {
            len += mode_page(u, all[i], control == 1, b + len);
        }
    }
    if (len == head && page != 0x3f && page != 0x00) {
        fail(t, SENSE_INVALID_FIELD);
        return;
    }
    if (ten) {
        put_be16(b, (uint16_t)(len - 2));
        b[3] = u->read_only && u->kind == SCSI_DISK ? 0x80 : 0;
    } else {
        b[0] = (uint8_t)(len - 1);
        b[2] = u->read_only && u->kind == SCSI_DISK ? 0x80 : 0;
    }
    reply(t, b, len, ten ? get_be16(t->cdb + 7) : t->cdb[4]);
}

static void request_sense(struct scsi_task *t)
{
    uint8_t b[SCSI_SENSE_LEN];

    scsi_sense_bytes(t->unit->attention, b);
    t->unit->attention = SENSE_NONE;
    reply(t, b, sizeof(b), t->cdb[4]);
}

static void start_stop(struct scsi_task *t)
{
    struct scsi_unit *u = t->unit;

    if (u->kind == SCSI_DVD && (t->cdb[4] & 3) == 2) {   /* eject */
        if (u->locked) {
            fail(t, SENSE_CANNOT_REMOVE);
            return;
        }
        u->ejected = true;
    } else if (u->kind == SCSI_DVD && (t->cdb[4] & 3) == 3) {
        u->ejected = false;
    }
    good(t, 0);
}

/* ---- DVD ---- */

static void put_msf(uint8_t *b, uint32_t lba)
{
    lba += 150;
    b[1] = (uint8_t)MIN(lba / 75 / 60, 255u);
    b[2] = (uint8_t)(lba / 75 % 60);
    b[3] = (uint8_t)(lba % 75);
}

static void read_toc(struct scsi_task *t)
{
    uint8_t b[20] = { 0 }, format = t->cdb[2] & 0xf;
    bool msf = t->cdb[1] & 2;
    uint32_t last = (uint32_t)MIN(blocks(t->unit), (uint64_t)UINT32_MAX), len = 12;

    if (!format) {
        format = t->cdb[9] >> 6;
    }
    if (format > 1 || t->cdb[6] > 1) {
        if (t->cdb[6] != 0xaa || format) {
            fail(t, SENSE_INVALID_FIELD);
            return;
        }
    }
    b[2] = b[3] = 1;                                     /* one session, one track */
    b[5] = 0x14;
    b[6] = format == 1 || t->cdb[6] != 0xaa ? 1 : 0xaa;
    if (format == 0) {
        if (b[6] == 1) {
            if (msf) {
                put_msf(b + 8, 0);
            }
            len = 20;
        }
        uint8_t *out = b + len - 8;                      /* lead-out */
        out[1] = 0x14;
        out[2] = 0xaa;
        if (msf) {
            put_msf(out + 4, last);
        } else {
            put_be32(out + 4, last);
        }
    }
    put_be16(b, (uint16_t)(len - 2));
    reply(t, b, len, get_be16(t->cdb + 7));
}

static void get_configuration(struct scsi_task *t)
{
    static const uint8_t features[] = {
        0x00, 0x00, 0x03, 4, 0x00, 0x10, 1, 0,           /* profile list: DVD-ROM */
        0x00, 0x01, 0x07, 4, 0x00, 0x00, 0x00, 0x01,     /* core: SCSI */
        0x00, 0x03, 0x03, 4, 0x29, 0x00, 0x00, 0x00,     /* removable medium: tray, eject, lock */
    };
    uint8_t b[8 + sizeof(features)] = { 0 };

    put_be32(b, sizeof(b) - 4);
    put_be16(b + 6, t->unit->disk && !t->unit->ejected ? 0x10 : 0);
    memcpy(b + 8, features, sizeof(features));
    reply(t, b, sizeof(b), get_be16(t->cdb + 7));
}

static void get_event_status(struct scsi_task *t)
{
    struct scsi_unit *u = t->unit;
    uint8_t b[8] = { 0, 6, 4, 0x10 };

    if (!(t->cdb[1] & 1)) {                              /* polled only */
        fail(t, SENSE_INVALID_FIELD);
        return;
    }
    if (!(t->cdb[4] & 0x10)) {                           /* no class we have */
        b[1] = 2;
        b[2] = 0x80;
        reply(t, b, 4, get_be16(t->cdb + 7));
        return;
    }
    b[4] = u->media_event;
    b[5] = u->disk && !u->ejected ? 2 : 0;
    u->media_event = 0;
    reply(t, b, sizeof(b), get_be16(t->cdb + 7));
}

static void read_disc_information(struct scsi_task *t)
{
    uint8_t b[34] = { 0 };

    put_be16(b, sizeof(b) - 2);
    b[2] = 0x0e;                                         /* complete */
    b[3] = b[4] = b[5] = b[6] = 1;
    reply(t, b, sizeof(b), get_be16(t->cdb + 7));
}

static void mechanism_status(struct scsi_task *t)
{
    uint8_t b[8] = { 0 };

    reply(t, b, sizeof(b), get_be16(t->cdb + 8));
}

/* ---- data ---- */

/* Block and count of a READ, WRITE, VERIFY, WRITE SAME or SYNCHRONIZE CACHE, by its length. */
static void range_of(const struct scsi_task *t, uint64_t *lba, uint32_t *count)
{
    switch (t->cdb[0] >> 5) {
    case 0:
        *lba = get_be32(t->cdb) & 0x1fffff;
        *count = t->cdb[4] ? t->cdb[4] : 256;
        break;
    case 1:
    case 2:
        *lba = get_be32(t->cdb + 2);
        *count = get_be16(t->cdb + 7);
        break;
    case 5:
        *lba = get_be32(t->cdb + 2);
        *count = get_be32(t->cdb + 6);
        break;
    default:
        *lba = get_be64(t->cdb + 2);
        *count = get_be32(t->cdb + 10);
    }
}

static enum scsi_sense sense_of(const struct scsi_task *t, int result)
{
    if (result == -ENOSPC || result == -EDQUOT || result == -EFBIG) {
        return SENSE_SPACE_FULL;
    }
    return t->req.op == DISK_OP_READ ? SENSE_READ_ERROR : SENSE_WRITE_ERROR;
}

static void submit(struct scsi_task *t);

static void on_done(struct disk_request *r, int result)
{
    struct scsi_task *t = CONTAINER_OF(r, struct scsi_task, req);

    free(t->cut);
    t->cut = NULL;
    if (result < 0) {
        fail(t, sense_of(t, result));
    } else if (t->then_flush) {
        t->then_flush = false;
        r->op = DISK_OP_FLUSH;
        submit(t);
    } else {
        good(t, t->moved);
    }
}

static void submit(struct scsi_task *t)
{
    t->req.disk = t->unit->disk;
    t->req.done = on_done;
    disk_queue_submit(t->unit->queue, &t->req);
}

/* The guest's buffer holds more than the command moves: only as much of it. */
static int cut_iov(struct scsi_task *t, uint64_t len)
{
    unsigned n = 0;

    t->cut = hv_alloc_array(t->iov_count, sizeof(*t->cut));
    if (!t->cut) {
        return -ENOMEM;
    }
    for (; n < t->iov_count && len > 0; n++) {
        t->cut[n] = t->iov[n];
        t->cut[n].iov_len = MIN(t->cut[n].iov_len, len);
        len -= t->cut[n].iov_len;
    }
    t->req.iov = t->cut;
    t->req.iov_count = n;
    return 0;
}

static void read_write(struct scsi_task *t, bool write)
{
    struct scsi_unit *u = t->unit;
    uint64_t lba, len;
    uint32_t count;

    range_of(t, &lba, &count);
    len = (uint64_t)count * u->block;
    if (lba > blocks(u) || count > blocks(u) - lba) {
        fail(t, SENSE_LBA_RANGE);
    } else if (write && u->read_only) {
        fail(t, SENSE_WRITE_PROTECTED);
    } else if (len > t->len || (len > 0 && t->to_device != write)) {
        fail(t, SENSE_INVALID_FIELD);
    } else if (len == 0) {
        good(t, 0);
    } else {
        t->req = (struct disk_request){ .op = write ? DISK_OP_WRITE : DISK_OP_READ, .off = lba * u->block, .len = len,
                                        .iov = t->iov, .iov_count = t->iov_count };
        t->moved = (uint32_t)len;
        t->then_flush = write && t->cdb[0] != SCSI_WRITE_6 && t->cdb[1] & 0x08;    /* FUA */
        if (len < t->len && cut_iov(t, len) < 0) {
            fail(t, SENSE_INTERNAL);
            return;
        }
        t->began_ns = hv_now_ns();
        u->count.reads += !write;
        u->count.writes += write;
        u->count.read_bytes += write ? 0 : len;
        u->count.written_bytes += write ? len : 0;
        scsi_unit_admit(u, t, submit);
    }
}

static void sync_cache(struct scsi_task *t)
{
    t->req = (struct disk_request){ .op = DISK_OP_FLUSH };
    t->moved = 0;
    t->then_flush = false;
    t->unit->count.flushes++;
    if (t->unit->read_only || !t->unit->disk) {
        good(t, 0);
    } else {
        submit(t);
    }
}

static void verify(struct scsi_task *t)
{
    uint64_t lba;
    uint32_t count;

    range_of(t, &lba, &count);
    if (t->cdb[1] & 0x06) {                              /* compare with data: not offered */
        fail(t, SENSE_INVALID_FIELD);
    } else if (lba > blocks(t->unit) || count > blocks(t->unit) - lba) {
        fail(t, SENSE_LBA_RANGE);
    } else {
        good(t, 0);
    }
}

/* The ranges of an UNMAP, one after the other; the last one ends the command. */
static void next_range(struct scsi_task *t);

static void on_range(struct disk_request *r, int result)
{
    struct scsi_task *t = CONTAINER_OF(r, struct scsi_task, req);

    if (result == 0 && t->ranges->at < t->ranges->count) {
        next_range(t);
        return;
    }
    free(t->ranges);
    t->ranges = NULL;
    if (result < 0) {
        fail(t, SENSE_WRITE_ERROR);
    } else {
        good(t, t->len);
    }
}

static void next_range(struct scsi_task *t)
{
    const struct scsi_range *x = &t->ranges->range[t->ranges->at++];

    t->req = (struct disk_request){ .op = DISK_OP_DISCARD, .disk = t->unit->disk, .done = on_range,
                                    .off = x->lba * t->unit->block, .len = (uint64_t)x->count * t->unit->block };
    disk_queue_submit(t->unit->queue, &t->req);
}

static void unmap(struct scsi_task *t)
{
    uint8_t b[8 + UNMAP_RANGES * 16];
    uint32_t have = parameters(t, b, sizeof(b)), want = get_be16(t->cdb + 7), n;
    struct scsi_unit *u = t->unit;
    struct scsi_ranges *m;

    if (u->read_only) {
        fail(t, SENSE_WRITE_PROTECTED);
        return;
    }
    if (want == 0) {
        good(t, 0);
        return;
    }
    if (have < 8 || want < 8) {
        fail(t, SENSE_INVALID_PARAMETER);
        return;
    }
    n = MIN((uint32_t)get_be16(b + 2), MIN(have, want) - 8) / 16;
    m = n ? hv_alloc(sizeof(*m)) : NULL;
    if (n && !m) {
        fail(t, SENSE_INTERNAL);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t lba = get_be64(b + 8 + i * 16);
        uint32_t count = get_be32(b + 8 + i * 16 + 8);

        if (lba > blocks(u) || count > blocks(u) - lba) {
            free(m);
            fail(t, SENSE_LBA_RANGE);
            return;
        }
        if (count) {
            m->range[m->count++] = (struct scsi_range){ lba, count };
        }
    }
    if (!n || !m->count) {
        free(m);
        good(t, t->len);
        return;
    }
    t->ranges = m;
    next_range(t);
}

static void write_same(struct scsi_task *t)
{
    struct scsi_unit *u = t->unit;
    uint8_t b[4096];
    bool no_data = t->cdb[0] == SCSI_WRITE_SAME_16 && t->cdb[1] & 0x01;
    uint64_t lba;
    uint32_t count;

    range_of(t, &lba, &count);
    if (u->read_only) {
        fail(t, SENSE_WRITE_PROTECTED);
    } else if (lba > blocks(u) || count > blocks(u) - lba) {
        fail(t, SENSE_LBA_RANGE);
    } else if (t->cdb[1] & 0xe6) {                       /* protection, anchor, PBDATA, LBDATA */
        fail(t, SENSE_INVALID_FIELD);
    } else if (!no_data && (parameters(t, b, u->block) < u->block || !hv_is_zero(b, u->block))) {
        fail(t, SENSE_INVALID_FIELD);                    /* a pattern: only zeros are offered */
    } else {
        /* With its unmap bit or without: zeros take no room. */
        count = count ? count : (uint32_t)MIN(blocks(u) - lba, (uint64_t)UINT32_MAX);
        t->req = (struct disk_request){ .op = DISK_OP_ZERO, .off = lba * u->block, .len = (uint64_t)count * u->block };
        t->moved = t->len;
        t->then_flush = false;
        submit(t);
    }
}

/* ---- the table ---- */

static void op_test(struct scsi_task *t) { good(t, 0); }
static void op_mode_sense_6(struct scsi_task *t) { mode_sense(t, false); }
static void op_mode_sense_10(struct scsi_task *t) { mode_sense(t, true); }
static void op_read(struct scsi_task *t) { read_write(t, false); }
static void op_write(struct scsi_task *t) { read_write(t, true); }
static void op_ignore(struct scsi_task *t) { good(t, t->len); }

static void op_prevent(struct scsi_task *t)
{
    t->unit->locked = t->cdb[4] & 1;
    good(t, 0);
}

#define DISK (1u << SCSI_DISK)
#define DVD  (1u << SCSI_DVD)

enum { NEEDS_MEDIUM = 1, KEEPS_ATTENTION = 2 };

static const struct command {
    uint8_t op;
    uint8_t kinds, flags;
    void (*run)(struct scsi_task *t);
} commands[] = {
    { SCSI_TEST_UNIT_READY, DISK | DVD, NEEDS_MEDIUM, op_test },
    { SCSI_REQUEST_SENSE, DISK | DVD, KEEPS_ATTENTION, request_sense },
    { SCSI_INQUIRY, DISK | DVD, KEEPS_ATTENTION, inquiry },
    { SCSI_MODE_SENSE_6, DISK | DVD, 0, op_mode_sense_6 },
    { SCSI_MODE_SENSE_10, DISK | DVD, 0, op_mode_sense_10 },
    { SCSI_MODE_SELECT_6, DISK | DVD, 0, op_ignore },
    { SCSI_MODE_SELECT_10, DISK | DVD, 0, op_ignore },
    { SCSI_START_STOP, DISK | DVD, 0, start_stop },
    { SCSI_PREVENT_ALLOW, DISK | DVD, 0, op_prevent },
    { SCSI_READ_CAPACITY_10, DISK | DVD, NEEDS_MEDIUM, read_capacity_10 },
    { SCSI_SERVICE_ACTION_IN_16, DISK | DVD, NEEDS_MEDIUM, service_action_in },
    { SCSI_READ_6, DISK, NEEDS_MEDIUM, op_read },
    { SCSI_READ_10, DISK | DVD, NEEDS_MEDIUM, op_read },
    { SCSI_READ_12, DISK | DVD, NEEDS_MEDIUM, op_read },
    { SCSI_READ_16, DISK, NEEDS_MEDIUM, op_read },
    { SCSI_WRITE_6, DISK, NEEDS_MEDIUM, op_write },
    { SCSI_WRITE_10, DISK, NEEDS_MEDIUM, op_write },
    { SCSI_WRITE_12, DISK, NEEDS_MEDIUM, op_write },
    { SCSI_WRITE_16, DISK, NEEDS_MEDIUM, op_write },
    { SCSI_VERIFY_10, DISK, NEEDS_MEDIUM, verify },
    { SCSI_VERIFY_16, DISK, NEEDS_MEDIUM, verify },
    { SCSI_SYNC_CACHE_10, DISK | DVD, NEEDS_MEDIUM, sync_cache },
    { SCSI_SYNC_CACHE_16, DISK, NEEDS_MEDIUM, sync_cache },
    { SCSI_UNMAP, DISK, NEEDS_MEDIUM, unmap },
    { SCSI_WRITE_SAME_10, DISK, NEEDS_MEDIUM, write_same },
    { SCSI_WRITE_SAME_16, DISK, NEEDS_MEDIUM, write_same },
    { SCSI_READ_TOC, DVD, NEEDS_MEDIUM, read_toc },
    { SCSI_GET_CONFIGURATION, DVD, KEEPS_ATTENTION, get_configuration },
    { SCSI_GET_EVENT_STATUS, DVD, KEEPS_ATTENTION, get_event_status },
    { SCSI_READ_DISC_INFORMATION, DVD, NEEDS_MEDIUM, read_disc_information },
    { SCSI_MECHANISM_STATUS, DVD, 0, mechanism_status },
};

static const struct command *find(const struct scsi_unit *u, uint8_t op)
{
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        if (commands[i].op == op && commands[i].kinds >> u->kind & 1) {
            return &commands[i];
        }
    }
    return NULL;
}

bool scsi_execute(struct scsi_unit *u, struct scsi_task *t, uint64_t present)
{
    const struct command *c;

    t->unit = u;
    t->cut = NULL;
    t->ranges = NULL;
    t->began_ns = 0;
    t->moved = 0;
    if (!u && t->cdb[0] != SCSI_INQUIRY && t->cdb[0] != SCSI_REPORT_LUNS) {
        return false;
    }
    if (u) {
        u->busy++;
    }
    if (t->cdb[0] == SCSI_REPORT_LUNS) {
        report_luns(t, present);
        return true;
    }
    if (!u) {
        inquiry(t);
        return true;
    }
    c = find(u, t->cdb[0]);
    if (!c) {
        fail(t, SENSE_INVALID_OPCODE);
    } else if (u->attention && !(c->flags & KEEPS_ATTENTION)) {
        enum scsi_sense s = u->attention;

        u->attention = SENSE_NONE;
        fail(t, s);
    } else if (c->flags & NEEDS_MEDIUM && (!u->disk || u->ejected)) {
        fail(t, SENSE_NO_MEDIUM);
    } else {
        c->run(t);
    }
    return true;
}
