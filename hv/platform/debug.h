/* Ports for bringing guests up: firmware's log, POST codes, the test payloads' exit. */
#ifndef HV_PLATFORM_DEBUG_H
#define HV_PLATFORM_DEBUG_H

#include "hv/machine/machine.h"

struct debug;

/*
 * Claim 0x80 and 0xED (POST code and I/O delay); if firmware_log, 0x402 (reads 0xE9); if
 * exit_port, 0xF4 and 0x501: a write there ends the machine with machine_exit(). 0 or
 * -ENOMEM.
 */
int debug_new(struct machine *m, bool firmware_log, bool exit_port, struct debug **ret);
void debug_free(struct debug *d);

#endif
