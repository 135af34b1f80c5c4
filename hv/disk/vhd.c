/*
 * VHD: fixed, dynamic and differencing disks as maps.
 *
 *   fixed    | data ...                                        | footer |
 *   dynamic  | footer | header | BAT | bitmap data | bitmap data | footer |
 *
 * A block is a bitmap and its data; a bit says that the sector is here (differencing) or was
 * written (dynamic). Only offsets count, not the order of things in the file.
 *
 * There is no journal, so order is all (flush() and allocate() below): a crash leaves room that
 * nobody uses, or no footer at the end (the copy in front is as good), never a block that shows
 * what was not written to it.
 */
#include "hv/disk/vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"

#define META_CLEAN_MAX (4 * MIB)
#define RUN_MAX 65536u                   /* BAT entries looked at in one go */

/* ---- structures ---- */

uint32_t vhd_checksum(const uint8_t *p, size_t len, size_t checksum_at)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < len; i++) {
        sum += i >= checksum_at && i < checksum_at + 4 ? 0 : p[i];
    }
    return ~sum;
}

bool vhd_footer_valid(const uint8_t *f)
{
    return memcmp(f, VHD_FOOTER_COOKIE, 8) == 0 &&
           get_be32(f + VHD_F_CHECKSUM) == vhd_checksum(f, VHD_FOOTER_SIZE, VHD_F_CHECKSUM);
}

bool vhd_header_valid(const uint8_t *h)
{
    return memcmp(h, VHD_HEADER_COOKIE, 8) == 0 &&
           get_be32(h + VHD_H_CHECKSUM) == vhd_checksum(h, VHD_HEADER_SIZE, VHD_H_CHECKSUM);
}

void vhd_seal_footer(uint8_t *f)
{
    put_be32(f + VHD_F_CHECKSUM, vhd_checksum(f, VHD_FOOTER_SIZE, VHD_F_CHECKSUM));
}

void vhd_seal_header(uint8_t *h)
{
    put_be32(h + VHD_H_CHECKSUM, vhd_checksum(h, VHD_HEADER_SIZE, VHD_H_CHECKSUM));
}

/* CHS Calculation of the specification's appendix. */
static void geometry(uint64_t sectors, uint16_t *c, uint8_t *h, uint8_t *s)
{
    uint64_t cth, heads, spt;

    sectors = MIN(sectors, VHD_MAX_CHS_SECTORS);
    if (sectors >= 65535ull * 16 * 63) {
        spt = 255;
        heads = 16;
        cth = sectors / spt;
    } else {
        spt = 17;
        cth = sectors / spt;
        heads = MAX((cth + 1023) / 1024, 4ull);
        if (cth >= heads * 1024 || heads > 16) {
            spt = 31;
            heads = 16;
            cth = sectors / spt;
        }
        if (cth >= heads * 1024) {
            spt = 63;
            heads = 16;
            cth = sectors / spt;
        }
    }
    *c = (uint16_t)(cth / heads);
    *h = (uint8_t)heads;
    *s = (uint8_t)spt;
}

void vhd_set_size(uint8_t *f, uint64_t size)
{
    uint16_t c;
    uint8_t h, s;

    geometry(size / DISK_SECTOR, &c, &h, &s);
    if ((uint64_t)c * h * s * DISK_SECTOR != size) {
        c = 65535;                       /* all readers then take the size, not the product */
        h = 16;
        s = 255;
    }
    put_be64(f + VHD_F_CURRENT_SIZE, size);
    put_be16(f + VHD_F_CYLINDERS, c);
    f[VHD_F_HEADS] = h;
    f[VHD_F_SPT] = s;
}

uint32_t vhd_bitmap_size(uint32_t block_size)
{
    return (uint32_t)ROUND_UP(ROUND_UP((uint64_t)block_size / DISK_SECTOR, 8) / 8, DISK_SECTOR);
}

