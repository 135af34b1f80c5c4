/*
 * Changing files of an ext4 that is there. Without the journal: the superblock loses its "clean"
 * mark before the first change and gets it back at the end, so that a kill in between is seen by
 * e2fsck and by the next mount's check.
 */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "hv/fs/ext4_open.h"

int ext4_begin_changes(struct ext4 *x)
{
    int r = ext4_need_bitmaps(x);

    if (r < 0 || x->changed) {
        return r;
    }
    if (!(x->fs->flags & EXT2_FLAG_RW)) {
        return -EROFS;
    }
    x->buf = hv_alloc(EXT4_WRITER_BUF);
    if (!x->buf) {
        return -ENOMEM;
    }
    x->goal = x->fs->super->s_first_data_block;
    x->fs->super->s_state &= (uint16_t)~EXT2_VALID_FS;
    ext2fs_mark_super_dirty(x->fs);
    errcode_t err = ext2fs_flush(x->fs);
    x->changed = !err;
    return ext4_errno(x->fs, err);
}

int ext4_end_changes(struct ext4 *x)
{
    int r = 0;

    if (x->writing) {
        ext4_writer_abort(&x->w);
        r = -EINVAL;                         /* a file was left half-written: our caller's failure */
        x->writing = false;
    }
    if (x->changed) {
        if (r == 0) {
            errcode_t err = ext2fs_flush(x->fs);
            r = ext4_errno(x->fs, err);
        }
        if (r == 0) {
            x->fs->super->s_state |= EXT2_VALID_FS;
            ext2fs_mark_super_dirty(x->fs);
        }
    }
    free(x->buf);
    x->buf = NULL;
    return r;
}

static void set_times(union ext4_inode *in, struct fs_time mtime, bool created)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    struct fs_time now = { .s = ts.tv_sec, .ns = (uint32_t)ts.tv_nsec };
    if (created) {
        in->l.i_extra_isize = sizeof(in->l) - EXT2_GOOD_OLD_INODE_SIZE;
        ext4_put_time(&in->l.i_crtime, &in->l.i_crtime_extra, now);
        ext4_put_time(&in->l.i_atime, &in->l.i_atime_extra, mtime);
    }
    uint32_t none, *extra = in->l.i_extra_isize >= 12 ? NULL : &none;
    ext4_put_time(&in->l.i_mtime, extra ? extra : &in->l.i_mtime_extra, mtime);
    ext4_put_time(&in->l.i_ctime, extra ? extra : &in->l.i_ctime_extra, now);
}

static int touch_dir(struct ext4 *x, ext2_ino_t dir)
{
    union ext4_inode in;
    struct timespec ts;
    int r = ext4_inode_read(x->fs, dir, &in);

    if (r == 0) {
        clock_gettime(CLOCK_REALTIME, &ts);
        set_times(&in, (struct fs_time){ .s = ts.tv_sec, .ns = (uint32_t)ts.tv_nsec }, false);
        r = ext4_inode_write(x->fs, dir, &in);
    }
    return r;
}

int ext4_link_name(struct ext4 *x, ext2_ino_t dir, const char *name, ext2_ino_t ino, uint32_t mode)
{
    errcode_t err = ext2fs_link(x->fs, dir, name, ino, ext4_dirent_type(mode));

    if (err == EXT2_ET_DIR_NO_SPACE) {
        err = ext2fs_expand_dir(x->fs, dir);
        if (!err) {
            err = ext2fs_link(x->fs, dir, name, ino, ext4_dirent_type(mode));
        }
    }
    return ext4_errno(x->fs, err);
}

static int put_dir(struct ext4 *x, ext2_ino_t dir, const char *name, const struct ext4_put *p, ext2_ino_t *ret)
{
    union ext4_inode in;
    ext2_ino_t ino;
    errcode_t err = ext2fs_new_inode(x->fs, dir, S_IFDIR, NULL, &ino);

    if (!err) {
        err = ext2fs_mkdir(x->fs, dir, ino, name);
    }
    if (err == EXT2_ET_DIR_NO_SPACE) {
        err = ext2fs_expand_dir(x->fs, dir);
        if (!err) {
            err = ext2fs_mkdir(x->fs, dir, ino, name);
        }
    }
    int r = err ? ext4_errno(x->fs, err) : ext4_inode_read(x->fs, ino, &in);
    if (r == 0) {
        ext4_inode_owner(&in, p->mode, p->uid, p->gid);
        set_times(&in, p->mtime, true);
        r = ext4_inode_write(x->fs, ino, &in);
        *ret = ino;
    }
    return r;
}

