/* VHDX changed as a whole: size, parent, identity, compacted; each also through crashes at every write. */
#include "tests/unit/disk/vhdx_fixture.h"

#define SIZE (24 * MIB + 12 * KIB)

static uint8_t model[64 << 20];

static void fill(struct disk *d, uint64_t off, uint64_t len)
{
    for (uint64_t i = off; i < off + len; i += 8) {
        put_le64(model + i, roll(UINT64_MAX) | 1);
    }
    assert_int_equal(disk_write(d, off, model + off, len), 0);
}

/* Data in most of twelve places, holes between them. */
static void scatter(struct disk *d)
{
    memset(model, 0, sizeof(model));
    for (uint64_t i = 0; i < 12; i++) {
        if (i % 4 != 2) {
            fill(d, i * 2 * MIB + roll(100) * 512, 40 * KIB);
        }
    }
    fill(d, SIZE - 8 * KIB, 8 * KIB);
}

static void compare(struct disk *d, uint64_t size)
{
    static uint8_t part[1 << 20];

    for (uint64_t off = 0; off < size; off += sizeof(part)) {
        uint64_t n = MIN(sizeof(part), size - off);

        assert_int_equal(disk_read(d, off, part, n), 0);
        if (memcmp(part, model + off, n) != 0) {
            fail_msg("differs within the MiB at 0x%llx", (unsigned long long)off);
        }
    }
}

static void make(struct image_chain *c, enum disk_type type, uint64_t size)
{
    struct disk *d;

    chain_add(c, (struct disk_create){ .type = type == DISK_DIFFERENCING ? DISK_DYNAMIC : type, .size = size,
                                       .block_size = 1 << 20 });
    if (type == DISK_DIFFERENCING) {
        d = chain_open(c, 0, DISK_WRITE);
        memset(model, 0, sizeof(model));
        must_close(d);
        chain_add(c, (struct disk_create){ .block_size = 1 << 20 });
    }
    d = chain_open(c, c->count - 1, DISK_WRITE);
    scatter(d);
    must_close(d);
}

typedef int verb(struct disk *d, struct hv_error *e);

static uint64_t new_size;

static int do_resize(struct disk *d, struct hv_error *e)
{
    return disk_resize(d, new_size, e);
}

static int do_compact(struct disk *d, struct hv_error *e)
{
    return disk_compact(d, false, NULL, NULL, e);
}

static int do_set_id(struct disk *d, struct hv_error *e)
{
    struct guid id = { { 1, 2, 3 } };

    return disk_set_id(d, &id, e);
}

static int do_set_parent(struct disk *d, struct hv_error *e)
{
    struct disk_parent_ref ref = disk_layer(d, 0)->parent;
    int r;

    snprintf(ref.relative, sizeof(ref.relative), ".\\elsewhere\\%0200d.vhdx", 7);
    pthread_mutex_lock(&disk_layer(d, 0)->lock);
    r = disk_format_vhdx.set_parent(disk_layer(d, 0), &ref, e);
    pthread_mutex_unlock(&disk_layer(d, 0)->lock);
    return r;
}

static void must_do(verb *v, struct disk *d)
{
    struct hv_error e = { 0 };

    if (v(d, &e) < 0) {
        fail_msg("%s", e.message);
    }
}

/* The verb stopped at every operation: the disk is as before or as after, whole. */
static void crash_verb(struct image_chain *c, verb *v, uint64_t size_after)
{
    unsigned leaf = c->count - 1;
    const char *text = getenv("HV_CRASH_CASES");
    unsigned long wanted = text ? strtoul(text, NULL, 10) : 60;
    struct disk *d = chain_open(c, leaf, DISK_WRITE);
    uint64_t size = disk_size(d);

    memfile_record(c->m[leaf]);
    must_do(v, d);
    must_close(d);
    must_be_clean(c->m[leaf], c->path[leaf]);
    d = chain_open(c, leaf, 0);
    assert_int_equal(disk_size(d), size_after);
    compare(d, MIN(size, size_after));
    must_close(d);
    for (size_t ops = 0; ops <= memfile_ops(c->m[leaf]); ops++) {
        for (int how = 0; how < CRASH_COUNT; how++) {
            struct memfile *m;

            if (wanted && roll((memfile_ops(c->m[leaf]) + 1) * CRASH_COUNT) >= wanted) {
                continue;
            }
            m = memfile_crash(c->m[leaf], ops, (enum memfile_crash)how, ops * CRASH_COUNT + (unsigned)how);
            must_be_clean(m, "before replay");
            d = chain_open_as(c, leaf, m, DISK_WRITE);
            assert_true(disk_size(d) == size || disk_size(d) == size_after);
            compare(d, MIN(size, size_after));
            /* Once more, to the end. */
            must_do(v, d);
            assert_int_equal(disk_size(d), size_after);
            compare(d, MIN(size, size_after));
            must_close(d);
            must_be_clean(m, "done again");
            memfile_free(m);
        }
    }
}

