/* The local APIC alone: a fake TSC, and ops that write down what they were asked. */
#include "hv/engine/soft/lapic.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define TSC_HZ   3000000000ull
#define TIMER_HZ 1000000000ull

static struct lapic apic;
static uint64_t now;
static unsigned wakes, eoi_count, eoi_vector, ipis;
static struct { uint32_t dest; bool logical; unsigned shorthand, mode, vector; } ipi;

static void op_wake(struct lapic *l) { wakes++; }
static uint64_t op_tsc(struct lapic *l) { return now; }
static void op_eoi(struct lapic *l, unsigned vector) { eoi_count++; eoi_vector = vector; }
static void op_ipi(struct lapic *l, uint32_t dest, bool logical, unsigned shorthand, unsigned mode,
                   unsigned vector, bool level, bool assert_)
{
    ipis++;
    ipi.dest = dest;
    ipi.logical = logical;
    ipi.shorthand = shorthand;
    ipi.mode = mode;
    ipi.vector = vector;
}
static const struct lapic_ops ops = { op_wake, op_tsc, op_eoi, op_ipi };

static void wr(uint32_t off, uint32_t v) { lapic_mmio_write(&apic, off, v); }
static uint32_t rd(uint32_t off) { return lapic_mmio_read(&apic, off); }

static int setup(void **state)
{
    now = 1000000;
    wakes = eoi_count = eoi_vector = ipis = 0;
    lapic_init(&apic, &ops, NULL, 3, TSC_HZ, TIMER_HZ);
    wr(0xf0, 0x1ff);
    return 0;
}

static int setup_x2(void **state)
{
    setup(state);
    return lapic_msr_write(&apic, 0x1b, apic.base_msr | 0x400);
}

static void reset_values(void **state)
{
    lapic_init(&apic, &ops, NULL, 0, TSC_HZ, TIMER_HZ);
    assert_int_equal(apic.base_msr, 0xfee00900);
    assert_int_equal(rd(0x20), 0);
    assert_int_equal(rd(0x30), 0x01050014);
    assert_int_equal(rd(0xe0), 0xffffffff);
    assert_int_equal(rd(0xf0), 0xff);
    for (uint32_t off = 0x320; off <= 0x370; off += 16) {
        assert_int_equal(rd(off), off == 0x350 ? 0x700 : 0x10000);
    }
    assert_true(lapic_extint_enabled(&apic));
    lapic_init(&apic, &ops, NULL, 5, TSC_HZ, TIMER_HZ);
    assert_int_equal(apic.base_msr, 0xfee00800);
    assert_int_equal(rd(0x20), 5u << 24);
    assert_false(lapic_extint_enabled(&apic));
}

static void init_keeps_base_and_id(void **state)
{
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfed00800), 0);
    wr(0x80, 0x50);
    lapic_accept(&apic, 0x60, false);
    lapic_reset(&apic, true, false);
    assert_int_equal(apic.base_msr, 0xfed00800);
    assert_int_equal(rd(0x20), 3u << 24);
    assert_int_equal(rd(0x80), 0);
    assert_int_equal(rd(0xf0), 0xff);
    assert_int_equal(lapic_pending(&apic), -1);
}

static void priorities(void **state)
{
    lapic_accept(&apic, 0x41, false);
    lapic_accept(&apic, 0x52, false);
    assert_int_equal(lapic_pending(&apic), 0x52);
    assert_int_equal(lapic_take(&apic), 0x52);
    assert_int_equal(rd(0xa0), 0x50);
    assert_int_equal(lapic_take(&apic), -1);           /* lower class waits */
    lapic_accept(&apic, 0x5f, false);
    assert_int_equal(lapic_take(&apic), -1);           /* same class waits */
    lapic_accept(&apic, 0x61, false);
    assert_int_equal(lapic_take(&apic), 0x61);         /* higher class nests */
    assert_int_equal(rd(0x100 + 16 * 2), 1u << 18);    /* ISR 0x52 */
    assert_int_equal(rd(0x100 + 16 * 3), 1u << 1);     /* ISR 0x61 */
    unsigned before = wakes;
    wr(0xb0, 0);
    assert_int_equal(rd(0xa0), 0x50);
    assert_int_equal(wakes, before);
    wr(0xb0, 0);
    assert_true(wakes > before);                       /* 0x5f is deliverable again: be told */
    assert_int_equal(lapic_take(&apic), 0x5f);
    wr(0xb0, 0);
    assert_int_equal(lapic_take(&apic), 0x41);
    wr(0xb0, 0);
    wr(0xb0, 0);                                       /* nothing in service: harmless */
    assert_int_equal(eoi_count, 0);
}

