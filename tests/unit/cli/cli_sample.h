/* A small tool for the tests of hv/cli: one noun with verbs, one without, one that is later. */
#ifndef TESTS_UNIT_CLI_SAMPLE_H
#define TESTS_UNIT_CLI_SAMPLE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "hv/cli/call.h"
#include "hv/cli/column.h"

#include <cmocka.h>

HV_UNUSED static int sample_run(struct cli_call *c, struct hv_error *e) { return 0; }

static const struct cli_column sample_columns_[] = {
    {"name", .cut = true, .help = "its name"},
    {"state", .help = "its state"},
    {"assigned", "memory.assigned", .unit = CLI_UNIT_SIZE, .help = "memory"},
    {"demand", "memory.demand", .unit = CLI_UNIT_SIZE, .help = "memory needed"},
    {"buffer_now_pct", "memory.buffer_now_pct", "BUFFER", CLI_UNIT_PCT, .help = "head-room"},
    {"status", "memory.status", .unit = CLI_UNIT_STATUS, .help = "ok low warning"},
    {"cpu_pct", "processor.cpu_pct", "CPU", CLI_UNIT_PCT, .help = "cpu"},
    {"uptime_s", NULL, "UPTIME", CLI_UNIT_AGE_S, .help = "age"},
    {"dynamic", "memory.dynamic", .unit = CLI_UNIT_SWITCH, .help = "dynamic"},
    {"cpus", "processor.cpus", .unit = CLI_UNIT_NUMBER, .help = "processors"},
    {"notes", .cut = true, .help = "notes"},
    {0},
};
static const struct cli_columns sample_columns = {
    .col = sample_columns_, .defaults = "name,state,assigned,demand,status,cpu_pct,uptime_s", .sort = "name",
};

static const struct cli_arg sample_vms[] = {{"VM", CLI_VM, CLI_REPEAT | CLI_OR_ALL, .help = "a VM"}, {0}};
static const struct cli_arg sample_name[] = {{"NAME", CLI_NAME, .help = "a name"}, {0}};
static const struct cli_option sample_set[] = {
    {.name = "max", .type = CLI_SIZE_REL, .arg = "SIZE", .flags = CLI_NONE_DEFAULT, .key = "memory.max", .help = "most"},
    {.name = "dynamic", .type = CLI_SWITCH, .arg = "on|off", .key = "memory.dynamic", .help = "dynamic"},
    {.name = "priority", .type = CLI_UINT, .arg = "N", .min = 0, .max = 100, .key = "memory.priority", .help = "who first"},
    {.name = "disk", .type = CLI_FILE, .arg = "PATH", .flags = CLI_LATER, .help = "a disk"},
    {0},
};
static const struct cli_option sample_create[] = {
    {.name = "memory", .type = CLI_SIZE, .arg = "SIZE", .key = "memory.startup", .help = "memory"},
    {.name = "kernel", .type = CLI_FILE, .arg = "PATH", .values = "*", .key = "boot.kernel", .help = "kernel"},
    {.name = "engine", .type = CLI_ENUM, .arg = "E", .values = "auto|kvm|soft", .later = "kvm", .key = "engine", .help = "engine"},
    {.name = "tag", .type = CLI_STRING, .arg = "T", .flags = CLI_REPEAT, .help = "tags"},
    {.name = "key", .type = CLI_CHAR, .arg = "K", .help = "a key"},
    {.name = "until", .type = CLI_REGEX, .arg = "R", .help = "a pattern"},
    {0},
};
static const struct cli_elsewhere sample_elsewhere[] = {{"memory", "vm set", "max"}, {0}};
static const struct cli_example sample_example[] = {{"x vm list", "list"}, {0}};

static const struct cli_command sample_vm[] = {
    {.noun = "vm", .verb = "list", .help = "list", .use = CLI_USE_LIST | CLI_USE_WATCH, .columns = &sample_columns,
     .examples = sample_example, .run = sample_run},
    {.noun = "vm", .verb = "start", .help = "start", .args = sample_vms, .use = CLI_USE_TARGETS | CLI_USE_WAIT | CLI_USE_JOB,
     .examples = sample_example, .elsewhere = sample_elsewhere, .run = sample_run},
    {.noun = "vm", .verb = "set", .help = "set", .args = sample_vms, .options = sample_set, .use = CLI_USE_TARGETS,
     .examples = sample_example, .run = sample_run},
    {.noun = "vm", .verb = "create", .help = "create", .args = sample_name, .options = sample_create,
     .examples = sample_example, .run = sample_run},
    {.noun = "vm", .verb = "save", .help = "save"},
    {0},
};
static const struct cli_command sample_memory[] = {
    {.noun = "memory", .verb = "show", .help = "show", .args = sample_vms, .use = CLI_USE_LIST | CLI_USE_TARGETS,
     .columns = &sample_columns, .examples = sample_example, .run = sample_run},
    {.noun = "memory", .verb = "list", .help = "list", .use = CLI_USE_LIST, .columns = &sample_columns,
     .examples = sample_example, .run = sample_run},
    {0},
};
static const struct cli_command sample_events[] = {
    {.noun = "events", .help = "events", .use = CLI_USE_STREAM, .examples = sample_example, .run = sample_run}, {0}};
static const struct cli_noun sample_nouns[] = {
    {"vm", NULL, "machines", sample_vm, .default_verb = "list"},
    {"memory", "mem", "memory", sample_memory, .default_verb = "list", .target_verb = "show"},
    {"events", NULL, "events", sample_events},
    {"checkpoint", "snapshot", "checkpoints"},
    {0},
};
static const struct cli_tool sample_tool = {
    .name = "x", .help = "a sample", .nouns = sample_nouns, .default_noun = "vm", .later_hint = "man y",
};

#define WORDS_MAX 16

/* Parse "x WORDS..." into c; words end with NULL. */
HV_UNUSED static int sample_parse(struct cli_call *c, struct hv_error *e, const char *const *words)
{
    static char *argv[WORDS_MAX];
    int argc = 0;
    argv[argc++] = (char *)"x";
    for (; *words; words++) {
        assert_true(argc < WORDS_MAX);
        argv[argc++] = (char *)*words;
    }
    memset(e, 0, sizeof(*e));
    cli_call_init(c, &sample_tool);
    c->tty_in = c->tty_out = c->tty_err = false;
    return cli_parse(c, argc, argv, e);
}
#define PARSE(c, e, ...) sample_parse(c, e, (const char *const[]){__VA_ARGS__, NULL})

#endif
