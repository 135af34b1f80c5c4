/*
 * ext4 grown, files put into it, and changed in every way as `mount --fs --write` does, stopped at every
 * write: e2fsck makes it whole again, what was there before is there still, and so is, after a kill, all
 * that a flush had followed. HV_CRASH_CASES bounds the cases (default 12, 0: all, four ways each).
 */
#include "tests/unit/fs/fixture.h"

#include <stdlib.h>
#include <string.h>

#include "hv/fs/ext4.h"
#include "tests/unit/disk/memfile.c"
#include "tests/unit/roll.h"

#define SMALL (150 * MIB)          /* two groups: a superblock torn in two has a backup */
#define LARGE (300 * MIB)

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

/* ---- as a mounted tree is used ---- */

#define FILES   12u
#define DIRS    3u
#define STEPS   150u
#define FLUSHES 24u
#define MAX_LEN 90000u

/* What a file holds: one name, file-N, in one of the folders. */
struct state { bool exists; unsigned dir; size_t size; uint64_t hash; };

static struct { bool exists; unsigned dir; size_t size; uint8_t data[MAX_LEN]; } file[FILES];
/* ops: of the memfile when it was done; changed[]: when the file was changed after it, first. */
static struct { size_t ops, changed[FILES]; struct state at[FILES]; } flushed[FLUSHES];
static unsigned flushes;

static uint64_t hash_of(const uint8_t *p, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < len; i++) {
        h = (h ^ p[i]) * 0x100000001b3u;
    }
    return h;
}

static void note_flush(struct memfile *m)
{
    flushed[flushes].ops = memfile_ops(m);
    for (unsigned i = 0; i < FILES; i++) {
        flushed[flushes].changed[i] = SIZE_MAX;
        flushed[flushes].at[i] = (struct state){ file[i].exists, file[i].dir, file[i].size, hash_of(file[i].data, file[i].size) };
    }
    flushes++;
}

static void note_change(struct memfile *m, unsigned i)
{
    for (unsigned k = 0; k < flushes; k++) {
        flushed[k].changed[i] = MIN(flushed[k].changed[i], memfile_ops(m));
    }
}

static const char *name_of(unsigned i)
{
    static char name[20];

    snprintf(name, sizeof(name), "file-%u", i);
    return name;
}

/* One thing that is done to file i. */
static void change(struct fs *fs, const uint64_t dir[DIRS], unsigned i)
{
    struct ext4_put p = { .mode = S_IFREG | 0644 };
    struct ext4_attr a = { .set = EXT4_ATTR_MODE, .mode = 0600 };
    static uint8_t buf[MAX_LEN];
    uint64_t ino, in = dir[file[i].dir];
    size_t off, len, most;
    unsigned to;

    if (!file[i].exists) {
        assert_int_equal(ext4_create(fs, in, name_of(i), &p, &ino), 0);
        file[i].exists = true;
        file[i].size = 0;
    }
    assert_int_equal(fs->ops->lookup(fs, in, name_of(i), &ino), 0);
    switch (roll(8)) {
    case 0:
        assert_int_equal(ext4_remove(fs, in, name_of(i)), 0);
        file[i].exists = false;
        break;
    case 1:
        len = roll(MAX_LEN);
        assert_int_equal(ext4_set_size(fs, ino, len), 0);
        if (len > file[i].size) {
            memset(file[i].data + file[i].size, 0, len - file[i].size);
        }
        file[i].size = len;
        break;
    case 2:
        to = (unsigned)roll(DIRS);
        assert_int_equal(ext4_rename(fs, in, name_of(i), dir[to], name_of(i), true), 0);
        file[i].dir = to;
        break;
    case 3:
        assert_int_equal(ext4_put_xattr(fs, ino, "user.note", buf, roll(900)), 0);
        assert_int_equal(ext4_set_attr(fs, ino, &a), 0);
        break;
    default:
        off = roll(2) ? file[i].size : roll(MAX_LEN);
        most = roll(3) ? 5000 : MAX_LEN;
        len = off < MAX_LEN ? roll(MIN(MAX_LEN - off, most)) : 0;
        for (size_t k = 0; k < len; k++) {
            buf[k] = (uint8_t)roll(256);
        }
        assert_int_equal(len ? ext4_write(fs, ino, off, buf, len) : 0, 0);
        if (len && off > file[i].size) {
            memset(file[i].data + file[i].size, 0, off - file[i].size);
        }
        memcpy(file[i].data + off, buf, len);
        file[i].size = len ? MAX(file[i].size, off + len) : file[i].size;
    }
}

