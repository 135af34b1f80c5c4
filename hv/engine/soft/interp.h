/*
 * What op handlers are written with (interp_*.c). A handler has a fast body, which calls
 * nothing but the next handler, and where it touches memory a cold twin of the same body
 * behind the slow path: so the fast one needs no stack frame.
 *
 * No local of a handler may have its address taken beyond inlining, else the compiler
 * cannot make the last call a jump.
 */
#ifndef HV_ENGINE_SOFT_INTERP_H
#define HV_ENGINE_SOFT_INTERP_H

#include <stdatomic.h>

#include "hv/engine/soft/block.h"
#include "hv/engine/soft/flags.h"

#define COLD __attribute__((cold, noinline))

#define HANDLER(name) static int name(struct cpu *c, struct op *op, uint32_t cc)
#define NEXT return op[1].fn(c, op + 1, cc)

/* ---- registers: numbers of op.h, 16 and 17 included ---- */
static inline uint64_t *op_reg(struct cpu *c, unsigned r) { return (uint64_t *)(void *)c + r; }
#define GET(bits, r) ((uint##bits##_t)*op_reg(c, r))
#define SET(bits, r, v) op_set##bits(c, r, v)
static inline void op_set8(struct cpu *c, unsigned r, uint8_t v)
{
    uint64_t *p = op_reg(c, r);
    *p = (*p & ~(uint64_t)0xff) | v;      /* one whole store: a later 64-bit load can be forwarded */
}
static inline void op_set16(struct cpu *c, unsigned r, uint16_t v)
{
    uint64_t *p = op_reg(c, r);
    *p = (*p & ~(uint64_t)0xffff) | v;
}
static inline void op_set32(struct cpu *c, unsigned r, uint32_t v) { *op_reg(c, r) = v; }
static inline void op_set64(struct cpu *c, unsigned r, uint64_t v) { *op_reg(c, r) = v; }

/* ---- addresses by form ---- */
#define EA_B (*op_reg(c, op->b) + (uint64_t)(int64_t)op->disp)
#define EA_X (EA_B + (*op_reg(c, op->x) << op->scale))
#define EA_G ((EA_X & ((uint64_t)op->u.g.amask << 32 | 0xffffffffu)) + \
              *(const uint64_t *)(const void *)((const char *)c + op->u.g.seg))

/* A handler for each form, and their row of a table. */
#define FORMS_OF(MACRO, ...) MACRO(__VA_ARGS__, B) MACRO(__VA_ARGS__, X) MACRO(__VA_ARGS__, G)
#define FORMS(h) { h##B, h##X, h##G }

/* The segment a non-canonical address is charged to. */
static inline unsigned op_seg(const struct op *op)
{
    return op->b == R_RSP || op->b == R_RBP ? X86_SEG_SS : X86_SEG_DS;
}

/* ---- leaving, interp.c ---- */
int op_fault(struct cpu *c, struct op *op, uint32_t cc);       /* c->exc is filled: X_FAULT at this instruction */
int op_after(struct cpu *c, struct op *op, uint32_t cc);       /* this instruction is done, its block is gone: X_OK */
int op_gp0(struct cpu *c, struct op *op, uint32_t cc);
int op_link_miss(struct cpu *c, struct op *op, uint32_t cc);   /* c->rip is set; resolve op's link */
int op_jump_miss(struct cpu *c, uint32_t cc);                  /* c->rip is set */

/* ---- slow memory, interp.c: results by value, for the reason above ---- */
struct op_value { uint64_t v; int r; };
struct op_value op_ld_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size);
int op_st_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t v);
void *op_rmw_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size);    /* NULL: fault */

