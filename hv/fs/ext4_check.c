/*
 * ext2, ext3 and ext4 looked through, as e2fsck -n does in its five passes. hv/fs/check.h says what
 * is compared and what is not.
 *
 *   tables of the groups, then inode by inode ──▶ found: blocks somebody has   (bitmaps, counts)
 *                                             └─▶ files: inodes in use          (names, links)
 *   folder by folder: names ──▶ files[].names, files[].parent ──▶ links, connectedness
 *
 * A stranger's image ends soon: tables that overlap are not read twice, a block that is somebody's
 * already ends the walk over a file, parts of tables that the disk does not hold are skipped, and
 * extents are taken whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "hv/base/endian.h"
#include "hv/fs/check.h"
#include "hv/fs/ext4_open.h"

#define CHUNK     (64 * KIB)
#define NO_PARENT UINT32_MAX

struct file {
    uint32_t ino;
    uint32_t parent;                     /* folders: index of the one that names it */
    uint32_t up;                         /* folders: what '..' says */
    uint16_t links, mode;
    uint16_t names;                      /* as many lead here (at most 65535); folders: folders in it */
    bool named, hangs, hidden;           /* a folder: has a name; is under the root. hidden: has none by design */
};

struct check {
    struct disk *d;
    uint64_t off;                        /* of the file system in the disk */
    struct fs_checker *k;
    struct ext4 *x;
    ext2_filsys fs;
    ext2fs_block_bitmap found, shared;   /* blocks with an owner; those of attributes, which may have several */
    struct file *files;                  /* by inode */
    size_t n, cap;
    uint8_t *chunk, *block;
};

/* ---- blocks ---- */

static bool in_range(const struct check *c, uint64_t at, uint64_t n)
{
    uint64_t end = ext2fs_blocks_count(c->fs->super);

    return at >= c->fs->super->s_first_data_block && at < end && n <= end - at;
}

/* Blocks [at, at+n) are whose. False, and said, where that cannot be. */
static bool take(struct check *c, const char *whose, uint64_t ino, uint64_t at, uint64_t n)
{
    char who[48];

    snprintf(who, sizeof(who), ino ? "%s %llu" : "%s", whose, (unsigned long long)ino);
    if (n == 0 || !in_range(c, at, n)) {
        fs_found(c->k, "%s: block %llu lies outside of the file system", who, (unsigned long long)at);
        return false;
    }
    if (!ext2fs_test_block_bitmap_range2(c->found, at, (unsigned)n)) {
        fs_found(c->k, "%s: block%s %llu%s belong to somebody else too", who, n > 1 ? "s from" : "",
                 (unsigned long long)at, n > 1 ? " on" : "");
        return false;
    }
    ext2fs_mark_block_bitmap_range2(c->found, at, (unsigned)n);
    return true;
}

/* ---- the tables of the groups ---- */

static bool take_group(struct check *c, dgrp_t g)
{
    ext2_filsys fs = c->fs;

    if (!ext2fs_group_desc_csum_verify(fs, g)) {
        fs_found(c->k, "group %u: its descriptor has a wrong checksum", g);
    }
    bool ok = take(c, "block bitmap of group", g, ext2fs_block_bitmap_loc(fs, g), 1);
    ok = take(c, "inode bitmap of group", g, ext2fs_inode_bitmap_loc(fs, g), 1) && ok;
    return take(c, "inode table of group", g, ext2fs_inode_table_loc(fs, g), fs->inode_blocks_per_group) && ok;
}

/* ---- one inode ---- */

struct blocks { struct check *c; uint64_t ino, count; bool bad; };

