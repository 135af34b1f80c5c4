/*
 * The translator against the interpreter: the same random code, from the same registers, flags and
 * memory, in two machines, one of which translates every block at its first run and one of
 * which never does. Afterwards everything a guest could see is the same, and the instruction
 * counts are. What the interpreter does is held against the host CPU by test_interp.c and
 * test_sse.c. Then: what the code memory may be, and how large.
 *
 *     page 0, 1  code (it may cross, and is written to)   2, 3  data   4  not present   5  read-only
 *     6  MMIO    7  stack     8  not present              all user pages from WINDOW on; 16 is page 0 again
 */
#include "hv/engine/soft/intops.h"
#include "hv/engine/soft/lockstep.h"
#include "hv/engine/soft/translate.h"
#include "soft_vm.h"

#include <signal.h>
#include <sys/wait.h>
#include <sys/time.h>

#define WINDOW 0x400000ull
#define WINDOW_GPA 0x100000ull
#define PAGES 9
#define STUBS 0x40000
#define STACK_TOP (WINDOW + 7 * 4096 + 2048)
#define IST_TOP 0x88000

static struct test_vm vm[2];           /* interpreter, translator */
static uint64_t seed;
static bool kernel;                    /* at CPL 0, with what only runs there */

static uint64_t rnd(void)              /* splitmix64 */
{
    uint64_t z = seed += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
static bool one_in(unsigned n) { return rnd() % n == 0; }

static void open_one(struct test_vm *v, const char *translate)
{
    setenv("HV_SOFT_TRANSLATE", translate, 1);
    vm_open(v, 1);
    vm_tables64(v);
    for (unsigned n = 0; n < 4 * 512; n++)
        vm_put64(v, PML4_GPA + 0x2000 + 8 * n, 0);
    /* The machine's own, supervisor only, and read-only but for the stack of exceptions. */
    vm_put64(v, PML4_GPA + 0x2000, 0x21000 | 3);
    for (unsigned i = 0; i < 512; i++)
        vm_put64(v, 0x21000 + 8 * i, (uint64_t)i << 12 | (i == (IST_TOP >> 12) - 1 ? 3 : 1));
    vm_put64(v, PML4_GPA + 0x2000 + 8 * (WINDOW >> 21), 0x20000 | 7);
    for (unsigned i = 0; i < 512; i++)
        vm_put64(v, 0x20000 + 8 * i, i < PAGES && i != 4 && i != 8 ? (WINDOW_GPA + i * 4096) | 7 : 0);
    vm_put64(v, 0x20000 + 8 * 5, (WINDOW_GPA + 5 * 4096) | 5);
    vm_put64(v, 0x20000 + 8 * 6, MMIO_GPA | 7);
    vm_put64(v, 0x20000 + 8 * 16, WINDOW_GPA | 7);       /* page 0 once more */
    memset(v->ram + STUBS, 0xf4, 256);
    for (unsigned i = 0; i < 32; i++)
        vm_gate64(v, i, STUBS + i, 14, 3, 1);
    vm_start64(v, 0, WINDOW, STACK_TOP);
    struct vcpu *p = v->g->ops->vcpu(v->g, 0);
    struct vcpu_regs r;
    v->g->ops->get_regs(p, &r);
    for (unsigned i = 0; i < 6; i++)
        r.seg[i] = vm_seg(SEL_UDATA | 3, 0, UINT32_MAX, 0xc0f3);
    r.seg[X86_SEG_FS].base = WINDOW + 2 * 4096;
    r.seg[X86_SEG_CS] = vm_seg(SEL_UCODE64 | 3, 0, UINT32_MAX, 0xa0fb);
    assert_int_equal(v->g->ops->set_regs(p, &r), 0);
}

static int setup(void **state)
{
    const char *before = getenv("HV_SOFT_TRANSLATE");
    char *keep = before ? strdup(before) : NULL;
    open_one(&vm[0], "off");
    open_one(&vm[1], "0");
    if (keep)
        setenv("HV_SOFT_TRANSLATE", keep, 1);
    else
        unsetenv("HV_SOFT_TRANSLATE");
    free(keep);
    return 0;
}

static int teardown(void **state)
{
    vm_close(&vm[0]);
    vm_close(&vm[1]);
    return 0;
}

/* ---- one case in both machines ---- */

static unsigned cases, faults, endless;

/*
 * Code that overwrites itself may never end: such a case is stopped after some ticks, and left out.
 * The signals also land in translated code, where the stack pointer is none.
 */
static void on_tick(int sig)
{
    static unsigned last, same;
    same = cases == last ? same + 1 : 0;
    last = cases;
    if (same < 20)
        return;
    same = 0;
    for (unsigned i = 0; i < 2; i++)
        atomic_fetch_or(&vm_cpu(&vm[i], 0)->attention, ATT_KICK);
}

static void ticks(bool on)
{
    const struct sigaction sa = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
    const struct itimerval t = { { 0, on ? 10000 : 0 }, { 0, on ? 10000 : 0 } };
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &t, NULL);
}

struct start { uint64_t gpr[16], rflags, rip; uint32_t mxcsr; int32_t budget; struct x87 x87; union vec xmm[16]; };

