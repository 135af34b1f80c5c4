/*
 * A machine on a loop whose time the test moves by hand. Everything is deterministic:
 * host time and time of day are `now` and `wall`, timers fire in order of deadline inside
 * fake_advance(), posts run in fake_turn(). Interrupt messages and events are written down.
 */
#ifndef TESTS_MACHINE_FAKE_H
#define TESTS_MACHINE_FAKE_H

#include <pthread.h>

#include "hv/base/endian.h"
#include "hv/base/loop.h"
#include "hv/machine/machine.h"

#define FAKE_MSIS 256u

struct loop_timer {
    struct fake *f;
    void (*fn)(void *arg);
    void *arg;
    uint64_t deadline;              /* UINT64_MAX: not set */
    struct loop_timer *next;
};

struct fake {
    struct loop loop;               /* first: the loop is the fake */
    uint64_t now, wall;
    struct loop_timer *timers;
    struct loop_post *posts;
    unsigned fired;                 /* timers that fired */
    unsigned posted;                /* posts that were queued */
    struct machine *m;
    struct { uint64_t addr; uint32_t data; } msi[FAKE_MSIS];
    unsigned msis;
    unsigned event[3];
};

static int fake_timer_new(struct loop *l, void (*fn)(void *arg), void *arg, struct loop_timer **ret)
{
    struct fake *f = (struct fake *)l;
    struct loop_timer *t = hv_alloc(sizeof(*t));
    if (!t) {
        return -12;
    }
    *t = (struct loop_timer){ f, fn, arg, UINT64_MAX, f->timers };
    f->timers = t;
    *ret = t;
    return 0;
}

static void fake_timer_set(struct loop_timer *t, uint64_t deadline_ns) { t->deadline = deadline_ns; }
static void fake_timer_stop(struct loop_timer *t) { t->deadline = UINT64_MAX; }

static void fake_timer_free(struct loop_timer *t)
{
    struct loop_timer **p = &t->f->timers;
    while (*p != t) {
        p = &(*p)->next;
    }
    *p = t->next;
    free(t);
}

static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;    /* of every fake's posts: any thread posts */

static void fake_post(struct loop *l, struct loop_post *p)
{
    struct fake *f = (struct fake *)l;
    pthread_mutex_lock(&fake_lock);
    f->posted++;
    if (!p->queued) {
        p->queued = true;
        p->next = f->posts;
        f->posts = p;
    }
    pthread_mutex_unlock(&fake_lock);
}

static void fake_post_cancel(struct loop *l, struct loop_post *p)
{
    struct fake *f = (struct fake *)l;
    pthread_mutex_lock(&fake_lock);
    for (struct loop_post **q = &f->posts; *q; q = &(*q)->next) {
        if (*q == p) {
            *q = p->next;
            p->queued = false;
            break;
        }
    }
    pthread_mutex_unlock(&fake_lock);
}

static struct loop_post *fake_take_post(struct fake *f)
{
    pthread_mutex_lock(&fake_lock);
    struct loop_post *p = f->posts;
    if (p) {
        f->posts = p->next;
        p->queued = false;
    }
    pthread_mutex_unlock(&fake_lock);
    return p;
}

/* Run what was posted. */
static HV_UNUSED void fake_turn(struct fake *f)
{
    for (struct loop_post *p; (p = fake_take_post(f));) {
        p->fn(p->arg);
    }
}

static struct loop_timer *fake_earliest(struct fake *f)
{
    struct loop_timer *best = NULL;
    for (struct loop_timer *t = f->timers; t; t = t->next) {
        if (t->deadline != UINT64_MAX && (!best || t->deadline < best->deadline)) {
            best = t;
        }
    }
    return best;
}

/* Move both clocks without letting the loop run: the loop is late. */
static HV_UNUSED void fake_stall(struct fake *f, uint64_t ns)
{
    f->now += ns;
    f->wall += ns;
}

