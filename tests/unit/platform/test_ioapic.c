/* The I/O APIC as Linux 6.1's io_apic.c drives it. */
#include "hv/platform/ioapic.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

struct route { uint64_t addr; uint32_t data; bool level, masked; unsigned told; };
struct rig { struct fake f; struct ioapic *io; struct route route[IOAPIC_PINS]; };

static void on_route(void *arg, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked)
{
    struct rig *r = arg;
    unsigned told = r->route[pin].told + 1;
    r->route[pin] = (struct route){ addr, data, level, masked, told };
}

static int setup(void **state)
{
    struct rig *r = hv_alloc(sizeof(*r));
    fake_start(&r->f);
    assert_int_equal(ioapic_new(r->f.m, on_route, r, &r->io), 0);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    ioapic_free(r->io);
    fake_stop(&r->f);
    free(r);
    return 0;
}

static uint32_t rd(struct rig *r, unsigned reg)
{
    writel(&r->f, IOAPIC_BASE, reg);
    return readl(&r->f, IOAPIC_BASE + 0x10);
}

static void wr(struct rig *r, unsigned reg, uint32_t val)
{
    writel(&r->f, IOAPIC_BASE, reg);
    writel(&r->f, IOAPIC_BASE + 0x10, val);
}

/* ioapic_write_entry(): the high half first. */
static void entry(struct rig *r, unsigned pin, uint32_t low, uint8_t dest)
{
    wr(r, 0x11 + 2 * pin, (uint32_t)dest << 24);
    wr(r, 0x10 + 2 * pin, low);
}

enum { LEVEL = 1 << 15, MASKED = 1 << 16, REMOTE_IRR = 1 << 14, LOGICAL = 1 << 11 };

static void registers(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rd(r, 1) & 0xFF, 0x20);
    assert_int_equal(rd(r, 1) >> 16, 23);
    assert_int_equal(rd(r, 0x10 + 2 * 5), MASKED);
    wr(r, 0, 0xFFFFFFFF);
    assert_int_equal(rd(r, 0), 0x0F000000);
    assert_int_equal(rd(r, 2), 0x0F000000);
    wr(r, 1, 0);
    assert_int_equal(rd(r, 1) >> 16, 23);
    wr(r, 0x10 + 2 * 23, 0xFFFFFFFF);
    assert_int_equal(rd(r, 0x10 + 2 * 23), 0x1FFFF & ~(1u << 12 | REMOTE_IRR));
    wr(r, 0x11 + 2 * 23, 0xFFFFFFFF);
    assert_int_equal(rd(r, 0x11 + 2 * 23), 0xFF000000);
    for (unsigned reg = 0x40; reg < 0x100; reg++) {
        wr(r, reg, 0xFFFFFFFF);
        assert_int_equal(rd(r, reg), 0);
    }
    /* Widths: the select register takes a byte, the window no part of one. */
    machine_mmio_write(r->f.m, IOAPIC_BASE, "\x01", 1);
    assert_int_equal(readl(&r->f, IOAPIC_BASE + 0x10) & 0xFF, 0x20);
    machine_mmio_write(r->f.m, IOAPIC_BASE, "\x10", 1);
    machine_mmio_write(r->f.m, IOAPIC_BASE + 0x10, "\x55\x55", 2);
    assert_int_equal(rd(r, 0x10), MASKED);
}

static void an_edge_sends_one_message(void **state)
{
    struct rig *r = *state;
    entry(r, 4, 0x34, 3);
    assert_int_equal(r->route[4].addr, 0xFEE03000);
    assert_int_equal(r->route[4].data, 0x34);
    assert_false(r->route[4].level);
    assert_false(r->route[4].masked);
    machine_irq_set(r->f.m, 4, true);
    machine_irq_set(r->f.m, 4, false);
    machine_irq_set(r->f.m, 4, true);
    assert_int_equal(r->f.msis, 2);
    assert_int_equal(r->f.msi[0].addr, 0xFEE03000);
    assert_int_equal(r->f.msi[0].data, 0x34);
    ioapic_eoi(r->io, 4);                          /* not for edges */
    assert_int_equal(r->f.msis, 2);
    entry(r, 4, 0x134 | LOGICAL, 0x0F);            /* lowest priority, logical */
    assert_int_equal(r->f.msis, 2);                /* programming is no edge */
    machine_irq_set(r->f.m, 4, false);
    machine_irq_pulse(r->f.m, 4);
    assert_int_equal(r->f.msis, 3);
    assert_int_equal(r->f.msi[2].addr, 0xFEE0F004);
    assert_int_equal(r->f.msi[2].data, 0x134);
}

static void masked_edges_are_lost_but_the_timers(void **state)
{
    struct rig *r = *state;
    entry(r, 4, 0x34 | MASKED, 0);
    entry(r, 2, 0x30 | MASKED, 0);
    machine_irq_pulse(r->f.m, 4);
    machine_irq_pulse(r->f.m, 0);                  /* ISA 0 is pin 2 */
    machine_irq_pulse(r->f.m, 0);
    entry(r, 4, 0x34, 0);
    assert_int_equal(r->f.msis, 0);
    entry(r, 2, 0x30, 0);
    assert_int_equal(r->f.msis, 1);
    assert_int_equal(r->f.msi[0].data, 0x30);
    machine_irq_pulse(r->f.m, 0);
    assert_int_equal(r->f.msis, 2);
    machine_irq_pulse(r->f.m, 2);                  /* the cascade goes nowhere */
    assert_int_equal(r->f.msis, 2);
}

