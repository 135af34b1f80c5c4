/* Files under disks: the host's own, with whole-file locks, and those made of functions. */
#include "hv/disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/base/lockfile.h"

#define FILE_MAGIC 0x454c4946u
#define ZERO_CHUNK (256 * KIB)
#define EXPECT_MIN (1 * MIB)             /* below that fallocate() costs about what it saves */

struct disk_file {
    uint32_t magic;
    atomic_uint refs;
    unsigned flags;
    int fd, direct_fd;
    bool device;
    char *path;
    const struct disk_file_ops *ops;
    void *arg;
};

static int new_file(const char *path, unsigned flags, struct disk_file **ret)
{
    struct disk_file *f = hv_alloc(sizeof(*f));

    if (!f) {
        return -ENOMEM;
    }
    f->magic = FILE_MAGIC;
    f->refs = 1;
    f->flags = flags;
    f->fd = f->direct_fd = -1;
    f->path = hv_strdup(path ? path : "");
    if (!f->path) {
        free(f);
        return -ENOMEM;
    }
    *ret = f;
    return 0;
}

int disk_file_from_fd(int fd_in, const char *path, unsigned flags, struct disk_file **ret,
                      struct hv_error *e)
{
    hv_autoclose int fd = fd_in;
    struct disk_file *f;
    char self[64];
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0) {
        return hv_fail_errno(e, errno, path, "cannot look at it");
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        hv_fail(e, HV_USAGE, path, S_ISDIR(st.st_mode) ? "is a folder, not a disk"
                                                       : "is neither a file nor a block device");
        return -EISDIR;
    }
    if (!(flags & DISK_FILE_NO_LOCK)) {
        r = hv_lock_file(fd, path, flags & DISK_FILE_WRITE, e);
        if (r < 0) {
            return r;
        }
    }
    r = new_file(path, flags, &f);
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot open");
    }
    f->device = S_ISBLK(st.st_mode);
    f->fd = hv_steal_fd(fd);
    if (flags & DISK_FILE_DIRECT) {
        snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
        f->direct_fd = open(self, (flags & DISK_FILE_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_DIRECT);
    }
    *ret = f;
    return 0;
}

int disk_file_open(const char *path, unsigned flags, struct disk_file **ret, struct hv_error *e)
{
    int how = (flags & DISK_FILE_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd, r = fault_check(FAULT_OPEN);

    if (flags & DISK_FILE_CREATE) {
        how |= O_CREAT | O_EXCL;
    }
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot open");
    }
    fd = open(path, how, 0666);
    if (fd < 0) {
        r = -errno;
        if (r == -EISDIR) {
            hv_fail(e, HV_USAGE, path, "is a folder, not a disk");
            return r;
        }
        if (r == -EEXIST) {
            hv_fail(e, HV_CONFLICT, path, "exists already");
            return r;
        }
        hv_fail_errno(e, -r, path, flags & DISK_FILE_CREATE ? "cannot create" : "cannot open");
        return r;
    }
    r = disk_file_from_fd(fd, path, flags, ret, e);
    if (r < 0 && flags & DISK_FILE_CREATE) {
        unlink(path);
    }
    return r;
}

int disk_file_from_ops(const struct disk_file_ops *ops, void *arg, const char *path, unsigned flags,
                       struct disk_file **ret)
{
    struct disk_file *f;
    int r = new_file(path, flags, &f);

    if (r < 0) {
        return r;
    }
    f->ops = ops;
    f->arg = arg;
    *ret = f;
    return 0;
}

struct disk_file *disk_file_ref(struct disk_file *f)
{
    HV_CHECK(f, FILE_MAGIC);
    atomic_fetch_add(&f->refs, 1);
    return f;
}

void disk_file_unref(struct disk_file *f)
{
    if (!f) {
        return;
    }
    HV_CHECK(f, FILE_MAGIC);
    if (atomic_fetch_sub(&f->refs, 1) != 1) {
        return;
    }
    if (f->ops && f->ops->free) {
        f->ops->free(f->arg);
    }
    if (f->direct_fd >= 0) {
        close(f->direct_fd);
    }
    if (f->fd >= 0) {
        close(f->fd);
    }
    free(f->path);
    f->magic = 0;
    free(f);
}

