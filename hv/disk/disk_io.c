/*
 * Reading and writing a chain: the first layer that holds a range answers for it, the leaf
 * takes all writes. What is smaller than a logical sector is read, changed and written.
 */
#include <errno.h>
#include <string.h>

#include "hv/disk/disk_impl.h"

int disk_layer_map(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    int r;

    pthread_mutex_lock(&l->lock);
    r = l->format->map(l, off, len, ret);
    pthread_mutex_unlock(&l->lock);
    hv_assert(r < 0 || (ret->len > 0 && ret->len <= len));
    return r;
}

/* ---- bytes on their way ---- */

/*
 * Between prepare and done the bytes of a range are moved without a lock. Were its block unmapped
 * meanwhile, its room could be given to another block and the bytes land there. So a range that is
 * busy is not unmapped: it is zeroed in place, or (discard) left alone.
 */
static int busy_add(struct disk_layer *l, uint64_t off, uint64_t len)
{
    struct disk_busy *b = &l->busy;

    if (b->count == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 64;
        struct disk_span *grown = hv_realloc_array(b->span, cap, sizeof(*grown));

        if (!grown) {
            return -ENOMEM;
        }
        b->span = grown;
        b->cap = cap;
    }
    b->span[b->count++] = (struct disk_span){ off, len };
    return 0;
}

static void busy_remove(struct disk_layer *l, uint64_t off, uint64_t len)
{
    struct disk_busy *b = &l->busy;

    for (size_t i = b->count; i-- > 0;) {
        if (b->span[i].off == off && b->span[i].len == len) {
            b->span[i] = b->span[--b->count];
            return;
        }
    }
    hv_assert(!"done without prepare");
}

/* ---- reading ---- */

static int map_layers(struct disk *d, uint64_t off, uint64_t len, bool hold, struct disk_extent *ret)
{
    HV_CHECK(d, DISK_MAGIC);
    if (len == 0 || off >= disk_size(d) || len > disk_size(d) - off) {
        return -ERANGE;
    }
    for (unsigned i = 0; i < d->count; i++) {
        struct disk_layer *l = d->layers[i];
        int r;

        if (off >= l->size) {
            break;                       /* a parent smaller than its child: zeros from here on */
        }
        len = MIN(len, l->size - off);
        pthread_mutex_lock(&l->lock);
        r = l->format->map(l, off, len, ret);
        if (r == 0 && hold && l->writable && ret->where == DISK_DATA) {
            r = busy_add(l, off, ret->len);
        }
        pthread_mutex_unlock(&l->lock);
        if (r < 0) {
            return r;
        }
        hv_assert(ret->len > 0 && ret->len <= len);
        ret->layer = i;
        if (ret->where != DISK_ABSENT) {
            return 0;
        }
        len = ret->len;
    }
    if (d->flags & DISK_NO_PARENT && d->layers[0]->type == DISK_DIFFERENCING) {
        return -ENOLINK;
    }
    *ret = (struct disk_extent){ .len = len, .where = DISK_ABSENT };
    return 0;
}

int disk_map(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    return map_layers(d, off, len, false, ret);
}

int disk_read_prepare(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    return map_layers(d, off, len, true, ret);
}

void disk_read_done(struct disk *d, uint64_t off, const struct disk_extent *x)
{
    struct disk_layer *l = d->layers[x->layer];

    if (x->where == DISK_DATA && l->writable) {
        pthread_mutex_lock(&l->lock);
        busy_remove(l, off, x->len);
        pthread_mutex_unlock(&l->lock);
    }
}

int disk_read(struct disk *d, uint64_t off, void *buf, uint64_t len)
{
    char *to = buf;

    while (len > 0) {
        struct disk_extent x;
        int r = disk_read_prepare(d, off, len, &x);

        if (r < 0) {
            return r;
        }
        if (x.where == DISK_DATA) {
            r = disk_file_read(x.file, x.file_offset, to, x.len);
            disk_read_done(d, off, &x);
            if (r < 0) {
                return r;
            }
        } else {
            memset(to, 0, x.len);
        }
        to += x.len;
        off += x.len;
        len -= x.len;
    }
    return 0;
}

/* ---- writing ---- */

int disk_write_prepare(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    struct disk_layer *l = d->layers[0];
    int r;

    HV_CHECK(d, DISK_MAGIC);
    if (!l->writable) {
        return -EROFS;
    }
    if (len == 0 || off >= l->size || len > l->size - off) {
        return -ERANGE;
    }
    if (off % l->logical_sector || len % l->logical_sector) {
        return -EAGAIN;
    }
    pthread_mutex_lock(&l->lock);
    r = l->format->allocate(l, off, len, ret);
    if (r == 0) {
        r = busy_add(l, off, ret->len);  /* room that was made stays, and shows what it showed */
    }
    pthread_mutex_unlock(&l->lock);
    hv_assert(r < 0 || (ret->len > 0 && ret->len <= len && ret->where == DISK_DATA));
    return r;
}

int disk_write_done(struct disk *d, uint64_t off, uint64_t len, bool ok)
{
    struct disk_layer *l = d->layers[0];
    int r = 0;

    pthread_mutex_lock(&l->lock);
    busy_remove(l, off, len);
    if (ok) {                            /* else the room stays, and shows what it showed */
        r = l->format->written(l, off, len);
    }
    pthread_mutex_unlock(&l->lock);
    return r;
}

static int write_sectors(struct disk *d, uint64_t off, const char *from, uint64_t len)
{
    while (len > 0) {
        struct disk_extent x;
        int r = disk_write_prepare(d, off, len, &x);

        if (r < 0) {
            return r;
        }
        r = disk_file_write(x.file, x.file_offset, from, x.len);
        if (r < 0) {
            disk_write_done(d, off, x.len, false);
            return r;
        }
        r = disk_write_done(d, off, x.len, true);
        if (r < 0) {
            return r;
        }
        from += x.len;
        off += x.len;
        len -= x.len;
    }
    return 0;
}

