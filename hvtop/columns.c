/* The table of columns, and how they are fitted into a window. */
#include "hvtop/columns.h"

#include <errno.h>
#include <math.h>

#include "hv/base/units.h"

static const char *text_of(const json_t *row, const char *path)
{
    const char *s = json_string_value(cli_json_path(row, path));
    return s ? s : "";
}

/* "Warning host", "- static", "- off": the status, and what stands in its way or that it does not run. */
static const char *show_status(const json_t *row, const json_t *v, char *buf, size_t size)
{
    const char *s = json_string_value(v), *why = text_of(row, "memory.why"), *state = text_of(row, "state");
    const char *word = !s ? "-" : strcmp(s, "ok") == 0 ? "OK" : strcmp(s, "low") == 0 ? "Low" : "Warning";
    const char *more = strcmp(state, "running") == 0 ? why : state;
    if (!*more && !s && json_is_false(cli_json_path(row, "memory.dynamic"))) {
        more = "static";
    }
    int n = snprintf(buf, size, "%s%s%s", word, *more ? " " : "", more);
    const json_t *boot = cli_json_path(row, "memory.boot_ms");      /* how long its driver has been silent */
    if (json_is_integer(boot) && strcmp(more, "boot") == 0 && n > 0 && (size_t)n < size) {
        snprintf(buf + n, size - (size_t)n, " %llds", (long long)(json_integer_value(boot) / 1000));
    }
    return buf;
}

/* "-6/20%": what it has above its demand, and what it should have. */
static const char *show_buffer(const json_t *row, const json_t *v, char *buf, size_t size)
{
    if (!json_is_number(v)) {
        return "-";
    }
    snprintf(buf, size, "%.0f/%.0f%%", json_number_value(v), json_number_value(cli_json_path(row, "memory.buffer_pct")));
    return buf;
}

/* Minimum, maximum and priority mean nothing where memory is static. */
static const char *show_dynamic(const json_t *row, const json_t *v, char *buf, size_t size)
{
    return json_is_true(cli_json_path(row, "memory.dynamic")) ? NULL : "-";
}

static const char *show_change(const json_t *row, const json_t *v, char *buf, size_t size)
{
    char number[32];
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v)) {
        return "-";
    }
    snprintf(buf, size, "%s%s", n < 0 ? "-" : n > 0 ? "+" : "", format_size((uint64_t)(n < 0 ? -n : n), number, sizeof(number)));
    return buf;
}

static const char *show_heartbeat(const json_t *row, const json_t *v, char *buf, size_t size)
{
    const char *state = text_of(row, "state");
    const char *s = json_string_value(v);
    return !s ? "-" : strcmp(state, "paused") == 0 ? "paused" : strcmp(s, "ok") == 0 ? "OK"
           : strcmp(s, "no-contact") == 0 ? "none" : s;
}

/* "2.1 ms". */
static const char *show_latency(const json_t *row, const json_t *v, char *buf, size_t size)
{
    double us = json_number_value(v);
    if (!json_is_number(v)) {
        return "-";
    }
    snprintf(buf, size, us < 9950 ? "%.1f ms" : us < 999500 ? "%.0f ms" : "%.0f s", us < 999500 ? us / 1000 : us / 1e6);
    return buf;
}

/* "1.4k": numbers that are many. */
static const char *show_count(const json_t *row, const json_t *v, char *buf, size_t size)
{
    return json_is_number(v) ? top_count(json_number_value(v), buf, size) : "-";
}

/* "18.4G/64.0G". */
static const char *show_used(const json_t *row, const json_t *v, char *buf, size_t size)
{
    char used[24], all[24];
    const json_t *total = cli_json_path(row, "disk.size");
    if (!json_is_integer(v) || !json_is_integer(total) || json_integer_value(v) < 0 || json_integer_value(total) < 0) {
        return "-";
    }
    snprintf(buf, size, "%s/%s", format_size((uint64_t)json_integer_value(v), used, sizeof(used)),
             format_size((uint64_t)json_integer_value(total), all, sizeof(all)));
    return buf;
}

/* Its file's name, and how many disks more. */
static const char *show_path(const json_t *row, const json_t *v, char *buf, size_t size)
{
    const char *path = json_string_value(v), *slash = path ? strrchr(path, '/') : NULL;
    size_t n = json_array_size(json_object_get(row, "disks"));
    if (!path) {
        return "-";
    }
    int w = snprintf(buf, size, "%s", slash && slash[1] ? slash + 1 : path);
    if (n > 1 && w > 0 && (size_t)w < size) {
        snprintf(buf + w, size - (size_t)w, " +%zu", n - 1);
    }
    return buf;
}

