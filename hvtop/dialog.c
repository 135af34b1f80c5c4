/* What lies over a screen: the line being typed, lists to choose from, the memory form, help. */
#include <ctype.h>
#include <stdio.h>

#include "hv/base/units.h"
#include "hvtop/draw.h"
#include "hvtop/ui.h"

/* ---- the line being typed ---- */

static const struct { enum ui_mode mode; const char *prompt; } prompts[] = {
    {UI_ASK_FILTER, "filter: "}, {UI_ASK_COMMAND, ":hvctl "}, {UI_ASK_DELAY, "sample every: "}, {UI_ASK_TIME, "go to (22:20, or 2h ago): "},
};

static const char *prompt_of(enum ui_mode mode)
{
    for (unsigned i = 0; i < ARRAY_SIZE(prompts); i++) {
        if (prompts[i].mode == mode) {
            return prompts[i].prompt;
        }
    }
    return NULL;
}

static void line_changed(struct ui *ui)
{
    if (ui->mode == UI_ASK_FILTER) {
        ui_set_filter(ui, ui->line);
    }
}

static void remember(struct ui *ui, const char *line)
{
    if (!*line) {
        return;
    }
    if (ui->history.n == ARRAY_SIZE(ui->history.text)) {
        memmove(ui->history.text[0], ui->history.text[1], sizeof(ui->history.text) - sizeof(ui->history.text[0]));
        ui->history.n--;
    }
    hv_strlcpy(ui->history.text[ui->history.n++], line, sizeof(ui->history.text[0]));
}

static void recall(struct ui *ui, int by)
{
    if (ui->mode != UI_ASK_COMMAND || (by < 0 ? ui->history.at == 0 : ui->history.at >= ui->history.n)) {
        return;
    }
    ui->history.at += (unsigned)by;
    hv_strlcpy(ui->line, ui->history.at < ui->history.n ? ui->history.text[ui->history.at] : "", sizeof(ui->line));
    ui->line_len = (unsigned)strlen(ui->line);
}

/* Commands that need the terminal themselves. */
static bool takes_terminal(const char *line)
{
    static const char *const words[] = {"console", "run", "shell", "edit", "help", "events", "vm console", "vm run"};
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
        size_t n = strlen(words[i]);
        if (strncmp(line, words[i], n) == 0 && (line[n] == '\0' || line[n] == ' ')) {
            return true;
        }
    }
    return strstr(line, "--watch") != NULL;
}

/* "%" becomes the VM under the cursor, "%%" a per cent sign. NULL with a message where there is none. */
static char *expand(struct ui *ui, const char *line)
{
    strbuf_auto sb = {0};
    struct model_vm *vm = ui_current(ui);
    for (const char *p = line; *p; p++) {
        if (p[0] == '%' && p[1] == '%') {
            strbuf_addc(&sb, *p++);
        } else if (*p == '%' && !(p > line && isdigit((unsigned char)p[-1]))) {
            if (!vm) {
                ui_say(ui, true, "%% stands for the VM under the cursor; there is none");
                return NULL;
            }
            ui_quote(&sb, vm->name);
        } else {
            strbuf_addc(&sb, *p);
        }
    }
    return sb.err ? NULL : strbuf_detach(&sb, NULL);
}

static void run_line(struct ui *ui)
{
    const char *line = ui->line + strspn(ui->line, " ");
    if (strncmp(line, "hvctl ", 6) == 0) {
        line += 6 + strspn(line + 6, " ");
    }
    if (!*line) {
        return;
    }
    if (strcmp(line, "q") == 0 || strcmp(line, "quit") == 0) {
        ui->effect = UI_QUIT;
        return;
    }
    remember(ui, line);
    struct model_vm *vm = ui_current(ui);
    unsigned host = vm ? vm->host : 0;
    char *whole = expand(ui, line);
    if (whole) {
        for (unsigned i = 0; i < MODEL_HOSTS_MAX; i++) {
            free(ui->command[i]);
            ui->command[i] = NULL;
        }
        ui->command[host] = whole;
        ui->effect = takes_terminal(whole) ? UI_HAND_OVER : UI_RUN;
    }
}

