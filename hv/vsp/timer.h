/*
 * A one-shot timer on the guest's clock: it stands still while the VM is paused and goes
 * on from where it was after a load. Loop thread only.
 */
#ifndef HV_VSP_TIMER_H
#define HV_VSP_TIMER_H

#include "hv/machine/machine.h"

#define VSP_TIMER_OFF UINT64_MAX

struct vsp_timer {
    struct machine *machine;
    struct loop_timer *timer;
    uint64_t due_ns;             /* guest clock; VSP_TIMER_OFF: not set */
    void (*fn)(void *arg);
    void *arg;
};

int vsp_timer_init(struct vsp_timer *t, struct machine *m, void (*fn)(void *arg), void *arg);
/* Accepts a zeroed timer. */
void vsp_timer_fini(struct vsp_timer *t);
/* Fire once, this much guest time from now. */
void vsp_timer_in(struct vsp_timer *t, uint64_t ns);
void vsp_timer_stop(struct vsp_timer *t);
/* Saved as the time that is left. */
void vsp_timer_save(const struct vsp_timer *t, struct save_writer *w);
void vsp_timer_load(struct vsp_timer *t, struct load_section *s);

#endif
