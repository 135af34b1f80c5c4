/*
 * Varlink (varlink.org): the API of the service and of each worker. JSON objects, each
 * ended by a NUL byte, over a Unix socket; introspectable (org.varlink.service),
 * `more`/`continues` streams, `oneway`, `upgrade`, and descriptors beside a message.
 *
 * Server side: a table of methods per interface; parameters are checked against the
 * interface text before the handler sees them. A handler answers now, or keeps the
 * call and answers later. Everything runs on the loop's thread. jansson types are part
 * of this interface; `json_t *` parameters marked (steals) take over the reference.
 */
#ifndef HV_RPC_VARLINK_H
#define HV_RPC_VARLINK_H

#include <jansson.h>
#include <sys/types.h>

#include "hv/base/error.h"
#include "hv/base/loop.h"

#define VARLINK_MAX_MESSAGE ((size_t)4 << 20)   /* one message; larger ones close the connection */
#define VARLINK_LARGE_MESSAGE ((size_t)24 << 20) /* the same for clients, and for servers that take documents */
#define VARLINK_MAX_FDS 32

struct varlink_server;
struct varlink_call;      /* one call being served; reference counted */

struct varlink_peer { uid_t uid; gid_t gid; pid_t pid; };

struct varlink_method {
    const char *name;     /* without the interface */
    /* Answer with varlink_reply/_error now, or varlink_call_ref() and answer later. params is borrowed. */
    void (*fn)(void *arg, struct varlink_call *call, const json_t *params);
};
struct varlink_interface {
    const char *text;                          /* the .varlink file */
    const struct varlink_method *methods;      /* ends with {0} */
    void *arg;
};

/* vendor, product, version, url for GetInfo. Interfaces are parsed here: a bad text is our bug. */
int varlink_server_new(struct loop *loop, const char *product, const struct varlink_interface *const *ifaces,
                       unsigned count, struct varlink_server **ret);
void varlink_server_free(struct varlink_server *s);
/* Accept on a listening socket (ours from now on). allow (may be NULL): refuse a peer by returning false. */
int varlink_server_listen(struct varlink_server *s, int fd, bool (*allow)(void *arg, const struct varlink_peer *p), void *arg);
/* Serve one connected socket (ours from now on). */
int varlink_server_add(struct varlink_server *s, int fd);
/* Take messages of up to VARLINK_LARGE_MESSAGE on connections to come. */
void varlink_server_large_messages(struct varlink_server *s);
unsigned varlink_server_connections(const struct varlink_server *s);
/* Called when the last connection closed (start-on-demand services that want to idle out); NULL: none. */
void varlink_server_on_idle(struct varlink_server *s, void (*fn)(void *arg), void *arg);

const struct varlink_peer *varlink_call_peer(const struct varlink_call *c);
bool varlink_call_more(const struct varlink_call *c);
bool varlink_call_upgrade(const struct varlink_call *c);
struct varlink_call *varlink_call_ref(struct varlink_call *c);
void varlink_call_unref(struct varlink_call *c);
/* Told when the client went away before the last reply (streams); replies are then dropped silently. */
void varlink_call_on_close(struct varlink_call *c, void (*fn)(void *arg), void *arg);
/* The i-th descriptor that came with this call, taken over by the caller; -1 if there is none. */
int varlink_call_take_fd(struct varlink_call *c, int index);
/* Bytes queued to this client and not yet sent: streams hold back when it grows. */
size_t varlink_call_backlog(const struct varlink_call *c);
/* The call's method, without the interface; lives as long as the call. */
const char *varlink_call_method(const struct varlink_call *c);

/* parameters (steals). continues: more replies follow (only if varlink_call_more). */
int varlink_reply(struct varlink_call *c, json_t *parameters, bool continues);
/* The same with descriptors beside it: fds[nfds] are duplicated, and stay the caller's. */
int varlink_reply_fds(struct varlink_call *c, json_t *parameters, bool continues, const int *fds, unsigned nfds);
/* The error Failed of the call's interface, from e; "" where e has nothing. */
int varlink_reply_error(struct varlink_call *c, const struct hv_error *e);
/* After an upgrade call: reply, flush, then hand out the raw socket (blocking mode off). The connection
 * no longer belongs to the server. extra/extra_len: bytes the client already sent (malloc'ed). */
int varlink_reply_upgrade(struct varlink_call *c, json_t *parameters, int *ret_fd, void **ret_extra, size_t *ret_extra_len);

/* ---- client: blocking, for tools ---- */
struct varlink_client;