static bool run(struct test_vm *v, const struct start *s, uint64_t *ret_insns)
{
    struct cpu *c = vm_cpu(v, 0);
    struct vcpu *p = v->g->ops->vcpu(v->g, 0);
    c->seg[X86_SEG_CS] = (struct seg){ 0, UINT32_MAX, 0xa0fb, SEL_UCODE64 | 3 };
    c->seg[X86_SEG_SS] = (struct seg){ 0, UINT32_MAX, 0xc0f3, SEL_UDATA | 3 };
    if (kernel) {
        c->seg[X86_SEG_CS] = (struct seg){ 0, UINT32_MAX, 0xa09b, SEL_CODE64 };
        c->seg[X86_SEG_SS] = (struct seg){ 0, UINT32_MAX, 0xc093, SEL_DATA };
    }
    c->seg[X86_SEG_GS].base = WINDOW + 3 * 4096;
    c->kernel_gs_base = WINDOW + 2 * 4096;
    c->cpl = kernel ? 0 : 3;
    c->halted = false;
    c->shadow = 0;
    c->cr2 = 0;
    c->mxcsr = s->mxcsr;
    fpu_reset(c, false);
    c->x87 = s->x87;
    c->mxcsr = s->mxcsr;
    cpu_set_rflags(c, s->rflags | FL_IF, UINT64_MAX);
    cpu_update_mode(c);
    memcpy(c->gpr, s->gpr, sizeof(c->gpr));
    for (unsigned i = 0; i < 16; i++)
        c->xmm[i] = s->xmm[i];
    c->rip = s->rip;
    c->budget = s->budget;
    uint64_t before = c->insns;
    soft_enter_guest(p);
    enum leave_reason why = cpu_loop(c);
    soft_leave_guest(p);
    *ret_insns = c->insns - before;
    atomic_fetch_and(&c->attention, ~(uint32_t)ATT_KICK);
    return why == LEAVE_HALT;
}

static void print_code(uint64_t va, const uint8_t *code, unsigned len)
{
    for (unsigned i = 0; i < len;) {
        struct x86_insn in;
        char text[96];
        if (x86_decode(code + i, MIN(len - i, 15u), X86_MODE_64, &in))
            break;
        printf("  %llx: %-44s", (unsigned long long)(va + i), x86_format(&in, va + i, text, sizeof(text)));
        for (unsigned k = 0; k < in.len; k++)
            printf("%02x", code[i + k]);
        printf("\n");
        i += in.len;
    }
}

static void print_state(const char *what, struct cpu *c, uint64_t insns)
{
    printf("%s: rip %llx rflags %llx cr2 %llx mxcsr %x insns %llu", what, (unsigned long long)c->rip,
           (unsigned long long)cpu_rflags(c), (unsigned long long)c->cr2, c->mxcsr, (unsigned long long)insns);
    for (unsigned i = 0; i < 16; i++)
        printf("%s%016llx", i % 4 ? " " : "\n    ", (unsigned long long)c->gpr[i]);
    for (unsigned i = 0; i < 16; i++)
        printf("%s%016llx%016llx", i % 2 ? " " : "\n    ", (unsigned long long)c->xmm[i].u64[1],
               (unsigned long long)c->xmm[i].u64[0]);
    printf("\n    cw %x sw %x tag %x fip %llx fcs %x fop %x", c->x87.cw, c->x87.sw, c->x87.tag, (unsigned long long)c->x87.fip,
           c->x87.fcs, c->x87.fop);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t m, e = 0;
        memcpy(&m, &c->x87.st[i], 8);
        memcpy(&e, (const char *)&c->x87.st[i] + 8, 2);
        printf("%s%04llx %016llx", i % 4 ? "  " : "\n    ", (unsigned long long)e, (unsigned long long)m);
    }
    printf("\n");
}

/* Guest memory of the window and of the frame of an exception. */
static int differ_at(uint64_t *ret)
{
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *a = i == 0 ? vm[0].ram + WINDOW_GPA : i == 1 ? vm[0].ram + IST_TOP - 64 : vm[0].mmio;
        const uint8_t *b = i == 0 ? vm[1].ram + WINDOW_GPA : i == 1 ? vm[1].ram + IST_TOP - 64 : vm[1].mmio;
        size_t len = i == 0 ? PAGES * 4096 : i == 1 ? 64 : sizeof(vm[0].mmio);
        for (size_t k = 0; k < len; k++) {
            if (a[k] != b[k]) {
                *ret = (i == 0 ? WINDOW : i == 1 ? IST_TOP - 64 : MMIO_GPA) + k;
                return 1;
            }
        }
    }
    return 0;
}

/* Of a register, ten bytes. */
static bool same_x87(const struct x87 *a, const struct x87 *b)
{
    bool same = a->cw == b->cw && a->sw == b->sw && a->tag == b->tag && a->fop == b->fop && a->fip == b->fip &&
                a->fdp == b->fdp && a->fcs == b->fcs && a->fds == b->fds;
    for (unsigned i = 0; i < 8; i++)
        same = same && memcmp(&a->st[i], &b->st[i], 10) == 0;
    return same;
}

static void compare(const uint8_t *code, unsigned len, uint64_t va, const struct start *s)
{
    static uint8_t window[PAGES * 4096];
    uint64_t insns[2], at = 0;
    for (unsigned i = 0; i < sizeof(window); i += 8) {
        uint64_t v = rnd();
        memcpy(window + i, &v, 8);
    }
    memcpy(window + (va - WINDOW), code, len);
    for (unsigned i = 0; i < 2; i++) {
        memcpy(vm[i].ram + WINDOW_GPA, window, sizeof(window));
        memset(vm[i].mmio, 0x5a, sizeof(vm[i].mmio));
        memset(vm[i].ram + IST_TOP - 64, 0, 64);
        block_drop(vm_cpu(&vm[i], 0), WINDOW_GPA, PAGES * 4096);
        if (!run(&vm[i], s, &insns[i])) {
            endless++;
            return;
        }
    }
    struct cpu *a = vm_cpu(&vm[0], 0), *b = vm_cpu(&vm[1], 0);
    bool same = memcmp(a->gpr, b->gpr, sizeof(a->gpr)) == 0 && a->rip == b->rip && cpu_rflags(a) == cpu_rflags(b) &&
                a->cr2 == b->cr2 && a->mxcsr == b->mxcsr && insns[0] == insns[1] && a->cpl == b->cpl &&
                a->seg[X86_SEG_GS].base == b->seg[X86_SEG_GS].base && a->kernel_gs_base == b->kernel_gs_base &&
                a->shadow == b->shadow && same_x87(&a->x87, &b->x87);
    for (unsigned i = 0; i < 16; i++)
        same = same && memcmp(&a->xmm[i], &b->xmm[i], 16) == 0;
    cases++;
    faults += a->rip > STUBS && a->rip <= STUBS + 32;
    if (same && !differ_at(&at))
        return;
    printf("case %u\n", cases);
    print_code(va, code, len);
    print_state("interpreter", a, insns[0]);
    print_state("translator", b, insns[1]);
    if (differ_at(&at))
        printf("memory differs at %llx\n", (unsigned long long)at);
    fail();
}

