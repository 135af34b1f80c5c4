/* Sizes, durations and numbers as operators write them: operator-surface 1.4, 1.5. */
#include "hv/base/units.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

static void sizes_with_units(void **state)
{
    static const struct { const char *text; uint64_t bytes; } rows[] = {
        { "0", 0 }, { "0.0", 0 }, { "0G", 0 }, { "1B", 1 }, { "512M", 512 * MIB }, { "2G", 2 * GIB },
        { "1.5T", 1536 * GIB }, { "2GiB", 2 * GIB }, { "64KB", 64 * KIB }, { "64kb", 64 * KIB },
        { "3mib", 3 * MIB }, { "1P", 1024 * TIB }, { "0.5K", 512 }, { "0.1G", 107374182 },
        { "16383P", 16383 * (TIB << 10) }, { "18446744073709551615B", UINT64_MAX },
        { "0.000000001T", 1099 }, { "1.9999999999G", 2 * GIB - 2 }, { "007M", 7 * MIB },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct hv_error e = { 0 };
        uint64_t v = 7777;
        assert_int_equal(parse_size(rows[i].text, "--max", &v, &e), 0);
        assert_false(hv_error_is_set(&e));
        if (v != rows[i].bytes) {
            fail_msg("%s: got %llu", rows[i].text, (unsigned long long)v);
        }
    }
}

struct bad { const char *text, *message, *hint; };

static void check_bad(const struct bad *b, int r, const struct hv_error *e, const char *object)
{
    char want[300];

    if (r != -EINVAL || e->code != HV_USAGE || strcmp(e->message, b->message) != 0 ||
        strcmp(e->hint, b->hint ? b->hint : "") != 0) {
        fail_msg("'%s': r %d, message '%s', hint '%s'", b->text, r, e->message, e->hint);
    }
    snprintf(want, sizeof(want), "%s%s%s", object, *b->text ? " " : "", b->text);
    assert_string_equal(e->object, want);
}

static void bad_sizes_say_what_to_write(void **state)
{
    static const struct bad rows[] = {
        { "2048", "a size needs a unit", "--max 2048M" },
        { "4", "a size needs a unit", "--max 4G" },
        { "31", "a size needs a unit", "--max 31G" },
        { "32", "a size needs a unit", "--max 32M" },
        { "1.5", "a size needs a unit", "--max 1.5G" },
        { "2097152", "a size needs a unit", "--max 2097152K" },
        { "2147483648", "a size needs a unit", "--max 2G" },
        { "99999999999999999999", "a size needs a unit", "--max 99999999999999999999G" },
        { "", "a size is missing", "--max 4G" },
        { "-1G", "a size cannot be negative", NULL },
        { "4X", "the units of a size are B, K, M, G, T and P", "--max 4G" },
        { "4 G", "the units of a size are B, K, M, G, T and P", "--max 4G" },
        { "1.5.2G", "the units of a size are B, K, M, G, T and P", "--max 1.5G" },
        { "1,5G", "the decimal sign of a size is a point", "--max 1.5G" },
        { "G", "this is no size", "--max 4G" },
        { ".5G", "this is no size", "--max 4G" },
        { "5.G", "this is no size", "--max 4G" },
        { " 5G", "this is no size", "--max 4G" },
        { "+5G", "this is no size", "--max 4G" },
        { "0x10G", "the units of a size are B, K, M, G, T and P", "--max 0G" },
        { "1.5B", "a size in bytes is a whole number", NULL },
        { "16384P", "this size is too large", NULL },
        { "16383.9999999999P", "this size is too large", NULL },
        { "18446744073709551616B", "this size is too large", NULL },
        { "99999999999999999999999999G", "this size is too large", NULL },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct hv_error e = { 0 };
        uint64_t v = 7777;
        /* digits beyond the ninth are dropped, so this one is just below the limit */
        if (strcmp(rows[i].text, "16383.9999999999P") == 0) {
            assert_int_equal(parse_size(rows[i].text, "--max", &v, &e), 0);
            assert_true(v < UINT64_MAX);
            continue;
        }
        int r = parse_size(rows[i].text, "--max", &v, &e);
        check_bad(&rows[i], r, &e, "--max");
        assert_int_equal(v, 7777);
    }
}

