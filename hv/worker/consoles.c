/*
 * The clients of COM1. Each has a socket in non-blocking mode and its own position in
 * the console's ring; the worker is its direct peer, so hvd may come and go.
 *
 *   ring ──console_read──▶ out[] ──write──▶ socket        read──▶ in[] ──console_input──▶ guest
 *
 * One client writes. What it sends while the guest's queue is full waits in in[], and
 * the socket is not read until there is room. Read-only clients' bytes are dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/platform/console.h"
#include "hv/worker/worker.h"

#define CLIENTS_MAX 32

struct client {
    struct console_server *cs;
    int fd;
    struct loop_fd *watch;
    unsigned events;
    char who[96];
    bool read_only;
    uint64_t pos;
    char out[8192], in[1024];
    size_t out_at, out_len, in_at, in_len;
    struct client *next;
};

struct console_server {
    struct worker *w;
    struct console *console;
    struct console_watch watch;
    struct client *clients;
};

static void client_free(struct client *c)
{
    struct client **at = &c->cs->clients;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    loop_fd_free(c->cs->w->loop, c->watch);
    close(c->fd);
    free(c);
}

static void set_events(struct client *c, unsigned events)
{
    if (events != c->events)
        loop_fd_set(c->cs->w->loop, c->watch, events);
    c->events = events;
}

/* Send what there is. False if the client is gone. */
static bool pump_out(struct client *c)
{
    for (;;) {
        if (c->out_at == c->out_len) {
            c->out_at = 0;
            c->out_len = console_read(c->cs->console, &c->pos, c->out, sizeof(c->out), NULL);
            if (!c->out_len)
                break;
        }
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        c->out_at += (size_t)n;
    }
    return true;
}

/* Type what it sent, as far as the guest's queue takes it. False if the client is gone. */
static bool pump_in(struct client *c)
{
    for (;;) {
        if (c->in_at < c->in_len) {
            c->in_at += c->read_only ? c->in_len - c->in_at
                                     : console_input(c->cs->console, c->in + c->in_at, c->in_len - c->in_at);
            if (c->in_at < c->in_len)
                return true;                 /* `room` comes back */
        }
        ssize_t n = recv(c->fd, c->in, sizeof(c->in), 0);
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;            /* a client that only stops typing keeps its end open */
        c->in_at = 0;
        c->in_len = (size_t)n;
    }
}

static void update(struct client *c)
{
    bool want_in = c->in_at == c->in_len;
    bool want_out = c->out_at < c->out_len;
    set_events(c, (want_in ? LOOP_READ : 0) | (want_out ? LOOP_WRITE : 0));
}

static void on_socket(void *arg, unsigned events)
{
    struct client *c = arg;
    if (((events & LOOP_WRITE) && !pump_out(c)) || ((events & LOOP_READ) && !pump_in(c))) {
        client_free(c);
        return;
    }
    update(c);
}

static void on_output(void *arg)
{
    struct console_server *cs = arg;
    for (struct client *c = cs->clients, *next; c; c = next) {
        next = c->next;
        if (c->out_at < c->out_len)
            continue;                        /* waits for its socket */
        if (!pump_out(c))
            client_free(c);
        else
            update(c);
    }
}

static void on_room(void *arg)
{
    struct console_server *cs = arg;
    for (struct client *c = cs->clients, *next; c; c = next) {
        next = c->next;
        if (c->in_at == c->in_len)
            continue;
        if (!pump_in(c))
            client_free(c);
        else
            update(c);
    }
}

int consoles_new(struct worker *w, struct console_server **ret)
{
    struct console_server *cs = hv_alloc(sizeof(*cs));
    if (!cs)
        return -ENOMEM;
    cs->w = w;
    cs->console = vm_console(w->vm);
    cs->watch = (struct console_watch){.output = on_output, .room = on_room, .arg = cs};
    console_watch(cs->console, &cs->watch);
    *ret = cs;
    return 0;
}

void consoles_free(struct console_server *cs)
{
    if (!cs)
        return;
    while (cs->clients)
        client_free(cs->clients);
    console_unwatch(cs->console, &cs->watch);
    free(cs);
}

static struct client *writer(const struct console_server *cs)
{
    for (struct client *c = cs->clients; c; c = c->next)
        if (!c->read_only)
            return c;
    return NULL;
}

const char *consoles_writer(const struct console_server *cs)
{
    struct client *c = writer(cs);
    return c ? c->who : NULL;
}

unsigned consoles_count(const struct console_server *cs)
{
    unsigned n = 0;
    for (const struct client *c = cs->clients; c; c = c->next)
        n++;
    return n;
}

int consoles_add(struct console_server *cs, int fd, const char *who, bool read_only, bool take_over, bool history,
                 struct hv_error *e)
{
    struct client *has = writer(cs);
    struct client *c = NULL;
    int r = 0;
    if (!read_only && has && !take_over) {
        r = hv_fail(e, HV_CONFLICT, cs->w->name, "its console is being written to by %s", has->who);
        hv_hint(e, "--read-only to watch, or --take-over");
    } else if (consoles_count(cs) >= CLIENTS_MAX) {
        r = hv_fail(e, HV_NO_RESOURCES, cs->w->name, "its console has %d viewers already", CLIENTS_MAX);
    } else if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        r = hv_fail_errno(e, errno, cs->w->name, "cannot serve its console");
    } else if (!(c = hv_alloc(sizeof(*c)))) {
        r = hv_fail(e, HV_NO_RESOURCES, cs->w->name, "out of memory");
    } else {
        c->cs = cs;
        c->fd = fd;
        c->events = LOOP_READ;
        c->read_only = read_only;
        hv_strlcpy(c->who, who, sizeof(c->who));
        c->pos = history ? console_start(cs->console) : console_end(cs->console);
        r = loop_fd_new(cs->w->loop, fd, LOOP_READ, on_socket, c, &c->watch);
        if (r < 0)
            hv_fail_errno(e, -r, cs->w->name, "cannot serve its console");
    }
    if (r < 0) {
        free(c);
        close(fd);
        return r;
    }
    if (!read_only && has) {
        has->read_only = true;
        has->in_at = has->in_len = 0;
        update(has);
    }
    c->next = cs->clients;
    cs->clients = c;
    on_output(cs);
    return 0;
}

bool consoles_drain(struct console_server *cs)
{
    for (struct client *c = cs->clients, *next; c; c = next) {
        next = c->next;
        if (!pump_out(c) || c->out_at == c->out_len)
            client_free(c);
    }
    return !cs->clients;
}