static void tpr_and_cr8(void **state)
{
    wr(0x80, 0x47);
    assert_int_equal(rd(0xa0), 0x47);
    assert_int_equal(lapic_get_cr8(&apic), 4);
    lapic_accept(&apic, 0x4f, false);
    assert_int_equal(lapic_pending(&apic), -1);
    unsigned before = wakes;
    lapic_set_cr8(&apic, 3);
    assert_int_equal(wakes, before + 1);
    assert_int_equal(rd(0x80), 0x30);
    assert_int_equal(lapic_take(&apic), 0x4f);
    wr(0x80, 0x41);
    assert_int_equal(rd(0xa0), 0x41);                  /* same class as ISR: TPR with its sub-class */
    wr(0x80, 0x3f);
    assert_int_equal(rd(0xa0), 0x40);
}

static void level_eoi_broadcast(void **state)
{
    lapic_accept(&apic, 0x55, true);
    assert_int_equal(rd(0x180 + 16 * 2), 1u << 21);
    assert_int_equal(lapic_take(&apic), 0x55);
    wr(0xb0, 0);
    assert_int_equal(eoi_count, 1);
    assert_int_equal(eoi_vector, 0x55);
    lapic_accept(&apic, 0x55, false);                  /* edge now: TMR follows */
    assert_int_equal(lapic_take(&apic), 0x55);
    wr(0xb0, 0);
    assert_int_equal(eoi_count, 1);
    wr(0xf0, 0x11ff);                                  /* suppress broadcast */
    lapic_accept(&apic, 0x55, true);
    assert_int_equal(lapic_take(&apic), 0x55);
    wr(0xb0, 0);
    assert_int_equal(eoi_count, 1);
}

static void illegal_vectors_set_esr(void **state)
{
    wr(0x370, 0x30);
    lapic_accept(&apic, 15, false);
    assert_int_equal(rd(0x280), 0);                    /* latched by a write only */
    assert_int_equal(lapic_take(&apic), 0x30);
    wr(0xb0, 0);
    wr(0x300, 0x0000000f);
    assert_int_equal(ipis, 0);
    assert_int_equal(lapic_take(&apic), -1);           /* one interrupt until ESR is written */
    wr(0x280, 0);
    assert_int_equal(rd(0x280), 0x60);
    wr(0x280, 0);
    assert_int_equal(rd(0x280), 0);
    wr(0x40, 0);                                       /* reserved register */
    assert_int_equal(lapic_take(&apic), 0x30);
    wr(0x280, 0);
    assert_int_equal(rd(0x280), 0x80);
}

static void software_disable(void **state)
{
    wr(0x320, 0x31);
    wr(0x350, 0x700);
    lapic_accept(&apic, 0x40, false);
    wr(0xf0, 0xff);
    assert_int_equal(rd(0x320), 0x10031);
    assert_int_equal(rd(0x350), 0x10700);
    assert_false(lapic_extint_enabled(&apic));
    wr(0x320, 0x31);
    assert_int_equal(rd(0x320), 0x10031);              /* cannot be unmasked now */
    lapic_accept(&apic, 0x41, false);
    assert_int_equal(lapic_take(&apic), 0x40);         /* what was held stays; new ones are refused */
    wr(0xb0, 0);
    assert_int_equal(lapic_pending(&apic), -1);
}

