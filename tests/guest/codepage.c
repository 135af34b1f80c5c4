/*
 * Code that a device overwrites: pages that have been executed are read anew from a disk (O_DIRECT,
 * so that the controller writes them itself) and executed again, on the CPU that asked for the
 * read and on the others. The disk's content is lost.
 *
 *   codepage DISK ROUNDS    prints "codepage: N calls right" or what a call returned
 *
 * Each 4 KiB block holds a function that returns the block's number. The others are told of new
 * code by a counter and serialize before they call it, as the SDM asks (3A 9.1.3).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCKS = 64, PAGES = 4, HOT = 400 };

static uint8_t *code;                   /* PAGES pages, executable */
static _Atomic uint64_t told;           /* generation << 32 | page << 16 | number; 0: not yet */
static _Atomic unsigned answered;
static _Atomic uint64_t calls;
static _Atomic int stop;

static void die(const char *what)
{
    printf("codepage: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* In the middle of a page, a loop that is hot enough to be translated; returns the number. */
static void make_block(uint8_t *p, uint32_t number)
{
    static const uint8_t head[] = {0xb9, HOT & 0xff, HOT >> 8, 0, 0,   /* mov ecx, HOT */
                                   0xb8};                              /* again: mov eax, number */
    static const uint8_t tail[] = {0xff, 0xc9, 0x75, 0xf7, 0xc3};      /* dec ecx; jnz again; ret */
    memset(p, 0xcc, PAGE);
    memcpy(p + PAGE / 2, head, sizeof(head));
    memcpy(p + PAGE / 2 + sizeof(head), &number, sizeof(number));
    memcpy(p + PAGE / 2 + sizeof(head) + sizeof(number), tail, sizeof(tail));
}

static uint32_t call(unsigned page)
{
    uint32_t (*fn)(void) = (uint32_t (*)(void))(uintptr_t)(code + page * PAGE + PAGE / 2);
    return fn();
}

static void check(unsigned page, uint32_t want, const char *who)
{
    uint32_t got = call(page);
    if (got != want) {
        printf("codepage: %s: page %u returned %u, not %u\n", who, page, got, want);
        exit(1);
    }
    calls++;
}

static void serialize(void)
{
    uint32_t a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

static void *other(void *arg)
{
    uint64_t seen = 0;
    (void)arg;
    while (!stop) {
        uint64_t now = told;
        if (now == seen) {
            sched_yield();
            continue;
        }
        seen = now;
        serialize();
        check(now >> 16 & 0xffff, now & 0xffff, "another CPU");
        answered++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN), rounds = argc == 3 ? atol(argv[2]) : 0;
    if (!rounds)
        return 2;
    int fd = open(argv[1], O_RDWR | O_DIRECT);
    if (fd < 0)
        die(argv[1]);
    code = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (code == MAP_FAILED)
        die("mmap");
    for (unsigned i = 0; i < BLOCKS; i++) {
        make_block(code, i + 1);
        if (pwrite(fd, code, PAGE, i * PAGE) != PAGE)
            die("write");
    }
    for (long i = 1; i < cpus; i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, other, NULL))
            die("thread");
    }
    uint32_t x = 1;
    for (long n = 1; n <= rounds; n++) {
        x = x * 1664525 + 1013904223;
        unsigned page = x >> 28 & (PAGES - 1), block = x >> 20 & (BLOCKS - 1);
        if (pread(fd, code + page * PAGE, PAGE, block * PAGE) != PAGE)
            die("read");
        check(page, block + 1, "this CPU");
        answered = 0;
        told = (uint64_t)n << 32 | page << 16 | (block + 1);
        while (answered < cpus - 1)
            sched_yield();
        check(page, block + 1, "this CPU again");
    }
    stop = 1;
    printf("codepage: %lu calls right\n", (unsigned long)calls);
    return 0;
}
