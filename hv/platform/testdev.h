/*
 * What suites of test kernels poke at besides their exit port, as QEMU's pc-testdev has it:
 * interrupt lines to drive by hand, a port and a page of memory-mapped I/O that keep what
 * is written. Only with platform_config.exit_port.
 */
#ifndef HV_PLATFORM_TESTDEV_H
#define HV_PLATFORM_TESTDEV_H

#include "hv/machine/machine.h"

struct testdev;

int testdev_new(struct machine *m, struct testdev **ret);
void testdev_free(struct testdev *t);

#endif
