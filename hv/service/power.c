/*
 * What a stop of the host means for VMs: which ran, how the host ended, and what is done at
 * its next start.
 *
 *   STATE/running/GUID   written when a VM runs, removed when it is off: the host's boot it ran
 *                        in, and "stopped" where the host stopped it in order
 *   STATE/boot           the host's boot whose on-start actions were begun
 *   STATE/alive          touched every minute: when a host that just stopped was last there
 *
 * A marker of another boot than this one is a VM that ran when the host ended. on_start says
 * what follows: resume starts those, start starts all, each after its delay.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/service/service.h"

#define ALIVE_NS (60 * NS_PER_SEC)

struct power {
    char boot[64];                      /* of the host, now */
    bool fresh, begun;                  /* nobody acted on this boot yet; actions are under way */
    bool stopping;                      /* the host stops: markers stay */
    uint64_t last_alive_ns;
    struct pending_start *starts;
};

struct pending_start {
    struct service *svc;
    struct guid id;
    struct loop_timer *timer;
    struct pending_start *next;
};

/* A caller of StopHost. */
struct host_stop {
    struct service *svc;
    struct varlink_call *call;
    unsigned stopped;
    struct host_stop *next;
};

static char *in_state(const struct service *svc, const char *name) { return hv_asprintf("%s/%s", svc->paths.state, name); }

static char *marker(const struct svc_vm *vm)
{
    char id[GUID_TEXT_SIZE];
    return hv_asprintf("%s/running/%s", vm->svc->paths.state, guid_format(&vm->id, id));
}

static void first_word(char *text) { text[strcspn(text, " \n")] = 0; }

int power_new(struct service *svc, struct hv_error *e)
{
    hv_autofree char *dir = in_state(svc, "running"), *boot = in_state(svc, "boot");
    hv_autofree char *now = NULL, *then = NULL;
    svc->power = hv_alloc(sizeof(*svc->power));
    if (!svc->power || !dir || !boot)
        return hv_fail(e, HV_NO_RESOURCES, "hvd", "out of memory");
    int r = hv_make_dir(dir, 0700, e);
    if (r < 0)
        return r;
    hv_remove_temps(dir);
    hv_remove_temps(svc->paths.state);
    if (hv_read_file("/proc/sys/kernel/random/boot_id", 128, &now, NULL) == 0) {
        first_word(now);
        hv_strlcpy(svc->power->boot, now, sizeof(svc->power->boot));
    }
    if (hv_read_own_file(boot, 128, &then, NULL) == 0)
        first_word(then);
    svc->power->fresh = !then || strcmp(then, svc->power->boot) != 0;
    return 0;
}

void power_free(struct service *svc)
{
    struct power *p = svc->power;
    while (p && p->starts) {
        struct pending_start *s = p->starts;
        p->starts = s->next;
        loop_timer_free(svc->loop, s->timer);
        free(s);
    }
    free(p);
    svc->power = NULL;
}

/* ---- markers ---- */

static void write_marker(const struct svc_vm *vm, const char *how)
{
    hv_autofree char *path = marker(vm);
    hv_autofree char *text = hv_asprintf("%s %s\n", vm->svc->power->boot, how);
    int r = path && text ? hv_replace_file(path, text, strlen(text), 0600) : -ENOMEM;
    if (r < 0)
        log_warning("vm=%s cannot note that it runs: %s", vm->name, strerror(-r));
}

void power_note(struct svc_vm *vm)
{
    struct power *p = vm->svc->power;
    if (vm->transient || !p)
        return;
    if (vm->state != SVC_OFF) {
        write_marker(vm, "running");
        vm->ran_at_stop = false;
    } else if (p->stopping) {
        write_marker(vm, "stopped");
    } else {
        hv_autofree char *path = marker(vm);
        if (path)
            unlink(path);
    }
}

/* When the host was last seen, "" if that is not known. People read the local clock. */
static void last_seen(const struct service *svc, char *buf, size_t size)
{
    hv_autofree char *path = in_state(svc, "alive");
    struct stat st;
    struct tm tm;
    buf[0] = 0;
    if (path && stat(path, &st) == 0 && localtime_r(&st.st_mtime, &tm))
        strftime(buf, size, hv_wall_ns() / NS_PER_SEC - (uint64_t)st.st_mtime < 86400 ? " %H:%M" : " %F %H:%M", &tm);
}

