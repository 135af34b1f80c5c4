/*
 * The varlink room under a hostile peer. The first byte chooses the reader:
 *
 *   0  an interface text, then its own parse again
 *   1  a client's bytes to the server, in pieces as the second byte says
 *   2  a service's bytes to the client on the loop, with calls pending
 *
 * Besides memory safety: every connection comes to its end, every pending call is told,
 * and the server serves a good client afterwards.
 *
 * clang -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE -DHV_VERSION='"0"'
 * tests/fuzz/fuzz_varlink.c with the archives of rpc and base, -luv -ljansson;
 * tests/unit/rpc/test_fuzz.c runs it with a fixed seed.
 */
#include "hv/rpc/varlink.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/rpc/loop_uv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define FUZZ_MAX ((size_t)64 << 10)   /* fits a socket's buffer, so writing never waits */

static const char fuzz_text[] =
    "interface org.hv.Fuzz\n"
    "type Tree (v: int, t: []Tree)\n"
    "method Echo(a: any) -> (a: any)\n"
    "method Plant(t: Tree) -> ()\n"
    "method More(n: ?int) -> (n: int)\n"
    "method Drop() -> ()\n"
    "method Fd() -> (got: bool)\n"
    "error Failed (code: string, object: string, message: string, hint: string)\n";

static void fuzz_echo(void *arg, struct varlink_call *c, const json_t *params)
{
    varlink_reply(c, json_pack("{s:O}", "a", json_object_get(params, "a")), false);
}

static void fuzz_tree(void *arg, struct varlink_call *c, const json_t *params)
{
    varlink_reply(c, NULL, false);
}

static void fuzz_more(void *arg, struct varlink_call *c, const json_t *params)
{
    for (int i = 0; i < 3 && varlink_call_more(c); i++) {
        varlink_reply(c, json_pack("{s:i}", "n", i), true);
    }
    varlink_reply(c, json_pack("{s:O}", "n", json_object_get(params, "n")), false);
}

static void fuzz_drop(void *arg, struct varlink_call *c, const json_t *params)
{
}

static void fuzz_fd(void *arg, struct varlink_call *c, const json_t *params)
{
    hv_autoclose int fd = varlink_call_take_fd(c, 0);

    varlink_reply(c, json_pack("{s:b}", "got", fd >= 0), false);
}

static const struct varlink_method fuzz_methods[] = {
    { "Echo", fuzz_echo }, { "Plant", fuzz_tree }, { "More", fuzz_more },
    { "Drop", fuzz_drop }, { "Fd", fuzz_fd },     { 0 },
};

struct fuzz_run {
    struct loop *loop;
    int fd;
    struct loop_fd *watch;
    size_t replies;
};

/* Read what the server answers until it closes. */
static void fuzz_drain(void *arg, unsigned events)
{
    struct fuzz_run *run = arg;
    char buf[4096];
    ssize_t n = read(run->fd, buf, sizeof(buf));

    if (n > 0) {
        run->replies += (size_t)n;
    } else if (n == 0 || errno != EAGAIN) {
        loop_uv_stop(run->loop);
    }
}

static void fuzz_server_with(struct varlink_server *s, struct fuzz_run *run, const uint8_t *data, size_t len, size_t piece)
{
    int pair[2];

    hv_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    hv_assert(varlink_server_add(s, pair[0]) == 0);
    run->fd = pair[1];
    run->replies = 0;
    hv_assert(loop_fd_new(run->loop, run->fd, LOOP_READ, fuzz_drain, run, &run->watch) == 0);
    for (size_t at = 0; at < len; at += piece) {
        size_t n = MIN(piece, len - at);
        if (send(run->fd, data + at, n, MSG_NOSIGNAL) != (ssize_t)n) {
            break;
        }
    }
    shutdown(run->fd, SHUT_WR);
    loop_uv_run(run->loop);
    loop_fd_free(run->loop, run->watch);
    close(run->fd);
}

static void fuzz_server(const uint8_t *data, size_t len)
{
    static const char good[] = "{\"method\":\"org.hv.Fuzz.Echo\",\"parameters\":{\"a\":1}}";
    const struct varlink_interface i = { fuzz_text, fuzz_methods, NULL };
    const struct varlink_interface *const is[] = { &i };
    struct fuzz_run run = { 0 };
    struct varlink_server *s;
    size_t piece = 1 + (len ? data[0] : 0) * 64;

    hv_assert(loop_uv_new(&run.loop) == 0);
    hv_assert(varlink_server_new(run.loop, "fuzz", is, 1, &s) == 0);
    fuzz_server_with(s, &run, data + (len > 0), len - (len > 0), MAX(piece, len / 64));
    fuzz_server_with(s, &run, (const uint8_t *)good, sizeof(good), sizeof(good));
    hv_assert(run.replies == sizeof("{\"parameters\":{\"a\":1}}"));
    varlink_server_free(s);
    loop_uv_free(run.loop);
}

struct fuzz_pending { unsigned told; bool closed; struct loop *loop; };

static void fuzz_reply(void *arg, json_t *params, bool continues, const struct hv_error *e)
{
    struct fuzz_pending *p = arg;

    hv_assert(!p->closed && (params == NULL) == (e != NULL) && !(e && continues));
    p->told += !continues;
}

static void fuzz_closed(void *arg)
{
    struct fuzz_pending *p = arg;

    hv_assert(!p->closed);
    p->closed = true;
    loop_uv_stop(p->loop);
}

static void fuzz_client(const uint8_t *data, size_t len)
{
    struct fuzz_pending p = { 0 };
    struct varlink_conn *c;
    int pair[2];

    hv_assert(loop_uv_new(&p.loop) == 0);
    hv_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    hv_assert(varlink_conn_new(p.loop, pair[0], fuzz_closed, &p, &c) == 0);
    hv_assert(varlink_conn_call(c, "org.hv.Worker.Hello", NULL, false, NULL, 0, fuzz_reply, &p) == 0);
    hv_assert(varlink_conn_call(c, "org.hv.Worker.Watch", NULL, true, NULL, 0, fuzz_reply, &p) == 0);
    hv_assert(varlink_conn_call(c, "org.hv.Other.Thing", NULL, true, &pair[1], 1, fuzz_reply, &p) == 0);
    hv_assert(send(pair[1], data, len, MSG_NOSIGNAL) == (ssize_t)len);
    shutdown(pair[1], SHUT_WR);
    loop_uv_run(p.loop);
    hv_assert(p.closed && p.told == 3);
    varlink_conn_free(c);
    close(pair[1]);
    loop_uv_free(p.loop);
}

static void fuzz_idl(const uint8_t *data, size_t len)
{
    struct varlink_idl *idl = NULL;
    char *text = malloc(len + 1);

    memcpy(text, data, len);
    text[len] = '\0';
    if (varlink_idl_parse(text, &idl, NULL) == 0) {
        json_t *v = json_object();
        varlink_idl_check(idl, "M", false, v, NULL);
        json_decref(v);
        varlink_idl_free(idl);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static void (*const readers[])(const uint8_t *data, size_t len) = { fuzz_idl, fuzz_server, fuzz_client };

    if (len > 0 && len <= FUZZ_MAX) {
        readers[data[0] % ARRAY_SIZE(readers)](data + 1, len - 1);
    }
    return 0;
}
