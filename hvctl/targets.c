/*
 * Targets: from what was typed to VMs, and the same verb on several of them in parallel.
 */
#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>

#include "hvctl/hvctl.h"

static const char *vm_text(const json_t *vm, const char *key)
{
    const char *s = json_string_value(json_object_get(vm, key));
    return s ? s : "";
}

static int add(struct targets *ts, const char *name, json_t *vm)
{
    for (unsigned i = 0; i < ts->n; i++) {
        if (strcmp(ts->t[i].name, name) == 0) {
            return 0;                       /* named twice, or by two globs */
        }
    }
    struct target *grown = hv_realloc_array(ts->t, ts->n + 1, sizeof(*grown));
    char *copy = hv_strdup(name);
    if (grown) {
        ts->t = grown;
    }
    if (!grown || !copy) {
        free(copy);
        return -ENOMEM;
    }
    ts->t[ts->n++] = (struct target){.name = copy, .vm = vm ? json_incref(vm) : NULL};
    return 0;
}

/* Not found: the nearest names; a condition typed after --wait was meant for it. */
static void not_found(struct cli_call *c, struct target *t, const json_t *vms)
{
    struct cli_suggest s;
    char hint[200];
    size_t i;
    json_t *vm;

    hv_fail(&t->error, HV_NOT_FOUND, t->name, "no such VM");
    if (c->cmd->use & CLI_USE_WAIT) {
        const struct cli_value *w = cli_opt(c, "wait");
        static const char *const conds[] = {"running", "off", "paused", "heartbeat", "ip", "memory-ok"};
        for (unsigned k = 0; w && !w->text && k < ARRAY_SIZE(conds); k++) {
            if (strcmp(t->name, conds[k]) == 0) {
                hv_hint(&t->error, "--wait=%s", t->name);
                return;
            }
        }
    }
    cli_suggest_init(&s, t->name);
    json_array_foreach((json_t *)vms, i, vm) {
        cli_suggest_add(&s, vm_text(vm, "name"));
    }
    if (c->implied_verb) {                  /* `memory sett`: perhaps a verb was meant */
        for (const struct cli_command *cmd = c->noun->commands; cmd->noun; cmd++) {
            if (!cli_is_later(cmd)) {
                cli_suggest_add(&s, cmd->verb);
            }
        }
    }
    if (s.n) {
        hv_hint(&t->error, "%s", cli_suggest_text(&s, "", hint, sizeof(hint)));
    }
}

/* @GROUP: who is in it. One without members is no error: there is nothing to do. */
static int add_group(struct targets *ts, const char *arg, const json_t *vms, const json_t *groups, struct hv_error *e)
{
    size_t i, g;
    json_t *vm, *group;
    bool found = false;
    json_array_foreach((json_t *)groups, g, group) {
        found = found || strcmp(vm_text(group, "name"), arg + 1) == 0;
    }
    if (!found) {
        struct cli_suggest s;
        char hint[200];
        cli_suggest_init(&s, arg + 1);
        json_array_foreach((json_t *)groups, g, group) {
            cli_suggest_add(&s, vm_text(group, "name"));
        }
        int r = hv_fail(e, HV_NOT_FOUND, arg, "no such group");
        hv_hint(e, "%s", s.n ? cli_suggest_text(&s, "@", hint, sizeof(hint)) : "hvctl group list");
        return r;
    }
    json_array_foreach((json_t *)vms, i, vm) {
        json_array_foreach(json_object_get(json_object_get(vm, "runtime"), "groups"), g, group) {
            const char *name = json_string_value(group);
            if (name && strcmp(name, arg + 1) == 0 && add(ts, vm_text(vm, "name"), vm) < 0) {
                return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
            }
        }
    }
    return 0;
}

static int add_named(struct cli_call *c, struct targets *ts, const char *arg, const json_t *vms, const json_t *groups,
                     struct hv_error *e)
{
    bool glob = strpbrk(arg, "*?[") != NULL, found = false;
    size_t i;
    json_t *vm;

