/* A thread a host: connect, ask, wait, ask again. */
#include "hvtop/feed.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hv/client/client.h"

#define RETRY_NS NS_PER_SEC
#define ANSWER_NS (30 * NS_PER_SEC)      /* a service that is stopped or hangs counts as gone after that */
#define END_LIMIT_S 1
#define EVENTS_BACK_MS (24 * 3600 * 1000)

struct item { json_t *msg; struct item *next; };

struct host_feed {
    struct feed *feed;
    unsigned index;
    const char *host;
    pthread_t thread;
    bool started;
    int poke;                            /* eventfd: look at stop, delay and sample_now again */
    bool sample_now, tried, reached;
    char path[256];
    struct hv_error error;               /* of the first attempt */
    int64_t last_event;
    int64_t last_event_ms;
};

struct feed {
    pthread_mutex_t lock;                /* all below, and the flags of the hosts */
    struct item *first, **last;
    unsigned queued;
    int fd;                              /* eventfd: the queue is not empty */
    int cancel;                          /* eventfd: calls that wait end */
    bool stop, history;
    uint64_t delay_ns;
    unsigned n;
    struct host_feed host[];
};

static void raise_fd(int fd)
{
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof(one));
    (void)n;
}

static void lower_fd(int fd)
{
    uint64_t v;
    ssize_t n = read(fd, &v, sizeof(v));
    (void)n;
}

/* msg is stolen. What is queued is a copy of its own: the connection keeps its reply a while yet. */
static void put(struct host_feed *h, json_t *own)
{
    struct feed *f = h->feed;
    struct item *it = hv_alloc(sizeof(*it));
    json_t *msg = json_deep_copy(own);
    json_decref(own);
    if (!it || !msg) {
        free(it);
        json_decref(msg);
        return;
    }
    json_object_set_new(msg, "host", json_integer(h->index));
    it->msg = msg;
    pthread_mutex_lock(&f->lock);
    if (f->queued >= FEED_QUEUE_MAX) {
        struct item *old = f->first;
        f->first = old->next;
        f->last = f->first ? f->last : &f->first;
        f->queued--;
        json_decref(old->msg);
        free(old);
    }
    *f->last = it;
    f->last = &it->next;
    f->queued++;
    pthread_mutex_unlock(&f->lock);
    raise_fd(f->fd);
}

json_t *feed_next(struct feed *f)
{
    pthread_mutex_lock(&f->lock);
    struct item *it = f->first;
    if (it) {
        f->first = it->next;
        f->last = f->first ? f->last : &f->first;
        f->queued--;
    } else {
        lower_fd(f->fd);
    }
    pthread_mutex_unlock(&f->lock);
    json_t *msg = it ? it->msg : NULL;
    free(it);
    return msg;
}

int feed_fd(const struct feed *f) { return f->fd; }

/* ---- asking ---- */

static int ask_sample(struct host_feed *h, struct hv_client *c, struct hv_error *e)
{
    json_t *reply;
    int r = client_call(c, "Stats", NULL, ANSWER_NS, &reply, e);
    if (r < 0) {
        return r;
    }
    json_t *msg = json_object();
    json_object_set(msg, "time_ms", json_object_get(reply, "time_ms"));
    json_object_set(msg, "columns", json_object_get(reply, "columns"));
    json_object_set(msg, "rows", json_object_get(reply, "rows"));
    json_object_set(msg, "info", json_object_get(reply, "host"));
    json_decref(reply);
    put(h, msg);
    return 0;
}

static int on_history(void *arg, json_t *reply, bool continues)
{
    put(arg, json_pack("{s:O}", "history", reply));
    return 0;
}

/* A service of an earlier version has none: that is no failure. */
static int ask_history(struct host_feed *h, struct hv_client *c, int step_ms, struct hv_error *e)
{
    struct hv_error why = {0};
    int r = client_stream(c, "History", json_pack("{s:i}", "step_ms", step_ms), ANSWER_NS, on_history, h, &why);
    if (r < 0 && (r == -EINTR || why.code == HV_UNREACHABLE || why.code == HV_TIMEOUT)) {
        *e = why;
        return r;
    }
    return 0;
}

