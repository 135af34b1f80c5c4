/* ext4: what is built passes e2fsck and reads back the same; files put into it later do too. */
#include "tests/unit/fs/fixture.h"

#include <errno.h>

#include "hv/fs/ext4.h"

#define TIME 1700000000

static struct ext4_build *build_new(struct mem_disk *m, uint64_t off, uint64_t len)
{
    struct ext4_make mk = { .label = "root", .uuid = { 1, 2, 3, 4 }, .hash_seed = { 5, 6 }, .time_s = TIME,
                            .zeroed = true };
    struct hv_error e = { 0 };
    struct ext4_build *b;

    assert_int_equal(ext4_build_new(m->d, off, len, &mk, &b, &e), 0);
    return b;
}

static void add(struct ext4_build *b, const char *path, uint32_t mode, const void *data, size_t len)
{
    struct ext4_file f = { .path = path, .mode = mode, .mtime = { TIME - 5, 123456789 } };
    struct hv_error e = { 0 };

    assert_int_equal(ext4_build_add(b, &f, &e), 0);
    if (len) {
        assert_int_equal(ext4_build_data(b, 0, data, len, &e), 0);
    }
}

static int add_link(struct ext4_build *b, const char *path, const char *target, bool hard)
{
    struct ext4_file f = { .path = path, .mode = hard ? S_IFREG : S_IFLNK | 0777, .target = target, .hardlink = hard };

    return ext4_build_add(b, &f, NULL);
}

static void finish(struct ext4_build *b)
{
    struct hv_error e = { 0 };
    struct ext4_built r;

    assert_int_equal(ext4_build_finish(b, &r, &e), 0);
}

static void fsck(struct mem_disk *m, uint64_t off)
{
    char out[4096];
    int r = run_command(out, sizeof(out), "e2fsck -fn '%s?offset=%llu' 2>&1", m->path, (unsigned long long)off);

    if (r != 127 && r != 0) {
        print_message("%s", out);
    }
    assert_true(r == 0 || r == 127);
}

static struct fs *open_fs(struct mem_disk *m, uint64_t off, uint64_t len, bool write)
{
    struct hv_error e = { 0 };
    struct fs *fs;

    assert_int_equal(fs_open(m->d, off, len, write, &fs, &e), 0);
    return fs;
}

static struct fs_stat stat_of(struct fs *fs, const char *path)
{
    struct fs_stat st;
    uint64_t ino;

    assert_int_equal(fs_walk(fs, path, false, &ino), 0);
    assert_int_equal(fs->ops->stat(fs, ino, &st), 0);
    return st;
}

