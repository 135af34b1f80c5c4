/*
 * mke2fs -t ext4 as Debian 12 configures it (/etc/mke2fs.conf): the steps of its main(), each by
 * the function of libext2fs that mke2fs uses. Nothing here depends on the clock or on chance.
 */
#include <errno.h>
#include <sys/stat.h>

#include "hv/fs/ext4_make.h"

#define INODE_SIZE     256u
#define INODE_RATIO    16384u            /* bytes of disk for each inode */
#define RESERVED_PCT   5u                /* blocks that only root may use */
#define MIN_BLOCKS     256u              /* 1 MiB: smaller has no room for tables and files */

/* Blocks of the journal: ext2fs_default_journal_size() without fast commit; 0 below 8 MiB. */
static uint64_t journal_blocks(uint64_t blocks)
{
    int n = ext2fs_default_journal_size(blocks);

    return n > 0 ? (uint64_t)n : 0;
}

uint64_t ext4_size_for(uint64_t bytes, uint64_t files, unsigned slack_pct)
{
    /* Names take about 40 bytes of a folder that is four fifths full. */
    uint64_t content = bytes / EXT4_BLOCK + 1 + files * 50 / EXT4_BLOCK, blocks = 2048;

    content += content * slack_pct / 100;
    files += files * slack_pct / 100 + 32;
    /* The tables grow with the size, the size with the tables: a few rounds settle it. */
    for (unsigned i = 0; i < 6; i++) {
        uint64_t groups = blocks / 32768 + 1;
        uint64_t inodes = MAX(files, blocks * EXT4_BLOCK / INODE_RATIO) + groups * 16;
        uint64_t tables = inodes * INODE_SIZE / EXT4_BLOCK + groups * 2;
        uint64_t desc = groups / 64 + 1, gdt = MIN(blocks / 2048 + desc + 2, 1024 + desc);
        unsigned backups = 1;                              /* groups 0, 1 and powers of 3, 5, 7 */
        for (uint64_t base = 3; base <= 7; base += 2) {
            for (uint64_t g = base; g < groups; g *= base) {
                backups++;
            }
        }
        uint64_t supers = MIN((uint64_t)backups + 1, groups) * (1 + gdt);
        blocks = MAX(content + tables + supers + journal_blocks(MAX(blocks, content)) + 64, 2048u);
    }
    return blocks * EXT4_BLOCK;
}

static void parameters(struct ext2_super_block *p, uint64_t len, const struct ext4_make *m)
{
    uint64_t blocks = len / EXT4_BLOCK, inodes = MAX(m->inodes + 16, len / INODE_RATIO);

    *p = (struct ext2_super_block){ .s_rev_level = EXT2_DYNAMIC_REV };
    p->s_log_block_size = 2;
    p->s_log_cluster_size = 2;
    p->s_inode_size = INODE_SIZE;
    p->s_inodes_count = (uint32_t)MIN(inodes, (uint64_t)UINT32_MAX);
    p->s_log_groups_per_flex = 4;
    p->s_desc_size = EXT2_MIN_DESC_SIZE_64BIT;
    ext2fs_blocks_count_set(p, blocks);
    ext2fs_r_blocks_count_set(p, blocks * RESERVED_PCT / 100);
    ext2fs_set_feature_sparse_super(p);
    ext2fs_set_feature_large_file(p);
    ext2fs_set_feature_filetype(p);
    ext2fs_set_feature_dir_index(p);
    ext2fs_set_feature_xattr(p);
    ext2fs_set_feature_extents(p);
    ext2fs_set_feature_huge_file(p);
    ext2fs_set_feature_flex_bg(p);
    ext2fs_set_feature_metadata_csum(p);
    ext2fs_set_feature_64bit(p);
    ext2fs_set_feature_dir_nlink(p);
    ext2fs_set_feature_extra_isize(p);
    if (blocks <= UINT32_MAX) {
        ext2fs_set_feature_resize_inode(p);      /* its block numbers have 32 bits */
    }
    if (journal_blocks(blocks)) {
        ext2fs_set_feature_journal(p);
    }
}

