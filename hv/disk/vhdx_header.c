/* The header section of a VHDX: two headers, two region tables. MS-VHDX 2.2. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/crc32c.h"
#include "hv/disk/vhdx.h"

static const struct guid bat_id = VHDX_REGION_BAT, metadata_id = VHDX_REGION_METADATA;

/* The checksum of buf[len] whose own four bytes at `at` count as zeros. */
static uint32_t sum_without(const uint8_t *buf, size_t len, size_t at)
{
    static const uint8_t zeros[4];
    uint32_t crc = crc32c(0, buf, at);

    crc = crc32c(crc, zeros, 4);
    return crc32c(crc, buf + at + 4, len - at - 4);
}

/* ---- headers ---- */

static const char *header_parse(const uint8_t *p, struct vhdx_header *h)
{
    if (memcmp(p + VHDX_HEADER_SIGNATURE, "head", 4) != 0) {
        return "no signature";
    }
    if (get_le32(p + VHDX_HEADER_CRC) != sum_without(p, VHDX_HEADER_SIZE, VHDX_HEADER_CRC)) {
        return "wrong checksum";
    }
    if (get_le16(p + VHDX_HEADER_VERSION) != VHDX_VERSION) {
        return "unknown version";
    }
    *h = (struct vhdx_header){
        .sequence = get_le64(p + VHDX_HEADER_SEQUENCE),
        .log_version = get_le16(p + VHDX_HEADER_LOG_VERSION),
        .log_len = get_le32(p + VHDX_HEADER_LOG_LENGTH),
        .log_off = get_le64(p + VHDX_HEADER_LOG_OFFSET),
    };
    memcpy(&h->file_id, p + VHDX_HEADER_FILE_GUID, 16);
    memcpy(&h->data_id, p + VHDX_HEADER_DATA_GUID, 16);
    memcpy(&h->log_id, p + VHDX_HEADER_LOG_GUID, 16);
    return NULL;
}

void vhdx_header_build(const struct vhdx_header *h, uint8_t page[VHDX_HEADER_SIZE])
{
    memset(page, 0, VHDX_HEADER_SIZE);
    memcpy(page + VHDX_HEADER_SIGNATURE, "head", 4);
    put_le64(page + VHDX_HEADER_SEQUENCE, h->sequence);
    memcpy(page + VHDX_HEADER_FILE_GUID, &h->file_id, 16);
    memcpy(page + VHDX_HEADER_DATA_GUID, &h->data_id, 16);
    memcpy(page + VHDX_HEADER_LOG_GUID, &h->log_id, 16);
    put_le16(page + VHDX_HEADER_LOG_VERSION, h->log_version);
    put_le16(page + VHDX_HEADER_VERSION, VHDX_VERSION);
    put_le32(page + VHDX_HEADER_LOG_LENGTH, h->log_len);
    put_le64(page + VHDX_HEADER_LOG_OFFSET, h->log_off);
    put_le32(page + VHDX_HEADER_CRC, crc32c(0, page, VHDX_HEADER_SIZE));
}

int vhdx_headers_read(struct disk_file *f, struct vhdx_headers *ret)
{
    uint8_t page[2][VHDX_HEADER_SIZE];

    for (int i = 0; i < 2; i++) {
        int r = disk_file_read(f, VHDX_HEADER_OFF(i), page[i], VHDX_HEADER_SIZE);

        if (r < 0) {
            return r;
        }
        ret->why[i] = header_parse(page[i], &ret->slot[i]);
    }
    if (ret->why[0] && ret->why[1]) {
        ret->current = -1;
    } else if (ret->why[0] || ret->why[1]) {
        ret->current = ret->why[0] ? 1 : 0;
    } else if (ret->slot[0].sequence == ret->slot[1].sequence) {
        /* Legal only of copies: which of two different ones is the newer nobody knows. */
        ret->current = memcmp(page[0], page[1], VHDX_HEADER_SIZE) == 0 ? 0 : -1;
    } else {
        ret->current = ret->slot[1].sequence > ret->slot[0].sequence;
    }
    return 0;
}

