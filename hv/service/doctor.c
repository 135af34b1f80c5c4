/* What `hvctl host doctor` says: a line a subject, and what to do where something is missing. */
#include <errno.h>
#include <pwd.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "hv/base/strbuf.h"
#include "hv/base/units.h"
#include "hv/service/service.h"

static void check(json_t *list, const char *name, const char *status, const char *hint, const char *message)
{
    json_array_append_new(list, json_pack("{s:s s:s s:s s:s?}", "name", name, "status", status, "message", message,
                                          "hint", hint));
}

static void check_engine(json_t *list)
{
    bool virt = host_virtualization();
    const bool usable = access("/dev/kvm", R_OK | W_OK) == 0;
    const char *dev = usable                         ? "/dev/kvm can be opened"
                      : access("/dev/kvm", F_OK) == 0 ? "/dev/kvm is there but not for this user"
                                                      : "there is no /dev/kvm";
    char text[300];
    snprintf(text, sizeof(text), "%s; the CPU shows %s; auto takes %s", dev,
             virt ? "VT-x or AMD-V" : "neither VT-x nor AMD-V", usable && virt ? "kvm" : "soft");
    check(list, "engine", "ok", NULL, text);
    check(list, "trust", "ok", NULL,
          "soft: one guest is one trust domain; for users who do not trust each other inside one guest take "
          "--mitigations guest");
}

static void check_memory(struct service *svc, json_t *list)
{
    struct host_memory m;
    char a[32], b[32], c[32], text[200];
    host_memory(svc, &m);
    snprintf(text, sizeof(text), "%s in all%s, %s available, %s kept for the host", format_size(m.total, a, sizeof(a)),
             m.limited ? " (limit of a control group)" : "", format_size(m.available, b, sizeof(b)), format_size(m.reserve, c, sizeof(c)));
    bool low = m.available < m.reserve + 512 * MIB;
    check(list, "memory", low ? "warning" : "ok", low ? "stop other programs, or give VMs less startup memory" : NULL,
          text);
}

static void check_state(struct service *svc, json_t *list)
{
    struct statvfs v;
    char a[32], text[HV_PATH_SIZE + 100];
    if (statvfs(svc->paths.state, &v) < 0) {
        snprintf(text, sizeof(text), "%s: %s", svc->paths.state, strerror(errno));
        check(list, "state", "problem", "make it a folder of the user the service runs as", text);
        return;
    }
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    snprintf(text, sizeof(text), "%s, %s free", svc->paths.state, format_size(room, a, sizeof(a)));
    check(list, "state", room < 64 * MIB ? "warning" : "ok", room < 64 * MIB ? "free some disk space there" : NULL, text);
}

static void check_clock(json_t *list)
{
    hv_autofree char *text = NULL;
    char msg[160];
    if (hv_read_file("/sys/devices/system/clocksource/clocksource0/current_clocksource", 64, &text, NULL) < 0)
        return;
    text[strcspn(text, "\n")] = 0;
    bool tsc = host_cpu_flag("constant_tsc") && host_cpu_flag("nonstop_tsc");
    snprintf(msg, sizeof(msg), "clock source %s; the TSC is %s", text, tsc ? "constant" : "not constant");
    check(list, "clock", tsc ? "ok" : "warning",
          tsc ? NULL : "guests keep time by the TSC: expect drift when the CPU changes its frequency", msg);
}

static void check_worker(struct service *svc, json_t *list)
{
    char text[600];
    bool ok = access(svc->worker_path, X_OK) == 0;
    snprintf(text, sizeof(text), "%s%s%s", svc->worker_path, ok ? "" : ": ", ok ? "" : strerror(errno));
    check(list, "worker", ok ? "ok" : "problem", ok ? NULL : "install hv-worker beside hvd", text);
}

