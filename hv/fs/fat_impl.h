/* Between the files of FAT. */
#ifndef HV_FS_FAT_IMPL_H
#define HV_FS_FAT_IMPL_H

#include "hv/fs/fat.h"

#define FAT_ROOT        1u                   /* its inode number */
#define FAT_DIR_MAX     (65536u * 32u)       /* the specification's limit of a folder */
#define FAT_ATTR_DIR    0x10u
#define FAT_ATTR_VOLUME 0x08u
#define FAT_ATTR_LFN    0x0fu

struct fat {
    struct fs base;
    struct disk *disk;
    uint64_t off, len;
    uint32_t cluster_bytes, clusters;    /* clusters are numbered 2 .. clusters+1 */
    uint64_t fat, data, root_at;         /* byte offsets in the volume */
    uint64_t fat_bytes;                  /* of one table */
    uint32_t fats;
    uint32_t root_cluster, root_bytes;   /* FAT32; FAT12 and FAT16: a fixed area */
    unsigned bits;
    /* Where the last read of a chain ended: reading goes on from there. */
    uint32_t chain_first, chain_index, chain_at;
};

/* Bytes of the volume; -EUCLEAN outside of it. */
int fat_read_at(struct fat *f, uint64_t at, void *buf, uint64_t len);
/* The cluster after c; 0 at the end of the chain, -EUCLEAN for what is no cluster. */
int fat_next(struct fat *f, uint32_t c, uint32_t *ret);
uint64_t fat_cluster_at(const struct fat *f, uint32_t c);

#endif
