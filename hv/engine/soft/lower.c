/*
 * From decoded instructions to ops (op.h): a handler made for the operands at hand where
 * there is one, else a call-out. Register operands need no mode; memory operands have
 * handlers in 64-bit mode and in flat 32-bit code, where no segment check can fail.
 *
 * Two things look at the block as a whole: flags that nobody can see before they are set
 * again are not computed (lower_flags.c), and a comparison with the jump that follows becomes
 * one handler.
 */
#include "hv/engine/soft/flags.h"
#include "hv/engine/soft/intops.h"
#include "hv/engine/soft/op.h"

struct lower {
    uint32_t mode;
    bool one;
    struct block *none;
    struct op_callout *pool;
    unsigned calls;
};

/* STI with an instruction behind it in the block. */
static int sti_inner(struct cpu *c, const struct x86_insn *in)
{
    int r = int_op_find(X86_OP_STI)->fn(c, in);
    if (r == X_OK)
        c->shadow = 0;
    return r;
}

static int raise_ud(struct cpu *c, const struct x86_insn *in) { return cpu_raise(c, VEC_UD); }
static int raise_gp0(struct cpu *c, const struct x86_insn *in) { return cpu_raise_err(c, VEC_GP, 0); }
static const struct op_desc desc_ud = { raise_ud, OPF_END }, desc_gp0 = { raise_gp0, OPF_END };

static const struct op_desc desc_sti_inner = { sti_inner, 0 };

const struct op_desc *lower_sti_inner(void) { return &desc_sti_inner; }

const struct op_desc *lower_find_callout(const struct x86_insn *in, uint32_t mode)
{
    const struct op_desc *d = int_op_find(in->op);
    if (!d && cpu_sys_ops[in->op].fn)
        d = &cpu_sys_ops[in->op];
    if (!d && cpu_fpu_ops[in->op].fn)
        d = &cpu_fpu_ops[in->op];
    if (!d)
        return &desc_ud;
    if ((d->flags & OPF_CPL0) && !(mode & MODE_CPL0))
        return &desc_gp0;
    return d;
}

static enum op_size size_of(unsigned bytes) { return (enum op_size)__builtin_ctz(bytes); }

/* ---- what may be jumped on with links ---- */

/* Jumps that stay in this code segment: everywhere in 64-bit code; elsewhere by operand size. */
static bool near_linked(const struct x86_insn *in, uint32_t mode)
{
    return (mode & MODE_CODE64) || in->opsize == 4 || in->opsize == 2;
}

/* Column of the stack tables, or -1. */
static int stack_kind(const struct x86_insn *in, uint32_t mode)
{
    if (mode & MODE_CODE64)
        return in->opsize == 8 ? 0 : -1;
    return (mode & (MODE_FLAT | MODE_SS32 | MODE_CODE32)) == (MODE_FLAT | MODE_SS32 | MODE_CODE32) &&
           in->opsize == 4 ? 1 : -1;
}

bool lower_ends_block(const struct x86_insn *in, uint32_t mode)
{
    switch (in->op) {
    case X86_OP_JCC:
        return false;
    case X86_OP_LDMXCSR:
    case X86_OP_FXRSTOR:
        return true;               /* MODE_FPEXC may have changed */
    case X86_OP_POP:
        return in->opnd[0].kind == X86_OPND_SEG;
    case X86_OP_MOV_SEG:
        return in->opnd[0].kind == X86_OPND_SEG;
    case X86_OP_STI:               /* lower_after_sti() */
        return false;
    default:
        return lower_find_callout(in, mode)->flags & OPF_END;
    }
}

/* ---- operands ---- */

static bool is_reg(const struct x86_insn *in, unsigned n)
{
    return in->opnd[n].kind == X86_OPND_GPR && in->opnd[n].reg < 16;
}
static bool is_mem(const struct x86_insn *in, unsigned n) { return in->opnd[n].kind == X86_OPND_MEM; }
static bool is_imm(const struct x86_insn *in, unsigned n) { return in->opnd[n].kind == X86_OPND_IMM; }

