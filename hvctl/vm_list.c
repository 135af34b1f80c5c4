/* vm list, show and stats, and the listings other nouns make of the same VMs. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "hv/settings/settings.h"
#include "hvctl/document.h"
#include "hvctl/hvctl.h"

/* ---- again and again ---- */

/* Before the next table of --watch: in place on a terminal, below in a pipe. */
static void next_sample(struct cli_call *c, bool first, enum cli_format format)
{
    bool table = format == CLI_FMT_TABLE || format == CLI_FMT_WIDE || format == CLI_FMT_LIST;
    if (c->tty_out && table) {
        fputs(first ? "\033[H\033[2J" : "\033[H\033[J", c->out);
    } else if (!first && table) {
        fputc('\n', c->out);
    }
}

int print_rows(struct cli_call *c, struct cli_printer *p, const json_t *rows, bool one, struct hv_error *e)
{
    struct conn *k;
    size_t i;
    json_t *row;
    cli_print_rows(p, rows, one);
    if (p->format != CLI_FMT_XML) {
        return 0;
    }
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    json_t *ids = json_array();
    json_array_foreach(p->xml_rows, i, row) {
        json_array_append(ids, json_object_get(row, "id"));
    }
    r = document_print_xml(c, k, ids, NULL, e);
    json_decref(ids);
    conn_close(k);
    return r;
}

int watch_rows(struct cli_call *c, struct cli_printer *p, int (*sample)(struct cli_call *, void *, json_t **, struct hv_error *),
               void *arg, bool one, struct hv_error *e)
{
    for (uint64_t n = 0;;) {
        json_t *rows;
        int r = sample(c, arg, &rows, e);
        if (r < 0) {
            return r;
        }
        if (c->watch) {
            next_sample(c, n == 0, p->format);
        }
        r = print_rows(c, p, rows, one, e);
        json_decref(rows);
        if (r < 0 || !c->watch || (c->count && ++n >= c->count) || ferror(c->out)) {
            return r;
        }
        n += !c->count;
        usleep((useconds_t)MIN(c->delay_ns / 1000, (uint64_t)UINT32_MAX));
    }
}

/* ---- VMs ---- */

struct sampler { struct conn *k; const char *part; json_t *groups; };

static void add_group(json_t *groups, const char *group)
{
    size_t i;
    json_t *g;
    json_array_foreach(groups, i, g) {
        if (strcmp(json_string_value(g), group) == 0) {
            return;
        }
    }
    json_array_append_new(groups, json_string(group));
}

static void add_groups_of(json_t *groups, const struct cli_column *col)
{
    const char *path = col->path ? col->path : col->key;
    const struct setting_desc *d = setting_find(path);
    if (d) {
        add_group(groups, d->group);
    } else if (strncmp(path, "disks", 5) == 0) {
        add_group(groups, "disks");
    }
}

/*
 * The groups of settings that this listing looks at: with a thousand VMs most of the time goes into
 * settings that nobody asked for. NULL: all, as every form but tables shows them.
 */
static json_t *groups_of(const struct cli_printer *p, const char *part)
{
    const struct cli_call *c = p->call;
    if (p->format != CLI_FMT_TABLE && p->format != CLI_FMT_CSV && p->format != CLI_FMT_NAME) {
        return NULL;
    }
    json_t *groups = json_array();
    if (part) {
        add_group(groups, part);
    }
    for (unsigned i = 0; i < p->n && p->format != CLI_FMT_NAME; i++) {
        add_groups_of(groups, p->col[i]);
    }
    if (p->sort) {
        add_groups_of(groups, p->sort);
    }
    for (const struct cli_column *col = p->table->col; c->filter && col->key; col++) {
        if (strstr(c->filter, col->key)) {
            add_groups_of(groups, col);
        }
    }
    return groups;
}

static json_t *rows_of(const json_t *vms, const char *part)
{
    json_t *rows = json_array(), *vm;
    size_t i;
    json_array_foreach((json_t *)vms, i, vm) {
        json_t *view = view_vm(vm);
        json_array_append_new(rows, part ? view_part(view, part) : json_incref(view));
        json_decref(view);
    }
    return rows;
}

