/* The 16550A as Linux 6.1's 8250 driver sees it: its probe in the driver's own order, then traffic. */
#include "hv/platform/console.h"
#include "hv/platform/uart.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#define BASE 0x3F8
enum { RBR = BASE, THR = BASE, IER, IIR, FCR = IIR, LCR, MCR, LSR, MSR, SCR };
enum { DLAB = 0x80, LOOP = 0x10, OUT2 = 0x08, RTS_DTR = 0x03 };

struct rig { struct fake f; struct uart *u; struct console *c; unsigned rises; bool line; };

static void on_line(void *dev, unsigned gsi, bool level)
{
    struct rig *r = dev;
    assert_int_equal(gsi, 4);
    r->rises += level;
    r->line = level;
}

static int setup(void **state)
{
    struct rig *r = hv_alloc(sizeof(*r));
    fake_start(&r->f);
    machine_add_irq_sink(r->f.m, &(struct irq_sink){ on_line, r });
    assert_int_equal(uart_new(r->f.m, 0, BASE, 4, &r->u), 0);
    r->c = uart_console(r->u);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    uart_free(r->u);
    fake_stop(&r->f);
    free(r);
    return 0;
}

static void expect_output(struct rig *r, uint64_t *pos, const char *text)
{
    char buf[256];
    size_t n = console_read(r->c, pos, buf, sizeof(buf), NULL);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(buf, text, n);
}

/* As in interrupt mode after the driver's startup. */
static void open_port(struct rig *r, uint8_t ier)
{
    outb(&r->f, FCR, 0x81);          /* FIFO, trigger 8, as the driver has it for a 16550A */
    outb(&r->f, LCR, 0x03);
    outb(&r->f, MCR, OUT2 | RTS_DTR);
    outb(&r->f, IER, ier);
}

/* autoconfig(): presence, loopback, which FIFO. */
static void linux_probe(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    uint8_t save_ier = inb(f, IER);
    outb(f, IER, 0);
    outb(f, 0x80, 0xFF);
    assert_int_equal(inb(f, IER) & 0x0F, 0);
    outb(f, IER, 0x0F);
    assert_int_equal(inb(f, IER) & 0x0F, 0x0F);
    outb(f, IER, save_ier);
    uint8_t save_mcr = inb(f, MCR), save_lcr = inb(f, LCR);
    outb(f, MCR, LOOP | 0x0A);
    assert_int_equal(inb(f, MSR) & 0xF0, 0x90);
    outb(f, MCR, save_mcr);
    outb(f, LCR, 0xBF);
    outb(f, IIR, 0);                 /* EFR of larger chips */
    outb(f, LCR, 0);
    outb(f, FCR, 0x01);
    assert_int_equal(inb(f, IIR) >> 6, 3);
    /* No EFR with DLAB set (ST16C650), none at LCR = 0xBF (16C950). */
    outb(f, LCR, DLAB);
    assert_int_not_equal(inb(f, IIR), 0);
    outb(f, LCR, 0xBF);
    assert_int_not_equal(inb(f, IIR), 0);
    /* Not a NS16C552: register 2 at LCR = 0xE0 does not follow MCR's loop bit. */
    outb(f, LCR, 0);
    uint8_t mcr = inb(f, MCR);
    outb(f, MCR, mcr ^ LOOP);
    outb(f, LCR, 0xE0);
    assert_int_equal((inb(f, IIR) ^ mcr) & LOOP, 0);
    outb(f, LCR, 0);
    outb(f, MCR, mcr);
    /* Not a TI16750: bit 5 of IIR stays 0 with the 64-byte bit, DLAB or not. */
    outb(f, FCR, 0x21);
    assert_int_equal(inb(f, IIR) >> 5, 6);
    outb(f, FCR, 0x01);
    outb(f, LCR, DLAB);
    outb(f, FCR, 0x21);
    assert_int_equal(inb(f, IIR) >> 5, 6);
    outb(f, LCR, 0);
    /* Not an XScale: IER bit 6 does not stick. */
    outb(f, IER, 0x40);
    assert_int_equal(inb(f, IER), 0);
    outb(f, LCR, save_lcr);
}

