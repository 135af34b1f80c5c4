/*
 * An ext4 changed the way a mounted one is: writes anywhere in a file, names moved, attributes set.
 * As ext4_put.c without the journal: the superblock says "not clean" from the first change to the end.
 */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "hv/fs/ext4_open.h"

static struct fs_time now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (struct fs_time){ .s = ts.tv_sec, .ns = (uint32_t)ts.tv_nsec };
}

/* A time and its nanoseconds, where the inode has room for them. */
static void put_time(union ext4_inode *in, uint32_t *lo, uint32_t *extra, struct fs_time t)
{
    uint32_t none;

    ext4_put_time(lo, in->l.i_extra_isize >= 24 ? extra : &none, t);
}

static int touch(struct ext4 *x, uint64_t ino, bool content)
{
    union ext4_inode in;
    int r = ext4_inode_read(x->fs, (ext2_ino_t)ino, &in);

    if (r == 0) {
        put_time(&in, &in.l.i_ctime, &in.l.i_ctime_extra, now());
        if (content) {
            put_time(&in, &in.l.i_mtime, &in.l.i_mtime_extra, now());
        }
        r = ext4_inode_write(x->fs, (ext2_ino_t)ino, &in);
    }
    return r;
}

/* What may be written: a regular file that needs no key. */
static int get_regular(struct ext4 *x, uint64_t ino, union ext4_inode *in)
{
    int r = ext4_inode_read(x->fs, (ext2_ino_t)ino, in);

    if (r < 0) {
        return r;
    }
    if (!S_ISREG(in->s.i_mode)) {
        return S_ISDIR(in->s.i_mode) ? -EISDIR : -EINVAL;
    }
    return in->s.i_flags & (EXT4_ENCRYPT_FL | EXT4_VERITY_FL | EXT2_IMMUTABLE_FL) ? -EOPNOTSUPP : ext4_begin_changes(x);
}

/* ---- content ---- */

int ext4_create(struct fs *fs, uint64_t dir, const char *name, const struct ext4_put *p, uint64_t *ret_ino)
{
    uint64_t old;
    int r = fs->ops->lookup(fs, dir, name, &old);

    if (r != -ENOENT) {
        return r < 0 ? r : -EEXIST;
    }
    r = ext4_put(fs, dir, name, p, ret_ino);
    return r < 0 || !S_ISREG(p->mode) ? r : ext4_put_end(fs, 0);
}

int ext4_write(struct fs *fs, uint64_t ino, uint64_t off, const void *buf, size_t len)
{
    struct ext4 *x = (struct ext4 *)fs;
    const char *from = buf;
    union ext4_inode in;
    ext2_file_t f;
    errcode_t err, err2;
    int r = get_regular(x, ino, &in);

    if (r < 0) {
        return r;
    }
    if (off > INT64_MAX - len || (off + len) / x->fs->blocksize >= UINT32_MAX) {
        return -EFBIG;
    }
    err = ext2fs_file_open2(x->fs, (ext2_ino_t)ino, &in.s, EXT2_FILE_WRITE, &f);
    if (err) {
        return ext4_errno(x->fs, err);
    }
    err = ext2fs_file_llseek(f, off, EXT2_SEEK_SET, NULL);
    while (!err && len > 0) {
        unsigned n = 0;

        err = ext2fs_file_write(f, from, (unsigned)MIN(len, (size_t)MIB), &n);
        if (!err && n == 0) {
            err = EXT2_ET_SHORT_WRITE;
        }
        from += n;
        len -= n;
    }
    err2 = ext2fs_file_close(f);
    err = err ? err : err2;
    return err ? ext4_errno(x->fs, err) : touch(x, ino, true);
}

