/*
 * Filling a new ext4.
 *
 * Data goes to the disk as it comes; inodes through the cache. Names are kept in memory, as a
 * tree, until the end: paths are walked there (so '..', absolute names and symbolic links
 * cannot lead out of the image), and folders are written once, each in one piece.
 */
#include <errno.h>
#include <sys/stat.h>

#include "hv/base/endian.h"
#include "hv/fs/ext4_make.h"

#define MAGIC       0x6f693462u
#define LINKS_MAX   65000u               /* Linux EXT4_LINK_MAX */
#define NAMES_MAX   (16u << 20)          /* in one image: about 2 GiB of memory */
#define LOST_FOUND_BLOCKS 4u             /* mke2fs makes it 16 KiB for e2fsck to use */

struct node {
    struct node *parent, *hash_next;
    struct node *first, *last, *next, *prev;     /* children, in the order they came */
    char *target;                                /* of a symbolic link */
    uint32_t ino, hash, type;                    /* type: S_IF... */
    uint32_t n_children, n_dirs;
    uint8_t len;
    bool implied;                                /* a folder nobody has described yet */
    char name[];
};

struct ext4_build {
    uint32_t magic;
    ext2_filsys fs;
    struct node *root;
    struct node **bucket;
    size_t n_buckets, n_names;
    blk64_t goal;
    uint8_t *buf;
    int64_t now_s;
    struct ext4_built built;
    /* The file added last: */
    ext2_ino_t ino;
    union ext4_inode inode;
    struct ext4_writer w;
    bool writing;
    uint64_t size;
    char path[200];                              /* for messages */
};

/* ---- names ---- */

static uint32_t name_hash(const struct node *parent, const char *name, size_t len)
{
    uint32_t h = 2166136261u ^ parent->ino;      /* FNV-1a */

    for (size_t i = 0; i < len; i++) {
        h = (h ^ (uint8_t)name[i]) * 16777619u;
    }
    return h ^ h >> 15;
}

static struct node *find_child(struct ext4_build *b, const struct node *parent, const char *name, size_t len)
{
    uint32_t h = name_hash(parent, name, len);

    for (struct node *n = b->bucket[h % b->n_buckets]; n; n = n->hash_next) {
        if (n->hash == h && n->parent == parent && n->len == len && memcmp(n->name, name, len) == 0) {
            return n;
        }
    }
    return NULL;
}

static int grow_table(struct ext4_build *b)
{
    size_t n = b->n_buckets ? b->n_buckets * 4 : 1024;
    struct node **bucket = hv_alloc_array(n, sizeof(*bucket)), *next;

    if (!bucket) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < b->n_buckets; i++) {
        for (struct node *p = b->bucket[i]; p; p = next) {
            next = p->hash_next;
            p->hash_next = bucket[p->hash % n];
            bucket[p->hash % n] = p;
        }
    }
    free(b->bucket);
    b->bucket = bucket;
    b->n_buckets = n;
    return 0;
}

static int add_node(struct ext4_build *b, struct node *parent, const char *name, size_t len, uint32_t ino,
                    uint32_t mode, struct node **ret)
{
    struct node *n;

    if (len > FS_NAME_MAX) {
        return -ENAMETOOLONG;
    }
    if (b->n_names >= NAMES_MAX) {
        return -ENOSPC;
    }
    if (b->n_names >= b->n_buckets) {
        int r = grow_table(b);
        if (r < 0) {
            return r;
        }
    }
    n = hv_alloc(sizeof(*n) + len + 1);
    if (!n) {
        return -ENOMEM;
    }
    memcpy(n->name, name, len);
    n->len = (uint8_t)len;
    n->ino = ino;
    n->type = mode & S_IFMT;
    if (parent) {
        n->parent = parent;
        n->hash = name_hash(parent, name, len);
        n->hash_next = b->bucket[n->hash % b->n_buckets];
        b->bucket[n->hash % b->n_buckets] = n;
        n->prev = parent->last;
        *(parent->last ? &parent->last->next : &parent->first) = n;
        parent->last = n;
        parent->n_children++;
        parent->n_dirs += S_ISDIR(mode);
    }
    b->n_names++;
    *ret = n;
    return 0;
}

