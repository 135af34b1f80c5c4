/*
 * Asynchronous I/O on disks, for a worker's loop: many requests in flight, completions on the
 * loop's thread. Bytes move by io_uring where the host has it, else by the queue's threads;
 * what has to wait for the disk (flush, zeroing, discard) is always theirs.
 *
 *   disk_queue_submit ─▶ map or allocate ─▶ pieces ─▶ io_uring ──────▶ written, done()
 *                                              └────▶ a thread ──────▶
 *
 * The ring and the threads are made by disk_queue_new(): before the worker is sealed. The ring
 * takes reads and writes and nothing else.
 */
#ifndef HV_DISK_QUEUE_H
#define HV_DISK_QUEUE_H

#include <sys/uio.h>

#include "hv/base/loop.h"
#include "hv/disk/disk.h"

struct disk_queue;

enum disk_op { DISK_OP_READ, DISK_OP_WRITE, DISK_OP_FLUSH, DISK_OP_ZERO, DISK_OP_DISCARD };

/* Embedded in its owner; stays as it is from submit to done(). */
struct disk_request {
    enum disk_op op;
    struct disk *disk;
    uint64_t off, len;               /* READ, WRITE: whole logical sectors, the sum of iov */
    const struct iovec *iov;         /* iov[iov_count], memory stays valid until done */
    unsigned iov_count;
    /* On the loop's thread; result is 0 or -errno. May submit again, and free the request. */
    void (*done)(struct disk_request *r, int result);

    /* The queue's own. */
    struct disk_request *next;
    unsigned left;                   /* pieces under way, and one while they are being made */
    int result;
};

#define DISK_QUEUE_DEPTH 256u        /* pieces in flight by io_uring; more wait in line */

/* threads: how many may block at once (1..8). uring false: do without it. */
int disk_queue_new(struct loop *l, unsigned threads, bool uring, struct disk_queue **ret);
/* Waits for everything that is under way; done() of it is called. NULL is fine. */
void disk_queue_free(struct disk_queue *q);
/* Loop thread. Always answers through done(), never from within this call. */
void disk_queue_submit(struct disk_queue *q, struct disk_request *r);
/* Hand what was submitted to the kernel now; else at the loop's next turn. */
void disk_queue_kick(struct disk_queue *q);
/* Loop thread: call done() of everything that was submitted, waiting for it. */
void disk_queue_drain(struct disk_queue *q);
/* Requests submitted and not done. */
unsigned disk_queue_pending(const struct disk_queue *q);
/* Every thread calls enter() once, before its next job: how a worker seals them. Not NULL. */
void disk_queue_enter(struct disk_queue *q, void (*enter)(void));
struct loop *disk_queue_loop(const struct disk_queue *q);
bool disk_queue_has_uring(const struct disk_queue *q);

#endif