static void errors_without_an_object_or_an_error(void **state)
{
    struct hv_error e = { 0 };
    uint64_t v = 1;

    assert_int_equal(parse_size("2048", NULL, &v, &e), -EINVAL);
    assert_string_equal(e.object, "2048");
    assert_string_equal(e.hint, "2048M");
    assert_int_equal(parse_size("2048", "--max", &v, NULL), -EINVAL);
    assert_int_equal(v, 1);
}

static void relative_sizes(void **state)
{
    struct hv_error e = { 0 };
    uint64_t v;
    int sign = 9;

    assert_int_equal(parse_size_relative("+1G", "--max", &sign, &v, &e), 0);
    assert_int_equal(sign, 1);
    assert_int_equal(v, GIB);
    assert_int_equal(parse_size_relative("-512M", "--max", &sign, &v, &e), 0);
    assert_int_equal(sign, -1);
    assert_int_equal(v, 512 * MIB);
    assert_int_equal(parse_size_relative("3G", "--max", &sign, &v, &e), 0);
    assert_int_equal(sign, 0);
    sign = 9;
    assert_int_equal(parse_size_relative("-512", "--max", &sign, &v, &e), -EINVAL);
    assert_string_equal(e.object, "--max -512");
    assert_string_equal(e.hint, "--max -512M");
    assert_int_equal(parse_size_relative("+2147483648", "--max", &sign, &v, &e), -EINVAL);
    assert_string_equal(e.hint, "--max +2G");
    assert_int_equal(parse_size_relative("--1G", "--max", &sign, &v, &e), -EINVAL);
    assert_int_equal(parse_size_relative("+-1G", "--max", &sign, &v, &e), -EINVAL);
    assert_int_equal(parse_size_relative("+", "--max", &sign, &v, &e), -EINVAL);
    assert_string_equal(e.hint, "--max +4G");
    assert_int_equal(sign, 9);
}

static void durations(void **state)
{
    static const struct { const char *text; uint64_t ns; } good[] = {
        { "500ms", 500 * NS_PER_MS }, { "2s", 2 * NS_PER_SEC }, { "5m", 300 * NS_PER_SEC },
        { "1h", 3600 * NS_PER_SEC }, { "7d", 7 * 86400 * NS_PER_SEC }, { "1.5h", 5400 * NS_PER_SEC },
        { "0", 0 }, { "0s", 0 }, { "0.5ms", 500000 }, { "213503d", 213503ull * 86400 * NS_PER_SEC },
    };
    static const struct bad rows[] = {
        { "5", "a duration needs a unit", "--timeout 5s" },
        { "", "a duration is missing", "--timeout 5s" },
        { "-5s", "a duration cannot be negative", NULL },
        { "soon", "this is no duration", "--timeout 5s" },
        { "1h30m", "a duration is one number with ms, s, m, h or d", "--timeout 1s" },
        { "5M", "a duration is one number with ms, s, m, h or d", "--timeout 5s" },
        { "5us", "a duration is one number with ms, s, m, h or d", "--timeout 5s" },
        { "213504d", "this duration is too long", NULL },
        { "18446744073709551616ms", "this duration is too long", NULL },
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t v = 1;
        assert_int_equal(parse_duration(good[i].text, "--timeout", &v, NULL), 0);
        assert_int_equal(v, good[i].ns);
    }
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct hv_error e = { 0 };
        uint64_t v = 7777;
        check_bad(&rows[i], parse_duration(rows[i].text, "--timeout", &v, &e), &e, "--timeout");
        assert_int_equal(v, 7777);
    }
}

static void percentages(void **state)
{
    static const struct bad rows[] = {
        { "", "a percentage is missing", "--buffer 20%" },
        { "x", "a percentage is a whole number", "--buffer 20%" },
        { "2.5%", "a percentage is a whole number", "--buffer 20%" },
        { "20%%", "a percentage is a whole number", "--buffer 20%" },
        { "-3", "a percentage is a whole number", "--buffer 20%" },
        { "18446744073709551616%", "this percentage is too large", NULL },
    };
    uint64_t v = 0;

    assert_int_equal(parse_percent("20", "--buffer", &v, NULL), 0);
    assert_int_equal(v, 20);
    assert_int_equal(parse_percent("2000%", "--buffer", &v, NULL), 0);
    assert_int_equal(v, 2000);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct hv_error e = { 0 };
        check_bad(&rows[i], parse_percent(rows[i].text, "--buffer", &v, &e), &e, "--buffer");
        assert_int_equal(v, 2000);
    }
}

