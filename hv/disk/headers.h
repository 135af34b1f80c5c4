/* The structures of an image as they lie in the file, field by field: for people who look for damage. */
#ifndef HV_DISK_HEADERS_H
#define HV_DISK_HEADERS_H

#include "hv/disk/disk.h"

/*
 * structure: "header 1", "bat"; off: of the field in the file; value: text, at most some hundred
 * bytes. Non-zero ends the walk and is returned.
 */
typedef int disk_field_fn(void *arg, const char *structure, uint64_t off, const char *field, const char *value);

/*
 * Tell every field of the headers of f, damaged or not; format as disk_check_file(). Blocks and
 * the entries of tables of blocks are not told. A raw disk has none. 0 or -errno of reading.
 */
int disk_headers(struct disk_file *f, int format, disk_field_fn *fn, void *arg, struct hv_error *e);

#endif
