/*
 * Operands of call-outs: registers by decoder number, effective and linear addresses with
 * segment checks (SDM 3, 5.3 to 5.5; real mode 20.1), read-modify-write, push and pop.
 */
#include "hv/engine/soft/intops.h"

#include <stdatomic.h>

uint64_t cpu_reg_get(const struct cpu *c, unsigned reg, unsigned size)
{
    switch (size) {
    case 1: return reg >= 16 ? (uint8_t)(c->gpr[reg - 16] >> 8) : (uint8_t)c->gpr[reg];
    case 2: return (uint16_t)c->gpr[reg];
    case 4: return (uint32_t)c->gpr[reg];
    default: return c->gpr[reg];
    }
}

void cpu_reg_set(struct cpu *c, unsigned reg, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        if (reg >= 16)
            c->gpr[reg - 16] = (c->gpr[reg - 16] & ~(uint64_t)0xff00) | (v & 0xff) << 8;
        else
            c->gpr[reg] = (c->gpr[reg] & ~(uint64_t)0xff) | (v & 0xff);
        break;
    case 2: c->gpr[reg] = (c->gpr[reg] & ~(uint64_t)0xffff) | (v & 0xffff); break;
    case 4: c->gpr[reg] = (uint32_t)v; break;
    default: c->gpr[reg] = v; break;
    }
}

uint64_t cpu_ea(struct cpu *c, const struct x86_insn *in)
{
    uint64_t ea = (uint64_t)in->disp;
    if (in->base == X86_REG_RIP)
        ea += c->next_rip;
    else if (in->base != X86_REG_NONE)
        ea += c->gpr[in->base];
    if (in->index != X86_REG_NONE)
        ea += c->gpr[in->index] << in->scale;
    return zext(ea, in->adsize);
}

static int seg_fault(struct cpu *c, unsigned seg)
{
    return cpu_raise_err(c, seg == X86_SEG_SS ? VEC_SS : VEC_GP, 0);
}

int cpu_seg_lin(struct cpu *c, unsigned seg, uint64_t off, unsigned size, enum cpu_access acc, uint64_t *ret)
{
    const struct seg *s = &c->seg[seg];
    if (c->mode & MODE_CODE64) {
        uint64_t va = off + (seg >= X86_SEG_FS ? s->base : 0);
        uint64_t last = va + (size ? size - 1 : 0);
        if ((uint64_t)((int64_t)(va << 16) >> 16) != va || (uint64_t)((int64_t)(last << 16) >> 16) != last)
            return seg_fault(c, seg);
        *ret = va;
        return X_OK;
    }
    uint32_t o = (uint32_t)off, last = o + (size ? size - 1 : 0);
    if ((c->mode & (MODE_PE | MODE_VM)) == MODE_PE) {
        unsigned type = s->attr & 0xf;
        if (s->attr & SEG_ATTR_UNUSABLE)
            return seg_fault(c, seg);
        if (acc == ACC_WRITE && (type & 0xa) != 2)       /* code, or data without W */
            return seg_fault(c, seg);
        if (acc == ACC_READ && (type & 0xa) == 8)        /* code without R */
            return seg_fault(c, seg);
        if ((type & 0xc) == 4) {                         /* expand-down: limit+1 .. top */
            uint32_t top = s->attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
            if (o <= s->limit || last > top || last < o)
                return seg_fault(c, seg);
            *ret = (uint32_t)(s->base + o);
            return X_OK;
        }
    }
    if (last > s->limit || last < o)
        return seg_fault(c, seg);
    *ret = (uint32_t)(s->base + o);
    return X_OK;
}

int cpu_mem_lin(struct cpu *c, const struct x86_insn *in, unsigned size, enum cpu_access acc, uint64_t *ret)
{
    return cpu_seg_lin(c, in->seg, cpu_ea(c, in), size, acc, ret);
}

static int load(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t *ret)
{
    switch (size) {
    case 1: return cpu_ld8(c, seg, va, ret);
    case 2: return cpu_ld16(c, seg, va, ret);
    case 4: return cpu_ld32(c, seg, va, ret);
    default: return cpu_ld64(c, seg, va, ret);
    }
}

static int store(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t v)
{
    switch (size) {
    case 1: return cpu_st8(c, seg, va, v);
    case 2: return cpu_st16(c, seg, va, v);
    case 4: return cpu_st32(c, seg, va, v);
    default: return cpu_st64(c, seg, va, v);
    }
}

int cpu_opnd_get(struct cpu *c, const struct x86_insn *in, unsigned n, uint64_t *ret)
{
    const struct x86_opnd *o = &in->opnd[n];
    uint64_t va;
    switch (o->kind) {
    case X86_OPND_GPR:
        *ret = cpu_reg_get(c, o->reg, o->size);
        return X_OK;
    case X86_OPND_MEM: {
        int r = cpu_mem_lin(c, in, o->size, ACC_READ, &va);
        return r != X_OK ? r : load(c, in->seg, va, o->size, ret);
    }
    case X86_OPND_IMM2:
        *ret = in->imm2;
        return X_OK;
    default:
        *ret = in->imm;
        return X_OK;
    }
}

int cpu_opnd_set(struct cpu *c, const struct x86_insn *in, unsigned n, uint64_t v)
{
    const struct x86_opnd *o = &in->opnd[n];
    if (o->kind == X86_OPND_GPR) {
        cpu_reg_set(c, o->reg, o->size, v);
        return X_OK;
    }
    hv_assert(o->kind == X86_OPND_MEM);
    uint64_t va;
    int r = cpu_mem_lin(c, in, o->size, ACC_WRITE, &va);
    return r != X_OK ? r : store(c, in->seg, va, o->size, v);
}

