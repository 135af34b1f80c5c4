/*
 * What is asked of a guest: its services, the facts it tells of itself, key-values, freeze and
 * thaw, a file into it. Statuses of the protocols become errors here, with what would help.
 *
 * Facts are read from the guest's key-value daemon when it appears and every half minute.
 */
#include <errno.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/vm/vm_private.h"
#include "hv/vsp/fcopy.h"
#include "hv/vsp/heartbeat.h"
#include "hv/vsp/ic.h"
#include "hv/vsp/kvp.h"
#include "hv/vsp/shutdown.h"
#include "hv/vsp/timesync.h"
#include "hv/vsp/vss.h"

#define FACTS_NS  (30 * NS_PER_SEC)
#define FACTS_MAX 32u

struct guest_fact { char *key, *value; };

struct guest {
    struct vm *vm;
    char host_name[256];
    struct guest_fact fact[FACTS_MAX], coming[FACTS_MAX];
    unsigned facts, more;               /* fact[facts]; coming[more]: the list that is being read */
    bool reading;
    struct vsp_timer refresh;
    const char *broken;                 /* why the last freeze was over before its time; NULL: it was not */
    uint64_t good_ns;                   /* guest clock since when it has been well; 0: it is not */
};

/* ---- services ---- */

static struct ic *ic_of(const struct vm *vm, enum vm_service_id id)
{
    switch (id) {
    case VM_SERVICE_HEARTBEAT: return vm->heartbeat ? heartbeat_ic(vm->heartbeat) : NULL;
    case VM_SERVICE_SHUTDOWN: return shutdown_ic(vm->shutdown);
    case VM_SERVICE_TIME_SYNC: return timesync_ic(vm->timesync);
    case VM_SERVICE_KVP: return kvp_ic(vm->kvp);
    case VM_SERVICE_VSS: return vss_ic(vm->vss);
    case VM_SERVICE_FILE_COPY: return fcopy_ic(vm->fcopy);
    default: return NULL;
    }
}

const char *vm_service_word(enum vm_service_id id)
{
    static const char *const words[] = {
#define SERVICE_WORD(name, word) word,
        VM_SERVICES(SERVICE_WORD)
#undef SERVICE_WORD
    };
    return words[id];
}

void vm_service(struct vm *vm, enum vm_service_id id, struct vm_service *ret)
{
    struct ic *ic = ic_of(vm, id);
    *ret = (struct vm_service){.offered = ic_offered(ic), .ready = ic_ready(ic)};
    if (!ic)
        return;
    ret->open = ic_open(ic);
    ret->stalled = ic_stalled(ic);
    ret->version = ic_version(ic);
}

void vm_services_apply(struct vm *vm)
{
    const bool wanted[VM_SERVICE_COUNT] = {
        [VM_SERVICE_HEARTBEAT] = vm->settings.services.heartbeat, [VM_SERVICE_SHUTDOWN] = vm->settings.services.shutdown,
        [VM_SERVICE_TIME_SYNC] = vm->settings.services.time_sync, [VM_SERVICE_KVP] = vm->settings.services.kvp,
        [VM_SERVICE_VSS] = vm->settings.services.vss,             [VM_SERVICE_FILE_COPY] = vm->settings.services.file_copy,
    };
    bool any = false;
    for (enum vm_service_id i = 0; i < VM_SERVICE_COUNT; i++) {
        struct ic *ic = ic_of(vm, i);
        if (ic && ic_offered(ic) != wanted[i]) {
            ic_offer(ic, wanted[i]);
            any = true;
        }
    }
    if (any && vm->state != VM_BUILT && vm->hooks.guest_changed)
        vm->hooks.guest_changed(vm->hooks.arg);
}

static void tell(struct vm *vm)
{
    if (vm->hooks.guest_changed)
        vm->hooks.guest_changed(vm->hooks.arg);
}

static void event(struct vm *vm, bool warning, const char *message, const char *hint)
{
    if (vm->hooks.guest_event)
        vm->hooks.guest_event(vm->hooks.arg, warning, message, hint);
}

/* Well: its heart beats; where no heartbeat is offered, any of its drivers listens. */
static void look_well(struct vm *vm)
{
    struct guest *g = vm->guest;
    bool well = heartbeat_status(vm->heartbeat) == HEARTBEAT_OK;
    if (!vm->settings.services.heartbeat)
        for (enum vm_service_id i = 0; i < VM_SERVICE_COUNT; i++)
            well = well || ic_ready(ic_of(vm, i));
    if (!well)
        g->good_ns = 0;
    else if (!g->good_ns)
        g->good_ns = MAX(machine_clock_ns(vm->machine), UINT64_C(1));
}

