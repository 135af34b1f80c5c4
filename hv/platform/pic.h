/* The pair of 8259A interrupt controllers of a PC, with ELCR. */
#ifndef HV_PLATFORM_PIC_H
#define HV_PLATFORM_PIC_H

#include "hv/machine/machine.h"

struct pic;

/*
 * Claim 0x20/0x21, 0xA0/0xA1 and 0x4D0/0x4D1 and listen to lines 0..15. intr is called
 * with each change of the INTR output, from any thread, with the PIC's mutex held: it
 * must not come back here. 0 or -ENOMEM.
 */
int pic_new(struct machine *m, void (*intr)(void *arg, bool asserted), void *arg,
            struct pic **ret);
void pic_free(struct pic *p);

/*
 * The CPU's INTA cycle: the vector, or -1 if INTR is not asserted (any more). Any thread.
 */
int pic_ack(struct pic *p);

#endif
