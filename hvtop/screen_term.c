/* ncurses behind a small interface. Signals are the loop's: they are blocked and read there. */
#include "hvtop/screen_term.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define NCURSES_WIDECHAR 1
#include <curses.h>
#include <term.h>
/* curses.h takes names that others need. */
#undef lines
#undef columns

#include "hvtop/keys.h"

#define ESC_DELAY_MS 50          /* how long an Esc may be the beginning of a key */

static struct {
    volatile sig_atomic_t on;
    SCREEN *screen;
    const struct theme *theme;
    bool colour, lost;
    struct canvas shown;         /* what the terminal shows */
    struct termios before;
    char undo[256];              /* what puts a terminal back, for the handler of fatal signals */
    size_t undo_len;
} term;

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

/* Only what POSIX allows in a handler: write() and tcsetattr(). */
static void on_fatal(int sig)
{
    if (term.on) {
        term.on = 0;
        ssize_t n = write(STDOUT_FILENO, term.undo, term.undo_len);
        (void)n;
        tcsetattr(STDIN_FILENO, TCSANOW, &term.before);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

static void add_undo(const char *cap)
{
    const char *s = tigetstr((NCURSES_CONST char *)(uintptr_t)cap);
    size_t n = s && s != (const char *)-1 ? strlen(s) : 0;
    if (term.undo_len + n < sizeof(term.undo)) {
        memcpy(term.undo + term.undo_len, s ? s : "", n);
        term.undo_len += n;
    }
}

static void start_colours(void)
{
    if (!term.colour || !has_colors() || start_color() == ERR) {
        term.colour = false;
        return;
    }
    use_default_colors();
    for (short i = 0; i < 8; i++) {
        init_pair((short)(i + 1), i, -1);
    }
}

bool term_usable(void)
{
    int err;
    const char *name = getenv("TERM");
    if (!name || !*name || strcmp(name, "dumb") == 0 || setupterm(NULL, STDOUT_FILENO, &err) != OK) {
        return false;
    }
    const char *cup = tigetstr((NCURSES_CONST char *)(uintptr_t)"cup");
    bool can_move = cup && cup != (const char *)-1 && !tigetflag((NCURSES_CONST char *)(uintptr_t)"hc");
    del_curterm(cur_term);
    return can_move;
}

int term_begin(const struct theme *theme, bool colour, bool mouse, struct hv_error *e)
{
    static bool hooked;
    const char *name = getenv("TERM");
    if (tcgetattr(STDIN_FILENO, &term.before) < 0) {
        return hv_fail_errno(e, errno, NULL, "standard input is no terminal");
    }
    term.screen = newterm(NULL, stdout, stdin);
    if (!term.screen) {
        int r = hv_fail(e, HV_UNSUPPORTED, name ? name : "TERM", "no such terminal type is known here");
        hv_hint(e, "TERM=xterm hvtop, or hvtop -b");
        return r;
    }
    term.on = 1;
    term.theme = theme;
    term.colour = colour;
    set_term(term.screen);
    set_escdelay(ESC_DELAY_MS);
    raw();                       /* Ctrl-C and Ctrl-Z are keys; see run.c */
    noecho();
    nonl();
    nodelay(stdscr, TRUE);
    keypad(stdscr, TRUE);
    meta(stdscr, TRUE);
    if (mouse) {
        mousemask(BUTTON1_PRESSED | BUTTON1_CLICKED | BUTTON4_PRESSED | BUTTON5_PRESSED, NULL);
        mouseinterval(0);
    }
    start_colours();
    term.undo_len = 0;
    static const char *const caps[] = {"sgr0", "rmkx", "cnorm", "rmcup"};
    static const char mouse_off[] = "\033[?1000l\033[?1006l";
    for (unsigned i = 0; i < ARRAY_SIZE(caps); i++) {
        add_undo(caps[i]);
    }
    if (mouse && term.undo_len + sizeof(mouse_off) < sizeof(term.undo)) {
        memcpy(term.undo + term.undo_len, mouse_off, sizeof(mouse_off) - 1);
        term.undo_len += sizeof(mouse_off) - 1;
    }
    if (!hooked) {
        struct sigaction sa = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND};
        for (unsigned i = 0; i < ARRAY_SIZE(fatal); i++) {
            sigaction(fatal[i], &sa, NULL);
        }
        atexit(term_end);
        hooked = true;
    }
    clear();
    refresh();
    return 0;
}

void term_end(void)
{
    if (term.on) {
        endwin();
        term.on = 0;
        delscreen(term.screen);
        term.screen = NULL;
        canvas_fini(&term.shown);
    }
}

void term_leave(void)
{
    if (term.on) {
        curs_set(1);
        endwin();
        term.on = 0;
    }
}

void term_return(void)
{
    if (!term.on && term.screen) {
        term.on = 1;
        canvas_fini(&term.shown);
        clearok(stdscr, TRUE);
        refresh();
    }
}

void term_stop(void)
{
    term_leave();
    raise(SIGSTOP);
    term_return();
}

void term_size(int *ret_w, int *ret_h)
{
    struct winsize ws;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col && ws.ws_row) {
        *ret_w = ws.ws_col;
        *ret_h = ws.ws_row;
    } else {
        *ret_w = COLS;
        *ret_h = LINES;
    }
    *ret_w = MIN(*ret_w, 1000);
    *ret_h = MIN(*ret_h, 500);
    if (term.on && (COLS != *ret_w || LINES != *ret_h)) {
        resizeterm(*ret_h, *ret_w);
        canvas_fini(&term.shown);
        clearok(stdscr, TRUE);
    }
}

