/*
 * From argv to a struct cli_call. Words are matched whole (rule 10); options may stand before,
 * between and after noun, verb and targets; "--" ends them. Two walks: the first finds noun and
 * verb, the second reads everything else with the options that command has.
 */
#include "hv/cli/call.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "hv/base/units.h"

void cli_call_init(struct cli_call *c, const struct cli_tool *tool)
{
    *c = (struct cli_call){
        .tool = tool,
        .delay_ns = 2 * NS_PER_SEC,
        .jobs = 4,
        .out = stdout,
        .err = stderr,
        .in = stdin,
        .tty_out = isatty(STDOUT_FILENO) == 1,
        .tty_err = isatty(STDERR_FILENO) == 1,
        .tty_in = isatty(STDIN_FILENO) == 1,
    };
}

void cli_call_fini(struct cli_call *c)
{
    free(c->args);
    c->args = NULL;
}

/* ---- which command ---- */

static bool is_option(const char *word)
{
    return word[0] == '-' && word[1];
}

/*
 * Does this option word take the word after it as its value? -1: not an option we know.
 * Among several commands' options only the universal ones are known before the verb is.
 */
static int takes_next(const struct cli_command *cmd, const char *word)
{
    const struct cli_option *o;
    if (word[1] == '-') {
        const char *name = word + 2;
        size_t len = strcspn(name, "=");
        o = cli_option_find(cmd, name, len);
        if (!o) {
            return -1;
        }
        return o->type != CLI_BOOL && !(o->flags & CLI_VALUE_OPTIONAL) && !name[len];
    }
    for (const char *p = word + 1; *p; p++) {
        o = cli_letter_find(cmd, *p);
        if (!o) {
            return -1;
        }
        if (o->type != CLI_BOOL) {
            return !p[1];
        }
    }
    return 0;
}

static const struct cli_command *default_command(const struct cli_noun *n, const char *verb)
{
    return verb ? cli_verb_find(n, verb) : cli_verb_find(n, NULL);
}

void cli_find_command(const struct cli_tool *t, int argc, char *const *argv, struct cli_found *ret)
{
    struct cli_found f = {.noun_at = -1, .verb_at = -1};
    int i;
    if (t->one_command) {
        f.noun = t->nouns;
        f.cmd = t->nouns->commands;
        *ret = f;
        return;
    }
    for (i = 1; i < argc; i++) {
        const char *w = argv[i];
        if (strcmp(w, "--") == 0) {
            break;
        }
        if (is_option(w)) {
            int next = takes_next(f.noun ? cli_verb_find(f.noun, NULL) : NULL, w);
            if (next < 0) {
                break;
            }
            i += next;
            continue;
        }
        if (!f.noun) {
            f.noun_at = i;
            f.noun = cli_noun_find(t, w);
            if (!f.noun && t->default_noun) {
                const struct cli_noun *def = cli_noun_find(t, t->default_noun);
                f.cmd = cli_verb_find(def, w);
                f.noun = f.cmd ? def : NULL;
            }
            if (!f.noun || f.cmd || !f.noun->commands) {
                break;
            }
            if (cli_verb_find(f.noun, NULL)) {        /* `events`: no verb will come */
                f.cmd = cli_verb_find(f.noun, NULL);
                break;
            }
            continue;
        }
        f.cmd = cli_verb_find(f.noun, w);
        if (f.cmd) {
            f.verb_at = i;
        } else if (f.noun->target_verb) {             /* `memory web1` */
            f.cmd = cli_verb_find(f.noun, f.noun->target_verb);
            f.implied_verb = true;
        }
        break;
    }
    if (f.noun && !f.cmd && f.noun->commands && (i >= argc || is_option(argv[i])) && f.noun->default_verb) {
        f.cmd = default_command(f.noun, f.noun->default_verb);
        f.implied_verb = true;
    }
    *ret = f;
}

