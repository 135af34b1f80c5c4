/*
 * The soft engine as a whole: guest code run from reset or from 64-bit entry until it writes
 * its exit code, with everything real but the devices.
 */
#include "soft_vm.h"

#include <sys/resource.h>

#define ORG 0x10000                 /* where 64-bit payloads are loaded */
#define STACK 0x78000

static struct test_vm vm;

static int setup1(void **state)
{
    vm_open(&vm, 1);
    vm_tables64(&vm);
    return 0;
}

static int setup2(void **state)
{
    vm_open(&vm, 2);
    vm_tables64(&vm);
    return 0;
}

static int teardown(void **state)
{
    vm_close(&vm);
    return 0;
}

static int run64(const uint8_t *code, const uint8_t *end)
{
    vm_load(&vm, ORG, code, end);
    vm_start64(&vm, 0, ORG, STACK);
    return vm_run(&vm);
}
#define RUN64(name) run64(name, name##_end)

static void expect_log(const uint32_t *want, unsigned count)
{
    for (unsigned i = 0; i < count && i < vm.logged; i++) {
        if (vm.log[i] != want[i])
            fail_msg("record %u is %#x, not %#x", i, vm.log[i], want[i]);
    }
    assert_int_equal(vm.logged, count);
}
#define EXPECT_LOG(...) \
    do { const uint32_t w_[] = { __VA_ARGS__ }; expect_log(w_, ARRAY_SIZE(w_)); } while (0)

/* ---- plain code ---- */

GUEST_CODE(code_sum,
    "xor eax, eax; mov ecx, 100000\n"
    "1: add eax, ecx; dec ecx; jnz 1b\n"
    "out 0xe9, eax\n"
    "mov dx, 0xed; in al, dx; out 0xe9, al; in eax, dx; out 0xe9, eax\n"
    "mov al, 7; out 0xf4, al\n"
    "1: jmp 1b\n");

static void test_runs_to_its_exit_port(void **state)
{
    assert_int_equal(RUN64(code_sum), 7);
    EXPECT_LOG(705082704, 0x44, 0x11223344);
    assert_true(vm_cpu(&vm, 0)->insns >= 300000);
}

/* ---- from the reset vector: real, unreal, protected, long and back to real mode ---- */

GUEST_CODE(code_reset,
    ".code16\n"
    "start16: cli; xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7000\n"
    "mov eax, cs; out 0xe9, eax\n"                               /* F000: base was FFFF0000 before the far jump */
    /* INT through the IVT. */
    "mov word ptr [0x80*4], offset isr16 - code_reset; mov word ptr [0x80*4+2], cs\n"
    "mov ax, 0x1234; int 0x80; movzx eax, ax; out 0xe9, eax\n"
    /* 16-bit call far and retf. */
    "push cs; call near ptr far16; movzx eax, ax; out 0xe9, eax\n"
    /* Unreal mode: a 4 GiB DS survives going back. */
    "data32 lgdt cs:[gdtr - code_reset]\n"
    "mov eax, cr0; or al, 1; mov cr0, eax; jmp 1f\n"
    "1: mov bx, 0x18; mov ds, bx; and al, 0xfe; mov cr0, eax; jmp 1f\n"
    "1: xor bx, bx; mov ds, bx\n"
    "mov esi, 0x200000; mov dword ptr ds:[esi], 0xcafe1234; mov eax, ds:[esi]; out 0xe9, eax\n"
    /* A limit is checked in real mode too: ES still has 64 KiB. #GP is INT 13, no error code. */
    "mov word ptr [13*4], offset gp16 - code_reset; mov word ptr [13*4+2], cs\n"
    "mov es, bx; mov eax, es:[esi]\n"
    "after_gp: \n"
    /* 32-bit protected mode. */
    "mov eax, cr0; or al, 1; mov cr0, eax\n"
    ".byte 0x66, 0xea; .long start32 - code_reset + 0xf0000; .word 0x20\n"
    "far16: mov ax, 0x5678; retf\n"
    "isr16: add ax, 1; iret\n"
    "gp16: mov eax, 0x0d; out 0xe9, eax; pop ax; mov ax, offset after_gp - code_reset; push ax; iret\n"
    ".code32\n"
    "start32: mov eax, 0x18; mov ds, eax; mov es, eax; mov ss, eax; mov esp, 0x7000\n"
    "push 0x32323232; pop eax; out 0xe9, eax\n"
    "mov eax, 0x9000; mov cr3, eax; mov eax, 0x20; mov cr4, eax\n"
    "mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr\n"
    "mov eax, cr0; or eax, 0x80000000; mov cr0, eax\n"
    "rdmsr; out 0xe9, eax\n"                                     /* LME | LMA */
    ".byte 0xea; .long start64 - code_reset + 0xf0000; .word 0x10\n"
    ".code64\n"
    "start64: mov rax, 0x1122334455667788; shr rax, 32; out 0xe9, eax\n"
    "mov eax, 0; out 0xf4, al\n"
    "1: hlt; jmp 1b\n"
    "gdtr: .word 0x4f; .long 0x500\n");