/* "99 98 96": each of its processors. */
static const char *show_vcpus(const json_t *row, const json_t *v, char *buf, size_t size)
{
    size_t at = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < json_array_size(v) && at + 8 < size; i++) {
        const json_t *pct = json_array_get(v, i);
        int n = json_is_number(pct) ? snprintf(buf + at, size - at, "%s%.0f", i ? " " : "", MIN(MAX(json_number_value(pct), 0), 100))
                                    : snprintf(buf + at, size - at, "%s-", i ? " " : "");
        at += n > 0 ? (size_t)n : 0;
    }
    return buf[0] ? buf : "-";
}

static enum cli_role status_role(const json_t *row, const json_t *v)
{
    const char *s = json_string_value(v);
    return !s ? ROLE_DIM : strcmp(s, "low") == 0 ? ROLE_LOW : strcmp(s, "warning") == 0 ? ROLE_WARNING : ROLE_NONE;
}

#define SIZE CLI_UNIT_SIZE
#define NUMBER CLI_UNIT_NUMBER
#define PCT CLI_UNIT_PCT

static const struct cli_column columns[] = {
    {"host", .cut = true, .help = "the host it is on"},
    {"name", .cut = true, .help = "its name"},
    {"state", .help = "off starting running paused stopping"},
    {"assigned", "memory.assigned", .unit = SIZE, .help = "memory it has"},
    {"demand", "memory.demand", .unit = SIZE, .help = "memory the guest needs, without the buffer"},
    {"buffer_now_pct", "memory.buffer_now_pct", "BUF/WANT", PCT, .show = show_buffer, .help = "what it has above its demand, and should have"},
    {"buffer_pct", "memory.buffer_pct", "WANT", PCT, .show = show_dynamic, .help = "what it should have above its demand"},
    {"status", "memory.status", .unit = CLI_UNIT_STATUS, .show = show_status, .role = status_role, .help = "ok, low or warning, and why"},
    {"why", "memory.why", .help = "what stands in the way or goes on"},
    {"startup", "memory.startup", "START", SIZE, .help = "memory the guest boots with"},
    {"min", "memory.min", .unit = SIZE, .show = show_dynamic, .help = "memory is never taken away below this"},
    {"max", "memory.max", .unit = SIZE, .show = show_dynamic, .help = "memory is never given above this"},
    {"priority", "memory.priority", "PRI", NUMBER, .show = show_dynamic, .help = "who gets memory first, 0 to 100"},
    {"dynamic", "memory.dynamic", .unit = CLI_UNIT_SWITCH, .help = "does the balancer move its memory"},
    {"trend", .help = "its demand (on the CPU screen: its CPU) lately, drawn"},
    {"cpu_pct", "processor.cpu_pct", "CPU", PCT, .help = "share of its processors in use"},
    {"vcpu_pct", "processor.vcpu_pct", "VCPUS", .show = show_vcpus, .help = "each of its processors"},
    {"cpus", "processor.cpus", .unit = NUMBER, .help = "virtual processors"},
    {"exits", "processor.exits", "EXITS/S", NUMBER, .show = show_count, .help = "exits to its worker a second"},
    {"hypercalls", "processor.hypercalls", "HCALLS/S", NUMBER, .show = show_count, .help = "hypercalls a second"},
    {"interrupts", "processor.interrupts", "INTR/S", NUMBER, .show = show_count, .help = "interrupts a second (soft engine)"},
    {"read", "disk.read", .unit = CLI_UNIT_RATE, .help = "bytes a second read from its disks"},
    {"write", "disk.write", .unit = CLI_UNIT_RATE, .help = "bytes a second written to its disks"},
    {"iops", "disk.iops", .unit = NUMBER, .show = show_count, .help = "reads and writes a second"},
    {"latency_us", "disk.latency_us", "LATENCY", NUMBER, .show = show_latency, .help = "how long a read or write takes, microseconds"},
    {"queue", "disk.queue", .unit = NUMBER, .help = "requests under way"},
    {"disk_used", "disk.used", "USED/SIZE", SIZE, .show = show_used, .help = "what its disks take on the host, of what they hold"},
    {"disk_size", "disk.size", "SIZE", SIZE, .help = "what its disks hold"},
    {"disk_path", "disk.path", "PATH", .cut = true, .show = show_path, .help = "file of its first disk, and how many more"},
    {"heartbeat", .header = "HEART", .show = show_heartbeat, .help = "does the guest answer"},
    {"uptime_s", NULL, "UP", CLI_UNIT_AGE_S, .help = "since it started"},
    {"change", "memory.change", .unit = SIZE, .show = show_change, .help = "assigned now less what it was an hour ago"},
    {"balloon", "memory.balloon", .unit = SIZE, .help = "taken back by the balloon"},
    {"hot_added", "memory.hot_added", .unit = SIZE, .help = "given beyond startup"},
    {"resident", "memory.resident", .unit = SIZE, .help = "memory the host holds for it"},
    {"target", "memory.target", .unit = SIZE, .help = "what the balancer wants it to have"},
    {"pressure_pct", "memory.pressure_pct", "PRESSURE", PCT, .help = "demand in per cent of assigned"},
    {"committed", "memory.committed", .unit = SIZE, .help = "committed in the guest"},
    {"available", "memory.available", .unit = SIZE, .help = "available in the guest"},
    {"engine", "engine", .help = "CPU engine it runs on"},
    {"kernel", .cut = true, .help = "Linux kernel it was booted with"},
    {"resets", .unit = NUMBER, .help = "how often the guest restarted"},
    {"pid", .unit = NUMBER, .help = "process of its worker"},
    {"id", .help = "its GUID"},
    {"group", .cut = true, .help = "the first of its groups"},
    {"job", .help = "the job under way"},
    {"reason", .cut = true, .help = "why it is off or in this state"},
    {"time", .unit = CLI_UNIT_TIME, .help = "when the sample was taken"},
    {0},
};

