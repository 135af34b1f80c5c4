/*
 * Makes recordings for hvtop(1): the same bytes every time, no clock is read.
 *
 *   hvrec_make --scene FILE [HOSTS]    six VMs of one host (or nine of two), five minutes up to 23:20:06
 *   hvrec_make --load FILE VMS N       VMS VMs, N samples a second apart, everything moves
 *   hvrec_make --day FILE              a day of 60 servers under the balancer (what `hvtop --replay --sample` shows)
 */
#include <stdio.h>
#include <stdlib.h>

#include "hv/base/units.h"
#include "hvtop/record.h"
#include "tests/bench/dm_load.h"
#include "tests/bench/dm_model.h"

#define SCENE_END_MS 1795216806000ull        /* 2026-11-20T23:20:06Z */
#define DAY_BEGIN_MS 1795132800000ull        /* 2026-11-20T00:00:00Z */

static void check(int r, const struct hv_error *e)
{
    if (r < 0) {
        fprintf(stderr, "hvrec_make: %s: %s\n", e->object, e->message);
        exit(1);
    }
}

static void put(struct recorder *rec, json_t *msg)
{
    struct hv_error e = {0};
    check(recorder_write(rec, msg, &e), &e);
    json_decref(msg);
}

static const char *const columns[] = {
    "name", "id", "state", "uptime_ms", "cpu_pct", "assigned", "resident", "demand", "status", "why", "buffer_now_pct",
    "pressure_pct", "balloon", "hot_added", "target", "committed", "available", "change", "dynamic", "startup", "min", "max",
    "buffer_pct", "priority", "cpus", "heartbeat", "shutdown", "timesync", "engine", "kernel", "resets", "pid", "reason",
    "group", "job", "services", "read", "write", "iops", "latency_us", "queue", "disk_used", "disk_size", "disk_path", "disks",
    "vcpu_pct", "exits", "hypercalls", "interrupts",
};

static json_t *columns_json(void)
{
    json_t *a = json_array();
    for (unsigned i = 0; i < ARRAY_SIZE(columns); i++) {
        json_array_append_new(a, json_string(columns[i]));
    }
    return a;
}

/* What a row says. Sizes in MiB; a negative number is unknown. */
struct row {
    const char *name, *state, *status, *why, *heartbeat;
    int64_t assigned, demand, balloon, hot_added, target, change;
    int64_t startup, min, max, buffer_pct, priority, cpus, uptime_s;
    double cpu_pct;
    bool dynamic, runs;
    unsigned n;                     /* its number: makes the GUID and the process id */
};

static json_t *size_or_null(int64_t mib, bool known) { return known ? json_integer(mib * (int64_t)MIB) : json_null(); }
static json_t *word_or_null(const char *s) { return s && *s ? json_string(s) : json_null(); }

/* Disks as busy as its processors: n of them, the first the busiest. */
static json_t *disks_json(const struct row *r, unsigned n)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++) {
        char path[80], where[16];
        json_int_t share = (json_int_t)(r->cpu_pct * 10) / (1 + 3 * i);
        snprintf(path, sizeof(path), "/srv/vm/%s%s.vhdx", r->name, i ? "-data" : "");
        snprintf(where, sizeof(where), "scsi0:%u", i);
        json_array_append_new(list, json_pack("[s s s I I I I I I I]", where, path, "disk", share * 13107, share * 65536, share * 14 / 10,
                                              (json_int_t)(800 + 13 * r->n * 100), share / 300, (json_int_t)((18 + 3 * i) * GIB),
                                              (json_int_t)(64 * GIB)));
    }
    return list;
}

static json_int_t sum(const json_t *list, unsigned part)
{
    json_int_t n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        n += json_integer_value(json_array_get(json_array_get(list, i), part));
    }
    return n;
}