static void a_level_waits_for_its_eoi(void **state)
{
    struct rig *r = *state;
    entry(r, 9, 0x39 | LEVEL, 1);
    assert_true(r->route[9].level);
    machine_irq_set(r->f.m, 9, true);
    assert_int_equal(r->f.msis, 1);
    assert_int_equal(r->f.msi[0].data, 0xC039);    /* level, assert */
    assert_int_equal(rd(r, 0x22), 0x39 | LEVEL | REMOTE_IRR);
    machine_irq_set(r->f.m, 9, false);
    machine_irq_set(r->f.m, 9, true);
    assert_int_equal(r->f.msis, 1);                /* remote IRR */
    ioapic_eoi(r->io, 9);
    assert_int_equal(r->f.msis, 2);                /* still asserted: again */
    machine_irq_set(r->f.m, 9, false);
    ioapic_eoi(r->io, 9);
    assert_int_equal(r->f.msis, 2);
    assert_int_equal(rd(r, 0x22), 0x39 | LEVEL);
    /* Masked meanwhile: nothing until it is unmasked. */
    entry(r, 9, 0x39 | LEVEL | MASKED, 1);
    machine_irq_set(r->f.m, 9, true);
    assert_int_equal(r->f.msis, 2);
    wr(r, 0x22, 0x39 | LEVEL);
    assert_int_equal(r->f.msis, 3);
    wr(r, 0x22, 0x39 | LEVEL | MASKED);
    ioapic_eoi(r->io, 9);
    assert_int_equal(r->f.msis, 3);
    assert_int_equal(rd(r, 0x22), 0x39 | LEVEL | MASKED);
}

/* Both of __eoi_ioapic_pin(): the EOI register, and mask + edge + level for old versions. */
static void a_driver_forces_the_eoi(void **state)
{
    struct rig *r = *state;
    entry(r, 9, 0x39 | LEVEL, 0);
    entry(r, 10, 0x3A | LEVEL, 0);
    machine_irq_set(r->f.m, 9, true);
    machine_irq_set(r->f.m, 10, true);
    assert_int_equal(r->f.msis, 2);
    machine_irq_set(r->f.m, 10, false);
    writel(&r->f, IOAPIC_BASE + 0x40, 0x39);
    assert_int_equal(r->f.msis, 3);
    assert_int_equal(rd(r, 0x24), 0x3A | LEVEL | REMOTE_IRR);
    wr(r, 0x24, 0x3A | MASKED);
    wr(r, 0x24, 0x3A | LEVEL);
    assert_int_equal(rd(r, 0x24), 0x3A | LEVEL);
    wr(r, 0x22, 0x39 | LEVEL);                     /* a plain rewrite does not clear it */
    assert_int_equal(rd(r, 0x22), 0x39 | LEVEL | REMOTE_IRR);
    assert_int_equal(r->f.msis, 3);
}

static void other_deliveries_are_edges(void **state)
{
    struct rig *r = *state;
    entry(r, 11, 0x400 | LEVEL, 0);                /* NMI, marked level */
    machine_irq_set(r->f.m, 11, true);
    assert_int_equal(r->f.msi[0].data, 0x400);
    assert_false(r->route[11].level);
    assert_int_equal(rd(r, 0x26), 0x400 | LEVEL);
    machine_irq_set(r->f.m, 11, false);
    machine_irq_set(r->f.m, 11, true);
    assert_int_equal(r->f.msis, 2);
}

static void state_moves(void **state)
{
    struct rig *r = *state, to = { 0 };
    entry(r, 9, 0x39 | LEVEL, 1);
    entry(r, 4, 0x34, 2);
    entry(r, 2, 0x30 | MASKED, 0);
    machine_irq_set(r->f.m, 9, true);
    machine_irq_set(r->f.m, 4, true);
    machine_irq_pulse(r->f.m, 0);
    fake_start(&to.f);
    assert_int_equal(ioapic_new(to.f.m, on_route, &to, &to.io), 0);
    assert_int_equal(to.route[9].told, 0);         /* not before somebody can listen */
    assert_int_equal(fake_move(&r->f, &to.f, NULL), 0);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_int_equal(to.route[pin].told, 1);
        assert_int_equal(to.route[pin].masked, pin != 9 && pin != 4);
    }
    assert_int_equal(to.route[9].addr, 0xFEE01000);
    assert_int_equal(to.f.msis, 0);
    ioapic_eoi(to.io, 9);
    assert_int_equal(to.f.msis, 1);
    machine_irq_set(to.f.m, 4, true);              /* no rise: it was up */
    assert_int_equal(to.f.msis, 1);
    entry(&to, 2, 0x30, 0);
    assert_int_equal(to.f.msis, 2);
    machine_reset(to.f.m);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_true(to.route[pin].masked);
        assert_int_equal(rd(&to, 0x10 + 2 * pin), MASKED);
    }
    machine_irq_set(to.f.m, 4, true);
    assert_int_equal(to.f.msis, 2);
    ioapic_free(to.io);
    fake_stop(&to.f);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(registers), T(an_edge_sends_one_message), T(masked_edges_are_lost_but_the_timers),
        T(a_level_waits_for_its_eoi), T(a_driver_forces_the_eoi), T(other_deliveries_are_edges),
        T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