static void free_node(struct ext4_build *b, struct node *n)
{
    struct node *parent = n->parent;

    if (parent) {
        struct node **at = &b->bucket[n->hash % b->n_buckets];
        while (*at != n) {
            at = &(*at)->hash_next;
        }
        *at = n->hash_next;
        *(n->prev ? &n->prev->next : &parent->first) = n->next;
        *(n->next ? &n->next->prev : &parent->last) = n->prev;
        parent->n_children--;
        parent->n_dirs -= S_ISDIR(n->type);
    }
    b->n_names--;
    free(n->target);
    free(n);
}

/* The next node below top after all children of n, children first: for walks without recursion. */
static struct node *deepest(struct node *n)
{
    while (n->first) {
        n = n->first;
    }
    return n;
}

/* ---- walking ---- */

enum { WALK_FOLLOW = 1, WALK_MAKE = 2, WALK_PARENT = 4 };

static int make_dir(struct ext4_build *b, struct node *parent, const char *name, size_t len, struct node **ret);

/*
 * Walk path from the root. PARENT: stop before the last part, which goes to name[256] ("" for
 * the root itself). MAKE: folders that are missing are made. FOLLOW: the last part too.
 */
static int walk(struct ext4_build *b, const char *path, unsigned flags, struct node **ret, char *name)
{
    hv_autofree char *todo = NULL;
    struct node *at = b->root;
    unsigned links = 0;

    if (strlen(path) >= FS_PATH_MAX) {
        return -ENAMETOOLONG;
    }
    todo = hv_strdup(path);
    if (!todo) {
        return -ENOMEM;
    }
    if (name) {
        name[0] = '\0';
    }
    for (char *p = todo;;) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        bool last = p[len + strspn(p + len, "/")] == '\0';
        if (len == 0) {
            break;
        }
        if (!S_ISDIR(at->type)) {
            return -ENOTDIR;
        }
        if (len == 1 && p[0] == '.') {
            p += len;
            continue;
        }
        if (len == 2 && p[0] == '.' && p[1] == '.') {
            at = at->parent ? at->parent : at;
            p += len;
            continue;
        }
        if (len > FS_NAME_MAX) {
            return -ENAMETOOLONG;
        }
        if (last && (flags & WALK_PARENT)) {
            memcpy(name, p, len);
            name[len] = '\0';
            break;
        }
        struct node *child = find_child(b, at, p, len);
        if (!child) {
            int r = flags & WALK_MAKE ? make_dir(b, at, p, len, &child) : -ENOENT;
            if (r < 0) {
                return r;
            }
        }
        p += len;
        if (S_ISLNK(child->type) && (!last || (flags & WALK_FOLLOW))) {
            if (++links > FS_LINKS_MAX || strlen(child->target) + strlen(p) + 2 > FS_PATH_MAX) {
                return -ELOOP;
            }
            char *longer = hv_asprintf("%s/%s", child->target, p);
            if (!longer) {
                return -ENOMEM;
            }
            at = child->target[0] == '/' ? b->root : at;
            free(todo);
            p = todo = longer;
            continue;
        }
        at = child;
    }
    *ret = at;
    return 0;
}

/* ---- inodes ---- */

static int end_file(struct ext4_build *b)
{
    int r = 0;

    if (b->writing) {
        b->writing = false;
        r = ext4_writer_end(&b->w, b->size);
        b->built.bytes += b->w.end;
        if (r == 0) {
            r = ext4_inode_write(b->fs, b->ino, &b->inode);
        }
    }
    return r;
}

static void times(struct ext4_build *b, union ext4_inode *in, struct fs_time mtime)
{
    struct fs_time now = { .s = b->now_s };

    in->l.i_extra_isize = sizeof(in->l) - EXT2_GOOD_OLD_INODE_SIZE;
    ext4_put_time(&in->l.i_mtime, &in->l.i_mtime_extra, mtime);
    ext4_put_time(&in->l.i_atime, &in->l.i_atime_extra, mtime);
    ext4_put_time(&in->l.i_ctime, &in->l.i_ctime_extra, now);
    ext4_put_time(&in->l.i_crtime, &in->l.i_crtime_extra, now);
}

static int new_inode(struct ext4_build *b, const struct node *parent, uint32_t mode, ext2_ino_t *ret)
{
    ext2_ino_t ino;
    errcode_t err = ext2fs_new_inode(b->fs, parent->ino, (int)mode, NULL, &ino);

    if (err) {
        return ext4_errno(b->fs, err);
    }
    ext2fs_inode_alloc_stats2(b->fs, ino, +1, S_ISDIR(mode));
    *ret = ino;
    return 0;
}

