/*
 * A disk_file in memory that keeps what was done to it, in order: to look at the file as a
 * crash after any of these steps would have left it. Holes cost nothing, so that images of
 * 64 TiB fit. Included, not linked: memfile.c is part of each test that uses it.
 */
#ifndef TESTS_UNIT_DISK_MEMFILE_H
#define TESTS_UNIT_DISK_MEMFILE_H

#include "hv/disk/file.h"

struct memfile;

struct memfile *memfile_new(void);
/* Content and size only; nothing recorded. */
struct memfile *memfile_copy(const struct memfile *m);
void memfile_free(struct memfile *m);

/* A disk_file on m, which must outlive it. */
struct disk_file *memfile_open(struct memfile *m, const char *path, unsigned flags);

uint64_t memfile_size(const struct memfile *m);
void memfile_read(const struct memfile *m, uint64_t off, void *buf, uint64_t len);
/* Past the recorder, for damage. Grows the file. */
void memfile_write(struct memfile *m, uint64_t off, const void *buf, uint64_t len);
void memfile_resize(struct memfile *m, uint64_t size);
uint64_t memfile_pages(const struct memfile *m);     /* of 4 KiB that hold something */
bool memfile_equal(const struct memfile *a, const struct memfile *b);

/* From now on (again). The content of now is the start. */
void memfile_record(struct memfile *m);
/* Writes, zeroings, resizes and syncs recorded so far. */
size_t memfile_ops(const struct memfile *m);
size_t memfile_syncs(const struct memfile *m);
/* Is operation i a write that starts in [off, off+len)? */
bool memfile_wrote(const struct memfile *m, size_t i, uint64_t off, uint64_t len);

/*
 * The file after a crash when `ops` operations had been issued. What a sync followed is
 * there. Of the rest: CRASH_ALL all of it, CRASH_NONE nothing, CRASH_TORN all but a half
 * of the last one (a random count of its 512-byte sectors), CRASH_RANDOM a random subset,
 * some of it torn. New; the caller's.
 */
enum memfile_crash { CRASH_ALL, CRASH_NONE, CRASH_TORN, CRASH_RANDOM, CRASH_COUNT };
struct memfile *memfile_crash(struct memfile *m, size_t ops, enum memfile_crash how, uint64_t seed);

/* Fail the n-th write, zero, resize or sync from now on with -EIO, and all behind it if `stay`. 0: none. */
void memfile_fail(struct memfile *m, uint64_t nth, bool stay);

#endif
