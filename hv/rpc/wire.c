/*
 * Framing, descriptor passing and limits of wire.h.
 *
 * Which message a descriptor belongs to: the kernel ends a read with the buffer that
 * carried SCM_RIGHTS (unix(7), "Ancillary messages"; net/unix/af_unix.c), but may put
 * earlier plain bytes before it. A sender puts descriptors on the first byte of a
 * message and nothing else into that sendmsg. So they belong to the message that
 * holds the last byte of the read they came with.
 */
#include "hv/rpc/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_CHUNK ((size_t)64 << 10)
#define SCM_MAX    253                 /* the kernel's own limit a message, SCM_MAX_FD */

struct wire_out {
    struct wire_out *next;
    size_t len, sent;
    unsigned nfds;
    int fds[VARLINK_MAX_FDS];
    char data[];
};

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static void close_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        close(fds[i]);
    }
}

int wire_init(struct wire *w, int rfd, int wfd)
{
    int type;
    socklen_t len = sizeof(type);

    *w = (struct wire){ .rfd = rfd, .wfd = wfd, .max_message = VARLINK_MAX_MESSAGE };
    w->out_last = &w->out_first;
    w->is_socket = getsockopt(wfd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
                   getsockopt(rfd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
    int r = set_nonblocking(rfd);
    if (r == 0) {
        r = set_nonblocking(wfd);
    }
    if (r < 0) {
        wire_fini(w);
    }
    return r;
}

static void free_out(struct wire_out *o)
{
    close_all(o->fds, o->nfds);
    free(o);
}

void wire_drop_output(struct wire *w)
{
    for (struct wire_out *o = w->out_first, *next; o; o = next) {
        next = o->next;
        free_out(o);
    }
    w->out_first = NULL;
    w->out_last = &w->out_first;
    w->backlog = 0;
}

void wire_fini(struct wire *w)
{
    wire_drop_output(w);
    for (unsigned i = 0; i < w->held_count; i++) {
        close(w->held[i].fd);
    }
    free(w->in);
    if (w->rfd >= 0) {
        close(w->rfd);
    }
    if (w->wfd >= 0 && w->wfd != w->rfd) {
        close(w->wfd);
    }
    *w = (struct wire){ .rfd = -1, .wfd = -1 };
    w->out_last = &w->out_first;
}

size_t wire_pending(const struct wire *w)
{
    return w->in_len - w->in_off;
}

/* Room for a chunk at the end: move what is left to the front first, then grow. */
static int make_room(struct wire *w)
{
    if (w->in_cap - w->in_len >= READ_CHUNK) {
        return 0;
    }
    if (w->in_off) {
        memmove(w->in, w->in + w->in_off, w->in_len - w->in_off);
        w->in_base += w->in_off;
        w->in_len -= w->in_off;
        w->in_scanned -= w->in_off;
        w->in_off = 0;
    }
    if (w->in_cap - w->in_len < READ_CHUNK) {
        size_t cap = MAX(w->in_cap * 2, w->in_len + READ_CHUNK);
        char *p = hv_realloc_array(w->in, cap, 1);
        if (!p) {
            return -ENOMEM;
        }
        w->in = p;
        w->in_cap = cap;
    }
    return 0;
}

/* Keep the descriptors of one read. All are closed on failure; none may leak whatever the peer sends. */
static int hold_fds(struct wire *w, const struct msghdr *mh, uint64_t last)
{
    int r = mh->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR((struct msghdr *)mh, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (r < 0 || w->held_count == WIRE_MAX_FDS_HELD) {
                close(fd);
                r = -EPROTO;
                continue;
            }
            w->held[w->held_count].fd = fd;
            w->held[w->held_count++].pos = last;
        }
    }
    return r;
}

static ssize_t receive(struct wire *w, char *buf, size_t len, struct msghdr *mh, void *control, size_t control_len)
{
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    ssize_t n;

    *mh = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = control_len };
    do {
        if (w->is_socket) {
            n = recvmsg(w->rfd, mh, MSG_CMSG_CLOEXEC);
        } else {
            mh->msg_controllen = 0;
            n = read(w->rfd, buf, len);
        }
    } while (n < 0 && errno == EINTR);
    return n;
}

int wire_fill(struct wire *w)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * SCM_MAX)];
    } control;
    struct msghdr mh;

    /* complete messages may wait behind the first; without a NUL it is one that grows too large */
    if (wire_pending(w) > w->max_message) {
        return -EMSGSIZE;
    }
    int r = make_room(w);
    if (r < 0) {
        return r;
    }
    ssize_t n = receive(w, w->in + w->in_len, READ_CHUNK, &mh, &control, sizeof(control));
    if (n < 0) {
        return -errno;
    }
    if (mh.msg_controllen) {
        r = hold_fds(w, &mh, w->in_base + w->in_len + (uint64_t)MAX(n, 1) - 1);
    }
    w->in_len += (size_t)n;
    return r < 0 ? r : n > 0;
}

/*
 * Depth and number of values, without parsing: brackets and commas outside strings.
 * Anything malformed passes; the parser finds it.
 */
