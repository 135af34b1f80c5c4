/* info, map: what a disk is, and where its data lies. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hv/base/strbuf.h"
#include "hv/base/units.h"
#include "hv/disk/headers.h"
#include "vhdtool/content.h"

static json_int_t number(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

static const char *word(const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));

    return s ? s : "";
}

static const char *show_format(const json_t *row, const json_t *v, char *buf, size_t size)
{
    (void)v;
    snprintf(buf, size, strcmp(word(row, "format"), "raw") == 0 ? "%s" : "%s, %s", word(row, "format"), word(row, "type"));
    return buf;
}

static const char *show_on_disk(const json_t *row, const json_t *v, char *buf, size_t size)
{
    char held[24], block[24];

    (void)v;
    format_size((uint64_t)number(row, "allocated"), held, sizeof(held));
    if (!json_is_integer(json_object_get(row, "blocks_present"))) {
        snprintf(buf, size, "%s", held);
    } else {
        snprintf(buf, size, "%s  (%lld of %lld blocks of %s)", held, (long long)number(row, "blocks_present"),
                 (long long)number(row, "blocks"), format_size_exact((uint64_t)number(row, "block_size"), block, sizeof(block)));
    }
    return buf;
}

static const char *show_sectors(const json_t *row, const json_t *v, char *buf, size_t size)
{
    (void)v;
    snprintf(buf, size, "%lld logical, %lld physical", (long long)number(row, "logical_sector"),
             (long long)number(row, "physical_sector"));
    return buf;
}

static const char *show_parent(const json_t *row, const json_t *v, char *buf, size_t size)
{
    (void)row;
    (void)buf;
    (void)size;
    return json_is_string(v) ? json_string_value(v) : "-";
}

static const char *show_log(const json_t *row, const json_t *v, char *buf, size_t size)
{
    (void)row;
    (void)buf;
    (void)size;
    return json_is_true(v) ? "to be replayed (unclean end)" : "clean";
}

static const char *show_partitions(const json_t *row, const json_t *v, char *buf, size_t size)
{
    (void)row;
    return content_text(v, buf, size);
}

static const struct cli_column info_cols[] = {
    {"path", .cut = true, .help = "the file"},
    {"format", .show = show_format, .help = "raw, vhd or vhdx, and its type"},
    {"type", .help = "fixed, dynamic or differencing"},
    {"size", .unit = CLI_UNIT_SIZE, .help = "of the disk the guest sees"},
    {"allocated", .header = "ON DISK", .label = "on disk", .unit = CLI_UNIT_SIZE, .detail = show_on_disk, .help = "what the file takes on the host"},
    {"file_size", .header = "FILE", .unit = CLI_UNIT_SIZE, .help = "length of the file"},
    {"block_size", .header = "BLOCK", .unit = CLI_UNIT_SIZE, .help = "unit of growth"},
    {"blocks", .unit = CLI_UNIT_NUMBER, .help = "how many blocks the disk has"},
    {"blocks_present", .header = "PRESENT", .unit = CLI_UNIT_NUMBER, .help = "how many of them have room in the file"},
    {"fragments", .unit = CLI_UNIT_NUMBER, .help = "in how many stretches of the file its data lies"},
    {"min_size", .header = "MIN SIZE", .label = "min size", .unit = CLI_UNIT_SIZE, .help = "how small resize can make it"},
    {"sectors", "logical_sector", .show = show_sectors, .help = "logical and physical sector size"},
    {"id", .help = "disk identifier"},
    {"data_id", .header = "DATA ID", .label = "data id", .help = "what children know their parent by"},
    {"parent", .cut = true, .show = show_parent, .help = "of a differencing disk"},
    {"log", "log_dirty", .show = show_log, .help = "VHDX: is there something to be replayed"},
    {"creator", .help = "what made it"},
    {"created", .unit = CLI_UNIT_TIME, .help = "when it was made"},
    {"partitions", .show = show_partitions, .help = "what lies in it: size, file system, label, UUID"},
    {"in_use", .header = "IN USE", .label = "in use", .help = "who has it open"},
    {"note", .help = "what is odd about it"},
    {0},
};
static const struct cli_columns info_table = {
    .col = info_cols, .defaults = "path,format,size,allocated,parent,in_use", .name = "path",
    .list = "path,format,size,min_size,allocated,fragments,sectors,id,parent,log,partitions,in_use,note",
};

static void warn_of_size(const struct cli_call *c, const json_t *o)
{
    json_int_t chs = number(o, "chs_size");
    const char *creator = word(o, "creator");

    if (chs && chs != number(o, "size") && (strcmp(creator, "vpc ") == 0 || strcmp(creator, "qemu") == 0) &&
        chs < (json_int_t)(127 * GIB)) {
        cli_warn(c, word(o, "path"), "some programs read %lld bytes of it (by its geometry), others %lld",
                 (long long)chs, (long long)number(o, "size"));
    }
}

#define EXTENTS_MAX 1000000u     /* looked at for the count of fragments */

