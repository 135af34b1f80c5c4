/*
 * GPT, UEFI 2.10 5.3: a header of 92 bytes with its own CRC and that of the array of entries,
 * twice: in LBA 1, and in the last LBA with the array before it.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "hv/base/endian.h"
#include "hv/fs/partition_impl.h"

#define SIGNATURE   0x5452415020494645u      /* "EFI PART" */
#define REVISION    0x00010000u
#define HEADER_LEN  92u

/* A header that passed its checks, with the array read. */
struct gpt {
    uint64_t lba, alternate, first, last, array;
    uint32_t count, entry_size;
    struct guid disk;
    uint8_t *entries;            /* count * entry_size */
};

/* 0 good, 1 not there or damaged (*ret_damaged: there is a signature), negative: I/O, memory. */
static int read_header(struct disk *d, uint32_t sector, uint64_t lba, struct gpt *ret, bool *ret_damaged)
{
    uint64_t sectors = disk_size(d) / sector;
    uint8_t h[512];
    struct gpt g = { .lba = lba };

    *ret_damaged = false;
    if (lba == 0 || lba >= sectors) {
        return 1;
    }
    int r = disk_read(d, lba * sector, h, sizeof(h));
    if (r < 0) {
        return r;
    }
    if (get_le64(h) != SIGNATURE) {
        return 1;
    }
    *ret_damaged = true;
    uint32_t len = get_le32(h + 12), crc = get_le32(h + 16), array_crc = get_le32(h + 88);
    if (len < HEADER_LEN || len > sizeof(h)) {
        return 1;
    }
    put_le32(h + 16, 0);
    g.alternate = get_le64(h + 32);
    g.first = get_le64(h + 40);
    g.last = get_le64(h + 48);
    memcpy(g.disk.b, h + 56, 16);
    g.array = get_le64(h + 72);
    g.count = get_le32(h + 80);
    g.entry_size = get_le32(h + 84);
    if (partition_crc32(0, h, len) != crc || get_le64(h + 24) != lba || g.count > PARTITION_MAX ||
        g.entry_size < 128 || g.entry_size > 4096 || g.entry_size % 8) {
        return 1;
    }
    uint64_t bytes = (uint64_t)g.count * g.entry_size;
    if (g.array < 2 || g.array >= sectors || bytes > (sectors - g.array) * sector) {
        return 1;
    }
    g.entries = hv_alloc(bytes ? bytes : 1);
    if (!g.entries) {
        return -ENOMEM;
    }
    r = disk_read(d, g.array * sector, g.entries, bytes);
    if (r < 0 || partition_crc32(0, g.entries, bytes) != array_crc) {
        free(g.entries);
        return r < 0 ? r : 1;
    }
    *ret = g;
    return 0;
}

