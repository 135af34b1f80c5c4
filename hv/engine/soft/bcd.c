/*
 * Integer call-outs: decimal adjustment (not in 64-bit mode, which the decoder knows).
 * SDM 2A; the undefined flags are those Intel CPUs since the P6 give.
 */
#include "hv/engine/soft/intops.h"

static void set_al(struct cpu *c, uint8_t v) { cpu_reg_set(c, R_RAX, 1, v); }
static void set_ax(struct cpu *c, uint16_t v) { cpu_reg_set(c, R_RAX, 2, v); }

static int op_aaa(struct cpu *c, const struct x86_insn *in)
{
    uint16_t ax = (uint16_t)c->gpr[R_RAX];
    bool adjust = (ax & 0xf) > 9 || (c->cc & CC_AF);
    if (adjust)
        ax = (uint16_t)(in->op == X86_OP_AAA ? ax + 0x106 : ax - 0x106);
    set_ax(c, ax & 0xff0f);
    c->cc = (cc_logic(ax & 0xf, 1) & (CC_ZF | CC_PF | CC_SF)) | (adjust ? CC_AF | CC_CF : 0);
    return X_OK;
}

static int op_aam(struct cpu *c, const struct x86_insn *in)
{
    uint8_t base = (uint8_t)in->imm, al = (uint8_t)c->gpr[R_RAX];
    if (base == 0)
        return cpu_raise(c, VEC_DE);
    set_ax(c, (uint16_t)((al / base) << 8 | al % base));
    c->cc = cc_logic(al % base, 1);
    return X_OK;
}

static int op_aad(struct cpu *c, const struct x86_insn *in)
{
    uint16_t ax = (uint16_t)c->gpr[R_RAX];
    uint32_t cc;
    uint8_t v = cc_add8((uint8_t)ax, (uint8_t)((ax >> 8) * (uint8_t)in->imm), &cc);
    set_ax(c, v);
    c->cc = cc;                    /* all of the addition's */
    return X_OK;
}

static int op_daa(struct cpu *c, const struct x86_insn *in)
{
    bool sub = in->op == X86_OP_DAS;
    uint8_t old = (uint8_t)c->gpr[R_RAX], al = old;
    bool old_cf = c->cc & CC_CF, cf = false, af = false;
    if ((al & 0xf) > 9 || (c->cc & CC_AF)) {
        cf = old_cf || (sub ? al < 6 : al > 0xf9);
        al = (uint8_t)(sub ? al - 6 : al + 6);
        af = true;
    }
    if (old > 0x99 || old_cf) {
        al = (uint8_t)(sub ? al - 0x60 : al + 0x60);
        cf = true;
    } else if (!sub) {
        cf = false;
    }
    set_al(c, al);
    c->cc = (cc_logic(al, 1) & (CC_ZF | CC_PF | CC_SF)) | (cf ? CC_CF : 0) | (af ? CC_AF : 0);
    return X_OK;
}

static const struct int_op rows[] = {
    { X86_OP_AAA, { op_aaa, 0 } }, { X86_OP_AAS, { op_aaa, 0 } }, { X86_OP_AAM, { op_aam, 0 } },
    { X86_OP_AAD, { op_aad, 0 } }, { X86_OP_DAA, { op_daa, 0 } }, { X86_OP_DAS, { op_daa, 0 } },
};
const struct int_ops int_ops_bcd = { rows, ARRAY_SIZE(rows) };
