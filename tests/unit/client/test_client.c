/*
 * libhv against a stand-in service: this program again, started as "hvd --user" from a
 * link beside itself, so that starting on demand is the real thing.
 */
#include "hv/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "hv/base/paths.h"
#include "hv/client/start.h"
#include "hv/rpc/loop_uv.h"
#include "hv/rpc/varlink.h"

static struct loop *loop;

/* ---- the stand-in ---- */

static json_t *job(int id, const char *state, json_t *error)
{
    return json_pack("{s:{s:i, s:s, s:s, s:s, s:i, s:i, s:n, s:o}}", "job", "id", id, "verb", "start", "object", "web1",
                     "state", state, "progress_pct", 50, "started_ms", 1, "ended_ms", "error", error);
}

/* Jobs 1: done, 2: failed, 3: cancelled, 4: never ends. */
static void wait_job(void *arg, struct varlink_call *c, const json_t *params)
{
    int id = (int)json_integer_value(json_object_get(params, "id"));
    static struct varlink_call *kept;

    if (varlink_call_more(c)) {
        varlink_reply(c, job(id, "running", json_null()), true);
    }
    if (id == 4) {
        kept = varlink_call_ref(c);
    } else if (id == 2) {
        varlink_reply(c, job(id, "failed", json_pack("{s:s, s:s, s:s, s:s}", "code", "no-resources", "object", "",
                                                     "message", "it needs 1.0G", "hint", "stop something")), false);
    } else {
        varlink_reply(c, job(id, id == 3 ? "cancelled" : "done", json_null()), false);
    }
    (void)kept;
}

static void wait_vm(void *arg, struct varlink_call *c, const json_t *params)
{
    bool holds = strcmp(json_string_value(json_object_get(params, "cond")), "running") == 0;

    if (varlink_call_more(c)) {
        varlink_reply(c, json_pack("{s:b, s:s}", "holds", 0, "state", "starting"), true);
    }
    varlink_reply(c, json_pack("{s:b, s:s}", "holds", holds, "state", "running"), false);
}

static void console(void *arg, struct varlink_call *c, const json_t *params)
{
    struct hv_error e;
    void *extra;
    size_t len;
    int fd;

    if (strcmp(json_string_value(json_object_get(params, "name")), "web1") != 0) {
        hv_fail(&e, HV_NOT_FOUND, json_string_value(json_object_get(params, "name")), "no such VM");
        varlink_reply_error(c, &e);
        return;
    }
    if (varlink_reply_upgrade(c, json_pack("{s:s}", "writer", "ann"), &fd, &extra, &len) == 0) {
        dprintf(fd, "history=%d\n", json_is_true(json_object_get(params, "history")));
        free(extra);
        close(fd);
    }
}

/* What it was started with, as far as a test wants to know. */
static void get_info(void *arg, struct varlink_call *c, const json_t *params)
{
    char host[200], cwd[100] = "";
    unsigned open_fds = 0;

    for (int fd = 20; fd < 100; fd++) {              /* the test opens its own there */
        open_fds += fcntl(fd, F_GETFD) >= 0;
    }
    snprintf(host, sizeof(host), "fds=%u sid=%d cwd=%s", open_fds, getsid(0) == getppid() || getsid(0) != getpgid(getppid()),
             getcwd(cwd, sizeof(cwd)) ? cwd : "?");
    varlink_reply(c, json_pack("{s:s, s:i, s:s, s:s}", "version", "fake", "api", 1, "host", host, "mode", "user"), false);
}

static void vanish(void *arg, struct varlink_call *c, const json_t *params)
{
    _exit(0);
}

static void idle(void *arg)
{
    loop_uv_stop(loop);
}

static const struct varlink_method methods[] = {
    { "GetInfo", get_info }, { "WaitJob", wait_job }, { "Wait", wait_vm }, { "Console", console },
    { "Doctor", vanish }, { 0 },
};

