/*
 * What the person sees and does: which screen, which rows in which order, which dialog. Keys change
 * it, ui_draw() shows it in a canvas. What goes beyond (running a command, a sample now, the end) it
 * leaves in `effect` for the loop that owns terminal, feeds and children. Nothing here waits.
 */
#ifndef HVTOP_UI_H
#define HVTOP_UI_H

#include "hvtop/canvas.h"
#include "hvtop/columns.h"
#include "hvtop/keys.h"
#include "hvtop/model.h"

enum ui_screen { UI_MEMORY, UI_CPU, UI_DISK, UI_NET, UI_HOST, UI_EVENTS, UI_SCREEN_COUNT };
extern const char *const ui_screen_words[UI_SCREEN_COUNT];     /* "memory", ... as --screen takes them */

enum ui_mode {
    UI_NORMAL,
    UI_ASK_FILTER, UI_ASK_COMMAND, UI_ASK_DELAY, UI_ASK_TIME,  /* a line is being typed */
    UI_PICK_SORT, UI_PICK_COLUMNS,                             /* a list is open */
    UI_CONFIRM,                                                /* y or n */
    UI_FORM,                                                   /* memory settings */
    UI_PANE,                                                   /* what a command printed */
    UI_HELP,
};

enum ui_effect {
    UI_NOTHING, UI_QUIT, UI_SAMPLE_NOW, UI_SET_DELAY, UI_SAVE_LAYOUT,
    UI_RUN,               /* run `command`, an hvctl line; its output comes to ui_output() */
    UI_HAND_OVER,         /* the same with the terminal */
    UI_COMPLETE,          /* complete `line`; answer with ui_completion() */
    UI_PREVIEW,           /* what would the form's settings do? answer with ui_preview() */
    UI_PLAY_PAUSE, UI_SLOWER, UI_FASTER, UI_STEP_BACK, UI_STEP, UI_NEXT_EVENT, UI_GO_TO,  /* replay */
};

/* Screens that are tables of VMs. */
#define UI_TABLES 3
extern const struct ui_table_desc { enum ui_screen screen; const struct top_table *table; } ui_tables[UI_TABLES];
/* Which of them a screen is; UI_TABLES: none. */
unsigned ui_table_index(enum ui_screen s);

enum ui_tree { UI_TREE_NONE, UI_TREE_HOST, UI_TREE_GROUP, UI_TREE_COUNT };
/* A line of a table: a VM, or the heading over those that begin with it. */
struct ui_line { size_t at; bool heading; };

#define UI_DELAY_MIN_NS (100 * NS_PER_MS)
#define UI_DELAY_MAX_NS (3600 * NS_PER_SEC)

struct ui_table_state { char *keys; const struct cli_column *sort; bool descending; };

enum { UI_FORM_MIN, UI_FORM_STARTUP, UI_FORM_MAX, UI_FORM_BUFFER, UI_FORM_PRIORITY, UI_FORM_FIELDS };
struct ui_form {
    unsigned host;
    char vm[512];
    char text[UI_FORM_FIELDS][32], was[UI_FORM_FIELDS][32];
    unsigned field;
    char preview[4][120];
    unsigned preview_lines;
    bool preview_bad;
};

struct ui {
    struct model *m;
    /* how it was started */
    bool read_only, replay, no_header_fold;
    const char *const *only;            /* VMs named on the command line; NULL: all */
    unsigned n_only;
    uint64_t delay_ns;
    const char *recording;              /* file being written, NULL: none */
    uint64_t recorded;                  /* bytes of it */

    enum ui_screen screen;
    bool detail, detail_cpu, fold, paused;
    enum ui_tree tree;
    enum ui_mode mode;
    struct ui_table_state table[UI_TABLES];
    unsigned span;                      /* index of ui_spans */
    uint64_t look_ms;                   /* live: the moment that is looked at, wall clock; 0: now */
    double speed;                       /* replay; 0: stands still */
    bool at_end;                        /* replay: nothing more comes */
    uint64_t now_ns, heard_ns[MODEL_HOSTS_MAX];     /* live, monotonic: when it is, when a host was heard of; 0: not known */

    char filter_text[256];
    struct cli_filter *filter;          /* NULL: plain text, or none */
    bool filter_bad;

    struct model_vm **view;             /* rows in order */
    size_t n_view, cap_view, cursor;
    struct ui_line *body;               /* the view with its headings; [2 * cap_view] */
    size_t n_lines, top;                /* top: the first line that is shown */
    unsigned cursor_host;               /* which VM the cursor is on; follows it */
    char cursor_name[512];
    bool cursor_set;
    unsigned list_top, list_cursor;     /* host, events and help: scrolled by so many lines */
    bool list_end;                      /* events: stick to the newest */
    uint64_t view_generation;
    bool view_stale;

