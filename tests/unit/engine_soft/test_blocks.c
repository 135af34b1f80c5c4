/*
 * The loop and its decoded blocks: what happens between instructions (single steps, breakpoints,
 * interrupt shadows) and to blocks (memory full, pages remapped under them, segments moved).
 * Code that changes is in test_soft.c, the instructions themselves in test_interp.c.
 */
#include "hv/engine/soft/block.h"
#include "soft_vm.h"

#define ORG 0x10000
#define STACK 0x78000

static struct test_vm vm;

static int setup(void **state)
{
    vm_open(&vm, 1);
    vm_tables64(&vm);
    return 0;
}

static int setup_two(void **state)
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

static int run64(const uint8_t *code, const uint8_t *end)
{
    vm_load(&vm, ORG, code, end);
    vm_start64(&vm, 0, ORG, STACK);
    return vm_run(&vm);
}
#define RUN64(name) run64(name, name##_end)
#define AT(name, label) (ORG + (uint64_t)((label) - (name)))

/* ---- between instructions ---- */

GUEST_CODE(code_steps,
    /* Work that sums what it did; the second time with TF. r15 counts the traps. */
    "xor r15d, r15d; call 5f; mov r14, rax\n"
    "pushfq; or dword ptr [rsp], 0x100; popfq\n"
    "call 5f\n"                                                  /* traps from here ... */
    "pushfq; and dword ptr [rsp], ~0x100; popfq\n"               /* ... after this POPF too */
    "xor rax, r14; out 0xe9, eax\n"
    "mov eax, r15d; out 0xe9, eax\n"
    "xor eax, eax; out 0xf4, al\n"
    "5: xor eax, eax; mov ecx, 10\n"
    "1: lea eax, [rax+rcx*4+1]; imul eax, ecx; cmp eax, 7; jb 2f; ror eax, 3\n"
    "2: dec ecx; jnz 1b\n"
    "mov edi, 0x20000; mov ecx, 5; rep stosd; mov ecx, 5; mov esi, 0x20000; mov edi, 0x20100; rep movsd\n"
    "push rax; pop rdx; add eax, edx; call 6f; int 0x42; nop; lea rdx, [rip+4f]; jmp rdx; ud2\n"
    "4: ret\n"
    "6: add eax, [0x20104]; ret 0\n"
    ".globl code_steps_db, code_steps_int\n"
    "code_steps_db: inc r15d; push rax; mov rax, dr6; and eax, 0x4000; jz 8f; mov eax, 0xffff0ff0; mov dr6, rax\n"
    "pop rax; iretq\n"
    "8: mov al, 1; out 0xf4, al\n"
    "code_steps_int: add eax, 3; sub eax, 1; iretq\n");
extern const uint8_t code_steps_db[], code_steps_int[];

static void test_single_steps_trap_once_an_instruction(void **state)
{
    vm_gate64(&vm, 1, AT(code_steps, code_steps_db), 14, 0, 0);
    vm_gate64(&vm, 0x42, AT(code_steps, code_steps_int), 14, 0, 0);
    assert_int_equal(RUN64(code_steps), 0);
    assert_int_equal(vm.log[0], 0);
    /*
     * call 1, xor mov 2; the loop 10 * (lea imul cmp jb dec jnz) + ror unless below (never: 10);
     * mov mov + stosd 5; mov mov mov + movsd 5; push pop add call add ret; INT itself and its handler
     * are not trapped, the IRET that sets TF again neither; nop lea jmp ret; pushfq and popfq.
     */
    assert_int_equal(vm.log[1], 1 + 2 + 70 + 7 + 8 + 6 + 4 + 3);
}

