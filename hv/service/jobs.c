/*
 * Long operations: numbered, watchable, remembered for a while after they end.
 *
 * Each is written to a journal (jobs.jsonl) when it begins and when it ends. One that has no
 * end there was under way when the service died: the next one ends it as interrupted. What it
 * was about goes on without it; a VM that was being started is then running, or off and says why.
 */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/service/journal.h"
#include "hv/service/service.h"

#define JOBS_KEPT 200

struct job_waiter { struct varlink_call *call; struct job *job; struct job_waiter *next; };

struct job {
    struct service *svc;
    int64_t id;
    char verb[32];
    char object[4 * VM_NAME_MAX + 1];
    bool running, interrupted, cancelled;
    int progress;                       /* per cent; -1: not known */
    uint64_t started_ns, ended_ns;
    struct hv_error error;
    struct job_waiter *waiters;
    void (*on_end)(void *arg, struct job *job);
    void *on_end_arg;
    void (*cancel)(void *arg);          /* NULL: it cannot be */
    void *cancel_arg;
    struct job *next;                   /* newest first */
};

static void forget_old(struct service *svc)
{
    unsigned n = 0;
    for (struct job **at = &svc->jobs; *at;) {
        struct job *j = *at;
        if (++n > JOBS_KEPT && !j->running && !j->waiters) {
            *at = j->next;
            free(j);
        } else {
            at = &j->next;
        }
    }
}

static struct job *add(struct service *svc, int64_t id, const char *verb, const char *object)
{
    struct job *j = hv_alloc(sizeof(*j));
    if (!j)
        return NULL;
    j->svc = svc;
    j->id = id;
    hv_strlcpy(j->verb, verb, sizeof(j->verb));
    hv_strlcpy(j->object, object, sizeof(j->object));
    j->running = true;
    j->progress = -1;
    j->next = svc->jobs;
    svc->jobs = j;
    return j;
}

static void write_down(const struct job *j)
{
    json_t *o = job_json(j);
    if (o && j->svc->job_journal)
        journal_add(j->svc->job_journal, o);
    json_decref(o);
}

struct job *job_new(struct service *svc, const char *verb, const char *object)
{
    struct job *j = add(svc, svc->last_job + 1, verb, object);
    if (!j)
        return NULL;
    svc->last_job = j->id;
    j->started_ns = hv_wall_ns();
    write_down(j);
    forget_old(svc);
    return j;
}

static void waiter_free(struct job_waiter *w)
{
    struct job_waiter **at = &w->job->waiters;
    while (*at && *at != w)
        at = &(*at)->next;
    if (*at)
        *at = w->next;
    varlink_call_unref(w->call);
    free(w);
}

static void waiter_closed(void *arg) { waiter_free(arg); }

void job_done(struct job *j, const struct hv_error *e)
{
    if (!j || !j->running)
        return;
    j->running = false;
    j->cancel = NULL;
    j->cancelled = j->cancelled && e;
    j->ended_ns = hv_wall_ns();
    if (e)
        j->error = *e;
    write_down(j);
    event_add(j->svc, "job", j->object, e ? "error" : "info", -1, job_json(j), e && e->hint[0] ? e->hint : NULL,
              "job %lld: %s %s%s%s", (long long)j->id, j->verb, j->interrupted ? "ended" : j->cancelled ? "cancelled" : e ? "failed" : "done", e ? ": " : "",
              e ? e->message : "");
    if (j->on_end)
        j->on_end(j->on_end_arg, j);
    while (j->waiters) {
        varlink_call_on_close(j->waiters->call, NULL, NULL);
        varlink_reply(j->waiters->call, json_pack("{s:o}", "job", job_json(j)), false);
        waiter_free(j->waiters);
    }
}

void job_on_end(struct job *j, void (*fn)(void *arg, struct job *job), void *arg)
{
    j->on_end = fn;
    j->on_end_arg = arg;
}

void job_on_cancel(struct job *j, void (*fn)(void *arg), void *arg)
{
    j->cancel = fn;
    j->cancel_arg = arg;
}

int job_cancel(struct job *j, struct hv_error *e)
{
    char name[32];
    snprintf(name, sizeof(name), "job %lld", (long long)j->id);
    if (!j->running)
        return hv_fail(e, HV_CONFLICT, name, "it has ended");
    if (!j->cancel)
        return hv_fail(e, HV_CONFLICT, name, "%s of %s cannot be cancelled", j->verb, j->object);
    j->cancelled = true;
    j->cancel(j->cancel_arg);
    return 0;
}

struct job *job_find(struct service *svc, int64_t id)
{
    struct job *j = svc->jobs;
    while (j && j->id != id)
        j = j->next;
    return j;
}

int64_t job_id(const struct job *j) { return j->id; }
const char *job_object(const struct job *j) { return j->object; }
bool job_is_running(const struct job *j) { return j->running; }

