/*
 * The soft engine's local APIC (specs/machine-platform 6.5; SDM volume 3, chapter 11):
 * xAPIC and x2APIC register file, priority logic, timer in all three modes, IPIs.
 * It knows no vCPU: what it needs is in lapic_ops, so that tests drive it alone.
 *
 * IRR may be set by any thread (lapic_accept); everything else belongs to the vCPU's thread.
 */
#ifndef HV_ENGINE_SOFT_LAPIC_H
#define HV_ENGINE_SOFT_LAPIC_H

#include "hv/base/error.h"
#include "hv/base/save.h"

struct lapic;

struct lapic_ops {
    void (*wake)(struct lapic *l);                         /* [any] something to look at: IRR, timer */
    uint64_t (*tsc)(struct lapic *l);                      /* guest TSC now */
    void (*eoi_broadcast)(struct lapic *l, unsigned vector);   /* a level-triggered vector got its EOI */
    /* Send to other (or own) APICs; dest as the mode in force reads it. */
    void (*ipi)(struct lapic *l, uint32_t dest, bool logical, unsigned shorthand, unsigned mode,
                unsigned vector, bool level, bool assert_);
};

struct lapic {
    const struct lapic_ops *ops;
    void *owner;                       /* struct cpu */
    uint64_t base_msr;                 /* IA32_APIC_BASE */
    uint32_t id;
    uint32_t tpr, ldr, dfr, svr, esr, esr_pending, icr_lo, icr_hi;
    uint32_t lvt_timer, lvt_thermal, lvt_perf, lvt_lint0, lvt_lint1, lvt_error;
    uint32_t timer_init, timer_divide;
    uint64_t timer_start_tsc;          /* when timer_init was written */
    bool timer_done;                   /* one-shot, and over: stays at zero, whatever the mode becomes */
    uint64_t tsc_deadline;             /* 0: disarmed */
    uint64_t timer_next_tsc;           /* when it fires next; UINT64_MAX: not armed */
    uint64_t timer_hz, tsc_hz;         /* the timer's input clock before the divider */
    _Atomic uint32_t irr[8];           /* [any] */
    _Atomic uint32_t tmr[8];           /* [any] */
    uint32_t isr[8];
};

void lapic_init(struct lapic *l, const struct lapic_ops *ops, void *owner, uint32_t id, uint64_t tsc_hz,
                uint64_t timer_hz);
/* Power-on (init false) or INIT (true: id and base stay, base keeps its enable bit). */
void lapic_reset(struct lapic *l, bool init, bool bsp);

/* xAPIC MMIO page access: 4-byte aligned 32-bit; other widths read as the aligned register's bytes, writes ignored. */
uint32_t lapic_mmio_read(struct lapic *l, uint32_t off);
void lapic_mmio_write(struct lapic *l, uint32_t off, uint32_t val);
/* MSRs 0x1B, 0x6E0, 0x800..0x83F. 0, or -EINVAL: #GP(0). */
int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *ret);
int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t val);
uint64_t lapic_get_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, uint64_t v);

/* [any] A fixed or lowest-priority interrupt arrives: IRR, TMR, then wake. Vectors below 16 set ESR. */
void lapic_accept(struct lapic *l, unsigned vector, bool level);
/* Highest vector that may be delivered now (class > PPR class), or -1. */
int lapic_pending(struct lapic *l);
/* Move it from IRR to ISR and return it; -1 if there is none. */
int lapic_take(struct lapic *l);
/* Does the PIC's ExtINT reach this CPU: LINT0 unmasked ExtINT, or the APIC disabled. */
bool lapic_extint_enabled(const struct lapic *l);
bool lapic_enabled(const struct lapic *l);             /* by base MSR (software enable is SVR) */
/* Does a destination (physical or logical, this APIC's mode) name this APIC? [any] */
bool lapic_matches(const struct lapic *l, uint32_t dest, bool logical);
/* Fire what is due at tsc; returns when to look again, UINT64_MAX if not armed. */
uint64_t lapic_timer_poll(struct lapic *l, uint64_t tsc);
/* The guest TSC was set: it is now delta (modulo 2^64) ahead of what it would have been. The counting
 * timer is not clocked by it and goes on; a TSC deadline is, and comes sooner or later. */
void lapic_tsc_moved(struct lapic *l, uint64_t delta);
void lapic_eoi(struct lapic *l);

void lapic_save(struct lapic *l, struct save_writer *w);         /* fields only; times relative to tsc */
int lapic_load(struct lapic *l, struct load_section *s, struct hv_error *e);

#endif
