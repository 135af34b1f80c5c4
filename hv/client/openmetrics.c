/*
 * One table of metric families; each is written whole, a line a VM, as the format wants it.
 * A value that is not known has no line.
 */
#include "hv/client/openmetrics.h"

#include "hv/base/strbuf.h"

/* kind: gauge, counter, or words: one line a word, 1 for the one that holds (a state set). */
struct family {
    const char *name, *kind, *unit, *column, *help;
    double scale;                       /* value times this; 0: as it is */
};

static const struct family vm_families[] = {
    {"hv_vm_state", "off starting running paused stopping", NULL, "state", "what the virtual machine does", 0},
    {"hv_vm_uptime_seconds", "gauge", "seconds", "uptime_ms", "run time since its start", 0.001},
    {"hv_vm_cpu_ratio", "gauge", "ratio", "cpu_pct", "share of its processors in use", 0.01},
    {"hv_vm_cpus", "gauge", NULL, "cpus", "virtual processors", 0},
    {"hv_vm_memory_assigned_bytes", "gauge", "bytes", "assigned", "memory it has", 0},
    {"hv_vm_memory_demand_bytes", "gauge", "bytes", "demand", "memory the guest needs, without buffer", 0},
    {"hv_vm_memory_target_bytes", "gauge", "bytes", "target", "memory the balancer wants it to have", 0},
    {"hv_vm_memory_resident_bytes", "gauge", "bytes", "resident", "memory the host holds for it", 0},
    {"hv_vm_memory_balloon_bytes", "gauge", "bytes", "balloon", "memory taken back by the balloon", 0},
    {"hv_vm_memory_hot_added_bytes", "gauge", "bytes", "hot_added", "memory given beyond what it booted with", 0},
    {"hv_vm_memory_startup_bytes", "gauge", "bytes", "startup", "setting: memory it boots with", 0},
    {"hv_vm_memory_minimum_bytes", "gauge", "bytes", "min", "setting: least memory", 0},
    {"hv_vm_memory_maximum_bytes", "gauge", "bytes", "max", "setting: most memory", 0},
    {"hv_vm_memory_pressure_ratio", "gauge", "ratio", "pressure_pct", "demand by assigned; above 1 the guest is short", 0.01},
    {"hv_vm_memory_buffer_ratio", "gauge", "ratio", "buffer_now_pct", "what it has above its demand, by demand", 0.01},
    {"hv_vm_memory_status", "ok low warning", NULL, "status", "has it its buffer, its demand, or less", 0},
    {"hv_vm_memory_why", "max host moving guest boot frozen stale giving static", NULL, "why",
     "what stands in the way or goes on", 0},
    {"hv_vm_heartbeat", "ok lost no-contact", NULL, "heartbeat", "does the guest answer", 0},
    {"hv_vm_resets", "counter", NULL, "resets", "how often the guest restarted since the start", 0},
};

static const struct family host_families[] = {
    {"hv_host_vms", "gauge", NULL, "vms", "virtual machines", 0},
    {"hv_host_vms_running", "gauge", NULL, "running", "virtual machines that are not off", 0},
    {"hv_host_cpu_ratio", "gauge", "ratio", "cpu_pct", "share of the host's processors in use", 0.01},
    {"hv_host_memory_total_bytes", "gauge", "bytes", "memory.total", "memory of the host", 0},
    {"hv_host_memory_available_bytes", "gauge", "bytes", "memory.available", "memory that programs could still have", 0},
    {"hv_host_memory_reserve_bytes", "gauge", "bytes", "memory.reserve", "memory kept for the host itself", 0},
    {"hv_host_memory_pool_bytes", "gauge", "bytes", "memory.pool", "memory all guests together may have", 0},
    {"hv_host_memory_charged_bytes", "gauge", "bytes", "memory.charged", "memory promised to guests", 0},
    {"hv_host_memory_free_bytes", "gauge", "bytes", "memory.free", "memory that may still be given to guests", 0},
    {"hv_host_memory_overhead_bytes", "gauge", "bytes", "memory.overhead", "memory of the workers beside their guests", 0},
    {"hv_host_memory_pressure_ratio", "gauge", "ratio", "memory.current_pressure_pct", "demand by what is assigned or free", 0.01},
    {"hv_host_balancer", "off at-rest adding reclaiming short", NULL, "balancer", "what the balancer does", 0},
};

