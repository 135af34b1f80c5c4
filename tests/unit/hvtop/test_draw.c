/* The pure parts of drawing: cells, bars, sparklines, graphs, layouts, short numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <locale.h>
#include <math.h>

#include "hv/base/units.h"
#include "hvtop/columns.h"
#include "hvtop/draw.h"

static struct canvas c;

static int set_up(void **state)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    return canvas_resize(&c, 40, 6);
}

static int tear_down(void **state)
{
    canvas_fini(&c);
    return 0;
}

static void expect_row(int y, const char *want)
{
    char *text = canvas_row_text(&c, y);
    assert_string_equal(text, want);
    free(text);
}

static void text_cannot_steer(void **state)
{
    assert_int_equal(canvas_text(&c, 0, 0, -1, STYLE_NORMAL, "a\033[2Jb\nc\xff\xe2\x80\xae" "d\xc2\x9b"), 12);
    expect_row(0, "a?[2Jb?c??d?");
}

static void wide_and_combining(void **state)
{
    assert_int_equal(canvas_text(&c, 0, 0, 5, STYLE_NORMAL, "\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2"), 4);    /* a third does not fit into 5 */
    expect_row(0, "\xe6\xbc\xa2\xe5\xad\x97");
    canvas_put(&c, 0, 1, 'x', STYLE_NORMAL);             /* over a right half: the left one goes */
    expect_row(0, " x\xe5\xad\x97");
    canvas_put(&c, 0, 2, 'y', STYLE_NORMAL);             /* over a left half: the right one goes */
    expect_row(0, " xy");
    canvas_text(&c, 1, 0, -1, STYLE_NORMAL, "e\xcc\x81" "a");
    expect_row(1, "ea");
    c.ascii = true;
    canvas_text(&c, 2, 0, -1, STYLE_NORMAL, "\xc3\xa4o");
    expect_row(2, "?o");
    c.ascii = false;
}

static void outside_is_nothing(void **state)
{
    canvas_text(&c, -1, 0, -1, STYLE_NORMAL, "x");
    canvas_text(&c, 6, 0, -1, STYLE_NORMAL, "x");
    canvas_text(&c, 0, 38, -1, STYLE_NORMAL, "abcdef");
    canvas_put(&c, 0, 40, 'x', STYLE_NORMAL);
    canvas_put(&c, 5, -1, 'x', STYLE_NORMAL);
    expect_row(0, "                                      ab");
    expect_row(5, "");
}

static void bars(void **state)
{
    c.ascii = true;
    const struct draw_part two[] = {{25, 'R', 0, STYLE_ROOT}, {50, '#', 0, STYLE_ASSIGNED}};
    draw_bar(&c, 0, 0, 22, 100, two, 2);
    expect_row(0, "[RRRRR##########.....]");
    const struct draw_part crumb[] = {{0.01, 'R', 0, STYLE_ROOT}, {0.01, '#', 0, STYLE_ASSIGNED}};
    draw_bar(&c, 1, 0, 12, 100, crumb, 2);
    expect_row(1, "[R#........]");                       /* there is there */
    const struct draw_part much[] = {{80, 'R', 0, STYLE_ROOT}, {500, '#', 0, STYLE_ASSIGNED}};
    draw_bar(&c, 2, 0, 12, 100, much, 2);
    expect_row(2, "[RRRRRRRR##]");
    const struct draw_part none[] = {{NAN, 'R', 0, STYLE_ROOT}, {-3, '#', 0, STYLE_ASSIGNED}};
    draw_bar(&c, 3, 0, 6, 0, none, 2);
    expect_row(3, "[....]");
    c.ascii = false;
}

static void sparks(void **state)
{
    const double v[] = {0, NAN, 50, 100, 200, -5};
    c.ascii = true;
    draw_spark(&c, 0, 0, v, 6, 0, 100, STYLE_NORMAL);
    expect_row(0, ". +@@.");
    c.ascii = false;
    draw_spark(&c, 1, 0, v, 6, 0, 100, STYLE_NORMAL);
    expect_row(1, "\xe2\x96\x81 \xe2\x96\x85\xe2\x96\x88\xe2\x96\x88\xe2\x96\x81");
}

static void axes(void **state)
{
    static const struct { double max, end; } t[] = {
        {0, 64 * MIB}, {64 * MIB, 64 * MIB}, {64 * MIB + 1, 96 * MIB}, {3.1 * GIB, 4 * GIB}, {4.1 * GIB, 6 * GIB}, {12 * GIB, 12 * GIB},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        assert_true(draw_axis_end(t[i].max, 64 * MIB) == t[i].end);
    }
    assert_true(draw_axis_end(INFINITY, 1) == 1e18);
    assert_true(draw_axis_end(NAN, 1) == 1e18);
}

