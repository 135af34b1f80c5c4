/*
 * SSE floating point: arithmetic, comparisons, conversions. SDM volume 1, chapter 11.5.
 *
 * Each runs on the host with the guest's rounding and denormal controls and every exception
 * masked; fp_end() then decides from the flags whether the guest gets the result or #XM.
 */
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"

#define XMM(name, len, lanes, need)                                         \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i s;                                                          \
        VEC_NEED(c, need);                                                  \
        int r = vec_ready(c);                                               \
        if (HV_UNLIKELY(r || (r = vec_load(c, in, 1, len, &s)))) {          \
            return r;                                                       \
        }                                                                   \
        __m128i d = xmm_get(c, in->opnd[0].reg);                            \
        uint32_t m = fp_begin(c);                                           \
        __asm__ volatile("ldmxcsr %[m]\n\t" #name " %[s], %[d]\n\tstmxcsr %[m]" \
                         : [d] "+x"(d), [m] "+m"(m) : [s] "x"(s));          \
        r = fp_end(c, m, d, lanes);                                         \
        if (HV_LIKELY(!r)) {                                                \
            xmm_set(c, in->opnd[0].reg, d);                                 \
        }                                                                   \
        return r;                                                           \
    }
FP_XMM(XMM)

#define IMM(name, len, lanes, need)                                         \
    VEC_IMM_STUBS(name, #name " $vec_imm_i, %xmm1, %xmm0");                 \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        VEC_NEED(c, need);                                                  \
        return imm_op(c, in, len, lanes, VEC_IMM(name, in->imm));           \
    }

static int imm_op(struct cpu *c, const struct x86_insn *in, unsigned len, enum fp_lanes lanes, vec_imm_fn *fn)
{
    __m128i s;
    int r = vec_ready(c);
    if (HV_UNLIKELY(r || (r = vec_load(c, in, 1, len, &s)))) {
        return r;
    }
    __m128i d = xmm_get(c, in->opnd[0].reg);
    _mm_setcsr(fp_begin(c));
    d = fn(d, s);
    r = fp_end(c, _mm_getcsr(), d, lanes);
    if (HV_LIKELY(!r)) {
        xmm_set(c, in->opnd[0].reg, d);
    }
    return r;
}
FP_IMM(IMM)

#define COMPARE(name, len)                                                  \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i s;                                                          \
        int r = vec_ready(c);                                               \
        if (HV_UNLIKELY(r || (r = vec_load(c, in, 1, len, &s)))) {          \
            return r;                                                       \
        }                                                                   \
        bool zf, pf, cf;                                                    \
        uint32_t m = fp_begin(c);                                           \
        __asm__ volatile("ldmxcsr %[m]\n\t" #name " %[s], %[d]\n\tstmxcsr %[m]" \
                         : [m] "+m"(m), "=@ccz"(zf), "=@ccp"(pf), "=@ccc"(cf) \
                         : [s] "x"(s), [d] "x"(xmm_get(c, in->opnd[0].reg))); \
        r = fp_end(c, m, s, LANES_NONE);                                    \
        if (HV_LIKELY(!r)) {                                                \
            cpu_set_rflags(c, (zf ? FL_ZF : 0) | (pf ? FL_PF : 0) | (cf ? FL_CF : 0), FL_ARITH); \
        }                                                                   \
        return r;                                                           \
    }
FP_COMPARE(COMPARE)

#define TO_GPR(name, len)                                                   \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i s;                                                          \
        int r = vec_ready(c);                                               \
        if (HV_UNLIKELY(r || (r = vec_load(c, in, 1, len, &s)))) {          \
            return r;                                                       \
        }                                                                   \
        uint64_t v;                                                         \
        uint32_t m = fp_begin(c);                                           \
        if (in->opnd[0].size == 8) {                                        \
            __asm__ volatile("ldmxcsr %[m]\n\t" #name " %[s], %q[v]\n\tstmxcsr %[m]" \
                             : [v] "=r"(v), [m] "+m"(m) : [s] "x"(s));      \
        } else {                                                            \
            __asm__ volatile("ldmxcsr %[m]\n\t" #name " %[s], %k[v]\n\tstmxcsr %[m]" \
                             : [v] "=r"(v), [m] "+m"(m) : [s] "x"(s));      \
        }                                                                   \
        r = fp_end(c, m, s, LANES_NONE);                                    \
        if (HV_LIKELY(!r)) {                                                \
            cpu_reg_set(c, in->opnd[0].reg, 8, v);                          \
        }                                                                   \
        return r;                                                           \
    }