int ext4_set_size(struct fs *fs, uint64_t ino, uint64_t size)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode in;
    ext2_file_t f;
    errcode_t err, err2;
    int r = get_regular(x, ino, &in);

    if (r < 0) {
        return r;
    }
    if (size / x->fs->blocksize >= UINT32_MAX) {
        return -EFBIG;
    }
    if (size == 0 && !(in.s.i_flags & EXT4_INLINE_DATA_FL)) {
        r = ext4_inode_free_data(x->fs, (ext2_ino_t)ino, &in);
        in.s.i_blocks = ext2fs_file_acl_block(x->fs, &in.s) ? x->fs->blocksize / 512 : 0;
        in.s.osd2.linux2.l_i_blocks_hi = 0;
        r = r < 0 ? r : ext4_inode_write(x->fs, (ext2_ino_t)ino, &in);
        return r < 0 ? r : touch(x, ino, true);
    }
    err = ext2fs_file_open2(x->fs, (ext2_ino_t)ino, &in.s, EXT2_FILE_WRITE, &f);
    if (!err) {
        err = ext2fs_file_set_size2(f, (ext2_off64_t)size);
        err2 = ext2fs_file_close(f);
        err = err ? err : err2;
    }
    return err ? ext4_errno(x->fs, err) : touch(x, ino, true);
}

int ext4_set_attr(struct fs *fs, uint64_t ino, const struct ext4_attr *a)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode in;
    int r = ext4_begin_changes(x);

    r = r < 0 ? r : ext4_inode_read(x->fs, (ext2_ino_t)ino, &in);
    if (r < 0) {
        return r;
    }
    uint32_t uid = in.s.i_uid | (uint32_t)in.s.osd2.linux2.l_i_uid_high << 16;
    uint32_t gid = in.s.i_gid | (uint32_t)in.s.osd2.linux2.l_i_gid_high << 16;

    ext4_inode_owner(&in, a->set & EXT4_ATTR_MODE ? (in.s.i_mode & S_IFMT) | (a->mode & 07777) : in.s.i_mode,
                     a->set & EXT4_ATTR_UID ? a->uid : uid, a->set & EXT4_ATTR_GID ? a->gid : gid);
    if (a->set & EXT4_ATTR_ATIME) {
        put_time(&in, &in.l.i_atime, &in.l.i_atime_extra, a->atime);
    }
    if (a->set & EXT4_ATTR_MTIME) {
        put_time(&in, &in.l.i_mtime, &in.l.i_mtime_extra, a->mtime);
    }
    put_time(&in, &in.l.i_ctime, &in.l.i_ctime_extra, now());
    return ext4_inode_write(x->fs, (ext2_ino_t)ino, &in);
}

int ext4_remove_xattr(struct fs *fs, uint64_t ino, const char *name)
{
    struct ext4 *x = (struct ext4 *)fs;
    struct ext2_xattr_handle *h;
    errcode_t err, err2;
    int r = ext4_begin_changes(x);

    if (r < 0) {
        return r;
    }
    err = ext2fs_xattrs_open(x->fs, (ext2_ino_t)ino, &h);
    if (err) {
        return ext4_errno(x->fs, err);
    }
    err = ext2fs_xattrs_read(h);
    err = err ? err : ext2fs_xattr_remove(h, name);
    err2 = ext2fs_xattrs_close(&h);
    return ext4_errno(x->fs, err ? err : err2);
}

int ext4_disk_error(const struct fs *fs)
{
    return ext4_io_error(((const struct ext4 *)fs)->fs->io);
}

int ext4_flush(struct fs *fs)
{
    struct ext4 *x = (struct ext4 *)fs;

    return x->changed ? ext4_errno(x->fs, ext2fs_flush(x->fs)) : 0;
}

/* ---- names ---- */

static int any_name(void *arg, const struct fs_entry *en)
{
    (void)arg;
    (void)en;
    return 1;
}

static int add_links(struct ext4 *x, uint64_t ino, int by)
{
    union ext4_inode in;
    int r = ext4_inode_read(x->fs, (ext2_ino_t)ino, &in);

    /* 1 stands for "more than can be counted". */
    if (r == 0 && !(S_ISDIR(in.s.i_mode) && in.s.i_links_count == 1)) {
        in.s.i_links_count = by > 0 && in.s.i_links_count >= 64999 && ext2fs_has_feature_dir_nlink(x->fs->super)
                                 ? 1 : (uint16_t)(in.s.i_links_count + by);
        r = ext4_inode_write(x->fs, (ext2_ino_t)ino, &in);
    }
    return r;
}

static int drop_name(struct ext4 *x, uint64_t dir, const char *name, uint64_t ino)
{
    int r = ext4_errno(x->fs, ext2fs_unlink(x->fs, (ext2_ino_t)dir, name, (ext2_ino_t)ino, 0));

    return r < 0 ? r : touch(x, dir, true);
}

