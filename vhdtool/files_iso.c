/*
 * ISO 9660 with Rock Ridge or Joliet through libarchive, which reads it as a stream: names are
 * gathered once, the content of a file is found by reading entries up to it again.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "vhdtool/files.h"

#define READ_SIZE (64 * KIB)
#define NODES_MAX 1000000u

struct node {
    uint32_t parent, first, next;        /* indexes; 0 for none in the last two */
    uint32_t entry;                      /* which entry of the stream holds the data; UINT32_MAX none */
    struct fs_stat st;
    char *name, *target;
};

struct iso {
    struct fs base;
    struct disk *disk;
    uint64_t off, len, at;
    uint8_t *buf;
    struct node *node;                   /* [0] is not used, [1] is the root */
    uint32_t n, cap;
    /* The stream, where the last read left it: */
    struct archive *a;
    uint32_t a_entry;                    /* entries taken so far */
    uint64_t a_pos;                      /* in the content of the last one */
};

static la_ssize_t on_read(struct archive *a, void *arg, const void **ret)
{
    struct iso *x = arg;
    uint64_t n = MIN((uint64_t)READ_SIZE, x->len - MIN(x->at, x->len));
    int r = n ? disk_read(x->disk, x->off + x->at, x->buf, n) : 0;

    if (r < 0) {
        archive_set_error(a, -r, "cannot read");
        return ARCHIVE_FATAL;
    }
    x->at += n;
    *ret = x->buf;
    return (la_ssize_t)n;
}

static la_int64_t on_skip(struct archive *a, void *arg, la_int64_t request)
{
    struct iso *x = arg;
    uint64_t n = request > 0 ? MIN((uint64_t)request, x->len - MIN(x->at, x->len)) : 0;

    x->at += n;
    return (la_int64_t)n;
}

static la_int64_t on_seek(struct archive *a, void *arg, la_int64_t off, int whence)
{
    struct iso *x = arg;
    int64_t base = whence == SEEK_CUR ? (int64_t)x->at : whence == SEEK_END ? (int64_t)x->len : 0, to;

    if (__builtin_add_overflow(base, (int64_t)off, &to) || to < 0) {
        return ARCHIVE_FATAL;
    }
    x->at = (uint64_t)to;
    return to;
}

static int start(struct iso *x)
{
    archive_read_free(x->a);
    x->at = 0;
    x->a_entry = 0;
    x->a = archive_read_new();
    if (!x->a) {
        return -ENOMEM;
    }
    archive_read_support_format_iso9660(x->a);
    archive_read_set_read_callback(x->a, on_read);
    archive_read_set_skip_callback(x->a, on_skip);
    archive_read_set_seek_callback(x->a, on_seek);
    archive_read_set_callback_data(x->a, x);
    return archive_read_open1(x->a) == ARCHIVE_OK ? 0 : -EUCLEAN;
}

/* ---- names ---- */

static int new_node(struct iso *x, uint32_t parent, const char *name, size_t len, uint32_t *ret)
{
    if (x->n >= NODES_MAX) {
        return -E2BIG;
    }
    if (x->n == x->cap) {
        uint32_t cap = x->cap ? x->cap * 2 : 256;
        struct node *grown = hv_realloc_array(x->node, cap, sizeof(*grown));
        if (!grown) {
            return -ENOMEM;
        }
        x->node = grown;
        x->cap = cap;
    }
    uint32_t i = x->n++;
    x->node[i] = (struct node){ .parent = parent, .entry = UINT32_MAX,
                                .st = { .ino = i, .mode = S_IFDIR | 0755, .links = 1 } };
    x->node[i].name = hv_alloc(len + 1);
    if (!x->node[i].name) {
        return -ENOMEM;
    }
    memcpy(x->node[i].name, name, len);
    if (i > 1) {
        x->node[i].next = x->node[parent].first;
        x->node[parent].first = i;
    }
    *ret = i;
    return 0;
}

static uint32_t find(const struct iso *x, uint32_t dir, const char *name, size_t len)
{
    for (uint32_t i = x->node[dir].first; i; i = x->node[i].next) {
        if (strlen(x->node[i].name) == len && memcmp(x->node[i].name, name, len) == 0) {
            return i;
        }
    }
    return 0;
}

