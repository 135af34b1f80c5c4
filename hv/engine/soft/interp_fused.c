/*
 * Op handlers: CMP, TEST and DEC fused with the conditional jump in the op that follows
 * (op[1], a complete op of its own). The host's flags of the comparison feed the branch
 * directly, and are kept as well: what follows may read them.
 */
#include "hv/engine/soft/interp.h"

#define FUSED_TAIL                                                                                \
    do {                                                                                          \
        cc = f;                                                                                   \
        if (taken)                                                                                \
            JUMP_LINK(op + 1);                                                                    \
        return op[2].fn(c, op + 2, cc);                                                           \
    } while (0)

#define FUSED_CMP(name, insn, bits, m, cond)                                                      \
    HANDLER(name##_rr##bits##_##cond)                                                             \
    {                                                                                             \
        uint32_t f;                                                                               \
        bool taken;                                                                               \
        __asm__(insn " %" #m "[b], %" #m "[a]\n\tlahf\n\tseto %%al"                               \
                : "=&a"(f), "=@cc" #cond(taken)                                                   \
                : [a] "r"(GET(bits, op->r)), [b] "r"(GET(bits, op->b)));                          \
        FUSED_TAIL;                                                                               \
    }                                                                                             \
    HANDLER(name##_ri##bits##_##cond)                                                             \
    {                                                                                             \
        uint32_t f;                                                                               \
        bool taken;                                                                               \
        __asm__(insn " %" #m "[b], %" #m "[a]\n\tlahf\n\tseto %%al"                               \
                : "=&a"(f), "=@cc" #cond(taken)                                                   \
                : [a] "r"(GET(bits, op->r)), [b] "r"((uint##bits##_t)op->imm));                   \
        FUSED_TAIL;                                                                               \
    }
#define FUSED_DEC(bits, s, m, cond)                                                               \
    HANDLER(dec_r##bits##_##cond)                                                                 \
    {                                                                                             \
        uint32_t f;                                                                               \
        bool taken;                                                                               \
        uint##bits##_t a = GET(bits, op->r);                                                      \
        __asm__("btl $8, %k[c]\n\tdec" s " %" #m "[a]\n\tlahf\n\tseto %%al"                       \
                : [a] "+&r"(a), "=&a"(f), "=@cc" #cond(taken) : [c] "r"(cc));                     \
        SET(bits, op->r, a);                                                                      \
        FUSED_TAIL;                                                                               \
    }

#define CONDS(X, ...)                                                                             \
    X(__VA_ARGS__, o) X(__VA_ARGS__, no) X(__VA_ARGS__, b) X(__VA_ARGS__, ae)                     \
    X(__VA_ARGS__, e) X(__VA_ARGS__, ne) X(__VA_ARGS__, be) X(__VA_ARGS__, a)                     \
    X(__VA_ARGS__, s) X(__VA_ARGS__, ns) X(__VA_ARGS__, p) X(__VA_ARGS__, np)                     \
    X(__VA_ARGS__, l) X(__VA_ARGS__, ge) X(__VA_ARGS__, le) X(__VA_ARGS__, g)

CONDS(FUSED_CMP, cmp, "cmpb", 8, b)
CONDS(FUSED_CMP, cmp, "cmpw", 16, w)
CONDS(FUSED_CMP, cmp, "cmpl", 32, k)
CONDS(FUSED_CMP, cmp, "cmpq", 64, q)
CONDS(FUSED_CMP, test, "testb", 8, b)
CONDS(FUSED_CMP, test, "testw", 16, w)
CONDS(FUSED_CMP, test, "testl", 32, k)
CONDS(FUSED_CMP, test, "testq", 64, q)
CONDS(FUSED_DEC, 32, "l", k)
CONDS(FUSED_DEC, 64, "q", q)

#define CC_ROW(h)                                                                                 \
    { h##_o, h##_no, h##_b, h##_ae, h##_e, h##_ne, h##_be, h##_a,                                 \
      h##_s, h##_ns, h##_p, h##_np, h##_l, h##_ge, h##_le, h##_g }
#define SIZE_ROWS(h) { CC_ROW(h##8), CC_ROW(h##16), CC_ROW(h##32), CC_ROW(h##64) }
op_handler *const op_cmp_rr_jcc[SZ_COUNT][16] = SIZE_ROWS(cmp_rr);
op_handler *const op_cmp_ri_jcc[SZ_COUNT][16] = SIZE_ROWS(cmp_ri);
op_handler *const op_test_rr_jcc[SZ_COUNT][16] = SIZE_ROWS(test_rr);
op_handler *const op_test_ri_jcc[SZ_COUNT][16] = SIZE_ROWS(test_ri);
op_handler *const op_dec_jcc[SZ_COUNT][16] = { [SZ_32] = CC_ROW(dec_r32), [SZ_64] = CC_ROW(dec_r64) };
