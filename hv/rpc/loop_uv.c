/*
 * The abstract loop of hv/base/loop.h on libuv.
 *
 * Descriptors are uv_poll handles. Posts are a locked list and one uv_async. Timers
 * are ours: a locked heap and one timerfd, because libuv's may only be set on the
 * loop's thread and tick in milliseconds; setting one from a vCPU thread is a lock
 * and, if it became the earliest, one timerfd_settime.
 *
 * Locks: `lock` guards heap, firing list and post queue; no callback runs under it.
 */
#include "hv/rpc/loop_uv.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

#define LOOP_MAGIC 0x6c6f6f70u

struct loop_uv {
    struct loop base;
    uint32_t magic;
    uv_loop_t uv;
    uv_async_t wake;
    uv_poll_t timer_poll;
    int timer_fd;
    _Atomic bool stop;

    pthread_mutex_t lock;
    struct loop_timer **heap;          /* heap[heap_len], earliest first */
    unsigned heap_len, heap_cap, timer_count;
    struct loop_timer *firing;         /* expired in this turn, not yet called */
    uint64_t armed_ns;                 /* what timer_fd is set to; 0: nothing */
    struct loop_post *post_first, **post_last;
    size_t post_count;
};

struct loop_fd {
    uv_poll_t poll;
    void (*fn)(void *arg, unsigned events);
    void *arg;
    unsigned events;
};

enum timer_state { TIMER_IDLE, TIMER_HEAP, TIMER_FIRING };

struct loop_timer {
    struct loop_uv *l;
    void (*fn)(void *arg);
    void *arg;
    enum timer_state state;
    unsigned pos;                      /* in the heap */
    uint64_t deadline_ns;
    struct loop_timer *next, **prev;   /* in the firing list */
};

struct signal_watch {
    uv_signal_t handle;
    void (*fn)(void *arg, int signum);
    void *arg;
};

static struct loop_uv *of(struct loop *l)
{
    struct loop_uv *lu = CONTAINER_OF(l, struct loop_uv, base);

    HV_CHECK(lu, LOOP_MAGIC);
    return lu;
}

/* Every watcher struct begins with its handle, so one callback frees them all. */
static void free_handle(uv_handle_t *h)
{
    free(h);
}

/* ---- descriptors ---- */

static int uv_events(unsigned events)
{
    return (events & LOOP_READ ? UV_READABLE : 0) | (events & LOOP_WRITE ? UV_WRITABLE : 0);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct loop_fd *f = (struct loop_fd *)h;
    unsigned got = (events & UV_READABLE ? LOOP_READ : 0) | (events & UV_WRITABLE ? LOOP_WRITE : 0);

    if (status < 0) {
        /*
         * EPOLLERR: a reset connection, with data before the reset perhaps. libuv has
         * stopped the handle; the owner's own reads see the data, then the error.
         */
        got = f->events;
        if (got) {
            hv_assert(uv_poll_start(&f->poll, uv_events(got), on_poll) == 0);
        }
    }
    got &= f->events;
    if (got) {
        f->fn(f->arg, got);
    }
}

static void fd_set_events(struct loop_fd *f, unsigned events)
{
    f->events = events;
    int r = events ? uv_poll_start(&f->poll, uv_events(events), on_poll) : uv_poll_stop(&f->poll);
    hv_assert(r == 0);
}

static int fd_new(struct loop *l, int fd, unsigned events, void (*fn)(void *arg, unsigned events), void *arg,
                  struct loop_fd **ret)
{
    struct loop_fd *f = hv_alloc(sizeof(*f));

    if (!f) {
        return -ENOMEM;
    }
    f->fn = fn;
    f->arg = arg;
    int r = uv_poll_init(&of(l)->uv, &f->poll, fd);
    if (r < 0) {
        free(f);
        return r;
    }
    fd_set_events(f, events);
    *ret = f;
    return 0;
}

static void fd_free(struct loop_fd *f)
{
    f->events = 0;
    uv_close((uv_handle_t *)&f->poll, free_handle);
}

/* ---- timers ---- */

static void place(struct loop_uv *l, unsigned pos, struct loop_timer *t)
{
    l->heap[pos] = t;
    t->pos = pos;
}

