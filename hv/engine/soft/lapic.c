/*
 * Local APIC: registers, priorities, timer. SDM volume 3, chapter 11 ("Advanced
 * Programmable Interrupt Controller"); x2APIC is 11.12.
 *
 * One register file, two doors: the xAPIC page (offset >> 4) and the x2APIC MSRs
 * (0x800 + the same number). The doors differ in what they refuse: the page drops
 * a bad write and sets ESR bit 7, the MSRs answer #GP(0).
 *
 * The timer holds no running counter. It remembers when (in guest TSC) the count
 * started and derives the rest; timer_next_tsc is the only thing the vCPU looks at:
 *
 *     start          +period       +2 period        now
 *       |---------------|--------------|-------------|---|  timer_next_tsc
 *
 * While the LVT entry is masked nothing can come of it, so the timer is then not
 * armed at all and unmasking works out where it stands.
 *
 * Threads: irr, tmr and esr_pending are written by any thread; base_msr, ldr, dfr, svr
 * and lvt_error are written by the vCPU's thread and read by senders. All of these
 * are touched through the atomic builtins.
 */
#include "hv/engine/soft/lapic.h"

#include <errno.h>
#include <stdatomic.h>

#define BASE_BSP  0x100ull
#define BASE_EXTD 0x400ull
#define BASE_EN   0x800ull
#define BASE_ADDR 0x000ffffffffff000ull
#define BASE_DEFAULT 0xfee00000ull

#define MSR_APIC_BASE    0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC       0x800
#define MSR_X2APIC_END   0x840

/* Register numbers: MMIO offset >> 4, MSR - 0x800. */
enum {
    REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0a, REG_EOI = 0x0b,
    REG_RRD = 0x0c, REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f, REG_ISR = 0x10, REG_TMR = 0x18,
    REG_IRR = 0x20, REG_ESR = 0x28, REG_ICR = 0x30, REG_ICR_HI = 0x31, REG_LVT_TIMER = 0x32,
    REG_LVT_THERMAL = 0x33, REG_LVT_PERF = 0x34, REG_LVT_LINT0 = 0x35, REG_LVT_LINT1 = 0x36,
    REG_LVT_ERROR = 0x37, REG_TIMER_INIT = 0x38, REG_TIMER_CUR = 0x39, REG_TIMER_DIV = 0x3e,
    REG_SELF_IPI = 0x3f,
};

/* Version 0x14, six LVT entries, EOI broadcast can be suppressed. SDM 11.4.8. */
#define VERSION ((1u << 24) | (5u << 16) | 0x14)

#define SVR_ENABLE   0x100u
#define SVR_NO_BCAST 0x1000u
#define SVR_VALID    0x13ffu

#define LVT_MASKED   0x10000u
#define LVT_VECTOR   0xffu
#define LVT_MODE     0x700u
#define LVT_EXTINT   0x700u
#define LVT_RO       0x5000u            /* delivery status, remote IRR */
#define TIMER_MODE   0x60000u
#define TIMER_PERIODIC 0x20000u
#define TIMER_DEADLINE 0x40000u

#define ESR_SEND_VECTOR 0x20u
#define ESR_RECV_VECTOR 0x40u
#define ESR_REGISTER    0x80u
#define ESR_VALID       0xe0u

#define ICR_LOGICAL 0x800u
#define ICR_BUSY    0x1000u
#define ICR_ASSERT  0x4000u
#define ICR_LEVEL   0x8000u
#define ICR_VALID   0xccfffu
#define ICR_RESERVED_X2 0xfff32000u     /* 31:20, 17:16, 13 */

enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_RESERVED, MODE_NMI, MODE_INIT, MODE_SIPI, MODE_EXTINT };
enum { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS };

