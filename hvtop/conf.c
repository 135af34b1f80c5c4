/* hvtop.conf: `key = value` lines, # begins a comment. */
#include <errno.h>
#include <sys/stat.h>

#include "hv/base/strbuf.h"
#include "hv/base/units.h"
#include "hvtop/hvtop.h"
#include "hvtop/theme.h"

#define CONF_MAX (64 * KIB)

static char *conf_path(void)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (config && config[0] == '/') {
        return hv_asprintf("%s/hv/hvtop.conf", config);
    }
    return home && *home ? hv_asprintf("%s/.config/hv/hvtop.conf", home) : NULL;
}

/* What every key does; write appends the value as it is now. */
struct conf_target { struct ui *ui; const struct theme **theme; };

static int set_theme(struct conf_target *t, const char *v, struct hv_error *e)
{
    const struct theme *found = theme_find(v);
    if (!found) {
        return hv_fail(e, HV_USAGE, v, "no such theme");
    }
    *t->theme = found;
    return 0;
}
static void get_theme(const struct ui *ui, const struct theme *theme, struct strbuf *sb) { strbuf_adds(sb, theme->name); }

static int set_delay(struct conf_target *t, const char *v, struct hv_error *e)
{
    uint64_t ns;
    int r = parse_duration(v, "delay", &ns, e);
    if (r == 0 && (ns < UI_DELAY_MIN_NS || ns > UI_DELAY_MAX_NS)) {
        r = hv_fail(e, HV_USAGE, v, "a delay is between 100ms and 1h");
    }
    t->ui->delay_ns = r == 0 ? ns : t->ui->delay_ns;
    return r;
}
static void get_delay(const struct ui *ui, const struct theme *theme, struct strbuf *sb)
{
    strbuf_addf(sb, "%llums", (unsigned long long)(ui->delay_ns / NS_PER_MS));
}

static int set_span(struct conf_target *t, const char *v, struct hv_error *e)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ui_spans); i++) {
        if (strcmp(ui_spans[i].word, v) == 0) {
            t->ui->span = i;
            return 0;
        }
    }
    return hv_fail(e, HV_USAGE, v, "no such span: 1m 5m 1h 24h");
}
static void get_span(const struct ui *ui, const struct theme *theme, struct strbuf *sb) { strbuf_adds(sb, ui_spans[ui->span].word); }

static int set_header(struct conf_target *t, const char *v, struct hv_error *e)
{
    if (strcmp(v, "full") != 0 && strcmp(v, "folded") != 0) {
        return hv_fail(e, HV_USAGE, v, "header is full or folded");
    }
    t->ui->fold = v[1] == 'o';
    return 0;
}
static void get_header(const struct ui *ui, const struct theme *theme, struct strbuf *sb) { strbuf_adds(sb, ui->fold ? "folded" : "full"); }

static void get_sort(const struct ui_table_state *t, struct strbuf *sb) { strbuf_addf(sb, "%s%s", t->descending ? "-" : "", t->sort ? t->sort->key : "name"); }
#define TABLE_KEYS(name, i) \
    static int set_##name##_columns(struct conf_target *t, const char *v, struct hv_error *e) { return top_choose(&t->ui->table[i].keys, v, e); } \
    static int set_##name##_sort(struct conf_target *t, const char *v, struct hv_error *e) { return ui_set_sort(t->ui, i, v, e); } \
    static void get_##name##_columns(const struct ui *ui, const struct theme *theme, struct strbuf *sb) { strbuf_adds(sb, ui->table[i].keys); } \
    static void get_##name##_sort(const struct ui *ui, const struct theme *theme, struct strbuf *sb) { get_sort(&ui->table[i], sb); }
TABLE_KEYS(memory, 0)
TABLE_KEYS(cpu, 1)
TABLE_KEYS(disk, 2)

static const struct {
    const char *key;
    int (*set)(struct conf_target *t, const char *v, struct hv_error *e);
    void (*get)(const struct ui *ui, const struct theme *theme, struct strbuf *sb);
} keys[] = {
    {"theme", set_theme, get_theme},
    {"delay", set_delay, get_delay},
    {"span", set_span, get_span},
    {"header", set_header, get_header},
    {"memory.columns", set_memory_columns, get_memory_columns},
    {"memory.sort", set_memory_sort, get_memory_sort},
    {"cpu.columns", set_cpu_columns, get_cpu_columns},
    {"cpu.sort", set_cpu_sort, get_cpu_sort},
    {"disk.columns", set_disk_columns, get_disk_columns},
    {"disk.sort", set_disk_sort, get_disk_sort},
};

static char *trim(char *s)
{
    s += strspn(s, " \t");
    for (size_t n = strlen(s); n && strchr(" \t\r", s[n - 1]); n--) {
        s[n - 1] = '\0';
    }
    return s;
}

static int one_line(struct conf_target *t, char *line, struct hv_error *e)
{
    line = trim(line);
    char *eq = strchr(line, '=');
    if (!*line || *line == '#') {
        return 0;
    }
    if (!eq) {
        return hv_fail(e, HV_USAGE, line, "a line is KEY = VALUE");
    }
    *eq = '\0';
    char *key = trim(line), *value = trim(eq + 1);
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strcmp(keys[i].key, key) == 0) {
            return keys[i].set(t, value, e);
        }
    }
    return hv_fail(e, HV_USAGE, key, "no such key");
}

int conf_load(struct ui *ui, const struct theme **theme, struct hv_error *e)
{
    hv_autofree char *path = conf_path(), *text = NULL;
    struct conf_target t = {ui, theme};
    int got = path ? hv_read_file(path, CONF_MAX, &text, NULL) : -ENOENT;
    if (got == -ENOENT || got == -ENOTDIR || got == -EACCES) {
        return 0;                      /* there is none, or none for us */
    }
    if (got < 0) {
        return hv_fail_errno(e, -got, path, "cannot read");
    }
    unsigned n = 0;
    for (char *line = text, *next; line; line = next) {
        struct hv_error why = {0};
        next = strchr(line, '\n');
        if (next) {
            *next++ = '\0';
        }
        n++;
        int r = one_line(&t, line, &why);
        if (r < 0) {
            char at[300];
            snprintf(at, sizeof(at), "%s:%u", path, n);
            hv_fail(e, HV_USAGE, at, "%s: %s", why.object[0] ? why.object : "nothing", why.message);
            hv_hint(e, "man hvtop.conf");
            return r;
        }
    }
    return 0;
}

int conf_save(const struct ui *ui, const struct theme *theme, char **ret_path, struct hv_error *e)
{
    hv_autofree char *path = conf_path();
    strbuf_auto sb = {0};
    if (!path) {
        return hv_fail(e, HV_FAILED, "hvtop.conf", "no home folder is known");
    }
    strbuf_adds(&sb, "# written by hvtop; hvtop.conf(5)\n");
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        strbuf_addf(&sb, "%s = ", keys[i].key);
        keys[i].get(ui, theme, &sb);
        strbuf_addc(&sb, '\n');
    }
    /* The folders above it, as a login would have them. */
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        int r = mkdir(path, 0700);
        *p = '/';
        if (r < 0 && errno != EEXIST) {
            return hv_fail_errno(e, errno, path, "cannot write");
        }
    }
    int r = sb.err ? -ENOMEM : hv_replace_file(path, sb.buf, sb.len, 0644);
    if (r < 0) {
        return hv_fail_errno(e, -r, path, "cannot write");
    }
    *ret_path = hv_steal(path);
    return 0;
}
