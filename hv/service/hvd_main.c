/*
 * hvd: the management service of a host. The system's runs as root under /run/hv; an
 * ordinary user's own is started on demand by the first client and ends when it has
 * been of no use for a while. VMs outlive it either way (DESIGN 10).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "hv/base/fault.h"
#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/rpc/loop_uv.h"
#include "hv/service/service.h"

#define HOUSEKEEPING_NS (2 * NS_PER_SEC)
#define TRANSIENT_KEPT_NS (10 * NS_PER_SEC)
#define ADOPT_LIMIT_NS (5 * NS_PER_SEC)
#define USER_IDLE_NS (300 * NS_PER_SEC)

static const char usage[] =
    "usage: hvd --system | --user [--idle DURATION]\n"
    "       hvd --system | --user --guests start|stop\n"
    "The management service of hv. Clients start a user's own on demand; see hvd(8).\n";

static void on_signal(void *arg, int signum)
{
    struct service *svc = arg;
    log_info("signal %d: ending; VMs run on", signum);
    loop_uv_stop(svc->loop);
}

/* The socket's mode admits the group; peers are looked at once more, for the file may have been moved. */
static bool allow(void *arg, const struct varlink_peer *p)
{
    struct service *svc = arg;
    return svc->paths.mode == HV_MODE_SYSTEM || p->uid == getuid() || p->uid == 0;
}

/* hv-worker lies beside hvd. */
static int find_worker(struct service *svc, struct hv_error *e)
{
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0)
        return hv_fail_errno(e, errno, "hvd", "cannot find its own program");
    self[n] = 0;
    char *slash = strrchr(self, '/');
    *slash = 0;
    snprintf(svc->worker_path, sizeof(svc->worker_path), "%s/hv-worker", self);
    if (access(svc->worker_path, X_OK) < 0)
        return hv_fail_errno(e, errno, svc->worker_path, "cannot be run");
    return 0;
}

static int lock_run_dir(struct service *svc, struct hv_error *e)
{
    hv_autofree char *path = hv_asprintf("%s/hvd.lock", svc->paths.run);
    int fd = path ? open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return hv_fail_errno(e, errno, svc->paths.run, "cannot make a lock file");
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return hv_fail(e, HV_CONFLICT, svc->paths.run, "another hvd serves here already");
    }
    return 0;                          /* held until the process ends */
}

static int listen_manager(struct service *svc, struct hv_error *e)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (!hv_strlcpy(sa.sun_path, svc->paths.socket, sizeof(sa.sun_path)))
        return hv_fail(e, HV_USAGE, svc->paths.socket, "the path is too long for a socket");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return hv_fail_errno(e, errno, "hvd", "cannot make a socket");
    unlink(svc->paths.socket);
    mode_t old = umask(0177);
    int r = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
    umask(old);
    struct group *g = svc->paths.mode == HV_MODE_SYSTEM ? getgrnam("hv") : NULL;
    if (r == 0 && g && (chown(svc->paths.socket, 0, g->gr_gid) < 0 || chmod(svc->paths.socket, 0660) < 0 ||
                        chown(svc->paths.run, 0, g->gr_gid) < 0 || chmod(svc->paths.run, 0750) < 0))
        r = -errno;
    if (r == 0 && listen(fd, 64) < 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return hv_fail_errno(e, -r, svc->paths.socket, "cannot listen");
    }
    return varlink_server_listen(svc->server, fd, allow, svc);
}

/* Somebody's rm, or a cleaner's: the service runs, holds its lock, and no client would ever find it again. */
static void look_after_socket(struct service *svc)
{
    struct hv_error e = {0};
    if (!svc->serving || access(svc->paths.socket, F_OK) == 0 || errno != ENOENT || access(svc->paths.run, W_OK) < 0)
        return;
    if (listen_manager(svc, &e) < 0)
        log_warning("%s: was removed: %s", e.object, e.message);
    else
        log_warning("%s: was removed; listening there again", svc->paths.socket);
}

/* Transient VMs that ended, a socket that is gone, and the end of an idle user's service. */
static void housekeeping(void *arg)
{
    struct service *svc = arg;
    uint64_t now = hv_now_ns();
    bool busy = varlink_server_connections(svc->server) > 0;
    for (struct svc_vm *vm = svc->vms, *next; vm; vm = next) {
        next = vm->next;
        if (vm->state != SVC_OFF)
            busy = true;
        else if (vm->transient && now - vm->off_since_ns > TRANSIENT_KEPT_NS)
            registry_remove(vm, NULL);
    }
    busy |= power_pending(svc);
    vmlog_rotate(svc);
    power_tick(svc);
    metering_tick(svc);
    look_after_socket(svc);
    if (busy)
        svc->idle_since_ns = now;
    if (svc->idle_ns && now - svc->idle_since_ns > svc->idle_ns) {
        log_info("idle: ending");
        loop_uv_stop(svc->loop);
    }
    loop_timer_set(svc->loop, svc->housekeeping, now + HOUSEKEEPING_NS);
}

