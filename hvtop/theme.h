/* How styles look. Eight colours suffice for every theme. */
#ifndef HVTOP_THEME_H
#define HVTOP_THEME_H

#include "hvtop/canvas.h"

enum theme_attr { THEME_BOLD = 1, THEME_DIM = 2, THEME_REVERSE = 4, THEME_UNDERLINE = 8 };
struct theme_look { int8_t fg; uint8_t attr; };      /* fg: 0 to 7, -1 the terminal's own */
struct theme { const char *name; struct theme_look look[STYLE_COUNT]; };

extern const struct theme top_themes[];              /* ends with name NULL; the first is the default */
#define TOP_THEME_WORDS "default|mono|high-contrast|safe|light"

/* NULL: no such theme. */
const struct theme *theme_find(const char *name);

#endif
