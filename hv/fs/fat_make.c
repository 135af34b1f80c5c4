/*
 * Making FAT: boot sector, two tables, folders and files one after another, each in one run of
 * clusters. What fatgen103 calls the data area is filled from its start; the rest is not touched.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "hv/base/endian.h"
#include "hv/fs/fat.h"

#define FAT32_MIN 65525u
#define FAT16_MIN 4085u
#define ROOT_ENTRIES 512u                /* FAT16 */
#define MEDIA 0xf8u

struct node {
    struct node *parent, *first, *last, *next;
    char name[FS_NAME_MAX + 1];
    uint8_t short_name[11];
    uint16_t text[FS_NAME_MAX + 1];      /* UTF-16, for the long name */
    unsigned text_len, long_entries;     /* 0: the short name says it all */
    const struct fat_file *file;         /* NULL: the root, or a folder not given */
    bool dir;
    uint32_t cluster, count;             /* its run */
};

struct image {
    struct disk *d;
    uint64_t off;
    const struct fat_make *m;
    uint32_t sector, per, reserved, fat_sectors, sectors, clusters, used;
    bool fat32;
    uint64_t data;                       /* byte offset of cluster 2 */
    struct node root;
    uint8_t *fat;
};

static uint32_t cluster_bytes(const struct image *im)
{
    return im->per * im->sector;
}

/* ---- names ---- */

static int to_utf16(struct node *n)
{
    const uint8_t *p = (const uint8_t *)n->name;

    while (*p) {
        unsigned more = *p < 0x80 ? 0 : *p < 0xc2 ? 9 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 9;
        if (more > 2) {
            return -EINVAL;                  /* not UTF-8, or past the first plane */
        }
        uint32_t c = more ? *p & (0x3fu >> more) : *p;
        for (p++; more; more--, p++) {
            if ((*p & 0xc0) != 0x80) {
                return -EINVAL;
            }
            c = c << 6 | (*p & 0x3f);
        }
        if (c < 0x20 || (c < 0x80 && strchr("\"*/:<>?\\|", (int)c))) {
            return -EINVAL;
        }
        n->text[n->text_len++] = (uint16_t)c;
    }
    return 0;
}

static bool short_char(char c)
{
    return isupper((unsigned char)c) || isdigit((unsigned char)c) || (c && strchr("$%'-_@~`!(){}^#&", c));
}

/* The name itself where it is 8.3 in upper case; else NAME~1.EXT and a long name. */
static bool fits_short(const char *name, uint8_t out[11])
{
    const char *dot = strchr(name, '.');
    size_t base = dot ? (size_t)(dot - name) : strlen(name), ext = dot ? strlen(dot + 1) : 0;

    memset(out, ' ', 11);
    if (base < 1 || base > 8 || ext > 3 || (dot && !ext)) {
        return false;
    }
    for (size_t i = 0; i < base + ext; i++) {
        char c = i < base ? name[i] : dot[1 + i - base];
        if (!short_char(c)) {
            return false;
        }
        out[i < base ? i : 8 + i - base] = (uint8_t)c;
    }
    return true;
}

static bool short_taken(const struct node *dir, const uint8_t s[11])
{
    for (const struct node *n = dir->first; n; n = n->next) {
        if (memcmp(n->short_name, s, 11) == 0) {
            return true;
        }
    }
    return false;
}