/* The node of a path, made where it is missing. make false: 0 then. */
static int place(struct iso *x, const char *path, bool make, uint32_t *ret)
{
    uint32_t at = 1;

    for (const char *p = path;;) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        if (!len) {
            break;
        }
        if (len > FS_NAME_MAX || (len == 2 && p[0] == '.' && p[1] == '.')) {
            return -EUCLEAN;
        }
        if (len != 1 || p[0] != '.') {
            uint32_t next = find(x, at, p, len);
            if (!next) {
                int r = make ? new_node(x, at, p, len, &next) : -ENOENT;
                if (r < 0) {
                    return r;
                }
            }
            at = next;
        }
        p += len;
    }
    *ret = at;
    return 0;
}

static int take_entry(struct iso *x, struct archive_entry *en, uint32_t number)
{
    const char *path = archive_entry_pathname(en), *hard = archive_entry_hardlink(en), *target = archive_entry_symlink(en);
    uint32_t i, to;
    int r;

    path = path ? path : archive_entry_pathname_utf8(en);
    if (!path) {
        return 0;                            /* a name no one can type */
    }
    r = place(x, path, true, &i);
    if (r < 0 || i == 1) {
        return r;
    }
    struct node *n = &x->node[i];
    n->entry = number;
    n->st.mode = (uint32_t)archive_entry_mode(en);
    n->st.uid = (uint32_t)archive_entry_uid(en);
    n->st.gid = (uint32_t)archive_entry_gid(en);
    n->st.links = MAX(archive_entry_nlink(en), 1u);
    n->st.size = S_ISREG(n->st.mode) && archive_entry_size(en) > 0 ? (uint64_t)archive_entry_size(en) : 0;
    n->st.blocks = (n->st.size + 511) / 512;
    n->st.mtime = (struct fs_time){ archive_entry_mtime(en), (uint32_t)archive_entry_mtime_nsec(en) };
    n->st.atime = n->st.ctime = n->st.mtime;
    if (S_ISCHR(n->st.mode) || S_ISBLK(n->st.mode)) {
        n->st.major = (uint32_t)archive_entry_rdevmajor(en);
        n->st.minor = (uint32_t)archive_entry_rdevminor(en);
    }
    if (S_ISLNK(n->st.mode)) {
        free(n->target);
        n->target = hv_strdup(target ? target : "");
        n->st.size = target ? strlen(target) : 0;
    }
    if (hard && place(x, hard, false, &to) == 0) {
        n->entry = x->node[to].entry;
        n->st.size = x->node[to].st.size;
        n->st.mode = x->node[to].st.mode;
    }
    return 0;
}

static int gather(struct iso *x)
{
    struct archive_entry *en;
    uint32_t root;
    int r = new_node(x, 0, "", 0, &root);    /* [0] */

    if (r == 0) {
        r = new_node(x, 1, "", 0, &root);
    }
    if (r == 0) {
        r = start(x);
    }
    while (r == 0) {
        int ar = archive_read_next_header(x->a, &en);
        if (ar == ARCHIVE_EOF) {
            break;
        }
        r = ar == ARCHIVE_OK || ar == ARCHIVE_WARN ? take_entry(x, en, x->a_entry) : -EUCLEAN;
        x->a_entry++;
    }
    archive_read_free(x->a);                 /* it is past the last entry now */
    x->a = NULL;
    return r;
}

/* ---- operations ---- */

static int op_stat(struct fs *fs, uint64_t ino, struct fs_stat *ret)
{
    struct iso *x = (struct iso *)fs;

    if (ino < 1 || ino >= x->n) {
        return -ENOENT;
    }
    *ret = x->node[ino].st;
    return 0;
}

static int op_list(struct fs *fs, uint64_t ino, fs_entry_fn *fn, void *arg)
{
    struct iso *x = (struct iso *)fs;
    int r = 0;

    if (ino < 1 || ino >= x->n || !S_ISDIR(x->node[ino].st.mode)) {
        return -ENOTDIR;
    }
    for (uint32_t i = x->node[ino].first; i && r == 0; i = x->node[i].next) {
        r = fn(arg, &(struct fs_entry){ .ino = i, .name = x->node[i].name, .mode = x->node[i].st.mode & S_IFMT });
    }
    return r;
}

