/*
 * New VHDX images. Everything but the headers, sync, header slots, sync: a half-made file
 * has no valid header and opens for nobody.
 *
 *   0        1M     2M          3M           3M + BAT
 *   | header | log  | metadata  | BAT ...    | blocks of a fixed disk, in order
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx.h"

#define LOG_OFF      (1 * VHDX_UNIT)
#define METADATA_OFF (2 * VHDX_UNIT)
#define BAT_OFF      (3 * VHDX_UNIT)
#define LOG_LEN      ((uint32_t)VHDX_UNIT)
#define CREATOR      "hv " HV_VERSION

#define BLOCK_DYNAMIC      (32u << 20)     /* Hyper-V's */
#define BLOCK_DIFFERENCING (2u << 20)

struct plan {
    struct vhdx_metadata md;
    struct vhdx_header header;
    struct disk_parent_ref ref;
    uint64_t blocks, bat_entries, bat_len, file_size;
    unsigned ratio_shift;
};

static int choose(struct disk_file *f, const struct disk_create *c, struct disk *parent, struct plan *p,
                  struct hv_error *e)
{
    const char *path = disk_file_path(f);
    struct vhdx_metadata *m = &p->md;

    m->has_parent = c->type == DISK_DIFFERENCING;
    m->leave_allocated = c->type == DISK_FIXED;
    m->size = c->size ? c->size : parent ? disk_size(parent) : 0;
    m->block_size = c->block_size ? c->block_size : m->has_parent ? BLOCK_DIFFERENCING : BLOCK_DYNAMIC;
    m->logical = c->logical_sector ? c->logical_sector : parent ? disk_logical_sector(parent) : 512;
    m->physical = c->physical_sector ? c->physical_sector : parent ? disk_physical_sector(parent) : 4096;
    if (m->block_size < VHDX_BLOCK_MIN || m->block_size > VHDX_BLOCK_MAX || (m->block_size & (m->block_size - 1))) {
        return hv_fail(e, HV_USAGE, path, "a block size of %u bytes: a power of two from 1M to 256M is needed", m->block_size);
    }
    if ((m->logical != 512 && m->logical != 4096) || (m->physical != 512 && m->physical != 4096) ||
        m->physical < m->logical) {
        return hv_fail(e, HV_USAGE, path, "sectors of %u bytes, %u physical: 512 and 4096 are possible, the physical not smaller",
                       m->logical, m->physical);
    }
    if (m->size == 0 || m->size % m->logical || m->size > DISK_MAX_SIZE) {
        return hv_fail(e, HV_USAGE, path, "a size of %llu bytes: a multiple of %u up to 64T is needed",
                       (unsigned long long)m->size, m->logical);
    }
    if (m->has_parent && m->logical != disk_logical_sector(parent)) {
        return hv_fail(e, HV_USAGE, path, "logical sectors of %u bytes; those of the parent have %u", m->logical,
                       disk_logical_sector(parent));
    }
    if (disk_file_is_device(f)) {
        hv_fail(e, HV_UNSUPPORTED, path, "is a device: a VHDX needs a file, which can grow");
        return -EOPNOTSUPP;
    }
    m->id = m->has_parent && guid_is_zero(&c->id) ? disk_id(parent) : c->id;
    return 0;
}

static int choose_parent(struct disk_file *f, const struct disk_create *c, struct disk *parent, struct plan *p,
                         struct hv_error *e)
{
    struct disk_layer *l = disk_layer(parent, 0);

    if (l->format != &disk_format_vhdx) {
        return hv_fail(e, HV_USAGE, disk_file_path(l->file), "is a %s disk: the parent of a VHDX is a VHDX", l->format->name);
    }
    p->ref.id = l->data_id;
    return disk_parent_paths(disk_file_path(f), c->parent ? c->parent : disk_file_path(l->file), &p->ref, e);
}

static int draw_up(struct disk_file *f, const struct disk_create *c, struct disk *parent, struct plan *p,
                   struct hv_error *e)
{
    int r = choose(f, c, parent, p, e);

