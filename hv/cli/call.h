/*
 * One command as it was typed: the table entry, checked option values, positional
 * arguments, and what the universal options say about output. The caller's memory.
 */
#ifndef HV_CLI_CALL_H
#define HV_CLI_CALL_H

#include <jansson.h>

#include "hv/cli/command.h"

#define CLI_MAX_VALUES 128      /* options in one command line; more is refused */

struct cli_value {
    const struct cli_option *opt;
    const char *text;           /* as typed; NULL where an optional value was left out */
    uint64_t u;                 /* SIZE bytes, DURATION ns, PERCENT, UINT, SWITCH 0/1, CHAR code */
    int sign;                   /* SIZE_REL: 0 absolute, +1, -1 */
    bool is_none, is_default;   /* the words of rule 5 */
};

enum cli_format {
    CLI_FMT_DEFAULT, CLI_FMT_TABLE, CLI_FMT_WIDE, CLI_FMT_LIST, CLI_FMT_JSON, CLI_FMT_JSONL,
    CLI_FMT_CSV, CLI_FMT_XML, CLI_FMT_NAME
};
enum cli_when { CLI_AUTO, CLI_ALWAYS, CLI_NEVER };

enum cli_help { CLI_HELP_NONE, CLI_HELP_TOOL, CLI_HELP_NOUN, CLI_HELP_COMMAND, CLI_HELP_VERSION };

struct cli_call {
    const struct cli_tool *tool;
    const struct cli_noun *noun;
    const struct cli_command *cmd;              /* NULL: nothing but options was typed */
    enum cli_help want_help;
    bool implied_verb;                          /* the verb was the noun's default, not typed */
    bool bare;                                  /* no noun was typed: tool->bare */
    const struct cli_context *context;          /* of a command that a shell runs; NULL: none */

    struct cli_value values[CLI_MAX_VALUES];
    unsigned n_values;
    const char **args;                          /* args[n_args], from argv; array is ours */
    unsigned n_args;

    /* universal options, environment applied */
    enum cli_format format;
    const char *host;                           /* NULL: the default search */
    const char *columns, *sort, *filter;        /* NULL: the command's default */
    uint64_t timeout_ns, delay_ns, count;       /* 0: none, 2 s, for ever */
    unsigned verbose, jobs;
    bool quiet, batch, yes, raw, no_header, dry_run, no_wait, watch, all, no_pager, ascii_forced;
    enum cli_when color;

    FILE *out, *err, *in;                       /* stdout, stderr, stdin unless a test says else */
    bool tty_out, tty_err, tty_in;
    int exit_code;                              /* a handler's result that is no error: PARTIAL, DIFFERS */
    void *data;                                 /* the tool's own */
};

/* What a shell knows when it runs a command. */
struct cli_context {
    const char *target;         /* stands in where the command's first argument is a VM and is missing; NULL: none */
    const char *where;          /* "lab.hv:3": in front of errors; NULL: nothing */
};

void cli_call_init(struct cli_call *c, const struct cli_tool *tool);
void cli_call_fini(struct cli_call *c);

/*
 * Parse argv[1..argc-1] into c. Strings stay argv's. 0, or -EINVAL (usage), -EOPNOTSUPP (a
 * `later` row) with e filled in the contract's words. c->want_help set: print that instead.
 */
int cli_parse(struct cli_call *c, int argc, char **argv, struct hv_error *e);

/* Which command the words before any target name; used by completion, which has no whole line. */
struct cli_found {
    const struct cli_noun *noun;
    const struct cli_command *cmd;
    int noun_at, verb_at;       /* index in argv, or -1 */
    bool implied_verb;
};
void cli_find_command(const struct cli_tool *t, int argc, char *const *argv, struct cli_found *ret);

/* Check text against the option's type and fill v (opt, text and the number). */
int cli_value_parse(const struct cli_option *o, const char *text, struct cli_value *v, struct hv_error *e);

/* The last value given for an option, or NULL. name must be in the table: asking for another is our bug. */
const struct cli_value *cli_opt(const struct cli_call *c, const char *name);
bool cli_has(const struct cli_call *c, const char *name);
const char *cli_text(const struct cli_call *c, const char *name, const char *def);
uint64_t cli_number(const struct cli_call *c, const char *name, uint64_t def);
/* The i-th value of a repeatable option, NULL past the last. */
const struct cli_value *cli_opt_nth(const struct cli_call *c, const char *name, unsigned i);

