/*
 * The one formatter: table, wide, list, json, jsonl, csv, name. The shape never depends on
 * whether output is a terminal (rule 8); colour and cutting do.
 */
#include "hv/cli/column.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

/* ---- which columns, which order ---- */

static int no_column(const char *option, const char *key, size_t len, const struct cli_columns *t,
                     struct hv_error *e)
{
    char word[64], object[96], hint[160];
    struct cli_suggest s;
    snprintf(word, sizeof(word), "%.*s", (int)MIN(len, sizeof(word) - 1), key);
    snprintf(object, sizeof(object), "--%s %s", option, word);
    hv_fail(e, HV_USAGE, object, "no such column");
    cli_suggest_init(&s, word);
    for (const struct cli_column *c = t->col; c->key; c++) {
        cli_suggest_add(&s, c->key);
    }
    if (s.n) {
        hv_hint(e, "%s", cli_suggest_text(&s, "", hint, sizeof(hint)));
    } else {
        hv_hint(e, "--columns help");
    }
    return -EINVAL;
}

static void remove_column(struct cli_printer *p, const struct cli_column *col)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->n; i++) {
        if (p->col[i] != col) {
            p->col[n++] = p->col[i];
        }
    }
    p->n = n;
}

static void add_column(struct cli_printer *p, const struct cli_column *col)
{
    remove_column(p, col);
    if (p->n < CLI_MAX_COLUMNS) {
        p->col[p->n++] = col;
    }
}

/* "a,b" replaces what is there, "+a,-b" changes it; the two do not mix but for order. */
static int choose(struct cli_printer *p, const char *list, bool given, struct hv_error *e)
{
    bool fresh = list[0] != '+' && list[0] != '-';
    if (fresh) {
        p->n = 0;
    }
    for (const char *w = list; *w;) {
        size_t n = strcspn(w, ",");
        char sign = *w == '+' || *w == '-' ? *w : 0;
        const struct cli_column *col = cli_column_find(p->table, w + !!sign, n - !!sign);
        if (!col) {
            hv_assert(given);
            return no_column("columns", w + !!sign, n - !!sign, p->table, e);
        }
        if (sign == '-') {
            remove_column(p, col);
        } else {
            add_column(p, col);
        }
        w += n + (w[n] == ',');
    }
    return 0;
}

static void column_help(const struct cli_printer *p)
{
    for (const struct cli_column *c = p->table->col; c->key; c++) {
        bool on = false;
        for (unsigned i = 0; i < p->n; i++) {
            on = on || p->col[i] == c;
        }
        fprintf(p->call->out, "%c %-18s %s\n", on ? '*' : ' ', c->key, c->help ? c->help : "");
    }
}

int cli_printer_init(struct cli_printer *p, struct cli_call *c, const struct cli_columns *t,
                     enum cli_format def, struct hv_error *e)
{
    *p = (struct cli_printer){.call = c, .table = t, .chosen = c->columns != NULL};
    p->format = c->format != CLI_FMT_DEFAULT ? c->format : def;
    if (p->format == CLI_FMT_XML && !t->xml) {
        int r = hv_fail(e, HV_UNSUPPORTED, "--output xml", "this has no form in XML");
        hv_hint(e, "--output json");
        return r;
    }
    choose(p, t->defaults, false, e);
    if (p->format == CLI_FMT_LIST && !(c->columns && c->columns[0] != '+' && c->columns[0] != '-')) {
        p->n = 0;
        if (t->list) {
            choose(p, t->list, false, e);
        }
        for (const struct cli_column *col = t->col; !t->list && col->key; col++) {
            add_column(p, col);
        }
    }
    if (c->columns && strcmp(c->columns, "help") == 0) {
        column_help(p);
        return 1;
    }
    int r = c->columns ? choose(p, c->columns, true, e) : 0;
    const char *sort = c->sort ? c->sort : t->sort;
    if (r == 0 && sort) {
        bool sign = *sort == '+' || *sort == '-';
        p->descending = *sort == '-';
        p->sort = cli_column_find(t, sort + sign, strlen(sort + sign));
        if (!p->sort) {
            r = no_column("sort", sort + sign, strlen(sort + sign), t, e);
        }
    }
    if (r == 0 && c->filter) {
        r = cli_filter_parse(c->filter, t, &p->filter, e);
    }
    return r;
}

void cli_printer_fini(struct cli_printer *p)
{
    cli_filter_free(p->filter);
    p->filter = NULL;
    json_decref(p->xml_rows);
    p->xml_rows = NULL;
}

/* ---- order ---- */

struct sort_key { const struct cli_printer *p; const json_t *row; const json_t *v; size_t at; };

static int status_rank(const json_t *v)
{
    const char *s = json_string_value(v);
    return !s ? 0 : strcmp(s, "ok") == 0 ? 1 : strcmp(s, "low") == 0 ? 2 : strcmp(s, "warning") == 0 ? 3 : 0;
}

