/*
 * ext4 from a stranger, through our io_manager and libext2fs. The input is patches to an image of
 * 2 MiB without checksums, which would keep the fuzzer out; its first byte says how it is opened:
 * to read all of it, to put files into it, or to change those that are there.
 *
 * tests/unit/fs/test_fuzz_fs.c runs it with a fixed seed.
 */
#include "hv/fs/ext4.h"
#include "tests/fuzz/fuzz_fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define EXT4_IMAGE (2 * MIB)

static void file(struct ext4_build *b, const char *path, uint32_t mode, const void *data, size_t len)
{
    struct ext4_file f = { .path = path, .mode = mode, .target = S_ISLNK(mode) ? data : NULL, .major = 1, .minor = 3 };

    hv_assert(ext4_build_add(b, &f, NULL) == 0);
    if (S_ISREG(mode) && len) {
        hv_assert(ext4_build_data(b, 0, data, len, NULL) == 0);
    }
}

static void make_ext4(struct fuzz_bytes *image)
{
    struct ext4_make m = { .time_s = 1700000000, .zeroed = true, .inodes = 500, .hash_seed = { 3 } };
    struct disk *d = fuzz_disk(image);
    struct ext4_build *b;
    uint8_t data[30000];
    char path[40];

    memset(data, 0x5a, sizeof(data));
    hv_assert(ext4_build_new(d, 0, EXT4_IMAGE, &m, &b, NULL) == 0);
    file(b, "a/b/c", S_IFREG | 0644, data, 5000);
    hv_assert(ext4_build_xattr(b, "user.small", "value", 5, NULL) == 0);
    hv_assert(ext4_build_xattr(b, "user.block", data, 2000, NULL) == 0);
    file(b, "file", S_IFREG | 0644, data, sizeof(data));
    hv_assert(ext4_build_data(b, 100000, data, 100, NULL) == 0);
    hv_assert(ext4_build_data(b, 200000, data, 100, NULL) == 0);
    hv_assert(ext4_build_data(b, 300000, data, 100, NULL) == 0);
    hv_assert(ext4_build_data(b, 400000, data, 100, NULL) == 0);
    hv_assert(ext4_build_data(b, 500000, data, 100, NULL) == 0);       /* more extents than the inode holds */
    file(b, "link", S_IFLNK | 0777, "a/b", 0);
    file(b, "long", S_IFLNK | 0777, "a/long/link/of/more/than/sixty/characters/that/has/a/block/of/its/own", 0);
    file(b, "null", S_IFCHR | 0666, NULL, 0);
    file(b, "dir", S_IFDIR | 0755, NULL, 0);
    hv_assert(ext4_build_xattr(b, "system.posix_acl_access",
                               "\2\0\0\0\1\0\7\0\377\377\377\377\2\0\7\0\322\4\0\0\4\0\5\0\377\377\377\377"
                               "\20\0\7\0\377\377\377\377\40\0\5\0\377\377\377\377", 44, NULL) == 0);
    for (unsigned i = 0; i < 150; i++) {
        snprintf(path, sizeof(path), "big/name-%u-that-is-rather-long", i);
        file(b, path, S_IFREG | 0644, NULL, 0);
    }
    hv_assert(ext4_build_finish(b, NULL, NULL) == 0);
    hv_assert(disk_close(d, NULL) == 0);
    put_le32(image->p + 1024 + 0x64, get_le32(image->p + 1024 + 0x64) & ~0x400u);    /* no metadata_csum */
}

static void put_files(struct fs *fs)
{
    struct ext4_put p = { .mode = S_IFREG | 0644 };
    static const char *const names[] = { "file", "new", "null", "link" };
    uint8_t data[6000] = { 1 };
    uint64_t dir, ino;

    if (fs_walk(fs, "big", true, &dir) < 0) {
        dir = fs->ops->root;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (ext4_put(fs, i & 1 ? dir : fs->ops->root, names[i], &p, &ino) == 0) {
            int r = ext4_put_data(fs, 0, data, sizeof(data));
            ext4_put_end(fs, r < 0 ? 0 : 20000);
        }
    }
    ext4_put(fs, dir, "folder", &(struct ext4_put){ .mode = S_IFDIR | 0755 }, &ino);
    ext4_remove(fs, dir, "new");
}

/* As a mounted one is changed. */
static void edit_files(struct fs *fs)
{
    struct ext4_attr a = { .set = EXT4_ATTR_MODE | EXT4_ATTR_UID | EXT4_ATTR_MTIME, .mode = 0600, .uid = 70000, .mtime = { 5, 6 } };
    static const char *const paths[] = { "file", "a/b/c", "big/name-7-that-is-rather-long" };
    uint8_t data[5000] = { 2 };
    uint64_t root = fs->ops->root, dir, ino;

    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
        if (fs_walk(fs, paths[i], true, &ino) == 0) {
            ext4_write(fs, ino, i * 3000, data, sizeof(data));
            ext4_set_size(fs, ino, 250000 * i);
            ext4_write(fs, ino, 300001, data, 10);
            ext4_set_attr(fs, ino, &a);
            ext4_put_xattr(fs, ino, "user.new", "x", 1);
            ext4_remove_xattr(fs, ino, "user.small");
        }
    }
    if (fs_walk(fs, "a", true, &dir) == 0) {
        ext4_rename(fs, dir, "b", root, "moved", true);
        ext4_rmdir(fs, root, "a");
    }
    ext4_rename(fs, root, "null", root, "file", true);
    ext4_create(fs, root, "made", &(struct ext4_put){ .mode = S_IFREG | 0644 }, &ino);
    ext4_rename(fs, root, "big", root, "dir", true);
    ext4_flush(fs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct fuzz_bytes base, image;
    static uint16_t units[512];
    static size_t n_units;
    struct hv_error e = { 0 };
    struct fs *fs;

    if (!base.p) {
        base = (struct fuzz_bytes){ hv_alloc(EXT4_IMAGE), EXT4_IMAGE };
        image = (struct fuzz_bytes){ hv_alloc(EXT4_IMAGE), EXT4_IMAGE };
        hv_assert(base.p && image.p);
        make_ext4(&base);
        n_units = fuzz_units(&base, units, ARRAY_SIZE(units));
    }
    if (len < 1) {
        return 0;
    }
    memcpy(image.p, base.p, EXT4_IMAGE);
    fuzz_patch(&image, units, n_units, data + 1, len - 1);
    bool write = data[0] & 1;
    struct disk *d = fuzz_disk(&image);
    if (ext4_open(d, 0, EXT4_IMAGE, write, &fs, &e) == 0) {
        if (write && data[0] & 2) {
            edit_files(fs);
        } else if (write) {
            put_files(fs);
        }
        fuzz_walk(fs, 100);
        fs_close(fs);
    } else {
        hv_assert(e.message[0]);
    }
    fuzz_check(d);
    disk_close(d, NULL);
    return 0;
}
