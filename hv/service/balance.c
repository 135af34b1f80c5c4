/*
 * The balancer's feeder: once a second, and early when a guest runs short, hands what the
 * workers reported to dm_plan(), carries out what it says, and keeps the ledger.
 *
 *   report ──▶ dm_vm ──▶ dm_plan() ──▶ MemoryTarget ──▶ worker ──▶ guest's balloon driver
 *
 * Ledger: a VM is charged with what it has or has been granted, whichever is more. A grow is
 * charged before the guest may touch it; a shrink lowers the charge only when the worker
 * reports the memory as gone. So nothing is ever promised twice.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/service/service.h"

#define TICK_NS (1 * NS_PER_SEC)
#define EARLY_NS (100 * NS_PER_MS)
#define ANSWER_NS (3 * NS_PER_SEC)      /* an operation is given so long to show in reports */
#define SHORT_EVENT_NS (60 * NS_PER_SEC)
#define OVERHEAD_BASE (24 * MIB)        /* a worker beside its guest's RAM, until measured... */
#define OVERHEAD_GIB (4 * MIB)          /* ...and per GiB of it */

static uint32_t mib(uint64_t bytes) { return (uint32_t)MIN(bytes / MIB, (uint64_t)UINT32_MAX); }

uint64_t svc_overhead(const struct settings *s)
{
    return OVERHEAD_BASE + settings_boot_memory(s) / GIB * OVERHEAD_GIB;
}

uint64_t svc_vm_overhead(const struct svc_vm *vm) { return svc_overhead(&vm->settings); }

uint64_t svc_vm_charge(const struct svc_vm *vm)
{
    if (vm->state == SVC_OFF)
        return 0;
    /* Before the first report it is what the guest boots with. */
    uint64_t has = vm->memory.known ? vm->memory.assigned : settings_boot_memory(&vm->settings);
    return MAX(paging_charge(vm, has), vm->balance.granted);
}

/* ---- from reports ---- */

static struct svc_memory take_memory(const json_t *runtime)
{
    const json_t *m = json_object_get(runtime, "memory"), *report = json_object_get(m, "report");
    const char *op = json_string_value(json_object_get(m, "operation"));
    const json_t *then = json_object_get(report, "assigned");
    struct svc_memory s = {
        .known = json_is_object(m),
        .driver = json_is_true(json_object_get(m, "driver")),
        .reports = json_is_object(report),
        .can_balloon = json_is_true(json_object_get(m, "can_balloon")),
        .can_hot_add = json_is_true(json_object_get(m, "can_hot_add")),
        .stuck = json_is_true(json_object_get(m, "stuck")),
        .moves = !op || strcmp(op, "idle") == 0 ? 0 : strcmp(op, "balloon") == 0 ? -1 : 1,
        .assigned = svc_count(m, "assigned"),
        .resident = svc_count(m, "resident"),
        .ballooned = svc_count(m, "ballooned"),
        .offline = svc_count(m, "offline"),
        .paged = svc_count(m, "paged"),
        .granted = svc_count(m, "granted"),
        .needs = svc_count(m, "needs"),
        .uptime_ms = svc_count(runtime, "uptime_ms"),
        .resets = svc_count(runtime, "resets"),
        .demand = svc_count(report, "demand"),
        .available = svc_count(report, "available"),
        .age_ms = svc_count(report, "age_ms"),
    };
    s.assigned_then = json_is_integer(then) ? svc_count(report, "assigned") : s.assigned;
    return s;
}

/* Linux' driver speaks 45 s after it was loaded. What has said nothing in twice the time a guest is left alone never will. */
static bool silent_for_good(const struct svc_vm *vm)
{
    return vm->state == SVC_RUNNING && vm->memory.uptime_ms > 2 * vm->svc->host.balancer_delay_ms + 1000;
}