int vhd_read_footers(struct disk_file *f, uint8_t *out, bool *front_bad, bool *end_bad, uint64_t *ret_end)
{
    uint8_t front[VHD_FOOTER_SIZE], end[VHD_FOOTER_SIZE];
    uint64_t size = disk_file_size(f), at;
    int r;

    if (size < 511) {
        return -EINVAL;
    }
    at = size % DISK_SECTOR == 511 ? size - 511 : ROUND_DOWN(size, DISK_SECTOR) - DISK_SECTOR;
    r = disk_file_read(f, 0, front, sizeof(front));
    if (r == 0) {
        r = disk_file_read(f, at, end, sizeof(end));    /* the 512th byte reads as zero */
    }
    if (r < 0) {
        return r;
    }
    *front_bad = !vhd_footer_valid(front);
    *end_bad = !vhd_footer_valid(end) || (at == 0 && size < VHD_FOOTER_SIZE);
    if (*front_bad && *end_bad) {
        return -EINVAL;
    }
    memcpy(out, *end_bad ? front : end, VHD_FOOTER_SIZE);
    if (get_be32(out + VHD_F_TYPE) == VHD_TYPE_FIXED) {
        *front_bad = false;              /* a fixed disk has none in front: that is its data */
        if (*end_bad) {
            return -EINVAL;
        }
    }
    *ret_end = *end_bad ? ROUND_UP(size, DISK_SECTOR) : at;
    return 0;
}

/* ---- open ---- */

static int vhd_probe(struct disk_file *f)
{
    uint8_t footer[VHD_FOOTER_SIZE];
    bool front_bad, end_bad;
    uint64_t end;

    if (vhd_read_footers(f, footer, &front_bad, &end_bad, &end) < 0) {
        /* Damaged, but a VHD all the same: better refused than taken for a raw disk. */
        return disk_file_read(f, 0, footer, 8) == 0 && memcmp(footer, VHD_FOOTER_COOKIE, 8) == 0;
    }
    return get_be32(footer + VHD_F_TYPE) == VHD_TYPE_FIXED || front_bad ? 1 : 2;
}

static int bad(struct disk_layer *l, struct hv_error *e, const char *what)
{
    hv_fail(e, HV_FAILED, disk_file_path(l->file), "is damaged: %s", what);
    hv_hint(e, "vhdtool check %s", disk_file_path(l->file));
    return -EINVAL;
}

static int open_dynamic(struct disk_layer *l, struct vhd *v, struct hv_error *e)
{
    uint64_t blocks, size = disk_file_size(l->file);
    int r;

    v->header_offset = get_be64(v->footer + VHD_F_DATA_OFFSET);
    if (v->header_offset % 8 || v->header_offset < VHD_FOOTER_SIZE || v->header_offset > v->end ||
        v->end - v->header_offset < VHD_HEADER_SIZE) {
        return bad(l, e, "its dynamic header lies outside the file");
    }
    r = disk_file_read(l->file, v->header_offset, v->header, VHD_HEADER_SIZE);
    if (r < 0) {
        return hv_fail_errno(e, -r, disk_file_path(l->file), "cannot read");
    }
    if (!vhd_header_valid(v->header)) {
        return bad(l, e, "the checksum of its dynamic header is wrong");
    }
    if (get_be32(v->header + VHD_H_VERSION) >> 16 != VHD_VERSION >> 16) {
        return bad(l, e, "its dynamic header is of an unknown version");
    }
    v->bat_offset = get_be64(v->header + VHD_H_TABLE_OFFSET);
    v->bat_entries = get_be32(v->header + VHD_H_ENTRIES);
    v->block_size = get_be32(v->header + VHD_H_BLOCK_SIZE);
    if (v->block_size < DISK_SECTOR || v->block_size > VHD_MAX_BLOCK || v->block_size & (v->block_size - 1)) {
        return bad(l, e, "its block size is not a power of two from 512 bytes to 256M");
    }
    blocks = (l->size + v->block_size - 1) / v->block_size;
    if (blocks > v->bat_entries) {
        return bad(l, e, "its BAT is too short for its size");
    }
    if (v->bat_offset % DISK_SECTOR || v->bat_offset < VHD_FOOTER_SIZE || v->bat_offset > size ||
        v->bat_offset > v->end || blocks * 4 > v->end - v->bat_offset) {
        return bad(l, e, "its BAT lies outside the file");
    }
    if (v->bat_offset < v->header_offset + VHD_HEADER_SIZE && v->bat_offset + blocks * 4 > v->header_offset) {
        return bad(l, e, "its BAT lies in its dynamic header");
    }
    v->entries = (uint32_t)blocks;
    v->bitmap_size = vhd_bitmap_size(v->block_size);
    l->block_size = v->block_size;
    if (v->type == VHD_TYPE_DIFFERENCING) {
        vhd_read_parent(l->file, v->header, &l->parent);
    }
    r = disk_meta_new(l->file, DISK_SECTOR, META_CLEAN_MAX, &v->meta);
    return r < 0 ? hv_fail_errno(e, -r, disk_file_path(l->file), "cannot open") : 0;
}