static void whole_numbers(void **state)
{
    static const struct bad rows[] = {
        { "0", "must be from 1 to 64", "--cpus 1" },
        { "65", "must be from 1 to 64", "--cpus 64" },
        { "-1", "must be from 1 to 64", "--cpus 1" },
        { "18446744073709551616", "must be from 1 to 64", "--cpus 64" },
        { "0x10000000000000000", "must be from 1 to 64", "--cpus 64" },
        { "", "a number is missing", NULL },
        { "4x", "a whole number is needed", NULL },
        { "0x", "a whole number is needed", NULL },
        { "0xg", "a whole number is needed", NULL },
        { "4.0", "a whole number is needed", NULL },
        { " 4", "a whole number is needed", NULL },
        { "+4", "a whole number is needed", NULL },
        { "-", "a whole number is needed", NULL },
    };
    uint64_t v = 0;

    assert_int_equal(parse_uint("64", "--cpus", 1, 64, &v, NULL), 0);
    assert_int_equal(v, 64);
    assert_int_equal(parse_uint("0x1F", "--cpus", 1, 64, &v, NULL), 0);
    assert_int_equal(v, 31);
    assert_int_equal(parse_uint("010", "--cpus", 1, 64, &v, NULL), 0);
    assert_int_equal(v, 10);   /* never octal */
    assert_int_equal(parse_uint("18446744073709551615", "--x", 0, UINT64_MAX, &v, NULL), 0);
    assert_int_equal(v, UINT64_MAX);
    assert_int_equal(parse_uint("0xffffffffffffffff", "--x", 0, UINT64_MAX, &v, NULL), 0);
    assert_int_equal(v, UINT64_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct hv_error e = { 0 };
        v = 7777;
        check_bad(&rows[i], parse_uint(rows[i].text, "--cpus", 1, 64, &v, &e), &e, "--cpus");
        assert_int_equal(v, 7777);
    }
}

static void switches(void **state)
{
    static const struct bad rows[] = {
        { "yes", "must be on or off", "--dynamic on" }, { "no", "must be on or off", "--dynamic off" },
        { "ON", "must be on or off", "--dynamic on" },  { "", "must be on or off", "--dynamic on" },
        { "onn", "must be on or off", "--dynamic off" },
    };
    bool v = false;

    assert_int_equal(parse_switch("on", "--dynamic", &v, NULL), 0);
    assert_true(v);
    assert_int_equal(parse_switch("off", "--dynamic", &v, NULL), 0);
    assert_false(v);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct hv_error e = { 0 };
        check_bad(&rows[i], parse_switch(rows[i].text, "--dynamic", &v, &e), &e, "--dynamic");
    }
}

static void sizes_for_people(void **state)
{
    static const struct { uint64_t bytes; const char *text; } rows[] = {
        { 0, "0" }, { 1, "1B" }, { 511, "511B" }, { 1023, "1023B" }, { KIB, "1K" }, { 64 * KIB, "64K" },
        { 1536, "1.5K" }, { 4 * GIB, "4.0G" }, { 512 * MIB, "512M" }, { 640 * MIB, "640M" },
        { 644245094, "0.6G" }, { GIB - 1, "1.0G" }, { 3543348019, "3.3G" }, { 12 * GIB, "12.0G" },
        { 300 * MIB + 77, "300M" }, { 5 * MIB + 314573, "5.3M" }, { 9 * MIB + 1048575, "10M" },
        { 700 * MIB + 1, "0.7G" }, { 600 * KIB + 1, "0.6M" }, { 300 * KIB + 1, "300K" },
        { 1000 * GIB, "1000.0G" }, { TIB, "1.0T" }, { TIB - 1, "1.0T" }, { TIB - 60 * MIB, "1023.9G" },
        { 1536 * GIB, "1.5T" }, { 80 * GIB, "80.0G" }, { UINT64_MAX, "16384.0P" },
        { (TIB << 10) - 1, "1.0P" }, { GIB + 53687091, "1.0G" }, { GIB + 53687092, "1.1G" },
    };
    char buf[24];

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_string_equal(format_size(rows[i].bytes, buf, sizeof(buf)), rows[i].text);
    }
}

