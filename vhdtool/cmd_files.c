/* ls and cat: files in a disk, without mounting it. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "hv/base/units.h"
#include "vhdtool/files.h"

#define READ_SIZE (1 * MIB)
#define ROWS_MAX  1000000u               /* a listing is sorted, so it is in memory */

/* ---- ls ---- */

static const char *type_word(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:  return "file";
    case S_IFDIR:  return "folder";
    case S_IFLNK:  return "link";
    case S_IFCHR:  return "char";
    case S_IFBLK:  return "block";
    case S_IFIFO:  return "fifo";
    case S_IFSOCK: return "socket";
    default:       return "unknown";
    }
}

static void mode_text(uint32_t mode, char text[11])
{
    static const char kind[16] = "?pc?d?b?-?l?s???";

    snprintf(text, 11, "%c%c%c%c%c%c%c%c%c%c", kind[mode >> 12 & 15], mode & 0400 ? 'r' : '-', mode & 0200 ? 'w' : '-',
             mode & 04000 ? (mode & 0100 ? 's' : 'S') : mode & 0100 ? 'x' : '-', mode & 040 ? 'r' : '-',
             mode & 020 ? 'w' : '-', mode & 02000 ? (mode & 010 ? 's' : 'S') : mode & 010 ? 'x' : '-',
             mode & 04 ? 'r' : '-', mode & 02 ? 'w' : '-',
             mode & 01000 ? (mode & 01 ? 't' : 'T') : mode & 01 ? 'x' : '-');
}

static json_t *text(const char *s)
{
    json_t *j = json_string(s);

    return j ? j : json_stringn_nocheck("?", 1);      /* names that are not UTF-8 */
}

struct listing { struct fs *fs; json_t *rows; struct hv_error *e; const char *image; };

static int add_row(struct listing *l, const char *name, const struct fs_stat *st, const char *target)
{
    char mode[11], time[40];

    if (json_array_size(l->rows) >= ROWS_MAX) {
        return -E2BIG;
    }
    bool device = S_ISCHR(st->mode) || S_ISBLK(st->mode);

    mode_text(st->mode, mode);
    json_t *row = json_pack("{s:o s:s s:s s:i s:I s:I s:I s:I s:o s:s s:o}", "name", text(name), "type",
                            type_word(st->mode), "mode", mode, "permissions", (int)(st->mode & 07777), "links",
                            (json_int_t)st->links, "uid", (json_int_t)st->uid, "gid", (json_int_t)st->gid, "size",
                            (json_int_t)st->size, "device",
                            device ? json_sprintf("%u:%u", st->major, st->minor) : json_null(), "modified",
                            format_time_utc((uint64_t)MAX(st->mtime.s, (int64_t)0) * NS_PER_SEC, time, sizeof(time)),
                            "target", target ? text(target) : json_null());
    return row && json_array_append_new(l->rows, row) == 0 ? 0 : -ENOMEM;
}

static int row_of(struct listing *l, const char *name, uint64_t ino)
{
    char target[FS_PATH_MAX];
    struct fs_stat st;
    int r = l->fs->ops->stat(l->fs, ino, &st);
    bool link = r == 0 && S_ISLNK(st.mode);

    if (link && l->fs->ops->readlink(l->fs, ino, target, sizeof(target)) < 0) {
        hv_strlcpy(target, "?", sizeof(target));
    }
    return r < 0 ? r : add_row(l, name, &st, link ? target : NULL);
}

static int one_entry(void *arg, const struct fs_entry *en)
{
    struct listing *l = arg;
    int r = row_of(l, en->name, en->ino);

    if (r == -EUCLEAN) {                             /* a broken inode must not hide the others */
        struct fs_stat st = { .mode = en->mode };
        r = add_row(l, en->name, &st, NULL);
    }
    return r;
}

