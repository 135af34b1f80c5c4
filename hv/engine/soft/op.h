/*
 * What the threaded loop runs: a block is an array of struct op, each with the address
 * of its handler. A handler does its work and tail-calls the next one, so that the vCPU,
 * the op and the flags stay in host registers (the calling convention's first three) and
 * every handler ends in a jump of its own, which branch predictors tell apart.
 *
 * lower.c picks handlers through the tables below; interp_*.c hold them by subject. What
 * has no handler of its own is a call-out (op_call): the op_fn of its x86_op.
 */
#ifndef HV_ENGINE_SOFT_OP_H
#define HV_ENGINE_SOFT_OP_H

#include "hv/engine/soft/cpu.h"

struct op;
struct block;

/* Returns X_*: X_OK means c->rip is where to go on, through a full look-up. */
typedef int op_handler(struct cpu *c, struct op *op, uint32_t cc);

/* A call-out: the instruction as decoded, kept in the block's memory. */
struct op_callout {
    op_fn *fn;
    struct x86_insn in;
};

struct op {
    op_handler *fn;
    union {
        uint64_t imm;              /* full immediate */
        struct block *link;        /* jumps: the block that was last at the target; never NULL */
        struct op_callout *call;
        struct {                   /* addresses of form G: */
            uint32_t seg;          /* offset in struct cpu of the segment base (or of cpu.zero) */
            uint32_t amask;        /* upper half of the offset's mask: 0 for 16/32-bit addresses */
        } g;
    } u;
    int32_t disp;                  /* of the address; jumps: target minus start of the block */
    int32_t imm;                   /* sign-extended 32-bit immediate, shift count, ... */
    uint8_t r;                     /* the register operand; of two: the destination */
    uint8_t b;                     /* base register, or source register of register forms */
    uint8_t x;                     /* index register */
    uint8_t scale;                 /* shift of the index */
    uint8_t n;                     /* instructions of the block up to and including this one */
    uint8_t len;                   /* bytes of the instruction */
    uint16_t off;                  /* its distance from the start of the block */
};
_Static_assert(sizeof(struct op) == 32, "two ops in a cache line");

/*
 * Register numbers in ops index c->gpr[], and go on past it: struct cpu continues with rip
 * (start of the block while it runs, so that RIP-relative addresses are base + disp) and zero.
 */
#define OP_REG_RIP 16
#define OP_REG_ZERO 17
_Static_assert(offsetof(struct cpu, rip) == OP_REG_RIP * 8, "rip follows gpr[]");
_Static_assert(offsetof(struct cpu, zero) == OP_REG_ZERO * 8, "zero follows rip");

/*
 * Address forms: B base + disp; X base + index * scale + disp; G the same with a segment
 * base and an address-size mask. B and X are for 64-bit addresses without FS or GS.
 */
enum op_form { FORM_B, FORM_X, FORM_G, FORM_COUNT };

enum op_size { SZ_8, SZ_16, SZ_32, SZ_64, SZ_COUNT };   /* log2 of the bytes */

enum op_alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP, ALU_TEST, ALU_COUNT };
enum op_unary { UN_INC, UN_DEC, UN_NEG, UN_NOT, UN_COUNT };
enum op_shift { SH_ROL, SH_ROR, SH_RCL, SH_RCR, SH_SHL, SH_SHR, SH_SAR, SH_COUNT };

/* ALU. NULL: no such handler. _nf: flags are dead. 8-bit registers: AL..R15B only. */
extern op_handler *const op_alu_rr[ALU_COUNT][SZ_COUNT], *const op_alu_rr_nf[ALU_COUNT][SZ_COUNT];
extern op_handler *const op_alu_ri[ALU_COUNT][SZ_COUNT], *const op_alu_ri_nf[ALU_COUNT][SZ_COUNT];
extern op_handler *const op_alu_rm[ALU_COUNT][SZ_COUNT][FORM_COUNT];   /* r = r op mem; CMP r, mem */
extern op_handler *const op_alu_mr[ALU_COUNT][SZ_COUNT][FORM_COUNT];   /* mem = mem op r; CMP, TEST mem, r */
extern op_handler *const op_alu_mi[ALU_COUNT][SZ_COUNT][FORM_COUNT];
extern op_handler *const op_unary_r[UN_COUNT][SZ_COUNT], *const op_unary_r_nf[UN_COUNT][SZ_COUNT];
extern op_handler *const op_unary_m[UN_COUNT][SZ_COUNT][FORM_COUNT];
extern op_handler *const op_shift_ri[SH_COUNT][SZ_COUNT], *const op_shift_ri_nf[SH_COUNT][SZ_COUNT];
extern op_handler *const op_shift_rc[SH_COUNT][SZ_COUNT];
/* SHLD, SHRD r, r, imm: [0] left, [1] right. */
extern op_handler *const op_dshift_ri[2][SZ_COUNT];