static int make_dir(struct ext4_build *b, struct node *parent, const char *name, size_t len, struct node **ret)
{
    union ext4_inode in = { 0 };
    ext2_ino_t ino;
    int r = new_inode(b, parent, S_IFDIR, &ino);

    if (r < 0) {
        return r;
    }
    ext4_inode_owner(&in, S_IFDIR | 0755, 0, 0);
    times(b, &in, (struct fs_time){ .s = b->now_s });
    in.s.i_links_count = 2;
    r = ext4_inode_write(b->fs, ino, &in);
    if (r == 0) {
        r = add_node(b, parent, name, len, ino, S_IFDIR, ret);
    }
    if (r == 0) {
        (*ret)->implied = true;
    }
    return r;
}

/* What a long link says lies in a block, as data does. */
static int put_target(struct ext4_build *b, ext2_ino_t ino, union ext4_inode *in, const char *target)
{
    size_t len = strlen(target);
    struct ext4_writer w;
    int r;

    if (len == 0 || len >= FS_PATH_MAX) {
        return len ? -ENAMETOOLONG : -EINVAL;
    }
    if (len < sizeof(in->s.i_block)) {
        memcpy(in->s.i_block, target, len);
        in->s.i_size = (uint32_t)len;
        return 0;
    }
    r = ext4_writer_init(&w, b->fs, ino, in, &b->goal, b->buf);
    if (r == 0) {
        r = ext4_writer_add(&w, 0, target, len);
    }
    if (r == 0) {
        return ext4_writer_end(&w, len);
    }
    ext4_writer_abort(&w);
    return r;
}

/* Remove n and what is in it. */
static int remove_tree(struct ext4_build *b, struct node *n)
{
    for (;;) {
        struct node *d = deepest(n);
        bool done = d == n;
        int r = ext4_inode_unlink(b->fs, d->ino);
        if (r < 0) {
            return r;
        }
        free_node(b, d);
        if (done) {
            return 0;
        }
    }
}

static int update_dir(struct ext4_build *b, struct node *n, const struct ext4_file *f)
{
    union ext4_inode in;
    int r;

    b->ino = n->ino;
    if (f->keep_dir && !n->implied) {
        return 0;
    }
    r = ext4_inode_read(b->fs, n->ino, &in);
    if (r == 0) {
        ext4_inode_owner(&in, f->mode, f->uid, f->gid);
        times(b, &in, f->mtime);
        n->implied = false;
        r = ext4_inode_write(b->fs, n->ino, &in);
    }
    return r;
}

static int hard_link(struct ext4_build *b, const struct ext4_file *f, struct node *parent, const char *name)
{
    union ext4_inode in;
    struct node *to, *n;
    int r = walk(b, f->target, 0, &to, NULL);

    if (r < 0) {
        return r;
    }
    if (S_ISDIR(to->type)) {
        return -EINVAL;
    }
    struct node *old = find_child(b, parent, name, strlen(name));
    if (old == to) {
        return 0;
    }
    if (old) {
        if (S_ISDIR(old->type)) {
            for (struct node *p = to; p; p = p->parent) {
                if (p == old) {
                    return -EINVAL;          /* the target would go with the folder */
                }
            }
        }
        r = remove_tree(b, old);
        if (r < 0) {
            return r;
        }
    }
    r = ext4_inode_read(b->fs, to->ino, &in);
    if (r == 0 && in.s.i_links_count >= LINKS_MAX) {
        r = -EMLINK;
    }
    if (r == 0) {
        r = add_node(b, parent, name, strlen(name), to->ino, to->type, &n);
    }
    if (r == 0 && to->target) {
        n->target = hv_strdup(to->target);
        r = n->target ? 0 : -ENOMEM;
    }
    if (r == 0) {
        in.s.i_links_count++;
        r = ext4_inode_write(b->fs, to->ino, &in);
        b->ino = to->ino;
    }
    return r;
}

