/*
 * A connection through ssh. One process of ssh carries one connection:
 *
 *   varlink client <- socket pair -> ssh ........ sshd - hvctl bridge <- socket -> hvd
 *
 * Options, keys, jumps and multiplexing are ssh's own affair (ssh_config). It may ask for a
 * password: that goes to the terminal, not through here. What it says on stderr goes to a file in memory, and the
 * last of it is the reason when a connection fails; a failed bridge leaves its error there as JSON.
 */
#include "hv/client/ssh.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/rpc/varlink.h"

#define SCHEME "ssh://"
#define CONNECT_OPTION "ConnectTimeout=15"
#define ALIVE_OPTION   "ServerAliveInterval=15"    /* a host that is gone is noticed, however long a call waits */
#define HELLO_NS (120 * NS_PER_SEC)     /* somebody may be typing a password */
#define END_MS 2000                     /* ssh that lost its peer ends by itself, and says why */
#define SAID_MAX 4096

extern char **environ;

/* ---- the address ---- */

/* What names are made of; nothing that begins an option or means something to a shell. */
static bool is_name(const char *s)
{
    if (!*s || *s == '-') {
        return false;
    }
    for (; *s; s++) {
        if (!isalnum((unsigned char)*s) && !strchr("._-:%+=,", *s)) {
            return false;
        }
    }
    return true;
}

static bool copy(char *dst, const char *from, size_t len, size_t size)
{
    if (len >= size) {
        return false;
    }
    memcpy(dst, from, len);
    dst[len] = '\0';
    return true;
}

int ssh_address_parse(const char *url, struct ssh_address *ret, struct hv_error *e)
{
    const char *rest = url + strlen(SCHEME), *at = strrchr(rest, '@'), *host = at ? at + 1 : rest, *end, *port = NULL;
    struct ssh_address a = {0};
    bool ok = true;

    if (at) {
        ok = copy(a.user, rest, (size_t)(at - rest), sizeof(a.user)) && is_name(a.user);
    }
    if (*host == '[') {
        host++;
        end = strchr(host, ']');
        ok = ok && end;
        port = end && end[1] ? end + 1 : NULL;
        ok = ok && (!port || *port == ':');
    } else {
        const char *colon = strchr(host, ':');
        port = colon && !strchr(colon + 1, ':') ? colon : NULL;         /* several: an IPv6 address */
        end = port ? port : host + strlen(host);
    }
    ok = ok && copy(a.host, host, (size_t)(end - host), sizeof(a.host)) && is_name(a.host);
    if (ok && port) {
        ok = copy(a.port, port + 1, strlen(port + 1), sizeof(a.port)) && a.port[0] &&
             strspn(a.port, "0123456789") == strlen(a.port);
    }
    if (!ok) {
        int r = hv_fail(e, HV_USAGE, url, "not the address of a host");
        hv_hint(e, SCHEME "[USER@]HOST[:PORT]");
        return r;
    }
    *ret = a;
    return 0;
}

/* ---- the process ---- */

