/*
 * Growing an ext4 that is not mounted, the way resize2fs(8) does where nothing has to move: the
 * descriptors of new groups go into blocks that mke2fs reserved for them (resize_inode). Steps:
 *
 *   the superblock says "not clean", flush
 *   larger maps; new groups get their backups, bitmaps and zeroed inode tables
 *   the inode that holds the reserved blocks is written anew, without those that were taken
 *   counts are taken from the maps; tables and all superblocks are written, flush; "clean"
 */
#include <errno.h>

#include "hv/fs/ext4_open.h"

#define SLACK_BLOCKS 50u                 /* a last group with fewer blocks than its tables and these is left out */

/* What a file system of len bytes would have. */
struct plan {
    uint64_t blocks;
    dgrp_t groups, old_groups;
    unsigned long desc_blocks;
};

static int fail(struct hv_error *e, const char *why)
{
    hv_fail(e, HV_UNSUPPORTED, NULL, "the file system cannot grow that far: %s", why);
    return -EOPNOTSUPP;
}

static int make_plan(ext2_filsys fs, uint64_t len, struct plan *p, struct hv_error *e)
{
    struct ext2_super_block *s = fs->super;
    uint64_t first = s->s_first_data_block, per = s->s_blocks_per_group;

    if (ext2fs_has_feature_meta_bg(s) || ext2fs_has_feature_sparse_super2(s) || ext2fs_has_feature_bigalloc(s)) {
        return fail(e, "meta_bg, sparse_super2 or bigalloc");
    }
    p->blocks = len / fs->blocksize;
    p->old_groups = fs->group_desc_count;
    if (!ext2fs_has_feature_64bit(s)) {
        p->blocks = MIN(p->blocks, (uint64_t)UINT32_MAX);
    }
    if (p->blocks <= first + per) {
        p->groups = 1;
    } else {
        uint64_t rest = (p->blocks - first) % per;
        uint64_t need = 2 + fs->inode_blocks_per_group + 1 + fs->desc_blocks + s->s_reserved_gdt_blocks;
        uint64_t groups = (p->blocks - first + per - 1) / per;
        if (rest && rest < need + SLACK_BLOCKS && groups > p->old_groups) {
            p->blocks -= rest;
            groups--;
        }
        if (groups * s->s_inodes_per_group > UINT32_MAX) {
            return fail(e, "more inodes than ext4 can number");
        }
        p->groups = (dgrp_t)groups;
    }
    p->desc_blocks = (p->groups + EXT2_DESC_PER_BLOCK(s) - 1) / EXT2_DESC_PER_BLOCK(s);
    if (p->desc_blocks > fs->desc_blocks &&
        (!ext2fs_has_feature_resize_inode(s) || p->desc_blocks - fs->desc_blocks > s->s_reserved_gdt_blocks)) {
        return fail(e, "it has too few blocks reserved for the tables");
    }
    return 0;
}

static errcode_t enlarge_tables(ext2_filsys fs, const struct plan *p)
{
    struct ext2_super_block *s = fs->super;
    uint64_t last = s->s_first_data_block + (uint64_t)p->groups * s->s_blocks_per_group - 1;
    uint64_t reserved = (uint64_t)((double)ext2fs_r_blocks_count(s) / (double)ext2fs_blocks_count(s) * (double)p->blocks);
    errcode_t err;

    if (p->desc_blocks > fs->desc_blocks) {
        err = ext2fs_resize_mem(fs->desc_blocks * fs->blocksize, p->desc_blocks * fs->blocksize, &fs->group_desc);
        if (err) {
            return err;
        }
        memset((char *)fs->group_desc + fs->desc_blocks * fs->blocksize, 0,
               (p->desc_blocks - fs->desc_blocks) * fs->blocksize);
        s->s_reserved_gdt_blocks = (uint16_t)(s->s_reserved_gdt_blocks - (p->desc_blocks - fs->desc_blocks));
        fs->desc_blocks = p->desc_blocks;
    }
    ext2fs_blocks_count_set(s, p->blocks);
    ext2fs_r_blocks_count_set(s, MIN(reserved, p->blocks / 2));
    s->s_inodes_count = s->s_inodes_per_group * p->groups;
    s->s_overhead_clusters = 0;              /* Linux works it out */
    fs->group_desc_count = p->groups;
    err = ext2fs_resize_inode_bitmap2(s->s_inodes_count, s->s_inodes_count, fs->inode_map);
    return err ? err : ext2fs_resize_block_bitmap2(p->blocks - 1, last, fs->block_map);
}

static errcode_t make_group(ext2_filsys fs, dgrp_t g)
{
    bool csum = ext2fs_has_group_desc_csum(fs);
    blk64_t table;
    int n = (int)fs->inode_blocks_per_group;

    ext2fs_bg_flags_zap(fs, g);
    ext2fs_bg_free_inodes_count_set(fs, g, fs->super->s_inodes_per_group);
    ext2fs_bg_used_dirs_count_set(fs, g, 0);
    if (csum) {
        ext2fs_bg_flags_set(fs, g, EXT2_BG_INODE_UNINIT | EXT2_BG_INODE_ZEROED);
        ext2fs_bg_itable_unused_set(fs, g, fs->super->s_inodes_per_group);
    }
    ext2fs_reserve_super_and_bgd(fs, g, fs->block_map);
    errcode_t err = ext2fs_allocate_group_table(fs, g, fs->block_map);
    if (!err) {
        table = ext2fs_inode_table_loc(fs, g);
        err = ext2fs_zero_blocks2(fs, table, n, &table, &n);
    }
    return err;
}

