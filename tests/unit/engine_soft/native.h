/*
 * The host CPU as the oracle for vector and floating-point instructions: the same
 * instruction, on the same registers and memory, natively and through cpu_fpu_ops[].
 *
 * Native side: native_run() traps into a signal handler, which puts the wanted registers
 * into the signal frame and returns into a page holding the instruction and INT3. The next
 * signal (the INT3, or the instruction's own fault) brings the registers back.
 *
 * Engine side: the functions of other files that cpu_fpu_ops[] needs are small models
 * here. Guest addresses are host addresses, four pages of them:
 *
 *     0  RAM, in the TLB     1  RAM, not in the TLB    2  read-only    3  not present
 */
#ifndef TEST_NATIVE_H
#define TEST_NATIVE_H

#include "hv/base/endian.h"
#include "hv/engine/soft/cpu.h"

#include <emmintrin.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ucontext.h>
#include <cmocka.h>

/* Registers of one side. fx is an FXSAVE image. */
struct regs {
    uint64_t gpr[16], rflags;
    uint8_t fx[512] __attribute__((aligned(16)));
    unsigned vector;               /* 3: completed (the INT3) */
};
#define DONE 3u
#define FX_ST(i) (32 + 16 * (i))
#define FX_XMM(i) (160 + 16 * (i))

/* ---- random numbers: splitmix64 ---- */

static uint64_t seed;

/* Where the numbers of a part begin; HV_SEED adds for longer hunts. */
static void set_seed(uint64_t part)
{
    const char *more = getenv("HV_SEED");
    seed = part + (more ? strtoull(more, NULL, 0) * 0x100000000000000ull : 0);
}

static uint64_t rnd(void)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static bool one_in(unsigned n) { return rnd() % n == 0; }

/* ---- native side ---- */

static uint8_t *code_page, *data;      /* data: the four pages */
static struct regs *native_regs;
static int native_phase;
static mcontext_t native_saved;
static uint8_t native_saved_fx[512];
/* REG_R8.. order of the kernel: where gpr[i] is. */
static const uint8_t greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
    ucontext_t *uc = ctx;
    greg_t *g = uc->uc_mcontext.gregs;
    uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
    uint64_t components;
    switch (native_phase) {
    case 1:
        native_saved = uc->uc_mcontext;
        memcpy(native_saved_fx, fx, 512);
        for (int i = 0; i < 16; i++) {
            g[greg_of[i]] = (greg_t)native_regs->gpr[i];
        }
        g[REG_EFL] = (greg_t)(((uint64_t)g[REG_EFL] & ~FL_ARITH) | (native_regs->rflags & FL_ARITH));
        g[REG_RIP] = (greg_t)(uintptr_t)code_page;
        memcpy(fx, native_regs->fx, 416);
        memcpy(&components, fx + 512, 8);
        components |= 3;
        memcpy(fx + 512, &components, 8);
        native_phase = 2;
        break;
    case 2:
        for (int i = 0; i < 16; i++) {
            native_regs->gpr[i] = (uint64_t)g[greg_of[i]];
        }
        native_regs->rflags = (uint64_t)g[REG_EFL] & FL_ARITH;
        native_regs->vector = (unsigned)g[REG_TRAPNO];
        memcpy(native_regs->fx, fx, 416);
        memcpy(&components, fx + 512, 8);
        if (!(components & 1)) {        /* x87 in its initial state: the image is stale */
            memset(native_regs->fx, 0, 24);
            put_le16(native_regs->fx, 0x37f);
            memset(native_regs->fx + 32, 0, 128);
        }
        if (!(components & 2)) {
            memset(native_regs->fx + 160, 0, 256);
        }
        memcpy(g, native_saved.gregs, sizeof(native_saved.gregs));
        memcpy(fx, native_saved_fx, 512);
        components |= 3;
        memcpy(fx + 512, &components, 8);
        native_phase = 0;
        break;
    default:
        signal(sig, SIG_DFL);
        return;
    }
}

