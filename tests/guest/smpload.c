/*
 * A workload for several processors whose output says nothing of how many there are or how
 * fast: the same lines on the host and in a guest, or one of the two is wrong.
 *
 *   smpload [-n THREADS] [-s SCALE] [PART...]      all parts without arguments
 *
 * Each part prints "PART: CHECKSUM" on a line; "FAILED ..." and exit 1 is a part that saw
 * something impossible. Static, no files, no libraries beside libc: it runs as an
 * initrd's only program. The 32-bit build leaves out what 32-bit code does not have.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 16
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static unsigned threads = 4, scale = 1;

__attribute__((noreturn, format(printf, 1, 2))) static void failed(const char *format, ...)
{
    va_list ap;
    char text[200];
    va_start(ap, format);
    int n = vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    dprintf(STDOUT_FILENO, "FAILED %.*s\n", n, text);
    _exit(1);
}

/* ---- threads that start together ---- */

static pthread_barrier_t start;

struct worker {
    pthread_t thread;
    unsigned index;
    uint64_t (*run)(unsigned index);
    uint64_t sum;
};

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    pthread_barrier_wait(&start);
    w->sum = w->run(w->index);
    return NULL;
}

/* Runs it in n threads; the sum does not depend on their order. */
static uint64_t in_threads(unsigned n, uint64_t (*run)(unsigned index))
{
    struct worker w[THREADS_MAX];
    uint64_t sum = 0;
    pthread_barrier_init(&start, NULL, n);
    for (unsigned i = 0; i < n; i++) {
        w[i] = (struct worker){ .index = i, .run = run };
        if (pthread_create(&w[i].thread, NULL, worker_main, &w[i]))
            failed("pthread_create: %s", strerror(errno));
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(w[i].thread, NULL);
        sum += w[i].sum * (2 * i + 1);
    }
    pthread_barrier_destroy(&start);
    return sum;
}

/* ---- hash: SHA-256 (FIPS 180-4) of generated data, private to each thread ---- */

static uint32_t sha_k[64], sha_h[8];

/* The constants by their definition: fractions of roots of the first primes. */
static void sha_init(void)
{
    unsigned n = 0;
    for (unsigned p = 2; n < 64; p++) {
        bool prime = true;
        for (unsigned d = 2; d * d <= p; d++)
            prime = prime && p % d;
        if (!prime)
            continue;
        /* By bisection on 32.32 fixed point: 32-bit builds have no 128-bit integers. */
        uint64_t lo = 0, hi = 8ull << 32;
        while (hi - lo > 1) {                                  /* cube root, 32 bits of fraction */
            uint64_t mid = lo + (hi - lo) / 2, a = mid >> 32, f = mid & 0xffffffff;
            /* mid^3 >> 96 compared with p: a < 8, so that everything below fits in 64 bits */
            uint64_t sq_hi = a * a, cross = 2 * a * f, ff = f * f;
            uint64_t low = (cross << 32) + ff, carry = (cross >> 32) + (low < ff);
            sq_hi += carry;                                    /* mid^2 = sq_hi.low */
            uint64_t t0 = (low & 0xffffffff) * f, t1 = (low >> 32) * f + (t0 >> 32);
            uint64_t t2 = (low & 0xffffffff) * a + (t1 & 0xffffffff);
            uint64_t t3 = (low >> 32) * a + (t1 >> 32) + (t2 >> 32);   /* low * mid, weight 2^-32 of the integer part */
            uint64_t whole = sq_hi * a + ((sq_hi * f) >> 32) +
                             (((t3 & 0xffffffff) + ((sq_hi * f) & 0xffffffff)) >> 32) + (t3 >> 32);
            if (whole >= p)
                hi = mid;
            else
                lo = mid;
        }
        sha_k[n] = (uint32_t)lo;
        if (n < 8) {
            lo = 0, hi = 8ull << 32;
            while (hi - lo > 1) {                              /* square root */
                uint64_t mid = lo + (hi - lo) / 2, a = mid >> 32, f = mid & 0xffffffff;
                uint64_t cross = 2 * a * f, ff = f * f, low = (cross << 32) + ff;
                if (a * a + (cross >> 32) + (low < ff) >= p)
                    hi = mid;
                else
                    lo = mid;
            }
            sha_h[n] = (uint32_t)lo;
        }
        n++;
    }
}

