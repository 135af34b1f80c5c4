/* The I/O APIC of a PC: 24 pins at 0xFEC00000. */
#ifndef HV_PLATFORM_IOAPIC_H
#define HV_PLATFORM_IOAPIC_H

#include "hv/machine/machine.h"

#define IOAPIC_BASE ((gpa_t)0xFEC00000)
#define IOAPIC_PINS 24u

struct ioapic;

/*
 * What pin sends from now on (engine.h, set_route): called on every change of a
 * redirection entry, for all pins on reset and load. Any thread, with the IOAPIC's mutex
 * held: it must not come back here.
 */
typedef void ioapic_route_fn(void *arg, unsigned pin, uint64_t addr, uint32_t data, bool level,
                             bool masked);

/*
 * Listen to the machine's lines (ISA line 0 is pin 2, as MADT says) and deliver through
 * machine_msi(), which must not come back here either. route may be NULL. 0 or -ENOMEM.
 */
int ioapic_new(struct machine *m, ioapic_route_fn *route, void *arg, struct ioapic **ret);
void ioapic_free(struct ioapic *io);

/* A LAPIC got the EOI of the level-triggered vector of pin. Any thread. */
void ioapic_eoi(struct ioapic *io, unsigned pin);

#endif
