/*
 * MMX and SSE integer instructions, and the bitwise and shuffling ones of floating-point
 * registers that raise no exceptions. SDM volume 1, chapters 9 to 12; volume 2.
 */
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"

/* The host instruction itself: d = d op s. */
#define RUN(name, d, s) __asm__(#name " %1, %0" : "+x"(d) : "x"(s))

/* Both operands of an XMM instruction, after its checks. */
static inline int xmm_operands(struct cpu *c, const struct x86_insn *in, unsigned size, __m128i *d, __m128i *s)
{
    int r = vec_ready(c);
    if (HV_UNLIKELY(r)) {
        return r;
    }
    r = vec_load(c, in, 1, size, s);
    *d = xmm_get(c, in->opnd[0].reg);
    return r;
}

#define SAME(name, need)                                                    \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i d, s;                                                       \
        VEC_NEED(c, need);                                                  \
        if (HV_UNLIKELY(in->opnd[0].kind == X86_OPND_MMX)) {                \
            int r = mmx_operands(c, in, &d, &s);                            \
            if (r) {                                                        \
                return r;                                                   \
            }                                                               \
            RUN(name, d, s);                                                \
            mmx_set(c, in->opnd[0].reg, low64(d));                          \
            return X_OK;                                                    \
        }                                                                   \
        int r = xmm_operands(c, in, 16, &d, &s);                            \
        if (HV_UNLIKELY(r)) {                                               \
            return r;                                                       \
        }                                                                   \
        RUN(name, d, s);                                                    \
        xmm_set(c, in->opnd[0].reg, d);                                     \
        return X_OK;                                                        \
    }
INT_SAME(SAME)

/* Counts above the lane width give zeros or signs, as the hardware does with all 64 bits of the count. */
#define SHIFT(name, need)                                                   \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i d, s;                                                       \
        if (in->opnd[0].kind == X86_OPND_MMX) {                             \
            int r = mmx_operands(c, in, &d, &s);                            \
            if (r) {                                                        \
                return r;                                                   \
            }                                                               \
            RUN(name, d, s);                                                \
            mmx_set(c, in->opnd[0].reg, low64(d));                          \
            return X_OK;                                                    \
        }                                                                   \
        int r = vec_ready(c);                                               \
        if (HV_UNLIKELY(r)) {                                               \
            return r;                                                       \
        }                                                                   \
        if (in->opnd[1].kind == X86_OPND_IMM) {                             \
            s = _mm_cvtsi32_si128((int)(in->imm & 0xff));                   \
        } else if (HV_UNLIKELY((r = vec_load(c, in, 1, 16, &s)))) {         \
            return r;                                                       \
        }                                                                   \
        d = xmm_get(c, in->opnd[0].reg);                                    \
        RUN(name, d, s);                                                    \
        xmm_set(c, in->opnd[0].reg, d);                                     \
        return X_OK;                                                        \
    }
INT_SHIFT(SHIFT)

/* MMX: destination and source side by side in one XMM register, which then meets itself. */
#define JOIN(name, need)                                                    \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i d, s;                                                       \
        VEC_NEED(c, need);                                                  \
        if (in->opnd[0].kind == X86_OPND_MMX) {                             \
            int r = mmx_operands(c, in, &d, &s);                            \
            if (r) {                                                        \
                return r;                                                   \
            }                                                               \
            d = s = _mm_unpacklo_epi64(d, s);                               \
            RUN(name, d, s);                                                \
            mmx_set(c, in->opnd[0].reg, low64(d));                          \
            return X_OK;                                                    \
        }                                                                   \
        int r = xmm_operands(c, in, 16, &d, &s);                            \
        if (HV_UNLIKELY(r)) {                                               \
            return r;                                                       \
        }                                                                   \
        RUN(name, d, s);                                                    \
        xmm_set(c, in->opnd[0].reg, d);                                     \
        return X_OK;                                                        \
    }
INT_JOIN(JOIN)

/* MMX: interleaving the low halves of XMM registers makes 16 bytes; the upper 8 are the result. */
#define HIGH(name, low)                                                     \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i d, s;                                                       \
        if (in->opnd[0].kind == X86_OPND_MMX) {                             \
            int r = mmx_operands(c, in, &d, &s);                            \
            if (r) {                                                        \
                return r;                                                   \
            }                                                               \
            RUN(low, d, s);                                                 \
            mmx_set(c, in->opnd[0].reg, low64(_mm_unpackhi_epi64(d, d)));   \
            return X_OK;                                                    \
        }                                                                   \
        int r = xmm_operands(c, in, 16, &d, &s);                            \
        if (HV_UNLIKELY(r)) {                                               \
            return r;                                                       \
        }                                                                   \
        RUN(name, d, s);                                                    \
        xmm_set(c, in->opnd[0].reg, d);                                     \
        return X_OK;                                                        \
    }
INT_HIGH(HIGH)

#define XMM(name, len, need)                                                \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i d, s;                                                       \
        VEC_NEED(c, need);                                                  \
        int r = xmm_operands(c, in, len, &d, &s);                           \
        if (HV_UNLIKELY(r)) {                                               \
            return r;                                                       \
        }                                                                   \
        RUN(name, d, s);                                                    \
        xmm_set(c, in->opnd[0].reg, d);                                     \
        return X_OK;                                                        \
    }
INT_XMM(XMM)

#define XMM0(name, need)                                                    \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i d, s;                                                       \
        VEC_NEED(c, need);                                                  \
        int r = xmm_operands(c, in, 16, &d, &s);                            \
        if (HV_UNLIKELY(r)) {                                               \
            return r;                                                       \
        }                                                                   \
        register __m128i m __asm__("xmm0") = xmm_get(c, 0);                 \
        __asm__(#name " %%xmm0, %1, %0" : "+x"(d) : "x"(s), "x"(m));        \
        xmm_set(c, in->opnd[0].reg, d);                                     \
        return X_OK;                                                        \
    }
INT_XMM0(XMM0)

int op_PTEST(struct cpu *c, const struct x86_insn *in)
{
    __m128i d, s;
    bool zf, cf;
    VEC_NEED(c, NEED_SSE41);
    int r = xmm_operands(c, in, 16, &d, &s);
    if (r) {
        return r;
    }
    __asm__("ptest %3, %2" : "=@ccz"(zf), "=@ccc"(cf) : "x"(d), "x"(s));
    cpu_set_rflags(c, (zf ? FL_ZF : 0) | (cf ? FL_CF : 0), FL_ARITH);
    return X_OK;
}
