/*
 * The shell on a terminal: libedit's line with our prompt, history, completion and help.
 *
 *   hv> | hv:web1> (use web1) | hv@vmhost1> (another host) | hv:!> hv:web1!> (a VM is in Warning)
 *
 * While a line is edited the terminal sends no signals: Ctrl-C is a key that drops the line. While a
 * command runs they are the command's, and the shell ignores them.
 */
#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/paths.h"
#include "hv/base/strbuf.h"
#include "hv/cli/term.h"
#include "hv/client/hosts.h"
#include "hvctl/shell.h"

#define HISTORY_LINES 1000          /* kept; the file may have twice as many before it is cut */
#define HISTORY_FILE_MAX ((size_t)4 << 20)
#define DESCRIBED 60                /* more candidates than this are listed in columns, without descriptions */
#define LISTED 300                  /* and more than this not at all */
#define PROMPT_LIMIT_NS (200 * NS_PER_MS)

struct editor {
    struct shell *s;
    EditLine *el;
    History *history;
    char *path;                     /* of the history file; NULL: none is kept */
    char prompt[512];
    struct conn *k;                 /* to see how the VMs are; NULL: not connected */
    bool interrupted;
};

static struct editor *editor_of(EditLine *el)
{
    struct editor *ed = NULL;
    el_get(el, EL_CLIENTDATA, &ed);
    return ed;
}

/* ---- prompt ---- */

/* Is a VM in Warning? Asked over a connection that is kept; a service that is slow or away is not waited for. */
static bool any_warning(struct editor *ed)
{
    json_t *reply, *vm;
    size_t i;
    bool r = false;
    if (client_host_is_remote(ed->s->c->host)) {
        return false;                       /* it could ask for a password here */
    }
    if (!ed->k && conn_open_existing(ed->s->c, &ed->k) < 0) {
        ed->k = NULL;
        return false;
    }
    if (conn_call(ed->k, "List", NULL, PROMPT_LIMIT_NS, &reply, NULL) < 0) {
        conn_close(ed->k);
        ed->k = NULL;
        return false;
    }
    json_array_foreach(json_object_get(reply, "vms"), i, vm) {
        const char *status = json_string_value(cli_json_path(vm, "runtime.memory.status"));
        r = r || (status && strcmp(status, "warning") == 0);
    }
    json_decref(reply);
    return r;
}

static void make_prompt(struct editor *ed)
{
    const struct shell *s = ed->s;
    const char *host = client_host_is_remote(s->c->host) ? s->c->host : NULL;
    strbuf_auto sb = {0};
    bool warning = any_warning(ed);
    strbuf_adds(&sb, "hv");
    if (host) {
        const char *at = strrchr(host, '@'), *slash = strrchr(host, '/');
        strbuf_addc(&sb, '@');
        cli_clean(&sb, at ? at + 1 : slash ? slash + 1 : host, true);
    }
    if (s->target || warning) {
        strbuf_addc(&sb, ':');
        cli_clean(&sb, s->target ? s->target : "", cli_ascii(s->c));
        strbuf_adds(&sb, warning ? "!" : "");
    }
    strbuf_adds(&sb, "> ");
    hv_strlcpy(ed->prompt, sb.buf && !sb.err ? sb.buf : "hv> ", sizeof(ed->prompt));
}

static char *prompt(EditLine *el)
{
    return editor_of(el)->prompt;
}

/* ---- history: a line each, appended at once, so that two shells do not lose each other's ---- */

static void history_open(struct editor *ed)
{
    struct hv_paths p;
    HistEvent ev;
    hv_autofree char *text = NULL;
    size_t len = 0;
    unsigned lines = 0;

    if (hv_paths_init(HV_MODE_USER, &p, NULL) < 0 || hv_make_dir(p.state, 0700, NULL) < 0) {
        return;
    }
    ed->path = hv_asprintf("%s/history", p.state);
    if (!ed->path || hv_read_file(ed->path, HISTORY_FILE_MAX, &text, &len) < 0) {
        return;
    }
    for (char *line = text, *end; *line; line = end, lines++) {
        end = line + strcspn(line, "\n");
        if (*end) {
            *end++ = '\0';
        }
        history(ed->history, &ev, H_ENTER, line);
    }
    if (lines <= 2 * HISTORY_LINES) {
        return;
    }
    /* Newest first in libedit, oldest first in the file. */
    strbuf_auto kept = {0};
    for (int r = history(ed->history, &ev, H_LAST); r >= 0; r = history(ed->history, &ev, H_PREV)) {
        strbuf_adds(&kept, ev.str);
        strbuf_addc(&kept, '\n');
    }
    if (!kept.err && kept.len) {
        (void)hv_replace_file(ed->path, kept.buf, kept.len, 0600);   /* else it stays as long as it is */
    }
}

