/*
 * The link to one worker process: making it, setting it up, hearing from it, and
 * taking over those of an earlier hvd (DESIGN 8 to 10).
 *
 *   spawn ─▶ Hello ─▶ Setup (+ descriptors) ─▶ Watch on a second connection ─▶ Start ─▶ job done
 *
 * A worker says how its VM ended in the last report and in its exit note; then its process
 * goes. Only the end of the process (pidfd) makes the VM off: until then its memory is in use.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/rpc/loop_uv.h"
#include "hv/rpc/rows.h"
#include "hv/service/service.h"

#define PROBE_LIMIT_MS 5000
#define ASKS_MAX 96                    /* calls at a time that a guest takes its time over: it queues fewer itself */

/* One of them. */
struct worker_ask {
    struct worker_link *l;
    struct varlink_conn *conn;
    varlink_reply_fn *fn;
    void *arg;
    bool finishing;                    /* the connection is being freed already */
    struct worker_ask *next;
};

struct worker_link {
    struct svc_vm *vm;                 /* NULL: the VM is gone, waiting for the process */
    pid_t pid;
    int pidfd;
    bool child;                        /* ours to reap */
    char socket[HV_PATH_SIZE + 64];
    struct varlink_conn *commands, *reports;
    struct worker_ask *asks;
    struct handover fds;               /* until Setup */
    struct varlink_peer peer;          /* who asked for the start: opens the disks */
    unsigned next_lun;                 /* of the disks that are still to be attached */
    uid_t uid;                         /* its lease */
    bool adopting;                     /* counted in svc->adopting */
    json_t *sandbox;
    char build[32];                    /* version of its program */
    bool sends_rows;                   /* it knows how to send numbers alone */
    struct rows runtime;               /* the last report, for these */
    struct log_ratelimit event_rate;   /* what a guest can cause, and a worker gone bad can invent */
    bool paused;
    int64_t start_job;                 /* 0: none */
    char exit_word[32], exit_text[240];
    struct hv_error failure;        /* of its start; code 0: none */
};

pid_t worker_pid(const struct svc_vm *vm) { return vm->link ? vm->link->pid : 0; }

int64_t worker_start_job(const struct svc_vm *vm) { return vm->link ? vm->link->start_job : 0; }

json_t *worker_sandbox(const struct svc_vm *vm) { return vm->link ? vm->link->sandbox : NULL; }

void worker_link_free(struct worker_link *l)
{
    if (!l)
        return;
    varlink_conn_free(l->commands);
    varlink_conn_free(l->reports);
    for (struct worker_ask *a = l->asks, *next; a; a = next) {
        next = a->next;
        varlink_conn_free(a->conn);
        free(a);
    }
    rows_fini(&l->runtime);
    handover_close(&l->fds);
    hv_cleanup_close(&l->pidfd);
    json_decref(l->sandbox);
    free(l);
}

static void end_start_job(struct worker_link *l, const struct hv_error *e)
{
    if (!l->start_job || !l->vm)
        return;
    struct job *job = job_find(l->vm->svc, l->start_job);
    l->start_job = 0;
    if (job)
        job_done(job, e);
}

const char *worker_build(const struct svc_vm *vm) { return vm->link && vm->link->build[0] ? vm->link->build : NULL; }

static void note_worker(struct worker_link *l, const json_t *hello)
{
    const char *build = json_string_value(json_object_get(hello, "build"));
    hv_strlcpy(l->build, build ? build : "", sizeof(l->build));
    l->sends_rows = json_integer_value(json_object_get(hello, "version")) >= WORKER_API_ROWS;
}

/* ---- the end of a worker ---- */

static const struct { const char *word, *text; } exit_texts[] = {
    {"power-off", "the guest powered off"},   {"reset", "the guest rebooted"},
    {"crash", "the guest crashed"},           {"turned-off", "turned off"},
    {"error", "it could not go on"},          {"exit-code", "the guest wrote its exit port"},
};

