/*
 * A worker made hostile after its seal: every attempt has to fail, one test each.
 *
 * The payload is this program again, started by the service's own spawn_process() and confined
 * by the worker's own sandbox_confine() and sandbox_seal(). It does one thing and says "reached"
 * when it was let through. A second program, the victim, stands for another VM's worker: its
 * process number, a secret at a known address of it, its control socket and its disk are what
 * attempts on others aim at.
 *
 * All of it runs twice: as it is called, and, if that was root, as an ordinary user.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/close_range.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/base/base.h"
#include "hv/service/spawn.h"
#include "hv/worker/sandbox.h"

#define ORDINARY_USER 65534
#define SECRET "another guest's memory"

/* What attempts on others aim at; written into the payload's arguments. */
static struct {
    pid_t victim, parent;
    unsigned long secret;
    char socket[108], disk[108];
} aim;

#define FAILED(x) ((long)(x) < 0)
static bool opens(const char *path, int flags) { int fd = open(path, flags); return fd >= 0; }

/* ---- the attempts: true when it was let through ---- */

static bool try_open(void) { return !FAILED(syscall(SYS_open, "/etc/passwd", O_RDONLY)); }
static bool try_openat(void) { return opens("/etc/passwd", O_RDONLY); }
static bool try_openat2(void)
{
    const uint64_t how[3] = {O_RDONLY};
    return !FAILED(syscall(437, AT_FDCWD, "/etc/passwd", how, sizeof(how)));
}
static bool try_open_root(void) { return opens("/", O_RDONLY | O_DIRECTORY); }
static bool try_open_write(void) { return opens("/tmp/hv-hostile", O_CREAT | O_WRONLY); }
static bool try_open_tmpfile(void) { return opens("/", O_TMPFILE | O_RDWR); }
static bool try_creat(void) { return !FAILED(syscall(SYS_creat, "/hv-hostile", 0600)); }
static bool try_mknod(void) { return !FAILED(mknod("/hv-hostile", S_IFREG | 0600, 0)); }
static bool try_mkdir(void) { return !FAILED(mkdir("/hv-hostile", 0700)); }
static bool try_unlink(void) { return !FAILED(unlink(aim.disk)); }
static bool try_rename(void) { return !FAILED(rename(aim.disk, "/tmp/hv-hostile")); }
static bool try_symlink(void) { return !FAILED(symlink("/etc", "/hv-hostile")); }
static bool try_stat(void) { struct stat st; return stat("/etc/passwd", &st) == 0; }
static bool try_readlink(void) { char b[64]; return !FAILED(readlink("/proc/self/exe", b, sizeof(b))); }
static bool try_chmod(void) { return !FAILED(chmod(aim.disk, 0777)); }
static bool try_handle(void)
{
    struct { struct file_handle h; char rest[128]; } h = {.h.handle_bytes = 128};
    int id;
    return !FAILED(name_to_handle_at(AT_FDCWD, "/", &h.h, &id, 0)) || !FAILED(open_by_handle_at(0, &h.h, O_RDONLY));
}
static bool try_io_uring(void)
{
    struct io_uring_params p = {0};
    return !FAILED(syscall(SYS_io_uring_setup, 8, &p));
}
static bool try_socket_unix(void) { return !FAILED(socket(AF_UNIX, SOCK_STREAM, 0)); }
static bool try_socket_inet(void) { return !FAILED(socket(AF_INET, SOCK_STREAM, 0)); }
static bool try_socket_netlink(void) { return !FAILED(socket(AF_NETLINK, SOCK_RAW, 0)); }
static bool try_socketpair(void) { int p[2]; return !FAILED(socketpair(AF_UNIX, SOCK_STREAM, 0, p)); }
static bool try_connect(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    hv_strlcpy(sa.sun_path, aim.socket, sizeof(sa.sun_path));
    return !FAILED(connect(SPAWN_LISTEN_FD, (struct sockaddr *)&sa, sizeof(sa)));
}
static bool try_bind(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "/hv-hostile"};
    return !FAILED(bind(SPAWN_LISTEN_FD, (struct sockaddr *)&sa, sizeof(sa)));
}
static bool try_sendto(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    hv_strlcpy(sa.sun_path, aim.socket, sizeof(sa.sun_path));
    return !FAILED(sendto(1, "x", 1, 0, (struct sockaddr *)&sa, sizeof(sa)));
}
static bool try_execve(void) { char *argv[] = {(char[]){"true"}, NULL}; return !FAILED(execve("/bin/true", argv, NULL)); }
static bool try_execveat(void)
{
    char *argv[] = {(char[]){"true"}, NULL};
    return !FAILED(syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, NULL, 0));
}
static bool try_fork(void) { pid_t p = (pid_t)syscall(SYS_fork); if (p == 0) _exit(0); return p > 0; }
static bool try_vfork(void) { pid_t p = vfork(); if (p == 0) _exit(0); return p > 0; }
static bool try_clone(void) { pid_t p = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); if (p == 0) _exit(0); return p > 0; }
static bool try_clone3(void)
{
    const uint64_t a[8] = {[4] = SIGCHLD};
    pid_t p = (pid_t)syscall(SYS_clone3, a, sizeof(a));
    if (p == 0) _exit(0);
    return p > 0;
}
static bool try_unshare(void) { return !FAILED(unshare(CLONE_NEWUSER)); }
static bool try_setns(void) { return !FAILED(setns(0, 0)) || errno == EBADF || errno == EINVAL; }
static bool try_ptrace_attach(void) { return !FAILED(ptrace(PTRACE_ATTACH, aim.victim, NULL, NULL)); }
static bool try_ptrace_seize(void) { return !FAILED(ptrace(PTRACE_SEIZE, aim.parent, NULL, NULL)); }
static bool try_ptrace_me(void) { return !FAILED(ptrace(PTRACE_TRACEME, 0, NULL, NULL)); }
static bool try_vm_readv(void)
{
    char b[sizeof(SECRET)];
    struct iovec l = {b, sizeof(b)}, r = {(void *)aim.secret, sizeof(b)};
    return !FAILED(process_vm_readv(aim.victim, &l, 1, &r, 1, 0));
}
static bool try_vm_writev(void)
{
    char b[] = "x";
    struct iovec l = {b, 1}, r = {(void *)aim.secret, 1};
    return !FAILED(process_vm_writev(aim.victim, &l, 1, &r, 1, 0));
}
static bool try_vm_readv_self(void)
{
    char b[8], c[8] = "";
    struct iovec l = {b, 8}, r = {c, 8};
    return !FAILED(process_vm_readv(getpid(), &l, 1, &r, 1, 0));
}
static bool try_proc_mem(void)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)aim.victim);
    return opens(path, O_RDWR);
}
static bool try_proc_fd(void)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/3", (int)aim.victim);
    return opens(path, O_RDWR);
}
static bool try_disk(void) { return opens(aim.disk, O_RDONLY); }
static bool try_disk_write(void) { return opens(aim.disk, O_WRONLY); }
static bool try_truncate(void) { return !FAILED(truncate(aim.disk, 0)); }
static bool try_pidfd_open(void) { return !FAILED(syscall(SYS_pidfd_open, aim.victim, 0)); }
static bool try_pidfd_getfd(void) { return !FAILED(syscall(438, 0, 0, 0)) || errno == EBADF; }
static bool try_pidfd_signal(void) { return !FAILED(syscall(SYS_pidfd_send_signal, 0, 0, NULL, 0)) || errno == EBADF; }
static bool try_kill_victim(void) { return !FAILED(kill(aim.victim, SIGKILL)); }
static bool try_kill_parent(void) { return !FAILED(kill(aim.parent, 0)); }
static bool try_kill_all(void) { return !FAILED(kill(-1, 0)); }
static bool try_tgkill(void) { return !FAILED(syscall(SYS_tgkill, aim.victim, aim.victim, 0)); }
static bool try_tkill(void) { return !FAILED(syscall(SYS_tkill, aim.victim, 0)); }
static bool try_sigqueue(void) { siginfo_t i = {0}; return !FAILED(syscall(SYS_rt_sigqueueinfo, aim.victim, SIGTERM, &i)); }
static bool try_setpriority(void) { return !FAILED(setpriority(PRIO_PROCESS, 0, -20)); }
static bool try_affinity(void) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(0, &s); return !FAILED(sched_setaffinity(0, sizeof(s), &s)); }
static bool try_prlimit(void) { struct rlimit l; return !FAILED(prlimit(aim.victim, RLIMIT_NOFILE, NULL, &l)); }
static bool try_raise_limit(void) { struct rlimit l = {1 << 20, 1 << 20}; return !FAILED(setrlimit(RLIMIT_NOFILE, &l)); }

