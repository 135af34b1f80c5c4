/* SCSI units by their commands: what Linux' sd and sr ask, and what a hostile guest might. */
#include "hv/vsp/scsi.h"

#include <errno.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv/base/endian.h"
#include "hv/rpc/loop_uv.h"

#define SIZE (8 * MIB)

static char path[] = "/tmp/hv-test-scsi-XXXXXX.vhd";
static struct loop *loop;
static struct disk_queue *queue;
static struct disk *disk;
static struct scsi_unit *unit, *drive;
static uint8_t data[64 * KIB];
static unsigned done_count;

static void on_done(struct scsi_task *t)
{
    done_count++;
}

/* Run one command to its end; len bytes of data in or out. */
static struct scsi_task run(struct scsi_unit *u, const uint8_t *cdb, size_t cdb_len, bool out, uint32_t len)
{
    /* Two pieces with an odd border: guest pages are not contiguous. */
    struct iovec iov[2] = { { data, len / 3 }, { data + len / 3, len - len / 3 } };
    struct scsi_task t = { .iov = iov, .iov_count = 2, .len = len, .to_device = out && len, .done = on_done,
                           .cdb_len = (uint8_t)cdb_len };
    unsigned before = done_count;

    memcpy(t.cdb, cdb, cdb_len);
    if (!scsi_execute(u, &t, 5)) {
        t.status = SCSI_BUSY;            /* no such unit */
        return t;
    }
    if (u) {
        scsi_unit_release(u);
    }
    disk_queue_drain(queue);
    assert_int_equal(done_count, before + 1);
    return t;
}

#define RUN(u, out, len, ...) run(u, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }), out, len)

static void expect(struct scsi_task t, enum scsi_sense sense)
{
    assert_int_equal(t.status, sense ? SCSI_CHECK_CONDITION : SCSI_GOOD);
    assert_int_equal(t.sense, sense);
}