static int tree_add(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e)
{
    struct listing *l = arg;
    uint64_t ino;
    int r = strcmp(f->path, "/") == 0 ? 0 : fs_walk(l->fs, f->path, false, &ino);

    if (r == 0 && strcmp(f->path, "/") != 0) {
        r = row_of(l, f->path + 1, ino);
    }
    return r < 0 ? hv_fail_errno(e, -r, f->path, "cannot read") : 0;
}

static const char *show_name(const json_t *row, const json_t *v, char *buf, size_t size)
{
    const char *target = json_string_value(json_object_get(row, "target"));

    if (!target) {
        return NULL;
    }
    snprintf(buf, size, "%s -> %s", json_string_value(v), target);
    return buf;
}

static const char *show_size(const json_t *row, const json_t *v, char *buf, size_t size)
{
    const char *device = json_string_value(json_object_get(row, "device"));

    if (device) {
        hv_strlcpy(buf, device, size);
        return buf;
    }
    if (json_integer_value(v) < 10240) {             /* exact where it is short */
        snprintf(buf, size, "%lld", (long long)json_integer_value(v));
        return buf;
    }
    return NULL;
}

static const struct cli_column ls_columns[] = {
    {"name", .help = "its name; of a link, where it points", .show = show_name},
    {"type", .help = "file, folder, link, char, block, fifo, socket"},
    {"mode", .help = "kind and permissions"},
    {"permissions", .unit = CLI_UNIT_NUMBER, .help = "permissions as a number"},
    {"links", .unit = CLI_UNIT_NUMBER, .help = "how many names it has"},
    {"uid", .unit = CLI_UNIT_NUMBER, .help = "owner"},
    {"gid", .unit = CLI_UNIT_NUMBER, .help = "group"},
    {"size", .unit = CLI_UNIT_SIZE, .help = "bytes; of a device, its numbers", .show = show_size},
    {"device", .help = "major:minor"},
    {"modified", .unit = CLI_UNIT_TIME, .help = "when the content changed"},
    {"target", .help = "where a link points"},
    {0},
};
static const struct cli_columns ls_table = {
    .col = ls_columns, .defaults = "mode,uid,gid,size,modified,name", .sort = "name", .name = "name",
};

static int list_into(struct listing *l, const char *path, bool recursive, struct hv_error *e)
{
    const char *base = strrchr(path, '/');
    struct fs_stat st;
    uint64_t ino;
    int r = fs_walk(l->fs, path, true, &ino);

    if (r == -ENOENT) {                              /* a link to nowhere is a file, too */
        r = fs_walk(l->fs, path, false, &ino);
    }
    if (r == 0) {
        r = l->fs->ops->stat(l->fs, ino, &st);
    }
    if (r == 0 && !S_ISDIR(st.mode)) {
        r = row_of(l, base && base[1] ? base + 1 : path, ino);
    } else if (r == 0 && recursive) {
        struct listing sub = *l;
        struct build_sink sink = { .add = tree_add, .arg = &sub };
        uint64_t root;
        r = fs_walk(l->fs, "/", false, &root);
        if (r == 0 && root == ino) {
            return files_walk(l->fs, ino, true, &sink, l->image, e);
        }
        return hv_fail(e, HV_UNSUPPORTED, path, "--recursive lists the whole file system only");
    } else if (r == 0) {
        r = l->fs->ops->list(l->fs, ino, one_entry, l);
    }
    return r < 0 ? hv_fail_errno(e, -r, l->image, "%s", path) : 0;
}

static int ls(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    struct image_path at;
    struct image im;
    int r = cli_printer_init(&p, c, &ls_table, CLI_FMT_TABLE, e);

    if (r) {
        cli_printer_fini(&p);
        return r < 0 ? r : 0;
    }
    image_path_parse(c->args[0], true, &at);
    if (c->n_args > 1) {
        at.path = c->args[1];
    }
    r = image_open(c, &at, false, &im, e);
    if (r == 0) {
        struct listing l = { .fs = im.fs, .rows = json_array(), .image = at.image };
        r = list_into(&l, at.path ? at.path : "/", cli_has(c, "recursive"), e);
        if (r == 0) {
            cli_print_rows(&p, l.rows, false);
        }
        json_decref(l.rows);
        image_close(&im, at.image, NULL);
    }
    cli_printer_fini(&p);
    return r;
}

