/*
 * Completion: `TOOL __complete --shell S -- WORDS`, the last word being completed. Nouns, verbs,
 * options and fixed values come from the table without touching the service; names are the
 * tool's to find, quickly and silently. What is `later` is not offered (rule 11).
 */
#include "hv/cli/call.h"

#include <stdio.h>

#include "hv/cli/column.h"

struct complete {
    struct cli_call *c;
    const char *prefix;           /* what the candidates must begin with */
    const char *before;           /* goes in front of each: "--output=", "running," */
    bool describe;                /* zsh, fish: a description after a TAB */
};

static void offer(void *arg, const char *word, const char *what)
{
    struct complete *k = arg;
    if (strncmp(word, k->prefix, strlen(k->prefix)) != 0) {
        return;
    }
    /* A name that could end the line early, or be taken for a directive, is not offered. */
    for (const char *p = word; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            return;
        }
    }
    fprintf(k->c->out, "%s%s", k->before, word);
    if (k->describe && what && *what) {
        fprintf(k->c->out, "\t%s", what);
    }
    fputc('\n', k->c->out);
}

static void offer_words(struct complete *k, const char *values, const char *later)
{
    for (const char *p = values; p && *p;) {
        size_t n = strcspn(p, "|");
        char word[64];
        snprintf(word, sizeof(word), "%.*s", (int)MIN(n, sizeof(word) - 1), p);
        if (!cli_word_in(later, p, n)) {
            offer(k, word, NULL);
        }
        p += n + (p[n] == '|');
    }
}

/* After the last comma of a list: what stands before it stays. */
static char *list_start(struct complete *k)
{
    const char *comma = strrchr(k->prefix, ',');
    char *kept = comma ? hv_asprintf("%s%.*s", k->before, (int)(comma + 1 - k->prefix), k->prefix) : NULL;
    if (kept) {
        k->prefix = comma + 1;
        k->before = kept;
    }
    return kept;
}

static void offer_columns(struct complete *k, const struct cli_command *cmd, enum cli_type type)
{
    hv_autofree char *kept = type == CLI_SORT ? NULL : list_start(k);
    char sign[3] = {*k->prefix == '+' || *k->prefix == '-' ? *k->prefix : 0, 0, 0};
    hv_autofree char *before = hv_asprintf("%s%s", k->before, sign);
    if (!cmd || !cmd->columns || !before) {
        return;
    }
    if (type != CLI_FILTER) {
        k->before = before;
        k->prefix += sign[0] != 0;
    }
    for (const struct cli_column *col = cmd->columns->col; col->key; col++) {
        char word[72];
        snprintf(word, sizeof(word), "%s%s", col->key, type == CLI_FILTER ? "=" : "");
        offer(k, word, col->help);
    }
    if (type == CLI_COLUMNS && !kept && !sign[0]) {
        offer(k, "help", "list the columns");
    }
}

