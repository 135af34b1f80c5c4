/*
 * Two trees are walked into lists sorted by path, and the lists merged. What both have is compared
 * field by field, contents last and only where all sizes agree.
 */
#include "vhdtool/diff_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hv/base/strbuf.h"

#define PIECE     (256 * KIB)
#define FILES_MAX 4000000u           /* of one tree; they are in memory */

/* ---- one tree ---- */

struct file { char *path, *target; uint64_t size; struct ext4_file f; };

struct tree {
    struct file *files;
    size_t n, cap;
};

static int add(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e)
{
    struct tree *t = arg;

    (void)data;
    if (t->n >= FILES_MAX) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "more than %u files", FILES_MAX);
    }
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 1024;
        struct file *grown = hv_realloc_array(t->files, cap, sizeof(*grown));

        if (!grown) {
            return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
        }
        t->files = grown;
        t->cap = cap;
    }
    struct file *x = &t->files[t->n];
    *x = (struct file){ .path = hv_strdup(f->path), .target = f->target ? hv_strdup(f->target) : NULL, .size = size, .f = *f };
    if (!x->path || (f->target && !x->target)) {
        free(x->path);
        free(x->target);
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    t->n++;
    return 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->path, ((const struct file *)b)->path);
}

static void tree_fini(struct tree *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->files[i].path);
        free(t->files[i].target);
    }
    free(t->files);
    *t = (struct tree){ 0 };
}

static int tree_read(struct fs *fs, const char *name, struct tree *t, struct hv_error *e)
{
    struct build_sink sink = { .add = add, .arg = t };
    int r = files_walk(fs, fs->ops->root, true, &sink, name, e);

    if (r == 0 && t->n) {
        qsort(t->files, t->n, sizeof(*t->files), by_path);
    }
    return r;
}

/* ---- what both have ---- */

struct pair {
    struct fs *fs[2];
    const char *name[2];
    unsigned part;
    json_t *rows;
    uint8_t *buf[2];
};

static int put_row(struct pair *p, const char *change, const char *path, const char *what)
{
    json_t *text = path ? json_string(path) : json_null();
    json_t *row = json_pack("{s:s s:i s:o s:o}", "change", change, "partition", (int)p->part, "path",
                            text ? text : json_string("?"), "what", what ? json_string(what) : json_null());

    return row && json_array_append_new(p->rows, row) == 0 ? 0 : -ENOMEM;
}

/* 1: the same; 0: not. */
static int same_content(struct pair *p, const struct file *a, const struct file *b)
{
    uint64_t ino[2], off = 0;
    int r = fs_walk(p->fs[0], a->path, false, &ino[0]);

    r = r < 0 ? r : fs_walk(p->fs[1], b->path, false, &ino[1]);
    while (r == 0 && off < a->size) {
        size_t n[2] = { 0, 0 };

        for (int i = 0; i < 2 && r == 0; i++) {
            r = p->fs[i]->ops->read(p->fs[i], ino[i], off, p->buf[i], (size_t)MIN((uint64_t)PIECE, a->size - off), &n[i]);
        }
        if (r < 0) {
            return r;
        }
        if (n[0] != n[1] || n[0] == 0 || memcmp(p->buf[0], p->buf[1], n[0]) != 0) {
            return 0;
        }
        off += n[0];
    }
    return r < 0 ? r : 1;
}

struct attrs { struct strbuf text; };

static int add_attr(void *arg, const char *name, const void *value, size_t len)
{
    struct attrs *a = arg;

    strbuf_addf(&a->text, "%s %zu ", name, len);
    for (size_t i = 0; i < len; i++) {
        strbuf_addf(&a->text, "%02x", ((const uint8_t *)value)[i]);
    }
    strbuf_addc(&a->text, '\n');
    return a->text.err ? -ENOMEM : 0;
}

/* Lines sorted: the order of attributes means nothing. */
static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int attr_lines(struct fs *fs, const char *path, struct attrs *a, char ***ret, size_t *ret_n)
{
    uint64_t ino;
    size_t n = 0;
    int r = fs_walk(fs, path, false, &ino);

    *ret = NULL;
    *ret_n = 0;
    r = r < 0 || !fs->ops->xattrs ? r : fs->ops->xattrs(fs, ino, add_attr, a);
    if (r < 0 || !a->text.len) {
        return r;
    }
    for (size_t i = 0; i < a->text.len; i++) {
        n += a->text.buf[i] == '\n';
    }
    *ret = hv_alloc_array(n + 1, sizeof(**ret));
    if (!*ret) {
        return -ENOMEM;
    }
    for (char *line = a->text.buf, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        (*ret)[(*ret_n)++] = line;
    }
    qsort(*ret, *ret_n, sizeof(**ret), by_text);
    return 0;
}

