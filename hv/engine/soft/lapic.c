/*
 * Local APIC: modes, destinations, priorities, errors, IPIs. SDM volume 3, chapter 11 ("Advanced
 * Programmable Interrupt Controller"); x2APIC is 11.12. Registers are in lapic_regs.c, the timer is in
 * lapic_timer.c, reset and saved state in lapic_state.c.
 *
 * Threads: irr, tmr and esr_pending are written by any thread; base_msr, ldr, dfr, svr
 * and lvt_error are written by the vCPU's thread and read by senders. All of these
 * are touched through the atomic builtins.
 */
#include "hv/engine/soft/lapic_reg.h"

/* ---- modes ---- */

bool lapic_enabled(const struct lapic *l)
{
    return SHARED_GET(l->base_msr) & BASE_EN;
}

bool apic_is_x2(const struct lapic *l)
{
    return (SHARED_GET(l->base_msr) & (BASE_EN | BASE_EXTD)) == (BASE_EN | BASE_EXTD);
}

bool apic_is_software_enabled(const struct lapic *l)
{
    return SHARED_GET(l->svr) & SVR_ENABLE;
}

bool lapic_extint_enabled(const struct lapic *l)
{
    return !lapic_enabled(l) || (l->lvt_lint0 & (LVT_MASKED | LVT_MODE)) == LVT_EXTINT;
}

/* SDM 11.12.10.2: the x2APIC LDR follows from the ID. */
uint32_t apic_logical_id(const struct lapic *l)
{
    return apic_is_x2(l) ? (l->id >> 4) << 16 | 1u << (l->id & 15) : SHARED_GET(l->ldr);
}

bool lapic_matches(const struct lapic *l, uint32_t dest, bool logical)
{
    if (!lapic_enabled(l)) {
        return false;
    }
    if (apic_is_x2(l)) {
        if (dest == UINT32_MAX) {
            return true;
        }
        if (!logical) {
            /* An MSI has eight bits of destination: its 255 is a broadcast here too. No APIC has that ID. */
            return dest == l->id || dest == 0xff;
        }
        uint32_t mine = apic_logical_id(l);
        return dest >> 16 == mine >> 16 && (dest & mine & 0xffff);
    }
    if (dest > 0xff) {
        return dest == UINT32_MAX;          /* a sender in x2APIC mode: no 8-bit ID is meant but broadcast */
    }
    if (dest == 0xff) {
        return true;
    }
    if (!logical) {
        return dest == (l->id & 0xff);
    }
    uint32_t mine = SHARED_GET(l->ldr) >> 24;
    if (SHARED_GET(l->dfr) >> 28 == 0xf) {  /* flat model, SDM 11.6.2.2 */
        return dest & mine;
    }
    return dest >> 4 == mine >> 4 && (dest & mine & 0xf);
}

/* ---- IRR, ISR, priorities ---- */

static int highest(const uint32_t w[static 8])
{
    for (int i = 7; i >= 0; i--) {
        if (w[i]) {
            return i * 32 + 31 - __builtin_clz(w[i]);
        }
    }
    return -1;
}

static int highest_irr(struct lapic *l)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t w = atomic_load_explicit(&l->irr[i], memory_order_acquire);
        if (w) {
            return i * 32 + 31 - __builtin_clz(w);
        }
    }
    return -1;
}

/* SDM 11.8.3.1 */
uint32_t apic_ppr(const struct lapic *l)
{
    int isr = highest(l->isr);
    uint32_t in_service = isr < 0 ? 0 : (uint32_t)isr & 0xf0;
    return (l->tpr & 0xf0) >= in_service ? l->tpr : in_service;
}

static void set_irr(struct lapic *l, unsigned vector, bool level)
{
    uint32_t bit = 1u << (vector & 31);
    if (level) {
        atomic_fetch_or_explicit(&l->tmr[vector >> 5], bit, memory_order_relaxed);
    } else {
        atomic_fetch_and_explicit(&l->tmr[vector >> 5], ~bit, memory_order_relaxed);
    }
    /* Release: whoever takes the bit from IRR sees the TMR above and what the sender did before. */
    atomic_fetch_or_explicit(&l->irr[vector >> 5], bit, memory_order_release);
    l->ops->wake(l);
}