/* LVT entries: where each lives and which bits software may set. SDM 11.5.1, figure 11-8. */
static const struct lvt_desc { uint16_t field; uint8_t reg; uint32_t valid; } lvt_table[] = {
    { offsetof(struct lapic, lvt_timer), REG_LVT_TIMER, LVT_VECTOR | LVT_MASKED | TIMER_MODE },
    { offsetof(struct lapic, lvt_thermal), REG_LVT_THERMAL, LVT_VECTOR | LVT_MODE | LVT_MASKED },
    { offsetof(struct lapic, lvt_perf), REG_LVT_PERF, LVT_VECTOR | LVT_MODE | LVT_MASKED },
    { offsetof(struct lapic, lvt_lint0), REG_LVT_LINT0, LVT_VECTOR | LVT_MODE | LVT_MASKED | 0xa000 },
    { offsetof(struct lapic, lvt_lint1), REG_LVT_LINT1, LVT_VECTOR | LVT_MODE | LVT_MASKED | 0xa000 },
    { offsetof(struct lapic, lvt_error), REG_LVT_ERROR, LVT_VECTOR | LVT_MASKED },
};

static uint32_t *lvt_at(struct lapic *l, const struct lvt_desc *d)
{
    return (uint32_t *)(void *)((char *)l + d->field);
}

#define SHARED_GET(field)    __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define SHARED_SET(field, v) __atomic_store_n(&(field), (v), __ATOMIC_RELAXED)

/* ---- modes ---- */

bool lapic_enabled(const struct lapic *l)
{
    return SHARED_GET(l->base_msr) & BASE_EN;
}

static bool is_x2apic(const struct lapic *l)
{
    return (SHARED_GET(l->base_msr) & (BASE_EN | BASE_EXTD)) == (BASE_EN | BASE_EXTD);
}

static bool software_enabled(const struct lapic *l)
{
    return SHARED_GET(l->svr) & SVR_ENABLE;
}

bool lapic_extint_enabled(const struct lapic *l)
{
    return !lapic_enabled(l) || (l->lvt_lint0 & (LVT_MASKED | LVT_MODE)) == LVT_EXTINT;
}

/* SDM 11.12.10.2: the x2APIC LDR follows from the ID. */
static uint32_t logical_id(const struct lapic *l)
{
    return is_x2apic(l) ? (l->id >> 4) << 16 | 1u << (l->id & 15) : SHARED_GET(l->ldr);
}

