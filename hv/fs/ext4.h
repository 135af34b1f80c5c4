/*
 * ext4 through libext2fs: making one, filling it, reading and changing files in it. No root, no
 * mount: owners, modes, devices and attributes are plain data here.
 */
#ifndef HV_FS_EXT4_H
#define HV_FS_EXT4_H

#include "hv/fs/fs.h"

struct ext4;

/* ---- a new file system, filled ---- */

struct ext4_make {
    const char *label;               /* at most 16 bytes; NULL: none */
    uint8_t uuid[16], hash_seed[16]; /* RFC 4122 order */
    int64_t time_s;                  /* stands in every "now" of the file system */
    uint64_t inodes;                 /* at least so many; more by the usual ratio of one a 16 KiB */
    bool zeroed;                     /* the range reads as zeros */
};

/* What a file system for this content needs, in bytes: journal, tables and `slack_pct` more. */
uint64_t ext4_size_for(uint64_t file_bytes_in_blocks, uint64_t files, unsigned slack_pct);
#define EXT4_BLOCK 4096u             /* of file systems made here */

/* One file to add. Strings and values are borrowed for the call. */
struct ext4_file {
    const char *path;                /* relative to the root; leading '/', '.' and '..' do no harm */
    uint32_t mode, uid, gid;         /* mode with S_IF... */
    uint32_t major, minor;
    struct fs_time mtime;
    const char *target;              /* S_IFLNK: what it says; hard links: the path of the other name */
    bool hardlink;                   /* path is one more name of target */
    bool keep_dir;                   /* S_IFDIR: if it is there, leave its owner, mode and times */
};

struct ext4_build;

/*
 * Make an empty ext4 in [off, off+len) of d, as mke2fs -t ext4 of Debian 12 does (metadata_csum,
 * 64bit, extents, flex_bg, journal, resize_inode), and get ready to fill it.
 * -ENOSPC: too small for one.
 */
int ext4_build_new(struct disk *d, uint64_t off, uint64_t len, const struct ext4_make *m,
                   struct ext4_build **ret, struct hv_error *e);

/*
 * Add a file. What had this path goes first (folders stay, what is in them too); missing parents are
 * made with mode 755, root's. Symbolic links in the parents are followed inside the image.
 *
 * 0; -ENOSPC (full: how to get more room in e's hint), -ENOENT a hard link to nothing, -ELOOP,
 * -ENOTDIR (a file stands where a folder is needed), -ENAMETOOLONG, -EMLINK, -EINVAL.
 */
int ext4_build_add(struct ext4_build *b, const struct ext4_file *f, struct hv_error *e);
/* A regular file that is there gets new content by ext4_build_data(); owner, mode and attributes stay. */
int ext4_build_reopen(struct ext4_build *b, const char *path, struct hv_error *e);
/* Bytes of the regular file added last, ascending offsets; what is left out is a hole. */
int ext4_build_data(struct ext4_build *b, uint64_t off, const void *buf, size_t len, struct hv_error *e);
/* Its size, where it ends with a hole or had no data. */
int ext4_build_truncate(struct ext4_build *b, uint64_t size, struct hv_error *e);
/* An attribute of the file added last: "security.capability", "user.x", "system.posix_acl_access" (as
 * getxattr(2) gives it). -ENOSPC where it does not fit beside the inode and in one block. */
int ext4_build_xattr(struct ext4_build *b, const char *name, const void *value, size_t len, struct hv_error *e);

/* A small file that was added before: its bytes, malloc'ed and NUL-terminated. -ENOENT, -EFBIG over max. */
int ext4_build_read(struct ext4_build *b, const char *path, size_t max, char **ret, size_t *ret_len);
/* Is there a file, and which? Symbolic links followed. Names only; NULL ret_mode is fine. */
bool ext4_build_has(struct ext4_build *b, const char *path, uint32_t *ret_mode);
/* Remove a file or a folder with all that is in it. -ENOENT. */
int ext4_build_remove(struct ext4_build *b, const char *path, struct hv_error *e);
/* Names in a folder, in the order they came. */
int ext4_build_list(struct ext4_build *b, const char *path, fs_entry_fn *fn, void *arg);

