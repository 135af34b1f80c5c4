/* The varlink server against hand-written messages and against our own clients. */
#include "hv/rpc/varlink.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "hv/base/strbuf.h"
#include "hv/rpc/loop_uv.h"

static const char text[] =
    "interface org.hv.Test\n"
    "type Row (name: string, size: ?int)\n"
    "method Echo(text: string) -> (text: string)\n"
    "method Fail(code: string, message: string) -> ()\n"
    "method Later() -> (n: int)\n"
    "method Silent() -> ()\n"
    "method Count(to: int) -> (n: int)\n"
    "method Drain(kb: int) -> (data: string)\n"
    "method Rows(rows: []Row) -> (count: int)\n"
    "method Fds(index: ?int) -> (got: bool, size: int)\n"
    "method GiveFd() -> ()\n"
    "method Upgrade() -> (hello: string)\n"
    "method Wrong() -> (n: int)\n"
    "method Missing() -> ()\n"
    "method Who() -> (uid: int, pid: int)\n"
    "method Hold() -> ()\n"
    "error Failed (code: string, object: string, message: string, hint: string)\n";

static struct loop *loop;
static struct varlink_server *server;
static pthread_t thread;
static char dir[64], sock_path[96];

/* Seen by handlers on the loop's thread; read after it stopped, or through calls. */
static struct varlink_call *held;
static _Atomic unsigned closed_calls, idle_calls, oneways;
static struct loop_timer *later_timer;
static struct varlink_call *later_call;

static void echo(void *arg, struct varlink_call *c, const json_t *params)
{
    oneways++;
    varlink_reply(c, json_pack("{s:O}", "text", json_object_get(params, "text")), false);
}

static void fail_call(void *arg, struct varlink_call *c, const json_t *params)
{
    struct hv_error e;

    hv_fail(&e, hv_code_from_word(json_string_value(json_object_get(params, "code"))), "web1", "%s",
            json_string_value(json_object_get(params, "message")));
    hv_hint(&e, "try harder");
    varlink_reply_error(c, &e);
}

static void later_fire(void *arg)
{
    struct varlink_call *c = later_call;

    later_call = NULL;
    varlink_reply(c, json_pack("{s:i}", "n", 7), false);
    varlink_call_unref(c);
}

static void later(void *arg, struct varlink_call *c, const json_t *params)
{
    later_call = varlink_call_ref(c);
    loop_timer_set(loop, later_timer, hv_now_ns() + 2 * NS_PER_MS);
}

static void silent(void *arg, struct varlink_call *c, const json_t *params)
{
}

static void count_to(void *arg, struct varlink_call *c, const json_t *params)
{
    int to = (int)json_integer_value(json_object_get(params, "to"));

    for (int i = 1; i < to && varlink_call_more(c); i++) {
        varlink_reply(c, json_pack("{s:i}", "n", i), true);
    }
    varlink_reply(c, json_pack("{s:i}", "n", to), false);
}

static void drain(void *arg, struct varlink_call *c, const json_t *params)
{
    size_t n = (size_t)json_integer_value(json_object_get(params, "kb")) << 10;
    char *s = hv_alloc(n + 1);

    memset(s, 'x', n);
    for (unsigned i = 0; i < 32 && varlink_call_more(c); i++) {
        varlink_reply(c, json_pack("{s:s}", "data", s), true);
    }
    varlink_reply(c, json_pack("{s:s}", "data", s), false);
    free(s);
}

static void rows(void *arg, struct varlink_call *c, const json_t *params)
{
    varlink_reply(c, json_pack("{s:i}", "count", (int)json_array_size(json_object_get(params, "rows"))), false);
}

static void fds(void *arg, struct varlink_call *c, const json_t *params)
{
    const json_t *index = json_object_get(params, "index");
    hv_autoclose int fd = index ? varlink_call_take_fd(c, (int)json_integer_value(index)) : -1;
    struct stat st = { 0 };

    if (fd >= 0) {
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(varlink_call_take_fd(c, (int)json_integer_value(index)), -1);
    }
    varlink_reply(c, json_pack("{s:b, s:I}", "got", fd >= 0, "size", (json_int_t)st.st_size), false);
}

static void give_fd(void *arg, struct varlink_call *c, const json_t *params)
{
    hv_autoclose int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    varlink_reply_fds(c, NULL, false, &fd, 1);
}

static void upgrade(void *arg, struct varlink_call *c, const json_t *params)
{
    struct hv_error e;
    int fd;
    void *extra;
    size_t len;

    if (!varlink_call_upgrade(c)) {
        hv_fail(&e, HV_USAGE, NULL, "only with upgrade");
        varlink_reply_error(c, &e);
        return;
    }
    if (varlink_reply_upgrade(c, json_pack("{s:s}", "hello", "raw"), &fd, &extra, &len) == 0) {
        dprintf(fd, "extra %zu:%.*s", len, (int)len, (char *)extra);
        free(extra);
        close(fd);
    }
}

static void wrong(void *arg, struct varlink_call *c, const json_t *params)
{
    varlink_reply(c, json_pack("{s:s}", "n", "not a number"), false);
}

