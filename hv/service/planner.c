/*
 * What would be, and what was: `memory plan` runs the balancer's function over the last day as the
 * host remembers it, with more VMs than there were; `memory report` says what Dynamic Memory made
 * of that day (dynamic-memory 2.5).
 */
#include <errno.h>

#include "hv/base/series.h"
#include "hv/base/units.h"
#include "hv/service/service.h"

#define PLAN_MOST 512
/* A static machine is sized by what it needed most, and a quarter more (dynamic-memory 3.6). */
#define STATIC_SIZE(peak) ((peak) + (peak) / 4)

/* A VM of the plan: whose demand it has (NULL: `most`, always), and its settings. */
struct planned {
    const struct svc_vm *like, *own;
    uint32_t min, startup, max, buffer, weight;
    bool is_static, was_low, was_warning;
};

static uint32_t mib(uint64_t bytes) { return (uint32_t)MIN(bytes / MIB, (uint64_t)UINT32_MAX); }

static struct series_point at(const struct svc_vm *vm, uint64_t slot)
{
    return vm && vm->series ? series_at(vm->series, SERIES_COARSE, slot) : series_unknown;
}

static unsigned count(const struct service *svc)
{
    unsigned n = 0;
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        n++;
    return n;
}

static uint64_t newest_slot(void) { return hv_wall_ns() / NS_PER_MS / series_step_ms(SERIES_COARSE); }

/* Most it needed in slots [first, last]; 0: nothing is known. */
static uint32_t peak_of(const struct svc_vm *vm, uint64_t first, uint64_t last)
{
    uint32_t peak = 0;
    for (uint64_t slot = first; slot <= last; slot++) {
        uint32_t d = at(vm, slot).demand;
        peak = d != SERIES_UNKNOWN ? MAX(peak, d) : peak;
    }
    return peak;
}

/* What the VM needs in this slot; 0: it does not run. */
static uint32_t demand_in(const struct planned *p, uint64_t slot, bool added)
{
    struct series_point s = at(p->like, slot);
    if (added && !p->like)                  /* with its buffer that is its maximum */
        return (uint32_t)((uint64_t)p->max * 100 / (100 + p->buffer));
    if (s.demand == SERIES_UNKNOWN)
        return added ? p->startup : s.assigned != SERIES_UNKNOWN ? s.assigned : 0;
    return MIN(s.demand, added ? p->max : UINT32_MAX);
}

/* One minute of the plan: targets by the balancer's own function, statuses by its rule. */
static int one_slot(struct planned *p, unsigned n, unsigned present, uint64_t slot, uint64_t pool, struct dm_vm *in,
                    struct dm_plan *out)
{
    struct dm_host host = {.now = slot * series_step_ms(SERIES_COARSE), .pool = pool, .free = pool};
    struct dm_host_plan ignored;
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        uint32_t d = demand_in(&p[i], slot, i >= present);
        if (!d)
            continue;
        uint64_t want = (uint64_t)d * (100 + p[i].buffer) / 100;
        struct dm_vm *v = &in[count++];
        *v = (struct dm_vm){
            .startup = p[i].startup, .min = p[i].min, .max = p[i].max, .buffer_pct = p[i].buffer, .weight = p[i].weight,
            .source = DM_COMMIT, .state = p[i].is_static ? DM_STATIC : DM_ACTIVE, .can_balloon = true, .can_hot_add = true,
            .assigned = p[i].is_static ? d : (uint32_t)MIN(MAX(want, (uint64_t)p[i].min), (uint64_t)p[i].max), .committed = d,
        };
        v->available = v->assigned;
        memcpy(v->id, &i, sizeof(i));
    }
    int r = dm_plan(&host, in, count, out, &ignored);
    for (unsigned k = 0; r == 0 && k < count; k++) {
        unsigned i;
        memcpy(&i, in[k].id, sizeof(i));
        uint64_t d = in[k].committed, full = d * in[k].buffer_pct / 100;
        if (in[k].state != DM_ACTIVE)
            continue;
        p[i].was_warning |= out[k].target < d;
        p[i].was_low |= out[k].target >= d && (out[k].target - d) * 100 < full * 80;
    }
    return r;
}

/* Those that are there, then `add` more with the demand of each of these in turn, the largest peak first. */
static unsigned line_up(struct service *svc, struct planned *p, unsigned add, uint32_t startup, uint32_t max, uint64_t first,
                        uint64_t last)
{
    unsigned n = 0, models = 0;
    hv_autofree const struct svc_vm **model = hv_alloc_array(count(svc) + 1, sizeof(*model));
    hv_autofree uint32_t *peak = hv_alloc_array(count(svc) + 1, sizeof(*peak));
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        const struct settings *s = &vm->settings;
        if (!vm->series && vm->state == SVC_OFF)
            continue;
        p[n++] = (struct planned){.like = vm, .own = vm, .min = mib(s->memory.min), .startup = mib(s->memory.startup),
                                  .max = s->memory.dynamic ? mib(s->memory.max) : mib(s->memory.startup),
                                  .buffer = (uint32_t)s->memory.buffer_pct, .weight = (uint32_t)s->memory.priority * 100,
                                  .is_static = !s->memory.dynamic};
        uint32_t most = model && peak ? peak_of(vm, first, last) : 0;
        if (!most)
            continue;
        unsigned k = models++;
        for (; k > 0 && peak[k - 1] < most; k--) {
            peak[k] = peak[k - 1];
            model[k] = model[k - 1];
        }
        peak[k] = most;
        model[k] = vm;
    }
    for (unsigned i = 0; i < add; i++)
        p[n++] = (struct planned){.like = models ? model[i % models] : NULL, .min = MIN(512u, startup), .startup = startup,
                                  .max = max, .buffer = 20, .weight = 5000};
    return n;
}

