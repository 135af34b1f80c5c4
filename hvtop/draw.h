/* Bars, sparklines, graphs and short numbers: pure functions into a canvas. */
#ifndef HVTOP_DRAW_H
#define HVTOP_DRAW_H

#include "hvtop/canvas.h"

struct draw_part { double amount; uint32_t ascii, utf8; enum canvas_style style; };
/*
 * A bar w columns wide with its two ends: the parts, as shares of total, and what remains dim.
 * Rounded so that a part that is there at all has a column, and the whole is never longer than w.
 */
void draw_bar(struct canvas *c, int y, int x, int w, double total, const struct draw_part *part, unsigned n);

/*
 * A line of v[n] from (y, x) on, one column each: NAN is blank. lo and hi are the ends of the scale;
 * lo == hi draws the middle.
 */
void draw_spark(struct canvas *c, int y, int x, const double *v, unsigned n, double lo, double hi, enum canvas_style style);

/* The end of an axis for values up to max: 1, 1.5, 2, 3, 4, 6 ... times a power of two, at least `least`. */
double draw_axis_end(double max, double least);

/*
 * Graph: fill[w] as columns from the floor, line[w] as a mark at its height, NAN for nothing, on h
 * rows whose top is `end`. fill is drawn in eighths of a row under UTF-8.
 */
void draw_graph(struct canvas *c, int y, int x, int w, int h, double end, const double *fill, const double *line,
                enum canvas_style fill_style);

/* "3.3G", "-" where unknown (NAN); buf[size >= 24]. */
const char *draw_size(double bytes, char *buf, size_t size);
/* "3h 12m" in at most 7 columns; "-" where unknown. */
const char *draw_age(double seconds, char *buf, size_t size);
/* "-3m40s". */
const char *draw_ago(uint64_t ms, char *buf, size_t size);

#endif
