/* Keys and clicks: what they change. */
#include "hvtop/ui.h"

#include <errno.h>
#include <stdarg.h>

#include "hv/base/units.h"

const char *const ui_screen_words[UI_SCREEN_COUNT] = {"memory", "cpu", "disk", "net", "host", "events"};

#define STEP_MS 2000            /* of going back in time: a slot of the fine history */

const struct ui_table_desc ui_tables[UI_TABLES] = {
    {UI_MEMORY, &top_table_memory}, {UI_CPU, &top_table_cpu}, {UI_DISK, &top_table_disk},
};

unsigned ui_table_index(enum ui_screen s)
{
    unsigned i = 0;
    while (i < UI_TABLES && ui_tables[i].screen != s) {
        i++;
    }
    return i;
}

int ui_init(struct ui *ui, struct model *m)
{
    *ui = (struct ui){.m = m, .span = 1, .speed = 1, .list_end = true, .view_stale = true, .delay_ns = 2 * NS_PER_SEC};
    for (unsigned i = 0; i < UI_TABLES; i++) {
        ui->table[i].keys = hv_strdup(ui_tables[i].table->columns);
        if (!ui->table[i].keys) {
            ui_fini(ui);
            return -ENOMEM;
        }
        ui_set_sort(ui, i, ui_tables[i].table->sort, NULL);
    }
    return 0;
}

static void free_commands(char **list)
{
    for (unsigned i = 0; i < MODEL_HOSTS_MAX; i++) {
        free(list[i]);
        list[i] = NULL;
    }
}

void ui_fini(struct ui *ui)
{
    for (unsigned i = 0; i < UI_TABLES; i++) {
        free(ui->table[i].keys);
        ui->table[i].keys = NULL;
    }
    cli_filter_free(ui->filter);
    free(ui->view);
    free(ui->body);
    ui->body = NULL;
    free(ui->pane);
    free_commands(ui->command);
    free_commands(ui->confirmed);
    ui->view = NULL;
    ui->pane = NULL;
    ui->filter = NULL;
}

void ui_say(struct ui *ui, bool error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(ui->message, sizeof(ui->message), fmt, ap);
    va_end(ap);
    ui->message_error = error;
}

void ui_quote(struct strbuf *sb, const char *word)
{
    if (*word && !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/@+%=,")]) {
        strbuf_adds(sb, word);
        return;
    }
    strbuf_addc(sb, '\'');
    for (; *word; word++) {
        if (*word == '\'') {
            strbuf_adds(sb, "'\\''");
        } else {
            strbuf_addc(sb, *word);
        }
    }
    strbuf_addc(sb, '\'');
}

/* ---- moving ---- */

static bool is_table(const struct ui *ui)
{
    return ui_table_index(ui->screen) < UI_TABLES;
}

static unsigned place(const struct ui *ui)
{
    return ui->detail ? TOP_ON_DETAIL : is_table(ui) ? TOP_ON_TABLE : TOP_ON_LIST;
}

static void set_cursor(struct ui *ui, size_t to)
{
    if (!ui->n_view) {
        return;
    }
    ui->cursor = MIN(to, ui->n_view - 1);
    ui->cursor_host = ui->view[ui->cursor]->host;
    hv_strlcpy(ui->cursor_name, ui->view[ui->cursor]->name, sizeof(ui->cursor_name));
    ui->cursor_set = true;
}

static void move(struct ui *ui, long by)
{
    if (is_table(ui) && !ui->detail) {
        long to = (long)ui->cursor + by;
        set_cursor(ui, to < 0 ? 0 : (size_t)to);
        return;
    }
    long to = (long)ui->list_top + by;
    ui->list_end = false;
    ui->list_top = to < 0 ? 0 : (unsigned)to;
}

static void move_to_end(struct ui *ui, bool last)
{
    if (is_table(ui) && !ui->detail) {
        set_cursor(ui, last && ui->n_view ? ui->n_view - 1 : 0);
        return;
    }
    ui->list_top = last ? UINT32_MAX / 2 : 0;      /* drawing clamps it */
    ui->list_end = last;
}

