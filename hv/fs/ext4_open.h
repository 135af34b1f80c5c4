/* An ext4 that is open: between ext4_read.c and ext4_put.c. */
#ifndef HV_FS_EXT4_OPEN_H
#define HV_FS_EXT4_OPEN_H

#include "hv/fs/ext4_impl.h"

struct ext4 {
    struct fs base;
    ext2_filsys fs;
    uint8_t *bounce;             /* runs of blocks being read */
    bool bitmaps;                /* are in memory */
    bool changed;                /* the superblock on disk says "not clean" */
    /* The regular file put last: */
    struct ext4_writer w;
    union ext4_inode inode;
    uint8_t *buf;
    blk64_t goal;
    bool writing;
};

int ext4_need_bitmaps(struct ext4 *x);
/* The superblock on disk says "not clean" from here on; once. */
int ext4_begin_changes(struct ext4 *x);
/* The superblock says "clean" again, in memory; fs_close() writes it. */
int ext4_end_changes(struct ext4 *x);
/* One more name in dir, which grows where it has to. */
int ext4_link_name(struct ext4 *x, ext2_ino_t dir, const char *name, ext2_ino_t ino, uint32_t mode);
ext2_filsys ext4_filsys(struct fs *fs);

#endif