/* Run the instruction on r, in place. */
static void native_run(const uint8_t *code, unsigned len, struct regs *r)
{
    memcpy(code_page, code, len);
    code_page[len] = 0xcc;
    native_regs = r;
    native_phase = 1;
    __asm__ volatile("int3" ::: "memory");
    assert_int_equal(native_phase, 0);
}

static struct cpu *cpu;

/* First thing in a test: cmocka takes these signals itself before each one. */
static void native_begin(void)
{
    static uint8_t stack[128 << 10];
    stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
    struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    static const int sigs[] = { SIGTRAP, SIGFPE, SIGSEGV, SIGILL, SIGBUS };
    sigaltstack(&ss, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(sigs); i++) {
        sigaction(sigs[i], &sa, NULL);
    }
}

static int native_setup(void **state)
{
    code_page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    data = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (code_page == MAP_FAILED || data == MAP_FAILED) {
        return -1;
    }
    for (unsigned i = 0; i < 3 * 4096; i++) {
        data[i] = (uint8_t)rnd();
    }
    mprotect(data + 2 * 4096, 4096, PROT_READ);
    mprotect(data + 3 * 4096, 4096, PROT_NONE);
    cpu = aligned_alloc(64, ROUND_UP(sizeof(*cpu), 64));
    memset(cpu, 0, sizeof(*cpu));
    for (unsigned i = 0; i < TLB_SIZE; i++) {
        cpu->tlb_table[0][i] = (struct tlb_entry){ TLB_INVALID, TLB_INVALID, TLB_INVALID, 0 };
    }
    cpu->tlb = cpu->tlb_table[0];
    *tlb_at(cpu, (uintptr_t)data) = (struct tlb_entry){ (uintptr_t)data, (uintptr_t)data, TLB_INVALID, 0 };
    *tlb_at(cpu, (uintptr_t)data + 8192) =
        (struct tlb_entry){ (uintptr_t)data + 8192, TLB_INVALID, TLB_INVALID, 0 };
    cpu->mode = MODE_CODE64 | MODE_FLAT | MODE_PE | MODE_PG | MODE_USER;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP | CR0_ET;
    cpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PAE;
    cpu->cpl = 3;
    return 0;
}

/* ---- engine side: models of what other files provide ---- */

int cpu_raise(struct cpu *c, unsigned vector)
{
    c->exc = (struct exc){ .vector = (uint8_t)vector };
    return X_FAULT;
}

int cpu_raise_err(struct cpu *c, unsigned vector, uint32_t error)
{
    c->exc = (struct exc){ .vector = (uint8_t)vector, .has_error = true, .error = error };
    return X_FAULT;
}

static int reach(struct cpu *c, uint64_t va, unsigned len, bool write)
{
    uint64_t page = (va + len - 1 - (uintptr_t)data) >> 12, limit = write ? 2 : 3;
    return page < limit ? X_OK : cpu_raise_err(c, VEC_PF, write ? 6 : 4);
}

int cpu_ld_bytes(struct cpu *c, unsigned seg, uint64_t va, void *buf, unsigned len)
{
    int r = reach(c, va, len, false);
    if (!r) {
        memcpy(buf, (const void *)(uintptr_t)va, len);
    }
    return r;
}

int cpu_st_bytes(struct cpu *c, unsigned seg, uint64_t va, const void *buf, unsigned len)
{
    int r = reach(c, va, len, true);
    if (!r) {
        memcpy((void *)(uintptr_t)va, buf, len);
    }
    return r;
}

int cpu_ld_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t *ret)
{
    *ret = 0;
    return cpu_ld_bytes(c, seg, va, ret, size);
}

int cpu_st_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t val)
{
    return cpu_st_bytes(c, seg, va, &val, size);
}

int cpu_check_aligned(struct cpu *c, uint64_t va, unsigned len)
{
    return X_OK;
}

