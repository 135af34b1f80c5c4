/* vm start, stop, restart, pause, resume and wait. */
#include <errno.h>
#include <stdio.h>

#include "hv/base/units.h"
#include "hvctl/hvctl.h"

/* Find the targets, ask, do fn on each, print what -o wants. */
static int each(struct cli_call *c, const char *doing, bool (*filter)(const json_t *vm),
                int (*fn)(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e),
                void *arg, struct targets *ts, struct hv_error *e)
{
    struct conn *k;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = targets_find(c, k, 0, filter, ts, e);
    conn_close(k);
    for (unsigned i = 0; r == 0 && doing && i < ts->n; i++) {
        const char *state = json_string_value(json_object_get(ts->t[i].vm, "state"));
        if (!hv_error_is_set(&ts->t[i].error) && state && strcmp(state, "off") != 0) {
            r = cli_ask(c, ts->t[i].name, doing, e);
        }
    }
    if (r == 0) {
        r = targets_each(c, ts, fn, arg, e);
    }
    if (r == 0 && !c->no_wait) {
        r = targets_print(c, ts, &view_vm_columns, NULL, e);
    }
    return r;
}

/* ---- conditions ---- */

/*
 * Of --for and --wait, before anything is done that would wait for them: is there such a one? Those of the
 * grammar that this version lacks answer so, whatever the target.
 */
static int check_cond(struct cli_call *c, const char *option, struct hv_error *e)
{
    static const char *const words[] = {"running", "off", "paused", "heartbeat", "ip", "memory-ok"};
    const char *cond = cli_has(c, option) ? cli_text(c, option, "running") : "running";
    char object[80];
    bool known = (strncmp(cond, "console:", 8) == 0 && cond[8]) || (strncmp(cond, "kvp:", 4) == 0 && cond[4] && cond[4] != '=');
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
        known = known || strcmp(cond, words[i]) == 0;
    }
    if (known) {
        return 0;
    }
    snprintf(object, sizeof(object), option[0] == 'w' ? "--%s=%.60s" : "--%s %.60s", option, cond);
    if (cli_word_in(CONDITIONS_LATER, cond, strcspn(cond, ":"))) {
        hv_fail(e, HV_UNSUPPORTED, object, "not in this version");
        hv_hint(e, "%s", c->tool->later_hint);
        return -EOPNOTSUPP;
    }
    hv_fail(e, HV_USAGE, object, "there is no such condition");
    hv_hint(e, "running, off, paused, heartbeat, ip, kvp:KEY, kvp:KEY=VALUE, memory-ok, console:TEXT");
    return -EINVAL;
}

/* ---- start ---- */

int wait_for(struct cli_call *c, struct conn *k, const char *name, const char *cond, uint64_t began_ns,
             struct hv_error *e)
{
    json_t *reply, *params = json_pack("{s:s,s:s}", "name", name, "cond", cond);
    uint64_t limit = c->timeout_ns, used = hv_now_ns() - began_ns;
    if (limit) {
        limit = limit > used ? limit - used : 1;
        json_object_set_new(params, "timeout_ms", json_integer((json_int_t)MAX(limit / NS_PER_MS, (uint64_t)1)));
    }
    /* The service keeps the time; a little more here, so that its sentence arrives. */
    int r = conn_call(k, "Wait", params, limit ? limit + 2 * NS_PER_SEC : UINT64_MAX, &reply, e);
    if (r < 0) {
        return r;
    }
    if (!json_is_true(json_object_get(reply, "holds"))) {
        char age[32];
        snprintf(age, sizeof(age), "%.3gs", (double)c->timeout_ns / 1e9);
        r = hv_fail(e, HV_TIMEOUT, name, "not %s after %s", cond, age);
    }
    json_decref(reply);
    return r;
}

/* beside: what those before it would have taken; this one's is added. */
static int start_dry(struct cli_call *c, struct conn *k, const char *name, uint64_t *beside, struct hv_error *e)
{
    json_t *reply;
    int r = conn_call(k, "Start", json_pack("{s:s,s:b,s:I}", "name", name, "dry_run", true, "beside", (json_int_t)*beside), 0,
                      &reply, e);
    if (r < 0) {
        return r;
    }
    const json_t *memory = json_object_get(reply, "memory");
    *beside += (uint64_t)json_integer_value(memory);
    cli_note(c, json_is_integer(memory) ? "%s: would be started" : "%s: already running", name);
    json_decref(reply);
    return 0;
}