int ext4_rmdir(struct fs *fs, uint64_t dir, const char *name)
{
    struct ext4 *x = (struct ext4 *)fs;
    struct fs_stat st;
    uint64_t ino;
    int r = fs->ops->lookup(fs, dir, name, &ino);

    r = r < 0 ? r : fs->ops->stat(fs, ino, &st);
    if (r == 0 && !S_ISDIR(st.mode)) {
        r = -ENOTDIR;
    }
    r = r < 0 ? r : fs->ops->list(fs, ino, any_name, NULL);
    if (r) {
        return r > 0 ? -ENOTEMPTY : r;
    }
    r = ext4_begin_changes(x);
    r = r < 0 ? r : drop_name(x, dir, name, ino);
    r = r < 0 ? r : ext4_inode_unlink(x->fs, (ext2_ino_t)ino);
    return r < 0 ? r : add_links(x, dir, -1);
}

/* Is `ino` dir itself or one of the folders above it? */
static int is_above(struct ext4 *x, uint64_t ino, uint64_t dir)
{
    ext2_ino_t at = (ext2_ino_t)dir;

    for (unsigned i = 0; i < FS_PATH_MAX; i++) {
        ext2_ino_t up;
        errcode_t err;

        if (at == ino) {
            return 1;
        }
        if (at == EXT2_ROOT_INO) {
            return 0;
        }
        err = ext2fs_lookup(x->fs, at, "..", 2, NULL, &up);
        if (err) {
            return ext4_errno(x->fs, err);
        }
        at = up;
    }
    return -ELOOP;
}

static int set_dotdot(ext2_ino_t dir, int entry, struct ext2_dir_entry *d, int offset, int blocksize, char *buf, void *arg)
{
    (void)dir;
    (void)offset;
    (void)blocksize;
    (void)buf;
    if (entry != DIRENT_DOT_DOT_FILE) {
        return 0;
    }
    d->inode = *(ext2_ino_t *)arg;
    return DIRENT_CHANGED | DIRENT_ABORT;
}

int ext4_rename(struct fs *fs, uint64_t dir, const char *name, uint64_t to, const char *to_name, bool replace)
{
    struct ext4 *x = (struct ext4 *)fs;
    ext2_ino_t parent = (ext2_ino_t)to;
    struct fs_stat st, old_st;
    uint64_t ino, old;
    int r = fs->ops->lookup(fs, dir, name, &ino), there;

    r = r < 0 ? r : fs->ops->stat(fs, ino, &st);
    if (r < 0) {
        return r;
    }
    bool folder = S_ISDIR(st.mode);
    there = fs->ops->lookup(fs, to, to_name, &old);
    if (there < 0 && there != -ENOENT) {
        return there;
    }
    if (there == 0 && !replace) {
        return -EEXIST;
    }
    if (there == 0 && old == ino) {
        return 0;
    }
    r = folder ? is_above(x, ino, to) : 0;
    if (r) {
        return r < 0 ? r : -EINVAL;
    }
    if (there == 0) {
        r = fs->ops->stat(fs, old, &old_st);
        r = r < 0 ? r : S_ISDIR(old_st.mode) && !folder ? -EISDIR : !S_ISDIR(old_st.mode) && folder ? -ENOTDIR : 0;
        r = r < 0 ? r : folder ? ext4_rmdir(fs, to, to_name) : ext4_remove(fs, to, to_name);
    }
    r = r < 0 ? r : ext4_begin_changes(x);
    r = r < 0 ? r : ext4_link_name(x, (ext2_ino_t)to, to_name, (ext2_ino_t)ino, st.mode);
    r = r < 0 ? r : drop_name(x, dir, name, ino);
    if (r == 0 && folder && dir != to) {
        r = ext4_errno(x->fs, ext2fs_dir_iterate2(x->fs, (ext2_ino_t)ino, 0, NULL, set_dotdot, &parent));
        r = r < 0 ? r : add_links(x, dir, -1);
        r = r < 0 ? r : add_links(x, to, +1);
    }
    r = r < 0 ? r : touch(x, to, true);
    return r < 0 ? r : touch(x, ino, false);
}
