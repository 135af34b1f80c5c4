/* Requests become pieces, one an extent; see queue.h for their way. */
#include "hv/disk/queue.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QUEUE_MAGIC 0x65757571u
#define THREADS_MAX 8u
#define DIRECT_ALIGN 4096u
#define SUBMIT_EVERY 8u

/* One extent of a request, or (FLUSH, ZERO, DISCARD) all of it. */
struct piece {
    struct piece *next;
    struct disk_request *req;
    struct disk_file *file;          /* a reference */
    uint64_t disk_off, file_off, len;
    unsigned layer;                  /* of the chain, that file belongs to */
    int result;
    unsigned iov_count;
    struct iovec iov[];              /* a copy: cut to the piece, and as it moves on */
};

struct list { struct piece *first, **last; };

struct disk_queue {
    uint32_t magic;
    struct loop *loop;
    struct loop_post post;           /* pieces to hand in, or done by a thread */
    unsigned pending;

    bool uring;
    struct io_uring ring;
    int event_fd;
    struct loop_fd *watch;
    unsigned in_ring;                /* pieces the kernel has */
    unsigned in_turn;                /* in a turn of the loop that ends with a kick */
    struct list waiting;             /* for a place in the ring */
    struct list ready;               /* finished, on the loop's thread */

    pthread_t thread[THREADS_MAX];
    unsigned threads;
    pthread_mutex_t lock;            /* guards the rest */
    pthread_cond_t work, finished_some;
    struct list jobs, finished;
    void (*enter)(void);             /* each thread calls it once */
    bool quit;
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->last = &l->first;
}

static void list_add(struct list *l, struct piece *p)
{
    p->next = NULL;
    *l->last = p;
    l->last = &p->next;
}

static struct piece *list_take(struct list *l)
{
    struct piece *p = l->first;

    if (p) {
        l->first = p->next;
        if (!l->first) {
            l->last = &l->first;
        }
    }
    return p;
}

/* ---- the threads ---- */

static int move_bytes(struct piece *p)
{
    uint64_t off = p->file_off;
    int r = 0;

    for (unsigned i = 0; i < p->iov_count && r == 0; i++) {
        r = p->req->op == DISK_OP_READ ? disk_file_read(p->file, off, p->iov[i].iov_base, p->iov[i].iov_len)
                                       : disk_file_write(p->file, off, p->iov[i].iov_base, p->iov[i].iov_len);
        off += p->iov[i].iov_len;
    }
    return r;
}

static int do_job(struct piece *p)
{
    struct disk_request *r = p->req;

    switch (r->op) {
    case DISK_OP_READ:
    case DISK_OP_WRITE:
        return move_bytes(p);
    case DISK_OP_FLUSH:
        return disk_flush(r->disk);
    case DISK_OP_ZERO:
        return disk_zero(r->disk, r->off, r->len);
    case DISK_OP_DISCARD:
        return disk_discard(r->disk, r->off, r->len);
    }
    return -EINVAL;
}