static void vhd_free(struct vhd *v)
{
    if (v) {
        disk_meta_free(v->meta);
        free(v);
    }
}

/* A crash while a block was added leaves no footer at the end: the one in front is as good. */
static int heal_footers(struct disk_layer *l, struct vhd *v)
{
    int r = 0;

    if (v->end_footer_bad) {
        r = disk_file_resize(l->file, v->end + VHD_FOOTER_SIZE);
        r = r < 0 ? r : disk_file_write(l->file, v->end, v->footer, VHD_FOOTER_SIZE);
        r = r < 0 ? r : disk_file_sync(l->file);
    }
    /* One of two that are whole, and differ: a crash between them. The one at the end counts. */
    if (r == 0 && v->type != VHD_TYPE_FIXED && !v->front_footer_bad) {
        uint8_t front[VHD_FOOTER_SIZE];

        r = disk_file_read(l->file, 0, front, sizeof(front));
        v->front_footer_bad = r == 0 && memcmp(front, v->footer, sizeof(front)) != 0;
    }
    if (r == 0 && v->front_footer_bad) {
        r = disk_file_write(l->file, 0, v->footer, VHD_FOOTER_SIZE);
        r = r < 0 ? r : disk_file_sync(l->file);
    }
    return r;
}

static int vhd_open(struct disk_layer *l, struct hv_error *e)
{
    struct vhd *v = hv_alloc(sizeof(*v));
    int r;

    if (!v) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    r = vhd_read_footers(l->file, v->footer, &v->front_footer_bad, &v->end_footer_bad, &v->end);
    if (r < 0) {
        r = r == -EINVAL ? bad(l, e, "no footer has a right checksum")
                         : hv_fail_errno(e, -r, disk_file_path(l->file), "cannot read");
        goto out;
    }
    if (get_be32(v->footer + VHD_F_VERSION) >> 16 != VHD_VERSION >> 16) {
        r = bad(l, e, "its footer is of an unknown version");
        goto out;
    }
    v->type = (enum vhd_type)get_be32(v->footer + VHD_F_TYPE);
    l->size = ROUND_DOWN(get_be64(v->footer + VHD_F_CURRENT_SIZE), DISK_SECTOR);
    l->logical_sector = DISK_SECTOR;
    l->physical_sector = DISK_SECTOR;
    memcpy(l->id.b, v->footer + VHD_F_ID, 16);
    l->data_id = l->id;
    if (l->size == 0 || l->size > DISK_MAX_SIZE) {
        r = bad(l, e, "its size is 0 or larger than 64T");
        goto out;
    }
    switch (v->type) {
    case VHD_TYPE_FIXED:
        l->type = DISK_FIXED;
        r = l->size > v->end ? bad(l, e, "it is shorter than its size") : 0;
        break;
    case VHD_TYPE_DYNAMIC:
    case VHD_TYPE_DIFFERENCING:
        l->type = v->type == VHD_TYPE_DYNAMIC ? DISK_DYNAMIC : DISK_DIFFERENCING;
        r = l->size > VHD_MAX_DYNAMIC ? bad(l, e, "its size is larger than 2040G") : open_dynamic(l, v, e);
        break;
    default:
        r = bad(l, e, "it is of an unknown type");
    }
    if (r < 0) {
        goto out;
    }
    if (v->end_footer_bad || v->front_footer_bad) {
        snprintf(l->note, sizeof(l->note), "the footer %s is missing or damaged",
                 v->end_footer_bad ? "at the end" : "in front");
    }
    r = l->writable ? heal_footers(l, v) : 0;
    if (r < 0) {
        r = hv_fail_errno(e, -r, disk_file_path(l->file), "cannot put its footer back");
        goto out;
    }
    l->state = v;
    return 0;
out:
    vhd_free(v);
    return r;
}

static int vhd_close(struct disk_layer *l, bool clean)
{
    (void)clean;                         /* nothing says that a VHD is open */
    vhd_free(l->state);
    return 0;
}

/* ---- the map ---- */

static int bat_entry(struct vhd *v, uint64_t block, uint32_t *ret)
{
    uint8_t b[4];
    int r = disk_meta_read(v->meta, v->bat_offset + block * 4, b, sizeof(b));

    *ret = r < 0 ? VHD_UNUSED : get_be32(b);
    return r;
}

