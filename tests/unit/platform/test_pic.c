/* The 8259 pair: as Linux initialises and serves it, and the modes others use. */
#include <errno.h>

#include "hv/platform/pic.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

enum { CMD1 = 0x20, IMR1, CMD2 = 0xA0, IMR2, ELCR1 = 0x4D0, ELCR2 };

struct rig { struct fake f; struct pic *p; bool intr; unsigned changes; };

static void on_intr(void *arg, bool asserted)
{
    struct rig *r = arg;
    r->intr = asserted;
    r->changes++;
}

static int setup(void **state)
{
    struct rig *r = hv_alloc(sizeof(*r));
    fake_start(&r->f);
    assert_int_equal(pic_new(r->f.m, on_intr, r, &r->p), 0);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    pic_free(r->p);
    fake_stop(&r->f);
    free(r);
    return 0;
}

/* init_8259A(): vectors 0x30..0x3f, everything masked but what `open` says. */
static void linux_init(struct fake *f, uint16_t open, uint8_t icw4)
{
    outb(f, IMR1, 0xFF);
    outb(f, CMD1, 0x11);
    outb(f, IMR1, 0x30);
    outb(f, IMR1, 0x04);
    outb(f, IMR1, icw4);
    outb(f, CMD2, 0x11);
    outb(f, IMR2, 0x38);
    outb(f, IMR2, 0x02);
    outb(f, IMR2, 0x01);
    outb(f, IMR1, (uint8_t)~open);
    outb(f, IMR2, (uint8_t)(~open >> 8));
}

static void raise(struct rig *r, unsigned irq) { machine_irq_set(r->f.m, irq, true); }
static void lower(struct rig *r, unsigned irq) { machine_irq_set(r->f.m, irq, false); }

/* probe_8259A() */
static void linux_probe(void **state)
{
    struct rig *r = *state;
    outb(&r->f, IMR2, 0xFF);
    outb(&r->f, IMR1, 0xFB);
    assert_int_equal(inb(&r->f, IMR1), 0xFB);
    assert_int_equal(inb(&r->f, IMR2), 0xFF);
}

static void an_edge_is_served_once(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    linux_init(f, 0xFFFF, 0x01);
    assert_int_equal(pic_ack(r->p), -1);
    machine_irq_pulse(f->m, 0);                   /* the latch keeps a pulse */
    assert_true(r->intr);
    assert_int_equal(inb(f, CMD1), 0x01);         /* IRR, as i8259A_irq_pending() reads it */
    assert_int_equal(pic_ack(r->p), 0x30);
    assert_false(r->intr);
    assert_int_equal(pic_ack(r->p), -1);
    machine_irq_pulse(f->m, 0);                   /* in service: waits for the EOI */
    assert_false(r->intr);
    outb(f, CMD1, 0x0B);
    assert_int_equal(inb(f, CMD1), 0x01);         /* ISR */
    outb(f, CMD1, 0x0A);
    outb(f, CMD1, 0x60);                          /* specific EOI */
    assert_true(r->intr);
    assert_int_equal(pic_ack(r->p), 0x30);
    outb(f, CMD1, 0x20);
    raise(r, 4);
    assert_int_equal(pic_ack(r->p), 0x34);
    outb(f, CMD1, 0x20);
    assert_false(r->intr);                        /* still high, but no new edge */
    lower(r, 4);
    raise(r, 4);
    assert_true(r->intr);
}

static void priorities_nest(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    linux_init(f, 0xFFFF, 0x01);
    raise(r, 4);
    raise(r, 3);
    assert_int_equal(pic_ack(r->p), 0x33);
    assert_false(r->intr);
    raise(r, 1);
    assert_int_equal(pic_ack(r->p), 0x31);        /* interrupts 3's handler */
    outb(f, CMD1, 0x20);                          /* ends 1, the highest in service */
    assert_false(r->intr);
    outb(f, CMD1, 0x20);
    assert_int_equal(pic_ack(r->p), 0x34);
}

