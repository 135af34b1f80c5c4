/* The frame around every screen, the header of the hosts, and the tables of VMs. */
#include <math.h>

#include "hv/base/units.h"
#include "hvtop/draw.h"
#include "hvtop/ui.h"

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *text(const json_t *o, const char *key, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : otherwise;
}

/* What stands where the clock does: that this is not now, or not live. */
static void moment(const struct ui *ui, char *buf, size_t size, bool date)
{
    char clock[48], ago[32];
    ui_clock(ui, clock, sizeof(clock), date);
    if (ui->replay && ui->at_end) {
        snprintf(buf, size, "end  %s", clock);
    } else if (ui->replay && ui->speed > 0) {
        snprintf(buf, size, "replay x%g  %s", ui->speed, clock);
    } else if (ui->replay) {
        snprintf(buf, size, "replay  %s", clock);
    } else if (ui->look_ms) {
        snprintf(buf, size, "%s", draw_ago(ui_ago_ms(ui), ago, sizeof(ago)));
    } else {
        snprintf(buf, size, "%s%s", ui->paused ? "paused  " : "", clock);
    }
}

/* Memory and CPU of a host at the moment that is looked at. Bytes, per cent; NAN unknown. */
struct load { double total, root, assigned, demand, wanted, free, cpu, disk; };

static struct load load_of(const struct ui *ui, unsigned host)
{
    const struct model_host *h = &ui->m->host[host];
    const json_t *mem = json_object_get(h->info, "memory");
    struct model_sums s = model_sum(ui->m, host);
    struct load l = {
        .root = number(mem, "reserve") + number(mem, "overhead"),
        .assigned = (double)s.assigned,
        .demand = (double)s.demand,
        .wanted = (double)s.buffer_wanted,
        .free = number(mem, "free"),
        .cpu = number(h->info, "cpu_pct"),
    };
    l.disk = NAN;
    for (size_t i = 0; i < ui->m->n_vms; i++) {
        const struct model_vm *vm = ui->m->vm[i];
        double rw = vm->host == host ? model_number(vm, "disk", "read") + model_number(vm, "disk", "write") : NAN;
        l.disk = isnan(rw) ? l.disk : isnan(l.disk) ? rw : l.disk + rw;
    }
    bool capped = number(mem, "vm_memory") > 0;
    l.total = capped ? l.root + number(mem, "pool") : number(mem, "total");
    if (ui->look_ms) {
        struct series_point p = series_at(&h->series, SERIES_FINE, ui_time_ms(ui, host) / series_step_ms(SERIES_FINE));
        l.assigned = p.assigned == SERIES_UNKNOWN ? NAN : (double)p.assigned * MIB;
        l.demand = p.demand == SERIES_UNKNOWN ? NAN : (double)p.demand * MIB;
        l.cpu = p.cpu == SERIES_CPU_UNKNOWN ? NAN : p.cpu / 10.0;
        l.wanted = l.free = l.disk = NAN;
    }
    return l;
}

/* "disk 84M/s", "" where nothing is known. */
static const char *io_text(const struct load *l, char *buf, size_t size)
{
    char a[32];
    snprintf(buf, size, isnan(l->disk) ? "" : "disk %s/s", draw_size(l->disk, a, sizeof(a)));
    return buf;
}

static void memory_bar(struct canvas *c, int y, int x, int w, const struct load *l)
{
    double shown_free = isnan(l->free) ? MAX(l->total - l->root - l->assigned, 0) : l->free;
    double other = l->total - l->root - l->assigned - shown_free;
    struct draw_part part[] = {
        {l->root, 'R', 0x2593, STYLE_ROOT},
        {l->assigned, '#', 0x2588, STYLE_ASSIGNED},
        {other > l->total / 100 ? other : 0, '-', 0x2592, STYLE_DIM},
    };
    draw_bar(c, y, x, w, l->total, part, ARRAY_SIZE(part));
    if (l->demand > l->assigned) {          /* more is needed than is there */
        canvas_put(c, y, x + w - 2, '>', STYLE_WARNING);
    }
}