/* "22:20" of the day that is replayed, or "2h" before its moment. */
static bool parse_moment(struct ui *ui, const char *text, uint64_t *ret_ms)
{
    unsigned h, m, s = 0;
    int used = 0;
    uint64_t ns;
    struct hv_error e = {0};
    if ((sscanf(text, "%2u:%2u:%2u%n", &h, &m, &s, &used) == 3 || sscanf(text, "%2u:%2u%n", &h, &m, &used) == 2) &&
        text[used] == '\0' && h < 24 && m < 60 && s < 60) {
        time_t t = (time_t)(ui->m->now_ms / 1000);
        struct tm tm;
        if (!localtime_r(&t, &tm)) {
            return false;
        }
        tm.tm_hour = (int)h;
        tm.tm_min = (int)m;
        tm.tm_sec = (int)s;
        tm.tm_isdst = -1;
        *ret_ms = (uint64_t)mktime(&tm) * 1000;
        return true;
    }
    if (parse_duration(text, "time", &ns, &e) == 0) {
        *ret_ms = ui->m->now_ms > ns / NS_PER_MS ? ui->m->now_ms - ns / NS_PER_MS : 0;
        return true;
    }
    return false;
}

static void line_done(struct ui *ui)
{
    struct hv_error e = {0};
    uint64_t v;
    enum ui_mode mode = ui->mode;
    ui->mode = UI_NORMAL;
    switch (mode) {
    case UI_ASK_FILTER:
        if (ui->filter_bad) {
            ui_set_filter_strict(ui, ui->line, &e);
            ui_say(ui, true, "%s: %s", e.object, e.message);
            ui->mode = UI_ASK_FILTER;
        }
        break;
    case UI_ASK_COMMAND:
        run_line(ui);
        break;
    case UI_ASK_DELAY:
        if (parse_duration(ui->line, ui->line, &v, &e) < 0) {
            ui_say(ui, true, "%s: %s", e.object, e.message);
        } else if (v < UI_DELAY_MIN_NS || v > UI_DELAY_MAX_NS) {
            ui_say(ui, true, "between 100ms and 1h");
        } else {
            ui->delay_ns = ui->number = v;
            ui->effect = UI_SET_DELAY;
        }
        break;
    case UI_ASK_TIME:
        if (parse_moment(ui, ui->line, &v)) {
            ui->number = v;
            ui->effect = UI_GO_TO;
        } else {
            ui_say(ui, true, "%s: no time; 22:20, or 2h for two hours ago", ui->line);
        }
        break;
    default:
        break;
    }
}

static void add_char(struct ui *ui, int key)
{
    char buf[4];
    unsigned n = canvas_utf8((uint32_t)key, buf);
    if (ui->line_len + n < sizeof(ui->line)) {
        memcpy(ui->line + ui->line_len, buf, n);
        ui->line_len += n;
        ui->line[ui->line_len] = '\0';
        line_changed(ui);
    }
}

static void line_key(struct ui *ui, int key)
{
    ui->message[0] = '\0';
    if (key == TOP_KEY_ENTER) {
        line_done(ui);
    } else if (key == TOP_KEY_ESC) {
        if (ui->mode == UI_ASK_FILTER) {
            ui_set_filter(ui, "");
        }
        ui->mode = UI_NORMAL;
        ui->message[0] = '\0';
    } else if (key == TOP_KEY_BACKSPACE) {
        if (!ui->line_len) {
            ui->mode = UI_NORMAL;
            return;
        }
        do {
            ui->line_len--;
        } while (ui->line_len && (ui->line[ui->line_len] & 0xc0) == 0x80);
        ui->line[ui->line_len] = '\0';
        line_changed(ui);
    } else if (key == 'U' - '@') {
        ui->line[ui->line_len = 0] = '\0';
        line_changed(ui);
    } else if (key == TOP_KEY_UP || key == TOP_KEY_DOWN) {
        recall(ui, key == TOP_KEY_UP ? -1 : 1);
    } else if (key == TOP_KEY_TAB && ui->mode == UI_ASK_COMMAND) {
        ui->effect = UI_COMPLETE;
    } else if (key >= ' ' && key != TOP_KEY_BACKSPACE && key < 0x110000) {
        add_char(ui, key);
    }
}

