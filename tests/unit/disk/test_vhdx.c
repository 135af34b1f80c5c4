/* VHDX of every shape against a model: an array of bytes that every operation is done to as well. */
#include "tests/unit/disk/vhdx_fixture.h"

struct shape {
    enum disk_type type;
    uint32_t block_size, sector;
    uint64_t size;
    int steps;
};

static void compare(struct disk *d, const uint8_t *model, uint64_t size)
{
    static uint8_t part[1 << 20];

    assert_int_equal(disk_size(d), size);
    for (uint64_t off = 0; off < size; off += sizeof(part)) {
        uint64_t n = MIN(sizeof(part), size - off);

        assert_int_equal(disk_read(d, off, part, n), 0);
        if (memcmp(part, model + off, n) == 0) {
            continue;
        }
        for (uint64_t i = 0; i < n; i++) {
            if (part[i] != model[off + i]) {
                fail_msg("byte 0x%llx is %02x, not %02x", (unsigned long long)(off + i), part[i], model[off + i]);
            }
        }
    }
}

/* Places that collide often: few blocks, their edges, the end of the disk. */
static uint64_t pick_offset(const struct shape *s, uint32_t block)
{
    uint64_t edge = roll(s->size / block + 1) * block, by = roll(100000);

    switch (roll(4)) {
    case 0: return roll(s->size);
    case 1: return MIN(edge + by, s->size - 1);
    case 2: return edge > by ? edge - by : by;
    default: return s->size - 1 - by / 2;
    }
}

static void play(struct image_chain *c, const struct shape *s, uint8_t *model)
{
    static uint8_t buf[3 << 20];
    unsigned leaf = c->count - 1;
    struct disk *d = chain_open(c, leaf, DISK_WRITE);
    uint32_t block = disk_layer(d, 0)->block_size;

    for (int i = 0; i < s->steps; i++) {
        uint64_t off = pick_offset(s, block), kind = roll(20);
        uint64_t len = 1 + roll(roll(4) ? 20000 : sizeof(buf));

        if (roll(2)) {
            off = off / s->sector * s->sector;
            len = ROUND_UP(len, s->sector);
        }
        len = MIN(MIN(len, s->size - off), sizeof(buf));
        if (kind < 10) {
            for (uint64_t k = 0; k < len; k += 8) {
                put_le64(buf + k, roll(UINT64_MAX) | 1);
            }
            assert_int_equal(disk_write(d, off, buf, len), 0);
            memcpy(model + off, buf, len);
        } else if (kind < 15) {
            if (roll(2)) {               /* whole blocks */
                off = off / block * block;
                len = (uint64_t)(1 + roll(2)) * block + roll(2) * 512;
            }
            len = MIN(len, s->size - off);
            assert_int_equal(disk_zero(d, off, len), 0);
            memset(model + off, 0, len);
        } else if (kind == 15) {
            assert_int_equal(disk_flush(d), 0);
        } else if (kind == 16) {
            must_close(d);
            must_be_clean(c->m[leaf], c->path[leaf]);
            d = chain_open(c, leaf, DISK_WRITE);
        } else {
            assert_int_equal(disk_read(d, off, buf, len), 0);
            assert_memory_equal(buf, model + off, len);
        }
    }
    compare(d, model, s->size);
    assert_int_equal(disk_flush(d), 0);
    /* What others see while it is open: the log replayed, in memory. */
    struct disk *reader = chain_open(c, leaf, 0);
    compare(reader, model, s->size);
    must_close(reader);
    must_close(d);
    must_be_clean(c->m[leaf], c->path[leaf]);
    d = chain_open(c, leaf, 0);
    compare(d, model, s->size);
    must_close(d);
}

