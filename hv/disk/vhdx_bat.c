/*
 * The block allocation table of a VHDX: where a range of the disk is, room for writes.
 * MS-VHDX 2.4, 2.5.
 *
 * Life of a block's entry (rooms are multiples of 1 MiB in the file):
 *
 *   0 1 2 3 --allocate--> pending (room in memory, entry unchanged)
 *   pending --written, all of it; or no parent to ask--> 6
 *   pending --written, a part, entry was 0, differencing--> 7, bits of the part set
 *   7 --written--> 7, more bits; 6 when all are set
 *   6 7 --unmap of all--> 2, the room is free once that is durable
 *
 * So no entry or bit names bytes that have not arrived, and no flush can make one durable
 * before its data. The entry is read with each use: a BAT of 512 MiB is never in memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx_sweep.h"

#define MERGE_MAX 65536u     /* entries looked at by one map(): bounds how long the lock is held */

uint64_t vhdx_bat_entries(uint64_t blocks, unsigned ratio_shift, bool differencing)
{
    uint64_t chunks = (blocks + ((uint64_t)1 << ratio_shift) - 1) >> ratio_shift;

    return differencing ? chunks * (((uint64_t)1 << ratio_shift) + 1) : blocks + ((blocks - 1) >> ratio_shift);
}

void vhdx_geometry(struct vhdx *v)
{
    v->block_shift = (unsigned)__builtin_ctz(v->md.block_size);
    v->sector_shift = (unsigned)__builtin_ctz(v->md.logical);
    v->ratio_shift = 23 + v->sector_shift - v->block_shift;
    v->differencing = v->md.has_parent;
    v->fixed = v->md.leave_allocated && !v->md.has_parent;
    v->blocks = (v->md.size + v->md.block_size - 1) >> v->block_shift;
    v->entries = vhdx_bat_entries(v->blocks, v->ratio_shift, v->differencing);
}

int vhdx_bat_get(struct vhdx *v, uint64_t index, uint64_t *ret)
{
    uint32_t avail;
    int r = 0;
    const uint8_t *p = disk_meta_peek(v->meta, v->regions.bat->off + index * 8, &avail, &r);

    if (!p) {
        return r < 0 ? r : -EIO;
    }
    *ret = get_le64(p);
    return 0;
}

int vhdx_bat_put(struct vhdx *v, uint64_t index, uint64_t entry)
{
    uint8_t p[8];

    put_le64(p, entry);
    return disk_meta_write(v->meta, v->regions.bat->off + index * 8, p, sizeof(p));
}

static bool touches(uint64_t off, uint64_t len, uint64_t other, uint64_t other_len)
{
    return off < other + other_len && other < off + len;
}

const char *vhdx_room_bad(const struct vhdx *v, uint64_t off, uint64_t len)
{
    if (off > v->file_size || len > v->file_size - off) {
        return "the end of the file";
    }
    if (off < VHDX_AREA_END) {
        return "the header area";
    }
    if (touches(off, len, v->header.log_off, v->header.log_len)) {
        return "the log";
    }
    for (unsigned i = 0; i < v->regions.count; i++) {
        const struct vhdx_region *x = &v->regions.r[i];

        if (touches(off, len, x->off, x->len)) {
            return x == v->regions.bat ? "the BAT" : x == v->regions.metadata ? "the metadata" : "a region";
        }
    }
    return NULL;
}

/* Bytes of a block that the disk shows: the last one may be cut, in the file as well. */
static uint64_t block_bytes(const struct vhdx *v, uint64_t block)
{
    return MIN((uint64_t)v->md.block_size, v->md.size - (block << v->block_shift));
}

/* State and room of a block; -EUCLEAN for what no writer may have left there. */
static int block_get(struct vhdx *v, uint64_t block, unsigned *state, uint64_t *room)
{
    uint64_t entry;
    int r = vhdx_bat_get(v, vhdx_payload_index(v, block), &entry);

    if (r < 0) {
        return r;
    }
    *state = VHDX_BAT_STATE(entry);
    *room = VHDX_BAT_OFFSET(entry);
    if (*state == VHDX_PARTIAL && !v->differencing) {
        *state = VHDX_FULL;
    }
    if (*state <= VHDX_UNMAPPED) {
        return 0;
    }
    if (*state < VHDX_FULL) {
        return -EUCLEAN;
    }
    if (!v->l->writable && *room >= v->end) {
        v->file_size = v->end = disk_file_size(v->file);     /* in use: its writer may have grown it */
    }
    return vhdx_room_bad(v, *room, block_bytes(v, block)) ? -EUCLEAN : 0;
}