/* ---- random code ---- */

/* Not to be executed here: what jumps away, waits, or tells the time. */
static bool excluded(const struct x86_insn *in)
{
    switch (in->op) {
    case X86_OP_JMP: case X86_OP_JCC: case X86_OP_CALL: case X86_OP_RET: case X86_OP_JMP_IND: case X86_OP_CALL_IND:
    case X86_OP_LOOP: case X86_OP_LOOPE: case X86_OP_LOOPNE: case X86_OP_JCXZ: case X86_OP_POPF: case X86_OP_STI:
    case X86_OP_CLI: case X86_OP_STD:
        return true;
    default:
        return false;
    }
}

static bool known(const struct x86_insn *in)
{
    if (excluded(in) || in->op == X86_OP_LEAVE || in->op == X86_OP_ENTER)
        return false;
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == X86_OPND_GPR && (in->opnd[i].reg == R_RBP || in->opnd[i].reg == R_RSP))
            return false;          /* the loop's counter, and the stack */
    }
    if ((in->op == X86_OP_PUSH || in->op == X86_OP_POP) && in->opnd[0].kind == X86_OPND_SEG)
        return false;
    return int_op_find(in->op) || cpu_fpu_ops[in->op].fn;
}

enum flavour { INTEGER, VECTOR, X87 };

static uint64_t pointer(void)
{
    static const uint16_t near[] = { 0x1800, 0x2000, 0x2ff8, 0x3000, 0x3ff0, 0x2800, 0x2800, 0x3800, 0x4ff8, 0x5000,
                                     0x5ff8, 0x6000, 0x6010, 0x7400, 0x0100 };
    uint64_t at = WINDOW + near[rnd() % ARRAY_SIZE(near)];
    return one_in(3) ? at + rnd() % 64 : at + rnd() % 4 * 16;
}

/* A random instruction, to be at va; its length. */
static unsigned random_insn(uint8_t code[16], uint64_t va, enum flavour flavour)
{
    const bool vector = flavour == VECTOR, x87 = flavour == X87;
    for (;;) {
        unsigned n = 0;
        struct x86_insn in;
        if (one_in(40))
            code[n++] = 0x64;
        if (one_in(60))
            code[n++] = 0x67;
        if (one_in(40))
            code[n++] = 0xf0;
        static const uint8_t mandatory[] = { 0x66, 0xf2, 0xf3 };
        if (one_in(vector ? 2 : 6))
            code[n++] = mandatory[rnd() % 3];
        if (one_in(2))
            code[n++] = 0x40 | (rnd() & 0xf);
        if (!x87 && (vector || one_in(4))) {
            code[n++] = 0x0f;
            if (vector && one_in(4))
                code[n++] = one_in(2) ? 0x38 : 0x3a;
        }
        const bool rotate = !vector && !x87 && one_in(12);       /* ROL or ROR of a register, which keep flags */
        code[n++] = (uint8_t)(x87 ? (one_in(16) ? 0x9b : 0xd8 | (rnd() & 7)) : rotate ? 0xc1 : rnd());
        unsigned modrm = rnd() & 0xff;
        if (rotate)
            modrm = 0xc0 | (modrm & 0x0f);
        else if (one_in(2))
            modrm |= 0xc0;
        else if (one_in(6))            /* [rip + disp32] */
            modrm = (modrm & 0x38) | 5;
        else if (!one_in(20))          /* [rsi + disp8] and its like */
            modrm = (modrm & 0x38) | 0x40 | (one_in(3) ? 4 : 6 + rnd() % 2);
        code[n++] = (uint8_t)modrm;
        for (unsigned i = n; i < 16; i++)
            code[i] = (uint8_t)rnd();
        if ((modrm & 0xc7) == 0x44)
            code[n] = (uint8_t)((rnd() & 0xc0) | 1 << 3 | (6 + rnd() % 2));         /* index RCX */
        if (x86_decode(code, 16, X86_MODE_64, &in) != 0 || !known(&in))
            continue;
        if (in.base == X86_REG_RIP) {
            const uint32_t disp = (uint32_t)(pointer() - (va + in.len));
            memcpy(code + n, &disp, sizeof(disp));
            if (x86_decode(code, 16, X86_MODE_64, &in) != 0 || !known(&in))
                continue;
        }
        return in.len;
    }
}

