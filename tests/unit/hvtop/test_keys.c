/*
 * Every key of the table, on every screen it holds on, live and in a replay: what it did is looked at.
 * A binding whose action has no row in `checks` fails, as does a row that no binding leads to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <locale.h>

#include "hv/base/units.h"
#include "hvtop/ui.h"
#include "tests/unit/hvtop/feed.h"

#define VMS 40u

static struct ui ui, was;            /* after the key, and a copy of what it was before */
static struct canvas c;

/* VMS machines, ten samples, as many events as fill two screens. */
static void begin(unsigned screen, bool replay)
{
    static const char *const names[] = {"vmhost1"};
    model_init(&m, names, 1);
    assert_int_equal(ui_init(&ui, &m), 0);
    assert_int_equal(canvas_resize(&c, 100, 24), 0);
    c.ascii = true;
    ui.replay = replay;
    feed("{\"host\":0,\"name\":\"vmhost1\",\"columns\":[\"name\",\"state\",\"assigned\",\"demand\",\"dynamic\",\"min\",\"group\"]}");
    for (unsigned n = 0; n < 10; n++) {
        strbuf_auto rows = {0};
        for (unsigned i = 0; i < VMS; i++) {
            strbuf_addf(&rows, "%s[\"vm%02u\",\"running\",%u,%u,true,1048576,\"g%u\"]", i ? "," : "", i, 4000000 + i * 4096, 3000000 - i * 4096, i % 3);
        }
        feed("{\"host\":0,\"time_ms\":%llu,\"rows\":[%s]}", (unsigned long long)(T0 + n * 2000ull), rows.buf);
    }
    for (unsigned i = 0; i < 60; i++) {
        feed("{\"host\":0,\"time_ms\":%llu,\"event\":{\"seq\":%u,\"kind\":\"state\",\"vm\":\"vm01\",\"severity\":\"info\",\"message\":\"m%u\"}}",
             (unsigned long long)(T0 + i), i, i);
    }
    ui_draw(&ui, &c);
    if (screen == TOP_ON_LIST) {
        ui_key(&ui, '6');
        ui_draw(&ui, &c);
        ui_key(&ui, 'k');                    /* not at the end: there is a way to go in both directions */
    } else {
        ui_key(&ui, 'j');
        ui_draw(&ui, &c);
        ui_key(&ui, 'j');
    }
    ui_draw(&ui, &c);
    if (screen == TOP_ON_DETAIL) {
        ui_key(&ui, TOP_KEY_ENTER);
        ui_draw(&ui, &c);
    }
}

static void end(void)
{
    ui_fini(&ui);
    model_fini(&m);
    canvas_fini(&c);
}

static bool shows(const char *part)
{
    bool has = false;
    ui_draw(&ui, &c);
    for (int y = 0; y < c.h && !has; y++) {
        char *text = canvas_row_text(&c, y);
        has = strstr(text, part) != NULL;
        free(text);
    }
    return has;
}

/* ---- what every action does: where is one of TOP_ON_*, text what stands in the row ---- */

static bool table(unsigned where) { return where == TOP_ON_TABLE; }
static bool screen(enum ui_screen s) { return ui.screen == s && !ui.detail && ui.mode == UI_NORMAL; }

