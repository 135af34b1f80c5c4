/* Metadata items of a VHDX and the locator of a parent among them. MS-VHDX 2.6. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx.h"

static const struct {
    const char *name;
    uint32_t len;
    bool needed;
    struct guid id;
} known[VHDX_ITEM_COUNT] = {
#define KNOWN(name_, text, len_, flags_, ...) \
    [VHDX_ITEM_##name_] = { text, len_, (flags_) != 0 && VHDX_ITEM_##name_ != VHDX_ITEM_LOCATOR, __VA_ARGS__ },
    VHDX_ITEMS(KNOWN)
#undef KNOWN
};

struct entry {
    struct guid id;
    uint32_t off, len, flags;
    unsigned index;
};

static int bad(struct disk_file *f, struct hv_error *e, const char *what, unsigned long long value)
{
    return hv_fail(e, HV_USAGE, disk_file_path(f), "metadata: %s (%llu)", what, value);
}

static int by_offset(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int d = (int)(x->flags & VHDX_ITEM_USER) - (int)(y->flags & VHDX_ITEM_USER);

    return d ? d : memcmp(&x->id, &y->id, sizeof(x->id));
}

static int parse_entry(struct disk_file *f, const struct vhdx_region *region, const uint8_t *p, struct entry *x,
                       struct hv_error *e)
{
    char text[GUID_TEXT_SIZE];

    memcpy(&x->id, p + VHDX_META_GUID, 16);
    x->off = get_le32(p + VHDX_META_OFFSET);
    x->len = get_le32(p + VHDX_META_LENGTH);
    x->flags = get_le32(p + VHDX_META_FLAGS);
    guid_format_upper(&x->id, text);
    if (x->len > VHDX_ITEM_MAX) {
        return bad(f, e, "an item is longer than 1 MiB", x->len);
    }
    if (x->len > 0 && (x->off < VHDX_META_TABLE || x->off > region->len || x->len > region->len - x->off)) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "metadata: item %s, %u bytes at 0x%x, lies outside its region", text,
                       x->len, x->off);
    }
    if ((x->flags & (VHDX_ITEM_USER | VHDX_ITEM_REQUIRED)) == (VHDX_ITEM_USER | VHDX_ITEM_REQUIRED)) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "metadata: item %s is a user's and required", text);
    }
    return 0;
}

/* Which of ours an entry is, or -1; an item that must be understood and is not: -EOPNOTSUPP. */
static int identify(struct disk_file *f, const struct entry *x, struct hv_error *e)
{
    char text[GUID_TEXT_SIZE];

    for (int i = 0; i < VHDX_ITEM_COUNT && !(x->flags & VHDX_ITEM_USER); i++) {
        if (guid_equal(&x->id, &known[i].id)) {
            return i;
        }
    }
    if (x->flags & VHDX_ITEM_REQUIRED) {
        hv_fail(e, HV_UNSUPPORTED, disk_file_path(f), "needs metadata item %s, which this version does not know",
                guid_format_upper(&x->id, text));
        return -EOPNOTSUPP;
    }
    return -1;
}

static int take_item(struct disk_file *f, const struct entry *x, struct vhdx_metadata *m, struct hv_error *e)
{
    int i = identify(f, x, e);

    if (i == -EOPNOTSUPP) {
        return i;
    }
    if (i < 0) {
        return 0;
    }
    if (i == VHDX_ITEM_INCOMPLETE) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "was never finished: what made it stopped half-way");
    }
    if (known[i].len && x->len != known[i].len) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "metadata: the %s takes %u bytes, not %u", known[i].name, known[i].len,
                       x->len);
    }
    m->items[i].present = true;
    m->items[i].off = x->off;
    m->items[i].len = x->len;
    m->items[i].index = x->index;
    return 0;
}

static int read_entries(struct disk_file *f, const struct vhdx_region *region, const uint8_t *table,
                        struct vhdx_metadata *m, struct hv_error *e)
{
    unsigned count = get_le16(table + VHDX_META_COUNT), users = 0;
    hv_autofree struct entry *x = NULL;