static int one_block(ext2_filsys fs, blk64_t *at, e2_blkcnt_t which, blk64_t ref, int ref_offset, void *arg)
{
    struct blocks *b = arg;

    (void)fs;
    (void)which;
    (void)ref;
    (void)ref_offset;
    b->count++;
    if (b->ino == EXT2_RESIZE_INO) {         /* its blocks are the tables' reserve, counted there */
        if (!in_range(b->c, *at, 1)) {
            fs_found(b->c->k, "inode 7: block %llu lies outside of the file system", (unsigned long long)*at);
            return BLOCK_ABORT;
        }
        ext2fs_mark_block_bitmap2(b->c->found, *at);
        return b->count > ext2fs_blocks_count(b->c->fs->super) ? BLOCK_ABORT : 0;
    }
    b->bad = !take(b->c, "inode", b->ino, *at, 1);
    return b->bad ? BLOCK_ABORT : 0;
}

/* Blocks by extents: nodes of the tree and what the leaves name. */
static errcode_t each_extent(struct blocks *b, union ext4_inode *in)
{
    struct check *c = b->c;
    ext2_extent_handle_t h;
    struct ext2fs_extent x;
    uint64_t next = 0;
    errcode_t err = ext2fs_extent_open2(c->fs, (ext2_ino_t)b->ino, &in->s, &h);

    if (err) {
        return err;
    }
    for (int op = EXT2_EXTENT_ROOT; !b->bad; op = EXT2_EXTENT_NEXT) {
        err = ext2fs_extent_get(h, op, &x);
        if (err) {
            break;
        }
        if (x.e_flags & EXT2_EXTENT_FLAGS_SECOND_VISIT) {
            continue;
        }
        if (!(x.e_flags & EXT2_EXTENT_FLAGS_LEAF)) {
            b->bad = !take(c, "inode", b->ino, x.e_pblk, 1);
            b->count++;
            continue;
        }
        if (x.e_lblk < next || x.e_len == 0) {
            fs_found(c->k, "inode %llu: its extents are out of order", (unsigned long long)b->ino);
            b->bad = true;
            break;
        }
        next = x.e_lblk + x.e_len;
        b->count += x.e_len;
        b->bad = !take(c, "inode", b->ino, x.e_pblk, x.e_len);
    }
    ext2fs_extent_free(h);
    return err == EXT2_ET_EXTENT_NO_NEXT || err == EXT2_ET_NO_CURRENT_NODE ? 0 : err;
}

static void check_attributes(struct blocks *b, union ext4_inode *in)
{
    struct check *c = b->c;
    uint64_t at = ext2fs_file_acl_block(c->fs, &in->s);

    if (at == 0) {
        return;
    }
    b->count++;
    if (in_range(c, at, 1) && ext2fs_test_block_bitmap2(c->shared, at)) {
        return;
    }
    if (take(c, "attributes of inode", b->ino, at, 1)) {
        ext2fs_mark_block_bitmap2(c->shared, at);
    }
}

static void check_blocks(struct check *c, uint64_t ino, union ext4_inode *in)
{
    struct blocks b = { .c = c, .ino = ino };
    uint64_t claimed = in->s.i_blocks | (uint64_t)in->s.osd2.linux2.l_i_blocks_hi << 32;
    errcode_t err = 0;

    check_attributes(&b, in);
    if (in->s.i_flags & EXT4_INLINE_DATA_FL || !ext2fs_inode_has_valid_blocks2(c->fs, &in->s)) {
        /* nothing but what lies in the inode */
    } else if (in->s.i_flags & EXT4_EXTENTS_FL) {
        err = each_extent(&b, in);
    } else {
        err = ext2fs_block_iterate3(c->fs, (ext2_ino_t)ino, BLOCK_FLAG_READ_ONLY, NULL, one_block, &b);
    }
    if (err) {
        fs_found(c->k, "inode %llu: %s", (unsigned long long)ino, error_message(err));
        return;
    }
    if (!(in->s.i_flags & EXT4_HUGE_FILE_FL)) {
        b.count *= c->fs->blocksize / 512;
    }
    if (!b.bad && claimed != b.count && ino != EXT2_BAD_INO) {
        fs_found(c->k, "inode %llu: says it has %llu blocks, and has %llu", (unsigned long long)ino,
                 (unsigned long long)claimed, (unsigned long long)b.count);
    }
}

