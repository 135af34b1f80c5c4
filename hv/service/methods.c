/* The methods of org.hv.Manager. Each checks, changes one thing, and answers. */
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/service/service.h"

static const char *text(const json_t *params, const char *name)
{
    return json_string_value(json_object_get(params, name));
}

static bool flag(const json_t *params, const char *name)
{
    return json_is_true(json_object_get(params, name));
}

static int64_t caller(const struct varlink_call *call) { return varlink_call_peer(call)->uid; }

static void fail(struct varlink_call *call, const struct hv_error *e) { varlink_reply_error(call, e); }

static void answer_vm(struct varlink_call *call, struct svc_vm *vm)
{
    varlink_reply(call, json_pack("{s:o}", "vm", svc_vm_json(vm)), false);
}

static void answer_job(struct varlink_call *call, const struct job *job)
{
    varlink_reply(call, json_pack("{s:o}", "job", job ? job_json(job) : json_null()), false);
}

/* ---- what there is ---- */

static void get_info(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    varlink_reply(call,
                  json_pack("{s:s s:i s:s s:s}", "version", HV_VERSION, "api", SERVICE_API, "host", host, "mode",
                            svc->paths.mode == HV_MODE_SYSTEM ? "system" : "user"),
                  false);
}

/* Add the VMs a name means: itself, a GUID, a glob's matches, or the VMs of @GROUP. False: there is none. */
static bool add_matches(struct service *svc, const char *name, const json_t *groups, json_t *list)
{
    if (name[0] == '@') {
        for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
            if (group_has(svc, name + 1, vm))
                json_array_append_new(list, svc_vm_json_groups(vm, groups));
        return group_exists(svc, name + 1);
    }
    struct svc_vm *exact = registry_find(svc, name);
    bool any = exact != NULL;
    if (exact) {
        json_array_append_new(list, svc_vm_json_groups(exact, groups));
    } else if (strpbrk(name, "*?[")) {
        any = true;                    /* a glob may match nothing */
        for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
            if (fnmatch(name, vm->name, 0) == 0)
                json_array_append_new(list, svc_vm_json_groups(vm, groups));
    }
    return any;
}

static void list(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    json_t *names = json_object_get(params, "names"), *vms = json_array(), *v;
    const json_t *groups = json_is_array(json_object_get(params, "groups")) ? json_object_get(params, "groups") : NULL;
    size_t i;
    if (!json_is_array(names)) {
        for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
            json_array_append_new(vms, svc_vm_json_groups(vm, groups));
    }
    json_array_foreach(names, i, v) {
        if (!add_matches(svc, json_string_value(v), groups, vms)) {
            struct hv_error e = {0};
            const char *name = json_string_value(v);
            hv_fail(&e, HV_NOT_FOUND, name, name[0] == '@' ? "no such group" : "no such VM");
            json_decref(vms);
            fail(call, &e);
            return;
        }
    }
    varlink_reply(call, json_pack("{s:o}", "vms", vms), false);
}

static void export_vm(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    hv_autofree char *xml = NULL;
    struct hv_error e = {0};
    if (!vm)
        return;
    if (registry_xml(vm, &xml, NULL, &e) < 0) {
        fail(call, &e);
        return;
    }
    varlink_reply(call, json_pack("{s:s}", "xml", xml), false);
}

/* ---- create, set, remove ---- */

/*
 * Files named in settings have to open with the caller's rights: better said now than at the start.
 * Those that stand in old already (NULL: none do) were somebody's who could.
 */
static int check_paths(const struct varlink_call *call, const struct settings *s, const struct settings *old, struct hv_error *e)
{
    const struct { const char *path, *before, *what; } files[] = {
        {s->boot.kernel, old ? old->boot.kernel : NULL, "kernel"}, {s->boot.initrd, old ? old->boot.initrd : NULL, "initrd"}};
    for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
        if (!files[i].path || (files[i].before && strcmp(files[i].path, files[i].before) == 0))
            continue;
        int fd = broker_open(varlink_call_peer(call), files[i].path, files[i].what, e);
        if (fd < 0)
            return fd;
        close(fd);
    }
    int r = 0;
    for (unsigned i = 0; r == 0 && !old && i < s->disks; i++)         /* later they come one by one */
        r = disk_check_path(&s->disk[i], varlink_call_peer(call), e);
    return r;
}

