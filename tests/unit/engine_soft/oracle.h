/*
 * The host CPU as the oracle for integer code: the same bytes, at the same address, with the
 * same registers and memory, natively at CPL 3 and in the engine at CPL 3: 64-bit code, flat
 * 32-bit code, and 16-bit code in segments with base and limit (the process's LDT; the engine's
 * segment registers). Both sides end in INT3, or in the fault the code makes.
 *
 * Host addresses are guest addresses: ORACLE_VA .. +7 pages is one mapping of this process
 * and the RAM of the guest at that linear address.
 *
 *     page 0, 1   code (it may cross)      2, 3  data      4  not present      5  stack     6  not present
 *
 * Memory of the data and stack pages is compared whole.
 *
 * Native side: INT3 traps into a signal handler, which loads the wanted registers into the
 * frame and returns into the code; the next signal brings them back.
 */
#ifndef TESTS_ORACLE_H
#define TESTS_ORACLE_H

#include <asm/ldt.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>

#include "hv/engine/soft/intops.h"
#include "hv/engine/soft/translate.h"
#include "soft_vm.h"

#define ORACLE_VA  0x20000000ull
#define CODE_VA    ORACLE_VA
#define DATA_VA    (ORACLE_VA + 0x2000)
#define STACK_VA   (ORACLE_VA + 0x5000)
#define PAGES      7
#define DATA_MID   (DATA_VA + 0x1000)
#define STACK_MID  (STACK_VA + 0x800)
#define SEL_UCODE32 0x48               /* beside those of soft_vm.h */
#define STUBS_GPA  0x40000             /* a HLT for each vector */

enum oracle_mode { CODE_64, CODE_32, CODE_16, CODE_MODES };
#define LIMIT_16   0x31ffu             /* of the data segment of 16-bit code: inside the window */

struct regs { uint64_t gpr[16], rip, rflags, cr2; unsigned vector, error; };

static uint64_t seed;
static uint64_t rnd(void)              /* splitmix64 */
{
    uint64_t z = seed += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
static bool one_in(unsigned n) { return rnd() % n == 0; }

static bool has_error(unsigned vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }

/* ---- native ---- */

static struct regs *native_regs;
static volatile int native_phase;
static enum oracle_mode mode;
static greg_t native_saved[NGREG];
static const uint8_t greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
#define NATIVE_FLAGS (FL_ARITH | FL_DF | FL_AC)
#define LDT_SEL(i) ((uint64_t)(i) << 3 | 7)

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
    /* The frame has the code's flags, and so have we: the C library does not mind alignment. */
    __asm__ volatile("pushfq\n\tandl %0, (%%rsp)\n\tpopfq" :: "i"((int)~FL_AC) : "cc", "memory");
    greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
    if (native_phase == 1) {
        memcpy(native_saved, g, sizeof(native_saved));
        for (int i = 0; i < 16; i++)
            g[greg_of[i]] = (greg_t)native_regs->gpr[i];
        g[REG_EFL] = (greg_t)(((uint64_t)g[REG_EFL] & ~NATIVE_FLAGS) | (native_regs->rflags & NATIVE_FLAGS));
        g[REG_RIP] = (greg_t)native_regs->rip;
        if (mode == CODE_32)           /* CS, and SS in the top word */
            g[REG_CSGSFS] = (g[REG_CSGSFS] & ~(greg_t)0xffff) | 0x23;
        else if (mode == CODE_16)
            g[REG_CSGSFS] = (greg_t)(((uint64_t)g[REG_CSGSFS] & 0x0000ffffffff0000) | LDT_SEL(0) | LDT_SEL(2) << 48);
        native_phase = 2;
    } else if (native_phase == 2) {
        for (int i = 0; i < 16; i++)
            native_regs->gpr[i] = (uint64_t)g[greg_of[i]];
        native_regs->rflags = (uint64_t)g[REG_EFL] & NATIVE_FLAGS;
        native_regs->rip = (uint64_t)g[REG_RIP];
        native_regs->vector = (unsigned)g[REG_TRAPNO];
        native_regs->cr2 = native_regs->vector == VEC_PF ? (uint64_t)g[REG_CR2] : 0;
        native_regs->error = has_error(native_regs->vector) ? (unsigned)g[REG_ERR] : 0;
        memcpy(g, native_saved, sizeof(native_saved));
        native_phase = 0;
    } else {
        signal(sig, SIG_DFL);
    }
}

