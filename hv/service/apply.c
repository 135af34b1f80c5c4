/*
 * Apply: make the host match a document.
 *
 *   xml ─▶ reader.c ─▶ objects ─▶ plan all (apply_plan.c) ─▶ any wrong: answer, nothing done
 *                       ┌──────────────┘
 *                       └─▶ stage all ─▶ put all in place, or none ─▶ running VMs: their workers ─▶ answer
 *                    ▲                        │
 *                    └──── changed meanwhile ─┘
 *
 * Planning and staging (the new documents are written beside the old ones, and on disk) take as long as disks do:
 * they go in slices, between which others are served. Putting in place is one turn of the loop, and plans again first
 * what is not what was planned against; under steady change the last round is one turn altogether. What a running VM's
 * worker then refuses is that object's failure; the others go on.
 */
#include "hv/service/apply.h"

#include <errno.h>

#include "hv/base/log.h"

#define SLICE_NS (10 * NS_PER_MS)
#define BATCH 16u                      /* documents that are written before the first is waited for */
#define ROUNDS 4u                      /* in slices; then what others change no longer comes between */

static void item_fini(struct apply_item *it)
{
    registry_unmake(it->made);
    hv_replacement_fini(&it->file);
    settings_fini(&it->fresh);
    settings_fini(&it->before);
    json_decref(it->extras);
    json_decref(it->old_extras);
    json_decref(it->changes);
}

/* No longer one that the service ends by itself. */
static void leave(struct apply *a)
{
    struct apply **at = &a->svc->applies;
    while (*at && *at != a)
        at = &(*at)->next;
    if (*at)
        *at = a->next;
    loop_post_cancel(a->svc->loop, &a->turn);
}

static void drop_items(struct apply *a)
{
    for (unsigned i = 0; i < a->items; i++)
        item_fini(&a->item[i]);
    a->items = 0;
}

static void apply_free(struct apply *a)
{
    leave(a);
    drop_items(a);
    free(a->item);
    json_decref(a->errors);
    json_decref(a->doc);
    json_decref(a->params);
    varlink_call_unref(a->call);
    free(a);
}

static json_t *error_json(const struct hv_error *e)
{
    json_t *j = json_pack("{s:s s:s s:s s:s}", "code", hv_code_word(e->code), "object", e->object, "message", e->message, "hint",
                          e->hint);
    /* A name may have been cut inside a character. */
    return j ? j : json_pack("{s:s s:s s:s s:s}", "code", hv_code_word(e->code), "object", "", "message", "not accepted", "hint", "");
}

static json_t *item_json(const struct apply_item *it)
{
    const bool failed = hv_error_is_set(&it->error);
    const char *result = failed ? "failed" : !it->differs ? "unchanged" : it->there ? "changed" : "created";
    return json_pack("{s:s s:s s:s s:O s:o}", "kind", it->host ? "host" : "vm", "name", it->name, "result", result, "changes",
                     it->changes, "error", failed ? error_json(&it->error) : json_null());
}

static void reply(struct apply *a)
{
    json_t *objects = json_array();
    for (unsigned i = 0; i < a->items && json_array_size(a->errors) == 0; i++)
        json_array_append_new(objects, item_json(&a->item[i]));
    varlink_reply(a->call, json_pack("{s:o s:O}", "objects", objects, "errors", a->errors), false);
    apply_free(a);
}

/* Nothing lies about any more when the caller hears of it: the documents that were there go first, in slices. */
static void clear(void *arg)
{
    struct apply *a = arg;
    const uint64_t until = hv_now_ns() + SLICE_NS;
    while (a->at < a->items) {
        hv_replacement_fini(&a->item[a->at++].file);
        if (hv_now_ns() >= until) {
            loop_post(a->svc->loop, &a->turn);
            return;
        }
    }
    reply(a);
}

static void answer(struct apply *a)
{
    a->at = 0;
    a->turn.fn = clear;
    clear(a);
}

