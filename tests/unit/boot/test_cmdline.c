/* The command line the guest gets. */
#include "hv/boot/loader.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void check(const char *user, const char *want)
{
    char *got = NULL;
    assert_int_equal(cmdline_build(user, 2047, &got, NULL), 0);
    assert_string_equal(got, want);
    free(got);
}

#define ON "memhp_default_state=online"

static void test_online_is_added(void **state)
{
    check("", ON);
    check("console=ttyS0", "console=ttyS0 " ON);
    check("console=ttyS0 ", "console=ttyS0 " ON);
    check("quiet -- single", "quiet " ON " -- single");
    check("-- single", ON " -- single");
    check("quiet --", "quiet " ON " --");
    check("a=\"x -- y\" b", "a=\"x -- y\" b " ON);                   /* quoted: not the end of the options */
    check("x" ON, "x" ON " " ON);                                     /* another word */
    check("dyndbg=\"" ON "\"", "dyndbg=\"" ON "\" " ON);
    check("a--b", "a--b " ON);
    check("-- " ON, ON " -- " ON);                                    /* init's word, not the kernel's */
}

static void test_user_rules(void **state)
{
    check("memhp_default_state=offline", "memhp_default_state=offline");
    check("quiet memhp_default_state=online_movable -- x", "quiet memhp_default_state=online_movable -- x");
    check("\tmemhp_default_state=online\n", "\tmemhp_default_state=online\n");
}

static void test_length(void **state)
{
    char line[2100];
    char *got = NULL;
    struct hv_error e = { 0 };

    memset(line, 'x', sizeof(line));
    line[2047 - sizeof(" " ON) + 1] = '\0';
    assert_int_equal(cmdline_build(line, 2047, &got, &e), 0);
    assert_int_equal(strlen(got), 2047);
    free(got);
    line[2047 - sizeof(" " ON) + 1] = 'x';
    line[2047 - sizeof(" " ON) + 2] = '\0';
    got = NULL;
    assert_int_equal(cmdline_build(line, 2047, &got, &e), -EINVAL);
    assert_null(got);
    assert_int_equal(e.code, HV_USAGE);
    assert_string_equal(e.object, "cmdline");
    assert_string_equal(e.message, "has 2048 bytes with " ON ", this kernel takes 2047");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_online_is_added), cmocka_unit_test(test_user_rules),
        cmocka_unit_test(test_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