    if (memcmp(table, VHDX_META_TEXT, 8) != 0) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "metadata: no table at 0x%llx", (unsigned long long)region->off);
    }
    if (count > VHDX_META_MAX) {
        return bad(f, e, "too many items", count);
    }
    x = hv_alloc_array(count + 1, sizeof(*x));
    if (!x) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    for (unsigned i = 0; i < count; i++) {
        int r = parse_entry(f, region, table + VHDX_META_ENTRIES + i * VHDX_META_ENTRY, &x[i], e);

        if (r < 0) {
            return r;
        }
        x[i].index = i;
        users += x[i].flags & VHDX_ITEM_USER;
    }
    if (users > VHDX_META_USER_MAX || count - users >= VHDX_META_USER_MAX) {
        return bad(f, e, "too many items of one kind", count);
    }
    qsort(x, count, sizeof(*x), by_key);
    for (unsigned i = 0; i < count; i++) {
        int r = take_item(f, &x[i], m, e);

        if (r < 0) {
            return r;
        }
        if (i > 0 && by_key(&x[i - 1], &x[i]) == 0) {
            char text[GUID_TEXT_SIZE];
            return hv_fail(e, HV_USAGE, disk_file_path(f), "metadata: item %s is there twice",
                           guid_format_upper(&x[i].id, text));
        }
    }
    qsort(x, count, sizeof(*x), by_offset);
    m->used_end = VHDX_META_TABLE;
    for (unsigned i = 0; i < count; i++) {
        if (x[i].len == 0) {
            continue;
        }
        if (x[i].off < m->used_end) {
            return bad(f, e, "items overlap at offset", x[i].off);
        }
        m->used_end = x[i].off + x[i].len;
    }
    return 0;
}

static int check_values(struct disk_file *f, const struct vhdx_metadata *m, struct hv_error *e)
{
    if (m->block_size < VHDX_BLOCK_MIN || m->block_size > VHDX_BLOCK_MAX || (m->block_size & (m->block_size - 1))) {
        return bad(f, e, "the block size is not a power of two from 1 to 256 MiB", m->block_size);
    }
    if (m->logical != 512 && m->logical != 4096) {
        return bad(f, e, "the logical sector size is neither 512 nor 4096", m->logical);
    }
    if (m->physical != 512 && m->physical != 4096) {
        return bad(f, e, "the physical sector size is neither 512 nor 4096", m->physical);
    }
    if (m->size == 0 || m->size > DISK_MAX_SIZE || m->size % m->logical) {
        return bad(f, e, "the virtual size is not a multiple of the logical sector up to 64 TiB", m->size);
    }
    return m->has_parent && !m->items[VHDX_ITEM_LOCATOR].present
               ? hv_fail(e, HV_USAGE, disk_file_path(f), "metadata: a differencing disk without a parent locator")
               : 0;
}

int vhdx_metadata_read(struct disk_file *f, const struct vhdx_region *region, struct vhdx_metadata *ret,
                       struct hv_error *e)
{
    hv_autofree uint8_t *table = hv_alloc(VHDX_META_TABLE);
    uint8_t value[VHDX_ITEM_COUNT][16] = { 0 };
    struct vhdx_metadata m = { 0 };
    uint32_t flags;
    int r;

