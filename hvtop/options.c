/* The command as the table of the tool has it, and what its options mean. */
#include <errno.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "hv/cli/term.h"
#include "hv/client/hosts.h"
#include "hvtop/hvtop.h"
#include "hvtop/record.h"
#include "hvtop/screen_term.h"
#include "hvtop/theme.h"

/* "22:20" and "2026-11-20T22:20" on the day of the recording, or "2h" before its end. */
static int parse_from(struct replay *r, const char *text, int64_t *ret_ms, struct hv_error *e)
{
    uint64_t first = replay_first_ms(r), last = replay_last_ms(r), ns;
    time_t t = (time_t)(first / 1000);
    struct tm tm;
    char object[100];
    snprintf(object, sizeof(object), "--from-time %s", text);
    if (!localtime_r(&t, &tm)) {
        return hv_fail(e, HV_FAILED, object, "the recording has no time");
    }
    tm.tm_sec = 0;
    struct tm first_day = tm;
    const char *end = strptime(text, "%Y-%m-%dT%H:%M", &tm);
    bool day = end != NULL;
    if (!end) {
        tm = first_day;               /* what did not fit was written to it as far as it went */
        end = strptime(text, "%H:%M", &tm);
    }
    if (end && *end == ':') {
        end = strptime(end, ":%S", &tm);
    }
    if (end && *end == '\0') {
        tm.tm_isdst = -1;
        int64_t ms = (int64_t)mktime(&tm) * 1000;
        /* A clock time before the beginning is meant on the next day. */
        *ret_ms = !day && ms < (int64_t)first - 60000 && ms + 86400000 <= (int64_t)last ? ms + 86400000 : ms;
        return 0;
    }
    if (parse_duration(text, object, &ns, NULL) == 0) {
        *ret_ms = (int64_t)(last > ns / NS_PER_MS ? last - ns / NS_PER_MS : 0);
        return 0;
    }
    hv_fail(e, HV_USAGE, object, "no time");
    hv_hint(e, "--from-time 22:20, 2026-11-20T22:20, or 2h for two hours before its end");
    return -EINVAL;
}

/* The recording that ships with hvtop: beside it in a build, else where it was installed. */
static int open_sample(struct replay **ret, struct hv_error *e)
{
    char path[4200];
    ssize_t n = readlink("/proc/self/exe", path, 4096);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash) {
        hv_strlcpy(slash, "/../share/hv/sample.hvrec", sizeof(path) - (size_t)(slash - path));
    }
    if (!slash || access(path, R_OK) < 0) {
        hv_strlcpy(path, HV_PREFIX "/share/hv/sample.hvrec", sizeof(path));
    }
    return replay_open(path, ret, e);
}

static int open_replay(struct cli_call *c, struct top_source *s, struct hv_error *e)
{
    const char *file = cli_text(c, "replay", NULL), *from = cli_text(c, "from-time", NULL);
    bool sample = cli_has(c, "sample");
    if (!cli_has(c, "replay")) {
        if (sample || from || cli_has(c, "speed")) {
            hv_fail(e, HV_USAGE, sample ? "--sample" : from ? "--from-time" : "--speed", "goes with --replay");
            hv_hint(e, sample ? "hvtop --replay --sample" : "hvtop --replay FILE");
            return -EINVAL;
        }
        return 0;
    }
    if (cli_has(c, "record") || cli_has(c, "host") || sample == (file != NULL)) {
        int r = hv_fail(e, HV_USAGE, "--replay", cli_has(c, "record") ? "cannot be recorded"
                        : sample && file ? "FILE and --sample exclude each other" : !file && !sample ? "a file is missing"
                        : "a recording knows its hosts: no --host");
        hv_hint(e, "hvtop --replay FILE, or hvtop --replay --sample");
        return r;
    }
    int r = sample ? open_sample(&s->replay, e) : replay_open(file, &s->replay, e);
    if (r == 0 && from) {
        r = parse_from(s->replay, from, &s->from_ms, e);
    }
    if (r == 0) {
        s->n_hosts = replay_hosts(s->replay);
        for (unsigned i = 0; i < s->n_hosts; i++) {
            s->host[i] = replay_host(s->replay, i);
        }
    }
    return r;
}

static int add_host(struct top_source *s, const char *name, struct hv_error *e)
{
    if (s->n_hosts == MODEL_HOSTS_MAX) {
        return hv_fail(e, HV_USAGE, "--host", "more than %d", MODEL_HOSTS_MAX);
    }
    s->host[s->n_hosts++] = name;
    return 0;
}

struct group { struct top_source *s; const char *name; struct hv_error *e; };