static void cpu_bar(struct canvas *c, int y, int x, int w, double pct)
{
    struct draw_part part = {isnan(pct) ? 0 : pct, '|', 0x2588, STYLE_BUSY};
    draw_bar(c, y, x, w, 100, &part, 1);
}

static void count_vms(const struct model_sums *s, char *buf, size_t size)
{
    int n = snprintf(buf, size, "%u VM%s: %u running", s->vms, s->vms == 1 ? "" : "s", s->running);
    if (s->paused && n > 0 && (size_t)n < size) {
        n += snprintf(buf + n, size - (size_t)n, ", %u paused", s->paused);
    }
    if (s->off && n > 0 && (size_t)n < size) {
        snprintf(buf + n, size - (size_t)n, ", %u off", s->off);
    }
}

static struct model_sums sum_all(const struct ui *ui)
{
    struct model_sums all = {0};
    for (unsigned i = 0; i < ui->m->n_hosts; i++) {
        struct model_sums s = model_sum(ui->m, i);
        all.vms += s.vms;
        all.running += s.running;
        all.paused += s.paused;
        all.off += s.off;
        all.assigned += s.assigned;
        all.demand += s.demand;
    }
    return all;
}

/* "cannot connect: ...": a host that does not answer says so in its place. */
static bool draw_down(const struct ui *ui, struct canvas *c, int y, unsigned host)
{
    const struct model_host *h = &ui->m->host[host];
    if (h->up || !h->error[0]) {
        return false;
    }
    size_t n = strlen(h->name);
    bool said = strncmp(h->error, h->name, n) == 0 && n > 0;
    char line[500];
    static const char again[] = "; trying again";
    snprintf(line, sizeof(line), "%s%s%s", said ? "" : h->name, said ? "" : ": ", h->error);
    int room = c->w - (int)sizeof(again) + 1;
    strbuf_auto cut = {0};
    cli_cut(&cut, line, (unsigned)MAX(room, 1), c->ascii);
    int x = canvas_text(c, y, 0, MAX(room, 1), STYLE_ERROR, cut.buf ? cut.buf : line);
    canvas_text(c, y, x, -1, STYLE_DIM, again);
    return true;
}

/* One host in full: three lines of the 80 columns that are the least. */
static int header_narrow(const struct ui *ui, struct canvas *c)
{
    const struct model_host *h = &ui->m->host[0];
    struct load l = load_of(ui, 0);
    char a[32], b[32], d[32], clock[80], vms[80], age[32];
    struct model_sums s = sum_all(ui);
    moment(ui, clock, sizeof(clock), false);
    count_vms(&s, vms, sizeof(vms));

    int x = canvas_text(c, 0, 0, -1, STYLE_TITLE, "hvtop");
    x += 2 + canvas_text(c, 0, x + 2, c->w - x - 30, STYLE_TITLE, h->name);
    int clock_x = canvas_right(c, 0, c->w, STYLE_NORMAL, clock);
    canvas_right(c, 0, clock_x - 4, STYLE_NORMAL, vms);
    char about[100];
    draw_age(number(h->info, "uptime_s"), age, sizeof(age));
    for (int full = 1; full >= 0; full--) {
        snprintf(about, sizeof(about), full ? "engine %2$s  up %1$s" : "up %s", age, text(h->info, "engine", "-"));
        if (x + 2 + (int)strlen(about) + 2 < clock_x - 4 - (int)strlen(vms)) {
            canvas_text(c, 0, x + 2, -1, STYLE_NORMAL, about);
            break;
        }
    }
    if (draw_down(ui, c, 1, 0)) {
        return 2;
    }
    int bar = MIN(MAX(c->w / 2 + 2, 10), c->w - 38);
    canvas_text(c, 1, 0, -1, STYLE_TITLE, "Mem");
    canvas_text(c, 3, 0, -1, STYLE_TITLE, "CPU");
    if (bar >= 10) {
        memory_bar(c, 1, 4, bar, &l);
        cpu_bar(c, 3, 4, bar, l.cpu);
    } else {
        bar = 0;
    }
    char line[200];
    snprintf(line, sizeof(line), "%s  root %s  free %s", draw_size(l.total, a, sizeof(a)), draw_size(l.root, b, sizeof(b)),
             draw_size(l.free, d, sizeof(d)));
    canvas_right(c, 1, c->w, STYLE_NORMAL, line);
    x = 4 + canvas_printf(c, 2, 4, STYLE_NORMAL, "assigned ");
    x += canvas_text(c, 2, x, -1, STYLE_ASSIGNED, draw_size(l.assigned, a, sizeof(a)));
    x += canvas_printf(c, 2, x, STYLE_NORMAL, "  demand %s  buffer wanted %s", draw_size(l.demand, a, sizeof(a)),
                       draw_size(l.wanted, b, sizeof(b)));
    const char *balancer = text(h->info, "balancer", "-");
    snprintf(line, sizeof(line), "balancer: %s", balancer);
    if (x + (int)strlen(line) + 1 < c->w) {
        canvas_right(c, 2, c->w, strcmp(balancer, "short") == 0 ? STYLE_WARNING : STYLE_NORMAL, line);
    }
    x = bar ? 5 + bar : 4;
    x += canvas_printf(c, 3, x, STYLE_NORMAL, isnan(l.cpu) ? "- of %.0f" : "%2$.0f%% of %1$.0f", number(h->info, "cpus"), l.cpu);
    canvas_text(c, 3, x + 3, -1, STYLE_NORMAL, io_text(&l, line, sizeof(line)));
    return 4;
}

