/* Rows of what `list` shows, once or at an interval (org.hv.Manager.Stats). */
#include <errno.h>

#include "hv/base/strbuf.h"
#include "hv/service/service.h"

#define STATS_MIN_MS 100
#define STATS_BACKLOG_MAX ((size_t)256 << 10)

/* A column: its name, and where it comes from. */
enum source { OF_VM, RUNTIME, MEMORY, SETTING, RATES };
static const struct { const char *name; enum source from; const char *key; } columns[] = {
    {"name", OF_VM, "name"},
    {"id", OF_VM, "id"},
    {"state", OF_VM, "state"},
    {"uptime_ms", RUNTIME, "uptime_ms"},
    {"cpu_pct", OF_VM, "cpu_pct"},
    {"assigned", MEMORY, "assigned"},
    {"resident", MEMORY, "resident"},
    {"demand", MEMORY, "demand"},
    {"status", MEMORY, "status"},
    {"why", MEMORY, "why"},
    {"buffer_now_pct", MEMORY, "buffer_now_pct"},
    {"pressure_pct", MEMORY, "pressure_pct"},
    {"balloon", MEMORY, "balloon"},
    {"hot_added", MEMORY, "hot_added"},
    {"target", MEMORY, "balancer_target"},
    {"committed", MEMORY, "committed"},
    {"available", MEMORY, "available"},
    {"boot_ms", MEMORY, "boot_ms"},
    {"change", OF_VM, "change"},
    {"dynamic", SETTING, "memory.dynamic"},
    {"startup", SETTING, "memory.startup"},
    {"min", SETTING, "memory.min"},
    {"max", SETTING, "memory.max"},
    {"buffer_pct", SETTING, "memory.buffer_pct"},
    {"priority", SETTING, "memory.priority"},
    {"cpus", SETTING, "processor.cpus"},
    {"heartbeat", OF_VM, "heartbeat"},
    {"shutdown", OF_VM, "shutdown"},
    {"timesync", OF_VM, "timesync"},
    {"engine", RUNTIME, "engine"},
    {"code", RUNTIME, "code"},
    {"kernel", RUNTIME, "kernel"},
    {"resets", RUNTIME, "resets"},
    {"pid", OF_VM, "pid"},
    {"reason", OF_VM, "reason"},
    {"group", OF_VM, "group"},
    {"job", OF_VM, "job"},
    {"services", OF_VM, "services"},
    {"read", RATES, "read"},
    {"write", RATES, "write"},
    {"iops", RATES, "iops"},
    {"latency_us", RATES, "latency_us"},
    {"queue", RATES, "queue"},
    {"disk_used", RATES, "disk_used"},
    {"disk_size", RATES, "disk_size"},
    {"disk_path", RATES, "disk_path"},
    {"disks", RATES, "disks"},
    {"vcpu_pct", RATES, "vcpu_pct"},
    {"exits", RATES, "exits"},
    {"hypercalls", RATES, "hypercalls"},
    {"interrupts", RATES, "interrupts"},
};

struct stats_stream {
    struct service *svc;
    struct varlink_call *call;
    struct loop_timer *timer;
    uint64_t interval_ns;
    json_t *names;
    struct stats_stream *next;
};

static json_t *or_null(json_t *v) { return v ? json_incref(v) : json_null(); }

/* "heartbeat ok 3.2, kvp no-daemon 5.0": in the words of `hvctl integration list`. */
static json_t *services_of(const json_t *integration)
{
    const json_t *list = json_object_get(integration, "services");
    strbuf_auto sb = {0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *s = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(s, "service")), *version = json_string_value(json_object_get(s, "version"));
        const char *word = !json_is_true(json_object_get(s, "enabled"))  ? "off"
                           : json_is_true(json_object_get(s, "stalled")) ? "hangs"
                           : json_is_true(json_object_get(s, "ready"))   ? "ok"
                           : json_is_true(json_object_get(s, "open")) && name && strcmp(name, "kvp") == 0 ? "no-daemon"
                                                                                                           : "no-contact";
        if (name)
            strbuf_addf(&sb, "%s%s %s%s%s", sb.len ? ", " : "", name, word, version ? " " : "", version ? version : "");
    }
    return sb.len && !sb.err ? json_string(sb.buf) : json_null();
}

/* {id of a VM: the first of its groups}. */
static json_t *first_groups(struct service *svc)
{
    json_t *map = json_object(), *ids, *id;
    const char *name;
    size_t i;
    json_object_foreach(svc->groups, name, ids)
        json_array_foreach(ids, i, id)
            if (!json_object_get(map, json_string_value(id)))
                json_object_set_new(map, json_string_value(id), json_string(name));
    return map;
}

