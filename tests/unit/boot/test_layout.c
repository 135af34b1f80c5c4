/* The guest-physical address space and the e820 map that is made of it. */
#include "hv/boot/e820.h"
#include "hv/boot/layout.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static struct layout plan(uint64_t ram, uint64_t max, unsigned bits)
{
    struct layout l;
    struct hv_error e = { 0 };
    if (layout_plan(ram, max, bits, &l, &e) != 0) {
        fail_msg("%s", e.message);
    }
    return l;
}

/* What must hold for every plan. */
static void check(const struct layout *l, uint64_t ram)
{
    assert_true(l->low_bytes + l->high_bytes == ram && l->ram_bytes == ram);
    assert_true(l->low_bytes <= MEM_LOW_TOP);
    assert_true(l->low_bytes % HV_PAGE_SIZE == 0 && l->high_bytes % HV_PAGE_SIZE == 0);
    assert_true(l->low_bytes <= l->mmio_low_base);
    assert_true(l->mmio_low_base + l->mmio_low_len <= LAYOUT_IOAPIC_BASE);
    assert_true(l->hot_add_base % LAYOUT_HOT_ADD_ALIGN == 0 && l->hot_add_top % LAYOUT_HOT_ADD_ALIGN == 0);
    assert_true(l->hot_add_base >= MEM_HIGH_BASE + l->high_bytes);
    assert_true(l->hot_add_base <= l->hot_add_top);
    assert_true(l->hot_add_top <= l->mmio_high_base);
    assert_true(l->mmio_high_base + l->mmio_high_len == (uint64_t)1 << l->phys_bits);
}

static void test_sizes(void **state)
{
    static const struct { uint64_t ram, low, high; } T[] = {
        { 128 * MIB, 128 * MIB, 0 },
        { 512 * MIB, 512 * MIB, 0 },
        { 3584 * MIB, 3584 * MIB, 0 },              /* exactly the low part */
        { 3584 * MIB + 4096, 3584 * MIB, 4096 },
        { 6 * GIB, 3584 * MIB, 2560 * MIB },
        { 60 * GIB, 3584 * MIB, 60 * GIB - 3584 * MIB },
        { 64 * GIB, 3456 * MIB, 64 * GIB - 3456 * MIB },   /* end moves up by 128 MiB */
        { 64 * GIB + 128 * MIB, 3584 * MIB, 64 * GIB + 128 * MIB - 3584 * MIB },
    };
    for (size_t i = 0; i < ARRAY_SIZE(T); i++) {
        struct layout l = plan(T[i].ram, T[i].ram, 46);
        check(&l, T[i].ram);
        assert_int_equal(l.low_bytes, T[i].low);
        assert_int_equal(l.high_bytes, T[i].high);
    }
}

/* layout: above 60 GiB boot RAM ends on an odd multiple of 128 MiB, whatever its size */
static void test_odd_end(void **state)
{
    for (uint64_t ram = 60 * GIB + 2 * MIB; ram < 62 * GIB; ram += 2 * MIB) {
        struct layout l = plan(ram, ram, 46);
        check(&l, ram);
        gpa_t end = MEM_HIGH_BASE + l.high_bytes;
        assert_int_equal(end % LAYOUT_HOT_ADD_ALIGN, 0);
        assert_int_equal(end / LAYOUT_HOT_ADD_ALIGN % 2, 1);
        assert_true(MEM_LOW_TOP - l.low_bytes < 256 * MIB);
        assert_int_equal(l.hot_add_base, end);
    }
}

static void test_hot_add(void **state)
{
    struct layout l = plan(512 * MIB, 512 * MIB, 46);      /* a static VM too */
    assert_int_equal(l.hot_add_base, 4 * GIB);
    assert_int_equal(l.hot_add_top, TIB);
    assert_int_equal(l.mmio_high_base, ((uint64_t)1 << 46) - 64 * GIB);

    l = plan(4 * GIB, 8 * GIB, 39);                        /* the CPU's width is the limit */
    check(&l, 4 * GIB);
    assert_int_equal(l.hot_add_top, 448 * GIB);

    l = plan(4 * GIB, 2 * TIB, 46);                        /* room for all of Maximum, the hole included */
    check(&l, 4 * GIB);
    assert_true(l.hot_add_top - l.hot_add_base + 4 * GIB >= 2 * TIB);

    l = plan(GIB, UINT64_MAX, 46);                         /* no Maximum at all */
    check(&l, GIB);
    assert_int_equal(l.hot_add_top, l.mmio_high_base);

    l = plan(4 * GIB, 4 * GIB, 36);                        /* the smallest address space there is */
    check(&l, 4 * GIB);
}