/* What goes beyond memory, in the order of the columns. */
static void add_load(json_t *a, const struct row *r)
{
    json_t *disks = disks_json(r, r->n % 2 ? 1 : 2), *each = json_array();
    char path[80];
    snprintf(path, sizeof(path), "/srv/vm/%s.vhdx", r->name);
    json_array_append_new(a, r->n == 5 ? json_string("shop") : json_null());
    json_array_append_new(a, json_null());
    json_array_append_new(a, json_string("heartbeat ok 3.2, shutdown ok 3.2, time-sync ok 4.0, kvp no-daemon 5.0, vss no-contact, file-copy off"));
    for (unsigned i = 3; i < 10; i++) {          /* read to size; 6 is the latency */
        json_array_append_new(a, json_integer(i == 6 ? 800 + 1300 * (json_int_t)r->n : sum(disks, i)));
    }
    json_array_append_new(a, json_string(path));
    json_array_append_new(a, disks);
    for (int64_t i = 0; i < r->cpus; i++) {
        json_array_append_new(each, json_integer(MAX((json_int_t)r->cpu_pct - 2 * (json_int_t)i, 0)));
    }
    json_array_append_new(a, each);
    json_array_append_new(a, json_integer((json_int_t)(r->cpu_pct * 41)));
    json_array_append_new(a, json_integer((json_int_t)(r->cpu_pct * 17)));
    json_array_append_new(a, json_integer((json_int_t)(r->cpu_pct * 23)));
}

static json_t *row_json(const struct row *r)
{
    char id[40];
    bool known = r->runs && r->demand >= 0;
    json_t *a = json_array();
    snprintf(id, sizeof(id), "%08x-0000-4000-8000-%012x", 0x5f1c8a00u + r->n, r->n);
    json_t *const v[] = {
        json_string(r->name), json_string(id), json_string(r->state),
        r->runs ? json_integer(r->uptime_s * 1000) : json_null(), r->runs ? json_real(r->cpu_pct) : json_null(),
        size_or_null(r->assigned, r->runs), size_or_null(r->assigned, r->runs), size_or_null(r->demand, known),
        word_or_null(known ? r->status : NULL), word_or_null(r->runs ? r->why : NULL),
        known && r->demand ? json_integer((r->assigned - r->demand) * 100 / r->demand) : json_null(),
        known && r->assigned ? json_integer(r->demand * 100 / r->assigned) : json_null(),
        size_or_null(r->balloon, r->runs), size_or_null(r->hot_added, r->runs), size_or_null(r->target, known),
        size_or_null(r->demand + r->balloon, known), size_or_null(r->assigned - r->demand, known && r->assigned > r->demand),
        size_or_null(r->change, r->runs), json_boolean(r->dynamic), size_or_null(r->startup, true),
        size_or_null(r->min, true), size_or_null(r->max, true), json_integer(r->buffer_pct), json_integer(r->priority),
        json_integer(r->cpus), word_or_null(r->runs ? r->heartbeat : NULL), r->runs ? json_true() : json_null(),
        r->runs ? json_true() : json_null(), r->runs ? json_string("kvm") : json_null(),
        r->runs ? json_string("Linux 6.1.0-28-amd64") : json_null(), r->runs ? json_integer(0) : json_null(),
        r->runs ? json_integer(20000 + r->n) : json_null(), r->runs ? json_null() : json_string("the guest powered off"),
    };
    for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
        json_array_append_new(a, v[i]);
    }
    if (r->runs) {
        add_load(a, r);
    }
    while (json_array_size(a) < ARRAY_SIZE(columns)) {
        json_array_append_new(a, json_null());
    }
    return a;
}

/* Sizes in MiB. */
static json_t *host_json(const char *name, int cpus, double cpu_pct, int64_t total, int64_t root, int64_t charged, int64_t free_mib,
                         const char *balancer, int64_t uptime_s)
{
    return json_pack("{s:s s:s s:s s:s s:s s:i s:f s:s s:I s:{s:f s:f s:f} s:[{s:i s:I s:I} {s:i s:I s:I}] "
                     "s:{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:i s:i s:I}}", "name", name, "version",
                     HV_VERSION, "mode", "system", "kernel", "6.1.0-28-amd64", "engine", "kvm", "cpus", cpus, "cpu_pct", cpu_pct,
                     "balancer", balancer, "uptime_s", (json_int_t)uptime_s, "psi", "cpu", 1.5, "memory", free_mib < 1024 ? 12.0 : 0.0, "io", 0.3, "numa",
                     "node", 0, "total", (json_int_t)(total / 2 * (int64_t)MIB), "free", (json_int_t)(free_mib / 2 * (int64_t)MIB), "node", 1,
                     "total", (json_int_t)(total / 2 * (int64_t)MIB), "free", (json_int_t)(free_mib / 2 * (int64_t)MIB), "memory", "total", (json_int_t)(total * MIB), "available",
                     (json_int_t)((free_mib + root / 2) * (int64_t)MIB), "reserve", (json_int_t)(root * MIB), "overhead", (json_int_t)0,
                     "pool", (json_int_t)((total - root) * MIB), "charged", (json_int_t)(charged * MIB), "free",
                     (json_int_t)(free_mib * MIB), "vm_memory", (json_int_t)0, "spike_pool", (json_int_t)(512 * MIB),
                     "current_pressure_pct", 94, "average_pressure_pct", 92, "page_tables", (json_int_t)(71 * MIB));
}

