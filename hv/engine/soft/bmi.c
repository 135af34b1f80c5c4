/* Integer call-outs: BMI1, BMI2 and ADX. SDM 2A to 2C. MULX is in muldiv.c. */
#include "hv/engine/soft/intops.h"

/* ZF and SF by the result, CF as given; Intel CPUs clear the undefined ones. */
static uint32_t result_flags(uint64_t v, unsigned size, bool cf)
{
    return (cc_logic(v, size) & (CC_ZF | CC_SF)) | (cf ? CC_CF : 0);
}

static void set_dest(struct cpu *c, const struct x86_insn *in, uint64_t v)
{
    cpu_reg_set(c, in->opnd[0].reg, in->opnd[0].size, v);
}

/* r, r, r/m */
static int op_andn(struct cpu *c, const struct x86_insn *in)
{
    uint64_t a, b;
    unsigned size = in->opnd[0].size;
    int r = cpu_opnd_get(c, in, 1, &a);
    if (r == X_OK)
        r = cpu_opnd_get(c, in, 2, &b);
    if (r != X_OK)
        return r;
    uint64_t v = zext(~a & b, size);
    c->cc = result_flags(v, size, false);
    set_dest(c, in, v);
    return X_OK;
}

/* r, r/m */
static int op_lowest(struct cpu *c, const struct x86_insn *in)
{
    uint64_t a, v;
    bool cf;
    unsigned size = in->opnd[0].size;
    int r = cpu_opnd_get(c, in, 1, &a);
    if (r != X_OK)
        return r;
    switch (in->op) {
    case X86_OP_BLSI: v = a & -a; cf = a != 0; break;
    case X86_OP_BLSMSK: v = a ^ (a - 1); cf = a == 0; break;
    default: v = a & (a - 1); cf = a == 0; break;           /* BLSR */
    }
    v = zext(v, size);
    c->cc = result_flags(v, size, cf);
    if (in->op == X86_OP_BLSMSK)
        c->cc &= ~CC_ZF;                                    /* never zero */
    set_dest(c, in, v);
    return X_OK;
}

/* r, r/m, r: BEXTR (start, length in the third), BZHI, shifts without flags */
static int op_field(struct cpu *c, const struct x86_insn *in)
{
    uint64_t a, k, v;
    unsigned size = in->opnd[0].size, bits = size * 8;
    int r = cpu_opnd_get(c, in, 1, &a);
    if (r == X_OK)
        r = cpu_opnd_get(c, in, 2, &k);
    if (r != X_OK)
        return r;
    unsigned n = (uint8_t)k;
    switch (in->op) {
    case X86_OP_BEXTR: {
        unsigned len = (uint8_t)(k >> 8);
        v = n < bits ? a >> n : 0;
        if (len < 64)
            v &= ((uint64_t)1 << len) - 1;
        c->cc = v ? 0 : CC_ZF;
        break;
    }
    case X86_OP_BZHI:
        v = n < bits ? a & (((uint64_t)1 << n) - 1) : a;
        c->cc = result_flags(v, size, n >= bits);
        break;
    case X86_OP_SHLX: v = a << (n & (bits - 1)); break;
    case X86_OP_SHRX: v = a >> (n & (bits - 1)); break;
    case X86_OP_SARX: v = (uint64_t)((int64_t)sext(a, size) >> (n & (bits - 1))); break;
    default: n &= bits - 1; v = n ? a >> n | a << (bits - n) : a; break;      /* RORX */
    }
    set_dest(c, in, v);
    return X_OK;
}

/* r, r, r/m: the third is the mask */
static int op_deposit(struct cpu *c, const struct x86_insn *in)
{
    uint64_t a, m, v = 0;
    int r = cpu_opnd_get(c, in, 1, &a);
    if (r == X_OK)
        r = cpu_opnd_get(c, in, 2, &m);
    if (r != X_OK)
        return r;
    for (unsigned k = 0; m; m &= m - 1, k++) {
        unsigned pos = (unsigned)__builtin_ctzll(m);
        v |= in->op == X86_OP_PDEP ? (a >> k & 1) << pos : (a >> pos & 1) << k;
    }
    set_dest(c, in, v);
    return X_OK;
}

/* ADCX: carry through CF alone; ADOX: through OF alone. */
static int op_adx(struct cpu *c, const struct x86_insn *in)
{
    uint64_t b;
    unsigned size = in->opnd[0].size;
    int r = cpu_opnd_get(c, in, 1, &b);
    if (r != X_OK)
        return r;
    uint32_t flag = in->op == X86_OP_ADCX ? CC_CF : CC_OF;
    unsigned __int128 v = (unsigned __int128)cpu_reg_get(c, in->opnd[0].reg, size) + b + (c->cc & flag ? 1 : 0);
    c->cc = (c->cc & ~flag) | ((v >> (size * 8)) & 1 ? flag : 0);
    set_dest(c, in, (uint64_t)v);
    return X_OK;
}

static const struct int_op rows[] = {
    { X86_OP_ANDN, { op_andn, 0 } }, { X86_OP_BLSI, { op_lowest, 0 } }, { X86_OP_BLSMSK, { op_lowest, 0 } },
    { X86_OP_BLSR, { op_lowest, 0 } }, { X86_OP_BEXTR, { op_field, 0 } }, { X86_OP_BZHI, { op_field, 0 } },
    { X86_OP_SHLX, { op_field, 0 } }, { X86_OP_SHRX, { op_field, 0 } }, { X86_OP_SARX, { op_field, 0 } },
    { X86_OP_RORX, { op_field, 0 } }, { X86_OP_PDEP, { op_deposit, 0 } }, { X86_OP_PEXT, { op_deposit, 0 } },
    { X86_OP_ADCX, { op_adx, 0 } }, { X86_OP_ADOX, { op_adx, 0 } },
};
const struct int_ops int_ops_bmi = { rows, ARRAY_SIZE(rows) };