/* One line for what is on, one for each layer that is not. */
static void check_sandbox(struct service *svc, json_t *list)
{
    json_t *layers = worker_sandbox_probe(svc), *l;
    strbuf_auto on = {0};
    size_t i;
    if (!layers) {
        check(list, "sandbox", "problem", "run hv-worker --probe to see why", "a worker cannot be made");
        return;
    }
    json_array_foreach(layers, i, l) {
        const char *name = json_string_value(json_object_get(l, "name")), *why = json_string_value(json_object_get(l, "why"));
        if (json_is_true(json_object_get(l, "on")))
            strbuf_addf(&on, "%s%s%s%s%s", on.len ? "; " : "", name, why ? " (" : "", why ? why : "", why ? ")" : "");
    }
    check(list, "sandbox", "ok", NULL, on.len ? on.buf : "nothing");
    json_array_foreach(layers, i, l) {
        char text[300];
        if (json_is_true(json_object_get(l, "on")))
            continue;
        const char *why = json_string_value(json_object_get(l, "why"));
        const bool own = strcmp(json_string_value(json_object_get(l, "name")), "user") == 0 && geteuid() != 0;
        snprintf(text, sizeof(text), "no %s: %s", json_string_value(json_object_get(l, "name")), why ? why : "");
        check(list, "sandbox", own ? "ok" : "warning",
              own ? NULL : "VMs run with one wall less: look for container or kernel settings that forbid it", text);
    }
    json_decref(layers);
}

/* close_range() with its flag is the newest thing we cannot do without. */
static void check_kernel(json_t *list)
{
    struct utsname u;
    char text[200];
    unsigned major = 0, minor = 0;
    if (uname(&u) < 0)
        return;
    snprintf(text, sizeof(text), "Linux %.100s", u.release);
    bool old = sscanf(u.release, "%u.%u", &major, &minor) == 2 && (major < 5 || (major == 5 && minor < 11));
    check(list, "kernel", old ? "warning" : "ok", old ? "run Linux 5.11 or newer" : NULL, text);
}

/* Guest memory is a shared mapping: its huge pages are tmpfs' (Documentation/admin-guide/mm/transhuge.rst). */
static void check_huge_pages(json_t *list)
{
    hv_autofree char *text = NULL;
    char msg[160];
    if (hv_read_file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", 256, &text, NULL) < 0)
        return;
    char *on = strchr(text, '['), *end = on ? strchr(on, ']') : NULL;
    if (!end)
        return;
    *end = 0;
    bool never = strcmp(on + 1, "never") == 0 || strcmp(on + 1, "deny") == 0;
    snprintf(msg, sizeof(msg), "huge pages for guest memory: %s", on + 1);
    check(list, "huge-pages", "ok",
          never ? "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled, as root: guests' memory gets faster" : NULL, msg);
}

/* Without lingering logind may end a user's processes, VMs too, with the last session (loginctl(1)). */
static void check_lingering(struct service *svc, json_t *list)
{
    const struct passwd *pw = getpwuid(geteuid());
    if (svc->paths.mode == HV_MODE_SYSTEM || geteuid() == 0 || !pw || access("/run/systemd/system", F_OK) < 0)
        return;
    hv_autofree char *path = hv_asprintf("/var/lib/systemd/linger/%s", pw->pw_name);
    bool on = path && access(path, F_OK) == 0;
    check(list, "lingering", on ? "ok" : "warning", on ? NULL : "loginctl enable-linger",
          on ? "your VMs run on after you log out" : "your VMs may be ended when you log out");
}

/* Control groups of their own are systemd's to give. */
static void check_scopes(struct service *svc, json_t *list)
{
    const char *why;
    char text[300];
    const bool on = scopes_usable(svc, &why);
    snprintf(text, sizeof(text), on ? "each VM has a scope in hv.slice" : "VMs share hvd's control group: %s", why);
    check(list, "scopes", "ok", on ? NULL : "without systemd there is neither processor set --weight nor --limit", text);
}

/* After an upgrade VMs keep the worker they were started with. */
static void check_versions(struct service *svc, json_t *list)
{
    char text[200];
    unsigned old = 0, running = 0;
    for (const struct svc_vm *vm = svc->vms; vm; vm = vm->next) {
        const char *build = worker_build(vm);
        running += build != NULL;
        old += build && strcmp(build, HV_VERSION) != 0;
    }
    if (!running)
        return;
    snprintf(text, sizeof(text), "%u of %u running VMs on an older worker", old, running);
    check(list, "versions", "ok", old ? "they take the new one at their next start" : NULL, text);
}

json_t *host_doctor(struct service *svc)
{
    json_t *list = json_array();
    check_engine(list);
    check_memory(svc, list);
    check_state(svc, list);
    check_worker(svc, list);
    check_sandbox(svc, list);
    check_kernel(list);
    check_clock(list);
    check_huge_pages(list);
    check_scopes(svc, list);
    check_lingering(svc, list);
    check_versions(svc, list);
    return list;
}