static json_t *sample(unsigned host, uint64_t ms, json_t *rows, json_t *info)
{
    return json_pack("{s:i s:I s:o s:o}", "host", (int)host, "time_ms", (json_int_t)ms, "rows", rows, "info", info);
}

static void say(struct recorder *rec, unsigned host, uint64_t ms, const char *kind, const char *vm, const char *severity,
                const char *hint, const char *message)
{
    static json_int_t seq;
    put(rec, json_pack("{s:i s:I s:{s:I s:I s:s s:s? s:s s:s s:s?}}", "host", (int)host, "time_ms", (json_int_t)ms, "event", "seq", ++seq,
                       "time_ms", (json_int_t)ms, "kind", kind, "vm", vm, "severity", severity, "message", message, "hint", hint));
}

/* ---- the scene of the manual ---- */

static int64_t lerp(int64_t a, int64_t b, int at, int of) { return a + (b - a) * at / of; }

static json_t *scene_rows(unsigned host, int i, int n)
{
    const struct row one[] = {
        {"build-old", "off", .n = 1, .startup = 2048, .min = 512, .max = 8192, .buffer_pct = 20, .priority = 30, .cpus = 2, .dynamic = true},
        {"ci-runner", "running", i * 100 / n > 85 ? "warning" : i * 100 / n > 60 ? "low" : "ok", i * 100 / n > 60 ? "host" : "moving", "ok",
         lerp(2048, 6144, i, n) / 128 * 128, lerp(1400, 6554, i, n), 205, 5324, 7864, 4096, 1024, 512, 16384, 20, 20, 4, 11500 + 2 * i, 97, true,
         true, 2},
        {"db1", "running", "low", "max", "ok", 12288, lerp(11400, 11878, i, n), 0, 8192, 12288, 4198, 4096, 2048, 12288, 20, 80, 8,
         1051200 + 2 * i, 31, true, true, 3},
        {"mail", "running", "ok", "giving", "ok", lerp(2560, 2048, i, n) / 2 * 2, 1229, 512, 1024, 1536, -512, 1024, 512, 4096, 20, 50, 2,
         1051200 + 2 * i, 2, true, true, 4},
        {"web1", "running", "ok", "", "ok", 4096, 3379 + (i % 7) * 8, 0, 2048, 4096, 0, 2048, 1024, 8192, 20, 50, 2, 1051200 + 2 * i, 12,
         true, true, 5},
        {"win-ad", "running", NULL, "static", "no-contact", 1946, -1, 0, 0, -1, 0, 1946, 1946, 1946, 20, 50, 2, 522000 + 2 * i, 1, false, true, 6},
    };
    const struct row two[] = {
        {"lab", "paused", "ok", "frozen", "ok", 2048, 1229, 0, 1024, 2048, 0, 1024, 512, 4096, 20, 10, 2, 172800, 0, true, true, 7},
        {"sql-a", "running", "ok", "", "ok", 16384, 13210, 0, 8192, 16384, 0, 8192, 4096, 24576, 20, 90, 8, 3456000 + 2 * i, 22, true, true, 8},
        {"sql-b", "running", "ok", "giving", "ok", lerp(13312, 12288, i, n) / 2 * 2, lerp(8600, 7782, i, n), 512, 4096, 9340, -1024, 8192, 4096,
         24576, 20, 90, 8, 3456000 + 2 * i, 8, true, true, 9},
    };
    json_t *rows = json_array();
    for (unsigned k = 0; k < (host ? ARRAY_SIZE(two) : ARRAY_SIZE(one)); k++) {
        json_array_append_new(rows, row_json(host ? &two[k] : &one[k]));
    }
    return rows;
}

