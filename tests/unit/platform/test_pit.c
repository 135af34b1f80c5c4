/* The 8254: Linux's calibration loops, its clock event device, and late loops. */
#include "hv/platform/pit.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

enum { CH0 = 0x40, CH1, CH2, CTRL, PORT61 = 0x61 };

struct rig { struct fake f; struct pit *p; unsigned ticks; uint64_t last; bool line; };

static void on_line(void *dev, unsigned gsi, bool level)
{
    struct rig *r = dev;
    assert_int_equal(gsi, 0);
    if (level) {
        r->ticks++;
        r->last = machine_clock_ns(r->f.m);
    }
    r->line = level;
}

static int setup(void **state)
{
    struct rig *r = hv_alloc(sizeof(*r));
    fake_start(&r->f);
    machine_add_irq_sink(r->f.m, &(struct irq_sink){ on_line, r });
    assert_int_equal(pit_new(r->f.m, &r->p), 0);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    pit_free(r->p);
    fake_stop(&r->f);
    free(r);
    return 0;
}

static uint64_t ns_of(uint64_t ticks) { return (ticks * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ; }

static void program(struct rig *r, uint16_t port, uint8_t control, uint16_t count)
{
    outb(&r->f, CTRL, control);
    outb(&r->f, port, (uint8_t)count);
    outb(&r->f, port, (uint8_t)(count >> 8));
}

static uint16_t read16(struct rig *r, uint16_t port)
{
    uint16_t low = inb(&r->f, port);
    return (uint16_t)(low | inb(&r->f, port) << 8);
}

static uint16_t latched(struct rig *r, unsigned channel)
{
    outb(&r->f, CTRL, (uint8_t)(channel << 6));
    return read16(r, (uint16_t)(CH0 + channel));
}

/* pit_calibrate_tsc(): mode 0 on channel 2, poll OUT2 at 0x61. */
static void linux_calibrates_the_tsc(void **state)
{
    struct rig *r = *state;
    const uint16_t latch = 11932;      /* CAL_LATCH for 10 ms */
    outb(&r->f, PORT61, (inb(&r->f, PORT61) & ~0x02) | 0x01);
    program(r, CH2, 0xB0, latch);
    uint64_t start = machine_clock_ns(r->f.m);
    unsigned polls = 0;
    while (!(inb(&r->f, PORT61) & 0x20)) {
        fake_stall(&r->f, 500);
        assert_true(++polls < 100000);
    }
    uint64_t took = machine_clock_ns(r->f.m) - start;
    assert_in_range(took, ns_of(latch) - 1000, ns_of(latch) + 1500);
    assert_int_equal(r->ticks, 0);
}

/* quick_pit_calibrate(): the most significant byte counts down in unlatched reads. */
static void linux_quick_calibration(void **state)
{
    struct rig *r = *state;
    outb(&r->f, PORT61, (inb(&r->f, PORT61) & ~0x02) | 0x01);
    program(r, CH2, 0xB0, 0xFFFF);
    uint8_t expect = 0xFF;
    for (unsigned i = 0; i < 200000 && expect > 0xF0; i++) {
        inb(&r->f, CH2);
        uint8_t msb = inb(&r->f, CH2);
        assert_true(msb == expect || msb == expect - 1);
        if (msb != expect) {
            expect = msb;
            assert_in_range(machine_clock_ns(r->f.m), ns_of(256u * (0xFFu - msb)) - 5000,
                            ns_of(256u * (0xFFu - msb)) + 5000);
        }
        fake_stall(&r->f, 1500);
    }
    assert_int_equal(expect, 0xF0);
}

/* pit_set_periodic(): mode 2 at HZ = 250. */
static void periodic_ticks_are_exact(void **state)
{
    struct rig *r = *state;
    const uint32_t count = (PIT_HZ + 125) / 250;
    program(r, CH0, 0x34, (uint16_t)count);
    fake_advance(&r->f, 10 * NS_PER_SEC);
    assert_int_equal(r->ticks, 10 * PIT_HZ / count);
    assert_int_equal(r->last, ns_of((uint64_t)count * r->ticks));   /* no drift by rounding */
    assert_false(r->line);
    assert_int_equal(r->f.fired, r->ticks);
    /* pit_shutdown() */
    program(r, CH0, 0x30, 0);
    unsigned before = r->ticks;
    fake_advance(&r->f, 40 * NS_PER_MS);
    assert_int_equal(r->ticks, before);
}

/* pit_set_oneshot() and pit_next_event(): mode 4, a count each time. */
static void one_shots(void **state)
{
    struct rig *r = *state;
    outb(&r->f, CTRL, 0x38);
    for (unsigned i = 1; i <= 5; i++) {
        uint64_t now = machine_clock_ns(r->f.m);
        outb(&r->f, CH0, 0x00);
        outb(&r->f, CH0, (uint8_t)(0x10 * i));
        fake_advance(&r->f, 100 * NS_PER_MS);
        assert_int_equal(r->ticks, i);
        assert_in_range(r->last - now, ns_of(0x1000 * i), ns_of(0x1000 * i + 2));
    }
    /* Mode 0: at the terminal count; the first byte of a new count takes it back. */
    program(r, CH0, 0x30, 1000);
    outb(&r->f, CH0, 0);
    fake_advance(&r->f, 5 * NS_PER_MS);
    assert_int_equal(r->ticks, 5);
    outb(&r->f, CH0, 4);
    fake_advance(&r->f, ns_of(1024) + 1000);
    assert_int_equal(r->ticks, 6);
}

static void a_late_loop_makes_up_without_a_storm(void **state)
{
    struct rig *r = *state;
    const uint32_t count = 11932;      /* 10 ms */
    program(r, CH0, 0x34, (uint16_t)count);
    fake_advance(&r->f, 95 * NS_PER_MS);
    assert_int_equal(r->ticks, 9);
    fake_stall(&r->f, 50 * NS_PER_MS);             /* the loop slept: 5 rises went by */
    assert_int_equal(r->ticks, 9);
    fake_advance(&r->f, 1);
    assert_int_equal(r->ticks, 10);                /* one at once, not five */
    fake_advance(&r->f, 4 * NS_PER_MS);
    assert_int_equal(r->ticks, 10);
    fake_advance(&r->f, 100 * NS_PER_MS);
    assert_int_equal(r->ticks, (95 + 50 + 4 + 100) / 10);   /* time caught up */
    /* An hour late: a second's worth is made up for, at twice the rate. */
    unsigned before = r->ticks;
    fake_stall(&r->f, 3600 * NS_PER_SEC);
    fake_advance(&r->f, NS_PER_SEC);
    assert_in_range(r->ticks - before, 190, 203);
    fake_advance(&r->f, 4 * NS_PER_SEC);
    assert_in_range(r->ticks - before, 595, 605);
}

static void a_mad_period_does_not_eat_the_loop(void **state)
{
    struct rig *r = *state;
    program(r, CH0, 0x34, 1);
    fake_advance(&r->f, NS_PER_SEC);
    assert_in_range(r->ticks, 9000, 10100);
    program(r, CH0, 0x36, 2);
    r->ticks = 0;
    fake_advance(&r->f, NS_PER_SEC);
    assert_in_range(r->ticks, 9000, 10100);
}

static void a_new_count_takes_over_at_the_period(void **state)
{
    struct rig *r = *state;
    program(r, CH0, 0x34, 10000);
    fake_advance(&r->f, ns_of(4000));
    outb(&r->f, CH0, 0xD0);            /* 2000 */
    outb(&r->f, CH0, 0x07);
    fake_advance(&r->f, ns_of(10000) - ns_of(4000) - 2000);
    assert_int_equal(r->ticks, 0);
    assert_in_range(latched(r, 0), 1, 6);          /* the old period goes on */
    fake_advance(&r->f, 4000);
    assert_int_equal(r->ticks, 1);
    assert_in_range(latched(r, 0), 1990, 2000);
    fake_advance(&r->f, ns_of(20000));
    assert_int_equal(r->ticks, 11);
}

static void counts_and_latches(void **state)
{
    struct rig *r = *state;
    program(r, CH1, 0x70, 1000);                   /* mode 0 wraps and goes on */
    assert_int_equal(latched(r, 1), 1000);
    fake_stall(&r->f, ns_of(400));
    assert_int_equal(latched(r, 1), 600);
    outb(&r->f, CTRL, 0x40);
    fake_stall(&r->f, ns_of(100));
    outb(&r->f, CTRL, 0x40);                       /* the second latch changes nothing */
    assert_int_equal(read16(r, CH1), 600);
    assert_int_equal(read16(r, CH1), 500);
    fake_stall(&r->f, ns_of(600));
    assert_in_range(latched(r, 1), 0xFF9C, 0xFF9D);
    /* Mode 3 counts down by two, twice a period. */
    program(r, CH1, 0x76, 1000);
    fake_stall(&r->f, ns_of(100));
    assert_in_range(latched(r, 1), 798, 800);
    fake_stall(&r->f, ns_of(500));
    assert_in_range(latched(r, 1), 798, 802);
    /* One byte only. */
    outb(&r->f, CTRL, 0x50);
    outb(&r->f, CH1, 200);
    fake_stall(&r->f, ns_of(50));
    assert_int_equal(inb(&r->f, CH1), 150);
    outb(&r->f, CTRL, 0x60);
    outb(&r->f, CH1, 3);
    fake_stall(&r->f, ns_of(10));
    assert_int_equal(inb(&r->f, CH1), 2);
    assert_int_equal(inb(&r->f, CTRL), 0xFF);
}

static void binary_coded_decimal(void **state)
{
    struct rig *r = *state;
    program(r, CH1, 0x71, 0x1234);
    fake_stall(&r->f, ns_of(235));
    assert_int_equal(latched(r, 1), 0x0999);
    fake_stall(&r->f, ns_of(1000));
    assert_in_range(latched(r, 1), 0x9998, 0x9999);
    program(r, CH1, 0x75, 0);                      /* 0 is 10000 */
    fake_stall(&r->f, ns_of(1));
    assert_int_equal(latched(r, 1), 0x9999);
    program(r, CH1, 0x71, 0xFFFF);                 /* no such digits: whatever, but safely */
    latched(r, 1);
}

static void read_back(void **state)
{
    struct rig *r = *state;
    outb(&r->f, CTRL, 0x34);
    outb(&r->f, CTRL, 0xE2);                       /* status of channel 0 */
    assert_int_equal(inb(&r->f, CH0), 0xF4);       /* out, null count, both bytes, mode 2 */
    outb(&r->f, CH0, 0xE8), outb(&r->f, CH0, 0x03);
    outb(&r->f, CTRL, 0xE2);
    assert_int_equal(inb(&r->f, CH0), 0xB4);
    program(r, CH2, 0xB0, 500);
    outb(&r->f, CTRL, 0xC2 | 0x08);                /* status and count of channels 0 and 2 */
    assert_int_equal(inb(&r->f, CH0), 0xB4);
    assert_int_equal(read16(r, CH0), 1000);
    assert_int_equal(inb(&r->f, CH2), 0x30);
    assert_int_equal(read16(r, CH2), 500);
}

static void the_gate_of_channel_2(void **state)
{
    struct rig *r = *state;
    program(r, CH2, 0xB0, 1000);
    fake_stall(&r->f, NS_PER_SEC);
    assert_int_equal(latched(r, 2), 1000);         /* gate low: waits */
    outb(&r->f, PORT61, 1);
    fake_stall(&r->f, ns_of(300));
    outb(&r->f, PORT61, 0);
    fake_stall(&r->f, NS_PER_SEC);
    assert_in_range(latched(r, 2), 699, 700);
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0);
    outb(&r->f, PORT61, 1);
    fake_stall(&r->f, ns_of(702));
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0x20);
    /* Mode 1: a rise of the gate starts the pulse, each time. */
    outb(&r->f, PORT61, 0);
    program(r, CH2, 0xB2, 100);
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0x20);
    outb(&r->f, PORT61, 1);
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0);
    fake_stall(&r->f, ns_of(102));
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0x20);
    outb(&r->f, PORT61, 0), outb(&r->f, PORT61, 1);
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0);
    /* Mode 3: half up, half down. */
    program(r, CH2, 0xB6, 1000);
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0x20);
    fake_stall(&r->f, ns_of(502));
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0);
    fake_stall(&r->f, ns_of(500));
    assert_int_equal(inb(&r->f, PORT61) & 0x20, 0x20);
}

