/*
 * A small machine around the soft engine for tests: RAM, a few ports, one MMIO page, a thread
 * per vCPU. Guest code is written in the test file as assembly between markers (GUEST_CODE).
 *
 *   port 0xf4   out: ends the run, the value is the exit code
 *   port 0xe9   out: recorded in order, any size
 *   port 0xed   out: called back (on_out)     in: 0x11223344 truncated to the size, after on_in
 *   MMIO page   MMIO_GPA: 4 KiB of host bytes; accesses are counted
 */
#ifndef TESTS_SOFT_VM_H
#define TESTS_SOFT_VM_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/paging.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

/* Another engine for the same payloads: defined before the include. */
#ifndef VM_ENGINE
#define VM_ENGINE engine_soft
#endif

#define RAM_SIZE (16 * MIB)
#define MMIO_GPA 0xd0000000ull
#define RUN_DEADLINE_S 120

/* name, name_end: guest bytes at load address `org`; labels work relative to it. */
#define GUEST_CODE(name, ...)                                                                    \
    extern const uint8_t name[], name##_end[];                                                   \
    __asm__(".pushsection .rodata\n.balign 16\n.globl " #name "\n.intel_syntax noprefix\n" #name ":\n"   \
            __VA_ARGS__                                                                           \
            "\n.globl " #name "_end\n" #name "_end:\n.code64\n.att_syntax prefix\n.popsection\n")

struct test_vm {
    struct engine *g;
    uint8_t *ram;
    unsigned vcpus;
    uint8_t mmio[4096];
    unsigned mmio_reads, mmio_writes, mmio_last_len;
    uint32_t log[256];
    atomic_uint logged;
    atomic_int exit_code;              /* -1: running; -2: triple fault; -3: engine error; -4: deadline */
    void (*on_out)(struct test_vm *vm, unsigned vp, uint32_t val);
    void (*on_in)(struct test_vm *vm);
    int (*hypercall)(struct test_vm *vm, unsigned vp);
    int extint_vector;
    unsigned eois[24];
    uint64_t msr;
};

static void vm_stop(struct test_vm *vm, int code)
{
    int running = -1;
    atomic_compare_exchange_strong(&vm->exit_code, &running, code);
    for (unsigned i = 0; i < vm->vcpus; i++)
        vm->g->ops->kick(vm->g->ops->vcpu(vm->g, i));
}

static void vm_pio_out(void *arg, unsigned vp, uint16_t port, unsigned size, const void *data, uint32_t count)
{
    struct test_vm *vm = arg;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t v = 0;
        memcpy(&v, (const uint8_t *)data + i * size, size);
        if (port == 0xe9) {
            unsigned n = atomic_fetch_add(&vm->logged, 1);
            if (n < ARRAY_SIZE(vm->log))
                vm->log[n] = v;
        } else if (port == 0xf4) {
            vm_stop(vm, (int)(v & 0xff));
        } else if (port == 0xed && vm->on_out) {
            vm->on_out(vm, vp, v);
        }
    }
}

static void vm_pio_in(void *arg, unsigned vp, uint16_t port, unsigned size, void *data, uint32_t count)
{
    struct test_vm *vm = arg;
    if (port == 0xed && vm->on_in)
        vm->on_in(vm);
    const uint32_t v = port == 0xed ? 0x11223344 : UINT32_MAX;
    for (uint32_t i = 0; i < count; i++)
        memcpy((uint8_t *)data + i * size, &v, size);
}

static void vm_mmio_read(void *arg, unsigned vp, gpa_t gpa, void *data, unsigned len)
{
    struct test_vm *vm = arg;
    vm->mmio_reads++;
    vm->mmio_last_len = len;
    memset(data, 0xff, len);
    if (gpa >= MMIO_GPA && gpa + len <= MMIO_GPA + sizeof(vm->mmio))
        memcpy(data, vm->mmio + (gpa - MMIO_GPA), len);
}

static void vm_mmio_write(void *arg, unsigned vp, gpa_t gpa, const void *data, unsigned len)
{
    struct test_vm *vm = arg;
    vm->mmio_writes++;
    vm->mmio_last_len = len;
    if (gpa >= MMIO_GPA && gpa + len <= MMIO_GPA + sizeof(vm->mmio))
        memcpy(vm->mmio + (gpa - MMIO_GPA), data, len);
}

static int vm_msr_read(void *arg, unsigned vp, uint32_t msr, uint64_t *ret)
{
    struct test_vm *vm = arg;
    if (msr != 0x40000000)
        return -ENOENT;
    *ret = vm->msr;
    return 0;
}

