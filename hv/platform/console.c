/* See console.h. One short lock guards ring and queue; nothing is called while it is held. */
#include "hv/platform/console.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define CONSOLE_MAGIC 0x434f4e53u

static_assert((CONSOLE_RING_SIZE & (CONSOLE_RING_SIZE - 1)) == 0, "positions are masked");
static_assert((CONSOLE_QUEUE_SIZE & (CONSOLE_QUEUE_SIZE - 1)) == 0, "positions are masked");

enum { NEWS_OUTPUT = 1, NEWS_ROOM = 2 };

struct console {
    uint32_t magic;
    struct loop *loop;
    struct loop_post post;
    _Atomic unsigned news;           /* what the post has to tell; not 0: it is under way */

    struct console_watch *watchers;  /* loop thread */
    struct console_watch *cursor;    /* next to be told, while telling */

    pthread_mutex_t lock;
    uint8_t *ring;
    uint64_t end;                    /* bytes ever put */
    uint16_t queue[CONSOLE_QUEUE_SIZE];
    uint32_t q_head, q_tail;         /* taken, typed; free-running */
    bool refused;                    /* somebody waits for room */

    void (*ready)(void *dev);
    void *dev;
};

/* Watchers may add and remove watchers, themselves included: cursor is kept right by unwatch. */
static void tell_all(struct console *c, bool room)
{
    for (struct console_watch *w = c->watchers; w; w = c->cursor) {
        c->cursor = w->next;
        void (*fn)(void *arg) = room ? w->room : w->output;
        if (fn) {
            fn(w->arg);
        }
    }
    c->cursor = NULL;
}

static void tell(void *arg)
{
    struct console *c = arg;
    unsigned news = atomic_exchange(&c->news, 0);
    if (news & NEWS_OUTPUT) {
        tell_all(c, false);
    }
    if (news & NEWS_ROOM) {
        tell_all(c, true);
    }
}

static void announce(struct console *c, unsigned what)
{
    if (atomic_fetch_or(&c->news, what) == 0) {
        loop_post(c->loop, &c->post);
    }
}

int console_new(struct loop *loop, struct console **ret)
{
    struct console *c = hv_alloc(sizeof(*c));
    if (!c) {
        return -ENOMEM;
    }
    c->ring = hv_alloc(CONSOLE_RING_SIZE);
    if (!c->ring) {
        free(c);
        return -ENOMEM;
    }
    c->magic = CONSOLE_MAGIC;
    c->loop = loop;
    c->post = (struct loop_post){ .fn = tell, .arg = c };
    pthread_mutex_init(&c->lock, NULL);
    *ret = c;
    return 0;
}

void console_free(struct console *c)
{
    if (!c) {
        return;
    }
    HV_CHECK(c, CONSOLE_MAGIC);
    c->magic = 0;
    loop_post_cancel(c->loop, &c->post);
    pthread_mutex_destroy(&c->lock);
    free(c->ring);
    free(c);
}

void console_watch(struct console *c, struct console_watch *w)
{
    HV_CHECK(c, CONSOLE_MAGIC);
    w->next = c->watchers;
    c->watchers = w;
}

void console_unwatch(struct console *c, struct console_watch *w)
{
    HV_CHECK(c, CONSOLE_MAGIC);
    for (struct console_watch **p = &c->watchers; *p; p = &(*p)->next) {
        if (*p == w) {
            *p = w->next;
            if (c->cursor == w) {
                c->cursor = w->next;
            }
            return;
        }
    }
}

uint64_t console_end(struct console *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t end = c->end;
    pthread_mutex_unlock(&c->lock);
    return end;
}

static uint64_t oldest(const struct console *c)
{
    return c->end > CONSOLE_RING_SIZE ? c->end - CONSOLE_RING_SIZE : 0;
}

uint64_t console_start(struct console *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t start = oldest(c);
    pthread_mutex_unlock(&c->lock);
    return start;
}

size_t console_read(struct console *c, uint64_t *pos, void *buf, size_t len, uint64_t *ret_lost)
{
    HV_CHECK(c, CONSOLE_MAGIC);
    pthread_mutex_lock(&c->lock);
    uint64_t at = *pos, start = oldest(c);
    if (at < start) {
        if (ret_lost) {
            *ret_lost += start - at;
        }
        at = start;
    }
    if (at > c->end) {
        at = c->end;
    }
    size_t n = (size_t)MIN((uint64_t)len, c->end - at);
    size_t from = at & (CONSOLE_RING_SIZE - 1);
    size_t first = MIN(n, CONSOLE_RING_SIZE - from);
    memcpy(buf, c->ring + from, first);
    memcpy((uint8_t *)buf + first, c->ring, n - first);
    pthread_mutex_unlock(&c->lock);
    *pos = at + n;
    return n;
}