static void answer_error(struct apply *a, const struct hv_error *e)
{
    drop_items(a);
    varlink_reply_error(a->call, e);
    apply_free(a);
}

/* ---- running VMs: one after the other what their worker has to take, all VMs at once ---- */

static void next_step(struct apply_item *it);

static void item_done(struct apply_item *it)
{
    struct apply *a = it->apply;
    if (--a->pending == 0)
        answer(a);
}

/* What did not come to pass is not among the changes. */
static void forget_disks_from(struct apply_item *it, unsigned first)
{
    for (unsigned i = first; i < it->ops; i++) {
        char key[48];
        size_t n = (size_t)snprintf(key, sizeof(key), "disks.scsi0:%u", it->op[i].lun);
        for (size_t k = json_array_size(it->changes); k-- > 0;) {
            const char *have = json_string_value(json_object_get(json_array_get(it->changes, k), "key"));
            if (have && strncmp(have, key, n) == 0 && (have[n] == 0 || have[n] == '.'))
                json_array_remove(it->changes, k);
        }
    }
}

static void on_disk(void *arg, const struct hv_error *e)
{
    struct apply_item *it = arg;
    if (e) {
        it->error = *e;
        forget_disks_from(it, it->next_op - 1);
        it->next_op = it->ops;
    }
    next_step(it);
}

static void on_applied(void *arg, json_t *p, bool continues, const struct hv_error *e)
{
    struct apply_item *it = arg;
    if (e && e->code != HV_UNREACHABLE)
        it->error = *e;
    else if (p)
        vm_note_applied(it->changes, json_object_get(p, "applied"));
    next_step(it);
}

static void next_step(struct apply_item *it)
{
    struct svc_vm *vm = apply_vm(it);
    struct hv_error e = {0};
    if (!vm || it->next_op == it->ops) {
        if (!vm)
            hv_fail(&it->error, HV_NOT_FOUND, it->name, "it was removed meanwhile");
        item_done(it);
        return;
    }
    const struct apply_disk *op = &it->op[it->next_op++];
    const struct setting_disk *d = settings_disk(op->op == DISK_REMOVE ? &vm->settings : &it->fresh, op->lun);
    if (!d) {
        hv_fail(&e, HV_CONFLICT, it->name, "its disks were changed meanwhile");
        on_disk(it, &e);
        return;
    }
    disk_change(vm, op->op, d, varlink_call_peer(it->apply->call), on_disk, it);
}

static void tell_worker(struct apply_item *it)
{
    struct svc_vm *vm = apply_vm(it);
    struct hv_error e = {0};
    if (!it->any_now || !vm || !vm->link) {
        next_step(it);
        return;
    }
    if (worker_call(vm, "org.hv.Worker.Apply", json_pack("{s:o}", "settings", worker_settings(vm)), NULL, 0, on_applied,
                    it, &e) < 0)
        on_applied(it, NULL, false, &e);
}

/* ---- storing: all or nothing ---- */

static int change_host(struct service *svc, const struct host_settings *h, struct hv_error *e)
{
    json_t *o = host_settings_json(h);
    bool changed;
    int r = o ? host_settings_change(svc, o, &changed, e) : hv_fail(e, HV_NO_RESOURCES, "host", "out of memory");
    json_decref(o);
    return r;
}

/* What its document will say, as it->before. Disks of a running VM are stored one by one, as its worker takes them. */
static int settings_to_store(struct apply_item *it, const struct svc_vm *vm, struct hv_error *e)
{
    settings_fini(&it->before);
    settings_init(&it->before);
    int r = settings_copy(&it->before, &it->fresh);
    if (r == 0 && it->ops > 0)
        r = settings_disks_copy(&it->before, &vm->settings);
    return r < 0 ? hv_fail(e, HV_NO_RESOURCES, it->name, "out of memory") : 0;
}

