/* The fuzz target of VHDX, driven with a fixed seed: small changes in many places. HV_SEED, HV_FUZZ_RUNS. */
#include "tests/fuzz/fuzz_vhdx.c"

static void one(unsigned run)
{
    /* Values that mean something: aligned places, states, lengths, the largest of their kind. */
    static const uint64_t values[] = { 0, 1, 2, 3, 4, 5, 7, 512, 4096, 65536, 1 << 20, 3 << 20, 4 << 20, 5 << 20, 64 << 20,
                                       (3 << 20) | 6, (4 << 20) | 6, (4 << 20) | 7, (5 << 20) | 6, (200ull << 20) | 6, 1ull << 40,
                                       0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX, 0xfffffffffff00006ull };
    uint8_t in[256];
    size_t len = 1;

    in[0] = (uint8_t)(roll(FUZZ_IMAGES) | (roll(8) ? FUZZ_RESEAL : 0));
    for (uint64_t n = 1 + roll(4); n > 0 && len + 16 < sizeof(in); n--) {
        uint8_t place = (uint8_t)roll(ARRAY_SIZE(fuzz_places)), count = (uint8_t)(roll(40) ? 1 + roll(8) : 0);
        uint64_t value = roll(3) ? values[roll(ARRAY_SIZE(values))] : roll(UINT64_MAX);

        in[len] = place;
        put_le16(in + len + 1, (uint16_t)(roll(8) ? roll(24) * 8 + (roll(3) ? 0 : roll(8)) : roll(65536)));
        in[len + 3] = count;
        put_le64(in + len + 4, value);
        len += 4 + (size_t)count;
    }
    (void)run;
    assert_int_equal(LLVMFuzzerTestOneInput(in, len), 0);
}

static void test_patches(void **state)
{
    const char *text = getenv("HV_FUZZ_RUNS");
    unsigned long runs = text ? strtoul(text, NULL, 10) : 1500;

    (void)state;
    for (unsigned run = 0; run < runs; run++) {
        one(run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_patches) };

    seed_from_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
