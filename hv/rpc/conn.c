/*
 * The client on the loop: hvd towards its workers. Calls are queued, the peer
 * answers them in order. A worker is not trusted: whatever it sends that is no reply
 * to the oldest open call ends the connection.
 *
 * Callbacks run from the loop only, never inside varlink_conn_call, and may free the
 * connection; a reference keeps the memory until the caller of the callback is out.
 */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/rpc/reply.h"
#include "hv/rpc/wire.h"

#define CLIENT_CONN_MAGIC 0x7663636eu

struct pending_call {
    struct pending_call *next;
    varlink_reply_fn *fn;
    void *arg;
    bool more;
    char method[];
};

struct varlink_conn {
    uint32_t magic;
    unsigned refs;
    struct loop *loop;
    struct wire wire;
    struct loop_fd *watch;
    struct loop_post work;
    struct pending_call *first, **last;
    struct wire_msg *msg;            /* the one being handed to a callback */
    bool eof, failed, closed, freed;
    char why[128];
    void (*on_close)(void *arg);
    void *arg;
};

static void conn_unref(struct varlink_conn *c)
{
    if (--c->refs == 0) {
        c->magic = 0;
        free(c);
    }
}

static struct pending_call *take_first(struct varlink_conn *c)
{
    struct pending_call *p = c->first;

    c->first = p->next;
    if (!c->first) {
        c->last = &c->first;
    }
    return p;
}

/* The wire goes, the object stays until its owner frees it. */
static void drop_wire(struct varlink_conn *c)
{
    if (!c->closed) {
        c->closed = true;
        loop_post_cancel(c->loop, &c->work);
        loop_fd_free(c->loop, c->watch);
        c->watch = NULL;
        wire_fini(&c->wire);
    }
}

static void fail(struct varlink_conn *c, const char *why)
{
    if (!c->failed && !c->closed) {
        c->failed = true;
        hv_strlcpy(c->why, why, sizeof(c->why));
        loop_post(c->loop, &c->work);
    }
}

/* Tell everybody who waits, then the owner. Each of them may free the connection. */
static void close_lost(struct varlink_conn *c)
{
    void (*on_close)(void *arg) = c->on_close;
    struct hv_error e = { 0 };

    log_debug("rpc", "connection to a worker lost: %s", c->why);
    hv_fail(&e, HV_UNREACHABLE, NULL, "the connection is lost: %s", c->why);
    drop_wire(c);
    while (c->first && !c->freed) {
        struct pending_call *p = take_first(c);
        p->fn(p->arg, NULL, false, &e);
        free(p);
    }
    if (!c->freed && on_close) {
        c->on_close = NULL;
        on_close(c->arg);
    }
}

static void flush(struct varlink_conn *c)
{
    int r = wire_flush(&c->wire);

    if (r == -EPIPE || r == -ECONNRESET) {
        wire_drop_output(&c->wire);     /* what it said before it went is still to be read */
        r = 0;
    }
    if (r < 0 && r != -EAGAIN) {
        fail(c, strerror(-r));
        return;
    }
    loop_fd_set(c->loop, c->watch, (c->eof ? 0 : LOOP_READ) | (r == -EAGAIN ? LOOP_WRITE : 0));
}

/* One reply to the oldest call. */
static void handle(struct varlink_conn *c, struct wire_msg *msg)
{
    struct hv_error e = { 0 };
    struct reply reply;
    struct pending_call *p = c->first;

    if (!p) {
        fail(c, "it answered what was not asked");
        return;
    }
    int r = reply_read(msg->json, p->method, p->more, &reply, &e);
    if (r == -EPROTO) {
        fail(c, e.message);
        return;
    }
    bool last = r < 0 || !reply.continues;
    if (last) {
        take_first(c);
    }
    c->msg = msg;
    if (r < 0) {
        p->fn(p->arg, NULL, false, &e);
    } else {
        p->fn(p->arg, reply.params, reply.continues, NULL);
    }
    c->msg = NULL;
    if (last) {
        free(p);
    }
}

static void on_work(void *arg)
{
    struct varlink_conn *c = arg;
    int r = 1;

    c->refs++;
    for (unsigned n = 0; r > 0 && !c->failed && !c->closed; n++) {
        struct wire_msg msg = { 0 };
        if (n == 64) {
            loop_post(c->loop, &c->work);        /* a flood must not starve the loop */
            break;
        }
        r = wire_next(&c->wire, &msg);
        if (r > 0) {
            handle(c, &msg);
            wire_msg_fini(&msg);
        } else if (r < 0) {
            fail(c, r == -EMSGSIZE ? "a message is too large" : "a message is malformed");
        }
    }
    /* what came before the end counts, so the end comes after it */
    if (r == 0 && c->eof) {
        fail(c, "it closed the connection");
    }
    if (c->failed && !c->closed) {
        close_lost(c);
    }
    conn_unref(c);
}

