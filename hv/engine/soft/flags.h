/*
 * The six arithmetic flags of the guest, and the operations that set them.
 *
 * Guest and host are the same architecture, so the flags are what the host computes:
 * each primitive below runs the one host instruction and keeps its flags as LAHF and SETO
 * give them. That costs what storing the operands of a lazy scheme would, condition tests
 * become one AND, and flags the SDM leaves undefined are those of a real CPU: where an
 * instruction might keep a flag, the guest's flags are loaded before it.
 *
 *   cc   bit 0 OF, bit 8 CF, 10 PF, 12 AF, 14 ZF, 15 SF   (AL from SETO, AH from LAHF)
 *
 * All other bits of a cc word are noise.
 */
#ifndef HV_ENGINE_SOFT_FLAGS_H
#define HV_ENGINE_SOFT_FLAGS_H

#include "hv/engine/soft/cpu.h"

#ifndef __x86_64__
#error "the soft engine computes flags with host instructions: x86-64 hosts only"
#endif

#define CC_OF 0x1u
#define CC_CF 0x100u
#define CC_PF 0x400u
#define CC_AF 0x1000u
#define CC_ZF 0x4000u
#define CC_SF 0x8000u
#define CC_ALL (CC_OF | CC_CF | CC_PF | CC_AF | CC_ZF | CC_SF)

static inline uint32_t cc_from_rflags(uint64_t v)
{
    return (uint32_t)((v & 0xd5) << 8 | (v >> 11 & 1));
}

static inline uint64_t cc_to_rflags(uint32_t cc)
{
    return (cc >> 8 & 0xd5) | (uint64_t)(cc & 1) << 11;
}

/* Condition codes 0..15 as encoded in Jcc, SETcc and CMOVcc. */
#define CC_COND_0(cc) (((cc) & CC_OF) != 0)
#define CC_COND_2(cc) (((cc) & CC_CF) != 0)
#define CC_COND_4(cc) (((cc) & CC_ZF) != 0)
#define CC_COND_6(cc) (((cc) & (CC_CF | CC_ZF)) != 0)
#define CC_COND_8(cc) (((cc) & CC_SF) != 0)
#define CC_COND_10(cc) (((cc) & CC_PF) != 0)
#define CC_COND_12(cc) (((((cc) >> 15) ^ (cc)) & 1) != 0)
#define CC_COND_14(cc) (((((cc) >> 14) | (((cc) >> 15) ^ (cc))) & 1) != 0)
#define CC_COND_1(cc) (!CC_COND_0(cc))
#define CC_COND_3(cc) (!CC_COND_2(cc))
#define CC_COND_5(cc) (!CC_COND_4(cc))
#define CC_COND_7(cc) (!CC_COND_6(cc))
#define CC_COND_9(cc) (!CC_COND_8(cc))
#define CC_COND_11(cc) (!CC_COND_10(cc))
#define CC_COND_13(cc) (!CC_COND_12(cc))
#define CC_COND_15(cc) (!CC_COND_14(cc))

/* The same for a condition known only at run time. */
static inline bool cc_test(uint32_t cc, unsigned cond)
{
    bool r;
    switch (cond >> 1) {
    case 0: r = CC_COND_0(cc); break;
    case 1: r = CC_COND_2(cc); break;
    case 2: r = CC_COND_4(cc); break;
    case 3: r = CC_COND_6(cc); break;
    case 4: r = CC_COND_8(cc); break;
    case 5: r = CC_COND_10(cc); break;
    case 6: r = CC_COND_12(cc); break;
    default: r = CC_COND_14(cc); break;
    }
    return r ^ (cond & 1);
}

/* SF, ZF, PF of a result, all other flags clear: what logic operations leave. */
static inline uint32_t cc_logic(uint64_t v, unsigned size)
{
    uint32_t f;
    v <<= 64 - size * 8;
    uint8_t low = (uint8_t)(v >> (64 - size * 8));
    f = (v == 0 ? CC_ZF : 0) | (v >> 63 ? CC_SF : 0);
    return f | (__builtin_parity(low) ? 0 : CC_PF);
}

/*
 * ROL and ROR of a register by an immediate other than 1 keep OF on Intel CPUs (the SDM leaves it
 * undefined); by CL, and of memory, they compute it. cc: flags by CL; old: before; n: the masked count.
 */
