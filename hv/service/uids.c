/*
 * Users for the workers of a root service, so that no worker can signal, trace or read another
 * even where a namespace is missing. A lease is one symbolic link:
 *
 *   /run/hv-uids/1879048192 -> /run/hv/workers/GUID       (the worker's socket)
 *
 * Making a link is atomic and shows its holder; a lease whose socket is gone is free, whoever
 * left it. The folder is one for all services of root (the system's, and root's own), which
 * share the range; a lock on it covers looking and taking.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/service/service.h"

#define LEASES "/run/hv-uids"
/* systemd's table of user numbers (UIDS-GIDS.md) has 1879048192 to 2147352575 as unused. */
#define FIRST_UID 1879048192u
#define UID_COUNT 16384u

static int lock_leases(int *ret)
{
    struct hv_error e = {0};
    int r = hv_make_dir(LEASES, 0700, &e);
    int fd = r < 0 ? r : open(LEASES, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return r < 0 ? r : -errno;
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR) {
            r = -errno;
            close(fd);
            return r;
        }
    *ret = fd;
    return 0;
}

static void lease_name(uid_t uid, char *buf, size_t size) { snprintf(buf, size, "%u", (unsigned)uid); }

/* Whose lease it is; "" for none. */
static void holder(int dir, const char *name, char *buf, size_t size)
{
    ssize_t n = readlinkat(dir, name, buf, size - 1);
    buf[MAX(n, 0)] = 0;
}

/* The number of a lease, SPAWN_NO_UID if the name is none. */
static uid_t lease_uid(const char *name)
{
    char *end;
    unsigned long n = strtoul(name, &end, 10);
    return *end || end == name || n < FIRST_UID || n >= FIRST_UID + UID_COUNT ? SPAWN_NO_UID : (uid_t)n;
}

static bool stale(const char *socket)
{
    struct stat st;
    return lstat(socket, &st) < 0 && errno == ENOENT;
}

int uid_lease(const char *socket, uid_t *ret)
{
    hv_autoclose int dir = -1;
    int r = lock_leases(&dir);
    for (unsigned i = 0; r == 0 && i < UID_COUNT; i++) {
        char name[16], who[HV_PATH_SIZE + 64];
        lease_name(FIRST_UID + i, name, sizeof(name));
        holder(dir, name, who, sizeof(who));
        if (who[0] && !stale(who))
            continue;
        if (who[0])
            unlinkat(dir, name, 0);
        if (symlinkat(socket, dir, name) == 0) {
            *ret = FIRST_UID + i;
            return 0;
        }
        if (errno != EEXIST)
            r = -errno;
    }
    return r < 0 ? r : -EUSERS;
}

uid_t uid_of(const char *socket)
{
    hv_autoclose int dir = -1;
    uid_t found = SPAWN_NO_UID;
    DIR *d = lock_leases(&dir) == 0 ? opendir(LEASES) : NULL;
    for (struct dirent *de; d && found == SPAWN_NO_UID && (de = readdir(d));) {
        char who[HV_PATH_SIZE + 64];
        holder(dir, de->d_name, who, sizeof(who));
        if (strcmp(who, socket) == 0)
            found = lease_uid(de->d_name);
    }
    if (d)
        closedir(d);
    return found;
}

void uid_release(uid_t uid, const char *socket)
{
    char name[16], who[HV_PATH_SIZE + 64];
    hv_autoclose int dir = -1;
    if (uid == SPAWN_NO_UID || lock_leases(&dir) < 0)
        return;
    lease_name(uid, name, sizeof(name));
    /* The socket went first: another service may have found the lease free and taken it. */
    holder(dir, name, who, sizeof(who));
    if (strcmp(who, socket) == 0 && unlinkat(dir, name, 0) < 0)
        log_warning("%s/%s: %s", LEASES, name, strerror(errno));
}
