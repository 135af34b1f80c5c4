/*
 * ext4 grown, and files put into it, stopped at every write: e2fsck makes it whole again, and what was
 * there before is there still. HV_CRASH_CASES bounds the cases (default 12, 0: all, four ways each).
 */
#include "tests/unit/fs/fixture.h"

#include <stdlib.h>
#include <string.h>

#include "hv/fs/ext4.h"
#include "tests/unit/disk/memfile.c"

#define SMALL (150 * MIB)          /* two groups: a superblock torn in two has a backup */
#define LARGE (300 * MIB)

static uint64_t seed = 88172645463325252u;

static uint64_t roll(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 8) % n;
}

static struct disk *open_raw(struct memfile *m)
{
    struct disk_options o = { .flags = DISK_WRITE | DISK_AS_RAW, .format = DISK_RAW };
    struct disk *d;

    assert_int_equal(disk_open_file(memfile_open(m, "/memory/fs", DISK_FILE_WRITE), &o, &d, NULL), 0);
    return d;
}

static uint8_t content[300000];

static struct memfile *make(void)
{
    struct ext4_make how = { .time_s = 1700000000, .zeroed = true, .inodes = 200, .hash_seed = { 3 } };
    struct ext4_file f = { .path = "a/b/kept", .mode = S_IFREG | 0644 };
    struct memfile *m = memfile_new();
    struct ext4_build *b;
    struct disk *d;

    memfile_resize(m, LARGE);
    for (size_t i = 0; i < sizeof(content); i++) {
        content[i] = (uint8_t)roll(256);
    }
    d = open_raw(m);
    assert_int_equal(ext4_build_new(d, 0, SMALL, &how, &b, NULL), 0);
    assert_int_equal(ext4_build_add(b, &f, NULL), 0);
    assert_int_equal(ext4_build_data(b, 0, content, sizeof(content), NULL), 0);
    assert_int_equal(ext4_build_finish(b, NULL, NULL), 0);
    assert_int_equal(disk_close(d, NULL), 0);
    return m;
}

static void check_kept(struct disk *d)
{
    static uint8_t got[sizeof(content) + 1];
    struct hv_error e = { 0 };
    struct fs *fs;
    uint64_t ino;
    size_t n;

    if (ext4_open(d, 0, LARGE, false, &fs, &e) < 0) {
        fail_msg("%s", e.message);
    }
    assert_int_equal(fs_walk(fs, "a/b/kept", true, &ino), 0);
    assert_int_equal(fs->ops->read(fs, ino, 0, got, sizeof(got), &n), 0);
    assert_int_equal(n, sizeof(content));
    assert_memory_equal(got, content, n);
    assert_int_equal(fs_close(fs), 0);
}

static void grow(struct memfile *m)
{
    struct disk *d = open_raw(m);
    struct hv_error e = { 0 };

    if (ext4_grow(d, 0, LARGE, &e) < 0) {
        fail_msg("%s", e.message);
    }
    check_kept(d);
    assert_int_equal(disk_close(d, NULL), 0);
}

static void put_files(struct memfile *m)
{
    struct disk *d = open_raw(m);
    struct ext4_put p = { .mode = S_IFREG | 0600 };
    uint64_t ino, dir;
    struct fs *fs;
    char name[20];

    assert_int_equal(ext4_open(d, 0, LARGE, true, &fs, NULL), 0);
    assert_int_equal(ext4_put(fs, fs->ops->root, "new", &(struct ext4_put){ .mode = S_IFDIR | 0755 }, &dir), 0);
    for (unsigned i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "file-%u", i);
        assert_int_equal(ext4_put(fs, dir, name, &p, &ino), 0);
        assert_int_equal(ext4_put_data(fs, 0, content, 50000), 0);
        assert_int_equal(ext4_put_end(fs, 50000), 0);
    }
    assert_int_equal(ext4_remove(fs, dir, "file-2"), 0);
    assert_int_equal(fs_close(fs), 0);
    check_kept(d);
    assert_int_equal(disk_close(d, NULL), 0);
}

/* What is in m, as a file that programs can have. */
static int to_host(const struct memfile *m)
{
    static uint8_t buf[1 << 20], zeros[1 << 20];
    int fd = memfd_create("fs", 0);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, LARGE), 0);
    for (uint64_t off = 0; off < LARGE; off += sizeof(buf)) {
        memfile_read(m, off, buf, sizeof(buf));
        if (memcmp(buf, zeros, sizeof(buf)) != 0) {
            assert_int_equal(pwrite(fd, buf, sizeof(buf), (off_t)off), sizeof(buf));
        }
    }
    return fd;
}

static void look(struct memfile *m, const char *what, size_t ops, int how)
{
    int fd = to_host(m);
    struct mem_disk md = mem_disk_of(fd);
    char out[4096];
    int r = run_command(out, sizeof(out), "e2fsck -fy /proc/%d/fd/%d 2>&1", getpid(), fd);

    if (r & ~3) {
        fail_msg("%s, crash after operation %zu, way %d: e2fsck cannot make it whole (%d):\n%s", what, ops, how, r, out);
    }
    r = run_command(out, sizeof(out), "e2fsck -fn /proc/%d/fd/%d 2>&1", getpid(), fd);
    if (r) {
        fail_msg("%s, crash after operation %zu, way %d: still damaged:\n%s", what, ops, how, out);
    }
    check_kept(md.d);
    mem_disk_free(&md);
}

static void each_crash(void (*verb)(struct memfile *m), const char *what)
{
    const char *text = getenv("HV_CRASH_CASES");
    unsigned long wanted = text ? strtoul(text, NULL, 10) : 12, all;
    struct memfile *m = make();
    char out[200];

    if (run_command(out, sizeof(out), "e2fsck -V 2>&1") == 127) {
        memfile_free(m);
        skip();
    }
    memfile_record(m);
    verb(m);
    look(m, what, SIZE_MAX, 0);
    all = (memfile_ops(m) + 1) * CRASH_COUNT;
    for (unsigned long n = 0; n < all; n++) {
        struct memfile *crashed;

        if (wanted && roll(all) >= wanted) {
            continue;
        }
        crashed = memfile_crash(m, n / CRASH_COUNT, (enum memfile_crash)(n % CRASH_COUNT), n + 1);
        look(crashed, what, n / CRASH_COUNT, (int)(n % CRASH_COUNT));
        memfile_free(crashed);
    }
    memfile_free(m);
}

static void test_grow(void **state)
{
    (void)state;
    each_crash(grow, "grow");
}

static void test_put(void **state)
{
    (void)state;
    each_crash(put_files, "put");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_grow), cmocka_unit_test(test_put) };
    const char *more = getenv("HV_SEED");

    seed ^= more ? strtoull(more, NULL, 10) * 0x9e3779b97f4a7c15u : 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
