/* The fuzz target of saved states with a fixed seed: good streams, damaged in every way. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fuzz/fuzz_save.c"

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

static void damaged_streams_are_refused_or_whole(void **state)
{
    for (unsigned n = 0; n < 20000; n++) {
        struct save_writer w;
        save_init(&w);
        for (unsigned i = rnd(5); i > 0; i--) {
            save_begin(&w, rnd(2) ? "uart" : "x", rnd(4), rnd(3));
            for (unsigned k = rnd(20); k > 0; k--) {
                save_u8(&w, (uint8_t)rnd(256));
            }
            save_end(&w);
        }
        size_t len = w.out.len;
        for (unsigned k = rnd(4); k > 0; k--) {
            switch (rnd(3)) {
            case 0: w.out.buf[rnd((uint32_t)len)] = (char)rnd(256); break;
            case 1: w.out.buf[rnd((uint32_t)len)] ^= (char)(1 << rnd(8)); break;
            default: len = len > 1 ? len - rnd(MIN((uint32_t)len, 20)) : len; break;
            }
        }
        LLVMFuzzerTestOneInput((const uint8_t *)w.out.buf, len);
        save_fini(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(damaged_streams_are_refused_or_whole) };
    return cmocka_run_group_tests_name("base/fuzz_save", tests, NULL, NULL);
}
