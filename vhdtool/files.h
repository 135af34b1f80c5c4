/*
 * Files in disks: IMAGE[:N][:/path] as it is typed, the file system it means, and copying
 * between those and this host. Between the files of ls, cat, cp and mount.
 */
#ifndef VHDTOOL_FILES_H
#define VHDTOOL_FILES_H

#include "hv/fs/fs.h"
#include "hv/fs/partition.h"
#include "vhdtool/build.h"

struct image_path {
    char image[4096];
    int part;                    /* -1: not said; 0: the disk itself */
    const char *path;            /* "/etc/fstab"; NULL: not said. Points into what was typed */
};

/* Take arg apart. False: it is a file of this host ("-" too). must: it is an image, whatever it looks like. */
bool image_path_parse(const char *arg, bool must, struct image_path *ret);

struct image {
    struct disk *disk;
    struct fs *fs;
    unsigned part;               /* 0: the file system is the disk */
    uint64_t off, len;
    char in_use[IN_USE_SIZE];             /* by whom; empty: nobody */
};
/* write: locks the disk. A note of the file system (a journal not replayed) is shown as a warning. */
int image_open(struct cli_call *c, const struct image_path *p, bool write, struct image *ret, struct hv_error *e);
/* Flushes. The first error; all is gone either way. Fine on a zeroed one. */
int image_close(struct image *im, const char *path, struct hv_error *e);

/*
 * Which partition holds the files: number as image_path.part; -1: an ext4, else FAT, else ISO.
 * With the sentence for what is there instead.
 */
int image_choose(struct disk *d, const char *path, int part, unsigned *ret_part, uint64_t *ret_off,
                 uint64_t *ret_len, struct hv_error *e);

/* fs_open() for ISO 9660, by libarchive. */
int iso_open(struct disk *d, uint64_t off, uint64_t len, struct fs **ret, struct hv_error *e);

/* All files at and below ino as a source, "/" first. Folders in folders deeper than FS_DEPTH_MAX: -ELOOP. */
int files_walk(struct fs *fs, uint64_t ino, bool recursive, const struct build_sink *sink, const char *name,
               struct hv_error *e);

#endif
