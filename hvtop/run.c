/* The screen's loop: terminal, feed or replay, children, signals. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "hv/cli/term.h"
#include "hv/client/client.h"
#include "hvtop/feed.h"
#include "hvtop/hvtop.h"
#include "hvtop/record.h"
#include "hvtop/screen_term.h"

#define PREVIEW_NS (500 * NS_PER_MS)
#define CHILDREN_MAX 8
#define REPLAY_TICK_NS (50 * NS_PER_MS)

struct loop {
    struct cli_call *c;
    struct top_source *s;
    struct ui *ui;
    struct canvas canvas;
    struct child *child[CHILDREN_MAX];
    unsigned n_children;
    int signals;
    bool dirty, quit, reached, one_more;         /* one_more: paused, and a sample is wanted all the same */
    int end_signal;
    uint64_t replay_at_ms, replay_since_ns;      /* moment of the recording at a moment of ours */
    struct hv_client *preview;                   /* while the form is open: a connection takes time, over ssh most */
};

/* ---- signals ---- */

static int signals_begin(sigset_t *old)
{
    static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
        sigaddset(&set, wanted[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, old) < 0) {
        return -errno;
    }
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static void on_signals(struct loop *l)
{
    struct signalfd_siginfo si;
    while (read(l->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        switch ((int)si.ssi_signo) {
        case SIGTSTP:
            term_stop();
            break;
        case SIGCONT:                            /* stopped without being asked: the shell had the terminal */
            term_leave();
            term_return();
            break;
        case SIGWINCH: case SIGCHLD:
            break;
        default:
            l->end_signal = (int)si.ssi_signo;
            l->quit = true;
            break;
        }
        l->dirty = true;
    }
}

/* ---- commands ---- */

static void host_of(struct loop *l, unsigned host, char *buf, size_t size)
{
    buf[0] = '\0';
    if (l->s->feed) {
        feed_host_path(l->s->feed, host, buf, size);
    }
}

static void run_commands(struct loop *l)
{
    struct ui *ui = l->ui;
    char host[256];
    for (unsigned i = 0; i < ui->m->n_hosts; i++) {
        struct hv_error e = {0};
        if (!ui->command[i]) {
            continue;
        }
        if (l->n_children == CHILDREN_MAX) {
            ui_say(ui, true, "%d commands are running; wait for one to end", CHILDREN_MAX);
            return;
        }
        host_of(l, i, host, sizeof(host));
        free(ui->pane);
        ui->pane = NULL;
        snprintf(ui->pane_title, sizeof(ui->pane_title), "hvctl %s", ui->command[i]);
        if (child_start(host, ui->command[i], &l->child[l->n_children], &e) < 0) {
            ui_say(ui, true, "%s", e.message);
            continue;
        }
        l->n_children++;
        ui->pane_running = true;
        ui->pane_hidden = false;
        ui->pane_top = 0;
        ui_say(ui, false, "%s ...", ui->pane_title);
    }
}

static void hand_over(struct loop *l)
{
    struct ui *ui = l->ui;
    char host[256];
    for (unsigned i = 0; i < ui->m->n_hosts; i++) {
        struct hv_error e = {0};
        if (!ui->command[i]) {
            continue;
        }
        host_of(l, i, host, sizeof(host));
        term_leave();
        int code = child_run(host, ui->command[i], l->signals, &l->end_signal, &e);
        l->quit = l->quit || l->end_signal;
        bool console = strncmp(ui->command[i], "console", 7) == 0;
        if (!l->quit && (code != 0 || !console)) {
            if (code < 0) {
                fprintf(stderr, "hvtop: %s\n", e.message);
            }
            printf("\n[Return goes back to hvtop]");
            fflush(stdout);
            for (char ch = 0; read(STDIN_FILENO, &ch, 1) == 1 && ch != '\n' && ch != '\r';) {}
        }
        if (l->quit) {
            return;                              /* the terminal is as it was */
        }
        term_return();
        if (code > 0) {
            ui_say(ui, true, "hvctl %s: exit code %d", ui->command[i], code);
        }
        l->dirty = true;
    }
}

static void on_child(struct loop *l, unsigned i)
{
    char buf[8192];
    int n;
    while ((n = child_read(l->child[i], buf, sizeof(buf))) > 0) {
        ui_output(l->ui, buf, false, 0);
    }
    if (n == 0) {
        int code = child_end(l->child[i], false);
        l->child[i] = l->child[--l->n_children];
        ui_output(l->ui, "", true, code);
        if (l->s->feed) {
            feed_poke(l->s->feed);                   /* show what it changed */
        }
    }
    l->dirty = true;
}

static void complete(struct loop *l)
{
    struct ui *ui = l->ui;
    char host[256], line[512], list[sizeof(ui->message)];
    struct model_vm *vm = ui_current(ui);
    host_of(l, vm ? vm->host : 0, host, sizeof(host));
    child_complete(host, ui->line, line, sizeof(line), list, sizeof(list));
    ui_completion(ui, line);
    if (list[0]) {
        ui_say(ui, false, "%s", list);
    }
}

/* ---- what the balancer would do ---- */

static json_t *form_settings(const struct ui_form *f)
{
    static const struct { const char *key; bool size; } keys[UI_FORM_FIELDS] = {
        {"min", true}, {"startup", true}, {"max", true}, {"buffer_pct", false}, {"priority", false},
    };
    json_t *memory = json_object();
    for (unsigned i = 0; i < UI_FORM_FIELDS; i++) {
        uint64_t n;
        if (strcmp(f->text[i], f->was[i]) == 0) {
            continue;
        }
        if (!keys[i].size && parse_uint(f->text[i], NULL, 0, UINT32_MAX, &n, NULL) == 0) {
            json_object_set_new(memory, keys[i].key, json_integer((json_int_t)n));
        } else {
            json_object_set_new(memory, keys[i].key, json_string(f->text[i]));    /* the service says what is wrong */
        }
    }
    return json_pack("{s:o}", "memory", memory);
}

static void preview_error(struct ui *ui, const struct hv_error *e)
{
    hv_autofree char *line = hv_asprintf("%s%s%s", e->object, e->object[0] ? ": " : "", e->message);
    const char *const lines[] = {line ? line : "", e->hint[0] ? e->hint : ""};
    ui_preview(ui, true, lines, e->hint[0] ? 2 : 1);
}

static void preview(struct loop *l)
{
    struct ui *ui = l->ui;
    struct hv_error e = {0};
    json_t *reply = NULL;
    char host[256];
    host_of(l, ui->form.host, host, sizeof(host));
    int r = l->preview ? 0 : client_connect(host, CLIENT_NO_START | CLIENT_NO_ASK, &l->preview, &e);
    if (r == 0) {
        r = client_call(l->preview, "PreviewMemory", json_pack("{s:s s:o}", "name", ui->form.vm, "settings", form_settings(&ui->form)),
                        PREVIEW_NS, &reply, &e);
    }
    if (r < 0) {
        if (e.code == HV_UNREACHABLE || e.code == HV_TIMEOUT) {
            client_free(l->preview);
            l->preview = NULL;
        }
        preview_error(ui, &e);
        return;
    }
    strbuf_auto gets = {0}, others = {0};
    json_t *v;
    size_t i;
    unsigned n = 0;
    json_array_foreach(json_object_get(reply, "vms"), i, v) {
        char a[SIZE_TEXT], b[SIZE_TEXT];
        const char *name = json_string_value(json_object_get(v, "name"));
        uint64_t has = (uint64_t)json_integer_value(json_object_get(v, "assigned"));
        uint64_t target = (uint64_t)json_integer_value(json_object_get(v, "target"));
        format_size(has, a, sizeof(a));
        format_size(target, b, sizeof(b));
        if (name && strcmp(name, ui->form.vm) == 0) {
            format_sizes(has, a, target, b);
            strbuf_addf(&gets, "it has %s and would get %s", a, b);
        } else if (name && strcmp(a, b) != 0 && n++ < 3) {
            strbuf_addf(&others, "%s%s %s -> %s", others.len ? ", " : "others: ", name, a, b);
        }
    }
    strbuf_auto later = {0};
    json_array_foreach(json_object_get(reply, "changes"), i, v) {
        const char *key = json_string_value(json_object_get(v, "key")), *applied = json_string_value(json_object_get(v, "applied"));
        if (key && applied && strcmp(applied, "now") != 0) {
            strbuf_addf(&later, "%s%s", later.len ? ", " : "at the next start only: ", key);
        }
    }
    json_decref(reply);
    const char *lines[3];
    unsigned n_lines = 0;
    lines[n_lines++] = gets.buf ? gets.buf : "it is not balanced now: nothing moves";
    if (others.buf) {
        lines[n_lines++] = others.buf;
    }
    if (later.buf) {
        lines[n_lines++] = later.buf;
    }
    ui_preview(ui, false, lines, n_lines);
}

/* ---- replay ---- */

static uint64_t replay_now_ms(struct loop *l)
{
    double passed = (double)(hv_now_ns() - l->replay_since_ns) / (double)NS_PER_MS;
    return l->replay_at_ms + (uint64_t)(passed * l->ui->speed);
}

/* From now on the recording stands where the model is. */
static void replay_anchor(struct loop *l)
{
    l->replay_at_ms = l->ui->m->now_ms;
    l->replay_since_ns = hv_now_ns();
}

static json_t *next_message(struct loop *l)
{
    json_t *msg = hv_steal(l->s->pending);
    return msg ? msg : replay_next(l->s->replay);
}

/* Everything up to a moment. False: the end was reached. */
static bool replay_until(struct loop *l, uint64_t time_ms)
{
    for (json_t *msg; (msg = next_message(l));) {
        json_int_t t = json_integer_value(json_object_get(msg, "time_ms"));
        if (t > 0 && (uint64_t)t > time_ms) {
            l->s->pending = msg;
            return true;
        }
        l->dirty = true;
        top_take(l->s, msg, NULL);
    }
    return false;
}

/* One step of time forward, to the next sample; or to the next event. */
static void replay_step(struct loop *l, const char *what)
{
    for (json_t *msg; (msg = next_message(l));) {
        bool found = json_object_get(msg, what) != NULL;
        uint64_t t = (uint64_t)json_integer_value(json_object_get(msg, "time_ms"));
        top_take(l->s, msg, NULL);
        if (found) {
            replay_until(l, t);
            break;
        }
    }
    l->ui->at_end = false;
}

static void replay_jump(struct loop *l, uint64_t time_ms)
{
    uint64_t first = replay_first_ms(l->s->replay), last = replay_last_ms(l->s->replay);
    json_decref(l->s->pending);
    l->s->pending = NULL;
    top_go_to(l->s, MIN(MAX(time_ms, first), last));
    l->ui->at_end = false;
    replay_anchor(l);
}

static void replay_tick(struct loop *l)
{
    if (l->ui->speed > 0 && !l->ui->paused && !l->ui->at_end && !replay_until(l, replay_now_ms(l))) {
        l->ui->at_end = true;
        l->dirty = true;
    }
}

static void replay_effect(struct loop *l, enum ui_effect effect)
{
    struct ui *ui = l->ui;
    static const double speeds[] = {1, 2, 5, 10, 30, 60, 120, 300, 600};
    unsigned at = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(speeds); i++) {
        at = speeds[i] <= ui->speed ? i : at;
    }
    switch (effect) {
    case UI_PLAY_PAUSE: ui->speed = ui->speed > 0 ? 0 : 1; break;
    case UI_SLOWER: ui->speed = speeds[at ? at - 1 : 0]; break;
    case UI_FASTER: ui->speed = speeds[ui->speed > 0 ? MIN(at + 1, ARRAY_SIZE(speeds) - 1) : 0]; break;
    case UI_STEP: replay_step(l, "rows"); break;
    case UI_NEXT_EVENT: replay_step(l, "event"); break;
    case UI_STEP_BACK: {
        uint64_t t = replay_before(l->s->replay, ui->m->now_ms);
        if (t) {
            replay_jump(l, t);
        }
        break;
    }
    case UI_GO_TO: replay_jump(l, ui->number); break;
    default: break;
    }
    replay_anchor(l);
}

static int on_feed(struct loop *l, struct hv_error *e);

/* ---- effects of keys ---- */

static void save_layout(struct loop *l)
{
    struct hv_error e = {0};
    hv_autofree char *path = NULL;
    if (conf_save(l->ui, l->s->theme, &path, &e) < 0) {
        ui_say(l->ui, true, "%s: %s", e.object, e.message);
    } else {
        ui_say(l->ui, false, "written to %s", path);
    }
}

static void do_effect(struct loop *l)
{
    enum ui_effect effect = l->ui->effect;
    l->ui->effect = UI_NOTHING;
    switch (effect) {
    case UI_NOTHING: break;
    case UI_QUIT: l->quit = true; break;
    case UI_SAMPLE_NOW:
        /* What waited meanwhile, and then the one that is asked for. */
        if (l->ui->paused && on_feed(l, NULL) == 0) {
            l->one_more = true;
        }
        feed_poke(l->s->feed);
        break;
    case UI_SET_DELAY: feed_set_delay(l->s->feed, l->ui->number); break;
    case UI_SAVE_LAYOUT: save_layout(l); break;
    case UI_RUN: run_commands(l); break;
    case UI_HAND_OVER: hand_over(l); break;
    case UI_COMPLETE: complete(l); break;
    case UI_PREVIEW: preview(l); break;
    default:
        if (l->s->replay) {
            replay_effect(l, effect);
        }
        break;
    }
}

static void on_input(struct loop *l)
{
    struct term_input in;
    while (!l->quit && term_read(&in)) {
        l->dirty = true;
        if (in.mouse) {
            ui_mouse(l->ui, in.y, in.x, in.wheel);
        } else if (in.key == 'C' - '@') {
            l->end_signal = SIGINT;
            l->quit = true;
        } else if (in.key == 'Z' - '@') {
            term_stop();
        } else if (in.key == 'L' - '@') {
            term_leave();
            term_return();
        } else {
            ui_key(l->ui, in.key);
        }
        do_effect(l);
        if (l->preview && l->ui->mode != UI_FORM) {
            client_free(l->preview);
            l->preview = NULL;
        }
    }
}

/* ---- the loop ---- */

static int on_feed(struct loop *l, struct hv_error *e)
{
    for (json_t *msg; (msg = feed_next(l->s->feed));) {
        json_int_t host = json_object_get(msg, "rows") ? json_integer_value(json_object_get(msg, "host")) : -1;
        int r = top_take(l->s, msg, e);
        if (r < 0) {
            return r;
        }
        if (host >= 0 && host < MODEL_HOSTS_MAX) {
            l->ui->heard_ns[host] = hv_now_ns();
            l->one_more = false;
        }
        l->dirty = true;
    }
    for (unsigned i = 0; i < l->ui->m->n_hosts; i++) {
        l->reached = l->reached || l->ui->m->host[i].samples > 0;
    }
    if (!l->reached && feed_none_reached(l->s->feed, e)) {
        return -ECONNREFUSED;
    }
    return 0;
}

/* A host that is silent is shown with the seconds since: they go on without a sample. */
static bool someone_silent(const struct ui *ui)
{
    bool any = false;
    for (unsigned i = 0; i < ui->m->n_hosts; i++) {
        any = any || ui_stale(ui, i);
    }
    return any;
}

static void show(struct loop *l)
{
    int w, h;
    term_size(&w, &h);
    if ((l->canvas.w != w || l->canvas.h != h || !l->canvas.cell) && canvas_resize(&l->canvas, w, h) < 0) {
        return;
    }
    l->ui->recorded = l->s->recorder ? recorder_bytes(l->s->recorder) : 0;
    ui_draw(l->ui, &l->canvas);
    term_show(&l->canvas);
    l->dirty = false;
}

static int loop(struct loop *l, struct hv_error *e)
{
    struct top_source *s = l->s;
    while (!l->quit) {
        int r = 0;
        if (s->replay) {
            replay_tick(l);
        } else if (!l->ui->paused || l->one_more) {
            r = on_feed(l, e);
        }
        if (r < 0) {
            return r;
        }
        bool was_silent = someone_silent(l->ui);
        l->ui->now_ns = s->feed ? hv_now_ns() : 0;
        bool silent = s->feed && someone_silent(l->ui);
        if (l->dirty || silent || was_silent) {
            show(l);
        }
        if (s->stop_at_ns && hv_now_ns() >= s->stop_at_ns) {
            break;
        }
        struct pollfd p[3 + CHILDREN_MAX] = {
            {.fd = STDIN_FILENO, .events = POLLIN},
            {.fd = l->signals, .events = POLLIN},
            {.fd = s->feed && (!l->ui->paused || l->one_more) ? feed_fd(s->feed) : -1, .events = POLLIN},
        };
        for (unsigned i = 0; i < l->n_children; i++) {
            p[3 + i] = (struct pollfd){.fd = child_fd(l->child[i]), .events = POLLIN};
        }
        uint64_t wait = s->replay && l->ui->speed > 0 && !l->ui->at_end ? REPLAY_TICK_NS : 60 * NS_PER_SEC;
        if (s->feed && !l->ui->paused) {
            wait = MIN(wait, silent ? NS_PER_SEC : MAX(3 * l->ui->delay_ns, NS_PER_SEC) + 10 * NS_PER_MS);
        }
        if (s->stop_at_ns) {
            uint64_t now = hv_now_ns();
            wait = MIN(wait, s->stop_at_ns > now ? s->stop_at_ns - now : 0);
        }
        struct timespec ts = {(time_t)(wait / NS_PER_SEC), (long)(wait % NS_PER_SEC)};
        unsigned children = l->n_children;
        if (ppoll(p, 3 + children, &ts, NULL) < 0 && errno != EINTR) {
            return hv_fail_errno(e, errno, NULL, "cannot wait");
        }
        if (p[1].revents) {
            on_signals(l);
        }
        if (p[0].revents & POLLIN) {
            on_input(l);
        } else if (p[0].revents) {
            l->end_signal = SIGHUP;              /* the terminal is gone */
            l->quit = true;
        }
        for (unsigned i = children; i-- > 0;) {
            if (p[3 + i].revents) {
                on_child(l, i);
            }
        }
    }
    return 0;
}

int top_run(struct cli_call *c, struct top_source *s, struct hv_error *e)
{
    struct loop l = {.c = c, .s = s, .ui = s->ui, .dirty = true};
    sigset_t old;
    l.signals = signals_begin(&old);
    if (l.signals < 0) {
        return hv_fail_errno(e, -l.signals, NULL, "cannot read signals");
    }
    const char *term = getenv("TERM");
    l.canvas.ascii = cli_ascii(c) || (term && strcmp(term, "linux") == 0);
    int r = 0;
    if (!s->replay) {
        struct feed_options o = {s->host, s->n_hosts, s->ui->delay_ns, true};
        r = feed_start(&o, &s->feed, e);
    } else {
        replay_jump(&l, s->from_ms ? (uint64_t)s->from_ms : replay_first_ms(s->replay));
    }
    if (r == 0) {
        r = term_begin(s->theme, cli_color_on(c), !cli_has(c, "no-mouse"), e);
    }
    if (r == 0) {
        r = loop(&l, e);
    }
    term_end();
    client_free(l.preview);
    for (unsigned i = 0; i < l.n_children; i++) {
        child_leave(l.child[i]);
    }
    canvas_fini(&l.canvas);
    close(l.signals);
    feed_stop(s->feed);
    s->feed = NULL;
    json_decref(s->pending);
    s->pending = NULL;
    if (r == 0 && l.end_signal) {
        c->exit_code = 128 + l.end_signal;
    }
    return r;
}
