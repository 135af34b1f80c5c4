/*
 * The client on the loop, as hvd uses it towards workers: with a real server on the same
 * loop, and with a peer that writes whatever it likes.
 */
#include "hv/rpc/varlink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "hv/base/fault.h"
#include "hv/base/strbuf.h"
#include "hv/rpc/loop_uv.h"
#include "hv/rpc/server.h"

static const char text[] =
    "interface org.hv.Test\n"
    "method Echo(text: string) -> (text: string)\n"
    "method Count(to: int) -> (n: int)\n"
    "method Fail() -> ()\n"
    "method Fd() -> (size: int)\n"
    "method Hold() -> ()\n"
    "error Failed (code: string, object: string, message: string, hint: string)\n";

static struct loop *loop;
static struct varlink_server *server;
static struct varlink_conn *conn;
static struct loop_timer *limit;
static struct varlink_call *held;
static unsigned closed, held_closed;
static struct strbuf seen;
static char mark_x[] = "x", mark_end[] = ".";

static void echo(void *arg, struct varlink_call *c, const json_t *params)
{
    varlink_reply(c, json_pack("{s:O}", "text", json_object_get(params, "text")), false);
}

static void count(void *arg, struct varlink_call *c, const json_t *params)
{
    int to = (int)json_integer_value(json_object_get(params, "to"));

    for (int i = 1; i < to; i++) {
        varlink_reply(c, json_pack("{s:i}", "n", i), true);
    }
    varlink_reply(c, json_pack("{s:i}", "n", to), false);
}

static void fail_call(void *arg, struct varlink_call *c, const json_t *params)
{
    struct hv_error e;

    hv_fail(&e, HV_CONFLICT, "web1", "is running");
    varlink_reply_error(c, &e);
}

static void fd_call(void *arg, struct varlink_call *c, const json_t *params)
{
    hv_autoclose int fd = varlink_call_take_fd(c, 0);
    struct stat st = { 0 };

    if (fd >= 0) {
        fstat(fd, &st);
    }
    varlink_reply_fds(c, json_pack("{s:i}", "size", (int)st.st_size), false, &fd, fd >= 0);
}

static void hold_closed(void *arg)
{
    held_closed++;
    varlink_call_unref(held);
    held = NULL;
}

static void hold(void *arg, struct varlink_call *c, const json_t *params)
{
    held = varlink_call_ref(c);
    varlink_call_on_close(c, hold_closed, NULL);
}

static const struct varlink_method methods[] = {
    { "Echo", echo }, { "Count", count }, { "Fail", fail_call }, { "Fd", fd_call }, { "Hold", hold }, { 0 },
};
static const struct varlink_interface test_interface = { text, methods, NULL };
static const struct varlink_interface *const interfaces[] = { &test_interface };

static void too_long(void *arg)
{
    fail_msg("nothing happened for 10 s");
}

static int setup(void **state)
{
    closed = held_closed = 0;
    strbuf_reset(&seen);
    assert_int_equal(loop_uv_new(&loop), 0);
    assert_int_equal(varlink_server_new(loop, "test", interfaces, 1, &server), 0);
    assert_int_equal(loop_timer_new(loop, too_long, NULL, &limit), 0);
    return 0;
}

static int teardown(void **state)
{
    varlink_conn_free(conn);
    conn = NULL;
    varlink_server_free(server);
    varlink_call_unref(held);
    held = NULL;
    loop_timer_free(loop, limit);
    loop_uv_free(loop);
    return 0;
}

static void run(void)
{
    loop_timer_set(loop, limit, hv_now_ns() + 10 * NS_PER_SEC);
    loop_uv_run(loop);
}

static void stop_post(void *arg)
{
    loop_uv_stop(loop);
}

/* Let everything that is ready happen: several turns, as a reply takes two. */
static void settle(void)
{
    struct loop_post p = { .fn = stop_post };

    for (unsigned i = 0; i < 20; i++) {
        loop_post(loop, &p);
        run();
    }
}

static void on_close(void *arg)
{
    closed++;
    loop_uv_stop(loop);
}