static enum dm_state state_of(const struct svc_vm *vm)
{
    const struct svc_memory *m = &vm->memory;
    if (paging_needs(vm))
        return DM_FROZEN;
    if (paging_bytes(vm))
        return DM_BOOT;                 /* paging.c moves it until all of it is in memory */
    if (!vm->settings.memory.dynamic || m->stuck)
        return DM_STATIC;
    if (vm->state == SVC_PAUSED || vm->state == SVC_STOPPING)
        return DM_FROZEN;
    if (vm->state != SVC_RUNNING || !m->driver || !m->reports)
        return silent_for_good(vm) ? DM_STATIC : DM_BOOT;
    return DM_ACTIVE;
}

static struct dm_vm describe(const struct svc_vm *vm, uint64_t now)
{
    const struct settings *s = &vm->settings;
    const struct svc_memory *m = &vm->memory;
    struct dm_vm v = {
        .startup = mib(s->memory.startup),
        .min = mib(s->memory.min),
        .max = mib(s->memory.max),
        .buffer_pct = (uint32_t)s->memory.buffer_pct,
        .weight = (uint32_t)s->memory.priority * 100,
        .source = (enum dm_source)s->memory.demand_source,
        .state = state_of(vm),
        .can_balloon = m->can_balloon,
        .can_hot_add = m->can_hot_add,
        .assigned = mib(m->known ? m->assigned : settings_boot_memory(s)),
        .ballooned = mib(m->ballooned),
        .offline = mib(m->offline),
        .memo = vm->balance.memo,
    };
    memcpy(v.id, vm->id.b, sizeof(v.id));
    v.assigned = MAX(v.assigned, mib(paging_needs(vm)));        /* a restart that waits: what it will have */
    /* The worker has taken what is ballooned or offline off already; the balancer takes it off again. */
    v.committed = (uint32_t)MIN((uint64_t)mib(m->demand) + v.ballooned + v.offline, UINT32_MAX);
    /* It spoke of what it had then; what came or went since is its own, free or not. */
    int64_t since = m->known ? (int64_t)v.assigned - (int64_t)mib(m->assigned_then) : 0;
    v.available = (uint32_t)MIN(MAX((int64_t)mib(m->available) + since, 0), (int64_t)UINT32_MAX);
    v.report_age_ms = (uint32_t)MIN(m->age_ms + (now - vm->last_runtime_ns) / NS_PER_MS, UINT32_MAX);
    v.in_flight = vm->balance.asked ? vm->balance.asked : m->moves;
    return v;
}

/* Has what was asked for come about? A shrink that gave less starts a back-off. */
static void look_at_answer(struct svc_vm *vm, uint64_t now)
{
    struct svc_balance *b = &vm->balance;
    bool idle = vm->memory.moves == 0;
    if (!b->asked)
        return;
    uint32_t has = mib(vm->memory.assigned);
    bool there = b->asked > 0 ? has >= b->target : has <= b->target;
    if (!there && (!idle || now - b->asked_at_ns < ANSWER_NS))
        return;
    if (b->asked < 0) {
        uint32_t asked = (uint32_t)-b->asked, left = has > b->target ? has - b->target : 0;
        dm_answered(&b->memo, now / NS_PER_MS, asked, left < asked ? asked - left : 0);
    }
    b->asked = 0;
    b->granted = 0;
}

/* ---- to workers ---- */

static void on_target(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    (void)arg;
    if (e && e->code != HV_UNREACHABLE)
        log_debug("balance", "%s", e->message);    /* the reports say how far it got */
}

static void carry_out(struct svc_vm *vm, const struct dm_vm *in, const struct dm_plan *p, uint64_t now)
{
    struct svc_balance *b = &vm->balance;
    struct hv_error e = {0};
    if (p->action == DM_KEEP)
        return;
    int32_t amount = p->action == DM_GROW ? (int32_t)p->amount : -(int32_t)p->amount;
    b->target = in->assigned + (uint32_t)amount;
    if (worker_call(vm, "org.hv.Worker.MemoryTarget", json_pack("{s:I}", "bytes", (json_int_t)(b->target * MIB)), NULL, 0,
                    on_target, NULL, &e) < 0)
        return;
    b->asked = amount;
    b->asked_at_ns = now;
    b->granted = amount > 0 ? b->target * MIB : 0;
    log_debug("balance", "%s: %s %u MiB to %u", vm->name, amount > 0 ? "grow" : "shrink", p->amount, b->target);
}