static int name_node(struct node *dir, struct node *n)
{
    const char *dot = strrchr(n->name, '.');
    uint8_t s[11];
    int r = to_utf16(n);

    if (r < 0) {
        return r;
    }
    if (fits_short(n->name, n->short_name)) {
        return short_taken(dir, n->short_name) ? -EEXIST : 0;
    }
    n->long_entries = (n->text_len + 12) / 13;
    memset(s, ' ', sizeof(s));
    for (unsigned part = 0; part < 2; part++) {
        const char *from = part ? (dot && dot != n->name ? dot + 1 : "") : n->name;
        size_t at = part ? 8 : 0, end = part ? 11 : 6;
        for (; *from && from != dot && at < end; from++) {
            char c = (char)toupper((unsigned char)*from);
            if (c != ' ' && c != '.') {
                s[at++] = short_char(c) ? (uint8_t)c : '_';
            }
        }
    }
    for (unsigned i = 1; i < 1000000; i++) {
        char tail[9];
        int len = snprintf(tail, sizeof(tail), "~%u", i);
        size_t base = 0;
        while (base < (size_t)(8 - len) && s[base] != ' ') {
            base++;
        }
        memcpy(n->short_name, s, 11);
        memset(n->short_name + base, ' ', 8 - base);
        memcpy(n->short_name + base, tail, (size_t)len);
        if (!short_taken(dir, n->short_name)) {
            return 0;
        }
    }
    return -EEXIST;
}

static int child(struct node *dir, const char *name, size_t len, struct node **ret)
{
    struct node *n;

    for (n = dir->first; n; n = n->next) {
        if (strlen(n->name) == len && strncasecmp(n->name, name, len) == 0) {
            *ret = n;
            return 0;
        }
    }
    n = hv_alloc(sizeof(*n));
    if (!n) {
        return -ENOMEM;
    }
    memcpy(n->name, name, len);
    n->parent = dir;
    int r = name_node(dir, n);
    if (r < 0) {
        free(n);
        return r;
    }
    *(dir->last ? &dir->last->next : &dir->first) = n;
    dir->last = n;
    *ret = n;
    return 0;
}

static int add_file(struct image *im, const struct fat_file *f)
{
    struct node *at = &im->root;
    const char *p = f->path;

    for (;;) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        if (!len) {
            break;
        }
        if (len > FS_NAME_MAX || (len <= 2 && strncmp(p, "..", len) == 0) || !at->dir) {
            return -EINVAL;
        }
        int r = child(at, p, len, &at);
        if (r < 0) {
            return r;
        }
        p += len;
        bool last = p[strspn(p, "/")] == '\0';
        if (!last) {
            at->dir = true;
        } else if (at->file || (at->dir && !f->dir)) {
            return f->dir && at->dir ? 0 : -EEXIST;
        } else {
            at->file = f;
            at->dir = f->dir;
        }
    }
    return 0;
}

/* The node after n in a walk parents first. */
static struct node *next_node(struct node *n)
{
    if (n->first) {
        return n->first;
    }
    while (n && !n->next) {
        n = n->parent;
    }
    return n ? n->next : NULL;
}

static void free_nodes(struct image *im)
{
    struct node *n = im->root.first;

    while (n) {
        if (n->first) {
            struct node *down = n->first;
            n->first = NULL;                     /* not again on the way up */
            n = down;
            continue;
        }
        struct node *next = n->next ? n->next : n->parent == &im->root ? NULL : n->parent;
        free(n);
        n = next;
    }
    im->root.first = NULL;
}

/* ---- layout ---- */

