/* Between cmd_mount.c, mount_disk.c, mount_tree.c and mount_state.c. */
#ifndef VHDTOOL_MOUNT_H
#define VHDTOOL_MOUNT_H

#include "vhdtool/files.h"

/* What a server shows. One of the two sets of operations below takes it as private data. */
struct mounted {
    struct disk *disk;
    struct partition_table table;
    struct image tree;           /* --fs: its disk is `disk` */
    char image[4096], dir[4096]; /* absolute */
    bool write, is_tree, made_dir;
    int64_t time_s;              /* shown for all files of a disk */
    uint32_t uid, gid;           /* of whom they are */
    uint64_t dirty_ns;           /* --fs: when the first change was made that is not on the disk; 0: none */
};

struct fuse_operations;
extern const struct fuse_operations mount_disk_ops, mount_tree_ops;

/* --fs: all changes so far go to the disk; after a failure they are as due as new ones. */
int mount_tree_flush(struct mounted *m);

/* ---- mount_state.c: which servers run ---- */

struct mount_state {
    char path[4096];             /* of the state file */
    json_t *info;                /* dir image pid tree write partition */
    bool alive;
};
/* The folder of state files and default mount points, made if it is not there. */
int mount_state_dir(char buf[4096], struct hv_error *e);
/* The server's: writes its file and keeps it locked while it lives. *ret_fd stays open. */
int mount_state_write(const struct mounted *m, char path[4096], int *ret_fd, struct hv_error *e);
/* Every server of this user; files of dead ones are removed. fn may stop the walk with non-zero. */
int mount_state_each(int (*fn)(void *arg, const struct mount_state *s), void *arg, struct hv_error *e);
/* Wait until the server has gone. *ret_error what it had to say at its end (malloc'ed), or NULL. */
int mount_state_wait(const char *path, uint64_t timeout_ns, char **ret_error);
/* "bash (pid 81), loop0": who keeps dir from being unmounted; "" if nobody is found. */
void mount_users(const char *dir, char *buf, size_t size);

#endif
