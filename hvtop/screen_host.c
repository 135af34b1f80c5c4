/* The host: its memory by use, the balancer, what each VM wants and has, the last moves. */
#include <math.h>

#include "hv/base/units.h"
#include "hvtop/draw.h"
#include "hvtop/ui.h"

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* Lines scroll together: what lies above list_top is not drawn. */
struct lines { struct ui *ui; struct canvas *c; int y, h; unsigned n; };

static int next_line(struct lines *l)
{
    unsigned at = l->n++;
    return at >= l->ui->list_top && at - l->ui->list_top < (unsigned)l->h ? l->y + (int)(at - l->ui->list_top) : -1;
}

static void memory_line(struct lines *l, const char *what, double bytes, double total, const char *help, enum canvas_style style)
{
    int y = next_line(l);
    char a[32];
    if (y < 0) {
        return;
    }
    canvas_text(l->c, y, 2, -1, STYLE_NORMAL, what);
    canvas_right(l->c, y, 24, STYLE_NORMAL, draw_size(bytes, a, sizeof(a)));
    int w = MIN(l->c->w - 60, 40);
    if (w > 8 && total > 0) {
        struct draw_part part = {isnan(bytes) ? 0 : bytes, '#', 0x2588, style};
        draw_bar(l->c, y, 26, w, total, &part, 1);
    }
    canvas_text(l->c, y, w > 8 ? 28 + w : 26, -1, STYLE_DIM, help);
}

static void title(struct lines *l, const char *text)
{
    int y = next_line(l);
    canvas_text(l->c, y, 0, -1, STYLE_TITLE, text);
}

/* Nodes only where there are several: of one, all is said. */
static void node_lines(struct lines *l, const json_t *info)
{
    const json_t *nodes = json_object_get(info, "numa");
    size_t n = MIN(json_array_size(nodes), (size_t)64);
    for (size_t i = 0; i < n && n > 1; i++) {
        const json_t *o = json_array_get(nodes, i);
        char what[32], help[64], a[32];
        double all = number(o, "total"), left = number(o, "free");
        snprintf(what, sizeof(what), "node %.0f", number(o, "node") >= 0 ? number(o, "node") : 0);
        snprintf(help, sizeof(help), "in use; %s free", draw_size(left, a, sizeof(a)));
        memory_line(l, what, all - left, all, help, STYLE_ASSIGNED);
    }
}

/* Pressure stall information. */
static void waiting_line(struct lines *l, const json_t *psi)
{
    static const char *const what[] = {"cpu", "memory", "io"};
    int y = next_line(l), x = 2;
    if (y < 0) {
        return;
    }
    x += canvas_text(l->c, y, x, -1, STYLE_NORMAL, "waiting");
    for (unsigned i = 0; i < ARRAY_SIZE(what); i++) {
        double pct = number(psi, what[i]);
        x += isnan(pct) ? canvas_printf(l->c, y, x, STYLE_DIM, "   %s -", what[i])
                        : canvas_printf(l->c, y, x, pct >= 10 ? STYLE_LOW : STYLE_NORMAL, "   %s %.1f%%", what[i], pct);
    }
    canvas_text(l->c, y, x + 3, -1, STYLE_DIM, "of the last 10 s somebody waited for it (PSI)");
}

