/*
 * An abstract event loop: descriptors, timers and posts from other threads.
 * Rooms below rpc see only this; hv/rpc/loop_uv.c implements it on libuv.
 * Callbacks run on the loop's thread, one at a time.
 */
#ifndef HV_BASE_LOOP_H
#define HV_BASE_LOOP_H

#include "hv/base/base.h"

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

struct loop;
struct loop_fd;
struct loop_timer;

/* A post is embedded in its owner and coalesces: posting it twice before it runs runs it once. */
struct loop_post {
    void (*fn)(void *arg);
    void *arg;
    struct loop_post *next;
    bool queued;                 /* guarded by the loop's queue lock */
};

struct loop_ops {
    int (*fd_new)(struct loop *l, int fd, unsigned events, void (*fn)(void *arg, unsigned events),
                  void *arg, struct loop_fd **ret);
    void (*fd_set)(struct loop_fd *f, unsigned events);
    void (*fd_free)(struct loop_fd *f);
    int (*timer_new)(struct loop *l, void (*fn)(void *arg), void *arg, struct loop_timer **ret);
    void (*timer_set)(struct loop_timer *t, uint64_t deadline_ns);
    void (*timer_stop)(struct loop_timer *t);
    void (*timer_free)(struct loop_timer *t);
    void (*post)(struct loop *l, struct loop_post *p);
    void (*post_cancel)(struct loop *l, struct loop_post *p);
};
struct loop { const struct loop_ops *ops; };

/* Watch fd; it stays the caller's. Loop thread only, as fd_set and fd_free. */
static inline int loop_fd_new(struct loop *l, int fd, unsigned events,
                              void (*fn)(void *arg, unsigned events), void *arg, struct loop_fd **ret)
{ return l->ops->fd_new(l, fd, events, fn, arg, ret); }
static inline void loop_fd_set(struct loop *l, struct loop_fd *f, unsigned events)
{ l->ops->fd_set(f, events); }
static inline void loop_fd_free(struct loop *l, struct loop_fd *f)
{ if (f) l->ops->fd_free(f); }

/*
 * One-shot timers. timer_new and timer_free: loop thread, or before it runs and
 * after it stopped. timer_set and timer_stop: any thread; a stopped timer may
 * still fire once if it was already running, so callbacks re-check their state.
 * deadline_ns is hv_now_ns() time; one in the past fires at the next turn.
 */
static inline int loop_timer_new(struct loop *l, void (*fn)(void *arg), void *arg, struct loop_timer **ret)
{ return l->ops->timer_new(l, fn, arg, ret); }
static inline void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline_ns)
{ l->ops->timer_set(t, deadline_ns); }
static inline void loop_timer_stop(struct loop *l, struct loop_timer *t) { l->ops->timer_stop(t); }
static inline void loop_timer_free(struct loop *l, struct loop_timer *t)
{ if (t) l->ops->timer_free(t); }

/* Run p->fn on the loop's thread soon. Any thread. post_cancel: loop thread. */
static inline void loop_post(struct loop *l, struct loop_post *p) { l->ops->post(l, p); }
static inline void loop_post_cancel(struct loop *l, struct loop_post *p) { l->ops->post_cancel(l, p); }

#endif
