/* Footers, dynamic header and parent locators of a VHD, field by field. Layout: vhd_proto.h. */
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhd.h"

enum kind { HEX32, HEX64, NUMBER16, NUMBER32, NUMBER64, BYTE, TEXT4, TEXT8, ID, SUM };

struct field {
    uint16_t off;
    uint8_t kind;
    const char *name;
};

static const struct field footer_fields[] = {
    { VHD_F_COOKIE, TEXT8, "cookie" },          { VHD_F_FEATURES, HEX32, "features" },
    { VHD_F_VERSION, HEX32, "version" },        { VHD_F_DATA_OFFSET, HEX64, "data offset" },
    { VHD_F_TIME, NUMBER32, "time" },           { VHD_F_CREATOR, TEXT4, "creator" },
    { VHD_F_CREATOR_VERSION, HEX32, "creator version" }, { VHD_F_CREATOR_OS, TEXT4, "creator host" },
    { VHD_F_ORIGINAL_SIZE, NUMBER64, "original size" },  { VHD_F_CURRENT_SIZE, NUMBER64, "current size" },
    { VHD_F_CYLINDERS, NUMBER16, "cylinders" }, { VHD_F_HEADS, BYTE, "heads" },
    { VHD_F_SPT, BYTE, "sectors per track" },   { VHD_F_TYPE, NUMBER32, "disk type" },
    { VHD_F_CHECKSUM, SUM, "checksum" },        { VHD_F_ID, ID, "unique id" },
    { VHD_F_SAVED_STATE, BYTE, "saved state" },
};

static const struct field header_fields[] = {
    { VHD_H_COOKIE, TEXT8, "cookie" },          { VHD_H_NEXT, HEX64, "next offset" },
    { VHD_H_TABLE_OFFSET, HEX64, "table offset" }, { VHD_H_VERSION, HEX32, "version" },
    { VHD_H_ENTRIES, NUMBER32, "table entries" },  { VHD_H_BLOCK_SIZE, NUMBER32, "block size" },
    { VHD_H_CHECKSUM, SUM, "checksum" },        { VHD_H_PARENT_ID, ID, "parent id" },
    { VHD_H_PARENT_TIME, NUMBER32, "parent time" },
};

static void text(struct disk_fields *w, const struct field *x, const uint8_t *p, unsigned len)
{
    char buf[9] = "";

    for (unsigned i = 0; i < len; i++) {
        buf[i] = (char)(p[i] >= ' ' && p[i] <= '~' ? p[i] : '.');
    }
    disk_field(w, x->off, x->name, "\"%s\"", buf);
}

static void tell(struct disk_fields *w, const struct field *x, const uint8_t *structure, size_t size)
{
    const uint8_t *p = structure + x->off;
    char id[GUID_TEXT_SIZE];
    struct guid g;
    uint32_t right;

    switch ((enum kind)x->kind) {
    case HEX32:
        disk_field(w, x->off, x->name, "0x%08x", get_be32(p));
        break;
    case HEX64:
        disk_field(w, x->off, x->name, "0x%llx", (unsigned long long)get_be64(p));
        break;
    case NUMBER16:
        disk_field(w, x->off, x->name, "%u", get_be16(p));
        break;
    case NUMBER32:
        disk_field(w, x->off, x->name, "%u", get_be32(p));
        break;
    case NUMBER64:
        disk_field(w, x->off, x->name, "%llu", (unsigned long long)get_be64(p));
        break;
    case BYTE:
        disk_field(w, x->off, x->name, "%u", *p);
        break;
    case TEXT4:
    case TEXT8:
        text(w, x, p, x->kind == TEXT4 ? 4 : 8);
        break;
    case ID:
        memcpy(g.b, p, 16);
        disk_field(w, x->off, x->name, "%s", guid_format(&g, id));
        break;
    case SUM:
        right = vhd_checksum(structure, size, x->off);
        if (get_be32(p) == right) {
            disk_field(w, x->off, x->name, "0x%08x", right);
        } else {
            disk_field(w, x->off, x->name, "0x%08x (wrong: 0x%08x is right)", get_be32(p), right);
        }
        break;
    }
}