/* size_fifo(): 256 bytes into the loopback, count what comes out. */
static void linux_counts_the_fifo(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    uint64_t pos = 0;
    outb(f, FCR, 0x07);
    outb(f, MCR, LOOP);
    outb(f, LCR, DLAB);
    outb(f, RBR, 1);
    outb(f, IER, 0);
    assert_int_equal(inb(f, RBR), 1);
    outb(f, LCR, 0x03);
    for (unsigned i = 0; i < 256; i++) {
        outb(f, THR, (uint8_t)i);
    }
    assert_int_equal(inb(f, LSR), 0x60 | 0x01 | 0x02);   /* data, and an overrun */
    assert_int_equal(inb(f, LSR), 0x60 | 0x01);
    unsigned count = 0;
    while ((inb(f, LSR) & 1) && count < 256) {
        assert_int_equal(inb(f, RBR), count);
        count++;
    }
    assert_int_equal(count, 16);
    expect_output(r, &pos, "");
    /* Without FIFO it is one. */
    outb(f, FCR, 0);
    outb(f, THR, 'a');
    outb(f, THR, 'b');
    assert_int_equal(inb(f, RBR), 'a');
    assert_int_equal(inb(f, LSR) & 3, 2);
}

/* serial8250_do_startup(): the THRE and TXEN tests. */
static void linux_startup(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    outb(f, FCR, 0x01);
    outb(f, FCR, 0x07);
    outb(f, FCR, 0);
    inb(f, LSR), inb(f, RBR), inb(f, IIR), inb(f, MSR);
    assert_int_not_equal(inb(f, LSR), 0xFF);
    outb(f, IER, 0x02);
    assert_int_equal(inb(f, IIR) & 0x0F, 0x02);
    assert_int_equal(inb(f, IIR) & 0x0F, 0x01);   /* reading it cleared it */
    outb(f, IER, 0);
    outb(f, IER, 0x02);
    assert_int_equal(inb(f, IIR) & 0x01, 0);      /* no UART_BUG_THRE */
    outb(f, IER, 0);
    outb(f, IER, 0x02);
    assert_int_equal(inb(f, LSR) & 0x60, 0x60);
    assert_int_equal(inb(f, IIR) & 0x01, 0);      /* no UART_BUG_TXEN */
    outb(f, IER, 0);
    assert_int_equal(r->rises, 0);                /* OUT2 was off all the time */
}

static void transmit_interrupts(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    uint64_t pos = 0;
    open_port(r, 0x05);
    assert_false(r->line);
    outb(f, IER, 0x07);
    assert_true(r->line);
    assert_int_equal(inb(f, IIR), 0xC2);
    assert_false(r->line);
    outb(f, THR, 'H');
    assert_true(r->line);
    assert_int_equal(r->rises, 2);
    outb(f, THR, 'i');                            /* unread: still an edge for each */
    assert_int_equal(r->rises, 3);
    outb(f, IER, 0x05);
    assert_false(r->line);
    expect_output(r, &pos, "Hi");
    machine_pio_out(f->m, THR, 1, " there", 6);   /* rep outsb */
    expect_output(r, &pos, " there");
    outb(f, LCR, DLAB);
    outb(f, THR, 'x');                            /* the divisor, not data */
    expect_output(r, &pos, "");
    assert_int_equal(inb(f, RBR), 'x');
}

static void receive_interrupts(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    open_port(r, 0x05);
    assert_int_equal(console_input(r->c, "abc", 3), 3);
    assert_true(r->line);
    assert_int_equal(inb(f, IIR), 0xCC);          /* below the trigger level: timeout */
    assert_int_equal(inb(f, LSR), 0x61);
    assert_int_equal(inb(f, RBR), 'a');
    assert_int_equal(console_input(r->c, "defghij", 7), 7);
    assert_int_equal(inb(f, IIR), 0xC4);          /* nine bytes: trigger level 8 */
    for (const char *p = "bcdefghij"; *p; p++) {
        assert_true(r->line);
        assert_int_equal(inb(f, RBR), *p);
    }
    assert_false(r->line);
    assert_int_equal(inb(f, LSR), 0x60);
    assert_int_equal(inb(f, IIR), 0xC1);
    assert_int_equal(inb(f, RBR), 0);
}

/* A paste larger than the FIFO arrives whole: the queue refills what the guest empties. */
static void nothing_typed_is_lost(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    static uint8_t text[3000];
    for (unsigned i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t)(i % 251);
    }
    open_port(r, 0x05);
    assert_int_equal(console_input(r->c, text, sizeof(text)), sizeof(text));
    unsigned n = 0;
    while (inb(f, LSR) & 1) {
        assert_int_equal(inb(f, LSR) & 2, 0);
        assert_int_equal(inb(f, RBR), text[n++]);
    }
    assert_int_equal(n, sizeof(text));
    /* Character mode holds one at a time. */
    outb(f, FCR, 0);
    console_input(r->c, "xy", 2);
    assert_int_equal(inb(f, IIR), 0x04);
    assert_int_equal(inb(f, RBR), 'x');
    assert_int_equal(inb(f, RBR), 'y');
}