static void native_run(struct regs *r)
{
    native_regs = r;
    native_phase = 1;
    __asm__ volatile("int3" ::: "memory", "cc");
    assert_int_equal(native_phase, 0);
}

/* First thing in a test: cmocka takes these signals itself before each one. */
static void oracle_begin(void)
{
    static uint8_t stack[128 << 10];
    stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
    struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    static const int sigs[] = { SIGTRAP, SIGFPE, SIGSEGV, SIGILL, SIGBUS };
    sigaltstack(&ss, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
        sigaction(sigs[i], &sa, NULL);
    /* PUSHF shows ID, which signal frames do not restore: clear it once. */
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\tandl %0, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp"
                     :: "i"((int)~FL_ID) : "cc", "memory");
}

/* Segments of 16-bit code: 0 code, 1 data, 2 stack. */
static int ldt_make(void)
{
    for (unsigned i = 0; i < 3; i++) {
        struct user_desc d = { .entry_number = i, .base_addr = ORACLE_VA, .limit = i == 1 ? LIMIT_16 : 0xffff,
                               .contents = i == 0 ? MODIFY_LDT_CONTENTS_CODE : MODIFY_LDT_CONTENTS_DATA };
        if (syscall(SYS_modify_ldt, 1, &d, sizeof(d)))
            return -1;
    }
    return 0;
}

/* ---- engine ---- */

static struct test_vm oracle_vm;
static unsigned oracle_cases;
static struct cpu *cpu;
static struct vcpu_regs regs_of[CODE_MODES];

static int oracle_setup(void **state)
{
    void *p = mmap((void *)ORACLE_VA, PAGES * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == MAP_FAILED)
        return -1;
    struct test_vm *vm = &oracle_vm;
    vm_open(vm, 1);
    vm_tables64(vm);
    vm_put64(vm, GDT_GPA + SEL_UCODE32, 0x00cffb000000ffffull);
    /* The oracle's pages by a table of 4 KiB entries at 0x20000; RAM of their own at gpa ORACLE_VA. */
    assert_int_equal(vm->g->ops->map(vm->g, ORACLE_VA, PAGES * 4096, p, false), 0);
    vm_put64(vm, PML4_GPA + 0x2000 + 8 * (ORACLE_VA >> 21), 0x20000 | 7);
    for (unsigned i = 0; i < 512; i++)
        vm_put64(vm, 0x20000 + 8 * i, i < PAGES && i != 4 && i != 6 ? (ORACLE_VA + i * 4096) | 7 : 0);
    mprotect((uint8_t *)p + 4 * 4096, 4096, PROT_NONE);
    mprotect((uint8_t *)p + 6 * 4096, 4096, PROT_NONE);
    memset(vm->ram + STUBS_GPA, 0xf4, 256);
    for (unsigned i = 0; i < 32; i++)
        vm_gate64(vm, i, STUBS_GPA + i, 14, 3, 1);
    vm_start64(vm, 0, CODE_VA, STACK_MID);
    cpu = vm_cpu(vm, 0);
    struct vcpu *v = vm->g->ops->vcpu(vm->g, 0);
    struct vcpu_regs *r = regs_of;
    vm->g->ops->get_regs(v, r);
    r->gdt_limit = 0x5f;
    r->cr0 |= CR0_AM;
    for (unsigned i = 0; i < 6; i++)
        r->seg[i] = vm_seg(SEL_UDATA | 3, 0, UINT32_MAX, 0xc0f3);
    r[CODE_32] = r[CODE_16] = r[CODE_64];
    r[CODE_64].seg[X86_SEG_CS] = vm_seg(SEL_UCODE64 | 3, 0, UINT32_MAX, 0xa0fb);
    r[CODE_32].seg[X86_SEG_CS] = vm_seg(SEL_UCODE32 | 3, 0, UINT32_MAX, 0xc0fb);
    r[CODE_16].seg[X86_SEG_CS] = vm_seg(7, ORACLE_VA, 0xffff, 0x00fb);
    r[CODE_16].seg[X86_SEG_DS] = r[CODE_16].seg[X86_SEG_ES] = vm_seg(15, ORACLE_VA, LIMIT_16, 0x00f3);
    r[CODE_16].seg[X86_SEG_SS] = vm_seg(23, ORACLE_VA, 0xffff, 0x00f3);
    return 0;
}

static int oracle_teardown(void **state)
{
    if (cpu->code && cpu->code->threshold == 0)        /* what was compared was translated */
        assert_true(cpu->code->translated > oracle_cases / 4);
    vm_close(&oracle_vm);
    munmap((void *)ORACLE_VA, PAGES * 4096);
    return 0;
}

