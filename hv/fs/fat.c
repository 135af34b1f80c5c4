/*
 * Reading FAT. An inode number is the byte where the entry of 32 bytes lies; the root has
 * number 1. Chains of clusters are bounded by the number of clusters: a loop ends there.
 */
#include "hv/fs/fat.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "hv/base/endian.h"
#include "hv/fs/fat_impl.h"


int fat_read_at(struct fat *f, uint64_t at, void *buf, uint64_t len)
{
    return len > f->len || at > f->len - len ? -EUCLEAN : disk_read(f->disk, f->off + at, buf, len);
}

/* The cluster after c; 0 at the end of the chain. */
int fat_next(struct fat *f, uint32_t c, uint32_t *ret)
{
    uint8_t b[4] = { 0 };
    uint64_t at = f->bits == 32 ? 4ull * c : f->bits == 16 ? 2ull * c : c + c / 2;
    int r = fat_read_at(f, f->fat + at, b, f->bits == 32 ? 4 : 2);

    if (r < 0) {
        return r;
    }
    uint32_t v = f->bits == 32 ? get_le32(b) & 0x0fffffff
               : f->bits == 16 ? get_le16(b) : c & 1 ? get_le16(b) >> 4 : get_le16(b) & 0xfffu;
    uint32_t end = f->bits == 32 ? 0x0ffffff8 : f->bits == 16 ? 0xfff8 : 0xff8;
    if (v >= end) {
        *ret = 0;
        return 0;
    }
    if (v < 2 || v >= f->clusters + 2) {
        return -EUCLEAN;
    }
    *ret = v;
    return 0;
}

/* The index-th cluster of a chain, 0 past its end. */
static int chain_cluster(struct fat *f, uint32_t first, uint32_t index, uint32_t *ret)
{
    uint32_t c = first, i = 0;

    if (first < 2 || first >= f->clusters + 2) {
        return -EUCLEAN;
    }
    if (f->chain_first == first && f->chain_index <= index) {
        c = f->chain_at;
        i = f->chain_index;
    }
    for (; c && i < index; i++) {
        int r = i > f->clusters ? -EUCLEAN : fat_next(f, c, &c);
        if (r < 0) {
            return r;
        }
    }
    if (c) {
        f->chain_first = first;
        f->chain_index = index;
        f->chain_at = c;
    }
    *ret = c;
    return 0;
}

uint64_t fat_cluster_at(const struct fat *f, uint32_t c)
{
    return f->data + (uint64_t)(c - 2) * f->cluster_bytes;
}

/* ---- entries ---- */

static struct fs_time dos_time(unsigned date, unsigned t)
{
    struct tm tm = {
        .tm_year = 80 + (int)(date >> 9), .tm_mon = (int)(date >> 5 & 15) - 1, .tm_mday = (int)(date & 31),
        .tm_hour = (int)(t >> 11), .tm_min = (int)(t >> 5 & 63), .tm_sec = (int)(t & 31) * 2,
    };
    return (struct fs_time){ .s = date ? timegm(&tm) : 0 };
}

static int op_stat(struct fs *fs, uint64_t ino, struct fs_stat *ret)
{
    struct fat *f = (struct fat *)fs;
    uint8_t d[32];

    if (ino == FAT_ROOT) {
        *ret = (struct fs_stat){ .ino = FAT_ROOT, .mode = S_IFDIR | 0755, .links = 2 };
        return 0;
    }
    int r = fat_read_at(f, ino, d, sizeof(d));
    if (r < 0) {
        return r;
    }
    bool dir = d[11] & FAT_ATTR_DIR, read_only = d[11] & 1;
    *ret = (struct fs_stat){
        .ino = ino,
        .mode = dir ? S_IFDIR | 0755u : S_IFREG | (read_only ? 0444u : 0644u),
        .links = 1,
        .size = dir ? 0 : get_le32(d + 28),
        .mtime = dos_time(get_le16(d + 24), get_le16(d + 22)),
    };
    ret->blocks = (ret->size + 511) / 512;
    ret->atime = ret->ctime = ret->mtime;
    return 0;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | c >> 12);
    out[1] = (char)(0x80 | (c >> 6 & 0x3f));
    out[2] = (char)(0x80 | (c & 0x3f));
    return 3;
}

/* 8.3: padding away, lower case where the entry says so (Windows NT's byte 12). */
static void short_name(const uint8_t *d, char *name)
{
    size_t n = 0;

    for (unsigned part = 0; part < 2; part++) {
        unsigned from = part ? 8 : 0, to = part ? 11 : 8;
        bool lower = d[12] & (part ? 0x10 : 0x08);
        while (to > from && d[to - 1] == ' ') {
            to--;
        }
        if (part && to > from) {
            name[n++] = '.';
        }
        for (unsigned i = from; i < to; i++) {
            uint8_t c = i == 0 && d[0] == 0x05 ? 0xe5 : d[i];
            name[n++] = c >= 0x80 || c < 0x20 ? '_' : lower && c >= 'A' && c <= 'Z' ? (char)(c + 32) : (char)c;
        }
    }
    name[n] = '\0';
}