static inline uint32_t ror(uint32_t v, unsigned n) { return v >> n | v << (32 - n); }

static void sha_block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], s[8];
    for (unsigned i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (unsigned i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h, sizeof(s));
    for (unsigned i = 0; i < 64; i++) {
        uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                      sha_k[i] + w[i];
        uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
                      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof(*s));
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++)
        h[i] += s[i];
}

static uint64_t hash_run(unsigned index)
{
    uint32_t h[8];
    uint8_t block[64];
    uint32_t x = index + 1;
    memcpy(h, sha_h, sizeof(h));
    for (unsigned n = 0; n < 6000 * scale; n++) {
        for (unsigned i = 0; i < sizeof(block); i++)
            block[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
        sha_block(h, block);
    }
    return (uint64_t)h[0] << 32 | h[7];
}

/* FIPS 180-4's own example proves the hash before it proves a machine. */
static uint64_t part_hash(void)
{
    uint8_t abc[64] = { 'a', 'b', 'c', 0x80, [63] = 24 };
    uint32_t h[8];
    sha_init();
    memcpy(h, sha_h, sizeof(h));
    sha_block(h, abc);
    if (h[0] != 0xba7816bf || h[7] != 0xf20015ad)
        failed("hash: SHA-256(abc) starts %08x", h[0]);
    return in_threads(threads, hash_run);
}

/* ---- fork: storms of fork, of exec of this program, and of pages copied on write ---- */

static char self[64];

static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            failed("fork: waitpid: %s", strerror(errno));
    if (!WIFEXITED(status))
        failed("fork: a child ended with status %x", status);
    return WEXITSTATUS(status);
}

static uint64_t part_fork(void)
{
    static uint32_t page[32 * 1024];          /* 32 pages that parent and children write */
    uint64_t sum = 0;
    for (unsigned round = 0; round < 12 * scale; round++) {
        pid_t pid[THREADS_MAX];
        for (unsigned i = 0; i < ARRAY_SIZE(page); i += 256)
            page[i] = round;
        for (unsigned t = 0; t < threads; t++) {
            fflush(stdout);
            pid[t] = fork();
            if (pid[t] < 0)
                failed("fork: %s", strerror(errno));
            if (pid[t] == 0) {
                uint32_t v = 0;
                for (unsigned i = 0; i < ARRAY_SIZE(page); i += 256) {
                    if (page[i] != round)
                        failed("fork: a child sees %u in round %u", page[i], round);
                    page[i] += t + i;
                    v += page[i];
                }
                if ((round + t) % 3)
                    _exit((int)(v & 0x7f));
                char number[16];
                snprintf(number, sizeof(number), "%u", v);
                execl(self, "smpload", "-x", number, (char *)NULL);
                _exit(127);
            }
        }
        for (unsigned i = 0; i < ARRAY_SIZE(page); i += 256)
            page[i] += 1000;                  /* while the children copy */
        for (unsigned t = 0; t < threads; t++)
            sum = sum * 31 + (unsigned)wait_for(pid[t]);
    }
    return sum;
}

/* ---- map: mmap, mprotect, madvise and munmap in one address space, each change seen by all ---- */

/* initial-exec TLS of a static program: safe in a handler. */
static __thread sigjmp_buf fault_jump;
static __thread volatile sig_atomic_t fault_expected;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    if (!fault_expected)
        failed("signal %d at %p", sig, info->si_addr);
    fault_expected = 0;
    siglongjmp(fault_jump, 1);
}

static void catch_faults(void)
{
    struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
}