static void test_reset_vector_to_long_mode(void **state)
{
    static uint8_t rom[0x10000] __attribute__((aligned(4096)));
    memcpy(rom, code_reset, (size_t)(code_reset_end - code_reset));
    static const uint8_t jump[] = { 0xea, 0x00, 0x00, 0x00, 0xf0 };        /* jmp far f000:0000 */
    memcpy(rom + 0xfff0, jump, sizeof(jump));
    memcpy(vm.ram + 0xf0000, rom, sizeof(rom));
    assert_int_equal(vm.g->ops->map(vm.g, 0xffff0000, sizeof(rom), rom, true), 0);
    assert_int_equal(vm_run(&vm), 0);
    EXPECT_LOG(0xf000, 0x1235, 0x5678, 0xcafe1234, 0x0d, 0x32323232, 0x500, 0x11223344);
}

/* ---- exceptions in 64-bit mode ---- */

/* Handlers at ORG2 + 16 * vector: push a zero where the CPU pushes no error code, then the vector. */
#define ORG2 0x18000
GUEST_CODE(code_vectors,
    ".altmacro\n"
    ".macro stub n\n"
    ".balign 16\n"
    ".if \\n == 8 || (\\n >= 10 && \\n <= 14) || \\n == 17\n"
    ".else\npush 0\n.endif\n"
    "push \\n\n"
    "jmp common\n"
    ".endm\n"
    ".set i, 0\n.rept 64\nstub %i\n.set i, i+1\n.endr\n"
    "common: push rax; push rdx\n"
    "mov eax, [rsp+16]; out 0xe9, eax\n"                         /* vector */
    "mov eax, [rsp+24]; out 0xe9, eax\n"                         /* error code */
    "cmp dword ptr [rsp+16], 14; jne 1f; mov rax, cr2; out 0xe9, eax\n"
    "1: cmp qword ptr [0x7f00], 0; je 2f\n"                      /* where to go on, if the test says so */
    "mov rax, [0x7f00]; mov [rsp+32], rax\n"
    "2: pop rdx; pop rax; add rsp, 16; iretq\n");

static void load_vectors(void)
{
    vm_load(&vm, ORG2, code_vectors, code_vectors_end);
    for (unsigned v = 0; v < 64; v++)
        vm_gate64(&vm, v, ORG2 + 16 * v, 14, v == 3 || v == 48 ? 3 : 0, 0);
}

GUEST_CODE(code_faults,
    "lea rax, [rip+1f]; mov [0x7f00], rax; xor ecx, ecx; div ecx\n"
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; ud2\n"
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; mov rbx, 0x8000000000000000; mov eax, [rbx]\n"    /* #GP(0) */
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; mov rbp, rbx; mov eax, [rbp]\n"                   /* #SS(0) */
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; mov eax, 0x123b; mov ds, eax\n"                   /* beyond the GDT */
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; mov rbx, 0x100000100; mov [rbx], eax\n"           /* #PF */
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; int 0x3f\n"
    "1: mov qword ptr [0x7f00], 0; int3\n"
    "lea rax, [rip+1f]; mov [0x7f00], rax; int 0x40\n"           /* gate not present: #NP(0x202) */
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; mov ecx, 0x12345; rdmsr\n"
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; mov eax, 0x80000001; mov cr0, rax; mov rax, 0x100000000; mov cr0, rax\n"
    "1: xor eax, eax; out 0xf4, al\n");

static void test_faults_carry_their_error_codes(void **state)
{
    load_vectors();
    vm_gate64(&vm, 0x40, 0, 14, 3, 0);
    vm.ram[IDT_GPA + 16 * 0x40 + 5] &= 0x7f;
    assert_int_equal(RUN64(code_faults), 0);
    EXPECT_LOG(0, 0,  6, 0,  13, 0,  12, 0,  13, 0x1238,  14, 2, 0x100,  63, 0,  3, 0,  11, 0x202,  13, 0,  13, 0);
}

