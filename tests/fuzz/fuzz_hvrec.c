/*
 * A recording from anybody: read, jumped in, taken into the model and drawn, with a few keys. The
 * input is JSON lines (the seeds are), compressed or not. Nothing that is drawn may steer a terminal.
 */
#include <locale.h>

#include "hvtop/record.h"
#include "hvtop/ui.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define LINES_MAX 2000

static void draw(struct ui *ui, struct canvas *c)
{
    ui_draw(ui, c);
    for (int i = 0; i < c->w * c->h; i++) {
        hv_assert(c->cell[i].ch == 0 || (c->cell[i].ch >= ' ' && (c->cell[i].ch < 0x7f || c->cell[i].ch >= 0xa0)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct model m;
    static const int keys[] = {'j', '\r', '\t', 27, '2', '5', '6', '1', 's', '\r', 'r', '/', 'a', '\r', 27, 'm', 27, 'z', '?', 27};
    struct replay *r;
    struct ui ui;
    struct canvas c = {0};
    setlocale(LC_CTYPE, "C.UTF-8");
    if (replay_open_mem(data, len, &r, NULL) < 0) {
        return 0;
    }
    model_init(&m, NULL, replay_hosts(r));
    if (ui_init(&ui, &m) == 0 && canvas_resize(&c, 100, 30) == 0) {
        json_t *o;
        for (unsigned i = 0; i < LINES_MAX && (o = replay_next(r)); i++) {
            model_apply(&m, o);
            json_decref(o);
            if (i % 8 == 0) {
                draw(&ui, &c);
            }
        }
        for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
            ui_key(&ui, keys[i]);
            draw(&ui, &c);
        }
        uint64_t last = replay_last_ms(r), first = replay_first_ms(r);
        replay_seek(r, first + (last - first) / 2);
        json_decref(replay_next(r));
        replay_before(r, last);
    }
    canvas_fini(&c);
    ui_fini(&ui);
    model_fini(&m);
    replay_close(r);
    return 0;
}