static void connect_pair(int *ret_peer)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    if (ret_peer) {
        *ret_peer = pair[1];
    } else {
        assert_int_equal(varlink_server_add(server, pair[1]), 0);
    }
    assert_int_equal(varlink_conn_new(loop, pair[0], on_close, NULL, &conn), 0);
}

/* Notes what came as "arg=value " or "arg!code ". The letter "." stops the loop at the last reply. */
static void note(void *arg, json_t *params, bool continues, const struct hv_error *e)
{
    const char *name = arg;

    if (e) {
        strbuf_addf(&seen, "%s!%s ", name, hv_code_word(e->code));
    } else {
        char *s = json_dumps(params, JSON_COMPACT);
        strbuf_addf(&seen, "%s%s%s ", name, s, continues ? "+" : "");
        free(s);
    }
    if (!continues && strchr(name, '.')) {
        loop_uv_stop(loop);
    }
}

static void call(const char *method, json_t *params, bool more, const char *name)
{
    char full[64];

    snprintf(full, sizeof(full), "org.hv.Test.%s", method);
    assert_int_equal(varlink_conn_call(conn, full, params, more, NULL, 0, note, (void *)(uintptr_t)name), 0);
}

static void calls_are_answered_in_order(void **state)
{
    connect_pair(NULL);
    call("Echo", json_pack("{s:s}", "text", "x"), false, "a");
    call("Count", json_pack("{s:i}", "to", 3), true, "b");
    call("Fail", NULL, false, "c");
    call("Nope", NULL, false, "d");
    call("Echo", json_pack("{s:i}", "text", 5), false, "e");
    call("Echo", json_pack("{s:s}", "text", "y"), false, ".");
    assert_int_equal(seen.len, 0);                   /* never from within the call */
    run();
    assert_string_equal(seen.buf, "a{\"text\":\"x\"} b{\"n\":1}+ b{\"n\":2}+ b{\"n\":3} c!conflict d!unsupported "
                                  "e!usage .{\"text\":\"y\"} ");
    assert_int_equal(closed, 0);
}

static void errors_keep_their_words(void **state)
{
    connect_pair(NULL);
    call("Fail", NULL, false, ".");
    run();
    assert_string_equal(seen.buf, ".!conflict ");
}

static void note_fd(void *arg, json_t *params, bool continues, const struct hv_error *e)
{
    struct stat st;
    int fd = varlink_conn_take_fd(conn, 0);

    assert_null(e);
    assert_int_equal(json_integer_value(json_object_get(params, "size")), 4321);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 4321);
    close(fd);
    assert_int_equal(varlink_conn_take_fd(conn, 0), -1);
    assert_int_equal(varlink_conn_take_fd(conn, 1), -1);
    loop_uv_stop(loop);
}

static void descriptors_go_along(void **state)
{
    FILE *f = tmpfile();
    int fd = fileno(f);

    assert_int_equal(ftruncate(fd, 4321), 0);
    connect_pair(NULL);
    assert_int_equal(varlink_conn_call(conn, "org.hv.Test.Fd", NULL, false, &fd, 1, note_fd, NULL), 0);
    fclose(f);                                       /* duplicated when the call was made */
    run();
    assert_int_equal(varlink_conn_take_fd(conn, 0), -1);
}

static void a_lost_worker_is_told_to_everybody(void **state)
{
    int peer;

    connect_pair(&peer);
    call("Echo", NULL, false, "a");
    call("Count", NULL, true, "b");
    settle();
    assert_int_equal(seen.len, 0);
    close(peer);
    run();
    assert_string_equal(seen.buf, "a!unreachable b!unreachable ");
    assert_int_equal(closed, 1);
    assert_int_equal(varlink_conn_call(conn, "org.hv.Test.Echo", NULL, false, NULL, 0, note, NULL), -ECONNREFUSED);
    settle();
    assert_int_equal(closed, 1);
}

