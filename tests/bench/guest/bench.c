/*
 * Small programs whose speed inside a guest says something: `bench NAME SCALE` does SCALE
 * rounds of one of them and prints "NAME ROUNDS NANOSECONDS CHECK". Static, no files.
 * CHECK depends on the result only, so that two hypervisors can be compared for truth too.
 *
 *   bench all ROUNDS          every program
 *   bench parallel N [PAIRS [MS]]   sha256 in one process, then in N at once, MS each (1000), and that so many
 *                             times (3); prints what each process did in a second, alone and among N, and the
 *                             same of its quickest pieces
 *   bench exit N              exits with N: what `execs` executes
 */
#define _GNU_SOURCE
#include <emmintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t rng = 88172645463325252ull;
static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    return rng ^= rng << 17;
}

/* Integer loops with branches: primes below 2 million. */
static uint64_t sieve(void)
{
    enum { N = 2000000 };
    static uint8_t composite[N];
    uint64_t count = 0;
    memset(composite, 0, sizeof(composite));
    for (uint32_t i = 2; i < N; i++) {
        if (composite[i]) {
            continue;
        }
        count++;
        for (uint64_t k = (uint64_t)i * i; k < N; k += i) {
            composite[k] = 1;
        }
    }
    return count;
}

/* FIPS 180-4: rotates, adds, logic on 32 bits. */
static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }
static void sha256_block(uint32_t h[8], const uint8_t *p)
{
    static uint32_t k[64];
    if (!k[0]) { /* the fractions of the cube roots of the first primes, in integers */
        for (uint32_t n = 0, c = 2; n < 64; c++) {
            uint32_t d = 2;
            while (d * d <= c && c % d) {
                d++;
            }
            if (d * d <= c) {
                continue;
            }
            unsigned __int128 lo = 0, hi = (unsigned __int128)8 << 32;
            while (hi - lo > 1) { /* the largest x with x^3 <= c 2^96 */
                unsigned __int128 x = (lo + hi) / 2;
                *((x * x >> 32) * x >> 32 < ((unsigned __int128)c << 32) ? &lo : &hi) = x;
            }
            k[n++] = (uint32_t)lo;
        }
    }
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) + w[i - 7] + (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
    }
    memcpy(v, h, sizeof(v));
    for (int i = 0; i < 64; i++) {
        uint32_t e = v[4], a = v[0];
        uint32_t t = v[7] + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + k[i] + w[i];
        uint32_t u = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof(v[0]));
        v[4] += t;
        v[0] = t + u;
    }
    for (int i = 0; i < 8; i++) {
        h[i] += v[i];
    }
}

static uint64_t sha256_of(uint32_t blocks)
{
    uint32_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t block[64] = {0};
    for (uint32_t i = 0; i < blocks; i++) {
        memcpy(block, &i, 4);
        sha256_block(h, block);
    }
    return h[0];
}
static uint64_t sha256(void) { return sha256_of(4096); }

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Calls through pointers, mispredicted branches, copies. */
static uint64_t sorting(void)
{
    enum { N = 60000 };
    static uint64_t v[N];
    for (int i = 0; i < N; i++) {
        v[i] = next();
    }
    qsort(v, N, sizeof(v[0]), ascending);
    return v[N / 2] + v[N / 3];
}

/* Double precision by SSE2: 64 x 64 matrices. */
static uint64_t sse2(void)
{
    enum { N = 64 };
    static double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k++) {
            a[i][k] = i + k;
            b[i][k] = i - k;
        }
    }
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k += 2) {
            __m128d s = _mm_setzero_pd();
            for (int n = 0; n < N; n++) {
                s = _mm_add_pd(s, _mm_mul_pd(_mm_set1_pd(a[i][n]), _mm_loadu_pd(&b[n][k])));
            }
            _mm_storeu_pd(&c[i][k], s);
        }
    }
    return (uint64_t)(int64_t)c[17][42];
}

static uint64_t copies(void)
{
    enum { N = 4 << 20 };
    static uint8_t from[N], to[N];
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++) {
        from[i * 1000] = (uint8_t)i;
        memcpy(to, from, N);
        sum += to[i * 1000] + (uint64_t)strlen(memset(to, 'x', N - 1) ? (char *)to : "");
    }
    return sum;
}

static uint64_t syscalls(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 20000; i++) {
        sum += (uint64_t)(syscall(SYS_getppid) >= 0);
    }
    return sum;
}

static uint64_t faults(void)
{
    enum { PAGES = 2000 };
    uint64_t sum = 0;
    uint8_t *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < PAGES; i++) {
        p[i * 4096] = 1;
        sum += p[i * 4096];
    }
    munmap(p, PAGES * 4096);
    return sum;
}

