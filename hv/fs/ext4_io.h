/*
 * libext2fs on a range of a disk: an io_manager with a bounded write-back cache.
 *
 * libext2fs writes the same blocks of metadata over and over, one at a time. They are kept in
 * pages of 4 KiB and written in runs when they are evicted or flushed; transfers of many blocks
 * (file data) go past the cache. flush is disk_flush(): what was written before is durable.
 *
 * Disks take room of their host's as they are written. If that ran out in a flush, half of what belongs together
 * would be on disk. Where it matters (make_room) a page is written when it is changed first, so that the call that
 * needs the room is the one that fails; the flush writes to places that are there.
 */
#ifndef HV_FS_EXT4_IO_H
#define HV_FS_EXT4_IO_H

#include <ext2fs/ext2fs.h>

#include "hv/disk/disk.h"

#define EXT4_IO_PAGE  4096u
#define EXT4_IO_PAGES 4096u              /* at most: 16 MiB a file system */

/* What the next open of ext4_io_manager on this thread is about. */
struct ext4_io_target {
    struct disk *disk;
    uint64_t off, len;                   /* the partition */
    bool write;
    bool zeroed;                         /* reads as zeros now: zeroout has nothing to do */
    bool make_room;                      /* a page that changes is written once before it waits in the cache */
};

extern io_manager ext4_io_manager;
/* Names are of no use to us: libext2fs opens through this and takes what was set here. */
void ext4_io_set_target(const struct ext4_io_target *t);

/* From now on blocks may hold old data. */
void ext4_io_end_zeroed(io_channel ch);
/* The first error of the disk behind ch (negative errno), or 0: libext2fs keeps only "EIO". */
int ext4_io_error(io_channel ch);

#endif
