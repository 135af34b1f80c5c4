/*
 * What GPT and MBR have in common: reading the table that is there, types, writing one.
 *
 *   LBA 0        MBR: boot code, disk signature at 440, 4 entries of 16 at 446, 55 AA at 510
 *   LBA 1        GPT header, LBA 2.. entries
 *   last LBA     backup header, its entries before it
 */
#include "hv/fs/partition.h"

#include <errno.h>
#include <stdio.h>

#include "hv/base/endian.h"
#include "hv/fs/partition_impl.h"
#include "hv/fs/probe.h"

static const char *const scheme_name[PARTITION_SCHEME_COUNT] = { "none", "mbr", "gpt" };

const char *partition_scheme_name(enum partition_scheme s)
{
    return scheme_name[s];
}

/* GPT types: UEFI 5.3.3, the Discoverable Partitions Specification, Microsoft's list. */
static const struct {
    const char *guid;
    uint8_t mbr;
    const char *name;
} types[] = {
    [PARTITION_LINUX]       = { "0fc63daf-8483-4772-8e79-3d69d8477de4", 0x83, "Linux file system" },
    [PARTITION_ROOT_X86_64] = { "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", 0, "Linux root (x86-64)" },
    [PARTITION_ESP]         = { "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", 0xef, "EFI system" },
    [PARTITION_SWAP]        = { "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", 0x82, "Linux swap" },
    { "21686148-6449-6e6f-744e-656564454649", 0, "BIOS boot" },
    { "bc13c2ff-59e6-4262-a352-b275fd6f7172", 0xea, "Linux extended boot" },
    { "933ac7e1-2eb4-4f13-b844-0e14e2aef915", 0, "Linux home" },
    { "e6d6d379-f507-44c2-a23c-238f2a3df928", 0x8e, "Linux LVM" },
    { "a19d880f-05fc-4d3b-a006-743f0f84911e", 0xfd, "Linux RAID" },
    { "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", 0x07, "Microsoft basic data" },
    { "e3c9e316-0b5c-4db8-817d-f92df00215ae", 0, "Microsoft reserved" },
    { "de94bba4-06d1-4d40-a16a-bfd50179d6ac", 0x27, "Windows recovery" },
    { "516e7cb4-6ecf-11d6-8ff8-00022d09712b", 0xa5, "FreeBSD" },
    { NULL, 0x01, "FAT12" }, { NULL, 0x04, "FAT16" }, { NULL, 0x06, "FAT16" }, { NULL, 0x0e, "FAT16" },
    { NULL, 0x0b, "FAT32" }, { NULL, 0x0c, "FAT32" }, { NULL, 0xee, "GPT protective" },
    { NULL, 0x05, "extended" }, { NULL, 0x0f, "extended" }, { NULL, 0x85, "extended" },
};

const char *partition_type_name(const struct partition_table *t, const struct partition *p)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        struct guid g;
        if (t->scheme == PARTITION_MBR ? types[i].mbr && types[i].mbr == p->mbr_type
                                       : types[i].guid && guid_parse(types[i].guid, &g) == 0 &&
                                             guid_equal(&g, &p->type)) {
            return types[i].name;
        }
    }
    return NULL;
}

struct guid partition_gpt_type(enum partition_use use)
{
    struct guid g = { { 0 } };

    hv_assert(guid_parse(types[use].guid, &g) == 0);
    return g;
}

uint8_t partition_mbr_type(enum partition_use use)
{
    return types[use].mbr ? types[use].mbr : types[PARTITION_LINUX].mbr;
}

uint32_t partition_crc32(uint32_t crc, const void *p, size_t len)
{
    /* Polynomial 0xEDB88320, four bits a step. */
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    const uint8_t *b = p;

    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= b[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

void partition_note(struct partition_table *t, const char *text)
{
    size_t used = strlen(t->note);

    if (used < sizeof(t->note) - 1) {
        snprintf(t->note + used, sizeof(t->note) - used, "%s%s", used ? "; " : "", text);
    }
}

int partition_add(struct partition_table *t, const struct partition *p)
{
    if (t->n >= PARTITION_MAX) {
        return -E2BIG;
    }
    struct partition *grown = hv_realloc_array(t->p, t->n + 1, sizeof(*grown));
    if (!grown) {
        return -ENOMEM;
    }
    t->p = grown;
    t->p[t->n++] = *p;
    return 0;
}

void partition_table_fini(struct partition_table *t)
{
    free(t->p);
    *t = (struct partition_table){ 0 };
}

const struct partition *partition_find(const struct partition_table *t, unsigned number)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (t->p[i].number == number) {
            return &t->p[i];
        }
    }
    return NULL;
}