static int add_member(void *arg, const struct host_line *h)
{
    static HV_UNUSED char *owned[MODEL_HOSTS_MAX];     /* the file's text goes; these stay until the end */
    struct group *g = arg;
    size_t len = strlen(g->name);
    for (const char *p = h->groups; (p = strstr(p, g->name)); p += len) {
        if ((p == h->groups || strchr(" \t", p[-1])) && (!p[len] || strchr(" \t", p[len]))) {
            unsigned at = g->s->n_hosts;
            char *name = hv_strdup(h->name);
            int r = name ? add_host(g->s, name, g->e) : hv_fail(g->e, HV_NO_RESOURCES, NULL, "out of memory");
            if (r < 0) {
                free(name);
                return r;
            }
            owned[at] = name;
            return 0;
        }
    }
    return 0;
}

static int hosts(struct cli_call *c, struct top_source *s, struct hv_error *e)
{
    const struct cli_value *v;
    for (unsigned i = 0; (v = cli_opt_nth(c, "host", i)); i++) {
        unsigned before = s->n_hosts;
        int r = v->text[0] == '@' ? client_hosts_each(add_member, &(struct group){s, v->text, e}, e) : add_host(s, v->text, e);
        if (r == 0 && s->n_hosts == before) {
            r = hv_fail(e, HV_NOT_FOUND, v->text, "no host of hv-hosts(5) is in this group");
        }
        if (r < 0) {
            return r;
        }
    }
    if (!s->n_hosts) {
        s->host[s->n_hosts++] = c->host;        /* $HV_HOST, or NULL: the default */
    }
    return 0;
}

static int set_up(struct cli_call *c, struct ui *ui, struct top_source *s, struct hv_error *e)
{
    const char *screen = cli_text(c, "screen", NULL), *theme = cli_text(c, "theme", NULL);
    int r = conf_load(ui, &s->theme, e);
    for (unsigned i = 0; screen && i < UI_SCREEN_COUNT; i++) {
        ui->screen = strcmp(ui_screen_words[i], screen) == 0 ? (enum ui_screen)i : ui->screen;
    }
    unsigned table = ui_table_index(ui->screen) % UI_TABLES;       /* of the screen it begins with */
    if (r == 0 && c->columns) {
        r = top_choose(&ui->table[table].keys, c->columns, e);
    }
    if (r == 0 && c->sort) {
        r = ui_set_sort(ui, table, c->sort, e);
    }
    if (r == 0 && c->filter) {
        r = ui_set_filter_strict(ui, c->filter, e);
    }
    if (cli_has(c, "delay")) {
        ui->delay_ns = MIN(MAX(c->delay_ns, UI_DELAY_MIN_NS), UI_DELAY_MAX_NS);
    }
    if (theme) {
        s->theme = theme_find(theme);
    } else if (!cli_color_on(c)) {
        s->theme = theme_find("mono");
    }
    ui->read_only = cli_has(c, "read-only");
    ui->only = c->args;
    ui->n_only = c->n_args;
    ui->replay = s->replay != NULL;
    ui->speed = (double)cli_number(c, "speed", cli_has(c, "sample") ? 60 : 1);      /* its samples are a minute apart */
    ui->recording = cli_text(c, "record", NULL);
    return r;
}

static int run(struct cli_call *c, struct top_source *s, struct hv_error *e)
{
    static struct model model;                  /* large */
    struct ui ui;
    const char *names[MODEL_HOSTS_MAX], *record = cli_text(c, "record", NULL), *term = getenv("TERM");
    for (unsigned i = 0; i < s->n_hosts; i++) {
        names[i] = s->host[i] ? s->host[i] : "";
    }
    model_init(&model, names, s->n_hosts);
    int r = ui_init(&ui, &model);
    if (r < 0) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    s->m = &model;
    s->ui = &ui;
    s->theme = &top_themes[0];
    r = set_up(c, &ui, s, e);
    if (r == 0 && record) {
        r = recorder_open(record, s->n_hosts, &s->recorder, e);
    }
    uint64_t stop = cli_number(c, "stop-after", 0);
    s->stop_at_ns = stop ? hv_now_ns() + stop : 0;
    s->explicit_batch = c->batch || c->count;
    bool screen = c->tty_out && c->tty_in && !c->batch && c->format == CLI_FMT_DEFAULT;
    if (screen && !term_usable()) {
        screen = false;
        if (term && *term && strcmp(term, "dumb") != 0 && r == 0) {
            cli_warn(c, term, "no such terminal type, or it has no cursor: this is one sample");
            cli_try(c, "TERM=xterm hvtop");
        }
    }
    if (r == 0) {
        r = screen ? top_run(c, s, e) : record && !c->batch ? top_record(c, s, e) : top_batch(c, s, e);
    }
    int closed = recorder_close(s->recorder, e);
    ui_fini(&ui);
    model_fini(&model);
    return r < 0 ? r : closed;
}