static bool does_up(unsigned w) { return table(w) ? ui.cursor == was.cursor - 1 : w == TOP_ON_LIST ? ui.list_top == was.list_top - 1 : ui.detail; }
static bool does_down(unsigned w) { return table(w) ? ui.cursor == was.cursor + 1 : w == TOP_ON_LIST ? ui.list_top == was.list_top + 1 : ui.detail; }
static bool does_page_up(unsigned w) { return table(w) ? ui.cursor == 0 : w == TOP_ON_LIST ? ui.list_top + 5 < was.list_top : ui.detail; }
static bool does_page_down(unsigned w) { return table(w) ? ui.cursor > was.cursor + 5 : w == TOP_ON_LIST ? ui.list_top > was.list_top : ui.detail; }
static bool does_first(unsigned w) { return table(w) ? ui.cursor == 0 : w == TOP_ON_LIST ? ui.list_top == 0 : ui.detail; }
static bool does_last(unsigned w) { return table(w) ? ui.cursor == VMS - 1 : w == TOP_ON_LIST ? ui.list_end : ui.detail; }
static bool does_open(unsigned w) { return ui.detail && shows("> vm02"); }
static bool does_back(unsigned w) { return !ui.detail; }
static bool does_memory_screen(unsigned w) { return screen(UI_MEMORY) && shows("[1 Memory]"); }
static bool does_cpu_screen(unsigned w) { return screen(UI_CPU) && shows("[2 CPU]"); }
static bool does_disk_screen(unsigned w) { return screen(UI_DISK) && shows("[3 Disk]"); }
static bool does_net_screen(unsigned w) { return ui.screen == was.screen && shows("networks: not in this version"); }
static bool does_host_screen(unsigned w) { return screen(UI_HOST) && shows("Balancer"); }
static bool does_events_screen(unsigned w) { return screen(UI_EVENTS) && shows("vm01: m59"); }
static bool does_next_screen(unsigned w) { return w == TOP_ON_DETAIL ? ui.detail_cpu && shows("CPU, of all") : screen(table(w) ? UI_CPU : UI_MEMORY); }
static bool does_prev_screen(unsigned w) { return w == TOP_ON_DETAIL ? ui.detail_cpu : screen(table(w) ? UI_EVENTS : UI_HOST); }
static bool does_filter(unsigned w) { return ui.mode == UI_ASK_FILTER && shows("filter:"); }
static bool does_sort(unsigned w) { return ui.mode == UI_PICK_SORT && shows("sort by"); }
static bool does_sort_left(unsigned w) { return ui.table[0].sort != was.table[0].sort && shows("sorted by buffer_now_pct"); }
static bool does_sort_right(unsigned w) { return ui.table[0].sort != was.table[0].sort && shows("sorted by startup"); }
static bool does_reverse(unsigned w) { return ui.table[0].descending != was.table[0].descending; }
static bool does_columns(unsigned w) { return ui.mode == UI_PICK_COLUMNS && shows("columns: Space"); }
static bool does_save(unsigned w) { return ui.effect == UI_SAVE_LAYOUT; }
static bool does_tree(unsigned w) { return ui.tree == UI_TREE_HOST && shows("v vmhost1   40 VMs"); }
static bool does_mark(unsigned w) { return model_find(&m, 0, "vm02")->marked && ui.cursor == was.cursor + 1; }
static bool does_unmark(unsigned w) { return !model_find(&m, 0, "vm05")->marked; }
static bool does_delay(unsigned w) { return ui.mode == UI_ASK_DELAY && shows("sample every: 2s"); }
static bool does_pause(unsigned w) { return ui.paused; }
static bool does_sample(unsigned w) { return ui.effect == UI_SAMPLE_NOW; }
static bool does_memory(unsigned w) { return ui.mode == UI_FORM && ui.effect == UI_PREVIEW && shows("memory of vm02"); }
static bool does_start(unsigned w) { return ui.mode == UI_CONFIRM && shows("start vm02? y/n"); }
static bool does_stop(unsigned w) { return ui.mode == UI_CONFIRM && shows("stop vm02? y/n"); }
static bool does_restart(unsigned w) { return ui.mode == UI_CONFIRM && shows("restart vm02? y/n"); }
static bool does_console(unsigned w) { return ui.effect == UI_HAND_OVER && strcmp(ui.command[0], "console -- vm02") == 0; }
static bool does_edit(unsigned w) { return ui.effect == UI_HAND_OVER && strcmp(ui.command[0], "edit -- vm02") == 0; }
static bool does_command(unsigned w) { return ui.mode == UI_ASK_COMMAND && shows(":hvctl"); }
static bool does_span(unsigned w) { return ui.span == was.span + 1 && shows("span 1h"); }
static bool does_live(unsigned w) { return table(w) ? ui.cursor == VMS - 1 : ui.list_end; }
static bool does_fold(unsigned w) { return ui.fold && (w == TOP_ON_DETAIL || !shows("CPU [")); }
static bool does_help(unsigned w) { return ui.mode == UI_HELP && shows("help: Esc"); }
static bool does_quit(unsigned w) { return ui.effect == UI_QUIT; }
static bool does_left(unsigned w)
{
    return w == TOP_ON_DETAIL ? shows("> vm01") : ui.replay ? ui.effect == UI_STEP_BACK : ui.look_ms == T0 + 18000 - 2000 && shows("-2s");
}
static bool does_right(unsigned w)
{
    return w == TOP_ON_DETAIL ? shows("> vm03") : ui.replay ? ui.effect == UI_STEP : ui.look_ms == 0;
}
static bool does_play(unsigned w) { return ui.effect == UI_PLAY_PAUSE; }
static bool does_slower(unsigned w) { return ui.effect == UI_SLOWER; }
static bool does_faster(unsigned w) { return ui.effect == UI_FASTER; }
static bool does_next_event(unsigned w) { return ui.effect == UI_NEXT_EVENT; }
static bool does_jump(unsigned w) { return ui.mode == UI_ASK_TIME && shows("go to ("); }
static bool does_later(unsigned w) { return ui.mode == UI_NORMAL && ui.effect == UI_NOTHING && shows("not in this version"); }

