/*
 * "Did you mean": the nearest words by edit distance, at most three, none when nothing is
 * near. A suggestion is printed, never run.
 */
#include "hv/cli/call.h"

#include <ctype.h>
#include <stdio.h>

#define MAX_WORD 63

unsigned cli_distance(const char *a, const char *b)
{
    size_t la = strnlen(a, MAX_WORD), lb = strnlen(b, MAX_WORD);
    unsigned rows[3][MAX_WORD + 1];
    unsigned *before = rows[0], *prev = rows[1], *cur = rows[2];

    for (size_t j = 0; j <= lb; j++) {
        prev[j] = (unsigned)j;
    }
    for (size_t i = 1; i <= la; i++) {
        cur[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            unsigned d = prev[j - 1] + (ca != cb);
            d = MIN(d, prev[j] + 1);
            d = MIN(d, cur[j - 1] + 1);
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                cb == tolower((unsigned char)a[i - 2])) {
                d = MIN(d, before[j - 2] + 1);
            }
            cur[j] = d;
        }
        unsigned *t = before;
        before = prev;
        prev = cur;
        cur = t;
    }
    return prev[lb];
}

void cli_suggest_init(struct cli_suggest *s, const char *word)
{
    *s = (struct cli_suggest){.word = word};
}

void cli_suggest_add(struct cli_suggest *s, const char *candidate)
{
    /* A third of the word may be wrong, and a short word may have one letter wrong. */
    size_t len = strnlen(s->word, MAX_WORD);
    unsigned limit = len <= 4 ? 1 : len <= 6 ? 2 : (unsigned)len / 3;
    unsigned d = cli_distance(s->word, candidate);
    /* What was typed is a beginning: "stat" for start, status, stats. */
    if (len >= 3 && strncmp(candidate, s->word, len) == 0) {
        d = MIN(d, 1U);
    }
    /* ... or its end: "strat" for restart. */
    size_t cand = strnlen(candidate, MAX_WORD);
    if (len >= 4 && cand > len) {
        d = MIN(d, cli_distance(s->word, candidate + (cand - len)) + 1);
    }
    if (d > limit || d >= MAX(len, 1U)) {
        return;
    }
    unsigned at = s->n;
    for (unsigned i = 0; i < s->n; i++) {
        if (strcmp(s->best[i].word, candidate) == 0) {
            return;
        }
        if (at == s->n && d < s->best[i].dist) {
            at = i;
        }
    }
    if (at >= ARRAY_SIZE(s->best)) {
        return;
    }
    if (s->n < ARRAY_SIZE(s->best)) {
        s->n++;
    }
    for (unsigned i = s->n - 1; i > at; i--) {
        s->best[i] = s->best[i - 1];
    }
    s->best[at].word = candidate;
    s->best[at].dist = d;
}

const char *cli_suggest_text(const struct cli_suggest *s, const char *prefix, char *buf, size_t size)
{
    size_t pos = 0;
    buf[0] = '\0';
    for (unsigned i = 0; i < s->n && pos < size; i++) {
        int n = snprintf(buf + pos, size - pos, "%s%s%s", i ? ", " : "", prefix, s->best[i].word);
        pos += n > 0 ? (size_t)n : 0;
    }
    return buf;
}
