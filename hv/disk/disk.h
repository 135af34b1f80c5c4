/*
 * Virtual disks: raw files and devices, VHD, VHDX, and chains of differencing disks.
 *
 * A format is a map (DESIGN 15): it turns a range of the disk into extents of files and
 * owns its metadata and the order in which that is written; the bytes are moved by one
 * I/O layer: disk_read() and its like here, io_uring in queue.h.
 *
 * Offsets and lengths are bytes of the virtual disk. One `struct disk` may be used from
 * several threads; disk_close() by one when all are done.
 */
#ifndef HV_DISK_DISK_H
#define HV_DISK_DISK_H

#include "hv/base/guid.h"
#include "hv/disk/file.h"

enum disk_kind { DISK_RAW, DISK_VHD, DISK_VHDX, DISK_KIND_COUNT };
enum disk_type { DISK_FIXED, DISK_DYNAMIC, DISK_DIFFERENCING, DISK_TYPE_COUNT };

const char *disk_kind_name(enum disk_kind k);   /* "raw" "vhd" "vhdx" */
const char *disk_type_name(enum disk_type t);   /* "fixed" "dynamic" "differencing" */
/* "vhdx" -> DISK_VHDX; -EINVAL. */
int disk_kind_parse(const char *word, enum disk_kind *ret);
/* By the suffix: .vhd .avhd, .vhdx .avhdx, .raw .img .iso (DISK_RAW); -EINVAL for others. */
int disk_kind_of_path(const char *path, enum disk_kind *ret);

#define DISK_CHAIN_MAX 256u      /* levels of differencing disks; a loop ends here at the latest */
#define DISK_SECTOR    512u
#define DISK_MAX_SIZE  (64 * TIB)

struct disk;
struct disk_layer;               /* one file of a chain; formats see it in disk_impl.h */

/* How a differencing disk names its parent; strings are '\0'-terminated UTF-8, empty if absent. */
struct disk_parent_ref {
    char relative[1024];         /* relative_path, W2ru: backslashes as stored */
    char absolute[1024];         /* absolute_win32_path, W2ku, MacX */
    char volume[1024];           /* volume_path */
    char name[512];              /* VHD's header: base name or path */
    struct guid id, id2;         /* VHD: unique id of the footer; VHDX: DataWriteGuid(s) accepted */
};

/*
 * Open the parent that ref names for the disk at child_path, read-only. *ret is the
 * caller's. The default looks beside the child first, see disk_find_parent().
 */
typedef int disk_parent_fn(void *arg, const char *child_path, const struct disk_parent_ref *ref,
                           struct disk_file **ret, struct hv_error *e);

enum {
    DISK_WRITE     = 1,
    DISK_DIRECT    = 2,     /* O_DIRECT for data where alignment allows */
    DISK_SHARED    = 4,     /* take no lock (info, map, ls of a disk in use); read-only */
    DISK_NO_PARENT = 8,     /* leaf alone: reads of what the parent holds fail with -ENOLINK */
    DISK_IGNORE_ID = 16,    /* a parent that was changed is accepted, with a warning in info */
    DISK_AS_RAW    = 32,    /* do not look for a format */
    DISK_NO_SYNC   = 64,    /* nothing is waited for, as with cp: a disk that is being made */
};

struct disk_options {
    unsigned flags;
    int format;                      /* enum disk_kind, or -1: by the signature */
    disk_parent_fn *parent;          /* NULL: disk_find_parent */
    void *parent_arg;
    const char *const *parent_dirs;  /* NULL-terminated: parents must lie below one; NULL: anywhere */
};

/*
 * Open the disk at path with its whole chain. Replays a VHDX log (in memory only when
 * read-only). o may be NULL: read-only, by signature.
 *
 * Errors (with a sentence in e): as disk_file_open(); -EINVAL a damaged or unknown
 * structure, named; -EOPNOTSUPP what this version does not do (qcow2, VHD sets, a required
 * region it does not know); -ENOENT a parent; -ESTALE a parent that was changed; -ELOOP.
 */