static void break_reaches_sysrq(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    open_port(r, 0x05);
    console_input(r->c, "a", 1);
    assert_true(console_break(r->c));
    console_input(r->c, "h", 1);
    assert_int_equal(inb(f, LSR), 0xE1);          /* an error further down the FIFO */
    assert_int_equal(inb(f, RBR), 'a');
    assert_int_equal(inb(f, IIR), 0xC6);
    assert_int_equal(inb(f, LSR), 0xF1);          /* break at the head */
    assert_int_equal(inb(f, LSR), 0x61);          /* reading cleared it */
    assert_int_equal(inb(f, RBR), 0);
    assert_int_equal(inb(f, RBR), 'h');
    assert_false(r->line);
}

static void modem_status(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    assert_int_equal(inb(f, MSR), 0xB0);          /* somebody is on the line */
    outb(f, IER, 0x08);
    outb(f, MCR, LOOP | 0x0F);
    assert_int_equal(inb(f, MSR), 0xF0);          /* RI rose: that does not count */
    outb(f, MCR, LOOP | 0x00);
    assert_int_equal(inb(f, IIR) & 0x0F, 0x00);
    assert_int_equal(inb(f, MSR), 0x0F);          /* all fell */
    assert_int_equal(inb(f, MSR), 0x00);
    assert_int_equal(inb(f, IIR) & 0x0F, 0x01);
    outb(f, MCR, OUT2);
    assert_true(r->line);                         /* CTS, DSR, DCD came back */
    assert_int_equal(inb(f, MSR), 0xBB);
    assert_false(r->line);
}

static void interrupt_priority(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    static const uint8_t order[] = { 0x06, 0x0C, 0x02, 0x00, 0x01 };
    outb(f, FCR, 0x41);                           /* trigger 4 */
    outb(f, MCR, LOOP | 0x0F);
    outb(f, MCR, OUT2);                           /* modem deltas */
    console_break(r->c);
    outb(f, IER, 0x0F);
    for (unsigned i = 0; i < sizeof(order); i++) {
        assert_int_equal(inb(f, IIR) & 0x0F, order[i]);
        inb(f, i == 0 ? LSR : i == 1 ? RBR : i == 3 ? MSR : SCR);
    }
    assert_false(r->line);
}

static void scratch_and_wide_accesses(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    outb(f, SCR, 0xA5);
    assert_int_equal(inb(f, SCR), 0xA5);
    fake_out(f, MSR, 2, 0x3C00);                  /* MSR ignores it, SCR takes the high byte */
    assert_int_equal(inb(f, SCR), 0x3C);
    assert_int_equal(fake_in(f, SCR, 2), 0xFF3C);
}

static void state_moves(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f, g;
    struct uart *u;
    uint64_t pos = 0;
    outb(f, LCR, DLAB);
    outb(f, RBR, 0x12);
    outb(f, IER, 0x34);
    open_port(r, 0x07);
    inb(f, IIR);
    console_input(r->c, "twenty characters to", 20);
    console_break(r->c);
    inb(f, RBR);
    outb(f, SCR, 0x77);
    fake_start(&g);
    assert_int_equal(uart_new(g.m, 0, BASE, 4, &u), 0);
    assert_int_equal(fake_move(f, &g, NULL), 0);
    assert_int_equal(inb(&g, SCR), 0x77);
    assert_int_equal(inb(&g, IER), 0x07);
    assert_int_equal(inb(&g, IIR), 0xC4);
    for (const char *p = "wenty characters to"; *p; p++) {
        assert_int_equal(inb(&g, RBR), *p);
    }
    assert_int_equal(inb(&g, LSR), 0xF1);
    outb(&g, LCR, DLAB);
    assert_int_equal(inb(&g, RBR), 0x12);
    assert_int_equal(inb(&g, IER), 0x34);
    outb(&g, LCR, 3);
    outb(&g, THR, '!');
    char c;
    assert_int_equal(console_read(uart_console(u), &pos, &c, 1, NULL), 1);
    assert_int_equal(c, '!');
    machine_reset(g.m);
    assert_int_equal(inb(&g, IER), 0);
    assert_int_equal(inb(&g, IIR), 1);
    uart_free(u);
    fake_stop(&g);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(linux_probe), T(linux_counts_the_fifo), T(linux_startup), T(transmit_interrupts),
        T(receive_interrupts), T(nothing_typed_is_lost), T(break_reaches_sysrq), T(modem_status),
        T(interrupt_priority), T(scratch_and_wide_accesses), T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
