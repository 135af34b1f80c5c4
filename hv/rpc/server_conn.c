/*
 * One connection of the varlink server.
 *
 *   readable -> wire_fill -> work -> wire_next -> server_dispatch -> handler
 *                             ^                                        |
 *                             +----- the call's last reply <-----------+
 *
 * Calls of a connection are served one after the other: while one is open, further
 * input is read ahead only a little, which also lets a client's end be noticed. No
 * connection is torn down under a handler: what fails inside a reply is closed from
 * a post.
 */
#include "hv/rpc/server.h"

#include <errno.h>
#include <poll.h>

#include "hv/base/log.h"

static void on_work(void *arg);

static void on_event(void *arg, unsigned events);

int server_conn_new(struct varlink_server *s, int fd, const struct varlink_peer *peer)
{
    struct server_conn *c = hv_alloc(sizeof(*c));
    struct wire w;
    int r = wire_init(&w, fd, fd);

    if (r < 0) {
        free(c);
        return r;
    }
    if (!c) {
        wire_fini(&w);
        return -ENOMEM;
    }
    *c = (struct server_conn){ .magic = CONN_MAGIC, .refs = 1, .server = server_ref(s), .peer = *peer, .wire = w };
    c->wire.out_last = &c->wire.out_first;
    c->wire.max_message = s->max_message;
    c->work = (struct loop_post){ .fn = on_work, .arg = c };
    r = loop_fd_new(s->loop, fd, LOOP_READ, on_event, c, &c->watch);
    if (r < 0) {
        wire_fini(&c->wire);
        server_unref(s);
        free(c);
        return r;
    }
    c->next = s->conns;
    c->prev = &s->conns;
    if (c->next) {
        c->next->prev = &c->next;
    }
    s->conns = c;
    s->conn_count++;
    return 0;
}

void server_conn_unref(struct server_conn *c)
{
    HV_CHECK(c, CONN_MAGIC);
    if (--c->refs == 0) {
        hv_assert(c->closed);
        server_unref(c->server);
        c->magic = 0;
        free(c);
    }
}

void server_conn_close(struct server_conn *c)
{
    struct varlink_server *s = c->server;

    if (c->closed) {
        return;
    }
    c->closed = true;
    s->large -= c->large;
    loop_post_cancel(s->loop, &c->work);
    loop_fd_free(s->loop, c->watch);
    c->watch = NULL;
    wire_fini(&c->wire);
    *c->prev = c->next;
    if (c->next) {
        c->next->prev = c->prev;
    }
    s->conn_count--;

    struct varlink_call *call = c->current;
    server_ref(s);
    c->current = NULL;
    if (call) {
        call->done = true;
        if (call->on_close) {
            call->on_close(call->on_close_arg);
        }
        varlink_call_unref(call);
    }
    server_conn_unref(c);
    if (s->loop) {
        server_conn_gone(s);
    }
    server_unref(s);
}

void server_conn_fail(struct server_conn *c, const char *why)
{
    if (c->closed || c->failed) {
        return;
    }
    log_debug("rpc", "pid %d uid %u: connection closed: %s", (int)c->peer.pid, (unsigned)c->peer.uid, why);
    c->failed = true;
    loop_post(c->server->loop, &c->work);
}

void server_conn_update(struct server_conn *c)
{
    unsigned events = 0;

    if (c->closed || c->failed) {
        return;
    }
    int r = wire_flush(&c->wire);
    if (r == -EAGAIN) {
        events |= LOOP_WRITE;
    } else if (r < 0) {
        server_conn_fail(c, "cannot write");
        return;
    }
    bool busy = c->current || c->wire.backlog > SERVER_BACKLOG_PAUSE;
    if (!c->eof && !(busy && wire_pending(&c->wire) >= SERVER_MAX_PIPELINED)) {
        events |= LOOP_READ;
    }
    loop_fd_set(c->server->loop, c->watch, events);
}

bool server_conn_hung_up(const struct server_conn *c)
{
    struct pollfd p = { .fd = c->wire.rfd };

    return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
}

/* Serve what is complete, as far as order and back-pressure allow. */
static void work(struct server_conn *c)
{
    unsigned served = 0;
    int r = 1;

    c->working = true;
    while (!c->closed && !c->failed && !c->current && c->wire.backlog <= SERVER_BACKLOG_PAUSE) {
        struct wire_msg msg;
        if (served++ == SERVER_CALLS_PER_TURN) {
            loop_post(c->server->loop, &c->work);     /* others first */
            break;
        }
        r = wire_next(&c->wire, &msg);
        if (r > 0) {
            c->partial_since_ns = 0;
            r = server_dispatch(c, &msg);
        }
        if (r < 0) {
            server_conn_fail(c, r == -EMSGSIZE ? "a message is too large" : "a message is malformed");
        }
        if (r == 0) {
            break;
        }
    }
    c->working = false;
    if (c->closed || c->failed) {
        return;
    }
    /* half a message: since when */
    bool partial = !c->current && r == 0 && wire_pending(&c->wire) > 0;
    if (!partial) {
        c->partial_since_ns = 0;
    } else if (!c->partial_since_ns) {
        c->partial_since_ns = hv_now_ns();
        server_sweep_soon(c->server);
    }
    if (c->eof && !c->current && r == 0 && c->wire.backlog == 0) {
        server_conn_fail(c, "the client is done");
    } else if (c->eof && c->current) {
        /* with the reader gone too, nobody waits for the open call */
        if (server_conn_hung_up(c)) {
            server_conn_fail(c, "the client went away");
        } else {
            server_sweep_soon(c->server);
        }
    }
}

/* One more or one less that holds a large message. False: there are too many. */
static bool count_large(struct server_conn *c)
{
    const bool large = wire_pending(&c->wire) > VARLINK_MAX_MESSAGE;
    if (large == c->large) {
        return true;
    }
    if (large && c->server->large == SERVER_LARGE_AT_ONCE) {
        return false;
    }
    c->large = large;
    c->server->large += large ? 1 : -1u;
    return true;
}

static void on_work(void *arg)
{
    struct server_conn *c = arg;

    c->refs++;
    if (!c->failed) {
        work(c);
    }
    if (!c->closed && !c->failed && !count_large(c)) {
        server_conn_fail(c, "too many large messages");
    }
    if (!c->failed) {
        server_conn_update(c);
    }
    if (c->failed) {
        server_conn_close(c);
    }
    server_conn_unref(c);
}

static void on_event(void *arg, unsigned events)
{
    struct server_conn *c = arg;
    int r = 1;

    if (events & LOOP_READ && !c->eof) {
        r = wire_fill(&c->wire);
    }
    /* a reset is an end too; what was read before it is still served */
    if (r == 0 || r == -ECONNRESET) {
        c->eof = true;
        r = 0;
    }
    if (r < 0 && r != -EAGAIN) {
        c->failed = true;
    }
    on_work(c);
}

void server_conn_call_done(struct server_conn *c)
{
    struct varlink_call *call = c->current;

    c->current = NULL;
    if (!c->working && !c->closed) {
        loop_post(c->server->loop, &c->work);
    }
    varlink_call_unref(call);
}
