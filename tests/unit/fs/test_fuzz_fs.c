/* The fuzz targets of hv/fs with a fixed seed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define LLVMFuzzerTestOneInput fuzz_partition
#include "tests/fuzz/fuzz_partition.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_fat
#include "tests/fuzz/fuzz_fat.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_ext4
#include "tests/fuzz/fuzz_ext4.c"

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

/* A choice byte and up to six patches; values that mean something more often than others. */
static void run(int (*target)(const uint8_t *, size_t), unsigned rounds, unsigned units)
{
    static const uint8_t likely[] = { 0, 0, 1, 2, 4, 8, 0x10, 0x20, 0x7f, 0x80, 0xff, 0xfe };
    uint8_t input[400];

    for (unsigned n = 0; n < rounds; n++) {
        size_t len = 0;
        input[len++] = (uint8_t)rnd(256);
        for (unsigned k = rnd(6) + 1; k > 0; k--) {
            unsigned count = rnd(8) + 1;
            put_le16(input + len, (uint16_t)rnd(units));
            put_le16(input + len + 2, (uint16_t)(rnd(3) ? rnd(4096) : rnd(256)));
            input[len + 4] = (uint8_t)count;
            len += 5;
            while (count-- > 0) {
                input[len++] = rnd(3) ? likely[rnd(ARRAY_SIZE(likely))] : (uint8_t)rnd(256);
            }
        }
        target(input, len);
    }
}

static void test_partition(void **state)
{
    run(fuzz_partition, 1500, 8);
}

static void test_fat(void **state)
{
    run(fuzz_fat, 8000, 64);
}

static void test_ext4(void **state)
{
    run(fuzz_ext4, 2500, 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_partition), cmocka_unit_test(test_fat),
                                        cmocka_unit_test(test_ext4) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