static void test_too_large(void **state)
{
    struct layout l;
    struct hv_error e = { 0 };

    assert_int_equal(layout_plan(TIB, TIB, 40, &l, &e), -EOPNOTSUPP);
    assert_int_equal(e.code, HV_UNSUPPORTED);
    assert_string_equal(e.message, "1T of memory do not fit into the CPU's 40-bit physical address space");
    assert_string_equal(e.hint, "at most 982400M");
    assert_int_equal(layout_plan(982400 * MIB, TIB, 40, &l, &e), 0);      /* and that is the truth */
    check(&l, 982400 * MIB);
    assert_int_equal(layout_plan(982400 * MIB + 4096, TIB, 40, &l, &e), -EOPNOTSUPP);
    assert_int_equal(layout_plan(ROUND_DOWN(UINT64_MAX, HV_PAGE_SIZE), 0, 52, &l, &e), -EOPNOTSUPP);
}

static void test_e820(void **state)
{
    static const uint64_t RAM[] = { 128 * MIB, 512 * MIB, 3584 * MIB, 6 * GIB, 100 * GIB };

    for (size_t i = 0; i < ARRAY_SIZE(RAM); i++) {
        struct layout l = plan(RAM[i], RAM[i], 46);
        struct e820 m;
        uint64_t ram = 0, at = 0;

        e820_build(&l, &m);
        assert_int_equal(m.count, l.high_bytes ? 8 : 7);
        for (unsigned k = 0; k < m.count; k++) {
            const struct e820_entry *en = &m.entry[k];
            assert_true(en->len > 0 && en->addr >= at);    /* sorted, no overlap */
            at = en->addr + en->len;
            if (en->type == E820_RAM) {
                ram += en->len;
                /* RAM the guest is told of is RAM it has. */
                assert_true(at <= l.low_bytes ||
                            (en->addr == MEM_HIGH_BASE && at == MEM_HIGH_BASE + l.high_bytes));
            } else {
                assert_int_equal(en->type, E820_RESERVED);
            }
            /* Nothing lies in a window, in VGA's hole or in the hot-add range. */
            assert_true(at <= l.mmio_low_base || en->addr >= l.mmio_low_base + l.mmio_low_len);
            assert_true(at <= 0xA0000 || en->addr >= 0xE0000);
            assert_true(at <= l.hot_add_base);
        }
        assert_int_equal(ram, RAM[i] - 0x60000 - 0x400);   /* all but 640K..1M and the EBDA */
    }
}

static void test_e820_128m(void **state)
{
    static const struct e820_entry WANT[] = {
        { 0, 0x9FC00, 1 }, { 0x9FC00, 0x400, 2 }, { 0xE0000, 0x20000, 2 }, { 0x100000, 0x7F00000, 1 },
        { 0xFEC00000, 0x1000, 2 }, { 0xFEE00000, 0x100000, 2 }, { 0xFFFBC000, 0x44000, 2 },
    };
    struct layout l = plan(128 * MIB, 128 * MIB, 46);
    struct e820 m;

    e820_build(&l, &m);
    assert_int_equal(m.count, ARRAY_SIZE(WANT));
    for (unsigned k = 0; k < m.count; k++) {
        assert_int_equal(m.entry[k].addr, WANT[k].addr);
        assert_int_equal(m.entry[k].len, WANT[k].len);
        assert_int_equal(m.entry[k].type, WANT[k].type);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes), cmocka_unit_test(test_odd_end), cmocka_unit_test(test_hot_add),
        cmocka_unit_test(test_too_large), cmocka_unit_test(test_e820), cmocka_unit_test(test_e820_128m),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
