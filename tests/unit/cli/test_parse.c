/* The parser: commands, options, values, and the exact words of its errors. */
#include "cli_sample.h"

static struct cli_call c;
static struct hv_error e;

static int clear_environment(void **state)
{
    unsetenv("HV_HOST");
    unsetenv("HV_OUTPUT");
    unsetenv("HV_TIMEOUT");
    return 0;
}

#define REFUSED(exit, text, tip, ...)                    \
    do {                                                 \
        assert_true(PARSE(&c, &e, __VA_ARGS__) < 0);     \
        assert_int_equal(e.code, exit);                  \
        assert_string_equal(sentence(), text);           \
        assert_string_equal(e.hint, tip);                \
        cli_call_fini(&c);                               \
    } while (0)

static const char *sentence(void)
{
    static char buf[700];
    snprintf(buf, sizeof(buf), "%s%s%s", e.object, e.object[0] ? ": " : "", e.message);
    return buf;
}

static void commands_are_found(void **state)
{
    static const struct { const char *words[4]; const char *noun, *verb; } t[] = {
        {{"vm", "start", "a"}, "vm", "start"}, {{"start", "a"}, "vm", "start"},
        {{"vm"}, "vm", "list"},                {{"memory"}, "memory", "list"},
        {{"mem", "show", "a"}, "memory", "show"}, {{"memory", "web1"}, "memory", "show"},
        {{"events"}, "events", NULL},          {{"-q", "list"}, "vm", "list"},
        {{"vm", "-q", "list"}, "vm", "list"},  {{"-H", "user", "list"}, "vm", "list"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        assert_int_equal(sample_parse(&c, &e, t[i].words), 0);
        assert_string_equal(c.cmd->noun, t[i].noun);
        if (t[i].verb) {
            assert_string_equal(c.cmd->verb, t[i].verb);
        } else {
            assert_null(c.cmd->verb);
        }
        cli_call_fini(&c);
    }
}

static void options_may_stand_anywhere(void **state)
{
    assert_int_equal(PARSE(&c, &e, "vm", "set", "--max", "8G", "a", "--priority=7", "b", "--", "--c"), 0);
    assert_int_equal(c.n_args, 3);
    assert_string_equal(c.args[2], "--c");
    assert_int_equal(cli_number(&c, "max", 0), 8 * GIB);
    assert_int_equal(cli_number(&c, "priority", 0), 7);
    cli_call_fini(&c);
    /* "--" before the noun ends options, not commands. */
    assert_int_equal(PARSE(&c, &e, "list", "-o", "json", "-s", "-demand"), 0);
    assert_int_equal(c.format, CLI_FMT_JSON);
    assert_string_equal(c.sort, "-demand");
    cli_call_fini(&c);
}

static void letters_cluster_and_take_values(void **state)
{
    assert_int_equal(PARSE(&c, &e, "list", "-qvvojson", "-n3"), 0);
    assert_true(c.quiet);
    assert_int_equal(c.verbose, 2);
    assert_int_equal(c.format, CLI_FMT_JSON);
    assert_int_equal(c.count, 3);
    cli_call_fini(&c);
}

static void the_last_of_an_option_counts_and_repeats_add_up(void **state)
{
    assert_int_equal(PARSE(&c, &e, "create", "n", "--tag", "a", "--memory", "1G", "--tag=b", "--memory", "2G"), 0);
    assert_int_equal(cli_number(&c, "memory", 0), 2 * GIB);
    assert_string_equal(cli_opt_nth(&c, "tag", 0)->text, "a");
    assert_string_equal(cli_opt_nth(&c, "tag", 1)->text, "b");
    assert_null(cli_opt_nth(&c, "tag", 2));
    cli_call_fini(&c);
}

static void wait_takes_its_value_only_after_an_equals_sign(void **state)
{
    assert_int_equal(PARSE(&c, &e, "start", "a", "--wait", "ip"), 0);
    assert_int_equal(c.n_args, 2);
    assert_null(cli_opt(&c, "wait")->text);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "start", "a", "--wait=ip"), 0);
    assert_string_equal(cli_text(&c, "wait", ""), "ip");
    cli_call_fini(&c);
}

