/*
 * Reports to hvd: a reply to each watcher when the state changes and at its interval. hvd hears
 * hundreds of workers every second: what comes at an interval is a row of numbers where nothing else
 * has changed, and intervals of all workers end together, ten times a second, so that it wakes for many at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "hv/base/log.h"
#include "hv/rpc/loop_uv.h"
#include "hv/rpc/rows.h"
#include "hv/worker/worker.h"

#define REPORT_BACKLOG_MAX ((size_t)256 << 10)   /* a reader slower than this misses samples, never changes */
#define GRID_NS (100 * NS_PER_MS)
#define END_POLL_NS (20 * NS_PER_MS)
#define END_LIMIT_NS (2 * NS_PER_SEC)            /* console clients get this long for the last bytes */

const char *worker_state_word(struct worker *w)
{
    return w->vm ? vm_state_word(vm_state(w->vm)) : "off";
}

/*
 * What is summed over vCPUs and devices. exits: to this process, `kvm` counts them whole and `soft` by
 * kind; interrupts: `kvm` delivers most of them in the kernel, and does not count those.
 */
struct sums { uint64_t code, exits, hypercalls, interrupts; };

static void add_sums(void *arg, const struct stats_table *t, unsigned i, uint64_t value)
{
    static const struct { const char *group, *name; size_t at; } adds[] = {
        {"vcpu", "code_bytes", offsetof(struct sums, code)},       {"vcpu", "exits", offsetof(struct sums, exits)},
        {"vcpu", "halts", offsetof(struct sums, exits)},           {"hyperv", "hypercalls", offsetof(struct sums, hypercalls)},
        {"vcpu", "interrupts", offsetof(struct sums, interrupts)},
    };
    struct sums *s = arg;
    const char *name = t->desc[i].name;
    for (unsigned k = 0; k < ARRAY_SIZE(adds); k++)
        if (strcmp(name, adds[k].name) == 0 && strncmp(t->group, adds[k].group, strlen(adds[k].group)) == 0)
            *(uint64_t *)((char *)s + adds[k].at) += value;
    /* `soft` has no count of all: what left its loop. */
    if (strcmp(t->desc[0].name, "instructions") == 0 &&
        (strcmp(name, "pio") == 0 || strcmp(name, "mmio") == 0 || strcmp(name, "msr") == 0))
        s->exits += value;
}

static json_t *vcpu_times(struct vm *vm)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < vm_settings(vm)->processor.cpus; i++)
        json_array_append_new(list, json_integer((json_int_t)vm_vcpu_ns(vm, i)));
    return list;
}