    char *confirmed[MODEL_HOSTS_MAX];   /* commands that UI_CONFIRM asks about */
    char question[512];

    char line[512];                     /* being typed */
    unsigned line_len, pick;
    struct { char text[64][200]; unsigned n, at; } history;
    struct ui_form form;
    char *pane;                         /* text of the pane, lines */
    char pane_title[256];
    unsigned pane_top;
    bool pane_running, pane_hidden;     /* hidden: it was closed while the command ran */

    char message[512];
    bool message_error;

    enum ui_effect effect;
    char *command[MODEL_HOSTS_MAX];     /* of UI_RUN and UI_HAND_OVER, by host: an hvctl line, words as in a shell */
    uint64_t number;                    /* UI_SET_DELAY ns, UI_GO_TO ms */
    int body_y, body_h;                 /* where rows were drawn last: for the mouse and for paging */
    struct { const struct cli_column *col; int from, to; } head[TOP_MAX_COLUMNS];
    unsigned n_heads;
};

extern const struct ui_span { const char *word; uint64_t ms; } ui_spans[4];

int ui_init(struct ui *ui, struct model *m);
void ui_fini(struct ui *ui);

/* "-demand", "name", of ui_tables[table]. -EINVAL: no such column. */
int ui_set_sort(struct ui *ui, unsigned table, const char *sort, struct hv_error *e);
/* As typed: an expression, or text that names contain. */
void ui_set_filter(struct ui *ui, const char *text);
int ui_set_filter_strict(struct ui *ui, const char *expr, struct hv_error *e);

void ui_key(struct ui *ui, int key);
/* A click at a cell; wheel: -1 up, 1 down, 0 a click. */
void ui_mouse(struct ui *ui, int y, int x, int wheel);
void ui_draw(struct ui *ui, struct canvas *c);

void ui_say(struct ui *ui, bool error, const char *fmt, ...) HV_PRINTF(3, 4);
/* Text a command printed; done: it ended with that code. */
void ui_output(struct ui *ui, const char *text, bool done, int code);
void ui_completion(struct ui *ui, const char *line);
void ui_preview(struct ui *ui, bool bad, const char *const *line, unsigned n);
/* The hvctl words of the form's changes: "memory set web1 --max 8G"; NULL if there are none. */
char *ui_form_command(const struct ui_form *f);
/* Append a word so that the splitter of commands gives it back. */
void ui_quote(struct strbuf *sb, const char *word);

/* ---- shared by the screens ---- */
void ui_order(struct ui *ui);                                   /* view is up to date after it */
struct model_vm *ui_current(struct ui *ui);                     /* under the cursor; NULL */
struct ui_table_state *ui_table(struct ui *ui);                 /* of the screen; memory's where it has none */
/* The row as it was at the moment that is looked at; a new reference. */
json_t *ui_row(const struct ui *ui, const struct model_vm *vm);
uint64_t ui_time_ms(const struct ui *ui, unsigned host);        /* that moment */
uint64_t ui_ago_ms(const struct ui *ui);                        /* how long ago that was; 0: now */
/* v[n]: demand, assigned (bytes) or cpu (per cent) over the span that ends then, oldest first; NAN unknown. */
enum ui_curve { UI_CURVE_DEMAND, UI_CURVE_ASSIGNED, UI_CURVE_CPU };
void ui_curve(const struct ui *ui, const struct series *s, unsigned host, enum ui_curve which, double *v, unsigned n);
/* The host has been silent: it is down, or for three delays no sample came. */
bool ui_stale(const struct ui *ui, unsigned host);
/* How long since its last sample, milliseconds. */
uint64_t ui_silent_ms(const struct ui *ui, unsigned host);
/* The name of the group a VM is shown in, where the table is grouped. */
const char *ui_group_of(const struct ui *ui, const struct model_vm *vm);
enum canvas_style ui_status_style(const char *status);
void ui_clock(const struct ui *ui, char *buf, size_t size, bool date);

int ui_draw_header(struct ui *ui, struct canvas *c);            /* returns the row below it */
void ui_draw_table(struct ui *ui, struct canvas *c, int y, int h);
void ui_draw_detail(struct ui *ui, struct canvas *c);
void ui_draw_host(struct ui *ui, struct canvas *c, int y, int h);
void ui_draw_events(struct ui *ui, struct canvas *c, int y, int h);
/* The last h events from row y on; vm NULL: all. */
void ui_draw_last_events(struct ui *ui, struct canvas *c, int y, int h, const char *vm);
void ui_draw_event(struct ui *ui, struct canvas *c, int y, const struct model_event *ev);
void ui_draw_dialog(struct ui *ui, struct canvas *c);
void ui_dialog_key(struct ui *ui, int key);
/* The event fits the filter. */
bool ui_event_fits(const struct ui *ui, const struct model_event *ev);

#endif