static bool mapped(int prot, int flags, int fd) { return mmap(NULL, 4096, prot, flags, fd, 0) != MAP_FAILED; }
static bool try_mmap_exec(void) { return mapped(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1); }
static bool try_mmap_wx(void) { return mapped(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1); }
static bool try_mmap_file_exec(void) { return mapped(PROT_READ | PROT_EXEC, MAP_SHARED, 0); }
static bool protects(int prot)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p != MAP_FAILED && mprotect(p, 4096, prot) == 0;
}
static bool try_mprotect_exec(void) { return protects(PROT_READ | PROT_EXEC); }
static bool try_mprotect_wx(void) { return protects(PROT_READ | PROT_WRITE | PROT_EXEC); }
static bool try_text_writable(void)
{
    const uintptr_t at = (uintptr_t)&try_text_writable & ~(uintptr_t)4095;
    return mprotect((void *)at, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) == 0;
}
static bool try_pkey_mprotect(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p != MAP_FAILED && pkey_mprotect(p, 4096, PROT_READ | PROT_EXEC, -1) == 0;
}
static bool try_personality(void) { return !FAILED(personality(READ_IMPLIES_EXEC)); }
static bool try_shmat_exec(void) { return !FAILED(syscall(SYS_shmget, 0x4856, 4096, 0600 | 01000)); }
static bool try_memfd(void) { return !FAILED(memfd_create("code", 0)); }
static bool try_setuid(void) { return !FAILED(setresuid(0, 0, 0)); }
static bool try_setgroups(void) { return !FAILED(setgroups(0, NULL)); }
static bool try_capset(void) { uint32_t h[2] = {0x20080522, 0}, d[6] = {~0u, ~0u, ~0u}; return !FAILED(syscall(SYS_capset, h, d)); }
static bool try_dumpable(void) { return !FAILED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)); }
static bool try_mount(void) { return !FAILED(mount("none", "/", "tmpfs", 0, NULL)); }
static bool try_umount(void) { return !FAILED(umount2("/", MNT_DETACH)); }
static bool try_chroot(void) { return !FAILED(chroot("/")); }
static bool try_pivot(void) { return !FAILED(syscall(SYS_pivot_root, ".", ".")); }
static bool try_bpf(void) { union bpf_attr a = {0}; return !FAILED(syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a))); }
static bool try_perf(void)
{
    struct perf_event_attr a = {.size = sizeof(a), .type = PERF_TYPE_SOFTWARE, .exclude_kernel = 1};
    return !FAILED(syscall(SYS_perf_event_open, &a, 0, -1, -1, 0));
}
static bool try_userfaultfd(void) { return !FAILED(syscall(SYS_userfaultfd, 1)); }
static bool try_keyctl(void) { return !FAILED(syscall(SYS_keyctl, 0, -3, 1)); }
static bool try_module(void) { return !FAILED(syscall(SYS_finit_module, 0, "", 0)) || errno == ENOEXEC || errno == EINVAL; }
static bool try_tiocsti(void) { return !FAILED(ioctl(0, TIOCSTI, "x")) || errno == ENOTTY; }
static bool try_mq(void) { return !FAILED(syscall(SYS_mq_open, "/hv", O_CREAT | O_RDWR, 0600, NULL)); }
static bool try_inotify(void) { return !FAILED(syscall(SYS_inotify_init1, 0)); }
static bool try_new_thread_filter(void) { return !FAILED(syscall(SYS_seccomp, 1, 0, NULL)) || errno == EFAULT; }
/* The same calls through the other two doors of the kernel. */
static bool try_int80(void)
{
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory");       /* getpid of 32-bit programs */
    return r > 0;
}
static bool try_x32(void) { return !FAILED(syscall(0x40000000 | SYS_getpid)); }