static int spawn(struct ssh_link *l, bool batch, int fd)
{
    const char *argv[] = {"ssh", "-T", "-a", "-x", "-o", CONNECT_OPTION, "-o", ALIVE_OPTION, "-o", "BatchMode=yes",
                          NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, defaults;
    int n = 10;

    if (!batch) {
        n -= 2;                         /* as ssh_config has it */
    }
    if (l->to.user[0]) {
        argv[n++] = "-l";
        argv[n++] = l->to.user;
    }
    if (l->to.port[0]) {
        argv[n++] = "-p";
        argv[n++] = l->to.port;
    }
    argv[n++] = "--";
    argv[n++] = l->to.host;
    argv[n++] = "hvctl bridge -o json";
    argv[n] = NULL;

    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, fd, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, fd, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, l->err_fd, STDERR_FILENO);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int err = posix_spawnp(&l->pid, "ssh", &files, &attr, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return -err;
}

/* Its exit status as wait has it, killed if it does not end in time. */
static int reap(struct ssh_link *l, int limit_ms)
{
    int status = 0;
    if (l->pid <= 0) {
        return 0;
    }
    if (limit_ms) {
        hv_autoclose int fd = (int)syscall(SYS_pidfd_open, l->pid, 0);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        while (fd >= 0 && poll(&p, 1, limit_ms) < 0 && errno == EINTR) {}
    }
    if (waitpid(l->pid, &status, WNOHANG) != l->pid) {
        kill(l->pid, SIGTERM);
        while (waitpid(l->pid, &status, 0) < 0 && errno == EINTR) {}
    }
    l->pid = 0;
    return status;
}

void ssh_close(struct ssh_link *l)
{
    reap(l, 0);
    if (l->err_fd >= 0) {
        close(l->err_fd);
        l->err_fd = -1;
    }
}

/* ---- why it failed ---- */

/* The last lines it wrote, in buf[SAID_MAX]. */
static char *said(const struct ssh_link *l, char *buf)
{
    off_t size = l->err_fd >= 0 ? lseek(l->err_fd, 0, SEEK_END) : 0;
    ssize_t n = size > 0 ? pread(l->err_fd, buf, SAID_MAX - 1, MAX(size - (SAID_MAX - 1), 0)) : 0;
    buf[MAX(n, 0)] = '\0';
    return buf;
}

/* The last line that says something, cut off from buf; NULL: there is none. */
static char *last_line(char *buf)
{
    for (;;) {
        size_t len = strlen(buf);
        while (len && isspace((unsigned char)buf[len - 1])) {
            buf[--len] = '\0';
        }
        char *nl = strrchr(buf, '\n'), *line = nl ? nl + 1 : buf;
        if (!*line) {
            return NULL;
        }
        if (nl) {
            *nl = '\0';
        }
        /* "Connection closed" is behind every failure of a login; the reason stands before it. */
        bool closing = strncmp(line, "Connection to ", 14) == 0 && nl;
        if (!closing) {
            return line;
        }
    }
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* A line the bridge wrote: its error, ours from now on. */
static bool far_error(const struct ssh_link *l, const char *line, struct hv_error *e)
{
    json_t *j = json_loads(line, 0, NULL);
    const json_t *error = json_object_get(j, "error");
    bool r = json_is_object(error);
    if (r) {
        enum hv_code code = hv_code_from_word(text(error, "code"));
        const char *object = text(error, "object");
        hv_fail(e, code == HV_OK ? HV_FAILED : code, l->url, "%s%s%s", object, *object ? ": " : "", text(error, "message"));
        if (*text(error, "hint")) {
            hv_hint(e, "there: %s", text(error, "hint"));
        }
    }
    json_decref(j);
    return r;
}

void ssh_explain(struct ssh_link *l, struct hv_error *e)
{
    char buf[SAID_MAX];
    const char *at = l->to.user[0] ? "@" : "";
    int status = reap(l, END_MS);
    char *line = last_line(said(l, buf));

    if (!e || (line && line[0] == '{' && far_error(l, line, e))) {
        return;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        hv_fail(e, HV_UNREACHABLE, l->url, "hvctl is not installed there, or not where ssh finds it");
        hv_hint(e, "ssh %s%s%s hvctl --version", l->to.user, at, l->to.host);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == 255 && line) {
        bool denied = strstr(line, "Permission denied") || strstr(line, "Too many authentication failures");
        hv_fail(e, denied ? HV_DENIED : HV_UNREACHABLE, l->url, "cannot connect: %s",
                strncmp(line, "ssh: ", 5) == 0 ? line + 5 : line);
        hv_hint(e, "ssh %s%s%s hvctl --version", l->to.user, at, l->to.host);
    } else if (line) {
        hv_fail(e, HV_UNREACHABLE, l->url, "the connection is lost: %s", line);
    } else {
        char why[sizeof(e->message)];
        hv_strlcpy(why, e->message, sizeof(why));
        hv_fail(e, HV_UNREACHABLE, l->url, "%s", why);
        hv_hint(e, "'ssh %s%s%s true' must work and print nothing", l->to.user, at, l->to.host);
    }
}

int ssh_connect(const char *url, bool batch, struct varlink_client **ret_client, struct ssh_link *ret_link,
                struct hv_error *e)
{
    struct ssh_link l = {.err_fd = -1};
    struct varlink_client *v = NULL;
    struct hv_error why = {0};
    int pair[2], r = ssh_address_parse(url, &l.to, e);
    if (r < 0) {
        return r;
    }
    hv_strlcpy(l.url, url, sizeof(l.url));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return hv_fail_errno(e, errno, url, "cannot connect");
    }
    l.err_fd = memfd_create("ssh-said", MFD_CLOEXEC);
    r = l.err_fd < 0 ? -errno : spawn(&l, batch, pair[1]);
    close(pair[1]);
    if (r < 0) {
        close(pair[0]);
        ssh_close(&l);
        if (r == -ENOENT) {
            r = hv_fail(e, HV_UNSUPPORTED, url, "there is no ssh here");
            hv_hint(e, "apt install openssh-client");
            return r;
        }
        return hv_fail_errno(e, -r, url, "cannot run ssh");
    }
    r = varlink_client_new(pair[0], pair[0], &v);
    if (r < 0) {
        close(pair[0]);
        ssh_close(&l);
        return hv_fail_errno(e, -r, url, "cannot connect");
    }
    r = varlink_call(v, "org.hv.Manager.GetInfo", NULL, HELLO_NS, NULL, &why);
    if (r < 0) {
        varlink_client_free(v);
        ssh_explain(&l, &why);
        ssh_close(&l);
        if (e) {
            *e = why;
        }
        return -ECONNREFUSED;
    }
    *ret_client = v;
    *ret_link = l;
    return 0;
}
