/*
 * The second step of the sandbox: which system calls are left, a thread kind at a time.
 *
 * Four filters come from one table. OUTER is the union and binds every thread at the seal,
 * known or not; LOOP, VCPU and DISK are put on top of it by the threads themselves, and a call
 * has to pass both. What is not in the table fails with EPERM, so that a library that tries
 * something finds its own way out; what nothing in this program can come to ask for, error
 * paths of its libraries included, kills the process: it is no longer ours then.
 *
 * Order matters nowhere: several rows for one call are alternatives.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/worker/sandbox.h"

enum kind { OUTER, LOOP, VCPU, DISK, KINDS };

#define L (1u << LOOP)               /* the loop: devices, disks, control connections, consoles */
#define V (1u << VCPU)               /* a vCPU: guest code, device registers, memory given back */
#define D (1u << DISK)               /* what has to wait for a disk: flush, zeroes, discard; reads and writes without io_uring */
#define S (1u << OUTER)              /* neither, but a thread on its way there */
#define ALL (L | V | D | S)

struct rule {
    int nr;
    unsigned who;
    unsigned nargs;
    struct scmp_arg_cmp arg[2];
};

#define CALL(name) .nr = SCMP_SYS(name)
#define WITH(n) .nargs = (n), .arg
#define EQ(i, v) {.arg = (i), .op = SCMP_CMP_EQ, .datum_a = (v)}
#define MASKED(i, mask, v) {.arg = (i), .op = SCMP_CMP_MASKED_EQ, .datum_a = (mask), .datum_b = (v)}

static const struct rule allowed[] = {
    /* Descriptors that are there already. None of these names a file. */
    {CALL(read), L | S},
    {CALL(readv), L | S},
    {CALL(pread64), L | D | S},
    {CALL(preadv), L | D | S},
    {CALL(preadv2), L | D | S},
    {CALL(write), ALL},              /* vCPUs: the loop's wake-up, and the log */
    {CALL(writev), L | S},
    {CALL(pwrite64), L | D | S},
    {CALL(pwritev), L | D | S},
    {CALL(pwritev2), L | D | S},
    {CALL(lseek), L | D | S},
    {CALL(close), L | S},
    {CALL(fsync), L | D | S},
    {CALL(fdatasync), L | D | S},
    {CALL(ftruncate), L | D | S},        /* guest memory and images grow */
    {CALL(fallocate), ALL},          /* vCPUs: pages that a guest reports as free */
    {CALL(io_uring_enter), L | S},   /* of the ring made before the seal, which takes reads and writes only */
    {CALL(fstat), ALL},
    {CALL(newfstatat), ALL, WITH(1) = {EQ(3, AT_EMPTY_PATH)}},     /* how the C library asks fstat */
    /* Copies and modes of descriptors; no locks, leases or signals by them. */
    {CALL(fcntl), L | S, WITH(1) = {EQ(1, F_GETFL)}},
    {CALL(fcntl), L | S, WITH(1) = {EQ(1, F_SETFL)}},
    {CALL(fcntl), L | S, WITH(1) = {EQ(1, F_GETFD)}},
    {CALL(fcntl), L | S, WITH(1) = {EQ(1, F_SETFD)}},
    {CALL(fcntl), L | S, WITH(1) = {EQ(1, F_DUPFD_CLOEXEC)}},
    {CALL(dup3), L, WITH(1) = {EQ(1, STDERR_FILENO)}},             /* a fresh log file */
    /* Connections: accepted or received, never made. */
    {CALL(accept4), L},
    {CALL(accept), L},
    {CALL(recvmsg), L},
    {CALL(sendmsg), L},
    {CALL(recvfrom), L},
    {CALL(sendto), L, WITH(1) = {EQ(4, 0)}},                       /* to its peer, to no address */
    {CALL(shutdown), L},
    {CALL(getsockopt), L},           /* who the peer is */
    {CALL(getsockname), L},
    {CALL(getpeername), L},
    {CALL(epoll_wait), L},
    {CALL(epoll_pwait), L},
    {CALL(epoll_pwait2), L},
    {CALL(epoll_ctl), L},
    {CALL(epoll_create1), L},
    {CALL(poll), L | S},
    {CALL(ppoll), L | S},
    {CALL(eventfd2), L},
    {CALL(timerfd_settime), ALL},    /* a vCPU sets timers of devices */
    {CALL(ioctl), L, WITH(1) = {EQ(1, FIONBIO)}},
    {CALL(ioctl), L, WITH(1) = {EQ(1, FIOCLEX)}},
    {CALL(ioctl), ALL, WITH(1) = {MASKED(1, 0xFF00, 0xAE00)}},     /* KVM's; terminals and disks have others */
    /* Memory: nothing that can be executed. The code cache of an engine is below, in add_code(). */
    {CALL(mmap), ALL, WITH(1) = {MASKED(2, PROT_EXEC, 0)}},
    {CALL(mprotect), ALL, WITH(1) = {MASKED(2, PROT_EXEC, 0)}},
    {CALL(munmap), ALL},
    {CALL(mremap), ALL},             /* moves and resizes; it cannot change the protection */
    {CALL(madvise), ALL},
    {CALL(brk), ALL},
    /* Threads that are there, time, chance. */
    {CALL(futex), ALL},
    {CALL(sched_yield), ALL},
    {CALL(gettid), ALL},
    {CALL(getpid), ALL},
    {CALL(getuid), ALL},
    {CALL(geteuid), ALL},
    {CALL(clock_gettime), ALL},
    {CALL(clock_getres), ALL},
    {CALL(clock_nanosleep), ALL},
    {CALL(nanosleep), ALL},
    {CALL(gettimeofday), ALL},
    {CALL(time), ALL},
    {CALL(getrandom), ALL},
    {CALL(getrusage), L},
    {CALL(getcpu), ALL},
    {CALL(rt_sigreturn), ALL},
    {CALL(rt_sigprocmask), ALL},
    {CALL(rt_sigaction), ALL},       /* abort() restores the default */
    {CALL(sigaltstack), ALL},
    {CALL(restart_syscall), ALL},
    {CALL(exit), ALL},
    {CALL(exit_group), ALL},
    /* A thread that had not begun when the seal came; and its own, narrower filter, which can only add to this one. */
    {CALL(set_robust_list), ALL},
    {CALL(rseq), ALL},
    {CALL(sched_getaffinity), S},
    {CALL(prctl), S, WITH(1) = {EQ(0, PR_SET_NAME)}},
    {CALL(seccomp), S, WITH(1) = {EQ(0, SECCOMP_SET_MODE_FILTER)}},
};

