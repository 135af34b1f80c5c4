/* The real-time clock: as Linux reads, sets and waits for it; the calendar behind it. */
#include "hv/platform/calendar.h"
#include "hv/platform/rtc.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

enum { INDEX = 0x70, DATA };
enum { SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WDAY, DAY, MONTH, YEAR, A, B, C, D,
       CENTURY = 0x32 };

struct rig { struct fake f; struct rtc *t; unsigned rises; bool line; };

static void on_line(void *dev, unsigned gsi, bool level)
{
    struct rig *r = dev;
    assert_int_equal(gsi, 8);
    r->rises += level;
    r->line = level;
}

static int setup(void **state)
{
    struct rig *r = hv_alloc(sizeof(*r));
    fake_start(&r->f);
    machine_add_irq_sink(r->f.m, &(struct irq_sink){ on_line, r });
    assert_int_equal(rtc_new(r->f.m, 0, &r->t), 0);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    rtc_free(r->t);
    fake_stop(&r->f);
    free(r);
    return 0;
}

static uint8_t get(struct rig *r, unsigned reg)
{
    outb(&r->f, INDEX, (uint8_t)reg);
    return inb(&r->f, DATA);
}

static void set(struct rig *r, unsigned reg, uint8_t val)
{
    outb(&r->f, INDEX, (uint8_t)reg);
    outb(&r->f, DATA, val);
}

#define expect_time(r, cent, y, mo, d, h, mi, s)                                              \
    do {                                                                                      \
        assert_int_equal(get(r, CENTURY), cent), assert_int_equal(get(r, YEAR), y);           \
        assert_int_equal(get(r, MONTH), mo), assert_int_equal(get(r, DAY), d);                \
        assert_int_equal(get(r, HOUR), h), assert_int_equal(get(r, MIN), mi);                 \
        assert_int_equal(get(r, SEC), s);                                                     \
    } while (0)

/* mc146818_set_time() */
static void linux_sets(struct rig *r, uint8_t cent, uint8_t y, uint8_t mo, uint8_t d, uint8_t h,
                       uint8_t mi, uint8_t s)
{
    uint8_t control = get(r, B), select = get(r, A);
    set(r, B, control | 0x80);
    set(r, A, select | 0x70);
    set(r, YEAR, y), set(r, MONTH, mo), set(r, DAY, d), set(r, HOUR, h);
    set(r, MIN, mi), set(r, SEC, s), set(r, CENTURY, cent);
    set(r, B, control);
    set(r, A, select);
}

static void shows_the_hosts_time(void **state)
{
    struct rig *r = *state;
    expect_time(r, 0x20, 0x26, 0x11, 0x20, 0x12, 0x34, 0x56);
    assert_int_equal(get(r, WDAY), 6);             /* a Friday */
    assert_int_equal(get(r, A), 0x26);
    assert_int_equal(get(r, B), 0x02);
    assert_int_equal(get(r, D), 0x80);
    fake_stall(&r->f, 4 * NS_PER_SEC);
    expect_time(r, 0x20, 0x26, 0x11, 0x20, 0x12, 0x35, 0x00);
    set(r, B, 0x06);                               /* binary */
    expect_time(r, 20, 26, 11, 20, 12, 35, 0);
    set(r, B, 0x00);                               /* BCD, 12 hours */
    assert_int_equal(get(r, HOUR), 0x92);
    fake_stall(&r->f, 3600 * NS_PER_SEC);
    assert_int_equal(get(r, HOUR), 0x81);
    fake_stall(&r->f, 11 * 3600 * NS_PER_SEC);
    assert_int_equal(get(r, HOUR), 0x12);
    assert_int_equal(get(r, DAY), 0x21);
    assert_int_equal(inb(&r->f, INDEX), 0xFF);
    assert_int_equal(get(r, 0x80 | SEC), get(r, SEC));   /* bit 7 is the NMI mask */
}

