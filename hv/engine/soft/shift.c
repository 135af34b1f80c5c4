/* Integer call-outs: shifts and rotates, SHLD, SHRD, in every form. SDM 2B. */
#include "hv/engine/soft/intops.h"

static uint64_t shift_compute(struct rmw_arg *x, uint64_t a)
{
    uint64_t r = a;
#define SHIFT(bits)                                                                               \
    switch (x->op) {                                                                              \
    case X86_OP_ROL: r = cc_rol##bits((uint##bits##_t)a, (uint8_t)x->src, &x->cc); break;         \
    case X86_OP_ROR: r = cc_ror##bits((uint##bits##_t)a, (uint8_t)x->src, &x->cc); break;         \
    case X86_OP_RCL: r = cc_rcl##bits((uint##bits##_t)a, (uint8_t)x->src, &x->cc); break;         \
    case X86_OP_RCR: r = cc_rcr##bits((uint##bits##_t)a, (uint8_t)x->src, &x->cc); break;         \
    case X86_OP_SHL: r = cc_shl##bits((uint##bits##_t)a, (uint8_t)x->src, &x->cc); break;         \
    case X86_OP_SHR: r = cc_shr##bits((uint##bits##_t)a, (uint8_t)x->src, &x->cc); break;         \
    case X86_OP_SAR: r = cc_sar##bits((uint##bits##_t)a, (uint8_t)x->src, &x->cc); break;         \
    }
    BY_SIZE(x->size, SHIFT);
#undef SHIFT
    return r;
}

static int op_shift_any(struct cpu *c, const struct x86_insn *in)
{
    struct rmw_arg x = { .op = in->op };
    uint32_t before = c->cc;
    int r = cpu_opnd_get(c, in, 1, &x.src);
    if (r == X_OK)
        r = opnd_rmw(c, in, 0, shift_compute, &x, false);
    if (r == X_OK && in->opnd[0].kind == X86_OPND_GPR && in->opnd[1].kind == X86_OPND_IMM &&
        (in->op == X86_OP_ROL || in->op == X86_OP_ROR))
        c->cc = cc_rotate_imm(c->cc, before, x.src & (x.size == 8 ? 63 : 31));
    return r;
}

struct dshift_arg { struct rmw_arg x; uint8_t count; };

static uint64_t dshift_compute(struct rmw_arg *x, uint64_t a)
{
    unsigned n = CONTAINER_OF(x, struct dshift_arg, x)->count;
    uint64_t r = a;
#define DSHIFT(bits)                                                                              \
    r = x->op == X86_OP_SHLD ? cc_shld##bits((uint##bits##_t)a, (uint##bits##_t)x->src, (uint8_t)n, &x->cc) \
                             : cc_shrd##bits((uint##bits##_t)a, (uint##bits##_t)x->src, (uint8_t)n, &x->cc)
    BY_WIDE(x->size, DSHIFT);
#undef DSHIFT
    return r;
}

static int op_dshift_any(struct cpu *c, const struct x86_insn *in)
{
    uint64_t count;
    struct dshift_arg k = { .x.op = in->op };
    int r = cpu_opnd_get(c, in, 1, &k.x.src);
    if (r == X_OK)
        r = cpu_opnd_get(c, in, 2, &count);
    if (r != X_OK)
        return r;
    k.count = (uint8_t)count;
    return opnd_rmw(c, in, 0, dshift_compute, &k.x, false);
}

static const struct int_op rows[] = {
    { X86_OP_ROL, { op_shift_any, 0 } }, { X86_OP_ROR, { op_shift_any, 0 } }, { X86_OP_RCL, { op_shift_any, 0 } },
    { X86_OP_RCR, { op_shift_any, 0 } }, { X86_OP_SHL, { op_shift_any, 0 } }, { X86_OP_SHR, { op_shift_any, 0 } },
    { X86_OP_SAR, { op_shift_any, 0 } }, { X86_OP_SHLD, { op_dshift_any, 0 } }, { X86_OP_SHRD, { op_dshift_any, 0 } },
};
const struct int_ops int_ops_shift = { rows, ARRAY_SIZE(rows) };
