/*
 * The blocking client of tools: one call at a time over a stream, waiting with poll
 * so that a deadline or the caller's cancel descriptor ends the wait.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hv/rpc/reply.h"
#include "hv/rpc/server.h"

#define CLIENT_MAGIC 0x76636c69u
#define CONNECT_TIME_S 10

struct varlink_client {
    uint32_t magic;
    struct wire wire;
    int cancel_fd;
    bool used_up;               /* an answer is outstanding that nobody waits for, or the stream is broken */
    struct wire_msg last;       /* descriptors of the last reply */
    char name[sizeof(((struct sockaddr_un *)0)->sun_path)];   /* for errors */
};

int varlink_client_new(int rfd, int wfd, struct varlink_client **ret)
{
    struct varlink_client *c = hv_alloc(sizeof(*c));
    struct wire w;
    int r = wire_init(&w, rfd, wfd);

    if (!c || r < 0) {
        if (r == 0) {
            wire_fini(&w);
        }
        free(c);
        return r < 0 ? r : -ENOMEM;
    }
    *c = (struct varlink_client){ .magic = CLIENT_MAGIC, .wire = w, .cancel_fd = -1 };
    c->wire.out_last = &c->wire.out_first;
    c->wire.max_message = VARLINK_LARGE_MESSAGE;
    *ret = c;
    return 0;
}

int varlink_connect(const char *path, struct varlink_client **ret, struct hv_error *e)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    /* a full backlog would block for ever; unix sockets honour the send timeout in connect */
    struct timeval limit = { .tv_sec = CONNECT_TIME_S };

    if (strlen(path) >= sizeof(addr.sun_path)) {
        return hv_fail(e, HV_USAGE, path, "the path of a socket has at most %zu bytes", sizeof(addr.sun_path) - 1);
    }
    memcpy(addr.sun_path, path, strlen(path));
    hv_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return hv_fail_errno(e, errno, path, "cannot make a socket");
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    int r;
    do {
        r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        int err = errno;
        if (err == EACCES || err == EPERM) {
            return hv_fail(e, HV_DENIED, path, "cannot connect: %s", strerror(err));
        }
        if (err == EAGAIN) {
            return hv_fail(e, HV_UNREACHABLE, path, "cannot connect: the service does not accept connections");
        }
        return hv_fail(e, HV_UNREACHABLE, path, "cannot connect: %s", strerror(err));
    }
    struct varlink_client *c;
    int own = hv_steal_fd(fd);
    r = varlink_client_new(own, own, &c);
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot connect");
    }
    hv_strlcpy(c->name, path, sizeof(c->name));
    *ret = c;
    return 0;
}

void varlink_client_free(struct varlink_client *c)
{
    if (c) {
        HV_CHECK(c, CLIENT_MAGIC);
        wire_msg_fini(&c->last);
        wire_fini(&c->wire);
        c->magic = 0;
        free(c);
    }
}

int varlink_client_fd(const struct varlink_client *c)
{
    HV_CHECK(c, CLIENT_MAGIC);
    return c->wire.rfd;
}

void varlink_client_set_cancel(struct varlink_client *c, int cancel_fd)
{
    HV_CHECK(c, CLIENT_MAGIC);
    c->cancel_fd = cancel_fd;
}

struct varlink_peer varlink_client_peer(const struct varlink_client *c)
{
    struct varlink_peer p = { .uid = (uid_t)-1, .gid = (gid_t)-1, .pid = -1 };

    HV_CHECK(c, CLIENT_MAGIC);
    server_peer_of(c->wire.rfd, &p);
    return p;
}

int varlink_client_take_fd(struct varlink_client *c, int index)
{
    HV_CHECK(c, CLIENT_MAGIC);
    if (index < 0 || (unsigned)index >= c->last.nfds) {
        return -1;
    }
    return hv_steal_fd(c->last.fds[index]);
}

static int lost(struct varlink_client *c, const char *why, struct hv_error *e)
{
    c->used_up = true;
    return hv_fail(e, HV_UNREACHABLE, c->name, "the connection to the service is lost: %s", why);
}

/* Wait until the wire can go on. 0, -ETIMEDOUT, -EINTR (cancelled) or a loss, with e filled. */
static int wait_wire(struct varlink_client *c, uint64_t deadline_ns, struct hv_error *e)
{
    bool unsent = c->wire.backlog > 0, same = c->wire.rfd == c->wire.wfd;
    struct pollfd p[3] = {
        { .fd = c->wire.rfd, .events = (short)(POLLIN | (unsent && same ? POLLOUT : 0)) },
        { .fd = c->cancel_fd, .events = POLLIN },
        { .fd = unsent && !same ? c->wire.wfd : -1, .events = POLLOUT },
    };

    for (;;) {
        struct timespec ts, *limit = NULL;
        if (deadline_ns) {
            uint64_t now = hv_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
            ts = (struct timespec){ .tv_sec = (time_t)(left / NS_PER_SEC), .tv_nsec = (long)(left % NS_PER_SEC) };
            limit = &ts;
        }
        int n = ppoll(p, ARRAY_SIZE(p), limit, NULL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return lost(c, strerror(errno), e);
        }
        if (n == 0) {
            c->used_up = true;
            return hv_fail(e, HV_TIMEOUT, NULL, "no answer in time");
        }
        if (p[1].revents) {
            c->used_up = true;
            hv_fail(e, HV_FAILED, NULL, "interrupted");
            return -EINTR;
        }
        return 0;
    }
}

static int send_call(struct varlink_client *c, json_t *msg, const int *fds, unsigned nfds, struct hv_error *e)
{
    int r = msg ? wire_send(&c->wire, msg, fds, nfds) : -ENOMEM;

    json_decref(msg);
    return r < 0 ? hv_fail_errno(e, -r, NULL, "cannot send the request") : 0;
}

