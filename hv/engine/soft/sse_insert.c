/* Elements between vector and general registers: PEXTR*, PINSR*, EXTRACTPS, MOVMSK*, PMOVMSKB. */
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"

/* PMOVMSKB (also of MMX), MOVMSKPS, MOVMSKPD: sign bits to a general register, zero-extended. */
int vec_movmsk(struct cpu *c, const struct x86_insn *in)
{
    uint32_t v;
    if (in->opnd[1].kind == X86_OPND_MMX) {
        int r = fpu_check_mmx(c);
        if (r) {
            return r;
        }
        mmx_enter(c);
        v = (uint32_t)_mm_movemask_epi8(_mm_cvtsi64_si128((int64_t)mmx_get(c, in->opnd[1].reg)));
    } else {
        int r = vec_ready(c);
        if (HV_UNLIKELY(r)) {
            return r;
        }
        __m128i s = xmm_get(c, in->opnd[1].reg);
        v = in->op == X86_OP_PMOVMSKB ? (uint32_t)_mm_movemask_epi8(s)
          : in->op == X86_OP_MOVMSKPS ? (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(s))
                                      : (uint32_t)_mm_movemask_pd(_mm_castsi128_pd(s));
    }
    c->gpr[in->opnd[0].reg & 15] = v;
    return X_OK;
}

/* Bytes of an element, by instruction. */
static unsigned element_size(uint16_t op)
{
    switch (op) {
    case X86_OP_PEXTRB:
    case X86_OP_PINSRB: return 1;
    case X86_OP_PEXTRW:
    case X86_OP_PINSRW: return 2;
    case X86_OP_PEXTRQ:
    case X86_OP_PINSRQ: return 8;
    default: return 4;
    }
}

static int ready(struct cpu *c, const struct x86_insn *in, bool mmx)
{
    if (mmx) {
        return fpu_check_mmx(c);
    }
    if (in->op != X86_OP_PEXTRW && in->op != X86_OP_PINSRW) {
        VEC_NEED(c, NEED_SSE41);
    }
    return vec_ready(c);
}

/* PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: to a general register zero-extended, or to memory. */
int vec_extract(struct cpu *c, const struct x86_insn *in)
{
    bool mmx = in->opnd[1].kind == X86_OPND_MMX;
    unsigned size = element_size(in->op);
    int r = ready(c, in, mmx);
    if (r) {
        return r;
    }
    uint64_t v = 0;
    if (mmx) {
        mmx_enter(c);
        v = mmx_get(c, in->opnd[1].reg) >> (in->imm & 3) * 16 & 0xffff;
    } else {
        unsigned n = (unsigned)in->imm & (16 / size - 1);
        __builtin_memcpy(&v, c->xmm[in->opnd[1].reg].u8 + n * size, size);
    }
    if (in->opnd[0].kind == X86_OPND_GPR) {
        c->gpr[in->opnd[0].reg & 15] = v;
        return X_OK;
    }
    return vec_store_mem(c, in, size, false, _mm_cvtsi64_si128((int64_t)v));
}

/* PINSRB, PINSRW, PINSRD, PINSRQ */
int vec_insert(struct cpu *c, const struct x86_insn *in)
{
    bool mmx = in->opnd[0].kind == X86_OPND_MMX;
    unsigned size = element_size(in->op);
    int r = ready(c, in, mmx);
    if (r) {
        return r;
    }
    uint64_t v;
    if (in->opnd[1].kind == X86_OPND_GPR) {
        v = c->gpr[in->opnd[1].reg & 15];
    } else {
        __m128i m;
        r = vec_load_mem(c, in, size, false, &m);
        if (r) {
            return r;
        }
        v = low64(m);
    }
    if (mmx) {
        unsigned shift = (in->imm & 3) * 16;
        mmx_enter(c);
        mmx_set(c, in->opnd[0].reg,
                (mmx_get(c, in->opnd[0].reg) & ~((uint64_t)0xffff << shift)) | (v & 0xffff) << shift);
    } else {
        unsigned n = (unsigned)in->imm & (16 / size - 1);
        __builtin_memcpy(c->xmm[in->opnd[0].reg].u8 + n * size, &v, size);
    }
    return X_OK;
}
