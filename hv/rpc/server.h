/* Inside of the varlink server: what its files share. */
#ifndef HV_RPC_SERVER_H
#define HV_RPC_SERVER_H

#include "hv/rpc/idl.h"
#include "hv/rpc/wire.h"

#define SERVER_MAGIC 0x76736572u
#define CONN_MAGIC   0x76636f6eu
#define CALL_MAGIC   0x7663616cu

#define SERVER_MAX_CONNECTIONS   512u
#define SERVER_MAX_PER_UID       128u     /* one user cannot keep the others out; root is exempt */
#define SERVER_LARGE_AT_ONCE     4u                 /* large messages on their way: what strangers can have us hold */
#define SERVER_MESSAGE_TIME_NS   (30 * NS_PER_SEC)  /* from a message's first byte to its last */
#define SERVER_SWEEP_NS          (5 * NS_PER_SEC)
#define SERVER_MAX_PIPELINED     ((size_t)64 << 10) /* read ahead while a call is being served */
#define SERVER_BACKLOG_PAUSE     ((size_t)1 << 20)  /* no further call while so much is unsent */
#define SERVER_CALLS_PER_TURN    64u

struct served_interface {
    const struct varlink_method *methods;
    void *arg;
    struct varlink_idl *idl;
};

struct server_listener {
    struct varlink_server *server;
    int fd;
    struct loop_fd *watch;
    bool (*allow)(void *arg, const struct varlink_peer *p);
    void *arg;
    struct server_listener *next;
};

struct varlink_server {
    uint32_t magic;
    unsigned refs;                        /* the owner's and one a connection */
    struct loop *loop;                    /* NULL once the owner freed it */
    char *product;
    struct served_interface *interfaces;  /* the last one is org.varlink.service */
    unsigned interface_count;
    struct server_listener *listeners;
    struct loop_timer *sweep;             /* looks for messages that take too long, resumes accepting */
    bool sweeping, accept_paused;
    size_t max_message;
    unsigned large;                       /* connections that hold more than VARLINK_MAX_MESSAGE of one */
    uint64_t sweep_ns, message_ns;        /* SERVER_SWEEP_NS, SERVER_MESSAGE_TIME_NS; tests are less patient */
    struct server_conn *conns;
    unsigned conn_count;
    void (*on_idle)(void *arg);
    void *on_idle_arg;
};

struct server_conn {
    uint32_t magic;
    unsigned refs;                        /* the server's list and one a call */
    struct varlink_server *server;
    struct varlink_peer peer;
    struct wire wire;                     /* fds are -1 once closed */
    struct loop_fd *watch;
    struct loop_post work;                /* take further messages, or close a failed connection */
    struct varlink_call *current;         /* being served: calls of a connection are served in order */
    uint64_t partial_since_ns;            /* a message has begun and not ended; 0: none */
    bool large;                           /* counted in the server's */
    bool eof, failed, closed, working;
    struct server_conn *next, **prev;
};

struct varlink_call {
    uint32_t magic;
    unsigned refs;
    struct server_conn *conn;
    const struct served_interface *interface;
    const struct varlink_method *method;
    struct wire_msg msg;
    char *name;                           /* of the method, without the interface */
    bool more, oneway, upgrade;
    bool done;                            /* the last reply was given, or nobody waits for it */
    void (*on_close)(void *arg);
    void *on_close_arg;
};

/* server.c */
struct varlink_server *server_ref(struct varlink_server *s);
void server_unref(struct varlink_server *s);
/* Have the sweep timer run while a connection holds half a message. */
void server_sweep_soon(struct varlink_server *s);
/* The last connection may have gone. */
void server_conn_gone(struct varlink_server *s);

/* server_conn.c */
int server_conn_new(struct varlink_server *s, int fd, const struct varlink_peer *peer);
void server_conn_unref(struct server_conn *c);
void server_conn_close(struct server_conn *c);
/* The peer closed both directions, not only its writing half. */
bool server_conn_hung_up(const struct server_conn *c);
/* Close at the next turn of the loop: for use inside a handler's reply. */
void server_conn_fail(struct server_conn *c, const char *why);
/* The current call got its last reply. */
void server_conn_call_done(struct server_conn *c);
/* Unsent bytes or room for input changed. */
void server_conn_update(struct server_conn *c);
int server_peer_of(int fd, struct varlink_peer *ret);

/* call.c */
/* Serve one message (taken over). Replies with an error where it cannot be served. 0, or -errno: close. */
int server_dispatch(struct server_conn *c, struct wire_msg *msg);
/* A full error name with its parameters (steals). */
int call_reply_error_named(struct varlink_call *c, const char *error, json_t *parameters);

/* service.c: org.varlink.service */
extern const struct varlink_method varlink_service_methods[];
extern const char varlink_service_text[];

#endif