int disk_open(const char *path, const struct disk_options *o, struct disk **ret, struct hv_error *e);
/* The same on an open file, which is taken over (also on failure). */
int disk_open_file(struct disk_file *f, const struct disk_options *o, struct disk **ret,
                   struct hv_error *e);
/*
 * Flush, mark clean, free. Returns the first error in doing so; the disk is gone either way,
 * and what was flushed before is safe. NULL is fine.
 */
int disk_close(struct disk *d, struct hv_error *e);
/* Free without writing anything more: the disk looks as after a crash. For tests and aborts. */
void disk_abandon(struct disk *d);

uint64_t disk_size(const struct disk *d);
uint32_t disk_logical_sector(const struct disk *d);    /* 512 or 4096 */
uint32_t disk_physical_sector(const struct disk *d);
bool disk_writable(const struct disk *d);
/* SCSI page 83 id: VHDX's own, VHD's unique id, for raw files one made of device and inode. */
struct guid disk_id(const struct disk *d);
/* Layer i of the chain: 0 the leaf, then its parent...; NULL past the base. */
struct disk_layer *disk_layer(struct disk *d, unsigned i);

/* Synchronous I/O, any offset and length within the disk (-ERANGE beyond). 0 or -errno. */
int disk_read(struct disk *d, uint64_t off, void *buf, uint64_t len);
int disk_write(struct disk *d, uint64_t off, const void *buf, uint64_t len);
/* Reads as zeros afterwards, held without data where the format can (dynamic, differencing). */
int disk_zero(struct disk *d, uint64_t off, uint64_t len);
/* The content may be forgotten: whole blocks go back to the host; never shows the parent's. */
int disk_discard(struct disk *d, uint64_t off, uint64_t len);
/* All writes that returned before the call survive a crash. */
int disk_flush(struct disk *d);

/*
 * Where [off, off+len) is now: *ret describes a prefix, ret->len <= len.
 * Valid until somebody writes, zeroes or discards there.
 */
enum disk_where { DISK_DATA, DISK_ZERO, DISK_ABSENT };
struct disk_extent {
    uint64_t len;
    enum disk_where where;       /* ABSENT: no layer holds it; reads as zeros */
    struct disk_file *file;      /* DATA: bytes lie here (borrowed) */
    uint64_t file_offset;
    unsigned layer;              /* which layer answered; DATA and ZERO */
};
int disk_map(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *ret);

/*
 * The three steps of a write for those who move the bytes themselves (queue.c):
 * prepare (allocates; the extent is where [off, off+ret->len) goes), move, then done.
 * -EAGAIN from prepare: the range starts or ends inside a logical sector; use disk_write().
 * Every prepare that succeeded is followed by one done, with ok = false if the move failed.
 */
int disk_write_prepare(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *ret);
int disk_write_done(struct disk *d, uint64_t off, uint64_t len, bool ok);
/*
 * disk_map() for those who read the bytes themselves: until done, what is at the extent stays of
 * that range, whatever is discarded meanwhile. One done for each prepare that succeeded, with
 * its extent. Without it the room may hold another block's bytes by the time it is read.
 */
int disk_read_prepare(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *ret);
void disk_read_done(struct disk *d, uint64_t off, const struct disk_extent *x);

/* What `vhdtool info` shows of one layer. */
struct disk_info {
    enum disk_kind kind;
    enum disk_type type;
    uint64_t size;               /* virtual, bytes */
    uint64_t file_size;
    uint64_t allocated;          /* bytes the host holds */
    uint32_t block_size;         /* 0 for raw and fixed VHD */
    uint64_t blocks, blocks_present;
    uint32_t logical_sector, physical_sector;
    struct guid id;              /* page 83 id, unique id */
    struct guid data_id;         /* what children are keyed on */
    bool has_parent;
    struct disk_parent_ref parent;
    uint64_t created_s;          /* Unix time, 0 if unknown (VHDX has none) */
    char creator[64];            /* UTF-8, what made it */
    uint64_t chs_size;           /* VHD: cylinders * heads * sectors * 512, else 0 */
    unsigned log_entries;        /* VHDX: entries that wait to be replayed */
    bool log_dirty;
    bool saved_state;            /* VHD footer: belongs to a saved VM */
    char note[256];              /* what is odd but readable ("end footer missing"); may be empty */
};
/* Counting present blocks reads the whole BAT: count = false leaves blocks_present 0. */
int disk_layer_info(struct disk_layer *l, bool count, struct disk_info *ret);
struct disk_file *disk_layer_file(struct disk_layer *l);    /* borrowed */

