/* Between the files of ext4. */
#ifndef HV_FS_EXT4_IMPL_H
#define HV_FS_EXT4_IMPL_H

#include <ext2fs/ext2fs.h>

#include "hv/fs/ext4.h"
#include "hv/fs/ext4_io.h"

/* An inode with its room for attributes; libext2fs wants pointers to the first two. */
union ext4_inode {
    struct ext2_inode s;
    struct ext2_inode_large l;
    uint8_t raw[256];
};

/* Negative errno of what libext2fs returned; the disk's own error where there was one. */
int ext4_errno(ext2_filsys fs, errcode_t err);
/* The sentence too: "doing: what libext2fs says". */
int ext4_fail(struct hv_error *e, ext2_filsys fs, errcode_t err, const char *object, const char *doing);

int ext4_inode_read(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *ret);
int ext4_inode_write(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *in);
void ext4_inode_owner(union ext4_inode *in, uint32_t mode, uint32_t uid, uint32_t gid);
void ext4_inode_device(union ext4_inode *in, uint32_t major, uint32_t minor);
void ext4_put_time(uint32_t *lo, uint32_t *extra, struct fs_time t);
struct fs_time ext4_get_time(const union ext4_inode *in, uint32_t lo, uint32_t extra, unsigned extra_end);
/* One link less; the last one frees blocks, attributes and the inode. */
int ext4_inode_unlink(ext2_filsys fs, ext2_ino_t ino);
/* Data goes; i_blocks is for ext4_writer_init() to put right. */
int ext4_inode_free_data(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *in);
/* Data and attributes go, the inode stays. */
int ext4_inode_truncate(ext2_filsys fs, ext2_ino_t ino, union ext4_inode *in);
uint8_t ext4_dirent_type(uint32_t mode);
int ext4_xattr_set(ext2_filsys fs, ext2_ino_t ino, const char *name, const void *value, size_t len);

/* ---- ext4_file.c: data of one new file, ascending offsets, into large extents ---- */

#define EXT4_WRITER_BUF MIB

struct ext4_writer {
    ext2_filsys fs;
    ext2_ino_t ino;
    union ext4_inode *inode;             /* borrowed; i_block, i_blocks and i_size are ours */
    ext2_extent_handle_t handle;
    struct ext2fs_extent pending;        /* not in the tree yet; e_len 0: none */
    uint64_t start;                      /* what buf[] begins with: a whole block */
    size_t used;
    uint64_t end;                        /* size so far */
    blk64_t *goal;                       /* where to look for free blocks; moved on */
    uint8_t *buf;                        /* EXT4_WRITER_BUF, borrowed */
};

/* The inode is new or truncated; it gets an empty extent tree. */
int ext4_writer_init(struct ext4_writer *w, ext2_filsys fs, ext2_ino_t ino, union ext4_inode *inode,
                     blk64_t *goal, uint8_t *buf);
int ext4_writer_add(struct ext4_writer *w, uint64_t off, const void *p, size_t len);
/* Write what is left, hook it in, set i_size; the inode itself is the caller's to write. */
int ext4_writer_end(struct ext4_writer *w, uint64_t size);
void ext4_writer_abort(struct ext4_writer *w);

/* ---- ext4_dir.c ---- */

struct ext4_dirent {
    const char *name;
    uint32_t ino;
    uint32_t hash, minor;                /* filled by ext4_dir_write */
    uint8_t len, type;
};
/*
 * The blocks of a folder: linear in one block, an index of hashes (Linux
 * Documentation/filesystems/ext4/directory.rst) where it needs more. min_blocks: empty ones are
 * added. Sorts en[n] when it hashes. Sets flags and size of the inode; the caller writes it.
 */
int ext4_dir_write(ext2_filsys fs, ext2_ino_t ino, ext2_ino_t parent, struct ext4_dirent *en, size_t n,
                   unsigned min_blocks, union ext4_inode *inode, blk64_t *goal, uint8_t *buf);

#endif
