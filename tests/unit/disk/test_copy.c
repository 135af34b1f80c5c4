/*
 * Content from disk to disk (vhdtool/copy.c), on files of the host: every format to every other, with and
 * without a look for zeros, at most as much room taken as there is data, and every read and write failing.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/magic.h>

#include "hv/base/endian.h"
#include "hv/base/fault.h"
#include "tests/unit/roll.h"
#include "vhdtool/vhdtool.h"

#define SIZE  (40 * MIB)
#define GRAIN (64 * KIB)

static uint8_t model[SIZE], seen[SIZE];
static uint64_t data_bytes;              /* of the model, in grains that are not zeros */
static char folder[] = "/tmp/hv-copy.XXXXXX";
static char from_path[64], to_path[64];

static void fill(uint64_t off, uint64_t len)
{
    for (uint64_t i = off; i < off + len; i += 8) {
        put_le64(model + i, roll(UINT64_MAX) | 1);
    }
}

/* A run longer than the ring of pieces; data and zeros in turn; specks; the last sector. */
static void make_model(void)
{
    fill(1 * MIB, 13 * MIB);
    for (unsigned i = 0; i < 64; i++) {
        fill(16 * MIB + i * 2 * GRAIN, GRAIN);
    }
    for (unsigned i = 0; i < 40; i++) {
        fill(26 * MIB + i * 200 * KIB / 512 * 512, 512);
    }
    fill(SIZE - 512, 512);
    for (uint64_t at = 0; at < SIZE; at += GRAIN) {
        data_bytes += hv_is_zero(model + at, GRAIN) ? 0 : GRAIN;
    }
}

static struct disk *make(const char *path, enum disk_kind kind)
{
    struct disk_create c = { .kind = kind, .type = DISK_DYNAMIC, .size = SIZE, .no_sync = true };
    struct disk_options o = { .format = (int)kind, .flags = DISK_WRITE | DISK_NO_SYNC };
    struct hv_error e = { 0 };
    struct disk *d = NULL;