GUEST_CODE(code_pf_fix,
    /* The handler maps the page and returns to the same instruction. */
    "mov rax, 0x0000010000000000; mov ebx, 0x5a5a; mov [rax+0x18], ebx\n"
    "mov ecx, [rax+0x18]; mov eax, ecx; out 0xe9, eax\n"
    "xor eax, eax; out 0xf4, al\n"
    ".balign 16\n"
    "code_pf_handler: push rax; push rbx\n"
    "mov rax, [rsp+16]; out 0xe9, eax\n"
    "mov rax, cr2; shr rax, 32; out 0xe9, eax\n"
    "mov rax, 0x9000; mov rbx, 0xa003; mov [rax+8*2], rbx\n"     /* PML4E 2: the identity PDPT again */
    "pop rbx; pop rax; add rsp, 8; iretq\n"
    ".globl code_pf_handler\n");
extern const uint8_t code_pf_handler[];

static void test_a_page_fault_handler_repairs_and_returns(void **state)
{
    vm_gate64(&vm, 14, ORG + (uint64_t)(code_pf_handler - code_pf_fix), 14, 0, 1);
    assert_int_equal(RUN64(code_pf_fix), 0);
    EXPECT_LOG(2, 0x100, 0x5a5a);
    assert_int_equal(vm_get32(&vm, 0x18), 0x5a5a);
}

GUEST_CODE(code_df,
    /* A #PF whose gate is not present: #DF, on its IST stack. */
    "mov rbx, 0x100000000000; mov eax, [rbx]\n"
    "1: jmp 1b\n"
    ".globl code_df_handler\n"
    ".balign 16\n"
    "code_df_handler: mov eax, esp; out 0xe9, eax; pop rax; out 0xe9, eax; mov al, 3; out 0xf4, al\n");
extern const uint8_t code_df_handler[];

static void test_double_fault_on_its_ist_stack(void **state)
{
    vm_gate64(&vm, 8, ORG + (uint64_t)(code_df_handler - code_df), 14, 0, 1);
    assert_int_equal(RUN64(code_df), 3);
    EXPECT_LOG(0x88000 - 48, 0);
}

static void test_triple_fault_stops_the_engine(void **state)
{
    assert_int_equal(RUN64(code_df), -2);
}

/* ---- user mode ---- */

GUEST_CODE(code_user,
    "mov ax, 0x40; ltr ax\n"                                     /* expects an available TSS: the test resets it */
    "mov ecx, 0xc0000081; xor eax, eax; mov edx, 0x00200010; wrmsr\n"        /* STAR: SYSRET base 20, SYSCALL 10 */
    "mov ecx, 0xc0000082; lea rax, [rip+entry]; xor edx, edx; wrmsr\n"
    "mov ecx, 0xc0000084; mov eax, 0x200; wrmsr\n"
    "mov [0x7f10], rsp\n"
    "push 0x2b; push 0x70000; push 0x3002; push 0x33; lea rax, [rip+user]; push rax; iretq\n"
    "entry: mov eax, ecx; sub eax, [rip+zero]; pushf; pop rax; out 0xe9, eax\n"    /* IF and IOPL as FMASK left them */
    "mov eax, r11d; out 0xe9, eax; sysretq\n"
    "user: mov eax, cs; out 0xe9, eax\n"                         /* IOPL 3: ports are open */
    "syscall\n"
    "mov eax, ss; out 0xe9, eax\n"
    "lea rax, [rip+1f]; mov [0x7f00], rax; hlt\n"                /* #GP(0): CPL 3 */
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; mov rbx, 0x100000000; mov [rbx], eax\n"           /* #PF, user write */
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; int 0x20\n"        /* gate DPL 0: #GP */
    "1: mov qword ptr [0x7f00], 0; int 0x30\n"                   /* gate DPL 3 */
    "lea rax, [rip+1f]; mov [0x7f00], rax; out 0xea, al\n"       /* hypercall from CPL 3: #UD */
    "1: lea rax, [rip+1f]; mov [0x7f00], rax; mov rax, cr0\n"
    "1: xor eax, eax; out 0xf4, al\n"
    "zero: .long 0\n");

static void test_user_mode_and_syscall(void **state)
{
    load_vectors();
    assert_int_equal(RUN64(code_user), 0);
    EXPECT_LOG(0x33, 0x3002, 0x3002, 0x2b,  13, 0,  14, 6, 0,  13, 0x20 * 8 + 2,  0x30, 0,  6, 0,  13, 0);
}

/* ---- interrupts ---- */

#define LAPIC(off) "0xfee00" off

