/*
 * What lies in a partition, by signature: kind, label and UUID as blkid shows them.
 */
#ifndef HV_FS_PROBE_H
#define HV_FS_PROBE_H

#include "hv/disk/disk.h"

#define PROBE_KINDS(X)                                                                  \
    X(NONE, "-") X(EXT, "ext4") X(FAT, "vfat") X(NTFS, "ntfs") X(XFS, "xfs")            \
    X(BTRFS, "btrfs") X(SWAP, "swap") X(LVM, "lvm") X(LUKS, "luks") X(ISO, "iso9660")   \
    X(SQUASHFS, "squashfs") X(EROFS, "erofs") X(F2FS, "f2fs") X(EXFAT, "exfat") X(REFS, "refs")
enum probe_kind {
#define PROBE_ENUM(id, word) PROBE_##id,
    PROBE_KINDS(PROBE_ENUM)
#undef PROBE_ENUM
    PROBE_KIND_COUNT
};

struct probe {
    enum probe_kind kind;
    char type[16];               /* "ext2" "ext3" "ext4" "vfat"...; "-" if nothing is known */
    char label[260];             /* UTF-8 as stored, control characters replaced; may be empty */
    char uuid[40];               /* as Linux shows it; may be empty */
    uint64_t size;               /* bytes the file system says it has, 0 if it does not */
    uint64_t free_bytes;         /* ext4: by the superblock; else 0 */
    bool dirty;                  /* ext4: needs recovery */
};

/* Look at [off, off+len) of d. 0 (also when nothing is found), or -errno of reading. */
int probe_read(struct disk *d, uint64_t off, uint64_t len, struct probe *ret);

/* Boot sectors that also end in 55 AA. */
bool probe_is_fat(const uint8_t sector[512]);
bool probe_is_ntfs(const uint8_t sector[512]);

#endif
