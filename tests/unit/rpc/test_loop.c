/* The loop on libuv: timers from any thread, coalescing posts, descriptors, processes. */
#include "hv/rpc/loop_uv.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static struct loop *loop;
static unsigned count;

static int setup(void **state)
{
    count = 0;
    return loop_uv_new(&loop);
}

static int teardown(void **state)
{
    loop_uv_free(loop);
    return 0;
}

static void stop(void *arg)
{
    loop_uv_stop(loop);
}

static void bump(void *arg)
{
    count++;
}

static char order[16], letters[] = "abc";

static void note(void *arg)
{
    size_t n = strlen(order);

    order[n] = *(char *)arg;
    order[n + 1] = '\0';
}

static void timers_fire_in_order_of_deadline(void **state)
{
    struct loop_timer *t[4];
    uint64_t now = hv_now_ns();

    order[0] = '\0';
    assert_int_equal(loop_timer_new(loop, note, &letters[2], &t[0]), 0);
    assert_int_equal(loop_timer_new(loop, note, &letters[0], &t[1]), 0);
    assert_int_equal(loop_timer_new(loop, note, &letters[1], &t[2]), 0);
    assert_int_equal(loop_timer_new(loop, stop, NULL, &t[3]), 0);
    loop_timer_set(loop, t[0], now + 3 * NS_PER_MS);
    loop_timer_set(loop, t[1], 0);                   /* long past */
    loop_timer_set(loop, t[2], now + 1 * NS_PER_MS);
    loop_timer_set(loop, t[3], now + 5 * NS_PER_MS);
    loop_uv_run(loop);
    assert_string_equal(order, "abc");
    assert_true(hv_now_ns() - now >= 5 * NS_PER_MS); /* never early */
    for (unsigned i = 0; i < 4; i++) {
        loop_timer_free(loop, t[i]);
    }
}

static void a_stopped_or_moved_timer_does_not_fire(void **state)
{
    struct loop_timer *a, *b, *end;
    uint64_t now = hv_now_ns();

    assert_int_equal(loop_timer_new(loop, bump, NULL, &a), 0);
    assert_int_equal(loop_timer_new(loop, bump, NULL, &b), 0);
    assert_int_equal(loop_timer_new(loop, stop, NULL, &end), 0);
    loop_timer_set(loop, a, now + NS_PER_MS);
    loop_timer_stop(loop, a);
    loop_timer_stop(loop, a);                        /* twice is fine */
    loop_timer_set(loop, b, now + NS_PER_MS);
    loop_timer_set(loop, b, now + 3600 * NS_PER_SEC);
    loop_timer_set(loop, end, now + 4 * NS_PER_MS);
    loop_uv_run(loop);
    assert_int_equal(count, 0);
    loop_timer_free(loop, a);
    loop_timer_free(loop, b);                        /* still set */
    loop_timer_free(loop, end);
}

static struct loop_timer *victim, *self;

static void free_victim(void *arg)
{
    loop_timer_free(loop, victim);
    victim = NULL;
    loop_timer_free(loop, self);
    count++;
}

static void callbacks_may_free_timers_that_expired_with_them(void **state)
{
    struct loop_timer *end;

    assert_int_equal(loop_timer_new(loop, free_victim, NULL, &self), 0);
    assert_int_equal(loop_timer_new(loop, bump, NULL, &victim), 0);
    assert_int_equal(loop_timer_new(loop, stop, NULL, &end), 0);
    loop_timer_set(loop, self, 1);
    loop_timer_set(loop, victim, 2);
    loop_timer_set(loop, end, 3);
    loop_uv_run(loop);
    assert_int_equal(count, 1);
    loop_timer_free(loop, end);
}

static struct loop_timer *again;

static void rearm_in_the_past(void *arg)
{
    count++;
    loop_timer_set(loop, again, 1);
}