/* Detail: the VM before or after the one that is shown. */
static void other_vm(struct ui *ui, int by)
{
    ui_order(ui);
    size_t at = ui->cursor;
    if (ui->n_view) {
        set_cursor(ui, by < 0 ? (at ? at - 1 : ui->n_view - 1) : (at + 1) % ui->n_view);
    }
}

static void travel(struct ui *ui, bool back)
{
    if (ui->replay) {
        ui->effect = back ? UI_STEP_BACK : UI_STEP;
        return;
    }
    uint64_t most = series_step_ms(SERIES_COARSE) * SERIES_COARSE_SLOTS, now = ui->m->now_ms;
    uint64_t at = ui->look_ms ? ui->look_ms : now;
    if (back) {
        ui->look_ms = at + most > now + STEP_MS && at > STEP_MS ? at - STEP_MS : at;
    } else {
        ui->look_ms = at + STEP_MS < now ? at + STEP_MS : 0;      /* as far as now: live again */
    }
}

static void show_screen(struct ui *ui, enum ui_screen s)
{
    if (s == UI_NET) {
        ui_say(ui, false, "networks: not in this version");
        return;
    }
    ui->screen = s;
    ui->detail = false;
    ui->view_stale = true;
    ui->list_top = 0;
    ui->list_end = s == UI_EVENTS;
}

static void next_screen(struct ui *ui, int by)
{
    if (ui->detail) {
        ui->detail_cpu = !ui->detail_cpu;
        return;
    }
    int s = (int)ui->screen;
    do {
        s = (s + by + UI_SCREEN_COUNT) % UI_SCREEN_COUNT;
    } while (s == UI_NET);
    show_screen(ui, (enum ui_screen)s);
}

/* ---- order ---- */

/* Sort by the column that stands `by` places from the present one on the screen. */
static void sort_beside(struct ui *ui, int by)
{
    struct ui_table_state *t = ui_table(ui);
    const struct cli_column *shown[TOP_MAX_COLUMNS];
    unsigned n = 0, at = 0;
    for (const char *p = t->keys; *p && n < TOP_MAX_COLUMNS;) {
        size_t len = strcspn(p, ",");
        const struct cli_column *col = cli_column_find(&top_columns, p, len);
        if (col && strcmp(col->key, "trend") != 0 && !top_is_list(col->key) && (ui->m->n_hosts > 1 || strcmp(col->key, "host") != 0)) {
            at = col == t->sort ? n : at;
            shown[n++] = col;
        }
        p += len + (p[len] == ',');
    }
    if (n) {
        t->sort = shown[(at + n + (unsigned)(by < 0 ? n - 1 : 1)) % n];
        t->descending = cli_is_number(t->sort->unit) || t->sort->unit == CLI_UNIT_STATUS;
        ui->view_stale = true;
        ui_say(ui, false, "sorted by %s", t->sort->key);
    }
}

/* ---- verbs ---- */

/* Calls fn for the marked VMs, or for the one under the cursor where none is marked. Returns how many. */
static unsigned each_chosen(struct ui *ui, void (*fn)(struct ui *ui, struct model_vm *vm, void *arg), void *arg)
{
    unsigned n = 0;
    for (size_t i = 0; i < ui->m->n_vms && !ui->detail; i++) {
        if (ui->m->vm[i]->marked) {
            fn(ui, ui->m->vm[i], arg);
            n++;
        }
    }
    struct model_vm *vm = ui_current(ui);
    if (!n && vm) {
        fn(ui, vm, arg);
        n = 1;
    }
    return n;
}

struct building { const char *verb; struct strbuf line[MODEL_HOSTS_MAX]; struct strbuf names; unsigned n; };