static int compare_values(const struct cli_column *col, const json_t *a, const json_t *b)
{
    if (col->unit == CLI_UNIT_STATUS) {
        return status_rank(a) - status_rank(b);
    }
    if (json_is_number(a) && json_is_number(b)) {
        double x = json_number_value(a), y = json_number_value(b);
        return x < y ? -1 : x > y;
    }
    if (json_is_string(a) && json_is_string(b)) {
        return strcmp(json_string_value(a), json_string_value(b));
    }
    return (int)json_typeof(a) - (int)json_typeof(b);
}

int cli_cell_compare(const struct cli_column *col, const json_t *a, const json_t *b, bool descending)
{
    bool ka = a && !json_is_null(a), kb = b && !json_is_null(b);
    return ka != kb ? (int)kb - (int)ka : !ka ? 0
           : descending ? compare_values(col, b, a) : compare_values(col, a, b);
}

/* Equal rows keep their order. */
static int compare_rows(const void *va, const void *vb)
{
    const struct sort_key *a = va, *b = vb;
    int cmp = a->p->sort ? cli_cell_compare(a->p->sort, a->v, b->v, a->p->descending) : 0;
    return cmp ? cmp : a->at < b->at ? -1 : 1;
}

/* The rows that fit, in order; *ret_n of them. NULL: out of memory. */
static struct sort_key *order_rows(const struct cli_printer *p, const json_t *rows, size_t *ret_n)
{
    size_t n = 0, i;
    const json_t *row;
    struct sort_key *k = hv_alloc_array(json_array_size(rows) + 1, sizeof(*k));
    json_array_foreach((json_t *)rows, i, row) {
        if (k && cli_filter_match(p->filter, row)) {
            k[n] = (struct sort_key){p, row, p->sort ? cli_cell(row, p->sort) : NULL, n};
            n++;
        }
    }
    if (k && p->sort) {
        qsort(k, n, sizeof(*k), compare_rows);
    }
    *ret_n = n;
    return k;
}

/* ---- table ---- */

static bool right_aligned(const struct cli_column *c)
{
    return cli_is_number(c->unit);
}

static void header_text(struct strbuf *sb, const struct cli_column *c)
{
    if (c->header) {
        strbuf_adds(sb, c->header);
        return;
    }
    for (const char *s = c->key; *s; s++) {
        strbuf_addc(sb, (char)toupper((unsigned char)*s));
    }
}

static char *cell(const struct cli_printer *p, const json_t *row, const struct cli_column *col)
{
    struct strbuf sb = {0};
    if (p->format == CLI_FMT_LIST) {
        cli_cell_detail(&sb, row, col, p->call->raw, cli_ascii(p->call));
    } else {
        cli_cell_text(&sb, row, col, p->call->raw, cli_ascii(p->call));
    }
    if (sb.len == 0) {
        strbuf_addc(&sb, '-');
    }
    return strbuf_detach(&sb, NULL);
}

static void put_cell(struct cli_printer *p, struct strbuf *line, unsigned i, const char *text, enum cli_role role)
{
    strbuf_auto cut = {0};
    cli_cut(&cut, text, p->width[i], cli_ascii(p->call));
    const char *shown = cut.buf ? cut.buf : "";
    unsigned w = cli_text_width(shown), pad = p->width[i] > w ? p->width[i] - w : 0;
    bool right = right_aligned(p->col[i]), last = i + 1 == p->n;

    strbuf_adds(line, i ? "  " : "");
    for (unsigned k = 0; right && k < pad; k++) {
        strbuf_addc(line, ' ');
    }
    strbuf_adds(line, cli_role_start(p->call, role));
    strbuf_adds(line, shown);
    strbuf_adds(line, cli_role_end(p->call, role));
    for (unsigned k = 0; !right && !last && k < pad; k++) {
        strbuf_addc(line, ' ');
    }
}

static void put_line(struct cli_printer *p, struct strbuf *line)
{
    strbuf_addc(line, '\n');
    if (line->buf && !line->err) {
        fwrite(line->buf, 1, line->len, p->call->out);
    }
    strbuf_reset(line);
}

static void put_header(struct cli_printer *p)
{
    strbuf_auto line = {0}, text = {0};
    if (p->call->no_header || p->header_done) {
        return;
    }
    p->header_done = true;
    for (unsigned i = 0; i < p->n; i++) {
        strbuf_reset(&text);
        header_text(&text, p->col[i]);
        put_cell(p, &line, i, text.buf, ROLE_HEADER);
    }
    put_line(p, &line);
}