static void what_came_before_the_end_counts(void **state)
{
    int peer;
    strbuf_auto out = { 0 };

    connect_pair(&peer);
    call("Count", NULL, true, "a");
    call("Echo", NULL, false, "b");
    for (unsigned i = 0; i < 200; i++) {             /* more than a turn handles */
        strbuf_add(&out, "{\"continues\":true}", 19);
    }
    strbuf_add(&out, "{\"parameters\":{\"n\":1}}", 23);
    assert_int_equal(write(peer, out.buf, out.len), out.len);
    close(peer);
    run();
    assert_non_null(strstr(seen.buf, "a{}+ a{\"n\":1} b!unreachable "));
    assert_int_equal(seen.len, 200 * 5 + 9 + 14);
    assert_int_equal(closed, 1);
}

static void a_lying_worker_loses_its_connection(void **state)
{
    static const struct { const char *method; bool more; const char *reply, *seen; } rows[] = {
        { NULL, false, "{}", "" },                                            /* nobody asked */
        { "org.hv.Test.Echo", false, "{}{}", "x!unreachable " },
        { "org.hv.Test.Echo", false, "nonsense", "x!unreachable " },
        { "org.hv.Test.Echo", false, "{\"parameters\":7}", "x!unreachable " },
        { "org.hv.Test.Echo", false, "{\"error\":7}", "x!unreachable " },
        { "org.hv.Test.Echo", false, "{\"continues\":1}", "x!unreachable " },
        { "org.hv.Test.Echo", false, "{\"continues\":true}", "x!unreachable " },
        { "org.hv.Test.Echo", true, "{\"error\":\"a.b\",\"continues\":true}", "x!unreachable " },
        /* types of an interface this program knows */
        { "org.hv.Worker.State", false, "{\"parameters\":{\"state\":7,\"runtime\":{}}}", "x!unreachable " },
        { "org.hv.Worker.State", false, "{\"parameters\":{\"state\":\"off\"}}", "x!unreachable " },
        { "org.hv.Worker.Nope", false, "{\"parameters\":{}}", "x!unreachable " },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        int peer;
        closed = 0;
        strbuf_reset(&seen);
        connect_pair(&peer);
        if (rows[i].method) {
            assert_int_equal(varlink_conn_call(conn, rows[i].method, NULL, rows[i].more, NULL, 0, note, mark_x), 0);
        }
        assert_int_equal(write(peer, rows[i].reply, strlen(rows[i].reply) + 1), strlen(rows[i].reply) + 1);
        run();
        assert_string_equal(seen.buf ? seen.buf : "", rows[i].seen);
        assert_int_equal(closed, 1);
        close(peer);
        varlink_conn_free(conn);
        conn = NULL;
    }
}

static void odd_but_honest_replies_pass(void **state)
{
    static const struct { const char *method, *reply, *seen; } rows[] = {
        { "org.hv.Worker.State", "{\"parameters\":{\"state\":\"off\",\"runtime\":{},\"newer\":1}}",
          ".{\"newer\":1,\"runtime\":{},\"state\":\"off\"} " },
        { "org.hv.Worker.Pause", "{}", ".{} " },
        { "org.hv.Worker.Pause", "{\"parameters\":null}", ".{} " },
        { "org.hv.Worker.Pause", "{\"error\":\"org.hv.Worker.Failed\"}", ".!failed " },
        { "org.hv.Worker.Pause", "{\"error\":\"org.hv.Worker.Failed\",\"parameters\":{\"code\":\"ok\",\"object\":3}}", ".!failed " },
        { "org.hv.Worker.Pause", "{\"error\":\"org.other.Thing\"}", ".!failed " },
        { "org.hv.Worker.Pause", "{\"error\":\"org.varlink.service.PermissionDenied\"}", ".!denied " },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        int peer;
        strbuf_reset(&seen);
        connect_pair(&peer);
        assert_int_equal(varlink_conn_call(conn, rows[i].method, NULL, false, NULL, 0, note, mark_end), 0);
        assert_int_equal(write(peer, rows[i].reply, strlen(rows[i].reply) + 1), strlen(rows[i].reply) + 1);
        run();
        if (i == 0) {                                /* jansson keeps no order */
            assert_non_null(strstr(seen.buf, "\"newer\":1"));
        } else {
            assert_string_equal(seen.buf, rows[i].seen);
        }
        assert_int_equal(closed, 0);
        close(peer);
        varlink_conn_free(conn);
        conn = NULL;
    }
}