GUEST_CODE(code_shadow,
    "mov rbx, 0xfee00000; mov dword ptr [rbx+0xf0], 0x1ff\n"
    /* A self-IPI waits behind IF = 0; STI lets exactly one more instruction run. */
    "xor eax, eax; mov dword ptr [rbx+0x300], 0x40041; sti; inc eax; inc eax; inc eax; cli\n"
    /* STI with IF already set has no shadow, POPF never. */
    "xor eax, eax; mov dword ptr [rbx+0x300], 0x40041; pushfq; or dword ptr [rsp], 0x200; popfq; inc eax; cli\n"
    /* MOV SS: one instruction; so it follows STI's, and its own. */
    "xor eax, eax; mov ecx, ss; mov dword ptr [rbx+0x300], 0x40041; sti; mov ss, ecx; inc eax; inc eax; cli\n"
    /* STI; HLT does not lose the wake-up. */
    "mov dword ptr [rbx+0x300], 0x40041; mov eax, 0x77; sti; hlt; cli\n"
    /* STI; CLI: nothing is let in. */
    "xor eax, eax; mov dword ptr [rbx+0x300], 0x40041; sti; cli; mov eax, 0x88; nop; nop; sti; nop; cli\n"
    "xor eax, eax; out 0xf4, al\n"
    ".globl code_shadow_isr\n"
    "code_shadow_isr: out 0xe9, eax; mov dword ptr [rbx+0xb0], 0; iretq\n");
extern const uint8_t code_shadow_isr[];

static void test_interrupt_shadows_last_one_instruction(void **state)
{
    vm_gate64(&vm, 0x41, AT(code_shadow, code_shadow_isr), 14, 0, 0);
    assert_int_equal(RUN64(code_shadow), 0);
    EXPECT_LOG(1, 0, 1, 0x77, 0x88);
}

GUEST_CODE(code_break,
    "lea rax, [rip+2f]; mov dr0, rax; lea rax, [rip+3f]; mov dr3, rax; mov eax, 0x400 + 0x1 + 0x40; mov dr7, rax\n"
    "xor ebx, ebx; mov ecx, 3\n"
    "1: add ebx, ecx\n"
    "2: add ebx, 10; dec ecx; jnz 1b\n"
    "xor eax, eax; mov dr7, rax; add ebx, 100\n"
    "3: mov eax, ebx; out 0xe9, eax; xor eax, eax; out 0xf4, al\n"
    ".globl code_break_db\n"
    "code_break_db: push rax; mov rax, dr6; out 0xe9, eax; mov eax, 0xffff0ff0; mov dr6, rax; mov eax, ebx; out 0xe9, eax\n"
    "bts dword ptr [rsp+24], 16; pop rax; iretq\n");             /* RF */
extern const uint8_t code_break_db[];

static void test_breakpoints_come_before_their_instruction(void **state)
{
    vm_gate64(&vm, 1, AT(code_break, code_break_db), 14, 0, 0);
    assert_int_equal(RUN64(code_break), 0);
    EXPECT_LOG(0xffff0ff1, 3, 0xffff0ff1, 15, 0xffff0ff1, 26, 136);
}

GUEST_CODE(code_spin,
    "mov rbx, 0xfee00000; mov dword ptr [rbx+0xf0], 0x1ff; mov dword ptr [rbx+0x3e0], 0xb\n"
    "mov dword ptr [rbx+0x320], 0x41; mov dword ptr [rbx+0x380], 2000000\n"
    "mov edi, 0x200000; xor eax, eax; sti\n"
    "1: mov ecx, 0x400000; mov edi, 0x200000; rep stosb; jmp 1b\n"
    ".globl code_spin_isr\n"
    /* In the middle of REP: exact registers, RIP at the instruction. */
    "code_spin_isr: mov rax, [rsp]; lea rdx, [rip+1b+10]; cmp rax, rdx; jne 2f\n"
    "mov eax, 0x600000; sub eax, ecx; cmp rax, rdi; jne 2f; xor eax, eax; out 0xf4, al\n"
    "2: mov dword ptr [rbx+0xb0], 0; mov dword ptr [rbx+0x380], 2000000; xor eax, eax; iretq\n");
extern const uint8_t code_spin_isr[];

static void test_rep_is_interrupted_between_elements(void **state)
{
    vm_gate64(&vm, 0x41, AT(code_spin, code_spin_isr), 14, 0, 0);
    assert_int_equal(RUN64(code_spin), 0);
}

/* ---- blocks ---- */