/* What it wrote of its end, where no report came through. */
static void read_exit(struct worker_link *l, const json_t *o)
{
    const char *word = json_string_value(json_object_get(o, "reason"));
    const char *text = json_string_value(json_object_get(o, "message"));
    hv_strlcpy(l->exit_word, word ? word : "", sizeof(l->exit_word));
    hv_strlcpy(l->exit_text, text ? text : "", sizeof(l->exit_text));
}

/* Nothing of the worker is left: its files, its user, its place among those taken over. */
static void clear_away(struct worker_link *l)
{
    record_remove(l->socket);
    uid_release(l->uid, l->socket);
}

static void adopted(struct worker_link *l)
{
    if (!l->adopting || !l->vm)
        return;
    l->adopting = false;
    if (--l->vm->svc->adopting == 0)
        service_ready(l->vm->svc);
}

static void describe_exit(struct worker_link *l, char *buf, size_t size)
{
    for (unsigned i = 0; i < ARRAY_SIZE(exit_texts); i++)
        if (strcmp(exit_texts[i].word, l->exit_word) == 0) {
            snprintf(buf, size, "%s%s%s", exit_texts[i].text, l->exit_text[0] ? ": " : "", l->exit_text);
            return;
        }
    snprintf(buf, size, "%s", l->exit_text[0] ? l->exit_text : "its worker ended unexpectedly");
}

static void on_process_end(void *arg)
{
    struct worker_link *l = arg;
    struct svc_vm *vm = l->vm;
    siginfo_t info = {0};
    /* What it said last, and whoever waits for an answer of it. */
    varlink_conn_finish(l->commands);
    varlink_conn_finish(l->reports);
    while (l->asks) {
        struct varlink_conn *conn = l->asks->conn;
        l->asks->finishing = true;
        varlink_conn_finish(conn);     /* its answer, or that there is none: ask_answered() frees it */
    }
    l->commands = l->reports = NULL;
    if (l->child)
        waitid(P_PIDFD, (id_t)l->pidfd, &info, WEXITED | WNOHANG);
    if (!l->exit_word[0]) {
        json_t *note = record_exit(l->socket);
        read_exit(l, note);
        json_decref(note);
    }
    if (!l->exit_word[0]) {
        hv_strlcpy(l->exit_word, "killed", sizeof(l->exit_word));
        if (info.si_pid && info.si_code != CLD_EXITED && info.si_status == SIGSYS)
            hv_strlcpy(l->exit_text, "its worker was stopped at a forbidden system call", sizeof(l->exit_text));
        else if (info.si_pid && info.si_code != CLD_EXITED)
            snprintf(l->exit_text, sizeof(l->exit_text), "its worker was killed by signal %d", info.si_status);
    }
    clear_away(l);
    if (vm) {
        describe_exit(l, vm->reason, sizeof(vm->reason));
        hv_strlcpy(vm->exit_word, l->exit_word, sizeof(vm->exit_word));
        struct hv_error e = {0};
        hv_fail(&e, HV_FAILED, vm->name, "cannot start: %s", vm->reason);
        end_start_job(l, l->failure.code ? &l->failure : &e);
        adopted(l);
        vm->link = NULL;
        scope_forget(vm);
        svc_vm_set_state(vm, SVC_OFF);
    }
    worker_link_free(l);
}

void worker_cancel_start(struct svc_vm *vm)
{
    if (vm->link && !vm->link->exit_word[0]) {
        hv_strlcpy(vm->link->exit_word, "turned-off", sizeof(vm->link->exit_word));
        hv_strlcpy(vm->link->exit_text, "its start was cancelled", sizeof(vm->link->exit_text));
    }
    worker_kill(vm);
}

void worker_kill(struct svc_vm *vm)
{
    if (vm->link)
        (void)syscall(SYS_pidfd_send_signal, vm->link->pidfd, SIGKILL, NULL, 0);
}

/* ---- reports ---- */

