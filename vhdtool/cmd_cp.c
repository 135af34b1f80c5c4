/*
 * cp: files into a disk, out of it, and between disks. Sources give their files to a sink; one
 * writes to this host, one to an ext4.
 *
 * On this host nothing is followed that the copy itself could have made: a hostile image may hold
 * a link and a folder of the same name (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "vhdtool/files.h"

#define READ_SIZE (1 * MIB)

/* What both sinks have: the name the copy gets, and what they count. */
struct target {
    struct cli_call *call;
    const char *name;            /* as typed, for messages */
    char path[FS_PATH_MAX];      /* where the source's root goes */
    bool force_root;             /* new files in an image are root's */
    uint32_t uid, gid;
    uint64_t files, bytes, skipped;
};

/* "/" + "/etc/x" of the source below t->path. */
static int join(const struct target *t, const char *path, char out[FS_PATH_MAX])
{
    int n = snprintf(out, FS_PATH_MAX, "%s%s", t->path, strcmp(path, "/") == 0 ? "" : path);

    return n < 0 || n >= (int)FS_PATH_MAX ? -ENAMETOOLONG : 0;
}

/* ---- out: this host ---- */

struct dir_time { char *path; struct fs_time mtime; uint32_t mode; };

struct host {
    struct target t;
    int root;                    /* folder that everything lies in; t.path is relative to it */
    int fd;                      /* the regular file added last */
    uint64_t size;
    struct fs_time mtime;
    mode_t umask;
    struct dir_time *dirs;       /* times and modes that are set at the end */
    size_t n_dirs;
};

static int open_beneath(int root, const char *path, int flags, mode_t mode)
{
    struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC), .mode = flags & O_CREAT ? mode : 0,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
    long fd = syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

/* The folder of path, open; *ret_base its last part. */
static int open_parent(struct host *h, const char *path, const char **ret_base)
{
    const char *slash = strrchr(path, '/');
    char dir[FS_PATH_MAX];

    *ret_base = slash ? slash + 1 : path;
    snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 0, path);
    return open_beneath(h->root, dir, O_PATH | O_DIRECTORY, 0);
}

static int host_end(struct host *h)
{
    int r = 0;

    if (h->fd >= 0) {
        if (ftruncate(h->fd, (off_t)h->size) < 0 && errno != EINVAL) {      /* pipes have no size */
            r = -errno;
        }
        futimens(h->fd, (struct timespec[2]){ { .tv_nsec = UTIME_OMIT }, { h->mtime.s, h->mtime.ns } });
        if (close(h->fd) < 0 && r == 0) {
            r = -errno;
        }
        h->fd = -1;
    }
    return r;
}

static int host_make(struct host *h, const struct ext4_file *f, const char *path, int parent, const char *base)
{
    mode_t mode = f->mode & 0777 & ~h->umask;
    struct timespec ts[2] = { { .tv_nsec = UTIME_OMIT }, { f->mtime.s, f->mtime.ns } };
    char target[FS_PATH_MAX];
    struct stat st;
    int r = 0;

    if (f->hardlink) {
        r = join(&h->t, f->target, target);
        if (r == 0) {
            const char *to;
            hv_autoclose int dir = open_parent(h, target, &to);
            r = dir < 0 ? dir : linkat(dir, to, parent, base, 0) < 0 ? -errno : 0;
        }
        return r;
    }
    switch (f->mode & S_IFMT) {
    case S_IFDIR: {
        r = mkdirat(parent, base, 0700) < 0 ? -errno : 0;
        if (r == -EEXIST && fstatat(parent, base, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
            return 0;                                /* as it is */
        }
        struct dir_time *grown = r == 0 ? hv_realloc_array(h->dirs, h->n_dirs + 1, sizeof(*grown)) : NULL;
        if (grown) {
            h->dirs = grown;
            grown[h->n_dirs++] = (struct dir_time){ hv_strdup(path), f->mtime, mode };
        }
        return r < 0 ? r : grown && h->dirs[h->n_dirs - 1].path ? 0 : -ENOMEM;
    }
    case S_IFREG:
        r = open_beneath(h->root, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode);
        if (r < 0) {
            return r;
        }
        h->fd = r;
        r = 0;
        break;
    case S_IFLNK:
        r = symlinkat(f->target, parent, base) < 0 ? -errno : 0;
        break;
    case S_IFIFO:
        r = mkfifoat(parent, base, mode) < 0 ? -errno : 0;
        break;
    default:
        r = mknodat(parent, base, f->mode & (S_IFMT | 0777), makedev(f->major, f->minor)) < 0 ? -errno : 0;
        if (r == -EPERM) {
            h->t.skipped++;
            cli_warn(h->t.call, f->path, "left out: only root can make devices");
            return 0;
        }
    }
    if (r == 0 && !S_ISREG(f->mode)) {
        utimensat(parent, base, ts, AT_SYMLINK_NOFOLLOW);
    }
    return r;
}

static int host_add(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e)
{
    struct host *h = arg;
    char path[FS_PATH_MAX];
    const char *base;
    int r = host_end(h);

    if (r == 0) {
        r = join(&h->t, f->path, path);
    }
    if (r == 0) {
        hv_autoclose int parent = open_parent(h, path, &base);
        r = parent < 0 ? parent : host_make(h, f, path, parent, base);
    }
    h->size = size;
    h->mtime = f->mtime;
    h->t.files += !S_ISDIR(f->mode);
    h->t.bytes += size;
    return r < 0 ? hv_fail_errno(e, -r, path, "cannot write") : 0;
}

static int host_data(void *arg, uint64_t off, const void *p, size_t len, struct hv_error *e)
{
    struct host *h = arg;
    const uint8_t *from = p;

    while (len > 0) {
        ssize_t n = pwrite(h->fd, from, len, (off_t)off);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return hv_fail_errno(e, errno, h->t.name, "cannot write");
        }
        from += n;
        off += (uint64_t)n;
        len -= (size_t)n;
        h->size = MAX(h->size, off);
    }
    return 0;
}

