/*
 * --help: the tool, a noun, a command. Made from the table, at most 80 columns wide.
 */
#include "hv/cli/call.h"

#include <stdio.h>

#include "hv/base/strbuf.h"

#define HELP_WIDTH 80
#define HELP_INDENT 27

/* Words of text from column `at` on, wrapped to `indent`. Ends the line. */
static void wrap(FILE *f, const char *text, unsigned at, unsigned indent)
{
    bool first = true;
    for (const char *p = text; *p;) {
        p += strspn(p, " ");
        size_t n = strcspn(p, " ");
        if (!n) {
            break;
        }
        if (!first && at + 1 + n > HELP_WIDTH) {
            fprintf(f, "\n%*s", (int)indent, "");
            at = indent;
            first = true;
        }
        fprintf(f, "%s%.*s", first ? "" : " ", (int)n, p);
        at += (unsigned)n + !first;
        first = false;
        p += n;
    }
    fputc('\n', f);
}

/* "  name   help" with the help in its column, on the next line where the name is too long. */
static void entry(FILE *f, const char *name, const char *help)
{
    int n = fprintf(f, "  %s", name);
    if (n < 0 || n > HELP_INDENT - 2) {
        fprintf(f, "\n%*s", HELP_INDENT, "");
    } else {
        fprintf(f, "%*s", HELP_INDENT - n, "");
    }
    wrap(f, help, HELP_INDENT, HELP_INDENT);
}

static void option_name(const struct cli_option *o, char *buf, size_t size)
{
    char letter[8] = "    ";
    if (o->letter) {
        snprintf(letter, sizeof(letter), "-%c, ", o->letter);
    }
    if (!o->arg) {
        snprintf(buf, size, "%s--%s", letter, o->name);
    } else if (o->flags & CLI_VALUE_NEXT) {
        snprintf(buf, size, "%s--%s [%s]", letter, o->name, o->arg);
    } else if (o->flags & CLI_VALUE_OPTIONAL) {
        snprintf(buf, size, "%s--%s[=%s]", letter, o->name, o->arg);
    } else {
        snprintf(buf, size, "%s--%s %s", letter, o->name, o->arg);
    }
}

static void option_entry(FILE *f, const struct cli_option *o)
{
    char name[120];
    strbuf_auto help = {0};
    option_name(o, name, sizeof(name));
    strbuf_adds(&help, o->help);
    if (o->flags & CLI_REPEAT) {
        strbuf_adds(&help, o->type == CLI_BOOL ? "" : "; may be repeated");
    }
    if (o->def) {
        strbuf_addf(&help, " (default %s)", o->def);
    }
    entry(f, name, help.buf ? help.buf : "");
}

/* "hvctl vm start VM... [options]" */
static void usage(FILE *f, const char *tool, const struct cli_command *cmd)
{
    char name[80];
    fprintf(f, "%s", tool);
    if (strcmp(tool, cmd->noun) != 0) {
        fprintf(f, " %s", cli_command_name(cmd, name, sizeof(name)));
    }
    for (const struct cli_arg *a = cmd->args; a && a->name; a++) {
        bool opt = a->flags & CLI_OPTIONAL;
        fprintf(f, " %s%s%s%s%s", opt ? "[" : "", a->name, a->flags & CLI_REPEAT ? "..." : "",
                a->flags & CLI_OR_ALL ? "|--all" : "", opt ? "]" : "");
    }
    fputs(" [options]\n", f);
}

static void help_codes(FILE *f, const struct cli_command *cmd)
{
    unsigned codes = cmd->codes | 1u << HV_OK | 1u << HV_FAILED | 1u << HV_USAGE | 1u << HV_DENIED |
                     1u << HV_UNREACHABLE | 1u << HV_TIMEOUT;
    strbuf_auto line = {0};
    for (unsigned i = 0; i < HV_CODE_COUNT; i++) {
        if (codes & 1u << i) {
            strbuf_addf(&line, "%s%u %s", line.len ? ", " : "", i, hv_code_word((enum hv_code)i));
        }
    }
    fputs("\nexit codes:\n  ", f);
    wrap(f, line.buf, 2, 2);
}

