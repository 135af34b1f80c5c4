/*
 * A host and its guests as the balancer sees them, one second a step, no hardware: the ledger,
 * and guests that take memory in and give it back at a finite rate. Property tests and the
 * simulator drive the same model. Sizes in MiB.
 */
#ifndef TESTS_BENCH_DM_MODEL_H
#define TESTS_BENCH_DM_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/service/balancer.h"

struct model_vm {
    struct dm_vm dm;
    uint32_t used;        /* what the guest cannot give back, without its own floor */
    uint32_t committed;   /* what its programs asked for (Committed_AS) */
    uint32_t boots_until; /* second of its first report */
    uint32_t inflate;     /* MiB/s it gives back; 0 takes 512 */
    bool refuses;         /* answers every balloon request with nothing */
    uint32_t short_1_in;  /* one balloon request in so many is answered by half; 0 none */

    int32_t op;           /* of the operation in flight: what remains to be moved */
    uint32_t op_asked, op_got;
    bool op_short;
    /* tallies */
    uint64_t seconds, warning, low, unmet, moved, ops, episode, worst_episode;
};

struct model {
    struct model_vm *vm;
    size_t n;
    struct dm_vm *in;
    struct dm_plan *plan;
    struct dm_host host;
    struct dm_host_plan hp;
    uint64_t pool;        /* of all VMs, without overheads */
    uint64_t clock_s;
    uint64_t seed;
    uint32_t *episodes;   /* lengths of ended Warning episodes */
    size_t n_episodes, cap_episodes;
    const char *broken;   /* the first invariant that failed */
};

static inline uint64_t model_random(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static inline void model_init(struct model *m, size_t n, uint64_t pool, uint64_t seed)
{
    *m = (struct model){.n = n, .pool = pool, .seed = seed};
    m->vm = calloc(n + 1, sizeof(*m->vm));
    m->in = calloc(n + 1, sizeof(*m->in));
    m->plan = calloc(n + 1, sizeof(*m->plan));
    for (size_t i = 0; i < n; i++) {
        m->vm[i].dm.id[0] = (uint8_t)(i >> 8);
        m->vm[i].dm.id[1] = (uint8_t)i;
    }
}

static inline void model_fini(struct model *m)
{
    free(m->vm);
    free(m->in);
    free(m->plan);
    free(m->episodes);
}

static inline uint64_t model_charged(const struct model *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->n; i++) {
        sum += m->vm[i].dm.assigned + (m->vm[i].op > 0 ? (uint32_t)m->vm[i].op : 0);
    }
    return sum;
}

/* What the guest would report this second. */
static inline void model_report(struct model_vm *v, uint64_t second)
{
    struct dm_vm *d = &v->dm;
    if (d->state == DM_BOOT && second >= v->boots_until) {
        d->state = DM_ACTIVE;
        dm_settle(&d->memo, second * 1000, DM_SETTLE_MS);
    }
    d->available = d->assigned > v->used ? d->assigned - v->used : 0;
    d->committed = v->committed + dm_guest_floor(d->assigned) + d->ballooned + d->offline;
    d->in_flight = v->op;
}

static inline void model_move(struct model *m, struct model_vm *v)
{
    struct dm_vm *d = &v->dm;
    if (v->op > 0) {
        uint32_t step = (uint32_t)v->op < 2048 ? (uint32_t)v->op : 2048;
        uint32_t back = step < d->ballooned ? step : d->ballooned;
        d->ballooned -= back;
        d->assigned += step;
        v->op -= (int32_t)step;
        v->moved += step;
    } else if (v->op < 0) {
        uint32_t rate = v->inflate ? v->inflate : 512;
        uint32_t step = (uint32_t)-v->op < rate ? (uint32_t)-v->op : rate;
        uint32_t keep = dm_guest_floor(d->assigned) + v->used;
        uint32_t can = d->assigned > keep ? d->assigned - keep : 0;
        bool ends = v->refuses || step > can || v->op_short;
        step = v->refuses ? 0 : step > can ? can : v->op_short ? step / 2 : step;
        step -= step % DM_GRAIN_MIB;
        d->assigned -= step;
        d->ballooned += step;
        v->op_got += step;
        v->op += (int32_t)step;
        v->moved += step;
        if (ends || v->op == 0) {
            v->op = 0;
            dm_answered(&d->memo, m->clock_s * 1000, v->op_asked, v->op_got);
        }
    }
}

