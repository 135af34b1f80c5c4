/* --send and --until. */
#include "hvctl/script.h"

#include <errno.h>

#define LINE_MAX_LEN ((size_t)64 << 10)    /* a longer line is matched in pieces */

int script_add(struct script *s, bool until, const char *text)
{
    if (s->n == SCRIPT_MAX_STEPS) {
        return -ENOSPC;
    }
    s->step[s->n++] = (struct script_step){until, text};
    return 0;
}

void script_fini(struct script *s)
{
    if (s->has_re) {
        regfree(&s->re);
    }
    strbuf_fini(&s->line);
}

bool script_waiting(const struct script *s)
{
    return s->at < s->n && s->step[s->at].until;
}

const char *script_pattern(const struct script *s)
{
    return script_waiting(s) ? s->step[s->at].text : NULL;
}

bool script_done(const struct script *s, bool *ends)
{
    *ends = s->n && s->at == s->n && s->step[s->n - 1].until;
    return s->at == s->n;
}

void script_run(struct script *s, struct strbuf *typed)
{
    for (; s->at < s->n && !s->step[s->at].until; s->at++) {
        strbuf_adds(typed, s->step[s->at].text);
        strbuf_addc(typed, '\r');
    }
    if (script_waiting(s) && !s->has_re) {
        s->has_re = regcomp(&s->re, s->step[s->at].text, REG_EXTENDED | REG_NOSUB) == 0;
    }
}

/* Does the present line match? Then it is used up and the next steps run. */
static void try_line(struct script *s, struct strbuf *typed)
{
    if (!s->has_re || regexec(&s->re, s->line.buf ? s->line.buf : "", 0, NULL, 0) != 0) {
        return;
    }
    regfree(&s->re);
    s->has_re = false;
    strbuf_reset(&s->line);
    s->at++;
    script_run(s, typed);
}

enum { ESC_TEXT, ESC_START, ESC_CSI, ESC_STRING, ESC_STRING_END };

/* ECMA-48: CSI sequences, strings (OSC and friends) and two-byte escapes are not text. */
static bool is_text(struct script *s, unsigned char c)
{
    switch (s->esc) {
    case ESC_START:
        s->esc = c == '[' ? ESC_CSI : c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_' ? ESC_STRING : ESC_TEXT;
        return false;
    case ESC_CSI:
        s->esc = c >= 0x40 && c <= 0x7e ? ESC_TEXT : ESC_CSI;
        return false;
    case ESC_STRING:
        s->esc = c == 7 ? ESC_TEXT : c == 27 ? ESC_STRING_END : ESC_STRING;
        return false;
    case ESC_STRING_END:
        s->esc = ESC_TEXT;
        return false;
    default:
        if (c == 27) {
            s->esc = ESC_START;
            return false;
        }
        return c != '\r' && c != 0;
    }
}

void script_feed(struct script *s, const char *buf, size_t len, struct strbuf *typed)
{
    for (size_t i = 0; i < len && s->at < s->n; i++) {
        unsigned char c = (unsigned char)buf[i];
        if (!is_text(s, c)) {
            continue;
        }
        if (c != '\n') {
            strbuf_addc(&s->line, (char)c);
        }
        if (c == '\n' || s->line.len >= LINE_MAX_LEN) {
            try_line(s, typed);
            strbuf_reset(&s->line);
        }
    }
}

void script_quiet(struct script *s, struct strbuf *typed)
{
    if (s->line.len) {
        try_line(s, typed);
    }
}
