/*
 * Following jobs: verbs are synchronous, the service's jobs are not. Ctrl-C leaves them
 * running and says their numbers.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "hvctl/hvctl.h"

/* ---- Ctrl-C ---- */

#define MAX_ACTIVE 64

/* Numbers of the jobs being followed, 0 a free slot. Written by threads, read by the handler. */
static _Atomic int64_t active[MAX_ACTIVE];

/* snprintf is not async-signal-safe: digits by hand. */
static void on_interrupt(int sig)
{
    char line[64];
    for (unsigned i = 0; i < MAX_ACTIVE; i++) {
        int64_t id = active[i];
        size_t at = sizeof(line);
        if (id <= 0) {
            continue;
        }
        static const char tail[] = " goes on\n";
        at -= sizeof(tail) - 1;
        memcpy(line + at, tail, sizeof(tail) - 1);
        for (; id; id /= 10) {
            line[--at] = (char)('0' + id % 10);
        }
        at -= 4;
        memcpy(line + at, "job ", 4);
        ssize_t n = write(STDERR_FILENO, line + at, sizeof(line) - at);
        (void)n;
    }
    _exit(128 + sig);
}

static void watch_interrupt(void)
{
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

static unsigned follow_begin(int64_t id)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_interrupt);
    for (unsigned i = 0; i < MAX_ACTIVE; i++) {
        int64_t none = 0;
        if (__atomic_compare_exchange_n((int64_t *)&active[i], &none, id, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            return i;
        }
    }
    return MAX_ACTIVE;
}

static void follow_end(unsigned slot)
{
    if (slot < MAX_ACTIVE) {
        active[slot] = 0;
    }
}

/* ---- following ---- */

static int job_result(const json_t *reply, struct hv_error *e)
{
    const json_t *job = json_object_get(reply, "job");
    const json_t *error = json_object_get(job, "error");
    const char *state = json_string_value(json_object_get(job, "state"));

    if (json_is_object(error)) {
        const char *code = json_string_value(json_object_get(error, "code"));
        const char *object = json_string_value(json_object_get(error, "object"));
        const char *message = json_string_value(json_object_get(error, "message"));
        const char *hint = json_string_value(json_object_get(error, "hint"));
        int r = hv_fail(e, hv_code_from_word(code ? code : ""), object, "%s", message ? message : "failed");
        if (hint && *hint) {
            hv_hint(e, "%s", hint);
        }
        return r;
    }
    if (state && strcmp(state, "done") == 0) {
        return 0;
    }
    return hv_fail(e, HV_FAILED, json_string_value(json_object_get(job, "object")), "the job was %s",
                   state ? state : "lost");
}

/* One WaitJob on a connection of its own, so that one that takes too long can be left behind. */
static int wait_once(struct cli_call *c, int64_t id, uint64_t timeout_ns, struct hv_error *e)
{
    struct conn *k;
    json_t *reply;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = conn_call(k, "WaitJob", json_pack("{s:I}", "id", (json_int_t)id), timeout_ns, &reply, e);
    if (r == 0) {
        r = job_result(reply, e);
        json_decref(reply);
    }
    conn_close(k);
    return r;
}

/* Did our own time run out, rather than the job's? Both say timeout. */
static bool ran_out(uint64_t since_ns, uint64_t limit_ns)
{
    return limit_ns && hv_now_ns() - since_ns >= limit_ns;
}

int job_follow(struct cli_call *c, struct conn *k, const json_t *reply, const struct job_follow *how, bool *ret_null,
               struct hv_error *e)
{
    const json_t *job = json_object_get(reply, "job");
    int64_t id = json_integer_value(json_object_get(job, "id"));
    uint64_t limit = how && how->timeout_ns ? how->timeout_ns : c->timeout_ns, began = hv_now_ns();

    if (ret_null) {
        *ret_null = !json_is_object(job);
    }
    if (!json_is_object(job)) {
        return 0;
    }
    if ((c->cmd->use & CLI_USE_JOB) && c->no_wait) {
        fprintf(c->out, "%" PRId64 "\n", id);
        return 0;
    }
    unsigned slot = follow_begin(id);
    int r;
    if (how && how->patience_ns && (!limit || how->patience_ns < limit)) {
        r = wait_once(c, id, how->patience_ns, e);
        if (r < 0 && e->code == HV_TIMEOUT && ran_out(began, how->patience_ns)) {
            how->impatient(how->arg);
            hv_error_clear(e);
            uint64_t used = hv_now_ns() - began;
            r = wait_once(c, id, !limit ? UINT64_MAX : limit > used ? limit - used : 1, e);
        }
    } else {
        r = wait_once(c, id, limit ? limit : UINT64_MAX, e);
    }
    if (r < 0 && e->code == HV_TIMEOUT && ran_out(began, limit)) {
        char object[160];
        snprintf(object, sizeof(object), "%s", e->object);
        const char *vm = json_string_value(json_object_get(job, "object"));
        r = hv_fail(e, HV_TIMEOUT, vm ? vm : object, "not done in time; job %" PRId64 " goes on", id);
        hv_hint(e, "hvctl job wait %" PRId64, id);
    }
    follow_end(slot);
    return r;
}
