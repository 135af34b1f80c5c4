/*
 * The loop around the blocks: attention, look-up, exceptions, single steps; and the cold ends
 * that op handlers share. The handlers themselves are in interp_*.c.
 *
 * While a block runs c->rip is its start; an instruction's address is c->rip + op->off, and
 * whatever leaves the block or calls out puts that into c->rip first. c->budget counts
 * instructions down, jumps subtract those of their block, so it is c->insns too.
 */
#include "hv/engine/soft/interp.h"
#include "hv/engine/soft/translate.h"

/* Between two looks at the LAPIC timer: about 0.1 ms. */
#define LOOP_BUDGET 16384

#define DR7_ENABLED 0xffull
#define DR6_BS 0x4000ull

int op_fault(struct cpu *c, struct op *op, uint32_t cc)
{
    c->cc = cc;
    c->rip += op->off;
    c->budget -= op->n;
    return X_FAULT;
}

int op_after(struct cpu *c, struct op *op, uint32_t cc)
{
    c->cc = cc;
    c->rip += op->off + op->len;
    c->budget -= op->n;
    return X_OK;
}

int op_gp0(struct cpu *c, struct op *op, uint32_t cc)
{
    op_fault(c, op, cc);
    return cpu_raise_err(c, VEC_GP, 0);
}

int op_link_miss(struct cpu *c, struct op *op, uint32_t cc)
{
    c->cc = cc;
    c->blocks->patch = op;
    return X_OK;
}

int op_jump_miss(struct cpu *c, uint32_t cc)
{
    c->cc = cc;
    return X_OK;
}

COLD struct op_value op_ld_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size)
{
    struct op_value l = { 0 };
    l.r = cpu_ld_slow(c, seg, va, size, &l.v);
    return l;
}

COLD int op_st_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t v)
{
    return cpu_st_slow(c, seg, va, size, v);
}

COLD void *op_rmw_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size)
{
    void *p;
    return cpu_rmw_slow(c, seg, va, size, &p) == X_OK ? p : NULL;
}

/* Everything without a handler of its own. Goes on in the block if the call-out left RIP and the code alone. */
int op_callout(struct cpu *c, struct op *op, uint32_t cc)
{
    uint64_t start = c->rip;
    uint64_t next = start + op->off + op->len;
    c->cc = cc;
    c->rip = start + op->off;
    c->next_rip = next;
    int r = op->u.call->fn(c, &op->u.call->in);
    if (HV_UNLIKELY(r != X_OK)) {
        c->budget -= op->n;
        return r;
    }
    if (HV_UNLIKELY(c->next_rip != next || c->code_dropped)) {
        c->budget -= op->n;
        c->rip = c->next_rip;
        return X_OK;
    }
    c->rip = start;
    cc = c->cc;
    NEXT;
}

int op_callout_end(struct cpu *c, struct op *op, uint32_t cc)
{
    c->cc = cc;
    c->rip += op->off;
    c->next_rip = c->rip + op->len;
    c->budget -= op->n;
    int r = op->u.call->fn(c, &op->u.call->in);
    if (HV_LIKELY(r == X_OK))
        c->rip = c->next_rip;
    return r;
}

int op_exit(struct cpu *c, struct op *op, uint32_t cc)
{
    c->cc = cc;
    c->rip += (uint64_t)(int64_t)op->disp;
    c->budget -= op->n;
    return X_OK;
}

int op_nop(struct cpu *c, struct op *op, uint32_t cc)
{
    NEXT;
}

static void count_insns(struct cpu *c)
{
    c->insns += (uint64_t)(int64_t)(c->blocks->budget_start - c->budget);
    c->blocks->budget_start = c->budget;
}

static int attend(struct cpu *c)
{
    count_insns(c);
    c->blocks->patch = NULL;
    c->jit.slot = NULL;
    translate_pending(c);
    int r = cpu_attend(c);
    if (c->budget <= 0)
        c->budget = LOOP_BUDGET;
    c->blocks->budget_start = c->budget;
    return r;
}