/*
 * Note an error; the first one since ESR was last written raises the error LVT
 * (SDM 11.5.3). An error vector that is itself illegal only sets its bit. [any]
 */
void apic_error(struct lapic *l, uint32_t bit)
{
    if (__atomic_fetch_or(&l->esr_pending, bit, __ATOMIC_RELAXED) != 0) {
        return;
    }
    uint32_t lvt = SHARED_GET(l->lvt_error);
    if (lvt & LVT_MASKED || !apic_is_software_enabled(l)) {
        return;
    }
    if ((lvt & LVT_VECTOR) < 16) {
        __atomic_fetch_or(&l->esr_pending, ESR_RECV_VECTOR, __ATOMIC_RELAXED);
        return;
    }
    set_irr(l, lvt & LVT_VECTOR, false);
}

void lapic_accept(struct lapic *l, unsigned vector, bool level)
{
    /* A software-disabled APIC takes only INIT, NMI, SMI and SIPI: SDM 11.4.7.2. */
    if (!lapic_enabled(l) || !apic_is_software_enabled(l) || vector > 255) {
        return;
    }
    if (vector < 16) {
        apic_error(l, ESR_RECV_VECTOR);
        return;
    }
    set_irr(l, vector, level);
}

int lapic_pending(struct lapic *l)
{
    if (!lapic_enabled(l)) {
        return -1;
    }
    int v = highest_irr(l);
    return v >= 0 && ((uint32_t)v & 0xf0) > (apic_ppr(l) & 0xf0) ? v : -1;
}

int lapic_take(struct lapic *l)
{
    int v = lapic_pending(l);
    if (v >= 0) {
        uint32_t bit = 1u << (v & 31);
        atomic_fetch_and_explicit(&l->irr[v >> 5], ~bit, memory_order_acq_rel);
        l->isr[v >> 5] |= bit;
    }
    return v;
}

/* What was held back by priority may be deliverable now. */
static void recheck(struct lapic *l)
{
    if (lapic_pending(l) >= 0) {
        l->ops->wake(l);
    }
}

void lapic_eoi(struct lapic *l)
{
    int v = highest(l->isr);
    if (v < 0) {
        return;
    }
    uint32_t bit = 1u << (v & 31);
    l->isr[v >> 5] &= ~bit;
    bool level = atomic_load_explicit(&l->tmr[v >> 5], memory_order_relaxed) & bit;
    if (level && !(l->svr & SVR_NO_BCAST)) {
        l->ops->eoi_broadcast(l, (unsigned)v);
    }
    recheck(l);
}

void apic_set_tpr(struct lapic *l, uint32_t v)
{
    bool lower = v < l->tpr;
    l->tpr = v;
    if (lower) {
        recheck(l);
    }
}

uint64_t lapic_get_cr8(const struct lapic *l)
{
    return l->tpr >> 4;
}

void lapic_set_cr8(struct lapic *l, uint64_t v)
{
    apic_set_tpr(l, (uint32_t)(v & 15) << 4);
}

/* ---- IPIs ---- */

void apic_send_ipi(struct lapic *l, uint32_t icr, uint32_t dest)
{
    unsigned vector = icr & 0xff, mode = icr >> 8 & 7, shorthand = icr >> 18 & 3;
    bool level = icr & ICR_LEVEL, assert_ = icr & ICR_ASSERT;

    switch (mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        if (vector < 16) {
            apic_error(l, ESR_SEND_VECTOR);
            return;
        }
        if (shorthand == SHORT_SELF) {
            lapic_accept(l, vector, false);
            return;
        }
        break;
    case MODE_INIT:
        if (level && !assert_) {
            return;                         /* de-assert: nothing since the Pentium 4, SDM 11.6.1 */
        }
        break;
    case MODE_RESERVED:
    case MODE_EXTINT:
        return;
    default:
        break;
    }
    l->ops->ipi(l, dest, icr & ICR_LOGICAL, shorthand, mode, vector, level, assert_);
}