static uint64_t forks(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            _exit(i);
        }
        int status = 0;
        waitpid(child, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

/* A byte to and fro between two processes. */
static uint64_t switches(void)
{
    int there[2], back[2];
    uint64_t sum = 0;
    uint8_t c = 1;
    if (pipe(there) || pipe(back)) {
        return 0;
    }
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &c, 1) == 1 && write(back[1], &c, 1) == 1) {
        }
        _exit(0);
    }
    close(there[0]);
    close(back[1]);
    for (int i = 0; i < 1000; i++) {
        sum += (uint64_t)(write(there[1], &c, 1) == 1 && read(back[0], &c, 1) == 1);
    }
    close(there[1]);
    close(back[0]);
    waitpid(child, NULL, 0);
    return sum;
}

/* Direct calls and returns, with a frame each: 196418 = fib(27). */
__attribute__((noinline, optimize("no-optimize-sibling-calls", "no-inline"))) static uint64_t fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}
static uint64_t calls(void) { return fib(27); }

/* A small interpreter: a jump through a table for each instruction of a loop of 200. */
static uint64_t indirect(void)
{
    enum { N = 200 };
    static uint8_t code[N + 1];
    static const void *const ops[] = {&&add, &&sub, &&xor, &&mul, &&rot, &&not, &&swap, &&end};
    uint64_t a = 1, b = 2, rounds = 1000;
    for (int i = 0; i < N; i++) {
        code[i] = (uint8_t)(next() % 7);
    }
    code[N] = 7;
    const uint8_t *pc = code;
#define NEXT_OP goto *ops[*pc++]
    NEXT_OP;
add: a += b; NEXT_OP;
sub: a -= 3 * b; NEXT_OP;
xor: a ^= b; NEXT_OP;
mul: a *= 0x9e3779b97f4a7c15ull; NEXT_OP;
rot: a = a >> 7 | a << 57; NEXT_OP;
not: b = ~b; NEXT_OP;
swap: { uint64_t t = a; a = b; b = t; } NEXT_OP;
end:
    pc = code;
    if (--rounds) {
        NEXT_OP;
    }
    return a ^ b;
}

/* Extended precision: 48 x 48 matrices, and a root. */
static uint64_t x87(void)
{
    enum { N = 48 };
    static long double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k++) {
            a[i][k] = (long double)(i + 2 * k) / 3;
            b[i][k] = (long double)(i - k) / 7;
        }
    }
    long double trace = 0;
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k++) {
            long double s = 0;
            for (int n = 0; n < N; n++) {
                s += a[i][n] * b[n][k];
            }
            c[i][k] = s;
        }
        long double r;
        __asm__("fsqrt" : "=t"(r) : "0"(__builtin_fabsl(c[i][i])));
        trace += r;
    }
    return (uint64_t)(trace * 65536);
}

/* The string instruction, from 64 bytes to 64 KiB at a time. */
static uint64_t movsb(void)
{
    enum { N = 1 << 20 };
    static uint8_t from[N], to[N];
    uint64_t sum = 0;
    for (size_t len = 64; len <= 65536; len *= 4) {
        for (size_t at = 0; at + len <= N; at += len) {
            void *d = to + at;
            const void *s = from + at;
            size_t n = len;
            from[at] = (uint8_t)(at >> 6);
            __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
            sum += to[at];
        }
    }
    return sum;
}

/* strlen() as C libraries have it: 16 bytes a step. */
static uint64_t simdlen(void)
{
    enum { N = 1 << 20 };
    static char text[N] __attribute__((aligned(16)));
    uint64_t sum = 0;
    memset(text, 'x', N - 1);
    for (int k = 0; k < 16; k++) {
        const char *p = text;
        unsigned m;
        text[N - 2 - k] = 0;
        while (!(m = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128((const __m128i *)(const void *)p), _mm_setzero_si128())))) {
            p += 16;
        }
        sum += (uint64_t)(p - text) + (unsigned)__builtin_ctz(m);
    }
    return sum;
}

static volatile uint64_t caught;
static void on_signal(int sig) { caught += (uint64_t)sig; }
static uint64_t signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &sa, NULL);
    caught = 0;
    pid_t pid = getpid();
    for (int i = 0; i < 4000; i++) {
        kill(pid, SIGUSR1);
    }
    return caught;
}

/* A function is written anew and called, 10000 times: what a simple compiler at run time does. */
static uint64_t rewrite(void)
{
    static uint8_t *code;
    uint64_t sum = 0;
    if (!code) {
        code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (code == MAP_FAILED) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < 10000; i++) {
        /* lea eax, [rdi + imm32]; imul eax, eax, imm8; ret */
        uint8_t now[] = {0x8d, 0x87, (uint8_t)i, (uint8_t)(i >> 8), 0, 0, 0x6b, 0xc0, (uint8_t)(i & 15), 0xc3};
        memcpy(code + i % 8 * 64, now, sizeof(now));
        uint32_t (*fn)(uint32_t) = (uint32_t(*)(uint32_t))(uintptr_t)(code + i % 8 * 64);
        for (uint32_t k = 0; k < 4; k++) {
            sum += fn(i ^ k);
        }
    }
    return sum;
}

