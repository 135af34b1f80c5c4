/*
 * What callers ask of a guest: key-values, freeze and thaw, files. Whether the guest can answer
 * is decided here, from what its worker reports: while it boots, a request waits until its
 * daemon is there, or until the guest has been well for half a minute without one. Then, and
 * for every guest that has been up for longer, the answer is immediate.
 *
 *   method ─▶ guest_need() ─▶ ready: ask the worker ─▶ answer
 *                  │               └ "no daemon", and it still boots: wait on
 *                  ├ waits ─(report)─▶ looks again
 *                  └ cannot: unsupported, with the cure
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/service/service.h"

#define PATIENCE_MS        30000       /* of a guest that is well; tests set HV_GUEST_PATIENCE_MS */
#define NO_DRIVERS_FACTOR  4           /* of a guest of which nothing is heard at all */
#define FREEZE_MS          60000

struct guest_wait {
    struct service *svc;
    struct guid vm;
    const char *service;               /* "kvp" */
    struct varlink_call *call;         /* the one that waits; NULL: a job does */
    json_t *params;
    guest_ready_fn *ready;
    guest_failed_fn *failed;
    void *arg;
    bool asked;                        /* handed to the worker: not to be looked at */
    struct guest_wait *next;
};

static int64_t patience_ms(void)
{
    const char *text = getenv("HV_GUEST_PATIENCE_MS");
    char *end;
    long long v = text ? strtoll(text, &end, 10) : 0;
    return text && *text && *end == 0 && v >= 0 ? v : PATIENCE_MS;
}

static const json_t *integration(const struct svc_vm *vm) { return json_object_get(vm->runtime, "integration"); }

static const json_t *service_of(const struct svc_vm *vm, const char *name)
{
    size_t i;
    json_t *s;
    json_array_foreach(json_object_get(integration(vm), "services"), i, s) {
        const char *word = json_string_value(json_object_get(s, "service"));
        if (word && strcmp(word, name) == 0)
            return s;
    }
    return NULL;
}

static const char *daemon_of(const char *service)
{
    return strcmp(service, "kvp") == 0 ? "key-value" : strcmp(service, "vss") == 0 ? "freeze" : "file copy";
}

static bool enabled(const struct svc_vm *vm, const char *service)
{
    const struct { const char *name; bool on; } all[] = {
        {"heartbeat", vm->settings.services.heartbeat}, {"kvp", vm->settings.services.kvp}, {"vss", vm->settings.services.vss},
        {"file-copy", vm->settings.services.file_copy}};
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
        if (strcmp(all[i].name, service) == 0)
            return all[i].on;
    return false;
}

/* Has it been up for so long that what is not there will not come? */
static bool settled(const struct svc_vm *vm, bool *ret_well)
{
    const json_t *well = json_object_get(integration(vm), "well_ms");
    const json_int_t limit = patience_ms(), up = json_integer_value(json_object_get(vm->runtime, "uptime_ms"));
    *ret_well = json_is_integer(well);
    return *ret_well ? json_integer_value(well) >= limit : vm->runtime && up >= NO_DRIVERS_FACTOR * limit;
}