    if (arg[0] == '@') {
        return add_group(ts, arg, vms, groups, e);
    }
    json_array_foreach((json_t *)vms, i, vm) {
        const char *name = vm_text(vm, "name");
        if (strcmp(name, arg) == 0 || strcasecmp(vm_text(vm, "id"), arg) == 0 ||
            (glob && fnmatch(arg, name, 0) == 0)) {
            found = true;
            if (add(ts, name, vm) < 0) {
                return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
            }
        }
    }
    if (found) {
        return 0;
    }
    if (add(ts, arg, NULL) < 0) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    struct target *t = &ts->t[ts->n - 1];
    if (glob) {
        hv_fail(&t->error, HV_NOT_FOUND, arg, "no VM has such a name");
    } else if (!hv_error_is_set(&t->error)) {
        not_found(c, t, vms);
        if (strncmp(t->error.hint, "--wait=", 7) == 0) {
            *e = t->error;                  /* no target at all: nothing is begun that would wait for something else */
            return -ENOENT;
        }
    }
    return 0;
}

/*
 * The VMs that the arguments can mean: those named, so that one of many costs little; all where all
 * are meant, or where one is not found and names near it are to be suggested.
 */
static int fetch_vms(struct cli_call *c, struct conn *k, unsigned first, json_t **ret, struct hv_error *e)
{
    json_t *names = json_array();
    for (unsigned a = first; a < c->n_args; a++) {
        json_array_append_new(names, json_string(c->args[a]));
    }
    struct hv_error why = {0};
    int r = -ENOENT;
    if (!c->all && json_array_size(names) == c->n_args - first && c->n_args > first) {
        r = conn_call(k, "List", json_pack("{s:O}", "names", names), 0, ret, &why);
    }
    json_decref(names);
    if (r == 0 || (hv_error_is_set(&why) && why.code != HV_NOT_FOUND)) {
        if (r < 0 && e) {
            *e = why;
        }
        return r;
    }
    return conn_call(k, "List", NULL, 0, ret, e);
}

int targets_find(struct cli_call *c, struct conn *k, unsigned first, bool (*filter)(const json_t *vm),
                 struct targets *ret, struct hv_error *e)
{
    struct targets ts = {.one = !c->all && c->n_args == first + 1 && c->args[first][0] != '@' && !strpbrk(c->args[first], "*?[")};
    json_t *reply, *vm, *groups = NULL;
    size_t i;
    int r = fetch_vms(c, k, first, &reply, e);
    if (r < 0) {
        return r;
    }
    const json_t *vms = json_object_get(reply, "vms");
    if (c->all) {
        json_array_foreach((json_t *)vms, i, vm) {
            if (r == 0 && (!filter || filter(vm)) && add(&ts, vm_text(vm, "name"), vm) < 0) {
                r = hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
            }
        }
    }
    for (unsigned a = first; r == 0 && !groups && a < c->n_args; a++) {
        r = c->args[a][0] == '@' ? conn_call(k, "ListGroups", NULL, 0, &groups, e) : 0;
    }
    for (unsigned a = first; r == 0 && a < c->n_args; a++) {
        r = add_named(c, &ts, c->args[a], vms, json_object_get(groups, "groups"), e);
    }
    json_decref(reply);
    json_decref(groups);
    if (r < 0) {
        targets_free(&ts);
        return r;
    }
    *ret = ts;
    return 0;
}

void targets_free(struct targets *ts)
{
    for (unsigned i = 0; i < ts->n; i++) {
        free(ts->t[i].name);
        json_decref(ts->t[i].vm);
    }
    free(ts->t);
    *ts = (struct targets){0};
}

/* ---- in parallel ---- */

struct crew {
    struct cli_call *c;
    struct targets *ts;
    int (*fn)(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e);
    void *arg;
    pthread_mutex_t lock;
    unsigned next;              /* under lock */
};

