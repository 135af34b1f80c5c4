/*
 * VHD: looking at the structure of a file, and putting right what can be without inventing data.
 *
 * Both walk the same findings; repair acts on those that have a cure. Blocks whose place is
 * outside the file are lost: their entry is cleared, and the range is told.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/vhd.h"

/* What one walk knows. */
struct walk {
    struct disk_file *f;
    disk_problem_fn *fn;
    void *arg;
    bool repair, dry;
    uint8_t footer[VHD_FOOTER_SIZE], header[VHD_HEADER_SIZE];
    uint64_t end;                        /* where the end footer is or should be */
    uint64_t header_offset, bat_offset, size;
    uint32_t block_size, bitmap_size, entries, bat_entries;
    uint64_t room;                       /* where copies of blocks may go */
    bool footers_changed;
};

struct placed { uint64_t at; uint32_t block; };

static int by_place(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;

    return x->at != y->at ? (x->at < y->at ? -1 : 1) : x->block < y->block ? -1 : x->block > y->block;
}

static unsigned long long ull(uint64_t v)
{
    return v;
}

static bool acts(const struct walk *w)
{
    return w->repair && !w->dry;
}

static void walk_footers(struct walk *w, bool front_bad, bool end_bad)
{
    uint8_t front[VHD_FOOTER_SIZE];

    if (disk_file_size(w->f) % DISK_SECTOR == 511) {
        disk_problem(w->fn, w->arg, PROBLEM_HARMLESS, "footer: of 511 bytes, as before 2004");
    } else if (!end_bad && disk_file_size(w->f) % DISK_SECTOR) {
        disk_problem(w->fn, w->arg, PROBLEM_HARMLESS, "size: %u bytes behind the footer",
                     (unsigned)(disk_file_size(w->f) % DISK_SECTOR));
    }
    if (end_bad) {
        disk_problem(w->fn, w->arg, PROBLEM_REPAIRABLE, "footer: the one at the end is missing or damaged");
        w->footers_changed = true;
    }
    if (front_bad) {
        disk_problem(w->fn, w->arg, PROBLEM_REPAIRABLE, "footer: the copy in front is damaged");
        w->footers_changed = true;
    } else if (!end_bad && get_be32(w->footer + VHD_F_TYPE) != VHD_TYPE_FIXED &&
               disk_file_read(w->f, 0, front, sizeof(front)) == 0 &&
               memcmp(front, w->footer, sizeof(front)) != 0) {
        disk_problem(w->fn, w->arg, PROBLEM_REPAIRABLE, "footer: the copy in front differs from the one at the end");
        w->footers_changed = true;
    }
    if (w->footer[VHD_F_SAVED_STATE] == 1) {
        disk_problem(w->fn, w->arg, PROBLEM_HARMLESS, "footer: the disk belongs to a VM with saved state");
    }
    if (get_be64(w->footer + VHD_F_CURRENT_SIZE) % DISK_SECTOR) {
        disk_problem(w->fn, w->arg, PROBLEM_HARMLESS, "footer: the size is not a multiple of 512");
    }
}

