/* hvctl's command table: sound, whole, and one meaning a word; settings keys that exist. */
#include "cli_sample.h"

#include "hv/settings/settings.h"
#include "hvctl/hvctl.h"

extern const struct cli_tool vhdtool;

static void the_tables_are_sound(void **state)
{
    const struct cli_tool *tools[] = {&hvctl_tool, &vhdtool};
    assert_int_equal(cli_table_check(tools, 1, stderr), 0);
    const struct cli_tool *sample[] = {&sample_tool};
    assert_int_equal(cli_table_check(sample, 1, stderr), 0);
}

static void the_check_finds_what_it_is_for(void **state)
{
    static const struct cli_option letters[] = {
        {.name = "odd", .letter = 'z', .type = CLI_BOOL, .help = "a letter"},
        {.name = "size", .type = CLI_SIZE, .help = "no name of its value"},
        {.name = "kind", .type = CLI_ENUM, .arg = "K", .help = "no values"},
        {.name = "quiet", .type = CLI_BOOL, .help = "is universal"},
        {.name = "max", .type = CLI_BOOL, .help = "another type elsewhere"},
        {.name = "mute", .type = CLI_BOOL, .help = "Ends with a stop."},
        {.name = "mute", .type = CLI_BOOL, .help = "twice"},
        {0},
    };
    static const struct cli_arg wrong[] = {
        {"A", CLI_STRING, CLI_OPTIONAL}, {"B", CLI_STRING, CLI_REPEAT}, {"C", CLI_STRING}, {0}};
    static const struct cli_command commands[] = {
        {.noun = "bad", .verb = "list", .help = "x", .options = letters, .args = wrong, .use = CLI_USE_LIST, .run = sample_run},
        {.noun = "vm", .verb = "list", .help = "", .run = sample_run},
        {0},
    };
    static const struct cli_noun nouns[] = {{"bad", NULL, "bad", commands, .default_verb = "none"}, {0}};
    static const struct cli_tool bad = {.name = "bad", .help = "bad", .nouns = nouns};
    const struct cli_tool *tools[] = {&bad, &sample_tool};
    /* bad: default verb, example, columns, letter, value's name, values, universal, help, twice,
     * two arguments after an optional one, one after a repeating one, a type unlike x's; vm list:
     * noun, twice, help, example; and x's own row of that type. */
    assert_int_equal(cli_table_check(tools, 2, NULL), 18);
}

static void keys_of_options_are_settings_of_a_fitting_type(void **state)
{
    for (const struct cli_noun *n = hvctl_tool.nouns; n->name; n++) {
        for (const struct cli_command *c = n->commands; c && c->noun; c++) {
            for (const struct cli_option *o = c->options; o && o->name; o++) {
                if (!o->key) {
                    continue;
                }
                const struct setting_desc *d = setting_find(o->key);
                if (!d) {
                    fail_msg("%s %s --%s: no setting %s", c->noun, c->verb, o->name, o->key);
                }
                bool fits = false;
                switch (d->type) {
                case SETTING_SIZE: fits = o->type == CLI_SIZE || o->type == CLI_SIZE_REL; break;
                case SETTING_UINT: fits = o->type == CLI_UINT; break;
                case SETTING_DURATION: fits = o->type == CLI_DURATION; break;
                case SETTING_PCT: fits = o->type == CLI_PERCENT; break;
                case SETTING_BOOL: fits = o->type == CLI_SWITCH; break;
                case SETTING_ENUM: fits = o->type == CLI_ENUM; break;
                /* a folder, or `none`, which is no path */
                case SETTING_TEXT: fits = o->type == CLI_STRING || (o->type == CLI_DIR && o->flags & CLI_NONE_VALUE); break;
                case SETTING_PATH: fits = o->type == CLI_FILE || o->type == CLI_DIR; break;
                }
                if (!fits) {
                    fail_msg("%s %s --%s: %s does not set %s", c->noun, c->verb, o->name, cli_type_word(o->type), o->key);
                }
                const char *const *names = setting_names(d);
                for (unsigned i = 0; names && names[i]; i++) {
                    if (!cli_word_in(o->values, names[i], strlen(names[i]))) {
                        fail_msg("%s %s --%s lacks the value %s", c->noun, c->verb, o->name, names[i]);
                    }
                }
                if (o->max && (o->min < d->min || o->max > d->max)) {
                    fail_msg("%s %s --%s takes more than %s does", c->noun, c->verb, o->name, o->key);
                }
            }
        }
    }
}

/* operator-surface, section 3: nothing of the grammar may be missing from the table. */
static void every_noun_of_the_grammar_is_there(void **state)
{
    static const char *const words[] = {
        "vm", "memory", "processor", "cpu", "disk", "dvd", "net", "nic", "switch", "checkpoint", "snapshot",
        "integration", "guest", "firmware", "com", "metering", "replication", "host", "wmi", "group", "job", "access",
        "events", "get", "diff", "apply", "edit", "shell", "completion", "help", "bridge",
    };
    static const char *const verbs[] = {
        "list", "show", "create", "run", "start", "stop", "restart", "pause", "resume", "save", "discard", "wait", "set",
        "rename", "remove", "clone", "export", "import", "move", "console", "screenshot", "stats", "nmi", "key",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
        if (!cli_noun_find(&hvctl_tool, words[i])) {
            fail_msg("no noun %s", words[i]);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++) {
        if (!cli_verb_find(cli_noun_find(&hvctl_tool, "vm"), verbs[i])) {
            fail_msg("no verb %s", verbs[i]);
        }
    }
}

static void default_columns_exist(void **state)
{
    for (const struct cli_noun *n = hvctl_tool.nouns; n->name; n++) {
        for (const struct cli_command *cmd = n->commands; cmd && cmd->noun; cmd++) {
            const struct cli_columns *t = cmd->columns;
            for (const char *w = t ? t->defaults : ""; *w;) {
                size_t len = strcspn(w, ",");
                assert_non_null(cli_column_find(t, w, len));
                w += len + (w[len] == ',');
            }
            if (t) {
                const char *name = t->name ? t->name : "name";
                assert_non_null(cli_column_find(t, name, strlen(name)));
            }
        }
    }
}

static void the_dump_is_json_of_everything(void **state)
{
    json_t *j = cli_dump(&hvctl_tool);
    assert_true(json_is_object(j));
    unsigned n = 0;
    while (hvctl_tool.nouns[n].name) {
        n++;
    }
    assert_int_equal(json_array_size(json_object_get(j, "nouns")), n);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tables_are_sound),
        cmocka_unit_test(the_check_finds_what_it_is_for),
        cmocka_unit_test(keys_of_options_are_settings_of_a_fitting_type),
        cmocka_unit_test(every_noun_of_the_grammar_is_there),
        cmocka_unit_test(default_columns_exist),
        cmocka_unit_test(the_dump_is_json_of_everything),
    };
    return cmocka_run_group_tests_name("cli/table", tests, NULL, NULL);
}
