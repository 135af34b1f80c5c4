/*
 * What threads ask of a vCPU: flush the TLB, drop code, wake up. See soft.h for the rules.
 */
#include <errno.h>
#include <sched.h>

#include "hv/engine/soft/soft.h"

/* ---- in and out of guest code ---- */

static void flush_if_asked(struct vcpu *v)
{
    uint64_t req = atomic_load(&v->flush_req);
    if (HV_UNLIKELY(req != atomic_load_explicit(&v->flush_ack, memory_order_relaxed))) {
        tlb_flush(&v->cpu, false);
        atomic_store(&v->flush_ack, req);
    }
}

void soft_enter_guest(struct vcpu *v)
{
    atomic_exchange(&v->in_guest, 1);      /* a full barrier before looking at the requests */
    flush_if_asked(v);
}

void soft_leave_guest(struct vcpu *v)
{
    atomic_store_explicit(&v->in_guest, 0, memory_order_release);
}

/* ---- requests ---- */

void soft_wake(struct vcpu *v, uint32_t attention)
{
    atomic_fetch_or(&v->cpu.attention, attention);
    if (atomic_load(&v->parked)) {
        pthread_mutex_lock(&v->lock);
        pthread_cond_signal(&v->cond);
        pthread_mutex_unlock(&v->lock);
    }
}

void soft_flush_post(struct vcpu *v)
{
    atomic_fetch_add(&v->flush_req, 1);
    /* A parked vCPU looks when it comes back: no need to wake it. */
    atomic_fetch_or(&v->cpu.attention, ATT_WORK);
}

void soft_flush_wait(struct soft *s, struct vcpu *self)
{
    if (self)
        soft_leave_guest(self);
    for (unsigned i = 0; i < s->vcpus; i++) {
        struct vcpu *v = s->vcpu[i];
        uint64_t req = atomic_load(&v->flush_req);
        for (unsigned spins = 0; v != self && atomic_load(&v->in_guest) && atomic_load(&v->flush_ack) < req;
             spins++) {
            if (spins < 200)
                __builtin_ia32_pause();
            else
                sched_yield();             /* its thread may be waiting for this host CPU */
        }
    }
    if (self)
        soft_enter_guest(self);
}

static void drop_one(struct vcpu *v, gpa_t gpa, uint64_t len)
{
    pthread_mutex_lock(&v->lock);
    if (v->work_count < SOFT_WORK_MAX) {
        v->work[v->work_count].gpa = gpa;
        v->work[v->work_count++].len = len;
    } else {
        v->work_all = true;
    }
    pthread_mutex_unlock(&v->lock);
    atomic_fetch_or(&v->cpu.attention, ATT_WORK);
}

void soft_forget_post(struct vcpu *v)
{
    block_forget(&v->cpu);
    pthread_mutex_lock(&v->lock);
    v->work_all = true;
    pthread_mutex_unlock(&v->lock);
    atomic_fetch_or(&v->cpu.attention, ATT_WORK);
}

void soft_drop_post(struct soft *s, struct vcpu *self, gpa_t gpa, uint64_t len)
{
    if (!len)
        return;
    /* The writes that made this necessary come before the reads of page->code. */
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t who = 0;
    gpa_t end = (gpa + len - 1) & HV_PAGE_MASK;
    struct soft_slot *slot = NULL;
    for (gpa_t at = gpa & HV_PAGE_MASK;; at += HV_PAGE_SIZE) {
        if (!slot || at - slot->gpa >= slot->len)
            slot = soft_slot_at(s, at);
        if (slot)
            who |= atomic_load_explicit(&slot->page[(at - slot->gpa) >> HV_PAGE_SHIFT].code, memory_order_relaxed);
        if (at == end)
            break;
    }
    for (unsigned i = 0; i < s->vcpus; i++) {
        if (who >> i & 1 && s->vcpu[i] != self)
            drop_one(s->vcpu[i], gpa, len);
    }
}

void soft_do_work(struct vcpu *v)
{
    flush_if_asked(v);
    for (;;) {
        gpa_t gpa = 0;
        uint64_t len = 0;
        pthread_mutex_lock(&v->lock);
        bool all = v->work_all;
        if (all)
            v->work_count = 0;
        v->work_all = false;
        bool one = v->work_count > 0;
        if (one) {
            gpa = v->work[--v->work_count].gpa;
            len = v->work[v->work_count].len;
        }
        pthread_mutex_unlock(&v->lock);
        if (all)
            block_drop_all(&v->cpu);
        else if (one)
            block_drop(&v->cpu, gpa, len);
        else
            return;
        v->code_drops++;
    }
}

/* ---- parking ---- */

/* CLOCK_MONOTONIC time at which the guest TSC reaches `deadline`. */
static uint64_t deadline_ns(struct vcpu *v, uint64_t deadline)
{
    uint64_t now = cpu_tsc(&v->cpu), now_ns = hv_now_ns();
    if (deadline <= now)
        return now_ns;
    unsigned __int128 ns = (unsigned __int128)(deadline - now) * NS_PER_SEC / v->cpu.soft->tsc_hz;
    return ns > 1000 * NS_PER_SEC ? now_ns + 1000 * NS_PER_SEC : now_ns + (uint64_t)ns + 1;
}

void soft_park(struct vcpu *v, uint64_t deadline)
{
    pthread_mutex_lock(&v->lock);
    atomic_store(&v->parked, true);        /* then look at attention: the pair of soft_wake() */
    struct timespec ts;
    if (deadline != UINT64_MAX) {
        uint64_t ns = deadline_ns(v, deadline);
        ts = (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC) };
    }
    while (!(atomic_load(&v->cpu.attention) & ~(uint32_t)ATT_WORK)) {
        int r = deadline == UINT64_MAX ? pthread_cond_wait(&v->cond, &v->lock)
                                       : pthread_cond_timedwait(&v->cond, &v->lock, &ts);
        if (r == ETIMEDOUT)
            break;
    }
    atomic_store(&v->parked, false);
    pthread_mutex_unlock(&v->lock);
}