static void tell_status(struct svc_vm *vm, const struct dm_plan *p, uint64_t now)
{
    struct svc_balance *b = &vm->balance;
    char d[SIZE_TEXT], a[SIZE_TEXT];
    if (p->status != b->shown && (p->status == DM_WARNING || b->shown == DM_WARNING)) {
        uint64_t has = svc_vm_charge(vm);
        bool warning = p->status == DM_WARNING;
        format_sizes(p->demand * MIB, d, has, a);
        event_add(vm->svc, "memory", vm->name, warning ? "warning" : "info", -1, NULL, NULL, "memory %s: %s of %s needed%s%s",
                  warning ? "Warning" : "OK again", d, a, *dm_reason_words[p->why] ? ", " : "", dm_reason_words[p->why]);
    }
    b->shown = p->status;
    bool is_static = vm->settings.memory.dynamic && p->why == DM_WHY_STATIC;
    if (is_static && !b->said_static)
        event_add(vm->svc, "memory", vm->name, "warning", -1, NULL, "in the guest: modprobe hv_balloon",
                  "its memory is not dynamic: no balloon driver in the guest reports");
    b->said_static = is_static;
    if (p->status != DM_WARNING) {
        b->short_since_ns = 0;
    } else if (!b->short_since_ns) {
        b->short_since_ns = now;
    } else if (b->short_since_ns != UINT64_MAX && now - b->short_since_ns > SHORT_EVENT_NS) {
        b->short_since_ns = UINT64_MAX;             /* once an episode */
        event_add(vm->svc, "memory", vm->name, "warning", -1, NULL,
                  p->why == DM_WHY_MAX ? "raise its maximum: hvctl memory set VM --max SIZE"
                                       : "give it priority, lower that of others, or stop one: hvctl memory list",
                  "its demand could not be met for a minute");
    }
}

/* ---- the tick ---- */

static unsigned running(const struct service *svc)
{
    unsigned n = 0;
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        n += vm->state != SVC_OFF;
    return n;
}

/* The balancer's input as it is now: vm[n], who[n] of the VMs that are not off. Returns how many. */
static unsigned gather(struct service *svc, uint64_t now, struct dm_host *ret_host, struct dm_vm *in, struct svc_vm **who)
{
    struct host_memory h;
    unsigned n = 0;
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        if (vm->state == SVC_OFF)
            continue;
        who[n] = vm;
        in[n++] = describe(vm, now);
    }
    host_memory(svc, &h);
    uint64_t missing = 0;               /* by restarts, which come before all growing */
    for (unsigned i = 0; i < n; i++)
        missing += paging_missing(who[i]);
    *ret_host = (struct dm_host){
        .now = now / NS_PER_MS,
        .pool = h.pool / MIB,
        .free = (h.free - MIN(h.free, missing)) / MIB,
        .pressed = h.available < h.reserve / 2,
        .memo = svc->balance_memo,
    };
    return n;
}

static void plan_and_act(struct service *svc, uint64_t now)
{
    unsigned n = running(svc);
    struct dm_host host;
    hv_autofree struct dm_vm *in = hv_alloc_array(n, sizeof(*in));
    hv_autofree struct dm_plan *plan = hv_alloc_array(n, sizeof(*plan));
    hv_autofree struct svc_vm **who = hv_alloc_array(n, sizeof(*who));
    if (!in || !plan || !who)
        return;
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (vm->state != SVC_OFF)
            look_at_answer(vm, now);
    gather(svc, now, &host, in, who);
    if (dm_plan(&host, in, n, plan, &svc->balance_plan) < 0)
        return;
    svc->balance_memo = svc->balance_plan.memo;
    for (unsigned i = 0; i < n; i++) {
        who[i]->balance.memo = plan[i].memo;
        who[i]->balance.plan = plan[i];
        who[i]->balance.planned = true;
        tell_status(who[i], &plan[i], now);
        if (!svc->host.balancer_off)
            carry_out(who[i], &in[i], &plan[i], now);
        who[i]->balance.waits = !who[i]->balance.asked && plan[i].demand > in[i].assigned;
    }
}

