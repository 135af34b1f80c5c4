/*
 * Metering: what a VM has used since it was switched on or reset, as Measure-VM has it. A meter
 * grows with every report of the worker, whose counters run from its own start:
 *
 *   STATE/metering.json   {at_ms, vms: {GUID: {since_ms, ..., last: {pid, cpu_ns, disks}}}}
 *
 * It is written once a minute, at changes and at the end. `last` is what the counters were then: a
 * service that was killed finds the same worker and goes on from there. A VM has a meter, or none.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/service/service.h"

#define SAVE_NS (60 * NS_PER_SEC)
#define FILE_MAX ((size_t)64 << 20)    /* some kilobytes a VM */
#define GAP_MAX_MS (UINT64_C(365) * 24 * 3600 * 1000)   /* a clock that was put right is no year of use */

/* What one disk's counters are called in reports and in the meter. */
static const char *const disk_keys[] = {"reads", "writes", "read_bytes", "written_bytes"};
enum { DISK_KEYS = ARRAY_SIZE(disk_keys) };

struct meter {
    uint64_t since_ms;                  /* wall clock */
    uint64_t run_ms;                    /* it ran so long meanwhile: averages are over that */
    uint64_t cpu_ns;
    uint64_t memory_mib_ms;             /* assigned, summed up over run_ms */
    uint64_t memory_min, memory_max;    /* bytes; max 0: it has not run */
    uint64_t disk_max;                  /* bytes its disks could hold together, at most */
    uint64_t disk[DISK_KEYS];
    /* The run that counters are of, and what they were at the last report. */
    int64_t pid;                        /* 0: none */
    uint64_t last_cpu_ns, last_ns;      /* last_ns: monotonic, 0: not known, it was at_ms then */
    uint64_t at_ms;                     /* wall clock, of a meter that was read */
    json_t *last_disks;                 /* {location: [of disk_keys]} */
};

/* Numbers that are stored as they are. */
static const struct { const char *key; size_t offset; } stored[] = {
    {"since_ms", offsetof(struct meter, since_ms)},       {"run_ms", offsetof(struct meter, run_ms)},
    {"cpu_ns", offsetof(struct meter, cpu_ns)},           {"memory_mib_ms", offsetof(struct meter, memory_mib_ms)},
    {"memory_min", offsetof(struct meter, memory_min)},   {"memory_max", offsetof(struct meter, memory_max)},
    {"disk_max", offsetof(struct meter, disk_max)},       {"last_cpu_ns", offsetof(struct meter, last_cpu_ns)},
};

static uint64_t *field(struct meter *m, unsigned i) { return (uint64_t *)(void *)((char *)m + stored[i].offset); }

void meter_free(struct meter *m)
{
    if (m)
        json_decref(m->last_disks);
    free(m);
}

static struct meter *meter_new(void)
{
    struct meter *m = hv_alloc(sizeof(*m));
    if (m)
        m->since_ms = hv_wall_ns() / NS_PER_MS;
    return m;
}

/* ---- the counters ---- */

/* What a disk did since the last report; one that was attached again counts from 0. */
static void read_disks(struct meter *m, const json_t *disks)
{
    json_t *now = json_object(), *d;
    uint64_t size = 0;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)disks, i, d) {
        const char *where = json_string_value(json_object_get(d, "location"));
        const json_t *then = where ? json_object_get(m->last_disks, where) : NULL;
        json_t *row = json_array();
        bool fresh = false;
        for (unsigned k = 0; k < DISK_KEYS; k++)
            fresh = fresh || (json_int_t)svc_count(d, disk_keys[k]) < json_integer_value(json_array_get(then, k));
        for (unsigned k = 0; k < DISK_KEYS; k++) {
            uint64_t v = svc_count(d, disk_keys[k]);
            m->disk[k] += fresh ? v : v - (uint64_t)json_integer_value(json_array_get(then, k));
            json_array_append_new(row, json_integer((json_int_t)v));
        }
        const char *type = json_string_value(json_object_get(d, "type"));
        if (!type || strcmp(type, "dvd") != 0)
            size += svc_count(d, "size");
        if (where)
            json_object_set_new(now, where, row);
        else
            json_decref(row);
    }
    m->disk_max = MAX(m->disk_max, size);
    json_decref(m->last_disks);
    m->last_disks = now;
}

static void read_cpu(struct meter *m, uint64_t cpu_ns)
{
    if (cpu_ns >= m->last_cpu_ns)
        m->cpu_ns += cpu_ns - m->last_cpu_ns;
    m->last_cpu_ns = cpu_ns;
}