/* A line that begins with a blank is not kept: for what is nobody's business. */
static void remember(struct editor *ed, const char *line)
{
    HistEvent ev;
    if (!line[0] || line[0] == ' ' || line[0] == '\t') {
        return;
    }
    if (history(ed->history, &ev, H_FIRST) >= 0 && strcmp(ev.str, line) == 0) {
        return;
    }
    history(ed->history, &ev, H_ENTER, line);
    hv_autoclose int fd = ed->path ? open(ed->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    hv_autofree char *text = fd >= 0 ? hv_asprintf("%s\n", line) : NULL;
    if (text) {
        (void)hv_write_all(fd, text, strlen(text));      /* a full disk costs the history a line, not the command */
    }
}

/* ---- TAB and ? ---- */

static unsigned columns(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

/* The part of a candidate that differs: of a path what follows the folder, of --output=json the value. */
static const char *shown(const struct shell_candidate *k)
{
    size_t len = strlen(k->word);
    const char *slash = NULL;
    for (size_t i = 0; i + 1 < len && !k->what; i++) {
        slash = k->word[i] == '/' ? k->word + i + 1 : slash;
    }
    return slash ? slash : k->word;
}

static void list_candidates(struct editor *ed, const struct shell_candidates *k)
{
    FILE *f = stdout;
    unsigned width = 1, term = columns();
    bool ascii = cli_ascii(ed->s->c), described = false;
    if (k->n > LISTED) {
        fprintf(f, "%u possibilities\n", k->n);
        fflush(f);
        return;
    }
    for (unsigned i = 0; i < k->n; i++) {
        width = MAX(width, cli_text_width(shown(&k->c[i])));
        described = described || k->c[i].what;
    }
    described = described && k->n <= DESCRIBED;
    unsigned per_line = described ? 1 : MAX(term / (width + 2), 1u);
    unsigned rows = (k->n + per_line - 1) / per_line;
    for (unsigned row = 0; row < rows; row++) {
        strbuf_auto line = {0}, cut = {0};
        for (unsigned i = row; i < k->n; i += rows) {
            unsigned pad = width - cli_text_width(shown(&k->c[i])) + 2;
            cli_clean(&line, shown(&k->c[i]), ascii);
            if (i + rows < k->n || (described && k->c[i].what)) {
                strbuf_addf(&line, "%*s", (int)pad, "");
            }
            if (described && k->c[i].what) {
                cli_clean(&line, k->c[i].what, ascii);
            }
        }
        cli_cut(&cut, line.buf ? line.buf : "", term - 1, ascii);
        fprintf(f, "%s\n", cut.buf ? cut.buf : "");
    }
    fflush(f);
}

/* The line to the cursor, taken apart; its last word is words[n - 1]. */
struct typed { struct shell_line line; char *text, **word; unsigned n; size_t cursor; };

static bool typed_open(EditLine *el, struct typed *t)
{
    const LineInfo *li = el_line(el);
    *t = (struct typed){.cursor = (size_t)(li->cursor - li->buffer)};
    t->text = hv_asprintf("%.*s", (int)t->cursor, li->buffer);
    if (!t->text || shell_line_parse(t->text, true, &t->line, NULL) < 0 || t->line.comment) {
        return false;
    }
    t->word = t->line.partial ? hv_alloc_array(t->line.n + 2, sizeof(*t->word)) : NULL;
    for (unsigned i = 0; t->word && i < t->line.n; i++) {
        t->word[t->n++] = t->line.word[i];
    }
    if (t->word) {
        t->word[t->n++] = t->line.partial;
    }
    return t->word || t->line.place == SHELL_COMMAND;
}

static void typed_close(struct typed *t)
{
    shell_line_fini(&t->line);
    free(t->text);
    free(t->word);
}

/* What follows | and !: the last blank-separated word is taken for a file. */
static void sh_files(struct typed *t, struct shell_candidates *k)
{
    size_t at = t->cursor;
    while (at && !strchr(" \t|!><", t->text[at - 1])) {
        at--;
    }
    t->line.at = at;
    t->line.quote = 0;
    free(t->line.partial);
    t->line.partial = hv_strdup(t->text + at);
    if (t->line.partial) {
        shell_files(t->line.partial, NULL, k);
    }
}

/* Replace what was typed of the word by with, its first len bytes. */
static void replace_word(EditLine *el, const struct typed *t, const char *with, size_t len, bool whole)
{
    hv_autofree char *word = hv_asprintf("%.*s", (int)len, with);
    hv_autofree char *quoted = word ? shell_line_quote(word, t->line.quote) : NULL;
    char quote[2] = {t->line.quote, 0};
    hv_autofree char *text = quoted ? hv_asprintf("%s%s%s%s", quote, quoted, whole ? quote : "", whole ? " " : "") : NULL;
    if (text) {
        /* libedit counts characters, not bytes. */
        int chars = 0;
        for (const char *p = t->text + t->line.at; *p; p++) {
            chars += ((unsigned char)*p & 0xc0) != 0x80;
        }
        el_deletestr(el, chars);
        el_insertstr(el, text);
    }
}

static unsigned char on_tab(EditLine *el, int key)
{
    struct editor *ed = editor_of(el);
    struct shell_candidates k = {0};
    struct typed t;
    unsigned char result = CC_REFRESH;
    if (typed_open(el, &t)) {
        if (t.line.place == SHELL_COMMAND) {
            sh_files(&t, &k);
        } else if (t.line.place == SHELL_FILE) {
            shell_files(t.line.partial, NULL, &k);
        } else {
            shell_candidates(ed->s, t.word, t.n, &k);
        }
    }
    size_t common = shell_common(&k);
    if (!k.n) {
        result = CC_REFRESH_BEEP;
    } else if (k.n == 1) {
        replace_word(el, &t, k.c[0].word, strlen(k.c[0].word), !k.partial);
    } else if (common > strlen(t.line.partial)) {
        replace_word(el, &t, k.c[0].word, common, false);
    } else {
        fputc('\n', stdout);
        list_candidates(ed, &k);
        result = CC_REDISPLAY;
    }
    shell_candidates_fini(&k);
    typed_close(&t);
    return result;
}

/* Help of the command that stands before the cursor. */
static void command_help(struct editor *ed, struct typed *t)
{
    char help[] = "--help";
    int pid = shell_fork(NULL);
    if (pid == 0) {
        char **argv = hv_alloc_array(t->n + 2, sizeof(*argv));
        int argc = 0;
        if (!argv) {
            _exit(1);
        }
        argv[argc++] = (char *)(uintptr_t)ed->s->c->tool->name;
        for (unsigned i = 0; i + 1 < t->n; i++) {
            argv[argc++] = t->word[i];
        }
        argv[argc++] = help;
        exit(cli_run(ed->s->c->tool, argc, argv, NULL));
    }
    if (pid > 0) {
        shell_reap(pid);
    }
}

/* At the start of a word ? asks what can stand here; within one it is a character like any other. */
static unsigned char on_question(EditLine *el, int key)
{
    struct editor *ed = editor_of(el);
    struct shell_candidates k = {0};
    struct typed t;
    bool open = typed_open(el, &t);
    if (!open || t.line.place != SHELL_WORD || t.line.quote || t.line.at != t.cursor) {
        typed_close(&t);
        el_insertstr(el, "?");
        return CC_REFRESH;
    }
    struct cli_found f = {0};
    char **argv = hv_alloc_array(t.n + 1, sizeof(*argv));
    if (argv) {
        argv[0] = (char *)(uintptr_t)ed->s->c->tool->name;
        memcpy(argv + 1, t.word, t.n * sizeof(*argv));
        cli_find_command(ed->s->c->tool, (int)t.n, argv, &f);
    }
    free(argv);
    fputs("?\n", stdout);
    bool value = t.n > 1 && t.word[t.n - 2][0] == '-';
    if (f.cmd && !cli_is_later(f.cmd) && (f.verb_at >= 0 || !f.implied_verb) && !value) {
        command_help(ed, &t);
    } else {
        shell_candidates(ed->s, t.word, t.n, &k);
        list_candidates(ed, &k);
        shell_candidates_fini(&k);
    }
    typed_close(&t);
    return CC_REDISPLAY;
}

static unsigned char on_interrupt(EditLine *el, int key)
{
    editor_of(el)->interrupted = true;
    fputs("^C\n", stdout);
    fflush(stdout);
    return CC_EOF;
}

/* ---- the loop ---- */

static int editor_open(struct editor *ed, struct hv_error *e)
{
    HistEvent ev;
    ed->history = history_init();
    ed->el = ed->history ? el_init("hvctl", stdin, stdout, stderr) : NULL;
    if (!ed->el) {
        return hv_fail(e, HV_FAILED, NULL, "cannot edit lines on this terminal");
    }
    history(ed->history, &ev, H_SETSIZE, HISTORY_LINES);
    history_open(ed);
    el_set(ed->el, EL_CLIENTDATA, ed);
    el_set(ed->el, EL_PROMPT, prompt);
    el_set(ed->el, EL_EDITOR, "emacs");
    el_set(ed->el, EL_SIGNAL, 1);
    el_set(ed->el, EL_HIST, history, ed->history);
    el_set(ed->el, EL_ADDFN, "hv-complete", "complete the word", on_tab);
    el_set(ed->el, EL_ADDFN, "hv-help", "what can stand here", on_question);
    el_set(ed->el, EL_ADDFN, "hv-interrupt", "drop the line", on_interrupt);
    el_set(ed->el, EL_BIND, "^I", "hv-complete", NULL);
    el_set(ed->el, EL_BIND, "?", "hv-help", NULL);
    el_set(ed->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(ed->el, NULL);                /* ~/.editrc: "hvctl:bind ..." */
    el_set(ed->el, EL_SETTY, "-d", "-isig", NULL);
    el_set(ed->el, EL_BIND, "^C", "hv-interrupt", NULL);
    return 0;
}

static void editor_close(struct editor *ed)
{
    if (ed->el) {
        el_end(ed->el);
    }
    if (ed->history) {
        history_end(ed->history);
    }
    conn_close(ed->k);
    free(ed->path);
}

/* A command, with the lines it goes on in. 1, 0 at the end of input, -EINTR where Ctrl-C dropped it. */
static int read_command(struct editor *ed, struct strbuf *ret)
{
    strbuf_reset(ret);
    make_prompt(ed);
    for (;;) {
        int n = 0;
        ed->interrupted = false;
        const char *line = el_gets(ed->el, &n);
        if (ed->interrupted) {
            return -EINTR;
        }
        if (!line || n <= 0) {
            return 0;
        }
        strbuf_add(ret, line, strcspn(line, "\n"));
        if (!ret->len || !shell_line_continues(ret->buf)) {
            return 1;
        }
        ret->buf[--ret->len] = '\0';
        hv_strlcpy(ed->prompt, "> ", sizeof(ed->prompt));
    }
}

int shell_interactive(struct shell *s, struct hv_error *e)
{
    struct editor ed = {.s = s};
    struct strbuf text = {0};
    int r = editor_open(&ed, e);
    if (r == 0 && !s->c->quiet) {
        fputs("hv " HV_VERSION ": TAB completes, ? helps, exit leaves\n", stdout);
    }
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    while (r == 0 && !s->over) {
        int got = read_command(&ed, &text);
        if (got == 0) {
            fputc('\n', stdout);
            break;
        }
        if (got > 0 && text.len) {
            remember(&ed, text.buf);
            if (shell_run(s, text.buf) == 128 + SIGINT) {
                fputc('\n', stdout);            /* behind the terminal's ^C */
            }
        }
    }
    strbuf_fini(&text);
    editor_close(&ed);
    return r;
}
