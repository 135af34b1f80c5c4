/*
 * Translator: SSE to SSE4.2, AES, SHA, CLMUL, emitted as they are. Guest XMM registers are in the
 * host's of the same number while c->jit.live is set, MXCSR too: a block with such instructions
 * begins by asking for that, whoever calls C or leaves puts them back into struct cpu (cache.c). With an
 * exception unmasked in MXCSR (MODE_FPEXC) floating point is left to the call-outs, so the host never traps.
 * Operands of 16 bytes must be aligned: the compare with the TLB tag includes the low bits. SDM 1, chapters 10 to 12.
 */
#include "hv/engine/soft/translate.h"
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"

enum {
    SSE_ANY = 1,
    SSE_FP = 2,                    /* raises exceptions, rounds */
    SSE_UNALIGNED = 4,             /* memory of 16 bytes at any address */
    SSE_FLAGS = 8,                 /* sets all arithmetic flags */
    SSE_GPR_REG = 16,              /* ModRM.reg is a general register, written */
    SSE_GPR_RM = 32,               /* ModRM.rm may be a general register */
    SSE_COUNT_RM = 64,             /* with an immediate ModRM.reg is part of the opcode */
    SSE_NEED = 8,                  /* shift of enum vec_need */
};

#define A(name, ...) [X86_OP_##name] = SSE_ANY,
#define A_NEED(name, need) [X86_OP_##name] = SSE_ANY | (need) << SSE_NEED,
#define A_LEN_NEED(name, len, need) [X86_OP_##name] = SSE_ANY | (need) << SSE_NEED,
#define A_SHIFT(name, need) [X86_OP_##name] = SSE_ANY | SSE_COUNT_RM,
#define A_FP(name, len, lanes, need) [X86_OP_##name] = SSE_ANY | SSE_FP | (need) << SSE_NEED,
#define A_COMPARE(name, len) [X86_OP_##name] = SSE_ANY | SSE_FP | SSE_FLAGS,
#define A_TO_GPR(name, len) [X86_OP_##name] = SSE_ANY | SSE_FP | SSE_GPR_REG,
#define A_FROM_GPR(name) [X86_OP_##name] = SSE_ANY | SSE_FP | SSE_GPR_RM,
static const uint16_t kind[X86_OP_COUNT] = {
    INT_SAME(A_NEED) INT_SHIFT(A_SHIFT) INT_JOIN(A_NEED) INT_HIGH(A) INT_XMM(A_LEN_NEED) INT_IMM(A_NEED)
    INT_XMM0(A_NEED) FP_XMM(A_FP) FP_IMM(A_FP) FP_COMPARE(A_COMPARE) FP_TO_GPR(A_TO_GPR) FP_FROM_GPR(A_FROM_GPR)
    [X86_OP_PSLLDQ] = SSE_ANY | SSE_COUNT_RM, [X86_OP_PSRLDQ] = SSE_ANY | SSE_COUNT_RM,
    A_NEED(PSHUFB, NEED_SSSE3) A_NEED(PALIGNR, NEED_SSSE3) A_NEED(INSERTPS, NEED_SSE41)
    [X86_OP_PTEST] = SSE_ANY | SSE_FLAGS | NEED_SSE41 << SSE_NEED,
    A(MOVAPS) A(MOVAPD) A(MOVDQA) A(MOVNTPS) A(MOVNTPD) A(MOVNTDQ) A_NEED(MOVNTDQA, NEED_SSE41)
    A(MOVSS) A(MOVSD) A(MOVLPS) A(MOVLPD) A(MOVHPS) A(MOVHPD) A(MOVHLPS) A(MOVLHPS)
    [X86_OP_MOVUPS] = SSE_ANY | SSE_UNALIGNED, [X86_OP_MOVUPD] = SSE_ANY | SSE_UNALIGNED,
    [X86_OP_MOVDQU] = SSE_ANY | SSE_UNALIGNED, [X86_OP_LDDQU] = SSE_ANY | SSE_UNALIGNED | NEED_SSE3 << SSE_NEED,
    [X86_OP_MOVD] = SSE_ANY | SSE_GPR_RM, [X86_OP_MOVQ] = SSE_ANY | SSE_GPR_RM,
    [X86_OP_PMOVMSKB] = SSE_ANY | SSE_GPR_REG, [X86_OP_MOVMSKPS] = SSE_ANY | SSE_GPR_REG,
    [X86_OP_MOVMSKPD] = SSE_ANY | SSE_GPR_REG,
};

bool translate_sse_known(const struct tr *t, const struct x86_insn *in)
{
    const unsigned k = kind[in->op];
    if (!k || (in->prefix & X86_PFX_VEX) || t->b->mode & (MODE_NOFPU | MODE_NOSSE))
        return false;
    if ((k & SSE_FP && t->b->mode & MODE_FPEXC) || ((k >> SSE_NEED) & ~vec_host))
        return false;
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == X86_OPND_MMX)
            return false;
        if (in->opnd[i].kind == X86_OPND_MEM) {
            struct addr a = addr_of(in);
            if (!addr_ok_anywhere(in, &a))
                return false;
        }
    }
    return true;
}

bool translate_sse(struct tr *t, const struct x86_insn *in)
{
    if (!translate_sse_known(t, in))
        return false;
    struct emit *e = &t->e;
    const unsigned k = kind[in->op], w = in->rex & 8 ? 8 : 4;
    unsigned reg = (in->modrm >> 3 & 7) | (in->rex & 4u) << 1, spare = T1;
    const bool group = k & SSE_COUNT_RM && in->opnd[1].kind == X86_OPND_IMM;
    struct rm rm = rm_reg((in->modrm & 7) | (in->rex & 1u) << 3);
    unsigned gpr = H_NONE, host = 0;       /* a general register that is written */

    if (group)
        reg &= 7;
    for (unsigned i = 0; i < in->nopnd; i++) {
        const struct x86_opnd *o = &in->opnd[i];
        if (o->kind == X86_OPND_MEM) {
            struct addr a = addr_of(in);
            a.align = o->size == 16 && !(k & SSE_UNALIGNED) ? 16 : 0;
            rm = addr_check(t, &a, o->size, i == 0, &spare);
        } else if (o->kind == X86_OPND_GPR && i == 0) {
            gpr = o->reg;
        } else if (o->kind == X86_OPND_GPR) {
            rm = reg_rm(o->reg);
        }
    }
    if (gpr != H_NONE) {
        host = pinned(gpr) ? host_of(gpr) : spare;
        if (k & SSE_GPR_REG)
            reg = host;
        else
            rm = rm_reg(host);
    }
    unsigned op = in->opcode | (in->map == 1 ? OP_0F : in->map == 2 ? OP_0F38 : OP_0F3A);
    op |= in->prefix & X86_PFX_REP ? OP_F3 : in->prefix & X86_PFX_REPNE ? OP_F2 : in->prefix & X86_PFX_66 ? OP_66 : 0;
    emit_rm(e, w, op, reg, rm);
    if (in->nopnd && in->opnd[in->nopnd - 1].kind == X86_OPND_IMM)
        put8(e, (uint8_t)in->imm);
    if (gpr != H_NONE)
        reg_out(t, gpr, host);
    if (k & SSE_FLAGS)
        flags_set(t);
    return true;
}
