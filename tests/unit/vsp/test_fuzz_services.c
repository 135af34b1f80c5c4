/* The fuzz target of key-values, freeze and file copy with a fixed seed: programs of random steps, most of them nearly right. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/fuzz/fuzz_services.c"

static uint64_t seed = 0xda3e39cb94b95bdb;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

static void hostile_guests_hurt_themselves_only(void **state)
{
    static uint8_t program[2000];
    const char *runs = getenv("HV_FUZZ_RUNS"), *start = getenv("HV_SEED");
    seed ^= start ? strtoull(start, NULL, 0) * 0x9E3779B97F4A7C15ull : 0;
    for (unsigned n = 0; n < (runs ? strtoul(runs, NULL, 0) : 2500); n++) {
        uint32_t len = 0;
        /* All but some begin with channels that work, and ask and answer more than they do harm. */
        for (unsigned c = 0; n % 8 && c < 3; c++)
            program[len++] = (uint8_t)(1 + 16 * c);
        const unsigned harm = 1 + n % 7;
        while (len < sizeof(program) - 8 && rnd(300)) {
            uint8_t which = (uint8_t)(16 * rnd(3));
            if (rnd(20) < harm) {
                program[len++] = (uint8_t)rnd(256);
                continue;
            }
            static const uint8_t hosts[] = {0, 2, 3, 4, 5, 6, 6, 14};
            if (rnd(4) == 0) {
                program[len++] = 9;                           /* the host asks */
                program[len++] = (uint8_t)(hosts[rnd(ARRAY_SIZE(hosts))] | 16);
                program[len++] = 'k';
                program[len++] = (uint8_t)rnd(256);
            } else {
                bool ok = rnd(12);
                program[len++] = (uint8_t)((ok ? 2 : 6) + which);    /* the guest answers */
                if (!ok)
                    program[len++] = (uint8_t)rnd(256);
            }
        }
        LLVMFuzzerTestOneInput(program, len);
    }
    print_message("steps with: kvp ready %u, items %u, sets %u, frozen %u, limits %u, copied %u, disk full %u, faults %u, loads %u, timeouts %u\n",
                  fuzz_seen.ready, fuzz_seen.items, fuzz_seen.sets, fuzz_seen.frozen, fuzz_seen.limits, fuzz_seen.copied,
                  fuzz_seen.cancelled, fuzz_seen.faults, fuzz_seen.loads, fuzz_seen.timeouts);
    if (!runs)
        assert_true(fuzz_seen.ready > 1000 && fuzz_seen.items > 100 && fuzz_seen.sets > 100 && fuzz_seen.frozen > 100 && fuzz_seen.limits &&
                    fuzz_seen.copied > 3000 && fuzz_seen.cancelled && fuzz_seen.faults > 100 && fuzz_seen.loads > 100 && fuzz_seen.timeouts > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_guests_hurt_themselves_only)};
    return cmocka_run_group_tests_name("vsp/fuzz_services", tests, NULL, NULL);
}
