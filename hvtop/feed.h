/*
 * Where messages come from while it happens: a thread for each host asks its service again and
 * again over one connection, and puts what it hears into a queue as messages of hvtop/model.h.
 * A service that goes is said to be down and asked again every second.
 */
#ifndef HVTOP_FEED_H
#define HVTOP_FEED_H

#include <jansson.h>

#include "hv/base/error.h"

#define FEED_QUEUE_MAX 4096          /* messages held back while the display is paused; the oldest samples go first */

struct feed;

struct feed_options {
    const char *const *host;         /* as for client_connect(); NULL entries: the default */
    unsigned n_hosts;
    uint64_t delay_ns;
    bool history;                    /* fetch what was before, and events */
};

/* Starts the threads. They see signals blocked as the caller has them now. */
int feed_start(const struct feed_options *o, struct feed **ret, struct hv_error *e);
void feed_stop(struct feed *f);      /* NULL is fine */

/* Readable while messages wait. */
int feed_fd(const struct feed *f);
/* The next message, the caller's; NULL: there is none now. */
json_t *feed_next(struct feed *f);
void feed_set_delay(struct feed *f, uint64_t delay_ns);
/* A sample now, of every host. */
void feed_poke(struct feed *f);
/* How to name a host to hvctl (-H): the socket it was reached at, "" until then. buf[size]. */
void feed_host_path(struct feed *f, unsigned host, char *buf, size_t size);
/* Has the first attempt of every host failed? Then e has the first host's error. */
bool feed_none_reached(struct feed *f, struct hv_error *e);

#endif
