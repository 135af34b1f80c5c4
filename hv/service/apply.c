/*
 * Apply: make the host match a document.
 *
 *   xml ─▶ reader.c ─▶ objects ─▶ plan all (apply_plan.c) ─▶ any wrong: answer, nothing done
 *                                    └─▶ store all, or none ─▶ running VMs: their workers ─▶ answer
 *
 * Plan and store are one turn of the loop: what was planned against is what is changed. What a
 * running VM's worker then refuses is that object's failure; the others go on.
 */
#include "hv/service/apply.h"

#include <errno.h>

#include "hv/base/log.h"

static void item_fini(struct apply_item *it)
{
    settings_fini(&it->fresh);
    settings_fini(&it->before);
    json_decref(it->extras);
    json_decref(it->old_extras);
    json_decref(it->changes);
}

static void apply_free(struct apply *a)
{
    for (unsigned i = 0; i < a->items; i++)
        item_fini(&a->item[i]);
    free(a->item);
    json_decref(a->errors);
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

static void answer(struct apply *a)
{
    json_t *objects = json_array();
    for (unsigned i = 0; i < a->items && json_array_size(a->errors) == 0; i++)
        json_array_append_new(objects, item_json(&a->item[i]));
    varlink_reply(a->call, json_pack("{s:o s:O}", "objects", objects, "errors", a->errors), false);
    apply_free(a);
}

static void answer_error(struct apply *a, const struct hv_error *e)
{
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

/* Disks of a running VM are stored one by one, as its worker takes them. */
static int store_changed(struct apply_item *it, struct hv_error *e)
{
    struct svc_vm *vm = apply_vm(it);
    struct settings now;
    settings_init(&now);
    int r = settings_copy(&now, &it->fresh);
    if (r == 0 && it->ops > 0)
        r = settings_disks_copy(&now, &vm->settings);
    if (r < 0)
        hv_fail(e, HV_NO_RESOURCES, it->name, "out of memory");
    else
        r = registry_change_all(vm, &now, it->extras, it->old_extras, e);
    if (r == 0)
        it->before = now;
    else
        settings_fini(&now);
    return r;
}

static int store(struct apply_item *it, struct hv_error *e)
{
    struct svc_vm *vm;
    int r;
    if (it->host)
        return change_host(it->apply->svc, &it->host_fresh, e);
    if (it->there)
        return store_changed(it, e);
    r = registry_create_from(it->apply->svc, it->name, it->has_id ? &it->id : NULL, &it->fresh, it->extras,
                             varlink_call_peer(it->apply->call)->uid, &vm, e);
    if (r == 0) {
        it->id = vm->id;
        it->created = true;
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
    for (unsigned i = 0; i < a->items; i++) {
        struct apply_item *it = &a->item[i];
        if (!it->differs)
            continue;
        int r = store(it, e);
        it->stored = r == 0;
        while (r < 0 && i-- > 0)
            if (a->item[i].stored)
                undo(&a->item[i]);
        if (r < 0)
            return r;
    }
    return 0;
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
    if (json_array_size(a->errors) > 0 || a->dry_run) {
        answer(a);
        return;
    }
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

/* ---- planning ---- */

static int add_item(struct apply *a, bool host, const json_t *entry)
{
    struct hv_error e = {0};
    struct apply_item *it = &a->item[a->items];
    int r = host ? apply_plan_host(a, it, entry, &e) : apply_plan_vm(a, it, entry, &e);
    if (r < 0) {
        json_array_append_new(a->errors, error_json(&e));
        item_fini(it);
        *it = (struct apply_item){0};
        return r;
    }
    a->items++;
    return 0;
}

static void plan(struct apply *a, const json_t *doc)
{
    const json_t *vms = json_object_get(doc, "vms"), *host = json_object_get(doc, "host"), *entry;
    const json_t *switches = json_object_get(doc, "switches");
    struct hv_error e = {0};
    size_t i;
    const size_t n = json_array_size(vms) + (host != NULL);
    if (json_array_size(switches) > 0)
        hv_fail(&e, HV_UNSUPPORTED, "switches", "not in this version");
    else if ((vms && !json_is_array(vms)) || (host && !json_is_object(host)) || n == 0)
        hv_fail(&e, HV_USAGE, "the document", "there is nothing in it: neither vms nor host");
    else if (n > APPLY_OBJECTS_MAX)
        hv_fail(&e, HV_USAGE, "the document", "more than %u objects", APPLY_OBJECTS_MAX);
    else if (!(a->item = hv_alloc_array(n, sizeof(*a->item))))
        hv_fail(&e, HV_NO_RESOURCES, "the document", "out of memory");
    if (hv_error_is_set(&e)) {
        answer_error(a, &e);
        return;
    }
    if (host)
        (void)add_item(a, true, host);
    json_array_foreach((json_t *)(uintptr_t)vms, i, entry)
        (void)add_item(a, false, entry);
    carry_out(a);
}

/* `edit`: the document is about this VM alone, and nobody else changed it since. */
static int check_base(const struct apply *a, const json_t *doc, const json_t *params, struct hv_error *e)
{
    const char *only = json_string_value(json_object_get(params, "only")), *base = json_string_value(json_object_get(params, "base"));
    const json_t *vms = json_object_get(doc, "vms"), *entry = json_array_get(vms, 0);
    if (!only)
        return 0;
    struct svc_vm *vm = registry_find(a->svc, only);
    if (!vm)
        return hv_fail(e, HV_NOT_FOUND, only, "no such VM");
    const char *name = json_string_value(json_object_get(entry, "name")), *id = json_string_value(json_object_get(entry, "id"));
    if (json_array_size(vms) != 1 || json_object_get(doc, "host"))
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

struct waiting { struct apply *apply; json_t *params; };

static void on_read(void *arg, json_t *doc, const struct hv_error *e)
{
    struct waiting *w = arg;
    struct apply *a = w->apply;
    struct hv_error why = {0};
    if (e)
        why = *e;
    else
        (void)check_base(a, doc, w->params, &why);
    json_decref(w->params);
    free(w);
    if (hv_error_is_set(&why))
        answer_error(a, &why);
    else
        plan(a, doc);
}

void apply_method(void *arg, struct varlink_call *call, const json_t *params)
{
    const json_t *xml = json_object_get(params, "xml"), *objects = json_object_get(params, "objects");
    struct hv_error e = {0};
    struct apply *a = hv_alloc(sizeof(*a));
    struct waiting *w = hv_alloc(sizeof(*w));
    json_t *errors = json_array();
    if (!a || !w || !errors || json_is_string(xml) == json_is_object(objects)) {
        if (a && w && errors)
            hv_fail(&e, HV_USAGE, "Apply", "it takes xml or objects");
        else
            hv_fail(&e, HV_NO_RESOURCES, "the document", "out of memory");
        free(a);
        free(w);
        json_decref(errors);
        varlink_reply_error(call, &e);
        return;
    }
    *a = (struct apply){.call = varlink_call_ref(call), .svc = arg, .errors = errors,
                        .dry_run = json_is_true(json_object_get(params, "dry_run"))};
    *w = (struct waiting){a, json_incref((json_t *)(uintptr_t)params)};
    if (!json_is_string(xml))
        on_read(w, (json_t *)(uintptr_t)objects, NULL);
    else if (reader_start(arg, json_string_value(xml), json_string_length(xml), on_read, w, &e) < 0)
        on_read(w, NULL, &e);
}
