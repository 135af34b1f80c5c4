/*
 * A screen as a grid of cells. Screens draw into it, a terminal shows it, tests read it.
 */
#ifndef HVTOP_CANVAS_H
#define HVTOP_CANVAS_H

#include "hv/base/base.h"

/* What a cell means; a theme decides how that looks. */
#define CANVAS_STYLES(X)                                                \
    X(NORMAL)                                                           \
    X(TITLE)       /* the program, the host, the name of a section */   \
    X(HEADER)      /* column headers */                                 \
    X(DIM)         /* free, unused, unknown */                          \
    X(ASSIGNED)                                                         \
    X(LOW)                                                              \
    X(WARNING)                                                          \
    X(ROOT)        /* memory of the host itself */                      \
    X(BUSY)        /* CPU in use */                                     \
    X(KEY)         /* a key in the footer */                            \
    X(CHOSEN)      /* the tab, field or line that is chosen */          \
    X(ERROR)
enum canvas_style {
#define CANVAS_STYLE_ENUM(id) STYLE_##id,
    CANVAS_STYLES(CANVAS_STYLE_ENUM)
#undef CANVAS_STYLE_ENUM
    STYLE_COUNT
};

struct canvas_cell {
    uint32_t ch;               /* a code point; 0: the right half of a wide character */
    uint8_t style;
    bool on_row;               /* on the row of the cursor */
};

struct canvas {
    int w, h;
    bool ascii;                /* nothing beyond ASCII may appear */
    struct canvas_cell *cell;  /* cell[h * w] */
    int cursor_y, cursor_x;    /* where the terminal's cursor is put; -1: hidden */
};

/* Make it w by h and blank; what was in it is gone. 0 or -ENOMEM. */
int canvas_resize(struct canvas *c, int w, int h);
void canvas_fini(struct canvas *c);
void canvas_clear(struct canvas *c);

/* Outside of the grid nothing happens. */
void canvas_put(struct canvas *c, int y, int x, uint32_t ch, enum canvas_style style);
void canvas_fill(struct canvas *c, int y, int x, int n, uint32_t ch, enum canvas_style style);

/*
 * UTF-8 text from (y, x) on, at most width columns (< 0: to the edge). What could steer a terminal
 * becomes '?', as does what ASCII lacks where only that may appear. Returns the columns used.
 */
int canvas_text(struct canvas *c, int y, int x, int width, enum canvas_style style, const char *text);
int canvas_printf(struct canvas *c, int y, int x, enum canvas_style style, const char *fmt, ...) HV_PRINTF(5, 6);
/* The same so that it ends before column `end`. Returns where it begins. */
int canvas_right(struct canvas *c, int y, int end, enum canvas_style style, const char *text);

/* Mark a row as the cursor's: it is drawn stronger. */
void canvas_mark_row(struct canvas *c, int y);

/* Row y as UTF-8 without trailing blanks; the caller's, NULL: out of memory. */
char *canvas_row_text(const struct canvas *c, int y);

/* One code point at *p, which moves on; broken UTF-8 gives '?'. 0 at the end. */
uint32_t canvas_next_char(const char **p);
/* Append a code point as UTF-8. Returns how many bytes; buf[4]. */
unsigned canvas_utf8(uint32_t ch, char *buf);
int canvas_char_width(uint32_t ch);

#endif