/* Time goes on; the guest has had `assigned` for it. */
static void read_memory(struct meter *m, uint64_t now, uint64_t assigned)
{
    uint64_t ms = (now - m->last_ns) / NS_PER_MS;
    m->run_ms += ms;
    m->memory_mib_ms += assigned / MIB * ms;
    m->memory_max = MAX(m->memory_max, assigned);
    m->memory_min = m->memory_min ? MIN(m->memory_min, assigned) : assigned;
    m->last_ns += ms * NS_PER_MS;
}

/* A meter that was read: how much of the time that its reader was away counts. */
static uint64_t since_read(const struct meter *m, uint64_t now, uint64_t uptime_ms)
{
    uint64_t wall = hv_wall_ns() / NS_PER_MS, gap = wall > m->at_ms ? wall - m->at_ms : 0;
    gap = MIN(MIN(gap, uptime_ms), GAP_MAX_MS);
    return now - MIN(now, gap * NS_PER_MS);
}

void metering_report(struct svc_vm *vm)
{
    struct meter *m = vm->meter;
    uint64_t now = hv_now_ns(), assigned = vm->memory.assigned;
    if (!m || !assigned)
        return;
    if (m->pid != worker_pid(vm)) {     /* it has just been started: what its worker counts is all new */
        m->pid = worker_pid(vm);
        m->last_cpu_ns = 0;
        m->last_ns = now;
        json_decref(m->last_disks);
        m->last_disks = NULL;
    } else if (!m->last_ns) {
        m->last_ns = since_read(m, now, vm->memory.uptime_ms);
    }
    read_memory(m, now, assigned);
    read_cpu(m, svc_count(vm->runtime, "cpu_ns"));
    read_disks(m, json_object_get(vm->runtime, "disks"));
}

/* From now on: what its counters are at is not of this meter. */
static void begin(struct svc_vm *vm)
{
    struct meter *m = vm->meter, keep = *m;
    *m = (struct meter){.since_ms = hv_wall_ns() / NS_PER_MS, .last_disks = keep.last_disks};
    if (!vm->runtime)
        return;
    m->pid = worker_pid(vm);
    m->last_ns = hv_now_ns();
    m->last_cpu_ns = svc_count(vm->runtime, "cpu_ns");
    read_disks(m, json_object_get(vm->runtime, "disks"));
    memset(m->disk, 0, sizeof(m->disk));
    read_memory(m, m->last_ns, vm->memory.assigned);
}

/* ---- the file ---- */

static char *path_of(const struct service *svc) { return hv_asprintf("%s/metering.json", svc->paths.state); }

static json_t *meter_store(struct meter *m)
{
    json_t *o = json_object(), *disk = json_array();
    for (unsigned i = 0; i < ARRAY_SIZE(stored); i++)
        json_object_set_new(o, stored[i].key, json_integer((json_int_t)*field(m, i)));
    for (unsigned k = 0; k < DISK_KEYS; k++)
        json_array_append_new(disk, json_integer((json_int_t)m->disk[k]));
    json_object_set_new(o, "disk", disk);
    json_object_set_new(o, "last_pid", json_integer(m->pid));
    if (m->last_disks)
        json_object_set(o, "last_disks", m->last_disks);
    return o;
}

static struct meter *meter_read(const json_t *o, uint64_t at_ms)
{
    struct meter *m = json_is_object(o) ? meter_new() : NULL;
    json_t *disks = json_object_get(o, "last_disks");
    if (!m)
        return NULL;
    for (unsigned i = 0; i < ARRAY_SIZE(stored); i++)
        *field(m, i) = svc_count(o, stored[i].key);
    for (unsigned k = 0; k < DISK_KEYS; k++) {
        json_int_t v = json_integer_value(json_array_get(json_object_get(o, "disk"), k));
        m->disk[k] = v > 0 ? (uint64_t)v : 0;
    }
    m->pid = json_integer_value(json_object_get(o, "last_pid"));
    m->at_ms = at_ms;
    m->last_disks = json_is_object(disks) ? json_incref(disks) : NULL;
    return m;
}

static int store(struct service *svc)
{
    hv_autofree char *path = path_of(svc);
    json_t *vms = json_object();
    char id[GUID_TEXT_SIZE];
    int r = 0;
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (vm->meter)
            json_object_set_new(vms, guid_format(&vm->id, id), meter_store(vm->meter));
    svc->metered_ns = hv_now_ns();
    if (!path || (!json_object_size(vms) && access(path, F_OK) < 0)) {
        json_decref(vms);
        return path ? 0 : -ENOMEM;
    }
    json_t *o = json_pack("{s:I s:o}", "at_ms", (json_int_t)(hv_wall_ns() / NS_PER_MS), "vms", vms);
    hv_autofree char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    r = text ? hv_replace_file(path, text, strlen(text), 0600) : -ENOMEM;
    if (r < 0)
        log_warning("%s: %s", path, strerror(-r));
    return r;
}

