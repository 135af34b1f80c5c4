/*
 * What the tools say to a person, all of it on stderr: errors in the contract's form, notes,
 * hints, questions. Each line is one write, so that parallel targets do not mix.
 */
#include "hv/cli/call.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "hv/cli/term.h"

static void put(const struct cli_call *c, const struct strbuf *sb)
{
    if (sb->buf && !sb->err) {
        fwrite(sb->buf, 1, sb->len, c->err);
        fflush(c->err);
    }
}

static bool json_wanted(const struct cli_call *c)
{
    return c->format == CLI_FMT_JSON || c->format == CLI_FMT_JSONL;
}

static void print_error_json(const struct cli_call *c, const struct hv_error *e)
{
    json_t *j = json_pack("{s:{s:s,s:s,s:s,s:s}}", "error", "code", hv_code_word(e->code), "object", e->object,
                          "message", e->message, "hint", e->hint);
    /* Names that are not UTF-8 cannot stand in JSON; the sentence without them still can. */
    if (!j) {
        j = json_pack("{s:{s:s,s:s,s:s,s:s}}", "error", "code", hv_code_word(e->code), "object", "", "message",
                      "the message is not UTF-8 text", "hint", "");
    }
    if (j && c->context && c->context->where) {
        json_object_set_new(json_object_get(j, "error"), "where", json_string(c->context->where));
    }
    hv_autofree char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (text) {
        fprintf(c->err, "%s\n", text);
        fflush(c->err);
    }
    json_decref(j);
}

void cli_print_error(const struct cli_call *c, const struct hv_error *e)
{
    strbuf_auto sb = {0};
    if (json_wanted(c)) {
        print_error_json(c, e);
        return;
    }
    bool ascii = cli_ascii(c);
    strbuf_addf(&sb, "%s: ", c->tool->name);
    if (c->context && c->context->where) {
        cli_clean(&sb, c->context->where, ascii);
        strbuf_adds(&sb, ": ");
    }
    if (e->object[0]) {
        cli_clean(&sb, e->object, ascii);
        strbuf_adds(&sb, ": ");
    }
    cli_clean(&sb, e->message[0] ? e->message : hv_code_word(e->code), ascii);
    strbuf_addc(&sb, '\n');
    if (e->hint[0]) {
        strbuf_adds(&sb, "  try: ");
        cli_clean(&sb, e->hint, ascii);
        strbuf_addc(&sb, '\n');
    }
    put(c, &sb);
}

static void say(const struct cli_call *c, const char *before, const char *object, const char *fmt, va_list ap)
{
    strbuf_auto text = {0}, sb = {0};
    strbuf_vaddf(&text, fmt, ap);
    strbuf_adds(&sb, before);
    if (object) {
        cli_clean(&sb, object, cli_ascii(c));
        strbuf_adds(&sb, ": ");
    }
    cli_clean(&sb, text.buf ? text.buf : "", cli_ascii(c));
    strbuf_addc(&sb, '\n');
    put(c, &sb);
}

void cli_warn(const struct cli_call *c, const char *object, const char *fmt, ...)
{
    va_list ap;
    char before[40];
    if (c->quiet) {
        return;
    }
    snprintf(before, sizeof(before), "%s: ", c->tool->name);
    va_start(ap, fmt);
    say(c, before, object, fmt, ap);
    va_end(ap);
}

void cli_try(const struct cli_call *c, const char *fmt, ...)
{
    va_list ap;
    if (c->quiet) {
        return;
    }
    va_start(ap, fmt);
    say(c, "  try: ", NULL, fmt, ap);
    va_end(ap);
}

void cli_note(const struct cli_call *c, const char *fmt, ...)
{
    va_list ap;
    if (c->quiet) {
        return;
    }
    va_start(ap, fmt);
    say(c, "", NULL, fmt, ap);
    va_end(ap);
}

void cli_debug(const struct cli_call *c, unsigned level, const char *fmt, ...)
{
    va_list ap;
    if (c->verbose < level) {
        return;
    }
    va_start(ap, fmt);
    say(c, "", NULL, fmt, ap);
    va_end(ap);
}

int cli_ask(const struct cli_call *c, const char *object, const char *doing, struct hv_error *e)
{
    if (c->yes || c->dry_run) {
        return 0;
    }
    if (c->batch || !c->tty_in || !c->tty_err) {
        return hv_fail(e, HV_USAGE, object, "%s needs --yes when nobody can be asked", doing);
    }
    strbuf_auto sb = {0};
    cli_clean(&sb, object, cli_ascii(c));
    strbuf_adds(&sb, ": ");
    cli_clean(&sb, doing, cli_ascii(c));
    strbuf_adds(&sb, ": go on? [y/N] ");
    put(c, &sb);

    char answer[16] = "";
    if (!fgets(answer, sizeof(answer), c->in)) {
        fputc('\n', c->err);
    }
    if (answer[0] == 'y' || answer[0] == 'Y') {
        return 0;
    }
    hv_fail(e, HV_FAILED, object, "not done");
    return -ECANCELED;
}
