/*
 * clone3, and what happens between it and exec, in the child:
 *
 *   parent: clone3 ─▶ user map ─▶ before() ─▶ "go" ───────────────▶ reads report: end = it runs
 *   child:            waits for "go" ─▶ user, groups ─▶ descriptors ─▶ execveat ─┘ or what failed
 *
 * A child that never hears "go", because the service died, ends: so no process runs that was
 * not written down by before().
 */
#include "hv/service/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALL_NAMESPACES (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
#define ARGS_MAX 16

extern char **environ;

static const struct { unsigned bit; const char *word; } namespace_words[] = {
    {CLONE_NEWUSER, "user"}, {CLONE_NEWNS, "mount"}, {CLONE_NEWPID, "pid"},
    {CLONE_NEWNET, "network"}, {CLONE_NEWIPC, "ipc"}, {CLONE_NEWUTS, "host name"},
};

const char *spawn_namespace_words(unsigned bits, char *buf, size_t size)
{
    size_t len = 0;
    buf[0] = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(namespace_words); i++)
        if (bits & namespace_words[i].bit && len < size)
            len += (size_t)snprintf(buf + len, size - len, "%s%s", len ? ", " : "", namespace_words[i].word);
    return buf;
}

enum stage { STAGE_IDS, STAGE_FDS, STAGE_EXEC, STAGE_COUNT };
static const char *const stage_words[STAGE_COUNT] = {"a user of its own", "its descriptors", "its program"};

struct report { int stage, err; };

/* What the child needs; every descriptor is 10 or more, so that dup2 below hits none of them. */
struct plan {
    const struct spawn_config *c;
    unsigned namespaces;
    bool own_uid;
    int go_r, go_w, report_r, report_w, exe, null, listen, out;
    char *argv[ARGS_MAX], **envp;
    char peer[32];
};

/* ---- in the child ---- */

static HV_NORETURN void child_fail(const struct plan *p, enum stage stage, int err)
{
    const struct report r = {.stage = stage, .err = err};
    _exit(write(p->report_w, &r, sizeof(r)) == sizeof(r) ? 127 : 126);
}

/* Without a user namespace root's worker keeps what it needs to empty its root folder, and gives it up then. */
static int keep_mount_rights(void)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    const unsigned caps[] = {CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SETPCAP};
    struct __user_cap_data_struct d[2] = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(caps); i++)
        d[0].effective |= 1u << caps[i];
    d[0].permitted = d[0].inheritable = d[0].effective;
    if (syscall(SYS_capset, &h, d) < 0)
        return -errno;
    for (unsigned i = 0; i < ARRAY_SIZE(caps); i++)
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, caps[i], 0, 0) < 0)
            return -errno;
    return 0;
}

static int take_ids(const struct plan *p)
{
    const bool user_ns = p->namespaces & CLONE_NEWUSER;
    /* The map has one user, and shows it as 0 inside. */
    const uid_t uid = user_ns ? 0 : p->c->uid;
    if (!p->own_uid)
        return 0;
    if (!user_ns && p->namespaces & CLONE_NEWNS && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return -errno;
    if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
        return -errno;
    return !user_ns && p->namespaces & CLONE_NEWNS ? keep_mount_rights() : 0;
}

static int place_fds(const struct plan *p)
{
    if (dup2(p->null, 0) < 0 || dup2(p->out >= 0 ? p->out : 2, 1) < 0 || dup2(1, 2) < 0 ||
        (p->listen >= 0 && dup2(p->listen, SPAWN_LISTEN_FD) < 0))
        return -errno;
    const unsigned first = p->listen >= 0 ? SPAWN_LISTEN_FD + 1 : SPAWN_LISTEN_FD;
    return syscall(SYS_close_range, first, ~0u, CLOSE_RANGE_CLOEXEC) < 0 ? -errno : 0;
}

static HV_NORETURN void child(const struct plan *p)
{
    char go;
    sigset_t none;
    close(p->go_w);
    if (read(p->go_r, &go, 1) != 1)
        _exit(125);
    sigemptyset(&none);
    for (int s = 1; s < NSIG; s++)
        if (s != SIGKILL && s != SIGSTOP)
            signal(s, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    umask(077);
    int r = take_ids(p);
    if (r < 0)
        child_fail(p, STAGE_IDS, -r);
    r = place_fds(p);
    if (r < 0 || chdir("/") < 0)
        child_fail(p, STAGE_FDS, r < 0 ? -r : errno);
    syscall(SYS_execveat, p->exe, "", p->argv, p->envp, AT_EMPTY_PATH);
    child_fail(p, STAGE_EXEC, errno);
}

/* ---- in the service ---- */

static pid_t make_process(unsigned flags, int *ret_pidfd)
{
    struct clone_args a = {.flags = flags | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)ret_pidfd, .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)syscall(SYS_clone3, &a, sizeof(a));
    /* Container run-times answer so for what they do not know: plain fork is there, without namespaces. */
    if (pid < 0 && errno == ENOSYS && !flags && (pid = fork()) > 0)
        *ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return pid;
}

static int put(pid_t pid, const char *file, const char *text)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    hv_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
}

