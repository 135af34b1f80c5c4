/* Guests that try to keep the host from stopping them: a kick ends every run, whatever the guest does. */
#include "soft_vm.h"

static struct test_vm vm;

static int setup(void **state)
{
    vm_open(&vm, 1);
    vm_tables64(&vm);
    return 0;
}

static int teardown(void **state)
{
    vm_close(&vm);
    return 0;
}

/* Run vCPU 0 until *word is not what it was, which the guest's trick changes; then it has to stop. */
static void run_and_stop(const volatile uint64_t *word)
{
    const uint64_t before = *word;
    struct vm_thread t = { &vm, 0 };
    pthread_t thread;
    struct timespec until;
    assert_int_equal(pthread_create(&thread, NULL, vm_vcpu_main, &t), 0);
    const uint64_t late = hv_now_ns() + 5 * NS_PER_SEC;
    while (*word == before && atomic_load(&vm.exit_code) == -1 && hv_now_ns() < late)
        sched_yield();
    assert_true(*word != before);
    vm_stop(&vm, 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    if (pthread_timedjoin_np(thread, NULL, &until)) {
        print_error("the vCPU cannot be stopped\n");
        _exit(1);                          /* its thread never ends: no way to clean up */
    }
    assert_int_equal(atomic_load(&vm.exit_code), 0);
}

/* MOV SS holds interrupts off for an instruction; here all of the address space is MOV SS, EAX. */
static void test_loads_of_ss_without_end(void **state)
{
    const uint64_t code = 0x100000, tables = 0x200000;
    for (unsigned level = 0; level < 4; level++) {
        uint64_t to = level == 3 ? code : tables + 0x1000 * (level + 1);
        for (unsigned i = 0; i < 512; i++)
            vm_put64(&vm, tables + 0x1000 * level + 8 * i, to | 0x7);
    }
    for (unsigned i = 0; i < HV_PAGE_SIZE; i += 2) {
        vm.ram[code + i] = 0x8e;
        vm.ram[code + i + 1] = 0xd0;
    }
    vm_start64(&vm, 0, 0x100000, 0x8000);
    struct vcpu_regs r;
    struct vcpu *v = vm.g->ops->vcpu(vm.g, 0);
    vm.g->ops->get_regs(v, &r);
    r.cr3 = tables;
    r.gpr[R_RAX] = 0;                      /* null: no descriptor needed at CPL 0 */
    assert_int_equal(vm.g->ops->set_regs(v, &r), 0);
    run_and_stop(&vm_cpu(&vm, 0)->rip);
}

/* #DB's gate leads to a task whose TSS says to trap on entry; its busy bit lies in ROM and never sticks. */
static void test_task_traps_without_end(void **state)
{
    static uint8_t rom[HV_PAGE_SIZE] __attribute__((aligned(4096)));
    const gpa_t gdt = 0xf0000000, tss_a = 0x600, tss_b = 0x700;
    static const uint64_t desc[] = { 0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull,
                                     0x0000890006000067ull, 0x0000890007000067ull };
    memcpy(rom, desc, sizeof(desc));
    assert_int_equal(vm.g->ops->map(vm.g, gdt, sizeof(rom), rom, true), 0);
    memset(vm.ram + tss_a, 0, 0x200);
    vm_put32(&vm, tss_a + 32, 0x1000);     /* EIP */
    vm_put32(&vm, tss_a + 36, 2);
    vm_put32(&vm, tss_a + 56, 0x8000);     /* ESP */
    for (unsigned i = 0; i < 6; i++)
        vm_put32(&vm, tss_a + 72 + 4 * i, i == 1 ? 0x8 : 0x10);
    vm_put32(&vm, tss_a + 100, 0x00680001);                    /* T */
    vm_put64(&vm, IDT_GPA + 8, 0x0000850000180000ull);         /* task gate to A */
    vm.ram[0x1000] = 0xeb;                 /* A, if it ever runs: jmp . */
    vm.ram[0x1001] = 0xfe;
    vm.ram[0x1100] = 0xf1;                 /* int1 */

    struct vcpu *v = vm.g->ops->vcpu(vm.g, 0);
    struct vcpu_regs r;
    vm.g->ops->get_regs(v, &r);
    r.rip = 0x1100;
    r.rflags = 2;
    r.cr0 = CR0_PE | CR0_ET;
    for (unsigned i = 0; i < 6; i++)
        r.seg[i] = vm_seg(0x10, 0, UINT32_MAX, 0xc093);
    r.seg[X86_SEG_CS] = vm_seg(0x8, 0, UINT32_MAX, 0xc09b);
    r.tr = vm_seg(0x20, tss_b, 0x67, 0x8b);
    r.gdt_base = gdt;
    r.gdt_limit = sizeof(desc) - 1;
    r.idt_base = IDT_GPA;
    r.idt_limit = 0xff;
    assert_int_equal(vm.g->ops->set_regs(v, &r), 0);
    vm.g->ops->set_mp(v, VCPU_MP_RUNNABLE);
    run_and_stop((const volatile uint64_t *)(const void *)(vm.ram + tss_a));      /* the link field */
    vm.g->ops->unmap(vm.g, gdt, sizeof(rom));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(test_loads_of_ss_without_end), T(test_task_traps_without_end) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