static void create(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    struct hv_error e = {0};
    struct settings s;
    struct svc_vm *vm = NULL;
    bool dry = flag(params, "dry_run");
    settings_init(&s);
    const json_t *given = json_object_get(params, "settings");
    int r = settings_from_json(&s, given, &e);
    /* Hyper-V's default minimum, and never above what the guest boots with. */
    if (r == 0 && !json_object_get(json_object_get(given, "memory"), "min"))
        s.memory.min = MIN(s.memory.min, s.memory.startup);
    if (r == 0)
        r = check_paths(call, &s, NULL, &e);
    const char *group = text(params, "group");
    if (r == 0 && group && !group_exists(svc, group)) {
        r = hv_fail(&e, HV_NOT_FOUND, group, "no such group");
        hv_hint(&e, "hvctl group create %s", group);
    }
    if (r == 0)
        r = registry_create(svc, text(params, "name"), &s, flag(params, "transient"), varlink_call_peer(call)->uid,
                            dry, &vm, &e);
    settings_fini(&s);
    if (r < 0) {
        fail(call, &e);
        return;
    }
    if (group && !dry && group_add(svc, group, vm, &e) < 0) {
        fail(call, &e);
        (void)registry_remove(vm, NULL);        /* asked for in a group, and nothing else */
        return;
    }
    answer_vm(call, vm);
    if (dry)
        registry_forget(vm);
    else
        event_add(svc, "config", vm->name, "info", caller(call), NULL, NULL, "created");
}

json_t *vm_change_json(const struct settings *old, const struct settings *new, const struct setting_desc *d,
                           const char *applied)
{
    hv_autofree char *a = setting_get_text(old, d);
    hv_autofree char *b = setting_get_text(new, d);
    return json_pack("{s:s s:s? s:s? s:s}", "key", d->name, "old", a, "new", b, "applied", applied);
}

struct pending_set {
    struct varlink_call *call;
    struct service *svc;
    struct guid id;
    json_t *changes;
};

/* What the worker could not take at once waits for the next start. */
void vm_note_applied(json_t *changes, const json_t *applied)
{
    size_t i, k;
    json_t *change, *name;
    json_array_foreach(changes, i, change) {
        const char *key = json_string_value(json_object_get(change, "key"));
        bool done = !key || strcmp(key, "memory.startup") != 0;
        json_array_foreach(applied, k, name)
            done = done || strcmp(json_string_value(name), key) == 0;
        if (!done)
            json_object_set_new(change, "applied", json_string("next-start"));
    }
}

static void on_applied(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct pending_set *s = arg;
    char id[GUID_TEXT_SIZE];
    struct svc_vm *vm = registry_find(s->svc, guid_format(&s->id, id));
    if (e && e->code != HV_UNREACHABLE) {
        fail(s->call, e);
    } else if (vm) {
        if (p)
            vm_note_applied(s->changes, json_object_get(p, "applied"));
        varlink_reply(s->call, json_pack("{s:O s:o}", "changes", s->changes, "vm", svc_vm_json(vm)), false);
    }
    varlink_call_unref(s->call);
    json_decref(s->changes);
    free(s);
}

/* Memory of a running static VM moves by hand; where its guest cannot, at the next start. */
static bool by_hand(const struct svc_vm *vm, const struct settings *fresh, const struct setting_desc *d)
{
    const json_t *m = json_object_get(vm->runtime, "memory");
    return vm->state == SVC_RUNNING && strcmp(d->name, "memory.startup") == 0 && !vm->settings.memory.dynamic &&
           !fresh->memory.dynamic && json_is_true(json_object_get(m, "driver"));
}

bool vm_takes_now(const struct svc_vm *vm, const struct settings *fresh, const struct setting_desc *d)
{
    return vm->state == SVC_OFF || d->live == SETTING_NOW || by_hand(vm, fresh, d);
}

/* Tell the worker; its answer answers the call. Without one, or when nothing is live, answer now. */
static void apply_live(struct svc_vm *vm, struct varlink_call *call, json_t *changes, bool any_now)
{
    struct pending_set *p = any_now && vm->link ? hv_alloc(sizeof(*p)) : NULL;
    if (!p) {
        varlink_reply(call, json_pack("{s:o s:o}", "changes", changes, "vm", svc_vm_json(vm)), false);
        return;
    }
    *p = (struct pending_set){.call = varlink_call_ref(call), .svc = vm->svc, .id = vm->id, .changes = changes};
    struct hv_error e = {0};
    if (worker_call(vm, "org.hv.Worker.Apply", json_pack("{s:o}", "settings", worker_settings(vm)), NULL,
                    0, on_applied, p, &e) < 0)
        on_applied(p, NULL, false, &e);
}