static int add(struct ext4_build *b, const struct ext4_file *f)
{
    char name[FS_NAME_MAX + 1];
    struct node *parent, *n;
    union ext4_inode in = { 0 };
    ext2_ino_t ino;
    int r = walk(b, f->path, WALK_MAKE | WALK_PARENT, &parent, name);

    if (r < 0) {
        return r;
    }
    if (!S_ISDIR(parent->type)) {
        return -ENOTDIR;
    }
    if (!name[0]) {                              /* "/", "./", "a/..": a folder that is there */
        return S_ISDIR(f->mode) && !f->hardlink ? update_dir(b, parent, f) : -EISDIR;
    }
    if (f->hardlink) {
        return hard_link(b, f, parent, name);
    }
    struct node *old = find_child(b, parent, name, strlen(name));
    if (old && S_ISDIR(f->mode)) {
        struct node *to = old;
        /* A link to a folder stands for it: /lib -> usr/lib stays when a later source has lib/. */
        if (S_ISLNK(old->type) && (walk(b, f->path, WALK_FOLLOW, &to, NULL) < 0)) {
            to = old;
        }
        if (S_ISDIR(to->type)) {
            if (to != old) {
                b->ino = to->ino;
                return 0;
            }
            return update_dir(b, to, f);
        }
    }
    if (old) {
        r = remove_tree(b, old);
        if (r < 0) {
            return r;
        }
    }
    r = new_inode(b, parent, f->mode, &ino);
    if (r < 0) {
        return r;
    }
    ext4_inode_owner(&in, f->mode, f->uid, f->gid);
    times(b, &in, f->mtime);
    in.s.i_links_count = S_ISDIR(f->mode) ? 2 : 1;
    r = add_node(b, parent, name, strlen(name), ino, f->mode, &n);
    if (r < 0) {
        return r;
    }
    b->ino = ino;
    switch (f->mode & S_IFMT) {
    case S_IFREG:
        b->inode = in;
        b->size = 0;
        r = ext4_writer_init(&b->w, b->fs, ino, &b->inode, &b->goal, b->buf);
        b->writing = r == 0;
        in = b->inode;                           /* with the header of an empty tree */
        break;
    case S_IFLNK:
        n->target = hv_strdup(f->target);
        r = n->target ? put_target(b, ino, &in, f->target) : -ENOMEM;
        break;
    case S_IFCHR:
    case S_IFBLK:
        ext4_inode_device(&in, f->major, f->minor);
        break;
    case S_IFDIR:
    case S_IFIFO:
    case S_IFSOCK:
        break;
    default:
        r = -EINVAL;
    }
    return r < 0 ? r : ext4_inode_write(b->fs, ino, &in);
}

static int explain(struct ext4_build *b, int r, const char *path, struct hv_error *e)
{
    if (r < 0) {
        hv_fail_errno(e, -r, path, "cannot be put into the image");
        if (r == -ENOSPC && ext4_io_error(b->fs->io)) {
            hv_fail(e, HV_NO_RESOURCES, path, "no room left on this host for the image");
        } else if (r == -ENOSPC) {
            hv_fail(e, HV_NO_RESOURCES, path, "the file system is full");
            hv_hint(e, "give a larger --size");
        }
    }
    return r;
}

int ext4_build_add(struct ext4_build *b, const struct ext4_file *f, struct hv_error *e)
{
    HV_CHECK(b, MAGIC);
    int r = end_file(b);

    if (r < 0) {
        return explain(b, r, b->path, e);
    }
    hv_strlcpy(b->path, f->path, sizeof(b->path));
    return explain(b, add(b, f), f->path, e);
}

static int reopen(struct ext4_build *b, const char *path)
{
    struct node *n;
    int r = walk(b, path, WALK_FOLLOW, &n, NULL);

    if (r == 0 && !S_ISREG(n->type)) {
        r = -EINVAL;
    }
    if (r == 0) {
        r = ext4_inode_read(b->fs, n->ino, &b->inode);
    }
    if (r == 0) {
        r = ext4_inode_free_data(b->fs, n->ino, &b->inode);
    }
    if (r == 0) {
        b->ino = n->ino;
        b->size = 0;
        r = ext4_writer_init(&b->w, b->fs, b->ino, &b->inode, &b->goal, b->buf);
        b->writing = r == 0;
    }
    return r < 0 ? r : ext4_inode_write(b->fs, b->ino, &b->inode);
}

int ext4_build_reopen(struct ext4_build *b, const char *path, struct hv_error *e)
{
    HV_CHECK(b, MAGIC);
    int r = end_file(b);

    if (r < 0) {
        return explain(b, r, b->path, e);
    }
    hv_strlcpy(b->path, path, sizeof(b->path));
    return explain(b, reopen(b, path), path, e);
}

int ext4_build_data(struct ext4_build *b, uint64_t off, const void *buf, size_t len, struct hv_error *e)
{
    HV_CHECK(b, MAGIC);
    hv_assert(b->writing);
    return explain(b, ext4_writer_add(&b->w, off, buf, len), b->path, e);
}