static void test_grow(void **state)
{
    static const enum disk_type types[] = { DISK_DYNAMIC, DISK_FIXED, DISK_DIFFERENCING };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        struct image_chain c = { 0 };
        struct disk *d;
        uint8_t zeros[4096] = { 0 }, back[4096];

        make(&c, types[i], SIZE);
        new_size = SIZE + 9 * MIB;
        crash_verb(&c, do_resize, new_size);
        d = chain_open(&c, c.count - 1, DISK_WRITE);
        assert_int_equal(disk_read(d, SIZE, back, 4096), 0);
        assert_memory_equal(back, zeros, 4096);
        fill(d, SIZE - 4096, 3 * MIB);
        must_close(d);
        must_be_clean(c.m[c.count - 1], "grown and written");
        chain_fini(&c);
    }
}

/* 1 GiB to 300 GiB in blocks of 1 MiB: the BAT outgrows its region and moves. */
static void test_grow_moves_bat(void **state)
{
    struct image_chain c = { 0 };
    struct disk *d;
    uint8_t back[4096];

    (void)state;
    make(&c, DISK_DYNAMIC, SIZE);
    new_size = 300 * GIB;
    crash_verb(&c, do_resize, new_size);
    d = chain_open(&c, 0, DISK_WRITE);
    assert_int_equal(disk_write(d, 300 * GIB - 4096, model, 4096), 0);
    must_close(d);
    d = chain_open(&c, 0, DISK_WRITE);
    compare(d, SIZE);
    assert_int_equal(disk_read(d, 300 * GIB - 4096, back, 4096), 0);
    assert_memory_equal(back, model, 4096);
    /* And back into the gap it left, or one before: compact. */
    must_do(do_compact, d);
    compare(d, SIZE);
    must_close(d);
    must_be_clean(c.m[0], c.path[0]);
    chain_fini(&c);
}

static void test_shrink(void **state)
{
    static const enum disk_type types[] = { DISK_DYNAMIC, DISK_FIXED, DISK_DIFFERENCING };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        struct image_chain c = { 0 };
        struct disk *d;

        make(&c, types[i], SIZE);
        new_size = 11 * MIB + 512;
        crash_verb(&c, do_resize, new_size);
        /* What was cut off does not come back. */
        d = chain_open(&c, c.count - 1, DISK_WRITE);
        memset(model + new_size, 0, SIZE - new_size);
        new_size = SIZE;
        must_do(do_resize, d);
        compare(d, SIZE);
        must_close(d);
        must_be_clean(c.m[c.count - 1], "shrunk and grown");
        chain_fini(&c);
    }
}

static void test_compact(void **state)
{
    static const enum disk_type types[] = { DISK_DYNAMIC, DISK_DIFFERENCING };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        struct image_chain c = { 0 };
        struct guid data_id;
        struct disk *d;
        uint64_t before;

        make(&c, types[i], SIZE);
        d = chain_open(&c, c.count - 1, DISK_WRITE);
        for (uint64_t k = 0; k < 6; k += 2) {
            assert_int_equal(disk_discard(d, k * 2 * MIB, MIB), 0);
            memset(model + k * 2 * MIB, 0, MIB);
        }
        must_close(d);
        before = memfile_size(c.m[c.count - 1]);
        d = chain_open(&c, c.count - 1, 0);
        data_id = disk_layer(d, 0)->data_id;
        must_close(d);
        crash_verb(&c, do_compact, SIZE);
        assert_true(memfile_size(c.m[c.count - 1]) <= before - 2 * MIB);
        d = chain_open(&c, c.count - 1, DISK_WRITE);
        assert_true(guid_equal(&data_id, &disk_layer(d, 0)->data_id));
        compare(d, SIZE);
        fill(d, 3 * MIB, 2 * MIB);
        compare(d, SIZE);
        must_close(d);
        must_be_clean(c.m[c.count - 1], "compacted and written");
        chain_fini(&c);
    }
}

static void test_identity(void **state)
{
    struct image_chain c = { 0 };
    struct guid before, data;
    struct disk *d;

    (void)state;
    make(&c, DISK_DIFFERENCING, SIZE);
    d = chain_open(&c, 1, DISK_WRITE);
    before = disk_id(d);
    data = disk_layer(d, 0)->data_id;
    must_close(d);
    d = chain_open(&c, 0, 0);
    assert_true(guid_equal(&before, &disk_layer(d, 0)->id));      /* a child keeps its parent's */
    must_close(d);
    crash_verb(&c, do_set_id, SIZE);
    crash_verb(&c, do_set_parent, SIZE);
    d = chain_open(&c, 1, DISK_WRITE);
    assert_false(guid_equal(&before, &disk_layer(d, 0)->id));
    assert_true(guid_equal(&data, &disk_layer(d, 0)->data_id));
    assert_non_null(strstr(disk_layer(d, 0)->parent.relative, "elsewhere"));
    assert_int_equal(disk_set_physical_sector(d, 512, NULL), 0);
    must_close(d);
    d = chain_open(&c, 1, 0);
    assert_int_equal(disk_physical_sector(d), 512);
    must_close(d);
    chain_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grow), cmocka_unit_test(test_grow_moves_bat), cmocka_unit_test(test_shrink),
        cmocka_unit_test(test_compact), cmocka_unit_test(test_identity),
    };

    seed_from_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