/* Wide: a title, then two lines a host. */
static int header_wide(const struct ui *ui, struct canvas *c)
{
    char clock[80], vms[80], name[80] = "", a[32], b[32], d[32], f[32];
    struct model_sums s = sum_all(ui);
    unsigned up = 0, longest = 4;
    moment(ui, clock, sizeof(clock), true);
    count_vms(&s, vms, sizeof(vms));
    for (unsigned i = 0; i < ui->m->n_hosts; i++) {
        size_t n = strlen(name);
        snprintf(name + n, sizeof(name) - n, "%s%s", i ? ", " : "", ui->m->host[i].name);
        up += ui->m->host[i].up;
        longest = MAX(longest, (unsigned)strlen(ui->m->host[i].name));
    }
    longest = MIN(longest, 24);
    int x = canvas_text(c, 0, 0, -1, STYLE_TITLE, "hvtop " HV_VERSION);
    x += 3 + canvas_text(c, 0, x + 3, 60, STYLE_TITLE, name);
    x += 3 + canvas_printf(c, 0, x + 3, STYLE_NORMAL, "engine %s", text(ui->m->host[0].info, "engine", "-"));
    canvas_printf(c, 0, x + 3, STYLE_NORMAL, "%u host%s up", up, up == 1 ? "" : "s");
    canvas_right(c, 0, canvas_right(c, 0, c->w, STYLE_NORMAL, clock) - 8, STYLE_NORMAL, vms);

    int y = 2, left = (int)longest + 2, bar = MIN(60, c->w - left - 100);
    bar = MAX(bar, 12);
    for (unsigned i = 0; i < ui->m->n_hosts && y + 1 < c->h; i++) {
        const struct model_host *h = &ui->m->host[i];
        struct load l = load_of(ui, i);
        if (draw_down(ui, c, y, i)) {
            y++;
            continue;
        }
        canvas_text(c, y, 0, (int)longest, STYLE_TITLE, h->name);
        canvas_text(c, y, left, -1, STYLE_TITLE, "Mem");
        memory_bar(c, y, left + 4, bar, &l);
        x = left + 4 + bar;
        x += 1 + canvas_printf(c, y, x + 1, STYLE_NORMAL, "%6s   root %6s   assigned ", draw_size(l.total, a, sizeof(a)),
                               draw_size(l.root, b, sizeof(b)));
        x += canvas_printf(c, y, x, STYLE_ASSIGNED, "%6s", draw_size(l.assigned, a, sizeof(a)));
        canvas_printf(c, y, x, STYLE_NORMAL, "   demand %6s   buffer wanted %6s   free %6s", draw_size(l.demand, a, sizeof(a)),
                      draw_size(l.wanted, d, sizeof(d)), draw_size(l.free, f, sizeof(f)));
        canvas_text(c, y + 1, left, -1, STYLE_TITLE, "CPU");
        cpu_bar(c, y + 1, left + 4, bar, l.cpu);
        x = left + 4 + bar;
        x += 1 + (isnan(l.cpu) ? canvas_printf(c, y + 1, x + 1, STYLE_NORMAL, "     -")
                               : canvas_printf(c, y + 1, x + 1, STYLE_NORMAL, "%5.0f%%", l.cpu));
        char io[48];
        io_text(&l, io, sizeof(io));
        x += canvas_printf(c, y + 1, x, STYLE_NORMAL, "   %.0f threads   %s%sbalancer: ", number(h->info, "cpus"), io, *io ? "   " : "");
        const char *balancer = text(h->info, "balancer", "-");
        canvas_text(c, y + 1, x, -1, strcmp(balancer, "short") == 0 ? STYLE_WARNING : STYLE_NORMAL, balancer);
        char age[40];
        snprintf(a, sizeof(a), "up %s", draw_age(number(h->info, "uptime_s"), age, sizeof(age)));
        canvas_right(c, y + 1, c->w, STYLE_NORMAL, a);
        y += 2;
    }
    return y + 1;
}