/* runtime, or what of its numbers is new; true if there is something. */
static bool note_runtime(struct worker_link *l, json_t *runtime, const json_t *row)
{
    struct svc_vm *vm = l->vm;
    if (json_is_array(row)) {
        if (rows_put(&l->runtime, row) < 0) {
            log_debug("service", "%s: its worker sent a row that does not fit", vm->name);
            return false;
        }
        runtime = l->runtime.value;
    } else if (!json_is_object(runtime)) {
        return false;
    } else {
        (void)rows_begin(&l->runtime, runtime);       /* without memory for it, rows do not fit */
    }
    uint64_t now = hv_now_ns(), cpu = (uint64_t)json_integer_value(json_object_get(runtime, "cpu_ns"));
    if (vm->last_report_ns && now > vm->last_report_ns + 100 * NS_PER_MS && cpu >= vm->last_cpu_ns) {
        vm->cpu_pct = 100.0 * (double)(cpu - vm->last_cpu_ns) / (double)(now - vm->last_report_ns) /
                      (double)vm->settings.processor.cpus;
        vm->last_report_ns = now;
        vm->last_cpu_ns = cpu;
    } else if (!vm->last_report_ns) {
        vm->last_report_ns = now;
        vm->last_cpu_ns = cpu;
    }
    json_incref(runtime);
    json_decref(vm->runtime);
    vm->runtime = runtime;
    rates_note(vm);
    balance_report(vm);
    paging_report(vm);
    metering_report(vm);
    return true;
}

static void on_report(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    struct svc_vm *vm = l->vm;
    if (e || !vm)
        return;                        /* the pidfd tells the rest */
    const char *state = json_string_value(json_object_get(p, "state"));
    json_t *end = json_object_get(p, "exit");
    bool fresh = note_runtime(l, json_object_get(p, "runtime"), json_object_get(p, "row"));
    adopted(l);
    json_t *event = json_object_get(p, "event");
    if (json_is_object(event) && log_ratelimit_ok(&l->event_rate)) {
        const char *kind = json_string_value(json_object_get(event, "kind"));
        const char *severity = json_string_value(json_object_get(event, "severity"));
        const char *message = json_string_value(json_object_get(event, "message"));
        if (kind && severity && message)
            event_add(vm->svc, kind, vm->name, severity, -1, json_incref(json_object_get(event, "data")), json_string_value(json_object_get(event, "hint")),
                      "%s", message);
    }
    if (json_is_object(end)) {
        read_exit(l, end);
    } else if (state && strcmp(state, "resetting") == 0 && vm->state == SVC_STARTING) {
        svc_vm_set_state(vm, SVC_RUNNING);              /* taken over while it waits for memory */
    } else if (state && strcmp(state, "running") == 0 && vm->state != SVC_STOPPING) {
        svc_vm_set_state(vm, SVC_RUNNING);
    } else if (state && strcmp(state, "paused") == 0) {
        svc_vm_set_state(vm, SVC_PAUSED);
    }
    if (fresh) {
        guest_check(vm);
        restart_check(vm);
        wait_runtime(vm);
    }
}

/* ---- set-up ---- */

/* A step of the start failed: the worker goes, and then the job says why: who hears it finds the VM off. */
static void start_failed(struct worker_link *l, const struct hv_error *e)
{
    if (e->code == HV_UNREACHABLE)
        return;                        /* its process ended: that says why */
    if (l->failure.code)
        return;
    hv_strlcpy(l->exit_word, "error", sizeof(l->exit_word));
    hv_strlcpy(l->exit_text, e->message, sizeof(l->exit_text));
    l->failure = *e;
    if (l->vm)
        worker_kill(l->vm);
}

static void on_started(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    if (e) {
        start_failed(l, e);
        return;
    }
    /* Its report comes on the other connection, perhaps later: who follows the job must see it started. */
    if (l->vm && l->vm->state == SVC_STARTING)
        svc_vm_set_state(l->vm, l->paused ? SVC_PAUSED : SVC_RUNNING);
    end_start_job(l, NULL);
}

static void note_sandbox(struct worker_link *l, json_t *layers)
{
    size_t i;
    json_t *layer;
    l->sandbox = json_incref(layers);
    json_array_foreach(layers, i, layer) {
        const char *name = json_string_value(json_object_get(layer, "name"));
        const char *why = json_string_value(json_object_get(layer, "why"));
        if (l->vm && name && !json_is_true(json_object_get(layer, "on")))
            log_warning("vm=%s its worker is confined without %s: %s", l->vm->name, name, why ? why : "");
    }
}

