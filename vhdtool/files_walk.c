/*
 * Files of an image as a source: parents before children, names sorted, hard links by inode. An
 * image that lies ends: a folder is entered once, and there is a bound on names.
 */
#include <errno.h>
#include <sys/stat.h>

#include "hv/base/strbuf.h"
#include "vhdtool/files.h"

#define READ_SIZE (1 * MIB)
#define NAMES_MAX 20000000u              /* in all */
#define FOLDER_MAX 4000000u              /* in one folder; they are in memory */

struct name { char *name; uint64_t ino; };
struct level { struct name *names; size_t n, at, path_len; };

/* Inodes that were met: folders, and files with several names. */
struct met { uint64_t ino; char *path; };

struct walk {
    struct fs *fs;
    const struct build_sink *sink;
    const char *object;
    struct level level[FS_DEPTH_MAX];
    struct met *met;                     /* open addressing; path NULL: free */
    size_t n_met, met_size, names;
    uint8_t *buf;
};

static int gather_name(void *arg, const struct fs_entry *en)
{
    struct level *l = arg;

    if (l->n >= FOLDER_MAX) {
        return -E2BIG;
    }
    struct name *grown = hv_realloc_array(l->names, l->n + 1, sizeof(*grown));

    if (!grown) {
        return -ENOMEM;
    }
    l->names = grown;
    grown[l->n] = (struct name){ hv_strdup(en->name), en->ino };
    return grown[l->n].name ? (l->n++, 0) : -ENOMEM;
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->name, ((const struct name *)b)->name);
}

static int content(struct walk *w, uint64_t ino, uint64_t size, struct hv_error *e)
{
    uint64_t at = 0;

    while (at < size) {
        size_t n;
        int r = w->fs->ops->read(w->fs, ino, at, w->buf, READ_SIZE, &n);
        if (r < 0) {
            return hv_fail_errno(e, -r, w->object, "cannot read");
        }
        if (n == 0) {
            break;
        }
        r = hv_is_zero(w->buf, n) ? 0 : w->sink->data(w->sink->arg, at, w->buf, n, e);
        if (r < 0) {
            return r;
        }
        at += n;
    }
    return 0;
}

static struct met *met_slot(struct met *met, size_t size, uint64_t ino)
{
    size_t i = (size_t)(ino * 0x9e3779b97f4a7c15u) & (size - 1);

    while (met[i].path && met[i].ino != ino) {
        i = (i + 1) & (size - 1);
    }
    return &met[i];
}

/* The path under which this inode came first, NULL in *ret_first if that is now. */
static int meet(struct walk *w, uint64_t ino, const char *path, const char **ret_first)
{
    if (w->n_met * 2 >= w->met_size) {
        size_t size = w->met_size ? w->met_size * 2 : 1024;
        struct met *grown = hv_alloc_array(size, sizeof(*grown));
        if (!grown) {
            return -ENOMEM;
        }
        for (size_t i = 0; i < w->met_size; i++) {
            if (w->met[i].path) {
                *met_slot(grown, size, w->met[i].ino) = w->met[i];
            }
        }
        free(w->met);
        w->met = grown;
        w->met_size = size;
    }
    struct met *m = met_slot(w->met, w->met_size, ino);
    *ret_first = m->path;
    if (!m->path) {
        *m = (struct met){ ino, hv_strdup(path) };
        w->n_met += m->path != NULL;
        return m->path ? 0 : -ENOMEM;
    }
    return 0;
}