const struct cli_columns top_columns = {
    .col = columns,
    .defaults = "name,assigned,demand,buffer_now_pct,status,min,max,priority,cpu_pct",
    .sort = "-status",
};

static const struct top_look looks[] = {
    {"name", "NAME", 11, 0, true},        {"status", "STATUS", 12, 1, true}, {"assigned", "ASSIGNED", 8, 2, false},
    {"demand", "DEMAND", 7, 3, false},    {"buffer_now_pct", "BUF/WANT", 8, 4, false},
    {"max", "MAX", 5, 5, false},          {"min", "MIN", 4, 6, false},       {"priority", "PRI", 3, 7, false},
    {"trend", "TREND", 7, 8, true},       {"cpu_pct", "CPU", 4, 9, false},   {"host", "HOST", 8, 10, true},
    {"state", "STATE", 8, 11, true},      {"startup", "START", 6, 12, false}, {"heartbeat", "HEART", 6, 13, false},
    {"uptime_s", "UP", 7, 14, false},     {"change", "CHANGE", 7, 15, false}, {"balloon", "BALLOON", 7, 16, false},
    {"hot_added", "HOTADD", 6, 17, false}, {"cpus", "CPUS", 4, 8, false},     {"resident", "RESIDENT", 8, 20, false},
    {"target", "TARGET", 6, 21, false},   {"pressure_pct", "PRESS", 5, 22, false}, {"committed", "COMMIT", 6, 23, false},
    {"available", "AVAIL", 6, 24, false}, {"dynamic", "DYN", 3, 25, true},   {"buffer_pct", "WANT", 5, 26, false},
    {"why", "WHY", 6, 27, true},          {"engine", "ENGINE", 6, 28, true}, {"resets", "RESETS", 6, 29, false},
    {"pid", "PID", 7, 30, false},         {"kernel", "KERNEL", 24, 31, true}, {"id", "ID", 36, 32, true},
    {"reason", "REASON", 24, 35, true},   {"time", "TIME", 20, 36, true},     {"vcpu_pct", "VCPUS", 8, 3, true},
    {"exits", "EXITS/S", 7, 12, false},   {"hypercalls", "HCALLS/S", 8, 13, false}, {"interrupts", "INTR/S", 6, 14, false},
    {"read", "READ", 7, 1, false},        {"write", "WRITE", 7, 2, false},    {"iops", "IOPS", 5, 3, false},
    {"latency_us", "LATENCY", 7, 4, false}, {"queue", "QUEUE", 5, 5, false},  {"disk_used", "USED/SIZE", 13, 6, false},
    {"disk_path", "PATH", 15, 7, true},   {"disk_size", "SIZE", 6, 8, false}, {"group", "GROUP", 8, 33, true},
    {"job", "JOB", 16, 34, true},
};