void ui_completion(struct ui *ui, const char *line)
{
    hv_strlcpy(ui->line, line, sizeof(ui->line));
    ui->line_len = (unsigned)strlen(ui->line);
}

/* ---- lists ---- */

static unsigned n_columns(void)
{
    unsigned n = 0;
    while (top_columns.col[n].key) {
        n++;
    }
    return n;
}

static void pick_key(struct ui *ui, int key)
{
    struct ui_table_state *t = ui_table(ui);
    unsigned n = n_columns();
    const struct cli_column *col = &top_columns.col[ui->pick];
    switch (key) {
    case TOP_KEY_UP: case 'k': ui->pick = ui->pick ? ui->pick - 1 : n - 1; break;
    case TOP_KEY_DOWN: case 'j': ui->pick = (ui->pick + 1) % n; break;
    case TOP_KEY_HOME: case 'g': ui->pick = 0; break;
    case TOP_KEY_END: case 'G': ui->pick = n - 1; break;
    case TOP_KEY_ESC: case 'q': ui->mode = UI_NORMAL; break;
    case TOP_KEY_ENTER: case ' ':
        if (ui->mode == UI_PICK_SORT) {
            t->sort = col;
            t->descending = cli_is_number(col->unit) || col->unit == CLI_UNIT_STATUS;
            ui->view_stale = true;
            ui->mode = UI_NORMAL;
        } else if (key == TOP_KEY_ENTER) {
            ui->mode = UI_NORMAL;
        } else if (strcmp(col->key, "name") != 0) {
            char change[80];
            snprintf(change, sizeof(change), "%c%s", top_has(t->keys, col->key) ? '-' : '+', col->key);
            top_choose(&t->keys, change, NULL);
        }
        break;
    default: break;
    }
}

/* A box of w by h in the middle, blank inside. Returns its corner. */
static void box(struct canvas *c, int *w, int *h, int *ret_y, int *ret_x, const char *title)
{
    *w = MIN(*w, c->w);
    *h = MIN(*h, c->h);
    int y = (c->h - *h) / 2, x = (c->w - *w) / 2;
    uint32_t line = c->ascii ? '-' : 0x2500, side = c->ascii ? '|' : 0x2502;
    for (int i = 0; i < *h; i++) {
        canvas_fill(c, y + i, x, *w, ' ', STYLE_NORMAL);
        canvas_put(c, y + i, x, side, STYLE_DIM);
        canvas_put(c, y + i, x + *w - 1, side, STYLE_DIM);
    }
    canvas_fill(c, y, x + 1, *w - 2, line, STYLE_DIM);
    canvas_fill(c, y + *h - 1, x + 1, *w - 2, line, STYLE_DIM);
    canvas_put(c, y, x, c->ascii ? '+' : 0x250c, STYLE_DIM);
    canvas_put(c, y, x + *w - 1, c->ascii ? '+' : 0x2510, STYLE_DIM);
    canvas_put(c, y + *h - 1, x, c->ascii ? '+' : 0x2514, STYLE_DIM);
    canvas_put(c, y + *h - 1, x + *w - 1, c->ascii ? '+' : 0x2518, STYLE_DIM);
    canvas_text(c, y, x + 2, MAX(*w - 4, 0), STYLE_TITLE, title);
    *ret_y = y;
    *ret_x = x;
    c->cursor_y = c->cursor_x = -1;
}

