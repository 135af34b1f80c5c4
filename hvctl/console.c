/*
 * A console session. One loop over: the guest's bytes, what is typed, signals, time.
 *
 *   guest ──fd──▶ stdout, log, script        stdin, script ──typed──▶ fd ──▶ guest
 *
 * On a terminal the escape key opens a line at the bottom; while it is open the guest's
 * output waits. Without a terminal everything is copied raw and no key is special.
 */
#include "hvctl/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "hvctl/escape.h"
#include "hvctl/tty.h"

#define TYPED_MAX ((size_t)64 << 10)    /* stdin is not read while more than this waits for the guest */

struct session {
    struct console *o;
    bool tty;                           /* raw terminal, with an escape line */
    bool in_open;
    struct escape escape;
    struct strbuf typed;                /* on its way to the guest */
    int log_fd;
    uint64_t quiet_at;                  /* when the script may look at an unfinished line */
    bool over;
    enum console_end end;
};

static void finish(struct session *s, enum console_end end)
{
    if (!s->over) {
        s->over = true;
        s->end = end;
    }
}

static void fail(struct session *s, int err)
{
    if (!s->over) {
        s->o->error = err;
    }
    finish(s, CONSOLE_FAILED);
}

/* ---- the escape line ---- */

static void put(const char *text)
{
    (void)hv_write_all(STDOUT_FILENO, text, strlen(text));
}

static bool dumb_terminal(void)
{
    const char *term = getenv("TERM");
    return !term || !*term || strcmp(term, "dumb") == 0;
}

/* On the bottom row, in reverse; the cursor comes back to where the guest left it. */
static void show_line(const char *text)
{
    strbuf_auto sb = {0};
    if (dumb_terminal()) {
        strbuf_addf(&sb, "\r\n[%s]\r\n", text);
    } else {
        strbuf_addf(&sb, "\0337\033[999;1H\033[0;7m\033[2K%s\033[0m\0338", text);
    }
    if (sb.buf) {
        put(sb.buf);
    }
}

static void hide_line(void)
{
    if (!dumb_terminal()) {
        put("\0337\033[999;1H\033[0m\033[2K\0338");
    }
}

static void show_keys(const struct session *s)
{
    char text[120];
    snprintf(text, sizeof(text), " %s: q detach  ] send the key  l log %s  r resize  ? help ", s->o->name,
             s->log_fd >= 0 ? "off" : "on");
    show_line(text);
}

static void toggle_log(struct session *s)
{
    char text[200], own[160];
    const char *path = s->o->log;
    if (s->log_fd >= 0) {
        close(s->log_fd);
        s->log_fd = -1;
        return;
    }
    if (!path) {
        snprintf(own, sizeof(own), "%s-console.log", s->o->name);
        path = own;
    }
    s->log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->log_fd < 0) {
        snprintf(text, sizeof(text), " %s: %s ", path, strerror(errno));
        show_line(text);
    }
}

/* What a serial line cannot tell the guest by itself, typed as a command. */
static void type_size(struct session *s)
{
    struct winsize ws;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_row && ws.ws_col) {
        strbuf_addf(&s->typed, "stty rows %u cols %u\r", ws.ws_row, ws.ws_col);
    }
}

static void type_byte(struct session *s, unsigned char byte)
{
    if (!s->o->read_only) {
        strbuf_addc(&s->typed, (char)byte);
    }
}

static void key(struct session *s, unsigned char byte)
{
    enum escape_act act = escape_feed(&s->escape, byte, hv_now_ns());
    if (act != ESCAPE_PASS && act != ESCAPE_OPEN && act != ESCAPE_KEEP && act != ESCAPE_HELP && act != ESCAPE_LATER) {
        hide_line();
    }
    switch (act) {
    case ESCAPE_PASS:
        type_byte(s, byte);
        break;
    case ESCAPE_OPEN:
        show_keys(s);
        break;
    case ESCAPE_SEND_KEY:
        type_byte(s, s->escape.key);
        break;
    case ESCAPE_DETACH:
        finish(s, CONSOLE_DETACHED);
        break;
    case ESCAPE_HELP:
        show_line(" q detach  ] send the key itself  l log  r type stty with this size  other: close ");
        break;
    case ESCAPE_LATER:
        show_line(" break and SysRq: not in this version; try echo KEY > /proc/sysrq-trigger ");
        break;
    case ESCAPE_LOG:
        toggle_log(s);
        break;
    case ESCAPE_RESIZE:
        if (!s->o->read_only) {
            type_size(s);
        }
        break;
    default:
        break;
    }
}

/* ---- the two directions ---- */

static void from_guest(struct session *s, const char *buf, size_t len)
{
    int r = hv_write_all(STDOUT_FILENO, buf, len);
    if (r == 0 && s->log_fd >= 0) {
        r = hv_write_all(s->log_fd, buf, len);
    }
    if (r < 0) {
        fail(s, -r);
        return;
    }
    script_feed(s->o->script, buf, len, &s->typed);
    s->quiet_at = script_waiting(s->o->script) ? hv_now_ns() + SCRIPT_QUIET_NS : 0;
}

static void read_guest(struct session *s)
{
    char buf[16384];
    ssize_t n = read(s->o->fd, buf, sizeof(buf));
    if (n > 0) {
        from_guest(s, buf, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        finish(s, CONSOLE_CLOSED);
    }
}

static void read_input(struct session *s)
{
    unsigned char buf[4096];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        s->in_open = false;             /* the end of stdin does not detach */
        if (s->tty) {
            finish(s, CONSOLE_DETACHED);    /* but a terminal that hung up does */
        }
        return;
    }
    for (ssize_t i = 0; i < n && !s->over; i++) {
        if (s->tty) {
            key(s, buf[i]);
        } else {
            type_byte(s, buf[i]);
        }
    }
}