uint64_t cpu_ea(struct cpu *c, const struct x86_insn *in)
{
    uint64_t va = (uint64_t)in->disp;
    va += in->base < 16 ? c->gpr[in->base] : in->base == X86_REG_RIP ? c->next_rip : 0;
    va += in->index < 16 ? c->gpr[in->index] << in->scale : 0;
    return in->adsize == 4 ? (uint32_t)va : va;
}

int cpu_mem_lin(struct cpu *c, const struct x86_insn *in, unsigned size, enum cpu_access acc, uint64_t *ret)
{
    *ret = cpu_ea(c, in);
    return X_OK;
}

int cpu_seg_lin(struct cpu *c, unsigned seg, uint64_t off, unsigned size, enum cpu_access acc, uint64_t *ret)
{
    *ret = off;
    return X_OK;
}

void cpu_reg_set(struct cpu *c, unsigned reg, unsigned size, uint64_t v)
{
    uint64_t mask = size == 2 ? 0xffff : UINT64_MAX;
    c->gpr[reg] = (c->gpr[reg] & ~mask) | (size == 4 ? (uint32_t)v : v & mask);
}

int cpu_opnd_get(struct cpu *c, const struct x86_insn *in, unsigned n, uint64_t *ret)
{
    if (in->opnd[n].kind == X86_OPND_MEM) {
        return cpu_ld_slow(c, in->seg, cpu_ea(c, in), in->opnd[n].size, ret);
    }
    *ret = in->opnd[n].size == 4 ? (uint32_t)c->gpr[in->opnd[n].reg] : c->gpr[in->opnd[n].reg];
    return X_OK;
}

uint64_t cpu_rflags(struct cpu *c)
{
    return c->rflags | 2;
}

void cpu_set_rflags(struct cpu *c, uint64_t v, uint64_t mask)
{
    c->rflags = (c->rflags & ~mask) | (v & mask);
}

/* ---- one case on both sides ---- */

static void regs_to_cpu(const struct regs *r, struct cpu *c)
{
    memcpy(c->gpr, r->gpr, sizeof(c->gpr));
    c->rflags = r->rflags & FL_ARITH;
    c->x87.cw = get_le16(r->fx);
    c->x87.sw = get_le16(r->fx + 2);
    c->x87.tag = r->fx[4];
    for (unsigned i = 0; i < 8; i++) {
        memcpy(&c->x87.st[(i + (c->x87.sw >> 11)) & 7], r->fx + FX_ST(i), 10);
    }
    for (unsigned i = 0; i < 16; i++) {
        memset(&c->xmm[i], 0x5a, sizeof(c->xmm[i]));
        memcpy(&c->xmm[i], r->fx + FX_XMM(i), 16);
    }
    c->mxcsr = get_le32(r->fx + 24);
}

static void cpu_to_regs(const struct cpu *c, struct regs *r)
{
    memcpy(r->gpr, c->gpr, sizeof(c->gpr));
    r->rflags = c->rflags & FL_ARITH;
    memset(r->fx, 0, sizeof(r->fx));
    put_le16(r->fx, c->x87.cw);
    put_le16(r->fx + 2, c->x87.sw);
    r->fx[4] = c->x87.tag;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(r->fx + FX_ST(i), &c->x87.st[(i + (c->x87.sw >> 11)) & 7], 10);
    }
    for (unsigned i = 0; i < 16; i++) {
        memcpy(r->fx + FX_XMM(i), &c->xmm[i], 16);
    }
    put_le32(r->fx + 24, c->mxcsr);
}