static void timer_one_shot(void **state)
{
    wr(0x3e0, 0xb);                                    /* divide by 1 */
    wr(0x320, 0x40);
    wr(0x380, 1000);                                   /* 1000 ticks of 1 GHz: 3000 TSC cycles */
    assert_int_equal(apic.timer_next_tsc, now + 3000);
    now += 1500;
    assert_int_equal(rd(0x390), 500);
    assert_int_equal(lapic_timer_poll(&apic, now), 1000000 + 3000);
    assert_int_equal(lapic_pending(&apic), -1);
    now += 1500;
    assert_int_equal(lapic_timer_poll(&apic, now), UINT64_MAX);
    assert_int_equal(lapic_take(&apic), 0x40);
    assert_int_equal(rd(0x390), 0);
    wr(0xb0, 0);
    now += 1000000;
    assert_int_equal(lapic_timer_poll(&apic, now), UINT64_MAX);
    assert_int_equal(lapic_pending(&apic), -1);
    wr(0x320, 0x20040);                                /* periodic: what ended stays at zero... */
    now += 500;
    assert_int_equal(rd(0x390), 0);
    assert_int_equal(apic.timer_next_tsc, UINT64_MAX);
    wr(0x3e0, 0xb);
    wr(0x320, 0x40);
    wr(0x320, 0x20040);
    assert_int_equal(rd(0x390), 0);
    wr(0x380, 1000);                                   /* ... until a count is written */
    now += 300;
    assert_int_equal(rd(0x390), 900);
    wr(0x320, 0x40);                                   /* and one that runs goes on through a change */
    assert_int_equal(rd(0x390), 900);
    wr(0x380, 1000);
    wr(0x380, 0);
    assert_int_equal(apic.timer_next_tsc, UINT64_MAX); /* zero stops it */
}

