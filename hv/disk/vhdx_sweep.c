/*
 * One look at the whole BAT of a VHDX: what is wrong with single entries, which rooms are in
 * use, which overlap. Reads the table straight from the file, a MiB at a time; memory is
 * eight bytes for each room in use.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx_sweep.h"

#define PIECE ((uint64_t)1 << 20)

struct sweep {
    struct vhdx *v;
    vhdx_fault_fn *fn;
    void *arg;
    struct vhdx_usage *u;
    size_t cap;
    uint64_t partial_first, partial_count;   /* of the chunk being read */
};

uint64_t vhdx_room_bytes(const struct vhdx *v, const struct vhdx_room *x)
{
    uint64_t block = x->what, bytes;

    if (block & VHDX_ROOM_BITMAP) {
        return VHDX_BITMAP_SIZE;
    }
    bytes = MIN((uint64_t)v->md.block_size, v->md.size - (block << v->block_shift));
    return ROUND_UP(bytes, VHDX_UNIT);
}

static int add_room(struct sweep *s, uint64_t off, uint32_t what)
{
    struct vhdx_usage *u = s->u;

    if (u->count == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 256;
        struct vhdx_room *grown = hv_realloc_array(u->rooms, cap, sizeof(*grown));

        if (!grown) {
            return -ENOMEM;
        }
        u->rooms = grown;
        s->cap = cap;
    }
    u->rooms[u->count++] = (struct vhdx_room){ .mib = (uint32_t)(off / VHDX_UNIT), .what = what };
    return 0;
}

static int tell(struct sweep *s, struct vhdx_fault x)
{
    return s->fn ? s->fn(s->arg, &x) : 0;
}

/* The room an entry names: in use, or somewhere it must not be. */
static int take_room(struct sweep *s, struct vhdx_fault x)
{
    uint64_t off = VHDX_BAT_OFFSET(x.entry), len = VHDX_BITMAP_SIZE;

    if (!(x.what & VHDX_ROOM_BITMAP)) {
        len = MIN((uint64_t)s->v->md.block_size, s->v->md.size - ((uint64_t)x.what << s->v->block_shift));
    }
    x.where = vhdx_room_bad(s->v, off, len);
    if (x.where) {
        x.kind = VHDX_FAULT_PLACE;
        return tell(s, x);
    }
    return add_room(s, off, x.what);
}

static int look_at_block(struct sweep *s, struct vhdx_fault x)
{
    unsigned state = VHDX_BAT_STATE(x.entry);

    if (state == 4 || state == 5) {
        x.kind = VHDX_FAULT_STATE;
        return tell(s, x);
    }
    if (state <= VHDX_UNMAPPED) {
        s->u->absent++;
        return 0;
    }
    if (state == VHDX_PARTIAL && !s->v->differencing) {
        int r;

        x.kind = VHDX_FAULT_PARTIAL;
        r = tell(s, x);
        if (r < 0) {
            return r;
        }
    } else if (state == VHDX_PARTIAL && s->partial_count++ == 0) {
        s->partial_first = x.what;
    }
    return take_room(s, x);
}

static int look_at_bitmap(struct sweep *s, struct vhdx_fault x)
{
    unsigned state = VHDX_BAT_STATE(x.entry);
    uint64_t partial = s->partial_count;
    int r = 0;

    s->partial_count = 0;
    if (!s->v->differencing ? x.entry != 0 : state != VHDX_BITMAP_NOT_PRESENT && state != VHDX_BITMAP_PRESENT) {
        x.kind = VHDX_FAULT_SLOT;
        r = tell(s, x);
    } else if (state == VHDX_BITMAP_PRESENT) {
        return take_room(s, x);
    }
    if (r == 0 && partial) {
        x.kind = VHDX_FAULT_NO_BITMAP;
        x.what = (uint32_t)s->partial_first;
        x.index = vhdx_payload_index(s->v, x.what);
        r = tell(s, x);
    }
    return r;
}

