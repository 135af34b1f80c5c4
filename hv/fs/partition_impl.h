/* Between partition.c, gpt.c and mbr.c. */
#ifndef HV_FS_PARTITION_IMPL_H
#define HV_FS_PARTITION_IMPL_H

#include "hv/fs/partition.h"

#define GPT_ENTRIES    128u
#define GPT_ENTRY_SIZE 128u

/* Adds to t->note, which is cut where it is full. */
void partition_note(struct partition_table *t, const char *text);
int partition_add(struct partition_table *t, const struct partition *p);

/* 55 AA, and boot flags that are 0 or 0x80: what else has the signature is a boot sector. */
bool mbr_is_table(const uint8_t mbr[512]);
/* A table with a partition in it and none of type 0xEE. */
bool mbr_is_plain(const uint8_t mbr[512]);
bool mbr_is_protective(const uint8_t mbr[512]);
int mbr_read(struct disk *d, const uint8_t mbr[512], struct partition_table *t, struct hv_error *e);
int mbr_write(struct disk *d, const struct partition_table *t, struct hv_error *e);
/* Fill the protective MBR of a GPT: boot code stays. */
void mbr_protective(uint8_t mbr[512], uint64_t sectors);

/* Leaves t as it is and returns 0 where there is no GPT. */
int gpt_read(struct disk *d, struct partition_table *t, struct hv_error *e);
/* size: where the disk ends, or will. */
int gpt_write(struct disk *d, uint64_t size, const struct partition_table *t, struct hv_error *e);
void partition_limits_within(uint32_t sector, uint64_t size, enum partition_scheme s, uint64_t *ret_first,
                             uint64_t *ret_end);

#endif
