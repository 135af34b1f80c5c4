/* resize, compact, chain, set: what changes a disk and keeps its content. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "vhdtool/content.h"

/* ---- resize ---- */

/* Nothing that is in use may be cut off; a GPT's backup moves first, so that a crash leaves a table. */
static int make_smaller(struct disk *d, const char *path, uint64_t size, bool to_min, struct hv_error *e)
{
    struct disk_info info;
    char need[24];
    uint64_t least, old = disk_size(d);
    int r = disk_layer_info(disk_layer(d, 0), false, &info);

    if (r == 0 && info.kind == DISK_VHD) {
        return disk_resize(d, old - disk_logical_sector(d), e);    /* refused, with the reason */
    }
    if (r == 0) {
        r = content_least_size(d, &least, e);
        if (r == -EOPNOTSUPP && !to_min) {
            hv_hint(e, "convert it, or make a smaller disk and copy what is needed");
        }
    }
    if (r == 0 && to_min) {
        size = least;
    }
    if (r == 0 && size < least) {
        r = hv_fail(e, HV_CONFLICT, path, "cannot be made that small: what is in it ends at %s",
                    format_size_exact(least, need, sizeof(need)));
        hv_hint(e, "vhdtool resize %s --to-min", path);
    }
    if (r < 0 || size == old) {
        return r;
    }
    if (size % disk_logical_sector(d)) {
        return disk_resize(d, size, e);                            /* refused, before anything is changed */
    }
    r = content_move_backup(d, size, e);
    if (r == 0) {
        r = disk_resize(d, size, e);
        if (r < 0) {
            content_move_backup(d, old, NULL);
        }
    }
    return r;
}

static int resize(struct cli_call *c, struct hv_error *e)
{
    const char *path = c->args[0];
    char old[24], new[24], grown[96] = "";
    bool grow = cli_has(c, "grow-partition"), to_min = cli_has(c, "to-min");
    unsigned number = grow ? (unsigned)cli_number(c, "grow-partition", 0) : 0;
    uint64_t size = 0;
    struct hv_lock_holder holder;
    struct disk *d;
    int sign = 0, r;

    if ((c->n_args < 2) != to_min) {
        r = hv_fail(e, HV_USAGE, path, to_min ? "--to-min and a size do not go together" : "needs the new size");
        hv_hint(e, to_min ? "vhdtool resize %s --to-min" : "vhdtool resize %s 40G, or +10G, or --to-min", path);
        return r;
    }
    if (grow && to_min) {
        return hv_fail(e, HV_USAGE, "--grow-partition", "does not go with --to-min");
    }
    r = to_min ? 0 : parse_size_relative(c->args[1], "SIZE", &sign, &size, e);
    if (r < 0) {
        return r;
    }
    r = open_disk(c, path, DISK_WRITE, &d, e);
    if (r == -EBUSY && !to_min && hv_lock_holder(path, true, &holder) == 0 && holder.vm) {
        hv_hint(e, "hvctl disk resize %s %s %s", holder.name, path, c->args[1]);
    }
    if (r < 0) {
        return r;
    }
    format_size_exact(disk_size(d), old, sizeof(old));
    if (grow && (r = content_can_grow(d, number, e)) < 0) {
        /* said below */
    } else if (sign > 0 && __builtin_add_overflow(disk_size(d), size, &size)) {
        r = hv_fail(e, HV_USAGE, path, "the size would be too large");
    } else if (sign < 0 && size >= disk_size(d)) {
        r = hv_fail(e, HV_USAGE, path, "has only %s", old);
    } else {
        size = sign < 0 ? disk_size(d) - size : size;
        if (!to_min && size < disk_size(d) && grow) {
            r = hv_fail(e, HV_USAGE, "--grow-partition", "the disk would be smaller, not larger");
        } else if (to_min || size < disk_size(d)) {
            r = make_smaller(d, path, size, to_min, e);
        } else {
            r = disk_resize(d, size, e);
        }
    }
    if (r == 0 && grow) {
        r = content_grow(d, number, grown, sizeof(grown), e);
    }
    if (r < 0) {
        if (!e->object[0]) {
            hv_strlcpy(e->object, path, sizeof(e->object));
        }
        disk_abandon(d);
        return r;
    }
    format_size_exact(disk_size(d), new, sizeof(new));
    r = disk_close(d, e);
    if (r == 0) {
        cli_note(c, "%s: size %s -> %s%s%s", path, old, new, grown[0] ? "; " : "", grown);
    }
    return r;
}

/* ---- compact ---- */