static void random_start(struct start *s)
{
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = one_in(3) ? pointer() : rnd() >> (rnd() & 63);
    s->gpr[R_RCX] = one_in(4) ? rnd() : rnd() % 40;
    s->gpr[R_RSI] = pointer();
    s->gpr[R_RDI] = pointer();
    s->gpr[14] = pointer();
    s->gpr[15] = pointer();
    s->gpr[R_RSP] = STACK_TOP;
    s->gpr[R_RBP] = 1 + rnd() % 4;
    s->rflags = (rnd() & FL_ARITH) | 2;
    s->budget = one_in(2) ? 16384 : 1 + (int32_t)(rnd() % 40);       /* the loop looks around somewhere in it */
    s->mxcsr = one_in(4) ? (uint32_t)rnd() & 0xffff : 0x1f80 | (one_in(4) ? (uint32_t)rnd() & 0xe03f : 0);
    /* Mostly with all exceptions masked, and some registers in use; or as after FNINIT. */
    memset(&s->x87, 0, sizeof(s->x87));
    s->x87.cw = one_in(5) ? (uint16_t)(rnd() & 0x1f3f) | 0x40 : (uint16_t)((rnd() & 0x1f00) | 0x7f);
    s->x87.sw = (uint16_t)(rnd() & 0x7f7f);
    s->x87.sw |= s->x87.sw & ~s->x87.cw & 0x3f ? 0x8080 : 0;
    s->x87.tag = (uint8_t)(one_in(3) ? rnd() : rnd() | rnd());
    s->x87.fip = rnd();
    s->x87.fcs = (uint16_t)rnd();
    if (one_in(3)) {
        s->x87.cw = 0x37f;
        s->x87.sw = s->x87.tag = 0;
    }
    for (unsigned i = 0; i < 8; i++) {
        static const uint16_t exponent[] = { 0, 1, 0x3ffe, 0x3fff, 0x4000, 0x4005, 0x403e, 0x7ffe, 0x7fff, 0xbfff };
        uint64_t m = one_in(4) ? rnd() : rnd() | 1ull << 63;
        uint16_t e = one_in(4) ? (uint16_t)rnd() : exponent[rnd() % ARRAY_SIZE(exponent)];
        memcpy(&s->x87.st[i], &m, 8);
        memcpy((char *)&s->x87.st[i] + 8, &e, 2);
    }
    for (unsigned i = 0; i < 16; i++) {
        for (unsigned k = 0; k < 8; k++)
            s->xmm[i].u64[k] = k < 2 ? rnd() : 0;
        if (one_in(2))                 /* small numbers as floats and doubles */
            s->xmm[i].f64[0] = (double)(int32_t)rnd() / 16;
        if (one_in(3))
            s->xmm[i].f32[2] = (float)(int16_t)rnd();
    }
}

/*
 * `count` instructions from va on with jumps between them, and around them a loop over RBP. Shapes: direct jumps forward,
 * calls and returns, indirect jumps; the loop is the block itself or several.
 */
static unsigned random_code(uint8_t *code, uint64_t va, unsigned count, enum flavour flavour)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++) {
        uint8_t insn[16], *over = NULL;
        static const struct { uint8_t len, byte[4]; } special[] = {
            { 1, { 0xfa } }, { 1, { 0xfb } }, { 3, { 0x0f, 0x01, 0xf8 } }, { 2, { 0x9c, 0x58 } }, { 1, { 0x9c } },
            { 2, { 0x8c, 0xd1 } }, { 3, { 0x48, 0x8c, 0xc8 } }, { 1, { 0xfc } },   /* CLI STI SWAPGS PUSHF MOV r, sreg CLD */
        };
        unsigned k = (unsigned)(rnd() % ARRAY_SIZE(special));
        switch (rnd() % 12) {
        case 4: case 5: case 6:
            if (!kernel)
                break;
            memcpy(code + n, special[k].byte, special[k].len);
            n += special[k].len;
            break;
        case 0:                        /* jcc over it */
            code[n++] = (uint8_t)(0x70 | (rnd() & 15));
            over = &code[n++];
            break;
        case 1:                        /* call to it, its return address dropped */
            memcpy(code + n, "\xe8\0\0\0\0\x48\x8d\x64\x24\x08", 10);
            n += 10;
            break;
        case 2:                        /* call over a jump, and return: call f; jmp on; f: ret; on: */
            memcpy(code + n, "\xe8\x02\0\0\0\xeb\x01\xc3", 8);
            n += 8;
            break;
        case 3:                        /* lea rax, [rip + 2]; jmp rax; or call and drop */
            memcpy(code + n, "\x48\x8d\x05\x02\0\0\0\xff\xe0", 9);
            n += 9;
            break;
        }
        const unsigned len = random_insn(insn, va + n, one_in(4) ? (enum flavour)(rnd() % 3) : flavour);
        memcpy(code + n, insn, len);
        n += len;
        if (over)
            *over = (uint8_t)len;
    }
    /* ebp--, in ways that leave all kinds of flags; jnz start; hlt, which is #GP for users and the end for kernels */
    static const struct { uint8_t len, byte[8]; } count_down[] = {
        { 2, { 0xff, 0xcd } }, { 3, { 0x83, 0xed, 1 } }, { 3, { 0x83, 0xc5, 0xff } }, { 4, { 0xff, 0xcd, 0x85, 0xed } },
        { 7, { 0xf7, 0xdd, 0x83, 0xc5, 1, 0xf7, 0xdd } }, { 4, { 0x31, 0xdb, 0xff, 0xcd } }, { 5, { 0x66, 0xff, 0xcd, 9, 0xed } },
        { 6, { 0x83, 0xcb, 1, 0x83, 0xed, 1 } }, { 5, { 0xff, 0xcd, 0x83, 0xfd, 0 } }, { 6, { 0x83, 0xf6, 5, 0x40, 0xfe, 0xcd } },
    };
    const unsigned way = (unsigned)(rnd() % ARRAY_SIZE(count_down));
    memcpy(code + n, count_down[way].byte, count_down[way].len);
    n += count_down[way].len;
    code[n++] = 0x0f;
    code[n++] = 0x85;
    int32_t back = -(int32_t)(n + 4);
    memcpy(code + n, &back, 4);
    n += 4;
    code[n++] = 0xf4;
    return n;
}