/* The file offset of a block's bitmap; -EUCLEAN if it lies in a header, the BAT, or past the end. */
static int block_offset(const struct disk_layer *l, const struct vhd *v, uint64_t block, uint32_t entry,
                        uint64_t *ret)
{
    uint64_t at = (uint64_t)entry * DISK_SECTOR;
    uint64_t needed = MIN((uint64_t)v->block_size, l->size - block * v->block_size);
    uint64_t stop = at + v->bitmap_size + v->block_size;     /* in full, also the last one */
    uint64_t bat_end = v->bat_offset + ROUND_UP((uint64_t)v->entries * 4, DISK_SECTOR);

    if (at < VHD_FOOTER_SIZE || at + v->bitmap_size + needed > v->end || (at < bat_end && stop > v->bat_offset) ||
        (at < v->header_offset + VHD_HEADER_SIZE && stop > v->header_offset)) {
        return -EUCLEAN;
    }
    *ret = at;
    return 0;
}

/* How many of max bits from bit `first` of the bitmap at `at` are the same, and what they are. */
static int bit_run(struct vhd *v, uint64_t at, uint32_t first, uint32_t max, bool *ret_set, uint32_t *ret_n)
{
    const uint8_t *p = NULL;
    uint32_t avail = 0, n = 0;
    uint8_t want = 0;

    while (n < max) {
        uint32_t bit = first + n;
        int r = 0;

        if (!p || avail == 0) {
            p = disk_meta_peek(v->meta, at + bit / 8, &avail, &r);
            if (!p) {
                return r;
            }
        }
        if (n == 0) {
            *ret_set = *p >> (7 - bit % 8) & 1;
            want = *ret_set ? 0xff : 0;
        }
        if (bit % 8 == 0 && max - n >= 8 && *p == want) {
            n += 8;
        } else if ((*p >> (7 - bit % 8) & 1) == *ret_set) {
            n++;
        } else {
            break;
        }
        if ((first + n) % 8 == 0) {
            p++;
            avail--;
        }
    }
    *ret_n = n;
    return 0;
}

static int vhd_map(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    struct vhd *v = l->state;
    uint64_t block, in, at;
    uint32_t entry, sectors, run;
    bool set;
    int r;

    if (v->type == VHD_TYPE_FIXED) {
        *ret = (struct disk_extent){ .len = len, .where = DISK_DATA, .file = l->file, .file_offset = off };
        return 0;
    }
    block = off / v->block_size;
    in = off % v->block_size;
    r = bat_entry(v, block, &entry);
    if (r < 0) {
        return r;
    }
    if (entry == VHD_UNUSED) {
        uint64_t n = v->block_size - in;

        for (unsigned i = 1; n < len && i < RUN_MAX; i++, n += v->block_size) {
            if (bat_entry(v, block + i, &entry) < 0 || entry != VHD_UNUSED) {
                break;
            }
        }
        *ret = (struct disk_extent){ .len = MIN(n, len), .where = DISK_ABSENT };
        return 0;
    }
    r = block_offset(l, v, block, entry, &at);
    if (r < 0) {
        return r;
    }
    len = MIN(len, v->block_size - in);
    sectors = (uint32_t)((in % DISK_SECTOR + len + DISK_SECTOR - 1) / DISK_SECTOR);
    r = bit_run(v, at, (uint32_t)(in / DISK_SECTOR), sectors, &set, &run);
    if (r < 0) {
        return r;
    }
    len = MIN(len, (uint64_t)run * DISK_SECTOR - in % DISK_SECTOR);
    *ret = set ? (struct disk_extent){ .len = len, .where = DISK_DATA, .file = l->file,
                                       .file_offset = at + v->bitmap_size + in }
               : (struct disk_extent){ .len = len, .where = v->type == VHD_TYPE_DIFFERENCING
                                                             ? DISK_ABSENT : DISK_ZERO };
    return 0;
}

uint64_t vhd_room_start(struct vhd *v)
{
    uint32_t entry;

    if (bat_entry(v, v->entries - 1, &entry) < 0 || entry == VHD_UNUSED) {
        return v->end;
    }
    return MAX(v->end, (uint64_t)entry * DISK_SECTOR + v->bitmap_size + v->block_size);
}

/*
 * A new block. The file grows first (zeros), then the bitmap is written where the footer was or
 * behind it, then the footer behind the block; the BAT entry stays in memory until flush() made
 * these durable. Data starts on a multiple of 4096.
 */
