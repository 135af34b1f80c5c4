/* Samples as text: for scripts, pipes, spreadsheets. And recording alone. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "hv/cli/column.h"
#include "hvtop/feed.h"
#include "hvtop/hvtop.h"
#include "hvtop/record.h"

/* Long form, the same keys whatever the screen shows; new ones only at the end. */
#define CSV_KEYS "time,host,name,state,assigned,demand,buffer_now_pct,buffer_pct,status,why,startup,min,max,priority,cpu_pct,cpus," \
                 "uptime_s,balloon,hot_added,resident,change,pressure_pct,target,committed,available,heartbeat,resets,pid,id," \
                 "read,write,iops,latency_us,queue,disk_used,disk_size,exits,hypercalls,interrupts,group"

struct batch {
    struct cli_call *c;
    struct top_source *s;
    struct cli_printer p;
    bool printing;
    uint64_t left;                          /* samples; 0: no limit */
    int signals, end_signal;
    bool nobody_reads;
    unsigned sampled;                       /* samples printed, of all hosts */
    uint64_t of_host[MODEL_HOSTS_MAX];      /* of each */
    bool gone[MODEL_HOSTS_MAX];             /* it does not answer, and nobody waits for it */
};

static int signals_begin(void)
{
    static const int wanted[] = {SIGINT, SIGTERM, SIGHUP};
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
        sigaddset(&set, wanted[i]);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

/* The rows of one host's sample, in the order and through the filter of the screen. */
static json_t *rows_of(struct ui *ui, unsigned host, bool json)
{
    json_t *rows = json_array(), *disk;
    size_t k;
    ui->view_stale = true;
    ui_order(ui);
    for (size_t i = 0; i < ui->n_view; i++) {
        json_t *row = ui->view[i]->row, *disks = json_object_get(row, "disks");
        if (ui->view[i]->host != host) {
            continue;
        }
        if (!json || !json_array_size(disks)) {
            json_array_append(rows, row);
            continue;
        }
        json_t *list = json_array();
        json_array_foreach(disks, k, disk) {
            json_array_append_new(list, top_disk_object(disk));
        }
        row = json_copy(row);
        json_object_set_new(row, "disks", list);
        json_array_append_new(rows, row);
    }
    return rows;
}

/* Every host that answers has had as many samples as are wanted. */
static bool enough(const struct batch *b)
{
    bool any = false;
    for (unsigned i = 0; b->left && i < b->s->n_hosts; i++) {
        if (b->of_host[i] < b->left && !b->gone[i]) {
            return false;
        }
        any = any || b->of_host[i] >= b->left;
    }
    return any;
}

/* One more sample of a host is there. True: it was the last that is wanted. */
static bool print_sample(struct batch *b, unsigned host)
{
    struct cli_call *c = b->c;
    struct model_host *h = &b->s->m->host[host];
    if (b->printing) {
        bool table = b->p.format == CLI_FMT_TABLE || b->p.format == CLI_FMT_WIDE;
        json_t *rows = rows_of(b->s->ui, host, b->p.format == CLI_FMT_JSON || b->p.format == CLI_FMT_JSONL), *row;
        size_t i;
        if (table) {
            char when[64];
            time_t t = (time_t)(h->sample_ms / 1000);
            struct tm tm;
            when[0] = '\0';
            if (localtime_r(&t, &tm)) {
                strftime(when, sizeof(when), "%F %T", &tm);
            }
            strbuf_auto name = {0};
            cli_clean(&name, h->name, cli_ascii(c));
            fprintf(c->out, "%s%s %s\n", b->sampled ? "\n" : "", when, name.buf ? name.buf : "");
            cli_print_rows(&b->p, rows, false);
        } else {
            json_array_foreach(rows, i, row) {
                cli_stream_row(&b->p, row);
            }
            fflush(c->out);
        }
        json_decref(rows);
    }
    b->sampled++;
    b->of_host[host]++;
    b->gone[host] = false;
    return enough(b);
}

/* Takes msg. 1: enough. */
static int take(struct batch *b, json_t *msg, struct hv_error *e)
{
    bool sample = json_object_get(msg, "rows") != NULL, down = json_object_get(msg, "down") != NULL;
    json_int_t host = json_integer_value(json_object_get(msg, "host"));
    int r = top_take(b->s, msg, e);
    if (r < 0 || host < 0 || host >= (json_int_t)b->s->n_hosts) {
        return r;
    }
    if (!sample) {
        b->gone[host] = b->gone[host] || down;
        return !b->s->replay && enough(b);
    }
    bool last = print_sample(b, (unsigned)host);
    b->nobody_reads = ferror(b->c->out) && errno == EPIPE;
    return last || ferror(b->c->out);
}

static int replay_all(struct batch *b, struct hv_error *e)
{
    if (b->s->from_ms) {
        replay_seek(b->s->replay, (uint64_t)b->s->from_ms);
    }
    int r = 0;
    for (json_t *msg; r == 0 && (msg = replay_next(b->s->replay));) {
        json_int_t t = json_integer_value(json_object_get(msg, "time_ms"));
        if (t > 0 && t < b->s->from_ms) {
            top_take(b->s, msg, NULL);
        } else {
            r = take(b, msg, e);
        }
    }
    return r;
}

static void warn_down(struct batch *b, unsigned host, const char *why)
{
    const char *name = b->s->m->host[host].name;
    size_t n = strlen(name);
    bool said = n && strncmp(why, name, n) == 0 && strncmp(why + n, ": ", 2) == 0;
    cli_warn(b->c, name, "%s", said ? why + n + 2 : why);
}

static int live(struct batch *b, struct hv_error *e)
{
    struct top_source *s = b->s;
    bool reached = false;
    for (;;) {
        for (json_t *msg; (msg = feed_next(s->feed));) {
            const char *down = json_string_value(json_object_get(msg, "down"));
            json_int_t host = json_integer_value(json_object_get(msg, "host"));
            if (down && s->n_hosts > 1 && !b->gone[host % MODEL_HOSTS_MAX]) {      /* once: it is asked again every second */
                warn_down(b, (unsigned)host % MODEL_HOSTS_MAX, down);
            } else if (down && reached && s->n_hosts == 1) {
                warn_down(b, 0, down);
            }
            reached = reached || json_object_get(msg, "rows");
            int r = take(b, msg, e);
            if (r != 0) {
                return r;
            }
        }
        if (!reached && feed_none_reached(s->feed, e)) {
            return -ECONNREFUSED;
        }
        uint64_t now = hv_now_ns();
        if (s->stop_at_ns && now >= s->stop_at_ns) {
            return 0;
        }
        uint64_t wait = s->stop_at_ns ? s->stop_at_ns - now : 60 * NS_PER_SEC;
        struct timespec ts = {(time_t)(wait / NS_PER_SEC), (long)(wait % NS_PER_SEC)};
        struct pollfd p[] = {{.fd = feed_fd(s->feed), .events = POLLIN}, {.fd = b->signals, .events = POLLIN},
                             {.fd = STDOUT_FILENO, .events = 0}};
        if (ppoll(p, 2 + b->printing, &ts, NULL) < 0 && errno != EINTR) {
            return hv_fail_errno(e, errno, NULL, "cannot wait");
        }
        struct signalfd_siginfo si;
        if (p[1].revents && read(b->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
            b->end_signal = (int)si.ssi_signo;
            return 0;
        }
        if (p[2].revents & (POLLERR | POLLNVAL)) {
            b->nobody_reads = true;
            return 0;
        }
    }
}

static int run(struct batch *b, struct hv_error *e)
{
    struct top_source *s = b->s;
    b->signals = signals_begin();
    signal(SIGPIPE, SIG_IGN);
    int r = b->signals < 0 ? hv_fail_errno(e, -b->signals, NULL, "cannot read signals") : 0;
    if (r == 0 && s->replay) {
        r = replay_all(b, e);
    } else if (r == 0) {
        struct feed_options o = {s->host, s->n_hosts, s->ui->delay_ns, s->recorder != NULL};
        r = feed_start(&o, &s->feed, e);
        r = r == 0 ? live(b, e) : r;
        feed_stop(s->feed);
        s->feed = NULL;
    }
    if (b->signals >= 0) {
        close(b->signals);
    }
    if (b->nobody_reads) {                  /* no news to the one who closed the pipe */
        clearerr(b->c->out);
        b->c->exit_code = HV_FAILED;
    }
    if (r >= 0 && b->end_signal) {
        b->c->exit_code = 128 + b->end_signal;
    }
    return MIN(r, 0);
}

/* The columns of a screen that is a table, without what is drawn: "name,read,write". NULL: the usual ones. */
static char *columns_of_screen(const struct top_source *s)
{
    unsigned table = ui_table_index(s->ui->screen);
    strbuf_auto sb = {0};
    if (table == 0 || table >= UI_TABLES) {
        return NULL;
    }
    for (const char *p = s->ui->table[table].keys; *p;) {
        size_t n = strcspn(p, ",");
        bool drawn = n == 5 && memcmp(p, "trend", 5) == 0, host = n == 4 && memcmp(p, "host", 4) == 0;
        if (!drawn && !(host && s->n_hosts == 1)) {
            strbuf_adds(&sb, sb.len ? "," : "");
            strbuf_add(&sb, p, n);
        }
        p += n + (p[n] == ',');
    }
    return sb.err || !sb.len ? NULL : strbuf_detach(&sb, NULL);
}

/* A VM that was named as it is written, and that no sample had. */
static int nothing_missing(const struct top_source *s, const struct model *m, struct hv_error *e)
{
    for (unsigned k = 0; k < s->ui->n_only; k++) {
        const char *name = s->ui->only[k];
        bool found = strpbrk(name, "*?[") != NULL;
        for (size_t i = 0; i < m->n_vms && !found; i++) {
            found = strcmp(m->vm[i]->name, name) == 0 || strcasecmp(name, model_text(m->vm[i], "", "id")) == 0;
        }
        if (!found) {
            return hv_fail(e, HV_NOT_FOUND, name, "no such VM");
        }
    }
    return 0;
}

int top_batch(struct cli_call *c, struct top_source *s, struct hv_error *e)
{
    struct batch b = {.c = c, .s = s, .printing = true, .left = c->count};
    const char *columns = c->columns, *sort = c->sort, *filter = c->filter;
    if (!s->explicit_batch && !b.left && !s->stop_at_ns) {
        b.left = 1;
    }
    hv_autofree char *screen = columns_of_screen(s);
    if (!columns && c->format == CLI_FMT_CSV) {
        c->columns = CSV_KEYS;
    } else if (!columns && screen && (c->format == CLI_FMT_TABLE || c->format == CLI_FMT_DEFAULT)) {
        c->columns = screen;
    } else if (!columns && s->n_hosts > 1) {
        c->columns = "+host";
    }
    /* Order and filter are the screen's own. */
    c->sort = c->filter = NULL;
    int r = cli_printer_init(&b.p, c, &top_columns, CLI_FMT_TABLE, e);
    b.p.sort = NULL;
    b.p.chosen = columns != NULL || c->format == CLI_FMT_CSV;
    if (r == 0) {
        r = run(&b, e);
        cli_stream_end(&b.p);
    }
    if (r >= 0 && b.sampled && !b.nobody_reads && !b.end_signal) {
        r = nothing_missing(s, s->m, e);
    }
    cli_printer_fini(&b.p);
    c->columns = columns;
    c->sort = sort;
    c->filter = filter;
    return MIN(r, 0);
}

int top_record(struct cli_call *c, struct top_source *s, struct hv_error *e)
{
    struct batch b = {.c = c, .s = s, .left = c->count};
    return run(&b, e);
}
