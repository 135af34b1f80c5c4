/* What a VHDX's log holds, written into the file or laid over it in memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/disk/vhdx.h"

/* ---- into the file ---- */

static int patch_page(struct disk_file *f, const struct vhdx_patch *x, uint8_t page[VHDX_PAGE])
{
    memcpy(page, x->leading, 8);
    memcpy(page + VHDX_PAGE - 4, x->trailing, 4);
    return disk_file_read(f, x->sector + VHDX_DATA_BYTES, page + 8, VHDX_DATA_MIDDLE);
}

int vhdx_replay_apply(struct disk_file *f, const struct vhdx_replay *rp)
{
    uint8_t page[VHDX_PAGE];
    int r = 0;

    if (disk_file_size(f) < rp->file_size) {
        r = disk_file_resize(f, rp->file_size);
    }
    for (size_t i = 0; i < rp->count && r == 0; i++) {
        const struct vhdx_patch *x = &rp->patches[i];

        if (x->sector) {
            r = patch_page(f, x, page);
            r = r < 0 ? r : disk_file_write(f, x->off, page, VHDX_PAGE);
        } else if (x->off < rp->file_size) {
            r = disk_file_zero(f, x->off, MIN(x->len, rp->file_size - x->off));
        }
    }
    return r < 0 ? r : disk_file_sync(f);
}

/* ---- over the file ---- */

struct overlay {
    struct disk_file *base;
    struct vhdx_replay rp;
};

static int overlay_read(void *arg, uint64_t off, void *buf, uint64_t len)
{
    const struct overlay *o = arg;
    const struct vhdx_patch *p = o->rp.patches;
    size_t lo = 0, hi = o->rp.count;
    uint8_t page[VHDX_PAGE], *to = buf;

    while (lo < hi) {                    /* the first patch that ends behind off */
        size_t mid = (lo + hi) / 2;

        if (p[mid].off + p[mid].len <= off) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    while (len > 0) {
        uint64_t n = len;
        int r = 0;

        if (lo == o->rp.count || p[lo].off > off) {
            if (lo < o->rp.count) {
                n = MIN(n, p[lo].off - off);
            }
            r = disk_file_read(o->base, off, to, n);
        } else {
            uint64_t in = off - p[lo].off;

            n = MIN(n, p[lo].len - in);
            if (p[lo].sector) {
                r = patch_page(o->base, &p[lo], page);
                memcpy(to, page + in, n);
            } else {
                memset(to, 0, n);
            }
            lo += in + n == p[lo].len;
        }
        if (r < 0) {
            return r;
        }
        to += n;
        off += n;
        len -= n;
    }
    return 0;
}

static int overlay_write(void *arg, uint64_t off, const void *buf, uint64_t len)
{
    return -EROFS;
}

static int overlay_zero(void *arg, uint64_t off, uint64_t len)
{
    return -EROFS;
}

static int overlay_resize(void *arg, uint64_t size)
{
    return -EROFS;
}

static int overlay_sync(void *arg)
{
    return 0;
}

static uint64_t overlay_size(void *arg)
{
    const struct overlay *o = arg;

    return o->rp.file_size;
}

static void overlay_free(void *arg)
{
    struct overlay *o = arg;

    vhdx_replay_fini(&o->rp);
    disk_file_unref(o->base);
    free(o);
}

static const struct disk_file_ops overlay_ops = {
    .read = overlay_read, .write = overlay_write, .zero = overlay_zero, .resize = overlay_resize,
    .sync = overlay_sync, .size = overlay_size, .free = overlay_free,
};

int vhdx_replay_overlay(struct disk_file *f, struct vhdx_replay *rp, struct disk_file **ret)
{
    struct overlay *o = hv_alloc(sizeof(*o));
    int r;

    if (!o) {
        return -ENOMEM;
    }
    o->base = disk_file_ref(f);
    o->rp = *rp;
    rp->patches = NULL;
    rp->count = 0;
    r = disk_file_from_ops(&overlay_ops, o, disk_file_path(f), 0, ret);
    if (r < 0) {
        overlay_free(o);
    }
    return r;
}
