/*
 * The local APIC's registers. One file of them, two doors: the xAPIC page (offset >> 4) and the x2APIC
 * MSRs (0x800 + the same number). The doors differ in what they refuse: the page drops
 * a bad write and sets ESR bit 7, the MSRs answer #GP(0). SDM volume 3, table 11-1, 11-6.
 */
#include <errno.h>

#include "hv/engine/soft/lapic_reg.h"

const struct apic_lvt_desc apic_lvt[APIC_LVT_COUNT] = {
    { offsetof(struct lapic, lvt_timer), REG_LVT_TIMER, LVT_VECTOR | LVT_MASKED | TIMER_MODE },
    { offsetof(struct lapic, lvt_thermal), REG_LVT_THERMAL, LVT_VECTOR | LVT_MODE | LVT_MASKED },
    { offsetof(struct lapic, lvt_perf), REG_LVT_PERF, LVT_VECTOR | LVT_MODE | LVT_MASKED },
    { offsetof(struct lapic, lvt_lint0), REG_LVT_LINT0, LVT_VECTOR | LVT_MODE | LVT_MASKED | 0xa000 },
    { offsetof(struct lapic, lvt_lint1), REG_LVT_LINT1, LVT_VECTOR | LVT_MODE | LVT_MASKED | 0xa000 },
    { offsetof(struct lapic, lvt_error), REG_LVT_ERROR, LVT_VECTOR | LVT_MASKED },
};

static void mask_all_lvts(struct lapic *l)
{
    uint64_t tsc = apic_timer_settle(l);
    for (size_t i = 0; i < ARRAY_SIZE(apic_lvt); i++) {
        uint32_t *p = apic_lvt_at(l, &apic_lvt[i]);
        SHARED_SET(*p, *p | LVT_MASKED);
    }
    apic_timer_arm(l, tsc);
}

static void set_svr(struct lapic *l, uint32_t v)
{
    bool was = apic_is_software_enabled(l);
    SHARED_SET(l->svr, v & SVR_VALID);
    if (was && !apic_is_software_enabled(l)) {
        mask_all_lvts(l);
    }
}

static void set_lvt(struct lapic *l, const struct apic_lvt_desc *d, uint32_t v)
{
    v &= d->valid;
    if (!apic_is_software_enabled(l)) {
        v |= LVT_MASKED;                    /* SDM 11.4.7.2: cannot be cleared now */
    }
    if (d->reg == REG_LVT_TIMER) {
        apic_set_lvt_timer(l, v);
    } else {
        SHARED_SET(*apic_lvt_at(l, d), v);
    }
}

static const struct apic_lvt_desc *lvt_find(unsigned reg)
{
    return reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR ? &apic_lvt[reg - REG_LVT_TIMER] : NULL;
}

/* A register both doors show alike. False if there is none of this number to read. */
static bool reg_read(struct lapic *l, unsigned reg, uint32_t *ret)
{
    const struct apic_lvt_desc *lvt = lvt_find(reg);
    if (lvt) {
        *ret = *apic_lvt_at(l, lvt);
        return true;
    }
    if (reg >= REG_ISR && reg < REG_ESR) {
        unsigned i = reg & 7;
        *ret = reg < REG_TMR ? l->isr[i]
             : atomic_load_explicit(reg < REG_IRR ? &l->tmr[i] : &l->irr[i], memory_order_acquire);
        return true;
    }
    switch (reg) {
    case REG_VERSION: *ret = VERSION; return true;
    case REG_TPR: *ret = l->tpr; return true;
    case REG_PPR: *ret = apic_ppr(l); return true;
    case REG_LDR: *ret = apic_logical_id(l); return true;
    case REG_SVR: *ret = l->svr; return true;
    case REG_ESR: *ret = l->esr; return true;
    case REG_TIMER_INIT: *ret = l->timer_init; return true;
    case REG_TIMER_CUR: *ret = apic_timer_current(l, l->ops->tsc(l)); return true;
    case REG_TIMER_DIV: *ret = l->timer_divide; return true;
    default: return false;
    }
}

/* Likewise for writing; x2APIC has checked reserved bits before. */
static bool reg_write(struct lapic *l, unsigned reg, uint32_t v)
{
    const struct apic_lvt_desc *lvt = lvt_find(reg);
    if (lvt) {
        set_lvt(l, lvt, v);
        return true;
    }
    switch (reg) {
    case REG_TPR: apic_set_tpr(l, v & 0xff); return true;
    case REG_EOI: lapic_eoi(l); return true;
    case REG_SVR: set_svr(l, v); return true;
    case REG_ESR: l->esr = __atomic_exchange_n(&l->esr_pending, 0, __ATOMIC_RELAXED); return true;
    case REG_TIMER_INIT: apic_set_timer_init(l, v); return true;
    case REG_TIMER_DIV: apic_set_timer_divide(l, v); return true;
    default: return false;
    }
}

