/*
 * Disks of VMs: opened with the rights of whoever asks, locked, and handed to the worker, which
 * alone looks into them. Parents come one by one, as the worker finds their names.
 *
 *   attach ─▶ open leaf ─▶ AttachDisk(files) ─▶ "need a parent: try these" ─▶ open ─▶ again
 *                               └─▶ attached
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "hv/base/lockfile.h"
#include "hv/service/service.h"

#define CHAIN_MAX 256u

struct attach {
    struct service *svc;
    struct guid vm;
    struct setting_disk disk;
    struct varlink_peer peer;
    int fd[CHAIN_MAX];
    char *path[CHAIN_MAX];
    unsigned count;
    disk_attached_fn *done;
    void *arg;
};

static struct svc_vm *vm_of(const struct attach *a)
{
    char id[GUID_TEXT_SIZE];
    return registry_find(a->svc, guid_format(&a->vm, id));
}

static void attach_free(struct attach *a)
{
    while (a->count > 0) {
        close(a->fd[--a->count]);
        free(a->path[a->count]);
    }
    setting_disk_fini(&a->disk);
    free(a);
}

static void attach_end(struct attach *a, const json_t *reply, const struct hv_error *e)
{
    a->done(a->arg, reply, e);
    attach_free(a);
}

/* One more file of the chain: opened as the peer may, locked as the worker will use it. */
static int add_file(struct attach *a, const char *path, bool writing, struct hv_error *e)
{
    if (a->count == CHAIN_MAX)
        return hv_fail(e, HV_USAGE, path, "the chain of parents is longer than %u", CHAIN_MAX);
    int fd = broker_open_disk(&a->peer, path, writing, e);
    if (fd < 0)
        return fd;
    int r = hv_lock_file(fd, path, writing, e);
    char *copy = r == 0 ? hv_strdup(path) : NULL;
    if (!copy) {
        close(fd);
        return r < 0 ? r : hv_fail(e, HV_NO_RESOURCES, path, "out of memory");
    }
    a->fd[a->count] = fd;
    a->path[a->count++] = copy;
    return 0;
}

static int send_attach(struct attach *a, struct hv_error *e);

static void on_reply(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct attach *a = arg;
    const json_t *need = json_object_get(p, "need"), *path;
    struct hv_error why = {0};
    size_t i;
    if (e || !json_is_array(need)) {
        attach_end(a, p, e);
        return;
    }
    int r = -ENOENT;
    json_array_foreach((json_t *)(uintptr_t)need, i, path) {
        const char *text = json_string_value(path);
        hv_error_clear(&why);
        if (r < 0 && text && text[0] == '/')
            r = add_file(a, text, false, &why);
        if (r == 0 || (r < 0 && why.code != HV_NOT_FOUND))
            break;
    }
    if (r == 0)
        r = send_attach(a, &why);
    else if (why.code == HV_NOT_FOUND || !hv_error_is_set(&why)) {
        const char *child = json_string_value(json_object_get(p, "child"));
        const char *first = json_string_value(json_array_get(need, 0));
        hv_fail(&why, HV_NOT_FOUND, child, "its parent %s was not found", first ? first : "");
        hv_hint(&why, "vhdtool chain %s --set-parent PATH", child ? child : a->disk.path);
    }
    if (r < 0)
        attach_end(a, NULL, &why);
}

static int send_attach(struct attach *a, struct hv_error *e)
{
    struct svc_vm *vm = vm_of(a);
    json_t *files = json_array();
    for (unsigned i = 0; i < a->count; i++)
        json_array_append_new(files, json_pack("{s:s s:i}", "path", a->path[i], "fd", (int)i));
    json_t *params = json_pack("{s:o s:o}", "disk", setting_disk_to_json(&a->disk), "files", files);
    if (!vm || !vm->link) {
        json_decref(params);
        return hv_fail(e, HV_CONFLICT, vm ? vm->name : "", "it is not running");
    }
    return worker_call(vm, "org.hv.Worker.AttachDisk", params, a->fd, a->count, on_reply, a, e);
}

int disk_attach(struct svc_vm *vm, const struct setting_disk *d, const struct varlink_peer *peer, disk_attached_fn *done,
                void *arg, struct hv_error *e)
{
    struct attach *a = hv_alloc(sizeof(*a));
    if (!a)
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    *a = (struct attach){.svc = vm->svc, .vm = vm->id, .disk = *d, .peer = *peer, .done = done, .arg = arg};
    a->disk.path = d->path ? hv_strdup(d->path) : NULL;
    int r = d->path && !a->disk.path ? hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory") : 0;
    if (r == 0 && d->path)
        r = add_file(a, d->path, !d->read_only && !d->dvd, e);
    if (r == 0)
        r = send_attach(a, e);
    if (r < 0)
        attach_free(a);
    return r;
}