static int start_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    json_t *reply;
    bool already;
    uint64_t began = hv_now_ns();
    if (c->dry_run) {
        return start_dry(c, k, t->name, arg, e);
    }
    int r = conn_call(k, "Start", json_pack("{s:s,s:b}", "name", t->name, "paused", cli_has(c, "paused")), 0, &reply, e);
    if (r < 0) {
        return r;
    }
    r = job_follow(c, k, reply, NULL, &already, e);
    json_decref(reply);
    if (r < 0 || c->no_wait) {
        return r;
    }
    if (already) {
        cli_note(c, "%s: already running", t->name);
    } else {
        cli_note(c, "%s: started (%.1fs)", t->name, (double)(hv_now_ns() - began) / 1e9);
    }
    if (!cli_has(c, "wait")) {
        return 0;
    }
    const char *cond = cli_text(c, "wait", "running");
    r = wait_for(c, k, t->name, cond, began, e);
    if (r == 0) {
        cli_note(c, "%s: %s (%.1fs)", t->name, cond, (double)(hv_now_ns() - began) / 1e9);
    }
    return r;
}

int vm_start(struct cli_call *c, struct hv_error *e)
{
    struct targets ts = {0};
    uint64_t beside = 0;
    bool console = cli_has(c, "console");
    int r = check_cond(c, "wait", e);
    if (r < 0) {
        return r;
    }
    if (console && (c->all || c->n_args != 1)) {
        return hv_fail(e, HV_USAGE, NULL, "--console needs exactly one VM");
    }
    if (c->dry_run) {
        c->jobs = 1;                            /* each has to know what those before it take */
    }
    r = each(c, NULL, NULL, start_one, &beside, &ts, e);
    if (r == 0 && console && ts.n == 1 && !c->no_wait && !c->dry_run) {
        r = attach_console(c, ts.t[0].name, e);
    }
    targets_free(&ts);
    return r;
}

/* ---- stop ---- */

#define STOP_TIMEOUT_NS (120 * NS_PER_SEC)
#define STOP_PATIENCE_NS (10 * NS_PER_SEC)

struct patience { struct cli_call *c; const char *name; };

static void no_reaction(void *arg)
{
    struct patience *p = arg;
    if (!p->c->quiet) {
        cli_note(p->c, "%s: no reaction yet", p->name);
        cli_try(p->c, "hvctl stop %s --turn-off", p->name);
    }
}

/* Was it turned off in the end, rather than shut down by its guest? */
static bool was_turned_off(struct conn *k, const char *name)
{
    json_t *reply;
    if (conn_call(k, "List", json_pack("{s:[s]}", "names", name), 0, &reply, NULL) < 0) {
        return false;
    }
    const json_t *vm = json_array_get(json_object_get(reply, "vms"), 0);
    const char *word = json_string_value(cli_json_path(vm, "runtime.exit"));
    bool r = word && strcmp(word, "turned-off") == 0;
    json_decref(reply);
    return r;
}

static int stop_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    bool off = cli_has(c, "turn-off"), already;
    const char *then = cli_text(c, "then", NULL);
    uint64_t limit = c->timeout_ns ? c->timeout_ns : STOP_TIMEOUT_NS, began = hv_now_ns();
    struct patience p = {c, t->name};
    /* The service keeps the time of a shutdown; here only so long that its answer can arrive. */
    struct job_follow how = {.timeout_ns = limit + 10 * NS_PER_SEC, .patience_ns = off ? 0 : STOP_PATIENCE_NS,
                             .impatient = no_reaction, .arg = &p};
    json_t *reply, *params = json_pack("{s:s,s:s,s:I}", "name", t->name, "mode", off ? "turn-off" : "shutdown",
                                       "timeout_ms", (json_int_t)MAX(limit / NS_PER_MS, (uint64_t)1));
    if (then && !off) {
        json_object_set_new(params, "then", json_string(then));
    }
    if (cli_has(c, "force")) {
        json_object_set_new(params, "force", json_true());
    }
    bool alone = c->tty_err && !c->quiet && c->n_args == 1 && !c->all && !c->no_wait;
    int r = conn_call(k, "Stop", params, 0, &reply, e);
    if (r < 0) {
        return r;
    }
    if (alone && json_is_object(json_object_get(reply, "job"))) {
        cli_note(c, off ? "%s: turning off ..." : "%s: shutting down ...", t->name);
    }
    r = job_follow(c, k, reply, &how, &already, e);
    json_decref(reply);
    if (r < 0 || c->no_wait) {
        return r;
    }
    double s = (double)(hv_now_ns() - began) / 1e9;
    if (already) {
        cli_note(c, "%s: already off", t->name);
    } else if (off) {
        cli_note(c, "%s: turned off", t->name);
    } else if (then && was_turned_off(k, t->name)) {
        const uint64_t took = hv_now_ns() - began;
        char age[32];
        format_age(MIN(took, limit) / NS_PER_SEC, age, sizeof(age));
        cli_note(c, "%s: %s; turned off after %s", t->name, took >= limit ? "no reaction" : "no shutdown service in the guest", age);
    } else {
        cli_note(c, "%s: shutting down ... off (%.0fs)", t->name, s);
    }
    return 0;
}