static void what_sd_asks(void **state)
{
    expect(RUN(unit, false, 0, 0x00, 0, 0, 0, 0, 0), 0);
    struct scsi_task t = RUN(unit, false, 36, 0x12, 0, 0, 0, 36, 0);
    expect(t, 0);
    assert_int_equal(t.moved, 36);
    assert_int_equal(data[0], 0);
    assert_memory_equal(data + 8, "Msft    Virtual Disk    ", 24);
    expect(RUN(unit, false, 8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
    assert_int_equal(get_be32(data), SIZE / 512 - 1);
    assert_int_equal(get_be32(data + 4), 512);
    expect(RUN(unit, false, 32, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), 0);
    assert_int_equal(get_be64(data), SIZE / 512 - 1);
    assert_int_equal(data[14], 0xc0);
    expect(RUN(unit, false, 255, 0x12, 1, 0, 0, 255, 0), 0);
    assert_int_equal(data[3], 6);
    for (unsigned i = 0; i < 6; i++) {
        static const uint8_t pages[] = { 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
        struct scsi_task v = RUN(unit, false, 255, 0x12, 1, pages[i], 0, 255, 0);

        expect(v, 0);
        assert_int_equal(data[1], pages[i]);
        assert_int_equal(v.moved, get_be16(data + 2) + 4);
    }
    expect(RUN(unit, false, 255, 0x12, 1, 0x42, 0, 255, 0), SENSE_INVALID_FIELD);
    expect(RUN(unit, false, 192, 0x1a, 0, 0x3f, 0, 192, 0), 0);
    assert_int_equal(data[2] & 0x80, 0);
    expect(RUN(unit, false, 192, 0x1a, 0, 0x08, 0, 192, 0), 0);
    assert_int_equal(data[4], 0x08);
    assert_int_equal(data[6] & 4, 4);                     /* write cache */
    expect(RUN(unit, false, 64, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), 0);
    assert_int_equal(get_be32(data), 16);                 /* LUNs 0 and 2 */
    assert_int_equal(data[8 + 8 + 1], 2);
    expect(RUN(unit, false, 0, 0xff), SENSE_INVALID_OPCODE);
}

static void an_absent_unit_is_told_by_inquiry(void **state)
{
    struct scsi_task t = RUN(NULL, false, 36, 0x12, 0, 0, 0, 36, 0);

    expect(t, 0);
    assert_int_equal(t.moved, 36);
    assert_int_equal(data[0], 0x7f);
    assert_int_equal(RUN(NULL, false, 0, 0x00, 0, 0, 0, 0, 0).status, SCSI_BUSY);
    assert_int_equal(RUN(NULL, false, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0).status, SCSI_BUSY);
    expect(RUN(NULL, false, 64, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), 0);
}

static void blocks_are_written_and_read(void **state)
{
    static uint8_t want[4096];

    for (unsigned i = 0; i < sizeof(want); i++) {
        want[i] = data[i] = (uint8_t)(i * 7 + (i >> 9));
    }
    struct scsi_task t = RUN(unit, true, 4096, 0x2a, 0, 0, 0, 0, 100, 0, 0, 8, 0);
    expect(t, 0);
    assert_int_equal(t.moved, 4096);
    memset(data, 0, sizeof(data));
    expect(RUN(unit, false, 4096, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 8, 0, 0), 0);
    assert_memory_equal(data, want, 4096);
    memset(data, 0, sizeof(data));                        /* less than the buffer: the rest is not touched */
    t = RUN(unit, false, 4096, 0xa8, 0, 0, 0, 0, 102, 0, 0, 0, 2, 0, 0);
    expect(t, 0);
    assert_int_equal(t.moved, 1024);
    assert_memory_equal(data, want + 1024, 1024);
    assert_int_equal(data[1024], 0);
    memset(data, 0, sizeof(data));
    expect(RUN(unit, false, 512, 0x08, 0, 0, 103, 1, 0), 0);
    assert_memory_equal(data, want + 3 * 512, 512);
    expect(RUN(unit, true, 4096, 0x2a, 0x08, 0, 0, 0, 100, 0, 0, 8, 0), 0);       /* FUA */
    expect(RUN(unit, false, 0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
    /* Past the end, more than the buffer, the wrong direction. */
    expect(RUN(unit, false, 1024, 0x28, 0, 0, 0, 0x3f, 0xff, 0, 0, 2, 0), SENSE_LBA_RANGE);
    expect(RUN(unit, false, 512, 0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0), SENSE_LBA_RANGE);
    expect(RUN(unit, false, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0), SENSE_INVALID_FIELD);
    expect(RUN(unit, true, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), SENSE_INVALID_FIELD);
    expect(RUN(unit, false, 512, 0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0), SENSE_LBA_RANGE);
}

static void ranges_are_given_back(void **state)
{
    memset(data, 0xee, 4096);
    expect(RUN(unit, true, 4096, 0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0), 0);
    memset(data, 0, 512);
    expect(RUN(unit, true, 512, 0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0), 0);     /* WRITE SAME of zeros */
    memset(data, 0, 64);
    put_be16(data, 22);
    put_be16(data + 2, 16);
    put_be64(data + 8, 6);
    put_be32(data + 16, 2);
    expect(RUN(unit, true, 24, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), 0);                          /* UNMAP */
    expect(RUN(unit, false, 4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0), 0);
    for (unsigned i = 0; i < 4096; i++) {
        unsigned block = i / 512;

        assert_int_equal(data[i], (block >= 2 && block < 5) || block >= 6 ? 0 : 0xee);
    }
    put_be64(data + 8, SIZE / 512);
    put_be16(data, 22);
    put_be16(data + 2, 16);
    put_be32(data + 16, 1);
    expect(RUN(unit, true, 24, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SENSE_LBA_RANGE);
    memset(data, 1, 512);
    expect(RUN(unit, true, 512, 0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0), SENSE_INVALID_FIELD);
}

static void what_changes_is_told_once(void **state)
{
    scsi_unit_resized(unit);
    expect(RUN(unit, false, 36, 0x12, 0, 0, 0, 36, 0), 0);             /* INQUIRY does not take it */
    expect(RUN(unit, false, 0, 0x00, 0, 0, 0, 0, 0), SENSE_CAPACITY_CHANGED);
    expect(RUN(unit, false, 0, 0x00, 0, 0, 0, 0, 0), 0);
    /* An empty drive; a medium; locked by the guest. */
    expect(RUN(drive, false, 0, 0x00, 0, 0, 0, 0, 0), SENSE_NO_MEDIUM);
    expect(RUN(drive, false, 36, 0x12, 0, 0, 0, 36, 0), 0);
    assert_int_equal(data[0], 5);
    assert_int_equal(data[1], 0x80);
    assert_int_equal(scsi_unit_change(drive, disk, false), 0);
    expect(RUN(drive, false, 0, 0x00, 0, 0, 0, 0, 0), SENSE_MEDIUM_CHANGED);
    expect(RUN(drive, false, 8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
    assert_int_equal(get_be32(data + 4), 2048);
    assert_int_equal(get_be32(data), SIZE / 2048 - 1);
    expect(RUN(drive, false, 20, 0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0), 0);
    expect(RUN(drive, false, 8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), 0);
    assert_int_equal(data[4], 2);
    expect(RUN(drive, true, 2048, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), SENSE_INVALID_OPCODE);
    expect(RUN(drive, false, 0, 0x1e, 0, 0, 0, 1, 0), 0);
    assert_int_equal(scsi_unit_change(drive, NULL, false), -EBUSY);
    expect(RUN(drive, false, 0, 0x1b, 0, 0, 0, 2, 0), SENSE_CANNOT_REMOVE);
    assert_int_equal(scsi_unit_change(drive, NULL, true), 0);
    expect(RUN(drive, false, 0, 0x00, 0, 0, 0, 0, 0), SENSE_NO_MEDIUM);
}

static void what_waits_under_a_limit_ends_before_the_medium_goes(void **state)
{
    struct iovec iov = { data, 2048 };
    struct scsi_task t[3];
    unsigned before;

    assert_int_equal(scsi_unit_change(drive, disk, true), 0);
    expect(RUN(drive, false, 0, 0x00, 0, 0, 0, 0, 0), SENSE_MEDIUM_CHANGED);
    scsi_unit_limit(drive, 1);
    before = done_count;
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        t[i] = (struct scsi_task){ .cdb = { 0x28, 0, 0, 0, 0, 1, 0, 0, 1 }, .cdb_len = 10, .iov = &iov, .iov_count = 1,
                                   .len = 2048, .done = on_done };
        assert_true(scsi_execute(drive, &t[i], 1));
    }
    assert_true(done_count < before + ARRAY_SIZE(t));
    assert_int_equal(scsi_unit_change(drive, NULL, true), 0);
    assert_int_equal(done_count, before + ARRAY_SIZE(t));
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        expect(t[i], 0);
    }
    scsi_unit_limit(drive, 0);
    expect(RUN(drive, false, 2048, 0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0), SENSE_NO_MEDIUM);
}

/* Any bytes as a command, any length of data: it ends, once, within its buffer. */
static void random_commands_end(void **state)
{
    static const uint8_t known[] = { 0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41,
                                     0x42, 0x43, 0x46, 0x4a, 0x51, 0x55, 0x5a, 0x88, 0x8a, 0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa8,
                                     0xaa, 0xbd };
    uint64_t s = 88172645463325252u;

    scsi_unit_change(drive, disk, true);
    for (unsigned i = 0; i < 60000; i++) {
        uint8_t cdb[16];
        uint32_t len;

        for (unsigned k = 0; k < sizeof(cdb); k++) {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            cdb[k] = s & 0x300 ? 0 : (uint8_t)s;
        }
        cdb[0] = s >> 20 & 7 ? known[(s >> 30) % sizeof(known)] : cdb[0];
        len = (uint32_t)(s >> 40 & 3 ? (s >> 44) % 300 : (s >> 44) % 65536);
        struct scsi_task t = run(s >> 60 == 1 ? NULL : s >> 59 & 1 ? drive : unit, cdb, 1 + (s >> 50) % 16, s >> 58 & 1, len);

        assert_true(t.status == SCSI_BUSY || t.moved <= len);
    }
    scsi_unit_change(drive, NULL, true);
}

static int set_up(void **state)
{
    struct hv_error e = { 0 };

    if (mkstemps(path, 4) < 0 || unlink(path) < 0 || loop_uv_new(&loop) < 0 ||
        disk_create(path, &(struct disk_create){ .kind = DISK_VHD, .type = DISK_DYNAMIC, .size = SIZE }, &e) < 0 ||
        disk_open(path, &(struct disk_options){ .format = -1, .flags = DISK_WRITE }, &disk, &e) < 0) {
        return -1;
    }
    return disk_queue_new(loop, 1, true, &queue) || scsi_unit_new(SCSI_DISK, disk, false, queue, &unit) ||
           scsi_unit_new(SCSI_DVD, NULL, true, queue, &drive);
}

static int tear_down(void **state)
{
    scsi_unit_free(unit);
    scsi_unit_free(drive);
    disk_queue_free(queue);
    loop_uv_free(loop);
    disk_close(disk, NULL);
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_sd_asks),
        cmocka_unit_test(an_absent_unit_is_told_by_inquiry),
        cmocka_unit_test(blocks_are_written_and_read),
        cmocka_unit_test(ranges_are_given_back),
        cmocka_unit_test(what_changes_is_told_once),
        cmocka_unit_test(what_waits_under_a_limit_ends_before_the_medium_goes),
        cmocka_unit_test(random_commands_end),
    };

    return cmocka_run_group_tests_name("scsi", tests, set_up, tear_down);
}
