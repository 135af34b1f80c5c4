/*
 * From an object of a document to what has to be done: which VM it means, what differs, what of
 * that a running VM can take. Changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "hv/base/units.h"
#include "hv/service/apply.h"

struct svc_vm *apply_vm(const struct apply_item *it)
{
    char id[GUID_TEXT_SIZE];
    return registry_find(it->apply->svc, guid_format(&it->id, id));
}

static int no_memory(const char *object, struct hv_error *e) { return hv_fail(e, HV_NO_RESOURCES, object, "out of memory"); }

/* "web1: memory.max": whose key it is. */
static int prefix(struct hv_error *e, const char *name)
{
    char object[sizeof(e->object)];
    snprintf(object, sizeof(object), "%.80s%s%.70s", name, e->object[0] ? ": " : "", e->object);
    hv_strlcpy(e->object, object, sizeof(e->object));
    return -EINVAL;
}

/* ---- which VM ---- */

static int find(struct apply *a, struct apply_item *it, const json_t *entry, struct svc_vm **ret, struct hv_error *e)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *id = json_string_value(json_object_get(entry, "id"));
    if (id && guid_parse(id, &it->id) < 0)
        return hv_fail(e, HV_USAGE, id, "is no GUID");
    if (!id && (!name || !name[0]))
        return hv_fail(e, HV_USAGE, "the document", "it has a virtual machine without a name");
    it->has_id = id != NULL;
    struct svc_vm *by_id = id ? apply_vm(it) : NULL, *by_name = name ? registry_find(a->svc, name) : NULL;
    if (!by_id && !name)
        return hv_fail(e, HV_NOT_FOUND, id, "there is no VM with this id, and the document gives it no name");
    if (by_id && name && strcmp(by_id->name, name) != 0) {
        hv_fail(e, HV_CONFLICT, name, "the VM with its id is called %s here", by_id->name);
        hv_hint(e, "hvctl rename %s %s, or take its id out of the document", by_id->name, name);
        return -EBUSY;
    }
    if (!by_id && id && by_name) {
        hv_fail(e, HV_CONFLICT, name, "it is here with another id");
        hv_hint(e, "take its id out of the document, to change the one that is here");
        return -EBUSY;
    }
    struct svc_vm *vm = by_id ? by_id : by_name;
    if (!vm && !hv_strlcpy(it->name, name, sizeof(it->name)))
        return hv_fail(e, HV_USAGE, name, "the name is too long");
    if (vm) {
        it->id = vm->id;
        hv_strlcpy(it->name, vm->name, sizeof(it->name));
    }
    for (unsigned i = 0; i < a->items; i++)
        if (&a->item[i] != it && !a->item[i].host && (strcmp(a->item[i].name, it->name) == 0 ||
                                 ((vm || id) && (a->item[i].there || a->item[i].has_id) && guid_equal(&a->item[i].id, &it->id))))
            return hv_fail(e, HV_USAGE, it->name, "it is in the document twice");
    *ret = vm;
    return vm ? 0 : registry_check_name(a->svc, it->name, e);
}

/* ---- what differs ---- */

static void add_change(struct apply_item *it, const char *key, const char *old, const char *new, bool now)
{
    it->differs = true;
    json_array_append_new(it->changes, json_pack("{s:s s:s? s:s? s:s}", "key", key, "old", old, "new", new, "applied",
                                                 now ? "now" : "next-start"));
}

static void plan_settings(struct apply_item *it, const struct svc_vm *vm)
{
    for (unsigned i = 0; i < SETTING_COUNT; i++) {
        const struct setting_desc *d = &setting_table[i];
        if (setting_equal(&vm->settings, &it->fresh, d))
            continue;
        const bool now = vm_takes_now(vm, &it->fresh, d);
        it->differs = true;
        it->any_now |= now && vm->state != SVC_OFF;
        json_array_append_new(it->changes, vm_change_json(&vm->settings, &it->fresh, d, now ? "now" : "next-start"));
    }
}