static int look_at_entry(struct sweep *s, uint64_t index, uint64_t entry)
{
    const struct vhdx *v = s->v;
    uint64_t per_chunk = ((uint64_t)1 << v->ratio_shift) + 1, chunk = index / per_chunk, in = index % per_chunk;
    bool bitmap = in == per_chunk - 1;
    uint64_t block = (chunk << v->ratio_shift) + in;
    struct vhdx_fault x = { .index = index, .entry = entry,
                            .what = bitmap ? (uint32_t)chunk | VHDX_ROOM_BITMAP : (uint32_t)block };
    int r = 0;

    if (!bitmap && block >= v->blocks) {
        return 0;                            /* up to the last bitmap's slot: of no block */
    }
    if (VHDX_BAT_RESERVED(entry) && (bitmap ? v->differencing : true)) {
        x.kind = VHDX_FAULT_RESERVED;
        r = tell(s, x);
    }
    return r < 0 ? r : bitmap ? look_at_bitmap(s, x) : look_at_block(s, x);
}

static int by_place(const void *a, const void *b)
{
    const struct vhdx_room *x = a, *y = b;

    return x->mib != y->mib ? (x->mib < y->mib ? -1 : 1) : x->what < y->what ? -1 : x->what > y->what;
}

/* In order of place: a room that starts before the furthest end so far overlaps who reaches there. */
static int find_overlaps(struct sweep *s)
{
    const struct vhdx_room *furthest = NULL;
    uint64_t end = 0;

    for (size_t i = 0; i < s->u->count; i++) {
        const struct vhdx_room *x = &s->u->rooms[i];
        uint64_t off = x->mib * VHDX_UNIT, len = vhdx_room_bytes(s->v, x);

        if (furthest && off < end) {
            bool bitmap = x->what & VHDX_ROOM_BITMAP;
            uint64_t n = x->what & ~VHDX_ROOM_BITMAP;
            int r = tell(s, (struct vhdx_fault){
                                .kind = VHDX_FAULT_OVERLAP, .what = x->what, .other = furthest->what, .entry = off,
                                .index = bitmap ? vhdx_bitmap_index(s->v, n) : vhdx_payload_index(s->v, n) });

            if (r < 0) {
                return r;
            }
        }
        s->u->used += off + len > end ? off + len - MAX(off, end) : 0;
        if (off + len > end) {
            end = off + len;
            furthest = x;
        }
    }
    s->u->end = end;
    return 0;
}

int vhdx_sweep(struct vhdx *v, vhdx_fault_fn *fn, void *arg, struct vhdx_usage *ret)
{
    struct sweep s = { .v = v, .fn = fn, .arg = arg, .u = ret };
    hv_autofree uint8_t *buf = hv_alloc(PIECE);
    int r = 0;

    *ret = (struct vhdx_usage){ 0 };
    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t off = 0; off < v->entries * 8 && r == 0; off += PIECE) {
        uint64_t len = MIN(PIECE, v->entries * 8 - off);

        if (s.partial_count == 0 && disk_file_skip_hole(v->file, v->regions.bat->off + off) >= v->regions.bat->off + off + len) {
            continue;
        }
        r = disk_file_read(v->file, v->regions.bat->off + off, buf, len);
        for (uint64_t i = 0; i < len && r == 0; i += 8) {
            uint64_t entry = get_le64(buf + i);

            /* An empty table is most of what there is to read; a chunk's last slot also settles its blocks. */
            if (entry == 0 && s.partial_count == 0) {
                continue;
            }
            r = look_at_entry(&s, (off + i) / 8, entry);
        }
    }
    if (r == 0) {
        if (ret->count) {
            qsort(ret->rooms, ret->count, sizeof(*ret->rooms), by_place);
        }
        r = find_overlaps(&s);
    }
    if (r < 0) {
        vhdx_usage_fini(ret);
    }
    return r;
}

void vhdx_usage_fini(struct vhdx_usage *u)
{
    free(u->rooms);
    *u = (struct vhdx_usage){ 0 };
}
