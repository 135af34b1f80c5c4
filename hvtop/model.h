/*
 * What hvtop knows: hosts, their VMs, what each had over time, events. It is fed messages, JSON
 * objects that are the lines of a recording as well (hvrec(5)), whoever they come from:
 *
 *   {"host": 0, "name": "vmhost1", "columns": [...]}           who it is, what rows hold
 *   {"host": 0, "time_ms": T, "rows": [[...]], "info": {...}}  a sample
 *   {"host": 0, "time_ms": T, "event": {...}}
 *   {"host": 0, "time_ms": T, "down": "why"}                   it does not answer
 *   {"host": 0, "history": {...}}                              a reply of org.hv.Manager.History
 *
 * Nothing here draws, waits or reads a clock. One thread.
 */
#ifndef HVTOP_MODEL_H
#define HVTOP_MODEL_H

#include <jansson.h>

#include "hv/base/error.h"
#include "hv/base/series.h"

#define MODEL_HOSTS_MAX 64
#define MODEL_VMS_MAX 16384         /* a recording can claim more; they are left out */
#define MODEL_EVENTS_MAX 1000

struct model_host {
    char name[128];                 /* what it calls itself; until then what it was asked for as */
    bool known, up;
    char error[256];                /* why it is down */
    json_t *columns;                /* names of what rows hold */
    const char **group, **key;      /* [n_columns]: where each goes in a VM's row */
    size_t n_columns;
    json_t *info;                   /* host object of the last sample */
    uint64_t sample_ms;             /* wall clock of the last sample, its own */
    unsigned samples;
    struct series series;           /* cpu: the host's; assigned and demand: sums over its VMs */
};

struct model_vm {
    unsigned host;
    char *name;
    json_t *row;                    /* keys nested by noun, as hvctl's JSON; "time", "host" added */
    struct series series;
    bool marked;
    unsigned seen;                  /* host's `samples` when it was in one; else it is gone */
};

struct model_event { unsigned host; uint64_t time_ms; json_t *event; };

struct model {
    struct model_host host[MODEL_HOSTS_MAX];
    unsigned n_hosts;
    struct model_vm **vm;           /* sorted by host, then name */
    size_t n_vms, cap_vms;
    struct model_event event[MODEL_EVENTS_MAX];   /* a ring, oldest at event_first */
    unsigned event_first, n_events;
    uint64_t now_ms;                /* the newest time of any message */
    uint64_t generation;            /* goes up with every change */
};

/* hosts: how many there are; names[] (may be NULL) what they were asked for as. */
void model_init(struct model *m, const char *const *names, unsigned hosts);
void model_fini(struct model *m);

/* Take in a message (borrowed). 0, or -EPROTO: it is none, and nothing changed. */
int model_apply(struct model *m, const json_t *msg);

/* Forget VMs' samples and events: a replay jumps. Marks stay. */
void model_forget(struct model *m);

/* NULL if there is none. */
struct model_vm *model_find(const struct model *m, unsigned host, const char *name);
/* A number of a VM's row; NAN where it is unknown. */
double model_number(const struct model_vm *vm, const char *group, const char *key);
const char *model_text(const struct model_vm *vm, const char *group, const char *key);   /* "" where unknown */
const struct model_event *model_event_at(const struct model *m, unsigned i);             /* 0: oldest */

/* What a host's VMs have, together. Bytes. */
struct model_sums { uint64_t assigned, demand, buffer_wanted; unsigned vms, running, paused, off; };
struct model_sums model_sum(const struct model *m, unsigned host);

#endif
