/* Filter expressions against rows, and their errors. */
#include "cli_sample.h"

static json_t *row;

static int make_row(void **state)
{
    row = json_pack("{s:s,s:s,s:n,s:i,s:{s:I,s:I,s:i,s:s,s:b},s:{s:i}}", "name", "Web1", "state", "running", "notes",
                    "uptime_s", 7200, "memory", "assigned", (json_int_t)(4 * GIB), "demand", (json_int_t)(3 * GIB),
                    "buffer_now_pct", -6, "status", "ok", "dynamic", 1, "processor", "cpus", 2);
    return row ? 0 : -1;
}

static int drop_row(void **state)
{
    json_decref(row);
    return 0;
}

static bool fits(const char *expr)
{
    struct cli_filter *f;
    struct hv_error e = {0};
    if (cli_filter_parse(expr, &sample_columns, &f, &e) < 0) {
        fail_msg("%s: %s: %s", expr, e.object, e.message);
    }
    bool r = cli_filter_match(f, row);
    cli_filter_free(f);
    return r;
}

static void comparisons(void **state)
{
    static const struct { const char *expr; bool fits; } t[] = {
        {"state=running", true},      {"state=RUNNING", true},     {"state!=running", false},
        {"state=off", false},         {"demand>2G", true},         {"demand.gt=2G", true},
        {"demand>3G", false},         {"demand>=3G", true},        {"demand.ge=3072M", true},
        {"demand<3G", false},         {"demand.lt=4G", true},      {"demand.le=3G", true},
        {"demand=3G", true},          {"demand.ne=3G", false},     {"demand.eq=3G", true},
        {"name~^web", true},          {"name~^eb", false},         {"name~1$", true},
        {"buffer_now_pct<0", true},   {"buffer_now_pct=-6", true}, {"buffer_now_pct.gt=-10%", true},
        {"buffer_now_pct>0", false},  {"uptime_s>1h", true},       {"uptime_s>3h", false},
        {"uptime_s=2h", true},        {"dynamic=on", true},        {"dynamic=off", false},
        {"cpus=2", true},             {"cpus>2", false},           {"status=OK", true},
        {"status.ne=ok", false},      {"state=running,demand>2G", true},
        {"state=running,demand>4G", false},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        if (fits(t[i].expr) != t[i].fits) {
            fail_msg("%s is %s", t[i].expr, t[i].fits ? "not true" : "true");
        }
    }
}

static void unknown_is_never_comparable_but_can_be_asked_for(void **state)
{
    assert_false(fits("cpu_pct>0"));
    assert_false(fits("cpu_pct!=5"));
    assert_false(fits("notes=x"));
    assert_false(fits("notes!=x"));
    assert_false(fits("notes~."));
    assert_true(fits("notes=-"));
    assert_true(fits("cpu_pct=-"));
    assert_false(fits("notes!=-"));
    assert_true(fits("name!=-"));
    assert_false(fits("name=-"));
}

static void a_comma_can_be_escaped(void **state)
{
    assert_false(fits("name=a\\,b"));
    json_t *old = row;
    row = json_pack("{s:s}", "name", "a,b");
    assert_true(fits("name=a\\,b"));
    assert_true(fits("name=a\\,b,state=-"));
    json_decref(row);
    row = old;
}

static void refused(const char *expr, const char *sentence, const char *hint)
{
    struct cli_filter *f;
    struct hv_error e = {0};
    char got[700];
    assert_true(cli_filter_parse(expr, &sample_columns, &f, &e) < 0);
    assert_int_equal(e.code, HV_USAGE);
    snprintf(got, sizeof(got), "%s: %s", e.object, e.message);
    assert_string_equal(got, sentence);
    assert_string_equal(e.hint, hint);
}

static void errors(void **state)
{
    refused("demand", "--filter demand: a comparison is missing",
            "--filter demand.gt=2G (a bare > is the shell's redirection)");
    refused("state", "--filter state: a comparison is missing",
            "--filter state=VALUE (a bare > is the shell's redirection)");
    refused("demadn>2G", "--filter demadn: no such column", "demand");
    refused("zzzzzzzz=1", "--filter zzzzzzzz: no such column", "--columns help");
    refused("demand>2", "--filter demand>2: a size needs a unit", "--filter demand.gt=2G");
    refused("state=running,demand", "--filter demand: a comparison is missing",
            "--filter demand.gt=2G (a bare > is the shell's redirection)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparisons),
        cmocka_unit_test(unknown_is_never_comparable_but_can_be_asked_for),
        cmocka_unit_test(a_comma_can_be_escaped),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests_name("cli/filter", tests, make_row, drop_row);
}
