/* check, repair: the structure of disks. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hv/fs/check.h"
#include "hv/fs/partition.h"
#include "vhdtool/vhdtool.h"

struct findings { struct cli_call *c; const char *path; json_t *list; unsigned bad, repairable; };

static void found(void *arg, const struct disk_problem *p)
{
    struct findings *f = arg;

    f->bad += !p->harmless;
    f->repairable += p->repairable;
    json_array_append_new(f->list, json_pack("{s:s s:s s:b s:b}", "path", f->path, "problem", p->text, "repairable",
                                             p->repairable, "harmless", p->harmless));
    if (f->c->format == CLI_FMT_DEFAULT && !(p->harmless && f->c->quiet)) {
        fprintf(f->c->out, "%s: %s\n", f->path, p->text);
    }
}

static const struct cli_column problem_cols[] = {
    {"path", .help = "the file"},
    {"problem", .help = "what is wrong"},
    {"repairable", .unit = CLI_UNIT_SWITCH, .help = "can vhdtool repair put it right"},
    {"harmless", .unit = CLI_UNIT_SWITCH, .help = "odd, and no damage"},
    {0},
};
static const struct cli_columns problem_table = {
    .col = problem_cols, .defaults = "path,problem,repairable,harmless", .name = "problem",
};

/* Text as it is found; every other form as one table of findings. */
static int print(struct cli_call *c, const json_t *list, struct hv_error *e)
{
    struct cli_printer p;
    int r;

    if (c->format == CLI_FMT_DEFAULT) {
        return 0;
    }
    r = cli_printer_init(&p, c, &problem_table, CLI_FMT_TABLE, e);
    if (r == 0) {
        cli_print_rows(&p, list, false);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

static int look(struct cli_call *c, const char *path, json_t *list, unsigned *ret_bad, struct hv_error *e)
{
    struct findings f = {.c = c, .path = path, .list = list};
    struct disk_file *file;
    int r = disk_file_open(path, 0, &file, e);

    if (r == 0) {
        r = disk_check_file(file, wanted_format(c), found, &f, e);
        disk_file_unref(file);
    }
    if (r == 0 && f.bad && f.repairable && c->format == CLI_FMT_DEFAULT) {
        fprintf(c->out, "  try: vhdtool repair %s\n", path);
    }
    *ret_bad += f.bad;
    return r;
}

/* Is the parent what this disk was made from? One that is not there is for --chain to complain of. */
static void look_at_parent(struct cli_call *c, const char *path, json_t *list, unsigned *ret_bad)
{
    struct findings f = {.c = c, .path = path, .list = list};
    struct hv_error why = {0};
    struct disk *d;
    int r = disk_open(path, &(struct disk_options){.format = wanted_format(c)}, &d, &why);

    if (r == 0) {
        disk_close(d, NULL);
    } else if (r == -ESTALE || r == -ELOOP || why.code == HV_NOT_FOUND) {
        struct disk_problem p = {.harmless = why.code == HV_NOT_FOUND};

        snprintf(p.text, sizeof(p.text), "chain: %.80s: %.160s", why.object, why.message);
        found(&f, &p);
        *ret_bad += f.bad;
    }
}

/* The parents as well, and whether they are what their children were made from. */
static int look_at_chain(struct cli_call *c, const char *path, json_t *list, unsigned *ret_bad, struct hv_error *e)
{
    struct findings f = {.c = c, .path = path, .list = list};
    struct hv_error why = {0};
    struct disk *d;
    int r = disk_open(path, &(struct disk_options){.format = wanted_format(c)}, &d, &why);

    if (r < 0) {
        struct disk_problem p = {.repairable = false};

        snprintf(p.text, sizeof(p.text), "chain: %.80s: %.160s", why.object, why.message);
        found(&f, &p);
        ++*ret_bad;
        return 0;
    }
    for (unsigned i = 1; r == 0 && disk_layer(d, i); i++) {
        r = look(c, disk_file_path(disk_layer_file(disk_layer(d, i))), list, ret_bad, e);
    }
    disk_close(d, NULL);
    return r;
}

/* ---- what is in it ---- */

struct in_partition { struct findings *f; unsigned number; const char *type; };

static void found_inside(void *arg, const struct disk_problem *p)
{
    struct in_partition *in = arg;
    struct disk_problem named = *p;

    if (in->number) {
        snprintf(named.text, sizeof(named.text), "p%u: %s: %.220s", in->number, in->type, p->text);
    } else {
        snprintf(named.text, sizeof(named.text), "%s: %.220s", in->type, p->text);
    }
    found(in->f, &named);
}

static int check_part(struct findings *f, struct disk *d, unsigned number, uint64_t off, uint64_t len, struct hv_error *e)
{
    struct probe pr;
    int r = probe_read(d, off, len, &pr);
    struct in_partition in = {.f = f, .number = number, .type = pr.type};

    r = r < 0 ? hv_fail_errno(e, -r, NULL, "cannot read") : fs_check(d, off, len, found_inside, &in, e);
    if (r < 0 && !e->object[0]) {
        hv_strlcpy(e->object, f->path, sizeof(e->object));
    }
    return r;
}

static void found_text(struct findings *f, bool harmless, const char *what, const char *text)
{
    struct disk_problem p = {.harmless = harmless};

    snprintf(p.text, sizeof(p.text), "%s%.220s", what, text);
    found(f, &p);
}

/* Partition table and file systems of the disk as its guest sees it. */
static int look_inside(struct cli_call *c, const char *path, json_t *list, unsigned *ret_bad, struct hv_error *e)
{
    struct findings f = {.c = c, .path = path, .list = list};
    struct partition_table t;
    struct hv_error why = {0};
    struct disk *d;
    int r = disk_open(path, &(struct disk_options){.format = wanted_format(c)}, &d, e);

    if (r < 0) {
        return r;
    }
    r = partition_read(d, &t, &why);
    if (r == -EINVAL) {
        found_text(&f, false, "", why.message);
        r = 0;
    } else if (r < 0) {
        *e = why;
    } else {
        if (t.note[0]) {
            found_text(&f, t.backup_misplaced && !strstr(t.note, "damaged") && !strstr(t.note, "missing"), "partition table: ",
                       t.note);
        }
        if (t.scheme == PARTITION_NONE) {
            r = check_part(&f, d, 0, 0, disk_size(d), e);
        }
        for (unsigned i = 0; r == 0 && i < t.n; i++) {
            r = t.p[i].extended ? 0 : check_part(&f, d, t.p[i].number, t.p[i].offset, t.p[i].len, e);
        }
        partition_table_fini(&t);
    }
    disk_close(d, NULL);
    *ret_bad += f.bad;
    return r;
}

static int check(struct cli_call *c, struct hv_error *e)
{
    json_t *list = json_array();
    unsigned bad = 0, failed = 0;
    struct hv_error first = {0};
    int r = 0;

    for (unsigned i = 0; i < c->n_args; i++) {
        struct hv_error why = {0};
        unsigned before = bad;

        r = look(c, c->args[i], list, &bad, &why);
        if (r == 0 && bad == before && !cli_has(c, "chain")) {
            look_at_parent(c, c->args[i], list, &bad);
        } else if (r == 0 && bad == before) {
            r = look_at_chain(c, c->args[i], list, &bad, &why);
        }
        if (r == 0 && cli_has(c, "filesystem") && bad == before) {
            r = look_inside(c, c->args[i], list, &bad, &why);
        }
        if (r < 0) {
            first = failed++ ? first : why;
            if (c->n_args > 1) {
                cli_print_error(c, &why);
            }
        } else if (bad == before && c->format == CLI_FMT_DEFAULT) {
            cli_note(c, "%s: clean", c->args[i]);
        }
    }
    r = print(c, list, e);
    json_decref(list);
    if (failed && c->n_args == 1) {
        *e = first;
        return -EIO;
    }
    c->exit_code = failed == c->n_args ? (int)first.code : failed ? HV_PARTIAL : bad ? HV_DIFFERS : HV_OK;
    return r;
}

/* ---- repair ---- */

#define KEPT_HEAD (4 * MIB)
#define KEPT_TAIL ((uint64_t)512)

/* The first 4 MiB and the last sector of the file as they were, beside it. */
static int keep_headers(struct disk_file *f, const char *path, struct hv_error *e)
{
    hv_autofree char *kept = name_beside(path, ".orig-header");
    uint64_t size = disk_file_size(f), head = MIN(size, KEPT_HEAD), tail = MIN(size, KEPT_TAIL);
    hv_autofree uint8_t *buf = hv_alloc(head + tail);
    int r;

    if (!kept || !buf) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    if (access(kept, F_OK) == 0) {
        return 0;                        /* of an earlier repair: the oldest counts */
    }
    r = disk_file_read(f, 0, buf, head);
    r = r < 0 ? r : disk_file_read(f, size - tail, buf + head, tail);
    r = r < 0 ? r : hv_replace_file(kept, buf, head + tail, 0600);
    return r < 0 ? hv_fail_errno(e, -r, kept, "cannot keep the headers as they are") : 0;
}

static int repair(struct cli_call *c, struct hv_error *e)
{
    const char *path = c->args[0];
    struct findings f = {.c = c, .path = path, .list = json_array()};
    unsigned left = 0;
    struct disk_file *file;
    bool dry = c->dry_run;
    int r = disk_file_open(path, dry ? 0 : DISK_FILE_WRITE, &file, e);

    if (r == 0 && !dry) {
        r = keep_headers(file, path, e);
        if (r < 0) {
            disk_file_unref(file);
        }
    }
    if (r == 0) {
        r = disk_repair_file(file, wanted_format(c), dry, found, &f, e);
        disk_file_unref(file);
    }
    if (r == 0 && !dry) {
        json_t *again = json_array();
        struct cli_call quiet = *c;

        quiet.format = CLI_FMT_NAME;     /* count, say nothing */
        r = look(&quiet, path, again, &left, e);
        json_decref(again);
    }
    if (r == 0) {
        r = print(c, f.list, e);
    }
    if (r == 0 && c->format == CLI_FMT_DEFAULT) {
        if (dry) {
            cli_note(c, "%s: %u of %u problems would be repaired", path, f.repairable, f.bad);
        } else if (left) {
            cli_note(c, "%s: %u problems are left", path, left);
        } else {
            cli_note(c, f.bad ? "%s: repaired" : "%s: nothing to repair", path);
        }
    }
    c->exit_code = left || (dry && f.bad) ? HV_DIFFERS : HV_OK;
    json_decref(f.list);
    return r;
}

static const struct cli_arg paths[] = {{"PATH", CLI_FILE, CLI_REPEAT, .values = DISK_GLOB, .help = "disks"}, {0}};
static const struct cli_arg one_path[] = {{"PATH", CLI_FILE, .values = DISK_GLOB, .help = "a disk"}, {0}};

static const struct cli_option check_options[] = {
    {.name = "chain", .type = CLI_BOOL, .help = "its parents too"},
    {.name = "filesystem", .type = CLI_BOOL, .help = "partition table and file systems too"},
    OPT_FORMAT,
    {0},
};
static const struct cli_option repair_options[] = {OPT_FORMAT, {0}};

const struct cli_command check_commands[] = {
    {.noun = "check", .help = "look for damage; changes nothing", .args = paths, .options = check_options,
     .use = CLI_USE_LIST, .columns = &problem_table,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(PARTIAL) | CODE(DIFFERS), .run = check,
     .about = "Exits 0 when all is well and 11 when something is not. --filesystem compares what ext2, ext3, ext4 and "
              "vfat say twice: who has which block, names and links, bitmaps and counts, checksums; e2fsck and "
              "fsck.fat put right what it finds.",
     .examples = EXAMPLES({"vhdtool check --chain web.vhdx", "the disk and all it is based on"},
                          {"vhdtool check --filesystem web.vhdx", "what is in it as well"})},
    {0},
};

const struct cli_command repair_commands[] = {
    {.noun = "repair", .help = "put right what can be", .args = one_path, .options = repair_options,
     .use = CLI_USE_LIST | CLI_USE_DRY, .columns = &problem_table,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(UNSUPPORTED) | CODE(DIFFERS), .run = repair,
     .about = "Replays a log and rebuilds what check says can be; data is never invented. The headers as they "
              "were are kept in PATH.orig-header. Exits 11 when something is left.",
     .examples = EXAMPLES({"vhdtool repair broken.vhdx --dry-run", "say what would be done"})},
    {0},
};