static void draw_pick(struct ui *ui, struct canvas *c)
{
    unsigned n = n_columns();
    int w = 66, h = (int)n + 2, y, x;
    bool sort = ui->mode == UI_PICK_SORT;
    box(c, &w, &h, &y, &x, sort ? " sort by: Enter, Esc " : " columns: Space, Enter ");
    int rows = h - 2, top = (int)ui->pick >= rows ? (int)ui->pick - rows + 1 : 0;
    for (int i = 0; i < rows && top + i < (int)n; i++) {
        const struct cli_column *col = &top_columns.col[top + i];
        bool here = (unsigned)(top + i) == ui->pick;
        bool on = sort ? col == ui_table(ui)->sort : top_has(ui_table(ui)->keys, col->key);
        enum canvas_style style = here ? STYLE_CHOSEN : STYLE_NORMAL;
        canvas_put(c, y + 1 + i, x + 1, here ? '>' : ' ', style);
        canvas_text(c, y + 1 + i, x + 2, w - 3, style, on ? "*" : " ");
        canvas_text(c, y + 1 + i, x + 4, MIN(16, w - 5), style, col->key);
        canvas_text(c, y + 1 + i, x + 20, MAX(w - 21, 0), here ? STYLE_CHOSEN : STYLE_DIM, col->help);
        if (here) {
            c->cursor_y = y + 1 + i;
            c->cursor_x = x + 1;
        }
    }
}

/* ---- memory ---- */

static const struct { const char *label, *option, *help; } fields[UI_FORM_FIELDS] = {
    [UI_FORM_MIN] = {"minimum", "min", "never taken away below this"},
    [UI_FORM_STARTUP] = {"startup", "startup", "what it boots with"},
    [UI_FORM_MAX] = {"maximum", "max", "never given above this"},
    [UI_FORM_BUFFER] = {"buffer %", "buffer", "head-room above demand"},
    [UI_FORM_PRIORITY] = {"priority", "priority", "0 to 100, who gets memory first"},
};

char *ui_form_command(const struct ui_form *f)
{
    strbuf_auto sb = {0};
    bool any = false;
    strbuf_adds(&sb, "memory set");
    for (unsigned i = 0; i < UI_FORM_FIELDS; i++) {
        if (strcmp(f->text[i], f->was[i]) != 0) {
            strbuf_addf(&sb, " --%s ", fields[i].option);
            ui_quote(&sb, f->text[i]);
            any = true;
        }
    }
    strbuf_adds(&sb, " -- ");
    ui_quote(&sb, f->vm);
    return any && !sb.err ? strbuf_detach(&sb, NULL) : NULL;
}

static void form_key(struct ui *ui, int key)
{
    struct ui_form *f = &ui->form;
    char *text = f->text[f->field];
    size_t n = strlen(text);
    switch (key) {
    case TOP_KEY_ESC: ui->mode = UI_NORMAL; return;
    case TOP_KEY_UP: case TOP_KEY_BACK_TAB: f->field = (f->field + UI_FORM_FIELDS - 1) % UI_FORM_FIELDS; return;
    case TOP_KEY_DOWN: case TOP_KEY_TAB: f->field = (f->field + 1) % UI_FORM_FIELDS; return;
    case TOP_KEY_ENTER: {
        char *line = ui_form_command(f);
        ui->mode = UI_NORMAL;
        if (!line) {
            ui_say(ui, false, "nothing changed");
            return;
        }
        for (unsigned i = 0; i < MODEL_HOSTS_MAX; i++) {
            free(ui->command[i]);
            ui->command[i] = NULL;
        }
        ui->command[f->host] = line;
        ui->effect = UI_RUN;
        return;
    }
    case TOP_KEY_BACKSPACE:
        if (n) {
            text[n - 1] = '\0';
        }
        break;
    case 'U' - '@': text[0] = '\0'; break;
    default:
        if (key <= ' ' || key > '~' || n + 1 >= sizeof(f->text[0])) {
            return;
        }
        text[n] = (char)key;
        text[n + 1] = '\0';
        break;
    }
    ui->effect = UI_PREVIEW;
}