static void attach_next(struct worker_link *l);

/* A disk is attached, or not: with one missing the VM does not start. What format it has is kept. */
static void on_disk(void *arg, const json_t *reply, const struct hv_error *e)
{
    struct worker_link *l = arg;
    const char *format = json_string_value(json_object_get(reply, "format"));
    if (e || !l->vm) {
        if (e)
            start_failed(l, e);
        return;
    }
    struct setting_disk *d = settings_disk(&l->vm->settings, l->next_lun - 1);
    if (d && format && d->format == SET_FORMAT_UNKNOWN && setting_format_parse(format, &d->format) == 0) {
        struct hv_error why = {0};
        if (registry_store(l->vm, &why) < 0)
            log_warning("vm=%s the format of its disk cannot be stored: %s", l->vm->name, why.message);
    }
    attach_next(l);
}

/* One disk after the other, then the start. */
static void attach_next(struct worker_link *l)
{
    struct hv_error e = {0};
    for (; l->next_lun < SETTING_DISKS_MAX; l->next_lun++) {
        const struct setting_disk *d = settings_disk(&l->vm->settings, l->next_lun);
        if (!d)
            continue;
        l->next_lun++;
        if (disk_attach(l->vm, d, &l->peer, on_disk, l, &e) < 0)
            start_failed(l, &e);
        return;
    }
    varlink_conn_call(l->commands, "org.hv.Worker.Start", json_pack("{s:b}", "paused", l->paused), false, NULL, 0,
                      on_started, l);
}

/* An older worker refuses the member. */
static void watch(struct worker_link *l)
{
    json_t *p = json_pack("{s:i}", "interval_ms", REPORT_INTERVAL_MS);
    if (l->sends_rows)
        json_object_set_new(p, "rows", json_true());
    varlink_conn_call(l->reports, "org.hv.Worker.Watch", p, true, NULL, 0, on_report, l);
}

static void on_setup(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    handover_close(&l->fds);
    if (e) {
        start_failed(l, e);
        return;
    }
    note_sandbox(l, json_object_get(p, "sandbox"));
    watch(l);
    attach_next(l);
}

/* Shares of processors are the scope's: a worker needs no word of them, and one of an older version knows none. */
json_t *worker_settings(const struct svc_vm *vm)
{
    json_t *s = settings_to_json(&vm->settings), *processor = json_object_get(s, "processor");
    json_object_del(processor, "weight");
    json_object_del(processor, "limit_pct");
    return s;
}

static void on_hello(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    char id[GUID_TEXT_SIZE];
    int fds[HANDOVER_MAX];
    if (e || !l->vm) {
        if (e)
            start_failed(l, e);
        return;
    }
    note_worker(l, p);
    json_t *params = json_pack("{s:s s:s s:o s:o}", "name", l->vm->name, "id", guid_format(&l->vm->id, id), "settings",
                               worker_settings(l->vm), "fds", handover_json(&l->fds, fds));
    if (varlink_conn_call(l->commands, "org.hv.Worker.Setup", params, false, fds, l->fds.count, on_setup, l) < 0) {
        struct hv_error why = {0};
        hv_fail(&why, HV_NO_RESOURCES, l->vm->name, "cannot start: its descriptors cannot be handed over");
        start_failed(l, &why);
    }
}

/* ---- making one ---- */

static int socket_address(const char *path, struct sockaddr_un *sa)
{
    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    return hv_strlcpy(sa->sun_path, path, sizeof(sa->sun_path)) ? 0 : -ENAMETOOLONG;
}

static int listen_at(const char *path)
{
    struct sockaddr_un sa;
    int r = socket_address(path, &sa);
    if (r < 0)
        return r;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    unlink(path);
    mode_t old = umask(0077);
    r = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, ASKS_MAX + 8) < 0 ? -errno : 0;
    umask(old);
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

static int connect_to(struct worker_link *l, struct varlink_conn **ret)
{
    struct sockaddr_un sa;
    int r = socket_address(l->socket, &sa);
    /* Not blocking: a worker that takes no connections keeps nobody waiting. */
    int fd = r < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return r < 0 ? r : -errno;
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return varlink_conn_new(l->vm->svc->loop, fd, NULL, NULL, ret);
}