static void add_target(struct ui *ui, struct model_vm *vm, void *arg)
{
    struct building *b = arg;
    struct strbuf *line = &b->line[vm->host];
    if (!line->len) {
        strbuf_adds(line, b->verb);
        strbuf_adds(line, " --");
    }
    strbuf_addc(line, ' ');
    ui_quote(line, vm->name);
    if (b->n++ < 3) {
        strbuf_addf(&b->names, "%s%s", b->n > 1 ? ", " : "", vm->name);
    }
}

static void ask_verb(struct ui *ui, const char *word, const char *verb)
{
    struct building b = {.verb = verb};
    if (!each_chosen(ui, add_target, &b)) {
        ui_say(ui, false, "no VM here");
        return;
    }
    free_commands(ui->confirmed);
    for (unsigned i = 0; i < MODEL_HOSTS_MAX; i++) {
        ui->confirmed[i] = b.line[i].len ? strbuf_detach(&b.line[i], NULL) : NULL;
    }
    if (b.n > 3) {
        snprintf(ui->question, sizeof(ui->question), "%s %u VMs (%s, ...)?", word, b.n, b.names.buf ? b.names.buf : "");
    } else {
        snprintf(ui->question, sizeof(ui->question), "%s %s?", word, b.names.buf ? b.names.buf : "");
    }
    strbuf_fini(&b.names);
    ui->mode = UI_CONFIRM;
}

/* A command about the VM of the cursor that needs the terminal. */
static void hand_over(struct ui *ui, const char *verb)
{
    struct model_vm *vm = ui_current(ui);
    strbuf_auto line = {0};
    if (!vm) {
        ui_say(ui, false, "no VM here");
        return;
    }
    strbuf_addf(&line, "%s -- ", verb);
    ui_quote(&line, vm->name);
    free_commands(ui->command);
    ui->command[vm->host] = line.err ? NULL : strbuf_detach(&line, NULL);
    ui->effect = UI_HAND_OVER;
}

/* ---- dialogs open ---- */

static void ask_line(struct ui *ui, enum ui_mode mode, const char *text)
{
    ui->mode = mode;
    hv_strlcpy(ui->line, text, sizeof(ui->line));
    ui->line_len = (unsigned)strlen(ui->line);
    ui->history.at = ui->history.n;
    ui->message[0] = '\0';
}

static void field(const struct model_vm *vm, const char *key, bool size, char *buf, size_t len)
{
    double v = model_number(vm, "memory", key);
    buf[0] = '\0';
    if (v >= 0 && size) {
        format_size_exact((uint64_t)v, buf, len);
    } else if (v >= 0) {
        snprintf(buf, len, "%.0f", v);
    }
}

static void open_form(struct ui *ui)
{
    static const struct { const char *key; bool size; } fields[UI_FORM_FIELDS] = {
        [UI_FORM_MIN] = {"min", true},         [UI_FORM_STARTUP] = {"startup", true}, [UI_FORM_MAX] = {"max", true},
        [UI_FORM_BUFFER] = {"buffer_pct", false}, [UI_FORM_PRIORITY] = {"priority", false},
    };
    struct model_vm *vm = ui_current(ui);
    if (!vm) {
        ui_say(ui, false, "no VM here");
        return;
    }
    ui->form = (struct ui_form){.host = vm->host};
    hv_strlcpy(ui->form.vm, vm->name, sizeof(ui->form.vm));
    for (unsigned i = 0; i < UI_FORM_FIELDS; i++) {
        field(vm, fields[i].key, fields[i].size, ui->form.was[i], sizeof(ui->form.was[i]));
        memcpy(ui->form.text[i], ui->form.was[i], sizeof(ui->form.text[i]));
    }
    ui->mode = UI_FORM;
    ui->effect = UI_PREVIEW;
}

static void open_pick(struct ui *ui, enum ui_mode mode)
{
    const struct ui_table_state *t = ui_table(ui);
    ui->mode = mode;
    ui->pick = 0;
    for (unsigned i = 0; mode == UI_PICK_SORT && top_columns.col[i].key; i++) {
        ui->pick = &top_columns.col[i] == t->sort ? i : ui->pick;
    }
}

