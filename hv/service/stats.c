/* Rows of what `list` shows, once or at an interval (org.hv.Manager.Stats). */
#include <errno.h>

#include "hv/service/service.h"

#define STATS_MIN_MS 100
#define STATS_BACKLOG_MAX ((size_t)256 << 10)

static const char *const columns[] = {"name", "state", "uptime_ms", "cpu_pct", "assigned", "resident"};

struct stats_stream {
    struct service *svc;
    struct varlink_call *call;
    struct loop_timer *timer;
    uint64_t interval_ns;
    json_t *names;
    struct stats_stream *next;
};

static json_t *or_null(json_t *v) { return v ? json_incref(v) : json_null(); }

static json_t *row(const struct svc_vm *vm)
{
    json_t *memory = json_object_get(vm->runtime, "memory");
    return json_pack("[s s o o o o]", vm->name, svc_state_word(vm), or_null(json_object_get(vm->runtime, "uptime_ms")),
                     vm->runtime ? json_real(vm->cpu_pct) : json_null(), or_null(json_object_get(memory, "assigned")),
                     or_null(json_object_get(memory, "resident")));
}

static bool named(const json_t *names, const char *name)
{
    size_t i;
    json_t *v;
    if (!json_is_array(names))
        return true;
    json_array_foreach(names, i, v)
        if (strcmp(json_string_value(v), name) == 0)
            return true;
    return false;
}

static json_t *sample(struct service *svc, const json_t *names, bool with_columns)
{
    json_t *rows = json_array(), *cols = with_columns ? json_array() : json_null();
    for (unsigned i = 0; with_columns && i < ARRAY_SIZE(columns); i++)
        json_array_append_new(cols, json_string(columns[i]));
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (named(names, vm->name))
            json_array_append_new(rows, row(vm));
    return json_pack("{s:o s:o s:I}", "columns", cols, "rows", rows, "time_ms",
                     (json_int_t)(hv_wall_ns() / NS_PER_MS));
}

static void stream_free(void *arg)
{
    struct stats_stream *s = arg, **at = &s->svc->streams;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    loop_timer_free(s->svc->loop, s->timer);
    varlink_call_unref(s->call);
    json_decref(s->names);
    free(s);
}

static void tick(void *arg)
{
    struct stats_stream *s = arg;
    loop_timer_set(s->svc->loop, s->timer, hv_now_ns() + s->interval_ns);
    if (varlink_call_backlog(s->call) < STATS_BACKLOG_MAX)
        varlink_reply(s->call, sample(s->svc, s->names, false), true);
}

void stats_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    json_t *names = json_object_get(params, "names"), *ms = json_object_get(params, "interval_ms");
    struct stats_stream *s = varlink_call_more(call) ? hv_alloc(sizeof(*s)) : NULL;
    if (s && loop_timer_new(svc->loop, tick, s, &s->timer) < 0) {
        free(s);
        s = NULL;
    }
    if (s) {
        json_int_t interval = json_is_integer(ms) ? json_integer_value(ms) : REPORT_INTERVAL_MS;
        s->svc = svc;
        s->interval_ns = (uint64_t)MIN(MAX(interval, STATS_MIN_MS), 86400000) * NS_PER_MS;
        s->names = json_is_array(names) ? json_deep_copy(names) : NULL;
        s->call = varlink_call_ref(call);
        s->next = svc->streams;
        svc->streams = s;
        varlink_call_on_close(call, stream_free, s);
        loop_timer_set(svc->loop, s->timer, hv_now_ns() + s->interval_ns);
    }
    varlink_reply(call, sample(svc, names, true), s != NULL);
}