/* The next message into c->last. */
static int receive_message(struct varlink_client *c, uint64_t deadline_ns, struct hv_error *e)
{
    wire_msg_fini(&c->last);
    for (;;) {
        int r = wire_next(&c->wire, &c->last);
        if (r > 0) {
            return 0;
        }
        if (r < 0) {
            return lost(c, r == -EMSGSIZE ? "its answer is too large" : "its answer is malformed", e);
        }
        /* a service that refuses us may have closed its reading side: what it said still counts */
        r = wire_flush(&c->wire);
        if (r == -EPIPE) {
            wire_drop_output(&c->wire);
        } else if (r < 0 && r != -EAGAIN) {
            return lost(c, strerror(-r), e);
        }
        r = wait_wire(c, deadline_ns, e);
        if (r < 0) {
            return r;
        }
        r = wire_fill(&c->wire);
        if (r == 0) {
            return lost(c, "it closed the connection", e);
        }
        if (r < 0 && r != -EAGAIN) {
            return lost(c, strerror(-r), e);
        }
    }
}

static int check_usable(struct varlink_client *c, json_t *params, struct hv_error *e)
{
    HV_CHECK(c, CLIENT_MAGIC);
    if (!c->used_up) {
        return 0;
    }
    json_decref(params);
    return hv_fail(e, HV_UNREACHABLE, c->name, "the connection to the service was given up");
}

static uint64_t deadline(uint64_t timeout_ns)
{
    uint64_t d;

    return timeout_ns == 0 || __builtin_add_overflow(hv_now_ns(), timeout_ns, &d) ? 0 : d;
}

static int one_reply(struct varlink_client *c, const char *method, bool more, uint64_t deadline_ns,
                     struct reply *ret, struct hv_error *e)
{
    int r = receive_message(c, deadline_ns, e);

    if (r == 0) {
        r = reply_read(c->last.json, method, more, ret, e);
        c->used_up = c->used_up || r == -EPROTO;
    }
    return r;
}

int varlink_call_fds(struct varlink_client *c, const char *method, json_t *params, const int *fds, unsigned nfds,
                     uint64_t timeout_ns, json_t **ret, struct hv_error *e)
{
    struct reply reply;
    int r = check_usable(c, params, e);

    if (r == 0) {
        r = send_call(c, call_message(method, params, NULL), fds, nfds, e);
    }
    if (r == 0) {
        r = one_reply(c, method, false, deadline(timeout_ns), &reply, e);
    }
    if (r == 0 && ret) {
        *ret = json_incref(reply.params);
    }
    return r;
}

int varlink_call(struct varlink_client *c, const char *method, json_t *params, uint64_t timeout_ns, json_t **ret,
                 struct hv_error *e)
{
    return varlink_call_fds(c, method, params, NULL, 0, timeout_ns, ret, e);
}

int varlink_call_oneway(struct varlink_client *c, const char *method, json_t *params, struct hv_error *e)
{
    int r = check_usable(c, params, e);

    if (r == 0) {
        r = send_call(c, call_message(method, params, "oneway"), NULL, 0, e);
    }
    while (r == 0 && c->wire.backlog) {
        int sent = wire_flush(&c->wire);
        if (sent == -EAGAIN) {
            struct pollfd p = { .fd = c->wire.wfd, .events = POLLOUT };
            poll(&p, 1, -1);
        } else if (sent < 0) {
            r = lost(c, strerror(-sent), e);
        }
    }
    return r;
}

int varlink_call_stream(struct varlink_client *c, const char *method, json_t *params, uint64_t timeout_ns,
                        int (*fn)(void *arg, json_t *params, bool continues), void *arg, struct hv_error *e)
{
    struct reply reply = { 0 };
    uint64_t end = deadline(timeout_ns);
    int r = check_usable(c, params, e);

    if (r == 0) {
        r = send_call(c, call_message(method, params, "more"), NULL, 0, e);
    }
    while (r == 0) {
        r = one_reply(c, method, true, end, &reply, e);
        if (r == 0) {
            r = fn(arg, reply.params, reply.continues);
            c->used_up = c->used_up || (r != 0 && reply.continues);
        }
        if (r == 0 && !reply.continues) {
            break;
        }
    }
    return r;
}

int varlink_call_upgraded(struct varlink_client *c, const char *method, json_t *params, uint64_t timeout_ns,
                          json_t **ret, int *ret_fd, void **ret_extra, size_t *ret_extra_len, struct hv_error *e)
{
    struct reply reply;
    int r = check_usable(c, params, e);

    if (r == 0 && c->wire.rfd != c->wire.wfd) {
        json_decref(params);
        return hv_fail(e, HV_UNSUPPORTED, method, "needs a connection over a socket");
    }
    if (r == 0) {
        r = send_call(c, call_message(method, params, "upgrade"), NULL, 0, e);
    }
    if (r == 0) {
        r = one_reply(c, method, false, deadline(timeout_ns), &reply, e);
    }
    if (r < 0) {
        return r;
    }
    size_t len = wire_pending(&c->wire);
    void *extra = hv_alloc(len);
    c->used_up = true;
    if (!extra) {
        return hv_fail(e, HV_NO_RESOURCES, method, "out of memory");
    }
    if (len) {
        memcpy(extra, c->wire.in + c->wire.in_off, len);
    }
    if (ret) {
        *ret = json_incref(reply.params);
    }
    *ret_extra = extra;
    *ret_extra_len = len;
    *ret_fd = c->wire.rfd;
    c->wire.rfd = c->wire.wfd = -1;
    return 0;
}
