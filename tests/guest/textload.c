/*
 * Has a Linux kernel change its own code, again and again, while others run it: for guests.
 *
 *   textload SECONDS MODULE.ko...      root; mounts tracefs if need be
 *
 * A process each: tracepoints and the function tracer toggled; probes set and removed; static keys
 * flipped; the modules loaded and unloaded; eBPF programs compiled by the kernel, whose results are checked.
 * Prints "textload: traces N probes N keys N loads N programs N", how often each was done (once at least, whatever the
 * time), or "FAILED what", exit 1. A job that this kernel does not offer has 0 and is named on stderr.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing/"
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static time_t end;
static char **modules;
static int module_count;

static int past(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec >= end;
}

__attribute__((noreturn)) static void failed(const char *what, const char *why)
{
    printf("FAILED %s: %s\n", what, why);
    fflush(stdout);
    _exit(1);
}

static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    if (fd < 0) {
        return -errno;
    }
    int r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return r;
}

/* ---- jobs: how often it was done; the kernel may refuse the first time only ---- */

static uint64_t traces(void)
{
    static const char *const events[] = {"sched", "irq", "timer", "signal"};
    uint64_t n = 0;
    char path[128];
    do {
        for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
            snprintf(path, sizeof(path), TRACING "events/%s/enable", events[i]);
            n += !put(path, "1");
        }
        for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
            snprintf(path, sizeof(path), TRACING "events/%s/enable", events[i]);
            put(path, "0");
        }
        /* The function tracer on some hundred functions: each has its five bytes patched. */
        if (!put(TRACING "set_ftrace_filter", "vfs_* pipe_*") && !put(TRACING "current_tracer", "function")) {
            n++;
            usleep(2000);
            put(TRACING "current_tracer", "nop");
        }
        put(TRACING "trace", "");
    } while (!past());
    return n;
}

static uint64_t probes(void)
{
    uint64_t n = 0;
    do {
        if (put(TRACING "kprobe_events", "p:hvp vfs_read\nr:hvr vfs_write\n")) {
            break;
        }
        if (put(TRACING "events/kprobes/enable", "1")) {
            failed("probes", "cannot be enabled");
        }
        int pipes[2];
        char c = 'x';
        if (pipe(pipes) || write(pipes[1], &c, 1) != 1 || read(pipes[0], &c, 1) != 1 || c != 'x') {
            failed("probes", "a pipe does not work");
        }
        close(pipes[0]);
        close(pipes[1]);
        usleep(1000);
        if (put(TRACING "events/kprobes/enable", "0") || put(TRACING "kprobe_events", "")) {
            failed("probes", "cannot be removed");
        }
        n++;
    } while (!past());
    return n;
}

static uint64_t keys(void)
{
    uint64_t n = 0;
    while (!put("/proc/sys/kernel/sched_schedstats", "1") && !put("/proc/sys/kernel/sched_schedstats", "0")) {
        n += 2;
        if (past()) {
            break;
        }
    }
    return n;
}

static uint64_t loads(void)
{
    uint64_t n = 0;
    do {
        for (int i = 0; i < module_count; i++) {
            const char *base = strrchr(modules[i], '/');
            char name[64];
            snprintf(name, sizeof(name), "%s", base ? base + 1 : modules[i]);
            name[strcspn(name, ".")] = 0;
            for (char *p = name; *p; p++) {
                *p = *p == '-' ? '_' : *p;
            }
            int fd = open(modules[i], O_RDONLY);
            if (fd < 0 || syscall(SYS_finit_module, fd, "", 0)) {
                failed(modules[i], strerror(errno));
            }
            close(fd);
            if (syscall(SYS_delete_module, name, 0)) {
                failed(name, strerror(errno));
            }
            n++;
        }
    } while (!past());
    return n;
}

/* A socket filter: the length it lets through is ((byte 0 * K) ^ X) & 63, plus 1 or, if that is above 40, 2. */
static int filter(uint32_t k, uint32_t x)
{
    struct bpf_insn code[] = {
        {BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0},
        {BPF_LD | BPF_ABS | BPF_B, 0, 0, 0, 0},
        {BPF_ALU64 | BPF_MUL | BPF_K, 0, 0, 0, (int32_t)k},
        {BPF_ALU64 | BPF_XOR | BPF_K, 0, 0, 0, (int32_t)x},
        {BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, 63},
        {BPF_JMP | BPF_JGT | BPF_K, 0, 0, 2, 40},
        {BPF_ALU64 | BPF_ADD | BPF_K, 0, 0, 0, 1},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
        {BPF_ALU64 | BPF_ADD | BPF_K, 0, 0, 0, 2},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    union bpf_attr a;
    memset(&a, 0, sizeof(a));
    a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    a.insns = (uint64_t)(uintptr_t)code;
    a.insn_cnt = ARRAY_SIZE(code);
    a.license = (uint64_t)(uintptr_t) "GPL";
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof(a));
}

static uint64_t programs(void)
{
    uint64_t n = 0;
    int pair[2];
    put("/proc/sys/net/core/bpf_jit_enable", "1");
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair)) {
        return 0;
    }
    for (uint32_t i = 1; i < 20 || !past(); i++) {
        uint32_t k = i * 2654435761u & 0x7fffffff, x = i * 40503u;
        int fd = filter(k, x);
        if (fd < 0 || setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof(fd))) {
            if (n) {
                failed("programs", strerror(errno));
            }
            break;
        }
        for (uint32_t b = 0; b < 256; b += 17) {
            uint8_t data[80] = {(uint8_t)b}, got[80];
            uint64_t want = ((uint64_t)b * k ^ (uint64_t)x) & 63;
            want += want > 40 ? 2 : 1;
            if (send(pair[0], data, sizeof(data), 0) != sizeof(data) || recv(pair[1], got, sizeof(got), 0) != (ssize_t)want) {
                failed("programs", "a compiled program computes something else");
            }
        }
        close(fd);
        n++;
    }
    return n;
}

static const struct {
    const char *name;
    uint64_t (*run)(void);
} jobs[] = {{"traces", traces}, {"probes", probes}, {"keys", keys}, {"loads", loads}, {"programs", programs}};

int main(int argc, char **argv)
{
    struct timespec t;
    if (argc < 2) {
        return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &t);
    end = t.tv_sec + (time_t)strtoul(argv[1], NULL, 10);
    modules = argv + 2;
    module_count = argc - 2;
    mount("tracefs", TRACING, "tracefs", 0, NULL);
    uint64_t *done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (done == MAP_FAILED) {
        return 2;
    }
    for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        if (fork() == 0) {
            done[i] = jobs[i].run();
            _exit(0);
        }
    }
    int status, bad = 0;
    while (wait(&status) > 0) {
        bad |= status;
    }
    if (bad) {
        puts("FAILED textload");
        return 1;
    }
    printf("textload:");
    for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        printf(" %s %llu", jobs[i].name, (unsigned long long)done[i]);
        if (!done[i]) {
            fprintf(stderr, "textload: %s: not on this kernel\n", jobs[i].name);
        }
    }
    putchar('\n');
    return 0;
}
