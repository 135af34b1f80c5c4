/* The 8254 interval timer and system control port B (0x61) of a PC. */
#ifndef HV_PLATFORM_PIT_H
#define HV_PLATFORM_PIT_H

#include "hv/machine/machine.h"

#define PIT_HZ 1193182u

struct pit;

/*
 * Claim 0x40..0x43 and 0x61; channel 0 pulses ISA line 0 through a loop timer.
 * 0 or a negative errno. Loop thread, as pit_free.
 */
int pit_new(struct machine *m, struct pit **ret);
void pit_free(struct pit *p);

#endif