/* Weight and limit are asked for by name: where this host cannot keep them, that is said at once. Default ones it keeps. */
static int check_shares(const struct svc_vm *vm, const struct settings *fresh, struct hv_error *e)
{
    const struct { const struct setting_desc *d; const char *what; } shares[] = {
        {&setting_table[SETTING_CPU_WEIGHT], "weigh"}, {&setting_table[SETTING_CPU_LIMIT], "limit"}};
    const char *why;
    for (unsigned i = 0; i < ARRAY_SIZE(shares); i++) {
        if (setting_equal(&vm->settings, fresh, shares[i].d) || setting_number(fresh, shares[i].d) == shares[i].d->def ||
            scopes_usable(vm->svc, &why))
            continue;
        hv_fail(e, HV_UNSUPPORTED, vm->name, "cannot %s its processors: %s", shares[i].what, why);
        hv_hint(e, "hvctl host doctor");
        return -ENOTSUP;
    }
    return 0;
}

static void set(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    if (!vm)
        return;
    struct hv_error e = {0};
    const char *when = text(params, "when");
    bool now = when && strcmp(when, "now") == 0, next = when && strcmp(when, "next-start") == 0;
    struct settings fresh;
    settings_init(&fresh);
    int r = settings_copy(&fresh, &vm->settings);
    if (r < 0)
        hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
    if (r == 0 && json_object_get(json_object_get(params, "settings"), "disks"))
        r = hv_fail(&e, HV_USAGE, "disks", "they are changed with AddDisk, RemoveDisk and SetDisk");
    if (r == 0)
        r = settings_from_json(&fresh, json_object_get(params, "settings"), &e);
    if (r == 0)
        r = settings_check(&fresh, vm->name, &e);
    if (r == 0)
        r = check_paths(call, &fresh, &vm->settings, &e);
    if (r == 0)
        r = check_shares(vm, &fresh, &e);
    json_t *changes = json_array();
    bool any = false, any_now = false;
    for (unsigned i = 0; r == 0 && i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        bool live = vm_takes_now(vm, &fresh, d);
        if (setting_equal(&vm->settings, &fresh, d))
            continue;
        any = true;
        any_now |= vm->state != SVC_OFF && live;
        if (now && !live)
            r = hv_fail(&e, HV_CONFLICT, vm->name, "%s takes effect at the next start only", d->name);
        json_array_append_new(changes, vm_change_json(&vm->settings, &fresh, d, live && !next ? "now" : "next-start"));
    }
    if (r == 0 && any && !flag(params, "dry_run")) {
        r = registry_change(vm, &fresh, &e);
        if (r == 0) {
            event_add(vm->svc, "config", vm->name, "info", caller(call),
                      json_pack("{s:O}", "changes", changes), NULL,
                      "%zu settings changed", json_array_size(changes));
        }
    }
    settings_fini(&fresh);
    if (r < 0) {
        json_decref(changes);
        fail(call, &e);
        return;
    }
    apply_live(vm, call, changes, any_now && !next && !flag(params, "dry_run"));
}

static void preview_memory(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    struct hv_error e = {0};
    struct settings fresh;
    if (!vm)
        return;
    settings_init(&fresh);
    int r = settings_copy(&fresh, &vm->settings);
    if (r < 0)
        hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
    if (r == 0)
        r = settings_from_json(&fresh, json_object_get(params, "settings"), &e);
    if (r == 0)
        r = settings_check(&fresh, vm->name, &e);
    json_t *changes = json_array();
    for (unsigned i = 0; r == 0 && i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        bool live = vm_takes_now(vm, &fresh, d);
        if (!setting_equal(&vm->settings, &fresh, d))
            json_array_append_new(changes, vm_change_json(&vm->settings, &fresh, d, live ? "now" : "next-start"));
    }
    if (r == 0) {
        varlink_reply(call, json_pack("{s:o s:o}", "vms", balance_preview(vm, &fresh), "changes", changes), false);
    } else {
        json_decref(changes);
        fail(call, &e);
    }
    settings_fini(&fresh);
}

static void rename_vm(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    struct hv_error e = {0};
    char old[sizeof(vm->name)];
    if (!vm)
        return;
    hv_strlcpy(old, vm->name, sizeof(old));
    if (registry_rename(vm, text(params, "new_name"), flag(params, "dry_run"), &e) < 0) {
        fail(call, &e);
        return;
    }
    if (strcmp(old, vm->name) != 0)
        event_add(arg, "config", vm->name, "info", caller(call), NULL, NULL, "renamed from %s", old);
    answer_vm(call, vm);
}

