/* The ways to reset a PC that are not the keyboard controller's: port 0x92 and 0xCF9. */
#ifndef HV_PLATFORM_RESET_H
#define HV_PLATFORM_RESET_H

#include "hv/machine/machine.h"

#define RESET_PORT  0xCF9u   /* FADT RESET_REG: I/O space, 8 bits */
#define RESET_VALUE 0x06u    /* FADT RESET_VALUE */

struct reset;

/* Claim 0x92 and 0xCF8..0xCFB. 0 or -ENOMEM. */
int reset_new(struct machine *m, struct reset **ret);
void reset_free(struct reset *s);

#endif