FP_TO_GPR(TO_GPR)

#define FROM_GPR(name)                                                      \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        uint64_t v;                                                         \
        int r = vec_ready(c);                                               \
        if (HV_UNLIKELY(r || (r = cpu_opnd_get(c, in, 1, &v)))) {           \
            return r;                                                       \
        }                                                                   \
        __m128i d = xmm_get(c, in->opnd[0].reg);                            \
        uint32_t m = fp_begin(c);                                           \
        if (in->opnd[1].size == 8) {                                        \
            __asm__ volatile("ldmxcsr %[m]\n\t" #name "q %q[v], %[d]\n\tstmxcsr %[m]" \
                             : [d] "+x"(d), [m] "+m"(m) : [v] "r"(v));      \
        } else {                                                            \
            __asm__ volatile("ldmxcsr %[m]\n\t" #name "l %k[v], %[d]\n\tstmxcsr %[m]" \
                             : [d] "+x"(d), [m] "+m"(m) : [v] "r"(v));      \
        }                                                                   \
        r = fp_end(c, m, d, LANES_NONE);                                    \
        if (HV_LIKELY(!r)) {                                                \
            xmm_set(c, in->opnd[0].reg, d);                                 \
        }                                                                   \
        return r;                                                           \
    }
FP_FROM_GPR(FROM_GPR)

/* ---- between MMX and XMM ---- */

/* Checks of an instruction that touches both files: SSE's, then a pending x87 exception. */
static int both_ready(struct cpu *c)
{
    int r = vec_ready(c);
    return r ? r : fpu_check_mmx(c);
}

/* Two floats use half of the XMM instruction; the other half is zeros, which raise nothing. */
#define TO_MMX(name, wide, len)                                             \
    int op_##name(struct cpu *c, const struct x86_insn *in)                 \
    {                                                                       \
        __m128i s;                                                          \
        int r = both_ready(c);                                              \
        if (r || (r = vec_load(c, in, 1, len, &s))) {                       \
            return r;                                                       \
        }                                                                   \
        if (len == 8) {                                                     \
            s = _mm_move_epi64(s);                                          \
        }                                                                   \
        __m128i d = _mm_setzero_si128();                                    \
        uint32_t m = fp_begin(c);                                           \
        __asm__ volatile("ldmxcsr %[m]\n\t" #wide " %[s], %[d]\n\tstmxcsr %[m]" \
                         : [d] "+x"(d), [m] "+m"(m) : [s] "x"(s));          \
        mmx_enter(c);                                                       \
        r = fp_end(c, m, d, LANES_NONE);                                    \
        if (!r) {                                                           \
            mmx_set(c, in->opnd[0].reg, low64(d));                          \
        }                                                                   \
        return r;                                                           \
    }
FP_TO_MMX(TO_MMX)

int op_CVTPI2PS(struct cpu *c, const struct x86_insn *in)
{
    __m128i s, v = _mm_setzero_si128();
    int r = both_ready(c);
    if (r || (r = mmx_source(c, in, 1, &s))) {
        return r;
    }
    uint32_t m = fp_begin(c);
    __asm__ volatile("ldmxcsr %[m]\n\tcvtdq2ps %[s], %[v]\n\tstmxcsr %[m]"
                     : [v] "+x"(v), [m] "+m"(m) : [s] "x"(s));
    if (in->opnd[1].kind == X86_OPND_MMX) {
        mmx_enter(c);
    }
    r = fp_end(c, m, v, LANES_NONE);
    if (!r) {
        c->xmm[in->opnd[0].reg].u64[0] = low64(v);
    }
    return r;
}

/* Exact, so no flags; a memory source does not touch the MMX state. */
int op_CVTPI2PD(struct cpu *c, const struct x86_insn *in)
{
    __m128i s;
    bool mmx = in->opnd[1].kind == X86_OPND_MMX;
    int r = mmx ? both_ready(c) : vec_ready(c);
    if (r || (r = mmx_source(c, in, 1, &s))) {
        return r;
    }
    if (mmx) {
        mmx_enter(c);
    }
    __asm__("cvtdq2pd %0, %0" : "+x"(s));
    xmm_set(c, in->opnd[0].reg, s);
    return X_OK;
}