static struct worker_link *link_new(struct svc_vm *vm)
{
    char id[GUID_TEXT_SIZE];
    struct worker_link *l = hv_alloc(sizeof(*l));
    if (l) {
        l->vm = vm;
        l->pidfd = -1;
        l->uid = SPAWN_NO_UID;
        l->event_rate = (struct log_ratelimit)LOG_RATELIMIT(30);
        snprintf(l->socket, sizeof(l->socket), "%s/workers/%s", vm->svc->paths.run, guid_format(&vm->id, id));
    }
    return l;
}

static int watch_process(struct worker_link *l)
{
    return loop_uv_pidfd(l->vm->svc->loop, l->pidfd, on_process_end, l);
}

static int write_record(void *arg, pid_t pid) { return record_write(((struct worker_link *)arg)->socket, pid); }

/* The process: its user, itself, and its record before it does anything. */
static int spawn(struct worker_link *l, int listen_fd, struct hv_error *e)
{
    struct svc_vm *vm = l->vm;
    char listen[] = "--listen-fd=3", name[] = "--name";
    char *argv[] = {vm->svc->worker_path, listen, name, vm->name, NULL};
    static_assert(SPAWN_LISTEN_FD == 3, "the option says so");
    hv_autoclose int log = vmlog_open(vm);
    struct spawn_config c = {.program = vm->svc->worker_path, .argv = argv, .listen_fd = listen_fd, .out_fd = log,
                             .uid = SPAWN_NO_UID, .before = write_record, .arg = l};
    if (log < 0)                       /* its words then go where the service's go */
        log_warning("vm=%s its log cannot be opened: %s", vm->name, strerror(-log));
    struct spawn_result r;
    int err;
    if (geteuid() == 0 && (err = uid_lease(l->socket, &l->uid)) < 0)
        log_warning("vm=%s its worker gets no user of its own: %s", vm->name, strerror(-err));
    c.uid = l->uid;
    err = spawn_process(&c, &r, e);
    if (err < 0)
        return err;
    if (r.why_not[0])
        log_debug("worker", "%s: %s", vm->name, r.why_not);
    l->pid = r.pid;
    l->pidfd = r.pidfd;
    l->child = true;
    return 0;
}

int worker_start(struct svc_vm *vm, const struct varlink_peer *peer, struct handover *fds, bool paused, struct job *job,
                 struct hv_error *e)
{
    struct worker_link *l = link_new(vm);
    if (!l) {
        handover_close(fds);
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    }
    l->fds = *fds;
    l->peer = *peer;
    fds->count = 0;
    int listen_fd = listen_at(l->socket), note = record_exit_note(l->socket);
    int r = listen_fd < 0 ? listen_fd : note < 0 ? note : handover_add(&l->fds, "exit", note);
    struct hv_error why = {0};
    if (r == 0)
        r = spawn(l, listen_fd, &why);
    if (listen_fd >= 0)
        close(listen_fd);
    if (r < 0) {
        clear_away(l);
        worker_link_free(l);
        if (!hv_error_is_set(&why))
            return hv_fail_errno(e, -r, vm->name, "cannot start: its worker (%s)", vm->svc->worker_path);
        return hv_fail(e, why.code, vm->name, "cannot start: its worker (%s) %s", why.object, why.message);
    }
    if ((r = watch_process(l)) < 0 || (r = connect_to(l, &l->commands)) < 0 ||
        (r = connect_to(l, &l->reports)) < 0) {
        (void)syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0);
        l->vm = NULL;                  /* on_process_end reaps, clears away and frees it */
        return hv_fail_errno(e, -r, vm->name, "cannot start: no link to its worker");
    }
    l->paused = paused;
    l->start_job = job_id(job);
    vm->link = l;
    scope_make(vm, l->pid);
    svc_vm_set_state(vm, SVC_STARTING);
    varlink_conn_call(l->commands, "org.hv.Worker.Hello", json_pack("{s:i}", "version", 1), false, NULL, 0,
                      on_hello, l);
    return 0;
}

