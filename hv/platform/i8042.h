/* The keyboard controller of a PC, without keyboard and mouse (a guest's are synthetic). */
#ifndef HV_PLATFORM_I8042_H
#define HV_PLATFORM_I8042_H

#include "hv/machine/machine.h"

struct i8042;

/* Claim 0x60 and 0x64; ISA lines 1 and 12. 0 or -ENOMEM. */
int i8042_new(struct machine *m, struct i8042 **ret);
void i8042_free(struct i8042 *k);

#endif
