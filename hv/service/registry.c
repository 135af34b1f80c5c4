/*
 * The VMs of this host: one XML file each under STATE/vms, named by GUID, read at start
 * and replaced whole on every change. A file that cannot be read is reported and left
 * alone; it never keeps the others from loading. Transient VMs are kept the same way in the
 * run-time folder, so that they outlive the service and not the host.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/service/service.h"

static void vm_path(const struct svc_vm *vm, char *buf, size_t size)
{
    char id[GUID_TEXT_SIZE];
    snprintf(buf, size, "%s/%s/%s.xml", vm->transient ? vm->svc->paths.run : vm->svc->paths.state,
             vm->transient ? "transient" : "vms", guid_format(&vm->id, id));
}

static void vm_free(struct svc_vm *vm)
{
    if (!vm)
        return;
    worker_link_free(vm->link);
    json_decref(vm->runtime);
    rates_forget(vm);
    settings_fini(&vm->settings);
    free(vm->series);
    meter_free(vm->meter);
    free(vm);
}

static struct svc_vm *vm_new(struct service *svc)
{
    struct svc_vm *vm = hv_alloc(sizeof(*vm));
    if (vm) {
        vm->svc = svc;
        settings_init(&vm->settings);
    }
    return vm;
}

static void insert(struct service *svc, struct svc_vm *vm)
{
    struct svc_vm **at = &svc->vms;
    while (*at && strcmp((*at)->name, vm->name) < 0)
        at = &(*at)->next;
    vm->next = *at;
    *at = vm;
}

static void unlink_vm(struct svc_vm *vm)
{
    struct svc_vm **at = &vm->svc->vms;
    while (*at && *at != vm)
        at = &(*at)->next;
    if (*at)
        *at = vm->next;
}

static int load_one(struct service *svc, const char *dir, const char *file, bool transient, struct hv_error *e)
{
    hv_autofree char *path = hv_asprintf("%s/%s", dir, file);
    hv_autofree char *text = NULL;
    size_t len = 0;
    if (!path)
        return -ENOMEM;
    int r = hv_read_own_file(path, SETTINGS_XML_MAX, &text, &len);
    if (r < 0)
        return hv_fail_errno(e, -r, path, "cannot read");
    struct svc_vm *vm = vm_new(svc);
    if (!vm)
        return -ENOMEM;
    vm->transient = transient;
    r = settings_xml_read(text, len, &vm->settings, &vm->id, vm->name, sizeof(vm->name), NULL, e);
    if (r == 0 && registry_find(svc, vm->name))
        r = hv_fail(e, HV_CONFLICT, path, "there is already a VM named %s", vm->name);
    struct stat st;
    if (r == 0 && stat(path, &st) == 0)
        vm->owner = st.st_uid;
    if (r < 0) {
        vm_free(vm);
        return r;
    }
    vm->off_since_ns = hv_now_ns();
    insert(svc, vm);
    return 0;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n > k && strcmp(name + n - k, end) == 0;
}

static int load_folder(struct service *svc, const char *dir, bool transient, struct hv_error *e)
{
    int r = hv_make_dir(dir, 0700, e);
    if (r < 0)
        return r;
    hv_remove_temps(dir);              /* the files they were to replace are whole */
    DIR *d = opendir(dir);
    if (!d)
        return hv_fail_errno(e, errno, dir, "cannot read");
    for (struct dirent *de; (de = readdir(d));) {
        struct hv_error why = {0};
        if (de->d_name[0] == '.' || !ends_with(de->d_name, ".xml") || load_one(svc, dir, de->d_name, transient, &why) == 0)
            continue;
        log_error("%s/%s: not loaded: %s%s%s", dir, de->d_name, why.object, why.object[0] ? ": " : "", why.message);
        event_add(svc, "config", NULL, "error", -1, NULL, NULL, "%s: not loaded: %s", de->d_name, why.message);
    }
    closedir(d);
    return 0;
}

int registry_load(struct service *svc, struct hv_error *e)
{
    hv_autofree char *dir = hv_asprintf("%s/vms", svc->paths.state);
    hv_autofree char *transient = hv_asprintf("%s/transient", svc->paths.run);
    if (!dir || !transient)
        return -ENOMEM;
    int r = load_folder(svc, dir, false, e);
    return r < 0 ? r : load_folder(svc, transient, true, e);
}