static const char *disk_text(const struct setting_disk *d)
{
    return !d ? NULL : d->path ? d->path : "(empty drive)";
}

static bool same_path(const struct setting_disk *a, const struct setting_disk *b)
{
    return !a->path == !b->path && (!a->path || strcmp(a->path, b->path) == 0);
}

/* One place of the controller; off: names what a running VM cannot change. */
static void plan_disk(struct apply_item *it, const struct svc_vm *vm, unsigned lun, char *off, size_t off_size)
{
    const struct setting_disk *old = settings_disk(&vm->settings, lun), *new = settings_disk(&it->fresh, lun);
    char key[48], iops[2][16];
    snprintf(key, sizeof(key), "disks.scsi0:%u", lun);
    if (!old && !new)
        return;
    if (!old || !new) {
        add_change(it, key, disk_text(old), disk_text(new), true);
        it->op[it->ops++] = (struct apply_disk){old ? DISK_REMOVE : DISK_ADD, lun};
        return;
    }
    const struct { const char *name, *old, *new; bool differs, live; enum disk_op op; } part[] = {
        {"path", disk_text(old), disk_text(new), !same_path(old, new), old->dvd && new->dvd, DISK_MEDIUM},
        {"type", old->dvd ? "dvd" : "disk", new->dvd ? "dvd" : "disk", old->dvd != new->dvd, false, 0},
        {"read_only", old->read_only ? "on" : "off", new->read_only ? "on" : "off", old->read_only != new->read_only, false, 0},
        {"format", setting_format_word(old->format), setting_format_word(new->format),
         old->format != new->format && same_path(old, new), false, 0},
        {"max_iops", iops[0], iops[1], old->max_iops != new->max_iops, true, DISK_LIMIT},
    };
    snprintf(iops[0], sizeof(iops[0]), "%" PRIu32, old->max_iops);
    snprintf(iops[1], sizeof(iops[1]), "%" PRIu32, new->max_iops);
    for (unsigned i = 0; i < ARRAY_SIZE(part); i++) {
        if (!part[i].differs)
            continue;
        snprintf(key, sizeof(key), "disks.scsi0:%u.%s", lun, part[i].name);
        add_change(it, key, part[i].old, part[i].new, true);
        const size_t n = strlen(off);
        if (!part[i].live)
            snprintf(off + n, off_size - n, "%s%s", n ? ", " : "", key);
        else
            it->op[it->ops++] = (struct apply_disk){part[i].op, lun};
    }
}

static int plan_disks(struct apply_item *it, const struct svc_vm *vm, struct hv_error *e)
{
    char off[300] = "";
    for (unsigned lun = 0; lun < SETTING_DISKS_MAX; lun++)
        plan_disk(it, vm, lun, off, sizeof(off));
    if (vm->state == SVC_OFF) {
        it->ops = 0;                   /* stored with the rest */
        return 0;
    }
    if (it->ops > 0 && vm->state != SVC_RUNNING && vm->state != SVC_PAUSED)
        return hv_fail(e, HV_CONFLICT, vm->name, "cannot change its disks: it is %s", svc_state_word(vm));
    if (off[0]) {
        hv_fail(e, HV_CONFLICT, vm->name, "cannot be changed while it is %s: %s", svc_state_word(vm), off);
        hv_hint(e, "hvctl stop %s", vm->name);
        return -EBUSY;
    }
    /* What goes makes room before something comes. */
    for (unsigned i = 0, done = 0; i < it->ops; i++)
        if (it->op[i].op == DISK_REMOVE) {
            struct apply_disk x = it->op[i];
            it->op[i] = it->op[done];
            it->op[done++] = x;
        }
    return 0;
}