/* Columns of the manual's grammar that no service of this version fills. */
static int columns_are_built(const char *option, const char *list, struct hv_error *e)
{
    static const char *const later[] = {"limit", "reserve", "weight", "steal", "node", "switch", "rx", "tx", "packets", "drops", "addresses"};
    for (const char *p = list ? list : ""; *p;) {
        p += *p == '+' || *p == '-';
        size_t n = strcspn(p, ",");
        for (unsigned i = 0; i < ARRAY_SIZE(later); i++) {
            if (strlen(later[i]) == n && memcmp(later[i], p, n) == 0) {
                hv_autofree char *object = hv_asprintf("%s %s", option, later[i]);
                int r = hv_fail(e, HV_UNSUPPORTED, object ? object : option, "not in this version");
                hv_hint(e, "man hvtop");
                return r;
            }
        }
        p += n + (p[n] == ',');
    }
    return 0;
}

static int hvtop(struct cli_call *c, struct hv_error *e)
{
    struct top_source s = {0};
    if (c->columns && strcmp(c->columns, "help") == 0) {
        struct cli_printer p;
        int r = cli_printer_init(&p, c, &top_columns, CLI_FMT_TABLE, e);
        cli_printer_fini(&p);
        return MIN(r, 0);
    }
    int r = columns_are_built("--columns", c->columns, e);
    r = r == 0 ? columns_are_built("--sort", c->sort, e) : r;
    r = r == 0 ? open_replay(c, &s, e) : r;
    if (r == 0 && !s.replay) {
        r = hosts(c, &s, e);
    }
    if (r == 0) {
        r = run(c, &s, e);
    }
    replay_close(s.replay);
    return r;
}

static const struct cli_arg vms[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OPTIONAL, .help = "only these; names, GUIDs, globs in quotes"}, {0}};

static const struct cli_option options[] = {
    {.name = "record", .type = CLI_FILE, .arg = "FILE", .values = "*.hvrec", .help = "write what is seen to FILE, to be replayed"},
    {.name = "stop-after", .type = CLI_DURATION, .arg = "DURATION", .help = "end after so long"},
    {.name = "replay", .type = CLI_FILE, .arg = "FILE", .flags = CLI_VALUE_OPTIONAL | CLI_VALUE_NEXT, .values = "*.hvrec",
     .help = "show a recording instead of what happens now"},
    {.name = "sample", .type = CLI_BOOL, .help = "with --replay: the recording that ships with hvtop"},
    {.name = "from-time", .type = CLI_TIME, .arg = "TIME", .help = "with --replay: begin there; 22:20, 2026-11-20T22:20, 2h before its end"},
    {.name = "speed", .type = CLI_UINT, .arg = "N", .max = 1000, .help = "with --replay: so many times as fast (1; the sample 60); 0 stands still"},
    {.name = "screen", .type = CLI_ENUM, .arg = "NAME", .def = "memory", .values = "memory|cpu|disk|net|host|events", .later = "net",
     .help = "begin with this screen: memory cpu disk host events"},
    {.name = "theme", .type = CLI_ENUM, .arg = "NAME", .def = "default", .values = TOP_THEME_WORDS,
     .help = "colours: default mono high-contrast safe light"},
    {.name = "read-only", .type = CLI_BOOL, .help = "keys that change things are off"},
    {.name = "no-mouse", .type = CLI_BOOL, .help = "leave the mouse to the terminal"},
    {0},
};

static const struct cli_command commands[] = {
    {.noun = "hvtop", .help = "virtual machines, their memory and processors, live", .args = vms, .options = options,
     .use = CLI_USE_LIST | CLI_USE_SAMPLE, .columns = &top_columns, .codes = 1u << HV_NOT_FOUND | 1u << HV_CONFLICT | 1u << HV_UNSUPPORTED,
     .run = hvtop,
     .examples = (const struct cli_example[]){
         {"hvtop", "what happens on this host"},
         {"hvtop -s -demand -F state=running", "those that run, the neediest first"},
         {"hvtop -b -n 1 -o csv > now.csv", "one sample for a spreadsheet"},
         {"hvtop --record tuesday.hvrec --stop-after 24h", "keep a day"},
         {"hvtop --replay tuesday.hvrec --from-time 22:20 --speed 10", "look at it again"},
         {0}}},
    {0},
};

static const struct cli_noun nouns[] = {{"hvtop", NULL, "virtual machines, their memory and processors, live", commands}, {0}};

struct offer { void (*add)(void *arg, const char *word, const char *what); void *arg; };

static int offer_host(void *arg, const struct host_line *h)
{
    const struct offer *o = arg;
    o->add(o->arg, h->name, h->address);
    return 0;
}

/* hvctl knows the names. */
static void complete_names(struct cli_call *c, enum cli_type type, const char *prefix,
                           void (*add)(void *arg, const char *word, const char *what), void *arg)
{
    if (type == CLI_HOST) {
        client_hosts_each(offer_host, &(struct offer){add, arg}, NULL);
    } else if (type == CLI_VM) {
        child_vm_names(c->host ? c->host : "", prefix, add, arg);
    }
}

const struct cli_tool hvtop_tool = {
    .name = "hvtop",
    .help = "virtual machines, their memory and processors, live",
    .nouns = nouns,
    .one_command = true,
    .many_hosts = true,
    .later_hint = "man hvtop",
    .complete = complete_names,
};