static void the_slave_comes_through_ir2(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    linux_init(f, 0xFFFF, 0x01);
    raise(r, 12);
    raise(r, 8);
    assert_int_equal(pic_ack(r->p), 0x38);
    assert_false(r->intr);
    outb(f, CMD2, 0x60);                          /* mask_and_ack_8259A(): slave, then 2 on the master */
    outb(f, CMD1, 0x62);
    assert_true(r->intr);
    assert_int_equal(pic_ack(r->p), 0x3C);
    raise(r, 10);                                 /* higher than 12, but the master has 2 in service */
    assert_false(r->intr);
    outb(f, CMD1, 0x62);
    assert_int_equal(pic_ack(r->p), 0x3A);        /* the cascade was not missed */
    outb(f, IMR1, 0x04);
    outb(f, CMD2, 0x20), outb(f, CMD2, 0x20), outb(f, CMD1, 0x20);
    machine_irq_pulse(f->m, 15);
    assert_false(r->intr);                        /* cascade masked */
    outb(f, IMR1, 0x00);
    assert_int_equal(pic_ack(r->p), 0x3F);
    raise(r, 2);                                  /* no such input */
    raise(r, 20);
    outb(f, CMD2, 0x20), outb(f, CMD1, 0x20);
    assert_int_equal(pic_ack(r->p), -1);
}

static void special_fully_nested(void **state)
{
    struct rig *r = *state;
    linux_init(&r->f, 0xFFFF, 0x11);
    raise(r, 12);
    assert_int_equal(pic_ack(r->p), 0x3C);
    raise(r, 10);
    assert_int_equal(pic_ack(r->p), 0x3A);        /* the slave's own priorities count */
}

static void masks_and_levels(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    linux_init(f, 0x0000, 0x01);
    machine_irq_pulse(f->m, 5);
    assert_false(r->intr);
    outb(f, IMR1, 0xDF);
    assert_true(r->intr);
    outb(f, IMR1, 0xFF);
    assert_false(r->intr);
    assert_int_equal(pic_ack(r->p), -1);
    outb(f, IMR1, 0);
    assert_int_equal(pic_ack(r->p), 0x35);
    outb(f, CMD1, 0x20);
    /* ELCR: 0, 1, 2, 8 and 13 stay edges. */
    outb(f, ELCR1, 0xFF);
    outb(f, ELCR2, 0xFF);
    assert_int_equal(inb(f, ELCR1), 0xF8);
    assert_int_equal(inb(f, ELCR2), 0xDE);
    raise(r, 5);
    assert_int_equal(pic_ack(r->p), 0x35);
    outb(f, CMD1, 0x20);
    assert_true(r->intr);                         /* a level: as long as it is up */
    lower(r, 5);
    assert_false(r->intr);
    assert_int_equal(pic_ack(r->p), -1);
    raise(r, 5);
    outb(f, ELCR1, 0);
    assert_false(r->intr);                        /* an edge input has not seen an edge */
}

static void auto_eoi_and_rotation(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    linux_init(f, 0xFFFF, 0x03);                  /* init_8259A(auto_eoi = 1) */
    machine_irq_pulse(f->m, 3);
    assert_int_equal(pic_ack(r->p), 0x33);
    machine_irq_pulse(f->m, 3);
    assert_int_equal(pic_ack(r->p), 0x33);        /* no EOI needed */
    outb(f, CMD1, 0x80);                          /* rotate in auto EOI mode */
    machine_irq_pulse(f->m, 3);
    assert_int_equal(pic_ack(r->p), 0x33);        /* now 4 is highest, 3 lowest */
    machine_irq_pulse(f->m, 3);
    machine_irq_pulse(f->m, 1);
    machine_irq_pulse(f->m, 5);
    assert_int_equal(pic_ack(r->p), 0x35);
    linux_init(f, 0xFFFF, 0x01);
    outb(f, CMD1, 0xC5);                          /* set priority: 5 lowest, 6 highest */
    machine_irq_pulse(f->m, 0);
    machine_irq_pulse(f->m, 6);
    assert_int_equal(pic_ack(r->p), 0x36);
    outb(f, CMD1, 0xA0);                          /* rotate on non-specific EOI: 6 lowest */
    machine_irq_pulse(f->m, 7);
    assert_int_equal(pic_ack(r->p), 0x37);
    outb(f, CMD1, 0xE7);                          /* rotate on specific EOI */
    assert_int_equal(pic_ack(r->p), 0x30);
}

