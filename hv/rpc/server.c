/*
 * The varlink server: interfaces, listening sockets, limits on who may connect and
 * how often. Connections are in server_conn.c, calls in call.c.
 */
#include "hv/rpc/server.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/base/log.h"

#define ACCEPT_PER_TURN 16

struct varlink_server *server_ref(struct varlink_server *s)
{
    s->refs++;
    return s;
}

void server_unref(struct varlink_server *s)
{
    if (--s->refs > 0) {
        return;
    }
    for (unsigned i = 0; i < s->interface_count; i++) {
        varlink_idl_free(s->interfaces[i].idl);
    }
    free(s->interfaces);
    free(s->product);
    s->magic = 0;
    free(s);
}

static void on_sweep(void *arg)
{
    struct varlink_server *s = arg;
    uint64_t now = hv_now_ns();
    bool again = false;

    s->sweeping = false;
    for (struct server_conn *c = s->conns, *next; c; c = next) {
        next = c->next;
        if (c->partial_since_ns && now - c->partial_since_ns > s->message_ns) {
            server_conn_fail(c, "a message took too long");
        }
        /* a client that closed one direction is not watched for closing the other */
        bool half_closed = c->eof && c->current;
        if (half_closed && server_conn_hung_up(c)) {
            server_conn_fail(c, "the client went away");
        }
        again = again || c->partial_since_ns || half_closed;
    }
    if (s->accept_paused) {
        s->accept_paused = false;
        for (struct server_listener *l = s->listeners; l; l = l->next) {
            loop_fd_set(s->loop, l->watch, LOOP_READ);
        }
    }
    if (again) {
        server_sweep_soon(s);
    }
}

void server_sweep_soon(struct varlink_server *s)
{
    if (s->loop && !s->sweeping) {
        s->sweeping = true;
        loop_timer_set(s->loop, s->sweep, hv_now_ns() + s->sweep_ns);
    }
}

static int add_interface(struct varlink_server *s, const char *text, const struct varlink_method *methods, void *arg)
{
    struct served_interface *i = &s->interfaces[s->interface_count];
    struct hv_error e = { 0 };
    int r = varlink_idl_parse(text, &i->idl, &e);

    if (r == -ENOMEM) {
        return r;
    }
    if (r < 0) {
        log_error("interface %s: %s", e.object, e.message);
    }
    hv_assert(r == 0);
    i->methods = methods;
    i->arg = arg;
    s->interface_count++;
    for (const struct varlink_method *m = methods; m->name; m++) {
        hv_assert(idl_find(i->idl, IDL_DECL_METHOD, m->name) != NULL);
    }
    return 0;
}

int varlink_server_new(struct loop *loop, const char *product, const struct varlink_interface *const *ifaces,
                       unsigned count, struct varlink_server **ret)
{
    struct varlink_server *s = hv_alloc(sizeof(*s));
    int r = 0;

    if (!s) {
        return -ENOMEM;
    }
    *s = (struct varlink_server){
        .magic = SERVER_MAGIC, .refs = 1, .loop = loop, .sweep_ns = SERVER_SWEEP_NS, .message_ns = SERVER_MESSAGE_TIME_NS,
        .max_message = VARLINK_MAX_MESSAGE,
    };
    s->product = hv_strdup(product);
    s->interfaces = hv_alloc_array(count + 1, sizeof(*s->interfaces));
    if (!s->product || !s->interfaces) {
        r = -ENOMEM;
    }
    for (unsigned i = 0; i < count && r == 0; i++) {
        r = add_interface(s, ifaces[i]->text, ifaces[i]->methods, ifaces[i]->arg);
    }
    if (r == 0) {
        r = add_interface(s, varlink_service_text, varlink_service_methods, s);
    }
    if (r == 0) {
        r = loop_timer_new(loop, on_sweep, s, &s->sweep);
    }
    if (r < 0) {
        server_unref(s);
        return r;
    }
    *ret = s;
    return 0;
}