json_t *worker_runtime(struct worker *w)
{
    if (!w->vm)
        return json_object();
    struct vm_memory m;
    vm_memory(w->vm, &m);
    /* What the guest has said is null until it has said it. */
    json_t *said = m.reporting ? json_pack("{s:I s:I s:I s:I s:I}", "assigned", (json_int_t)m.reported_assigned, "demand", (json_int_t)m.demand, "available",
                                           (json_int_t)m.available, "pressure_pct",
                                           (json_int_t)(m.assigned ? m.demand * 100 / m.assigned : 0), "age_ms",
                                           (json_int_t)(m.report_age_ns / NS_PER_MS))
                               : json_null();
    json_t *last = m.last_op ? json_pack("{s:s s:I s:I s:I}", "op", m.last_op, "bytes", (json_int_t)m.last_bytes, "took_ms",
                                         (json_int_t)(m.last_took_ns / NS_PER_MS), "ended_ms",
                                         (json_int_t)((hv_wall_ns() - m.last_ago_ns) / NS_PER_MS))
                             : json_null();
    json_t *runtime = json_pack("{s:I s:I s:i s:s s:s s:{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:o s:s s:b s:b s:b s:b s:o s:o s:o}"
                     " s:o s:O? s:o}",
                     "uptime_ms", (json_int_t)(vm_uptime_ns(w->vm) / NS_PER_MS),
                     "cpu_ns", (json_int_t)vm_cpu_ns(w->vm),
                     "resets", (int)vm_resets(w->vm),
                     "engine", vm_engine_name(w->vm),
                     "kernel", vm_kernel_name(w->vm),
                     "memory", "assigned", (json_int_t)m.assigned,
                     "resident", (json_int_t)m.resident, "visible_now", (json_int_t)m.visible,
                     "ballooned", (json_int_t)m.ballooned, "hot_added", (json_int_t)m.hot_added,
                     "offline", (json_int_t)m.offline, "target", (json_int_t)m.target,
                     "paged", (json_int_t)m.paged, "granted", (json_int_t)(m.paged ? m.granted : m.assigned), "needs",
                     m.needs ? json_integer((json_int_t)m.needs) : json_null(), "operation", m.op,
                     "driver", m.driver, "can_balloon", m.can_balloon, "can_hot_add", m.can_hot_add, "stuck", m.stuck,
                     "report", said, "last_move", last, "boot_ms",
                     m.driver && !m.reporting ? json_integer((json_int_t)(m.driver_age_ns / NS_PER_MS)) : json_null(),
                     "integration", worker_integration_json(w), "crash", w->crash,
                     "disks", worker_disks_json(w));
    struct sums s = {0};
    stats_each(vm_stats(w->vm), add_sums, &s);
    bool all = strcmp(vm_engine_name(w->vm), "soft") == 0;
    if (runtime) {
        json_object_set_new(runtime, "code", json_integer((json_int_t)s.code));
        json_object_set_new(runtime, "vcpu_ns", vcpu_times(w->vm));
        json_object_set_new(runtime, "counters", json_pack("{s:I s:I s:o}", "exits", (json_int_t)s.exits, "hypercalls",
                                                           (json_int_t)s.hypercalls, "interrupts",
                                                           all ? json_integer((json_int_t)s.interrupts) : json_null()));
    }
    return runtime;
}

static json_t *exit_json(struct worker *w)
{
    const char *why = "";
    enum vm_off_reason reason = w->vm ? vm_off_reason(w->vm, &why) : VM_OFF_TURNED_OFF;
    return json_pack("{s:s s:s?}", "reason", vm_off_reason_word(reason), "message", why[0] ? why : NULL);
}

/* In a file that hvd opened: if it is away now, the next one reads how this ended. */
static void leave_exit_note(struct worker *w)
{
    json_t *o = w->exit_fd >= 0 ? exit_json(w) : NULL;
    hv_autofree char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (text)
        (void)hv_write_all(w->exit_fd, text, strlen(text));
}

/* To be sent in this order: x remembers what was sent whole. */
static json_t *report(struct watcher *x)
{
    struct worker *w = x->w;
    json_t *runtime = worker_runtime(w), *row = x->rows ? rows_since(&x->sent, runtime) : NULL, *p;
    if (row) {
        json_decref(runtime);
        p = json_pack("{s:s s:{} s:o}", "state", worker_state_word(w), "runtime", "row", row);
    } else {
        p = json_pack("{s:s s:o}", "state", worker_state_word(w), "runtime", runtime);
    }
    if (!p)
        return NULL;
    if (!w->vm || vm_state(w->vm) == VM_OFF)
        json_object_set_new(p, "exit", exit_json(w));
    return p;
}

void worker_event_data(struct worker *w, const char *kind, const char *severity, const char *message, const char *hint,
                       json_t *data)
{
    for (struct watcher *x = w->watchers; x; x = x->next) {
        if (varlink_call_backlog(x->call) >= REPORT_BACKLOG_MAX)
            continue;
        json_t *p = report(x);
        json_object_set_new(p, "event", json_pack("{s:s s:s s:s s:s? s:O?}", "kind", kind, "severity", severity, "message", message,
                                                  "hint", hint, "data", data));
        varlink_reply(x->call, p, true);
    }
    json_decref(data);
}

void worker_event(struct worker *w, const char *kind, bool warning, const char *message, const char *hint)
{
    worker_event_data(w, kind, warning ? "warning" : "info", message, hint, NULL);
}

void worker_guest_changed(void *arg)
{
    struct worker *w = arg;
    for (struct watcher *x = w->watchers; x; x = x->next)
        if (!w->ending && varlink_call_backlog(x->call) < REPORT_BACKLOG_MAX)
            varlink_reply(x->call, report(x), true);
}