/* "there is no 'vm strat'" with what is near; a verb that stands alone may have been meant. */
static int unknown_command(const struct cli_tool *t, const struct cli_noun *n, const char *word, struct hv_error *e)
{
    char hint[160];
    struct cli_suggest s;
    cli_suggest_init(&s, word);
    if (!n) {
        for (const struct cli_noun *m = t->nouns; m->name; m++) {
            if (m->commands) {
                cli_suggest_add(&s, m->name);
            }
        }
    }
    const struct cli_noun *verbs = n ? n : t->default_noun ? cli_noun_find(t, t->default_noun) : NULL;
    for (const struct cli_command *c = verbs ? verbs->commands : NULL; c && c->noun; c++) {
        if (c->verb && !cli_is_later(c) && !c->hidden) {
            cli_suggest_add(&s, c->verb);
        }
    }
    int r = hv_fail(e, HV_USAGE, NULL, "there is no '%s%s%s'", n ? n->name : "", n ? " " : "", word);
    if (s.n) {
        hv_hint(e, "%s", cli_suggest_text(&s, "", hint, sizeof(hint)));
    } else {
        hv_hint(e, "%s%s%s --help", t->name, n ? " " : "", n ? n->name : "");
    }
    return r;
}

static int not_in_this_version(const struct cli_tool *t, const char *object, struct hv_error *e)
{
    int r = hv_fail(e, HV_UNSUPPORTED, object, "not in this version");
    if (t->later_hint) {
        hv_hint(e, "%s", t->later_hint);
    }
    return r;
}

/* ---- options ---- */

struct parse {
    struct cli_call *c;
    int argc;
    char **argv;
    const struct cli_found *found;
    int at;                        /* the word being read */
    struct hv_error *e;
};

/* The words to repeat in a hint: "hvctl memory set web1". */
static void command_words(const struct parse *p, const char *command, char *buf, size_t size)
{
    const struct cli_call *c = p->c;
    snprintf(buf, size, "%s %s", c->tool->name, command);
    for (int i = 1, shown = 0; i < p->argc && shown < 3; i++) {
        const char *w = p->argv[i];
        if (is_option(w)) {
            i += takes_next(c->cmd, w) > 0;
        } else if (i != p->found->noun_at && i != p->found->verb_at && i != p->at + 1) {
            size_t n = strlen(buf);
            snprintf(buf + n, size - n, " %s", w);
            shown++;
        }
    }
}

/* The command of another noun with the same verb and that option: where it lives, if anywhere. */
static const struct cli_command *same_verb_elsewhere(const struct cli_call *c, const char *name, size_t len)
{
    for (const struct cli_noun *n = c->tool->nouns; n->name; n++) {
        for (const struct cli_command *o = n->commands; o && o->noun; o++) {
            if (o != c->cmd && o->verb && c->cmd->verb && strcmp(o->verb, c->cmd->verb) == 0 && !cli_is_later(o)) {
                for (const struct cli_option *opt = o->options; opt && opt->name; opt++) {
                    if (strlen(opt->name) == len && memcmp(opt->name, name, len) == 0) {
                        return o;
                    }
                }
            }
        }
    }
    return NULL;
}

