/*
 * File copy: one file at a time from the host into the guest, whose hv_fcopy_daemon writes
 * it, 6 KiB a request. guest-abi 6.4.7.
 *
 *   idle ──copy──▶ starting ──▶ writing (──▶ writing) ──▶ completing ──▶ idle
 *                     └ refused: probing ──▶ idle    └ failed: cancelling ──▶ idle
 */
#ifndef HV_VSP_FCOPY_H
#define HV_VSP_FCOPY_H

#include "hv/vmbus/vmbus.h"

/* Linux' daemon keeps folder, "/" and name in 260 bytes of UTF-8, terminator included. */
#define FCOPY_PATH_MAX 258u

struct fcopy;
struct ic;

/*
 * status: IC_OK; IC_EXISTS; IC_DISK_FULL; IC_NOT_CONNECTED: no daemon; IC_FAIL: the daemon cannot (folder, rights);
 * IC_INVALID: the source could not be read or became shorter, err says why (negative errno or 0); IC_TIMEOUT; IC_GONE;
 * IC_CANCELLED: by fcopy_cancel(), and the guest has removed what it had.
 */
typedef void fcopy_done_fn(void *arg, uint32_t status, int err);

struct fcopy_job {
    int fd;                        /* a regular file, read from its beginning; becomes fcopy's, also on failure */
    uint64_t size;                 /* bytes of it */
    const char *folder, *name;     /* in the guest; UTF-8, copied; folder begins with '/' */
    bool overwrite, parents;       /* parents: make the folders that are missing */
    fcopy_done_fn *done;           /* later, never from within fcopy_start() */
    void *arg;
};

/* changed: the driver listens, or does no more. May be NULL. */
int fcopy_new(struct vmbus *bus, void (*changed)(void *arg), void *arg, struct fcopy **ret, struct hv_error *e);
void fcopy_free(struct fcopy *f);
struct ic *fcopy_ic(struct fcopy *f);
bool fcopy_ready(const struct fcopy *f);
/* Bytes the guest has of the file that is being copied, and of how many; 0 of 0: none is. */
void fcopy_progress(const struct fcopy *f, uint64_t *ret_done, uint64_t *ret_size);
/* 0; -ENOTCONN: no driver; -EBUSY: another copy, or the daemon hangs; -ENAMETOOLONG; -EINVAL: no such names. */
int fcopy_start(struct fcopy *f, const struct fcopy_job *job);
/*
 * End the copy under way, if there is one: what there is of the file is removed as soon as the guest has answered what
 * it was asked last, then done comes with IC_CANCELLED. What is all but over ends as it would have.
 */
void fcopy_cancel(struct fcopy *f);

#endif