static void use_mounted(struct memfile *m)
{
    struct disk *d = open_raw(m);
    uint64_t dir[DIRS], ino;
    char name[20];
    struct fs *fs;

    assert_int_equal(ext4_open(d, 0, LARGE, true, &fs, NULL), 0);
    for (unsigned i = 0; i < DIRS; i++) {
        snprintf(name, sizeof(name), "dir-%u", i);
        assert_int_equal(ext4_create(fs, fs->ops->root, name, &(struct ext4_put){ .mode = S_IFDIR | 0755 }, &dir[i]), 0);
    }
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)roll(FILES);

        if (step % (STEPS / FLUSHES + 1) == 0) {
            assert_int_equal(ext4_flush(fs), 0);
            note_flush(m);
        }
        if (step % 13 == 12) {
            snprintf(name, sizeof(name), "more-%u", step);
            assert_int_equal(ext4_create(fs, dir[roll(DIRS)], name, &(struct ext4_put){ .mode = S_IFDIR | 0700 }, &ino), 0);
            continue;
        }
        note_change(m, i);
        change(fs, dir, i);
    }
    assert_int_equal(fs_close(fs), 0);
    note_flush(m);
    check_kept(d);
    assert_int_equal(disk_close(d, NULL), 0);
}

/* What the last flush before the crash had made safe, and nobody had changed since. */
static void check_flushed(struct disk *d, const char *what, size_t ops, int how)
{
    static uint8_t got[MAX_LEN + 1];
    unsigned k = flushes;
    struct fs *fs;

    while (k > 0 && flushed[k - 1].ops > ops) {
        k--;
    }
    if (k == 0) {
        return;
    }
    k--;
    assert_int_equal(ext4_open(d, 0, LARGE, false, &fs, NULL), 0);
    for (unsigned i = 0; i < FILES; i++) {
        const struct state *s = &flushed[k].at[i];

        if (flushed[k].changed[i] < ops) {
            continue;
        }
        for (unsigned j = 0; j < DIRS; j++) {
            char path[60];
            uint64_t ino;
            size_t n = 0;
            int r;

            snprintf(path, sizeof(path), "dir-%u/%s", j, name_of(i));
            r = fs_walk(fs, path, true, &ino);
            if (r != (s->exists && s->dir == j ? 0 : -ENOENT)) {
                fail_msg("%s, crash after operation %zu, way %d: %s: %s", what, ops, how, path, strerror(-r));
            }
            if (r == 0 && (fs->ops->read(fs, ino, 0, got, sizeof(got), &n) < 0 || n != s->size || hash_of(got, n) != s->hash)) {
                fail_msg("%s, crash after operation %zu, way %d: %s: not what was flushed", what, ops, how, path);
            }
        }
    }
    assert_int_equal(fs_close(fs), 0);
}

/* ---- the crashes ---- */

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

/* May it be written to without e2fsck? Then it must be without fault. */
static bool says_clean(struct disk *d)
{
    struct fs *fs;

    if (ext4_open(d, 0, LARGE, true, &fs, NULL) < 0) {
        return false;
    }
    assert_int_equal(fs_close(fs), 0);
    return true;
}

static void look(struct memfile *m, const char *what, size_t ops, int how)
{
    int fd = to_host(m);
    struct mem_disk md = mem_disk_of(fd);
    char out[4096];
    int r;

    if (says_clean(md.d)) {
        r = run_command(out, sizeof(out), "e2fsck -fn /proc/%d/fd/%d 2>&1", getpid(), fd);
        if (r) {
            fail_msg("%s, crash after operation %zu, way %d: is marked clean and is not:\n%s", what, ops, how, out);
        }
    }
    r = run_command(out, sizeof(out), "e2fsck -fy /proc/%d/fd/%d 2>&1", getpid(), fd);
    if (r & ~3) {
        fail_msg("%s, crash after operation %zu, way %d: e2fsck cannot make it whole (%d):\n%s", what, ops, how, r, out);
    }
    r = run_command(out, sizeof(out), "e2fsck -fn /proc/%d/fd/%d 2>&1", getpid(), fd);
    if (r) {
        fail_msg("%s, crash after operation %zu, way %d: still damaged:\n%s", what, ops, how, out);
    }
    check_kept(md.d);
    check_flushed(md.d, what, ops, how);
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

static void test_mounted(void **state)
{
    (void)state;
    each_crash(use_mounted, "mounted");
    assert_in_range(flushes, 10, FLUSHES);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_grow), cmocka_unit_test(test_put), cmocka_unit_test(test_mounted) };

    seed_from_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