static int unknown_option(struct parse *p, const char *shown, const char *name, size_t len)
{
    const struct cli_call *c = p->c;
    char cmd[80], where[200], hint[200];
    const char *next = p->at + 1 < p->argc ? p->argv[p->at + 1] : "";
    const char *value = name && name[len] == '=' ? name + len + 1 : is_option(next) ? "" : next;
    int r;

    if (c->implied_verb && c->noun && c->n_args) {    /* `memory sett web1 --max 1G` */
        r = unknown_command(c->tool, c->noun, c->args[0], p->e);
        return r;
    }
    if (c->cmd && !c->bare) {
        r = hv_fail(p->e, HV_USAGE, NULL, "'%s' has no %s", cli_command_name(c->cmd, cmd, sizeof(cmd)), shown);
    } else {
        r = hv_fail(p->e, HV_USAGE, NULL, "there is no option %s", shown);
    }
    if (!name) {
        return r;
    }
    for (const struct cli_elsewhere *w = c->cmd ? c->cmd->elsewhere : NULL; w && w->option; w++) {
        if (strlen(w->option) == len && memcmp(w->option, name, len) == 0) {
            command_words(p, w->command, where, sizeof(where));
            hv_hint(p->e, "%s --%s%s%s", where, w->as, *value ? " " : "", value);
            return r;
        }
    }
    const struct cli_command *other = c->cmd ? same_verb_elsewhere(c, name, len) : NULL;
    if (other) {
        command_words(p, cli_command_name(other, cmd, sizeof(cmd)), where, sizeof(where));
        hv_hint(p->e, "%s --%.*s%s%s", where, (int)len, name, *value ? " " : "", value);
        return r;
    }
    char word[64];
    snprintf(word, sizeof(word), "%.*s", (int)MIN(len, sizeof(word) - 1), name);
    struct cli_suggest s;
    cli_suggest_init(&s, word);
    const struct cli_option *o;
    for (unsigned i = 0; (o = cli_option_at(c->cmd, i)); i++) {
        if (!(o->flags & CLI_LATER)) {
            cli_suggest_add(&s, o->name);
        }
    }
    if (s.n) {
        hv_hint(p->e, "%s", cli_suggest_text(&s, "--", hint, sizeof(hint)));
    }
    return r;
}

static int take(struct parse *p, const struct cli_option *o, const char *text)
{
    struct cli_call *c = p->c;
    struct cli_value v = {.opt = o, .text = text};
    int r;

    if (o->flags & CLI_LATER) {
        char object[80];
        snprintf(object, sizeof(object), "--%s", o->name);
        return not_in_this_version(c->tool, object, p->e);
    }
    if (c->tool->files_only && o->letter == 'H') {
        r = hv_fail(p->e, HV_USAGE, "--host", "%s works on files and asks no service", c->tool->name);
        hv_hint(p->e, "ssh %s %s%s%s ...", text, c->tool->name, c->cmd ? " " : "", c->cmd ? c->cmd->noun : "");
        return r;
    }
    if (text && (r = cli_value_parse(o, text, &v, p->e)) < 0) {
        if (r == -EOPNOTSUPP && p->e && !p->e->hint[0] && c->tool->later_hint) {
            hv_hint(p->e, "%s", c->tool->later_hint);
        }
        return r;
    }
    if (!(o->flags & CLI_REPEAT) && !(c->tool->many_hosts && o->letter == 'H')) {
        /* The last one counts, as everywhere: aliases and scripts put defaults first. */
        for (unsigned i = 0; i < c->n_values; i++) {
            if (c->values[i].opt == o) {
                c->values[i] = v;
                return 0;
            }
        }
    }
    if (c->n_values == CLI_MAX_VALUES) {
        return hv_fail(p->e, HV_USAGE, NULL, "more than %d options", CLI_MAX_VALUES);
    }
    c->values[c->n_values++] = v;
    return 0;
}

/* The value of o when it is not in the same word. */
static int next_value(struct parse *p, const struct cli_option *o, const char *shown, const char **ret)
{
    if (p->at + 1 >= p->argc) {
        int r = hv_fail(p->e, HV_USAGE, shown, "a value is missing");
        hv_hint(p->e, "%s %s", shown, o->arg);
        return r;
    }
    *ret = p->argv[++p->at];
    return 0;
}

static int long_option(struct parse *p, const char *word)
{
    const char *name = word + 2;
    size_t len = strcspn(name, "=");
    char shown[80];
    snprintf(shown, sizeof(shown), "%.*s", (int)MIN(len + 2, sizeof(shown) - 1), word);

    const struct cli_option *o = cli_option_find(p->c->cmd, name, len);
    if (!o) {
        return unknown_option(p, shown, name, len);
    }
    if (o->type == CLI_BOOL) {
        if (name[len]) {
            return hv_fail(p->e, HV_USAGE, shown, "takes no value");
        }
        return take(p, o, NULL);
    }
    const char *value = name[len] ? name + len + 1 : NULL;
    if (!value && !(o->flags & CLI_VALUE_OPTIONAL)) {
        int r = next_value(p, o, shown, &value);
        if (r < 0) {
            return r;
        }
    }
    if (!value && (o->flags & CLI_VALUE_NEXT) && p->at + 1 < p->argc && !is_option(p->argv[p->at + 1])) {
        value = p->argv[++p->at];
    }
    return take(p, o, value);
}

