/*
 * A folder as a source: sorted by name, hard links found by device and inode, attributes and
 * holes kept. Owners are what stat(2) says (fakeroot may say what it likes).
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "vhdtool/build.h"

#define COPY    (256 * KIB)
#define BUCKETS 4096u

struct seen { struct seen *next; dev_t dev; ino_t ino; char path[]; };

struct walk {
    struct build_source *s;
    const struct build_sink *sink;
    size_t root_len;
    struct seen *bucket[BUCKETS];
    uint8_t *buf;
};

static int compare(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* The path under which this file came before, or NULL; then it is remembered. */
static const char *first_name(struct walk *w, const struct stat *st, const char *path)
{
    struct seen **at = &w->bucket[(st->st_ino ^ st->st_dev) % BUCKETS], *p;

    for (p = *at; p; p = p->next) {
        if (p->ino == st->st_ino && p->dev == st->st_dev) {
            return p->path;
        }
    }
    p = hv_alloc(sizeof(*p) + strlen(path) + 1);
    if (p) {
        p->dev = st->st_dev;
        p->ino = st->st_ino;
        memcpy(p->path, path, strlen(path) + 1);
        p->next = *at;
        *at = p;
    }
    return NULL;
}

/* Of /proc and /sys: they say 0 or 4096 bytes, and have what there is to tell. Others as small lose no hole worth it. */
static bool says_no_size(const struct stat *st)
{
    return S_ISREG(st->st_mode) && st->st_blocks == 0 && st->st_size <= 4096;
}

static int to_end(struct walk *w, const char *path, struct hv_error *e)
{
    hv_autoclose int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
    uint64_t at = 0;
    ssize_t n;

    if (fd < 0) {
        return hv_fail_errno(e, errno, path, "cannot open");
    }
    while ((n = read(fd, w->buf, COPY)) != 0) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        int r = n < 0 ? hv_fail_errno(e, errno, path, "cannot read") : w->sink->data(w->sink->arg, at, w->buf, (size_t)n, e);
        if (r < 0) {
            return r;
        }
        at += (uint64_t)n;
    }
    return 0;
}

