/* What making the host match a document did, or would do, an object a line. */
#include "hvctl/document.h"

#include <errno.h>

#include "hv/base/strbuf.h"
#include "hv/base/units.h"
#include "hv/cli/term.h"
#include "hv/settings/settings.h"

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

const char *document_value(const char *key, const char *text, char buf[32])
{
    const struct setting_desc *d = setting_find(key);
    uint64_t v, again;
    if (!text || !text[0]) {
        return "-";
    }
    const bool size = d ? d->type == SETTING_SIZE : strncmp(key, "host.", 5) == 0;
    if (size && parse_size(text, "", &v, NULL) == 0 && v > 0 && parse_size(format_size(v, buf, 32), "", &again, NULL) == 0 &&
        again == v) {
        return buf;
    }
    return text;
}

static void error_of(const json_t *j, const char *path, struct hv_error *e)
{
    const char *object = text_of(j, "object");
    char where[160];
    snprintf(where, sizeof(where), "%.80s%s%.76s", path, path[0] && object[0] ? ": " : "", object);
    hv_fail(e, hv_code_from_word(text_of(j, "code")), where, "%s", text_of(j, "message"));
    if (text_of(j, "hint")[0]) {
        hv_hint(e, "%s", text_of(j, "hint"));
    }
}

static int refuse(struct cli_call *c, const char *path, const json_t *errors, struct hv_error *e)
{
    const size_t n = json_array_size(errors);
    enum hv_code code = HV_OK;
    for (size_t i = 0; i < n; i++) {
        error_of(json_array_get(errors, i), path, e);
        code = i == 0 || code == e->code ? e->code : HV_USAGE;
        if (i + 1 < n) {
            cli_print_error(c, e);
        }
    }
    e->code = code;
    return -EINVAL;
}

static void print_changes(struct strbuf *line, const json_t *changes)
{
    size_t i;
    json_t *ch;
    char a[32], b[32];
    json_array_foreach((json_t *)(uintptr_t)changes, i, ch) {
        const char *key = text_of(ch, "key");
        strbuf_addf(line, "%s%s %s -> %s (%s)", i ? ", " : "", key, document_value(key, text_of(ch, "old"), a),
                    document_value(key, text_of(ch, "new"), b),
                    strcmp(text_of(ch, "applied"), "next-start") == 0 ? "next start" : "now");
    }
}

static const char *result_word(const char *result, bool dry)
{
    return !dry ? result : strcmp(result, "created") == 0 ? "create" : strcmp(result, "changed") == 0 ? "change"
           : strcmp(result, "removed") == 0 ? "remove" : result;
}

/* "vm web1        changed    memory.max 4.0G -> 8.0G (now)" */
static void print_objects(struct cli_call *c, const json_t *objects, bool dry)
{
    size_t i, width = 0;
    json_t *o;
    json_array_foreach((json_t *)(uintptr_t)objects, i, o) {
        const char *kind = text_of(o, "kind");
        size_t n = (strcmp(kind, "host") ? strlen(kind) + 1 : 0) + cli_text_width(text_of(o, "name"));
        width = MAX(width, n);
    }
    json_array_foreach((json_t *)(uintptr_t)objects, i, o) {
        strbuf_auto line = {0}, name = {0}, changes = {0};
        const bool host = strcmp(text_of(o, "kind"), "host") == 0;
        if (dry && strcmp(text_of(o, "result"), "unchanged") == 0) {
            continue;
        }
        cli_clean(&name, text_of(o, "name"), cli_ascii(c));
        strbuf_addf(&line, "%s%s%s", host ? "" : text_of(o, "kind"), host ? "" : " ", name.buf ? name.buf : "");
        const size_t used = cli_text_width(line.buf);
        strbuf_addf(&line, "%*s   %s", (int)(width > used ? width - used : 0), "", result_word(text_of(o, "result"), dry));
        print_changes(&changes, json_object_get(o, "changes"));
        if (changes.len) {
            const size_t word = strlen(result_word(text_of(o, "result"), dry));
            strbuf_addf(&line, "%*s", (int)(word < 9 ? 11 - word : 2), "");
            cli_clean(&line, changes.buf, cli_ascii(c));
        }
        fprintf(c->out, "%s\n", line.buf ? line.buf : "");
    }
}

static void print_json(struct cli_call *c, const json_t *objects)
{
    size_t i;
    json_t *o;
    if (c->format == CLI_FMT_JSON) {
        json_dumpf(objects, c->out, JSON_INDENT(2));
        fputc('\n', c->out);
        return;
    }
    json_array_foreach((json_t *)(uintptr_t)objects, i, o) {
        json_dumpf(o, c->out, JSON_COMPACT);
        fputc('\n', c->out);
    }
}

int document_report(struct cli_call *c, const char *path, const json_t *reply, bool dry, struct hv_error *e)
{
    const json_t *objects = json_object_get(reply, "objects"), *errors = json_object_get(reply, "errors");
    size_t i, failed = 0, differ = 0;
    enum hv_code code = HV_OK;
    json_t *o;
    if (json_array_size(errors) > 0) {
        return refuse(c, path, errors, e);
    }
    if (c->format == CLI_FMT_JSON || c->format == CLI_FMT_JSONL) {
        print_json(c, objects);
    } else if (dry || !c->quiet) {
        print_objects(c, objects, dry);
    }
    fflush(c->out);
    json_array_foreach((json_t *)(uintptr_t)objects, i, o) {
        differ += strcmp(text_of(o, "result"), "unchanged") != 0;
        if (json_is_object(json_object_get(o, "error"))) {
            struct hv_error why = {0};
            error_of(json_object_get(o, "error"), "", &why);
            cli_print_error(c, &why);
            code = failed++ == 0 || code == why.code ? why.code : HV_FAILED;
        }
    }
    c->exit_code = failed ? failed == json_array_size(objects) ? (int)code : HV_PARTIAL : dry && differ ? HV_DIFFERS : HV_OK;
    return 0;
}