/* No error path of any library ends in one of these. */
static const int deadly[] = {
    SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev),
    SCMP_SYS(process_madvise), SCMP_SYS(pidfd_getfd), SCMP_SYS(kcmp), SCMP_SYS(mount), SCMP_SYS(umount2),
    SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(move_mount), SCMP_SYS(open_tree), SCMP_SYS(fsopen),
    SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(open_by_handle_at), SCMP_SYS(userfaultfd), SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open), SCMP_SYS(keyctl), SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(init_module),
    SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(kexec_load), SCMP_SYS(kexec_file_load),
    SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(acct), SCMP_SYS(iopl), SCMP_SYS(ioperm),
    SCMP_SYS(modify_ldt), SCMP_SYS(personality), SCMP_SYS(syslog), SCMP_SYS(settimeofday), SCMP_SYS(clock_settime),
    SCMP_SYS(adjtimex), SCMP_SYS(clock_adjtime), SCMP_SYS(setuid), SCMP_SYS(setresuid), SCMP_SYS(setreuid),
    SCMP_SYS(setgid), SCMP_SYS(setresgid), SCMP_SYS(setregid), SCMP_SYS(setgroups), SCMP_SYS(capset),
    SCMP_SYS(pkey_mprotect), SCMP_SYS(remap_file_pages),
};

/* ---- the filters ---- */

static struct sock_fprog program[KINDS];

/*
 * Where translated code may become executable: read and execute together, never with write,
 * and only where it begins inside the engine's region and is no longer than it. A range that
 * begins near the end reaches the page behind it, which cannot be accessed and fails the call.
 * A filter compares an argument once, so the region is one aligned power of two. (A cache with
 * a writable and an executable view, both made before the seal, would need no row.)
 */
