/* The fuzz target of VMBus with a fixed seed: programs of random steps, most of them nearly right. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fuzz/fuzz_vmbus.c"

static uint64_t seed = 0x853c49e6748fea9b;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

static void hostile_guests_hurt_themselves_only(void **state)
{
    static uint8_t program[3000];
    const char *runs = getenv("HV_FUZZ_RUNS"), *from = getenv("HV_SEED");      /* make check-slow */
    unsigned n_runs = runs ? (unsigned)strtoul(runs, NULL, 10) : 6000;
    seed += from ? strtoul(from, NULL, 10) : 0;
    for (unsigned n = 0; n < n_runs; n++) {
        uint32_t len = 0;
        program[len++] = 2;                                   /* contact */
        for (unsigned c = 0; c < 4; c++)
            program[len++] = (uint8_t)(3 + 16 * c);           /* open all */
        program[len++] = 9;
        program[len++] = 0x80;                                /* start dynamic memory */
        program[len++] = 0;
        /* Some do nothing but move memory, to get far; the rest does anything. */
        bool memory = n % 2;
        while (len < sizeof(program) - 40 && rnd(memory ? 200 : 1000)) {
            static const uint8_t type[] = {7, 7, 7, 9, 11, 11, 5};
            if (!memory && rnd(8) == 0) {                     /* GPADLs: right, or wrong in one way */
                program[len++] = (uint8_t)(1 + 16 * rnd(4));
                program[len++] = (uint8_t)(rnd(3) ? 0 : 1u << rnd(5));
                program[len++] = (uint8_t)rnd(256);
                program[len++] = (uint8_t)rnd(256);
                continue;
            }
            if (!memory || rnd(20) == 0) {
                program[len++] = rnd(4) ? (uint8_t)rnd(256) : (uint8_t)(rnd(2) ? 9 + rnd(4) : rnd(5));
                continue;
            }
            if (rnd(3) == 0) {                                /* close, open, start anew */
                static const uint8_t anew[] = {5 + 16 * 3, 3 + 16 * 3, 9, 0x80, 0};
                memcpy(program + len, anew, sizeof(anew));
                len += sizeof(anew);
            }
            program[len++] = 12;                              /* a target */
            program[len++] = (uint8_t)(rnd(2) ? rnd(64) : rnd(200));
            program[len++] = 9;                               /* an answer, of up to 4 ranges */
            program[len++] = type[rnd(ARRAY_SIZE(type))];
            uint32_t words = 4 + 4 * rnd(5);
            program[len++] = (uint8_t)words;
            for (uint32_t i = 0; i < words * 2 && len < sizeof(program); i++)
                program[len++] = (uint8_t)(rnd(3) ? 0 : rnd(256));
        }
        LLVMFuzzerTestOneInput(program, len);
    }
    print_message("steps with: balloon %u, added %u, unballoon %u, faults %u; loads %u; GPADLs %u, refused %u\n", fuzz_seen.ballooned,
                  fuzz_seen.hot_added, fuzz_seen.unballooned, fuzz_seen.faults, fuzz_seen.loads, fuzz_seen.gpadls,
                  fuzz_seen.gpadls_refused);
    assert_true(fuzz_seen.gpadls > 100 && fuzz_seen.gpadls_refused > 100);
    assert_true(fuzz_seen.ballooned > 100 && fuzz_seen.hot_added > 100 && fuzz_seen.faults > 100 && fuzz_seen.loads > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_guests_hurt_themselves_only)};
    return cmocka_run_group_tests_name("vmbus/fuzz", tests, NULL, NULL);
}