static int geometry(struct image *im, uint64_t len)
{
    uint64_t sectors = len / im->sector;
    uint32_t entry;

    if (sectors > UINT32_MAX || len < FAT_MIN_SIZE) {
        return -EINVAL;
    }
    im->sectors = (uint32_t)sectors;
    /* FAT32 where it may be, with the smallest clusters up to 260 MiB and 4 KiB and more above, as Windows. */
    im->fat32 = true;
    uint64_t want = len <= 260 * MIB ? 512 : len <= 8 * GIB ? 4096 : len <= 16 * GIB ? 8192 : len <= 32 * GIB ? 16384 : 32768;
    im->per = (uint32_t)MAX(want / im->sector, 1u);
    if (sectors / im->per < FAT32_MIN + 1200) {      /* with room for the tables themselves */
        im->fat32 = false;
        for (im->per = 1; sectors / im->per >= FAT32_MIN - 16; im->per *= 2) {
        }
        if (sectors / im->per < FAT16_MIN + 64) {
            if (im->per > 1 || sectors < FAT16_MIN + 64) {
                return -ENOSPC;
            }
        }
    }
    im->reserved = im->fat32 ? 32 : 1;
    entry = im->fat32 ? 4 : 2;
    uint32_t root = im->fat32 ? 0 : ROUND_UP(ROOT_ENTRIES * 32, im->sector) / im->sector;
    im->clusters = (im->sectors - im->reserved - root) / im->per;
    im->fat_sectors = (uint32_t)(((uint64_t)im->clusters + 2) * entry / im->sector + 1);
    im->clusters = (im->sectors - im->reserved - root - 2 * im->fat_sectors) / im->per;
    im->data = (uint64_t)(im->reserved + 2 * im->fat_sectors + root) * im->sector;
    return im->fat32 ? (im->clusters >= FAT32_MIN ? 0 : -ENOSPC)
                     : im->clusters >= FAT16_MIN && im->clusters < FAT32_MIN ? 0 : -ENOSPC;
}

static uint32_t dir_entries(const struct node *dir)
{
    uint32_t n = dir->parent ? 2 : 1;                /* "." and "..", or the label */

    for (const struct node *c = dir->first; c; c = c->next) {
        n += 1 + c->long_entries;
    }
    return n;
}

static int place(struct image *im)
{
    uint64_t next = 2;

    for (struct node *n = &im->root; n; n = next_node(n)) {
        uint64_t bytes = n->dir ? (uint64_t)dir_entries(n) * 32 : n->file ? n->file->len : 0;
        if (!n->parent && !im->fat32) {
            if (bytes > ROOT_ENTRIES * 32) {
                return -ENOSPC;
            }
            continue;
        }
        if (bytes > UINT32_MAX || (n->dir && bytes > 65536 * 32)) {
            return -EFBIG;
        }
        uint64_t count = (bytes + cluster_bytes(im) - 1) / cluster_bytes(im);
        n->cluster = count ? (uint32_t)next : 0;
        n->count = (uint32_t)count;
        next += count;
        if (next > (uint64_t)im->clusters + 2) {
            return -ENOSPC;
        }
    }
    im->used = (uint32_t)next;
    return 0;
}

static void put_fat(struct image *im, uint32_t i, uint32_t v)
{
    if (im->fat32) {
        put_le32(im->fat + 4ull * i, v & 0x0fffffff);
    } else {
        put_le16(im->fat + 2ull * i, (uint16_t)v);
    }
}

/* ---- bytes ---- */

static void dos_time(struct fs_time t, uint16_t *ret_date, uint16_t *ret_time)
{
    time_t s = (time_t)MIN(MAX(t.s, (int64_t)315532800), (int64_t)4354819198);     /* 1980 to 2107 */
    struct tm tm;

    gmtime_r(&s, &tm);
    *ret_date = (uint16_t)((tm.tm_year - 80) << 9 | (tm.tm_mon + 1) << 5 | tm.tm_mday);
    *ret_time = (uint16_t)(tm.tm_hour << 11 | tm.tm_min << 5 | tm.tm_sec / 2);
}

static void put_entry(uint8_t *d, const uint8_t name[11], uint8_t attr, uint32_t cluster, uint32_t size,
                      struct fs_time t)
{
    uint16_t date, tm;

    dos_time(t, &date, &tm);
    memcpy(d, name, 11);
    d[11] = attr;
    put_le16(d + 14, tm);
    put_le16(d + 16, date);
    put_le16(d + 18, date);
    put_le16(d + 20, (uint16_t)(cluster >> 16));
    put_le16(d + 22, tm);
    put_le16(d + 24, date);
    put_le16(d + 26, (uint16_t)cluster);
    put_le32(d + 28, size);
}

