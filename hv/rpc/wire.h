/*
 * The wire under varlink: JSON objects, each ended by a NUL byte, with descriptors
 * beside them, in both directions over one non-blocking stream. Knows nothing of
 * calls and replies; used by the server, by the client on the loop and, with poll,
 * by the blocking client.
 *
 * Limits (what the peer sends is hostile): one message max_message bytes,
 * VARLINK_MAX_DEPTH deep, VARLINK_MAX_VALUES values; VARLINK_MAX_FDS descriptors a
 * message and WIRE_MAX_FDS_HELD in all.
 */
#ifndef HV_RPC_WIRE_H
#define HV_RPC_WIRE_H

#include "hv/rpc/varlink.h"

#define VARLINK_MAX_DEPTH  64u        /* jansson's parser and our checks recurse this far */
#define VARLINK_MAX_VALUES 262144u    /* a small message must not become hundreds of MiB of nodes */
#define WIRE_MAX_FDS_HELD  (2 * VARLINK_MAX_FDS)
#define WIRE_MAX_BACKLOG   ((size_t)16 << 20)  /* unsent bytes before we give the peer up */

struct wire_out;

struct wire {
    int rfd, wfd;                     /* ours; may be the same */
    bool is_socket;
    char *in;                         /* in[off .. len) is not yet consumed */
    size_t in_off, in_len, in_cap;
    size_t in_scanned;                /* no NUL before this index */
    uint64_t in_base;                 /* stream offset of in[0] */
    struct { int fd; uint64_t pos; } held[WIRE_MAX_FDS_HELD];  /* came with the byte at pos */
    unsigned held_count;
    struct wire_out *out_first, **out_last;
    size_t backlog;
    size_t max_message;               /* either way */
};

struct wire_msg {
    json_t *json;                     /* an object */
    int fds[VARLINK_MAX_FDS];
    unsigned nfds;
};

/* Takes both descriptors over, makes them non-blocking; messages as VARLINK_MAX_MESSAGE says. 0 or -errno (they are then closed). */
int wire_init(struct wire *w, int rfd, int wfd);
void wire_fini(struct wire *w);

/*
 * Read once. 1 if something came, 0 at the end of the stream, -EAGAIN, -EMSGSIZE for
 * a message over the limit, -EPROTO for too many descriptors, or the system's errno.
 */
int wire_fill(struct wire *w);

/*
 * Take the next message. 1, 0 if it is not complete yet, -EBADMSG if it is no JSON
 * object within the limits, -EPROTO for too many descriptors, -EMSGSIZE, -ENOMEM.
 */
int wire_next(struct wire *w, struct wire_msg *ret);
void wire_msg_fini(struct wire_msg *m);

/* Bytes received and not taken. */
size_t wire_pending(const struct wire *w);

/*
 * Queue a message (json is borrowed; descriptors are duplicated). 0, -EMSGSIZE,
 * -ENOMEM, -ENOBUFS when the backlog is over its limit, -E2BIG or -ENOTSOCK for
 * descriptors that cannot go along, -errno of dup.
 */
int wire_send(struct wire *w, const json_t *json, const int *fds, unsigned nfds);

/* Write what can be written. 0 when all is sent, -EAGAIN when some is left, else -errno. */
int wire_flush(struct wire *w);
/* Forget what is unsent. */
void wire_drop_output(struct wire *w);

#endif