static void name_to_utf8(const uint8_t *utf16, char ret[PARTITION_NAME])
{
    size_t n = 0;

    for (unsigned i = 0; i < 36; i++) {
        uint32_t c = get_le16(utf16 + 2 * i);
        if (c == 0) {
            break;
        }
        if (c >= 0xd800 && c < 0xdc00 && i + 1 < 36 && (get_le16(utf16 + 2 * i + 2) & 0xfc00) == 0xdc00) {
            c = 0x10000 + ((c & 0x3ff) << 10 | (get_le16(utf16 + 2 * i + 2) & 0x3ff));
            i++;
        } else if (c >= 0xd800 && c < 0xe000) {
            c = '?';
        }
        if (c < 0x80) {
            ret[n++] = (char)c;
        } else if (c < 0x800) {
            ret[n++] = (char)(0xc0 | c >> 6);
            ret[n++] = (char)(0x80 | (c & 0x3f));
        } else if (c < 0x10000) {
            ret[n++] = (char)(0xe0 | c >> 12);
            ret[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            ret[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            ret[n++] = (char)(0xf0 | c >> 18);
            ret[n++] = (char)(0x80 | (c >> 12 & 0x3f));
            ret[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            ret[n++] = (char)(0x80 | (c & 0x3f));
        }
    }
    ret[n] = '\0';
}
static_assert(36 * 3 < PARTITION_NAME, "a UTF-16 unit is at most three bytes of UTF-8");

/* Well-formed UTF-8 up to 36 units; what is not stands as '?'. */
static void name_to_utf16(const char *name, uint8_t ret[72])
{
    unsigned n = 0;

    memset(ret, 0, 72);
    for (const uint8_t *p = (const uint8_t *)name; *p && n < 36;) {
        unsigned more = *p < 0x80 ? 0 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;
        uint32_t c = more == 0 ? *p : *p & (0x3fu >> more);
        p++;
        for (; more && (*p & 0xc0) == 0x80; more--, p++) {
            c = c << 6 | (*p & 0x3f);
        }
        if (more || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
            c = '?';
        }
        if (c >= 0x10000) {
            if (n + 2 > 36) {
                return;
            }
            put_le16(ret + 2 * n++, (uint16_t)(0xd800 | (c - 0x10000) >> 10));
            c = 0xdc00 | ((c - 0x10000) & 0x3ff);
        }
        put_le16(ret + 2 * n++, (uint16_t)c);
    }
}

static int take_entries(struct disk *d, uint32_t sector, const struct gpt *g, struct partition_table *t)
{
    uint64_t sectors = disk_size(d) / sector;

    for (uint32_t i = 0; i < g->count; i++) {
        const uint8_t *p = g->entries + (size_t)i * g->entry_size;
        struct partition e = { .number = i + 1, .attributes = get_le64(p + 48) };
        uint64_t first = get_le64(p + 32), last = get_le64(p + 40);
        char text[80];

        memcpy(e.type.b, p, 16);
        memcpy(e.id.b, p + 16, 16);
        if (guid_is_zero(&e.type)) {
            continue;
        }
        if (first > last || first == 0 || last >= sectors) {
            snprintf(text, sizeof(text), "partition %u lies outside the disk", i + 1);
            partition_note(t, text);
            continue;
        }
        e.offset = first * sector;
        e.len = (last - first + 1) * sector;
        name_to_utf8(p + 56, e.name);
        int r = partition_add(t, &e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* 1: there is none with this sector size. */
static int read_with(struct disk *d, uint32_t sector, struct partition_table *t)
{
    uint64_t sectors = disk_size(d) / sector;
    struct gpt g = { 0 }, other = { 0 };
    bool first_damaged, damaged;
    int r, r2;

    if (sectors < 6) {
        return 1;
    }
    r = read_header(d, sector, 1, &g, &first_damaged);
    if (r < 0) {
        return r;
    }
    if (r == 0) {
        r2 = read_header(d, sector, g.alternate, &other, &damaged);
        if (r2 > 0) {
            partition_note(t, "the backup header is damaged or missing");
        }
        if (r2 == 0 && (other.count != g.count || other.entry_size != g.entry_size ||
                        memcmp(other.entries, g.entries, (size_t)g.count * g.entry_size))) {
            partition_note(t, "the backup table differs from the primary one");
        }
        free(other.entries);
        if (r2 < 0) {
            free(g.entries);
            return r2;
        }
        t->backup_misplaced = g.alternate != sectors - 1;
        if (t->backup_misplaced) {
            partition_note(t, "the backup header is not at the end of the disk");
        }
    } else {
        r = read_header(d, sector, sectors - 1, &g, &damaged);
        if (r != 0) {
            return r;
        }
        partition_note(t, first_damaged ? "the primary header is damaged; read from the backup"
                                        : "the primary header is missing; read from the backup");
    }
    t->scheme = PARTITION_GPT;
    t->sector = sector;
    t->disk_id = g.disk;
    t->first_usable = MIN(g.first, sectors) * sector;
    t->end_usable = g.last < sectors ? (g.last + 1) * sector : sectors * sector;
    r = take_entries(d, sector, &g, t);
    free(g.entries);
    return r;
}

int gpt_read(struct disk *d, struct partition_table *t, struct hv_error *e)
{
    /* A raw file does not say its sector size, and images move between disks of both. */
    const uint32_t sizes[2] = { disk_logical_sector(d), disk_logical_sector(d) == 512 ? 4096 : 512 };

    for (unsigned i = 0; i < 2; i++) {
        int r = read_with(d, sizes[i], t);
        if (r < 0) {
            return hv_fail_errno(e, -r, NULL, "cannot read the partition table");
        }
        if (r == 0) {
            if (i == 1) {
                char text[64];
                snprintf(text, sizeof(text), "the table was made for sectors of %u bytes", sizes[1]);
                partition_note(t, text);
            }
            return 0;
        }
    }
    return 0;
}

static void put_header(uint8_t *h, const struct partition_table *t, uint64_t lba, uint64_t alternate,
                       uint64_t array, uint64_t first, uint64_t last, uint32_t array_crc)
{
    put_le64(h, SIGNATURE);
    put_le32(h + 8, REVISION);
    put_le32(h + 12, HEADER_LEN);
    put_le64(h + 24, lba);
    put_le64(h + 32, alternate);
    put_le64(h + 40, first);
    put_le64(h + 48, last);
    memcpy(h + 56, t->disk_id.b, 16);
    put_le64(h + 72, array);
    put_le32(h + 80, GPT_ENTRIES);
    put_le32(h + 84, GPT_ENTRY_SIZE);
    put_le32(h + 88, array_crc);
    put_le32(h + 16, partition_crc32(0, h, HEADER_LEN));
}

int gpt_write(struct disk *d, uint64_t size, const struct partition_table *t, struct hv_error *e)
{
    uint32_t sector = disk_logical_sector(d);
    uint64_t sectors = size / sector;
    size_t array_len = ROUND_UP((size_t)GPT_ENTRIES * GPT_ENTRY_SIZE, sector);
    uint64_t array_sectors = array_len / sector;
    hv_autofree uint8_t *array = hv_alloc(array_len), *head = hv_alloc(sector);
    uint64_t first, end;
    int r;

    partition_limits_within(sector, size, PARTITION_GPT, &first, &end);
    if (!array || !head) {
        return -ENOMEM;
    }
    if (end <= first) {
        hv_fail(e, HV_NO_RESOURCES, NULL, "the disk is too small for a partition table");
        return -ENOSPC;
    }
    for (unsigned i = 0; i < t->n; i++) {
        const struct partition *p = &t->p[i];
        if (p->number < 1 || p->number > GPT_ENTRIES) {
            return hv_fail(e, HV_UNSUPPORTED, NULL, "partition %u: only tables of %u entries can be written",
                           p->number, GPT_ENTRIES);
        }
        uint8_t *q = array + (size_t)(p->number - 1) * GPT_ENTRY_SIZE;
        memcpy(q, p->type.b, 16);
        memcpy(q + 16, p->id.b, 16);
        put_le64(q + 32, p->offset / sector);
        put_le64(q + 40, (p->offset + p->len) / sector - 1);
        put_le64(q + 48, p->attributes);
        name_to_utf16(p->name, q + 56);
    }
    uint32_t crc = partition_crc32(0, array, (size_t)GPT_ENTRIES * GPT_ENTRY_SIZE);
    uint64_t last = end / sector - 1;

    /* Backup, flush, primary, flush: at any moment one of them is whole. */
    put_header(head, t, sectors - 1, 1, sectors - 1 - array_sectors, first / sector, last, crc);
    r = disk_write(d, (sectors - 1 - array_sectors) * sector, array, array_len);
    if (r == 0) {
        r = disk_write(d, (sectors - 1) * sector, head, sector);
    }
    if (r == 0) {
        r = disk_flush(d);
    }
    if (r < 0) {
        return r;
    }
    memset(head, 0, sector);
    put_header(head, t, 1, sectors - 1, 2, first / sector, last, crc);
    r = disk_write(d, 2 * sector, array, array_len);
    if (r == 0) {
        r = disk_write(d, sector, head, sector);
    }
    if (r == 0) {
        r = disk_read(d, 0, head, 512);
    }
    if (r < 0) {
        return r;
    }
    mbr_protective(head, sectors);
    r = disk_write(d, 0, head, 512);
    return r < 0 ? r : disk_flush(d);
}