static bool write_faults(volatile uint32_t *p, uint32_t v)
{
    if (sigsetjmp(fault_jump, 0))
        return true;
    fault_expected = 1;
    *p = v;
    fault_expected = 0;
    return false;
}

#define MAP_PAGES 8u
static _Atomic(volatile uint32_t *) shared_map;
static pthread_barrier_t map_barrier;

/*
 * Thread 0 changes a mapping that all have in their TLBs; the others touch it right after
 * the system call returned. What was forbidden must fault, what was replaced must read 0.
 */
static uint64_t map_run(unsigned index)
{
    const unsigned page_words = 4096 / sizeof(uint32_t);
    uint64_t sum = 0;
    for (unsigned round = 0; round < 25 * scale; round++) {
        if (index == 0) {
            void *p = mmap(NULL, MAP_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p == MAP_FAILED)
                failed("map: mmap: %s", strerror(errno));
            atomic_store(&shared_map, p);
        }
        pthread_barrier_wait(&map_barrier);
        volatile uint32_t *m = atomic_load(&shared_map);
        for (unsigned i = 0; i < MAP_PAGES; i++)                    /* into every TLB, each its own words */
            m[i * page_words + index] = round + i;
        pthread_barrier_wait(&map_barrier);
        if (index == 0 && mprotect((void *)m, MAP_PAGES * 4096, PROT_READ))
            failed("map: mprotect: %s", strerror(errno));
        pthread_barrier_wait(&map_barrier);
        for (unsigned i = 0; i < MAP_PAGES; i++) {
            if (!write_faults(&m[i * page_words + index], 1))
                failed("map: thread %u wrote page %u after mprotect", index, i);
            if (m[i * page_words + index] != round + i)
                failed("map: thread %u reads %u, not %u", index, m[i * page_words + index], round + i);
            sum += m[i * page_words + index];
        }
        pthread_barrier_wait(&map_barrier);
        if (index == 0 && (mprotect((void *)m, MAP_PAGES * 4096, PROT_READ | PROT_WRITE) ||
                           madvise((void *)m, MAP_PAGES * 4096, MADV_DONTNEED)))
            failed("map: madvise: %s", strerror(errno));
        pthread_barrier_wait(&map_barrier);
        for (unsigned i = 0; i < MAP_PAGES; i++)
            if (m[i * page_words + index] != 0)
                failed("map: thread %u sees a page that was given back", index);
        pthread_barrier_wait(&map_barrier);
        if (index == 0)
            munmap((void *)m, MAP_PAGES * 4096);
        pthread_barrier_wait(&map_barrier);
        if (!write_faults(&m[index], 1))
            failed("map: thread %u wrote after munmap", index);
        pthread_barrier_wait(&map_barrier);
        /* Everybody on their own, all at once. */
        volatile uint8_t *own = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (unsigned i = 0; i < 64; i++)
            own[i * 4096 + round % 4096] = (uint8_t)(index + i);
        for (unsigned i = 0; i < 64; i++)
            sum += own[i * 4096 + round % 4096];
        munmap((void *)own, 64 * 4096);
    }
    return sum;
}

static uint64_t part_map(void)
{
    catch_faults();
    pthread_barrier_init(&map_barrier, NULL, threads);
    return in_threads(threads, map_run);
}

/* ---- signals: each sent, each received, with the interrupted computation intact ---- */

static __thread volatile unsigned signals_got;
static __thread volatile uint64_t handler_double_bits;

static void on_usr1(int sig)
{
    volatile double d = 1.0;                   /* x87 and SSE state of the interrupted code must survive */
    volatile long double l = 3.0L;
    for (int i = 1; i < 20; i++) {
        d = d * 1.5 / i;
        l = l * l / (l + 1);
    }
    double copy = d + (double)l;
    memcpy((void *)&handler_double_bits, &copy, sizeof(copy));
    signals_got++;
}