static enum x86_mode decode_mode(void)
{
    return mode == CODE_64 ? X86_MODE_64 : mode == CODE_32 ? X86_MODE_32 : X86_MODE_16;
}

/* Where segments of the mode begin. */
static uint64_t oracle_base(void) { return mode == CODE_16 ? ORACLE_VA : 0; }

/* Put both sides into user mode for such code; costs a TLB flush. False: the host cannot. */
static bool oracle_mode(enum oracle_mode m)
{
    struct vcpu *v = oracle_vm.g->ops->vcpu(oracle_vm.g, 0);
    mode = m;
    if (m == CODE_16 && ldt_make())
        return false;
    if (m != CODE_64) {                /* null in 64-bit processes, which never look */
        uint64_t sel = m == CODE_16 ? LDT_SEL(1) : 0x2b;
        __asm__ volatile("mov %k0, %%ds; mov %k0, %%es" :: "r"(sel));
    }
    assert_int_equal(engine_soft.set_regs(v, &regs_of[m]), 0);
    return true;
}

static void engine_load(struct cpu *c, const struct regs *r)
{
    const struct vcpu_regs *t = &regs_of[mode];
    for (unsigned i = 0; i < 6; i++)
        c->seg[i] = (struct seg){ t->seg[i].base, t->seg[i].limit, t->seg[i].attr, t->seg[i].sel };
    c->cpl = 3;
    c->halted = false;
    c->shadow = 0;
    cpu_set_rflags(c, r->rflags | FL_IF, UINT64_MAX);
    cpu_update_mode(c);
    memcpy(c->gpr, r->gpr, sizeof(c->gpr));
    c->rip = r->rip;
}

static void engine_run(struct regs *r)
{
    struct cpu *c = cpu;
    engine_load(c, r);
    c->cr2 = 0;
    soft_enter_guest(vcpu_of(c));
    enum leave_reason why = cpu_loop(c);
    soft_leave_guest(vcpu_of(c));
    if (why != LEAVE_HALT || c->rip <= STUBS_GPA || c->rip > STUBS_GPA + 256) {
        r->vector = 1000u + why;
        return;
    }
    r->vector = (unsigned)(c->rip - 1 - STUBS_GPA);
    uint64_t sp = c->gpr[R_RSP];
    r->error = 0;
    if (has_error(r->vector)) {
        r->error = vm_get32(&oracle_vm, sp);
        sp += 8;
    }
    memcpy(r->gpr, c->gpr, sizeof(r->gpr));
    r->rip = vm_get64(&oracle_vm, sp);
    r->rflags = vm_get64(&oracle_vm, sp + 16) & NATIVE_FLAGS;
    r->gpr[R_RSP] = vm_get64(&oracle_vm, sp + 24);
    r->cr2 = r->vector == VEC_PF ? c->cr2 : 0;
}

/* The same for one instruction through its call-out, whatever handler the loop would have. */
static void engine_callout(struct regs *r, const struct x86_insn *in)
{
    struct cpu *c = cpu;
    engine_load(c, r);
    int done;
    do {                               /* a string may want to be gone on with */
        c->next_rip = r->rip + in->len;
        done = int_op_find(in->op)->fn(c, in);
    } while (done == X_OK && c->next_rip == r->rip && in->op != X86_OP_JMP && in->op != X86_OP_JCC);
    memcpy(r->gpr, c->gpr, sizeof(r->gpr));
    r->rflags = cpu_rflags(c) & NATIVE_FLAGS;
    r->vector = done == X_OK ? VEC_BP : c->exc.vector;
    r->rip = done == X_OK ? c->next_rip + 1 : c->rip;
    r->cr2 = r->vector == VEC_PF ? c->exc.cr2 : 0;
    r->error = done != X_OK && c->exc.has_error ? c->exc.error : 0;
}

/* ---- one case on both sides ---- */

/* All of the memory that code may change. */
struct window { uint8_t data[0x2000], stack[0x1000]; };

static void window_get(struct window *w)
{
    memcpy(w->data, (void *)DATA_VA, sizeof(w->data));
    memcpy(w->stack, (void *)STACK_VA, sizeof(w->stack));
}

static void window_put(const struct window *w)
{
    memcpy((void *)DATA_VA, w->data, sizeof(w->data));
    memcpy((void *)STACK_VA, w->stack, sizeof(w->stack));
}

