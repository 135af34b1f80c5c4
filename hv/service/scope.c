/*
 * A scope of systemd for each worker: a control group of its own, named after the VM, beside hvd's
 * unit and not in it. So a restart of hvd is nobody's business but hvd's, `systemd-cgls /hv.slice`
 * shows VMs by name, their memory and processor time are counted each for itself, and processor
 * weight and limit are the kernel's cpu controller.
 *
 *   worker made ─▶ StartTransientUnit(hv-NAME-PID.scope, PIDs=[PID]) ─▶ weight, limit: SetUnitProperties
 *
 * systemd is the one writer of control groups, so it is asked (org.freedesktop.systemd1, over the
 * system's bus or the user's), and never waited for: a worker runs where it is until it is moved.
 * Where no systemd answers, workers stay in hvd's own group, weight and limit are refused, and
 * `host doctor` says so. systemd.resource-control(5), org.freedesktop.systemd1(5).
 */
#include <errno.h>
#include <poll.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/service/cgroup.h"
#include "hv/service/service.h"

#define SYSTEMD "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"
#define SLICE "hv.slice"
#define RETRY_NS (10 * NS_PER_SEC)

struct scopes {
    struct service *svc;
    sd_bus *bus;                        /* NULL: none, see why_not */
    struct loop_fd *fd;
    struct loop_timer *timer;
    char group[200];                    /* of the slice, below the mount of control groups */
    char why_not[200];
    uint64_t tried_ns;
};

/* A question to systemd about one VM. */
struct scope_call {
    struct scopes *s;
    struct guid vm;
    pid_t pid;
    char unit[SCOPE_NAME_SIZE];         /* "": properties of one that is there */
};

/* ---- the connection, on hvd's loop ---- */

static void disconnect(struct scopes *s, const char *why)
{
    hv_strlcpy(s->why_not, why, sizeof(s->why_not));
    loop_fd_free(s->svc->loop, s->fd);
    loop_timer_stop(s->svc->loop, s->timer);
    s->fd = NULL;
    s->bus = sd_bus_close_unref(s->bus);
}

static void on_bus(void *arg, unsigned events);

/* What the bus waits for now: read, write, a time. */
static void watch(struct scopes *s)
{
    uint64_t us;
    int events = sd_bus_get_events(s->bus);
    if (events < 0 || (!s->fd && loop_fd_new(s->svc->loop, sd_bus_get_fd(s->bus), LOOP_READ, on_bus, s, &s->fd) < 0)) {
        disconnect(s, "the connection to the bus was lost");
        return;
    }
    loop_fd_set(s->svc->loop, s->fd, (events & POLLIN ? LOOP_READ : 0) | (events & POLLOUT ? LOOP_WRITE : 0));
    if (sd_bus_get_timeout(s->bus, &us) > 0 && us != UINT64_MAX)
        loop_timer_set(s->svc->loop, s->timer, us * 1000);
    else
        loop_timer_stop(s->svc->loop, s->timer);
}

static void pump(struct scopes *s)
{
    int r = 0;
    while (s->bus && (r = sd_bus_process(s->bus, NULL)) > 0) {
    }
    if (s->bus && r < 0)
        disconnect(s, "the connection to the bus was lost");
    if (s->bus)
        watch(s);
}

static void on_bus(void *arg, unsigned events) { pump(arg); }
static void on_time(void *arg)
{
    struct scopes *s = arg;
    if (s->bus)
        pump(s);
}

/*
 * The system's bus; of a user's service the one in his run-time folder, which is the one that hvd's
 * own folder lies in: an environment with another bus in it leads to nobody else's VMs.
 */
static int connect_bus(struct scopes *s)
{
    sd_bus *bus = NULL;
    if (s->svc->paths.mode == HV_MODE_SYSTEM) {
        int r = sd_bus_open_system(&s->bus);
        return r < 0 ? r : 0;
    }
    const char *run = s->svc->paths.run, *slash = strrchr(run, '/');
    hv_autofree char *path = hv_asprintf("%.*s/bus", (int)(slash ? slash - run : 0), run);
    hv_autofree char *address = path ? hv_asprintf("unix:path=%s", path) : NULL;
    int r = address ? sd_bus_new(&bus) : -ENOMEM;
    if (r >= 0 && (r = sd_bus_set_address(bus, address)) >= 0 && (r = sd_bus_set_bus_client(bus, true)) >= 0)
        r = sd_bus_start(bus);
    if (r < 0) {
        sd_bus_unref(bus);
        return r;
    }
    s->bus = bus;
    return 0;
}

static bool connected(struct scopes *s)
{
    const uint64_t now = hv_now_ns();
    if (!s)
        return false;
    if (s->bus)
        return true;
    if (s->tried_ns && now - s->tried_ns < RETRY_NS)
        return false;
    s->tried_ns = now;
    int r = connect_bus(s);
    if (r < 0) {
        if (r == -ENOENT || r == -ECONNREFUSED)
            hv_strlcpy(s->why_not, "no systemd answers here", sizeof(s->why_not));
        else
            snprintf(s->why_not, sizeof(s->why_not), "systemd cannot be asked: %s", strerror(-r));
        return false;
    }
    s->why_not[0] = 0;
    watch(s);
    return s->bus != NULL;
}