static void who(void *arg, struct varlink_call *c, const json_t *params)
{
    const struct varlink_peer *p = varlink_call_peer(c);

    assert_string_equal(varlink_call_method(c), "Who");
    varlink_reply(c, json_pack("{s:i, s:i}", "uid", (int)p->uid, "pid", (int)p->pid), false);
}

static void hold_closed(void *arg)
{
    closed_calls++;
    varlink_reply(held, NULL, false);                /* dropped, nobody is there */
    varlink_call_unref(held);
    held = NULL;
}

static void hold(void *arg, struct varlink_call *c, const json_t *params)
{
    assert_null(held);
    held = varlink_call_ref(c);
    varlink_call_on_close(c, hold_closed, NULL);
}

static const struct varlink_method methods[] = {
    { "Echo", echo }, { "Fail", fail_call }, { "Later", later }, { "Silent", silent }, { "Count", count_to },
    { "Drain", drain }, { "Rows", rows }, { "Fds", fds }, { "GiveFd", give_fd }, { "Upgrade", upgrade },
    { "Wrong", wrong }, { "Who", who }, { "Hold", hold }, { 0 },
};
static const struct varlink_interface test_interface = { text, methods, NULL };
static const struct varlink_interface *const interfaces[] = { &test_interface };

static bool allow_me(void *arg, const struct varlink_peer *p)
{
    return p->uid == getuid() && p->pid == getpid();
}

static void idle(void *arg)
{
    idle_calls++;
}

static void *run_loop(void *arg)
{
    loop_uv_run(loop);
    return NULL;
}