struct ext4_built { uint64_t files, dirs, bytes, used, size; };
/* Write folders (indexed where they are large), tables and superblocks; flush. Frees b in any case. */
int ext4_build_finish(struct ext4_build *b, struct ext4_built *ret, struct hv_error *e);
/* Free without finishing: what is on the disk is no file system. NULL is fine. */
void ext4_build_abandon(struct ext4_build *b);

/* ---- one that is there ---- */

/* fs_open() for ext4. write: -EBUSY if the journal has to be replayed first. */
int ext4_open(struct disk *d, uint64_t off, uint64_t len, bool write, struct fs **ret, struct hv_error *e);

/*
 * Changes to a file system opened for writing. The superblock says "not clean" from the first
 * change to fs_close(): after a kill in between e2fsck puts it right.
 * path: as fs_walk(). now: seconds for ctime.
 */
struct ext4_put {
    uint32_t mode, uid, gid, major, minor;
    struct fs_time mtime;
    const char *target;              /* S_IFLNK */
};
/*
 * Make dir/name, or for regular files take over the one that is there (its data goes, its owner
 * and mode become those of p). -EEXIST for other kinds, -EISDIR, -ENOSPC, -EOPNOTSUPP without extents.
 * S_IFDIR on a folder that is there: its inode.
 */
int ext4_put(struct fs *fs, uint64_t dir, const char *name, const struct ext4_put *p, uint64_t *ret_ino);
/* Data for the regular file that was put last, ascending; then the size it ends up with. */
int ext4_put_data(struct fs *fs, uint64_t off, const void *buf, size_t len);
int ext4_put_end(struct fs *fs, uint64_t size);
int ext4_put_xattr(struct fs *fs, uint64_t ino, const char *name, const void *value, size_t len);
/* One more name for the file at path. -EISDIR, -EEXIST, -EMLINK. */
int ext4_link(struct fs *fs, const char *path, uint64_t dir, const char *name);
/* Remove a name that is no folder, and the file with its last one. */
int ext4_remove(struct fs *fs, uint64_t dir, const char *name);

/* The same in any order, as a mounted file system is used (ext4_edit.c). -EEXIST for a name that is there. */
int ext4_create(struct fs *fs, uint64_t dir, const char *name, const struct ext4_put *p, uint64_t *ret_ino);
/* Any bytes of a regular file; what lies between its end and off reads as zeros. */
int ext4_write(struct fs *fs, uint64_t ino, uint64_t off, const void *buf, size_t len);
int ext4_set_size(struct fs *fs, uint64_t ino, uint64_t size);
enum { EXT4_ATTR_MODE = 1, EXT4_ATTR_UID = 2, EXT4_ATTR_GID = 4, EXT4_ATTR_ATIME = 8, EXT4_ATTR_MTIME = 16 };
struct ext4_attr { unsigned set; uint32_t mode, uid, gid; struct fs_time atime, mtime; };
int ext4_set_attr(struct fs *fs, uint64_t ino, const struct ext4_attr *a);
int ext4_remove_xattr(struct fs *fs, uint64_t ino, const char *name);   /* -ENODATA */
int ext4_rmdir(struct fs *fs, uint64_t dir, const char *name);          /* -ENOTEMPTY */
/* replace false: -EEXIST where to_name is there. -EINVAL into itself; as rename(2) otherwise. */
int ext4_rename(struct fs *fs, uint64_t dir, const char *name, uint64_t to, const char *to_name, bool replace);
/* Everything so far is on the disk; the file system still says "not clean". */
int ext4_flush(struct fs *fs);
/* The first -errno with which a transfer to or from its disk failed since it was opened; 0: none did. */
int ext4_disk_error(const struct fs *fs);

/* Grow to len bytes of the partition (which was made larger before). -EOPNOTSUPP where there is no
 * room reserved for the tables; -EBUSY unclean. */
int ext4_grow(struct disk *d, uint64_t off, uint64_t len, struct hv_error *e);

#endif