static int fake_hvd(void)
{
    const struct varlink_interface i = { org_hv_Manager_varlink, methods, NULL };
    const struct varlink_interface *const is[] = { &i };
    const char *how = getenv("FAKE_HVD");
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct varlink_server *server;
    struct hv_paths p;
    char started[HV_PATH_SIZE];

    alarm(60);
    if (hv_paths_init(HV_MODE_USER, &p, NULL) < 0 || hv_paths_create(&p, NULL) < 0) {
        return 1;
    }
    snprintf(started, sizeof(started), "%.200s/started", p.state);
    int fd = open(started, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (write(fd, "x", 1) != 1) {
        return 1;
    }
    if (how && strcmp(how, "die") == 0) {
        fprintf(stderr, "hvd: something\nhvd: the disk is full\n");
        return 1;
    }
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    hv_strlcpy(a.sun_path, p.socket, sizeof(a.sun_path));
    unlink(p.socket);
    poll(NULL, 0, 30);                               /* a start takes a moment, and so may each step */
    if (bind(s, (struct sockaddr *)&a, sizeof(a)) < 0) {
        return 1;
    }
    poll(NULL, 0, 30);
    if (listen(s, 64) < 0 || loop_uv_new(&loop) < 0 || varlink_server_new(loop, "fake", is, 1, &server) < 0) {
        return 1;
    }
    if (!how || strcmp(how, "stay") != 0) {
        varlink_server_on_idle(server, idle, NULL);
    }
    if (varlink_server_listen(server, s, NULL, NULL) < 0) {
        return 1;
    }
    loop_uv_run(loop);
    unlink(p.socket);
    varlink_server_free(server);
    loop_uv_free(loop);
    return 0;
}

/* ---- the tests' surroundings ---- */

static char top[64], link_path[HV_PATH_SIZE];

static const char *sub(const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof(path[0]), "%s/%s", top, name);
    return p;
}

static int setup(void **state)
{
    char self[HV_PATH_SIZE];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 5);

    if (n < 0) {
        return -1;
    }
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    snprintf(link_path, sizeof(link_path), "%.*s/hvd", (int)(slash - self), self);
    unlink(link_path);
    hv_strlcpy(top, "/tmp/hv-test-client.XXXXXX", sizeof(top));
    if (symlink(self, link_path) < 0 || !mkdtemp(top) || mkdir(sub("run"), 0700) < 0) {
        return -1;
    }
    setenv("XDG_RUNTIME_DIR", sub("run"), 1);
    setenv("XDG_STATE_HOME", sub("state"), 1);
    unsetenv("HV_HOST");
    unsetenv("FAKE_HVD");
    return 0;
}

static int teardown(void **state)
{
    unlink(link_path);
    unlink(sub("run/hv/start.lock"));
    unlink(sub("run/hv/org.hv.Manager"));
    unlink(sub("state/hv/started"));
    unlink(sub("state/hv/hvd.log"));
    rmdir(sub("run/hv"));
    rmdir(sub("state/hv"));
    rmdir(sub("state"));
    rmdir(sub("run"));
    return rmdir(top);
}

static long times_started(void)
{
    struct stat st;

    return stat(sub("state/hv/started"), &st) == 0 ? (long)st.st_size : 0;
}

static struct hv_client *own(void)
{
    struct hv_client *c = NULL;
    struct hv_error e = { 0 };

    if (client_connect("user", 0, &c, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return c;
}

/* ---- starting ---- */

static void the_own_service_is_started_once(void **state)
{
    struct hv_client *c = own(), *d = own();
    json_t *ret = NULL;

    assert_string_equal(client_mode(c), "user");
    assert_string_equal(client_path(c), sub("run/hv/org.hv.Manager"));
    assert_int_equal(client_call(c, "GetInfo", NULL, 0, &ret, NULL), 0);
    json_decref(ret);
    assert_int_equal(client_call(d, "GetInfo", NULL, 0, NULL, NULL), 0);
    assert_int_equal(times_started(), 1);
    client_free(c);
    client_free(d);
}

static void nothing_of_ours_leaks_into_the_service(void **state)
{
    int fd = fcntl(STDIN_FILENO, F_DUPFD, 30);       /* not close-on-exec, as a harness may leave one */
    struct hv_client *c = own();
    json_t *ret = NULL;

    assert_true(fd >= 30);
    assert_int_equal(client_call(c, "GetInfo", NULL, 0, &ret, NULL), 0);
    assert_string_equal(json_string_value(json_object_get(ret, "host")), "fds=0 sid=1 cwd=/");
    json_decref(ret);
    client_free(c);
    close(fd);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);    /* and it is nobody's child here */
    assert_int_equal(errno, ECHILD);
}

static void a_stale_socket_is_no_service(void **state)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(mkdir(sub("run/hv"), 0700), 0);
    hv_strlcpy(a.sun_path, sub("run/hv/org.hv.Manager"), sizeof(a.sun_path));
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
    close(s);
    client_free(own());
    assert_int_equal(times_started(), 1);
}

static void clients_that_race_start_one(void **state)
{
    pid_t pid[8];
    int gate[2], status;
    char b;

    setenv("FAKE_HVD", "stay", 1);                   /* so that none comes after it left */
    assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(pid); i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            struct hv_client *c;
            close(gate[1]);
            ssize_t n = read(gate[0], &b, 1);        /* all begin when the pipe ends */
            if (n != 0 || client_connect("user", 0, &c, NULL) < 0 || client_call(c, "GetInfo", NULL, 0, NULL, NULL) < 0) {
                _exit(1);
            }
            _exit(0);
        }
    }
    close(gate[0]);
    close(gate[1]);
    for (unsigned i = 0; i < ARRAY_SIZE(pid); i++) {
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    struct hv_client *c = own();
    assert_int_equal(times_started(), 1);
    assert_int_equal(client_call(c, "Doctor", NULL, 0, NULL, NULL), -ECONNREFUSED);    /* ends it */
    client_free(c);
}