static void two_sizes_of_a_sentence_can_be_compared(void **state)
{
    static const struct { uint64_t a, b; const char *at, *bt; } rows[] = {
        { 703 * MIB + 4096, 704 * MIB, "703M", "704M" },            /* not "0.7G of the 704M" */
        { 722 * MIB + 5, 704 * MIB, "722M", "704M" }, { 704 * MIB, 722 * MIB + 5, "704M", "722M" },
        { 1331 * MIB, 1310 * MIB, "1331M", "1310M" }, { GIB + 1, GIB, "1073741825B", "1073741824B" },
        { 1536 * MIB, 1310 * MIB + 1, "1.5G", "1.3G" }, { 8 * TIB, 1310 * MIB, "8.0T", "1.3G" },
        { 3 * GIB, 4 * GIB, "3.0G", "4.0G" }, { 512 * MIB, GIB, "512M", "1.0G" }, { 512 * MIB, GIB + 7, "512M", "1024M" },
        { 0, 700 * MIB + 1, "0", "0.7G" }, { 5 * MIB, 5 * MIB, "5M", "5M" }, { UINT64_MAX, UINT64_MAX - 1, NULL, NULL },
    };
    char a[SIZE_TEXT], b[SIZE_TEXT];
    uint64_t x = 88172645463325252, va, vb;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        format_sizes(rows[i].a, a, rows[i].b, b);
        if (rows[i].at) {
            assert_string_equal(a, rows[i].at);
            assert_string_equal(b, rows[i].bt);
        }
    }
    /* Whatever they are: who reads the texts sees which is the larger. */
    for (int i = 0; i < 20000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        const uint64_t m = x >> (8 + i % 55), n = i % 2 ? m + m / (3 + x % 5000) : x >> (9 + i / 55 % 54);
        format_sizes(m, a, n, b);
        assert_int_equal(parse_size(a, NULL, &va, NULL), 0);
        assert_int_equal(parse_size(b, NULL, &vb, NULL), 0);
        if ((m < n) != (va < vb) || (m == n) != (va == vb)) {
            fail_msg("%llu and %llu: %s and %s", (unsigned long long)m, (unsigned long long)n, a, b);
        }
    }
}

static void exact_sizes_read_back(void **state)
{
    char buf[24];
    uint64_t x = 88172645463325252, back;

    assert_string_equal(format_size_exact(1536 * MIB, buf, sizeof(buf)), "1536M");
    assert_string_equal(format_size_exact(GIB, buf, sizeof(buf)), "1G");
    assert_string_equal(format_size_exact(0, buf, sizeof(buf)), "0");
    assert_string_equal(format_size_exact(UINT64_MAX, buf, sizeof(buf)), "18446744073709551615B");
    for (int i = 0; i < 20000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        uint64_t v = x >> (i % 64) << (i / 64 % 64);
        assert_int_equal(parse_size(format_size_exact(v, buf, sizeof(buf)), NULL, &back, NULL), 0);
        assert_int_equal(back, v);
    }
}

static void ages_and_times(void **state)
{
    static const struct { uint64_t s; const char *text; } rows[] = {
        { 0, "0s" }, { 45, "45s" }, { 60, "1m 00s" }, { 303, "5m 03s" }, { 11520, "3h 12m" },
        { 3600, "1h 00m" }, { 12 * 86400 + 4 * 3600 + 59, "12d 04h" }, { 86399, "23h 59m" },
    };
    char buf[32];

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_string_equal(format_age(rows[i].s, buf, sizeof(buf)), rows[i].text);
    }
    assert_string_equal(format_time_utc(0, buf, sizeof(buf)), "1970-01-01T00:00:00Z");
    assert_string_equal(format_time_utc(1795216806ull * NS_PER_SEC + 999999999, buf, sizeof(buf)),
                        "2026-11-20T23:20:06Z");
    assert_string_equal(format_time_utc(0, buf, 8), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_with_units),
        cmocka_unit_test(bad_sizes_say_what_to_write),
        cmocka_unit_test(errors_without_an_object_or_an_error),
        cmocka_unit_test(relative_sizes),
        cmocka_unit_test(durations),
        cmocka_unit_test(percentages),
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(switches),
        cmocka_unit_test(sizes_for_people),
        cmocka_unit_test(exact_sizes_read_back), cmocka_unit_test(two_sizes_of_a_sentence_can_be_compared),
        cmocka_unit_test(ages_and_times),
    };
    return cmocka_run_group_tests_name("base/units", tests, NULL, NULL);
}