/* One line a host. */
static int header_folded(const struct ui *ui, struct canvas *c, int hosts)
{
    char clock[80], line[200], a[32], b[32], d[32];
    moment(ui, clock, sizeof(clock), false);
    int clock_x = c->w >= 34 ? canvas_right(c, 0, c->w, STYLE_NORMAL, clock) : c->w;
    for (int i = 0; i < hosts && i < c->h; i++) {
        const struct model_host *h = &ui->m->host[i];
        struct load l = load_of(ui, (unsigned)i);
        if (draw_down(ui, c, i, (unsigned)i)) {
            continue;
        }
        int x = canvas_text(c, i, 0, MIN(c->w, 20), STYLE_TITLE, h->name);
        snprintf(line, sizeof(line), "  %s of %s  demand %s  cpu %.0f%%  %s", draw_size(l.assigned, a, sizeof(a)),
                 draw_size(l.total, b, sizeof(b)), draw_size(l.demand, d, sizeof(d)), isnan(l.cpu) ? 0 : l.cpu,
                 text(h->info, "balancer", "-"));
        canvas_text(c, i, x, MAX((i ? c->w : clock_x - 1) - x, 0), STYLE_NORMAL, line);
    }
    return MIN(hosts, c->h);
}

int ui_draw_header(struct ui *ui, struct canvas *c)
{
    int hosts = (int)ui->m->n_hosts;
    if (ui->fold || c->h < 16 || c->w < 60 || (c->w < 140 && hosts > 1) || 2 * hosts + 12 > c->h) {
        return header_folded(ui, c, MIN(hosts, MAX(c->h / 3, 1)));
    }
    return c->w >= 140 ? header_wide(ui, c) : header_narrow(ui, c);
}