void power_look_back(struct svc_vm *vm)
{
    hv_autofree char *path = marker(vm);
    hv_autofree char *text = NULL;
    char seen[32];
    if (!path || vm->transient || vm->link || hv_read_own_file(path, 128, &text, NULL) < 0)
        return;
    const bool ordered = strstr(text, " stopped") != NULL;
    first_word(text);
    if (strcmp(text, vm->svc->power->boot) == 0) {
        /* This boot, no worker and no word of its end: its records went with the run-time folder. */
        if (!ordered) {
            unlink(path);
            if (!vm->reason[0])
                hv_strlcpy(vm->reason, "its worker ended while the service was away", sizeof(vm->reason));
            return;
        }
    }
    vm->ran_at_stop = true;
    last_seen(vm->svc, seen, sizeof(seen));
    snprintf(vm->reason, sizeof(vm->reason), "%s%s", ordered ? "host stopped" : "host stopped unexpectedly",
             ordered ? "" : seen);
    hv_strlcpy(vm->exit_word, "host-stopped", sizeof(vm->exit_word));
}

void power_tick(struct service *svc)
{
    hv_autofree char *path = in_state(svc, "alive");
    uint64_t now = hv_now_ns();
    if (svc->power->last_alive_ns && now - svc->power->last_alive_ns < ALIVE_NS)
        return;
    svc->power->last_alive_ns = now;
    hv_autoclose int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (fd >= 0)
        (void)futimens(fd, NULL);
}

/* ---- the start of the host ---- */

/* All are on their way: now this boot is dealt with. A service that dies before that does it again, and finds some running. */
static void settle(struct service *svc)
{
    struct power *p = svc->power;
    hv_autofree char *boot = in_state(svc, "boot");
    if (!p->begun || p->starts)
        return;
    p->begun = false;
    int r = boot ? hv_replace_file(boot, p->boot, strlen(p->boot), 0600) : -ENOMEM;
    if (r < 0)
        log_warning("%s: %s", boot ? boot : "boot", strerror(-r));
}

static void pending_free(struct pending_start *s)
{
    struct service *svc = s->svc;
    struct pending_start **at = &svc->power->starts;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    loop_timer_free(svc->loop, s->timer);
    free(s);
    settle(svc);
}

static void start_now(void *arg)
{
    struct pending_start *s = arg;
    char id[GUID_TEXT_SIZE];
    struct svc_vm *vm = registry_find(s->svc, guid_format(&s->id, id));
    struct hv_error e = {0};
    if (vm && vm->state == SVC_OFF) {
        /* Its files are opened with the rights of its owner, who is not there to ask. */
        const struct passwd *pw = getpwuid(vm->owner);
        const struct varlink_peer owner = {.uid = vm->owner, .gid = pw ? pw->pw_gid : (gid_t)vm->owner, .pid = 0};
        struct job *job;
        if (vm_begin_start(vm, &owner, false, &job, &e) < 0)
            event_add(s->svc, "state", vm->name, "error", -1, NULL, e.hint[0] ? e.hint : NULL,
                      "not started with the host: %s", e.message);
        else
            event_add(s->svc, "state", vm->name, "info", -1, NULL, NULL, "start with the host");
    }
    pending_free(s);
}

static void start_after(struct svc_vm *vm, uint64_t delay_ns)
{
    struct service *svc = vm->svc;
    struct pending_start *s = hv_alloc(sizeof(*s));
    if (!s)
        return;
    *s = (struct pending_start){.svc = svc, .id = vm->id, .next = svc->power->starts};
    svc->power->starts = s;
    if (loop_timer_new(svc->loop, start_now, s, &s->timer) < 0) {
        pending_free(s);
        return;
    }
    loop_timer_set(svc->loop, s->timer, hv_now_ns() + delay_ns);
}

