/*
 * Op handlers: near jumps, calls, returns, and the stack: [0] in 64-bit mode, [1] in flat
 * 32-bit code with a 32-bit stack. Everything else goes through the call-outs of flow.c.
 */
#include "hv/engine/soft/interp.h"

int op_jmp(struct cpu *c, struct op *op, uint32_t cc)
{
    JUMP_LINK(op);
}

/* 16-bit operand size: IP wraps at 64 KiB, so the target is no constant distance away. */
int op_jmp16(struct cpu *c, struct op *op, uint32_t cc)
{
    uint64_t t = (uint16_t)(c->rip + (uint64_t)(int64_t)op->disp);
    struct block *b = op->u.link;
    c->rip = t;
    c->budget -= op->n;
    if (HV_LIKELY(b->vrip == t && b->gen == c->map_gen && c->budget > 0 && !op_attention(c)))
        return b->entry(c, b->op, cc);
    return op_link_miss(c, op, cc);
}

HANDLER(jcc16)
{
    if (cc_test(cc, (unsigned)op->imm))
        return op_jmp16(c, op, cc);
    NEXT;
}
op_handler *const op_jcc16 = jcc16;

#define ALL_CC(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define JCC(n)                                                                                    \
    HANDLER(jcc_##n)                                                                              \
    {                                                                                             \
        if (CC_COND_##n(cc))                                                                      \
            JUMP_LINK(op);                                                                        \
        NEXT;                                                                                     \
    }
ALL_CC(JCC)
#define JCC_ROW(n) jcc_##n,
op_handler *const op_jcc[16] = { ALL_CC(JCC_ROW) };

/* ---- stack ---- */

#define SP64 (c->gpr[R_RSP])
#define SP32 ((uint32_t)c->gpr[R_RSP])
#define TOP64 (SP64 - 8)
#define TOP32 ((uint32_t)(SP32 - 4))
#define PUSHED64 c->gpr[R_RSP] -= 8;
#define PUSHED32 c->gpr[R_RSP] = TOP32;
#define POPPED64 c->gpr[R_RSP] += 8;
#define POPPED32 c->gpr[R_RSP] = (uint32_t)(SP32 + 4);

/* The stack's own slow path charges SS: op_seg() is taken from the address register, set to RSP in lowering. */
#define STACK(bits)                                                                               \
    H_STORE(push_r##bits, TOP##bits, bits, GET(bits, op->r), PUSHED##bits)                        \
    H_STORE(push_i##bits, TOP##bits, bits, op->imm, PUSHED##bits)                                 \
    H_LOAD(pop_r##bits, SP##bits, bits, POPPED##bits SET(bits, op->r, m);)                        \
    H_LOAD(leave##bits, GET(bits, R_RBP), bits,                                                   \
           c->gpr[R_RSP] = (uint##bits##_t)(GET(bits, R_RBP) + bits / 8); SET(bits, R_RBP, m);)
STACK(64)
STACK(32)
op_handler *const op_push_r[2] = { push_r64, push_r32 };
op_handler *const op_push_i[2] = { push_i64, push_i32 };
op_handler *const op_pop_r[2] = { pop_r64, pop_r32 };
op_handler *const op_leave_frame[2] = { leave64, leave32 };

/* Push the value of memory: two accesses, so the second is out of the macros above. */
static COLD int push_slow(struct cpu *c, struct op *op, uint32_t cc, uint64_t top, unsigned size, uint64_t v)
{
    if (cpu_st_slow(c, X86_SEG_SS, top, size, v) != X_OK)
        return op_fault(c, op, cc);
    c->gpr[R_RSP] = top;
    if (c->code_dropped)
        return op_after(c, op, cc);
    NEXT;
}

#define PUSH_M(bits, form)                                                                        \
    H_LOAD(push_m##bits##form, EA_##form, bits,                                                   \
           uint64_t top = TOP##bits;                                                              \
           const struct tlb_entry *ts = tlb_at(c, top);                                           \
           if (HV_UNLIKELY(((top + bits / 8 - 1) & HV_PAGE_MASK) != ts->wtag))                    \
               return push_slow(c, op, cc, top, bits / 8, m);                                     \
           __builtin_memcpy((void *)(top + ts->addend), &m, sizeof(m));                           \
           c->gpr[R_RSP] = top;)
FORMS_OF(PUSH_M, 64)
FORMS_OF(PUSH_M, 32)
op_handler *const op_push_m[2][FORM_COUNT] = { FORMS(push_m64), FORMS(push_m32) };

/* ---- calls and returns ---- */

#define RETURN_RIP(bits) ((uint##bits##_t)(c->rip + op->off + op->len))

/* Store the return address and go through the link. */
#define CALL(bits)                                                                                \
    static COLD int call##bits##_slow(struct cpu *c, struct op *op, uint32_t cc)                  \
    {                                                                                             \
        uint64_t top = TOP##bits;                                                                 \
        if (op_st_slow(c, X86_SEG_SS, top, bits / 8, RETURN_RIP(bits)) != X_OK)                   \
            return op_fault(c, op, cc);                                                           \
        c->gpr[R_RSP] = top;                                                                      \
        JUMP_LINK(op);                                                                            \
    }                                                                                             \
    HANDLER(call##bits)                                                                           \
    {                                                                                             \
        uint64_t top = TOP##bits;                                                                 \
        const struct tlb_entry *t = tlb_at(c, top);                                               \
        if (HV_UNLIKELY(((top + bits / 8 - 1) & HV_PAGE_MASK) != t->wtag))                        \
            return call##bits##_slow(c, op, cc);                                                  \
        uint##bits##_t v = RETURN_RIP(bits);                                                      \
        __builtin_memcpy((void *)(top + t->addend), &v, sizeof(v));                               \
        c->gpr[R_RSP] = top;                                                                      \
        JUMP_LINK(op);                                                                            \
    }
CALL(64)
CALL(32)
op_handler *const op_call[2] = { call64, call32 };

#define RET(bits)                                                                                 \
    H_LOAD(ret##bits, SP##bits, bits, JUMP_TO(m, POPPED##bits);)                                  \
    H_LOAD(ret_i##bits, SP##bits, bits,                                                           \
           JUMP_TO(m, c->gpr[R_RSP] = (uint##bits##_t)(SP##bits + bits / 8 + (uint32_t)op->imm););)
RET(64)
RET(32)
op_handler *const op_ret[2] = { ret64, ret32 };
op_handler *const op_ret_i[2] = { ret_i64, ret_i32 };

/* Indirect: the target is read first; nothing is pushed if it is not canonical. */
static COLD int call_to_slow(struct cpu *c, struct op *op, uint32_t cc, uint64_t top, unsigned size, uint64_t target)
{
    if (HV_UNLIKELY((uint64_t)((int64_t)(target << 16) >> 16) != target))
        return op_gp0(c, op, cc);
    if (cpu_st_slow(c, X86_SEG_SS, top, size, c->rip + op->off + op->len) != X_OK)
        return op_fault(c, op, cc);
    c->gpr[R_RSP] = top;
    c->rip = target;
    c->budget -= op->n;
    return op_jump_miss(c, cc);
}
#define CALL_TO(bits, target)                                                                     \
    do {                                                                                          \
        uint64_t top = TOP##bits;                                                                 \
        const struct tlb_entry *ts = tlb_at(c, top);                                              \
        if (HV_UNLIKELY(((top + bits / 8 - 1) & HV_PAGE_MASK) != ts->wtag))                       \
            return call_to_slow(c, op, cc, top, bits / 8, target);                                \
        uint##bits##_t back = RETURN_RIP(bits);                                                   \
        JUMP_TO(target, __builtin_memcpy((void *)(top + ts->addend), &back, sizeof(back));        \
                c->gpr[R_RSP] = top;);                                                            \
    } while (0)

#define INDIRECT(bits)                                                                            \
    HANDLER(jmp_r##bits) { JUMP_TO(GET(bits, op->r), ); }                                         \
    HANDLER(call_r##bits) { CALL_TO(bits, GET(bits, op->r)); }                                    \
    FORMS_OF(INDIRECT_M, bits)
#define INDIRECT_M(bits, form)                                                                    \
    H_LOAD(jmp_m##bits##form, EA_##form, bits, JUMP_TO(m, );)                                     \
    H_LOAD(call_m##bits##form, EA_##form, bits, CALL_TO(bits, m);)
INDIRECT(64)
INDIRECT(32)
op_handler *const op_jmp_r[2] = { jmp_r64, jmp_r32 };
op_handler *const op_call_r[2] = { call_r64, call_r32 };
op_handler *const op_jmp_m[2][FORM_COUNT] = { FORMS(jmp_m64), FORMS(jmp_m32) };
op_handler *const op_call_m[2][FORM_COUNT] = { FORMS(call_m64), FORMS(call_m32) };
