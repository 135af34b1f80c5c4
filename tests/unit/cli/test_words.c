/* Suggestions, times, and a VM's view. */
#include "cli_sample.h"

#include <time.h>

#include "hvctl/hvctl.h"

static void distances(void **state)
{
    static const struct { const char *a, *b; unsigned d; } t[] = {
        {"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"start", "start", 0}, {"strat", "start", 1}, {"START", "start", 0},
        {"web1", "wbe1", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"abc", "ca", 3},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        assert_int_equal(cli_distance(t[i].a, t[i].b), t[i].d);
        assert_int_equal(cli_distance(t[i].b, t[i].a), t[i].d);
    }
    /* Longer words than it looks at must not run over. */
    char long_word[300];
    memset(long_word, 'x', sizeof(long_word) - 1);
    long_word[sizeof(long_word) - 1] = '\0';
    assert_int_equal(cli_distance(long_word, "y"), 63);
}

static const char *near(const char *word, const char *const *candidates)
{
    static char buf[200];
    struct cli_suggest s;
    cli_suggest_init(&s, word);
    for (; *candidates; candidates++) {
        cli_suggest_add(&s, *candidates);
    }
    return cli_suggest_text(&s, "", buf, sizeof(buf));
}
#define NEAR(word, ...) near(word, (const char *const[]){__VA_ARGS__, NULL})

static void suggestions_are_near_and_few(void **state)
{
    assert_string_equal(NEAR("strat", "list", "start", "stop", "restart", "stats"), "start, restart, stats");
    assert_string_equal(NEAR("wbe1", "db1", "mail", "web1"), "web1");
    assert_string_equal(NEAR("frobnicate", "list", "start"), "");
    assert_string_equal(NEAR("stat", "stop", "stats", "status", "start", "state"), "stats, status, start");
    assert_string_equal(NEAR("x", "y", "z"), "");
    assert_string_equal(NEAR("", "y"), "");
    assert_string_equal(NEAR("web1", "web1", "web1"), "web1");
}

static void times(void **state)
{
    setenv("TZ", "UTC", 1);
    tzset();
    /* 2026-11-20 23:20:07 UTC */
    const int64_t now = 1795216807;
    static const struct { const char *text; int64_t want; } t[] = {
        {"22:20", 1795213200},                {"22:20:30", 1795213230},
        {"23:30", 1795217400 - 86400},        {"2026-11-20T22:20", 1795213200},
        {"2026-11-20T22:20:30Z", 1795213230}, {"2026-11-20", 1795132800},
        {"24h", 1795216807 - 86400},          {"5m", 1795216807 - 300},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        int64_t ms = 0;
        struct hv_error e = {0};
        if (time_parse(t[i].text, "--since", (uint64_t)now * NS_PER_SEC, &ms, &e) < 0) {
            fail_msg("%s: %s", t[i].text, e.message);
        }
        if (ms != t[i].want * 1000) {
            fail_msg("%s: %lld", t[i].text, (long long)ms);
        }
    }
    static const char *const bad[] = {"", "yesterday", "25:00", "12:60", "5", "2026-13-01", "2026-11-20T", "22:20x", "2026-11-20T22"};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        int64_t ms;
        struct hv_error e = {0};
        if (time_parse(bad[i], "--since", (uint64_t)now * NS_PER_SEC, &ms, &e) == 0) {
            fail_msg("'%s' is a time", bad[i]);
        }
        assert_int_equal(e.code, HV_USAGE);
    }
}

static void a_view_joins_settings_and_state_by_noun(void **state)
{
    json_t *vm = json_pack("{s:s,s:s,s:s,s:n,s:{s:s,s:{s:I,s:b},s:{s:i},s:s},s:{s:I,s:I,s:s,s:{s:I},s:I}}", "name", "web1",
                           "id", "0b0f7c1e", "state", "running", "reason", "settings", "engine", "auto", "memory",
                           "startup", (json_int_t)GIB, "dynamic", 1, "processor", "cpus", 2, "notes", "hi", "runtime",
                           "uptime_ms", (json_int_t)61500, "cpu_pct", (json_int_t)12, "engine", "soft", "memory",
                           "assigned", (json_int_t)(2 * GIB), "cpu_ns", (json_int_t)5);
    json_t *before = json_deep_copy(vm);
    json_t *view = view_vm(vm);
    assert_int_equal(json_integer_value(cli_json_path(view, "uptime_s")), 61);
    assert_int_equal(json_integer_value(cli_json_path(view, "processor.cpu_pct")), 12);
    assert_int_equal(json_integer_value(cli_json_path(view, "processor.cpus")), 2);
    assert_int_equal(json_integer_value(cli_json_path(view, "memory.startup")), GIB);
    assert_int_equal(json_integer_value(cli_json_path(view, "memory.assigned")), 2 * GIB);
    assert_string_equal(json_string_value(cli_json_path(view, "engine")), "auto");
    assert_string_equal(json_string_value(cli_json_path(view, "engine_in_use")), "soft");
    assert_null(cli_json_path(view, "settings"));
    assert_null(cli_json_path(view, "cpu_ns"));
    assert_true(json_equal(vm, before));

    json_t *part = view_part(view, "memory");
    assert_int_equal(json_object_size(part), 4);
    json_decref(part);
    json_decref(view);
    json_decref(vm);
    json_decref(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distances),
        cmocka_unit_test(suggestions_are_near_and_few),
        cmocka_unit_test(times),
        cmocka_unit_test(a_view_joins_settings_and_state_by_noun),
    };
    return cmocka_run_group_tests_name("cli/words", tests, NULL, NULL);
}
