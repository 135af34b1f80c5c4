/*
 * Paths that a caller names are opened with the caller's rights, not the service's: a
 * child takes on the peer's user and groups, opens, and passes the descriptor back.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/service/service.h"

#define TOLD_MAX ((size_t)4 << 20)
#define BROKER_LIMIT_MS 5000           /* a hung network file system must not hang the service */

static int check_file(int fd, const char *path, const char *what, bool disk, struct hv_error *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return hv_fail_errno(e, errno, path, "cannot look at the %s", what);
    if (S_ISREG(st.st_mode) || (disk && S_ISBLK(st.st_mode)))
        return 0;
    return hv_fail(e, HV_USAGE, path, disk ? "the %s is neither a file nor a block device" : "the %s is no regular file", what);
}

enum how { FOR_READING, FOR_WRITING, UNNAMED };

/* A file that nobody else finds. Where the file system cannot make it so, it has a name for a moment. */
static int open_unnamed(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    if (errno != EOPNOTSUPP && errno != EISDIR)
        return -errno;
    hv_autofree char *path = hv_asprintf("%s/.hv-paging-XXXXXX", dir);
    fd = path ? mkostemp(path, O_CLOEXEC) : -1;
    if (fd < 0)
        return path ? -errno : -ENOMEM;
    if (unlink(path) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

/*
 * A file of /proc or /sys has 0 or 4096 bytes by its own account, whatever can be read of it: what it tells its reader,
 * who is the caller here, in memory. Takes fd; other files are themselves. -EFBIG: more than anybody waits for.
 */
static int as_file(int fd)
{
    struct stat st;
    struct statfs fs;
    char buf[65536];
    size_t len = 0;
    ssize_t n;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || fstatfs(fd, &fs) < 0 ||
        (fs.f_type != PROC_SUPER_MAGIC && fs.f_type != SYSFS_MAGIC && fs.f_type != CGROUP2_SUPER_MAGIC))
        return fd;
    hv_autoclose int from = fd, copy = memfd_create("hv-copy", MFD_CLOEXEC);
    int r = copy < 0 ? -errno : 0;
    while (r == 0 && (n = read(from, buf, sizeof(buf))) != 0) {
        if (n > 0)
            len += (size_t)n;
        if (n > 0 || errno != EINTR)
            r = n < 0 ? -errno : len > TOLD_MAX ? -EFBIG : hv_write_all(copy, buf, (size_t)n);
    }
    return r < 0 ? r : hv_steal_fd(copy);
}

static int open_path(const char *path, enum how how)
{
    const bool writing = how == FOR_WRITING;
    if (how == UNNAMED)
        return open_unnamed(path);
    int fd = open(path, (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : how == FOR_READING ? as_file(fd) : fd;
}

/* In the child: become the peer; groups by name service, which for a service of root is the system's. */
static int become(const struct varlink_peer *peer)
{
    struct passwd *pw = getpwuid(peer->uid);
    int r = pw ? initgroups(pw->pw_name, peer->gid) : setgroups(0, NULL);
    if (r < 0 || setresgid(peer->gid, peer->gid, peer->gid) < 0 || setresuid(peer->uid, peer->uid, peer->uid) < 0)
        return -errno;
    return 0;
}

static void send_fd(int sock, int fd_or_err)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {.iov_base = &fd_or_err, .iov_len = sizeof(fd_or_err)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_or_err >= 0) {
        msg.msg_control = control;
        msg.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd_or_err, sizeof(int));
    }
    (void)sendmsg(sock, &msg, MSG_NOSIGNAL);
}

static int receive_fd(int sock)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    int answer = -EIO;
    struct iovec iov = {.iov_base = &answer, .iov_len = sizeof(answer)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct pollfd p = {.fd = sock, .events = POLLIN};
    if (poll(&p, 1, BROKER_LIMIT_MS) != 1)
        return -ETIMEDOUT;
    if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(answer))
        return -EIO;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (!c || c->cmsg_type != SCM_RIGHTS)
        return answer < 0 ? answer : -EIO;
    memcpy(&answer, CMSG_DATA(c), sizeof(int));
    return answer;
}

static int open_as(const struct varlink_peer *peer, const char *path, enum how how)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        int r = become(peer);
        send_fd(pair[1], r < 0 ? r : open_path(path, how));
        _exit(0);
    }
    int r = pid < 0 ? -errno : 0;
    close(pair[1]);
    if (r == 0) {
        r = receive_fd(pair[0]);
        if (r == -ETIMEDOUT)
            kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    close(pair[0]);
    return r;
}

static int broker(const struct varlink_peer *peer, const char *path, const char *what, bool disk, enum how how,
                  struct hv_error *e)
{
    bool as_is = !peer || peer->uid == getuid() || getuid() != 0;
    int fd = as_is ? open_path(path, how) : open_as(peer, path, how);
    if (fd < 0) {
        hv_fail_errno(e, -fd, path, how == UNNAMED ? "cannot make the %s" : "cannot open the %s", what);
        if (fd == -EACCES && how == FOR_WRITING)
            hv_hint(e, "give write access, or attach it with --read-only");
        return fd;
    }
    int r = check_file(fd, path, what, disk, e);
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

int broker_open(const struct varlink_peer *peer, const char *path, const char *what, struct hv_error *e)
{
    return broker(peer, path, what, false, FOR_READING, e);
}

int broker_open_disk(const struct varlink_peer *peer, const char *path, bool writing, struct hv_error *e)
{
    return broker(peer, path, "disk", true, writing ? FOR_WRITING : FOR_READING, e);
}

int broker_open_unnamed(const struct varlink_peer *peer, const char *dir, const char *what, struct hv_error *e)
{
    return broker(peer, dir, what, false, UNNAMED, e);
}