static void dump(const char *what, const struct regs *r)
{
    printf("%s: vector %u rflags %llx mxcsr %x cw %x sw %x tag %x\n", what, r->vector,
           (unsigned long long)r->rflags, get_le32(r->fx + 24), get_le16(r->fx), get_le16(r->fx + 2), r->fx[4]);
    for (unsigned i = 0; i < 16; i++) {
        printf("  r%-2u %016llx  x%-2u %016llx%016llx", i, (unsigned long long)r->gpr[i], i,
               (unsigned long long)get_le64(r->fx + FX_XMM(i) + 8), (unsigned long long)get_le64(r->fx + FX_XMM(i)));
        if (i < 8) {
            printf("  st%u %04x.%016llx", i, get_le16(r->fx + FX_ST(i) + 8),
                   (unsigned long long)get_le64(r->fx + FX_ST(i)));
        }
        printf("\n");
    }
}

static void dump_bytes(const char *what, const uint8_t *p)
{
    printf("%s:", what);
    for (unsigned i = 0; i < 32; i++) {
        printf(" %02x", p[i]);
    }
    printf("\n");
}

/* What of the results to leave out. */
struct mask {
    uint16_t sw;
    const uint8_t *mem;                    /* mem[i]: bits of memory byte i not compared */
    unsigned mem_len;
    bool trap_pe;                          /* fp_trap(): PE beside an unmasked overflow or underflow */
};

#define WINDOW 576u      /* bytes of memory at [addr - 32] that are compared */

static unsigned differences;

/*
 * Runs code on both sides from r, memory operand at addr. The first difference of an operation prints
 * everything there is to know; all are counted.
 */
static void compare(const uint8_t *code, const struct x86_insn *in, const struct regs *r, uint8_t *addr,
                    const struct mask *m)
{
    static struct regs native, engine;
    static uint8_t before[WINDOW], mem_native[WINDOW], mem_engine[WINDOW];
    uint64_t case_seed = seed;
    uint8_t *win = addr - 32 < data ? data : addr - 32;
    bool ram = win + WINDOW <= data + 2 * 4096;

    native = *r;
    if (ram) {
        memcpy(before, win, WINDOW);
    }
    native_run(code, in->len, &native);
    if (ram) {
        memcpy(mem_native, win, WINDOW);
        memcpy(win, before, WINDOW);
    }
    memset(native.fx + 6, 0, 18);              /* FOP, FIP, FDP */
    memset(native.fx + 28, 0, 4);
    for (unsigned i = 0; i < 8; i++) {
        memset(native.fx + FX_ST(i) + 10, 0, 6);
    }
    memset(native.fx + 416, 0, 96);

    regs_to_cpu(r, cpu);
    cpu->rip = (uintptr_t)code_page;
    cpu->next_rip = cpu->rip + in->len;
    cpu->exc.vector = 0xff;
    int rc = cpu_fpu_ops[in->op].fn(cpu, in);
    cpu_to_regs(cpu, &engine);
    engine.vector = rc == X_OK ? DONE : cpu->exc.vector;
    if (ram) {
        memcpy(mem_engine, win, WINDOW);
        memcpy(win, before, WINDOW);
        for (unsigned i = 0; m && m->mem && i < m->mem_len; i++) {
            mem_native[addr - win + i] &= (uint8_t)~m->mem[i];
            mem_engine[addr - win + i] &= (uint8_t)~m->mem[i];
        }
    }
    bool upper_kept = true;
    for (unsigned i = 0; i < 16; i++) {
        upper_kept &= cpu->xmm[i].u64[2] == 0x5a5a5a5a5a5a5a5aull;
    }
    if (m) {
        put_le16(native.fx + 2, get_le16(native.fx + 2) & (uint16_t)~m->sw);
        put_le16(engine.fx + 2, get_le16(engine.fx + 2) & (uint16_t)~m->sw);
    }
    uint32_t raised = get_le32(native.fx + 24);
    if (m && m->trap_pe && native.vector == VEC_XM && raised & ~(raised >> 7) & 0x18) {
        native.fx[24] |= 0x20;
        engine.fx[24] |= 0x20;
    }
    if (memcmp(&native, &engine, sizeof(native)) == 0 && upper_kept &&
        (!ram || memcmp(mem_native, mem_engine, WINDOW) == 0)) {
        return;
    }
    static bool told[X86_OP_COUNT];
    char text[96];
    differences++;
    if (told[in->op]) {
        return;
    }
    told[in->op] = true;
    printf("seed %#llx: %s:", (unsigned long long)case_seed, x86_format(in, 0, text, sizeof(text)));
    for (unsigned i = 0; i < in->len; i++) {
        printf(" %02x", code[i]);
    }
    printf("\n");
    dump("before", r);
    dump("native", &native);
    dump("engine", &engine);
    if (ram) {
        dump_bytes("memory before", before + (addr - win));
        dump_bytes("memory native", mem_native + (addr - win));
        dump_bytes("memory engine", mem_engine + (addr - win));
    }
}