void job_progress(struct job *j, int pct)
{
    if (!j->running || j->progress == pct)
        return;
    j->progress = pct;
    for (struct job_waiter *w = j->waiters; w; w = w->next)
        if (varlink_call_more(w->call))
            varlink_reply(w->call, json_pack("{s:o}", "job", job_json(j)), true);
}

static json_t *ms(uint64_t ns) { return ns ? json_integer((json_int_t)(ns / NS_PER_MS)) : json_null(); }

json_t *job_json(const struct job *j)
{
    json_t *error = j->error.code == HV_OK
                        ? json_null()
                        : json_pack("{s:s s:s s:s s:s}", "code", hv_code_word(j->error.code), "object",
                                    j->error.object, "message", j->error.message, "hint", j->error.hint);
    const char *state = j->running ? "running" : j->interrupted ? "interrupted" : j->cancelled ? "cancelled"
                        : j->error.code ? "failed" : "done";
    return json_pack("{s:I s:s s:s s:s s:o s:o s:o s:o}", "id", (json_int_t)j->id, "verb", j->verb, "object",
                     j->object, "state", state, "progress_pct",
                     j->running && j->progress >= 0 ? json_integer(j->progress) : json_null(), "started_ms", ms(j->started_ns),
                     "ended_ms", ms(j->ended_ns), "error", error);
}

json_t *jobs_json(struct service *svc)
{
    json_t *list = json_array();
    for (struct job *j = svc->jobs; j; j = j->next)
        json_array_insert_new(list, 0, job_json(j));
    return list;
}

void job_wait(struct job *j, struct varlink_call *call)
{
    struct job_waiter *w = j->running ? hv_alloc(sizeof(*w)) : NULL;
    if (!w) {
        varlink_reply(call, json_pack("{s:o}", "job", job_json(j)), false);
        return;
    }
    w->job = j;
    w->call = varlink_call_ref(call);
    w->next = j->waiters;
    j->waiters = w;
    varlink_call_on_close(call, waiter_closed, w);
    if (varlink_call_more(call))
        varlink_reply(call, json_pack("{s:o}", "job", job_json(j)), true);
}

/* ---- from the journal ---- */

static uint64_t time_of(const json_t *o, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(o, key));
    return v > 0 ? (uint64_t)v * NS_PER_MS : 0;
}

static const char *word(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void load(void *arg, json_t *o)
{
    struct service *svc = arg;
    json_int_t id = json_integer_value(json_object_get(o, "id"));
    const char *state = word(o, "state");
    const json_t *error = json_object_get(o, "error");
    struct job *j = id > 0 ? job_find(svc, id) : NULL;
    if (!j && id > svc->last_job && (j = add(svc, id, word(o, "verb"), word(o, "object"))))
        svc->last_job = id;
    if (!j)
        return;
    j->started_ns = time_of(o, "started_ms");
    j->ended_ns = time_of(o, "ended_ms");
    j->running = strcmp(state, "running") == 0;
    j->interrupted = strcmp(state, "interrupted") == 0;
    j->cancelled = strcmp(state, "cancelled") == 0;
    if (json_is_object(error)) {
        hv_fail(&j->error, hv_code_from_word(word(error, "code")), word(error, "object"), "%s", word(error, "message"));
        hv_hint(&j->error, "%s", word(error, "hint"));
    }
    forget_old(svc);
}

json_t *job_of(const struct service *svc, const char *object)
{
    for (const struct job *j = svc->jobs; j; j = j->next) {
        if (!j->running || strcmp(j->object, object) != 0)
            continue;
        char text[80];
        int n = snprintf(text, sizeof(text), "%lld %s", (long long)j->id, j->verb);
        if (j->progress >= 0 && n > 0 && (size_t)n < sizeof(text))
            snprintf(text + n, sizeof(text) - (size_t)n, " %d%%", j->progress);
        return json_string(text);
    }
    return json_null();
}

int jobs_load(struct service *svc)
{
    hv_autofree char *path = hv_asprintf("%s/jobs.jsonl", svc->paths.state);
    svc->job_journal = hv_alloc(sizeof(*svc->job_journal));
    if (!path || !svc->job_journal || journal_init(svc->job_journal, path) < 0)
        return -ENOMEM;
    journal_read(svc->job_journal, load, svc);
    for (struct job *j = svc->jobs; j; j = j->next) {
        if (!j->running)
            continue;
        struct hv_error e = {0};
        hv_fail(&e, HV_FAILED, j->object, "interrupted: the service ended while it was under way");
        hv_hint(&e, "hvctl show %s", j->object);
        j->interrupted = true;
        j->cancelled = false;
        job_done(j, &e);
    }
    return 0;
}

void jobs_free(struct service *svc)
{
    if (svc->job_journal) {
        journal_fini(svc->job_journal);
        free(svc->job_journal);
        svc->job_journal = NULL;
    }
    while (svc->jobs) {
        struct job *j = svc->jobs;
        svc->jobs = j->next;
        while (j->waiters)
            waiter_free(j->waiters);
        free(j);
    }
}
