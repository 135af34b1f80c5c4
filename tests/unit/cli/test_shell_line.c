/* A line of the shell, taken apart and put together again. */
#include "cli_sample.h"

#include <errno.h>

#include "hvctl/shell_line.h"

static void expect_words(const char *text, unsigned n, const char *const *want)
{
    struct shell_line l;
    struct hv_error e = {0};
    assert_int_equal(shell_line_parse(text, false, &l, &e), 0);
    assert_int_equal(l.n, n);
    for (unsigned i = 0; i < n; i++) {
        assert_string_equal(l.word[i], want[i]);
    }
    shell_line_fini(&l);
}
#define WORDS(text, ...) \
    expect_words(text, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), (const char *[]){__VA_ARGS__})

static void words_and_quotes_are_as_in_sh(void **state)
{
    expect_words("", 0, NULL);
    expect_words("   # nothing", 0, NULL);
    WORDS("list", "list");
    WORDS("  show\tweb1  ", "show", "web1");
    WORDS("set web1 --notes 'ask Ann' # today", "set", "web1", "--notes", "ask Ann");
    WORDS("start a\\ b \"c \\\"d\\\" \\e\" ''", "start", "a b", "c \"d\" \\e", "");
    WORDS("a'b'\"c\"d 'x\\y' it\\'s", "abcd", "x\\y", "it's");
    WORDS("name#1 a|b --x=1>2", "name#1", "a|b", "--x=1>2");
    WORDS("stop 'web*' \\# \\| \\>", "stop", "web*", "#", "|", ">");
    WORDS("end\\", "end\\");
}

static void a_filter_needs_no_quotes(void **state)
{
    struct shell_line l;
    assert_int_equal(shell_line_parse("memory list -F demand>2G,name~^(a|b) | head -n 3 > x", false, &l, NULL), 0);
    assert_int_equal(l.n, 4);
    assert_string_equal(l.word[3], "demand>2G,name~^(a|b)");
    assert_string_equal(l.pipe, " head -n 3 > x");
    assert_null(l.file);
    shell_line_fini(&l);
}

static void output_goes_to_a_file(void **state)
{
    static const struct { const char *text, *file; bool append; unsigned n; } t[] = {
        {"list > a.csv", "a.csv", false, 1}, {"list >a.csv", "a.csv", false, 1},
        {"list >>'a b' -o csv", "a b", true, 3}, {"list > x > y", "y", false, 1},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        struct shell_line l;
        assert_int_equal(shell_line_parse(t[i].text, false, &l, NULL), 0);
        assert_string_equal(l.file, t[i].file);
        assert_int_equal(l.append, t[i].append);
        assert_int_equal(l.n, t[i].n);
        shell_line_fini(&l);
    }
}

static void a_line_may_be_all_sh(void **state)
{
    struct shell_line l;
    assert_int_equal(shell_line_parse(" !ls 'x | y", false, &l, NULL), 0);
    assert_string_equal(l.command, "ls 'x | y");
    shell_line_fini(&l);
}

static void what_is_wrong_is_refused(void **state)
{
    static const char *const bad[] = {"list 'x", "list \"x", "list >", "list > # x", "list > x | y", "| cat", "> x",
                                      "> x # y", "'"};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct shell_line l;
        struct hv_error e = {0};
        assert_int_equal(shell_line_parse(bad[i], false, &l, &e), -EINVAL);
        assert_int_equal(e.code, HV_USAGE);
        shell_line_fini(&l);
    }
    struct shell_line l;
    char many[2 * SHELL_MAX_WORDS + 3];
    for (unsigned i = 0; i < sizeof(many); i++) {
        many[i] = i % 2 ? ' ' : 'x';
    }
    many[2 * SHELL_MAX_WORDS - 1] = '\0';
    assert_int_equal(shell_line_parse(many, false, &l, NULL), 0);
    assert_int_equal(l.n, SHELL_MAX_WORDS);
    shell_line_fini(&l);
    many[2 * SHELL_MAX_WORDS - 1] = ' ';
    many[2 * SHELL_MAX_WORDS + 1] = '\0';
    assert_int_equal(shell_line_parse(many, false, &l, NULL), -EINVAL);
    shell_line_fini(&l);
}