/* The header and the place of the BAT; false if there is no going on. */
static bool walk_header(struct walk *w)
{
    uint64_t file = disk_file_size(w->f), room;

    w->header_offset = get_be64(w->footer + VHD_F_DATA_OFFSET);
    if (w->header_offset % 8 || w->header_offset < VHD_FOOTER_SIZE || w->header_offset > w->end ||
        w->end - w->header_offset < VHD_HEADER_SIZE ||
        disk_file_read(w->f, w->header_offset, w->header, VHD_HEADER_SIZE) < 0) {
        disk_problem(w->fn, w->arg, 0, "header: at 0x%llx, outside the file", ull(w->header_offset));
        return false;
    }
    if (memcmp(w->header, VHD_HEADER_COOKIE, 8) != 0) {
        disk_problem(w->fn, w->arg, 0, "header: not a dynamic header at 0x%llx", ull(w->header_offset));
        return false;
    }
    w->bat_offset = get_be64(w->header + VHD_H_TABLE_OFFSET);
    w->bat_entries = get_be32(w->header + VHD_H_ENTRIES);
    w->block_size = get_be32(w->header + VHD_H_BLOCK_SIZE);
    if (w->block_size < DISK_SECTOR || w->block_size > VHD_MAX_BLOCK || w->block_size & (w->block_size - 1)) {
        disk_problem(w->fn, w->arg, 0, "header: block size of %u bytes", w->block_size);
        return false;
    }
    if (get_be32(w->header + VHD_H_VERSION) >> 16 != VHD_VERSION >> 16) {
        disk_problem(w->fn, w->arg, 0, "header: unknown version 0x%x", get_be32(w->header + VHD_H_VERSION));
        return false;
    }
    if (w->bat_offset % DISK_SECTOR || w->bat_offset > file || w->bat_offset < VHD_FOOTER_SIZE) {
        disk_problem(w->fn, w->arg, 0, "bat: at 0x%llx, outside the file", ull(w->bat_offset));
        return false;
    }
    room = (w->size + w->block_size - 1) / w->block_size;
    if (room > UINT32_MAX || room > w->bat_entries) {
        disk_problem(w->fn, w->arg, 0, "bat: %u entries are too few for the size of %llu bytes",
                     w->bat_entries, ull(w->size));
        return false;
    }
    w->entries = (uint32_t)room;
    if (w->bat_offset < w->header_offset + VHD_HEADER_SIZE && w->bat_offset + room * 4 > w->header_offset) {
        disk_problem(w->fn, w->arg, 0, "bat: at 0x%llx, in the header", ull(w->bat_offset));
        return false;
    }
    if (w->bat_offset > w->end || (uint64_t)w->entries * 4 > w->end - w->bat_offset) {
        disk_problem(w->fn, w->arg, 0, "bat: %u entries at 0x%llx go past the end of the file", w->entries,
                     ull(w->bat_offset));
        return false;
    }
    w->bitmap_size = vhd_bitmap_size(w->block_size);
    if (!vhd_header_valid(w->header)) {          /* all that it says was plausible */
        disk_problem(w->fn, w->arg, PROBLEM_REPAIRABLE, "header: the checksum is wrong");
        if (acts(w)) {
            vhd_seal_header(w->header);
            return disk_file_write(w->f, w->header_offset, w->header, VHD_HEADER_SIZE) == 0 &&
                   disk_file_sync(w->f) == 0;
        }
    }
    return true;
}

static int set_entry(struct walk *w, uint32_t block, uint32_t value)
{
    uint8_t b[4];

    put_be32(b, value);
    return disk_file_write(w->f, w->bat_offset + (uint64_t)block * 4, b, sizeof(b));
}

/* Bytes of the file that block i must have: the last one of a disk may be cut. */
static uint64_t needed(const struct walk *w, uint32_t block)
{
    return w->bitmap_size + MIN((uint64_t)w->block_size, w->size - (uint64_t)block * w->block_size);
}

/* What is wrong with an entry by itself; NULL if nothing. */
static const char *entry_fault(const struct walk *w, uint32_t block, uint64_t at)
{
    uint64_t stop = at + w->bitmap_size + w->block_size, bat_stop = w->bat_offset + (uint64_t)w->entries * 4;

    if (at < VHD_FOOTER_SIZE || (at < w->header_offset + VHD_HEADER_SIZE && stop > w->header_offset)) {
        return "in the header";
    }
    if (at < bat_stop && stop > w->bat_offset) {
        return "in the BAT";
    }
    return at + needed(w, block) > w->end ? "past the end of the file" : NULL;
}

