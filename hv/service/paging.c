/*
 * Restarts of guests that have less than they boot with, and smart paging (dynamic-memory 1.9, 2.6).
 * A worker that waits in state resetting gets one of these answers:
 *
 *   the host has the difference, or the balancer takes it from others within RECLAIM_NS   all in memory
 *   else, and the VM's minimum is less than its startup memory            what there is, the rest on a file
 *   else                                                                  it goes off and says why
 *
 * The file is there without a name, its blocks reserved, and gone when the worker closes it. While
 * a part lies on it the balancer leaves the VM alone: what comes free is granted to it here, and
 * its balloon is asked for what is paged. For ten minutes; then the VM is paused.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/base/units.h"
#include "hv/service/service.h"

#define RECLAIM_NS (5 * NS_PER_SEC)
#define LIMIT_NS (600 * NS_PER_SEC)
#define GRAIN (2 * MIB)

uint64_t paging_bytes(const struct svc_vm *vm) { return vm->memory.paged; }

uint64_t paging_needs(const struct svc_vm *vm) { return vm->memory.needs; }

uint64_t paging_charge(const struct svc_vm *vm, uint64_t assigned)
{
    uint64_t has = paging_bytes(vm) ? vm->memory.granted : assigned;
    return MAX(has, vm->paging.granted);
}

uint64_t paging_missing(const struct svc_vm *vm)
{
    uint64_t wants = paging_bytes(vm) ? vm->memory.assigned : paging_needs(vm), has = svc_vm_charge(vm);
    return wants > has ? wants - has : 0;
}

/* ---- the file ---- */

/* Its own folder: the one of the VM's settings, with the service's rights; a folder somebody named, with the owner's. */
static int open_file(const struct svc_vm *vm, const char **ret_where, struct hv_error *e)
{
    static char own[HV_PATH_SIZE + 8];
    const char *dir = vm->settings.memory.smart_paging;
    *ret_where = dir ? dir : own;
    if (!dir) {
        snprintf(own, sizeof(own), "%s/vms", vm->svc->paths.state);
        return broker_open_unnamed(NULL, own, "smart paging file", e);
    }
    const struct passwd *pw = getpwuid(vm->owner);
    const struct varlink_peer owner = {.uid = vm->owner, .gid = pw ? pw->pw_gid : (gid_t)vm->owner, .pid = 0};
    return broker_open_unnamed(&owner, dir, "smart paging file", e);
}

