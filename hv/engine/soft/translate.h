/*
 * The translator: hot blocks of 64-bit code become host machine code. Same architecture on both
 * sides, so most instructions are emitted again with other register numbers; everything the
 * translator does not know, and every memory access off the fast path, is the interpreter's own
 * call-out in the middle of translated code. So it is complete, and the interpreter its oracle.
 *
 * Registers. The host's RSP holds struct cpu *, whose fields are [rsp + n]; guest RSP lives in
 * R13, every other guest register up to R12 in the host register of its number; R13 to R15 stay in
 * c->gpr[]. R14 and R15 are scratch (T1, T2). C functions are called on the thread's own stack
 * (c->jit.host_rsp); below struct cpu is room for the frames of signals (SOFT_VCPU_RED_ZONE).
 *
 * Flags. Between guest instructions the guest's arithmetic flags are in EFLAGS, in c->cc (in the
 * form of flags.h) or in both; the translator knows which (tr.host, tr.mem). They are saved before
 * host code that clobbers EFLAGS, and loaded before an instruction that reads them or keeps
 * some. Those of a comparison need not be saved while its registers keep their values: it is made
 * again by whoever wants them, stubs included; additions and their like are undone in a scratch
 * register and done again (tr.again), rotations in their own. At the start and at the ends of a block, and wherever a fault
 * can come from, they are in c->cc.
 *
 * Loops. A block that jumps to itself has further copies of the loop behind it, which a jump back leads to. They begin
 * with the flags as that jump leaves them: if these can be made again they are not saved, but made by
 * the exit the jump may take, and by whoever wants them early in the next round. Short loops have several
 * copies in a row, of which only the last counts and looks at attention.
 *
 * XMM registers and MXCSR are the host's while c->jit.live is set: see translate_sse.c. The x87 is the host's
 * while c->jit.x87 is: see translate_x87.c.
 *
 * RIP. Code is independent of where it is mapped: c->jit.page is the linear page the running block
 * begins in, all else is a distance from it. Whoever enters another page stores it. c->rip is valid
 * outside of translated code and in call-outs only.
 *
 * Memory. One compare with the software TLB in force (a constant offset in struct cpu: the mode
 * is part of a block's key), as in cpu.h: page crossings, MMIO, pages with code and misses fall
 * out to a stub behind the block, which runs the whole instruction as a call-out. So faults find
 * every register, flag and RIP as the interpreter would have them.
 *
 * Leaving and chaining. Direct jumps go through a slot: a pointer in data memory that leads to an
 * exit until the loop has found the target and links it (translate_link()); dropping a block points the
 * slots that lead to it back. Within a page nothing else is checked: whoever changes mappings
 * ends a block and comes back through the loop. Into another page, and for indirect jumps, vrip,
 * gen and mode are compared as in the interpreter. Attention and budget are looked at where a
 * jump leads backwards, into another page or anywhere indirect; forward jumps only count.
 *
 * A call-out that ends its block goes on with the next one if that is translated and the loop would have
 * nothing else to do.
 *
 *   interpreter --b->entry--> enter: load registers --> b->code ... --> exit: X_*, to the loop
 *                                                          \--> interpret: entry of an untranslated block
 *
 * Code memory. One range a vCPU, written and executed by its thread alone: a page is made writable
 * while code is added to it, and executable after that, never both (cache.c). Full: everything
 * goes; soon full again: it gets twice as much, up to what is reserved. Slots and the decoded instructions of call-outs are in a data part beside it, never executable.
 *
 *   emit.c             machine code                 cache.c          memory, slots, links, thunks
 *   translate.c        a block, its stubs and ends  translate_mem.c  addresses, TLB
 *   translate_int.c    integer instructions         translate_flow.c jumps, calls, stack
 *   translate_sse.c    vector instructions          translate_x87.c  x87
 *   translate_sys.c    kernels' favourites, division
 */
#ifndef HV_ENGINE_SOFT_TRANSLATE_H
#define HV_ENGINE_SOFT_TRANSLATE_H

#include "hv/engine/soft/block.h"
#include "hv/engine/soft/emit.h"

/* ---- between the translator and the rest of the engine ---- */

/*
 * Make the code cache of c: threshold is how often a block runs before it is translated, negative
 * for never. Without executable memory, or on a failure, the vCPU interprets.
 */
void translate_init(struct cpu *c, int threshold);
void translate_fini(struct cpu *c);
/* Block b is new: set its entry. */
void translate_new_block(struct cpu *c, struct block *b);
/* b was dropped: nothing leads into its code any more. */
void translate_drop(struct cpu *c, struct block *b);
/* All blocks are gone. Never inside of translated code but for call-outs, which come back once more. */
void translate_drop_all(struct cpu *c);
/* The loop has found b, which the slot in c->jit.slot asked for. */
void translate_link(struct cpu *c, struct block *b);
/* What jump[] has as the code of b. */
const void *translate_code(const struct cpu *c, const struct block *b);
/* Translate what is waiting; the loop calls it now and then. */
void translate_pending(struct cpu *c);
/* HV_SOFT_TRANSLATE: "off", a threshold, or "lockstep"; how tests choose. */
#define TRANSLATE_LOCKSTEP (-2)
int translate_threshold(void);