/* Writing over an entry with bits that mean something to others would lose it. */
static int block_put(struct vhdx *v, uint64_t block, uint64_t entry)
{
    uint64_t index = vhdx_payload_index(v, block), old;
    int r = vhdx_bat_get(v, index, &old);

    if (r < 0) {
        return r;
    }
    return VHDX_BAT_RESERVED(old) ? -EUCLEAN : vhdx_bat_put(v, index, entry);
}

/* ---- rooms ---- */

int vhdx_rooms_add(struct vhdx_rooms *rooms, uint64_t off)
{
    if (rooms->count == rooms->cap) {
        size_t cap = rooms->cap ? rooms->cap * 2 : 16;
        uint64_t *grown = hv_realloc_array(rooms->off, cap, sizeof(*grown));

        if (!grown) {
            return -ENOMEM;
        }
        rooms->off = grown;
        rooms->cap = cap;
    }
    rooms->off[rooms->count++] = off;
    return 0;
}

int vhdx_room_new(struct vhdx *v, uint64_t len, uint64_t *ret)
{
    uint64_t end = v->end + len;

    if (len == v->md.block_size && v->free.count) {
        *ret = v->free.off[--v->free.count];
        return 0;
    }
    if (end > VHDX_FILE_MAX) {
        return -EFBIG;
    }
    if (end > v->file_size) {
        int r = disk_file_resize(v->file, end);

        if (r < 0) {
            return r;
        }
        v->file_size = end;
    }
    *ret = v->end;
    v->end = end;
    return 0;
}

/* ---- room of blocks that no entry names yet ---- */