static inline void model_tally(struct model *m, struct model_vm *v, bool low)
{
    const struct dm_vm *d = &v->dm;
    if (d->state == DM_BOOT) {
        return;
    }
    v->seconds++;
    uint32_t demand = dm_demand(d);
    bool warning = demand > d->assigned;
    v->unmet += v->used > d->assigned ? v->used - d->assigned : 0;
    v->low += low;
    if (warning) {
        v->warning++;
        v->episode++;
        v->worst_episode = v->episode > v->worst_episode ? v->episode : v->worst_episode;
    } else if (v->episode) {
        if (m->n_episodes == m->cap_episodes) {
            m->cap_episodes = m->cap_episodes ? 2 * m->cap_episodes : 1024;
            m->episodes = realloc(m->episodes, m->cap_episodes * sizeof(*m->episodes));
        }
        m->episodes[m->n_episodes++] = (uint32_t)v->episode;
        v->episode = 0;
    }
}

/* One second under our balancer; the caller has set used and committed of every VM. */
static inline void model_step(struct model *m)
{
    uint64_t now = ++m->clock_s * 1000;
    for (size_t i = 0; i < m->n; i++) {
        model_report(&m->vm[i], m->clock_s);
        m->in[i] = m->vm[i].dm;
    }
    uint64_t charged = model_charged(m);
    if (charged > m->pool) {
        m->broken = "I1: charges exceed the pool";
    }
    m->host.now = now;
    m->host.pool = m->pool;
    m->host.free = m->pool > charged ? m->pool - charged : 0;
    if (dm_plan(&m->host, m->in, m->n, m->plan, &m->hp) != 0) {
        m->broken = "dm_plan failed";
        return;
    }
    m->host.memo = m->hp.memo;
    uint64_t granted = 0;
    for (size_t i = 0; i < m->n; i++) {
        struct model_vm *v = &m->vm[i];
        const struct dm_plan *p = &m->plan[i];
        v->dm.memo = p->memo;
        if (p->action == DM_KEEP) {
            if (p->amount != 0) {
                m->broken = "an amount without an action";
            }
            continue;
        }
        v->ops++;
        if (p->amount == 0 || p->amount % DM_GRAIN_MIB) {
            m->broken = "an operation of no, or of an odd, size";
        }
        if (p->action == DM_GROW) {
            granted += p->amount;
            if (v->dm.assigned + p->amount > v->dm.max) {
                m->broken = "I2: grown beyond the maximum";
            }
            if (p->hot_add % DM_HOT_ADD_MIB || (p->hot_add && !v->dm.can_hot_add)) {
                m->broken = "a hot-add the guest cannot take";
            }
            v->op = (int32_t)p->amount;
        } else {
            uint32_t keep = dm_guest_floor(v->dm.assigned);
            if (p->amount + keep > v->dm.available) {
                m->broken = "I10: asked for more than the guest has free";
            }
            if (v->dm.assigned - p->amount < v->dm.min) {
                m->broken = "I2: taken below the minimum";
            }
            v->op = -(int32_t)p->amount;
            v->op_asked = p->amount;
            v->op_got = 0;
            v->op_short = v->short_1_in && model_random(&m->seed) % v->short_1_in == 0;
        }
    }
    if (granted > m->host.free) {
        m->broken = "I11: more granted than free";
    }
    for (size_t i = 0; i < m->n; i++) {
        model_move(m, &m->vm[i]);
        model_report(&m->vm[i], m->clock_s);
        model_tally(m, &m->vm[i], m->plan[i].status == DM_LOW);
    }
}

#endif
