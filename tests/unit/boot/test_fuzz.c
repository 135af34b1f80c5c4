/* The fuzz target of the kernel loader, driven with a fixed seed: small changes in many places. */
#include "tests/fuzz/fuzz_boot.c"

#define RUNS 20000

static uint64_t seed = 88172645463325252u;

static uint32_t pick(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % n;
}

static void test_patches(void **state)
{
    for (unsigned run = 0; run < RUNS; run++) {
        uint8_t in[64];
        size_t len = 1;

        in[0] = (uint8_t)(1 + pick(2) + (pick(4) == 0 ? 0x81 : 0));
        for (unsigned n = 1 + pick(4); n > 0 && len + 12 < sizeof(in); n--) {
            /* Mostly where the headers are: bzImage 0x1F1.., ELF 0.., the payload's start. */
            uint32_t off = pick(3) == 0 ? pick(0x1C00) : pick(2) ? 0x1F1 + pick(0x80) : pick(0x240);
            uint8_t count = (uint8_t)(pick(20) == 0 ? 0 : 1 + pick(8));
            put_le16(in + len, (uint16_t)off);
            in[len + 2] = count;
            len += 3;
            for (unsigned i = 0; i < count; i++) {
                in[len++] = pick(3) ? (uint8_t)pick(256) : (uint8_t)-(pick(2));
            }
        }
        assert_int_equal(LLVMFuzzerTestOneInput(in, len), 0);
    }
}

static void test_raw(void **state)
{
    static const char *const HEADS[] = { "", "MZ", "\x7f" "ELF\x02\x01\x01", "070701", "ARM\x64" };
    for (unsigned run = 0; run < RUNS / 10; run++) {
        uint8_t in[700];
        const char *head = HEADS[pick(ARRAY_SIZE(HEADS))];
        for (size_t i = 0; i < sizeof(in); i++) {
            in[i] = (uint8_t)(pick(4) ? pick(256) : 0);
        }
        in[0] = pick(2) ? 0 : 0xC0;      /* FUZZ_RAW */
        memcpy(in + 1, head, strlen(head));
        assert_int_equal(LLVMFuzzerTestOneInput(in, 1 + pick(sizeof(in))), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_patches), cmocka_unit_test(test_raw) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