int disk_check_path(const struct setting_disk *d, const struct varlink_peer *peer, struct hv_error *e)
{
    if (!d->path)
        return 0;
    int fd = broker_open_disk(peer, d->path, !d->read_only && !d->dvd, e);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

int disks_check(const struct svc_vm *vm, const struct varlink_peer *peer, struct hv_error *e)
{
    int fds[SETTING_DISKS_MAX], r = 0;
    unsigned n = 0;
    for (unsigned i = 0; r == 0 && i < vm->settings.disks; i++) {
        const struct setting_disk *d = &vm->settings.disk[i];
        const bool writing = !d->read_only && !d->dvd;
        int fd = d->path ? broker_open_disk(peer, d->path, writing, e) : -1;
        if (!d->path)
            continue;
        r = fd < 0 ? fd : hv_lock_file(fd, d->path, writing, e);
        if (fd >= 0)
            fds[n++] = fd;             /* locked until all are: one file at two places is in use, too */
    }
    while (n > 0)
        close(fds[--n]);
    return r;
}

/* ---- methods ---- */

/* A change under way at the worker: what is stored when it says yes. */
struct change {
    struct varlink_call *call;         /* NULL: done() is told instead */
    struct varlink_peer peer;
    void (*done)(void *arg, const struct hv_error *e);
    void *arg;
    struct service *svc;
    struct guid vm;
    struct setting_disk disk;          /* as it will be; remove: only lun counts */
    bool remove;
    const char *what;                  /* "added", for the event */
};

static void change_free(struct change *c)
{
    if (c->call)
        varlink_call_unref(c->call);
    setting_disk_fini(&c->disk);
    free(c);
}

/* Store the VM's settings with the change in them; the old ones stay if that fails. */
static int store(struct svc_vm *vm, const struct change *c, struct hv_error *e)
{
    struct settings fresh;
    settings_init(&fresh);
    int r = settings_copy(&fresh, &vm->settings);
    if (r == 0 && c->remove)
        settings_disk_remove(&fresh, c->disk.lun);
    else if (r == 0)
        r = settings_disk_put(&fresh, &c->disk);
    if (r < 0) {
        settings_fini(&fresh);
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    }
    r = registry_change(vm, &fresh, e);
    settings_fini(&fresh);
    return r;
}

static void finish(struct change *c, const json_t *reply, const struct hv_error *e)
{
    char id[GUID_TEXT_SIZE], where[SETTING_LOCATION_SIZE];
    struct svc_vm *vm = registry_find(c->svc, guid_format(&c->vm, id));
    const char *format = json_string_value(json_object_get(reply, "format"));
    struct hv_error why = {0};
    if (e)
        why = *e;
    if (format)
        (void)setting_format_parse(format, &c->disk.format);
    if (!e && !vm)
        hv_fail(&why, HV_NOT_FOUND, "", "no such VM");
    if (!hv_error_is_set(&why))
        (void)store(vm, c, &why);
    if (!hv_error_is_set(&why))
        event_add(c->svc, "disk", vm->name, "info", (int64_t)c->peer.uid, NULL, NULL, "%s: %s%s%s",
                  setting_disk_location(&c->disk, where), c->what, c->disk.path ? " " : "", c->disk.path ? c->disk.path : "");
    if (!c->call) {
        c->done(c->arg, hv_error_is_set(&why) ? &why : NULL);
    } else if (hv_error_is_set(&why)) {
        varlink_reply_error(c->call, &why);
    } else {
        json_t *answer = json_pack("{s:o s:o}", "disk", setting_disk_to_json(&c->disk), "vm", svc_vm_json(vm));
        if (json_object_get(reply, "old_size")) {
            json_object_set(answer, "size", json_object_get(reply, "size"));
            json_object_set(answer, "old_size", json_object_get(reply, "old_size"));
        }
        varlink_reply(c->call, answer, false);
    }
    change_free(c);
}

static void on_attached(void *arg, const json_t *reply, const struct hv_error *e) { finish(arg, reply, e); }
static void on_done(void *arg, json_t *p, bool continues, const struct hv_error *e) { finish(arg, p, e); }

static bool is_running(const struct svc_vm *vm) { return vm->state == SVC_RUNNING || vm->state == SVC_PAUSED; }

/* The VM, when its disks can be changed now: off, or running. NULL after an answer. */
static struct svc_vm *need(struct service *svc, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(svc, call, params);
    struct hv_error e = {0};
    if (!vm || vm->state == SVC_OFF || is_running(vm))
        return vm;
    hv_fail(&e, HV_CONFLICT, vm->name, "cannot change its disks: it is %s", svc_state_word(vm));
    varlink_reply_error(call, &e);
    return NULL;
}

static struct change *change_new(struct svc_vm *vm, struct varlink_call *call, const char *what)
{
    struct change *c = hv_alloc(sizeof(*c));
    if (c)
        *c = (struct change){.call = varlink_call_ref(call), .peer = *varlink_call_peer(call), .svc = vm->svc, .vm = vm->id,
                             .what = what};
    return c;
}

static void give_up(struct change *c, const struct hv_error *e)
{
    varlink_reply_error(c->call, e);
    change_free(c);
}

/* A drive's medium: put in, or taken out. */
static int change_medium(struct svc_vm *vm, struct change *c, bool force, struct hv_error *e)
{
    char where[SETTING_LOCATION_SIZE];
    hv_autoclose int fd = -1;
    if (c->disk.path && (fd = broker_open_disk(&c->peer, c->disk.path, false, e)) < 0)
        return fd;
    if (fd >= 0 && hv_lock_file(fd, c->disk.path, false, e) < 0)
        return -EBUSY;
    if (!is_running(vm)) {
        finish(c, NULL, NULL);
        return 0;
    }
    json_t *p = json_pack("{s:s s:s? s:b}", "location", setting_disk_location(&c->disk, where), "path", c->disk.path, "force",
                          force);
    if (fd >= 0)
        json_object_set_new(p, "fd", json_integer(0));
    return worker_call(vm, "org.hv.Worker.ChangeMedium", p, &fd, fd >= 0, on_done, c, e);
}

/* By the worker of a VM that runs, else here and now. 0: the answer follows, or was given; c is no longer ours. */
static int carry_out(struct svc_vm *vm, struct change *c, enum disk_op op, struct hv_error *e)
{
    char where[SETTING_LOCATION_SIZE];
    setting_disk_location(&c->disk, where);
    if (op == DISK_MEDIUM)
        return change_medium(vm, c, false, e);
    if (!is_running(vm)) {
        finish(c, NULL, NULL);
        return 0;
    }
    if (op == DISK_ADD)
        return disk_attach(vm, &c->disk, &c->peer, on_attached, c, e);
    if (op == DISK_REMOVE)
        return worker_call(vm, "org.hv.Worker.DetachDisk", json_pack("{s:s}", "location", where), NULL, 0, on_done, c, e);
    return worker_call(vm, "org.hv.Worker.LimitDisk",
                       json_pack("{s:s s:I}", "location", where, "max_iops", (json_int_t)c->disk.max_iops), NULL, 0, on_done, c, e);
}

void disk_add(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = need(arg, call, params);
    struct change *c = vm ? change_new(vm, call, "added") : NULL;
    const struct varlink_peer *peer = varlink_call_peer(call);
    struct hv_error e = {0};
    bool placed;
    if (!c)
        return;
    int r = setting_disk_from_json(json_object_get(params, "disk"), &c->disk, &placed, &e);
    int lun = r == 0 && !placed ? settings_disk_free_lun(&vm->settings) : (int)c->disk.lun;
    char where[SETTING_LOCATION_SIZE];
    if (r == 0 && lun < 0)
        r = hv_fail(&e, HV_NO_RESOURCES, vm->name, "its controller is full: 64 disks");
    c->disk.lun = (unsigned)(lun < 0 ? 0 : lun);
    if (r == 0 && settings_disk(&vm->settings, c->disk.lun))
        r = hv_fail(&e, HV_CONFLICT, vm->name, "there is a disk at %s already", setting_disk_location(&c->disk, where));
    for (unsigned i = 0; r == 0 && c->disk.path && i < vm->settings.disks; i++)
        if (vm->settings.disk[i].path && strcmp(vm->settings.disk[i].path, c->disk.path) == 0 && !c->disk.dvd)
            r = hv_fail(&e, HV_CONFLICT, vm->name, "it has %s already, at %s", c->disk.path,
                        setting_disk_location(&vm->settings.disk[i], where));
    if (r == 0 && is_running(vm) && !vm->settings.hyperv)
        r = hv_fail(&e, HV_UNSUPPORTED, vm->name, "it has no Hyper-V interface, and so no disks");
    if (r == 0 && !is_running(vm))
        r = disk_check_path(&c->disk, peer, &e);
    if (r == 0)
        r = carry_out(vm, c, DISK_ADD, &e);
    if (r < 0)
        give_up(c, &e);
}

/* A change of the disk that location names, which c->disk is a copy of. NULL after an answer. */
static struct change *begin(struct service *svc, struct varlink_call *call, const json_t *params, const char *what,
                            struct svc_vm **ret_vm)
{
    struct svc_vm *vm = *ret_vm = need(svc, call, params);
    struct change *c = vm ? change_new(vm, call, what) : NULL;
    if (!c)
        return NULL;
    const char *text = json_string_value(json_object_get(params, "location"));
    struct hv_error e = {0};
    struct setting_disk *d = NULL;
    unsigned lun;
    if (setting_disk_parse_location(text ? text : "", &lun, &e) == 0 && !(d = settings_disk(&vm->settings, lun)))
        hv_fail(&e, HV_NOT_FOUND, vm->name, "there is no disk at %s", text);
    if (!d) {
        give_up(c, &e);
        return NULL;
    }
    c->disk = *d;
    c->disk.path = d->path ? hv_strdup(d->path) : NULL;
    return c;
}

void disk_remove(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm;
    struct change *c = begin(arg, call, params, "removed", &vm);
    struct hv_error e = {0};
    if (!c)
        return;
    c->remove = true;
    if (carry_out(vm, c, DISK_REMOVE, &e) < 0)
        give_up(c, &e);
}

void disk_resize_vm(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm;
    struct change *c = begin(arg, call, params, "resized", &vm);
    struct hv_error e = {0};
    char where[SETTING_LOCATION_SIZE];
    int r;
    if (!c)
        return;
    if (is_running(vm)) {
        r = worker_call(vm, "org.hv.Worker.ResizeDisk",
                        json_pack("{s:s s:I s:b}", "location", setting_disk_location(&c->disk, where), "size",
                                  json_integer_value(json_object_get(params, "size")), "add",
                                  json_is_true(json_object_get(params, "add"))),
                        NULL, 0, on_done, c, &e);
    } else {
        r = hv_fail(&e, HV_CONFLICT, vm->name, "it is off: its disk is a file");
        hv_hint(&e, "vhdtool resize %s SIZE", c->disk.path ? c->disk.path : "PATH");
    }
    if (r < 0)
        give_up(c, &e);
}

void disk_set(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm;
    struct change *c = begin(arg, call, params, "changed", &vm);
    const json_t *path = json_object_get(params, "path"), *iops = json_object_get(params, "max_iops");
    struct hv_error e = {0};
    int r = 0;
    if (!c)
        return;
    if (iops && (json_integer_value(iops) < 0 || json_integer_value(iops) > SETTING_IOPS_MAX))
        r = hv_fail(&e, HV_USAGE, "max_iops", "it is out of range");
    if (r == 0 && path) {
        const char *text = json_string_value(path);
        setting_disk_fini(&c->disk);
        c->disk.path = text && text[0] ? hv_strdup(text) : NULL;
        c->disk.format = SET_FORMAT_UNKNOWN;
        if (c->disk.dvd) {
            c->what = c->disk.path ? "inserted" : "ejected";
            r = c->disk.path && c->disk.path[0] != '/' ? hv_fail(&e, HV_USAGE, text, "is no absolute path")
                                                       : change_medium(vm, c, json_is_true(json_object_get(params, "force")), &e);
            if (r == 0)
                return;
        } else if (is_running(vm)) {
            r = hv_fail(&e, HV_CONFLICT, vm->name, "it is running: remove the disk and add the other");
        } else if (!c->disk.path || c->disk.path[0] != '/') {
            r = hv_fail(&e, HV_USAGE, text, "is no absolute path");
        } else {
            r = disk_check_path(&c->disk, varlink_call_peer(call), &e);
        }
    }
    if (r == 0 && iops) {
        c->disk.max_iops = (uint32_t)json_integer_value(iops);
        r = carry_out(vm, c, DISK_LIMIT, &e);
    } else if (r == 0) {
        finish(c, NULL, NULL);
    }
    if (r < 0)
        give_up(c, &e);
}

void disk_change(struct svc_vm *vm, enum disk_op op, const struct setting_disk *d, const struct varlink_peer *peer,
                 void (*done)(void *arg, const struct hv_error *e), void *arg)
{
    static const char *const what[] = {"added", "removed", "changed", "inserted"};
    struct change *c = hv_alloc(sizeof(*c));
    struct hv_error e = {0};
    int r = c ? 0 : hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
    if (c) {
        *c = (struct change){.peer = *peer, .done = done, .arg = arg, .svc = vm->svc, .vm = vm->id, .disk = *d,
                             .remove = op == DISK_REMOVE, .what = op == DISK_MEDIUM && !d->path ? "ejected" : what[op]};
        c->disk.path = d->path ? hv_strdup(d->path) : NULL;
        r = d->path && !c->disk.path ? hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory") : 0;
    }
    if (r == 0)
        r = carry_out(vm, c, op, &e);
    if (r < 0) {
        if (c)
            change_free(c);
        done(arg, &e);
    }
}
