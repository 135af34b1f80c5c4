/* Bars, sparklines, graphs. */
#include "hvtop/draw.h"

#include <math.h>

#include "hv/base/units.h"

/* Ten levels, of which the first is nothing: the ASCII ramp of the manual, and eighth blocks. */
static const char ramp[] = " .:-=+*#%@";
#define BLOCK_FULL 0x2588u
#define BLOCK_EIGHTH(n) (0x2580u + (n))       /* 1..8: from one eighth to full */
#define BAR_LEFT 0x2595u
#define BAR_RIGHT 0x258fu
#define SHADE_LIGHT 0x2591u
#define UPPER_EIGHTH 0x2594u

void draw_bar(struct canvas *c, int y, int x, int w, double total, const struct draw_part *part, unsigned n)
{
    int room = w - 2, at = 0;
    double sum = 0;
    if (room < 1) {
        return;
    }
    canvas_put(c, y, x, c->ascii ? '[' : BAR_LEFT, STYLE_NORMAL);
    for (unsigned i = 0; i < n && total > 0; i++) {
        if (!(part[i].amount > 0)) {
            continue;
        }
        sum += part[i].amount;
        int to = MIN((int)floor(sum / total * room + 0.5), room);
        to = MIN(MAX(to, at + 1), room);
        canvas_fill(c, y, x + 1 + at, to - at, c->ascii ? part[i].ascii : part[i].utf8, part[i].style);
        at = MAX(at, to);
    }
    canvas_fill(c, y, x + 1 + at, room - at, c->ascii ? '.' : SHADE_LIGHT, STYLE_DIM);
    canvas_put(c, y, x + w - 1, c->ascii ? ']' : BAR_RIGHT, STYLE_NORMAL);
}

void draw_spark(struct canvas *c, int y, int x, const double *v, unsigned n, double lo, double hi, enum canvas_style style)
{
    for (unsigned i = 0; i < n; i++) {
        if (isnan(v[i])) {
            canvas_put(c, y, x + (int)i, ' ', STYLE_NORMAL);
            continue;
        }
        double share = hi > lo ? (v[i] - lo) / (hi - lo) : 0.5;
        share = MIN(MAX(share, 0), 1);
        unsigned level = c->ascii ? 1 + (unsigned)(share * 8 + 0.5) : 1 + (unsigned)(share * 7 + 0.5);
        canvas_put(c, y, x + (int)i, c->ascii ? (uint32_t)ramp[level] : BLOCK_EIGHTH(level), style);
    }
}

double draw_axis_end(double max, double least)
{
    double end = least > 0 ? least : 1;
    if (!(max < 1e18)) {
        return 1e18;
    }
    while (end < max) {
        if (end * 1.5 >= max) {
            return end * 1.5;
        }
        end *= 2;
    }
    return end;
}

void draw_graph(struct canvas *c, int y, int x, int w, int h, double end, const double *fill, const double *line,
                enum canvas_style fill_style)
{
    for (int i = 0; i < w; i++) {
        double eighths = isnan(fill[i]) || end <= 0 ? 0 : MIN(MAX(fill[i] / end, 0), 1) * h * 8;
        int full = (int)(c->ascii ? eighths / 8 + 0.5 : eighths / 8);
        int rest = c->ascii ? 0 : (int)(eighths - full * 8);
        full = MIN(full, h);
        if (full == 0 && rest == 0 && eighths > 0) {
            full = c->ascii;
            rest = !c->ascii;
        }
        for (int k = 0; k < full; k++) {
            canvas_put(c, y + h - 1 - k, x + i, c->ascii ? '#' : BLOCK_FULL, fill_style);
        }
        if (rest > 0 && full < h) {
            canvas_put(c, y + h - 1 - full, x + i, BLOCK_EIGHTH((unsigned)rest), fill_style);
        }
        if (!isnan(line[i]) && end > 0) {
            int row = (int)ceil(MIN(MAX(line[i] / end, 0), 1) * h) - 1;
            row = MIN(MAX(row, 0), h - 1);
            canvas_put(c, y + h - 1 - row, x + i, c->ascii ? 'o' : UPPER_EIGHTH, STYLE_ASSIGNED);
        }
    }
}

const char *draw_size(double bytes, char *buf, size_t size)
{
    if (isnan(bytes) || bytes < 0) {
        snprintf(buf, size, "-");
        return buf;
    }
    return format_size((uint64_t)MIN(bytes, 1e18), buf, size);
}

const char *draw_age(double seconds, char *buf, size_t size)
{
    if (isnan(seconds) || seconds < 0) {
        snprintf(buf, size, "-");
        return buf;
    }
    return format_age((uint64_t)MIN(seconds, 1e12), buf, size);
}

const char *draw_ago(uint64_t ms, char *buf, size_t size)
{
    uint64_t s = ms / 1000;
    if (s < 60) {
        snprintf(buf, size, "-%us", (unsigned)s);
    } else if (s < 3600) {
        snprintf(buf, size, s % 60 ? "-%um%02us" : "-%um", (unsigned)(s / 60), (unsigned)(s % 60));
    } else {
        snprintf(buf, size, s % 3600 / 60 ? "-%uh%02um" : "-%uh", (unsigned)MIN(s / 3600, 99999u), (unsigned)(s % 3600 / 60));
    }
    return buf;
}
