/* The ways a guest turns off, resets, or is asked to: PM block, 0xCF9, 0x92, i8042, exit port. */
#include <errno.h>

#include "hv/platform/debug.h"
#include "hv/platform/i8042.h"
#include "hv/platform/pm.h"
#include "hv/platform/reset.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

enum { STS = PM_BASE, EN = PM_BASE + 2, CNT = PM_BASE + 4, TIMER = PM_BASE + 8 };

struct rig {
    struct fake f;
    struct pm *pm;
    struct i8042 *k;
    struct reset *reset;
    struct debug *debug;
    uint32_t lines;
};

static void on_line(void *dev, unsigned gsi, bool level)
{
    struct rig *r = dev;
    r->lines = level ? r->lines | 1u << gsi : r->lines & ~(1u << gsi);
}

static void make(struct rig *r)
{
    fake_start(&r->f);
    machine_add_irq_sink(r->f.m, &(struct irq_sink){ on_line, r });
    assert_int_equal(pm_new(r->f.m, PM_BASE, &r->pm), 0);
    assert_int_equal(i8042_new(r->f.m, &r->k), 0);
    assert_int_equal(reset_new(r->f.m, &r->reset), 0);
    assert_int_equal(debug_new(r->f.m, false, true, &r->debug), 0);
}

static void destroy(struct rig *r)
{
    debug_free(r->debug);
    reset_free(r->reset);
    i8042_free(r->k);
    pm_free(r->pm);
    fake_stop(&r->f);
}