static int put_link(struct ext4 *x, ext2_ino_t ino, union ext4_inode *in, const char *target)
{
    size_t len = strlen(target);
    struct ext4_writer w;

    if (len == 0 || len >= x->fs->blocksize) {
        return len ? -ENAMETOOLONG : -EINVAL;
    }
    if (len < sizeof(in->s.i_block)) {
        memcpy(in->s.i_block, target, len);
        in->s.i_size = (uint32_t)len;
        return 0;
    }
    int r = ext4_writer_init(&w, x->fs, ino, in, &x->goal, x->buf);
    if (r == 0) {
        r = ext4_writer_add(&w, 0, target, len);
    }
    if (r == 0) {
        return ext4_writer_end(&w, len);
    }
    ext4_writer_abort(&w);
    return r;
}

static int put_new(struct ext4 *x, ext2_ino_t dir, const char *name, const struct ext4_put *p, ext2_ino_t *ret)
{
    union ext4_inode in = { 0 };
    ext2_ino_t ino;
    errcode_t err = ext2fs_new_inode(x->fs, dir, (int)p->mode, NULL, &ino);
    int r = 0;

    if (err) {
        return ext4_errno(x->fs, err);
    }
    ext4_inode_owner(&in, p->mode, p->uid, p->gid);
    set_times(&in, p->mtime, true);
    in.s.i_links_count = 1;
    switch (p->mode & S_IFMT) {
    case S_IFREG:
        x->inode = in;
        r = ext4_writer_init(&x->w, x->fs, ino, &x->inode, &x->goal, x->buf);
        x->writing = r == 0;
        in = x->inode;
        break;
    case S_IFLNK:
        r = put_link(x, ino, &in, p->target);
        break;
    case S_IFCHR:
    case S_IFBLK:
        ext4_inode_device(&in, p->major, p->minor);
        break;
    case S_IFIFO:
    case S_IFSOCK:
        break;
    default:
        r = -EINVAL;
    }
    if (r == 0) {
        r = ext4_inode_write(x->fs, ino, &in);
    }
    if (r == 0) {
        ext2fs_inode_alloc_stats2(x->fs, ino, +1, 0);
        r = ext4_link_name(x, dir, name, ino, p->mode);
        if (r < 0) {
            ext4_inode_unlink(x->fs, ino);           /* no name, no file */
        }
    }
    *ret = ino;
    return r;
}

static int put_over(struct ext4 *x, ext2_ino_t ino, const struct ext4_put *p)
{
    int r = ext4_inode_truncate(x->fs, ino, &x->inode);

    if (r < 0) {
        return r;
    }
    x->inode.s.i_flags &= ~(uint32_t)EXT4_INLINE_DATA_FL;
    ext4_inode_owner(&x->inode, p->mode, p->uid, p->gid);
    set_times(&x->inode, p->mtime, false);
    r = ext4_writer_init(&x->w, x->fs, ino, &x->inode, &x->goal, x->buf);
    x->writing = r == 0;
    return r < 0 ? r : ext4_inode_write(x->fs, ino, &x->inode);
}

