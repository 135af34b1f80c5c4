/* The grid of cells. */
#include "hvtop/canvas.h"

#include <errno.h>
#include <stdarg.h>
#include <wchar.h>

#include "hv/base/strbuf.h"

int canvas_resize(struct canvas *c, int w, int h)
{
    w = MAX(w, 1);
    h = MAX(h, 1);
    struct canvas_cell *cell = hv_alloc_array((size_t)w * (size_t)h, sizeof(*cell));
    if (!cell) {
        return -ENOMEM;
    }
    free(c->cell);
    c->cell = cell;
    c->w = w;
    c->h = h;
    canvas_clear(c);
    return 0;
}

void canvas_fini(struct canvas *c)
{
    free(c->cell);
    *c = (struct canvas){0};
}

void canvas_clear(struct canvas *c)
{
    for (int i = 0; i < c->w * c->h; i++) {
        c->cell[i] = (struct canvas_cell){' ', STYLE_NORMAL, false};
    }
    c->cursor_y = c->cursor_x = -1;
}

int canvas_char_width(uint32_t ch)
{
    if (ch < 0x7f) {
        return 1;
    }
    int w = wcwidth((wchar_t)ch);
    return w < 0 ? 1 : w;
}

void canvas_put(struct canvas *c, int y, int x, uint32_t ch, enum canvas_style style)
{
    if (y < 0 || y >= c->h || x < 0 || x >= c->w) {
        return;
    }
    struct canvas_cell *at = &c->cell[y * c->w + x];
    /* Half of a wide character must not stay behind. */
    if (at->ch == 0 && x > 0) {
        at[-1].ch = ' ';
    }
    if (x + 1 < c->w && at[1].ch == 0) {
        at[1].ch = ' ';
    }
    at->ch = ch;
    at->style = (uint8_t)style;
}

void canvas_fill(struct canvas *c, int y, int x, int n, uint32_t ch, enum canvas_style style)
{
    for (int i = 0; i < n; i++) {
        canvas_put(c, y, x + i, ch, style);
    }
}

uint32_t canvas_next_char(const char **p)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *s = (const unsigned char *)*p;
    unsigned n = s[0] < 0x80 ? 1 : (s[0] & 0xe0) == 0xc0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : (s[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (!s[0]) {
        return 0;
    }
    uint32_t ch = n == 1 ? s[0] : s[0] & (0x7fu >> n);
    for (unsigned i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            n = 0;
            break;
        }
        ch = ch << 6 | (s[i] & 0x3f);
    }
    if (!n || ch < least[n] || ch > 0x10ffff || (ch >= 0xd800 && ch < 0xe000)) {
        (*p)++;
        return '?';
    }
    *p += n;
    return ch;
}

unsigned canvas_utf8(uint32_t ch, char *buf)
{
    if (ch < 0x80) {
        buf[0] = (char)ch;
        return 1;
    }
    unsigned n = ch < 0x800 ? 2 : ch < 0x10000 ? 3 : 4;
    for (unsigned i = n - 1; i > 0; i--) {
        buf[i] = (char)(0x80 | (ch & 0x3f));
        ch >>= 6;
    }
    buf[0] = (char)((0xf00u >> n & 0xff) | ch);
    return n;
}

/* Controls steer the terminal, bidirectional marks reorder what stands beside them. */
static bool steers(uint32_t ch)
{
    return ch < 0x20 || (ch >= 0x7f && ch < 0xa0) || (ch >= 0x200b && ch <= 0x200f) || (ch >= 0x2028 && ch <= 0x202e) ||
           (ch >= 0x2066 && ch <= 0x2069) || ch == 0xfeff;
}

int canvas_text(struct canvas *c, int y, int x, int width, enum canvas_style style, const char *text)
{
    int used = 0;
    int room = c->w - x;
    width = width < 0 || width > room ? room : width;
    for (const char *p = text; *p;) {
        uint32_t ch = canvas_next_char(&p);
        ch = steers(ch) || (c->ascii && ch >= 0x80) ? '?' : ch;
        int w = canvas_char_width(ch);
        if (w == 0) {
            continue;              /* a combining mark: the letter stands without it */
        }
        if (used + w > width) {
            break;
        }
        canvas_put(c, y, x + used, ch, style);
        if (w == 2) {
            canvas_put(c, y, x + used + 1, ' ', style);
            if (y >= 0 && y < c->h && x + used >= 0) {
                c->cell[y * c->w + x + used + 1].ch = 0;
            }
        }
        used += w;
    }
    return used;
}

int canvas_printf(struct canvas *c, int y, int x, enum canvas_style style, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return canvas_text(c, y, x, -1, style, text);
}

static int text_width(const char *text)
{
    int w = 0;
    while (*text) {
        uint32_t ch = canvas_next_char(&text);
        w += canvas_char_width(steers(ch) ? '?' : ch);
    }
    return w;
}

int canvas_right(struct canvas *c, int y, int end, enum canvas_style style, const char *text)
{
    int x = MAX(end - text_width(text), 0);
    canvas_text(c, y, x, end - x, style, text);
    return x;
}

void canvas_mark_row(struct canvas *c, int y)
{
    for (int x = 0; y >= 0 && y < c->h && x < c->w; x++) {
        c->cell[y * c->w + x].on_row = true;
    }
}

char *canvas_row_text(const struct canvas *c, int y)
{
    strbuf_auto sb = {0};
    size_t end = 0;
    for (int x = 0; x < c->w; x++) {
        char buf[4];
        uint32_t ch = c->cell[y * c->w + x].ch;
        if (ch) {
            strbuf_add(&sb, buf, canvas_utf8(ch, buf));
        }
        if (ch && ch != ' ') {
            end = sb.len;
        }
    }
    if (sb.buf) {
        sb.buf[end] = '\0';
    }
    char *text = sb.err ? NULL : hv_strdup(sb.buf ? sb.buf : "");
    return text;
}