/* [off, off+len) within one sector: read it, change it, write it. */
static int write_partial(struct disk *d, uint64_t off, const char *from, uint64_t len)
{
    uint32_t sector = disk_logical_sector(d);
    uint64_t start = ROUND_DOWN(off, sector);
    char buf[4096];
    int r;

    pthread_mutex_lock(&d->partial_lock);
    r = disk_read(d, start, buf, sector);
    if (r == 0) {
        memcpy(buf + (off - start), from, len);
        r = write_sectors(d, start, buf, sector);
    }
    pthread_mutex_unlock(&d->partial_lock);
    return r;
}

int disk_write(struct disk *d, uint64_t off, const void *buf, uint64_t len)
{
    uint32_t sector = disk_logical_sector(d);
    const char *from = buf;

    HV_CHECK(d, DISK_MAGIC);
    if (off > disk_size(d) || len > disk_size(d) - off) {
        return -ERANGE;
    }
    while (len > 0) {
        uint64_t in = off % sector, n;
        int r;

        if (in || len < sector) {
            n = MIN(len, sector - in);
            r = write_partial(d, off, from, n);
        } else {
            n = ROUND_DOWN(len, sector);
            r = write_sectors(d, off, from, n);
        }
        if (r < 0) {
            return r;
        }
        from += n;
        off += n;
        len -= n;
    }
    return 0;
}

/* A prefix of [off, off+len) on all of which bytes are on their way, or on none. Lock held. */
static uint64_t busy_prefix(const struct disk_layer *l, uint64_t off, uint64_t len, bool *ret_busy)
{
    *ret_busy = false;
    for (size_t i = 0; i < l->busy.count; i++) {
        const struct disk_span *s = &l->busy.span[i];

        if (s->off <= off && off < s->off + s->len) {
            *ret_busy = true;
            return MIN(len, s->off + s->len - off);
        }
        if (s->off > off && s->off < off + len) {
            len = s->off - off;
        }
    }
    return len;
}

/* A prefix of whole sectors reads as zeros: unmapped, punched, or left where it does already. */
static int zero_prefix(struct disk *d, uint64_t off, uint64_t len, bool discard, uint64_t *ret_len)
{
    struct disk_layer *l = d->layers[0];
    struct disk_extent x;
    bool busy;
    int r = 0;

    *ret_len = 0;
    pthread_mutex_lock(&l->lock);
    len = busy_prefix(l, off, len, &busy);
    if (!busy) {
        r = l->format->unmap(l, off, len, ret_len);
    }
    pthread_mutex_unlock(&l->lock);
    if (r < 0 || *ret_len > 0) {
        return r;
    }
    r = disk_map(d, off, len, &x);
    if (r < 0) {
        return r;
    }
    *ret_len = x.len;
    if (x.where != DISK_DATA || (discard && (x.layer > 0 || busy))) {
        return 0;                        /* zeros already; the parent's, which may stay; or in use */
    }
    if (l->block_size) {                 /* what follows may be whole blocks, to be unmapped */
        x.len = MIN(x.len, l->block_size - off % l->block_size);
    }
    r = disk_write_prepare(d, off, x.len, &x);
    if (r < 0) {
        return r;
    }
    *ret_len = x.len;
    r = l->type == DISK_FIXED ? disk_file_zero_keep(x.file, x.file_offset, x.len)
                              : disk_file_zero(x.file, x.file_offset, x.len);
    if (r < 0) {
        disk_write_done(d, off, x.len, false);
        return r;
    }
    return disk_write_done(d, off, x.len, true);
}

int disk_zero(struct disk *d, uint64_t off, uint64_t len)
{
    static const char zeros[4096];
    uint32_t sector = disk_logical_sector(d);

    HV_CHECK(d, DISK_MAGIC);
    if (!disk_writable(d)) {
        return -EROFS;
    }
    if (off > disk_size(d) || len > disk_size(d) - off) {
        return -ERANGE;
    }
    while (len > 0) {
        uint64_t in = off % sector, n;
        int r;

        if (in || len < sector) {
            n = MIN(len, sector - in);
            r = write_partial(d, off, zeros, n);
        } else {
            r = zero_prefix(d, off, ROUND_DOWN(len, sector), false, &n);
        }
        if (r < 0) {
            return r;
        }
        off += n;
        len -= n;
    }
    return 0;
}

int disk_discard(struct disk *d, uint64_t off, uint64_t len)
{
    uint32_t sector = disk_logical_sector(d);
    uint64_t end;

    HV_CHECK(d, DISK_MAGIC);
    if (!disk_writable(d)) {
        return -EROFS;
    }
    if (off > disk_size(d) || len > disk_size(d) - off) {
        return -ERANGE;
    }
    if (d->layers[0]->type == DISK_FIXED && d->layers[0]->format != &disk_format_raw) {
        return 0;                        /* a fixed disk keeps its room */
    }
    end = ROUND_DOWN(off + len, sector);
    for (off = ROUND_UP(off, sector); off < end;) {
        uint64_t n;
        int r = zero_prefix(d, off, end - off, true, &n);

        if (r < 0) {
            return r;
        }
        off += n;
    }
    return 0;
}

int disk_flush(struct disk *d)
{
    struct disk_layer *l = d->layers[0];
    int r;

    HV_CHECK(d, DISK_MAGIC);
    if (!l->writable) {
        return 0;
    }
    pthread_mutex_lock(&l->flush_lock);
    r = l->format->flush(l);
    pthread_mutex_unlock(&l->flush_lock);
    return r;
}