    unlink(path);
    if (disk_create(path, &c, &e) < 0 || disk_open(path, &o, &d, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return d;
}

static struct disk *open_it(const char *path, enum disk_kind kind)
{
    struct disk *d = NULL;

    assert_int_equal(disk_open(path, &(struct disk_options){ .format = (int)kind }, &d, NULL), 0);
    return d;
}

/* zeros: those of the model are there as data, too. */
static struct disk *make_source(enum disk_kind kind, bool zeros)
{
    struct disk *d = make(from_path, kind);

    for (uint64_t at = 0; at < SIZE; at += GRAIN) {
        if (zeros || !hv_is_zero(model + at, GRAIN)) {
            assert_int_equal(disk_write(d, at, model + at, GRAIN), 0);
        }
    }
    assert_int_equal(disk_close(d, NULL), 0);
    return open_it(from_path, kind);
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    uint64_t *last = arg;

    assert_true(done > *last && done <= total);
    *last = done;
}

static void no_problem(void *arg, const struct disk_problem *p)
{
    (void)arg;
    if (!p->harmless) {
        fail_msg("%s", p->text);
    }
}

static void copy_and_compare(enum disk_kind from_kind, enum disk_kind to_kind, bool scan, bool zeros)
{
    uint64_t shown = 0;
    struct copy how = { .scan = scan, .progress = on_progress, .progress_arg = &shown };
    struct disk *from = make_source(from_kind, zeros), *to = make(to_path, to_kind);
    struct disk_file *f;
    uint64_t room;

    assert_int_equal(copy_disk(from, to, &how), 0);
    assert_int_equal(shown, SIZE);
    room = disk_file_allocated(disk_layer_file(disk_layer(from, 0)));
    assert_int_equal(disk_close(to, NULL), 0);
    disk_close(from, NULL);

    to = open_it(to_path, to_kind);
    assert_int_equal(disk_read(to, 0, seen, SIZE), 0);
    assert_memory_equal(seen, model, SIZE);
    f = disk_layer_file(disk_layer(to, 0));
    /* What is looked for is left out; else what the source has room for. The rest is metadata. */
    assert_true(disk_file_allocated(f) <= (scan ? data_bytes : room) + 4 * MIB);
    if (to_kind == DISK_RAW) {
        assert_int_equal(disk_file_size(f), SIZE);
    }
    assert_int_equal(disk_check_file(f, (int)to_kind, no_problem, NULL, NULL), 0);
    disk_close(to, NULL);
}

static void test_all_formats(void **state)
{
    for (unsigned i = 0; i < DISK_KIND_COUNT * DISK_KIND_COUNT * 4; i++) {
        copy_and_compare(i / 4 / DISK_KIND_COUNT, i / 4 % DISK_KIND_COUNT, i & 1, i & 2);
    }
}

/*
 * Whatever fails, and with it the other thread: its error comes back, and nobody waits for ever. What only
 * looked ahead (a table's next entries, what to expect) may fail for nothing: then the copy is as good.
 */
static void every_failure(enum fault_kind kind, enum disk_kind to_kind)
{
    struct disk *from = make_source(DISK_VHDX, false), *to = make(to_path, to_kind);
    struct copy how = { 0 };
    unsigned tried = 0, failed = 0;
    uint64_t calls;

    assert_int_equal(copy_disk(from, to, &how), 0);      /* the source's tables are in memory now */
    disk_abandon(to);
    to = make(to_path, to_kind);
    fault_arm(kind, UINT64_MAX, 0);
    assert_int_equal(copy_disk(from, to, &how), 0);
    calls = fault_calls(kind);
    fault_arm(kind, 0, 0);
    disk_abandon(to);
    for (uint64_t nth = 1; nth <= calls; nth += nth < 5 ? 1 : 7) {
        int err = nth % 2 ? ENOSPC : EIO, r;

        to = make(to_path, to_kind);
        fault_arm(kind, nth, err);
        r = copy_disk(from, to, &how);
        fault_arm(kind, 0, 0);
        tried++;
        if (r < 0) {
            assert_int_equal(r, -err);
            failed++;
        } else {
            assert_int_equal(disk_read(to, 0, seen, SIZE), 0);
            assert_memory_equal(seen, model, SIZE);
        }
        disk_abandon(to);
    }
    assert_true(tried > 10 && failed >= tried - tried / 4);
    disk_close(from, NULL);
}

static void test_every_failure(void **state)
{
    for (unsigned k = 0; k < DISK_KIND_COUNT; k++) {
        every_failure(FAULT_READ, k);
        every_failure(FAULT_WRITE, k);
    }
}

/* What a host is told to expect changes nothing that is read, of no file, and takes room only where it helps. */
static void test_expect(void **state)
{
    struct disk_file *f, *read_only;
    uint8_t want[4096], got[4096];
    struct statfs fs;
    uint64_t before;

    unlink(to_path);
    assert_int_equal(disk_file_open(to_path, DISK_FILE_WRITE | DISK_FILE_CREATE | DISK_FILE_NO_LOCK, &f, NULL), 0);
    assert_int_equal(disk_file_open(to_path, DISK_FILE_NO_LOCK, &read_only, NULL), 0);
    memset(want, 7, sizeof(want));
    assert_int_equal(disk_file_write(f, MIB, want, sizeof(want)), 0);
    assert_int_equal(disk_file_sync(f), 0);
    before = disk_file_allocated(f);

    disk_file_expect(read_only, 0, 16 * MIB);
    disk_file_expect(f, 0, 64 * KIB);                    /* not worth it */
    disk_file_expect(f, UINT64_MAX - MIB, 2 * MIB);      /* no such place */
    disk_file_expect(f, 0, UINT64_MAX);
    assert_int_equal(disk_file_allocated(f), before);
    disk_file_expect(f, 0, 16 * MIB);
    assert_int_equal(statfs(to_path, &fs), 0);
    if (fs.f_type != EXT4_SUPER_MAGIC) {
        assert_int_equal(disk_file_allocated(f), before);
    } else if (disk_file_allocated(f) == before) {       /* ext2 or ext3, which cannot */
        assert_true(fallocate(disk_file_fd(f), FALLOC_FL_KEEP_SIZE, 0, MIB) < 0 && errno == EOPNOTSUPP);
    } else {
        assert_true(disk_file_allocated(f) >= 16 * MIB);
    }
    assert_int_equal(disk_file_size(f), MIB + sizeof(want));
    assert_int_equal(disk_file_read(f, MIB, got, sizeof(got)), 0);
    assert_memory_equal(got, want, sizeof(got));
    assert_int_equal(disk_file_read(f, 0, got, sizeof(got)), 0);
    assert_true(hv_is_zero(got, sizeof(got)));
    disk_file_unref(read_only);
    disk_file_unref(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_formats),
        cmocka_unit_test(test_every_failure),
        cmocka_unit_test(test_expect),
    };
    int r;

    hv_assert(mkdtemp(folder));
    snprintf(from_path, sizeof(from_path), "%s/from", folder);
    snprintf(to_path, sizeof(to_path), "%s/to", folder);
    make_model();
    r = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(from_path);
    unlink(to_path);
    rmdir(folder);
    return r;
}
