/*
 * Groups of VMs: names that stand for several, wherever a VM is named (@lab). A VM can be in any
 * number of them. Kept by id in STATE/groups.json, {"lab": ["GUID", ...]}, replaced whole; an id
 * whose VM is not loaded stays: its file may be put right.
 */
#include <errno.h>
#include <fnmatch.h>
#include <strings.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/service/service.h"

#define FILE_MAX ((size_t)4 << 20)
#define GROUPS_MAX 1000

static const char *text(const json_t *params, const char *name)
{
    return json_string_value(json_object_get(params, name));
}

static char *path_of(const struct service *svc) { return hv_asprintf("%s/groups.json", svc->paths.state); }

static bool is_file(const json_t *o)
{
    const char *name;
    json_t *ids, *id;
    size_t i;
    if (!json_is_object(o))
        return false;
    json_object_foreach((json_t *)o, name, ids) {
        if (!json_is_array(ids))
            return false;
        json_array_foreach(ids, i, id)
            if (!json_is_string(id))
                return false;
    }
    return true;
}

int groups_load(struct service *svc, struct hv_error *e)
{
    hv_autofree char *path = path_of(svc), *file = NULL;
    if (!path)
        return hv_fail(e, HV_NO_RESOURCES, "groups", "out of memory");
    int r = hv_read_own_file(path, FILE_MAX, &file, NULL);
    if (r == 0) {
        svc->groups = json_loads(file, JSON_REJECT_DUPLICATES, NULL);
        if (!is_file(svc->groups)) {
            /* Put aside rather than replaced by the next change: somebody may want to look. */
            hv_autofree char *aside = hv_asprintf("%s.damaged", path);
            if (aside)
                rename(path, aside);
            log_error("%s: not readable; put aside", path);
            event_add(svc, "config", NULL, "error", -1, NULL, NULL, "groups.json: not readable; put aside");
            json_decref(svc->groups);
            svc->groups = NULL;
        }
    } else if (r != -ENOENT) {
        return hv_fail_errno(e, -r, path, "cannot read");
    }
    if (!svc->groups)
        svc->groups = json_object();
    return svc->groups ? 0 : hv_fail(e, HV_NO_RESOURCES, "groups", "out of memory");
}

void groups_free(struct service *svc)
{
    json_decref(svc->groups);
    svc->groups = NULL;
}

/* fresh, taken, becomes what there is, if it can be stored. */
static int change(struct service *svc, json_t *fresh, struct hv_error *e)
{
    hv_autofree char *path = path_of(svc), *file = fresh ? json_dumps(fresh, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    if (!path || !file) {
        json_decref(fresh);
        return hv_fail(e, HV_NO_RESOURCES, "groups", "out of memory");
    }
    int r = hv_replace_file(path, file, strlen(file), 0600);
    if (r < 0) {
        /* The new file may stand there and only not be safe. */
        hv_autofree char *old = json_dumps(svc->groups, JSON_INDENT(1) | JSON_SORT_KEYS);
        if (old)
            (void)hv_replace_file(path, old, strlen(old), 0600);
        json_decref(fresh);
        return hv_fail_errno(e, -r, "groups", "cannot store %s", path);
    }
    json_decref(svc->groups);
    svc->groups = fresh;
    return 0;
}

static size_t place_of(const json_t *ids, const struct guid *id)
{
    char want[GUID_TEXT_SIZE];
    size_t i;
    json_t *v;
    guid_format(id, want);
    json_array_foreach((json_t *)ids, i, v)
        if (strcmp(json_string_value(v), want) == 0)
            return i;
    return SIZE_MAX;
}

bool group_has(struct service *svc, const char *group, const struct svc_vm *vm)
{
    return place_of(json_object_get(svc->groups, group), &vm->id) != SIZE_MAX;
}

bool vm_is_named(struct service *svc, const json_t *names, const char *name)
{
    const struct svc_vm *vm = registry_find(svc, name);
    char id[GUID_TEXT_SIZE] = "";
    size_t i;
    json_t *v;
    if (vm)
        guid_format(&vm->id, id);
    json_array_foreach((json_t *)names, i, v) {
        const char *word = json_string_value(v);
        if (strcmp(word, name) == 0 || strcasecmp(word, id) == 0 || (strpbrk(word, "*?[") && fnmatch(word, name, 0) == 0) ||
            (word[0] == '@' && vm && group_has(svc, word + 1, vm)))
            return true;
    }
    return false;
}

bool group_exists(struct service *svc, const char *group) { return json_object_get(svc->groups, group) != NULL; }

json_t *groups_of(const struct svc_vm *vm)
{
    json_t *list = json_array(), *ids;
    const char *name;
    json_object_foreach(vm->svc->groups, name, ids)
        if (place_of(ids, &vm->id) != SIZE_MAX)
            json_array_append_new(list, json_string(name));
    return list;
}

int group_add(struct service *svc, const char *group, const struct svc_vm *vm, struct hv_error *e)
{
    char id[GUID_TEXT_SIZE];
    if (group_has(svc, group, vm))
        return 0;
    json_t *fresh = json_deep_copy(svc->groups);
    json_array_append_new(json_object_get(fresh, group), json_string(guid_format(&vm->id, id)));
    return change(svc, fresh, e);
}

void groups_forget(const struct svc_vm *vm)
{
    json_t *fresh = json_deep_copy(vm->svc->groups), *ids;
    const char *name;
    bool any = false;
    json_object_foreach(fresh, name, ids) {
        size_t at = place_of(ids, &vm->id);
        any |= at != SIZE_MAX;
        if (at != SIZE_MAX)
            json_array_remove(ids, at);
    }
    struct hv_error e = {0};
    if (!any)
        json_decref(fresh);
    else if (change(vm->svc, fresh, &e) < 0)
        log_warning("vm=%s %s: an id without a VM stays in its groups: %s", vm->name, e.object, e.message);
}

/* ---- methods ---- */

static json_t *group_json(struct service *svc, const char *name)
{
    json_t *vms = json_array();
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (group_has(svc, name, vm))
            json_array_append_new(vms, json_string(vm->name));
    return json_pack("{s:s s:o}", "name", name, "vms", vms);
}

static void answer(struct service *svc, struct varlink_call *call, const char *name, int r, const struct hv_error *e)
{
    if (r < 0)
        varlink_reply_error(call, e);
    else
        varlink_reply(call, json_pack("{s:o}", "group", group_json(svc, name)), false);
}

static int no_such(const char *name, struct hv_error *e)
{
    int r = hv_fail(e, HV_NOT_FOUND, name, "no such group");
    hv_hint(e, "hvctl group list");
    return r;
}

static int check_name(struct service *svc, const char *name, struct hv_error *e)
{
    int r = registry_check_name_form(name, e);
    if (r == 0 && group_exists(svc, name))
        r = hv_fail(e, HV_CONFLICT, name, "this group exists already");
    return r;
}

static void said(struct service *svc, struct varlink_call *call, const char *vm, const char *name, const char *what)
{
    event_add(svc, "config", vm, "info", varlink_call_peer(call)->uid, NULL, NULL, "group %s: %s", name, what);
}

void group_list_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    json_t *list = json_array(), *ids;
    const char *name;
    json_object_foreach(svc->groups, name, ids)
        json_array_append_new(list, group_json(svc, name));
    varlink_reply(call, json_pack("{s:o}", "groups", list), false);
}

