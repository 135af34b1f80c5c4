/* The noun host. */
#include <errno.h>
#include <stdio.h>

#include "hv/client/openmetrics.h"
#include "hvctl/hvctl.h"

static const struct cli_column host_columns[] = {
    {"name", .help = "its name"},
    {"mode", .help = "whose service this is: system or user"},
    {"version", .help = "of the service"},
    {"engine", .help = "CPU engine that auto takes"},
    {"kernel", .help = "Linux kernel of the host"},
    {"cpus", .unit = CLI_UNIT_NUMBER, .help = "processors"},
    {"total", "memory.total", .unit = CLI_UNIT_SIZE, .help = "memory"},
    {"available", "memory.available", .unit = CLI_UNIT_SIZE, .help = "memory that programs could still have"},
    {"reserve", "memory.reserve", .unit = CLI_UNIT_SIZE, .help = "memory kept for the host itself"},
    {"charged", "memory.charged", .unit = CLI_UNIT_SIZE, .help = "memory promised to VMs"},
    {"free", "memory.free", .unit = CLI_UNIT_SIZE, .help = "memory that may still be given to VMs"},
    {"vm_memory", "memory.vm_memory", .unit = CLI_UNIT_SIZE, .help = "configured limit of all VMs together; 0: none"},
    {"pressure_pct", "memory.average_pressure_pct", .unit = CLI_UNIT_PCT, .help = "mean of demand in per cent of assigned"},
    {"balancer", "balancer_on", .unit = CLI_UNIT_SWITCH, .help = "does it move memory"},
    {"balancer_delay_ms", .unit = CLI_UNIT_NUMBER, .help = "how long nothing is taken from a guest that has just started"},
    {"metrics", .help = "where hv-metrics listens"},
    {"vms", .unit = CLI_UNIT_NUMBER, .help = "virtual machines"},
    {"running", .unit = CLI_UNIT_NUMBER, .help = "those that run"},
    {"state_dir", .cut = true, .help = "where their settings are"},
    {0},
};
static const struct cli_columns host_table = {
    .col = host_columns, .defaults = "name,mode,engine,cpus,total,available,charged,vms,running",
};

static int host_show(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct conn *k = NULL;
    json_t *reply;
    int r = cli_printer_init(&p, c, &host_table, CLI_FMT_LIST, e);
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r == 0) {
        r = conn_call(k, "ShowHost", NULL, 0, &reply, e);
    }
    if (r == 0) {
        json_t *rows = json_pack("[O]", json_object_get(reply, "host"));
        cli_print_rows(&p, rows, true);
        json_decref(rows);
        json_decref(reply);
    }
    conn_close(k);
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

/* ---- doctor ---- */

static enum cli_role check_role(const json_t *row, const json_t *v)
{
    const char *s = json_string_value(v);
    return !s ? ROLE_NONE : strcmp(s, "problem") == 0 ? ROLE_ERROR : strcmp(s, "warning") == 0 ? ROLE_LOW : ROLE_OK;
}

static const struct cli_column doctor_columns[] = {
    {"status", .width = 7, .role = check_role, .help = "ok, warning or problem"},
    {"name", .width = 10, .header = "CHECK", .help = "what was looked at"},
    {"message", .header = "FOUND", .help = "what was found"},
    {"hint", .header = "TRY", .help = "what to do about it"},
    {0},
};
static const struct cli_columns doctor_table = {.col = doctor_columns, .defaults = "status,name,message"};

/* For people each check is a line, and what to do stands under it. */
static void print_checks(struct cli_call *c, const json_t *checks)
{
    size_t i;
    json_t *check;
    json_array_foreach((json_t *)checks, i, check) {
        const char *status = json_string_value(json_object_get(check, "status"));
        const char *hint = json_string_value(json_object_get(check, "hint"));
        const char *name = json_string_value(json_object_get(check, "name"));
        const char *message = json_string_value(json_object_get(check, "message"));
        enum cli_role role = check_role(check, json_object_get(check, "status"));
        strbuf_auto line = {0};
        strbuf_addf(&line, "%s%-7s%s  ", cli_role_start(c, role), status ? status : "-", cli_role_end(c, role));
        cli_clean(&line, name ? name : "-", cli_ascii(c));
        strbuf_adds(&line, ": ");
        cli_clean(&line, message ? message : "-", cli_ascii(c));
        if (hint && *hint) {
            strbuf_adds(&line, "\n         try: ");
            cli_clean(&line, hint, cli_ascii(c));
        }
        fprintf(c->out, "%s\n", line.buf ? line.buf : "");
    }
}

static int host_doctor(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct conn *k = NULL;
    json_t *reply, *check;
    size_t i;
    int r = cli_printer_init(&p, c, &doctor_table, CLI_FMT_DEFAULT, e);
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r == 0) {
        r = conn_call(k, "Doctor", NULL, 0, &reply, e);
    }
    if (r == 0) {
        const json_t *checks = json_object_get(reply, "checks");
        if (p.format == CLI_FMT_DEFAULT && !c->columns && !c->filter && !c->sort) {
            print_checks(c, checks);
        } else {
            p.format = p.format == CLI_FMT_DEFAULT ? CLI_FMT_TABLE : p.format;
            cli_print_rows(&p, checks, false);
        }
        json_array_foreach((json_t *)checks, i, check) {
            const char *status = json_string_value(json_object_get(check, "status"));
            if (status && strcmp(status, "problem") == 0) {
                c->exit_code = HV_FAILED;
            }
        }
        json_decref(reply);
    }
    conn_close(k);
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

/* ---- metrics ---- */

