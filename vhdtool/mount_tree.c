/*
 * --fs: the files of an ext4, FAT or ISO 9660 themselves; of an ext4 to write as well. One thread: see
 * fs.h. Who mounts may do everything in it, as with the image itself: permissions are data here.
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "vhdtool/mount.h"

static struct fs *tree(void)
{
    return ((struct mounted *)fuse_get_context()->private_data)->tree.fs;
}

static bool writable(void)
{
    return ((struct mounted *)fuse_get_context()->private_data)->write;
}

/* Is asked before each change. */
static bool to_change(void)
{
    struct mounted *m = fuse_get_context()->private_data;

    if (m->write && !m->dirty_ns) {
        m->dirty_ns = hv_now_ns();
    }
    return m->write;
}

int mount_tree_flush(struct mounted *m)
{
    int r = m->dirty_ns ? ext4_flush(m->tree.fs) : 0;

    m->dirty_ns = r < 0 ? hv_now_ns() : 0;
    return r;
}

static void fill_stat(struct stat *st, const struct fs_stat *from)
{
    *st = (struct stat){
        .st_ino = from->ino, .st_mode = from->mode, .st_nlink = from->links, .st_uid = from->uid, .st_gid = from->gid,
        .st_rdev = makedev(from->major, from->minor), .st_size = (off_t)from->size, .st_blksize = 4096,
        .st_blocks = (blkcnt_t)from->blocks,
        .st_mtim = { from->mtime.s, from->mtime.ns }, .st_atim = { from->atime.s, from->atime.ns },
        .st_ctim = { from->ctime.s, from->ctime.ns },
    };
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    struct fs_stat s;
    uint64_t ino;
    int r = fs_walk(tree(), path, false, &ino);

    if (r == 0) {
        r = tree()->ops->stat(tree(), ino, &s);
    }
    if (r == 0) {
        fill_stat(st, &s);
    }
    return r;
}

struct filling { void *buf; fuse_fill_dir_t fill; };

static int one_name(void *arg, const struct fs_entry *en)
{
    struct filling *f = arg;
    struct stat st = { .st_ino = en->ino, .st_mode = en->mode };

    return f->fill(f->buf, en->name, &st, 0, 0) ? -ENOMEM : 0;
}

static int op_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags)
{
    struct filling f = { buf, fill };
    uint64_t ino;
    int r = fs_walk(tree(), path, false, &ino);

    fill(buf, ".", NULL, 0, 0);
    fill(buf, "..", NULL, 0, 0);
    return r < 0 ? r : tree()->ops->list(tree(), ino, one_name, &f);
}

static int op_readlink(const char *path, char *buf, size_t size)
{
    char target[FS_PATH_MAX];
    uint64_t ino;
    int r = tree()->ops->readlink ? fs_walk(tree(), path, false, &ino) : -EINVAL;

    if (r == 0) {
        r = tree()->ops->readlink(tree(), ino, target, sizeof(target));
    }
    if (r == 0) {
        hv_strlcpy(buf, target, size);               /* cut, as readlink(2) does */
    }
    return r;
}

static int op_open(const char *path, struct fuse_file_info *fi)
{
    uint64_t ino;
    int r = fs_walk(tree(), path, false, &ino);

    if (r == 0 && (fi->flags & O_ACCMODE) != O_RDONLY && !writable()) {
        r = -EROFS;
    }
    fi->fh = ino;
    fi->keep_cache = !writable();            /* another name of the file may have been written to */
    return r;
}

static int op_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
    size_t have = 0, n = 1;

    while (have < len && n) {
        int r = tree()->ops->read(tree(), fi->fh, (uint64_t)off + have, buf + have, len - have, &n);
        if (r < 0) {
            return r;
        }
        have += n;
    }
    return (int)have;
}

struct wanted { const char *name; char *buf; size_t size, len; bool found; };

static int one_value(void *arg, const char *name, const void *value, size_t len)
{
    struct wanted *w = arg;

    if (strcmp(name, w->name) != 0) {
        return 0;
    }
    w->found = true;
    w->len = len;
    if (w->size >= len && len) {
        memcpy(w->buf, value, len);
    }
    return 1;
}

static int one_attribute(void *arg, const char *name, const void *value, size_t len)
{
    struct wanted *w = arg;
    size_t n = strlen(name) + 1;

    if (w->size >= w->len + n) {
        memcpy(w->buf + w->len, name, n);
    }
    w->len += n;
    return 0;
}