static void values_are_checked_by_type(void **state)
{
    assert_int_equal(PARSE(&c, &e, "set", "a", "--max", "-512M"), 0);
    assert_int_equal(cli_opt(&c, "max")->sign, -1);
    assert_int_equal(cli_number(&c, "max", 0), 512 * MIB);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "create", "a", "--key", "^]"), 0);
    assert_int_equal(cli_number(&c, "key", 0), 0x1d);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "create", "a", "--key=none"), 0);
    assert_int_equal(cli_number(&c, "key", 1), 0);
    cli_call_fini(&c);
    REFUSED(HV_USAGE, "--max 2048: a size needs a unit", "--max 2048M", "set", "a", "--max", "2048");
    assert_true(PARSE(&c, &e, "set", "a", "--priority", "101") < 0);
    assert_int_equal(e.code, HV_USAGE);
    cli_call_fini(&c);
    REFUSED(HV_USAGE, "--engine sfot: no such value", "--engine soft", "create", "a", "--engine", "sfot");
    REFUSED(HV_USAGE, "--key ^ab: not a key", "--key '^]', --key '^A', --key none", "create", "a", "--key", "^ab");
    assert_true(PARSE(&c, &e, "create", "a", "--until", "(") < 0);
    assert_int_equal(e.code, HV_USAGE);
    cli_call_fini(&c);
    assert_true(PARSE(&c, &e, "set", "a", "--dynamic", "maybe") < 0);
    cli_call_fini(&c);
}

static void errors_say_what_to_try(void **state)
{
    REFUSED(HV_USAGE, "there is no 'vm strat'", "start", "vm", "strat", "a");
    REFUSED(HV_USAGE, "there is no 'strat'", "start", "strat", "a");
    REFUSED(HV_USAGE, "there is no 'frobnicate'", "x --help", "frobnicate");
    REFUSED(HV_USAGE, "'vm start' has no --memory", "x vm set a --max 4G", "vm", "start", "a", "--memory", "4G");
    REFUSED(HV_USAGE, "'vm start' has no --memory", "x vm set a --max 4G", "start", "a", "--memory=4G");
    REFUSED(HV_USAGE, "'vm set' has no --prioriti", "--priority", "set", "a", "--prioriti", "4");
    REFUSED(HV_USAGE, "'vm set' has no -z", "", "set", "a", "-z");
    REFUSED(HV_USAGE, "there is no 'memory shwo'", "show", "memory", "shwo", "a", "--zzzz");
    REFUSED(HV_USAGE, "--max: a value is missing", "--max SIZE", "set", "a", "--max");
    REFUSED(HV_USAGE, "-o: a value is missing", "-o FORMAT", "list", "-o");
    REFUSED(HV_USAGE, "--quiet: takes no value", "", "list", "--quiet=1");
    REFUSED(HV_USAGE, "'vm start' needs a VM", "x vm start VM, or --all", "start");
    REFUSED(HV_USAGE, "'vm create' needs a NAME", "x vm create NAME", "create", "--memory", "1G");
    REFUSED(HV_USAGE, "'vm create' takes 1 argument: 'b' is one too many", "", "create", "a", "b");
    REFUSED(HV_USAGE, "'events' takes no arguments: 'b' is one too many", "", "events", "b");
    REFUSED(HV_USAGE, "'vm start': names and --all exclude each other", "", "start", "a", "--all");
    REFUSED(HV_USAGE, "there is no option --frob", "", "--frob");
}

static void what_is_later_says_so_with_exit_9(void **state)
{
    REFUSED(HV_UNSUPPORTED, "checkpoint: not in this version", "man y", "checkpoint", "create", "a");
    REFUSED(HV_UNSUPPORTED, "snapshot: not in this version", "man y", "snapshot");
    REFUSED(HV_UNSUPPORTED, "vm save: not in this version", "man y", "vm", "save", "a");
    REFUSED(HV_UNSUPPORTED, "vm save: not in this version", "man y", "save", "a");
    REFUSED(HV_UNSUPPORTED, "--disk: not in this version", "man y", "set", "a", "--disk", "d");
    REFUSED(HV_UNSUPPORTED, "--engine kvm: not in this version", "man y", "create", "a", "--engine", "kvm");
}

static void all_stands_in_for_names(void **state)
{
    assert_int_equal(PARSE(&c, &e, "start", "-a", "--jobs", "9"), 0);
    assert_true(c.all);
    assert_int_equal(c.jobs, 9);
    cli_call_fini(&c);
}

static void help_wins_over_what_follows_it(void **state)
{
    assert_int_equal(PARSE(&c, &e, "set", "--help", "--nonsense"), 0);
    assert_int_equal(c.want_help, CLI_HELP_COMMAND);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "vm", "-h"), 0);
    assert_int_equal(c.want_help, CLI_HELP_NOUN);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "-h"), 0);
    assert_int_equal(c.want_help, CLI_HELP_TOOL);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "-V"), 0);
    assert_int_equal(c.want_help, CLI_HELP_VERSION);
    cli_call_fini(&c);
}

