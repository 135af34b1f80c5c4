/*
 * VHD through crashes: a random load on a file that records every write; then the file as a
 * crash after each of them would have left it, with halves of writes and without what no sync
 * had followed. Each must open for reading and for writing, have nothing wrong but a footer,
 * and hold what the last flush acknowledged, or something newer.
 *
 * All cases are looked at, four ways each; HV_CRASH_CASES bounds them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hv/base/endian.h"
#include "hv/disk/disk_impl.h"
#include "tests/unit/disk/memfile.c"
#include "tests/unit/roll.h"

#define SIZE    (12 * MIB)
#define SECTORS 96u                      /* looked at: every 256th of the disk */
#define STRIDE  (SIZE / SECTORS)
#define STEPS   160u

/* What a sector was given, and when: versions that a crash may show. */
struct version { uint32_t stamp; size_t issued; };
static struct { struct version v[STEPS + 2]; unsigned count, acked; } sector[SECTORS];
static struct { size_t ops; unsigned version[SECTORS]; } flush[STEPS + 2];
static unsigned flushes;
static struct memfile *base, *leaf;

static int parent_fn(void *arg, const char *child, const struct disk_parent_ref *ref, struct disk_file **ret,
                     struct hv_error *e)
{
    *ret = memfile_open(base, "/memory/base.vhd", 0);
    return 0;
}

static int try_open(struct memfile *m, unsigned flags, struct disk **ret, struct hv_error *e)
{
    struct disk_options o = { .format = DISK_VHD, .flags = flags, .parent = parent_fn };

    return disk_open_file(memfile_open(m, "/memory/leaf.vhd", flags & DISK_WRITE ? DISK_FILE_WRITE : 0), &o, ret, e);
}

static struct disk *must_open(struct memfile *m, unsigned flags)
{
    struct hv_error e = { 0 };
    struct disk *d = NULL;

