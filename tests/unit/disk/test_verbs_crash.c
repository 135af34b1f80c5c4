/*
 * Verbs that change a disk, stopped at every write: identity, parent, sector size, merge, shrinking
 * with a partition table in it, repair. After each crash the disk opens, shows what it showed (or, of
 * merge and repair, what it is going to show), and the verb done again comes to its end.
 *
 * HV_CRASH_CASES bounds the cases of each verb (default 60, 0: all, four ways each).
 */
#include "tests/unit/disk/vhdx_fixture.h"

#include "hv/disk/disk_impl.h"
#include "hv/fs/partition.h"
#include "vhdtool/content.h"

#define SIZE  (8 * MIB)
#define BLOCK (1 * MIB)

static uint8_t model[SIZE], model2[SIZE];

/* ---- images: [0] the base, [1] its child ---- */

struct images { enum disk_kind kind; struct memfile *m[2]; };

static int the_parent(void *arg, const char *child, const struct disk_parent_ref *ref, struct disk_file **ret,
                      struct hv_error *e)
{
    struct images *im = arg;

    *ret = memfile_open(im->m[0], "/memory/base", 0);
    return 0;
}

static struct disk *open_it(struct images *im, struct memfile *m, unsigned flags)
{
    struct disk_options o = { .format = (int)im->kind, .flags = flags, .parent = the_parent, .parent_arg = im };
    struct hv_error e = { 0 };
    struct disk *d = NULL;