static void footer(struct disk_fields *w, const char *name, uint64_t off, const uint8_t *p)
{
    w->structure = name;
    w->off = off;
    for (size_t i = 0; i < ARRAY_SIZE(footer_fields); i++) {
        tell(w, &footer_fields[i], p, VHD_FOOTER_SIZE);
    }
}

static void locators(struct disk_fields *w, struct disk_file *f, const uint8_t *header, uint64_t off)
{
    char name[32], value[1024];
    uint8_t data[1024];

    for (unsigned i = 0; i < VHD_LOCATORS && w->r == 0; i++) {
        const uint8_t *p = header + VHD_H_LOCATORS + i * VHD_LOCATOR_SIZE;
        uint32_t code = get_be32(p + VHD_L_CODE), len = MIN(get_be32(p + VHD_L_LENGTH), (uint32_t)sizeof(data));
        const struct field platform = { VHD_L_CODE, TEXT4, "platform" };

        if (code == 0) {
            continue;
        }
        snprintf(name, sizeof(name), "locator %u", i + 1);
        w->structure = name;
        w->off = off + VHD_H_LOCATORS + i * VHD_LOCATOR_SIZE;
        text(w, &platform, p, 4);
        disk_field(w, VHD_L_SPACE, "data space", "%u", get_be32(p + VHD_L_SPACE));
        disk_field(w, VHD_L_LENGTH, "data length", "%u", get_be32(p + VHD_L_LENGTH));
        disk_field(w, VHD_L_OFFSET, "data offset", "0x%llx", (unsigned long long)get_be64(p + VHD_L_OFFSET));
        if (disk_file_read(f, get_be64(p + VHD_L_OFFSET), data, len) == 0) {
            if (code == VHD_MACX) {
                snprintf(value, sizeof(value), "%.*s", (int)strnlen((char *)data, len), (char *)data);
            } else {
                disk_utf16_to_utf8(data, len, false, value, sizeof(value));
            }
            disk_field(w, VHD_L_OFFSET, "data", "%s", value);
        }
    }
}

int vhd_headers(struct disk_file *f, disk_field_fn *fn, void *arg)
{
    struct disk_fields w = { .fn = fn, .arg = arg };
    uint64_t size = disk_file_size(f), end = ROUND_UP(size, (uint64_t)DISK_SECTOR) - MIN(size, (uint64_t)DISK_SECTOR), at;
    uint8_t front[VHD_FOOTER_SIZE], back[VHD_FOOTER_SIZE], header[VHD_HEADER_SIZE];
    char name[513];
    int r = disk_file_read(f, 0, front, sizeof(front));

    r = r < 0 ? r : disk_file_read(f, end, back, sizeof(back));
    if (r < 0) {
        return r;
    }
    if (memcmp(front, VHD_FOOTER_COOKIE, 8) == 0) {
        footer(&w, "footer in front", 0, front);
    }
    footer(&w, "footer", end, back);
    at = get_be64((vhd_footer_valid(back) ? back : front) + VHD_F_DATA_OFFSET);
    if (w.r || at > size) {
        return w.r;
    }
    r = disk_file_read(f, at, header, sizeof(header));
    if (r < 0 || memcmp(header, VHD_HEADER_COOKIE, 8) != 0) {
        return r;
    }
    w.structure = "dynamic header";
    w.off = at;
    for (size_t i = 0; i < ARRAY_SIZE(header_fields); i++) {
        tell(&w, &header_fields[i], header, sizeof(header));
    }
    disk_utf16_to_utf8(header + VHD_H_PARENT_NAME, VHD_H_PARENT_NAME_SIZE, true, name, sizeof(name));
    disk_field(&w, VHD_H_PARENT_NAME, "parent name", "%s", name);
    locators(&w, f, header, at);
    return w.r;
}