/* Stretches of the leaf's file that hold data, in the order of the disk. Null: none, too many to tell, or a child
 * without its parents. */
static json_t *fragments(struct disk *d)
{
    uint64_t size = disk_size(d), end = 0;
    json_int_t n = 0;
    struct disk_extent x;
    unsigned looks = 0;

    for (uint64_t off = 0; off < size; off += x.len) {
        int r = disk_map(d, off, size - off, &x);

        if (r < 0 || ++looks > EXTENTS_MAX) {
            return json_null();
        }
        if (x.where == DISK_DATA && x.layer == 0) {
            n += n == 0 || x.file_offset != end;
            end = x.file_offset + x.len;
        }
    }
    return n ? json_integer(n) : json_null();
}

/* What of the answer needs the content: partitions, and how small the disk could be. */
static void add_content(json_t *o, struct disk *d)
{
    struct disk_info i;
    uint64_t least;

    json_object_set_new(o, "partitions", content_json(d));
    if (disk_layer_info(disk_layer(d, 0), false, &i) == 0 && i.kind != DISK_VHD && content_least_size(d, &least, NULL) == 0) {
        json_object_set_new(o, "min_size", json_integer((json_int_t)least));
    } else {
        json_object_set_new(o, "min_size", json_null());
    }
}

/* A child shows its parent's content where it has none of its own. */
static void look_inside(struct cli_call *c, const char *path, struct disk *d, json_t *o)
{
    struct disk_info i;
    struct disk *whole;
    char in_use[IN_USE_SIZE];

    if (disk_layer(d, 1) || disk_layer_info(disk_layer(d, 0), false, &i) < 0 || !i.has_parent) {
        add_content(o, d);
    } else if (open_to_look(c, path, DISK_SHARED, &whole, in_use, NULL) == 0) {
        add_content(o, whole);
        disk_close(whole, NULL);
    }
}

static int show_headers(struct cli_call *c, struct hv_error *e);

static int info(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    json_t *rows = json_array();
    unsigned failed = 0;
    int r;

    if (cli_has(c, "headers")) {
        json_decref(rows);
        return show_headers(c, e);
    }
    r = cli_printer_init(&p, c, &info_table, CLI_FMT_LIST, e);

    for (unsigned i = 0; r == 0 && i < c->n_args; i++) {
        struct hv_error why = {0};
        struct disk *d;
        char in_use[IN_USE_SIZE];
        int r1 = open_to_look(c, c->args[i], cli_has(c, "chain") ? 0 : DISK_NO_PARENT, &d, in_use, &why);

        if (r1 < 0 && c->n_args == 1) {
            *e = why;
            r = r1;
            break;
        }
        if (r1 < 0) {
            cli_print_error(c, &why);
            c->exit_code = ++failed == c->n_args ? (int)why.code : HV_PARTIAL;
            continue;
        }
        json_t *o = info_json(d, c->args[i], in_use, true);
        size_t n;
        json_t *parent;

        warn_of_size(c, o);
        look_inside(c, c->args[i], d, o);
        json_object_set_new(o, "fragments", json_integer_value(json_object_get(o, "blocks_present")) ? fragments(d) : json_null());
        json_array_append_new(rows, o);
        if (cli_has(c, "chain") && p.format != CLI_FMT_JSON && p.format != CLI_FMT_JSONL) {
            json_array_foreach(json_object_get(o, "chain"), n, parent) {
                json_array_append(rows, parent);
            }
        }
        disk_close(d, NULL);
    }
    if (r == 0 && json_array_size(rows)) {
        cli_print_rows(&p, rows, c->n_args == 1 && json_array_size(rows) == 1);
    }
    cli_printer_fini(&p);
    json_decref(rows);
    return r < 0 ? r : 0;
}