/* ---- memory handlers: `m` is the value of uintBITS_t; the body ends before NEXT ---- */
#define H_LOAD(name, EA, bits, ...)                                                               \
    static COLD int name##_slow(struct cpu *c, struct op *op, uint32_t cc)                        \
    {                                                                                             \
        struct op_value l = op_ld_slow(c, op_seg(op), EA, bits / 8);                              \
        if (l.r != X_OK)                                                                          \
            return op_fault(c, op, cc);                                                           \
        uint##bits##_t m = (uint##bits##_t)l.v;                                                   \
        __VA_ARGS__                                                                               \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(name)                                                                                 \
    {                                                                                             \
        uint64_t va = EA;                                                                         \
        const struct tlb_entry *t = tlb_at(c, va);                                                \
        if (HV_UNLIKELY(((va + bits / 8 - 1) & HV_PAGE_MASK) != t->rtag))                         \
            return name##_slow(c, op, cc);                                                        \
        uint##bits##_t m;                                                                         \
        __builtin_memcpy(&m, (const void *)(va + t->addend), sizeof(m));                          \
        __VA_ARGS__                                                                               \
        NEXT;                                                                                     \
    }

/* value: what is stored; the trailing statements run once it is. */
#define H_STORE(name, EA, bits, value, ...)                                                       \
    static COLD int name##_slow(struct cpu *c, struct op *op, uint32_t cc)                        \
    {                                                                                             \
        uint64_t va = EA;                                                                         \
        if (op_st_slow(c, op_seg(op), va, bits / 8, (uint##bits##_t)(value)) != X_OK)             \
            return op_fault(c, op, cc);                                                           \
        __VA_ARGS__                                                                               \
        if (c->code_dropped)                                                                      \
            return op_after(c, op, cc);                                                           \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(name)                                                                                 \
    {                                                                                             \
        uint64_t va = EA;                                                                         \
        const struct tlb_entry *t = tlb_at(c, va);                                                \
        if (HV_UNLIKELY(((va + bits / 8 - 1) & HV_PAGE_MASK) != t->wtag))                         \
            return name##_slow(c, op, cc);                                                        \
        uint##bits##_t m = (uint##bits##_t)(value);                                               \
        __builtin_memcpy((void *)(va + t->addend), &m, sizeof(m));                                \
        __VA_ARGS__                                                                               \
        NEXT;                                                                                     \
    }

/* m in, m out. */
#define H_RMW(name, EA, bits, ...)                                                                \
    static COLD int name##_slow(struct cpu *c, struct op *op, uint32_t cc)                        \
    {                                                                                             \
        void *p = op_rmw_slow(c, op_seg(op), EA, bits / 8);                                       \
        if (!p)                                                                                   \
            return op_fault(c, op, cc);                                                           \
        uint##bits##_t m;                                                                         \
        __builtin_memcpy(&m, p, sizeof(m));                                                       \
        __VA_ARGS__                                                                               \
        __builtin_memcpy(p, &m, sizeof(m));                                                       \
        if (c->rmw.active)                                                                        \
            (void)cpu_rmw_finish(c);                                                              \
        if (c->code_dropped)                                                                      \
            return op_after(c, op, cc);                                                           \
        NEXT;                                                                                     \
    }                                                                                             \
    HANDLER(name)                                                                                 \
    {                                                                                             \
        uint64_t va = EA;                                                                         \
        const struct tlb_entry *t = tlb_at(c, va);                                                \
        if (HV_UNLIKELY(((va + bits / 8 - 1) & HV_PAGE_MASK) != t->wtag))                         \
            return name##_slow(c, op, cc);                                                        \
        void *p = (void *)(va + t->addend);                                                       \
        uint##bits##_t m;                                                                         \
        __builtin_memcpy(&m, p, sizeof(m));                                                       \
        __VA_ARGS__                                                                               \
        __builtin_memcpy(p, &m, sizeof(m));                                                       \
        NEXT;                                                                                     \
    }

/* ---- jumps ---- */
static inline bool op_attention(struct cpu *c)
{
    return atomic_load_explicit(&c->attention, memory_order_relaxed) != 0;
}

/* To start of block + o->disp, through o's link. */
#define JUMP_LINK(o)                                                                              \
    do {                                                                                          \
        struct op *o_ = (o);                                                                      \
        uint64_t t_ = c->rip + (uint64_t)(int64_t)o_->disp;                                       \
        struct block *b_ = o_->u.link;                                                            \
        c->rip = t_;                                                                              \
        c->budget -= o_->n;                                                                       \
        if (HV_LIKELY(b_->vrip == t_ && b_->gen == c->map_gen && c->budget > 0 &&                 \
                      !op_attention(c)))                                                          \
            return b_->entry(c, b_->op, cc);                                                   \
        return op_link_miss(c, o_, cc);                                                           \
    } while (0)

/* To `target`; the trailing statements commit the instruction. Non-canonical: #GP at this instruction. */
#define JUMP_TO(target, ...)                                                                      \
    do {                                                                                          \
        uint64_t t_ = (target);                                                                   \
        const struct jump *j_ = &c->jump[block_jump_slot(t_)];                                    \
        struct block *b_ = j_->b;                                                                 \
        if (HV_LIKELY(j_->rip == t_ && j_->gen == c->map_gen)) {                                  \
            __VA_ARGS__                                                                           \
            c->rip = t_;                                                                          \
            c->budget -= op->n;                                                                   \
            if (HV_LIKELY(c->budget > 0 && !op_attention(c)))                                     \
                return b_->entry(c, b_->op, cc);                                               \
            return op_jump_miss(c, cc);                                                           \
        }                                                                                         \
        if (HV_UNLIKELY((uint64_t)((int64_t)(t_ << 16) >> 16) != t_))                             \
            return op_gp0(c, op, cc);                                                             \
        __VA_ARGS__                                                                               \
        c->rip = t_;                                                                              \
        c->budget -= op->n;                                                                       \
        return op_jump_miss(c, cc);                                                               \
    } while (0)

#endif
