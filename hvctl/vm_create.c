/* vm create, set and remove. */
#include <errno.h>
#include <stdio.h>

#include "hvctl/document.h"

static int no_relative(const struct cli_call *c, struct hv_error *e)
{
    for (unsigned i = 0; i < c->n_values; i++) {
        if (c->values[i].sign) {
            char object[80];
            snprintf(object, sizeof(object), "--%s %s", c->values[i].opt->name, c->values[i].text);
            return hv_fail(e, HV_USAGE, object, "there is nothing yet that it could be relative to");
        }
    }
    return 0;
}

/* Members of over into base, one level of nouns deep. */
static void overlay(json_t *base, json_t *over)
{
    const char *key;
    json_t *v;
    json_object_foreach(over, key, v) {
        json_t *there = json_object_get(base, key);
        if (json_is_object(there) && json_is_object(v)) {
            json_object_update(there, v);
        } else {
            json_object_set(base, key, v);
        }
    }
}

/* --disk, --dvd and those that are made, in the order they stand in. */
static int add_disks(struct cli_call *c, struct conn *k, const char *name, json_t *settings, struct new_disks *made,
                     struct hv_error *e)
{
    json_t *disks = json_array();
    int r = 0;
    for (unsigned i = 0; r == 0 && i < c->n_values; i++) {
        const struct cli_value *v = &c->values[i];
        bool dvd = strcmp(v->opt->name, "dvd") == 0;
        if (new_disks_is(v) && !c->dry_run) {
            r = new_disks_add(c, k, name, v, disks, made, e);
        }
        if (!dvd && strcmp(v->opt->name, "disk") != 0) {
            continue;
        }
        hv_autofree char *path = image_path(v->text);
        json_array_append_new(disks, json_pack("{s:s s:s? s:s?}", "type", dvd ? "dvd" : "disk", "path", path, "format",
                                               dvd ? NULL : cli_text(c, "format", NULL)));
    }
    if (json_array_size(disks)) {
        json_object_set(settings, "disks", disks);
    }
    json_decref(disks);
    return r;
}

json_t *create_settings(struct cli_call *c, struct conn *k, const char *name, struct new_disks *made, struct hv_error *e)
{
    const char *like = cli_text(c, "like", NULL);
    json_t *settings, *vm = NULL;
    if (no_relative(c, e) < 0 || !(settings = cli_settings(c, e))) {
        return NULL;
    }
    if (cli_has(c, "min") || cli_has(c, "max") || cli_has(c, "buffer")) {
        cli_json_set_path(settings, "memory.dynamic", json_true());
    }
    if (add_disks(c, k, name, settings, made, e) < 0) {
        json_decref(settings);
        return NULL;
    }
    if (!like) {
        return settings;
    }
    if (fetch_vm(k, like, &vm, e) < 0) {
        json_decref(settings);
        return NULL;
    }
    json_t *base = json_deep_copy(json_object_get(vm, "settings"));
    json_object_del(base, "disks");          /* settings, never disks */
    json_decref(vm);
    overlay(base, settings);
    json_decref(settings);
    return base;
}

/* --if-missing on one that is there: which of the settings asked for it does not have. */
static void say_differences(struct cli_call *c, const char *name, const json_t *vm, const json_t *settings)
{
    strbuf_auto keys = {0};
    const char *noun, *key;
    json_t *part, *v;
    json_object_foreach((json_t *)settings, noun, part) {
        const json_t *have = json_object_get(json_object_get(vm, "settings"), noun);
        if (!json_is_object(part)) {
            if (!json_equal(part, have)) {
                strbuf_addf(&keys, "%s%s", keys.len ? ", " : "", noun);
            }
            continue;
        }
        json_object_foreach(part, key, v) {
            if (!json_equal(v, json_object_get(have, key))) {
                strbuf_addf(&keys, "%s%s.%s", keys.len ? ", " : "", noun, key);
            }
        }
    }
    if (keys.len) {
        cli_note(c, "%s: exists, differs: %s", name, keys.buf);
        cli_try(c, "hvctl apply");
    } else {
        cli_note(c, "%s: exists", name);
    }
}