/*
 * Fill the address of op; `lea`: without segment. Returns the form, or -1 if only a call-out
 * can do it: FS and GS outside 64-bit mode, segments with limits, 16-bit addresses, CS
 * (which may not be written), displacements beyond 32 bits.
 */
static int address(const struct lower *l, const struct x86_insn *in, struct op *op, bool lea)
{
    int64_t disp = in->disp;
    bool seg_base = false;
    op->b = in->base == X86_REG_NONE ? OP_REG_ZERO : in->base == X86_REG_RIP ? OP_REG_RIP : in->base;
    op->x = in->index == X86_REG_NONE ? OP_REG_ZERO : in->index;
    op->scale = in->index == X86_REG_NONE ? 0 : in->scale;
    if (in->base == X86_REG_RIP)
        disp += op->off + op->len;
    if (disp != (int32_t)disp)
        return -1;
    op->disp = (int32_t)disp;
    op->u.g.seg = (uint32_t)offsetof(struct cpu, zero);
    op->u.g.amask = in->adsize == 8 ? UINT32_MAX : 0;
    if (in->adsize == 2)
        return -1;
    if (!lea && in->seg >= X86_SEG_FS) {
        /* Handlers charge an address by RSP or RBP to SS (op_seg()); with FS or GS it is #GP. */
        if (!(l->mode & MODE_CODE64) || in->base == R_RSP || in->base == R_RBP)
            return -1;
        op->u.g.seg = (uint32_t)(offsetof(struct cpu, seg) + in->seg * sizeof(struct seg) + offsetof(struct seg, base));
        seg_base = true;
    }
    if (!lea && !(l->mode & MODE_CODE64) && (!(l->mode & MODE_FLAT) || in->seg == X86_SEG_CS))
        return -1;
    if (seg_base || in->adsize != 8)
        return FORM_G;
    return op->x == OP_REG_ZERO ? FORM_B : FORM_X;
}

/* Pick by form; NULL if the address has none. */
static op_handler *by_form(const struct lower *l, const struct x86_insn *in, struct op *op, op_handler *const *forms)
{
    int form = address(l, in, op, false);
    return form < 0 ? NULL : forms[form];
}

/* ---- by kind of instruction: the handler, with op filled; NULL for a call-out ---- */

static const struct { uint16_t op; enum op_alu alu; } alu_kind[] = {
    { X86_OP_ADD, ALU_ADD }, { X86_OP_OR, ALU_OR },   { X86_OP_ADC, ALU_ADC }, { X86_OP_SBB, ALU_SBB },
    { X86_OP_AND, ALU_AND }, { X86_OP_SUB, ALU_SUB }, { X86_OP_XOR, ALU_XOR }, { X86_OP_CMP, ALU_CMP },
    { X86_OP_TEST, ALU_TEST },
};

static op_handler *lower_alu(const struct lower *l, const struct x86_insn *in, struct op *op, bool dead)
{
    enum op_alu k = ALU_COUNT;
    for (size_t i = 0; i < ARRAY_SIZE(alu_kind); i++) {
        if (alu_kind[i].op == in->op)
            k = alu_kind[i].alu;
    }
    enum op_size sz = size_of(in->opnd[0].size);
    op->imm = (int32_t)in->imm;
    if (is_reg(in, 0) && is_reg(in, 1)) {
        op->r = in->opnd[0].reg;
        op->b = in->opnd[1].reg;
        if (dead && k == ALU_XOR && op->r == op->b && sz >= SZ_32)
            return op->u.imm = 0, op_mov_ri[sz];
        return dead && op_alu_rr_nf[k][sz] ? op_alu_rr_nf[k][sz] : op_alu_rr[k][sz];
    }
    if (is_reg(in, 0) && is_imm(in, 1)) {
        op->r = in->opnd[0].reg;
        return dead && op_alu_ri_nf[k][sz] ? op_alu_ri_nf[k][sz] : op_alu_ri[k][sz];
    }
    if (is_reg(in, 0) && is_mem(in, 1)) {
        op->r = in->opnd[0].reg;
        return by_form(l, in, op, op_alu_rm[k][sz]);
    }
    if (!is_mem(in, 0) || (in->prefix & X86_PFX_LOCK))
        return NULL;
    if (is_reg(in, 1)) {
        op->r = in->opnd[1].reg;
        return by_form(l, in, op, op_alu_mr[k][sz]);
    }
    return is_imm(in, 1) ? by_form(l, in, op, op_alu_mi[k][sz]) : NULL;
}