static void help_command(const struct cli_call *c, const struct cli_command *cmd)
{
    FILE *f = c->out;
    char name[80];
    const struct cli_option *o;

    if (c->tool->one_command) {
        name[0] = '\0';
    } else {
        cli_command_name(cmd, name, sizeof(name));
    }
    fprintf(f, "%s%s%s: ", c->tool->name, name[0] ? " " : "", name);
    wrap(f, cmd->help, (unsigned)(strlen(c->tool->name) + strlen(name) + 3), 2);
    fputs("\nusage: ", f);
    usage(f, c->tool->name, cmd);
    if (cmd->args && cmd->args->name) {
        fputc('\n', f);
        for (const struct cli_arg *a = cmd->args; a->name; a++) {
            if (a->help) {
                entry(f, a->name, a->help);
            }
        }
    }
    fputs("\noptions:\n", f);
    strbuf_auto everywhere = {0}, later = {0};
    for (unsigned i = 0; (o = cli_option_at(cmd, i)); i++) {
        bool universal = o >= cli_universal && o < cli_universal + 64 && cli_option_find(NULL, o->name, strlen(o->name)) == o;
        if (o->flags & CLI_LATER) {
            strbuf_addf(&later, "%s--%s", later.len ? " " : "", o->name);
        } else if (universal && !o->use) {
            strbuf_addf(&everywhere, "%s", everywhere.len ? " " : "");
            if (o->letter) {
                strbuf_addf(&everywhere, "-%c|", o->letter);
            }
            strbuf_addf(&everywhere, "--%s", o->name);
        } else {
            option_entry(f, o);
        }
    }
    fputs("  ", f);
    wrap(f, everywhere.buf ? everywhere.buf : "", 2, 2);
    if (later.len) {
        fputs("not in this version:\n  ", f);
        wrap(f, later.buf, 2, 2);
    }
    if (cmd->examples && cmd->examples->command) {
        fputs("\nexamples:\n", f);
        for (const struct cli_example *x = cmd->examples; x->command; x++) {
            fprintf(f, "  %s\n", x->command);
        }
    }
    help_codes(f, cmd);
}

static void help_noun(const struct cli_call *c, const struct cli_noun *n)
{
    FILE *f = c->out;
    strbuf_auto later = {0};
    if (!n->commands->verb) {
        help_command(c, n->commands);
        return;
    }
    fprintf(f, "%s %s: %s\n\n", c->tool->name, n->name, n->help);
    if (n->alias) {
        fprintf(f, "also: %s %s\n\n", c->tool->name, n->alias);
    }
    for (const struct cli_command *cmd = n->commands; cmd->noun; cmd++) {
        char name[80];
        if (cmd->hidden) {
            continue;
        }
        if (cli_is_later(cmd)) {
            strbuf_addf(&later, "%s%s", later.len ? " " : "", cmd->verb);
            continue;
        }
        cli_command_name(cmd, name, sizeof(name));
        entry(f, name, cmd->help);
    }
    if (later.len) {
        fputs("\nnot in this version:\n  ", f);
        wrap(f, later.buf, 2, 2);
    }
    if (n->default_verb) {
        fprintf(f, "\n%s %s alone is %s %s %s.\n", c->tool->name, n->name, c->tool->name, n->name, n->default_verb);
    }
    fprintf(f, "\n%s %s VERB --help shows a command's options.\n", c->tool->name, n->name);
}

static void help_tool(const struct cli_call *c)
{
    const struct cli_tool *t = c->tool;
    const struct cli_noun *def = t->default_noun ? cli_noun_find(t, t->default_noun) : NULL;
    FILE *f = c->out;
    strbuf_auto later = {0};

    /* A tool whose nouns have no verbs has commands. */
    bool verbs = t->default_noun != NULL;
    fprintf(f, "%s: %s\n\nusage: %s %s [TARGET]... [options]\n", t->name, t->help, t->name,
            verbs ? "NOUN VERB" : "COMMAND");
    if (t->bare) {
        fprintf(f, "       %s [-f FILE] [options]            as %s %s\n", t->name, t->name, t->bare);
    }
    fputc('\n', f);
    for (const struct cli_noun *n = t->nouns; n->name; n++) {
        if (n->commands) {
            entry(f, n->name, n->help);
        } else {
            strbuf_addf(&later, "%s%s", later.len ? " " : "", n->name);
        }
    }
    if (def) {
        strbuf_auto words = {0};
        for (const struct cli_command *cmd = def->commands; cmd->noun; cmd++) {
            if (!cli_is_later(cmd) && !cmd->hidden) {
                strbuf_addf(&words, "%s%s", words.len ? " " : "", cmd->verb);
            }
        }
        fprintf(f, "\nthe noun %s may be left out (%s start web1):\n  ", def->name, t->name);
        wrap(f, words.buf ? words.buf : "", 2, 2);
    }
    fputs("\noptions of every command:\n", f);
    for (const struct cli_option *o = cli_universal; o->name; o++) {
        if (!o->use && !(t->files_only && o->letter == 'H')) {
            option_entry(f, o);
        }
    }
    fputs("options of many:\n", f);
    for (const struct cli_option *o = cli_universal; o->name; o++) {
        if (o->use && !(o->flags & CLI_LATER)) {
            option_entry(f, o);
        }
    }
    if (later.len) {
        fputs("\nnot in this version:\n  ", f);
        wrap(f, later.buf, 2, 2);
    }
    if (verbs) {
        fprintf(f, "\n%s NOUN VERB --help shows a command, %s help NOUN VERB its manual page.\n", t->name, t->name);
    } else {
        fprintf(f, "\n%s COMMAND --help shows a command.\n", t->name);
    }
}

void cli_print_help(const struct cli_call *c)
{
    switch (c->want_help) {
    case CLI_HELP_VERSION:
        fprintf(c->out, "%s " HV_VERSION "\n", c->tool->name);
        break;
    case CLI_HELP_COMMAND:
        help_command(c, c->cmd);
        break;
    case CLI_HELP_NOUN:
        help_noun(c, c->noun);
        break;
    default:
        help_tool(c);
        break;
    }
}
