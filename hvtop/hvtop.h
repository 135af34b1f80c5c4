/* What hvtop's files share: the command's table, the ways it runs, its configuration. */
#ifndef HVTOP_HVTOP_H
#define HVTOP_HVTOP_H

#include "hv/cli/call.h"
#include "hvtop/ui.h"

extern const struct cli_tool hvtop_tool;

struct feed;
struct replay;
struct recorder;

/* Where messages come from and where they are kept: feed or replay is set, recorder may be. */
struct top_source {
    const char *host[MODEL_HOSTS_MAX];
    unsigned n_hosts;
    struct feed *feed;
    struct replay *replay;
    json_t *pending;                     /* of the replay: read, and not yet due */
    struct recorder *recorder;
    struct model *m;
    struct ui *ui;
    const struct theme *theme;
    uint64_t stop_at_ns;                 /* monotonic; 0: never */
    int64_t from_ms;                     /* replay: where it begins; 0: at its beginning */
    bool explicit_batch;
};

/* The screen, until it is left. */
int top_run(struct cli_call *c, struct top_source *s, struct hv_error *e);
/* Without a screen: a table, CSV or JSON lines for each sample. */
int top_batch(struct cli_call *c, struct top_source *s, struct hv_error *e);
/* Only recording. */
int top_record(struct cli_call *c, struct top_source *s, struct hv_error *e);

/* Apply a message to the model, and record it. Takes the message. */
int top_take(struct top_source *s, json_t *msg, struct hv_error *e);
/* Replay: the state as it was at time_ms, with what is needed of before. */
void top_go_to(struct top_source *s, uint64_t time_ms);

/* ---- conf.c: hvtop.conf(5) ---- */
/* Reads it if there is one. A line that makes no sense is an error that names it. */
int conf_load(struct ui *ui, const struct theme **theme, struct hv_error *e);
/* Writes the layout; *ret_path (the caller's) where. */
int conf_save(const struct ui *ui, const struct theme *theme, char **ret_path, struct hv_error *e);

/* ---- child.c: hvctl as a child ---- */
struct child;
/* Run `hvctl -H host LINE` with its output in a pipe, and nobody to ask. LINE: words as in a shell. */
int child_start(const char *host, const char *line, struct child **ret, struct hv_error *e);
int child_fd(const struct child *c);
/* What it said so far into buf (terminated): bytes, 0 at the end of its output, -EAGAIN. */
int child_read(struct child *c, char *buf, size_t size);
/* Waits for its end; its exit code, 128+N after a signal. Frees it. kill: end it first. */
int child_end(struct child *c, bool kill);
/* Do not wait: hvtop ends, what hvctl began goes on in the service. Frees it. */
void child_leave(struct child *c);
/*
 * The same with the terminal, until it ends; stopped with it (Ctrl-Z in an editor) and continued. signals: a signalfd
 * that has SIGCHLD. SIGTERM and SIGHUP end the child; *ret_signal is the one that came, else as it was.
 */
int child_run(const char *host, const char *line, int signals, int *ret_signal, struct hv_error *e);
/* What `hvctl __complete` makes of a line: the line with what all candidates have in common; what fits in
 * ret_list (may be empty). */
void child_complete(const char *host, const char *line, char *ret_line, size_t line_size, char *ret_list, size_t list_size);
/* The candidates `hvctl start PREFIX` has: names of VMs. */
void child_vm_names(const char *host, const char *prefix, void (*add)(void *arg, const char *word, const char *what), void *arg);
/* Where hvctl is: beside hvtop, else where PATH finds it. */
const char *child_program(void);

#endif