static op_handler *lower_unary(const struct lower *l, const struct x86_insn *in, struct op *op, bool dead)
{
    enum op_unary k = in->op == X86_OP_INC ? UN_INC : in->op == X86_OP_DEC ? UN_DEC
                    : in->op == X86_OP_NEG ? UN_NEG : UN_NOT;
    enum op_size sz = size_of(in->opnd[0].size);
    if (is_reg(in, 0)) {
        op->r = in->opnd[0].reg;
        return dead && op_unary_r_nf[k][sz] ? op_unary_r_nf[k][sz] : op_unary_r[k][sz];
    }
    if (!is_mem(in, 0) || (in->prefix & X86_PFX_LOCK))
        return NULL;
    return by_form(l, in, op, op_unary_m[k][sz]);
}

static op_handler *lower_shift(const struct x86_insn *in, struct op *op, bool dead)
{
    static const uint16_t kind[SH_COUNT] = {
        [SH_ROL] = X86_OP_ROL, [SH_ROR] = X86_OP_ROR, [SH_RCL] = X86_OP_RCL, [SH_RCR] = X86_OP_RCR,
        [SH_SHL] = X86_OP_SHL, [SH_SHR] = X86_OP_SHR, [SH_SAR] = X86_OP_SAR,
    };
    if (!is_reg(in, 0))
        return NULL;
    unsigned k = 0;
    while (kind[k] != in->op)
        k++;
    enum op_size sz = size_of(in->opnd[0].size);
    op->r = in->opnd[0].reg;
    op->imm = (int32_t)in->imm;
    if (!is_imm(in, 1))
        return op_shift_rc[k][sz];
    return dead && op_shift_ri_nf[k][sz] ? op_shift_ri_nf[k][sz] : op_shift_ri[k][sz];
}

static op_handler *lower_mov(const struct lower *l, const struct x86_insn *in, struct op *op)
{
    enum op_size sz = size_of(in->opnd[0].size);
    op->imm = (int32_t)in->imm;
    if (is_reg(in, 0) && is_reg(in, 1)) {
        op->r = in->opnd[0].reg;
        op->b = in->opnd[1].reg;
        return op_mov_rr[sz];
    }
    if (is_reg(in, 0) && is_imm(in, 1)) {
        op->r = in->opnd[0].reg;
        op->u.imm = in->imm;
        return op_mov_ri[sz];
    }
    if (is_reg(in, 0) && is_mem(in, 1)) {
        op->r = in->opnd[0].reg;
        return by_form(l, in, op, op_load[sz]);
    }
    if (is_mem(in, 0) && is_reg(in, 1)) {
        op->r = in->opnd[1].reg;
        return by_form(l, in, op, op_store[sz]);
    }
    return is_mem(in, 0) && is_imm(in, 1) ? by_form(l, in, op, op_store_i[sz]) : NULL;
}

