/*
 * One connection to the management service: hv/client with --timeout and -vv applied.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "hv/client/client.h"
#include "hvctl/hvctl.h"

struct conn {
    struct cli_call *c;
    struct hv_client *client;
};

static int open_with(struct cli_call *c, unsigned flags, struct conn **ret, struct hv_error *e)
{
    struct conn *k = hv_alloc(sizeof(*k));
    if (!k) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    k->c = c;
    int r = client_connect(c->host, flags, &k->client, e);
    if (r < 0) {
        free(k);
        return r;
    }
    *ret = k;
    return 0;
}

int conn_open(struct cli_call *c, struct conn **ret, struct hv_error *e)
{
    return open_with(c, c->batch || !c->tty_err ? CLIENT_NO_ASK : 0, ret, e);
}

int conn_open_existing(struct cli_call *c, struct conn **ret)
{
    return open_with(c, CLIENT_NO_START, ret, NULL);
}

void conn_close(struct conn *k)
{
    if (k) {
        client_free(k->client);
        free(k);
    }
}

const char *conn_mode(const struct conn *k)
{
    return client_mode(k->client);
}

/* -vv: what is sent and received, on stderr. */
static void trace(const struct conn *k, const char *arrow, const char *method, const json_t *v)
{
    if (k->c->verbose < 2) {
        return;
    }
    hv_autofree char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    cli_debug(k->c, 2, "%s %s %s", arrow, method, text ? text : "{}");
}

int conn_call(struct conn *k, const char *method, json_t *params, uint64_t timeout_ns, json_t **ret,
              struct hv_error *e)
{
    uint64_t limit = timeout_ns == UINT64_MAX ? 0 : timeout_ns ? timeout_ns : k->c->timeout_ns;
    trace(k, "->", method, params);
    int r = client_call(k->client, method, params, limit, ret, e);
    if (r == 0) {
        trace(k, "<-", method, *ret);
    }
    return r;
}

struct stream {
    struct conn *k;
    const char *method;
    int (*fn)(void *arg, json_t *reply);
    void *arg;
};

static int on_reply(void *arg, json_t *reply, bool continues)
{
    struct stream *s = arg;
    trace(s->k, "<-", s->method, reply);
    return s->fn(s->arg, reply);
}

int conn_stream(struct conn *k, const char *method, json_t *params, int (*fn)(void *arg, json_t *reply), void *arg,
                struct hv_error *e)
{
    struct stream s = {k, method, fn, arg};
    trace(k, "->", method, params);
    return client_stream(k->client, method, params, k->c->timeout_ns, on_reply, &s, e);
}

int conn_console(struct conn *k, const char *name, const struct console_how *how, int *ret_fd, void **extra,
                 size_t *extra_len, struct hv_error *e)
{
    struct client_console console = {0};
    unsigned flags = (how->read_only ? CLIENT_CONSOLE_READ_ONLY : 0) | (how->take_over ? CLIENT_CONSOLE_TAKE_OVER : 0) |
                     (how->history ? CLIENT_CONSOLE_HISTORY : 0);
    int r = client_console(k->client, name, flags, &console, e);
    if (r < 0) {
        return r;
    }
    if (console.writer[0] && how->read_only) {
        cli_note(k->c, "%s: %s writes", name, console.writer);
    }
    *ret_fd = console.fd;
    *extra = console.extra;
    *extra_len = console.extra_len;
    return 0;
}
