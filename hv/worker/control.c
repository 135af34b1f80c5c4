/* The methods of org.hv.Worker: what hvd asks of the one VM in this process. */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "hv/base/log.h"
#include "hv/worker/sandbox.h"
#include "hv/worker/worker.h"

static void refuse(struct varlink_call *call, enum hv_code code, const char *object, const char *message)
{
    struct hv_error e = {0};
    hv_fail(&e, code, object, "%s", message);
    varlink_reply_error(call, &e);
}

/* The VM, or NULL after an answer that says there is none yet. */
static struct vm *need_vm(struct worker *w, struct varlink_call *call)
{
    if (!w->vm)
        refuse(call, HV_CONFLICT, w->name, "it is not set up yet");
    return w->vm;
}

static void answer(struct varlink_call *call, int r, const struct hv_error *e)
{
    if (r < 0)
        varlink_reply_error(call, e);
    else
        varlink_reply(call, json_object(), false);
}

static bool flag(const json_t *params, const char *name)
{
    return json_is_true(json_object_get(params, name));
}

static const char *text(const json_t *params, const char *name)
{
    const char *s = json_string_value(json_object_get(params, name));
    return s ? s : "";
}

static void do_hello(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    char id[GUID_TEXT_SIZE];
    if (json_integer_value(json_object_get(params, "version")) < 1) {
        refuse(call, HV_UNSUPPORTED, w->name, "this worker speaks versions 1 and 2");
        return;
    }
    varlink_reply(call,
                  json_pack("{s:i s:s s:s s:s s:s s:b s:O?}", "version", WORKER_API, "build", HV_VERSION, "vm",
                            w->name, "id", guid_format(&w->id, id), "state", worker_state_word(w), "started",
                            w->vm && vm_state(w->vm) != VM_BUILT, "sandbox", w->sandbox),
                  false);
}

/* The descriptor a parameter names, or -1 if the parameter is absent. */
static int take_fd(struct varlink_call *call, const json_t *params, const char *name)
{
    const json_t *v = json_object_get(params, name);
    return json_is_integer(v) ? varlink_call_take_fd(call, (int)json_integer_value(v)) : -1;
}

static void vcpu_begins(void *arg)
{
    (void)arg;
    sandbox_seal_vcpu();
}

static void do_setup(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    json_t *fds = json_object_get(params, "fds");
    hv_autoclose int kernel = take_fd(call, fds, "kernel");
    hv_autoclose int initrd = take_fd(call, fds, "initrd");
    hv_autoclose int kvm = take_fd(call, fds, "kvm");
    struct sandbox_report sandbox = {0};
    int r = 0;
    if (w->vm)
        r = hv_fail(&e, HV_CONFLICT, w->name, "it is set up already");
    else if (guid_parse(text(params, "id"), &w->id) < 0)
        r = hv_fail(&e, HV_USAGE, "id", "'%s' is no GUID", text(params, "id"));
    else
        r = settings_from_json(&w->settings, json_object_get(params, "settings"), &e);
    if (r == 0) {
        hv_strlcpy(w->name, text(params, "name"), sizeof(w->name));
        w->exit_fd = take_fd(call, fds, "exit");
        struct vm_config cfg = {.name = w->name, .id = w->id, .settings = &w->settings,
                                .kernel_fd = kernel, .initrd_fd = initrd, .kvm_fd = kvm, .loop = w->loop,
                                .hooks = {.changed = worker_changed, .guest_changed = worker_guest_changed,
                                          .memory_event = worker_memory_event, .memory_used = worker_memory_used, .guest_event = worker_guest_event,
                                          .crashed = worker_crashed, .reset_waits = worker_reset_waits, .vcpu_begins = vcpu_begins, .arg = w}};
        sandbox_confine(&sandbox);
        r = vm_new(&cfg, &w->vm, &e);
    }
    if (r == 0) {
        r = consoles_new(w, &w->consoles);
        if (r < 0)
            hv_fail_errno(&e, -r, w->name, "cannot serve its console");
    }
    if (r < 0) {
        varlink_reply_error(call, &e);
        return;
    }
    struct sandbox_code code;
    vm_code_region(w->vm, &code.base, &code.len);
    sandbox_seal(&code, &sandbox);
    vm_disk_threads(w->vm, sandbox_seal_disk);
    w->sandbox = sandbox_json(&sandbox);
    varlink_reply(call, json_pack("{s:O?}", "sandbox", w->sandbox), false);
}

