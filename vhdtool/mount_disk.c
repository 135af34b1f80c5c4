/*
 * A disk as files: disk.raw, and p1, p2... for what the partition table says. Reads and writes go
 * to the disk from many threads; fsync is its flush; a hole punched is zeroed in the disk's map.
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "vhdtool/mount.h"

struct range { uint64_t off, len; };

static struct mounted *mounted(void)
{
    return fuse_get_context()->private_data;
}

static bool find(const char *path, struct range *ret)
{
    struct mounted *m = mounted();
    char name[16];

    if (strcmp(path, "/disk.raw") == 0) {
        *ret = (struct range){ 0, disk_size(m->disk) };
        return true;
    }
    for (unsigned i = 0; i < m->table.n; i++) {
        snprintf(name, sizeof(name), "/p%u", m->table.p[i].number);
        if (!m->table.p[i].extended && strcmp(path, name) == 0) {
            *ret = (struct range){ m->table.p[i].offset, m->table.p[i].len };
            return true;
        }
    }
    return false;
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    struct mounted *m = mounted();
    struct range r;

    *st = (struct stat){ .st_uid = m->uid, .st_gid = m->gid, .st_blksize = 4096 };
    st->st_mtim.tv_sec = st->st_ctim.tv_sec = st->st_atim.tv_sec = (time_t)m->time_s;
    if (strcmp(path, "/") == 0) {
        st->st_mode = S_IFDIR | 0555;
        st->st_nlink = 2;
        return 0;
    }
    if (!find(path, &r)) {
        return -ENOENT;
    }
    st->st_mode = S_IFREG | (m->write ? 0600 : 0400);
    st->st_nlink = 1;
    st->st_size = (off_t)r.len;
    st->st_blocks = (blkcnt_t)((r.len + 511) / 512);
    return 0;
}

static int op_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags)
{
    struct mounted *m = mounted();
    char name[16];

    if (strcmp(path, "/") != 0) {
        return -ENOENT;
    }
    fill(buf, ".", NULL, 0, 0);
    fill(buf, "..", NULL, 0, 0);
    fill(buf, "disk.raw", NULL, 0, 0);
    for (unsigned i = 0; i < m->table.n; i++) {
        if (!m->table.p[i].extended) {
            snprintf(name, sizeof(name), "p%u", m->table.p[i].number);
            fill(buf, name, NULL, 0, 0);
        }
    }
    return 0;
}

static int op_open(const char *path, struct fuse_file_info *fi)
{
    struct mounted *m = mounted();
    struct range r;

    if (!find(path, &r)) {
        return -ENOENT;
    }
    if ((fi->flags & O_ACCMODE) != O_RDONLY && !m->write) {
        return -EROFS;
    }
    /* The same bytes have two names: the page cache would keep them apart. */
    fi->direct_io = m->write;
    fi->keep_cache = !m->write;
    return 0;
}

static int op_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
    struct range r;

    if (!find(path, &r)) {
        return -ENOENT;
    }
    if (off < 0 || (uint64_t)off >= r.len) {
        return 0;
    }
    len = (size_t)MIN((uint64_t)len, r.len - (uint64_t)off);
    int err = disk_read(mounted()->disk, r.off + (uint64_t)off, buf, len);
    return err < 0 ? err : (int)len;
}

static int op_write(const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
    struct range r;

    if (!find(path, &r)) {
        return -ENOENT;
    }
    if (!mounted()->write) {
        return -EROFS;
    }
    if (off < 0 || (uint64_t)off >= r.len) {
        return -ENOSPC;
    }
    len = (size_t)MIN((uint64_t)len, r.len - (uint64_t)off);
    int err = disk_write(mounted()->disk, r.off + (uint64_t)off, buf, len);
    return err < 0 ? err : (int)len;
}

/* As with a device: the size is what it is, and O_TRUNC means nothing. */
static int op_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    struct range r;

    return !find(path, &r) ? -ENOENT : !mounted()->write ? -EROFS : 0;
}

static int op_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
    return mounted()->write ? disk_flush(mounted()->disk) : 0;
}

static int op_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
    bool zero = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) || mode == FALLOC_FL_ZERO_RANGE ||
                mode == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
    struct range r;

    if (!find(path, &r)) {
        return -ENOENT;
    }
    if (!mounted()->write) {
        return -EROFS;
    }
    if (!zero) {
        return -EOPNOTSUPP;
    }
    if (off < 0 || len <= 0 || (uint64_t)off >= r.len) {
        return off < 0 || len <= 0 ? -EINVAL : 0;
    }
    return disk_zero(mounted()->disk, r.off + (uint64_t)off, MIN((uint64_t)len, r.len - (uint64_t)off));
}

static int op_statfs(const char *path, struct statvfs *st)
{
    *st = (struct statvfs){ .f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255,
                            .f_blocks = disk_size(mounted()->disk) / 4096, .f_files = mounted()->table.n + 1 };
    return 0;
}

static void *op_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
    conn->max_write = MIB;
    cfg->entry_timeout = cfg->attr_timeout = 3600;   /* names and sizes do not change */
    cfg->negative_timeout = 3600;
    return mounted();
}

const struct fuse_operations mount_disk_ops = {
    .init = op_init,
    .getattr = op_getattr,
    .readdir = op_readdir,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .truncate = op_truncate,
    .fsync = op_fsync,
    .fallocate = op_fallocate,
    .statfs = op_statfs,
};
