/*
 * The command table: one const entry for each noun and verb, from which parsing, --help,
 * completion and the man pages' SYNOPSIS and OPTIONS are made (specs/operator-surface,
 * section 8). What is not built yet stands in it as a `later` row (rule 11).
 */
#ifndef HV_CLI_COMMAND_H
#define HV_CLI_COMMAND_H

#include "hv/base/error.h"

/*
 * Types of option values and positional arguments: id, word (in the dump), value is text.
 * A type decides how a value is checked and what completes it; one long option name has
 * one type in all tools (rule 3).
 */
#define CLI_TYPES(X)                                                                   \
    X(BOOL, "bool")             /* takes no value */                                   \
    X(STRING, "string")         /* any text */                                         \
    X(SIZE, "size")             /* 512M */                                             \
    X(SIZE_REL, "size-rel")     /* 512M, +1G, -512M */                                 \
    X(DURATION, "duration")     /* 30s */                                              \
    X(PERCENT, "percent")       /* 20, 20% */                                          \
    X(UINT, "uint")             /* min..max */                                         \
    X(SWITCH, "switch")         /* on, off */                                          \
    X(ENUM, "enum")             /* one of values */                                    \
    X(LIST, "list")             /* some of values, joined by commas */                 \
    X(REGEX, "regex")           /* POSIX extended */                                   \
    X(CHAR, "char")             /* a key: ^], ^A, a letter, none */                    \
    X(TIME, "time")             /* 22:20, 2026-11-20T22:20, 24h ago */                 \
    X(FILE, "file")             /* values: a glob for completion */                    \
    X(DIR, "dir")                                                                      \
    X(NAME, "name")             /* a new object's name */                              \
    X(VM, "vm")                                                                        \
    X(VM_RUNNING, "vm-running")                                                        \
    X(VM_OFF, "vm-off")                                                                \
    X(JOB, "job")                                                                      \
    X(HOST, "host")                                                                    \
    X(COND, "cond")             /* what `vm wait` can wait for */                      \
    X(COLUMNS, "columns")                                                              \
    X(SORT, "sort")                                                                    \
    X(FILTER, "filter")                                                                \
    X(COMMAND, "command")       /* words of a command of this tool */                  \
    X(GROUP, "group")                                                                  \
    X(SWITCH_NAME, "switch-name")                                                      \
    X(DISK, "disk")                                                                    \
    X(NIC, "nic")                                                                      \
    X(CHECKPOINT, "checkpoint")

enum cli_type {
#define CLI_TYPE_ENUM(id, word) CLI_##id,
    CLI_TYPES(CLI_TYPE_ENUM)
#undef CLI_TYPE_ENUM
    CLI_TYPE_COUNT
};
const char *cli_type_word(enum cli_type t);

/* Flags of options and arguments. */
enum {
    CLI_REPEAT = 1,             /* may be given more than once; an argument: one or more */
    CLI_VALUE_OPTIONAL = 2,     /* --wait, --wait=COND */
    CLI_LATER = 4,              /* of the grammar, not in this version: exit 9 */
    CLI_OPTIONAL = 8,           /* an argument that may be left out */
    CLI_OR_ALL = 16,            /* an argument that --all stands in for */
    CLI_NONE_DEFAULT = 32,      /* also takes `none` and `default` (rule 5) */
    CLI_NONE_VALUE = 128,       /* takes `default` too, and `none` is a value of its own */
    CLI_VALUE_NEXT = 64,        /* with VALUE_OPTIONAL: the next word is the value unless it is an option */
};

struct cli_option {
    const char *name;           /* without the dashes */
    char letter;                /* universal options only (rule 3), else 0 */
    enum cli_type type;
    unsigned flags;
    const char *arg;            /* what --help calls the value: "SIZE" */
    const char *values;         /* ENUM, LIST: "auto|kvm|soft"; FILE: "*.vhdx" */
    const char *later;          /* those of values that this version lacks: "uefi|save" */
    uint64_t min, max;          /* UINT, PERCENT, SIZE: the range; max 0: none */
    const char *def;            /* the default as --help shows it, or NULL */
    const char *help;           /* one line, lower case, no full stop */
    const char *key;            /* the setting it sets: "memory.startup", or NULL */
    unsigned use;               /* universal options: which CLI_USE_ turn it on; 0: always there */
};

struct cli_arg {
    const char *name;           /* "VM" */
    enum cli_type type;
    unsigned flags;
    const char *values;         /* ENUM: the words */
    const char *help;
};

