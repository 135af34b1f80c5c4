/*
 * Calls: from a message to a handler, and the replies back.
 *
 * A message is {"method": "interface.Method", "parameters": {...}, "more": bool,
 * "oneway": bool, "upgrade": bool} (varlink.org/Method-Call). A well-framed message
 * that makes no sense is answered with an error of org.varlink.service; only broken
 * framing costs the connection.
 */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/rpc/server.h"

static int send_message(struct varlink_call *c, json_t *message, const int *fds, unsigned nfds)
{
    struct server_conn *conn = c->conn;
    int r = message ? wire_send(&conn->wire, message, fds, nfds) : -ENOMEM;

    json_decref(message);
    if (r < 0) {
        server_conn_fail(conn, r == -ENOBUFS ? "the client does not read" : "a reply cannot be sent");
        return r;
    }
    server_conn_update(conn);
    return 0;
}

static void finish(struct varlink_call *c)
{
    c->done = true;
    c->on_close = NULL;
    if (c->conn->current == c) {
        server_conn_call_done(c->conn);
    }
}

/* parameters or error with parameters; steals both. */
static int reply(struct varlink_call *c, const char *error, json_t *parameters, bool continues, const int *fds,
                 unsigned nfds)
{
    json_t *message = NULL;
    int r = 0;

    HV_CHECK(c, CALL_MAGIC);
    hv_assert(!continues || c->more);
    if (!parameters) {
        parameters = json_object();
    }
    if (c->done || c->oneway) {
        json_decref(parameters);
    } else {
        message = json_pack("{s:o}", "parameters", parameters);
        if (message && error) {
            json_object_set_new(message, "error", json_string(error));
        }
        if (message && continues) {
            json_object_set_new(message, "continues", json_true());
        }
        r = send_message(c, message, fds, nfds);
    }
    if (!continues && !c->done) {
        finish(c);
    }
    return r;
}

int call_reply_error_named(struct varlink_call *c, const char *error, json_t *parameters)
{
    return reply(c, error, parameters, false, NULL, 0);
}

int varlink_reply_error(struct varlink_call *c, const struct hv_error *e)
{
    static const struct hv_error nothing = { .code = HV_FAILED };
    char name[300];

    HV_CHECK(c, CALL_MAGIC);
    if (!e || e->code == HV_OK) {
        e = &nothing;
    }
    snprintf(name, sizeof(name), "%s.Failed", c->interface->idl->name);
    return reply(c, name,
                 json_pack("{s:s, s:s, s:s, s:s}", "code", hv_code_word(e->code), "object", e->object, "message",
                           e->message, "hint", e->hint),
                 false, NULL, 0);
}

/* A reply that does not fit the interface is our bug: the client gets an error, not a surprise. */
static int check_reply(struct varlink_call *c, const json_t *parameters)
{
    struct hv_error e = { 0 }, bug = { 0 };

    if (c->done || c->oneway ||
        varlink_idl_check(c->interface->idl, c->name, true, parameters, &e) == 0) {
        return 0;
    }
    hv_fail(&bug, HV_FAILED, NULL, "the service made a malformed reply to %s: %s %s", c->name, e.object, e.message);
    log_debug("rpc", "%s", bug.message);
    varlink_reply_error(c, &bug);
    return -EPROTO;
}

int varlink_reply_fds(struct varlink_call *c, json_t *parameters, bool continues, const int *fds, unsigned nfds)
{
    HV_CHECK(c, CALL_MAGIC);
    if (!parameters) {
        parameters = json_object();
    }
    int r = check_reply(c, parameters);
    if (r < 0) {
        json_decref(parameters);
        return r;
    }
    return reply(c, NULL, parameters, continues, fds, nfds);
}

int varlink_reply(struct varlink_call *c, json_t *parameters, bool continues)
{
    return varlink_reply_fds(c, parameters, continues, NULL, 0);
}