static void a_service_that_dies_says_why(void **state)
{
    struct hv_client *c = NULL;
    struct hv_error e = { 0 };

    setenv("FAKE_HVD", "die", 1);
    assert_int_equal(client_connect("user", 0, &c, &e), -ECONNREFUSED);
    assert_int_equal(e.code, HV_UNREACHABLE);
    assert_string_equal(e.message, "your own service ended at once: the disk is full");
    assert_non_null(strstr(e.hint, "state/hv/hvd.log"));
    assert_int_equal(times_started(), 1);            /* not again and again */
}

static void without_permission_to_start_nothing_starts(void **state)
{
    struct hv_client *c = NULL;
    struct hv_error e = { 0 };

    assert_int_equal(client_connect("user", CLIENT_NO_START, &c, &e), -ECONNREFUSED);
    assert_int_equal(e.code, HV_UNREACHABLE);
    assert_int_equal(times_started(), 0);
    assert_int_equal(access(sub("run/hv"), F_OK), -1);
}

static void a_missing_program_is_named(void **state)
{
    struct hv_client *c = NULL;
    struct hv_error e = { 0 };
    char buf[HV_PATH_SIZE];

    hv_autofree char *path = hv_strdup(getenv("PATH"));
    unlink(link_path);
    setenv("PATH", "relative:.:", 1);
    if (start_find_hvd(buf, sizeof(buf)) == -ENOENT) {   /* unless one is installed on this machine */
        assert_int_equal(client_connect("user", 0, &c, &e), -ENOENT);
        assert_string_equal(e.object, "hvd");
    }
    snprintf(buf, sizeof(buf), "/nowhere:%s:", sub("state"));
    setenv("PATH", buf, 1);
    assert_true(mkdir(sub("state"), 0700) == 0 || errno == EEXIST);
    assert_int_equal(mkdir(sub("state/hvd"), 0700), 0);  /* a folder is no program */
    if (start_find_hvd(buf, sizeof(buf)) == 0) {
        assert_null(strstr(buf, top));
    }
    rmdir(sub("state/hvd"));
    setenv("PATH", path, 1);
}

/* ---- hosts ---- */

static void hosts_that_cannot_be(void **state)
{
    struct hv_client *c = NULL;
    struct hv_error e = { 0 };

    assert_int_equal(client_connect("ssh://-oProxyCommand=x", 0, &c, &e), -EINVAL);
    assert_string_equal(e.object, "ssh://-oProxyCommand=x");
    assert_int_equal(client_connect("far", 0, &c, &e), -ENOENT);
    assert_string_equal(e.message, "no such host");
    assert_int_equal(client_connect("/no/such", 0, &c, &e), -ECONNREFUSED);
    setenv("HV_HOST", "elsewhere", 1);
    assert_int_equal(client_connect(NULL, 0, &c, &e), -ENOENT);
    assert_string_equal(e.object, "elsewhere");
    assert_null(c);
}

static void hv_host_and_paths_reach_a_service(void **state)
{
    struct hv_client *keep = own(), *c = NULL;

    setenv("HV_HOST", client_path(keep), 1);
    assert_int_equal(client_connect(NULL, 0, &c, NULL), 0);
    assert_string_equal(client_mode(c), "");
    assert_int_equal(client_call(c, "GetInfo", NULL, 0, NULL, NULL), 0);
    client_free(c);
    setenv("HV_HOST", "", 1);
    assert_int_equal(client_connect(client_path(keep), 0, &c, NULL), 0);
    client_free(c);
    client_free(keep);
}

static void a_system_service_that_is_not_there(void **state)
{
    struct hv_client *c = NULL;
    struct hv_error e = { 0 };

    if (access("/run/hv", F_OK) == 0) {
        skip();                                      /* this machine has one */
    }
    assert_int_equal(client_connect("system", 0, &c, &e), -ECONNREFUSED);
    assert_string_equal(e.object, "system");
    assert_string_equal(e.message, "cannot connect: the service is not running");
    assert_non_null(strstr(e.hint, "systemctl start hvd"));
    /* without a word about the host the own service takes its place */
    assert_int_equal(client_connect(NULL, 0, &c, &e), 0);
    assert_string_equal(client_mode(c), "user");
    client_free(c);
}

/* ---- calls ---- */

static void count_progress(void *arg, const json_t *j)
{
    assert_non_null(json_object_get(j, "state"));
    ++*(unsigned *)arg;
}