/* "[1 Memory] 2 CPU ...   by STATUS  every 2s" */
static void tabs(const struct ui *ui, struct canvas *c, int y)
{
    static const char *const words[UI_SCREEN_COUNT] = {"Memory", "CPU", "Disk", "Net", "Host", "Events"};
    unsigned table = ui_table_index(ui->screen);
    const struct ui_table_state *t = &ui->table[table % UI_TABLES];
    int x = 0;
    bool small = c->w < 60;
    for (unsigned i = 0; i < UI_SCREEN_COUNT; i++) {
        bool here = ui->screen == i, none = i == UI_NET;
        if (small && !here) {
            continue;
        }
        x += canvas_printf(c, y, x, here ? STYLE_CHOSEN : none ? STYLE_DIM : STYLE_NORMAL, here ? "[%u %s]" : "%u %s", i + 1, words[i]);
        x += here ? 1 : 2;
    }
    /* From the left, what matters most: the first that does not fit ends it. */
    char part[4][200];
    unsigned n = 0;
    if (ui->filter_text[0]) {
        snprintf(part[n++], sizeof(part[0]), "filter: %.100s%s", ui->filter_text, ui->filter_bad ? " (?)" : "");
    }
    if (table < UI_TABLES && t->sort) {
        bool usual = t->descending == (cli_is_number(t->sort->unit) || t->sort->unit == CLI_UNIT_STATUS);
        snprintf(part[n++], sizeof(part[0]), "by %s%s", top_look(t->sort->key)->head, usual ? "" : " reversed");
    }
    if (!ui->replay) {
        bool ms = ui->delay_ns < NS_PER_SEC;
        snprintf(part[n++], sizeof(part[0]), "every %g%s", (double)ui->delay_ns / (double)(ms ? NS_PER_MS : NS_PER_SEC), ms ? "ms" : "s");
    }
    if (ui->recording && c->w >= 120) {
        char written[32];
        snprintf(part[n++], sizeof(part[0]), "recording to %.150s %s", ui->recording, draw_size((double)ui->recorded, written, sizeof(written)));
    }
    strbuf_auto right = {0};
    for (unsigned i = 0; i < n && x + (int)right.len + 3 + (int)strlen(part[i]) <= c->w; i++) {
        strbuf_addf(&right, "%s%s", i ? "  " : "", part[i]);
    }
    if (right.buf) {
        canvas_right(c, y, c->w, STYLE_NORMAL, right.buf);
    }
}

/* Keys of the screen, as many as fit; or what was said last. */
static void footer(struct ui *ui, struct canvas *c, int y)
{
    if (ui->message[0]) {
        canvas_text(c, y, 0, -1, ui->message_error ? STYLE_ERROR : STYLE_NORMAL, ui->message);
        return;
    }
    unsigned where = ui->detail ? TOP_ON_DETAIL : ui_table_index(ui->screen) < UI_TABLES ? TOP_ON_TABLE : TOP_ON_LIST;
    int x = 0, quit = c->w >= 44 ? 14 : 6;
    if (ui->detail) {
        x = canvas_text(c, y, 0, -1, STYLE_KEY, "Esc");
        x += 2 + canvas_text(c, y, x, -1, STYLE_NORMAL, " back");
    }
    for (const struct top_binding *b = top_bindings; b->action != TOP_NONE; b++) {
        bool here = (b->where & where) && b->foot && !((b->where & TOP_ONLY_LIVE) && ui->replay) &&
                    !((b->where & TOP_ONLY_REPLAY) && !ui->replay) && !((b->where & TOP_CHANGES) && ui->read_only);
        bool end = b->action == TOP_QUIT || b->action == TOP_HELP;
        const char *shown = b->action == TOP_HELP ? "?" : b->shown;
        int need = here ? (int)strlen(shown) + 1 + (int)strlen(b->foot) : 0;
        if (!here || (!end && x + need + 2 + quit > c->w) || x + need > c->w) {
            continue;
        }
        x += canvas_text(c, y, x, -1, STYLE_KEY, shown);
        x += canvas_printf(c, y, x, STYLE_NORMAL, " %s", b->foot) + 2;
    }
}

/* ---- the table ---- */

static enum canvas_style style_of(enum cli_role role, const char *key)
{
    return role == ROLE_LOW ? STYLE_LOW : role == ROLE_WARNING ? STYLE_WARNING : role == ROLE_DIM ? STYLE_DIM
           : strcmp(key, "assigned") == 0 ? STYLE_ASSIGNED : STYLE_NORMAL;
}

