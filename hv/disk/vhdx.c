/*
 * VHDX, fixed, dynamic and differencing, as a disk format: opening, closing, and the table
 * of what the other files do. MS-VHDX; layout in vhdx_proto.h, parts in vhdx.h.
 */
#include "hv/disk/vhdx.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hv/base/endian.h"

#define CACHE_BYTES (4 * MIB)    /* of clean BAT and bitmap pages: 4 TiB of 32 MiB blocks and their like */

static int vhdx_probe(struct disk_file *f)
{
    char head[8];

    return disk_file_read(f, 0, head, sizeof(head)) == 0 && memcmp(head, VHDX_SIGNATURE, sizeof(head)) == 0 ? 2 : 0;
}

static void vhdx_free(struct vhdx *v)
{
    if (!v) {
        return;
    }
    disk_meta_free(v->meta);
    vhdx_regions_fini(&v->regions);
    disk_file_unref(v->file);
    free(v->pending);
    free(v->freed.off);
    free(v->free.off);
    free(v->log.buf);
    v->magic = 0;
    free(v);
}

static void add_note(struct disk_layer *l, const char *text, const char *why)
{
    size_t n = strlen(l->note);

    snprintf(l->note + n, sizeof(l->note) - n, "%s%s: %s", n ? "; " : "", text, why);
}

static int open_headers(struct vhdx *v, struct disk_layer *l, struct hv_error *e)
{
    static const char *const names[2] = { "header 1 is bad", "header 2 is bad" };
    const char *path = disk_file_path(l->file);
    struct vhdx_headers hs;
    int r = vhdx_headers_read(l->file, &hs);

    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot read the headers");
    }
    if (hs.current < 0) {
        return hs.why[0] ? hv_fail(e, HV_USAGE, path, "both headers are bad: %s; %s", hs.why[0], hs.why[1])
                         : hv_fail(e, HV_USAGE, path, "both headers have sequence number %llu and differ",
                                   (unsigned long long)hs.slot[0].sequence);
    }
    for (int i = 0; i < 2; i++) {
        if (hs.why[i]) {
            add_note(l, names[i], hs.why[i]);
        }
    }
    v->slot = hs.current;
    v->header = hs.slot[hs.current];
    return vhdx_header_check(l->file, &v->header, e);
}

/* What an earlier run left in the log goes into the file, or before it when that is read-only. */
static int open_log(struct vhdx *v, struct disk_layer *l, struct vhdx_replay *rp, struct hv_error *e)
{
    const char *path = disk_file_path(l->file);
    int r = 0;

    v->replayed = rp->entries;
    if (rp->entries && !l->writable) {
        v->log_dirty = true;
        r = vhdx_replay_overlay(l->file, rp, &v->file);
        return r < 0 ? hv_fail_errno(e, -r, path, "cannot show the log replayed") : 0;
    }
    v->file = disk_file_ref(l->file);
    if (rp->entries) {
        r = vhdx_replay_apply(l->file, rp);
        if (r == 0) {
            v->header.log_id = (struct guid){ { 0 } };
            r = vhdx_header_write(v);
        }
    }
    return r < 0 ? hv_fail_errno(e, -r, path, "cannot replay the log") : 0;
}

/*
 * Headers and log. A reader without a lock may come between two writes of who has the disk
 * in use: what looks wrong then is right when looked at again.
 */
static int open_state(struct vhdx *v, struct disk_layer *l, struct hv_error *e)
{
    struct vhdx_replay rp = { 0 };
    int r = -EINVAL;

    for (int tries = l->writable ? 1 : 4; tries > 0 && r == -EINVAL; tries--) {
        l->note[0] = '\0';
        r = open_headers(v, l, e);
        if (r == 0) {
            r = vhdx_replay_read(l->file, &v->header, &rp, e);
        }
    }
    if (r == 0) {
        r = open_log(v, l, &rp, e);
    }
    vhdx_replay_fini(&rp);
    return r;
}

static int check_geometry(struct vhdx *v, const char *path, struct hv_error *e)
{
    vhdx_geometry(v);
    if (v->entries > v->regions.bat->len / 8) {
        return hv_fail(e, HV_USAGE, path, "bat: room for %llu entries; the disk needs %llu",
                       (unsigned long long)(v->regions.bat->len / 8), (unsigned long long)v->entries);
    }
    return 0;
}

static bool is_set(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot && strcasecmp(dot, ".vhds") == 0;
}