static void many(unsigned rounds, unsigned max, enum flavour flavour)
{
    const char *more = getenv("HV_SEED");
    seed = max * 4u + flavour + (kernel ? 1000 : 0) + (more ? strtoull(more, NULL, 0) * 0x100000000000000ull : 0);
    cases = faults = endless = 0;
    ticks(true);
    for (unsigned i = 0; i < rounds; i++) {
        uint8_t code[1024];
        struct start s;
        const unsigned count = 1 + (unsigned)(rnd() % max);
        const uint64_t va = one_in(4) ? WINDOW + 4096 - rnd() % (8 * count + 16) : WINDOW + rnd() % 2048;
        unsigned len = random_code(code, va, count, flavour);
        random_start(&s);
        s.rip = va;
        compare(code, len, va, &s);
    }
    ticks(false);
    assert_true(faults > 0);
    assert_true(endless < rounds / 100);
    printf("%u cases, %u endless, %llu blocks translated\n", cases, endless, (unsigned long long)vm_cpu(&vm[1], 0)->code->translated);
}

static void single_instructions(void **state) { many(20000, 1, INTEGER); }
static void vector_instructions(void **state) { many(30000, 2, VECTOR); }
static void x87_instructions(void **state) { many(20000, 2, X87); }
static void sequences(void **state) { many(12000, 24, INTEGER); }
static void vector_sequences(void **state) { many(12000, 16, VECTOR); }
static void x87_sequences(void **state) { many(12000, 16, X87); }

static void kernel_sequences(void **state)
{
    kernel = true;
    many(12000, 16, INTEGER);
    kernel = false;
}

/* ---- lock-step: the interpreter beside the translator in one machine ---- */

