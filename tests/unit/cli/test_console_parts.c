/* The console's parts that know no terminal: the escape key, and --send/--until. */
#include "cli_sample.h"

#include "hvctl/escape.h"
#include "hvctl/script.h"

#define KEY 0x1d
#define MS NS_PER_MS

static void without_the_key_everything_passes(void **state)
{
    struct escape e = {.key = KEY};
    for (unsigned b = 0; b < 256; b++) {
        if (b != KEY) {
            assert_int_equal(escape_feed(&e, (unsigned char)b, b), ESCAPE_PASS);
        }
    }
    struct escape none = {0};
    for (unsigned b = 0; b < 256; b++) {
        assert_int_equal(escape_feed(&none, (unsigned char)b, b), ESCAPE_PASS);
    }
}

static void the_key_opens_a_line_of_commands(void **state)
{
    static const struct { char key; enum escape_act act; bool open; } t[] = {
        {'q', ESCAPE_DETACH, false}, {']', ESCAPE_SEND_KEY, false}, {'l', ESCAPE_LOG, false},
        {'r', ESCAPE_RESIZE, false}, {'?', ESCAPE_HELP, true},      {'b', ESCAPE_LATER, true},
        {'s', ESCAPE_LATER, true},   {'x', ESCAPE_CLOSE, false},    {'\r', ESCAPE_CLOSE, false},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        struct escape e = {.key = KEY};
        assert_int_equal(escape_feed(&e, KEY, 0), ESCAPE_OPEN);
        assert_true(e.open);
        assert_int_equal(escape_feed(&e, (unsigned char)t[i].key, 1), t[i].act);
        assert_int_equal(e.open, t[i].open);
    }
}

static void three_presses_within_a_second_detach(void **state)
{
    struct escape e = {.key = KEY};
    assert_int_equal(escape_feed(&e, KEY, 1000 * MS), ESCAPE_OPEN);
    assert_int_equal(escape_feed(&e, KEY, 1400 * MS), ESCAPE_KEEP);
    assert_int_equal(escape_feed(&e, KEY, 1999 * MS), ESCAPE_DETACH);

    e = (struct escape){.key = KEY};
    assert_int_equal(escape_feed(&e, KEY, 1000 * MS), ESCAPE_OPEN);
    assert_int_equal(escape_feed(&e, KEY, 1400 * MS), ESCAPE_KEEP);
    assert_int_equal(escape_feed(&e, KEY, 2001 * MS), ESCAPE_KEEP);        /* too late: counts as the first */
    assert_int_equal(escape_feed(&e, KEY, 2100 * MS), ESCAPE_KEEP);
    assert_int_equal(escape_feed(&e, KEY, 2200 * MS), ESCAPE_DETACH);
}

static void another_key_between_presses_starts_over(void **state)
{
    struct escape e = {.key = KEY};
    escape_feed(&e, KEY, 0);
    escape_feed(&e, KEY, 1);
    assert_int_equal(escape_feed(&e, 'x', 2), ESCAPE_CLOSE);
    assert_int_equal(escape_feed(&e, KEY, 3), ESCAPE_OPEN);
    assert_int_equal(escape_feed(&e, 'a', 4), ESCAPE_CLOSE);
    assert_int_equal(escape_feed(&e, 'a', 5), ESCAPE_PASS);
}

/* ---- script ---- */

static struct script s;
static struct strbuf typed;

static int fresh(void **state)
{
    s = (struct script){0};
    typed = (struct strbuf){0};
    return 0;
}

static int done(void **state)
{
    script_fini(&s);
    strbuf_fini(&typed);
    return 0;
}

static void feed(const char *text)
{
    script_feed(&s, text, strlen(text), &typed);
}

static const char *sent(void)
{
    return typed.buf ? typed.buf : "";
}

static bool over(void)
{
    bool ends;
    return script_done(&s, &ends) && ends;
}

static void send_types_text_and_return(void **state)
{
    bool ends;
    script_add(&s, false, "uptime");
    script_run(&s, &typed);
    assert_string_equal(sent(), "uptime\r");
    assert_true(script_done(&s, &ends));
    assert_false(ends);
}