void power_on_start(struct service *svc)
{
    struct power *p = svc->power;
    if (!p->fresh || !p->boot[0])
        return;
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        const bool wanted = vm->settings.on_start == SET_ON_START_START ||
                            (vm->settings.on_start == SET_ON_START_RESUME && vm->ran_at_stop);
        if (vm->ran_at_stop)
            event_add(svc, "state", vm->name, strstr(vm->reason, "unexpectedly") ? "error" : "info", -1, NULL, NULL,
                      "off: %s", vm->reason);
        if (vm->state == SVC_OFF && wanted)
            start_after(vm, vm->settings.start_delay_ms * NS_PER_MS);
    }
    p->fresh = false;
    p->begun = true;
    settle(svc);
}

bool power_pending(const struct service *svc) { return svc->power->starts != NULL; }

/* ---- the stop of the host ---- */

void power_host_stops(struct service *svc)
{
    svc->power->stopping = true;
    /* Those with an end of their own before the host's keep it; what runs now ran at the stop. */
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (vm->state != SVC_OFF && !vm->transient)
            write_marker(vm, "stopped");
}

void power_host_starts(struct service *svc)
{
    if (!svc->power->stopping)
        return;
    svc->power->stopping = false;
    svc->power->fresh = true;
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (vm->state == SVC_OFF)
            power_look_back(vm);
    power_on_start(svc);
}

static void host_stop_free(struct host_stop *h)
{
    struct host_stop **at = &h->svc->host_stops;
    while (*at && *at != h)
        at = &(*at)->next;
    if (*at)
        *at = h->next;
    varlink_call_unref(h->call);
    free(h);
}

static void host_stop_closed(void *arg) { host_stop_free(arg); }

void host_stops_free(struct service *svc)
{
    while (svc->host_stops)
        host_stop_free(svc->host_stops);
}

void host_stop_check(struct service *svc)
{
    if (!svc->host_stops)
        return;
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (vm->state != SVC_OFF)
            return;
    while (svc->host_stops) {
        struct host_stop *h = svc->host_stops;
        varlink_call_on_close(h->call, NULL, NULL);
        varlink_reply(h->call, json_pack("{s:i}", "stopped", (int)h->stopped), false);
        host_stop_free(h);
    }
}

static bool may_stop(struct varlink_call *call)
{
    struct hv_error e = {0};
    const uid_t uid = varlink_call_peer(call)->uid;
    if (uid == 0 || uid == geteuid())
        return true;
    hv_fail(&e, HV_DENIED, "host", "only root and the service's own user may say that it stops");
    varlink_reply_error(call, &e);
    return false;
}

void host_stop_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    const json_t *ms = json_object_get(params, "timeout_ms");
    const uint64_t limit = json_is_integer(ms) ? (uint64_t)MAX(json_integer_value(ms), 0) * NS_PER_MS : 120 * NS_PER_SEC;
    struct host_stop *h = may_stop(call) ? hv_alloc(sizeof(*h)) : NULL;
    if (!h)
        return;
    *h = (struct host_stop){.svc = svc, .call = varlink_call_ref(call), .next = svc->host_stops};
    svc->host_stops = h;
    varlink_call_on_close(call, host_stop_closed, h);
    power_host_stops(svc);
    event_add(svc, "host", NULL, "info", varlink_call_peer(call)->uid, NULL, NULL, "the host stops");
    for (struct svc_vm *vm = svc->vms, *next; vm; vm = next) {
        struct hv_error e = {0};
        struct job *job;
        next = vm->next;
        if (vm->state == SVC_OFF)
            continue;
        h->stopped++;
        /* A guest that cannot hear is asked nothing. A saved state is to come; until then it shuts down. */
        const bool pull = vm->settings.on_stop == SET_ON_STOP_TURN_OFF || vm->state != SVC_RUNNING;
        if (vm_begin_stop(vm, pull ? STOP_PULL : STOP_ASK, limit, true, &job, &e) < 0)
            worker_kill(vm);
    }
    host_stop_check(svc);
}

void host_start_method(void *arg, struct varlink_call *call, const json_t *params)
{
    if (!may_stop(call))
        return;
    power_host_starts(arg);
    varlink_reply(call, json_object(), false);
}

bool power_host_is_stopping(const struct service *svc) { return svc->power && svc->power->stopping; }
