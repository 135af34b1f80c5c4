/* The noun memory. */
#include <errno.h>
#include <stdio.h>

#include "hv/base/units.h"
#include "hvctl/hvctl.h"

static int memory_list(struct cli_call *c, struct hv_error *e)
{
    return list_vms(c, &view_memory_columns, "memory", e);
}

static int memory_show(struct cli_call *c, struct hv_error *e)
{
    return show_vms(c, &view_memory_columns, "memory", e);
}

/* +1G and -512M are relative to what is stored; the result is what the service is told. */
static int add_relative(struct cli_call *c, const json_t *vm, json_t *settings, struct hv_error *e)
{
    for (unsigned i = 0; i < c->n_values; i++) {
        const struct cli_value *v = &c->values[i];
        if (!v->sign || !v->opt->key) {
            continue;
        }
        uint64_t now = (uint64_t)json_integer_value(cli_json_path(json_object_get(vm, "settings"), v->opt->key));
        if (v->sign < 0 && v->u > now) {
            char object[80], buf[32];
            snprintf(object, sizeof(object), "--%s %s", v->opt->name, v->text);
            return hv_fail(e, HV_USAGE, object, "it has only %s", format_size(now, buf, sizeof(buf)));
        }
        uint64_t want = v->sign > 0 ? now + v->u : now - v->u;
        if (want < now && v->sign > 0) {
            return hv_fail(e, HV_USAGE, v->text, "too large");
        }
        cli_json_set_path(settings, v->opt->key, json_integer((json_int_t)want));
    }
    return 0;
}

static json_t *build(struct cli_call *c, const json_t *vm, struct hv_error *e)
{
    json_t *settings = cli_settings(c, e);
    if (settings && add_relative(c, vm, settings, e) < 0) {
        json_decref(settings);
        return NULL;
    }
    return settings;
}

/* Linux guests hot-add blocks of 128M: sizes that are no multiple waste the rest. */
static void warn_granularity(struct cli_call *c)
{
    for (unsigned i = 0; i < c->n_values; i++) {
        const struct cli_value *v = &c->values[i];
        bool size = v->opt->type == CLI_SIZE || v->opt->type == CLI_SIZE_REL;
        if (size && v->opt->key && !v->is_none && !v->is_default && v->u % (128 * MIB)) {
            char object[80];
            snprintf(object, sizeof(object), "--%s %s", v->opt->name, v->text);
            cli_warn(c, object, "no multiple of 128M: Linux guests add memory in blocks of 128M");
        }
    }
}

static int memory_set(struct cli_call *c, struct hv_error *e)
{
    int r = set_vms(c, build, &view_memory_columns, "memory", e);
    const struct cli_value *dynamic = cli_opt(c, "dynamic");
    if (r == 0 && !(dynamic && !dynamic->u)) {
        warn_granularity(c);
    }
    return r;
}

/* ---- plan and report ---- */

static const struct cli_column plan_columns[] = {
    {"add", .unit = CLI_UNIT_NUMBER, .help = "how many more were asked about"},
    {"fit", .unit = CLI_UNIT_NUMBER, .help = "how many of them could be started"},
    {"low", .unit = CLI_UNIT_NUMBER, .help = "VMs that would go Low"},
    {"warning", .unit = CLI_UNIT_NUMBER, .help = "VMs that would go to Warning"},
    {"samples", .unit = CLI_UNIT_NUMBER, .help = "minutes of history it was worked out on"},
    {0},
};
static const struct cli_columns plan_table = {.col = plan_columns, .defaults = "add,fit,low,warning,samples", .name = "add"};

static const char *some(char *buf, size_t size, const json_t *o, const char *key, const char *one, const char *more)
{
    json_int_t n = json_integer_value(json_object_get(o, key));
    if (n == 0) {
        snprintf(buf, size, "%s%s", *one ? "no" : "none", one);
    } else {
        snprintf(buf, size, "%" JSON_INTEGER_FORMAT "%s", n, n == 1 ? one : more);
    }
    return buf;
}

