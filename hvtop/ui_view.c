/* Which rows in which order, and what they were at the moment that is looked at. */
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <strings.h>

#include "hv/base/units.h"
#include "hvtop/draw.h"
#include "hvtop/ui.h"

const struct ui_span ui_spans[4] = {{"1m", 60000}, {"5m", 300000}, {"1h", 3600000}, {"24h", 86400000}};

struct ui_table_state *ui_table(struct ui *ui)
{
    unsigned i = ui_table_index(ui->screen);
    return &ui->table[i < UI_TABLES ? i : 0];
}

int ui_set_sort(struct ui *ui, unsigned table, const char *sort, struct hv_error *e)
{
    bool sign = *sort == '+' || *sort == '-';
    const struct cli_column *col = cli_column_find(&top_columns, sort + sign, strlen(sort + sign));
    if (!col) {
        hv_fail(e, HV_USAGE, sort, "no such column");
        hv_hint(e, "--columns help");
        return -EINVAL;
    }
    ui->table[table].sort = col;
    ui->table[table].descending = *sort == '-';
    ui->view_stale = true;
    return 0;
}

/* ---- filter ---- */

static bool is_expression(const char *text)
{
    static const char *const words[] = {".eq=", ".ne=", ".lt=", ".le=", ".gt=", ".ge="};
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
        if (strstr(text, words[i])) {
            return true;
        }
    }
    return strpbrk(text, "=<>~") != NULL;
}

int ui_set_filter_strict(struct ui *ui, const char *expr, struct hv_error *e)
{
    struct cli_filter *f = NULL;
    int r = cli_filter_parse(expr, &top_columns, &f, e);
    if (r < 0) {
        return r;
    }
    cli_filter_free(ui->filter);
    ui->filter = f;
    ui->filter_bad = false;
    hv_strlcpy(ui->filter_text, expr, sizeof(ui->filter_text));
    ui->view_stale = true;
    return 0;
}

void ui_set_filter(struct ui *ui, const char *text)
{
    if (is_expression(text)) {
        if (ui_set_filter_strict(ui, text, NULL) == 0) {
            return;
        }
        ui->filter_bad = true;         /* half typed: everything fits until it is a comparison */
    } else {
        ui->filter_bad = false;
    }
    cli_filter_free(ui->filter);
    ui->filter = NULL;
    hv_strlcpy(ui->filter_text, text, sizeof(ui->filter_text));
    ui->view_stale = true;
}

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; n && *text; text++) {
        if (strncasecmp(text, part, n) == 0) {
            return true;
        }
    }
    return n == 0;
}

static bool named(const struct ui *ui, const struct model_vm *vm)
{
    for (unsigned i = 0; i < ui->n_only; i++) {
        if (strcmp(ui->only[i], vm->name) == 0 || fnmatch(ui->only[i], vm->name, 0) == 0 ||
            strcasecmp(ui->only[i], model_text(vm, "", "id")) == 0) {
            return true;
        }
    }
    return ui->n_only == 0;
}

static bool fits(const struct ui *ui, const struct model_vm *vm)
{
    return named(ui, vm) && (ui->filter_bad ? true : ui->filter ? cli_filter_match(ui->filter, vm->row) : contains(vm->name, ui->filter_text));
}

bool ui_event_fits(const struct ui *ui, const struct model_event *ev)
{
    const char *vm = json_string_value(json_object_get(ev->event, "vm"));
    const char *kind = json_string_value(json_object_get(ev->event, "kind"));
    const char *message = json_string_value(json_object_get(ev->event, "message"));
    if (ui->filter || ui->filter_bad || !ui->filter_text[0]) {
        return true;              /* expressions are about columns of VMs */
    }
    return contains(vm ? vm : "", ui->filter_text) || contains(kind ? kind : "", ui->filter_text) ||
           contains(message ? message : "", ui->filter_text);
}

/* ---- order ---- */

struct sort_key { const struct ui_table_state *t; struct model_vm *vm; const json_t *v; double demand; bool runs; const char *group; };

static int compare(const void *va, const void *vb)
{
    const struct sort_key *a = va, *b = vb;
    int cmp = a->group ? strcmp(b->group[0] ? "b" : "a", a->group[0] ? "b" : "a") : 0;       /* those in no group come last */
    cmp = cmp || !a->group ? cmp : strcmp(a->group, b->group);
    if (cmp == 0 && a->t->sort) {
        cmp = cli_cell_compare(a->t->sort, a->v, b->v, a->t->descending);
    }
    /* Then those that run, then who needs most, then the name: nothing is left to chance. */
    if (cmp == 0 && a->runs != b->runs) {
        cmp = (int)b->runs - (int)a->runs;
    }
    if (cmp == 0 && a->demand != b->demand) {
        cmp = a->demand < b->demand ? 1 : -1;
    }
    cmp = cmp ? cmp : strcmp(a->vm->name, b->vm->name);
    return cmp ? cmp : (int)a->vm->host - (int)b->vm->host;
}

const char *ui_group_of(const struct ui *ui, const struct model_vm *vm)
{
    return ui->tree == UI_TREE_HOST ? ui->m->host[vm->host].name : model_text(vm, "", "group");
}