static void on_event(void *arg, unsigned events)
{
    struct varlink_conn *c = arg;

    c->refs++;
    if (events & LOOP_WRITE) {
        flush(c);
    }
    if (events & LOOP_READ && !c->failed && !c->eof) {
        int r = wire_fill(&c->wire);
        if (r == 0 || r == -ECONNRESET) {
            c->eof = true;
            loop_fd_set(c->loop, c->watch, 0);
            r = 0;
        }
        if (r >= 0) {
            on_work(c);
        } else if (r != -EAGAIN) {
            fail(c, strerror(-r));
        }
    }
    conn_unref(c);
}

int varlink_conn_new(struct loop *loop, int fd, void (*on_close)(void *arg), void *arg, struct varlink_conn **ret)
{
    struct varlink_conn *c = hv_alloc(sizeof(*c));
    struct wire w;
    int r = wire_init(&w, fd, fd);

    if (!c || r < 0) {
        if (r == 0) {
            wire_fini(&w);
        }
        free(c);
        return r < 0 ? r : -ENOMEM;
    }
    *c = (struct varlink_conn){
        .magic = CLIENT_CONN_MAGIC, .refs = 1, .loop = loop, .wire = w, .on_close = on_close, .arg = arg,
    };
    c->wire.out_last = &c->wire.out_first;
    c->last = &c->first;
    c->work = (struct loop_post){ .fn = on_work, .arg = c };
    r = loop_fd_new(loop, fd, LOOP_READ, on_event, c, &c->watch);
    if (r < 0) {
        wire_fini(&c->wire);
        free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void varlink_conn_free(struct varlink_conn *c)
{
    if (!c) {
        return;
    }
    HV_CHECK(c, CLIENT_CONN_MAGIC);
    hv_assert(!c->freed);
    c->freed = true;
    drop_wire(c);
    while (c->first) {
        free(take_first(c));
    }
    conn_unref(c);
}

/* A dead peer's socket holds no more than its buffer, which is read in far fewer turns. */
#define FINISH_TURNS 4096

void varlink_conn_finish(struct varlink_conn *c)
{
    if (!c) {
        return;
    }
    HV_CHECK(c, CLIENT_CONN_MAGIC);
    c->on_close = NULL;
    for (unsigned n = 0; n < FINISH_TURNS && !c->failed && !c->closed; n++) {
        int r = c->eof ? 0 : wire_fill(&c->wire);
        if (r < 0 && r != -ECONNRESET) {
            break;                      /* all was read, and somebody else holds the other end */
        }
        c->eof = r <= 0;
        on_work(c);
    }
    if (!c->closed) {
        fail(c, "its process ended");
        close_lost(c);
    }
    varlink_conn_free(c);
}

int varlink_conn_take_fd(struct varlink_conn *c, int index)
{
    HV_CHECK(c, CLIENT_CONN_MAGIC);
    if (!c->msg || index < 0 || (unsigned)index >= c->msg->nfds) {
        return -1;
    }
    return hv_steal_fd(c->msg->fds[index]);
}

int varlink_conn_call(struct varlink_conn *c, const char *method, json_t *params, bool more, const int *fds,
                      unsigned nfds, varlink_reply_fn *fn, void *arg)
{
    HV_CHECK(c, CLIENT_CONN_MAGIC);
    json_t *msg = call_message(method, params, more ? "more" : NULL);
    size_t len = strlen(method) + 1;
    struct pending_call *p = hv_alloc(sizeof(*p) + len);
    int r = 0;

    if (!msg || !p) {
        r = -ENOMEM;
    } else if (c->closed) {
        r = -ECONNREFUSED;
    } else {
        r = wire_send(&c->wire, msg, fds, nfds);
    }
    json_decref(msg);
    if (r < 0) {
        free(p);
        return r;
    }
    p->fn = fn;
    p->arg = arg;
    p->more = more;
    memcpy(p->method, method, len);
    *c->last = p;
    c->last = &p->next;
    if (!c->failed) {
        flush(c);
    }
    return 0;
}