/*
 * The settings that the options with a key were given, as nested JSON: numbers for sizes,
 * counts and switches, strings for the rest, null for `default` and `none`. FILE and DIR
 * become absolute paths. Relative sizes are left out: the caller knows the present value.
 * Returns a new object, or NULL with e filled.
 */
json_t *cli_settings(const struct cli_call *c, struct hv_error *e);
/* Set a.b.c in nested objects; v is stolen. */
int cli_json_set_path(json_t *obj, const char *path, json_t *v);

/* At most three of the candidates near word, "a, b, c" in buf; empty when nothing is near. */
struct cli_suggest { const char *word; struct { const char *word; unsigned dist; } best[3]; unsigned n; };
void cli_suggest_init(struct cli_suggest *s, const char *word);
void cli_suggest_add(struct cli_suggest *s, const char *candidate);
const char *cli_suggest_text(const struct cli_suggest *s, const char *prefix, char *buf, size_t size);
/* Optimal string alignment: insert, delete, replace, swap neighbours. At most 63 bytes of each count. */
unsigned cli_distance(const char *a, const char *b);

/* ---- talking to the person: stderr only ---- */

/* The error in the contract's form (text, or JSON with -o json). Control characters are masked. */
void cli_print_error(const struct cli_call *c, const struct hv_error *e);
/* "tool: object: message" for a thing that is no failure; nothing under --quiet. */
void cli_warn(const struct cli_call *c, const char *object, const char *fmt, ...) HV_PRINTF(3, 4);
/* "  try: ..." under a note or warning; nothing under --quiet. */
void cli_try(const struct cli_call *c, const char *fmt, ...) HV_PRINTF(2, 3);
/* A "web1: started" line; nothing under --quiet. One call is one write: threads do not mix lines. */
void cli_note(const struct cli_call *c, const char *fmt, ...) HV_PRINTF(2, 3);
/* With -v. */
void cli_debug(const struct cli_call *c, unsigned level, const char *fmt, ...) HV_PRINTF(3, 4);

/*
 * Rule 9: ask before something is destroyed. question has no question mark. 0 to go on;
 * -EINVAL (needs --yes) where nobody can be asked, -ECANCELED with e filled on no.
 * object and refusal make the sentence: "web1: deleting cache.vhdx needs --yes when nobody can be asked".
 */
int cli_ask(const struct cli_call *c, const char *object, const char *doing, struct hv_error *e);

/* Send c->out through $HV_PAGER, $PAGER or less, if it is a terminal and nothing forbids it. */
bool cli_pager_begin(struct cli_call *c);
void cli_pager_end(struct cli_call *c, bool begun);

/* Help for what c->want_help says, on c->out, at most 80 columns. */
void cli_print_help(const struct cli_call *c);
/* The options and synopsis of a command as mdoc, for the man pages. */
void cli_print_mdoc(const struct cli_command *cmd, const char *tool, FILE *out);
/* The universal options as mdoc. */
void cli_print_mdoc_universal(FILE *out);
/* The whole table. */
json_t *cli_dump(const struct cli_tool *t);
/* words[n]: what was typed after the tool's name, the last being completed (may be ""). One candidate a
 * line on c->out, with a description after a TAB for zsh and fish; ":file GLOB" or ":dir" where the
 * shell completes paths itself. */
void cli_complete(struct cli_call *c, const char *shell, int n, char *const *words);

/* The completion file of shell (bash, zsh, fish) for tool, as it is installed. */
void cli_print_completion(const struct cli_tool *tool, const char *shell, FILE *out);
/* A command's run() that does so; its only argument is the shell. */
int cli_completion(struct cli_call *c, struct hv_error *e);

/*
 * The main() of a tool: parse, hidden commands (__complete, __dump, __mdoc), help, run, print
 * the error. Returns the exit code.
 */
int cli_main(const struct cli_tool *tool, int argc, char **argv, void *data);
/* One command of a shell: the same without what only a process of its own needs, and without hidden commands. */
int cli_run(const struct cli_tool *tool, int argc, char **argv, const struct cli_context *context);

#endif