static int listening_socket(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    hv_strlcpy(a.sun_path, sock_path, sizeof(a.sun_path));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

static int setup(void **state)
{
    closed_calls = idle_calls = oneways = 0;
    hv_strlcpy(dir, "/tmp/hv-test-rpc.XXXXXX", sizeof(dir));
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(sock_path, sizeof(sock_path), "%s/s", dir);
    assert_int_equal(loop_uv_new(&loop), 0);
    assert_int_equal(varlink_server_new(loop, "test", interfaces, 1, &server), 0);
    assert_int_equal(varlink_server_listen(server, listening_socket(), allow_me, NULL), 0);
    varlink_server_on_idle(server, idle, NULL);
    assert_int_equal(loop_timer_new(loop, later_fire, NULL, &later_timer), 0);
    return pthread_create(&thread, NULL, run_loop, NULL);
}

static int teardown(void **state)
{
    loop_uv_stop(loop);
    pthread_join(thread, NULL);
    varlink_server_free(server);
    varlink_call_unref(later_call);
    later_call = NULL;
    loop_timer_free(loop, later_timer);
    loop_uv_free(loop);
    unlink(sock_path);
    return rmdir(dir);
}

static struct varlink_client *client(void)
{
    struct varlink_client *c = NULL;
    struct hv_error e = { 0 };

    if (varlink_connect(sock_path, &c, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return c;
}

/* A raw connection with a deadline on reads, so that a hang is a failure. */
static int raw(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct timeval tv = { .tv_sec = 60 };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    hv_strlcpy(a.sun_path, sock_path, sizeof(a.sun_path));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    return fd;
}

static void send_raw(int fd, const void *p, size_t len)
{
    assert_int_equal(send(fd, p, len, MSG_NOSIGNAL), len);
}
#define SEND(fd, s) send_raw(fd, s, sizeof(s))       /* with the NUL */

/* One message; "" at the end of the connection. */
static const char *read_msg(int fd)
{
    static char buf[65536];
    size_t n = 0;

    for (;;) {
        ssize_t r = read(fd, buf + n, 1);
        if (r <= 0) {
            buf[n] = '\0';
            /* data we sent and nobody read makes the end a reset */
            assert_true(r == 0 || errno == ECONNRESET);
            assert_int_equal(n, 0);
            return buf;
        }
        if (buf[n++] == '\0') {
            return buf;
        }
        assert_true(n < sizeof(buf));
    }
}

static void echo_works(struct varlink_client *c)
{
    json_t *ret = NULL;

    assert_int_equal(varlink_call(c, "org.hv.Test.Echo", json_pack("{s:s}", "text", "grüß"), 0, &ret, NULL), 0);
    assert_string_equal(json_string_value(json_object_get(ret, "text")), "grüß");
    json_decref(ret);
}

/* ---- what a well-behaved client gets ---- */

static void calls_are_answered(void **state)
{
    struct varlink_client *c = client();
    json_t *ret = NULL;

    for (unsigned i = 0; i < 100; i++) {
        echo_works(c);
    }
    assert_int_equal(varlink_call(c, "org.hv.Test.Later", NULL, 0, &ret, NULL), 0);
    assert_int_equal(json_integer_value(json_object_get(ret, "n")), 7);
    json_decref(ret);
    assert_int_equal(varlink_call(c, "org.hv.Test.Who", NULL, 0, &ret, NULL), 0);
    assert_int_equal(json_integer_value(json_object_get(ret, "uid")), getuid());
    assert_int_equal(json_integer_value(json_object_get(ret, "pid")), getpid());
    json_decref(ret);
    assert_int_equal(varlink_client_peer(c).uid, getuid());
    varlink_client_free(c);
}

static void errors_travel_whole(void **state)
{
    struct varlink_client *c = client();
    struct hv_error e = { 0 };

    assert_int_equal(varlink_call(c, "org.hv.Test.Fail",
                                  json_pack("{s:s, s:s}", "code", "no-resources", "message", "it needs 1.0G"), 0, NULL, &e),
                     -ENOMEM);
    assert_int_equal(e.code, HV_NO_RESOURCES);
    assert_string_equal(e.object, "web1");
    assert_string_equal(e.message, "it needs 1.0G");
    assert_string_equal(e.hint, "try harder");
    echo_works(c);                                   /* the connection goes on */
    varlink_client_free(c);
}

static void a_handler_that_forgets_is_answered_for(void **state)
{
    struct varlink_client *c = client();
    struct hv_error e = { 0 };

    assert_int_equal(varlink_call(c, "org.hv.Test.Silent", NULL, 0, NULL, &e), -EIO);
    assert_non_null(strstr(e.message, "no answer to Silent"));
    echo_works(c);
    varlink_client_free(c);
}

static void a_malformed_reply_is_not_passed_on(void **state)
{
    struct varlink_client *c = client();
    struct hv_error e = { 0 };

    assert_int_equal(varlink_call(c, "org.hv.Test.Wrong", NULL, 0, NULL, &e), -EIO);
    assert_non_null(strstr(e.message, "n must be a whole number"));
    echo_works(c);
    varlink_client_free(c);
}

static int sum_to(void *arg, json_t *params, bool continues)
{
    *(int *)arg += (int)json_integer_value(json_object_get(params, "n"));
    return 0;
}

static int stop_at_3(void *arg, json_t *params, bool continues)
{
    return json_integer_value(json_object_get(params, "n")) == 3 ? 42 : 0;
}

static void streams(void **state)
{
    struct varlink_client *c = client();
    struct hv_error e = { 0 };
    int sum = 0;

    assert_int_equal(varlink_call_stream(c, "org.hv.Test.Count", json_pack("{s:i}", "to", 1000), 0, sum_to, &sum, &e), 0);
    assert_int_equal(sum, 500500);
    echo_works(c);
    /* the same without more: one reply */
    json_t *ret = NULL;
    assert_int_equal(varlink_call(c, "org.hv.Test.Count", json_pack("{s:i}", "to", 5), 0, &ret, &e), 0);
    assert_int_equal(json_integer_value(json_object_get(ret, "n")), 5);
    json_decref(ret);
    /* ended by the callback: the connection is used up */
    assert_int_equal(varlink_call_stream(c, "org.hv.Test.Count", json_pack("{s:i}", "to", 9), 0, stop_at_3, NULL, &e), 42);
    assert_int_equal(varlink_call(c, "org.hv.Test.Who", NULL, 0, &ret, &e), -ECONNREFUSED);
    varlink_client_free(c);
}

static void large_streams_wait_for_the_reader(void **state)
{
    int fd = raw();
    static char buf[100000];
    /* 32 with "continues":true, one without, one of Echo; each with its NUL */
    size_t one = sizeof("{\"parameters\":{\"data\":\"\"}}") + (256 << 10);
    size_t left = 33 * one + 32 * strlen(",\"continues\":true") + sizeof("{\"parameters\":{\"text\":\"end\"}}");

    /* the replies queue in the server while nobody reads, and arrive whole */
    SEND(fd, "{\"method\":\"org.hv.Test.Drain\",\"parameters\":{\"kb\":256},\"more\":true}");
    SEND(fd, "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"end\"}}");
    while (left > sizeof("{\"text\":\"end\"}}")) {
        ssize_t n = read(fd, buf, MIN(sizeof(buf), left - sizeof("{\"text\":\"end\"}}")));
        assert_true(n > 0);
        left -= (size_t)n;
    }
    assert_string_equal(read_msg(fd), "{\"text\":\"end\"}}");
    close(fd);
}

static void a_reader_that_never_reads_is_dropped(void **state)
{
    int fd = raw();
    char b;

    /* 33 x 1 MiB is over the limit of what is kept for one client */
    SEND(fd, "{\"method\":\"org.hv.Test.Drain\",\"parameters\":{\"kb\":1024},\"more\":true}");
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };
    assert_int_equal(poll(&p, 1, 10000), 1);
    while (read(fd, &b, 1) > 0) {
    }
    close(fd);
    struct varlink_client *c = client();
    echo_works(c);
    varlink_client_free(c);
}

static void oneway_calls_are_served_and_not_answered(void **state)
{
    struct varlink_client *c = client();

    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(varlink_call_oneway(c, "org.hv.Test.Echo", json_pack("{s:s}", "text", "x"), NULL), 0);
    }
    assert_int_equal(varlink_call_oneway(c, "org.hv.Test.Silent", NULL, NULL), 0);
    assert_int_equal(varlink_call_oneway(c, "org.hv.Test.Later", NULL, NULL), 0);
    assert_int_equal(varlink_call_oneway(c, "org.hv.Test.NoSuch", NULL, NULL), 0);
    echo_works(c);                                   /* the one reply is the one of this call */
    assert_int_equal(oneways, 1001);
    varlink_client_free(c);
}

static void upgraded_connections_carry_raw_bytes(void **state)
{
    struct varlink_client *c = client();
    struct hv_error e = { 0 };
    json_t *ret = NULL;
    void *extra;
    size_t len;
    int fd;
    char buf[64] = "";

    assert_int_equal(varlink_call(c, "org.hv.Test.Upgrade", NULL, 0, NULL, &e), -EINVAL);
    assert_int_equal(varlink_call_upgraded(c, "org.hv.Test.Upgrade", NULL, 0, &ret, &fd, &extra, &len, &e), 0);
    assert_string_equal(json_string_value(json_object_get(ret, "hello")), "raw");
    json_decref(ret);
    size_t got = len;
    memcpy(buf, extra, len);
    free(extra);
    while (got < 8) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        assert_int_equal(poll(&p, 1, 10000), 1);
        ssize_t n = read(fd, buf + got, sizeof(buf) - got);
        assert_true(n > 0);
        got += (size_t)n;
    }
    assert_string_equal(buf, "extra 0:");
    close(fd);
    assert_int_equal(varlink_call(c, "org.hv.Test.Who", NULL, 0, &ret, &e), -ECONNREFUSED);
    varlink_client_free(c);
}