static op_handler *lower_movx(const struct lower *l, const struct x86_insn *in, struct op *op)
{
    unsigned sign = in->op != X86_OP_MOVZX;
    enum op_size to = size_of(in->opnd[0].size), from = size_of(in->opnd[1].size);
    if (!is_reg(in, 0))
        return NULL;
    op->r = in->opnd[0].reg;
    if (from >= to) {              /* MOVSXD without REX.W, MOVZX r16, r/m16: moves */
        if (from != to)
            return NULL;
        if (is_mem(in, 1))
            return by_form(l, in, op, op_load[to]);
        op->b = in->opnd[1].reg;
        return is_reg(in, 1) ? op_mov_rr[to] : NULL;
    }
    if (is_mem(in, 1))
        return by_form(l, in, op, op_movx_rm[sign][from][to]);
    op->b = in->opnd[1].reg;
    return is_reg(in, 1) ? op_movx_rr[sign][from][to] : NULL;
}

static op_handler *lower_stack(const struct lower *l, const struct x86_insn *in, struct op *op)
{
    int k = stack_kind(in, l->mode);
    if (k < 0)
        return NULL;
    op->b = R_RSP;                 /* faults are charged to SS */
    op->imm = (int32_t)in->imm;
    switch (in->op) {
    case X86_OP_PUSH:
        if (is_reg(in, 0)) {
            op->r = in->opnd[0].reg;
            return op_push_r[k];
        }
        if (is_mem(in, 0))
            return by_form(l, in, op, op_push_m[k]);
        return is_imm(in, 0) ? op_push_i[k] : NULL;
    case X86_OP_POP:
        if (!is_reg(in, 0))
            return NULL;
        op->r = in->opnd[0].reg;
        return op_pop_r[k];
    default:
        return op_leave_frame[k];
    }
}

/* Targets as distances from the start of the block; NULL where operand sizes or limits ask for more. */
static op_handler *lower_jump(const struct lower *l, const struct x86_insn *in, struct op *op)
{
    int64_t disp = (int64_t)in->imm + op->off + op->len;
    int k = stack_kind(in, l->mode);
    if (l->one)
        return NULL;               /* handlers chain, a block of one returns */
    switch (in->op) {
    case X86_OP_JMP:
    case X86_OP_JCC:
    case X86_OP_CALL:
        if (disp != (int32_t)disp || !near_linked(in, l->mode))
            return NULL;
        op->disp = (int32_t)disp;
        op->u.link = l->none;
        if (in->op == X86_OP_CALL)
            return k < 0 ? NULL : op_call[k];
        op->imm = in->cc;
        if (!(l->mode & MODE_CODE64) && in->opsize == 2)
            return in->op == X86_OP_JMP ? op_jmp16 : op_jcc16;
        return in->op == X86_OP_JMP ? op_jmp : op_jcc[in->cc];
    case X86_OP_RET:
        op->b = R_RSP;
        op->imm = (int32_t)(in->imm & 0xffff);
        return k < 0 ? NULL : in->nopnd ? op_ret_i[k] : op_ret[k];
    default:                       /* JMP_IND, CALL_IND */
        if (k < 0)
            return NULL;
        if (is_mem(in, 0))
            return by_form(l, in, op, in->op == X86_OP_JMP_IND ? op_jmp_m[k] : op_call_m[k]);
        op->r = in->opnd[0].reg;
        return in->op == X86_OP_JMP_IND ? op_jmp_r[k] : op_call_r[k];
    }
}

static op_handler *lower_multiply(const struct lower *l, const struct x86_insn *in, struct op *op, bool dead)
{
    enum op_size sz = size_of(in->opnd[0].size);
    op->imm = (int32_t)in->imm;
    op->r = in->opnd[0].reg;
    if (in->op == X86_OP_MUL) {
        if (sz == SZ_8)
            return NULL;
        if (is_mem(in, 0))
            return by_form(l, in, op, op_mul_m[sz]);
        return dead && op_mul_r_nf[sz] ? op_mul_r_nf[sz] : op_mul_r[sz];
    }
    if (in->nopnd == 1)
        return NULL;
    if (in->nopnd == 3) {
        op->b = in->opnd[1].reg;
        return is_reg(in, 1) ? op_imul_rri[sz] : NULL;
    }
    if (is_mem(in, 1))
        return by_form(l, in, op, op_imul_rm[sz]);
    op->b = in->opnd[1].reg;
    return dead && op_imul_rr_nf[sz] ? op_imul_rr_nf[sz] : op_imul_rr[sz];
}

