/*
 * Op handlers: shifts, rotates, SHLD and SHRD, MUL and IMUL, BT, BSF, BSR. SDM 2A, 2B.
 */
#include "hv/engine/soft/interp.h"

#define SIZES(h) { h##8, h##16, h##32, h##64 }
#define WIDE(h) { [SZ_16] = h##16, [SZ_32] = h##32, [SZ_64] = h##64 }
#define WIDE_FORMS(h) { [SZ_16] = FORMS(h##16), [SZ_32] = FORMS(h##32), [SZ_64] = FORMS(h##64) }

/* fix: what the immediate form does to the flags beyond the form by CL; old: the flags before. */
#define SHIFT(name, bits, fix)                                                                    \
    HANDLER(name##_ri##bits)                                                                      \
    {                                                                                             \
        uint32_t old HV_UNUSED = cc;                                                              \
        uint##bits##_t v = cc_##name##bits(GET(bits, op->r), (uint8_t)op->imm, &cc);              \
        SET(bits, op->r, v);                                                                      \
        fix;                                                                                      \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(name##_rc##bits)                                                                      \
    {                                                                                             \
        uint##bits##_t v = cc_##name##bits(GET(bits, op->r), GET(8, R_RCX), &cc);                 \
        SET(bits, op->r, v);                                                                      \
        NEXT;                                                                                     \
    }
#define SHIFT_ALL(name, fix) SHIFT(name, 8, fix(8)) SHIFT(name, 16, fix(16)) SHIFT(name, 32, fix(32)) SHIFT(name, 64, fix(64))
#define ROTATED(bits) cc = cc_rotate_imm(cc, old, (unsigned)op->imm & (bits == 64 ? 63 : 31))
#define AS_BY_CL(bits) (void)0
SHIFT_ALL(rol, ROTATED)
SHIFT_ALL(ror, ROTATED)
SHIFT_ALL(rcl, AS_BY_CL)
SHIFT_ALL(rcr, AS_BY_CL)
SHIFT_ALL(shl, AS_BY_CL)
SHIFT_ALL(shr, AS_BY_CL)
SHIFT_ALL(sar, AS_BY_CL)
op_handler *const op_shift_ri[SH_COUNT][SZ_COUNT] = {
    [SH_ROL] = SIZES(rol_ri), [SH_ROR] = SIZES(ror_ri), [SH_RCL] = SIZES(rcl_ri), [SH_RCR] = SIZES(rcr_ri),
    [SH_SHL] = SIZES(shl_ri), [SH_SHR] = SIZES(shr_ri), [SH_SAR] = SIZES(sar_ri),
};
op_handler *const op_shift_rc[SH_COUNT][SZ_COUNT] = {
    [SH_ROL] = SIZES(rol_rc), [SH_ROR] = SIZES(ror_rc), [SH_RCL] = SIZES(rcl_rc), [SH_RCR] = SIZES(rcr_rc),
    [SH_SHL] = SIZES(shl_rc), [SH_SHR] = SIZES(shr_rc), [SH_SAR] = SIZES(sar_rc),
};

/* Flags dead, count 1..bits-1 (lowering masks it). a, n: operand and count. */
#define SHIFT_NF(name, bits, expr)                                                                \
    HANDLER(name##_ri##bits##_nf)                                                                 \
    {                                                                                             \
        uint##bits##_t a = GET(bits, op->r);                                                      \
        unsigned n = (unsigned)op->imm & (bits - 1);                                              \
        SET(bits, op->r, (uint##bits##_t)(expr));                                                 \
        NEXT;                                                                                     \
    }
#define SHIFT_NF_SIZE(bits)                                                                       \
    SHIFT_NF(rol, bits, a << n | a >> (-n & (bits - 1)))                                          \
    SHIFT_NF(ror, bits, a >> n | a << (-n & (bits - 1)))                                          \
    SHIFT_NF(shl, bits, a << n)                                                                   \
    SHIFT_NF(shr, bits, a >> n)                                                                   \
    SHIFT_NF(sar, bits, (int##bits##_t)a >> n)
SHIFT_NF_SIZE(32)
SHIFT_NF_SIZE(64)
#define NF(h) { [SZ_32] = h##32_nf, [SZ_64] = h##64_nf }
op_handler *const op_shift_ri_nf[SH_COUNT][SZ_COUNT] = {
    [SH_ROL] = NF(rol_ri), [SH_ROR] = NF(ror_ri), [SH_SHL] = NF(shl_ri), [SH_SHR] = NF(shr_ri), [SH_SAR] = NF(sar_ri),
};

#define DSHIFT(name, bits)                                                                        \
    HANDLER(name##bits)                                                                           \
    {                                                                                             \
        uint##bits##_t v = cc_##name##bits(GET(bits, op->r), GET(bits, op->b), (uint8_t)op->imm, &cc); \
        SET(bits, op->r, v);                                                                      \
        NEXT;                                                                                     \
    }
DSHIFT(shld, 16)
DSHIFT(shld, 32)
DSHIFT(shld, 64)
DSHIFT(shrd, 16)
DSHIFT(shrd, 32)
DSHIFT(shrd, 64)
op_handler *const op_dshift_ri[2][SZ_COUNT] = { WIDE(shld), WIDE(shrd) };

/* ---- multiplication ---- */

#define MULTIPLY(bits)                                                                            \
    HANDLER(imul_rr##bits)                                                                        \
    {                                                                                             \
        uint##bits##_t v = cc_imul##bits(GET(bits, op->r), GET(bits, op->b), &cc);                \
        SET(bits, op->r, v);                                                                      \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(imul_rri##bits)                                                                       \
    {                                                                                             \
        uint##bits##_t v = cc_imul##bits((uint##bits##_t)op->imm, GET(bits, op->b), &cc);         \
        SET(bits, op->r, v);                                                                      \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(mul_r##bits)                                                                          \
    {                                                                                             \
        uint##bits##_t lo = GET(bits, R_RAX), hi;                                                 \
        cc_mul2##bits(&lo, &hi, GET(bits, op->r), &cc);                                           \
        SET(bits, R_RAX, lo);                                                                     \
        SET(bits, R_RDX, hi);                                                                     \
        NEXT;                                                                                     \
    }                                                                                             \
    FORMS_OF(MULTIPLY_M, bits)
#define MULTIPLY_M(bits, form)                                                                    \
    H_LOAD(imul_rm##bits##form, EA_##form, bits,                                                  \
           uint##bits##_t v = cc_imul##bits(GET(bits, op->r), m, &cc);                            \
           SET(bits, op->r, v);)                                                                  \
    H_LOAD(mul_m##bits##form, EA_##form, bits,                                                    \
           uint##bits##_t lo = GET(bits, R_RAX), hi;                                              \
           cc_mul2##bits(&lo, &hi, m, &cc);                                                       \
           SET(bits, R_RAX, lo);                                                                  \
           SET(bits, R_RDX, hi);)
MULTIPLY(16)
MULTIPLY(32)
MULTIPLY(64)
op_handler *const op_imul_rr[SZ_COUNT] = WIDE(imul_rr);
op_handler *const op_imul_rri[SZ_COUNT] = WIDE(imul_rri);
op_handler *const op_imul_rm[SZ_COUNT][FORM_COUNT] = WIDE_FORMS(imul_rm);
op_handler *const op_mul_r[SZ_COUNT] = WIDE(mul_r);
op_handler *const op_mul_m[SZ_COUNT][FORM_COUNT] = WIDE_FORMS(mul_m);

HANDLER(imul_rr32_nf) { SET(32, op->r, GET(32, op->r) * GET(32, op->b)); NEXT; }
HANDLER(imul_rr64_nf) { SET(64, op->r, GET(64, op->r) * GET(64, op->b)); NEXT; }
HANDLER(mul_r32_nf)
{
    uint64_t v = (uint64_t)GET(32, R_RAX) * GET(32, op->r);
    SET(32, R_RAX, (uint32_t)v);
    SET(32, R_RDX, (uint32_t)(v >> 32));
    NEXT;
}
HANDLER(mul_r64_nf)
{
    unsigned __int128 v = (unsigned __int128)GET(64, R_RAX) * GET(64, op->r);
    SET(64, R_RAX, (uint64_t)v);
    SET(64, R_RDX, (uint64_t)(v >> 64));
    NEXT;
}
op_handler *const op_imul_rr_nf[SZ_COUNT] = { [SZ_32] = imul_rr32_nf, [SZ_64] = imul_rr64_nf };
op_handler *const op_mul_r_nf[SZ_COUNT] = { [SZ_32] = mul_r32_nf, [SZ_64] = mul_r64_nf };

/* ---- bits of registers: BT changes CF alone ---- */

#define BIT(bits)                                                                                 \
    HANDLER(bt_ri##bits)                                                                          \
    {                                                                                             \
        unsigned n = (unsigned)op->imm & (bits - 1);                                              \
        cc = (cc & ~CC_CF) | ((GET(bits, op->r) >> n & 1) ? CC_CF : 0);                           \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(bt_rr##bits)                                                                          \
    {                                                                                             \
        unsigned n = (unsigned)GET(bits, op->b) & (bits - 1);                                     \
        cc = (cc & ~CC_CF) | ((GET(bits, op->r) >> n & 1) ? CC_CF : 0);                           \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(bsf_rr##bits)                                                                         \
    {                                                                                             \
        uint##bits##_t v = cc_bsf##bits(GET(bits, op->r), GET(bits, op->b), &cc);                 \
        SET_BS(bits, op->r, v);                                                                   \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(bsr_rr##bits)                                                                         \
    {                                                                                             \
        uint##bits##_t v = cc_bsr##bits(GET(bits, op->r), GET(bits, op->b), &cc);                 \
        SET_BS(bits, op->r, v);                                                                   \
        NEXT;                                                                                     \
    }
/* A zero source keeps the destination, bits 63..32 too. */
#define SET_BS(bits, r, v)                                                                        \
    do {                                                                                          \
        if (!(cc & CC_ZF))                                                                        \
            SET(bits, r, v);                                                                      \
    } while (0)
BIT(16)
BIT(32)
BIT(64)
op_handler *const op_bt_ri[SZ_COUNT] = WIDE(bt_ri);
op_handler *const op_bt_rr[SZ_COUNT] = WIDE(bt_rr);
op_handler *const op_bsf_rr[SZ_COUNT] = WIDE(bsf_rr);
op_handler *const op_bsr_rr[SZ_COUNT] = WIDE(bsr_rr);
