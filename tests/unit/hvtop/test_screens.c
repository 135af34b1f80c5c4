/* Keys and screens without a terminal: messages in, keys, cells out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <locale.h>

#include "hv/base/units.h"
#include "hvtop/ui.h"
#include "tests/unit/hvtop/feed.h"

static struct ui ui;
static struct canvas c;

static void sample(unsigned n)
{
    feed("{\"host\":0,\"time_ms\":%llu,\"rows\":["
         "[\"db1\",\"running\",12884901888,12454920847,\"low\",\"max\",true,20,3,80,31],"
         "[\"web1\",\"running\",%llu,3543348019,\"ok\",null,true,20,21,50,12],"
         "[\"off1\",\"off\",null,null,null,null,true,20,null,50,null],"
         "[\"ci\",\"running\",6442450944,6871947673,\"warning\",\"host\",true,20,-6,20,97]],"
         "\"info\":{\"engine\":\"kvm\",\"cpus\":16,\"cpu_pct\":41,\"uptime_s\":100,\"balancer\":\"short\",\"memory\":"
         "{\"total\":30064771072,\"reserve\":2147483648,\"overhead\":0,\"free\":107374182,\"vm_memory\":0}}}",
         (unsigned long long)(T0 + n * 2000ull), (unsigned long long)(4294967296ull + n * 1048576ull));
}

static int set_up(void **state)
{
    static const char *const names[] = {"vmhost1"};
    setlocale(LC_CTYPE, "C.UTF-8");
    setenv("TZ", "UTC", 1);
    model_init(&m, names, 1);
    assert_int_equal(ui_init(&ui, &m), 0);
    assert_int_equal(canvas_resize(&c, 80, 24), 0);
    c.ascii = true;
    feed("{\"host\":0,\"name\":\"vmhost1\",\"columns\":[\"name\",\"state\",\"assigned\",\"demand\",\"status\",\"why\",\"dynamic\","
         "\"buffer_pct\",\"buffer_now_pct\",\"priority\",\"cpu_pct\"]}");
    for (unsigned i = 0; i < 10; i++) {
        sample(i);
    }
    ui_draw(&ui, &c);
    return 0;
}

static int tear_down(void **state)
{
    ui_fini(&ui);
    model_fini(&m);
    canvas_fini(&c);
    return 0;
}

static bool row_has(int y, const char *part)
{
    char *text = canvas_row_text(&c, y);
    bool has = strstr(text, part) != NULL;
    free(text);
    return has;
}

/* The first row that has it, -1 if none has. */
static int find(const char *part)
{
    for (int y = 0; y < c.h; y++) {
        if (row_has(y, part)) {
            return y;
        }
    }
    return -1;
}

static void draw(void) { ui_draw(&ui, &c); }

static void keys(const char *text)
{
    for (; *text; text++) {
        ui_key(&ui, *text == '\n' ? TOP_KEY_ENTER : *text);
    }
    draw();
}

static void header_says_what_the_host_has(void **state)
{
    assert_true(row_has(0, "vmhost1"));
    assert_true(row_has(0, "4 VMs: 3 running, 1 off"));
    assert_true(row_has(0, "23:20:18"));
    assert_true(row_has(1, "28.0G  root 2.0G  free 102M"));
    assert_true(row_has(2, "balancer: short"));
    assert_true(row_has(3, "41% of 16"));
    assert_false(row_has(1, ">]"));
    feed("{\"host\":0,\"time_ms\":%llu,\"rows\":[[\"ci\",\"running\",6442450944,6871947673,\"warning\",\"host\",true,20,-6,20,97]]}",
         (unsigned long long)(T0 + 50000));
    draw();
    assert_true(row_has(1, ">]"));                /* demand beyond what is assigned */
}

static void the_worst_come_first(void **state)
{
    int ci = find("ci "), db = find("db1 "), web = find("web1 "), off = find("off1 ");
    assert_true(ci > 0 && ci < db && db < web && web < off);
    assert_true(row_has(ci, ">!!ci") && row_has(ci, "Warning host") && row_has(ci, "-6/20%"));
    assert_true(row_has(db, " !db1") && row_has(db, "Low max"));
    assert_true(row_has(off, "- off"));
}

static void sorts(void **state)
{
    keys("s");
    assert_true(find("sort by") >= 0);
    while (strcmp(top_columns.col[ui.pick].key, "name") != 0) {
        ui_key(&ui, TOP_KEY_UP);
    }
    keys("\n");
    assert_true(find("ci ") < find("db1 ") && find("db1 ") < find("off1 ") && find("off1 ") < find("web1 "));
    keys("r");
    assert_true(find("ci ") > find("web1 "));
    keys(">");
    assert_string_equal(ui.table[0].sort->key, "state");
    keys("<<");
    assert_string_equal(ui.table[0].sort->key, "uptime_s");
}