static size_t pending_find(const struct vhdx *v, uint64_t block)
{
    size_t lo = 0, hi = v->pending_count;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (v->pending[mid].block < block) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static bool pending_is(const struct vhdx *v, size_t i, uint64_t block)
{
    return i < v->pending_count && v->pending[i].block == block;
}

static int pending_add(struct vhdx *v, size_t at, uint64_t block)
{
    uint64_t room;
    int r;

    if (v->pending_count == v->pending_cap) {
        size_t cap = v->pending_cap ? v->pending_cap * 2 : 16;
        struct vhdx_pending *grown = hv_realloc_array(v->pending, cap, sizeof(*grown));

        if (!grown) {
            return -ENOMEM;
        }
        v->pending = grown;
        v->pending_cap = cap;
    }
    r = vhdx_room_new(v, v->md.block_size, &room);
    if (r < 0) {
        return r;
    }
    memmove(&v->pending[at + 1], &v->pending[at], (v->pending_count - at) * sizeof(*v->pending));
    v->pending[at] = (struct vhdx_pending){ block, room };
    v->pending_count++;
    return 0;
}

static void pending_remove(struct vhdx *v, size_t at)
{
    v->pending_count--;
    memmove(&v->pending[at], &v->pending[at + 1], (v->pending_count - at) * sizeof(*v->pending));
}

/* ---- reading ---- */

/* The state and room of the blocks behind one, read from the page of its entry as far as that goes. */
static uint64_t merge(struct vhdx *v, uint64_t block, unsigned state, uint64_t room, uint64_t have, uint64_t len)
{
    for (unsigned n = 0; have < len && n < MERGE_MAX; n++) {
        uint64_t next_room;
        unsigned next;

        if (block_get(v, ++block, &next, &next_room) < 0) {
            break;
        }
        if (state == VHDX_FULL) {
            room += v->md.block_size;
            if (next != VHDX_FULL || next_room != room) {
                break;
            }
        } else if (next >= VHDX_FULL || (next == VHDX_NOT_PRESENT) != (state == VHDX_NOT_PRESENT)) {
            break;
        }
        have += v->md.block_size;
    }
    return MIN(have, len);
}

int vhdx_map(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    struct vhdx *v = vhdx_of(l);
    uint64_t block = off >> v->block_shift, in = off & (v->md.block_size - 1), room, bits, run;
    uint64_t have = MIN(len, v->md.block_size - in);
    unsigned state;
    bool here;
    int r = block_get(v, block, &state, &room);

    if (r < 0) {
        return r;
    }
    *ret = (struct disk_extent){ .where = state == VHDX_NOT_PRESENT ? DISK_ABSENT : DISK_ZERO };
    if (state != VHDX_PARTIAL) {
        if (state == VHDX_FULL) {
            ret->where = DISK_DATA;
            ret->file = v->file;
            ret->file_offset = room + in;
        }
        ret->len = merge(v, block, state, room, have, len);
        return 0;
    }
    r = vhdx_bits_of(v, block, &bits);
    if (r == 0) {
        r = vhdx_bits_run(v, bits, in >> v->sector_shift,
                     (in + have + v->md.logical - 1) / v->md.logical - (in >> v->sector_shift), &here, &run);
    }
    if (r < 0) {
        return r == -ENOENT ? -EUCLEAN : r;
    }
    ret->len = MIN(have, (((in >> v->sector_shift) + run) << v->sector_shift) - in);
    ret->where = here ? DISK_DATA : DISK_ABSENT;
    if (here) {
        ret->file = v->file;
        ret->file_offset = room + in;
    }
    return 0;
}

int vhdx_count_present(struct vhdx *v, uint64_t *ret)
{
    uint64_t per_chunk = ((uint64_t)1 << v->ratio_shift) + 1, last = vhdx_payload_index(v, v->blocks - 1), present = 0;
    hv_autofree uint8_t *buf = hv_alloc(MIB);

    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t index = 0; index <= last;) {
        uint64_t n = MIN(MIB / 8, last + 1 - index), off = v->regions.bat->off + index * 8;
        /* Past the cache and over holes where nothing in it is newer: 64 TiB empty in no time. */
        uint64_t skip = v->l->writable ? 0 : (disk_file_skip_hole(v->file, off) - off) / 8;
        int r;

        if (skip >= n) {
            index += MIN(skip, last + 1 - index);
            continue;
        }
        r = v->l->writable ? disk_meta_read(v->meta, off, buf, n * 8) : disk_file_read(v->file, off, buf, n * 8);
        if (r < 0) {
            return r;
        }
        for (uint64_t i = 0; i < n; i++, index++) {
            present += VHDX_BAT_STATE(buf[i * 8]) >= VHDX_FULL && index % per_chunk != per_chunk - 1;
        }
    }
    *ret = present;
    return 0;
}

/* ---- writing ---- */

int vhdx_allocate(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    struct vhdx *v = vhdx_of(l);
    uint64_t block = off >> v->block_shift, in = off & (v->md.block_size - 1), room;
    uint64_t have = MIN(len, v->md.block_size - in);
    unsigned state;
    size_t at;
    int r = vhdx_begin(v, true);

    if (r == 0) {
        r = block_get(v, block, &state, &room);
    }
    if (r < 0) {
        return r;
    }
    if (state == VHDX_FULL) {
        have = merge(v, block, state, room, have, len);
    } else if (state != VHDX_PARTIAL) {
        at = pending_find(v, block);
        r = pending_is(v, at, block) ? 0 : pending_add(v, at, block);
        if (r < 0) {
            return r;
        }
        room = v->pending[at].room;
    }
    *ret = (struct disk_extent){ .len = have, .where = DISK_DATA, .file = v->file, .file_offset = room + in };
    return 0;
}

/* Of a block that is partly here: these sectors too. Raised to fully present when they were the last. */
static int add_sectors(struct vhdx *v, uint64_t block, uint64_t room, uint64_t bits, uint64_t in, uint64_t len)
{
    uint64_t sectors = block_bytes(v, block) >> v->sector_shift, run;
    bool bit;
    int r = vhdx_bits_fill(v, bits, in >> v->sector_shift, len >> v->sector_shift, true);

    /* The end first: a block filled from its start is not scanned again with every write. */
    if (r == 0) {
        r = vhdx_bits_run(v, bits, sectors - 1, 1, &bit, &run);
    }
    if (r < 0 || !bit) {
        return r;
    }
    r = vhdx_bits_run(v, bits, 0, sectors, &bit, &run);
    return r < 0 || !bit || run < sectors ? r : block_put(v, block, room | VHDX_FULL);
}