static int plan_extras(struct apply_item *it, const struct svc_vm *vm, const json_t *entry, struct hv_error *e)
{
    const json_t *given = json_object_get(entry, "extras"), *c;
    size_t i;
    int r = given ? settings_extras_check(given, e) : 0;
    if (r < 0)
        return prefix(e, it->name);
    if (!given)
        return 0;
    if (!vm) {
        it->extras = json_deep_copy(given);
        return it->extras ? 0 : no_memory(it->name, e);
    }
    r = registry_extras(vm, &it->old_extras, e);
    if (r < 0)
        return r;
    it->extras = json_is_true(json_object_get(entry, "whole")) ? json_deep_copy(given)
                                                              : settings_extras_merge(it->old_extras, given);
    json_t *changes = it->extras ? settings_extras_diff(it->old_extras, it->extras) : NULL;
    if (!changes)
        return no_memory(it->name, e);
    json_array_foreach(changes, i, c)
        add_change(it, json_string_value(json_object_get(c, "key")), json_string_value(json_object_get(c, "old")),
                   json_string_value(json_object_get(c, "new")), true);
    if (json_array_size(changes) == 0) {
        json_decref(it->extras);
        it->extras = NULL;
    }
    json_decref(changes);
    return 0;
}

/* ---- what it shall be ---- */

/* A disk that stays what it was keeps the format that was found out when it came. */
static void keep_formats(struct settings *fresh, const struct settings *old)
{
    for (unsigned i = 0; i < fresh->disks; i++) {
        const struct setting_disk *was = settings_disk(old, fresh->disk[i].lun);
        if (was && fresh->disk[i].format == SET_FORMAT_UNKNOWN && same_path(was, &fresh->disk[i]))
            fresh->disk[i].format = was->format;
    }
}

static int open_path(const struct varlink_peer *peer, const char *old, const char *path, const char *what, struct hv_error *e)
{
    if (!path || (old && strcmp(old, path) == 0))
        return 0;
    int fd = broker_open(peer, path, what, e);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? fd : 0;
}

/* Files that the document names and the VM did not have yet: could the caller open them? */
static int check_paths(const struct apply *a, const struct settings *old, const struct settings *fresh, struct hv_error *e)
{
    const struct varlink_peer *peer = varlink_call_peer(a->call);
    int r = open_path(peer, old ? old->boot.kernel : NULL, fresh->boot.kernel, "kernel", e);
    if (r == 0)
        r = open_path(peer, old ? old->boot.initrd : NULL, fresh->boot.initrd, "initrd", e);
    for (unsigned i = 0; r == 0 && i < fresh->disks; i++) {
        const struct setting_disk *d = &fresh->disk[i], *was = old ? settings_disk(old, d->lun) : NULL;
        if (!was || !same_path(was, d))
            r = disk_check_path(d, peer, e);
    }
    return r;
}

int apply_plan_vm(struct apply *a, struct apply_item *it, const json_t *entry, struct hv_error *e)
{
    struct svc_vm *vm = NULL;
    const json_t *given = json_object_get(entry, "settings");
    it->apply = a;
    settings_init(&it->fresh);
    it->changes = json_array();
    int r = find(a, it, entry, &vm, e);
    if (r < 0)
        return r;
    it->there = vm != NULL;
    it->running = vm && vm->state != SVC_OFF;
    it->revision = vm ? vm->revision : 0;
    if (!it->changes || (vm && settings_copy(&it->fresh, &vm->settings) < 0))
        return no_memory(it->name, e);
    if (given && settings_from_json(&it->fresh, given, e) < 0)
        return prefix(e, it->name);
    if (vm)
        keep_formats(&it->fresh, &vm->settings);
    else if (!json_object_get(json_object_get(given, "memory"), "min"))
        it->fresh.memory.min = MIN(it->fresh.memory.min, it->fresh.memory.startup);
    r = settings_check(&it->fresh, it->name, e);
    if (r == 0 && check_paths(a, vm ? &vm->settings : NULL, &it->fresh, e) < 0)
        r = prefix(e, it->name);
    if (r < 0)
        return r;
    if (vm) {
        plan_settings(it, vm);
        r = plan_disks(it, vm, e);
    } else {
        it->differs = true;
    }
    return r < 0 ? r : plan_extras(it, vm, entry, e);
}

/* ---- the host ---- */