static op_handler *lower_bits(const struct x86_insn *in, struct op *op)
{
    if (!is_reg(in, 0) || is_mem(in, 1))
        return NULL;
    enum op_size sz = size_of(in->opnd[0].size);
    op->r = in->opnd[0].reg;
    op->imm = (int32_t)in->imm;
    op->b = in->opnd[1].reg;
    switch (in->op) {
    case X86_OP_BT: return is_imm(in, 1) ? op_bt_ri[sz] : op_bt_rr[sz];
    case X86_OP_BSF: return op_bsf_rr[sz];
    case X86_OP_BSR: return op_bsr_rr[sz];
    default:                       /* SHLD, SHRD */
        return is_imm(in, 2) ? op_dshift_ri[in->op == X86_OP_SHRD][sz] : NULL;
    }
}

static op_handler *lower_one(const struct lower *l, const struct x86_insn *in, struct op *op, bool dead)
{
    switch (in->op) {
    case X86_OP_ADD: case X86_OP_OR: case X86_OP_ADC: case X86_OP_SBB: case X86_OP_AND: case X86_OP_SUB:
    case X86_OP_XOR: case X86_OP_CMP: case X86_OP_TEST:
        return lower_alu(l, in, op, dead);
    case X86_OP_INC: case X86_OP_DEC: case X86_OP_NEG: case X86_OP_NOT:
        return lower_unary(l, in, op, dead);
    case X86_OP_ROL: case X86_OP_ROR: case X86_OP_RCL: case X86_OP_RCR: case X86_OP_SHL: case X86_OP_SHR:
    case X86_OP_SAR:
        return lower_shift(in, op, dead);
    case X86_OP_MOV: case X86_OP_MOVNTI:
        return lower_mov(l, in, op);
    case X86_OP_MOVZX: case X86_OP_MOVSX: case X86_OP_MOVSXD:
        return lower_movx(l, in, op);
    case X86_OP_LEA: {
        int form = address(l, in, op, true);
        op->r = in->opnd[0].reg;
        return form < 0 ? NULL : op_lea[size_of(in->opnd[0].size)][form];
    }
    case X86_OP_CMOVCC: {
        enum op_size sz = size_of(in->opnd[0].size);
        op->r = in->opnd[0].reg;
        op->imm = in->cc;
        if (is_mem(in, 1))
            return by_form(l, in, op, op_cmov_rm[sz]);
        op->b = in->opnd[1].reg;
        return op_cmov_rr[in->cc][sz];
    }
    case X86_OP_SETCC:
        op->r = in->opnd[0].reg;
        return is_reg(in, 0) ? op_setcc_r[in->cc] : NULL;
    case X86_OP_XCHG:
        op->r = in->opnd[0].reg;
        op->b = in->opnd[1].reg;
        return is_reg(in, 0) && is_reg(in, 1) ? op_xchg_rr[size_of(in->opnd[0].size)] : NULL;
    case X86_OP_BSWAP:
        op->r = in->opnd[0].reg;
        return op_bswap[size_of(in->opnd[0].size)];
    case X86_OP_CBW:
        return op_cbw[size_of(in->opsize)];
    case X86_OP_CWD:
        return op_cwd[size_of(in->opsize)];
    case X86_OP_PUSH: case X86_OP_POP: case X86_OP_LEAVE:
        return lower_stack(l, in, op);
    case X86_OP_JMP: case X86_OP_JCC: case X86_OP_CALL: case X86_OP_RET: case X86_OP_JMP_IND: case X86_OP_CALL_IND:
        return lower_jump(l, in, op);
    case X86_OP_MUL: case X86_OP_IMUL:
        return lower_multiply(l, in, op, dead);
    case X86_OP_BT: case X86_OP_BSF: case X86_OP_BSR: case X86_OP_SHLD: case X86_OP_SHRD:
        return lower_bits(in, op);
    default:
        return NULL;
    }
}