static int op_lookup(struct fs *fs, uint64_t dir, const char *name, uint64_t *ret_ino)
{
    struct iso *x = (struct iso *)fs;
    uint32_t i = dir < x->n ? find(x, (uint32_t)dir, name, strlen(name)) : 0;

    *ret_ino = i;
    return i ? 0 : -ENOENT;
}

static int op_readlink(struct fs *fs, uint64_t ino, char *buf, size_t size)
{
    struct iso *x = (struct iso *)fs;

    if (ino >= x->n || !x->node[ino].target) {
        return -EINVAL;
    }
    return hv_strlcpy(buf, x->node[ino].target, size) ? 0 : -ENAMETOOLONG;
}

/* Bring the stream to byte off of an entry's content. */
static int go_to(struct iso *x, uint32_t entry, uint64_t off)
{
    struct archive_entry *en;
    int r = 0;

    if (!x->a || x->a_entry != entry + 1 || x->a_pos > off) {
        if (!x->a || x->a_entry > entry) {
            r = start(x);
        }
        while (r == 0 && x->a_entry <= entry) {
            int ar = archive_read_next_header(x->a, &en);
            r = ar == ARCHIVE_OK || ar == ARCHIVE_WARN ? 0 : -EUCLEAN;
            x->a_entry++;
            x->a_pos = 0;
        }
    }
    uint8_t skip[4096];
    while (r == 0 && x->a_pos < off) {
        la_ssize_t n = archive_read_data(x->a, skip, (size_t)MIN((uint64_t)sizeof(skip), off - x->a_pos));
        r = n > 0 ? 0 : -EUCLEAN;
        x->a_pos += n > 0 ? (uint64_t)n : 0;
    }
    return r;
}

static int op_read(struct fs *fs, uint64_t ino, uint64_t off, void *buf, size_t len, size_t *ret_len)
{
    struct iso *x = (struct iso *)fs;

    *ret_len = 0;
    if (ino >= x->n || !S_ISREG(x->node[ino].st.mode)) {
        return ino < x->n && S_ISDIR(x->node[ino].st.mode) ? -EISDIR : -EINVAL;
    }
    struct node *n = &x->node[ino];
    if (off >= n->st.size) {
        return 0;
    }
    int r = n->entry == UINT32_MAX ? -EUCLEAN : go_to(x, n->entry, off);
    len = (size_t)MIN((uint64_t)len, n->st.size - off);
    while (r == 0 && *ret_len < len) {
        la_ssize_t got = archive_read_data(x->a, (uint8_t *)buf + *ret_len, len - *ret_len);
        if (got <= 0) {
            return -EUCLEAN;
        }
        *ret_len += (size_t)got;
        x->a_pos += (uint64_t)got;
    }
    return r;
}

static int op_space(struct fs *fs, struct fs_space *ret)
{
    *ret = (struct fs_space){ .size = ((struct iso *)fs)->len, .block = 2048 };
    return 0;
}

static int op_close(struct fs *fs)
{
    struct iso *x = (struct iso *)fs;

    archive_read_free(x->a);
    for (uint32_t i = 0; i < x->n; i++) {
        free(x->node[i].name);
        free(x->node[i].target);
    }
    free(x->node);
    free(x->buf);
    free(x);
    return 0;
}

static const struct fs_ops ops = {
    .name = "iso9660",
    .root = 1,
    .stat = op_stat,
    .list = op_list,
    .lookup = op_lookup,
    .read = op_read,
    .readlink = op_readlink,
    .space = op_space,
    .close = op_close,
};

int iso_open(struct disk *d, uint64_t off, uint64_t len, struct fs **ret, struct hv_error *e)
{
    struct iso *x = hv_alloc(sizeof(*x));
    int r = -ENOMEM;

    if (x) {
        x->base.ops = &ops;
        x->disk = d;
        x->off = off;
        x->len = len;
        x->buf = hv_alloc(READ_SIZE);
        r = x->buf ? gather(x) : -ENOMEM;
    }
    if (r < 0) {
        if (x) {
            op_close(&x->base);
        }
        return hv_fail_errno(e, -r, NULL, "cannot read the ISO 9660 file system");
    }
    *ret = &x->base;
    return 0;
}