static void print_code(uint64_t va, const uint8_t *code, unsigned len)
{
    for (unsigned i = 0; i < len;) {
        struct x86_insn in;
        char text[96];
        if (x86_decode(code + i, MIN(len - i, 15u), decode_mode(), &in)) {
            printf("  %llx: (undefined)\n", (unsigned long long)(va + i));
            return;
        }
        printf("  %llx: %-40s ", (unsigned long long)(va + i), x86_format(&in, va + i, text, sizeof(text)));
        for (unsigned k = 0; k < in.len; k++)
            printf("%02x", code[i + k]);
        printf("\n");
        i += in.len;
    }
}

static void print_regs(const char *what, const struct regs *r)
{
    printf("%s: vector %u error %x rip %llx rflags %llx cr2 %llx", what, r->vector, r->error,
           (unsigned long long)r->rip, (unsigned long long)r->rflags, (unsigned long long)r->cr2);
    for (unsigned i = 0; i < 16; i++)
        printf("%s%016llx", i % 4 ? " " : "\n    ", (unsigned long long)r->gpr[i]);
    printf("\n");
}

static bool oracle_tried[X86_OP_COUNT];        /* operations that ran, decoded one after the other */

static void note_tried(const uint8_t *code, unsigned len)
{
    struct x86_insn in;
    for (unsigned i = 0; i < len && !x86_decode(code + i, len - i, decode_mode(), &in); i += in.len)
        oracle_tried[in.op] = true;
}

static bool same_result(const struct regs *want, const struct regs *got, const struct window *native,
                        const struct window *engine, uint64_t undefined)
{
    return memcmp(want->gpr, got->gpr, (mode == CODE_64 ? 16 : 8) * 8) == 0 && want->rip == got->rip &&
           want->vector == got->vector && want->error == got->error && want->cr2 == got->cr2 &&
            !((want->rflags ^ got->rflags) & ~undefined) &&
           memcmp(native, engine, sizeof(*native)) == 0;
}

static void report(const char *side, const struct regs *start, const struct regs *want, const struct regs *got,
                   const struct window *before, const struct window *native, const struct window *engine)
{
    const uint8_t *b = (const uint8_t *)before, *n = (const uint8_t *)native, *e = (const uint8_t *)engine;
    print_regs("start", start);
    print_regs("host", want);
    print_regs(side, got);
    for (unsigned i = 0; i < sizeof(*native); i++) {
        if (n[i] != e[i])
            printf("  memory %llx: %02x before, host %02x, %s %02x\n",
                   (unsigned long long)(i < 0x2000 ? DATA_VA + i : STACK_VA + i - 0x2000), b[i], n[i], side, e[i]);
    }
}

/*
 * Run code[len] at va (in pages 0, 1) from *start on both sides and compare; a single
 * instruction through its call-out too. undefined: flags that are not compared. Returns the
 * vector it ended with (3: ran to the end); *ret_same, or fails the test if that is NULL.
 */
static unsigned oracle_compare(const uint8_t *code, unsigned len, uint64_t va, const struct regs *start,
                               uint64_t undefined, bool *ret_same)
{
    struct regs want = *start, got = *start, out = *start;
    struct window before, native, engine;
    struct x86_insn in;
    memcpy((void *)va, code, len);
    ((uint8_t *)va)[len] = 0xcc;
    want.rip = got.rip = out.rip = va - oracle_base();
    window_get(&before);
    native_run(&want);
    window_get(&native);
    window_put(&before);
    block_drop(cpu, va, len + 1);
    engine_run(&got);
    window_get(&engine);
    window_put(&before);
    oracle_cases++;
    note_tried(code, len);
    bool same = same_result(&want, &got, &native, &engine, undefined);
    if (!same) {
        printf("\ncase %u: the loop differs\n", oracle_cases);
        print_code(va, code, len);
        report("loop", start, &want, &got, &before, &native, &engine);
    } else if (!x86_decode(code, len, decode_mode(), &in) && in.len == len &&
               int_op_find(in.op) && !(in.op == X86_OP_PUSH && in.opnd[0].kind == X86_OPND_SEG)) {
        engine_callout(&out, &in);
        window_get(&engine);
        window_put(&before);
        same = same_result(&want, &out, &native, &engine, undefined);
        if (!same) {
            printf("\ncase %u: the call-out differs\n", oracle_cases);
            print_code(va, code, len);
            report("call-out", start, &want, &out, &before, &native, &engine);
        }
    }
    if (ret_same)
        *ret_same = same;
    else if (!same)
        fail();
    return want.vector;
}

#endif
