/* The local APIC's life: power-on and INIT, saved state. SDM volume 3, 11.4.7. */
#include "hv/engine/soft/lapic_reg.h"

void apic_clear(struct lapic *l, bool bsp)
{
    l->tpr = 0;
    SHARED_SET(l->ldr, 0);
    SHARED_SET(l->dfr, UINT32_MAX);
    SHARED_SET(l->svr, 0xff);
    l->esr = l->icr_lo = l->icr_hi = 0;
    SHARED_SET(l->esr_pending, 0);
    for (size_t i = 0; i < ARRAY_SIZE(apic_lvt); i++) {
        SHARED_SET(*apic_lvt_at(l, &apic_lvt[i]), LVT_MASKED);
    }
    if (bsp) {
        l->lvt_lint0 = LVT_EXTINT;          /* virtual wire, as firmware leaves it: direct boots need the PIC */
    }
    l->timer_init = l->timer_divide = 0;
    l->timer_start_tsc = l->tsc_deadline = 0;
    l->timer_done = false;
    l->timer_next_tsc = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        atomic_store_explicit(&l->irr[i], 0, memory_order_relaxed);
        atomic_store_explicit(&l->tmr[i], 0, memory_order_relaxed);
        l->isr[i] = 0;
    }
}

bool apic_base_valid(uint64_t v)
{
    return !(v & ~(BASE_ADDR | BASE_EN | BASE_EXTD | BASE_BSP)) && (v & (BASE_EN | BASE_EXTD)) != BASE_EXTD;
}

void lapic_init(struct lapic *l, const struct lapic_ops *ops, void *owner, uint32_t id, uint64_t tsc_hz,
                uint64_t timer_hz)
{
    hv_assert(tsc_hz > 0 && timer_hz > 0);
    *l = (struct lapic){ .ops = ops, .owner = owner, .id = id, .tsc_hz = tsc_hz, .timer_hz = timer_hz };
    lapic_reset(l, false, id == 0);
}

void lapic_reset(struct lapic *l, bool init, bool bsp)
{
    apic_clear(l, bsp);
    if (!init) {
        SHARED_SET(l->base_msr, BASE_DEFAULT | BASE_EN | (bsp ? BASE_BSP : 0));
    }
}

/*
 * Saved: registers, and of the timer how far its input clock has run since the count
 * started, so that a host with another TSC frequency goes on at the same place.
 */
void lapic_save(struct lapic *l, struct save_writer *w)
{
    uint64_t tsc = apic_timer_settle(l);         /* nothing is due in what we write */
    uint64_t elapsed = tsc - l->timer_start_tsc;
    save_u64(w, l->base_msr);
    save_u32(w, l->id);
    const uint32_t regs[] = { l->tpr, l->ldr, l->dfr, l->svr, l->esr, l->esr_pending, l->icr_lo, l->icr_hi,
                              l->timer_init, l->timer_divide };
    for (size_t i = 0; i < ARRAY_SIZE(regs); i++) {
        save_u32(w, regs[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(apic_lvt); i++) {
        save_u32(w, *apic_lvt_at(l, &apic_lvt[i]));
    }
    save_u64(w, l->timer_hz);
    save_u64(w, (int64_t)elapsed < 0 ? 0 : (uint64_t)((u128)elapsed * l->timer_hz / l->tsc_hz));
    save_u64(w, l->tsc_deadline);
    save_u32(w, l->timer_done);
    for (int i = 0; i < 8; i++) {
        save_u32(w, l->irr[i]);
        save_u32(w, l->tmr[i]);
        save_u32(w, l->isr[i]);
    }
}

static bool loaded_valid(const struct lapic *n)
{
    bool x2 = (n->base_msr & BASE_EXTD) != 0;
    if (!apic_base_valid(n->base_msr) || n->tpr > 0xff || n->ldr & 0xffffff || ~n->dfr & 0x0fffffff ||
        n->svr & ~SVR_VALID || (n->esr | n->esr_pending) & ~ESR_VALID ||
        n->icr_lo & ~(ICR_VALID & ~ICR_BUSY) || (!x2 && n->icr_hi & 0xffffff) || n->timer_divide & ~0xbu) {
        return false;
    }
    if (n->tsc_deadline && !(n->lvt_timer & TIMER_DEADLINE)) {
        return false;
    }
    if (n->timer_init && n->lvt_timer & TIMER_DEADLINE) {
        return false;
    }
    return !((n->irr[0] | n->tmr[0] | n->isr[0]) & 0xffff);
}

int lapic_load(struct lapic *l, struct load_section *s, struct hv_error *e)
{
    struct lapic n = { .ops = l->ops, .owner = l->owner, .tsc_hz = l->tsc_hz };
    n.base_msr = load_u64(s);
    n.id = load_u32(s);
    uint32_t *const regs[] = { &n.tpr, &n.ldr, &n.dfr, &n.svr, &n.esr, &n.esr_pending, &n.icr_lo, &n.icr_hi,
                               &n.timer_init, &n.timer_divide };
    for (size_t i = 0; i < ARRAY_SIZE(regs); i++) {
        *regs[i] = load_u32(s);
    }
    bool lvts_valid = true;
    for (size_t i = 0; i < ARRAY_SIZE(apic_lvt); i++) {
        uint32_t v = load_u32(s);
        lvts_valid &= !(v & ~apic_lvt[i].valid);
        *apic_lvt_at(&n, &apic_lvt[i]) = v;
    }
    n.timer_hz = load_u64(s);
    uint64_t elapsed = load_u64(s);
    n.tsc_deadline = load_u64(s);
    n.timer_done = load_u32(s) != 0;
    for (int i = 0; i < 8; i++) {
        n.irr[i] = load_u32(s);
        n.tmr[i] = load_u32(s);
        n.isr[i] = load_u32(s);
    }
    if (s->bad || !lvts_valid || !loaded_valid(&n)) {
        return hv_fail(e, HV_FAILED, "lapic", "saved local APIC state is not valid");
    }
    if (n.id != l->id || n.timer_hz != l->timer_hz) {
        return hv_fail(e, HV_CONFLICT, "lapic", "saved local APIC is not of this machine: ID %u, timer %llu Hz",
                       n.id, (unsigned long long)n.timer_hz);
    }
    uint64_t tsc = l->ops->tsc(l);
    u128 since = ((u128)elapsed * l->tsc_hz + l->timer_hz - 1) / l->timer_hz;
    if (since > INT64_MAX / 4) {            /* decades: room for the arithmetic above to stay exact */
        return hv_fail(e, HV_FAILED, "lapic", "saved local APIC timer is not valid");
    }
    n.timer_start_tsc = tsc - (uint64_t)since;
    *l = n;
    apic_timer_arm(l, tsc);
    return 0;
}