static bool has_disk(const struct svc_vm *vm, const char *path)
{
    for (unsigned i = 0; i < vm->settings.disks; i++)
        if (vm->settings.disk[i].path && strcmp(vm->settings.disk[i].path, path) == 0)
            return true;
    return false;
}

/* Paths of the disks that no other VM has: nobody names them when this one is gone. */
static json_t *disks_only_of(const struct svc_vm *vm)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < vm->settings.disks; i++) {
        const struct setting_disk *d = &vm->settings.disk[i];
        bool shared = d->dvd || !d->path;
        for (const struct svc_vm *o = vm->svc->vms; o && !shared; o = o->next)
            shared = o != vm && has_disk(o, d->path);
        if (!shared)
            json_array_append_new(list, json_string(d->path));
    }
    return list;
}

static void remove_vm(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    struct svc_vm *vm = registry_need(svc, call, params);
    struct hv_error e = {0};
    if (!vm)
        return;
    int r = 0;
    if (vm->settings.lock) {
        r = hv_fail(&e, HV_CONFLICT, vm->name, "cannot remove: it is locked");
        hv_hint(&e, "hvctl vm set %s --lock off", vm->name);
    } else if (vm->state != SVC_OFF) {
        r = hv_fail(&e, HV_CONFLICT, vm->name, "cannot remove: it is %s", svc_state_word(vm));
        hv_hint(&e, "hvctl stop %s", vm->name);
    }
    char name[sizeof(vm->name)];
    hv_strlcpy(name, vm->name, sizeof(name));
    bool transient = vm->transient;
    json_t *left = r == 0 ? disks_only_of(vm) : NULL;
    if (r == 0 && !flag(params, "dry_run")) {
        r = registry_remove(vm, &e);
        if (r == 0 && !transient)
            event_add(svc, "config", name, "info", caller(call), NULL, NULL, "removed");
    }
    if (r < 0)
        fail(call, &e);
    else
        varlink_reply(call, json_pack("{s:O}", "disks_left", left), false);
    json_decref(left);
}

/* ---- life cycle ---- */

/* Of its job: until that ends the VM is there. */
static void cancel_start(void *arg) { worker_cancel_start(arg); }

/* What a start needs, bytes of memory beside taken off: there, and opened with the rights of the peer. */
static int may_start(struct svc_vm *vm, const struct varlink_peer *peer, uint64_t beside, uint64_t *ret_takes,
                     struct handover *fds, struct hv_error *e)
{
    int r = vm->state == SVC_OFF ? 0 : hv_fail(e, HV_CONFLICT, vm->name, "cannot start: it is %s", svc_state_word(vm));
    if (r == 0 && power_host_is_stopping(vm->svc))
        r = hv_fail(e, HV_CONFLICT, vm->name, "cannot start: the host is stopping");
    if (r == 0 && !vm->settings.boot.kernel) {
        r = hv_fail(e, HV_UNSUPPORTED, vm->name, "cannot start: it has nothing to boot");
        hv_hint(e, "create it with --kernel PATH --initrd PATH; booting from its disk is not in this version");
    }
    if (r == 0)
        r = host_admit(vm, beside, ret_takes, e);
    return r < 0 ? r : handover_for_start(vm, peer, fds, e);
}

int vm_begin_start(struct svc_vm *vm, const struct varlink_peer *peer, bool paused, struct job **ret_job,
                   struct hv_error *e)
{
    struct service *svc = vm->svc;
    struct handover fds = {0};
    uint64_t takes;
    *ret_job = NULL;
    if (vm->state == SVC_RUNNING || vm->state == SVC_PAUSED)
        return 0;
    /* Somebody else asked a moment ago: the same end for both. */
    if (vm->state == SVC_STARTING && (*ret_job = job_find(svc, worker_start_job(vm))))
        return 0;
    int r = may_start(vm, peer, 0, &takes, &fds, e);
    if (r < 0)
        return r;
    struct job *job = job_new(svc, "start", vm->name);
    if (!job) {
        handover_close(&fds);
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    }
    struct hv_error why = {0};
    job_on_cancel(job, cancel_start, vm);
    if (worker_start(vm, peer, &fds, paused, job, &why) < 0)
        job_done(job, &why);
    *ret_job = job;
    return 0;
}

