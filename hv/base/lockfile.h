/*
 * Whole-file locks that say who holds them. They belong to the open file description: they go
 * with the descriptor to another process, and end with its last copy.
 */
#ifndef HV_BASE_LOCKFILE_H
#define HV_BASE_LOCKFILE_H

#include "hv/base/error.h"

/*
 * Lock all of fd: against everybody when writing, else against writers. Never waits. 0, or
 * -EBUSY (HV_CONFLICT): "in use by VM (pid N)", or by a program, as far as /proc tells.
 */
int hv_lock_file(int fd, const char *path, bool writing, struct hv_error *e);

#define HV_HOLDER_SIZE 128
/* Who holds a lock on path that keeps such a lock away. */
struct hv_lock_holder {
    int pid;
    bool vm;                        /* a worker: name is its VM's */
    char name[HV_HOLDER_SIZE];      /* else of the program */
};
/* -ENOENT if nobody is found. */
int hv_lock_holder(const char *path, bool writing, struct hv_lock_holder *ret);

#endif