void metering_load(struct service *svc)
{
    hv_autofree char *path = path_of(svc), *text = NULL;
    size_t len = 0;
    int r = path ? hv_read_own_file(path, FILE_MAX, &text, &len) : -ENOMEM;
    json_error_t why = {.text = ""};
    json_t *o = r == 0 ? json_loadb(text, len, 0, &why) : NULL, *v;
    const char *id;
    if (path && !o && r != -ENOENT) {
        hv_autofree char *aside = hv_asprintf("%s.bad", path);
        log_error("%s: %s: metering begins anew%s", path, r < 0 ? strerror(-r) : why.text,
                  aside && rename(path, aside) == 0 ? ", what was there is in metering.json.bad" : "");
    }
    json_object_foreach(json_object_get(o, "vms"), id, v) {
        struct svc_vm *vm = registry_find(svc, id);
        if (vm && !vm->meter)
            vm->meter = meter_read(v, svc_count(o, "at_ms"));
    }
    json_decref(o);
    svc->metered_ns = hv_now_ns();
}

void metering_save(struct service *svc) { (void)store(svc); }

void metering_tick(struct service *svc)
{
    if (hv_now_ns() - svc->metered_ns >= SAVE_NS)
        (void)store(svc);
}

/* ---- for operators ---- */

json_t *metering_json(struct svc_vm *vm)
{
    const struct meter *m = vm->meter;
    char since[40];
    if (!m)
        return json_null();
    format_time_utc(m->since_ms * NS_PER_MS, since, sizeof(since));
    /* Per cent of one of the host's processors: what several VMs used can be added up. */
    double cpu = m->run_ms ? (double)m->cpu_ns / 1e4 / (double)m->run_ms : 0;
    uint64_t average = m->run_ms ? m->memory_mib_ms / m->run_ms * MIB : m->memory_max;
    return json_pack("{s:s s:I s:I s:f s:I s:I s:I s:I s:I s:I s:I s:I}", "since", since, "run_s", (json_int_t)(m->run_ms / 1000),
                     "cpu_s", (json_int_t)(m->cpu_ns / NS_PER_SEC), "cpu_avg_pct", cpu, "memory_avg", (json_int_t)average,
                     "memory_min", (json_int_t)m->memory_min, "memory_max", (json_int_t)m->memory_max, "disk_size",
                     (json_int_t)m->disk_max, "disk_reads", (json_int_t)m->disk[0], "disk_writes", (json_int_t)m->disk[1],
                     "disk_read", (json_int_t)m->disk[2], "disk_written", (json_int_t)m->disk[3]);
}

void metering_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    const char *action = json_string_value(json_object_get(params, "action"));
    struct hv_error e = {0};
    if (!vm)
        return;
    const bool enable = action && strcmp(action, "enable") == 0, disable = action && strcmp(action, "disable") == 0;
    bool changed = enable ? !vm->meter : vm->meter != NULL;
    if (!enable && !disable && (!action || strcmp(action, "reset") != 0)) {
        hv_fail(&e, HV_USAGE, action ? action : "", "is neither enable, disable nor reset");
    } else if (!enable && !disable && !vm->meter) {
        hv_fail(&e, HV_CONFLICT, vm->name, "it is not metered");
        hv_hint(&e, "hvctl metering enable %s", vm->name);
    } else if (disable) {
        meter_free(vm->meter);
        vm->meter = NULL;
    } else if (changed) {
        if (!vm->meter && !(vm->meter = meter_new()))
            hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
        else
            begin(vm);
    }
    if (hv_error_is_set(&e)) {
        varlink_reply_error(call, &e);
        return;
    }
    int r = changed ? store(vm->svc) : 0;
    if (r < 0) {
        hv_fail_errno(&e, -r, vm->name, "its meter cannot be stored");
        varlink_reply_error(call, &e);
        return;
    }
    if (changed)
        event_add(vm->svc, "config", vm->name, "info", varlink_call_peer(call)->uid, NULL, NULL, "metering %s",
                  enable ? "enabled" : disable ? "disabled" : "reset");
    varlink_reply(call, json_pack("{s:b s:o}", "changed", changed, "vm", svc_vm_json(vm)), false);
}
