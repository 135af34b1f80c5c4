/* Growing ext4: what comes out passes e2fsck, keeps its files and takes new ones. */
#include "tests/unit/fs/fixture.h"

#include <errno.h>

#include "hv/fs/ext4.h"

static void fsck(struct mem_disk *m)
{
    char out[4096];
    int r = run_command(out, sizeof(out), "e2fsck -fn '%s' 2>&1", m->path);

    if (r != 127 && r != 0) {
        print_message("%s", out);
    }
    assert_true(r == 0 || r == 127);
}

static void fill(struct mem_disk *m, uint64_t size)
{
    struct ext4_make mk = { .time_s = 1700000000, .zeroed = true, .hash_seed = { 1 } };
    struct ext4_file f = { .path = "a/file", .mode = S_IFREG | 0644 };
    static uint8_t data[300000];
    struct ext4_build *b;

    memset(data, 0x3c, sizeof(data));
    assert_int_equal(ext4_build_new(m->d, 0, size, &mk, &b, NULL), 0);
    assert_int_equal(ext4_build_add(b, &f, NULL), 0);
    assert_int_equal(ext4_build_data(b, 0, data, sizeof(data), NULL), 0);
    assert_int_equal(ext4_build_finish(b, NULL, NULL), 0);
}

static void use(struct mem_disk *m, uint64_t size, uint64_t fs_size)
{
    struct ext4_put p = { .mode = S_IFREG | 0644 };
    struct fs_space space;
    struct hv_error e = { 0 };
    struct fs *fs;
    uint64_t ino;
    uint8_t buf[1000];
    size_t n;

    assert_int_equal(fs_open(m->d, 0, size, true, &fs, &e), 0);
    assert_int_equal(fs->ops->space(fs, &space), 0);
    assert_true(space.size <= fs_size && space.size + 64 * MIB > fs_size);
    assert_int_equal(fs_walk(fs, "a/file", true, &ino), 0);
    assert_int_equal(fs->ops->read(fs, ino, 299000, buf, sizeof(buf), &n), 0);
    assert_int_equal(n, 1000);
    assert_int_equal(buf[999], 0x3c);
    assert_int_equal(ext4_put(fs, fs->ops->root, "more", &p, &ino), 0);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(ext4_put_data(fs, i * 1000, buf, 1000), 0);
    }
    assert_int_equal(ext4_put_end(fs, 0), 0);
    assert_int_equal(fs_close(fs), 0);
}

static void check_steps(const uint64_t *sizes, unsigned n)
{
    struct mem_disk m = mem_disk_new(sizes[0]);
    struct hv_error e = { 0 };

    fill(&m, sizes[0]);
    fsck(&m);
    for (unsigned i = 1; i < n; i++) {
        assert_int_equal(ftruncate(m.fd, (off_t)sizes[i]), 0);
        struct mem_disk grown = mem_disk_of(dup(m.fd));
        int r = ext4_grow(grown.d, 0, sizes[i], &e);
        if (r < 0) {
            print_message("%llu: %s\n", (unsigned long long)sizes[i], e.message);
        }
        assert_int_equal(r, 0);
        fsck(&grown);
        use(&grown, sizes[i], sizes[i]);
        fsck(&grown);
        mem_disk_free(&grown);
    }
    mem_disk_free(&m);
}

static void test_small(void **state)
{
    static const uint64_t sizes[] = { 16 * MIB, 17 * MIB, 100 * MIB, 129 * MIB, 130 * MIB, 300 * MIB };

    check_steps(sizes, ARRAY_SIZE(sizes));
}

/* More groups than one block of descriptors holds: a reserved block is taken. */
static void test_large(void **state)
{
    static const uint64_t sizes[] = { 1 * GIB, 7 * GIB, 9 * GIB, 40 * GIB };

    check_steps(sizes, ARRAY_SIZE(sizes));
}

/* What mke2fs makes, with other features and block sizes. */
static void test_mke2fs(void **state)
{
    static const struct { const char *options; uint64_t size, to; int want; } make[] = {
        { "", 64 * MIB, 500 * MIB, 0 },                                /* blocks of 1 KiB */
        { "-b 4096", 200 * MIB, 3 * GIB, 0 },
        { "-b 4096 -O ^metadata_csum,uninit_bg", 200 * MIB, 3 * GIB, 0 },
        { "-b 4096 -O ^metadata_csum", 200 * MIB, 3 * GIB, 0 },
        { "-b 4096 -O ^64bit", 200 * MIB, 3 * GIB, 0 },
        { "-b 4096 -O ^flex_bg", 200 * MIB, 3 * GIB, 0 },
        { "-b 4096 -O ^resize_inode", 200 * MIB, 3 * GIB, 0 },         /* one block of descriptors is enough */
        { "-b 4096 -O ^resize_inode", 200 * MIB, 20 * GIB, -EOPNOTSUPP },
        { "-b 4096 -O ^resize_inode,meta_bg", 200 * MIB, 3 * GIB, -EOPNOTSUPP },
        { "-b 4096 -E lazy_itable_init=1", 500 * MIB, 9 * GIB, 0 },
        { "-b 4096 -O bigalloc", 200 * MIB, 3 * GIB, -EOPNOTSUPP },
    };
    char out[4096];

    if (run_command(out, sizeof(out), "command -v mkfs.ext4") != 0) {
        skip();
    }
    for (unsigned i = 0; i < ARRAY_SIZE(make); i++) {
        struct mem_disk m = mem_disk_new(make[i].size);
        struct hv_error e = { 0 };
        int r = run_command(out, sizeof(out), "mkfs.ext4 -q -F %s %s 2>&1", make[i].options, m.path);
        if (r != 0) {
            print_message("mkfs.ext4 %s: %s\n", make[i].options, out);
        }
        assert_int_equal(r, 0);
        assert_int_equal(ftruncate(m.fd, (off_t)make[i].to), 0);
        struct mem_disk grown = mem_disk_of(dup(m.fd));
        r = ext4_grow(grown.d, 0, make[i].to, &e);
        if (r != make[i].want) {
            print_message("%s: %d %s\n", make[i].options, r, e.message);
        }
        assert_int_equal(r, make[i].want);
        fsck(&grown);
        mem_disk_free(&grown);
        mem_disk_free(&m);
    }
}

static void test_refused(void **state)
{
    struct mem_disk m = mem_disk_new(16 * MIB);
    struct hv_error e = { 0 };
    uint8_t b[2];

    fill(&m, 16 * MIB);
    assert_int_equal(ext4_grow(m.d, 0, 16 * MIB, &e), 0);              /* nothing to do */
    assert_int_equal(disk_read(m.d, 1024 + 0x3a, b, 2), 0);
    b[0] &= 0xfe;
    assert_int_equal(disk_write(m.d, 1024 + 0x3a, b, 2), 0);
    assert_true(ext4_grow(m.d, 0, 16 * MIB, &e) < 0);                  /* not clean (and its checksum) */
    mem_disk_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_small), cmocka_unit_test(test_large),
                                        cmocka_unit_test(test_mke2fs), cmocka_unit_test(test_refused) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