/* All but the start itself. Whether the kernel is one, and what disks' parents are, only its worker can say. */
static void start_dry(struct svc_vm *vm, struct varlink_call *call, const json_t *params)
{
    const struct varlink_peer *peer = varlink_call_peer(call);
    const bool runs = vm->state == SVC_RUNNING || vm->state == SVC_PAUSED || vm->state == SVC_STARTING;
    struct handover fds = {0};
    struct hv_error e = {0};
    uint64_t takes = 0;
    int r = runs ? 0 : may_start(vm, peer, svc_count(params, "beside"), &takes, &fds, &e);
    if (r == 0 && !runs)
        r = disks_check(vm, peer, &e);
    handover_close(&fds);
    if (r < 0)
        fail(call, &e);
    else
        varlink_reply(call, json_pack("{s:n s:o}", "job", "memory", runs ? json_null() : json_integer((json_int_t)takes)), false);
}

static void start(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    struct hv_error e = {0};
    struct job *job;
    if (!vm)
        return;
    if (flag(params, "dry_run")) {
        start_dry(vm, call, params);
        return;
    }
    const bool off = vm->state == SVC_OFF;
    if (vm_begin_start(vm, varlink_call_peer(call), flag(params, "paused"), &job, &e) < 0) {
        fail(call, &e);
        return;
    }
    if (off)
        event_add(vm->svc, "state", vm->name, "info", caller(call), NULL, NULL, "start asked for");
    answer_job(call, job);
}

/* A stop in progress: waits for the worker's end, turns it off at the limit if asked to. */
struct stopping {
    struct service *svc;
    struct guid id;
    int64_t job;
    struct loop_timer *timer;
    bool then_turn_off, asked, over;   /* asked: on_button is still to come, and frees it when over */
    char why_not[300];                 /* the guest would not hear; said if the time runs out */
    struct stopping *next;
};

static struct svc_vm *stopping_vm(struct stopping *s)
{
    char id[GUID_TEXT_SIZE];
    return registry_find(s->svc, guid_format(&s->id, id));
}

static void stopping_free(struct stopping *s)
{
    struct stopping **at = &s->svc->stoppings;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    loop_timer_free(s->svc->loop, s->timer);
    s->timer = NULL;
    s->over = true;
    if (!s->asked)
        free(s);
}

static void ignore_reply(void *arg, json_t *p, bool continues, const struct hv_error *e) { }

static int turn_off(struct svc_vm *vm, struct hv_error *e)
{
    svc_vm_set_state(vm, SVC_STOPPING);
    return worker_call(vm, "org.hv.Worker.TurnOff", NULL, NULL, 0, ignore_reply, NULL, e);
}

static void on_stop_tick(void *arg)
{
    struct stopping *s = arg;
    struct svc_vm *vm = stopping_vm(s);
    struct job *job = job_find(s->svc, s->job);
    if (!job || !job_is_running(job)) {
        stopping_free(s);
        return;
    }
    struct hv_error e = {0};
    if (!vm || vm->state == SVC_OFF) {
        job_done(job, NULL);
        stopping_free(s);
        return;
    }
    if (s->then_turn_off) {
        s->then_turn_off = false;
        if (turn_off(vm, &e) < 0)
            worker_kill(vm);
        loop_timer_set(s->svc->loop, s->timer, hv_now_ns() + 10 * NS_PER_SEC);
        return;
    }
    if (vm->state == SVC_STOPPING)
        svc_vm_set_state(vm, SVC_RUNNING);
    hv_fail(&e, HV_TIMEOUT, vm->name, "%s", s->why_not[0] ? s->why_not : "the guest did not shut down in time");
    hv_hint(&e, "hvctl stop %s --turn-off", vm->name);
    job_done(job, &e);
    stopping_free(s);
}

void stop_check(struct svc_vm *vm)
{
    for (struct stopping *s = vm->svc->stoppings; s; s = s->next)
        if (guid_equal(&s->id, &vm->id))
            loop_timer_set(s->svc->loop, s->timer, hv_now_ns());
}

void stops_free(struct service *svc)
{
    while (svc->stoppings)
        stopping_free(svc->stoppings);
}

static void on_button(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct stopping *s = arg;
    s->asked = false;
    if (s->over) {
        free(s);
        return;
    }
    if (e && e->code != HV_UNREACHABLE)
        hv_strlcpy(s->why_not, e->message, sizeof(s->why_not));
    if (s->why_not[0])                 /* no use waiting for a guest that cannot hear */
        loop_timer_set(s->svc->loop, s->timer, hv_now_ns());
}

/* Nobody waits any more. The guest was asked, and may go off all the same. */
static void cancel_stop(void *arg)
{
    struct stopping *s = arg;
    struct svc_vm *vm = stopping_vm(s);
    struct hv_error e = {0};
    if (vm && vm->state == SVC_STOPPING)
        svc_vm_set_state(vm, SVC_RUNNING);
    hv_fail(&e, HV_FAILED, vm ? vm->name : "", "the job was cancelled");
    job_done(job_find(s->svc, s->job), &e);
    loop_timer_set(s->svc->loop, s->timer, hv_now_ns());
}

