/* Hosts, VMs, samples and events. */
#include "hvtop/model.h"

#include <errno.h>
#include <math.h>

#include "hv/base/units.h"
#include "hvtop/columns.h"

#define COLUMNS_MAX 256
#define TIME_MAX_MS 253402300799000u      /* the end of the year 9999 */

void model_init(struct model *m, const char *const *names, unsigned hosts)
{
    memset(m, 0, sizeof(*m));
    m->n_hosts = MIN(hosts, MODEL_HOSTS_MAX);
    for (unsigned i = 0; names && i < m->n_hosts; i++) {
        hv_strlcpy(m->host[i].name, names[i], sizeof(m->host[i].name));
    }
}

static void vm_free(struct model_vm *vm)
{
    free(vm->name);
    json_decref(vm->row);
    free(vm);
}

static void columns_free(struct model_host *h)
{
    json_decref(h->columns);
    free(h->group);
    free(h->key);
    h->columns = NULL;
    h->group = h->key = NULL;
    h->n_columns = 0;
}

void model_fini(struct model *m)
{
    for (size_t i = 0; i < m->n_vms; i++) {
        vm_free(m->vm[i]);
    }
    free(m->vm);
    for (unsigned i = 0; i < m->n_hosts; i++) {
        columns_free(&m->host[i]);
        json_decref(m->host[i].info);
    }
    for (unsigned i = 0; i < MODEL_EVENTS_MAX; i++) {
        json_decref(m->event[i].event);
    }
    memset(m, 0, sizeof(*m));
}

/* ---- VMs, sorted ---- */

static int order(unsigned host, const char *name, const struct model_vm *vm)
{
    return host != vm->host ? (host < vm->host ? -1 : 1) : strcmp(name, vm->name);
}

/* Where it is, or where it would have to be put. */
static size_t place(const struct model *m, unsigned host, const char *name, bool *ret_found)
{
    size_t lo = 0, hi = m->n_vms;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int cmp = order(host, name, m->vm[mid]);
        if (cmp == 0) {
            *ret_found = true;
            return mid;
        }
        if (cmp < 0) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    *ret_found = false;
    return lo;
}

struct model_vm *model_find(const struct model *m, unsigned host, const char *name)
{
    bool found;
    size_t i = place(m, host, name, &found);
    return found ? m->vm[i] : NULL;
}

static struct model_vm *find_or_add(struct model *m, unsigned host, const char *name)
{
    bool found;
    size_t at = place(m, host, name, &found);
    if (found) {
        return m->vm[at];
    }
    if (m->n_vms >= MODEL_VMS_MAX) {
        return NULL;
    }
    if (m->n_vms == m->cap_vms) {
        size_t cap = m->cap_vms ? 2 * m->cap_vms : 64;
        struct model_vm **grown = hv_realloc_array(m->vm, cap, sizeof(*grown));
        if (!grown) {
            return NULL;
        }
        m->vm = grown;
        m->cap_vms = cap;
    }
    struct model_vm *vm = hv_alloc(sizeof(*vm));
    if (!vm) {
        return NULL;
    }
    vm->host = host;
    vm->name = hv_strdup(name);
    vm->row = json_object();
    if (!vm->name || !vm->row) {
        vm_free(vm);
        return NULL;
    }
    memmove(&m->vm[at + 1], &m->vm[at], (m->n_vms - at) * sizeof(*m->vm));
    m->vm[at] = vm;
    m->n_vms++;
    return vm;
}

static void remove_gone(struct model *m, unsigned host)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_vms; i++) {
        struct model_vm *vm = m->vm[i];
        if (vm->host == host && vm->seen != m->host[host].samples) {
            vm_free(vm);
        } else {
            m->vm[n++] = vm;
        }
    }
    m->n_vms = n;
}

/* ---- rows ---- */

