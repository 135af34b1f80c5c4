/*
 * The shell: hvctl's own commands, one a line, from a terminal, a file or a pipe. Each command runs in
 * a process of its own, so that Ctrl-C, a pager or a mistake ends it and not the shell.
 */
#ifndef HVCTL_SHELL_H
#define HVCTL_SHELL_H

#include "hvctl/hvctl.h"
#include "hvctl/shell_line.h"

struct shell {
    struct cli_call *c;         /* the call that started it; its universal options are every command's */
    char *target;               /* after `use VM`, or NULL */
    const char *source;         /* "lab.hv", "stdin"; NULL: a person */
    unsigned line;              /* of source, where the command begins */
    bool null_stdin;            /* stdin is the script: commands must not read from it */
    bool over;                  /* exit, quit */
};

/* Words that only the shell knows: {word, what it does}, ends with {NULL}. */
extern const char *const shell_words[][2];

/* Carry out one line. Returns its exit code; what went wrong has been said. */
int shell_run(struct shell *s, const char *text);
/* Fork; 0 in the child, with signals as they were before the shell. -1: e is filled. */
int shell_fork(struct hv_error *e);
/* Wait for it, whatever signals come. Its exit code; 128 + the signal that ended it. */
int shell_reap(int pid);

/* ---- shell_complete.c ---- */
struct shell_candidate { char *word, *what; };   /* what may be NULL */
struct shell_candidates {
    struct shell_candidate *c;
    unsigned n;
    bool partial;               /* they are folders or ends with more to come: no blank behind them */
};
/* What can stand at the end of words (the last is being typed); files where the command wants one. Silent. */
void shell_candidates(struct shell *s, char *const *words, unsigned n, struct shell_candidates *ret);
void shell_files(const char *prefix, const char *patterns, struct shell_candidates *ret);
void shell_candidates_fini(struct shell_candidates *k);
/* How many bytes all of them begin with. */
size_t shell_common(const struct shell_candidates *k);

/* ---- shell_edit.c: the terminal ---- */
int shell_interactive(struct shell *s, struct hv_error *e);

#endif
