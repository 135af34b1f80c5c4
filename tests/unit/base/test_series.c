/* Samples over time: slots, gaps, means of minutes, clocks that jump. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "hv/base/series.h"

#define T0 1795216800000ull        /* begins a minute */

static struct series s;

static struct series_point point(uint32_t assigned, uint32_t demand)
{
    return (struct series_point){assigned, demand, 500, SERIES_OK};
}

static void empty_is_unknown(void **state)
{
    series_reset(&s);
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000).assigned, SERIES_UNKNOWN);
    assert_int_equal(series_at(&s, SERIES_COARSE, T0 / 60000).cpu, SERIES_CPU_UNKNOWN);
}

static void slots_and_gaps(void **state)
{
    memset(&s, 0, sizeof(s));
    series_put(&s, T0, point(100, 50));
    series_put(&s, T0 + 2500, point(110, 60));
    series_put(&s, T0 + 10000, point(120, 70));
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000).assigned, 100);
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 + 1).assigned, 110);
    for (unsigned i = 2; i < 5; i++) {
        assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 + i).assigned, SERIES_UNKNOWN);
    }
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 + 5).demand, 70);
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 + 6).demand, SERIES_UNKNOWN);
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 - 1).demand, SERIES_UNKNOWN);
}

static void a_minute_is_the_mean_and_the_worst(void **state)
{
    memset(&s, 0, sizeof(s));
    for (unsigned i = 0; i < 30; i++) {
        struct series_point p = point(100 + 2 * i, i < 10 ? SERIES_UNKNOWN : 40);
        p.status = i == 3 ? SERIES_WARNING : SERIES_OK;
        series_put(&s, T0 + i * 2000, p);
    }
    struct series_point m = series_at(&s, SERIES_COARSE, T0 / 60000);
    assert_int_equal(m.assigned, 129);
    assert_int_equal(m.demand, 40);
    assert_int_equal(m.cpu, 500);
    assert_int_equal(m.status, SERIES_WARNING);
    series_put(&s, T0 + 60000, point(7, 7));
    assert_int_equal(series_at(&s, SERIES_COARSE, T0 / 60000 + 1).assigned, 7);
    assert_int_equal(series_at(&s, SERIES_COARSE, T0 / 60000 + 1).status, SERIES_OK);
}

static void the_ring_forgets(void **state)
{
    memset(&s, 0, sizeof(s));
    for (unsigned i = 0; i < SERIES_FINE_SLOTS + 10; i++) {
        series_put(&s, T0 + i * 2000ull, point(i, i));
    }
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 + 9).assigned, SERIES_UNKNOWN);
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 + 10).assigned, 10);
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 + SERIES_FINE_SLOTS + 9).assigned, SERIES_FINE_SLOTS + 9);
    /* A jump beyond the ring leaves nothing of before. */
    series_put(&s, T0 + 86400000ull * 30, point(1, 1));
    unsigned known = 0;
    for (unsigned i = 0; i < SERIES_FINE_SLOTS; i++) {
        known += series_at(&s, SERIES_FINE, (T0 + 86400000ull * 30) / 2000 - i).assigned != SERIES_UNKNOWN;
    }
    assert_int_equal(known, 1);
}

static void a_clock_set_back(void **state)
{
    memset(&s, 0, sizeof(s));
    series_put(&s, T0, point(5, 5));
    series_put(&s, T0 - 4000, point(6, 6));               /* a little: into its slot */
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000 - 2).assigned, 6);
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000).assigned, 5);
    series_put(&s, T0 - 86400000, point(8, 8));           /* a day: it begins anew */
    assert_int_equal(series_at(&s, SERIES_FINE, (T0 - 86400000) / 2000).assigned, 8);
    assert_int_equal(series_at(&s, SERIES_FINE, T0 / 2000).assigned, SERIES_UNKNOWN);
}

static void copied_slot_by_slot(void **state)
{
    static struct series copy;
    memset(&s, 0, sizeof(s));
    memset(&copy, 0, sizeof(copy));
    for (unsigned i = 0; i < 100; i++) {
        series_put(&s, T0 + i * 3000ull, point(i, 2 * i));
    }
    for (uint64_t slot = T0 / 2000; slot <= T0 / 2000 + 150; slot++) {
        series_set(&copy, SERIES_FINE, slot, series_at(&s, SERIES_FINE, slot));
    }
    for (uint64_t slot = T0 / 2000 - 5; slot <= T0 / 2000 + 148; slot++) {
        assert_int_equal(series_at(&copy, SERIES_FINE, slot).demand, series_at(&s, SERIES_FINE, slot).demand);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_is_unknown), cmocka_unit_test(slots_and_gaps), cmocka_unit_test(a_minute_is_the_mean_and_the_worst),
        cmocka_unit_test(the_ring_forgets), cmocka_unit_test(a_clock_set_back), cmocka_unit_test(copied_slot_by_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
