/*
 * MBR: four entries of {flag, CHS, type, CHS, u32 first sector, u32 count} at 446, and chains of
 * extended boot records for the rest. In an EBR entry 0 is a partition relative to that EBR,
 * entry 1 the next EBR relative to the extended partition.
 */
#include <errno.h>
#include <stdio.h>

#include "hv/base/endian.h"
#include "hv/fs/partition_impl.h"

#define ENTRY(mbr, i) ((mbr) + 446 + 16 * (i))
#define TYPE_PROTECTIVE 0xee

static bool is_extended(uint8_t type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

bool mbr_is_table(const uint8_t mbr[512])
{
    if (get_le16(mbr + 510) != 0xaa55) {
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (ENTRY(mbr, i)[0] & 0x7f) {
            return false;
        }
    }
    return true;
}

bool mbr_is_protective(const uint8_t mbr[512])
{
    for (unsigned i = 0; mbr_is_table(mbr) && i < 4; i++) {
        if (ENTRY(mbr, i)[4] == TYPE_PROTECTIVE) {
            return true;
        }
    }
    return false;
}

bool mbr_is_plain(const uint8_t mbr[512])
{
    if (!mbr_is_table(mbr) || mbr_is_protective(mbr)) {
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (ENTRY(mbr, i)[4] && get_le32(ENTRY(mbr, i) + 12)) {
            return true;
        }
    }
    return false;
}

/* One entry as a partition; false where it is empty or lies outside the disk. */
static bool take(const struct disk *d, struct partition_table *t, const uint8_t *entry, uint64_t base,
                 unsigned number, struct partition *ret)
{
    uint64_t first = base + get_le32(entry + 8), count = get_le32(entry + 12);
    uint64_t sectors = disk_size(d) / t->sector;
    char text[96];

    if (!entry[4] || !count) {
        return false;
    }
    if (first == 0 || first >= sectors) {
        snprintf(text, sizeof(text), "partition %u lies outside the disk", number);
        partition_note(t, text);
        return false;
    }
    if (count > sectors - first) {
        snprintf(text, sizeof(text), "partition %u goes past the end of the disk", number);
        partition_note(t, text);
        count = sectors - first;
    }
    *ret = (struct partition){
        .number = number,
        .offset = first * t->sector,
        .len = count * t->sector,
        .mbr_type = entry[4],
        .active = entry[0] == 0x80,
        .extended = is_extended(entry[4]),
    };
    return true;
}

/* Follows the chain of EBRs; a loop ends at PARTITION_LOGICAL at the latest. */
static int read_logical(struct disk *d, struct partition_table *t, const struct partition *extended)
{
    uint64_t start = extended->offset / t->sector, at = start;
    unsigned number = 5;

    for (unsigned i = 0; i < PARTITION_LOGICAL; i++) {
        uint8_t ebr[512];
        struct partition p;
        int r = disk_read(d, at * t->sector, ebr, sizeof(ebr));
        if (r < 0) {
            return r;
        }
        if (get_le16(ebr + 510) != 0xaa55) {
            partition_note(t, "the chain of logical partitions is broken");
            return 0;
        }
        if (take(d, t, ENTRY(ebr, 0), at, number, &p) && !p.extended) {
            r = partition_add(t, &p);
            if (r < 0) {
                return r;
            }
            number++;
        }
        uint64_t next = get_le32(ENTRY(ebr, 1) + 8);
        if (!is_extended(ENTRY(ebr, 1)[4]) || next == 0) {
            return 0;
        }
        at = start + next;
        if (at * t->sector >= extended->offset + extended->len) {
            partition_note(t, "the chain of logical partitions leaves its container");
            return 0;
        }
    }
    partition_note(t, "the chain of logical partitions does not end");
    return 0;
}

int mbr_read(struct disk *d, const uint8_t mbr[512], struct partition_table *t, struct hv_error *e)
{
    struct partition p;
    int r;

    t->scheme = PARTITION_MBR;
    t->mbr_id = get_le32(mbr + 440);
    t->first_usable = t->sector;
    t->end_usable = disk_size(d) / t->sector * t->sector;
    for (unsigned i = 0; i < 4; i++) {
        if (take(d, t, ENTRY(mbr, i), 0, i + 1, &p)) {
            r = partition_add(t, &p);
            if (r < 0) {
                return hv_fail_errno(e, -r, NULL, "cannot read the partition table");
            }
        }
    }
    unsigned primaries = t->n;
    for (unsigned i = 0; i < primaries; i++) {
        struct partition extended = t->p[i];
        if (extended.extended) {
            r = read_logical(d, t, &extended);
            if (r < 0) {
                return hv_fail_errno(e, -r, NULL, "cannot read the logical partitions");
            }
            break;                                  /* Linux knows one container */
        }
    }
    return 0;
}

/* Sector numbers past 1023/254/63 are written as that: "use LBA" (the customary geometry 255/63). */
static void put_chs(uint8_t *p, uint64_t lba)
{
    uint64_t c = lba / (255 * 63), h = lba / 63 % 255, s = lba % 63 + 1;

    if (c > 1023) {
        c = 1023;
        h = 254;
        s = 63;
    }
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(s | (c >> 2 & 0xc0));
    p[2] = (uint8_t)c;
}

static void put_entry(uint8_t *entry, bool active, uint8_t type, uint64_t first, uint64_t count)
{
    entry[0] = active ? 0x80 : 0;
    put_chs(entry + 1, first);
    entry[4] = type;
    put_chs(entry + 5, first + count - 1);
    put_le32(entry + 8, (uint32_t)first);
    put_le32(entry + 12, (uint32_t)count);
}

void mbr_protective(uint8_t mbr[512], uint64_t sectors)
{
    memset(mbr + 440, 0, 72);
    put_entry(ENTRY(mbr, 0), false, TYPE_PROTECTIVE, 1, MIN(sectors - 1, (uint64_t)UINT32_MAX));
    put_le16(mbr + 510, 0xaa55);
    /* UEFI 5.2.3: starts at CHS 0/0/2 whatever the geometry. */
    ENTRY(mbr, 0)[1] = 0;
    ENTRY(mbr, 0)[2] = 2;
    ENTRY(mbr, 0)[3] = 0;
}

int mbr_write(struct disk *d, const struct partition_table *t, struct hv_error *e)
{
    uint32_t sector = disk_logical_sector(d);
    uint8_t mbr[512];
    int r = disk_read(d, 0, mbr, sizeof(mbr));

    if (r < 0) {
        return r;
    }
    memset(mbr + 440, 0, 72);
    put_le32(mbr + 440, t->mbr_id);
    put_le16(mbr + 510, 0xaa55);
    for (unsigned i = 0; i < t->n; i++) {
        const struct partition *p = &t->p[i];
        uint64_t first = p->offset / sector, count = p->len / sector;
        if (p->number < 1 || p->number > 4 || p->extended) {
            return hv_fail(e, HV_UNSUPPORTED, NULL, "an MBR with logical partitions cannot be written");
        }
        if (first > UINT32_MAX || count > UINT32_MAX) {
            hv_fail(e, HV_USAGE, NULL, "partition %u: an MBR cannot describe it (2T at most)", p->number);
            hv_hint(e, "use --layout gpt");
            return -E2BIG;
        }
        put_entry(ENTRY(mbr, p->number - 1), p->active, p->mbr_type, first, count);
    }
    r = disk_write(d, 0, mbr, sizeof(mbr));
    return r < 0 ? r : disk_flush(d);
}
