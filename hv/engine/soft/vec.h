/*
 * What the vector instruction files share: operands in and out, availability checks,
 * and MXCSR around floating point. Instructions run on the host's own (an x86-64 host),
 * so a body here is: fetch operands, one asm statement, store.
 *
 * MMX forms run in the low half of an XMM register, never on host MMX: that keeps the
 * host's x87 state out of it. Upper lanes are zero on entry and ignored afterwards.
 */
#ifndef HV_ENGINE_SOFT_VEC_H
#define HV_ENGINE_SOFT_VEC_H

#include <emmintrin.h>

#include "hv/engine/soft/cpu.h"

/* ---- availability ---- */

static inline int vec_ready(struct cpu *c)
{
    if (HV_LIKELY(!(c->cr0 & (CR0_EM | CR0_TS)) && c->cr4 & CR4_OSFXSR)) {
        return X_OK;
    }
    return fpu_check_sse(c);
}

/*
 * Host instruction sets past SSE2: an instruction the host lacks is #UD whatever the guest's
 * CPUID says, so that no guest can make this process die of SIGILL. Filled at start, fpu.c.
 */
enum vec_need {
    NEED_SSE3 = 1, NEED_SSSE3 = 2, NEED_SSE41 = 4, NEED_SSE42 = 8, NEED_AES = 16, NEED_PCLMUL = 32, NEED_SHA = 64,
};
extern unsigned vec_host;

#define VEC_NEED(c, need)                                       \
    do {                                                        \
        if ((need) && HV_UNLIKELY(!(vec_host & (need)))) {      \
            return cpu_raise(c, VEC_UD);                        \
        }                                                       \
    } while (0)

/* ---- memory operands ---- */

/*
 * Linear address of the memory operand if it takes no segment check beyond the canonical one,
 * which a TLB hit implies. False: cpu_mem_lin() has to find it.
 */
static inline bool vec_fast_va(struct cpu *c, const struct x86_insn *in, uint64_t *ret)
{
    if (HV_UNLIKELY(!(c->mode & MODE_CODE64) || in->adsize != 8)) {
        return false;
    }
    uint64_t va = (uint64_t)in->disp;
    if (in->base < 16) {
        va += c->gpr[in->base];
    } else if (in->base == X86_REG_RIP) {
        va += c->next_rip;
    }
    if (in->index < 16) {
        va += c->gpr[in->index] << in->scale;
    }
    if (in->seg >= X86_SEG_FS) {
        va += c->seg[in->seg].base;
    }
    *ret = va;
    return true;
}

int vec_load_slow(struct cpu *c, const struct x86_insn *in, unsigned size, bool aligned, __m128i *ret);
int vec_store_slow(struct cpu *c, const struct x86_insn *in, unsigned size, bool aligned, __m128i v);

/* Fetch size (1..16) bytes, zero-extended. aligned: #GP(0) unless at a multiple of size. */
static inline int vec_load_mem(struct cpu *c, const struct x86_insn *in, unsigned size, bool aligned, __m128i *ret)
{
    uint64_t va;
    if (HV_LIKELY(vec_fast_va(c, in, &va) && !(aligned && va & (size - 1)))) {
        struct tlb_entry *t = tlb_at(c, va);
        if (HV_LIKELY(((va + size - 1) & HV_PAGE_MASK) == t->rtag)) {
            __m128i v = _mm_setzero_si128();
            __builtin_memcpy(&v, (const void *)(va + t->addend), size);
            *ret = v;
            return X_OK;
        }
    }
    return vec_load_slow(c, in, size, aligned, ret);
}

static inline int vec_store_mem(struct cpu *c, const struct x86_insn *in, unsigned size, bool aligned, __m128i v)
{
    uint64_t va;
    if (HV_LIKELY(vec_fast_va(c, in, &va) && !(aligned && va & (size - 1)))) {
        struct tlb_entry *t = tlb_at(c, va);
        if (HV_LIKELY(((va + size - 1) & HV_PAGE_MASK) == t->wtag)) {
            __builtin_memcpy((void *)(va + t->addend), &v, size);
            return X_OK;
        }
    }
    return vec_store_slow(c, in, size, aligned, v);
}

/* ---- registers ---- */

static inline __m128i xmm_get(const struct cpu *c, unsigned reg)
{
    return _mm_load_si128((const __m128i *)(const void *)&c->xmm[reg]);
}

static inline void xmm_set(struct cpu *c, unsigned reg, __m128i v)
{
    _mm_store_si128((__m128i *)(void *)&c->xmm[reg], v);
}

static inline uint64_t low64(__m128i v)
{
    return (uint64_t)_mm_cvtsi128_si64(v);
}