static void bytes_sent_before_the_upgrade_are_handed_over(void **state)
{
    static const char request[] = "{\"method\":\"org.hv.Test.Upgrade\",\"upgrade\":true}\0typed ahead";
    int fd = raw();
    char buf[64] = "";

    send_raw(fd, request, sizeof(request) - 1);
    assert_string_equal(read_msg(fd), "{\"parameters\":{\"hello\":\"raw\"}}");
    assert_int_equal(recv(fd, buf, 19, MSG_WAITALL), 19);
    assert_string_equal(buf, "extra 11:typed ahea");
    close(fd);
}

static void descriptors_go_both_ways(void **state)
{
    struct varlink_client *c = client();
    json_t *ret = NULL;
    FILE *f[VARLINK_MAX_FDS + 1];
    int fd[VARLINK_MAX_FDS + 1];

    for (unsigned i = 0; i < VARLINK_MAX_FDS + 1; i++) {
        f[i] = tmpfile();
        fd[i] = fileno(f[i]);
        assert_int_equal(ftruncate(fd[i], 1000 + i), 0);
    }
    for (int i = 0; i < VARLINK_MAX_FDS; i += 7) {
        assert_int_equal(varlink_call_fds(c, "org.hv.Test.Fds", json_pack("{s:i}", "index", i), fd, VARLINK_MAX_FDS, 0,
                                          &ret, NULL), 0);
        assert_int_equal(json_integer_value(json_object_get(ret, "size")), 1000 + i);
        json_decref(ret);
    }
    /* the handler did not take it: closed with the call, and the next call does not see it */
    assert_int_equal(varlink_call_fds(c, "org.hv.Test.Fds", NULL, fd, 1, 0, &ret, NULL), 0);
    json_decref(ret);
    assert_int_equal(varlink_call(c, "org.hv.Test.Fds", json_pack("{s:i}", "index", 0), 0, &ret, NULL), 0);
    assert_false(json_is_true(json_object_get(ret, "got")));
    json_decref(ret);
    struct hv_error e = { 0 };
    assert_int_equal(varlink_call_fds(c, "org.hv.Test.Fds", NULL, fd, VARLINK_MAX_FDS + 1, 0, &ret, &e), -E2BIG);
    assert_int_equal(varlink_call(c, "org.hv.Test.GiveFd", NULL, 0, NULL, NULL), 0);
    int got = varlink_client_take_fd(c, 0);
    assert_true(got >= 0);
    close(got);
    assert_int_equal(varlink_client_take_fd(c, 0), -1);
    assert_int_equal(varlink_client_take_fd(c, -1), -1);
    varlink_client_free(c);
    for (unsigned i = 0; i < VARLINK_MAX_FDS + 1; i++) {
        fclose(f[i]);
    }
}

static unsigned open_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 1024; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static void send_with_fds(int fd, const char *p, size_t len, unsigned nfds)
{
    union { struct cmsghdr align; char space[CMSG_SPACE(sizeof(int) * 253)]; } control = { 0 };
    struct iovec iov = { (void *)(uintptr_t)p, len };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                         .msg_controllen = CMSG_SPACE(sizeof(int) * nfds) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&mh);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
    for (unsigned i = 0; i < nfds; i++) {
        int zero = STDIN_FILENO;
        memcpy(CMSG_DATA(c) + i * sizeof(int), &zero, sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &mh, MSG_NOSIGNAL), len);
}