void vm_guest_changed(void *arg)
{
    struct vm *vm = arg;
    if (!vm->guest)
        return;                         /* being made */
    look_well(vm);
    tell(vm);
}

bool vm_guest_well(struct vm *vm, uint64_t *ret_ns)
{
    struct guest *g = vm->guest;
    if (!g)
        return false;
    look_well(vm);
    *ret_ns = g->good_ns ? machine_clock_ns(vm->machine) - g->good_ns : 0;
    return g->good_ns != 0;
}

/* ---- facts ---- */

static void forget(struct guest_fact *list, unsigned *n)
{
    while (*n) {
        --*n;
        free(list[*n].key);
        free(list[*n].value);
    }
}

static void on_fact(void *arg, const char *key, const char *value)
{
    struct guest *g = arg;
    struct guest_fact f = {hv_strdup(key), hv_strdup(value)};
    if (g->more < FACTS_MAX && f.key && f.value) {
        g->coming[g->more++] = f;
        return;
    }
    free(f.key);
    free(f.value);
}

static void on_facts(void *arg, uint32_t status)
{
    struct guest *g = arg;
    bool same = g->facts == g->more;
    g->reading = false;
    if (status != IC_OK) {
        forget(g->coming, &g->more);
        return;
    }
    for (unsigned i = 0; same && i < g->facts; i++)
        same = strcmp(g->fact[i].key, g->coming[i].key) == 0 && strcmp(g->fact[i].value, g->coming[i].value) == 0;
    forget(g->fact, &g->facts);
    memcpy(g->fact, g->coming, g->more * sizeof(g->fact[0]));
    g->facts = g->more;
    g->more = 0;
    if (!same)
        tell(g->vm);
}

static void ignore(void *arg, uint32_t status) { }

static void refresh(void *arg)
{
    struct guest *g = arg;
    struct kvp *k = g->vm->kvp;
    if (!kvp_ready(k))
        return;
    vsp_timer_in(&g->refresh, FACTS_NS);
    if (g->reading)
        return;
    forget(g->coming, &g->more);
    g->reading = kvp_list(k, KVP_AUTO, on_fact, on_facts, g) == 0;
}

/* What a guest may know of its host, under the names Hyper-V gives it. */
static void tell_host(struct guest *g)
{
    struct vm *vm = g->vm;
    char id[GUID_TEXT_SIZE];
    const char *const items[][2] = {
        {"HostName", g->host_name}, {"PhysicalHostName", g->host_name}, {"VirtualMachineName", vm->name},
        {"VirtualMachineId", guid_format(&vm->id, id)},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(items); i++)
        if (items[i][1][0])
            (void)kvp_set(vm->kvp, KVP_AUTO_EXTERNAL, items[i][0], items[i][1], ignore, NULL);
}

static void on_kvp(void *arg)
{
    struct vm *vm = arg;
    struct guest *g = vm->guest;
    if (!g)
        return;
    if (kvp_ready(vm->kvp)) {
        tell_host(g);
        refresh(g);
    } else if (!ic_ready(kvp_ic(vm->kvp))) {
        vsp_timer_stop(&g->refresh);
        forget(g->fact, &g->facts);
    }
    vm_guest_changed(vm);
}

void vm_guest_facts(struct vm *vm, void (*fn)(void *arg, const char *key, const char *value), void *arg)
{
    for (unsigned i = 0; vm->guest && i < vm->guest->facts; i++)
        fn(arg, vm->guest->fact[i].key, vm->guest->fact[i].value);
}

/* ---- errors ---- */

enum task { TASK_ITEMS, TASK_ITEM_SET, TASK_ITEM_REMOVE, TASK_FREEZE, TASK_THAW, TASK_COPY };

static const struct { const char *daemon; enum vm_service_id service; } tasks[] = {
    [TASK_ITEMS] = {"key-value", VM_SERVICE_KVP},       [TASK_ITEM_SET] = {"key-value", VM_SERVICE_KVP},
    [TASK_ITEM_REMOVE] = {"key-value", VM_SERVICE_KVP}, [TASK_FREEZE] = {"freeze", VM_SERVICE_VSS},
    [TASK_THAW] = {"freeze", VM_SERVICE_VSS},           [TASK_COPY] = {"file copy", VM_SERVICE_FILE_COPY},
};