/* ---- info --headers ---- */

static const struct cli_column header_cols[] = {
    {"path", .cut = true, .help = "the file"},
    {"structure", .help = "which part of the file"},
    {"offset", .unit = CLI_UNIT_NUMBER, .help = "where in the file, bytes"},
    {"field", .help = "the format's name for it"},
    {"value", .help = "what it says"},
    {0},
};
static const struct cli_columns header_table = {
    .col = header_cols, .defaults = "structure,offset,field,value", .name = "field",
};

struct fields { json_t *rows; const char *path; };

static json_t *text_or_mark(const char *s)
{
    json_t *j = json_string(s);              /* NULL: not UTF-8 */

    return j ? j : json_string("?");
}

static int add_field(void *arg, const char *structure, uint64_t off, const char *field, const char *value)
{
    struct fields *f = arg;
    json_t *row = json_pack("{s:s s:s s:I s:o s:o}", "path", f->path, "structure", structure, "offset", (json_int_t)off,
                            "field", text_or_mark(field), "value",
                            text_or_mark(value));

    return row && json_array_append_new(f->rows, row) == 0 ? 0 : -ENOMEM;
}

/* Files as they lie there: a disk that cannot be opened has headers too. */
static int show_headers(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct fields f = {.rows = json_array()};
    int r = cli_printer_init(&p, c, &header_table, CLI_FMT_TABLE, e);

    for (unsigned i = 0; r == 0 && i < c->n_args; i++) {
        struct disk_file *file;

        f.path = c->args[i];
        r = disk_file_open(f.path, DISK_FILE_NO_LOCK, &file, e);
        if (r == 0) {
            r = disk_headers(file, wanted_format(c), add_field, &f, e);
            disk_file_unref(file);
        }
    }
    if (r == 0) {
        cli_print_rows(&p, f.rows, false);
    }
    cli_printer_fini(&p);
    json_decref(f.rows);
    return r < 0 ? r : 0;
}

/* ---- map ---- */

static const struct cli_column map_cols[] = {
    {"offset", .unit = CLI_UNIT_NUMBER, .width = 14, .help = "where in the disk, bytes"},
    {"length", .unit = CLI_UNIT_NUMBER, .width = 14, .help = "bytes"},
    {"state", .width = 6, .help = "data, zero, or absent: nobody ever wrote there"},
    {"file_offset", .header = "FILE OFFSET", .unit = CLI_UNIT_NUMBER, .width = 14, .help = "where in the file, for data"},
    {"layer", .unit = CLI_UNIT_NUMBER, .width = 5, .help = "0 the disk itself, 1 its parent..."},
    {"file", .help = "the file of the layer"},
    {0},
};
static const struct cli_columns map_table = {
    .col = map_cols, .defaults = "offset,length,state,file_offset,layer", .name = "offset",
};

static json_t *map_row(const struct disk_extent *x, uint64_t off)
{
    static const char *const words[] = {[DISK_DATA] = "data", [DISK_ZERO] = "zero", [DISK_ABSENT] = "absent"};
    bool data = x->where == DISK_DATA;

    return json_pack("{s:I s:I s:s s:o s:o s:o}", "offset", (json_int_t)off, "length", (json_int_t)x->len, "state",
                     words[x->where], "file_offset", data ? json_integer((json_int_t)x->file_offset) : json_null(),
                     "layer", x->where == DISK_ABSENT ? json_null() : json_integer((json_int_t)x->layer), "file",
                     data ? json_string(disk_file_path(x->file)) : json_null());
}

