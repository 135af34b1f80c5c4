/*
 * Counter tables. A room describes its counters once; the worker reports them as
 * columns then rows, hvtop and metrics name them from the same table.
 */
#ifndef HV_BASE_STATS_H
#define HV_BASE_STATS_H

#include "hv/base/base.h"

enum stats_kind { STATS_COUNTER, STATS_GAUGE };
struct stats_desc { const char *name, *unit, *help; enum stats_kind kind; };

struct stats_table {
    const char *group;                 /* "exits", "uart0" */
    const struct stats_desc *desc;     /* desc[count] */
    unsigned count;
    _Atomic uint64_t *value;           /* value[count], owned by the room; relaxed accesses */
    struct stats_table *next;
};
struct stats_registry { struct stats_table *first; };

void stats_register(struct stats_registry *r, struct stats_table *t);
static inline void stats_add(struct stats_table *t, unsigned i, uint64_t n)
{
    __atomic_fetch_add((uint64_t *)&t->value[i], n, __ATOMIC_RELAXED);
}
uint64_t stats_read(const struct stats_table *t, unsigned i);
/* Calls fn once for every counter, "group.name". */
void stats_each(const struct stats_registry *r,
                void (*fn)(void *arg, const struct stats_table *t, unsigned i, uint64_t value), void *arg);

#endif