static void draw_trend(struct ui *ui, struct canvas *c, int y, int x, int w, const struct model_vm *vm, enum canvas_style style)
{
    double v[64], lo = NAN, hi = NAN;
    unsigned n = (unsigned)MIN(w, (int)ARRAY_SIZE(v));
    bool cpu = ui->screen == UI_CPU;
    ui_curve(ui, &vm->series, vm->host, cpu ? UI_CURVE_CPU : UI_CURVE_DEMAND, v, n);
    for (unsigned i = 0; i < n; i++) {
        lo = isnan(v[i]) || lo <= v[i] ? lo : v[i];
        hi = isnan(v[i]) || hi >= v[i] ? hi : v[i];
    }
    /* Demand between its own ends, yet small changes stay small: at least a quarter of its height, and what
     * does not move stands in the middle. */
    double middle = (lo + hi) / 2, half = MAX((hi - lo) / 2, hi / 8);
    draw_spark(c, y, x, v, n, cpu ? 0 : middle - half, cpu ? 100 : middle + half, style);
}

/* A column a processor, as high as it is busy; where there are more than columns, the busiest of each lot. */
static void draw_vcpus(struct canvas *c, int y, int x, int w, const json_t *list, enum canvas_style style)
{
    double v[64];
    size_t n = json_array_size(list);
    unsigned shown = (unsigned)MIN(MIN(n, (size_t)MAX(w, 0)), ARRAY_SIZE(v));
    for (unsigned i = 0; i < shown; i++) {
        v[i] = NAN;
        for (size_t k = i * n / shown; k < (i + 1) * n / shown; k++) {
            const json_t *pct = json_array_get(list, k);
            double p = json_is_number(pct) ? json_number_value(pct) : NAN;
            v[i] = isnan(v[i]) || p > v[i] ? p : v[i];
        }
    }
    draw_spark(c, y, x, v, shown, 0, 100, style);
}

static void draw_cell(struct canvas *c, int y, int x, int w, bool left, enum canvas_style style, const char *s)
{
    strbuf_auto cut = {0}, clean = {0};
    cli_clean(&clean, s, c->ascii);
    cli_cut(&cut, clean.buf ? clean.buf : "", (unsigned)w, c->ascii);
    int used = (int)cli_text_width(cut.buf ? cut.buf : "");
    canvas_text(c, y, left ? x : x + w - used, w, style, cut.buf ? cut.buf : "");
}

static void draw_row(struct ui *ui, struct canvas *c, int y, const struct top_layout *l, size_t at)
{
    struct model_vm *vm = ui->view[at];
    bool here = at == ui->cursor, silent = ui_stale(ui, vm->host);
    json_t *row = ui_row(ui, vm);
    const char *why = json_string_value(cli_json_path(row, "memory.why"));
    bool stale = silent || (why && strcmp(why, "stale") == 0);         /* the host, or the guest */
    const char *status = json_string_value(cli_json_path(row, "memory.status"));
    enum canvas_style style = stale ? STYLE_DIM : status ? ui_status_style(status) : STYLE_NORMAL;
    canvas_put(c, y, 0, here ? '>' : vm->marked ? '*' : ' ', here || vm->marked ? STYLE_CHOSEN : STYLE_NORMAL);
    if (here && vm->marked) {
        canvas_put(c, y, 0, '+', STYLE_CHOSEN);
    }
    const char *mark = stale ? "? " : style == STYLE_WARNING ? "!!" : style == STYLE_LOW ? " !" : "  ";
    canvas_text(c, y, 1, 2, style, mark);
    for (unsigned i = 0; i < l->n; i++) {
        const struct cli_column *col = l->at[i].col;
        const json_t *v = cli_cell(row, col);
        enum canvas_style cell = stale ? STYLE_DIM : style_of(col->role ? col->role(row, v) : ROLE_NONE, col->key);
        if (strcmp(col->key, "trend") == 0) {
            draw_trend(ui, c, y, l->at[i].x, l->at[i].width, vm, stale ? STYLE_DIM : style);
            continue;
        }
        if (strcmp(col->key, "vcpu_pct") == 0) {
            draw_vcpus(c, y, l->at[i].x, l->at[i].width, v, stale ? STYLE_DIM : STYLE_NORMAL);
            continue;
        }
        strbuf_auto sb = {0};
        if (silent && strcmp(col->key, "status") == 0) {
            char age[32];
            strbuf_addf(&sb, "? %s", draw_age((double)(ui_silent_ms(ui, vm->host) / 1000), age, sizeof(age)));
        } else {
            cli_cell_text(&sb, row, col, false, c->ascii);
        }
        if (strcmp(col->key, "demand") == 0 && !stale) {
            cell = style;
        }
        draw_cell(c, y, l->at[i].x, l->at[i].width, l->at[i].look->left, cell, sb.buf ? sb.buf : "-");
    }
    json_decref(row);
    if (here) {
        canvas_mark_row(c, y);
        c->cursor_y = y;
        c->cursor_x = 0;
    }
}