GUEST_CODE(code_timer,
    "mov rbx, 0xfee00000; mov dword ptr [rbx+0xf0], 0x1ff\n"     /* SVR: on */
    "mov dword ptr [rbx+0x3e0], 0xb\n"                           /* divide by 1 */
    "mov dword ptr [rbx+0x320], 0x40\n"                          /* one-shot, vector 0x40 */
    "xor r15d, r15d\n"
    "mov dword ptr [rbx+0x380], 1000000\n"
    "1: sti; hlt; cli; cmp r15d, 1; jne 1b\n"
    "mov eax, r15d; out 0xe9, eax\n"
    /* Periodic, taken from a loop that never halts. */
    "mov dword ptr [rbx+0x320], 0x20040; mov dword ptr [rbx+0x380], 1000000; sti\n"
    "1: cmp r15d, 6; jb 1b\n"
    "cli; mov dword ptr [rbx+0x380], 0\n"
    "mov eax, r15d; out 0xe9, eax\n"
    /* TSC deadline. */
    "mov dword ptr [rbx+0x320], 0x40040; mfence; rdtsc; shl rdx, 32; or rax, rdx; add rax, 2000000; mov r14, rax\n"
    "mov rdx, rax; shr rdx, 32; mov ecx, 0x6e0; wrmsr\n"
    "1: sti; hlt; cli; cmp r15d, 7; jb 1b\n"
    "rdtsc; shl rdx, 32; or rax, rdx; sub rax, r14; sar rax, 63; out 0xe9, eax\n"     /* not before the deadline */
    "xor eax, eax; out 0xf4, al\n"
    ".balign 16\n.globl code_timer_isr\n"
    "code_timer_isr: inc r15d; mov dword ptr [rbx+0xb0], 0; iretq\n");
extern const uint8_t code_timer_isr[];

static void test_lapic_timer_in_all_modes(void **state)
{
    vm_gate64(&vm, 0x40, ORG + (uint64_t)(code_timer_isr - code_timer), 14, 0, 0);
    assert_int_equal(RUN64(code_timer), 0);
    assert_int_equal(vm.log[0], 1);
    assert_in_range(vm.log[1], 6, 7);
    assert_int_equal(vm.log[2], 0);
}

GUEST_CODE(code_wait,
    "mov rbx, 0xfee00000; mov dword ptr [rbx+0xf0], 0x1ff; xor r15d, r15d\n"
    "mov dx, 0xed; mov al, 1; out dx, al\n"                      /* the test sends from here on */
    "1: sti; hlt; cli; cmp r15d, 1; jb 1b\n"
    "mov al, 2; out dx, al\n"
    "1: sti; hlt; cli; cmp r15d, 2; jb 1b\n"
    "mov al, 3; out dx, al\n"
    "1: hlt; cmp r15d, 3; jb 1b\n"                               /* IF = 0: only an NMI ends it */
    "xor eax, eax; out 0xf4, al\n"
    ".balign 16\n.globl code_wait_isr, code_wait_ext, code_wait_nmi\n"
    "code_wait_isr: mov eax, 0x41; out 0xe9, eax; inc r15d; mov dword ptr [rbx+0xb0], 0; iretq\n"
    "code_wait_ext: mov eax, 0x42; out 0xe9, eax; inc r15d; iretq\n"
    /* A second NMI raised inside waits for the IRET. */
    "code_wait_nmi: mov eax, 0x102; out 0xe9, eax; cmp r15d, 3; je 1f; mov al, 4; out dx, al; mov ecx, 1000\n"
    "2: dec ecx; jnz 2b; mov eax, 0x103; out 0xe9, eax; inc r15d\n"
    "1: iretq\n");
extern const uint8_t code_wait_isr[], code_wait_ext[], code_wait_nmi[];

static void *nmi_later(void *arg)
{
    struct timespec nap = { .tv_nsec = 20000000 };
    nanosleep(&nap, NULL);
    vm.g->ops->nmi(vm.g, 0);
    return NULL;
}

static void send_events(struct test_vm *t, unsigned vp, uint32_t val)
{
    switch (val) {
    case 1:
        t->g->ops->set_route(t->g, 5, 0xfee00000, 0x8041, true, false);
        t->g->ops->send_msi(t->g, 0xfee00000, 0x8041);
        break;
    case 2:
        t->extint_vector = 0x42;
        t->g->ops->set_extint(t->g, true);
        break;
    case 3: {
        pthread_t thread;          /* when it has halted */
        assert_int_equal(pthread_create(&thread, NULL, nmi_later, NULL), 0);
        pthread_detach(thread);
        break;
    }
    default:
        t->g->ops->nmi(t->g, 0);
    }
}

