/*
 * What a disk gives a guest, by the guest's own clock, past its page cache (O_DIRECT).
 *
 *   diskbench DISK EMPTY SECONDS    one line "diskbench NAME VALUE UNIT" a measurement
 *
 * DISK is read and written as a whole; EMPTY is a disk whose backing does nothing, so that a
 * read of it is the way there and back. Random offsets are the same in every run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define CHUNK (1024u * 1024)
#define DEPTH_MAX 32u
#define SAMPLES_MAX 65536u

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    printf("diskbench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t rnd(void)
{
    static uint64_t x = 88172645463325252;
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

static int open_disk(const char *path, uint64_t *ret_size)
{
    int fd = open(path, O_RDWR | O_DIRECT);
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, ret_size) < 0)
        die(path);
    return fd;
}

/* MiB a second of 1 MiB requests from the disk's begin on, over and over. */
static double sequential(int fd, uint64_t size, bool write, double seconds, void *buf)
{
    uint64_t from = now_ns(), end = from + (uint64_t)(seconds * 1e9), moved = 0, at = 0;
    while (now_ns() < end) {
        ssize_t n = write ? pwrite(fd, buf, CHUNK, (off_t)at) : pread(fd, buf, CHUNK, (off_t)at);
        if (n != CHUNK)
            die("sequential");
        moved += CHUNK;
        at = at + 2 * CHUNK <= size ? at + CHUNK : 0;
    }
    if (write && fsync(fd) < 0)
        die("fsync");
    return (double)moved / CHUNK / ((double)(now_ns() - from) / 1e9);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* One 4 KiB read after the other: microseconds of the median one. */
static double round_trip(int fd, uint64_t size, double seconds, void *buf)
{
    static uint32_t took[SAMPLES_MAX];
    unsigned n = 0;
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    while (n < SAMPLES_MAX) {
        uint64_t at = rnd() % (size / BLOCK) * BLOCK, from = now_ns(), to;
        if (pread(fd, buf, BLOCK, (off_t)at) != BLOCK)
            die("round trip");
        to = now_ns();
        took[n++] = (uint32_t)(to - from);
        if (to >= end)
            break;
    }
    qsort(took, n, sizeof(took[0]), compare);
    return took[n / 2] / 1e3;
}

/* 4 KiB requests at random places, `depth` of them under way: how many a second. */
static double iops(int fd, uint64_t size, bool write, unsigned depth, double seconds, char *buf)
{
    static struct iocb cb[DEPTH_MAX];
    struct io_event done[DEPTH_MAX];
    aio_context_t ctx = 0;
    uint64_t from = now_ns(), end = from + (uint64_t)(seconds * 1e9), count = 0;
    unsigned flying = 0;
    if (syscall(SYS_io_setup, depth, &ctx) < 0)
        die("io_setup");
    for (unsigned i = 0; i < depth; i++)
        cb[i].aio_data = i;
    struct iocb *next[DEPTH_MAX];
    for (unsigned i = 0; i < depth; i++)
        next[i] = &cb[i];
    unsigned ready = depth;
    for (bool more = true; more || flying;) {
        more = now_ns() < end;
        for (unsigned i = 0; more && i < ready; i++)
            *next[i] = (struct iocb){.aio_data = next[i]->aio_data, .aio_fildes = (uint32_t)fd,
                                     .aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, .aio_nbytes = BLOCK,
                                     .aio_buf = (uintptr_t)(buf + next[i]->aio_data * BLOCK),
                                     .aio_offset = (int64_t)(rnd() % (size / BLOCK) * BLOCK)};
        if (more && ready) {
            if (syscall(SYS_io_submit, ctx, (long)ready, next) != (long)ready)
                die("io_submit");
            flying += ready;
        }
        long n = flying ? syscall(SYS_io_getevents, ctx, 1L, (long)depth, done, NULL) : 0;
        if (n < 0)
            die("io_getevents");
        for (long i = 0; i < n; i++) {
            if (done[i].res != BLOCK) {
                errno = (int)-done[i].res;
                die("a request");
            }
            next[i] = (struct iocb *)(uintptr_t)done[i].obj;
        }
        ready = (unsigned)n;
        flying -= ready;
        count += ready;
    }
    from = now_ns() - from;              /* without the end of the context, which takes its time */
    syscall(SYS_io_destroy, ctx);
    return (double)count / ((double)from / 1e9);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    uint64_t size, empty_size;
    int fd = open_disk(argv[1], &size), empty = open_disk(argv[2], &empty_size);
    double s = atof(argv[3]);
    char *buf = aligned_alloc(BLOCK, CHUNK);
    if (!buf)
        die("memory");
    memset(buf, 0x5a, CHUNK);
    printf("diskbench round-trip %.1f us\n", round_trip(empty, empty_size, s, buf));
    printf("diskbench sequential-read %.1f MiB/s\n", sequential(fd, size, false, s, buf));
    printf("diskbench random-read-1 %.0f IOPS\n", iops(fd, size, false, 1, s, buf));
    printf("diskbench random-read-32 %.0f IOPS\n", iops(fd, size, false, 32, s, buf));
    /* Writes last: what the host's disk owes for them later is not a reader's. */
    memset(buf, 0x5a, CHUNK);
    printf("diskbench sequential-write %.1f MiB/s\n", sequential(fd, size, true, s, buf));
    printf("diskbench random-write-32 %.0f IOPS\n", iops(fd, size, true, 32, s, buf));
    printf("diskbench done\n");
    return 0;
}
