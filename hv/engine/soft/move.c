/*
 * Integer call-outs: moves, extensions, conditional moves and sets, flag moves. SDM 2A, 2B.
 * Moves of segment, control and debug registers are elsewhere (segop.c, cr.c).
 */
#include "hv/engine/soft/intops.h"

static int op_mov(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v;
    int r = cpu_opnd_get(c, in, 1, &v);
    return r != X_OK ? r : cpu_opnd_set(c, in, 0, v);
}

static int op_movsx(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v;
    int r = cpu_opnd_get(c, in, 1, &v);
    return r != X_OK ? r : cpu_opnd_set(c, in, 0, sext(v, in->opnd[1].size));
}

static int op_lea_any(struct cpu *c, const struct x86_insn *in)
{
    return cpu_opnd_set(c, in, 0, cpu_ea(c, in));
}

/* The source is read whatever the condition; a 32-bit destination is written always. */
static int op_cmovcc(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v;
    int r = cpu_opnd_get(c, in, 1, &v);
    if (r != X_OK)
        return r;
    const struct x86_opnd *o = &in->opnd[0];
    cpu_reg_set(c, o->reg, o->size, cc_test(c->cc, in->cc) ? v : cpu_reg_get(c, o->reg, o->size));
    return X_OK;
}

static int op_setcc(struct cpu *c, const struct x86_insn *in)
{
    return cpu_opnd_set(c, in, 0, cc_test(c->cc, in->cc));
}

/* 16-bit BSWAP is undefined; Intel CPUs clear the register. */
static int op_bswap_any(struct cpu *c, const struct x86_insn *in)
{
    const struct x86_opnd *o = &in->opnd[0];
    uint64_t v = cpu_reg_get(c, o->reg, o->size);
    v = o->size == 8 ? __builtin_bswap64(v) : o->size == 4 ? __builtin_bswap32((uint32_t)v) : 0;
    cpu_reg_set(c, o->reg, o->size, v);
    return X_OK;
}

static int op_movbe(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v;
    unsigned size = in->opnd[0].size;
    int r = cpu_opnd_get(c, in, 1, &v);
    if (r != X_OK)
        return r;
    v = __builtin_bswap64(v) >> (64 - size * 8);
    return cpu_opnd_set(c, in, 0, v);
}

/* AL = [rBX + AL]; the decoder's operand is [rBX]. */
static int op_xlat(struct cpu *c, const struct x86_insn *in)
{
    uint64_t off = zext(cpu_ea(c, in) + (uint8_t)c->gpr[R_RAX], in->adsize), va, v;
    int r = cpu_seg_lin(c, in->seg, off, 1, ACC_READ, &va);
    if (r == X_OK)
        r = cpu_ld8(c, in->seg, va, &v);
    if (r == X_OK)
        cpu_reg_set(c, R_RAX, 1, v);
    return r;
}

static int op_cbw_any(struct cpu *c, const struct x86_insn *in)
{
    cpu_reg_set(c, R_RAX, in->opsize, sext(cpu_reg_get(c, R_RAX, in->opsize / 2), in->opsize / 2));
    return X_OK;
}

static int op_cwd_any(struct cpu *c, const struct x86_insn *in)
{
    bool neg = sext(c->gpr[R_RAX], in->opsize) >> 63;
    cpu_reg_set(c, R_RDX, in->opsize, neg ? ~(uint64_t)0 : 0);
    return X_OK;
}

/* ---- flags ---- */

static int op_lahf(struct cpu *c, const struct x86_insn *in)
{
    cpu_reg_set(c, 16, 1, (cc_to_rflags(c->cc) & 0xd5) | 2);
    return X_OK;
}

static int op_sahf(struct cpu *c, const struct x86_insn *in)
{
    c->cc = (c->cc & CC_OF) | cc_from_rflags(cpu_reg_get(c, 16, 1) & 0xd5);
    return X_OK;
}

static int op_carry(struct cpu *c, const struct x86_insn *in)
{
    if (in->op == X86_OP_CMC)
        c->cc ^= CC_CF;
    else
        c->cc = (c->cc & ~CC_CF) | (in->op == X86_OP_STC ? CC_CF : 0);
    return X_OK;
}

static int op_direction(struct cpu *c, const struct x86_insn *in)
{
    c->rflags = (c->rflags & ~FL_DF) | (in->op == X86_OP_STD ? FL_DF : 0);
    return X_OK;
}

static int op_salc(struct cpu *c, const struct x86_insn *in)
{
    cpu_reg_set(c, R_RAX, 1, c->cc & CC_CF ? 0xff : 0);
    return X_OK;
}

static int op_nothing(struct cpu *c, const struct x86_insn *in)
{
    return X_OK;
}

static const struct int_op rows[] = {
    { X86_OP_MOV, { op_mov, 0 } }, { X86_OP_MOVNTI, { op_mov, 0 } }, { X86_OP_MOVZX, { op_mov, 0 } },
    { X86_OP_MOVSX, { op_movsx, 0 } }, { X86_OP_MOVSXD, { op_movsx, 0 } }, { X86_OP_LEA, { op_lea_any, 0 } },
    { X86_OP_CMOVCC, { op_cmovcc, 0 } }, { X86_OP_SETCC, { op_setcc, 0 } }, { X86_OP_BSWAP, { op_bswap_any, 0 } },
    { X86_OP_MOVBE, { op_movbe, 0 } }, { X86_OP_XLAT, { op_xlat, 0 } }, { X86_OP_CBW, { op_cbw_any, 0 } },
    { X86_OP_CWD, { op_cwd_any, 0 } }, { X86_OP_LAHF, { op_lahf, 0 } }, { X86_OP_SAHF, { op_sahf, 0 } },
    { X86_OP_CLC, { op_carry, 0 } }, { X86_OP_STC, { op_carry, 0 } }, { X86_OP_CMC, { op_carry, 0 } },
    { X86_OP_CLD, { op_direction, 0 } }, { X86_OP_STD, { op_direction, 0 } }, { X86_OP_SALC, { op_salc, 0 } },
    { X86_OP_NOP, { op_nothing, 0 } }, { X86_OP_PAUSE, { op_nothing, 0 } },
    { X86_OP_ENDBR32, { op_nothing, 0 } }, { X86_OP_ENDBR64, { op_nothing, 0 } },
    { X86_OP_RDSSP, { op_nothing, 0 } }, { X86_OP_PREFETCH, { op_nothing, 0 } },
    { X86_OP_PREFETCHW, { op_nothing, 0 } }, { X86_OP_PREFETCHWT1, { op_nothing, 0 } },
    { X86_OP_PREFETCHNTA, { op_nothing, 0 } }, { X86_OP_PREFETCHT0, { op_nothing, 0 } },
    { X86_OP_PREFETCHT1, { op_nothing, 0 } }, { X86_OP_PREFETCHT2, { op_nothing, 0 } },
    { X86_OP_CLDEMOTE, { op_nothing, 0 } },
};
const struct int_ops int_ops_move = { rows, ARRAY_SIZE(rows) };