static uint8_t *put_long(uint8_t *d, const struct node *n)
{
    static const uint8_t at[13] = { 1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30 };
    uint8_t sum = 0;

    for (unsigned i = 0; i < 11; i++) {
        sum = (uint8_t)((sum << 7 | sum >> 1) + n->short_name[i]);
    }
    for (unsigned seq = n->long_entries; seq > 0; seq--, d += 32) {
        d[0] = (uint8_t)(seq | (seq == n->long_entries ? 0x40 : 0));
        d[11] = 0x0f;
        d[13] = sum;
        for (unsigned i = 0; i < 13; i++) {
            unsigned k = (seq - 1) * 13 + i;
            put_le16(d + at[i], k < n->text_len ? n->text[k] : k == n->text_len ? 0 : 0xffff);
        }
    }
    return d;
}

static void label_text(const char *label, uint8_t out[11])
{
    memset(out, ' ', 11);
    for (unsigned i = 0; i < 11 && label[i]; i++) {
        char c = (char)toupper((unsigned char)label[i]);
        out[i] = isalnum((unsigned char)c) || c == '-' ? (uint8_t)c : '_';
    }
}

static struct fs_time node_time(const struct image *im, const struct node *n)
{
    return n->file ? n->file->mtime : (struct fs_time){ .s = im->m->time_s };
}

static int write_dir(struct image *im, const struct node *dir)
{
    bool fixed = !dir->parent && !im->fat32;
    size_t len = fixed ? ROUND_UP(ROOT_ENTRIES * 32, im->sector) : (size_t)dir->count * cluster_bytes(im);
    hv_autofree uint8_t *b = hv_alloc(len);
    uint8_t *d = b, label[11];

    if (!b) {
        return -ENOMEM;
    }
    if (dir->parent) {
        put_entry(d, (const uint8_t *)".          ", 0x10, dir->cluster, 0, node_time(im, dir));
        put_entry(d + 32, (const uint8_t *)"..         ", 0x10, dir->parent->parent ? dir->parent->cluster : 0, 0,
                  node_time(im, dir));
        d += 64;
    } else {
        label_text(im->m->label, label);
        put_entry(d, label, 0x08, 0, 0, (struct fs_time){ .s = im->m->time_s });
        d += 32;
    }
    for (const struct node *n = dir->first; n; n = n->next) {
        d = put_long(d, n);
        put_entry(d, n->short_name, n->dir ? 0x10 : 0x20, n->cluster, n->dir ? 0 : (uint32_t)n->file->len,
                  node_time(im, n));
        d += 32;
    }
    uint64_t at = fixed ? (uint64_t)(im->reserved + 2 * im->fat_sectors) * im->sector
                        : im->data + (uint64_t)(dir->cluster - 2) * cluster_bytes(im);
    return disk_write(im->d, im->off + at, b, len);
}