static int no_xattr(void *arg, const char *name, const void *value, size_t len, struct hv_error *e)
{
    return 0;
}

/* Where the copy goes: into dst if it is a folder, else it is dst. */
static int host_begin(struct host *h, const char *dst, const char *base, struct hv_error *e)
{
    struct stat st;
    bool into = stat(dst, &st) == 0 && S_ISDIR(st.st_mode);
    char dir[FS_PATH_MAX];
    const char *slash;

    h->umask = umask(0);
    umask(h->umask);
    hv_strlcpy(dir, dst, sizeof(dir));
    for (size_t n = strlen(dir); !into && n > 1 && dir[n - 1] == '/'; n--) {
        dir[n - 1] = '\0';
    }
    if (into) {
        hv_strlcpy(h->t.path, *base ? base : "", sizeof(h->t.path));
    } else {
        slash = strrchr(dir, '/');
        hv_strlcpy(h->t.path, slash ? slash + 1 : dir, sizeof(h->t.path));
        snprintf(dir, sizeof(dir), "%.*s", slash ? (int)MAX(slash - dir, 1) : 1, slash ? dst : ".");
    }
    h->root = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return h->root < 0 ? hv_fail_errno(e, errno, dir, "cannot open") : 0;
}

static int host_finish(struct host *h, struct hv_error *e)
{
    int r = host_end(h);

    for (size_t i = h->n_dirs; i > 0; i--) {
        struct dir_time *d = &h->dirs[i - 1];
        struct timespec ts[2] = { { .tv_nsec = UTIME_OMIT }, { d->mtime.s, d->mtime.ns } };
        hv_autoclose int fd = open_beneath(h->root, d->path, O_RDONLY | O_DIRECTORY, 0);
        if (fd >= 0) {
            fchmod(fd, d->mode);
            futimens(fd, ts);
        }
        free(d->path);
    }
    free(h->dirs);
    if (h->root >= 0) {
        close(h->root);
    }
    return r < 0 ? hv_fail_errno(e, -r, h->t.name, "cannot write") : 0;
}

/* ---- in: an ext4 ---- */

struct inside {
    struct target t;
    struct fs *fs;
    uint64_t dir, size;
    char base[FS_NAME_MAX + 1];
    char path[FS_PATH_MAX];
    bool writing, over;          /* over: a file that was there */
};

/* r < 0: is it this host's disk, or the file system in it? */
static int inside_failed(const struct inside *in, int r, struct hv_error *e)
{
    const char *gone = in->over ? "; what was there is removed" : "";
    const int disk = ext4_disk_error(in->fs);

    if (disk < 0) {
        return hv_fail_errno(e, -disk, in->t.name, "cannot write %s%s", in->path, gone);
    }
    if (r == -ENOSPC) {
        return hv_fail(e, HV_NO_RESOURCES, in->path, "the file system is full%s", gone);
    }
    return hv_fail_errno(e, -r, in->path, "cannot be put into %s%s", in->t.name, gone);
}

