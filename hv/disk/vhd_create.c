/*
 * VHD: making new ones, and what rewrites headers: resize, another parent, another id.
 *
 * The dynamic header has one copy only. What changes more than its first sector is written as a
 * new header behind everything else, and the footers, each one sector, are pointed at it; a BAT
 * that must grow moves in the same way. So a torn write never meets the only good copy.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "hv/base/endian.h"
#include "hv/disk/vhd.h"

#define DEFAULT_BLOCK (2 * MIB)
#define MIN_SIZE      (DISK_SECTOR)
#define ZERO_ID(g)    guid_is_zero(&(g))

/* ---- parents ---- */

void vhd_read_parent(struct disk_file *f, const uint8_t *h, struct disk_parent_ref *ret)
{
    *ret = (struct disk_parent_ref){ 0 };
    memcpy(ret->id.b, h + VHD_H_PARENT_ID, 16);
    disk_utf16_to_utf8(h + VHD_H_PARENT_NAME, VHD_H_PARENT_NAME_SIZE, true, ret->name, sizeof(ret->name));
    for (int i = 0; i < VHD_LOCATORS; i++) {
        const uint8_t *l = h + VHD_H_LOCATORS + i * VHD_LOCATOR_SIZE;
        uint32_t code = get_be32(l + VHD_L_CODE), len = get_be32(l + VHD_L_LENGTH);
        uint64_t off = get_be64(l + VHD_L_OFFSET);
        uint8_t text[2048];

        if (len == 0 || len > sizeof(text) || off > (uint64_t)INT64_MAX - len ||
            disk_file_read(f, off, text, len) < 0) {
            continue;
        }
        if (code == VHD_W2RU) {
            disk_utf16_to_utf8(text, len, false, ret->relative, sizeof(ret->relative));
        } else if (code == VHD_W2KU && ret->absolute[0] != '/') {
            disk_utf16_to_utf8(text, len, false, ret->absolute, sizeof(ret->absolute));
        } else if (code == VHD_MACX) {   /* before a path of Windows', which is none here */
            char path[sizeof(ret->absolute)];

            if (disk_url_path(text, len, path, sizeof(path))) {
                hv_strlcpy(ret->absolute, path, sizeof(ret->absolute));
            }
        }
    }
}

int vhd_write_parent(uint8_t *h, const struct disk_parent_ref *ref, uint64_t data_offset,
                     uint8_t **ret_data, uint64_t *ret_len)
{
    const struct { uint32_t code; const char *text; } wanted[] = {
        { VHD_W2RU, ref->relative }, { VHD_W2KU, ref->absolute },
    };
    const uint64_t space = 2048;         /* each; 1023 bytes of UTF-8 are at most 2046 of UTF-16 */
    uint8_t *data = hv_alloc_array(ARRAY_SIZE(wanted), space);
    unsigned n = 0;
    int r;

    if (!data) {
        return -ENOMEM;
    }
    memcpy(h + VHD_H_PARENT_ID, ref->id.b, 16);
    memset(h + VHD_H_PARENT_NAME, 0, VHD_H_PARENT_NAME_SIZE);
    memset(h + VHD_H_LOCATORS, 0, VHD_LOCATORS * VHD_LOCATOR_SIZE);
    r = disk_utf8_to_utf16(ref->name, true, h + VHD_H_PARENT_NAME, VHD_H_PARENT_NAME_SIZE - 2);
    for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(wanted); i++) {
        uint8_t *l = h + VHD_H_LOCATORS + n * VHD_LOCATOR_SIZE;

        if (!wanted[i].text[0]) {
            continue;
        }
        r = disk_utf8_to_utf16(wanted[i].text, false, data + n * space, space);
        if (r >= 0) {
            put_be32(l + VHD_L_CODE, wanted[i].code);
            put_be32(l + VHD_L_SPACE, (uint32_t)space);     /* bytes, as Windows writes it */
            put_be32(l + VHD_L_LENGTH, (uint32_t)r);
            put_be64(l + VHD_L_OFFSET, data_offset + n * space);
            n++;
        }
    }
    if (r < 0) {
        free(data);
        return r;
    }
    *ret_data = data;
    *ret_len = ARRAY_SIZE(wanted) * space;
    return 0;
}