static json_t *names_of(const struct cli_call *c)
{
    json_t *names = json_array();
    for (unsigned i = 0; i < c->n_args; i++) {
        json_array_append_new(names, json_string(c->args[i]));
    }
    return names;
}

static int sample_list(struct cli_call *c, void *arg, json_t **ret, struct hv_error *e)
{
    struct sampler *s = arg;
    struct targets ts;
    if (c->n_args) {
        int r = targets_find(c, s->k, 0, NULL, &ts, e);
        if (r < 0) {
            return r;
        }
        json_t *vms = json_array();
        for (unsigned i = 0; i < ts.n && r == 0; i++) {
            if (hv_error_is_set(&ts.t[i].error)) {
                *e = ts.t[i].error;
                r = -ENOENT;
            } else {
                json_array_append(vms, ts.t[i].vm);
            }
        }
        if (r == 0) {
            *ret = rows_of(vms, s->part);
        }
        json_decref(vms);
        targets_free(&ts);
        return r;
    }
    json_t *reply;
    int r = conn_call(s->k, "List", s->groups ? json_pack("{s:O}", "groups", s->groups) : NULL, 0, &reply, e);
    if (r < 0 && s->groups && e->code == HV_USAGE) {
        /* A service that still runs from before an upgrade sends all there is. */
        hv_error_clear(e);
        r = conn_call(s->k, "List", NULL, 0, &reply, e);
    }
    if (r == 0) {
        *ret = rows_of(json_object_get(reply, "vms"), s->part);
        json_decref(reply);
    }
    return r;
}