static bool within_limits(const char *p, size_t len)
{
    unsigned depth = 0, values = 1;
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        char c = p[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
            continue;
        }
        switch (c) {
        case '"': in_string = true; break;
        case '[':
        case '{': depth++; values++; break;
        case ']':
        case '}': depth -= depth > 0; break;
        case ',': values++; break;
        default: break;
        }
        if (depth > VARLINK_MAX_DEPTH || values > VARLINK_MAX_VALUES) {
            return false;
        }
    }
    return true;
}

/* Moves the descriptors that came with bytes before `end` into m. They are in order of arrival. */
static int take_fds(struct wire *w, uint64_t end, struct wire_msg *m)
{
    unsigned n = 0;
    int r = 0;

    while (n < w->held_count && w->held[n].pos < end) {
        if (m->nfds < VARLINK_MAX_FDS) {
            m->fds[m->nfds++] = w->held[n].fd;
        } else {
            close(w->held[n].fd);
            r = -EPROTO;
        }
        n++;
    }
    w->held_count -= n;
    memmove(w->held, w->held + n, w->held_count * sizeof(w->held[0]));
    return r;
}

int wire_next(struct wire *w, struct wire_msg *ret)
{
    struct wire_msg m = { 0 };
    char *start = w->in + w->in_off, *nul = NULL;

    if (w->in_len > w->in_scanned) {
        nul = memchr(w->in + w->in_scanned, '\0', w->in_len - w->in_scanned);
    }
    if (!nul) {
        w->in_scanned = w->in_len;
        return wire_pending(w) > w->max_message ? -EMSGSIZE : 0;
    }
    size_t len = (size_t)(nul - start);
    if (len >= w->max_message) {
        return -EMSGSIZE;
    }
    w->in_off += len + 1;
    w->in_scanned = w->in_off;
    int r = take_fds(w, w->in_base + w->in_off, &m);
    if (r == 0 && within_limits(start, len)) {
        m.json = json_loadb(start, len, JSON_REJECT_DUPLICATES, NULL);
    }
    if (r == 0 && !json_is_object(m.json)) {
        r = -EBADMSG;
    }
    if (w->in_off == w->in_len) {
        w->in_base += w->in_len;
        w->in_off = w->in_len = w->in_scanned = 0;
        if (w->in_cap > 4 * READ_CHUNK) {
            free(w->in);                    /* one large message does not hold memory for ever */
            w->in = NULL;
            w->in_cap = 0;
        }
    }
    if (r < 0) {
        wire_msg_fini(&m);
        return r;
    }
    *ret = m;
    return 1;
}

void wire_msg_fini(struct wire_msg *m)
{
    close_all(m->fds, m->nfds);
    m->nfds = 0;
    json_decref(m->json);
    m->json = NULL;
}

int wire_send(struct wire *w, const json_t *json, const int *fds, unsigned nfds)
{
    if (w->backlog > WIRE_MAX_BACKLOG) {
        return -ENOBUFS;
    }
    if (nfds > VARLINK_MAX_FDS || (nfds && !w->is_socket)) {
        return nfds > VARLINK_MAX_FDS ? -E2BIG : -ENOTSOCK;
    }
    size_t len = json_dumpb(json, NULL, 0, JSON_COMPACT);
    if (len == 0) {
        return -ENOMEM;
    }
    if (len >= w->max_message) {
        return -EMSGSIZE;
    }
    struct wire_out *o = hv_alloc(sizeof(*o) + len + 1);
    if (!o) {
        return -ENOMEM;
    }
    o->len = len + 1;
    if (json_dumpb(json, o->data, len, JSON_COMPACT) != len) {
        free_out(o);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < nfds; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (fd < 0) {
            int r = -errno;
            free_out(o);
            return r;
        }
        o->fds[o->nfds++] = fd;
    }
    *w->out_last = o;
    w->out_last = &o->next;
    w->backlog += o->len;
    return 0;
}

static ssize_t transmit(struct wire *w, struct wire_out *o)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * VARLINK_MAX_FDS)];
    } control = { 0 };
    struct iovec iov = { .iov_base = o->data + o->sent, .iov_len = o->len - o->sent };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (!w->is_socket) {
        return write(w->wfd, iov.iov_base, iov.iov_len);
    }
    if (o->nfds) {
        mh.msg_control = &control;
        mh.msg_controllen = CMSG_SPACE(sizeof(int) * o->nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * o->nfds);
        memcpy(CMSG_DATA(c), o->fds, sizeof(int) * o->nfds);
    }
    return sendmsg(w->wfd, &mh, MSG_NOSIGNAL);
}

int wire_flush(struct wire *w)
{
    while (w->out_first) {
        struct wire_out *o = w->out_first;
        ssize_t n = transmit(w, o);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n > 0 && o->nfds) {
            close_all(o->fds, o->nfds);     /* they went with the first byte */
            o->nfds = 0;
        }
        o->sent += (size_t)n;
        w->backlog -= (size_t)n;
        if (o->sent == o->len) {
            w->out_first = o->next;
            if (!w->out_first) {
                w->out_last = &w->out_first;
            }
            free_out(o);
        }
    }
    return 0;
}