static void identity(ext2_filsys fs, const struct ext4_make *m)
{
    struct ext2_super_block *s = fs->super;

    fs->now = (time_t)m->time_s;
    s->s_mkfs_time = s->s_lastcheck = (uint32_t)m->time_s;
    s->s_mkfs_time_hi = s->s_lastcheck_hi = (uint8_t)((uint64_t)m->time_s >> 32);
    memcpy(s->s_uuid, m->uuid, sizeof(s->s_uuid));
    memcpy(s->s_hash_seed, m->hash_seed, sizeof(s->s_hash_seed));
    s->s_checksum_type = EXT2_CRC32C_CHKSUM;
    ext2fs_init_csum_seed(fs);
    s->s_def_hash_version = EXT2_HASH_HALF_MD4;
    s->s_max_mnt_count = -1;
    s->s_checkinterval = 0;
    s->s_kbytes_written = 1;
    s->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
    if (m->label) {
        memcpy(s->s_volume_name, m->label, strnlen(m->label, sizeof(s->s_volume_name)));
    }
}

static errcode_t inode_tables(ext2_filsys fs)
{
    for (dgrp_t g = 0; g < fs->group_desc_count; g++) {
        blk64_t at = ext2fs_inode_table_loc(fs, g);
        int n = (int)fs->inode_blocks_per_group;
        errcode_t err = ext2fs_zero_blocks2(fs, at, n, &at, &n);
        if (err) {
            return err;
        }
        ext2fs_bg_flags_set(fs, g, EXT2_BG_INODE_ZEROED);
        ext2fs_group_desc_csum_set(fs, g);
    }
    return 0;
}

static errcode_t reserved_inodes(ext2_filsys fs)
{
    errcode_t err;

    ext2fs_inode_alloc_stats2(fs, EXT2_BAD_INO, +1, 0);
    ext2fs_inode_alloc_stats2(fs, EXT2_ROOT_INO, +1, 1);
    for (ext2_ino_t i = EXT2_ROOT_INO + 1; i < EXT2_FIRST_INODE(fs->super); i++) {
        ext2fs_inode_alloc_stats2(fs, i, +1, 0);
    }
    ext2fs_mark_ib_dirty(fs);
    err = ext2fs_update_bb_inode(fs, NULL);
    if (!err && ext2fs_has_feature_resize_inode(fs->super)) {
        err = ext2fs_create_resize_inode(fs);
    }
    return err;
}

static errcode_t journal(ext2_filsys fs)
{
    struct ext2fs_journal_params p = { .num_journal_blocks = (blk_t)journal_blocks(ext2fs_blocks_count(fs->super)) };

    if (!p.num_journal_blocks) {
        return 0;
    }
    return ext2fs_add_journal_inode3(fs, &p, ~0ULL, EXT2_MKJOURNAL_NO_MNT_CHECK);
}

int ext4_make(struct disk *d, uint64_t off, uint64_t len, const struct ext4_make *m, ext2_filsys *ret,
              struct hv_error *e)
{
    struct ext2_super_block param;
    ext2_filsys fs = NULL;
    errcode_t err;

    if (len / EXT4_BLOCK < MIN_BLOCKS) {
        hv_fail(e, HV_NO_RESOURCES, NULL, "too small for a file system");
        return -ENOSPC;
    }
    parameters(&param, len, m);
    ext4_io_set_target(&(struct ext4_io_target){
        .disk = d, .off = off, .len = len, .write = true, .zeroed = m->zeroed });
    err = ext2fs_initialize("image", EXT2_FLAG_64BITS, &param, ext4_io_manager, &fs);
    if (!err) {
        identity(fs, m);
        err = ext2fs_allocate_tables(fs);
    }
    if (!err) {
        err = inode_tables(fs);
    }
    if (!err) {
        err = reserved_inodes(fs);
    }
    if (!err) {
        err = journal(fs);
    }
    if (err) {
        int r = ext4_fail(e, fs, err, NULL, "cannot make a file system");
        if (fs) {
            ext2fs_free(fs);
        }
        return r;
    }
    ext4_io_end_zeroed(fs->io);
    *ret = fs;
    return 0;
}