static void play_shape(const struct shape *s)
{
    struct image_chain c = { 0 };
    uint8_t *model = calloc(1, s->size);
    struct disk_create base = { .type = s->type == DISK_DIFFERENCING ? DISK_DYNAMIC : s->type, .size = s->size,
                                .block_size = s->block_size, .logical_sector = s->sector };

    assert_non_null(model);
    if (s->type == DISK_DIFFERENCING) {
        base.block_size = 1 << (20 + roll(3));
    }
    chain_add(&c, base);
    play(&c, s, model);
    for (int child = 0; s->type == DISK_DIFFERENCING && child < 2; child++) {
        chain_add(&c, (struct disk_create){ .block_size = s->block_size });
        play(&c, s, model);
    }
    chain_fini(&c);
    free(model);
}

static void test_shapes(void **state)
{
    static const uint32_t sectors[] = { 512, 4096 };
    static const struct { uint32_t block; uint64_t size; int steps; } sizes[] = {
        { 1 << 20, 9 * MIB + 4096 * 7, 400 },
        { 2 << 20, 13 * MIB - 4096, 300 },
        { 32 << 20, 70 * MIB + 4096, 80 },
        { 256 << 20, 257 * MIB, 20 },
    };

    (void)state;
    for (int type = 0; type < DISK_TYPE_COUNT; type++) {
        for (unsigned i = 0; i < ARRAY_SIZE(sizes) * 2; i++) {
            struct shape s = { (enum disk_type)type, sizes[i / 2].block, sectors[i % 2], sizes[i / 2].size,
                               sizes[i / 2].steps };

            if (type == DISK_DIFFERENCING && s.block_size == 256 << 20 && s.sector == 4096) {
                continue;                /* nothing that the others do not have, and slow */
            }
            play_shape(&s);
        }
    }
}

/* A sector bitmap covers 4 GiB of 512-byte sectors: write on both sides of that edge. */
static void test_chunk_edge(void **state)
{
    struct image_chain c = { 0 };
    struct disk *d;
    static uint8_t a[1 << 20], b[1 << 20];
    uint64_t edge = 4 * GIB;

    (void)state;
    memset(a, 0xa5, sizeof(a));
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 9 * GIB });
    d = chain_open(&c, 0, DISK_WRITE);
    assert_int_equal(disk_write(d, edge - 512 * KIB, a, sizeof(a)), 0);
    must_close(d);
    chain_add(&c, (struct disk_create){ 0 });
    d = chain_open(&c, 1, DISK_WRITE);
    memset(a + 512 * KIB - 4096, 0x5a, 8192);
    assert_int_equal(disk_write(d, edge - 4096, a + 512 * KIB - 4096, 8192), 0);
    assert_int_equal(disk_write(d, 9 * GIB - 512, a, 512), 0);
    must_close(d);
    must_be_clean(c.m[1], c.path[1]);
    d = chain_open(&c, 1, 0);
    assert_int_equal(disk_read(d, edge - 512 * KIB, b, sizeof(b)), 0);
    assert_memory_equal(a, b, sizeof(a));
    assert_int_equal(disk_read(d, 9 * GIB - 512, b, 512), 0);
    assert_memory_equal(a, b, 512);
    must_close(d);
    chain_fini(&c);
}

