/* shell: its table, and commands from a file or a pipe. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/strbuf.h"
#include "hvctl/shell.h"

#define SCRIPT_LINE_MAX ((size_t)1 << 20)

/* ---- lines of a script, read as they come: a pipe may be somebody's conversation ---- */

struct reader { int fd; struct strbuf text; size_t at; bool end; };

/* Not stdio: a child that exits would move the shared place in the file. */
static int fill(struct reader *f, struct hv_error *e)
{
    char buf[4096];
    ssize_t n;
    strbuf_consume(&f->text, f->at);
    f->at = 0;
    do {
        n = read(f->fd, buf, sizeof(buf));
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return hv_fail_errno(e, errno, NULL, "cannot read the commands");
    }
    f->end = n == 0;
    strbuf_add(&f->text, buf, (size_t)n);
    return f->text.err ? hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory") : 0;
}

/* One line without its end into *ret (lives until the next call); 0: there is none, 1, or -errno. */
static int read_line(struct reader *f, struct strbuf *ret, struct hv_error *e)
{
    for (;;) {
        size_t left = f->text.len - f->at;
        char *begin = left ? f->text.buf + f->at : NULL, *nl = left ? memchr(begin, '\n', left) : NULL;
        if (!nl && !f->end) {
            if (left > SCRIPT_LINE_MAX) {
                return hv_fail(e, HV_USAGE, NULL, "a line is longer than 1M");
            }
            int r = fill(f, e);
            if (r < 0) {
                return r;
            }
            continue;
        }
        if (!left) {
            return 0;
        }
        size_t len = nl ? (size_t)(nl - begin) : left;
        f->at += len + (nl != NULL);
        len -= len && begin[len - 1] == '\r';
        if (memchr(begin, 0, len)) {
            return hv_fail(e, HV_USAGE, NULL, "not text: a NUL byte");
        }
        strbuf_add(ret, begin, len);
        return ret->err ? hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory") : 1;
    }
}

/* A command with its continuation lines: "a \" + "b" is "a b". As read_line(). */
static int read_command(struct reader *f, unsigned *line, struct strbuf *ret, struct hv_error *e)
{
    strbuf_reset(ret);
    for (;;) {
        int r = read_line(f, ret, e);
        *line += r > 0;
        if (r <= 0) {
            return r < 0 || !ret->len ? r : 1;
        }
        if (!ret->len || !shell_line_continues(ret->buf)) {
            return 1;
        }
        ret->buf[--ret->len] = '\0';
    }
}

/* Where a command went wrong stands in front of its error; here only what ends the script. */
static int run_script(struct shell *s, int fd, bool keep_going, struct hv_error *e)
{
    struct reader f = {.fd = fd};
    struct strbuf text = {0};
    unsigned line = 0, failed = 0;
    int r, code = 0;

    while (!s->over && (s->line = line + 1, r = read_command(&f, &line, &text, e)) > 0) {
        code = shell_run(s, text.buf ? text.buf : "");
        failed += code != 0;
        if (code && !keep_going) {
            break;
        }
        code = 0;
    }
    strbuf_fini(&text);
    strbuf_fini(&f.text);
    if (!s->over && !code && r < 0) {
        char where[200];
        snprintf(where, sizeof(where), "%s:%u", s->source, s->line);
        hv_strlcpy(e->object, where, sizeof(e->object));
        return r;
    }
    s->c->exit_code = code ? code : failed ? HV_PARTIAL : HV_OK;
    return 0;
}

/* Is there something to read from that somebody put there? /dev/null and a closed stdin are not. */
static bool stdin_is_script(void)
{
    struct stat st;
    return fstat(STDIN_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode));
}

static int shell(struct cli_call *c, struct hv_error *e)
{
    struct shell s = {.c = c};
    const char *file = cli_text(c, "file", NULL);
    int r;

    if (c->context) {
        r = hv_fail(e, HV_USAGE, NULL, c->bare ? "a command is missing" : "this is the shell already");
    } else if (file && strcmp(file, "-") != 0) {
        hv_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            return hv_fail_errno(e, errno, file, "cannot read");
        }
        s.source = file;
        r = run_script(&s, fd, cli_has(c, "keep-going"), e);
    } else if (!file && c->tty_in && c->tty_out && !c->batch) {
        r = shell_interactive(&s, e);
    } else if (file || !c->bare || stdin_is_script()) {
        s.source = "stdin";
        s.null_stdin = true;
        r = run_script(&s, STDIN_FILENO, cli_has(c, "keep-going"), e);
    } else {
        struct cli_call help = *c;
        help.out = c->err;
        help.want_help = CLI_HELP_TOOL;
        cli_print_help(&help);
        c->exit_code = HV_USAGE;
        r = 0;
    }
    free(s.target);
    return r;
}

static const struct cli_option options[] = {
    {.name = "keep-going", .type = CLI_BOOL, .help = "with a script: after an error run on, and exit 10 in the end"},
    {0},
};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command shell_commands[] = {
    {.noun = "shell", .help = "the interactive shell, or commands from a file or a pipe, one a line",
     .options = options, .use = CLI_USE_FILE, .codes = CODE(NOT_FOUND) | CODE(PARTIAL), .run = shell,
     .examples = EXAMPLES({"hvctl", "the shell, on a terminal"}, {"hvctl -f lab.hv", "the commands of a file"},
                          {"hvctl list -o name | sed 's/^/start /' | hvctl --keep-going", "commands from a pipe"})},
    {0},
};
