/* Words, quotes, redirection: the shell's grammar. */
#include "hvctl/shell_line.h"

#include <errno.h>

#include "hv/base/strbuf.h"

#define BLANKS " \t"
#define SPECIAL " \t\\'\"#|>?!"      /* # | > ? ! only at the start of a word; a backslash does no harm elsewhere */

void shell_line_fini(struct shell_line *l)
{
    for (unsigned i = 0; i < l->n; i++) {
        free(l->word[i]);
    }
    free(l->word);
    free(l->file);
    free(l->partial);
    *l = (struct shell_line){0};
}

static int no_memory(struct hv_error *e)
{
    return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
}

/* One word from *at on into sb; *at ends behind it. Returns the quote that is still open, 0: none. */
static char read_word(const char *text, size_t *at, struct strbuf *sb)
{
    size_t i = *at;
    char quote = 0;
    const char *home = text[i] == '~' && text[i + 1] == '/' ? getenv("HOME") : NULL;
    if (home && *home) {
        strbuf_adds(sb, home);
        i++;
    }
    for (; text[i] && (quote || !strchr(BLANKS, text[i])); i++) {
        char c = text[i];
        bool escapes = c == '\\' && quote != '\'' && text[i + 1];
        if (escapes && (!quote || strchr("\"\\", text[i + 1]))) {
            strbuf_addc(sb, text[++i]);
        } else if (quote ? c == quote : c == '\'' || c == '"') {
            quote = quote ? 0 : c;
        } else {
            strbuf_addc(sb, c);
        }
    }
    *at = i;
    return quote;
}

static int add_word(struct shell_line *l, char *word, struct hv_error *e)
{
    if (l->n == SHELL_MAX_WORDS) {
        free(word);
        return hv_fail(e, HV_USAGE, NULL, "more than %d words", SHELL_MAX_WORDS);
    }
    l->word[l->n++] = word;
    return 0;
}

/* A word that was read, where it belongs. last: the text ends with it. */
static int take_word(struct shell_line *l, char *word, bool partial, struct hv_error *e)
{
    if (!word) {
        return no_memory(e);
    }
    if (partial) {
        l->partial = word;
        return 0;
    }
    if (l->place == SHELL_FILE) {
        l->place = SHELL_WORD;
        free(l->file);
        l->file = word;
        return 0;
    }
    return add_word(l, word, e);
}

int shell_line_parse(const char *text, bool to_cursor, struct shell_line *ret, struct hv_error *e)
{
    struct shell_line *l = ret;
    size_t at = 0;
    int r = 0;
    *l = (struct shell_line){.word = hv_alloc_array(SHELL_MAX_WORDS + 1, sizeof(*l->word))};
    if (!l->word) {
        return no_memory(e);
    }
    at += strspn(text, BLANKS);
    if (text[at] == '!') {
        l->command = text + at + 1;
        l->place = SHELL_COMMAND;
        return 0;
    }
    while (r == 0) {
        at += strspn(text + at, BLANKS);
        l->at = at;
        if (!text[at] || text[at] == '#') {
            l->comment = text[at] == '#';
            break;
        }
        if (text[at] == '|') {
            l->pipe = text + at + 1;
            l->place = SHELL_COMMAND;
            break;
        }
        if (text[at] == '>') {
            l->append = text[at + 1] == '>';
            at += 1 + l->append;
            l->place = SHELL_FILE;
            continue;
        }
        strbuf_auto sb = {0};
        char quote = read_word(text, &at, &sb);
        bool partial = to_cursor && !text[at];
        if (quote && !partial) {
            return hv_fail(e, HV_USAGE, text + l->at, "the quote %c is never closed", quote);
        }
        l->quote = quote;
        r = take_word(l, strbuf_detach(&sb, NULL), partial, e);
        if (partial) {
            break;
        }
    }
    if (r < 0) {
        return r;
    }
    if (to_cursor) {
        l->partial = l->partial ? l->partial : hv_strdup("");
        return l->partial ? 0 : no_memory(e);
    }
    if (l->place == SHELL_FILE) {
        return hv_fail(e, HV_USAGE, ">", "the name of the file is missing");
    }
    if (l->pipe && l->file) {
        return hv_fail(e, HV_USAGE, NULL, "> and | exclude each other");
    }
    if ((l->pipe || l->file) && !l->n) {
        return hv_fail(e, HV_USAGE, NULL, "a command is missing before %s", l->pipe ? "|" : ">");
    }
    return 0;
}

bool shell_line_continues(const char *text)
{
    struct shell_line l;
    size_t n = 0, len = strlen(text);
    while (n < len && text[len - 1 - n] == '\\') {
        n++;
    }
    if (n % 2 == 0) {
        return false;
    }
    bool comment = shell_line_parse(text, true, &l, NULL) == 0 && l.comment;
    shell_line_fini(&l);
    return !comment;
}

char *shell_line_quote(const char *word, char quote)
{
    strbuf_auto sb = {0};
    for (const char *p = word; *p; p++) {
        if (quote == '\'' && *p == '\'') {
            strbuf_adds(&sb, "'\\'");        /* out, one, and in again */
        } else if (quote == '"' ? *p == '"' || *p == '\\' : !quote && strchr(SPECIAL, *p)) {
            strbuf_addc(&sb, '\\');
        }
        strbuf_addc(&sb, *p);
    }
    return strbuf_detach(&sb, NULL);
}