/* This program again, as another process. */
static uint64_t execs(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 10; i++) {
        char code[4] = {(char)('0' + i), 0};
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", "bench", "exit", code, (char *)NULL);
            _exit(99);
        }
        int status = 0;
        waitpid(child, &status, 0);
        sum = sum * 3 + (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int longer(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Pieces of sha256 a second: of a whole second, and where a twentieth of the pieces is quicker. */
struct rate { double all, quick; };

/*
 * sha256 in each of n processes for so many milliseconds: what each did in the mean. Counted from before the first
 * was made, so what making and placing them costs is in it; a process that was slow for a while counts for what it
 * did, and does not have the others wait for it. The quickest pieces, of less than a millisecond each, are those
 * that nothing else on the machine disturbed: what n at once lose there they lose to each other.
 */
static struct rate side_by_side(unsigned n, unsigned ms)
{
    enum { BLOCKS = 256, PIECES = 1 << 16 };
    static uint32_t took[PIECES];
    struct rate *of = mmap(NULL, n * sizeof(*of), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), mean = {0, 0};
    if (of == MAP_FAILED) {
        return mean;
    }
    int64_t began = now_ns(), end = began + (int64_t)ms * 1000000;
    for (unsigned i = 0; i < n; i++) {
        if (fork() == 0) {
            unsigned done = 0;
            int64_t last = now_ns(), now;
            do {
                sha256_of(BLOCKS);
                now = now_ns();
                took[done++ % PIECES] = (uint32_t)(now - last);
                last = now;
            } while (now < end);
            unsigned kept = done < PIECES ? done : PIECES;
            qsort(took, kept, sizeof(took[0]), longer);
            of[i] = (struct rate){done * 1e9 / (double)(now - began), 1e9 / took[kept / 20]};
            _exit(0);
        }
    }
    while (wait(NULL) > 0) {
    }
    for (unsigned i = 0; i < n; i++) {
        mean.all += of[i].all / n;
        mean.quick += of[i].quick / n;
    }
    munmap(of, n * sizeof(*of));
    return mean;
}

/* In turn, so that a pair is of one moment. */
static void parallel(unsigned n, unsigned pairs, unsigned ms)
{
    side_by_side(n, ms);                 /* translated on every vCPU by then */
    for (unsigned i = 0; i < pairs; i++) {
        struct rate one = side_by_side(1, ms), all = side_by_side(n, ms);
        printf("bench-parallel %u %.2f %.2f %.2f %.2f\n", n, one.all, all.all, one.quick, all.quick);
        fflush(stdout);
    }
}

/* Two instructions a round, for MIPS: 4 million rounds. */
static uint64_t loop(void)
{
    uint64_t n = 4000000, x = 1;
    __asm__ volatile("1: lea 3(%1,%1,2), %1\n xor %0, %1\n dec %0\n jnz 1b" : "+r"(n), "+r"(x));
    return x;
}

static const struct {
    const char *name;
    uint64_t (*run)(void);
} benches[] = {{"loop", loop}, {"sieve", sieve}, {"sha256", sha256}, {"sorting", sorting}, {"sse2", sse2},
               {"copies", copies}, {"syscalls", syscalls}, {"faults", faults}, {"forks", forks}, {"switches", switches},
               {"calls", calls}, {"indirect", indirect}, {"x87", x87}, {"movsb", movsb}, {"simdlen", simdlen},
               {"execs", execs}, {"signals", signals}, {"rewrite", rewrite}};

int main(int argc, char **argv)
{
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1;
    if (argc > 2 && !strcmp(argv[1], "exit")) {
        return (int)rounds;
    }
    if (argc > 2 && rounds && !strcmp(argv[1], "parallel")) {
        parallel(rounds, argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 3, argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 1000);
        return 0;
    }
    for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++) {
        if (argc > 1 && strcmp(argv[1], "all") && strcmp(argv[1], benches[i].name)) {
            continue;
        }
        uint64_t check = benches[i].run(); /* once for the caches, and for truth */
        int64_t began = now_ns();
        for (unsigned r = 0; r < rounds; r++) {
            check = check * 31 + benches[i].run();
        }
        printf("bench %s %u %lld %016llx\n", benches[i].name, rounds, (long long)(now_ns() - began), (unsigned long long)check);
        fflush(stdout);
    }
    puts("bench done");
    return 0;
}