/* path: a Unix socket. */
int varlink_connect(const char *path, struct varlink_client **ret, struct hv_error *e);
/* Over an already connected stream (ssh bridge, tests); rfd may equal wfd; both ours from now on. */
int varlink_client_new(int rfd, int wfd, struct varlink_client **ret);
void varlink_client_free(struct varlink_client *c);
int varlink_client_fd(const struct varlink_client *c);
/* While cancel_fd (a self-pipe, an eventfd; the caller's) is readable, calls that wait return -EINTR
 * with HV_FAILED "interrupted". -1: none. The connection cannot be used after an interrupted call. */
void varlink_client_set_cancel(struct varlink_client *c, int cancel_fd);
/* What the peer may be: uid -1 if it is no Unix socket. */
struct varlink_peer varlink_client_peer(const struct varlink_client *c);

/* One call, one reply. params (steals, NULL = {}). *ret: the reply's parameters, caller's reference.
 * A Failed error of the service comes back as e and its negative errno; a lost connection as HV_UNREACHABLE.
 * timeout_ns 0: wait for ever. Replies of interfaces built in here are checked against their text (members
 * that a newer service added pass). After a timeout, or a stream that fn ended, the connection is used up:
 * further calls answer HV_UNREACHABLE. */
int varlink_call(struct varlink_client *c, const char *method, json_t *params, uint64_t timeout_ns, json_t **ret,
                 struct hv_error *e);
int varlink_call_fds(struct varlink_client *c, const char *method, json_t *params, const int *fds, unsigned nfds,
                     uint64_t timeout_ns, json_t **ret, struct hv_error *e);   /* fds are duplicated */
/* The i-th descriptor that came with the last reply, the caller's from now on; -1 if there is none. */
int varlink_client_take_fd(struct varlink_client *c, int index);
/* A `more` call: fn for each reply until continues is false (returns 0) or fn returns non-zero (returned).
 * timeout_ns bounds the whole stream. params of fn are borrowed. */
int varlink_call_stream(struct varlink_client *c, const char *method, json_t *params, uint64_t timeout_ns,
                        int (*fn)(void *arg, json_t *params, bool continues), void *arg, struct hv_error *e);
/* An `upgrade` call; on 0 *ret_fd is the socket (non-blocking, the caller's; c can only be freed then) and
 * carries raw bytes. What had arrived after the reply is in *ret_extra (malloc'ed, *ret_extra_len bytes). */
int varlink_call_upgraded(struct varlink_client *c, const char *method, json_t *params, uint64_t timeout_ns,
                          json_t **ret, int *ret_fd, void **ret_extra, size_t *ret_extra_len, struct hv_error *e);
/* A `oneway` call: sent, never answered. */
int varlink_call_oneway(struct varlink_client *c, const char *method, json_t *params, struct hv_error *e);

/* ---- client: on the loop, for hvd towards its workers ---- */
struct varlink_conn;
typedef void varlink_reply_fn(void *arg, json_t *params, bool continues, const struct hv_error *e);  /* e NULL: fine */

/* on_close is called once, after the pending calls had their HV_UNREACHABLE; free the connection there or later. */
int varlink_conn_new(struct loop *loop, int fd, void (*on_close)(void *arg), void *arg, struct varlink_conn **ret);
/* Closes; pending calls are forgotten, nothing is called any more. Fine inside callbacks. */
void varlink_conn_free(struct varlink_conn *c);
/* The peer is known to be gone: take what it said before that, tell all pending calls HV_UNREACHABLE, free. on_close is
 * not called. Not inside a callback of this connection. */
void varlink_conn_finish(struct varlink_conn *c);
/* Inside a reply callback: the i-th descriptor that came with it, the caller's from now on; -1 if none. */
int varlink_conn_take_fd(struct varlink_conn *c, int index);
/* params (steals). fds[nfds] are duplicated. Replies come in order; on loss every pending call gets
 * HV_UNREACHABLE. params of fn are borrowed. fn is not called from within this function; on an error
 * returned here not at all. Replies are checked as with varlink_call. */
int varlink_conn_call(struct varlink_conn *c, const char *method, json_t *params, bool more, const int *fds, unsigned nfds,
                      varlink_reply_fn *fn, void *arg);

/* ---- interface texts ---- */
struct varlink_idl;
int varlink_idl_parse(const char *text, struct varlink_idl **ret, struct hv_error *e);
void varlink_idl_free(struct varlink_idl *i);
/* Does obj fit the input (or output) of the method ("List" or "org.hv.Manager.List"): names, types, required
 * members; unknown members refused. -EINVAL with the member's path as e's object; -ENOENT: no such method. */
int varlink_idl_check(const struct varlink_idl *i, const char *method, bool output, const json_t *obj, struct hv_error *e);

extern const char org_hv_Manager_varlink[];   /* the files' texts, built in */
extern const char org_hv_Worker_varlink[];

#endif