/* ---- create ---- */

static int fail(struct disk_file *f, struct hv_error *e, int r, const char *what)
{
    return hv_fail_errno(e, -r, disk_file_path(f), "%s", what);
}

static int check_create(const char *path, const struct disk_create *c, uint64_t block, struct hv_error *e)
{
    if (c->size < MIN_SIZE || c->size % DISK_SECTOR) {
        return hv_fail(e, HV_USAGE, path, "the size must be a multiple of 512 bytes, and not 0");
    }
    if (c->logical_sector && c->logical_sector != DISK_SECTOR) {
        int r = hv_fail(e, HV_UNSUPPORTED, path, "a VHD has logical sectors of 512 bytes only");

        hv_hint(e, "make it a .vhdx");
        return r;
    }
    if (c->type == DISK_FIXED) {
        return c->size > DISK_MAX_SIZE ? hv_fail(e, HV_USAGE, path, "the size is larger than 64T") : 0;
    }
    if (c->size > VHD_MAX_DYNAMIC) {
        int r = hv_fail(e, HV_USAGE, path, "a dynamic VHD holds at most 2040G");

        hv_hint(e, "make it a .vhdx");
        return r;
    }
    if (block < 512 * KIB || block > VHD_MAX_BLOCK || block & (block - 1)) {
        return hv_fail(e, HV_USAGE, path, "the block size must be a power of two from 512K to 256M");
    }
    return 0;
}

static void make_footer(uint8_t *f, const struct disk_create *c, const struct guid *id)
{
    static const uint32_t types[DISK_TYPE_COUNT] = {
        [DISK_FIXED] = VHD_TYPE_FIXED, [DISK_DYNAMIC] = VHD_TYPE_DYNAMIC,
        [DISK_DIFFERENCING] = VHD_TYPE_DIFFERENCING,
    };
    uint64_t now = c->time_s ? c->time_s : hv_wall_ns() / NS_PER_SEC;

    memset(f, 0, VHD_FOOTER_SIZE);
    memcpy(f + VHD_F_COOKIE, VHD_FOOTER_COOKIE, 8);
    put_be32(f + VHD_F_FEATURES, 2);
    put_be32(f + VHD_F_VERSION, VHD_VERSION);
    put_be64(f + VHD_F_DATA_OFFSET, c->type == DISK_FIXED ? UINT64_MAX : VHD_FOOTER_SIZE);
    put_be32(f + VHD_F_TIME, now > VHD_EPOCH ? (uint32_t)(now - VHD_EPOCH) : 0);
    memcpy(f + VHD_F_CREATOR, "win ", 4);            /* readers then trust the size field */
    put_be32(f + VHD_F_CREATOR_VERSION, 0x000a0000);
    memcpy(f + VHD_F_CREATOR_OS, "Wi2k", 4);
    put_be64(f + VHD_F_ORIGINAL_SIZE, c->size);
    vhd_set_size(f, c->size);
    put_be32(f + VHD_F_TYPE, types[c->type]);
    memcpy(f + VHD_F_ID, id->b, 16);
    vhd_seal_footer(f);
}

static int create_fixed(struct disk_file *f, const struct disk_create *c, const uint8_t *footer)
{
    int r = disk_file_resize(f, c->size + VHD_FOOTER_SIZE);

    if (r == 0 && !c->azure) {           /* uploads skip holes: an Azure disk stays sparse */
        r = disk_file_reserve(f, 0, c->size + VHD_FOOTER_SIZE);
    }
    return r < 0 ? r : disk_file_write(f, c->size, footer, VHD_FOOTER_SIZE);
}

