/*
 * The Hyper-V side of a VM: the interface (hv/hyperv) on the engine's vCPUs, VMBus on its
 * SynIC. The arrows between them, as in wire.c:
 *
 *   guest ──MSRs, hypercalls──▶ hyperv ──messages, signals──▶ vmbus ──packets──▶ VSPs
 *         ◀──slots, flags, interrupts── hyperv ◀──post, signal── vmbus
 */
#include <errno.h>

#include "hv/base/log.h"
#include "hv/vm/vm_private.h"

/* ---- hyperv to engine ---- */

static uint64_t read_tsc(void *arg, unsigned vp)
{
    struct vm *vm = arg;
    return vm->engine->ops->read_tsc(vm->vcpu[vp].vcpu);
}

static int get_regs(void *arg, unsigned vp, struct hyperv_regs *ret)
{
    struct vm *vm = arg;
    struct vcpu_call c;
    int err = engine_get_call(vm->engine, vm->vcpu[vp].vcpu, &c);
    if (err < 0)
        return err;
    *ret = (struct hyperv_regs){
        .rax = c.gpr[0], .rcx = c.gpr[1], .rdx = c.gpr[2], .rbx = c.gpr[3], .rsi = c.gpr[6], .rdi = c.gpr[7],
        .r8 = c.gpr[8], .long_mode = c.long_mode,
    };
    return 0;
}

static int set_result(void *arg, unsigned vp, bool long_mode, uint64_t result)
{
    struct vm *vm = arg;
    struct vcpu *v = vm->vcpu[vp].vcpu;
    struct vcpu_call c;
    int err = engine_get_call(vm->engine, v, &c);
    if (err < 0)
        return err;
    c.gpr[0] = long_mode ? result : (uint32_t)result;
    if (!long_mode)
        c.gpr[2] = result >> 32;
    return engine_set_call(vm->engine, v, &c);
}

static void mirror(void *arg, unsigned vp, uint32_t msr, uint64_t val)
{
    struct vm *vm = arg;
    if (vm->engine->ops->mirror_msr)
        vm->engine->ops->mirror_msr(vm->vcpu[vp].vcpu, msr, val);
}

/* ---- hyperv to vmbus, and back ---- */

static int post_message(void *arg, uint32_t connection, uint32_t type, const void *payload, uint32_t len)
{
    struct vm *vm = arg;
    return vmbus_post_message(vm->vmbus, connection, type, payload, len);
}

static int signal_event(void *arg, uint32_t connection, uint16_t flag)
{
    struct vm *vm = arg;
    return vmbus_signal_event(vm->vmbus, connection, flag);
}

static void slot_free(void *arg)
{
    struct vm *vm = arg;
    vmbus_slot_free(vm->vmbus);
}

static int link_post(void *arg, unsigned vp, const void *payload, uint32_t len)
{
    struct vm *vm = arg;
    return hyperv_post(vm->hyperv, vp, VMBUS_SINT, VMBUS_MESSAGE_TYPE, payload, len);
}

static void link_signal(void *arg, unsigned vp, unsigned flag)
{
    struct vm *vm = arg;
    (void)hyperv_signal(vm->hyperv, vp, VMBUS_SINT, flag);
}

/* ---- what guests do wrong, and what they report ---- */

static void fault(void *arg, const char *channel, const char *what)
{
    struct vm *vm = arg;
    log_warning("%s: VMBus: %s: %s", vm->name, channel, what);
}

static void crashed(void *arg, const struct hyperv_crash *crash)
{
    struct vm *vm = arg;
    (void)crash;                        /* hyperv keeps it */
    loop_post(vm->loop, &vm->crash_post);
}

static void report_crash(void *arg)
{
    struct vm *vm = arg;
    struct hyperv_crash c;
    if (hyperv_crash(vm->hyperv, &c) && vm->hooks.crashed)
        vm->hooks.crashed(vm->hooks.arg, c.p, c.text);
}

/* ---- building ---- */

static struct hyperv_config config(struct vm *vm)
{
    return (struct hyperv_config){
        .machine = vm->machine,
        .vcpus = vm->vcpus,
        .phys_bits = VM_PHYS_BITS,
        .tsc_hz = vm->engine->ops->tsc_hz(vm->engine),
        .apic_hz = vm->engine->ops->apic_hz(vm->engine),
        .hooks = {.read_tsc = read_tsc, .get_regs = get_regs, .set_result = set_result, .post_message = post_message,
                  .signal_event = signal_event, .slot_free = slot_free, .crashed = crashed, .mirror = mirror, .arg = vm},
    };
}

int vm_cpuid(struct vm *vm, struct cpuid_leaf **leaf, unsigned *n)
{
    if (!vm->settings.hyperv)
        return 0;
    struct hyperv_leaf add[HYPERV_LEAVES];
    const struct hyperv_config cfg = config(vm);
    struct cpuid_leaf *all = realloc(*leaf, (*n + HYPERV_LEAVES) * sizeof(*all));
    if (!all)
        return -ENOMEM;
    *leaf = all;
    hyperv_cpuid(&cfg, add);
    for (unsigned i = 0; i < HYPERV_LEAVES; i++)
        all[(*n)++] = (struct cpuid_leaf){.leaf = add[i].leaf, .eax = add[i].reg[0], .ebx = add[i].reg[1],
                                          .ecx = add[i].reg[2], .edx = add[i].reg[3]};
    return 0;
}

int vm_synthetic_new(struct vm *vm, struct hv_error *e)
{
    if (!vm->settings.hyperv)
        return 0;
    const struct hyperv_config cfg = config(vm);
    const struct vmbus_config bus = {
        .machine = vm->machine, .vcpus = vm->vcpus,
        .link = {.post = link_post, .signal = link_signal, .arg = vm},
        .fault = fault, .fault_arg = vm,
    };
    vm->crash_post = (struct loop_post){.fn = report_crash, .arg = vm};
    int r = hyperv_new(&cfg, &vm->hyperv, e);
    if (r == 0)
        r = vmbus_new(&bus, &vm->vmbus, e);
    return r == 0 ? vm_services_new(vm, e) : r;
}

void vm_synthetic_free(struct vm *vm)
{
    if (vm->hyperv)
        loop_post_cancel(vm->loop, &vm->crash_post);
    vm_services_free(vm);
    vmbus_free(vm->vmbus);
    hyperv_free(vm->hyperv);
    vm->vmbus = NULL;
    vm->hyperv = NULL;
}

void vm_synthetic_pause(struct vm *vm)
{
    if (vm->vmbus)
        vmbus_pause(vm->vmbus);
}

void vm_synthetic_go_on(struct vm *vm)
{
    if (vm->vmbus)
        vmbus_resume(vm->vmbus);
}

void vm_synthetic_resume(struct vm *vm)
{
    vm_synthetic_go_on(vm);
    vm_guest_resumed(vm);
}