static void jobs_are_followed(void **state)
{
    struct hv_client *c = own();
    struct hv_error e = { 0 };
    unsigned n = 0;

    assert_int_equal(client_wait_job(c, 0, 0, count_progress, &n, &e), 0);
    assert_int_equal(n, 0);
    assert_int_equal(client_wait_job(c, 1, 0, count_progress, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(client_wait_job(c, 2, 0, NULL, NULL, &e), -ENOMEM);
    assert_int_equal(e.code, HV_NO_RESOURCES);
    assert_string_equal(e.object, "web1");
    assert_string_equal(e.message, "it needs 1.0G");
    assert_string_equal(e.hint, "stop something");
    assert_int_equal(client_wait_job(c, 3, 0, NULL, NULL, &e), -EIO);
    assert_string_equal(e.message, "the job was cancelled");
    assert_int_equal(client_wait_job(c, 4, 30 * NS_PER_MS, NULL, NULL, &e), -ETIMEDOUT);
    assert_string_equal(e.message, "not finished in time; job 4 goes on");
    json_t *reply = job(17, "running", json_null());
    assert_int_equal(client_job_of(reply), 17);
    json_decref(reply);
    reply = json_pack("{s:n}", "job");
    assert_int_equal(client_job_of(reply), 0);
    json_decref(reply);
    client_free(c);
}

static char states[64];

static void note_state(void *arg, const char *s)
{
    size_t n = strlen(states);

    snprintf(states + n, sizeof(states) - n, "%s ", s);
}

static void waiting_for_a_condition(void **state)
{
    struct hv_client *c = own();
    struct hv_error e = { 0 };

    states[0] = '\0';
    assert_int_equal(client_wait(c, "web1", "running", 5 * NS_PER_SEC, note_state, NULL, &e), 0);
    assert_string_equal(states, "starting running ");
    assert_int_equal(client_wait(c, "web1", "ip", 1, NULL, NULL, &e), -ETIMEDOUT);
    assert_int_equal(e.code, HV_TIMEOUT);
    client_free(c);
}

static void consoles_are_raw(void **state)
{
    struct hv_client *keep = own(), *c = own();
    struct client_console con;
    struct hv_error e = { 0 };
    char buf[32] = "";

    assert_int_equal(client_console(c, "nope", 0, &con, &e), -ENOENT);
    assert_string_equal(e.object, "nope");
    assert_int_equal(client_console(c, "web1", CLIENT_CONSOLE_HISTORY, &con, &e), 0);
    assert_string_equal(con.writer, "ann");
    size_t n = con.extra_len;
    memcpy(buf, con.extra, n);
    while (n < 10) {
        struct pollfd p = { .fd = con.fd, .events = POLLIN };
        assert_int_equal(poll(&p, 1, 10000), 1);
        ssize_t got = read(con.fd, buf + n, sizeof(buf) - 1 - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
    assert_string_equal(buf, "history=1\n");
    free(con.extra);
    close(con.fd);
    client_free(c);
    client_free(keep);
}

static void a_lost_service_is_unreachable(void **state)
{
    struct hv_client *c = own();
    struct hv_error e = { 0 };

    assert_int_equal(client_call(c, "Doctor", NULL, 0, NULL, &e), -ECONNREFUSED);
    assert_int_equal(e.code, HV_UNREACHABLE);
    assert_non_null(strstr(e.message, "lost"));
    assert_int_equal(client_call(c, "GetInfo", NULL, 0, NULL, &e), -ECONNREFUSED);
    client_free(c);
}

static void methods_of_another_version(void **state)
{
    struct hv_client *c = own();
    struct hv_error e = { 0 };

    assert_int_equal(client_call(c, "ShowHost", NULL, 0, NULL, &e), -EOPNOTSUPP);
    assert_int_equal(client_call(c, "NotYetThought", NULL, 0, NULL, &e), -EOPNOTSUPP);
    assert_int_equal(client_call(c, "WaitJob", json_pack("{s:s}", "id", "x"), 0, NULL, &e), -EINVAL);
    assert_string_equal(e.object, "id");
    client_free(c);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(the_own_service_is_started_once),
        TEST(nothing_of_ours_leaks_into_the_service),
        TEST(a_stale_socket_is_no_service),
        TEST(clients_that_race_start_one),
        TEST(a_service_that_dies_says_why),
        TEST(without_permission_to_start_nothing_starts),
        TEST(a_missing_program_is_named),
        TEST(hosts_that_cannot_be),
        TEST(hv_host_and_paths_reach_a_service),
        TEST(a_system_service_that_is_not_there),
        TEST(jobs_are_followed),
        TEST(waiting_for_a_condition),
        TEST(consoles_are_raw),
        TEST(a_lost_service_is_unreachable),
        TEST(methods_of_another_version),
    };

    if (argc > 1 && strcmp(argv[1], "--user") == 0) {
        return fake_hvd();
    }
    return cmocka_run_group_tests_name("client/client", tests, NULL, NULL);
}