static uint64_t signal_run(unsigned index)
{
    const unsigned rounds = 400 * scale;
    double s = 0;
    long double l = 0;
    for (unsigned i = 0; i < rounds; i++) {
        unsigned before = signals_got;
        s += 1.0 / (i + 1 + index);
        l += 1.0L / (i + 3);
        pthread_kill(pthread_self(), SIGUSR1);  /* delivered before the call returns: to oneself it is synchronous */
        if (signals_got != before + 1)
            failed("signal: %u sent, %u received", before + 1, signals_got);
    }
    uint64_t a, b = 0;
    double ld = (double)(l * 1e15L);
    memcpy(&a, &s, sizeof(a));
    memcpy(&b, &ld, sizeof(b));
    return a ^ b * 3 ^ handler_double_bits ^ rounds;
}

static atomic_uint timer_ticks;
static void on_alarm(int sig) { atomic_fetch_add(&timer_ticks, 1); }

static uint64_t part_signal(void)
{
    struct sigaction sa = { .sa_handler = on_usr1, .sa_flags = SA_RESTART };
    struct sigaction alarm_sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &sa, NULL);
    sigaction(SIGALRM, &alarm_sa, NULL);
    timer_t timer;
    struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
    struct itimerspec every = { .it_interval.tv_nsec = 2000000, .it_value.tv_nsec = 2000000 };
    if (timer_create(CLOCK_MONOTONIC, &ev, &timer) || timer_settime(timer, 0, &every, NULL))
        failed("signal: timer: %s", strerror(errno));
    uint64_t sum = in_threads(threads, signal_run);
    while (atomic_load(&timer_ticks) < 5)      /* a timer that never fires hangs here: that is the test */
        usleep(1000);
    timer_delete(timer);
    return sum;
}

/* ---- futex: turns around a ring of threads, each waking exactly the next ---- */

static atomic_uint turn;

static uint64_t futex_run(unsigned index)
{
    const unsigned laps = 250 * scale;
    uint64_t sum = 0;
    for (unsigned lap = 0; lap < laps; lap++) {
        unsigned mine = lap * threads + index, now;
        while ((now = atomic_load(&turn)) != mine)
            if (syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0) < 0 && errno != EAGAIN &&
                errno != EINTR)
                failed("futex: %s", strerror(errno));
        sum = sum * 7 + now;
        atomic_store(&turn, mine + 1);
        syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, THREADS_MAX, NULL, NULL, 0);
    }
    return sum;
}

static uint64_t part_futex(void)
{
    atomic_store(&turn, 0);
    return in_threads(threads, futex_run);
}

/* ---- pipe: two processes, a context switch a byte ---- */

static uint64_t part_pipe(void)
{
    int to[2], from[2];
    uint64_t sum = 0;
    if (pipe(to) || pipe(from))
        failed("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        uint8_t b;
        close(to[1]);
        while (read(to[0], &b, 1) == 1) {
            b = (uint8_t)(b * 5 + 1);
            if (write(from[1], &b, 1) != 1)
                break;
        }
        _exit(9);
    }
    close(to[0]);
    for (unsigned i = 0; i < 1000 * scale; i++) {
        uint8_t b = (uint8_t)i;
        if (write(to[1], &b, 1) != 1 || read(from[0], &b, 1) != 1)
            failed("pipe: %s", strerror(errno));
        if (b != (uint8_t)(i * 5 + 1))
            failed("pipe: %u became %u", i, b);
        sum = sum * 3 + b;
    }
    close(to[1]);
    close(from[0]);
    close(from[1]);
    return sum + (unsigned)wait_for(pid);
}

/* ---- atomic: locked instructions on shared words, also across a cache line and a page ---- */

static struct {
    _Alignas(64) uint32_t plain, xadd, cas, bits[4], lock;
    uint64_t guarded, wide;
    _Alignas(16) uint64_t pair[2];
    _Alignas(4096) uint8_t split[8192];
} shared;

/* An 8-byte compare and exchange that 32-bit code has too. */
static inline uint64_t add_cmpxchg8(volatile uint64_t *p, uint64_t v)
{
    uint64_t old = *p;
    while (!__sync_bool_compare_and_swap(p, old, old + v))
        old = *p;
    return old;
}