/* ---- read-modify-write ---- */

/*
 * LOCK across a cache line or a page: hosts that detect split locks delay or kill who makes them, and
 * two pages are seldom neighbours here, so the guest's are made one at a time under a lock of ours.
 * Not atomic for whole-operand accesses without LOCK. Nothing that could wait for another vCPU (a
 * device, dropped code) is called while it is held.
 */
static atomic_flag split_lock = ATOMIC_FLAG_INIT;

static bool is_split(const void *p, unsigned size)
{
    return ((uintptr_t)p & 63) + size > 64;
}

static void split_enter(void)
{
    while (atomic_flag_test_and_set_explicit(&split_lock, memory_order_acquire))
        __builtin_ia32_pause();
}

static void split_leave(void) { atomic_flag_clear_explicit(&split_lock, memory_order_release); }

/* c->rmw.buf from its two pages, or back. */
static void move_halves(struct cpu *c, bool store)
{
    const unsigned len[2] = { c->rmw.first_len, c->rmw.size - c->rmw.first_len };
    uint8_t *buf = c->rmw.buf;
    for (unsigned i = 0; i < 2; buf += len[i++])
        memcpy(store ? c->rmw.half[i] : buf, store ? buf : c->rmw.half[i], len[i]);
}

int mem_rmw(struct cpu *c, unsigned seg, uint64_t va, unsigned size, rmw_fn *fn, struct rmw_arg *x, bool lock)
{
    void *p;
    int r = cpu_rmw(c, seg, va, size, &p);
    if (r != X_OK)
        return r;
    uint32_t cc = x->cc;
    const bool two_pages = lock && p == c->rmw.buf && c->rmw.half[0];
    const bool split = two_pages || (lock && p != c->rmw.buf && is_split(p, size));
    if (lock && p != c->rmw.buf && !split) {
#define SWAP(bits)                                                                                \
        uint##bits##_t *q = p, old = __atomic_load_n(q, __ATOMIC_RELAXED), new;                   \
        do {                                                                                      \
            x->cc = cc;                                                                           \
            new = (uint##bits##_t)fn(x, old);                                                     \
        } while (!__atomic_compare_exchange_n(q, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)); \
        x->old = old
        switch (size) {
        case 1: { SWAP(8); break; }
        case 2: { SWAP(16); break; }
        case 4: { SWAP(32); break; }
        default: { SWAP(64); break; }
        }
#undef SWAP
    } else {
        if (split)
            split_enter();
        if (two_pages)
            move_halves(c, false);         /* what cpu_rmw() read was before the lock */
#define PLAIN(bits)                                                                               \
        uint##bits##_t v;                                                                         \
        __builtin_memcpy(&v, p, sizeof(v));                                                       \
        x->old = v;                                                                               \
        v = (uint##bits##_t)fn(x, v);                                                             \
        __builtin_memcpy(p, &v, sizeof(v))
        switch (size) {
        case 1: { PLAIN(8); break; }
        case 2: { PLAIN(16); break; }
        case 4: { PLAIN(32); break; }
        default: { PLAIN(64); break; }
        }
#undef PLAIN
        if (two_pages) {
            move_halves(c, true);
            c->rmw.stored = true;
        }
        if (split)
            split_leave();
    }
    c->cc = x->cc;
    return c->rmw.active ? cpu_rmw_finish(c) : X_OK;
}

int opnd_rmw(struct cpu *c, const struct x86_insn *in, unsigned n, rmw_fn *fn, struct rmw_arg *x, bool lock)
{
    const struct x86_opnd *o = &in->opnd[n];
    x->size = o->size;
    x->cc = c->cc;
    if (o->kind == X86_OPND_GPR) {
        x->old = cpu_reg_get(c, o->reg, o->size);
        uint64_t v = fn(x, x->old);
        cpu_reg_set(c, o->reg, o->size, v);
        c->cc = x->cc;
        return X_OK;
    }
    uint64_t va;
    int r = cpu_mem_lin(c, in, o->size, ACC_WRITE, &va);
    if (r != X_OK)
        return r;
    return mem_rmw(c, in->seg, va, o->size, fn, x, lock || (in->prefix & X86_PFX_LOCK));
}

/* ---- stack ---- */

uint64_t stack_get(const struct cpu *c)
{
    return zext(c->gpr[R_RSP], stack_size(c));
}

void stack_set(struct cpu *c, uint64_t v)
{
    cpu_reg_set(c, R_RSP, stack_size(c), v);
}

int cpu_push(struct cpu *c, unsigned size, uint64_t v)
{
    uint64_t sp = zext(c->gpr[R_RSP] - size, stack_size(c)), va;
    int r = cpu_seg_lin(c, X86_SEG_SS, sp, size, ACC_WRITE, &va);
    if (r == X_OK)
        r = store(c, X86_SEG_SS, va, size, v);
    if (r == X_OK)
        stack_set(c, sp);
    return r;
}

int cpu_pop(struct cpu *c, unsigned size, uint64_t *ret)
{
    uint64_t sp = stack_get(c), va, v;
    int r = cpu_seg_lin(c, X86_SEG_SS, sp, size, ACC_READ, &va);
    if (r == X_OK)
        r = load(c, X86_SEG_SS, va, size, &v);
    if (r == X_OK) {
        stack_set(c, sp + size);
        *ret = v;
    }
    return r;
}
