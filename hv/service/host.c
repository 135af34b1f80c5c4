/* The host: its memory, whether a VM fits, what `host show` says. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "hv/base/log.h"
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

/* A group's memory is all there is, for what runs in it: workers in their scopes, or beside this process. */
static void within_groups(struct service *svc, struct host_memory *m)
{
    hv_autofree char *text = scopes_membership(svc);
    if (!text && hv_read_file("/proc/self/cgroup", 64 * KIB, &text, NULL) < 0)
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
    within_groups(svc, ret);
    /* Kept for the host itself: 384 MiB and 30 MiB for each GiB, or 4 per cent, or what was configured. */
    uint64_t formula = MAX(384 * MIB + ret->total / GIB * 30 * MIB, ret->total / 25);
    ret->reserve = MAX(formula, svc->host.root_reserve);
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        if (vm->state == SVC_OFF)
            continue;
        uint64_t charge = svc_vm_charge(vm);
        ret->overhead += svc_vm_overhead(vm);
        ret->charged += charge;
        ret->untouched += charge > vm->memory.resident ? charge - vm->memory.resident : 0;
    }
    uint64_t all = ret->total > ret->reserve ? ret->total - ret->reserve : 0;
    all = svc->host.vm_memory ? MIN(all, svc->host.vm_memory) : all;
    ret->pool = all > ret->overhead ? all - ret->overhead : 0;
    /* Other programs and other users' services count: no more than what is really there. */
    uint64_t taken = ret->untouched + ret->reserve / 2;
    uint64_t there = ret->available > taken ? ret->available - taken : 0;
    ret->free = MIN(there, ret->pool > ret->charged ? ret->pool - ret->charged : 0);
}

/* ---- configured values: host.json in the state folder ---- */

#define BALANCER_DELAY_MAX_MS (24 * 3600 * 1000)
#define METRICS_DEFAULT "127.0.0.1:9177"

/* ADDR:PORT or [ADDR]:PORT, numbers only: nothing is looked up. */
static bool is_address(const char *s)
{
    char addr[64];
    unsigned char raw[16];
    const char *colon = strrchr(s, ':'), *from = s, *end = colon;
    if (!colon)
        return false;
    bool six = *s == '[' && colon > s && colon[-1] == ']';
    if (six)
        from++, end--;
    size_t digits = strspn(colon + 1, "0123456789"), len = (size_t)(end - from);
    if (len >= sizeof(addr) || digits == 0 || digits > 5 || colon[1 + digits] || strtoul(colon + 1, NULL, 10) > 65535)
        return false;
    memcpy(addr, from, len);
    addr[len] = 0;
    return inet_pton(six ? AF_INET6 : AF_INET, addr, raw) == 1;
}

int host_settings_take(struct host_settings *h, const json_t *o, struct hv_error *e)
{
    const struct { const char *key; uint64_t *value, max; } numbers[] = {
        {"vm_memory", &h->vm_memory, UINT64_C(1) << 50},
        {"root_reserve", &h->root_reserve, UINT64_C(1) << 50},
        {"balancer_delay_ms", &h->balancer_delay_ms, BALANCER_DELAY_MAX_MS},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        const json_t *v = json_object_get(o, numbers[i].key);
        if (!json_is_integer(v))
            continue;
        if (json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > numbers[i].max)
            return hv_fail(e, HV_USAGE, numbers[i].key, "%" JSON_INTEGER_FORMAT " is out of range", json_integer_value(v));
        *numbers[i].value = (uint64_t)json_integer_value(v);
    }
    const json_t *on = json_object_get(o, "balancer"), *metrics = json_object_get(o, "metrics");
    if (json_is_boolean(on))
        h->balancer_off = json_is_false(on);
    const char *at = json_string_value(metrics);
    if (!at)
        return 0;
    if (strcmp(at, "default") == 0)
        at = METRICS_DEFAULT;
    if (*at && !is_address(at)) {
        hv_fail(e, HV_USAGE, at, "is no address to listen at");
        hv_hint(e, "127.0.0.1:9177, [::1]:9177, or off");
        return -EINVAL;
    }
    hv_strlcpy(h->metrics, at, sizeof(h->metrics));
    return 0;
}

json_t *host_settings_json(const struct host_settings *h)
{
    return json_pack("{s:I s:I s:I s:b s:s}", "vm_memory", (json_int_t)h->vm_memory, "root_reserve",
                     (json_int_t)h->root_reserve, "balancer_delay_ms", (json_int_t)h->balancer_delay_ms, "balancer",
                     !h->balancer_off, "metrics", h->metrics);
}

