/* Between the software TLB and the slow memory paths: tlb.c, access.c. */
#ifndef HV_ENGINE_SOFT_TLB_H
#define HV_ENGINE_SOFT_TLB_H

#include "hv/engine/soft/cpu.h"

#define SEG_SYSTEM 0xff            /* seg of accesses that have no segment: faults are #GP */

/* Where one access within a page goes. slow: TLB_SLOW_* that the access has to look after. */
struct place { uint8_t *host; gpa_t gpa; unsigned slow; };      /* host NULL: MMIO */

/* The table of c->tlb, TLB_SUPER..TLB_SUPER_AC. */
unsigned lockstep_table(const struct cpu *c);
static inline unsigned tlb_in_force(const struct cpu *c)
{ return HV_UNLIKELY(c->lock) ? lockstep_table(c) : (unsigned)(c->tlb - c->tlb_table[0]) / TLB_SIZE; }

/*
 * Find where va leads for one access of len bytes within the page, filling table t; marks the page
 * dirty for a write and notes data breakpoints. X_FAULT: #PF, or #GP or #SS for va not canonical.
 */
int tlb_place(struct cpu *c, unsigned t, unsigned seg, uint64_t va, unsigned len, enum cpu_access acc,
              struct place *ret);

/* The local APIC's register page is there: enabled, and not in x2APIC mode. */
static inline bool tlb_is_lapic_page(const struct cpu *c, gpa_t page)
{ return (c->lapic.base_msr & 0xc00) == 0x800 && (c->lapic.base_msr & c->phys_mask & HV_PAGE_MASK) == page; }

#endif