static int set_columns(struct model_host *h, const json_t *columns)
{
    size_t n = json_array_size(columns), i;
    json_t *v;
    if (!n || n > COLUMNS_MAX) {
        return -EPROTO;
    }
    json_array_foreach((json_t *)columns, i, v) {
        if (!json_is_string(v)) {
            return -EPROTO;
        }
    }
    if (h->columns && json_equal(h->columns, columns)) {
        return 0;
    }
    const char **group = hv_alloc_array(n, sizeof(*group)), **key = hv_alloc_array(n, sizeof(*key));
    if (!group || !key) {
        free(group);
        free(key);
        return -ENOMEM;
    }
    columns_free(h);
    h->columns = json_incref((json_t *)columns);
    h->group = group;
    h->key = key;
    h->n_columns = n;
    for (i = 0; i < n; i++) {
        top_column_place(json_string_value(json_array_get(h->columns, i)), &group[i], &key[i]);
    }
    return 0;
}

static json_t *group_of(json_t *row, const char *group)
{
    if (!*group) {
        return row;
    }
    json_t *o = json_object_get(row, group);
    if (!o) {
        o = json_object();
        json_object_set_new(row, group, o);
    }
    return o;
}

static uint32_t mib_of(const json_t *memory, const char *key)
{
    const json_t *v = json_object_get(memory, key);
    double n = json_number_value(v);
    return json_is_number(v) && n >= 0 && n / MIB < SERIES_UNKNOWN ? (uint32_t)(n / MIB) : SERIES_UNKNOWN;
}

static uint16_t tenths_of(const json_t *v)
{
    double n = json_number_value(v);
    return json_is_number(v) && n >= 0 && n < 6000 ? (uint16_t)(n * 10 + 0.5) : SERIES_CPU_UNKNOWN;
}

static uint8_t status_of(const char *s)
{
    return !s ? SERIES_NONE : strcmp(s, "ok") == 0 ? SERIES_OK : strcmp(s, "low") == 0 ? SERIES_LOW
           : strcmp(s, "warning") == 0 ? SERIES_WARNING : SERIES_NONE;
}

static void fill_row(struct model *m, struct model_vm *vm, const struct model_host *h, const json_t *cells, uint64_t time_ms,
                     json_t *time)
{
    const char *last = "";
    json_t *into = vm->row;
    if (json_object_size(vm->row) == 0) {       /* these come first in JSON */
        json_object_set_new(vm->row, "time", json_null());
        json_object_set_new(vm->row, "host", json_string(h->name));
        json_object_set_new(vm->row, "name", json_string(vm->name));
    }
    json_object_set(vm->row, "time", time);
    for (size_t i = 0; i < h->n_columns; i++) {
        json_t *v = json_array_get(cells, i);
        if (!h->key[i] || !v || json_is_object(v) || (json_is_array(v) && !top_is_list(h->key[i]))) {
            continue;
        }
        if (h->group[i] != last && strcmp(h->group[i], last) != 0) {
            into = group_of(vm->row, h->group[i]);
        }
        last = h->group[i];
        json_object_set(into, h->key[i], v);
    }
    json_t *up = json_object_get(vm->row, "uptime_ms"), *mem = json_object_get(vm->row, "memory");
    if (up) {
        json_object_set_new(vm->row, "uptime_s", json_is_integer(up) ? json_integer(json_integer_value(up) / 1000) : json_null());
        json_object_del(vm->row, "uptime_ms");
    }
    struct series_point p = {
        .assigned = mib_of(mem, "assigned"),
        .demand = mib_of(mem, "demand"),
        .cpu = tenths_of(json_object_get(json_object_get(vm->row, "processor"), "cpu_pct")),
        .status = status_of(json_string_value(json_object_get(mem, "status"))),
    };
    series_put(&vm->series, time_ms, p);
}