static int attributes(const char *path, struct wanted *w, fs_xattr_fn *fn)
{
    uint64_t ino;
    int r = tree()->ops->xattrs ? fs_walk(tree(), path, false, &ino) : -EOPNOTSUPP;

    if (r == 0) {
        r = tree()->ops->xattrs(tree(), ino, fn, w);
    }
    if (r < 0) {
        return r;
    }
    return w->size && w->len > w->size ? -ERANGE : (int)MIN(w->len, (size_t)INT32_MAX);
}

static int op_getxattr(const char *path, const char *name, char *buf, size_t size)
{
    struct wanted w = { .name = name, .buf = buf, .size = size };
    int r = attributes(path, &w, one_value);

    return r >= 0 && !w.found ? -ENODATA : r;
}

static int op_listxattr(const char *path, char *buf, size_t size)
{
    struct wanted w = { .buf = buf, .size = size };

    return attributes(path, &w, one_attribute);
}

static int op_statfs(const char *path, struct statvfs *st)
{
    struct fs_space s;
    int r = tree()->ops->space(tree(), &s);

    if (r == 0) {
        *st = (struct statvfs){
            .f_bsize = s.block, .f_frsize = s.block, .f_namemax = FS_NAME_MAX,
            .f_blocks = s.size / s.block, .f_bfree = s.free_bytes / s.block, .f_bavail = s.free_bytes / s.block,
            .f_files = s.files, .f_ffree = s.free_files, .f_favail = s.free_files, .f_flag = writable() ? 0 : ST_RDONLY,
        };
    }
    return r;
}

/* ---- changing ---- */

/* The folder of path, its last part, and who is to own what is made there. */
static int where(const char *path, uint64_t *dir, char name[FS_NAME_MAX + 1])
{
    return to_change() ? fs_walk_parent(tree(), path, dir, name) : -EROFS;
}

static int make(const char *path, struct ext4_put p, uint64_t *ret_ino)
{
    char name[FS_NAME_MAX + 1];
    struct timespec ts;
    uint64_t dir, ino;
    int r = where(path, &dir, name);

    clock_gettime(CLOCK_REALTIME, &ts);
    p.mtime = (struct fs_time){ .s = ts.tv_sec, .ns = (uint32_t)ts.tv_nsec };
    p.uid = fuse_get_context()->uid;
    p.gid = fuse_get_context()->gid;
    return r < 0 ? r : ext4_create(tree(), dir, name, &p, ret_ino ? ret_ino : &ino);
}

static int op_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    return make(path, (struct ext4_put){ .mode = S_IFREG | (mode & 07777) }, &fi->fh);
}

static int op_mknod(const char *path, mode_t mode, dev_t dev)
{
    return make(path, (struct ext4_put){ .mode = mode, .major = major(dev), .minor = minor(dev) }, NULL);
}

static int op_mkdir(const char *path, mode_t mode)
{
    return make(path, (struct ext4_put){ .mode = S_IFDIR | (mode & 07777) }, NULL);
}

static int op_symlink(const char *target, const char *path)
{
    return make(path, (struct ext4_put){ .mode = S_IFLNK | 0777, .target = target }, NULL);
}

static int op_link(const char *from, const char *path)
{
    char name[FS_NAME_MAX + 1];
    uint64_t dir;
    int r = where(path, &dir, name);

    return r < 0 ? r : ext4_link(tree(), from, dir, name);
}

static int op_unlink(const char *path)
{
    char name[FS_NAME_MAX + 1];
    uint64_t dir;
    int r = where(path, &dir, name);

    return r < 0 ? r : ext4_remove(tree(), dir, name);
}

static int op_rmdir(const char *path)
{
    char name[FS_NAME_MAX + 1];
    uint64_t dir;
    int r = where(path, &dir, name);

    return r < 0 ? r : ext4_rmdir(tree(), dir, name);
}

static int op_rename(const char *from, const char *to, unsigned flags)
{
    char name[FS_NAME_MAX + 1], to_name[FS_NAME_MAX + 1];
    uint64_t dir, to_dir;
    int r = flags & ~(unsigned)RENAME_NOREPLACE ? -EINVAL : where(from, &dir, name);

    r = r < 0 ? r : where(to, &to_dir, to_name);
    return r < 0 ? r : ext4_rename(tree(), dir, name, to_dir, to_name, !(flags & RENAME_NOREPLACE));
}

