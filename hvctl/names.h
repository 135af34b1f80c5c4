/* Completion of names: what only the service knows, asked quickly and silently. */
#ifndef HVCTL_NAMES_H
#define HVCTL_NAMES_H

#include "hvctl/hvctl.h"

/* The `complete` of the tool. Ends the process without a word if the service takes over 300 ms. */
void names_complete(struct cli_call *c, enum cli_type type, const char *prefix,
                    void (*add)(void *arg, const char *word, const char *what), void *arg);

#endif