static void sift_up(struct loop_uv *l, unsigned pos)
{
    struct loop_timer *t = l->heap[pos];

    while (pos > 0 && l->heap[(pos - 1) / 2]->deadline_ns > t->deadline_ns) {
        place(l, pos, l->heap[(pos - 1) / 2]);
        pos = (pos - 1) / 2;
    }
    place(l, pos, t);
}

static void sift_down(struct loop_uv *l, unsigned pos)
{
    struct loop_timer *t = l->heap[pos];

    for (;;) {
        unsigned child = 2 * pos + 1;
        if (child + 1 < l->heap_len && l->heap[child + 1]->deadline_ns < l->heap[child]->deadline_ns) {
            child++;
        }
        if (child >= l->heap_len || l->heap[child]->deadline_ns >= t->deadline_ns) {
            break;
        }
        place(l, pos, l->heap[child]);
        pos = child;
    }
    place(l, pos, t);
}

/* Take a timer out of wherever it is. */
static void unlink_timer(struct loop_timer *t)
{
    struct loop_uv *l = t->l;

    if (t->state == TIMER_HEAP) {
        unsigned pos = t->pos;
        struct loop_timer *last = l->heap[--l->heap_len];
        if (last != t) {
            place(l, pos, last);
            sift_up(l, pos);
            sift_down(l, last->pos);
        }
    } else if (t->state == TIMER_FIRING) {
        *t->prev = t->next;
        if (t->next) {
            t->next->prev = t->prev;
        }
    }
    t->state = TIMER_IDLE;
}

/*
 * Set timer_fd to the earliest deadline. Later than needed is never allowed; earlier
 * is (a stopped timer may leave it so) and costs one empty turn.
 */
static void arm(struct loop_uv *l)
{
    if (l->heap_len == 0 || (l->armed_ns && l->armed_ns <= l->heap[0]->deadline_ns)) {
        return;
    }
    uint64_t at = MAX(l->heap[0]->deadline_ns, 1);   /* 0 would disarm */
    struct itimerspec its = { .it_value = { .tv_sec = (time_t)(at / NS_PER_SEC), .tv_nsec = (long)(at % NS_PER_SEC) } };

    l->armed_ns = at;
    hv_assert(timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &its, NULL) == 0);
}

static void on_timer_fd(uv_poll_t *h, int status, int events)
{
    struct loop_uv *l = h->data;
    uint64_t ticks, now;
    struct loop_timer **link = &l->firing;

    pthread_mutex_lock(&l->lock);
    while (read(l->timer_fd, &ticks, sizeof(ticks)) < 0 && errno == EINTR) {
    }
    l->armed_ns = 0;
    now = hv_now_ns();
    /* first move all that expired, so that one that sets itself again waits for the next turn */
    while (l->heap_len && l->heap[0]->deadline_ns <= now) {
        struct loop_timer *t = l->heap[0];
        unlink_timer(t);
        t->state = TIMER_FIRING;
        t->next = NULL;
        t->prev = link;
        *link = t;
        link = &t->next;
    }
    while (l->firing) {
        struct loop_timer *t = l->firing;
        void (*fn)(void *arg) = t->fn;
        void *arg = t->arg;
        unlink_timer(t);
        pthread_mutex_unlock(&l->lock);
        fn(arg);                       /* may free t or any other timer */
        pthread_mutex_lock(&l->lock);
    }
    arm(l);
    pthread_mutex_unlock(&l->lock);
}

static int timer_new(struct loop *base, void (*fn)(void *arg), void *arg, struct loop_timer **ret)
{
    struct loop_uv *l = of(base);
    struct loop_timer *t = hv_alloc(sizeof(*t));
    int r = 0;

    if (!t) {
        return -ENOMEM;
    }
    *t = (struct loop_timer){ .l = l, .fn = fn, .arg = arg };
    pthread_mutex_lock(&l->lock);
    /* room for every timer there is: setting one cannot fail */
    if (l->timer_count == l->heap_cap) {
        unsigned cap = MAX(16, l->heap_cap * 2);
        struct loop_timer **p = hv_realloc_array(l->heap, cap, sizeof(struct loop_timer *));
        if (p) {
            l->heap = p;
            l->heap_cap = cap;
        } else {
            r = -ENOMEM;
        }
    }
    if (r == 0) {
        l->timer_count++;
    }
    pthread_mutex_unlock(&l->lock);
    if (r < 0) {
        free(t);
        return r;
    }
    *ret = t;
    return 0;
}

