/* A 16550A serial port on the ISA bus; its other end is a console. */
#ifndef HV_PLATFORM_UART_H
#define HV_PLATFORM_UART_H

#include "hv/machine/machine.h"

struct uart;
struct console;

/*
 * Claim base..base+7 and drive line irq. index: 0 is COM1; section instance and name of
 * the counters, at most 3. 0 or -ENOMEM. Free after the machine stopped using it, on the
 * loop's thread.
 */
int uart_new(struct machine *m, unsigned index, uint16_t base, unsigned irq, struct uart **ret);
void uart_free(struct uart *u);

/* Belongs to the UART and lives as long. */
struct console *uart_console(struct uart *u);

#endif