static void test_content(void **state)
{
    struct mem_disk m = mem_disk_new(70 * MIB);
    struct ext4_build *b = build_new(&m, MIB, 64 * MIB);
    static uint8_t data[3 * MIB], got[3 * MIB];
    struct hv_error e = { 0 };
    size_t n;

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * 2654435761u >> 11);
    }
    add(b, "./bin/tool", S_IFREG | 04755, data, 1000001);
    assert_int_equal(ext4_build_xattr(b, "security.capability", "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, &e), 0);
    assert_int_equal(ext4_build_xattr(b, "user.long", data, 3000, &e), 0);
    assert_int_equal(ext4_build_xattr(b, "user.longer", data, 5000, &e), -E2BIG);
    /* Holes before, between and after; in small and in odd pieces. */
    add(b, "sparse", S_IFREG | 0600, NULL, 0);
    assert_int_equal(ext4_build_data(b, 5000, data, 10, &e), 0);
    assert_int_equal(ext4_build_data(b, 5010, data + 10, 3000, &e), 0);
    assert_int_equal(ext4_build_data(b, 2000000, data, 2 * MIB, &e), 0);
    assert_int_equal(ext4_build_truncate(b, 10000000, &e), 0);
    assert_int_equal(ext4_build_data(b, 100, data, 10, &e), -EINVAL);
    add(b, "dev/null", S_IFCHR | 0666, NULL, 0);
    assert_int_equal(add_link(b, "short", "bin/tool", false), 0);
    assert_int_equal(add_link(b, "long", "/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/x", false), 0);
    assert_int_equal(add_link(b, "sbin/tool2", "/bin/tool", true), 0);
    finish(b);
    fsck(&m, MIB);

    struct fs *fs = open_fs(&m, MIB, 64 * MIB, false);
    struct fs_stat st = stat_of(fs, "bin/tool");
    assert_int_equal(st.mode, S_IFREG | 04755);
    assert_int_equal(st.links, 2);
    assert_int_equal(st.size, 1000001);
    assert_int_equal(st.mtime.s, TIME - 5);
    assert_int_equal(st.mtime.ns, 123456789);
    assert_int_equal(stat_of(fs, "sbin/tool2").ino, st.ino);
    assert_int_equal(fs->ops->read(fs, st.ino, 0, got, sizeof(got), &n), 0);
    assert_int_equal(n, 1000001);
    assert_memory_equal(got, data, n);
    st = stat_of(fs, "/sparse");
    assert_int_equal(st.size, 10000000);
    assert_true(st.blocks * 512 < 2200000);
    assert_int_equal(fs->ops->read(fs, st.ino, 4990, got, 3100, &n), 0);
    assert_int_equal(n, 3100);
    assert_memory_equal(got + 10, data, 3010);
    assert_int_equal(got[9], 0);
    assert_int_equal(got[3020], 0);
    assert_int_equal(fs->ops->read(fs, st.ino, 2000000, got, 2 * MIB, &n), 0);
    assert_memory_equal(got, data, 2 * MIB);
    assert_int_equal(fs->ops->read(fs, st.ino, 9999990, got, 100, &n), 0);
    assert_int_equal(n, 10);
    assert_int_equal(fs->ops->readlink(fs, stat_of(fs, "long").ino, (char *)got, 100), 0);
    assert_string_equal(got, "/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/x");
    assert_int_equal(fs_close(fs), 0);
    mem_disk_free(&m);
}

/* Whatever a path says, it ends inside the tree. */
static void test_paths(void **state)
{
    struct mem_disk m = mem_disk_new(16 * MIB);
    struct ext4_build *b = build_new(&m, 0, 16 * MIB);
    struct ext4_file f;

    add(b, "../../etc/passwd", S_IFREG | 0644, "a", 1);
    assert_true(ext4_build_has(b, "/etc/passwd", NULL));
    assert_int_equal(add_link(b, "out", "/../../..", false), 0);
    add(b, "out/tmp/x", S_IFREG | 0644, "b", 1);
    assert_true(ext4_build_has(b, "tmp/x", NULL));
    assert_int_equal(add_link(b, "lib", "usr/lib", false), 0);
    add(b, "usr/lib", S_IFDIR | 0755, NULL, 0);
    add(b, "lib/so", S_IFREG | 0644, "c", 1);
    assert_true(ext4_build_has(b, "usr/lib/so", NULL));
    add(b, "lib", S_IFDIR | 0755, NULL, 0);                   /* a later layer's folder keeps the link */
    uint32_t mode;
    assert_true(ext4_build_has(b, "usr/lib/so", &mode));
    assert_int_equal(add_link(b, "loop", "loop", false), 0);
    f = (struct ext4_file){ .path = "loop/x", .mode = S_IFREG | 0644 };
    assert_int_equal(ext4_build_add(b, &f, NULL), -ELOOP);
    f.path = "etc/passwd/x";
    assert_int_equal(ext4_build_add(b, &f, NULL), -ENOTDIR);
    assert_int_equal(add_link(b, "hard", "nowhere", true), -ENOENT);
    assert_int_equal(add_link(b, "hard", "usr", true), -EINVAL);
    assert_int_equal(add_link(b, "usr", "usr/lib/so", true), -EINVAL);
    /* Layers: a file over a folder, a folder over a file. */
    add(b, "usr", S_IFREG | 0644, "file", 4);
    assert_false(ext4_build_has(b, "usr/lib/so", NULL));
    add(b, "etc/passwd", S_IFDIR | 0755, NULL, 0);
    char name[300];
    memset(name, 'n', 299);
    name[299] = '\0';
    f.path = name;
    assert_int_equal(ext4_build_add(b, &f, NULL), -ENAMETOOLONG);
    finish(b);
    fsck(&m, 0);
    mem_disk_free(&m);
}

/* One block, an index of one level, of two. Names looked up by us and counted by e2fsck. */
static void test_large_folders(void **state)
{
    static const unsigned counts[] = { 0, 1, 90, 100, 3000, 40000 };

    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        struct mem_disk m = mem_disk_new(256 * MIB);
        struct ext4_make mk = { .time_s = TIME, .zeroed = true, .inodes = 50000, .hash_seed = { 9 } };
        struct ext4_build *b;
        char path[80];

        assert_int_equal(ext4_build_new(m.d, 0, 256 * MIB, &mk, &b, NULL), 0);
        add(b, "d", S_IFDIR | 0755, NULL, 0);
        for (unsigned k = 0; k < counts[i]; k++) {
            snprintf(path, sizeof(path), "d/a-file-with-a-name-of-some-length-%u", k);
            add(b, path, S_IFREG | 0644, NULL, 0);
        }
        finish(b);
        fsck(&m, 0);
        struct fs *fs = open_fs(&m, 0, 256 * MIB, true);
        uint64_t dir, ino;
        assert_int_equal(fs_walk(fs, "d", true, &dir), 0);
        for (unsigned k = 0; k < counts[i]; k += 1 + counts[i] / 10) {
            snprintf(path, sizeof(path), "a-file-with-a-name-of-some-length-%u", k);
            assert_int_equal(fs->ops->lookup(fs, dir, path, &ino), 0);
        }
        /* libext2fs adds to the folder we wrote. */
        for (unsigned k = 0; k < 200; k++) {
            struct ext4_put p = { .mode = S_IFREG | 0600, .mtime = { TIME, 0 } };
            snprintf(path, sizeof(path), "one-more-%u", k);
            assert_int_equal(ext4_put(fs, dir, path, &p, &ino), 0);
            assert_int_equal(ext4_put_data(fs, 0, path, strlen(path)), 0);
            assert_int_equal(ext4_put_end(fs, strlen(path)), 0);
        }
        assert_int_equal(fs_close(fs), 0);
        fsck(&m, 0);
        mem_disk_free(&m);
    }
}

