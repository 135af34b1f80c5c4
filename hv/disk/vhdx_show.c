/* File identifier, headers, region tables and metadata of a VHDX, field by field. MS-VHDX 2.2, 2.6. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx.h"

static const struct { struct guid id; const char *name; } regions[] = {
    { VHDX_REGION_BAT, "BAT" }, { VHDX_REGION_METADATA, "metadata" },
};
static const struct { struct guid id; const char *name; enum vhdx_item item; } items[VHDX_ITEM_COUNT] = {
#define SHOW_ITEM(name_, text_, len_, flags_, ...) [VHDX_ITEM_##name_] = { __VA_ARGS__, text_, VHDX_ITEM_##name_ },
    VHDX_ITEMS(SHOW_ITEM)
#undef SHOW_ITEM
};

static void id_field(struct disk_fields *w, uint64_t at, const char *name, const uint8_t *p)
{
    char text[GUID_TEXT_SIZE];
    struct guid g;

    memcpy(&g, p, 16);
    disk_field(w, at, name, "%s", guid_format(&g, text));
}

static int identifier(struct disk_fields *w, struct disk_file *f)
{
    uint8_t p[VHDX_ID_SIZE];
    char creator[VHDX_ID_CREATOR_SIZE];
    int r = disk_file_read(f, 0, p, sizeof(p));

    if (r < 0) {
        return r;
    }
    w->structure = "file identifier";
    w->off = 0;
    disk_field(w, 0, "signature", memcmp(p, VHDX_SIGNATURE, 8) == 0 ? "vhdxfile" : "wrong");
    disk_utf16_to_utf8(p + VHDX_ID_CREATOR, VHDX_ID_CREATOR_SIZE, false, creator, sizeof(creator));
    disk_field(w, VHDX_ID_CREATOR, "creator", "%s", creator);
    return w->r;
}

static int headers(struct disk_fields *w, struct disk_file *f, struct vhdx_headers *hs)
{
    static const char *const names[2] = { "header 1", "header 2" };
    int r = vhdx_headers_read(f, hs);

    for (int i = 0; i < 2 && r == 0; i++) {
        uint8_t p[VHDX_HEADER_SIZE];

        w->structure = names[i];
        w->off = VHDX_HEADER_OFF(i);
        r = disk_file_read(f, w->off, p, sizeof(p));
        if (r < 0) {
            return r;
        }
        disk_field(w, VHDX_HEADER_SIGNATURE, "state", "%s", hs->why[i] ? hs->why[i] : hs->current == i ? "current" : "good");
        disk_field(w, VHDX_HEADER_CRC, "checksum", "0x%08x", get_le32(p + VHDX_HEADER_CRC));
        disk_field(w, VHDX_HEADER_SEQUENCE, "sequence", "%llu", (unsigned long long)get_le64(p + VHDX_HEADER_SEQUENCE));
        id_field(w, VHDX_HEADER_FILE_GUID, "file write id", p + VHDX_HEADER_FILE_GUID);
        id_field(w, VHDX_HEADER_DATA_GUID, "data write id", p + VHDX_HEADER_DATA_GUID);
        id_field(w, VHDX_HEADER_LOG_GUID, "log id", p + VHDX_HEADER_LOG_GUID);
        disk_field(w, VHDX_HEADER_LOG_VERSION, "log version", "%u", get_le16(p + VHDX_HEADER_LOG_VERSION));
        disk_field(w, VHDX_HEADER_VERSION, "version", "%u", get_le16(p + VHDX_HEADER_VERSION));
        disk_field(w, VHDX_HEADER_LOG_LENGTH, "log length", "%u", get_le32(p + VHDX_HEADER_LOG_LENGTH));
        disk_field(w, VHDX_HEADER_LOG_OFFSET, "log offset", "0x%llx",
                   (unsigned long long)get_le64(p + VHDX_HEADER_LOG_OFFSET));
        r = w->r;
    }
    return r;
}

/* *ret_metadata: where the first good table says the metadata is; 0: it does not. */
static int region_table(struct disk_fields *w, struct disk_file *f, int copy, uint8_t *buf, uint64_t *ret_metadata)
{
    static const char *const names[2] = { "region table 1", "region table 2" };
    const char *why = vhdx_regions_load(f, copy, buf);
    uint32_t count = MIN(get_le32(buf + VHDX_REGIONS_COUNT), VHDX_REGIONS_MAX);

    w->structure = names[copy];
    w->off = VHDX_REGIONS_OFF(copy);
    disk_field(w, VHDX_REGIONS_SIGNATURE, "state", "%s", why ? why : "good");
    if (why) {
        return w->r;                         /* its entries could be anything */
    }
    disk_field(w, VHDX_REGIONS_CRC, "checksum", "0x%08x", get_le32(buf + VHDX_REGIONS_CRC));
    disk_field(w, VHDX_REGIONS_COUNT, "entries", "%u", count);
    for (uint32_t i = 0; i < count && w->r == 0; i++) {
        uint32_t at = VHDX_REGIONS_ENTRIES + i * VHDX_REGION_SIZE;
        const uint8_t *p = buf + at;
        char text[GUID_TEXT_SIZE];
        const char *name = NULL;
        struct guid g;

        memcpy(&g, p + VHDX_REGION_GUID, 16);
        for (size_t k = 0; k < ARRAY_SIZE(regions); k++) {
            name = guid_equal(&g, &regions[k].id) ? regions[k].name : name;
        }
        if (name && strcmp(name, "metadata") == 0 && *ret_metadata == 0) {
            *ret_metadata = get_le64(p + VHDX_REGION_OFFSET);
        }
        disk_field(w, at, "region", "%s: 0x%x bytes at 0x%llx, %s", name ? name : guid_format(&g, text),
                   get_le32(p + VHDX_REGION_LENGTH), (unsigned long long)get_le64(p + VHDX_REGION_OFFSET),
                   get_le32(p + VHDX_REGION_FLAGS) & VHDX_REGION_REQUIRED ? "required" : "optional");
    }
    return w->r;
}

