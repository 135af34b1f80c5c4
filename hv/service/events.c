/*
 * What happened on this host: a ring of the last events in memory, a journal of them in the
 * state folder (events.jsonl), and streams to whoever follows. Events are facts for people and
 * scripts; nothing in the service acts on them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "hv/service/journal.h"
#include "hv/service/service.h"

#define EVENTS_KEPT 2000
#define FOLLOW_BACKLOG_MAX ((size_t)1 << 20)   /* a follower that reads slower than this is closed */

struct follower {
    struct event_log *log;
    struct varlink_call *call;
    json_t *names, *kinds;             /* arrays or NULL: no filter */
    struct follower *next;
};

struct event_log {
    json_t *ring[EVENTS_KEPT];
    uint64_t count;                    /* ever added */
    struct follower *followers;
    struct journal journal;
};

static void keep(struct event_log *log, json_t *ev)
{
    json_t **slot = &log->ring[log->count++ % EVENTS_KEPT];
    json_decref(*slot);
    *slot = ev;
}

static void load(void *arg, json_t *ev)
{
    struct service *svc = arg;
    json_int_t seq = json_integer_value(json_object_get(ev, "seq"));
    /* Its reader needs these; anything else in a line passes through as it is. */
    if (seq <= svc->last_event || !json_is_integer(json_object_get(ev, "time_ms")) ||
        !json_is_string(json_object_get(ev, "kind")) || !json_is_string(json_object_get(ev, "message")))
        return;
    svc->last_event = seq;
    keep(svc->events, json_incref(ev));
}

int events_new(struct service *svc)
{
    hv_autofree char *path = hv_asprintf("%s/events.jsonl", svc->paths.state);
    svc->events = hv_alloc(sizeof(*svc->events));
    if (!path || !svc->events || journal_init(&svc->events->journal, path) < 0)
        return -ENOMEM;
    journal_read(&svc->events->journal, load, svc);
    return 0;
}

static void follower_free(struct follower *f)
{
    struct follower **at = &f->log->followers;
    while (*at && *at != f)
        at = &(*at)->next;
    if (*at)
        *at = f->next;
    varlink_call_unref(f->call);
    json_decref(f->names);
    json_decref(f->kinds);
    free(f);
}

static void follower_closed(void *arg) { follower_free(arg); }

void events_free(struct service *svc)
{
    struct event_log *log = svc->events;
    if (!log)
        return;
    while (log->followers)
        follower_free(log->followers);
    for (unsigned i = 0; i < EVENTS_KEPT; i++)
        json_decref(log->ring[i]);
    journal_fini(&log->journal);
    free(log);
    svc->events = NULL;
}

static bool in_list(const json_t *list, const json_t *value)
{
    size_t i;
    json_t *v;
    if (!json_is_array(list) || !json_array_size(list))
        return true;
    json_array_foreach(list, i, v)
        if (json_equal(v, value))
            return true;
    return false;
}

static bool wanted(struct service *svc, const json_t *ev, const json_t *names, const json_t *kinds)
{
    const char *vm = json_string_value(json_object_get(ev, "vm"));
    bool any = !json_is_array(names) || !json_array_size(names);
    return (any || (vm && vm_is_named(svc, names, vm))) && in_list(kinds, json_object_get(ev, "kind"));
}

static json_t *one(json_t *ev) { return json_pack("{s:[O]}", "events", ev); }

void event_add(struct service *svc, const char *kind, const char *vm, const char *severity, int64_t uid, json_t *data,
               const char *hint, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    struct event_log *log = svc->events;
    json_t *ev = json_pack("{s:I s:I s:s s:s? s:s s:s s:s? s:o? s:o}", "seq", (json_int_t)++svc->last_event,
                           "time_ms", (json_int_t)(hv_wall_ns() / NS_PER_MS), "kind", kind, "vm", vm, "severity",
                           severity, "message", text, "hint", hint, "data", data, "uid",
                           uid < 0 ? json_null() : json_integer(uid));
    if (!ev || !log) {
        json_decref(ev);
        return;
    }
    keep(log, ev);
    journal_add(&log->journal, ev);
    for (struct follower *f = log->followers, *next; f; f = next) {
        next = f->next;
        if (!wanted(svc, ev, f->names, f->kinds))
            continue;
        if (varlink_call_backlog(f->call) > FOLLOW_BACKLOG_MAX) {
            struct hv_error e = {0};
            hv_fail(&e, HV_FAILED, "events", "the reader fell too far behind");
            varlink_call_on_close(f->call, NULL, NULL);
            varlink_reply_error(f->call, &e);
            follower_free(f);
        } else {
            varlink_reply(f->call, one(ev), true);
        }
    }
}

void events_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    struct event_log *log = svc->events;
    json_t *names = json_object_get(params, "names"), *kinds = json_object_get(params, "kinds");
    json_t *since = json_object_get(params, "since_ms");
    bool follow = json_is_true(json_object_get(params, "follow")) && varlink_call_more(call);
    json_t *list = json_array();
    uint64_t first = log->count > EVENTS_KEPT ? log->count - EVENTS_KEPT : 0;
    for (uint64_t i = first; json_is_integer(since) && i < log->count; i++) {
        json_t *ev = log->ring[i % EVENTS_KEPT];
        if (json_integer_value(json_object_get(ev, "time_ms")) >= json_integer_value(since) &&
            wanted(svc, ev, names, kinds))
            json_array_append(list, ev);
    }
    struct follower *f = follow ? hv_alloc(sizeof(*f)) : NULL;
    if (f) {
        f->log = log;
        f->call = varlink_call_ref(call);
        f->names = json_is_array(names) ? json_deep_copy(names) : NULL;
        f->kinds = json_is_array(kinds) ? json_deep_copy(kinds) : NULL;
        f->next = log->followers;
        log->followers = f;
        varlink_call_on_close(call, follower_closed, f);
    }
    varlink_reply(call, json_pack("{s:o}", "events", list), f != NULL);
}