int vhdx_header_check(struct disk_file *f, const struct vhdx_header *h, struct hv_error *e)
{
    const char *path = disk_file_path(f);
    uint64_t size = disk_file_size(f);

    if (h->sequence > UINT64_MAX - UINT32_MAX) {
        return hv_fail(e, HV_USAGE, path, "header: its sequence number, %llu, leaves none for those to come",
                       (unsigned long long)h->sequence);
    }
    if (h->log_len == 0) {
        return guid_is_zero(&h->log_id) ? 0 : hv_fail(e, HV_USAGE, path, "header: a log is in use that has no room");
    }
    if (h->log_off % VHDX_UNIT || h->log_len % VHDX_UNIT || h->log_off < VHDX_AREA_END) {
        return hv_fail(e, HV_USAGE, path, "header: the log, 0x%x bytes at 0x%llx, is not in whole MiB behind the header area",
                       h->log_len, (unsigned long long)h->log_off);
    }
    if (h->log_len > VHDX_LOG_MAX) {
        return hv_fail(e, HV_USAGE, path, "header: a log of %u MiB; at most %llu are read", h->log_len >> 20,
                       (unsigned long long)(VHDX_LOG_MAX / MIB));
    }
    if (h->log_off > size || h->log_len > size - h->log_off) {
        return hv_fail(e, HV_USAGE, path, "header: the log, 0x%x bytes at 0x%llx, ends past the file (0x%llx)", h->log_len,
                       (unsigned long long)h->log_off, (unsigned long long)size);
    }
    if (!guid_is_zero(&h->log_id) && h->log_version != VHDX_LOG_VERSION) {
        hv_fail(e, HV_UNSUPPORTED, path, "header: a log of version %u", h->log_version);
        return -EOPNOTSUPP;
    }
    return 0;
}

/* ---- region tables ---- */

const char *vhdx_regions_load(struct disk_file *f, int copy, uint8_t *buf)
{
    if (disk_file_read(f, VHDX_REGIONS_OFF(copy), buf, VHDX_REGIONS_SIZE) < 0) {
        return "cannot be read";
    }
    if (memcmp(buf + VHDX_REGIONS_SIGNATURE, "regi", 4) != 0) {
        return "no signature";
    }
    if (get_le32(buf + VHDX_REGIONS_CRC) != sum_without(buf, VHDX_REGIONS_SIZE, VHDX_REGIONS_CRC)) {
        return "wrong checksum";
    }
    return get_le32(buf + VHDX_REGIONS_COUNT) > VHDX_REGIONS_MAX ? "too many entries" : NULL;
}

void vhdx_regions_seal(uint8_t *buf)
{
    put_le32(buf + VHDX_REGIONS_CRC, 0);
    put_le32(buf + VHDX_REGIONS_CRC, crc32c(0, buf, VHDX_REGIONS_SIZE));
}