static void open_detail(struct ui *ui)
{
    struct model_vm *vm = ui_current(ui);
    if (vm) {
        set_cursor(ui, ui->cursor);
        ui->detail = true;
    }
}

static void back(struct ui *ui)
{
    if (ui->detail) {
        ui->detail = false;
        ui->view_stale = true;
    } else if (ui->filter_text[0]) {
        ui_set_filter(ui, "");
    } else if (ui->look_ms) {
        ui->look_ms = 0;
    }
}

static void mark(struct ui *ui)
{
    struct model_vm *vm = ui_current(ui);
    if (vm) {
        vm->marked = !vm->marked;
        set_cursor(ui, ui->cursor + 1);
    }
}

/* ---- keys ---- */

static void do_action(struct ui *ui, enum top_action action)
{
    struct ui_table_state *t = ui_table(ui);
    char buf[64];
    switch (action) {
    case TOP_UP: move(ui, -1); break;
    case TOP_DOWN: move(ui, 1); break;
    case TOP_PAGE_UP: move(ui, -MAX(ui->body_h - 1, 1)); break;
    case TOP_PAGE_DOWN: move(ui, MAX(ui->body_h - 1, 1)); break;
    case TOP_FIRST: move_to_end(ui, false); break;
    case TOP_LAST: move_to_end(ui, true); break;
    case TOP_LIVE:
        if (ui->look_ms) {
            ui->look_ms = 0;
        } else {
            move_to_end(ui, true);
        }
        break;
    case TOP_OPEN: open_detail(ui); break;
    case TOP_BACK: back(ui); break;
    case TOP_SCREEN_MEMORY: case TOP_SCREEN_CPU: case TOP_SCREEN_DISK: case TOP_SCREEN_NET: case TOP_SCREEN_HOST:
    case TOP_SCREEN_EVENTS:
        show_screen(ui, (enum ui_screen)(action - TOP_SCREEN_MEMORY));
        break;
    case TOP_NEXT_SCREEN: next_screen(ui, 1); break;
    case TOP_PREV_SCREEN: next_screen(ui, -1); break;
    case TOP_FILTER: ask_line(ui, UI_ASK_FILTER, ui->filter_text); break;
    case TOP_SORT: open_pick(ui, UI_PICK_SORT); break;
    case TOP_SORT_LEFT: sort_beside(ui, -1); break;
    case TOP_SORT_RIGHT: sort_beside(ui, 1); break;
    case TOP_REVERSE:
        t->descending = !t->descending;
        ui->view_stale = true;
        break;
    case TOP_COLUMNS: open_pick(ui, UI_PICK_COLUMNS); break;
    case TOP_SAVE: ui->effect = UI_SAVE_LAYOUT; break;
    case TOP_TREE:
        ui->tree = (ui->tree + 1) % UI_TREE_COUNT;
        ui->view_stale = true;
        ui_say(ui, false, ui->tree == UI_TREE_HOST ? "grouped by host" : ui->tree == UI_TREE_GROUP ? "grouped by group" : "not grouped");
        break;
    case TOP_FOLD: ui->fold = !ui->fold; break;
    case TOP_MARK: mark(ui); break;
    case TOP_UNMARK:
        for (size_t i = 0; i < ui->m->n_vms; i++) {
            ui->m->vm[i]->marked = false;
        }
        break;
    case TOP_DELAY:
        snprintf(buf, sizeof(buf), "%g%s", (double)ui->delay_ns / (double)(ui->delay_ns < NS_PER_SEC ? NS_PER_MS : NS_PER_SEC),
                 ui->delay_ns < NS_PER_SEC ? "ms" : "s");
        ask_line(ui, UI_ASK_DELAY, buf);
        break;
    case TOP_PAUSE: ui->paused = !ui->paused; break;
    case TOP_SAMPLE: ui->effect = UI_SAMPLE_NOW; break;
    case TOP_MEMORY: open_form(ui); break;
    case TOP_START: ask_verb(ui, "start", "start --no-wait"); break;
    case TOP_STOP: ask_verb(ui, "stop", "stop --no-wait"); break;
    case TOP_RESTART: ask_verb(ui, "restart", "restart --no-wait"); break;
    case TOP_CONSOLE: hand_over(ui, "console"); break;
    case TOP_EDIT: hand_over(ui, "edit"); break;
    case TOP_COMMAND: ask_line(ui, UI_ASK_COMMAND, ""); break;
    case TOP_SPAN:
        ui->span = (ui->span + 1) % ARRAY_SIZE(ui_spans);
        ui_say(ui, false, "span %s", ui_spans[ui->span].word);
        break;
    case TOP_LEFT: case TOP_RIGHT:
        if (ui->detail) {
            other_vm(ui, action == TOP_LEFT ? -1 : 1);
        } else {
            travel(ui, action == TOP_LEFT);
        }
        break;
    case TOP_HELP:
        ui->mode = UI_HELP;
        ui->pane_top = 0;
        break;
    case TOP_QUIT: ui->effect = UI_QUIT; break;
    case TOP_PLAY: ui->effect = UI_PLAY_PAUSE; break;
    case TOP_SLOWER: ui->effect = UI_SLOWER; break;
    case TOP_FASTER: ui->effect = UI_FASTER; break;
    case TOP_NEXT_EVENT: ui->effect = UI_NEXT_EVENT; break;
    case TOP_JUMP: ask_line(ui, UI_ASK_TIME, ""); break;
    case TOP_LATER: ui_say(ui, false, "checkpoints: not in this version"); break;
    default: break;
    }
}