    if (!table) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    r = disk_file_read(f, region->off, table, VHDX_META_TABLE);
    if (r < 0) {
        return hv_fail_errno(e, -r, disk_file_path(f), "metadata: cannot read its table");
    }
    r = read_entries(f, region, table, &m, e);
    if (r < 0) {
        return r;
    }
    for (int i = 0; i < VHDX_ITEM_COUNT; i++) {
        if (known[i].needed && !m.items[i].present) {
            return hv_fail(e, HV_USAGE, disk_file_path(f), "metadata: no %s", known[i].name);
        }
        if (known[i].len == 0) {
            continue;
        }
        r = disk_file_read(f, region->off + m.items[i].off, value[i], known[i].len);
        if (r < 0) {
            return hv_fail_errno(e, -r, disk_file_path(f), "metadata: cannot read the %s", known[i].name);
        }
    }
    m.block_size = get_le32(value[VHDX_ITEM_PARAMETERS]);
    flags = get_le32(value[VHDX_ITEM_PARAMETERS] + 4);
    m.leave_allocated = flags & VHDX_PARAM_LEAVE_ALLOCATED;
    m.has_parent = flags & VHDX_PARAM_HAS_PARENT;
    m.size = get_le64(value[VHDX_ITEM_SIZE]);
    m.logical = get_le32(value[VHDX_ITEM_LOGICAL]);
    m.physical = get_le32(value[VHDX_ITEM_PHYSICAL]);
    memcpy(&m.id, value[VHDX_ITEM_ID], 16);
    r = check_values(f, &m, e);
    if (r == 0) {
        *ret = m;
    }
    return r;
}

/* ---- parent locator ---- */

static const struct guid locator_vhdx = VHDX_LOCATOR_VHDX;

enum { KEY_LINKAGE, KEY_LINKAGE2, KEY_RELATIVE, KEY_VOLUME, KEY_ABSOLUTE, KEY_COUNT };
static const struct { const char *key; size_t at, size; } keys[KEY_COUNT] = {
    [KEY_LINKAGE] = { "parent_linkage", offsetof(struct disk_parent_ref, id), 0 },
    [KEY_LINKAGE2] = { "parent_linkage2", offsetof(struct disk_parent_ref, id2), 0 },
#define PATH(field) offsetof(struct disk_parent_ref, field), sizeof(((struct disk_parent_ref *)0)->field)
    [KEY_RELATIVE] = { "relative_path", PATH(relative) },
    [KEY_VOLUME] = { "volume_path", PATH(volume) },
    [KEY_ABSOLUTE] = { "absolute_win32_path", PATH(absolute) },
#undef PATH
};

static bool text_fits(uint32_t item_len, uint32_t off, uint32_t len)
{
    return len > 0 && len % 2 == 0 && off <= item_len && len <= item_len - off;
}

static int take_pair(struct disk_file *f, const uint8_t *item, uint32_t item_len, const uint8_t *p,
                     struct disk_parent_ref *ref, unsigned *seen, struct hv_error *e)
{
    uint32_t key_off = get_le32(p + VHDX_LOCATOR_KEY), value_off = get_le32(p + VHDX_LOCATOR_VALUE);
    uint32_t key_len = get_le16(p + VHDX_LOCATOR_KEY_LEN), value_len = get_le16(p + VHDX_LOCATOR_VALUE_LEN);
    char key[64], linkage[64];

    if (!text_fits(item_len, key_off, key_len) || !text_fits(item_len, value_off, value_len)) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "parent locator: a text lies outside it");
    }
    disk_utf16_to_utf8(item + key_off, key_len, false, key, sizeof(key));
    for (unsigned k = 0; k < KEY_COUNT; k++) {
        if (strcmp(key, keys[k].key) != 0) {
            continue;
        }
        if (*seen & 1u << k) {
            return hv_fail(e, HV_USAGE, disk_file_path(f), "parent locator: %s is there twice", key);
        }
        *seen |= 1u << k;
        if (keys[k].size) {
            disk_utf16_to_utf8(item + value_off, value_len, false, (char *)ref + keys[k].at, keys[k].size);
            return 0;
        }
        disk_utf16_to_utf8(item + value_off, value_len, false, linkage, sizeof(linkage));
        if (guid_parse(linkage, (struct guid *)(void *)((char *)ref + keys[k].at)) < 0) {
            return hv_fail(e, HV_USAGE, disk_file_path(f), "parent locator: %s is not a GUID: %s", key, linkage);
        }
        return 0;
    }
    return 0;                            /* keys of others are no concern of ours */
}

