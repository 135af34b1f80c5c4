/* Lines, events, the guest clock, reset, save and load. */
#include <errno.h>

#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

struct sink { unsigned calls; uint32_t lines; };

static void sink_set(void *dev, unsigned gsi, bool level)
{
    struct sink *s = dev;
    s->calls++;
    s->lines = level ? s->lines | 1u << gsi : s->lines & ~(1u << gsi);
}

static void sinks_hear_changes_only(void **state)
{
    struct fake f;
    struct sink a = { 0 }, b = { 0 };
    fake_start(&f);
    machine_add_irq_sink(f.m, &(struct irq_sink){ sink_set, &a });
    machine_add_irq_sink(f.m, &(struct irq_sink){ sink_set, &b });
    machine_irq_set(f.m, 4, true);
    machine_irq_set(f.m, 4, true);
    machine_irq_set(f.m, 9, true);
    assert_int_equal(a.calls, 2);
    assert_int_equal(b.lines, 1u << 4 | 1u << 9);
    machine_irq_set(f.m, 9, false);
    machine_irq_set(f.m, 9, false);
    assert_int_equal(a.calls, 3);
    machine_irq_pulse(f.m, 23);
    assert_int_equal(a.calls, 5);
    assert_int_equal(a.lines, 1u << 4);
    fake_stop(&f);
}

static void messages_and_events(void **state)
{
    struct fake f;
    fake_start(&f);
    machine_msi(f.m, 0xFEE01000, 0x4031);
    assert_int_equal(f.msis, 1);
    assert_int_equal(f.msi[0].addr, 0xFEE01000);
    assert_int_equal(f.msi[0].data, 0x4031);
    machine_event(f.m, MACHINE_EVENT_RESET);
    machine_exit(f.m, 0x31);
    assert_int_equal(f.event[MACHINE_EVENT_RESET], 1);
    assert_int_equal(f.event[MACHINE_EVENT_SHUTDOWN_CODE], 1);
    assert_int_equal(machine_exit_code(f.m), 0x31);
    fake_stop(&f);
}

static void count_call(void *dev) { ++*(unsigned *)dev; }

static void clock_stands_still_while_paused(void **state)
{
    struct fake f;
    unsigned calls = 0;
    fake_start(&f);
    machine_on_clock(f.m, count_call, &calls);
    assert_int_equal(machine_clock_ns(f.m), 0);
    fake_stall(&f, 500);
    assert_int_equal(machine_clock_ns(f.m), 500);
    assert_int_equal(machine_deadline(f.m, 800), f.now + 300);
    assert_int_equal(machine_deadline(f.m, 100), f.now);            /* past: at once */
    assert_int_equal(machine_deadline(f.m, UINT64_MAX), UINT64_MAX);
    machine_clock_pause(f.m);
    machine_clock_pause(f.m);
    fake_stall(&f, 10000);
    assert_int_equal(machine_clock_ns(f.m), 500);
    assert_int_equal(machine_deadline(f.m, 800), UINT64_MAX);
    assert_int_equal(calls, 0);
    machine_clock_resume(f.m);
    assert_int_equal(calls, 1);
    machine_clock_resume(f.m);          /* it runs already: nothing changed */
    assert_int_equal(calls, 1);
    fake_stall(&f, 7);
    assert_int_equal(machine_clock_ns(f.m), 507);
    assert_int_equal(machine_deadline(f.m, 800), f.now + 293);
    fake_stop(&f);
}

/* ---- a device with one 32-bit register that must be even ---- */

struct dev { struct fake *f; uint32_t reg; unsigned resets; uint32_t lines_at_reset; struct sink *sink; };

static void dev_reset(void *p)
{
    struct dev *d = p;
    d->reg = 0;
    d->resets++;
    d->lines_at_reset = d->sink ? d->sink->lines : 0;
}

static void dev_save(void *p, struct save_writer *w) { save_u32(w, ((struct dev *)p)->reg); }

static int dev_load(void *p, struct load_section *s, struct hv_error *e)
{
    uint32_t v = load_u32(s);
    if (v & 1) {
        return -EINVAL;
    }
    ((struct dev *)p)->reg = v;
    return 0;
}

static int dev_load_short(void *p, struct load_section *s, struct hv_error *e)
{
    ((struct dev *)p)->reg = load_u16(s);
    return 0;
}

static const struct device_ops dev_v1 = { "dev", 1, dev_reset, dev_save, dev_load };
static const struct device_ops dev_v2 = { "dev", 2, dev_reset, dev_save, dev_load };
static const struct device_ops dev_short = { "dev", 1, dev_reset, dev_save, dev_load_short };
static const struct device_ops other = { "other", 1, dev_reset, dev_save, dev_load };

static void reset_lowers_lines_first(void **state)
{
    struct fake f;
    struct sink s = { 0 };
    struct dev d = { .reg = 4, .sink = &s };
    fake_start(&f);
    machine_add_irq_sink(f.m, &(struct irq_sink){ sink_set, &s });
    machine_add_device(f.m, &dev_v1, 0, &d);
    machine_irq_set(f.m, 3, true);
    fake_stall(&f, 99);
    machine_reset(f.m);
    assert_int_equal(d.resets, 1);
    assert_int_equal(d.reg, 0);
    assert_int_equal(d.lines_at_reset, 0);
    assert_int_equal(machine_clock_ns(f.m), 99);   /* guest time goes on over a reset */
    fake_stop(&f);
}