static int inside_end(struct inside *in)
{
    if (!in->writing) {
        return 0;
    }
    in->writing = false;
    in->t.bytes += in->size;
    return ext4_put_end(in->fs, in->size);
}

/* What was begun is taken away again. */
static int inside_undo(struct inside *in, int r)
{
    if (in->writing) {
        in->writing = false;
        ext4_put_end(in->fs, in->size);
        ext4_remove(in->fs, in->dir, in->base);
    }
    return r;
}

static int inside_make(struct inside *in, const struct ext4_file *f, uint64_t size)
{
    struct ext4_put p = { .mode = f->mode, .uid = in->t.uid, .gid = in->t.gid, .major = f->major, .minor = f->minor,
                          .mtime = f->mtime, .target = f->target };
    struct fs_stat st;
    uint64_t ino;
    int r = fs_walk_parent(in->fs, in->path, &in->dir, in->base);

    if (r == -EINVAL && S_ISDIR(f->mode)) {
        return 0;                                    /* the root itself */
    }
    if (r < 0) {
        return r;
    }
    if (!in->t.force_root) {
        p.uid = f->uid;
        p.gid = f->gid;
    }
    if (f->hardlink) {
        char target[FS_PATH_MAX];
        r = join(&in->t, f->target, target);
        return r < 0 ? r : ext4_link(in->fs, target, in->dir, in->base);
    }
    /* A file that is there keeps owner and mode, as with cp(1). */
    in->over = false;
    if (S_ISREG(f->mode) && in->fs->ops->lookup(in->fs, in->dir, in->base, &ino) == 0 &&
        in->fs->ops->stat(in->fs, ino, &st) == 0 && S_ISREG(st.mode)) {
        p.mode = st.mode;
        p.uid = st.uid;
        p.gid = st.gid;
        in->over = true;
    }
    r = ext4_put(in->fs, in->dir, in->base, &p, &ino);
    in->writing = r == 0 && S_ISREG(f->mode);
    in->size = size;
    return r;
}

static int inside_add(void *arg, const struct ext4_file *f, uint64_t size, bool data, struct hv_error *e)
{
    struct inside *in = arg;
    int r = inside_end(in);

    if (r == 0) {
        r = join(&in->t, f->path, in->path);
    }
    if (r == 0) {
        r = inside_make(in, f, size);
    }
    in->t.files += !S_ISDIR(f->mode);
    if (r < 0) {
        inside_failed(in, r, e);
        if (r == -EEXIST) {
            hv_fail(e, HV_CONFLICT, in->path, "is there already, and no regular file");
        }
    }
    return r;
}

static int inside_data(void *arg, uint64_t off, const void *p, size_t len, struct hv_error *e)
{
    struct inside *in = arg;
    int r = ext4_put_data(in->fs, off, p, len);

    in->size = MAX(in->size, off + len);
    if (r < 0) {
        inside_failed(in, r, e);
    }
    return r < 0 ? inside_undo(in, r) : 0;
}

static void inside_begin(struct inside *in, struct fs *fs, const char *dst, const char *base)
{
    struct fs_stat st;
    uint64_t ino;
    size_t n;

    in->fs = fs;
    hv_strlcpy(in->t.path, dst, sizeof(in->t.path));
    for (n = strlen(in->t.path); n > 0 && in->t.path[n - 1] == '/'; n--) {
        in->t.path[n - 1] = '\0';
    }
    if (*base && fs_walk(fs, dst, true, &ino) == 0 && fs->ops->stat(fs, ino, &st) == 0 && S_ISDIR(st.mode)) {
        snprintf(in->t.path + n, sizeof(in->t.path) - n, "/%s", base);
    }
}

/* ---- sources ---- */

static int from_stdin(const struct build_sink *sink, struct hv_error *e)
{
    struct ext4_file f = { .path = "/", .mode = S_IFREG | 0644, .mtime = { .s = (int64_t)(hv_wall_ns() / NS_PER_SEC) } };
    hv_autofree uint8_t *buf = hv_alloc(READ_SIZE);
    int r = buf ? sink->add(sink->arg, &f, 0, true, e) : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");

    for (uint64_t at = 0; r == 0;) {
        ssize_t n = read(STDIN_FILENO, buf, READ_SIZE);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? hv_fail_errno(e, errno, "-", "cannot read") : 0;
        }
        r = sink->data(sink->arg, at, buf, (size_t)n, e);
        at += (uint64_t)n;
    }
    return r;
}