static int new_block(struct disk_layer *l, struct vhd *v, uint64_t block, uint64_t *ret_at)
{
    uint64_t at = ROUND_UP(vhd_room_start(v) + v->bitmap_size, 4096) - v->bitmap_size;
    uint64_t end = at + v->bitmap_size + v->block_size;
    hv_autofree uint8_t *bitmap = hv_alloc(v->bitmap_size);
    uint8_t entry[4];
    int r;

    if (!bitmap) {
        return -ENOMEM;
    }
    if (end / DISK_SECTOR >= VHD_UNUSED) {
        return -EFBIG;
    }
    /* Of a dynamic disk all of the block counts as written: it is zeros. */
    memset(bitmap, v->type == VHD_TYPE_DIFFERENCING ? 0 : 0xff, v->bitmap_size);
    r = disk_file_resize(l->file, end + VHD_FOOTER_SIZE);
    if (r == 0) {
        r = disk_file_write(l->file, at, bitmap, v->bitmap_size);
    }
    if (r == 0) {
        r = disk_file_write(l->file, end, v->footer, VHD_FOOTER_SIZE);
    }
    if (r < 0) {
        /* As it was: the footer where it is looked for, at the end of the file. */
        if (disk_file_write(l->file, v->end, v->footer, VHD_FOOTER_SIZE) == 0) {
            disk_file_resize(l->file, v->end + VHD_FOOTER_SIZE);
        }
        return r;
    }
    disk_meta_drop(v->meta, at, v->bitmap_size);
    put_be32(entry, (uint32_t)(at / DISK_SECTOR));
    r = disk_meta_write(v->meta, v->bat_offset + block * 4, entry, sizeof(entry));
    if (r < 0) {
        return r;
    }
    v->end = end;
    *ret_at = at;
    return 0;
}

static int vhd_allocate(struct disk_layer *l, uint64_t off, uint64_t len, struct disk_extent *ret)
{
    struct vhd *v = l->state;
    uint64_t block, in, at;
    uint32_t entry;
    int r;

    if (v->type == VHD_TYPE_FIXED) {
        return vhd_map(l, off, len, ret);
    }
    block = off / v->block_size;
    in = off % v->block_size;
    r = bat_entry(v, block, &entry);
    if (r == 0) {
        r = entry == VHD_UNUSED ? new_block(l, v, block, &at) : block_offset(l, v, block, entry, &at);
    }
    if (r < 0) {
        return r;
    }
    *ret = (struct disk_extent){ .len = MIN(len, v->block_size - in), .where = DISK_DATA, .file = l->file,
                                 .file_offset = at + v->bitmap_size + in };
    return 0;
}

/* Set the bits of the sectors that were written; each may span blocks. */
static int vhd_written(struct disk_layer *l, uint64_t off, uint64_t len)
{
    struct vhd *v = l->state;

    if (v->type == VHD_TYPE_FIXED) {
        return 0;
    }
    while (len > 0) {
        uint64_t block = off / v->block_size, in = off % v->block_size, at, n = MIN(len, v->block_size - in);
        uint32_t entry, first = (uint32_t)(in / DISK_SECTOR), last = (uint32_t)((in + n - 1) / DISK_SECTOR), run;
        bool set;
        int r = bat_entry(v, block, &entry);

        r = r < 0 ? r : entry == VHD_UNUSED ? -EUCLEAN : block_offset(l, v, block, entry, &at);
        r = r < 0 ? r : bit_run(v, at, first, last - first + 1, &set, &run);
        for (uint32_t i = first / 8; r == 0 && !(set && run == last - first + 1) && i <= last / 8; i++) {
            uint8_t b, mask = 0xff;

            mask &= i == first / 8 ? 0xffu >> (first % 8) : 0xff;
            mask &= i == last / 8 ? (uint8_t)(0xff00u >> (last % 8 + 1)) : 0xff;
            r = disk_meta_read(v->meta, at + i, &b, 1);
            b |= mask;
            r = r < 0 ? r : disk_meta_write(v->meta, at + i, &b, 1);
        }
        if (r < 0) {
            return r;
        }
        off += n;
        len -= n;
    }
    return 0;
}

/*
 * Whole blocks of a dynamic disk leave the BAT; what they held is punched at once, since zeros
 * are what is wanted, whichever of the two a crash keeps. A differencing disk cannot say "zeros
 * here" without a block.
 */