static bool continues(const struct disk_extent *a, const struct disk_extent *b)
{
    return a->where == b->where && (a->where == DISK_ABSENT || a->layer == b->layer) &&
           (a->where != DISK_DATA || (a->file == b->file && a->file_offset + a->len == b->file_offset));
}

static int map(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct disk *d;
    char in_use[IN_USE_SIZE];
    struct disk_extent run = {0};
    uint64_t size, start = 0;
    json_t *rows = NULL;
    int r = open_to_look(c, c->args[0], 0, &d, in_use, e);

    if (r < 0) {
        return r;
    }
    r = cli_printer_init(&p, c, &map_table, CLI_FMT_TABLE, e);
    /* Large disks have many rows: those forms that can be written as they come are. */
    if (r == 0 && (p.filter || p.sort || p.format == CLI_FMT_JSON || p.format == CLI_FMT_LIST)) {
        rows = json_array();
    }
    size = disk_size(d);
    for (uint64_t off = 0; r == 0 && off <= size;) {
        struct disk_extent x = {0};

        if (off < size) {
            r = disk_map(d, off, size - off, &x);
            if (r < 0) {
                r = hv_fail_errno(e, -r, c->args[0], "cannot read the map at 0x%llx", (unsigned long long)off);
                break;
            }
        }
        if (run.len && (off == size || !continues(&run, &x))) {
            json_t *row = map_row(&run, start);

            if (rows) {
                json_array_append_new(rows, row);
            } else {
                cli_stream_row(&p, row);
                json_decref(row);
            }
            run.len = 0;
        }
        if (off == size) {
            break;
        }
        if (run.len == 0) {
            run = x;
            start = off;
        } else {
            run.len += x.len;
        }
        off += x.len;
    }
    if (r == 0 && rows) {
        cli_print_rows(&p, rows, false);
    } else if (r == 0) {
        cli_stream_end(&p);
    }
    json_decref(rows);
    cli_printer_fini(&p);
    disk_close(d, NULL);
    return r < 0 ? r : 0;
}

static const struct cli_arg paths[] = {{"PATH", CLI_FILE, CLI_REPEAT, .values = DISK_GLOB, .help = "disks"}, {0}};
static const struct cli_arg one_path[] = {{"PATH", CLI_FILE, .values = DISK_GLOB, .help = "a disk"}, {0}};

static const struct cli_option info_options[] = {
    {.name = "chain", .type = CLI_BOOL, .help = "its parents too"},
    {.name = "headers", .type = CLI_BOOL, .help = "the raw structures, field by field, damaged or not"},
    OPT_FORMAT,
    {0},
};
static const struct cli_option map_options[] = {OPT_FORMAT, {0}};

const struct cli_command info_commands[] = {
    {.noun = "info", .help = "show what disks are", .args = paths, .options = info_options, .use = CLI_USE_LIST,
     .columns = &info_table, .codes = CODE(NOT_FOUND) | CODE(UNSUPPORTED) | CODE(PARTIAL), .run = info,
     .examples = EXAMPLES({"vhdtool info web.vhdx", "size, room taken, parent"},
                          {"vhdtool info --chain web.vhdx -o json", "with all its parents, for programs"})},
    {0},
};

const struct cli_command map_commands[] = {
    {.noun = "map", .help = "show where the data of a disk lies", .args = one_path, .options = map_options,
     .use = CLI_USE_LIST, .columns = &map_table, .codes = CODE(NOT_FOUND) | CODE(UNSUPPORTED), .run = map,
     .examples = EXAMPLES({"vhdtool map web.vhdx -F state=data", "only what takes room"})},
    {0},
};