/* Words and units of a document to what SetHost takes: bytes, milliseconds, 0 for automatic, "" for nowhere. New. */
static json_t *host_value(const char *key, const json_t *v, struct hv_error *e)
{
    const char *text = json_string_value(v);
    const bool clear = json_is_null(v) || (text && (strcmp(text, "auto") == 0 || strcmp(text, "off") == 0));
    uint64_t n = 0;
    if (strcmp(key, "vm_memory") == 0 || strcmp(key, "root_reserve") == 0) {
        if (clear || (text && parse_size(text, key, &n, e) == 0))
            return json_integer((json_int_t)n);
        if (json_is_integer(v))
            return json_incref((json_t *)(uintptr_t)v);
        if (!text)
            hv_fail(e, HV_USAGE, key, "it has to be bytes as a whole number, a size with a unit, or auto");
    } else if (strcmp(key, "balancer_delay_ms") == 0) {
        if (text && parse_duration(text, key, &n, e) == 0)
            return json_integer((json_int_t)(n / NS_PER_MS));
        if (json_is_integer(v))
            return json_incref((json_t *)(uintptr_t)v);
        if (!text)
            hv_fail(e, HV_USAGE, key, "it has to be milliseconds, or a duration with a unit");
    } else if (strcmp(key, "balancer") == 0) {
        if (json_is_boolean(v))
            return json_incref((json_t *)(uintptr_t)v);
        hv_fail(e, HV_USAGE, key, "it has to be true or false");
    } else if (strcmp(key, "metrics") == 0) {
        if (clear || text)
            return json_string(clear ? "" : text);
        hv_fail(e, HV_USAGE, key, "it has to be an address like 127.0.0.1:9177, or null");
    } else {
        hv_fail(e, HV_USAGE, key, "the host has no setting '%s'", key);
    }
    return NULL;
}

/* A setting of the host as text; buf[32]. NULL: none. */
static const char *host_text(const char *key, const json_t *v, char buf[32])
{
    const bool size = strcmp(key, "vm_memory") == 0 || strcmp(key, "root_reserve") == 0;
    if (json_is_boolean(v))
        return json_is_true(v) ? "on" : "off";
    if (json_is_string(v))
        return json_string_length(v) ? json_string_value(v) : "off";
    if (size && json_integer_value(v) == 0)
        return "auto";
    if (size)
        return format_size_exact((uint64_t)json_integer_value(v), buf, 32);
    snprintf(buf, 32, "%" JSON_INTEGER_FORMAT "ms", json_integer_value(v));
    return buf;
}

int apply_plan_host(struct apply *a, struct apply_item *it, const json_t *entry, struct hv_error *e)
{
    const char *key;
    json_t *v, *given = json_object();
    int r = 0;
    it->apply = a;
    it->host = it->there = true;
    settings_init(&it->fresh);
    it->changes = json_array();
    it->host_fresh = it->host_before = a->svc->host;
    hv_strlcpy(it->name, "host", sizeof(it->name));
    json_object_foreach((json_t *)(uintptr_t)entry, key, v) {
        json_t *value = r == 0 ? host_value(key, v, e) : NULL;
        if (value)
            json_object_set_new(given, key, value);
        else
            r = -EINVAL;
    }
    if (r == 0)
        r = host_settings_take(&it->host_fresh, given, e);
    json_decref(given);
    json_t *old = r == 0 ? host_settings_json(&it->host_before) : NULL, *new = r == 0 ? host_settings_json(&it->host_fresh) : NULL;
    if (r < 0)
        r = prefix(e, "host");
    else if (!it->changes || !old || !new)
        r = no_memory("host", e);
    json_object_foreach(new, key, v) {
        const json_t *was = json_object_get(old, key);
        char name[64], x[32], y[32];
        snprintf(name, sizeof(name), "host.%s", key);
        if (r == 0 && !json_equal(was, v))
            add_change(it, name, host_text(key, was, x), host_text(key, v, y), true);
    }
    json_decref(old);
    json_decref(new);
    return r;
}