static inline void lock_inc(volatile void *p)
{
    __asm__ volatile("lock; incl %0" : "+m"(*(volatile uint32_t *)p) : : "memory", "cc");
}

static uint64_t atomic_run(unsigned index)
{
    for (unsigned i = 0; i < 4000 * scale; i++) {
        lock_inc(&shared.plain);
        __sync_fetch_and_add(&shared.xadd, i);
        uint32_t old, new;
        do {
            old = *(volatile uint32_t *)&shared.cas;
            new = old + 3;
        } while (!__sync_bool_compare_and_swap(&shared.cas, old, new));
        add_cmpxchg8(&shared.wide, 0x100000001ull);
        /* Each thread flips bits of its own in words of all: lock btc with an index beyond the operand. */
        __asm__ volatile("lock; btcl %1, %0" : "+m"(shared.bits)
                         : "r"((i % 8) * THREADS_MAX + index) : "cc", "memory");
        if (i % 4 == 0) {
            lock_inc(shared.split + 62);       /* across a cache line */
            lock_inc(shared.split + 4094);     /* across a page */
        }
        if (i % 8 == 0) {                      /* a spin lock by xchg guards a plain addition */
            uint32_t one = 1;
            do {
                one = 1;
                __asm__ volatile("xchgl %0, %1" : "+r"(one), "+m"(shared.lock) : : "memory");
                if (one)
                    sched_yield();
            } while (one);
            *(volatile uint64_t *)&shared.guarded += index + i;
            __atomic_store_n(&shared.lock, 0, __ATOMIC_RELEASE);
        }
#ifdef __x86_64__
        /* Both halves move together, always. */
        uint64_t lo = __atomic_load_n(&shared.pair[0], __ATOMIC_RELAXED), hi = lo * 3;
        bool done;
        do {
            __asm__ volatile("lock; cmpxchg16b %0" : "+m"(shared.pair), "=@ccz"(done), "+a"(lo), "+d"(hi)
                             : "b"(lo + 1), "c"((lo + 1) * 3) : "memory");
            if (hi != lo * 3)
                failed("atomic: halves %llx %llx", (unsigned long long)lo, (unsigned long long)hi);
        } while (!done);
#endif
    }
    return 0;
}

static uint64_t part_atomic(void)
{
    in_threads(threads, atomic_run);
    uint64_t sum = 0;
    uint32_t at_line, at_page;
    memcpy(&at_line, shared.split + 62, 4);
    memcpy(&at_page, shared.split + 4094, 4);
    const uint32_t n = 4000 * scale * threads;
    if (shared.plain != n || shared.cas != 3 * n || shared.wide != n * 0x100000001ull || at_line != n / 4 ||
        at_page != n / 4)
        failed("atomic: %u additions became %u, %u, %llx, %u, %u", n, shared.plain, shared.cas / 3,
               (unsigned long long)shared.wide, at_line * 4, at_page * 4);
    for (unsigned i = 0; i < ARRAY_SIZE(shared.bits); i++)
        sum = sum * 5 + shared.bits[i];
    return sum + shared.xadd + shared.guarded;      /* pair only decides by failing: 32-bit sums are the same */
}

/* ---- order: what TSO forbids (store buffering excepted by a fence), millions of times ---- */

static struct {
    _Alignas(64) volatile uint32_t x;
    _Alignas(64) volatile uint32_t y;
    _Alignas(64) volatile uint32_t torn_a;
    _Alignas(64) volatile uint64_t wide;
} order;
static uint32_t order_seen[2];
static atomic_uint order_go;

static void order_meet(unsigned *generation)
{
    ++*generation;
    if (atomic_fetch_add(&order_go, 1) + 1 == 2 * *generation)
        return;
    for (unsigned spins = 0; atomic_load(&order_go) < 2 * *generation; spins++)
        if (spins % 64 == 63)
            sched_yield();
}