static int apply_sample(struct model *m, unsigned host, uint64_t time_ms, const json_t *rows, json_t *info)
{
    struct model_host *h = &m->host[host];
    size_t name_at = h->n_columns, i;
    json_t *cells;
    char buf[40];
    for (i = 0; i < h->n_columns; i++) {
        if (h->key[i] && strcmp(h->key[i], "name") == 0) {
            name_at = i;
        }
    }
    if (name_at == h->n_columns) {
        return -EPROTO;
    }
    json_t *time = json_string(format_time_utc(time_ms * NS_PER_MS, buf, sizeof(buf)));
    h->samples++;
    json_array_foreach((json_t *)rows, i, cells) {
        const char *name = json_string_value(json_array_get(cells, name_at));
        struct model_vm *vm = name && *name ? find_or_add(m, host, name) : NULL;
        if (vm) {
            vm->seen = h->samples;
            fill_row(m, vm, h, cells, time_ms, time);
        }
    }
    json_decref(time);
    remove_gone(m, host);
    if (json_is_object(info)) {
        json_decref(h->info);
        h->info = json_incref(info);
    }
    h->up = h->known = true;
    h->error[0] = '\0';
    h->sample_ms = time_ms;
    struct model_sums s = model_sum(m, host);
    struct series_point p = {(uint32_t)(s.assigned / MIB), (uint32_t)(s.demand / MIB),
                             tenths_of(json_object_get(h->info, "cpu_pct")), SERIES_NONE, 0};
    series_put(&h->series, time_ms, p);
    return 0;
}

/* ---- history ---- */

static int apply_history(struct model *m, unsigned host, const json_t *r)
{
    const json_t *assigned = json_object_get(r, "assigned"), *demand = json_object_get(r, "demand");
    const json_t *cpu = json_object_get(r, "cpu_pct"), *name = json_object_get(r, "name");
    const char *status = json_string_value(json_object_get(r, "status"));
    json_int_t step = json_integer_value(json_object_get(r, "step_ms")), first = json_integer_value(json_object_get(r, "first_ms"));
    size_t n = MIN(json_array_size(assigned), (size_t)SERIES_COARSE_SLOTS);
    enum series_level level = step == (json_int_t)series_step_ms(SERIES_COARSE) ? SERIES_COARSE : SERIES_FINE;
    if (first < 0 || first > (json_int_t)TIME_MAX_MS || step != (json_int_t)series_step_ms(level)) {
        return -EPROTO;
    }
    struct model_vm *vm = json_is_string(name) ? model_find(m, host, json_string_value(name)) : NULL;
    if (!vm && json_is_string(name)) {
        return 0;                   /* gone meanwhile */
    }
    struct series *s = vm ? &vm->series : &m->host[host].series;
    uint64_t slot = (uint64_t)first / series_step_ms(level), newest = s->newest[level];
    for (size_t i = 0; i < n; i++, slot++) {
        json_t *a = json_array_get(assigned, i), *d = json_array_get(demand, i);
        char letter = status && strlen(status) > i ? status[i] : '-';
        struct series_point p = {
            .assigned = json_is_integer(a) ? (uint32_t)(json_integer_value(a) / (json_int_t)MIB) : SERIES_UNKNOWN,
            .demand = json_is_integer(d) ? (uint32_t)(json_integer_value(d) / (json_int_t)MIB) : SERIES_UNKNOWN,
            .cpu = tenths_of(json_array_get(cpu, i)),
            .status = letter == 'o' ? SERIES_OK : letter == 'l' ? SERIES_LOW : letter == 'w' ? SERIES_WARNING : SERIES_NONE,
        };
        if (!newest || slot < newest) {         /* what was sampled here is newer */
            series_set(s, level, slot, p);
        }
    }
    return 0;
}

/* ---- events ---- */

static void add_event(struct model *m, unsigned host, uint64_t time_ms, json_t *event)
{
    unsigned at = (m->event_first + m->n_events) % MODEL_EVENTS_MAX;
    if (m->n_events == MODEL_EVENTS_MAX) {
        m->event_first = (m->event_first + 1) % MODEL_EVENTS_MAX;
    } else {
        m->n_events++;
    }
    json_decref(m->event[at].event);
    m->event[at] = (struct model_event){host, time_ms, json_incref(event)};
}

