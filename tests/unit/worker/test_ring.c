/*
 * openat and its like through io_uring: the ring is the one a worker's disks use, made by the same
 * code before the seal, and what is asked of it after the seal is what a worker gone bad would ask.
 * Reads and writes go through it, nothing else does. As it is called, and, if that was root, as an
 * ordinary user.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <grp.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "hv/disk/queue.c"               /* its ring is nobody else's business */
#include "hv/rpc/loop_uv.h"
#include "hv/worker/sandbox.h"

#define ORDINARY_USER 65534
#define WAIT_SECONDS 20

enum { RING_OK, RING_NONE, RING_READ_REFUSED, RING_LET_THROUGH, RING_REGISTERED, RING_BROKEN };

static bool as_user;

/* One entry's result; INT_MIN: the ring takes none any more. */
static int ask(struct io_uring *ring, const struct io_uring_sqe *want)
{
    struct __kernel_timespec limit = {.tv_sec = WAIT_SECONDS};
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct io_uring_cqe *cqe = NULL;
    if (!sqe)
        return INT_MIN;
    *sqe = *want;
    int r = io_uring_submit(ring);
    if (r < 0)
        return r;
    if (io_uring_wait_cqe_timeout(ring, &cqe, &limit) < 0 || !cqe)
        return INT_MIN;
    r = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return r;
}

/* In a process of its own: sealed as the loop's thread is, for that is who has the ring. */
static int hostile(void)
{
    static char byte, path[] = "/etc/passwd";
    static struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct loop *loop;
    struct disk_queue *q;
    struct sandbox_report report = {0};
    const struct sandbox_code none = {0};
    if (loop_uv_new(&loop) < 0 || disk_queue_new(loop, 1, true, &q) < 0)
        return RING_BROKEN;
    if (!disk_queue_has_uring(q))
        return RING_NONE;
    const int file = memfd_create("disk", 0);
    if (file < 0 || write(file, "x", 1) != 1)
        return RING_BROKEN;
    /* As sandbox_confine() does, which would take our folders too. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return RING_BROKEN;
    sandbox_seal(&none, &report);
    for (unsigned i = 0; i < report.count; i++)
        if (!report.layer[i].on)
            return RING_BROKEN;
    const struct io_uring_sqe read_it = {.opcode = IORING_OP_READV, .fd = file, .addr = (uintptr_t)&iov, .len = 1};
    int got = ask(&q->ring, &read_it);
    if (got != 1 || byte != 'x') {
        dprintf(2, "a read: %d\n", got);
        return RING_READ_REFUSED;
    }
    /* Every operation there is and is to come, with arguments that an openat, a stat, an unlink could mean. */
    for (unsigned op = 0; op < 64; op++) {
        const struct io_uring_sqe sqe = {.opcode = (uint8_t)op, .fd = AT_FDCWD, .addr = (uintptr_t)path};
        if (op == IORING_OP_READV || op == IORING_OP_WRITEV)
            continue;
        if (ask(&q->ring, &sqe) >= 0)
            return RING_LET_THROUGH;
    }
    const struct io_uring_sqe open_it = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)path, .open_flags = O_RDONLY};
    if (ask(&q->ring, &open_it) != -EACCES)
        return RING_LET_THROUGH;
    struct io_uring_restriction more = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_OPENAT};
    if (syscall(__NR_io_uring_register, q->ring.ring_fd, IORING_REGISTER_RESTRICTIONS, &more, 1) == 0)
        return RING_REGISTERED;
    got = ask(&q->ring, &read_it);
    if (got != 1)
        dprintf(2, "a read, afterwards: %d\n", got);
    return got == 1 ? RING_OK : RING_READ_REFUSED;
}

static void only_reads_and_writes(void **state)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (as_user && (setgroups(0, NULL) < 0 || setgid(ORDINARY_USER) < 0 || setuid(ORDINARY_USER) < 0))
            _exit(RING_BROKEN);
        _exit(hostile());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == RING_NONE) {
        print_message("no io_uring here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), RING_OK);
}

/* What the test asks gets through a ring that nobody restricted: it would be seen. */
static void a_free_ring_opens(void **state)
{
    struct io_uring ring;
    if (io_uring_queue_init(8, &ring, 0) < 0)
        skip();
    const struct io_uring_sqe open_it = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)"/etc/passwd", .open_flags = O_RDONLY};
    const int fd = ask(&ring, &open_it);
    assert_true(fd >= 0);
    close(fd);
    io_uring_queue_exit(&ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_free_ring_opens), cmocka_unit_test(only_reads_and_writes)};
    int r = cmocka_run_group_tests_name("io_uring, as called", tests, NULL, NULL);
    if (r == 0 && geteuid() == 0) {
        as_user = true;
        r = cmocka_run_group_tests_name("io_uring, ordinary user", tests, NULL, NULL);
    }
    return r;
}