    if (disk_open_file(memfile_open(m, "/memory/image", flags & DISK_WRITE ? DISK_FILE_WRITE : 0), &o, &d, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return d;
}

static struct memfile *make(struct images *im, enum disk_type type, struct disk *parent)
{
    struct disk_create c = { .kind = im->kind, .type = type, .size = SIZE, .block_size = BLOCK };
    struct memfile *m = memfile_new();
    struct disk_file *f = memfile_open(m, "/memory/new", DISK_FILE_WRITE);
    struct hv_error e = { 0 };

    if (disk_create_in(f, &c, parent, &e) < 0) {
        fail_msg("%s", e.message);
    }
    disk_file_unref(f);
    return m;
}

static void fill(struct disk *d, uint8_t *what, uint64_t off, uint64_t len)
{
    for (uint64_t i = off; i < off + len; i += 8) {
        put_le64(what + i, roll(UINT64_MAX) | 1);
    }
    assert_int_equal(disk_write(d, off, what + off, len), 0);
}

/* A base with data in most blocks; a child that has parts of some and, where that can be said, zeros. */
static struct images make_images(enum disk_kind kind, bool child)
{
    struct images im = { .kind = kind };
    struct disk *d;

    memset(model, 0, sizeof(model));
    im.m[0] = make(&im, DISK_DYNAMIC, NULL);
    d = open_it(&im, im.m[0], DISK_WRITE);
    for (unsigned i = 0; i < 8; i++) {
        if (i != 3) {
            fill(d, model, i * BLOCK + roll(100) * 512, 20 * KIB);
        }
    }
    must_close(d);
    if (child) {
        d = open_it(&im, im.m[0], 0);
        im.m[1] = make(&im, DISK_DIFFERENCING, d);
        must_close(d);
        d = open_it(&im, im.m[1], DISK_WRITE);
        fill(d, model, 2 * BLOCK + 5 * 512, 9 * 512);
        fill(d, model, 3 * BLOCK, BLOCK);
        fill(d, model, 5 * BLOCK + 300 * KIB, 100 * KIB);
        memset(model + 6 * BLOCK, 0, BLOCK);
        assert_int_equal(disk_zero(d, 6 * BLOCK, BLOCK), 0);
        must_close(d);
    }
    return im;
}

static void images_fini(struct images *im)
{
    memfile_free(im->m[0]);
    memfile_free(im->m[1]);
}

static void compare(struct disk *d, const uint8_t *want, uint64_t size)
{
    static uint8_t got[SIZE];

    assert_int_equal(disk_read(d, 0, got, size), 0);
    for (uint64_t off = 0; off < size; off += 512) {
        if (memcmp(got + off, want + off, 512) != 0) {
            fail_msg("differs at 0x%llx", (unsigned long long)off);
        }
    }
}

/* harmless: what lives with it (a copy of a header that is bad) too. */
static unsigned count_findings(struct memfile *m, enum disk_kind kind, bool harmless)
{
    struct findings fs = { 0 };
    struct disk_file *f = memfile_open(m, "/memory/image", 0);
    struct hv_error e = { 0 };

    assert_int_equal(disk_check_file(f, (int)kind, add_finding, &fs, &e), 0);
    disk_file_unref(f);
    return fs.count + (harmless ? fs.harmless : 0);
}

static unsigned count_problems(struct memfile *m, enum disk_kind kind)
{
    return count_findings(m, kind, false);
}

/* fn for every operation of what was recorded in m and every way to lose what followed, or so many of them. */
static void each_crash(struct memfile *m, void (*fn)(void *arg, struct memfile *crashed), void *arg)
{
    const char *text = getenv("HV_CRASH_CASES");
    unsigned long wanted = text ? strtoul(text, NULL, 10) : 60, all = (memfile_ops(m) + 1) * CRASH_COUNT;

    assert_true(memfile_ops(m) > 0);
    for (unsigned long n = 0; n < all; n++) {
        struct memfile *crashed;

        if (wanted && roll(all) >= wanted) {
            continue;
        }
        crashed = memfile_crash(m, n / CRASH_COUNT, (enum memfile_crash)(n % CRASH_COUNT), n + 1);
        fn(arg, crashed);
        memfile_free(crashed);
    }
}

/* ---- identity, parent, sector size ---- */

typedef int verb(struct disk *d, struct hv_error *e);

static int new_id(struct disk *d, struct hv_error *e)
{
    return disk_set_id(d, &(struct guid){ { 9, 8, 7 } }, e);
}

static int new_sector(struct disk *d, struct hv_error *e)
{
    return disk_set_physical_sector(d, disk_physical_sector(d) == 512 ? 4096 : 512, e);
}

static int new_parent(struct disk *d, struct hv_error *e)
{
    struct disk_parent_ref ref = disk_layer(d, 0)->parent;
    int r;

    snprintf(ref.relative, sizeof(ref.relative), ".\\elsewhere\\%0200d", 7);
    pthread_mutex_lock(&disk_layer(d, 0)->lock);
    r = disk_layer(d, 0)->format->set_parent(disk_layer(d, 0), &ref, e);
    pthread_mutex_unlock(&disk_layer(d, 0)->lock);
    return r;
}

struct again { struct images *im; verb *v; };

static void do_it(struct images *im, struct memfile *m, verb *v)
{
    struct disk *d = open_it(im, m, DISK_WRITE);
    struct hv_error e = { 0 };

    compare(d, model, SIZE);
    if (v(d, &e) < 0) {
        fail_msg("%s", e.message);
    }
    compare(d, model, SIZE);
    must_close(d);
    assert_int_equal(count_problems(m, im->kind), 0);
}

static void do_again(void *arg, struct memfile *crashed)
{
    struct again *a = arg;
    struct disk *d = open_it(a->im, crashed, 0);

    compare(d, model, SIZE);
    must_close(d);
    do_it(a->im, crashed, a->v);
}

static void test_identity(void **state)
{
    static const struct { enum disk_kind kind; bool child; verb *v; } cases[] = {
        { DISK_VHD, false, new_id },      { DISK_VHD, true, new_parent },   { DISK_VHDX, false, new_id },
        { DISK_VHDX, false, new_sector }, { DISK_VHDX, true, new_sector },  { DISK_VHDX, true, new_parent },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct images im = make_images(cases[i].kind, cases[i].child);
        struct memfile *m = im.m[cases[i].child];

        memfile_record(m);
        do_it(&im, m, cases[i].v);
        each_crash(m, do_again, &(struct again){ &im, cases[i].v });
        images_fini(&im);
    }
}

/* ---- merge ---- */

static void merge(struct images *im, struct memfile *base)
{
    struct images now = { .kind = im->kind, .m = { base, im->m[1] } };
    struct disk *chain = open_it(&now, im->m[1], DISK_IGNORE_ID), *into;
    struct copy how = { 0 };

    compare(chain, model, SIZE);             /* the child covers whatever was written below it */
    into = open_it(&now, base, DISK_WRITE);
    assert_int_equal(copy_down(chain, 1, into, &how), 0);
    must_close(into);
    must_close(chain);
    into = open_it(&now, base, 0);
    compare(into, model, SIZE);
    must_close(into);
    assert_int_equal(count_problems(base, im->kind), 0);
}

static void merge_again(void *arg, struct memfile *crashed)
{
    struct images *im = arg;
    struct disk *d = open_it(im, crashed, DISK_WRITE);       /* who merges opens it so: replayed, healed */

    must_close(d);
    merge(im, crashed);
}

static void test_merge(void **state)
{
    (void)state;
    for (int kind = DISK_VHD; kind <= DISK_VHDX; kind++) {
        struct images im = make_images((enum disk_kind)kind, true);

        memfile_record(im.m[0]);
        merge(&im, im.m[0]);
        each_crash(im.m[0], merge_again, &im);
        images_fini(&im);
    }
}

/* ---- shrinking ---- */

static const uint64_t part_off = 1 * MIB, part_len = 2 * MIB;

static void check_table(struct disk *d)
{
    struct partition_table t;
    struct hv_error e = { 0 };

    if (partition_read(d, &t, &e) < 0) {
        fail_msg("%s", e.message);
    }
    assert_int_equal(t.scheme, PARTITION_GPT);
    assert_int_equal(t.n, 1);
    assert_int_equal(t.p[0].offset, part_off);
    assert_int_equal(t.p[0].len, part_len);
    partition_table_fini(&t);
}

static void shrink(struct images *im, struct memfile *m)
{
    struct disk *d = open_it(im, m, DISK_WRITE);
    uint8_t got[4096];
    struct hv_error e = { 0 };
    uint64_t least;

    check_table(d);
    assert_int_equal(content_least_size(d, &least, &e), 0);
    assert_int_equal(least, part_off + part_len + 33 * 512);
    if (content_move_backup(d, least, &e) < 0 || disk_resize(d, least, &e) < 0) {
        fail_msg("%s", e.message);
    }
    check_table(d);
    assert_int_equal(disk_read(d, part_off, got, sizeof(got)), 0);
    assert_memory_equal(got, model + part_off, sizeof(got));
    must_close(d);
    assert_int_equal(count_problems(m, im->kind), 0);
}

static void shrink_again(void *arg, struct memfile *crashed)
{
    shrink(arg, crashed);
}

static void test_shrink(void **state)
{
    struct images im = make_images(DISK_VHDX, false);
    struct partition p = { .number = 1, .offset = part_off, .len = part_len, .type = partition_gpt_type(PARTITION_LINUX),
                           .id = { { 1 } } };
    struct partition_table t = { .scheme = PARTITION_GPT, .p = &p, .n = 1, .disk_id = { { 2 } } };
    struct disk *d = open_it(&im, im.m[0], DISK_WRITE);
    struct hv_error e = { 0 };

    (void)state;
    if (partition_write(d, &t, &e) < 0) {
        fail_msg("%s", e.message);
    }
    fill(d, model, part_off, 4096);
    must_close(d);
    memfile_record(im.m[0]);
    shrink(&im, im.m[0]);
    each_crash(im.m[0], shrink_again, &im);
    images_fini(&im);
}

/* ---- repair ---- */

static void repair(struct images *im, struct memfile *m)
{
    struct findings fs = { 0 };
    struct disk_file *f = memfile_open(m, "/memory/image", DISK_FILE_WRITE);
    struct hv_error e = { 0 };

    if (disk_repair_file(f, (int)im->kind, false, add_finding, &fs, &e) < 0) {
        fail_msg("%s", e.message);
    }
    disk_file_unref(f);
    assert_int_equal(count_problems(m, im->kind), 0);
}

static void repair_again(void *arg, struct memfile *crashed)
{
    struct images *im = arg;
    struct disk *d;

    repair(im, crashed);
    d = open_it(im, crashed, 0);
    compare(d, model2, SIZE);                /* as after a repair that was not stopped */
    must_close(d);
}

static uint64_t bat_at(const struct images *im)
{
    uint8_t p[8];

    if (im->kind == DISK_VHDX) {
        return 3 * MIB;
    }
    memfile_read(im->m[0], 512 + 16, p, 8);
    return get_be64(p);
}

/* Block 5 lies where block 4 does; block 7 past the end of the file. */
static void break_bat(struct images *im)
{
    size_t width = im->kind == DISK_VHDX ? 8 : 4;
    uint8_t entry[8];

    memfile_read(im->m[0], bat_at(im) + 4 * width, entry, width);
    memfile_write(im->m[0], bat_at(im) + 5 * width, entry, width);
    if (im->kind == DISK_VHDX) {
        put_le64(entry, 0x40000000000ull | 6);
    } else {
        put_be32(entry, 0x70000000);
    }
    memfile_write(im->m[0], bat_at(im) + 7 * width, entry, width);
}

static void break_front(struct images *im)
{
    memfile_write(im->m[0], im->kind == DISK_VHDX ? 64 * KIB : 100, "damage", 6);
}

static void break_second(struct images *im)
{
    memfile_write(im->m[0], im->kind == DISK_VHDX ? 192 * KIB + 20 : memfile_size(im->m[0]) - 100, "damage", 6);
}

static void break_all(struct images *im)
{
    break_bat(im);
    break_front(im);
}

static void test_repair(void **state)
{
    static void (*const damages[])(struct images *) = { break_bat, break_front, break_second, break_all };

    (void)state;
    for (int kind = DISK_VHD; kind <= DISK_VHDX; kind++) {
        for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
            struct images im = make_images((enum disk_kind)kind, false);
            struct disk *d;

            damages[i](&im);
            assert_true(count_findings(im.m[0], im.kind, true) > 0);
            memfile_record(im.m[0]);
            repair(&im, im.m[0]);
            d = open_it(&im, im.m[0], 0);
            assert_int_equal(disk_read(d, 0, model2, SIZE), 0);
            assert_memory_equal(model2, model, 5 * BLOCK);    /* what was not damaged is as it was */
            must_close(d);
            each_crash(im.m[0], repair_again, &im);
            images_fini(&im);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity), cmocka_unit_test(test_merge), cmocka_unit_test(test_shrink),
        cmocka_unit_test(test_repair),
    };

    seed_from_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
