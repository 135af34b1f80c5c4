/* Page sets beside a plain array of booleans: random adds, removes and walks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "hv/vsp/pageset.h"

#define PAGES (3 * 32768u)
static bool model[PAGES];
static uint64_t seed = 7;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

static void compare(const struct pageset *s)
{
    uint64_t pfn = 0, n, count = 0;
    uint32_t at = 0;
    while (pageset_next(s, &pfn, &n, 1 + rnd(100000))) {
        assert_true(n > 0 && pfn + n <= PAGES);
        for (; at < pfn; at++)
            assert_false(model[at]);
        for (; at < pfn + n; at++)
            assert_true(model[at]);
        count += n;
        pfn += n;
    }
    for (; at < PAGES; at++)
        assert_false(model[at]);
    assert_int_equal(count, s->count);
}

static void sets_behave_as_arrays_of_booleans(void **state)
{
    static const uint32_t sizes[] = {1, 2, 63, 64, 65, 512, 5000, 40000};
    struct pageset s, back;
    assert_int_equal(pageset_init(&s, (gpa_t)PAGES << HV_PAGE_SHIFT), 0);
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t n = 1 + rnd(sizes[rnd(8)]), pfn = rnd(PAGES);
        bool clash = pfn + n > PAGES;
        for (uint32_t k = pfn; !clash && k < pfn + n; k++)
            clash = model[k];
        if (rnd(5) < 3) {
            int r = pageset_add(&s, pfn, n);
            assert_int_equal(r, pfn + n > PAGES ? -ERANGE : clash ? -EEXIST : 0);
            for (uint32_t k = pfn; r == 0 && k < pfn + n; k++)
                model[k] = true;
        } else {
            pageset_remove(&s, pfn, n);
            for (uint32_t k = pfn; k < MIN(pfn + n, PAGES); k++)
                model[k] = false;
        }
        if (i % 50 == 0)
            compare(&s);
    }
    compare(&s);
    struct save_writer w;
    struct load_reader r;
    struct load_section sec;
    save_init(&w);
    save_begin(&w, "set", 0, 1);
    pageset_save(&s, &w);
    save_end(&w);
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, NULL), 0);
    assert_int_equal(load_find(&r, "set", 0, &sec), 0);
    assert_int_equal(pageset_init(&back, (gpa_t)PAGES << HV_PAGE_SHIFT), 0);
    assert_int_equal(pageset_load(&back, &sec), 0);
    assert_int_equal(load_done(&sec), 0);
    compare(&back);
    save_fini(&w);
    pageset_fini(&back);
    pageset_fini(&s);
}

static void what_overflows_is_refused(void **state)
{
    struct pageset s;
    assert_int_equal(pageset_init(&s, (gpa_t)PAGES << HV_PAGE_SHIFT), 0);
    assert_int_equal(pageset_add(&s, UINT64_MAX, 2), -ERANGE);
    assert_int_equal(pageset_add(&s, PAGES - 1, 2), -ERANGE);
    assert_int_equal(pageset_add(&s, PAGES, 1), -ERANGE);
    assert_int_equal(pageset_add(&s, PAGES - 1, 1), 0);
    assert_int_equal(s.count, 1);
    pageset_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_behave_as_arrays_of_booleans),
        cmocka_unit_test(what_overflows_is_refused),
    };
    return cmocka_run_group_tests_name("vsp/pageset", tests, NULL, NULL);
}