/* What a person can wait for; those with a value end in a colon. */
static void offer_conditions(struct complete *k)
{
    static const char *const conds[][2] = {
        {"running", "the VM runs"}, {"off", "it is off"}, {"paused", "it is paused"},
        {"heartbeat", "its guest answers"}, {"ip", "its guest has an address"}, {"memory-ok", "its guest has what it needs"},
        {"kvp:", "KEY or KEY=VALUE is among its key-values"}, {"console:", "REGEX appears on the console"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(conds); i++) {
        offer(k, conds[i][0], conds[i][1]);
    }
}

static void offer_commands(struct complete *k, const struct cli_noun *n)
{
    const struct cli_tool *t = k->c->tool;
    if (n) {
        for (const struct cli_command *c = n->commands; c && c->noun; c++) {
            if (c->verb && !c->hidden && !cli_is_later(c)) {
                offer(k, c->verb, c->help);
            }
        }
        return;
    }
    for (const struct cli_noun *m = t->nouns; m->name; m++) {
        if (m->commands) {
            offer(k, m->name, m->help);
        }
    }
    const struct cli_noun *def = t->default_noun ? cli_noun_find(t, t->default_noun) : NULL;
    if (def) {
        offer_commands(k, def);
    }
}

static void offer_type(struct complete *k, const struct cli_command *cmd, enum cli_type type, const char *values,
                       const char *later)
{
    hv_autofree char *kept = NULL;
    switch (type) {
    case CLI_ENUM:
        offer_words(k, values, later);
        break;
    case CLI_LIST:
        kept = list_start(k);
        offer_words(k, values, later);
        break;
    case CLI_SWITCH:
        offer_words(k, "on|off", NULL);
        break;
    case CLI_COLUMNS:
    case CLI_SORT:
    case CLI_FILTER:
        offer_columns(k, cmd, type);
        break;
    case CLI_COND:
        offer_conditions(k);
        break;
    case CLI_HOST:
        offer(k, "system", "the host's service");
        offer(k, "user", "your own service");
        if (k->c->tool->complete) {
            k->c->tool->complete(k->c, type, k->prefix, offer, k);
        }
        break;
    case CLI_FILE:
        fprintf(k->c->out, ":file %s\n", values ? values : "*");
        break;
    case CLI_DIR:
        fprintf(k->c->out, ":dir\n");
        break;
    default:
        if (k->c->tool->complete) {
            k->c->tool->complete(k->c, type, k->prefix, offer, k);
        }
        break;
    }
}

static void offer_options(struct complete *k, const struct cli_command *cmd)
{
    const struct cli_option *o;
    for (unsigned i = 0; (o = cli_option_at(cmd, i)); i++) {
        char word[80];
        snprintf(word, sizeof(word), "--%s", o->name);
        if (!(o->flags & CLI_LATER) && (cmd || !o->use)) {
            offer(k, word, o->help);
        }
    }
}

/* The option that the word before takes its value from, if that is what is being typed. */
static const struct cli_option *pending_option(const struct cli_command *cmd, const char *prev)
{
    const struct cli_option *o = NULL;
    if (prev[0] == '-' && prev[1] == '-' && !strchr(prev, '=')) {
        o = cli_option_find(cmd, prev + 2, strlen(prev + 2));
    } else if (prev[0] == '-' && prev[1] && prev[1] != '-') {
        o = cli_letter_find(cmd, prev[strlen(prev) - 1]);
    }
    bool next = o && (!(o->flags & CLI_VALUE_OPTIONAL) || (o->flags & CLI_VALUE_NEXT));
    return next && o->type != CLI_BOOL ? o : NULL;
}

/* How many targets stand between the verb and the word being typed. */
static unsigned count_args(const struct cli_found *f, int n, char *const *argv)
{
    unsigned args = 0;
    for (int i = 1; i < n; i++) {
        if (i == f->noun_at || i == f->verb_at) {
            continue;
        }
        if (argv[i][0] == '-' && argv[i][1]) {
            i += pending_option(f->cmd, argv[i]) != NULL;
            continue;
        }
        args++;
    }
    return args;
}

static const struct cli_arg *arg_at(const struct cli_command *cmd, unsigned n)
{
    const struct cli_arg *a = cmd->args;
    for (; a && a->name; a++) {
        if (n-- == 0 || (a->flags & CLI_REPEAT)) {
            return a;
        }
    }
    return NULL;
}

/* Names are asked of the host that the words before name. */
static void take_host(struct complete *k, int n, char *const *argv)
{
    for (int i = 1; i < n; i++) {
        bool next = strcmp(argv[i], "-H") == 0 || strcmp(argv[i], "--host") == 0;
        if (next && i + 1 < n) {
            k->c->host = argv[++i];
        } else if (strncmp(argv[i], "-H", 2) == 0 && argv[i][2]) {
            k->c->host = argv[i] + 2;
        } else if (strncmp(argv[i], "--host=", 7) == 0) {
            k->c->host = argv[i] + 7;
        }
    }
}

static void complete_word(struct complete *k, int n, char *const *argv)
{
    const char *word = argv[n], *eq;
    struct cli_found f;
    cli_find_command(k->c->tool, n, argv, &f);
    k->c->noun = f.noun;
    k->c->cmd = f.cmd;
    take_host(k, n, argv);

    const struct cli_option *o = n > 1 ? pending_option(f.cmd, argv[n - 1]) : NULL;
    if (o) {
        offer_type(k, f.cmd, o->type, o->values, o->later);
        return;
    }
    if (word[0] == '-' && word[1] == '-' && (eq = strchr(word, '='))) {
        o = cli_option_find(f.cmd, word + 2, (size_t)(eq - word - 2));
        hv_autofree char *before = hv_asprintf("%.*s", (int)(eq + 1 - word), word);
        if (o && before && !(o->flags & CLI_LATER)) {
            k->before = before;
            k->prefix = eq + 1;
            offer_type(k, f.cmd, o->type, o->values, o->later);
        }
        return;
    }
    if (word[0] == '-') {
        offer_options(k, f.cmd);
        return;
    }
    if (!f.noun) {
        if (f.noun_at < 0) {
            offer_commands(k, NULL);
        }
        return;
    }
    bool verb_typed = f.verb_at >= 0 || (f.cmd && (!f.cmd->verb || !f.implied_verb));
    if (!verb_typed && count_args(&f, n, argv) == 0) {
        offer_commands(k, f.noun);
        if (!f.noun->target_verb) {
            return;
        }
        f.cmd = cli_verb_find(f.noun, f.noun->target_verb);
    }
    const struct cli_arg *a = f.cmd && !cli_is_later(f.cmd) ? arg_at(f.cmd, count_args(&f, n, argv)) : NULL;
    if (a) {
        offer_type(k, f.cmd, a->type, a->values, NULL);
    }
}

void cli_complete(struct cli_call *c, const char *shell, int n, char *const *words)
{
    struct complete k = {.c = c, .before = "", .describe = strcmp(shell, "bash") != 0};
    if (n < 1) {
        return;
    }
    char **argv = hv_alloc_array((size_t)n + 2, sizeof(*argv));
    if (!argv) {
        return;
    }
    argv[0] = (char *)(uintptr_t)c->tool->name;
    for (int i = 0; i < n; i++) {
        argv[i + 1] = words[i];
    }
    k.prefix = argv[n];
    complete_word(&k, n, argv);
    fflush(c->out);
    free(argv);
}
