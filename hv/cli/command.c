/*
 * Lookups in the command table, and the check that keeps every table sound.
 */
#include "hv/cli/command.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const type_words[] = {
#define CLI_TYPE_WORD(id, word) [CLI_##id] = word,
    CLI_TYPES(CLI_TYPE_WORD)
#undef CLI_TYPE_WORD
};

const char *cli_type_word(enum cli_type t)
{
    hv_assert(t < CLI_TYPE_COUNT);
    return type_words[t];
}

const struct cli_noun *cli_noun_find(const struct cli_tool *t, const char *word)
{
    for (const struct cli_noun *n = t->nouns; n->name; n++) {
        if (strcmp(n->name, word) == 0 || (n->alias && strcmp(n->alias, word) == 0)) {
            return n;
        }
    }
    return NULL;
}

const struct cli_command *cli_verb_find(const struct cli_noun *n, const char *verb)
{
    if (!n->commands) {
        return NULL;
    }
    for (const struct cli_command *c = n->commands; c->noun; c++) {
        if (!c->verb ? !verb : verb && strcmp(c->verb, verb) == 0) {
            return c;
        }
    }
    return NULL;
}

const struct cli_option *cli_option_at(const struct cli_command *cmd, unsigned n)
{
    if (cmd && cmd->options) {
        for (const struct cli_option *o = cmd->options; o->name; o++) {
            if (n-- == 0) {
                return o;
            }
        }
    }
    for (const struct cli_option *o = cli_universal; o->name; o++) {
        if (o->use == 0 || !cmd || (o->use & cmd->use)) {
            if (n-- == 0) {
                return o;
            }
        }
    }
    return NULL;
}

const struct cli_option *cli_option_find(const struct cli_command *cmd, const char *name, size_t len)
{
    const struct cli_option *o;
    for (unsigned i = 0; (o = cli_option_at(cmd, i)); i++) {
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0) {
            return o;
        }
    }
    return NULL;
}

const struct cli_option *cli_letter_find(const struct cli_command *cmd, char letter)
{
    const struct cli_option *o;
    for (unsigned i = 0; (o = cli_option_at(cmd, i)); i++) {
        if (o->letter == letter) {
            return o;
        }
    }
    return NULL;
}

bool cli_is_later(const struct cli_command *cmd)
{
    return !cmd->run;
}

const char *cli_command_name(const struct cli_command *cmd, char *buf, size_t size)
{
    snprintf(buf, size, "%s%s%s", cmd->noun, cmd->verb ? " " : "", cmd->verb ? cmd->verb : "");
    return buf;
}

void cli_words_each(const char *list, void (*fn)(void *arg, const char *word, size_t len), void *arg)
{
    for (const char *p = list; p && *p;) {
        size_t n = strcspn(p, "|");
        fn(arg, p, n);
        p += n + (p[n] == '|');
    }
}

bool cli_word_in(const char *list, const char *word, size_t len)
{
    for (const char *p = list; p && *p;) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, word, n) == 0) {
            return true;
        }
        p += n + (p[n] == '|');
    }
    return false;
}

/* ---- the check ---- */

struct check { FILE *out; unsigned wrong; };

static void HV_PRINTF(4, 5) bad(struct check *k, const struct cli_tool *t, const struct cli_command *cmd,
                                const char *fmt, ...)
{
    k->wrong++;
    if (!k->out) {
        return;
    }
    char name[80] = "";
    if (cmd) {
        cli_command_name(cmd, name, sizeof(name));
    }
    va_list ap;
    va_start(ap, fmt);
    fprintf(k->out, "%s %s: ", t->name, name);
    vfprintf(k->out, fmt, ap);
    fputc('\n', k->out);
    va_end(ap);
}

static bool one_line(const char *help)
{
    return help && help[0] && !strchr(help, '\n') && help[strlen(help) - 1] != '.';
}

