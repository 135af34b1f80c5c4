/* Walking paths, and which reader a partition gets. */
#include "hv/fs/fs.h"

#include <errno.h>
#include <sys/stat.h>

#include "hv/fs/ext4.h"
#include "hv/fs/fat.h"

int fs_open(struct disk *d, uint64_t off, uint64_t len, bool write, struct fs **ret, struct hv_error *e)
{
    struct probe p;
    int r = probe_read(d, off, len, &p);

    if (r < 0) {
        return hv_fail_errno(e, -r, NULL, "cannot read the file system");
    }
    if (p.kind == PROBE_EXT) {
        return ext4_open(d, off, len, write, ret, e);
    }
    if (p.kind == PROBE_FAT && !write) {
        return fat_open(d, off, len, ret, e);
    }
    if (p.kind == PROBE_NONE) {
        hv_fail(e, HV_UNSUPPORTED, NULL, "no file system found");
    } else if (p.kind == PROBE_FAT) {
        hv_fail(e, HV_UNSUPPORTED, NULL, "vfat can only be read");
    } else {
        hv_fail(e, HV_UNSUPPORTED, NULL, "%s cannot be read, only ext2, ext3, ext4 and vfat", p.type);
    }
    return -EOPNOTSUPP;
}

int fs_close(struct fs *fs)
{
    return fs ? fs->ops->close(fs) : 0;
}

/* stack[depth] are the folders walked through, for '..'. */
struct walk {
    struct fs *fs;
    uint64_t stack[FS_PATH_MAX / 2];
    unsigned depth;
    char todo[2 * FS_PATH_MAX];
};

static int is_dir(struct fs *fs, uint64_t ino)
{
    struct fs_stat st;
    int r = fs->ops->stat(fs, ino, &st);

    return r < 0 ? r : S_ISDIR(st.mode) ? 0 : -ENOTDIR;
}

/* Puts what the link says before what is left of the path. */
static int follow(struct walk *w, uint64_t ino, const char *rest)
{
    char target[FS_PATH_MAX];
    int r = w->fs->ops->readlink ? w->fs->ops->readlink(w->fs, ino, target, sizeof(target)) : -ELOOP;

    if (r < 0) {
        return r;
    }
    size_t len = strlen(target), left = strlen(rest);
    if (len + left + 2 > sizeof(w->todo)) {
        return -ENAMETOOLONG;
    }
    memmove(w->todo + len + 1, rest, left + 1);
    memcpy(w->todo, target, len);
    w->todo[len] = '/';
    if (target[0] == '/') {
        w->depth = 0;
    }
    return 0;
}

static int walk(struct fs *fs, const char *path, bool follow_last, bool parent, uint64_t *ret, char *name)
{
    hv_autofree struct walk *w = hv_alloc(sizeof(*w));
    unsigned links = 0;
    char part[FS_NAME_MAX + 1];
    int r;

    if (!w) {
        return -ENOMEM;
    }
    w->fs = fs;
    w->stack[0] = fs->ops->root;
    if (!hv_strlcpy(w->todo, path, FS_PATH_MAX)) {
        return -ENAMETOOLONG;
    }
    for (const char *p = w->todo;;) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        const char *rest = p + len;
        bool last = rest[strspn(rest, "/")] == '\0';
        if (len == 0) {
            break;
        }
        if (len > FS_NAME_MAX) {
            return -ENAMETOOLONG;
        }
        memcpy(part, p, len);
        part[len] = '\0';
        p = rest;
        r = is_dir(fs, w->stack[w->depth]);
        if (r < 0) {
            return r;
        }
        if (strcmp(part, ".") == 0) {
            continue;
        }
        if (strcmp(part, "..") == 0) {
            w->depth -= w->depth > 0;
            continue;
        }
        if (last && parent) {
            memcpy(name, part, len + 1);
            *ret = w->stack[w->depth];
            return 0;
        }
        uint64_t ino;
        struct fs_stat st;
        r = fs->ops->lookup(fs, w->stack[w->depth], part, &ino);
        if (r == 0) {
            r = fs->ops->stat(fs, ino, &st);
        }
        if (r < 0) {
            return r;
        }
        if (S_ISLNK(st.mode) && (!last || follow_last || rest[0] == '/')) {
            if (++links > FS_LINKS_MAX) {
                return -ELOOP;
            }
            r = follow(w, ino, rest);
            if (r < 0) {
                return r;
            }
            p = w->todo;
            continue;
        }
        if (w->depth + 1 >= ARRAY_SIZE(w->stack)) {
            return -ENAMETOOLONG;
        }
        w->stack[++w->depth] = ino;
    }
    if (parent) {
        return -EINVAL;
    }
    *ret = w->stack[w->depth];
    return 0;
}

int fs_walk(struct fs *fs, const char *path, bool follow_last, uint64_t *ret_ino)
{
    return walk(fs, path, follow_last, false, ret_ino, NULL);
}

int fs_walk_parent(struct fs *fs, const char *path, uint64_t *ret_dir, char *name)
{
    return walk(fs, path, true, true, ret_dir, name);
}
