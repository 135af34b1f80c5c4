/*
 * Partition tables: GPT (UEFI 2.10, chapter 5) and MBR with extended partitions.
 *
 * Offsets and lengths are bytes of the disk. A table comes from a stranger: everything in it
 * is checked before it is believed, and what is odd but readable is said in `note`.
 */
#ifndef HV_FS_PARTITION_H
#define HV_FS_PARTITION_H

#include "hv/disk/disk.h"

enum partition_scheme { PARTITION_NONE, PARTITION_MBR, PARTITION_GPT, PARTITION_SCHEME_COUNT };
const char *partition_scheme_name(enum partition_scheme s);    /* "none" "mbr" "gpt" */

#define PARTITION_MAX      1024u     /* entries of a GPT that are looked at */
#define PARTITION_LOGICAL  64u       /* logical partitions of an MBR */
#define PARTITION_NAME     128       /* 36 UTF-16 units as UTF-8, terminated */
#define PARTITION_ALIGN    MIB       /* where new partitions start */

struct partition {
    unsigned number;             /* as Linux counts: GPT entry + 1; MBR 1..4, logical ones from 5 */
    uint64_t offset, len;
    struct guid type, id;        /* GPT */
    uint64_t attributes;         /* GPT */
    uint8_t mbr_type;            /* MBR */
    bool active;                 /* MBR */
    bool extended;               /* MBR: the container of logical partitions, holds no data itself */
    char name[PARTITION_NAME];   /* GPT, UTF-8 */
};

struct partition_table {
    enum partition_scheme scheme;
    uint32_t sector;             /* bytes; the unit the table counts in */
    struct guid disk_id;         /* GPT */
    uint32_t mbr_id;             /* MBR: disk signature */
    uint64_t first_usable;       /* first byte a partition may have */
    uint64_t end_usable;         /* the byte after the last one */
    bool backup_misplaced;       /* GPT: the disk goes on after the backup */
    struct partition *p;         /* ascending numbers */
    unsigned n;
    char note[256];              /* "the primary header is damaged; read from the backup"; may be empty */
};

/*
 * Read the table of d. A disk without one gives PARTITION_NONE and 0 (a file system may lie on
 * it as it is). -EINVAL with a sentence: there is a table and it cannot be used; -EIO...
 */
int partition_read(struct disk *d, struct partition_table *ret, struct hv_error *e);
void partition_table_fini(struct partition_table *t);

/*
 * Write t: a GPT with a protective MBR and its backup at the end of the disk, or an MBR. Boot
 * code in the first 440 bytes stays. The backup is written and flushed before the primary: a
 * crash leaves one whole table, the old or the new one.
 *
 * first_usable and end_usable are worked out anew. -ENOSPC a partition lies outside of them,
 * -EINVAL partitions overlap or are not whole sectors, -E2BIG an MBR cannot say it,
 * -EOPNOTSUPP for MBRs with logical partitions.
 */
int partition_write(struct disk *d, const struct partition_table *t, struct hv_error *e);
/* The same as if d ended at size (at most its own): before it is cut there. */
int partition_write_within(struct disk *d, uint64_t size, const struct partition_table *t, struct hv_error *e);
/*
 * How small a disk of this table can be: the end of its last partition, and a GPT's backup. 0 for
 * PARTITION_NONE. Whole sectors.
 */
uint64_t partition_least_size(const struct partition_table *t);

/* The usable range of a new table on d. */
void partition_limits(const struct disk *d, enum partition_scheme s, uint64_t *ret_first, uint64_t *ret_end);

/* By number; NULL if there is none. */
const struct partition *partition_find(const struct partition_table *t, unsigned number);

/* "Linux file system", "EFI system", "BIOS boot"; NULL for a type this table does not know. */
const char *partition_type_name(const struct partition_table *t, const struct partition *p);

/* Types of new partitions. */
enum partition_use { PARTITION_LINUX, PARTITION_ROOT_X86_64, PARTITION_ESP, PARTITION_SWAP };
struct guid partition_gpt_type(enum partition_use use);
uint8_t partition_mbr_type(enum partition_use use);

/* CRC-32 of UEFI 5.3.2 (that of Ethernet); crc 0 to begin. */
uint32_t partition_crc32(uint32_t crc, const void *p, size_t len);

#endif