struct svc_vm *registry_find(struct service *svc, const char *name)
{
    struct guid id;
    bool is_guid = guid_parse(name, &id) == 0;
    for (struct svc_vm *vm = svc->vms; vm; vm = vm->next)
        if (strcmp(vm->name, name) == 0 || (is_guid && guid_equal(&vm->id, &id)))
            return vm;
    return NULL;
}

struct svc_vm *registry_need(struct service *svc, struct varlink_call *call, const json_t *params)
{
    const char *name = json_string_value(json_object_get(params, "name"));
    struct svc_vm *vm = name ? registry_find(svc, name) : NULL;
    if (!vm) {
        struct hv_error e = {0};
        hv_fail(&e, HV_NOT_FOUND, name ? name : "", "no such VM");
        varlink_reply_error(call, &e);
    }
    return vm;
}

/* Characters of a UTF-8 string, or -1 if it is not one or has control characters or a slash. */
static int name_length(const char *name)
{
    int n = 0;
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        if (iscntrl(*p) || *p == '/')
            return -1;
        n += (*p & 0xc0) != 0x80;
    }
    return n;
}

int registry_check_name_form(const char *name, struct hv_error *e)
{
    struct guid id;
    int n = setting_text_ok(name) ? name_length(name) : -1;
    if (n < 1 || n > VM_NAME_MAX)
        return hv_fail(e, HV_USAGE, name, "a name has 1 to %d characters, none of them '/' or a control character",
                       VM_NAME_MAX);
    if (name[0] == '-' || name[0] == '@')
        return hv_fail(e, HV_USAGE, name, "a name does not start with '%c'", name[0]);
    if (guid_parse(name, &id) == 0)
        return hv_fail(e, HV_USAGE, name, "a GUID is no name");
    return 0;
}

int registry_check_name(struct service *svc, const char *name, struct hv_error *e)
{
    int r = registry_check_name_form(name, e);
    return r == 0 && registry_find(svc, name) ? hv_fail(e, HV_CONFLICT, name, "it exists already") : r;
}

static int store_with(struct svc_vm *vm, const json_t *extras, struct hv_error *e);

int registry_make(struct service *svc, const char *name, const struct guid *id, const struct settings *s, uid_t owner,
                  struct svc_vm **ret, struct hv_error *e)
{
    int r = registry_check_name(svc, name, e);
    if (r == 0)
        r = settings_check(s, name, e);
    if (r < 0)
        return r;
    struct svc_vm *vm = vm_new(svc);
    if (!vm || settings_copy(&vm->settings, s) < 0 || guid_new(&vm->id) < 0) {
        vm_free(vm);
        return hv_fail(e, HV_NO_RESOURCES, name, "out of memory");
    }
    hv_strlcpy(vm->name, name, sizeof(vm->name));
    if (id)
        vm->id = *id;
    vm->owner = owner;
    *ret = vm;
    return 0;
}

void registry_unmake(struct svc_vm *vm) { vm_free(vm); }

int registry_create(struct service *svc, const char *name, const struct settings *s, bool transient, uid_t owner,
                    bool dry_run, struct svc_vm **ret, struct hv_error *e)
{
    struct svc_vm *vm;
    int r = registry_make(svc, name, NULL, s, owner, &vm, e);
    if (r < 0)
        return r;
    vm->transient = transient;
    if (!dry_run && (r = store_with(vm, NULL, e)) < 0) {
        /* The name may be there already, and only not be safe: it must not come back with the next service. */
        char path[HV_PATH_SIZE + 64];
        vm_path(vm, path, sizeof(path));
        unlink(path);
        vm_free(vm);
        return r;
    }
    insert(svc, vm);
    *ret = vm;
    return 0;
}

/*
 * The document as it is on disk, for what we do not know in it: read when it is needed, as a tree of
 * each VM would be most of the service's memory. *ret NULL: there is no file yet.
 */