int vm_stop(struct cli_call *c, struct hv_error *e)
{
    struct targets ts = {0};
    if (cli_has(c, "turn-off") && cli_has(c, "then")) {
        return hv_fail(e, HV_USAGE, NULL, "--turn-off and --then exclude each other");
    }
    if (cli_has(c, "turn-off") && cli_has(c, "force")) {
        return hv_fail(e, HV_USAGE, NULL, "--turn-off and --force exclude each other");
    }
    int r = each(c, cli_has(c, "turn-off") ? "turning it off" : NULL, NULL, stop_one, NULL, &ts, e);
    targets_free(&ts);
    return r;
}

/* ---- restart, pause, resume ---- */

static int restart_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    json_t *reply;
    bool already;
    uint64_t began = hv_now_ns();
    json_t *params = json_pack("{s:s,s:s}", "name", t->name, "mode", cli_has(c, "reset") ? "reset" : "guest");
    if (c->timeout_ns) {
        json_object_set_new(params, "timeout_ms", json_integer((json_int_t)MAX(c->timeout_ns / NS_PER_MS, (uint64_t)1)));
    }
    int r = conn_call(k, "Restart", params, 0, &reply, e);
    if (r < 0) {
        return r;
    }
    r = job_follow(c, k, reply, NULL, &already, e);
    json_decref(reply);
    if (r == 0 && !c->no_wait) {
        cli_note(c, "%s: restarted", t->name);
        if (cli_has(c, "wait")) {
            r = wait_for(c, k, t->name, cli_text(c, "wait", "running"), began, e);
        }
    }
    return r;
}

int vm_restart(struct cli_call *c, struct hv_error *e)
{
    struct targets ts = {0};
    int r = check_cond(c, "wait", e);
    if (r < 0) {
        return r;
    }
    r = each(c, cli_has(c, "reset") ? "resetting it" : NULL, NULL, restart_one, NULL, &ts, e);
    targets_free(&ts);
    return r;
}

static int simple_one(struct cli_call *c, struct conn *k, struct target *t, const char *method, const char *done,
                      const char *already_done, struct hv_error *e)
{
    json_t *reply;
    bool already;
    int r = conn_call(k, method, json_pack("{s:s}", "name", t->name), 0, &reply, e);
    if (r < 0) {
        return r;
    }
    r = job_follow(c, k, reply, NULL, &already, e);
    json_decref(reply);
    if (r == 0 && !c->no_wait) {
        cli_note(c, "%s: %s", t->name, already ? already_done : done);
    }
    return r;
}

static int pause_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    return simple_one(c, k, t, "Pause", "paused", "already paused", e);
}

static int resume_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    return simple_one(c, k, t, "Resume", "running", "already running", e);
}

static bool is_running(const json_t *vm)
{
    const char *s = json_string_value(json_object_get(vm, "state"));
    return s && strcmp(s, "running") == 0;
}

static bool is_paused(const json_t *vm)
{
    const char *s = json_string_value(json_object_get(vm, "state"));
    return s && strcmp(s, "paused") == 0;
}

int vm_pause(struct cli_call *c, struct hv_error *e)
{
    struct targets ts = {0};
    int r = each(c, NULL, is_running, pause_one, NULL, &ts, e);
    targets_free(&ts);
    return r;
}

int vm_resume(struct cli_call *c, struct hv_error *e)
{
    struct targets ts = {0};
    int r = each(c, NULL, is_paused, resume_one, NULL, &ts, e);
    targets_free(&ts);
    return r;
}

/* ---- wait ---- */

static int wait_one(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e)
{
    return wait_for(c, k, t->name, cli_text(c, "for", "running"), hv_now_ns(), e);
}

int vm_wait(struct cli_call *c, struct hv_error *e)
{
    struct targets ts = {0};
    int r = check_cond(c, "for", e);
    if (r < 0) {
        return r;
    }
    /* All at once: waiting costs nothing, and one must not keep the others from being seen. */
    if (!cli_has(c, "jobs")) {
        c->jobs = 64;
    }
    r = each(c, NULL, NULL, wait_one, NULL, &ts, e);
    targets_free(&ts);
    return r;
}