/* Which groups of universal options a command takes beside those that are always there. */
enum {
    CLI_USE_LIST = 1,           /* columns filter sort raw no-header */
    CLI_USE_WATCH = 2,          /* watch delay count */
    CLI_USE_TARGETS = 4,        /* all jobs */
    CLI_USE_JOB = 8,            /* no-wait */
    CLI_USE_WAIT = 16,          /* wait[=COND] */
    CLI_USE_DRY = 32,           /* dry-run */
    CLI_USE_STREAM = 64,        /* count */
    CLI_USE_FILE = 128,         /* file */
    CLI_USE_ASK = 256,          /* the verb asks: named in help; --yes is always accepted */
    CLI_USE_SAMPLE = 512,       /* delay count */
};

struct cli_example { const char *command, *what; };

/* An option people look for here and that lives elsewhere: `vm set --memory` -> memory set --startup. */
struct cli_elsewhere { const char *option, *command, *as; };

struct cli_call;
struct cli_columns;

struct cli_command {
    const char *noun;           /* "vm"; nouns without verbs: the word itself */
    const char *verb;           /* "start", or NULL */
    const char *help;           /* one line, lower case, no full stop */
    const char *about;          /* more, for the man page; or NULL */
    const struct cli_arg *args;               /* ends with {0}; NULL: none */
    const struct cli_option *options;         /* ends with {0}; NULL: none of its own */
    unsigned use;                             /* CLI_USE_ */
    unsigned codes;                           /* bit n: exit code n can happen beyond 0 1 2 5 6 7 */
    const struct cli_columns *columns;        /* what --columns, --sort and --filter name */
    const struct cli_example *examples;       /* ends with {0} */
    const struct cli_elsewhere *elsewhere;    /* ends with {0}; NULL: none */
    /* NULL: later. 0 or a negative errno with e filled; c->exit_code for results that are no error. */
    int (*run)(struct cli_call *c, struct hv_error *e);
    bool hidden;
};

struct cli_noun {
    const char *name, *alias;
    const char *help;
    const struct cli_command *commands;       /* ends with {0}; NULL: the noun is later */
    const char *default_verb;                 /* when the noun stands alone */
    const char *target_verb;                  /* `hvctl memory web1`: memory show web1 */
};

struct cli_tool {
    const char *name;                         /* "hvctl" */
    const char *help;                         /* one line */
    const struct cli_noun *nouns;             /* ends with {0} */
    const char *default_noun;                 /* whose verbs may stand alone: "vm" */
    bool many_hosts;                          /* --host may be given more than once: cli_opt_nth() */
    bool files_only;                          /* asks no service: --host is refused */
    bool one_command;                         /* no noun is ever typed: nouns[0] has the only command */
    const char *bare;                         /* the noun that is meant where none is typed ("shell"), or NULL */
    const char *later_hint;                   /* "man hv-from-hyperv" */
    /* Candidates that only the service knows; calls add() for each. Silent on failure. */
    void (*complete)(struct cli_call *c, enum cli_type type, const char *prefix,
                     void (*add)(void *arg, const char *word, const char *what), void *arg);
};

/* The universal options of all tools, ends with {0}. */
extern const struct cli_option cli_universal[];

/* Lookups by the whole word (rule 10); NULL if there is none. Aliases count. */
const struct cli_noun *cli_noun_find(const struct cli_tool *t, const char *word);
const struct cli_command *cli_verb_find(const struct cli_noun *n, const char *verb);
/* The n-th option cmd takes: its own first, then the universal ones it uses. NULL at the end. */
const struct cli_option *cli_option_at(const struct cli_command *cmd, unsigned n);
const struct cli_option *cli_option_find(const struct cli_command *cmd, const char *name, size_t len);
const struct cli_option *cli_letter_find(const struct cli_command *cmd, char letter);
bool cli_is_later(const struct cli_command *cmd);
/* "vm start", "events"; buf[size]. */
const char *cli_command_name(const struct cli_command *cmd, char *buf, size_t size);

/* Is word one of "a|b|c"? */
bool cli_word_in(const char *list, const char *word, size_t len);
/* Calls fn for each word of "a|b|c". */
void cli_words_each(const char *list, void (*fn)(void *arg, const char *word, size_t len), void *arg);

/*
 * Checks what a test wants true of every table: help everywhere, unique names, letters only
 * where universal, one meaning and one type a long option across tools[n]. Prints what is
 * wrong to out (may be NULL) and returns how much was.
 */
unsigned cli_table_check(const struct cli_tool *const *tools, unsigned n, FILE *out);

#endif