static void free_and_stop(void *arg, json_t *params, bool continues, const struct hv_error *e)
{
    strbuf_adds(&seen, "freed ");
    varlink_conn_free(conn);
    conn = NULL;
    loop_uv_stop(loop);
}

static void callbacks_may_free_the_connection(void **state)
{
    int peer;

    /* at a reply, at one of a stream, and at the loss */
    for (unsigned i = 0; i < 3; i++) {
        strbuf_reset(&seen);
        connect_pair(i == 2 ? &peer : NULL);
        assert_int_equal(varlink_conn_call(conn, i == 1 ? "org.hv.Test.Count" : "org.hv.Test.Echo",
                                           i == 1 ? json_pack("{s:i}", "to", 5) : json_pack("{s:s}", "text", "x"), i == 1,
                                           NULL, 0, free_and_stop, NULL), 0);
        call("Echo", json_pack("{s:s}", "text", "never"), false, "never");
        if (i == 2) {
            close(peer);
        }
        run();
        settle();
        assert_string_equal(seen.buf, "freed ");
        assert_int_equal(closed, 0);
    }
}

static void free_on_close(void *arg)
{
    varlink_conn_free(conn);
    conn = NULL;
    loop_uv_stop(loop);
}

static void the_owner_may_free_at_the_end(void **state)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(varlink_conn_new(loop, pair[0], free_on_close, NULL, &conn), 0);
    call("Echo", NULL, false, "a");
    close(pair[1]);
    run();
    assert_string_equal(seen.buf, "a!unreachable ");
    assert_null(conn);
}

static void more_than_a_socket_holds_is_queued(void **state)
{
    static char big[200000];

    memset(big, 'x', sizeof(big) - 1);
    connect_pair(NULL);
    for (unsigned i = 0; i < 20; i++) {
        call("Echo", json_pack("{s:s}", "text", big), false, i == 19 ? "." : "");
    }
    run();
    assert_true(seen.len > 20 * (sizeof(big) - 1));
    assert_int_equal(closed, 0);
}

/* ---- the server, from its own loop ---- */

static void a_message_that_takes_too_long_costs_the_connection(void **state)
{
    int pair[2];
    char b;

    server->sweep_ns = 2 * NS_PER_MS;
    server->message_ns = 20 * NS_PER_MS;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(varlink_server_add(server, pair[0]), 0);
    assert_int_equal(write(pair[1], "{", 1), 1);
    uint64_t start = hv_now_ns();
    while (varlink_server_connections(server) == 1 && hv_now_ns() - start < 10 * NS_PER_SEC) {
        ssize_t n = write(pair[1], " ", 1);          /* a byte now and then does not help */
        assert_true(n == 1 || errno == EPIPE);
        settle();
    }
    assert_true(hv_now_ns() - start >= 20 * NS_PER_MS);
    assert_int_equal(varlink_server_connections(server), 0);
    assert_true(read(pair[1], &b, 1) <= 0);
    close(pair[1]);
}

static void idle_connections_stay(void **state)
{
    server->sweep_ns = 1 * NS_PER_MS;
    server->message_ns = 5 * NS_PER_MS;
    connect_pair(NULL);
    call("Echo", json_pack("{s:s}", "text", "x"), false, ".");
    run();
    call("Hold", NULL, false, "h");
    uint64_t start = hv_now_ns();
    while (hv_now_ns() - start < 30 * NS_PER_MS) {
        settle();
    }
    assert_int_equal(closed, 0);
    assert_int_equal(varlink_server_connections(server), 1);
}

static void a_half_closed_client_that_goes_is_noticed_by_the_sweep(void **state)
{
    static const char request[] = "{\"method\":\"org.hv.Test.Hold\"}";
    int pair[2];

    server->sweep_ns = 1 * NS_PER_MS;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(varlink_server_add(server, pair[0]), 0);
    assert_int_equal(write(pair[1], request, sizeof(request)), sizeof(request));
    assert_int_equal(shutdown(pair[1], SHUT_WR), 0);
    settle();
    assert_non_null(held);
    assert_int_equal(varlink_server_connections(server), 1);
    close(pair[1]);
    uint64_t start = hv_now_ns();
    while (held_closed == 0 && hv_now_ns() - start < 10 * NS_PER_SEC) {
        settle();
    }
    assert_int_equal(held_closed, 1);
    assert_int_equal(varlink_server_connections(server), 0);
}