void host_settings_load(struct service *svc)
{
    hv_autofree char *path = hv_asprintf("%s/host.json", svc->paths.state), *text = NULL;
    size_t len = 0;
    int r = path ? hv_read_own_file(path, 64 * KIB, &text, &len) : -ENOMEM;
    json_t *o = r == 0 ? json_loadb(text, len, 0, NULL) : NULL;
    struct hv_error e = {0};
    svc->host = (struct host_settings){.balancer_delay_ms = DM_SETTLE_MS, .metrics = METRICS_DEFAULT};
    struct host_settings read = svc->host;
    if (!o && r != -ENOENT)
        log_warning("%s: %s: defaults are taken", path ? path : "host.json", r < 0 ? strerror(-r) : "it is no JSON");
    else if (o && host_settings_take(&read, o, &e) < 0)
        log_warning("%s: %s %s: defaults are taken", path, e.object, e.message);
    else
        svc->host = read;
    json_decref(o);
}

static int store(struct service *svc, const struct host_settings *h, struct hv_error *e)
{
    hv_autofree char *path = hv_asprintf("%s/host.json", svc->paths.state);
    json_t *o = host_settings_json(h);
    hv_autofree char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    json_decref(o);
    if (!path || !text)
        return hv_fail(e, HV_NO_RESOURCES, "host", "out of memory");
    int r = hv_replace_file(path, text, strlen(text), 0600);
    return r < 0 ? hv_fail_errno(e, -r, path, "cannot store the host's settings") : 0;
}

int host_settings_change(struct service *svc, const json_t *params, bool *ret_changed, struct hv_error *e)
{
    struct host_settings h = svc->host;
    int r = host_settings_take(&h, params, e);
    bool changed = r == 0 && memcmp(&h, &svc->host, sizeof(h)) != 0;
    if (changed && (r = store(svc, &h, e)) < 0)
        (void)store(svc, &svc->host, NULL);    /* the new file may have the name already, and only not be safe */
    if (r < 0)
        return r;
    svc->host = h;
    *ret_changed = changed;
    return 0;
}

int host_admit(struct svc_vm *vm, uint64_t beside, uint64_t *ret_takes, struct hv_error *e)
{
    struct host_memory m;
    char need[SIZE_TEXT], has[SIZE_TEXT], fits[32];
    host_memory(vm->svc, &m);
    uint64_t overhead = svc_vm_overhead(vm);
    m.free = m.free > beside ? m.free - beside : 0;
    uint64_t freemem = m.free > overhead ? m.free - overhead : 0;
    uint64_t boot = settings_boot_memory(&vm->settings);
    *ret_takes = boot + overhead;
    if (boot <= freemem)
        return 0;
    format_sizes(boot, need, freemem, has);
    hv_fail(e, HV_NO_RESOURCES, vm->name, "cannot start: it needs %s to start, this host has %s free", need, has);
    uint64_t fit = ROUND_DOWN(freemem, 64 * MIB);
    if (fit > 0)
        hv_hint(e, "hvctl memory set %s %s %s, or hvtop -s demand to see who has memory to give", vm->name,
                boot > vm->settings.memory.startup ? "--max" : "--startup", format_size_exact(fit, fits, sizeof(fits)));
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
    char disk_path[HV_PATH_SIZE + 8];
    host_memory(svc, &m);
    snprintf(disk_path, sizeof(disk_path), "%s/disks", svc->paths.state);
    if (uname(&u) < 0)
        memset(&u, 0, sizeof(u));
    return json_pack("{s:s s:s s:s s:s s:s s:s s:s s:i s:i s:i s:b s:I s:s? s:{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I}}", "name", u.nodename, "version",
                     HV_VERSION, "mode", svc->paths.mode == HV_MODE_SYSTEM ? "system" : "user", "kernel", u.release,
                     "engine", "soft", "state_dir", svc->paths.state, "disk_path", disk_path, "cpus", (int)sysconf(_SC_NPROCESSORS_ONLN),
                     "vms", (int)count(svc, false), "running", (int)count(svc, true), "balancer_on", !svc->host.balancer_off,
                     "balancer_delay_ms", (json_int_t)svc->host.balancer_delay_ms, "metrics",
                     svc->host.metrics[0] ? svc->host.metrics : NULL, "memory", "total",
                     (json_int_t)m.total, "available", (json_int_t)m.available, "reserve", (json_int_t)m.reserve,
                     "charged", (json_int_t)m.charged, "free", (json_int_t)m.free, "pool", (json_int_t)m.pool, "overhead",
                     (json_int_t)m.overhead, "vm_memory", (json_int_t)svc->host.vm_memory, "root_reserve",
                     (json_int_t)svc->host.root_reserve, "spike_pool",
                     (json_int_t)(svc->balance_plan.spike_pool * MIB), "average_pressure_pct",
                     (json_int_t)svc->balance_plan.average_pressure, "current_pressure_pct",
                     (json_int_t)svc->balance_plan.current_pressure);
}

bool host_virtualization(void) { return host_cpu_flag("vmx") || host_cpu_flag("svm"); }