static void too_many_descriptors_cost_the_connection(void **state)
{
    static const char echo_call[] = "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"x\"}}";
    struct varlink_client *c = client();
    echo_works(c);
    unsigned before = open_fds();

    static const unsigned counts[] = { VARLINK_MAX_FDS + 1, 2 * VARLINK_MAX_FDS + 1, 253 };
    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        int fd = raw();
        send_with_fds(fd, echo_call, sizeof(echo_call), counts[i]);
        assert_string_equal(read_msg(fd), "");
        close(fd);
    }
    /* spread over the bytes of one message */
    int fd = raw();
    for (unsigned i = 0; i < 10; i++) {
        send_with_fds(fd, "    ", 4, 20);
        if (i == 3) {
            break;                                   /* 80 so far */
        }
    }
    assert_string_equal(read_msg(fd), "");
    close(fd);
    /* up to the limit and unwanted: closed with the call */
    fd = raw();
    for (unsigned i = 0; i < 20; i++) {
        send_with_fds(fd, echo_call, sizeof(echo_call), VARLINK_MAX_FDS);
        assert_string_equal(read_msg(fd), "{\"parameters\":{\"text\":\"x\"}}");
    }
    /* half a message with descriptors, then gone */
    send_with_fds(fd, "{\"meth", 6, 5);
    close(fd);
    echo_works(c);
    fd = raw();                                      /* the server took this one after it closed the others */
    SEND(fd, echo_call);
    read_msg(fd);
    close(fd);
    for (unsigned i = 0; i < 200 && open_fds() > before; i++) {
        echo_works(c);
    }
    assert_int_equal(open_fds(), before);
    varlink_client_free(c);
}

static void descriptors_stay_with_their_message(void **state)
{
    static const char plain[] = "{\"method\":\"org.hv.Test.Fds\",\"parameters\":{\"index\":0}}";
    int fd = raw();

    /* plain, with, plain: in one burst, so that reads may join them */
    for (unsigned i = 0; i < 200; i++) {
        SEND(fd, plain);
        send_with_fds(fd, plain, sizeof(plain), 1);
        SEND(fd, plain);
        assert_non_null(strstr(read_msg(fd), "\"got\":false"));
        assert_non_null(strstr(read_msg(fd), "\"got\":true"));
        assert_non_null(strstr(read_msg(fd), "\"got\":false"));
    }
    close(fd);
}

/* ---- org.varlink.service ---- */

static void the_service_describes_itself(void **state)
{
    struct varlink_client *c = client();
    json_t *ret = NULL;
    struct hv_error e = { 0 };
    struct varlink_idl *idl;

    assert_int_equal(varlink_call(c, "org.varlink.service.GetInfo", NULL, 0, &ret, &e), 0);
    assert_string_equal(json_string_value(json_object_get(ret, "product")), "test");
    const json_t *names = json_object_get(ret, "interfaces");
    assert_int_equal(json_array_size(names), 2);
    assert_string_equal(json_string_value(json_array_get(names, 0)), "org.varlink.service");
    assert_string_equal(json_string_value(json_array_get(names, 1)), "org.hv.Test");
    for (unsigned i = 0; i < 2; i++) {
        json_t *desc = NULL;
        assert_int_equal(varlink_call(c, "org.varlink.service.GetInterfaceDescription",
                                      json_pack("{s:O}", "interface", json_array_get(names, i)), 0, &desc, &e), 0);
        const char *description = json_string_value(json_object_get(desc, "description"));
        assert_int_equal(varlink_idl_parse(description, &idl, &e), 0);
        varlink_idl_free(idl);
        if (i == 1) {
            assert_string_equal(description, text);
        }
        json_decref(desc);
    }
    json_decref(ret);
    assert_int_equal(varlink_call(c, "org.varlink.service.GetInterfaceDescription",
                                  json_pack("{s:s}", "interface", "org.no.Such"), 0, &ret, &e), -EOPNOTSUPP);
    varlink_client_free(c);
}

