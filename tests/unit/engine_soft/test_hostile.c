/* tests/fuzz/fuzz_guest.c with fixed seeds, for a bounded time. HOSTILE_SEED runs one, HOSTILE_S so many seconds. */
#include "tests/fuzz/fuzz_guest.c"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#define SEEDS 1000u
#define SECONDS 6u

static void test_guests(void **state)
{
    const char *one = getenv("HOSTILE_SEED"), *seconds = getenv("HOSTILE_S");
    const uint64_t until = hv_now_ns() + (seconds ? strtoull(seconds, NULL, 0) : SECONDS) * NS_PER_SEC;
    const uint64_t first = one ? strtoull(one, NULL, 0) : 1;
    unsigned n = 0;
    set_up();
    do {
        one_guest(first + (one ? 0 : n));
        n++;
    } while (!one && (n < 20 || (hv_now_ns() < until && (seconds || n < SEEDS))));
    print_message("%u guests\n", n);
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_guests) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
