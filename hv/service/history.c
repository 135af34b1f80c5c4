/*
 * What VMs and the host had and needed: 15 minutes at 2 s and 24 hours at a minute, in memory,
 * so that a monitor that opens now can draw what was before.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "hv/base/series.h"
#include "hv/base/units.h"
#include "hv/service/service.h"

#define TICK_MS 2000
#define CHANGE_MS 3600000               /* `change`: assigned now less what it was so long ago */
#define HOST_SERIES ""                  /* the name by which the host's own series is asked for */

struct history {
    struct loop_timer *timer;
    struct series host;
    uint64_t cpu_busy, cpu_all;         /* ticks of /proc/stat at the last look */
    double cpu_pct;                     /* < 0: not known yet */
};

/* A point's status is the balancer's, by number. */
static_assert((int)SERIES_NONE == (int)DM_UNKNOWN && (int)SERIES_OK == (int)DM_OK && (int)SERIES_LOW == (int)DM_LOW &&
              (int)SERIES_WARNING == (int)DM_WARNING, "series.h and balancer.h");

static struct series_point point_of(const struct svc_vm *vm)
{
    const struct dm_plan *plan = &vm->balance.plan;
    struct series_point p = series_unknown;
    if (vm->memory.known) {
        p.assigned = (uint32_t)MIN(vm->memory.assigned / MIB, (uint64_t)SERIES_UNKNOWN - 1);
        p.cpu = (uint16_t)MIN(vm->cpu_pct * 10 + 0.5, 60000);
    }
    if (vm->memory.known && vm->balance.planned && plan->status != DM_UNKNOWN) {
        p.demand = MIN(plan->demand, SERIES_UNKNOWN - 1);
        p.status = (uint8_t)plan->status;
    }
    return p;
}

/* Busy and all ticks of all CPUs since boot (proc(5), /proc/stat: user nice system idle iowait ...). */
static void look_at_cpu(struct history *h)
{
    hv_autofree char *text = NULL;
    uint64_t v[8] = {0}, all = 0;
    if (hv_read_file("/proc/stat", MIB, &text, NULL) < 0)
        return;
    const char *at = strncmp(text, "cpu ", 4) == 0 ? text + 4 : "";
    for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
        char *end;
        v[i] = strtoull(at, &end, 10);
        at = end;
        all += v[i];
    }
    uint64_t busy = all - v[3] - v[4];
    if (h->cpu_all && all > h->cpu_all)
        h->cpu_pct = busy > h->cpu_busy ? 100.0 * (double)(busy - h->cpu_busy) / (double)(all - h->cpu_all) : 0;
    h->cpu_busy = busy;
    h->cpu_all = all;
}

static void tick(void *arg)
{
    struct service *svc = arg;
    struct history *h = svc->history;
    uint64_t wall = hv_wall_ns() / NS_PER_MS;
    struct series_point sum = {0, 0, SERIES_CPU_UNKNOWN, SERIES_NONE, 0};
    look_at_cpu(h);
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        if (vm->state == SVC_OFF)
            continue;
        if (!vm->series)
            vm->series = hv_alloc(sizeof(*vm->series));
        if (!vm->series)
            continue;
        struct series_point p = point_of(vm);
        series_put(vm->series, wall, p);
        sum.assigned += p.assigned != SERIES_UNKNOWN ? p.assigned : 0;
        sum.demand += p.demand != SERIES_UNKNOWN ? p.demand : 0;
        sum.status = MAX(sum.status, p.status);
    }
    if (h->cpu_pct >= 0)
        sum.cpu = (uint16_t)MIN(h->cpu_pct * 10 + 0.5, 1000);
    series_put(&h->host, wall, sum);
    /* In the middle of a slot: a timer that is early or late stays within it. */
    uint64_t next = TICK_MS + TICK_MS / 2 - wall % TICK_MS;
    loop_timer_set(svc->loop, h->timer, hv_now_ns() + next * NS_PER_MS);
}