void varlink_server_free(struct varlink_server *s)
{
    if (!s) {
        return;
    }
    HV_CHECK(s, SERVER_MAGIC);
    s->on_idle = NULL;
    for (struct server_listener *l = s->listeners, *next; l; l = next) {
        next = l->next;
        loop_fd_free(s->loop, l->watch);
        close(l->fd);
        free(l);
    }
    s->listeners = NULL;
    while (s->conns) {
        server_conn_close(s->conns);
    }
    loop_timer_free(s->loop, s->sweep);
    s->sweep = NULL;
    s->loop = NULL;
    server_unref(s);
}

int server_peer_of(int fd, struct varlink_peer *ret)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
        return -errno;
    }
    *ret = (struct varlink_peer){ .uid = cred.uid, .gid = cred.gid, .pid = cred.pid };
    return 0;
}

static bool too_many(const struct varlink_server *s, uid_t uid)
{
    unsigned same = 0;

    if (s->conn_count >= SERVER_MAX_CONNECTIONS) {
        return true;
    }
    for (const struct server_conn *c = s->conns; c; c = c->next) {
        same += c->peer.uid == uid;
    }
    return uid != 0 && same >= SERVER_MAX_PER_UID;
}

static void on_accept(void *arg, unsigned events)
{
    struct server_listener *l = arg;
    struct varlink_server *s = server_ref(l->server);

    for (unsigned n = 0; n < ACCEPT_PER_TURN; n++) {
        struct varlink_peer peer;
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) {
            continue;
        }
        if (fd < 0) {
            if (errno != EAGAIN) {
                /* no descriptors or memory: the connection stays queued, so look again later, not in a spin */
                log_debug("rpc", "cannot accept a connection: %m");
                s->accept_paused = true;
                for (struct server_listener *other = s->listeners; other; other = other->next) {
                    loop_fd_set(s->loop, other->watch, 0);
                }
                server_sweep_soon(s);
            }
            break;
        }
        if (server_peer_of(fd, &peer) < 0 || too_many(s, peer.uid) || (l->allow && !l->allow(l->arg, &peer))) {
            close(fd);
            continue;
        }
        server_conn_new(s, fd, &peer);
    }
    server_unref(s);
}

int varlink_server_listen(struct varlink_server *s, int fd, bool (*allow)(void *arg, const struct varlink_peer *p),
                          void *arg)
{
    HV_CHECK(s, SERVER_MAGIC);
    struct server_listener *l = hv_alloc(sizeof(*l));
    int flags = fcntl(fd, F_GETFL), r = 0;

    if (!l) {
        r = -ENOMEM;
    } else if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        r = -errno;
    } else {
        *l = (struct server_listener){ .server = s, .fd = fd, .allow = allow, .arg = arg };
        r = loop_fd_new(s->loop, fd, LOOP_READ, on_accept, l, &l->watch);
    }
    if (r < 0) {
        close(fd);
        free(l);
        return r;
    }
    l->next = s->listeners;
    s->listeners = l;
    return 0;
}

int varlink_server_add(struct varlink_server *s, int fd)
{
    struct varlink_peer peer;

    HV_CHECK(s, SERVER_MAGIC);
    int r = server_peer_of(fd, &peer);
    if (r < 0) {
        close(fd);
        return r;
    }
    return server_conn_new(s, fd, &peer);
}

void varlink_server_large_messages(struct varlink_server *s) { s->max_message = VARLINK_LARGE_MESSAGE; }

unsigned varlink_server_connections(const struct varlink_server *s)
{
    HV_CHECK(s, SERVER_MAGIC);
    return s->conn_count;
}

void varlink_server_on_idle(struct varlink_server *s, void (*fn)(void *arg), void *arg)
{
    HV_CHECK(s, SERVER_MAGIC);
    s->on_idle = fn;
    s->on_idle_arg = arg;
}

void server_conn_gone(struct varlink_server *s)
{
    if (s->conn_count == 0 && s->on_idle) {
        s->on_idle(s->on_idle_arg);
    }
}
