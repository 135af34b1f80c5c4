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
    {.name = "smart-paging", .type = CLI_DIR, .flags = CLI_LATER, .arg = "DIR", .help = "where a restart may page"},
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
    {.noun = "memory", .verb = "plan", .help = "what more virtual machines would do"},
    {.noun = "memory", .verb = "report", .help = "what dynamic memory saved"},
    {0},
};
