/* --fs: the files of an ext4, FAT or ISO 9660 themselves, to read. One thread: see fs.h. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "vhdtool/mount.h"

static struct fs *tree(void)
{
    return ((struct mounted *)fuse_get_context()->private_data)->tree.fs;
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

    if (r == 0 && (fi->flags & O_ACCMODE) != O_RDONLY) {
        r = -EROFS;
    }
    fi->fh = ino;
    fi->keep_cache = 1;
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
            .f_files = s.files, .f_ffree = s.free_files, .f_favail = s.free_files, .f_flag = ST_RDONLY,
        };
    }
    return r;
}

static void *op_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
    cfg->entry_timeout = cfg->attr_timeout = cfg->negative_timeout = 3600;     /* nothing changes */
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
};
