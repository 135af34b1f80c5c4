/*
 * The table as others read it: mdoc for the manual pages, JSON for tests and the README.
 */
#include "hv/cli/call.h"

#include <stdio.h>

/* Text in mdoc: a backslash, and a dot or quote where a line could begin with it, are special. */
static void mdoc_text(FILE *f, const char *s)
{
    if (*s == '.' || *s == '\'') {
        fputs("\\&", f);
    }
    for (; *s; s++) {
        if (*s == '\\') {
            fputs("\\e", f);
        } else if (*s == '-') {
            fputs("\\-", f);
        } else {
            fputc(*s, f);
        }
    }
}

/* An argument of a macro: quoted, because of blanks and of words that are macros themselves. */
static void mdoc_arg(FILE *f, const char *s)
{
    fputs(" \"", f);
    for (; *s; s++) {
        fputs(*s == '"' ? "\"\"" : "", f);
        if (*s == '\\') {
            fputs("\\e", f);
        } else {
            fputc(*s, f);
        }
    }
    fputc('"', f);
}

static void mdoc_option(FILE *f, const struct cli_option *o)
{
    fputs(".It ", f);
    if (o->letter) {
        fprintf(f, "Fl %c , ", o->letter);
    }
    fprintf(f, "Fl \\-%s", o->name);
    if (o->arg && (o->flags & CLI_VALUE_NEXT)) {
        fputs(" Op Ar", f);
        mdoc_arg(f, o->arg);
    } else if (o->arg && (o->flags & CLI_VALUE_OPTIONAL)) {
        fputs(" Ns Op Ns = Ns Ar", f);
        mdoc_arg(f, o->arg);
    } else if (o->arg) {
        fputs(" Ar", f);
        mdoc_arg(f, o->arg);
    }
    fputc('\n', f);
    mdoc_text(f, o->help);
    fputs(".\n", f);
    if (o->type == CLI_ENUM && !o->letter) {
        fputs("One of", f);
        for (const char *p = o->values; *p;) {
            size_t n = strcspn(p, "|");
            if (!cli_word_in(o->later, p, n)) {
                fprintf(f, " %.*s", (int)n, p);
            }
            p += n + (p[n] == '|');
        }
        fputs(".\n", f);
    }
    if (o->flags & CLI_REPEAT && o->arg) {
        fputs("May be repeated.\n", f);
    }
    if (o->def) {
        fputs("Default: ", f);
        mdoc_text(f, o->def);
        fputs(".\n", f);
    }
    if (o->max && (o->type == CLI_UINT || o->type == CLI_PERCENT) && o->max < UINT32_MAX) {
        fprintf(f, "Range: %llu to %llu.\n", (unsigned long long)o->min, (unsigned long long)o->max);
    }
}

void cli_print_mdoc(const struct cli_command *cmd, const char *tool, FILE *f)
{
    char name[80];
    const struct cli_option *o;
    unsigned own = 0, later = 0;

    fprintf(f, ".Bd -ragged -offset indent\n.Nm %s\n", tool);
    if (strcmp(tool, cmd->noun) != 0) {
        fprintf(f, ".Cm %s\n", cli_command_name(cmd, name, sizeof(name)));
    }
    for (const struct cli_arg *a = cmd->args; a && a->name; a++) {
        fprintf(f, ".%sAr \"%s%s\"\n", a->flags & CLI_OPTIONAL ? "Op " : "", a->name,
                a->flags & CLI_REPEAT ? " ..." : "");
    }
    fputs(".Op Ar options\n.Ed\n", f);
    for (unsigned i = 0; (o = cli_option_at(cmd, i)); i++) {
        later += (o->flags & CLI_LATER) != 0;
        own += !(o->flags & CLI_LATER) && (!cli_option_find(NULL, o->name, strlen(o->name)) || o->use);
    }
    if (own) {
        fputs(".Bl -tag -width Ds\n", f);
        for (unsigned i = 0; (o = cli_option_at(cmd, i)); i++) {
            if (!(o->flags & CLI_LATER) && (!cli_option_find(NULL, o->name, strlen(o->name)) || o->use)) {
                mdoc_option(f, o);
            }
        }
        fputs(".El\n", f);
    }
    if (later) {
        fputs(".Pp\nNot in this version:\n", f);
        for (unsigned i = 0; (o = cli_option_at(cmd, i)); i++) {
            if (o->flags & CLI_LATER) {
                fprintf(f, ".Fl \\-%s%s\n", o->name, --later ? " ," : " .");
            }
        }
    }
}