GUEST_CODE(code_many,
    /* Twice through 3 MiB of two-instruction blocks at 0x400000: more than the arena holds. */
    "mov ebp, 2; xor eax, eax; xor ecx, ecx\n"
    "1: mov edx, 0x400000; call rdx; dec ebp; jnz 1b\n"
    "out 0xe9, eax; xor eax, eax; out 0xf4, al\n");

static void test_a_full_cache_starts_over(void **state)
{
    const unsigned count = 600000;
    uint8_t *p = vm.ram + 0x400000;
    for (unsigned i = 0; i < count; i++, p += 5)
        memcpy(p, (const uint8_t[]){ 0xff, 0xc0, 0xeb, 0x01, 0xcc }, 5);      /* inc eax; jmp over an INT3 */
    *p = 0xc3;
    assert_int_equal(RUN64(code_many), 0);
    EXPECT_LOG(2 * count);
    assert_true(vm_cpu(&vm, 0)->blocks->flushed > 0);
}

GUEST_CODE(code_round_and_round,
    "mov ebp, 20; xor eax, eax\n"
    "1: mov edx, 0x400000; call rdx; dec ebp; jnz 1b\n"
    "out 0xe9, eax; xor eax, eax; out 0xf4, al\n");

/* A loop through twice as many blocks as the arena has room for at first: then it has, and they stay. */
static void test_a_cache_that_is_too_small_grows(void **state)
{
    const struct block_cache *bc = vm_cpu(&vm, 0)->blocks;
    const unsigned count = 120000;
    uint8_t *p = vm.ram + 0x400000;
    assert_int_equal(bc->size, BLOCK_ARENA_START);
    for (unsigned i = 0; i < count; i++, p += 5)
        memcpy(p, (const uint8_t[]){ 0xff, 0xc0, 0xeb, 0x01, 0xcc }, 5);
    *p = 0xc3;
    assert_int_equal(RUN64(code_round_and_round), 0);
    EXPECT_LOG(20 * count);
    printf("%llu flushes, %llu blocks built, room for %zu MiB\n", (unsigned long long)bc->flushed,
           (unsigned long long)bc->built, bc->size >> 20);
    assert_in_range(bc->size, BLOCK_ARENA_START + 1, BLOCK_ARENA_MAX);
    assert_in_range(bc->flushed, 1, 4);
    assert_true(bc->built < 5 * count);
    /* A machine that begins anew has the room of a new one. */
    vm.g->ops->reset(vm.g);
    vm.ram[0x400000] = 0xc3;
    assert_int_equal(RUN64(code_round_and_round), 0);
    assert_int_equal(bc->size, BLOCK_ARENA_START);
}

/* Code that is run once and not again leaves the bound where it is. */
GUEST_CODE(code_once,
    "mov edx, 0x400000; xor eax, eax; call rdx; out 0xe9, eax; xor eax, eax; out 0xf4, al\n");

static void test_a_cache_of_code_run_once_does_not_grow(void **state)
{
    const struct block_cache *bc = vm_cpu(&vm, 0)->blocks;
    const unsigned count = 600000;
    uint8_t *p = vm.ram + 0x400000;
    for (unsigned i = 0; i < count; i++, p += 5)
        memcpy(p, (const uint8_t[]){ 0xff, 0xc0, 0xeb, 0x01, 0xcc }, 5);
    *p = 0xc3;
    assert_int_equal(RUN64(code_once), 0);
    EXPECT_LOG(count);
    assert_true(bc->flushed > 3);
    assert_int_equal(bc->size, BLOCK_ARENA_START);
}