bool lapic_matches(const struct lapic *l, uint32_t dest, bool logical)
{
    if (!lapic_enabled(l)) {
        return false;
    }
    if (is_x2apic(l)) {
        if (dest == UINT32_MAX) {
            return true;
        }
        if (!logical) {
            /* An MSI has eight bits of destination: its 255 is a broadcast here too. No APIC has that ID. */
            return dest == l->id || dest == 0xff;
        }
        uint32_t mine = logical_id(l);
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
static uint32_t ppr(const struct lapic *l)
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
static void set_error(struct lapic *l, uint32_t bit)
{
    if (__atomic_fetch_or(&l->esr_pending, bit, __ATOMIC_RELAXED) != 0) {
        return;
    }
    uint32_t lvt = SHARED_GET(l->lvt_error);
    if (lvt & LVT_MASKED || !software_enabled(l)) {
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
    if (!lapic_enabled(l) || !software_enabled(l) || vector > 255) {
        return;
    }
    if (vector < 16) {
        set_error(l, ESR_RECV_VECTOR);
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
    return v >= 0 && ((uint32_t)v & 0xf0) > (ppr(l) & 0xf0) ? v : -1;
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

static void set_tpr(struct lapic *l, uint32_t v)
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
    set_tpr(l, (uint32_t)(v & 15) << 4);
}

/* ---- timer ---- */

typedef unsigned __int128 u128;

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

static uint32_t timer_current(const struct lapic *l, uint64_t tsc)
{
    if (l->lvt_timer & TIMER_DEADLINE || l->timer_init == 0) {
        return 0;
    }
    uint64_t n = timer_ticks(l, tsc);
    if (l->lvt_timer & TIMER_PERIODIC) {
        return l->timer_init - (uint32_t)(n % l->timer_init);
    }
    return n >= l->timer_init ? 0 : l->timer_init - (uint32_t)n;
}

/* Set timer_next_tsc from the registers, as of tsc. What was due before has been fired already. */
static void timer_arm(struct lapic *l, uint64_t tsc)
{
    uint64_t next = UINT64_MAX;
    if (l->lvt_timer & TIMER_DEADLINE) {
        if (l->tsc_deadline) {
            next = l->tsc_deadline;
        }
    } else if (l->timer_init && !(l->lvt_timer & LVT_MASKED)) {
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
static uint64_t timer_settle(struct lapic *l)
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

static void set_timer_init(struct lapic *l, uint32_t v)
{
    if (l->lvt_timer & TIMER_DEADLINE) {
        return;                             /* SDM 11.5.4.1: ignored in this mode */
    }
    l->timer_start_tsc = timer_settle(l);
    l->timer_init = v;
    timer_arm(l, l->timer_start_tsc);
}

static void set_timer_divide(struct lapic *l, uint32_t v)
{
    uint64_t tsc = timer_settle(l);
    uint32_t cur = timer_current(l, tsc);
    l->timer_divide = v & 0xb;
    /* The count goes on from where it stands, at the new pace. */
    l->timer_start_tsc = tsc - ticks_to_tsc(l, l->timer_init - cur);
    timer_arm(l, tsc);
}

static void set_lvt_timer(struct lapic *l, uint32_t v)
{
    uint64_t tsc = timer_settle(l);
    if ((v ^ l->lvt_timer) & TIMER_DEADLINE) {
        l->timer_init = 0;                  /* SDM 11.5.4.1: the transition disarms */
        l->tsc_deadline = 0;
    }
    l->lvt_timer = v;
    timer_arm(l, tsc);
}

static void set_deadline(struct lapic *l, uint64_t v)
{
    if (!(l->lvt_timer & TIMER_DEADLINE)) {
        return;
    }
    uint64_t tsc = timer_settle(l);
    l->tsc_deadline = v;
    timer_arm(l, tsc);
    lapic_timer_poll(l, tsc);               /* a deadline in the past fires at once */
}

/* ---- IPIs ---- */

static void send_ipi(struct lapic *l, uint32_t icr, uint32_t dest)
{
    unsigned vector = icr & 0xff, mode = icr >> 8 & 7, shorthand = icr >> 18 & 3;
    bool level = icr & ICR_LEVEL, assert_ = icr & ICR_ASSERT;

    switch (mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        if (vector < 16) {
            set_error(l, ESR_SEND_VECTOR);
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

/* ---- registers ---- */

static void mask_all_lvts(struct lapic *l)
{
    uint64_t tsc = timer_settle(l);
    for (size_t i = 0; i < ARRAY_SIZE(lvt_table); i++) {
        uint32_t *p = lvt_at(l, &lvt_table[i]);
        SHARED_SET(*p, *p | LVT_MASKED);
    }
    timer_arm(l, tsc);
}

static void set_svr(struct lapic *l, uint32_t v)
{
    bool was = software_enabled(l);
    SHARED_SET(l->svr, v & SVR_VALID);
    if (was && !software_enabled(l)) {
        mask_all_lvts(l);
    }
}

static void set_lvt(struct lapic *l, const struct lvt_desc *d, uint32_t v)
{
    v &= d->valid;
    if (!software_enabled(l)) {
        v |= LVT_MASKED;                    /* SDM 11.4.7.2: cannot be cleared now */
    }
    if (d->reg == REG_LVT_TIMER) {
        set_lvt_timer(l, v);
    } else {
        SHARED_SET(*lvt_at(l, d), v);
    }
}

static const struct lvt_desc *lvt_find(unsigned reg)
{
    return reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR ? &lvt_table[reg - REG_LVT_TIMER] : NULL;
}

/* A register both doors show alike. False if there is none of this number to read. */
static bool reg_read(struct lapic *l, unsigned reg, uint32_t *ret)
{
    const struct lvt_desc *lvt = lvt_find(reg);
    if (lvt) {
        *ret = *lvt_at(l, lvt);
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
    case REG_PPR: *ret = ppr(l); return true;
    case REG_LDR: *ret = logical_id(l); return true;
    case REG_SVR: *ret = l->svr; return true;
    case REG_ESR: *ret = l->esr; return true;
    case REG_TIMER_INIT: *ret = l->timer_init; return true;
    case REG_TIMER_CUR: *ret = timer_current(l, l->ops->tsc(l)); return true;
    case REG_TIMER_DIV: *ret = l->timer_divide; return true;
    default: return false;
    }
}

/* Likewise for writing; x2APIC has checked reserved bits before. */
static bool reg_write(struct lapic *l, unsigned reg, uint32_t v)
{
    const struct lvt_desc *lvt = lvt_find(reg);
    if (lvt) {
        set_lvt(l, lvt, v);
        return true;
    }
    switch (reg) {
    case REG_TPR: set_tpr(l, v & 0xff); return true;
    case REG_EOI: lapic_eoi(l); return true;
    case REG_SVR: set_svr(l, v); return true;
    case REG_ESR: l->esr = __atomic_exchange_n(&l->esr_pending, 0, __ATOMIC_RELAXED); return true;
    case REG_TIMER_INIT: set_timer_init(l, v); return true;
    case REG_TIMER_DIV: set_timer_divide(l, v); return true;
    default: return false;
    }
}

uint32_t lapic_mmio_read(struct lapic *l, uint32_t off)
{
    if (!lapic_enabled(l) || is_x2apic(l) || off >= HV_PAGE_SIZE) {
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
            set_error(l, ESR_REGISTER);
        }
    }
    return (off & 15) < 4 ? v >> 8 * (off & 3) : 0;
}

void lapic_mmio_write(struct lapic *l, uint32_t off, uint32_t val)
{
    if (!lapic_enabled(l) || is_x2apic(l) || off >= HV_PAGE_SIZE || off & 15) {
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
        send_ipi(l, l->icr_lo, l->icr_hi >> 24);
        break;
    default:
        if (!reg_write(l, reg, val) && !(reg >= REG_ISR && reg < REG_ESR)) {
            set_error(l, ESR_REGISTER);
        }
    }
}

/* ---- MSRs ---- */

static void clear_registers(struct lapic *l, bool bsp)
{
    l->tpr = 0;
    SHARED_SET(l->ldr, 0);
    SHARED_SET(l->dfr, UINT32_MAX);
    SHARED_SET(l->svr, 0xff);
    l->esr = l->icr_lo = l->icr_hi = 0;
    SHARED_SET(l->esr_pending, 0);
    for (size_t i = 0; i < ARRAY_SIZE(lvt_table); i++) {
        SHARED_SET(*lvt_at(l, &lvt_table[i]), LVT_MASKED);
    }
    if (bsp) {
        l->lvt_lint0 = LVT_EXTINT;          /* virtual wire, as firmware leaves it: direct boots need the PIC */
    }
    l->timer_init = l->timer_divide = 0;
    l->timer_start_tsc = l->tsc_deadline = 0;
    l->timer_next_tsc = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        atomic_store_explicit(&l->irr[i], 0, memory_order_relaxed);
        atomic_store_explicit(&l->tmr[i], 0, memory_order_relaxed);
        l->isr[i] = 0;
    }
}

static bool base_valid(uint64_t v)
{
    return !(v & ~(BASE_ADDR | BASE_EN | BASE_EXTD | BASE_BSP)) && (v & (BASE_EN | BASE_EXTD)) != BASE_EXTD;
}

/* SDM 11.12.5, figure 11-27: legal are off -> xAPIC -> x2APIC -> off, and xAPIC -> off. */
static int set_base(struct lapic *l, uint64_t v)
{
    uint64_t old = l->base_msr & (BASE_EN | BASE_EXTD), new = v & (BASE_EN | BASE_EXTD);
    if (!base_valid(v) || (old == 0 && new == (BASE_EN | BASE_EXTD)) ||
        (old == (BASE_EN | BASE_EXTD) && new == BASE_EN)) {
        return -EINVAL;
    }
    if (old && !new) {
        clear_registers(l, v & BASE_BSP);
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
    if (!is_x2apic(l) || msr < MSR_X2APIC || msr >= MSR_X2APIC_END) {
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
    const struct lvt_desc *lvt = lvt_find(reg);
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
        set_deadline(l, val);
        return 0;
    }
    if (!is_x2apic(l) || msr < MSR_X2APIC || msr >= MSR_X2APIC_END) {
        return -EINVAL;
    }
    unsigned reg = msr - MSR_X2APIC;
    if (reg == REG_ICR) {
        if ((uint32_t)val & ICR_RESERVED_X2) {
            return -EINVAL;
        }
        l->icr_lo = (uint32_t)val & ICR_VALID & ~ICR_BUSY;
        l->icr_hi = (uint32_t)(val >> 32);
        send_ipi(l, l->icr_lo, l->icr_hi);
        return 0;
    }
    int64_t writable = x2apic_writable(reg);
    if (writable < 0 || val & ~(uint64_t)writable) {
        return -EINVAL;
    }
    if (reg == REG_SELF_IPI) {
        send_ipi(l, (uint32_t)val | SHORT_SELF << 18, 0);
        return 0;
    }
    return reg_write(l, reg, (uint32_t)val) ? 0 : -EINVAL;
}

/* ---- life ---- */

void lapic_init(struct lapic *l, const struct lapic_ops *ops, void *owner, uint32_t id, uint64_t tsc_hz,
                uint64_t timer_hz)
{
    hv_assert(tsc_hz > 0 && timer_hz > 0);
    *l = (struct lapic){ .ops = ops, .owner = owner, .id = id, .tsc_hz = tsc_hz, .timer_hz = timer_hz };
    lapic_reset(l, false, id == 0);
}

void lapic_reset(struct lapic *l, bool init, bool bsp)
{
    clear_registers(l, bsp);
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
    uint64_t tsc = timer_settle(l);         /* nothing is due in what we write */
    uint64_t elapsed = tsc - l->timer_start_tsc;
    save_u64(w, l->base_msr);
    save_u32(w, l->id);
    const uint32_t regs[] = { l->tpr, l->ldr, l->dfr, l->svr, l->esr, l->esr_pending, l->icr_lo, l->icr_hi,
                              l->timer_init, l->timer_divide };
    for (size_t i = 0; i < ARRAY_SIZE(regs); i++) {
        save_u32(w, regs[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(lvt_table); i++) {
        save_u32(w, *lvt_at(l, &lvt_table[i]));
    }
    save_u64(w, l->timer_hz);
    save_u64(w, (int64_t)elapsed < 0 ? 0 : (uint64_t)((u128)elapsed * l->timer_hz / l->tsc_hz));
    save_u64(w, l->tsc_deadline);
    for (int i = 0; i < 8; i++) {
        save_u32(w, l->irr[i]);
        save_u32(w, l->tmr[i]);
        save_u32(w, l->isr[i]);
    }
}

static bool loaded_valid(const struct lapic *n)
{
    bool x2 = (n->base_msr & BASE_EXTD) != 0;
    if (!base_valid(n->base_msr) || n->tpr > 0xff || n->ldr & 0xffffff || ~n->dfr & 0x0fffffff ||
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
    for (size_t i = 0; i < ARRAY_SIZE(lvt_table); i++) {
        uint32_t v = load_u32(s);
        lvts_valid &= !(v & ~lvt_table[i].valid);
        *lvt_at(&n, &lvt_table[i]) = v;
    }
    n.timer_hz = load_u64(s);
    uint64_t elapsed = load_u64(s);
    n.tsc_deadline = load_u64(s);
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
    timer_arm(l, tsc);
    return 0;
}