static bool (*const checks[TOP_ACTION_COUNT])(unsigned where) = {
    [TOP_UP] = does_up, [TOP_DOWN] = does_down, [TOP_PAGE_UP] = does_page_up, [TOP_PAGE_DOWN] = does_page_down, [TOP_FIRST] = does_first,
    [TOP_LAST] = does_last, [TOP_OPEN] = does_open, [TOP_BACK] = does_back, [TOP_SCREEN_MEMORY] = does_memory_screen,
    [TOP_SCREEN_CPU] = does_cpu_screen, [TOP_SCREEN_DISK] = does_disk_screen, [TOP_SCREEN_NET] = does_net_screen,
    [TOP_SCREEN_HOST] = does_host_screen, [TOP_SCREEN_EVENTS] = does_events_screen, [TOP_NEXT_SCREEN] = does_next_screen,
    [TOP_PREV_SCREEN] = does_prev_screen, [TOP_FILTER] = does_filter, [TOP_SORT] = does_sort, [TOP_SORT_LEFT] = does_sort_left,
    [TOP_SORT_RIGHT] = does_sort_right, [TOP_REVERSE] = does_reverse, [TOP_COLUMNS] = does_columns, [TOP_SAVE] = does_save,
    [TOP_TREE] = does_tree, [TOP_MARK] = does_mark, [TOP_UNMARK] = does_unmark, [TOP_DELAY] = does_delay, [TOP_PAUSE] = does_pause,
    [TOP_SAMPLE] = does_sample, [TOP_MEMORY] = does_memory, [TOP_START] = does_start, [TOP_STOP] = does_stop, [TOP_RESTART] = does_restart,
    [TOP_CONSOLE] = does_console, [TOP_EDIT] = does_edit, [TOP_COMMAND] = does_command, [TOP_SPAN] = does_span, [TOP_LEFT] = does_left,
    [TOP_RIGHT] = does_right, [TOP_LIVE] = does_live, [TOP_FOLD] = does_fold, [TOP_HELP] = does_help, [TOP_QUIT] = does_quit,
    [TOP_PLAY] = does_play, [TOP_SLOWER] = does_slower, [TOP_FASTER] = does_faster, [TOP_JUMP] = does_jump,
    [TOP_NEXT_EVENT] = does_next_event, [TOP_LATER] = does_later,
};

static const char *const action_names[] = {
#define NAME(id) #id,
    TOP_ACTIONS(NAME)
#undef NAME
};