enum guest_verdict guest_verdict(const struct svc_vm *vm, const char *service, struct hv_error *e)
{
    const json_t *s = service_of(vm, service);
    bool well;
    if (vm->state == SVC_STARTING || (vm->state == SVC_RUNNING && !s && vm->settings.hyperv))
        return GUEST_WAIT;                          /* no report yet */
    if (vm->state != SVC_RUNNING) {
        hv_fail(e, HV_CONFLICT, vm->name, "it is %s", svc_state_word(vm));
        if (vm->state == SVC_OFF)
            hv_hint(e, "hvctl start %s", vm->name);
        return GUEST_NEVER;
    }
    if (!vm->settings.hyperv) {
        hv_fail(e, HV_UNSUPPORTED, vm->name, "it has no Hyper-V interface, and so no integration services");
        hv_hint(e, "hvctl set %s --hyperv on", vm->name);
        return GUEST_NEVER;
    }
    if (!enabled(vm, service)) {
        hv_fail(e, HV_CONFLICT, vm->name, "its service %s is off", service);
        hv_hint(e, "hvctl integration enable %s %s", vm->name, service);
        return GUEST_NEVER;
    }
    if (json_is_true(json_object_get(s, "ready")))
        return GUEST_READY;
    if (!json_is_true(json_object_get(s, "enabled")))
        return GUEST_WAIT;                          /* it has just been enabled */
    if (!settled(vm, &well))
        return GUEST_WAIT;
    if (well || json_is_true(json_object_get(s, "open"))) {
        hv_fail(e, HV_UNSUPPORTED, vm->name, "no %s daemon in the guest", daemon_of(service));
        hv_hint(e, "apt install hyperv-daemons there");
    } else {
        hv_fail(e, HV_UNSUPPORTED, vm->name, "no Hyper-V integration drivers in the guest");
        hv_hint(e, "modprobe hv_utils there");
    }
    return GUEST_NEVER;
}

/* ---- those who wait ---- */

static void wait_free(struct guest_wait *w)
{
    struct guest_wait **at = &w->svc->guest_waits;
    while (*at && *at != w)
        at = &(*at)->next;
    if (*at)
        *at = w->next;
    if (w->call)
        varlink_call_on_close(w->call, NULL, NULL);
    varlink_call_unref(w->call);
    json_decref(w->params);
    free(w);
}

static struct svc_vm *vm_of(const struct guest_wait *w)
{
    char id[GUID_TEXT_SIZE];
    return registry_find(w->svc, guid_format(&w->vm, id));
}

static void fail_wait(struct guest_wait *w, const struct hv_error *e)
{
    if (w->call)
        varlink_reply_error(w->call, e);
    else
        w->failed(w->arg, e);
    wait_free(w);
}

static void look(struct guest_wait *w)
{
    struct svc_vm *vm = vm_of(w);
    struct hv_error e = {0};
    enum guest_verdict v = GUEST_NEVER;
    if (vm)
        v = guest_verdict(vm, w->service, &e);
    else
        hv_fail(&e, HV_NOT_FOUND, "", "no such VM");
    if (v == GUEST_WAIT)
        return;
    w->asked = v == GUEST_READY;
    if (v == GUEST_NEVER || w->ready(w, vm, &e) < 0)
        fail_wait(w, &e);
}

void guest_check(struct svc_vm *vm)
{
    for (struct guest_wait *w = vm->svc->guest_waits, *next; w; w = next) {
        next = w->next;
        if (!w->asked && guid_equal(&w->vm, &vm->id))
            look(w);
    }
}

static void wait_closed(void *arg)
{
    struct guest_wait *w = arg;
    if (!w->asked) {
        wait_free(w);
        return;
    }
    varlink_call_unref(w->call);       /* the worker's answer is still to come, and frees it */
    w->call = NULL;
    w->failed = NULL;
}

static int need(struct svc_vm *vm, const char *service, struct varlink_call *call, const json_t *params, guest_ready_fn *ready,
                guest_failed_fn *failed, void *arg, struct hv_error *e)
{
    struct guest_wait *w = hv_alloc(sizeof(*w));
    if (!w)
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    *w = (struct guest_wait){.svc = vm->svc, .vm = vm->id, .service = service, .ready = ready, .failed = failed, .arg = arg,
                             .params = json_incref((json_t *)(uintptr_t)params), .next = vm->svc->guest_waits};
    vm->svc->guest_waits = w;
    if (call) {
        w->call = varlink_call_ref(call);
        varlink_call_on_close(call, wait_closed, w);
    }
    look(w);
    return 0;
}