/* Moves. */
extern op_handler *const op_mov_rr[SZ_COUNT], *const op_mov_ri[SZ_COUNT];
extern op_handler *const op_load[SZ_COUNT][FORM_COUNT], *const op_store[SZ_COUNT][FORM_COUNT];
extern op_handler *const op_store_i[SZ_COUNT][FORM_COUNT];
/* [signed][source size][destination size]; MOVZX to 64 bits is the one to 32. */
extern op_handler *const op_movx_rr[2][SZ_COUNT][SZ_COUNT], *const op_movx_rm[2][SZ_COUNT][SZ_COUNT][FORM_COUNT];
extern op_handler *const op_lea[SZ_COUNT][FORM_COUNT];
extern op_handler *const op_cmov_rr[16][SZ_COUNT], *const op_setcc_r[16];
extern op_handler *const op_cmov_rm[SZ_COUNT][FORM_COUNT];            /* condition in .scale's place: op.imm */
extern op_handler *const op_xchg_rr[SZ_COUNT], *const op_bswap[SZ_COUNT];
/* CBW..CDQE by destination size, CWD..CQO by operand size. */
extern op_handler *const op_cbw[SZ_COUNT], *const op_cwd[SZ_COUNT];

/* Multiplication and bits. */
extern op_handler *const op_imul_rr[SZ_COUNT], *const op_imul_rr_nf[SZ_COUNT];
extern op_handler *const op_imul_rm[SZ_COUNT][FORM_COUNT], *const op_imul_rri[SZ_COUNT];
extern op_handler *const op_mul_r[SZ_COUNT], *const op_mul_r_nf[SZ_COUNT];
extern op_handler *const op_mul_m[SZ_COUNT][FORM_COUNT];
extern op_handler *const op_bt_ri[SZ_COUNT], *const op_bt_rr[SZ_COUNT];
extern op_handler *const op_bsf_rr[SZ_COUNT], *const op_bsr_rr[SZ_COUNT];

/* Stack: [0] 64-bit mode, [1] flat 32-bit with a 32-bit stack; operand size = stack width. */
extern op_handler *const op_push_r[2], *const op_push_i[2], *const op_pop_r[2], *const op_leave_frame[2];
extern op_handler *const op_push_m[2][FORM_COUNT];

/* Jumps. Targets of jmp and jcc are start of block + disp. */
extern op_handler op_jmp, op_jmp16;
extern op_handler *const op_jcc[16];
extern op_handler *const op_call[2], *const op_ret[2], *const op_ret_i[2];
extern op_handler *const op_jmp_r[2], *const op_call_r[2];
extern op_handler *const op_jmp_m[2][FORM_COUNT], *const op_call_m[2][FORM_COUNT];
/* Fused with the JCC in the op that follows. */
extern op_handler *const op_cmp_rr_jcc[SZ_COUNT][16], *const op_cmp_ri_jcc[SZ_COUNT][16];
extern op_handler *const op_test_rr_jcc[SZ_COUNT][16], *const op_test_ri_jcc[SZ_COUNT][16];
extern op_handler *const op_dec_jcc[SZ_COUNT][16];

extern op_handler *const op_jcc16;               /* condition in .imm */

/* Call-outs: go on with the next op, or (OPF_END) leave the block. */
extern op_handler op_callout, op_callout_end;
/* Ends a block of one: c->rip moves past it, back to the loop. */
extern op_handler op_exit;
extern op_handler op_nop;

/* What op is on the CPU this guest was shown: itself, X86_OP_INVALID, BSF for TZCNT... intops.c */
unsigned int_op_shown(const struct cpu *c, unsigned op);

/*
 * Turn in[n] into ops at op[]: at most one an instruction, and one to end the block.
 * Call-outs are taken from pool[] upwards, *ret_calls of them. Returns the number of ops.
 *
 * mode     MODE_* the block is for
 * one      a block of one instruction that returns to the loop
 * none     what unresolved links point to
 */
unsigned lower_block(const struct x86_insn *in, unsigned n, uint32_t mode, bool one, struct block *none,
                     struct op *op, struct op_callout *pool, unsigned *ret_calls);
/* dead[i]: no flag that in[i] writes is seen before it is written again. lower_flags.c */
void lower_dead_flags(const struct x86_insn *in, unsigned n, bool *dead);
/* What an instruction does to the arithmetic flags (CC_*); barrier: it may leave the block. lower_flags.c */
struct flag_use { uint32_t read, write; bool barrier; };
struct flag_use lower_flag_use(const struct x86_insn *in);
/* The call-out that executes it in this mode. */
const struct op_desc *lower_find_callout(const struct x86_insn *in, uint32_t mode);
/*
 * STI has one instruction behind it in its block, if there is room, and the block's end looks at
 * attention: so the shadow is over by then, and the call-out is the one that casts none. Without
 * room it goes back to the loop with the shadow.
 */
static inline bool lower_after_sti(const struct x86_insn *before) { return before->op == X86_OP_STI; }
const struct op_desc *lower_sti_inner(void);
/* Does nothing after this instruction belong to its block? */
bool lower_ends_block(const struct x86_insn *in, uint32_t mode);

#endif