static void port61_bits(void **state)
{
    struct rig *r = *state;
    unsigned toggles = 0;
    outb(&r->f, PORT61, 0xFF);
    assert_int_equal(inb(&r->f, PORT61) & 0xCF, 0x0F);
    uint8_t last = inb(&r->f, PORT61) & 0x10;
    for (unsigned i = 0; i < 1000; i++) {
        fake_stall(&r->f, 1000);
        uint8_t now = inb(&r->f, PORT61) & 0x10;
        toggles += now != last;
        last = now;
    }
    assert_in_range(toggles, 65, 67);              /* every 15.085 us */
}

static void nothing_ticks_while_paused(void **state)
{
    struct rig *r = *state;
    program(r, CH0, 0x34, 11932);
    fake_advance(&r->f, 25 * NS_PER_MS);
    assert_int_equal(r->ticks, 2);
    machine_clock_pause(r->f.m);
    fake_advance(&r->f, 10 * NS_PER_SEC);
    assert_int_equal(r->ticks, 2);
    machine_clock_resume(r->f.m);
    fake_advance(&r->f, 4 * NS_PER_MS);
    assert_int_equal(r->ticks, 2);
    fake_advance(&r->f, 2 * NS_PER_MS);
    assert_int_equal(r->ticks, 3);
}

