/* The command tables of all tools, together: an option has one meaning and one type wherever it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "hv/cli/call.h"

extern const struct cli_tool hvctl_tool, hvtop_tool, vhdtool;

static void the_tables_of_the_three_tools_agree(void **state)
{
    static const struct cli_tool *const tools[] = {&hvctl_tool, &vhdtool, &hvtop_tool};
    unsigned commands = 0;
    for (unsigned t = 0; t < ARRAY_SIZE(tools); t++)
        for (const struct cli_noun *n = tools[t]->nouns; n->name; n++)
            for (const struct cli_command *c = n->commands; c && c->noun; c++)
                commands++;
    assert_true(commands > 50);                 /* these are the tables */
    assert_int_equal(cli_table_check(tools, ARRAY_SIZE(tools), stderr), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_tables_of_the_three_tools_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
