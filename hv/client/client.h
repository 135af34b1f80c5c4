/*
 * libhv: what every tool does with the management service: find it, connect (starting
 * the caller's own if need be), call, follow jobs, open consoles. Blocking; one
 * connection serves one thread at a time.
 *
 * Which service (specs/operator-surface, "Which service"):
 *
 *   NULL          $HV_HOST if set, else the system's if the caller may connect to it,
 *                 else the caller's own, started on demand
 *   "system"      /run/hv/org.hv.Manager
 *   "user"        the caller's own (hv/base/paths.h says where), started on demand
 *   a path        that socket
 *   "ssh://..."   [user@]host[:port]: ssh there, `hvctl bridge` at its far end
 *   a name        of $XDG_CONFIG_HOME/hv/hosts: what stands there (hosts.h)
 */
#ifndef HV_CLIENT_CLIENT_H
#define HV_CLIENT_CLIENT_H

#include <jansson.h>

#include "hv/base/error.h"

struct varlink_client;
struct hv_client;

enum {
    CLIENT_NO_START = 1,     /* do not start the caller's own service: HV_UNREACHABLE instead */
    CLIENT_NO_ASK = 2,       /* ssh must not ask for a password */
};

/*
 * Connect to the service that host names. Errors: HV_DENIED (with what to do about the
 * group), HV_UNREACHABLE, HV_UNSUPPORTED (no ssh), HV_NOT_FOUND (no such name). Through
 * ssh it also says why ssh failed, or the error of the far end.
 */
int client_connect(const char *host, unsigned flags, struct hv_client **ret, struct hv_error *e);
void client_free(struct hv_client *c);

/* "system" or "user": whose service it is; "" for a path. */
const char *client_mode(const struct hv_client *c);
/* The socket it is connected to. */
const char *client_path(const struct hv_client *c);
/* The connection itself, for calls beyond those below; stays the client's. */
struct varlink_client *client_varlink(struct hv_client *c);
/* While fd (a self-pipe; the caller's) is readable, waiting calls return -EINTR; -1: none. */
void client_set_cancel(struct hv_client *c, int fd);

/*
 * One call of org.hv.Manager; method without the interface. params (steals, NULL: {}),
 * also on failure. *ret (may be NULL): the reply, the caller's reference. timeout_ns 0:
 * for ever. After HV_TIMEOUT, HV_UNREACHABLE or -EINTR the connection is used up.
 */
int client_call(struct hv_client *c, const char *method, json_t *params, uint64_t timeout_ns, json_t **ret,
                struct hv_error *e);

/*
 * A streaming call: fn for each reply (borrowed) until the last one (0) or until fn
 * returns non-zero (returned; the connection is then used up unless it was the last).
 */
int client_stream(struct hv_client *c, const char *method, json_t *params, uint64_t timeout_ns,
                  int (*fn)(void *arg, json_t *reply, bool continues), void *arg, struct hv_error *e);

/*
 * Follow a job to its end. job: the number, or 0 for a reply whose job was null (0 at
 * once). progress (may be NULL) sees each change, the last one too (borrowed). A failed
 * job's error becomes e and its errno. HV_TIMEOUT: the job goes on, e says its number.
 */
int client_wait_job(struct hv_client *c, int64_t job, uint64_t timeout_ns,
                    void (*progress)(void *arg, const json_t *job), void *arg, struct hv_error *e);
/* The number in a reply {"job": {"id": n, ...}}; 0 where job is null or absent. */
int64_t client_job_of(const json_t *reply);

/*
 * Wait until cond ("running", "console:login:") holds for a VM. progress (may be NULL)
 * sees the VM's state as it changes. HV_TIMEOUT when timeout_ns passed.
 */
int client_wait(struct hv_client *c, const char *name, const char *cond, uint64_t timeout_ns,
                void (*progress)(void *arg, const char *state), void *arg, struct hv_error *e);

struct client_console {
    int fd;                  /* raw bytes both ways, non-blocking; the caller's */
    void *extra;             /* what had arrived already, extra_len bytes; free() */
    size_t extra_len;
    char writer[160];        /* who else writes, "" for nobody (then we do, unless read_only) */
};
enum { CLIENT_CONSOLE_READ_ONLY = 1, CLIENT_CONSOLE_TAKE_OVER = 2, CLIENT_CONSOLE_HISTORY = 4 };

/* Turn the connection into the console of a VM; on 0 the client can only be freed. */
int client_console(struct hv_client *c, const char *name, unsigned flags, struct client_console *ret,
                   struct hv_error *e);

#endif
