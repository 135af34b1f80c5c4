/* events: what happens on the host, as it happens. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "hv/base/units.h"
#include "hvctl/hvctl.h"

/* People read the local clock; programs get `time`, RFC 3339 in UTC. */
static const char *local_time(const json_t *row, const json_t *v, char *buf, size_t size)
{
    time_t t = (time_t)(json_integer_value(json_object_get(row, "time_ms")) / 1000);
    struct tm tm;
    localtime_r(&t, &tm);
    strftime(buf, size, "%F %T", &tm);
    return buf;
}

static enum cli_role severity_role(const json_t *row, const json_t *v)
{
    const char *s = json_string_value(json_object_get(row, "severity"));
    return !s ? ROLE_NONE : strcmp(s, "error") == 0 ? ROLE_ERROR : strcmp(s, "warning") == 0 ? ROLE_LOW : ROLE_NONE;
}

static const struct cli_column event_columns[] = {
    {"time", .width = 19, .unit = CLI_UNIT_TIME, .show = local_time, .help = "when it happened"},
    {"kind", .width = 6, .help = "state memory job disk net host config"},
    {"vm", .width = 12, .help = "which VM it is about"},
    {"severity", .width = 7, .role = severity_role, .help = "info, warning or error"},
    {"message", .role = severity_role, .help = "what happened"},
    {"hint", .help = "what to do about it"},
    {"uid", .unit = CLI_UNIT_NUMBER, .help = "who asked for it"},
    {"seq", .unit = CLI_UNIT_NUMBER, .help = "number of the event"},
    {0},
};
static const struct cli_columns event_table = {
    .col = event_columns, .defaults = "time,kind,vm,message", .name = "vm",
};

struct follow { struct cli_call *c; struct cli_printer p; uint64_t left; };

static int on_events(void *arg, json_t *reply)
{
    struct follow *f = arg;
    json_t *event;
    size_t i;
    json_array_foreach(json_object_get(reply, "events"), i, event) {
        char buf[40];
        json_int_t ms = json_integer_value(json_object_get(event, "time_ms"));
        json_t *row = json_object();
        json_object_set_new(row, "time", json_string(format_time_utc((uint64_t)ms * NS_PER_MS, buf, sizeof(buf))));
        json_object_update(row, event);
        unsigned before = f->p.rows;
        cli_stream_row(&f->p, row);
        bool printed = f->p.rows != before;
        json_decref(row);
        if (ferror(f->c->out) || (printed && f->c->count && --f->left == 0)) {
            return 1;
        }
    }
    return 0;
}

static int events(struct cli_call *c, struct hv_error *e)
{
    struct follow f = {.c = c, .left = c->count};
    struct conn *k = NULL;
    json_t *params = json_pack("{s:b}", "follow", true);
    const char *since = cli_text(c, "since", NULL), *kinds = cli_text(c, "kind", NULL);
    int64_t ms;

    int r = cli_printer_init(&f.p, c, &event_table, CLI_FMT_TABLE, e);
    if (r == 0 && since) {
        r = time_parse(since, "--since", hv_wall_ns(), &ms, e);
        if (r == 0) {
            json_object_set_new(params, "since_ms", json_integer(ms));
        }
    }
    for (const char *p = kinds; r == 0 && p && *p;) {
        size_t n = strcspn(p, ",");
        json_t *list = json_object_get(params, "kinds");
        if (!list) {
            list = json_array();
            json_object_set_new(params, "kinds", list);
        }
        json_array_append_new(list, json_stringn(p, n));
        p += n + (p[n] == ',');
    }
    for (unsigned i = 0; r == 0 && i < c->n_args; i++) {
        json_t *list = json_object_get(params, "names");
        if (!list) {
            list = json_array();
            json_object_set_new(params, "names", list);
        }
        json_array_append_new(list, json_string(c->args[i]));
    }
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r == 0) {
        r = conn_stream(k, "Events", json_incref(params), on_events, &f, e);
        cli_stream_end(&f.p);
        if (r < 0 && e->code == HV_TIMEOUT) {
            hv_fail(e, HV_TIMEOUT, "events", c->count ? "fewer than -n came in time" : "the time is up");
        }
    }
    json_decref(params);
    conn_close(k);
    cli_printer_fini(&f.p);
    return r < 0 ? r : 0;
}

static const struct cli_arg vms[] = {
    {"VM", CLI_VM, CLI_REPEAT | CLI_OPTIONAL, .help = "only about these"}, {0}};
static const struct cli_option options[] = {
    {.name = "kind", .type = CLI_LIST, .arg = "LIST", .values = "state|memory|job|disk|net|host|config",
     .help = "only these kinds: state,memory,job,disk,net,host,config"},
    {.name = "since", .type = CLI_TIME, .arg = "TIME", .help = "first what happened since: 22:20, 2026-11-20T22:20, 24h"},
    {0},
};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command events_commands[] = {
    {.noun = "events", .help = "print what happens, as it happens", .args = vms, .options = options,
     .use = CLI_USE_LIST | CLI_USE_STREAM, .columns = &event_table, .run = events,
     .examples = EXAMPLES({"hvctl events", "until Ctrl-C"},
                          {"hvctl events web1 --kind state --since 24h -o jsonl", "one object a line"})},
    {0},
};