/* Stores, a fault, x87 and SSE, a store into code, MMIO: nothing differs. Then one byte of translated code is changed. */
static void lock_step_finds_a_wrong_byte(void **state)
{
    static struct test_vm v;
    struct start s;
    uint64_t insns;
    char *before = getenv("HV_SOFT_TRANSLATE"), *keep = before ? strdup(before) : NULL;
    open_one(&v, "lockstep");
    keep ? setenv("HV_SOFT_TRANSLATE", keep, 1) : unsetenv("HV_SOFT_TRANSLATE");
    free(keep);
    struct cpu *c = vm_cpu(&v, 0);
    seed = 7;
    for (unsigned i = 0; i < 2000; i++) {
        uint8_t code[1024];
        const uint64_t va = WINDOW + rnd() % 2048;
        unsigned len = random_code(code, va, 1 + (unsigned)(rnd() % 16), (enum flavour)(rnd() % 3));
        random_start(&s);
        s.rip = va;
        memcpy(v.ram + WINDOW_GPA + (s.rip - WINDOW), code, len);
        block_drop(c, WINDOW_GPA, PAGES * 4096);
        s.gpr[R_RBP] = 1;
        run(&v, &s, &insns);
    }
    printf("%llu runs in lock-step\n", (unsigned long long)lockstep_count(c));
    assert_true(lockstep_count(c) > 2000);

    random_start(&s);
    s.rip = WINDOW;
    memcpy(v.ram + WINDOW_GPA, "\xb8\x44\x33\x22\x11\x89\xc3\xeb\0\xf4", 10);      /* mov eax, 0x11223344; mov ebx, eax; jmp on; on: hlt */
    block_drop(c, WINDOW_GPA, PAGES * 4096);
    assert_true(run(&v, &s, &insns));
    assert_int_equal(c->gpr[R_RBX], 0x11223344);
    struct block *b = c->jump[block_jump_slot(WINDOW)].b;
    assert_true(b->vrip == WINDOW && b->code != c->code->interpret);
    uint8_t *at = memmem(b->code, 64, "\x44\x33\x22\x11", 4), *page = (uint8_t *)((uintptr_t)at & HV_PAGE_MASK);
    assert_non_null(at);
    pid_t child = fork();
    if (child == 0) {
        dup2(open("/dev/null", O_WRONLY), 2);
        mprotect(page, HV_PAGE_SIZE, PROT_READ | PROT_WRITE);
        *at = 0x45;
        mprotect(page, HV_PAGE_SIZE, PROT_READ | PROT_EXEC);
        signal(SIGABRT, SIG_DFL);
        run(&v, &s, &insns);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    vm_close(&v);
}

/*
 * Another vCPU has replaced the INT3 that ends a block by the first byte of a longer instruction; the drop it has posted
 * is not looked at before the block becomes hot. It may be the old one still, but nothing third.
 */
static void a_breakpoint_replaced_before_translation(void **state)
{
    static struct test_vm v;
    struct start s;
    uint64_t insns;
    char *before = getenv("HV_SOFT_TRANSLATE"), *keep = before ? strdup(before) : NULL;
    open_one(&v, "2");
    keep ? setenv("HV_SOFT_TRANSLATE", keep, 1) : unsetenv("HV_SOFT_TRANSLATE");
    free(keep);
    seed = 3;
    for (unsigned i = 0; i < 4; i++) {
        random_start(&s);
        s.rip = WINDOW;
        s.mxcsr = 0x1f80;
        s.budget = 1;              /* so that the loop translates what is waiting */
        memcpy(v.ram + WINDOW_GPA, "\x90\xcc\x05\0\0\0", 6);
        if (i)
            v.ram[WINDOW_GPA + 1] = 0xe9;
        assert_true(run(&v, &s, &insns));
        assert_int_equal(vm_cpu(&v, 0)->rip, STUBS + VEC_BP + 1);
    }
    vm_close(&v);
}

/* ---- code that plays foul ---- */

/* Where it runs to its HLT, which is #GP for users, EAX is as given. Offsets from WINDOW; page 4 is not present. */
#define X8(c) c c c c c c c c
static const struct edge { const char *what, *code; unsigned len; uint32_t at; unsigned vector; uint64_t eax, cr2; } edges[] = {
#define CODE(s) s, sizeof(s) - 1
    { "15 bytes are an instruction", CODE(X8("\x66") "\x66\x66\x66\x66\x66\x66\x90\xb0\7\xf4"), 0x100, VEC_GP, 7, 0 },
    { "16 bytes are none", CODE(X8("\x66") X8("\x66") "\x90"), 0x100, VEC_GP, 0, 0 },
    { "prefixes up to a page that is not there", CODE("\x66\x66\x66\x66"), 0x3ffc, VEC_PF, 0, 0x4000 },
    { "15 prefixes up to it", CODE(X8("\x66") "\x66\x66\x66\x66\x66\x66\x66"), 0x3ff1, VEC_GP, 0, 0 },
    { "an immediate in it", CODE("\xb0\7\xb8\1\2"), 0x3ffb, VEC_PF, 7, 0x4000 },
    { "a block that runs into it", CODE("\xb0\7\x90"), 0x3ffd, VEC_PF, 7, 0x4000 },
    { "a jump into it", CODE("\xb0\7\xe9\xf9\3\0\0"), 0x3c00, VEC_PF, 7, 0x4000 },
    { "INT3", CODE("\xb0\7\xcc"), 0x200, VEC_BP, 7, 0 },
    { "INT 4", CODE("\xb0\7\xcd\4"), 0x200, VEC_OF, 7, 0 },
    { "INT1", CODE("\xb0\7\xf1"), 0x200, VEC_DB, 7, 0 },
    { "UD2", CODE("\xb0\7\x0f\x0b"), 0x200, VEC_UD, 7, 0 },
    { "division by zero", CODE("\x31\xc9\xb0\7\xf6\xf1"), 0x200, VEC_DE, 7, 0 },
    { "a quotient too large", CODE("\xba\0\0\0\x80\x31\xc0\xb9\xff\xff\xff\xff\xf7\xf9"), 0x200, VEC_DE, 0, 0 },
    { "a single step", CODE("\x9c\x81\x0c\x24\0\1\0\0\x9d\xb0\7\xb0\x08\xf4"), 0x200, VEC_DB, 7, 0 },
    { "a return to no address", CODE("\xb0\7\x48\xb9\0\0\0\0\0\0\0\x80\x51\xc3"), 0x200, VEC_GP, 7, 0 },
    { "a jump to no address", CODE("\xb0\7\x48\xb9\0\0\0\0\0\0\0\x80\xff\xe1"), 0x200, VEC_GP, 7, 0 },
    { "a load from no address", CODE("\xb0\7\x48\xb9\0\0\0\0\0\0\0\x80\x8a\x01"), 0x200, VEC_GP, 7, 0 },
    { "a push to no address", CODE("\xb0\7\x48\xbc\0\0\0\0\0\0\0\x80\x50"), 0x200, VEC_SS, 7, 0 },
    { "a store to a page that cannot be written", CODE("\xb0\7\xbb\x08\x50\x40\0\x88\x03"), 0x200, VEC_PF, 7, 0x5008 },
    { "a store that crosses into it", CODE("\xb0\7\xbb\xfe\x3f\x40\0\x89\x03"), 0x200, VEC_PF, 7, 0x4000 },
    { "kernel memory", CODE("\xb0\7\xbb\0\0\x02\0\x8a\x03"), 0x200, VEC_PF, 7, (uint64_t)0x20000 - WINDOW },
    { "kernel code", CODE("\xb0\7\xbb\0\0\x04\0\xff\xe3"), 0x200, VEC_PF, 7, (uint64_t)0x40000 - WINDOW },
    { "device memory as code", CODE("\xb0\7\xbb\0\x60\x40\0\xff\xe3"), 0x200, VEC_UD, 7, 0 },
    /* mov byte [rip + 1], 7; mov al, 1; hlt */
    { "the next instruction rewritten", CODE("\x31\xc0\xc6\5\1\0\0\0\7\xb0\1\xf4"), 0x200, VEC_GP, 7, 0 },
    /* The same where the one to change is across the border: its opcode in page 0, its immediate in page 1. */
    { "one that crosses a border rewritten", CODE("\x31\xc0\xc6\5\1\0\0\0\7\xb0\1\xf4"), 0xff6, VEC_GP, 7, 0 },
    /* ... and by the other name of page 0: xor eax, eax; mov byte [0x41020a], 7; mov al, 1; hlt at 0x400200 */
    { "by another address of the page", CODE("\x31\xc0\xc6\4\x25\x0b\2\x41\0\7\xb0\1\xf4"), 0x200, VEC_GP, 7, 0 },
    /* lea rdi, [rip + 12]; mov al, 0x90; mov ecx, 3; rep stosb; then three bytes of UD2s that are NOPs by now; mov al, 7; hlt */
    { "by a string", CODE("\x48\x8d\x3d\x09\0\0\0\xb0\x90\xb9\3\0\0\0\xf3\xaa\x0f\x0b\x0f\x90\xb0\7\xf4"), 0x200, VEC_GP, 7, 0 },
    /* movd xmm1, [7]; movd [imm], xmm1; nop; mov eax, 1; hlt; the 7 */
    { "by SSE", CODE("\x31\xc0\x66\x0f\x6e\x0d\x0f\0\0\0\x66\x0f\x7e\x0d\2\0\0\0\x90\xb8\1\0\0\0\xf4\7\0\0\0"), 0x200, VEC_GP, 7, 0 },
};

static void code_that_plays_foul(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(edges); i++) {
        const struct edge *x = &edges[i];
        struct start s;
        seed = 5;
        random_start(&s);
        s.rip = WINDOW + x->at;
        s.budget = 16384;
        s.mxcsr = 0x1f80;
        s.gpr[R_RAX] = 0;
        endless = 0;
        compare((const uint8_t *)x->code, x->len, s.rip, &s);
        struct cpu *c = vm_cpu(&vm[1], 0);
        printf("%-50s vector %llu eax %llx cr2 %llx\n", x->what, (unsigned long long)(c->rip - STUBS - 1),
               (unsigned long long)c->gpr[R_RAX], (unsigned long long)c->cr2);
        assert_int_equal(endless, 0);
        assert_int_equal(c->rip, STUBS + x->vector + 1);
        assert_int_equal(c->gpr[R_RAX] & 0xffffffff, x->eax);
        if (x->vector == VEC_PF)
            assert_int_equal(c->cr2, WINDOW + x->cr2);
    }
}

