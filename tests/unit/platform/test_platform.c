/* The whole board: Linux's timer check, state of everything at once, and no mercy. */
#include <errno.h>

#include "hv/base/fault.h"
#include "hv/platform/pm.h"
#include "tests/fuzz/fuzz_platform.c"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void rte(struct fake *f, unsigned pin, uint32_t low)
{
    writel(f, IOAPIC_BASE, 0x11 + 2 * pin), writel(f, IOAPIC_BASE + 0x10, 0);
    writel(f, IOAPIC_BASE, 0x10 + 2 * pin), writel(f, IOAPIC_BASE + 0x10, low);
}

static void init_8259(struct fake *f)
{
    static const struct { uint16_t port; uint8_t val; } seq[] = {
        { 0x21, 0xFF }, { 0x20, 0x11 }, { 0x21, 0x30 }, { 0x21, 0x04 }, { 0x21, 0x01 },
        { 0xA0, 0x11 }, { 0xA1, 0x38 }, { 0xA1, 0x02 }, { 0xA1, 0x01 }, { 0x21, 0xFB },
        { 0xA1, 0xFF },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(seq); i++) {
        outb(f, seq[i].port, seq[i].val);
    }
}

/* check_timer(): the PIT at HZ, its pin unmasked, and timer_irq_works() wants to see ticks. */
static void linux_checks_the_timer(void **state)
{
    static struct board b;
    board_start(&b);
    struct fake *f = &b.f;
    init_8259(f);
    outb(f, 0x43, 0x34), outb(f, 0x40, 0xA5), outb(f, 0x40, 0x12);   /* 4773: HZ 250 */
    fake_advance(f, 50 * NS_PER_MS);
    assert_int_equal(f->msis, 0);
    assert_false(b.intr);
    rte(f, 2, 0x10030);                            /* set up masked, as setup_timer_IRQ0_pin() */
    fake_advance(f, 50 * NS_PER_MS);
    unsigned before = f->msis;
    rte(f, 2, 0x00030);
    assert_int_equal(f->msis, before + 1);         /* the edge that had come meanwhile */
    fake_advance(f, 100 * NS_PER_MS);
    assert_in_range(f->msis - before, 25, 26);
    assert_int_equal(f->msi[f->msis - 1].data, 0x30);
    /* The fall-back: virtual wire through the 8259. */
    rte(f, 2, 0x10030);
    outb(f, 0x21, 0xFA);
    unsigned acks = 0;
    for (unsigned ms = 0; ms < 100; ms++) {
        fake_advance(f, NS_PER_MS);
        if (b.intr) {
            assert_int_equal(platform_extint_ack(b.p), 0x30);
            outb(f, 0x20, 0x60);
            acks++;
        }
    }
    assert_in_range(acks, 24, 26);
    board_stop(&b);
}

/* A login on the console: interrupt-driven both ways through the IOAPIC. */
static void a_shell_talks(void **state)
{
    static struct board b;
    board_start(&b);
    struct fake *f = &b.f;
    struct console *c = platform_console(b.p);
    char typed[64] = "", out[64];
    uint64_t pos = 0;
    rte(f, 4, 0x34);
    outb(f, 0x3FA, 0x81), outb(f, 0x3FB, 3), outb(f, 0x3FC, 0x0B), outb(f, 0x3F9, 0x05);
    assert_int_equal(f->msis, 0);
    console_input(c, "uname -a\n", 9);
    assert_int_equal(f->msis, 1);
    for (size_t n = 0; inb(f, 0x3FD) & 1;) {
        typed[n++] = (char)inb(f, 0x3F8);
    }
    assert_string_equal(typed, "uname -a\n");
    outb(f, 0x3F9, 0x07);
    assert_int_equal(f->msis, 2);                  /* room to send */
    for (const char *p = "Linux\r\n"; *p; p++) {
        assert_int_equal(inb(f, 0x3FA) & 0x0F, 0x02);
        outb(f, 0x3F8, (uint8_t)*p);
    }
    assert_int_equal(f->msis, 9);
    assert_int_equal(console_read(c, &pos, out, sizeof(out), NULL), 7);
    assert_memory_equal(out, "Linux\r\n", 7);
    board_stop(&b);
}