static uint64_t order_run(unsigned index)
{
    unsigned generation = 0;
    for (unsigned i = 1; i <= 3000 * scale; i++) {
        /* Dekker: each writes its own, fences, reads the other's. Both reading the old value is forbidden. */
        order_meet(&generation);
        if (index == 0) {
            order.x = i;
            atomic_thread_fence(memory_order_seq_cst);
            order_seen[0] = order.y;
        } else {
            order.y = i;
            __asm__ volatile("lock; addl $0, %0" : "+m"(order.torn_a) : : "memory", "cc");
            order_seen[1] = order.x;
        }
        order_meet(&generation);
        if (order_seen[0] != i && order_seen[1] != i)
            failed("order: round %u, both stores unseen (%u, %u)", i, order_seen[0], order_seen[1]);
        order_meet(&generation);
        /* Message passing: data before flag; and an aligned 8-byte store is never seen in halves (64-bit). */
        if (index == 0) {
            order.torn_a = i;
#ifdef __x86_64__
            order.wide = (uint64_t)i << 32 | i;
#endif
            __atomic_store_n(&order.y, ~i, __ATOMIC_RELEASE);
        } else {
            for (unsigned spins = 0; __atomic_load_n(&order.y, __ATOMIC_ACQUIRE) != ~i; spins++) {
                uint64_t w = order.wide;
                if ((uint32_t)w != w >> 32)
                    failed("order: torn %llx", (unsigned long long)w);
                if (spins % 64 == 63)
                    sched_yield();
            }
            if (order.torn_a != i)
                failed("order: flag of round %u before its data %u", i, order.torn_a);
        }
    }
    return 3000 * scale;
}

static uint64_t part_order(void) { return in_threads(2, order_run); }

/* ---- code: self-modifying and cross-modifying ---- */

typedef uint32_t (*code_fn)(void);

/* mov eax, imm32; ret */
static void put_mov(volatile uint8_t *p, uint32_t v)
{
    uint8_t code[6] = { 0xb8, (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24), 0xc3 };
    for (unsigned i = 0; i < sizeof(code); i++)
        p[i] = code[i];
}

static uint8_t *code_page;
static atomic_uint code_published, code_acked;

