/*
 * Who calls whom, in one place. The rooms below know only their own interfaces; each
 * function here is one arrow between two of them:
 *
 *   engine ──I/O, MSRs, hypercalls──▶ machine's tables     platform ──INTR, routes──▶ engine
 *   engine ──EOI, INTA──▶ platform                         machine  ──MSI──▶ engine
 *   memory ──map, unmap, written──▶ engine                 machine  ──events──▶ life cycle
 */
#include "hv/vm/vm_private.h"

/* ---- engine to machine ---- */

static void cb_pio_in(void *arg, unsigned vp, uint16_t port, unsigned size, void *data, uint32_t count)
{
    struct vm *vm = arg;
    machine_pio_in(vm->machine, port, size, data, count);
}

static void cb_pio_out(void *arg, unsigned vp, uint16_t port, unsigned size, const void *data, uint32_t count)
{
    struct vm *vm = arg;
    machine_pio_out(vm->machine, port, size, data, count);
}

static void cb_mmio_read(void *arg, unsigned vp, gpa_t gpa, void *data, unsigned len)
{
    struct vm *vm = arg;
    machine_mmio_read(vm->machine, gpa, data, len);
}

static void cb_mmio_write(void *arg, unsigned vp, gpa_t gpa, const void *data, unsigned len)
{
    struct vm *vm = arg;
    machine_mmio_write(vm->machine, gpa, data, len);
}

static int cb_msr_read(void *arg, unsigned vp, uint32_t msr, uint64_t *ret)
{
    struct vm *vm = arg;
    return machine_msr_read(vm->machine, vp, msr, ret);
}

static int cb_msr_write(void *arg, unsigned vp, uint32_t msr, uint64_t val)
{
    struct vm *vm = arg;
    return machine_msr_write(vm->machine, vp, msr, val);
}

static int cb_hypercall(void *arg, unsigned vp)
{
    struct vm *vm = arg;
    return machine_hypercall(vm->machine, vp);
}

static void cb_eoi(void *arg, unsigned pin)
{
    struct vm *vm = arg;
    platform_eoi(vm->platform, pin);
}

static int cb_extint_ack(void *arg)
{
    struct vm *vm = arg;
    return platform_extint_ack(vm->platform);
}

const struct engine_callbacks vm_engine_callbacks = {
    .pio_in = cb_pio_in,       .pio_out = cb_pio_out,
    .mmio_read = cb_mmio_read, .mmio_write = cb_mmio_write,
    .msr_read = cb_msr_read,   .msr_write = cb_msr_write,
    .hypercall = cb_hypercall, .eoi = cb_eoi,
    .extint_ack = cb_extint_ack,
};

/* ---- machine and platform to engine ---- */

static void hook_event(void *arg, enum machine_event ev)
{
    vm_raise(arg, 1u << ev);
}

static void hook_msi(void *arg, uint64_t addr, uint32_t data)
{
    struct vm *vm = arg;
    vm->engine->ops->send_msi(vm->engine, addr, data);
}

const struct machine_hooks vm_machine_hooks = {.event = hook_event, .msi = hook_msi};

static void pic_intr(void *arg, bool asserted)
{
    struct vm *vm = arg;
    vm->engine->ops->set_extint(vm->engine, asserted);
}

static void ioapic_route(void *arg, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked)
{
    struct vm *vm = arg;
    vm->engine->ops->set_route(vm->engine, pin, addr, data, level, masked);
}

void vm_wire_platform(struct vm *vm, struct platform_config *cfg)
{
    *cfg = (struct platform_config){
        .low_ram = vm->layout.low_bytes,
        .high_ram = vm->layout.high_bytes,
        .cpus = vm->vcpus,
        .exit_port = vm->settings.boot.test_device,
        .pic_intr = pic_intr,
        .ioapic_route = ioapic_route,
        .arg = vm,
    };
}

/* ---- memory to engine ---- */

static int on_map(void *arg, gpa_t gpa, uint64_t len, void *hva, bool readonly)
{
    struct vm *vm = arg;
    return vm->engine->ops->map(vm->engine, gpa, len, hva, readonly);
}

static int on_unmap(void *arg, gpa_t gpa, uint64_t len)
{
    struct vm *vm = arg;
    return vm->engine->ops->unmap(vm->engine, gpa, len);
}

static void on_written(void *arg, gpa_t gpa, uint64_t len)
{
    struct vm *vm = arg;
    vm->engine->ops->drop_code(vm->engine, gpa, len);
}

int vm_wire_memory(struct vm *vm, struct hv_error *e)
{
    const struct mem_listener l = {.map = on_map, .unmap = on_unmap, .written = on_written, .arg = vm};
    int r = mem_set_listener(vm->mem, &l);
    return r < 0 ? hv_fail_errno(e, -r, vm->name, "cannot give the engine its memory") : 0;
}

/* ---- boot to engine ---- */

static struct vcpu_seg seg(const struct boot_seg *s)
{
    return (struct vcpu_seg){.base = s->base, .limit = s->limit, .attr = s->attr, .sel = s->sel};
}

int vm_enter(struct vm *vm, const struct boot_entry *entry, struct hv_error *e)
{
    const struct engine_ops *ops = vm->engine->ops;
    struct vcpu *v = vm->vcpu[0].vcpu;
    struct vcpu_regs regs;
    if (entry->mode == BOOT_MODE_RESET)
        return 0;
    int r = ops->get_regs(v, &regs);
    if (r == 0) {
        memset(regs.gpr, 0, sizeof(regs.gpr));
        regs.gpr[0] = entry->rax;
        regs.gpr[3] = entry->rbx;
        regs.gpr[6] = entry->rsi;
        regs.rip = entry->rip;
        regs.rflags = entry->rflags;
        for (unsigned i = 0; i < ARRAY_SIZE(regs.seg); i++)
            regs.seg[i] = seg(i == 1 ? &entry->cs : &entry->data);      /* ES CS SS DS FS GS */
        regs.tr = seg(&entry->tr);
        regs.ldtr = seg(&entry->ldtr);
        regs.gdt_base = entry->gdt_base;
        regs.gdt_limit = entry->gdt_limit;
        regs.idt_base = 0;
        regs.idt_limit = 0;
        regs.cr0 = entry->cr0;
        regs.cr3 = entry->cr3;
        regs.cr4 = entry->cr4;
        regs.efer = entry->efer;
        r = ops->set_regs(v, &regs);
    }
    return r < 0 ? hv_fail_errno(e, -r, vm->name, "cannot enter the kernel") : 0;
}