static void *thread_main(void *arg)
{
    struct disk_queue *q = arg;
    void (*entered)(void) = NULL;

    pthread_mutex_lock(&q->lock);
    for (;;) {
        if (q->enter != entered) {
            entered = q->enter;
            pthread_mutex_unlock(&q->lock);
            entered();
            pthread_mutex_lock(&q->lock);
        }
        struct piece *p = list_take(&q->jobs);

        if (!p && q->quit) {
            break;
        }
        if (!p) {
            pthread_cond_wait(&q->work, &q->lock);
            continue;
        }
        pthread_mutex_unlock(&q->lock);
        p->result = do_job(p);
        pthread_mutex_lock(&q->lock);
        list_add(&q->finished, p);
        pthread_cond_broadcast(&q->finished_some);
        loop_post(q->loop, &q->post);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

static void give_to_thread(struct disk_queue *q, struct piece *p)
{
    pthread_mutex_lock(&q->lock);
    list_add(&q->jobs, p);
    pthread_cond_signal(&q->work);
    pthread_mutex_unlock(&q->lock);
}

/* ---- finishing ---- */

static void request_left(struct disk_queue *q, struct disk_request *r)
{
    if (--r->left > 0) {
        return;
    }
    q->pending--;
    r->done(r, r->result);
}

static void finish(struct disk_queue *q, struct piece *p)
{
    struct disk_request *r = p->req;
    int result = p->result;

    if (r->op == DISK_OP_WRITE && p->file) {
        int w = disk_write_done(r->disk, p->disk_off, p->len, result == 0);

        result = result ? result : w;
    } else if (r->op == DISK_OP_READ && p->file) {
        disk_read_done(r->disk, p->disk_off,
                       &(struct disk_extent){ .len = p->len, .where = DISK_DATA, .layer = p->layer });
    }
    if (result < 0 && r->result == 0) {
        r->result = result;
    }
    disk_file_unref(p->file);
    free(p);
    request_left(q, r);
}

/* ---- io_uring ---- */

static bool aligned(const struct piece *p)
{
    if (p->file_off % DIRECT_ALIGN) {
        return false;
    }
    for (unsigned i = 0; i < p->iov_count; i++) {
        if ((uintptr_t)p->iov[i].iov_base % DIRECT_ALIGN || p->iov[i].iov_len % DIRECT_ALIGN) {
            return false;
        }
    }
    return true;
}

static bool put_in_ring(struct disk_queue *q, struct piece *p)
{
    struct io_uring_sqe *sqe = q->in_ring < DISK_QUEUE_DEPTH ? io_uring_get_sqe(&q->ring) : NULL;
    int fd = disk_file_direct_fd(p->file);

    if (!sqe) {
        return false;
    }
    fd = fd >= 0 && aligned(p) ? fd : disk_file_fd(p->file);
    /* One stretch of memory needs no vector: the kernel has a copy less to make. */
    if (p->iov_count == 1 && p->iov[0].iov_len <= INT32_MAX) {
        if (p->req->op == DISK_OP_READ) {
            io_uring_prep_read(sqe, fd, p->iov[0].iov_base, (unsigned)p->iov[0].iov_len, p->file_off);
        } else {
            io_uring_prep_write(sqe, fd, p->iov[0].iov_base, (unsigned)p->iov[0].iov_len, p->file_off);
        }
    } else if (p->req->op == DISK_OP_READ) {
        io_uring_prep_readv(sqe, fd, p->iov, p->iov_count, p->file_off);
    } else {
        io_uring_prep_writev(sqe, fd, p->iov, p->iov_count, p->file_off);
    }
    io_uring_sqe_set_data(sqe, p);
    q->in_ring++;
    return true;
}

/* The kernel moved n bytes of it: what is left, if anything, in front. */
static void advance(struct piece *p, uint64_t n)
{
    unsigned i = 0;

    p->file_off += n;
    while (i < p->iov_count && n >= p->iov[i].iov_len) {
        n -= p->iov[i++].iov_len;
    }
    p->iov_count -= i;
    memmove(p->iov, p->iov + i, p->iov_count * sizeof(p->iov[0]));
    if (p->iov_count) {
        p->iov[0].iov_base = (char *)p->iov[0].iov_base + n;
        p->iov[0].iov_len -= n;
    }
}

static void completed(struct disk_queue *q, struct piece *p, int res)
{
    q->in_ring--;
    if (res == -EAGAIN || res == -EINTR || res == -EINVAL || res == -EOPNOTSUPP ||
        res == -ECANCELED) {
        give_to_thread(q, p);            /* not like this: by the plain calls, which say why */
        return;
    }
    if (res >= 0) {
        advance(p, (uint64_t)res);
        if (p->iov_count > 0) {          /* the end of the file, or half-way: the rest by a thread */
            give_to_thread(q, p);
            return;
        }
    }
    p->result = res < 0 ? res : 0;
    finish(q, p);
}

/*
 * What came back. What is submitted meanwhile goes out a few at a time, the first at once: the host
 * may have had nothing left to do, and each hand-over costs a system call and an exit to its host.
 */
static void reap(struct disk_queue *q)
{
    unsigned batch = 1;
    struct io_uring_cqe *cqe;

    q->in_turn++;
    while (io_uring_peek_cqe(&q->ring, &cqe) == 0) {
        struct piece *p = io_uring_cqe_get_data(cqe);
        int res = cqe->res;

        io_uring_cqe_seen(&q->ring, cqe);
        completed(q, p, res);
        if (io_uring_sq_ready(&q->ring) >= batch) {
            disk_queue_kick(q);
            batch = MIN(batch * 2, SUBMIT_EVERY);
        }
    }
    q->in_turn--;
}

void disk_queue_kick(struct disk_queue *q)
{
    if (!q->uring) {
        return;
    }
    while (q->waiting.first && put_in_ring(q, q->waiting.first)) {
        list_take(&q->waiting);
    }
    if (io_uring_sq_ready(&q->ring)) {
        io_uring_submit(&q->ring);       /* what it refuses now stays and goes with the next */
    }
}

static void on_event(void *arg, unsigned events)
{
    struct disk_queue *q = arg;
    uint64_t n;

    (void)events;
    while (read(q->event_fd, &n, sizeof(n)) < 0 && errno == EINTR) {
    }
    reap(q);
    disk_queue_kick(q);
}

static void on_post(void *arg)
{
    struct disk_queue *q = arg;
    struct list done;
    struct piece *p;

    list_init(&done);
    pthread_mutex_lock(&q->lock);
    while ((p = list_take(&q->finished))) {
        list_add(&done, p);
    }
    pthread_mutex_unlock(&q->lock);
    while ((p = list_take(&q->ready))) {
        list_add(&done, p);
    }
    q->in_turn++;
    while ((p = list_take(&done))) {
        finish(q, p);
    }
    q->in_turn--;
    disk_queue_kick(q);
}

/* ---- making pieces ---- */

static struct piece *new_piece(struct disk_request *r, unsigned iovs)
{
    struct piece *p = hv_alloc(sizeof(*p) + iovs * sizeof(p->iov[0]));

    if (p) {
        p->req = r;
        r->left++;
    }
    return p;
}

/* How many iovecs the next len bytes from (*i, *in) on touch. */
static unsigned count_iov(const struct disk_request *r, unsigned i, size_t in, uint64_t len)
{
    unsigned n = 0;

    for (; len > 0 && i < r->iov_count; i++, in = 0, n++) {
        uint64_t have = r->iov[i].iov_len - in;

        len -= MIN(len, have);
    }
    return n;
}

/* Copy them, and move (*i, *in) on. */
static unsigned slice_iov(const struct disk_request *r, unsigned *i, size_t *in, uint64_t len, struct iovec *out)
{
    unsigned n = 0;

    while (len > 0 && *i < r->iov_count) {
        uint64_t take = MIN(len, (uint64_t)(r->iov[*i].iov_len - *in));

        if (take > 0) {
            out[n++] = (struct iovec){ (char *)r->iov[*i].iov_base + *in, take };
        }
        len -= take;
        *in += take;
        if (*in == r->iov[*i].iov_len) {
            ++*i;
            *in = 0;
        }
    }
    return n;
}

static void hand_in(struct disk_queue *q, struct piece *p)
{
    if (!q->uring || disk_file_fd(p->file) < 0) {
        give_to_thread(q, p);
    } else if (q->waiting.first || !put_in_ring(q, p)) {
        list_add(&q->waiting, p);
    }
}

static int make_pieces(struct disk_queue *q, struct disk_request *r)
{
    uint64_t done = 0;
    unsigned i = 0;
    size_t in = 0;

    while (done < r->len) {
        struct disk_extent x;
        struct piece *p;
        int err = r->op == DISK_OP_READ ? disk_read_prepare(r->disk, r->off + done, r->len - done, &x)
                                        : disk_write_prepare(r->disk, r->off + done, r->len - done, &x);

        if (err < 0) {
            return err;
        }
        p = new_piece(r, count_iov(r, i, in, x.len));
        if (!p) {
            if (r->op == DISK_OP_WRITE) {
                disk_write_done(r->disk, r->off + done, x.len, false);
            } else {
                disk_read_done(r->disk, r->off + done, &x);
            }
            return -ENOMEM;
        }
        p->disk_off = r->off + done;
        p->len = x.len;
        p->iov_count = slice_iov(r, &i, &in, x.len, p->iov);
        if (x.where != DISK_DATA) {
            for (unsigned k = 0; k < p->iov_count; k++) {
                memset(p->iov[k].iov_base, 0, p->iov[k].iov_len);
            }
            list_add(&q->ready, p);
        } else {
            p->file = disk_file_ref(x.file);
            p->file_off = x.file_offset;
            p->layer = x.layer;
            hand_in(q, p);
        }
        done += x.len;
    }
    return 0;
}

void disk_queue_submit(struct disk_queue *q, struct disk_request *r)
{
    struct piece *p;
    int err = 0;

    HV_CHECK(q, QUEUE_MAGIC);
    q->pending++;
    r->left = 1;
    r->result = 0;
    if (r->op == DISK_OP_READ || r->op == DISK_OP_WRITE) {
        err = make_pieces(q, r);
    }
    if (r->op > DISK_OP_WRITE || err < 0 || r->left == 1) {
        /* A job for a thread; or, so that done() is never called from here, an empty piece. */
        p = new_piece(r, 0);
        if (!p) {
            r->result = -ENOMEM;
            hv_assert(r->left > 1);      /* 64 bytes: else nobody could be told */
        } else if (r->op > DISK_OP_WRITE) {
            give_to_thread(q, p);
        } else {
            p->result = err;
            list_add(&q->ready, p);
        }
    }
    r->left--;
    if (q->in_turn == 0 || q->ready.first) {
        loop_post(q->loop, &q->post);    /* else the turn kicks at its end */
    }
}

unsigned disk_queue_pending(const struct disk_queue *q)
{
    return q ? q->pending : 0;
}

struct loop *disk_queue_loop(const struct disk_queue *q)
{
    return q->loop;
}

bool disk_queue_has_uring(const struct disk_queue *q)
{
    return q->uring;
}

void disk_queue_drain(struct disk_queue *q)
{
    while (q && q->pending > 0) {
        on_post(q);
        if (q->uring) {
            reap(q);
            disk_queue_kick(q);
        }
        if (q->pending == 0) {
            break;
        }
        if (q->in_ring > 0) {
            struct io_uring_cqe *cqe;

            if (io_uring_wait_cqe(&q->ring, &cqe) < 0) {
                continue;
            }
            reap(q);
        } else {
            pthread_mutex_lock(&q->lock);
            while (!q->finished.first && !q->ready.first && q->pending > 0 && !q->waiting.first) {
                pthread_cond_wait(&q->finished_some, &q->lock);
            }
            pthread_mutex_unlock(&q->lock);
        }
    }
}

/* ---- setting up ---- */

void disk_queue_enter(struct disk_queue *q, void (*enter)(void))
{
    pthread_mutex_lock(&q->lock);
    q->enter = enter;
    pthread_cond_broadcast(&q->work);
    pthread_mutex_unlock(&q->lock);
}

/* Reads and writes only, whatever is done to this process later. */
static int restrict_ring(struct io_uring *ring)
{
    struct io_uring_restriction allowed[] = {
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
    };

    /* By the system call: Debian 12's liburing declares the functions and does not have them. */
    if (syscall(__NR_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, allowed, ARRAY_SIZE(allowed)) < 0 ||
        syscall(__NR_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0) {
        return -errno;
    }
    return 0;
}

static bool open_ring(struct disk_queue *q)
{
    unsigned flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP;

    /* The loop goes into the kernel soon enough: no interrupt to its CPU for each completion. Linux 5.19. */
    if (io_uring_queue_init(DISK_QUEUE_DEPTH, &q->ring, flags | IORING_SETUP_COOP_TASKRUN) < 0 &&
        io_uring_queue_init(DISK_QUEUE_DEPTH, &q->ring, flags) < 0) {
        return false;
    }
    q->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->event_fd < 0 || io_uring_register_eventfd(&q->ring, q->event_fd) < 0 || restrict_ring(&q->ring) < 0 ||
        loop_fd_new(q->loop, q->event_fd, LOOP_READ, on_event, q, &q->watch) < 0) {
        if (q->event_fd >= 0) {
            close(q->event_fd);
        }
        io_uring_queue_exit(&q->ring);
        return false;
    }
    return true;
}

int disk_queue_new(struct loop *l, unsigned threads, bool uring, struct disk_queue **ret)
{
    struct disk_queue *q = hv_alloc(sizeof(*q));

    if (!q) {
        return -ENOMEM;
    }
    q->magic = QUEUE_MAGIC;
    q->loop = l;
    q->event_fd = -1;
    q->post = (struct loop_post){ .fn = on_post, .arg = q };
    list_init(&q->waiting);
    list_init(&q->ready);
    list_init(&q->jobs);
    list_init(&q->finished);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->work, NULL);
    pthread_cond_init(&q->finished_some, NULL);
    q->uring = uring && open_ring(q);
    for (unsigned i = 0; i < MIN(MAX(threads, 1u), THREADS_MAX); i++) {
        int r = -pthread_create(&q->thread[i], NULL, thread_main, q);

        if (r < 0 && i == 0) {
            disk_queue_free(q);
            return r;
        }
        if (r < 0) {
            break;                       /* fewer will do */
        }
        q->threads++;
    }
    *ret = q;
    return 0;
}

void disk_queue_free(struct disk_queue *q)
{
    if (!q) {
        return;
    }
    HV_CHECK(q, QUEUE_MAGIC);
    disk_queue_drain(q);
    pthread_mutex_lock(&q->lock);
    q->quit = true;
    pthread_cond_broadcast(&q->work);
    pthread_mutex_unlock(&q->lock);
    for (unsigned i = 0; i < q->threads; i++) {
        pthread_join(q->thread[i], NULL);
    }
    loop_post_cancel(q->loop, &q->post);
    if (q->uring) {
        loop_fd_free(q->loop, q->watch);
        io_uring_queue_exit(&q->ring);
        close(q->event_fd);
    }
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->work);
    pthread_cond_destroy(&q->finished_some);
    q->magic = 0;
    free(q);
}