/* All entries: those with a place in list, in the order of the file. */
static int walk_bat(struct walk *w, struct placed **ret, size_t *ret_count)
{
    hv_autofree uint8_t *chunk = hv_alloc(64 * KIB);
    struct placed *list = NULL;
    size_t n = 0, room = 0;
    int r = chunk ? 0 : -ENOMEM;

    for (uint32_t first = 0; first < w->entries && r == 0; first += 64 * KIB / 4) {
        uint32_t count = (uint32_t)MIN((uint64_t)w->entries - first, 64 * KIB / 4);

        r = disk_file_read(w->f, w->bat_offset + (uint64_t)first * 4, chunk, (uint64_t)count * 4);
        for (uint32_t i = 0; i < count && r == 0; i++) {
            uint32_t entry = get_be32(chunk + (size_t)i * 4), block = first + i;
            uint64_t at = (uint64_t)entry * DISK_SECTOR;
            const char *fault = entry == VHD_UNUSED ? NULL : entry_fault(w, block, at);

            if (entry == VHD_UNUSED) {
                continue;
            }
            if (fault) {
                disk_problem(w->fn, w->arg, PROBLEM_REPAIRABLE,
                             "bat: block %u (bytes %llu to %llu of the disk) at 0x%llx, %s", block,
                             ull((uint64_t)block * w->block_size),
                             ull((uint64_t)block * w->block_size + needed(w, block) - w->bitmap_size - 1),
                             ull(at), fault);
                r = acts(w) ? set_entry(w, block, VHD_UNUSED) : 0;
                continue;
            }
            if (n == room) {
                struct placed *grown = hv_realloc_array(list, room ? room * 2 : 256, sizeof(*grown));

                r = grown ? 0 : -ENOMEM;
                list = grown ? grown : list;
                room = grown ? (room ? room * 2 : 256) : room;
            }
            if (r == 0) {
                list[n++] = (struct placed){ at, block };
            }
        }
    }
    if (r < 0) {
        free(list);
        return r;
    }
    if (n > 1) {
        qsort(list, n, sizeof(*list), by_place);
    }
    *ret = list;
    *ret_count = n;
    return 0;
}

/* A block of its own for one that shares its place: a copy behind everything else. */
static int separate(struct walk *w, const struct placed *p)
{
    uint64_t to = ROUND_UP(w->room + w->bitmap_size, 4096) - w->bitmap_size;
    uint64_t len = (uint64_t)w->bitmap_size + w->block_size;
    hv_autofree uint8_t *buf = hv_alloc(64 * KIB);
    int r = buf ? disk_file_resize(w->f, to + len + VHD_FOOTER_SIZE) : -ENOMEM;

    for (uint64_t done = 0; done < len && r == 0; done += 64 * KIB) {
        uint64_t n = MIN(len - done, 64 * KIB);

        r = disk_file_read(w->f, p->at + done, buf, n);
        r = r < 0 ? r : disk_file_write(w->f, to + done, buf, n);
    }
    r = r < 0 ? r : disk_file_write(w->f, to + len, w->footer, VHD_FOOTER_SIZE);
    r = r < 0 ? r : disk_file_sync(w->f);
    r = r < 0 ? r : set_entry(w, p->block, (uint32_t)(to / DISK_SECTOR));
    if (r == 0) {
        w->end = w->room = to + len;
    }
    return r;
}

static int walk_overlaps(struct walk *w, const struct placed *list, size_t n)
{
    uint64_t len = (uint64_t)w->bitmap_size + w->block_size, used = 0;
    int r = 0;

    w->room = n ? MAX(w->end, list[n - 1].at + len) : w->end;    /* the last block may be cut */

    for (size_t i = 0; i < n && r == 0; i++) {
        if (i > 0 && list[i].at < list[i - 1].at + len) {
            if (list[i].at == list[i - 1].at) {
                disk_problem(w->fn, w->arg, PROBLEM_REPAIRABLE, "bat: block %u and block %u both at 0x%llx",
                             list[i - 1].block, list[i].block, ull(list[i].at));
            } else {
                disk_problem(w->fn, w->arg, PROBLEM_REPAIRABLE,
                             "bat: block %u at 0x%llx overlaps block %u at 0x%llx", list[i].block,
                             ull(list[i].at), list[i - 1].block, ull(list[i - 1].at));
            }
            r = acts(w) ? separate(w, &list[i]) : 0;
        }
        used += len;
    }
    if (r == 0 && w->end > used + w->bat_offset + (uint64_t)w->bat_entries * 4 + 16 * KIB + n * 4096 + len) {
        disk_problem(w->fn, w->arg, PROBLEM_HARMLESS, "space: about %lluM of the file belong to no block",
                     ull((w->end - used) / MIB));
    }
    return r;
}

