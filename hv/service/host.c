/* The host: its memory, whether a VM fits, what `host show` says. */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "hv/base/strbuf.h"
#include "hv/base/units.h"
#include "hv/service/cgroup.h"
#include "hv/service/service.h"

/* ---- memory ---- */

static uint64_t meminfo(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) * KIB : 0;
}

/* A container's memory is its group's, and what is outside of it is not there for us. */
static void within_groups(struct host_memory *m)
{
    hv_autofree char *text = NULL;
    if (hv_read_file("/proc/self/cgroup", 64 * KIB, &text, NULL) < 0)
        return;
    struct cgroup_memory g = cgroup_memory(text, "/sys/fs/cgroup");
    m->limited = g.limit < m->total;
    m->total = MIN(m->total, g.limit);
    m->available = MIN(m->available, g.available);
}

void host_memory(struct service *svc, struct host_memory *ret)
{
    hv_autofree char *text = NULL;
    *ret = (struct host_memory){0};
    if (hv_read_file("/proc/meminfo", 64 * KIB, &text, NULL) == 0) {
        ret->total = meminfo(text, "MemTotal:");
        ret->available = meminfo(text, "MemAvailable:");
    }
    within_groups(ret);
    /* Kept for the host itself: 384 MiB and 30 MiB for each GiB, or 4 per cent, or what was configured. */
    uint64_t formula = MAX(384 * MIB + ret->total / GIB * 30 * MIB, ret->total / 25);
    ret->reserve = MAX(formula, svc->root_reserve);
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        if (vm->state == SVC_OFF)
            continue;
        uint64_t charge = svc_vm_charge(vm);
        json_t *m = json_object_get(vm->runtime, "memory");
        uint64_t resident = (uint64_t)json_integer_value(json_object_get(m, "resident"));
        ret->overhead += svc_vm_overhead(vm);
        ret->charged += charge;
        ret->untouched += charge > resident ? charge - resident : 0;
    }
    uint64_t all = ret->total > ret->reserve ? ret->total - ret->reserve : 0;
    all = svc->vm_memory ? MIN(all, svc->vm_memory) : all;
    ret->pool = all > ret->overhead ? all - ret->overhead : 0;
    /* Other programs and other users' services count: no more than what is really there. */
    uint64_t taken = ret->untouched + ret->reserve / 2;
    uint64_t there = ret->available > taken ? ret->available - taken : 0;
    ret->free = MIN(there, ret->pool > ret->charged ? ret->pool - ret->charged : 0);
}

/* ---- configured limits: host.json in the state folder ---- */

void host_settings_load(struct service *svc)
{
    hv_autofree char *path = hv_asprintf("%s/host.json", svc->paths.state);
    json_t *o = path ? json_load_file(path, 0, NULL) : NULL;
    json_int_t cap = json_integer_value(json_object_get(o, "vm_memory"));
    json_int_t reserve = json_integer_value(json_object_get(o, "root_reserve"));
    svc->vm_memory = cap > 0 ? (uint64_t)cap : 0;
    svc->root_reserve = reserve > 0 ? (uint64_t)reserve : 0;
    json_decref(o);
}

int host_settings_store(struct service *svc, struct hv_error *e)
{
    hv_autofree char *path = hv_asprintf("%s/host.json", svc->paths.state);
    json_t *o = json_pack("{s:I s:I}", "vm_memory", (json_int_t)svc->vm_memory, "root_reserve",
                          (json_int_t)svc->root_reserve);
    hv_autofree char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    json_decref(o);
    if (!path || !text)
        return hv_fail(e, HV_NO_RESOURCES, "host", "out of memory");
    int r = hv_replace_file(path, text, strlen(text), 0600);
    return r < 0 ? hv_fail_errno(e, -r, path, "cannot store the host's settings") : 0;
}

int host_admit(struct svc_vm *vm, struct hv_error *e)
{
    struct host_memory m;
    char need[32], has[32], fits[32];
    host_memory(vm->svc, &m);
    uint64_t overhead = svc_vm_overhead(vm);
    uint64_t freemem = m.free > overhead ? m.free - overhead : 0;
    if (vm->settings.memory.startup <= freemem)
        return 0;
    hv_fail(e, HV_NO_RESOURCES, vm->name, "cannot start: it needs %s to start, this host has %s free",
            format_size(vm->settings.memory.startup, need, sizeof(need)), format_size(freemem, has, sizeof(has)));
    uint64_t fit = ROUND_DOWN(freemem, 64 * MIB);
    if (fit > 0)
        hv_hint(e, "hvctl memory set %s --startup %s, or stop another VM", vm->name,
                format_size_exact(fit, fits, sizeof(fits)));
    return -ENOMEM;
}

static unsigned count(struct service *svc, bool running)
{
    unsigned n = 0;
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        n += !running || vm->state != SVC_OFF;
    return n;
}

bool host_cpu_flag(const char *flag)
{
    hv_autofree char *text = NULL;
    if (hv_read_file("/proc/cpuinfo", 4 * MIB, &text, NULL) < 0)
        return false;
    const char *line = strstr(text, "flags");
    size_t len = line ? strcspn(line, "\n") : 0, n = strlen(flag);
    for (size_t i = 0; i + n <= len; i++)
        if (line[i] == ' ' && strncmp(line + i + 1, flag, n) == 0 && (line[i + 1 + n] == ' ' || line[i + 1 + n] == '\n'))
            return true;
    return false;
}

json_t *host_json(struct service *svc)
{
    struct host_memory m;
    struct utsname u;
    host_memory(svc, &m);
    if (uname(&u) < 0)
        memset(&u, 0, sizeof(u));
    return json_pack("{s:s s:s s:s s:s s:s s:s s:i s:i s:i s:{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I}}", "name", u.nodename, "version",
                     HV_VERSION, "mode", svc->paths.mode == HV_MODE_SYSTEM ? "system" : "user", "kernel", u.release,
                     "engine", "soft", "state_dir", svc->paths.state, "cpus", (int)sysconf(_SC_NPROCESSORS_ONLN),
                     "vms", (int)count(svc, false), "running", (int)count(svc, true), "memory", "total",
                     (json_int_t)m.total, "available", (json_int_t)m.available, "reserve", (json_int_t)m.reserve,
                     "charged", (json_int_t)m.charged, "free", (json_int_t)m.free, "pool", (json_int_t)m.pool, "overhead",
                     (json_int_t)m.overhead, "vm_memory", (json_int_t)svc->vm_memory, "spike_pool",
                     (json_int_t)(svc->balance_plan.spike_pool * MIB), "average_pressure_pct",
                     (json_int_t)svc->balance_plan.average_pressure, "current_pressure_pct",
                     (json_int_t)svc->balance_plan.current_pressure);
}

bool host_virtualization(void) { return host_cpu_flag("vmx") || host_cpu_flag("svm"); }