static int setup(void **state)
{
    struct rig *r = hv_alloc(sizeof(*r));
    make(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    destroy(*state);
    free(*state);
    return 0;
}

static void s5_turns_off(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    unsigned *off = &f->event[MACHINE_EVENT_POWER_OFF];
    assert_int_equal(fake_in(f, CNT, 2), 0x0001);             /* SCI_EN: no SMI mode */
    fake_out(f, CNT, 2, 1 << 13);                             /* S0 */
    fake_out(f, CNT, 2, 1 << 13 | 1 << 10);                   /* S1: not offered */
    assert_int_equal(*off, 0);
    fake_out(f, CNT, 2, 5 << 10 | 1);                         /* acpi_hw_extended_sleep's two steps */
    assert_int_equal(*off, 0);
    fake_out(f, CNT, 2, 5 << 10 | 1 << 13 | 1);
    assert_int_equal(*off, 1);
    assert_int_equal(fake_in(f, CNT, 2), 5 << 10 | 1);        /* SLP_EN reads 0 */
    outb(f, CNT + 1, 0x34);                                   /* by bytes */
    assert_int_equal(*off, 2);
    fake_out(f, EN, 4, (5u << 10 | 1u << 13) << 16);          /* with PM1_EN in one dword */
    assert_int_equal(*off, 3);
}

static void power_button(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    assert_false(pm_power_button(r->pm));                     /* nobody listens */
    assert_int_equal(fake_in(f, STS, 2), 0x0100);
    fake_out(f, STS, 2, 0x0100);
    assert_int_equal(fake_in(f, STS, 2), 0);
    fake_out(f, EN, 2, 0xFFFF);
    assert_int_equal(fake_in(f, EN, 2), 0x0721);
    assert_true(pm_power_button(r->pm));
    assert_int_equal(r->lines, 1u << PM_SCI_IRQ);
    fake_out(f, STS, 2, 0x0021);                              /* another bit */
    assert_int_equal(r->lines, 1u << PM_SCI_IRQ);
    outb(f, STS + 1, 0x01);
    assert_int_equal(r->lines, 0);
    pm_power_button(r->pm);
    fake_out(f, EN, 2, 0);
    assert_int_equal(r->lines, 0);
    fake_out(f, EN, 2, 0x0100);
    assert_int_equal(r->lines, 1u << PM_SCI_IRQ);
    machine_reset(f->m);
    assert_int_equal(r->lines, 0);
    assert_int_equal(fake_in(f, STS, 4), 0);
}

static void pm_timer(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    assert_int_equal(fake_in(f, TIMER, 4), 0);
    fake_stall(f, NS_PER_SEC);
    assert_int_equal(fake_in(f, TIMER, 4), PM_TIMER_HZ);
    fake_out(f, TIMER, 4, 0);
    assert_int_equal(fake_in(f, TIMER, 4), PM_TIMER_HZ);
    assert_int_equal(inb(f, TIMER + 2), PM_TIMER_HZ >> 16 & 0xFF);
    assert_int_equal(fake_in(f, TIMER - 2, 4), PM_TIMER_HZ << 16);
    /* Bit 31 changes every 2^31 ticks; the interrupt comes if asked for. */
    fake_advance(f, 598 * NS_PER_SEC);
    assert_int_equal(fake_in(f, STS, 2), 0);
    fake_advance(f, 2 * NS_PER_SEC);
    assert_int_equal(f->fired, 0);
    assert_int_equal(fake_in(f, STS, 2), 0x0001);
    fake_out(f, STS, 2, 1);
    fake_out(f, EN, 2, 1);
    fake_advance(f, 598 * NS_PER_SEC);
    assert_int_equal(r->lines, 0);
    fake_advance(f, 3 * NS_PER_SEC);
    assert_int_equal(r->lines, 1u << PM_SCI_IRQ);
    fake_advance(f, 2000 * NS_PER_SEC);
    assert_int_equal(f->fired, 1);                            /* pending: no timer */
    fake_out(f, STS, 2, 1);
    assert_int_equal(r->lines, 0);
    assert_int_equal(fake_in(f, TIMER, 4), (uint32_t)(UINT64_C(3202) * PM_TIMER_HZ));
}

/* What Linux tries, in its order: ACPI reset register, keyboard controller, 0xCF9. */
static void linux_reboots(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    unsigned *reset = &f->event[MACHINE_EVENT_RESET];
    outb(f, RESET_PORT, RESET_VALUE);
    assert_int_equal(*reset, 1);
    outb(f, RESET_PORT, RESET_VALUE);                         /* no rise */
    assert_int_equal(*reset, 1);
    machine_reset(f->m);
    assert_int_equal(inb(f, 0x64) & 0x02, 0);                 /* kb_wait() */
    outb(f, 0x64, 0xFE);
    assert_int_equal(*reset, 2);
    uint8_t cf9 = inb(f, 0xCF9) & ~6;
    outb(f, 0xCF9, cf9 | 2);
    assert_int_equal(*reset, 2);
    outb(f, 0xCF9, cf9 | 6);
    assert_int_equal(*reset, 3);
    outb(f, 0x92, inb(f, 0x92) | 1);
    assert_int_equal(*reset, 4);
    assert_int_equal(inb(f, 0x92), 3);
    outb(f, 0x64, 0xD1);
    outb(f, 0x60, 0x02);                                      /* output port, reset line low */
    assert_int_equal(*reset, 5);
    outb(f, 0x64, 0xFF);                                      /* pulses nothing */
    outb(f, 0x64, 0xF1);
    assert_int_equal(*reset, 5);
}

/* pci_check_type1() and a scan: dwords at 0xCF8 whose second byte would be a reset. */
static void looking_for_pci_does_not_reset(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    outb(f, 0xCFB, 0x01);
    fake_out(f, 0xCF8, 4, 0x80000000);
    assert_int_equal(fake_in(f, 0xCF8, 4), 0x80000000);       /* mechanism #1 is there, and no device on it */
    for (uint32_t addr = 0; addr < 0x10000; addr += 4) {
        fake_out(f, 0xCF8, 4, 0x80000000 | addr);
        assert_int_equal(fake_in(f, 0xCFC, 4), 0xFFFFFFFF);
    }
    fake_out(f, 0xCF8, 2, 0x0600);
    assert_int_equal(f->event[MACHINE_EVENT_RESET], 0);
    assert_int_equal(inb(f, 0xCF9), 0);
}

/* i8042_controller_check/selftest/init and the failing probes of absent devices. */
static void linux_probes_the_keyboard(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    assert_int_equal(inb(f, 0x64) & 0x01, 0);
    outb(f, 0x64, 0xAA);
    assert_int_equal(inb(f, 0x64) & 0x21, 0x01);
    assert_int_equal(inb(f, 0x60), 0x55);
    assert_int_equal(inb(f, 0x64) & 0x01, 0);
    outb(f, 0x64, 0x20);
    uint8_t ctr = inb(f, 0x60);
    assert_int_equal(ctr & 0x44, 0x44);
    outb(f, 0x64, 0x60);
    outb(f, 0x60, (ctr | 0x13) & ~0x10);
    outb(f, 0x64, 0x20);
    assert_int_equal(inb(f, 0x60), (ctr | 0x03) & ~0x10);     /* this read raised and lowered IRQ 1 */
    assert_int_equal(r->lines, 0);
    outb(f, 0x64, 0xAB);
    assert_int_equal(r->lines, 1u << 1);
    assert_int_equal(inb(f, 0x60), 0x00);
    outb(f, 0x64, 0xD3);
    outb(f, 0x60, 0x5A);                                      /* AUX loop test */
    assert_int_equal(r->lines, 1u << 12);
    assert_int_equal(inb(f, 0x64) & 0x21, 0x21);
    assert_int_equal(inb(f, 0x60), 0x5A);
    assert_int_equal(r->lines, 0);
    outb(f, 0x60, 0xF2);                                      /* GETID: nobody there, said at once */
    assert_int_equal(inb(f, 0x64) & 0x61, 0x41);
    assert_int_equal(inb(f, 0x60), 0xFE);
    outb(f, 0x64, 0xD4);
    outb(f, 0x60, 0xF2);
    assert_int_equal(inb(f, 0x64) & 0x61, 0x61);
    assert_int_equal(inb(f, 0x60), 0xFE);
    outb(f, 0x64, 0xA7);
    outb(f, 0x64, 0x20);
    assert_int_equal(inb(f, 0x60) & 0x20, 0x20);
}

static void payload_exit(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    outb(f, 0x80, 0x5A);
    assert_int_equal(inb(f, 0x80), 0x5A);
    outb(f, 0xF4, 0x10);
    assert_int_equal(machine_exit_code(f->m), 0x10);
    fake_out(f, 0x501, 4, 0x12345678);
    assert_int_equal(machine_exit_code(f->m), 0x12345678);
    assert_int_equal(f->event[MACHINE_EVENT_SHUTDOWN_CODE], 2);
}

static void firmware_log(void **state)
{
    struct fake f;
    struct debug *d;
    fake_start(&f);
    assert_int_equal(debug_new(f.m, true, false, &d), 0);
    assert_int_equal(inb(&f, 0x402), 0xE9);
    assert_int_equal(inb(&f, 0xF4), 0xFF);
    for (unsigned i = 0; i < 2000; i++) {
        outb(&f, 0x402, (uint8_t)i);
    }
    outb(&f, 0xF4, 1);
    assert_int_equal(f.event[MACHINE_EVENT_SHUTDOWN_CODE], 0);   /* not offered */
    debug_free(d);
    fake_stop(&f);
}

static void state_moves(void **state)
{
    struct rig *r = *state, to = { 0 };
    fake_out(&r->f, EN, 2, 0x0101);
    fake_out(&r->f, CNT, 2, 3 << 10);
    fake_advance(&r->f, 700 * NS_PER_SEC);
    pm_power_button(r->pm);
    outb(&r->f, 0x64, 0x60);
    outb(&r->f, 0x60, 0x47);
    outb(&r->f, 0x64, 0xAB);
    outb(&r->f, 0x64, 0xD4);                                  /* its byte is still to come */
    outb(&r->f, 0xCF9, 0x02);
    outb(&r->f, 0x80, 0x33);
    make(&to);
    assert_int_equal(fake_move(&r->f, &to.f, NULL), 0);
    assert_int_equal(fake_in(&to.f, STS, 2), 0x0101);
    assert_int_equal(fake_in(&to.f, CNT, 2), 3 << 10 | 1);
    assert_int_equal(fake_in(&to.f, TIMER, 4), (uint32_t)(UINT64_C(700) * PM_TIMER_HZ));
    fake_out(&to.f, STS, 2, 0x0101);
    assert_int_equal(inb(&to.f, 0x60), 0x00);
    outb(&to.f, 0x60, 0xFF);
    assert_int_equal(inb(&to.f, 0x64) & 0x61, 0x61);
    assert_int_equal(inb(&to.f, 0xCF9), 0x02);
    assert_int_equal(inb(&to.f, 0x80), 0x33);
    machine_clock_resume(to.f.m);
    fake_advance(&to.f, 500 * NS_PER_SEC);                    /* carry at 1200 s */
    assert_int_equal(to.lines & 1u << PM_SCI_IRQ, 1u << PM_SCI_IRQ);
    destroy(&to);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(s5_turns_off), T(power_button), T(pm_timer), T(linux_reboots),
        T(looking_for_pci_does_not_reset), T(linux_probes_the_keyboard), T(payload_exit),
        T(firmware_log), T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