static bool same_host(const struct host_settings *a, const struct host_settings *b)
{
    json_t *x = host_settings_json(a), *y = host_settings_json(b);
    const bool same = x && y && json_equal(x, y);
    json_decref(x);
    json_decref(y);
    return same;
}

/* Is it something else by now that was planned against? */
static bool stale(const struct apply_item *it)
{
    struct service *svc = it->apply->svc;
    if (it->host)
        return !same_host(&it->host_before, &svc->host);
    const struct svc_vm *vm = it->there || it->has_id ? apply_vm(it) : registry_find(svc, it->name);
    return it->there ? !vm || vm->revision != it->revision : vm || registry_find(svc, it->name);
}

/* Its new document, beside the old one. A host's settings are stored at once, when their turn comes. */
static int stage(struct apply_item *it, struct hv_error *e)
{
    struct svc_vm *vm = it->there ? apply_vm(it) : NULL;
    int r = 0;
    if (it->host || !it->differs || it->staged || stale(it))
        return 0;                      /* stale: it will be planned again */
    if (it->there)
        r = settings_to_store(it, vm, e);
    else
        r = registry_make(it->apply->svc, it->name, it->has_id ? &it->id : NULL, &it->fresh,
                          varlink_call_peer(it->apply->call)->uid, &it->made, e);
    return r < 0 ? r : registry_stage(vm ? vm : it->made, vm ? &it->before : NULL, it->extras, &it->file, e);
}

static int stage_sync(struct apply_item *it, struct hv_error *e)
{
    if (!it->file.path || it->staged)
        return 0;
    int r = registry_staged_sync(it->name, &it->file, e);
    it->staged = r == 0;
    return r;
}

/* In place. Items that were staged, and are what they were planned against. */
static int store(struct apply_item *it, struct hv_error *e)
{
    if (it->host)
        return change_host(it->apply->svc, &it->host_fresh, e);
    if (it->there)
        return registry_commit(apply_vm(it), &it->before, &it->file, e);
    int r = registry_commit(it->made, NULL, &it->file, e);
    if (r == 0) {
        it->id = it->made->id;
        it->created = true;
        it->made = NULL;
    }
    return r;
}

/* Something later could not be stored: as it was. */
static void undo(struct apply_item *it)
{
    struct hv_error e = {0};
    struct svc_vm *vm = it->host ? NULL : apply_vm(it);
    int r = 0;
    if (it->host)
        r = change_host(it->apply->svc, &it->host_before, &e);
    else if (it->created && vm)
        r = registry_remove(vm, &e);
    else if (vm)
        r = registry_change_all(vm, &it->before, it->old_extras, it->extras, &e);
    if (r < 0)
        log_error("%s: cannot be put back as it was: %s", it->name, e.message);
}

static int store_all(struct apply *a, struct hv_error *e)
{
    int r = 0;
    unsigned n = 0;
    for (; r == 0 && n < a->items; n++)
        if (a->item[n].differs) {
            r = store(&a->item[n], e);
            a->item[n].stored = r == 0;
        }
    if (r == 0)
        r = registry_sync(a->svc, e);
    while (r < 0 && n-- > 0)
        if (a->item[n].stored)
            undo(&a->item[n]);
    return r;
}

static void announce(struct apply *a)
{
    const int64_t who = varlink_call_peer(a->call)->uid;
    for (unsigned i = 0; i < a->items; i++) {
        const struct apply_item *it = &a->item[i];
        if (!it->stored)
            continue;
        if (it->created)
            event_add(a->svc, "config", it->name, "info", who, NULL, NULL, "created");
        else
            event_add(a->svc, "config", it->host ? NULL : it->name, "info", who, json_pack("{s:O}", "changes", it->changes), NULL,
                      "%zu settings changed", json_array_size(it->changes));
    }
}