/* Parent's file time in VHD's seconds: readers may warn when it differs. */
static uint32_t parent_time(struct disk *parent)
{
    int fd = disk_file_fd(disk_layer_file(disk_layer(parent, 0)));
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && st.st_mtime > (time_t)VHD_EPOCH
               ? (uint32_t)(st.st_mtime - VHD_EPOCH) : 0;
}

static int create_dynamic(struct disk_file *f, const struct disk_create *c, uint64_t block,
                          struct disk *parent, const uint8_t *footer, struct hv_error *e)
{
    uint64_t entries = (c->size + block - 1) / block, at = VHD_FOOTER_SIZE + VHD_HEADER_SIZE;
    uint64_t bat = ROUND_UP(entries * 4, DISK_SECTOR), locators_len = 0;
    uint8_t header[VHD_HEADER_SIZE] = { 0 };
    hv_autofree uint8_t *locators = NULL, *ones = hv_alloc(64 * KIB);
    int r = 0;

    if (!ones) {
        return -ENOMEM;
    }
    memset(ones, 0xff, 64 * KIB);
    memcpy(header + VHD_H_COOKIE, VHD_HEADER_COOKIE, 8);
    put_be64(header + VHD_H_NEXT, UINT64_MAX);
    put_be64(header + VHD_H_TABLE_OFFSET, at);
    put_be32(header + VHD_H_VERSION, VHD_VERSION);
    put_be32(header + VHD_H_ENTRIES, (uint32_t)entries);
    put_be32(header + VHD_H_BLOCK_SIZE, (uint32_t)block);
    if (parent) {
        struct disk_info info;
        struct disk_parent_ref ref = { 0 };

        r = disk_layer_info(disk_layer(parent, 0), false, &info);
        ref.id = info.data_id;
        r = r < 0 ? r : disk_parent_paths(disk_file_path(f), c->parent ? c->parent
                        : disk_file_path(disk_layer_file(disk_layer(parent, 0))), &ref, e);
        put_be32(header + VHD_H_PARENT_TIME, parent_time(parent));
        r = r < 0 ? r : vhd_write_parent(header, &ref, at + bat, &locators, &locators_len);
    }
    vhd_seal_header(header);
    for (uint64_t done = 0; r == 0 && done < bat; done += 64 * KIB) {
        r = disk_file_write(f, at + done, ones, MIN(bat - done, 64 * KIB));
    }
    r = r < 0 || !locators_len ? r : disk_file_write(f, at + bat, locators, locators_len);
    r = r < 0 ? r : disk_file_write(f, VHD_FOOTER_SIZE, header, sizeof(header));
    r = r < 0 ? r : disk_file_sync(f);
    /* The footers make it a VHD: last. */
    r = r < 0 ? r : disk_file_write(f, at + bat + locators_len, footer, VHD_FOOTER_SIZE);
    return r < 0 ? r : disk_file_write(f, 0, footer, VHD_FOOTER_SIZE);
}

int vhd_create(struct disk_file *f, const struct disk_create *c, struct disk *parent, struct hv_error *e)
{
    const char *path = disk_file_path(f);
    uint64_t block = c->block_size ? c->block_size : DEFAULT_BLOCK;
    struct disk_create full = *c;
    uint8_t footer[VHD_FOOTER_SIZE];
    struct guid id = c->id;
    int r;

    if (c->azure) {
        if (c->type != DISK_FIXED) {
            return hv_fail(e, HV_USAGE, path, "Azure takes fixed disks only");
        }
        full.size = ROUND_UP(MAX(c->size, 20 * MIB), MIB);
    }
    r = check_create(path, &full, block, e);
    if (r < 0) {
        return r;
    }
    if (parent && disk_layer(parent, 0)->format != &disk_format_vhd) {
        r = hv_fail(e, HV_USAGE, path, "the parent of a VHD has to be a VHD");
        hv_hint(e, "name the child .vhdx, or convert the parent");
        return r;
    }
    if (ZERO_ID(id) && guid_new(&id) < 0) {
        return hv_fail(e, HV_FAILED, path, "no random numbers for its id");
    }
    make_footer(footer, &full, &id);
    r = full.type == DISK_FIXED ? create_fixed(f, &full, footer)
                                : create_dynamic(f, &full, block, parent, footer, e);
    if (r == 0) {
        r = disk_file_sync(f);
    }
    return r < 0 && !(e && hv_error_is_set(e)) ? fail(f, e, r, "cannot create") : r;
}