int disk_file_read(struct disk_file *f, uint64_t off, void *buf, uint64_t len)
{
    char *p = buf;
    int r = fault_check(FAULT_READ);

    HV_CHECK(f, FILE_MAGIC);
    if (r < 0) {
        return r;
    }
    if (off > INT64_MAX || len > INT64_MAX - off) {
        return -EINVAL;
    }
    if (f->ops) {
        return f->ops->read(f->arg, off, buf, len);
    }
    while (len > 0) {
        ssize_t n = pread(f->fd, p, len, (off_t)off);

        if (n == 0) {
            memset(p, 0, len);
            return 0;
        }
        if (n > 0) {
            p += n;
            off += (uint64_t)n;
            len -= (uint64_t)n;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int disk_file_write(struct disk_file *f, uint64_t off, const void *buf, uint64_t len)
{
    const char *p = buf;
    int r = fault_check(FAULT_WRITE);

    HV_CHECK(f, FILE_MAGIC);
    if (r < 0) {
        return r;
    }
    if (!(f->flags & DISK_FILE_WRITE)) {
        return -EROFS;
    }
    if (off > INT64_MAX || len > INT64_MAX - off) {
        return -EFBIG;
    }
    if (f->ops) {
        return f->ops->write(f->arg, off, buf, len);
    }
    while (len > 0) {
        ssize_t n = pwrite(f->fd, p, len, (off_t)off);

        if (n > 0) {
            p += n;
            off += (uint64_t)n;
            len -= (uint64_t)n;
        } else if (n == 0) {
            return -ENOSPC;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static int write_zeros(struct disk_file *f, uint64_t off, uint64_t len)
{
    static const uint8_t zeros[ZERO_CHUNK];
    uint64_t size = disk_file_size(f);

    if (off >= size) {
        return 0;
    }
    len = MIN(len, size - off);
    while (len > 0) {
        uint64_t n = MIN(len, sizeof(zeros));
        int r = disk_file_write(f, off, zeros, n);

        if (r < 0) {
            return r;
        }
        off += n;
        len -= n;
    }
    return 0;
}

static int zero_with(struct disk_file *f, int mode, uint64_t off, uint64_t len)
{
    int r = fault_check(FAULT_WRITE);

    HV_CHECK(f, FILE_MAGIC);
    if (r < 0) {
        return r;
    }
    if (!(f->flags & DISK_FILE_WRITE)) {
        return -EROFS;
    }
    if (len == 0) {
        return 0;
    }
    if (off > INT64_MAX || len > INT64_MAX - off) {
        return -EFBIG;
    }
    if (f->ops) {
        return f->ops->zero(f->arg, off, len);
    }
    do {
        r = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0 ? -errno : 0;
    } while (r == -EINTR);
    return r == -EOPNOTSUPP || r == -EINVAL || r == -ENOSYS ? write_zeros(f, off, len) : r;
}

int disk_file_zero(struct disk_file *f, uint64_t off, uint64_t len)
{
    return zero_with(f, FALLOC_FL_PUNCH_HOLE, off, len);
}

int disk_file_zero_keep(struct disk_file *f, uint64_t off, uint64_t len)
{
    return zero_with(f, FALLOC_FL_ZERO_RANGE, off, len);
}

int disk_file_resize(struct disk_file *f, uint64_t size)
{
    int r = fault_check(FAULT_WRITE);

    HV_CHECK(f, FILE_MAGIC);
    if (r < 0) {
        return r;
    }
    if (!(f->flags & DISK_FILE_WRITE)) {
        return -EROFS;
    }
    if (size > INT64_MAX) {
        return -EFBIG;
    }
    if (f->ops) {
        return f->ops->resize(f->arg, size);
    }
    if (f->device) {
        return size <= disk_file_size(f) ? 0 : -ENOTSUP;
    }
    while (ftruncate(f->fd, (off_t)size) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int disk_file_reserve(struct disk_file *f, uint64_t off, uint64_t len)
{
    int r;

    HV_CHECK(f, FILE_MAGIC);
    if (f->ops || f->device || len == 0) {
        return 0;
    }
    do {
        r = fallocate(f->fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0 ? -errno : 0;
    } while (r == -EINTR);
    return r == -EOPNOTSUPP || r == -ENOSYS ? 0 : r;
}

/*
 * For buffered writes into new room ext4 keeps account of each 4 KiB that it will have to find a place for
 * when the page is written back; where the place is known, it need not. 256 MiB took the thread that writes
 * them 59 ms of CPU, and 52 with fallocate() before; on XFS (27) and Btrfs (138) it changed nothing, tmpfs
 * got slower by a tenth. And it would cost where fallocate() is made of writing zeros (FUSE, servers of NFS),
 * or room that was promised is not compressed (Btrfs). So ext4 alone.
 */
void disk_file_expect(struct disk_file *f, uint64_t off, uint64_t len)
{
    struct statfs fs;

    HV_CHECK(f, FILE_MAGIC);
    if (f->ops || f->device || !(f->flags & DISK_FILE_WRITE) || len < EXPECT_MIN || fstatfs(f->fd, &fs) < 0 ||
        fs.f_type != EXT4_SUPER_MAGIC) {
        return;
    }
    (void)fallocate(f->fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
}

int disk_file_sync(struct disk_file *f)
{
    int r = fault_check(FAULT_SYNC);

    HV_CHECK(f, FILE_MAGIC);
    if (r < 0) {
        return r;
    }
    if (f->ops) {
        return f->ops->sync(f->arg);
    }
    if (f->flags & DISK_FILE_NO_SYNC && !f->device) {
        return 0;
    }
    return fdatasync(f->fd) < 0 ? -errno : 0;
}

uint64_t disk_file_skip_hole(struct disk_file *f, uint64_t off)
{
    off_t at;

    HV_CHECK(f, FILE_MAGIC);
    if (f->ops || f->device || off > INT64_MAX) {
        return off;
    }
    at = lseek(f->fd, (off_t)off, SEEK_DATA);
    return at >= 0 ? (uint64_t)at : errno == ENXIO ? MAX(disk_file_size(f), off) : off;
}

uint64_t disk_file_skip_data(struct disk_file *f, uint64_t off)
{
    off_t at;

    HV_CHECK(f, FILE_MAGIC);
    if (f->ops || f->device || off > INT64_MAX) {
        return MAX(disk_file_size(f), off);
    }
    at = lseek(f->fd, (off_t)off, SEEK_HOLE);
    return at > (off_t)off ? (uint64_t)at : MAX(disk_file_size(f), off);
}

int disk_file_clone(struct disk_file *from, uint64_t off, struct disk_file *to, uint64_t to_off, uint64_t len)
{
    struct file_clone_range range = { .src_fd = from->fd, .src_offset = off, .src_length = len, .dest_offset = to_off };

    if (from->ops || to->ops || from->device || to->device || !(to->flags & DISK_FILE_WRITE) ||
        ioctl(to->fd, FICLONERANGE, &range) < 0) {
        return -EOPNOTSUPP;
    }
    return 0;
}

uint64_t disk_file_size(struct disk_file *f)
{
    uint64_t bytes = 0;
    struct stat st;

    HV_CHECK(f, FILE_MAGIC);
    if (f->ops) {
        return f->ops->size(f->arg);
    }
    if (f->device) {
        return ioctl(f->fd, BLKGETSIZE64, &bytes) == 0 ? bytes : 0;
    }
    return fstat(f->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

uint64_t disk_file_allocated(struct disk_file *f)
{
    struct stat st;

    HV_CHECK(f, FILE_MAGIC);
    if (f->ops || f->device) {
        return disk_file_size(f);
    }
    return fstat(f->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

bool disk_file_writable(const struct disk_file *f)
{
    return f->flags & DISK_FILE_WRITE;
}

bool disk_file_is_device(const struct disk_file *f)
{
    return f->device;
}

const char *disk_file_path(const struct disk_file *f)
{
    return f->path;
}

int disk_file_fd(const struct disk_file *f)
{
    return f->fd;
}

int disk_file_direct_fd(const struct disk_file *f)
{
    return f->direct_fd;
}

bool disk_file_same(const struct disk_file *a, const struct disk_file *b)
{
    struct stat x, y;

    if (a == b) {
        return true;
    }
    if (a->ops || b->ops) {
        return a->ops == b->ops && a->arg == b->arg;
    }
    return fstat(a->fd, &x) == 0 && fstat(b->fd, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}