static void graphs(void **state)
{
    const double fill[] = {0, 25, 50, 100, NAN, 1}, line[] = {NAN, 50, 50, 75, 100, 200};
    c.ascii = true;
    draw_graph(&c, 0, 0, 6, 4, 100, fill, line, STYLE_NORMAL);
    expect_row(0, "   #oo");
    expect_row(1, "   o");
    expect_row(2, " oo#");
    expect_row(3, " ### #");
    c.ascii = false;
    canvas_clear(&c);
    const double half[] = {12.5}, nothing[] = {NAN};
    draw_graph(&c, 0, 0, 1, 4, 100, half, nothing, STYLE_NORMAL);
    expect_row(3, "\xe2\x96\x84");
}

static void short_numbers(void **state)
{
    char b[32];
    assert_string_equal(draw_size(NAN, b, sizeof(b)), "-");
    assert_string_equal(draw_size(-1, b, sizeof(b)), "-");
    assert_string_equal(draw_size(6.5 * GIB, b, sizeof(b)), "6.5G");
    assert_string_equal(draw_age(NAN, b, sizeof(b)), "-");
    assert_string_equal(draw_age(11520, b, sizeof(b)), "3h 12m");
    assert_string_equal(draw_ago(0, b, sizeof(b)), "-0s");
    assert_string_equal(draw_ago(220000, b, sizeof(b)), "-3m40s");
    assert_string_equal(draw_ago(300000, b, sizeof(b)), "-5m");
    assert_string_equal(draw_ago(86400000, b, sizeof(b)), "-24h");
    assert_string_equal(draw_ago(3660000, b, sizeof(b)), "-1h01m");
}

/* Every width shows something, nothing overlaps, nothing is beyond the edge, and the name goes last. */
static void layouts_fit(void **state)
{
    for (int w = 1; w <= 220; w++) {
        for (int name = 1; name < 60; name += 7) {
            struct top_layout l;
            top_layout(&l, top_table_memory.columns, 3, w, name, w % 2);
            assert_true(l.n >= 1);
            bool has_name = false;
            for (unsigned i = 0; i < l.n; i++) {
                assert_true(l.at[i].width >= 1);
                assert_true(w <= 4 || l.at[i].x + l.at[i].width <= w);
                assert_true(i == 0 || l.at[i].x >= l.at[i - 1].x + l.at[i - 1].width);
                has_name = has_name || strcmp(l.at[i].col->key, "name") == 0;
            }
            assert_true(has_name);
        }
    }
}

static void layouts_keep_what_matters(void **state)
{
    struct top_layout l;
    top_layout(&l, top_table_memory.columns, 3, 80, 9, false);
    static const char *const want[] = {"name", "assigned", "demand", "buffer_now_pct", "status", "min", "max", "priority", "trend", "cpu_pct"};
    assert_int_equal(l.n, ARRAY_SIZE(want));
    for (unsigned i = 0; i < l.n; i++) {
        assert_string_equal(l.at[i].col->key, want[i]);
    }
    assert_int_equal(l.at[9].x + l.at[9].width, 80);
    top_layout(&l, top_table_memory.columns, 3, 40, 9, false);
    assert_int_equal(l.n, 3);
    assert_string_equal(l.at[2].col->key, "status");
}

static void something_is_shown(void **state)
{
    struct top_layout l;
    static const char *const keys[] = {"", ",", "host", "nope"};
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        top_layout(&l, keys[i], 3, 80, 9, false);
        assert_int_equal(l.n, 1);
        assert_string_equal(l.at[0].col->key, "name");
    }
}

static void lists_of_columns(void **state)
{
    char *keys = hv_strdup("name,status");
    struct hv_error e = {0};
    assert_int_equal(top_choose(&keys, "+cpu_pct,-status", &e), 0);
    assert_string_equal(keys, "name,cpu_pct");
    assert_int_equal(top_choose(&keys, "max,min", &e), 0);
    assert_string_equal(keys, "max,min");
    assert_true(top_choose(&keys, "+nope", &e) < 0);
    assert_string_equal(e.object, "nope");
    assert_string_equal(keys, "max,min");
    assert_true(top_has(keys, "min") && !top_has(keys, "mi"));
    free(keys);
}

static void every_column_has_a_look(void **state)
{
    for (const struct cli_column *col = top_columns.col; col->key; col++) {
        assert_string_equal(top_look(col->key)->key, col->key);
        assert_non_null(col->help);
    }
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(text_cannot_steer), T(wide_and_combining), T(outside_is_nothing), T(bars), T(sparks), T(axes), T(graphs), T(short_numbers),
        T(layouts_fit), T(layouts_keep_what_matters), T(something_is_shown), T(lists_of_columns), T(every_column_has_a_look),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
