/*
 * vm remove, and with --disks the files of disks that no other VM uses: neither as its own nor as a
 * parent below its own. The service forgets the VM; files are deleted here, with the rights of the
 * user who typed the command, as they are made (image.c).
 */
#include <errno.h>
#include <stdio.h>

#include "hv/base/strbuf.h"
#include "hvctl/hvctl.h"

#define ASKED_AT_ONCE 64u              /* images one vhdtool looks into */

struct removal {
    bool disks;
    json_t *used;                      /* {path: VM}: disks of those who stay, and what these rest on */
};

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* A disk whose parents have to be looked for: raw ones have none, DVDs lie in no chain. */
static bool may_have_parents(const json_t *d)
{
    return strcmp(text(d, "type"), "dvd") != 0 && strcmp(text(d, "format"), "raw") != 0 && text(d, "path")[0];
}

/* Parents of these images, for the VMs at the same places of owners. What cannot be read names none. */
static int look_into(const char **paths, const char **owners, unsigned n, json_t *used, struct hv_error *e)
{
    const char *args[ASKED_AT_ONCE + 5] = {"info", "--chain", "-o", "json"};
    json_t *list, *image, *parent;
    size_t i, k;
    for (unsigned j = 0; j < n; j++) {
        args[4 + j] = paths[j];
    }
    int r = image_query(args, &list, e);
    if (r < 0) {
        return r;
    }
    json_array_foreach(list, i, image) {
        const char *owner = "";
        for (unsigned j = 0; j < n; j++) {
            owner = strcmp(paths[j], text(image, "path")) == 0 ? owners[j] : owner;
        }
        json_array_foreach(json_object_get(image, "chain"), k, parent) {
            hv_autofree char *path = realpath(text(parent, "path"), NULL);
            if (path) {
                json_object_set_new(used, path, json_string(owner));
            }
        }
    }
    json_decref(list);
    return 0;
}

static bool is_target(const struct targets *ts, const char *name)
{
    for (unsigned i = 0; i < ts->n; i++) {
        if (strcmp(ts->t[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Disks of the VMs that stay, and what these rest on. */
static int find_used(struct conn *k, const struct targets *ts, json_t *used, struct hv_error *e)
{
    const char *paths[ASKED_AT_ONCE], *owners[ASKED_AT_ONCE];
    json_t *reply, *vm, *d;
    size_t i, n;
    unsigned have = 0;
    int r = conn_call(k, "List", NULL, 0, &reply, e);
    if (r < 0) {
        return r;
    }
    json_array_foreach(json_object_get(reply, "vms"), i, vm) {
        json_array_foreach(cli_json_path(vm, "settings.disks"), n, d) {
            if (r < 0 || is_target(ts, text(vm, "name"))) {
                continue;
            }
            hv_autofree char *real = realpath(text(d, "path"), NULL);
            if (real) {
                json_object_set(used, real, json_object_get(vm, "name"));
            }
            if (!may_have_parents(d)) {
                continue;
            }
            paths[have] = text(d, "path");
            owners[have++] = text(vm, "name");
            if (have == ASKED_AT_ONCE) {
                r = look_into(paths, owners, have, used, e);
                have = 0;
            }
        }
    }
    if (r == 0 && have) {
        r = look_into(paths, owners, have, used, e);
    }
    json_decref(reply);
    return r;
}

/* Who of those that stay needs it? NULL: nobody. */
static const char *user_of(const struct removal *rm, const char *path)
{
    hv_autofree char *real = realpath(path, NULL);
    return real ? json_string_value(json_object_get(rm->used, real)) : NULL;
}

/* One disk that nobody names any more. */
static int delete_disk(struct cli_call *c, const char *vm, const char *path, const struct removal *rm, struct hv_error *e)
{
    const char *user = user_of(rm, path);
    if (user) {
        cli_note(c, "%s: disk left: %s: a disk of %s rests on it", vm, path, user);
        return 0;
    }
    if (!image_is_file(path)) {
        cli_note(c, "%s: disk left: %s: it is no file", vm, path);
        return 0;
    }
    if (!c->dry_run && image_delete(path, e) < 0) {
        return -EIO;
    }
    cli_note(c, c->dry_run ? "%s: disk would be deleted: %s" : "%s: disk deleted: %s", vm, path);
    return 0;
}

static int remove_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    const struct removal *rm = arg;
    json_t *reply, *disk;
    size_t i;
    int r = conn_call(k, "Remove", json_pack("{s:s,s:b}", "name", t->name, "dry_run", c->dry_run), 0, &reply, e);
    if (r < 0) {
        return r;
    }
    cli_note(c, c->dry_run ? "%s: would be removed" : "%s: removed", t->name);
    json_array_foreach(json_object_get(reply, "disks_left"), i, disk) {
        struct hv_error why = {0};
        if (!rm->disks) {
            cli_note(c, "%s: disk left: %s", t->name, json_string_value(disk));
        } else if (delete_disk(c, t->name, json_string_value(disk), rm, &why) < 0 && r == 0) {
            r = -EIO;                       /* the others all the same */
            *e = why;
        }
    }
    json_decref(reply);
    return r;
}

/* With --if-exists names that are not there are done already. */
static void forgive_missing(struct cli_call *c, struct targets *ts)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ts->n; i++) {
        if (ts->t[i].error.code == HV_NOT_FOUND && cli_has(c, "if-exists")) {
            cli_note(c, "%s: not there", ts->t[i].name);
            free(ts->t[i].name);
        } else {
            ts->t[n++] = ts->t[i];
        }
    }
    ts->n = n;
}

static int ask(struct cli_call *c, const struct target *t, const struct removal *rm, struct hv_error *e)
{
    strbuf_auto doing = {0};
    json_t *d;
    size_t i;
    bool any = false;
    strbuf_adds(&doing, "removing it");
    json_array_foreach(rm->disks ? cli_json_path(t->vm, "settings.disks") : NULL, i, d) {
        const char *path = text(d, "path");
        if (strcmp(text(d, "type"), "dvd") != 0 && image_is_file(path) && !user_of(rm, path)) {
            strbuf_addf(&doing, "%s%s", any ? ", " : " and deleting ", path);
            any = true;
        }
    }
    return doing.err ? hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory") : cli_ask(c, t->name, doing.buf, e);
}

int vm_remove(struct cli_call *c, struct hv_error *e)
{
    struct targets ts;
    struct conn *k;
    struct removal rm = {.disks = cli_has(c, "disks"), .used = json_object()};
    int r = rm.disks ? image_here(c, c->n_args ? c->args[0] : NULL, e) : 0;
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r < 0) {
        json_decref(rm.used);
        return r;
    }
    r = targets_find(c, k, 0, NULL, &ts, e);
    if (r < 0) {
        conn_close(k);
        json_decref(rm.used);
        return r;
    }
    forgive_missing(c, &ts);
    if (rm.disks && ts.n) {
        r = find_used(k, &ts, rm.used, e);
    }
    for (unsigned i = 0; i < ts.n && r == 0; i++) {
        if (!hv_error_is_set(&ts.t[i].error)) {
            r = ask(c, &ts.t[i], &rm, e);
        }
    }
    conn_close(k);
    if (r == 0) {
        r = targets_each(c, &ts, remove_one, &rm, e);
    }
    targets_free(&ts);
    json_decref(rm.used);
    return r;
}