    if (try_open(m, flags, &d, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return d;
}

static struct memfile *create(struct disk_create c, struct disk *parent)
{
    struct memfile *m = memfile_new();
    struct disk_file *f = memfile_open(m, "/memory/new.vhd", DISK_FILE_WRITE);
    struct hv_error e = { 0 };

    c.kind = DISK_VHD;
    if (disk_create_in(f, &c, parent, &e) < 0) {
        fail_msg("%s", e.message);
    }
    disk_file_unref(f);
    return m;
}

static void fill(uint8_t *p, uint32_t stamp)
{
    for (unsigned i = 0; i < 512; i += 4) {
        put_le32(p + i, stamp);
    }
}

static void remember(unsigned s, uint32_t stamp)
{
    sector[s].v[sector[s].count++] = (struct version){ stamp, memfile_ops(leaf) };
}

static void acknowledge(void)
{
    flush[flushes].ops = memfile_ops(leaf);
    for (unsigned s = 0; s < SECTORS; s++) {
        flush[flushes].version[s] = sector[s].count - 1;
    }
    flushes++;
}

static void step(struct disk **d, uint32_t stamp)
{
    unsigned s = (unsigned)roll(SECTORS);
    uint8_t buf[512];
    struct hv_error e = { 0 };

    switch (roll(14)) {
    case 0: case 1: case 2: case 3: case 4: case 5: case 6:
        fill(buf, stamp);
        remember(s, stamp);
        assert_int_equal(disk_write(*d, (uint64_t)s * STRIDE, buf, 512), 0);
        break;
    case 7:                              /* a block of zeros, or a sector */
        if (roll(2) || !disk_layer(*d, 0)->block_size) {
            remember(s, 0);
            assert_int_equal(disk_zero(*d, (uint64_t)s * STRIDE, 512), 0);
        } else {
            uint32_t block = disk_layer(*d, 0)->block_size;
            uint64_t start = (uint64_t)s * STRIDE / block * block, len = MIN(disk_size(*d) - start, (uint64_t)block);

            for (unsigned k = 0; k < SECTORS; k++) {
                if ((uint64_t)k * STRIDE >= start && (uint64_t)k * STRIDE < start + len) {
                    remember(k, 0);
                }
            }
            assert_int_equal(disk_zero(*d, start, len), 0);
        }
        break;
    case 8: case 9: case 10:
        assert_int_equal(disk_flush(*d), 0);
        acknowledge();
        break;
    case 11:
        assert_int_equal(disk_close(*d, &e), 0);
        acknowledge();
        *d = must_open(leaf, DISK_WRITE);
        break;
    case 12:
        if (disk_layer(*d, 0)->block_size && roll(2)) {
            assert_int_equal(disk_compact(*d, roll(2), NULL, NULL, &e), 0);
            acknowledge();
        }
        break;
    default:
        if (disk_size(*d) < SIZE + 200 * MIB && roll(3) == 0) {
            assert_int_equal(disk_resize(*d, disk_size(*d) + (1 + roll(90)) * MIB, &e), 0);
            acknowledge();
        }
    }
}

static void count_problem(void *arg, const struct disk_problem *p)
{
    if (!p->harmless && (strncmp(p->text, "footer: ", 8) != 0 || *(int *)arg < 0)) {
        fail_msg("%s", p->text);
    }
    *(int *)arg += !p->harmless;
}

/* All but footers fail at once; these too when none is left to be put back. */
static int problems(struct memfile *m, bool footers)
{
    struct disk_file *f = memfile_open(m, "/memory/leaf.vhd", 0);
    struct hv_error e = { 0 };
    int n = footers ? 0 : -1;

    assert_int_equal(disk_check_file(f, DISK_VHD, count_problem, &n, &e), 0);
    disk_file_unref(f);
    return n;
}

static void verify(struct disk *d, size_t crash)
{
    unsigned last = 0;
    bool any = false;

    for (unsigned i = 0; i < flushes && flush[i].ops <= crash; i++) {
        last = i;
        any = true;
    }
    for (unsigned s = 0; s < SECTORS; s++) {
        uint8_t buf[512], want[512];
        bool fine = false;

        assert_int_equal(disk_read(d, (uint64_t)s * STRIDE, buf, 512), 0);
        for (unsigned n = any ? flush[last].version[s] : 0; n < sector[s].count && !fine; n++) {
            fill(want, sector[s].v[n].stamp);
            fine = (n == 0 || sector[s].v[n].issued <= crash || n == (any ? flush[last].version[s] : 0)) &&
                   memcmp(buf, want, 512) == 0;
        }
        if (!fine) {
            fail_msg("sector %u has %08x after a crash behind operation %zu", s, get_le32(buf), crash);
        }
    }
}

static void crash_at(size_t ops, enum memfile_crash how)
{
    struct memfile *m = memfile_crash(leaf, ops, how, roll(UINT32_MAX) + 1);
    struct hv_error e = { 0 };
    struct disk *d = must_open(m, 0);

    problems(m, true);
    verify(d, ops);
    disk_close(d, NULL);
    d = must_open(m, DISK_WRITE);        /* what is missing is put back */
    verify(d, ops);
    assert_int_equal(disk_write(d, SIZE - 512, "goes on", 7), 0);
    assert_int_equal(disk_close(d, &e), 0);
    problems(m, false);
    memfile_free(m);
}

static void play(enum disk_type type, uint32_t block)
{
    const char *text = getenv("HV_CRASH_CASES");
    unsigned long cases = text ? strtoul(text, NULL, 10) : 0;
    struct disk *d = NULL;
    size_t ops;

    memset(sector, 0, sizeof(sector));
    flushes = 0;
    base = NULL;
    if (type == DISK_DIFFERENCING) {     /* the parent has something in every second sector */
        struct disk *parent;
        uint8_t buf[512];

        base = create((struct disk_create){ .type = DISK_DYNAMIC, .size = SIZE }, NULL);
        leaf = base;
        parent = must_open(base, DISK_WRITE);
        for (unsigned s = 0; s < SECTORS; s += 2) {
            fill(buf, 0xba5e0000 + s);
            assert_int_equal(disk_write(parent, (uint64_t)s * STRIDE, buf, 512), 0);
        }
        disk_close(parent, NULL);
        parent = must_open(base, 0);
        leaf = create((struct disk_create){ .block_size = block }, parent);
        disk_close(parent, NULL);
    } else {
        leaf = create((struct disk_create){ .type = type, .size = SIZE, .block_size = block }, NULL);
    }
    memfile_record(leaf);
    for (unsigned s = 0; s < SECTORS; s++) {
        remember(s, base && s % 2 == 0 ? 0xba5e0000 + s : 0);
    }
    d = must_open(leaf, DISK_WRITE);
    for (unsigned i = 0; i < STEPS; i++) {
        step(&d, i + 1);
    }
    disk_abandon(d);
    ops = memfile_ops(leaf);
    for (size_t i = 0; i <= ops; i++) {
        for (int how = 0; how < CRASH_COUNT; how++) {
            if (cases == 0 || roll((ops + 1) * CRASH_COUNT) < cases) {
                crash_at(i, (enum memfile_crash)how);
            }
        }
    }
    memfile_free(leaf);
    memfile_free(base);
}

static void dynamic_disks(void **state)
{
    play(DISK_DYNAMIC, 512 * KIB);
    play(DISK_DYNAMIC, 2 * MIB);
}

static void differencing_disks(void **state)
{
    play(DISK_DIFFERENCING, 512 * KIB);
    play(DISK_DIFFERENCING, 2 * MIB);
}

static void fixed_disks(void **state)
{
    play(DISK_FIXED, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dynamic_disks),
        cmocka_unit_test(differencing_disks),
        cmocka_unit_test(fixed_disks),
    };

    seed_from_environment();
    return cmocka_run_group_tests_name("vhd_crash", tests, NULL, NULL);
}