int vhdx_locator_read(struct disk_file *f, const struct vhdx_region *region, const struct vhdx_metadata *m,
                      struct disk_parent_ref *ret, struct hv_error *e)
{
    uint32_t len = m->items[VHDX_ITEM_LOCATOR].len, count;
    hv_autofree uint8_t *item = hv_alloc(len + 1);
    struct disk_parent_ref ref = { 0 };
    unsigned seen = 0;
    int r;

    if (!item) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    r = disk_file_read(f, region->off + m->items[VHDX_ITEM_LOCATOR].off, item, len);
    if (r < 0) {
        return hv_fail_errno(e, -r, disk_file_path(f), "parent locator: cannot be read");
    }
    if (len < VHDX_LOCATOR_ENTRIES) {
        return bad(f, e, "the parent locator is cut short, bytes", len);
    }
    if (memcmp(item, &locator_vhdx, 16) != 0) {
        hv_fail(e, HV_UNSUPPORTED, disk_file_path(f), "parent locator: of a kind this version does not know");
        return -EOPNOTSUPP;
    }
    count = get_le16(item + VHDX_LOCATOR_COUNT);
    if (count > (len - VHDX_LOCATOR_ENTRIES) / VHDX_LOCATOR_ENTRY) {
        return bad(f, e, "the parent locator is too short for its pairs", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        r = take_pair(f, item, len, item + VHDX_LOCATOR_ENTRIES + i * VHDX_LOCATOR_ENTRY, &ref, &seen, e);
        if (r < 0) {
            return r;
        }
    }
    if (!(seen & 1u << KEY_LINKAGE)) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "parent locator: no parent_linkage");
    }
    *ret = ref;
    return 0;
}

/* One text behind what buf holds already; its place into the entry's fields. */
static int add_text(const char *text, uint8_t *buf, size_t size, size_t *used, uint8_t *off_field, uint8_t *len_field)
{
    int n = disk_utf8_to_utf16(text, false, buf + *used, size - *used);

    if (n < 0) {
        return n;
    }
    if (n > UINT16_MAX) {
        return -EMSGSIZE;
    }
    put_le32(off_field, (uint32_t)*used);
    put_le16(len_field, (uint16_t)n);
    *used += (size_t)n;
    return 0;
}

int vhdx_locator_build(const struct disk_parent_ref *ref, uint8_t *buf, size_t size)
{
    size_t used = VHDX_LOCATOR_ENTRIES + KEY_COUNT * VHDX_LOCATOR_ENTRY;
    unsigned count = 0;

    if (size < used) {
        return -EMSGSIZE;
    }
    memset(buf, 0, size);
    memcpy(buf + VHDX_LOCATOR_TYPE, &locator_vhdx, 16);
    for (unsigned k = 0; k < KEY_COUNT; k++) {
        uint8_t *p = buf + VHDX_LOCATOR_ENTRIES + count * VHDX_LOCATOR_ENTRY;
        const char *value = (const char *)ref + keys[k].at;
        char linkage[GUID_TEXT_SIZE + 2], text[GUID_TEXT_SIZE];
        int r;

        if (keys[k].size == 0) {
            const struct guid *id = (const struct guid *)(const void *)value;

            if (k == KEY_LINKAGE2 && guid_is_zero(id)) {
                continue;
            }
            snprintf(linkage, sizeof(linkage), "{%s}", guid_format(id, text));
            value = linkage;
        } else if (!value[0]) {
            continue;
        }
        r = add_text(keys[k].key, buf, size, &used, p + VHDX_LOCATOR_KEY, p + VHDX_LOCATOR_KEY_LEN);
        if (r == 0) {
            r = add_text(value, buf, size, &used, p + VHDX_LOCATOR_VALUE, p + VHDX_LOCATOR_VALUE_LEN);
        }
        if (r < 0) {
            return r;
        }
        count++;
    }
    put_le16(buf + VHDX_LOCATOR_COUNT, (uint16_t)count);
    return (int)used;
}
