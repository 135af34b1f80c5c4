/*
 * Sector bitmaps of differencing VHDX disks: a block of 1 MiB for each chunk of 2^23 logical
 * sectors, one bit each, the lowest of byte 0 first; set: the sector is here, clear: the
 * parent's. Pages of the log. MS-VHDX 2.4.2.
 */
#include <errno.h>

#include "hv/base/endian.h"
#include "hv/disk/vhdx.h"

int vhdx_bits_of(struct vhdx *v, uint64_t block, uint64_t *ret)
{
    uint64_t chunk = block >> v->ratio_shift, in = block & (((uint64_t)1 << v->ratio_shift) - 1);
    uint64_t entry;
    int r = vhdx_bat_get(v, vhdx_bitmap_index(v, chunk), &entry);

    if (r < 0) {
        return r;
    }
    if (VHDX_BAT_STATE(entry) == VHDX_BITMAP_NOT_PRESENT) {
        return -ENOENT;
    }
    if (VHDX_BAT_STATE(entry) != VHDX_BITMAP_PRESENT || vhdx_room_bad(v, VHDX_BAT_OFFSET(entry), VHDX_BITMAP_SIZE)) {
        return -EUCLEAN;
    }
    *ret = VHDX_BAT_OFFSET(entry) + (in << (v->block_shift - v->sector_shift - 3));
    return 0;
}

int vhdx_bits_make(struct vhdx *v, uint64_t block, uint64_t *ret)
{
    uint64_t index = vhdx_bitmap_index(v, block >> v->ratio_shift), entry, room;
    int r = vhdx_bits_of(v, block, ret);

    if (r != -ENOENT) {
        return r;
    }
    r = vhdx_bat_get(v, index, &entry);
    if (r < 0) {
        return r;
    }
    if (VHDX_BAT_RESERVED(entry)) {
        return -EUCLEAN;
    }
    r = vhdx_room_new(v, VHDX_BITMAP_SIZE, &room);
    if (r == 0) {
        disk_meta_drop(v->meta, room, VHDX_BITMAP_SIZE);
        r = vhdx_bat_put(v, index, room | VHDX_BITMAP_PRESENT);
    }
    return r < 0 ? r : vhdx_bits_of(v, block, ret);
}

int vhdx_bits_run(struct vhdx *v, uint64_t bits, uint64_t first, uint64_t count, bool *ret_bit, uint64_t *ret)
{
    uint64_t done = 0;
    bool bit = false;

    while (done < count) {
        uint64_t s = first + done, n, i = 0;
        uint32_t avail;
        int r = 0;
        const uint8_t *p = disk_meta_peek(v->meta, bits + s / 8, &avail, &r);

        if (!p) {
            return r;
        }
        if (done == 0) {
            bit = p[0] >> s % 8 & 1;
        }
        s %= 8;
        n = MIN(count - done, (uint64_t)avail * 8 - s);
        while (i < n) {
            uint64_t at = s + i;

            if (at % 64 == 0 && n - i >= 64 && get_le64(p + at / 8) == (bit ? UINT64_MAX : 0)) {
                i += 64;
            } else if ((p[at / 8] >> at % 8 & 1) == bit) {
                i++;
            } else {
                break;
            }
        }
        done += i;
        if (i < n) {
            break;
        }
    }
    *ret_bit = bit;
    *ret = done;
    return 0;
}

int vhdx_bits_fill(struct vhdx *v, uint64_t bits, uint64_t first, uint64_t count, bool bit)
{
    while (count > 0) {
        uint8_t part[VHDX_PAGE];
        uint64_t n, from = first % 8;
        uint32_t avail;
        bool changed = false;
        int r = 0;
        const uint8_t *p = disk_meta_peek(v->meta, bits + first / 8, &avail, &r);

        if (!p) {
            return r;
        }
        n = MIN(count, (uint64_t)avail * 8 - from);
        for (uint64_t byte = 0; byte * 8 < from + n; byte++) {
            unsigned lo = byte == 0 ? (unsigned)from : 0;
            unsigned hi = (unsigned)MIN((uint64_t)8, from + n - byte * 8);
            uint8_t mask = (uint8_t)(0xffu << lo & 0xffu >> (8 - hi));

            part[byte] = bit ? p[byte] | mask : p[byte] & (uint8_t)~mask;
            changed = changed || part[byte] != p[byte];
        }
        if (changed) {
            r = disk_meta_write(v->meta, bits + first / 8, part, (from + n + 7) / 8);
            if (r < 0) {
                return r;
            }
        }
        first += n;
        count -= n;
    }
    return 0;
}
