/* struct hv_error: codes, words, errno, and texts that cannot harm a terminal. */
#include "hv/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

static void fail_fills_and_returns_the_errno(void **state)
{
    struct hv_error e = { .hint = "old" };

    assert_int_equal(hv_fail(&e, HV_NOT_FOUND, "wbe1", "no such %s", "VM"), -ENOENT);
    assert_int_equal(e.code, HV_NOT_FOUND);
    assert_string_equal(e.object, "wbe1");
    assert_string_equal(e.message, "no such VM");
    assert_string_equal(e.hint, "");
    hv_hint(&e, "%s", "web1");
    assert_string_equal(e.hint, "web1");
    assert_true(hv_error_is_set(&e));
    hv_error_clear(&e);
    assert_false(hv_error_is_set(&e));
    assert_string_equal(e.message, "");
}

static void a_null_error_still_gives_the_errno(void **state)
{
    assert_int_equal(hv_fail(NULL, HV_CONFLICT, "x", "y"), -EBUSY);
    assert_int_equal(hv_fail_errno(NULL, ENOSPC, "x", "y"), -ENOSPC);
    hv_hint(NULL, "x");
    hv_error_clear(NULL);
    assert_false(hv_error_is_set(NULL));
}

static void every_code_has_word_and_errno(void **state)
{
    static const struct { enum hv_code code; int exit; const char *word; int err; } rows[] = {
        { HV_FAILED, 1, "failed", EIO }, { HV_USAGE, 2, "usage", EINVAL },
        { HV_NOT_FOUND, 3, "not-found", ENOENT }, { HV_CONFLICT, 4, "conflict", EBUSY },
        { HV_DENIED, 5, "denied", EACCES }, { HV_UNREACHABLE, 6, "unreachable", ECONNREFUSED },
        { HV_TIMEOUT, 7, "timeout", ETIMEDOUT }, { HV_NO_RESOURCES, 8, "no-resources", ENOMEM },
        { HV_UNSUPPORTED, 9, "unsupported", EOPNOTSUPP }, { HV_PARTIAL, 10, "partial", EIO },
        { HV_DIFFERS, 11, "differs", EIO },
    };

    assert_int_equal(ARRAY_SIZE(rows) + 1, HV_CODE_COUNT);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(rows[i].code, rows[i].exit);
        assert_string_equal(hv_code_word(rows[i].code), rows[i].word);
        assert_int_equal(hv_code_from_word(rows[i].word), rows[i].code);
        assert_int_equal(hv_fail(NULL, rows[i].code, NULL, "x"), -rows[i].err);
        /* an errno comes back as the code it was made from, where one code owns it */
        if (rows[i].err != EIO) {
            assert_int_equal(hv_code_from_errno(rows[i].err), rows[i].code);
        }
    }
    assert_string_equal(hv_code_word(HV_OK), "ok");
    assert_string_equal(hv_code_word((enum hv_code)99), "failed");
    assert_int_equal(hv_code_from_word("no such word"), HV_FAILED);
    assert_int_equal(hv_code_from_word(NULL), HV_FAILED);
    assert_int_equal(hv_code_from_errno(0), HV_OK);
    assert_int_equal(hv_code_from_errno(EIO), HV_FAILED);
    assert_int_equal(hv_code_from_errno(EPERM), HV_DENIED);
    assert_int_equal(hv_code_from_errno(EXDEV), HV_FAILED);
}

static void errno_errors_say_why(void **state)
{
    struct hv_error e;

    assert_int_equal(hv_fail_errno(&e, ENOENT, "/x/y", "cannot open"), -ENOENT);
    assert_int_equal(e.code, HV_NOT_FOUND);
    assert_string_equal(e.message, "cannot open: No such file or directory");
    assert_int_equal(hv_fail_errno(&e, EINVAL, NULL, "mmap"), -EINVAL);
    assert_int_equal(e.code, HV_FAILED);   /* the kernel's EINVAL is not the operator's usage */
    assert_int_equal(hv_fail_errno(&e, 0, NULL, "x"), -EIO);
    assert_int_equal(e.code, HV_FAILED);
}

static void texts_are_cleaned(void **state)
{
    struct hv_error e;

    hv_fail(&e, HV_FAILED, "a\033[2Jb\nc", "x\177y\xc2\x9bz\xff \xc0\x80 \xed\xa0\x80 ok \xc3\xa4 \xf0\x9f\x90\xa7");
    assert_string_equal(e.object, "a?[2Jb?c");
    assert_string_equal(e.message, "x?y??z? ?? ??? ok \xc3\xa4 \xf0\x9f\x90\xa7");
}

static void long_texts_are_cut_between_characters(void **state)
{
    struct hv_error e;
    char name[400];

    for (unsigned lead = 0; lead < 4; lead++) {
        memset(name, 'x', lead);
        for (size_t i = lead; i + 4 < sizeof(name); i += 4) {
            memcpy(name + i, "\xf0\x9f\x90\xa7", 5);
        }
        hv_fail(&e, HV_FAILED, name, "m");
        size_t len = strlen(e.object);
        assert_true(len < sizeof(e.object) && len > sizeof(e.object) - 5);
        assert_int_equal((len - lead) % 4, 0);
        assert_null(strchr(e.object, '?'));
    }
}

static void arguments_may_come_from_the_error_itself(void **state)
{
    struct hv_error e;

    hv_fail(&e, HV_NOT_FOUND, "web1", "no such VM");
    hv_fail(&e, HV_PARTIAL, e.object, "wrapped: %s", e.message);
    assert_string_equal(e.object, "web1");
    assert_string_equal(e.message, "wrapped: no such VM");
    assert_int_equal(e.code, HV_PARTIAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_fills_and_returns_the_errno),
        cmocka_unit_test(a_null_error_still_gives_the_errno),
        cmocka_unit_test(every_code_has_word_and_errno),
        cmocka_unit_test(errno_errors_say_why),
        cmocka_unit_test(texts_are_cleaned),
        cmocka_unit_test(long_texts_are_cut_between_characters),
        cmocka_unit_test(arguments_may_come_from_the_error_itself),
    };
    return cmocka_run_group_tests_name("base/error", tests, NULL, NULL);
}