static void test_msi_extint_and_nmi(void **state)
{
    vm_gate64(&vm, 0x41, ORG + (uint64_t)(code_wait_isr - code_wait), 14, 0, 0);
    vm_gate64(&vm, 0x42, ORG + (uint64_t)(code_wait_ext - code_wait), 14, 0, 0);
    vm_gate64(&vm, 2, ORG + (uint64_t)(code_wait_nmi - code_wait), 14, 0, 0);
    vm.on_out = send_events;
    assert_int_equal(RUN64(code_wait), 0);
    EXPECT_LOG(0x41, 0x42, 0x102, 0x103, 0x102);
    assert_int_equal(vm.eois[5], 1);       /* the level vector's EOI came back to its pin */
}

GUEST_CODE(code_idle,
    "mov rbx, 0xfee00000; mov dword ptr [rbx+0xf0], 0x1ff; mov dword ptr [rbx+0x3e0], 0xb; xor r15d, r15d\n"
    "mov dword ptr [rbx+0x320], 0x20040; mov eax, [0x7f20]; mov dword ptr [rbx+0x380], eax\n"
    "1: sti; hlt; cli; cmp r15d, 50; jb 1b\n"
    "xor eax, eax; out 0xf4, al\n"
    ".balign 16\n.globl code_idle_isr\n"
    "code_idle_isr: inc r15d; mov dword ptr [rbx+0xb0], 0; iretq\n");
extern const uint8_t code_idle_isr[];

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void test_an_idle_guest_costs_nothing(void **state)
{
    vm_gate64(&vm, 0x40, ORG + (uint64_t)(code_idle_isr - code_idle), 14, 0, 0);
    vm_put32(&vm, 0x7f20, (uint32_t)(vm.g->ops->apic_hz(vm.g) / 100));     /* 100 Hz for half a second */
    uint64_t wall = hv_now_ns(), used = cpu_ns();
    assert_int_equal(RUN64(code_idle), 0);
    wall = hv_now_ns() - wall;
    used = cpu_ns() - used;
    assert_in_range(wall, 450 * NS_PER_MS, 5000 * NS_PER_MS);
    assert_true(used * 10 < wall);         /* 1 % here; ten times that on a busy machine; a loop would take all */
}

/* ---- SMP ---- */

GUEST_CODE(code_smp,
    "mov rbx, 0xfee00000; mov dword ptr [rbx+0xf0], 0x1ff\n"
    "mov dword ptr [rbx+0x310], 0x01000000; mov dword ptr [rbx+0x300], 0x4500\n"      /* INIT to APIC 1 */
    "mov dword ptr [rbx+0x300], 0x4608; mov dword ptr [rbx+0x300], 0x4608\n"          /* SIPI at 0x8000, twice */
    "1: pause; cmp dword ptr [0x7f08], 1; jb 1b\n"
    "mov ecx, 200000\n"
    "1: lock inc dword ptr [0x7f0c]; mov eax, -1; lock xadd [0x7f10], eax; dec ecx; jnz 1b\n"
    "1: pause; cmp dword ptr [0x7f08], 2; jne 1b\n"
    "mov eax, [0x7f0c]; out 0xe9, eax\n"
    /* An IPI to the halted AP, answered by one to us. */
    "mov dword ptr [rbx+0x310], 0x01000000; mov dword ptr [rbx+0x300], 0x4041\n"
    "xor r15d, r15d\n"
    "1: sti; hlt; cli; test r15d, r15d; jz 1b\n"
    "xor eax, eax; out 0xf4, al\n"
    ".balign 16\n.globl code_smp_isr\n"
    "code_smp_isr: mov rbx, 0xfee00000; mov eax, [rbx+0x20]; out 0xe9, eax; inc r15d\n"
    "mov dword ptr [rbx+0xb0], 0\n"
    "cmp dword ptr [rbx+0x20], 0; je 1f\n"
    "mov dword ptr [rbx+0x310], 0; mov dword ptr [rbx+0x300], 0x4041\n"
    "1: iretq\n");
extern const uint8_t code_smp_isr[];

