/*
 * The terminal in raw mode, put back whatever happens: on return, exit(), a fatal signal, or
 * when the process is stopped and continued.
 */
#ifndef HVCTL_TTY_H
#define HVCTL_TTY_H

#include "hv/base/base.h"

/* Raw mode on fd (a terminal); remembers what was. 0 or -errno. One terminal at a time. */
int tty_raw(int fd);
/* What was before tty_raw(); nothing if it is so already. Safe in signal handlers. */
void tty_restore(void);

/*
 * INT, TERM, HUP, QUIT and TSTP as reads from a descriptor instead of their effects, from
 * now to tty_signals_end(). Returns the descriptor or -errno.
 */
int tty_signals_begin(void);
void tty_signals_end(int fd);
/* The next signal that came, 0 if there is none. */
int tty_signal_read(int fd);
/* Stop as Ctrl-Z does, with the terminal as it was; raw again when continued. */
void tty_stop(void);

#endif