static int open_parts(struct vhdx *v, struct disk_layer *l, struct hv_error *e)
{
    const char *path = disk_file_path(l->file);
    int r;

    if (vhdx_probe(l->file) == 0) {
        return hv_fail(e, HV_USAGE, path, "is not a VHDX: no signature at its start");
    }
    if (is_set(path)) {
        hv_fail(e, HV_UNSUPPORTED, path, "is a VHD set");
        hv_hint(e, "its data is in the .avhdx files beside it");
        return -EOPNOTSUPP;
    }
    r = open_state(v, l, e);
    if (r == 0) {
        r = vhdx_regions_read(v->file, &v->header, &v->regions, e);
    }
    if (r < 0) {
        return r;
    }
    for (int i = 0; i < 2; i++) {
        if (v->regions.why[i]) {
            add_note(l, i ? "region table 2 is bad" : "region table 1 is bad", v->regions.why[i]);
        }
    }
    v->fix_regions = v->regions.copy == 1;
    r = vhdx_metadata_read(v->file, v->regions.metadata, &v->md, e);
    if (r == 0) {
        r = check_geometry(v, path, e);
    }
    if (r == 0 && v->differencing) {
        r = vhdx_locator_read(v->file, v->regions.metadata, &v->md, &l->parent, e);
    }
    if (r == 0) {
        r = disk_meta_new(v->file, VHDX_PAGE, CACHE_BYTES, &v->meta);
        r = r < 0 ? hv_fail_errno(e, -r, path, "cannot open") : 0;
    }
    return r;
}

/*
 * New room starts behind the file, and behind the whole room of a last block that the
 * disk, and so maybe the file, ends in.
 */
static int find_end(struct vhdx *v)
{
    uint64_t entry, room;
    int r = vhdx_bat_get(v, vhdx_payload_index(v, v->blocks - 1), &entry);

    if (r < 0) {
        return r;
    }
    v->file_size = disk_file_size(v->file);
    v->end = ROUND_UP(v->file_size, VHDX_UNIT);
    room = VHDX_BAT_OFFSET(entry);
    if (VHDX_BAT_STATE(entry) >= VHDX_FULL && room < v->end) {
        v->end = MAX(v->end, room + v->md.block_size);
    }
    return 0;
}

static int vhdx_open(struct disk_layer *l, struct hv_error *e)
{
    struct vhdx *v = hv_alloc(sizeof(*v));
    int r;

    if (!v) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    v->magic = VHDX_MAGIC;
    v->l = l;
    r = open_parts(v, l, e);
    if (r == 0) {
        r = find_end(v);
        r = r < 0 ? hv_fail_errno(e, -r, disk_file_path(l->file), "cannot read the BAT") : 0;
    }
    if (r < 0) {
        vhdx_free(v);
        return r;
    }
    v->log.sequence = 1;
    l->state = v;
    l->type = v->differencing ? DISK_DIFFERENCING : v->fixed ? DISK_FIXED : DISK_DYNAMIC;
    l->size = v->md.size;
    l->block_size = v->md.block_size;
    l->logical_sector = v->md.logical;
    l->physical_sector = v->md.physical;
    l->id = v->md.id;
    l->data_id = v->header.data_id;
    return 0;
}

static int vhdx_close(struct disk_layer *l, bool clean)
{
    struct vhdx *v = vhdx_of(l);
    int r = 0;

    if (clean && v->began_file) {
        r = disk_file_sync(v->file);
        v->header.log_id = (struct guid){ { 0 } };
        for (int i = 0; i < 2 && r == 0; i++) {
            r = vhdx_header_write(v);
        }
    }
    vhdx_free(v);
    l->state = NULL;
    return r;
}

static int vhdx_info(struct disk_layer *l, bool count, struct disk_info *ret)
{
    struct vhdx *v = vhdx_of(l);
    uint8_t creator[VHDX_ID_CREATOR_SIZE];
    int r = disk_file_read(v->file, VHDX_ID_CREATOR, creator, sizeof(creator));

    if (r < 0) {
        return r;
    }
    disk_utf16_to_utf8(creator, sizeof(creator), false, ret->creator, sizeof(ret->creator));
    ret->blocks = v->blocks;
    ret->log_dirty = v->log_dirty;
    ret->log_entries = v->replayed;
    return count ? vhdx_count_present(v, &ret->blocks_present) : 0;
}

const struct disk_format disk_format_vhdx = {
    .kind = DISK_VHDX,
    .name = "vhdx",
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .map = vhdx_map,
    .allocate = vhdx_allocate,
    .written = vhdx_written,
    .unmap = vhdx_unmap,
    .flush = vhdx_flush,
    .info = vhdx_info,
    .create = vhdx_create,
    .resize = vhdx_resize,
    .set_parent = vhdx_set_parent,
    .set_id = vhdx_set_id,
    .set_physical_sector = vhdx_set_physical_sector,
    .compact = vhdx_compact,
    .check = vhdx_check,
    .repair = vhdx_repair,
    .headers = vhdx_show_headers,
};
