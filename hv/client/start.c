/*
 * A user's own service runs when somebody asks for it. Who finds no service takes a
 * lock, looks again, starts hvd in a session of its own and waits until it answers:
 *
 *   connect -> refused -> lock? -> connect -> refused -> spawn once -+
 *      ^                   no: somebody else is starting it          |
 *      +-------- socket appears in the folder (inotify), or 20 ms ---+
 *
 * The lock is held until the connection stands, so a second client that gets it finds
 * the service there. A client that dies in between leaves a starting hvd; the next one
 * starts another, which sees the first one's own lock and ends: both clients connect.
 */
#include "hv/client/start.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/rpc/varlink.h"

#define RETRY_MS      20
#define EXIT_GRACE_NS (2 * NS_PER_SEC)
#define LOG_MAX       (4 * MIB)
#define LOG_TAIL      4096

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool found(char *buf, size_t size, const char *dir, int dir_len, const char *below)
{
    int n = snprintf(buf, size, "%.*s%s/hvd", dir_len, dir, below);

    return n > 0 && (size_t)n < size && is_program(buf);
}

int start_find_hvd(char *buf, size_t size)
{
    static const char *const fixed[] = { HV_PREFIX "/libexec/hv", HV_PREFIX "/sbin", HV_PREFIX "/bin" };
    char self[HV_PATH_SIZE];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n > 0) {
        self[n] = '\0';
        char *slash = strrchr(self, '/');
        int len = slash ? (int)(slash - self) : 0;
        /* Beside hvctl in a build folder; as installed, wherever the prefix was moved to. */
        if (slash && (found(buf, size, self, len, "") || found(buf, size, self, len, "/../libexec/hv"))) {
            return 0;
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++) {
        if (found(buf, size, fixed[i], (int)strlen(fixed[i]), "")) {
            return 0;
        }
    }
    for (const char *p = getenv("PATH"); p && *p; p += *p == ':') {
        int len = (int)strcspn(p, ":");
        /* an empty or relative entry would run whatever lies in the current folder */
        if (*p == '/' && found(buf, size, p, len, "")) {
            return 0;
        }
        p += len;
    }
    return -ENOENT;
}