int worker_call(struct svc_vm *vm, const char *method, json_t *params, const int *fds, unsigned nfds,
                varlink_reply_fn *fn, void *arg, struct hv_error *e)
{
    if (!vm->link || !vm->link->commands) {
        json_decref(params);
        return hv_fail(e, HV_CONFLICT, vm->name, "it is not running");
    }
    int r = varlink_conn_call(vm->link->commands, method, params, false, fds, nfds, fn, arg);
    return r < 0 ? hv_fail_errno(e, -r, vm->name, "its worker does not answer") : 0;
}

static void ask_answered(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_ask *a = arg;
    if (!continues) {
        struct worker_ask **at = &a->l->asks;
        while (*at != a)
            at = &(*at)->next;
        *at = a->next;
    }
    a->fn(a->arg, p, continues, e);
    if (continues)
        return;
    if (!a->finishing)
        varlink_conn_free(a->conn);
    free(a);
}

int worker_ask(struct svc_vm *vm, const char *method, json_t *params, bool more, const int *fds, unsigned nfds,
               varlink_reply_fn *fn, void *arg, struct hv_error *e)
{
    struct worker_link *l = vm->link;
    unsigned n = 0;
    for (struct worker_ask *a = l ? l->asks : NULL; a; a = a->next)
        n++;
    if (!l || !l->commands || n >= ASKS_MAX) {
        json_decref(params);
        return hv_fail(e, HV_CONFLICT, vm->name, l && l->commands ? "its guest is being asked too much already" : "it is not running");
    }
    struct worker_ask *a = hv_alloc(sizeof(*a));
    int r = a ? connect_to(l, &a->conn) : -ENOMEM;
    if (r < 0) {
        json_decref(params);
    } else if ((r = varlink_conn_call(a->conn, method, params, more, fds, nfds, ask_answered, a)) < 0) {
        varlink_conn_free(a->conn);
    } else {
        a->l = l;
        a->fn = fn;
        a->arg = arg;
        a->next = l->asks;
        l->asks = a;
        return 0;
    }
    free(a);
    return hv_fail_errno(e, -r, vm->name, "its worker does not answer");
}

/* ---- taking over ---- */

static void on_adopt_hello(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    struct svc_vm *vm = l->vm;
    char id[GUID_TEXT_SIZE];
    const char *said = json_string_value(json_object_get(p, "id"));
    if (e || !vm) {
        /* It ends, and its end says the rest; or it does not speak our language: it runs, unmanaged, until told so. */
        if (vm)
            log_warning("vm=%s its worker does not answer: %s", vm->name, e->message);
        return;
    }
    if (!json_is_true(json_object_get(p, "started")) || !said || strcmp(said, guid_format(&vm->id, id)) != 0) {
        hv_strlcpy(l->exit_word, "error", sizeof(l->exit_word));
        hv_strlcpy(l->exit_text, "the service ended while it was being started", sizeof(l->exit_text));
        worker_kill(vm);
        return;
    }
    log_info("vm=%s worker %d taken over", vm->name, (int)l->pid);
    note_worker(l, p);
    l->sandbox = json_incref(json_object_get(p, "sandbox"));
    watch(l);
}

/* Its process is gone: how it ended stands in its note, or nowhere. */
static void note_end(struct worker_link *l)
{
    struct svc_vm *vm = l->vm;
    json_t *note = record_exit(l->socket);
    read_exit(l, note);
    json_decref(note);
    if (!l->exit_word[0]) {
        hv_strlcpy(l->exit_word, "killed", sizeof(l->exit_word));
        hv_strlcpy(l->exit_text, "its worker ended while the service was away", sizeof(l->exit_text));
    }
    describe_exit(l, vm->reason, sizeof(vm->reason));
    hv_strlcpy(vm->exit_word, l->exit_word, sizeof(vm->exit_word));
    event_add(vm->svc, "state", vm->name, strcmp(l->exit_word, "killed") == 0 ? "error" : "info", -1, NULL, NULL,
              "off while the service was away: %s", vm->reason);
    clear_away(l);
    worker_link_free(l);
}

