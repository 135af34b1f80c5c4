/* One VM: what it has and needs over time, its processors, its guest, what happened to it. */
#include <math.h>

#include "hv/base/units.h"
#include "hvtop/draw.h"
#include "hvtop/screen_parts.h"
#include "hvtop/ui.h"

#define GRAPH_MAX 400

static const char *word(const json_t *row, const char *path, const char *otherwise)
{
    const char *s = json_string_value(cli_json_path(row, path));
    return s ? s : otherwise;
}

static double number(const json_t *row, const char *path)
{
    const json_t *v = cli_json_path(row, path);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *size_of(const json_t *row, const char *path, char *buf, size_t size)
{
    return draw_size(number(row, path), buf, size);
}

static const char *flag(const json_t *row, const char *path)
{
    const json_t *v = cli_json_path(row, path);
    const char *s = json_string_value(v);
    return json_is_true(v) || (s && strcmp(s, "ok") == 0) ? "OK" : json_is_false(v) || (s && strcmp(s, "no-contact") == 0) ? "none"
           : s ? s : "-";
}

static void title(struct ui *ui, struct canvas *c, const struct model_vm *vm, const json_t *row)
{
    char clock[80], age[32], right[200];
    const char *status = word(row, "memory.status", ""), *why = word(row, "memory.why", "");
    int x = canvas_text(c, 0, 0, -1, STYLE_TITLE, "hvtop  ");
    x += canvas_printf(c, 0, x, STYLE_TITLE, "%s > %s", ui->m->host[vm->host].name, vm->name);
    x += canvas_printf(c, 0, x, STYLE_NORMAL, "  %s", word(row, "state", "-"));
    if (number(row, "uptime_s") >= 0) {
        x += canvas_printf(c, 0, x, STYLE_NORMAL, "  up %s", draw_age(number(row, "uptime_s"), age, sizeof(age)));
    }
    ui_clock(ui, clock, sizeof(clock), c->w >= 120);
    if (ui->look_ms) {
        draw_ago(ui_ago_ms(ui), clock, sizeof(clock));
    }
    int end = canvas_right(c, 0, c->w, STYLE_NORMAL, clock) - 2;
    if (*status) {
        const char *name = strcmp(status, "ok") == 0 ? "OK" : strcmp(status, "low") == 0 ? "Low" : "Warning";
        snprintf(right, sizeof(right), *why ? "%s (%s)" : "%s", name, why);
        if (x + 2 + (int)strlen(right) < end) {
            canvas_right(c, 0, end, ui_status_style(status), right);
        }
    }
}

static void about(struct ui *ui, struct canvas *c, int y, const json_t *row)
{
    const char *kernel = word(row, "kernel", ""), *reason = word(row, "reason", "");
    char right[60];
    snprintf(right, sizeof(right), "span %s", ui_spans[ui->span].word);
    int end = canvas_right(c, y, c->w, STYLE_NORMAL, right) - 2;
    int x = canvas_printf(c, y, 0, STYLE_DIM, "%s", word(row, "id", "-"));
    char line[300];
    snprintf(line, sizeof(line), "  heartbeat %s  %s", flag(row, "heartbeat"), *reason ? reason : kernel);
    canvas_text(c, y, x, MAX(end - x, 0), STYLE_NORMAL, line);
}

/* The numbers above the graph. */
static void memory_line(struct canvas *c, int y, const json_t *row)
{
    char a[32];
    double now = number(row, "memory.buffer_now_pct"), want = number(row, "memory.buffer_pct");
    int x = canvas_text(c, y, 0, -1, STYLE_TITLE, "Memory");
    x += 3 + canvas_text(c, y, x + 3, -1, STYLE_NORMAL, "assigned ");
    x += canvas_text(c, y, x, -1, STYLE_ASSIGNED, size_of(row, "memory.assigned", a, sizeof(a)));
    x += canvas_text(c, y, x, -1, STYLE_NORMAL, "   demand ");
    x += canvas_text(c, y, x, -1, ui_status_style(word(row, "memory.status", "")), size_of(row, "memory.demand", a, sizeof(a)));
    if (!isnan(now)) {
        x += canvas_printf(c, y, x, STYLE_NORMAL, "   buffer %.0f%% of %.0f%%", now, want);
    }
    char right[40];
    double pressure = number(row, "memory.pressure_pct");
    snprintf(right, sizeof(right), "pressure %.0f%%", pressure);
    if (!isnan(pressure) && x + 2 + (int)strlen(right) < c->w) {
        canvas_right(c, y, c->w, STYLE_NORMAL, right);
    }
}

static void settings_line(struct canvas *c, int y, const json_t *row)
{
    char a[32], b[32], d[32];
    if (json_is_true(cli_json_path(row, "memory.dynamic"))) {
        canvas_printf(c, y, 0, STYLE_NORMAL, "startup %s  min %s  max %s  buffer %.0f%%  priority %.0f",
                      size_of(row, "memory.startup", a, sizeof(a)), size_of(row, "memory.min", b, sizeof(b)),
                      size_of(row, "memory.max", d, sizeof(d)), number(row, "memory.buffer_pct"), number(row, "memory.priority"));
    } else {
        canvas_printf(c, y, 0, STYLE_NORMAL, "startup %s  static: the balancer leaves it alone",
                      size_of(row, "memory.startup", a, sizeof(a)));
    }
}

static void guest_line(struct canvas *c, int y, const json_t *row)
{
    char a[32], b[32], d[32], f[32];
    int x = canvas_printf(c, y, 0, STYLE_NORMAL, "balloon %s  hot-added %s  guest: committed %s, available %s",
                          size_of(row, "memory.balloon", a, sizeof(a)), size_of(row, "memory.hot_added", b, sizeof(b)),
                          size_of(row, "memory.committed", d, sizeof(d)), size_of(row, "memory.available", f, sizeof(f)));
    if (c->w - x > 26) {
        canvas_printf(c, y, x, STYLE_NORMAL, "  held by the host %s", size_of(row, "memory.resident", a, sizeof(a)));
    }
}

static void axis_label(struct canvas *c, int y, double v, bool cpu)
{
    char a[32];
    if (cpu) {
        snprintf(a, sizeof(a), "%.0f%%", v);
    } else if (v == 0) {
        snprintf(a, sizeof(a), "0");
    } else {
        draw_size(v, a, sizeof(a));
    }
    canvas_right(c, y, 8, STYLE_DIM, a);
}

static void graph(struct ui *ui, struct canvas *c, int y, int h, const struct model_vm *vm)
{
    static double demand[GRAPH_MAX], assigned[GRAPH_MAX];      /* one thread draws */
    int w = MIN(c->w - 10, GRAPH_MAX), floor_y = y + h - 2, rows = h - 2;
    double max = 0;
    char ago[32];
    if (w < 10 || rows < 2) {
        return;
    }
    bool cpu = ui->detail_cpu;
    ui_curve(ui, &vm->series, vm->host, cpu ? UI_CURVE_CPU : UI_CURVE_DEMAND, demand, (unsigned)w);
    ui_curve(ui, &vm->series, vm->host, UI_CURVE_ASSIGNED, assigned, (unsigned)w);
    for (int i = 0; i < w; i++) {
        assigned[i] = cpu ? NAN : assigned[i];
        max = MAX(max, isnan(demand[i]) ? 0 : demand[i]);
        max = MAX(max, isnan(assigned[i]) ? 0 : assigned[i]);
    }
    double end = cpu ? 100 : draw_axis_end(max, 64 * MIB);
    axis_label(c, y, end, cpu);
    if (rows >= 4) {
        axis_label(c, y + rows / 2, end * (rows - rows / 2) / rows, cpu);
    }
    axis_label(c, floor_y - 1, 0, cpu);
    for (int i = 0; i < rows; i++) {
        canvas_put(c, y + i, 9, c->ascii ? '|' : 0x2524, STYLE_DIM);
    }
    draw_graph(c, y, 10, w, rows, end, demand, assigned, cpu ? STYLE_BUSY : ui_status_style(model_text(vm, "memory", "status")));
    canvas_put(c, floor_y, 9, c->ascii ? '+' : 0x2514, STYLE_DIM);
    canvas_fill(c, floor_y, 10, w, c->ascii ? '-' : 0x2500, STYLE_DIM);
    canvas_text(c, floor_y + 1, 10, -1, STYLE_DIM, draw_ago(ui_spans[ui->span].ms, ago, sizeof(ago)));
    canvas_right(c, floor_y + 1, 10 + w, STYLE_DIM, ui->look_ms ? draw_ago(ui_ago_ms(ui), ago, sizeof(ago)) : "now");
    if (w > 50) {
        const char *fill = c->ascii ? "#" : "\xe2\x96\x88", *line = c->ascii ? "o" : "\xe2\x96\x94";
        int x = 10 + w / 3;
        if (cpu) {
            canvas_printf(c, floor_y + 1, x, STYLE_NORMAL, "%s CPU, of all its processors", fill);
        } else {
            x += canvas_printf(c, floor_y + 1, x, STYLE_NORMAL, "%s demand   ", fill);
            canvas_printf(c, floor_y + 1, x, STYLE_ASSIGNED, "%s assigned", line);
        }
    }
}

static void cpu_line(struct canvas *c, int y, const json_t *row)
{
    double pct = number(row, "processor.cpu_pct"), n = number(row, "processor.cpus");
    int x = isnan(pct) ? canvas_printf(c, y, 0, STYLE_NORMAL, "vCPU %.0f     -", isnan(n) ? 0 : n)
                       : canvas_printf(c, y, 0, STYLE_NORMAL, "vCPU %.0f  %3.0f%%", isnan(n) ? 0 : n, pct);
    int w = MIN(c->w - x - 22, 40);
    if (w > 8) {
        struct draw_part part = {isnan(pct) ? 0 : pct, '|', 0x2588, STYLE_BUSY};
        draw_bar(c, y, x + 1, w, 100, &part, 1);
        x += w + 3;
    }
    char each[200];
    parts_vcpu_text(row, each, sizeof(each));
    if (each[0] && x + 1 + (int)strlen(each) <= c->w) {
        canvas_text(c, y, x + 1, -1, STYLE_NORMAL, each);
    } else {
        canvas_printf(c, y, x + 1, STYLE_NORMAL, "engine %s", word(row, "engine", "-"));
    }
}

static void services_line(struct canvas *c, int y, const json_t *row)
{
    canvas_printf(c, y, 0, STYLE_NORMAL, "services  heartbeat %s  shutdown %s  time sync %s", flag(row, "heartbeat"),
                  flag(row, "shutdown"), flag(row, "timesync"));
    char right[60];
    const char *job = word(row, "job", "");
    if (*job) {
        snprintf(right, sizeof(right), "job %.40s", job);
        canvas_right(c, y, c->w, STYLE_KEY, right);
        return;
    }
    snprintf(right, sizeof(right), "restarts %.0f", number(row, "resets") >= 0 ? number(row, "resets") : 0);
    if (c->w >= 78) {
        canvas_right(c, y, c->w, STYLE_DIM, right);
    }
}

/* What stands below the graph, given up from the end as the window gets lower. */
static void narrow(struct ui *ui, struct canvas *c, int y, int bottom, const struct model_vm *vm, const json_t *row)
{
    int below = c->h >= 16 ? 4 : c->h >= 12 ? 2 : 0, events = c->h >= 40 ? 8 : c->h >= 24 ? 4 : 0, gap = c->h >= 24;
    unsigned disks = below >= 4 ? MIN(parts_disks(row), c->h >= 30 ? 6u : c->h >= 20 ? 2u : 1u) : 0;
    int rows = MIN(bottom - y - below - (int)disks - events - gap * (below ? 1 : 0), 30);
    if (rows >= 4) {
        graph(ui, c, y, rows, vm);
        y += rows;
    }
    if (below >= 2) {
        settings_line(c, y++, row);
        if (below >= 4) {
            guest_line(c, y++, row);
            y += gap;
        }
        cpu_line(c, y++, row);
        for (unsigned i = 0; i < disks; i++) {
            parts_disk_line(c, y++, row, i);
        }
        if (below >= 4) {
            services_line(c, y++, row);
        }
    }
    if (events && bottom - y > 1) {
        ui_draw_last_events(ui, c, y + 1, bottom - y - 1, vm->name);
    }
}

static void wide(struct ui *ui, struct canvas *c, int y, int bottom, const struct model_vm *vm, const json_t *row)
{
    const char *job = word(row, "job", "none");
    size_t cpus = json_array_size(cli_json_path(row, "processor.vcpu_pct"));
    int cpu_rows = 1 + MIN((int)MAX(cpus, (size_t)parts_services(row)), 8);
    int disk_rows = 1 + MIN((int)parts_disks(row), 4), events = 6;
    /* settings, guest, blank, processors, blank, disks, blank, job, blank, events */
    int rows = MIN(bottom - y - 2 - 1 - cpu_rows - 1 - disk_rows - 3 - events, 30);
    if (rows >= 4) {
        graph(ui, c, y, rows, vm);
        y += rows;
    }
    settings_line(c, y++, row);
    guest_line(c, y++, row);
    y++;
    y += parts_cpu_and_services(c, y, cpu_rows, row) + 1;
    y += parts_disk_table(c, y, disk_rows, row) + 1;
    int x = canvas_text(c, y, 0, -1, STYLE_TITLE, "Jobs      ");
    x += canvas_text(c, y, x, -1, strcmp(job, "none") == 0 ? STYLE_DIM : STYLE_NORMAL, job);
    double resets = number(row, "resets");
    canvas_printf(c, y++, x, STYLE_NORMAL, "   engine %s   restarts %.0f", word(row, "engine", "-"), resets >= 0 ? resets : 0);
    if (bottom - y > 1) {
        ui_draw_last_events(ui, c, y + 1, bottom - y - 1, vm->name);
    }
}

void ui_draw_detail(struct ui *ui, struct canvas *c)
{
    struct model_vm *vm = ui_current(ui);
    if (!vm) {
        canvas_printf(c, 0, 0, STYLE_TITLE, "hvtop  %s", ui->cursor_name);
        canvas_text(c, MIN(2, c->h - 2), 0, -1, STYLE_DIM, "it is gone; Esc goes back");
        return;
    }
    json_t *row = ui_row(ui, vm);
    int bottom = c->h - 1, y = 0;
    title(ui, c, vm, row);
    y++;
    if (c->h >= 10) {
        about(ui, c, y++, row);
    }
    y += c->h >= 20;
    memory_line(c, y++, row);
    if (c->w >= 120 && c->h >= 36) {
        wide(ui, c, y, bottom, vm, row);
    } else {
        narrow(ui, c, y, bottom, vm, row);
    }
    json_decref(row);
}