static const struct attempt {
    const char *name;
    bool (*run)(void);
} attempts[] = {
#define A(name) {#name, try_##name}
    A(open), A(openat), A(openat2), A(open_root), A(open_write), A(open_tmpfile), A(creat), A(mknod), A(mkdir), A(unlink),
    A(rename), A(symlink), A(stat), A(readlink), A(chmod), A(handle), A(io_uring), A(socket_unix), A(socket_inet),
    A(socket_netlink), A(socketpair), A(connect), A(bind), A(sendto), A(execve), A(execveat), A(fork), A(vfork),
    A(clone), A(clone3), A(unshare), A(setns), A(ptrace_attach), A(ptrace_seize), A(ptrace_me), A(vm_readv), A(vm_writev),
    A(vm_readv_self), A(proc_mem), A(proc_fd), A(disk), A(disk_write), A(truncate), A(pidfd_open), A(pidfd_getfd),
    A(pidfd_signal), A(kill_victim), A(kill_parent), A(kill_all), A(tgkill), A(tkill), A(sigqueue), A(setpriority),
    A(affinity), A(prlimit), A(raise_limit), A(mmap_exec), A(mmap_wx), A(mmap_file_exec), A(mprotect_exec),
    A(mprotect_wx), A(text_writable), A(pkey_mprotect), A(personality), A(shmat_exec), A(memfd), A(setuid), A(setgroups),
    A(capset), A(dumpable), A(mount), A(umount), A(chroot), A(pivot), A(bpf), A(perf), A(userfaultfd), A(keyctl),
    A(module), A(tiocsti), A(mq), A(inotify), A(new_thread_filter), A(int80), A(x32),
#undef A
};
#define ATTEMPTS ARRAY_SIZE(attempts)