const struct model_event *model_event_at(const struct model *m, unsigned i)
{
    return &m->event[(m->event_first + i) % MODEL_EVENTS_MAX];
}

/* ---- messages ---- */

static int apply(struct model *m, unsigned host, const json_t *msg)
{
    struct model_host *h = &m->host[host];
    const char *name = json_string_value(json_object_get(msg, "name"));
    const char *down = json_string_value(json_object_get(msg, "down"));
    json_t *columns = json_object_get(msg, "columns"), *rows = json_object_get(msg, "rows");
    json_t *event = json_object_get(msg, "event"), *history = json_object_get(msg, "history");
    uint64_t time_ms = (uint64_t)MAX(json_integer_value(json_object_get(msg, "time_ms")), 0);
    int r = 0;
    if (time_ms > TIME_MAX_MS) {
        return -EPROTO;
    }
    if (name) {
        hv_strlcpy(h->name, name, sizeof(h->name));
        h->known = true;
    }
    if (json_is_array(columns)) {
        r = set_columns(h, columns);
    }
    if (r == 0 && json_is_array(rows)) {
        r = time_ms ? apply_sample(m, host, time_ms, rows, json_object_get(msg, "info")) : -EPROTO;
    }
    if (r == 0 && json_is_object(event)) {
        add_event(m, host, time_ms, event);
    }
    if (r == 0 && json_is_object(history)) {
        r = apply_history(m, host, history);
    }
    if (r == 0 && down) {
        h->up = false;
        hv_strlcpy(h->error, down, sizeof(h->error));
    }
    if (r == 0) {
        m->now_ms = MAX(m->now_ms, time_ms);
    }
    return r;
}

int model_apply(struct model *m, const json_t *msg)
{
    json_int_t host = json_integer_value(json_object_get(msg, "host"));
    if (!json_is_object(msg) || host < 0 || host >= (json_int_t)m->n_hosts) {
        return -EPROTO;
    }
    int r = apply(m, (unsigned)host, msg);
    m->generation++;
    return r;
}

void model_forget(struct model *m)
{
    for (size_t i = 0; i < m->n_vms; i++) {
        series_reset(&m->vm[i]->series);
    }
    for (unsigned i = 0; i < m->n_hosts; i++) {
        series_reset(&m->host[i].series);
    }
    m->n_events = 0;
    m->now_ms = 0;
    m->generation++;
}

/* ---- values ---- */

static const json_t *value(const struct model_vm *vm, const char *group, const char *key)
{
    return json_object_get(*group ? json_object_get(vm->row, group) : vm->row, key);
}

double model_number(const struct model_vm *vm, const char *group, const char *key)
{
    const json_t *v = value(vm, group, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *model_text(const struct model_vm *vm, const char *group, const char *key)
{
    const char *s = json_string_value(value(vm, group, key));
    return s ? s : "";
}

struct model_sums model_sum(const struct model *m, unsigned host)
{
    struct model_sums s = {0};
    for (size_t i = 0; i < m->n_vms; i++) {
        const struct model_vm *vm = m->vm[i];
        if (vm->host != host) {
            continue;
        }
        const char *state = model_text(vm, "", "state");
        double a = model_number(vm, "memory", "assigned"), d = model_number(vm, "memory", "demand");
        double b = model_number(vm, "memory", "buffer_pct");
        s.vms++;
        s.off += strcmp(state, "off") == 0;
        s.paused += strcmp(state, "paused") == 0;
        s.running += strcmp(state, "off") != 0 && strcmp(state, "paused") != 0;
        s.assigned += a >= 0 ? (uint64_t)a : 0;
        s.demand += d >= 0 ? (uint64_t)d : 0;
        s.buffer_wanted += d >= 0 && b >= 0 ? (uint64_t)(d * b / 100) : 0;
    }
    return s;
}
