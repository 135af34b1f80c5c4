/* Bytes on their way while their block is discarded: no other block may get them, no reader others'. */
#include "tests/unit/disk/vhdx_fixture.h"

#define BLOCK (2 * MIB)
#define SIZE  (8 * BLOCK)

static struct disk *fresh(struct memfile *m, enum disk_kind kind)
{
    struct disk_create c = { .kind = kind, .type = DISK_DYNAMIC, .size = SIZE, .block_size = BLOCK };
    struct disk_options o = { .format = (int)kind, .flags = DISK_WRITE };
    struct disk_file *f = memfile_open(m, "/image", DISK_FILE_WRITE);
    struct hv_error e = { 0 };
    struct disk *d;

    assert_int_equal(disk_create_in(f, &c, NULL, &e), 0);
    disk_file_unref(f);
    assert_int_equal(disk_open_file(memfile_open(m, "/image", DISK_FILE_WRITE), &o, &d, &e), 0);
    return d;
}

static void fill(struct disk *d, uint64_t off, int byte)
{
    static uint8_t buf[BLOCK];

    memset(buf, byte, sizeof(buf));
    assert_int_equal(disk_write(d, off, buf, sizeof(buf)), 0);
}

static void expect(struct disk *d, uint64_t off, uint64_t len, int byte)
{
    static uint8_t buf[BLOCK], want[BLOCK];

    memset(want, byte, len);
    assert_int_equal(disk_read(d, off, buf, len), 0);
    assert_memory_equal(buf, want, len);
}

/* The write got its place, the block is discarded and durable so, another block wants room: then the bytes come. */
static void write_meets(enum disk_kind kind, bool zero, bool old)
{
    struct memfile *m = memfile_new();
    struct disk *d = fresh(m, kind);
    struct disk_extent x;
    uint8_t late[64 * 1024];

    memset(late, 'L', sizeof(late));
    if (old) {
        fill(d, 0, 'a');
    }
    assert_int_equal(disk_flush(d), 0);
    assert_int_equal(disk_write_prepare(d, BLOCK / 2, sizeof(late), &x), 0);
    assert_int_equal(zero ? disk_zero(d, 0, BLOCK) : disk_discard(d, 0, BLOCK), 0);
    assert_int_equal(disk_flush(d), 0);
    fill(d, 3 * BLOCK, 'b');
    fill(d, 5 * BLOCK, 'c');
    assert_int_equal(disk_file_write(x.file, x.file_offset, late, x.len), 0);
    assert_int_equal(disk_write_done(d, BLOCK / 2, x.len, true), 0);
    assert_int_equal(disk_flush(d), 0);
    expect(d, 3 * BLOCK, BLOCK, 'b');
    expect(d, 5 * BLOCK, BLOCK, 'c');
    if (zero) {                          /* what was not written meanwhile */
        expect(d, 0, BLOCK / 2, 0);
        expect(d, BLOCK / 2 + sizeof(late), BLOCK / 2 - sizeof(late), 0);
    }
    /* Nobody is on the way any more: now the block goes. */
    assert_int_equal(disk_discard(d, 0, BLOCK), 0);
    assert_int_equal(disk_map(d, 0, BLOCK, &x), 0);
    assert_int_not_equal(x.where, DISK_DATA);
    expect(d, 0, BLOCK, 0);
    assert_int_equal(disk_close(d, NULL), 0);
    memfile_free(m);
}

static void a_late_write_stays_in_its_block(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        write_meets(i & 1 ? DISK_VHD : DISK_VHDX, i & 2, i & 4);
    }
}

/* The same with a read: it sees what was there, or zeros, never another block. */
static void read_meets(enum disk_kind kind)
{
    struct memfile *m = memfile_new();
    struct disk *d = fresh(m, kind);
    struct disk_extent x;
    uint8_t got[64 * 1024];

    fill(d, 0, 'a');
    assert_int_equal(disk_flush(d), 0);
    assert_int_equal(disk_read_prepare(d, BLOCK / 2, sizeof(got), &x), 0);
    assert_int_equal(x.where, DISK_DATA);
    assert_int_equal(disk_discard(d, 0, BLOCK), 0);
    assert_int_equal(disk_flush(d), 0);
    fill(d, 3 * BLOCK, 'b');
    assert_int_equal(disk_file_read(x.file, x.file_offset, got, sizeof(got)), 0);
    disk_read_done(d, BLOCK / 2, &x);
    for (size_t i = 0; i < sizeof(got); i++) {
        assert_true(got[i] == 'a' || got[i] == 0);
    }
    disk_abandon(d);
    memfile_free(m);
}

static void a_late_read_sees_no_other_block(void **state)
{
    (void)state;
    read_meets(DISK_VHDX);
    read_meets(DISK_VHD);
}

/* A range of which a part is busy: the blocks beside it go all the same. */
static void blocks_beside_a_busy_one_are_discarded(void **state)
{
    struct memfile *m = memfile_new();
    struct disk *d = fresh(m, DISK_VHDX);
    struct disk_extent x, y;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        fill(d, i * BLOCK, 'a');
    }
    assert_int_equal(disk_write_prepare(d, BLOCK + 4096, 4096, &x), 0);
    assert_int_equal(disk_discard(d, 0, 4 * BLOCK), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(disk_map(d, i * BLOCK, BLOCK, &y), 0);
        assert_int_equal(y.where, i == 1 ? DISK_DATA : DISK_ZERO);
    }
    expect(d, BLOCK, 4096, 0);
    expect(d, BLOCK + 4096, 4096, 'a');
    expect(d, BLOCK + 8192, BLOCK - 8192, 0);
    assert_int_equal(disk_write_done(d, BLOCK + 4096, x.len, false), 0);
    disk_abandon(d);
    memfile_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_write_stays_in_its_block),
        cmocka_unit_test(a_late_read_sees_no_other_block),
        cmocka_unit_test(blocks_beside_a_busy_one_are_discarded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