/* ---- operands ---- */

static uint32_t rnd_f32(void)
{
    static const uint32_t t[] = {
        0, 0x80000000, 1, 0x80000001, 0x007fffff, 0x00800000, 0x80800000, 0x7f7fffff, 0xff7fffff, 0x7f800000,
        0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xffa12345, 0x3f800000, 0xbf800000, 0x40000000, 0x3f000000,
        0x4effffff, 0x4f000000, 0xcf000000, 0x5f000000, 0x4b000001, 0x3fc00000, 0x33800000, 0x00400000,
    };
    switch (rnd() % 4) {
    case 0: return t[rnd() % ARRAY_SIZE(t)];
    case 1: return (uint32_t)(rnd() & 0x807fffff) | (uint32_t)(120 + rnd() % 16) << 23;
    case 2: return (uint32_t)(rnd() & 0x80700000) | (uint32_t)(125 + rnd() % 8) << 23;
    default: return (uint32_t)rnd();
    }
}

static uint64_t rnd_f64(void)
{
    static const uint64_t t[] = {
        0, 0x8000000000000000, 1, 0x8000000000000001, 0x000fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff,
        0xffefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000000,
        0x7ff0000000000001, 0xfff4000000000123, 0x3ff0000000000000, 0xbff0000000000000, 0x3fe0000000000000,
        0x41dfffffffc00000, 0x41e0000000000000, 0xc1e0000000200000, 0x43e0000000000000, 0xc3e0000000000000,
        0x3ff8000000000000, 0x47efffffe0000000, 0x47f0000000000000, 0x3810000000000000, 0x3690000000000000,
        0x3800000000000000, 0x0008000000000000,
    };
    switch (rnd() % 4) {
    case 0: return t[rnd() % ARRAY_SIZE(t)];
    case 1: return (rnd() & 0x800fffffffffffff) | (uint64_t)(1010 + rnd() % 30) << 52;
    case 2: return (rnd() & 0x800f000000000000) | (uint64_t)(1020 + rnd() % 8) << 52;
    default: return rnd();
    }
}

/* Ten bytes: normal numbers, all the special ones, and encodings that only hostile software makes. */
static void rnd_f80(uint8_t *p)
{
    static const struct { uint64_t m; uint16_t e; } t[] = {
        { 0, 0 }, { 0, 0x8000 }, { 1, 0 }, { 0x7fffffffffffffff, 0 }, { 0x8000000000000000, 0 },
        { 0x8000000000000000, 1 }, { 0xffffffffffffffff, 0x7ffe }, { 0x8000000000000000, 0x7fff },
        { 0x8000000000000000, 0xffff }, { 0xc000000000000000, 0x7fff }, { 0xc000000000000000, 0xffff },
        { 0x8000000000000001, 0x7fff }, { 0, 0x7fff }, { 0x4000000000000000, 0x7fff }, { 0x4000000000000000, 0x4000 },
        { 0, 0x4000 }, { 0x8000000000000000, 0x3fff }, { 0x8000000000000000, 0xbfff }, { 0x8000000000000000, 0x3ffe },
        { 0xc90fdaa22168c235, 0x4000 }, { 0x8000000000000000, 0x403e }, { 0xffffffffffffffff, 0x403d },
        { 0x8000000000000000, 0xc01e }, { 0x8000000000000000, 0x3f81 }, { 0x8000000000000000, 0x3c01 },
    };
    uint64_t m = rnd() | 1ull << 63;
    uint16_t e = (uint16_t)((rnd() & 0x8000) | (0x3ff0 + rnd() % 32));
    switch (rnd() % 5) {
    case 0: {
        size_t i = rnd() % ARRAY_SIZE(t);
        m = t[i].m;
        e = t[i].e;
        break;
    }
    case 1: m &= 0xff00000000000000; e = (uint16_t)((rnd() & 0x8000) | (0x3ffc + rnd() % 10)); break;
    case 2: e = (uint16_t)rnd(); break;
    case 3: m = rnd(); e = (uint16_t)rnd(); break;
    default: break;
    }
    put_le64(p, m);
    put_le16(p + 8, e);
}

