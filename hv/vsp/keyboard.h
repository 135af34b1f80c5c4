/* The synthetic keyboard: set-1 scan codes into the guest. guest-abi 6.5; Linux hyperv-keyboard.c. */
#ifndef HV_VSP_KEYBOARD_H
#define HV_VSP_KEYBOARD_H

#include "hv/vmbus/vmbus.h"

struct keyboard;

int keyboard_new(struct vmbus *bus, struct keyboard **ret, struct hv_error *e);
void keyboard_free(struct keyboard *k);
/* Is a driver there that takes keys? */
bool keyboard_ready(const struct keyboard *k);
/*
 * One key: its make code in set 1 (1..0x7F, no break bit), with E0 or E1 before it where the
 * key has that. 0; -ENOTCONN: no driver; -EAGAIN: the guest does not take keys fast enough.
 */
int keyboard_key(struct keyboard *k, uint16_t make, bool e0, bool e1, bool down);

#endif