static void until_waits_for_a_whole_line(void **state)
{
    script_add(&s, false, "echo ok");
    script_add(&s, true, "^ok$");
    script_run(&s, &typed);
    assert_string_equal(script_pattern(&s), "^ok$");
    feed("echo ok\r\n");
    assert_false(over());
    feed("ok");
    assert_false(over());
    feed("ay\r\nok\r");
    assert_false(over());
    feed("\n");
    assert_true(over());
    assert_null(script_pattern(&s));
}

static void a_line_without_an_end_counts_when_the_guest_is_quiet(void **state)
{
    script_add(&s, true, "login: $");
    script_run(&s, &typed);
    feed("demo login: ");
    assert_false(over());
    script_quiet(&s, &typed);
    assert_true(over());
}

static void escape_sequences_are_no_text(void **state)
{
    script_add(&s, true, "^plain text$");
    script_run(&s, &typed);
    feed("\033[1;31mpl\033[0main\033]0;title\007 \033P1$r\033\\te\033=xt\r\n");
    assert_true(over());
}

static void a_sequence_may_come_in_pieces(void **state)
{
    script_add(&s, true, "^ab$");
    script_run(&s, &typed);
    feed("a\033");
    feed("[3");
    feed("1mb\n");
    assert_true(over());
}

static void steps_run_in_order_even_within_one_piece_of_output(void **state)
{
    script_add(&s, true, "login:");
    script_add(&s, false, "root");
    script_add(&s, true, "Password:");
    script_add(&s, false, "secret");
    script_add(&s, true, "# $");
    script_run(&s, &typed);
    assert_string_equal(sent(), "");
    feed("demo login:\nPassword:\n");
    assert_string_equal(sent(), "root\rsecret\r");
    assert_false(over());
    feed("demo:~# ");
    script_quiet(&s, &typed);
    assert_true(over());
}

static void what_matched_does_not_match_again(void **state)
{
    script_add(&s, true, "#");
    script_add(&s, true, "#");
    script_run(&s, &typed);
    feed("demo# ");
    script_quiet(&s, &typed);
    assert_false(over());
    script_quiet(&s, &typed);
    assert_false(over());
    feed("\ndemo# ");
    script_quiet(&s, &typed);
    assert_true(over());
}

static void an_endless_line_is_looked_at_in_pieces(void **state)
{
    script_add(&s, true, "needle");
    script_run(&s, &typed);
    for (unsigned i = 0; i < 20000; i++) {
        feed("haystack ");
    }
    assert_true(s.line.len <= 64 * KIB);
    feed("needle\n");
    assert_true(over());
}

static void too_many_steps_are_refused(void **state)
{
    for (unsigned i = 0; i < SCRIPT_MAX_STEPS; i++) {
        assert_int_equal(script_add(&s, false, "x"), 0);
    }
    assert_true(script_add(&s, false, "x") < 0);
}

#define SCRIPT_TEST(f) cmocka_unit_test_setup_teardown(f, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_key_everything_passes),
        cmocka_unit_test(the_key_opens_a_line_of_commands),
        cmocka_unit_test(three_presses_within_a_second_detach),
        cmocka_unit_test(another_key_between_presses_starts_over),
        SCRIPT_TEST(send_types_text_and_return),
        SCRIPT_TEST(until_waits_for_a_whole_line),
        SCRIPT_TEST(a_line_without_an_end_counts_when_the_guest_is_quiet),
        SCRIPT_TEST(escape_sequences_are_no_text),
        SCRIPT_TEST(a_sequence_may_come_in_pieces),
        SCRIPT_TEST(steps_run_in_order_even_within_one_piece_of_output),
        SCRIPT_TEST(what_matched_does_not_match_again),
        SCRIPT_TEST(an_endless_line_is_looked_at_in_pieces),
        SCRIPT_TEST(too_many_steps_are_refused),
    };
    return cmocka_run_group_tests_name("cli/console", tests, NULL, NULL);
}