/* ---- cat ---- */

static int cat_file(struct cli_call *c, struct fs *fs, const char *path, uint8_t *buf, struct hv_error *e)
{
    uint64_t ino, at = 0;
    size_t n = 0;
    int r = fs_walk(fs, path, true, &ino);

    do {
        if (r == 0) {
            r = fs->ops->read(fs, ino, at, buf, READ_SIZE, &n);
        }
        if (r < 0) {
            return hv_fail_errno(e, -r, path, "cannot read");
        }
        if (n && fwrite(buf, 1, n, c->out) != n) {
            return hv_fail_errno(e, errno ? errno : EIO, NULL, "cannot write the output");
        }
        at += n;
    } while (n);
    return 0;
}

static int cat(struct cli_call *c, struct hv_error *e)
{
    struct image_path at;
    struct image im;
    hv_autofree uint8_t *buf = hv_alloc(READ_SIZE);
    int r;

    if (!buf) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    image_path_parse(c->args[0], true, &at);
    if (!at.path && c->n_args < 2) {
        r = hv_fail(e, HV_USAGE, c->args[0], "which file?");
        hv_hint(e, "vhdtool cat %s /etc/fstab", c->args[0]);
        return r;
    }
    r = image_open(c, &at, false, &im, e);
    if (r < 0) {
        return r;
    }
    if (at.path) {
        r = cat_file(c, im.fs, at.path, buf, e);
    }
    for (unsigned i = 1; i < c->n_args && r == 0; i++) {
        r = cat_file(c, im.fs, c->args[i], buf, e);
    }
    image_close(&im, at.image, NULL);
    return r;
}

static const struct cli_arg ls_args[] = {
    {"PATH[:N]", CLI_FILE, .values = DISK_GLOB, .help = "the disk, and which partition of it"},
    {"FILE", CLI_STRING, CLI_OPTIONAL, .help = "a folder or file in it; / if left out"}, {0}};
static const struct cli_arg cat_args[] = {
    {"PATH[:N]", CLI_FILE, .values = DISK_GLOB, .help = "the disk, and which partition of it"},
    {"FILE", CLI_STRING, CLI_OPTIONAL | CLI_REPEAT, .help = "files in it"}, {0}};

static const struct cli_option ls_options[] = {
    {.name = "recursive", .letter = 'r', .type = CLI_BOOL, .help = "folders with all that is in them"},
    OPT_FORMAT, {0}};
static const struct cli_option cat_options[] = {OPT_FORMAT, {0}};

const struct cli_command ls_commands[] = {
    {.noun = "ls", .help = "list files in a disk", .args = ls_args, .options = ls_options, .use = CLI_USE_LIST,
     .columns = &ls_table, .codes = CODE(NOT_FOUND) | CODE(UNSUPPORTED), .run = ls,
     .about = "Reads ext2, ext3, ext4, FAT and ISO 9660. Without N, the first ext4 is taken, else FAT. "
              "A disk in use can be looked at.",
     .examples = EXAMPLES({"vhdtool ls web.vhdx /etc", "without mounting it"},
                          {"vhdtool ls web.vhdx:1", "partition 1"}, {"vhdtool ls web.vhdx:/etc -o name", "names only"})},
    {0},
};
const struct cli_command cat_commands[] = {
    {.noun = "cat", .help = "print a file of a disk", .args = cat_args, .options = cat_options,
     .codes = CODE(NOT_FOUND) | CODE(UNSUPPORTED), .run = cat,
     .examples = EXAMPLES({"vhdtool cat web.vhdx /etc/fstab", "on stdout"},
                          {"vhdtool cat web.vhdx:1:/loader/loader.conf", "from the ESP"})},
    {0},
};