static void state_moves(void **state)
{
    struct rig *r = *state, to = { 0 };
    program(r, CH0, 0x34, 11932);
    outb(&r->f, PORT61, 1);
    program(r, CH2, 0xB0, 50000);
    fake_advance(&r->f, 25 * NS_PER_MS);
    outb(&r->f, CTRL, 0x80);
    uint8_t low = inb(&r->f, CH2);                 /* half a latched count */
    outb(&r->f, CH0, 0x10);                        /* half a new one */
    fake_start(&to.f);
    machine_add_irq_sink(to.f.m, &(struct irq_sink){ on_line, &to });
    assert_int_equal(pit_new(to.f.m, &to.p), 0);
    assert_int_equal(fake_move(&r->f, &to.f, NULL), 0);
    fake_advance(&to.f, NS_PER_SEC);
    assert_int_equal(to.ticks, 0);                 /* loaded paused */
    machine_clock_resume(to.f.m);
    assert_in_range(low | inb(&to.f, CH2) << 8, 50000 - 29831, 50000 - 29829);
    fake_advance(&to.f, 6 * NS_PER_MS);
    assert_int_equal(to.ticks, 1);
    outb(&to.f, CH0, 0x27);                        /* 10000 from the next period on */
    fake_advance(&to.f, 10 * NS_PER_MS + 10000 * NS_PER_SEC / PIT_HZ);
    assert_int_equal(to.ticks, 3);
    machine_reset(to.f.m);
    fake_advance(&to.f, NS_PER_SEC);
    assert_int_equal(to.ticks, 3);
    assert_int_equal(inb(&to.f, PORT61) & 0x0F, 0);
    pit_free(to.p);
    fake_stop(&to.f);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(linux_calibrates_the_tsc), T(linux_quick_calibration), T(periodic_ticks_are_exact),
        T(one_shots), T(a_late_loop_makes_up_without_a_storm),
        T(a_mad_period_does_not_eat_the_loop), T(a_new_count_takes_over_at_the_period),
        T(counts_and_latches), T(binary_coded_decimal), T(read_back), T(the_gate_of_channel_2),
        T(port61_bits), T(nothing_ticks_while_paused), T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