/* One user is known inside: the leased one, or the service's own. */
static int map_user(const struct plan *p, pid_t pid)
{
    char line[64];
    const uid_t uid = p->own_uid ? p->c->uid : geteuid();
    const gid_t gid = p->own_uid ? (gid_t)p->c->uid : getegid();
    int r = 0;
    /* An ordinary user may map groups only where none can be dropped (user_namespaces(7)). */
    if (geteuid() != 0)
        r = put(pid, "setgroups", "deny");
    snprintf(line, sizeof(line), "0 %u 1", (unsigned)gid);
    if (r == 0)
        r = put(pid, "gid_map", line);
    snprintf(line, sizeof(line), "0 %u 1", (unsigned)uid);
    return r == 0 ? put(pid, "uid_map", line) : r;
}

/* The service's user as the worker will see it. */
static unsigned peer_uid(const struct plan *p)
{
    uint64_t overflow = 65534;
    hv_autofree char *text = NULL;
    if (!(p->namespaces & CLONE_NEWUSER))
        return geteuid();
    if (!p->own_uid)
        return 0;
    if (hv_read_file("/proc/sys/kernel/overflowuid", 32, &text, NULL) == 0)
        overflow = strtoull(text, NULL, 10);
    return (unsigned)overflow;
}

static void end_child(struct spawn_result *r)
{
    siginfo_t info;
    kill(r->pid, SIGKILL);
    while (waitid(P_PID, (id_t)r->pid, &info, WEXITED) < 0 && errno == EINTR) {
    }
    hv_cleanup_close(&r->pidfd);
    r->pid = 0;
}

/* One try. 0, or -errno and the stage; STAGE_COUNT: the process or its user map was refused. */
static int attempt(struct plan *p, struct spawn_result *r, enum stage *ret_stage)
{
    int go[2], rep[2];
    *ret_stage = STAGE_COUNT;
    *r = (struct spawn_result){.pidfd = -1};
    if (pipe2(go, O_CLOEXEC) < 0)
        return -errno;
    hv_autoclose int go_r = fcntl(go[0], F_DUPFD_CLOEXEC, 10), go_w = fcntl(go[1], F_DUPFD_CLOEXEC, 10);
    close(go[0]);
    close(go[1]);
    if (go_r < 0 || go_w < 0 || pipe2(rep, O_CLOEXEC) < 0)
        return -errno;
    hv_autoclose int rep_r = fcntl(rep[0], F_DUPFD_CLOEXEC, 10), rep_w = fcntl(rep[1], F_DUPFD_CLOEXEC, 10);
    close(rep[0]);
    close(rep[1]);
    if (rep_r < 0 || rep_w < 0)
        return -errno;
    p->go_r = go_r, p->go_w = go_w, p->report_r = rep_r, p->report_w = rep_w;
    snprintf(p->peer, sizeof(p->peer), "--peer-uid=%u", peer_uid(p));
    r->pid = make_process(p->namespaces, &r->pidfd);
    if (r->pid == 0)
        child(p);
    if (r->pid < 0)
        return -errno;
    close(hv_steal_fd(go_r));
    close(hv_steal_fd(rep_w));
    int err = r->pidfd < 0 ? -EMFILE : 0;
    if (err == 0 && p->namespaces & CLONE_NEWUSER)
        err = map_user(p, r->pid);
    if (err == 0 && p->c->before && (err = p->c->before(p->c->arg, r->pid)) < 0)
        *ret_stage = STAGE_FDS;
    struct report said = {0};
    if (err == 0 && write(go_w, "g", 1) != 1)
        err = -errno;
    /* The pipe closes at exec. */
    if (err == 0 && hv_read_all(rep_r, &said, sizeof(said)) == 0) {
        *ret_stage = (unsigned)said.stage < STAGE_COUNT ? (enum stage)said.stage : STAGE_EXEC;
        err = -said.err;
    }
    if (err < 0)
        end_child(r);
    return err;
}