static int from_host(const char *src, bool recursive, const struct build_sink *sink, struct hv_error *e)
{
    struct build_source s = { .name = src, .fd = -1, .folder = true };
    struct stat st;

    if (stat(src, &st) < 0) {
        return hv_fail_errno(e, errno, src, "cannot open");
    }
    if (S_ISDIR(st.st_mode) && !recursive) {
        int r = hv_fail(e, HV_USAGE, src, "is a folder");
        hv_hint(e, "give --recursive");
        return r;
    }
    return build_folder_walk(&s, sink, e);
}

static int from_image(struct fs *fs, const char *path, const char *image, bool recursive, const struct build_sink *sink,
                      struct hv_error *e)
{
    struct fs_stat st;
    uint64_t ino;
    int r = fs_walk(fs, path, true, &ino);

    if (r == 0) {
        r = fs->ops->stat(fs, ino, &st);
    }
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot read it in %s", image);
    }
    if (S_ISDIR(st.mode) && !recursive) {
        r = hv_fail(e, HV_USAGE, path, "is a folder");
        hv_hint(e, "give --recursive");
        return r;
    }
    return files_walk(fs, ino, recursive, sink, image, e);
}

/* ---- the command ---- */

static const char *base_of(const char *path, char buf[FS_NAME_MAX + 1])
{
    size_t n = strlen(path);

    while (n > 0 && path[n - 1] == '/') {
        n--;
    }
    size_t from = n;
    while (from > 0 && path[from - 1] != '/') {
        from--;
    }
    snprintf(buf, FS_NAME_MAX + 1, "%.*s", (int)MIN(n - from, FS_NAME_MAX), path + from);
    return strcmp(buf, ".") == 0 || strcmp(buf, "..") == 0 || strcmp(buf, "-") == 0 ? "" : buf;
}

struct copying {
    struct cli_call *call;
    const char *src, *dst;
    bool src_image, dst_image, recursive;
    struct image_path from, to;
    struct image from_im, to_im;
    struct target *t;
};

static int run_source(struct copying *k, const struct build_sink *sink, struct hv_error *e)
{
    if (k->src_image) {
        struct fs *fs = k->from_im.fs ? k->from_im.fs : k->to_im.fs;
        return from_image(fs, k->from.path, k->from.image, k->recursive, sink, e);
    }
    return strcmp(k->src, "-") == 0 ? from_stdin(sink, e) : from_host(k->src, k->recursive, sink, e);
}

static int owner(struct cli_call *c, struct target *t, struct hv_error *e)
{
    const char *text = cli_text(c, "owner", "0:0");
    char uid[16];
    const char *colon = strchr(text, ':');
    uint64_t u, g;

    t->force_root = strcmp(text, "keep") != 0;
    if (!t->force_root) {
        return 0;
    }
    if (!colon || colon - text >= (int)sizeof(uid)) {
        return hv_fail(e, HV_USAGE, text, "--owner takes UID:GID or keep");
    }
    snprintf(uid, sizeof(uid), "%.*s", (int)(colon - text), text);
    int r = parse_uint(uid, "--owner", 0, UINT32_MAX - 1, &u, e);
    if (r == 0) {
        r = parse_uint(colon + 1, "--owner", 0, UINT32_MAX - 1, &g, e);
    }
    if (r == 0) {
        t->uid = (uint32_t)u;
        t->gid = (uint32_t)g;
    }
    return r;
}

static int copy_in(struct copying *k, struct hv_error *e)
{
    hv_autofree struct inside *in = hv_alloc(sizeof(*in));
    struct build_sink sink = { .add = inside_add, .data = inside_data, .xattr = no_xattr, .want_data = true, .to_end = true,
                               .arg = in };
    char base[FS_NAME_MAX + 1];

    if (!in) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    in->t = (struct target){ .call = k->call, .name = k->to.image };
    int r = owner(k->call, &in->t, e);
    if (r < 0) {
        return r;
    }
    inside_begin(in, k->to_im.fs, k->to.path, base_of(k->src_image ? k->from.path : k->src, base));
    r = run_source(k, &sink, e);
    if (r == 0) {
        int r2 = inside_end(in);
        r = r2 < 0 ? inside_failed(in, r2, e) : 0;
    } else {
        inside_undo(in, r);
    }
    *k->t = in->t;
    return r;
}