static void scene(const char *path, unsigned hosts)
{
    static const char *const names[] = {"vmhost1", "vmhost2"};
    struct recorder *rec;
    struct hv_error e = {0};
    const int n = 150;
    check(recorder_open(path, hosts, &rec, &e), &e);
    for (unsigned h = 0; h < hosts; h++) {
        put(rec, json_pack("{s:i s:s s:o}", "host", (int)h, "name", names[h], "columns", columns_json()));
    }
    say(rec, 0, SCENE_END_MS - 290000, "job", "build-old", "info", NULL, "job 318: stop done");
    for (int i = 0; i < n; i++) {
        uint64_t ms = SCENE_END_MS - (uint64_t)(n - 1 - i) * 2000;
        if (hosts > 1) {
            put(rec, sample(1, ms, scene_rows(1, i, n),
                            host_json("vmhost2", 32, 11, 65536, 4096, 30720, 30720, "at rest", 3495600 + 2 * i)));
        }
        put(rec, sample(0, ms, scene_rows(0, i, n), host_json("vmhost1", 16, 41, 28672, 2048, 26522, 102, "short", 1051200 + 2 * i)));
        if (i == 60) {
            say(rec, 0, ms, "memory", "ci-runner", "warning", NULL, "memory Warning: 3.4G of 3.3G needed, host");
        } else if (i == 145) {
            say(rec, 0, ms, "memory", "db1", "warning", "hvctl memory set db1 --max 16G", "demand 11.6G plus 20% is over its maximum of 12.0G");
        } else if (i == 149) {
            say(rec, 0, ms, "memory", "ci-runner", "warning", "hvctl memory set ci-runner --priority 60", "wants 7.7G and has 6.0G: 0.1G free");
        }
    }
    check(recorder_close(rec, &e), &e);
}

/* ---- load ---- */

static void load(const char *path, unsigned vms, unsigned n)
{
    struct recorder *rec;
    struct hv_error e = {0};
    uint64_t seed = 1;
    check(recorder_open(path, 1, &rec, &e), &e);
    put(rec, json_pack("{s:i s:s s:o}", "host", 0, "name", "big", "columns", columns_json()));
    for (unsigned i = 0; i < n; i++) {
        json_t *rows = json_array();
        int64_t sum = 0;
        for (unsigned k = 0; k < vms; k++) {
            char name[32];
            snprintf(name, sizeof(name), "vm-%04u", k);
            struct row r = {.name = name, .state = "running", .status = k % 50 == 0 ? "warning" : k % 20 == 0 ? "low" : "ok",
                            .why = k % 20 == 0 ? "host" : "", .heartbeat = "ok", .n = k, .runs = true, .dynamic = true, .startup = 1024,
                            .min = 512, .max = 8192, .buffer_pct = 20, .priority = 50, .cpus = 2, .uptime_s = 3600 + i};
            r.demand = 800 + (int64_t)(model_random(&seed) % 400);
            r.assigned = r.target = r.demand * 6 / 5;
            r.cpu_pct = (double)(model_random(&seed) % 1000) / 10;
            sum += r.assigned;
            json_array_append_new(rows, row_json(&r));
        }
        put(rec, sample(0, SCENE_END_MS + i * 1000ull, rows, host_json("big", 128, 50, 1 << 20, 1 << 15, sum, 1 << 18, "at rest", 86400 + i)));
    }
    check(recorder_close(rec, &e), &e);
}

/* ---- a day ---- */

enum { DAY_VMS = 60, DAY_POOL = 68 * 1024, DAY_ROOT = 3072, DAY_STEP_S = 60 };

static const char *const role_names[ROLE_COUNT] = {"web", "print", "files", "branch", "logon", "desk", "batch"};

static void name_vms(char name[DAY_VMS][16], const struct load *l)
{
    unsigned count[ROLE_COUNT] = {0};
    for (unsigned i = 0; i < DAY_VMS; i++) {
        snprintf(name[i], 16, "%s%u", role_names[l[i].role], ++count[l[i].role]);
    }
}

static void day_events(struct recorder *rec, uint64_t ms, const char *name, enum dm_status was, const struct model_vm *v,
                       const struct dm_plan *p)
{
    char d[32], a[32], text[160];
    if (was == p->status || (was != DM_WARNING && p->status != DM_WARNING) || was == DM_UNKNOWN) {
        return;
    }
    bool warning = p->status == DM_WARNING;
    snprintf(text, sizeof(text), "memory %s: %s of %s needed", warning ? "Warning" : "OK again", format_size(p->demand * MIB, d, sizeof(d)),
             format_size(v->dm.assigned * MIB, a, sizeof(a)));
    say(rec, 0, ms, "memory", name, warning ? "warning" : "info", NULL, text);
}