static int ask_events(struct host_feed *h, struct hv_client *c, struct hv_error *e)
{
    json_t *reply, *ev;
    size_t i;
    int r = client_call(c, "Events", json_pack("{s:I}", "since_ms", (json_int_t)h->last_event_ms), ANSWER_NS, &reply, e);
    if (r < 0) {
        return r;
    }
    json_array_foreach(json_object_get(reply, "events"), i, ev) {
        json_int_t seq = json_integer_value(json_object_get(ev, "seq"));
        if (seq <= h->last_event) {
            continue;
        }
        h->last_event = seq;
        h->last_event_ms = json_integer_value(json_object_get(ev, "time_ms"));
        put(h, json_pack("{s:O s:O}", "time_ms", json_object_get(ev, "time_ms"), "event", ev));
    }
    json_decref(reply);
    return 0;
}

/* Until it is time for the next sample, or somebody wants one, or the end. True: the end. */
static bool wait_next(struct host_feed *h, uint64_t until_ns)
{
    struct feed *f = h->feed;
    struct pollfd p = {.fd = h->poke, .events = POLLIN};
    for (;;) {
        pthread_mutex_lock(&f->lock);
        bool stop = f->stop, now = h->sample_now;
        h->sample_now = false;
        pthread_mutex_unlock(&f->lock);
        uint64_t t = hv_now_ns();
        if (stop || now || t >= until_ns) {
            return stop;
        }
        struct timespec ts = {(time_t)((until_ns - t) / NS_PER_SEC), (long)((until_ns - t) % NS_PER_SEC)};
        if (ppoll(&p, 1, &ts, NULL) > 0) {
            lower_fd(h->poke);
        }
    }
}

static uint64_t delay_of(struct feed *f)
{
    pthread_mutex_lock(&f->lock);
    uint64_t d = f->delay_ns;
    pthread_mutex_unlock(&f->lock);
    return d;
}

/* Everything of one connection. Returns when it is lost, or 0 at the end. */
static int converse(struct host_feed *h, struct hv_client *c, struct hv_error *e)
{
    struct feed *f = h->feed;
    json_t *info;
    int r = client_call(c, "GetInfo", NULL, ANSWER_NS, &info, e);
    if (r < 0) {
        return r;
    }
    put(h, json_pack("{s:O}", "name", json_object_get(info, "host")));
    json_decref(info);
    h->last_event = 0;
    h->last_event_ms = h->last_event_ms ? h->last_event_ms + 1 : (int64_t)(hv_wall_ns() / NS_PER_MS) - EVENTS_BACK_MS;
    uint64_t next = hv_now_ns();
    for (bool first = true; r == 0; first = false) {
        r = ask_sample(h, c, e);
        if (r == 0 && first) {
            pthread_mutex_lock(&f->lock);
            h->tried = h->reached = true;
            pthread_mutex_unlock(&f->lock);
        }
        if (r == 0 && f->history) {
            r = ask_events(h, c, e);
        }
        if (r == 0 && first && f->history) {
            r = ask_history(h, c, 2000, e);
            r = r == 0 ? ask_history(h, c, 60000, e) : r;
        }
        uint64_t now = hv_now_ns();
        next += delay_of(f);
        next = next > now ? next : now + delay_of(f);       /* late: the rhythm begins anew */
        if (r == 0 && wait_next(h, next)) {
            return 0;
        }
        next = MIN(next, hv_now_ns());
    }
    return r;
}