static void item_value(struct disk_fields *w, uint64_t at, int i, const uint8_t *v)
{
    switch (i) {
    case VHDX_ITEM_PARAMETERS:
        disk_field(w, at, items[i].name, "blocks of %u%s%s", get_le32(v),
                   get_le32(v + 4) & VHDX_PARAM_LEAVE_ALLOCATED ? ", leave allocated" : "",
                   get_le32(v + 4) & VHDX_PARAM_HAS_PARENT ? ", has a parent" : "");
        break;
    case VHDX_ITEM_SIZE:
        disk_field(w, at, items[i].name, "%llu", (unsigned long long)get_le64(v));
        break;
    case VHDX_ITEM_ID:
        id_field(w, at, items[i].name, v);
        break;
    case VHDX_ITEM_LOGICAL:
    case VHDX_ITEM_PHYSICAL:
        disk_field(w, at, items[i].name, "%u", get_le32(v));
        break;
    default:
        break;
    }
}

static int locator(struct disk_fields *w, struct disk_file *f, uint64_t off, uint32_t len)
{
    hv_autofree uint8_t *p = hv_alloc(MAX(len, (uint32_t)VHDX_LOCATOR_ENTRIES));
    char key[128], value[1024];
    int r = p ? disk_file_read(f, off, p, len) : -ENOMEM;

    if (r < 0 || len < VHDX_LOCATOR_ENTRIES) {
        return r;
    }
    w->structure = "parent locator";
    w->off = off;
    id_field(w, VHDX_LOCATOR_TYPE, "type", p);
    for (unsigned i = 0; i < get_le16(p + VHDX_LOCATOR_COUNT) && w->r == 0; i++) {
        uint32_t at = VHDX_LOCATOR_ENTRIES + i * VHDX_LOCATOR_ENTRY;

        if (at + VHDX_LOCATOR_ENTRY > len) {
            break;
        }
        uint32_t k = get_le32(p + at + VHDX_LOCATOR_KEY), x = get_le32(p + at + VHDX_LOCATOR_VALUE);
        uint32_t klen = get_le16(p + at + VHDX_LOCATOR_KEY_LEN), xlen = get_le16(p + at + VHDX_LOCATOR_VALUE_LEN);
        if (k > len || klen > len - k || x > len || xlen > len - x) {
            disk_field(w, at, "entry", "outside of the item");
            continue;
        }
        disk_utf16_to_utf8(p + k, klen, false, key, sizeof(key));
        disk_utf16_to_utf8(p + x, xlen, false, value, sizeof(value));
        disk_field(w, at, key, "%s", value);
    }
    return w->r;
}

