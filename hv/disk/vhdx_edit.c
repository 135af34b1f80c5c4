/*
 * Changes of a VHDX as a whole: size, parent, identity. Both locks of the layer are held
 * and nothing is dirty. What belongs together goes into one log entry, so that a crash
 * leaves all of it or none:
 *
 *   grow, BAT has room    entries behind the last zeroed, commit; size, commit
 *   grow, BAT too short   BAT copied to the file's end, sync; both region tables and the
 *                         size in one entry
 *   shrink                size, commit; then the entries behind it, and their rooms
 *   parent                the new locator behind all items and the table's entry for it
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx_sweep.h"

#define DIRTY_MAX 8192u          /* pages changed before a commit in between: 32 MiB */

static int refuse_fault(void *arg, const struct vhdx_fault *x)
{
    (void)arg;
    (void)x;
    return -EUCLEAN;
}

int vhdx_survey(struct vhdx *v, struct vhdx_usage *ret, struct hv_error *e)
{
    int r = vhdx_sweep(v, refuse_fault, NULL, ret);

    if (r == -EUCLEAN) {
        hv_fail(e, HV_FAILED, disk_file_path(v->file), "its BAT is damaged: nothing was changed");
        hv_hint(e, "vhdtool check tells what is wrong");
        return r;
    }
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(v->file), "cannot read the BAT") : 0;
}

static int put_item(struct vhdx *v, enum vhdx_item i, const void *value, uint32_t len)
{
    hv_assert(len <= v->md.items[i].len);
    return disk_meta_write(v->meta, v->regions.metadata->off + v->md.items[i].off, value, len);
}

static int put_size(struct vhdx *v, uint64_t size)
{
    uint8_t value[8];

    put_le64(value, size);
    return put_item(v, VHDX_ITEM_SIZE, value, sizeof(value));
}

/* From here on the disk has that size, in memory. */
static void take_size(struct vhdx *v, uint64_t size)
{
    v->md.size = size;
    v->l->size = size;
    vhdx_geometry(v);
}

/* ---- the BAT at another place ---- */