static int open_log(const struct hv_paths *p)
{
    char old[HV_PATH_SIZE + 4];
    struct stat st;

    if (stat(p->log, &st) == 0 && (uint64_t)st.st_size > LOG_MAX) {
        snprintf(old, sizeof(old), "%s.old", p->log);
        rename(p->log, old);
    }
    int fd = open(p->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

/* In the child: nothing of the caller's may reach the service but its environment. */
static void become_service(const char *program, int log_fd, int null_fd, int error_fd)
{
    char *const argv[] = { (char[]){ "hvd" }, (char[]){ "--user" }, NULL };
    sigset_t none;

    sigemptyset(&none);
    for (int s = 1; s < NSIG; s++) {
        signal(s, SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(022);
    /* descriptors a shell or a test harness left open would be held for the life of the service */
    if (chdir("/") == 0 && dup2(null_fd, STDIN_FILENO) >= 0 && dup2(log_fd, STDOUT_FILENO) >= 0 &&
        dup2(log_fd, STDERR_FILENO) >= 0 &&
        syscall(SYS_close_range, 3u, ~0u, (unsigned)CLOSE_RANGE_CLOEXEC) == 0) {
        execv(program, argv);
    }
    int err = errno;
    if (write(error_fd, &err, sizeof(err)) < 0) {
        _exit(126);
    }
    _exit(127);
}

/*
 * Start it as a grandchild in a new session: it is nobody's child here and leaves no
 * zombie in a long-lived tool. *ret_pidfd: of the service, -1 if it ended already.
 */
static int spawn(const char *program, const struct hv_paths *p, int *ret_pidfd, struct hv_error *e)
{
    hv_autoclose int log_fd = open_log(p);
    hv_autoclose int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int error_pipe[2], pid_pipe[2], err = 0, status;
    pid_t service = -1;

    if (log_fd < 0) {
        return hv_fail_errno(e, -log_fd, p->log, "cannot open the log");
    }
    if (null_fd < 0) {
        return hv_fail_errno(e, errno, "/dev/null", "cannot open");
    }
    if (pipe2(error_pipe, O_CLOEXEC) < 0) {
        return hv_fail_errno(e, errno, program, "cannot start");
    }
    hv_autoclose int error_r = error_pipe[0], error_w = error_pipe[1];
    if (pipe2(pid_pipe, O_CLOEXEC) < 0) {
        return hv_fail_errno(e, errno, program, "cannot start");
    }
    hv_autoclose int pid_r = pid_pipe[0], pid_w = pid_pipe[1];

    pid_t child = fork();
    if (child < 0) {
        return hv_fail_errno(e, errno, program, "cannot start");
    }
    if (child == 0) {
        setsid();
        pid_t pid = fork();
        if (pid == 0) {
            become_service(program, log_fd, null_fd, error_w);
        }
        _exit(pid < 0 || write(pid_w, &pid, sizeof(pid)) != sizeof(pid));
    }
    close(hv_steal_fd(error_w));
    close(hv_steal_fd(pid_w));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (hv_read_all(pid_r, &service, sizeof(service)) < 0) {
        return hv_fail(e, HV_NO_RESOURCES, program, "cannot start: no further process");
    }
    *ret_pidfd = (int)syscall(SYS_pidfd_open, service, 0);
    /* the write end closes at exec: the end of the pipe means it runs */
    if (hv_read_all(error_r, &err, sizeof(err)) == 0) {
        if (*ret_pidfd >= 0) {
            close(*ret_pidfd);
            *ret_pidfd = -1;
        }
        return hv_fail_errno(e, err, program, "cannot start");
    }
    return 0;
}

/* The last line of the log, which is why a service ended; "" if there is none. */
static void last_log_line(const struct hv_paths *p, char *buf, size_t size)
{
    char tail[LOG_TAIL + 1];
    struct stat st;
    hv_autoclose int fd = open(p->log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    buf[0] = '\0';
    if (fd < 0 || fstat(fd, &st) < 0) {
        return;
    }
    ssize_t n = pread(fd, tail, LOG_TAIL, MAX(st.st_size - LOG_TAIL, 0));
    while (n > 0 && tail[n - 1] == '\n') {
        n--;
    }
    if (n <= 0) {
        return;
    }
    tail[n] = '\0';
    const char *line = strrchr(tail, '\n');
    line = line ? line + 1 : tail;
    hv_strlcpy(buf, strncmp(line, "hvd: ", 5) == 0 ? line + 5 : line, size);
}

static int gave_up(const struct hv_paths *p, bool ended, struct hv_error *e)
{
    char line[300];

    last_log_line(p, line, sizeof(line));
    int r = hv_fail(e, HV_UNREACHABLE, "user", "your own service %s%s%s",
                    ended ? "ended at once" : "does not answer", *line ? ": " : "", line);
    hv_hint(e, "look into %s", p->log);
    return r;
}

struct starting {
    const struct hv_paths *p;
    int lock_fd, notify_fd, pidfd;
    bool locked, spawned;
    uint64_t ended_ns;            /* when the service we started was seen to have ended */
};

/* Wait for a name in the folder, the end of what we started, or the next try. */
static void wait_for_change(struct starting *s)
{
    struct pollfd p[2] = { { .fd = s->notify_fd, .events = POLLIN }, { .fd = s->pidfd, .events = POLLIN } };
    char events[4096] __attribute__((aligned(8)));

    if (poll(p, 2, RETRY_MS) <= 0) {
        return;
    }
    if (p[0].revents) {
        while (read(s->notify_fd, events, sizeof(events)) > 0) {
        }
    }
    if (p[1].revents) {
        s->ended_ns = hv_now_ns();
        close(hv_steal_fd(s->pidfd));
    }
}

static int spawn_if_first(struct starting *s, struct hv_error *e)
{
    char program[HV_PATH_SIZE];

    if (s->spawned) {
        return 0;
    }
    if (!s->locked) {
        s->locked = flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0;
        return 0;                 /* with the lock fresh in hand, look once more before starting */
    }
    if (start_find_hvd(program, sizeof(program)) < 0) {
        int r = hv_fail(e, HV_NOT_FOUND, "hvd", "the service program is not installed");
        hv_hint(e, "install it beside hvctl or in " HV_PREFIX "/libexec/hv");
        return r;
    }
    int r = spawn(program, s->p, &s->pidfd, e);
    if (r == 0) {
        s->spawned = true;
        if (s->pidfd < 0) {
            s->ended_ns = hv_now_ns();
        }
    }
    return r;
}

static int connect_loop(struct starting *s, struct varlink_client **ret, struct hv_error *e)
{
    uint64_t end = hv_now_ns() + START_TIME_NS;

    for (;;) {
        bool was_locked = s->locked;
        int r = varlink_connect(s->p->socket, ret, e);
        if (r != -ECONNREFUSED) {
            return r;
        }
        r = spawn_if_first(s, e);
        if (r < 0) {
            return r;
        }
        if (s->locked && !was_locked) {
            continue;
        }
        uint64_t now = hv_now_ns();
        if (now >= end || (s->ended_ns && now - s->ended_ns > EXIT_GRACE_NS)) {
            return gave_up(s->p, s->ended_ns != 0, e);
        }
        wait_for_change(s);
    }
}

int start_and_connect(const struct hv_paths *p, struct varlink_client **ret, struct hv_error *e)
{
    hv_autofree char *lock = hv_asprintf("%s/start.lock", p->run);
    int r = varlink_connect(p->socket, ret, e);

    if (r != -ECONNREFUSED) {
        return r;
    }
    if (!lock) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    r = hv_paths_create(p, e);
    if (r < 0) {
        return r;
    }
    hv_autoclose int lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock_fd < 0) {
        return hv_fail_errno(e, errno, lock, "cannot open the lock");
    }
    struct starting s = { .p = p, .lock_fd = lock_fd, .pidfd = -1 };
    s.notify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (s.notify_fd >= 0) {
        inotify_add_watch(s.notify_fd, p->run, IN_CREATE | IN_MOVED_TO | IN_ATTRIB);
    }
    r = connect_loop(&s, ret, e);
    if (r == 0) {
        hv_error_clear(e);
    }
    hv_cleanup_close(&s.notify_fd);
    hv_cleanup_close(&s.pidfd);
    return r;
}