static void *thread_main(void *arg)
{
    struct host_feed *h = arg;
    struct feed *f = h->feed;
    /* The screen is ours: ssh may not ask there. */
    for (unsigned flags = CLIENT_NO_ASK;; flags = CLIENT_NO_ASK | CLIENT_NO_START) {
        struct hv_client *c = NULL;
        struct hv_error e = {0};
        int r = client_connect(h->host, flags, &c, &e);
        if (r == 0) {
            client_set_cancel(c, f->cancel);
            pthread_mutex_lock(&f->lock);
            hv_strlcpy(h->path, client_path(c), sizeof(h->path));
            pthread_mutex_unlock(&f->lock);
            r = converse(h, c, &e);
        }
        client_free(c);
        pthread_mutex_lock(&f->lock);
        if (!h->tried) {
            h->tried = true;
            h->error = e;
        }
        bool stop = f->stop;
        pthread_mutex_unlock(&f->lock);
        if (r == 0 || stop) {
            return NULL;
        }
        bool said = strncmp(e.message, e.object, strlen(e.object)) == 0;
        hv_autofree char *why = hv_asprintf("%s%s%s", said ? "" : e.object, said || !e.object[0] ? "" : ": ", e.message);
        put(h, json_pack("{s:I s:s}", "time_ms", (json_int_t)(hv_wall_ns() / NS_PER_MS), "down", why ? why : "?"));
        if (wait_next(h, hv_now_ns() + RETRY_NS)) {
            return NULL;
        }
    }
}

/* ---- life ---- */

int feed_start(const struct feed_options *o, struct feed **ret, struct hv_error *e)
{
    struct feed *f = hv_alloc(sizeof(*f) + o->n_hosts * sizeof(f->host[0]));
    if (!f) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    pthread_mutex_init(&f->lock, NULL);
    f->last = &f->first;
    f->delay_ns = o->delay_ns;
    f->history = o->history;
    f->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = f->fd < 0 || f->cancel < 0 ? -errno : 0;
    for (unsigned i = 0; i < o->n_hosts; i++) {
        struct host_feed *h = &f->host[i];
        *h = (struct host_feed){.feed = f, .index = i, .host = o->host[i], .poke = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
        f->n++;
        r = r < 0 ? r : h->poke < 0 ? -errno : -pthread_create(&h->thread, NULL, thread_main, h);
        h->started = r == 0;
    }
    if (r < 0) {
        feed_stop(f);
        return hv_fail_errno(e, -r, NULL, "cannot start");
    }
    *ret = f;
    return 0;
}

void feed_stop(struct feed *f)
{
    if (!f) {
        return;
    }
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_mutex_unlock(&f->lock);
    raise_fd(f->cancel);
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += END_LIMIT_S;
    bool hangs = false;
    for (unsigned i = 0; i < f->n; i++) {
        raise_fd(f->host[i].poke);
        hangs = hangs || (f->host[i].started && pthread_timedjoin_np(f->host[i].thread, NULL, &limit) != 0);
    }
    if (hangs) {
        return;                          /* it waits for a service to start: the end does not; the process goes */
    }
    for (unsigned i = 0; i < f->n; i++) {
        close(f->host[i].poke);
    }
    for (struct item *it = f->first, *next; it; it = next) {
        next = it->next;
        json_decref(it->msg);
        free(it);
    }
    close(f->fd);
    close(f->cancel);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void feed_set_delay(struct feed *f, uint64_t delay_ns)
{
    pthread_mutex_lock(&f->lock);
    f->delay_ns = delay_ns;
    pthread_mutex_unlock(&f->lock);
    feed_poke(f);
}

void feed_poke(struct feed *f)
{
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n; i++) {
        f->host[i].sample_now = true;
    }
    pthread_mutex_unlock(&f->lock);
    for (unsigned i = 0; i < f->n; i++) {
        raise_fd(f->host[i].poke);
    }
}

void feed_host_path(struct feed *f, unsigned host, char *buf, size_t size)
{
    pthread_mutex_lock(&f->lock);
    hv_strlcpy(buf, host < f->n ? f->host[host].path : "", size);
    pthread_mutex_unlock(&f->lock);
}

bool feed_none_reached(struct feed *f, struct hv_error *e)
{
    bool none = true;
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n; i++) {
        none = none && f->host[i].tried && !f->host[i].reached;
    }
    if (none && f->n) {
        *e = f->host[0].error;
    }
    pthread_mutex_unlock(&f->lock);
    return none;
}