static int short_options(struct parse *p, const char *word)
{
    for (const char *l = word + 1; *l; l++) {
        char shown[3] = {'-', *l, 0};
        const struct cli_option *o = cli_letter_find(p->c->cmd, *l);
        if (!o) {
            return unknown_option(p, shown, NULL, 0);
        }
        if (o->type == CLI_BOOL) {
            int r = take(p, o, NULL);
            if (r < 0) {
                return r;
            }
            continue;
        }
        const char *value = l[1] ? l + 1 : NULL;
        if (!value) {
            int r = next_value(p, o, shown, &value);
            if (r < 0) {
                return r;
            }
        }
        return take(p, o, value);
    }
    return 0;
}

/* ---- positional arguments ---- */

/* In a shell after `use VM`: a command that needs a VM in front and has too few arguments means that one. */
static void add_target(struct cli_call *c)
{
    const struct cli_arg *a = c->cmd->args;
    unsigned need = 0;
    if (!c->context || !c->context->target || c->all || !a || !a->name || (a->flags & CLI_OPTIONAL) ||
        (a->type != CLI_VM && a->type != CLI_VM_RUNNING && a->type != CLI_VM_OFF)) {
        return;
    }
    for (; a->name; a++) {
        need += !(a->flags & CLI_OPTIONAL);
    }
    if (c->n_args < need) {
        memmove(&c->args[1], &c->args[0], c->n_args * sizeof(*c->args));
        c->args[0] = c->context->target;
        c->n_args++;
    }
}

static int check_args(struct parse *p)
{
    const struct cli_call *c = p->c;
    const struct cli_command *cmd = c->cmd;
    char name[80];
    unsigned max = 0, i = 0, before_all = 0;
    bool repeats = false;

    cli_command_name(cmd, name, sizeof(name));
    for (const struct cli_arg *a = cmd->args; a && a->name; a++, max++) {
        repeats = repeats || (a->flags & CLI_REPEAT);
        before_all = a->flags & CLI_OR_ALL ? max : before_all;
        bool stand_in = (a->flags & CLI_OR_ALL) && c->all;
        if (i >= c->n_args && !(a->flags & CLI_OPTIONAL) && !stand_in) {
            int r = hv_fail(p->e, HV_USAGE, NULL, "'%s' needs %s %s", name,
                            strchr("AEIOU", a->name[0]) ? "an" : "a", a->name);
            char where[200];
            command_words(p, name, where, sizeof(where));
            hv_hint(p->e, "%s %s%s", where, a->name, (a->flags & CLI_OR_ALL) ? ", or --all" : "");
            return r;
        }
        if (i < c->n_args && a->type == CLI_ENUM && a->values &&
            !cli_word_in(a->values, c->args[i], strlen(c->args[i]))) {
            char words[120];
            snprintf(words, sizeof(words), "%s", a->values);
            for (char *s = words; (s = strchr(s, '|')); *s = ' ') {}
            int r = hv_fail(p->e, HV_USAGE, c->args[i], "no such %s", a->name);
            hv_hint(p->e, "%s", words);
            return r;
        }
        i++;
    }
    if (c->n_args > max && !repeats) {
        char count[16];
        snprintf(count, sizeof(count), "%u", max);
        return hv_fail(p->e, HV_USAGE, NULL, "'%s' takes %s argument%s: '%s' is one too many", name,
                       max ? count : "no", max == 1 ? "" : "s", c->args[max]);
    }
    if (c->all && c->n_args > before_all) {
        return hv_fail(p->e, HV_USAGE, NULL, "'%s': names and --all exclude each other", name);
    }
    return 0;
}