static bool hidden(const struct check *c, uint64_t ino)
{
    const struct ext2_super_block *s = c->fs->super;

    return (ino < EXT2_FIRST_INODE(s) && ino != EXT2_ROOT_INO) || ino == s->s_orphan_file_inum ||
           ino == s->s_prj_quota_inum || ino == s->s_usr_quota_inum || ino == s->s_grp_quota_inum ||
           ino == s->s_journal_inum;
}

static int take_inode(struct check *c, uint64_t ino)
{
    union ext4_inode in;
    errcode_t err = ext2fs_read_inode_full(c->fs, (ext2_ino_t)ino, &in.s, sizeof(in));

    if (err) {
        fs_found(c->k, "inode %llu: %s", (unsigned long long)ino, error_message(err));
        if (err != EXT2_ET_INODE_CSUM_INVALID) {
            return 0;
        }
    }
    bool hide = hidden(c, ino) || in.s.i_flags & EXT4_EA_INODE_FL;
    if (!in.s.i_links_count && !(hide && in.s.i_mode) && ino != EXT2_BAD_INO && ino != EXT2_RESIZE_INO) {
        return 0;                            /* deleted */
    }
    if (!(ino < EXT2_FIRST_INODE(c->fs->super)) && !(in.s.i_mode & S_IFMT)) {
        fs_found(c->k, "inode %llu: is in use and of no type", (unsigned long long)ino);
    }
    if (c->n >= FS_CHECK_FILES) {
        return -E2BIG;
    }
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 4096;
        struct file *grown = hv_realloc_array(c->files, cap, sizeof(*grown));

        if (!grown) {
            return -ENOMEM;
        }
        c->files = grown;
        c->cap = cap;
    }
    c->files[c->n++] = (struct file){ .ino = (uint32_t)ino, .parent = NO_PARENT, .links = in.s.i_links_count,
                                      .mode = in.s.i_mode, .hidden = hide };
    check_blocks(c, ino, &in);
    return 0;
}