static void timer_divides(void **state)
{
    static const struct { uint32_t code, div; } t[] = {
        { 0, 2 }, { 1, 4 }, { 2, 8 }, { 3, 16 }, { 8, 32 }, { 9, 64 }, { 0xa, 128 }, { 0xb, 1 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        wr(0x320, 0x40);
        wr(0x3e0, t[i].code);
        wr(0x380, 100);
        assert_int_equal(apic.timer_next_tsc - now, 300ull * t[i].div);
    }
    wr(0x3e0, 0xb);
    wr(0x380, 1000);
    now += 1500;
    wr(0x3e0, 0);                                      /* by 2 from here: 500 left take 3000 cycles */
    assert_int_equal(rd(0x390), 500);
    assert_int_equal(apic.timer_next_tsc, now + 3000);
}

static void timer_periodic(void **state)
{
    wr(0x3e0, 0xb);
    wr(0x320, 0x20050);
    wr(0x380, 100);
    uint64_t t0 = now;
    for (int i = 1; i <= 5; i++) {
        now = t0 + 300u * (unsigned)i;
        assert_int_equal(lapic_timer_poll(&apic, now), t0 + 300u * (unsigned)(i + 1));
        assert_int_equal(lapic_take(&apic), 0x50);
        wr(0xb0, 0);
    }
    now = t0 + 300 * 100 + 10;                         /* late: one interrupt, then back on the grid */
    assert_int_equal(lapic_timer_poll(&apic, now), t0 + 300 * 101);
    assert_int_equal(lapic_take(&apic), 0x50);
    wr(0xb0, 0);
    assert_int_equal(lapic_pending(&apic), -1);
    wr(0x320, 0x30050);
    assert_int_equal(apic.timer_next_tsc, UINT64_MAX); /* masked: nobody has to look */
    now = t0 + 300 * 200 + 30;
    assert_int_equal(rd(0x390), 90);
    wr(0x320, 0x20050);
    assert_int_equal(apic.timer_next_tsc, t0 + 300 * 201);
    assert_int_equal(lapic_pending(&apic), -1);
}

static void timer_due_fires_before_masking(void **state)
{
    wr(0x3e0, 0xb);
    wr(0x320, 0x40);
    wr(0x380, 10);
    now += 1000;
    wr(0x320, 0x10040);
    assert_int_equal(lapic_take(&apic), 0x40);
}

static void timer_deadline(void **state)
{
    uint64_t v = 1;
    assert_int_equal(lapic_msr_write(&apic, 0x6e0, now + 5), 0);
    assert_int_equal(lapic_msr_read(&apic, 0x6e0, &v), 0);
    assert_int_equal(v, 0);                            /* ignored outside its mode */
    wr(0x320, 0x40060);
    wr(0x380, 77);
    assert_int_equal(rd(0x380), 0);
    assert_int_equal(lapic_msr_write(&apic, 0x6e0, now + 500), 0);
    assert_int_equal(apic.timer_next_tsc, now + 500);
    assert_int_equal(lapic_timer_poll(&apic, now + 499), now + 500);
    now += 500;
    assert_int_equal(lapic_timer_poll(&apic, now), UINT64_MAX);
    assert_int_equal(lapic_take(&apic), 0x60);
    wr(0xb0, 0);
    assert_int_equal(lapic_msr_read(&apic, 0x6e0, &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(lapic_msr_write(&apic, 0x6e0, now - 1), 0);
    assert_int_equal(lapic_take(&apic), 0x60);         /* past: at once */
    wr(0xb0, 0);
    assert_int_equal(lapic_msr_write(&apic, 0x6e0, now + 500), 0);
    assert_int_equal(lapic_msr_write(&apic, 0x6e0, 0), 0);
    assert_int_equal(apic.timer_next_tsc, UINT64_MAX);
    assert_int_equal(lapic_msr_write(&apic, 0x6e0, now + 500), 0);
    wr(0x320, 0x60);                                   /* leaving the mode disarms */
    assert_int_equal(apic.timer_next_tsc, UINT64_MAX);
}

static void timer_and_a_written_tsc(void **state)
{
    wr(0x3e0, 0xb);
    wr(0x320, 0x40);
    wr(0x380, 1000);
    now += 300;
    now -= 5000;
    lapic_tsc_moved(&apic, (uint64_t)-5000);
    assert_int_equal(rd(0x390), 900);
    assert_int_equal(apic.timer_next_tsc, now + 2700);
    wr(0x320, 0x40040);
    assert_int_equal(lapic_msr_write(&apic, 0x6e0, 1234567), 0);
    lapic_tsc_moved(&apic, 99);
    assert_int_equal(apic.timer_next_tsc, 1234567);
}

static void icr_xapic(void **state)
{
    wr(0x310, 0x05ffffff);
    wr(0x300, 0x000c4831);
    assert_int_equal(ipis, 1);
    assert_int_equal(ipi.dest, 5);
    assert_true(ipi.logical);
    assert_int_equal(ipi.shorthand, 3);
    assert_int_equal(ipi.mode, 0);
    assert_int_equal(ipi.vector, 0x31);
    assert_int_equal(rd(0x310), 0x05000000);
    assert_int_equal(rd(0x300), 0x000c4831);
    wr(0x300, 0x00044099);                             /* self */
    assert_int_equal(ipis, 1);
    assert_int_equal(lapic_take(&apic), 0x99);
    wr(0x300, 0x00004500);
    assert_int_equal(ipis, 2);
    assert_int_equal(ipi.mode, 5);
    wr(0x300, 0x00008500);                             /* INIT level de-assert */
    assert_int_equal(ipis, 2);
    wr(0x300, 0x0000469a);
    assert_int_equal(ipi.mode, 6);
    assert_int_equal(ipi.vector, 0x9a);
    wr(0x300, 0x00004300);                             /* reserved mode */
    assert_int_equal(ipis, 3);
    assert_int_equal(rd(0x300) & 0x1000, 0);
}

static void x2apic_registers(void **state)
{
    uint64_t v;
    assert_int_equal(rd(0x20), 0xffffffff);            /* the page is gone */
    assert_int_equal(lapic_msr_read(&apic, 0x802, &v), 0);
    assert_int_equal(v, 3);
    assert_int_equal(lapic_msr_read(&apic, 0x80d, &v), 0);
    assert_int_equal(v, 1 << 3);
    assert_int_equal(lapic_msr_write(&apic, 0x830, 0x0000001200000c31ull), 0);
    assert_int_equal(ipi.dest, 0x12);
    assert_true(ipi.logical);
    assert_int_equal(ipi.mode, 4);
    assert_int_equal(lapic_msr_read(&apic, 0x830, &v), 0);
    assert_int_equal(v, 0x0000001200000c31ull);
    assert_int_equal(lapic_msr_write(&apic, 0x83f, 0x77), 0);
    assert_int_equal(lapic_take(&apic), 0x77);
    assert_int_equal(lapic_msr_write(&apic, 0x80b, 0), 0);
    assert_int_equal(lapic_msr_write(&apic, 0x808, 0xff), 0);
    assert_int_equal(lapic_get_cr8(&apic), 15);
    assert_int_equal(lapic_msr_write(&apic, 0x832, 0x400ef), 0);
    assert_int_equal(lapic_msr_write(&apic, 0x835, 0xf7ff | 0x10000), 0);
}

static void x2apic_faults(void **state)
{
    static const struct { uint32_t msr; uint64_t val; } bad[] = {
        { 0x802, 0 }, { 0x803, 0 }, { 0x808, 0x100 }, { 0x80a, 0 }, { 0x80b, 1 }, { 0x80d, 0 }, { 0x80e, 0 },
        { 0x80f, 0x2000 }, { 0x810, 0 }, { 0x818, 0 }, { 0x820, 0 }, { 0x828, 1 }, { 0x830, 0x2000 },
        { 0x830, 0x10000 }, { 0x830, 0x100000 }, { 0x831, 0 }, { 0x832, 0x80000 }, { 0x832, 1ull << 32 },
        { 0x837, 0x100 }, { 0x839, 0 }, { 0x83e, 4 }, { 0x83f, 0x100 }, { 0x800, 0 }, { 0x82f, 0 },
        { 0x380, 0 }, { 0x840, 0 },
    };
    static const uint32_t unreadable[] = { 0x800, 0x80b, 0x80e, 0x831, 0x83f, 0x809, 0x80c, 0x82f, 0x840, 0x7ff };
    uint64_t v;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (lapic_msr_write(&apic, bad[i].msr, bad[i].val) != -EINVAL) {
            fail_msg("MSR %#x took %#llx", bad[i].msr, (unsigned long long)bad[i].val);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(unreadable); i++) {
        assert_int_equal(lapic_msr_read(&apic, unreadable[i], &v), -EINVAL);
    }
    assert_int_equal(ipis, 0);
    setup(NULL);                                       /* xAPIC: none of these MSRs exist */
    for (uint32_t m = 0x800; m < 0x840; m++) {
        assert_int_equal(lapic_msr_read(&apic, m, &v), -EINVAL);
        assert_int_equal(lapic_msr_write(&apic, m, 0), -EINVAL);
    }
}

static void base_transitions(void **state)
{
    static const uint64_t st[3] = { 0, 0x800, 0xc00 };   /* off, xAPIC, x2APIC */
    static const bool ok[3][3] = { { 1, 1, 0 }, { 1, 1, 1 }, { 1, 0, 1 } };
    for (int from = 0; from < 3; from++) {
        for (int to = 0; to < 3; to++) {
            lapic_init(&apic, &ops, NULL, 3, TSC_HZ, TIMER_HZ);
            if (from != 1) {
                assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfee00000 | st[from]), 0);
            }
            int r = lapic_msr_write(&apic, 0x1b, 0xfee00000 | st[to]);
            assert_int_equal(r, ok[from][to] ? 0 : -EINVAL);
            assert_int_equal(apic.base_msr & 0xc00, ok[from][to] ? st[to] : st[from]);
        }
    }
    setup(NULL);
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfee00400), -EINVAL);
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfee00a00), -EINVAL);
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfee00801), -EINVAL);
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xff000000fee00800ull), -EINVAL);
    lapic_accept(&apic, 0x44, false);
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfee00000), 0);   /* off loses everything */
    assert_false(lapic_enabled(&apic));
    assert_true(lapic_extint_enabled(&apic));
    lapic_accept(&apic, 0x45, false);
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfee00800), 0);
    assert_int_equal(rd(0xf0), 0xff);
    assert_int_equal(lapic_pending(&apic), -1);
}

