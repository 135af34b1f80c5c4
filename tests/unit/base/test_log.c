/* Log lines: one write a line, nothing forged, debug by subsystem, rate limits. */
#include "hv/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <unistd.h>
#include <sys/stat.h>
#include <cmocka.h>

static int saved_stderr, pipe_fd[2];

static int capture(void **state)
{
    saved_stderr = dup(STDERR_FILENO);
    return pipe2(pipe_fd, O_NONBLOCK | O_CLOEXEC) < 0 || dup2(pipe_fd[1], STDERR_FILENO) < 0 ? -1 : 0;
}

static int release(void **state)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
    unsetenv("HV_DEBUG");
    unsetenv("JOURNAL_STREAM");
    return 0;
}

static const char *logged(void)
{
    static char buf[8192];
    ssize_t n = read(pipe_fd[0], buf, sizeof(buf) - 1);

    buf[n > 0 ? n : 0] = '\0';
    return buf;
}

static void lines_name_the_program(void **state)
{
    log_init("hv-worker: web1");
    errno = ENOENT;
    log_error("scsi0: %m");
    assert_int_equal(errno, ENOENT);
    assert_string_equal(logged(), "hv-worker: web1: scsi0: No such file or directory\n");
    log_warning("%d entries replayed", 3);
    assert_string_equal(logged(), "hv-worker: web1: warning: 3 entries replayed\n");
}

static void a_guest_cannot_forge_lines(void **state)
{
    static char big[5000];

    log_init("hvd");
    log_info("name %s", "x\nhvd: all is well\033[2J");
    assert_string_equal(logged(), "hvd: name x?hvd: all is well?[2J\n");
    memset(big, 'y', sizeof(big) - 1);
    log_info("%s", big);
    const char *line = logged();
    assert_true(strlen(line) < 1100);
    assert_string_equal(line + strlen(line) - 2, "y\n");
}

static void debug_is_by_subsystem(void **state)
{
    setenv("HV_DEBUG", "vmbus,dynmem", 1);
    log_init("hvd");
    assert_true(log_debug_on("vmbus"));
    assert_true(log_debug_on("dynmem"));
    assert_false(log_debug_on("vmb"));
    assert_false(log_debug_on("dynmem2"));
    assert_false(log_debug_on("all"));
    log_debug("rpc", "silent");
    log_debug("vmbus", "offer %d", 4);
    assert_string_equal(logged(), "hvd: debug: vmbus: offer 4\n");
    setenv("HV_DEBUG", "all", 1);
    log_init("hvd");
    assert_true(log_debug_on("anything"));
    unsetenv("HV_DEBUG");
    log_init("hvd");
    assert_false(log_debug_on("vmbus"));
}

static void the_journal_gets_levels(void **state)
{
    struct stat st;
    char stream[64];

    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init("hv-worker: web1");
    log_warning("x");
    assert_string_equal(logged(), "<4>web1: x\n");
    log_init("hvd");
    log_error("y");
    assert_string_equal(logged(), "<3>y\n");
    setenv("JOURNAL_STREAM", "1:1", 1);
    log_init("hvd");
    log_error("y");
    assert_string_equal(logged(), "hvd: y\n");
}

static void rate_limits_count_what_they_swallow(void **state)
{
    struct log_ratelimit rl = LOG_RATELIMIT(2);

    log_init("hvd");
    assert_true(log_ratelimit_ok(&rl));
    assert_true(log_ratelimit_ok(&rl));
    assert_false(log_ratelimit_ok(&rl));
    assert_false(log_ratelimit_ok(&rl));
    assert_int_equal(rl.missed, 2);
    rl.window_start_ns -= rl.interval_ns;            /* time passes */
    assert_true(log_ratelimit_ok(&rl));
    assert_non_null(strstr(logged(), "2 similar"));
    assert_int_equal(rl.missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_name_the_program, capture, release),
        cmocka_unit_test_setup_teardown(a_guest_cannot_forge_lines, capture, release),
        cmocka_unit_test_setup_teardown(debug_is_by_subsystem, capture, release),
        cmocka_unit_test_setup_teardown(the_journal_gets_levels, capture, release),
        cmocka_unit_test_setup_teardown(rate_limits_count_what_they_swallow, capture, release),
    };
    return cmocka_run_group_tests_name("base/log", tests, NULL, NULL);
}
