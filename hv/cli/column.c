/*
 * Columns and cells: finding a value in a row, and writing it for people or raw.
 */
#include "hv/cli/column.h"

#include <stdio.h>

#include "hv/base/units.h"

bool cli_is_number(enum cli_unit u)
{
    return u == CLI_UNIT_SIZE || u == CLI_UNIT_PCT || u == CLI_UNIT_AGE_S || u == CLI_UNIT_AGE_MS ||
           u == CLI_UNIT_NUMBER || u == CLI_UNIT_RATE;
}

const json_t *cli_json_path(const json_t *obj, const char *path)
{
    for (;;) {
        size_t n = strcspn(path, ".");
        char part[64];
        if (n >= sizeof(part)) {
            return NULL;
        }
        memcpy(part, path, n);
        part[n] = '\0';
        obj = json_object_get(obj, part);       /* NULL for anything but an object */
        if (!obj || !path[n]) {
            return obj;
        }
        path += n + 1;
    }
}

const json_t *cli_cell(const json_t *row, const struct cli_column *col)
{
    return cli_json_path(row, col->path ? col->path : col->key);
}

const struct cli_column *cli_column_find(const struct cli_columns *t, const char *key, size_t len)
{
    for (const struct cli_column *c = t->col; c->key; c++) {
        if (strlen(c->key) == len && memcmp(c->key, key, len) == 0) {
            return c;
        }
    }
    return NULL;
}

static void raw_number(struct strbuf *sb, const json_t *v)
{
    if (json_is_integer(v)) {
        strbuf_addf(sb, "%lld", (long long)json_integer_value(v));
    } else {
        strbuf_addf(sb, "%g", json_number_value(v));
    }
}

static void add_size(struct strbuf *sb, double bytes, const char *suffix)
{
    char buf[32];
    strbuf_addf(sb, "%s%s%s", bytes < 0 ? "-" : "",
                format_size((uint64_t)(bytes < 0 ? -bytes : bytes), buf, sizeof(buf)), suffix);
}

static void add_age(struct strbuf *sb, double seconds)
{
    char buf[32];
    strbuf_adds(sb, format_age(seconds > 0 ? (uint64_t)seconds : 0, buf, sizeof(buf)));
}

static void number_text(struct strbuf *sb, const json_t *v, enum cli_unit unit, bool raw)
{
    double n = json_number_value(v);
    if (raw) {
        raw_number(sb, v);
        return;
    }
    switch (unit) {
    case CLI_UNIT_SIZE:
        add_size(sb, n, "");
        break;
    case CLI_UNIT_RATE:
        add_size(sb, n, "/s");
        break;
    case CLI_UNIT_PCT:
        strbuf_addf(sb, "%.0f%%", n);
        break;
    case CLI_UNIT_AGE_S:
        add_age(sb, n);
        break;
    case CLI_UNIT_AGE_MS:
        add_age(sb, n / 1000);
        break;
    default:
        raw_number(sb, v);
        break;
    }
}

static void text_text(struct strbuf *sb, const char *s, enum cli_unit unit, bool raw, bool ascii)
{
    if (unit == CLI_UNIT_STATUS && !raw) {
        bool ok = strcmp(s, "ok") == 0;
        strbuf_addc(sb, s[0] >= 'a' && s[0] <= 'z' ? (char)(s[0] - 32) : s[0]);
        cli_clean(sb, ok ? "K" : s[0] ? s + 1 : "", ascii);
        return;
    }
    cli_clean(sb, s, ascii);
}

void cli_cell_text(struct strbuf *sb, const json_t *row, const struct cli_column *col, bool raw, bool ascii)
{
    const json_t *v = cli_cell(row, col), *item;
    char buf[160];
    size_t i;

    const char *shown = col->show && !raw ? col->show(row, v, buf, sizeof(buf)) : NULL;
    if (shown) {
        cli_clean(sb, shown, ascii);
        return;
    }
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_STRING:
        if (!json_string_value(v)[0]) {
            strbuf_adds(sb, raw ? "" : "-");
        }
        text_text(sb, json_string_value(v), col->unit, raw, ascii);
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        number_text(sb, v, col->unit, raw);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        strbuf_adds(sb, json_is_true(v) ? "on" : "off");
        break;
    case JSON_ARRAY:
        json_array_foreach((json_t *)v, i, item) {
            strbuf_adds(sb, i ? (raw ? " " : ", ") : "");
            if (json_is_string(item)) {
                cli_clean(sb, json_string_value(item), ascii);
            } else if (json_is_number(item)) {
                number_text(sb, item, col->unit, raw);
            }
        }
        if (json_array_size(v) == 0 && !raw) {
            strbuf_addc(sb, '-');
        }
        break;
    default:
        strbuf_adds(sb, raw ? "" : "-");
        break;
    }
}

void cli_cell_detail(struct strbuf *sb, const json_t *row, const struct cli_column *col, bool raw, bool ascii)
{
    char buf[400];
    const char *text = col->detail && !raw ? col->detail(row, cli_cell(row, col), buf, sizeof(buf)) : NULL;
    if (text) {
        cli_clean(sb, text, ascii);
    } else {
        cli_cell_text(sb, row, col, raw, ascii);
    }
}