static void complain(const struct hv_error *e)
{
    fprintf(stderr, "hvd: %s%s%s\n", e->object, e->object[0] ? ": " : "", e->message);
    if (e->hint[0])
        fprintf(stderr, "  try: %s\n", e->hint);
}

/* Tell systemd (sd_notify(3)), if it started us, that clients may come. */
static void notify_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || !hv_strlcpy(sa.sun_path, path, sizeof(sa.sun_path)))
        return;
    const size_t len = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (path[0] == '@')
        sa.sun_path[0] = 0;
    hv_autoclose int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&sa, (socklen_t)len) < 0)
        log_warning("%s: %s", path, strerror(errno));
}

/* Everything is known: now clients may come. */
static int serve(struct service *svc, struct hv_error *e)
{
    svc->serving = true;
    int r = listen_manager(svc, e);
    if (r == 0)
        log_info("serving at %s", svc->paths.socket);
    if (r == 0) {
        notify_ready();
        power_on_start(svc);
    }
    return r;
}

void service_ready(struct service *svc)
{
    struct hv_error e = {0};
    if (svc->serving || !svc->adopt_timer)
        return;
    loop_timer_stop(svc->loop, svc->adopt_timer);
    if (serve(svc, &e) < 0) {
        complain(&e);
        svc->failed = e.code;
        loop_uv_stop(svc->loop);
    }
}

/* A worker that hangs keeps its charge and does not keep the others' operators waiting. */
static void on_adopt_limit(void *arg)
{
    struct service *svc = arg;
    log_warning("%u workers of an earlier service do not answer", svc->adopting);
    service_ready(svc);
}

/* Where new disks go. Of the system's service for every member of the group, each for his own. */
static void make_disk_path(struct service *svc)
{
    hv_autofree char *path = hv_asprintf("%s/disks", svc->paths.state);
    const bool shared = svc->paths.mode == HV_MODE_SYSTEM;
    struct group *g = shared ? getgrnam("hv") : NULL;
    if (!path || (mkdir(path, 0700) < 0 && errno != EEXIST) ||
        (g && (lchown(path, 0, g->gr_gid) < 0 || chmod(path, 03770) < 0)))
        log_warning("%s: new disks cannot be made there: %s", path ? path : "disks", strerror(errno));
}

static int set_up(struct service *svc, struct hv_error *e)
{
    static struct varlink_interface iface = {.text = org_hv_Manager_varlink, .methods = manager_methods};
    static const struct varlink_interface *const ifaces[] = {&iface};
    iface.arg = svc;
    hv_autofree char *workers = hv_asprintf("%s/workers", svc->paths.run);
    int r = hv_paths_create(&svc->paths, e);
    if (r == 0)
        r = hv_make_dir(workers, 0700, e);
    if (r == 0)
        make_disk_path(svc);
    if (r == 0)
        r = lock_run_dir(svc, e);
    if (r == 0)
        r = find_worker(svc, e);
    if (r < 0)
        return r;
    r = loop_uv_new(&svc->loop);
    if (r == 0)
        r = events_new(svc);
    if (r == 0)
        r = jobs_load(svc);
    if (r == 0)
        r = loop_uv_signal(svc->loop, SIGTERM, on_signal, svc);
    if (r == 0)
        r = loop_uv_signal(svc->loop, SIGINT, on_signal, svc);
    if (r == 0)
        r = loop_timer_new(svc->loop, housekeeping, svc, &svc->housekeeping);
    if (r == 0)
        r = varlink_server_new(svc->loop, "hvd", ifaces, 1, &svc->server);
    if (r == 0)
        varlink_server_large_messages(svc->server);    /* documents */
    if (r < 0)
        return hv_fail_errno(e, -r, "hvd", "cannot start");
    r = registry_load(svc, e);
    if (r == 0)
        r = groups_load(svc, e);
    if (r < 0)
        return r;
    host_settings_load(svc);
    metering_load(svc);
    r = power_new(svc, e);
    if (r < 0)
        return r;
    if (scopes_new(svc) < 0)
        return hv_fail(e, HV_NO_RESOURCES, "hvd", "out of memory");
    if (balance_start(svc) < 0 || history_start(svc) < 0)
        return hv_fail(e, HV_NO_RESOURCES, "hvd", "out of memory");
    r = loop_timer_new(svc->loop, on_adopt_limit, svc, &svc->adopt_timer);
    if (r < 0)
        return hv_fail_errno(e, -r, "hvd", "cannot start");
    worker_adopt_all(svc);
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        power_look_back(vm);
    if (svc->adopting > 0) {           /* service_ready() goes on */
        loop_timer_set(svc->loop, svc->adopt_timer, hv_now_ns() + ADOPT_LIMIT_NS);
        return 0;
    }
    return serve(svc, e);
}

