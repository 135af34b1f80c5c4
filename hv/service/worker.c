/*
 * The link to one worker process: making it, setting it up, hearing from it, and
 * taking over those of an earlier hvd (DESIGN 8 to 10).
 *
 *   spawn ─▶ Hello ─▶ Setup (+ descriptors) ─▶ Watch on a second connection ─▶ Start ─▶ job done
 *
 * A worker says how its VM ended in the last report; then its process goes. Only the
 * end of the process (pidfd) makes the VM off: until then its memory is in use.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/rpc/loop_uv.h"
#include "hv/service/service.h"

#define LISTEN_FD 3

extern char **environ;

struct worker_link {
    struct svc_vm *vm;                 /* NULL: the VM is gone, waiting for the process */
    pid_t pid;
    int pidfd;
    bool child;                        /* ours to reap */
    char socket[HV_PATH_SIZE + 64];
    struct varlink_conn *commands, *reports;
    int kernel_fd, initrd_fd;
    bool paused;
    int64_t start_job;                 /* 0: none */
    char exit_word[32], exit_text[200];
};

pid_t worker_pid(const struct svc_vm *vm) { return vm->link ? vm->link->pid : 0; }

int64_t worker_start_job(const struct svc_vm *vm) { return vm->link ? vm->link->start_job : 0; }

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void worker_link_free(struct worker_link *l)
{
    if (!l)
        return;
    varlink_conn_free(l->commands);
    varlink_conn_free(l->reports);
    close_fd(&l->kernel_fd);
    close_fd(&l->initrd_fd);
    close_fd(&l->pidfd);
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

/* ---- the end of a worker ---- */

static const struct { const char *word, *text; } exit_texts[] = {
    {"power-off", "the guest powered off"},   {"reset", "the guest rebooted"},
    {"crash", "the guest crashed"},           {"turned-off", "turned off"},
    {"error", "it could not go on"},          {"exit-code", "the guest wrote its exit port"},
};

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
    if (l->child)
        waitid(P_PIDFD, (id_t)l->pidfd, &info, WEXITED | WNOHANG);
    if (!l->exit_word[0]) {
        hv_strlcpy(l->exit_word, "killed", sizeof(l->exit_word));
        if (info.si_pid && info.si_code != CLD_EXITED)
            snprintf(l->exit_text, sizeof(l->exit_text), "its worker was killed by signal %d", info.si_status);
    }
    unlink(l->socket);
    if (vm) {
        describe_exit(l, vm->reason, sizeof(vm->reason));
        hv_strlcpy(vm->exit_word, l->exit_word, sizeof(vm->exit_word));
        struct hv_error e = {0};
        hv_fail(&e, HV_FAILED, vm->name, "cannot start: %s", vm->reason);
        end_start_job(l, &e);
        vm->link = NULL;
        svc_vm_set_state(vm, SVC_OFF);
    }
    worker_link_free(l);
}

void worker_kill(struct svc_vm *vm)
{
    if (vm->link)
        (void)syscall(SYS_pidfd_send_signal, vm->link->pidfd, SIGKILL, NULL, 0);
}

/* ---- reports ---- */

static void note_runtime(struct svc_vm *vm, json_t *runtime)
{
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
    json_decref(vm->runtime);
    vm->runtime = json_incref(runtime);
    balance_report(vm);
}

static void on_report(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    struct svc_vm *vm = l->vm;
    if (e || !vm)
        return;                        /* the pidfd tells the rest */
    const char *state = json_string_value(json_object_get(p, "state"));
    json_t *runtime = json_object_get(p, "runtime"), *end = json_object_get(p, "exit");
    if (json_is_object(runtime))
        note_runtime(vm, runtime);
    json_t *event = json_object_get(p, "event");
    if (json_is_object(event)) {
        const char *kind = json_string_value(json_object_get(event, "kind"));
        const char *severity = json_string_value(json_object_get(event, "severity"));
        const char *message = json_string_value(json_object_get(event, "message"));
        if (kind && severity && message)
            event_add(vm->svc, kind, vm->name, severity, -1, NULL, json_string_value(json_object_get(event, "hint")),
                      "%s", message);
    }
    if (json_is_object(end)) {
        const char *word = json_string_value(json_object_get(end, "reason"));
        const char *text = json_string_value(json_object_get(end, "message"));
        hv_strlcpy(l->exit_word, word ? word : "", sizeof(l->exit_word));
        hv_strlcpy(l->exit_text, text ? text : "", sizeof(l->exit_text));
    } else if (state && strcmp(state, "running") == 0 && vm->state != SVC_STOPPING) {
        svc_vm_set_state(vm, SVC_RUNNING);
    } else if (state && strcmp(state, "paused") == 0) {
        svc_vm_set_state(vm, SVC_PAUSED);
    }
}