static int op_write(const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
    int r = to_change() ? ext4_write(tree(), fi->fh, (uint64_t)off, buf, len) : -EROFS;

    return r < 0 ? r : (int)len;
}

/* The inode of an open file, or that of a path. */
static int inode_of(const char *path, struct fuse_file_info *fi, uint64_t *ret)
{
    if (!to_change()) {
        return -EROFS;
    }
    if (fi) {
        *ret = fi->fh;
        return 0;
    }
    return fs_walk(tree(), path, false, ret);
}

static int op_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    uint64_t ino;
    int r = inode_of(path, fi, &ino);

    return r < 0 ? r : ext4_set_size(tree(), ino, (uint64_t)size);
}

static int op_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    uint64_t ino;
    int r = inode_of(path, fi, &ino);

    return r < 0 ? r : ext4_set_attr(tree(), ino, &(struct ext4_attr){ .set = EXT4_ATTR_MODE, .mode = mode });
}

static int op_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
    struct ext4_attr a = { .uid = uid, .gid = gid };
    uint64_t ino;
    int r = inode_of(path, fi, &ino);

    a.set = (uid != (uid_t)-1 ? EXT4_ATTR_UID : 0u) | (gid != (gid_t)-1 ? EXT4_ATTR_GID : 0u);
    return r < 0 ? r : ext4_set_attr(tree(), ino, &a);
}

static bool time_of(const struct timespec *from, struct fs_time *ret)
{
    struct timespec ts = *from;

    if (from->tv_nsec == UTIME_OMIT) {
        return false;
    }
    if (from->tv_nsec == UTIME_NOW) {
        clock_gettime(CLOCK_REALTIME, &ts);
    }
    *ret = (struct fs_time){ .s = ts.tv_sec, .ns = (uint32_t)ts.tv_nsec };
    return true;
}

static int op_utimens(const char *path, const struct timespec tv[2], struct fuse_file_info *fi)
{
    struct ext4_attr a = { 0 };
    uint64_t ino;
    int r = inode_of(path, fi, &ino);

    a.set = (time_of(&tv[0], &a.atime) ? EXT4_ATTR_ATIME : 0u) | (time_of(&tv[1], &a.mtime) ? EXT4_ATTR_MTIME : 0u);
    return r < 0 ? r : ext4_set_attr(tree(), ino, &a);
}

static int op_fsync(const char *path, int data, struct fuse_file_info *fi)
{
    return mount_tree_flush(fuse_get_context()->private_data);
}

static int op_setxattr(const char *path, const char *name, const char *value, size_t len, int flags)
{
    struct wanted w = { .name = name };
    uint64_t ino;
    /* An ACL that says no more than the mode would have to become the mode: who sets one does that then. */
    int r = strncmp(name, "system.", 7) == 0 ? -EOPNOTSUPP : inode_of(path, NULL, &ino);

    if (r == 0 && flags) {
        r = attributes(path, &w, one_value);
        r = r < 0 ? r : flags & 1 && w.found ? -EEXIST : flags & 2 && !w.found ? -ENODATA : 0;
    }
    return r < 0 ? r : ext4_put_xattr(tree(), ino, name, value, len);
}

static int op_removexattr(const char *path, const char *name)
{
    uint64_t ino;
    int r = inode_of(path, NULL, &ino);

    return r < 0 ? r : ext4_remove_xattr(tree(), ino, name);
}

static void *op_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
    if (!writable()) {
        cfg->entry_timeout = cfg->attr_timeout = cfg->negative_timeout = 3600;     /* nothing changes */
    } else {
        cfg->attr_timeout = 0;               /* a file may have several names */
    }
    cfg->use_ino = 1;
    return fuse_get_context()->private_data;
}

const struct fuse_operations mount_tree_ops = {
    .init = op_init,
    .getattr = op_getattr,
    .readdir = op_readdir,
    .readlink = op_readlink,
    .open = op_open,
    .read = op_read,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .statfs = op_statfs,
    .create = op_create,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .symlink = op_symlink,
    .link = op_link,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .rename = op_rename,
    .write = op_write,
    .truncate = op_truncate,
    .chmod = op_chmod,
    .chown = op_chown,
    .utimens = op_utimens,
    .fsync = op_fsync,
    .fsyncdir = op_fsync,
    .setxattr = op_setxattr,
    .removexattr = op_removexattr,
};