static void do_start(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    struct vm *vm = need_vm(w, call);
    if (vm)
        answer(call, vm_start(vm, flag(params, "paused"), &e), &e);
}

static void do_pause(void *arg, struct varlink_call *call, const json_t *params)
{
    struct hv_error e = {0};
    struct vm *vm = need_vm(arg, call);
    if (vm)
        answer(call, vm_pause(vm, &e), &e);
}

static void do_resume(void *arg, struct varlink_call *call, const json_t *params)
{
    struct hv_error e = {0};
    struct vm *vm = need_vm(arg, call);
    if (vm)
        answer(call, vm_resume(vm, &e), &e);
}

static void do_reset(void *arg, struct varlink_call *call, const json_t *params)
{
    struct hv_error e = {0};
    struct vm *vm = need_vm(arg, call);
    if (vm)
        answer(call, vm_reset(vm, &e), &e);
}

static void do_power_button(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct vm *vm = need_vm(w, call);
    if (!vm)
        return;
    if (vm_state(vm) != VM_RUNNING)
        refuse(call, HV_CONFLICT, w->name, "it is not running");
    else if (flag(params, "restart") && !vm_guest_shutdown(vm, true, flag(params, "force")))
        refuse(call, HV_UNSUPPORTED, w->name, "the guest runs no shutdown service, which restarts are asked of");
    else if (!flag(params, "restart") && !vm_guest_shutdown(vm, false, flag(params, "force")) && !vm_power_button(vm))
        refuse(call, HV_UNSUPPORTED, w->name,
               "the guest runs no shutdown service and has not enabled its ACPI power button");
    else
        answer(call, 0, NULL);
}

static void do_memory_target(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    struct vm *vm = need_vm(w, call);
    json_int_t bytes = json_integer_value(json_object_get(params, "bytes"));
    if (!vm)
        return;
    if (bytes < 0)
        refuse(call, HV_USAGE, "bytes", "a size is not negative");
    else
        answer(call, vm_memory_target(vm, (uint64_t)bytes, &e), &e);
}

static void do_turn_off(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    if (w->vm && vm_state(w->vm) != VM_OFF)
        vm_turn_off(w->vm);
    answer(call, 0, NULL);
    if (!w->vm)
        worker_changed(w);      /* never set up: nothing else would end the process */
}

/* A fresh file for what this process says; the old one was full. */
static void do_log(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    hv_autoclose int fd = take_fd(call, params, "fd");
    if (fd < 0 || dup3(fd, STDERR_FILENO, 0) < 0)
        refuse(call, HV_USAGE, w->name, "no file to log to");
    else
        answer(call, 0, NULL);
}

static void do_console(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    int fd = take_fd(call, params, "fd");
    if (fd < 0) {
        refuse(call, HV_USAGE, "fd", "no descriptor came with the call");
        return;
    }
    if (!w->vm || vm_state(w->vm) == VM_OFF || vm_state(w->vm) == VM_BUILT) {
        close(fd);
        refuse(call, HV_CONFLICT, w->name, "it is not running");
        return;
    }
    int r = consoles_add(w->consoles, fd, text(params, "who"), flag(params, "read_only"),
                         flag(params, "take_over"), flag(params, "history"), &e);
    answer(call, r, &e);
}

static void do_console_status(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    varlink_reply(call,
                  json_pack("{s:s? s:i}", "writer", w->consoles ? consoles_writer(w->consoles) : NULL,
                            "readers", w->consoles ? (int)consoles_count(w->consoles) : 0),
                  false);
}