void ui_preview(struct ui *ui, bool bad, const char *const *line, unsigned n)
{
    ui->form.preview_bad = bad;
    ui->form.preview_lines = MIN(n, ARRAY_SIZE(ui->form.preview));
    for (unsigned i = 0; i < ui->form.preview_lines; i++) {
        hv_strlcpy(ui->form.preview[i], line[i], sizeof(ui->form.preview[i]));
    }
}

/* Text in lines of w from y on, broken at blanks, none at or below end. Returns the line after it. */
static int draw_wrapped(struct canvas *c, int y, int end, int x, int w, enum canvas_style style, const char *text)
{
    while (*text && y < end && w > 0) {
        size_t n = strlen(text);
        for (char line[120]; n > 0; n--) {
            bool fits = n < sizeof(line) && (text[n] == '\0' || text[n] == ' ');
            snprintf(line, sizeof(line), "%.*s", (int)MIN(n, sizeof(line) - 1), text);
            if (fits && (int)cli_text_width(line) <= w) {
                break;
            }
        }
        n = n ? n : strlen(text);                /* a word that is wider: cut */
        hv_autofree char *line = hv_asprintf("%.*s", (int)n, text);
        canvas_text(c, y++, x, w, style, line ? line : "");
        text += n + strspn(text + n, " ");
    }
    return y;
}

static void draw_form(struct ui *ui, struct canvas *c)
{
    struct ui_form *f = &ui->form;
    char title[600];
    int w = 64, h = UI_FORM_FIELDS + 9, y, x;
    snprintf(title, sizeof(title), " memory of %s ", f->vm);
    box(c, &w, &h, &y, &x, title);
    /* In a low window the field being edited is what is seen. */
    int rows = MIN(UI_FORM_FIELDS, MAX(h - 3, 1));
    unsigned top = (int)f->field >= rows ? f->field - (unsigned)rows + 1 : 0;
    for (unsigned i = top; i < UI_FORM_FIELDS && (int)(i - top) < rows; i++) {
        bool here = i == f->field;
        int at = y + 1 + (int)(i - top);
        canvas_text(c, at, x + 2, 10, here ? STYLE_CHOSEN : STYLE_NORMAL, fields[i].label);
        int used = canvas_text(c, at, x + 13, 14, strcmp(f->text[i], f->was[i]) == 0 ? STYLE_NORMAL : STYLE_ASSIGNED, f->text[i]);
        canvas_text(c, at, x + 30, MAX(w - 31, 0), STYLE_DIM, fields[i].help);
        if (here) {
            c->cursor_y = at;
            c->cursor_x = x + 13 + used;
        }
    }
    int at = y + 2 + UI_FORM_FIELDS;
    for (unsigned i = 0; i < f->preview_lines; i++) {
        at = draw_wrapped(c, at, y + h - 2, x + 2, w - 4, f->preview_bad ? STYLE_WARNING : STYLE_NORMAL, f->preview[i]);
    }
    canvas_text(c, y + h - 2, x + 2, w - 4, STYLE_DIM, "Tab next   Enter set   Esc leave it");
}

/* ---- output and help ---- */