static int compact(struct cli_call *c, struct hv_error *e)
{
    const char *path = c->args[0], *mode = cli_text(c, "mode", "quick");
    char before[SIZE_TEXT], after[SIZE_TEXT], held_before[SIZE_TEXT], held_after[SIZE_TEXT];
    struct disk_info a, b;
    struct progress p;
    struct disk *d;
    uint64_t unused;
    int r = open_disk(c, path, DISK_WRITE, &d, e);

    if (r < 0) {
        return r;
    }
    disk_layer_info(disk_layer(d, 0), false, &a);
    if (strcmp(mode, "quick") == 0) {
        r = content_discard_free(d, &unused, e);
        if (r < 0) {
            disk_abandon(d);
            return r;
        }
    }
    progress_begin(&p, c, path);
    r = disk_compact(d, strcmp(mode, "pretrimmed") != 0, progress_update, &p, e);
    progress_end(&p);
    if (r < 0) {
        disk_abandon(d);
        return r;
    }
    disk_layer_info(disk_layer(d, 0), false, &b);
    r = disk_close(d, e);
    if (r == 0) {
        format_sizes(a.allocated, held_before, b.allocated, held_after);
        format_sizes(a.file_size, before, b.file_size, after);
        cli_note(c, "%s: on disk %s -> %s, file %s -> %s", path, held_before, held_after, before, after);
    }
    return r;
}

/* ---- chain ---- */

static const struct cli_column chain_cols[] = {
    {"layer", .unit = CLI_UNIT_NUMBER, .help = "0 the disk itself, 1 its parent..."},
    {"path", .cut = true, .help = "the file"},
    {"format", .help = "raw, vhd or vhdx"},
    {"type", .help = "fixed, dynamic or differencing"},
    {"size", .unit = CLI_UNIT_SIZE, .help = "of the disk"},
    {"allocated", .header = "ON DISK", .unit = CLI_UNIT_SIZE, .help = "what the file takes on the host"},
    {"data_id", .header = "DATA ID", .help = "what children know their parent by"},
    {"note", .help = "what is odd about it"},
    {0},
};
static const struct cli_columns chain_table = {
    .col = chain_cols, .defaults = "layer,path,format,type,size,allocated", .name = "path",
};

static int chain_list(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    char in_use[IN_USE_SIZE];
    struct disk *d;
    json_t *rows = json_array(), *o, *parent;
    size_t n;
    int r = open_to_look(c, c->args[0], 0, &d, in_use, e);

    if (r < 0) {
        json_decref(rows);
        return r;
    }
    o = info_json(d, c->args[0], in_use, false);
    json_object_set_new(o, "layer", json_integer(0));
    json_array_append(rows, o);
    json_array_foreach(json_object_get(o, "chain"), n, parent) {
        json_object_set_new(parent, "layer", json_integer((json_int_t)n + 1));
        json_array_append(rows, parent);
    }
    json_object_del(o, "chain");
    json_decref(o);
    r = cli_printer_init(&p, c, &chain_table, CLI_FMT_TABLE, e);
    if (r == 0) {
        cli_print_rows(&p, rows, false);
    }
    cli_printer_fini(&p);
    json_decref(rows);
    disk_close(d, NULL);
    return r < 0 ? r : 0;
}

static int set_parent(struct cli_call *c, const char *path, const char *parent, struct hv_error *e)
{
    struct disk *d;
    int r = open_disk(c, path, DISK_WRITE | DISK_NO_PARENT, &d, e);

    if (r < 0) {
        return r;
    }
    r = disk_set_parent(d, parent, cli_has(c, "ignore-id"), e);
    if (r < 0) {
        disk_abandon(d);
        return r;
    }
    r = disk_close(d, e);
    if (r == 0) {
        cli_note(c, "%s: parent is %s", path, parent);
    }
    return r;
}

/* Every disk of the chain whose parent lies in dir by its name gets that one. */
static int relocate(struct cli_call *c, const char *dir, struct hv_error *e)
{
    hv_autofree char *path = hv_strdup(c->args[0]);
    int r = path ? 0 : -ENOMEM;

    for (unsigned level = 0; r == 0 && level < DISK_CHAIN_MAX; level++) {
        struct disk_info info;
        struct disk *d;

        r = open_disk(c, path, DISK_NO_PARENT | DISK_SHARED, &d, e);
        if (r < 0) {
            return r;
        }
        disk_layer_info(disk_layer(d, 0), false, &info);
        disk_close(d, NULL);
        if (!info.has_parent) {
            return 0;
        }
        const char *name = info.parent.relative[0] ? info.parent.relative
                           : info.parent.absolute[0] ? info.parent.absolute : info.parent.name;
        for (const char *p = name; *p; p++) {
            name = (*p == '\\' || *p == '/') && p[1] ? p + 1 : name;
        }
        char *parent = hv_asprintf("%s/%s", dir, name);
        if (!parent) {
            return -ENOMEM;
        }
        r = access(parent, F_OK) < 0
                ? hv_fail(e, HV_NOT_FOUND, parent, "there is no such disk, and %s needs it", path)
                : set_parent(c, path, parent, e);
        free(path);
        path = parent;
    }
    return r;
}

static int chain(struct cli_call *c, struct hv_error *e)
{
    const char *parent = cli_text(c, "set-parent", NULL), *dir = cli_text(c, "relocate", NULL);

    if (parent && dir) {
        return hv_fail(e, HV_USAGE, "--relocate", "does not go with --set-parent");
    }
    return parent ? set_parent(c, c->args[0], parent, e) : dir ? relocate(c, dir, e) : chain_list(c, e);
}

/* ---- set ---- */

