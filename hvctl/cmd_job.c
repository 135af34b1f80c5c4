/* The noun job. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "hv/base/units.h"
#include "hvctl/hvctl.h"

static const struct cli_column job_columns[] = {
    {"id", .header = "JOB", .unit = CLI_UNIT_NUMBER, .help = "its number"},
    {"verb", .help = "what is done"},
    {"object", .cut = true, .help = "to whom"},
    {"state", .help = "running, done, failed, cancelled or interrupted (by an end of the service)"},
    {"progress_pct", .header = "DONE", .unit = CLI_UNIT_PCT, .help = "how far it is"},
    {"started", .unit = CLI_UNIT_TIME, .help = "when it began"},
    {"ended", .unit = CLI_UNIT_TIME, .help = "when it ended"},
    {"took_ms", .header = "TOOK", .unit = CLI_UNIT_AGE_MS, .help = "how long it took, or runs already"},
    {"error", "error.message", .help = "why it failed"},
    {0},
};
static const struct cli_columns job_table = {
    .col = job_columns, .defaults = "id,verb,object,state,progress_pct,started,took_ms", .sort = "-id", .name = "id",
};

/* Milliseconds become times for people and programs alike (RFC 3339), and a duration. */
static json_t *view_job(const json_t *job)
{
    json_t *o = json_deep_copy(job);
    char buf[40];
    json_int_t started = json_integer_value(json_object_get(job, "started_ms"));
    const json_t *ended = json_object_get(job, "ended_ms");
    json_int_t until = json_is_integer(ended) ? json_integer_value(ended) : (json_int_t)(hv_wall_ns() / NS_PER_MS);
    json_object_del(o, "started_ms");
    json_object_del(o, "ended_ms");
    json_object_set_new(o, "started", json_string(format_time_utc((uint64_t)started * NS_PER_MS, buf, sizeof(buf))));
    json_object_set_new(o, "ended", json_is_integer(ended)
                                        ? json_string(format_time_utc((uint64_t)until * NS_PER_MS, buf, sizeof(buf)))
                                        : json_null());
    json_object_set_new(o, "took_ms", json_integer(until > started ? until - started : 0));
    return o;
}

static int fetch_jobs(struct cli_call *c, void *arg, json_t **ret, struct hv_error *e)
{
    struct conn *k;
    json_t *reply, *job, *rows;
    size_t i;
    int r = conn_open(c, &k, e);
    if (r < 0) {
        return r;
    }
    r = conn_call(k, "ListJobs", NULL, 0, &reply, e);
    conn_close(k);
    if (r < 0) {
        return r;
    }
    rows = json_array();
    json_array_foreach(json_object_get(reply, "jobs"), i, job) {
        json_array_append_new(rows, view_job(job));
    }
    json_decref(reply);
    *ret = rows;
    return 0;
}

static int job_list(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    int r = cli_printer_init(&p, c, &job_table, CLI_FMT_TABLE, e);
    if (r == 0) {
        r = watch_rows(c, &p, fetch_jobs, NULL, false, e);
    }
    cli_printer_fini(&p);
    return r < 0 ? r : 0;
}

static int job_number(const char *text, json_int_t *ret, struct hv_error *e)
{
    uint64_t n;
    int r = parse_uint(text, "job", 1, INT64_MAX, &n, e);
    if (r == 0) {
        *ret = (json_int_t)n;
    }
    return r;
}

static int job_show(struct cli_call *c, struct hv_error *e)
{
    struct cli_printer p;
    json_t *rows, *job, *found = json_array();
    json_int_t id;
    size_t i;
    int r = job_number(c->args[0], &id, e);
    if (r == 0) {
        r = fetch_jobs(c, NULL, &rows, e);
    }
    if (r == 0) {
        json_array_foreach(rows, i, job) {
            if (json_integer_value(json_object_get(job, "id")) == id) {
                json_array_append(found, job);
            }
        }
        json_decref(rows);
        if (!json_array_size(found)) {
            r = hv_fail(e, HV_NOT_FOUND, c->args[0], "no such job");
            hv_hint(e, "hvctl job list");
        }
    }
    if (r == 0) {
        r = cli_printer_init(&p, c, &job_table, CLI_FMT_LIST, e);
        if (r == 0) {
            cli_print_rows(&p, found, true);
        }
        cli_printer_fini(&p);
    }
    json_decref(found);
    return r < 0 ? r : 0;
}