json_t *balance_preview(struct svc_vm *vm, const struct settings *s)
{
    struct service *svc = vm->svc;
    static const char *const words[DM_STATUS_COUNT] = {NULL, "ok", "low", "warning"};
    unsigned n = running(svc);
    struct dm_host host;
    struct dm_host_plan host_plan;
    hv_autofree struct dm_vm *in = hv_alloc_array(n + 1, sizeof(*in));
    hv_autofree struct dm_plan *plan = hv_alloc_array(n + 1, sizeof(*plan));
    hv_autofree struct svc_vm **who = hv_alloc_array(n + 1, sizeof(*who));
    json_t *list = json_array();
    if (!in || !plan || !who)
        return list;
    struct settings kept = vm->settings;
    vm->settings = *s;                  /* only while it is looked at */
    gather(svc, hv_now_ns(), &host, in, who);
    vm->settings = kept;
    if (dm_plan(&host, in, n, plan, &host_plan) < 0)
        return list;
    for (unsigned i = 0; i < n; i++)
        if (in[i].state == DM_ACTIVE)
            json_array_append_new(list, json_pack("{s:s s:I s:I s:s?}", "name", who[i]->name, "assigned",
                                                  (json_int_t)(in[i].assigned * MIB), "target",
                                                  (json_int_t)(plan[i].target * MIB), "status", words[plan[i].status]));
    return list;
}

static void tick(void *arg)
{
    struct service *svc = arg;
    uint64_t now = hv_now_ns();
    svc->balance_early = false;
    if (running(svc) > 0)
        plan_and_act(svc, now);
    loop_timer_set(svc->loop, svc->balance_timer, hv_now_ns() + TICK_NS);
}

/*
 * Is it short and nothing on its way to it, or has it got what it was short of, or given what another one waits for? Who was found short
 * before and got nothing waits for that, or for the next second: a full host is not looked at ten times as often.
 */
static bool worth_waking(const struct svc_vm *vm)
{
    const struct svc_balance *b = &vm->balance;
    struct dm_vm v = describe(vm, vm->last_runtime_ns);
    if (v.state != DM_ACTIVE)
        return false;
    if (b->asked < 0)
        return v.assigned <= b->target && vm->svc->balance_plan.unmet > 0;
    if (b->asked > 0)                   /* what there is of it shows at once, and what is missing still is asked for */
        return v.assigned >= b->target && b->plan.demand > v.assigned - (uint32_t)b->asked;
    return !b->waits && dm_demand(&v) > v.assigned;
}

void balance_wake(struct service *svc)
{
    if (svc->balance_early)
        return;
    svc->balance_early = true;
    loop_timer_set(svc->loop, svc->balance_timer, hv_now_ns() + EARLY_NS);
}

void balance_report(struct svc_vm *vm)
{
    vm->memory = take_memory(vm->runtime);
    uint64_t resets = vm->memory.resets;
    vm->last_runtime_ns = hv_now_ns();
    if (vm->balance.began) {                        /* long ago, where an hvd before this one began it */
        uint64_t up = vm->memory.uptime_ms, delay = vm->svc->host.balancer_delay_ms;
        dm_settle(&vm->balance.memo, vm->last_runtime_ns / NS_PER_MS, delay > up ? delay - up : 0);
        vm->balance.resets = resets;
        vm->balance.began = false;
    } else if (resets != vm->balance.resets) {             /* the guest starts over with what it boots with */
        vm->balance = (struct svc_balance){.resets = resets};
        dm_settle(&vm->balance.memo, vm->last_runtime_ns / NS_PER_MS, vm->svc->host.balancer_delay_ms);
    }
    if (vm->settings.memory.dynamic && !vm->svc->balance_early && worth_waking(vm))
        balance_wake(vm->svc);
}