int ext4_build_truncate(struct ext4_build *b, uint64_t size, struct hv_error *e)
{
    HV_CHECK(b, MAGIC);
    hv_assert(b->writing);
    if (size > (uint64_t)UINT32_MAX * EXT4_BLOCK) {
        return explain(b, -EFBIG, b->path, e);
    }
    b->size = size;
    return 0;
}

int ext4_build_xattr(struct ext4_build *b, const char *name, const void *value, size_t len, struct hv_error *e)
{
    HV_CHECK(b, MAGIC);
    int r = end_file(b);

    if (r < 0) {
        return explain(b, r, b->path, e);
    }
    r = ext4_xattr_set(b->fs, b->ino, name, value, len);
    if (r == -ENOSPC && ext2fs_free_blocks_count(b->fs->super) > 0) {
        hv_fail(e, HV_UNSUPPORTED, b->path, "attribute %s: %zu bytes are too many for ext4", name, len);
        return -E2BIG;
    }
    if (r < 0) {
        hv_fail_errno(e, -r, b->path, "attribute %s", name);
    }
    return r;
}

/* ---- looking back ---- */

bool ext4_build_has(struct ext4_build *b, const char *path, uint32_t *ret_mode)
{
    struct node *n;

    if (walk(b, path, WALK_FOLLOW, &n, NULL) < 0) {
        return false;
    }
    if (ret_mode) {
        *ret_mode = n->type;
    }
    return true;
}

int ext4_build_list(struct ext4_build *b, const char *path, fs_entry_fn *fn, void *arg)
{
    struct node *n;
    int r = walk(b, path, WALK_FOLLOW, &n, NULL);

    if (r < 0 || !S_ISDIR(n->type)) {
        return r < 0 ? r : -ENOTDIR;
    }
    for (struct node *c = n->first; c && r == 0; c = c->next) {
        r = fn(arg, &(struct fs_entry){ .ino = c->ino, .name = c->name, .mode = c->type });
    }
    return r;
}

int ext4_build_read(struct ext4_build *b, const char *path, size_t max, char **ret, size_t *ret_len)
{
    struct node *n;
    ext2_file_t f;
    unsigned got = 0;
    int r = end_file(b);

    if (r == 0) {
        r = walk(b, path, WALK_FOLLOW, &n, NULL);
    }
    if (r < 0) {
        return r;
    }
    if (!S_ISREG(n->type)) {
        return S_ISDIR(n->type) ? -EISDIR : -EINVAL;
    }
    errcode_t err = ext2fs_file_open(b->fs, n->ino, 0, &f);
    if (err) {
        return ext4_errno(b->fs, err);
    }
    __u64 size = 0;
    ext2fs_file_get_lsize(f, &size);
    char *buf = size <= max ? hv_alloc(size + 1) : NULL;
    r = size > max ? -EFBIG : buf ? 0 : -ENOMEM;
    if (r == 0) {
        err = ext2fs_file_read(f, buf, (unsigned)size, &got);
        r = err ? ext4_errno(b->fs, err) : 0;
    }
    ext2fs_file_close(f);
    if (r < 0) {
        free(buf);
        return r;
    }
    buf[got] = '\0';
    *ret = buf;
    *ret_len = got;
    return 0;
}

int ext4_build_remove(struct ext4_build *b, const char *path, struct hv_error *e)
{
    struct node *n;
    int r = end_file(b);

    if (r == 0) {
        r = walk(b, path, 0, &n, NULL);
    }
    if (r == 0) {
        r = n == b->root ? -EINVAL : remove_tree(b, n);
    }
    return r == -ENOENT ? r : explain(b, r, path, e);
}

/* ---- begin and end ---- */

static int begin(struct ext4_build *b)
{
    union ext4_inode in = { 0 };
    struct node *n;
    int r = add_node(b, NULL, "", 0, EXT2_ROOT_INO, S_IFDIR, &b->root);

    if (r < 0) {
        return r;
    }
    b->root->implied = true;
    ext4_inode_owner(&in, S_IFDIR | 0755, 0, 0);
    times(b, &in, (struct fs_time){ .s = b->now_s });
    in.s.i_links_count = 2;
    r = ext4_inode_write(b->fs, EXT2_ROOT_INO, &in);
    if (r == 0) {
        r = add(b, &(struct ext4_file){ .path = "lost+found", .mode = S_IFDIR | 0700, .mtime = { .s = b->now_s } });
    }
    if (r == 0) {
        r = walk(b, "lost+found", 0, &n, NULL);
    }
    return r;
}

