/* Events: the last ones under a table, and all of them on a screen of their own. */
#include <stdio.h>

#include "hvtop/draw.h"
#include "hvtop/ui.h"

static const char *text(const struct model_event *ev, const char *key)
{
    const char *s = json_string_value(json_object_get(ev->event, key));
    return s ? s : "";
}

void ui_draw_event(struct ui *ui, struct canvas *c, int y, const struct model_event *ev)
{
    const char *severity = text(ev, "severity"), *vm = text(ev, "vm"), *hint = text(ev, "hint"), *kind = text(ev, "kind");
    enum canvas_style style = strcmp(severity, "error") == 0 ? STYLE_WARNING : strcmp(severity, "warning") == 0 ? STYLE_LOW : STYLE_NORMAL;
    char when[16] = "";
    time_t t = (time_t)(ev->time_ms / 1000);
    struct tm tm;
    if (localtime_r(&t, &tm)) {
        strftime(when, sizeof(when), "%H:%M:%S", &tm);
    }
    int x = canvas_text(c, y, 0, -1, STYLE_DIM, when) + 1;
    if (c->w >= 120) {
        x += 1;
        if (ui->m->n_hosts > 1) {
            canvas_text(c, y, x, 9, STYLE_NORMAL, ui->m->host[ev->host].name);
            x += 10;
        }
        canvas_text(c, y, x, 9, STYLE_DIM, kind);
        x += 10;
    }
    if (*vm) {
        x += canvas_text(c, y, x, 40, style, vm);
        x += canvas_text(c, y, x, -1, style, ": ");
    } else if (c->w < 120) {
        x += canvas_text(c, y, x, -1, STYLE_DIM, kind);
        x += canvas_text(c, y, x, -1, STYLE_DIM, ": ");
    }
    x += canvas_text(c, y, x, -1, style, text(ev, "message"));
    if (*hint && x + 12 < c->w) {
        canvas_printf(c, y, x + 4, STYLE_DIM, "try: %s", hint);
    }
}

void ui_draw_last_events(struct ui *ui, struct canvas *c, int y, int h, const char *vm)
{
    uint64_t until = ui->look_ms ? ui->look_ms : UINT64_MAX;
    /* Newest first, as the eye finds it below a table that stands still. */
    int n = 0;
    for (unsigned i = ui->m->n_events; i-- > 0 && n < h;) {
        const struct model_event *ev = model_event_at(ui->m, i);
        if (ev->time_ms <= until && (!vm || strcmp(text(ev, "vm"), vm) == 0)) {
            ui_draw_event(ui, c, y + n++, ev);
        }
    }
}

void ui_draw_events(struct ui *ui, struct canvas *c, int y, int h)
{
    unsigned fit = 0, first, rows = (unsigned)MAX(h, 1);
    for (unsigned i = 0; i < ui->m->n_events; i++) {
        fit += ui_event_fits(ui, model_event_at(ui->m, i));
    }
    unsigned most = fit > rows ? fit - rows : 0;
    ui->list_top = ui->list_end ? most : MIN(ui->list_top, most);
    ui->list_end = ui->list_end || ui->list_top == most;
    first = ui->list_top;
    ui->body_y = y;
    ui->body_h = h;
    unsigned seen = 0, drawn = 0;
    for (unsigned i = 0; i < ui->m->n_events && drawn < rows; i++) {
        const struct model_event *ev = model_event_at(ui->m, i);
        if (ui_event_fits(ui, ev) && seen++ >= first) {
            ui_draw_event(ui, c, y + (int)drawn++, ev);
        }
    }
    if (!fit) {
        canvas_text(c, y, 0, -1, STYLE_DIM, ui->m->n_events ? "no event fits the filter" : "nothing has happened yet");
    }
}