static int job_wait(struct cli_call *c, struct hv_error *e)
{
    unsigned failed = 0;
    struct hv_error first = {0};
    for (unsigned i = 0; i < c->n_args; i++) {
        struct conn *k;
        json_int_t id;
        struct hv_error why = {0};
        int r = job_number(c->args[i], &id, &why);
        if (r == 0) {
            r = conn_open(c, &k, &why);
        }
        if (r == 0) {
            json_t *reply = json_pack("{s:{s:I}}", "job", "id", id);
            r = job_follow(c, k, reply, NULL, NULL, &why);
            json_decref(reply);
            conn_close(k);
        }
        if (r == 0) {
            cli_note(c, "job %s: done", c->args[i]);
            continue;
        }
        if (c->n_args > 1) {
            cli_print_error(c, &why);
        }
        if (!failed++) {
            first = why;
        }
    }
    if (failed && c->n_args == 1) {
        *e = first;
        return -EIO;
    }
    c->exit_code = !failed ? HV_OK : failed == c->n_args ? (int)first.code : HV_PARTIAL;
    return 0;
}

static int job_cancel(struct cli_call *c, struct hv_error *e)
{
    struct conn *k;
    json_t *reply;
    json_int_t id = 0;
    int r = job_number(c->args[0], &id, e);
    if (r == 0) {
        r = conn_open(c, &k, e);
    }
    if (r < 0) {
        return r;
    }
    r = conn_call(k, "CancelJob", json_pack("{s:I}", "id", id), 0, &reply, e);
    if (r == 0) {
        json_decref(reply);
        r = conn_call(k, "WaitJob", json_pack("{s:I}", "id", id), 0, &reply, e);
    }
    if (r == 0) {
        const char *state = json_string_value(cli_json_path(reply, "job.state"));
        cli_note(c, "job %s: %s", c->args[0], state ? state : "ended");
        json_decref(reply);
    }
    conn_close(k);
    return r;
}

static const struct cli_arg one_job[] = {{"JOB", CLI_JOB, .help = "its number"}, {0}};
static const struct cli_arg jobs[] = {{"JOB", CLI_JOB, CLI_REPEAT, .help = "their numbers"}, {0}};

#define EXAMPLES(...) (const struct cli_example[]){__VA_ARGS__, {0}}

const struct cli_command job_commands[] = {
    {.noun = "job", .verb = "list", .help = "list running and recent jobs, newest first", .use = CLI_USE_LIST | CLI_USE_WATCH,
     .columns = &job_table, .run = job_list, .examples = EXAMPLES({"hvctl job list -F state=running", "those under way"})},
    {.noun = "job", .verb = "show", .help = "show one job", .args = one_job, .use = CLI_USE_LIST,
     .columns = &job_table, .codes = CODE(NOT_FOUND), .run = job_show,
     .examples = EXAMPLES({"hvctl job show 12", "why did it fail"})},
    {.noun = "job", .verb = "wait", .help = "wait until jobs have ended; exit as they did", .args = jobs,
     .codes = CODE(NOT_FOUND) | CODE(PARTIAL), .run = job_wait,
     .examples = EXAMPLES({"hvctl job wait $(hvctl start web1 --no-wait)", "start now, wait later"})},
    {.noun = "job", .verb = "cancel", .help = "end a start, a copy into a guest, or the wait for a shutdown, before its time", .args = one_job,
     .codes = CODE(NOT_FOUND) | CODE(CONFLICT), .run = job_cancel,
     .examples = EXAMPLES({"hvctl job cancel 12", "a guest that was asked to shut down may do it all the same"})},
    {0},
};
