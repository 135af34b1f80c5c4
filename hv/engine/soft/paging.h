/* Page table walks: SDM volume 3, chapter 4. */
#ifndef HV_ENGINE_SOFT_PAGING_H
#define HV_ENGINE_SOFT_PAGING_H

#include "hv/engine/soft/cpu.h"

/* What a walk found out about one 4 KiB page, for the privilege it was made for. */
struct walk {
    gpa_t gpa;                 /* of the 4 KiB page */
    bool read, write, exec;    /* allowed from now on without another walk: write only if D is set */
    bool global;
    uint8_t shift;             /* of the page in the guest's tables: 12, 21, 22, 30; 12 without paging */
};

/*
 * Translate va for one access of kind acc made as `as` (TLB_SUPER, TLB_USER, TLB_SUPER_AC),
 * setting accessed and dirty bits in guest memory. X_OK, or X_FAULT with #PF raised.
 */
int paging_walk(struct cpu *c, uint64_t va, enum cpu_access acc, unsigned as, struct walk *ret);

/* The four PDPTEs that CR3 names, for PAE paging (SDM 4.4.1). X_FAULT: #GP(0), ret untouched. */
int paging_load_pdptes(struct cpu *c, uint64_t cr3, uint64_t ret[4]);

#endif
