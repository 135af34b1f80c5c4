/*
 * Output: rows are JSON objects with keys nested by noun, columns say which of them are shown
 * and how. One formatter for every listing of every tool (specs/operator-surface, "Output
 * formats").
 */
#ifndef HV_CLI_COLUMN_H
#define HV_CLI_COLUMN_H

#include "hv/cli/filter.h"
#include "hv/cli/term.h"

/* How a value is shown, compared and read back in filters. */
#define CLI_UNITS(X)                                              \
    X(TEXT)      /* text, left */                                 \
    X(SIZE)      /* bytes: 4.0G */                                \
    X(PCT)       /* 12% */                                        \
    X(AGE_S)     /* seconds: 3h 12m */                            \
    X(AGE_MS)    /* milliseconds, shown as an age */              \
    X(NUMBER)    /* a plain number */                             \
    X(RATE)      /* bytes a second: 12M/s */                      \
    X(SWITCH)    /* on, off */                                    \
    X(TIME)      /* RFC 3339 text */                              \
    X(STATUS)    /* ok, low, warning: OK, Low, Warning */
enum cli_unit {
#define CLI_UNIT_ENUM(id) CLI_UNIT_##id,
    CLI_UNITS(CLI_UNIT_ENUM)
#undef CLI_UNIT_ENUM
    CLI_UNIT_COUNT
};

struct cli_column {
    const char *key;              /* "buffer_pct": CSV header, --columns, --sort, --filter */
    const char *path;             /* where in the row: "memory.buffer_pct"; NULL: key */
    const char *header;           /* "WANT"; NULL: key in upper case */
    enum cli_unit unit;
    unsigned width;               /* at least so wide when rows are printed one by one */
    bool cut;                     /* may be cut in the middle on a narrow terminal */
    const char *help;             /* one line for `--columns help` */
    const char *label;            /* in the list form; NULL: key */
    /* Writes what people read instead of the value itself; row is the whole object. A NULL
     * function, or one that returns NULL: by unit. detail: the same in the list form only. */
    const char *(*show)(const json_t *row, const json_t *v, char *buf, size_t size);
    const char *(*detail)(const json_t *row, const json_t *v, char *buf, size_t size);
    enum cli_role (*role)(const json_t *row, const json_t *v);
};

struct cli_columns {
    const struct cli_column *col; /* ends with {0} */
    const char *defaults;         /* "name,state,assigned" */
    const char *sort;             /* default order, NULL: as they come */
    const char *name;             /* the key `-o name` prints; NULL: "name" */
    const char *list;             /* the columns of the list form; NULL: all */
    bool xml;                     /* the rows have an XML form: the caller prints it of cli_printer.xml_rows */
};

/* "a.b.c" in nested objects; NULL if any part is missing. Borrowed. */
const json_t *cli_json_path(const json_t *obj, const char *path);
const json_t *cli_cell(const json_t *row, const struct cli_column *col);
const struct cli_column *cli_column_find(const struct cli_columns *t, const char *key, size_t len);
bool cli_is_number(enum cli_unit u);

/* The value for people, or raw: bytes, seconds and plain numbers. Appends; unknown is "-", raw nothing. */
void cli_cell_text(struct strbuf *sb, const json_t *row, const struct cli_column *col, bool raw, bool ascii);
/* The same in the list form: detail where the column has it. */
void cli_cell_detail(struct strbuf *sb, const json_t *row, const struct cli_column *col, bool raw, bool ascii);

/*
 * Which of two rows comes first in ascending order of a column: < 0, 0, > 0. A status sorts by how
 * bad it is. descending turns the known values round; unknown comes last whichever way.
 */
int cli_cell_compare(const struct cli_column *col, const json_t *a, const json_t *b, bool descending);

#define CLI_MAX_COLUMNS 64

/* A listing being printed. */
struct cli_printer {
    struct cli_call *call;
    const struct cli_columns *table;
    const struct cli_column *col[CLI_MAX_COLUMNS];
    unsigned n;
    bool chosen;                  /* --columns was given: JSON too is cut down to them */
    enum cli_format format;
    struct cli_filter *filter;
    const struct cli_column *sort;
    bool descending, header_done, one;
    unsigned rows;
    unsigned width[CLI_MAX_COLUMNS];
    json_t *xml_rows;             /* with -o xml: what cli_print_rows() would have printed, filtered and in order */
};

/*
 * Reads --columns, --filter, --sort and --output. def is the format where none was asked for.
 * 0; 1 if `--columns help` was answered (nothing more to do); -EINVAL with e filled.
 */
int cli_printer_init(struct cli_printer *p, struct cli_call *c, const struct cli_columns *t,
                     enum cli_format def, struct hv_error *e);
void cli_printer_fini(struct cli_printer *p);

/* rows: an array, filtered and sorted here, printed whole. one: JSON gives an object, not an array. */
void cli_print_rows(struct cli_printer *p, const json_t *rows, bool one);

/* A stream: rows as they come, flushed one by one, column widths from the table. */
void cli_stream_row(struct cli_printer *p, const json_t *row);
void cli_stream_end(struct cli_printer *p);

#endif