int list_vms(struct cli_call *c, const struct cli_columns *columns, const char *part, struct hv_error *e)
{
    struct cli_printer p;
    struct sampler s = {.part = part};
    int r = cli_printer_init(&p, c, columns, CLI_FMT_TABLE, e);
    if (r == 0) {
        s.groups = groups_of(&p, part);
        r = conn_open(c, &s.k, e);
        if (r == 0) {
            r = watch_rows(c, &p, sample_list, &s, false, e);
            conn_close(s.k);
        }
        json_decref(s.groups);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

/* One half of a view: the keys the service has under settings, or those it has not. */
static json_t *half(const json_t *vm, bool settings)
{
    json_t *copy = json_copy((json_t *)vm);
    json_object_del(copy, settings ? "runtime" : "settings");
    if (settings) {
        json_object_set_new(copy, "runtime", json_object());
    }
    return copy;
}

int show_vms(struct cli_call *c, const struct cli_columns *columns, const char *part, struct hv_error *e)
{
    struct cli_printer p;
    struct targets ts = {0};
    struct conn *k = NULL;
    bool settings = !part && cli_has(c, "settings"), state = !part && cli_has(c, "state");

    int r = cli_printer_init(&p, c, columns, CLI_FMT_LIST, e);
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r == 0) {
        r = targets_find(c, k, 0, NULL, &ts, e);
    }
    json_t *vms = json_array();
    unsigned failed = 0;
    for (unsigned i = 0; r == 0 && i < ts.n; i++) {
        if (hv_error_is_set(&ts.t[i].error)) {
            failed++;
            if (ts.n == 1) {
                *e = ts.t[i].error;
                r = -ENOENT;
            } else {
                cli_print_error(c, &ts.t[i].error);
            }
        } else {
            json_array_append_new(vms, settings != state ? half(ts.t[i].vm, settings) : json_incref(ts.t[i].vm));
        }
    }
    if (r == 0) {
        json_t *rows = rows_of(vms, part);
        if (json_array_size(rows) || !failed) {
            p.sort = c->sort ? p.sort : NULL;      /* as named */
            bool paged = p.format == CLI_FMT_LIST && cli_pager_begin(c);
            r = print_rows(c, &p, rows, ts.one, e);
            cli_pager_end(c, paged);
        }
        json_decref(rows);
        c->exit_code = !failed ? HV_OK : failed == ts.n ? HV_NOT_FOUND : HV_PARTIAL;
    }
    json_decref(vms);
    targets_free(&ts);
    conn_close(k);
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

int vm_list(struct cli_call *c, struct hv_error *e)
{
    if (cli_has(c, "all-hosts")) {
        return list_all_hosts(c, &view_vm_columns, e);
    }
    /* An empty answer on a terminal says where it looked: there may be another service. */
    if (!c->quiet && !c->watch && c->tty_err && c->format == CLI_FMT_DEFAULT && !c->filter && !c->n_args && !c->columns) {
        struct conn *k;
        json_t *reply;
        int r = conn_open(c, &k, e);
        if (r < 0) {
            return r;
        }
        r = conn_call(k, "List", NULL, 0, &reply, e);
        if (r == 0) {
            bool none = json_array_size(json_object_get(reply, "vms")) == 0;
            json_decref(reply);
            if (none) {
                bool user = strcmp(conn_mode(k), "user") == 0;
                cli_note(c, "no VMs here (%s); %s: hvctl -H %s list", user ? "your own service" : "the system's service",
                         user ? "the system's" : "your own", user ? "system" : "user");
                conn_close(k);
                return 0;
            }
        }
        conn_close(k);
        if (r < 0) {
            return r;
        }
    }
    return list_vms(c, &view_vm_columns, NULL, e);
}

int vm_show(struct cli_call *c, struct hv_error *e)
{
    return show_vms(c, &view_vm_columns, NULL, e);
}

/* ---- counters ---- */

/* The service says columns once and then rows; which they are it decides. */
static int sample_stats(struct cli_call *c, void *arg, json_t **ret, struct hv_error *e)
{
    struct sampler *s = arg;
    json_t *reply, *row, *cell;
    size_t i, j;
    int r = conn_call(s->k, "Stats", c->all ? NULL : json_pack("{s:o}", "names", names_of(c)), 0, &reply, e);
    if (r < 0) {
        return r;
    }
    const json_t *columns = json_object_get(reply, "columns");
    json_t *rows = json_array();
    json_array_foreach(json_object_get(reply, "rows"), i, row) {
        json_t *o = json_object();
        json_object_set(o, "time_ms", json_object_get(reply, "time_ms"));
        json_array_foreach(row, j, cell) {
            const char *name = json_string_value(json_array_get(columns, j));
            if (name) {
                json_object_set(o, name, cell);
            }
        }
        json_array_append_new(rows, o);
    }
    json_decref(reply);
    *ret = rows;
    return 0;
}

static const struct cli_column stats_columns[] = {
    {"name", .cut = true, .help = "the VM"},
    {"state", .help = "off starting running paused stopping"},
    {"cpu_pct", .header = "CPU", .unit = CLI_UNIT_PCT, .help = "share of its processors in use"},
    {"assigned", .unit = CLI_UNIT_SIZE, .help = "memory it has"},
    {"demand", .unit = CLI_UNIT_SIZE, .help = "memory the guest needs"},
    {"resident", .unit = CLI_UNIT_SIZE, .help = "memory the host holds for it"},
    {"code", .unit = CLI_UNIT_SIZE, .help = "memory of translated code (soft engine)"},
    {"uptime_ms", .header = "UPTIME", .unit = CLI_UNIT_AGE_MS, .help = "since it started"},
    {"time_ms", .unit = CLI_UNIT_NUMBER, .help = "of the sample, milliseconds since 1970"},
    {0},
};
const struct cli_columns vm_stats_columns = {
    .col = stats_columns, .defaults = "name,state,cpu_pct,assigned,resident,uptime_ms", .sort = "name",
};

int vm_stats(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct sampler s = {0};
    struct targets ts = {0};
    int r = cli_printer_init(&p, c, &vm_stats_columns, CLI_FMT_TABLE, e);
    if (r == 0) {
        r = conn_open(c, &s.k, e);
    }
    if (r == 0 && (r = targets_find(c, s.k, 0, NULL, &ts, e)) == 0) {
        for (unsigned i = 0; i < ts.n && r == 0; i++) {
            if (hv_error_is_set(&ts.t[i].error)) {
                *e = ts.t[i].error;
                r = -ENOENT;
            }
        }
        if (r == 0) {
            r = watch_rows(c, &p, sample_stats, &s, ts.one, e);
        }
    }
    targets_free(&ts);
    conn_close(s.k);
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}
