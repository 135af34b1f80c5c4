/*
 * --send and --until: a list of steps in the order they were typed. Guest output goes in,
 * text to type comes out. Knows no socket and no clock but what it is told.
 */
#ifndef HVCTL_SCRIPT_H
#define HVCTL_SCRIPT_H

#include <regex.h>

#include "hv/base/strbuf.h"

#define SCRIPT_MAX_STEPS 32
/* A line without an end is matched once the guest has been quiet for this long: prompts. */
#define SCRIPT_QUIET_NS (200 * NS_PER_MS)

struct script_step { bool until; const char *text; };

struct script {
    struct script_step step[SCRIPT_MAX_STEPS];
    unsigned n, at;
    regex_t re;                 /* of the until step at `at` */
    bool has_re;
    struct strbuf line;         /* the guest's present line, without CR and escape sequences */
    unsigned esc;               /* state of the escape sequence filter */
};

/* 0, -ENOSPC if there are too many, text is borrowed. Regular expressions were checked when parsed. */
int script_add(struct script *s, bool until, const char *text);
void script_fini(struct script *s);

/*
 * Do the steps that need no output: appends what to type (each text and Return) to typed.
 * Call at the start and after each match.
 */
void script_run(struct script *s, struct strbuf *typed);

/* Output of the guest, split into lines and matched; further steps run at once. */
void script_feed(struct script *s, const char *buf, size_t len, struct strbuf *typed);
/* The guest has been quiet: the line without an end counts too. */
void script_quiet(struct script *s, struct strbuf *typed);

/* Waiting for a match? */
bool script_waiting(const struct script *s);
/* Every step is done. ends: the last one was an until, so the session is over. */
bool script_done(const struct script *s, bool *ends);
/* The expression waited for, or NULL. */
const char *script_pattern(const struct script *s);

#endif
