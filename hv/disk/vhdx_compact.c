/*
 * A VHDX made shorter: the last rooms move into gaps, the file is cut behind the last one
 * that stays, gaps that stay go back to the host. Both locks are held.
 *
 * Order: the log is emptied, so that no entry in it writes into a gap. Then, so many at a
 * time: copy rooms into gaps, which nothing names, sync, their BAT entries through the log.
 * No room that was moved away from is used again here. At last the log is emptied again,
 * the gaps are punched and the file is cut. A crash leaves each block at one place or the
 * other, whole; DataWriteGuid stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/disk/vhdx_sweep.h"

#define COPY_BYTES  ((uint64_t)1 << 20)
#define BATCH_BYTES (256 * MIB)

struct span { uint64_t off, end; };

struct compact {
    struct vhdx *v;
    struct vhdx_usage u;
    struct span *gaps;           /* by place */
    size_t gap_count;
    size_t first_block, first_bitmap;   /* the first gap that may take a block, a bitmap */
    uint8_t *buf;
};

static int by_off(const void *a, const void *b)
{
    const struct span *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

/* What is between header area, log, regions and rooms. */
static int find_gaps(struct compact *c)
{
    const struct vhdx *v = c->v;
    size_t n = 0, most = c->u.count + v->regions.count + 2;
    hv_autofree struct span *used = hv_alloc_array(most, sizeof(*used));
    uint64_t end = 0;

    free(c->gaps);
    c->gaps = hv_alloc_array(most, sizeof(*c->gaps));
    c->gap_count = c->first_block = c->first_bitmap = 0;
    if (!used || !c->gaps) {
        return -ENOMEM;
    }
    used[n++] = (struct span){ 0, VHDX_AREA_END };
    used[n++] = (struct span){ v->header.log_off, v->header.log_off + v->header.log_len };
    for (unsigned i = 0; i < v->regions.count; i++) {
        used[n++] = (struct span){ v->regions.r[i].off, v->regions.r[i].off + v->regions.r[i].len };
    }
    for (size_t i = 0; i < c->u.count; i++) {
        const struct vhdx_room *x = &c->u.rooms[i];
        uint64_t off = x->mib * VHDX_UNIT;

        used[n++] = (struct span){ off, off + (x->what & VHDX_ROOM_BITMAP ? VHDX_BITMAP_SIZE : v->md.block_size) };
    }
    qsort(used, n, sizeof(*used), by_off);
    for (size_t i = 0; i < n; i++) {
        if (used[i].off > end) {
            c->gaps[c->gap_count++] = (struct span){ end, used[i].off };
        }
        end = MAX(end, used[i].end);
    }
    c->u.end = end;
    return 0;
}

/* len bytes of the lowest gap that has them, wholly below `below`; 0: none. */
static uint64_t take_gap(struct compact *c, size_t *first, uint64_t len, uint64_t below)
{
    while (*first < c->gap_count) {
        struct span *g = &c->gaps[*first];

        if (g->off + len > below) {
            return 0;
        }
        if (g->end - g->off >= len) {
            g->off += len;
            return g->off - len;
        }
        ++*first;
    }
    return 0;
}

static int copy_room(struct compact *c, uint64_t from, uint64_t to, uint64_t len)
{
    struct vhdx *v = c->v;
    uint64_t have = from < v->file_size ? MIN(len, v->file_size - from) : 0;
    int r = disk_file_zero(v->file, to, len);

    for (uint64_t done = 0; done < have && r == 0; done += COPY_BYTES) {
        uint64_t n = MIN(COPY_BYTES, have - done);

        r = disk_file_read(v->file, from + done, c->buf, n);
        if (r == 0 && (c->buf[0] || memcmp(c->buf, c->buf + 1, n - 1) != 0)) {
            r = disk_file_write(v->file, to + done, c->buf, n);
        }
    }
    return r;
}

/* Move one room down if there is a gap for it. *ret_len: bytes moved. */
static int move_room(struct compact *c, struct vhdx_room *x, uint64_t *ret_len)
{
    struct vhdx *v = c->v;
    bool bitmap = x->what & VHDX_ROOM_BITMAP;
    uint64_t n = x->what & ~VHDX_ROOM_BITMAP, from = x->mib * VHDX_UNIT, entry, to;
    uint64_t len = bitmap ? VHDX_BITMAP_SIZE : v->md.block_size;
    uint64_t index = bitmap ? vhdx_bitmap_index(v, n) : vhdx_payload_index(v, n);
    int r;

    *ret_len = 0;
    to = take_gap(c, bitmap ? &c->first_bitmap : &c->first_block, len, from);
    if (to == 0) {
        return 0;
    }
    r = copy_room(c, from, to, len);
    if (r == 0) {
        r = vhdx_bat_get(v, index, &entry);
    }
    if (r == 0) {
        r = vhdx_bat_put(v, index, to | VHDX_BAT_STATE(entry));
    }
    if (r < 0) {
        return r;
    }
    disk_meta_drop(v->meta, to, len);
    if (bitmap) {
        disk_meta_drop(v->meta, from, len);
    }
    x->mib = (uint32_t)(to / VHDX_UNIT);
    *ret_len = len;
    return 0;
}

static int move_rooms(struct compact *c, disk_progress_fn *progress, void *arg)
{
    uint64_t batch = 0, len;
    int r = 0;

    for (size_t i = c->u.count; i-- > 0 && r == 0;) {
        r = move_room(c, &c->u.rooms[i], &len);
        batch += len;
        if (r == 0 && batch >= BATCH_BYTES) {
            r = vhdx_commit(c->v);
            batch = 0;
        }
        if (progress && (len || i == 0)) {
            progress(arg, c->u.count - i, c->u.count);
        }
    }
    return r < 0 ? r : vhdx_commit(c->v);
}

/* A BAT that grew lies behind what was there then: back into the first gap that takes it. */
static int move_table(struct compact *c)
{
    struct vhdx *v = c->v;
    int r = find_gaps(c);

    for (size_t i = 0; i < c->gap_count && r == 0; i++) {
        if (c->gaps[i].off > v->regions.bat->off) {
            break;
        }
        if (c->gaps[i].end - c->gaps[i].off >= v->regions.bat->len) {
            r = disk_file_zero(v->file, c->gaps[i].off, v->regions.bat->len);
            if (r == 0) {
                disk_meta_drop(v->meta, c->gaps[i].off, v->regions.bat->len);
                r = vhdx_move_bat(v, c->gaps[i].off, v->regions.bat->len);
            }
            return r < 0 ? r : vhdx_commit(v);
        }
    }
    return r;
}

static int cut(struct compact *c)
{
    struct vhdx *v = c->v;
    int r = vhdx_settle_log(v);

    if (r == 0) {
        r = find_gaps(c);
    }
    for (size_t i = 0; i < c->gap_count && r == 0; i++) {
        r = disk_file_zero(v->file, c->gaps[i].off, c->gaps[i].end - c->gaps[i].off);
    }
    if (r == 0 && c->u.end < v->file_size) {
        r = disk_file_resize(v->file, c->u.end);
        if (r == 0) {
            v->file_size = v->end = c->u.end;
        }
    }
    return r < 0 ? r : disk_file_sync(v->file);
}

int vhdx_compact(struct disk_layer *l, disk_progress_fn *progress, void *arg, struct hv_error *e)
{
    struct compact c = { .v = vhdx_of(l) };
    struct vhdx *v = c.v;
    int r = vhdx_survey(v, &c.u, e);

    if (r < 0) {
        return r;
    }
    c.buf = hv_alloc(COPY_BYTES);
    r = c.buf ? vhdx_begin(v, false) : -ENOMEM;
    if (r == 0) {
        r = vhdx_settle_log(v);
    }
    if (r == 0) {
        v->free.count = v->pending_count = 0;    /* all of them gaps now */
        r = find_gaps(&c);
    }
    if (r == 0) {
        r = move_rooms(&c, progress, arg);
    }
    if (r == 0) {
        r = move_table(&c);
    }
    if (r == 0) {
        r = cut(&c);
    }
    vhdx_usage_fini(&c.u);
    free(c.gaps);
    free(c.buf);
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(l->file), "compact") : 0;
}