/* ---- code memory ---- */

/* No page of the process is writable and executable, and the translated code has executable pages. */
static void never_writable_and_executable(void **state)
{
    const struct code_cache *k = vm_cpu(&vm[1], 0)->code;
    uintptr_t from = (uintptr_t)k->base, to = from + k->code_size + k->data_size;
    bool executable = false, writable = false;
    char line[512];
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        unsigned long a, b;
        char prot[8];
        assert_int_equal(sscanf(line, "%lx-%lx %7s", &a, &b, prot), 3);
        assert_false(prot[1] == 'w' && prot[2] == 'x');
        if (a < to && from < b) {
            executable |= prot[2] == 'x';
            writable |= prot[1] == 'w';
            assert_null(strstr(line, "memfd"));
            assert_int_equal(prot[3], 'p');                      /* private: nobody has another view */
        }
    }
    fclose(f);
    assert_true(executable && writable);
}

/*
 * Ranges of this process's memory. AddressSanitizer's shadow and heap are terabytes, which a guest's
 * numbers may well look like: they are left out, and parts of two numbers are not looked at.
 */
#ifdef __SANITIZE_ADDRESS__
#define STEP 8
#define LEFT_OUT(from, to) ((to) <= 0x10007fff8000ul || ((from) >= 0x600000000000ul && (to) <= 0x640000000000ul))
#else
#define STEP 1
#define LEFT_OUT(from, to) false
#endif
static struct { uint64_t from, to; } host_range[512];
static unsigned host_ranges;

static void find_host_ranges(void)
{
    char line[512];
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    for (host_ranges = 0; fgets(line, sizeof(line), f) && host_ranges < ARRAY_SIZE(host_range);) {
        unsigned long a, b;
        assert_int_equal(sscanf(line, "%lx-%lx", &a, &b), 2);
        if (LEFT_OUT(a, b))
            continue;
        host_range[host_ranges].from = a;
        host_range[host_ranges++].to = b;
    }
    fclose(f);
    assert_in_range(host_ranges, 8, ARRAY_SIZE(host_range) - 1);
}

static bool is_host_address(uint64_t v)
{
    for (unsigned i = 0; i < host_ranges; i++) {
        if (v >= host_range[i].from && v < host_range[i].to)
            return true;
    }
    return false;
}

GUEST_CODE(code_look,
    /* Everything that can be seen of the machine, after x87, SSE, calls and strings ran; at 0x401000 and on. */
    "mov ebp, 3; mov rbx, 0x402800; cld\n"
    "1: fninit; fld qword ptr [rbx]; fadd qword ptr [rbx+8]; fld st(0); fmulp\n"
    ".globl code_look_last\n"
    "code_look_last: fstp qword ptr [rbx+16]\n"
    "movups xmm1, [rbx]; addpd xmm1, xmm1; cvtsi2sd xmm2, rbp; movups [rbx+32], xmm1\n"
    "call 2f; lea rax, [rip+3f]; call rax; push rbx; push rsp; pop rax; pop rax\n"
    "lea rsi, [rbx]; lea rdi, [rbx+256]; mov ecx, 100; rep movsb; dec ebp; jnz 1b; jmp 4f\n"
    "2: nop; ret\n"
    "3: nop; ret\n"
    "4: mov rdi, 0x402000\n"
    "fxsave64 [rdi]; fxsave [rdi+512]; fnstenv [rdi+1024]; fnsave [rdi+1088]; stmxcsr [rdi+1200]\n"
    "sgdt [rdi+1210]; sidt [rdi+1220]; sldt [rdi+1230]; str [rdi+1232]; smsw [rdi+1234]\n"
    "mov [rdi+1240], cs; mov [rdi+1242], ds; mov [rdi+1244], fs; mov [rdi+1246], gs\n"
    "pushfq; pop [rdi+1248]\n"
    "mov [rdi+1304], rax; mov [rdi+1312], rcx; mov [rdi+1320], rdx; mov [rdi+1328], rbx; mov [rdi+1336], rsp\n"
    "mov [rdi+1344], rbp; mov [rdi+1352], rsi; mov [rdi+1360], rdi; mov [rdi+1368], r8; mov [rdi+1376], r9\n"
    "mov [rdi+1384], r10; mov [rdi+1392], r11; mov [rdi+1400], r12; mov [rdi+1408], r13; mov [rdi+1416], r14\n"
    "mov [rdi+1424], r15\n"
    "lar eax, eax; lsl ecx, ecx; mov [rdi+1432], rax; mov [rdi+1440], rcx\n"
    "mov rax, fs:[0]; mov rcx, gs:[0]; bsf rdx, rbp; mov [rdi+1448], rdx\n"
    "xor eax, eax; div ebp\n");                         /* #DE: a frame on the stack of the handler */
