/*
 * Looking for damage in a file system: what is said twice is compared, nothing is changed.
 *
 * ext2, ext3, ext4: checksums of group descriptors, inodes, extent blocks and folders; every block
 * belongs to one file at most and inside; sizes of files and their counts of blocks; each name leads
 * to an inode in use of its type, each inode has as many names as it says, every folder hangs on the
 * root; both bitmaps and all counts of free blocks and inodes. Not the order of an index of hashes,
 * nor the content of attributes. FAT: both tables, chains and lengths, lost and shared clusters.
 *
 * Time and memory are in proportion to what the disk really holds, not to what a stranger wrote
 * into a superblock: 20 bytes a file, FS_CHECK_FILES of them at most.
 */
#ifndef HV_FS_CHECK_H
#define HV_FS_CHECK_H

#include "hv/fs/fs.h"

#define FS_CHECK_FILES    (32u << 20)
#define FS_CHECK_PROBLEMS 50u            /* told one by one; how many more there are in one line */

/*
 * Check what lies in [off, off+len) of d, telling each problem as disk_check_file() does. What
 * cannot be checked (NTFS, a journal that was not replayed) is told as harmless. 0 when it could
 * look; -EIO..., -E2BIG, -ENOMEM.
 */
int fs_check(struct disk *d, uint64_t off, uint64_t len, disk_problem_fn *fn, void *arg, struct hv_error *e);

/* ---- between the checkers ---- */

struct fs_checker {
    disk_problem_fn *fn;
    void *arg;
    unsigned told, more;
};
void fs_found(struct fs_checker *k, const char *fmt, ...) HV_PRINTF(2, 3);
void fs_remark(struct fs_checker *k, const char *fmt, ...) HV_PRINTF(2, 3);      /* harmless */
int ext4_check(struct disk *d, uint64_t off, uint64_t len, struct fs_checker *k, struct hv_error *e);
int fat_check(struct disk *d, uint64_t off, uint64_t len, struct fs_checker *k, struct hv_error *e);

#endif