int scopes_new(struct service *svc)
{
    struct scopes *s = hv_alloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->svc = svc;
    int r = loop_timer_new(svc->loop, on_time, s, &s->timer);
    if (r < 0) {
        free(s);
        return r;
    }
    const unsigned uid = (unsigned)geteuid();
    if (svc->paths.mode == HV_MODE_SYSTEM)
        snprintf(s->group, sizeof(s->group), "/" SLICE);
    else
        snprintf(s->group, sizeof(s->group), "/user.slice/user-%u.slice/user@%u.service/" SLICE, uid, uid);
    svc->scopes = s;
    (void)connected(s);
    return 0;
}

void scopes_free(struct service *svc)
{
    struct scopes *s = svc->scopes;
    if (!s)
        return;
    if (s->bus)
        disconnect(s, "");
    loop_timer_free(svc->loop, s->timer);
    free(s);
    svc->scopes = NULL;
}

/* ---- what can be had here ---- */

/* Is the cpu controller handed down to where scopes are made? Version 1 has no such file, and systemd sees to it there. */
static bool has_cpu_controller(const struct scopes *s)
{
    char path[300], dir[sizeof(s->group)];
    hv_autofree char *text = NULL;
    hv_strlcpy(dir, s->group, sizeof(dir));
    *strrchr(dir, '/') = 0;
    snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cgroup.controllers", dir);
    if (hv_read_file(path, 4096, &text, NULL) < 0)
        return true;
    for (const char *p = text; (p = strstr(p, "cpu")); p += 3)
        if ((p == text || p[-1] == ' ') && (p[3] == ' ' || p[3] == '\n' || !p[3]))
            return true;
    return false;
}

bool scopes_usable(struct service *svc, const char **ret_why)
{
    struct scopes *s = svc->scopes;
    const bool bus = connected(s);
    *ret_why = !s ? "out of memory" : !bus || s->why_not[0] ? s->why_not
               : !has_cpu_controller(s) ? "the cpu controller is not handed to this user" : "";
    return !(*ret_why)[0];
}

char *scopes_membership(struct service *svc)
{
    const struct scopes *s = svc->scopes;
    return s && s->bus && !s->why_not[0] ? hv_asprintf("0::%s\n1:memory:%s\n", s->group, s->group) : NULL;
}

/* ---- one VM's scope ---- */

/* systemd.unit(5), "string escaping for inclusion in unit names". False: too long. */
static bool escape(const char *name, char *buf, size_t size)
{
    size_t len = 0;
    for (const char *p = name; *p; p++) {
        const unsigned char c = (unsigned char)*p;
        const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
                           c == '-' || c == ':' || (c == '.' && p != name);
        if (len + 5 > size)
            return false;
        len += (size_t)snprintf(buf + len, size - len, plain ? "%c" : "\\x%02x", c);
    }
    return true;
}

void scope_name(const char *vm, const struct guid *id, pid_t pid, char buf[SCOPE_NAME_SIZE])
{
    char escaped[SCOPE_NAME_SIZE - 32], text[GUID_TEXT_SIZE];
    if (!escape(vm, escaped, sizeof(escaped)))
        hv_strlcpy(escaped, guid_format(id, text), sizeof(escaped));
    /* With its process: a name that comes back, by a rename or a new VM, finds the old one's unit gone or not. */
    snprintf(buf, SCOPE_NAME_SIZE, "hv-%s-%d.scope", escaped, (int)pid);
}

/* CPUWeight and CPUQuota, as our settings say. */
static int append_processor(sd_bus_message *m, const struct svc_vm *vm)
{
    const uint64_t limit = vm->settings.processor.limit_pct, cpus = vm->scope_cpus;
    /* Hyper-V counts weights from 0, the kernel from 1. Microseconds a second; all of its processors is no limit. */
    const uint64_t weight = MAX(vm->settings.processor.weight, UINT64_C(1));
    const uint64_t quota = limit >= 100 ? UINT64_MAX : MAX(limit * cpus * 10000, UINT64_C(1));
    int r = sd_bus_message_append(m, "(sv)", "CPUWeight", "t", weight);
    return r < 0 ? r : sd_bus_message_append(m, "(sv)", "CPUQuotaPerSecUSec", "t", quota);
}

static int append_scope(sd_bus_message *m, const struct svc_vm *vm, pid_t pid)
{
    hv_autofree char *text = hv_asprintf("Virtual machine %s", vm->name);
    int r = text ? sd_bus_message_append(m, "(sv)(sv)(sv)", "Description", "s", text, "Slice", "s", SLICE, "PIDs", "au", 1u, (uint32_t)pid)
                 : -ENOMEM;
    if (r >= 0)
        r = sd_bus_message_append(m, "(sv)(sv)(sv)", "CollectMode", "s", "inactive-or-failed", "MemoryAccounting", "b", 1,
                                  "CPUAccounting", "b", 1);
    /* Units stop in the reverse order: what asks guests to shut down comes before their end. */
    if (r >= 0)
        r = sd_bus_message_append(m, "(sv)", "Before", "as", 1u, "hv-guests.service");
    return r < 0 ? r : append_processor(m, vm);
}