void worker_memory_event(void *arg, bool warning, const char *message, const char *hint)
{
    worker_event(arg, "memory", warning, message, hint);
}

static void watcher_free(struct watcher *x)
{
    struct watcher **at = &x->w->watchers;
    while (*at && *at != x)
        at = &(*at)->next;
    if (*at)
        *at = x->next;
    loop_timer_free(x->w->loop, x->timer);
    varlink_call_unref(x->call);
    json_decref(x->sent);
    free(x);
}

/* A stream that had its last reply is told of no close any more: its watcher is left to this. */
void worker_watchers_free(struct worker *w)
{
    while (w->watchers) {
        varlink_call_on_close(w->watchers->call, NULL, NULL);
        watcher_free(w->watchers);
    }
}

static void watcher_closed(void *arg) { watcher_free(arg); }

static void set_timer(struct watcher *x)
{
    uint64_t at = hv_now_ns() + x->interval_ns;
    loop_timer_set(x->w->loop, x->timer, x->interval_ns > GRID_NS ? ROUND_DOWN(at, GRID_NS) : at);
}

static void watcher_tick(void *arg)
{
    struct watcher *x = arg;
    set_timer(x);
    if (varlink_call_backlog(x->call) < REPORT_BACKLOG_MAX)
        varlink_reply(x->call, report(x), true);
}

void worker_watch(struct worker *w, struct varlink_call *call, uint64_t interval_ns, bool rows)
{
    struct watcher *x = hv_alloc(sizeof(*x));
    if (!x || (interval_ns && loop_timer_new(w->loop, watcher_tick, x, &x->timer) < 0)) {
        struct hv_error e = {0};
        free(x);
        hv_fail(&e, HV_NO_RESOURCES, w->name, "out of memory");
        varlink_reply_error(call, &e);
        return;
    }
    x->w = w;
    x->interval_ns = interval_ns;
    x->rows = rows;
    x->call = varlink_call_ref(call);
    if (!varlink_call_more(call)) {
        varlink_reply(call, report(x), false);
        watcher_free(x);
        return;
    }
    x->next = w->watchers;
    w->watchers = x;
    varlink_call_on_close(call, watcher_closed, x);
    varlink_reply(call, report(x), true);
    if (x->interval_ns)
        set_timer(x);
}

struct end_wait { struct worker *w; uint64_t limit_ns; };

/* The VM is off. Console clients get their last bytes, watchers the exit, then the process ends. */
static void try_end(void *arg)
{
    struct end_wait *end = arg;
    struct worker *w = end->w;
    bool out = !w->consoles || consoles_drain(w->consoles);
    for (struct watcher *x = w->watchers; x; x = x->next)
        out = out && varlink_call_backlog(x->call) == 0;
    if (out || hv_now_ns() >= end->limit_ns)
        loop_uv_stop(w->loop);
    else
        loop_timer_set(w->loop, w->end_timer, hv_now_ns() + END_POLL_NS);
}

void worker_changed(void *arg)
{
    struct worker *w = arg;
    static struct end_wait end;
    bool off = !w->vm || vm_state(w->vm) == VM_OFF;
    if (off && w->ending)
        return;
    if (off && w->vm) {
        const char *why;
        enum vm_off_reason reason = vm_off_reason(w->vm, &why);
        log_info("off: %s%s%s", vm_off_reason_word(reason), why[0] ? ": " : "", why);
        leave_exit_note(w);
    }
    /* The last reply ends the stream; the call stays referenced so that its backlog can be seen to drain. */
    for (struct watcher *x = w->watchers; x; x = x->next)
        varlink_reply(x->call, report(x), !off);
    if (!off)
        return;
    w->ending = true;
    end = (struct end_wait){.w = w, .limit_ns = hv_now_ns() + END_LIMIT_NS};
    if (loop_timer_new(w->loop, try_end, &end, &w->end_timer) < 0)
        loop_uv_stop(w->loop);
    else
        loop_timer_set(w->loop, w->end_timer, hv_now_ns());
}