static void linux_reads_between_updates(void **state)
{
    struct rig *r = *state;
    fake_stall(&r->f, NS_PER_SEC - 250000);
    assert_int_equal(get(r, A), 0x26);
    fake_stall(&r->f, 10000);
    assert_int_equal(get(r, A), 0xA6);             /* UIP, 244 us ahead */
    assert_int_equal(get(r, SEC), 0x56);
    fake_stall(&r->f, 240000);
    assert_int_equal(get(r, A), 0x26);
    assert_int_equal(get(r, SEC), 0x57);
}

static void linux_sets_the_time(void **state)
{
    struct rig *r = *state;
    fake_stall(&r->f, 700 * NS_PER_MS);
    linux_sets(r, 0x20, 0x31, 0x02, 0x28, 0x23, 0x59, 0x59);
    expect_time(r, 0x20, 0x31, 0x02, 0x28, 0x23, 0x59, 0x59);
    fake_stall(&r->f, 499 * NS_PER_MS);            /* the divider starts at half a second */
    assert_int_equal(get(r, SEC), 0x59);
    fake_stall(&r->f, 2 * NS_PER_MS);
    expect_time(r, 0x20, 0x31, 0x03, 0x01, 0x00, 0x00, 0x00);
    fake_stall(&r->f, 365 * 86400 * NS_PER_SEC);
    expect_time(r, 0x20, 0x32, 0x02, 0x29, 0x00, 0x00, 0x00);
    /* With SET alone the fraction of the second goes on. */
    set(r, B, 0x82);
    fake_stall(&r->f, 10 * NS_PER_SEC + 400 * NS_PER_MS);
    assert_int_equal(get(r, SEC), 0x00);           /* stands still */
    assert_int_equal(get(r, A) & 0x80, 0);
    set(r, SEC, 0x30);
    set(r, B, 0x02);
    assert_int_equal(get(r, SEC), 0x30);
    fake_stall(&r->f, 590 * NS_PER_MS);
    assert_int_equal(get(r, SEC), 0x30);
    fake_stall(&r->f, 10 * NS_PER_MS);
    assert_int_equal(get(r, SEC), 0x31);
    /* And a write while it runs counts at once. */
    set(r, HOUR, 0x07);
    expect_time(r, 0x20, 0x32, 0x02, 0x29, 0x07, 0x00, 0x31);
}