static int on_answer(sd_bus_message *m, void *arg, sd_bus_error *ignored)
{
    struct scope_call *c = arg;
    struct scopes *s = c->s;
    char id[GUID_TEXT_SIZE];
    struct svc_vm *vm = registry_find(s->svc, guid_format(&c->vm, id));
    const sd_bus_error *e = sd_bus_message_get_error(m);
    if (vm && worker_pid(vm) != c->pid)
        vm = NULL;                      /* that worker is gone, and perhaps another one there */
    if (e) {
        /* One that is refused may be so for its own sake; without systemd none can be had. */
        if (sd_bus_error_has_name(e, "org.freedesktop.DBus.Error.ServiceUnknown"))
            hv_strlcpy(s->why_not, "no systemd answers on the bus", sizeof(s->why_not));
        else if (vm)
            log_warning("vm=%s systemd: %s: %s", vm->name, c->unit[0] ? "its worker gets no scope" : "weight and limit stay", e->message);
    } else if (vm && c->unit[0]) {
        free(vm->scope);
        vm->scope = hv_strdup(c->unit);
        scope_apply(vm);                /* what was changed since it was asked for */
    }
    return 0;
}

/* Send m, which is made where r says so, and is taken over. The answer frees the call. */
static void ask(struct svc_vm *vm, pid_t pid, const char *unit, sd_bus_message *m, int r)
{
    struct scopes *s = vm->svc->scopes;
    struct scope_call *c = hv_alloc(sizeof(*c));
    sd_bus_slot *slot = NULL;
    if (c) {
        *c = (struct scope_call){.s = s, .vm = vm->id, .pid = pid};
        hv_strlcpy(c->unit, unit, sizeof(c->unit));
    }
    if (r >= 0)
        r = c ? sd_bus_call_async(s->bus, &slot, m, on_answer, c, 0) : -ENOMEM;
    sd_bus_message_unref(m);
    if (r < 0) {
        free(c);
        log_warning("vm=%s systemd cannot be asked: %s", vm->name, strerror(-r));
        return;
    }
    sd_bus_slot_set_destroy_callback(slot, free);
    sd_bus_slot_set_floating(slot, true);      /* the bus's: gone with the answer, or with the bus */
    sd_bus_slot_unref(slot);
    watch(s);
}

void scope_make(struct svc_vm *vm, pid_t pid)
{
    struct scopes *s = vm->svc->scopes;
    char unit[SCOPE_NAME_SIZE];
    sd_bus_message *m = NULL;
    if (!connected(s))
        return;
    vm->scope_cpus = vm->settings.processor.cpus;
    scope_name(vm->name, &vm->id, pid, unit);
    int r = sd_bus_message_new_method_call(s->bus, &m, SYSTEMD, "StartTransientUnit");
    if (r >= 0 && (r = sd_bus_message_append(m, "ss", unit, "fail")) >= 0 && (r = sd_bus_message_open_container(m, 'a', "(sv)")) >= 0 &&
        (r = append_scope(m, vm, pid)) >= 0 && (r = sd_bus_message_close_container(m)) >= 0)
        r = sd_bus_message_append(m, "a(sa(sv))", 0u);
    ask(vm, pid, unit, m, r);
}

void scope_apply(struct svc_vm *vm)
{
    struct scopes *s = vm->svc->scopes;
    sd_bus_message *m = NULL;
    if (!vm->scope || !connected(s))
        return;
    int r = sd_bus_message_new_method_call(s->bus, &m, SYSTEMD, "SetUnitProperties");
    if (r >= 0 && (r = sd_bus_message_append(m, "sb", vm->scope, 1)) >= 0 && (r = sd_bus_message_open_container(m, 'a', "(sv)")) >= 0 &&
        (r = append_processor(m, vm)) >= 0)
        r = sd_bus_message_close_container(m);
    ask(vm, worker_pid(vm), "", m, r);
}

/* The worker of an earlier hvd is in the scope it was given: the last word of its group's path, "N:LIST:/.../hv-x-1.scope". */
void scope_take_over(struct svc_vm *vm, pid_t pid)
{
    char path[64];
    hv_autofree char *text = NULL;
    snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    if (hv_read_file(path, 64 * KIB, &text, NULL) < 0)
        return;
    for (char *line = text, *end; *line && !vm->scope; line = end) {
        end = line + strcspn(line, "\n");
        if (*end)
            *end++ = 0;
        const char *last = strrchr(line, '/'), *dot = strrchr(line, '.');
        if (last && strncmp(last, "/hv-", 4) == 0 && dot > last && strcmp(dot, ".scope") == 0)
            vm->scope = hv_strdup(last + 1);
    }
    vm->scope_cpus = vm->settings.processor.cpus;
}

void scope_forget(struct svc_vm *vm)
{
    free(vm->scope);
    vm->scope = NULL;
}