static void test_full(void **state)
{
    struct mem_disk m = mem_disk_new(16 * MIB);
    struct ext4_build *b = build_new(&m, 0, 16 * MIB);
    static uint8_t data[MIB];
    struct hv_error e = { 0 };
    int r = 0;

    memset(data, 7, sizeof(data));
    add(b, "big", S_IFREG | 0644, NULL, 0);
    for (uint64_t i = 0; i < 32 && r == 0; i++) {
        r = ext4_build_data(b, i * MIB, data, MIB, &e);
    }
    assert_int_equal(r, -ENOSPC);
    assert_string_equal(e.message, "the file system is full");
    assert_int_equal(e.code, HV_NO_RESOURCES);
    ext4_build_abandon(b);

    /* cp into an existing one: what was there stays whole. */
    struct ext4_make mk = { .time_s = TIME };        /* not zeroed: what is on the disk does no harm */
    assert_int_equal(ext4_build_new(m.d, 0, 16 * MIB, &mk, &b, &e), 0);
    add(b, "old", S_IFREG | 0644, "old", 3);
    finish(b);
    struct fs *fs = open_fs(&m, 0, 16 * MIB, true);
    struct ext4_put p = { .mode = S_IFREG | 0600 };
    uint64_t ino;
    assert_int_equal(ext4_put(fs, fs->ops->root, "new", &p, &ino), 0);
    r = 0;
    for (uint64_t i = 0; i < 32 && r == 0; i++) {
        r = ext4_put_data(fs, i * MIB, data, MIB);
    }
    assert_int_equal(r, -ENOSPC);
    ext4_put_end(fs, 0);
    assert_int_equal(ext4_remove(fs, fs->ops->root, "new"), 0);
    assert_int_equal(fs_close(fs), 0);
    fsck(&m, 0);
    mem_disk_free(&m);
}

