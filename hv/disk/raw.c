/* Raw disks: the file, or the block device, is the disk. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/disk/disk_impl.h"

static int raw_probe(struct disk_file *f)
{
    return disk_file_size(f) > 0;
}

static int raw_open(struct disk_layer *l, struct hv_error *e)
{
    const char *path = disk_file_path(l->file);
    uint64_t size = disk_file_size(l->file);
    struct stat st;

    if (size < DISK_SECTOR) {
        return hv_fail(e, HV_USAGE, path, "is too short for a disk (%llu bytes)",
                       (unsigned long long)size);
    }
    l->type = DISK_FIXED;
    l->size = ROUND_DOWN(size, DISK_SECTOR);
    l->logical_sector = DISK_SECTOR;
    l->physical_sector = 4096;
    if (l->size != size) {
        snprintf(l->note, sizeof(l->note), "the last %u bytes are less than a sector",
                 (unsigned)(size - l->size));
    }
    if (disk_file_fd(l->file) >= 0 && fstat(disk_file_fd(l->file), &st) == 0) {
        memcpy(l->id.b, &st.st_ino, 8);
        memcpy(l->id.b + 8, &st.st_dev, 8);
    }
    return 0;
}

static int raw_close(struct disk_layer *l, bool clean)
{
    (void)l;
    (void)clean;
    return 0;
}

/* Where it lies, holes or not: for writes, and small reads. */
static int raw_allocate(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    *ret = (struct disk_extent){ .len = len, .where = DISK_DATA, .file = l->file, .file_offset = off };
    return 0;
}

#define LOOK_FOR_HOLES (1 * MIB)

/* Asked for a large range, it is worth two system calls to know what of it is a hole. */
static int raw_map(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    int fd = len > LOOK_FOR_HOLES && !disk_file_is_device(l->file) ? disk_file_fd(l->file) : -1;
    off_t data, hole;

    raw_allocate(l, off, len, ret);
    data = fd >= 0 ? lseek(fd, (off_t)off, SEEK_DATA) : (off_t)off;
    if ((data < 0 && errno == ENXIO) || data >= (off_t)ROUND_UP(off + 1, DISK_SECTOR)) {
        uint64_t end = data < 0 ? off + len : MIN(off + len, ROUND_DOWN((uint64_t)data, DISK_SECTOR));

        *ret = (struct disk_extent){ .len = end - off, .where = DISK_ABSENT };
        return 0;
    }
    hole = fd >= 0 ? lseek(fd, (off_t)off, SEEK_HOLE) : -1;
    if (hole > (off_t)off) {
        ret->len = MIN(len, ROUND_UP((uint64_t)hole, DISK_SECTOR) - off);
    }
    return 0;
}

static int raw_written(struct disk_layer *l, uint64_t off, uint64_t len)
{
    (void)l;
    (void)off;
    (void)len;
    return 0;
}

static int raw_unmap(struct disk_layer *l, uint64_t off, uint64_t len, uint64_t *ret_len)
{
    int r = disk_file_zero(l->file, off, len);

    *ret_len = len;
    return r;
}

static int raw_flush(struct disk_layer *l)
{
    return disk_file_sync(l->file);
}

static int raw_info(struct disk_layer *l, bool count, struct disk_info *ret)
{
    (void)count;
    (void)l;
    (void)ret;
    return 0;
}

static int raw_create(struct disk_file *f, const struct disk_create *c, struct disk *parent,
                      struct hv_error *e)
{
    const char *path = disk_file_path(f);
    int r;

    if (parent || c->type == DISK_DIFFERENCING) {
        return hv_fail(e, HV_UNSUPPORTED, path, "a raw disk cannot have a parent");
    }
    if (c->size == 0 || c->size % DISK_SECTOR) {
        return hv_fail(e, HV_USAGE, path, "the size must be a multiple of 512 bytes, and not 0");
    }
    if (disk_file_is_device(f)) {
        if (disk_file_size(f) < c->size) {
            return hv_fail(e, HV_NO_RESOURCES, path, "the device is too small");
        }
        return 0;
    }
    r = disk_file_resize(f, c->size);
    if (r == 0 && c->type == DISK_FIXED) {
        r = disk_file_reserve(f, 0, c->size);
    }
    if (r == 0) {
        r = disk_file_sync(f);
    }
    return r < 0 ? hv_fail_errno(e, -r, path, "cannot create") : 0;
}

static int raw_resize(struct disk_layer *l, uint64_t size, struct hv_error *e)
{
    const char *path = disk_file_path(l->file);
    int r;

    if (disk_file_is_device(l->file)) {
        return hv_fail(e, HV_UNSUPPORTED, path, "a block device cannot be resized here");
    }
    r = disk_file_resize(l->file, size);
    if (r == 0) {
        r = disk_file_sync(l->file);
    }
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot resize");
    }
    l->size = size;
    return 0;
}

static int raw_check(struct disk_file *f, disk_problem_fn *fn, void *arg, struct hv_error *e)
{
    uint64_t size = disk_file_size(f);

    if (size < DISK_SECTOR) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "is too short for a disk (%llu bytes)", (unsigned long long)size);
    }
    if (size % DISK_SECTOR) {
        disk_problem(fn, arg, PROBLEM_HARMLESS, "size: %llu bytes, the last %u are less than a sector",
                     (unsigned long long)size, (unsigned)(size % DISK_SECTOR));
    }
    return 0;
}

static int raw_repair(struct disk_file *f, bool dry, disk_problem_fn *fn, void *arg, struct hv_error *e)
{
    (void)f;
    (void)dry;
    (void)fn;
    (void)arg;
    (void)e;
    return 0;
}

const struct disk_format disk_format_raw = {
    .kind = DISK_RAW,
    .name = "raw",
    .probe = raw_probe,
    .open = raw_open,
    .close = raw_close,
    .map = raw_map,
    .allocate = raw_allocate,
    .written = raw_written,
    .unmap = raw_unmap,
    .flush = raw_flush,
    .info = raw_info,
    .create = raw_create,
    .resize = raw_resize,
    .check = raw_check,
    .repair = raw_repair,
};
