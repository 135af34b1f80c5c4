/*
 * Small programs whose speed inside a guest says something: `bench NAME SCALE` does SCALE
 * rounds of one of them and prints "NAME ROUNDS NANOSECONDS CHECK". Static, no files.
 * CHECK depends on the result only, so that two hypervisors can be compared for truth too.
 */
#define _GNU_SOURCE
#include <emmintrin.h>
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

static uint64_t sha256(void)
{
    uint32_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t block[64] = {0};
    for (uint32_t i = 0; i < 4096; i++) {
        memcpy(block, &i, 4);
        sha256_block(h, block);
    }
    return h[0];
}

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
               {"copies", copies}, {"syscalls", syscalls}, {"faults", faults}, {"forks", forks}, {"switches", switches}};

int main(int argc, char **argv)
{
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1;
    for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++) {
        if (argc > 1 && strcmp(argv[1], "all") && strcmp(argv[1], benches[i].name)) {
            continue;
        }
        struct timespec a, b;
        uint64_t check = benches[i].run(); /* once for the caches, and for truth */
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (unsigned r = 0; r < rounds; r++) {
            check = check * 31 + benches[i].run();
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("bench %s %u %lld %016llx\n", benches[i].name, rounds,
               (long long)(b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec, (unsigned long long)check);
        fflush(stdout);
    }
    puts("bench done");
    return 0;
}
