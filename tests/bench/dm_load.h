/*
 * What servers of seven kinds need over a day: by the hour, with bursts. The simulator and the
 * recording that hvtop ships draw from it. Sizes in MiB.
 */
#ifndef TESTS_BENCH_DM_LOAD_H
#define TESTS_BENCH_DM_LOAD_H

#include "tests/bench/dm_model.h"

enum { DAY = 86400 };

enum role { IIS, PRINT, FILES, BRANCH, LOGON, VDI, BATCH, ROLE_COUNT };

/* What a role uses in MiB: base, and by the hour of the day a share of `by_day`; bursts on top. */
static const struct role_spec {
    uint32_t count; /* in a mix of 20 */
    uint32_t base, by_day;
    uint32_t burst_every_s; /* mean, in office hours; 4 times as rare at night */
    uint32_t burst_min, burst_max, lasts_min_s, lasts_max_s, ramp_s;
} roles[ROLE_COUNT] = {
    [IIS] = {4, 450, 500, 1200, 200, 700, 30, 180, 3},
    [PRINT] = {3, 300, 80, 600, 150, 500, 15, 60, 2},
    [FILES] = {3, 380, 150, 3600, 60, 200, 300, 900, 60},
    [BRANCH] = {2, 280, 350, 5400, 100, 300, 600, 1800, 300},
    [LOGON] = {2, 500, 700, 1800, 100, 400, 60, 240, 10},
    [VDI] = {5, 320, 800, 900, 150, 800, 60, 600, 5},
    [BATCH] = {1, 250, 50, 28800, 1536, 4096, 300, 1200, 20},
};

/* Per cent of by_day at each hour. */
static const uint8_t day_shape[ROLE_COUNT][24] = {
    [IIS] = {20, 15, 10, 10, 10, 15, 25, 45, 70, 85, 95, 100, 90, 95, 100, 95, 90, 80, 75, 70, 65, 55, 40, 30},
    [PRINT] = {0, 0, 0, 0, 0, 0, 5, 30, 80, 100, 100, 90, 50, 80, 100, 100, 80, 40, 10, 0, 0, 0, 0, 0},
    [FILES] = {10, 10, 20, 20, 10, 10, 20, 50, 90, 100, 100, 90, 70, 90, 100, 90, 80, 50, 30, 20, 20, 10, 10, 10},
    [BRANCH] = {60, 90, 100, 100, 80, 40, 20, 20, 40, 50, 50, 40, 40, 50, 50, 40, 30, 20, 20, 20, 20, 20, 30, 40},
    [LOGON] = {5, 5, 5, 5, 5, 10, 30, 70, 100, 60, 40, 35, 50, 45, 40, 35, 30, 30, 20, 15, 10, 10, 5, 5},
    [VDI] = {0, 0, 0, 0, 0, 0, 5, 30, 85, 100, 100, 95, 60, 90, 100, 100, 90, 60, 30, 15, 10, 5, 0, 0},
    [BATCH] = {100, 100, 100, 100, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50, 100, 100, 100},
};

struct load {
    enum role role;
    uint64_t seed;
    int32_t shift_s; /* nobody's day starts at the same second */
    uint32_t level, from, to;
    uint32_t burst, burst_ends, ramp;
};

static inline void load_init(struct load *l, size_t i, uint64_t seed)
{
    *l = (struct load){.seed = seed * 1000003 + i};
    uint32_t slot = (uint32_t)(i * 7 % 20); /* spread the roles over any prefix of the VMs */
    while (slot >= roles[l->role].count) {
        slot -= roles[l->role++].count;
    }
    l->shift_s = (int32_t)(model_random(&l->seed) % 3600) - 1800;
}

static inline uint32_t between(uint64_t *seed, uint32_t lo, uint32_t hi)
{
    return lo + (uint32_t)(model_random(seed) % (hi - lo + 1));
}

/* MiB in use at a second of the day; called once for every second, in order. */
static inline uint32_t load_at(struct load *l, uint32_t second)
{
    const struct role_spec *r = &roles[l->role];
    uint32_t t = (uint32_t)((int32_t)second + l->shift_s + DAY) % DAY;
    uint32_t hour = t / 3600, part = t % 3600;
    const uint8_t *shape = day_shape[l->role];
    uint32_t pct = (shape[hour] * (3600 - part) + shape[(hour + 1) % 24] * part) / 3600;
    uint32_t mean = r->burst_every_s * (hour >= 7 && hour < 19 ? 1 : 4);
    if (second >= l->burst_ends && model_random(&l->seed) % mean == 0) {
        l->burst = between(&l->seed, r->burst_min, r->burst_max);
        l->burst_ends = second + between(&l->seed, r->lasts_min_s, r->lasts_max_s);
        l->ramp = 0;
    }
    uint32_t now = r->base + r->by_day * pct / 100;
    if (second < l->burst_ends) {
        l->ramp += l->ramp < r->ramp_s;
        now += l->burst * l->ramp / r->ramp_s;
    }
    return now + (uint32_t)(model_random(&l->seed) % 8);
}

#endif
