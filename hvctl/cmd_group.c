/* The noun group: names that stand for several VMs. */
#include <errno.h>
#include <stdio.h>

#include "hvctl/hvctl.h"

static const struct cli_column columns[] = {
    {"name", .cut = true, .help = "the group"},
    {"count", .header = "VMS", .unit = CLI_UNIT_NUMBER, .help = "how many are in it"},
    {"vms", .header = "MEMBERS", .cut = true, .help = "who is in it"},
    {0},
};
static const struct cli_columns table = {.col = columns, .defaults = "name,count,vms", .sort = "name"};

static json_t *row_of(const json_t *group)
{
    json_t *o = json_copy((json_t *)group);
    json_object_set_new(o, "count", json_integer((json_int_t)json_array_size(json_object_get(group, "vms"))));
    return o;
}

static int call(struct cli_call *c, const char *method, json_t *params, json_t **ret, struct hv_error *e)
{
    struct conn *k;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        json_decref(params);
        return r;
    }
    r = conn_call(k, method, params, 0, ret, e);
    conn_close(k);
    return r;
}

/* What a verb changed, for those who asked for it with -o. */
static int print_changed(struct cli_call *c, const json_t *reply, struct hv_error *e)
{
    const json_t *group = json_object_get(reply, "group");
    if (c->format == CLI_FMT_DEFAULT || c->format == CLI_FMT_TABLE || !group) {
        return 0;
    }
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &table, CLI_FMT_TABLE, e);
    if (r == 0) {
        json_t *rows = json_pack("[o]", row_of(group));
        cli_print_rows(&p, rows, true);
        json_decref(rows);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

static int sample_groups(struct cli_call *c, void *arg, json_t **ret, struct hv_error *e)
{
    json_t *reply, *group;
    size_t i;
    int r = call(c, "ListGroups", NULL, &reply, e);
    if (r == 0) {
        *ret = json_array();
        json_array_foreach(json_object_get(reply, "groups"), i, group) {
            json_array_append_new(*ret, row_of(group));
        }
        json_decref(reply);
    }
    return r;
}

static int group_list(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &table, CLI_FMT_TABLE, e);
    if (r == 0) {
        r = watch_rows(c, &p, sample_groups, NULL, false, e);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

/* "@lab" and "lab" are the same where only a group can stand. */
static const char *group_arg(const struct cli_call *c, unsigned i)
{
    return c->args[i] + (c->args[i][0] == '@');
}

static int simple(struct cli_call *c, const char *method, json_t *params, const char *done, struct hv_error *e)
{
    json_t *reply;
    int r = call(c, method, params, &reply, e);
    if (r == 0) {
        cli_note(c, "@%s: %s", group_arg(c, 0), done);
        r = print_changed(c, reply, e);
        json_decref(reply);
    }
    return r;
}

static int group_create(struct cli_call *c, struct hv_error *e)
{
    return simple(c, "CreateGroup", json_pack("{s:s}", "name", group_arg(c, 0)), "created", e);
}

static int group_remove(struct cli_call *c, struct hv_error *e)
{
    return simple(c, "RemoveGroup", json_pack("{s:s}", "name", group_arg(c, 0)), "removed; its VMs stay", e);
}

static int group_rename(struct cli_call *c, struct hv_error *e)
{
    return simple(c, "RenameGroup", json_pack("{s:s,s:s}", "name", group_arg(c, 0), "new_name", group_arg(c, 1)), "renamed", e);
}

/* add and drop: names, globs, other groups, all of them or none. */
static int group_change(struct cli_call *c, const char *key, const char *done, struct hv_error *e)
{
    struct targets ts;
    struct conn *k;
    json_t *names = json_array(), *reply;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        json_decref(names);
        return r;
    }
    r = targets_find(c, k, 1, NULL, &ts, e);
    for (unsigned i = 0; r == 0 && i < ts.n; i++) {
        if (hv_error_is_set(&ts.t[i].error)) {
            *e = ts.t[i].error;
            r = -ENOENT;
        } else {
            json_array_append_new(names, json_string(ts.t[i].name));
        }
    }
    unsigned n = r == 0 ? ts.n : 0;
    if (r == 0) {
        r = conn_call(k, "SetGroup", json_pack("{s:s,s:O}", "name", group_arg(c, 0), key, names), 0, &reply, e);
    }
    if (r == 0) {
        cli_note(c, "@%s: %u %s", group_arg(c, 0), n, done);
        r = print_changed(c, reply, e);
        json_decref(reply);
    }
    targets_free(&ts);
    conn_close(k);
    json_decref(names);
    return r;
}

static int group_add(struct cli_call *c, struct hv_error *e)
{
    return group_change(c, "add", "in it", e);
}

static int group_drop(struct cli_call *c, struct hv_error *e)
{
    return group_change(c, "drop", "not in it", e);
}

static const struct cli_arg one[] = {{"GROUP", CLI_GROUP, .help = "its name"}, {0}};
static const struct cli_arg fresh[] = {{"GROUP", CLI_NAME, .help = "1 to 100 characters, no /, not starting with - or @"}, {0}};
static const struct cli_arg two[] = {
    {"GROUP", CLI_GROUP, .help = "its name"}, {"NEW", CLI_NAME, .help = "its new name"}, {0}};
static const struct cli_arg with_vms[] = {
    {"GROUP", CLI_GROUP, .help = "its name"},
    {"VM", CLI_VM, CLI_REPEAT | CLI_OR_ALL, .help = "names, GUIDs, globs in quotes, @GROUP"}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}
#define CHANGES (CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(NO_RESOURCES))

const struct cli_command group_commands[] = {
    {.noun = "group", .verb = "list", .help = "list groups and who is in them", .use = CLI_USE_LIST | CLI_USE_WATCH, .columns = &table,
     .run = group_list, .examples = EXAMPLES({"hvctl group", "all of them"})},
    {.noun = "group", .verb = "create", .help = "create a group", .args = fresh, .columns = &table, .codes = CHANGES,
     .run = group_create, .examples = EXAMPLES({"hvctl group create lab", "then @lab stands for its VMs"})},
    {.noun = "group", .verb = "add", .help = "put virtual machines into a group", .args = with_vms, .use = CLI_USE_TARGETS,
     .columns = &table, .codes = CHANGES, .run = group_add,
     .examples = EXAMPLES({"hvctl group add lab 'web*' db1", "names and globs"}, {"hvctl stop @lab", "all that are in it"})},
    {.noun = "group", .verb = "drop", .help = "take virtual machines out of a group", .args = with_vms,
     .use = CLI_USE_TARGETS, .columns = &table, .codes = CHANGES, .run = group_drop,
     .examples = EXAMPLES({"hvctl group drop lab db1", "the VM itself stays"})},
    {.noun = "group", .verb = "rename", .help = "give a group another name", .args = two, .columns = &table,
     .codes = CHANGES, .run = group_rename, .examples = EXAMPLES({"hvctl group rename lab test", "@test from now on"})},
    {.noun = "group", .verb = "remove", .help = "remove a group; its virtual machines stay", .args = one, .columns = &table,
     .codes = CHANGES, .run = group_remove, .examples = EXAMPLES({"hvctl group remove lab", "the name goes"})},
    {0},
};