/* Inodes of group g in those parts of its table that hold anything. */
static int take_inodes(struct check *c, dgrp_t g)
{
    ext2_filsys fs = c->fs;
    uint32_t size = EXT2_INODE_SIZE(fs->super), per = fs->super->s_inodes_per_group, n = per;
    uint64_t at = c->off + ext2fs_inode_table_loc(fs, g) * fs->blocksize;

    if (ext2fs_has_group_desc_csum(fs)) {
        if (ext2fs_bg_flags_test(fs, g, EXT2_BG_INODE_UNINIT)) {
            return 0;
        }
        n = per - MIN(per, ext2fs_bg_itable_unused(fs, g));
    }
    for (uint64_t i = 0; i < n;) {
        struct disk_extent x;
        uint64_t len = MIN((n - i) * size, (uint64_t)CHUNK / size * size);
        int r = disk_map(c->d, at + i * size, len, &x);

        if (r < 0) {
            return r;
        }
        if (x.where != DISK_DATA && x.len >= size) {
            i += x.len / size;
            continue;
        }
        r = disk_read(c->d, at + i * size, c->chunk, len);
        for (uint64_t k = 0; k < len / size && r == 0; k++, i++) {
            const uint8_t *p = c->chunk + k * size;
            uint64_t ino = (uint64_t)g * per + i + 1;

            if ((get_le16(p) || get_le16(p + 26)) && ino <= fs->super->s_inodes_count) {
                r = take_inode(c, ino);
            }
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* ---- names ---- */

static struct file *find_file(struct check *c, uint64_t ino)
{
    size_t lo = 0, hi = c->n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (c->files[mid].ino < ino) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < c->n && c->files[lo].ino == ino ? &c->files[lo] : NULL;
}

static unsigned type_of(uint32_t mode)
{
    static const uint8_t type[16] = { [S_IFREG >> 12] = 1, [S_IFDIR >> 12] = 2, [S_IFCHR >> 12] = 3, [S_IFBLK >> 12] = 4,
                                      [S_IFIFO >> 12] = 5, [S_IFSOCK >> 12] = 6, [S_IFLNK >> 12] = 7 };

    return type[mode >> 12 & 15];
}

struct folder { struct check *c; struct file *self; uint64_t dotdot; bool dot, dots; };

static void one_name(struct folder *f, uint64_t ino, unsigned type, const uint8_t *name, unsigned len)
{
    struct check *c = f->c;
    struct file *to = find_file(c, ino);
    unsigned long long dir = f->self->ino, target = ino;

    if (len == 1 && name[0] == '.') {
        f->dot = true;
        if (ino != f->self->ino) {
            fs_found(c->k, "folder %llu: its '.' is inode %llu", dir, target);
        }
        return;
    }
    if (len == 2 && name[0] == '.' && name[1] == '.') {
        f->dots = true;
        f->dotdot = ino;
        return;
    }
    if (memchr(name, '/', len) || memchr(name, '\0', len)) {
        fs_found(c->k, "folder %llu: a name with a slash or a null byte", dir);
    }
    if (!to) {
        fs_found(c->k, "folder %llu: '%.*s' is inode %llu, which nobody uses", dir, (int)MIN(len, 60u), (const char *)name,
                 target);
        return;
    }
    if (ext2fs_has_feature_filetype(c->fs->super) && type && type != type_of(to->mode)) {
        fs_found(c->k, "folder %llu: '%.*s' says another type than its inode %llu", dir, (int)MIN(len, 60u),
                 (const char *)name, target);
    }
    if (!S_ISDIR(to->mode)) {
        to->names = (uint16_t)MIN(to->names + 1u, 65535u);
        return;
    }
    f->self->names = (uint16_t)MIN(f->self->names + 1u, 65535u);
    if (to->named || to->ino == EXT2_ROOT_INO) {
        fs_found(c->k, "folder %llu has more than one name", target);
        return;
    }
    to->named = true;
    to->parent = (uint32_t)(f->self - c->files);
}

/* Entries in p[len]; false, and said, where they cannot be followed. */
static bool names_in(struct folder *f, const uint8_t *p, size_t len)
{
    uint32_t max = f->c->fs->super->s_inodes_count;

    for (size_t at = 0; at < len;) {
        uint32_t ino, rec, n;

        if (len - at < 8) {
            break;
        }
        ino = get_le32(p + at);
        rec = get_le16(p + at + 4);
        n = p[at + 6];
        if (f->c->fs->blocksize >= 65536 && (rec == 65535 || rec == 0)) {
            rec = f->c->fs->blocksize;
        }
        if (rec < 8 || rec % 4 || rec > len - at || 8 + n > rec || ino > max) {
            fs_found(f->c->k, "folder %u: a broken entry", f->self->ino);
            return false;
        }
        if (ino && n) {
            one_name(f, ino, p[at + 7], p + at + 8, n);
        }
        at += rec;
    }
    return true;
}

static void inline_names(struct folder *f, union ext4_inode *in)
{
    struct check *c = f->c;
    hv_autofree uint8_t *data = hv_alloc(FS_XATTR_MAX + 64);
    size_t size = 0;
    errcode_t err = ext2fs_inline_data_size(c->fs, f->self->ino, &size);

    if (!err && size <= FS_XATTR_MAX && data) {
        err = ext2fs_inline_data_get(c->fs, f->self->ino, &in->s, data, &size);
    }
    if (err || size > FS_XATTR_MAX || size < 4 || !data) {
        fs_found(c->k, "folder %u: its content in the inode cannot be read", f->self->ino);
        return;
    }
    f->dot = f->dots = true;
    f->dotdot = get_le32(data);
    if (names_in(f, data + 4, MIN(size, (size_t)60) - 4) && size > 60) {
        names_in(f, data + 60, size - 60);
    }
}

static void check_folder(struct check *c, struct file *self)
{
    struct folder f = { .c = c, .self = self };
    union ext4_inode in;
    uint32_t bs = c->fs->blocksize;

    if (ext2fs_read_inode_full(c->fs, self->ino, &in.s, sizeof(in)) || in.s.i_flags & EXT4_ENCRYPT_FL) {
        return;                              /* said already; or names that only a key can tell */
    }
    if (in.s.i_flags & EXT4_INLINE_DATA_FL) {
        inline_names(&f, &in);
    } else {
        uint64_t size = EXT2_I_SIZE(&in.s);

        if (size % bs || size == 0) {
            fs_found(c->k, "folder %u: a length of %llu bytes, not whole blocks", self->ino, (unsigned long long)size);
        }
        for (uint64_t i = 0; i < size / bs; i++) {
            blk64_t at = 0;
            errcode_t err = ext2fs_bmap2(c->fs, self->ino, &in.s, NULL, 0, i, NULL, &at);

            if (!err && (!at || !in_range(c, at, 1))) {
                fs_found(c->k, "folder %u: block %llu of it is missing", self->ino, (unsigned long long)i);
                break;
            }
            err = err ? err : ext2fs_read_dir_block4(c->fs, at, c->block, 0, self->ino);
            if (err) {
                fs_found(c->k, "folder %u: %s", self->ino, error_message(err));
                break;
            }
            if (!names_in(&f, c->block, bs)) {
                break;
            }
        }
    }
    if (!f.dot || !f.dots) {
        fs_found(c->k, "folder %u: has no '.' or no '..'", self->ino);
    }
    self->up = (uint32_t)f.dotdot;           /* compared when it is known who names this one */
}

/* Does every folder hang on the root? A chain of parents that never gets there is a loop. */
static void check_tree(struct check *c, struct file *root)
{
    root->hangs = true;
    for (size_t i = 0; i < c->n; i++) {
        struct file *f = &c->files[i];
        size_t steps = 0;

        if (!S_ISDIR(f->mode) || f->hidden || f->hangs || !f->named) {
            continue;
        }
        while (!f->hangs && f->parent != NO_PARENT && steps++ < c->n) {
            f = &c->files[f->parent];
        }
        bool good = f->hangs;
        f = &c->files[i];
        for (size_t k = 0; good && k < steps && !f->hangs; k++) {
            f->hangs = true;
            f = &c->files[f->parent];
        }
        if (!good) {
            fs_found(c->k, "folder %u does not hang on the root", c->files[i].ino);
            for (f = &c->files[i]; !f->hangs && f->parent != NO_PARENT; f = &c->files[f->parent]) {
                f->hangs = true;             /* said once for all of them */
            }
        }
    }
}

static void check_links(struct check *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct file *f = &c->files[i];
        unsigned expect = f->names;

        if (f->hidden) {
            continue;
        }
        if (S_ISDIR(f->mode)) {
            if (!f->named && f->ino != EXT2_ROOT_INO) {
                fs_found(c->k, "folder %u has no name", f->ino);
                continue;
            }
            uint32_t up = f->ino == EXT2_ROOT_INO ? f->ino : c->files[f->parent].ino;

            if (f->up != up) {
                fs_found(c->k, "folder %u: its '..' is inode %u, not %u", f->ino, f->up, up);
            }
            expect += 2;
            if (f->links == 1 && ext2fs_has_feature_dir_nlink(c->fs->super)) {
                continue;                    /* more folders in it than the field can count */
            }
        } else if (f->names == 0) {
            fs_found(c->k, "inode %u has no name", f->ino);
            continue;
        }
        if (f->links != expect) {
            fs_found(c->k, "inode %u: says it has %u names, and has %u", f->ino, f->links, expect);
        }
    }
}

static int check_names(struct check *c)
{
    struct file *root = find_file(c, EXT2_ROOT_INO);

    if (!root || !S_ISDIR(root->mode)) {
        fs_found(c->k, "there is no root folder");
        return 0;
    }
    for (size_t i = 0; i < c->n; i++) {
        if (S_ISDIR(c->files[i].mode) && !c->files[i].hidden) {
            check_folder(c, &c->files[i]);
        }
    }
    check_tree(c, root);
    check_links(c);
    return 0;
}

/* ---- bitmaps and counts ---- */

/* The end of the run that starts at `at` in map, up to end; *ret_set: of which kind it is. */
static uint64_t run_end(ext2fs_block_bitmap map, uint64_t at, uint64_t end, bool *ret_set)
{
    blk64_t next;

    *ret_set = ext2fs_test_block_bitmap2(map, at);
    errcode_t err = *ret_set ? ext2fs_find_first_zero_block_bitmap2(map, at, end - 1, &next)
                             : ext2fs_find_first_set_block_bitmap2(map, at, end - 1, &next);
    return err ? end : next;
}

static void compare_bitmaps(struct check *c, uint32_t *group_free)
{
    struct ext2_super_block *s = c->fs->super;
    uint64_t end = ext2fs_blocks_count(s), per = s->s_blocks_per_group, unused = 0;

    for (uint64_t at = s->s_first_data_block; at < end;) {
        bool really, said;
        uint64_t stop = MIN(run_end(c->found, at, end, &really), run_end(c->fs->block_map, at, end, &said));

        if (really != said) {
            fs_found(c->k, really ? "blocks %llu to %llu are in use, the bitmap says they are free"
                                  : "blocks %llu to %llu belong to nobody, the bitmap says they are in use",
                     (unsigned long long)at, (unsigned long long)stop - 1);
        }
        for (uint64_t b = at; b < stop && !said;) {
            uint64_t g = (b - s->s_first_data_block) / per, group_end = MIN(stop, s->s_first_data_block + (g + 1) * per);

            group_free[g] += (uint32_t)(group_end - b);
            unused += group_end - b;
            b = group_end;
        }
        at = stop;
    }
    if (unused != ext2fs_free_blocks_count(s)) {
        fs_found(c->k, "the superblock counts %llu free blocks, the bitmaps %llu",
                 (unsigned long long)ext2fs_free_blocks_count(s), (unsigned long long)unused);
    }
    for (dgrp_t g = 0; g < c->fs->group_desc_count; g++) {
        if (group_free[g] != ext2fs_bg_free_blocks_count(c->fs, g)) {
            fs_found(c->k, "group %u counts %u free blocks, its bitmap %u", g, ext2fs_bg_free_blocks_count(c->fs, g),
                     group_free[g]);
        }
    }
}

static void check_inode_maps(struct check *c, uint32_t *group_used)
{
    struct ext2_super_block *s = c->fs->super;
    uint64_t at = EXT2_FIRST_INODE(s), used = 0, per = s->s_inodes_per_group;
    size_t i = 0;

    for (size_t k = 0; k < c->n; k++) {
        const struct file *f = &c->files[k];

        if (f->ino >= EXT2_FIRST_INODE(s) && !ext2fs_test_inode_bitmap2(c->fs->inode_map, f->ino)) {
            fs_found(c->k, "inode %u is in use, the bitmap says it is free", f->ino);
        }
    }
    for (ext2_ino_t next; at <= s->s_inodes_count; at = (uint64_t)next + 1) {
        if (ext2fs_find_first_set_inode_bitmap2(c->fs->inode_map, (ext2_ino_t)at, s->s_inodes_count, &next)) {
            break;
        }
        while (i < c->n && c->files[i].ino < next) {
            i++;
        }
        if (i == c->n || c->files[i].ino != next) {
            fs_found(c->k, "inode %u is used by nobody, the bitmap says it is in use", next);
        }
        group_used[(next - 1) / per]++;
        used++;
    }
    used += EXT2_FIRST_INODE(s) - 1;
    group_used[0] += EXT2_FIRST_INODE(s) - 1;
    if (s->s_inodes_count - used != s->s_free_inodes_count) {
        fs_found(c->k, "the superblock counts %u free inodes, the bitmaps %llu", s->s_free_inodes_count,
                 (unsigned long long)(s->s_inodes_count - used));
    }
    for (dgrp_t g = 0; g < c->fs->group_desc_count; g++) {
        if (per - group_used[g] != ext2fs_bg_free_inodes_count(c->fs, g)) {
            fs_found(c->k, "group %u counts %u free inodes, its bitmap %llu", g, ext2fs_bg_free_inodes_count(c->fs, g),
                     (unsigned long long)(per - group_used[g]));
        }
    }
}

static int check_maps(struct check *c)
{
    hv_autofree uint32_t *unused = hv_alloc_array(c->fs->group_desc_count, sizeof(*unused));
    hv_autofree uint32_t *used = hv_alloc_array(c->fs->group_desc_count, sizeof(*used));
    errcode_t err;

    if (!unused || !used) {
        return -ENOMEM;
    }
    err = ext2fs_read_bitmaps(c->fs);
    if (err) {
        fs_found(c->k, "the bitmaps: %s", error_message(err));
        return 0;
    }
    compare_bitmaps(c, unused);
    check_inode_maps(c, used);
    return 0;
}

/* ---- all of it ---- */

static int walk(struct check *c)
{
    ext2_filsys fs = c->fs;
    int r = 0;

    for (dgrp_t g = 0; g < fs->group_desc_count; g++) {
        ext2fs_reserve_super_and_bgd(fs, g, c->found);
    }
    if (ext2fs_has_feature_mmp(fs->super) && !take(c, "multiple mount protection", 0, fs->super->s_mmp_block, 1)) {
        return 0;
    }
    hv_autofree uint8_t *readable = hv_alloc(fs->group_desc_count);
    if (!readable) {
        return -ENOMEM;
    }
    for (dgrp_t g = 0; g < fs->group_desc_count; g++) {
        readable[g] = take_group(c, g);
    }
    for (dgrp_t g = 0; g < fs->group_desc_count && r == 0; g++) {
        r = readable[g] ? take_inodes(c, g) : 0;
    }
    r = r < 0 ? r : check_names(c);
    return r < 0 ? r : check_maps(c);
}

int ext4_check(struct disk *d, uint64_t off, uint64_t len, struct fs_checker *k, struct hv_error *e)
{
    struct check c = { .d = d, .off = off, .k = k };
    struct hv_error why = { 0 };
    struct fs *fs;
    int r = ext4_open(d, off, len, false, &fs, &why);

    if (r < 0) {
        fs_found(k, "%s", why.message);
        return 0;
    }
    c.x = (struct ext4 *)fs;
    c.fs = c.x->fs;
    if (ext2fs_has_feature_journal_needs_recovery(c.fs->super)) {
        fs_remark(k, "was not unmounted: until its journal is replayed the rest cannot be checked");
        fs_close(fs);
        return 0;
    }
    if (!(c.fs->super->s_state & EXT2_VALID_FS) || c.fs->super->s_state & EXT2_ERROR_FS) {
        fs_found(k, c.fs->super->s_state & EXT2_ERROR_FS ? "Linux found errors in it" : "was not unmounted");
    }
    if (ext2fs_has_feature_bigalloc(c.fs->super) || ext2fs_has_feature_journal_dev(c.fs->super)) {
        fs_remark(k, "ext4 with clusters (bigalloc), or a journal alone, is not checked");
        fs_close(fs);
        return 0;
    }
    c.chunk = hv_alloc(CHUNK);
    c.block = hv_alloc(c.fs->blocksize);
    c.fs->default_bitmap_type = EXT2FS_BMAP64_RBTREE;
    r = !c.chunk || !c.block || ext2fs_allocate_block_bitmap(c.fs, "found", &c.found) ||
        ext2fs_allocate_block_bitmap(c.fs, "attributes", &c.shared) ? -ENOMEM : 0;
    r = r < 0 ? r : walk(&c);
    if (c.found) {
        ext2fs_free_block_bitmap(c.found);
    }
    if (c.shared) {
        ext2fs_free_block_bitmap(c.shared);
    }
    free(c.chunk);
    free(c.block);
    free(c.files);
    fs_close(fs);
    return r == -E2BIG ? hv_fail(e, HV_UNSUPPORTED, NULL, "has more than %u files", FS_CHECK_FILES)
         : r < 0 ? hv_fail_errno(e, -r, NULL, "cannot check the file system") : 0;
}
