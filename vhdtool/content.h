/* What lies in a disk, for the commands that are about the disk: info, resize, compact. */
#ifndef VHDTOOL_CONTENT_H
#define VHDTOOL_CONTENT_H

#include "vhdtool/vhdtool.h"

/*
 * Partitions as JSON: [{number, offset, size, type, filesystem, label, uuid}]; one with number 0
 * where a file system is the disk. json_null() where the disk cannot be read. New reference.
 */
json_t *content_json(struct disk *d);
/* The same in one line: "p1 8.0G ext4 'root' 6c1b...". buf[size]; "-" if there is nothing. */
const char *content_text(const json_t *partitions, char *buf, size_t size);

/* Could content_grow() do it, as far as the partitions go? */
int content_can_grow(struct disk *d, unsigned number, struct hv_error *e);
/*
 * Make partition number (0: the last one) reach to the end of the disk, and its ext4 with it. A
 * GPT's backup goes to the end as well. *ret_what: "p1 40G, ext4 too". -EOPNOTSUPP another
 * partition is in the way, or ext4 cannot grow so far.
 */
int content_grow(struct disk *d, unsigned number, char *ret_what, size_t size, struct hv_error *e);

/*
 * How small the disk can be without losing a partition, or a file system that is all of it; whole
 * logical sectors. -EOPNOTSUPP nothing in it says how much of it is used.
 */
int content_least_size(struct disk *d, uint64_t *ret, struct hv_error *e);
/* Before the disk is cut to size (or grown by others to its present one): a GPT's backup goes there. */
int content_move_backup(struct disk *d, uint64_t size, struct hv_error *e);

/*
 * Give back what the ext4s in d do not use. File systems that are not clean are left alone.
 * *ret_bytes: how much was given back (or was not there).
 */
int content_discard_free(struct disk *d, uint64_t *ret_bytes, struct hv_error *e);

#endif