static void tear_down(struct service *svc)
{
    varlink_server_free(svc->server);
    host_stops_free(svc);
    stops_free(svc);
    guest_waits_free(svc);
    restarts_free(svc);
    if (svc->loop)
        readers_free(svc);
    if (svc->loop)
        applies_free(svc);
    if (svc->loop)
        power_free(svc);
    if (svc->loop)
        scopes_free(svc);
    registry_free(svc);
    groups_free(svc);
    jobs_free(svc);
    events_free(svc);
    if (svc->loop) {
        balance_stop(svc);
        history_stop(svc);
        loop_timer_free(svc->loop, svc->housekeeping);
        loop_timer_free(svc->loop, svc->adopt_timer);
        loop_uv_free(svc->loop);
    }
}

/* For the units that start and stop guests with the host: tell the service that runs. */
static int tell(const struct hv_paths *paths, const char *what, struct hv_error *e)
{
    struct varlink_client *c = NULL;
    json_t *reply = NULL;
    const bool stop = strcmp(what, "stop") == 0;
    if (!stop && strcmp(what, "start") != 0)
        return hv_fail(e, HV_USAGE, "--guests", "'%s' is neither start nor stop", what);
    int r = varlink_connect(paths->socket, &c, e);
    if (r == 0)
        r = varlink_call(c, stop ? "org.hv.Manager.StopHost" : "org.hv.Manager.StartHost", NULL, 0, &reply, e);
    if (r == 0 && stop)
        printf("%d stopped\n", (int)json_integer_value(json_object_get(reply, "stopped")));
    json_decref(reply);
    varlink_client_free(c);
    return r;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"system", no_argument, NULL, 's'}, {"user", no_argument, NULL, 'u'},
        {"idle", required_argument, NULL, 'i'}, {"guests", required_argument, NULL, 'g'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'}, {0},
    };
    static struct service svc = {.magic = SERVICE_MAGIC};
    struct hv_error e = {0};
    int mode = -1, c;
    uint64_t idle = UINT64_MAX;
    const char *guests = NULL;
    if (argc > 1 && strcmp(argv[argc - 1], "--read-document") == 0)
        return reader_child(SPAWN_LISTEN_FD);
    while ((c = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
        switch (c) {
        case 's': mode = HV_MODE_SYSTEM; break;
        case 'u': mode = HV_MODE_USER; break;
        case 'i':
            if (parse_duration(optarg, "--idle", &idle, &e) < 0) {
                complain(&e);
                return HV_USAGE;
            }
            break;
        case 'g': guests = optarg; break;
        case 'h': fputs(usage, stdout); return 0;
        case 'V': puts("hvd " HV_VERSION); return 0;
        default: fputs(usage, stderr); return HV_USAGE;
        }
    }
    if (mode < 0 || optind != argc) {
        fputs(usage, stderr);
        return HV_USAGE;
    }
    log_init("hvd");
    fault_arm_from_environment();
    signal(SIGPIPE, SIG_IGN);
    svc.idle_ns = idle != UINT64_MAX ? idle : mode == HV_MODE_USER ? USER_IDLE_NS : 0;
    svc.idle_since_ns = hv_now_ns();
    int r = hv_paths_init((enum hv_mode)mode, &svc.paths, &e);
    if (r == 0 && guests) {
        r = tell(&svc.paths, guests, &e);
        if (r == 0)
            return 0;
    }
    if (r == 0)
        r = set_up(&svc, &e);
    if (r < 0) {
        complain(&e);
        return (int)e.code;
    }
    loop_timer_set(svc.loop, svc.housekeeping, hv_now_ns() + HOUSEKEEPING_NS);
    loop_uv_run(svc.loop);
    unlink(svc.paths.socket);
    metering_save(&svc);
    tear_down(&svc);
    return (int)svc.failed;
}