static void special_mask_mode(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    linux_init(f, 0xFFFF, 0x01);
    machine_irq_pulse(f->m, 3);
    assert_int_equal(pic_ack(r->p), 0x33);
    machine_irq_pulse(f->m, 6);
    assert_false(r->intr);
    outb(f, CMD1, 0x68);
    assert_false(r->intr);
    outb(f, IMR1, 0x08);                          /* masking 3 lets lower ones in */
    assert_int_equal(pic_ack(r->p), 0x36);
    outb(f, CMD1, 0x20);                          /* passes over the masked 3 */
    outb(f, CMD1, 0x0B);
    assert_int_equal(inb(f, CMD1), 0x08);
    outb(f, CMD1, 0x48);
    outb(f, CMD1, 0x20);
    assert_int_equal(inb(f, CMD1), 0x00);
}

static void polling(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    linux_init(f, 0xFFFF, 0x01);
    outb(f, CMD1, 0x0C);
    assert_int_equal(inb(f, CMD1), 0x00);
    machine_irq_pulse(f->m, 9);
    outb(f, CMD1, 0x0C);
    assert_int_equal(inb(f, CMD1), 0x82);
    outb(f, CMD2, 0x0C);
    assert_int_equal(inb(f, CMD2), 0x81);
    assert_false(r->intr);
    assert_int_equal(inb(f, CMD1), 0x00);         /* one poll, one acknowledge: this is IRR again */
}

static void half_initialised_is_quiet(void **state)
{
    struct rig *r = *state;
    struct fake *f = &r->f;
    linux_init(f, 0xFFFF, 0x01);
    outb(f, CMD1, 0x11);
    machine_irq_pulse(f->m, 1);
    assert_false(r->intr);
    outb(f, IMR1, 0x47);                          /* the low bits of ICW2 do not exist */
    outb(f, IMR1, 0x04);
    assert_false(r->intr);
    outb(f, IMR1, 0x01);
    assert_int_equal(pic_ack(r->p), 0x41);
    raise(r, 3);
    outb(f, CMD1, 0x13);                          /* single, with ICW4; ICW1 clears the edges */
    outb(f, IMR1, 0x50);
    outb(f, IMR1, 0x01);
    assert_false(r->intr);
    outb(f, CMD1, 0x1A);                          /* single, level, no ICW4 */
    outb(f, IMR1, 0x58);
    assert_int_equal(pic_ack(r->p), 0x5B);
}

static void state_moves(void **state)
{
    struct rig *r = *state, to = { 0 };
    struct fake *f = &r->f;
    linux_init(f, 0xFFFF, 0x01);
    outb(f, ELCR2, 0x08);
    raise(r, 11);
    machine_irq_pulse(f->m, 6);
    assert_int_equal(pic_ack(r->p), 0x3B);
    machine_irq_pulse(f->m, 1);
    fake_start(&to.f);
    assert_int_equal(pic_new(to.f.m, on_intr, &to, &to.p), 0);
    assert_int_equal(fake_move(f, &to.f, NULL), 0);
    assert_true(to.intr);
    assert_int_equal(pic_ack(to.p), 0x31);
    outb(&to.f, CMD1, 0x20);
    outb(&to.f, CMD2, 0x20), outb(&to.f, CMD1, 0x20);
    assert_int_equal(pic_ack(to.p), 0x3B);        /* the level is still up */
    machine_irq_set(to.f.m, 11, false);
    outb(&to.f, CMD2, 0x20), outb(&to.f, CMD1, 0x20);
    assert_int_equal(pic_ack(to.p), 0x36);
    machine_reset(to.f.m);
    assert_false(to.intr);
    assert_int_equal(inb(&to.f, IMR1), 0xFF);
    pic_free(to.p);
    fake_stop(&to.f);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(linux_probe), T(an_edge_is_served_once), T(priorities_nest),
        T(the_slave_comes_through_ir2), T(special_fully_nested), T(masks_and_levels),
        T(auto_eoi_and_rotation), T(special_mask_mode), T(polling),
        T(half_initialised_is_quiet), T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