static inline uint32_t cc_rotate_imm(uint32_t cc, uint32_t old, unsigned n)
{
    return n == 1 ? cc : (cc & ~CC_OF) | (old & CC_OF);
}

/* Loads the guest's flags (a copy of cc in EAX) into the host's; then the instruction; then saves them. */
#define CC_LOAD "addb $0x7f, %%al\n\tsahf\n\t"
#define CC_SAVE "\n\tlahf\n\tseto %%al"

/*
 * Two operands, all six flags set: r = cc_add32(a, b, &cc). The pointer is always to a local,
 * which inlining turns into a register.
 */
#define CC_BINARY(name, bits, insn, m)                                                            \
    static inline uint##bits##_t cc_##name##bits(uint##bits##_t a, uint##bits##_t b, uint32_t *cc)\
    {                                                                                             \
        uint32_t f;                                                                               \
        __asm__(insn " %" #m "[b], %" #m "[a]" CC_SAVE                                            \
                : [a] "+&r"(a), "=&a"(f) : [b] "re"(b) : "cc");                                   \
        *cc = f;                                                                                  \
        return a;                                                                                 \
    }
/* The same with CF as an input. */
#define CC_CARRY(name, bits, insn, m)                                                             \
    static inline uint##bits##_t cc_##name##bits(uint##bits##_t a, uint##bits##_t b, uint32_t *cc)\
    {                                                                                             \
        uint32_t f;                                                                               \
        __asm__("btl $8, %k[c]\n\t" insn " %" #m "[b], %" #m "[a]" CC_SAVE                        \
                : [a] "+&r"(a), "=&a"(f) : [b] "re"(b), [c] "r"(*cc) : "cc");                     \
        *cc = f;                                                                                  \
        return a;                                                                                 \
    }
/* Flags of a comparison. */
#define CC_COMPARE(name, bits, insn, m)                                                           \
    static inline void cc_##name##bits(uint##bits##_t a, uint##bits##_t b, uint32_t *cc)          \
    {                                                                                             \
        uint32_t f;                                                                               \
        __asm__(insn " %" #m "[b], %" #m "[a]" CC_SAVE                                            \
                : "=&a"(f) : [a] "r"(a), [b] "re"(b) : "cc");                                     \
        *cc = f;                                                                                  \
    }
/* INC, DEC: CF stays. */
#define CC_STEP(name, bits, insn, m)                                                              \
    static inline uint##bits##_t cc_##name##bits(uint##bits##_t a, uint32_t *cc)                  \
    {                                                                                             \
        uint32_t f;                                                                               \
        __asm__("btl $8, %k[c]\n\t" insn " %" #m "[a]" CC_SAVE                                    \
                : [a] "+&r"(a), "=&a"(f) : [c] "r"(*cc) : "cc");                                  \
        *cc = f;                                                                                  \
        return a;                                                                                 \
    }
#define CC_UNARY(name, bits, insn, m)                                                             \
    static inline uint##bits##_t cc_##name##bits(uint##bits##_t a, uint32_t *cc)                  \
    {                                                                                             \
        uint32_t f;                                                                               \
        __asm__(insn " %" #m "[a]" CC_SAVE : [a] "+&r"(a), "=&a"(f) : : "cc");                    \
        *cc = f;                                                                                  \
        return a;                                                                                 \
    }
/* Shifts and rotates by a count, which the host masks as the guest does; count 0 changes nothing. */
#define CC_SHIFT(name, bits, insn, m)                                                             \
    static inline uint##bits##_t cc_##name##bits(uint##bits##_t a, uint8_t n, uint32_t *cc)       \
    {                                                                                             \
        uint32_t f = *cc;                                                                         \
        __asm__(CC_LOAD insn " %%cl, %" #m "[a]" CC_SAVE                                          \
                : [a] "+&r"(a), "+&a"(f) : "c"(n) : "cc");                                        \
        *cc = f;                                                                                  \
        return a;                                                                                 \
    }
/* SHLD, SHRD. */
#define CC_DSHIFT(name, bits, insn, m)                                                            \
    static inline uint##bits##_t cc_##name##bits(uint##bits##_t a, uint##bits##_t b, uint8_t n,   \
                                                 uint32_t *cc)                                    \
    {                                                                                             \
        uint32_t f = *cc;                                                                         \
        __asm__(CC_LOAD insn " %%cl, %" #m "[b], %" #m "[a]" CC_SAVE                              \
                : [a] "+&r"(a), "+&a"(f) : [b] "r"(b), "c"(n) : "cc");                            \
        *cc = f;                                                                                  \
        return a;                                                                                 \
    }
