/*
 * Disks of the VM: images are opened here, by the sealed process, from descriptors that hvd
 * opened with the owner's rights. A parent that an image names and that did not come along is
 * asked for by path; hvd opens that as well, or says no.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "hv/disk/disk.h"
#include "hv/worker/worker.h"

/* What came with one call. */
struct files {
    struct disk_file *file[DISK_CHAIN_MAX];
    unsigned count, next;
    json_t *need;                      /* paths to try for the one that is missing */
    char child[4096];                  /* whose parent it is */
};

static struct vm *vm_or_refuse(struct worker *w, struct varlink_call *call)
{
    struct hv_error e = {0};
    if (w->vm && vm_state(w->vm) != VM_OFF)
        return w->vm;
    hv_fail(&e, HV_CONFLICT, w->name, "it is not running");
    varlink_reply_error(call, &e);
    return NULL;
}

/* What changed is reported before it is answered: who asks next sees it. */
static void answer(struct worker *w, struct varlink_call *call, int r, const struct hv_error *e, json_t *reply)
{
    if (r < 0) {
        json_decref(reply);
        varlink_reply_error(call, e);
    } else {
        worker_guest_changed(w);
        varlink_reply(call, reply ? reply : json_object(), false);
    }
}

static void files_fini(struct files *f)
{
    while (f->count > f->next)
        disk_file_unref(f->file[--f->count]);
    json_decref(f->need);
}

/* The next file is the parent that is wanted; none is left: say what to look for. */
static int next_parent(void *arg, const char *child_path, const struct disk_parent_ref *ref, struct disk_file **ret,
                       struct hv_error *e)
{
    struct files *f = arg;
    if (f->next < f->count) {
        *ret = f->file[f->next++];
        return 0;
    }
    f->need = json_array();
    for (int i = 0; i < DISK_PARENT_CANDIDATES; i++) {
        hv_autofree char *path = disk_parent_candidate(child_path, ref, i);
        if (path && path[0] == '/')
            json_array_append_new(f->need, json_string(path));
    }
    hv_strlcpy(f->child, child_path, sizeof(f->child));
    return hv_fail(e, HV_NOT_FOUND, child_path, "its parent is missing");
}

/* Take all descriptors over; the leaf may be written, the parents never are. */
static int take_files(struct varlink_call *call, const json_t *list, bool read_only, struct files *f, struct hv_error *e)
{
    size_t i;
    json_t *o;
    if (json_array_size(list) > DISK_CHAIN_MAX)
        return hv_fail(e, HV_USAGE, "files", "the chain of parents is too long");
    json_array_foreach(list, i, o) {
        const char *path = json_string_value(json_object_get(o, "path"));
        int fd = varlink_call_take_fd(call, (int)json_integer_value(json_object_get(o, "fd")));
        if (fd < 0 || !path) {
            if (fd >= 0)
                close(fd);
            return hv_fail(e, HV_USAGE, "files", "a descriptor is missing");
        }
        /* hvd holds the locks, by the same open file. */
        unsigned flags = DISK_FILE_NO_LOCK | (i == 0 && !read_only ? DISK_FILE_WRITE : 0);
        int r = disk_file_from_fd(fd, path, flags, &f->file[f->count], e);
        if (r < 0)
            return r;
        f->count++;
    }
    return 0;
}

static json_t *attached(const struct disk *d)
{
    struct disk_info info = {0};
    disk_layer_info(disk_layer((struct disk *)(uintptr_t)d, 0), false, &info);
    return json_pack("{s:s s:I}", "format", disk_kind_name(info.kind), "size", (json_int_t)info.size);
}

void worker_attach_disk(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    struct setting_disk how = {0};
    struct files *f = hv_alloc(sizeof(*f));
    struct disk *d = NULL;
    json_t *reply = NULL;
    bool placed;
    struct vm *vm = vm_or_refuse(w, call);
    if (!vm || !f) {
        free(f);
        return;
    }
    int r = setting_disk_from_json(json_object_get(params, "disk"), &how, &placed, &e);
    if (r == 0)
        r = take_files(call, json_object_get(params, "files"), how.read_only || how.dvd, f, &e);
    if (r == 0 && f->count > 0) {
        struct disk_options o = {.flags = how.read_only || how.dvd ? 0 : DISK_WRITE, .parent = next_parent, .parent_arg = f,
                                 .format = how.dvd ? DISK_RAW : how.format == SET_FORMAT_UNKNOWN ? -1 : (int)how.format - SET_FORMAT_RAW};
        f->next = 1;
        r = disk_open_file(f->file[0], &o, &d, &e);
        if (r < 0 && f->need) {
            reply = json_pack("{s:O s:s}", "need", f->need, "child", f->child);
            r = 0;
        } else if (r == 0) {
            reply = attached(d);
        }
    }
    if (r == 0 && (d || !f->need)) {
        r = vm_disk_attach(vm, &(struct vm_disk){.lun = how.lun, .dvd = how.dvd, .read_only = how.read_only, .iops = how.max_iops}, d, &e);
    }
    files_fini(f);
    free(f);
    setting_disk_fini(&how);
    answer(w, call, r, &e, reply);
}

