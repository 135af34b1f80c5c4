/* The fuzz target of the Hyper-V interface with a fixed seed: programs of random steps after a driver's first. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fuzz/fuzz_hyperv.c"

static uint64_t seed = 0xda3e39cb94b95bdb;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

static void hostile_guests_hurt_themselves_only(void **state)
{
    static uint8_t program[2000];
    const char *runs = getenv("HV_FUZZ_RUNS"), *from = getenv("HV_SEED");      /* make check-slow */
    unsigned n_runs = runs ? (unsigned)strtoul(runs, NULL, 10) : 1500;
    seed += from ? strtoul(from, NULL, 10) : 0;
    for (unsigned n = 0; n < n_runs; n++) {
        uint32_t len = 0;
        program[len++] = 13;                                  /* set up */
        while (len < sizeof(program) && rnd(1500)) {
            program[len++] = (uint8_t)rnd(256);
        }
        LLVMFuzzerTestOneInput(program, len);
    }
    print_message("calls %u, refused %u; messages in %u, out %u; signals in %u, out %u; crashes %u; loads %u, refused %u\n",
                  fuzz_seen.calls_ok, fuzz_seen.calls_bad, fuzz_seen.posts, fuzz_seen.delivered, fuzz_seen.signals,
                  fuzz_seen.events, fuzz_seen.crashes, fuzz_seen.loads, fuzz_seen.refused);
    /* It gets somewhere: each of these is reached often, or the target has gone blind. */
    assert_true(fuzz_seen.calls_ok > 100 && fuzz_seen.calls_bad > 100 && fuzz_seen.posts > 100);
    assert_true(fuzz_seen.delivered > 100 && fuzz_seen.signals > 100 && fuzz_seen.events > 100);
    assert_true(fuzz_seen.crashes > 10 && fuzz_seen.loads > 100 && fuzz_seen.refused > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_guests_hurt_themselves_only)};
    return cmocka_run_group_tests_name("hyperv/fuzz", tests, NULL, NULL);
}