int varlink_reply_upgrade(struct varlink_call *c, json_t *parameters, int *ret_fd, void **ret_extra,
                          size_t *ret_extra_len)
{
    HV_CHECK(c, CALL_MAGIC);
    hv_assert(c->upgrade);
    struct server_conn *conn = c->conn;
    if (c->done) {
        json_decref(parameters);
        return -ECONNRESET;
    }
    if (!parameters) {
        parameters = json_object();
    }
    int r = check_reply(c, parameters);
    if (r < 0) {
        json_decref(parameters);
        return r;
    }
    size_t extra_len = wire_pending(&conn->wire);
    void *extra = hv_alloc(extra_len);
    json_t *message = json_pack("{s:o}", "parameters", parameters);
    r = extra && message ? wire_send(&conn->wire, message, NULL, 0) : -ENOMEM;
    json_decref(message);
    /* a client that upgrades without having read its earlier replies is not worth waiting for */
    if (r == 0) {
        r = wire_flush(&conn->wire);
    }
    if (r < 0) {
        free(extra);
        c->done = true;
        server_conn_fail(conn, "cannot reply to an upgrade");
        finish(c);
        return r;
    }
    if (extra_len) {
        memcpy(extra, conn->wire.in + conn->wire.in_off, extra_len);
    }
    loop_fd_free(conn->server->loop, conn->watch);
    conn->watch = NULL;
    *ret_fd = conn->wire.rfd;
    *ret_extra = extra;
    *ret_extra_len = extra_len;
    conn->wire.rfd = conn->wire.wfd = -1;
    c->done = true;
    c->on_close = NULL;
    server_conn_close(conn);
    return 0;
}

const struct varlink_peer *varlink_call_peer(const struct varlink_call *c)
{
    HV_CHECK(c, CALL_MAGIC);
    return &c->conn->peer;
}

bool varlink_call_more(const struct varlink_call *c)
{
    HV_CHECK(c, CALL_MAGIC);
    return c->more;
}

bool varlink_call_upgrade(const struct varlink_call *c)
{
    HV_CHECK(c, CALL_MAGIC);
    return c->upgrade;
}

const char *varlink_call_method(const struct varlink_call *c)
{
    HV_CHECK(c, CALL_MAGIC);
    return c->name;
}

struct varlink_call *varlink_call_ref(struct varlink_call *c)
{
    HV_CHECK(c, CALL_MAGIC);
    c->refs++;
    return c;
}

void varlink_call_unref(struct varlink_call *c)
{
    if (!c) {
        return;
    }
    HV_CHECK(c, CALL_MAGIC);
    /* the connection holds one while the call is open: with only that left nobody will answer */
    if (c->refs == 2 && !c->done && c->conn->current == c) {
        c->refs--;
        struct hv_error e = { 0 };
        hv_fail(&e, HV_FAILED, NULL, "the service gave no answer to %s", c->name);
        varlink_reply_error(c, &e);
        return;
    }
    if (--c->refs > 0) {
        return;
    }
    struct server_conn *conn = c->conn;
    wire_msg_fini(&c->msg);
    free(c->name);
    c->magic = 0;
    free(c);
    server_conn_unref(conn);
}

void varlink_call_on_close(struct varlink_call *c, void (*fn)(void *arg), void *arg)
{
    HV_CHECK(c, CALL_MAGIC);
    c->on_close = c->done ? NULL : fn;
    c->on_close_arg = arg;
}

int varlink_call_take_fd(struct varlink_call *c, int index)
{
    HV_CHECK(c, CALL_MAGIC);
    if (index < 0 || (unsigned)index >= c->msg.nfds) {
        return -1;
    }
    return hv_steal_fd(c->msg.fds[index]);
}

size_t varlink_call_backlog(const struct varlink_call *c)
{
    HV_CHECK(c, CALL_MAGIC);
    return c->done ? 0 : c->conn->wire.backlog;
}

static const struct served_interface *find_interface(const struct varlink_server *s, const char *name, size_t len)
{
    for (unsigned i = 0; i < s->interface_count; i++) {
        const char *known = s->interfaces[i].idl->name;
        if (strlen(known) == len && memcmp(known, name, len) == 0) {
            return &s->interfaces[i];
        }
    }
    return NULL;
}