static int memory_plan(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct conn *k = NULL;
    json_t *reply = NULL;
    uint64_t startup = cli_number(c, "startup", GIB), most = cli_number(c, "max", MAX(4 * GIB, startup));
    int r = cli_printer_init(&p, c, &plan_table, CLI_FMT_DEFAULT, e);
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r == 0) {
        r = conn_call(k, "PlanMemory", json_pack("{s:I s:I s:I}", "add", (json_int_t)cli_number(c, "add", 1), "startup",
                                                 (json_int_t)startup, "max", (json_int_t)most), 0, &reply, e);
    }
    if (r == 0 && p.format == CLI_FMT_DEFAULT && !c->columns && !c->filter && !c->sort) {
        json_int_t add = json_integer_value(json_object_get(reply, "add")), fit = json_integer_value(json_object_get(reply, "fit"));
        char of[32] = "", low[32], warning[32];
        if (fit < add)
            snprintf(of, sizeof(of), " of %" JSON_INTEGER_FORMAT, add);
        fprintf(c->out, "%" JSON_INTEGER_FORMAT "%s more fit: %s would go Low, %s Warning\n", fit, of,
                some(low, sizeof(low), reply, "low", " VM", " VMs"), some(warning, sizeof(warning), reply, "warning", "", ""));
        if (!json_integer_value(json_object_get(reply, "samples"))) {
            cli_warn(c, "plan", "there is no history yet: present VMs count with what they have, new ones with their maximum");
        }
    } else if (r == 0) {
        json_t *rows = json_pack("[O]", reply);
        p.format = p.format == CLI_FMT_DEFAULT ? CLI_FMT_TABLE : p.format;
        cli_print_rows(&p, rows, true);
        json_decref(rows);
    }
    json_decref(reply);
    conn_close(k);
    cli_printer_fini(&p);
    return MIN(r, 0);
}

static const struct cli_column report_columns[] = {
    {"name", .cut = true, .help = "the VM"},
    {"max", .unit = CLI_UNIT_SIZE, .help = "its maximum"},
    {"static_size", .unit = CLI_UNIT_SIZE, .help = "what it would need without Dynamic Memory: its peak and a quarter"},
    {"used", .unit = CLI_UNIT_SIZE, .help = "what it had on average"},
    {"warning_pct", NULL, "WARNING", CLI_UNIT_PCT, .help = "share of the time in which it had less than its demand"},
    {0},
};
static const struct cli_columns report_table = {
    .col = report_columns, .defaults = "name,max,static_size,used,warning_pct", .sort = "name",
};

static int memory_report(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct conn *k = NULL;
    json_t *reply = NULL;
    int64_t since = 0;
    int r = cli_printer_init(&p, c, &report_table, CLI_FMT_TABLE, e);
    if (r == 0) {
        r = time_parse(cli_text(c, "since", "24h"), "--since", hv_wall_ns(), &since, e);
    }
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r == 0) {
        r = conn_call(k, "ReportMemory", json_pack("{s:I}", "since_ms", (json_int_t)since), 0, &reply, e);
    }
    const json_t *vms = json_object_get(reply, "vms"), *total = json_object_get(reply, "total");
    if (r == 0 && p.format == CLI_FMT_JSON) {
        hv_autofree char *text = json_dumps(reply, JSON_INDENT(2));
        fprintf(c->out, "%s\n", text ? text : "");
    } else if (r == 0) {
        cli_print_rows(&p, vms, false);
        if ((p.format == CLI_FMT_TABLE || p.format == CLI_FMT_WIDE) && json_array_size(vms)) {
            char a[32], b[32], u[32];
            fprintf(c->out, "%zu VMs: maxima %s, static sizing %s, used %s, Warning %.2f%%\n", json_array_size(vms),
                    format_size((uint64_t)json_integer_value(json_object_get(total, "max")), a, sizeof(a)),
                    format_size((uint64_t)json_integer_value(json_object_get(total, "static_size")), b, sizeof(b)),
                    format_size((uint64_t)json_integer_value(json_object_get(total, "used")), u, sizeof(u)),
                    json_number_value(json_object_get(total, "warning_pct")));
        }
    }
    json_decref(reply);
    conn_close(k);
    cli_printer_fini(&p);
    return MIN(r, 0);
}

static const struct cli_option plan_options[] = {
    {.name = "add", .type = CLI_UINT, .arg = "N", .min = 1, .max = 512, .def = "1", .help = "how many more"},
    {.name = "startup", .type = CLI_SIZE_REL, .arg = "SIZE", .flags = CLI_NONE_DEFAULT, .def = "1G", .help = "what each boots with"},
    {.name = "max", .type = CLI_SIZE_REL, .arg = "SIZE", .flags = CLI_NONE_DEFAULT, .def = "4G", .help = "the most each may have"},
    {0},
};
static const struct cli_option report_options[] = {
    {.name = "since", .type = CLI_TIME, .arg = "TIME", .def = "24h", .help = "from when on; a day at most"},
    {0},
};

static const struct cli_arg vms[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OR_ALL, .help = "name, GUID, @GROUP, or a glob in quotes"}, {0}};
static const struct cli_arg vms_optional[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OPTIONAL, .help = "only these; names, GUIDs, @GROUP, globs in quotes"}, {0}};