/* [in, in+len) of a block that got its room with allocate(). */
static int take_into_use(struct vhdx *v, uint64_t block, size_t at, unsigned state, uint64_t in, uint64_t len)
{
    uint64_t room = v->pending[at].room, bits;
    int r;

    if (!v->differencing || state != VHDX_NOT_PRESENT || (in == 0 && len == block_bytes(v, block))) {
        r = block_put(v, block, room | VHDX_FULL);
    } else {
        r = vhdx_bits_make(v, block, &bits);
        if (r == 0) {                    /* whatever an earlier life of the block left there */
            r = vhdx_bits_fill(v, bits, 0, v->md.block_size >> v->sector_shift, false);
        }
        if (r == 0) {
            r = block_put(v, block, room | VHDX_PARTIAL);
        }
        if (r == 0) {
            r = add_sectors(v, block, room, bits, in, len);
        }
    }
    if (r == 0) {
        pending_remove(v, at);
    }
    return r;
}

int vhdx_written(struct disk_layer *l, uint64_t off, uint64_t len)
{
    struct vhdx *v = vhdx_of(l);

    while (len > 0) {
        uint64_t block = off >> v->block_shift, in = off & (v->md.block_size - 1), room, bits;
        uint64_t n = MIN(len, v->md.block_size - in);
        unsigned state;
        size_t at;
        int r = block_get(v, block, &state, &room);

        if (r < 0) {
            return r;
        }
        if (state == VHDX_PARTIAL) {
            r = vhdx_bits_of(v, block, &bits);
            r = r < 0 ? r : add_sectors(v, block, room, bits, in, n);
        } else if (state != VHDX_FULL) {
            at = pending_find(v, block);
            /* No room of its own: the block was unmapped while it was being written. */
            r = pending_is(v, at, block) ? take_into_use(v, block, at, state, in, n) : 0;
        }
        if (r < 0) {
            return r == -ENOENT ? -EUCLEAN : r;
        }
        off += n;
        len -= n;
    }
    return 0;
}

/* Entries a survey reads within some milliseconds; larger tables are taken at their word. */
#define SURVEY_ENTRIES ((uint64_t)4 << 20)

static int stop_at_fault(void *arg, const struct vhdx_fault *x)
{
    (void)arg;
    (void)x;
    return -EUCLEAN;
}

/*
 * May the room of a block that is given up be punched and used again? Not in an image whose
 * BAT is damaged: another block may lie there too. Looked at once, before the first room.
 * The file's table will do where memory has newer pages: what changed since came from the end.
 */
static bool rooms_reusable(struct vhdx *v)
{
    struct vhdx_usage u;

    if (!v->surveyed) {
        v->surveyed = true;
        v->keep_rooms = v->entries <= SURVEY_ENTRIES && vhdx_sweep(v, stop_at_fault, NULL, &u) < 0;
        if (!v->keep_rooms && v->entries <= SURVEY_ENTRIES) {
            vhdx_usage_fini(&u);
        }
    }
    return !v->keep_rooms;
}

int vhdx_unmap(struct disk_layer *l, uint64_t off, uint64_t len, uint64_t *ret_len)
{
    struct vhdx *v = vhdx_of(l);
    uint64_t block = off >> v->block_shift, in = off & (v->md.block_size - 1), room;
    uint64_t whole = block_bytes(v, block);
    unsigned state;
    int r = block_get(v, block, &state, &room);

    *ret_len = 0;
    if (r < 0) {
        return r;
    }
    if (state == VHDX_ZERO || state == VHDX_UNDEFINED || state == VHDX_UNMAPPED ||
        (state == VHDX_NOT_PRESENT && !v->differencing)) {
        *ret_len = merge(v, block, state, room, MIN(len, v->md.block_size - in), len);
        return 0;
    }
    if (in != 0 || len < whole || v->fixed) {
        return 0;
    }
    r = vhdx_begin(v, true);
    if (r == 0) {
        r = block_put(v, block, VHDX_ZERO);
    }
    if (r < 0) {
        return r;
    }
    if (state >= VHDX_FULL && room + v->md.block_size <= v->file_size && rooms_reusable(v)) {
        vhdx_rooms_add(&v->freed, room);       /* without memory the room is lost until a compact */
    }
    *ret_len = whole;
    return 0;
}