static void carry_out(struct apply *a)
{
    struct hv_error e = {0};
    leave(a);
    if (store_all(a, &e) < 0) {
        answer_error(a, &e);
        return;
    }
    announce(a);
    a->pending = 1;                    /* ours, until every VM has begun */
    for (unsigned i = 0; i < a->items; i++) {
        struct apply_item *it = &a->item[i];
        if (it->stored && it->running) {
            a->pending++;
            tell_worker(it);
        }
    }
    if (--a->pending == 0)
        answer(a);
}

/* ---- the way there, in slices: each step does a little, and says whether there is more to do ---- */

static int plan_item(struct apply *a, struct apply_item *it, const json_t *entry)
{
    const bool host = entry == json_object_get(a->doc, "host");
    struct hv_error e = {0};
    item_fini(it);
    *it = (struct apply_item){.entry = entry};
    int r = host ? apply_plan_host(a, it, entry, &e) : apply_plan_vm(a, it, entry, &e);
    if (r < 0)
        json_array_append_new(a->errors, error_json(&e));
    return r;
}

static int check_base(const struct apply *a, struct hv_error *e);

static bool step_plan(struct apply *a)
{
    const json_t *vms = json_object_get(a->doc, "vms"), *host = json_object_get(a->doc, "host");
    const size_t first = host != NULL, i = a->at++;
    if (i < first + json_array_size(vms)) {
        struct apply_item *it = &a->item[a->items];
        if (plan_item(a, it, i < first ? host : json_array_get(vms, i - first)) == 0) {
            a->items++;
        } else {
            item_fini(it);
            *it = (struct apply_item){0};
        }
        return true;
    }
    if (json_array_size(a->errors) > 0 || a->dry_run) {
        answer(a);
        return false;
    }
    a->at = 0;
    a->step++;
    return true;
}

/* One is written, or one waited for. */
static bool step_stage(struct apply *a)
{
    struct hv_error e = {0};
    const bool write = a->at < a->items && a->at - a->synced < BATCH;
    if (write ? stage(&a->item[a->at++], &e) < 0 : a->synced < a->items && stage_sync(&a->item[a->synced++], &e) < 0) {
        answer_error(a, &e);
        return false;
    }
    a->step += a->synced == a->items;
    return true;
}

static bool step_commit(struct apply *a)
{
    struct hv_error e = {0};
    unsigned changed = 0;
    for (unsigned i = 0; i < a->items; i++) {
        if (!stale(&a->item[i]))
            continue;
        changed++;
        (void)plan_item(a, &a->item[i], a->item[i].entry);
    }
    if (changed > 0 && check_base(a, &e) < 0) {
        answer_error(a, &e);
        return false;
    }
    if (json_array_size(a->errors) > 0) {
        answer(a);
        return false;
    }
    if (changed > 0) {
        a->rounds++;
        a->at = a->synced = 0;
        a->step--;
        return true;
    }
    carry_out(a);
    return false;
}

static void turn(void *arg)
{
    static bool (*const steps[])(struct apply *a) = {step_plan, step_stage, step_commit};
    struct apply *a = arg;
    const uint64_t until = a->rounds < ROUNDS ? hv_now_ns() + SLICE_NS : UINT64_MAX;
    while (steps[a->step](a))
        if (hv_now_ns() >= until) {
            loop_post(a->svc->loop, &a->turn);
            return;
        }
}

/* ---- the beginning ---- */

