/*
 * The integration services and dynamic memory of a VM: made with the bus, asked by whoever
 * runs the VM. What the guest lacks is said at once, with what would help.
 */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/vm/vm_private.h"
#include "hv/vsp/dynmem.h"
#include "hv/vsp/heartbeat.h"
#include "hv/vsp/ic.h"
#include "hv/vsp/keyboard.h"
#include "hv/vsp/shutdown.h"
#include "hv/vsp/timesync.h"

static uint64_t reference_time(void *arg)
{
    struct vm *vm = arg;
    return hyperv_reference_time(vm->hyperv, 0);
}

static void memory_event(void *arg, bool warning, const char *message, const char *hint)
{
    struct vm *vm = arg;
    if (vm->hooks.memory_event)
        vm->hooks.memory_event(vm->hooks.arg, warning, message, hint);
}

static void memory_urgent(void *arg)
{
    struct vm *vm = arg;
    if (vm->hooks.guest_changed)
        vm->hooks.guest_changed(vm->hooks.arg);
}

static void memory_used(void *arg, uint64_t bytes)
{
    struct vm *vm = arg;
    if (vm->hooks.memory_used)
        vm->hooks.memory_used(vm->hooks.arg, bytes);
}

static uint64_t max_bytes(const struct vm *vm)
{
    const struct settings *s = &vm->settings;
    /* A static VM is driven by hand only: as far as there is address space. */
    uint64_t room = vm->layout.ram_bytes + (vm->layout.hot_add_top - vm->layout.hot_add_base);
    return s->memory.dynamic ? MIN(s->memory.max, room) : room;
}

int vm_services_new(struct vm *vm, struct hv_error *e)
{
    struct dynmem_config mem = {
        .bus = vm->vmbus, .low_bytes = vm->layout.low_bytes, .high_bytes = vm->layout.high_bytes,
        .hot_base = vm->layout.hot_add_base, .hot_top = vm->layout.hot_add_top, .max_bytes = max_bytes(vm),
        .event = memory_event, .urgent = memory_urgent, .used = memory_used, .arg = vm,
    };
    int r = heartbeat_new(vm->vmbus, vm_guest_changed, vm, &vm->heartbeat, e);
    if (r == 0)
        r = shutdown_new(vm->vmbus, &vm->shutdown, e);
    if (r == 0)
        r = timesync_new(vm->vmbus, reference_time, vm, &vm->timesync, e);
    if (r == 0)
        r = vm_guest_new(vm, e);
    if (r == 0)
        r = keyboard_new(vm->vmbus, &vm->keyboard, e);
    if (r == 0)
        r = dynmem_new(&mem, &vm->dynmem, e);
    return r == 0 ? vm_disks_new(vm, e) : r;
}

void vm_services_free(struct vm *vm)
{
    vm_disks_free(vm);
    vm_guest_free(vm);
    heartbeat_free(vm->heartbeat);
    shutdown_free(vm->shutdown);
    timesync_free(vm->timesync);
    keyboard_free(vm->keyboard);
    dynmem_free(vm->dynmem);
    vm->heartbeat = NULL;
    vm->shutdown = NULL;
    vm->timesync = NULL;
    vm->keyboard = NULL;
    vm->dynmem = NULL;
}

/* ---- for the worker ---- */

void vm_guest(struct vm *vm, struct vm_guest *ret)
{
    HV_CHECK(vm, VM_MAGIC);
    *ret = (struct vm_guest){.heartbeat = heartbeat_word(HEARTBEAT_NO_CONTACT)};
    if (!vm->vmbus)
        return;
    ret->vmbus_version = vmbus_version(vm->vmbus);
    ret->heartbeat = heartbeat_word(heartbeat_status(vm->heartbeat));
    ret->heartbeats = heartbeat_count(vm->heartbeat);
    ret->shutdown = shutdown_ready(vm->shutdown);
    ret->timesync = timesync_ready(vm->timesync);
    ret->well = vm_guest_well(vm, &ret->well_ns);
}

void vm_memory(struct vm *vm, struct vm_memory *ret)
{
    HV_CHECK(vm, VM_MAGIC);
    *ret = (struct vm_memory){.assigned = mem_ram_bytes(vm->mem), .visible = mem_ram_bytes(vm->mem),
                              .resident = mem_resident_bytes(vm->mem), .op = dynmem_op_word(DYNMEM_IDLE)};
    ret->paged = mem_paged(vm->mem);
    ret->granted = ret->paged ? vm->granted : 0;
    ret->needs = vm->state == VM_RESETTING ? vm->layout.low_bytes + vm->layout.high_bytes : 0;
    if (!vm->dynmem)
        return;
    struct dynmem_report r;
    dynmem_report(vm->dynmem, &r);
    ret->driver = r.driver;
    ret->reporting = r.reporting;
    ret->assigned = r.assigned;
    ret->visible = r.visible;
    ret->ballooned = r.ballooned;
    ret->hot_added = r.hot_added;
    ret->available = r.available;
    ret->demand = r.demand;
    ret->offline = r.offline;
    ret->target = r.target;
    ret->reported_assigned = r.reported_assigned;
    ret->last_op = r.last_op ? dynmem_op_word(r.last_op) : NULL;
    ret->driver_age_ns = r.driver_age_ns;
    ret->last_bytes = r.last_bytes;
    ret->last_took_ns = r.last_took_ns;
    ret->last_ago_ns = r.last_ago_ns;
    ret->report_age_ns = r.report_age_ns;
    ret->reports = r.reports;
    ret->op = dynmem_op_word(r.op);
    ret->can_balloon = r.can_balloon;
    ret->can_hot_add = r.can_hot_add;
    ret->stuck = r.stuck;
}

int vm_memory_target(struct vm *vm, uint64_t bytes, struct hv_error *e)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_RUNNING && vm->state != VM_PAUSED)
        return hv_fail(e, HV_CONFLICT, vm->name, "it is not running");
    if (!vm->dynmem)
        return hv_fail(e, HV_UNSUPPORTED, vm->name, "it has no Hyper-V interface, and so no dynamic memory");
    return dynmem_set_target(vm->dynmem, bytes, e);
}

void vm_memory_take_back(struct vm *vm)
{
    HV_CHECK(vm, VM_MAGIC);
    uint64_t found;
    if (vm->dynmem && (vm->state == VM_RUNNING || vm->state == VM_PAUSED))
        (void)dynmem_enforce(vm->dynmem, &found);
}

void vm_memory_apply(struct vm *vm)
{
    if (vm->dynmem)
        dynmem_set_max(vm->dynmem, max_bytes(vm));
}

static void on_shutdown_answer(void *arg, uint32_t status)
{
    struct vm *vm = arg;
    if (status == IC_OK || status == IC_GONE)       /* gone: it went down faster than it could say so */
        return;
    log_warning("%s: the guest refuses to shut down (0x%08x): pressing its power button", vm->name, status);
    (void)vm_power_button(vm);
}

bool vm_guest_shutdown(struct vm *vm, bool restart, bool force)
{
    HV_CHECK(vm, VM_MAGIC);
    if (vm->state != VM_RUNNING || !vm->shutdown || !shutdown_ready(vm->shutdown))
        return false;
    int r = shutdown_ask(vm->shutdown, restart, force, "asked for by the host", on_shutdown_answer, vm);
    return r == 0 || r == -EBUSY;                   /* busy: it has been asked already */
}