static void put_row(struct cli_printer *p, const json_t *row)
{
    strbuf_auto line = {0};
    for (unsigned i = 0; i < p->n; i++) {
        hv_autofree char *text = cell(p, row, p->col[i]);
        enum cli_role role = p->col[i]->role ? p->col[i]->role(row, cli_cell(row, p->col[i])) : ROLE_NONE;
        put_cell(p, &line, i, text ? text : "-", role);
    }
    put_line(p, &line);
}

/* On a terminal too narrow, what may be cut gives way, widest first, to 8 columns. */
static void fit_terminal(struct cli_printer *p)
{
    unsigned have = cli_term_width(p->call), want = p->n ? 2 * (p->n - 1) : 0;
    for (unsigned i = 0; i < p->n; i++) {
        want += p->width[i];
    }
    while (have && want > have) {
        unsigned widest = p->n;
        for (unsigned i = 0; i < p->n; i++) {
            if (p->col[i]->cut && p->width[i] > 8 && (widest == p->n || p->width[i] > p->width[widest])) {
                widest = i;
            }
        }
        if (widest == p->n) {
            return;
        }
        p->width[widest]--;
        want--;
    }
}

static void measure(struct cli_printer *p, const struct sort_key *k, size_t n)
{
    strbuf_auto text = {0};
    for (unsigned i = 0; i < p->n; i++) {
        strbuf_reset(&text);
        header_text(&text, p->col[i]);
        p->width[i] = p->call->no_header ? 1 : cli_text_width(text.buf);
        for (size_t r = 0; r < n; r++) {
            hv_autofree char *s = cell(p, k[r].row, p->col[i]);
            p->width[i] = MAX(p->width[i], s ? cli_text_width(s) : 1);
        }
    }
    fit_terminal(p);
}

/* wide: every column of the table that has a value in some row. */
static void widen(struct cli_printer *p, const struct sort_key *k, size_t n)
{
    for (const struct cli_column *c = p->table->col; c->key; c++) {
        bool there = false;
        for (unsigned i = 0; i < p->n; i++) {
            there = there || p->col[i] == c;
        }
        for (size_t r = 0; r < n && !there; r++) {
            const json_t *v = cli_cell(k[r].row, c);
            if (v && !json_is_null(v)) {
                add_column(p, c);
                there = true;
            }
        }
    }
}

/* ---- the other forms ---- */

/* What the list form shows of a column, NULL where it is unknown and was not asked for. */
static char *list_cell(const struct cli_printer *p, const json_t *row, const struct cli_column *col)
{
    const json_t *v = cli_cell(row, col);
    char *text = !p->chosen && (!v || json_is_null(v)) ? NULL : cell(p, row, col);
    if (text && !p->chosen && strcmp(text, "-") == 0) {
        free(text);
        text = NULL;
    }
    return text;
}

static const char *label(const struct cli_column *c)
{
    return c->label ? c->label : c->key;
}

static void put_list(struct cli_printer *p, const json_t *row)
{
    strbuf_auto line = {0};
    unsigned width = 0;
    for (unsigned i = 0; i < p->n; i++) {
        hv_autofree char *text = list_cell(p, row, p->col[i]);
        width = text ? MAX(width, (unsigned)strlen(label(p->col[i]))) : width;
    }
    if (p->rows) {
        put_line(p, &line);
    }
    for (unsigned i = 0; i < p->n; i++) {
        hv_autofree char *text = list_cell(p, row, p->col[i]);
        if (!text) {
            continue;
        }
        enum cli_role role = p->col[i]->role ? p->col[i]->role(row, cli_cell(row, p->col[i])) : ROLE_NONE;
        strbuf_addf(&line, "%s:%*s%s%s%s", label(p->col[i]), (int)(width - strlen(label(p->col[i])) + 2), "",
                    cli_role_start(p->call, role), text, cli_role_end(p->call, role));
        put_line(p, &line);
    }
}

static void csv_field(struct strbuf *line, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        strbuf_adds(line, text);
        return;
    }
    strbuf_addc(line, '"');
    for (const char *s = text; *s; s++) {
        strbuf_adds(line, *s == '"' ? "\"" : "");
        strbuf_addc(line, *s);
    }
    strbuf_addc(line, '"');
}

/* RFC 4180 but for line ends, which are the host's. */
static void put_csv(struct cli_printer *p, const json_t *row)
{
    strbuf_auto line = {0};
    if (!p->header_done && !p->call->no_header) {
        for (unsigned i = 0; i < p->n; i++) {
            strbuf_adds(&line, i ? "," : "");
            strbuf_adds(&line, p->col[i]->key);
        }
        put_line(p, &line);
    }
    p->header_done = true;
    for (unsigned i = 0; i < p->n; i++) {
        const json_t *v = cli_cell(row, p->col[i]);
        strbuf_auto text = {0};
        if (!json_is_string(v)) {
            cli_cell_text(&text, row, p->col[i], true, false);
        }
        strbuf_adds(&line, i ? "," : "");
        csv_field(&line, json_is_string(v) ? json_string_value(v) : text.buf ? text.buf : "");
    }
    put_line(p, &line);
}