static void write_guest(struct session *s)
{
    while (s->typed.len) {
        ssize_t n = write(s->o->fd, s->typed.buf, s->typed.len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            if (errno != EAGAIN) {
                finish(s, CONSOLE_CLOSED);
            }
            return;
        }
        strbuf_consume(&s->typed, (size_t)n);
    }
}

static void take_signal(struct session *s)
{
    int sig = tty_signal_read(s->o->signal_fd);
    if (sig == SIGTSTP) {
        tty_stop();
    } else if (sig) {
        s->o->signum = sig;
        finish(s, CONSOLE_SIGNAL);
    }
}

static int wait_ms(const struct session *s)
{
    uint64_t at = s->o->deadline_ns, now = hv_now_ns();
    if (s->quiet_at && (!at || s->quiet_at < at)) {
        at = s->quiet_at;
    }
    if (!at) {
        return -1;
    }
    return at <= now ? 0 : (int)MIN((at - now) / NS_PER_MS + 1, (uint64_t)60000);
}

static void look_at_time(struct session *s)
{
    uint64_t now = hv_now_ns();
    bool ends;
    if (s->quiet_at && now >= s->quiet_at) {
        s->quiet_at = 0;
        script_quiet(s->o->script, &s->typed);
    }
    if (script_done(s->o->script, &ends) && ends) {
        write_guest(s);
        finish(s, CONSOLE_MATCHED);
    }
    if (s->o->deadline_ns && now >= s->o->deadline_ns) {
        finish(s, CONSOLE_TIMEOUT);
    }
}

static void turn(struct session *s)
{
    enum { GUEST, INPUT, SIGNALS, COUNT };
    struct pollfd p[COUNT] = {
        [GUEST] = {.fd = s->o->fd, .events = 0},
        [INPUT] = {.fd = s->in_open && s->typed.len < TYPED_MAX ? STDIN_FILENO : -1, .events = POLLIN},
        [SIGNALS] = {.fd = s->o->signal_fd, .events = POLLIN},
    };
    if (!s->escape.open) {
        p[GUEST].events |= POLLIN;
    }
    if (s->typed.len) {
        p[GUEST].events |= POLLOUT;
    }
    int n = poll(p, COUNT, wait_ms(s));
    if (n < 0 && errno != EINTR) {
        fail(s, errno);
        return;
    }
    if (n > 0) {
        if (p[SIGNALS].revents) {
            take_signal(s);
        }
        if (p[INPUT].revents) {
            read_input(s);
        }
        if (p[GUEST].revents & POLLOUT) {
            write_guest(s);
        }
        if (p[GUEST].revents & (POLLIN | POLLHUP | POLLERR)) {
            if (s->escape.open && !(p[GUEST].revents & POLLIN)) {
                s->escape.open = false;     /* it ended while the line was open: read the rest */
                hide_line();
            }
            read_guest(s);
        }
    }
    look_at_time(s);
}

/* ---- public ---- */

int console_options(struct console *o, struct cli_call *c, struct script *s, struct hv_error *e)
{
    const struct cli_value *key_value = cli_opt(c, "escape");
    o->c = c;
    o->read_only = cli_has(c, "read-only");
    o->escape = key_value ? (unsigned char)key_value->u : 0x1d;
    o->log = cli_text(c, "log", NULL);
    o->script = s;
    if (c->timeout_ns) {
        o->deadline_ns = hv_now_ns() + c->timeout_ns;
    }
    for (unsigned i = 0; i < c->n_values; i++) {
        const struct cli_value *v = &c->values[i];
        bool until = strcmp(v->opt->name, "until") == 0;
        if (!until && strcmp(v->opt->name, "send") != 0) {
            continue;
        }
        if (!until && o->read_only) {
            return hv_fail(e, HV_USAGE, NULL, "--send and --read-only exclude each other");
        }
        if (script_add(s, until, v->text) < 0) {
            return hv_fail(e, HV_USAGE, NULL, "more than %d --send and --until", SCRIPT_MAX_STEPS);
        }
    }
    return 0;
}

enum console_end console_run(struct console *o)
{
    struct session s = {.o = o, .in_open = true, .log_fd = -1};
    void (*old_pipe)(int) = signal(SIGPIPE, SIG_IGN);

    s.tty = o->c->tty_in && o->c->tty_out;
    s.escape.key = s.tty ? o->escape : 0;
    if (o->log) {
        toggle_log(&s);
        if (s.log_fd < 0) {
            o->error = errno;
            return CONSOLE_FAILED;
        }
    }
    fcntl(o->fd, F_SETFL, fcntl(o->fd, F_GETFL) | O_NONBLOCK);
    if (s.tty && s.escape.key == 0x1d) {
        cli_note(o->c, "%s: console; ^] then q leaves, ^] then ? helps", o->name);
    }
    if (s.tty && tty_raw(STDIN_FILENO) < 0) {
        s.tty = false;
    }
    script_run(o->script, &s.typed);
    if (o->extra_len) {
        from_guest(&s, o->extra, o->extra_len);
        look_at_time(&s);
    }
    while (!s.over) {
        turn(&s);
    }
    tty_restore();
    if (s.log_fd >= 0) {
        close(s.log_fd);
    }
    strbuf_fini(&s.typed);
    signal(SIGPIPE, old_pipe);
    return s.end;
}