/* What to create; zero means the default of the format. */
struct disk_create {
    enum disk_kind kind;
    enum disk_type type;
    uint64_t size;                   /* DIFFERENCING: 0 takes the parent's */
    uint32_t block_size;             /* VHDX 1M..256M (32M; 2M differencing), VHD 512K..  (2M) */
    uint32_t logical_sector, physical_sector;
    const char *parent;              /* path of the parent, for DIFFERENCING */
    bool azure;                      /* fixed VHD, size a whole MiB */
    bool no_sync;                    /* nothing is waited for: as DISK_NO_SYNC */
    struct guid id;                  /* zero: a fresh one */
    uint64_t time_s;                 /* Unix time of VHD headers, with id for reproducible images */
};
/*
 * Make a new disk at path; a half-made one never has a valid header and is unlinked on
 * failure. -EEXIST, -EINVAL (size, block size: which, and what is allowed), -ENOSPC...
 */
int disk_create(const char *path, const struct disk_create *c, struct hv_error *e);
/* The same into an empty file. parent: open, for DIFFERENCING; c->parent names its path. */
int disk_create_in(struct disk_file *f, const struct disk_create *c, struct disk *parent,
                   struct hv_error *e);

/*
 * The default way to a parent: relative path from the child's folder (backslashes turned,
 * the last component also in another case), absolute paths of this host, then the base name
 * beside the child. Windows' drive letters are not guessed: -ENOENT with the hint to relink.
 */
int disk_find_parent(void *arg, const char *child_path, const struct disk_parent_ref *ref,
                     struct disk_file **ret, struct hv_error *e);

/* The i-th path to try for a parent, as disk_find_parent() does; NULL: ref has no such name. free() it. */
#define DISK_PARENT_CANDIDATES 3
char *disk_parent_candidate(const char *child_path, const struct disk_parent_ref *ref, int i);

/* Grow or shrink; the disk is open for writing and has no children. -EOPNOTSUPP as the sheet says. */
int disk_resize(struct disk *d, uint64_t size, struct hv_error *e);
/* Name another parent: rewrites locators only. ignore_id takes over the new parent's identity. */
int disk_set_parent(struct disk *d, const char *path, bool ignore_id, struct hv_error *e);
/* A fresh disk identifier; of a VHD that breaks its children. */
int disk_set_id(struct disk *d, const struct guid *id, struct hv_error *e);
int disk_set_physical_sector(struct disk *d, uint32_t bytes, struct hv_error *e);
/* Move blocks so that the file ends with the last one in use, drop blocks that hold zeros only
 * (scan) and punch the rest. Content and DataWriteGuid stay. progress may be NULL. Nobody else
 * uses the disk meanwhile. */
typedef void disk_progress_fn(void *arg, uint64_t done, uint64_t total);
int disk_compact(struct disk *d, bool scan, disk_progress_fn *progress, void *arg, struct hv_error *e);

/* One finding of a check. */
struct disk_problem {
    char text[256];              /* "bat: block 17 and block 203 both at 0x4a00000" */
    bool repairable;
    bool harmless;               /* worth saying; the disk is clean all the same */
};
typedef void disk_problem_fn(void *arg, const struct disk_problem *p);
/*
 * Look at the structure of one file (not its chain), read-only, telling each problem.
 * Works on files that disk_open() refuses. Memory in proportion to allocated blocks.
 * 0 when it could look (problems or not); negative when it could not.
 */
int disk_check_file(struct disk_file *f, int format, disk_problem_fn *fn, void *arg,
                    struct hv_error *e);
/*
 * Put right what can be put right without inventing data, telling each thing done; dry: only
 * say it. The caller saved the header area first. 0 also when nothing was wrong.
 */
int disk_repair_file(struct disk_file *f, int format, bool dry, disk_problem_fn *fn, void *arg,
                     struct hv_error *e);

#endif
