/* The formatter: each form against a golden text; cleaning and cutting of what comes from outside. */
#include "cli_sample.h"

#include <locale.h>

static json_t *rows;

static int make_rows(void **state)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    rows = json_pack("[{s:s,s:s,s:n},{s:s,s:s,s:i,s:{s:I,s:I,s:s},s:{s:i}},{s:s,s:s,s:i,s:{s:I,s:I,s:s},s:{s:i}}]",
                     "name", "build-old", "state", "off", "uptime_s",
                     "name", "web1", "state", "running", "uptime_s", 1051200, "memory", "assigned",
                     (json_int_t)(4 * GIB), "demand", (json_int_t)(33 * GIB / 10), "status", "ok", "processor",
                     "cpu_pct", 12,
                     "name", "ci-runner", "state", "running", "uptime_s", 11520, "memory", "assigned",
                     (json_int_t)(6 * GIB), "demand", (json_int_t)(64 * GIB / 10), "status", "warning", "processor",
                     "cpu_pct", 97);
    return rows ? 0 : -1;
}

static int drop_rows(void **state)
{
    json_decref(rows);
    return 0;
}

/* What `x list WORDS` prints for v. */
static char *printed(const json_t *v, bool one, const char *const *words)
{
    static char buf[8192];
    struct cli_call c;
    struct cli_printer p;
    struct hv_error e;
    int r = sample_parse(&c, &e, words);
    if (r < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    buf[0] = '\0';
    c.out = fmemopen(buf, sizeof(buf), "w");
    r = cli_printer_init(&p, &c, &sample_columns, one ? CLI_FMT_LIST : CLI_FMT_TABLE, &e);
    if (r < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    if (r == 0) {
        cli_print_rows(&p, v, one);
    }
    cli_printer_fini(&p);
    fclose(c.out);
    cli_call_fini(&c);
    return buf;
}
#define PRINTED(v, one, ...) printed(v, one, (const char *const[]){"list", ##__VA_ARGS__, NULL})

static void table(void **state)
{
    assert_string_equal(PRINTED(rows, false),
                        "NAME       STATE    ASSIGNED  DEMAND  STATUS   CPU   UPTIME\n"
                        "build-old  off             -       -  -          -        -\n"
                        "ci-runner  running      6.0G    6.4G  Warning  97%   3h 12m\n"
                        "web1       running      4.0G    3.3G  OK       12%  12d 04h\n");
}

static void an_empty_table_prints_nothing_and_empty_json_an_array(void **state)
{
    json_t *none = json_array();
    assert_string_equal(PRINTED(none, false), "");
    assert_string_equal(PRINTED(none, false, "-o", "csv"), "");
    assert_string_equal(PRINTED(none, false, "-o", "name"), "");
    assert_string_equal(PRINTED(none, false, "-o", "json"), "[]\n");
    json_decref(none);
}

static void sorting_puts_unknown_last_both_ways(void **state)
{
    assert_string_equal(PRINTED(rows, false, "-s", "demand", "-o", "name"), "web1\nci-runner\nbuild-old\n");
    assert_string_equal(PRINTED(rows, false, "-s", "-demand", "-o", "name"), "ci-runner\nweb1\nbuild-old\n");
    assert_string_equal(PRINTED(rows, false, "-s", "+name", "-o", "name"), "build-old\nci-runner\nweb1\n");
}

static void filters_choose_rows(void **state)
{
    assert_string_equal(PRINTED(rows, false, "-F", "status.ne=ok", "-o", "name"), "ci-runner\n");
    assert_string_equal(PRINTED(rows, false, "-F", "status=-", "-o", "name"), "build-old\n");
}

static void columns_are_chosen_added_and_taken_away(void **state)
{
    assert_string_equal(PRINTED(rows, false, "-c", "name,demand", "--raw"),
                        "NAME           DEMAND\n"
                        "build-old           -\n"
                        "ci-runner  6871947673\n"
                        "web1       3543348019\n");
    assert_string_equal(PRINTED(rows, false, "-c", "-uptime_s,-cpu_pct,-status,-demand,-assigned", "--no-header"),
                        "build-old  off\n"
                        "ci-runner  running\n"
                        "web1       running\n");
}

static void csv_is_raw_and_quoted(void **state)
{
    json_t *v = json_pack("[{s:s,s:s},{s:s,s:n,s:i}]", "name", "a,b", "notes", "say \"hi\"\nbye", "name", "c", "notes",
                          "uptime_s", 61);
    assert_string_equal(PRINTED(v, false, "-o", "csv", "-c", "name,notes,uptime_s"),
                        "name,notes,uptime_s\n"
                        "\"a,b\",\"say \"\"hi\"\"\nbye\",\n"
                        "c,,61\n");
    assert_string_equal(PRINTED(v, false, "-o", "csv", "-c", "uptime_s", "--no-header"), "\n61\n");
    json_decref(v);
}

static void json_nests_and_columns_cut_it_down(void **state)
{
    assert_string_equal(PRINTED(rows, false, "-o", "jsonl", "-c", "name,demand", "-F", "name=web1"),
                        "{\"name\":\"web1\",\"memory\":{\"demand\":3543348019}}\n");
    json_t *one = json_pack("[{s:s,s:n}]", "name", "a", "notes");
    assert_string_equal(PRINTED(one, true, "-o", "json"), "{\n  \"name\": \"a\",\n  \"notes\": null\n}\n");
    assert_string_equal(PRINTED(one, false, "-o", "json"), "[\n  {\n    \"name\": \"a\",\n    \"notes\": null\n  }\n]\n");
    json_decref(one);
}

static void list_shows_what_is_known_one_block_an_object(void **state)
{
    json_t *v = json_pack("[{s:s,s:s,s:n,s:{s:b}},{s:s,s:s}]", "name", "a", "state", "off", "notes", "memory", "dynamic",
                          1, "name", "b", "state", "running");
    assert_string_equal(PRINTED(v, true),
                        "name:     a\n"
                        "state:    off\n"
                        "dynamic:  on\n"
                        "\n"
                        "name:   b\n"
                        "state:  running\n");
    json_decref(v);
}

static void wide_adds_columns_that_have_a_value(void **state)
{
    json_t *v = json_pack("[{s:s,s:s,s:{s:i}}]", "name", "a", "state", "off", "processor", "cpus", 2);
    assert_string_equal(PRINTED(v, false, "-o", "wide"),
                        "NAME  STATE  ASSIGNED  DEMAND  STATUS  CPU  UPTIME  CPUS\n"
                        "a     off           -       -  -         -       -     2\n");
    json_decref(v);
}

static void columns_help_lists_them(void **state)
{
    const char *text = PRINTED(rows, false, "-c", "help");
    assert_non_null(strstr(text, "* name "));
    assert_non_null(strstr(text, "  cpus "));
}

static void unknown_columns_are_refused(void **state)
{
    struct cli_call c;
    struct cli_printer p;
    struct hv_error e;
    PARSE(&c, &e, "list", "-c", "+demnad");
    assert_true(cli_printer_init(&p, &c, &sample_columns, CLI_FMT_TABLE, &e) < 0);
    assert_string_equal(e.object, "--columns demnad");
    assert_string_equal(e.hint, "demand");
    cli_printer_fini(&p);
    cli_call_fini(&c);
    PARSE(&c, &e, "list", "-s", "-nmae");
    assert_true(cli_printer_init(&p, &c, &sample_columns, CLI_FMT_TABLE, &e) < 0);
    assert_string_equal(e.object, "--sort nmae");
    cli_printer_fini(&p);
    cli_call_fini(&c);
}

static void text_from_outside_cannot_steer_the_terminal(void **state)
{
    static const struct { const char *in, *out; } t[] = {
        {"plain", "plain"},          {"a\033[2Jb", "a?[2Jb"}, {"a\nb\tc", "a\\nb\\tc"}, {"bell\a\177", "bell??"},
        {"\xc2\x9b""31m", "?31m"},   {"\xff\xfe", "??"},      {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
        {"\xe2\x80\xae""evil", "?evil"}, {"\xed\xa0\x80", "???"}, {"\xc0\xaf", "??"},  {"\xe2\x82", "??"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        struct strbuf sb = {0};
        cli_clean(&sb, t[i].in, false);
        assert_string_equal(sb.buf ? sb.buf : "", t[i].out);
        strbuf_fini(&sb);
    }
    struct strbuf sb = {0};
    cli_clean(&sb, "gr\xc3\xbc", true);
    assert_string_equal(sb.buf, "gr?");
    strbuf_fini(&sb);
    /* In a table too. */
    json_t *v = json_pack("[{s:s,s:s}]", "name", "a\x1b[31m", "state", "off");
    assert_string_equal(PRINTED(v, false, "-c", "name", "--no-header"), "a?[31m\n");
    json_decref(v);
}

static void names_are_cut_in_the_middle(void **state)
{
    static const struct { const char *in; unsigned width; bool ascii; const char *out; } t[] = {
        {"short", 10, true, "short"},       {"abcdefghij", 7, true, "abc~hij"}, {"abcdefghij", 6, true, "abc~ij"},
        {"abcdefghij", 7, false, "abc\xe2\x80\xa6hij"}, {"abc", 1, true, "~"},  {"abc", 0, true, ""},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        struct strbuf sb = {0};
        cli_cut(&sb, t[i].in, t[i].width, t[i].ascii);
        assert_string_equal(sb.buf ? sb.buf : "", t[i].out);
        strbuf_fini(&sb);
    }
}

static void errors_have_one_form(void **state)
{
    char buf[1024];
    struct cli_call c;
    struct hv_error e;
    PARSE(&c, &e, "list");
    c.err = fmemopen(buf, sizeof(buf), "w");
    hv_fail(&e, HV_NO_RESOURCES, "ci\033-runner", "cannot start: it needs %s", "1.0G");
    hv_hint(&e, "more memory");
    cli_print_error(&c, &e);
    fclose(c.err);
    assert_string_equal(buf, "x: ci?-runner: cannot start: it needs 1.0G\n  try: more memory\n");
    c.format = CLI_FMT_JSON;
    c.err = fmemopen(buf, sizeof(buf), "w");
    hv_fail(&e, HV_NOT_FOUND, "wbe1", "no such VM");
    cli_print_error(&c, &e);
    fclose(c.err);
    assert_string_equal(buf, "{\"error\":{\"code\":\"not-found\",\"object\":\"wbe1\",\"message\":\"no such VM\",\"hint\":\"\"}}\n");
    cli_call_fini(&c);
}

static void questions_need_somebody_to_answer(void **state)
{
    struct cli_call c;
    struct hv_error e;
    char answer[] = "y\n", no[] = "\n", err[512];
    PARSE(&c, &e, "list");
    assert_true(cli_ask(&c, "web1", "removing it", &e) < 0);
    assert_int_equal(e.code, HV_USAGE);
    assert_string_equal(e.message, "removing it needs --yes when nobody can be asked");
    c.yes = true;
    assert_int_equal(cli_ask(&c, "web1", "removing it", &e), 0);
    c.yes = false;
    c.tty_in = c.tty_err = true;
    c.err = fmemopen(err, sizeof(err), "w");
    c.in = fmemopen(answer, sizeof(answer) - 1, "r");
    assert_int_equal(cli_ask(&c, "web1", "removing it", &e), 0);
    fclose(c.in);
    c.in = fmemopen(no, sizeof(no) - 1, "r");
    assert_true(cli_ask(&c, "web1", "removing it", &e) < 0);
    assert_int_equal(e.code, HV_FAILED);
    fclose(c.in);
    c.batch = true;
    assert_true(cli_ask(&c, "web1", "removing it", &e) < 0);
    assert_int_equal(e.code, HV_USAGE);
    fclose(c.err);
    assert_string_equal(err, "web1: removing it: go on? [y/N] web1: removing it: go on? [y/N] ");
    cli_call_fini(&c);
}

static void streams_print_as_they_go(void **state)
{
    char buf[2048];
    struct cli_call c;
    struct cli_printer p;
    struct hv_error e;
    PARSE(&c, &e, "list", "-o", "json", "-c", "name");
    c.out = fmemopen(buf, sizeof(buf), "w");
    cli_printer_init(&p, &c, &sample_columns, CLI_FMT_TABLE, &e);
    cli_stream_row(&p, json_array_get(rows, 0));
    cli_stream_row(&p, json_array_get(rows, 1));
    cli_stream_end(&p);
    fclose(c.out);
    json_t *v = json_loads(buf, 0, NULL);
    assert_int_equal(json_array_size(v), 2);
    json_decref(v);
    cli_printer_fini(&p);
    cli_call_fini(&c);

    PARSE(&c, &e, "list", "-c", "name,state");
    c.out = fmemopen(buf, sizeof(buf), "w");
    cli_printer_init(&p, &c, &sample_columns, CLI_FMT_TABLE, &e);
    cli_stream_row(&p, json_array_get(rows, 1));
    cli_stream_row(&p, json_array_get(rows, 2));
    cli_stream_end(&p);
    fclose(c.out);
    assert_string_equal(buf, "NAME  STATE\nweb1  running\nci-runner  running\n");
    cli_printer_fini(&p);
    cli_call_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(an_empty_table_prints_nothing_and_empty_json_an_array),
        cmocka_unit_test(sorting_puts_unknown_last_both_ways),
        cmocka_unit_test(filters_choose_rows),
        cmocka_unit_test(columns_are_chosen_added_and_taken_away),
        cmocka_unit_test(csv_is_raw_and_quoted),
        cmocka_unit_test(json_nests_and_columns_cut_it_down),
        cmocka_unit_test(list_shows_what_is_known_one_block_an_object),
        cmocka_unit_test(wide_adds_columns_that_have_a_value),
        cmocka_unit_test(columns_help_lists_them),
        cmocka_unit_test(unknown_columns_are_refused),
        cmocka_unit_test(text_from_outside_cannot_steer_the_terminal),
        cmocka_unit_test(names_are_cut_in_the_middle),
        cmocka_unit_test(errors_have_one_form),
        cmocka_unit_test(questions_need_somebody_to_answer),
        cmocka_unit_test(streams_print_as_they_go),
    };
    return cmocka_run_group_tests_name("cli/output", tests, make_rows, drop_rows);
}