static void do_watch(void *arg, struct varlink_call *call, const json_t *params)
{
    const json_t *ms = json_object_get(params, "interval_ms");
    uint64_t interval = json_is_integer(ms) && json_integer_value(ms) > 0
                            ? (uint64_t)MIN(json_integer_value(ms), 86400000) * NS_PER_MS : 0;
    worker_watch(arg, call, interval, json_is_true(json_object_get(params, "rows")));
}

static void do_state(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    varlink_reply(call, json_pack("{s:s s:o}", "state", worker_state_word(w), "runtime", worker_runtime(w)),
                  false);
}

/* Which settings that take effect at once differ between the two, as a list of names. */
static json_t *live_changes(const struct settings *old, const struct settings *new)
{
    json_t *names = json_array();
    for (unsigned i = 0; i < SETTING_COUNT; i++)
        if (setting_table[i].live == SETTING_NOW && !setting_equal(old, new, &setting_table[i]))
            json_array_append_new(names, json_string(setting_table[i].name));
    return names;
}

static void do_apply(void *arg, struct varlink_call *call, const json_t *params)
{
    struct worker *w = arg;
    struct hv_error e = {0};
    struct vm *vm = need_vm(w, call);
    if (!vm)
        return;
    struct settings fresh;
    settings_init(&fresh);
    int r = settings_copy(&fresh, vm_settings(vm));
    if (r < 0)
        hv_fail(&e, HV_NO_RESOURCES, w->name, "out of memory");
    if (r == 0)
        r = settings_from_json(&fresh, json_object_get(params, "settings"), &e);
    json_t *applied = r == 0 ? live_changes(vm_settings(vm), &fresh) : NULL;
    if (r == 0 && (r = vm_apply(vm, &fresh)) < 0)
        hv_fail_errno(&e, -r, w->name, "cannot apply");
    /* The memory of a running static VM is moved by hand, as far as its guest can. */
    struct vm_memory m;
    vm_memory(vm, &m);
    if (r == 0 && !vm_settings(vm)->memory.dynamic && !fresh.memory.dynamic &&
        (m.target ? m.target : vm_settings(vm)->memory.startup) != fresh.memory.startup) {
        struct hv_error why = {0};
        if (vm_memory_target(vm, fresh.memory.startup, &why) == 0)
            json_array_append_new(applied, json_string("memory.startup"));
        else
            worker_event(w, "memory", false, why.message, why.hint[0] ? why.hint : NULL);
    }
    settings_fini(&fresh);
    if (r < 0) {
        json_decref(applied);
        varlink_reply_error(call, &e);
        return;
    }
    varlink_reply(call, json_pack("{s:o}", "applied", applied), false);
}

const struct varlink_method worker_methods[] = {
    {"Hello", do_hello},
    {"Setup", do_setup},
    {"Start", do_start},
    {"Pause", do_pause},
    {"Resume", do_resume},
    {"PowerButton", do_power_button},
    {"Reset", do_reset},
    {"FinishReset", worker_finish_reset},
    {"GrantMemory", worker_grant_memory},
    {"MemoryTarget", do_memory_target},
    {"TurnOff", do_turn_off},
    {"Console", do_console},
    {"ConsoleStatus", do_console_status},
    {"Watch", do_watch},
    {"State", do_state},
    {"Log", do_log},
    {"Apply", do_apply},
    {"AttachDisk", worker_attach_disk},
    {"DetachDisk", worker_detach_disk},
    {"ResizeDisk", worker_resize_disk},
    {"LimitDisk", worker_limit_disk},
    {"ChangeMedium", worker_change_medium},
    {"GuestItems", worker_guest_items},
    {"SetGuestItem", worker_set_guest_item},
    {"Freeze", worker_freeze},
    {"Thaw", worker_thaw},
    {"CopyFile", worker_copy_file},
    {"CancelCopy", worker_cancel_copy},
    {0},
};
