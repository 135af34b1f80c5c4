/* Typed calls of org.hv.Manager: plain ones, streams, jobs, waiting, consoles. */
#include <errno.h>

#include "hv/client/client.h"
#include "hv/client/client_impl.h"
#include "hv/rpc/varlink.h"

#define INTERFACE "org.hv.Manager."
#define METHOD_SIZE 80

static const char *full_name(const char *method, char buf[METHOD_SIZE])
{
    hv_assert(strlen(method) < METHOD_SIZE - sizeof(INTERFACE));
    snprintf(buf, METHOD_SIZE, INTERFACE "%s", method);
    return buf;
}

/* The connection broke: ssh may know why. */
static int explained(struct hv_client *c, int r, struct hv_error *e)
{
    if (c->over_ssh && e && r < 0 && e->code == HV_UNREACHABLE) {
        ssh_explain(&c->ssh, e);
    }
    return r;
}

int client_call(struct hv_client *c, const char *method, json_t *params, uint64_t timeout_ns, json_t **ret,
                struct hv_error *e)
{
    char name[METHOD_SIZE];

    return explained(c, varlink_call(client_varlink(c), full_name(method, name), params, timeout_ns, ret, e), e);
}

int client_stream(struct hv_client *c, const char *method, json_t *params, uint64_t timeout_ns,
                  int (*fn)(void *arg, json_t *reply, bool continues), void *arg, struct hv_error *e)
{
    char name[METHOD_SIZE];

    return explained(c, varlink_call_stream(client_varlink(c), full_name(method, name), params, timeout_ns, fn, arg, e), e);
}

int64_t client_job_of(const json_t *reply)
{
    return json_integer_value(json_object_get(json_object_get(reply, "job"), "id"));
}

static const char *text(const json_t *obj, const char *key)
{
    const char *s = json_string_value(json_object_get(obj, key));

    return s ? s : "";
}

struct job_watch {
    void (*progress)(void *arg, const json_t *job);
    void *arg;
    int result;
    struct hv_error *e;
};

/* The error a job ended with. error: {code, object, message, hint}. */
static int job_failed(const json_t *job, struct hv_error *e)
{
    const json_t *error = json_object_get(job, "error");
    enum hv_code code = hv_code_from_word(text(error, "code"));
    const char *message = text(error, "message"), *object = text(error, "object");

    int r = hv_fail(e, code == HV_OK ? HV_FAILED : code, *object ? object : text(job, "object"), "%s",
                    *message ? message : "the job failed");
    if (*text(error, "hint")) {
        hv_hint(e, "%s", text(error, "hint"));
    }
    return r;
}

static int on_job(void *arg, json_t *reply, bool continues)
{
    struct job_watch *w = arg;
    const json_t *job = json_object_get(reply, "job");
    const char *state = text(job, "state");

    if (w->progress) {
        w->progress(w->arg, job);
    }
    if (strcmp(state, "failed") == 0 || strcmp(state, "interrupted") == 0) {
        w->result = job_failed(job, w->e);
    } else if (strcmp(state, "cancelled") == 0) {
        w->result = hv_fail(w->e, HV_FAILED, text(job, "object"), "the job was cancelled");
    } else {
        /* running: more to come; done, or an end we do not know the word of: fine */
        w->result = 0;
    }
    return 0;
}

int client_wait_job(struct hv_client *c, int64_t job, uint64_t timeout_ns,
                    void (*progress)(void *arg, const json_t *job), void *arg, struct hv_error *e)
{
    struct job_watch w = { .progress = progress, .arg = arg, .e = e };

    if (job == 0) {
        return 0;
    }
    int r = client_stream(c, "WaitJob", json_pack("{s:I}", "id", (json_int_t)job), timeout_ns, on_job, &w, e);
    if (r == -ETIMEDOUT) {
        hv_fail(e, HV_TIMEOUT, NULL, "not finished in time; job %lld goes on", (long long)job);
        hv_hint(e, "hvctl job wait %lld", (long long)job);
    }
    return r < 0 ? r : w.result;
}

struct state_watch {
    void (*progress)(void *arg, const char *state);
    void *arg;
    bool holds;
};

static int on_state(void *arg, json_t *reply, bool continues)
{
    struct state_watch *w = arg;

    w->holds = json_is_true(json_object_get(reply, "holds"));
    if (w->progress) {
        w->progress(w->arg, text(reply, "state"));
    }
    return 0;
}

int client_wait(struct hv_client *c, const char *name, const char *cond, uint64_t timeout_ns,
                void (*progress)(void *arg, const char *state), void *arg, struct hv_error *e)
{
    struct state_watch w = { .progress = progress, .arg = arg };
    json_t *params = json_pack("{s:s, s:s}", "name", name, "cond", cond);
    uint64_t ms = MAX(timeout_ns / NS_PER_MS, 1);

    if (timeout_ns) {
        json_object_set_new(params, "timeout_ms", json_integer((json_int_t)MIN(ms, (uint64_t)INT64_MAX)));
    }
    /* the service keeps the time; ours is for one that does not answer any more */
    uint64_t guard;
    if (timeout_ns == 0 || __builtin_add_overflow(timeout_ns, 10 * NS_PER_SEC, &guard)) {
        guard = 0;
    }
    int r = client_stream(c, "Wait", params, guard, on_state, &w, e);
    if (r == 0 && !w.holds) {
        r = hv_fail(e, HV_TIMEOUT, name, "%s does not hold yet", cond);
    }
    return r;
}

int client_console(struct hv_client *c, const char *name, unsigned flags, struct client_console *ret,
                   struct hv_error *e)
{
    json_t *params = json_pack("{s:s, s:b, s:b, s:b}", "name", name, "read_only", !!(flags & CLIENT_CONSOLE_READ_ONLY),
                               "take_over", !!(flags & CLIENT_CONSOLE_TAKE_OVER), "history",
                               !!(flags & CLIENT_CONSOLE_HISTORY));
    struct client_console con = { .fd = -1 };
    json_t *reply = NULL;
    int r = varlink_call_upgraded(client_varlink(c), INTERFACE "Console", params, 0, &reply, &con.fd, &con.extra,
                                  &con.extra_len, e);

    if (r < 0) {
        return r;
    }
    hv_strlcpy(con.writer, text(reply, "writer"), sizeof(con.writer));
    json_decref(reply);
    *ret = con;
    return 0;
}
