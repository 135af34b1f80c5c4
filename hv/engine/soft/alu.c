/*
 * Integer call-outs: arithmetic and logic in every form, LOCK and exchange. SDM 2A to 2C.
 */
#include "hv/engine/soft/intops.h"

/* ---- two operands ---- */

static uint64_t alu_compute(struct rmw_arg *x, uint64_t a)
{
    uint64_t r = a;
#define ALU(bits)                                                                                 \
    switch (x->op) {                                                                              \
    case X86_OP_ADD: r = cc_add##bits((uint##bits##_t)a, (uint##bits##_t)x->src, &x->cc); break;  \
    case X86_OP_OR: r = cc_or##bits((uint##bits##_t)a, (uint##bits##_t)x->src, &x->cc); break;    \
    case X86_OP_ADC: r = cc_adc##bits((uint##bits##_t)a, (uint##bits##_t)x->src, &x->cc); break;  \
    case X86_OP_SBB: r = cc_sbb##bits((uint##bits##_t)a, (uint##bits##_t)x->src, &x->cc); break;  \
    case X86_OP_AND: r = cc_and##bits((uint##bits##_t)a, (uint##bits##_t)x->src, &x->cc); break;  \
    case X86_OP_SUB: r = cc_sub##bits((uint##bits##_t)a, (uint##bits##_t)x->src, &x->cc); break;  \
    case X86_OP_XOR: r = cc_xor##bits((uint##bits##_t)a, (uint##bits##_t)x->src, &x->cc); break;  \
    case X86_OP_INC: r = cc_inc##bits((uint##bits##_t)a, &x->cc); break;                          \
    case X86_OP_DEC: r = cc_dec##bits((uint##bits##_t)a, &x->cc); break;                          \
    case X86_OP_NEG: r = cc_neg##bits((uint##bits##_t)a, &x->cc); break;                          \
    case X86_OP_NOT: r = (uint##bits##_t)~a; break;                                               \
    }
    BY_SIZE(x->size, ALU);
#undef ALU
    return r;
}

static int op_alu(struct cpu *c, const struct x86_insn *in)
{
    struct rmw_arg x = { .op = in->op };
    int r = cpu_opnd_get(c, in, 1, &x.src);
    return r != X_OK ? r : opnd_rmw(c, in, 0, alu_compute, &x, false);
}

static int op_unary(struct cpu *c, const struct x86_insn *in)
{
    struct rmw_arg x = { .op = in->op };
    return opnd_rmw(c, in, 0, alu_compute, &x, false);
}

static int op_compare(struct cpu *c, const struct x86_insn *in)
{
    uint64_t a, b;
    int r = cpu_opnd_get(c, in, 0, &a);
    if (r == X_OK)
        r = cpu_opnd_get(c, in, 1, &b);
    if (r != X_OK)
        return r;
    uint32_t cc = c->cc;
#define COMPARE(bits)                                                                             \
    in->op == X86_OP_CMP ? cc_cmp##bits((uint##bits##_t)a, (uint##bits##_t)b, &cc)                \
                         : cc_test##bits((uint##bits##_t)a, (uint##bits##_t)b, &cc)
    BY_SIZE(in->opnd[0].size, COMPARE);
#undef COMPARE
    c->cc = cc;
    return X_OK;
}

/* ---- exchange ---- */

static uint64_t take_source(struct rmw_arg *x, uint64_t old)
{
    return x->src;
}

/* XCHG r/m, r: with memory always as if LOCKed. Either operand may be the memory one. */
static int op_xchg(struct cpu *c, const struct x86_insn *in)
{
    unsigned m = in->opnd[1].kind == X86_OPND_MEM ? 1 : 0;
    const struct x86_opnd *reg = &in->opnd[1 - m];
    struct rmw_arg x = { .src = cpu_reg_get(c, reg->reg, reg->size) };
    int r = opnd_rmw(c, in, m, take_source, &x, true);
    if (r == X_OK)
        cpu_reg_set(c, reg->reg, reg->size, x.old);
    return r;
}

/* XADD r/m, r: the register gets the old value first, so that XADD of one register doubles it. */
static int op_xadd(struct cpu *c, const struct x86_insn *in)
{
    const struct x86_opnd *o = &in->opnd[0], *reg = &in->opnd[1];
    struct rmw_arg x = { .op = X86_OP_ADD, .src = cpu_reg_get(c, reg->reg, reg->size) };
    if (o->kind == X86_OPND_GPR) {
        x.size = o->size;
        x.cc = c->cc;
        uint64_t old = cpu_reg_get(c, o->reg, o->size), sum = alu_compute(&x, old);
        cpu_reg_set(c, reg->reg, reg->size, old);
        cpu_reg_set(c, o->reg, o->size, sum);
        c->cc = x.cc;
        return X_OK;
    }
    int r = opnd_rmw(c, in, 0, alu_compute, &x, false);
    if (r == X_OK)
        cpu_reg_set(c, reg->reg, reg->size, x.old);
    return r;
}

/* x->src is what to store; the accumulator travels in op's place beside it. */
struct cas_arg { struct rmw_arg x; uint64_t acc; };

static uint64_t compare_swap(struct rmw_arg *x, uint64_t old)
{
    const struct cas_arg *k = CONTAINER_OF(x, struct cas_arg, x);
#define COMPARE(bits) cc_cmp##bits((uint##bits##_t)k->acc, (uint##bits##_t)old, &x->cc)
    BY_SIZE(x->size, COMPARE);
#undef COMPARE
    return x->cc & CC_ZF ? x->src : old;
}

/* CMPXCHG r/m, r: writes its destination in any case. */
static int op_cmpxchg(struct cpu *c, const struct x86_insn *in)
{
    const struct x86_opnd *o = &in->opnd[0], *reg = &in->opnd[1];
    struct cas_arg k = { .x.src = cpu_reg_get(c, reg->reg, reg->size), .acc = zext(c->gpr[R_RAX], o->size) };
    if (o->kind == X86_OPND_GPR) {
        k.x.size = o->size;
        k.x.cc = c->cc;
        uint64_t old = cpu_reg_get(c, o->reg, o->size);
        (void)compare_swap(&k.x, old);
        c->cc = k.x.cc;
        if (c->cc & CC_ZF)
            cpu_reg_set(c, o->reg, o->size, k.x.src);
        else
            cpu_reg_set(c, R_RAX, o->size, old);
        return X_OK;
    }
    int r = opnd_rmw(c, in, 0, compare_swap, &k.x, false);
    if (r == X_OK && !(c->cc & CC_ZF))
        cpu_reg_set(c, R_RAX, o->size, k.x.old);
    return r;
}

static int op_cmpxchg8b(struct cpu *c, const struct x86_insn *in)
{
    uint64_t va;
    int r = cpu_mem_lin(c, in, 8, ACC_WRITE, &va);
    if (r != X_OK)
        return r;
    struct cas_arg k = {
        .x.size = 8, .x.cc = c->cc,
        .x.src = c->gpr[R_RCX] << 32 | (uint32_t)c->gpr[R_RBX],
        .acc = c->gpr[R_RDX] << 32 | (uint32_t)c->gpr[R_RAX],
    };
    uint32_t before = c->cc;
    r = mem_rmw(c, in->seg, va, 8, compare_swap, &k.x, in->prefix & X86_PFX_LOCK);
    if (r != X_OK)
        return r;
    bool equal = c->cc & CC_ZF;
    c->cc = (before & ~CC_ZF) | (equal ? CC_ZF : 0);
    if (!equal) {
        cpu_reg_set(c, R_RAX, 4, k.x.old);
        cpu_reg_set(c, R_RDX, 4, k.x.old >> 32);
    }
    return X_OK;
}

static int op_cmpxchg16b(struct cpu *c, const struct x86_insn *in)
{
    uint64_t va;
    void *p;
    int r = cpu_mem_lin(c, in, 16, ACC_WRITE, &va);
    if (r != X_OK)
        return r;
    if (va & 15)
        return cpu_raise_err(c, VEC_GP, 0);
    r = cpu_rmw(c, in->seg, va, 16, &p);
    if (r != X_OK)
        return r;
    uint64_t lo = c->gpr[R_RAX], hi = c->gpr[R_RDX];
    bool equal;
    __asm__ volatile("lock cmpxchg16b %[m]"
                     : [m] "+m"(*(unsigned __int128 *)p), "+a"(lo), "+d"(hi), "=@cce"(equal)
                     : "b"(c->gpr[R_RBX]), "c"(c->gpr[R_RCX]) : "memory");
    c->gpr[R_RAX] = lo;            /* unchanged if equal */
    c->gpr[R_RDX] = hi;
    c->cc = (c->cc & ~CC_ZF) | (equal ? CC_ZF : 0);
    return c->rmw.active ? cpu_rmw_finish(c) : X_OK;
}

static const struct int_op rows[] = {
    { X86_OP_ADD, { op_alu, 0 } }, { X86_OP_OR, { op_alu, 0 } }, { X86_OP_ADC, { op_alu, 0 } },
    { X86_OP_SBB, { op_alu, 0 } }, { X86_OP_AND, { op_alu, 0 } }, { X86_OP_SUB, { op_alu, 0 } },
    { X86_OP_XOR, { op_alu, 0 } }, { X86_OP_CMP, { op_compare, 0 } }, { X86_OP_TEST, { op_compare, 0 } },
    { X86_OP_INC, { op_unary, 0 } }, { X86_OP_DEC, { op_unary, 0 } }, { X86_OP_NEG, { op_unary, 0 } },
    { X86_OP_NOT, { op_unary, 0 } }, { X86_OP_XCHG, { op_xchg, 0 } }, { X86_OP_XADD, { op_xadd, 0 } },
    { X86_OP_CMPXCHG, { op_cmpxchg, 0 } }, { X86_OP_CMPXCHG8B, { op_cmpxchg8b, 0 } },
    { X86_OP_CMPXCHG16B, { op_cmpxchg16b, 0 } },
};
const struct int_ops int_ops_alu = { rows, ARRAY_SIZE(rows) };