static void power_button_reaches_the_sci(void **state)
{
    static struct board b;
    board_start(&b);
    struct fake *f = &b.f;
    rte(f, 9, 0x8039);
    assert_false(platform_power_button(b.p));
    assert_int_equal(f->msis, 0);
    fake_out(f, 0x602, 2, 0x0100);
    assert_int_equal(f->msis, 1);
    assert_int_equal(f->msi[0].data, 0xC039);
    fake_out(f, 0x600, 2, 0x0100);
    platform_eoi(b.p, 9);
    assert_int_equal(f->msis, 1);
    outb(f, 0xF4, 7);
    assert_int_equal(platform_exit_code(b.p), 7);
    board_stop(&b);
}

static void configs_that_do_not_fit(void **state)
{
    static struct board b;
    struct hv_error e = { 0 };
    struct platform *p = NULL;
    const struct platform_config bad[] = {
        { .uarts = 3, .pic_intr = fuzz_intr }, { .cpus = 257, .pic_intr = fuzz_intr },
        { .firmware_log = true, .pic_intr = fuzz_intr },   /* 0x402 lies in the PM1a block */
    };
    fake_start(&b.f);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        hv_error_clear(&e);
        assert_int_equal(platform_new(b.f.m, &bad[i], &p, &e), -EINVAL);
        assert_true(hv_error_is_set(&e));
        assert_null(p);
    }
    platform_free(NULL);
    fake_stop(&b.f);
}

/* Every allocation fails once; nothing leaks (ASan) and the error says what happened. */
static void out_of_memory(void **state)
{
    unsigned failures = 0;
    for (unsigned n = 1; n < 100; n++) {
        static struct board b;
        struct hv_error e = { 0 };
        struct platform *p = NULL;
        struct platform_config cfg = { .uarts = 2, .pic_intr = fuzz_intr, .arg = &b.intr };
        fake_start(&b.f);
        fault_arm(FAULT_ALLOC, n, ENOMEM);
        int r = platform_new(b.f.m, &cfg, &p, &e);
        fault_arm(FAULT_ALLOC, 0, 0);
        if (r == 0) {
            platform_free(p);
            fake_stop(&b.f);
            assert_true(failures >= 12);
            return;
        }
        failures++;
        assert_int_equal(r, -ENOMEM);
        assert_int_equal(e.code, HV_NO_RESOURCES);
        assert_null(p);
        fake_stop(&b.f);
    }
    fail_msg("never succeeded");
}

/* Fixed seed: the same programs every time. */
static void random_programs(void **state)
{
    static uint8_t program[4096];
    uint64_t seed = 0x9E3779B97F4A7C15;
    for (unsigned run = 0; run < 300; run++) {
        for (size_t i = 0; i < sizeof(program); i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            program[i] = (uint8_t)(seed >> 32);
        }
        LLVMFuzzerTestOneInput(program, sizeof(program));
    }
}

/* Every single byte of a saved state damaged: refused, or a board that still works. */
static void damaged_states(void **state)
{
    static struct board b;
    struct save_writer w;
    board_start(&b);
    init_8259(&b.f);
    outb(&b.f, 0x43, 0x34), outb(&b.f, 0x40, 0xA5), outb(&b.f, 0x40, 0x12);
    console_input(platform_console(b.p), "some text typed", 15);
    fake_advance(&b.f, 33 * NS_PER_MS);
    machine_clock_pause(b.f.m);
    save_init(&w);
    machine_save(b.f.m, &w);
    unsigned refused = 0;
    for (size_t at = 0; at < w.out.len; at++) {
        static const uint8_t flip[] = { 0x01, 0x80, 0xFF };
        for (unsigned i = 0; i < ARRAY_SIZE(flip); i++) {
            struct load_reader r;
            struct hv_error e = { 0 };
            w.out.buf[at] ^= (char)flip[i];
            int n = load_init(&r, w.out.buf, w.out.len, &e);
            n = n < 0 ? n : machine_load(b.f.m, &r, &e);
            if (n < 0) {
                assert_true(hv_error_is_set(&e));
                refused++;
                machine_reset(b.f.m);
            }
            machine_clock_resume(b.f.m);
            fake_advance(&b.f, NS_PER_MS);
            inb(&b.f, 0x40), inb(&b.f, 0x61), inb(&b.f, 0x71), inb(&b.f, 0x3F8);
            platform_extint_ack(b.p);
            machine_clock_pause(b.f.m);
            w.out.buf[at] ^= (char)flip[i];
        }
    }
    assert_true(refused > 300);
    save_fini(&w);
    board_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linux_checks_the_timer), cmocka_unit_test(a_shell_talks),
        cmocka_unit_test(power_button_reaches_the_sci), cmocka_unit_test(configs_that_do_not_fit),
        cmocka_unit_test(out_of_memory), cmocka_unit_test(random_programs),
        cmocka_unit_test(damaged_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