/* A serializing instruction, as SDM 3A 8.1.3 asks of who executes code that another processor wrote. */
static void serialize(void)
{
    unsigned a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

static uint64_t code_run(unsigned index)
{
    uint64_t sum = 0;
    uint8_t *own = code_page + 4096 + 4096 * index;      /* a page of each thread, and one of all */
    for (unsigned i = 0; i < 1500 * scale; i++) {
        /* Self: the immediate of code that has just run. */
        put_mov(own + (i % 5) * 819, i * 2654435761u + index);
        uint32_t got = ((code_fn)(own + (i % 5) * 819))();
        if (got != i * 2654435761u + index)
            failed("code: thread %u executed old code in round %u", index, i);
        sum += got;
    }
    for (unsigned i = 1; i <= 150 * scale; i++) {
        /* Cross: thread 0 writes code that the others have executed, then says so. */
        if (index == 0) {
            for (unsigned spins = 0; atomic_load(&code_acked) != (i - 1) * (threads - 1); spins++)
                if (spins % 16 == 15)
                    sched_yield();
            put_mov(code_page + 100, i);
            atomic_store(&code_published, i);
        } else {
            for (unsigned spins = 0; atomic_load(&code_published) != i; spins++)
                if (spins % 16 == 15)
                    sched_yield();
            serialize();
            uint32_t got = ((code_fn)(code_page + 100))();
            if (got != i)
                failed("code: thread %u executed %u, not %u", index, got, i);
            sum += got;
            atomic_fetch_add(&code_acked, 1);
        }
    }
    return sum;
}

/* A loop that rewrites the instruction right behind the store, within one block of straight code. */
static uint64_t code_next_instruction(void)
{
    uint8_t *p = code_page + 2048;
    static const uint8_t loop[] = {
        0x31, 0xc0,                            /*  0: xor eax, eax */
        0xb9, 200, 0, 0, 0,                    /*  2: mov ecx, 200 */
        0xe8, 0, 0, 0, 0,                      /*  7: call 12 */
        0x5a,                                  /* 12: pop rdx: address of 12 */
        0x88, 0x4a, 5,                         /* 13: mov [rdx+5], cl: the immediate of the next */
        0x83, 0xc0, 0x00,                      /* 16: add eax, imm8 */
        0xff, 0xc9,                            /* 19: dec ecx */
        0x75, 0xf6,                            /* 21: jnz 13 */
        0xc3,                                  /* 23: ret */
    };
    memcpy(p, loop, sizeof(loop));
    p[15] = 6;                                 /* the immediate is at 18 = 12 + 6 */
    uint32_t want = 0, got = ((code_fn)p)();
    for (unsigned i = 1; i <= 200; i++)
        want += (uint32_t)(int8_t)i;
    if (got != want)
        failed("code: the next instruction was old: %u, not %u", got, want);
    return got;
}

static uint64_t part_code(void)
{
    code_page = mmap(NULL, (THREADS_MAX + 1) * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code_page == MAP_FAILED)
        failed("code: mmap: %s", strerror(errno));
    uint64_t sum = code_next_instruction();
    sum += in_threads(threads, code_run);
    munmap(code_page, (THREADS_MAX + 1) * 4096);
    return sum;
}

/* ---- float: x87, SSE and conversions, interrupted by context switches ---- */

static uint64_t float_run(unsigned index)
{
    volatile double x = 0.5 + index;
    volatile float f = 1.25f;
    long double l = 1 + index;
    uint64_t sum = 0;
    for (unsigned i = 1; i < 20000 * scale; i++) {
        x = x * 3.7 * (1 - x / (8 + index)) / 1.1;
        if (x > 1e6 || x < -1e6)
            x = x / 1e9 + 0.3;
        f = f * 1.0001f + (float)i / 3.0f;
        if (f > 1e30f)
            f = 0.1f;
        l = l + 1.0L / (l * i);
        __asm__ volatile("fsqrt" : "+t"(l));
        if (i % 256 == 0)
            sched_yield();
        sum += (uint64_t)(int64_t)(x * 1000) ^ (uint64_t)(l * 1e6L);
    }
    uint64_t bits;
    uint32_t fbits;
    double d = x;
    float g = f;
    memcpy(&bits, &d, sizeof(bits));
    memcpy(&fbits, &g, sizeof(fbits));
    return sum + bits + fbits;
}

static uint64_t part_float(void) { return in_threads(threads, float_run); }

/* ---- */

static const struct part {
    const char *name;
    uint64_t (*run)(void);
} parts[] = {
    { "hash", part_hash }, { "fork", part_fork }, { "map", part_map }, { "signal", part_signal },
    { "futex", part_futex }, { "pipe", part_pipe }, { "atomic", part_atomic }, { "order", part_order },
    { "code", part_code }, { "float", part_float },
};

int main(int argc, char **argv)
{
    int opt;
    while ((opt = getopt(argc, argv, "n:s:x:")) != -1) {
        switch (opt) {
        case 'n': threads = (unsigned)strtoul(optarg, NULL, 10); break;
        case 's': scale = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'x': return (int)(strtoul(optarg, NULL, 10) % 101);       /* exec'ed by the fork part */
        default: return 2;
        }
    }
    if (threads < 2 || threads > THREADS_MAX || scale < 1 || scale > 10000)
        return 2;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0)
        failed("readlink /proc/self/exe: %s", strerror(errno));
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        bool asked = optind == argc;
        for (int k = optind; k < argc; k++)
            asked = asked || strcmp(argv[k], parts[i].name) == 0;
        if (asked)
            dprintf(STDOUT_FILENO, "%s: %016llx\n", parts[i].name, (unsigned long long)parts[i].run());
    }
    dprintf(STDOUT_FILENO, "all of smpload done\n");
    return 0;
}
