/* Carrying out a line: the shell's own words, a command in a child, what stands behind | and >. */
#include "hvctl/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const shell_words[][2] = {
    {"use", "the VM that commands mean where none is named"},
    {"exit", "leave the shell"},
    {"quit", "leave the shell"},
    {NULL, NULL},
};

/* Errors of the shell itself, in the form of its commands'. */
static int complain(struct shell *s, const struct hv_error *e)
{
    char where[320];
    struct cli_context context = {.where = where};
    struct cli_call c = *s->c;
    snprintf(where, sizeof(where), "%s:%u", s->source ? s->source : "", s->line);
    c.context = s->source ? &context : NULL;
    cli_print_error(&c, e);
    return (int)e->code;
}

int shell_fork(struct hv_error *e)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        return hv_fail_errno(e, errno, NULL, "cannot run a command");
    }
    if (pid == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGQUIT, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);           /* `list | head`: end quietly */
    }
    return (int)pid;
}

int shell_reap(int pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return HV_FAILED;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void put_on(int fd, int as)
{
    if (fd >= 0 && fd != as) {
        dup2(fd, as);
        close(fd);
    }
}

/* In the child: hvctl with the shell's own universal options in front, as if typed. */
static void be_command(struct shell *s, char *const *word, unsigned n)
{
    char where[320];
    struct cli_context context = {.target = s->target, .where = s->source ? where : NULL};
    char **argv = hv_alloc_array(n + s->c->n_values + 2, sizeof(*argv));
    int argc = 0;

    if (!argv) {
        _exit(HV_NO_RESOURCES);
    }
    argv[argc++] = (char *)(uintptr_t)s->c->tool->name;
    for (unsigned i = 0; i < s->c->n_values; i++) {
        const struct cli_value *v = &s->c->values[i];
        const struct cli_option *o = cli_option_find(NULL, v->opt->name, strlen(v->opt->name));
        if (o == v->opt && !o->use) {
            argv[argc++] = v->text ? hv_asprintf("--%s=%s", o->name, v->text) : hv_asprintf("--%s", o->name);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        argv[argc++] = word[i];
    }
    snprintf(where, sizeof(where), "%s:%u", s->source ? s->source : "", s->line);
    exit(cli_run(s->c->tool, argc, argv, &context));
}

static void be_sh(const char *command)
{
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

/* Runs the words with stdout to out (taken; -1: as it is). Its pid, or -errno. */
static int start_command(struct shell *s, char *const *word, unsigned n, int out, int other, struct hv_error *e)
{
    int pid = shell_fork(e);
    if (pid == 0) {
        if (s->null_stdin) {
            put_on(open("/dev/null", O_RDONLY), STDIN_FILENO);
        }
        if (other >= 0) {
            close(other);
        }
        put_on(out, STDOUT_FILENO);
        be_command(s, word, n);
    }
    if (out >= 0) {
        close(out);
    }
    return pid;
}

static int start_sh(struct shell *s, const char *command, int in, struct hv_error *e)
{
    int pid = shell_fork(e);
    if (pid == 0) {
        if (in < 0 && s->null_stdin) {
            in = open("/dev/null", O_RDONLY);
        }
        put_on(in, STDIN_FILENO);
        be_sh(command);
    }
    if (in >= 0) {
        close(in);
    }
    return pid;
}

/* Exit code of a pipeline: the command's own, unless nobody wanted to read on; then what sh says. */
static int pipe_code(int left, int right)
{
    return left && left != 128 + SIGPIPE ? left : right;
}

static int run_piped(struct shell *s, const struct shell_line *l, struct hv_error *e)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0) {
        return hv_fail_errno(e, errno, NULL, "cannot make a pipe");
    }
    int left = start_command(s, l->word, l->n, p[1], p[0], e);
    if (left < 0) {
        close(p[0]);
        return left;
    }
    int right = start_sh(s, l->pipe, p[0], e);
    int code = shell_reap(left);
    return right < 0 ? right : pipe_code(code, shell_reap(right));
}

static int run_command(struct shell *s, const struct shell_line *l, struct hv_error *e)
{
    int out = -1;
    if (l->pipe) {
        return run_piped(s, l, e);
    }
    if (l->file) {
        out = open(l->file, O_WRONLY | O_CREAT | O_CLOEXEC | (l->append ? O_APPEND : O_TRUNC), 0666);
        if (out < 0) {
            return hv_fail_errno(e, errno, l->file, "cannot write");
        }
    }
    int pid = start_command(s, l->word, l->n, out, -1, e);
    return pid < 0 ? pid : shell_reap(pid);
}

/* ---- the shell's own words ---- */

/* The name of the one VM that text means, from a command that knows how to look: "" if it said why not. */
static int look_up(struct shell *s, char *text, char *name, size_t size, struct hv_error *e)
{
    char words[][8] = {"vm", "show", "--", "-o", "name"};
    char *argv[] = {words[0], words[1], words[3], words[4], words[2], text};
    size_t len = 0;
    int p[2], pid;
    if (pipe2(p, O_CLOEXEC) < 0) {
        return hv_fail_errno(e, errno, NULL, "cannot make a pipe");
    }
    pid = start_command(s, argv, ARRAY_SIZE(argv), p[1], p[0], e);
    if (pid < 0) {
        close(p[0]);
        return pid;
    }
    for (ssize_t n; len + 1 < size && ((n = read(p[0], name + len, size - 1 - len)) > 0 || (n < 0 && errno == EINTR));) {
        len += n > 0 ? (size_t)n : 0;
    }
    close(p[0]);
    name[len] = '\0';
    return shell_reap(pid);
}

static int use(struct shell *s, const struct shell_line *l, struct hv_error *e)
{
    char name[1024];
    if (l->n > 2) {
        return hv_fail(e, HV_USAGE, NULL, "'use' takes one VM");
    }
    if (l->n == 1) {
        free(s->target);
        s->target = NULL;
        return 0;
    }
    int r = look_up(s, l->word[1], name, sizeof(name), e);
    if (r != 0) {
        return r;
    }
    char *end = strchr(name, '\n');
    if (!end || end[1]) {
        return hv_fail(e, HV_USAGE, l->word[1], "'use' takes one VM, this means several");
    }
    *end = '\0';
    free(s->target);
    s->target = hv_strdup(name);
    return s->target ? 0 : hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

static int run_words(struct shell *s, struct shell_line *l, struct hv_error *e)
{
    const char *first = l->word[0];
    if (strcmp(first, s->c->tool->name) == 0 && l->n > 1) {      /* typed from habit */
        free(l->word[0]);
        memmove(l->word, l->word + 1, l->n-- * sizeof(*l->word));
        return run_words(s, l, e);
    }
    if (strcmp(first, "exit") == 0 || strcmp(first, "quit") == 0) {
        s->over = true;
        return 0;
    }
    if (strcmp(first, "use") == 0) {
        return use(s, l, e);
    }
    if (strcmp(first, "?") == 0) {
        char help[] = "--help", *argv[] = {help};
        int pid = start_command(s, argv, 1, -1, -1, e);
        return pid < 0 ? pid : shell_reap(pid);
    }
    return run_command(s, l, e);
}

int shell_run(struct shell *s, const char *text)
{
    struct shell_line l;
    struct hv_error e = {0};
    int r = shell_line_parse(text, false, &l, &e);
    if (r == 0 && l.command) {
        int pid = start_sh(s, l.command, -1, &e);
        r = pid < 0 ? pid : shell_reap(pid);
    } else if (r == 0 && l.n) {
        r = run_words(s, &l, &e);
    }
    if (r > 0 && s->source && (l.command || l.pipe || r >= 128)) {
        hv_fail(&e, HV_FAILED, NULL, "exit code %d", r);          /* sh says nothing, nor does what a signal ended */
        complain(s, &e);
    }
    shell_line_fini(&l);
    return r < 0 ? complain(s, &e) : r;
}
