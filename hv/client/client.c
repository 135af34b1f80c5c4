/* Which service, and how to reach it. */
#include "hv/client/client.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/paths.h"
#include "hv/client/client_impl.h"
#include "hv/client/hosts.h"
#include "hv/client/start.h"
#include "hv/rpc/varlink.h"

#define GROUP "hv"
#define MAX_GROUPS 256

static int wrap(struct varlink_client *v, const char *mode, const char *path, struct hv_client **ret,
                struct hv_error *e)
{
    struct hv_client *c = hv_alloc(sizeof(*c));

    if (!c) {
        varlink_client_free(v);
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    *c = (struct hv_client){ .magic = CLIENT_MAGIC, .varlink = v };
    hv_strlcpy(c->mode, mode, sizeof(c->mode));
    hv_strlcpy(c->path, path, sizeof(c->path));
    *ret = c;
    return 0;
}

static bool listed_in(const struct group *g, const char *user)
{
    for (char *const *m = g->gr_mem; *m; m++) {
        if (strcmp(*m, user) == 0) {
            return true;
        }
    }
    return false;
}

static bool in_session(gid_t gid)
{
    gid_t groups[MAX_GROUPS];
    int n = getgroups(MAX_GROUPS, groups);

    for (int i = 0; i < n; i++) {
        if (groups[i] == gid) {
            return true;
        }
    }
    return getegid() == gid;
}

/* Why the system's socket is closed to us, and what helps: joining the group, or logging in again. */
static int denied(struct hv_error *e)
{
    const struct group *g = getgrnam(GROUP);
    const struct passwd *pw = getpwuid(geteuid());
    int r;

    if (!g || in_session(g->gr_gid)) {
        return hv_fail(e, HV_DENIED, "system", "cannot connect: permission denied");
    }
    if (pw && listed_in(g, pw->pw_name)) {
        r = hv_fail(e, HV_DENIED, "system", "cannot connect: this session is older than your place in group " GROUP);
        hv_hint(e, "log in again");
        return r;
    }
    r = hv_fail(e, HV_DENIED, "system", "cannot connect: you are not in group " GROUP);
    hv_hint(e, "sudo adduser %s " GROUP ", then log in again", pw ? pw->pw_name : "YOU");
    return r;
}

static int connect_system(struct hv_client **ret, struct hv_error *e)
{
    struct varlink_client *v;
    struct hv_paths p;
    int r = hv_paths_init(HV_MODE_SYSTEM, &p, e);

    if (r == 0) {
        r = varlink_connect(p.socket, &v, e);
    }
    if (r == -EACCES) {
        return denied(e);
    }
    if (r == -ECONNREFUSED) {
        r = hv_fail(e, HV_UNREACHABLE, "system", "cannot connect: the service is not running");
        hv_hint(e, geteuid() == 0 ? "systemctl start hvd" : "sudo systemctl start hvd");
    }
    return r < 0 ? r : wrap(v, "system", p.socket, ret, e);
}

static int connect_user(unsigned flags, struct hv_client **ret, struct hv_error *e)
{
    struct varlink_client *v;
    struct hv_paths p;
    int r = hv_paths_init(HV_MODE_USER, &p, e);

    if (r < 0) {
        return r;
    }
    if (flags & CLIENT_NO_START) {
        r = varlink_connect(p.socket, &v, e);
        if (r == -ECONNREFUSED) {
            r = hv_fail(e, HV_UNREACHABLE, "user", "your own service is not running");
        }
    } else {
        r = start_and_connect(&p, &v, e);
    }
    if (r < 0) {
        return r;
    }
    /* the folder was checked; this catches a socket somebody else was let to bind in it */
    uid_t uid = varlink_client_peer(v).uid;
    if (uid != geteuid()) {
        varlink_client_free(v);
        return hv_fail(e, HV_DENIED, p.socket, "belongs to a service of uid %u", (unsigned)uid);
    }
    return wrap(v, "user", p.socket, ret, e);
}

static int connect_path(const char *path, struct hv_client **ret, struct hv_error *e)
{
    struct varlink_client *v;
    int r = varlink_connect(path, &v, e);

    return r < 0 ? r : wrap(v, "", path, ret, e);
}

static int connect_ssh(const char *url, unsigned flags, struct hv_client **ret, struct hv_error *e)
{
    struct varlink_client *v;
    struct ssh_link link;
    int r = ssh_connect(url, flags & (CLIENT_NO_START | CLIENT_NO_ASK), &v, &link, e);
    if (r < 0) {
        return r;
    }
    r = wrap(v, "", url, ret, e);
    if (r < 0) {
        ssh_close(&link);
        return r;
    }
    (*ret)->over_ssh = true;
    (*ret)->ssh = link;
    return 0;
}

/* What stands for a host, here or in the file of hosts, but for names. */
static int connect_address(const char *host, unsigned flags, struct hv_client **ret, struct hv_error *e)
{
    if (strcmp(host, "system") == 0) {
        return connect_system(ret, e);
    }
    if (strcmp(host, "user") == 0) {
        return connect_user(flags, ret, e);
    }
    return strncmp(host, "ssh://", 6) == 0 ? connect_ssh(host, flags, ret, e) : connect_path(host, ret, e);
}

static int connect_named(const char *host, unsigned flags, struct hv_client **ret, struct hv_error *e)
{
    char address[HOST_ADDRESS_MAX];
    if (strchr(host, '/') || strcmp(host, "system") == 0 || strcmp(host, "user") == 0) {
        return connect_address(host, flags, ret, e);
    }
    int r = client_host_find(host, address, e);
    return r < 0 ? r : connect_address(address, flags, ret, e);
}

int client_connect(const char *host, unsigned flags, struct hv_client **ret, struct hv_error *e)
{
    if (!host || !*host) {
        host = getenv("HV_HOST");
    }
    if (host && *host) {
        return connect_named(host, flags, ret, e);
    }
    /* no word from the caller: the system's where it is open to us, else our own */
    int r = connect_system(ret, NULL);
    return r == 0 ? 0 : connect_user(flags, ret, e);
}

void client_free(struct hv_client *c)
{
    if (c) {
        HV_CHECK(c, CLIENT_MAGIC);
        varlink_client_free(c->varlink);
        if (c->over_ssh) {
            ssh_close(&c->ssh);
        }
        c->magic = 0;
        free(c);
    }
}

const char *client_mode(const struct hv_client *c)
{
    HV_CHECK(c, CLIENT_MAGIC);
    return c->mode;
}

const char *client_path(const struct hv_client *c)
{
    HV_CHECK(c, CLIENT_MAGIC);
    return c->path;
}

struct varlink_client *client_varlink(struct hv_client *c)
{
    HV_CHECK(c, CLIENT_MAGIC);
    return c->varlink;
}

void client_set_cancel(struct hv_client *c, int fd)
{
    varlink_client_set_cancel(client_varlink(c), fd);
}
