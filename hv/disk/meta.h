/*
 * Metadata of a disk image in pages: BATs and bitmaps are read on demand, changed in memory,
 * and written by the format's flush in the order that keeps the file whole after a crash.
 *
 *   clean --write--> dirty --take--> taken (still read and written here; a write makes it
 *     ^                                dirty again) --settle(ok)--> clean
 *     `-- evicted when many            `--settle(failed)--> dirty
 *
 * The caller holds the layer's lock around every call.
 */
#ifndef HV_DISK_META_H
#define HV_DISK_META_H

#include "hv/disk/file.h"

struct disk_meta;

/* page_size: 512 (VHD, whose structures lie between data at any sector) or 4096 (VHDX's log).
 * max_clean_bytes bounds what is kept for speed; dirty pages come on top. */
int disk_meta_new(struct disk_file *f, uint32_t page_size, uint64_t max_clean_bytes,
                  struct disk_meta **ret);
void disk_meta_free(struct disk_meta *m);

/*
 * The page with byte off of the file: a pointer to that byte, *ret_avail bytes to the page's
 * end. Valid until the next call. NULL: could not be read, *ret_err says why.
 */
const uint8_t *disk_meta_peek(struct disk_meta *m, uint64_t off, uint32_t *ret_avail, int *ret_err);
int disk_meta_read(struct disk_meta *m, uint64_t off, void *buf, uint64_t len);
/* Change bytes in memory; their pages become dirty. */
int disk_meta_write(struct disk_meta *m, uint64_t off, const void *buf, uint64_t len);
/* The same for pages that need not be read first: [off, off+len) is zeros. Whole pages. */
int disk_meta_write_zero(struct disk_meta *m, uint64_t off, uint64_t len);

struct disk_meta_page { uint64_t off; uint8_t *data; };    /* data: page_size bytes, a copy */
uint64_t disk_meta_dirty_pages(const struct disk_meta *m);
/* Copies of all dirty pages, in ascending order of offset; settle() follows, once. */
int disk_meta_take(struct disk_meta *m, struct disk_meta_page **ret, size_t *ret_count);
/* ok: the copies are in the file. Frees them. */
void disk_meta_settle(struct disk_meta *m, struct disk_meta_page *pages, size_t count, bool ok);
/* Forget clean pages in the range (their room was reused). Dirty ones too. */
void disk_meta_drop(struct disk_meta *m, uint64_t off, uint64_t len);

#endif