/* ---- without the filter: what the other layers stop alone ---- */

static const struct attempt unfiltered[] = {
#define A(name) {#name, try_##name}
    A(open), A(openat2), A(open_write), A(mkdir), A(stat), A(readlink), A(execve), A(proc_mem), A(proc_fd), A(disk), A(disk_write),
    A(truncate), A(unlink), A(rename), A(connect), A(vm_readv), A(vm_writev), A(ptrace_attach), A(ptrace_seize), A(kill_victim),
    A(kill_parent), A(tgkill), A(sigqueue), A(prlimit), A(pidfd_open), A(setpriority), A(raise_limit), A(mount), A(umount),
    A(chroot), A(pivot), A(setgroups), A(capset), A(module),
#undef A
};
#define UNFILTERED ARRAY_SIZE(unfiltered)

/* Without any wall these get through anywhere: the attempts are real ones. */
static const struct attempt control[] = {
#define A(name) {#name, try_##name}
    A(open), A(openat), A(openat2), A(open_root), A(stat), A(readlink), A(socket_unix), A(socketpair), A(fork), A(vfork),
    A(clone), A(clone3), A(vm_readv_self), A(disk), A(disk_write), A(pidfd_open), A(kill_parent), A(tkill), A(prlimit),
    A(affinity), A(mmap_exec), A(mprotect_exec), A(pkey_mprotect), A(memfd), A(inotify), A(dumpable),
#undef A
};
#define CONTROL ARRAY_SIZE(control)

/* ---- the payload ---- */

enum mode { MODE_SEALED, MODE_VCPU, MODE_CONFINED, MODE_CODE };

