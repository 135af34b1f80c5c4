/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FS/GS base instructions, as Intel
 * processors have them. SDM volume 2, each by name; volume 3, 5.8.7 and 5.8.8.
 */
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

static void enter_flat(struct cpu *c, uint16_t cs_sel, uint16_t ss_sel, unsigned cpl, bool l)
{
    struct seg cs = seg_flat_code(cs_sel, cpl, l);
    c->seg[X86_SEG_SS] = seg_flat_data(ss_sel, cpl);
    seg_set_cs(c, &cs, cpl);
}

int op_syscall(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_code64(c) || !(c->efer & EFER_SCE))
        return cpu_raise(c, VEC_UD);
    const uint64_t flags = cpu_rflags(c);
    const uint16_t sel = (uint16_t)(c->star >> 32 & 0xfffc);
    c->gpr[R_RCX] = c->next_rip;
    c->gpr[11] = flags & ~FL_RF;
    cpu_set_rflags(c, 0, c->fmask | FL_RF);
    enter_flat(c, sel, (uint16_t)(sel + 8), 0, true);
    c->next_rip = c->lstar;
    return X_OK;
}

int op_sysret(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_code64(c) || !(c->efer & EFER_SCE))
        return cpu_raise(c, VEC_UD);
    const bool wide = in->opsize == 8;
    if (c->cpl || (wide && !cpu_canonical(c->gpr[R_RCX])))
        return cpu_raise_err(c, VEC_GP, 0);
    const uint16_t base = (uint16_t)(c->star >> 48);
    const uint64_t flags = (c->gpr[11] & 0x3c7fd7) | 2;
    const uint64_t rip = wide ? c->gpr[R_RCX] : (uint32_t)c->gpr[R_RCX];
    enter_flat(c, (uint16_t)((base + (wide ? 16 : 0)) | 3), (uint16_t)((base + 8) | 3), 3, wide);
    cpu_set_rflags(c, flags, RFLAGS_VALID);
    c->next_rip = rip;
    return X_OK;
}

int op_sysenter(struct cpu *c, const struct x86_insn *in)
{
    if (!(c->cr0 & CR0_PE) || sel_null((uint16_t)c->sysenter_cs))
        return cpu_raise_err(c, VEC_GP, 0);
    const bool lm = cpu_long(c);
    const uint16_t sel = (uint16_t)(c->sysenter_cs & 0xfffc);
    cpu_set_rflags(c, 0, FL_VM | FL_IF | FL_RF);
    enter_flat(c, sel, (uint16_t)(sel + 8), 0, lm);
    c->gpr[R_RSP] = lm ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
    c->next_rip = lm ? c->sysenter_eip : (uint32_t)c->sysenter_eip;
    return X_OK;
}

int op_sysexit(struct cpu *c, const struct x86_insn *in)
{
    if (!(c->cr0 & CR0_PE) || sel_null((uint16_t)c->sysenter_cs) || c->cpl)
        return cpu_raise_err(c, VEC_GP, 0);
    const bool wide = in->opsize == 8;
    if (wide && (!cpu_canonical(c->gpr[R_RCX]) || !cpu_canonical(c->gpr[R_RDX])))
        return cpu_raise_err(c, VEC_GP, 0);
    const uint16_t cs = (uint16_t)((c->sysenter_cs + (wide ? 32 : 16)) | 3);
    const uint64_t rip = wide ? c->gpr[R_RDX] : (uint32_t)c->gpr[R_RDX];
    const uint64_t rsp = wide ? c->gpr[R_RCX] : (uint32_t)c->gpr[R_RCX];
    enter_flat(c, cs, (uint16_t)(cs + 8), 3, wide);
    c->gpr[R_RSP] = rsp;
    c->next_rip = rip;
    return X_OK;
}

int op_swapgs(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_code64(c))
        return cpu_raise(c, VEC_UD);
    if (c->cpl)
        return cpu_raise_err(c, VEC_GP, 0);
    uint64_t gs = c->seg[X86_SEG_GS].base;
    c->seg[X86_SEG_GS].base = c->kernel_gs_base;
    c->kernel_gs_base = gs;
    return X_OK;
}

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE */
int op_fsgsbase(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_code64(c) || !(c->cr4 & CR4_FSGSBASE))
        return cpu_raise(c, VEC_UD);
    struct seg *s = &c->seg[in->op == X86_OP_RDFSBASE || in->op == X86_OP_WRFSBASE ? X86_SEG_FS : X86_SEG_GS];
    if (in->op == X86_OP_RDFSBASE || in->op == X86_OP_RDGSBASE) {
        cpu_reg_set(c, in->opnd[0].reg, in->opsize, s->base);
        return X_OK;
    }
    uint64_t v = cpu_reg_get(c, in->opnd[0].reg, in->opsize);
    if (!cpu_canonical(v))
        return cpu_raise_err(c, VEC_GP, 0);
    s->base = v;
    return X_OK;
}