static void work_on(struct crew *w, struct conn **k, struct target *t)
{
    int r = 0;
    if (hv_error_is_set(&t->error)) {
        r = -ENOENT;
    }
    if (r == 0 && !*k) {
        r = conn_open(w->c, k, &t->error);
    }
    if (r == 0) {
        r = w->fn(w->c, *k, t, w->arg, &t->error);
    }
    if (r < 0 && !hv_error_is_set(&t->error)) {
        hv_fail_errno(&t->error, -r, t->name, "%s", w->c->cmd->verb);
    }
    if (t->error.code == HV_TIMEOUT || t->error.code == HV_UNREACHABLE) {
        conn_close(*k);                     /* an answer may still come: not for the next call */
        *k = NULL;
    }
    if (r < 0 && w->ts->n > 1) {
        cli_print_error(w->c, &t->error);
    }
}

static void *worker(void *arg)
{
    struct crew *w = arg;
    struct conn *k = NULL;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        unsigned i = w->next++;
        pthread_mutex_unlock(&w->lock);
        if (i >= w->ts->n) {
            break;
        }
        work_on(w, &k, &w->ts->t[i]);
    }
    conn_close(k);
    return NULL;
}

int targets_each(struct cli_call *c, struct targets *ts,
                 int (*fn)(struct cli_call *c, struct conn *k, struct target *t, void *arg, struct hv_error *e),
                 void *arg, struct hv_error *e)
{
    struct crew w = {.c = c, .ts = ts, .fn = fn, .arg = arg, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[64];
    unsigned n = 0, want = MIN(MIN(c->jobs, ts->n), (unsigned)ARRAY_SIZE(threads));

    while (want > 1 && n + 1 < want && pthread_create(&threads[n], NULL, worker, &w) == 0) {
        n++;
    }
    worker(&w);                             /* this thread is one of them, so that one is always there */
    for (unsigned i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }

    unsigned failed = 0;
    enum hv_code common = HV_OK;
    for (unsigned i = 0; i < ts->n; i++) {
        if (hv_error_is_set(&ts->t[i].error)) {
            common = !failed || common == ts->t[i].error.code ? ts->t[i].error.code : HV_FAILED;
            failed++;
        }
    }
    if (failed && ts->n == 1) {
        *e = ts->t[0].error;
        return -EIO;
    }
    c->exit_code = !failed ? HV_OK : failed == ts->n ? (int)common : HV_PARTIAL;
    return 0;
}

int targets_print(struct cli_call *c, const struct targets *ts, const struct cli_columns *columns, const char *part,
                  struct hv_error *e)
{
    struct cli_printer p;
    json_t *reply, *vm, *rows = json_array();
    struct conn *k = NULL;
    size_t i;
    if (c->format == CLI_FMT_DEFAULT || c->format == CLI_FMT_TABLE) {
        json_decref(rows);
        return 0;
    }
    int r = conn_open(c, &k, e);
    if (r == 0) {
        r = conn_call(k, "List", NULL, 0, &reply, e);
    }
    conn_close(k);
    if (r < 0) {
        json_decref(rows);
        return r;
    }
    for (unsigned t = 0; t < ts->n; t++) {
        json_array_foreach(json_object_get(reply, "vms"), i, vm) {
            if (!hv_error_is_set(&ts->t[t].error) && strcmp(vm_text(vm, "name"), ts->t[t].name) == 0) {
                json_t *view = view_vm(vm);
                json_array_append_new(rows, part ? view_part(view, part) : json_incref(view));
                json_decref(view);
            }
        }
    }
    r = cli_printer_init(&p, c, columns, CLI_FMT_TABLE, e);
    if (r == 0) {
        r = print_rows(c, &p, rows, ts->one, e);
    }
    cli_printer_fini(&p);
    json_decref(rows);
    json_decref(reply);
    return r < 0 ? r : 0;
}