/* Same heading: by host that is its number, for two can have one name. */
static bool together(const struct ui *ui, const struct model_vm *a, const struct model_vm *b)
{
    return ui->tree == UI_TREE_HOST ? a->host == b->host : strcmp(ui_group_of(ui, a), ui_group_of(ui, b)) == 0;
}

static void make_lines(struct ui *ui)
{
    size_t n = 0;
    for (size_t i = 0; i < ui->n_view; i++) {
        if (ui->tree && (i == 0 || !together(ui, ui->view[i - 1], ui->view[i]))) {
            ui->body[n++] = (struct ui_line){i, true};
        }
        ui->body[n++] = (struct ui_line){i, false};
    }
    ui->n_lines = n;
}

static void follow_cursor(struct ui *ui)
{
    for (size_t i = 0; ui->cursor_set && i < ui->n_view; i++) {
        if (ui->view[i]->host == ui->cursor_host && strcmp(ui->view[i]->name, ui->cursor_name) == 0) {
            ui->cursor = i;
            return;
        }
    }
    ui->cursor = ui->n_view ? MIN(ui->cursor, ui->n_view - 1) : 0;
    if (ui->n_view && ui->cursor_set && !ui->detail) {
        ui->cursor_host = ui->view[ui->cursor]->host;
        hv_strlcpy(ui->cursor_name, ui->view[ui->cursor]->name, sizeof(ui->cursor_name));
    }
}

void ui_order(struct ui *ui)
{
    struct model *m = ui->m;
    if (!ui->view_stale && ui->view_generation == m->generation) {
        return;
    }
    if (m->n_vms > ui->cap_view) {
        size_t cap = m->n_vms + m->n_vms / 2;
        struct model_vm **grown = hv_realloc_array(ui->view, cap, sizeof(*grown));
        ui->view = grown ? grown : ui->view;
        struct ui_line *lines = grown ? hv_realloc_array(ui->body, 2 * cap, sizeof(*lines)) : NULL;
        if (!lines) {
            return;
        }
        ui->body = lines;
        ui->cap_view = cap;
    }
    hv_autofree struct sort_key *k = hv_alloc_array(m->n_vms + 1, sizeof(*k));
    const struct ui_table_state *t = ui_table(ui);
    size_t n = 0;
    for (size_t i = 0; k && i < m->n_vms; i++) {
        struct model_vm *vm = m->vm[i];
        if (fits(ui, vm)) {
            double demand = model_number(vm, "memory", "demand");
            k[n++] = (struct sort_key){t, vm, t->sort ? cli_cell(vm->row, t->sort) : NULL, isnan(demand) ? -1 : demand,
                                       strcmp(model_text(vm, "", "state"), "off") != 0, ui->tree ? ui_group_of(ui, vm) : NULL};
        }
    }
    if (k) {
        qsort(k, n, sizeof(*k), compare);
    }
    for (size_t i = 0; i < n; i++) {
        ui->view[i] = k[i].vm;
    }
    ui->n_view = n;
    ui->view_generation = m->generation;
    ui->view_stale = false;
    make_lines(ui);
    follow_cursor(ui);
}

struct model_vm *ui_current(struct ui *ui)
{
    ui_order(ui);
    if (ui->detail) {
        return model_find(ui->m, ui->cursor_host, ui->cursor_name);
    }
    return ui->n_view ? ui->view[ui->cursor] : NULL;
}

/* ---- at another time ---- */

uint64_t ui_time_ms(const struct ui *ui, unsigned host)
{
    uint64_t now = ui->m->host[host].sample_ms;
    return ui->look_ms ? MIN(ui->look_ms, now) : now;
}

uint64_t ui_ago_ms(const struct ui *ui)
{
    return ui->look_ms && ui->m->now_ms > ui->look_ms ? ui->m->now_ms - ui->look_ms : 0;
}

static void set_mib(json_t *o, const char *key, uint32_t mib)
{
    json_object_set_new(o, key, mib == SERIES_UNKNOWN ? json_null() : json_integer((json_int_t)(mib * MIB)));
}

/* A sample holds until the next one is due: with long intervals most slots have none of their own. */
static struct series_point held(const struct ui *ui, const struct series *s, enum series_level level, uint64_t slot)
{
    uint64_t step = series_step_ms(level), hold = ui->replay ? 60000 : 2 * ui->delay_ns / NS_PER_MS;
    struct series_point p = series_at(s, level, slot);
    for (uint64_t back = 1; p.assigned == SERIES_UNKNOWN && back * step <= hold && back <= slot; back++) {
        p = series_at(s, level, slot - back);
    }
    return p;
}