static int same_attrs(struct pair *p, const char *path)
{
    struct attrs a[2] = { 0 };
    char **lines[2] = { NULL, NULL };
    size_t n[2] = { 0, 0 };
    int r = 0;

    for (int i = 0; i < 2 && r >= 0; i++) {
        r = attr_lines(p->fs[i], path, &a[i], &lines[i], &n[i]);
    }
    if (r >= 0) {
        r = n[0] == n[1];
        for (size_t i = 0; r == 1 && i < n[0]; i++) {
            r = strcmp(lines[0][i], lines[1][i]) == 0;
        }
    }
    for (int i = 0; i < 2; i++) {
        free(lines[i]);
        strbuf_fini(&a[i].text);
    }
    return r;
}

static bool same_text(const char *a, const char *b)
{
    return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static int compare_files(struct pair *p, const struct file *a, const struct file *b)
{
    strbuf_auto what = { 0 };
    bool type = (a->f.mode & S_IFMT) != (b->f.mode & S_IFMT), content = false;
    int same = 1;

#define DIFFERS(condition, word)                                            \
    do {                                                                    \
        if (condition) {                                                    \
            strbuf_addf(&what, "%s%s", what.len ? "," : "", word);          \
        }                                                                   \
    } while (0)
    DIFFERS(type, "type");
    DIFFERS((a->f.mode & 07777) != (b->f.mode & 07777), "mode");
    DIFFERS(a->f.uid != b->f.uid || a->f.gid != b->f.gid, "owner");
    if (!type) {
        DIFFERS(a->f.major != b->f.major || a->f.minor != b->f.minor, "device");
        DIFFERS(a->f.hardlink != b->f.hardlink || !same_text(a->target, b->target), "target");
        DIFFERS(a->size != b->size, "size");
        if (S_ISREG(a->f.mode) && !a->f.hardlink && !b->f.hardlink && a->size == b->size) {
            same = same_content(p, a, b);
            if (same < 0) {
                return same;
            }
            content = !same;
        }
        DIFFERS(content, "content");
    }
    same = same_attrs(p, a->path);
    if (same < 0) {
        return same;
    }
    DIFFERS(!same, "attributes");
    DIFFERS(a->f.mtime.s != b->f.mtime.s || a->f.mtime.ns != b->f.mtime.ns, "time");
#undef DIFFERS
    return what.err ? -ENOMEM : what.len ? put_row(p, "changed", a->path, what.buf) : 0;
}

static int merge_trees(struct pair *p, const struct tree *a, const struct tree *b, struct hv_error *e)
{
    size_t i = 0, k = 0;
    int r = 0;

    while (r == 0 && (i < a->n || k < b->n)) {
        int order = i == a->n ? 1 : k == b->n ? -1 : strcmp(a->files[i].path, b->files[k].path);

        if (order < 0) {
            r = put_row(p, "removed", a->files[i++].path, NULL);
        } else if (order > 0) {
            r = put_row(p, "added", b->files[k++].path, NULL);
        } else {
            r = compare_files(p, &a->files[i], &b->files[k]);
            if (r < 0) {
                return hv_fail_errno(e, -r, p->name[0], "cannot compare %s", a->files[i].path);
            }
            i++;
            k++;
        }
    }
    return r < 0 ? hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory") : 0;
}

/* ---- partitions ---- */

struct place { uint64_t off, len; bool there; enum probe_kind kind; };

static int find_place(struct disk *d, const struct partition_table *t, unsigned part, struct place *ret, struct hv_error *e)
{
    const struct partition *p = part ? partition_find(t, part) : NULL;
    struct probe pr;
    int r;

    *ret = (struct place){ .off = p ? p->offset : 0, .len = p ? p->len : part ? 0 : disk_size(d) };
    ret->there = part ? p && !p->extended : t->scheme == PARTITION_NONE;
    if (!ret->there) {
        return 0;
    }
    r = probe_read(d, ret->off, ret->len, &pr);
    ret->kind = r < 0 ? PROBE_NONE : pr.kind;
    return r < 0 ? hv_fail_errno(e, -r, NULL, "cannot read") : 0;
}

static bool readable(enum probe_kind k)
{
    return k == PROBE_EXT || k == PROBE_FAT || k == PROBE_ISO;
}

static int open_place(struct disk *d, const struct place *x, struct fs **ret, struct hv_error *e)
{
    return x->kind == PROBE_ISO ? iso_open(d, x->off, x->len, ret, e) : fs_open(d, x->off, x->len, false, ret, e);
}

static int compare_bytes(struct pair *p, struct disk *const d[2], const struct place x[2])
{
    if (x[0].len != x[1].len) {
        return put_row(p, "changed", NULL, "size");
    }
    for (uint64_t off = 0; off < x[0].len;) {
        struct disk_extent a, b;
        uint64_t n;
        int r = disk_map(d[0], x[0].off + off, x[0].len - off, &a);

        r = r < 0 ? r : disk_map(d[1], x[1].off + off, x[0].len - off, &b);
        if (r < 0) {
            return r;
        }
        n = MIN(a.len, b.len);
        if (a.where == DISK_DATA || b.where == DISK_DATA) {
            n = MIN(n, (uint64_t)PIECE);
            r = disk_read(d[0], x[0].off + off, p->buf[0], n);
            r = r < 0 ? r : disk_read(d[1], x[1].off + off, p->buf[1], n);
            if (r < 0) {
                return r;
            }
            if (memcmp(p->buf[0], p->buf[1], n) != 0) {
                return put_row(p, "changed", NULL, "content");
            }
        }
        off += n;
    }
    return 0;
}

static int compare_part(struct cli_call *c, struct pair *p, struct disk *const d[2], const struct place x[2],
                        struct hv_error *e)
{
    struct tree t[2] = { 0 };
    int r = 0;

    if (!x[0].there || !x[1].there) {
        return put_row(p, x[0].there ? "removed" : "added", NULL, "partition");
    }
    if (x[0].kind != x[1].kind || !readable(x[0].kind)) {
        r = x[0].kind != x[1].kind ? put_row(p, "changed", NULL, "type") : compare_bytes(p, d, x);
        return r < 0 ? hv_fail_errno(e, -r, p->name[0], "cannot compare with %s", p->name[1]) : 0;
    }
    for (int i = 0; i < 2 && r == 0; i++) {
        r = open_place(d[i], &x[i], &p->fs[i], e);
        if (r == 0 && p->fs[i]->note[0]) {
            cli_warn(c, p->name[i], "%s", p->fs[i]->note);
        }
        r = r < 0 ? r : tree_read(p->fs[i], p->name[i], &t[i], e);
        if (r < 0 && !e->object[0]) {
            hv_strlcpy(e->object, p->name[i], sizeof(e->object));
        }
    }
    r = r < 0 ? r : merge_trees(p, &t[0], &t[1], e);
    for (int i = 0; i < 2; i++) {
        tree_fini(&t[i]);
        fs_close(p->fs[i]);
        p->fs[i] = NULL;
    }
    return r;
}

int diff_files(struct cli_call *c, struct disk *a, const char *a_name, struct disk *b, const char *b_name, json_t *rows,
               struct hv_error *e)
{
    struct disk *const d[2] = { a, b };
    struct partition_table t[2] = { 0 };
    struct pair p = { .name = { a_name, b_name }, .rows = rows };
    unsigned last = 0;
    int r = 0;

    for (int i = 0; i < 2 && r == 0; i++) {
        p.buf[i] = hv_alloc(PIECE);
        r = p.buf[i] ? partition_read(d[i], &t[i], e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
        for (unsigned k = 0; r == 0 && k < t[i].n; k++) {
            last = MAX(last, t[i].p[k].number);
        }
        if (r < 0 && !e->object[0]) {
            hv_strlcpy(e->object, p.name[i], sizeof(e->object));
        }
    }
    for (unsigned part = 0; r == 0 && part <= last; part++) {
        struct place x[2];

        p.part = part;
        for (int i = 0; i < 2 && r == 0; i++) {
            r = find_place(d[i], &t[i], part, &x[i], e);
        }
        if (r == 0 && (x[0].there || x[1].there)) {
            r = compare_part(c, &p, d, x, e);
        }
    }
    for (int i = 0; i < 2; i++) {
        partition_table_fini(&t[i]);
        free(p.buf[i]);
    }
    return r;
}
