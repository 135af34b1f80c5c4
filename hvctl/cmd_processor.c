/* The noun processor. */
#include <errno.h>
#include <stdio.h>

#include "hvctl/hvctl.h"

static const struct cli_column columns[] = {
    {"name", .cut = true, .help = "the VM"},
    {"state", .help = "off starting running paused stopping"},
    {"cpus", "processor.cpus", .unit = CLI_UNIT_NUMBER, .help = "virtual processors"},
    {"cpu_pct", "processor.cpu_pct", "CPU", CLI_UNIT_PCT, .help = "share of its processors in use"},
    {"weight", "processor.weight", .unit = CLI_UNIT_NUMBER, .help = "its share where processors are short"},
    {"limit_pct", "processor.limit_pct", "LIMIT", CLI_UNIT_PCT, .help = "most of its processors it may use"},
    {"unit", "processor.unit", .help = "systemd's unit around its worker"},
    {0},
};
static const struct cli_columns table = {.col = columns, .defaults = "name,state,cpus,cpu_pct,weight,limit_pct", .sort = "name", .xml = true};

static int processor_list(struct cli_call *c, struct hv_error *e)
{
    return list_vms(c, &table, "processor", e);
}

static int processor_show(struct cli_call *c, struct hv_error *e)
{
    return show_vms(c, &table, "processor", e);
}

static json_t *build(struct cli_call *c, const json_t *vm, struct hv_error *e)
{
    return cli_settings(c, e);
}

static int processor_set(struct cli_call *c, struct hv_error *e)
{
    return set_vms(c, build, &table, "processor", e);
}

static const struct cli_arg vms[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OR_ALL, .help = "name, GUID, a glob in quotes, or @GROUP"}, {0}};
static const struct cli_arg vms_optional[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OPTIONAL, .help = "only these; names, GUIDs, globs in quotes, @GROUP"}, {0}};

static const struct cli_option set_options[] = {
    {.name = "cpus", .type = CLI_UINT, .arg = "N", .flags = CLI_NONE_DEFAULT, .min = 1, .max = 64, .def = "1",
     .key = "processor.cpus", .help = "virtual processors"},
    {.name = "weight", .type = CLI_UINT, .arg = "N", .flags = CLI_NONE_DEFAULT, .min = 0, .max = 10000, .def = "100",
     .key = "processor.weight", .help = "its share where processors are short, against the others'"},
    {.name = "limit", .type = CLI_PERCENT, .arg = "PCT", .flags = CLI_NONE_DEFAULT, .min = 1, .max = 100, .def = "100",
     .key = "processor.limit_pct", .help = "most of its processors' time it may use"},
    {.name = "now", .type = CLI_BOOL, .help = "fail unless all of it takes effect at once"},
    {.name = "next-start", .type = CLI_BOOL, .help = "only store it"},
    {.name = "reserve", .type = CLI_PERCENT, .flags = CLI_LATER, .arg = "PCT", .help = "share of the host's time it always has"},
    {.name = "threads-per-core", .type = CLI_UINT, .flags = CLI_LATER, .arg = "N", .help = "what the guest is told"},
    {.name = "max-cpus-per-node", .type = CLI_UINT, .flags = CLI_LATER, .arg = "N", .help = "what the guest is told"},
    {.name = "max-per-socket", .type = CLI_UINT, .flags = CLI_LATER, .arg = "N", .help = "what the guest is told"},
    {.name = "nested", .type = CLI_SWITCH, .flags = CLI_LATER, .arg = "on|off", .help = "VT-x or AMD-V in the guest"},
    {.name = "compat-migration", .type = CLI_SWITCH, .flags = CLI_LATER, .arg = "on|off",
     .help = "only features that other hosts have"},
    {0},
};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command processor_commands[] = {
    {.noun = "processor", .verb = "list", .help = "virtual processors and how busy they are", .args = vms_optional,
     .use = CLI_USE_LIST | CLI_USE_WATCH, .columns = &table, .codes = CODE(NOT_FOUND), .run = processor_list,
     .examples = EXAMPLES({"hvctl cpu", "every VM"}, {"hvctl cpu list -s -cpu_pct -F cpu_pct.gt=50", "the busy ones"})},
    {.noun = "processor", .verb = "show", .help = "the virtual processors of a virtual machine", .args = vms,
     .use = CLI_USE_LIST | CLI_USE_TARGETS, .columns = &table, .codes = CODE(NOT_FOUND), .run = processor_show,
     .examples = EXAMPLES({"hvctl processor web1 -o json", "for a program"})},
    {.noun = "processor", .verb = "set", .help = "change processor settings", .args = vms, .options = set_options,
     .use = CLI_USE_TARGETS | CLI_USE_DRY, .columns = &table,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(PARTIAL), .run = processor_set,
     .examples = EXAMPLES({"hvctl processor set web1 --cpus 4", "at the next start"},
                          {"hvctl processor set build1 --weight 50 --limit 75", "now: half the usual share, and never more than three quarters"})},
    {0},
};