static int location(const json_t *params, unsigned *ret, struct hv_error *e)
{
    const char *text = json_string_value(json_object_get(params, "location"));
    return setting_disk_parse_location(text ? text : "", ret, e);
}

void worker_detach_disk(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    unsigned lun;
    struct vm *vm = vm_or_refuse(w, call);
    if (!vm)
        return;
    int r = location(params, &lun, &e);
    if (r == 0)
        r = vm_disk_detach(vm, lun, &e);
    answer(w, call, r, &e, NULL);
}

void worker_resize_disk(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    json_int_t size = json_integer_value(json_object_get(params, "size"));
    uint64_t want = size > 0 ? (uint64_t)size : 0;
    struct vm_disk_stats now = {0};
    unsigned lun;
    struct vm *vm = vm_or_refuse(w, call);
    if (!vm)
        return;
    int r = location(params, &lun, &e);
    if (r == 0 && size <= 0)
        r = hv_fail(&e, HV_USAGE, "size", "it has to be more than 0");
    if (r == 0 && vm_disk_stats(vm, lun, &now) && json_is_true(json_object_get(params, "add")))
        want += now.size;
    if (r == 0)
        r = vm_disk_resize(vm, lun, want, &e);
    answer(w, call, r, &e, json_pack("{s:I s:I}", "size", (json_int_t)want, "old_size", (json_int_t)now.size));
}

void worker_limit_disk(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    json_int_t iops = json_integer_value(json_object_get(params, "max_iops"));
    unsigned lun;
    struct vm *vm = vm_or_refuse(w, call);
    if (!vm)
        return;
    int r = location(params, &lun, &e);
    if (r == 0)
        r = iops >= 0 && iops <= SETTING_IOPS_MAX ? vm_disk_limit(vm, lun, (uint32_t)iops, &e)
                                                  : hv_fail(&e, HV_USAGE, "max_iops", "it is out of range");
    answer(w, call, r, &e, NULL);
}

void worker_change_medium(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    const char *path = json_string_value(json_object_get(params, "path"));
    struct disk_file *file;
    struct disk *d = NULL;
    unsigned lun;
    struct vm *vm = vm_or_refuse(w, call);
    if (!vm)
        return;
    int r = location(params, &lun, &e);
    if (r == 0 && path) {
        int fd = varlink_call_take_fd(call, (int)json_integer_value(json_object_get(params, "fd")));
        r = fd < 0 ? hv_fail(&e, HV_USAGE, "fd", "a descriptor is missing")
                   : disk_file_from_fd(fd, path, DISK_FILE_NO_LOCK, &file, &e);
        if (r == 0)
            r = disk_open_file(file, &(struct disk_options){.format = DISK_RAW}, &d, &e);
    }
    if (r == 0)
        r = vm_disk_change(vm, lun, d, json_is_true(json_object_get(params, "force")), &e);
    answer(w, call, r, &e, NULL);
}

json_t *worker_disks_json(struct worker *w)
{
    json_t *list = json_array();
    for (unsigned lun = 0; w->vm && lun < VM_LUNS; lun++) {
        struct vm_disk_stats s;
        char where[SETTING_LOCATION_SIZE];
        if (vm_disk_stats(w->vm, lun, &s))
            json_array_append_new(
                list, json_pack("{s:s s:s s:s? s:I s:I s:b s:I s:I s:I s:I s:I s:I s:I s:i}", "location",
                                setting_disk_location(&(struct setting_disk){.lun = lun}, where), "type",
                                s.dvd ? "dvd" : "disk", "path", s.path, "size", (json_int_t)s.size, "used",
                                (json_int_t)s.allocated, "read_only", s.read_only, "reads", (json_int_t)s.reads, "writes",
                                (json_int_t)s.writes, "read_bytes", (json_int_t)s.read_bytes, "written_bytes",
                                (json_int_t)s.written_bytes, "flushes", (json_int_t)s.flushes, "errors",
                                (json_int_t)s.errors, "wait_ns", (json_int_t)s.wait_ns, "queue", (int)s.queue));
    }
    return list;
}
