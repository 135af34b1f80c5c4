/* ACPI power management: the PM1a event and control block and the PM timer. */
#ifndef HV_PLATFORM_PM_H
#define HV_PLATFORM_PM_H

#include "hv/machine/machine.h"

#define PM_BASE      0x400u      /* usual place of the PM1a event block; +4 control block, +8 timer */
#define PM_SCI_IRQ   9u          /* active high as a line, level-triggered */
#define PM_SLP_TYP_S5 5u         /* what \_S5 names */
#define PM_TIMER_HZ  3579545u    /* 32 bits wide: FADT TMR_VAL_EXT */

struct pm;

/* Claim base..base+11. 0 or a negative errno. Loop thread, as pm_free. */
int pm_new(struct machine *m, uint16_t base, struct pm **ret);
void pm_free(struct pm *pm);

/*
 * Press the power button: sets PWRBTN_STS and, if the guest listens for it, raises the
 * SCI. Returns whether it does (PWRBTN_EN). Any thread without device locks.
 */
bool pm_power_button(struct pm *pm);

#endif
