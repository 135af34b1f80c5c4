/*
 * A restart: by the guest, asked of its shutdown service, or by a reset. Done when the guest boots
 * again, which may be later where it has to wait for the memory it boots with (paging.c).
 */
#include <errno.h>

#include "hv/service/service.h"

struct restarting {
    struct service *svc;
    struct guid vm;
    int64_t job;
    json_int_t resets;                 /* before */
    bool reset;
    bool asked, over;                  /* asked: on_asked is still to come, and frees it when over */
    struct loop_timer *timer;
    struct restarting *next;
};

static void restarting_free(struct restarting *r)
{
    struct restarting **at = &r->svc->restarts;
    while (*at && *at != r)
        at = &(*at)->next;
    if (*at)
        *at = r->next;
    loop_timer_free(r->svc->loop, r->timer);
    r->timer = NULL;
    r->over = true;
    if (!r->asked)
        free(r);
}

static void end(struct restarting *r, const struct hv_error *e)
{
    struct job *job = job_find(r->svc, r->job);
    if (job)
        job_done(job, e);
    restarting_free(r);
}

static void on_limit(void *arg)
{
    struct restarting *r = arg;
    struct job *job = job_find(r->svc, r->job);
    struct hv_error e = {0};
    const char *name = job ? job_object(job) : "";
    hv_fail(&e, HV_TIMEOUT, name, "the guest did not restart in time");
    if (!r->reset)
        hv_hint(&e, "hvctl restart %s --reset", name);
    end(r, &e);
}

static void on_asked(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct restarting *r = arg;
    struct hv_error why = {0};
    r->asked = false;
    if (r->over) {
        free(r);
        return;
    }
    if (!e || e->code == HV_UNREACHABLE)
        return;                        /* the next report, or the end of its process, says the rest */
    why = *e;
    if (!r->reset)
        hv_hint(&why, "hvctl restart %s --reset", e->object);
    end(r, &why);
}

static json_int_t resets_of(const struct svc_vm *vm) { return json_integer_value(json_object_get(vm->runtime, "resets")); }

void restart_check(struct svc_vm *vm)
{
    for (struct restarting *r = vm->svc->restarts, *next; r; r = next) {
        struct hv_error e = {0};
        next = r->next;
        if (!guid_equal(&r->vm, &vm->id))
            continue;
        if (vm->state == SVC_OFF) {
            hv_fail(&e, HV_FAILED, vm->name, "it is off: %s", vm->reason);
            end(r, &e);
        } else if (vm->runtime && resets_of(vm) > r->resets) {
            end(r, NULL);
        }
    }
}

void restarts_free(struct service *svc)
{
    while (svc->restarts) {
        svc->restarts->asked = false;  /* no answer comes any more */
        restarting_free(svc->restarts);
    }
}

int vm_begin_restart(struct svc_vm *vm, bool reset, uint64_t limit_ns, struct job **ret_job, struct hv_error *e)
{
    struct service *svc = vm->svc;
    struct restarting *r = hv_alloc(sizeof(*r));
    struct job *job = r ? job_new(svc, reset ? "reset" : "restart", vm->name) : NULL;
    if (!job || loop_timer_new(svc->loop, on_limit, r, &r->timer) < 0) {
        hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
        if (job)
            job_done(job, e);
        free(r);
        return -ENOMEM;
    }
    r->svc = svc;
    r->vm = vm->id;
    r->reset = reset;
    r->job = job_id(job);
    r->resets = resets_of(vm);
    r->next = svc->restarts;
    svc->restarts = r;
    *ret_job = job;
    loop_timer_set(svc->loop, r->timer, hv_now_ns() + limit_ns);
    struct hv_error why = {0};
    json_t *p = reset ? NULL : json_pack("{s:b}", "restart", true);
    r->asked = worker_call(vm, reset ? "org.hv.Worker.Reset" : "org.hv.Worker.PowerButton", p, NULL, 0, on_asked, r, &why) == 0;
    if (!r->asked)
        end(r, &why);
    return 0;
}