void guest_waits_free(struct service *svc)
{
    struct hv_error e = {0};
    hv_fail(&e, HV_FAILED, "", "the service ends");
    while (svc->guest_waits) {
        struct guest_wait *w = svc->guest_waits;
        if (w->failed)
            w->failed(w->arg, &e);
        wait_free(w);
    }
}

/* The worker's answer of a call that waits. */
static void on_answer(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct guest_wait *w = arg;
    struct svc_vm *vm = vm_of(w);
    struct hv_error why = {0};
    bool well;
    if (!w->call) {                                     /* its caller went */
        wait_free(w);
        return;
    }
    if (e && e->code == HV_UNSUPPORTED && vm && !settled(vm, &well)) {
        w->asked = false;                               /* its daemon may be on its way: the next report */
        return;
    }
    if (e && e->code == HV_UNREACHABLE) {
        hv_fail(&why, HV_CONFLICT, vm ? vm->name : "", "the guest went down meanwhile");
        e = &why;
    }
    if (e)
        varlink_reply_error(w->call, e);
    else
        varlink_reply(w->call, json_incref(p), false);
    wait_free(w);
}

/* ---- methods ---- */

static void method(struct service *svc, struct varlink_call *call, const json_t *params, const char *service,
                   guest_ready_fn *ready)
{
    struct svc_vm *vm = registry_need(svc, call, params);
    struct hv_error e = {0};
    if (vm && need(vm, service, call, params, ready, NULL, NULL, &e) < 0)
        varlink_reply_error(call, &e);
}

static int ask_items(struct guest_wait *w, struct svc_vm *vm, struct hv_error *e)
{
    return worker_ask(vm, "org.hv.Worker.GuestItems", NULL, false, NULL, 0, on_answer, w, e);
}

static int ask_set(struct guest_wait *w, struct svc_vm *vm, struct hv_error *e)
{
    json_t *p = json_pack("{s:O}", "key", json_object_get(w->params, "key")), *value = json_object_get(w->params, "value");
    if (value)
        json_object_set(p, "value", value);
    return worker_ask(vm, "org.hv.Worker.SetGuestItem", p, false, NULL, 0, on_answer, w, e);
}

static int ask_freeze(struct guest_wait *w, struct svc_vm *vm, struct hv_error *e)
{
    const json_t *ms = json_object_get(w->params, "timeout_ms");
    return worker_ask(vm, "org.hv.Worker.Freeze",
                      json_pack("{s:I}", "timeout_ms", json_is_integer(ms) ? json_integer_value(ms) : (json_int_t)FREEZE_MS), false,
                      NULL, 0, on_answer, w, e);
}

static int ask_thaw(struct guest_wait *w, struct svc_vm *vm, struct hv_error *e)
{
    return worker_ask(vm, "org.hv.Worker.Thaw", NULL, false, NULL, 0, on_answer, w, e);
}

void guest_items(void *arg, struct varlink_call *call, const json_t *params) { method(arg, call, params, "kvp", ask_items); }
void guest_set_item(void *arg, struct varlink_call *call, const json_t *params) { method(arg, call, params, "kvp", ask_set); }
void guest_freeze(void *arg, struct varlink_call *call, const json_t *params) { method(arg, call, params, "vss", ask_freeze); }
void guest_thaw(void *arg, struct varlink_call *call, const json_t *params) { method(arg, call, params, "vss", ask_thaw); }

/* ---- a file, as a job ---- */

struct copy {
    struct service *svc;
    struct guid vm;
    int64_t job;
    int fd;
    uint64_t size;
    json_t *params;
    bool cancelled;
};

static void copy_end(struct copy *c, const struct hv_error *e)
{
    struct job *job = job_find(c->svc, c->job);
    if (job)
        job_done(job, e);
    hv_cleanup_close(&c->fd);
    json_decref(c->params);
    free(c);
}

static void copy_failed(void *arg, const struct hv_error *e) { copy_end(arg, e); }

static void on_cancelled(void *arg, json_t *p, bool continues, const struct hv_error *e) { }