extern const uint8_t code_look_last[];

/* What translated code leaves in registers, in the x87's pointers, on stacks and in memory is the guest's. */
static void no_host_address_is_seen(void **state)
{
    struct test_vm *v = &vm[1];
    struct cpu *c = vm_cpu(v, 0);
    struct start s = { .rip = WINDOW, .rflags = 2, .mxcsr = 0x1f80, .budget = 16384, .x87 = { .cw = 0x37f } };
    uint64_t insns, x;
    memset(v->ram + WINDOW_GPA, 0, PAGES * 4096);
    memset(v->ram + IST_TOP - 4096, 0, 4096);
    memcpy(v->ram + WINDOW_GPA, code_look, (size_t)(code_look_end - code_look));
    block_drop(c, WINDOW_GPA, PAGES * 4096);
    s.gpr[R_RSP] = STACK_TOP;
    for (unsigned i = 0; i < 4; i++)
        assert_true(run(v, &s, &insns));
    assert_int_equal(c->rip, STUBS + VEC_DE + 1);
    const uint8_t *at = v->ram + WINDOW_GPA + 0x2000;
    memcpy(&x, at + 8, 8);                               /* FIP of FXSAVE64 */
    assert_int_equal(x, WINDOW + (uint64_t)(code_look_last - code_look));
    find_host_ranges();
    assert_true(is_host_address((uintptr_t)&x) && is_host_address((uintptr_t)c->code->base) && is_host_address((uintptr_t)v->ram));
    for (size_t i = 0; i + 8 <= RAM_SIZE; i += STEP) {
        memcpy(&x, v->ram + i, 8);
        if (is_host_address(x))
            fail_msg("a host address, %llx, at %zx of the guest's memory", (unsigned long long)x, i);
    }
    for (unsigned i = 0; i < 16; i++)
        assert_false(is_host_address(c->gpr[i]) || is_host_address(c->xmm[i].u64[0]) || is_host_address(c->xmm[i].u64[1]));
    /* And of random code, whose memory is random. */
    seed = 11;
    for (unsigned i = 0; i < 2000; i++) {
        uint8_t code[1024];
        const uint64_t va = WINDOW + rnd() % 2048;
        unsigned len = random_code(code, va, 1 + (unsigned)(rnd() % 16), (enum flavour)(rnd() % 3));
        random_start(&s);
        s.rip = va;
        memcpy(v->ram + WINDOW_GPA + (s.rip - WINDOW), code, len);
        block_drop(c, WINDOW_GPA, PAGES * 4096);
        run(v, &s, &insns);
        for (unsigned k = 0; k < 16; k++)
            assert_false(is_host_address(c->gpr[k]) || is_host_address(c->xmm[k].u64[0]) || is_host_address(c->xmm[k].u64[1]));
        assert_false(is_host_address(c->x87.fip) || is_host_address(c->x87.fdp) || is_host_address(c->cr2));
    }
    for (size_t i = 0; i + 8 <= PAGES * 4096; i++) {
        memcpy(&x, v->ram + WINDOW_GPA + i, 8);
        assert_false(is_host_address(x));
    }
}

static void bounded(void **state)
{
    struct code_cache *k = vm_cpu(&vm[1], 0)->code;
    struct code_cache before = *k;
    uint64_t flushes = k->flushes;
    k->data_limit = k->data_size = MAX(2 * (size_t)CODE_BLOCK_MAX, k->data_used);        /* only this much from now on */
    k->code_limit = k->code_size;
    many(3000, 24, INTEGER);
    assert_true(k->flushes > flushes);
    assert_true(k->data_used <= k->data_size && k->code_used <= k->code_size);
    k->data_size = before.data_size;
    k->data_limit = before.data_limit;
    k->code_limit = before.code_limit;
}

/* Full again soon after the last time: more room, and nothing is dropped. After long: everything goes, the room stays. */
static void more_room_when_it_is_soon_full(void **state)
{
    struct cpu *c = vm_cpu(&vm[1], 0);
    struct code_cache *k = c->code;
    const struct code_cache before = *k;
    const size_t some = k->data_used + 2 * (size_t)CODE_BLOCK_MAX;
    k->data_limit = some;
    k->full_at = c->insns;
    for (unsigned i = 0; i < 40 && k->data_limit == some; i++)
        many(200, 24, INTEGER);
    assert_true(k->data_limit > some && k->data_limit <= k->data_size);
    assert_int_equal(k->flushes, before.flushes);
    const size_t grown = k->data_limit = k->data_used + 2 * (size_t)CODE_BLOCK_MAX;
    k->full_at = c->insns - CODE_SOON;
    for (unsigned i = 0; i < 40 && k->flushes == before.flushes; i++)
        many(200, 24, INTEGER);                          /* few, so as not to fill it twice */
    assert_int_equal(k->flushes, before.flushes + 1);
    assert_int_equal(k->data_limit, grown);
    k->data_limit = before.data_limit;
    k->code_limit = before.code_limit;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_instructions), cmocka_unit_test(vector_instructions),
        cmocka_unit_test(x87_instructions), cmocka_unit_test(x87_sequences),
        cmocka_unit_test(sequences), cmocka_unit_test(vector_sequences), cmocka_unit_test(kernel_sequences),
        cmocka_unit_test(code_that_plays_foul), cmocka_unit_test(lock_step_finds_a_wrong_byte),
        cmocka_unit_test(a_breakpoint_replaced_before_translation), cmocka_unit_test(never_writable_and_executable),
        cmocka_unit_test(no_host_address_is_seen), cmocka_unit_test(bounded), cmocka_unit_test(more_room_when_it_is_soon_full),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
