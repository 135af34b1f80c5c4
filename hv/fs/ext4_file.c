/*
 * Writing one file: bytes are gathered, blocks for them taken in runs as long as the free space
 * has them, written in one transfer, and hooked into the inode as extents.
 */
#include <errno.h>

#include "hv/fs/ext4_impl.h"

#define EXTENT_MAX 32768u                /* blocks of one extent: Linux EXT_INIT_MAX_LEN */

int ext4_writer_init(struct ext4_writer *w, ext2_filsys fs, ext2_ino_t ino, union ext4_inode *inode,
                     blk64_t *goal, uint8_t *buf)
{
    errcode_t err;

    *w = (struct ext4_writer){ .fs = fs, .ino = ino, .inode = inode, .goal = goal, .buf = buf };
    memset(inode->s.i_block, 0, sizeof(inode->s.i_block));
    inode->s.i_flags |= EXT4_EXTENTS_FL;
    inode->s.i_blocks = inode->s.osd2.linux2.l_i_blocks_hi = 0;
    if (ext2fs_file_acl_block(fs, &inode->s)) {                   /* the block of attributes counts too */
        ext2fs_iblk_add_blocks(fs, &inode->s, 1);
    }
    err = ext2fs_extent_open2(fs, ino, &inode->s, &w->handle);    /* writes an empty header */
    return err ? ext4_errno(fs, err) : 0;
}

void ext4_writer_abort(struct ext4_writer *w)
{
    if (w->handle) {
        ext2fs_extent_free(w->handle);
    }
    w->handle = NULL;
}

/* Blocks that were taken and cannot be the file's. */
static void give_back(struct ext4_writer *w, blk64_t block, uint64_t n)
{
    ext2fs_block_alloc_stats_range(w->fs, block, (blk_t)n, -1);
    (void)ext2fs_iblk_sub_blocks(w->fs, &w->inode->s, n);
}

static int hook_in(struct ext4_writer *w)
{
    errcode_t err = 0;

    if (w->pending.e_len) {
        err = ext2fs_extent_insert(w->handle, EXT2_EXTENT_INSERT_AFTER, &w->pending);
    }
    if (err) {
        give_back(w, w->pending.e_pblk, w->pending.e_len);
    }
    w->pending.e_len = 0;
    return err ? ext4_errno(w->fs, err) : 0;
}

/* n blocks from logical block `at` on: take, write, remember. */
static int put_blocks(struct ext4_writer *w, uint64_t at, const uint8_t *data, uint64_t n)
{
    while (n > 0) {
        blk64_t block, got;
        errcode_t err = ext2fs_new_range(w->fs, 0, *w->goal, n, NULL, &block, &got);
        if (err) {
            w->end = MAX(w->end, at * w->fs->blocksize);     /* what is mapped is part of the file */
            return ext4_errno(w->fs, err);
        }
        got = MIN(got, n);
        ext2fs_block_alloc_stats_range(w->fs, block, (blk_t)got, +1);
        *w->goal = block + got;
        err = ext2fs_iblk_add_blocks(w->fs, &w->inode->s, got);
        if (!err) {
            err = io_channel_write_blk64(w->fs->io, block, (int)got, data);
        }
        if (err) {
            give_back(w, block, got);
            w->end = MAX(w->end, at * w->fs->blocksize);
            return ext4_errno(w->fs, err);
        }
        struct ext2fs_extent *p = &w->pending;
        if (p->e_len && (p->e_lblk + p->e_len != at || p->e_pblk + p->e_len != block ||
                         p->e_len + got > EXTENT_MAX)) {
            int r = hook_in(w);
            if (r < 0) {
                give_back(w, block, got);
                return r;
            }
        }
        if (p->e_len) {
            p->e_len += (uint32_t)got;
        } else {
            *p = (struct ext2fs_extent){ .e_pblk = block, .e_lblk = at, .e_len = (uint32_t)got };
        }
        at += got;
        data += got * w->fs->blocksize;
        n -= got;
    }
    return 0;
}

static int flush_buf(struct ext4_writer *w)
{
    uint64_t bs = w->fs->blocksize, n = (w->used + bs - 1) / bs;

    if (!w->used) {
        return 0;
    }
    memset(w->buf + w->used, 0, n * bs - w->used);
    w->used = 0;
    return put_blocks(w, w->start / bs, w->buf, n);
}

int ext4_writer_add(struct ext4_writer *w, uint64_t off, const void *data, size_t len)
{
    uint64_t bs = w->fs->blocksize, end;
    const uint8_t *p = data;

    if (__builtin_add_overflow(off, (uint64_t)len, &end) || end > (uint64_t)UINT32_MAX * bs) {
        return -EFBIG;
    }
    if (off < w->end) {
        return -EINVAL;                      /* data comes in ascending order */
    }
    while (len > 0) {
        if (w->used && off - w->start >= ROUND_UP(w->used, bs)) {
            /* Past the last block that was begun: what is between stays a hole. */
            if (off != w->start + w->used || w->used == EXT4_WRITER_BUF) {
                int r = flush_buf(w);
                if (r < 0) {
                    return r;
                }
            }
        }
        if (!w->used) {
            w->start = ROUND_DOWN(off, bs);
        }
        size_t at = (size_t)(off - w->start);
        memset(w->buf + w->used, 0, at - w->used);
        size_t n = MIN(len, EXT4_WRITER_BUF - at);
        memcpy(w->buf + at, p, n);
        w->used = at + n;
        p += n;
        off += n;
        len -= n;
    }
    w->end = end;
    return 0;
}

int ext4_writer_end(struct ext4_writer *w, uint64_t size)
{
    int r = flush_buf(w);

    if (r == 0) {
        r = hook_in(w);
    }
    if (r == 0) {
        errcode_t err = ext2fs_inode_size_set(w->fs, &w->inode->s, (ext2_off64_t)MAX(size, w->end));
        r = err ? ext4_errno(w->fs, err) : 0;
    }
    ext4_writer_abort(w);
    return r;
}
