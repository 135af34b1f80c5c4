/*
 * What was taken from a guest stays taken: once a second the memory the host holds for it is
 * compared with what it has (dynamic-memory 2.2). A guest that uses memory it gave back has that
 * punched out again; one that keeps doing so is paused, for it eats what others were promised.
 */
#include <inttypes.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/worker/worker.h"

#define EVERY_NS (1 * NS_PER_SEC)
#define STRIKES 3
/* Dump tools read a page here and there; strikes are for more than that. */
#define TOLERATED (16 * MIB)
#define FORGET_NS (60 * NS_PER_SEC)

static void tick(void *arg)
{
    struct worker *w = arg;
    uint64_t now = hv_now_ns();
    loop_timer_set(w->loop, w->enforce_timer, now + EVERY_NS);
    uint64_t found = w->vm && vm_state(w->vm) == VM_RUNNING ? vm_memory_enforce(w->vm) : 0;
    if (now - w->last_strike_ns > FORGET_NS)
        w->strikes = 0;
    if (found <= TOLERATED)
        return;
    char size[32], text[160];
    struct hv_error e = {0};
    w->last_strike_ns = now;
    format_size(found, size, sizeof(size));
    log_warning("the guest used %s that it had given back (%u)", size, w->strikes + 1);
    if (++w->strikes < STRIKES)
        return;
    w->strikes = 0;
    if (vm_pause(w->vm, &e) < 0)
        return;
    snprintf(text, sizeof(text), "paused: the guest keeps using memory that it gave back, %s now", size);
    worker_event(w, "memory", true, text, "hvctl resume VM, or hvctl stop VM --turn-off");
}

int worker_enforce_start(struct worker *w)
{
    int r = loop_timer_new(w->loop, tick, w, &w->enforce_timer);
    if (r == 0)
        loop_timer_set(w->loop, w->enforce_timer, hv_now_ns() + EVERY_NS);
    return r;
}