/* ---- changes of headers ---- */

/* Both footers, the front one first, each durable before the next is touched. */
static int write_footers(struct disk_layer *l, struct vhd *v)
{
    int r = 0;

    vhd_seal_footer(v->footer);
    if (v->type != VHD_TYPE_FIXED) {
        r = disk_file_write(l->file, 0, v->footer, VHD_FOOTER_SIZE);
        r = r < 0 ? r : disk_file_sync(l->file);
    }
    r = r < 0 ? r : disk_file_write(l->file, v->end, v->footer, VHD_FOOTER_SIZE);
    return r < 0 ? r : disk_file_sync(l->file);
}

/* Room of len bytes behind everything else, the footer behind it, durable. */
static int append(struct disk_layer *l, struct vhd *v, const void *data, uint64_t len, uint64_t *ret_at)
{
    uint64_t at = vhd_room_start(v);
    uint64_t end = ROUND_UP(at + len, DISK_SECTOR);
    int r = disk_file_resize(l->file, end + VHD_FOOTER_SIZE);

    r = r < 0 ? r : disk_file_write(l->file, end, v->footer, VHD_FOOTER_SIZE);
    r = r < 0 ? r : disk_file_sync(l->file);
    r = r < 0 ? r : disk_file_write(l->file, at, data, len);
    r = r < 0 ? r : disk_file_sync(l->file);
    if (r == 0) {
        v->end = end;
        *ret_at = at;
    }
    return r;
}

static int grow_fixed(struct disk_layer *l, struct vhd *v, uint64_t size)
{
    uint64_t old = v->end;
    uint8_t before[VHD_FOOTER_SIZE];
    int r;

    memcpy(before, v->footer, sizeof(before));
    vhd_set_size(v->footer, size);
    v->end = size;
    /* The new footer itself makes the file longer: never is there an end without one. */
    r = disk_file_reserve(l->file, old, size + VHD_FOOTER_SIZE - old);
    r = r < 0 ? r : write_footers(l, v);
    if (r < 0) {
        memcpy(v->footer, before, sizeof(before));
        v->end = old;
        disk_file_resize(l->file, old + VHD_FOOTER_SIZE);
        return r;
    }
    r = disk_file_zero(l->file, old, VHD_FOOTER_SIZE);    /* the old footer is data now */
    return r < 0 ? r : disk_file_sync(l->file);
}

/* A longer BAT behind everything else; the header's first sector, written whole, points at it. */
static int move_bat(struct disk_layer *l, struct vhd *v, uint32_t entries)
{
    uint64_t len = ROUND_UP((uint64_t)entries * 4, DISK_SECTOR), at;
    hv_autofree uint8_t *bat = hv_alloc(len);
    uint8_t header[VHD_HEADER_SIZE];
    int r;

    if (!bat) {
        return -ENOMEM;
    }
    memset(bat, 0xff, len);
    r = disk_meta_read(v->meta, v->bat_offset, bat, (uint64_t)v->entries * 4);
    r = r < 0 ? r : append(l, v, bat, len, &at);
    if (r < 0) {
        return r;
    }
    memcpy(header, v->header, sizeof(header));
    put_be64(header + VHD_H_TABLE_OFFSET, at);
    put_be32(header + VHD_H_ENTRIES, entries);
    vhd_seal_header(header);
    r = disk_file_write(l->file, v->header_offset, header, DISK_SECTOR);
    r = r < 0 ? r : disk_file_sync(l->file);
    if (r == 0) {
        memcpy(v->header, header, sizeof(header));
        disk_meta_drop(v->meta, at, len);
        v->bat_offset = at;
        v->bat_entries = entries;
    }
    return r;
}

