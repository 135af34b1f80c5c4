/*
 * The terminal, by ncurses: shows a canvas, reads keys, and is put back whatever happens: on
 * return, exit(), a signal that kills, or when the process is stopped and continued.
 */
#ifndef HVTOP_SCREEN_TERM_H
#define HVTOP_SCREEN_TERM_H

#include "hv/base/error.h"
#include "hvtop/canvas.h"
#include "hvtop/theme.h"

/* What shows up in a read; keys are hvtop/keys.h's. */
struct term_input { int key; bool mouse; int y, x, wheel; };

/* Is the terminal of a known type, and can its cursor be put anywhere? */
bool term_usable(void);

/* colour: false shows attributes only. Errors: HV_UNSUPPORTED where TERM is not known. */
int term_begin(const struct theme *theme, bool colour, bool mouse, struct hv_error *e);
/* The terminal as it was; nothing if it is so already. */
void term_end(void);
/* For a child that takes the terminal: as it was, and back. */
void term_leave(void);
void term_return(void);
/* The process is to stop (Ctrl-Z): leave, stop, and come back when it is continued. */
void term_stop(void);

/* The size, as it is now; after a SIGWINCH too. */
void term_size(int *ret_w, int *ret_h);
/* Show what differs from what is shown. */
void term_show(const struct canvas *c);
/* The next key or click, false if there is none now. -> term_input */
bool term_read(struct term_input *ret);
/* Has the terminal gone (the last read failed)? */
bool term_lost(void);

#endif