static int metadata(struct disk_fields *w, struct disk_file *f, uint64_t off, uint8_t *buf)
{
    uint64_t size = disk_file_size(f), locator_at = 0;
    uint32_t locator_len = 0;
    int r = off < size ? disk_file_read(f, off, buf, VHDX_META_TABLE) : -ERANGE;

    w->structure = "metadata";
    w->off = off;
    if (r < 0 || memcmp(buf, VHDX_META_TEXT, 8) != 0) {
        disk_field(w, VHDX_META_SIGNATURE, "state", r < 0 ? "cannot be read" : "no signature");
        return w->r;
    }
    disk_field(w, VHDX_META_COUNT, "entries", "%u", get_le16(buf + VHDX_META_COUNT));
    for (unsigned i = 0; i < MIN(get_le16(buf + VHDX_META_COUNT), VHDX_META_MAX) && w->r == 0; i++) {
        uint32_t at = VHDX_META_ENTRIES + i * VHDX_META_ENTRY, len = get_le32(buf + at + VHDX_META_LENGTH);
        uint64_t place = off + get_le32(buf + at + VHDX_META_OFFSET);
        unsigned flags = get_le32(buf + at + VHDX_META_FLAGS);
        char text[GUID_TEXT_SIZE];
        uint8_t value[16] = { 0 };
        struct guid g;
        int known = -1;

        memcpy(&g, buf + at + VHDX_META_GUID, 16);
        for (int k = 0; k < VHDX_ITEM_COUNT && !(flags & VHDX_ITEM_USER); k++) {
            known = guid_equal(&g, &items[k].id) ? k : known;
        }
        disk_field(w, at, "item", "%s: %u bytes at 0x%llx%s%s%s", known >= 0 ? items[known].name : guid_format(&g, text), len,
                   (unsigned long long)place, flags & VHDX_ITEM_USER ? ", user" : "",
                   flags & VHDX_ITEM_DISK ? ", of the disk" : "", flags & VHDX_ITEM_REQUIRED ? ", required" : "");
        if (known >= 0 && len <= VHDX_ITEM_MAX && place < size && len <= size - place) {
            if (disk_file_read(f, place, value, MIN(len, (uint32_t)sizeof(value))) == 0) {
                item_value(w, place - off, known, value);
            }
            if (known == VHDX_ITEM_LOCATOR) {
                locator_at = place;
                locator_len = len;
            }
        }
    }
    return w->r || !locator_at ? w->r : locator(w, f, locator_at, locator_len);
}

int vhdx_show_headers(struct disk_file *f, disk_field_fn *fn, void *arg)
{
    struct disk_fields w = { .fn = fn, .arg = arg };
    hv_autofree uint8_t *buf = hv_alloc(VHDX_REGIONS_SIZE);
    struct vhdx_headers hs;
    uint64_t at = 0;
    int r = buf ? identifier(&w, f) : -ENOMEM;

    r = r ? r : headers(&w, f, &hs);
    for (int i = 0; i < 2 && r == 0; i++) {
        r = region_table(&w, f, i, buf, &at);
    }
    return r || !at ? r : metadata(&w, f, at, buf);
}