static void a_call_outlives_its_server(void **state)
{
    connect_pair(NULL);
    call("Hold", NULL, false, "a");
    settle();
    assert_non_null(held);
    struct varlink_call *mine = varlink_call_ref(held);
    varlink_server_free(server);
    assert_int_equal(held_closed, 1);
    assert_int_equal(varlink_reply(mine, NULL, false), 0);   /* dropped */
    assert_int_equal(varlink_call_backlog(mine), 0);
    varlink_call_unref(mine);
    assert_int_equal(varlink_server_new(loop, "test", interfaces, 1, &server), 0);
}

static void every_failed_allocation_leaves_a_working_server(void **state)
{
    for (uint64_t n = 1;; n++) {
        closed = 0;
        strbuf_reset(&seen);
        strbuf_adds(&seen, "it may not grow while allocations fail: reserve                                           "
                           "                                                                                      ");
        strbuf_reset(&seen);
        connect_pair(NULL);
        fault_arm(FAULT_ALLOC, n, ENOMEM);
        int r = varlink_conn_call(conn, "org.hv.Test.Echo", json_pack("{s:s}", "text", "x"), false, NULL, 0, note,
                                  mark_end);
        if (r == 0) {
            run();
        } else {
            assert_int_equal(r, -ENOMEM);
        }
        bool fired = fault_calls(FAULT_ALLOC) >= n;
        fault_arm(FAULT_ALLOC, 0, 0);
        /* an answer, a refusal, or the end of the connection: never silence */
        assert_true(r < 0 || strcmp(seen.buf, ".{\"text\":\"x\"} ") == 0 || strcmp(seen.buf, ".!unreachable ") == 0);
        varlink_conn_free(conn);
        conn = NULL;
        settle();
        assert_int_equal(varlink_server_connections(server), 0);
        if (!fired) {
            assert_true(n > 5);
            break;
        }
    }
    connect_pair(NULL);
    strbuf_reset(&seen);
    call("Echo", json_pack("{s:s}", "text", "x"), false, ".");
    run();
    assert_string_equal(seen.buf, ".{\"text\":\"x\"} ");
}

static void every_failed_allocation_of_a_new_server_is_reported(void **state)
{
    for (uint64_t n = 1;; n++) {
        struct varlink_server *s = NULL;
        fault_arm(FAULT_ALLOC, n, ENOMEM);
        int r = varlink_server_new(loop, "test", interfaces, 1, &s);
        bool fired = fault_calls(FAULT_ALLOC) >= n;
        fault_arm(FAULT_ALLOC, 0, 0);
        assert_int_equal(r, fired ? -ENOMEM : 0);
        varlink_server_free(s);
        if (!fired) {
            break;
        }
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_are_answered_in_order),
        TEST(errors_keep_their_words),
        TEST(descriptors_go_along),
        TEST(a_lost_worker_is_told_to_everybody),
        TEST(what_came_before_the_end_counts),
        TEST(a_lying_worker_loses_its_connection),
        TEST(odd_but_honest_replies_pass),
        TEST(callbacks_may_free_the_connection),
        TEST(the_owner_may_free_at_the_end),
        TEST(more_than_a_socket_holds_is_queued),
        TEST(a_message_that_takes_too_long_costs_the_connection),
        TEST(idle_connections_stay),
        TEST(a_half_closed_client_that_goes_is_noticed_by_the_sweep),
        TEST(a_call_outlives_its_server),
        TEST(every_failed_allocation_leaves_a_working_server),
        TEST(every_failed_allocation_of_a_new_server_is_reported),
    };
    int r = cmocka_run_group_tests_name("rpc/conn", tests, NULL, NULL);
    strbuf_fini(&seen);
    return r;
}