static void the_cursor_follows_its_vm(void **state)
{
    keys("jj");
    assert_string_equal(ui_current(&ui)->name, "web1");
    keys("r");
    assert_string_equal(ui_current(&ui)->name, "web1");
    assert_true(row_has(c.cursor_y, ">  web1"));
    keys("G");
    assert_string_equal(ui_current(&ui)->name, "off1");      /* unknown is last whichever way */
    keys("g");
    assert_string_equal(ui_current(&ui)->name, "web1");
    ui_key(&ui, TOP_KEY_PAGE_DOWN);
    assert_string_equal(ui_current(&ui)->name, "off1");
}

static void filters_as_you_type(void **state)
{
    keys("/WE");
    assert_int_equal(ui.n_view, 1);
    keys("\n");
    assert_int_equal(ui.mode, UI_NORMAL);
    assert_true(find("filter: WE") >= 0);
    ui_key(&ui, TOP_KEY_ESC);
    draw();
    assert_int_equal(ui.n_view, 4);
    keys("/demand>");
    assert_true(ui.filter_bad);
    assert_int_equal(ui.n_view, 4);
    keys("4G\n");
    assert_false(ui.filter_bad);
    assert_int_equal(ui.n_view, 2);
    keys("/,nope=1\n");
    assert_int_equal(ui.mode, UI_ASK_FILTER);      /* it stays open, and says why */
    assert_true(row_has(23, "no such column"));
    ui_key(&ui, TOP_KEY_ESC);
    assert_int_equal(ui.mode, UI_NORMAL);
    keys("/zzz\n");
    assert_true(find("no VM fits the filter") > 0);
}

static void columns_come_and_go(void **state)
{
    assert_true(find(" PRI ") > 0);
    keys("f");
    while (strcmp(top_columns.col[ui.pick].key, "priority") != 0) {
        ui_key(&ui, 'j');
    }
    keys(" \n");
    assert_true(find(" PRI ") < 0);
    keys("f");
    ui.pick = 1;                                    /* the name stays */
    keys(" \n");
    assert_true(find("NAME") > 0);
}

static void detail_and_back(void **state)
{
    keys("j\n");
    assert_true(ui.detail);
    assert_true(row_has(0, "vmhost1 > db1  running") && row_has(0, "Low (max)"));
    assert_true(find("assigned 12.0G   demand 11.6G   buffer 3% of 20%") > 0);
    ui_key(&ui, TOP_KEY_RIGHT);
    draw();
    assert_true(row_has(0, "> web1"));
    ui_key(&ui, TOP_KEY_LEFT);
    ui_key(&ui, TOP_KEY_LEFT);
    draw();
    assert_true(row_has(0, "> ci") && row_has(0, "Warning (host)"));
    ui_key(&ui, TOP_KEY_TAB);
    draw();
    assert_true(find("CPU, of all its processors") > 0);
    keys("z");
    assert_true(find("span 1h") >= 0);
    ui_key(&ui, TOP_KEY_ESC);
    assert_false(ui.detail);
}

static void a_vm_that_goes(void **state)
{
    keys("jj\n");
    feed("{\"host\":0,\"time_ms\":%llu,\"rows\":[[\"db1\",\"running\",1,1,\"ok\",null,true,20,3,80,31]]}", (unsigned long long)(T0 + 40000));
    draw();
    assert_true(find("it is gone") > 0);
    ui_key(&ui, TOP_KEY_ESC);
    draw();
    assert_int_equal(ui.n_view, 1);
    assert_string_equal(ui_current(&ui)->name, "db1");
}

static void back_in_time(void **state)
{
    int y = find("web1 ");
    assert_true(row_has(y, " 4.0G"));
    ui_key(&ui, TOP_KEY_LEFT);
    ui_key(&ui, TOP_KEY_LEFT);
    draw();
    assert_true(row_has(0, "-4s"));
    json_t *row = ui_row(&ui, model_find(&m, 0, "web1"));
    assert_int_equal(json_integer_value(cli_json_path(row, "memory.assigned")), 4294967296ull + 7 * 1048576);
    json_decref(row);
    ui_key(&ui, TOP_KEY_RIGHT);
    draw();
    assert_true(row_has(0, "-2s"));
    ui_key(&ui, TOP_KEY_END);
    draw();
    assert_true(row_has(0, "23:20:18"));
}