static void destinations(void **state)
{
    assert_true(lapic_matches(&apic, 3, false));
    assert_false(lapic_matches(&apic, 2, false));
    assert_true(lapic_matches(&apic, 0xff, false));
    assert_true(lapic_matches(&apic, UINT32_MAX, false));
    assert_false(lapic_matches(&apic, 0x103, false));
    wr(0xd0, 0x0a123456);                              /* flat, bits 1 and 3 */
    assert_int_equal(rd(0xd0), 0x0a000000);
    assert_true(lapic_matches(&apic, 0x02, true));
    assert_true(lapic_matches(&apic, 0x08, true));
    assert_false(lapic_matches(&apic, 0x05, true));
    assert_false(lapic_matches(&apic, 0, true));
    assert_true(lapic_matches(&apic, 0xff, true));
    wr(0xe0, 0);
    assert_int_equal(rd(0xe0), 0x0fffffff);            /* cluster 0, member bits 1010 */
    assert_true(lapic_matches(&apic, 0x02, true));
    assert_false(lapic_matches(&apic, 0x12, true));
    assert_false(lapic_matches(&apic, 0x05, true));
    assert_true(lapic_matches(&apic, 0xff, true));

    lapic_init(&apic, &ops, NULL, 0x23, TSC_HZ, TIMER_HZ);
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfee00c00), 0);
    assert_true(lapic_matches(&apic, 0x23, false));
    assert_true(lapic_matches(&apic, 0xff, false));
    assert_true(lapic_matches(&apic, UINT32_MAX, true));
    assert_true(lapic_matches(&apic, 0x0002000c, true));
    assert_false(lapic_matches(&apic, 0x00020004, true));
    assert_false(lapic_matches(&apic, 0x0001000c, true));
    assert_int_equal(lapic_msr_write(&apic, 0x1b, 0xfee00000), 0);
    assert_false(lapic_matches(&apic, 0x23, false));
}