static void scroll_to_cursor(struct ui *ui, int h)
{
    size_t rows = (size_t)MAX(h, 1), at = 0;
    while (at < ui->n_lines && (ui->body[at].heading || ui->body[at].at != ui->cursor)) {
        at++;
    }
    /* The heading over the first of a group comes into view with it. */
    size_t from = at > 0 && rows > 1 && at < ui->n_lines && ui->body[at - 1].heading ? at - 1 : at;
    if (from < ui->top) {
        ui->top = from;
    }
    if (at >= ui->top + rows) {
        ui->top = at - rows + 1;
    }
    if (ui->top + rows > ui->n_lines) {
        ui->top = ui->n_lines > rows ? ui->n_lines - rows : 0;
    }
}

/* "v vmhost1   9 VMs   assigned 25.9G   demand 24.4G" over the VMs from `at` on that belong together. */
static void draw_heading(struct ui *ui, struct canvas *c, int y, size_t line)
{
    const struct model_vm *first = ui->view[ui->body[line].at];
    const char *name = ui_group_of(ui, first);
    double assigned = 0, demand = 0;
    unsigned n = 0;
    for (size_t i = line + 1; i < ui->n_lines && !ui->body[i].heading; i++, n++) {
        const struct model_vm *vm = ui->view[ui->body[i].at];
        double a = model_number(vm, "memory", "assigned"), d = model_number(vm, "memory", "demand");
        assigned += a >= 0 ? a : 0;
        demand += d >= 0 ? d : 0;
    }
    char a[32], d[32];
    canvas_put(c, y, 0, c->ascii ? 'v' : 0x25be, STYLE_DIM);
    int x = 2 + canvas_text(c, y, 2, MIN(40, c->w - 2), STYLE_TITLE, *name ? name : "in no group");
    canvas_printf(c, y, x, STYLE_DIM, "   %u VM%s   assigned %s   demand %s", n, n == 1 ? "" : "s", draw_size(assigned, a, sizeof(a)),
                  draw_size(demand, d, sizeof(d)));
}

void ui_draw_table(struct ui *ui, struct canvas *c, int y, int h)
{
    struct top_layout l;
    int longest = 4;
    for (size_t i = 0; i < ui->n_view; i++) {
        longest = MAX(longest, (int)cli_text_width(ui->view[i]->name));
    }
    bool tiny = c->w < 40 || c->h < 8;
    top_layout(&l, tiny ? "name,status" : ui_table(ui)->keys, 3, c->w, longest, ui->m->n_hosts > 1);
    ui->n_heads = 0;
    if (!tiny || h > 3) {
        for (unsigned i = 0; i < l.n; i++) {
            bool trend = strcmp(l.at[i].look->key, "trend") == 0;
            char head[40];
            snprintf(head, sizeof(head), "%s, LAST %s", ui->screen == UI_CPU ? "CPU" : "DEMAND", ui_spans[ui->span].word);
            const char *word = trend && l.at[i].width > 16 ? head : trend && ui->screen == UI_CPU ? "CPU" : l.at[i].look->head;
            draw_cell(c, y, l.at[i].x, l.at[i].width, l.at[i].look->left,
                      l.at[i].col == ui_table(ui)->sort ? STYLE_CHOSEN : STYLE_HEADER, word);
            ui->head[ui->n_heads].col = l.at[i].col;
            ui->head[ui->n_heads].from = l.at[i].x;
            ui->head[ui->n_heads++].to = l.at[i].x + l.at[i].width + 1;
        }
        y++;
        h--;
    }
    ui->body_y = y;
    ui->body_h = MAX(h, 1);
    scroll_to_cursor(ui, h);
    for (int i = 0; i < h && ui->top + (size_t)i < ui->n_lines; i++) {
        size_t line = ui->top + (size_t)i;
        if (ui->body[line].heading) {
            draw_heading(ui, c, y + i, line);
        } else {
            draw_row(ui, c, y + i, &l, ui->body[line].at);
        }
    }
    if (!ui->n_view && h > 0) {
        bool known = false;
        for (unsigned i = 0; i < ui->m->n_hosts; i++) {
            known = known || ui->m->host[i].samples;
        }
        canvas_text(c, y, 3, -1, STYLE_DIM, !known ? "waiting for the first sample" : ui->filter_text[0] || ui->n_only
                    ? "no VM fits the filter" : "no VMs here; hvctl create makes one");
    }
}