    if (r == 0 && p->md.has_parent) {
        r = choose_parent(f, c, parent, p, e);
    }
    if (r < 0) {
        return r;
    }
    p->header = (struct vhdx_header){ .log_off = LOG_OFF, .log_len = LOG_LEN };
    r = guid_new(&p->header.file_id);
    if (r == 0) {
        r = guid_new(&p->header.data_id);
    }
    if (r == 0 && guid_is_zero(&p->md.id)) {
        r = guid_new(&p->md.id);
    }
    p->ratio_shift = 23 + (unsigned)__builtin_ctz(p->md.logical) - (unsigned)__builtin_ctz(p->md.block_size);
    p->blocks = (p->md.size + p->md.block_size - 1) / p->md.block_size;
    p->bat_entries = vhdx_bat_entries(p->blocks, p->ratio_shift, p->md.has_parent);
    p->bat_len = ROUND_UP(p->bat_entries * 8, VHDX_UNIT);
    p->file_size = BAT_OFF + p->bat_len + (p->md.leave_allocated ? p->blocks * p->md.block_size : 0);
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(f), "cannot make identifiers") : 0;
}

/* ---- writing it ---- */

static int write_id(struct disk_file *f)
{
    uint8_t buf[VHDX_ID_SIZE] = { 0 };
    int r = disk_utf8_to_utf16(CREATOR, false, buf + VHDX_ID_CREATOR, VHDX_ID_CREATOR_SIZE);

    memcpy(buf, VHDX_SIGNATURE, 8);
    return r < 0 ? r : disk_file_write(f, 0, buf, sizeof(buf));
}

static void put_region(uint8_t *p, const struct guid *id, uint64_t off, uint64_t len)
{
    memcpy(p + VHDX_REGION_GUID, id, 16);
    put_le64(p + VHDX_REGION_OFFSET, off);
    put_le32(p + VHDX_REGION_LENGTH, (uint32_t)len);
    put_le32(p + VHDX_REGION_FLAGS, VHDX_REGION_REQUIRED);
}

static int write_regions(struct disk_file *f, const struct plan *p)
{
    static const struct guid bat = VHDX_REGION_BAT, metadata = VHDX_REGION_METADATA;
    hv_autofree uint8_t *buf = hv_alloc(VHDX_REGIONS_SIZE);
    int r = 0;

    if (!buf) {
        return -ENOMEM;
    }
    memcpy(buf + VHDX_REGIONS_SIGNATURE, "regi", 4);
    put_le32(buf + VHDX_REGIONS_COUNT, 2);
    put_region(buf + VHDX_REGIONS_ENTRIES, &bat, BAT_OFF, p->bat_len);
    put_region(buf + VHDX_REGIONS_ENTRIES + VHDX_REGION_SIZE, &metadata, METADATA_OFF, VHDX_UNIT);
    vhdx_regions_seal(buf);
    for (int copy = 0; copy < 2 && r == 0; copy++) {
        r = disk_file_write(f, VHDX_REGIONS_OFF(copy), buf, VHDX_REGIONS_SIZE);
    }
    return r;
}

static const struct { struct guid id; uint32_t len, flags; } items[] = {
#define ITEM(name, text, len_, flags_, ...) { __VA_ARGS__, len_, flags_ },
    VHDX_ITEMS(ITEM)
#undef ITEM
};