int vm_begin_stop(struct svc_vm *vm, enum stop_how how, uint64_t limit_ns, bool then_turn_off, struct job **ret_job,
                  struct hv_error *e)
{
    const bool pull = how == STOP_PULL;
    struct service *svc = vm->svc;
    struct stopping *s = hv_alloc(sizeof(*s));
    struct job *job = s ? job_new(svc, pull ? "turn-off" : "stop", vm->name) : NULL;
    if (!job || loop_timer_new(svc->loop, on_stop_tick, s, &s->timer) < 0) {
        int r = hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
        if (job)
            job_done(job, e);
        free(s);
        return r;
    }
    s->svc = svc;
    s->next = svc->stoppings;
    svc->stoppings = s;
    s->id = vm->id;
    s->job = job_id(job);
    s->then_turn_off = then_turn_off;
    struct hv_error why = {0};
    if (pull) {
        /* The process ends by itself; a worker that hangs is killed after the limit of a moment. */
        if (turn_off(vm, &why) < 0)
            worker_kill(vm);
        loop_timer_set(svc->loop, s->timer, hv_now_ns() + 10 * NS_PER_SEC);
        s->then_turn_off = true;
    } else {
        svc_vm_set_state(vm, SVC_STOPPING);
        job_on_cancel(job, cancel_stop, s);
        loop_timer_set(svc->loop, s->timer, hv_now_ns() + limit_ns);
        s->asked = worker_call(vm, "org.hv.Worker.PowerButton", json_pack("{s:b}", "force", how == STOP_FORCE), NULL, 0, on_button, s, &why) == 0;
        if (!s->asked)
            worker_kill(vm);
    }
    *ret_job = job;
    return 0;
}

static void stop(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    struct svc_vm *vm = registry_need(svc, call, params);
    struct hv_error e = {0};
    struct job *job = NULL;
    if (!vm)
        return;
    if (vm->state == SVC_OFF) {
        answer_job(call, NULL);
        return;
    }
    const char *mode = text(params, "mode"), *then = text(params, "then");
    bool pull = strcmp(mode, "turn-off") == 0;
    int r = 0;
    if (!pull && strcmp(mode, "shutdown") != 0) {
        r = hv_fail(&e, HV_USAGE, mode, "there is no such way to stop");
    } else if (pull && vm->settings.lock) {
        r = hv_fail(&e, HV_CONFLICT, vm->name, "cannot turn off: it is locked");
    } else if (!pull && vm->state == SVC_PAUSED) {
        r = hv_fail(&e, HV_CONFLICT, vm->name, "a paused guest cannot shut down");
        hv_hint(&e, "hvctl resume %s, or hvctl stop %s --turn-off", vm->name, vm->name);
    }
    json_t *ms = json_object_get(params, "timeout_ms");
    uint64_t limit = json_is_integer(ms) ? (uint64_t)MAX(json_integer_value(ms), 0) * NS_PER_MS : 120 * NS_PER_SEC;
    if (r == 0) {
        event_add(svc, "state", vm->name, "info", caller(call), NULL, NULL, "%s asked for", pull ? "turn-off" : "shutdown");
        r = vm_begin_stop(vm, pull ? STOP_PULL : flag(params, "force") ? STOP_FORCE : STOP_ASK, limit, then && strcmp(then, "turn-off") == 0, &job, &e);
    }
    if (r < 0)
        fail(call, &e);
    else
        answer_job(call, job);
}

static void job_reply(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct hv_error why = {0};
    if (e && e->code == HV_UNREACHABLE) {
        hv_fail(&why, HV_FAILED, job_object(arg), "its worker ended before it answered");
        e = &why;
    }
    job_done(arg, e);
}

/* pause, resume and reset: one call to the worker; its answer ends the job. */
static void simple(struct svc_vm *vm, struct varlink_call *call, const char *verb, const char *method)
{
    struct hv_error e = {0};
    struct job *job = job_new(vm->svc, verb, vm->name);
    int r = job ? 0 : hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
    if (r == 0)
        r = worker_call(vm, method, NULL, NULL, 0, job_reply, job, &e);
    if (r < 0) {
        if (job)
            job_done(job, &e);
        fail(call, &e);
        return;
    }
    event_add(vm->svc, "state", vm->name, "info", caller(call), NULL, NULL, "%s asked for", verb);
    answer_job(call, job);
}