void ui_key(struct ui *ui, int key)
{
    ui->effect = UI_NOTHING;
    ui_order(ui);
    if (ui->mode != UI_NORMAL) {
        ui_dialog_key(ui, key);
        return;
    }
    const struct top_binding *b = top_binding_find(key, place(ui), ui->replay);
    ui->message[0] = '\0';
    if ((b->where & TOP_CHANGES) && ui->read_only) {
        ui_say(ui, false, "read-only: keys that change things are off");
        return;
    }
    do_action(ui, b->action);
}

/* A click on a column's header sorts by it, on a row goes there, on the row of the cursor opens it. */
void ui_mouse(struct ui *ui, int y, int x, int wheel)
{
    ui->effect = UI_NOTHING;
    ui_order(ui);
    if (ui->mode != UI_NORMAL) {
        if (wheel) {
            ui_dialog_key(ui, wheel < 0 ? TOP_KEY_UP : TOP_KEY_DOWN);
        }
        return;
    }
    if (wheel) {
        move(ui, wheel * 3);
        return;
    }
    if (ui->detail || !is_table(ui)) {
        return;
    }
    if (y == ui->body_y - 1) {
        struct ui_table_state *t = ui_table(ui);
        for (unsigned i = 0; i < ui->n_heads; i++) {
            if (x >= ui->head[i].from && x < ui->head[i].to && strcmp(ui->head[i].col->key, "trend") != 0 && !top_is_list(ui->head[i].col->key)) {
                t->descending = t->sort == ui->head[i].col ? !t->descending
                                : cli_is_number(ui->head[i].col->unit) || ui->head[i].col->unit == CLI_UNIT_STATUS;
                t->sort = ui->head[i].col;
                ui->view_stale = true;
            }
        }
    } else if (y >= ui->body_y && y < ui->body_y + ui->body_h) {
        size_t row = ui->top + (size_t)(y - ui->body_y);
        bool vm = row < ui->n_lines && !ui->body[row].heading;
        if (vm && ui->body[row].at == ui->cursor && ui->cursor_set) {
            open_detail(ui);
        } else if (vm) {
            set_cursor(ui, ui->body[row].at);
        }
    }
}