int ext4_put(struct fs *fs, uint64_t dir, const char *name, const struct ext4_put *p, uint64_t *ret_ino)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode parent;
    uint64_t old;
    ext2_ino_t ino = 0;
    int r;

    hv_assert(!x->writing);
    if (!name[0] || strlen(name) > FS_NAME_MAX || strchr(name, '/') || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0) {
        return -EINVAL;
    }
    r = ext4_begin_changes(x);
    if (r == 0) {
        r = ext4_inode_read(x->fs, (ext2_ino_t)dir, &parent);
    }
    if (r < 0) {
        return r;
    }
    if (parent.s.i_flags & (EXT4_ENCRYPT_FL | EXT4_CASEFOLD_FL)) {
        return -EOPNOTSUPP;
    }
    r = fs->ops->lookup(fs, dir, name, &old);
    if (r == 0) {
        r = ext4_inode_read(x->fs, (ext2_ino_t)old, &x->inode);
        if (r < 0) {
            return r;
        }
        *ret_ino = old;
        if (S_ISDIR(x->inode.s.i_mode)) {
            return S_ISDIR(p->mode) ? 0 : -EISDIR;
        }
        if (!S_ISREG(x->inode.s.i_mode) || !S_ISREG(p->mode)) {
            return -EEXIST;
        }
        return x->inode.s.i_flags & (EXT4_ENCRYPT_FL | EXT4_VERITY_FL) ? -EOPNOTSUPP : put_over(x, (ext2_ino_t)old, p);
    }
    if (r != -ENOENT) {
        return r;
    }
    r = S_ISDIR(p->mode) ? put_dir(x, (ext2_ino_t)dir, name, p, &ino) : put_new(x, (ext2_ino_t)dir, name, p, &ino);
    if (r == 0) {
        r = touch_dir(x, (ext2_ino_t)dir);
    }
    if (r < 0 && x->writing) {
        ext4_writer_abort(&x->w);
        x->writing = false;
    }
    *ret_ino = ino;
    return r;
}

int ext4_put_data(struct fs *fs, uint64_t off, const void *buf, size_t len)
{
    struct ext4 *x = (struct ext4 *)fs;

    hv_assert(x->writing);
    return ext4_writer_add(&x->w, off, buf, len);
}

int ext4_put_end(struct fs *fs, uint64_t size)
{
    struct ext4 *x = (struct ext4 *)fs;

    hv_assert(x->writing);
    x->writing = false;
    int r = ext4_writer_end(&x->w, size);
    int r2 = ext4_inode_write(x->fs, x->w.ino, &x->inode);
    return r < 0 ? r : r2;
}

int ext4_put_xattr(struct fs *fs, uint64_t ino, const char *name, const void *value, size_t len)
{
    struct ext4 *x = (struct ext4 *)fs;
    int r = ext4_begin_changes(x);

    return r < 0 ? r : ext4_xattr_set(x->fs, (ext2_ino_t)ino, name, value, len);
}

int ext4_link(struct fs *fs, const char *path, uint64_t dir, const char *name)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode in;
    uint64_t ino, old;
    int r = fs_walk(fs, path, false, &ino);

    if (r == 0 && fs->ops->lookup(fs, dir, name, &old) == 0) {
        r = old == ino ? 1 : -EEXIST;                    /* 1: it is there */
    }
    if (r == 0) {
        r = ext4_inode_read(x->fs, (ext2_ino_t)ino, &in);
    }
    if (r == 0) {
        r = S_ISDIR(in.s.i_mode) ? -EISDIR : in.s.i_links_count >= 65000 ? -EMLINK : ext4_begin_changes(x);
    }
    if (r == 0) {
        r = ext4_link_name(x, (ext2_ino_t)dir, name, (ext2_ino_t)ino, in.s.i_mode);
    }
    if (r == 0) {
        in.s.i_links_count++;
        r = ext4_inode_write(x->fs, (ext2_ino_t)ino, &in);
    }
    return MIN(r, 0);
}

int ext4_remove(struct fs *fs, uint64_t dir, const char *name)
{
    struct ext4 *x = (struct ext4 *)fs;
    union ext4_inode in;
    uint64_t ino;
    int r = fs->ops->lookup(fs, dir, name, &ino);

    if (r == 0) {
        r = ext4_inode_read(x->fs, (ext2_ino_t)ino, &in);
    }
    if (r == 0 && S_ISDIR(in.s.i_mode)) {
        r = -EISDIR;
    }
    if (r == 0) {
        r = ext4_begin_changes(x);
    }
    if (r == 0) {
        r = ext4_errno(x->fs, ext2fs_unlink(x->fs, (ext2_ino_t)dir, name, (ext2_ino_t)ino, 0));
    }
    return r < 0 ? r : ext4_inode_unlink(x->fs, (ext2_ino_t)ino);
}