/* What a service is told travels as JSON; of other words only vhdtool's files, and --file, have any bytes. */
static int check_text(const struct parse *p)
{
    const struct cli_call *c = p->c;
    const char *bad = NULL;
    for (unsigned i = 0; i < c->n_args + c->n_values && !bad && !c->tool->files_only; i++) {
        const struct cli_value *v = i < c->n_args ? NULL : &c->values[i - c->n_args];
        const char *text = v ? v->text : c->args[i];
        json_t *j = text && !(v && strcmp(v->opt->name, "file") == 0) ? json_string(text) : json_null();
        bad = j ? NULL : text;
        json_decref(j);
    }
    if (!bad) {
        return 0;
    }
    char shown[80];
    (void)hv_strlcpy(shown, bad, sizeof(shown));
    for (char *s = shown; *s; s++) {
        *s = (uint8_t)*s < 0x80 ? *s : '?';
    }
    return hv_fail(p->e, HV_USAGE, shown, "it is not UTF-8 text");
}

/* ---- universal options into the call ---- */

static const struct { const char *word; enum cli_format format; } formats[] = {
    {"table", CLI_FMT_TABLE}, {"wide", CLI_FMT_WIDE}, {"list", CLI_FMT_LIST}, {"json", CLI_FMT_JSON},
    {"jsonl", CLI_FMT_JSONL}, {"csv", CLI_FMT_CSV}, {"xml", CLI_FMT_XML}, {"name", CLI_FMT_NAME},
};

static enum cli_format format_of(const char *word)
{
    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
        if (strcmp(formats[i].word, word) == 0) {
            return formats[i].format;
        }
    }
    return CLI_FMT_DEFAULT;
}

static void apply_universal(struct cli_call *c)
{
    static const struct { const char *name; size_t offset; } flags[] = {
        {"all", offsetof(struct cli_call, all)},         {"batch", offsetof(struct cli_call, batch)},
        {"quiet", offsetof(struct cli_call, quiet)},     {"yes", offsetof(struct cli_call, yes)},
        {"dry-run", offsetof(struct cli_call, dry_run)}, {"no-wait", offsetof(struct cli_call, no_wait)},
        {"watch", offsetof(struct cli_call, watch)},     {"raw", offsetof(struct cli_call, raw)},
        {"no-header", offsetof(struct cli_call, no_header)}, {"ascii", offsetof(struct cli_call, ascii_forced)},
        {"no-pager", offsetof(struct cli_call, no_pager)},
    };
    for (unsigned i = 0; i < c->n_values; i++) {
        const struct cli_value *v = &c->values[i];
        const char *n = v->opt->name;
        for (unsigned k = 0; k < ARRAY_SIZE(flags); k++) {
            if (strcmp(n, flags[k].name) == 0) {
                *(bool *)((char *)c + flags[k].offset) = true;
            }
        }
        if (strcmp(n, "verbose") == 0) {
            c->verbose++;
        } else if (strcmp(n, "columns") == 0) {
            c->columns = v->text;
        } else if (strcmp(n, "sort") == 0) {
            c->sort = v->text;
        } else if (strcmp(n, "filter") == 0) {
            c->filter = v->text;
        } else if (strcmp(n, "host") == 0) {
            c->host = v->text;
        } else if (strcmp(n, "output") == 0) {
            c->format = format_of(v->text);
        } else if (strcmp(n, "timeout") == 0) {
            c->timeout_ns = v->u;
        } else if (strcmp(n, "delay") == 0) {
            c->delay_ns = v->u;
        } else if (strcmp(n, "count") == 0) {
            c->count = v->u;
        } else if (strcmp(n, "jobs") == 0) {
            c->jobs = (unsigned)v->u;
        } else if (strcmp(n, "color") == 0) {
            c->color = v->text[1] == 'l' ? CLI_ALWAYS : v->text[0] == 'n' ? CLI_NEVER : CLI_AUTO;
        }
    }
}

/* HV_HOST, HV_OUTPUT and HV_TIMEOUT set defaults; a bad value is an error that names them. */
static int apply_environment(struct cli_call *c, struct hv_error *e)
{
    const char *v = getenv("HV_HOST");
    if (v && *v) {
        c->host = v;
    }
    v = getenv("HV_OUTPUT");
    if (v && *v) {
        c->format = format_of(v);
        if (c->format == CLI_FMT_DEFAULT) {
            return hv_fail(e, HV_USAGE, "HV_OUTPUT", "no such form of output: %s", v);
        }
    }
    v = getenv("HV_TIMEOUT");
    if (v && *v) {
        return parse_duration(v, "HV_TIMEOUT", &c->timeout_ns, e);
    }
    return 0;
}

