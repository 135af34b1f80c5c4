/* CRC-32C: known values, and the two ways against each other. */
#include "hv/disk/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_known(void **state)
{
    uint8_t buf[32];

    (void)state;
    /* RFC 3720, B.4 */
    memset(buf, 0, sizeof(buf));
    assert_int_equal(crc32c(0, buf, 32), 0x8A9136AA);
    memset(buf, 0xff, sizeof(buf));
    assert_int_equal(crc32c(0, buf, 32), 0x62A8AB43);
    for (int i = 0; i < 32; i++) {
        buf[i] = (uint8_t)i;
    }
    assert_int_equal(crc32c(0, buf, 32), 0x46DD794E);
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283);
    assert_int_equal(crc32c(0, "", 0), 0);
}

static void test_ways_agree(void **state)
{
    uint8_t buf[300];
    uint32_t x = 1;

    (void)state;
    for (size_t i = 0; i < sizeof(buf); i++) {
        x = x * 1664525 + 1013904223;
        buf[i] = (uint8_t)(x >> 24);
    }
    for (size_t from = 0; from < 9; from++) {
        for (size_t len = 0; from + len <= sizeof(buf); len++) {
            uint32_t whole = crc32c(0, buf + from, len);

            assert_int_equal(whole, crc32c_table(0, buf + from, len));
            assert_int_equal(whole, crc32c(crc32c_table(0, buf + from, len / 3), buf + from + len / 3, len - len / 3));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_known), cmocka_unit_test(test_ways_agree) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