GUEST_CODE(code_remap,
    /* A function at 0x210010, and one at 0x20fffd whose third instruction crosses into that page;
     * which is mapped to one page, then to another. */
    "mov rbx, 0x210010\n"
    "call rbx; out 0xe9, eax; call rbx; out 0xe9, eax\n"
    "mov qword ptr [0x30000 + 8 * 0x10], 0x302003; invlpg [rbx]\n"
    "call rbx; out 0xe9, eax\n"
    "mov qword ptr [0x30000 + 8 * 0x10], 0x301003; mov rax, cr3; mov cr3, rax\n"
    "mov rbx, 0x20fffd; call rbx; out 0xe9, eax\n"
    "mov qword ptr [0x30000 + 8 * 0x10], 0x302003; invlpg [rbx+3]\n"
    "call rbx; out 0xe9, eax\n"
    /* Not present: the fault is at the second page, the instruction at the first. */
    "mov qword ptr [0x30000 + 8 * 0x10], 0; invlpg [rbx+3]\n"
    "call rbx; out 0xe9, eax\n"
    "xor eax, eax; out 0xf4, al\n"
    ".globl code_remap_pf\n"
    "code_remap_pf: mov rax, cr2; out 0xe9, eax; mov rax, [rsp+8]; out 0xe9, eax\n"
    "mov qword ptr [0x30000 + 8 * 0x10], 0x301003; add rsp, 8; iretq\n");
extern const uint8_t code_remap_pf[];

static void test_pages_remapped_under_blocks(void **state)
{
    /* 0x200000.. by a table at 0x30000: page 0xf -> 0x300000, page 0x10 -> 0x301000 or 0x302000. */
    vm_put64(&vm, PML4_GPA + 0x2000 + 8, 0x30000 | 3);
    vm_put64(&vm, 0x30000 + 8 * 0xf, 0x300003);
    vm_put64(&vm, 0x30000 + 8 * 0x10, 0x301003);
    memcpy(vm.ram + 0x300ffd, (const uint8_t[]){ 0x90, 0x90, 0xb8 }, 3);      /* nop; nop; mov eax, imm32 */
    for (uint8_t i = 1; i <= 2; i++) {
        memcpy(vm.ram + 0x300000 + i * 0x1000, (const uint8_t[]){ i, 0, 0, 0, 0xc3 }, 5);
        memcpy(vm.ram + 0x300010 + i * 0x1000, (const uint8_t[]){ 0xb8, i, 1, 0, 0, 0xc3 }, 6);
    }
    vm_gate64(&vm, 14, AT(code_remap, code_remap_pf), 14, 0, 0);
    assert_int_equal(RUN64(code_remap), 0);
    EXPECT_LOG(0x101, 0x101, 0x102, 1, 2, 0x210000, 0x20ffff, 1);
}

GUEST_CODE(code_upper,
    "mov rbx, 0xffffff8140210010; call rbx; out 0xe9, eax; call rbx; out 0xe9, eax; xor eax, eax; out 0xf4, al\n");

/* INVLPG of a user's page costs a kernel none of its blocks, whose pages lie in the upper half; one of theirs does. */
static void test_blocks_outlive_the_pages_of_others(void **state)
{
    struct cpu *c = vm_cpu(&vm, 0);
    const uint64_t upper = 0xffffff8140210000ull, below = upper & 0x7fffffffffull;
    vm_put64(&vm, PML4_GPA + 8 * 511, 0x31003);
    vm_put64(&vm, 0x31000 + 8 * 5, PML4_GPA + 0x2003);
    memcpy(vm.ram + 0x210010, (const uint8_t[]){ 0xb8, 7, 1, 0, 0, 0xc3 }, 6);
    assert_int_equal(RUN64(code_upper), 0);
    EXPECT_LOG(0x107, 0x107);
    uint64_t gen = c->gen[0];
    tlb_flush_page(c, below);
    tlb_flush_page(c, below + (1ull << 40));
    assert_int_equal(c->gen[0], gen);
    tlb_flush_page(c, upper);
    assert_int_not_equal(c->gen[0], gen);
}

GUEST_CODE(code_far16,
    ".code16\n"
    /* Real mode; the same IP in segments 0x2000 and 0x3000 holds different code. */
    "mov cx, 3\n"
    "1: lcall 0x2000, 0; lcall 0x3000, 0; dec cx; jnz 1b\n"
    "out 0xe9, eax; mov al, 0; out 0xf4, al\n"
    ".code64\n");