/* ---- inside ---- */

struct jit_slot {
    const void *code;              /* where the jump goes */
    struct block *to;              /* the block there, or the cache's none */
    const void *miss;              /* code that asks for the link */
    struct jit_slot *next;         /* among those that lead to the same block */
    int32_t off;                   /* target minus page of the source */
    uint32_t key;                  /* mode of the source */
    gpa_t page;                    /* physical page of a target within the page; else BLOCK_NO_PAGE */
};

/* A call-out from translated code. */
struct jit_call {
    op_fn *fn;
    uint16_t off;                  /* of the instruction in the page */
    uint8_t n;                     /* instructions of the block up to and including it */
    bool end;
    bool x87;                      /* what follows in the block wants the x87 */
    struct x86_insn in;
};

#define CODE_QUEUE 32
struct code_cache {
    uint8_t *base;                 /* code, then data */
    size_t code_size, code_used, data_size, data_used, thunks_end;
    size_t code_limit, data_limit; /* of the sizes, what may be used so far */
    uint64_t full_at;              /* c->insns when it was last full */
    size_t rx_end;                 /* executable up to here, writable after */
    int threshold;
    const void *call, *xmm, *x87, *interpret, *interpret_jump, *exit_slot, *exit_rip;       /* thunks */
    op_handler *enter;
    struct block *queue[CODE_QUEUE];
    unsigned queued;
    uint64_t translated, flushes, refused;
};

#define CODE_TOTAL (256 * MIB)     /* of all vCPUs; each at most CODE_MAX, a third of which is data */
#define CODE_MAX   (64 * MIB)
#define CODE_START (24 * MIB)      /* and this much until it is filled in less than so many instructions */
#define CODE_MIN   (4 * MIB)
#define CODE_SOON  (20ull * 1000 * 1000 * 1000)
#define CODE_BLOCK_MAX (64 * KIB)  /* more than a block of BLOCK_MAX_INSNS can need; of data too */

void *cache_data(struct code_cache *k, size_t len);
bool cache_has_room(const struct code_cache *k);
/* As much as a vCPU begins with. */
void cache_start(struct code_cache *k);
/* Full after so many instructions of the vCPU: may it have more? Otherwise all has to go. */
bool cache_grow(struct code_cache *k, uint64_t insns);
bool cache_writable(struct code_cache *k, bool on);
void cache_clear(struct code_cache *k);
void cache_thunks(struct code_cache *k);

#define T1 H_R14
#define T2 H_R15

/*
 * How to make the flags again: a CMP or TEST of pinned registers, or with an immediate; or the arithmetic that
 * left its result in `a`. INC and DEC of AGAIN_INC and AGAIN_DEC found the carry clear. ROL and ROR by `value`, above 1,
 * change CF and perhaps OF: the others are in c->cc.
 */
enum again_kind { AGAIN_CMP, AGAIN_TEST, AGAIN_ADD, AGAIN_SUB, AGAIN_NEG, AGAIN_INC, AGAIN_DEC, AGAIN_ROL, AGAIN_ROR };
struct again { bool valid, imm; uint8_t kind, size, a, b; int32_t value; };

struct stub {
    uint8_t *from[8];
    unsigned froms;
    uint8_t kind;                  /* STUB_* */
    bool host, mem;                /* STUB_JUMP: flags when the jump was made */
    bool load;                     /* STUB_SLOW: EFLAGS are wanted at `back` */
    unsigned base;
    struct again lazy;             /* STUB_SLOW, valid: the flags are those of this */
    uint8_t insn;
    uint8_t *back;
    int32_t off;                   /* STUB_JUMP */
};
enum { STUB_SLOW, STUB_JUMP, STUB_XMM, STUB_X87 };

struct tr {
    struct cpu *c;
    struct code_cache *k;
    struct emit e;
    struct block *b;
    const struct x86_insn *insn;
    unsigned n, i;                 /* instructions; the present one */
    int32_t start, at, next;       /* offsets in the page: of the block, this instruction, the next one */
    bool host, mem;                /* where the guest's flags are; neither: they are those of `again` */
    struct again again;            /* valid: the flags are its, and its registers unchanged */
    bool no_carry;                 /* CF is known to be 0 */
    unsigned round, rounds;        /* 0: the block; 1 to rounds: the copies of its loop */
    unsigned last;                 /* the jump that ends the loop */
    unsigned base;                 /* instructions of copies before this one, not yet counted */
    bool again_loop;               /* copies begin with the flags to be made by `loop`; else in c->cc */
    struct again loop;
    uint8_t *loop_entry;           /* the first copy, once it is begun */
    uint8_t *loop_from[4];         /* jumps to it until then */
    unsigned loops;
    bool dead[BLOCK_MAX_INSNS + 1];      /* before instruction i: nobody can see the flags any more */
    unsigned xmm_until;            /* instructions below this may use XMM registers */
    unsigned x87_until;            /* the same for the x87 */
    bool out[BLOCK_MAX_INSNS];     /* instruction i always is a call-out */
    bool look;                     /* every end looks at attention: STI came before the last instruction */
    bool ended;                    /* nothing gets past this instruction */
    bool onwards;                  /* this copy of the loop goes on in the one behind it */
    uint16_t pos[BLOCK_MAX_INSNS];       /* offsets in the page of all of them */
    int tlb;                       /* offset in struct cpu of the TLB in force */
    uint8_t *entry;
    struct stub stub[4 * BLOCK_MAX_INSNS + 2];       /* two an instruction, and LOOP_INSNS more of them */
    unsigned stubs;
    struct stub *slow;             /* this instruction's slow path, if it has one yet */
};

