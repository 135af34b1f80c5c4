/*
 * Restarts of a guest that has less than it boots with: hvd says how much of it may be in memory,
 * and hands a file for the rest (hv/vm/paging.c). Without hvd it waits.
 */
#include <errno.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/worker/worker.h"

#define PAGE_IN_NS (100 * NS_PER_MS)

bool worker_reset_waits(void *arg, uint64_t bytes)
{
    char size[32];
    (void)arg;
    log_info("the guest restarts: it waits for the %s that it boots with", format_size(bytes, size, sizeof(size)));
    return true;
}

static void page_in(void *arg)
{
    struct worker *w = arg;
    struct vm_memory m;
    vm_page_in(w->vm);
    vm_memory(w->vm, &m);
    if (m.paged && vm_state(w->vm) != VM_OFF)
        loop_timer_set(w->loop, w->paging_timer, hv_now_ns() + PAGE_IN_NS);
    else if (!m.paged)
        worker_guest_changed(w);
}

void worker_finish_reset(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    const json_t *fd = json_object_get(params, "fd");
    const char *refuse = json_string_value(json_object_get(params, "refuse"));
    json_int_t granted = json_integer_value(json_object_get(params, "granted"));
    hv_autoclose int file = json_is_integer(fd) ? varlink_call_take_fd(call, (int)json_integer_value(fd)) : -1;
    int r;
    if (!w->vm || vm_state(w->vm) != VM_RESETTING) {
        r = hv_fail(&e, HV_CONFLICT, w->name, "it waits for no memory");
    } else if (refuse) {
        vm_refuse_reset(w->vm, refuse);
        r = 0;
    } else if (granted <= 0) {
        r = hv_fail(&e, HV_USAGE, "granted", "a size is more than nothing");
    } else {
        r = vm_finish_reset(w->vm, (uint64_t)granted, hv_steal_fd(file), &e);
    }
    if (r == 0)
        loop_timer_set(w->loop, w->paging_timer, hv_now_ns() + PAGE_IN_NS);
    if (r < 0)
        varlink_reply_error(call, &e);
    else
        varlink_reply(call, json_object(), false);
}

void worker_grant_memory(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    json_int_t bytes = json_integer_value(json_object_get(params, "bytes"));
    struct hv_error e = {0};
    if (!w->vm || bytes < 0) {
        hv_fail(&e, HV_USAGE, "bytes", "a size is not negative");
        varlink_reply_error(call, &e);
        return;
    }
    vm_grant_memory(w->vm, (uint64_t)bytes);
    varlink_reply(call, json_object(), false);
}

int worker_paging_new(struct worker *w) { return loop_timer_new(w->loop, page_in, w, &w->paging_timer); }