static void test_segments_moved_under_links(void **state)
{
    /* add ax, n; jmp +0 (a link); retf */
    memcpy(vm.ram + 0x20000, (const uint8_t[]){ 0x05, 1, 0, 0xeb, 0, 0xcb }, 6);
    memcpy(vm.ram + 0x30000, (const uint8_t[]){ 0x05, 0, 1, 0xeb, 0, 0xcb }, 6);
    vm_load(&vm, ORG, code_far16, code_far16_end);
    struct vcpu *v = vm.g->ops->vcpu(vm.g, 0);
    struct vcpu_regs r;
    vm.g->ops->get_regs(v, &r);
    r.seg[X86_SEG_CS].base = ORG;
    r.seg[X86_SEG_CS].sel = ORG >> 4;
    r.rip = 0;
    r.gpr[R_RAX] = 0;
    r.gpr[R_RSP] = 0x8000;
    assert_int_equal(vm.g->ops->set_regs(v, &r), 0);
    assert_int_equal(vm_run(&vm), 0);
    EXPECT_LOG(0x303);
}

GUEST_CODE(code_mixed,
    /* Data beside code in one page: the page stays slow, becomes fast when its code is gone. */
    "mov edi, 0x40000; call rdi; mov ecx, 1000\n"
    "1: mov [rdi+0x800], ecx; inc dword ptr [rdi+0x804]; dec ecx; jnz 1b\n"
    "mov eax, [rdi+0x804]; out 0xe9, eax; mov dx, 0xed; out dx, al\n"
    "mov byte ptr [rdi], 0xc3; mov dx, 0xed; out dx, al\n"
    "xor eax, eax; out 0xf4, al\n");

static void look_at_page(struct test_vm *t, unsigned vp, uint32_t val)
{
    struct soft_page *p = soft_page_at(vm_cpu(t, vp)->soft, 0x40000);
    t->log[t->logged++] = (block_page_has_code(vm_cpu(t, vp), 0x40000) ? 2u : 0) | (p->code ? 1 : 0);
}

static void test_a_page_without_code_is_data_again(void **state)
{
    memcpy(vm.ram + 0x40000, (const uint8_t[]){ 0x90, 0x90, 0xc3 }, 3);
    vm.on_out = look_at_page;
    assert_int_equal(RUN64(code_mixed), 0);
    EXPECT_LOG(1000, 3, 0);
}

/* ---- the CPU the guest was shown ---- */

GUEST_CODE(code_shown,
    "mov eax, 0x55; xor ecx, ecx; .byte 0xf3, 0x0f, 0xbc, 0xc1; out 0xe9, eax\n"      /* tzcnt or bsf eax, ecx */
    "mov eax, 0x55; mov ecx, 1; .byte 0xf3, 0x0f, 0xbd, 0xc1; out 0xe9, eax\n"        /* lzcnt or bsr */
    "mov ecx, 0xff; .byte 0xf3, 0x0f, 0xb8, 0xc1; out 0xe9, eax\n"                    /* popcnt */
    "mov ecx, 0xf0; mov edx, 0xff; .byte 0xc4, 0xe2, 0x70, 0xf2, 0xc2; out 0xe9, eax\n"   /* andn eax, ecx, edx */
    "xor eax, eax; out 0xf4, al\n"
    ".globl code_shown_ud\n"
    "code_shown_ud: mov rax, [rsp]; movzx ecx, byte ptr [rax]; mov eax, 4; cmp cl, 0xf3; je 1f; inc eax\n"
    "1: add [rsp], rax; mov eax, 0xdead; iretq\n");
extern const uint8_t code_shown_ud[];

static void show_cpu(bool old)
{
    struct cpuid_leaf *leaf;
    unsigned count;
    assert_int_equal(vm.g->ops->get_cpuid(vm.g, 0, &leaf, &count), 0);
    for (unsigned i = 0; i < count && old; i++) {
        if (leaf[i].leaf == 1)
            leaf[i].ecx &= ~(1u << 23);
        if (leaf[i].leaf == 7 && leaf[i].subleaf == 0)
            leaf[i].ebx &= ~(1u << 3);
        if (leaf[i].leaf == 0x80000001)
            leaf[i].ecx &= ~(1u << 5);
    }
    assert_int_equal(vm.g->ops->set_cpuid(vm.g, 0, leaf, count), 0);
    free(leaf);
}