/* States that Hyper-V writes: 1 and 3 read as zeros and do not ask the parent; parts written make 6. */
static void test_states(void **state)
{
    static const uint8_t states[] = { VHDX_UNDEFINED, VHDX_ZERO, VHDX_UNMAPPED };
    uint8_t buf[4096], sector[512];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(states); i++) {
        struct image_chain c = { 0 };
        struct disk_extent x;
        struct disk *d;
        uint8_t entry[8];

        chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 8 * MIB, .block_size = 1 << 20 });
        d = chain_open(&c, 0, DISK_WRITE);
        memset(buf, 0x11, sizeof(buf));
        assert_int_equal(disk_write(d, 2 * MIB, buf, sizeof(buf)), 0);
        must_close(d);
        chain_add(&c, (struct disk_create){ .block_size = 1 << 20 });
        put_le64(entry, states[i]);
        memfile_write(c.m[1], 3 * MIB + 2 * 8, entry, 8);
        d = chain_open(&c, 1, DISK_WRITE);
        assert_int_equal(disk_map(d, 2 * MIB, MIB, &x), 0);
        assert_int_equal(x.where, DISK_ZERO);
        assert_int_equal(x.layer, 0);
        memset(sector, 0x22, sizeof(sector));
        assert_int_equal(disk_write(d, 2 * MIB + 512, sector, 512), 0);
        assert_int_equal(disk_read(d, 2 * MIB, buf, sizeof(buf)), 0);
        for (unsigned k = 0; k < sizeof(buf); k++) {
            assert_int_equal(buf[k], k / 512 == 1 ? 0x22 : 0);
        }
        must_close(d);
        memfile_read(c.m[1], 3 * MIB + 2 * 8, entry, 8);
        assert_int_equal(get_le64(entry) & 7, VHDX_FULL);
        must_be_clean(c.m[1], c.path[1]);
        chain_fini(&c);
    }
}

static uint64_t payload_entry(struct memfile *m, uint64_t index)
{
    uint8_t entry[8];

    memfile_read(m, 3 * MIB + index * 8, entry, 8);
    return get_le64(entry);
}

/* A child's block goes 0, 7, 6 as its sectors arrive; a bitmap is made for 7 only. */
static void test_partial_to_full(void **state)
{
    struct image_chain c = { 0 };
    static uint8_t data[1 << 20];
    struct disk *d;

    (void)state;
    memset(data, 0x77, sizeof(data));
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 4 * MIB, .block_size = 1 << 20 });
    chain_add(&c, (struct disk_create){ .block_size = 1 << 20 });
    d = chain_open(&c, 1, DISK_WRITE);
    assert_int_equal(disk_write(d, MIB, data, MIB), 0);
    assert_int_equal(disk_flush(d), 0);
    assert_int_equal(payload_entry(c.m[1], 1) & 7, VHDX_FULL);
    assert_int_equal(payload_entry(c.m[1], 4096) & 7, VHDX_BITMAP_NOT_PRESENT);
    assert_int_equal(disk_write(d, 2 * MIB, data, MIB - 512), 0);
    assert_int_equal(disk_flush(d), 0);
    assert_int_equal(payload_entry(c.m[1], 2) & 7, VHDX_PARTIAL);
    assert_int_equal(payload_entry(c.m[1], 4096) & 7, VHDX_BITMAP_PRESENT);
    assert_int_equal(disk_write(d, 3 * MIB - 512, data, 512), 0);
    assert_int_equal(disk_flush(d), 0);
    assert_int_equal(payload_entry(c.m[1], 2) & 7, VHDX_FULL);
    must_close(d);
    chain_fini(&c);
}

/* Bits that an earlier life of a block left say nothing once it comes back as partly present. */
static void test_stale_bits(void **state)
{
    struct image_chain c = { 0 };
    static uint8_t buf[1 << 20];
    uint8_t entry[8];
    struct disk *d;

    (void)state;
    memset(buf, 0x66, sizeof(buf));
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 4 * MIB, .block_size = 1 << 20 });
    d = chain_open(&c, 0, DISK_WRITE);
    assert_int_equal(disk_write(d, 0, buf, MIB), 0);
    must_close(d);
    chain_add(&c, (struct disk_create){ .block_size = 1 << 20 });
    memfile_resize(c.m[1], 5 * MIB);
    memfile_write(c.m[1], 4 * MIB, buf, 256);            /* the bits of block 0, some set */
    put_le64(entry, 4 * MIB + VHDX_BITMAP_PRESENT);
    memfile_write(c.m[1], 3 * MIB + 4096 * 8, entry, 8);
    d = chain_open(&c, 1, DISK_WRITE);
    assert_int_equal(disk_write(d, 8192, "x", 1), 0);
    assert_int_equal(disk_read(d, 0, buf, MIB), 0);
    for (uint64_t i = 0; i < MIB; i++) {
        assert_int_equal(buf[i], i == 8192 ? 'x' : 0x66);
    }
    must_close(d);
    must_be_clean(c.m[1], c.path[1]);
    chain_fini(&c);
}

