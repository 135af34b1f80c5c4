/* The noun metering: what virtual machines have used. */
#include <errno.h>
#include <stdio.h>

#include "hv/base/units.h"
#include "hvctl/hvctl.h"

static const struct cli_column cols[] = {
    {"name", .cut = true, .help = "the VM"},
    {"since", .unit = CLI_UNIT_TIME, .help = "when metering was enabled or reset"},
    {"run_s", NULL, "RAN", CLI_UNIT_AGE_S, .help = "how long it ran since then; averages are over that"},
    {"cpu_avg_pct", NULL, "CPU", CLI_UNIT_PCT, .help = "on average, in per cent of one processor of the host"},
    {"cpu_s", NULL, "CPU-TIME", CLI_UNIT_AGE_S, .help = "in sum"},
    {"memory_avg", NULL, "AVG-MEMORY", CLI_UNIT_SIZE, .help = "memory it had, on average"},
    {"memory_min", NULL, "MIN", CLI_UNIT_SIZE, .help = "the least it had"},
    {"memory_max", NULL, "MAX", CLI_UNIT_SIZE, .help = "the most it had"},
    {"disk_size", NULL, "DISKS", CLI_UNIT_SIZE, .help = "what its disks could hold, at most"},
    {"disk_read", NULL, "READ", CLI_UNIT_SIZE, .help = "bytes read from disks"},
    {"disk_written", NULL, "WRITTEN", CLI_UNIT_SIZE, .help = "bytes written to disks"},
    {"disk_reads", NULL, "READS", CLI_UNIT_NUMBER, .help = "how many reads"},
    {"disk_writes", NULL, "WRITES", CLI_UNIT_NUMBER, .help = "how many writes"},
    {0},
};
static const struct cli_columns table = {
    .col = cols,
    .defaults = "name,run_s,cpu_avg_pct,memory_avg,memory_min,memory_max,disk_size,disk_read,disk_written",
    .sort = "name",
};

/* Of several together: sums, and averages of what was side by side. */
static json_t *total_of(const json_t *rows)
{
    json_t *total = json_pack("{s:I}", "vms", (json_int_t)json_array_size(rows)), *row;
    size_t i;
    for (const struct cli_column *col = cols; col->key; col++) {
        json_int_t sum = 0;
        double pct = 0;
        if (!cli_is_number(col->unit)) {
            continue;
        }
        json_array_foreach((json_t *)rows, i, row) {
            sum += json_integer_value(json_object_get(row, col->key));
            pct += json_number_value(json_object_get(row, col->key));
        }
        json_object_set_new(total, col->key, col->unit == CLI_UNIT_PCT ? json_real(pct) : json_integer(sum));
    }
    return total;
}

static json_t *row_of(const json_t *vm)
{
    const json_t *m = cli_json_path(vm, "runtime.metering");
    json_t *row = json_is_object(m) ? json_copy((json_t *)m) : NULL;
    if (row) {
        json_object_set(row, "name", json_object_get(vm, "name"));
        json_object_set(row, "id", json_object_get(vm, "id"));
    }
    return row;
}

/* A row for each that is metered. Who was named and is not: said, and an error where it is all that was asked for. */
static int rows_of(struct cli_call *c, const json_t *vms, json_t *rows, struct hv_error *e)
{
    json_t *vm;
    size_t i;
    json_array_foreach((json_t *)vms, i, vm) {
        const char *name = json_string_value(json_object_get(vm, "name"));
        json_t *row = row_of(vm);
        if (row) {
            json_array_append_new(rows, row);
        } else if (c->n_args == 1 && name && strcmp(c->args[0], name) == 0) {
            int r = hv_fail(e, HV_CONFLICT, name, "it is not metered");
            hv_hint(e, "hvctl metering enable %s", name);
            return r;
        } else if (c->n_args && name) {
            cli_warn(c, name, "it is not metered");
        }
    }
    return 0;
}

