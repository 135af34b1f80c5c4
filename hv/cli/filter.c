/*
 * Filter expressions: parsed once against the columns, then asked for each row.
 */
#include "hv/cli/filter.h"

#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <strings.h>

#include "hv/base/units.h"
#include "hv/cli/call.h"
#include "hv/cli/column.h"

enum op { OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_MATCH };

/* Longest first: "<=" before "<". The word forms need no quoting in a shell. */
static const struct { const char *text; enum op op; } ops[] = {
    {".lt=", OP_LT}, {".le=", OP_LE}, {".gt=", OP_GT}, {".ge=", OP_GE}, {".ne=", OP_NE}, {".eq=", OP_EQ},
    {"!=", OP_NE},   {"<=", OP_LE},   {">=", OP_GE},   {"=", OP_EQ},    {"<", OP_LT},    {">", OP_GT},
    {"~", OP_MATCH},
};
static const char *const op_words[] = {".eq=", ".ne=", ".lt=", ".le=", ".gt=", ".ge=", "~"};

struct term {
    const struct cli_column *col;
    enum op op;
    bool unknown;                 /* compared with "-" */
    bool numeric;
    double number;
    char *text;
    regex_t re;
    bool has_re;
};

struct cli_filter { struct term *terms; unsigned n; };

void cli_filter_free(struct cli_filter *f)
{
    if (!f) {
        return;
    }
    for (unsigned i = 0; i < f->n; i++) {
        free(f->terms[i].text);
        if (f->terms[i].has_re) {
            regfree(&f->terms[i].re);
        }
    }
    free(f->terms);
    free(f);
}

/* The value in the column's own unit. The error of hv/base is put in terms of the filter. */
static int parse_number(struct term *t, const char *expr, struct hv_error *e)
{
    struct hv_error why = {0};
    const char *text = t->text;
    bool negative = text[0] == '-' && t->col->unit == CLI_UNIT_PCT;
    uint64_t v = 0;
    bool on;
    int r;

    text += negative;
    switch (t->col->unit) {
    case CLI_UNIT_SIZE:
        r = parse_size(text, NULL, &v, &why);
        break;
    case CLI_UNIT_RATE: {
        char buf[64];
        size_t n = strlen(text);
        bool per_s = n > 2 && strcmp(text + n - 2, "/s") == 0;
        snprintf(buf, sizeof(buf), "%.*s", (int)MIN(n - (per_s ? 2 : 0), sizeof(buf) - 1), text);
        r = parse_size(buf, NULL, &v, &why);
        break;
    }
    case CLI_UNIT_AGE_S:
        r = parse_duration(text, NULL, &v, &why);
        v /= NS_PER_SEC;
        break;
    case CLI_UNIT_AGE_MS:
        r = parse_duration(text, NULL, &v, &why);
        v /= NS_PER_MS;
        break;
    case CLI_UNIT_PCT:
        r = parse_percent(text, NULL, &v, &why);
        break;
    case CLI_UNIT_SWITCH:
        r = parse_switch(text, NULL, &on, &why);
        v = r == 0 && on;
        break;
    default:
        r = parse_uint(text, NULL, 0, UINT64_MAX, &v, &why);
        break;
    }
    if (r < 0) {
        char object[120];
        snprintf(object, sizeof(object), "--filter %s", expr);
        hv_fail(e, HV_USAGE, object, "%s", why.message);
        if (why.hint[0]) {
            hv_hint(e, "--filter %s%s%s", t->col->key, op_words[t->op], why.hint);
        }
        return -EINVAL;
    }
    t->number = negative ? -(double)v : (double)v;
    return 0;
}

/* A likely comparison for a key that stands alone. */
static const char *example_value(enum cli_unit u)
{
    switch (u) {
    case CLI_UNIT_SIZE: return ".gt=2G";
    case CLI_UNIT_RATE: return ".gt=10M";
    case CLI_UNIT_PCT: return ".gt=50%";
    case CLI_UNIT_AGE_S:
    case CLI_UNIT_AGE_MS: return ".gt=1h";
    case CLI_UNIT_NUMBER: return ".gt=1";
    case CLI_UNIT_SWITCH: return "=on";
    case CLI_UNIT_STATUS: return ".ne=ok";
    default: return "=VALUE";
    }
}

static int bare_key(const char *expr, const struct cli_columns *t, struct hv_error *e)
{
    char object[120];
    const struct cli_column *col = cli_column_find(t, expr, strlen(expr));
    snprintf(object, sizeof(object), "--filter %s", expr);
    hv_fail(e, HV_USAGE, object, "a comparison is missing");
    hv_hint(e, "--filter %s%s (a bare > is the shell's redirection)", expr,
            example_value(col ? col->unit : CLI_UNIT_TEXT));
    return -EINVAL;
}

