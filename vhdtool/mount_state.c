/*
 * Which servers run: one file each, DIR/PID.json, that the server keeps locked. A lock that can
 * be had means that the server is gone: killed (the file is stale), or at its end (the file says
 * what went wrong when the disk was closed).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hv/base/paths.h"
#include "vhdtool/mount.h"

#define STATE_MAX (64 * KIB)

int mount_state_dir(char buf[4096], struct hv_error *e)
{
    struct hv_paths p;
    int r = hv_paths_init(HV_MODE_USER, &p, e);

    if (r == 0) {
        r = hv_make_dir(p.run, 0700, e);
    }
    snprintf(buf, 4096, "%s/mnt", p.run);
    return r < 0 ? r : hv_make_dir(buf, 0700, e);
}

int mount_state_write(const struct mounted *m, char path[4096], int *ret_fd, struct hv_error *e)
{
    char dir[4096];
    int r = mount_state_dir(dir, e);

    if (r < 0) {
        return r;
    }
    if (snprintf(path, 4096, "%s/%d.json", dir, (int)getpid()) >= 4096) {
        return hv_fail_errno(e, ENAMETOOLONG, dir, "cannot write");
    }
    hv_autoclose int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    json_t *o = json_pack("{s:s s:s s:i s:b s:b s:i}", "dir", m->dir, "image", m->image, "pid", (int)getpid(), "files",
                          m->is_tree, "write", m->write, "partition", m->is_tree ? (int)m->tree.part : 0);
    hv_autofree char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (fd < 0 || !text || flock(fd, LOCK_EX | LOCK_NB) < 0 || hv_write_all(fd, text, strlen(text)) < 0) {
        return hv_fail_errno(e, errno ? errno : EIO, path, "cannot write");
    }
    *ret_fd = hv_steal_fd(fd);
    return 0;
}

static int ends_in_json(const struct dirent *d)
{
    size_t n = strlen(d->d_name);

    return n > 5 && strcmp(d->d_name + n - 5, ".json") == 0;
}

int mount_state_each(int (*fn)(void *arg, const struct mount_state *s), void *arg, struct hv_error *e)
{
    struct dirent **names;
    char dir[4096];
    int r = mount_state_dir(dir, e), n;

    if (r < 0) {
        return r;
    }
    n = scandir(dir, &names, ends_in_json, alphasort);
    if (n < 0) {
        return hv_fail_errno(e, errno, dir, "cannot read");
    }
    for (int i = 0; i < n; i++) {
        struct mount_state s = { .alive = false };
        char *text;
        size_t len;
        snprintf(s.path, sizeof(s.path), "%.3800s/%.250s", dir, names[i]->d_name);
        int fd = r == 0 ? open(s.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
        if (fd >= 0) {
            s.alive = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
            if (!s.alive) {
                unlink(s.path);
            } else if (hv_read_file(s.path, STATE_MAX, &text, &len) == 0) {
                s.info = json_loads(text, 0, NULL);
                free(text);
                if (json_is_object(s.info)) {
                    r = fn(arg, &s);
                }
                json_decref(s.info);
            }
            close(fd);
        }
        free(names[i]);
    }
    free(names);
    return r;
}

int mount_state_wait(const char *path, uint64_t timeout_ns, char **ret_error)
{
    uint64_t until = timeout_ns ? hv_now_ns() + timeout_ns : UINT64_MAX;
    hv_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char *text;
    size_t len;

    *ret_error = NULL;
    if (fd < 0) {
        return errno == ENOENT ? 0 : -errno;         /* gone already */
    }
    while (flock(fd, LOCK_SH | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return -errno;
        }
        if (hv_now_ns() > until) {
            return -ETIMEDOUT;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 10 * 1000000 }, NULL);
    }
    if (hv_read_file(path, STATE_MAX, &text, &len) == 0) {
        json_t *o = json_loads(text, 0, NULL);
        const char *error = json_string_value(json_object_get(o, "error"));
        *ret_error = error ? hv_strdup(error) : NULL;
        json_decref(o);
        free(text);
        unlink(path);
    }
    return 0;
}

/* ---- who is in the way ---- */

static bool below(const char *path, const char *dir)
{
    size_t n = strlen(dir);

    return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static bool link_below(const char *link, const char *dir)
{
    char to[4096];
    ssize_t n = readlink(link, to, sizeof(to) - 1);

    if (n < 0) {
        return false;
    }
    to[n] = '\0';
    return below(to, dir);
}

static bool process_uses(const char *pid, const char *dir)
{
    static const char *const links[] = { "cwd", "root", "exe" };
    char path[600];
    bool uses = false;

    for (unsigned i = 0; i < ARRAY_SIZE(links) && !uses; i++) {
        snprintf(path, sizeof(path), "/proc/%s/%s", pid, links[i]);
        uses = link_below(path, dir);
    }
    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    DIR *d = uses ? NULL : opendir(path);
    for (struct dirent *en; d && !uses && (en = readdir(d));) {
        snprintf(path, sizeof(path), "/proc/%s/fd/%.255s", pid, en->d_name);
        uses = link_below(path, dir);
    }
    if (d) {
        closedir(d);
    }
    return uses;
}

static void add_user(char *buf, size_t size, const char *text)
{
    size_t used = strlen(buf);

    if (used + strlen(text) + 3 < size) {
        snprintf(buf + used, size - used, "%s%s", used ? ", " : "", text);
    }
}

void mount_users(const char *dir, char *buf, size_t size)
{
    char path[600], text[300], comm[64];
    char *content;
    size_t len;
    DIR *d = opendir("/proc");

    buf[0] = '\0';
    for (struct dirent *en; d && (en = readdir(d));) {
        if (strspn(en->d_name, "0123456789") == strlen(en->d_name) && strtol(en->d_name, NULL, 10) != getpid() && process_uses(en->d_name, dir)) {
            snprintf(path, sizeof(path), "/proc/%.20s/comm", en->d_name);
            comm[0] = '\0';
            if (hv_read_file(path, 63, &content, &len) == 0) {
                snprintf(comm, sizeof(comm), "%.*s", (int)strcspn(content, "\n"), content);
                free(content);
            }
            snprintf(text, sizeof(text), "%s (pid %.20s)", comm, en->d_name);
            add_user(buf, size, text);
        }
    }
    if (d) {
        closedir(d);
    }
    d = opendir("/sys/block");
    for (struct dirent *en; d && (en = readdir(d));) {
        snprintf(path, sizeof(path), "/sys/block/%.200s/loop/backing_file", en->d_name);
        if (strncmp(en->d_name, "loop", 4) == 0 && hv_read_file(path, 4096, &content, &len) == 0) {
            if (below(content, dir)) {
                snprintf(text, sizeof(text), "/dev/%.200s", en->d_name);
                add_user(buf, size, text);
            }
            free(content);
        }
    }
    if (d) {
        closedir(d);
    }
}