static void mistakes_get_the_standard_errors(void **state)
{
#define SERVICE_ERROR(name, key, value) \
    "{\"parameters\":{\"" key "\":\"" value "\"},\"error\":\"org.varlink.service." name "\"}"
    static const struct { const char *request, *reply; } rows_[] = {
        { "{}", SERVICE_ERROR("InvalidParameter", "parameter", "method") },
        { "{\"method\":7}", SERVICE_ERROR("InvalidParameter", "parameter", "method") },
        { "{\"method\":\"x\"}", SERVICE_ERROR("InterfaceNotFound", "interface", "x") },
        { "{\"method\":\"org.no.Such.Do\"}", SERVICE_ERROR("InterfaceNotFound", "interface", "org.no.Such") },
        { "{\"method\":\"org.hv.Test.\"}", SERVICE_ERROR("MethodNotFound", "method", "org.hv.Test.") },
        { "{\"method\":\"org.hv.Test.Nope\"}", SERVICE_ERROR("MethodNotFound", "method", "org.hv.Test.Nope") },
        { "{\"method\":\"org.hv.Test.Failed\"}", SERVICE_ERROR("MethodNotFound", "method", "org.hv.Test.Failed") },
        { "{\"method\":\"org.hv.Test.Missing\"}", SERVICE_ERROR("MethodNotImplemented", "method", "org.hv.Test.Missing") },
        { "{\"method\":\"org.hv.Test.Echo\"}", SERVICE_ERROR("InvalidParameter", "parameter", "text") },
        { "{\"method\":\"org.hv.Test.Echo\",\"parameters\":null}", SERVICE_ERROR("InvalidParameter", "parameter", "text") },
        { "{\"method\":\"org.hv.Test.Echo\",\"parameters\":[]}", SERVICE_ERROR("InvalidParameter", "parameter", "parameters") },
        { "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":5}}", SERVICE_ERROR("InvalidParameter", "parameter", "text") },
        { "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":null}}", SERVICE_ERROR("InvalidParameter", "parameter", "text") },
        { "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"x\",\"bogus\":1}}", SERVICE_ERROR("InvalidParameter", "parameter", "bogus") },
        { "{\"method\":\"org.hv.Test.Rows\",\"parameters\":{\"rows\":[{\"name\":\"a\"},{\"name\":2}]}}",
          SERVICE_ERROR("InvalidParameter", "parameter", "rows[1].name") },
        { "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"x\"},\"more\":1}", SERVICE_ERROR("InvalidParameter", "parameter", "more") },
        { "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"x\"},\"extra\":1}", SERVICE_ERROR("InvalidParameter", "parameter", "extra") },
        { "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"x\"},\"more\":true,\"upgrade\":true}",
          SERVICE_ERROR("InvalidParameter", "parameter", "more") },
        { "{\"method\":\"org.hv.Test.Rows\",\"parameters\":{\"rows\":[{\"name\":\"a\",\"size\":null},{\"name\":\"b\",\"size\":3}]}}",
          "{\"parameters\":{\"count\":2}}" },
    };
    int fd = raw();

    for (unsigned i = 0; i < ARRAY_SIZE(rows_); i++) {
        send_raw(fd, rows_[i].request, strlen(rows_[i].request) + 1);
        assert_string_equal(read_msg(fd), rows_[i].reply);
    }
    close(fd);
}

/* ---- hostile input ---- */

static void broken_framing_costs_the_connection(void **state)
{
    static const char *const bad[] = {
        "", "null", "[]", "\"x\"", "42", "{", "{]", "{\"method\":\"a\",}", "{\"a\":1,\"a\":2}", "{\"a\":\"\xff\"}",
        "{\"a\":\"\\u0000\"}", "{\"a\":\"\\ud800\"}", "{} {}", "{\"a\":1e999}", "{\"a\":99999999999999999999999}", "\xef\xbb\xbf{}",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        int fd = raw();
        send_raw(fd, bad[i], strlen(bad[i]) + 1);
        assert_string_equal(read_msg(fd), "");
        close(fd);
    }
    struct varlink_client *c = client();
    echo_works(c);
    varlink_client_free(c);
}

static void nesting_and_node_counts_are_limited(void **state)
{
    strbuf_auto sb = { 0 };
    int fd = raw();

    /* 64 deep with the message's own two is too deep; brackets inside strings do not count */
    strbuf_adds(&sb, "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"");
    for (unsigned i = 0; i < 10000; i++) {
        strbuf_adds(&sb, "[{\\\"");
    }
    strbuf_adds(&sb, "\"}}");
    send_raw(fd, sb.buf, sb.len + 1);
    assert_non_null(strstr(read_msg(fd), "[{\\\"[{"));
    strbuf_reset(&sb);
    for (unsigned i = 0; i < 100000; i++) {
        strbuf_adds(&sb, "{\"a\":");
    }
    send_raw(fd, sb.buf, sb.len + 1);
    assert_string_equal(read_msg(fd), "");
    close(fd);

    fd = raw();
    strbuf_reset(&sb);
    strbuf_adds(&sb, "{\"a\":[0");
    for (unsigned i = 0; i < 300000; i++) {
        strbuf_adds(&sb, ",0");
    }
    strbuf_adds(&sb, "]}");
    /* the server may close while we still write */
    send(fd, sb.buf, sb.len + 1, MSG_NOSIGNAL);
    assert_string_equal(read_msg(fd), "");
    close(fd);
}

static void huge_messages_are_cut_off(void **state)
{
    static char chunk[1 << 20];
    int fd = raw();
    size_t sent = 0;

    memset(chunk, 'x', sizeof(chunk));
    while (sent < 64 << 20) {
        ssize_t n = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL);
        if (n < 0) {
            break;
        }
        sent += (size_t)n;
    }
    assert_true(sent < 8 << 20);                     /* the limit is 4 MiB, the rest sockets' buffers */
    close(fd);

    /* a large one below the limit is served */
    strbuf_auto sb = { 0 };
    fd = raw();
    strbuf_adds(&sb, "{\"method\":\"org.hv.Test.Rows\",\"parameters\":{\"rows\":[");
    for (unsigned i = 0; i < 3; i++) {
        strbuf_addf(&sb, "%s{\"name\":\"", i ? "," : "");
        strbuf_add(&sb, chunk, sizeof(chunk));
        strbuf_adds(&sb, "\"}");
    }
    strbuf_adds(&sb, "]}}");
    send_raw(fd, sb.buf, sb.len + 1);
    assert_string_equal(read_msg(fd), "{\"parameters\":{\"count\":3}}");
    close(fd);
}