static int make_file(const struct svc_vm *vm, uint64_t bytes, struct hv_error *e)
{
    const char *where;
    char size[32];
    struct statfs fs;
    hv_autoclose int fd = open_file(vm, &where, e);
    if (fd < 0)
        return fd;
    if (fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
        return hv_fail(e, HV_UNSUPPORTED, where, "it is in memory itself: smart paging needs a folder on a disk");
    format_size(bytes, size, sizeof(size));
    if (fallocate(fd, 0, 0, (off_t)bytes) == 0)
        return hv_steal_fd(fd);
    const int err = errno;
    if (err == EOPNOTSUPP || err == ENOSYS)
        return hv_fail(e, HV_UNSUPPORTED, where, "its file system cannot reserve the %s for smart paging", size);
    return hv_fail_errno(e, err, where, "no room for the %s of smart paging", size);
}

/* ---- a restart ---- */

static void on_finished(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    (void)arg;
    if (e && e->code != HV_UNREACHABLE)
        log_warning("%s: %s", e->object, e->message);     /* it is off then, and says so itself */
}

/* granted bytes in memory, the rest on fd, which stays the caller's; refuse: NULL, or why it goes off. */
static void answer(struct svc_vm *vm, uint64_t granted, int fd, const char *refuse)
{
    struct hv_error e = {0};
    json_t *p = json_pack("{s:I s:s?}", "granted", (json_int_t)granted, "refuse", refuse);
    if (fd >= 0)
        json_object_set_new(p, "fd", json_integer(0));
    vm->paging.granted = refuse ? 0 : granted;            /* charged before it may be touched */
    vm->paging.answered = worker_call(vm, "org.hv.Worker.FinishReset", p, &fd, fd >= 0, on_finished, NULL, &e) == 0;
}

static void refuse(struct svc_vm *vm, uint64_t needs, uint64_t has, const struct hv_error *why)
{
    char need[SIZE_TEXT], there[SIZE_TEXT], text[240];
    format_sizes(needs, need, has, there);
    event_add(vm->svc, "memory", vm->name, "error", -1, NULL, why->hint[0] ? why->hint : NULL,
              "cannot restart: it needs %s, this host has %s for it; %s%s%s", need, there, why->object, why->object[0] ? ": " : "",
              why->message);
    snprintf(text, sizeof(text), "cannot restart: it needs %s, this host has %s for it; %.80s", need, there, why->message);
    answer(vm, 0, -1, text);
}

/* Exactly the VMs that smart paging is for: those that Dynamic Memory may have taken below what they boot with. */
static int may_page(const struct svc_vm *vm, struct hv_error *e)
{
    const struct settings *s = &vm->settings;
    char hint[160];
    snprintf(hint, sizeof(hint), "hvctl stop another, or hvctl memory list to see who has memory to give");
    if (!s->memory.dynamic || s->memory.min >= settings_boot_memory(s))
        hv_fail(e, HV_NO_RESOURCES, "", "smart paging is for dynamic memory with a minimum below startup");
    else if (s->memory.smart_paging && strcmp(s->memory.smart_paging, "none") == 0)
        hv_fail(e, HV_NO_RESOURCES, "", "smart paging is off");
    else
        return 0;
    hv_hint(e, "%s", hint);
    return -ENOMEM;
}

static void begin(struct svc_vm *vm, uint64_t needs, uint64_t has)
{
    struct hv_error e = {0};
    char size[32];
    uint64_t granted = ROUND_DOWN(has, GRAIN), rest = needs - granted;
    hv_autoclose int fd = may_page(vm, &e) == 0 ? make_file(vm, rest, &e) : -1;
    if (fd < 0 && e.code == HV_OK)
        hv_fail(&e, HV_FAILED, vm->name, "smart paging is not possible");
    if (fd < 0) {
        if (!e.hint[0])
            hv_hint(&e, "hvctl memory set %s --smart-paging DIR, a folder on a disk with room", vm->name);
        refuse(vm, needs, has, &e);
        return;
    }
    vm->paging.began_ns = hv_now_ns();
    event_add(vm->svc, "memory", vm->name, "warning", -1, json_pack("{s:I}", "paged", (json_int_t)rest),
              "it is slow meanwhile; hvctl memory list shows who has memory to give",
              "smart paging: it restarts with %s of its memory on disk, until memory comes free",
              format_size(rest, size, sizeof(size)));
    answer(vm, granted, fd, NULL);
}

static void look_at_restart(struct svc_vm *vm, uint64_t needs, uint64_t now)
{
    struct svc_paging *p = &vm->paging;
    struct host_memory h;
    if (p->answered || vm->svc->adopting)
        return;                        /* what the others have must be known */
    if (!p->waits_ns) {
        p->waits_ns = now;
        log_info("vm=%s waits for memory to restart", vm->name);
        balance_wake(vm->svc);         /* the others are asked at once */
    }
    host_memory(vm->svc, &h);
    uint64_t has = svc_vm_charge(vm) + h.free;
    if (has >= needs)
        answer(vm, needs, -1, NULL);
    else if (now - p->waits_ns >= RECLAIM_NS)
        begin(vm, needs, has);
}

/* ---- while a part is on the file ---- */

static void on_done(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    (void)arg;
    if (e && e->code != HV_UNREACHABLE)
        log_debug("paging", "%s: %s", e->object, e->message);      /* asked again with the next report */
}

static void ask(struct svc_vm *vm, const char *method, uint64_t bytes)
{
    struct hv_error e = {0};
    (void)worker_call(vm, method, json_pack("{s:I}", "bytes", (json_int_t)bytes), NULL, 0, on_done, NULL, &e);
}

static void look_at_paging(struct svc_vm *vm, uint64_t paged, uint64_t now)
{
    struct svc_paging *p = &vm->paging;
    const struct svc_memory *m = &vm->memory;
    const json_t *memory = json_object_get(vm->runtime, "memory");
    struct host_memory h;
    struct hv_error e = {0};
    if (vm->svc->adopting)
        return;
    if (!p->began_ns)                  /* under an hvd before this one */
        p->began_ns = now - MIN(now - 1, m->uptime_ms * NS_PER_MS);
    uint64_t granted = svc_vm_charge(vm), assigned = m->assigned;
    host_memory(vm->svc, &h);
    uint64_t more = MIN(h.free, assigned > granted ? assigned - granted : 0);
    if (more >= GRAIN || (more && more == assigned - granted)) {
        granted += more;
        p->granted = granted;
        ask(vm, "org.hv.Worker.GrantMemory", granted);
    }
    /* What its balloon gives makes room in memory for what is paged. */
    uint64_t target = ROUND_UP(MAX(granted, vm->settings.memory.min), GRAIN);
    if (m->can_balloon && assigned > target && (uint64_t)json_integer_value(json_object_get(memory, "target")) != target)
        ask(vm, "org.hv.Worker.MemoryTarget", target);
    if (now - p->began_ns < LIMIT_NS || vm->state != SVC_RUNNING)
        return;
    p->began_ns = now;                 /* whoever resumes it gives it as long again */
    char size[32];
    event_add(vm->svc, "memory", vm->name, "error", -1, NULL, "make memory free, then hvctl resume; or hvctl stop --turn-off",
              "paused: %s of it are on disk after 10 minutes of smart paging, which is for restarts only",
              format_size(paged, size, sizeof(size)));
    (void)worker_call(vm, "org.hv.Worker.Pause", json_object(), NULL, 0, on_done, NULL, &e);
}

static void end(struct svc_vm *vm, uint64_t now)
{
    event_add(vm->svc, "memory", vm->name, "info", -1, NULL, NULL, "smart paging is over after %" PRIu64 " s: all of it is in memory",
              (now - vm->paging.began_ns) / NS_PER_SEC + 1);
    vm->paging = (struct svc_paging){0};
    ask(vm, "org.hv.Worker.MemoryTarget", 0);      /* the balancer's from here on */
}

void paging_report(struct svc_vm *vm)
{
    const uint64_t needs = paging_needs(vm), paged = paging_bytes(vm), now = hv_now_ns();
    if (needs) {
        look_at_restart(vm, needs, now);
        return;
    }
    vm->paging.waits_ns = 0;
    vm->paging.answered = false;
    if (paged)
        look_at_paging(vm, paged, now);
    else if (vm->paging.began_ns)
        end(vm, now);
    else
        vm->paging.granted = 0;
}
