/* Registry of counter tables: a list in order of registration. */
#include "hv/base/stats.h"

void stats_register(struct stats_registry *r, struct stats_table *t)
{
    struct stats_table **link = &r->first;

    while (*link) {
        hv_assert(*link != t);
        link = &(*link)->next;
    }
    t->next = NULL;
    *link = t;
}

uint64_t stats_read(const struct stats_table *t, unsigned i)
{
    hv_assert(i < t->count);
    return __atomic_load_n((uint64_t *)&t->value[i], __ATOMIC_RELAXED);
}

void stats_each(const struct stats_registry *r,
                void (*fn)(void *arg, const struct stats_table *t, unsigned i, uint64_t value), void *arg)
{
    for (const struct stats_table *t = r->first; t; t = t->next) {
        for (unsigned i = 0; i < t->count; i++) {
            fn(arg, t, i, stats_read(t, i));
        }
    }
}