static int walk_all(struct walk *w, struct hv_error *e)
{
    bool front_bad, end_bad;
    struct placed *list = NULL;
    uint32_t type;
    size_t n = 0;
    int r = vhd_read_footers(w->f, w->footer, &front_bad, &end_bad, &w->end);

    if (r == -EINVAL) {
        disk_problem(w->fn, w->arg, 0, "footer: none has a right checksum");
        return 0;
    }
    if (r < 0) {
        return hv_fail_errno(e, -r, disk_file_path(w->f), "cannot read");
    }
    walk_footers(w, front_bad, end_bad);
    type = get_be32(w->footer + VHD_F_TYPE);
    w->size = ROUND_DOWN(get_be64(w->footer + VHD_F_CURRENT_SIZE), DISK_SECTOR);
    if (get_be32(w->footer + VHD_F_VERSION) >> 16 != VHD_VERSION >> 16) {
        disk_problem(w->fn, w->arg, 0, "footer: unknown version 0x%x", get_be32(w->footer + VHD_F_VERSION));
        return 0;
    }
    if (w->size == 0 || w->size > DISK_MAX_SIZE) {
        disk_problem(w->fn, w->arg, 0, "footer: size of %llu bytes", ull(w->size));
        return 0;
    }
    if (type == VHD_TYPE_FIXED) {
        if (w->size > w->end) {
            disk_problem(w->fn, w->arg, 0, "size: the disk has %llu bytes, the file %llu", ull(w->size), ull(w->end));
        }
        return 0;
    }
    if (type != VHD_TYPE_DYNAMIC && type != VHD_TYPE_DIFFERENCING) {
        disk_problem(w->fn, w->arg, 0, "footer: unknown type %u", type);
        return 0;
    }
    if (!walk_header(w)) {
        return 0;
    }
    /* What follows may write over the footer at the end: the copy in front has to be as good before. */
    if (w->footers_changed && !end_bad && acts(w)) {
        r = disk_file_write(w->f, 0, w->footer, VHD_FOOTER_SIZE);
        r = r < 0 ? r : disk_file_sync(w->f);
    }
    r = r < 0 ? r : walk_bat(w, &list, &n);
    if (r == 0 && end_bad && n > 0) {
        /* Where the footer belongs: behind the last block, should the file be longer than that. */
        w->end = MAX(ROUND_DOWN(w->end, DISK_SECTOR), list[n - 1].at + w->bitmap_size + w->block_size);
    }
    r = r < 0 ? r : walk_overlaps(w, list, n);
    free(list);
    if (r == 0 && w->footers_changed && acts(w)) {
        vhd_seal_footer(w->footer);
        r = disk_file_resize(w->f, w->end + VHD_FOOTER_SIZE);
        r = r < 0 ? r : disk_file_write(w->f, w->end, w->footer, VHD_FOOTER_SIZE);
        r = r < 0 ? r : disk_file_sync(w->f);
        r = r < 0 ? r : disk_file_write(w->f, 0, w->footer, VHD_FOOTER_SIZE);
    }
    if (r == 0 && acts(w)) {
        r = disk_file_sync(w->f);
    }
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(w->f), w->repair ? "cannot repair" : "cannot read") : 0;
}

int vhd_check(struct disk_file *f, disk_problem_fn *fn, void *arg, struct hv_error *e)
{
    return walk_all(&(struct walk){ .f = f, .fn = fn, .arg = arg }, e);
}

int vhd_repair(struct disk_file *f, bool dry, disk_problem_fn *fn, void *arg, struct hv_error *e)
{
    return walk_all(&(struct walk){ .f = f, .fn = fn, .arg = arg, .repair = true, .dry = dry }, e);
}
