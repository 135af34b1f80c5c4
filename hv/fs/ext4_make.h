/* An empty ext4 without folders: the root is for ext4_build to write. Private to hv/fs. */
#ifndef HV_FS_EXT4_MAKE_H
#define HV_FS_EXT4_MAKE_H

#include "hv/fs/ext4_impl.h"

/* *ret is the caller's: ext2fs_close_free() writes the tables. Inodes 1 to 10 are taken, inode 2 is
 * counted as a folder and has no content yet. */
int ext4_make(struct disk *d, uint64_t off, uint64_t len, const struct ext4_make *m, ext2_filsys *ret,
              struct hv_error *e);

#endif
