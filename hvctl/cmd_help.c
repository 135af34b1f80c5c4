/* help: the manual page of a command, opened where it is described. */
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hvctl/hvctl.h"

static bool page_exists(const char *page)
{
    pid_t pid = fork();
    if (pid == 0) {
        FILE *null = freopen("/dev/null", "w", stdout);
        if (!null || !freopen("/dev/null", "w", stderr)) {
            _exit(1);
        }
        execlp("man", "man", "-w", page, (char *)NULL);
        _exit(127);
    }
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The page itself, at the command; returns only if that did not work. */
static void open_page(const struct cli_call *c, const char *page, const char *command)
{
    hv_autofree char *pager = command ? hv_asprintf("less -p '^ *%s %s'", c->tool->name, command) : NULL;
    const char *own = getenv("HV_PAGER");
    fflush(c->out);
    if (own && *own) {
        execlp("man", "man", "-P", own, page, (char *)NULL);
    } else if (pager) {
        execlp("man", "man", "-P", pager, page, (char *)NULL);
    } else {
        execlp("man", "man", page, (char *)NULL);
    }
}

static int help(struct cli_call *c, struct hv_error *e)
{
    char page[80], command[80] = "";
    struct cli_found f = {0};
    struct cli_call shown = *c;

    snprintf(page, sizeof(page), "%s", c->tool->name);
    shown.want_help = CLI_HELP_TOOL;
    if (c->n_args) {
        if (strcmp(c->args[0], "hyperv-export") == 0) {
            hv_fail(e, HV_UNSUPPORTED, "help hyperv-export", "not in this version");
            hv_hint(e, "%s", c->tool->later_hint);
            return -EOPNOTSUPP;
        }
        /* The words are a command line without its target. */
        char *argv[4] = {(char *)(uintptr_t)c->tool->name};
        for (unsigned i = 0; i < c->n_args && i < 2; i++) {
            argv[i + 1] = (char *)(uintptr_t)c->args[i];
        }
        int argc = (int)MIN(c->n_args, 2u) + 1;
        cli_find_command(c->tool, argc, argv, &f);
        if (!f.noun || !f.noun->commands || (c->n_args > 1 && f.verb_at < 0) || (f.cmd && cli_is_later(f.cmd))) {
            struct cli_call again;
            cli_call_init(&again, c->tool);
            int r = cli_parse(&again, argc, argv, e);      /* fills e with what is wrong */
            cli_call_fini(&again);
            return r < 0 ? r : hv_fail(e, HV_USAGE, NULL, "there is no '%s %s'", c->args[0], c->args[1]);
        }
        bool whole = f.cmd && (f.verb_at >= 0 || !f.implied_verb);
        snprintf(page, sizeof(page), "%s-%s", c->tool->name, f.noun->name);
        if (whole) {
            cli_command_name(f.cmd, command, sizeof(command));
        }
        shown.noun = f.noun;
        shown.cmd = f.cmd;
        shown.want_help = whole ? CLI_HELP_COMMAND : CLI_HELP_NOUN;
    }
    if (c->tty_out && !c->no_pager && !c->batch && page_exists(page)) {
        open_page(c, page, command[0] ? command : NULL);
    }
    cli_print_help(&shown);
    return 0;
}

static const struct cli_arg words[] = {
    {"COMMAND", CLI_COMMAND, CLI_REPEAT | CLI_OPTIONAL, .help = "noun, or noun and verb"}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command help_commands[] = {
    {.noun = "help", .help = "open the manual page of a command; without a terminal print its --help", .args = words,
     .run = help, .examples = EXAMPLES({"hvctl help memory set", "the page, at the command"})},
    {0},
};
