/*
 * What a terminal can show: colour by role, width of text in columns, and text from guests
 * made harmless. Nothing here prints.
 */
#ifndef HV_CLI_TERM_H
#define HV_CLI_TERM_H

#include "hv/base/strbuf.h"
#include "hv/cli/call.h"

/* Colour goes through roles only; a mark and a word always stand beside it. */
enum cli_role {
    ROLE_NONE, ROLE_HEADER, ROLE_OK, ROLE_LOW, ROLE_WARNING, ROLE_ERROR, ROLE_DIM, ROLE_ASSIGNED,
    ROLE_COUNT
};

/* Start of the role's colour, "" without colour; cli_role_end() ends it. */
const char *cli_role_start(const struct cli_call *c, enum cli_role role);
const char *cli_role_end(const struct cli_call *c, enum cli_role role);
/* --color, NO_COLOR, TERM and whether out is a terminal decide. */
bool cli_color_on(const struct cli_call *c);

/* --ascii, or a locale that is not UTF-8. Needs setlocale(LC_CTYPE, ""). */
bool cli_ascii(const struct cli_call *c);

/* Columns of the terminal on out; 0 where there is none (then nothing is ever cut). */
unsigned cli_term_width(const struct cli_call *c);

/* Columns that text takes on a terminal; text is clean (below). */
unsigned cli_text_width(const char *text);

/*
 * Append text so that it cannot steer a terminal: control characters, C1 controls and broken
 * UTF-8 become '?', line ends and tabs the two characters \n and \t. ascii: the rest beyond
 * ASCII too becomes '?'. Names and notes come from people and guests.
 */
void cli_clean(struct strbuf *sb, const char *text, bool ascii);

/* Append text cut in the middle to at most width columns, with an ellipsis (~ in ASCII). */
void cli_cut(struct strbuf *sb, const char *text, unsigned width, bool ascii);

#endif
