/*
 * FAT looked through: every chain is followed from the entry that starts it and its clusters are
 * marked, so that none is followed twice; then the table is read once for clusters nobody has.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/fs/check.h"
#include "hv/fs/fat_impl.h"

#define CHUNK   (64 * KIB)
#define FOLDERS (4u << 20)

struct check {
    struct fat *f;
    struct fs_checker *k;
    uint8_t *taken;                      /* a bit a cluster */
    uint32_t *folders;                   /* first clusters, to be read */
    size_t n, cap;
    uint8_t *unit;                       /* a cluster, or FAT16's root */
};

static bool bit(const struct check *c, uint32_t cluster)
{
    return c->taken[cluster / 8] >> (cluster % 8) & 1;
}

/* Name for messages: as it stands there. */
static const char *entry_name(const uint8_t *d, char buf[16])
{
    for (unsigned i = 0; i < 11; i++) {
        buf[i] = (char)(d[i] > ' ' && d[i] <= '~' ? d[i] : i < 8 && d[i] == ' ' ? ' ' : '_');
    }
    buf[11] = '\0';
    return buf;
}

/* Mark a chain; *ret_n clusters of it are good. */
static void follow(struct check *c, const char *name, uint32_t first, uint64_t *ret_n)
{
    uint32_t at = first;

    *ret_n = 0;
    while (at) {
        if (at < 2 || at >= c->f->clusters + 2) {
            fs_found(c->k, "%s: cluster %u does not exist", name, at);
            return;
        }
        if (bit(c, at)) {
            fs_found(c->k, "%s: cluster %u belongs to somebody else too, or twice to this", name, at);
            return;
        }
        c->taken[at / 8] = (uint8_t)(c->taken[at / 8] | 1u << (at % 8));
        ++*ret_n;
        if (fat_next(c->f, at, &at) < 0) {
            fs_found(c->k, "%s: its chain of clusters is broken", name);
            return;
        }
    }
}

static int add_folder(struct check *c, uint32_t first)
{
    if (c->n >= FOLDERS) {
        return -E2BIG;
    }
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 256;
        uint32_t *grown = hv_realloc_array(c->folders, cap, sizeof(*grown));

        if (!grown) {
            return -ENOMEM;
        }
        c->folders = grown;
        c->cap = cap;
    }
    c->folders[c->n++] = first;
    return 0;
}

static int one_entry(struct check *c, const uint8_t *d)
{
    uint32_t first = get_le16(d + 26) | (c->f->bits == 32 ? (uint32_t)get_le16(d + 20) << 16 : 0);
    uint64_t size = get_le32(d + 28), n = 0;
    bool dir = d[11] & FAT_ATTR_DIR;
    char name[16];

    if (d[11] & FAT_ATTR_VOLUME || d[0] == '.') {
        return 0;
    }
    entry_name(d, name);
    if (!first) {
        if (dir || size) {
            fs_found(c->k, "%s: %s", name, dir ? "a folder without clusters" : "has a length and no clusters");
        }
        return 0;
    }
    follow(c, name, first, &n);
    if (dir) {
        return n ? add_folder(c, first) : 0;
    }
    if (n * c->f->cluster_bytes < size) {
        fs_found(c->k, "%s: %llu bytes long, with clusters for %llu", name, (unsigned long long)size,
                 (unsigned long long)n * c->f->cluster_bytes);
    } else if (n * c->f->cluster_bytes >= size + c->f->cluster_bytes) {
        fs_found(c->k, "%s: has more clusters than its %llu bytes need", name, (unsigned long long)size);
    }
    return 0;
}