static uint8_t short_sum(const uint8_t *d)
{
    uint8_t sum = 0;

    for (unsigned i = 0; i < 11; i++) {
        sum = (uint8_t)((sum << 7 | sum >> 1) + d[i]);
    }
    return sum;
}

/* A long name is gathered from entries that come before the short one, last part first. */
struct lfn { uint16_t text[20 * 13 + 1]; unsigned next; uint8_t sum; bool valid; };

static void lfn_add(struct lfn *l, const uint8_t *d)
{
    static const uint8_t at[13] = { 1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30 };
    unsigned seq = d[0] & 0x3f;

    if (d[0] & 0x40) {
        *l = (struct lfn){ .next = seq, .sum = d[13], .valid = seq >= 1 && seq <= 20 };
    }
    if (!l->valid || seq != l->next || seq == 0 || d[13] != l->sum) {
        l->valid = false;
        return;
    }
    for (unsigned i = 0; i < 13; i++) {
        l->text[(seq - 1) * 13 + i] = get_le16(d + at[i]);
    }
    l->next--;
}

static bool lfn_name(const struct lfn *l, const uint8_t *d, char name[FS_NAME_MAX + 1])
{
    size_t n = 0;

    if (!l->valid || l->next != 0 || l->sum != short_sum(d)) {
        return false;
    }
    for (unsigned i = 0; l->text[i] && l->text[i] != 0xffff; i++) {
        uint32_t c = l->text[i];
        if (n + 4 > FS_NAME_MAX) {
            return false;
        }
        if (c < 0x20 || c == '/') {
            c = '_';
        }
        if (c >= 0xd800 && c < 0xe000) {         /* no characters beyond the first plane in names here */
            c = '_';
        }
        n += put_utf8(name + n, c);
    }
    name[n] = '\0';
    return n > 0 && strcmp(name, ".") && strcmp(name, "..");
}

struct list { fs_entry_fn *fn; void *arg; struct lfn lfn; };

/* Entries in b[len], which lies at byte `at` of the volume. 1: the folder ended. */
static int entries(struct list *l, const uint8_t *b, size_t len, uint64_t at, int *ret)
{
    char name[FS_NAME_MAX + 1];

    for (size_t i = 0; i + 32 <= len; i += 32) {
        const uint8_t *d = b + i;
        if (d[0] == 0) {
            return 1;
        }
        if (d[0] == 0xe5) {
            l->lfn.valid = false;
            continue;
        }
        if ((d[11] & 0x3f) == FAT_ATTR_LFN) {
            lfn_add(&l->lfn, d);
            continue;
        }
        if (!(d[11] & FAT_ATTR_VOLUME) && d[0] != '.') {
            if (!lfn_name(&l->lfn, d, name)) {
                short_name(d, name);
            }
            if (name[0] && !strchr(name, '/')) {
                struct fs_entry en = { .ino = at + i, .name = name,
                                       .mode = d[11] & FAT_ATTR_DIR ? S_IFDIR : S_IFREG };
                *ret = l->fn(l->arg, &en);
                if (*ret) {
                    return 1;
                }
            }
        }
        l->lfn.valid = false;
    }
    return 0;
}

static int op_list(struct fs *fs, uint64_t ino, fs_entry_fn *fn, void *arg)
{
    struct fat *f = (struct fat *)fs;
    struct list l = { .fn = fn, .arg = arg };
    uint32_t c = f->root_cluster;
    uint8_t d[32];
    int r = 0, done = 0;

    if (ino != FAT_ROOT) {
        r = fat_read_at(f, ino, d, sizeof(d));
        if (r < 0 || !(d[11] & FAT_ATTR_DIR)) {
            return r < 0 ? r : -ENOTDIR;
        }
        c = get_le16(d + 26) | (f->bits == 32 ? (uint32_t)get_le16(d + 20) << 16 : 0);
    }
    size_t unit = ino == FAT_ROOT && f->bits != 32 ? f->root_bytes : f->cluster_bytes;
    hv_autofree uint8_t *b = hv_alloc(unit ? unit : 1);
    if (!b) {
        return -ENOMEM;
    }
    if (ino == FAT_ROOT && f->bits != 32) {
        int r2 = fat_read_at(f, f->root_at, b, unit);
        if (r2 < 0) {
            return r2;
        }
        entries(&l, b, unit, f->root_at, &r);
        return r;
    }
    for (uint64_t bytes = 0; c && !done && bytes < FAT_DIR_MAX; bytes += unit) {
        if (c < 2 || c >= f->clusters + 2) {
            return -EUCLEAN;
        }
        r = fat_read_at(f, fat_cluster_at(f, c), b, unit);
        if (r < 0) {
            return r;
        }
        done = entries(&l, b, unit, fat_cluster_at(f, c), &r);
        if (!done) {
            r = fat_next(f, c, &c);
            if (r < 0) {
                return r;
            }
        }
    }
    return r;
}

