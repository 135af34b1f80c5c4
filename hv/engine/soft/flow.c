/*
 * Integer call-outs: near control flow in every mode, BOUND, CLI and STI. SDM 2A to 2C. What is
 * hot has handlers in interp_jump.c; software interrupts and HLT are in sysop.c.
 */
#include "hv/engine/soft/intops.h"

int jump_near(struct cpu *c, uint64_t target, unsigned opsize)
{
    target = zext(target, opsize);
    if (c->mode & MODE_CODE64) {
        if ((uint64_t)((int64_t)(target << 16) >> 16) != target)
            return cpu_raise_err(c, VEC_GP, 0);
    } else if (target > c->seg[X86_SEG_CS].limit) {
        return cpu_raise_err(c, VEC_GP, 0);
    }
    c->next_rip = target;
    return X_OK;
}

static int op_jmp_rel(struct cpu *c, const struct x86_insn *in)
{
    return jump_near(c, c->next_rip + in->imm, in->opsize);
}

static int op_jmp_ind(struct cpu *c, const struct x86_insn *in)
{
    uint64_t t;
    int r = cpu_opnd_get(c, in, 0, &t);
    return r != X_OK ? r : jump_near(c, t, in->opsize);
}

static int op_jcc_rel(struct cpu *c, const struct x86_insn *in)
{
    return cc_test(c->cc, in->cc) ? jump_near(c, c->next_rip + in->imm, in->opsize) : X_OK;
}

static int op_jcxz(struct cpu *c, const struct x86_insn *in)
{
    return zext(c->gpr[R_RCX], in->adsize) == 0 ? jump_near(c, c->next_rip + in->imm, in->opsize) : X_OK;
}

static int op_loop(struct cpu *c, const struct x86_insn *in)
{
    uint64_t n = zext(c->gpr[R_RCX] - 1, in->adsize);
    bool zf = c->cc & CC_ZF;
    if (n != 0 && (in->op == X86_OP_LOOP || zf == (in->op == X86_OP_LOOPE))) {
        int r = jump_near(c, c->next_rip + in->imm, in->opsize);
        if (r != X_OK)
            return r;
    }
    cpu_reg_set(c, R_RCX, in->adsize, n);
    return X_OK;
}

/* The target is checked before anything is pushed, and the push before RIP moves. */
static int call_to(struct cpu *c, uint64_t target, unsigned size)
{
    uint64_t back = c->next_rip;
    int r = jump_near(c, target, size);
    if (r == X_OK)
        r = cpu_push(c, size, zext(back, size));
    return r;
}

static int op_call_rel(struct cpu *c, const struct x86_insn *in)
{
    return call_to(c, c->next_rip + in->imm, in->opsize);
}

static int op_call_ind(struct cpu *c, const struct x86_insn *in)
{
    uint64_t t;
    int r = cpu_opnd_get(c, in, 0, &t);
    return r != X_OK ? r : call_to(c, t, in->opsize);
}

static int op_ret_near(struct cpu *c, const struct x86_insn *in)
{
    uint64_t t, sp = c->gpr[R_RSP];
    int r = cpu_pop(c, in->opsize, &t);
    if (r == X_OK)
        r = jump_near(c, t, in->opsize);
    if (r != X_OK) {
        c->gpr[R_RSP] = sp;
        return r;
    }
    if (in->nopnd)
        stack_set(c, stack_get(c) + (uint16_t)in->imm);
    return X_OK;
}

/* ---- BOUND ---- */

/* The lower bound is read and checked before the upper one is read. */
static int op_bound(struct cpu *c, const struct x86_insn *in)
{
    unsigned size = in->opsize;
    uint64_t off = cpu_ea(c, in), va, v;
    int64_t i = (int64_t)sext(cpu_reg_get(c, in->opnd[0].reg, size), size);
    for (unsigned k = 0; k < 2; k++) {
        int r = cpu_seg_lin(c, in->seg, zext(off + k * size, in->adsize), size, ACC_READ, &va);
        if (r == X_OK)
            r = size == 2 ? cpu_ld16(c, in->seg, va, &v) : cpu_ld32(c, in->seg, va, &v);
        if (r != X_OK)
            return r;
        int64_t bound = (int64_t)sext(v, size);
        if (k == 0 ? i < bound : i > bound)
            return cpu_raise(c, VEC_BR);
    }
    return X_OK;
}

/* ---- interrupt flag ---- */

/* Allowed below IOPL; else CR4.PVI (CPL 3) and CR4.VME (V86) work on VIF instead. SDM 2A, table 3-7. */
static int op_cli(struct cpu *c, const struct x86_insn *in)
{
    if (c->cpl <= (c->rflags >> 12 & 3)) {
        c->rflags &= ~FL_IF;
        return X_OK;
    }
    uint64_t virt = c->mode & MODE_VM ? CR4_VME : CR4_PVI;
    if (c->cpl == 3 && (c->cr4 & virt)) {
        c->rflags &= ~FL_VIF;
        return X_OK;
    }
    return cpu_raise_err(c, VEC_GP, 0);
}

/* Interrupts stay off for one more instruction, but only if IF was clear. */
static int op_sti(struct cpu *c, const struct x86_insn *in)
{
    if (c->cpl <= (c->rflags >> 12 & 3)) {
        if (!(c->rflags & FL_IF)) {
            cpu_set_rflags(c, FL_IF, FL_IF);
            c->shadow = SHADOW_STI;
        }
        return X_OK;
    }
    uint64_t virt = c->mode & MODE_VM ? CR4_VME : CR4_PVI;
    if (c->cpl == 3 && (c->cr4 & virt) && !(c->rflags & FL_VIP)) {
        c->rflags |= FL_VIF;
        return X_OK;
    }
    return cpu_raise_err(c, VEC_GP, 0);
}

static const struct int_op rows[] = {
    { X86_OP_JMP, { op_jmp_rel, OPF_END } }, { X86_OP_JMP_IND, { op_jmp_ind, OPF_END } },
    { X86_OP_JCC, { op_jcc_rel, OPF_END } }, { X86_OP_JCXZ, { op_jcxz, OPF_END } },
    { X86_OP_LOOP, { op_loop, OPF_END } }, { X86_OP_LOOPE, { op_loop, OPF_END } },
    { X86_OP_LOOPNE, { op_loop, OPF_END } }, { X86_OP_CALL, { op_call_rel, OPF_END } },
    { X86_OP_CALL_IND, { op_call_ind, OPF_END } }, { X86_OP_RET, { op_ret_near, OPF_END } },
    { X86_OP_BOUND, { op_bound, 0 } }, { X86_OP_CLI, { op_cli, 0 } }, { X86_OP_STI, { op_sti, OPF_END } },
};
const struct int_ops int_ops_flow = { rows, ARRAY_SIZE(rows) };