/* 1: the folder ends here. */
static int entries(struct check *c, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i + 32 <= len; i += 32) {
        int r;

        if (p[i] == 0) {
            return 1;
        }
        if (p[i] == 0xe5 || (p[i + 11] & 0x3f) == FAT_ATTR_LFN) {
            continue;
        }
        r = one_entry(c, p + i);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* Its chain was followed when it was met: it ends. */
static int folder(struct check *c, uint32_t first)
{
    uint64_t bytes = 0;
    int r = 0;

    for (uint32_t at = first; at && r == 0; bytes += c->f->cluster_bytes) {
        if (bytes >= FAT_DIR_MAX || at < 2 || at >= c->f->clusters + 2) {
            break;
        }
        r = fat_read_at(c->f, fat_cluster_at(c->f, at), c->unit, c->f->cluster_bytes);
        r = r < 0 ? r : entries(c, c->unit, c->f->cluster_bytes);
        if (r == 0 && fat_next(c->f, at, &at) < 0) {
            break;
        }
    }
    return r < 0 ? r : 0;
}

static int all_folders(struct check *c)
{
    uint64_t n;
    int r;

    if (c->f->bits == 32) {
        follow(c, "the root folder", c->f->root_cluster, &n);
        r = n ? add_folder(c, c->f->root_cluster) : 0;
    } else {
        r = fat_read_at(c->f, c->f->root_at, c->unit, c->f->root_bytes);
        r = r < 0 ? r : entries(c, c->unit, c->f->root_bytes);
    }
    for (size_t i = 0; r >= 0 && i < c->n; i++) {
        r = folder(c, c->folders[i]);
    }
    return r < 0 ? r : 0;
}

/* Both tables say the same? Holes of the disk are skipped where all of them have one. */
static int compare_tables(struct check *c)
{
    hv_autofree uint8_t *a = hv_alloc(CHUNK), *b = hv_alloc(CHUNK);
    struct fat *f = c->f;

    if (!a || !b) {
        return -ENOMEM;
    }
    for (uint32_t copy = 1; copy < f->fats; copy++) {
        for (uint64_t at = 0; at < f->fat_bytes;) {
            uint64_t from = f->off + f->fat + at, n = f->fat_bytes - at;
            struct disk_extent x, y;
            int r = disk_map(f->disk, from, n, &x);

            r = r < 0 ? r : disk_map(f->disk, from + copy * f->fat_bytes, n, &y);
            if (r < 0) {
                return r;
            }
            n = MIN(x.len, y.len);
            if (x.where == DISK_DATA || y.where == DISK_DATA) {
                n = MIN(n, (uint64_t)CHUNK);
                r = disk_read(f->disk, from, a, n);
                r = r < 0 ? r : disk_read(f->disk, from + copy * f->fat_bytes, b, n);
                if (r < 0) {
                    return r;
                }
                if (memcmp(a, b, n) != 0) {
                    fs_found(c->k, "the tables of clusters differ");
                    return 0;
                }
            }
            at += n;
        }
    }
    return 0;
}

/* Clusters in use that no chain has. */
static int lost_clusters(struct check *c)
{
    hv_autofree uint8_t *chunk = hv_alloc(CHUNK);
    struct fat *f = c->f;
    uint64_t lost = 0;

    if (!chunk) {
        return -ENOMEM;
    }

    for (uint32_t at = 2; at < f->clusters + 2;) {
        uint64_t byte = (uint64_t)at * f->bits / 8, rest = f->fat_bytes - byte;
        uint8_t b[4] = { 0 };
        struct disk_extent x;
        int r = disk_map(f->disk, f->off + f->fat + byte, rest, &x);

        if (r < 0) {
            return r;
        }
        if (x.where != DISK_DATA && x.len > 16) {            /* zeros: nobody's */
            at += (uint32_t)((x.len - 8) * 8 / f->bits);
            continue;
        }
        /* Whole entries in a chunk; all of a FAT12 is one. */
        uint64_t n = MIN((uint64_t)CHUNK, rest), stop = MIN((uint64_t)f->clusters + 2, at + n * 8 / f->bits);
        r = fat_read_at(f, f->fat + byte, chunk, n);
        if (r < 0) {
            return r;
        }
        for (uint32_t first = at; at < stop || at == first; at++) {
            uint64_t in = (uint64_t)at * f->bits / 8 - byte;
            size_t width = f->bits == 32 ? 4 : 2;

            if (in + width > n) {
                if (at > first) {
                    break;
                }
                memset(b, 0, sizeof(b));                     /* the table's last half byte */
                memcpy(b, chunk + in, n > in ? n - in : 0);
            } else {
                memcpy(b, chunk + in, width);
            }
            uint32_t v = f->bits == 32 ? get_le32(b) & 0x0fffffff : f->bits == 16 ? get_le16(b)
                       : at & 1 ? get_le16(b) >> 4 : get_le16(b) & 0xfffu;
            uint32_t bad = f->bits == 32 ? 0x0ffffff7 : f->bits == 16 ? 0xfff7 : 0xff7;

            lost += v != 0 && v != bad && !bit(c, at);
        }
    }
    if (lost) {
        fs_found(c->k, "%llu clusters are in use and belong to nobody", (unsigned long long)lost);
    }
    return 0;
}

/* The second entry says whether it was unmounted and whether Windows met errors. */
static int check_state(struct check *c)
{
    uint8_t b[8];
    int r = c->f->bits == 12 ? 0 : fat_read_at(c->f, c->f->fat, b, sizeof(b));

    if (r < 0 || c->f->bits == 12) {
        return r;
    }
    uint32_t v = c->f->bits == 32 ? get_le32(b + 4) : get_le16(b + 2), top = c->f->bits == 32 ? 1u << 27 : 1u << 15;

    if (!(v & top)) {
        fs_remark(c->k, "was not unmounted");
    }
    if (!(v & top >> 1)) {
        fs_found(c->k, "errors of the disk were met in it");
    }
    return 0;
}

int fat_check(struct disk *d, uint64_t off, uint64_t len, struct fs_checker *k, struct hv_error *e)
{
    struct check c = { .k = k };
    struct hv_error why = { 0 };
    struct fs *fs;
    int r = fat_open(d, off, len, &fs, &why);

    if (r < 0) {
        fs_found(k, "%s", why.message);
        return 0;
    }
    c.f = (struct fat *)fs;
    c.taken = hv_alloc((c.f->clusters + 2) / 8 + 1);
    c.unit = hv_alloc(MAX(c.f->cluster_bytes, c.f->root_bytes) + 1);
    r = c.taken && c.unit ? check_state(&c) : -ENOMEM;
    r = r < 0 ? r : compare_tables(&c);
    r = r < 0 ? r : all_folders(&c);
    r = r < 0 ? r : lost_clusters(&c);
    free(c.taken);
    free(c.unit);
    free(c.folders);
    fs_close(fs);
    if (r == -EUCLEAN) {
        fs_found(k, "its tables reach out of the partition");
        return 0;
    }
    return r == -E2BIG ? hv_fail(e, HV_UNSUPPORTED, NULL, "has more than %u folders", FOLDERS)
         : r < 0 ? hv_fail_errno(e, -r, NULL, "cannot check the file system") : 0;
}