GUEST_CODE(code_ap,
    ".code16\n"
    "cli; xor ax, ax; mov ds, ax; mov eax, cs; out 0xe9, eax\n"
    "data32 lgdt cs:[1f - code_ap]; data32 lidt cs:[2f - code_ap]\n"
    "mov eax, 0x9000; mov cr3, eax; mov eax, 0x620; mov cr4, eax\n"
    "mov ecx, 0xc0000080; rdmsr; or eax, 0x900; wrmsr\n"
    "mov eax, 0x80000031; mov cr0, eax\n"
    ".byte 0x66, 0xea; .long 3f - code_ap + 0x8000; .word 0x10\n"
    "1: .word 0x4f; .long 0x500\n"
    "2: .word 0xfff; .long 0x2000\n"
    ".code64\n"
    "3: mov eax, 0x18; mov ds, eax; mov es, eax; mov ss, eax; mov esp, 0x76000\n"
    "mov rbx, 0xfee00000; mov dword ptr [rbx+0xf0], 0x1ff\n"
    "mov dword ptr [0x7f08], 1\n"
    "mov ecx, 200000\n"
    "1: lock inc dword ptr [0x7f0c]; mov eax, -1; lock xadd [0x7f10], eax; dec ecx; jnz 1b\n"
    "mov dword ptr [0x7f08], 2\n"
    "1: sti; hlt; jmp 1b\n");

static void test_a_second_cpu_by_init_and_sipi(void **state)
{
    vm_load(&vm, 0x8000, code_ap, code_ap_end);
    vm_gate64(&vm, 0x41, ORG + (uint64_t)(code_smp_isr - code_smp), 14, 0, 0);
    assert_int_equal(RUN64(code_smp), 0);
    EXPECT_LOG(0x800, 400000, 0x01000000, 0);
    assert_int_equal((int32_t)vm_get32(&vm, 0x7f10), -400000);
}

/* ---- code that changes ---- */

GUEST_CODE(code_smc,
    /* patch the immediate of `mov eax, imm32` ahead of us, 3 ways: directly, by alias, in a loop */
    "mov ecx, 3\n"
    "1: mov dword ptr [rip+2f+1], ecx\n"
    "2: mov eax, 0; out 0xe9, eax; dec ecx; jnz 1b\n"
    /* through another linear address: PML4E 2 maps the same memory */
    "mov rax, 0xa003; mov [0x9010], rax; mov rbx, 0x10000000000\n"
    "lea rdx, [rip+3f+1]; call 3f; mov dword ptr [rbx+rdx], 0x77; call 3f\n"
    /* by a device: the test rewrites it inside this OUT */
    "mov dx, 0xed; mov al, 0; out dx, al; call 3f\n"
    /* rep movsb over it */
    "lea rsi, [rip+4f]; lea rdi, [rip+3f]; mov ecx, 5; rep movsb; call 3f\n"
    "xor eax, eax; out 0xf4, al\n"
    ".globl code_smc_target\n"
    "code_smc_target: 3: mov eax, 0x66; out 0xe9, eax; ret\n"
    "4: mov eax, 0x99\n");
extern const uint8_t code_smc_target[];

static void patch_code(struct test_vm *t, unsigned vp, uint32_t val)
{
    gpa_t at = ORG + (gpa_t)(code_smc_target - code_smc) + 1;
    vm_put32(t, at, 0x88);
    t->g->ops->drop_code(t->g, at, 4);
}

static void test_self_modifying_code(void **state)
{
    vm.on_out = patch_code;
    assert_int_equal(RUN64(code_smc), 0);
    EXPECT_LOG(3, 2, 1, 0x66, 0x77, 0x88, 0x99);
}

GUEST_CODE(code_xmc,
    /* CPU 0 rewrites a function that CPU 1 calls, and waits until CPU 1 has seen each version. */
    "xor ecx, ecx\n"
    "1: inc ecx; mov [0x14001], ecx; mov [0x7f08], ecx\n"
    "2: pause; cmp [0x7f0c], ecx; jne 2b\n"
    "cmp ecx, 2000; jb 1b\n"
    "xor eax, eax; out 0xf4, al\n"
    "1: jmp 1b\n"
    ".globl code_xmc_other\n"
    "code_xmc_other: xor r8d, r8d\n"
    "1: inc r8d\n"
    "2: pause; cmp [0x7f08], r8d; jne 2b\n"
    "xor eax, eax; cpuid; mov eax, 0x14000; call rax\n"          /* CPUID serialises */
    "cmp eax, r8d; je 3f; out 0xe9, eax; mov al, 1; out 0xf4, al\n"
    "3: mov [0x7f0c], r8d; jmp 1b\n");
extern const uint8_t code_xmc_other[];

static void test_code_modified_by_another_cpu(void **state)
{
    static const uint8_t fn[] = { 0xb8, 0, 0, 0, 0, 0xc3 };      /* mov eax, 0; ret */
    memcpy(vm.ram + 0x14000, fn, sizeof(fn));
    vm_load(&vm, ORG, code_xmc, code_xmc_end);
    vm_start64(&vm, 0, ORG, STACK);
    vm_start64(&vm, 1, ORG + (uint64_t)(code_xmc_other - code_xmc), STACK - 0x1000);
    assert_int_equal(vm_run(&vm), 0);
}