static void lower_callout(struct lower *l, const struct x86_insn *in, struct op *op, bool last)
{
    const struct op_desc *d = lower_find_callout(in, l->mode);
    struct op_callout *k = &l->pool[l->calls++];
    k->fn = in->op == X86_OP_STI && !last ? sti_inner : d->fn;
    k->in = *in;
    op->u.call = k;
    const bool ends = lower_ends_block(in, l->mode) || (in->op == X86_OP_JCC && l->one) || (in->op == X86_OP_STI && last);
    op->fn = ends ? op_callout_end : op_callout;
}

/* The comparison at op and the jump at op[1] as one. */
static void fuse(const struct x86_insn *in, const struct x86_insn *jcc, struct op *op)
{
    if (op[1].fn != op_jcc[jcc->cc] || (in->op != X86_OP_CMP && in->op != X86_OP_TEST && in->op != X86_OP_DEC))
        return;
    enum op_size sz = size_of(in->opnd[0].size);
    op_handler *const (*t)[16] = NULL;
    if (op->fn == op_alu_rr[ALU_CMP][sz])
        t = op_cmp_rr_jcc;
    else if (op->fn == op_alu_ri[ALU_CMP][sz])
        t = op_cmp_ri_jcc;
    else if (op->fn == op_alu_rr[ALU_TEST][sz])
        t = op_test_rr_jcc;
    else if (op->fn == op_alu_ri[ALU_TEST][sz])
        t = op_test_ri_jcc;
    else if (op->fn == op_unary_r[UN_DEC][sz])
        t = op_dec_jcc;
    if (t && t[sz][jcc->cc])
        op->fn = t[sz][jcc->cc];
}

static bool is_nop(const struct x86_insn *in)
{
    switch (in->op) {
    case X86_OP_NOP: case X86_OP_ENDBR32: case X86_OP_ENDBR64: case X86_OP_PREFETCHNTA: case X86_OP_PREFETCHT0:
    case X86_OP_PREFETCHT1: case X86_OP_PREFETCHT2: case X86_OP_PREFETCHW: case X86_OP_PREFETCH:
        return true;
    default:
        return false;
    }
}

unsigned lower_block(const struct x86_insn *in, unsigned n, uint32_t mode, bool one, struct block *none,
                     struct op *op, struct op_callout *pool, unsigned *ret_calls)
{
    struct lower l = { .mode = mode, .one = one, .none = none, .pool = pool };
    bool dead[256];
    hv_assert(n <= ARRAY_SIZE(dead) - 1);
    lower_dead_flags(in, n, dead);
    unsigned off = 0, k = 0;
    for (unsigned i = 0; i < n; off += in[i++].len) {
        if (is_nop(&in[i]))
            continue;
        struct op *o = &op[k++];
        *o = (struct op){ .n = (uint8_t)(i + 1), .len = in[i].len, .off = (uint16_t)off };
        o->fn = lower_one(&l, &in[i], o, dead[i]);
        if (!o->fn)
            lower_callout(&l, &in[i], o, i + 1 == n);
        if (k > 1 && in[i].op == X86_OP_JCC && i > 0 && !is_nop(&in[i - 1]))
            fuse(&in[i - 1], &in[i], o - 1);
    }
    if (!lower_ends_block(&in[n - 1], mode) || is_nop(&in[n - 1]) || (one && k && op[k - 1].fn == op_callout)) {
        op[k] = (struct op){ .fn = one ? op_exit : op_jmp, .u.link = none, .disp = (int32_t)off, .n = (uint8_t)n,
                             .off = (uint16_t)off };
        k++;
    }
    *ret_calls = l.calls;
    return k;
}
