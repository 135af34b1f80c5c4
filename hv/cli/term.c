/*
 * Terminal facts: colours by role, text widths, cleaning and cutting.
 */
#include "hv/cli/term.h"

#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

/* Eight colours suffice; the words carry the meaning (specs/operator-surface, "Meaning of colour"). */
static const char *const role_sgr[ROLE_COUNT] = {
    [ROLE_NONE] = "", [ROLE_HEADER] = "\033[1m", [ROLE_OK] = "", [ROLE_LOW] = "\033[33m",
    [ROLE_WARNING] = "\033[31m", [ROLE_ERROR] = "\033[31m", [ROLE_DIM] = "\033[2m",
    [ROLE_ASSIGNED] = "\033[34m",
};

bool cli_color_on(const struct cli_call *c)
{
    if (c->color != CLI_AUTO) {
        return c->color == CLI_ALWAYS;
    }
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return c->tty_out && !(no && *no) && term && *term && strcmp(term, "dumb") != 0;
}

const char *cli_role_start(const struct cli_call *c, enum cli_role role)
{
    return role_sgr[role][0] && cli_color_on(c) ? role_sgr[role] : "";
}

const char *cli_role_end(const struct cli_call *c, enum cli_role role)
{
    return role_sgr[role][0] && cli_color_on(c) ? "\033[0m" : "";
}

bool cli_ascii(const struct cli_call *c)
{
    const char *set = nl_langinfo(CODESET);
    return c->ascii_forced || !set || strcmp(set, "UTF-8") != 0;
}

unsigned cli_term_width(const struct cli_call *c)
{
    struct winsize ws;
    if (!c->tty_out) {
        return 0;
    }
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col) {
        return ws.ws_col;
    }
    return 80;
}

/*
 * One UTF-8 sequence at p: its length and code point; length 0 if it is broken, overlong, a
 * surrogate or past U+10FFFF. Our own, so that machine formats do not depend on the locale.
 */
static unsigned utf8_next(const unsigned char *p, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3
                 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (n <= 1) {
        *ret = p[0];
        return n;
    }
    uint32_t c = p[0] & (0x7fu >> n);
    for (unsigned i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[n] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff) {
        return 0;
    }
    *ret = c;
    return n;
}

static unsigned char_width(uint32_t c)
{
    int w = wcwidth((wchar_t)c);
    return w < 0 ? 1 : (unsigned)w;
}

unsigned cli_text_width(const char *text)
{
    unsigned width = 0;
    uint32_t c;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        unsigned n = utf8_next(p, &c);
        width += n ? char_width(c) : 1;
        p += n ? n : 1;
    }
    return width;
}

void cli_clean(struct strbuf *sb, const char *text, bool ascii)
{
    uint32_t c;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        unsigned n = utf8_next(p, &c);
        /* Bidirectional overrides reorder what stands beside them: as bad as controls. */
        bool bad = !n || c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
                   (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f || c == 0x2028 || c == 0x2029;
        if (n && (c == '\n' || c == '\t')) {
            strbuf_adds(sb, c == '\n' ? "\\n" : "\\t");
        } else if (bad || (ascii && c >= 0x80)) {
            strbuf_addc(sb, '?');
        } else {
            strbuf_add(sb, p, n);
        }
        p += n ? n : 1;
    }
}

void cli_cut(struct strbuf *sb, const char *text, unsigned width, bool ascii)
{
    unsigned total = cli_text_width(text);
    if (total <= width) {
        strbuf_adds(sb, text);
        return;
    }
    if (width == 0) {
        return;
    }
    unsigned head = width / 2, tail_from = total - (width - head - 1), at = 0;
    bool dots = false;
    uint32_t c;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        unsigned n = utf8_next(p, &c), w = n ? char_width(c) : 1;
        n = n ? n : 1;
        if (at + w <= head && !dots) {
            strbuf_add(sb, p, n);
        } else if (!dots) {
            strbuf_adds(sb, ascii ? "~" : "\xe2\x80\xa6");
            dots = true;
        }
        if (dots && at >= tail_from) {
            strbuf_add(sb, p, n);
        }
        at += w;
        p += n;
    }
}