static attr_t attr_of(const struct canvas_cell *cell, short *ret_pair)
{
    struct theme_look look = term.theme->look[cell->style];
    attr_t a = 0;
    a |= look.attr & THEME_BOLD || cell->on_row ? A_BOLD : 0;
    a |= look.attr & THEME_DIM && !cell->on_row ? A_DIM : 0;
    a |= look.attr & THEME_REVERSE ? A_REVERSE : 0;
    a |= look.attr & THEME_UNDERLINE ? A_UNDERLINE : 0;
    *ret_pair = term.colour && look.fg >= 0 ? (short)(look.fg + 1) : 0;
    return a;
}

static bool same(const struct canvas_cell *a, const struct canvas_cell *b)
{
    return a->ch == b->ch && a->style == b->style && a->on_row == b->on_row;
}

void term_show(const struct canvas *c)
{
    bool fresh = term.shown.w != c->w || term.shown.h != c->h || !term.shown.cell;
    if (!term.on || (fresh && canvas_resize(&term.shown, c->w, c->h) < 0)) {
        return;
    }
    if (fresh) {
        erase();
    }
    for (int y = 0; y < c->h; y++) {
        for (int x = 0; x < c->w; x++) {
            const struct canvas_cell *cell = &c->cell[y * c->w + x];
            struct canvas_cell *was = &term.shown.cell[y * c->w + x];
            if (!fresh && same(cell, was)) {
                continue;
            }
            *was = *cell;
            if (cell->ch == 0) {
                continue;                        /* drawn with its left half */
            }
            wchar_t text[2] = {(wchar_t)cell->ch, 0};
            cchar_t out;
            short pair;
            attr_t a = attr_of(cell, &pair);
            if (setcchar(&out, text, a, pair, NULL) == OK) {
                mvadd_wch(y, x, &out);
            }
        }
    }
    if (c->cursor_y >= 0) {
        curs_set(1);
        move(c->cursor_y, c->cursor_x);
    } else {
        curs_set(0);
        move(c->h - 1, c->w - 1);
    }
    refresh();
}

/* ---- keys ---- */

static const struct { int curses, key; } key_map[] = {
    {KEY_UP, TOP_KEY_UP}, {KEY_DOWN, TOP_KEY_DOWN}, {KEY_LEFT, TOP_KEY_LEFT}, {KEY_RIGHT, TOP_KEY_RIGHT},
    {KEY_PPAGE, TOP_KEY_PAGE_UP}, {KEY_NPAGE, TOP_KEY_PAGE_DOWN}, {KEY_HOME, TOP_KEY_HOME}, {KEY_END, TOP_KEY_END},
    {KEY_FIND, TOP_KEY_HOME}, {KEY_SELECT, TOP_KEY_END}, {KEY_BTAB, TOP_KEY_BACK_TAB}, {KEY_DC, TOP_KEY_DELETE},
    {KEY_BACKSPACE, TOP_KEY_BACKSPACE}, {KEY_ENTER, TOP_KEY_ENTER}, {KEY_F(1), TOP_KEY_F1},
};

static bool read_mouse(struct term_input *in)
{
    MEVENT ev;
    if (getmouse(&ev) != OK) {
        return false;
    }
    *in = (struct term_input){.mouse = true, .y = ev.y, .x = ev.x,
                              .wheel = ev.bstate & BUTTON4_PRESSED ? -1 : ev.bstate & BUTTON5_PRESSED ? 1 : 0};
    return true;
}

bool term_read(struct term_input *ret)
{
    for (;;) {
        wint_t ch;
        int r = term.on ? get_wch(&ch) : ERR;
        *ret = (struct term_input){0};
        if (r == ERR) {
            return false;
        }
        if (r == KEY_CODE_YES) {
            if (ch == KEY_MOUSE && read_mouse(ret)) {
                return true;
            }
            for (unsigned i = 0; i < ARRAY_SIZE(key_map); i++) {
                if (ch == (wint_t)key_map[i].curses) {
                    ret->key = key_map[i].key;
                    return true;
                }
            }
            continue;                            /* KEY_RESIZE and keys without a meaning */
        }
        ret->key = ch == '\n' || ch == '\r' ? TOP_KEY_ENTER : ch == 8 ? TOP_KEY_BACKSPACE : (int)ch;
        return true;
    }
}

bool term_lost(void)
{
    return term.lost;
}