static void add_label(struct strbuf *sb, const char *s)
{
    for (; *s; s++) {
        if (*s == '\n')
            strbuf_adds(sb, "\\n");
        else if (*s == '"' || *s == '\\')
            strbuf_addf(sb, "\\%c", *s);
        else
            strbuf_addc(sb, *s);
    }
}

static void add_number(struct strbuf *sb, const json_t *v, double scale)
{
    if (json_is_integer(v) && !scale)
        strbuf_addf(sb, "%" JSON_INTEGER_FORMAT "\n", json_integer_value(v));
    else
        strbuf_addf(sb, "%.10g\n", json_number_value(v) * (scale ? scale : 1));
}

static void add_head(struct strbuf *sb, const struct family *f)
{
    bool number = strcmp(f->kind, "gauge") == 0 || strcmp(f->kind, "counter") == 0;
    strbuf_addf(sb, "# TYPE %s %s\n", f->name, number ? f->kind : "stateset");
    if (f->unit)
        strbuf_addf(sb, "# UNIT %s %s\n", f->name, f->unit);
    strbuf_addf(sb, "# HELP %s %s\n", f->name, f->help);
}

/* labels: "vm=\"web1\"", or "". */
static void add_value(struct strbuf *sb, const struct family *f, const char *labels, const json_t *v)
{
    bool counter = strcmp(f->kind, "counter") == 0;
    if (counter || strcmp(f->kind, "gauge") == 0) {
        if (!json_is_number(v))
            return;
        strbuf_addf(sb, *labels ? "%s%s{%s} " : "%s%s%s ", f->name, counter ? "_total" : "", labels);
        add_number(sb, v, f->scale);
        return;
    }
    const char *now = json_string_value(v);
    for (const char *w = f->kind; now && *w;) {
        int n = (int)strcspn(w, " ");
        /* "at rest" is the word of people; a label has no need of spaces. */
        bool is = (int)strlen(now) == n;
        for (int i = 0; is && i < n; i++)
            is = now[i] == w[i] || (now[i] == ' ' && w[i] == '-');
        strbuf_addf(sb, "%s{%s%s%s=\"%.*s\"} %d\n", f->name, labels, *labels ? "," : "", f->name, n, w, is);
        w += n + (w[n] == ' ');
    }
}

static const json_t *at_path(const json_t *o, const char *path)
{
    const char *dot = strchr(path, '.');
    char group[32];
    if (!dot)
        return json_object_get(o, path);
    snprintf(group, sizeof(group), "%.*s", (int)(dot - path), path);
    return json_object_get(json_object_get(o, group), dot + 1);
}

static size_t column_of(const json_t *columns, const char *name)
{
    size_t i;
    json_t *v;
    json_array_foreach((json_t *)columns, i, v)
        if (json_is_string(v) && strcmp(json_string_value(v), name) == 0)
            return i;
    return SIZE_MAX;
}

char *client_openmetrics(const json_t *stats)
{
    struct strbuf sb = {0};
    const json_t *columns = json_object_get(stats, "columns"), *rows = json_object_get(stats, "rows");
    const json_t *host = json_object_get(stats, "host");
    size_t name = column_of(columns, "name"), i;
    json_t *row;
    strbuf_addf(&sb, "# TYPE hv_up gauge\n# HELP hv_up does the management service answer\nhv_up %d\n", stats != NULL);
    for (unsigned k = 0; stats && k < ARRAY_SIZE(host_families); k++) {
        const json_t *v = at_path(host, host_families[k].column);
        if (!v || json_is_null(v))
            continue;
        add_head(&sb, &host_families[k]);
        add_value(&sb, &host_families[k], "", v);
    }
    for (unsigned k = 0; stats && k < ARRAY_SIZE(vm_families); k++) {
        size_t at = column_of(columns, vm_families[k].column);
        if (at == SIZE_MAX)
            continue;
        add_head(&sb, &vm_families[k]);
        json_array_foreach((json_t *)rows, i, row) {
            strbuf_auto labels = {0};
            const char *vm = json_string_value(json_array_get(row, name));
            strbuf_adds(&labels, "vm=\"");
            add_label(&labels, vm ? vm : "");
            strbuf_addc(&labels, '"');
            add_value(&sb, &vm_families[k], labels.buf ? labels.buf : "", json_array_get(row, at));
        }
    }
    strbuf_adds(&sb, "# EOF\n");
    return strbuf_detach(&sb, NULL);
}