static int vm_msr_write(void *arg, unsigned vp, uint32_t msr, uint64_t val)
{
    struct test_vm *vm = arg;
    if (msr != 0x40000000)
        return -ENOENT;
    vm->msr = val;
    return 0;
}

static int vm_hypercall(void *arg, unsigned vp)
{
    struct test_vm *vm = arg;
    return vm->hypercall ? vm->hypercall(vm, vp) : -ENOSYS;
}

static void vm_eoi(void *arg, unsigned pin)
{
    struct test_vm *vm = arg;
    vm->eois[pin]++;
}

static int vm_extint_ack(void *arg)
{
    struct test_vm *vm = arg;
    int v = vm->extint_vector;
    vm->extint_vector = -1;
    vm->g->ops->set_extint(vm->g, false);
    return v;
}

static const struct engine_callbacks vm_callbacks = {
    .pio_in = vm_pio_in, .pio_out = vm_pio_out, .mmio_read = vm_mmio_read, .mmio_write = vm_mmio_write,
    .msr_read = vm_msr_read, .msr_write = vm_msr_write, .hypercall = vm_hypercall, .eoi = vm_eoi,
    .extint_ack = vm_extint_ack,
};

static void vm_open(struct test_vm *vm, unsigned vcpus)
{
    memset(vm, 0, sizeof(*vm));
    vm->vcpus = vcpus;
    vm->exit_code = -1;
    vm->extint_vector = -1;
    struct hv_error e = {0};
    const struct engine_config cfg = { .vcpus = vcpus, .phys_bits = 40 };
    if (VM_ENGINE.create(&cfg, &vm_callbacks, vm, &vm->g, &e))
        fail_msg("%s: %s", VM_ENGINE.name, e.message);
    vm->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(vm->ram != MAP_FAILED);
    assert_int_equal(vm->g->ops->map(vm->g, 0, RAM_SIZE, vm->ram, false), 0);
}

static void vm_close(struct test_vm *vm)
{
    vm->g->ops->destroy(vm->g);
    munmap(vm->ram, RAM_SIZE);
}

static inline struct cpu *vm_cpu(struct test_vm *vm, unsigned vp)
{
    return &vm->g->ops->vcpu(vm->g, vp)->cpu;
}

static inline void vm_put64(struct test_vm *vm, gpa_t gpa, uint64_t v) { memcpy(vm->ram + gpa, &v, 8); }
static inline void vm_put32(struct test_vm *vm, gpa_t gpa, uint32_t v) { memcpy(vm->ram + gpa, &v, 4); }
static inline uint64_t vm_get64(struct test_vm *vm, gpa_t gpa) { uint64_t v; memcpy(&v, vm->ram + gpa, 8); return v; }
static inline uint32_t vm_get32(struct test_vm *vm, gpa_t gpa) { uint32_t v; memcpy(&v, vm->ram + gpa, 4); return v; }

static inline void vm_load(struct test_vm *vm, gpa_t gpa, const uint8_t *from, const uint8_t *to)
{
    memcpy(vm->ram + gpa, from, (size_t)(to - from));
}

/* ---- a 64-bit environment: GDT at 0x500, IDT at 0x2000, TSS at 0x600, page tables at 0x9000 ---- */

#define GDT_GPA  0x500
#define TSS_GPA  0x600
#define IDT_GPA  0x2000
#define PML4_GPA 0x9000
#define SEL_CODE64 0x10
#define SEL_DATA   0x18
#define SEL_CODE32 0x20
#define SEL_UDATA  0x28
#define SEL_UCODE64 0x30
#define SEL_TSS    0x40

static inline void vm_tables64(struct test_vm *vm)
{
    /* Identity map of 4 GiB by 2 MiB pages, user accessible. */
    vm_put64(vm, PML4_GPA, (PML4_GPA + 0x1000) | 7);
    for (unsigned i = 0; i < 4; i++) {
        vm_put64(vm, PML4_GPA + 0x1000 + 8 * i, (PML4_GPA + 0x2000 + 0x1000 * i) | 7);
        for (unsigned n = 0; n < 512; n++)
            vm_put64(vm, PML4_GPA + 0x2000 + 0x1000 * i + 8 * n, ((uint64_t)i << 30 | (uint64_t)n << 21) | 0x87);
    }
    vm_put64(vm, GDT_GPA + SEL_CODE64, 0x00af9b000000ffffull);
    vm_put64(vm, GDT_GPA + SEL_DATA, 0x00cf93000000ffffull);
    vm_put64(vm, GDT_GPA + SEL_CODE32, 0x00cf9b000000ffffull);
    vm_put64(vm, GDT_GPA + SEL_UDATA, 0x00cff3000000ffffull);
    vm_put64(vm, GDT_GPA + SEL_UCODE64, 0x00affb000000ffffull);
    vm_put64(vm, GDT_GPA + SEL_TSS, 0x0000890000000067ull | (uint64_t)TSS_GPA << 16);
    vm_put64(vm, GDT_GPA + SEL_TSS + 8, 0);
    vm_put64(vm, TSS_GPA + 4, 0x80000);        /* RSP0 */
    vm_put64(vm, TSS_GPA + 36, 0x88000);       /* IST1 */
    vm_put32(vm, TSS_GPA + 100, 0x680000);     /* no I/O bitmap */
}

