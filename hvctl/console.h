/*
 * A console session: this process's terminal (or stdin and stdout) joined to the serial port
 * of a VM over a connected socket (specs/operator-surface, section 5).
 */
#ifndef HVCTL_CONSOLE_H
#define HVCTL_CONSOLE_H

#include "hv/cli/call.h"
#include "hvctl/script.h"

enum console_end {
    CONSOLE_DETACHED,      /* the person left */
    CONSOLE_CLOSED,        /* the far end closed: look at the VM's state */
    CONSOLE_MATCHED,       /* the last --until */
    CONSOLE_TIMEOUT,
    CONSOLE_SIGNAL,        /* .signum */
    CONSOLE_FAILED,        /* reading or writing here failed: .error, positive errno */
};

struct console {
    struct cli_call *c;
    const char *name;              /* of the VM */
    int fd;                        /* the console; not closed here */
    const void *extra;             /* bytes that had arrived with the connection */
    size_t extra_len;
    bool read_only;
    unsigned char escape;          /* 0: none */
    const char *log;               /* --log FILE, or NULL */
    uint64_t deadline_ns;          /* monotonic; 0: none */
    struct script *script;         /* may be empty */
    int signal_fd;                 /* from tty_signals_begin() */

    int signum, error;             /* how it ended */
};

/* --escape --log --read-only --send --until and -t into o. 0 or -EINVAL. */
int console_options(struct console *o, struct cli_call *c, struct script *s, struct hv_error *e);

/* Runs until it ends. The terminal is restored before it returns. */
enum console_end console_run(struct console *o);

/* The rows of options both `vm console` and `vm run` have. */
#define CONSOLE_OPTIONS                                                                        \
    {.name = "read-only", .type = CLI_BOOL, .help = "watch; what is typed goes nowhere"},      \
    {.name = "log", .type = CLI_FILE, .arg = "FILE",                                           \
     .help = "append the guest's output to FILE as well"},                                     \
    {.name = "escape", .type = CLI_CHAR, .arg = "CHAR", .def = "^]",                           \
     .help = "the key that opens the line of commands; none: no key is special"},              \
    {.name = "send", .type = CLI_STRING, .arg = "TEXT", .flags = CLI_REPEAT,                   \
     .help = "type TEXT and Return; --send and --until act in the order given"},               \
    {.name = "until", .type = CLI_REGEX, .arg = "REGEX", .flags = CLI_REPEAT,                  \
     .help = "copy output until a line matches; the last one ends the session"}

#endif
