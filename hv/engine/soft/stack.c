/*
 * Integer call-outs: PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE in every mode. SDM 2A, 2B.
 * What 64-bit code does all the time has handlers in interp_jump.c.
 */
#include "hv/engine/soft/intops.h"
#include "hv/engine/soft/sys.h"

static int op_push(struct cpu *c, const struct x86_insn *in)
{
    if (in->opnd[0].kind == X86_OPND_SEG)
        return op_push_seg(c, in);
    uint64_t v;
    int r = cpu_opnd_get(c, in, 0, &v);
    return r != X_OK ? r : cpu_push(c, in->opsize, v);
}

/* POP m: the address is computed after rSP moved; rSP stays if the store faults. */
static int op_pop(struct cpu *c, const struct x86_insn *in)
{
    if (in->opnd[0].kind == X86_OPND_SEG)
        return op_pop_seg(c, in);
    uint64_t v, sp = c->gpr[R_RSP];
    int r = cpu_pop(c, in->opsize, &v);
    if (r != X_OK)
        return r;
    r = cpu_opnd_set(c, in, 0, v);
    if (r != X_OK)
        c->gpr[R_RSP] = sp;
    return r;
}

static int op_pusha(struct cpu *c, const struct x86_insn *in)
{
    uint64_t sp = c->gpr[R_RSP];
    unsigned size = in->opsize;
    for (unsigned i = 0; i < 8; i++) {
        int r = cpu_push(c, size, zext(i == R_RSP ? sp : c->gpr[i], size));
        if (r != X_OK) {
            c->gpr[R_RSP] = sp;
            return r;
        }
    }
    return X_OK;
}

/* A fault half way leaves the registers popped so far changed, and rSP as it was: so do CPUs. */
static int op_popa(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v, sp = c->gpr[R_RSP];
    for (unsigned i = 8; i-- > 0;) {
        int r = cpu_pop(c, in->opsize, &v);
        if (r != X_OK) {
            c->gpr[R_RSP] = sp;
            return r;
        }
        if (i != R_RSP)
            cpu_reg_set(c, i, in->opsize, v);
    }
    return X_OK;
}

static unsigned iopl(const struct cpu *c) { return (unsigned)(c->rflags >> 12 & 3); }
static bool in_v86(const struct cpu *c) { return c->mode & MODE_VM; }

/* In virtual-8086 mode below IOPL 3: #GP, or with CR4.VME (16-bit) VIF in IF's place. SDM 3, 20.3. */
static int op_pushf(struct cpu *c, const struct x86_insn *in)
{
    uint64_t f = cpu_rflags(c) & ~(FL_VM | FL_RF);
    if (in_v86(c) && iopl(c) < 3) {
        if (!(c->cr4 & CR4_VME) || in->opsize != 2)
            return cpu_raise_err(c, VEC_GP, 0);
        f = (f & ~FL_IF) | FL_IOPL | (c->rflags & FL_VIF ? FL_IF : 0);
    }
    return cpu_push(c, in->opsize, zext(f, in->opsize));
}

static int op_popf(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v, sp = c->gpr[R_RSP];
    uint64_t mask = FL_ARITH | FL_TF | FL_DF | FL_NT | FL_AC | FL_ID;
    bool vme = false;
    if (in_v86(c)) {
        if (iopl(c) == 3)
            mask |= FL_IF;
        else if ((c->cr4 & CR4_VME) && in->opsize == 2)
            vme = true;
        else
            return cpu_raise_err(c, VEC_GP, 0);
    } else {
        if (c->cpl <= iopl(c))
            mask |= FL_IF;
        if (c->cpl == 0)
            mask |= FL_IOPL;
    }
    int r = cpu_pop(c, in->opsize, &v);
    if (r != X_OK)
        return r;
    if (in->opsize == 2)
        mask &= 0xffff;
    if (vme) {
        if ((v & FL_TF) || ((v & FL_IF) && (c->rflags & FL_VIP))) {
            c->gpr[R_RSP] = sp;
            return cpu_raise_err(c, VEC_GP, 0);
        }
        c->rflags = (c->rflags & ~FL_VIF) | (v & FL_IF ? FL_VIF : 0);
    }
    cpu_set_rflags(c, v, mask);
    return X_OK;
}

/* ENTER size, level: SDM's pseudo-code; the frame pointers are copied before RSP and RBP change. */
static int op_enter(struct cpu *c, const struct x86_insn *in)
{
    unsigned size = in->opsize, level = in->imm2 & 31;
    uint64_t sp = c->gpr[R_RSP], frame, bp = c->gpr[R_RBP], va, v;
    int r = cpu_push(c, size, zext(bp, size));
    if (r != X_OK)
        return r;
    frame = stack_get(c);
    for (unsigned i = 1; i < level && r == X_OK; i++) {
        bp -= size;
        r = cpu_seg_lin(c, X86_SEG_SS, zext(bp, stack_size(c)), size, ACC_READ, &va);
        if (r == X_OK) {
            r = size == 8 ? cpu_ld64(c, X86_SEG_SS, va, &v)
              : size == 4 ? cpu_ld32(c, X86_SEG_SS, va, &v) : cpu_ld16(c, X86_SEG_SS, va, &v);
        }
        if (r == X_OK)
            r = cpu_push(c, size, v);
    }
    if (r == X_OK && level > 0)
        r = cpu_push(c, size, zext(frame, size));
    if (r == X_OK) {
        /* The new top has to be writable: SDM, "if the frame is not within the stack". */
        uint64_t top = zext(stack_get(c) - (uint16_t)in->imm, stack_size(c));
        void *p;
        r = cpu_seg_lin(c, X86_SEG_SS, top, size, ACC_WRITE, &va);
        if (r == X_OK)
            r = cpu_check_aligned(c, va, size);
        if (r == X_OK)
            r = cpu_rmw(c, X86_SEG_SS, va, 1, &p);
        if (r == X_OK && c->rmw.active)
            r = cpu_rmw_finish(c);
        if (r == X_OK) {
            cpu_reg_set(c, R_RBP, size, frame);
            stack_set(c, top);
            return X_OK;
        }
    }
    c->gpr[R_RSP] = sp;
    return r;
}

static int op_leave(struct cpu *c, const struct x86_insn *in)
{
    uint64_t sp = c->gpr[R_RSP], v;
    stack_set(c, c->gpr[R_RBP]);
    int r = cpu_pop(c, in->opsize, &v);
    if (r != X_OK) {
        c->gpr[R_RSP] = sp;
        return r;
    }
    cpu_reg_set(c, R_RBP, in->opsize, v);
    return X_OK;
}

static const struct int_op rows[] = {
    { X86_OP_PUSH, { op_push, 0 } }, { X86_OP_POP, { op_pop, 0 } }, { X86_OP_PUSHA, { op_pusha, 0 } },
    { X86_OP_POPA, { op_popa, 0 } }, { X86_OP_PUSHF, { op_pushf, 0 } }, { X86_OP_POPF, { op_popf, OPF_END } },
    { X86_OP_ENTER, { op_enter, 0 } }, { X86_OP_LEAVE, { op_leave, 0 } },
};
const struct int_ops int_ops_stack = { rows, ARRAY_SIZE(rows) };