uint32_t lapic_mmio_read(struct lapic *l, uint32_t off)
{
    if (!lapic_enabled(l) || apic_is_x2(l) || off >= HV_PAGE_SIZE) {
        return UINT32_MAX;                  /* nobody answers on the bus */
    }
    unsigned reg = off >> 4;
    uint32_t v = 0;
    switch (reg) {
    case REG_ID: v = l->id << 24; break;
    case REG_DFR: v = l->dfr; break;
    case REG_ICR: v = l->icr_lo; break;
    case REG_ICR_HI: v = l->icr_hi; break;
    case REG_EOI:
    case REG_APR:
    case REG_RRD: break;                    /* write-only, or not in this generation: zero */
    default:
        if (!reg_read(l, reg, &v)) {
            apic_error(l, ESR_REGISTER);
        }
    }
    return (off & 15) < 4 ? v >> 8 * (off & 3) : 0;
}

void lapic_mmio_write(struct lapic *l, uint32_t off, uint32_t val)
{
    if (!lapic_enabled(l) || apic_is_x2(l) || off >= HV_PAGE_SIZE || off & 15) {
        return;
    }
    unsigned reg = off >> 4;
    switch (reg) {
    case REG_ID:
    case REG_VERSION:
    case REG_PPR:
    case REG_TIMER_CUR: break;              /* read-only */
    case REG_LDR: SHARED_SET(l->ldr, val & 0xff000000u); break;
    case REG_DFR: SHARED_SET(l->dfr, val | 0x0fffffffu); break;
    case REG_ICR_HI: l->icr_hi = val & 0xff000000u; break;
    case REG_ICR:
        l->icr_lo = val & ICR_VALID & ~ICR_BUSY;
        apic_send_ipi(l, l->icr_lo, l->icr_hi >> 24);
        break;
    default:
        if (!reg_write(l, reg, val) && !(reg >= REG_ISR && reg < REG_ESR)) {
            apic_error(l, ESR_REGISTER);
        }
    }
}

/* ---- MSRs ---- */

/* SDM 11.12.5, figure 11-27: legal are off -> xAPIC -> x2APIC -> off, and xAPIC -> off. */
static int set_base(struct lapic *l, uint64_t v)
{
    uint64_t old = l->base_msr & (BASE_EN | BASE_EXTD), new = v & (BASE_EN | BASE_EXTD);
    if (!apic_base_valid(v) || (old == 0 && new == (BASE_EN | BASE_EXTD)) ||
        (old == (BASE_EN | BASE_EXTD) && new == BASE_EN)) {
        return -EINVAL;
    }
    if (old && !new) {
        apic_clear(l, v & BASE_BSP);
    }
    if (old == BASE_EN && new == (BASE_EN | BASE_EXTD)) {
        l->icr_hi = 0;
    }
    SHARED_SET(l->base_msr, v);
    return 0;
}

int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *ret)
{
    if (msr == MSR_APIC_BASE) {
        *ret = l->base_msr;
        return 0;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *ret = l->lvt_timer & TIMER_DEADLINE ? l->tsc_deadline : 0;
        return 0;
    }
    if (!apic_is_x2(l) || msr < MSR_X2APIC || msr >= MSR_X2APIC_END) {
        return -EINVAL;
    }
    unsigned reg = msr - MSR_X2APIC;
    if (reg == REG_ID) {
        *ret = l->id;
        return 0;
    }
    if (reg == REG_ICR) {
        *ret = (uint64_t)l->icr_hi << 32 | l->icr_lo;
        return 0;
    }
    uint32_t v;
    if (!reg_read(l, reg, &v)) {
        return -EINVAL;
    }
    *ret = v;
    return 0;
}

/* Bits that may be set when writing an x2APIC register; -1: not writable. SDM table 11-6. */
static int64_t x2apic_writable(unsigned reg)
{
    const struct apic_lvt_desc *lvt = lvt_find(reg);
    if (lvt) {
        return lvt->valid | LVT_RO;
    }
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI: return 0xff;
    case REG_EOI:
    case REG_ESR: return 0;
    case REG_SVR: return SVR_VALID;
    case REG_TIMER_INIT: return UINT32_MAX;
    case REG_TIMER_DIV: return 0xb;
    default: return -1;
    }
}

int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t val)
{
    if (msr == MSR_APIC_BASE) {
        return set_base(l, val);
    }
    if (msr == MSR_TSC_DEADLINE) {
        apic_set_deadline(l, val);
        return 0;
    }
    if (!apic_is_x2(l) || msr < MSR_X2APIC || msr >= MSR_X2APIC_END) {
        return -EINVAL;
    }
    unsigned reg = msr - MSR_X2APIC;
    if (reg == REG_ICR) {
        if ((uint32_t)val & ICR_RESERVED_X2) {
            return -EINVAL;
        }
        l->icr_lo = (uint32_t)val & ICR_VALID & ~ICR_BUSY;
        l->icr_hi = (uint32_t)(val >> 32);
        apic_send_ipi(l, l->icr_lo, l->icr_hi);
        return 0;
    }
    int64_t writable = x2apic_writable(reg);
    if (writable < 0 || val & ~(uint64_t)writable) {
        return -EINVAL;
    }
    if (reg == REG_SELF_IPI) {
        apic_send_ipi(l, (uint32_t)val | SHORT_SELF << 18, 0);
        return 0;
    }
    return reg_write(l, reg, (uint32_t)val) ? 0 : -EINVAL;
}