static void day(const char *path)
{
    static struct load l[DAY_VMS];
    static char name[DAY_VMS][16];
    static enum dm_status was[DAY_VMS];
    struct recorder *rec;
    struct hv_error e = {0};
    struct model m;
    model_init(&m, DAY_VMS, DAY_POOL, 1);
    for (unsigned i = 0; i < DAY_VMS; i++) {
        struct model_vm *v = &m.vm[i];
        v->dm.startup = v->dm.assigned = 1024;
        v->dm.min = 512;
        v->dm.max = 8192;
        v->dm.buffer_pct = 20;
        v->dm.weight = i % 5 == 0 ? 8000 : 5000;
        v->dm.state = DM_BOOT;
        v->dm.can_balloon = v->dm.can_hot_add = true;
        v->boots_until = 45;
        load_init(&l[i], i, 1);
    }
    name_vms(name, l);
    check(recorder_open(path, 1, &rec, &e), &e);
    put(rec, json_pack("{s:i s:s s:o}", "host", 0, "name", "vmhost1", "columns", columns_json()));
    for (uint32_t t = 0; t < DAY; t++) {
        uint64_t ms = DAY_BEGIN_MS + t * 1000ull;
        for (unsigned i = 0; i < DAY_VMS; i++) {
            m.vm[i].used = load_at(&l[i], t);
            m.vm[i].committed = m.vm[i].used + m.vm[i].used / 10;
        }
        model_step(&m);
        if (m.broken) {
            fprintf(stderr, "hvrec_make: %s\n", m.broken);
            exit(1);
        }
        for (unsigned i = 0; i < DAY_VMS; i++) {
            day_events(rec, ms, name[i], was[i], &m.vm[i], &m.plan[i]);
            was[i] = m.plan[i].status;
        }
        if (t % DAY_STEP_S) {
            continue;
        }
        static const char *const words[DM_STATUS_COUNT] = {"", "ok", "low", "warning"};
        json_t *rows = json_array();
        double busy = 0;
        for (unsigned i = 0; i < DAY_VMS; i++) {
            const struct model_vm *v = &m.vm[i];
            const struct dm_plan *p = &m.plan[i];
            bool known = p->status != DM_UNKNOWN;
            double cpu = (v->used - 250) / 40.0;
            struct row r = {.name = name[i], .state = "running", .status = words[p->status], .why = dm_reason_words[p->why], .heartbeat = "ok",
                            .assigned = v->dm.assigned, .demand = known ? (int64_t)p->demand : -1, .balloon = v->dm.ballooned,
                            .hot_added = v->dm.assigned + v->dm.ballooned > 1024 ? (int64_t)(v->dm.assigned + v->dm.ballooned - 1024) : 0,
                            .target = p->target, .startup = 1024, .min = 512, .max = 8192, .buffer_pct = 20,
                            .priority = (int64_t)v->dm.weight / 100, .cpus = 2, .uptime_s = t, .dynamic = true, .runs = true, .n = i};
            r.cpu_pct = cpu < 1 ? 1 : cpu > 98 ? 98 : (double)(int)cpu;
            busy += r.cpu_pct;
            json_array_append_new(rows, row_json(&r));
        }
        int64_t charged = (int64_t)model_charged(&m);
        put(rec, sample(0, ms, rows, host_json("vmhost1", 64, (double)(int)(busy * 2 / 64), DAY_POOL + DAY_ROOT, DAY_ROOT, charged, DAY_POOL - charged,
                                               m.hp.unmet || m.hp.deficit ? "short" : m.hp.in_flight_in ? "adding"
                                               : m.hp.in_flight_out ? "reclaiming" : "at rest", t)));
    }
    check(recorder_close(rec, &e), &e);
    model_fini(&m);
}

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "--scene") == 0) {
        scene(argv[2], argc > 3 && strcmp(argv[3], "2") == 0 ? 2 : 1);
    } else if (argc == 5 && strcmp(argv[1], "--load") == 0) {
        load(argv[2], (unsigned)strtoul(argv[3], NULL, 10), (unsigned)strtoul(argv[4], NULL, 10));
    } else if (argc == 3 && strcmp(argv[1], "--day") == 0) {
        day(argv[2]);
    } else {
        fprintf(stderr, "usage: hvrec_make --scene FILE [1|2] | --load FILE VMS N | --day FILE\n");
        return 2;
    }
    return 0;
}