static void a_timer_that_rearms_itself_does_not_starve_the_loop(void **state)
{
    struct loop_timer *end;

    assert_int_equal(loop_timer_new(loop, rearm_in_the_past, NULL, &again), 0);
    assert_int_equal(loop_timer_new(loop, stop, NULL, &end), 0);
    loop_timer_set(loop, again, 1);
    loop_timer_set(loop, end, hv_now_ns() + 5 * NS_PER_MS);
    loop_uv_run(loop);
    assert_true(count > 1);
    loop_timer_free(loop, again);
    loop_timer_free(loop, end);
}

/* A random walk of sets and stops against a plain array. */
static struct loop_timer *many[200];
static uint64_t last_deadline, deadlines[200];
static bool due[200];

static void many_fired(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;

    if (!due[i] || deadlines[i] < last_deadline) {
        fail_msg("timer %u fired out of turn", i);
    }
    last_deadline = deadlines[i];
    due[i] = false;
}

static void the_heap_agrees_with_a_simple_model(void **state)
{
    uint64_t base = hv_now_ns() - NS_PER_SEC, x = 42;
    struct loop_timer *end;

    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(loop_timer_new(loop, many_fired, (void *)(uintptr_t)i, &many[i]), 0);
        due[i] = false;
    }
    for (unsigned n = 0; n < 5000; n++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        unsigned i = (unsigned)(x >> 33) % 200;
        due[i] = x >> 60 & 3;
        if (due[i]) {
            deadlines[i] = base + (x >> 20) % NS_PER_SEC;
            loop_timer_set(loop, many[i], deadlines[i]);
        } else {
            loop_timer_stop(loop, many[i]);
        }
    }
    last_deadline = 0;
    assert_int_equal(loop_timer_new(loop, stop, NULL, &end), 0);
    loop_timer_set(loop, end, hv_now_ns());
    loop_uv_run(loop);
    for (unsigned i = 0; i < 200; i++) {
        assert_false(due[i]);
        loop_timer_free(loop, many[i]);
    }
    loop_timer_free(loop, end);
}

#define THREADS 3
#define ROUNDS  2000

static _Atomic unsigned posted, ran;
static struct loop_post shared_post;
static struct loop_timer *shared_timer;

static void count_run(void *arg)
{
    atomic_fetch_add(&ran, 1);
}

static void stop_when_done(void *arg)
{
    if (atomic_load(&posted) == THREADS) {
        loop_uv_stop(loop);
    }
}

static void *hammer(void *arg)
{
    struct loop_post *end = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        loop_post(loop, &shared_post);
        loop_timer_set(loop, shared_timer, hv_now_ns() + i % 7 * 1000);
        if (i % 5 == 0) {
            loop_timer_stop(loop, shared_timer);
        }
    }
    atomic_fetch_add(&posted, 1);
    loop_post(loop, end);
    return NULL;
}

static void posts_and_timers_from_other_threads(void **state)
{
    struct loop_post end = { .fn = stop_when_done };
    pthread_t t[THREADS];

    posted = ran = 0;
    shared_post = (struct loop_post){ .fn = count_run };
    assert_int_equal(loop_timer_new(loop, bump, NULL, &shared_timer), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, hammer, &end), 0);
    }
    loop_uv_run(loop);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
    }
    assert_true(ran >= 1 && ran <= THREADS * ROUNDS);
    loop_timer_free(loop, shared_timer);
}

static void posting_twice_runs_once(void **state)
{
    struct loop_post a = { .fn = bump }, end = { .fn = stop };

    loop_post(loop, &a);
    loop_post(loop, &a);
    loop_post(loop, &end);
    loop_uv_run(loop);
    assert_int_equal(count, 1);
    loop_post(loop, &a);
    loop_post(loop, &end);
    loop_uv_run(loop);                               /* the loop can run again */
    assert_int_equal(count, 2);
}