static int content(struct walk *w, const char *path, uint64_t size, struct hv_error *e)
{
    hv_autoclose int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
    off_t at = 0;

    if (fd < 0) {
        return hv_fail_errno(e, errno, path, "cannot open");
    }
    while ((uint64_t)at < size) {
        off_t data = lseek(fd, at, SEEK_DATA), hole;
        if (data < 0 && errno == ENXIO) {
            break;                           /* a hole to the end */
        }
        if (data < 0) {
            data = at;
            hole = (off_t)size;
        } else {
            hole = lseek(fd, data, SEEK_HOLE);
            hole = hole < 0 ? (off_t)size : hole;
        }
        for (at = data; at < hole;) {
            ssize_t n = pread(fd, w->buf, (size_t)MIN((uint64_t)COPY, (uint64_t)(hole - at)), at);
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n < 0) {
                return hv_fail_errno(e, errno, path, "cannot read");
            }
            if (n == 0) {
                return 0;                    /* it became shorter */
            }
            int r = w->sink->data(w->sink->arg, (uint64_t)at, w->buf, (size_t)n, e);
            if (r < 0) {
                return r;
            }
            at += n;
            if (w->s->progress) {
                *w->s->progress += (uint64_t)n;
                progress_update(w->s->bar, *w->s->progress, w->s->total);
            }
        }
    }
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int attributes(struct walk *w, const char *path, struct hv_error *e)
{
    char list[65536];
    const char *name[1024];
    ssize_t len = llistxattr(path, list, sizeof(list));
    size_t n = 0;

    if (len < 0) {
        return errno == ENOTSUP || errno == EOPNOTSUPP ? 0 : hv_fail_errno(e, errno, path, "cannot read attributes");
    }
    for (ssize_t at = 0; at < len && n < ARRAY_SIZE(name); at += (ssize_t)strlen(list + at) + 1) {
        if (strncmp(list + at, "system.", 7) != 0 || strncmp(list + at, "system.posix_acl_", 17) == 0) {
            name[n++] = list + at;
        }
    }
    qsort(name, n, sizeof(name[0]), compare_names);
    for (size_t i = 0; i < n; i++) {
        ssize_t got = lgetxattr(path, name[i], w->buf, COPY);
        if (got < 0) {
            return hv_fail_errno(e, errno, path, "cannot read attribute %s", name[i]);
        }
        int r = w->sink->xattr(w->sink->arg, name[i], w->buf, (size_t)got, e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int one(struct walk *w, const FTSENT *en, struct hv_error *e)
{
    const struct stat *st = en->fts_statp;
    const char *path = en->fts_path + w->root_len;
    char target[FS_PATH_MAX];
    struct ext4_file f = {
        .path = *path ? path : "/",
        .mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
        .mtime = { .s = st->st_mtim.tv_sec, .ns = (uint32_t)st->st_mtim.tv_nsec },
    };

    if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
        f.major = major(st->st_rdev);
        f.minor = minor(st->st_rdev);
    }
    if (S_ISLNK(st->st_mode)) {
        ssize_t n = readlink(en->fts_accpath, target, sizeof(target) - 1);
        if (n < 0) {
            return hv_fail_errno(e, errno, en->fts_path, "cannot read the link");
        }
        target[n] = '\0';
        f.target = target;
    }
    if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) {
        const char *first = first_name(w, st, path);
        if (first) {
            f.target = first;
            f.hardlink = true;
            return w->sink->add(w->sink->arg, &f, 0, false, e);
        }
    }
    const bool no_size = w->sink->to_end && says_no_size(st);
    uint64_t size = S_ISREG(st->st_mode) && !no_size ? (uint64_t)st->st_size : 0;
    int r = w->sink->add(w->sink->arg, &f, size, S_ISREG(st->st_mode), e);
    if (r == 0 && S_ISREG(st->st_mode) && w->sink->want_data) {
        r = no_size ? to_end(w, en->fts_accpath, e) : content(w, en->fts_accpath, size, e);
    }
    return r < 0 ? r : attributes(w, en->fts_accpath, e);
}

int build_folder_walk(struct build_source *s, const struct build_sink *sink, struct hv_error *e)
{
    hv_autofree struct walk *w = hv_alloc(sizeof(*w));
    hv_autofree char *root = hv_strdup(s->name);
    char *roots[2] = { root, NULL };
    FTS *fts;
    FTSENT *en;
    int r = 0;

    if (!w || !root || !(w->buf = hv_alloc(COPY))) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    for (size_t n = strlen(root); n > 1 && root[n - 1] == '/'; n--) {
        root[n - 1] = '\0';
    }
    w->s = s;
    w->sink = sink;
    w->root_len = strlen(root);
    fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, compare);
    if (!fts) {
        free(w->buf);
        return hv_fail_errno(e, errno, s->name, "cannot open");
    }
    while (r == 0 && (errno = 0, en = fts_read(fts))) {
        if (en->fts_info == FTS_DP || en->fts_info == FTS_DOT) {
            continue;
        }
        if (en->fts_info == FTS_DNR || en->fts_info == FTS_ERR || en->fts_info == FTS_NS || en->fts_info == FTS_DC) {
            r = hv_fail_errno(e, en->fts_errno ? en->fts_errno : ELOOP, en->fts_path, "cannot read");
            break;
        }
        r = one(w, en, e);
    }
    if (r == 0 && errno) {
        r = hv_fail_errno(e, errno, s->name, "cannot read");
    }
    fts_close(fts);
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct seen *p = w->bucket[i], *next; p; p = next) {
            next = p->next;
            free(p);
        }
    }
    free(w->buf);
    return r;
}