void console_put(struct console *c, const void *buf, size_t len)
{
    const uint8_t *p = buf;
    pthread_mutex_lock(&c->lock);
    if (len > CONSOLE_RING_SIZE) {   /* only the tail would survive */
        c->end += len - CONSOLE_RING_SIZE;
        p += len - CONSOLE_RING_SIZE;
        len = CONSOLE_RING_SIZE;
    }
    size_t at = c->end & (CONSOLE_RING_SIZE - 1);
    size_t first = MIN(len, CONSOLE_RING_SIZE - at);
    memcpy(c->ring + at, p, first);
    memcpy(c->ring, p + first, len - first);
    c->end += len;
    pthread_mutex_unlock(&c->lock);
    announce(c, NEWS_OUTPUT);
}

void console_set_device(struct console *c, void (*ready)(void *dev), void *dev)
{
    c->ready = ready;
    c->dev = dev;
}

static bool type_locked(struct console *c, uint16_t v)
{
    if (c->q_tail - c->q_head == CONSOLE_QUEUE_SIZE) {
        c->refused = true;
        return false;
    }
    c->queue[c->q_tail++ & (CONSOLE_QUEUE_SIZE - 1)] = v;
    return true;
}

size_t console_input(struct console *c, const void *buf, size_t len)
{
    HV_CHECK(c, CONSOLE_MAGIC);
    const uint8_t *p = buf;
    size_t n = 0;
    pthread_mutex_lock(&c->lock);
    while (n < len && type_locked(c, p[n])) {
        n++;
    }
    pthread_mutex_unlock(&c->lock);
    if (n > 0 && c->ready) {
        c->ready(c->dev);
    }
    return n;
}

bool console_break(struct console *c)
{
    HV_CHECK(c, CONSOLE_MAGIC);
    pthread_mutex_lock(&c->lock);
    bool ok = type_locked(c, CONSOLE_BREAK);
    pthread_mutex_unlock(&c->lock);
    if (ok && c->ready) {
        c->ready(c->dev);
    }
    return ok;
}

int console_take(struct console *c)
{
    int v = -1;
    bool room = false;
    pthread_mutex_lock(&c->lock);
    if (c->q_tail != c->q_head) {
        v = c->queue[c->q_head++ & (CONSOLE_QUEUE_SIZE - 1)];
        /* Ask for more at half empty, not after every character. */
        if (c->refused && c->q_tail - c->q_head <= CONSOLE_QUEUE_SIZE / 2) {
            c->refused = false;
            room = true;
        }
    }
    pthread_mutex_unlock(&c->lock);
    if (room) {
        announce(c, NEWS_ROOM);
    }
    return v;
}

void console_flush_input(struct console *c)
{
    pthread_mutex_lock(&c->lock);
    bool room = c->refused;
    c->refused = false;
    c->q_head = c->q_tail;
    pthread_mutex_unlock(&c->lock);
    if (room) {
        announce(c, NEWS_ROOM);
    }
}

void console_save(struct console *c, struct save_writer *w)
{
    pthread_mutex_lock(&c->lock);
    save_u32(w, c->q_tail - c->q_head);
    for (uint32_t i = c->q_head; i != c->q_tail; i++) {
        save_u16(w, c->queue[i & (CONSOLE_QUEUE_SIZE - 1)]);
    }
    pthread_mutex_unlock(&c->lock);
}

int console_load(struct console *c, struct load_section *s)
{
    uint32_t n = load_u32(s);
    if (n > CONSOLE_QUEUE_SIZE) {
        return -EINVAL;
    }
    int r = 0;
    pthread_mutex_lock(&c->lock);
    c->q_head = c->q_tail = 0;
    for (uint32_t i = 0; i < n; i++) {
        c->queue[i] = load_u16(s);
        if (c->queue[i] > CONSOLE_BREAK) {
            r = -EINVAL;
        }
    }
    c->q_tail = r == 0 ? n : 0;
    pthread_mutex_unlock(&c->lock);
    return r;
}