static int host_metrics(struct cli_call *c, struct hv_error *e)
{
    struct conn *k = NULL;
    json_t *reply = NULL;
    int r = conn_open(c, &k, e);
    if (r == 0) {
        r = conn_call(k, "Stats", NULL, 0, &reply, e);
    }
    if (r == 0) {
        hv_autofree char *text = client_openmetrics(reply);
        fputs(text ? text : "", c->out);
    }
    json_decref(reply);
    conn_close(k);
    return MIN(r, 0);
}

/* ---- set ---- */

static const struct cli_option set_options[] = {
    {.name = "vm-memory", .type = CLI_SIZE, .arg = "SIZE", .flags = CLI_NONE_DEFAULT,
     .help = "most that all VMs together may have; default: what the host has less its reserve"},
    {.name = "root-reserve", .type = CLI_SIZE, .arg = "SIZE", .flags = CLI_NONE_DEFAULT,
     .help = "memory kept for the host; default: 384M and 30M for each GiB it has"},
    {.name = "balancer", .type = CLI_SWITCH, .arg = "on|off", .def = "on", .help = "move memory between virtual machines"},
    {.name = "balancer-delay", .type = CLI_DURATION, .arg = "DURATION", .flags = CLI_NONE_DEFAULT, .def = "60s",
     .help = "how long nothing is taken from a guest that has just started"},
    {.name = "metrics", .type = CLI_STRING, .arg = "ADDR:PORT|off", .def = "127.0.0.1:9177",
     .help = "where hv-metrics listens"},
    {.name = "vm-path", .type = CLI_DIR, .flags = CLI_LATER, .arg = "DIR", .help = "where files of new VMs go"},
    {.name = "disk-path", .type = CLI_DIR, .flags = CLI_LATER | CLI_REPEAT, .arg = "DIR", .help = "where new disks go"},
    {.name = "numa-spanning", .type = CLI_SWITCH, .flags = CLI_LATER, .arg = "on|off", .help = "memory of a VM from several nodes"},
    {.name = "mac-range", .type = CLI_STRING, .flags = CLI_LATER, .arg = "A-B", .help = "addresses for network adapters"},
    {.name = "migrations", .type = CLI_UINT, .flags = CLI_LATER, .arg = "N", .help = "live migrations at the same time"},
    {0},
};

static int host_set(struct cli_call *c, struct hv_error *e)
{
    static const struct { const char *option, *key; } limits[] = {{"vm-memory", "vm_memory"}, {"root-reserve", "root_reserve"}};
    json_t *params = json_object(), *reply;
    struct conn *k = NULL;
    for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
        const struct cli_value *v = cli_opt(c, limits[i].option);
        if (v) {
            json_object_set_new(params, limits[i].key, json_integer(v->is_none || v->is_default ? 0 : (json_int_t)v->u));
        }
    }
    const struct cli_value *on = cli_opt(c, "balancer"), *delay = cli_opt(c, "balancer-delay");
    const char *metrics = cli_text(c, "metrics", NULL);
    if (on) {
        json_object_set_new(params, "balancer", json_boolean(on->u));
    }
    if (delay) {
        json_int_t ms = delay->is_default ? 60000 : delay->is_none ? 0 : (json_int_t)(delay->u / NS_PER_MS);
        json_object_set_new(params, "balancer_delay_ms", json_integer(ms));
    }
    if (metrics) {
        bool off = strcmp(metrics, "off") == 0 || strcmp(metrics, "none") == 0;
        json_object_set_new(params, "metrics", json_string(off ? "" : metrics));
    }
    if (json_object_size(params) == 0) {
        json_decref(params);
        hv_fail(e, HV_USAGE, "host set", "nothing to change");
        hv_hint(e, "hvctl host set --vm-memory SIZE");
        return -EINVAL;
    }
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &host_table, CLI_FMT_LIST, e);
    if (r < 0) {
        json_decref(params);
        return r;
    }
    if ((r = conn_open(c, &k, e)) < 0) {
        json_decref(params);
    } else if ((r = conn_call(k, "SetHost", params, 0, &reply, e)) == 0) {
        json_t *rows = json_pack("[O]", json_object_get(reply, "host"));
        cli_print_rows(&p, rows, true);
        json_decref(rows);
        json_decref(reply);
    }
    conn_close(k);
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command host_commands[] = {
    {.noun = "host", .verb = "show", .help = "what this host has and promised", .use = CLI_USE_LIST,
     .columns = &host_table, .run = host_show,
     .examples = EXAMPLES({"hvctl host", "for people"}, {"hvctl host show -o json", "for a program"})},
    {.noun = "host", .verb = "doctor", .help = "check what virtual machines need, and say what to do",
     .use = CLI_USE_LIST, .columns = &doctor_table, .run = host_doctor,
     .about = "Exit status 1 if a check found a problem, 0 if there are at most warnings.",
     .examples = EXAMPLES({"hvctl host doctor", "when something does not work"})},
    {.noun = "host", .verb = "set", .help = "change how the host treats its virtual machines", .options = set_options,
     .columns = &host_table, .use = CLI_USE_LIST, .run = host_set,
     .examples = EXAMPLES({"hvctl host set --vm-memory 8G", "no more than this for all VMs together"},
                          {"hvctl host set --vm-memory default", "what the host has, less its reserve"})},
    {.noun = "host", .verb = "metrics", .help = "the OpenMetrics text once", .run = host_metrics,
     .about = "What hv-metrics serves over HTTP: see hv-metrics(8).",
     .examples = EXAMPLES({"hvctl host metrics", "for a collector that reads files"})},
    {.noun = "host", .verb = "numa", .help = "its NUMA nodes"},
    {0},
};