static void state_moves_to_a_fresh_machine(void **state)
{
    struct fake a, b;
    struct sink s = { 0 };
    struct dev a0 = { .reg = 42 }, a1 = { .reg = 44 }, b0 = { 0 }, b1 = { 0 };
    unsigned calls = 0;
    fake_start(&a);
    fake_start(&b);
    machine_add_device(a.m, &dev_v1, 0, &a0);
    machine_add_device(a.m, &dev_v1, 1, &a1);
    machine_add_device(b.m, &dev_v2, 0, &b0);      /* newer code loads older state */
    machine_add_device(b.m, &dev_v2, 1, &b1);
    machine_add_irq_sink(b.m, &(struct irq_sink){ sink_set, &s });
    machine_on_clock(b.m, count_call, &calls);
    machine_irq_set(a.m, 9, true);
    fake_stall(&a, 5000 * NS_PER_SEC);             /* longer than b's host is up */
    struct hv_error e = { 0 };
    assert_int_equal(fake_move(&a, &b, &e), 0);
    assert_int_equal(b0.reg, 42);
    assert_int_equal(b1.reg, 44);
    assert_int_equal(calls, 1);
    assert_int_equal(s.calls, 0);                  /* the sinks' own sections say it */
    assert_int_equal(machine_clock_ns(b.m), 5000 * NS_PER_SEC);
    assert_int_equal(machine_deadline(b.m, 0), UINT64_MAX);   /* paused */
    machine_clock_resume(b.m);
    fake_stall(&b, 3);
    assert_int_equal(machine_clock_ns(b.m), 5000 * NS_PER_SEC + 3);
    assert_int_equal(machine_deadline(b.m, 5000 * NS_PER_SEC + 10), b.now + 7);
    machine_irq_set(b.m, 9, true);                 /* still up: no change */
    assert_int_equal(s.calls, 0);
    machine_irq_set(b.m, 9, false);
    assert_int_equal(s.calls, 1);
    fake_stop(&a);
    fake_stop(&b);
}

static int load_between(const struct device_ops *from, uint32_t reg, const struct device_ops *to,
                        struct hv_error *e)
{
    struct fake a, b;
    struct dev x = { .reg = reg }, y = { 0 };
    fake_start(&a);
    fake_start(&b);
    machine_add_device(a.m, from, 0, &x);
    machine_add_device(b.m, to, 0, &y);
    hv_error_clear(e);
    int r = fake_move(&a, &b, e);
    fake_stop(&a);
    fake_stop(&b);
    return r;
}

static void bad_state_is_refused(void **state)
{
    struct hv_error e = { 0 };
    assert_int_equal(load_between(&dev_v1, 2, &dev_v1, &e), 0);
    assert_int_equal(load_between(&dev_v1, 3, &dev_v1, &e), -EINVAL);
    assert_non_null(strstr(e.message, "dev 0"));
    assert_int_equal(load_between(&dev_v2, 2, &dev_v1, &e), -EOPNOTSUPP);
    assert_int_equal(e.code, HV_UNSUPPORTED);
    assert_int_equal(load_between(&dev_v1, 2, &other, &e), -EINVAL);
    assert_non_null(strstr(e.message, "no section for device other 0"));
    assert_int_equal(load_between(&dev_v1, 2, &dev_short, &e), -EINVAL);   /* bytes left over */
}

static void bad_machine_section_is_refused(void **state)
{
    const struct { uint64_t clock; uint32_t lines, version; bool shorter; int want; } t[] = {
        { 5, 0xFFFFFF, 1, false, 0 },
        { 5, 0x1000000, 1, false, -EINVAL },
        { UINT64_MAX, 0, 1, false, -EINVAL },
        { 5, 0, 2, false, -EOPNOTSUPP },
        { 5, 0, 1, true, -EINVAL },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        struct fake f;
        struct save_writer w;
        struct load_reader r;
        fake_start(&f);
        save_init(&w);
        save_begin(&w, "machine", 0, t[i].version);
        save_u64(&w, t[i].clock);
        if (!t[i].shorter) {
            save_u32(&w, t[i].lines);
        }
        save_end(&w);
        assert_int_equal(load_init(&r, w.out.buf, w.out.len, NULL), 0);
        assert_int_equal(machine_load(f.m, &r, NULL), t[i].want);
        save_fini(&w);
        fake_stop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sinks_hear_changes_only),
        cmocka_unit_test(messages_and_events),
        cmocka_unit_test(clock_stands_still_while_paused),
        cmocka_unit_test(reset_lowers_lines_first),
        cmocka_unit_test(state_moves_to_a_fresh_machine),
        cmocka_unit_test(bad_state_is_refused),
        cmocka_unit_test(bad_machine_section_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
