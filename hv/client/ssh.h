/* A service on another host: ssh, with `hvctl bridge` at its far end. */
#ifndef HV_CLIENT_SSH_H
#define HV_CLIENT_SSH_H

#include <sys/types.h>

#include "hv/base/error.h"

#define SSH_NAME_MAX 256

struct varlink_client;

/* ssh://[user@]host[:port], host perhaps in brackets, taken apart. */
struct ssh_address { char user[SSH_NAME_MAX], host[SSH_NAME_MAX], port[8]; };

/* 0, or HV_USAGE: no host, or what ssh or a shell could take for something else. */
int ssh_address_parse(const char *url, struct ssh_address *ret, struct hv_error *e);

/* The ssh that carries a connection. */
struct ssh_link {
    char url[2 * SSH_NAME_MAX + 16];
    struct ssh_address to;
    pid_t pid;
    int err_fd;                 /* a file with what it wrote to stderr */
};

/*
 * Start ssh and make sure that a service answers behind it. batch: it must not ask for anything; otherwise
 * it may ask for a password on the terminal. On 0 ret_client and ret_link are the caller's. Errors: as
 * ssh_explain(); HV_UNSUPPORTED where there is no ssh.
 */
int ssh_connect(const char *url, bool batch, struct varlink_client **ret_client, struct ssh_link *ret_link,
                struct hv_error *e);

/*
 * The connection is lost, as e says: put the reason over it, if ssh or the bridge said one. Ends ssh. The far
 * end's own error keeps its code; HV_DENIED: not let in; HV_UNREACHABLE: the rest.
 */
void ssh_explain(struct ssh_link *l, struct hv_error *e);

/* End ssh, if it has not ended; its connection should be closed by then. */
void ssh_close(struct ssh_link *l);

#endif