/* 64-bit gate: type 14 interrupt, 15 trap. */
static inline void vm_gate64(struct test_vm *vm, unsigned vector, uint64_t rip, unsigned type, unsigned dpl, unsigned ist)
{
    vm_put64(vm, IDT_GPA + 16 * vector,
             (rip & 0xffff) | (uint64_t)SEL_CODE64 << 16 | (uint64_t)ist << 32 |
             (uint64_t)(0x80 | dpl << 5 | type) << 40 | (rip >> 16 & 0xffff) << 48);
    vm_put64(vm, IDT_GPA + 16 * vector + 8, rip >> 32);
}

static inline struct vcpu_seg vm_seg(uint16_t sel, uint64_t base, uint32_t limit, uint32_t attr)
{
    return (struct vcpu_seg){ .base = base, .limit = limit, .attr = attr, .sel = sel };
}

static inline void vm_start64(struct test_vm *vm, unsigned vp, uint64_t rip, uint64_t rsp)
{
    struct vcpu *v = vm->g->ops->vcpu(vm->g, vp);
    struct vcpu_regs r;
    vm->g->ops->get_regs(v, &r);
    r.rip = rip;
    r.rflags = 2;
    r.gpr[R_RSP] = rsp;
    r.cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_WP | CR0_MP;
    r.cr3 = PML4_GPA;
    r.cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    r.efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    for (unsigned i = 0; i < 6; i++)
        r.seg[i] = vm_seg(SEL_DATA, 0, UINT32_MAX, 0xc093);
    r.seg[X86_SEG_CS] = vm_seg(SEL_CODE64, 0, UINT32_MAX, 0xa09b);
    r.tr = vm_seg(SEL_TSS, TSS_GPA, 0x67, 0x8b);
    r.gdt_base = GDT_GPA;
    r.gdt_limit = 0x4f;
    r.idt_base = IDT_GPA;
    r.idt_limit = 0xfff;
    assert_int_equal(vm->g->ops->set_regs(v, &r), 0);
    vm->g->ops->set_mp(v, VCPU_MP_RUNNABLE);
}

/* ---- running ---- */

struct vm_thread { struct test_vm *vm; unsigned vp; };

static inline void *vm_vcpu_main(void *arg)
{
    struct vm_thread *t = arg;
    struct test_vm *vm = t->vm;
    struct hv_error e = {0};
    while (atomic_load(&vm->exit_code) == -1) {
        enum engine_stop stop = vm->g->ops->run(vm->g->ops->vcpu(vm->g, t->vp), &e);
        if (stop == ENGINE_STOP_SHUTDOWN)
            vm_stop(vm, -2);
        else if (stop == ENGINE_STOP_ERROR) {
            print_message("vCPU %u: %s\n", t->vp, e.message);
            vm_stop(vm, -3);
        }
    }
    return NULL;
}

/* Runs all vCPUs until one ends it; returns the exit code, see test_vm. */
static inline int vm_run(struct test_vm *vm)
{
    pthread_t thread[SOFT_MAX_VCPUS];
    struct vm_thread t[SOFT_MAX_VCPUS];
    atomic_store(&vm->exit_code, -1);
    for (unsigned i = 0; i < vm->vcpus; i++) {
        t[i] = (struct vm_thread){ vm, i };
        assert_int_equal(pthread_create(&thread[i], NULL, vm_vcpu_main, &t[i]), 0);
    }
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += RUN_DEADLINE_S;
    for (unsigned i = 0; i < vm->vcpus; i++) {
        if (pthread_timedjoin_np(thread[i], NULL, &until)) {
            vm_stop(vm, -4);
            pthread_join(thread[i], NULL);
        }
    }
    return atomic_load(&vm->exit_code);
}

#endif
