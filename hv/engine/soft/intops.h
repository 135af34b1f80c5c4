/* Shared by the integer call-outs (alu.c, move.c, shift.c, muldiv.c, bits.c, bcd.c, stack.c, flow.c, string.c). */
#ifndef HV_ENGINE_SOFT_INTOPS_H
#define HV_ENGINE_SOFT_INTOPS_H

#include "hv/engine/soft/flags.h"

/* A table row; each file's rows are joined by intops.c. */
struct int_op { uint16_t op; struct op_desc d; };
struct int_ops { const struct int_op *row; unsigned count; };

/* The call-out of an integer instruction, or NULL. intops.c */
const struct op_desc *int_op_find(unsigned op);

extern const struct int_ops int_ops_alu, int_ops_move, int_ops_shift, int_ops_muldiv, int_ops_bits, int_ops_bmi,
    int_ops_bcd, int_ops_stack, int_ops_flow, int_ops_string;

/*
 * Read-modify-write of operand n: fn gets the old value (zero-extended) and returns the new one;
 * it may run several times (LOCK: compare-and-swap until it sticks), so it only computes.
 * x->cc is c->cc before, and becomes c->cc after. `lock` forces the atomic form (XCHG).
 */
struct rmw_arg { unsigned size, op; uint64_t src, old; uint32_t cc; };
typedef uint64_t rmw_fn(struct rmw_arg *x, uint64_t old);
int opnd_rmw(struct cpu *c, const struct x86_insn *in, unsigned n, rmw_fn *fn, struct rmw_arg *x, bool lock);
/* The same on memory at a linear address. */
int mem_rmw(struct cpu *c, unsigned seg, uint64_t va, unsigned size, rmw_fn *fn, struct rmw_arg *x, bool lock);

/* Runs CALL(bits) for the size, which declares uintBITS_t work itself. */
#define BY_SIZE(size, CALL)                                                                       \
    do {                                                                                          \
        switch (size) {                                                                           \
        case 1: CALL(8); break;                                                                   \
        case 2: CALL(16); break;                                                                  \
        case 4: CALL(32); break;                                                                  \
        default: CALL(64); break;                                                                 \
        }                                                                                         \
    } while (0)
#define BY_WIDE(size, CALL)                                                                       \
    do {                                                                                          \
        switch (size) {                                                                           \
        case 2: CALL(16); break;                                                                  \
        case 4: CALL(32); break;                                                                  \
        default: CALL(64); break;                                                                 \
        }                                                                                         \
    } while (0)

/* The low size bytes of v; and those sign-extended. */
static inline uint64_t zext(uint64_t v, unsigned size)
{
    return size >= 8 ? v : v & (((uint64_t)1 << (size * 8)) - 1);
}
static inline uint64_t sext(uint64_t v, unsigned size)
{
    unsigned s = 64 - size * 8;
    return (uint64_t)((int64_t)(v << s) >> s);
}

/* Width of a stack in the present mode: 8, 4 or 2 bytes. */
static inline unsigned stack_size(const struct cpu *c)
{
    return c->mode & MODE_CODE64 ? 8 : c->mode & MODE_SS32 ? 4 : 2;
}
/* The stack register as an address, and a new value for its used part. */
uint64_t stack_get(const struct cpu *c);
void stack_set(struct cpu *c, uint64_t v);

/* Near jump: check target against canonical form or the limit of CS, then c->next_rip. */
int jump_near(struct cpu *c, uint64_t target, unsigned opsize);

#endif
