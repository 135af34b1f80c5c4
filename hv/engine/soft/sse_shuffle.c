/* MMX and SSE integer and shuffle instructions whose immediate selects: stubs, see vec.h. */
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"

static inline int xmm_operands(struct cpu *c, const struct x86_insn *in, __m128i *d, __m128i *s)
{
    int r = vec_ready(c);
    if (HV_UNLIKELY(r)) {
        return r;
    }
    r = vec_load(c, in, 1, 16, s);
    *d = xmm_get(c, in->opnd[0].reg);
    return r;
}

#define IMM(name, need)                                                     \
    VEC_IMM_STUBS(name, #name " $vec_imm_i, %xmm1, %xmm0");                 \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i d, s;                                                       \
        VEC_NEED(c, need);                                                  \
        int r = xmm_operands(c, in, &d, &s);                                \
        if (HV_UNLIKELY(r)) {                                               \
            return r;                                                       \
        }                                                                   \
        xmm_set(c, in->opnd[0].reg, VEC_IMM(name, in->imm)(d, s));          \
        return X_OK;                                                        \
    }
INT_IMM(IMM)

VEC_IMM_STUBS(PSLLDQ, "pslldq $vec_imm_i, %xmm0");
VEC_IMM_STUBS(PSRLDQ, "psrldq $vec_imm_i, %xmm0");
VEC_IMM_STUBS(PALIGNR, "palignr $vec_imm_i, %xmm1, %xmm0");
VEC_IMM_STUBS(INSERTPS, "insertps $vec_imm_i, %xmm1, %xmm0");

static int shift_bytes(struct cpu *c, const struct x86_insn *in, vec_imm_fn *fn)
{
    int r = vec_ready(c);
    if (r) {
        return r;
    }
    __m128i d = xmm_get(c, in->opnd[0].reg);
    xmm_set(c, in->opnd[0].reg, fn(d, d));
    return X_OK;
}

int op_PSLLDQ(struct cpu *c, const struct x86_insn *in)
{
    return shift_bytes(c, in, VEC_IMM(PSLLDQ, in->imm));
}

int op_PSRLDQ(struct cpu *c, const struct x86_insn *in)
{
    return shift_bytes(c, in, VEC_IMM(PSRLDQ, in->imm));
}

int op_PSHUFW(struct cpu *c, const struct x86_insn *in)
{
    __m128i d, s;
    int r = mmx_operands(c, in, &d, &s);
    if (r) {
        return r;
    }
    mmx_set(c, in->opnd[0].reg, low64(VEC_IMM(PSHUFLW, in->imm)(d, s)));
    return X_OK;
}

int op_PALIGNR(struct cpu *c, const struct x86_insn *in)
{
    __m128i d, s;
    VEC_NEED(c, NEED_SSSE3);
    if (in->opnd[0].kind == X86_OPND_MMX) {
        int r = mmx_operands(c, in, &d, &s);
        if (r) {
            return r;
        }
        s = _mm_unpacklo_epi64(s, d);       /* destination above source, shifted down */
        mmx_set(c, in->opnd[0].reg, low64(VEC_IMM(PSRLDQ, in->imm)(s, s)));
        return X_OK;
    }
    int r = xmm_operands(c, in, &d, &s);
    if (r) {
        return r;
    }
    xmm_set(c, in->opnd[0].reg, VEC_IMM(PALIGNR, in->imm)(d, s));
    return X_OK;
}

int op_PSHUFB(struct cpu *c, const struct x86_insn *in)
{
    __m128i d, s;
    VEC_NEED(c, NEED_SSSE3);
    if (in->opnd[0].kind == X86_OPND_MMX) {
        int r = mmx_operands(c, in, &d, &s);
        if (r) {
            return r;
        }
        s = _mm_and_si128(s, _mm_set1_epi8((char)0x87));    /* indices are 3 bits here */
        __asm__("pshufb %1, %0" : "+x"(d) : "x"(s));
        mmx_set(c, in->opnd[0].reg, low64(d));
        return X_OK;
    }
    int r = xmm_operands(c, in, &d, &s);
    if (HV_UNLIKELY(r)) {
        return r;
    }
    __asm__("pshufb %1, %0" : "+x"(d) : "x"(s));
    xmm_set(c, in->opnd[0].reg, d);
    return X_OK;
}

int op_INSERTPS(struct cpu *c, const struct x86_insn *in)
{
    __m128i s;
    VEC_NEED(c, NEED_SSE41);
    int r = vec_ready(c);
    if (r || (r = vec_load(c, in, 1, 4, &s))) {
        return r;
    }
    /* A memory source is one element: bits 7:6, which of a register to take, do not apply. */
    unsigned imm = in->opnd[1].kind == X86_OPND_MEM ? in->imm & 0x3f : in->imm & 0xff;
    xmm_set(c, in->opnd[0].reg, VEC_IMM(INSERTPS, imm)(xmm_get(c, in->opnd[0].reg), s));
    return X_OK;
}