static void timer_set(struct loop_timer *t, uint64_t deadline_ns)
{
    struct loop_uv *l = t->l;

    pthread_mutex_lock(&l->lock);
    unlink_timer(t);
    t->deadline_ns = MIN(deadline_ns, (uint64_t)INT64_MAX);
    t->state = TIMER_HEAP;
    place(l, l->heap_len++, t);
    sift_up(l, t->pos);
    arm(l);
    pthread_mutex_unlock(&l->lock);
}

static void timer_stop(struct loop_timer *t)
{
    pthread_mutex_lock(&t->l->lock);
    unlink_timer(t);
    pthread_mutex_unlock(&t->l->lock);
}

static void timer_free(struct loop_timer *t)
{
    pthread_mutex_lock(&t->l->lock);
    unlink_timer(t);
    t->l->timer_count--;
    pthread_mutex_unlock(&t->l->lock);
    free(t);
}

/* ---- posts ---- */

static void post(struct loop *base, struct loop_post *p)
{
    struct loop_uv *l = of(base);

    pthread_mutex_lock(&l->lock);
    bool first = !l->post_first;
    bool add = !p->queued;
    if (add) {
        p->queued = true;
        p->next = NULL;
        *l->post_last = p;
        l->post_last = &p->next;
        l->post_count++;
    }
    pthread_mutex_unlock(&l->lock);
    if (add && first) {
        uv_async_send(&l->wake);
    }
}

static void post_cancel(struct loop *base, struct loop_post *p)
{
    struct loop_uv *l = of(base);

    pthread_mutex_lock(&l->lock);
    for (struct loop_post **link = &l->post_first; p->queued && *link; link = &(*link)->next) {
        if (*link == p) {
            *link = p->next;
            if (l->post_last == &p->next) {
                l->post_last = link;
            }
            p->queued = false;
            l->post_count--;
            break;
        }
    }
    pthread_mutex_unlock(&l->lock);
}

static void on_wake(uv_async_t *h)
{
    struct loop_uv *l = h->data;
    struct loop_post *p;

    if (atomic_load(&l->stop)) {
        uv_stop(&l->uv);
        return;                        /* what is queued runs when the loop runs again */
    }
    /* as many as there are now: a post that posts itself again runs next turn, after I/O */
    pthread_mutex_lock(&l->lock);
    for (size_t n = l->post_count; n > 0 && (p = l->post_first) != NULL; n--) {
        void (*fn)(void *arg) = p->fn;
        void *arg = p->arg;
        l->post_first = p->next;
        if (!l->post_first) {
            l->post_last = &l->post_first;
        }
        l->post_count--;
        p->queued = false;
        pthread_mutex_unlock(&l->lock);
        fn(arg);                       /* may free p */
        pthread_mutex_lock(&l->lock);
    }
    bool more = l->post_first != NULL;
    pthread_mutex_unlock(&l->lock);
    if (more) {
        uv_async_send(&l->wake);
    }
}

static void set_fd(struct loop_fd *f, unsigned events)
{
    if (events != f->events) {
        fd_set_events(f, events);
    }
}

static const struct loop_ops ops = {
    .fd_new = fd_new,
    .fd_set = set_fd,
    .fd_free = fd_free,
    .timer_new = timer_new,
    .timer_set = timer_set,
    .timer_stop = timer_stop,
    .timer_free = timer_free,
    .post = post,
    .post_cancel = post_cancel,
};

/* ---- life of the loop ---- */

static int start_handles(struct loop_uv *l)
{
    int r = uv_async_init(&l->uv, &l->wake, on_wake);

    if (r == 0) {
        l->wake.data = l;
        r = uv_poll_init(&l->uv, &l->timer_poll, l->timer_fd);
    }
    if (r == 0) {
        l->timer_poll.data = l;
        r = uv_poll_start(&l->timer_poll, UV_READABLE, on_timer_fd);
    }
    return r;
}