static int by_offset(const void *a, const void *b)
{
    const struct vhdx_region *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

/* No two regions, nor one and the log, share a byte. */
static int check_overlap(struct disk_file *f, const struct vhdx_header *h, const struct vhdx_regions *rs,
                         struct hv_error *e)
{
    hv_autofree struct vhdx_region *sorted = hv_alloc_array(rs->count + 1, sizeof(*sorted));
    unsigned n = rs->count;

    if (!sorted) {
        return -ENOMEM;
    }
    memcpy(sorted, rs->r, n * sizeof(*sorted));
    if (h->log_len) {
        sorted[n++] = (struct vhdx_region){ .off = h->log_off, .len = h->log_len };
    }
    qsort(sorted, n, sizeof(*sorted), by_offset);
    for (unsigned i = 1; i < n; i++) {
        if (sorted[i - 1].off + sorted[i - 1].len > sorted[i].off) {
            return hv_fail(e, HV_USAGE, disk_file_path(f), "region table: what is at 0x%llx reaches into what is at 0x%llx",
                           (unsigned long long)sorted[i - 1].off, (unsigned long long)sorted[i].off);
        }
    }
    return 0;
}

static int parse_region(struct disk_file *f, const uint8_t *p, struct vhdx_region *x, struct hv_error *e)
{
    const char *path = disk_file_path(f);
    uint64_t size = disk_file_size(f);
    char text[GUID_TEXT_SIZE];

    memcpy(&x->id, p + VHDX_REGION_GUID, 16);
    x->off = get_le64(p + VHDX_REGION_OFFSET);
    x->len = get_le32(p + VHDX_REGION_LENGTH);
    x->required = get_le32(p + VHDX_REGION_FLAGS) & VHDX_REGION_REQUIRED;
    guid_format_upper(&x->id, text);
    if (x->off % VHDX_UNIT || x->len % VHDX_UNIT || x->off < VHDX_AREA_END || x->off > VHDX_FILE_MAX) {
        return hv_fail(e, HV_USAGE, path, "region table: %s, 0x%llx bytes at 0x%llx, is not in whole MiB behind the header area",
                       text, (unsigned long long)x->len, (unsigned long long)x->off);
    }
    if (!guid_equal(&x->id, &bat_id) && !guid_equal(&x->id, &metadata_id)) {
        if (x->required) {
            hv_fail(e, HV_UNSUPPORTED, path, "needs region %s, which this version does not know", text);
            return -EOPNOTSUPP;
        }
        return 0;
    }
    if (x->off > size || x->len > size - x->off) {
        return hv_fail(e, HV_USAGE, path, "region table: the %s, 0x%llx bytes at 0x%llx, ends past the file (0x%llx)",
                       guid_equal(&x->id, &bat_id) ? "BAT" : "metadata", (unsigned long long)x->len,
                       (unsigned long long)x->off, (unsigned long long)size);
    }
    return 0;
}

static int parse_regions(struct disk_file *f, const struct vhdx_header *h, const uint8_t *buf,
                         struct vhdx_regions *rs, struct hv_error *e)
{
    const char *path = disk_file_path(f);
    int r;

    rs->count = get_le32(buf + VHDX_REGIONS_COUNT);
    rs->r = hv_alloc_array(rs->count + 1, sizeof(*rs->r));
    if (!rs->r) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < rs->count; i++) {
        struct vhdx_region *x = &rs->r[i];
        const struct vhdx_region **known;

        r = parse_region(f, buf + VHDX_REGIONS_ENTRIES + i * VHDX_REGION_SIZE, x, e);
        if (r < 0) {
            return r;
        }
        known = guid_equal(&x->id, &bat_id) ? &rs->bat : guid_equal(&x->id, &metadata_id) ? &rs->metadata : NULL;
        if (known && *known) {
            return hv_fail(e, HV_USAGE, path, "region table: two regions are the %s", known == &rs->bat ? "BAT" : "metadata");
        }
        if (known) {
            *known = x;
        }
    }
    if (!rs->bat || !rs->metadata) {
        return hv_fail(e, HV_USAGE, path, "region table: there is no %s", rs->bat ? "metadata" : "BAT");
    }
    if (rs->metadata->len < VHDX_META_TABLE || rs->metadata->len > VHDX_METADATA_MAX || rs->bat->len > VHDX_BAT_MAX) {
        return hv_fail(e, HV_USAGE, path, "region table: %llu MiB of metadata and a BAT of %llu MiB are not sensible",
                       (unsigned long long)(rs->metadata->len / MIB), (unsigned long long)(rs->bat->len / MIB));
    }
    return check_overlap(f, h, rs, e);
}

int vhdx_regions_read(struct disk_file *f, const struct vhdx_header *h, struct vhdx_regions *ret,
                      struct hv_error *e)
{
    hv_autofree uint8_t *both = hv_alloc(2 * VHDX_REGIONS_SIZE);
    int r;

    *ret = (struct vhdx_regions){ 0 };
    if (!both) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    for (int i = 0; i < 2; i++) {
        ret->why[i] = vhdx_regions_load(f, i, both + i * VHDX_REGIONS_SIZE);
    }
    if (ret->why[0] && ret->why[1]) {
        return hv_fail(e, HV_USAGE, disk_file_path(f), "both region tables are bad: %s; %s", ret->why[0], ret->why[1]);
    }
    ret->copy = ret->why[0] ? 1 : 0;
    r = parse_regions(f, h, both + ret->copy * VHDX_REGIONS_SIZE, ret, e);
    if (r < 0) {
        vhdx_regions_fini(ret);
    }
    return r == -ENOMEM ? hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory") : r;
}

void vhdx_regions_fini(struct vhdx_regions *rs)
{
    free(rs->r);
    rs->r = NULL;
    rs->bat = rs->metadata = NULL;
    rs->count = 0;
}
