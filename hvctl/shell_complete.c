/*
 * What TAB offers in the shell: the engine of `hvctl __complete`, asked in a child, because a service
 * that does not answer ends it with an alarm; files are ours.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/strbuf.h"
#include "hvctl/shell.h"

#define MAX_CANDIDATES 5000

static void add(struct shell_candidates *k, const char *word, size_t len, const char *what)
{
    struct shell_candidate *grown = k->n < MAX_CANDIDATES ? hv_realloc_array(k->c, k->n + 1, sizeof(*grown)) : NULL;
    if (!grown) {
        return;
    }
    k->c = grown;
    k->c[k->n] = (struct shell_candidate){.word = hv_asprintf("%.*s", (int)len, word), .what = what ? hv_strdup(what) : NULL};
    if (k->c[k->n].word) {
        k->n++;
    } else {
        free(k->c[k->n].what);
    }
}

void shell_candidates_fini(struct shell_candidates *k)
{
    for (unsigned i = 0; i < k->n; i++) {
        free(k->c[i].word);
        free(k->c[i].what);
    }
    free(k->c);
    *k = (struct shell_candidates){0};
}

size_t shell_common(const struct shell_candidates *k)
{
    size_t len = k->n ? strlen(k->c[0].word) : 0;
    for (unsigned i = 1; i < k->n; i++) {
        size_t same = 0;
        while (same < len && k->c[i].word[same] == k->c[0].word[same]) {
            same++;
        }
        len = same;
    }
    /* Not in the middle of a character. */
    while (len && ((unsigned char)k->c[0].word[len] & 0xc0) == 0x80) {
        len--;
    }
    return len;
}

/* ---- files ---- */

static bool fits(const char *name, const char *patterns)
{
    for (const char *p = patterns; p && *p;) {
        char one[64];
        size_t n = strcspn(p, "| ");
        snprintf(one, sizeof(one), "%.*s", (int)MIN(n, sizeof(one) - 1), p);
        if (fnmatch(one, name, 0) == 0) {
            return true;
        }
        p += n + (p[n] != '\0');
    }
    return !patterns;
}

static int by_word(const void *a, const void *b)
{
    return strcmp(((const struct shell_candidate *)a)->word, ((const struct shell_candidate *)b)->word);
}

/* patterns: "*.vhdx|*.vhd"; "" is folders only, NULL everything. */
void shell_files(const char *prefix, const char *patterns, struct shell_candidates *ret)
{
    const char *slash = strrchr(prefix, '/'), *base = slash ? slash + 1 : prefix;
    hv_autofree char *dir = slash ? hv_asprintf("%.*s", (int)(base - prefix), prefix) : hv_strdup("./");
    DIR *d = dir ? opendir(dir) : NULL;
    unsigned folders = 0;
    if (!d) {
        return;
    }
    for (struct dirent *de; (de = readdir(d));) {
        struct stat st;
        if (strncmp(de->d_name, base, strlen(base)) != 0 || (de->d_name[0] == '.' && base[0] != '.') ||
            strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
            fstatat(dirfd(d), de->d_name, &st, 0) < 0) {
            continue;
        }
        bool folder = S_ISDIR(st.st_mode);
        bool clean = true;
        for (const char *p = de->d_name; *p; p++) {
            clean = clean && (unsigned char)*p >= 0x20 && *p != 0x7f;
        }
        if (clean && (folder || fits(de->d_name, patterns))) {
            hv_autofree char *word = hv_asprintf("%.*s%s%s", (int)(base - prefix), prefix, de->d_name, folder ? "/" : "");
            if (word) {
                add(ret, word, strlen(word), NULL);
                folders += folder;
            }
        }
    }
    closedir(d);
    qsort(ret->c, ret->n, sizeof(*ret->c), by_word);
    ret->partial = ret->n == 1 && folders == 1;
}

/* ---- words ---- */

/* In the child: candidates on stdout, as the shells get them. */
static void be_engine(struct shell *s, char *const *words, unsigned n, int out)
{
    struct cli_call c;
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0) {
        _exit(1);
    }
    cli_call_init(&c, s->c->tool);
    c.host = s->c->host;
    cli_complete(&c, "fish", (int)n, words);
    fflush(stdout);
    _exit(0);
}

static char *ask_engine(struct shell *s, char *const *words, unsigned n)
{
    strbuf_auto sb = {0};
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0) {
        return NULL;
    }
    int pid = shell_fork(NULL);
    if (pid == 0) {
        be_engine(s, words, n, p[1]);
    }
    close(p[1]);
    for (;;) {
        char buf[4096];
        ssize_t got = pid < 0 ? 0 : read(p[0], buf, sizeof(buf));
        if (got > 0) {
            strbuf_add(&sb, buf, (size_t)got);
        } else if (got == 0 || errno != EINTR) {
            break;
        }
    }
    close(p[0]);
    if (pid > 0) {
        shell_reap(pid);
    }
    return strbuf_detach(&sb, NULL);
}

static void add_lines(char *text, const char *prefix, struct shell_candidates *ret)
{
    for (char *line = text, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end) {
            *end++ = '\0';
        }
        if (strncmp(line, ":file ", 6) == 0) {
            shell_files(prefix, strcmp(line + 6, "*") == 0 ? NULL : line + 6, ret);
        } else if (strcmp(line, ":dir") == 0) {
            shell_files(prefix, "", ret);
        } else {
            size_t len = strcspn(line, "\t");
            add(ret, line, len, line[len] ? line + len + 1 : NULL);
        }
    }
}

void shell_candidates(struct shell *s, char *const *words, unsigned n, struct shell_candidates *ret)
{
    const char *prefix = words[n - 1];
    char show[] = "show", *asked[] = {show, words[n - 1]};
    *ret = (struct shell_candidates){0};
    if (n == 1) {
        for (unsigned i = 0; shell_words[i][0]; i++) {
            if (strncmp(shell_words[i][0], prefix, strlen(prefix)) == 0) {
                add(ret, shell_words[i][0], strlen(shell_words[i][0]), shell_words[i][1]);
            }
        }
    }
    bool use = strcmp(words[0], "use") == 0 && n > 1;
    if (use && n > 2) {
        return;
    }
    /* A value behind its option's =: the part in front is not in the way of a file's name. */
    const char *eq = prefix[0] == '-' ? strchr(prefix, '=') : NULL;
    hv_autofree char *text = ask_engine(s, use ? asked : words, use ? 2 : n);
    if (text) {
        add_lines(text, eq ? eq + 1 : prefix, ret);
    }
    for (unsigned i = 0; eq && i < ret->n; i++) {
        if (strncmp(ret->c[i].word, prefix, (size_t)(eq + 1 - prefix)) != 0) {
            char *whole = hv_asprintf("%.*s%s", (int)(eq + 1 - prefix), prefix, ret->c[i].word);
            if (whole) {
                free(ret->c[i].word);
                ret->c[i].word = whole;
            }
        }
    }
    if (ret->n == 1) {
        size_t len = strlen(ret->c[0].word);
        ret->partial = ret->partial || (len && strchr("=:,", ret->c[0].word[len - 1]));
    }
}