/* How a place has to be before a key can show what it does. */
static void prepare(enum top_action a, unsigned where)
{
    if (a == TOP_UNMARK) {
        model_find(&m, 0, "vm05")->marked = true;
    } else if (a == TOP_RIGHT && where != TOP_ON_DETAIL && !ui.replay) {
        ui_key(&ui, TOP_KEY_LEFT);
    } else if ((a == TOP_DOWN || a == TOP_PAGE_DOWN) && where == TOP_ON_LIST) {
        for (unsigned i = 0; i < 30; i++) {
            ui_key(&ui, TOP_KEY_UP);
        }
    }
    ui_draw(&ui, &c);
}

static void every_key(void **state)
{
    bool used[TOP_ACTION_COUNT] = {false};
    unsigned n = 0, bad = 0;
    for (const struct top_binding *b = top_bindings; b->action != TOP_NONE; b++) {
        for (unsigned where = TOP_ON_TABLE; where <= TOP_ON_LIST; where *= 2) {
            for (unsigned replay = 0; replay < 2; replay++) {
                if (!(b->where & where) || (b->where & (replay ? TOP_ONLY_LIVE : TOP_ONLY_REPLAY))) {
                    continue;
                }
                begin(where, replay);
                prepare(b->action, where);
                was = ui;
                ui_key(&ui, b->key);
                ui_draw(&ui, &c);
                bool ok = checks[b->action] && checks[b->action](where);
                if (!ok) {
                    print_error("key %#x (%s), place %u, %s: %s\n", (unsigned)b->key, action_names[b->action], where,
                                replay ? "replay" : "live", checks[b->action] ? "did not do what it is for" : "has no test");
                }
                bad += !ok;
                used[b->action] = true;
                n++;
                end();
            }
        }
    }
    for (unsigned a = 1; a < TOP_ACTION_COUNT; a++) {
        if (!used[a]) {
            print_error("%s: no key leads to it\n", action_names[a]);
            bad++;
        }
    }
    assert_int_equal(bad, 0);
    assert_true(n > 150);
}

/* Under --read-only, what changes things is refused on every screen; all else goes on. */
static void read_only(void **state)
{
    for (const struct top_binding *b = top_bindings; b->action != TOP_NONE; b++) {
        for (unsigned where = TOP_ON_TABLE; where <= TOP_ON_LIST; where *= 2) {
            if (!(b->where & where) || (b->where & TOP_ONLY_REPLAY)) {
                continue;
            }
            begin(where, false);
            ui.read_only = true;
            ui_key(&ui, b->key);
            assert_int_equal(shows("read-only: keys that change things are off"), (b->where & TOP_CHANGES) != 0);
            if (b->where & TOP_CHANGES) {
                assert_int_equal(ui.mode, UI_NORMAL);
                assert_int_equal(ui.effect, UI_NOTHING);
            }
            end();
        }
    }
}

/* With nothing to show: no host known, no VM, no event. No key needs one. */
static void every_key_on_nothing(void **state)
{
    for (const struct top_binding *b = top_bindings; b->action != TOP_NONE; b++) {
        for (unsigned first = 0; first < 4; first++) {
            for (unsigned replay = 0; replay < 2; replay++) {
                model_init(&m, NULL, 1);
                assert_int_equal(ui_init(&ui, &m), 0);
                assert_int_equal(canvas_resize(&c, 80, 24), 0);
                ui.replay = replay;
                ui_key(&ui, "1256"[first]);
                ui_draw(&ui, &c);
                ui_key(&ui, b->key);
                ui_draw(&ui, &c);
                ui_key(&ui, TOP_KEY_ENTER);
                ui_draw(&ui, &c);
                ui_key(&ui, 'y');
                ui_draw(&ui, &c);
                end();
            }
        }
    }
}

int main(void)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_key), cmocka_unit_test(read_only), cmocka_unit_test(every_key_on_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
