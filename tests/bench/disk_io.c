/*
 * Requests of 4 KiB on a disk through the worker's queue, 32 in flight, O_DIRECT: what `qemu-img
 * bench` does, on the same file.
 *
 *   disk_io read|write FILE COUNT [random|STEP]     prints seconds
 *
 * random: places by a fixed generator; STEP: each request STEP bytes behind the one before, modulo
 * the disk's size, as qemu-img bench -S.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/disk/queue.h"
#include "hv/rpc/loop_uv.h"

#define LEN    4096u
#define FLIGHT 32u

static struct {
    struct loop *loop;
    struct disk_queue *q;
    struct disk *disk;
    enum disk_op op;
    uint64_t count, begun, ended, step, off, seed;
    int error;
    struct slot {
        struct disk_request req;
        struct iovec iov;
    } slot[FLIGHT];
} b;

static uint64_t next_place(void)
{
    uint64_t at = b.off;

    if (b.step) {
        b.off = (b.off + b.step) % (disk_size(b.disk) - LEN + 1);
        return at / LEN * LEN;
    }
    b.seed ^= b.seed << 13;
    b.seed ^= b.seed >> 7;
    b.seed ^= b.seed << 17;
    return b.seed % (disk_size(b.disk) / LEN) * LEN;
}

static void on_done(struct disk_request *r, int result)
{
    b.error = b.error ? b.error : result;
    if (b.begun < b.count) {
        b.begun++;
        r->off = next_place();
        disk_queue_submit(b.q, r);
    }
    if (++b.ended == b.count) {
        loop_uv_stop(b.loop);
    }
}

static void begin(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < FLIGHT; i++) {
        struct slot *s = &b.slot[i];

        s->iov = (struct iovec){ aligned_alloc(4096, LEN), LEN };
        hv_assert(s->iov.iov_base);
        memset(s->iov.iov_base, (int)i + 1, LEN);
        s->req = (struct disk_request){ .op = b.op, .disk = b.disk, .off = next_place(), .len = LEN, .iov = &s->iov,
                                        .iov_count = 1, .done = on_done };
        b.begun++;
        disk_queue_submit(b.q, &s->req);
    }
}

int main(int argc, char **argv)
{
    struct disk_options o = { .format = -1, .flags = DISK_DIRECT };
    struct hv_error e = { 0 };
    struct loop_post post = { .fn = begin };
    uint64_t began;

    if (argc < 4) {
        fprintf(stderr, "usage: disk_io read|write FILE COUNT [random|STEP]\n");
        return 2;
    }
    b.op = strcmp(argv[1], "write") == 0 ? DISK_OP_WRITE : DISK_OP_READ;
    b.count = MAX(strtoull(argv[3], NULL, 10), FLIGHT);
    b.step = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
    b.seed = 88172645463325252u;
    o.flags |= b.op == DISK_OP_WRITE ? DISK_WRITE : 0;
    if (disk_open(argv[2], &o, &b.disk, &e) < 0) {
        fprintf(stderr, "disk_io: %s: %s\n", e.object, e.message);
        return 1;
    }
    if (loop_uv_new(&b.loop) < 0 || disk_queue_new(b.loop, 4, true, &b.q) < 0) {
        fprintf(stderr, "disk_io: no queue\n");
        return 1;
    }
    began = hv_now_ns();
    loop_post(b.loop, &post);
    loop_uv_run(b.loop);
    if (b.error == 0 && b.op == DISK_OP_WRITE) {
        b.error = disk_flush(b.disk);
    }
    printf("%.3f\n", (double)(hv_now_ns() - began) / 1e9);
    disk_queue_free(b.q);
    loop_uv_free(b.loop);
    if (disk_close(b.disk, &e) < 0 || b.error) {
        fprintf(stderr, "disk_io: %s\n", strerror(-b.error));
        return 1;
    }
    return 0;
}
