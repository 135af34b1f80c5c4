/*
 * What a virtual machine had and needed over time: two rings of samples, each slot a fixed
 * span of the wall clock.
 *
 *   fine     15 minutes in slots of 2 s
 *   coarse   24 hours in slots of 1 minute: the mean of what came, the worst status
 *
 * A slot nobody filled is unknown. hvd keeps one series a VM, and hvtop a copy of it.
 */
#ifndef HV_BASE_SERIES_H
#define HV_BASE_SERIES_H

#include "hv/base/base.h"

#define SERIES_UNKNOWN UINT32_MAX
#define SERIES_CPU_UNKNOWN UINT16_MAX

enum series_level { SERIES_FINE, SERIES_COARSE, SERIES_LEVEL_COUNT };
enum series_status { SERIES_NONE, SERIES_OK, SERIES_LOW, SERIES_WARNING };
enum { SERIES_FINE_SLOTS = 450, SERIES_COARSE_SLOTS = 1440 };

struct series_point {
    uint32_t assigned, demand;      /* MiB, or SERIES_UNKNOWN */
    uint16_t cpu;                   /* tenths of a per cent, or SERIES_CPU_UNKNOWN */
    uint8_t status;                 /* enum series_status; of a minute the worst */
    uint8_t warning_pct;            /* of a minute: share of its samples that were in Warning */
};

struct series {
    uint64_t newest[SERIES_LEVEL_COUNT];           /* slot number: time / step; 0: empty */
    struct series_point fine[SERIES_FINE_SLOTS];   /* by slot number modulo the count */
    struct series_point coarse[SERIES_COARSE_SLOTS];
    struct { uint64_t assigned, demand, cpu; uint32_t n, n_demand, n_cpu, warning; } minute;
};

extern const struct series_point series_unknown;

/* Length of a slot in milliseconds: 2000, 60000. */
uint64_t series_step_ms(enum series_level level);
unsigned series_slots(enum series_level level);

/* Empty it. A series that is all zero is empty as well. */
void series_reset(struct series *s);

/* The sample taken at wall_ms goes into both rings. A clock that was set back by more than the rings hold empties them. */
void series_put(struct series *s, uint64_t wall_ms, struct series_point p);

/* Put one slot of one ring, for copying a series; what is older than the ring is dropped. */
void series_set(struct series *s, enum series_level level, uint64_t slot, struct series_point p);

/* The sample of a slot, series_unknown where there is none. */
struct series_point series_at(const struct series *s, enum series_level level, uint64_t slot);

#endif
