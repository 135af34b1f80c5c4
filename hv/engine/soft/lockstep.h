/*
 * Lock-step: the interpreter checks translated blocks in a running guest. HV_SOFT_TRANSLATE=lockstep
 *
 * Every block is translated at its first run, none is linked to another, and of the runs of each the first and
 * then some are made twice from the same state: by the interpreter, whose stores are written down and taken back, and
 * by the translated code. Registers, flags, faults, instruction counts and the bytes stored have to be the same; if
 * not, the block and what differs go to stderr and the process aborts. Blocks that reach out of the vCPU (I/O,
 * MSRs, the clock, mode changes) run once; a block that meets MMIO or code on its way does too.
 *
 * For guests of one vCPU: others would see the stores that are taken back.
 */
#ifndef HV_ENGINE_SOFT_LOCKSTEP_H
#define HV_ENGINE_SOFT_LOCKSTEP_H

#include "hv/engine/soft/block.h"
#include "hv/engine/soft/tlb.h"

struct lockstep;

/* NULL: no memory. Freed with lockstep_free(). */
struct lockstep *lockstep_new(void);
void lockstep_free(struct lockstep *l);
/*
 * What lockstep_entry() has to know of a block, kept in its heat; loop: it jumps to itself. Below 0: it has
 * instructions that cannot run twice.
 */
int32_t lockstep_heat(const struct x86_insn *in, unsigned n, bool loop);
/* The entry of translated blocks; enter is the one they have otherwise. */
int lockstep_entry(struct cpu *c, struct op *op, uint32_t cc);
/* tlb.c: the vCPU is about to use a place. */
void lockstep_access(struct cpu *c, const struct place *p, unsigned len, enum cpu_access acc);
/* The TLB table accesses go through, while they are written down; else that of c->tlb. For tlb_in_force(). */
unsigned lockstep_table(const struct cpu *c);
/* Runs compared so far. */
uint64_t lockstep_count(const struct cpu *c);

#endif