void plan_memory(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    struct hv_error e = {0};
    struct host_memory h;
    json_int_t add = json_integer_value(json_object_get(params, "add"));
    uint64_t startup = (uint64_t)json_integer_value(json_object_get(params, "startup"));
    uint64_t max = (uint64_t)json_integer_value(json_object_get(params, "max"));
    if (add < 1 || add > PLAN_MOST)
        hv_fail(&e, HV_USAGE, "add", "1 to %d VMs", PLAN_MOST);
    else if (startup < 32 * MIB || startup > max || max > 12 * TIB)
        hv_fail(&e, HV_USAGE, "max", "at least the startup memory, which is at least 32M");
    unsigned most = count(svc) + (e.code ? 0 : (unsigned)add);
    hv_autofree struct planned *p = hv_alloc_array(most + 1, sizeof(*p));
    hv_autofree struct dm_vm *in = hv_alloc_array(most + 1, sizeof(*in));
    hv_autofree struct dm_plan *out = hv_alloc_array(most + 1, sizeof(*out));
    if (!e.code && (!p || !in || !out))
        hv_fail(&e, HV_NO_RESOURCES, "memory", "out of memory");
    if (e.code) {
        varlink_reply_error(call, &e);
        return;
    }
    host_memory(svc, &h);
    /* What fits is what could be started now, one after the other. */
    struct settings s;
    settings_init(&s);
    s.memory.startup = startup;
    uint64_t each = startup + svc_overhead(&s);
    settings_fini(&s);
    unsigned fit = (unsigned)MIN(h.free / each, (uint64_t)add);
    uint64_t last = newest_slot(), first = last - SERIES_COARSE_SLOTS + 1;
    unsigned n = line_up(svc, p, fit, mib(startup), mib(max), first, last), present = n - fit, samples = 0, low = 0, warning = 0;
    uint64_t pool = (h.pool > fit * (each - startup) ? h.pool - fit * (each - startup) : 0) / MIB;
    for (uint64_t slot = first; slot <= last; slot++) {
        bool known = false;
        for (unsigned i = 0; !known && i < present; i++)
            known = at(p[i].like, slot).assigned != SERIES_UNKNOWN;
        samples += known;
        if (!known && slot != last)         /* that one in any case */
            continue;
        if (one_slot(p, n, present, slot, pool, in, out) < 0)
            break;
    }
    for (unsigned i = 0; i < n; i++) {
        warning += p[i].was_warning;
        low += p[i].was_low && !p[i].was_warning;
    }
    varlink_reply(call, json_pack("{s:I s:i s:i s:i s:i}", "add", add, "fit", (int)fit, "low", (int)low, "warning", (int)warning,
                                  "samples", (int)samples), false);
}

/* ---- report ---- */

struct sums {
    uint64_t max, fixed, used_mib_slots, slots, warning_pcts;
};

static json_t *report_of(const struct svc_vm *vm, uint64_t first, uint64_t last, struct sums *total)
{
    struct sums s = {.max = vm->settings.memory.dynamic ? vm->settings.memory.max : vm->settings.memory.startup};
    uint32_t peak = 0, most = 0;
    for (uint64_t slot = first; slot <= last; slot++) {
        struct series_point p = at(vm, slot);
        if (p.assigned == SERIES_UNKNOWN)
            continue;
        s.slots++;
        s.used_mib_slots += p.assigned;
        s.warning_pcts += p.warning_pct;
        most = MAX(most, p.assigned);
        peak = p.demand != SERIES_UNKNOWN ? MAX(peak, p.demand) : peak;
    }
    if (!s.slots)
        return NULL;
    s.fixed = peak ? STATIC_SIZE((uint64_t)peak) * MIB : (uint64_t)most * MIB;
    total->max += s.max;
    total->fixed += s.fixed;
    total->used_mib_slots += s.used_mib_slots;
    total->slots += s.slots;
    total->warning_pcts += s.warning_pcts;
    return json_pack("{s:s s:I s:I s:I s:f}", "name", vm->name, "max", (json_int_t)s.max, "static_size", (json_int_t)s.fixed,
                     "used", (json_int_t)(s.used_mib_slots / s.slots * MIB), "warning_pct",
                     (double)s.warning_pcts / (double)s.slots);
}

void report_memory(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    json_t *since = json_object_get(params, "since_ms"), *vms = json_array();
    uint64_t last = newest_slot(), first = last - SERIES_COARSE_SLOTS + 1;
    uint64_t used = 0;
    struct sums total = {0};
    if (json_is_integer(since) && json_integer_value(since) > 0)
        first = MAX(first, (uint64_t)json_integer_value(since) / series_step_ms(SERIES_COARSE));
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        json_t *row = report_of(vm, first, last, &total);
        if (!row)
            continue;
        used += (uint64_t)json_integer_value(json_object_get(row, "used"));
        json_array_append_new(vms, row);
    }
    json_t *sum = json_pack("{s:i s:I s:I s:I s:f}", "vms", (int)json_array_size(vms), "max", (json_int_t)total.max,
                            "static_size", (json_int_t)total.fixed, "used", (json_int_t)used, "warning_pct",
                            total.slots ? (double)total.warning_pcts / (double)total.slots : 0.0);
    varlink_reply(call, json_pack("{s:o s:o}", "vms", vms, "total", sum), false);
}
