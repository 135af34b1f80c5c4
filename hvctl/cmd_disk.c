/* The nouns disk and dvd. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "hvctl/hvctl.h"

/* ---- listing ---- */

json_t *disks_joined(const json_t *vm)
{
    json_t *list = json_deep_copy(json_object_get(json_object_get(vm, "settings"), "disks")), *d, *run;
    const json_t *runtime = json_object_get(json_object_get(vm, "runtime"), "disks");
    size_t i, k;
    json_array_foreach(list, i, d) {
        json_array_foreach((json_t *)(uintptr_t)runtime, k, run) {
            if (json_equal(json_object_get(d, "location"), json_object_get(run, "location")) &&
                json_equal(json_object_get(d, "path"), json_object_get(run, "path"))) {
                json_object_update_missing(d, run);
            }
        }
    }
    return list ? list : json_array();
}

static const struct cli_column disk_cols[] = {
    {"vm", .cut = true, .help = "whose it is"},
    {"location", .help = "where it is: scsi0:0"},
    {"path", .cut = true, .help = "the file or device"},
    {"type", .help = "disk or dvd"},
    {"format", .help = "raw, vhd or vhdx"},
    {"size", .unit = CLI_UNIT_SIZE, .help = "as the guest sees it; of a running VM"},
    {"used", .unit = CLI_UNIT_SIZE, .help = "what the file takes on the host; of a running VM"},
    {"read_only", .unit = CLI_UNIT_SWITCH, .help = "the guest cannot write"},
    {"max_iops", .unit = CLI_UNIT_NUMBER, .help = "limit of requests a second; 0: none"},
    {"reads", .unit = CLI_UNIT_NUMBER, .help = "read requests since the start"},
    {"writes", .unit = CLI_UNIT_NUMBER, .help = "write requests since the start"},
    {"read_bytes", .header = "READ", .unit = CLI_UNIT_SIZE, .help = "bytes read since the start"},
    {"written_bytes", .header = "WRITTEN", .unit = CLI_UNIT_SIZE, .help = "bytes written since the start"},
    {"flushes", .unit = CLI_UNIT_NUMBER, .help = "flush requests since the start"},
    {"errors", .unit = CLI_UNIT_NUMBER, .help = "requests that failed since the start"},
    {0},
};
static const struct cli_columns disk_table = {
    .col = disk_cols, .defaults = "vm,location,path,type,format,size,used,read_bytes,written_bytes", .name = "path",
};

/* Rows of all VMs, or of those named; only drives if dvd. */
static int sample_disks(struct cli_call *c, void *arg, json_t **ret, struct hv_error *e)
{
    const bool *dvd_only = arg;
    struct conn *k;
    json_t *reply, *vm, *d, *rows, *names = NULL;
    size_t i, n;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    if (c->n_args) {
        names = json_array();
        for (unsigned a = 0; a < c->n_args; a++) {
            json_array_append_new(names, json_string(c->args[a]));
        }
    }
    r = conn_call(k, "List", names ? json_pack("{s:o}", "names", names) : NULL, 0, &reply, e);
    conn_close(k);
    if (r < 0) {
        return r;
    }
    rows = json_array();
    json_array_foreach(json_object_get(reply, "vms"), i, vm) {
        json_t *disks = disks_joined(vm);
        json_array_foreach(disks, n, d) {
            const char *type = json_string_value(json_object_get(d, "type"));
            if (*dvd_only && strcmp(type ? type : "", "dvd") != 0) {
                continue;
            }
            json_object_set(d, "vm", json_object_get(vm, "name"));
            json_array_append(rows, d);
        }
        json_decref(disks);
    }
    json_decref(reply);
    *ret = rows;
    return 0;
}

