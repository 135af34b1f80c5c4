/*
 * Option values: each type's check, and the way from options to settings.
 */
#include "hv/cli/call.h"

#include <errno.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <unistd.h>

#include "hv/base/units.h"

static int bad_word(const struct cli_option *o, const char *text, struct hv_error *e)
{
    char object[96], hint[200] = "", words[200];
    struct cli_suggest s;
    snprintf(object, sizeof(object), "--%s %s", o->name, text);
    if (cli_word_in(o->later, text, strlen(text))) {
        return hv_fail(e, HV_UNSUPPORTED, object, "not in this version");
    }
    int r = hv_fail(e, HV_USAGE, object, "no such value");

    /* The words of the table are not NUL-terminated: a copy that is. */
    if (!hv_strlcpy(words, o->values, sizeof(words))) {
        return r;
    }
    cli_suggest_init(&s, text);
    for (char *save = NULL, *w = strtok_r(words, "|", &save); w; w = strtok_r(NULL, "|", &save)) {
        if (!cli_word_in(o->later, w, strlen(w))) {
            cli_suggest_add(&s, w);
        }
    }
    if (s.n) {
        char prefix[80];
        snprintf(prefix, sizeof(prefix), "--%s ", o->name);
        hv_hint(e, "%s", cli_suggest_text(&s, prefix, hint, sizeof(hint)));
        return r;
    }
    size_t pos = 0;
    for (const char *p = o->values; *p;) {
        size_t n = strcspn(p, "|");
        if (!cli_word_in(o->later, p, n) && pos + n + 3 < sizeof(hint)) {
            pos += (size_t)snprintf(hint + pos, sizeof(hint) - pos, "%s%.*s", pos ? ", " : "", (int)n, p);
        }
        p += n + (p[n] == '|');
    }
    hv_hint(e, "--%s %s", o->name, hint);
    return r;
}

/* "^]" and "^a" are control characters, "none" is none, anything else one byte. */
static int parse_char(const struct cli_option *o, const char *text, struct cli_value *v, struct hv_error *e)
{
    if (strcmp(text, "none") == 0) {
        v->u = 0;
        v->is_none = true;
        return 0;
    }
    if (text[0] == '^' && text[1] && !text[2]) {
        unsigned char c = (unsigned char)text[1];
        c = c >= 'a' && c <= 'z' ? (unsigned char)(c - 32) : c;
        if (c >= '@' && c <= '_') {
            v->u = c & 0x1f;
            if (v->u) {
                return 0;
            }
        }
    } else if (text[0] && !text[1]) {
        v->u = (unsigned char)text[0];
        return 0;
    }
    char object[96];
    snprintf(object, sizeof(object), "--%s %s", o->name, text);
    int r = hv_fail(e, HV_USAGE, object, "not a key");
    hv_hint(e, "--%s '^]', --%s '^A', --%s none", o->name, o->name, o->name);
    return r;
}

static int check_list(const struct cli_option *o, const char *text, struct hv_error *e)
{
    for (const char *p = text;;) {
        size_t n = strcspn(p, ",");
        if (!cli_word_in(o->values, p, n) || cli_word_in(o->later, p, n)) {
            char word[64];
            snprintf(word, sizeof(word), "%.*s", (int)MIN(n, sizeof(word) - 1), p);
            return bad_word(o, word, e);
        }
        if (!p[n]) {
            return 0;
        }
        p += n + 1;
    }
}

static int check_range(const struct cli_option *o, const struct cli_value *v, struct hv_error *e)
{
    if (!o->max || (v->u >= o->min && v->u <= o->max)) {
        return 0;
    }
    char object[96], lo[32], hi[32];
    snprintf(object, sizeof(object), "--%s %s", o->name, v->text);
    if (o->type == CLI_SIZE || o->type == CLI_SIZE_REL) {
        if (v->sign) {
            return 0;
        }
        format_size_exact(o->min, lo, sizeof(lo));
        format_size_exact(o->max, hi, sizeof(hi));
    } else {
        snprintf(lo, sizeof(lo), "%llu", (unsigned long long)o->min);
        snprintf(hi, sizeof(hi), "%llu", (unsigned long long)o->max);
    }
    return hv_fail(e, HV_USAGE, object, "must be between %s and %s", lo, hi);
}

/* Sizes go to services as JSON's integers, and into files as off_t. */
static int fits_json(const char *option, const char *text, uint64_t v, struct hv_error *e)
{
    char object[120];
    snprintf(object, sizeof(object), "%s %s", option, text);
    return v > INT64_MAX ? hv_fail(e, HV_USAGE, object, "this size is too large") : 0;
}