/* -o json decides how even a parse error looks: look for it before anything can fail. */
static void peek_output(struct cli_call *c, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *v = NULL;
        if (strncmp(argv[i], "--output=", 9) == 0) {
            v = argv[i] + 9;
        } else if ((strcmp(argv[i], "-o") == 0 || strcmp(argv[i], "--output") == 0) && i + 1 < argc) {
            v = argv[i + 1];
        } else if (strncmp(argv[i], "-o", 2) == 0) {
            v = argv[i] + 2;
        }
        if (v) {
            c->format = format_of(v);
        }
    }
}

static bool help_asked(const struct cli_call *c, const char *name)
{
    for (unsigned i = 0; i < c->n_values; i++) {
        if (strcmp(c->values[i].opt->name, name) == 0) {
            return true;
        }
    }
    return false;
}

static int read_words(struct parse *p)
{
    struct cli_call *c = p->c;
    bool options = true;
    for (p->at = 1; p->at < p->argc; p->at++) {
        const char *w = p->argv[p->at];
        int r = 0;
        if (p->at == p->found->noun_at || p->at == p->found->verb_at) {
            continue;
        }
        if (options && strcmp(w, "--") == 0) {
            options = false;
        } else if (options && is_option(w)) {
            r = w[1] == '-' ? long_option(p, w) : short_options(p, w);
        } else {
            c->args[c->n_args++] = w;
        }
        if (r < 0) {
            return r;
        }
        if (help_asked(c, "help")) {
            return 0;
        }
    }
    return 0;
}

int cli_parse(struct cli_call *c, int argc, char **argv, struct hv_error *e)
{
    struct cli_found f;
    int r = apply_environment(c, e);
    peek_output(c, argc, argv);
    if (r < 0) {
        return r;
    }
    cli_find_command(c->tool, argc, argv, &f);
    c->noun = f.noun;
    c->cmd = f.cmd;
    c->implied_verb = f.implied_verb;
    if (f.noun_at < 0 && c->tool->bare) {
        c->noun = cli_noun_find(c->tool, c->tool->bare);
        c->cmd = cli_verb_find(c->noun, NULL);
        c->bare = true;
    }
    c->args = hv_alloc_array((size_t)argc + 2, sizeof(*c->args));
    if (!c->args) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    if (f.noun_at >= 0 && !f.noun) {
        return unknown_command(c->tool, NULL, argv[f.noun_at], e);
    }
    if (f.noun && !f.noun->commands) {
        return not_in_this_version(c->tool, argv[f.noun_at], e);
    }
    if (f.cmd && cli_is_later(f.cmd)) {
        char name[80];
        return not_in_this_version(c->tool, cli_command_name(f.cmd, name, sizeof(name)), e);
    }

    struct parse p = {.c = c, .argc = argc, .argv = argv, .found = &f, .e = e};
    r = read_words(&p);
    if (help_asked(c, "help")) {
        c->want_help = !f.noun ? CLI_HELP_TOOL : f.cmd && (!f.implied_verb || f.verb_at >= 0)
                       ? CLI_HELP_COMMAND : CLI_HELP_NOUN;
        hv_error_clear(e);
        return 0;
    }
    if (r < 0) {
        return r;
    }
    if (help_asked(c, "version")) {
        c->want_help = CLI_HELP_VERSION;
        return 0;
    }
    apply_universal(c);
    if (!c->cmd) {
        if (f.noun && c->n_args) {
            return unknown_command(c->tool, f.noun, c->args[0], e);
        }
        if (f.noun) {
            c->want_help = CLI_HELP_NOUN;
        }
        return 0;
    }
    add_target(c);
    r = check_args(&p);
    return r < 0 ? r : check_text(&p);
}