static int write_nodes(struct image *im)
{
    for (struct node *n = &im->root; n; n = next_node(n)) {
        int r = 0;
        for (uint32_t i = 0; i < n->count; i++) {
            put_fat(im, n->cluster + i, i + 1 < n->count ? n->cluster + i + 1 : 0x0fffffff);
        }
        if (n->dir) {
            r = write_dir(im, n);
        } else if (n->file->len) {
            uint64_t at = im->off + im->data + (uint64_t)(n->cluster - 2) * cluster_bytes(im);
            r = disk_write(im->d, at, n->file->data, n->file->len);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int write_head(struct image *im)
{
    hv_autofree uint8_t *b = hv_alloc(im->sector);
    uint8_t *ext;
    int r;

    if (!b) {
        return -ENOMEM;
    }
    memcpy(b, im->fat32 ? "\xeb\x58\x90" : "\xeb\x3c\x90", 3);
    memcpy(b + 3, "MSWIN4.1", 8);                    /* what readers that look at it expect */
    put_le16(b + 11, (uint16_t)im->sector);
    b[13] = (uint8_t)im->per;
    put_le16(b + 14, (uint16_t)im->reserved);
    b[16] = 2;
    put_le16(b + 17, im->fat32 ? 0 : ROOT_ENTRIES);
    if (!im->fat32 && im->sectors < 65536) {
        put_le16(b + 19, (uint16_t)im->sectors);
    } else {
        put_le32(b + 32, im->sectors);
    }
    b[21] = MEDIA;
    put_le16(b + 22, im->fat32 ? 0 : (uint16_t)im->fat_sectors);
    put_le16(b + 24, 63);
    put_le16(b + 26, 255);
    put_le32(b + 28, (uint32_t)MIN(im->off / im->sector, (uint64_t)UINT32_MAX));
    if (im->fat32) {
        put_le32(b + 36, im->fat_sectors);
        put_le32(b + 44, 2);
        put_le16(b + 48, 1);
        put_le16(b + 50, 6);
    }
    ext = b + (im->fat32 ? 64 : 36);
    ext[0] = 0x80;
    ext[2] = 0x29;
    put_le32(ext + 3, im->m->serial);
    label_text(im->m->label, ext + 7);
    memcpy(ext + 18, im->fat32 ? "FAT32   " : "FAT16   ", 8);
    put_le16(b + 510, 0xaa55);
    r = disk_write(im->d, im->off, b, im->sector);
    if (r < 0 || !im->fat32) {
        return r;
    }
    r = disk_write(im->d, im->off + 6ull * im->sector, b, im->sector);
    memset(b, 0, im->sector);                        /* FSInfo, section 5 */
    put_le32(b, 0x41615252);
    put_le32(b + 484, 0x61417272);
    put_le32(b + 488, im->clusters + 2 - im->used);
    put_le32(b + 492, im->used);
    put_le32(b + 508, 0xaa550000);
    if (r == 0) {
        r = disk_write(im->d, im->off + im->sector, b, im->sector);
    }
    return r < 0 ? r : disk_write(im->d, im->off + 7ull * im->sector, b, im->sector);
}

static int write_all(struct image *im)
{
    uint64_t fat_bytes = ROUND_UP((uint64_t)im->used * (im->fat32 ? 4 : 2), im->sector);
    int r = 0;

    im->fat = hv_alloc(fat_bytes);
    if (!im->fat) {
        return -ENOMEM;
    }
    put_fat(im, 0, 0x0fffff00 | MEDIA);
    put_fat(im, 1, 0x0fffffff);
    if (!im->m->zeroed) {
        r = disk_zero(im->d, im->off, im->data);
    }
    if (r == 0) {
        r = write_nodes(im);
    }
    for (unsigned i = 0; i < 2 && r == 0; i++) {
        r = disk_write(im->d, im->off + (uint64_t)(im->reserved + i * im->fat_sectors) * im->sector, im->fat, fat_bytes);
    }
    return r < 0 ? r : write_head(im);
}

int fat_make(struct disk *d, uint64_t off, uint64_t len, const struct fat_make *m, struct hv_error *e)
{
    struct image im = { .d = d, .off = off, .m = m, .sector = disk_logical_sector(d), .root = { .dir = true } };
    int r = geometry(&im, len);

    if (r < 0) {
        hv_fail(e, HV_USAGE, NULL, "too small for a FAT file system with sectors of %u bytes", im.sector);
        hv_hint(e, "%s or more", im.sector > 512 ? "20M" : "4M");
        return r;
    }
    for (size_t i = 0; i < m->n && r == 0; i++) {
        r = add_file(&im, &m->files[i]);
        if (r < 0) {
            hv_fail_errno(e, -r, m->files[i].path, "cannot be put into a FAT file system");
        }
    }
    if (r == 0) {
        r = place(&im);
        if (r < 0) {
            hv_fail(e, HV_NO_RESOURCES, NULL, "the files do not fit into the FAT file system");
        }
    }
    if (r == 0) {
        r = write_all(&im);
        if (r < 0) {
            hv_fail_errno(e, -r, NULL, "cannot write the FAT file system");
        }
    }
    free(im.fat);
    free_nodes(&im);
    return r;
}
