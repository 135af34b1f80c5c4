/* In place of the translator, where the build leaves it out (module.mk): the interpreter serves alone. */
#include "hv/engine/soft/lockstep.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/translate.h"

int translate_threshold(void) { return -1; }
void translate_init(struct cpu *c, int threshold) { }
void translate_fini(struct cpu *c) { }
void translate_drop(struct cpu *c, struct block *b) { }
void translate_drop_all(struct cpu *c) { }
void translate_link(struct cpu *c, struct block *b) { c->jit.slot = NULL; }
void translate_pending(struct cpu *c) { }
const void *translate_code(const struct cpu *c, const struct block *b) { return NULL; }

void translate_new_block(struct cpu *c, struct block *b)
{
    b->in = NULL;
    b->code = NULL;
    b->entry = b->op[0].fn;
}

void lockstep_access(struct cpu *c, const struct place *p, unsigned len, enum cpu_access acc) { }
unsigned lockstep_table(const struct cpu *c) { return (unsigned)(c->tlb - c->tlb_table[0]) / TLB_SIZE; }
uint64_t lockstep_count(const struct cpu *c) { return 0; }
void code_region_fini(struct soft *s) { }
