/* Names of hosts: $XDG_CONFIG_HOME/hv/hosts, hv-hosts(5). */
#ifndef HV_CLIENT_HOSTS_H
#define HV_CLIENT_HOSTS_H

#include "hv/base/error.h"

#define HOST_ADDRESS_MAX 600

struct host_line { const char *name, *address, *groups; };     /* groups: "@a @b", or "" */

/*
 * fn for each line of the file, in its order; the strings live as long as the call. A file that is not
 * there has none. A non-zero return of fn ends it and is returned. HV_USAGE with the line that is wrong.
 */
int client_hosts_each(int (*fn)(void *arg, const struct host_line *h), void *arg, struct hv_error *e);

/* The address of a name. 0, HV_NOT_FOUND with near ones. */
int client_host_find(const char *name, char address[HOST_ADDRESS_MAX], struct hv_error *e);

/* Is this host another machine: an ssh:// address, or a name of the file? */
bool client_host_is_remote(const char *host);

#endif