static uint64_t array_sectors(uint32_t sector)
{
    return ROUND_UP((uint64_t)GPT_ENTRIES * GPT_ENTRY_SIZE, sector) / sector;
}

void partition_limits_within(uint32_t sector, uint64_t size, enum partition_scheme s, uint64_t *ret_first,
                             uint64_t *ret_end)
{
    uint64_t sectors = size / sector, head = 1, tail = 0;

    if (s == PARTITION_GPT) {
        head = 2 + array_sectors(sector);
        tail = 1 + array_sectors(sector);
    }
    *ret_first = s == PARTITION_NONE ? 0 : head * sector;
    *ret_end = sectors > head + tail ? (sectors - tail) * sector : *ret_first;
}

void partition_limits(const struct disk *d, enum partition_scheme s, uint64_t *ret_first, uint64_t *ret_end)
{
    partition_limits_within(disk_logical_sector(d), disk_size(d), s, ret_first, ret_end);
}

uint64_t partition_least_size(const struct partition_table *t)
{
    uint64_t end = 0;

    for (unsigned i = 0; i < t->n; i++) {
        end = MAX(end, t->p[i].offset + t->p[i].len);
    }
    if (t->scheme == PARTITION_GPT) {
        end = MAX(end, (2 + array_sectors(t->sector)) * t->sector) + (1 + array_sectors(t->sector)) * t->sector;
    }
    return t->scheme == PARTITION_NONE ? 0 : ROUND_UP(MAX(end, (uint64_t)t->sector), (uint64_t)t->sector);
}

int partition_read(struct disk *d, struct partition_table *ret, struct hv_error *e)
{
    struct partition_table t = { .sector = disk_logical_sector(d) };
    uint8_t mbr[512];
    int r;

    if (disk_size(d) < sizeof(mbr)) {
        *ret = t;
        return 0;
    }
    r = disk_read(d, 0, mbr, sizeof(mbr));
    if (r < 0) {
        return hv_fail_errno(e, -r, NULL, "cannot read the partition table");
    }
    /* A stale GPT under a plain MBR is not the table: Linux and Windows take the MBR then. */
    if (!mbr_is_plain(mbr)) {
        r = gpt_read(d, &t, e);
    }
    if (r == 0 && t.scheme == PARTITION_NONE && mbr_is_table(mbr) && !probe_is_fat(mbr) && !probe_is_ntfs(mbr)) {
        if (mbr_is_protective(mbr)) {
            r = hv_fail(e, HV_USAGE, NULL, "partition table: the disk says GPT, and both its headers are damaged");
        } else {
            r = mbr_read(d, mbr, &t, e);
        }
    }
    if (r < 0) {
        partition_table_fini(&t);
        return r;
    }
    *ret = t;
    return 0;
}

/* Whole sectors, inside the limits, no two overlapping. Quadratic in a number that is small. */
static int check_layout(const struct disk *d, uint64_t size, const struct partition_table *t, struct hv_error *e)
{
    uint64_t first, end, sector = disk_logical_sector(d);

    partition_limits_within((uint32_t)sector, size, t->scheme, &first, &end);
    for (unsigned i = 0; i < t->n; i++) {
        const struct partition *p = &t->p[i];
        if (p->len == 0 || p->offset % sector || p->len % sector) {
            return hv_fail(e, HV_USAGE, NULL, "partition %u: not whole sectors of %u bytes", p->number, (unsigned)sector);
        }
        if (p->offset < first || p->len > end || p->offset > end - p->len) {
            hv_fail(e, HV_NO_RESOURCES, NULL, "partition %u does not fit on the disk", p->number);
            return -ENOSPC;
        }
        for (unsigned j = 0; j < i; j++) {
            const struct partition *q = &t->p[j];
            bool apart = p->offset >= q->offset + q->len || q->offset >= p->offset + p->len;
            if (p->number == q->number || !(apart || p->extended || q->extended)) {
                return hv_fail(e, HV_USAGE, NULL, "partitions %u and %u overlap", q->number, p->number);
            }
        }
    }
    return 0;
}

int partition_write(struct disk *d, const struct partition_table *t, struct hv_error *e)
{
    return partition_write_within(d, disk_size(d), t, e);
}

int partition_write_within(struct disk *d, uint64_t size, const struct partition_table *t, struct hv_error *e)
{
    int r;

    hv_assert(t->scheme == PARTITION_GPT || t->scheme == PARTITION_MBR);
    hv_assert(size <= disk_size(d));
    r = check_layout(d, size, t, e);
    if (r < 0) {
        return r;
    }
    r = t->scheme == PARTITION_GPT ? gpt_write(d, size, t, e) : mbr_write(d, t, e);
    if (r < 0 && e && !hv_error_is_set(e)) {
        hv_fail_errno(e, -r, NULL, "cannot write the partition table");
    }
    return r;
}