/* ---- set-up ---- */

/* A step of the start failed: the job says why, the worker goes. */
static void start_failed(struct worker_link *l, const struct hv_error *e)
{
    hv_strlcpy(l->exit_word, "error", sizeof(l->exit_word));
    hv_strlcpy(l->exit_text, e->message, sizeof(l->exit_text));
    end_start_job(l, e);
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

static void on_setup(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    close_fd(&l->kernel_fd);
    close_fd(&l->initrd_fd);
    if (e) {
        start_failed(l, e);
        return;
    }
    varlink_conn_call(l->reports, "org.hv.Worker.Watch", json_pack("{s:i}", "interval_ms", REPORT_INTERVAL_MS),
                      true, NULL, 0, on_report, l);
    varlink_conn_call(l->commands, "org.hv.Worker.Start", json_pack("{s:b}", "paused", l->paused), false, NULL, 0,
                      on_started, l);
}

static void on_hello(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    char id[GUID_TEXT_SIZE];
    int fds[2];
    unsigned n = 0;
    if (e || !l->vm) {
        if (e)
            start_failed(l, e);
        return;
    }
    json_t *params = json_pack("{s:s s:s s:o}", "name", l->vm->name, "id", guid_format(&l->vm->id, id), "settings",
                               settings_to_json(&l->vm->settings));
    if (l->kernel_fd >= 0) {
        json_object_set_new(params, "kernel", json_integer(n));
        fds[n++] = l->kernel_fd;
    }
    if (l->initrd_fd >= 0) {
        json_object_set_new(params, "initrd", json_integer(n));
        fds[n++] = l->initrd_fd;
    }
    varlink_conn_call(l->commands, "org.hv.Worker.Setup", params, false, fds, n, on_setup, l);
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
    r = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 8) < 0 ? -errno : 0;
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
    int fd = r < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return r < 0 ? r : -errno;
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return varlink_conn_new(l->vm->svc->loop, fd, NULL, NULL, ret);
}

static int spawn(struct svc_vm *vm, int listen_fd, pid_t *ret)
{
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t none;
    char fd_option[] = "--listen-fd=3", name_option[] = "--name";
    char *argv[] = {vm->svc->worker_path, fd_option, name_option, vm->name, NULL};
    static_assert(LISTEN_FD == 3, "the option says so");
    sigemptyset(&none);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, 2, 1);
    posix_spawn_file_actions_adddup2(&fa, listen_fd, LISTEN_FD);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attr, &none);
    int err = posix_spawn(ret, vm->svc->worker_path, &fa, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&attr);
    return -err;
}

static struct worker_link *link_new(struct svc_vm *vm)
{
    char id[GUID_TEXT_SIZE];
    struct worker_link *l = hv_alloc(sizeof(*l));
    if (l) {
        l->vm = vm;
        l->pidfd = l->kernel_fd = l->initrd_fd = -1;
        snprintf(l->socket, sizeof(l->socket), "%s/workers/%s", vm->svc->paths.run, guid_format(&vm->id, id));
    }
    return l;
}

static int watch_process(struct worker_link *l)
{
    l->pidfd = (int)syscall(SYS_pidfd_open, l->pid, 0);
    return l->pidfd < 0 ? -errno : loop_uv_pidfd(l->vm->svc->loop, l->pidfd, on_process_end, l);
}

