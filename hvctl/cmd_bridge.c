/*
 * bridge: the far end of `-H ssh://HOST`. Stdin and stdout become the connection to the service that would be
 * used here; every byte goes through as it is, so a console's too.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/client/client.h"
#include "hv/rpc/varlink.h"
#include "hvctl/hvctl.h"

#define CHUNK ((size_t)64 << 10)

/* One direction. */
struct flow {
    int from, to;
    size_t at, len;             /* what of buf is still to be written */
    bool end;                   /* from has ended */
    char buf[CHUNK];
};

static bool would_block(ssize_t n) { return n < 0 && (errno == EAGAIN || errno == EINTR); }

/* Read when empty, write what there is. 0 or -errno. */
static int move(struct flow *f)
{
    if (!f->len && !f->end) {
        ssize_t n = read(f->from, f->buf, sizeof(f->buf));
        if (n < 0 && !would_block(n)) {
            return -errno;
        }
        f->end = n == 0;
        f->len = n > 0 ? (size_t)n : 0;
        f->at = 0;
    }
    if (f->len) {
        ssize_t n = write(f->to, f->buf + f->at, f->len);
        if (n < 0 && !would_block(n)) {
            return -errno;
        }
        f->at += n > 0 ? (size_t)n : 0;
        f->len -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Until the service closes, or nobody listens any more. */
static int run(int sock, struct hv_error *e)
{
    static struct flow out, in;
    in = (struct flow){.from = STDIN_FILENO, .to = sock};
    out = (struct flow){.from = sock, .to = STDOUT_FILENO};
    bool shut = false;
    while (!out.end || out.len) {
        struct pollfd p[] = {
            {.fd = in.end || in.len ? -1 : in.from, .events = POLLIN}, {.fd = in.len ? in.to : -1, .events = POLLOUT},
            {.fd = out.end || out.len ? -1 : out.from, .events = POLLIN}, {.fd = out.len ? out.to : -1, .events = POLLOUT},
        };
        if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR) {
            return hv_fail_errno(e, errno, NULL, "cannot wait");
        }
        if ((p[0].revents || p[1].revents) && move(&in) < 0) {
            in.end = true;                      /* the service closed; what it said before that is still to come */
            in.len = 0;
        }
        if (in.end && !in.len && !shut) {
            shut = true;
            shutdown(sock, SHUT_WR);
        }
        if (p[2].revents || p[3].revents) {
            int r = move(&out);
            if (r == -EPIPE || r == -ECONNRESET) {
                return 0;
            }
            if (r < 0) {
                return hv_fail_errno(e, -r, NULL, "the connection broke");
            }
        }
    }
    return 0;
}

static int bridge(struct cli_call *c, struct hv_error *e)
{
    struct hv_client *client;
    int r = client_connect(c->host, CLIENT_NO_ASK, &client, e);
    if (r < 0) {
        return r;
    }
    int sock = varlink_client_fd(client_varlink(client));
    static const int own[] = {STDIN_FILENO, STDOUT_FILENO};
    for (unsigned i = 0; i < ARRAY_SIZE(own); i++) {
        int flags = fcntl(own[i], F_GETFL);
        if (flags < 0 || fcntl(own[i], F_SETFL, flags | O_NONBLOCK) < 0) {
            client_free(client);
            return hv_fail_errno(e, errno, NULL, "stdin and stdout have to be open");
        }
    }
    int flags = fcntl(sock, F_GETFL);
    fcntl(sock, F_SETFL, flags | O_NONBLOCK);
    signal(SIGPIPE, SIG_IGN);
    r = run(sock, e);
    client_free(client);
    return r;
}

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command bridge_commands[] = {
    {.noun = "bridge", .help = "join stdin and stdout to the service; what -H ssh:// runs at the far end",
     .run = bridge, .examples = EXAMPLES({"ssh vmhost1 hvctl bridge", "what -H ssh://vmhost1 does; speaks varlink"})},
    {0},
};