static int read_doc(const struct svc_vm *vm, struct settings_doc **ret, struct hv_error *e)
{
    char path[HV_PATH_SIZE + 64], name[sizeof(vm->name)];
    hv_autofree char *text = NULL;
    size_t len = 0;
    struct settings s;
    struct guid id;
    struct hv_error why = {0};
    *ret = NULL;
    vm_path(vm, path, sizeof(path));
    int r = hv_read_own_file(path, SETTINGS_XML_MAX, &text, &len);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return hv_fail_errno(e, -r, vm->name, "cannot store its settings in %s", path);
    settings_init(&s);
    r = settings_xml_read(text, len, &s, &id, name, sizeof(name), ret, &why);
    settings_fini(&s);
    /* What somebody damaged under a running service is replaced by what the service knows. */
    return r < 0 && why.code == HV_NO_RESOURCES ? hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory") : 0;
}

/* extras: what else it shall hold; NULL: what the one on disk does. */
static int xml_with(const struct svc_vm *vm, const json_t *extras, char **ret, size_t *ret_len, struct hv_error *e)
{
    struct settings_doc *doc = NULL;
    int r = 0;
    if (extras && settings_doc_new(&vm->settings, &vm->id, vm->name, extras, &doc) < 0)
        return hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
    if (!extras && (r = read_doc(vm, &doc, e)) < 0)
        return r;
    r = settings_xml_write(&vm->settings, &vm->id, vm->name, doc, ret, ret_len);
    settings_doc_free(doc);
    return r < 0 ? hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory") : 0;
}

int registry_xml(const struct svc_vm *vm, char **ret, size_t *ret_len, struct hv_error *e)
{
    return xml_with(vm, NULL, ret, ret_len, e);
}

int registry_extras(const struct svc_vm *vm, json_t **ret, struct hv_error *e)
{
    struct settings_doc *doc;
    int r = read_doc(vm, &doc, e);
    if (r < 0)
        return r;
    *ret = settings_extras(doc);
    settings_doc_free(doc);
    return *ret ? 0 : hv_fail(e, HV_NO_RESOURCES, vm->name, "out of memory");
}

static int cannot_store(const char *name, const char *path, int r, struct hv_error *e)
{
    return hv_fail_errno(e, -r, name, "cannot store its settings in %s", path);
}

/* What is to be in its file. */
static int file_text(const struct svc_vm *vm, const json_t *extras, char **ret, size_t *ret_len, struct hv_error *e)
{
    int r = xml_with(vm, extras, ret, ret_len, e);
    if (r == 0 && *ret_len > SETTINGS_XML_MAX)      /* it could not be read again */
        r = hv_fail(e, HV_USAGE, vm->name, "its settings are more than %zu KiB", SETTINGS_XML_MAX >> 10);
    return r;
}

/* Whose it is stands in the file's owner. Only root can give files away, and needs to: others own all of theirs. */
static void give_away(const struct svc_vm *vm, const char *path)
{
    if (geteuid() == 0 && vm->owner != 0 && chown(path, vm->owner, (gid_t)-1) < 0)
        log_warning("%s: cannot say whose it is: %s", path, strerror(errno));
}

static int store_with(struct svc_vm *vm, const json_t *extras, struct hv_error *e)
{
    hv_autofree char *xml = NULL;
    size_t len = 0;
    char path[HV_PATH_SIZE + 64];
    int r = file_text(vm, extras, &xml, &len, e);
    if (r < 0)
        return r;
    vm->revision++;
    vm_path(vm, path, sizeof(path));
    r = hv_replace_file(path, xml, len, 0600);
    if (r < 0)
        return cannot_store(vm->name, path, r, e);
    give_away(vm, path);
    return 0;
}

/* ---- many at once ---- */

int registry_stage(struct svc_vm *vm, const struct settings *fresh, const json_t *extras, struct hv_replacement *f,
                   struct hv_error *e)
{
    hv_autofree char *xml = NULL;
    size_t len = 0;
    char path[HV_PATH_SIZE + 64];
    const struct settings kept = vm->settings;
    if (fresh)
        vm->settings = *fresh;         /* only while it is written down */
    int r = file_text(vm, extras, &xml, &len, e);
    vm->settings = kept;
    if (r < 0)
        return r;
    vm_path(vm, path, sizeof(path));
    r = hv_replacement_begin(f, path, xml, len, 0600);
    if (r < 0)
        return cannot_store(vm->name, path, r, e);
    give_away(vm, f->temp);
    return 0;
}