static void rnd_vec(uint8_t *p)
{
    switch (rnd() % 4) {
    case 0:
        for (unsigned i = 0; i < 4; i++) {
            put_le32(p + 4 * i, rnd_f32());
        }
        break;
    case 1:
        put_le64(p, rnd_f64());
        put_le64(p + 8, rnd_f64());
        break;
    case 2:                                 /* text with repeats and zeros, small counts */
        for (unsigned i = 0; i < 16; i++) {
            p[i] = one_in(12) ? 0 : (uint8_t)("abcab\200\377\1"[rnd() & 7]);
        }
        break;
    default:
        put_le64(p, one_in(3) ? rnd() % 80 : rnd());
        put_le64(p + 8, rnd());
        break;
    }
}

static uint32_t rnd_mxcsr(void)
{
    uint32_t v = 0x1f80;
    switch (rnd() % 6) {
    case 0: return v;
    case 1: v |= (uint32_t)rnd() & 0x3f; break;
    case 2: v = (uint32_t)rnd() & 0xffc0; break;            /* anything masked or not, no flags yet */
    default: v = (v & ~0x6000u) | ((uint32_t)rnd() & 0xe040); break;
    }
    /* A flag whose exception is unmasked may be set: it does not trap by itself. */
    return one_in(8) ? v | ((uint32_t)rnd() & 0x3f) : v;
}

static void rnd_regs(struct regs *r)
{
    memset(r, 0, sizeof(*r));
    for (unsigned i = 0; i < 16; i++) {
        r->gpr[i] = one_in(3) ? rnd() % 40 : one_in(3) ? rnd_f64() : rnd();
        rnd_vec(r->fx + FX_XMM(i));
    }
    r->rflags = rnd() & FL_ARITH;
    put_le16(r->fx, 0x37f);
    r->fx[4] = (uint8_t)rnd();
    for (unsigned i = 0; i < 8; i++) {
        if (one_in(2)) {
            rnd_f80(r->fx + FX_ST(i));
        } else {                            /* as MMX */
            rnd_vec(r->fx + FX_ST(i));
            memset(r->fx + FX_ST(i) + 8, 0xff, 2);
            memset(r->fx + FX_ST(i) + 10, 0, 6);
        }
    }
    put_le32(r->fx + 24, rnd_mxcsr());
}

/* Somewhere in the pages for a memory operand: mostly aligned RAM; also across pages, read-only, absent. */
HV_UNUSED static uint8_t *rnd_addr(void)
{
    uint8_t *p = data + 64 + rnd() % 64 * 16;
    switch (rnd() % 24) {
    case 0: return p + rnd() % 16;
    case 1: return data + 4096 - rnd() % 20;
    case 2: return data + 4096 + 64 + rnd() % 64 * 16;
    case 3: return data + 2 * 4096 + rnd() % 64 * 16;
    case 4: return data + 3 * 4096 + rnd() % 64 * 16;
    case 5: return data + 2 * 4096 - rnd() % 16;
    case 6: return data + 3 * 4096 - rnd() % 16;
    default: return p;
    }
}

#endif
