/* Two rings of samples by time slot. */
#include "hv/base/series.h"

const struct series_point series_unknown = {SERIES_UNKNOWN, SERIES_UNKNOWN, SERIES_CPU_UNKNOWN, SERIES_NONE, 0};

static const struct { uint64_t step_ms; unsigned slots; } levels[SERIES_LEVEL_COUNT] = {
    [SERIES_FINE] = {2000, SERIES_FINE_SLOTS},
    [SERIES_COARSE] = {60000, SERIES_COARSE_SLOTS},
};

uint64_t series_step_ms(enum series_level level) { return levels[level].step_ms; }
unsigned series_slots(enum series_level level) { return levels[level].slots; }

void series_reset(struct series *s)
{
    s->newest[SERIES_FINE] = s->newest[SERIES_COARSE] = 0;
}

static struct series_point *ring(struct series *s, enum series_level level)
{
    return level == SERIES_FINE ? s->fine : s->coarse;
}

void series_set(struct series *s, enum series_level level, uint64_t slot, struct series_point p)
{
    struct series_point *r = ring(s, level);
    unsigned n = levels[level].slots;
    uint64_t newest = s->newest[level];
    if (newest && slot + n <= newest) {
        return;
    }
    if (!newest || slot >= newest + n) {
        for (unsigned i = 0; i < n; i++) {
            r[i] = series_unknown;
        }
    } else {
        for (uint64_t i = newest + 1; i < slot; i++) {     /* slots that were skipped */
            r[i % n] = series_unknown;
        }
    }
    s->newest[level] = MAX(newest, slot);
    r[slot % n] = p;
}

struct series_point series_at(const struct series *s, enum series_level level, uint64_t slot)
{
    unsigned n = levels[level].slots;
    uint64_t newest = s->newest[level];
    if (!newest || slot > newest || slot + n <= newest) {
        return series_unknown;
    }
    return (level == SERIES_FINE ? s->fine : s->coarse)[slot % n];
}

/* The mean of the minute so far. */
static struct series_point add_to_minute(struct series *s, uint64_t slot, struct series_point p)
{
    struct series_point mean = series_unknown;
    if (s->newest[SERIES_COARSE] != slot) {
        memset(&s->minute, 0, sizeof(s->minute));
    } else {
        mean.status = s->coarse[slot % SERIES_COARSE_SLOTS].status;
    }
    if (p.assigned != SERIES_UNKNOWN) {
        s->minute.assigned += p.assigned;
        s->minute.n++;
        s->minute.warning += p.status == SERIES_WARNING;
    }
    if (p.demand != SERIES_UNKNOWN) {
        s->minute.demand += p.demand;
        s->minute.n_demand++;
    }
    if (p.cpu != SERIES_CPU_UNKNOWN) {
        s->minute.cpu += p.cpu;
        s->minute.n_cpu++;
    }
    mean.assigned = s->minute.n ? (uint32_t)(s->minute.assigned / s->minute.n) : SERIES_UNKNOWN;
    mean.demand = s->minute.n_demand ? (uint32_t)(s->minute.demand / s->minute.n_demand) : SERIES_UNKNOWN;
    mean.cpu = s->minute.n_cpu ? (uint16_t)(s->minute.cpu / s->minute.n_cpu) : SERIES_CPU_UNKNOWN;
    mean.status = MAX(mean.status, p.status);
    mean.warning_pct = s->minute.n ? (uint8_t)((100 * s->minute.warning + s->minute.n / 2) / s->minute.n) : 0;
    return mean;
}

void series_put(struct series *s, uint64_t wall_ms, struct series_point p)
{
    uint64_t fine = wall_ms / levels[SERIES_FINE].step_ms, coarse = wall_ms / levels[SERIES_COARSE].step_ms;
    if (coarse + 1 < s->newest[SERIES_COARSE]) {
        series_reset(s);
    }
    if (coarse >= s->newest[SERIES_COARSE]) {
        series_set(s, SERIES_COARSE, coarse, add_to_minute(s, coarse, p));
    }
    series_set(s, SERIES_FINE, fine, p);
}