struct wanted { const char *name; uint64_t ino; };

static int match(void *arg, const struct fs_entry *en)
{
    struct wanted *w = arg;

    if (strcasecmp(en->name, w->name) != 0) {
        return 0;
    }
    w->ino = en->ino;
    return 1;
}

static int op_lookup(struct fs *fs, uint64_t dir, const char *name, uint64_t *ret_ino)
{
    struct wanted w = { .name = name };
    int r = op_list(fs, dir, match, &w);

    if (r == 1) {
        *ret_ino = w.ino;
        return 0;
    }
    return r < 0 ? r : -ENOENT;
}

static int op_read(struct fs *fs, uint64_t ino, uint64_t off, void *buf, size_t len, size_t *ret_len)
{
    struct fat *f = (struct fat *)fs;
    uint8_t d[32], *to = buf;
    int r = ino == FAT_ROOT ? -EISDIR : fat_read_at(f, ino, d, sizeof(d));

    *ret_len = 0;
    if (r < 0 || (d[11] & FAT_ATTR_DIR)) {
        return r < 0 ? r : -EISDIR;
    }
    uint64_t size = get_le32(d + 28);
    if (off >= size) {
        return 0;
    }
    len = (size_t)MIN((uint64_t)len, size - off);
    uint32_t first = get_le16(d + 26) | (f->bits == 32 ? (uint32_t)get_le16(d + 20) << 16 : 0);
    while (*ret_len < len) {
        uint64_t at = off + *ret_len, skip = at % f->cluster_bytes;
        size_t n = (size_t)MIN((uint64_t)(len - *ret_len), f->cluster_bytes - skip);
        uint32_t c;
        r = chain_cluster(f, first, (uint32_t)(at / f->cluster_bytes), &c);
        if (r == 0) {
            r = c ? fat_read_at(f, fat_cluster_at(f, c) + skip, to + *ret_len, n) : -EUCLEAN;
        }
        if (r < 0) {
            return r;
        }
        *ret_len += n;
    }
    return 0;
}

static int op_space(struct fs *fs, struct fs_space *ret)
{
    struct fat *f = (struct fat *)fs;

    *ret = (struct fs_space){ .size = (uint64_t)f->clusters * f->cluster_bytes, .block = f->cluster_bytes };
    return 0;
}

static int op_close(struct fs *fs)
{
    free(fs);
    return 0;
}

static const struct fs_ops ops = {
    .name = "vfat",
    .root = FAT_ROOT,
    .stat = op_stat,
    .list = op_list,
    .lookup = op_lookup,
    .read = op_read,
    .space = op_space,
    .close = op_close,
};

/* Section 3 of the specification; the width follows from the number of clusters alone. */
static int read_bpb(struct fat *f, const uint8_t *b)
{
    uint32_t sector = get_le16(b + 11), per = b[13], reserved = get_le16(b + 14), fats = b[16];
    uint32_t root = get_le16(b + 17), fat_len = get_le16(b + 22) ? get_le16(b + 22) : get_le32(b + 36);
    uint32_t total = get_le16(b + 19) ? get_le16(b + 19) : get_le32(b + 32);
    if (!probe_is_fat(b)) {
        return -EUCLEAN;
    }
    uint64_t head = (uint64_t)reserved + (uint64_t)fats * fat_len + ((uint64_t)root * 32 + sector - 1) / sector;
    if (total <= head || (uint64_t)total * sector > f->len) {
        return -EUCLEAN;
    }
    f->cluster_bytes = per * sector;
    f->clusters = (uint32_t)((total - head) / per);
    f->bits = f->clusters < 4085 ? 12 : f->clusters < 65525 ? 16 : 32;
    f->fat = (uint64_t)reserved * sector;
    f->fats = fats;
    f->fat_bytes = (uint64_t)fat_len * sector;
    f->root_at = (reserved + (uint64_t)fats * fat_len) * sector;
    f->root_bytes = root * 32;
    f->data = head * sector;
    f->root_cluster = f->bits == 32 ? get_le32(b + 44) : 0;
    uint64_t need = ((uint64_t)f->clusters + 2) * f->bits / 8;
    if (f->clusters == 0 || f->clusters > 0x0ffffff5 || need > (uint64_t)fat_len * sector ||
        f->cluster_bytes > 256 * KIB) {
        return -EUCLEAN;
    }
    return 0;
}

int fat_open(struct disk *d, uint64_t off, uint64_t len, struct fs **ret, struct hv_error *e)
{
    struct fat *f = hv_alloc(sizeof(*f));
    uint8_t b[512];
    int r;

    if (!f) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    f->base.ops = &ops;
    f->disk = d;
    f->off = off;
    f->len = len;
    r = fat_read_at(f, 0, b, sizeof(b));
    if (r == 0) {
        r = read_bpb(f, b);
    }
    if (r < 0) {
        free(f);
        return hv_fail_errno(e, -r, NULL, "cannot read the FAT file system");
    }
    *ret = &f->base;
    return 0;
}
