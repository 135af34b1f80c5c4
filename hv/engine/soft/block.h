/*
 * Decoded blocks: straight runs of instructions, found by the physical address of their
 * first byte and the mode they were decoded for, dropped when those bytes change.
 *
 *   lookup    RIP -> block through c->jump[] (direct mapped), else TLB, hash, decoder. A block is in
 *             jump[] for its vrip at most; its code there is what translate_code() says
 *   links     a jump remembers the block it last reached. It may be entered directly if it was
 *             validated for that RIP in the present TLB generation: vrip and gen say so.
 *   dropping  gen = 0, which no lookup and no link accepts; the memory stays until the arena
 *             is full and everything goes at once. So nothing ever points into freed memory.
 *
 * One cache per vCPU, touched by its thread only.
 */
#ifndef HV_ENGINE_SOFT_BLOCK_H
#define HV_ENGINE_SOFT_BLOCK_H

#include "hv/engine/soft/op.h"

struct block {
    uint64_t vrip;                 /* RIP it was last validated for */
    uint64_t gen;                  /* c->map_gen then; 0: dropped */
    uint32_t mode;                 /* MODE_*, BLOCK_ONE */
    uint16_t len;                  /* bytes of code */
    uint16_t first;                /* enum x86_op of the first instruction */
    gpa_t gpa;
    gpa_t gpa2;                    /* the second page, if it crosses into one; else BLOCK_NO_PAGE */
    struct block *hash_next;
    struct block *page_next[2];    /* among the blocks of the page of gpa, and of gpa2 */
    op_handler *entry;             /* how to run it: op[0]'s handler, or what counts or leads to translated code */
    const void *code;              /* translated, or what interprets it from there (translate.h) */
    struct jit_slot *in;           /* jumps of translated code that lead here */
    int32_t heat;                  /* runs until it is translated */
    bool proved;                   /* it was hot before everything was dropped: translate it sooner */
    struct op op[];
};
_Static_assert(sizeof(struct block) == 96, "ops start on half a cache line");

/* Bits of the mode that change how bytes are decoded, lowered, translated or reached. */
#define BLOCK_KEY (MODE_CODE32 | MODE_CODE64 | MODE_SS32 | MODE_USER | MODE_FLAT | MODE_PE | MODE_VM | \
                   MODE_NOFPU | MODE_CPL0 | MODE_SUPER_AC | MODE_NOSSE | MODE_FPEXC | BLOCK_ONE)

/* In the mode of a block: one instruction, then back to the loop (shadow, TF, breakpoints). */
#define BLOCK_ONE 0x80000000u
#define BLOCK_NO_PAGE (~(gpa_t)0)

#define BLOCK_MAX_INSNS 64         /* fits op.n, and bounds what a jump into the middle decodes again */
#define BLOCK_HASH_BITS 16
#define BLOCK_PAGE_BITS 12
/*
 * Memory for blocks, of all vCPUs together and least and most of one; what is never filled costs nothing. It
 * is the host's, not part of the guest's memory. A vCPU begins with at most BLOCK_ARENA_START: booting a kernel
 * fills that twice and takes no longer than with room for everything (25 MiB), as what comes first is not needed
 * again. Where most of what was dropped is built once more (a compiler at work) it gets twice as much.
 */
#define BLOCK_ARENA_TOTAL (256 * MIB)
#define BLOCK_ARENA_MIN   (8 * MIB)
#define BLOCK_ARENA_START (12 * MIB)
#define BLOCK_ARENA_MAX   (64 * MIB)

/*
 * What was built before, by a hash of its place, the last one with that hash: more bits of it, the epoch, which
 * ends when all is dropped, and whether it was hot.
 */
#define BLOCK_PAST_BITS 18
struct block_past { uint8_t mark, epoch : 7, hot : 1; };

/* Code of one physical page: a bit for each 64 bytes with code in them. */
struct code_page {
    gpa_t gpa;
    uint64_t granules;
    struct block *first;
    struct code_page *next;
};

struct block_cache {
    struct block *hash[1u << BLOCK_HASH_BITS];
    struct code_page *page[1u << BLOCK_PAGE_BITS];
    struct block none;             /* never valid: what unresolved links and empty slots point to */
    struct op *patch;              /* the jump that is being resolved: its link is set by the next lookup */
    int32_t budget_start;          /* c->budget when instructions were last counted */
    uint64_t cs_base;              /* what CS was in blocks outside flat modes (their RIP is no linear address) */
    uint32_t cs_limit;
    struct x86_insn insn[BLOCK_MAX_INSNS];       /* scratch of the builder */
    uint8_t *arena;
    size_t size, used, most;       /* of the arena: in use so far, and what size may become */
    struct block_past past[1u << BLOCK_PAST_BITS];
    uint8_t epoch;                 /* 1 to 127 */
    bool forget;                   /* when all is dropped next, forget the past and the room it asked for */
    uint64_t fresh, again;         /* blocks built since the epoch began, or size changed: in all, and once more */
    uint64_t built, dropped, flushed;            /* counters */
};

/* The entry of jump[] for rip; it is somebody else's unless rip says so. */
static inline unsigned block_jump_slot(uint64_t rip)
{
    return (unsigned)(rip ^ rip >> 12) & ((1u << BLOCK_JUMP_BITS) - 1);
}

/*
 * The block at c->rip for c->mode | extra (0 or BLOCK_ONE), made if need be. NULL: fetching or
 * decoding its first instruction faults, c->exc is filled.
 */
struct block *block_lookup(struct cpu *c, uint32_t extra);
/* b was translated: remember that it was hot when it is built again. */
void block_proved(struct cpu *c, struct block *b);
/* b's code changed, or (gen 0) it is gone: set it right in jump[]. */
void block_jump_update(struct cpu *c, const struct block *b);

#endif