static int no_daemon(const struct vm *vm, enum task t, struct hv_error *e)
{
    hv_fail(e, HV_UNSUPPORTED, vm->name, "no %s daemon in the guest", tasks[t].daemon);
    hv_hint(e, "apt install hyperv-daemons there");
    return -EOPNOTSUPP;
}

/* The words for a status other than IC_OK. object: a key or a path, of the guest's. */
static void explain(const struct vm *vm, enum task t, uint32_t status, int err, const char *object, struct hv_error *e)
{
    switch (status) {
    case IC_NOT_CONNECTED:
        no_daemon(vm, t, e);
        return;
    case IC_GONE:
        hv_fail(e, HV_CONFLICT, vm->name, "the guest went down, restarted or unloaded its driver meanwhile");
        return;
    case IC_TIMEOUT:
        hv_fail(e, HV_TIMEOUT, vm->name, "the guest's %s daemon does not answer", tasks[t].daemon);
        return;
    case IC_CANCELLED:
        hv_fail(e, HV_FAILED, vm->name, "the job was cancelled: nothing of the file stays in the guest");
        return;
    case IC_EXISTS:
        hv_fail(e, HV_CONFLICT, object, "it exists in the guest");
        hv_hint(e, "--overwrite");
        return;
    case IC_DISK_FULL:
        hv_fail(e, HV_NO_RESOURCES, object, "the guest's file system is full");
        return;
    default:
        break;
    }
    switch (t) {
    case TASK_ITEM_REMOVE:
        hv_fail(e, HV_NOT_FOUND, object, "there is no such key from the host in %s", vm->name);
        break;
    case TASK_FREEZE:
        hv_fail(e, HV_FAILED, vm->name, "a file system of the guest cannot be frozen");
        hv_hint(e, "journalctl -t \"Hyper-V VSS\" there says which");
        break;
    case TASK_THAW:
        hv_fail(e, HV_FAILED, vm->name, "the guest's freeze daemon is gone or failed: its file systems may be frozen still");
        hv_hint(e, "restart hv-vss-daemon there, or hvctl restart %s --reset", vm->name);
        break;
    case TASK_COPY:
        if (status == IC_INVALID && err == 0)
            hv_fail(e, HV_FAILED, object, "the source became shorter while it was copied");
        else if (status == IC_INVALID)
            hv_fail_errno(e, -err, object, "cannot read the source");
        else {
            hv_fail(e, HV_FAILED, object, "the guest cannot write it: no such folder, or a read-only or special place");
            hv_hint(e, "--parents makes the folders that are missing");
        }
        break;
    default:
        hv_fail(e, HV_FAILED, object[0] ? object : vm->name, "the guest refuses it (0x%08x)", status);
    }
}

/* What the protocols' functions answer at once. */
static int refused(const struct vm *vm, enum task t, int r, const char *object, struct hv_error *e)
{
    struct vm_service s;
    vm_service((struct vm *)(uintptr_t)vm, tasks[t].service, &s);
    switch (r) {
    case -EBUSY:
        if (s.stalled) {
            hv_fail(e, HV_TIMEOUT, vm->name, "the guest's %s daemon does not answer", tasks[t].daemon);
            return -ETIMEDOUT;
        }
        return hv_fail(e, HV_CONFLICT, vm->name, "its %s daemon has something else to do", tasks[t].daemon);
    case -EINVAL:
        return hv_fail(e, HV_USAGE, object, t == TASK_COPY ? "no absolute path of a file"
                                                          : "keys have 1 to %u characters, values at most %u", KVP_KEY_MAX, KVP_VALUE_MAX);
    case -ENAMETOOLONG:
        return hv_fail(e, HV_USAGE, object, "the path is longer than the %u bytes that the guest's daemon takes", FCOPY_PATH_MAX);
    case -ENOTCONN:
        return no_daemon(vm, t, e);
    default:
        return hv_fail_errno(e, -r, vm->name, "the guest cannot be asked");
    }
}

/* May the guest be asked at all? */
static int check(struct vm *vm, enum task t, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    const enum vm_service_id id = tasks[t].service;
    if (vm->state != VM_RUNNING)
        return hv_fail(e, HV_CONFLICT, vm->name, "it is %s", vm_state_word(vm->state));
    if (!vm->guest)
        return hv_fail(e, HV_UNSUPPORTED, vm->name, "it has no Hyper-V interface, and so no integration services");
    if (!ic_offered(ic_of(vm, id))) {
        hv_fail(e, HV_CONFLICT, vm->name, "its service %s is off", vm_service_word(id));
        hv_hint(e, "hvctl integration enable %s %s", vm->name, vm_service_word(id));
        return -EBUSY;
    }
    return 0;
}

