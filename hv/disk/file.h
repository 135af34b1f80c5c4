/*
 * One file under a disk: what the formats and the I/O layer read and write through.
 * A file of the host in the worker and the tools; in tests a file in memory that
 * records what is written, in which order, and can stop there.
 */
#ifndef HV_DISK_FILE_H
#define HV_DISK_FILE_H

#include "hv/base/error.h"

struct disk_file;

/* For implementations beside the host's files (tests, overlays). Offsets and lengths in bytes.
 * All return 0 or a negative errno; read returns zeros past the end of the file. */
struct disk_file_ops {
    int (*read)(void *arg, uint64_t off, void *buf, uint64_t len);
    int (*write)(void *arg, uint64_t off, const void *buf, uint64_t len);
    int (*zero)(void *arg, uint64_t off, uint64_t len);   /* a hole where the file can hold one */
    int (*resize)(void *arg, uint64_t size);
    int (*sync)(void *arg);
    uint64_t (*size)(void *arg);
    void (*free)(void *arg);
};

enum {
    DISK_FILE_WRITE  = 1,    /* else read-only */
    DISK_FILE_CREATE = 2,    /* a new file; -EEXIST if there is one */
    DISK_FILE_DIRECT = 4,    /* disk_file_direct_fd() is wanted */
    DISK_FILE_NO_LOCK = 8,   /* do not lock; for info, map and ls of a disk in use */
    DISK_FILE_NO_SYNC = 16,  /* sync does nothing for a file: one that is made, and made again if need be */
};

/*
 * Open path and lock all of it: for others to read when read-only, for nobody else when
 * writing (open file description locks: they go with the descriptor, and with it alone).
 *
 * Returns -EBUSY (HV_CONFLICT, with the holder's pid and name where /proc tells them) if
 * somebody holds it, -EACCES, -ENOENT, -EISDIR (a folder, or what holds no bytes: a socket).
 */
int disk_file_open(const char *path, unsigned flags, struct disk_file **ret, struct hv_error *e);

/* Take over an open descriptor (also on failure); path is what messages call it. Locks as above. */
int disk_file_from_fd(int fd, const char *path, unsigned flags, struct disk_file **ret,
                      struct hv_error *e);

/* A file made of ops; arg is freed by ops->free with the last reference. */
int disk_file_from_ops(const struct disk_file_ops *ops, void *arg, const char *path, unsigned flags,
                       struct disk_file **ret);

struct disk_file *disk_file_ref(struct disk_file *f);
void disk_file_unref(struct disk_file *f);

/* Any thread. Short counts and EINTR are dealt with; -EROFS for a write to a read-only file. */
int disk_file_read(struct disk_file *f, uint64_t off, void *buf, uint64_t len);
int disk_file_write(struct disk_file *f, uint64_t off, const void *buf, uint64_t len);
/* The range reads as zeros afterwards; its blocks go back to the host where that can be. Within
 * the file or past its end (which does not move). */
int disk_file_zero(struct disk_file *f, uint64_t off, uint64_t len);
/* The same, but the host's blocks stay reserved (fixed disks) where the host can do that. */
int disk_file_zero_keep(struct disk_file *f, uint64_t off, uint64_t len);
/* Grow (with zeros) or cut. -EFBIG where the file system cannot, -ENOTSUP for a device. */
int disk_file_resize(struct disk_file *f, uint64_t size);
/* Reserve blocks without changing the size or what is read; 0 where the host cannot. */
int disk_file_reserve(struct disk_file *f, uint64_t off, uint64_t len);
/*
 * All of [off, off+len) is going to be written next: room for it in one go, on hosts that are faster
 * so. Only a hint: nothing that is read changes, and where there is no room the write will say so.
 */
void disk_file_expect(struct disk_file *f, uint64_t off, uint64_t len);
/* What was written before is durable afterwards (fdatasync). */
int disk_file_sync(struct disk_file *f);

/* The first byte from off on that the host does not know to be zero, or the file's end; off itself
 * where it knows nothing of holes. */
uint64_t disk_file_skip_hole(struct disk_file *f, uint64_t off);
/* And the first one from off on, which is none, that it knows to be zero; the file's end at the latest. */
uint64_t disk_file_skip_data(struct disk_file *f, uint64_t off);
/*
 * Let [to_off, to_off+len) of `to` share the host's blocks of `from`: both read the same, and are
 * written apart. -EOPNOTSUPP where the host cannot: copy the bytes instead.
 */
int disk_file_clone(struct disk_file *from, uint64_t off, struct disk_file *to, uint64_t to_off, uint64_t len);
uint64_t disk_file_size(struct disk_file *f);       /* bytes; a device's capacity */
uint64_t disk_file_allocated(struct disk_file *f);  /* bytes the host really holds */
bool disk_file_writable(const struct disk_file *f);
bool disk_file_is_device(const struct disk_file *f);
const char *disk_file_path(const struct disk_file *f);
/* The descriptor for asynchronous I/O, or -1 for files made of ops. */
int disk_file_fd(const struct disk_file *f);
/* The same opened with O_DIRECT, or -1: transfers of 4096-byte multiples at such offsets. */
int disk_file_direct_fd(const struct disk_file *f);
/* Same inode (or the same ops object): loops in a chain. */
bool disk_file_same(const struct disk_file *a, const struct disk_file *b);

#endif