int worker_start(struct svc_vm *vm, int kernel_fd, int initrd_fd, bool paused, struct job *job, struct hv_error *e)
{
    struct worker_link *l = link_new(vm);
    if (!l)
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    int listen_fd = listen_at(l->socket);
    int r = listen_fd < 0 ? listen_fd : 0;
    /* LISTEN_FD must not be a close-on-exec copy of itself: move it out of the way. */
    if (r == 0 && listen_fd == LISTEN_FD) {
        listen_fd = fcntl(LISTEN_FD, F_DUPFD_CLOEXEC, LISTEN_FD + 1);
        close(LISTEN_FD);
        r = listen_fd < 0 ? -errno : 0;
    }
    if (r == 0)
        r = spawn(vm, listen_fd, &l->pid);
    if (listen_fd >= 0)
        close(listen_fd);
    if (r < 0) {
        unlink(l->socket);
        worker_link_free(l);
        return hv_fail_errno(e, -r, vm->name, "cannot start: its worker (%s)", vm->svc->worker_path);
    }
    l->child = true;
    if ((r = watch_process(l)) < 0 || (r = connect_to(l, &l->commands)) < 0 ||
        (r = connect_to(l, &l->reports)) < 0) {
        kill(l->pid, SIGKILL);
        if (l->pidfd < 0) {
            waitpid(l->pid, NULL, 0);
            worker_link_free(l);
        } else {
            l->vm = NULL;              /* on_process_end reaps and frees it */
        }
        return hv_fail_errno(e, -r, vm->name, "cannot start: no link to its worker");
    }
    l->kernel_fd = kernel_fd >= 0 ? fcntl(kernel_fd, F_DUPFD_CLOEXEC, 3) : -1;
    l->initrd_fd = initrd_fd >= 0 ? fcntl(initrd_fd, F_DUPFD_CLOEXEC, 3) : -1;
    l->paused = paused;
    l->start_job = job_id(job);
    vm->link = l;
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

/* ---- taking over ---- */

static void on_adopt_hello(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct worker_link *l = arg;
    struct svc_vm *vm = l->vm;
    pid_t pid = e ? 0 : (pid_t)json_integer_value(json_object_get(p, "pid"));
    if (pid > 0) {
        l->pid = pid;
        if (watch_process(l) == 0) {
            log_info("vm=%s worker %d taken over", vm->name, (int)pid);
            varlink_conn_call(l->reports, "org.hv.Worker.Watch",
                              json_pack("{s:i}", "interval_ms", REPORT_INTERVAL_MS), true, NULL, 0, on_report, l);
            return;
        }
    }
    log_warning("vm=%s its worker does not answer: %s", vm->name, e ? e->message : "no process");
    vm->link = NULL;
    svc_vm_set_state(vm, SVC_OFF);
    /* The connection that called us cannot be freed from inside its callback: leave it to the process' end. */
    l->vm = NULL;
}

static void adopt(struct service *svc, const char *dir, const char *file)
{
    struct guid id;
    struct svc_vm *vm = guid_parse(file, &id) == 0 ? registry_find(svc, file) : NULL;
    hv_autofree char *path = hv_asprintf("%s/%s", dir, file);
    struct worker_link *l = vm && path ? link_new(vm) : NULL;
    if (!l)
        return;
    if (connect_to(l, &l->commands) < 0 || connect_to(l, &l->reports) < 0) {
        unlink(path);                  /* nobody listens: left by a worker that was killed */
        worker_link_free(l);
        return;
    }
    vm->link = l;
    vm->state = SVC_STARTING;
    varlink_conn_call(l->commands, "org.hv.Worker.Hello", json_pack("{s:i}", "version", 1), false, NULL, 0,
                      on_adopt_hello, l);
}

void worker_adopt_all(struct service *svc)
{
    hv_autofree char *dir = hv_asprintf("%s/workers", svc->paths.run);
    DIR *d = dir ? opendir(dir) : NULL;
    if (!d)
        return;
    for (struct dirent *de; (de = readdir(d));)
        if (de->d_name[0] != '.')
            adopt(svc, dir, de->d_name);
    closedir(d);
}