static void not_running(struct svc_vm *vm, struct varlink_call *call, const char *verb)
{
    struct hv_error e = {0};
    hv_fail(&e, HV_CONFLICT, vm->name, "cannot %s: it is %s", verb, svc_state_word(vm));
    fail(call, &e);
}

static void pause_vm(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    if (!vm)
        return;
    if (vm->state == SVC_PAUSED)
        answer_job(call, NULL);
    else if (vm->state != SVC_RUNNING)
        not_running(vm, call, "pause");
    else
        simple(vm, call, "pause", "org.hv.Worker.Pause");
}

static void resume(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    if (!vm)
        return;
    if (vm->state == SVC_RUNNING)
        answer_job(call, NULL);
    else if (vm->state != SVC_PAUSED)
        not_running(vm, call, "resume");
    else
        simple(vm, call, "resume", "org.hv.Worker.Resume");
}

static void restart(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    struct hv_error e = {0};
    if (!vm)
        return;
    if (vm->state != SVC_RUNNING && vm->state != SVC_PAUSED) {
        not_running(vm, call, "restart");
    } else {
        const json_t *ms = json_object_get(params, "timeout_ms");
        const bool reset = strcmp(text(params, "mode"), "reset") == 0;
        struct job *job;
        if (vm->state == SVC_PAUSED && !reset) {
            hv_fail(&e, HV_CONFLICT, vm->name, "a paused guest cannot restart");
            hv_hint(&e, "hvctl resume %s, or hvctl restart %s --reset", vm->name, vm->name);
        }
        uint64_t limit = json_is_integer(ms) ? (uint64_t)MAX(json_integer_value(ms), 0) * NS_PER_MS : 120 * NS_PER_SEC;
        if (hv_error_is_set(&e) || vm_begin_restart(vm, reset, limit, &job, &e) < 0) {
            fail(call, &e);
            return;
        }
        event_add(vm->svc, "state", vm->name, "info", caller(call), NULL, NULL, "%s asked for", reset ? "reset" : "restart");
        answer_job(call, job);
    }
}

/* ---- jobs ---- */

static void list_jobs(void *arg, struct varlink_call *call, const json_t *params)
{
    varlink_reply(call, json_pack("{s:o}", "jobs", jobs_json(arg)), false);
}

static void wait_job(void *arg, struct varlink_call *call, const json_t *params)
{
    json_int_t id = json_integer_value(json_object_get(params, "id"));
    struct job *job = job_find(arg, id);
    if (!job) {
        struct hv_error e = {0};
        char name[32];
        snprintf(name, sizeof(name), "job %lld", (long long)id);
        hv_fail(&e, HV_NOT_FOUND, name, "no such job");
        fail(call, &e);
        return;
    }
    job_wait(job, call);
}

static void cancel_job(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    json_int_t id = json_integer_value(json_object_get(params, "id"));
    struct job *job = job_find(svc, id);
    struct hv_error e = {0};
    char name[32];
    snprintf(name, sizeof(name), "job %lld", (long long)id);
    if ((job ? job_cancel(job, &e) : hv_fail(&e, HV_NOT_FOUND, name, "no such job")) < 0) {
        fail(call, &e);
        return;
    }
    event_add(svc, "job", job_object(job), "info", caller(call), NULL, NULL, "%s: cancelling asked for", name);
    answer_job(call, job);
}

/* ---- console ---- */

/*
 * The client's own connection is handed to the worker: after the reply its bytes are the
 * console's, and hvd is out of the way. Whether somebody else writes is asked first, for
 * a refusal has to be an answer to the call; two writers in the same instant: the second
 * one's connection is closed by the worker.
 */
struct console_request {
    struct varlink_call *call;
    struct service *svc;
    struct guid id;
    bool read_only, take_over, history;
    char who[96];
};

static void console_request_free(struct console_request *q)
{
    varlink_call_unref(q->call);
    free(q);
}

static void on_console_status(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct console_request *q = arg;
    struct hv_error why = {0};
    char id[GUID_TEXT_SIZE];
    const char *writer = e ? NULL : text(p, "writer");
    struct svc_vm *vm = registry_find(q->svc, guid_format(&q->id, id));
    int fd = -1;
    void *extra = NULL;
    size_t extra_len = 0;
    if (e) {
        fail(q->call, e);
    } else if (!vm || !vm->link) {
        hv_fail(&why, HV_CONFLICT, vm ? vm->name : "", "it is not running");
        fail(q->call, &why);
    } else if (writer && !q->read_only && !q->take_over) {
        hv_fail(&why, HV_CONFLICT, vm->name, "its console is being written to by %s", writer);
        hv_hint(&why, "--read-only to watch, or --take-over");
        fail(q->call, &why);
    } else if (varlink_reply_upgrade(q->call, json_pack("{s:s?}", "writer", writer), &fd, &extra, &extra_len) == 0) {
        worker_call(vm, "org.hv.Worker.Console",
                    json_pack("{s:i s:s s:b s:b s:b}", "fd", 0, "who", q->who, "read_only", q->read_only, "take_over",
                              q->take_over, "history", q->history),
                    &fd, 1, ignore_reply, NULL, &why);
        close(fd);
        free(extra);
    }
    console_request_free(q);
}