/* A server that takes documents: larger messages are served, and only a few are on their way at once. */
static void few_large_messages_at_once(void **state)
{
    static const char head[] = "{\"method\":\"org.hv.Test.Rows\",\"parameters\":{\"rows\":[{\"name\":\"", tail[] = "\"}]}}";
    static char chunk[1 << 20];
    int fd[4];
    size_t sent = 0;

    varlink_server_large_messages(server);
    memset(chunk, 'x', sizeof(chunk));
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        fd[i] = raw();
        send_raw(fd[i], head, strlen(head));
        for (unsigned k = 0; k < 6; k++) {
            send_raw(fd[i], chunk, sizeof(chunk));
        }
    }
    int fifth = raw();
    send_raw(fifth, head, strlen(head));
    while (sent < 64 << 20) {
        ssize_t n = send(fifth, chunk, sizeof(chunk), MSG_NOSIGNAL);
        if (n < 0) {
            break;
        }
        sent += (size_t)n;
    }
    assert_true(sent < 8 << 20);
    close(fifth);
    /* Those that were there go on; with one of them served there is room again. */
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        send_raw(fd[i], tail, sizeof(tail));
        assert_string_equal(read_msg(fd[i]), "{\"parameters\":{\"count\":1}}");
    }
    fifth = raw();
    send_raw(fifth, head, strlen(head));
    for (unsigned k = 0; k < 6; k++) {
        send_raw(fifth, chunk, sizeof(chunk));
    }
    send_raw(fifth, tail, sizeof(tail));
    assert_string_equal(read_msg(fifth), "{\"parameters\":{\"count\":1}}");
    close(fifth);
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
        close(fd[i]);
    }
    /* And there is a limit. */
    fifth = raw();
    for (sent = 0; sent < 64 << 20; sent += sizeof(chunk)) {
        if (send(fifth, chunk, sizeof(chunk), MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    assert_true(sent < 32 << 20);
    close(fifth);
}

static void bytes_one_by_one_are_a_message(void **state)
{
    static const char request[] = "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"slow\"}}";
    int fd = raw();

    for (size_t i = 0; i < sizeof(request); i++) {
        send_raw(fd, request + i, 1);
    }
    assert_string_equal(read_msg(fd), "{\"parameters\":{\"text\":\"slow\"}}");
    close(fd);
}

static void pipelined_calls_are_answered_in_order(void **state)
{
    int fd = raw();
    char want[64];
    strbuf_auto sb = { 0 };

    for (unsigned i = 0; i < 500; i++) {
        strbuf_addf(&sb, "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"%u\"}}", i);
        strbuf_addc(&sb, '\0');
    }
    send_raw(fd, sb.buf, sb.len);
    SEND(fd, "{\"method\":\"org.hv.Test.Later\"}");
    SEND(fd, "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"after\"}}");
    for (unsigned i = 0; i < 500; i++) {
        snprintf(want, sizeof(want), "{\"parameters\":{\"text\":\"%u\"}}", i);
        assert_string_equal(read_msg(fd), want);
    }
    assert_string_equal(read_msg(fd), "{\"parameters\":{\"n\":7}}");
    assert_string_equal(read_msg(fd), "{\"parameters\":{\"text\":\"after\"}}");
    close(fd);
}

static void a_half_closed_client_still_gets_its_answers(void **state)
{
    int fd = raw();

    SEND(fd, "{\"method\":\"org.hv.Test.Later\"}");
    SEND(fd, "{\"method\":\"org.hv.Test.Echo\",\"parameters\":{\"text\":\"x\"}}");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_string_equal(read_msg(fd), "{\"parameters\":{\"n\":7}}");
    assert_string_equal(read_msg(fd), "{\"parameters\":{\"text\":\"x\"}}");
    assert_string_equal(read_msg(fd), "");
    close(fd);
}

/* Ask until a condition on the server's thread holds; each question is a turn of its loop. */
static void wait_for(struct varlink_client *c, _Atomic unsigned *counter, unsigned want)
{
    uint64_t end = hv_now_ns() + 10 * NS_PER_SEC;

    while (*counter < want && hv_now_ns() < end) {
        echo_works(c);
    }
    assert_int_equal(*counter, want);
}

static void a_client_that_leaves_is_noticed(void **state)
{
    struct varlink_client *c = client();
    int fd = raw();

    SEND(fd, "{\"method\":\"org.hv.Test.Hold\",\"more\":true}");
    echo_works(c);
    close(fd);
    wait_for(c, &closed_calls, 1);
    /* leaving together with the call */
    fd = raw();
    SEND(fd, "{\"method\":\"org.hv.Test.Hold\"}");
    close(fd);
    wait_for(c, &closed_calls, 2);
    assert_int_equal(idle_calls, 0);
    varlink_client_free(c);
    uint64_t end = hv_now_ns() + 10 * NS_PER_SEC;
    while (idle_calls == 0 && hv_now_ns() < end) {
        poll(NULL, 0, 1);
    }
    assert_int_equal(idle_calls, 1);
}

static void timeouts_and_cancellation(void **state)
{
    struct varlink_client *c = client();
    struct hv_error e = { 0 };
    int p[2];
    uint64_t start = hv_now_ns();

    assert_int_equal(varlink_call(c, "org.hv.Test.Hold", NULL, 20 * NS_PER_MS, NULL, &e), -ETIMEDOUT);
    assert_int_equal(e.code, HV_TIMEOUT);
    assert_true(hv_now_ns() - start >= 20 * NS_PER_MS);
    assert_int_equal(varlink_call(c, "org.hv.Test.Who", NULL, 0, NULL, &e), -ECONNREFUSED);
    varlink_client_free(c);

    c = client();
    wait_for(c, &closed_calls, 1);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    varlink_client_set_cancel(c, p[0]);
    echo_works(c);
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_int_equal(varlink_call(c, "org.hv.Test.Hold", NULL, 0, NULL, &e), -EINTR);
    assert_string_equal(e.message, "interrupted");
    varlink_client_free(c);
    close(p[0]);
    close(p[1]);
}

static void one_user_cannot_take_all_connections(void **state)
{
    int fd[700], n = 0;
    struct varlink_client *c = client();

    echo_works(c);
    for (; n < 600; n++) {
        fd[n] = raw();
    }
    unsigned refused = 0;
    for (int i = 0; i < n; i++) {
        char b;
        struct pollfd p = { .fd = fd[i], .events = POLLIN };
        send(fd[i], "{\"method\":\"org.hv.Test.Who\"}", 29, MSG_NOSIGNAL);
        assert_int_equal(poll(&p, 1, 10000), 1);
        refused += recv(fd[i], &b, 1, MSG_PEEK) <= 0;
    }
    /* root may have all 512, others 128; ours is one of them */
    assert_int_equal(refused, getuid() == 0 ? 600 - 511 : 600 - 127);
    echo_works(c);
    for (int i = 0; i < n; i++) {
        close(fd[i]);
    }
    varlink_client_free(c);
}

static void refused_peers_get_nothing(void **state)
{
    int fd, status_pipe[2];
    char b = 'x';

    assert_int_equal(pipe2(status_pipe, O_CLOEXEC), 0);
    pid_t pid = fork();                              /* allow_me wants our own pid */
    if (pid == 0) {
        fd = raw();
        send(fd, "{\"method\":\"org.hv.Test.Who\"}", 29, MSG_NOSIGNAL);
        b = read(fd, &b, 1) <= 0 ? 'r' : 'a';
        _exit(write(status_pipe[1], &b, 1) != 1);
    }
    assert_int_equal(read(status_pipe[0], &b, 1), 1);
    assert_int_equal(b, 'r');
    close(status_pipe[0]);
    close(status_pipe[1]);
}

static void unreachable_services_say_so(void **state)
{
    struct varlink_client *c = NULL;
    struct hv_error e = { 0 };
    char longer[200];

    assert_int_equal(varlink_connect("/no/such/socket", &c, &e), -ECONNREFUSED);
    assert_int_equal(e.code, HV_UNREACHABLE);
    memset(longer, 'x', sizeof(longer));
    longer[199] = '\0';
    assert_int_equal(varlink_connect(longer, &c, &e), -EINVAL);
    assert_null(c);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_are_answered),
        TEST(errors_travel_whole),
        TEST(a_handler_that_forgets_is_answered_for),
        TEST(a_malformed_reply_is_not_passed_on),
        TEST(streams),
        TEST(large_streams_wait_for_the_reader),
        TEST(a_reader_that_never_reads_is_dropped),
        TEST(oneway_calls_are_served_and_not_answered),
        TEST(upgraded_connections_carry_raw_bytes),
        TEST(bytes_sent_before_the_upgrade_are_handed_over),
        TEST(descriptors_go_both_ways),
        TEST(too_many_descriptors_cost_the_connection),
        TEST(descriptors_stay_with_their_message),
        TEST(the_service_describes_itself),
        TEST(mistakes_get_the_standard_errors),
        TEST(broken_framing_costs_the_connection),
        TEST(nesting_and_node_counts_are_limited),
        TEST(huge_messages_are_cut_off),
        TEST(few_large_messages_at_once),
        TEST(bytes_one_by_one_are_a_message),
        TEST(pipelined_calls_are_answered_in_order),
        TEST(a_half_closed_client_still_gets_its_answers),
        TEST(a_client_that_leaves_is_noticed),
        TEST(timeouts_and_cancellation),
        TEST(one_user_cannot_take_all_connections),
        TEST(refused_peers_get_nothing),
        TEST(unreachable_services_say_so),
    };
    return cmocka_run_group_tests_name("rpc/server", tests, NULL, NULL);
}