static void check_option(struct check *k, const struct cli_tool *t, const struct cli_command *cmd,
                         const struct cli_option *o, bool universal)
{
    if (!one_line(o->help)) {
        bad(k, t, cmd, "--%s has no one-line help", o->name);
    }
    bool recursive = o->letter == 'r' && strcmp(o->name, "recursive") == 0;      /* vhdtool cp -r: section 7 */
    if (o->letter && !universal && !recursive) {
        bad(k, t, cmd, "--%s: only universal options have a letter", o->name);
    }
    if ((o->type == CLI_BOOL) != !o->arg) {
        bad(k, t, cmd, "--%s: the name of its value does not fit its type", o->name);
    }
    if ((o->type == CLI_ENUM || o->type == CLI_LIST) && !o->values) {
        bad(k, t, cmd, "--%s: no values", o->name);
    }
    if (!universal) {
        for (const struct cli_option *u = cli_universal; u->name; u++) {
            if (strcmp(u->name, o->name) == 0) {
                bad(k, t, cmd, "--%s is a universal option", o->name);
            }
        }
    }
}

static void check_command(struct check *k, const struct cli_tool *t, const struct cli_command *cmd)
{
    if (!one_line(cmd->help)) {
        bad(k, t, cmd, "no one-line help");
    }
    if (!cli_is_later(cmd) && !cmd->hidden && (!cmd->examples || !cmd->examples->command)) {
        bad(k, t, cmd, "no example");
    }
    if ((cmd->use & CLI_USE_LIST) && !cmd->columns) {
        bad(k, t, cmd, "lists but has no columns");
    }
    for (const struct cli_option *o = cmd->options; o && o->name; o++) {
        check_option(k, t, cmd, o, false);
        for (const struct cli_option *p = cmd->options; p < o; p++) {
            if (strcmp(p->name, o->name) == 0) {
                bad(k, t, cmd, "--%s twice", o->name);
            }
        }
    }
    bool optional = false;
    for (const struct cli_arg *a = cmd->args; a && a->name; a++) {
        if (optional && !(a->flags & CLI_OPTIONAL)) {
            bad(k, t, cmd, "%s is required after an optional argument", a->name);
        }
        optional = optional || (a->flags & CLI_OPTIONAL);
        if ((a->flags & CLI_REPEAT) && a[1].name) {
            bad(k, t, cmd, "%s repeats and is not last", a->name);
        }
    }
}

/* One meaning a name: the same type, and for enumerations the same words, everywhere. */
static void check_same(struct check *k, const struct cli_tool *t, const struct cli_command *cmd,
                       const struct cli_option *o, const struct cli_tool *t2)
{
    for (const struct cli_noun *n = t2->nouns; n->name; n++) {
        for (const struct cli_command *c = n->commands; c && c->noun; c++) {
            for (const struct cli_option *p = c->options; p && p->name; p++) {
                if (p != o && strcmp(p->name, o->name) == 0 && p->type != o->type &&
                    !((p->flags | o->flags) & CLI_LATER)) {
                    bad(k, t, cmd, "--%s is %s here, %s in %s %s %s", o->name, cli_type_word(o->type),
                        cli_type_word(p->type), t2->name, c->noun, c->verb ? c->verb : "");
                }
            }
        }
    }
}

unsigned cli_table_check(const struct cli_tool *const *tools, unsigned n, FILE *out)
{
    struct check k = {.out = out};
    for (const struct cli_option *o = cli_universal; o->name; o++) {
        check_option(&k, tools[0], NULL, o, true);
    }
    for (unsigned i = 0; i < n; i++) {
        const struct cli_tool *t = tools[i];
        for (const struct cli_noun *noun = t->nouns; noun->name; noun++) {
            if (!one_line(noun->help)) {
                bad(&k, t, NULL, "%s has no one-line help", noun->name);
            }
            const struct cli_noun *def = t->default_noun ? cli_noun_find(t, t->default_noun) : NULL;
            if (def && def != noun && cli_verb_find(def, noun->name)) {
                bad(&k, t, NULL, "the noun %s is also a verb of %s", noun->name, def->name);
            }
            if (noun->default_verb && !cli_verb_find(noun, noun->default_verb)) {
                bad(&k, t, NULL, "%s: no default verb %s", noun->name, noun->default_verb);
            }
            for (const struct cli_command *c = noun->commands; c && c->noun; c++) {
                if (strcmp(c->noun, noun->name) != 0) {
                    bad(&k, t, c, "stands under the noun %s", noun->name);
                }
                if (cli_verb_find(noun, c->verb) != c) {
                    bad(&k, t, c, "stands twice");
                }
                check_command(&k, t, c);
                for (const struct cli_option *o = c->options; o && o->name; o++) {
                    for (unsigned j = 0; j < n; j++) {
                        check_same(&k, t, c, o, tools[j]);
                    }
                }
            }
        }
    }
    return k.wrong;
}