static void host_lines(struct lines *l, unsigned host)
{
    const struct model_host *h = &l->ui->m->host[host];
    const json_t *m = json_object_get(h->info, "memory");
    struct model_sums s = model_sum(l->ui->m, host);
    char a[32], b[32], line[300];
    double total = number(m, "total"), cap = number(m, "vm_memory");
    const char *kernel = json_string_value(json_object_get(h->info, "kernel"));
    const char *version = json_string_value(json_object_get(h->info, "version"));
    const char *balancer = json_string_value(json_object_get(h->info, "balancer"));
    snprintf(line, sizeof(line), "%s  Linux %s  hv %s  %.0f CPUs", h->name, kernel ? kernel : "-", version ? version : "-",
             number(h->info, "cpus"));
    title(l, line);
    memory_line(l, "total", total, total, "what the host has", STYLE_ROOT);
    memory_line(l, "root", number(m, "reserve"), total, "kept for the host itself", STYLE_ROOT);
    memory_line(l, "page tables", number(m, "page_tables"), total, "of all processes; a part of the above", STYLE_ROOT);
    memory_line(l, "overhead", number(m, "overhead"), total, "workers beside their guests' memory", STYLE_ROOT);
    memory_line(l, "pool", number(m, "pool"), total, cap > 0 ? "for all VMs, capped by host set --vm-memory" : "for all VMs", STYLE_ASSIGNED);
    memory_line(l, "assigned", (double)s.assigned, total, "guests have it", STYLE_ASSIGNED);
    memory_line(l, "charged", number(m, "charged"), total, "they have it, or it is on its way", STYLE_ASSIGNED);
    memory_line(l, "demand", (double)s.demand, total, "guests need it, without buffers", STYLE_NORMAL);
    memory_line(l, "free", number(m, "free"), total, "may be given away now", STYLE_DIM);
    memory_line(l, "available", number(m, "available"), total, "by the host's own account", STYLE_DIM);
    node_lines(l, h->info);
    waiting_line(l, json_object_get(h->info, "psi"));
    next_line(l);
    int y = next_line(l);
    int x = canvas_text(l->c, y, 0, -1, STYLE_TITLE, "Balancer  ");
    x += canvas_text(l->c, y, x, -1, balancer && strcmp(balancer, "short") == 0 ? STYLE_WARNING : STYLE_NORMAL, balancer ? balancer : "-");
    canvas_printf(l->c, y, x, STYLE_NORMAL, "   spike pool %s   pressure %.0f%% now, %.0f%% on average",
                  draw_size(number(m, "spike_pool"), a, sizeof(a)), number(m, "current_pressure_pct"),
                  number(m, "average_pressure_pct"));
    for (size_t i = 0; i < l->ui->n_view; i++) {
        const struct model_vm *vm = l->ui->view[i];
        double has = model_number(vm, "memory", "assigned"), wants = model_number(vm, "memory", "target");
        if (vm->host != host || isnan(has) || isnan(wants)) {
            continue;
        }
        y = next_line(l);
        canvas_text(l->c, y, 2, 20, ui_status_style(model_text(vm, "memory", "status")), vm->name);
        double gap = wants - has;
        canvas_printf(l->c, y, 24, STYLE_NORMAL, "has %7s   gets %7s   %s%s", draw_size(has, a, sizeof(a)),
                      draw_size(wants, b, sizeof(b)), fabs(gap) < 1 ? "at rest" : gap > 0 ? "+" : "-",
                      fabs(gap) < 1 ? "" : draw_size(fabs(gap), line, sizeof(line)));
    }
    next_line(l);
}

void ui_draw_host(struct ui *ui, struct canvas *c, int y, int h)
{
    struct lines l = {ui, c, y, h, 0};
    ui->body_y = y;
    ui->body_h = h;
    for (unsigned i = 0; i < ui->m->n_hosts; i++) {
        host_lines(&l, i);
    }
    title(&l, "Last moves and warnings");
    unsigned n = 0;
    for (unsigned i = ui->m->n_events; i-- > 0 && n < 20;) {
        const struct model_event *ev = model_event_at(ui->m, i);
        const char *kind = json_string_value(json_object_get(ev->event, "kind"));
        if (kind && strcmp(kind, "memory") == 0) {
            int at = next_line(&l);
            n++;
            if (at >= 0) {
                ui_draw_event(ui, c, at, ev);
            }
        }
    }
    if (!n) {
        canvas_text(c, next_line(&l), 2, -1, STYLE_DIM, "none");
    }
    unsigned most = l.n > (unsigned)MAX(h, 1) ? l.n - (unsigned)MAX(h, 1) : 0;
    if (ui->list_top > most) {         /* scrolled past the end: once more from there */
        ui->list_top = most;
        for (int i = y; i < y + h; i++) {
            canvas_fill(c, i, 0, c->w, ' ', STYLE_NORMAL);
        }
        ui_draw_host(ui, c, y, h);
    }
}