/* Are the BAT's entries up to `entries` there, and unused? What the header says of its room may be wrong. */
static bool bat_has_room(struct vhd *v, uint32_t entries)
{
    for (uint64_t i = v->entries; i < entries; i++) {
        uint8_t b[4];

        if (entries > v->bat_entries || v->bat_offset + i * 4 + 4 > v->end ||
            disk_meta_read(v->meta, v->bat_offset + i * 4, b, sizeof(b)) < 0 || get_be32(b) != VHD_UNUSED) {
            return false;
        }
    }
    return true;
}

/* Some writers end the file where the disk does. */
static bool last_block_cut(struct vhd *v)
{
    uint8_t b[4] = { 0xff, 0xff, 0xff, 0xff };

    (void)disk_meta_read(v->meta, v->bat_offset + (uint64_t)(v->entries - 1) * 4, b, sizeof(b));
    return get_be32(b) != VHD_UNUSED && (uint64_t)get_be32(b) * DISK_SECTOR + v->bitmap_size + v->block_size > v->end;
}

/* What lies in the last block behind the disk's end, an old footer maybe, is about to be seen: zeros. Durable. */
static int clear_tail(struct disk_layer *l, struct vhd *v)
{
    uint64_t in = l->size % v->block_size;
    uint8_t entry[4];
    int r = disk_meta_read(v->meta, v->bat_offset + (uint64_t)(v->entries - 1) * 4, entry, sizeof(entry));

    if (r < 0 || in == 0 || get_be32(entry) == VHD_UNUSED) {
        return r;
    }
    r = disk_file_zero(l->file, (uint64_t)get_be32(entry) * DISK_SECTOR + v->bitmap_size + in, v->block_size - in);
    return r < 0 ? r : disk_file_sync(l->file);
}

int vhd_resize(struct disk_layer *l, uint64_t size, struct hv_error *e)
{
    struct vhd *v = l->state;
    const char *path = disk_file_path(l->file);
    uint64_t entries;
    int r = 0;

    if (v->footer[VHD_F_SAVED_STATE] == 1) {
        return hv_fail(e, HV_CONFLICT, path, "belongs to a VM with saved state");
    }
    if (size < l->size) {
        r = hv_fail(e, HV_UNSUPPORTED, path, "a VHD cannot be made smaller");
        hv_hint(e, "convert it to VHDX, which can");
        return r;
    }
    if (v->type == VHD_TYPE_FIXED) {
        r = grow_fixed(l, v, size);
        l->size = r < 0 ? l->size : size;
        return r < 0 ? fail(l->file, e, r, "cannot resize") : 0;
    }
    if (size > VHD_MAX_DYNAMIC) {
        return hv_fail(e, HV_USAGE, path, "a dynamic VHD holds at most 2040G");
    }
    /* The last block becomes one like the others: all of it has to be in the file. */
    if (last_block_cut(v)) {
        r = hv_fail(e, HV_UNSUPPORTED, path, "its last block is not whole");
        hv_hint(e, "vhdtool convert %s NEW.vhd", path);
        return r;
    }
    entries = (size + v->block_size - 1) / v->block_size;
    r = clear_tail(l, v);
    if (r == 0 && !bat_has_room(v, (uint32_t)entries)) {
        r = move_bat(l, v, (uint32_t)entries);
    }
    if (r == 0) {
        vhd_set_size(v->footer, size);
        r = write_footers(l, v);
    }
    if (r < 0) {
        vhd_set_size(v->footer, l->size);
        vhd_seal_footer(v->footer);
        return fail(l->file, e, r, "cannot resize");
    }
    v->entries = (uint32_t)entries;
    l->size = size;
    return 0;
}