static void adopt(struct service *svc, const char *file)
{
    struct guid id;
    struct svc_vm *vm = guid_parse(file, &id) == 0 ? registry_find(svc, file) : NULL;
    struct worker_link *l = vm ? link_new(vm) : NULL;
    if (!l)
        return;
    l->uid = geteuid() == 0 ? uid_of(l->socket) : SPAWN_NO_UID;
    int r = record_open(l->socket, &l->pid, &l->pidfd);
    if (r == -ESRCH) {
        note_end(l);
        return;
    }
    if (r < 0 || (r = watch_process(l)) < 0) {
        log_error("vm=%s its worker cannot be watched: %s", vm->name, strerror(-r));
        worker_link_free(l);
        return;
    }
    vm->link = l;
    scope_take_over(vm, l->pid);
    vm->state = SVC_STARTING;
    l->adopting = true;
    svc->adopting++;
    /* A process without its socket cannot be spoken to any more: it is ending, or it has to. */
    if (connect_to(l, &l->commands) < 0 || connect_to(l, &l->reports) < 0)
        worker_kill(vm);
    else
        varlink_conn_call(l->commands, "org.hv.Worker.Hello", json_pack("{s:i}", "version", 1), false, NULL, 0,
                          on_adopt_hello, l);
}

void worker_adopt_all(struct service *svc)
{
    hv_autofree char *dir = hv_asprintf("%s/workers", svc->paths.run);
    if (dir)
        hv_remove_temps(dir);
    DIR *d = dir ? opendir(dir) : NULL;
    if (!d)
        return;
    for (struct dirent *de; (de = readdir(d));)
        if (de->d_name[0] != '.')
            adopt(svc, de->d_name);
    closedir(d);
}

/* ---- what a worker would be confined to ---- */

/* What spawn gave it, in the form the worker says the rest. */
static void add_spawned(json_t *list, const struct spawn_result *r)
{
    char words[96];
    json_t *first = json_pack("{s:s s:b s:s}", "name", "namespaces", "on", r->namespaces != 0, "why",
                              r->namespaces ? spawn_namespace_words(r->namespaces, words, sizeof(words)) : r->why_not);
    json_array_insert_new(list, 0, first);
    json_array_insert_new(list, 1, json_pack("{s:s s:b s:s}", "name", "user", "on", r->own_uid, "why",
                                             r->own_uid ? "one for each VM" : geteuid() == 0 ? r->why_not
                                             : "the service's own: only root's service has users to give"));
}

json_t *worker_sandbox_probe(struct service *svc)
{
    char probe[] = "--probe", socket[HV_PATH_SIZE + 64], text[4096];
    char *argv[] = {svc->worker_path, probe, NULL};
    struct hv_error e = {0};
    struct spawn_result r;
    int out[2];
    if (pipe2(out, O_CLOEXEC) < 0)
        return NULL;
    struct spawn_config c = {.program = svc->worker_path, .argv = argv, .listen_fd = -1, .out_fd = out[1],
                             .uid = SPAWN_NO_UID};
    snprintf(socket, sizeof(socket), "%s/workers/.", svc->paths.run);         /* exists as long as it is needed */
    if (geteuid() == 0)
        (void)uid_lease(socket, &c.uid);
    int err = spawn_process(&c, &r, &e);
    close(out[1]);
    size_t len = 0;
    while (err == 0 && len < sizeof(text) - 1 && poll(&(struct pollfd){.fd = out[0], .events = POLLIN}, 1, PROBE_LIMIT_MS) == 1) {
        ssize_t n = read(out[0], text + len, sizeof(text) - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = 0;
    close(out[0]);
    json_t *list = err == 0 ? json_loads(text, 0, NULL) : NULL;
    if (err == 0) {
        (void)syscall(SYS_pidfd_send_signal, r.pidfd, SIGKILL, NULL, 0);
        waitpid(r.pid, NULL, 0);
        close(r.pidfd);
    }
    uid_release(c.uid, socket);
    if (json_is_array(list))
        add_spawned(list, &r);
    return list;
}