int registry_staged_sync(const char *name, struct hv_replacement *f, struct hv_error *e)
{
    int r = hv_replacement_sync(f);
    return r < 0 ? cannot_store(name, f->path, r, e) : 0;
}

static void processor_changed(struct svc_vm *vm, const struct settings *old)
{
    if (old->processor.weight != vm->settings.processor.weight || old->processor.limit_pct != vm->settings.processor.limit_pct)
        scope_apply(vm);
}

int registry_commit(struct svc_vm *vm, struct settings *fresh, struct hv_replacement *f, struct hv_error *e)
{
    int r = hv_replacement_commit(f);
    if (r < 0)
        return cannot_store(vm->name, f->path, r, e);
    vm->revision++;
    if (!fresh) {
        insert(vm->svc, vm);
        return 0;
    }
    struct settings old = vm->settings;
    vm->settings = *fresh;
    *fresh = old;
    processor_changed(vm, &old);
    return 0;
}

int registry_sync(struct service *svc, struct hv_error *e)
{
    char path[HV_PATH_SIZE + 64];
    snprintf(path, sizeof(path), "%s/vms/", svc->paths.state);
    int r = hv_sync_folder(path);
    return r < 0 ? hv_fail_errno(e, -r, path, "cannot store settings") : 0;
}

int registry_store(struct svc_vm *vm, struct hv_error *e)
{
    return store_with(vm, NULL, e);
}

int registry_change(struct svc_vm *vm, struct settings *fresh, struct hv_error *e)
{
    return registry_change_all(vm, fresh, NULL, NULL, e);
}

int registry_change_all(struct svc_vm *vm, struct settings *fresh, const json_t *extras, const json_t *old_extras,
                        struct hv_error *e)
{
    struct settings old = vm->settings;
    vm->settings = *fresh;
    int r = store_with(vm, extras, e);
    if (r < 0) {
        /* The new file may have taken the name and only not be safe. What was refused must not come with the next service. */
        *fresh = vm->settings;
        vm->settings = old;
        (void)store_with(vm, old_extras, NULL);
        return r;
    }
    *fresh = old;
    processor_changed(vm, &old);
    return 0;
}

int registry_rename(struct svc_vm *vm, const char *name, bool dry_run, struct hv_error *e)
{
    char old[sizeof(vm->name)];
    if (strcmp(vm->name, name) == 0)
        return 0;
    int r = registry_check_name(vm->svc, name, e);
    if (r < 0 || dry_run)
        return r;
    hv_strlcpy(old, vm->name, sizeof(old));
    unlink_vm(vm);
    hv_strlcpy(vm->name, name, sizeof(vm->name));
    r = registry_store(vm, e);
    if (r < 0) {
        /* As in registry_change_all(): the file may have the new name, and must not. */
        hv_strlcpy(vm->name, old, sizeof(vm->name));
        (void)registry_store(vm, NULL);
    }
    insert(vm->svc, vm);
    return r;
}

static int delete_file(const char *path)
{
    char dir[HV_PATH_SIZE + 64];
    hv_strlcpy(dir, path, sizeof(dir));
    *strrchr(dir, '/') = 0;
    if (unlink(path) < 0)
        return errno == ENOENT ? 0 : -errno;
    hv_autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        (void)fsync(fd);               /* gone for good; where it fails the file can only come back whole */
    return 0;
}

int registry_remove(struct svc_vm *vm, struct hv_error *e)
{
    char path[HV_PATH_SIZE + 64];
    vm_path(vm, path, sizeof(path));
    int r = delete_file(path);
    if (r < 0)
        return hv_fail_errno(e, -r, vm->name, "cannot delete %s", path);
    vmlog_remove(vm);
    groups_forget(vm);
    registry_forget(vm);
    return 0;
}

void registry_forget(struct svc_vm *vm)
{
    wait_check(vm, true);
    unlink_vm(vm);
    vm_free(vm);
}

void registry_free(struct service *svc)
{
    while (svc->vms) {
        struct svc_vm *vm = svc->vms;
        svc->vms = vm->next;
        vm_free(vm);
    }
}