static void verbs_ask(void **state)
{
    keys("T");
    assert_true(row_has(23, "stop ci? y/n"));
    keys("n");
    assert_int_equal(ui.effect, UI_NOTHING);
    keys(" jj T");                                  /* marks ci and off1 on the way */
    assert_true(row_has(23, "stop ci, off1? y/n"));
    keys("y");
    assert_int_equal(ui.effect, UI_RUN);
    assert_string_equal(ui.command[0], "stop --no-wait -- ci off1");
    keys("u");
    assert_false(m.vm[0]->marked);
    ui.read_only = true;
    keys("T");
    assert_int_equal(ui.mode, UI_NORMAL);
    assert_true(row_has(23, "read-only"));
}

/* Whatever a VM is called, the shell's rules give it back as one word. */
static void names_are_quoted(void **state)
{
    static const struct { const char *name, *quoted; } t[] = {
        {"web1", "web1"}, {"a b", "'a b'"}, {"", "''"}, {"it's", "'it'\\''s'"}, {"$(x)", "'$(x)'"}, {"--all", "--all"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        strbuf_auto sb = {0};
        ui_quote(&sb, t[i].name);
        assert_string_equal(sb.buf, t[i].quoted);
    }
    feed("{\"host\":0,\"time_ms\":%llu,\"rows\":[[\"it's a;b\",\"running\",1,1,\"ok\",null,true,20,3,80,31]]}",
         (unsigned long long)(T0 + 40000));
    draw();
    keys("Ty");
    assert_string_equal(ui.command[0], "stop --no-wait -- 'it'\\''s a;b'");
    keys(":show %\n");
    assert_string_equal(ui.command[0], "show 'it'\\''s a;b'");
}

static void command_line(void **state)
{
    keys(":vm show %\n");
    assert_int_equal(ui.effect, UI_RUN);
    assert_string_equal(ui.command[0], "vm show ci");
    keys(":console %\n");
    assert_int_equal(ui.effect, UI_HAND_OVER);
    keys(":memory set % --buffer 20%\n");
    assert_string_equal(ui.command[0], "memory set ci --buffer 20%");
    keys(":");
    ui_key(&ui, TOP_KEY_UP);
    draw();
    assert_true(row_has(23, ":hvctl memory set % --buffer 20%"));
    ui_key(&ui, TOP_KEY_TAB);
    assert_int_equal(ui.effect, UI_COMPLETE);
    ui_key(&ui, TOP_KEY_ESC);
    keys(":q\n");
    assert_int_equal(ui.effect, UI_QUIT);
    ui_output(&ui, "a\nb\n", false, 0);
    draw();
    assert_int_equal(ui.mode, UI_PANE);
    assert_true(find("|a") > 0 && find("|b") > 0);
    keys("q");
    assert_int_equal(ui.mode, UI_NORMAL);
}

/* Closed while its command runs, a pane stays closed; the end is said in the footer. */
static void a_pane_that_was_closed(void **state)
{
    ui.pane_running = true;
    snprintf(ui.pane_title, sizeof(ui.pane_title), "hvctl wait x");
    ui_output(&ui, "a\nb\n", false, 0);
    assert_int_equal(ui.mode, UI_PANE);
    ui_key(&ui, TOP_KEY_ESC);
    ui_output(&ui, "c\n", false, 0);
    assert_int_equal(ui.mode, UI_NORMAL);
    ui_output(&ui, "", true, 7);
    draw();
    assert_int_equal(ui.mode, UI_NORMAL);
    assert_true(row_has(23, "hvctl wait x: exit code 7"));
}

static void memory_form(void **state)
{
    keys("jjm");
    assert_int_equal(ui.effect, UI_PREVIEW);
    assert_true(find("memory of web1") > 0);
    ui_key(&ui, TOP_KEY_UP);                        /* from the first to the last field */
    ui_key(&ui, TOP_KEY_BACKSPACE);
    keys("9");
    assert_true(find("priority   59") > 0);
    static const char *const lines[] = {"it has 4.0G and would get 5.0G"};
    ui_preview(&ui, false, lines, 1);
    draw();
    assert_true(find("would get 5.0G") > 0);
    keys("\n");
    assert_int_equal(ui.effect, UI_RUN);
    assert_string_equal(ui.command[0], "memory set --priority 59 -- web1");
    keys("m\n");
    assert_int_equal(ui.mode, UI_NORMAL);
    assert_true(row_has(23, "nothing changed"));
}

static void hosts_that_go(void **state)
{
    feed("{\"host\":0,\"time_ms\":%llu,\"down\":\"the service is gone\"}", (unsigned long long)(T0 + 60000));
    draw();
    assert_true(row_has(1, "vmhost1: the service is gone; trying again"));
    assert_true(find("? 42s") > 0);
    sample(40);
    draw();
    assert_true(find("? 42s") < 0 && find("trying again") < 0);
}

static void events(void **state)
{
    for (unsigned i = 0; i < 50; i++) {
        feed("{\"host\":0,\"time_ms\":%llu,\"event\":{\"seq\":%u,\"kind\":\"state\",\"vm\":\"v%u\",\"severity\":\"info\",\"message\":\"running\"}}",
             (unsigned long long)(T0 + i), i, i);
    }
    draw();
    assert_true(row_has(20, "v49: running") && row_has(22, "v47: running"));
    keys("6");
    assert_true(row_has(22, "v49") && find("v30: ") < 0);
    keys("g");
    assert_true(row_has(5, "v0: running"));
    keys("/v3\n");
    assert_true(row_has(5, "v3: running") && row_has(6, "v30: running"));
}

/* Every size from 1x1 up, every screen, every dialog: nothing is drawn outside, nothing fails. */
static void every_size(void **state)
{
    static const char *const before[] = {"1", "2", "5", "6", "1\n", "?", "s", "f", "m", "/x", ":y", "T", "d"};
    for (unsigned i = 0; i < ARRAY_SIZE(before); i++) {
        tear_down(NULL);
        set_up(NULL);
        keys(before[i]);
        for (int w = 1; w <= 200; w += w < 90 ? 1 : 13) {
            for (int h = 1; h <= 60; h += h < 30 ? 1 : 7) {
                assert_int_equal(canvas_resize(&c, w, h), 0);
                c.ascii = w % 2;
                ui_draw(&ui, &c);
                for (int k = 0; c.ascii && k < w * h; k++) {
                    assert_true(c.cell[k].ch >= ' ' && c.cell[k].ch < 127);
                }
                assert_true(c.cursor_y < h && c.cursor_x < w);
            }
        }
    }
}

/* Every key the table has does something somewhere, is in the help or stands for one that is. */
static void every_key_is_explained(void **state)
{
    assert_int_equal(canvas_resize(&c, 90, 70), 0);
    for (unsigned replay = 0; replay < 2; replay++) {
        ui.replay = replay;
        keys("?");
        for (const struct top_binding *b = top_bindings; b->action != TOP_NONE; b++) {
            bool here = !(b->where & (replay ? TOP_ONLY_LIVE : TOP_ONLY_REPLAY));
            if (b->help && here) {
                assert_true(find(b->help) > 0);
            }
            for (unsigned screen = 1; screen <= 4; screen *= 2) {
                if (here && (b->where & screen)) {
                    assert_int_equal(top_binding_find(b->key, screen, replay)->action, b->action);
                }
            }
        }
        keys("q");
    }
}

/* Random keys for a while: no state is a dead end, nothing breaks. */
static void random_keys(void **state)
{
    static const int special[] = {TOP_KEY_UP, TOP_KEY_DOWN, TOP_KEY_LEFT, TOP_KEY_RIGHT, TOP_KEY_PAGE_UP, TOP_KEY_PAGE_DOWN, TOP_KEY_HOME,
                                  TOP_KEY_END, TOP_KEY_ENTER, TOP_KEY_ESC, TOP_KEY_TAB, TOP_KEY_BACK_TAB, TOP_KEY_BACKSPACE, TOP_KEY_F1};
    uint32_t x = 12345;
    for (unsigned i = 0; i < 30000; i++) {
        x = x * 1664525 + 1013904223;
        unsigned r = x >> 16;
        ui_key(&ui, r % 3 ? (int)(' ' + r % 95) : special[r / 3 % ARRAY_SIZE(special)]);
        if (i % 50 == 0) {
            sample(10 + i / 50);
        }
        if (i % 7 == 0) {
            draw();
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        ui_key(&ui, TOP_KEY_ESC);
    }
    assert_int_equal(ui.mode, UI_NORMAL);
}

static void hostile_messages(void **state)
{
    static const char *const texts[] = {
        "{}", "{\"host\":-1}", "{\"host\":64,\"rows\":[]}", "{\"host\":0,\"columns\":[]}", "{\"host\":0,\"columns\":[1]}",
        "{\"host\":0,\"time_ms\":9223372036854775807,\"rows\":[]}", "{\"host\":0,\"time_ms\":0,\"rows\":[]}",
        "{\"host\":0,\"history\":{\"step_ms\":3,\"first_ms\":1}}", "{\"host\":0,\"history\":{\"step_ms\":2000,\"first_ms\":-5}}",
    };
    for (unsigned i = 1; i < ARRAY_SIZE(texts); i++) {
        json_t *o = json_loads(texts[i], 0, NULL);
        assert_true(model_apply(&m, o) < 0);
        json_decref(o);
    }
    feed("{\"host\":0,\"time_ms\":%llu,\"rows\":[7,[],[null],[\"\"],[\"a\",{},[],\"x\",true,1e308,-1e308],[\"b\",\"\\u001b[2J\",-5,1e300]]}",
         (unsigned long long)(T0 + 50000));
    draw();
    assert_int_equal(m.n_vms, 2);
    feed("{\"host\":0,\"history\":{\"name\":\"a\",\"step_ms\":2000,\"first_ms\":%llu,\"assigned\":[\"x\",{},-1,9223372036854775807],"
         "\"demand\":[],\"cpu_pct\":[1e300],\"status\":\"zzzzzzzzzz\"}}", (unsigned long long)T0);
    draw();
}

/* Lists of disks and processors are anybody's: every screen shows what it can of them, in every size. */
static void hostile_lists(void **state)
{
    static const char *const disks[] = {
        "7", "null", "\"x\"", "{}", "[]", "[7]", "[[]]", "[null,[null]]", "[{\"location\":\"x\"}]", "[[{},[],true,\"a\",-1,1e308]]",
        "[[\"\\u001b[2J\",\"/\\u202e/\",\"dvd\",-5,1e300,1e300,-1e300,9e15,9223372036854775807,-9223372036854775807]]",
        "[[\"scsi0:0\",\"/a/\",\"disk\",1,2,3,4,5,6,7],[\"scsi0:1\"],[],[],[],[],[],[],[],[]]",
    };
    static const char *const cpus[] = {"[]", "[null,\"x\",-5,1e300,[],{}]", "{}", "\"x\"", "5", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18]"};
    static const char *const services[] = {"\"\"", "\",\"", "\", ,,\"", "\"a\"", "\"a b c d, e\\u001bf\"", "[]", "7"};
    feed("{\"host\":0,\"columns\":[\"name\",\"state\",\"disks\",\"vcpu_pct\",\"services\",\"disk_used\",\"disk_size\",\"disk_path\",\"read\","
         "\"latency_us\",\"exits\",\"group\",\"job\"]}");
    for (unsigned i = 0; i < ARRAY_SIZE(disks) * ARRAY_SIZE(cpus); i++) {
        const char *d = disks[i % ARRAY_SIZE(disks)], *p = cpus[i % ARRAY_SIZE(cpus)], *s = services[i % ARRAY_SIZE(services)];
        feed("{\"host\":0,\"time_ms\":%llu,\"rows\":[[\"a\",\"running\",%s,%s,%s,%s,-1,%s,1e300,-1,%s,%s,%s]],"
             "\"info\":{\"numa\":%s,\"psi\":%s,\"memory\":%s}}", (unsigned long long)(T0 + 50000 + i * 1000), d, p, s, i % 2 ? "1e308" : d, s, p, s, s, d, p,
             i % 3 ? "{\"total\":-1,\"page_tables\":\"x\"}" : p);
        for (unsigned k = 0; k < 5; k++) {
            static const char *const to[] = {"2", "3", "5", "1t", "tt\n"};
            keys(to[k]);
            for (unsigned size = 0; size < 4; size++) {
                static const int w[] = {160, 80, 20, 5}, h[] = {45, 24, 5, 3};
                assert_int_equal(canvas_resize(&c, w[size], h[size]), 0);
                c.ascii = i % 2;
                draw();
                for (int n = 0; n < c.w * c.h; n++) {
                    assert_true(c.cell[n].ch == 0 || c.cell[n].ch >= ' ');
                    assert_true(c.cell[n].ch != 0x202e && c.cell[n].ch != 0x7f);
                }
            }
        }
        ui_key(&ui, TOP_KEY_ESC);
        json_t *first = json_array_get(json_object_get(m.vm[0]->row, "disks"), 0), *o = top_disk_object(first);
        assert_true(json_is_object(o));
        json_decref(o);
    }
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(header_says_what_the_host_has), T(the_worst_come_first), T(sorts), T(the_cursor_follows_its_vm), T(filters_as_you_type),
        T(columns_come_and_go), T(detail_and_back), T(a_vm_that_goes), T(back_in_time), T(verbs_ask), T(names_are_quoted), T(command_line), T(a_pane_that_was_closed), T(memory_form),
        T(hosts_that_go), T(events), T(every_size), T(every_key_is_explained), T(random_keys), T(hostile_messages), T(hostile_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