static void scroll_key(struct ui *ui, int key, int page)
{
    long to = (long)ui->pane_top;
    switch (key) {
    case TOP_KEY_UP: case 'k': to--; break;
    case TOP_KEY_DOWN: case 'j': to++; break;
    case TOP_KEY_PAGE_UP: to -= page; break;
    case TOP_KEY_PAGE_DOWN: case ' ': to += page; break;
    case TOP_KEY_HOME: case 'g': to = 0; break;
    case TOP_KEY_END: case 'G': to = INT32_MAX; break;
    case TOP_KEY_ESC: case TOP_KEY_ENTER: case 'q': case '?': case TOP_KEY_F1:
        ui->pane_hidden = ui->mode == UI_PANE;
        ui->mode = UI_NORMAL;
        return;
    default: return;
    }
    ui->pane_top = to < 0 ? 0 : (unsigned)MIN(to, INT32_MAX);      /* drawing clamps it */
}

static unsigned count_lines(const char *text)
{
    unsigned n = 0;
    for (const char *p = text; *p; p++) {
        n += *p == '\n' || !p[1];
    }
    return n;
}

static void draw_lines(struct ui *ui, struct canvas *c, int y, int x, int w, int h, const char *text)
{
    unsigned n = count_lines(text), most = n > (unsigned)h ? n - (unsigned)h : 0, at = 0;
    ui->pane_top = MIN(ui->pane_top, most);
    for (const char *p = text; *p; at++) {
        size_t len = strcspn(p, "\n");
        if (at >= ui->pane_top && at - ui->pane_top < (unsigned)h) {
            hv_autofree char *line = hv_asprintf("%.*s", (int)MIN(len, (size_t)4096), p);
            canvas_text(c, y + (int)(at - ui->pane_top), x, w, STYLE_NORMAL, line ? line : "");
        }
        p += len + (p[len] == '\n');
    }
}

static void draw_pane(struct ui *ui, struct canvas *c)
{
    const char *text = ui->pane ? ui->pane : "";
    char title[300];
    int w = c->w, h = MIN((int)count_lines(text) + 2, MAX(c->h - 2, 3)), y, x;
    snprintf(title, sizeof(title), " %s%s ", ui->pane_title, ui->pane_running ? " ..." : "");
    box(c, &w, &h, &y, &x, title);
    draw_lines(ui, c, y + 1, x + 1, w - 2, h - 2, text);
}

static char *help_text(const struct ui *ui)
{
    struct strbuf sb = {0};
    strbuf_addf(&sb, "hvtop " HV_VERSION ", virtual machines and their memory\n\n");
    for (const struct top_binding *b = top_bindings; b->action != TOP_NONE; b++) {
        if (!b->help || ((b->where & TOP_ONLY_LIVE) && ui->replay) || ((b->where & TOP_ONLY_REPLAY) && !ui->replay)) {
            continue;
        }
        bool off = (b->where & TOP_CHANGES) && ui->read_only;
        strbuf_addf(&sb, "  %-11s %s%s\n", b->shown, b->help, off ? " (off: read-only)" : "");
    }
    strbuf_adds(&sb, "\n  !! Warning: less memory than the guest needs; it is probably paging\n"
                     "   ! Low: what it needs, and less than its buffer     - no report    ? host silent\n"
                     "  bar: R the host itself  # assigned  - other programs  . free  > demand beyond it\n");
    return strbuf_detach(&sb, NULL);
}

static void draw_help(struct ui *ui, struct canvas *c)
{
    hv_autofree char *text = help_text(ui);
    int w = MIN(c->w, 90), h = MIN(text ? (int)count_lines(text) + 2 : 3, c->h), y, x;
    box(c, &w, &h, &y, &x, " help: Esc ");
    draw_lines(ui, c, y + 1, x + 1, w - 2, h - 2, text ? text : "");
}

