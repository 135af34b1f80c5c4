/* What changes a disk as a whole: its size, its parent, its ids, the room it takes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/disk/disk_impl.h"

/* Flushed, and with both locks of the leaf held until end_change(). */
static int begin_change(struct disk *d, bool offered, const char *what, struct hv_error *e)
{
    struct disk_layer *l = d->layers[0];
    const char *path = disk_file_path(l->file);
    int r;

    HV_CHECK(d, DISK_MAGIC);
    if (!offered) {
        return hv_fail(e, HV_UNSUPPORTED, path, "%s: a %s disk has no such thing", what, l->format->name);
    }
    if (!l->writable) {
        return hv_fail(e, HV_USAGE, path, "%s: the disk is open for reading only", what);
    }
    pthread_mutex_lock(&l->flush_lock);
    r = l->format->flush(l);
    if (r < 0) {
        pthread_mutex_unlock(&l->flush_lock);
        return hv_fail_errno(e, -r, path, "%s: cannot write its last changes", what);
    }
    pthread_mutex_lock(&l->lock);
    return 0;
}

static int end_change(struct disk *d, int r)
{
    pthread_mutex_unlock(&d->layers[0]->lock);
    pthread_mutex_unlock(&d->layers[0]->flush_lock);
    return r;
}

int disk_resize(struct disk *d, uint64_t size, struct hv_error *e)
{
    struct disk_layer *l = d->layers[0];
    int r = begin_change(d, l->format->resize, "resize", e);

    if (r < 0) {
        return r;
    }
    if (size == 0 || size % l->logical_sector || size > DISK_MAX_SIZE) {
        return end_change(d, hv_fail(e, HV_USAGE, disk_file_path(l->file),
                                     "the size must be a multiple of %u bytes, at most 64T",
                                     l->logical_sector));
    }
    return end_change(d, size == l->size ? 0 : l->format->resize(l, size, e));
}

int disk_set_parent(struct disk *d, const char *path, bool ignore_id, struct hv_error *e)
{
    struct disk_layer *l = d->layers[0];
    struct disk_parent_ref ref = { .id = l->parent.id };
    struct disk *parent;
    int r;

    if (l->type != DISK_DIFFERENCING) {
        return hv_fail(e, HV_USAGE, disk_file_path(l->file), "is not a differencing disk: it has no parent");
    }
    r = disk_open(path, &(struct disk_options){ .format = -1, .flags = DISK_SHARED }, &parent, e);
    if (r < 0) {
        return r;
    }
    for (unsigned i = 0; i < parent->count && r == 0; i++) {
        if (disk_file_same(parent->layers[i]->file, l->file)) {
            r = hv_fail(e, HV_USAGE, path, "is made from %s itself", disk_file_path(l->file));
        }
    }
    if (r == 0) {
        l->ignore_id = ignore_id;
        r = disk_check_identity(l, parent->layers[0], e);
    }
    if (r == 0 && !guid_is_zero(&parent->layers[0]->data_id)) {
        ref.id = parent->layers[0]->data_id;
    }
    disk_close(parent, NULL);
    if (r == 0) {
        r = disk_parent_paths(disk_file_path(l->file), path, &ref, e);
    }
    if (r == 0) {
        r = begin_change(d, l->format->set_parent, "set parent", e);
    }
    return r < 0 ? r : end_change(d, l->format->set_parent(l, &ref, e));
}

int disk_set_id(struct disk *d, const struct guid *id, struct hv_error *e)
{
    int r = begin_change(d, d->layers[0]->format->set_id, "set id", e);

    return r < 0 ? r : end_change(d, d->layers[0]->format->set_id(d->layers[0], id, e));
}

int disk_set_physical_sector(struct disk *d, uint32_t bytes, struct hv_error *e)
{
    int r = begin_change(d, d->layers[0]->format->set_physical_sector, "set physical sector", e);

    if (r < 0) {
        return r;
    }
    if (bytes != 512 && bytes != 4096) {
        return end_change(d, hv_fail(e, HV_USAGE, disk_file_path(d->layers[0]->file),
                                     "a physical sector is 512 or 4096 bytes"));
    }
    return end_change(d, d->layers[0]->format->set_physical_sector(d->layers[0], bytes, e));
}

/* Is all of the block at off data of the leaf, and nothing but zeros? Negative: an error. */
static int block_is_zero(struct disk *d, uint64_t off, uint64_t len, uint8_t *buf, uint64_t buf_len)
{
    while (len > 0) {
        struct disk_extent x;
        int r = disk_layer_map(d->layers[0], off, MIN(len, buf_len), &x);

        if (r < 0) {
            return r;
        }
        if (x.where != DISK_DATA) {
            return 0;
        }
        r = disk_file_read(x.file, x.file_offset, buf, x.len);
        if (r < 0) {
            return r;
        }
        if (!hv_is_zero(buf, x.len)) {
            return 0;
        }
        off += x.len;
        len -= x.len;
    }
    return 1;
}

static int drop_zero_blocks(struct disk *d, disk_progress_fn *progress, void *arg)
{
    struct disk_layer *l = d->layers[0];
    uint64_t buf_len = MIN((uint64_t)l->block_size, MIB);
    hv_autofree uint8_t *buf = hv_alloc(buf_len);

    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t off = 0; off < l->size;) {
        uint64_t n = MIN((uint64_t)l->block_size, l->size - off), done = 0;
        struct disk_extent x;
        int r = disk_layer_map(l, off, l->size - off, &x);

        if (r < 0) {
            return r;
        }
        if (x.where != DISK_DATA && x.len >= n) {
            off += MAX(n, x.len / l->block_size * l->block_size);
            continue;
        }
        r = block_is_zero(d, off, n, buf, buf_len);
        if (r > 0) {
            pthread_mutex_lock(&l->lock);
            r = l->format->unmap(l, off, n, &done);
            pthread_mutex_unlock(&l->lock);
        }
        if (r < 0) {
            return r;
        }
        off += n;
        if (progress) {
            progress(arg, off / 2, l->size);
        }
    }
    return 0;
}

int disk_compact(struct disk *d, bool scan, disk_progress_fn *progress, void *arg, struct hv_error *e)
{
    struct disk_layer *l = d->layers[0];
    int r;

    if (l->type == DISK_FIXED) {
        return hv_fail(e, HV_UNSUPPORTED, disk_file_path(l->file),
                       "is a %s%s disk: only dynamic and differencing ones can be compacted",
                       l->format == &disk_format_raw ? "" : "fixed ", l->format->name);
    }
    if (scan && l->writable) {
        r = drop_zero_blocks(d, progress, arg);
        if (r < 0) {
            return hv_fail_errno(e, -r, disk_file_path(l->file), "compact");
        }
    }
    r = begin_change(d, l->format->compact, "compact", e);
    return r < 0 ? r : end_change(d, l->format->compact(l, progress, arg, e));
}

