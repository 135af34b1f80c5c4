/*
 * Disks that vm create and vm run make: --new-disk, --parent and --seed, in the order they stand
 * in, as NAME.vhdx, NAME-2.vhdx and NAME-seed.iso in the host's disk path. vhdtool makes them, as
 * the user; what was made is taken away again where the VM does not come to be.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "hvctl/hvctl.h"

/* The host's folder for new disks; free() it. */
static char *disk_path(struct conn *k, struct hv_error *e)
{
    json_t *reply;
    if (conn_call(k, "ShowHost", NULL, 0, &reply, e) < 0) {
        return NULL;
    }
    const char *dir = json_string_value(cli_json_path(reply, "host.disk_path"));
    char *copy = dir ? hv_strdup(dir) : NULL;
    if (!copy) {
        hv_fail(e, HV_UNSUPPORTED, "host", "its service does not say where disks belong");
        hv_hint(e, "make one with vhdtool create, and name it with --disk");
    }
    json_decref(reply);
    return copy;
}

static int make(struct cli_call *c, const struct cli_value *v, const char *name, const char *path, struct hv_error *e)
{
    const char *what = v->opt->name;
    if (strcmp(what, "seed") == 0) {
        hv_autofree char *data = image_path(v->text);
        int r = image_here(c, path, e);
        return r < 0 ? r : image_run((const char *const[]){"seed", path, "--user-data", data, "--hostname", name, NULL}, e);
    }
    hv_autofree char *base = image_path(v->text);
    return strcmp(what, "parent") == 0 ? disk_make(c, path, NULL, base, e) : disk_make(c, path, v->text, NULL, e);
}

static bool is_new(const struct cli_value *v)
{
    static const char *const names[] = {"new-disk", "parent", "seed"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(v->opt->name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool new_disks_wanted(const struct cli_call *c)
{
    for (unsigned i = 0; i < c->n_values; i++) {
        if (is_new(&c->values[i])) {
            return true;
        }
    }
    return false;
}

void new_disks_remove(struct new_disks *made)
{
    for (unsigned i = 0; i < made->n; i++) {
        (void)unlink(made->path[i]);
    }
}

void new_disks_fini(struct new_disks *made)
{
    while (made->n) {
        free(made->path[--made->n]);
    }
}

int new_disks_add(struct cli_call *c, struct conn *k, const char *name, const struct cli_value *v, json_t *disks,
                  struct new_disks *made, struct hv_error *e)
{
    const bool seed = strcmp(v->opt->name, "seed") == 0;
    hv_autofree char *dir = disk_path(k, e);
    char number[16] = "";
    if (!dir) {
        return -EIO;
    }
    if (made->n == ARRAY_SIZE(made->path)) {
        return hv_fail(e, HV_USAGE, v->text, "more new disks than one command makes");
    }
    unsigned disks_before = 0;
    for (unsigned i = 0; i < made->n; i++) {
        disks_before += !made->seed[i];
    }
    if (!seed && disks_before) {
        snprintf(number, sizeof(number), "-%u", disks_before + 1);
    }
    char *path = hv_asprintf("%s/%s%s%s", dir, name, seed ? "-seed" : number, seed ? ".iso" : ".vhdx");
    if (!path) {
        return hv_fail(e, HV_NO_RESOURCES, name, "out of memory");
    }
    /* vhdtool would write over a seed that is there. */
    int r = seed && access(path, F_OK) == 0 ? hv_fail(e, HV_CONFLICT, path, "it exists") : make(c, v, name, path, e);
    if (r < 0) {
        free(path);
        return r;
    }
    made->seed[made->n] = seed;
    made->path[made->n++] = path;
    json_array_append_new(disks, json_pack("{s:s s:s s:s?}", "type", seed ? "dvd" : "disk", "path", path, "format",
                                           seed ? NULL : "vhdx"));
    return 0;
}

/* Is this value one of ours? For who builds the list of all disks. */
bool new_disks_is(const struct cli_value *v)
{
    return is_new(v);
}
