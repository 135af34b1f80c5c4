/*
 * Op handlers: ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT, and comparisons fused
 * with the conditional jump that follows. SDM 2A.
 */
#include "hv/engine/soft/interp.h"

/* ---- register, register; register, immediate ---- */

#define ALU_RR_RI(name, bits)                                                                     \
    HANDLER(name##_rr##bits)                                                                      \
    {                                                                                             \
        uint##bits##_t v = cc_##name##bits(GET(bits, op->r), GET(bits, op->b), &cc);              \
        SET(bits, op->r, v);                                                                      \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(name##_ri##bits)                                                                      \
    {                                                                                             \
        uint##bits##_t v = cc_##name##bits(GET(bits, op->r), (uint##bits##_t)op->imm, &cc);       \
        SET(bits, op->r, v);                                                                      \
        NEXT;                                                                                     \
    }
#define CMP_RR_RI(name, bits)                                                                     \
    HANDLER(name##_rr##bits)                                                                      \
    {                                                                                             \
        cc_##name##bits(GET(bits, op->r), GET(bits, op->b), &cc);                                 \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(name##_ri##bits)                                                                      \
    {                                                                                             \
        cc_##name##bits(GET(bits, op->r), (uint##bits##_t)op->imm, &cc);                          \
        NEXT;                                                                                     \
    }
/* Nobody reads the flags before they are set again. a, b: the operands. */
#define ALU_NF(name, bits, expr)                                                                  \
    HANDLER(name##_rr##bits##_nf)                                                                 \
    {                                                                                             \
        uint##bits##_t a = GET(bits, op->r), b = GET(bits, op->b);                                \
        SET(bits, op->r, (uint##bits##_t)(expr));                                                 \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(name##_ri##bits##_nf)                                                                 \
    {                                                                                             \
        uint##bits##_t a = GET(bits, op->r), b = (uint##bits##_t)op->imm;                         \
        SET(bits, op->r, (uint##bits##_t)(expr));                                                 \
        NEXT;                                                                                     \
    }

#define ALU_NF_SIZE(bits)                                                                         \
    ALU_NF(add, bits, a + b)                                                                      \
    ALU_NF(or, bits, a | b)                                                                       \
    ALU_NF(adc, bits, a + b + (cc >> 8 & 1))                                                      \
    ALU_NF(sbb, bits, a - b - (cc >> 8 & 1))                                                      \
    ALU_NF(and, bits, a & b)                                                                      \
    ALU_NF(sub, bits, a - b)                                                                      \
    ALU_NF(xor, bits, a ^ b)

/* ---- memory ---- */

#define ALU_RM(name, bits, form)                                                                  \
    H_LOAD(name##_rm##bits##form, EA_##form, bits,                                                \
           uint##bits##_t v = cc_##name##bits(GET(bits, op->r), m, &cc);                          \
           SET(bits, op->r, v);)
#define ALU_MR(name, bits, form)                                                                  \
    H_RMW(name##_mr##bits##form, EA_##form, bits, m = cc_##name##bits(m, GET(bits, op->r), &cc);)
#define ALU_MI(name, bits, form)                                                                  \
    H_RMW(name##_mi##bits##form, EA_##form, bits, m = cc_##name##bits(m, (uint##bits##_t)op->imm, &cc);)
#define CMP_RM(name, bits, form)                                                                  \
    H_LOAD(name##_rm##bits##form, EA_##form, bits, cc_##name##bits(GET(bits, op->r), m, &cc);)
#define CMP_MR(name, bits, form)                                                                  \
    H_LOAD(name##_mr##bits##form, EA_##form, bits, cc_##name##bits(m, GET(bits, op->r), &cc);)
#define CMP_MI(name, bits, form)                                                                  \
    H_LOAD(name##_mi##bits##form, EA_##form, bits, cc_##name##bits(m, (uint##bits##_t)op->imm, &cc);)

#define ALU_MEM(name, bits)                                                                       \
    ALU_RM(name, bits, B) ALU_RM(name, bits, X) ALU_RM(name, bits, G)                             \
    ALU_MR(name, bits, B) ALU_MR(name, bits, X) ALU_MR(name, bits, G)                             \
    ALU_MI(name, bits, B) ALU_MI(name, bits, X) ALU_MI(name, bits, G)
#define CMP_MEM(name, bits)                                                                       \
    CMP_RM(name, bits, B) CMP_RM(name, bits, X) CMP_RM(name, bits, G)                             \
    CMP_MR(name, bits, B) CMP_MR(name, bits, X) CMP_MR(name, bits, G)                             \
    CMP_MI(name, bits, B) CMP_MI(name, bits, X) CMP_MI(name, bits, G)

#define ALU_ALL(name)                                                                             \
    ALU_RR_RI(name, 8) ALU_RR_RI(name, 16) ALU_RR_RI(name, 32) ALU_RR_RI(name, 64)                \
    ALU_MEM(name, 8) ALU_MEM(name, 16) ALU_MEM(name, 32) ALU_MEM(name, 64)
#define CMP_ALL(name)                                                                             \
    CMP_RR_RI(name, 8) CMP_RR_RI(name, 16) CMP_RR_RI(name, 32) CMP_RR_RI(name, 64)                \
    CMP_MEM(name, 8) CMP_MEM(name, 16) CMP_MEM(name, 32) CMP_MEM(name, 64)

ALU_ALL(add)
ALU_ALL(or)
ALU_ALL(adc)
ALU_ALL(sbb)
ALU_ALL(and)
ALU_ALL(sub)
ALU_ALL(xor)
CMP_ALL(cmp)
CMP_ALL(test)
ALU_NF_SIZE(32)
ALU_NF_SIZE(64)

#define ALU_ROWS(suffix)                                                                          \
    {                                                                                             \
        [ALU_ADD] = ALU_ROW(add, suffix), [ALU_OR] = ALU_ROW(or, suffix),                         \
        [ALU_ADC] = ALU_ROW(adc, suffix), [ALU_SBB] = ALU_ROW(sbb, suffix),                       \
        [ALU_AND] = ALU_ROW(and, suffix), [ALU_SUB] = ALU_ROW(sub, suffix),                       \
        [ALU_XOR] = ALU_ROW(xor, suffix), [ALU_CMP] = ALU_ROW(cmp, suffix),                       \
        [ALU_TEST] = ALU_ROW(test, suffix),                                                       \
    }
#define ALU_ROW(name, suffix) { name##_##suffix##8, name##_##suffix##16, name##_##suffix##32, name##_##suffix##64 }
op_handler *const op_alu_rr[ALU_COUNT][SZ_COUNT] = ALU_ROWS(rr);
op_handler *const op_alu_ri[ALU_COUNT][SZ_COUNT] = ALU_ROWS(ri);
#undef ALU_ROW
#define ALU_ROW(name, suffix)                                                                     \
    { FORMS(name##_##suffix##8), FORMS(name##_##suffix##16), FORMS(name##_##suffix##32),          \
      FORMS(name##_##suffix##64) }
op_handler *const op_alu_rm[ALU_COUNT][SZ_COUNT][FORM_COUNT] = ALU_ROWS(rm);
op_handler *const op_alu_mr[ALU_COUNT][SZ_COUNT][FORM_COUNT] = ALU_ROWS(mr);
op_handler *const op_alu_mi[ALU_COUNT][SZ_COUNT][FORM_COUNT] = ALU_ROWS(mi);
#undef ALU_ROW

#define NF_ROWS(suffix)                                                                           \
    {                                                                                             \
        [ALU_ADD] = NF_ROW(add, suffix), [ALU_OR] = NF_ROW(or, suffix),                           \
        [ALU_ADC] = NF_ROW(adc, suffix), [ALU_SBB] = NF_ROW(sbb, suffix),                         \
        [ALU_AND] = NF_ROW(and, suffix), [ALU_SUB] = NF_ROW(sub, suffix),                         \
        [ALU_XOR] = NF_ROW(xor, suffix), [ALU_CMP] = { NULL, NULL, op_nop, op_nop },              \
        [ALU_TEST] = { NULL, NULL, op_nop, op_nop },                                              \
    }
#define NF_ROW(name, suffix) { NULL, NULL, name##_##suffix##32_nf, name##_##suffix##64_nf }
op_handler *const op_alu_rr_nf[ALU_COUNT][SZ_COUNT] = NF_ROWS(rr);
op_handler *const op_alu_ri_nf[ALU_COUNT][SZ_COUNT] = NF_ROWS(ri);

/* ---- one operand ---- */

#define UNARY_R(name, bits)                                                                       \
    HANDLER(name##_r##bits)                                                                       \
    {                                                                                             \
        uint##bits##_t v = cc_##name##bits(GET(bits, op->r), &cc);                                \
        SET(bits, op->r, v);                                                                      \
        NEXT;                                                                                     \
    }
#define UNARY_M(name, bits, form) H_RMW(name##_m##bits##form, EA_##form, bits, m = cc_##name##bits(m, &cc);)
#define UNARY_NF(name, bits, expr)                                                                \
    HANDLER(name##_r##bits##_nf)                                                                  \
    {                                                                                             \
        uint##bits##_t a = GET(bits, op->r);                                                      \
        SET(bits, op->r, (uint##bits##_t)(expr));                                                 \
        NEXT;                                                                                     \
    }
#define UNARY_SIZE(name, bits) UNARY_R(name, bits) UNARY_M(name, bits, B) UNARY_M(name, bits, X) UNARY_M(name, bits, G)
#define UNARY_ALL(name) UNARY_SIZE(name, 8) UNARY_SIZE(name, 16) UNARY_SIZE(name, 32) UNARY_SIZE(name, 64)

/* NOT has no flags; the same shape lets it share the macros. */
#define NOT_SIZE(bits)                                                                            \
    static inline uint##bits##_t cc_not##bits(uint##bits##_t a, uint32_t *cc) { return (uint##bits##_t)~a; }
NOT_SIZE(8)
NOT_SIZE(16)
NOT_SIZE(32)
NOT_SIZE(64)

UNARY_ALL(inc)
UNARY_ALL(dec)
UNARY_ALL(neg)
UNARY_ALL(not)
UNARY_NF(inc, 32, a + 1)
UNARY_NF(inc, 64, a + 1)
UNARY_NF(dec, 32, a - 1)
UNARY_NF(dec, 64, a - 1)
UNARY_NF(neg, 32, -a)
UNARY_NF(neg, 64, -a)

#define UN_ROW(name) { name##_r8, name##_r16, name##_r32, name##_r64 }
op_handler *const op_unary_r[UN_COUNT][SZ_COUNT] = {
    [UN_INC] = UN_ROW(inc), [UN_DEC] = UN_ROW(dec), [UN_NEG] = UN_ROW(neg), [UN_NOT] = UN_ROW(not),
};
op_handler *const op_unary_r_nf[UN_COUNT][SZ_COUNT] = {
    [UN_INC] = { NULL, NULL, inc_r32_nf, inc_r64_nf },
    [UN_DEC] = { NULL, NULL, dec_r32_nf, dec_r64_nf },
    [UN_NEG] = { NULL, NULL, neg_r32_nf, neg_r64_nf },
};
#define UN_MROW(name) { FORMS(name##_m8), FORMS(name##_m16), FORMS(name##_m32), FORMS(name##_m64) }
op_handler *const op_unary_m[UN_COUNT][SZ_COUNT][FORM_COUNT] = {
    [UN_INC] = UN_MROW(inc), [UN_DEC] = UN_MROW(dec), [UN_NEG] = UN_MROW(neg), [UN_NOT] = UN_MROW(not),
};