const struct top_look *top_look(const char *key)
{
    for (unsigned i = 0; i < ARRAY_SIZE(looks); i++) {
        if (strcmp(looks[i].key, key) == 0) {
            return &looks[i];
        }
    }
    hv_assert_fail("a column without a look", __FILE__, __LINE__, key);
}

const struct top_table top_table_memory = {
    "host,name,state,assigned,demand,buffer_now_pct,status,startup,min,max,priority,trend,cpu_pct,heartbeat,uptime_s",
    "-status",
};
const struct top_table top_table_cpu = {
    "host,name,cpu_pct,trend,vcpu_pct,cpus,exits,hypercalls,interrupts,state,uptime_s,engine,resets,pid", "-cpu_pct"};
const struct top_table top_table_disk = {"host,name,read,write,iops,latency_us,queue,disk_used,disk_path", "-write"};

/* Names of Stats that are not those of columns: a unit differs, or only the detail screen shows them. */
static const struct { const char *name, *group, *key; } places[] = {
    {"uptime_ms", "", "uptime_ms"},
    {"boot_ms", "memory", "boot_ms"},
    {"shutdown", "", "shutdown"},
    {"timesync", "", "timesync"},
    {"services", "", "services"},
    {"disks", "", "disks"},
};
static const char *const groups[] = {"memory", "processor", "disk"};

void top_column_place(const char *name, const char **ret_group, const char **ret_key)
{
    *ret_group = "";
    *ret_key = NULL;                /* a newer service's: kept out of the row */
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        if (strcmp(places[i].name, name) == 0) {
            *ret_group = places[i].group;
            *ret_key = places[i].key;
            return;
        }
    }
    const struct cli_column *c = columns;
    while (c->key && strcmp(c->key, name) != 0) {
        c++;
    }
    const char *dot = c->path ? strchr(c->path, '.') : NULL;
    for (unsigned i = 0; dot && i < ARRAY_SIZE(groups); i++) {
        if (strlen(groups[i]) == (size_t)(dot - c->path) && strncmp(c->path, groups[i], strlen(groups[i])) == 0) {
            *ret_group = groups[i];
        }
    }
    *ret_key = dot ? dot + 1 : c->key;
}

bool top_is_list(const char *key)
{
    return strcmp(key, "disks") == 0 || strcmp(key, "vcpu_pct") == 0;
}

json_t *top_disk_object(const json_t *disk)
{
    static const char *const keys[TOP_DISK_PARTS] = {"location", "path", "type", "read", "write", "iops", "latency_us", "queue", "used", "size"};
    json_t *o = json_object();
    for (unsigned i = 0; i < TOP_DISK_PARTS; i++) {
        json_t *v = json_array_get(disk, i);
        if (v) {
            json_object_set(o, keys[i], v);
        }
    }
    return o;
}

const char *top_count(double n, char *buf, size_t size)
{
    static const struct { double from, by; const char *suffix; } t[] = {{999.5e6, 1e9, "G"}, {999.5e3, 1e6, "M"}, {999.5, 1e3, "k"}};
    if (isnan(n) || n < 0) {
        return "-";
    }
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        if (n >= t[i].from) {
            snprintf(buf, size, n / t[i].by < 9.95 ? "%.1f%s" : "%.0f%s", MIN(n / t[i].by, 99999), t[i].suffix);
            return buf;
        }
    }
    snprintf(buf, size, "%.0f", n);
    return buf;
}

/* ---- lists of keys ---- */

bool top_has(const char *keys, const char *key)
{
    for (const char *p = keys; *p;) {
        size_t n = strcspn(p, ",");
        if (strlen(key) == n && memcmp(p, key, n) == 0) {
            return true;
        }
        p += n + (p[n] == ',');
    }
    return false;
}

static char *without(const char *keys, const char *key, size_t len)
{
    struct strbuf sb = {0};
    for (const char *p = keys; *p;) {
        size_t n = strcspn(p, ",");
        if (n != len || memcmp(p, key, n) != 0) {
            strbuf_adds(&sb, sb.len ? "," : "");
            strbuf_add(&sb, p, n);
        }
        p += n + (p[n] == ',');
    }
    return sb.len ? strbuf_detach(&sb, NULL) : hv_strdup("");
}

