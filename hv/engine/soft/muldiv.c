/*
 * Integer call-outs: MUL IMUL DIV IDIV MULX. SDM 2A, 2B. Quotients are checked before the
 * host divides: a #DE of the guest must not become one of ours.
 */
#include "hv/engine/soft/intops.h"

/* The double-width value in AH:AL or rDX:rAX, high half first. */
static void wide_get(struct cpu *c, unsigned size, uint64_t *hi, uint64_t *lo)
{
    if (size == 1) {
        *lo = (uint8_t)c->gpr[R_RAX];
        *hi = (uint8_t)(c->gpr[R_RAX] >> 8);
    } else {
        *lo = zext(c->gpr[R_RAX], size);
        *hi = zext(c->gpr[R_RDX], size);
    }
}

static void wide_set(struct cpu *c, unsigned size, uint64_t hi, uint64_t lo)
{
    if (size == 1) {
        cpu_reg_set(c, R_RAX, 2, (hi & 0xff) << 8 | (lo & 0xff));
    } else {
        cpu_reg_set(c, R_RAX, size, lo);
        cpu_reg_set(c, R_RDX, size, hi);
    }
}

/* MULB, IMULB: AX = AL * b, flags as the host's. */
static void mul8(uint64_t *lo, uint64_t *hi, uint8_t b, bool is_signed, uint32_t *cc)
{
    uint16_t p = is_signed ? (uint16_t)((int8_t)*lo * (int8_t)b) : (uint16_t)((uint8_t)*lo * b);
    uint64_t a = *cc, r = *lo;
    if (is_signed)
        __asm__(CC_LOAD "movq %[r], %%rax\n\timulb %[b]" CC_SAVE
                : "+&a"(a), [r] "+&r"(r) : [b] "r"(b) : "cc");
    else
        __asm__(CC_LOAD "movq %[r], %%rax\n\tmulb %[b]" CC_SAVE
                : "+&a"(a), [r] "+&r"(r) : [b] "r"(b) : "cc");
    *cc = (uint32_t)a;
    *lo = p & 0xff;
    *hi = p >> 8;
}

static void multiply(struct cpu *c, unsigned size, uint64_t b, bool is_signed)
{
    uint64_t hi, lo;
    uint32_t cc = c->cc;
    wide_get(c, size, &hi, &lo);
    if (size == 1) {
        mul8(&lo, &hi, (uint8_t)b, is_signed, &cc);
    } else {
#define MULTIPLY(bits)                                                                            \
        {                                                                                         \
            uint##bits##_t l = (uint##bits##_t)lo, h;                                             \
            if (is_signed)                                                                        \
                cc_imul2##bits(&l, &h, (uint##bits##_t)b, &cc);                                   \
            else                                                                                  \
                cc_mul2##bits(&l, &h, (uint##bits##_t)b, &cc);                                    \
            lo = l;                                                                               \
            hi = h;                                                                               \
        }
        BY_WIDE(size, MULTIPLY);
#undef MULTIPLY
    }
    c->cc = cc;
    wide_set(c, size, hi, lo);
}

static int op_mul(struct cpu *c, const struct x86_insn *in)
{
    uint64_t b;
    int r = cpu_opnd_get(c, in, 0, &b);
    if (r == X_OK)
        multiply(c, in->opnd[0].size, b, false);
    return r;
}

static int op_imul(struct cpu *c, const struct x86_insn *in)
{
    uint64_t a, b;
    if (in->nopnd == 1) {
        int r = cpu_opnd_get(c, in, 0, &b);
        if (r == X_OK)
            multiply(c, in->opnd[0].size, b, true);
        return r;
    }
    int r = cpu_opnd_get(c, in, in->nopnd == 3 ? 2 : 0, &a);
    if (r == X_OK)
        r = cpu_opnd_get(c, in, 1, &b);
    if (r != X_OK)
        return r;
    uint32_t cc = c->cc;
    uint64_t v = 0;
#define IMUL(bits) v = cc_imul##bits((uint##bits##_t)a, (uint##bits##_t)b, &cc)
    BY_WIDE(in->opnd[0].size, IMUL);
#undef IMUL
    c->cc = cc;
    return cpu_opnd_set(c, in, 0, v);
}

static int op_mulx(struct cpu *c, const struct x86_insn *in)
{
    uint64_t b;
    unsigned size = in->opnd[0].size;
    int r = cpu_opnd_get(c, in, 2, &b);
    if (r != X_OK)
        return r;
    unsigned __int128 p = (unsigned __int128)zext(c->gpr[R_RDX], size) * zext(b, size);
    cpu_reg_set(c, in->opnd[1].reg, size, (uint64_t)p);
    cpu_reg_set(c, in->opnd[0].reg, size, (uint64_t)(p >> (size * 8)));   /* one register for both: the high half */
    return X_OK;
}

/* The arithmetic flags after DIV are undefined; Intel CPUs of today leave them alone. */
static int op_div(struct cpu *c, const struct x86_insn *in)
{
    uint64_t d, hi, lo, q, rem;
    unsigned size = in->opnd[0].size;
    int r = cpu_opnd_get(c, in, 0, &d);
    if (r != X_OK)
        return r;
    wide_get(c, size, &hi, &lo);
    if (hi >= d)                   /* a zero divisor too */
        return cpu_raise(c, VEC_DE);
    if (size == 8) {
        /* The quotient fits, so the host's DIV does not fault; C would call a library. */
        __asm__("divq %[d]" : "=a"(q), "=d"(rem) : "a"(lo), "d"(hi), [d] "r"(d) : "cc");
    } else {
        uint64_t n = hi << (size * 8) | lo;
        q = n / d;
        rem = n % d;
    }
    wide_set(c, size, rem, q);
    return X_OK;
}

static int op_idiv(struct cpu *c, const struct x86_insn *in)
{
    uint64_t v, hi, lo;
    unsigned size = in->opnd[0].size;
    int r = cpu_opnd_get(c, in, 0, &v);
    if (r != X_OK)
        return r;
    wide_get(c, size, &hi, &lo);
    int64_t d = (int64_t)sext(v, size);
    if (d == 0)
        return cpu_raise(c, VEC_DE);
    __int128 n = size == 8 ? (__int128)((unsigned __int128)hi << 64 | lo)
                           : (__int128)(int64_t)sext(hi << (size * 8) | lo, size == 4 ? 8 : size * 2);
    __int128 q;
    int64_t rem;
    if (n == (__int128)((unsigned __int128)1 << 127) && d == -1)
        return cpu_raise(c, VEC_DE);
    q = n / d;
    rem = (int64_t)(n % d);
    if (q != (__int128)(int64_t)sext((uint64_t)q, size))
        return cpu_raise(c, VEC_DE);
    wide_set(c, size, (uint64_t)rem, (uint64_t)q);
    return X_OK;
}

static const struct int_op rows[] = {
    { X86_OP_MUL, { op_mul, 0 } }, { X86_OP_IMUL, { op_imul, 0 } }, { X86_OP_MULX, { op_mulx, 0 } },
    { X86_OP_DIV, { op_div, 0 } }, { X86_OP_IDIV, { op_idiv, 0 } },
};
const struct int_ops int_ops_muldiv = { rows, ARRAY_SIZE(rows) };