static void test_instructions_not_shown_are_not_there(void **state)
{
    vm_gate64(&vm, 6, AT(code_shown, code_shown_ud), 14, 0, 0);
    show_cpu(false);
    assert_int_equal(RUN64(code_shown), 0);
    block_drop_all(vm_cpu(&vm, 0));
    show_cpu(true);
    assert_int_equal(RUN64(code_shown), 0);
    EXPECT_LOG(32, 31, 8, 0x0f, 0x55, 0, 0xdead, 0xdead);
}

/* ---- two vCPUs ---- */

GUEST_CODE(code_atomic,
    /* Each LOCKed form on shared memory, 20000 times on both; r8d = 0 on the one that checks. */
    "mov ecx, 20000; mov esi, 0x50000\n"
    "1: lock inc dword ptr [rsi]; lock add qword ptr [rsi+8], 3; mov eax, 2; lock xadd [rsi+16], eax\n"
    "2: mov eax, [rsi+20]; lea edx, [rax+1]; lock cmpxchg [rsi+20], edx; jnz 2b\n"
    "3: mov rax, [rsi+32]; mov rdx, [rsi+40]; lea rbx, [rax+1]; push rcx; lea rcx, [rdx+2]; lock cmpxchg16b [rsi+32]; pop rcx; jnz 3b\n"
    /* a spin lock with XCHG around a plain increment */
    "4: mov eax, 1; xchg eax, [rsi+48]; test eax, eax; jz 5f; pause; jmp 4b\n"
    "5: inc dword ptr [rsi+52]; mov dword ptr [rsi+48], 0\n"
    /* bits: each sets and clears its own */
    "mov eax, r8d; lock bts [rsi+56], eax; jc 9f; lock btr [rsi+56], eax; jnc 9f\n"
    /* across a cache line */
    "lock inc dword ptr [rsi+0x7e]\n"
    "dec ecx; jnz 1b\n"
    "lock inc dword ptr [rsi+0x100]; test r8d, r8d; jz 6f; 7: pause; jmp 7b\n"
    "6: pause; cmp dword ptr [rsi+0x100], 2; jne 6b\n"
    "mov eax, [rsi]; out 0xe9, eax; mov eax, [rsi+8]; out 0xe9, eax; mov eax, [rsi+16]; out 0xe9, eax\n"
    "mov eax, [rsi+20]; out 0xe9, eax; mov eax, [rsi+32]; out 0xe9, eax; mov eax, [rsi+40]; out 0xe9, eax\n"
    "mov eax, [rsi+52]; out 0xe9, eax; mov eax, [rsi+56]; out 0xe9, eax; mov eax, [rsi+0x7e]; out 0xe9, eax\n"
    "xor eax, eax; out 0xf4, al\n"
    "9: mov al, 9; out 0xf4, al\n");

static void test_locked_forms_are_atomic(void **state)
{
    vm_load(&vm, ORG, code_atomic, code_atomic_end);
    for (unsigned i = 0; i < 2; i++) {
        vm_start64(&vm, i, ORG, STACK - 0x1000 * i);
        vm_cpu(&vm, i)->gpr[8] = i;
    }
    assert_int_equal(vm_run(&vm), 0);
    EXPECT_LOG(40000, 120000, 80000, 40000, 40000, 80000, 40000, 0, 40000);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        T(test_single_steps_trap_once_an_instruction), T(test_interrupt_shadows_last_one_instruction),
        T(test_breakpoints_come_before_their_instruction), T(test_rep_is_interrupted_between_elements),
        T(test_a_full_cache_starts_over), T(test_a_cache_that_is_too_small_grows),
        T(test_a_cache_of_code_run_once_does_not_grow), T(test_pages_remapped_under_blocks),
        T(test_blocks_outlive_the_pages_of_others), T(test_segments_moved_under_links),
        T(test_a_page_without_code_is_data_again), T(test_instructions_not_shown_are_not_there),
        cmocka_unit_test_setup_teardown(test_locked_forms_are_atomic, setup_two, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