static void ask_cancel(const struct copy *c, struct svc_vm *vm)
{
    struct hv_error e = {0};
    (void)worker_call(vm, "org.hv.Worker.CancelCopy", json_pack("{s:I}", "id", (json_int_t)c->job), NULL, 0, on_cancelled, NULL, &e);
}

static void on_copied(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct guest_wait *w = arg;
    struct copy *c = w->arg;
    struct svc_vm *vm = vm_of(w);
    struct job *job = job_find(c->svc, c->job);
    struct hv_error why = {0};
    bool well;
    if (!e && continues) {
        json_int_t size = json_integer_value(json_object_get(p, "size"));
        if (job && size > 0)
            job_progress(job, (int)(json_integer_value(json_object_get(p, "done")) * 100 / size));
        if (c->cancelled && vm)
            ask_cancel(c, vm);              /* it had not heard of the copy yet */
        return;
    }
    if (e && e->code == HV_UNSUPPORTED && vm && !settled(vm, &well) && !c->cancelled) {
        w->asked = false;
        return;
    }
    if (e && e->code == HV_UNREACHABLE) {
        hv_fail(&why, HV_CONFLICT, vm ? vm->name : "", "the guest went down meanwhile");
        e = &why;
    }
    copy_end(c, e);
    wait_free(w);
}

static int ask_copy(struct guest_wait *w, struct svc_vm *vm, struct hv_error *e)
{
    const struct copy *c = w->arg;
    json_t *p = json_pack("{s:i s:I s:O s:b s:b s:I}", "fd", 0, "size", (json_int_t)c->size, "path",
                          json_object_get(c->params, "path"), "overwrite", json_is_true(json_object_get(c->params, "overwrite")),
                          "parents", json_is_true(json_object_get(c->params, "parents")), "id", (json_int_t)c->job);
    return worker_ask(vm, "org.hv.Worker.CopyFile", p, true, &c->fd, 1, on_copied, w, e);
}

/* Not begun, it ends now; else when the guest has let go of the file. */
static void cancel_copy(void *arg)
{
    struct copy *c = arg;
    struct guest_wait *w = c->svc->guest_waits;
    struct hv_error e = {0};
    while (w && w->arg != c)
        w = w->next;
    struct svc_vm *vm = w ? vm_of(w) : NULL;
    c->cancelled = true;
    if (vm && w->asked) {
        ask_cancel(c, vm);
    } else if (w) {
        hv_fail(&e, HV_FAILED, vm ? vm->name : "", "the job was cancelled");
        fail_wait(w, &e);
    }
}

void guest_copy(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    const char *source = json_string_value(json_object_get(params, "source"));
    struct hv_error e = {0};
    struct stat st;
    if (!vm)
        return;
    int fd = broker_open(varlink_call_peer(call), source, "file", &e);
    struct copy *c = fd >= 0 ? hv_alloc(sizeof(*c)) : NULL;
    struct job *job = c ? job_new(vm->svc, "copy", vm->name) : NULL;
    if (!job || fstat(fd, &st) < 0) {
        if (!hv_error_is_set(&e))
            hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
        if (job)
            job_done(job, &e);
        hv_cleanup_close(&fd);
        free(c);
        varlink_reply_error(call, &e);
        return;
    }
    *c = (struct copy){.svc = vm->svc, .vm = vm->id, .job = job_id(job), .fd = fd, .size = (uint64_t)st.st_size,
                       .params = json_incref((json_t *)(uintptr_t)params)};
    event_add(vm->svc, "disk", vm->name, "info", (int64_t)varlink_call_peer(call)->uid, NULL, NULL, "%s is copied into the guest", source);
    varlink_reply(call, json_pack("{s:o}", "job", job_json(job)), false);
    job_on_cancel(job, cancel_copy, c);
    if (need(vm, "file-copy", NULL, params, ask_copy, copy_failed, c, &e) < 0)
        copy_end(c, &e);
}