static int write_metadata(struct disk_file *f, const struct plan *p)
{
    const struct vhdx_metadata *m = &p->md;
    hv_autofree uint8_t *buf = hv_alloc(VHDX_META_TABLE + VHDX_LOCATOR_BUF);
    uint8_t *entry, *values;
    uint32_t used = 0;
    unsigned count = 0;
    int locator = 0;

    if (!buf) {
        return -ENOMEM;
    }
    values = buf + VHDX_META_TABLE;
    entry = buf + VHDX_META_ENTRIES;
    memcpy(buf, VHDX_META_TEXT, 8);
    if (m->has_parent) {
        /* Behind the others, whose places are the same in every image of ours. */
        locator = vhdx_locator_build(&p->ref, values + 512, VHDX_LOCATOR_BUF - 512);
        if (locator < 0) {
            return locator;
        }
    }
    for (int i = VHDX_ITEM_PARAMETERS; i <= VHDX_ITEM_LOCATOR; i++) {
        uint32_t len = i == VHDX_ITEM_LOCATOR ? (uint32_t)locator : items[i].len;

        if (len == 0) {
            continue;
        }
        used = i == VHDX_ITEM_LOCATOR ? 512 : used;
        memcpy(entry + VHDX_META_GUID, &items[i].id, 16);
        put_le32(entry + VHDX_META_OFFSET, VHDX_META_TABLE + used);
        put_le32(entry + VHDX_META_LENGTH, len);
        put_le32(entry + VHDX_META_FLAGS, items[i].flags);
        switch (i) {
        case VHDX_ITEM_PARAMETERS:
            put_le32(values + used, m->block_size);
            put_le32(values + used + 4, (m->leave_allocated ? VHDX_PARAM_LEAVE_ALLOCATED : 0u) |
                                        (m->has_parent ? VHDX_PARAM_HAS_PARENT : 0u));
            break;
        case VHDX_ITEM_SIZE: put_le64(values + used, m->size); break;
        case VHDX_ITEM_ID: memcpy(values + used, &m->id, 16); break;
        case VHDX_ITEM_LOGICAL: put_le32(values + used, m->logical); break;
        case VHDX_ITEM_PHYSICAL: put_le32(values + used, m->physical); break;
        default: break;
        }
        entry += VHDX_META_ENTRY;
        used += len;
        count++;
    }
    put_le16(buf + VHDX_META_COUNT, (uint16_t)count);
    return disk_file_write(f, METADATA_OFF, buf, VHDX_META_TABLE + VHDX_LOCATOR_BUF);
}

/* Of a fixed disk: every block fully present, in order. The others' BAT is all zeros. */
static int write_bat(struct disk_file *f, const struct plan *p)
{
    enum { PIECE = 1 << 20 };
    hv_autofree uint8_t *buf = hv_alloc(PIECE);
    uint64_t room = BAT_OFF + p->bat_len, block = 0;

    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t off = 0; off < p->bat_entries * 8; off += PIECE) {
        uint64_t len = MIN((uint64_t)PIECE, p->bat_entries * 8 - off);
        int r;

        for (uint64_t i = 0; i < len; i += 8) {
            uint64_t index = (off + i) / 8;
            /* One entry behind every chunk's is its bitmap's. */
            bool bitmap = index % (((uint64_t)1 << p->ratio_shift) + 1) == (uint64_t)1 << p->ratio_shift;

            put_le64(buf + i, bitmap ? 0 : room + block++ * p->md.block_size + VHDX_FULL);
        }
        r = disk_file_write(f, BAT_OFF + off, buf, len);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int write_headers(struct disk_file *f, struct plan *p)
{
    uint8_t page[VHDX_HEADER_SIZE];
    int r = 0;

    for (int slot = 0; slot < 2 && r == 0; slot++) {
        p->header.sequence = (uint64_t)slot + 1;
        vhdx_header_build(&p->header, page);
        r = disk_file_write(f, VHDX_HEADER_OFF(slot), page, sizeof(page));
    }
    return r;
}

int vhdx_create(struct disk_file *f, const struct disk_create *c, struct disk *parent, struct hv_error *e)
{
    struct plan p = { 0 };
    int r = draw_up(f, c, parent, &p, e);

    if (r < 0) {
        return r;
    }
    if (disk_file_size(f) > 0) {
        r = disk_file_resize(f, 0);
    }
    if (r == 0) {
        r = disk_file_resize(f, p.file_size);
    }
    if (r == 0 && p.md.leave_allocated) {
        r = disk_file_reserve(f, 0, p.file_size);
    }
    if (r == 0) {
        r = write_id(f);
    }
    if (r == 0) {
        r = write_regions(f, &p);
    }
    if (r == 0) {
        r = write_metadata(f, &p);
    }
    if (r == 0 && p.md.leave_allocated) {
        r = write_bat(f, &p);
    }
    if (r == 0) {
        r = disk_file_sync(f);
    }
    if (r == 0) {
        r = write_headers(f, &p);
    }
    if (r == 0) {
        r = disk_file_sync(f);
    }
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(f), "cannot create") : 0;
}