static int add_code(scmp_filter_ctx f, const struct sandbox_code *code)
{
    const uint64_t at = (uint64_t)(uintptr_t)code->base, len = code->len;
    if (!len)
        return 0;
    if ((len & (len - 1)) || (at & (len - 1)))
        return -EINVAL;
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 3, SCMP_A0(SCMP_CMP_MASKED_EQ, ~(len - 1), at),
                            SCMP_A1(SCMP_CMP_LE, len), SCMP_A2(SCMP_CMP_EQ, PROT_READ | PROT_EXEC));
}

static int add_rules(scmp_filter_ctx f, enum kind kind, const struct sandbox_code *code)
{
    const unsigned who = kind == OUTER ? ALL : 1u << kind;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(allowed); i++)
        if (allowed[i].who & who)
            r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, allowed[i].nr, allowed[i].nargs, allowed[i].arg);
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(deadly); i++)
        r = seccomp_rule_add(f, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
    /* Signals to threads of this process: kicks of vCPUs, abort(). */
    if (r == 0)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    return r == 0 ? add_code(f, code) : r;
}

/* Compile into memory of our own: no descriptor can be made later, when a vCPU asks for its filter. */
static int compile(enum kind kind, const struct sandbox_code *code)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    hv_autoclose int fd = memfd_create("filter", MFD_CLOEXEC);
    int r = f && fd >= 0 ? 0 : -ENOMEM;
    if (r == 0)
        r = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);    /* 32-bit and x32 calls */
    if (r == 0)
        (void)seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);       /* a binary tree where this libseccomp has it */
    if (r == 0)
        r = add_rules(f, kind, code);
    if (r == 0)
        r = seccomp_export_bpf(f, fd);
    seccomp_release(f);
    off_t len = r == 0 ? lseek(fd, 0, SEEK_END) : 0;
    struct sock_filter *ins = len > 0 ? hv_alloc((size_t)len) : NULL;
    if (r == 0 && (!ins || pread(fd, ins, (size_t)len, 0) != (ssize_t)len))
        r = -EIO;
    if (r < 0) {
        free(ins);
        return r;
    }
    program[kind] = (struct sock_fprog){.len = (unsigned short)((size_t)len / sizeof(*ins)), .filter = ins};
    return 0;
}

/*
 * SPEC_ALLOW: kernels before 5.16 slow a filtered thread's speculation down for its whole life
 * otherwise. What speculation inside the worker could read, the guest's own memory, the guest has.
 */
static int install(enum kind kind, unsigned flags)
{
    if (!program[kind].filter)
        return -ENOSYS;
    long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program[kind]);
    if (r < 0 && errno == EINVAL)       /* before Linux 4.17 */
        r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program[kind]);
    return r < 0 ? -errno : r > 0 ? -ESRCH : 0;
}

void sandbox_seal(const struct sandbox_code *code, struct sandbox_report *r)
{
    int err = 0;
    for (enum kind k = OUTER; err == 0 && k < KINDS; k++)
        err = compile(k, code);
    if (err == 0)
        err = install(OUTER, SECCOMP_FILTER_FLAG_TSYNC);
    if (err == 0)
        err = install(LOOP, 0);
    /*
     * Our threads are there, and no process is wanted: the filter has no clone. Where there is none, the limit
     * says so; with it, the kernel's own threads for io_uring are left room.
     */
    if (err)
        (void)setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0});
    sandbox_note(r, "system-calls", err == 0, "%s", err ? strerror(-err) : "");
}

/* A thread of ours: it keeps the outer filter in any case. */
static void seal_thread(enum kind kind, const char *what)
{
    int r = install(kind, 0);
    if (r < 0)
        log_warning("%s's system call filter: %s", what, strerror(-r));
}

void sandbox_seal_vcpu(void)
{
    seal_thread(VCPU, "a vCPU");
}

void sandbox_seal_disk(void)
{
    seal_thread(DISK, "a disk thread");
}
