/* The folders of the service; who may have prepared them for us is the question here. */
#include "hv/base/paths.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int HV_PRINTF(3, 4) put_path(char *buf, struct hv_error *e, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(buf, HV_PATH_SIZE, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= HV_PATH_SIZE) {
        return hv_fail(e, HV_USAGE, NULL, "the path of a folder is longer than %d bytes", HV_PATH_SIZE - 1);
    }
    return 0;
}

/* A real folder (no link) of the caller's, in which nobody else may make or replace a name. */
static bool dir_is_ours(const char *path, mode_t refused)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & refused);
}

static int user_state_dir(char *buf, struct hv_error *e)
{
    const char *dir = getenv("XDG_STATE_HOME");

    /* the base directory specification: relative paths are to be ignored */
    if (dir && *dir == '/') {
        return put_path(buf, e, "%s/hv", dir);
    }
    dir = getenv("HOME");
    if (!dir || *dir != '/') {
        const struct passwd *pw = getpwuid(geteuid());
        dir = pw ? pw->pw_dir : NULL;
    }
    if (!dir || *dir != '/') {
        int r = hv_fail(e, HV_USAGE, NULL, "no home folder is known for uid %u", (unsigned)geteuid());
        hv_hint(e, "set HOME or XDG_STATE_HOME");
        return r;
    }
    return put_path(buf, e, "%s/.local/state/hv", dir);
}

static int user_run_dir(char *buf, struct hv_error *e)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");
    unsigned uid = (unsigned)geteuid();
    char own[64];

    if (dir && *dir == '/' && dir_is_ours(dir, S_IWGRP | S_IWOTH)) {
        return put_path(buf, e, "%s/hv", dir);
    }
    snprintf(own, sizeof(own), "/run/user/%u", uid);
    if (dir_is_ours(own, S_IWGRP | S_IWOTH)) {
        return put_path(buf, e, "%s/hv", own);
    }
    snprintf(own, sizeof(own), "/tmp/hv-%u", uid);
    struct stat st;
    if (lstat(own, &st) == 0 && !dir_is_ours(own, S_IRWXG | S_IRWXO)) {
        int r = hv_fail(e, HV_DENIED, own, "belongs to somebody else or is open to others");
        hv_hint(e, "remove it, or set XDG_RUNTIME_DIR to a folder of your own");
        return r;
    }
    return put_path(buf, e, "%s", own);
}

int hv_paths_init(enum hv_mode mode, struct hv_paths *ret, struct hv_error *e)
{
    struct hv_paths p = { .mode = mode };
    int r;

    if (mode == HV_MODE_SYSTEM) {
        hv_strlcpy(p.state, "/var/lib/hv", sizeof(p.state));
        hv_strlcpy(p.run, "/run/hv", sizeof(p.run));
    } else {
        r = user_state_dir(p.state, e);
        if (r == 0) {
            r = user_run_dir(p.run, e);
        }
        if (r < 0) {
            return r;
        }
    }
    r = put_path(p.socket, e, "%s/%s", p.run, HV_MANAGER_SOCKET);
    if (r == 0) {
        r = put_path(p.log, e, "%s/hvd.log", p.state);
    }
    if (r == 0 && strlen(p.socket) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        r = hv_fail(e, HV_USAGE, p.socket, "the path of the socket is too long");
        hv_hint(e, "set XDG_RUNTIME_DIR to a shorter folder of your own");
    }
    if (r == 0) {
        *ret = p;
    }
    return r;
}

int hv_make_dir(const char *path, unsigned mode, struct hv_error *e)
{
    if (mkdir(path, (mode_t)mode) < 0 && errno != EEXIST) {
        return hv_fail_errno(e, errno, path, "cannot create the folder");
    }
    /* made by us just now or found: one check for both, so a race has nothing to win */
    if (!dir_is_ours(path, (S_IWGRP | S_IWOTH) & ~(mode_t)mode)) {
        return hv_fail(e, HV_DENIED, path, "is no folder of uid %u in which nobody else can write",
                       (unsigned)geteuid());
    }
    return 0;
}

/* The folders above path as mkdir -p makes them: whoever owns them, they are not ours to judge. */
static int make_parents(const char *path, struct hv_error *e)
{
    char part[HV_PATH_SIZE];

    hv_strlcpy(part, path, sizeof(part));
    for (char *p = strchr(part + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST) {
            return hv_fail_errno(e, errno, part, "cannot create the folder");
        }
        *p = '/';
    }
    return 0;
}

int hv_paths_create(const struct hv_paths *p, struct hv_error *e)
{
    bool system = p->mode == HV_MODE_SYSTEM;
    int r = make_parents(p->state, e);

    if (r == 0) {
        r = hv_make_dir(p->state, system ? 0755 : 0700, e);
    }
    if (r == 0) {
        r = hv_make_dir(p->run, system ? 0750 : 0700, e);
    }
    return r;
}