int history_start(struct service *svc)
{
    struct history *h = svc->history = hv_alloc(sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->cpu_pct = -1;
    int r = loop_timer_new(svc->loop, tick, svc, &h->timer);
    if (r == 0)
        loop_timer_set(svc->loop, h->timer, hv_now_ns());
    return r;
}

void history_stop(struct service *svc)
{
    if (svc->history) {
        loop_timer_free(svc->loop, svc->history->timer);
        free(svc->history);
        svc->history = NULL;
    }
}

json_t *history_change(const struct svc_vm *vm)
{
    const json_t *m = json_object_get(vm->runtime, "memory");
    uint64_t then = (hv_wall_ns() / NS_PER_MS - CHANGE_MS) / series_step_ms(SERIES_COARSE);
    if (!m || !vm->series)
        return json_null();
    struct series_point p = series_at(vm->series, SERIES_COARSE, then);
    if (p.assigned == SERIES_UNKNOWN)
        return json_null();
    return json_integer(json_integer_value(json_object_get(m, "assigned")) - (json_int_t)(p.assigned * MIB));
}

void history_host_json(struct service *svc, json_t *host)
{
    hv_autofree char *text = NULL;
    double pct = svc->history ? svc->history->cpu_pct : -1;
    json_object_set_new(host, "cpu_pct", pct >= 0 ? json_real((double)(int)(pct * 10 + 0.5) / 10) : json_null());
    if (hv_read_file("/proc/uptime", 128, &text, NULL) == 0)
        json_object_set_new(host, "uptime_s", json_integer((json_int_t)strtoull(text, NULL, 10)));
    json_object_set_new(host, "balancer", json_string(balance_word(svc)));
    host_load_json("", host);
}

/* ---- org.hv.Manager.History ---- */

static json_t *value(uint32_t mib)
{
    return mib == SERIES_UNKNOWN ? json_null() : json_integer((json_int_t)(mib * MIB));
}

/* One series from its oldest known slot on. name NULL: the host's. */
static json_t *series_json(const char *name, const struct series *s, enum series_level level)
{
    static const char letters[] = "-olw";
    char status[SERIES_COARSE_SLOTS + 1] = "";
    json_t *assigned = json_array(), *demand = json_array(), *cpu = json_array();
    uint64_t newest = s ? s->newest[level] : 0, first = newest >= series_slots(level) ? newest - series_slots(level) + 1 : 1;
    unsigned n = 0;
    while (newest && first < newest && series_at(s, level, first).assigned == SERIES_UNKNOWN)
        first++;
    for (uint64_t slot = first; newest && slot <= newest; slot++) {
        struct series_point p = series_at(s, level, slot);
        json_array_append_new(assigned, value(p.assigned));
        json_array_append_new(demand, value(p.demand));
        json_array_append_new(cpu, p.cpu == SERIES_CPU_UNKNOWN ? json_null() : json_real(p.cpu / 10.0));
        status[n++] = letters[p.status];
    }
    status[n] = 0;
    return json_pack("{s:s? s:I s:I s:o s:o s:o s:s}", "name", name, "step_ms", (json_int_t)series_step_ms(level), "first_ms",
                     (json_int_t)(newest ? first * series_step_ms(level) : 0), "assigned", assigned, "demand", demand,
                     "cpu_pct", cpu, "status", status);
}

static bool wanted(const json_t *names, const char *name)
{
    size_t i;
    json_t *v;
    if (!json_is_array(names))
        return true;
    json_array_foreach(names, i, v)
        if (strcmp(json_string_value(v), name) == 0)
            return true;
    return false;
}

void history_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    json_t *names = json_object_get(params, "names"), *step = json_object_get(params, "step_ms"), *last = NULL;
    enum series_level level = json_integer_value(step) == (json_int_t)series_step_ms(SERIES_COARSE) ? SERIES_COARSE : SERIES_FINE;
    bool more = varlink_call_more(call);
    struct hv_error e = {0};
    if (step && !json_is_null(step) && json_integer_value(step) != (json_int_t)series_step_ms(level)) {
        hv_fail(&e, HV_USAGE, "step_ms", "there is 2000 and 60000");
        varlink_reply_error(call, &e);
        return;
    }
    if (!more && json_array_size(names) != 1) {
        hv_fail(&e, HV_USAGE, "names", "one name, or call with more");
        varlink_reply_error(call, &e);
        return;
    }
    /* A reply a VM keeps each of them small; the last one is held back until it is known to be the last. */
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        if (!wanted(names, vm->name) || (!vm->series && !json_is_array(names)))
            continue;
        if (last)
            varlink_reply(call, last, true);
        last = series_json(vm->name, vm->series, level);
    }
    if (wanted(names, HOST_SERIES)) {
        if (last)
            varlink_reply(call, last, true);
        last = series_json(NULL, svc->history ? &svc->history->host : NULL, level);
    }
    if (!last) {
        hv_fail(&e, HV_NOT_FOUND, json_string_value(json_array_get(names, 0)), "no such VM");
        varlink_reply_error(call, &e);
        return;
    }
    varlink_reply(call, last, false);
}