void balance_state(struct svc_vm *vm, enum svc_state old)
{
    if (vm->state == SVC_OFF) {
        vm->balance = (struct svc_balance){0};
        vm->memory = (struct svc_memory){0};
        vm->paging = (struct svc_paging){0};
    } else if (vm->state == SVC_RUNNING && old != SVC_STOPPING) {
        vm->balance.began = old != SVC_PAUSED;
        dm_settle(&vm->balance.memo, hv_now_ns() / NS_PER_MS, vm->svc->host.balancer_delay_ms);
    }
}

void balance_json(const struct svc_vm *vm, json_t *memory)
{
    static const char *const words[DM_STATUS_COUNT] = {NULL, "ok", "low", "warning"};
    const struct svc_balance *b = &vm->balance;
    const json_t *report = json_object_get(memory, "report");
    if (!memory)
        return;
    json_object_set_new(memory, "balloon", json_integer((json_int_t)svc_count(memory, "ballooned")));
    if (json_is_object(report)) {
        char when[40];
        format_time_utc(hv_wall_ns() - svc_count(report, "age_ms") * NS_PER_MS, when, sizeof(when));
        json_object_set_new(memory, "guest",
                            json_pack("{s:I s:I s:b s:s}", "available", (json_int_t)svc_count(report, "available"), "committed",
                                      (json_int_t)(svc_count(report, "demand") + svc_count(memory, "ballooned") + svc_count(memory, "offline")),
                                      "hot_add", json_is_true(json_object_get(memory, "can_hot_add")), "reported", when));
    }
    /* Nothing binds it: where the host has several nodes, any of them. */
    json_object_set_new(memory, "numa_nodes", access("/sys/devices/system/node/node1", F_OK) < 0 ? json_pack("[i]", 0) : json_null());
    json_object_set_new(memory, "paging_in_use", json_boolean(paging_bytes(vm) > 0));
    if (!b->planned)
        return;
    const struct dm_plan *p = &b->plan;
    /* What is on disk for want of the host's memory has that reason, whatever the plan does about it. */
    const char *why = dm_reason_words[paging_bytes(vm) ? DM_WHY_HOST : p->why];
    json_object_set_new(memory, "why", *why ? json_string(why) : json_null());
    json_object_set_new(memory, "status", words[p->status] ? json_string(words[p->status]) : json_null());
    if (p->status == DM_UNKNOWN)
        return;
    const struct { const char *key; json_int_t value; } numbers[] = {
        {"demand", (json_int_t)p->demand * MIB}, {"pressure_pct", p->pressure}, {"average_pressure_pct", p->average_pressure},
        {"pressure_band_min_pct", p->band_min}, {"pressure_band_max_pct", p->band_max},
        {"balancer_target", (json_int_t)p->target * MIB},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        json_object_set_new(memory, numbers[i].key, json_integer(numbers[i].value));
    /* What people call the buffer: what it has above its demand, in per cent of the demand. */
    uint64_t has = svc_count(memory, "assigned"), need = p->demand * MIB;
    json_object_set_new(memory, "buffer_now_pct",
                        json_integer(need ? ((json_int_t)has - (json_int_t)need) * 100 / (json_int_t)need : 0));
}

const char *balance_word(const struct service *svc)
{
    const struct dm_host_plan *p = &svc->balance_plan;
    unsigned dynamic = 0;
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        dynamic += vm->state != SVC_OFF && vm->settings.memory.dynamic;
    if (!dynamic || svc->host.balancer_off)
        return "off";
    return p->deficit || p->unmet ? "short" : p->in_flight_in ? "adding" : p->in_flight_out ? "reclaiming" : "at rest";
}

int balance_start(struct service *svc)
{
    int r = loop_timer_new(svc->loop, tick, svc, &svc->balance_timer);
    if (r == 0)
        loop_timer_set(svc->loop, svc->balance_timer, hv_now_ns() + TICK_NS);
    return r;
}

void balance_stop(struct service *svc)
{
    loop_timer_free(svc->loop, svc->balance_timer);
}