static int copy_bat(struct vhdx *v, uint64_t to)
{
    hv_autofree uint8_t *buf = hv_alloc(2 * MIB);
    uint64_t len = v->entries * 8;

    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t off = 0; off < len; off += MIB) {
        uint64_t n = MIN(MIB, len - off);
        int r = disk_file_read(v->file, v->regions.bat->off + off, buf, n);

        if (r == 0 && memcmp(buf, buf + MIB, n) != 0) {      /* where it is zeros the new room is too */
            r = disk_file_write(v->file, to + off, buf, n);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* Both tables name the BAT's new place; pages of the log. */
static int put_regions(struct vhdx *v, uint64_t off, uint64_t len)
{
    hv_autofree uint8_t *buf = hv_alloc(VHDX_REGIONS_SIZE);
    uint8_t *p;
    int r;

    if (!buf) {
        return -ENOMEM;
    }
    if (vhdx_regions_load(v->file, 0, buf)) {
        return -EUCLEAN;
    }
    p = buf + VHDX_REGIONS_ENTRIES + (size_t)(v->regions.bat - v->regions.r) * VHDX_REGION_SIZE;
    put_le64(p + VHDX_REGION_OFFSET, off);
    put_le32(p + VHDX_REGION_LENGTH, (uint32_t)len);
    vhdx_regions_seal(buf);
    r = disk_meta_write(v->meta, VHDX_REGIONS_OFF(0), buf, VHDX_REGIONS_SIZE);
    if (r == 0) {
        r = disk_meta_write(v->meta, VHDX_REGIONS_OFF(1), buf, VHDX_REGIONS_SIZE);
    }
    return r;
}

int vhdx_move_bat(struct vhdx *v, uint64_t to, uint64_t len)
{
    struct vhdx_region *bat = &v->regions.r[v->regions.bat - v->regions.r];
    struct vhdx_region before = *bat;
    int r;

    hv_assert(disk_meta_dirty_pages(v->meta) == 0);
    r = copy_bat(v, to);
    if (r == 0) {
        r = disk_file_sync(v->file);
    }
    if (r == 0) {
        r = put_regions(v, to, len);
    }
    if (r < 0) {
        return r;
    }
    disk_meta_drop(v->meta, before.off, before.len);
    bat->off = to;
    bat->len = len;
    return 0;
}

/* ---- growing ---- */

/*
 * The last block may end inside the disk: what lies behind that in its room becomes visible.
 * It reads as zeros, unless a room of another block starts there (files of others, cut short).
 */
static int clear_tail(struct vhdx *v, const struct vhdx_usage *u, struct hv_error *e)
{
    uint64_t block = v->blocks - 1, in = v->md.size & (v->md.block_size - 1), entry, room;
    int r = vhdx_bat_get(v, vhdx_payload_index(v, block), &entry);

    if (r < 0 || in == 0 || VHDX_BAT_STATE(entry) < VHDX_FULL) {
        return r < 0 ? hv_fail_errno(e, -r, disk_file_path(v->file), "resize: cannot read the BAT") : 0;
    }
    room = VHDX_BAT_OFFSET(entry);
    for (size_t i = 0; i < u->count; i++) {
        uint64_t off = u->rooms[i].mib * VHDX_UNIT;

        if (off > room && off < room + v->md.block_size) {
            return hv_fail(e, HV_FAILED, disk_file_path(v->file), "resize: the last block's room is shared; convert the disk first");
        }
    }
    if (room + v->md.block_size > v->file_size) {
        r = disk_file_resize(v->file, room + v->md.block_size);
        v->file_size = r < 0 ? v->file_size : room + v->md.block_size;
        v->end = MAX(v->end, v->file_size);
    }
    if (r == 0) {
        r = disk_file_zero(v->file, room + in, v->md.block_size - in);
    }
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(v->file), "resize: cannot clear the end of the last block") : 0;
}

/* Entries [from, to) of the BAT are zeros; most are already. */
static int clear_entries(struct vhdx *v, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        uint64_t entry;
        int r = vhdx_bat_get(v, i, &entry);

        if (r == 0 && entry != 0) {
            r = vhdx_bat_put(v, i, 0);
        }
        if (r == 0 && disk_meta_dirty_pages(v->meta) > DIRTY_MAX) {
            r = vhdx_commit(v);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* Of a fixed disk that grew: rooms for the blocks from `from` on, in order. */
static int fill_fixed(struct vhdx *v, uint64_t from)
{
    uint64_t room, len = (v->blocks - from) * v->md.block_size;
    int r = from < v->blocks ? vhdx_room_new(v, len, &room) : 0;

    if (r < 0 || from == v->blocks) {
        return r;
    }
    r = disk_file_reserve(v->file, room, len);
    for (uint64_t block = from; block < v->blocks && r == 0; block++, room += v->md.block_size) {
        r = vhdx_bat_put(v, vhdx_payload_index(v, block), room | VHDX_FULL);
        if (r == 0 && disk_meta_dirty_pages(v->meta) > DIRTY_MAX) {
            r = vhdx_commit(v);
        }
    }
    return r < 0 ? r : vhdx_commit(v);
}

static int grow(struct vhdx *v, uint64_t size)
{
    uint64_t blocks = (size + v->md.block_size - 1) >> v->block_shift, old_blocks = v->blocks, room;
    uint64_t entries = vhdx_bat_entries(blocks, v->ratio_shift, v->differencing), len = ROUND_UP(entries * 8, VHDX_UNIT);
    uint64_t last = (v->blocks - 1) >> v->ratio_shift, slot = vhdx_bitmap_index(v, last);
    uint64_t from = vhdx_payload_index(v, v->blocks), had = v->regions.bat->len / 8;
    int r;

    /* What entries without a block held meant nothing so far. The last chunk's bitmap did. */
    r = clear_entries(v, from, MIN(MIN(slot, entries), had));
    if (r == 0) {
        r = clear_entries(v, MAX(slot + 1, from), MIN(entries, had));
    }
    if (r == 0) {
        r = vhdx_commit(v);
    }
    if (r == 0 && len > v->regions.bat->len) {
        r = len > VHDX_BAT_MAX ? -EFBIG : vhdx_room_new(v, len, &room);
        if (r == 0) {
            r = vhdx_move_bat(v, room, len);
        }
    }
    if (r == 0) {
        r = put_size(v, size);
    }
    if (r < 0) {
        return r;
    }
    take_size(v, size);
    r = vhdx_commit(v);
    return r < 0 || !v->fixed ? r : fill_fixed(v, old_blocks);
}

/* ---- shrinking ---- */

static int shrink(struct vhdx *v, uint64_t size)
{
    uint64_t old_blocks = v->blocks, old_entries = v->entries;
    int r = put_size(v, size);

    if (r < 0) {
        return r;
    }
    take_size(v, size);
    r = vhdx_commit(v);
    for (uint64_t block = v->blocks; block < old_blocks && r == 0; block++) {
        uint64_t entry;

        r = vhdx_bat_get(v, vhdx_payload_index(v, block), &entry);
        if (r == 0 && VHDX_BAT_STATE(entry) >= VHDX_FULL &&
            VHDX_BAT_OFFSET(entry) + v->md.block_size <= v->file_size) {
            vhdx_rooms_add(&v->freed, VHDX_BAT_OFFSET(entry));
        }
        if (r == 0 && entry) {
            r = vhdx_bat_put(v, vhdx_payload_index(v, block), 0);
        }
        if (r == 0 && disk_meta_dirty_pages(v->meta) > DIRTY_MAX) {
            r = vhdx_commit(v);
        }
    }
    /* Bitmaps of chunks that are gone; their rooms are a compact's to find. */
    if (r == 0) {
        r = clear_entries(v, v->entries, old_entries);
    }
    return r < 0 ? r : vhdx_commit(v);
}

int vhdx_resize(struct disk_layer *l, uint64_t size, struct hv_error *e)
{
    struct vhdx *v = vhdx_of(l);
    struct vhdx_usage u;
    int r = vhdx_survey(v, &u, e);

    if (r < 0) {
        return r;
    }
    r = vhdx_begin(v, true);
    if (r == 0 && size > v->md.size) {
        r = clear_tail(v, &u, e);
        if (r < 0) {
            vhdx_usage_fini(&u);
            return r;
        }
    }
    vhdx_usage_fini(&u);
    if (r == 0) {
        r = size > v->md.size ? grow(v, size) : shrink(v, size);
    }
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(v->file), "resize") : 0;
}

/* ---- parent and identity ---- */

/* Where a locator of len bytes goes: in its old place when nothing is behind it or it fits. */
static int place_locator(const struct vhdx *v, uint32_t len, uint32_t *ret)
{
    uint32_t off = v->md.items[VHDX_ITEM_LOCATOR].off, old = v->md.items[VHDX_ITEM_LOCATOR].len;
    uint64_t behind = ROUND_UP((uint64_t)v->md.used_end, 8);

    if (len <= old || (off + old == v->md.used_end && off + (uint64_t)len <= v->regions.metadata->len)) {
        *ret = off;
        return 0;
    }
    if (behind + len > v->regions.metadata->len) {
        return -ENOSPC;
    }
    *ret = (uint32_t)behind;
    return 0;
}

int vhdx_set_parent(struct disk_layer *l, const struct disk_parent_ref *ref, struct hv_error *e)
{
    struct vhdx *v = vhdx_of(l);
    hv_autofree uint8_t *buf = hv_alloc(VHDX_LOCATOR_BUF);
    uint64_t table = v->regions.metadata->off;
    uint32_t off = 0, index = v->md.items[VHDX_ITEM_LOCATOR].index;
    uint8_t place[8];
    int len = buf ? vhdx_locator_build(ref, buf, VHDX_LOCATOR_BUF) : -ENOMEM, r = len;

    if (r >= 0) {
        r = place_locator(v, (uint32_t)len, &off);
    }
    if (r == 0) {
        r = vhdx_begin(v, false);
    }
    if (r == 0) {
        r = disk_meta_write(v->meta, table + off, buf, (uint64_t)len);
    }
    if (r == 0) {
        put_le32(place, off);
        put_le32(place + 4, (uint32_t)len);
        r = disk_meta_write(v->meta, table + VHDX_META_ENTRIES + (uint64_t)index * VHDX_META_ENTRY + VHDX_META_OFFSET, place,
                            sizeof(place));
    }
    if (r == 0) {
        v->md.items[VHDX_ITEM_LOCATOR].off = off;
        v->md.items[VHDX_ITEM_LOCATOR].len = (uint32_t)len;
        v->md.used_end = MAX(v->md.used_end, off + (uint32_t)len);
        l->parent = *ref;
        r = vhdx_commit(v);
    }
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(v->file), "cannot write the parent locator") : 0;
}

int vhdx_set_id(struct disk_layer *l, const struct guid *id, struct hv_error *e)
{
    struct vhdx *v = vhdx_of(l);
    int r = vhdx_begin(v, false);

    if (r == 0) {
        r = put_item(v, VHDX_ITEM_ID, id, sizeof(*id));
    }
    if (r == 0) {
        v->md.id = l->id = *id;
        r = vhdx_commit(v);
    }
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(v->file), "cannot write the disk id") : 0;
}

int vhdx_set_physical_sector(struct disk_layer *l, uint32_t bytes, struct hv_error *e)
{
    struct vhdx *v = vhdx_of(l);
    uint8_t value[4];
    int r = vhdx_begin(v, false);

    put_le32(value, bytes);
    if (r == 0) {
        r = put_item(v, VHDX_ITEM_PHYSICAL, value, sizeof(value));
    }
    if (r == 0) {
        v->md.physical = l->physical_sector = bytes;
        r = vhdx_commit(v);
    }
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(v->file), "cannot write the physical sector size") : 0;
}