int cli_value_parse(const struct cli_option *o, const char *text, struct cli_value *v, struct hv_error *e)
{
    char object[80];
    bool on;
    int r = 0;

    *v = (struct cli_value){.opt = o, .text = text};
    snprintf(object, sizeof(object), "--%s", o->name);
    if (o->flags & CLI_NONE_DEFAULT) {
        v->is_none = strcmp(text, "none") == 0;
        v->is_default = strcmp(text, "default") == 0;
        if (v->is_none || v->is_default) {
            return 0;
        }
    }
    if (o->flags & CLI_NONE_VALUE && strcmp(text, "default") == 0) {
        v->is_default = true;
        return 0;
    }
    switch (o->type) {
    case CLI_SIZE:
        r = parse_size(text, object, &v->u, e);
        r = r == 0 ? fits_json(object, text, v->u, e) : r;
        break;
    case CLI_SIZE_REL:
        r = parse_size_relative(text, object, &v->sign, &v->u, e);
        r = r == 0 ? fits_json(object, text, v->u, e) : r;
        break;
    case CLI_DURATION:
        r = parse_duration(text, object, &v->u, e);
        break;
    case CLI_PERCENT:
        r = parse_percent(text, object, &v->u, e);
        break;
    case CLI_UINT:
        r = parse_uint(text, object, o->min, o->max ? o->max : UINT64_MAX, &v->u, e);
        break;
    case CLI_SWITCH:
        r = parse_switch(text, object, &on, e);
        v->u = r == 0 && on;
        break;
    case CLI_ENUM:
        if (!cli_word_in(o->values, text, strlen(text)) || cli_word_in(o->later, text, strlen(text))) {
            r = bad_word(o, text, e);
        }
        break;
    case CLI_LIST:
        r = check_list(o, text, e);
        break;
    case CLI_CHAR:
        r = parse_char(o, text, v, e);
        break;
    case CLI_REGEX: {
        regex_t re;
        char why[160];
        int bad = regcomp(&re, text, REG_EXTENDED | REG_NOSUB);
        if (bad) {
            regerror(bad, &re, why, sizeof(why));
            char full[160];
            snprintf(full, sizeof(full), "--%s %s", o->name, text);
            return hv_fail(e, HV_USAGE, full, "not a regular expression: %s", why);
        }
        regfree(&re);
        break;
    }
    case CLI_FILE:
    case CLI_DIR:
        if (!text[0]) {
            r = hv_fail(e, HV_USAGE, object, "an empty path");
        }
        break;
    default:
        break;
    }
    return r < 0 ? r : check_range(o, v, e);
}

/* ---- values by name ---- */

static void must_exist(const struct cli_call *c, const char *name)
{
    hv_assert(cli_option_find(c->cmd, name, strlen(name)));
}

const struct cli_value *cli_opt(const struct cli_call *c, const char *name)
{
    must_exist(c, name);
    for (unsigned i = c->n_values; i-- > 0;) {
        if (strcmp(c->values[i].opt->name, name) == 0) {
            return &c->values[i];
        }
    }
    return NULL;
}

const struct cli_value *cli_opt_nth(const struct cli_call *c, const char *name, unsigned nth)
{
    must_exist(c, name);
    for (unsigned i = 0; i < c->n_values; i++) {
        if (strcmp(c->values[i].opt->name, name) == 0 && nth-- == 0) {
            return &c->values[i];
        }
    }
    return NULL;
}

bool cli_has(const struct cli_call *c, const char *name)
{
    return cli_opt(c, name) != NULL;
}

const char *cli_text(const struct cli_call *c, const char *name, const char *def)
{
    const struct cli_value *v = cli_opt(c, name);
    return v && v->text ? v->text : def;
}

uint64_t cli_number(const struct cli_call *c, const char *name, uint64_t def)
{
    const struct cli_value *v = cli_opt(c, name);
    return v ? v->u : def;
}

/* ---- settings ---- */

int cli_json_set_path(json_t *obj, const char *path, json_t *v)
{
    const char *dot;
    while ((dot = strchr(path, '.'))) {
        char part[64];
        snprintf(part, sizeof(part), "%.*s", (int)(dot - path), path);
        json_t *child = json_object_get(obj, part);
        if (!json_is_object(child)) {
            child = json_object();
            if (json_object_set_new(obj, part, child) < 0) {
                json_decref(v);
                return -ENOMEM;
            }
        }
        obj = child;
        path = dot + 1;
    }
    return json_object_set_new(obj, path, v) < 0 ? -ENOMEM : 0;
}

/* The service has another working folder: paths leave here absolute, whether they exist or not. */
static json_t *absolute_path(const char *text)
{
    if (text[0] == '/') {
        return json_string(text);
    }
    hv_autofree char *cwd = getcwd(NULL, 0);
    hv_autofree char *path = cwd ? hv_asprintf("%s/%s", cwd, strncmp(text, "./", 2) ? text : text + 2) : NULL;
    return path ? json_string(path) : NULL;
}

static json_t *value_json(const struct cli_value *v)
{
    if (v->is_none || v->is_default) {
        return json_null();
    }
    switch (v->opt->type) {
    case CLI_SIZE:
    case CLI_SIZE_REL:
    case CLI_PERCENT:
    case CLI_UINT:
        return v->u > INT64_MAX ? NULL : json_integer((json_int_t)v->u);
    case CLI_DURATION:
        return json_integer((json_int_t)(v->u / NS_PER_MS));
    case CLI_SWITCH:
        return json_boolean(v->u);
    case CLI_BOOL:
        return json_true();
    case CLI_FILE:
    case CLI_DIR:
        if (v->opt->flags & CLI_NONE_VALUE && strcmp(v->text, "none") == 0) {
            return json_string("none");
        }
        return absolute_path(v->text);
    default:
        return json_string(v->text);      /* NULL if it is not UTF-8 */
    }
}

json_t *cli_settings(const struct cli_call *c, struct hv_error *e)
{
    json_t *obj = json_object();
    for (unsigned i = 0; obj && i < c->n_values; i++) {
        const struct cli_value *v = &c->values[i];
        if (!v->opt->key || v->sign) {
            continue;
        }
        json_t *j = value_json(v);
        if (!j || cli_json_set_path(obj, v->opt->key, j) < 0) {
            char object[80];
            snprintf(object, sizeof(object), "--%s", v->opt->name);
            hv_fail(e, HV_USAGE, object, "the value is not UTF-8 text or out of range");
            json_decref(obj);
            return NULL;
        }
    }
    if (!obj) {
        hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    return obj;
}