/* ---- the machine's share ---- */

GUEST_CODE(code_hypercall,
    "mov ecx, 0x10005; mov rdx, 0x1234; out 0xea, al; out 0xe9, eax\n"
    "mov ecx, 0x40000000; mov eax, 0x55; xor edx, edx; wrmsr; xor eax, eax; rdmsr; out 0xe9, eax\n"
    "xor eax, eax; cpuid; mov eax, ebx; out 0xe9, eax\n"
    "mov eax, 0x80000008; cpuid; out 0xe9, eax\n"
    "mov eax, 0x12345678; xor ecx, ecx; cpuid; out 0xe9, eax\n"  /* out of range: the highest basic leaf */
    "mov rbx, 0xd0000010; mov dword ptr [rbx], 0x31323334; movzx eax, byte ptr [rbx+1]; out 0xe9, eax\n"
    "rdrand rax; setc al; movzx eax, al; out 0xe9, eax\n"
    "xor eax, eax; out 0xf4, al\n");

static int answer_hypercall(struct test_vm *t, unsigned vp)
{
    struct vcpu *v = t->g->ops->vcpu(t->g, vp);
    struct vcpu_regs r;
    t->g->ops->get_regs(v, &r);
    r.gpr[R_RAX] = r.gpr[R_RCX] + r.gpr[R_RDX];
    return t->g->ops->set_regs(v, &r);
}

static void test_hypercalls_msrs_cpuid_mmio(void **state)
{
    vm.hypercall = answer_hypercall;
    assert_int_equal(RUN64(code_hypercall), 0);
    uint32_t mhz = (uint32_t)((vm.g->ops->tsc_hz(vm.g) + 500000) / 1000000);
    EXPECT_LOG(0x11239, 0x55, 0x756e6547, 40 | 48 << 8, mhz, 0x33, 1);
    assert_int_equal(vm.msr, 0x55);
}

/* ---- save and load ---- */

GUEST_CODE(code_save,
    "mov rbx, 0xfee00000; mov dword ptr [rbx+0xf0], 0x1ff; mov dword ptr [rbx+0x3e0], 0xb; xor r15d, r15d\n"
    "mov dword ptr [rbx+0x320], 0x20040; mov dword ptr [rbx+0x380], 2000000\n"
    "mov r12, 0x1122334455667788; mov eax, 0x3f800000; movd xmm3, eax; fninit; fld1; fldpi; rdtsc; mov r13d, eax; mov r14d, edx\n"
    "stc; mov dx, 0xed; mov al, 1; out dx, al\n"                 /* saved here */
    "setc al; movzx eax, al; out 0xe9, eax\n"
    "mov rax, r12; shr rax, 32; out 0xe9, eax; movd eax, xmm3; out 0xe9, eax\n"
    "faddp; fistp dword ptr [0x7f30]; mov eax, [0x7f30]; out 0xe9, eax\n"
    "1: sti; hlt; cli; cmp r15d, 3; jb 1b\n"                     /* the timer goes on */
    "rdtsc; shl rdx, 32; or rax, rdx; shl r14, 32; or r13, r14; cmp rax, r13; seta al; movzx eax, al; out 0xe9, eax\n"
    "xor eax, eax; out 0xf4, al\n"
    ".balign 16\n.globl code_save_isr\n"
    "code_save_isr: inc r15d; mov dword ptr [rbx+0xb0], 0; iretq\n");
extern const uint8_t code_save_isr[];

static void stop_for_save(struct test_vm *t, unsigned vp, uint32_t val)
{
    vm_stop(t, 100);
}

static void test_goes_on_in_another_engine(void **state)
{
    vm_gate64(&vm, 0x40, ORG + (uint64_t)(code_save_isr - code_save), 14, 0, 0);
    vm.on_out = stop_for_save;
    assert_int_equal(RUN64(code_save), 100);
    assert_int_equal(vm.logged, 0);
    struct save_writer w;
    save_init(&w);
    vm.g->ops->save(vm.g, &w);
    assert_int_equal(save_status(&w), 0);
    struct test_vm old = vm;
    vm_open(&vm, 1);
    memcpy(vm.ram, old.ram, RAM_SIZE);
    vm_close(&old);
    struct load_reader r;
    struct hv_error e = {0};
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, &e), 0);
    if (vm.g->ops->load(vm.g, &r, &e))
        fail_msg("%s", e.message);
    save_fini(&w);
    assert_int_equal(vm_run(&vm), 0);
    EXPECT_LOG(1, 0x11223344, 0x3f800000, 4, 1);
}

