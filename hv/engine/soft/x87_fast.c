/*
 * The common x87 instructions without FXSAVE and FXRSTOR, ten times as fast: what most programs
 * do, with all exceptions masked and no stack fault. Everything else is x87.c's.
 *
 * One or two registers are loaded into the host's (empty) x87 stack, the instruction runs from a
 * stub, results and status word are taken back. Popping instructions run as their
 * non-popping twins, the pop is done here:
 *
 *     guest  ST(0) ST(i)        host  ST(0) ST(1)        FADDP ST(i), ST(0)  ->  FADD ST(1), ST(0)
 */
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"
#include "hv/engine/soft/x87.h"

enum fast_kind {
    FAST_NONE,
    FAST_ARITH,        /* ST(0) with ST(i) or memory: result in one of the registers */
    FAST_UNARY,        /* ST(0) alone */
    FAST_COMPARE,      /* into C0, C2, C3 */
    FAST_EXAMINE,      /* ST(0) alone, into C0 to C3: FTST, FXAM */
    FAST_FLAGS,        /* into RFLAGS */
    FAST_LOAD,
    FAST_STORE,
    FAST_EXCHANGE,
};

#define KEEP 0xff
/* opcode (0..7 for D8..DF) and reg: the non-popping twin of a register form. */
static const struct fast { uint8_t kind, pops, opcode, reg; } fast[X86_OP_COUNT] = {
#define ARITH(name) \
    [X86_OP_F##name] = { FAST_ARITH, 0, KEEP, KEEP }, [X86_OP_FI##name] = { FAST_ARITH, 0, KEEP, KEEP }, \
    [X86_OP_F##name##P] = { FAST_ARITH, 1, 4, KEEP },
    ARITH(ADD) ARITH(SUB) ARITH(SUBR) ARITH(MUL) ARITH(DIV) ARITH(DIVR)
#undef ARITH
    [X86_OP_FCOM] = { FAST_COMPARE, 0, 0, 2 },     [X86_OP_FCOMP] = { FAST_COMPARE, 1, 0, 2 },
    [X86_OP_FCOMPP] = { FAST_COMPARE, 2, 0, 2 },   [X86_OP_FUCOM] = { FAST_COMPARE, 0, 5, 4 },
    [X86_OP_FUCOMP] = { FAST_COMPARE, 1, 5, 4 },   [X86_OP_FUCOMPP] = { FAST_COMPARE, 2, 5, 4 },
    [X86_OP_FICOM] = { FAST_COMPARE, 0, 0, 0 },    [X86_OP_FICOMP] = { FAST_COMPARE, 1, 0, 0 },
    [X86_OP_FCOMI] = { FAST_FLAGS, 0, 3, 6 },      [X86_OP_FCOMIP] = { FAST_FLAGS, 1, 3, 6 },
    [X86_OP_FUCOMI] = { FAST_FLAGS, 0, 3, 5 },     [X86_OP_FUCOMIP] = { FAST_FLAGS, 1, 3, 5 },
    [X86_OP_FTST] = { FAST_EXAMINE, 0, 0, 0 },     [X86_OP_FXAM] = { FAST_EXAMINE, 0, 0, 0 },
    [X86_OP_FCHS] = { FAST_UNARY, 0, 0, 0 },       [X86_OP_FABS] = { FAST_UNARY, 0, 0, 0 },
    [X86_OP_FSQRT] = { FAST_UNARY, 0, 0, 0 },      [X86_OP_FRNDINT] = { FAST_UNARY, 0, 0, 0 },
    [X86_OP_FLD] = { FAST_LOAD, 0, 0, 0 },         [X86_OP_FILD] = { FAST_LOAD, 0, 0, 0 },
    [X86_OP_FLD1] = { FAST_LOAD, 0, 0, 0 },        [X86_OP_FLDZ] = { FAST_LOAD, 0, 0, 0 },
    [X86_OP_FLDPI] = { FAST_LOAD, 0, 0, 0 },       [X86_OP_FLDL2E] = { FAST_LOAD, 0, 0, 0 },
    [X86_OP_FLDL2T] = { FAST_LOAD, 0, 0, 0 },      [X86_OP_FLDLG2] = { FAST_LOAD, 0, 0, 0 },
    [X86_OP_FLDLN2] = { FAST_LOAD, 0, 0, 0 },
    [X86_OP_FST] = { FAST_STORE, 0, 0, 0 },        [X86_OP_FSTP] = { FAST_STORE, 1, 0, 0 },
    [X86_OP_FIST] = { FAST_STORE, 0, 0, 0 },       [X86_OP_FISTP] = { FAST_STORE, 1, 0, 0 },
    [X86_OP_FISTTP] = { FAST_STORE, 1, 0, 0 },
    [X86_OP_FXCH] = { FAST_EXCHANGE, 0, 0, 0 },
};

struct fast_io {
    long double a, b;              /* host ST(0) and ST(1) */
    uint16_t cw, sw;               /* in; sw: guest's in, host's out */
    uint32_t flags;                /* after it: AL OF, AH the others (LAHF) */
};
_Static_assert(offsetof(struct fast_io, cw) == 32 && offsetof(struct fast_io, flags) == 36, "as below");

/*
 * Two registers in and out; none in, one out; one in, none out. mem is what a memory operand means.
 *
 * The host's PE stays set behind us, since raising it anew costs 150 ns on Intel CPUs; it is cleared only if the
 * guest's is clear, so that the status word tells what this instruction raised. Other flags are cleared at once.
 */
typedef void fast_run(struct fast_io *io, void *mem, const void *stub);
fast_run x87_fast_two __attribute__((visibility("hidden")));
fast_run x87_fast_load __attribute__((visibility("hidden")));
fast_run x87_fast_store __attribute__((visibility("hidden")));
#define FAST_FUNCTION(name, before, after)                  \
    __asm__(".text\n"                                       \
            ".balign 16\n"                                  \
            ".globl " #name "\n"                            \
            ".hidden " #name "\n"                           \
            ".type " #name ", @function\n"                  \
            #name ":\n"                                     \
            "    fldcw 32(%rdi)\n"                          \
            "    testb $0x20, 34(%rdi)\n"                   \
            "    jne 1f\n"                                  \
            "    fnclex\n"                                  \
            "1:\n" before                                   \
            "    call *%rdx\n"                              \
            "    lahf\n"                                    \
            "    seto %al\n"                                \
            "    movl %eax, 36(%rdi)\n"                     \
            "    fnstsw 34(%rdi)\n" after                   \
            "    testb $0x1f, 34(%rdi)\n"                   \
            "    je 2f\n"                                   \
            "    fnclex\n"                                  \
            "2:  fldcw x87_default_cw(%rip)\n"              \
            "    ret\n"                                     \
            ".size " #name ", . - " #name "\n")
FAST_FUNCTION(x87_fast_two, "fldt 16(%rdi)\n fldt (%rdi)\n", "fstpt (%rdi)\n fstpt 16(%rdi)\n");
FAST_FUNCTION(x87_fast_load, "", "fstpt (%rdi)\n");
FAST_FUNCTION(x87_fast_store, "fldt (%rdi)\n", "");
__asm__(".section .rodata\n"
        ".balign 2\n"
        "x87_default_cw: .short 0x37f\n"
        ".text\n");

static bool in_use(const struct x87 *f, unsigned reg)
{
    return f->tag >> reg & 1;
}

static void pop(struct x87 *f, unsigned n)
{
    for (; n; n--) {
        unsigned top = X87_TOP(f->sw);
        f->tag &= (uint8_t)~(1u << top);
        f->sw = (uint16_t)((f->sw & ~X87_TOP_MASK) | ((top + 1) & 7) << X87_TOP_SHIFT);
    }
}

static int load_mem(struct cpu *c, const struct x86_insn *in, unsigned size, __m128i *ret)
{
    return size == 8 ? vec_load_mem(c, in, 8, false, ret)
         : size == 4 ? vec_load_mem(c, in, 4, false, ret)
                     : vec_load_slow(c, in, size, false, ret);
}

static int store_mem(struct cpu *c, const struct x86_insn *in, unsigned size, __m128i v)
{
    return size == 8 ? vec_store_mem(c, in, 8, false, v)
         : size == 4 ? vec_store_mem(c, in, 4, false, v)
                     : vec_store_slow(c, in, size, false, v);
}

static __m128i raw(const long double *p)
{
    return _mm_load_si128((const __m128i *)(const void *)p);
}

/* Flags that the instruction raised, and of the condition bits those it defines. */
static void take_status(struct x87 *f, uint16_t host, uint16_t conditions)
{
    f->sw = (uint16_t)((f->sw & ~conditions) | (host & (conditions | X87_FLAGS)));
}

static int fast_load(struct cpu *c, const struct x86_insn *in, unsigned size)
{
    struct x87 *f = &c->x87;
    struct fast_io io = { .cw = f->cw, .sw = f->sw };
    unsigned top = X87_TOP(f->sw), new = (top - 1) & 7;
    bool ran = false;
    __m128i mem = _mm_setzero_si128();
    if (in_use(f, new)) {
        return X87_SLOW;
    }
    if (size) {
        int r = load_mem(c, in, size, &mem);
        if (r) {
            return r;
        }
    }
    if (size == 10) {
        _mm_store_si128((__m128i *)(void *)&f->st[new], mem);
    } else if (!size && in->op == X86_OP_FLD) {
        unsigned src = (top + in->modrm) & 7;
        if (!in_use(f, src)) {
            return X87_SLOW;
        }
        f->st[new] = f->st[src];
    } else {
        x87_fast_load(&io, &mem, x87_stub(in->opcode, in->modrm));
        f->st[new] = io.a;
        ran = true;
    }
    f->tag |= (uint8_t)(1u << new);
    f->sw = (uint16_t)((f->sw & ~X87_TOP_MASK) | new << X87_TOP_SHIFT);
    take_status(f, ran ? io.sw : 0, X87_C1);
    return X_OK;
}

static int fast_store(struct cpu *c, const struct x86_insn *in, unsigned size, unsigned pops)
{
    struct x87 *f = &c->x87;
    struct fast_io io = { .cw = f->cw, .sw = f->sw };
    unsigned top = X87_TOP(f->sw);
    bool ran = false;
    __m128i mem = _mm_setzero_si128();
    if (!in_use(f, top)) {
        return X87_SLOW;
    }
    if (!size) {
        unsigned dst = (top + in->modrm) & 7;
        f->st[dst] = f->st[top];
        f->tag |= (uint8_t)(1u << dst);
    } else {
        if (size == 10) {
            mem = raw(&f->st[top]);
        } else {
            io.a = f->st[top];
            /* FST and FIST as FSTP and FISTP, so that the host's stack is empty again */
            x87_fast_store(&io, &mem, x87_stub(in->opcode, in->op == X86_OP_FISTTP ? in->modrm : in->modrm | 8));
            ran = true;
        }
        int r = store_mem(c, in, size, mem);
        if (r) {
            return r;
        }
    }
    take_status(f, ran ? io.sw : 0, X87_C1);
    pop(f, pops);
    return X_OK;
}

static int fast_exchange(struct x87 *f, unsigned i)
{
    unsigned top = X87_TOP(f->sw), other = (top + i) & 7;
    if (!in_use(f, top) || !in_use(f, other)) {
        return X87_SLOW;
    }
    long double t = f->st[top];
    f->st[top] = f->st[other];
    f->st[other] = t;
    f->sw &= (uint16_t)~X87_C1;
    return X_OK;
}

static int fast_operate(struct cpu *c, const struct x86_insn *in, const struct fast *k, unsigned size)
{
    struct x87 *f = &c->x87;
    struct fast_io io = { .cw = f->cw, .sw = f->sw };
    unsigned top = X87_TOP(f->sw), i = 0, opcode = in->opcode, modrm = in->modrm;
    bool alone = k->kind == FAST_UNARY || k->kind == FAST_EXAMINE;
    __m128i mem;
    if (size) {
        if (k->kind == FAST_COMPARE) {
            modrm &= ~8u;                   /* FCOMP, FICOMP as FCOM, FICOM */
        }
    } else if (!alone) {
        i = in->modrm & 7;
        opcode = k->opcode == KEEP ? opcode : k->opcode;
        modrm = 0xc0 | (i != 0) | (k->reg == KEEP ? modrm & 0x38 : (unsigned)k->reg << 3);
    }
    unsigned other = (top + i) & 7;
    if (!in_use(f, top) || !in_use(f, other)) {
        return X87_SLOW;
    }
    if (size) {
        int r = load_mem(c, in, size, &mem);
        if (r) {
            return r;
        }
    }
    io.a = f->st[top];
    io.b = f->st[other];
    x87_fast_two(&io, &mem, x87_stub(opcode, modrm));
    switch (k->kind) {
    case FAST_COMPARE:
    case FAST_EXAMINE:
        take_status(f, io.sw, X87_CONDITIONS);
        break;
    case FAST_FLAGS:
        take_status(f, io.sw, 0);
        cpu_set_rflags(c, (io.flags >> 8 & 0xd5) | (io.flags & 1 ? FL_OF : 0), FL_ARITH);
        break;
    default:
        take_status(f, io.sw, X87_C1);
        if (i) {
            f->st[other] = io.b;
        }
        f->st[top] = io.a;
        break;
    }
    pop(f, k->pops);
    return X_OK;
}

int x87_try_fast(struct cpu *c, const struct x86_insn *in, unsigned size)
{
    const struct fast *k = &fast[in->op];
    switch (k->kind) {
    case FAST_NONE: return X87_SLOW;
    case FAST_LOAD: return fast_load(c, in, size);
    case FAST_STORE: return fast_store(c, in, size, k->pops);
    case FAST_EXCHANGE: return fast_exchange(&c->x87, in->modrm & 7);
    default: return fast_operate(c, in, k, size);
    }
}