/* Instruction breakpoints of DR7 at c->rip: X_FAULT with #DB. SDM 3, 18.2.4 and 18.3.1.1. */
static int check_breakpoints(struct cpu *c)
{
    uint64_t va = c->mode & MODE_CODE64 ? c->rip : (uint32_t)(c->seg[X86_SEG_CS].base + c->rip);
    uint64_t hit = 0;
    for (unsigned i = 0; i < 4; i++) {
        bool on = (c->dr[7] >> (2 * i) & 3) != 0;
        unsigned kind = (unsigned)(c->dr[7] >> (16 + 4 * i) & 0xf);
        if (on && kind == 0 && c->dr[i] == va)
            hit |= (uint64_t)1 << i;
    }
    if (!hit)
        return X_OK;
    c->dr[6] = (c->dr[6] & ~(uint64_t)0xf) | hit;
    return cpu_raise(c, VEC_DB);
}

/*
 * An instruction alone: after STI or MOV SS, with TF or RF, with breakpoints set.
 *
 * MOV SS holds off debug traps like interrupts (SDM 3, 6.8.3): a single step is lost, a data
 * breakpoint of its own waits for the next instruction, whose instruction breakpoint is lost.
 */
static int run_one(struct cpu *c)
{
    const uint64_t flags = c->rflags;
    const bool after_ss = c->shadow == SHADOW_SS;
    c->shadow = 0;
    c->blocks->patch = NULL;
    c->jit.slot = NULL;
    if ((c->dr[7] & DR7_ENABLED) && !(flags & FL_RF) && !after_ss && check_breakpoints(c) != X_OK)
        return X_FAULT;
    if (!after_ss)
        c->watch_hit = 0;
    c->rflags &= ~FL_RF;
    struct block *b = block_lookup(c, BLOCK_ONE);
    if (!b)
        return X_FAULT;
    unsigned first = b->first;
    if (first == X86_OP_INT1) {    /* one #DB for both causes */
        c->dr[6] |= c->watch_hit;
        c->watch_hit = 0;
    }
    int r = b->op[0].fn(c, b->op, c->cc);
    if (r == X_LEAVE && c->halted && (flags & FL_TF)) {
        c->halted = false;         /* the trap is what ends this HLT */
        c->leave = LEAVE_NONE;
        r = X_OK;
    }
    /*
     * Of several loads of SS in a row only the first is promised to hold anything off (SDM 2B, MOV). It must
     * not be all of them: a guest that does nothing else would never be looked at again, nor stopped.
     */
    if (after_ss && c->shadow == SHADOW_SS)
        c->shadow = 0;
    if (r != X_OK || c->shadow == SHADOW_SS)
        return r;
    /* Entries into handlers clear TF and are not trapped; POPF and IRET that clear it are. */
    bool step = (flags & FL_TF) && ((c->rflags & FL_TF) || first == X86_OP_POPF || first == X86_OP_IRET);
    if (!step && !c->watch_hit)
        return X_OK;
    c->dr[6] |= c->watch_hit | (step ? DR6_BS : 0);
    c->watch_hit = 0;
    return cpu_raise(c, VEC_DB);
}

enum leave_reason cpu_loop(struct cpu *c)
{
    struct block_cache *bc = c->blocks;
    c->leave = LEAVE_NONE;
    bc->patch = NULL;
    c->jit.slot = NULL;
    bc->budget_start = c->budget;
    for (;;) {
        if (!c->shadow && (op_attention(c) || c->budget <= 0 || c->halted)) {
            if (attend(c) == X_LEAVE)
                break;
            if (c->halted) {
                c->leave = LEAVE_HALT;
                break;
            }
        }
        c->code_dropped = false;
        int r;
        if (HV_UNLIKELY(c->shadow || (c->rflags & (FL_TF | FL_RF)) || (c->dr[7] & DR7_ENABLED))) {
            r = run_one(c);
        } else {
            struct block *b = block_lookup(c, 0);
            if (HV_LIKELY(b)) {
                if (bc->patch)
                    bc->patch->u.link = b;
                bc->patch = NULL;
                if (c->jit.slot)
                    translate_link(c, b);
                r = b->entry(c, b->op, c->cc);
            } else {
                bc->patch = NULL;
                c->jit.slot = NULL;
                r = X_FAULT;
            }
        }
        if (HV_UNLIKELY(r == X_FAULT)) {
            bc->patch = NULL;
            c->jit.slot = NULL;
            r = cpu_deliver_exc(c);
        }
        if (HV_UNLIKELY(r == X_LEAVE))
            break;
    }
    count_insns(c);
    return (enum leave_reason)c->leave;
}