json_t *ui_row(const struct ui *ui, const struct model_vm *vm)
{
    static const char *const status[] = {NULL, "ok", "low", "warning"};
    static const char *const unknown[] = {"why", "balloon", "hot_added", "resident", "target", "committed", "available", "change"};
    if (!ui->look_ms) {
        return json_incref(vm->row);
    }
    uint64_t at = ui_time_ms(ui, vm->host);
    struct series_point p = held(ui, &vm->series, SERIES_FINE, at / series_step_ms(SERIES_FINE));
    if (p.assigned == SERIES_UNKNOWN) {
        p = series_at(&vm->series, SERIES_COARSE, at / series_step_ms(SERIES_COARSE));
    }
    json_t *row = json_copy(vm->row), *m = json_copy(json_object_get(row, "memory"));
    json_t *cpu = json_copy(json_object_get(row, "processor"));
    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        json_object_set_new(m, unknown[i], json_null());
    }
    set_mib(m, "assigned", p.assigned);
    set_mib(m, "demand", p.demand);
    json_object_set_new(m, "status", status[p.status & 3] ? json_string(status[p.status & 3]) : json_null());
    bool known = p.assigned != SERIES_UNKNOWN && p.demand != SERIES_UNKNOWN && p.demand;
    json_object_set_new(m, "buffer_now_pct",
                        known ? json_integer(((json_int_t)p.assigned - (json_int_t)p.demand) * 100 / (json_int_t)p.demand)
                              : json_null());
    json_object_set_new(m, "pressure_pct", known && p.assigned ? json_integer((json_int_t)p.demand * 100 / p.assigned) : json_null());
    json_object_set_new(cpu, "cpu_pct", p.cpu == SERIES_CPU_UNKNOWN ? json_null() : json_real(p.cpu / 10.0));
    static const char *const unknown_cpu[] = {"vcpu_pct", "exits", "hypercalls", "interrupts"};
    for (unsigned i = 0; i < ARRAY_SIZE(unknown_cpu); i++) {
        json_object_set_new(cpu, unknown_cpu[i], json_null());
    }
    json_object_set_new(row, "disk", json_null());
    json_object_set_new(row, "disks", json_null());
    json_object_set_new(row, "job", json_null());
    json_object_set_new(row, "memory", m ? m : json_null());
    json_object_set_new(row, "processor", cpu ? cpu : json_null());
    json_object_set_new(row, "state", json_string(p.assigned == SERIES_UNKNOWN ? "off" : "running"));
    json_object_set_new(row, "uptime_s", json_null());
    return row;
}

void ui_curve(const struct ui *ui, const struct series *s, unsigned host, enum ui_curve which, double *v, unsigned n)
{
    uint64_t span = ui_spans[ui->span].ms, end = ui_time_ms(ui, host);
    enum series_level level = span <= series_step_ms(SERIES_FINE) * SERIES_FINE_SLOTS ? SERIES_FINE : SERIES_COARSE;
    uint64_t step = series_step_ms(level), last = end / step;
    for (unsigned i = 0; i < n; i++) {
        /* Column i stands for the slots from..to, of which the largest counts; sizes in the middle of it. */
        uint64_t ago_to = span * (n - 1 - i) / n / step, ago_from = span * (n - i) / n / step;
        ago_from = ago_from > ago_to ? ago_from - 1 : ago_to;
        v[i] = NAN;
        for (uint64_t ago = ago_from + 1; ago-- > ago_to;) {
            struct series_point p = last >= ago ? held(ui, s, level, last - ago) : series_unknown;
            double x = which == UI_CURVE_CPU ? (p.cpu == SERIES_CPU_UNKNOWN ? NAN : p.cpu / 10.0)
                       : which == UI_CURVE_DEMAND ? (p.demand == SERIES_UNKNOWN ? NAN : (double)p.demand * MIB)
                       : p.assigned == SERIES_UNKNOWN ? NAN : (double)p.assigned * MIB;
            if (!isnan(x) && (isnan(v[i]) || x > v[i])) {
                v[i] = x;
            }
        }
    }
}

bool ui_stale(const struct ui *ui, unsigned host)
{
    const struct model_host *h = &ui->m->host[host];
    uint64_t limit = MAX(3 * ui->delay_ns, NS_PER_SEC), heard = ui->heard_ns[host];
    bool silent = h->up && heard && !ui->paused && ui->now_ns > heard + limit;
    return h->samples > 0 && (!h->up || silent);
}

uint64_t ui_silent_ms(const struct ui *ui, unsigned host)
{
    const struct model_host *h = &ui->m->host[host];
    if (ui->heard_ns[host]) {
        return ui->now_ns > ui->heard_ns[host] ? (ui->now_ns - ui->heard_ns[host]) / NS_PER_MS : 0;
    }
    return ui->m->now_ms > h->sample_ms ? ui->m->now_ms - h->sample_ms : 0;
}

enum canvas_style ui_status_style(const char *status)
{
    return strcmp(status, "warning") == 0 ? STYLE_WARNING : strcmp(status, "low") == 0 ? STYLE_LOW : STYLE_NORMAL;
}

void ui_clock(const struct ui *ui, char *buf, size_t size, bool date)
{
    time_t t = (time_t)(ui->m->now_ms / 1000);
    struct tm tm;
    if (!ui->m->now_ms || !localtime_r(&t, &tm)) {
        snprintf(buf, size, "--:--:--");
        return;
    }
    strftime(buf, size, date ? "%a %d %b %H:%M:%S %Z" : "%H:%M:%S", &tm);
}