static int say(const char *word) { return write(1, word, strlen(word)) == (ssize_t)strlen(word) ? 0 : 1; }

/* The code cache's row: read and execute inside the region, and nothing else. */
static bool code_region(struct sandbox_report *r)
{
    enum { LEN = 1 << 20 };
    uint8_t *p = mmap(NULL, 2 * LEN + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return false;
    p = (uint8_t *)ROUND_UP((uintptr_t)p, (uintptr_t)LEN);
    const struct sandbox_code code = {.base = p, .len = LEN};
    if (mprotect(p, LEN, PROT_READ | PROT_WRITE) < 0)
        return false;
    memcpy(p + 4096, "\xb8\x2a\x00\x00\x00\xc3", 6);                    /* mov eax, 42; ret */
    sandbox_seal(&code, r);
    bool ok = mprotect(p, LEN, PROT_READ | PROT_EXEC) == 0 && ((int (*)(void))(uintptr_t)(p + 4096))() == 42 &&
              mprotect(p + 8192, 4096, PROT_READ | PROT_WRITE) == 0 && mprotect(p + 8192, 4096, PROT_READ | PROT_EXEC) == 0;
    const struct { void *at; size_t len; int prot; } bad[] = {
        {p, LEN, PROT_READ | PROT_WRITE | PROT_EXEC}, {p, 4096, PROT_EXEC}, {p - 4096, 4096, PROT_READ | PROT_EXEC},
        {p - 4096, LEN, PROT_READ | PROT_EXEC}, {p + LEN, 4096, PROT_READ | PROT_EXEC}, {p, 2 * LEN, PROT_READ | PROT_EXEC},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        ok = ok && mprotect(bad[i].at, bad[i].len, bad[i].prot) < 0 && errno == EPERM;
    return ok;
}

/* A vCPU's thread is there before the seal and narrows itself after it. */
static pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;

static void *vcpu_thread(void *arg)
{
    const struct attempt *a = arg;
    pthread_mutex_lock(&hold);
    sandbox_seal_vcpu();
    say("sealed ");
    say(a->run() ? "reached" : "held");
    return NULL;
}

static int payload(char **argv)
{
    struct sandbox_report r = {0};
    const struct sandbox_code none = {0};
    const enum mode mode = (enum mode)strtoul(argv[2], NULL, 10);
    const unsigned which = (unsigned)strtoul(argv[3], NULL, 10);
    aim.victim = (pid_t)strtol(argv[4], NULL, 10);
    aim.parent = (pid_t)strtol(argv[5], NULL, 10);
    aim.secret = strtoul(argv[6], NULL, 16);
    hv_strlcpy(aim.socket, argv[7], sizeof(aim.socket));
    hv_strlcpy(aim.disk, argv[8], sizeof(aim.disk));
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    sandbox_confine(&r);
    pthread_t thread;
    pthread_mutex_lock(&hold);
    if (mode == MODE_VCPU && pthread_create(&thread, NULL, vcpu_thread, (void *)(uintptr_t)&attempts[which]) != 0)
        return say("no thread");
    if (mode == MODE_CODE) {
        bool ok = code_region(&r);
        say(r.layer[r.count - 1].on ? "sealed " : r.layer[r.count - 1].why);
        return say(ok ? "held" : "reached");
    }
    if (mode != MODE_CONFINED) {
        sandbox_seal(&none, &r);
        if (!r.layer[r.count - 1].on)
            return say(r.layer[r.count - 1].why);
    }
    const struct attempt *a = mode == MODE_CONFINED ? &unfiltered[which] : &attempts[which];
    if (mode == MODE_VCPU) {
        pthread_mutex_unlock(&hold);
        pthread_join(thread, NULL);
        return 0;
    }
    say("sealed ");
    return say(a->run() ? "reached" : "held");
}

/* ---- the tests ---- */

static char self[400], folder[64];
static const char *as_whom;

/* Run the payload and give what it said, "died" added when it was killed for it. */
static void run_payload(enum mode mode, unsigned which, char *said, size_t size)
{
    char arg[6][32], program[] = "payload", flag[] = "--hostile";
    snprintf(arg[0], sizeof(arg[0]), "%d", (int)mode);
    snprintf(arg[1], sizeof(arg[1]), "%u", which);
    snprintf(arg[2], sizeof(arg[2]), "%d", (int)aim.victim);
    snprintf(arg[3], sizeof(arg[3]), "%d", (int)getpid());
    snprintf(arg[4], sizeof(arg[4]), "%lx", aim.secret);
    char *argv[] = {program, flag, arg[0], arg[1], arg[2], arg[3], arg[4], aim.socket, aim.disk, NULL};
    int out[2], listen_pair[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, listen_pair), 0);
    struct spawn_config c = {.program = self, .argv = argv, .listen_fd = listen_pair[0], .out_fd = out[1],
                             .uid = geteuid() == 0 ? 1879064000u : SPAWN_NO_UID};
    struct spawn_result r;
    struct hv_error e = {0};
    if (spawn_process(&c, &r, &e) < 0)
        fail_msg("%s: %s", e.object, e.message);
    close(out[1]);
    close(listen_pair[0]);
    size_t len = 0;
    ssize_t n;
    while (len < size - 8 && (n = read(out[0], said + len, size - 8 - len)) > 0)
        len += (size_t)n;
    said[len] = 0;
    siginfo_t info = {0};
    assert_int_equal(waitid(P_PID, (id_t)r.pid, &info, WEXITED), 0);
    if (info.si_code != CLD_EXITED)
        snprintf(said + len, 8, "died");
    close(out[0]);
    close(listen_pair[1]);
    close(r.pidfd);
}

static void expect_held(enum mode mode, unsigned which)
{
    char said[200];
    run_payload(mode, which, said, sizeof(said));
    if (strcmp(said, "sealed held") != 0 && strcmp(said, "sealed died") != 0)
        fail_msg("%s: '%s'", as_whom, said);
}

static void sealed(void **state) { expect_held(MODE_SEALED, (unsigned)(uintptr_t)*state); }
static void vcpu(void **state) { expect_held(MODE_VCPU, (unsigned)(uintptr_t)*state); }

static void confined(void **state)
{
    /* Where the host gives no namespaces there is only the filter, which is tested above. */
    char said[200];
    run_payload(MODE_CONFINED, (unsigned)(uintptr_t)*state, said, sizeof(said));
    if (strcmp(said, "sealed held") != 0)
        fail_msg("%s: '%s'", as_whom, said);
}

/* Started as every program is, in the test's own user and namespaces. */
static void free_to(void **state)
{
    const unsigned which = (unsigned)(uintptr_t)*state;
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        aim.parent = getppid();
        _exit(control[which].run() ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void code_cache(void **state)
{
    char said[200];
    run_payload(MODE_CODE, 0, said, sizeof(said));
    assert_string_equal(said, "sealed held");
}

/* The victim is whole afterwards: alive, its secret unread and unwritten, its disk as it was. */
static void victim_unharmed(void **state)
{
    char b[64] = "";
    assert_int_equal(kill(aim.victim, 0), 0);
    struct iovec l = {b, sizeof(SECRET)}, r = {(void *)aim.secret, sizeof(SECRET)};
    assert_int_equal(process_vm_readv(aim.victim, &l, 1, &r, 1, 0), sizeof(SECRET));
    assert_string_equal(b, SECRET);
    hv_autofree char *text = NULL;
    assert_int_equal(hv_read_file(aim.disk, 100, &text, NULL), 0);
    assert_string_equal(text, SECRET);
}

static pid_t start_victim(void)
{
    static char secret[] = SECRET;
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    aim.secret = (unsigned long)(uintptr_t)secret;
    snprintf(aim.socket, sizeof(aim.socket), "%s/socket", folder);
    snprintf(aim.disk, sizeof(aim.disk), "%s/disk", folder);
    hv_strlcpy(sa.sun_path, aim.socket, sizeof(sa.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    hv_assert(fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(fd, 8) == 0);
    hv_assert(hv_replace_file(aim.disk, SECRET, strlen(SECRET), 0600) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        for (;;)
            pause();
    }
    close(fd);
    return pid;
}

static bool has_namespaces(void)
{
    char flag[] = "--exit", program[] = "payload";
    char *argv[] = {program, flag, NULL};
    struct spawn_config c = {.program = self, .argv = argv, .listen_fd = -1, .out_fd = -1, .uid = SPAWN_NO_UID};
    struct spawn_result r;
    if (spawn_process(&c, &r, NULL) < 0)
        return false;
    waitpid(r.pid, NULL, 0);
    close(r.pidfd);
    return r.namespaces != 0;
}

static int run_all(void)
{
    static struct CMUnitTest tests[2 * ATTEMPTS + UNFILTERED + CONTROL + 2];
    static char names[2 * ATTEMPTS + UNFILTERED + CONTROL][64];
    unsigned n = 0;
    as_whom = geteuid() == 0 ? "root" : "user";
    snprintf(folder, sizeof(folder), "/tmp/hv-hostile-XXXXXX");
    if (!mkdtemp(folder))
        return 1;
    aim.victim = start_victim();
#define ADD(fn, list, i, kind) do { \
        snprintf(names[n], sizeof(names[n]), "%s_%s_%s", as_whom, kind, list[i].name); \
        tests[n] = (struct CMUnitTest){.name = names[n], .test_func = fn, .initial_state = (void *)(uintptr_t)(i)}; \
        n++; } while (0)
    for (unsigned i = 0; i < CONTROL; i++)
        ADD(free_to, control, i, "free");
    for (unsigned i = 0; i < ATTEMPTS; i++)
        ADD(sealed, attempts, i, "loop");
    for (unsigned i = 0; i < ATTEMPTS; i++)
        ADD(vcpu, attempts, i, "vcpu");
    if (has_namespaces())
        for (unsigned i = 0; i < UNFILTERED; i++)
            ADD(confined, unfiltered, i, "unfiltered");
    else
        printf("no namespaces here: only the filter is tested\n");
    tests[n++] = (struct CMUnitTest){.name = "code_cache", .test_func = code_cache};
    tests[n++] = (struct CMUnitTest){.name = "victim_unharmed", .test_func = victim_unharmed};
    char group[32];
    snprintf(group, sizeof(group), "hostile worker, %s", as_whom);
    int r = _cmocka_run_group_tests(group, tests, n, NULL, NULL);
    kill(aim.victim, SIGKILL);
    waitpid(aim.victim, NULL, 0);
    unlink(aim.socket);
    unlink(aim.disk);
    rmdir(folder);
    return r;
}

int main(int argc, char **argv)
{
    if (argc >= 10 && strcmp(argv[2], "--hostile") == 0)
        _exit(payload(argv + 1));                    /* what runs at exit, a leak checker, would find its calls refused */
    if (argc >= 3 && strcmp(argv[2], "--exit") == 0)
        return 0;
    /* By a descriptor: an ordinary user may have no way to the build folder. */
    int exe = open("/proc/self/exe", O_RDONLY);
    if (exe < 0)
        return 1;
    snprintf(self, sizeof(self), "/proc/self/fd/%d", exe);
    fflush(stdout);
    int r = run_all(), status = 0;
    if (geteuid() != 0)
        return r;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(0, NULL) < 0 || setresgid(ORDINARY_USER, ORDINARY_USER, ORDINARY_USER) < 0 ||
            setresuid(ORDINARY_USER, ORDINARY_USER, ORDINARY_USER) < 0)
            exit(1);
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);      /* as of a process that was started by this user */
        int bad = run_all();
        fflush(stdout);
        _exit(bad);
    }
    waitpid(pid, &status, 0);
    return r || !WIFEXITED(status) || WEXITSTATUS(status);
}