static int copy_out(struct copying *k, struct hv_error *e)
{
    hv_autofree struct host *h = hv_alloc(sizeof(*h));
    struct build_sink sink = { .add = host_add, .data = host_data, .xattr = no_xattr, .want_data = true, .arg = h };
    struct hv_error why = { 0 };
    char base[FS_NAME_MAX + 1];

    if (!h) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    h->t = (struct target){ .call = k->call, .name = k->dst };
    h->fd = h->root = -1;
    int r = host_begin(h, k->dst, base_of(k->from.path, base), e);
    if (r == 0) {
        r = run_source(k, &sink, e);
    }
    int r2 = host_finish(h, &why);
    if (r == 0 && r2 < 0 && e) {
        *e = why;
    }
    *k->t = h->t;
    return r < 0 ? r : r2;
}

static int cp(struct cli_call *c, struct hv_error *e)
{
    hv_autofree struct copying *k = hv_alloc(sizeof(*k));
    struct target done = { .call = c };
    char size[24];
    int r = 0;

    if (!k) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    *k = (struct copying){ .call = c, .src = c->args[0], .dst = c->args[1], .recursive = cli_has(c, "recursive"),
                           .t = &done };
    k->src_image = image_path_parse(k->src, false, &k->from);
    k->dst_image = image_path_parse(k->dst, false, &k->to);
    if (k->src_image && strcmp(k->dst, "-") == 0) {
        r = hv_fail(e, HV_USAGE, k->dst, "cp makes files");
        hv_hint(e, "vhdtool cat %s", k->src);
        return r;
    }
    if (!k->src_image && !k->dst_image) {
        r = hv_fail(e, HV_USAGE, k->src, "neither this nor %s is in a disk", k->dst);
        hv_hint(e, "write IMAGE:/path for files in a disk");
        return r;
    }
    bool same = k->src_image && k->dst_image && strcmp(k->from.image, k->to.image) == 0;
    if (same && k->from.part != k->to.part) {
        return hv_fail(e, HV_UNSUPPORTED, k->src, "cannot copy between partitions of one disk");
    }
    if (k->dst_image) {
        r = image_open(c, &k->to, true, &k->to_im, e);
    }
    if (r == 0 && k->src_image && !same) {
        r = image_open(c, &k->from, false, &k->from_im, e);
    }
    if (r == 0) {
        r = k->dst_image ? copy_in(k, e) : copy_out(k, e);
    }
    if (k->from_im.disk) {
        image_close(&k->from_im, k->from.image, NULL);
    }
    if (k->to_im.disk) {
        struct hv_error why = { 0 };
        int r2 = image_close(&k->to_im, k->to.image, &why);
        if (r2 < 0 && r < 0) {
            cli_warn(c, k->to.image, "and the file system in it could not be put in order: vhdtool check");
        } else if (r2 < 0) {
            r = r2;
            if (e) {
                *e = why;
            }
        }
    }
    if (r == 0 && (done.files != 1 || c->verbose)) {
        cli_note(c, "%s: %llu files, %s", k->dst, (unsigned long long)done.files,
                 format_size(done.bytes, size, sizeof(size)));
    }
    if (r == 0 && done.skipped) {
        c->exit_code = HV_PARTIAL;
    }
    return r;
}

static const struct cli_arg cp_args[] = {
    {"SRC", CLI_FILE, .values = "*", .help = "a file or folder of this host, - or IMAGE[:N]:/path"},
    {"DST", CLI_FILE, .values = "*", .help = "the same; a folder gets the copy in it"}, {0}};

static const struct cli_option cp_options[] = {
    {.name = "recursive", .letter = 'r', .type = CLI_BOOL, .help = "folders with all that is in them"},
    {.name = "owner", .type = CLI_STRING, .arg = "UID:GID", .def = "0:0",
     .help = "of new files in a disk; keep: as in the source"},
    OPT_FORMAT,
    {0},
};

const struct cli_command cp_commands[] = {
    {.noun = "cp", .help = "copy files into and out of a disk", .args = cp_args, .options = cp_options,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT) | CODE(NO_RESOURCES) | CODE(UNSUPPORTED) | CODE(PARTIAL), .run = cp,
     .about = "Writes ext4, reads ext2, ext3, ext4, FAT and ISO 9660. A file that is there keeps owner and "
              "mode and gets the new content. An ext4 that was not unmounted is not written.",
     .examples = EXAMPLES({"vhdtool cp motd web.vhdx:/etc/motd", "into partition 1, or where the ext4 is"},
                          {"vhdtool cp -r web.vhdx:/var/log logs", "a folder out of it"},
                          {"vhdtool cp web.vhdx:/etc/fstab other.vhdx:/etc/", "from disk to disk"})},
    {0},
};