void group_create_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    const char *name = text(params, "name");
    struct hv_error e = {0};
    int r = check_name(svc, name, &e);
    if (r == 0 && json_object_size(svc->groups) >= GROUPS_MAX)
        r = hv_fail(&e, HV_NO_RESOURCES, name, "there are %d groups already", GROUPS_MAX);
    if (r == 0) {
        json_t *fresh = json_deep_copy(svc->groups);
        json_object_set_new(fresh, name, json_array());
        r = change(svc, fresh, &e);
    }
    if (r == 0)
        said(svc, call, NULL, name, "created");
    answer(svc, call, name, r, &e);
}

void group_remove_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    const char *name = text(params, "name");
    struct hv_error e = {0};
    int r = group_exists(svc, name) ? 0 : no_such(name, &e);
    if (r == 0) {
        json_t *fresh = json_deep_copy(svc->groups);
        json_object_del(fresh, name);
        r = change(svc, fresh, &e);
    }
    if (r < 0) {
        varlink_reply_error(call, &e);
        return;
    }
    said(svc, call, NULL, name, "removed");
    varlink_reply(call, NULL, false);
}

void group_rename_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    const char *name = text(params, "name"), *new_name = text(params, "new_name");
    struct hv_error e = {0};
    int r = group_exists(svc, name) ? 0 : no_such(name, &e);
    bool same = r == 0 && strcmp(name, new_name) == 0;
    if (r == 0 && !same)
        r = check_name(svc, new_name, &e);
    if (r == 0 && !same) {
        json_t *fresh = json_deep_copy(svc->groups);
        json_object_set(fresh, new_name, json_object_get(fresh, name));
        json_object_del(fresh, name);
        r = change(svc, fresh, &e);
    }
    if (r == 0 && !same)
        said(svc, call, NULL, new_name, "renamed");
    answer(svc, call, new_name, r, &e);
}

/* The VM a name means, or e. */
static struct svc_vm *need(struct service *svc, const char *name, struct hv_error *e)
{
    struct svc_vm *vm = registry_find(svc, name);
    if (!vm)
        hv_fail(e, HV_NOT_FOUND, name, "no such VM");
    return vm;
}

/* All of it or nothing: names are looked up before anything changes. */
void group_set_method(void *arg, struct varlink_call *call, const json_t *params)
{
    struct service *svc = arg;
    const char *name = text(params, "name");
    const struct { const char *key, *what; bool add; } lists[] = {{"add", "added", true}, {"drop", "dropped", false}};
    struct hv_error e = {0};
    size_t i;
    json_t *v, *fresh = json_deep_copy(svc->groups), *ids = json_object_get(fresh, name);
    int r = ids ? 0 : no_such(name, &e);
    bool any = false;
    for (unsigned k = 0; r == 0 && k < ARRAY_SIZE(lists); k++) {
        json_array_foreach(json_object_get(params, lists[k].key), i, v) {
            char id[GUID_TEXT_SIZE];
            struct svc_vm *vm = r == 0 ? need(svc, json_string_value(v), &e) : NULL;
            if (!vm) {
                r = -ENOENT;
                break;
            }
            size_t at = place_of(ids, &vm->id);
            if (lists[k].add == (at != SIZE_MAX))
                continue;
            any = true;
            if (lists[k].add)
                json_array_append_new(ids, json_string(guid_format(&vm->id, id)));
            else
                json_array_remove(ids, at);
        }
    }
    if (r == 0 && any)
        r = change(svc, fresh, &e);
    else
        json_decref(fresh);
    for (unsigned k = 0; r == 0 && any && k < ARRAY_SIZE(lists); k++)
        json_array_foreach(json_object_get(params, lists[k].key), i, v)
            said(svc, call, registry_find(svc, json_string_value(v))->name, name, lists[k].what);
    answer(svc, call, name, r, &e);
}
