/*
 * What the fuzzers of hv/fs share: a disk over bytes in memory, patches to an image that is whole,
 * and a walk over everything in a file system. Checked besides memory safety: that the walk ends.
 */
#ifndef TESTS_FUZZ_FUZZ_FS_H
#define TESTS_FUZZ_FUZZ_FS_H

#include <errno.h>
#include <sys/stat.h>

#include "hv/base/endian.h"
#include "hv/fs/check.h"
#include "hv/fs/fs.h"

struct fuzz_bytes { uint8_t *p; uint64_t len; };

static int fuzz_file_read(void *arg, uint64_t off, void *buf, uint64_t len)
{
    struct fuzz_bytes *b = arg;
    uint64_t have = off < b->len ? MIN(len, b->len - off) : 0;

    if (have) {
        memcpy(buf, b->p + off, have);
    }
    memset((uint8_t *)buf + have, 0, len - have);
    return 0;
}

static int fuzz_file_write(void *arg, uint64_t off, const void *buf, uint64_t len)
{
    struct fuzz_bytes *b = arg;

    hv_assert(off <= b->len && len <= b->len - off);
    memcpy(b->p + off, buf, len);
    return 0;
}

static int fuzz_file_zero(void *arg, uint64_t off, uint64_t len)
{
    struct fuzz_bytes *b = arg;

    hv_assert(off <= b->len && len <= b->len - off);
    memset(b->p + off, 0, len);
    return 0;
}

static int fuzz_file_resize(void *arg, uint64_t size)
{
    return -ENOTSUP;
}

static int fuzz_file_sync(void *arg)
{
    return 0;
}

static uint64_t fuzz_file_size(void *arg)
{
    return ((struct fuzz_bytes *)arg)->len;
}

static void fuzz_file_free(void *arg)
{
}

/* A raw disk on b, which must outlive it. */
static struct disk *fuzz_disk(struct fuzz_bytes *b)
{
    static const struct disk_file_ops ops = {
        fuzz_file_read, fuzz_file_write, fuzz_file_zero, fuzz_file_resize, fuzz_file_sync, fuzz_file_size, fuzz_file_free };
    struct disk_options o = { .flags = DISK_WRITE | DISK_AS_RAW, .format = DISK_RAW };
    struct disk_file *f;
    struct disk *d;

    hv_assert(disk_file_from_ops(&ops, b, "fuzz", DISK_FILE_WRITE, &f) == 0);
    hv_assert(disk_open_file(f, &o, &d, NULL) == 0);
    return d;
}

/*
 * Patches {u16 unit, u16 offset, u8 count, bytes} to units of 4096 bytes; only those that hold
 * something count, so that the fuzzer meets structures and not free space.
 */
static inline void fuzz_patch(struct fuzz_bytes *b, const uint16_t *units, size_t n_units, const uint8_t *p, size_t len)
{
    while (len >= 5) {
        uint64_t at = (uint64_t)units[get_le16(p) % n_units] * 4096 + get_le16(p + 2) % 4096;
        size_t count = MIN((size_t)p[4] % 32, len - 5);
        if (at < b->len) {
            memcpy(b->p + at, p + 5, MIN(count, b->len - at));
        }
        p += 5 + count;
        len -= 5 + count;
    }
}

static inline size_t fuzz_units(const struct fuzz_bytes *b, uint16_t *units, size_t max)
{
    static const uint8_t zero[4096];
    size_t n = 0;

    for (uint64_t i = 0; i < b->len / 4096 && n < max; i++) {
        if (memcmp(b->p + i * 4096, zero, 4096)) {
            units[n++] = (uint16_t)i;
        }
    }
    return n;
}

static void fuzz_problem(void *arg, const struct disk_problem *p)
{
    hv_assert(p->text[0]);
    ++*(unsigned *)arg;
}

/* The check of what lies in d ends, and says no more than it may. */
static inline void fuzz_check(struct disk *d)
{
    unsigned n = 0;

    fs_check(d, 0, disk_size(d), fuzz_problem, &n, NULL);
    hv_assert(n <= FS_CHECK_PROBLEMS + 5);
}

struct fuzz_names { uint64_t ino[64]; unsigned n; };

static int fuzz_name(void *arg, const struct fs_entry *en)
{
    struct fuzz_names *l = arg;

    hv_assert(en->name[0] && !strchr(en->name, '/') && strlen(en->name) <= FS_NAME_MAX);
    hv_assert(strcmp(en->name, ".") && strcmp(en->name, ".."));
    if (l->n < ARRAY_SIZE(l->ino)) {
        l->ino[l->n++] = en->ino;
    }
    return 0;
}

static int fuzz_xattr(void *arg, const char *name, const void *value, size_t len)
{
    hv_assert(name[0] && len <= FS_XATTR_MAX);
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + ((const uint8_t *)value)[i]);
    }
    *(uint8_t *)arg = sum;
    return 0;
}

static int fuzz_free(void *arg, uint64_t off, uint64_t len)
{
    uint64_t *end = arg;

    hv_assert(off >= *end && len > 0);
    *end = off + len;
    return 0;
}

/* Everything there is to read, at most so many files. */
static inline void fuzz_walk(struct fs *fs, unsigned budget)
{
    static const char *const paths[] = { "a/b/c", "link", "long", "dir/../link/x", "big/name-5", "file" };
    uint64_t queue[512], ino, end = 0;
    unsigned head = 0, tail = 0;
    struct fs_space space;
    uint8_t sum = 0;

    queue[tail++] = fs->ops->root;
    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
        if (fs_walk(fs, paths[i], i & 1, &ino) == 0 && tail < ARRAY_SIZE(queue)) {
            queue[tail++] = ino;
        }
    }
    while (head < tail && budget-- > 0) {
        struct fuzz_names names = { .n = 0 };
        struct fs_stat st;
        char target[FS_PATH_MAX];
        uint8_t buf[9000];
        size_t n;
        ino = queue[head++];
        if (fs->ops->stat(fs, ino, &st) < 0) {
            continue;
        }
        if (fs->ops->xattrs) {
            fs->ops->xattrs(fs, ino, fuzz_xattr, &sum);
        }
        if (fs->ops->readlink && fs->ops->readlink(fs, ino, target, sizeof(target)) == 0) {
            hv_assert(target[0]);
        }
        if (fs->ops->read(fs, ino, 0, buf, sizeof(buf), &n) == 0) {
            hv_assert(n <= sizeof(buf));
        }
        if (st.size > 5000 && fs->ops->read(fs, ino, st.size - 4500, buf, sizeof(buf), &n) == 0) {
            hv_assert(n <= 4500);
        }
        fs->ops->list(fs, ino, fuzz_name, &names);
        for (unsigned i = 0; i < names.n && tail < ARRAY_SIZE(queue); i++) {
            queue[tail++] = names.ino[i];
        }
    }
    fs->ops->space(fs, &space);
    if (fs->ops->each_free) {
        fs->ops->each_free(fs, fuzz_free, &end);
    }
}

#endif
