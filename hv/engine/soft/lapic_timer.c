/*
 * The local APIC's timer: one-shot, periodic, TSC deadline. SDM volume 3, 11.5.4.
 *
 * It holds no running counter. It remembers when (in guest TSC) the count started and derives the
 * rest; timer_next_tsc is the only thing the vCPU looks at:
 *
 *     start          +period       +2 period        now
 *       |---------------|--------------|-------------|---|  timer_next_tsc
 *
 * While the LVT entry is masked nothing can come of it, so the timer is then not
 * armed at all and unmasking works out where it stands.
 */
#include "hv/engine/soft/lapic_reg.h"

/* Divide configuration bits 3, 1 and 0: 0 means 2, ..., 6 means 128, 7 means 1. SDM 11.5.4. */
static uint64_t divisor(const struct lapic *l)
{
    uint32_t code = (l->timer_divide & 3) | (l->timer_divide & 8) >> 1;
    return 1ull << ((code + 1) & 7);
}

/* Decrements since the count started. */
static uint64_t timer_ticks(const struct lapic *l, uint64_t tsc)
{
    uint64_t elapsed = tsc - l->timer_start_tsc;
    if ((int64_t)elapsed < 0) {
        return 0;
    }
    return (uint64_t)((u128)elapsed * l->timer_hz / l->tsc_hz / divisor(l));
}

/* TSC cycles that n decrements take, rounded up so that timer_ticks() then gives at least n. */
static uint64_t ticks_to_tsc(const struct lapic *l, uint64_t n)
{
    u128 t = ((u128)n * divisor(l) * l->tsc_hz + l->timer_hz - 1) / l->timer_hz;
    return t > INT64_MAX ? INT64_MAX : (uint64_t)t;
}

uint32_t apic_timer_current(const struct lapic *l, uint64_t tsc)
{
    if (l->lvt_timer & TIMER_DEADLINE || l->timer_init == 0 || l->timer_done) {
        return 0;
    }
    uint64_t n = timer_ticks(l, tsc);
    if (l->lvt_timer & TIMER_PERIODIC) {
        return l->timer_init - (uint32_t)(n % l->timer_init);
    }
    return n >= l->timer_init ? 0 : l->timer_init - (uint32_t)n;
}

/* Set timer_next_tsc from the registers, as of tsc. What was due before has been fired already. */
void apic_timer_arm(struct lapic *l, uint64_t tsc)
{
    uint64_t next = UINT64_MAX;
    if (l->lvt_timer & TIMER_DEADLINE) {
        if (l->tsc_deadline) {
            next = l->tsc_deadline;
        }
    } else if (l->timer_init && !l->timer_done && !(l->lvt_timer & LVT_MASKED)) {
        uint64_t n = timer_ticks(l, tsc);
        if (l->lvt_timer & TIMER_PERIODIC) {
            next = l->timer_start_tsc + ticks_to_tsc(l, (n / l->timer_init + 1) * l->timer_init);
        } else if (n < l->timer_init) {
            next = l->timer_start_tsc + ticks_to_tsc(l, l->timer_init);
        }
    }
    l->timer_next_tsc = next;
    if (next != UINT64_MAX) {
        l->ops->wake(l);
    }
}

uint64_t lapic_timer_poll(struct lapic *l, uint64_t tsc)
{
    if (tsc < l->timer_next_tsc) {
        return l->timer_next_tsc;
    }
    if (l->timer_next_tsc == UINT64_MAX) {
        return UINT64_MAX;
    }
    l->timer_next_tsc = UINT64_MAX;
    if (l->lvt_timer & TIMER_DEADLINE) {
        l->tsc_deadline = 0;
    } else if (l->lvt_timer & TIMER_PERIODIC) {
        /* Periods that went by unseen are one interrupt, as in hardware, where IRR holds one. */
        uint64_t n = timer_ticks(l, tsc);
        l->timer_next_tsc = l->timer_start_tsc + ticks_to_tsc(l, (n / l->timer_init + 1) * l->timer_init);
    }
    if (!(l->lvt_timer & LVT_MASKED)) {
        lapic_accept(l, l->lvt_timer & LVT_VECTOR, false);
    }
    return l->timer_next_tsc;
}

/* Fire what is due before a register that the timer depends on changes. Returns the TSC. */
uint64_t apic_timer_settle(struct lapic *l)
{
    uint64_t tsc = l->ops->tsc(l);
    lapic_timer_poll(l, tsc);
    return tsc;
}

void lapic_tsc_moved(struct lapic *l, uint64_t delta)
{
    l->timer_start_tsc += delta;
    if (!(l->lvt_timer & TIMER_DEADLINE) && l->timer_next_tsc != UINT64_MAX) {
        l->timer_next_tsc += delta;
    }
    l->ops->wake(l);
}

void apic_set_timer_init(struct lapic *l, uint32_t v)
{
    if (l->lvt_timer & TIMER_DEADLINE) {
        return;                             /* SDM 11.5.4.1: ignored in this mode */
    }
    l->timer_start_tsc = apic_timer_settle(l);
    l->timer_init = v;
    l->timer_done = false;
    apic_timer_arm(l, l->timer_start_tsc);
}

void apic_set_timer_divide(struct lapic *l, uint32_t v)
{
    uint64_t tsc = apic_timer_settle(l);
    uint32_t cur = apic_timer_current(l, tsc);
    l->timer_divide = v & 0xb;
    /* The count goes on from where it stands, at the new pace. */
    l->timer_start_tsc = tsc - ticks_to_tsc(l, l->timer_init - cur);
    apic_timer_arm(l, tsc);
}

void apic_set_lvt_timer(struct lapic *l, uint32_t v)
{
    uint64_t tsc = apic_timer_settle(l);
    if ((v ^ l->lvt_timer) & TIMER_DEADLINE) {
        l->timer_init = 0;                  /* SDM 11.5.4.1: the transition disarms */
        l->tsc_deadline = 0;
    }
    /* A count that reached zero stays there: only a write to the initial count starts another. */
    l->timer_done |= l->timer_init && !(l->lvt_timer & (TIMER_DEADLINE | TIMER_PERIODIC)) &&
                     timer_ticks(l, tsc) >= l->timer_init;
    l->lvt_timer = v;
    apic_timer_arm(l, tsc);
}

void apic_set_deadline(struct lapic *l, uint64_t v)
{
    if (!(l->lvt_timer & TIMER_DEADLINE)) {
        return;
    }
    uint64_t tsc = apic_timer_settle(l);
    l->tsc_deadline = v;
    apic_timer_arm(l, tsc);
    lapic_timer_poll(l, tsc);               /* a deadline in the past fires at once */
}