static void odd_values_are_safe(void **state)
{
    struct rig *r = *state;
    linux_sets(r, 0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
    expect_time(r, 0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
    fake_stall(&r->f, NS_PER_SEC);
    expect_time(r, 0x00, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00);   /* year 10000 */
    linux_sets(r, 0, 0, 0, 0, 0, 0, 0);
    expect_time(r, 0, 0, 0x01, 0x01, 0, 0, 0);
    linux_sets(r, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF);
    expect_time(r, 0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
    linux_sets(r, 0x20, 0x27, 0x02, 0x31, 0x01, 0x02, 0x03);    /* runs on into March */
    expect_time(r, 0x20, 0x27, 0x03, 0x03, 0x01, 0x02, 0x03);
}

static void update_interrupts(void **state)
{
    struct rig *r = *state;
    assert_int_equal(get(r, C), 0x00);
    fake_advance(&r->f, 3 * NS_PER_SEC);
    assert_int_equal(r->f.fired, 0);               /* nobody asked: no timer */
    assert_int_equal(get(r, C), 0x50);             /* PF and UF, polled */
    assert_int_equal(get(r, C), 0x00);
    set(r, B, 0x12);
    fake_advance(&r->f, 10 * NS_PER_SEC);
    assert_int_equal(r->rises, 1);                 /* C unread: one is enough */
    assert_true(r->line);
    assert_int_equal(r->f.fired, 1);
    assert_int_equal(get(r, C), 0xD0);
    assert_false(r->line);
    for (unsigned i = 0; i < 5; i++) {
        fake_advance(&r->f, NS_PER_SEC);
        assert_int_equal(get(r, C) & 0x90, 0x90);
    }
    assert_int_equal(r->rises, 6);
    set(r, B, 0x02);
    fake_advance(&r->f, 2 * NS_PER_SEC);
    assert_int_equal(r->rises, 6);
    set(r, B, 0x92);
    assert_int_equal(get(r, B), 0x82);             /* SET clears UIE */
}

static void alarms(void **state)
{
    struct rig *r = *state;
    set(r, SEC_ALARM, 0x00), set(r, MIN_ALARM, 0x00), set(r, HOUR_ALARM, 0x13);
    get(r, C);
    set(r, B, 0x22);
    fake_advance(&r->f, (25 * 60 + 3) * NS_PER_SEC);
    assert_int_equal(r->rises, 0);
    fake_advance(&r->f, NS_PER_SEC);               /* 13:00:00 */
    assert_int_equal(r->rises, 1);
    assert_int_equal(get(r, C) & 0xA0, 0xA0);
    fake_advance(&r->f, 86399 * NS_PER_SEC);
    assert_int_equal(r->rises, 1);
    fake_advance(&r->f, NS_PER_SEC);               /* the same time tomorrow */
    assert_int_equal(r->rises, 2);
    get(r, C);
    set(r, HOUR_ALARM, 0xC0), set(r, MIN_ALARM, 0xFF), set(r, SEC_ALARM, 0x15);
    for (unsigned i = 0; i < 130; i++) {
        fake_advance(&r->f, NS_PER_SEC);
        get(r, C);
    }
    assert_int_equal(r->rises, 4);                 /* every minute at :15 */
    set(r, SEC_ALARM, 0x75);                       /* no such second */
    unsigned fired = r->f.fired;
    fake_advance(&r->f, 200000 * NS_PER_SEC);
    assert_int_equal(r->f.fired, fired);
    assert_int_equal(get(r, C) & 0x20, 0);
}

/* The alarm of a 12-hour clock, against a second-by-second model of one day. */
static void alarm_matches_the_model(void **state)
{
    struct rig *r = *state;
    static const uint8_t hours[] = { 0x12, 0x92, 0x01, 0x81, 0xC0, 0x95 };
    for (unsigned i = 0; i < ARRAY_SIZE(hours); i++) {
        linux_sets(r, 0x20, 0x26, 0x11, 0x20, 0x00, 0x00, 0x00);
        set(r, B, 0x20);
        set(r, HOUR_ALARM, hours[i]), set(r, MIN_ALARM, 0x07), set(r, SEC_ALARM, 0x31);
        get(r, C);
        unsigned seen = 0, want = 0;
        for (unsigned s = 0; s < 24 * 60; s++) {   /* by the minute, at :31 */
            fake_advance(&r->f, (s ? 60 : 31) * NS_PER_SEC);
            bool pm = s >= 12 * 60;
            unsigned h12 = s / 60 % 12 ? s / 60 % 12 : 12;
            uint8_t shown = (uint8_t)((h12 / 10 << 4 | h12 % 10) | (pm ? 0x80 : 0));
            bool match = s % 60 == 7 && (hours[i] >= 0xC0 || shown == hours[i]);
            assert_int_equal(r->line, match);
            seen += r->line;
            want += match;
            get(r, C);
        }
        assert_int_equal(seen, want);
        assert_int_equal(want, hours[i] == 0xC0 ? 24 : hours[i] == 0x95 ? 0 : 1);   /* no 15 o'clock */
        set(r, B, 0x02);
    }
}

static void periodic_rates(void **state)
{
    struct rig *r = *state;
    static const unsigned hz[16] = { 0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32,
                                     16, 8, 4, 2 };
    for (unsigned rate = 0; rate < 16; rate++) {
        set(r, A, (uint8_t)(0x20 | rate));
        get(r, C);
        set(r, B, 0x42);
        r->rises = 0;
        uint64_t end = r->f.now + NS_PER_SEC;
        while (r->f.now < end) {                   /* a handler reads C 20 us after each */
            fake_advance(&r->f, 20000);
            if (r->line) {
                get(r, C);
            }
        }
        assert_in_range(r->rises, hz[rate] ? hz[rate] - 1 : 0, hz[rate] + 1);
        set(r, B, 0x02);
    }
    /* Not reading C stops them: no load on the loop. */
    set(r, A, 0x23);
    set(r, B, 0x42);
    unsigned fired = r->f.fired;
    fake_advance(&r->f, 10 * NS_PER_SEC);
    assert_in_range(r->f.fired - fired, 0, 1);
}

static void cmos_memory(void **state)
{
    struct rig *r = *state;
    rtc_set_memory(r->t, 0xE0000000, 0x123400000);
    rtc_set_cpus(r->t, 4);
    assert_int_equal(get(r, 0x15) | get(r, 0x16) << 8, 640);
    assert_int_equal(get(r, 0x30) | get(r, 0x31) << 8, 63 * 1024);
    assert_int_equal(get(r, 0x34) | get(r, 0x35) << 8, (0xE0000000 - 0x1000000) / 65536);
    assert_int_equal(get(r, 0x5B) | get(r, 0x5C) << 8 | get(r, 0x5D) << 16, 0x12340);
    assert_int_equal(get(r, 0x5F), 3);
    rtc_set_memory(r->t, 8 * MIB, 0);
    assert_int_equal(get(r, 0x17) | get(r, 0x18) << 8, 7 * 1024);
    assert_int_equal(get(r, 0x34) | get(r, 0x35) << 8, 0);
    assert_int_equal(get(r, 0x5B) | get(r, 0x5C) << 8 | get(r, 0x5D) << 16, 0);
    set(r, 0x40, 0x99);
    set(r, 0x7F, 0x11);
    set(r, 0x0F, 0x0A);
    set(r, B, 0x72);
    machine_reset(r->f.m);
    assert_int_equal(get(r, 0x40), 0x99);          /* a battery holds it */
    assert_int_equal(get(r, 0x7F), 0x11);
    assert_int_equal(get(r, 0x0F), 0x00);
    assert_int_equal(get(r, B), 0x02);
    expect_time(r, 0x20, 0x26, 0x11, 0x20, 0x12, 0x34, 0x56);
}

static void state_moves(void **state)
{
    struct rig *r = *state, to = { 0 };
    linux_sets(r, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x50);
    set(r, 0x50, 0x42);
    get(r, C);
    set(r, B, 0x12);
    outb(&r->f, INDEX, 0x50);
    fake_start(&to.f);
    fake_stall(&to.f, 20 * NS_PER_SEC);            /* the other host's time is later */
    machine_add_irq_sink(to.f.m, &(struct irq_sink){ on_line, &to });
    assert_int_equal(rtc_new(to.f.m, 0, &to.t), 0);
    assert_int_equal(fake_move(&r->f, &to.f, NULL), 0);
    assert_int_equal(inb(&to.f, DATA), 0x42);
    fake_advance(&to.f, 5 * NS_PER_SEC);
    assert_int_equal(to.rises, 0);                 /* paused */
    machine_clock_resume(to.f.m);
    fake_advance(&to.f, NS_PER_SEC);
    assert_int_equal(to.rises, 1);
    expect_time(&to, 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x16);   /* time went on all along */
    rtc_free(to.t);
    fake_stop(&to.f);
}

/* Every day of 800 years, and its seconds back again. */
static void calendar_against_counting(void **state)
{
    static const unsigned len[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int64_t days = -135140;                        /* 1 January 1600, a Saturday */
    unsigned wday = 6;
    for (int year = 1600; year < 2400; year++) {
        bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        for (unsigned month = 1; month <= 12; month++) {
            unsigned n = len[month - 1] + (month == 2 && leap);
            for (unsigned day = 1; day <= n; day++, days++, wday = (wday + 1) % 7) {
                int64_t sec = days * 86400 + (days * 7919 % 86400 + 86400) % 86400;
                struct civil c = civil_from_seconds(sec);
                if (c.year != year || c.month != month || c.day != day || c.wday != wday ||
                    civil_to_seconds(&c) != sec) {
                    fail_msg("%d-%02u-%02u", year, month, day);
                }
            }
        }
    }
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(shows_the_hosts_time), T(linux_reads_between_updates), T(linux_sets_the_time),
        T(odd_values_are_safe), T(update_interrupts), T(alarms), T(alarm_matches_the_model),
        T(periodic_rates), T(cmos_memory), T(state_moves),
        cmocka_unit_test(calendar_against_counting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
