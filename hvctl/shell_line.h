/*
 * A line of the shell, taken apart. As in sh: words, '...', "...", \x, and # to the end of the line.
 * A |, > or >> counts where a word begins and nowhere else, so that `-F demand>2G` needs no quotes:
 *
 *   memory list -F demand>2G | head -n 3        words, and what sh runs behind them
 *   list -o csv > vms.csv                       words, and the file they write
 *   !ls -l *.vhdx                               all of it is sh's
 *   disk add web1 ~/data.vhdx                   ~/ at the start of a word is $HOME
 *
 * Pure: knows no terminal and runs nothing.
 */
#ifndef HVCTL_SHELL_LINE_H
#define HVCTL_SHELL_LINE_H

#include "hv/base/error.h"

#define SHELL_MAX_WORDS 512

enum shell_place { SHELL_WORD, SHELL_FILE, SHELL_COMMAND };   /* SHELL_COMMAND: in what sh runs */

struct shell_line {
    char **word;                /* word[n], and a NULL */
    unsigned n;
    char *file;                 /* after > or >>, or NULL */
    bool append;
    const char *pipe;           /* after |, in the caller's text; NULL: none */
    const char *command;        /* after !, in the caller's text; NULL: none */
    bool comment;               /* it ends in one */
    /* Where the text ends, for completion: in which word (begun at text[at]; "" after a blank). */
    enum shell_place place;
    size_t at;
    char quote;                 /* ' or " that is open there, else 0 */
    char *partial;              /* that word so far, without quotes */
};

/*
 * Take text apart. to_cursor: it may end anywhere, as while it is typed: the last word is in
 * ret->partial, not in ret->word. Otherwise a quote that is never closed and a > without a file are
 * HV_USAGE. ret is to be given to shell_line_fini() in any case.
 */
int shell_line_parse(const char *text, bool to_cursor, struct shell_line *ret, struct hv_error *e);
void shell_line_fini(struct shell_line *l);

/* Does the line go on in the next one: a backslash at its end, itself not quoted, not in a comment? */
bool shell_line_continues(const char *text);

/* word as it has to be typed with this quote open (0: none; then blanks and the like get a backslash). free() it. */
char *shell_line_quote(const char *word, char quote);

#endif
