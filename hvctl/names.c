/* Completion of names. */
#include "hvctl/names.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

#include "hv/client/hosts.h"

#define LIMIT_MS 300

/* The shell waits: no answer is better than a late one. */
static void on_alarm(int sig)
{
    _exit(0);
}

static void start_alarm(void)
{
    struct itimerval t = {.it_value = {.tv_usec = LIMIT_MS * 1000}};
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &t, NULL);
}

static bool wanted(enum cli_type type, const char *state)
{
    bool off = strcmp(state, "off") == 0;
    return type == CLI_VM || (type == CLI_VM_OFF && off) || (type == CLI_VM_RUNNING && !off);
}

static void add_vms(struct conn *k, enum cli_type type, void (*add)(void *arg, const char *word, const char *what),
                    void *arg)
{
    json_t *reply, *vm;
    size_t i;
    if (conn_call(k, "List", json_pack("{s:[]}", "groups"), 0, &reply, NULL) < 0 &&
        conn_call(k, "List", NULL, 0, &reply, NULL) < 0) {
        return;
    }
    json_array_foreach(json_object_get(reply, "vms"), i, vm) {
        const char *name = json_string_value(json_object_get(vm, "name"));
        const char *state = json_string_value(json_object_get(vm, "state"));
        if (name && state && wanted(type, state)) {
            add(arg, name, state);
        }
    }
    json_decref(reply);
}

/* sign: "@" where a group stands for its VMs. */
static void add_groups(struct conn *k, const char *sign, void (*add)(void *arg, const char *word, const char *what), void *arg)
{
    json_t *reply, *group;
    size_t i;
    if (conn_call(k, "ListGroups", NULL, 0, &reply, NULL) < 0) {
        return;
    }
    json_array_foreach(json_object_get(reply, "groups"), i, group) {
        const char *name = json_string_value(json_object_get(group, "name"));
        hv_autofree char *word = hv_asprintf("%s%s", sign, name ? name : "");
        if (name && word) {
            add(arg, word, "a group");
        }
    }
    json_decref(reply);
}

static void add_jobs(struct conn *k, void (*add)(void *arg, const char *word, const char *what), void *arg)
{
    json_t *reply, *job;
    size_t i;
    if (conn_call(k, "ListJobs", NULL, 0, &reply, NULL) < 0) {
        return;
    }
    json_array_foreach(json_object_get(reply, "jobs"), i, job) {
        char id[32], what[200];
        snprintf(id, sizeof(id), "%" PRId64, (int64_t)json_integer_value(json_object_get(job, "id")));
        const char *verb = json_string_value(json_object_get(job, "verb"));
        const char *object = json_string_value(json_object_get(job, "object"));
        snprintf(what, sizeof(what), "%s %s", verb ? verb : "", object ? object : "");
        add(arg, id, what);
    }
    json_decref(reply);
}

struct offer { void (*add)(void *arg, const char *word, const char *what); void *arg; };

static int add_host(void *arg, const struct host_line *h)
{
    const struct offer *o = arg;
    o->add(o->arg, h->name, h->address);
    return 0;
}

void names_complete(struct cli_call *c, enum cli_type type, const char *prefix,
                    void (*add)(void *arg, const char *word, const char *what), void *arg)
{
    bool vm = type == CLI_VM || type == CLI_VM_OFF || type == CLI_VM_RUNNING;
    struct conn *k;
    if (type == CLI_HOST) {
        client_hosts_each(add_host, &(struct offer){add, arg}, NULL);
    }
    if (!vm && type != CLI_JOB && type != CLI_GROUP) {
        return;
    }
    start_alarm();
    if (conn_open_existing(c, &k) < 0) {
        return;
    }
    if (vm && prefix[0] == '@') {
        add_groups(k, "@", add, arg);
    } else if (vm) {
        add_vms(k, type, add, arg);
    } else if (type == CLI_GROUP) {
        add_groups(k, "", add, arg);
    } else {
        add_jobs(k, add, arg);
    }
    conn_close(k);
}