/* Two operands, destination and flags may be kept: BSF, BSR (zero source), IMUL. */
#define CC_KEEPING(name, bits, insn, m)                                                           \
    static inline uint##bits##_t cc_##name##bits(uint##bits##_t a, uint##bits##_t b, uint32_t *cc)\
    {                                                                                             \
        uint32_t f = *cc;                                                                         \
        __asm__(CC_LOAD insn " %" #m "[b], %" #m "[a]" CC_SAVE                                    \
                : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc");                                    \
        *cc = f;                                                                                  \
        return a;                                                                                 \
    }
/* MUL, IMUL: rDX:rAX = rAX * b. The flags are saved through RBX-free code: RAX holds the product. */
#define CC_MULTIPLY(name, bits, insn, m)                                                          \
    static inline void cc_##name##bits(uint##bits##_t *lo, uint##bits##_t *hi, uint##bits##_t b,  \
                                       uint32_t *cc)                                              \
    {                                                                                             \
        uint64_t a = *lo, d, f = *cc;                                                             \
        __asm__("xchgq %%rax, %[f]\n\t" CC_LOAD "movq %[f], %%rax\n\t" insn " %" #m "[b]\n\t"     \
                "movq %%rax, %[f]" CC_SAVE                                                        \
                : "+&a"(a), "=&d"(d), [f] "+&r"(f) : [b] "r"(b) : "cc");                          \
        *lo = (uint##bits##_t)f;                                                                  \
        *hi = (uint##bits##_t)d;                                                                  \
        *cc = (uint32_t)a;                                                                        \
    }

#define CC_WIDE(bits, s, m)                                                                       \
    CC_KEEPING(bsf, bits, "bsf" s, m)                                                             \
    CC_KEEPING(bsr, bits, "bsr" s, m)                                                             \
    CC_KEEPING(imul, bits, "imul" s, m)                                                           \
    CC_DSHIFT(shld, bits, "shld" s, m)                                                            \
    CC_DSHIFT(shrd, bits, "shrd" s, m)                                                            \
    CC_MULTIPLY(mul2, bits, "mul" s, m)                                                           \
    CC_MULTIPLY(imul2, bits, "imul" s, m)

#define CC_SIZE(bits, s, m)                                                                       \
    CC_BINARY(add, bits, "add" s, m)                                                              \
    CC_BINARY(or, bits, "or" s, m)                                                                \
    CC_BINARY(and, bits, "and" s, m)                                                              \
    CC_BINARY(sub, bits, "sub" s, m)                                                              \
    CC_BINARY(xor, bits, "xor" s, m)                                                              \
    CC_CARRY(adc, bits, "adc" s, m)                                                               \
    CC_CARRY(sbb, bits, "sbb" s, m)                                                               \
    CC_COMPARE(cmp, bits, "cmp" s, m)                                                             \
    CC_COMPARE(test, bits, "test" s, m)                                                           \
    CC_STEP(inc, bits, "inc" s, m)                                                                \
    CC_STEP(dec, bits, "dec" s, m)                                                                \
    CC_UNARY(neg, bits, "neg" s, m)                                                               \
    CC_SHIFT(rol, bits, "rol" s, m)                                                               \
    CC_SHIFT(ror, bits, "ror" s, m)                                                               \
    CC_SHIFT(rcl, bits, "rcl" s, m)                                                               \
    CC_SHIFT(rcr, bits, "rcr" s, m)                                                               \
    CC_SHIFT(shl, bits, "shl" s, m)                                                               \
    CC_SHIFT(shr, bits, "shr" s, m)                                                               \
    CC_SHIFT(sar, bits, "sar" s, m)

CC_SIZE(8, "b", b)
CC_SIZE(16, "w", w)
CC_SIZE(32, "l", k)
CC_SIZE(64, "q", q)
CC_WIDE(16, "w", w)
CC_WIDE(32, "l", k)
CC_WIDE(64, "q", q)

#undef CC_SIZE
#undef CC_WIDE

#endif