/* Let ns pass, firing every timer at its time. */
static HV_UNUSED void fake_advance(struct fake *f, uint64_t ns)
{
    uint64_t end = f->now + ns;
    for (struct loop_timer *t; (t = fake_earliest(f)) && t->deadline <= end;) {
        if (t->deadline > f->now) {
            fake_stall(f, t->deadline - f->now);
        }
        t->deadline = UINT64_MAX;
        f->fired++;
        t->fn(t->arg);
    }
    fake_stall(f, end - f->now);
    fake_turn(f);
}

static void fake_event(void *arg, enum machine_event ev) { ((struct fake *)arg)->event[ev]++; }

static void fake_msi(void *arg, uint64_t addr, uint32_t data)
{
    struct fake *f = arg;
    f->msi[f->msis % FAKE_MSIS].addr = addr;
    f->msi[f->msis % FAKE_MSIS].data = data;
    f->msis++;
}

static uint64_t fake_now(void *arg) { return ((struct fake *)arg)->now; }
static uint64_t fake_wall(void *arg) { return ((struct fake *)arg)->wall; }

/* A fresh machine with this memory, clock running. Host time starts at 1000 s, the date is 2026-11-20 12:34:56. */
static HV_UNUSED void fake_start_mem(struct fake *f, struct mem *mem)
{
    static const struct loop_ops ops = {
        .timer_new = fake_timer_new, .timer_set = fake_timer_set, .timer_stop = fake_timer_stop,
        .timer_free = fake_timer_free, .post = fake_post, .post_cancel = fake_post_cancel,
    };
    *f = (struct fake){ .loop = { &ops }, .now = 1000 * NS_PER_SEC,
                        .wall = UINT64_C(1795178096) * NS_PER_SEC };
    struct machine_hooks hooks = { fake_event, fake_msi, f, fake_now, fake_wall };
    hv_assert(machine_new(mem, &f->loop, &hooks, &f->m, NULL) == 0);
    machine_clock_resume(f->m);
}

static HV_UNUSED void fake_start(struct fake *f) { fake_start_mem(f, NULL); }

static HV_UNUSED void fake_stop(struct fake *f)
{
    machine_free(f->m);
    hv_assert(!f->timers);
    hv_assert(!f->posts);
}

/* ---- accesses as a vCPU makes them ---- */

static HV_UNUSED uint32_t fake_in(struct fake *f, uint16_t port, unsigned size)
{
    uint8_t b[4] = { 0 };
    machine_pio_in(f->m, port, size, b, 1);
    return get_le32(b);
}

static HV_UNUSED void fake_out(struct fake *f, uint16_t port, unsigned size, uint32_t val)
{
    uint8_t b[4];
    put_le32(b, val);
    machine_pio_out(f->m, port, size, b, 1);
}

static HV_UNUSED uint8_t inb(struct fake *f, uint16_t port) { return (uint8_t)fake_in(f, port, 1); }
static HV_UNUSED void outb(struct fake *f, uint16_t port, uint8_t v) { fake_out(f, port, 1, v); }

static HV_UNUSED uint32_t readl(struct fake *f, gpa_t gpa)
{
    uint8_t b[4];
    machine_mmio_read(f->m, gpa, b, 4);
    return get_le32(b);
}

static HV_UNUSED void writel(struct fake *f, gpa_t gpa, uint32_t v)
{
    uint8_t b[4];
    put_le32(b, v);
    machine_mmio_write(f->m, gpa, b, 4);
}

/* Save from one machine and load into another; 0 or machine_load()'s error. */
static HV_UNUSED int fake_move(struct fake *from, struct fake *to, struct hv_error *e)
{
    struct save_writer w;
    save_init(&w);
    machine_save(from->m, &w);
    hv_assert(save_status(&w) == 0);
    struct load_reader r;
    int n = load_init(&r, w.out.buf, w.out.len, e);
    if (n == 0) {
        n = machine_load(to->m, &r, e);
    }
    save_fini(&w);
    return n;
}

#endif