static void console(void *arg, struct varlink_call *call, const json_t *params)
{
    struct svc_vm *vm = registry_need(arg, call, params);
    struct hv_error e = {0};
    if (!vm)
        return;
    int r = 0;
    if (!varlink_call_upgrade(call))
        r = hv_fail(&e, HV_USAGE, "Console", "this call needs 'upgrade'");
    else if (vm->state == SVC_OFF || vm->state == SVC_STARTING) {
        r = hv_fail(&e, HV_CONFLICT, vm->name, "it is %s", svc_state_word(vm));
        hv_hint(&e, "hvctl start %s --console", vm->name);
    }
    struct console_request *q = r == 0 ? hv_alloc(sizeof(*q)) : NULL;
    if (r == 0 && !q)
        r = hv_fail(&e, HV_NO_RESOURCES, vm->name, "out of memory");
    if (r < 0) {
        fail(call, &e);
        return;
    }
    const struct varlink_peer *peer = varlink_call_peer(call);
    const json_t *history = json_object_get(params, "history");
    *q = (struct console_request){.call = varlink_call_ref(call), .svc = arg, .id = vm->id,
                                  .read_only = flag(params, "read_only"), .take_over = flag(params, "take_over"),
                                  .history = !history || json_is_true(history)};
    snprintf(q->who, sizeof(q->who), "uid %u (pid %d)", (unsigned)peer->uid, (int)peer->pid);
    if (worker_call(vm, "org.hv.Worker.ConsoleStatus", NULL, NULL, 0, on_console_status, q, &e) < 0) {
        fail(call, &e);
        console_request_free(q);
    }
}

/* ---- host ---- */

static void host_show(void *arg, struct varlink_call *call, const json_t *params)
{
    varlink_reply(call, json_pack("{s:o}", "host", host_json(arg)), false);
}

static void host_set(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    struct hv_error e = {0};
    bool changed;
    if (host_settings_change(svc, params, &changed, &e) < 0) {
        fail(call, &e);
        return;
    }
    if (changed)
        event_add(svc, "config", NULL, "info", caller(call), NULL, NULL, "settings of the host changed");
    varlink_reply(call, json_pack("{s:o}", "host", host_json(svc)), false);
}

static void doctor(void *arg, struct varlink_call *call, const json_t *params)
{
    varlink_reply(call, json_pack("{s:o}", "checks", host_doctor(arg)), false);
}

const struct varlink_method manager_methods[] = {
    {"GetInfo", get_info},
    {"List", list},
    {"Create", create},
    {"Set", set},
    {"PreviewMemory", preview_memory},
    {"PlanMemory", plan_memory},
    {"ReportMemory", report_memory},
    {"Meter", metering_method},
    {"AddDisk", disk_add},
    {"RemoveDisk", disk_remove},
    {"ResizeDisk", disk_resize_vm},
    {"SetDisk", disk_set},
    {"GuestItems", guest_items},
    {"SetGuestItem", guest_set_item},
    {"Freeze", guest_freeze},
    {"Thaw", guest_thaw},
    {"CopyFile", guest_copy},
    {"Remove", remove_vm},
    {"Rename", rename_vm},
    {"ListGroups", group_list_method},
    {"CreateGroup", group_create_method},
    {"RemoveGroup", group_remove_method},
    {"RenameGroup", group_rename_method},
    {"SetGroup", group_set_method},
    {"Start", start},
    {"Stop", stop},
    {"Pause", pause_vm},
    {"Resume", resume},
    {"Restart", restart},
    {"ListJobs", list_jobs},
    {"WaitJob", wait_job},
    {"CancelJob", cancel_job},
    {"Wait", wait_method},
    {"Console", console},
    {"Events", events_method},
    {"Stats", stats_method},
    {"History", history_method},
    {"ShowHost", host_show},
    {"SetHost", host_set},
    {"StopHost", host_stop_method},
    {"StartHost", host_start_method},
    {"Doctor", doctor},
    {"Export", export_vm},
    {"Apply", apply_method},
    {0},
};
