/* rows: a value again, as its numbers alone; and rows from outside that do not fit. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hv/rpc/rows.h"

static json_t *json(const char *text)
{
    json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    return v;
}

/* Sender and receiver: what comes whole is kept, what comes as a row is put in. Returns whether it was a row. */
static bool pass(json_t **sent, struct rows *kept, const char *text)
{
    json_t *v = json(text), *row = rows_since(sent, v);
    if (row) {
        assert_int_equal(rows_put(kept, row), 0);
    } else {
        json_t *copy = json_deep_copy(v);
        assert_int_equal(rows_begin(kept, copy), 0);
        json_decref(copy);
    }
    assert_true(json_equal(kept->value, v));
    bool was_row = row != NULL;
    json_decref(row);
    json_decref(v);
    return was_row;
}

static void numbers_go_alone(void **state)
{
    json_t *sent = NULL;
    struct rows kept = {0};
    assert_false(pass(&sent, &kept, "{\"a\":1,\"b\":{\"c\":[2,3],\"d\":\"x\"},\"e\":null}"));
    assert_true(pass(&sent, &kept, "{\"a\":10,\"b\":{\"c\":[20,-30],\"d\":\"x\"},\"e\":null}"));
    assert_true(pass(&sent, &kept, "{\"a\":9223372036854775807,\"b\":{\"c\":[0,0],\"d\":\"x\"},\"e\":null}"));
    json_decref(sent);
    rows_fini(&kept);
}

static void all_else_goes_whole(void **state)
{
    static const char *const values[] = {
        "{\"a\":1,\"b\":\"x\"}", "{\"a\":1,\"b\":\"y\"}",       "{\"a\":null,\"b\":\"y\"}", "{\"a\":1,\"b\":\"y\"}",
        "{\"a\":1.5,\"b\":\"y\"}", "{\"a\":2.5,\"b\":\"y\"}",   "{\"a\":true,\"b\":\"y\"}", "{\"a\":false,\"b\":\"y\"}",
        "{\"b\":\"y\",\"a\":false}", "{\"b\":\"y\"}",           "{\"b\":\"y\",\"c\":[1]}",  "{\"b\":\"y\",\"c\":[1,2]}",
        "{\"b\":\"y\",\"c\":[1,[2]]}", "{\"b\":\"y\",\"d\":[1,[2]]}", "[1]", "{}", "{\"a\":{\"b\":1}}", "{\"a\":{\"c\":1}}",
    };
    json_t *sent = NULL;
    struct rows kept = {0};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        assert_false(pass(&sent, &kept, values[i]));
    json_decref(sent);
    rows_fini(&kept);
}

static void too_deep_goes_whole(void **state)
{
    const char *deep = "[[[[[[[[[[1]]]]]]]]]]";
    json_t *sent = NULL;
    struct rows kept = {0};
    assert_false(pass(&sent, &kept, deep));
    assert_false(pass(&sent, &kept, deep));
    json_decref(sent);
    rows_fini(&kept);
}

/* After a whole one the next row is of that one, whatever was before. */
static void the_last_whole_one_counts(void **state)
{
    json_t *sent = NULL;
    struct rows kept = {0};
    assert_false(pass(&sent, &kept, "{\"a\":1}"));
    assert_true(pass(&sent, &kept, "{\"a\":2}"));
    assert_false(pass(&sent, &kept, "{\"a\":2,\"b\":3}"));
    assert_true(pass(&sent, &kept, "{\"a\":4,\"b\":5}"));
    assert_false(pass(&sent, &kept, "{\"a\":4}"));
    json_decref(sent);
    rows_fini(&kept);
}

static void a_row_that_does_not_fit_changes_nothing(void **state)
{
    static const char *const rows[] = {"[]", "[1]", "[1,2,3]", "[1,\"2\"]", "[1,2.0]", "[1,null]", "{\"a\":1}", "7"};
    json_t *v = json("{\"a\":1,\"b\":[2,\"x\"]}"), *was = json_deep_copy(v), *fits = json("[1,2]");
    struct rows kept = {0};
    assert_int_equal(rows_put(&kept, fits), -EPROTO);       /* before anything came */
    assert_int_equal(rows_begin(&kept, v), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *row = json(rows[i]);
        assert_int_equal(rows_put(&kept, row), -EPROTO);
        assert_true(json_equal(kept.value, was));
        json_decref(row);
    }
    assert_int_equal(rows_put(&kept, NULL), -EPROTO);
    assert_int_equal(rows_put(&kept, fits), 0);
    rows_fini(&kept);
    json_decref(v);
    json_decref(was);
    json_decref(fits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_go_alone),
        cmocka_unit_test(all_else_goes_whole),
        cmocka_unit_test(too_deep_goes_whole),
        cmocka_unit_test(the_last_whole_one_counts),
        cmocka_unit_test(a_row_that_does_not_fit_changes_nothing),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