static int count_free(void *arg, uint64_t off, uint64_t len)
{
    uint64_t *sum = arg;

    *sum += len;
    return 0;
}

static void test_put(void **state)
{
    struct mem_disk m = mem_disk_new(70 * MIB);
    struct ext4_build *b = build_new(&m, MIB, 64 * MIB);
    struct ext4_put p = { .mode = S_IFREG | 0640, .uid = 100000, .gid = 7, .mtime = { TIME, 5 } };
    static uint8_t data[2 * MIB], got[2 * MIB];
    struct fs_space before, after;
    struct hv_error e = { 0 };
    uint64_t ino, again, sum = 0;
    size_t n;

    memset(data, 0x5a, sizeof(data));
    add(b, "etc/conf", S_IFREG | 0644, data, 100000);
    assert_int_equal(ext4_build_xattr(b, "user.a", "b", 1, &e), 0);
    assert_int_equal(ext4_build_xattr(b, "user.block", data, 2000, &e), 0);
    finish(b);
    struct fs *fs = open_fs(&m, MIB, 64 * MIB, true);
    uint64_t etc;
    assert_int_equal(fs_walk(fs, "etc", true, &etc), 0);
    assert_int_equal(fs->ops->space(fs, &before), 0);
    assert_int_equal(ext4_put(fs, etc, "conf", &p, &ino), 0);           /* over the old one */
    assert_int_equal(ext4_put_data(fs, 0, data, sizeof(data)), 0);
    assert_int_equal(ext4_put_end(fs, sizeof(data)), 0);
    assert_int_equal(ext4_put(fs, etc, "link", &(struct ext4_put){ .mode = S_IFLNK | 0777, .target = "conf" }, &again), 0);
    assert_int_equal(ext4_put(fs, etc, "d", &(struct ext4_put){ .mode = S_IFDIR | 0750 }, &again), 0);
    assert_int_equal(ext4_put(fs, again, "deep", &p, &ino), 0);
    assert_int_equal(ext4_put_end(fs, 0), 0);
    assert_int_equal(ext4_put_xattr(fs, ino, "user.x", "y", 1), 0);
    assert_int_equal(ext4_put(fs, etc, "d", &(struct ext4_put){ .mode = S_IFDIR | 0700 }, &ino), 0);
    assert_int_equal(ino, again);
    assert_int_equal(ext4_put(fs, etc, "d", &p, &ino), -EISDIR);
    assert_int_equal(ext4_put(fs, etc, "link", &p, &ino), -EEXIST);
    assert_int_equal(ext4_put(fs, etc, "..", &p, &ino), -EINVAL);
    /* Killed here, the file system is known to be unclean. */
    struct probe pr;
    assert_int_equal(probe_read(m.d, MIB, 64 * MIB, &pr), 0);
    uint8_t state_bytes[2];
    assert_int_equal(disk_read(m.d, MIB + 1024 + 0x3a, state_bytes, 2), 0);
    assert_int_equal(get_le16(state_bytes) & 1, 0);
    assert_int_equal(fs_close(fs), 0);
    assert_int_equal(disk_read(m.d, MIB + 1024 + 0x3a, state_bytes, 2), 0);
    assert_int_equal(get_le16(state_bytes) & 1, 1);
    fsck(&m, MIB);

    fs = open_fs(&m, MIB, 64 * MIB, false);
    struct fs_stat st = stat_of(fs, "etc/conf");
    assert_int_equal(st.uid, 100000);
    assert_int_equal(st.size, sizeof(data));
    assert_int_equal(fs->ops->read(fs, st.ino, 0, got, sizeof(got), &n), 0);
    assert_memory_equal(got, data, sizeof(data));
    assert_int_equal(fs->ops->space(fs, &after), 0);
    assert_int_equal(fs->ops->each_free(fs, count_free, &sum), 0);
    assert_int_equal(sum, after.free_bytes);
    assert_int_equal(ext4_put(fs, 2, "x", &p, &ino), -EROFS);
    assert_int_equal(fs_close(fs), 0);
    mem_disk_free(&m);
}