int top_choose(char **keys, const char *list, struct hv_error *e)
{
    bool fresh = list[0] != '+' && list[0] != '-';
    char *now = hv_strdup(fresh ? "" : *keys);
    for (const char *w = list; *w && now;) {
        size_t n = strcspn(w, ",");
        char sign = *w == '+' || *w == '-' ? *w : 0;
        const struct cli_column *col = cli_column_find(&top_columns, w + !!sign, n - !!sign);
        if (!col) {
            char word[64];
            snprintf(word, sizeof(word), "%.*s", (int)MIN(n - !!sign, sizeof(word) - 1), w + !!sign);
            free(now);
            hv_fail(e, HV_USAGE, word, "no such column");
            hv_hint(e, "--columns help");
            return -EINVAL;
        }
        char *kept = without(now, col->key, strlen(col->key));
        if (kept && sign != '-') {
            char *more = hv_asprintf("%s%s%s", kept, *kept ? "," : "", col->key);
            free(kept);
            kept = more;
        }
        free(now);
        now = kept;
        w += n + (w[n] == ',');
    }
    if (!now) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    free(*keys);
    *keys = now;
    return 0;
}

/* ---- fitting ---- */

static int total(const struct top_layout *l, int gap)
{
    int w = 0;
    for (unsigned i = 0; i < l->n; i++) {
        /* Per cents are so short that they need no gap of their own. */
        w += l->at[i].width + (i ? strcmp(l->at[i].look->key, "cpu_pct") == 0 ? gap - 1 : gap : 0);
    }
    return w;
}

static void drop_highest_rank(struct top_layout *l)
{
    unsigned worst = 0;
    for (unsigned i = 1; i < l->n; i++) {
        if (l->at[i].look->rank >= l->at[worst].look->rank) {
            worst = i;
        }
    }
    for (unsigned i = worst; i + 1 < l->n; i++) {
        l->at[i] = l->at[i + 1];
    }
    l->n--;
}

static void widen(struct top_layout *l, const char *key, int to, int *spare)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (strcmp(l->at[i].look->key, key) == 0 && to > l->at[i].width && *spare > 0) {
            int more = MIN(to - l->at[i].width, *spare);
            l->at[i].width += more;
            *spare -= more;
        }
    }
}

static void lay_out(struct top_layout *l, const char *keys, bool several_hosts)
{
    l->n = 0;
    for (const char *p = keys; *p;) {
        size_t n = strcspn(p, ",");
        const struct cli_column *col = cli_column_find(&top_columns, p, n);
        if (col && l->n < TOP_MAX_COLUMNS && (several_hosts || strcmp(col->key, "host") != 0)) {
            const struct top_look *look = top_look(col->key);
            l->at[l->n].col = col;
            l->at[l->n].look = look;
            l->at[l->n++].width = look->width;
        }
        p += n + (p[n] == ',');
    }
}

void top_layout(struct top_layout *l, const char *keys, int x, int width, int longest_name, bool several_hosts)
{
    lay_out(l, keys, several_hosts);
    if (!l->n) {
        lay_out(l, "name", several_hosts);       /* whatever was chosen: rows are of somebody */
    }
    int room = MAX(width - x, 1), gap = 1;
    if (l->n == 2 && total(l, gap) > room && room >= 12) {
        /* Names and status, the least there is: both are cut. */
        l->at[1].width = MAX(7, room * 2 / 5);
        l->at[0].width = room - gap - l->at[1].width;
    }
    while (l->n > 1 && total(l, gap) > room) {
        drop_highest_rank(l);
    }
    if (l->n && l->at[0].width > room) {
        l->at[0].width = room;
    }
    int spare = room - total(l, gap);
    widen(l, "name", MIN(longest_name, 40), &spare);
    if (spare >= 2 * (int)l->n) {
        gap = 2;
        spare = room - total(l, gap);
    }
    widen(l, "trend", 30, &spare);
    widen(l, "disk_path", 40, &spare);
    for (unsigned i = 0; i < l->n; i++) {
        x += i ? strcmp(l->at[i].look->key, "cpu_pct") == 0 ? gap - 1 : gap : 0;
        l->at[i].x = x;
        x += l->at[i].width;
    }
}