static void close_embedded_or_free(uv_handle_t *h, void *arg)
{
    struct loop_uv *l = arg;
    bool embedded = h == (uv_handle_t *)&l->wake || h == (uv_handle_t *)&l->timer_poll;

    if (!uv_is_closing(h)) {
        uv_close(h, embedded ? NULL : free_handle);
    }
}

static void destroy(struct loop_uv *l)
{
    uv_walk(&l->uv, close_embedded_or_free, l);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    hv_assert(uv_loop_close(&l->uv) == 0);
    close(l->timer_fd);
    pthread_mutex_destroy(&l->lock);
    free(l->heap);
    l->magic = 0;
    free(l);
}

int loop_uv_new(struct loop **ret)
{
    struct loop_uv *l = hv_alloc(sizeof(*l));

    if (!l) {
        return -ENOMEM;
    }
    *l = (struct loop_uv){ .base.ops = &ops, .magic = LOOP_MAGIC };
    l->post_last = &l->post_first;
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (l->timer_fd < 0) {
        int r = -errno;
        free(l);
        return r;
    }
    pthread_mutex_init(&l->lock, NULL);
    int r = uv_loop_init(&l->uv);
    if (r < 0) {
        close(l->timer_fd);
        pthread_mutex_destroy(&l->lock);
        free(l);
        return r;
    }
    r = start_handles(l);
    if (r < 0) {
        destroy(l);
        return r;
    }
    *ret = &l->base;
    return 0;
}

void loop_uv_free(struct loop *l)
{
    if (l) {
        hv_assert(of(l)->timer_count == 0);     /* a timer outliving its loop is our bug */
        destroy(of(l));
    }
}

void loop_uv_run(struct loop *base)
{
    struct loop_uv *l = of(base);

    while (!atomic_exchange(&l->stop, false)) {
        /* what was posted while it stood still had its wake-up swallowed by the stop */
        uv_async_send(&l->wake);
        uv_run(&l->uv, UV_RUN_DEFAULT);
    }
}

void loop_uv_stop(struct loop *base)
{
    struct loop_uv *l = of(base);

    atomic_store(&l->stop, true);
    uv_async_send(&l->wake);
}

/* ---- signals and processes ---- */

static void on_signal(uv_signal_t *h, int signum)
{
    struct signal_watch *w = (struct signal_watch *)h;

    w->fn(w->arg, signum);
}

int loop_uv_signal(struct loop *l, int signum, void (*fn)(void *arg, int signum), void *arg)
{
    struct signal_watch *w = hv_alloc(sizeof(*w));

    if (!w) {
        return -ENOMEM;
    }
    w->fn = fn;
    w->arg = arg;
    int r = uv_signal_init(&of(l)->uv, &w->handle);
    if (r < 0) {
        free(w);
        return r;
    }
    r = uv_signal_start(&w->handle, on_signal, signum);
    if (r < 0) {
        uv_close((uv_handle_t *)&w->handle, free_handle);
    }
    return r;
}

struct pidfd_watch {
    uv_poll_t handle;
    void (*fn)(void *arg);
    void *arg;
};

static void on_pidfd(uv_poll_t *h, int status, int events)
{
    struct pidfd_watch *w = (struct pidfd_watch *)h;
    void (*fn)(void *arg) = w->fn;
    void *arg = w->arg;

    uv_close((uv_handle_t *)h, free_handle);
    fn(arg);
}

int loop_uv_pidfd(struct loop *l, int pidfd, void (*fn)(void *arg), void *arg)
{
    struct pidfd_watch *w = hv_alloc(sizeof(*w));

    if (!w) {
        return -ENOMEM;
    }
    w->fn = fn;
    w->arg = arg;
    int r = uv_poll_init(&of(l)->uv, &w->handle, pidfd);
    if (r < 0) {
        free(w);
        return r;
    }
    r = uv_poll_start(&w->handle, UV_READABLE, on_pidfd);
    if (r < 0) {
        uv_close((uv_handle_t *)&w->handle, free_handle);
    }
    return r;
}
