/* Files of an image as a source: parents before children, names sorted, hard links by inode. */
#include <errno.h>
#include <sys/stat.h>

#include "hv/base/strbuf.h"
#include "vhdtool/files.h"

#define READ_SIZE (1 * MIB)

struct name { char *name; uint64_t ino; };
struct level { struct name *names; size_t n, at, path_len; uint64_t ino; };

struct linked { uint64_t ino; char *path; };

struct walk {
    struct fs *fs;
    const struct build_sink *sink;
    const char *object;
    struct level level[FS_DEPTH_MAX];
    struct linked *linked;
    size_t n_linked;
    uint8_t *buf;
};

static int gather_name(void *arg, const struct fs_entry *en)
{
    struct level *l = arg;
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
        r = is_zero(w->buf, n) ? 0 : w->sink->data(w->sink->arg, at, w->buf, n, e);
        if (r < 0) {
            return r;
        }
        at += n;
    }
    return 0;
}

/* The first name of this inode, or NULL; then it is remembered. */
static const char *first_name(struct walk *w, uint64_t ino, const char *path)
{
    for (size_t i = 0; i < w->n_linked; i++) {
        if (w->linked[i].ino == ino) {
            return w->linked[i].path;
        }
    }
    struct linked *grown = hv_realloc_array(w->linked, w->n_linked + 1, sizeof(*grown));
    if (grown) {
        w->linked = grown;
        grown[w->n_linked] = (struct linked){ ino, hv_strdup(path) };
        w->n_linked += grown[w->n_linked].path != NULL;
    }
    return NULL;
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
    if (!*ret_dir && st.links > 1) {
        const char *first = first_name(w, ino, path);
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

static int enter(struct walk *w, unsigned depth, uint64_t ino, size_t path_len, const char *path, struct hv_error *e)
{
    if (depth >= FS_DEPTH_MAX) {
        return hv_fail_errno(e, ELOOP, path, "too many folders in each other");
    }
    struct level *l = &w->level[depth];
    *l = (struct level){ .ino = ino, .path_len = path_len };
    for (unsigned i = 0; i < depth; i++) {
        if (w->level[i].ino == ino) {
            return hv_fail_errno(e, ELOOP, path, "a folder that contains itself");
        }
    }
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
        for (size_t i = 0; i < w->level[d].n; i++) {
            free(w->level[d].names[i].name);
        }
        free(w->level[d].names);
    }
    for (size_t i = 0; i < w->n_linked; i++) {
        free(w->linked[i].path);
    }
    free(w->linked);
    free(w->buf);
    return r;
}