static void cancelled_posts_do_not_run(void **state)
{
    struct loop_post a = { .fn = bump }, b = { .fn = bump }, c = { .fn = bump }, end = { .fn = stop };

    loop_post(loop, &a);
    loop_post(loop, &b);
    loop_post(loop, &c);
    loop_post_cancel(loop, &c);                      /* the last: the tail moves back */
    loop_post_cancel(loop, &a);
    loop_post_cancel(loop, &a);
    loop_post(loop, &end);
    loop_uv_run(loop);
    assert_int_equal(count, 1);
    assert_false(a.queued || b.queued || c.queued);
}

static struct loop_post repost;

static void post_again(void *arg)
{
    if (++count < 100) {
        loop_post(loop, &repost);
    } else {
        loop_uv_stop(loop);
    }
}

static void a_post_may_post_itself(void **state)
{
    repost = (struct loop_post){ .fn = post_again };
    loop_post(loop, &repost);
    loop_uv_run(loop);
    assert_int_equal(count, 100);
}

static void stopping_before_running_returns_at_once(void **state)
{
    loop_uv_stop(loop);
    loop_uv_run(loop);
}

static int pair[2];
static struct loop_fd *watch;

static void on_pair(void *arg, unsigned events)
{
    char b;

    if (events & LOOP_WRITE) {
        assert_int_equal(write(pair[0], "x", 1), 1);
        loop_fd_set(loop, watch, LOOP_READ);
        assert_int_equal(write(pair[1], "y", 1), 1);
        return;
    }
    assert_true(events == LOOP_READ);
    ssize_t n = read(pair[0], &b, 1);
    if (n == 1) {
        count++;
        assert_int_equal(read(pair[1], &b, 1), 1);
        close(pair[1]);
        return;
    }
    assert_int_equal(n, 0);                          /* the end is readable */
    loop_fd_free(loop, watch);
    loop_uv_stop(loop);
}

static void descriptors_are_watched(void **state)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(loop_fd_new(loop, pair[0], LOOP_WRITE, on_pair, NULL, &watch), 0);
    loop_uv_run(loop);
    assert_int_equal(count, 1);
    close(pair[0]);
}

static void a_file_cannot_be_watched(void **state)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct loop_fd *f;

    assert_true(fd >= 0);
    assert_true(loop_fd_new(loop, fd, LOOP_READ, on_pair, NULL, &f) < 0);
    assert_true(loop_fd_new(loop, -1, LOOP_READ, on_pair, NULL, &f) < 0);
    close(fd);
}

static void on_signal(void *arg, int signum)
{
    count = (unsigned)signum;
    loop_uv_stop(loop);
}

static void signals_become_callbacks(void **state)
{
    assert_int_equal(loop_uv_signal(loop, SIGUSR1, on_signal, NULL), 0);
    raise(SIGUSR1);
    loop_uv_run(loop);
    assert_int_equal(count, SIGUSR1);
}

static void on_exit_of_child(void *arg)
{
    count++;
    loop_uv_stop(loop);
}

static void the_end_of_a_process_is_told_once(void **state)
{
    pid_t pid = fork();

    if (pid == 0) {
        _exit(3);
    }
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(fd >= 0);
    assert_int_equal(loop_uv_pidfd(loop, fd, on_exit_of_child, NULL), 0);
    loop_uv_run(loop);
    assert_int_equal(count, 1);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(fd);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(timers_fire_in_order_of_deadline),
        TEST(a_stopped_or_moved_timer_does_not_fire),
        TEST(callbacks_may_free_timers_that_expired_with_them),
        TEST(a_timer_that_rearms_itself_does_not_starve_the_loop),
        TEST(the_heap_agrees_with_a_simple_model),
        TEST(posts_and_timers_from_other_threads),
        TEST(posting_twice_runs_once),
        TEST(cancelled_posts_do_not_run),
        TEST(a_post_may_post_itself),
        TEST(stopping_before_running_returns_at_once),
        TEST(descriptors_are_watched),
        TEST(a_file_cannot_be_watched),
        TEST(signals_become_callbacks),
        TEST(the_end_of_a_process_is_told_once),
    };
    return cmocka_run_group_tests_name("rpc/loop", tests, NULL, NULL);
}