static int one(struct walk *w, uint64_t ino, const char *path, bool *ret_dir, struct hv_error *e)
{
    char target[FS_PATH_MAX];
    struct fs_stat st;
    int r = w->fs->ops->stat(w->fs, ino, &st);

    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot read");
    }
    struct ext4_file f = { .path = path, .mode = st.mode, .uid = st.uid, .gid = st.gid, .major = st.major,
                           .minor = st.minor, .mtime = st.mtime };
    *ret_dir = S_ISDIR(st.mode);
    if (S_ISLNK(st.mode)) {
        r = w->fs->ops->readlink(w->fs, ino, target, sizeof(target));
        if (r < 0) {
            return hv_fail_errno(e, -r, path, "cannot read the link");
        }
        f.target = target;
    }
    if (++w->names > NAMES_MAX) {
        return hv_fail_errno(e, E2BIG, w->object, "too many files");
    }
    const char *first = NULL;
    if (*ret_dir || st.links > 1) {
        r = meet(w, ino, path, &first);
        if (r < 0) {
            return hv_fail_errno(e, -r, path, "cannot read");
        }
        if (first && *ret_dir) {
            hv_fail(e, HV_FAILED, w->object, "%s and %s are the same folder", first, path);
            return -EUCLEAN;
        }
        if (first) {
            f.target = first;
            f.hardlink = true;
            return w->sink->add(w->sink->arg, &f, 0, false, e);
        }
    }
    uint64_t size = S_ISREG(st.mode) ? st.size : 0;
    r = w->sink->add(w->sink->arg, &f, size, S_ISREG(st.mode), e);
    return r == 0 && S_ISREG(st.mode) && w->sink->want_data ? content(w, ino, size, e) : r;
}

static void leave(struct level *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->names[i].name);
    }
    free(l->names);
    *l = (struct level){ .n = 0 };
}

static int enter(struct walk *w, unsigned depth, uint64_t ino, size_t path_len, const char *path, struct hv_error *e)
{
    if (depth >= FS_DEPTH_MAX) {
        return hv_fail_errno(e, ELOOP, path, "too many folders in each other");
    }
    struct level *l = &w->level[depth];
    *l = (struct level){ .path_len = path_len };
    int r = w->fs->ops->list(w->fs, ino, gather_name, l);
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot read the folder");
    }
    if (l->n) {
        qsort(l->names, l->n, sizeof(l->names[0]), compare);
    }
    return 0;
}

static int tree(struct walk *w, uint64_t ino, bool recursive, struct hv_error *e)
{
    strbuf_auto path = { 0 };
    unsigned depth = 0;
    bool dir;

    strbuf_adds(&path, "/");
    int r = one(w, ino, path.buf ? path.buf : "/", &dir, e);
    if (r < 0 || !dir || !recursive) {
        return r;
    }
    r = enter(w, 0, ino, 0, "/", e);
    while (r == 0) {
        struct level *l = &w->level[depth];
        if (l->at == l->n) {
            leave(l);
            if (depth-- == 0) {
                break;
            }
            continue;
        }
        struct name *n = &l->names[l->at++];
        path.len = l->path_len;
        strbuf_addc(&path, '/');
        strbuf_adds(&path, n->name);
        if (path.err || path.len >= FS_PATH_MAX) {
            return hv_fail_errno(e, path.err ? ENOMEM : ENAMETOOLONG, w->object, "cannot read");
        }
        r = one(w, n->ino, path.buf, &dir, e);
        if (r == 0 && dir) {
            r = enter(w, depth + 1, n->ino, path.len, path.buf, e);
            depth += r == 0;
        }
    }
    return r;
}

int files_walk(struct fs *fs, uint64_t ino, bool recursive, const struct build_sink *sink, const char *name,
               struct hv_error *e)
{
    hv_autofree struct walk *w = hv_alloc(sizeof(*w));
    int r;

    if (!w || !(w->buf = hv_alloc(READ_SIZE))) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    w->fs = fs;
    w->sink = sink;
    w->object = name;
    r = tree(w, ino, recursive, e);
    for (unsigned d = 0; d < FS_DEPTH_MAX; d++) {
        leave(&w->level[d]);
    }
    for (size_t i = 0; i < w->met_size; i++) {
        free(w->met[i].path);
    }
    free(w->met);
    free(w->buf);
    return r;
}
