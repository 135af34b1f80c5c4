/* The queue: many requests in flight end as one after the other would; every error arrives. */
#include "hv/disk/queue.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv/base/fault.h"
#include "hv/rpc/loop_uv.h"
#include "tests/unit/roll.h"

#define SIZE  (40 * MIB)
#define UNITS 512u                       /* the disk in parts: no two requests in flight touch the same */
#define PART  (SIZE / UNITS)

static char path[] = "/tmp/hv-test-queue-XXXXXX.vhd";

struct job {
    struct disk_request req;
    struct iovec iov[8];
    uint8_t *buf;
    unsigned part;
    uint64_t off, len;
    bool expect_error;
};

static struct {
    struct loop *loop;
    struct disk_queue *q;
    struct disk *disk;
    uint8_t *model;
    bool busy[UNITS];
    unsigned begun, ended, total, errors;
} t;

static void begin(void);

static void on_done(struct disk_request *r, int result)
{
    struct job *j = CONTAINER_OF(r, struct job, req);

    t.errors += result < 0;
    if (result < 0 && !j->expect_error) {
        fail_msg("op %d at %llu+%llu: %s", r->op, (unsigned long long)j->off, (unsigned long long)j->len, strerror(-result));
    }
    if (result == 0 && r->op == DISK_OP_READ) {
        assert_memory_equal(j->buf, t.model + j->off, j->len);
    } else if (result == 0 && r->op == DISK_OP_WRITE) {
        memcpy(t.model + j->off, j->buf, j->len);
    } else if (result == 0 && r->op == DISK_OP_ZERO) {
        memset(t.model + j->off, 0, j->len);
    }
    t.busy[j->part] = false;
    free(j->buf);
    free(j);
    t.ended++;
    if (t.begun < t.total) {
        begin();
    } else if (t.ended == t.total) {
        loop_uv_stop(t.loop);
    }
}

/* One request within a part that is free. */
static void begin(void)
{
    struct job *j = hv_alloc(sizeof(*j));
    uint64_t kind = roll(20), left;

    do {
        j->part = (unsigned)roll(UNITS);
    } while (t.busy[j->part]);
    t.busy[j->part] = true;
    j->off = (uint64_t)j->part * PART + roll(PART / 512) * 512;
    left = (1 + roll(64)) * 512;
    j->len = MIN(left, (uint64_t)(j->part + 1) * PART - j->off);
    j->buf = hv_alloc(j->len);
    for (uint64_t i = 0; i < j->len; i++) {
        j->buf[i] = (uint8_t)roll(255) + 1;
    }
    j->req = (struct disk_request){ .disk = t.disk, .off = j->off, .len = j->len, .iov = j->iov, .done = on_done };
    j->req.op = kind < 9 ? DISK_OP_WRITE : kind < 17 ? DISK_OP_READ : kind < 19 ? DISK_OP_ZERO : DISK_OP_FLUSH;
    left = j->len;
    for (uint8_t *at = j->buf; left > 0;) {           /* pieces of any length: pages of a guest */
        uint64_t some = 1 + roll(4096), n = j->req.iov_count == 7 ? left : MIN(left, some);

        j->iov[j->req.iov_count++] = (struct iovec){ at, n };
        at += n;
        left -= n;
    }
    t.begun++;
    disk_queue_submit(t.q, &j->req);
}

