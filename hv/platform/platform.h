/*
 * The emulated PC as one piece: every device of the board, built in one call and bound
 * to a machine.
 *
 *   ISA line  0 PIT   4 COM1   3 COM2   8 RTC   1, 12 i8042   9 SCI
 *   I/O       0x20.. 0xA0.. 0x4D0.. PIC   0x40.. 0x61 PIT   0x60 0x64 i8042   0x70.. RTC
 *             0x3F8.. 0x2F8.. UARTs   pm_base.. ACPI   0x92 0xCF8.. reset   0x80 0xED
 *   MMIO      0xFEC00000 IOAPIC
 */
#ifndef HV_PLATFORM_PLATFORM_H
#define HV_PLATFORM_PLATFORM_H

#include "hv/machine/machine.h"
#include "hv/platform/ioapic.h"

struct console;
struct debug;
struct i8042;
struct pic;
struct pit;
struct pm;
struct reset;
struct rtc;
struct uart;

#define PLATFORM_MAX_UARTS 2u

struct platform_config {
    uint64_t low_ram;      /* bytes below 4 GiB, from address 0 on */
    uint64_t high_ram;     /* bytes above 4 GiB at boot */
    unsigned cpus;         /* 1..256; 0 is 1 */
    unsigned uarts;        /* 1 or 2; 0 is 1: COM1 */
    uint16_t pm_base;      /* PM1a block; 0 is PM_BASE */
    bool firmware_log;     /* port 0x402: lies in the PM1a block unless pm_base is elsewhere */
    bool exit_port;        /* ports 0xF4 and 0x501 end the machine, and fw_cfg: for test kernels only */
    int64_t rtc_offset_sec;   /* RTC less UTC at first power-on */

    /* The 8259 pair's INTR: engine.h, set_extint. Any thread, PIC locked: must not call pic_ack. */
    void (*pic_intr)(void *arg, bool asserted);
    /* engine.h, set_route. Any thread, IOAPIC locked: must not call ioapic_eoi. May be NULL. */
    ioapic_route_fn *ioapic_route;
    void *arg;             /* of both */
};

/* The parts; read-only to others. uart[i] is NULL from config.uarts on. */
struct platform {
    struct machine *machine;
    struct pic *pic;
    struct ioapic *ioapic;
    struct pit *pit;
    struct rtc *rtc;
    struct i8042 *i8042;
    struct uart *uart[PLATFORM_MAX_UARTS];
    struct pm *pm;
    struct reset *reset;
    struct debug *debug;
    struct fw_cfg *fw_cfg;       /* these two with config.exit_port, else NULL */
    struct testdev *testdev;
};

/*
 * Build the board: devices are in their power-on state and registered with m, whose
 * clock stays as it is. 0; -EINVAL for a config that does not fit together; -ENOMEM or
 * what the loop said. Loop thread, or before the loop runs.
 */
int platform_new(struct machine *m, const struct platform_config *cfg, struct platform **ret,
                 struct hv_error *e);
/* vCPUs stopped; before machine_free(), while the loop still exists. NULL is fine. */
void platform_free(struct platform *p);

/* COM1's console; lives as long as p. */
struct console *platform_console(struct platform *p);
/* See pm_power_button(). */
bool platform_power_button(struct platform *p);
/* What MACHINE_EVENT_SHUTDOWN_CODE was about. */
uint32_t platform_exit_code(struct platform *p);

/* The engine's callbacks: ioapic_eoi() and pic_ack() of the parts. */
void platform_eoi(struct platform *p, unsigned pin);
int platform_extint_ack(struct platform *p);

#endif
