/*
 * The main() every tool shares.
 */
#include "hv/cli/call.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <unistd.h>

/* A handler that returned an error without a sentence still gets one. */
static int fail_code(const struct cli_call *c, struct hv_error *e, int r)
{
    if (!hv_error_is_set(e)) {
        hv_fail_errno(e, -r, NULL, "%s", c->cmd ? c->cmd->noun : c->tool->name);
    }
    cli_print_error(c, e);
    return (int)e->code;
}

/*
 * A caller may have closed one of 0, 1, 2. The next descriptor opened would take its number, and a
 * table would go into a socket: put something there that reads as empty and refuses to be written.
 */
static void fill_standard_fds(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDONLY);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO) {
        close(fd);
    }
}

/* Output that could not be written (disk full, pipe closed) is a failure like any other. */
static int close_output(const struct cli_call *c, struct hv_error *e, int code)
{
    errno = 0;
    if (fflush(c->out) == 0 && !ferror(c->out)) {
        return code;
    }
    /* What an earlier flush failed with, stdio has forgotten; whoever asks again is told. */
    if (errno == 0 && write(fileno(c->out), "\n", 1) == 1) {
        errno = EIO;
    }
    if (errno == EPIPE) {
        return code ? code : HV_FAILED;
    }
    hv_fail_errno(e, errno ? errno : EIO, NULL, "cannot write the output");
    cli_print_error(c, e);
    return code ? code : (int)e->code;
}

/* __complete --shell S -- WORDS · __completion SHELL · __dump · __mdoc NOUN [VERB] · __mdoc universal */
static int hidden(struct cli_call *c, int argc, char **argv, int *ret_code)
{
    const char *word = argc > 1 ? argv[1] : "";
    *ret_code = 0;
    if (strcmp(word, "__complete") == 0) {
        if (argc > 4 && strcmp(argv[2], "--shell") == 0 && strcmp(argv[4], "--") == 0) {
            cli_complete(c, argv[3], argc - 5, argv + 5);
        }
        return 1;
    }
    if (strcmp(word, "__dump") == 0) {
        json_t *j = cli_dump(c->tool);
        json_dumpf(j, c->out, JSON_INDENT(1));
        fputc('\n', c->out);
        json_decref(j);
        return 1;
    }
    if (strcmp(word, "__completion") == 0 && argc == 3) {
        cli_print_completion(c->tool, argv[2], c->out);
        return 1;
    }
    if (strcmp(word, "__mdoc") == 0 && argc == 3 && strcmp(argv[2], "universal") == 0) {
        cli_print_mdoc_universal(c->out);
        return 1;
    }
    if (strcmp(word, "__mdoc") == 0) {
        const struct cli_noun *n = argc > 2 ? cli_noun_find(c->tool, argv[2]) : NULL;
        const struct cli_command *cmd = n ? cli_verb_find(n, argc > 3 ? argv[3] : NULL) : NULL;
        if (!cmd) {
            *ret_code = HV_USAGE;
            return 1;
        }
        cli_print_mdoc(cmd, c->tool->name, c->out);
        return 1;
    }
    return 0;
}

static int perform(struct cli_call *c, int argc, char **argv)
{
    struct hv_error e = {0};
    int code, r = cli_parse(c, argc, argv, &e);
    if (r < 0) {
        code = fail_code(c, &e, r);
    } else if (c->want_help) {
        cli_print_help(c);
        code = HV_OK;
    } else if (!c->cmd) {
        c->out = c->err;
        cli_print_help(c);
        c->out = stdout;
        code = HV_USAGE;
    } else {
        r = c->cmd->run(c, &e);
        code = r < 0 ? fail_code(c, &e, r) : c->exit_code;
        if (code && r >= 0 && c->context && c->context->where) {
            cli_warn(c, c->context->where, "exit code %d", code);     /* not every one comes with a sentence */
        }
    }
    code = close_output(c, &e, code);
    cli_call_fini(c);
    return code;
}

int cli_main(const struct cli_tool *tool, int argc, char **argv, void *data)
{
    struct cli_call c;
    struct hv_error e = {0};
    int code;

    fill_standard_fds();
    setlocale(LC_CTYPE, "");
    cli_call_init(&c, tool);
    c.data = data;
    if (hidden(&c, argc, argv, &code)) {
        return close_output(&c, &e, code);
    }
    return perform(&c, argc, argv);
}

int cli_run(const struct cli_tool *tool, int argc, char **argv, const struct cli_context *context)
{
    struct cli_call c;
    cli_call_init(&c, tool);
    c.context = context;
    return perform(&c, argc, argv);
}
