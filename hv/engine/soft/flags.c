/* RFLAGS as a whole: the arithmetic flags of flags.h joined with those in c->rflags. */
#include "hv/engine/soft/flags.h"

#include <stdatomic.h>

uint64_t cpu_rflags(struct cpu *c)
{
    return (c->rflags & ~FL_ARITH) | cc_to_rflags(c->cc) | 2;
}

void cpu_set_rflags(struct cpu *c, uint64_t v, uint64_t mask)
{
    if (mask & FL_ARITH)
        c->cc = cc_from_rflags((v & mask) | (cc_to_rflags(c->cc) & ~mask));
    mask &= ~FL_ARITH;
    uint64_t old = c->rflags, new = ((old & ~mask) | (v & mask)) & ~FL_ARITH;
    c->rflags = new | 2;
    if ((old ^ new) & (FL_TF | FL_AC | FL_VM))
        cpu_update_mode(c);
    if ((new & ~old & FL_IF) && c->irq_held) {
        c->irq_held = false;
        atomic_fetch_or_explicit(&c->attention, ATT_IRQ, memory_order_relaxed);
    }
}
