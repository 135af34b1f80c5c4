/* vm list --all-hosts: the VMs of every host of hv-hosts(5), asked at once, a thread each. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "hv/client/hosts.h"
#include "hvctl/hvctl.h"

#define HOSTS_MAX 256

struct one_host {
    struct cli_call call;           /* the user's, for this host */
    char *name;
    pthread_t thread;
    bool started;
    json_t *rows;                   /* NULL: it could not be asked, as error says */
    struct hv_error error;
};
struct all_hosts { struct one_host *host; unsigned n; const struct cli_call *c; };

static int add_host(void *arg, const struct host_line *h)
{
    struct all_hosts *a = arg;
    if (a->n < HOSTS_MAX) {
        struct one_host *o = &a->host[a->n];
        o->call = *a->c;
        o->name = hv_strdup(h->name);
        o->call.host = o->name;
        a->n += o->name != NULL;
    }
    return 0;
}

static void *ask(void *arg)
{
    struct one_host *o = arg;
    struct conn *k;
    json_t *reply, *vm;
    size_t i;
    int r = conn_open(&o->call, &k, &o->error);
    if (r < 0) {
        return NULL;
    }
    r = conn_call(k, "List", NULL, 0, &reply, &o->error);
    conn_close(k);
    if (r < 0) {
        return NULL;
    }
    o->rows = json_array();
    json_array_foreach(json_object_get(reply, "vms"), i, vm) {
        json_t *row = view_vm(vm);
        json_object_set_new(row, "host", json_string(o->name));
        json_array_append_new(o->rows, row);
    }
    json_decref(reply);
    return NULL;
}

/* Hosts that cannot be asked are said, and are missing: exit 10, or the reason's code if all are. */
static int sample(struct cli_call *c, void *arg, json_t **ret, struct hv_error *e)
{
    struct all_hosts *a = arg;
    unsigned failed = 0;
    json_t *rows = json_array();
    for (unsigned i = 0; i < a->n; i++) {
        struct one_host *o = &a->host[i];
        hv_error_clear(&o->error);
        o->rows = NULL;
        o->started = pthread_create(&o->thread, NULL, ask, o) == 0;
        if (!o->started) {
            ask(o);
        }
    }
    for (unsigned i = 0; i < a->n; i++) {
        struct one_host *o = &a->host[i];
        if (o->started) {
            pthread_join(o->thread, NULL);
        }
        if (o->rows) {
            json_array_extend(rows, o->rows);
            json_decref(o->rows);
            continue;
        }
        failed++;
        c->exit_code = failed == a->n ? (int)o->error.code : HV_PARTIAL;
        cli_print_error(c, &o->error);
    }
    *ret = rows;
    return 0;
}

int list_all_hosts(struct cli_call *c, const struct cli_columns *columns, struct hv_error *e)
{
    struct cli_printer p;
    struct all_hosts a = {.host = hv_alloc_array(HOSTS_MAX, sizeof(*a.host)), .c = c};
    bool table = c->format == CLI_FMT_DEFAULT || c->format == CLI_FMT_TABLE || c->format == CLI_FMT_CSV;
    if (c->n_args) {
        free(a.host);
        hv_fail(e, HV_USAGE, NULL, "names and --all-hosts exclude each other");
        hv_hint(e, "hvctl list --all-hosts -F name=%s", c->args[0]);
        return -EINVAL;
    }
    if (!a.host) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory");
    }
    if (!c->columns && table) {
        c->columns = "+host";
    }
    int r = cli_printer_init(&p, c, columns, CLI_FMT_TABLE, e);
    if (r == 0 && p.format == CLI_FMT_XML) {
        r = hv_fail(e, HV_UNSUPPORTED, "--output xml", "a document is of one host");
    }
    if (r == 0) {
        r = client_hosts_each(add_host, &a, e);
    }
    if (r == 0 && !a.n) {
        r = hv_fail(e, HV_NOT_FOUND, "--all-hosts", "no host has a name here");
        hv_hint(e, "man hv-hosts");
    }
    if (r == 0) {
        r = watch_rows(c, &p, sample, &a, false, e);
    }
    cli_printer_fini(&p);
    for (unsigned i = 0; i < a.n; i++) {
        free(a.host[i].name);
    }
    free(a.host);
    return r < 0 ? r : 0;
}
