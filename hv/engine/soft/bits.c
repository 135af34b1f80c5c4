/*
 * Integer call-outs: BT BTS BTR BTC (bit strings in memory too), BSF BSR LZCNT TZCNT POPCNT,
 * CRC32. SDM 2A, 2B.
 */
#include "hv/engine/soft/intops.h"

static uint64_t bit_compute(struct rmw_arg *x, uint64_t a)
{
    uint64_t bit = (uint64_t)1 << (x->src & (x->size * 8 - 1));
    x->cc = (x->cc & ~CC_CF) | (a & bit ? CC_CF : 0);
    switch (x->op) {
    case X86_OP_BTS: return a | bit;
    case X86_OP_BTR: return a & ~bit;
    case X86_OP_BTC: return a ^ bit;
    default: return a;
    }
}

/*
 * A register bit offset into memory is signed and reaches beyond the operand: it moves the
 * address by whole operands. An immediate one stays inside.
 */
static int op_bit(struct cpu *c, const struct x86_insn *in)
{
    const struct x86_opnd *o = &in->opnd[0];
    struct rmw_arg x = { .op = in->op };
    int r = cpu_opnd_get(c, in, 1, &x.src);
    if (r != X_OK)
        return r;
    x.size = o->size;
    x.cc = c->cc;
    if (o->kind != X86_OPND_MEM) {
        uint64_t v = bit_compute(&x, cpu_reg_get(c, o->reg, o->size));
        if (in->op != X86_OP_BT)
            cpu_reg_set(c, o->reg, o->size, v);
        c->cc = x.cc;
        return X_OK;
    }
    uint64_t off = cpu_ea(c, in), va;
    if (in->opnd[1].kind == X86_OPND_GPR) {
        int64_t bit = (int64_t)sext(x.src, o->size);
        off = zext(off + (uint64_t)((bit >> (3 + __builtin_ctz(o->size))) * o->size), in->adsize);
    }
    r = cpu_seg_lin(c, in->seg, off, o->size, in->op == X86_OP_BT ? ACC_READ : ACC_WRITE, &va);
    if (r != X_OK)
        return r;
    if (in->op != X86_OP_BT)
        return mem_rmw(c, in->seg, va, o->size, bit_compute, &x, in->prefix & X86_PFX_LOCK);
    uint64_t v;
    switch (o->size) {
    case 2: r = cpu_ld16(c, in->seg, va, &v); break;
    case 4: r = cpu_ld32(c, in->seg, va, &v); break;
    default: r = cpu_ld64(c, in->seg, va, &v); break;
    }
    if (r != X_OK)
        return r;
    (void)bit_compute(&x, v);
    c->cc = x.cc;
    return X_OK;
}

/* A zero source leaves the destination alone, all 64 bits of it. */
static int op_scan(struct cpu *c, const struct x86_insn *in)
{
    uint64_t src, v = 0;
    const struct x86_opnd *o = &in->opnd[0];
    int r = cpu_opnd_get(c, in, 1, &src);
    if (r != X_OK)
        return r;
    uint32_t cc = c->cc;
#define SCAN(bits)                                                                                \
    v = in->op == X86_OP_BSF ? cc_bsf##bits((uint##bits##_t)0, (uint##bits##_t)src, &cc)          \
                             : cc_bsr##bits((uint##bits##_t)0, (uint##bits##_t)src, &cc)
    BY_WIDE(o->size, SCAN);
#undef SCAN
    c->cc = cc;
    if (src)
        cpu_reg_set(c, o->reg, o->size, v);
    return X_OK;
}

/* CF and ZF are defined; Intel CPUs clear the others. */
static int op_count_zeros(struct cpu *c, const struct x86_insn *in)
{
    uint64_t src;
    const struct x86_opnd *o = &in->opnd[0];
    unsigned bits = o->size * 8u;
    int r = cpu_opnd_get(c, in, 1, &src);
    if (r != X_OK)
        return r;
    uint64_t v = bits;
    if (src && in->op == X86_OP_TZCNT)
        v = (unsigned)__builtin_ctzll(src);
    else if (src)
        v = (unsigned)__builtin_clzll(src) - (64 - bits);
    c->cc = (src ? 0 : CC_CF) | (v ? 0 : CC_ZF);
    cpu_reg_set(c, o->reg, o->size, v);
    return X_OK;
}

static int op_popcnt(struct cpu *c, const struct x86_insn *in)
{
    uint64_t src;
    int r = cpu_opnd_get(c, in, 1, &src);
    if (r != X_OK)
        return r;
    c->cc = src ? 0 : CC_ZF;
    cpu_reg_set(c, in->opnd[0].reg, in->opnd[0].size, (unsigned)__builtin_popcountll(src));
    return X_OK;
}

/* CRC-32C, polynomial 0x11EDC6F41, reflected. */
static int op_crc32(struct cpu *c, const struct x86_insn *in)
{
    uint64_t src;
    int r = cpu_opnd_get(c, in, 1, &src);
    if (r != X_OK)
        return r;
    uint32_t crc = (uint32_t)c->gpr[in->opnd[0].reg];
    for (unsigned i = 0; i < in->opnd[1].size; i++, src >>= 8) {
        crc ^= (uint8_t)src;
        for (unsigned k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    c->gpr[in->opnd[0].reg] = crc;
    return X_OK;
}

static const struct int_op rows[] = {
    { X86_OP_BT, { op_bit, 0 } }, { X86_OP_BTS, { op_bit, 0 } }, { X86_OP_BTR, { op_bit, 0 } },
    { X86_OP_BTC, { op_bit, 0 } }, { X86_OP_BSF, { op_scan, 0 } }, { X86_OP_BSR, { op_scan, 0 } },
    { X86_OP_LZCNT, { op_count_zeros, 0 } }, { X86_OP_TZCNT, { op_count_zeros, 0 } },
    { X86_OP_POPCNT, { op_popcnt, 0 } }, { X86_OP_CRC32, { op_crc32, 0 } },
};
const struct int_ops int_ops_bits = { rows, ARRAY_SIZE(rows) };