/* Operand n, an XMM register or memory; the whole register, or size bytes of memory zero-extended. */
static inline int vec_load(struct cpu *c, const struct x86_insn *in, unsigned n, unsigned size, __m128i *ret)
{
    if (in->opnd[n].kind == X86_OPND_XMM) {
        *ret = xmm_get(c, in->opnd[n].reg);
        return X_OK;
    }
    return vec_load_mem(c, in, size, size == 16, ret);
}

/* MMi is the significand of physical register i; writing sets sign and exponent to ones. SDM 1, 9.2 */
static inline uint64_t mmx_get(const struct cpu *c, unsigned reg)
{
    uint64_t v;
    __builtin_memcpy(&v, &c->x87.st[reg & 7], 8);
    return v;
}

static inline void mmx_set(struct cpu *c, unsigned reg, uint64_t v)
{
    const uint16_t ones = 0xffff;
    __builtin_memcpy(&c->x87.st[reg & 7], &v, 8);
    __builtin_memcpy((char *)&c->x87.st[reg & 7] + 8, &ones, 2);
}

/* Every MMX instruction but EMMS makes all registers valid and TOP 0. SDM 1, 9.5.1 */
static inline void mmx_enter(struct cpu *c)
{
    c->x87.sw &= (uint16_t)~0x3800u;
    c->x87.tag = 0xff;
}

/*
 * Operands 0 and 1 of an MMX instruction (1: register, memory or an immediate count), after all its
 * checks; the transition to MMX state is done.
 */
int mmx_operands(struct cpu *c, const struct x86_insn *in, __m128i *ret_dst, __m128i *ret_src);
/* Operand n of an instruction that mixes MMX with other registers; no checks, no transition. */
int mmx_source(struct cpu *c, const struct x86_insn *in, unsigned n, __m128i *ret);

/* ---- MXCSR ---- */

#define MXCSR_FLAGS 0x3fu
#define MXCSR_IE 0x01u
#define MXCSR_DE 0x02u
#define MXCSR_ZE 0x04u
#define MXCSR_UE 0x10u
#define MXCSR_UM 0x800u
#define MXCSR_FTZ 0x8000u
#define MXCSR_CONTROL 0xe040u          /* FTZ, RC, DAZ: what changes results */
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_MASK 0xffffu

/* Results of which an exact but tiny one raises an unmasked underflow; fp_trap() has to look. */
enum fp_lanes { LANES_NONE, LANES_SS, LANES_SD, LANES_PS, LANES_PD };

/* Host MXCSR for one guest operation: its control bits, everything masked, no flags. */
static inline uint32_t fp_begin(const struct cpu *c)
{
    uint32_t keep = c->mxcsr & MXCSR_UM ? MXCSR_CONTROL : MXCSR_CONTROL & ~MXCSR_FTZ;
    return (c->mxcsr & keep) | MXCSR_DEFAULT;
}

/* An exception the guest has not masked, or one that might be. X_OK if it was none after all. */
int fp_trap(struct cpu *c, uint32_t raised, __m128i result, enum fp_lanes lanes);

/*
 * Take over what the operation raised (host: MXCSR after it). X_OK: write the destination;
 * else #XM is raised and the destination stays.
 */
static inline int fp_end(struct cpu *c, uint32_t host, __m128i result, enum fp_lanes lanes)
{
    uint32_t raised = host & MXCSR_FLAGS;
    if (HV_UNLIKELY(host & MXCSR_CONTROL)) {
        _mm_setcsr(MXCSR_DEFAULT);          /* other host code rounds to nearest */
    }
    if (HV_UNLIKELY(raised & ~(c->mxcsr >> 7) || !(c->mxcsr & MXCSR_UM))) {
        return fp_trap(c, raised, result, lanes);
    }
    c->mxcsr |= raised;
    return X_OK;
}

/*
 * Instructions whose immediate is part of the encoding: 256 stubs of 16 bytes, each a function
 * of the normal calling convention (first operand and result XMM0, second XMM1).
 */
typedef __m128i vec_imm_fn(__m128i dst, __m128i src);

#define VEC_IMM_STUBS(name, text)                       \
    __asm__(".text\n"                                   \
            ".balign 16\n"                              \
            "vec_imm_" #name ":\n"                      \
            ".set vec_imm_i, 0\n"                       \
            ".rept 256\n"                               \
            ".balign 16\n"                              \
            text "\n"                                   \
            "ret\n"                                     \
            ".set vec_imm_i, vec_imm_i + 1\n"           \
            ".endr\n"                                   \
            ".type vec_imm_" #name ", @function\n"      \
            ".size vec_imm_" #name ", . - vec_imm_" #name "\n"); \
    extern const uint8_t vec_imm_##name[256][16] __attribute__((visibility("hidden")))

#define VEC_IMM(name, imm) ((vec_imm_fn *)(uintptr_t)vec_imm_##name[(imm) & 0xff])

#endif