int vhd_set_parent(struct disk_layer *l, const struct disk_parent_ref *ref, struct hv_error *e)
{
    struct vhd *v = l->state;
    uint64_t locators_len, at;
    hv_autofree uint8_t *locators = NULL, *whole = NULL;
    uint8_t header[VHD_HEADER_SIZE];
    int r;

    memcpy(header, v->header, sizeof(header));
    r = vhd_write_parent(header, ref, v->end + VHD_HEADER_SIZE, &locators, &locators_len);
    if (r < 0) {
        return fail(l->file, e, r, "cannot name the parent");
    }
    vhd_seal_header(header);
    whole = hv_alloc(VHD_HEADER_SIZE + locators_len);
    if (!whole) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    memcpy(whole, header, VHD_HEADER_SIZE);
    memcpy(whole + VHD_HEADER_SIZE, locators, locators_len);
    r = append(l, v, whole, VHD_HEADER_SIZE + locators_len, &at);
    if (r == 0) {
        uint64_t before = v->header_offset;

        put_be64(v->footer + VHD_F_DATA_OFFSET, at);
        r = write_footers(l, v);
        if (r < 0) {
            put_be64(v->footer + VHD_F_DATA_OFFSET, before);
            vhd_seal_footer(v->footer);
        }
    }
    if (r < 0) {
        return fail(l->file, e, r, "cannot name the parent");
    }
    v->header_offset = at;
    memcpy(v->header, header, sizeof(header));
    vhd_read_parent(l->file, header, &l->parent);
    return 0;
}

int vhd_set_id(struct disk_layer *l, const struct guid *id, struct hv_error *e)
{
    struct vhd *v = l->state;
    uint8_t before[VHD_FOOTER_SIZE];
    int r;

    memcpy(before, v->footer, sizeof(before));
    memcpy(v->footer + VHD_F_ID, id->b, 16);
    r = write_footers(l, v);
    if (r < 0) {
        memcpy(v->footer, before, sizeof(before));
        return fail(l->file, e, r, "cannot set the id");
    }
    l->id = l->data_id = *id;
    return 0;
}

/* ---- compact ---- */

struct placed { uint64_t at; uint32_t block; };