/* The reserved blocks hang on inode 7: as if it had none, then all over again. */
static errcode_t remake_resize_inode(ext2_filsys fs)
{
    union ext4_inode in;

    if (!ext2fs_has_feature_resize_inode(fs->super)) {
        return 0;
    }
    errcode_t err = ext2fs_read_inode(fs, EXT2_RESIZE_INO, &in.s);
    if (!err && !in.s.i_block[EXT2_DIND_BLOCK]) {
        err = EXT2_ET_RESIZE_INODE_CORRUPT;
    }
    if (!err) {
        err = ext2fs_iblk_set(fs, &in.s, 1);
    }
    if (!err) {
        err = ext2fs_write_inode(fs, EXT2_RESIZE_INO, &in.s);
    }
    if (!err) {
        blk64_t block = in.s.i_block[EXT2_DIND_BLOCK];
        int n = 1;
        err = ext2fs_zero_blocks2(fs, block, n, &block, &n);
    }
    return err ? err : ext2fs_create_resize_inode(fs);
}

/* Free blocks of all groups as the map says; free inodes grew with the groups. */
static errcode_t count(ext2_filsys fs, dgrp_t old_groups)
{
    struct ext2_super_block *s = fs->super;
    uint64_t end = ext2fs_blocks_count(s), total = 0;
    uint64_t *unused = hv_alloc_array(fs->group_desc_count, sizeof(*unused));
    errcode_t err = unused ? 0 : EXT2_ET_NO_MEMORY;

    for (uint64_t at = s->s_first_data_block; !err && at < end;) {
        blk64_t first, last;
        err = ext2fs_find_first_zero_block_bitmap2(fs->block_map, at, end - 1, &first);
        if (err == ENOENT) {
            err = 0;
            break;
        }
        errcode_t err2 = err ? 0 : ext2fs_find_first_set_block_bitmap2(fs->block_map, first, end - 1, &last);
        last = err2 == ENOENT ? end : last;
        err = err ? err : err2 == ENOENT ? 0 : err2;
        for (uint64_t b = first; !err && b < last;) {
            dgrp_t g = ext2fs_group_of_blk2(fs, b);
            uint64_t stop = MIN(last, ext2fs_group_last_block2(fs, g) + 1);
            unused[g] += stop - b;
            total += stop - b;
            b = stop;
        }
        at = last;
    }
    for (dgrp_t g = 0; !err && g < fs->group_desc_count; g++) {
        ext2fs_bg_free_blocks_count_set(fs, g, (uint32_t)unused[g]);
        ext2fs_group_desc_csum_set(fs, g);
    }
    ext2fs_free_blocks_count_set(s, total);
    s->s_free_inodes_count += (fs->group_desc_count - old_groups) * s->s_inodes_per_group;
    free(unused);
    return err;
}

static errcode_t grow(ext2_filsys fs, const struct plan *p)
{
    errcode_t err;

    ext2fs_bg_flags_clear(fs, p->old_groups - 1, EXT2_BG_BLOCK_UNINIT);
    err = enlarge_tables(fs, p);
    for (dgrp_t g = p->old_groups; !err && g < p->groups; g++) {
        err = make_group(fs, g);
    }
    if (!err) {
        err = remake_resize_inode(fs);
    }
    if (!err) {
        err = count(fs, p->old_groups);
    }
    ext2fs_mark_super_dirty(fs);
    ext2fs_mark_bb_dirty(fs);
    ext2fs_mark_ib_dirty(fs);
    fs->flags &= ~EXT2_FLAG_MASTER_SB_ONLY;          /* the copies too */
    return err ? err : ext2fs_flush(fs);
}

int ext4_grow(struct disk *d, uint64_t off, uint64_t len, struct hv_error *e)
{
    struct plan p;
    struct fs *fs;
    int r = ext4_open(d, off, len, true, &fs, e);

    if (r < 0) {
        return r;
    }
    struct ext4 *x = (struct ext4 *)fs;
    r = make_plan(x->fs, len, &p, e);
    if (r < 0 || p.blocks <= ext2fs_blocks_count(x->fs->super)) {
        fs_close(fs);
        return r;
    }
    r = ext4_begin_changes(x);
    if (r < 0) {
        hv_fail_errno(e, -r, NULL, "cannot grow the file system");
        fs_close(fs);
        return r;
    }
    errcode_t err = grow(x->fs, &p);
    if (err) {
        r = ext4_fail(e, x->fs, err, NULL, "cannot grow the file system");
        x->changed = false;                          /* what is on the disk says "not clean" */
        fs_close(fs);
        return r;
    }
    r = fs_close(fs);
    return r < 0 ? hv_fail_errno(e, -r, NULL, "cannot grow the file system") : 0;
}