/* Less than 40x8: names and status; a single line where there is no more. */
static void draw_line(struct ui *ui, struct canvas *c)
{
    struct model_vm *vm = ui_current(ui);
    if (vm) {
        json_t *row = ui_row(ui, vm);
        strbuf_auto sb = {0};
        const struct cli_column *col = cli_column_find(&top_columns, "status", 6);
        cli_cell_text(&sb, row, col, false, c->ascii);
        int x = canvas_text(c, 0, 0, -1, STYLE_NORMAL, vm->name);
        canvas_text(c, 0, x + 1, -1, ui_status_style(model_text(vm, "memory", "status")), sb.buf ? sb.buf : "");
        json_decref(row);
    } else if (!draw_down(ui, c, 0, 0)) {
        canvas_text(c, 0, 0, -1, STYLE_NORMAL, "hvtop");
    }
}

static void draw_screen(struct ui *ui, struct canvas *c)
{
    bool foot = c->h >= 4 || ui->message[0] || ui->mode != UI_NORMAL;
    int bottom = c->h - (foot && c->h > 1);
    if (c->h < 3) {
        draw_line(ui, c);
        return;
    }
    if (foot) {
        footer(ui, c, c->h - 1);
    }
    if (ui->detail) {
        ui_draw_detail(ui, c);
        return;
    }
    int y = c->h < 8 || c->w < 40 ? 0 : ui_draw_header(ui, c);
    if (c->h >= 8 && c->w >= 40) {
        tabs(ui, c, y++);
    }
    if (ui->screen == UI_HOST) {
        ui_draw_host(ui, c, y, bottom - y);
    } else if (ui->screen == UI_EVENTS) {
        ui_draw_events(ui, c, y, bottom - y);
    } else {
        int events = c->h >= 40 ? 8 : c->h >= 20 && c->w >= 60 ? 3 : 0, rows = bottom - y;
        /* Rows come first: events take what the table leaves, and those few lines in any case. */
        if (events == 8 && (int)ui->n_lines + 1 > rows - events) {
            events = 4;
        }
        ui_draw_table(ui, c, y, rows - events);
        if (events > 3) {
            int at = bottom - events;
            canvas_fill(c, at, 0, MIN(c->w, 100), c->ascii ? '-' : 0x2500, STYLE_DIM);
            canvas_text(c, at, MIN(c->w, 101), -1, STYLE_DIM, "events");
            ui_draw_last_events(ui, c, at + 1, events - 1, NULL);
        } else if (events) {
            ui_draw_last_events(ui, c, bottom - events, events, NULL);
        }
    }
}

void ui_draw(struct ui *ui, struct canvas *c)
{
    canvas_clear(c);
    ui_order(ui);
    draw_screen(ui, c);
    if (ui->mode != UI_NORMAL) {
        ui_draw_dialog(ui, c);
    }
    if (c->cursor_y >= c->h || c->cursor_x >= c->w) {
        c->cursor_y = c->cursor_x = -1;          /* in a dialog that is larger than the window */
    }
}