/* ---- tasks ---- */

struct op {
    struct vm *vm;
    enum task task;
    char *object;
    unsigned pools;                     /* still to be listed */
    enum kvp_pool pool;
    vm_item_fn *item;
    vm_done_fn *done;
    void *arg;
};

static struct op *op_new(struct vm *vm, enum task t, const char *object, vm_done_fn *done, void *arg, struct hv_error *e)
{
    struct op *o = hv_alloc(sizeof(*o));
    char *copy = o ? hv_strdup(object) : NULL;
    if (!copy) {
        free(o);
        hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
        return NULL;
    }
    *o = (struct op){.vm = vm, .task = t, .object = copy, .done = done, .arg = arg};
    return o;
}

static void op_free(struct op *o)
{
    if (o)
        free(o->object);
    free(o);
}

static void op_end(struct op *o, uint32_t status, int err)
{
    struct hv_error e = {0};
    if (o->task == TASK_FREEZE || o->task == TASK_THAW)
        tell(o->vm);
    if (status != IC_OK)
        explain(o->vm, o->task, status, err, o->object, &e);
    o->done(o->arg, status == IC_OK ? NULL : &e);
    op_free(o);
}

static int op_begun(struct op *o, int r, struct hv_error *e)
{
    if (r == 0)
        return 0;
    r = refused(o->vm, o->task, r, o->object, e);
    op_free(o);
    return r;
}

static void on_done(void *arg, uint32_t status) { op_end(arg, status, 0); }
static void on_copied(void *arg, uint32_t status, int err) { op_end(arg, status, err); }

static void on_item(void *arg, const char *key, const char *value)
{
    struct op *o = arg;
    o->item(o->arg, kvp_pool_word(o->pool), key, value);
}

static int list_next(struct op *o);

static void on_pool(void *arg, uint32_t status)
{
    struct op *o = arg;
    if (status == IC_OK && o->pools && list_next(o) == 0)
        return;
    op_end(o, status == IC_OK && o->pools ? IC_GONE : status, 0);
}

static int list_next(struct op *o)
{
    o->pool = (enum kvp_pool)__builtin_ctz(o->pools);
    int r = kvp_list(o->vm->kvp, o->pool, on_item, on_pool, o);
    if (r == 0)
        o->pools &= o->pools - 1;
    return r;
}

int vm_items(struct vm *vm, vm_item_fn *item, vm_done_fn *done, void *arg, struct hv_error *e)
{
    int r = check(vm, TASK_ITEMS, e);
    struct op *o = r == 0 ? op_new(vm, TASK_ITEMS, "", done, arg, e) : NULL;
    if (!o)
        return r < 0 ? r : -ENOMEM;
    o->pools = (1u << KVP_COUNT_LISTED) - 1;
    o->item = item;
    return op_begun(o, list_next(o), e);
}

int vm_item_set(struct vm *vm, const char *key, const char *value, vm_done_fn *done, void *arg, struct hv_error *e)
{
    enum task t = value ? TASK_ITEM_SET : TASK_ITEM_REMOVE;
    int r = check(vm, t, e);
    struct op *o = r == 0 ? op_new(vm, t, key, done, arg, e) : NULL;
    if (!o)
        return r < 0 ? r : -ENOMEM;
    return op_begun(o, value ? kvp_set(vm->kvp, KVP_EXTERNAL, key, value, on_done, o)
                             : kvp_remove(vm->kvp, KVP_EXTERNAL, key, on_done, o), e);
}

int vm_freeze(struct vm *vm, uint64_t timeout_ns, vm_done_fn *done, void *arg, struct hv_error *e)
{
    int r = check(vm, TASK_FREEZE, e);
    if (r == 0 && !vss_frozen(vm->vss))
        vm->guest->broken = NULL;
    struct op *o = r == 0 ? op_new(vm, TASK_FREEZE, "", done, arg, e) : NULL;
    if (!o)
        return r < 0 ? r : -ENOMEM;
    r = vss_freeze(vm->vss, timeout_ns, on_done, o);
    if (r == -EALREADY) {
        op_free(o);
        return 1;
    }
    return op_begun(o, r, e);
}