/* Sheet 4: one sync for a flush that has data only, two where metadata changed. */
static void test_syncs(void **state)
{
    struct image_chain c = { 0 };
    uint8_t buf[4096] = { 1 };
    size_t before;
    struct disk *d;

    (void)state;
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 64 * MIB, .block_size = 1 << 20 });
    d = chain_open(&c, 0, DISK_WRITE);
    assert_int_equal(disk_write(d, 0, buf, sizeof(buf)), 0);
    assert_int_equal(disk_flush(d), 0);
    memfile_record(c.m[0]);
    for (int i = 0; i < 20; i++) {
        before = memfile_syncs(c.m[0]);
        assert_int_equal(disk_write(d, 0, buf, sizeof(buf)), 0);
        assert_int_equal(disk_flush(d), 0);
        assert_int_equal(memfile_syncs(c.m[0]) - before, 1);
        before = memfile_syncs(c.m[0]);
        assert_int_equal(disk_write(d, (uint64_t)(1 + i) * MIB, buf, sizeof(buf)), 0);
        assert_int_equal(disk_flush(d), 0);
        assert_int_equal(memfile_syncs(c.m[0]) - before, 2);
    }
    must_close(d);
    chain_fini(&c);
}

/* Room of a discarded block is used again, and not before the discard is durable. */
static void test_room_again(void **state)
{
    struct image_chain c = { 0 };
    static uint8_t data[1 << 20], zeros[1 << 20], back[1 << 20];
    uint64_t size;
    struct disk *d;

    (void)state;
    memset(data, 0x42, sizeof(data));
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 64 * MIB, .block_size = 1 << 20 });
    d = chain_open(&c, 0, DISK_WRITE);
    for (uint64_t i = 0; i < 8; i++) {
        assert_int_equal(disk_write(d, i * MIB, data, MIB), 0);
    }
    assert_int_equal(disk_flush(d), 0);
    size = memfile_size(c.m[0]);
    assert_int_equal(disk_discard(d, 0, 4 * MIB), 0);
    assert_int_equal(disk_write(d, 20 * MIB, data, 512), 0);
    assert_int_equal(memfile_size(c.m[0]), size + MIB);
    assert_int_equal(disk_flush(d), 0);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(disk_write(d, (30 + i) * MIB + 4096, data, 512), 0);
    }
    assert_int_equal(memfile_size(c.m[0]), size + MIB);
    assert_int_equal(disk_read(d, 30 * MIB, back, MIB), 0);
    memcpy(zeros + 4096, data, 512);
    assert_memory_equal(back, zeros, MIB);
    memset(zeros + 4096, 0, 512);
    assert_int_equal(disk_read(d, MIB, back, MIB), 0);
    assert_memory_equal(back, zeros, MIB);
    must_close(d);
    must_be_clean(c.m[0], c.path[0]);
    chain_fini(&c);
}

/* More dirty pages than the log takes at once: it wraps, and every flush holds. */
static void test_log_wraps(void **state)
{
    struct image_chain c = { 0 };
    uint8_t buf[512];
    struct disk *d;
    uint64_t stride = 512 * MIB;         /* a BAT page each */

    (void)state;
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 600 * stride, .block_size = 1 << 20 });
    memfile_record(c.m[0]);
    d = chain_open(&c, 0, DISK_WRITE);
    for (uint64_t round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 600; i++) {
            put_le64(buf, i * 3 + round);
            assert_int_equal(disk_write(d, i * stride + round * MIB, buf, sizeof(buf)), 0);
            if (round == 1 && i % 7 == 0) {
                assert_int_equal(disk_flush(d), 0);
            }
        }
        assert_int_equal(disk_flush(d), 0);
        /* As after a crash right here. */
        struct memfile *m = memfile_crash(c.m[0], memfile_ops(c.m[0]), CRASH_NONE, round);
        for (int write = 0; write < 2; write++) {
            struct disk *again = chain_open_as(&c, 0, m, write ? DISK_WRITE : 0);

            for (uint64_t i = 0; i < 600; i++) {
                assert_int_equal(disk_read(again, i * stride + round * MIB, buf, sizeof(buf)), 0);
                assert_int_equal(get_le64(buf), i * 3 + round);
            }
            must_close(again);
        }
        must_be_clean(m, c.path[0]);
        memfile_free(m);
    }
    must_close(d);
    must_be_clean(c.m[0], c.path[0]);
    chain_fini(&c);
}

