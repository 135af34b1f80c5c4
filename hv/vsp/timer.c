/* Timers on the guest's clock: see timer.h. */
#include "hv/vsp/timer.h"

static void arm(void *arg)
{
    struct vsp_timer *t = arg;
    if (t->due_ns == VSP_TIMER_OFF)
        return;
    uint64_t at = machine_deadline(t->machine, t->due_ns);
    if (at != UINT64_MAX)               /* paused: resuming arms it */
        loop_timer_set(machine_loop(t->machine), t->timer, at);
}

static void fire(void *arg)
{
    struct vsp_timer *t = arg;
    if (t->due_ns == VSP_TIMER_OFF)
        return;
    uint64_t at = machine_deadline(t->machine, t->due_ns);
    if (at == UINT64_MAX)
        return;
    if (machine_clock_ns(t->machine) < t->due_ns) {
        arm(t);
        return;
    }
    t->due_ns = VSP_TIMER_OFF;
    t->fn(t->arg);
}

int vsp_timer_init(struct vsp_timer *t, struct machine *m, void (*fn)(void *arg), void *arg)
{
    *t = (struct vsp_timer){.machine = m, .due_ns = VSP_TIMER_OFF, .fn = fn, .arg = arg};
    int r = loop_timer_new(machine_loop(m), fire, t, &t->timer);
    if (r == 0)
        machine_on_clock(m, arm, t);
    return r;
}

void vsp_timer_fini(struct vsp_timer *t)
{
    if (t->timer)
        loop_timer_free(machine_loop(t->machine), t->timer);
    t->timer = NULL;
}

void vsp_timer_in(struct vsp_timer *t, uint64_t ns)
{
    t->due_ns = machine_clock_ns(t->machine) + ns;
    arm(t);
}

void vsp_timer_stop(struct vsp_timer *t)
{
    t->due_ns = VSP_TIMER_OFF;
    loop_timer_stop(machine_loop(t->machine), t->timer);
}

void vsp_timer_save(const struct vsp_timer *t, struct save_writer *w)
{
    uint64_t now = machine_clock_ns(t->machine);
    save_u64(w, t->due_ns == VSP_TIMER_OFF ? VSP_TIMER_OFF : t->due_ns > now ? t->due_ns - now : 0);
}

void vsp_timer_load(struct vsp_timer *t, struct load_section *s)
{
    uint64_t left = load_u64(s);
    /* Nothing here waits longer than a day; a damaged stream waits that long. */
    t->due_ns = left == VSP_TIMER_OFF ? VSP_TIMER_OFF
                : machine_clock_ns(t->machine) + MIN(left, 86400 * NS_PER_SEC);
}