static int set(struct cli_call *c, struct hv_error *e)
{
    const char *path = c->args[0], *sector = cli_text(c, "physical-sector", NULL);
    char text[GUID_TEXT_SIZE];
    struct guid id;
    struct disk *d;
    int r;

    if (!cli_has(c, "new-id") && !sector) {
        return hv_fail(e, HV_USAGE, path, "nothing to set: give --new-id or --physical-sector");
    }
    r = open_disk(c, path, DISK_WRITE | DISK_NO_PARENT, &d, e);
    if (r < 0) {
        return r;
    }
    if (sector) {
        r = disk_set_physical_sector(d, (uint32_t)strtoul(sector, NULL, 10), e);
    }
    if (r == 0 && cli_has(c, "new-id")) {
        r = guid_new(&id) < 0 ? hv_fail(e, HV_FAILED, path, "no random numbers for an id") : disk_set_id(d, &id, e);
        if (r == 0) {
            cli_note(c, "%s: id %s", path, guid_format(&id, text));
        }
    }
    if (r < 0) {
        disk_abandon(d);
        return r;
    }
    return disk_close(d, e);
}

static const struct cli_arg one_path[] = {{"PATH", CLI_FILE, .values = DISK_GLOB, .help = "a disk"}, {0}};
static const struct cli_arg resize_args[] = {
    {"PATH", CLI_FILE, .values = DISK_GLOB, .help = "a disk"},
    {"SIZE", CLI_SIZE_REL, CLI_OPTIONAL, .help = "the new size, or +SIZE: more by that"},
    {0},
};
static const struct cli_option resize_options[] = {
    {.name = "to-min", .type = CLI_BOOL, .help = "as small as its partitions let it be"},
    {.name = "grow-partition", .type = CLI_UINT, .arg = "N", .flags = CLI_VALUE_OPTIONAL, .max = 1024,
     .help = "the last partition, or N, and its ext4 too"},
    OPT_FORMAT,
    {0},
};
static const struct cli_option compact_options[] = {
    {.name = "mode", .type = CLI_ENUM, .arg = "MODE", .def = "quick", .values = "quick|full|pretrimmed|prezeroed",
     .help = "pretrimmed: only what was discarded; others: zeros too"},
    OPT_FORMAT,
    OPT_PROGRESS,
    {0},
};
static const struct cli_option chain_options[] = {
    {.name = "set-parent", .type = CLI_FILE, .arg = "PATH", .values = DISK_GLOB, .help = "name another file as its parent"},
    {.name = "ignore-id", .type = CLI_BOOL, .help = "even if that was changed meanwhile"},
    {.name = "relocate", .type = CLI_DIR, .arg = "DIR", .help = "all parents lie in DIR now"},
    OPT_FORMAT,
    {0},
};
static const struct cli_option set_options[] = {
    {.name = "new-id", .type = CLI_BOOL, .help = "a fresh disk identifier; of a VHD that breaks its children"},
    {.name = "physical-sector", .type = CLI_ENUM, .arg = "BYTES", .def = "4096", .values = "512|4096",
     .help = "sector size the guest is told to align to"},
    OPT_FORMAT,
    {0},
};

#define CHANGE_CODES (CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(NO_RESOURCES))

const struct cli_command resize_commands[] = {
    {.noun = "resize", .help = "make a disk larger or smaller", .args = resize_args, .options = resize_options,
     .codes = CHANGE_CODES, .run = resize,
     .about = "Smaller only as far as nothing is cut off that is in use: the end of the last partition. A VHD can "
              "only grow.",
     .examples = EXAMPLES({"vhdtool resize web.vhdx +20G --grow-partition", "20G more, the last partition and its ext4 too"},
                          {"vhdtool resize old.vhdx --to-min", "nothing behind the last partition"})},
    {0},
};
const struct cli_command compact_commands[] = {
    {.noun = "compact", .help = "give back the room of what is empty", .args = one_path, .options = compact_options,
     .codes = CHANGE_CODES, .run = compact,
     .about = "What the file systems do not use goes back to the host at once. The file gets shorter by whole blocks: "
              "a block of which any part is used stays in it, as a hole where it is not. Smaller blocks (vhdtool "
              "convert --block-size 1M) make it shorter still.",
     .examples = EXAMPLES({"vhdtool compact web.vhdx", "blocks of zeros go, the file gets shorter"})},
    {0},
};
const struct cli_command chain_commands[] = {
    {.noun = "chain", .help = "show a disk's parents, or name others", .args = one_path, .options = chain_options,
     .use = CLI_USE_LIST, .columns = &chain_table, .codes = CHANGE_CODES, .run = chain,
     .examples = EXAMPLES({"vhdtool chain child.vhdx", "the disk and all it is based on"},
                          {"vhdtool chain child.vhdx --set-parent /srv/base.vhdx", "after the parent was moved"})},
    {0},
};
const struct cli_command set_commands[] = {
    {.noun = "set", .help = "set a disk's identifier or sector size", .args = one_path, .options = set_options,
     .codes = CHANGE_CODES, .run = set, .examples = EXAMPLES({"vhdtool set copy.vhdx --new-id", "two disks, two ids"})},
    {0},
};