/* `edit`: the document is about this VM alone, and nobody else changed it since. */
static int check_base(const struct apply *a, struct hv_error *e)
{
    const char *only = json_string_value(json_object_get(a->params, "only"));
    const char *base = json_string_value(json_object_get(a->params, "base"));
    const json_t *vms = json_object_get(a->doc, "vms"), *entry = json_array_get(vms, 0);
    if (!only)
        return 0;
    struct svc_vm *vm = registry_find(a->svc, only);
    if (!vm)
        return hv_fail(e, HV_NOT_FOUND, only, "no such VM");
    const char *name = json_string_value(json_object_get(entry, "name")), *id = json_string_value(json_object_get(entry, "id"));
    if (json_array_size(vms) != 1 || json_object_get(a->doc, "host"))
        return hv_fail(e, HV_USAGE, vm->name, "the document has to be about this VM alone");
    if (name && strcmp(name, vm->name) != 0) {
        hv_fail(e, HV_USAGE, vm->name, "the document calls it %.100s", name);
        hv_hint(e, "hvctl rename %s %.100s", vm->name, name);
        return -EINVAL;
    }
    struct guid given;
    if (id && (guid_parse(id, &given) < 0 || !guid_equal(&given, &vm->id)))
        return hv_fail(e, HV_USAGE, vm->name, "the document gives it another id");
    hv_autofree char *now = NULL;
    if (!base)
        return 0;
    int r = registry_xml(vm, &now, NULL, e);
    return r < 0 ? r : strcmp(now, base) == 0 ? 0 : hv_fail(e, HV_CONFLICT, vm->name, "it was changed meanwhile");
}

static int begin(struct apply *a, struct hv_error *e)
{
    const json_t *vms = json_object_get(a->doc, "vms"), *host = json_object_get(a->doc, "host");
    const size_t n = json_array_size(vms) + (host != NULL);
    int r = check_base(a, e);
    if (r < 0)
        return r;
    if (json_array_size(json_object_get(a->doc, "switches")) > 0)
        return hv_fail(e, HV_UNSUPPORTED, "switches", "not in this version");
    if ((vms && !json_is_array(vms)) || (host && !json_is_object(host)) || n == 0)
        return hv_fail(e, HV_USAGE, "the document", "there is nothing in it: neither vms nor host");
    if (n > APPLY_OBJECTS_MAX)
        return hv_fail(e, HV_USAGE, "the document", "more than %u objects", APPLY_OBJECTS_MAX);
    a->item = hv_alloc_array(n, sizeof(*a->item));
    return a->item ? 0 : hv_fail(e, HV_NO_RESOURCES, "the document", "out of memory");
}

static void on_read(void *arg, json_t *doc, const struct hv_error *e)
{
    struct apply *a = arg;
    struct hv_error why = {0};
    if (e) {
        answer_error(a, e);
        return;
    }
    a->doc = json_incref(doc);
    if (begin(a, &why) < 0)
        answer_error(a, &why);
    else
        turn(a);
}

void apply_method(void *arg, struct varlink_call *call, const json_t *params)
{
    const json_t *xml = json_object_get(params, "xml"), *objects = json_object_get(params, "objects");
    struct service *svc = arg;
    struct hv_error e = {0};
    struct apply *a = hv_alloc(sizeof(*a));
    json_t *errors = json_array();
    if (!a || !errors || json_is_string(xml) == json_is_object(objects)) {
        if (a && errors)
            hv_fail(&e, HV_USAGE, "Apply", "it takes xml or objects");
        else
            hv_fail(&e, HV_NO_RESOURCES, "the document", "out of memory");
        free(a);
        json_decref(errors);
        varlink_reply_error(call, &e);
        return;
    }
    *a = (struct apply){.call = varlink_call_ref(call), .svc = svc, .errors = errors, .next = svc->applies,
                        .params = json_incref((json_t *)(uintptr_t)params),
                        .dry_run = json_is_true(json_object_get(params, "dry_run"))};
    a->turn = (struct loop_post){.fn = turn, .arg = a};
    svc->applies = a;
    if (!json_is_string(xml))
        on_read(a, (json_t *)(uintptr_t)objects, NULL);
    else if (reader_start(arg, json_string_value(xml), json_string_length(xml), on_read, a, &e) < 0)
        on_read(a, NULL, &e);
}

void applies_free(struct service *svc)
{
    while (svc->applies)
        apply_free(svc->applies);
}