static int vhd_unmap(struct disk_layer *l, uint64_t off, uint64_t len, uint64_t *ret_len)
{
    static const uint8_t unused[4] = { 0xff, 0xff, 0xff, 0xff };
    struct vhd *v = l->state;
    uint64_t block, at, n;
    uint32_t entry;
    int r;

    *ret_len = 0;
    if (v->type != VHD_TYPE_DYNAMIC || off % v->block_size) {
        return 0;
    }
    block = off / v->block_size;
    n = MIN((uint64_t)v->block_size, l->size - off);
    if (len < n) {
        return 0;
    }
    r = bat_entry(v, block, &entry);
    if (r == 0 && entry != VHD_UNUSED) {
        r = block_offset(l, v, block, entry, &at);
        r = r < 0 ? r : disk_file_zero(l->file, at + v->bitmap_size, v->block_size);
        r = r < 0 ? r : disk_meta_write(v->meta, v->bat_offset + block * 4, unused, sizeof(unused));
    }
    if (r == 0) {
        *ret_len = n;
    }
    return r;
}

/*
 * Data, new bitmaps and the moved footer first; then, all of them durable, the bits that show
 * data and the BAT entries that show blocks; then these durable too. Within the second step any
 * order will do: an entry whose bits are missing shows the parent, as before the write.
 */
int vhd_flush(struct disk_layer *l, bool locked)
{
    struct vhd *v = l->state;
    struct disk_meta_page *pages = NULL;
    size_t count = 0;
    int r = 0;

    if (v->type != VHD_TYPE_FIXED) {
        if (!locked) {
            pthread_mutex_lock(&l->lock);
        }
        r = disk_meta_take(v->meta, &pages, &count);
        if (!locked) {
            pthread_mutex_unlock(&l->lock);
        }
        if (r < 0) {
            return r;
        }
    }
    r = disk_file_sync(l->file);
    for (size_t i = 0; i < count && r == 0; i++) {
        r = disk_file_write(l->file, pages[i].off, pages[i].data, DISK_SECTOR);
    }
    if (r == 0 && count > 0) {
        r = disk_file_sync(l->file);
    }
    if (v->type != VHD_TYPE_FIXED) {
        if (!locked) {
            pthread_mutex_lock(&l->lock);
        }
        disk_meta_settle(v->meta, pages, count, r == 0);
        if (!locked) {
            pthread_mutex_unlock(&l->lock);
        }
    }
    return r;
}

static int vhd_flush_op(struct disk_layer *l)
{
    return vhd_flush(l, false);
}

static int vhd_info(struct disk_layer *l, bool count, struct disk_info *ret)
{
    struct vhd *v = l->state;
    uint32_t entry;

    ret->created_s = (uint64_t)get_be32(v->footer + VHD_F_TIME) + VHD_EPOCH;
    memcpy(ret->creator, v->footer + VHD_F_CREATOR, 4);
    for (int i = 0; i < 4; i++) {
        ret->creator[i] = ret->creator[i] < ' ' || ret->creator[i] > '~' ? '\0' : ret->creator[i];
    }
    ret->chs_size = (uint64_t)get_be16(v->footer + VHD_F_CYLINDERS) * v->footer[VHD_F_HEADS] *
                    v->footer[VHD_F_SPT] * DISK_SECTOR;
    ret->saved_state = v->footer[VHD_F_SAVED_STATE] == 1;
    if (v->type == VHD_TYPE_FIXED) {
        return 0;
    }
    ret->blocks = v->entries;
    for (uint64_t i = 0; count && i < v->entries; i++) {
        int r = bat_entry(v, i, &entry);

        if (r < 0) {
            return r;
        }
        ret->blocks_present += entry != VHD_UNUSED;
    }
    return 0;
}

const struct disk_format disk_format_vhd = {
    .kind = DISK_VHD,
    .name = "vhd",
    .probe = vhd_probe,
    .open = vhd_open,
    .close = vhd_close,
    .map = vhd_map,
    .allocate = vhd_allocate,
    .written = vhd_written,
    .unmap = vhd_unmap,
    .flush = vhd_flush_op,
    .info = vhd_info,
    .create = vhd_create,
    .resize = vhd_resize,
    .set_parent = vhd_set_parent,
    .set_id = vhd_set_id,
    .compact = vhd_compact,
    .check = vhd_check,
    .repair = vhd_repair,
    .headers = vhd_headers,
};