static void the_environment_sets_defaults(void **state)
{
    setenv("HV_OUTPUT", "csv", 1);
    setenv("HV_HOST", "user", 1);
    setenv("HV_TIMEOUT", "3s", 1);
    assert_int_equal(PARSE(&c, &e, "list"), 0);
    assert_int_equal(c.format, CLI_FMT_CSV);
    assert_string_equal(c.host, "user");
    assert_int_equal(c.timeout_ns, 3 * NS_PER_SEC);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "list", "-o", "json", "-H", "system"), 0);
    assert_int_equal(c.format, CLI_FMT_JSON);
    assert_string_equal(c.host, "system");
    cli_call_fini(&c);
    setenv("HV_OUTPUT", "cvs", 1);
    assert_true(PARSE(&c, &e, "list") < 0);
    cli_call_fini(&c);
    clear_environment(NULL);
}

static void a_bad_option_still_fails_in_json(void **state)
{
    assert_true(PARSE(&c, &e, "list", "--nonsense", "-o", "json") < 0);
    assert_int_equal(c.format, CLI_FMT_JSON);
    cli_call_fini(&c);
}

static void settings_come_from_options(void **state)
{
    assert_int_equal(PARSE(&c, &e, "create", "a", "--memory", "1G", "--kernel", "/k", "--engine", "soft"), 0);
    json_t *j = cli_settings(&c, &e);
    json_t *want = json_pack("{s:{s:I},s:{s:s},s:s}", "memory", "startup", (json_int_t)GIB, "boot", "kernel", "/k",
                             "engine", "soft");
    assert_true(json_equal(j, want));
    json_decref(j);
    json_decref(want);
    cli_call_fini(&c);

    /* A relative size is the caller's to work out; default is null; paths become absolute. */
    assert_int_equal(PARSE(&c, &e, "set", "a", "--max", "+1G", "--dynamic", "on"), 0);
    j = cli_settings(&c, &e);
    want = json_pack("{s:{s:b}}", "memory", "dynamic", 1);
    assert_true(json_equal(j, want));
    json_decref(j);
    json_decref(want);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "set", "a", "--max", "default"), 0);
    j = cli_settings(&c, &e);
    assert_true(json_is_null(cli_json_path(j, "memory.max")));
    json_decref(j);
    cli_call_fini(&c);
    assert_int_equal(PARSE(&c, &e, "create", "a", "--kernel", "./k"), 0);
    j = cli_settings(&c, &e);
    const char *path = json_string_value(cli_json_path(j, "boot.kernel"));
    assert_true(path[0] == '/' && strcmp(path + strlen(path) - 2, "/k") == 0 && !strstr(path, "./"));
    json_decref(j);
    cli_call_fini(&c);
}

static void too_many_options_are_refused(void **state)
{
    static char *argv[2 * CLI_MAX_VALUES + 8];
    int argc = 0;
    argv[argc++] = (char *)"x";
    argv[argc++] = (char *)"create";
    argv[argc++] = (char *)"a";
    for (int i = 0; i <= CLI_MAX_VALUES; i++) {
        argv[argc++] = (char *)"--tag=t";
    }
    cli_call_init(&c, &sample_tool);
    assert_true(cli_parse(&c, argc, argv, &e) < 0);
    assert_int_equal(e.code, HV_USAGE);
    cli_call_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_found),
        cmocka_unit_test(options_may_stand_anywhere),
        cmocka_unit_test(letters_cluster_and_take_values),
        cmocka_unit_test(the_last_of_an_option_counts_and_repeats_add_up),
        cmocka_unit_test(wait_takes_its_value_only_after_an_equals_sign),
        cmocka_unit_test(values_are_checked_by_type),
        cmocka_unit_test(errors_say_what_to_try),
        cmocka_unit_test(what_is_later_says_so_with_exit_9),
        cmocka_unit_test(all_stands_in_for_names),
        cmocka_unit_test(help_wins_over_what_follows_it),
        cmocka_unit_test(the_environment_sets_defaults),
        cmocka_unit_test(a_bad_option_still_fails_in_json),
        cmocka_unit_test(settings_come_from_options),
        cmocka_unit_test(too_many_options_are_refused),
    };
    return cmocka_run_group_tests_name("cli/parse", tests, clear_environment, NULL);
}