int ext4_build_new(struct disk *d, uint64_t off, uint64_t len, const struct ext4_make *m,
                   struct ext4_build **ret, struct hv_error *e)
{
    struct ext4_build *b = hv_alloc(sizeof(*b));
    int r;

    if (!b || !(b->buf = hv_alloc(EXT4_WRITER_BUF))) {
        free(b);
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    b->magic = MAGIC;
    b->now_s = m->time_s;
    r = ext4_make(d, off, len, m, &b->fs, e);
    if (r == 0) {
        r = begin(b);
        if (r < 0) {
            hv_fail_errno(e, -r, NULL, "cannot make a file system");
        }
    }
    if (r < 0) {
        ext4_build_abandon(b);
        return r;
    }
    *ret = b;
    return 0;
}

static int write_dir(struct ext4_build *b, struct node *n)
{
    hv_autofree struct ext4_dirent *en = hv_alloc_array(n->n_children ? n->n_children : 1, sizeof(*en));
    union ext4_inode in;
    size_t i = 0;
    int r;

    if (!en) {
        return -ENOMEM;
    }
    for (struct node *c = n->first; c; c = c->next) {
        en[i++] = (struct ext4_dirent){ .name = c->name, .len = c->len, .ino = c->ino,
                                        .type = ext4_dirent_type(c->type) };
    }
    r = ext4_inode_read(b->fs, n->ino, &in);
    if (r < 0) {
        return r;
    }
    bool lost = n->parent == b->root && strcmp(n->name, "lost+found") == 0;
    uint32_t parent = n->parent ? n->parent->ino : n->ino;
    r = ext4_dir_write(b->fs, n->ino, parent, en, i, lost ? LOST_FOUND_BLOCKS : 1, &in, &b->goal, b->buf);
    /* dir_nlink: one stands for "more than can be counted". */
    in.s.i_links_count = n->n_dirs + 2 < LINKS_MAX ? (uint16_t)(n->n_dirs + 2) : 1;
    if (r == 0) {
        r = ext4_inode_write(b->fs, n->ino, &in);
    }
    b->built.dirs++;
    return r;
}

static int write_dirs(struct ext4_build *b)
{
    /* In the order of the tree: a folder's blocks lie near those of its children. */
    for (struct node *n = b->root; n;) {
        if (S_ISDIR(n->type)) {
            int r = write_dir(b, n);
            if (r < 0) {
                return r;
            }
        } else {
            b->built.files++;
        }
        if (n->first) {
            n = n->first;
            continue;
        }
        while (n && !n->next) {
            n = n->parent;
        }
        n = n ? n->next : NULL;
    }
    return 0;
}

static void free_names(struct ext4_build *b)
{
    if (b->root) {
        for (struct node *n = deepest(b->root); n;) {
            struct node *up = n->parent;
            free_node(b, n);
            n = up ? deepest(up) : NULL;
        }
    }
    free(b->bucket);
    b->root = NULL;
}

int ext4_build_finish(struct ext4_build *b, struct ext4_built *ret, struct hv_error *e)
{
    HV_CHECK(b, MAGIC);
    int r = end_file(b);

    if (r < 0) {
        explain(b, r, b->path, e);
    } else {
        r = explain(b, write_dirs(b), NULL, e);
    }
    if (r == 0) {
        struct ext2_super_block *s = b->fs->super;
        b->built.size = ext2fs_blocks_count(s) * EXT4_BLOCK;
        b->built.used = b->built.size - ext2fs_free_blocks_count(s) * EXT4_BLOCK;
        if (ret) {
            *ret = b->built;
        }
        errcode_t err = ext2fs_flush(b->fs);
        if (err) {
            r = ext4_fail(e, b->fs, err, NULL, "cannot write the file system");
        } else {
            err = ext2fs_close_free(&b->fs);
            r = err ? ext4_fail(e, NULL, err, NULL, "cannot write the file system") : 0;
        }
    }
    ext4_build_abandon(b);
    return r;
}

void ext4_build_abandon(struct ext4_build *b)
{
    if (!b) {
        return;
    }
    if (b->writing) {
        ext4_writer_abort(&b->w);
    }
    if (b->fs) {
        b->fs->flags &= ~(EXT2_FLAG_DIRTY | EXT2_FLAG_CHANGED);
        ext2fs_free(b->fs);
    }
    free_names(b);
    free(b->buf);
    b->magic = 0;
    free(b);
}