/* Opening for writing and closing again leaves every byte as it was. */
static void test_open_writes_nothing(void **state)
{
    struct image_chain c = { 0 };
    struct memfile *before;

    (void)state;
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 64 * MIB });
    before = memfile_copy(c.m[0]);
    memfile_record(c.m[0]);
    must_close(chain_open(&c, 0, DISK_WRITE));
    assert_int_equal(memfile_ops(c.m[0]) - memfile_syncs(c.m[0]), 0);
    assert_true(memfile_equal(before, c.m[0]));
    memfile_free(before);
    chain_fini(&c);
}

/* DataWriteGuid changes with the first write after an open, and only then. */
static void test_data_guid(void **state)
{
    struct image_chain c = { 0 };
    struct guid id;
    struct disk *d;

    (void)state;
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 64 * MIB });
    d = chain_open(&c, 0, DISK_WRITE);
    id = disk_layer(d, 0)->data_id;
    assert_int_equal(disk_flush(d), 0);
    must_close(d);
    d = chain_open(&c, 0, DISK_WRITE);
    assert_true(guid_equal(&id, &disk_layer(d, 0)->data_id));
    assert_int_equal(disk_write(d, 0, "x", 1), 0);
    assert_false(guid_equal(&id, &disk_layer(d, 0)->data_id));
    id = disk_layer(d, 0)->data_id;
    assert_int_equal(disk_write(d, 9999, "x", 1), 0);
    assert_true(guid_equal(&id, &disk_layer(d, 0)->data_id));
    must_close(d);
    d = chain_open(&c, 0, 0);
    assert_true(guid_equal(&id, &disk_layer(d, 0)->data_id));
    must_close(d);
    chain_fini(&c);
}

/* 64 TiB in blocks of 1 MiB: opened, written at its ends, without its BAT in memory. */
static void test_huge(void **state)
{
    struct image_chain c = { 0 };
    struct disk_extent x;
    uint8_t buf[512];
    struct disk *d;

    (void)state;
    chain_add(&c, (struct disk_create){ .type = DISK_DYNAMIC, .size = 64 * TIB, .block_size = 1 << 20 });
    assert_true(memfile_pages(c.m[0]) < 128);
    d = chain_open(&c, 0, DISK_WRITE);
    assert_int_equal(disk_write(d, 64 * TIB - 5, "hello", 5), 0);
    must_close(d);
    d = chain_open(&c, 0, 0);
    assert_int_equal(disk_read(d, 64 * TIB - 512, buf, 512), 0);
    assert_memory_equal(buf + 507, "hello", 5);
    assert_int_equal(disk_map(d, 0, 64 * TIB, &x), 0);
    assert_int_equal(x.where, DISK_ABSENT);
    must_close(d);
    chain_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes), cmocka_unit_test(test_chunk_edge), cmocka_unit_test(test_states),
        cmocka_unit_test(test_partial_to_full), cmocka_unit_test(test_stale_bits),
        cmocka_unit_test(test_syncs), cmocka_unit_test(test_room_again),
        cmocka_unit_test(test_log_wraps), cmocka_unit_test(test_open_writes_nothing),
        cmocka_unit_test(test_data_guid), cmocka_unit_test(test_huge),
    };

    seed_from_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