static int by_place(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* Allocated blocks in the order of the file. */
static int list_blocks(struct vhd *v, struct placed **ret, size_t *ret_count)
{
    struct placed *list = NULL;
    size_t n = 0, room = 0;

    for (uint32_t i = 0; i < v->entries; i++) {
        uint8_t b[4];
        int r = disk_meta_read(v->meta, v->bat_offset + (uint64_t)i * 4, b, sizeof(b));

        if (r == 0 && get_be32(b) != VHD_UNUSED && n == room) {
            struct placed *grown = hv_realloc_array(list, room ? room * 2 : 64, sizeof(*grown));

            room = room ? room * 2 : 64;
            list = grown ? grown : list;
            r = grown ? 0 : -ENOMEM;
        }
        if (r < 0) {
            free(list);
            return r;
        }
        if (get_be32(b) != VHD_UNUSED) {
            list[n++] = (struct placed){ (uint64_t)get_be32(b) * DISK_SECTOR, i };
        }
    }
    if (n > 0) {
        qsort(list, n, sizeof(*list), by_place);
    }
    *ret = list;
    *ret_count = n;
    return 0;
}

static int copy_range(struct disk_file *f, uint64_t from, uint64_t to, uint64_t len)
{
    uint64_t chunk = MIN(len, MIB);
    hv_autofree uint8_t *buf = hv_alloc(chunk);
    int r = buf ? 0 : -ENOMEM;

    for (uint64_t done = 0; done < len && r == 0; done += chunk) {
        uint64_t n = MIN(chunk, len - done);

        r = disk_file_read(f, from + done, buf, n);
        r = r < 0 ? r : disk_file_write(f, to + done, buf, n);
    }
    return r;
}

/* The first place at or after `at` where a block may start: its data on a multiple of 4096. */
static uint64_t aligned_place(const struct vhd *v, uint64_t at)
{
    return ROUND_UP(at + v->bitmap_size, 4096) - v->bitmap_size;
}

/*
 * The last blocks move into gaps before them: copies, durable; BAT entries, durable. A gap is
 * room that no durable entry names, so a crash finds each block in its old or its new place.
 */
static int fill_gaps(struct disk_layer *l, struct vhd *v, struct placed *list, size_t n, uint64_t first,
                     disk_progress_fn *progress, void *arg)
{
    uint64_t len = (uint64_t)v->bitmap_size + v->block_size, at = aligned_place(v, first);
    size_t i = 0, last = n;              /* [i, last) were not looked at yet */
    int r = 0;

    while (i < last && r == 0) {
        uint8_t entry[4];

        if (list[i].at < at + len) {
            at = aligned_place(v, MAX(at, list[i].at + len));
            i++;
            continue;
        }
        last--;
        r = copy_range(l->file, list[last].at, at, len);
        disk_meta_drop(v->meta, at, v->bitmap_size);
        put_be32(entry, (uint32_t)(at / DISK_SECTOR));
        r = r < 0 ? r : disk_meta_write(v->meta, v->bat_offset + (uint64_t)list[last].block * 4, entry, 4);
        list[last].at = at;
        at = aligned_place(v, at + len);
        if (progress) {
            progress(arg, l->size / 2 + l->size / 2 / n * (n - last), l->size);
        }
    }
    return r < 0 ? r : vhd_flush(l, true);
}

int vhd_compact(struct disk_layer *l, disk_progress_fn *progress, void *arg, struct hv_error *e)
{
    struct vhd *v = l->state;
    uint64_t len = (uint64_t)v->bitmap_size + v->block_size, first, end;
    struct placed *list = NULL;
    size_t n = 0;
    int r;

    if (v->footer[VHD_F_SAVED_STATE] == 1) {
        return hv_fail(e, HV_CONFLICT, disk_file_path(l->file), "belongs to a VM with saved state");
    }
    /* Blocks never go before the structures, wherever these lie. */
    first = MAX(v->bat_offset + ROUND_UP((uint64_t)v->bat_entries * 4, DISK_SECTOR),
                v->header_offset + VHD_HEADER_SIZE);
    for (int i = 0; i < VHD_LOCATORS; i++) {
        const uint8_t *p = v->header + VHD_H_LOCATORS + i * VHD_LOCATOR_SIZE;
        uint64_t space = MAX(get_be32(p + VHD_L_SPACE), get_be32(p + VHD_L_LENGTH));

        space = get_be32(p + VHD_L_SPACE) < get_be32(p + VHD_L_LENGTH)
                    ? (uint64_t)get_be32(p + VHD_L_SPACE) * DISK_SECTOR : space;
        if (get_be32(p + VHD_L_CODE) && get_be64(p + VHD_L_OFFSET) < v->end) {
            first = MAX(first, ROUND_UP(MIN(get_be64(p + VHD_L_OFFSET) + space, v->end), DISK_SECTOR));
        }
    }
    r = list_blocks(v, &list, &n);
    r = r < 0 ? r : fill_gaps(l, v, list, n, first, progress, arg);
    if (r == 0) {
        if (n > 0) {
            qsort(list, n, sizeof(*list), by_place);
        }
        end = n > 0 ? MAX(first, list[n - 1].at + len) : first;
        if (end < v->end) {
            /* The footer to its new place, then the rest off; until then the old one ends the file. */
            r = disk_file_write(l->file, end, v->footer, VHD_FOOTER_SIZE);
            r = r < 0 ? r : disk_file_sync(l->file);
            r = r < 0 ? r : disk_file_resize(l->file, end + VHD_FOOTER_SIZE);
            r = r < 0 ? r : disk_file_sync(l->file);
            if (r == 0) {
                disk_meta_drop(v->meta, end, v->end - end);
                v->end = end;
            }
        }
    }
    free(list);
    return r < 0 ? fail(l->file, e, r, "compact") : 0;
}
