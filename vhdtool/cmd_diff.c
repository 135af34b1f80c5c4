/* diff: whether and where two disks differ, by bytes or by files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hv/base/units.h"
#include "vhdtool/diff_files.h"

#define CHUNK (1 * MIB)

/* ---- by bytes ---- */

static const struct cli_column diff_cols[] = {
    {"offset", .unit = CLI_UNIT_NUMBER, .width = 14, .help = "where they differ, bytes"},
    {"length", .unit = CLI_UNIT_NUMBER, .width = 14, .help = "bytes"},
    {0},
};
static const struct cli_columns diff_table = {.col = diff_cols, .defaults = "offset,length", .name = "offset"};

/* Same file, same place: nothing to compare. */
static bool same_place(const struct disk_extent *a, const struct disk_extent *b)
{
    return (a->where != DISK_DATA && b->where != DISK_DATA) ||
           (a->where == DISK_DATA && b->where == DISK_DATA && a->file_offset == b->file_offset &&
            disk_file_same(a->file, b->file));
}

static int compare(struct disk *a, struct disk *b, json_t *rows, uint64_t *ret_bytes)
{
    hv_autofree uint8_t *x = hv_alloc(CHUNK), *y = hv_alloc(CHUNK);
    uint64_t size = MIN(disk_size(a), disk_size(b)), start = 0, run = 0;
    int r = x && y ? 0 : -ENOMEM;

    for (uint64_t off = 0; r == 0 && off < size;) {
        struct disk_extent p, q;
        uint64_t n;

        r = disk_map(a, off, size - off, &p);
        r = r < 0 ? r : disk_map(b, off, size - off, &q);
        if (r < 0) {
            return r;
        }
        n = MIN(p.len, q.len);
        if (!same_place(&p, &q)) {
            n = MIN(n, CHUNK);
            r = disk_read(a, off, x, n);
            r = r < 0 ? r : disk_read(b, off, y, n);
            for (uint64_t at = 0; r == 0 && at < n; at += MIN(DISK_SECTOR, n - at)) {
                uint64_t len = MIN(DISK_SECTOR, n - at);

                if (memcmp(x + at, y + at, len) == 0) {
                    continue;
                }
                *ret_bytes += len;
                if (run && start + run == off + at) {
                    run += len;
                    continue;
                }
                if (run) {
                    json_array_append_new(rows, json_pack("{s:I s:I}", "offset", (json_int_t)start, "length", (json_int_t)run));
                }
                start = off + at;
                run = len;
            }
        }
        off += n;
    }
    if (r == 0 && run) {
        json_array_append_new(rows, json_pack("{s:I s:I}", "offset", (json_int_t)start, "length", (json_int_t)run));
    }
    return r;
}

/* ---- by files ---- */

static const struct cli_column file_cols[] = {
    {"change", .width = 8, .help = "added, removed or changed: B beside A"},
    {"partition", .unit = CLI_UNIT_NUMBER, .help = "number; 0: the file system is the disk"},
    {"path", .help = "the file"},
    {"what", .help = "what differs: type, mode, owner, size, content, target, attributes, time"},
    {0},
};
static const struct cli_columns file_table = {.col = file_cols, .defaults = "change,partition,path,what", .name = "path"};

static int by_files(struct cli_call *c, struct disk *a, struct disk *b, bool *ret_differ, struct hv_error *e)
{
    struct cli_printer p;
    json_t *rows = json_array();
    int r = diff_files(c, a, c->args[0], b, c->args[1], rows, e);

    if (r == 0) {
        r = cli_printer_init(&p, c, &file_table, CLI_FMT_TABLE, e);
        if (r == 0) {
            cli_print_rows(&p, rows, false);
        }
        cli_printer_fini(&p);
    }
    *ret_differ = json_array_size(rows) > 0;
    json_decref(rows);
    return r;
}

static int diff(struct cli_call *c, struct hv_error *e)
{
    struct disk *a, *b;
    char in_use[IN_USE_SIZE], text[24];
    struct cli_printer p;
    json_t *rows = json_array();
    uint64_t bytes = 0;
    bool sizes;
    int r = open_to_look(c, c->args[0], 0, &a, in_use, e);

    if (r < 0) {
        json_decref(rows);
        return r;
    }
    r = open_to_look(c, c->args[1], 0, &b, in_use, e);
    if (r < 0) {
        disk_close(a, NULL);
        json_decref(rows);
        return r;
    }
    sizes = disk_size(a) != disk_size(b);
    if (cli_has(c, "files")) {
        bool differ = false;

        r = cli_has(c, "extents") ? hv_fail(e, HV_USAGE, "--files", "does not go with --extents")
                                  : by_files(c, a, b, &differ, e);
        disk_close(a, NULL);
        disk_close(b, NULL);
        json_decref(rows);
        c->exit_code = differ ? HV_DIFFERS : HV_OK;
        return r < 0 ? r : 0;
    }
    r = compare(a, b, rows, &bytes);
    disk_close(a, NULL);
    disk_close(b, NULL);
    if (r < 0) {
        hv_fail_errno(e, -r, c->args[0], "cannot compare with %s", c->args[1]);
    } else if (cli_has(c, "extents") || c->format != CLI_FMT_DEFAULT) {
        r = cli_printer_init(&p, c, &diff_table, CLI_FMT_TABLE, e);
        if (r == 0) {
            cli_print_rows(&p, rows, false);
        }
        cli_printer_fini(&p);
    } else if (bytes) {
        fprintf(c->out, "%s and %s differ in %s, in %zu places\n", c->args[0], c->args[1],
                format_size(bytes, text, sizeof(text)), json_array_size(rows));
    }
    if (r >= 0 && sizes) {
        cli_note(c, "%s: has another size than %s", c->args[0], c->args[1]);
    }
    c->exit_code = bytes || sizes ? HV_DIFFERS : HV_OK;
    json_decref(rows);
    return r < 0 ? r : 0;
}

static const struct cli_arg two[] = {
    {"A", CLI_FILE, .values = DISK_GLOB, .help = "a disk"}, {"B", CLI_FILE, .values = DISK_GLOB, .help = "another"}, {0}};
static const struct cli_option diff_options[] = {
    {.name = "extents", .type = CLI_BOOL, .help = "each place"},
    {.name = "files", .type = CLI_BOOL, .help = "which files of the file systems"},
    OPT_FORMAT,
    {0},
};

const struct cli_command diff_commands[] = {
    {.noun = "diff", .help = "say whether and where two disks differ", .args = two, .options = diff_options,
     .use = CLI_USE_LIST, .columns = &diff_table, .codes = CODE(NOT_FOUND) | CODE(UNSUPPORTED) | CODE(DIFFERS), .run = diff,
     .about = "Compares what the guest would read. Exits 0 when that is the same and 11 when it is not. --files looks at "
              "files instead: their type, mode, owner, content, links, attributes and times, in ext2, ext3, ext4, vfat "
              "and ISO 9660; other partitions are compared by bytes.",
     .examples = EXAMPLES({"vhdtool diff a.vhd b.vhdx --extents", "offsets and lengths"},
                          {"vhdtool diff base.vhdx web.vhdx --files", "what was done to the system"})},
    {0},
};