static const struct cli_option set_options[] = {
    {.name = "startup", .type = CLI_SIZE_REL, .arg = "SIZE", .flags = CLI_NONE_DEFAULT, .key = "memory.startup",
     .def = "1G", .help = "what the guest boots with; all it has where memory is static"},
    {.name = "dynamic", .type = CLI_SWITCH, .arg = "on|off", .key = "memory.dynamic", .def = "off",
     .help = "let the balancer move its memory"},
    {.name = "min", .type = CLI_SIZE_REL, .arg = "SIZE", .flags = CLI_NONE_DEFAULT, .key = "memory.min",
     .def = "512M", .help = "never take memory away below this"},
    {.name = "max", .type = CLI_SIZE_REL, .arg = "SIZE", .flags = CLI_NONE_DEFAULT, .key = "memory.max",
     .def = "1T", .help = "never give more than this"},
    {.name = "buffer", .type = CLI_PERCENT, .arg = "PCT", .flags = CLI_NONE_DEFAULT, .min = 5, .max = 2000,
     .key = "memory.buffer_pct", .def = "20", .help = "head-room above demand, in per cent of demand"},
    {.name = "priority", .type = CLI_UINT, .arg = "N", .flags = CLI_NONE_DEFAULT, .max = 100,
     .key = "memory.priority", .def = "50", .help = "who gets memory first when it is short"},
    {.name = "now", .type = CLI_BOOL, .help = "fail unless all of it takes effect at once"},
    {.name = "next-start", .type = CLI_BOOL, .help = "only store it"},
    {.name = "visible", .type = CLI_ENUM, .arg = "WHAT", .values = "startup|max", .key = "memory.visible", .def = "startup",
     .help = "what the guest sees at boot; max: for guests that cannot take more while they run"},
    {.name = "demand-source", .type = CLI_ENUM, .arg = "WHAT", .values = "hybrid|commit|use", .key = "memory.demand_source",
     .def = "hybrid", .help = "how demand is worked out: used and committed memory, or one of them"},
    {.name = "max-per-node", .type = CLI_SIZE, .flags = CLI_LATER, .arg = "SIZE", .help = "memory of one NUMA node"},
    {.name = "smart-paging", .type = CLI_DIR, .flags = CLI_NONE_VALUE, .arg = "DIR|none", .key = "memory.smart_paging",
     .help = "folder on a disk for what a restart cannot have in memory"},
    {0},
};
static const struct cli_elsewhere set_elsewhere[] = {
    {"memory", "memory set", "startup"}, {"cpus", "processor set", "cpus"}, {"notes", "vm set", "notes"}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command memory_commands[] = {
    {.noun = "memory", .verb = "list", .help = "what virtual machines have, need and may have", .args = vms_optional,
     .use = CLI_USE_LIST | CLI_USE_WATCH, .columns = &view_memory_columns, .codes = CODE(NOT_FOUND),
     .run = memory_list,
     .examples = EXAMPLES({"hvctl memory list", "every VM"},
                          {"hvctl memory list -F status.ne=ok -o name", "who is short"})},
    {.noun = "memory", .verb = "show", .help = "the memory of a virtual machine in full", .args = vms,
     .use = CLI_USE_LIST | CLI_USE_TARGETS, .columns = &view_memory_columns, .codes = CODE(NOT_FOUND),
     .run = memory_show,
     .examples = EXAMPLES({"hvctl memory web1", "the short way"},
                          {"hvctl memory show web1 -o json", "for a program"})},
    {.noun = "memory", .verb = "set", .help = "change memory settings", .args = vms, .options = set_options,
     .elsewhere = set_elsewhere, .use = CLI_USE_TARGETS | CLI_USE_DRY, .columns = &view_memory_columns,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(PARTIAL), .run = memory_set,
     .examples = EXAMPLES({"hvctl memory set web1 --max 8G --startup 3G", "each line says when it applies"},
                          {"hvctl memory set web1 --startup +1G", "one gibibyte more than now"})},
    {.noun = "memory", .verb = "plan", .help = "what more virtual machines would do", .options = plan_options,
     .columns = &plan_table, .use = CLI_USE_LIST, .run = memory_plan,
     .about = "Each new machine needs what one of the present ones needed over the last day, the one with the highest "
              "peak first; without history, its maximum.",
     .examples = EXAMPLES({"hvctl memory plan --add 5 --startup 1G --max 4G", "5 more fit: 2 VMs would go Low, none Warning"})},
    {.noun = "memory", .verb = "report", .help = "what dynamic memory saved", .options = report_options,
     .columns = &report_table, .use = CLI_USE_LIST, .run = memory_report,
     .examples = EXAMPLES({"hvctl memory report --since 24h", "each machine, and the sums in the last line"})},
    {0},
};