/* No clock, no chance: the same calls make the same bytes. */
static void test_same_bytes(void **state)
{
    struct mem_disk m[2];
    static uint8_t x[MIB], y[MIB];

    for (unsigned i = 0; i < 2; i++) {
        m[i] = mem_disk_new(32 * MIB);
        struct ext4_build *b = build_new(&m[i], 0, 32 * MIB);
        add(b, "a/b", S_IFREG | 0644, "hello", 5);
        add(b, "c", S_IFDIR | 0755, NULL, 0);
        assert_int_equal(add_link(b, "l", "c", false), 0);
        finish(b);
    }
    for (uint64_t at = 0; at < 32 * MIB; at += MIB) {
        assert_int_equal(disk_read(m[0].d, at, x, MIB), 0);
        assert_int_equal(disk_read(m[1].d, at, y, MIB), 0);
        assert_memory_equal(x, y, MIB);
    }
    mem_disk_free(&m[0]);
    mem_disk_free(&m[1]);
}

static void test_sizes(void **state)
{
    static const uint64_t sizes[] = { 1 * MIB, 3 * MIB, 8 * MIB, 127 * MIB, 128 * MIB + 4096, 1 * GIB, 17 * GIB };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct mem_disk m = mem_disk_new(sizes[i]);
        struct ext4_build *b = build_new(&m, 0, sizes[i]);
        add(b, "x", S_IFREG | 0644, "x", 1);
        finish(b);
        fsck(&m, 0);
        mem_disk_free(&m);
    }
    struct mem_disk m = mem_disk_new(MIB / 2);
    struct ext4_make mk = { .time_s = TIME };
    struct ext4_build *b;
    assert_int_equal(ext4_build_new(m.d, 0, MIB / 2, &mk, &b, NULL), -ENOSPC);
    mem_disk_free(&m);
}

/* ext4_size_for() gives room for what it was asked about. */
static void test_size_for(void **state)
{
    static const struct { uint64_t bytes, files; } ask[] = { { 0, 1 }, { 0, 20000 }, { 40 * MIB, 10 }, { 300 * MIB, 300 } };
    static uint8_t data[MIB];

    for (unsigned i = 0; i < ARRAY_SIZE(ask); i++) {
        uint64_t size = ROUND_UP(ext4_size_for(ask[i].bytes, ask[i].files, 0), MIB);
        struct mem_disk m = mem_disk_new(size);
        struct ext4_make mk = { .time_s = TIME, .zeroed = true, .inodes = ask[i].files };
        struct ext4_build *b;
        char path[32];
        uint64_t each = ask[i].bytes / ask[i].files;

        assert_int_equal(ext4_build_new(m.d, 0, size, &mk, &b, NULL), 0);
        for (uint64_t k = 0; k < ask[i].files; k++) {
            snprintf(path, sizeof(path), "f%llu", (unsigned long long)k);
            add(b, path, S_IFREG | 0644, NULL, 0);
            for (uint64_t at = 0; at < each; at += MIB) {
                assert_int_equal(ext4_build_data(b, at, data, MIN(MIB, each - at), NULL), 0);
            }
        }
        finish(b);
        mem_disk_free(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),   cmocka_unit_test(test_paths), cmocka_unit_test(test_large_folders),
        cmocka_unit_test(test_full),      cmocka_unit_test(test_put),   cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_sizes),     cmocka_unit_test(test_size_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