/* Save, break what is saved at every byte: what loads must be sane, and some of it must not load. */
static void save_and_load(void **state)
{
    wr(0x80, 0x20);
    wr(0xd0, 0x01000000);
    wr(0x3e0, 0);
    wr(0x350, 0x700);
    wr(0x320, 0x200ee);
    wr(0x380, 1000);
    lapic_accept(&apic, 0x45, true);
    lapic_accept(&apic, 0x33, false);
    assert_int_equal(lapic_take(&apic), 0x45);
    now += 600;
    assert_int_equal(rd(0x390), 900);

    struct save_writer w;
    save_init(&w);
    save_begin(&w, "lapic", 0, 1);
    lapic_save(&apic, &w);
    save_end(&w);
    assert_int_equal(save_status(&w), 0);

    struct lapic copy;
    struct load_reader r;
    struct load_section s;
    struct hv_error e;
    now = 42;                                          /* another host: other TSC, half the frequency */
    lapic_init(&copy, &ops, NULL, 3, TSC_HZ / 2, TIMER_HZ);
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, &e), 0);
    assert_int_equal(load_find(&r, "lapic", 0, &s), 0);
    assert_int_equal(lapic_load(&copy, &s, &e), 0);
    assert_int_equal(load_done(&s), 0);
    assert_int_equal(lapic_mmio_read(&copy, 0x390), 900);
    assert_int_equal(copy.timer_next_tsc, now + 2700);
    assert_int_equal(lapic_mmio_read(&copy, 0x80), 0x20);
    assert_int_equal(lapic_mmio_read(&copy, 0xa0), 0x40);
    assert_int_equal(lapic_pending(&copy), -1);
    lapic_mmio_write(&copy, 0xb0, 0);
    assert_int_equal(eoi_vector, 0x45);
    assert_int_equal(lapic_take(&copy), 0x33);

    struct lapic other;
    lapic_init(&other, &ops, NULL, 4, TSC_HZ, TIMER_HZ);
    assert_int_equal(load_find(&r, "lapic", 0, &s), 0);
    assert_true(lapic_load(&other, &s, &e) < 0);       /* not this CPU's */
    assert_int_equal(other.tpr, 0);

    size_t start = 0;
    assert_int_equal(load_find(&r, "lapic", 0, &s), 0);
    start = (size_t)(s.p - (const uint8_t *)w.out.buf);
    unsigned refused = 0;
    for (size_t i = start; i < w.out.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            w.out.buf[i] = (char)(w.out.buf[i] ^ (char)(1u << bit));
            lapic_init(&copy, &ops, NULL, 3, TSC_HZ, TIMER_HZ);
            assert_int_equal(load_find(&r, "lapic", 0, &s), 0);
            if (lapic_load(&copy, &s, &e) < 0) {
                refused++;
            } else {
                uint64_t next = lapic_timer_poll(&copy, now);
                assert_true(next > now);
            }
            w.out.buf[i] = (char)(w.out.buf[i] ^ (char)(1u << bit));
        }
    }
    assert_true(refused > 100);
    for (size_t len = start; len < w.out.len; len++) {
        assert_int_equal(load_find(&r, "lapic", 0, &s), 0);
        s.end = (const uint8_t *)w.out.buf + len;
        assert_true(lapic_load(&copy, &s, &e) < 0);
    }
    save_fini(&w);
}

#define T(f)    cmocka_unit_test_setup(f, setup)
#define T_X2(f) cmocka_unit_test_setup(f, setup_x2)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(reset_values), T(init_keeps_base_and_id), T(priorities), T(tpr_and_cr8), T(level_eoi_broadcast),
        T(illegal_vectors_set_esr), T(software_disable), T(timer_one_shot), T(timer_divides),
        T(timer_periodic), T(timer_due_fires_before_masking), T(timer_deadline), T(timer_and_a_written_tsc),
        T(icr_xapic), T_X2(x2apic_registers), T_X2(x2apic_faults), T(base_transitions), T(destinations),
        T(save_and_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