static int show(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct conn *k = NULL;
    json_t *reply = NULL, *names = json_array(), *rows = json_array();
    for (unsigned i = 0; i < c->n_args; i++) {
        json_array_append_new(names, json_string(c->args[i]));
    }
    int r = cli_printer_init(&p, c, &table, CLI_FMT_TABLE, e);
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r == 0) {
        r = conn_call(k, "List", c->n_args ? json_pack("{s:O s:[]}", "names", names, "groups") : json_pack("{s:[]}", "groups"), 0,
                      &reply, e);
    }
    if (r == 0) {
        r = rows_of(c, json_object_get(reply, "vms"), rows, e);
    }
    json_t *total = total_of(rows);
    if (r == 0 && p.format == CLI_FMT_JSON) {
        json_t *o = json_pack("{s:O s:O}", "vms", rows, "total", total);
        hv_autofree char *text = json_dumps(o, JSON_INDENT(2));
        fprintf(c->out, "%s\n", text ? text : "");
        json_decref(o);
    } else if (r == 0) {
        bool sum = (p.format == CLI_FMT_TABLE || p.format == CLI_FMT_WIDE) && json_array_size(rows) > 1;
        cli_print_rows(&p, rows, false);
        if (sum) {
            char a[32], lo[32], hi[32], read[32], written[32];
            fprintf(c->out, "%zu VMs: CPU %.0f%%, memory %s on average, %s to %s; disks read %s, wrote %s\n", json_array_size(rows),
                    json_number_value(json_object_get(total, "cpu_avg_pct")),
                    format_size((uint64_t)json_integer_value(json_object_get(total, "memory_avg")), a, sizeof(a)),
                    format_size((uint64_t)json_integer_value(json_object_get(total, "memory_min")), lo, sizeof(lo)),
                    format_size((uint64_t)json_integer_value(json_object_get(total, "memory_max")), hi, sizeof(hi)),
                    format_size((uint64_t)json_integer_value(json_object_get(total, "disk_read")), read, sizeof(read)),
                    format_size((uint64_t)json_integer_value(json_object_get(total, "disk_written")), written, sizeof(written)));
        }
    }
    json_decref(total);
    json_decref(rows);
    json_decref(names);
    json_decref(reply);
    conn_close(k);
    cli_printer_fini(&p);
    return MIN(r, 0);
}

/* ---- enable, disable, reset ---- */

static int change_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    const char *action = arg;
    json_t *reply;
    int r = conn_call(k, "Meter", json_pack("{s:s s:s}", "name", t->name, "action", action), 0, &reply, e);
    if (r < 0) {
        return r;
    }
    bool changed = json_is_true(json_object_get(reply, "changed"));
    const char *done = strcmp(action, "reset") == 0 ? "reset" : strcmp(action, "enable") == 0 ? "enabled" : "disabled";
    cli_note(c, changed ? "%s: metering %s" : "%s: metering is %s already", t->name, done);
    json_decref(reply);
    return 0;
}

static int change(struct cli_call *c, const char *action, struct hv_error *e)
{
    struct targets ts = {0};
    struct conn *k;
    char word[16];
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    hv_strlcpy(word, action, sizeof(word));
    r = targets_find(c, k, 0, NULL, &ts, e);
    conn_close(k);
    if (r == 0) {
        r = targets_each(c, &ts, change_one, word, e);
    }
    if (r == 0) {
        r = targets_print(c, &ts, &view_vm_columns, NULL, e);
    }
    targets_free(&ts);
    return r;
}

static int enable(struct cli_call *c, struct hv_error *e)
{
    return change(c, "enable", e);
}

static int disable(struct cli_call *c, struct hv_error *e)
{
    return change(c, "disable", e);
}

static int reset(struct cli_call *c, struct hv_error *e)
{
    return change(c, "reset", e);
}

static const struct cli_arg vms[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OR_ALL, .help = "name, GUID, @GROUP, or a glob in quotes"}, {0}};
static const struct cli_arg vms_optional[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OPTIONAL, .help = "only these; names, GUIDs, @GROUP, globs in quotes"}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command metering_commands[] = {
    {.noun = "metering", .verb = "show", .help = "what virtual machines have used", .args = vms_optional, .use = CLI_USE_LIST,
     .columns = &table, .codes = CODE(NOT_FOUND) | CODE(CONFLICT), .run = show,
     .about = "Averages are over the time a machine ran since it is metered. In the sums of several, 100% of CPU is one processor "
              "of the host, and memory is what they had on average, at least and at most, added up.",
     .examples = EXAMPLES({"hvctl metering show @customer1", "each machine of a group, and the sums in the last line"},
                          {"hvctl metering show -o json", "{\"vms\": [...], \"total\": {...}}"})},
    {.noun = "metering", .verb = "enable", .help = "begin to count what virtual machines use", .args = vms,
     .use = CLI_USE_TARGETS, .columns = &view_vm_columns, .codes = CODE(NOT_FOUND) | CODE(PARTIAL), .run = enable,
     .examples = EXAMPLES({"hvctl metering enable web1", "a restart of the service loses nothing of it"})},
    {.noun = "metering", .verb = "disable", .help = "stop that, and forget what was counted", .args = vms,
     .use = CLI_USE_TARGETS, .columns = &view_vm_columns, .codes = CODE(NOT_FOUND) | CODE(PARTIAL), .run = disable,
     .examples = EXAMPLES({"hvctl metering disable --all", "nobody is metered"})},
    {.noun = "metering", .verb = "reset", .help = "count from now on", .args = vms, .use = CLI_USE_TARGETS,
     .columns = &view_vm_columns, .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(PARTIAL), .run = reset,
     .examples = EXAMPLES({"hvctl metering reset @customer1", "once a month, say, after metering show -o csv"})},
    {0},
};