/* The row itself, or with --columns only those parts of it. A new reference. */
static json_t *json_row(const struct cli_printer *p, const json_t *row)
{
    if (!p->chosen) {
        return json_incref((json_t *)row);
    }
    json_t *o = json_object();
    for (unsigned i = 0; i < p->n; i++) {
        json_t *v = (json_t *)cli_cell(row, p->col[i]);
        cli_json_set_path(o, p->col[i]->path ? p->col[i]->path : p->col[i]->key, v ? json_incref(v) : json_null());
    }
    return o;
}

static void put_json(struct cli_printer *p, const json_t *v, size_t flags)
{
    hv_autofree char *text = json_dumps(v, flags | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    if (text) {
        fprintf(p->call->out, "%s\n", text);
    }
}

static void put_json_row(struct cli_printer *p, const json_t *row)
{
    json_t *o = json_row(p, row);
    put_json(p, o, JSON_COMPACT);
    json_decref(o);
}

static void put_name(struct cli_printer *p, const json_t *row)
{
    const struct cli_column *col = cli_column_find(p->table, p->table->name ? p->table->name : "name",
                                                   strlen(p->table->name ? p->table->name : "name"));
    strbuf_auto line = {0};
    hv_assert(col);
    const json_t *v = cli_cell(row, col);
    if (json_is_string(v)) {
        strbuf_adds(&line, json_string_value(v));
    } else {
        cli_cell_text(&line, row, col, true, false);
    }
    put_line(p, &line);
}

static void put_json_all(struct cli_printer *p, const struct sort_key *k, size_t n, bool one)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(all, json_row(p, k[i].row));
    }
    put_json(p, one && n == 1 ? json_array_get(all, 0) : all, JSON_INDENT(2));
    json_decref(all);
}

void cli_print_rows(struct cli_printer *p, const json_t *rows, bool one)
{
    size_t n;
    hv_autofree struct sort_key *k = order_rows(p, rows, &n);
    if (!k) {
        return;
    }
    if (p->format == CLI_FMT_JSON) {
        put_json_all(p, k, n, one);
        fflush(p->call->out);
        return;
    }
    if (p->format == CLI_FMT_XML) {
        json_decref(p->xml_rows);
        p->xml_rows = json_array();
        for (size_t i = 0; i < n; i++) {
            json_array_append(p->xml_rows, (json_t *)(uintptr_t)k[i].row);
        }
        return;
    }
    bool table = p->format == CLI_FMT_TABLE || p->format == CLI_FMT_WIDE;
    if (p->format == CLI_FMT_WIDE) {
        widen(p, k, n);
    }
    if (table && n) {
        measure(p, k, n);
        put_header(p);
    }
    for (size_t i = 0; i < n; i++) {
        if (table) {
            put_row(p, k[i].row);
        } else {
            cli_stream_row(p, k[i].row);
        }
        p->rows += table;
    }
    p->header_done = p->header_done && !table;       /* the next table of --watch has its own */
    fflush(p->call->out);
}

void cli_stream_row(struct cli_printer *p, const json_t *row)
{
    if (!cli_filter_match(p->filter, row)) {
        return;
    }
    switch (p->format) {
    case CLI_FMT_JSON: {
        json_t *o = json_row(p, row);
        hv_autofree char *text = json_dumps(o, JSON_INDENT(2));
        fprintf(p->call->out, "%s%s", p->rows ? ",\n" : "[\n", text ? text : "null");
        json_decref(o);
        break;
    }
    case CLI_FMT_JSONL:
        put_json_row(p, row);
        break;
    case CLI_FMT_CSV:
        put_csv(p, row);
        break;
    case CLI_FMT_LIST:
        put_list(p, row);
        break;
    case CLI_FMT_NAME:
        put_name(p, row);
        break;
    default:
        /* Not cut: a column grows when it must and stays so. */
        for (unsigned i = 0; i < p->n; i++) {
            strbuf_auto text = {0};
            hv_autofree char *shown = cell(p, row, p->col[i]);
            header_text(&text, p->col[i]);
            p->width[i] = MAX(p->width[i], p->col[i]->width);
            p->width[i] = MAX(p->width[i], cli_text_width(text.buf ? text.buf : ""));
            p->width[i] = MAX(p->width[i], cli_text_width(shown ? shown : "-"));
        }
        put_header(p);
        put_row(p, row);
        break;
    }
    p->rows++;
    fflush(p->call->out);
}

void cli_stream_end(struct cli_printer *p)
{
    if (p->format == CLI_FMT_JSON) {
        fputs(p->rows ? "\n]\n" : "[]\n", p->call->out);
        fflush(p->call->out);
    }
}