static void test_damaged_state_is_refused(void **state)
{
    vm_start64(&vm, 0, ORG, STACK);
    struct save_writer w;
    save_init(&w);
    vm.g->ops->save(vm.g, &w);
    struct hv_error e = {0};
    struct load_reader r;
    /* CR4 with a bit that is not shown; a register field of the first section, found by its value. */
    uint64_t cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT, bad = cr4 | CR4_LA57;
    bool found = false;
    for (size_t i = 0; i + 8 <= w.out.len; i++) {
        if (memcmp(w.out.buf + i, &cr4, 8) == 0) {
            memcpy(w.out.buf + i, &bad, 8);
            found = true;
            break;
        }
    }
    assert_true(found);
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, &e), 0);
    assert_true(vm.g->ops->load(vm.g, &r, &e) < 0);
    assert_int_equal(e.code, HV_FAILED);
    save_fini(&w);
}

/* ---- kicks, reset ---- */

GUEST_CODE(code_spin, "1: inc rax; jmp 1b\n");

static void *kick_later(void *arg)
{
    struct timespec nap = { .tv_nsec = 20000000 };
    nanosleep(&nap, NULL);
    vm.g->ops->kick(vm.g->ops->vcpu(vm.g, 0));
    return NULL;
}

static void test_a_kick_ends_a_run_or_the_next_one(void **state)
{
    struct hv_error e = {0};
    vm_load(&vm, ORG, code_spin, code_spin_end);
    vm_start64(&vm, 0, ORG, STACK);
    struct vcpu *v = vm.g->ops->vcpu(vm.g, 0);
    vm.g->ops->kick(v);
    assert_int_equal(vm.g->ops->run(v, &e), ENGINE_STOP_KICKED);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, kick_later, NULL), 0);
    assert_int_equal(vm.g->ops->run(v, &e), ENGINE_STOP_KICKED);
    pthread_join(t, NULL);
    struct vcpu_regs r;
    vm.g->ops->get_regs(v, &r);
    assert_true(r.gpr[R_RAX] > 1000);

    vm.g->ops->reset(vm.g);
    vm.g->ops->get_regs(v, &r);
    assert_int_equal(r.rip, 0xfff0);
    assert_int_equal(r.seg[X86_SEG_CS].base, 0xffff0000);
    assert_int_equal(r.cr0, CR0_CD | CR0_NW | CR0_ET);
    assert_int_equal(r.gpr[R_RDX], CPUID_SIGNATURE);
    assert_int_equal(r.rflags, 2);
    assert_true(vm.g->ops->read_tsc(v) < vm.g->ops->tsc_hz(vm.g));
}

static void test_the_tsc_runs_at_the_rate_it_says(void **state)
{
    struct vcpu *v = vm.g->ops->vcpu(vm.g, 0);
    struct timespec a, b, nap = { .tv_nsec = 200000000 };
    clock_gettime(CLOCK_MONOTONIC_RAW, &a);
    uint64_t t0 = vm.g->ops->read_tsc(v);
    nanosleep(&nap, NULL);
    uint64_t t1 = vm.g->ops->read_tsc(v);
    clock_gettime(CLOCK_MONOTONIC_RAW, &b);
    double ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
    double hz = (double)(t1 - t0) / ns * 1e9, said = (double)vm.g->ops->tsc_hz(vm.g);
    assert_true(hz > said * 0.999 && hz < said * 1.001);
}

#define T1(f) cmocka_unit_test_setup_teardown(f, setup1, teardown)
#define T2(f) cmocka_unit_test_setup_teardown(f, setup2, teardown)

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        T1(test_runs_to_its_exit_port), T1(test_reset_vector_to_long_mode), T1(test_faults_carry_their_error_codes),
        T1(test_a_page_fault_handler_repairs_and_returns), T1(test_double_fault_on_its_ist_stack),
        T1(test_triple_fault_stops_the_engine), T1(test_user_mode_and_syscall), T1(test_lapic_timer_in_all_modes),
        T1(test_msi_extint_and_nmi), T1(test_an_idle_guest_costs_nothing), T2(test_a_second_cpu_by_init_and_sipi),
        T1(test_self_modifying_code), T2(test_code_modified_by_another_cpu), T1(test_hypercalls_msrs_cpuid_mmio),
        T1(test_goes_on_in_another_engine), T1(test_damaged_state_is_refused),
        T1(test_a_kick_ends_a_run_or_the_next_one), T1(test_the_tsc_runs_at_the_rate_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
