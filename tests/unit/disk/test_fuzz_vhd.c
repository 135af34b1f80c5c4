/* The fuzz target of VHD, driven with a fixed seed: small changes in many places. HV_SEED, HV_FUZZ_RUNS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/fuzz/fuzz_vhd.c"
#include "tests/unit/roll.h"

static void patches(void **state)
{
    static const uint64_t values[] = { 0, 1, 2, 3, 4, 7, 8, 512, 1536, 4096, 65536, 1 << 19, 1 << 21, 5, 16, 1024, 1025, 2049,
                                       0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX };
    const char *text = getenv("HV_FUZZ_RUNS");
    unsigned long runs = text ? strtoul(text, NULL, 10) : 8000;

    for (unsigned long run = 0; run < runs; run++) {
        uint8_t in[256];
        size_t len = 1;

        in[0] = (uint8_t)(roll(FUZZ_IMAGES) | (roll(8) ? FUZZ_RESEAL : 0));
        for (uint64_t n = 1 + roll(4); n > 0 && len + 16 < sizeof(in); n--) {
            uint64_t value = roll(3) ? values[roll(ARRAY_SIZE(values))] : roll(UINT64_MAX), width = 1 + roll(8);

            in[len] = (uint8_t)(roll(ARRAY_SIZE(fuzz_places)) | (roll(4) ? 0 : 0x40));
            put_le16(in + len + 1, (uint16_t)(roll(6) ? roll(16) * 4 : roll(65536)));
            in[len + 3] = (uint8_t)(roll(40) ? width : 0);
            for (uint64_t k = 0; k < width; k++) {               /* big-endian, as VHD has it */
                in[len + 4 + k] = (uint8_t)(value >> ((width - 1 - k) * 8));
            }
            len += 4 + in[len + 3];
        }
        assert_int_equal(LLVMFuzzerTestOneInput(in, len), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(patches) };

    seed_from_environment();
    return cmocka_run_group_tests_name("fuzz_vhd", tests, NULL, NULL);
}
