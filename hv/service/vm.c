/* What the service knows of one VM: its state, its JSON, and what follows from a change. */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/service/service.h"

static const char *const state_words[SVC_STATE_COUNT] = {
    [SVC_OFF] = "off",         [SVC_STARTING] = "starting", [SVC_RUNNING] = "running",
    [SVC_PAUSED] = "paused",   [SVC_STOPPING] = "stopping",
};

const char *svc_state_word(const struct svc_vm *vm) { return state_words[vm->state]; }

json_t *svc_vm_json(struct svc_vm *vm) { return svc_vm_json_groups(vm, NULL); }

json_t *svc_vm_json_groups(struct svc_vm *vm, const json_t *groups)
{
    char id[GUID_TEXT_SIZE];
    json_t *runtime = vm->runtime ? json_deep_copy(vm->runtime) : json_object();
    if (!runtime)
        return NULL;
    balance_json(vm, json_object_get(runtime, "memory"));
    json_object_set_new(json_object_get(runtime, "memory"), "change", history_change(vm));
    if (vm->link) {
        json_object_set_new(runtime, "pid", json_integer(worker_pid(vm)));
        json_object_set_new(runtime, "unit", vm->scope ? json_string(vm->scope) : json_null());
        if (worker_sandbox(vm))
            json_object_set(runtime, "sandbox", worker_sandbox(vm));
        json_object_set_new(runtime, "cpu_pct", json_integer((json_int_t)(vm->cpu_pct + 0.5)));
    }
    json_object_set_new(runtime, "exit", vm->exit_word[0] ? json_string(vm->exit_word) : json_null());
    json_object_set_new(runtime, "transient", json_boolean(vm->transient));
    json_object_set_new(runtime, "metering", metering_json(vm));
    json_object_set_new(runtime, "groups", groups_of(vm));
    return json_pack("{s:s s:s s:s s:s? s:o s:o}", "name", vm->name, "id", guid_format(&vm->id, id), "state",
                     svc_state_word(vm), "reason", vm->reason[0] ? vm->reason : NULL, "settings",
                     settings_to_json_groups(&vm->settings, groups), "runtime", runtime);
}

void svc_vm_set_state(struct svc_vm *vm, enum svc_state st)
{
    if (vm->state == st)
        return;
    enum svc_state old = vm->state;
    vm->state = st;
    vm->revision++;
    balance_state(vm, old);
    power_note(vm);
    if (st == SVC_OFF) {
        json_decref(vm->runtime);
        vm->runtime = NULL;
        rates_forget(vm);
        vm->last_cpu_ns = vm->last_report_ns = 0;
        vm->cpu_pct = 0;
        vm->off_since_ns = hv_now_ns();
    } else {
        vm->reason[0] = 0;
        if (old == SVC_OFF)
            vm->exit_word[0] = 0;
    }
    bool bad = st == SVC_OFF && (strcmp(vm->exit_word, "crash") == 0 || strcmp(vm->exit_word, "error") == 0 ||
                                 strcmp(vm->exit_word, "killed") == 0);
    event_add(vm->svc, "state", vm->name, bad ? "error" : "info", -1,
              json_pack("{s:s s:s}", "old", state_words[old], "new", state_words[st]), NULL, "%s%s%s",
              state_words[st], vm->reason[0] ? ": " : "", vm->reason);
    log_info("vm=%s %s%s%s", vm->name, state_words[st], vm->reason[0] ? ": " : "", vm->reason);
    wait_check(vm, false);
    guest_check(vm);
    restart_check(vm);
    if (st == SVC_OFF) {
        struct service *svc = vm->svc;
        stop_check(vm);
        host_stop_check(svc);
    }
}
