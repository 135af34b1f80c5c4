/* FAT12, FAT16 and FAT32: reading, and making one with files in it. Microsoft's FAT specification 1.03. */
#ifndef HV_FS_FAT_H
#define HV_FS_FAT_H

#include "hv/fs/fs.h"

/* fs_open() for FAT. */
int fat_open(struct disk *d, uint64_t off, uint64_t len, struct fs **ret, struct hv_error *e);

/* ---- a new one ---- */

#define FAT_MIN_SIZE MIB

struct fat_file {
    char *path;                  /* relative, '/' between parts; ours once added */
    bool dir;
    struct fs_time mtime;
    uint8_t *data;               /* ours once added */
    uint64_t len;
};
struct fat_make {
    const char *label;           /* at most 11 of A-Z 0-9 _ - ; others become _ */
    uint32_t serial;
    int64_t time_s;
    bool zeroed;                 /* the range reads as zeros */
    struct fat_file *files;      /* folders before what is in them, or not at all */
    size_t n;
};

/*
 * Make a file system of [off, off+len) (at least FAT_MIN_SIZE) with these files: FAT32 where it has
 * 65525 clusters and more, FAT16 below. -ENOSPC the files do not fit; -EINVAL a name that FAT
 * cannot hold; -EEXIST two names that differ in case alone.
 */
int fat_make(struct disk *d, uint64_t off, uint64_t len, const struct fat_make *m, struct hv_error *e);

#endif