#define CPU(field) rm_mem(H_RSP, (int32_t)offsetof(struct cpu, field))
static inline struct rm guest_slot(unsigned r)
{ return rm_mem(H_RSP, (int32_t)(offsetof(struct cpu, gpr) + 8 * r)); }
static inline bool pinned(unsigned guest) { return guest <= 12; }
static inline unsigned host_of(unsigned guest) { return guest == R_RSP ? (unsigned)H_R13 : guest; }

/* A guest register to read, as a ModRM operand of any size. */
static inline struct rm reg_rm(unsigned guest)
{ return pinned(guest) ? rm_reg(host_of(guest)) : guest_slot(guest); }
/* A guest register in a host register: its own, or the scratch it was loaded into. */
unsigned reg_in(struct tr *t, unsigned guest, unsigned scratch);
/* The register an instruction writes; not loaded if it is written whole. reg_out() stores a scratch. */
void reg_out(struct tr *t, unsigned guest, unsigned host);

void flags_save(struct tr *t);                         /* into c->cc; uses T1 */
void flags_load(struct tr *t, unsigned scratch);       /* into EFLAGS */
void flags_load_carry(struct tr *t);                   /* CF into EFLAGS; uses T1 unless they are saved */
/* Before an instruction that keeps some flags: unless what it leaves is dead. */
void flags_keep(struct tr *t, unsigned scratch);
static inline void flags_set(struct tr *t) { t->host = true; t->mem = t->again.valid = t->no_carry = false; }
/* EFLAGS are about to be clobbered: the flags are in c->cc, or can be made again. */
void flags_clobber(struct tr *t);

/* A stub for the present instruction, flags as they are. */
struct stub *stub_new(struct tr *t, unsigned kind);
/* A stub for this instruction's slow path; jcc leads to it. */
void slow_if(struct tr *t, unsigned cc);

/* A memory operand: address parts, and after addr_check() where it is on the host. */
struct addr { uint8_t base, index, scale, seg; bool a32; uint8_t align /* 1 to 16, else slow; 0: any */; int64_t disp; };
struct addr addr_of(const struct x86_insn *in);
bool addr_ok(const struct tr *t, const struct addr *a);
/* The same wherever in a page the instruction is. */
bool addr_ok_anywhere(const struct x86_insn *in, const struct addr *a);
/* Saves the flags and checks the TLB. Uses T1 and T2; *ret_spare is the one that is free again. */
struct rm addr_check(struct tr *t, const struct addr *a, unsigned size, bool write, unsigned *ret_spare);
/* LEA: keeps flags. */
void addr_lea(struct tr *t, const struct addr *a, unsigned size, unsigned to);

/* An end of the block: save the flags if that has to be, count, look at attention, go to page + off. */
void jump_to(struct tr *t, int32_t off, unsigned n);

#define LOOP_INSNS 24              /* of all copies of a loop */
#define LOOP_COPIES 4

/* One instruction. False: not known, nothing was emitted. */
bool translate_int(struct tr *t, const struct x86_insn *in);
/* A rotation whose flags are made when they are wanted: c->cc has those that it keeps. */
bool rotate_later(const struct tr *t, const struct x86_insn *in);
bool translate_flow(struct tr *t, const struct x86_insn *in);
bool translate_sse(struct tr *t, const struct x86_insn *in);
bool translate_sys(struct tr *t, const struct x86_insn *in);
bool translate_sse_known(const struct tr *t, const struct x86_insn *in);
bool translate_x87(struct tr *t, const struct x86_insn *in);
bool translate_x87_known(const struct tr *t, const struct x86_insn *in);
/* Before C may look: FIP, if instructions up to `last` and since the last call-out changed it. Uses T1, keeps flags. */
void x87_note(struct tr *t, int last);

/* ---- translate_x87.c, while code runs ---- */
/* The guest's x87 into the host's. False: an exception is not masked, nothing was done. */
bool x87_give(struct cpu *c);
bool x87_can_give(const struct cpu *c);
/* And back; the host's is as after FNINIT. */
void x87_take(struct cpu *c);

/* ---- code_region.c ---- */
/* The part of a vCPU, `size` bytes that can be read and written; the same size for each. NULL: none. */
uint8_t *code_region_part(struct soft *s, unsigned vp, size_t size);
void code_region_fini(struct soft *s);

#endif