static int unknown_key(const char *key, const struct cli_columns *t, struct hv_error *e)
{
    struct cli_suggest s;
    char object[120], hint[160];
    snprintf(object, sizeof(object), "--filter %s", key);
    hv_fail(e, HV_USAGE, object, "no such column");
    cli_suggest_init(&s, key);
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

static int parse_term(char *expr, const struct cli_columns *table, struct term *t, struct hv_error *e)
{
    size_t len = strspn(expr, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    const char *op = NULL;
    char key[64];

    for (unsigned i = 0; i < ARRAY_SIZE(ops) && !op; i++) {
        if (strncmp(expr + len, ops[i].text, strlen(ops[i].text)) == 0) {
            op = ops[i].text;
            t->op = ops[i].op;
        }
    }
    if (!op) {
        return bare_key(expr, table, e);
    }
    snprintf(key, sizeof(key), "%.*s", (int)MIN(len, sizeof(key) - 1), expr);
    t->col = cli_column_find(table, key, strlen(key));
    if (!t->col) {
        return unknown_key(key, table, e);
    }
    t->text = hv_strdup(expr + len + strlen(op));
    if (!t->text) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    if (t->op == OP_MATCH) {
        char why[120], object[120];
        int bad = regcomp(&t->re, t->text, REG_EXTENDED | REG_ICASE | REG_NOSUB);
        if (bad) {
            regerror(bad, &t->re, why, sizeof(why));
            snprintf(object, sizeof(object), "--filter %s", expr);
            return hv_fail(e, HV_USAGE, object, "not a regular expression: %s", why);
        }
        t->has_re = true;
        return 0;
    }
    t->unknown = strcmp(t->text, "-") == 0;
    t->numeric = cli_is_number(t->col->unit) || t->col->unit == CLI_UNIT_SWITCH;
    return t->unknown || !t->numeric ? 0 : parse_number(t, expr, e);
}

static int add_term(struct cli_filter *f, char *expr, const struct cli_columns *t, struct hv_error *e)
{
    struct term *grown = hv_realloc_array(f->terms, f->n + 1, sizeof(*grown));
    if (!grown) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    f->terms = grown;
    f->terms[f->n] = (struct term){0};
    return parse_term(expr, t, &f->terms[f->n++], e);
}

int cli_filter_parse(const char *expr, const struct cli_columns *t, struct cli_filter **ret, struct hv_error *e)
{
    struct cli_filter *f = hv_alloc(sizeof(*f));
    hv_autofree char *copy = hv_strdup(expr);
    int r = 0;

    if (!f || !copy) {
        free(f);
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    for (char *next = copy; r == 0 && next;) {
        char *start = next, *from = next, *to = next;
        while (*from && *from != ',') {
            from += from[0] == '\\' && from[1] == ',';      /* "\," is a comma of the value */
            *to++ = *from++;
        }
        next = *from ? from + 1 : NULL;
        *to = '\0';
        r = add_term(f, start, t, e);
    }
    if (r < 0) {
        cli_filter_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

static bool compare(enum op op, int cmp)
{
    switch (op) {
    case OP_EQ: return cmp == 0;
    case OP_NE: return cmp != 0;
    case OP_LT: return cmp < 0;
    case OP_LE: return cmp <= 0;
    case OP_GT: return cmp > 0;
    case OP_GE: return cmp >= 0;
    default: return false;
    }
}

/* The cell as text to compare: strings as they are, lists and the rest as they are shown raw. */
static char *cell_text(const json_t *row, const struct cli_column *col)
{
    struct strbuf sb = {0};
    const json_t *v = cli_cell(row, col);
    if (json_is_string(v)) {
        strbuf_adds(&sb, json_string_value(v));
    } else {
        cli_cell_text(&sb, row, col, true, false);
    }
    return strbuf_detach(&sb, NULL);
}

static bool term_match(const struct term *t, const json_t *row)
{
    const json_t *v = cli_cell(row, t->col);
    bool known = v && !json_is_null(v);

    if (t->unknown) {
        return t->op == OP_EQ ? !known : t->op == OP_NE && known;
    }
    if (!known) {
        return false;
    }
    if (t->numeric) {
        double n = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
        return compare(t->op, n < t->number ? -1 : n > t->number);
    }
    hv_autofree char *text = cell_text(row, t->col);
    if (!text) {
        return false;
    }
    if (t->op == OP_MATCH) {
        return regexec(&t->re, text, 0, NULL, 0) == 0;
    }
    return compare(t->op, strcasecmp(text, t->text));
}

bool cli_filter_match(const struct cli_filter *f, const json_t *row)
{
    for (unsigned i = 0; f && i < f->n; i++) {
        if (!term_match(&f->terms[i], row)) {
            return false;
        }
    }
    return true;
}