static int list(struct cli_call *c, bool dvd_only, struct hv_error *e)
{
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &disk_table, CLI_FMT_TABLE, e);
    if (r == 0) {
        r = watch_rows(c, &p, sample_disks, &dvd_only, false, e);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

static int disk_list(struct cli_call *c, struct hv_error *e)
{
    return list(c, false, e);
}

static int dvd_list(struct cli_call *c, struct hv_error *e)
{
    return list(c, true, e);
}

/* ---- which disk ---- */

int fetch_vm(struct conn *k, const char *name, json_t **ret, struct hv_error *e)
{
    json_t *reply;
    int r = conn_call(k, "List", json_pack("{s:[s]}", "names", name), 0, &reply, e);
    if (r < 0) {
        return r;
    }
    json_t *vm = json_array_get(json_object_get(reply, "vms"), 0);
    r = vm ? 0 : hv_fail(e, HV_NOT_FOUND, name, "no such VM");
    *ret = json_incref(vm);
    json_decref(reply);
    return r;
}

/*
 * DISK is an address (scsi0:1, 0:1, 1) or the path of the image; NULL: the only drive. *ret is a
 * new reference to the joined object.
 */
static int find_disk(struct conn *k, const char *name, const char *which, bool dvd, json_t **ret_vm, json_t **ret,
                     struct hv_error *e)
{
    hv_autofree char *path = which ? image_path(which) : NULL;
    json_t *disks, *d, *found = NULL;
    char address[64];
    size_t i;
    unsigned matches = 0;
    int r = fetch_vm(k, name, ret_vm, e);
    if (r < 0) {
        return r;
    }
    snprintf(address, sizeof(address), "%s%.40s", which && strncmp(which, "scsi", 4) == 0 ? "" : which && strchr(which, ':')
             ? "scsi" : "scsi0:", which ? which : "");
    disks = disks_joined(*ret_vm);
    json_array_foreach(disks, i, d) {
        const char *where = json_string_value(json_object_get(d, "location"));
        const char *file = json_string_value(json_object_get(d, "path"));
        bool drive = strcmp(json_string_value(json_object_get(d, "type")), "dvd") == 0;
        if (which ? strcmp(where, address) == 0 || (file && path && strcmp(file, path) == 0) : drive && dvd) {
            found = d;
            matches++;
        }
    }
    if (matches == 1) {
        *ret = json_incref(found);
    } else if (!which && matches > 1) {
        r = hv_fail(e, HV_USAGE, name, "it has %u drives: say which", matches);
    } else {
        r = hv_fail(e, HV_NOT_FOUND, name, which ? "it has no disk %s" : "it has no DVD drive", which ? which : "");
        hv_hint(e, "hvctl disk list %s", name);
    }
    json_decref(disks);
    if (r < 0) {
        json_decref(*ret_vm);
        *ret_vm = NULL;
    }
    return r;
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* ---- disk ---- */

/* Make the image that --new or --parent ask for. */
int disk_make(struct cli_call *c, const char *path, const char *size, const char *parent, struct hv_error *e)
{
    const char *args[10] = {"create", path};
    unsigned n = 2;
    if (parent) {
        args[n++] = "--parent";
        args[n++] = parent;
    }
    if (size) {
        args[n++] = "--size";
        args[n++] = size;
    }
    int r = image_here(c, path, e);
    return r < 0 ? r : image_run(args, e);
}

static int disk_add(struct cli_call *c, struct hv_error *e)
{
    const char *name = c->args[0], *size = cli_text(c, "new", NULL), *parent = cli_text(c, "parent", NULL);
    const char *location = cli_text(c, "location", NULL), *format = cli_text(c, "format", NULL);
    hv_autofree char *path = image_path(c->args[1]);
    struct conn *k;
    json_t *reply, *disk;
    bool made = false;
    if (size && parent) {
        return hv_fail(e, HV_USAGE, "--new", "does not go with --parent: its size is the parent's");
    }
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    if (size || parent) {
        json_t *vm;
        r = fetch_vm(k, name, &vm, e);           /* not a file for a VM that is not there */
        if (r == 0) {
            json_decref(vm);
            r = disk_make(c, path, size, parent, e);
            made = r == 0;
        }
    }
    if (r < 0) {
        conn_close(k);
        return r;
    }
    disk = json_pack("{s:s s:s s:b}", "type", "disk", "path", path, "read_only", cli_has(c, "read-only"));
    if (location) {
        hv_autofree char *full = strncmp(location, "scsi", 4) == 0 ? hv_strdup(location) : hv_asprintf("scsi%s", location);
        json_object_set_new(disk, "location", json_string(full));
    }
    if (format) {
        json_object_set_new(disk, "format", json_string(format));
    }
    if (cli_has(c, "max-iops")) {
        json_object_set_new(disk, "max_iops", json_integer((json_int_t)cli_number(c, "max-iops", 0)));
    }
    r = conn_call(k, "AddDisk", json_pack("{s:s s:o}", "name", name, "disk", disk), 0, &reply, e);
    conn_close(k);
    if (r < 0) {
        if (made) {
            unlink(path);
        }
        return r;
    }
    cli_note(c, "%s: %s is %s", name, text(json_object_get(reply, "disk"), "location"), path);
    json_decref(reply);
    return 0;
}

static int disk_set(struct cli_call *c, struct hv_error *e)
{
    struct conn *k;
    json_t *vm, *d, *reply;
    if (!cli_has(c, "path") && !cli_has(c, "max-iops")) {
        return hv_fail(e, HV_USAGE, c->args[1], "nothing to set: give --path or --max-iops");
    }
    int r = conn_open(c, &k, e);
    if (r == 0) {
        r = find_disk(k, c->args[0], c->args[1], false, &vm, &d, e);
        if (r == 0) {
            json_t *p = json_pack("{s:s s:s}", "name", c->args[0], "location", text(d, "location"));
            if (cli_has(c, "path")) {
                hv_autofree char *path = image_path(cli_text(c, "path", ""));
                json_object_set_new(p, "path", json_string(path));
            }
            if (cli_has(c, "max-iops")) {
                json_object_set_new(p, "max_iops", json_integer((json_int_t)cli_number(c, "max-iops", 0)));
            }
            r = conn_call(k, "SetDisk", p, 0, &reply, e);
            if (r == 0) {
                cli_note(c, "%s: %s changed", c->args[0], text(d, "location"));
                json_decref(reply);
            }
            json_decref(d);
            json_decref(vm);
        }
        conn_close(k);
    }
    return r;
}

/* "40.0G" as everywhere, unless that says less than is known. */
static const char *size_text(uint64_t size, char *buf, size_t len)
{
    uint64_t again;
    return parse_size(format_size(size, buf, len), "", &again, NULL) == 0 && again == size ? buf : format_size_exact(size, buf, len);
}

/* What a Linux guest calls it: disks are sda, sdb ... in the order of their places. */
static char guest_letter(const json_t *vm, const char *location)
{
    size_t i;
    json_t *d;
    int n = 0;
    json_array_foreach(json_object_get(json_object_get(vm, "settings"), "disks"), i, d) {
        if (strcmp(text(d, "location"), location) == 0) {
            break;
        }
        n += strcmp(text(d, "type"), "dvd") != 0;
    }
    return n < 26 ? (char)('a' + n) : 'X';
}

static int resize_running(struct cli_call *c, struct conn *k, const json_t *vm, const json_t *d, const char *want, struct hv_error *e)
{
    char old[24], new[24];
    json_t *reply;
    uint64_t size;
    int sign, r = parse_size_relative(want, "SIZE", &sign, &size, e);
    if (r < 0) {
        return r;
    }
    if (sign < 0) {
        return hv_fail(e, HV_USAGE, want, "a disk can only grow");
    }
    r = conn_call(k, "ResizeDisk", json_pack("{s:s s:s s:I s:b}", "name", c->args[0], "location", text(d, "location"), "size",
                                             (json_int_t)size, "add", sign > 0), 0, &reply, e);
    if (r == 0) {
        const char sd = guest_letter(vm, text(d, "location"));
        cli_note(c, "%s: %s: size %s -> %s, now; in the guest: growpart /dev/sd%c 1 && resize2fs /dev/sd%c1", c->args[0],
                 text(d, "location"), size_text((uint64_t)json_integer_value(json_object_get(reply, "old_size")), old, sizeof(old)),
                 size_text((uint64_t)json_integer_value(json_object_get(reply, "size")), new, sizeof(new)), sd, sd);
        json_decref(reply);
    }
    return r;
}

static int disk_resize(struct cli_call *c, struct hv_error *e)
{
    struct conn *k;
    json_t *vm, *d;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = find_disk(k, c->args[0], c->args[1], false, &vm, &d, e);
    if (r == 0) {
        if (strcmp(text(vm, "state"), "off") == 0) {
            r = image_here(c, text(d, "path"), e);
            r = r < 0 ? r : image_run((const char *const[]){"resize", text(d, "path"), c->args[2], NULL}, e);
            if (r == 0) {
                cli_note(c, "%s: %s: resized to %s", c->args[0], text(d, "location"), c->args[2]);
            }
        } else {
            r = resize_running(c, k, vm, d, c->args[2], e);
        }
        json_decref(d);
        json_decref(vm);
    }
    conn_close(k);
    return r;
}

static int take_away(struct cli_call *c, bool dvd, struct hv_error *e)
{
    bool delete = !dvd && cli_has(c, "delete");
    struct conn *k;
    json_t *vm, *d, *reply;
    char doing[600];
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = find_disk(k, c->args[0], c->n_args > 1 ? c->args[1] : NULL, dvd, &vm, &d, e);
    if (r == 0) {
        const char *path = text(d, "path"), *slash = strrchr(path, '/');
        snprintf(doing, sizeof(doing), "deleting %.255s (%s)", slash ? slash + 1 : path, text(d, "location"));
        if (delete && (r = image_here(c, path, e)) == 0 && !image_is_file(path)) {
            r = hv_fail(e, HV_USAGE, path, "cannot delete it: it is no file");
        }
        r = r == 0 && delete ? cli_ask(c, c->args[0], doing, e) : r;
        r = r < 0 ? r : conn_call(k, "RemoveDisk", json_pack("{s:s s:s}", "name", c->args[0], "location", text(d, "location")),
                                  0, &reply, e);
        if (r == 0) {
            cli_note(c, "%s: %s removed", c->args[0], text(d, "location"));
            json_decref(reply);
            if (delete) {
                r = image_delete(path, e);
            }
        }
        json_decref(d);
        json_decref(vm);
    }
    conn_close(k);
    return r;
}

static int disk_remove(struct cli_call *c, struct hv_error *e)
{
    return take_away(c, false, e);
}

/* ---- dvd ---- */

static int dvd_remove(struct cli_call *c, struct hv_error *e)
{
    return take_away(c, true, e);
}

static int dvd_add(struct cli_call *c, struct hv_error *e)
{
    hv_autofree char *path = c->n_args > 1 ? image_path(c->args[1]) : NULL;
    struct conn *k;
    json_t *reply;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = conn_call(k, "AddDisk", json_pack("{s:s s:{s:s s:s?}}", "name", c->args[0], "disk", "type", "dvd", "path", path), 0,
                  &reply, e);
    conn_close(k);
    if (r == 0) {
        cli_note(c, "%s: drive at %s%s%s", c->args[0], text(json_object_get(reply, "disk"), "location"), path ? " with " : "",
                 path ? path : "");
        json_decref(reply);
    }
    return r;
}

/* path "" takes the medium out. */
static int set_medium(struct cli_call *c, const char *which, const char *path, struct hv_error *e)
{
    struct conn *k;
    json_t *vm, *d, *reply;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = find_disk(k, c->args[0], which, true, &vm, &d, e);
    if (r == 0) {
        r = conn_call(k, "SetDisk", json_pack("{s:s s:s s:s s:b}", "name", c->args[0], "location", text(d, "location"), "path",
                                              path, "force", cli_has(c, "force")), 0, &reply, e);
        if (r == 0) {
            cli_note(c, "%s: %s %s", c->args[0], text(d, "location"), path[0] ? path : "is empty");
            json_decref(reply);
        }
        json_decref(d);
        json_decref(vm);
    }
    conn_close(k);
    return r;
}

static int dvd_insert(struct cli_call *c, struct hv_error *e)
{
    hv_autofree char *path = image_path(c->args[c->n_args - 1]);
    return set_medium(c, c->n_args > 2 ? c->args[1] : NULL, path, e);
}

static int dvd_eject(struct cli_call *c, struct hv_error *e)
{
    return set_medium(c, c->n_args > 1 ? c->args[1] : NULL, "", e);
}

/* ---- tables ---- */

#define GLOB "*.vhdx|*.vhd|*.avhdx|*.avhd|*.raw|*.img"

static const struct cli_arg vms_optional[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OPTIONAL, .help = "only of these; names, GUIDs, globs in quotes"}, {0}};
static const struct cli_arg add_args[] = {
    {"VM", CLI_VM, .help = "its name or GUID"}, {"PATH", CLI_FILE, .values = GLOB, .help = "the image or device"}, {0}};
static const struct cli_arg vm_disk[] = {
    {"VM", CLI_VM, .help = "its name or GUID"}, {"DISK", CLI_DISK, .help = "scsi0:0, or the path of the image"}, {0}};
static const struct cli_arg resize_args[] = {
    {"VM", CLI_VM, .help = "its name or GUID"},
    {"DISK", CLI_DISK, .help = "scsi0:0, or the path of the image"},
    {"SIZE", CLI_SIZE_REL, .help = "the new size, or +SIZE: more by that"},
    {0}};
static const struct cli_arg dvd_add_args[] = {
    {"VM", CLI_VM, .help = "its name or GUID"},
    {"PATH", CLI_FILE, CLI_OPTIONAL, .values = "*.iso", .help = "what is in the drive"}, {0}};
static const struct cli_arg insert_args[] = {
    {"VM", CLI_VM, .help = "its name or GUID"},
    {"PATH", CLI_FILE, CLI_REPEAT, .values = "*.iso", .help = "the medium; before it which drive, where there are several"}, {0}};
static const struct cli_arg vm_drive[] = {
    {"VM", CLI_VM, .help = "its name or GUID"},
    {"DISK", CLI_DISK, CLI_OPTIONAL, .help = "which drive, where there are several"}, {0}};

static const struct cli_option add_options[] = {
    {.name = "location", .type = CLI_STRING, .arg = "CTRL:L", .help = "its place, scsi0:0 to scsi0:63; default: the first free"},
    {.name = "format", .type = CLI_ENUM, .arg = "FORMAT", .values = "raw|vhd|vhdx",
     .help = "take the file for this format: raw, vhd or vhdx"},
    {.name = "new", .type = CLI_SIZE, .arg = "SIZE", .help = "make PATH, a dynamic disk"},
    {.name = "parent", .type = CLI_FILE, .arg = "BASE", .values = GLOB,
     .help = "a differencing disk: what is not written is BASE's"},
    {.name = "read-only", .type = CLI_BOOL, .help = "the guest cannot write"},
    {.name = "max-iops", .type = CLI_UINT, .arg = "N", .max = 100000000, .help = "at most so many requests a second; 0: no limit"},
    {.name = "min-iops", .type = CLI_UINT, .arg = "N", .flags = CLI_LATER, .max = 100000000, .help = "requests a second it is to have"},
    {.name = "first", .type = CLI_BOOL, .flags = CLI_LATER, .help = "first in the boot order"},
    {0}};
static const struct cli_option set_options[] = {
    {.name = "path", .type = CLI_FILE, .arg = "PATH", .values = GLOB, .help = "another image; the VM is off"},
    {.name = "max-iops", .type = CLI_UINT, .arg = "N", .max = 100000000, .help = "at most so many requests a second; 0: no limit"},
    {.name = "location", .type = CLI_STRING, .arg = "CTRL:L", .flags = CLI_LATER,
     .help = "its place, scsi0:0 to scsi0:63; default: the first free"},
    {.name = "min-iops", .type = CLI_UINT, .arg = "N", .flags = CLI_LATER, .max = 100000000, .help = "requests a second it is to have"},
    {0}};
static const struct cli_option remove_options[] = {
    {.name = "delete", .type = CLI_BOOL, .help = "delete the file too"}, {0}};
static const struct cli_option medium_options[] = {
    {.name = "force", .type = CLI_BOOL, .help = "even if the guest has locked the drive"}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}
#define CODES (CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(NO_RESOURCES))

const struct cli_command disk_commands[] = {
    {.noun = "disk", .verb = "list", .help = "list disks and drives of virtual machines", .args = vms_optional,
     .use = CLI_USE_LIST | CLI_USE_WATCH, .columns = &disk_table, .codes = CODE(NOT_FOUND), .run = disk_list,
     .examples = EXAMPLES({"hvctl disk list", "of every VM"}, {"hvctl disk list web1 -o json", "for a program"})},
    {.noun = "disk", .verb = "add", .help = "attach a disk; a running guest sees it at once", .args = add_args,
     .options = add_options, .codes = CODES, .run = disk_add,
     .examples = EXAMPLES({"hvctl disk add web1 data.vhdx", "one that is there"},
                          {"hvctl disk add web1 data.vhdx --new 100G", "a new one"})},
    {.noun = "disk", .verb = "set", .help = "change a disk's image or limit", .args = vm_disk, .options = set_options,
     .codes = CODES, .run = disk_set, .examples = EXAMPLES({"hvctl disk set web1 scsi0:1 --max-iops 500", "a noisy neighbour"})},
    {.noun = "disk", .verb = "resize", .help = "make a disk larger; a running guest is told", .args = resize_args, .codes = CODES,
     .run = disk_resize, .examples = EXAMPLES({"hvctl disk resize web1 scsi0:0 +20G", "20G more"})},
    {.noun = "disk", .verb = "remove", .help = "take a disk away; a running guest is told", .args = vm_disk,
     .options = remove_options, .use = CLI_USE_ASK, .codes = CODES, .run = disk_remove,
     .examples = EXAMPLES({"hvctl disk remove web1 scsi0:1", "the file stays"})},
    {0},
};

const struct cli_command dvd_commands[] = {
    {.noun = "dvd", .verb = "list", .help = "list DVD drives", .args = vms_optional, .use = CLI_USE_LIST | CLI_USE_WATCH,
     .columns = &disk_table, .codes = CODE(NOT_FOUND), .run = dvd_list, .examples = EXAMPLES({"hvctl dvd list", "of every VM"})},
    {.noun = "dvd", .verb = "add", .help = "attach a DVD drive", .args = dvd_add_args, .codes = CODES, .run = dvd_add,
     .examples = EXAMPLES({"hvctl dvd add web1 seed.iso", "with a medium in it"})},
    {.noun = "dvd", .verb = "insert", .help = "put a medium into a drive", .args = insert_args, .options = medium_options,
     .codes = CODES, .run = dvd_insert, .examples = EXAMPLES({"hvctl dvd insert web1 tools.iso", "into the only drive"})},
    {.noun = "dvd", .verb = "eject", .help = "take the medium out", .args = vm_drive, .options = medium_options,
     .codes = CODES, .run = dvd_eject, .examples = EXAMPLES({"hvctl dvd eject web1", "out of the only drive"})},
    {.noun = "dvd", .verb = "remove", .help = "take a drive away", .args = vm_drive, .codes = CODES, .run = dvd_remove,
     .examples = EXAMPLES({"hvctl dvd remove web1", "the only drive"})},
    {0},
};
