/*
 * Files in a partition: one interface over ext4, FAT and what a tool adds (ISO 9660 through
 * libarchive in vhdtool).
 *
 * A file system is used by one thread at a time. Everything in it was written by a stranger:
 * sizes, names and loops are bounded here, and names never leave the image: paths are walked
 * inside it, symbolic links too.
 */
#ifndef HV_FS_FS_H
#define HV_FS_FS_H

#include "hv/disk/disk.h"
#include "hv/fs/probe.h"

#define FS_PATH_MAX   4096u
#define FS_NAME_MAX   255u
#define FS_LINKS_MAX  40u            /* symbolic links in one walk, as Linux */
#define FS_DEPTH_MAX  128u           /* folders in each other when walking trees */
#define FS_XATTR_MAX  65536u         /* bytes of one attribute */

struct fs_time { int64_t s; uint32_t ns; };

struct fs_stat {
    uint64_t ino;                    /* what the other calls take */
    uint32_t mode, uid, gid, links;  /* mode with S_IF..., as stat(2) */
    uint32_t major, minor;           /* devices */
    uint64_t size, blocks;           /* bytes; blocks of 512 it takes */
    struct fs_time mtime, atime, ctime;
};

struct fs_space { uint64_t size, free_bytes, files, free_files; uint32_t block; };

struct fs_entry { uint64_t ino; const char *name; uint32_t mode; };   /* mode: S_IF... only; 0 unknown */
/* A non-zero return ends the walk and is returned by it. */
typedef int fs_entry_fn(void *arg, const struct fs_entry *en);
typedef int fs_xattr_fn(void *arg, const char *name, const void *value, size_t len);

struct fs;

/* All return 0 or a negative errno. NULL: this kind cannot. */
struct fs_ops {
    const char *name;                /* "ext4" */
    uint64_t root;
    int (*stat)(struct fs *fs, uint64_t ino, struct fs_stat *ret);
    /* "." and ".." are left out. */
    int (*list)(struct fs *fs, uint64_t ino, fs_entry_fn *fn, void *arg);
    int (*lookup)(struct fs *fs, uint64_t dir, const char *name, uint64_t *ret_ino);
    /* At most len bytes; *ret_len 0 at the end. */
    int (*read)(struct fs *fs, uint64_t ino, uint64_t off, void *buf, size_t len, size_t *ret_len);
    int (*readlink)(struct fs *fs, uint64_t ino, char *buf, size_t size);
    int (*xattrs)(struct fs *fs, uint64_t ino, fs_xattr_fn *fn, void *arg);
    int (*space)(struct fs *fs, struct fs_space *ret);
    /* fn for each run of bytes, relative to the partition, that no file uses. */
    int (*each_free)(struct fs *fs, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg);
    int (*close)(struct fs *fs);
};

struct fs {                          /* first member of each implementation */
    const struct fs_ops *ops;
    char note[160];                  /* what the reader should know: "the journal was not replayed..." */
};

/*
 * Open what lies in [off, off+len) of d: ext2/3/4 or FAT. write: ext4 only.
 * -EOPNOTSUPP with the kind in the sentence for what cannot be read; -EINVAL damaged.
 */
int fs_open(struct disk *d, uint64_t off, uint64_t len, bool write, struct fs **ret, struct hv_error *e);
/* The first error of writing what was still in memory. NULL is fine. */
int fs_close(struct fs *fs);

/*
 * The inode that path names, from the root; '..' stops there, symbolic links are followed
 * inside the image (the last one only if follow). -ENOENT, -ENOTDIR, -ELOOP, -ENAMETOOLONG.
 */
int fs_walk(struct fs *fs, const char *path, bool follow, uint64_t *ret_ino);
/* The same for the folder of path; name[FS_NAME_MAX + 1] gets its last part. -EINVAL for the root. */
int fs_walk_parent(struct fs *fs, const char *path, uint64_t *ret_dir, char *name);

#endif