static void run(bool uring, unsigned depth, unsigned total)
{
    struct hv_error e = { 0 };
    uint8_t *all;

    unlink(path);
    assert_int_equal(disk_create(path, &(struct disk_create){ .kind = DISK_VHD, .type = DISK_DYNAMIC, .size = SIZE,
                                                              .block_size = 512 * KIB }, &e), 0);
    assert_int_equal(disk_open(path, &(struct disk_options){ .format = -1, .flags = DISK_WRITE }, &t.disk, &e), 0);
    assert_int_equal(loop_uv_new(&t.loop), 0);
    assert_int_equal(disk_queue_new(t.loop, 2, uring, &t.q), 0);
    t.model = test_calloc(1, SIZE);
    t.begun = t.ended = t.errors = 0;
    t.total = total;
    memset(t.busy, 0, sizeof(t.busy));
    for (unsigned i = 0; i < depth; i++) {
        begin();
    }
    loop_uv_run(t.loop);
    assert_int_equal(disk_queue_pending(t.q), 0);
    all = test_malloc(SIZE);
    assert_int_equal(disk_read(t.disk, 0, all, SIZE), 0);
    assert_memory_equal(all, t.model, SIZE);
    test_free(all);
    disk_queue_free(t.q);
    loop_uv_free(t.loop);
    assert_int_equal(disk_close(t.disk, &e), 0);
    test_free(t.model);
}

static void many_in_flight_by_io_uring(void **state)
{
    run(true, 300, 6000);                /* more than the ring holds */
}

static void many_in_flight_by_threads(void **state)
{
    run(false, 64, 3000);
}

static void drained_at_the_end(void **state)
{
    struct hv_error e = { 0 };

    unlink(path);
    assert_int_equal(disk_create(path, &(struct disk_create){ .kind = DISK_VHD, .type = DISK_DYNAMIC, .size = SIZE }, &e), 0);
    assert_int_equal(disk_open(path, &(struct disk_options){ .format = -1, .flags = DISK_WRITE }, &t.disk, &e), 0);
    assert_int_equal(loop_uv_new(&t.loop), 0);
    assert_int_equal(disk_queue_new(t.loop, 1, true, &t.q), 0);
    t.model = test_calloc(1, SIZE);
    t.begun = t.ended = 0;
    t.total = 100;
    memset(t.busy, 0, sizeof(t.busy));
    for (int i = 0; i < 100; i++) {
        begin();
    }
    disk_queue_drain(t.q);               /* without the loop: as when the VM is paused */
    assert_int_equal(t.ended, 100);
    for (t.total = 200; t.begun < 200;) {
        begin();
    }
    disk_queue_free(t.q);                /* waits too */
    assert_int_equal(t.ended, 200);
    loop_uv_free(t.loop);
    assert_int_equal(disk_close(t.disk, &e), 0);
    test_free(t.model);
}

/* A file that cannot grow: writes that need room fail, each is answered, the rest goes on. */
static void errors_arrive(void **state)
{
    struct rlimit old, small;
    struct hv_error e = { 0 };
    unsigned failed = 0;

    getrlimit(RLIMIT_FSIZE, &old);
    small = (struct rlimit){ 6 * MIB, old.rlim_max };
    unlink(path);
    assert_int_equal(disk_create(path, &(struct disk_create){ .kind = DISK_VHD, .type = DISK_DYNAMIC, .size = SIZE }, &e), 0);
    assert_int_equal(disk_open(path, &(struct disk_options){ .format = -1, .flags = DISK_WRITE }, &t.disk, &e), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (uint64_t off = 0; off < SIZE; off += 2 * MIB) {
        failed += disk_write(t.disk, off, "x", 1) < 0;
    }
    assert_true(failed > 10);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(disk_write(t.disk, 30 * MIB, "y", 1), 0);
    assert_int_equal(disk_close(t.disk, &e), 0);
    struct disk_file *f;
    assert_int_equal(disk_file_open(path, 0, &f, &e), 0);
    assert_int_equal(disk_check_file(f, -1, NULL, NULL, &e), 0);      /* a problem would call NULL */
    disk_file_unref(f);
}

static int remove_file(void **state)
{
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_in_flight_by_io_uring),
        cmocka_unit_test(many_in_flight_by_threads),
        cmocka_unit_test(drained_at_the_end),
        cmocka_unit_test(errors_arrive),
    };

    signal(SIGXFSZ, SIG_IGN);
    if (mkstemps(path, 4) < 0) {
        return 1;
    }
    return cmocka_run_group_tests_name("queue", tests, NULL, remove_file);
}
