/*
 * A guest that uses memory it gave back has that taken again (dynmem.h); one that keeps doing so
 * is paused, for it eats what others were promised (dynamic-memory 2.2).
 */
#include <inttypes.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/worker/worker.h"

#define STRIKES 3
/* Dump tools read a page here and there; strikes are for more than that. */
#define TOLERATED (16 * MIB)
#define FORGET_NS (60 * NS_PER_SEC)

void worker_memory_used(void *arg, uint64_t bytes)
{
    struct worker *w = arg;
    uint64_t now = hv_now_ns();
    if (now - w->last_strike_ns > FORGET_NS)
        w->strikes = 0;
    if (bytes <= TOLERATED)
        return;
    char size[32];
    w->last_strike_ns = now;
    log_warning("the guest used %s that it had given back (%u)", format_size(bytes, size, sizeof(size)), w->strikes + 1);
    if (++w->strikes < STRIKES)
        return;
    w->strikes = 0;
    w->last_strike_bytes = bytes;
    loop_timer_set(w->loop, w->enforce_timer, now);        /* this is a timer of the VM, which a pause stops */
}

static void pause_it(void *arg)
{
    struct worker *w = arg;
    char size[32], text[160];
    struct hv_error e = {0};
    if (vm_state(w->vm) != VM_RUNNING || vm_pause(w->vm, &e) < 0)
        return;
    vm_memory_take_back(w->vm);         /* what it touched since: paused it would keep that */
    snprintf(text, sizeof(text), "paused: the guest keeps using memory that it gave back, %s now",
             format_size(w->last_strike_bytes, size, sizeof(size)));
    worker_event(w, "memory", true, text, "hvctl resume VM, or hvctl stop VM --turn-off");
}

int worker_enforce_new(struct worker *w)
{
    return loop_timer_new(w->loop, pause_it, w, &w->enforce_timer);
}
