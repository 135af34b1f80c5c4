/*
 * What an hvd leaves on disk of a worker, for the one that comes after it, beside the worker's
 * socket in the run-time folder:
 *
 *   GUID.pid     process and its start time, written before the process does anything
 *   GUID.exit    how the VM ended, written by the worker itself; empty while it runs
 *
 * A process number alone says little: numbers come back. With the start time it is one process
 * for ever, and what a worker says of itself is never taken for its number.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/service/service.h"

#define EXIT_NOTE_MAX (4 * KIB)

/* Field 22 of /proc/PID/stat, clock ticks after boot; 0 if there is no such process. */
static unsigned long long start_time(pid_t pid)
{
    char path[64];
    hv_autofree char *text = NULL;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (hv_read_file(path, 64 * KIB, &text, NULL) < 0)
        return 0;
    const char *p = strrchr(text, ')');              /* the name may hold anything */
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

static char *beside(const char *socket, const char *suffix) { return hv_asprintf("%s.%s", socket, suffix); }

int record_write(const char *socket, pid_t pid)
{
    char text[64];
    hv_autofree char *path = beside(socket, "pid");
    if (!path)
        return -ENOMEM;
    int n = snprintf(text, sizeof(text), "%d %llu\n", (int)pid, start_time(pid));
    return hv_replace_file(path, text, (size_t)n, 0600);
}

int record_open(const char *socket, pid_t *ret_pid, int *ret_pidfd)
{
    hv_autofree char *path = beside(socket, "pid");
    hv_autofree char *text = NULL;
    int pid = 0;
    unsigned long long started = 0;
    if (!path)
        return -ENOMEM;
    int r = hv_read_own_file(path, 64, &text, NULL);
    if (r < 0)
        return r == -ENOENT ? -ESRCH : r;
    if (sscanf(text, "%d %llu", &pid, &started) != 2 || pid <= 0)
        return -ESRCH;
    hv_autoclose int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return errno == EINVAL ? -ESRCH : -errno;
    /* Looked at with the descriptor in hand: it is the process of that time, or another one's. */
    if (start_time(pid) != started || poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) != 0)
        return -ESRCH;
    *ret_pid = pid;
    *ret_pidfd = hv_steal_fd(fd);
    return 0;
}

int record_exit_note(const char *socket)
{
    hv_autofree char *path = beside(socket, "exit");
    int fd = path ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    return fd < 0 ? -errno : fd;
}

json_t *record_exit(const char *socket)
{
    hv_autofree char *path = beside(socket, "exit");
    hv_autofree char *text = NULL;
    if (!path || hv_read_own_file(path, EXIT_NOTE_MAX, &text, NULL) < 0)
        return NULL;
    json_t *o = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    if (!json_is_object(o)) {
        json_decref(o);
        return NULL;
    }
    return o;
}

void record_remove(const char *socket)
{
    static const char *const suffixes[] = {"pid", "exit"};
    for (unsigned i = 0; i < ARRAY_SIZE(suffixes); i++) {
        hv_autofree char *path = beside(socket, suffixes[i]);
        if (path)
            unlink(path);
    }
    /* Last: while the socket is there its user is taken (uids.c). */
    unlink(socket);
}