static void a_home_folder_is_filled_in(void **state)
{
    setenv("HOME", "/home/ann", 1);
    WORDS("x ~/a '~/a' a~/b ~bob --disk=~/a", "x", "/home/ann/a", "~/a", "a~/b", "~bob", "--disk=~/a");
}

static void the_word_at_the_cursor_is_known(void **state)
{
    static const struct { const char *text, *partial; enum shell_place place; size_t at; char quote; unsigned n; } t[] = {
        {"", "", SHELL_WORD, 0, 0, 0},
        {"sta", "sta", SHELL_WORD, 0, 0, 0},
        {"start ", "", SHELL_WORD, 6, 0, 1},
        {"start we", "we", SHELL_WORD, 6, 0, 1},
        {"start a\\ ", "a ", SHELL_WORD, 6, 0, 1},
        {"start 'a b", "a b", SHELL_WORD, 6, '\'', 1},
        {"start \"a", "a", SHELL_WORD, 6, '"', 1},
        {"list > ", "", SHELL_FILE, 7, 0, 1},
        {"list >fi", "fi", SHELL_FILE, 6, 0, 1},
        {"list > fi -o ", "", SHELL_WORD, 13, 0, 2},
        {"list | gre", "", SHELL_COMMAND, 5, 0, 1},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        struct shell_line l;
        assert_int_equal(shell_line_parse(t[i].text, true, &l, NULL), 0);
        assert_string_equal(l.partial, t[i].partial);
        assert_int_equal(l.place, t[i].place);
        assert_int_equal(l.at, t[i].at);
        assert_int_equal(l.quote, t[i].quote);
        assert_int_equal(l.n, t[i].n);
        shell_line_fini(&l);
    }
}

static void lines_that_go_on(void **state)
{
    static const struct { const char *text; bool on; } t[] = {
        {"", false}, {"a", false}, {"a \\", true}, {"a \\\\", false}, {"a \\\\\\", true}, {"# a \\", false},
        {"a # b \\", false}, {"a#b \\", true}, {"\\", true}, {"list | x \\", true},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        assert_int_equal(shell_line_continues(t[i].text), t[i].on);
    }
}

/* Whatever a name is made of, what completion types means it again. */
static void quoting_survives_parsing(void **state)
{
    static const char alphabet[] = " \t\\'\"#|>?!a~";
    static const char quotes[] = {0, '\'', '"'};
    for (unsigned q = 0; q < ARRAY_SIZE(quotes); q++) {
        for (unsigned a = 0; a < 12 * 12 * 12; a++) {
            char name[4] = {alphabet[a % 12], alphabet[a / 12 % 12], alphabet[a / 144], 0};
            char quote[2] = {quotes[q], 0};
            hv_autofree char *quoted = shell_line_quote(name, quotes[q]);
            hv_autofree char *text = hv_asprintf("x %s%s%s", quote, quoted, quote);
            struct shell_line l;
            assert_int_equal(shell_line_parse(text, false, &l, NULL), 0);
            assert_int_equal(l.n, 2);
            assert_string_equal(l.word[1], name);
            shell_line_fini(&l);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_and_quotes_are_as_in_sh), cmocka_unit_test(a_filter_needs_no_quotes),
        cmocka_unit_test(output_goes_to_a_file),         cmocka_unit_test(a_line_may_be_all_sh),
        cmocka_unit_test(what_is_wrong_is_refused),      cmocka_unit_test(a_home_folder_is_filled_in),
        cmocka_unit_test(the_word_at_the_cursor_is_known), cmocka_unit_test(lines_that_go_on),
        cmocka_unit_test(quoting_survives_parsing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
