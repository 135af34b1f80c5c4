/*
 * Op handlers: MOV MOVZX MOVSX MOVSXD LEA CMOVcc SETcc XCHG BSWAP CBW CWD. SDM 2A, 2B.
 */
#include "hv/engine/soft/interp.h"

#define MOV_SIZE(bits)                                                                            \
    HANDLER(mov_rr##bits)                                                                         \
    {                                                                                             \
        SET(bits, op->r, GET(bits, op->b));                                                       \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(mov_ri##bits)                                                                         \
    {                                                                                             \
        SET(bits, op->r, (uint##bits##_t)op->u.imm);                                              \
        NEXT;                                                                                     \
    }                                                                                             \
    FORMS_OF(LOAD, bits)                                                                          \
    FORMS_OF(STORE, bits)                                                                         \
    FORMS_OF(STORE_I, bits)
#define LOAD(bits, form) H_LOAD(load##bits##form, EA_##form, bits, SET(bits, op->r, m);)
#define STORE(bits, form) H_STORE(store##bits##form, EA_##form, bits, GET(bits, op->r), )
#define STORE_I(bits, form) H_STORE(store_i##bits##form, EA_##form, bits, op->imm, )

MOV_SIZE(8)
MOV_SIZE(16)
MOV_SIZE(32)
MOV_SIZE(64)

op_handler *const op_mov_rr[SZ_COUNT] = { mov_rr8, mov_rr16, mov_rr32, mov_rr64 };
op_handler *const op_mov_ri[SZ_COUNT] = { mov_ri8, mov_ri16, mov_ri32, mov_ri64 };
op_handler *const op_load[SZ_COUNT][FORM_COUNT] = { FORMS(load8), FORMS(load16), FORMS(load32), FORMS(load64) };
op_handler *const op_store[SZ_COUNT][FORM_COUNT] = { FORMS(store8), FORMS(store16), FORMS(store32), FORMS(store64) };
op_handler *const op_store_i[SZ_COUNT][FORM_COUNT] = {
    FORMS(store_i8), FORMS(store_i16), FORMS(store_i32), FORMS(store_i64),
};

/* from, to: sizes; to a size smaller than 64 the result is cut as SET does. */
#define MOVX(from, to)                                                                            \
    HANDLER(movz##from##to) { SET(to, op->r, GET(from, op->b)); NEXT; }                           \
    HANDLER(movs##from##to) { SET(to, op->r, (uint##to##_t)(int##from##_t)GET(from, op->b)); NEXT; } \
    FORMS_OF(MOVX_M, from, to)
#define MOVX_M(from, to, form)                                                                    \
    H_LOAD(movz_m##from##to##form, EA_##form, from, SET(to, op->r, m);)                           \
    H_LOAD(movs_m##from##to##form, EA_##form, from, SET(to, op->r, (uint##to##_t)(int##from##_t)m);)

MOVX(8, 16)
MOVX(8, 32)
MOVX(8, 64)
MOVX(16, 32)
MOVX(16, 64)
MOVX(32, 64)

op_handler *const op_movx_rr[2][SZ_COUNT][SZ_COUNT] = {
    { [SZ_8] = { NULL, movz816, movz832, movz864 }, [SZ_16] = { NULL, NULL, movz1632, movz1664 },
      [SZ_32] = { NULL, NULL, NULL, movz3264 } },
    { [SZ_8] = { NULL, movs816, movs832, movs864 }, [SZ_16] = { NULL, NULL, movs1632, movs1664 },
      [SZ_32] = { NULL, NULL, NULL, movs3264 } },
};
op_handler *const op_movx_rm[2][SZ_COUNT][SZ_COUNT][FORM_COUNT] = {
    { [SZ_8] = { [SZ_16] = FORMS(movz_m816), [SZ_32] = FORMS(movz_m832), [SZ_64] = FORMS(movz_m864) },
      [SZ_16] = { [SZ_32] = FORMS(movz_m1632), [SZ_64] = FORMS(movz_m1664) },
      [SZ_32] = { [SZ_64] = FORMS(movz_m3264) } },
    { [SZ_8] = { [SZ_16] = FORMS(movs_m816), [SZ_32] = FORMS(movs_m832), [SZ_64] = FORMS(movs_m864) },
      [SZ_16] = { [SZ_32] = FORMS(movs_m1632), [SZ_64] = FORMS(movs_m1664) },
      [SZ_32] = { [SZ_64] = FORMS(movs_m3264) } },
};

/* LEA: the address without segment base (lowering gives form G that of cpu.zero). */
#define LEA(bits, form)                                                                           \
    HANDLER(lea##bits##form)                                                                      \
    {                                                                                             \
        SET(bits, op->r, (uint##bits##_t)(EA_##form));                                            \
        NEXT;                                                                                     \
    }
FORMS_OF(LEA, 16)
FORMS_OF(LEA, 32)
FORMS_OF(LEA, 64)
op_handler *const op_lea[SZ_COUNT][FORM_COUNT] = { [SZ_16] = FORMS(lea16), [SZ_32] = FORMS(lea32), [SZ_64] = FORMS(lea64) };

/* ---- conditions ---- */

#define ALL_CC(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

/* CMOV writes its destination always: a false condition still clears bits 63..32 of a 32-bit one. */
#define CMOV(n)                                                                                   \
    HANDLER(cmov_rr32_##n)                                                                        \
    {                                                                                             \
        SET(32, op->r, CC_COND_##n(cc) ? GET(32, op->b) : GET(32, op->r));                        \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(cmov_rr64_##n)                                                                        \
    {                                                                                             \
        SET(64, op->r, CC_COND_##n(cc) ? GET(64, op->b) : GET(64, op->r));                        \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(setcc_r_##n)                                                                          \
    {                                                                                             \
        SET(8, op->r, CC_COND_##n(cc));                                                           \
        NEXT;                                                                                     \
    }
ALL_CC(CMOV)
#define CMOV_ROW(n) [n] = { NULL, NULL, cmov_rr32_##n, cmov_rr64_##n },
#define SETCC_ROW(n) setcc_r_##n,
op_handler *const op_cmov_rr[16][SZ_COUNT] = { ALL_CC(CMOV_ROW) };
op_handler *const op_setcc_r[16] = { ALL_CC(SETCC_ROW) };

/* From memory, which is read whatever the condition (op->imm) says. */
#define CMOV_M(bits, form)                                                                        \
    H_LOAD(cmov_rm##bits##form, EA_##form, bits,                                                  \
           SET(bits, op->r, cc_test(cc, (unsigned)op->imm) ? m : GET(bits, op->r));)
FORMS_OF(CMOV_M, 32)
FORMS_OF(CMOV_M, 64)
op_handler *const op_cmov_rm[SZ_COUNT][FORM_COUNT] = { [SZ_32] = FORMS(cmov_rm32), [SZ_64] = FORMS(cmov_rm64) };

/* ---- registers only ---- */

#define XCHG(bits)                                                                                \
    HANDLER(xchg_rr##bits)                                                                        \
    {                                                                                             \
        uint##bits##_t a = GET(bits, op->r), b = GET(bits, op->b);                                \
        SET(bits, op->r, b);                                                                      \
        SET(bits, op->b, a);                                                                      \
        NEXT;                                                                                     \
    }
XCHG(8)
XCHG(16)
XCHG(32)
XCHG(64)
op_handler *const op_xchg_rr[SZ_COUNT] = { xchg_rr8, xchg_rr16, xchg_rr32, xchg_rr64 };

HANDLER(bswap32) { SET(32, op->r, __builtin_bswap32(GET(32, op->r))); NEXT; }
HANDLER(bswap64) { SET(64, op->r, __builtin_bswap64(GET(64, op->r))); NEXT; }
op_handler *const op_bswap[SZ_COUNT] = { [SZ_32] = bswap32, [SZ_64] = bswap64 };

HANDLER(cbw16) { SET(16, R_RAX, (uint16_t)(int8_t)GET(8, R_RAX)); NEXT; }
HANDLER(cbw32) { SET(32, R_RAX, (uint32_t)(int16_t)GET(16, R_RAX)); NEXT; }
HANDLER(cbw64) { SET(64, R_RAX, (uint64_t)(int32_t)GET(32, R_RAX)); NEXT; }
op_handler *const op_cbw[SZ_COUNT] = { [SZ_16] = cbw16, [SZ_32] = cbw32, [SZ_64] = cbw64 };
HANDLER(cwd16) { SET(16, R_RDX, (uint16_t)((int16_t)GET(16, R_RAX) >> 15)); NEXT; }
HANDLER(cwd32) { SET(32, R_RDX, (uint32_t)((int32_t)GET(32, R_RAX) >> 31)); NEXT; }
HANDLER(cwd64) { SET(64, R_RDX, (uint64_t)((int64_t)GET(64, R_RAX) >> 63)); NEXT; }
op_handler *const op_cwd[SZ_COUNT] = { [SZ_16] = cwd16, [SZ_32] = cwd32, [SZ_64] = cwd64 };