static int invalid_parameter(struct varlink_call *c, const char *name)
{
    return call_reply_error_named(c, "org.varlink.service.InvalidParameter", json_pack("{s:s}", "parameter", name));
}

/* The members around parameters: known names, right types, sensible together. NULL, or which one is wrong. */
static const char *read_envelope(struct varlink_call *c)
{
    const struct { const char *name; bool *flag; } flags[] = {
        { "more", &c->more }, { "oneway", &c->oneway }, { "upgrade", &c->upgrade },
    };
    const char *key;
    json_t *value;

    json_object_foreach(c->msg.json, key, value) {
        if (strcmp(key, "method") == 0 || strcmp(key, "parameters") == 0) {
            continue;
        }
        bool *flag = NULL;
        for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
            if (strcmp(key, flags[i].name) == 0) {
                flag = flags[i].flag;
            }
        }
        if (!flag || !json_is_boolean(value)) {
            return key;
        }
        *flag = json_is_true(value);
    }
    if (c->oneway && (c->more || c->upgrade)) {
        return "oneway";
    }
    return c->more && c->upgrade ? "more" : NULL;
}

/* Find interface and method; reply where there is none. False: replied. */
static bool find_method(struct varlink_call *c, const char *full)
{
    const char *dot = strrchr(full, '.');

    c->interface = dot ? find_interface(c->conn->server, full, (size_t)(dot - full)) : NULL;
    if (!c->interface) {
        json_t *name = json_stringn(full, dot ? (size_t)(dot - full) : strlen(full));
        call_reply_error_named(c, "org.varlink.service.InterfaceNotFound", json_pack("{s:o}", "interface", name));
        return false;
    }
    hv_strlcpy(c->name, dot + 1, strlen(dot + 1) + 1);
    const char *error = idl_find(c->interface->idl, IDL_DECL_METHOD, c->name)
                            ? "org.varlink.service.MethodNotImplemented"
                            : "org.varlink.service.MethodNotFound";
    for (const struct varlink_method *m = c->interface->methods; m->name; m++) {
        if (strcmp(m->name, c->name) == 0) {
            c->method = m;
            return true;
        }
    }
    call_reply_error_named(c, error, json_pack("{s:s}", "method", full));
    return false;
}

static void serve(struct varlink_call *c)
{
    const json_t *method = json_object_get(c->msg.json, "method");
    json_t *params = json_object_get(c->msg.json, "parameters");
    struct hv_error e = { 0 };

    const char *wrong = read_envelope(c);
    if (wrong || !json_is_string(method)) {
        invalid_parameter(c, wrong ? wrong : "method");
        return;
    }
    if (!find_method(c, json_string_value(method))) {
        return;
    }
    if (!params || json_is_null(params)) {
        params = json_object();
        if (!params || json_object_set_new(c->msg.json, "parameters", params) < 0) {
            server_conn_fail(c->conn, "out of memory");
            return;
        }
    }
    if (varlink_idl_check(c->interface->idl, c->name, false, params, &e) < 0) {
        log_debug("rpc", "%s: %s %s", c->name, e.object, e.message);
        invalid_parameter(c, e.object);
        return;
    }
    log_debug("rpc", "pid %d uid %u: %s", (int)c->conn->peer.pid, (unsigned)c->conn->peer.uid, c->name);
    c->method->fn(c->interface->arg, c, params);
}

int server_dispatch(struct server_conn *conn, struct wire_msg *msg)
{
    const char *full = json_string_value(json_object_get(msg->json, "method"));
    struct varlink_call *c = hv_alloc(sizeof(*c));
    char *name = hv_alloc(full ? strlen(full) + 1 : 1);

    if (!c || !name) {
        free(c);
        free(name);
        wire_msg_fini(msg);
        return -ENOMEM;
    }
    conn->refs++;
    *c = (struct varlink_call){ .magic = CALL_MAGIC, .refs = 2, .conn = conn, .msg = *msg, .name = name };
    conn->current = c;                    /* with one of the two references */
    serve(c);
    varlink_call_unref(c);
    return 1;
}