static json_t *of_vm(const struct svc_vm *vm, const json_t *groups, const char *key)
{
    char id[GUID_TEXT_SIZE];
    const json_t *integration = json_object_get(vm->runtime, "integration");
    if (strcmp(key, "name") == 0)
        return json_string(vm->name);
    if (strcmp(key, "id") == 0)
        return json_string(guid_format(&vm->id, id));
    if (strcmp(key, "state") == 0)
        return json_string(svc_state_word(vm));
    if (strcmp(key, "cpu_pct") == 0)
        return vm->runtime ? json_real((double)(int)(vm->cpu_pct * 10 + 0.5) / 10) : json_null();
    if (strcmp(key, "group") == 0)
        return or_null(json_object_get(groups, guid_format(&vm->id, id)));
    if (strcmp(key, "job") == 0)
        return job_of(vm->svc, vm->name);
    if (strcmp(key, "services") == 0)
        return vm->runtime ? services_of(integration) : json_null();
    if (strcmp(key, "change") == 0)
        return history_change(vm);
    if (strcmp(key, "pid") == 0)
        return vm->link ? json_integer(worker_pid(vm)) : json_null();
    if (strcmp(key, "reason") == 0)
        return vm->reason[0] ? json_string(vm->reason) : json_null();
    return or_null(json_object_get(integration, key));     /* heartbeat, shutdown, timesync */
}

static json_t *of_settings(const struct svc_vm *vm, const char *name)
{
    const struct setting_desc *d = setting_find(name);
    hv_assert(d);
    uint64_t v = setting_number(&vm->settings, d);
    return d->type == SETTING_BOOL ? json_boolean(v) : json_integer((json_int_t)v);
}

static json_t *row(const struct svc_vm *vm, const json_t *groups)
{
    json_t *out = json_array(), *m = json_copy(json_object_get(vm->runtime, "memory")), *rates = rates_of(vm);
    balance_json(vm, m);
    json_object_update_missing(m, json_object_get(m, "guest"));    /* committed, available */
    for (unsigned i = 0; i < ARRAY_SIZE(columns); i++) {
        const char *key = columns[i].key;
        json_array_append_new(out, columns[i].from == OF_VM     ? of_vm(vm, groups, key)
                                   : columns[i].from == SETTING ? of_settings(vm, key)
                                   : columns[i].from == RATES   ? or_null(json_object_get(rates, key))
                                   : or_null(json_object_get(columns[i].from == MEMORY ? m : vm->runtime, key)));
    }
    json_decref(m);
    json_decref(rates);
    return out;
}

static json_t *sample(struct service *svc, const json_t *names, bool with_columns)
{
    json_t *rows = json_array(), *cols = with_columns ? json_array() : json_null(), *groups = first_groups(svc);
    for (unsigned i = 0; with_columns && i < ARRAY_SIZE(columns); i++)
        json_array_append_new(cols, json_string(columns[i].name));
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (!json_is_array(names) || vm_is_named(svc, names, vm->name))
            json_array_append_new(rows, row(vm, groups));
    json_decref(groups);
    json_t *host = host_json(svc);
    history_host_json(svc, host);
    return json_pack("{s:o s:o s:I s:o}", "columns", cols, "rows", rows, "time_ms",
                     (json_int_t)(hv_wall_ns() / NS_PER_MS), "host", host);
}

static void stream_free(void *arg)
{
    struct stats_stream *s = arg, **at = &s->svc->streams;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    loop_timer_free(s->svc->loop, s->timer);
    varlink_call_unref(s->call);
    json_decref(s->names);
    free(s);
}

static void tick(void *arg)
{
    struct stats_stream *s = arg;
    loop_timer_set(s->svc->loop, s->timer, hv_now_ns() + s->interval_ns);
    if (varlink_call_backlog(s->call) < STATS_BACKLOG_MAX)
        varlink_reply(s->call, sample(s->svc, s->names, false), true);
}

void stats_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    json_t *names = json_object_get(params, "names"), *ms = json_object_get(params, "interval_ms");
    struct stats_stream *s = varlink_call_more(call) ? hv_alloc(sizeof(*s)) : NULL;
    if (s && loop_timer_new(svc->loop, tick, s, &s->timer) < 0) {
        free(s);
        s = NULL;
    }
    if (s) {
        json_int_t interval = json_is_integer(ms) ? json_integer_value(ms) : REPORT_INTERVAL_MS;
        s->svc = svc;
        s->interval_ns = (uint64_t)MIN(MAX(interval, STATS_MIN_MS), 86400000) * NS_PER_MS;
        s->names = json_is_array(names) ? json_deep_copy(names) : NULL;
        s->call = varlink_call_ref(call);
        s->next = svc->streams;
        svc->streams = s;
        varlink_call_on_close(call, stream_free, s);
        loop_timer_set(svc->loop, s->timer, hv_now_ns() + s->interval_ns);
    }
    varlink_reply(call, sample(svc, names, true), s != NULL);
}