void cli_print_mdoc_universal(FILE *f)
{
    fputs(".Bl -tag -width Ds\n", f);
    for (const struct cli_option *o = cli_universal; o->name; o++) {
        if (!(o->flags & CLI_LATER)) {
            mdoc_option(f, o);
        }
    }
    fputs(".El\n", f);
}

static json_t *dump_option(const struct cli_option *o)
{
    json_t *j = json_pack("{s:s,s:s,s:s,s:b,s:b,s:b}", "name", o->name, "type", cli_type_word(o->type), "help",
                          o->help, "universal", o->letter || cli_option_find(NULL, o->name, strlen(o->name)) == o,
                          "repeat", (o->flags & CLI_REPEAT) != 0, "later", (o->flags & CLI_LATER) != 0);
    char letter[2] = {o->letter, 0};
    if (o->letter) {
        json_object_set_new(j, "letter", json_string(letter));
    }
    if (o->arg) {
        json_object_set_new(j, "value", json_string(o->arg));
    }
    if (o->values) {
        json_object_set_new(j, "values", json_string(o->values));
    }
    if (o->later) {
        json_object_set_new(j, "later_values", json_string(o->later));
    }
    if (o->def) {
        json_object_set_new(j, "default", json_string(o->def));
    }
    if (o->key) {
        json_object_set_new(j, "setting", json_string(o->key));
    }
    return j;
}

static json_t *dump_command(const struct cli_command *cmd)
{
    json_t *options = json_array(), *args = json_array(), *examples = json_array();
    const struct cli_option *o;
    for (unsigned i = 0; (o = cli_option_at(cmd, i)); i++) {
        json_array_append_new(options, dump_option(o));
    }
    for (const struct cli_arg *a = cmd->args; a && a->name; a++) {
        json_array_append_new(args, json_pack("{s:s,s:s,s:b,s:b}", "name", a->name, "type", cli_type_word(a->type),
                                              "optional", (a->flags & CLI_OPTIONAL) != 0, "repeat",
                                              (a->flags & CLI_REPEAT) != 0));
    }
    for (const struct cli_example *x = cmd->examples; x && x->command; x++) {
        json_array_append_new(examples, json_string(x->command));
    }
    return json_pack("{s:s,s:s?,s:s,s:b,s:b,s:o,s:o,s:o}", "noun", cmd->noun, "verb", cmd->verb, "help", cmd->help,
                     "later", cli_is_later(cmd), "hidden", cmd->hidden, "args", args, "options", options, "examples",
                     examples);
}

json_t *cli_dump(const struct cli_tool *t)
{
    json_t *nouns = json_array();
    for (const struct cli_noun *n = t->nouns; n->name; n++) {
        json_t *commands = json_array();
        for (const struct cli_command *c = n->commands; c && c->noun; c++) {
            json_array_append_new(commands, dump_command(c));
        }
        json_array_append_new(nouns, json_pack("{s:s,s:s?,s:s,s:b,s:o}", "name", n->name, "alias", n->alias, "help",
                                               n->help, "later", !n->commands, "commands", commands));
    }
    return json_pack("{s:s,s:s,s:o}", "tool", t->name, "version", HV_VERSION, "nouns", nouns);
}