int vm_thaw(struct vm *vm, vm_done_fn *done, void *arg, struct hv_error *e)
{
    int r = check(vm, TASK_THAW, e);
    if (r == 0 && !vss_frozen(vm->vss) && vm->guest->broken) {
        hv_fail(e, HV_CONFLICT, vm->name, "it was not frozen any more: %s", vm->guest->broken);
        hv_hint(e, "what was copied meanwhile may not be consistent");
        vm->guest->broken = NULL;
        return -EBUSY;
    }
    struct op *o = r == 0 ? op_new(vm, TASK_THAW, "", done, arg, e) : NULL;
    if (!o)
        return r < 0 ? r : -ENOMEM;
    r = vss_thaw(vm->vss, on_done, o);
    if (r == -EALREADY) {
        op_free(o);
        return 1;
    }
    return op_begun(o, r, e);
}

bool vm_frozen(const struct vm *vm) { return vss_frozen(vm->vss); }

int vm_copy(struct vm *vm, const struct vm_copy *c, vm_done_fn *done, void *arg, struct hv_error *e)
{
    hv_autoclose int fd = c->fd;
    int r = check(vm, TASK_COPY, e);
    struct op *o = r == 0 ? op_new(vm, TASK_COPY, c->path, done, arg, e) : NULL;
    if (!o)
        return r < 0 ? r : -ENOMEM;
    hv_autofree char *folder = hv_strdup(c->path);
    char *slash = folder ? strrchr(folder, '/') : NULL;
    if (!slash)
        return op_begun(o, -EINVAL, e);
    const char *name = c->path + (slash - folder) + 1;
    slash[slash == folder] = 0;         /* "/name": the folder is "/" */
    const struct fcopy_job job = {.fd = fd, .size = c->size, .folder = folder, .name = name, .overwrite = c->overwrite,
                                  .parents = c->parents, .done = on_copied, .arg = o};
    fd = -1;
    return op_begun(o, fcopy_start(vm->fcopy, &job), e);
}

void vm_copy_cancel(struct vm *vm)
{
    if (vm->fcopy)
        fcopy_cancel(vm->fcopy);
}

void vm_copy_progress(const struct vm *vm, uint64_t *ret_done, uint64_t *ret_size)
{
    *ret_done = *ret_size = 0;
    if (vm->fcopy)
        fcopy_progress(vm->fcopy, ret_done, ret_size);
}

/* ---- being there ---- */

static void on_thawed(void *arg, bool limit)
{
    struct vm *vm = arg;
    vm->guest->broken = limit ? "thawed after 10 minutes, longer is not allowed"
                              : "the guest went down, restarted or unloaded its driver while it was frozen";
    event(vm, true, vm->guest->broken, "what was copied meanwhile may not be consistent");
    tell(vm);
}

int vm_guest_new(struct vm *vm, struct hv_error *e)
{
    const struct vss_config vss = {.lost = on_thawed, .changed = vm_guest_changed, .arg = vm};
    struct guest *g = hv_alloc(sizeof(*g));
    if (!g)
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    g->vm = vm;
    if (gethostname(g->host_name, sizeof(g->host_name) - 1) < 0)
        g->host_name[0] = 0;
    int r = vsp_timer_init(&g->refresh, vm->machine, refresh, g);
    if (r < 0) {
        free(g);
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    }
    r = kvp_new(vm->vmbus, on_kvp, vm, &vm->kvp, e);
    if (r == 0)
        r = vss_new(vm->vmbus, &vss, &vm->vss, e);
    if (r == 0)
        r = fcopy_new(vm->vmbus, vm_guest_changed, vm, &vm->fcopy, e);
    vm->guest = g;
    if (r == 0)
        vm_services_apply(vm);
    return r;
}

void vm_guest_free(struct vm *vm)
{
    struct guest *g = vm->guest;
    kvp_free(vm->kvp);
    vss_free(vm->vss);
    fcopy_free(vm->fcopy);
    vm->kvp = NULL;
    vm->vss = NULL;
    vm->fcopy = NULL;
    vm->guest = NULL;
    if (!g)
        return;
    vsp_timer_fini(&g->refresh);
    forget(g->fact, &g->facts);
    forget(g->coming, &g->more);
    free(g);
}

void vm_guest_resumed(struct vm *vm)
{
    if (vm->guest && kvp_ready(vm->kvp))
        vsp_timer_in(&vm->guest->refresh, 0);
}