/* Of the service's environment only what is for diagnosis. */
static char **clean_environment(void)
{
    static const char *const kept[] = {"HV_DEBUG=", "HV_FAULT=", "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS=",
                                       "LD_LIBRARY_PATH=", "LD_PRELOAD="};
    char **list = hv_alloc_array(ARRAY_SIZE(kept) + 1, sizeof(*list));
    unsigned n = 0;
    for (char **v = environ; list && *v && n < ARRAY_SIZE(kept); v++)
        for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
            if (strncmp(*v, kept[i], strlen(kept[i])) == 0)
                list[n++] = *v;
    return list;
}

static int high_copy(int fd) { return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 10); }

/* The first thing that was refused is what an operator can look for. */
static void note_refusal(const struct plan *p, enum stage stage, int err, char *why, size_t size)
{
    if (!why[0])
        snprintf(why, size, "%s: %s", stage == STAGE_IDS ? stage_words[stage] :
                 p->namespaces & CLONE_NEWUSER ? "namespaces with one for users" : "namespaces", strerror(-err));
}

int spawn_process(const struct spawn_config *c, struct spawn_result *ret, struct hv_error *e)
{
    const bool root = geteuid() == 0, lease = root && c->uid != SPAWN_NO_UID;
    /* Strongest first. Only root can make the others without a user namespace. */
    const struct { unsigned namespaces; bool uid, use; } ways[] = {
        {ALL_NAMESPACES, true, lease},
        {ALL_NAMESPACES & ~CLONE_NEWUSER, true, lease},
        {ALL_NAMESPACES, false, true},
        {0, true, lease},
        {0, false, true},
    };
    hv_autoclose int exe = open(c->program, O_RDONLY | O_CLOEXEC);
    if (exe < 0)
        return hv_fail_errno(e, errno, c->program, "cannot be run");
    hv_autoclose int exe_high = high_copy(exe), listen = high_copy(c->listen_fd), out = high_copy(c->out_fd);
    hv_autoclose int null = open("/dev/null", O_RDWR | O_CLOEXEC), null_high = high_copy(null);
    hv_autofree char **envp = clean_environment();
    struct plan p = {.c = c, .exe = exe_high, .listen = listen, .out = out, .null = null_high, .envp = envp};
    p.argv[0] = c->argv[0];
    p.argv[1] = p.peer;
    for (unsigned n = 1; c->argv[n] && n + 2 < ARGS_MAX; n++)
        p.argv[n + 1] = c->argv[n];
    if (!envp || exe_high < 0 || null_high < 0)
        return hv_fail(e, HV_NO_RESOURCES, c->program, "cannot be run: no memory or descriptors are left");
    char why[sizeof(ret->why_not)] = "";
    enum stage stage = STAGE_COUNT;
    int r = -EINVAL;
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        if (!ways[i].use)
            continue;
        p.namespaces = ways[i].namespaces;
        p.own_uid = ways[i].uid;
        r = attempt(&p, ret, &stage);
        if (r == 0) {
            ret->namespaces = p.namespaces;
            ret->own_uid = p.own_uid;
            hv_strlcpy(ret->why_not, why, sizeof(ret->why_not));
            return 0;
        }
        if (stage == STAGE_FDS || stage == STAGE_EXEC)
            break;                     /* no weaker way helps */
        note_refusal(&p, stage, r, why, sizeof(why));
    }
    return hv_fail_errno(e, -r, c->program, "cannot be run%s%s", stage < STAGE_COUNT ? ": " : "",
                         stage < STAGE_COUNT ? stage_words[stage] : "");
}