static int print_vm(struct cli_call *c, const json_t *vm, struct hv_error *e)
{
    struct cli_printer p;
    if (c->format == CLI_FMT_DEFAULT || c->format == CLI_FMT_TABLE) {
        return 0;
    }
    int r = cli_printer_init(&p, c, &view_vm_columns, CLI_FMT_TABLE, e);
    if (r == 0) {
        json_t *rows = json_pack("[o]", view_vm(vm));
        r = print_rows(c, &p, rows, true, e);
        json_decref(rows);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

static int start_created(struct cli_call *c, struct conn *k, const char *name, struct hv_error *e)
{
    json_t *reply;
    int r = conn_call(k, "Start", json_pack("{s:s}", "name", name), 0, &reply, e);
    if (r == 0) {
        r = job_follow(c, k, reply, NULL, NULL, e);
        json_decref(reply);
    }
    if (r == 0 && !c->no_wait) {
        cli_note(c, "%s: started", name);
    }
    return r;
}

int vm_create(struct cli_call *c, struct hv_error *e)
{
    const char *name = c->args[0];
    struct conn *k;
    json_t *reply = NULL, *vm = NULL;
    bool console = cli_has(c, "console"), start = cli_has(c, "start") || console;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    struct new_disks made = {0};
    /* No disk for a VM that is there already. */
    if (new_disks_wanted(c) && fetch_vm(k, name, &vm, NULL) == 0) {
        if (cli_has(c, "if-missing")) {
            cli_note(c, "%s: exists", name);
        } else {
            r = hv_fail(e, HV_CONFLICT, name, "it exists already");
        }
    }
    json_t *settings = r == 0 && !vm ? create_settings(c, k, name, &made, e) : NULL;
    r = r < 0 || vm || settings ? r : -EINVAL;
    if (r == 0 && settings) {
        r = conn_call(k, "Create",
                      json_pack("{s:s,s:O,s:b,s:s?}", "name", name, "settings", settings, "dry_run", c->dry_run, "group",
                                cli_text(c, "group", NULL)),
                      0, &reply, e);
        if (r == 0) {
            vm = json_incref(json_object_get(reply, "vm"));
            cli_note(c, c->dry_run ? "%s: would be created" : "%s: created", name);
        } else if (e->code == HV_CONFLICT && cli_has(c, "if-missing") && fetch_vm(k, name, &vm, NULL) == 0) {
            hv_error_clear(e);
            say_differences(c, name, vm, settings);
            r = 0;
        }
    }
    json_decref(settings);
    if (r < 0) {
        new_disks_remove(&made);
    }
    new_disks_fini(&made);
    if (r == 0 && start && !c->dry_run) {
        r = start_created(c, k, name, e);
        json_decref(vm);
        vm = NULL;
        if (r == 0 && c->format != CLI_FMT_DEFAULT) {
            r = fetch_vm(k, name, &vm, e);
        }
    }
    conn_close(k);
    if (r == 0 && vm) {
        r = print_vm(c, vm, e);
    }
    json_decref(vm);
    json_decref(reply);
    return r == 0 && console && !c->dry_run ? attach_console(c, name, e) : r;
}

/* ---- set ---- */

struct set_job { json_t *(*build)(struct cli_call *c, const json_t *vm, struct hv_error *e); };

static bool say_change(struct cli_call *c, const char *name, const json_t *ch)
{
    const char *key = json_string_value(json_object_get(ch, "key"));
    const char *old = json_string_value(json_object_get(ch, "old"));
    const char *new = json_string_value(json_object_get(ch, "new"));
    const char *applied = json_string_value(json_object_get(ch, "applied"));
    char was[32], is[32];
    if (!key || !applied || strcmp(applied, "unchanged") == 0) {
        return false;
    }
    const char *dot = strrchr(key, '.');
    bool next = strcmp(applied, "next-start") == 0;
    cli_note(c, "%s: %s %s -> %s, %s", name, dot ? dot + 1 : key, document_value(key, old, was), document_value(key, new, is),
             c->dry_run ? (next ? "would apply at next start" : "would apply now") : next ? "at next start" : "now");
    return true;
}

static bool was_typed(const struct cli_call *c, const json_t *ch, unsigned at)
{
    const char *key = json_string_value(json_object_get(ch, "key"));
    return key && c->values[at].opt->key && strcmp(c->values[at].opt->key, key) == 0;
}

/* In the order in which they were typed; then what followed from it. */
static void say_changes(struct cli_call *c, const char *name, const json_t *changes)
{
    size_t i;
    json_t *ch;
    unsigned n = 0;
    for (unsigned v = 0; v < c->n_values; v++) {
        json_array_foreach((json_t *)changes, i, ch) {
            n += was_typed(c, ch, v) && say_change(c, name, ch);
        }
    }
    json_array_foreach((json_t *)changes, i, ch) {
        bool typed = false;
        for (unsigned v = 0; v < c->n_values; v++) {
            typed = typed || was_typed(c, ch, v);
        }
        n += !typed && say_change(c, name, ch);
    }
    if (!n) {
        cli_note(c, "%s: nothing to change", name);
    }
}

static int set_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    struct set_job *job = arg;
    json_t *reply, *settings = job->build(c, t->vm, e);
    if (!settings) {
        return -EINVAL;
    }
    const char *when = cli_has(c, "now") ? "now" : cli_has(c, "next-start") ? "next-start" : "auto";
    int r = conn_call(k, "Set",
                      json_pack("{s:s,s:o,s:s,s:b}", "name", t->name, "settings", settings, "when", when, "dry_run",
                                c->dry_run),
                      0, &reply, e);
    if (r == 0) {
        say_changes(c, t->name, json_object_get(reply, "changes"));
        json_decref(reply);
    }
    return r;
}

int set_vms(struct cli_call *c, json_t *(*build)(struct cli_call *c, const json_t *vm, struct hv_error *e),
            const struct cli_columns *columns, const char *part, struct hv_error *e)
{
    struct targets ts;
    struct conn *k;
    struct set_job job = {build};
    bool any = false;
    char name[80];

    for (unsigned i = 0; i < c->n_values; i++) {
        any = any || c->values[i].opt->key;
    }
    if (!any) {
        hv_fail(e, HV_USAGE, NULL, "'%s' needs something to set", cli_command_name(c->cmd, name, sizeof(name)));
        hv_hint(e, "hvctl %s --help", name);
        return -EINVAL;
    }
    if (cli_has(c, "now") && cli_has(c, "next-start")) {
        return hv_fail(e, HV_USAGE, NULL, "--now and --next-start exclude each other");
    }
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = targets_find(c, k, 0, NULL, &ts, e);
    conn_close(k);
    if (r < 0) {
        return r;
    }
    r = targets_each(c, &ts, set_one, &job, e);
    if (r == 0) {
        r = targets_print(c, &ts, columns, part, e);
    }
    targets_free(&ts);
    return r;
}

static json_t *build_plain(struct cli_call *c, const json_t *vm, struct hv_error *e)
{
    return cli_settings(c, e);
}

int vm_set(struct cli_call *c, struct hv_error *e)
{
    return set_vms(c, build_plain, &view_vm_columns, NULL, e);
}

/* ---- rename ---- */

int vm_rename(struct cli_call *c, struct hv_error *e)
{
    const char *name = c->args[0], *new_name = c->args[1];
    struct targets ts;
    struct conn *k;
    json_t *reply;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    struct cli_call one = *c;                   /* the second word is no VM yet */
    one.n_args = 1;
    r = targets_find(&one, k, 0, NULL, &ts, e);
    if (r < 0) {
        conn_close(k);
        return r;
    }
    if (ts.n != 1 || !ts.one) {
        r = hv_fail(e, HV_USAGE, name, "'vm rename' takes one VM");
    } else if (hv_error_is_set(&ts.t[0].error)) {
        *e = ts.t[0].error;
        r = -ENOENT;
    }
    if (r == 0) {
        r = conn_call(k, "Rename", json_pack("{s:s,s:s,s:b}", "name", ts.t[0].name, "new_name", new_name, "dry_run", c->dry_run),
                      0, &reply, e);
    }
    conn_close(k);
    if (r == 0) {
        bool same = strcmp(ts.t[0].name, new_name) == 0;
        cli_note(c, same ? "%s: has this name" : c->dry_run ? "%s: would be renamed to %s" : "%s: renamed to %s", ts.t[0].name,
                 new_name);
        r = print_vm(c, json_object_get(reply, "vm"), e);
        json_decref(reply);
    }
    targets_free(&ts);
    return r;
}