void ui_output(struct ui *ui, const char *text, bool done, int code)
{
    struct strbuf sb = {0};
    strbuf_adds(&sb, ui->pane ? ui->pane : "");
    if (sb.len < 1u << 20) {
        strbuf_adds(&sb, text);
    }
    free(ui->pane);
    ui->pane = strbuf_detach(&sb, NULL);
    const char *shown = ui->pane ? ui->pane : "";
    unsigned lines = count_lines(shown);
    if (done) {
        ui->pane_running = false;
    }
    /* One line stands in the footer; more, or what is still growing, opens the pane. */
    if (ui->pane_hidden) {
        if (done) {
            ui_say(ui, code != 0, code ? "%s: exit code %d" : "%s: done", ui->pane_title, code);
        }
    } else if (lines > 1 || (lines == 1 && !done)) {
        if (lines > 1) {
            ui->message[0] = '\0';
            ui->mode = ui->mode == UI_NORMAL ? UI_PANE : ui->mode;
        }
    } else if (done && lines == 1) {
        ui_say(ui, code != 0, "%.*s", (int)strcspn(shown, "\n"), shown);
    } else if (done) {
        ui_say(ui, code != 0, code ? "%s: exit code %d" : "%s: done", ui->pane_title, code);
    }
}

/* ---- all of them ---- */

void ui_dialog_key(struct ui *ui, int key)
{
    switch (ui->mode) {
    case UI_ASK_FILTER: case UI_ASK_COMMAND: case UI_ASK_DELAY: case UI_ASK_TIME:
        line_key(ui, key);
        break;
    case UI_PICK_SORT: case UI_PICK_COLUMNS:
        pick_key(ui, key);
        break;
    case UI_FORM:
        form_key(ui, key);
        break;
    case UI_PANE: case UI_HELP:
        scroll_key(ui, key, MAX(ui->body_h - 2, 5));
        break;
    case UI_CONFIRM:
        ui->mode = UI_NORMAL;
        if (key != 'y' && key != 'Y') {
            ui_say(ui, false, "left as it is");
            break;
        }
        for (unsigned i = 0; i < MODEL_HOSTS_MAX; i++) {
            free(ui->command[i]);
            ui->command[i] = hv_steal(ui->confirmed[i]);
        }
        ui->effect = UI_RUN;
        break;
    default:
        break;
    }
}

void ui_draw_dialog(struct ui *ui, struct canvas *c)
{
    const char *prompt = prompt_of(ui->mode);
    int y = c->h - 1;
    if (prompt && !(ui->mode == UI_ASK_FILTER && ui->message[0])) {
        canvas_fill(c, y, 0, c->w, ' ', STYLE_NORMAL);
        if (ui->message[0] && y > 0) {           /* what TAB found */
            canvas_fill(c, y - 1, 0, c->w, ' ', STYLE_NORMAL);
            canvas_text(c, y - 1, 0, -1, STYLE_DIM, ui->message);
        }
        int x = canvas_text(c, y, 0, -1, STYLE_KEY, prompt);
        /* The end of a long line is what is being typed. */
        const char *from = ui->line;
        while ((int)cli_text_width(from) > MAX(c->w - x - 1, 1)) {
            canvas_next_char(&from);
        }
        x += canvas_text(c, y, x, -1, ui->filter_bad && ui->mode == UI_ASK_FILTER ? STYLE_LOW : STYLE_NORMAL, from);
        c->cursor_y = y;
        c->cursor_x = MIN(x, c->w - 1);
        return;
    }
    switch (ui->mode) {
    case UI_PICK_SORT: case UI_PICK_COLUMNS: draw_pick(ui, c); break;
    case UI_FORM: draw_form(ui, c); break;
    case UI_PANE: draw_pane(ui, c); break;
    case UI_HELP: draw_help(ui, c); break;
    case UI_CONFIRM: {
        canvas_fill(c, y, 0, c->w, ' ', STYLE_NORMAL);
        int x = canvas_text(c, y, 0, MAX(c->w - 6, 0), STYLE_KEY, ui->question);
        x += canvas_text(c, y, x, -1, STYLE_KEY, " y/n ");
        c->cursor_y = y;
        c->cursor_x = MIN(x, c->w - 1);
        break;
    }
    default: break;
    }
}
