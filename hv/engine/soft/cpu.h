/*
 * The soft vCPU: its state, and the contract between the parts that execute it.
 *
 *   decode.c     bytes -> struct x86_insn (pure)
 *   block.c      decoded blocks by physical address, code tracking by page
 *   lower*.c     struct x86_insn -> struct op, the record the loop runs (op.h)
 *   translate*.c cache.c emit.c   hot blocks as host code (translate.h)
 *   interp.c     the loop around blocks; interp_*.c: handlers of ops (interp.h), flags.h: flags
 *   intops.c     integer call-outs: alu.c move.c shift.c muldiv.c bits.c bmi.c bcd.c stack.c
 *                flow.c string.c, on operand.c and flags.c
 *   tlb.c        the software TLB       access.c  memory accesses that miss it
 *   paging.c     page walks             seg.c segop.c  segments, descriptors, stacks
 *   far.c task.c syscall.c   far transfers, IRET, task switches, SYSCALL
 *   excp.c       delivery               cr.c msr.c cpuid.c io.c sysop.c   system instructions
 *   sse.c x87.c fpu.c                vector and floating point instructions, FXSAVE/XSAVE
 *   lapic.c      local APIC          soft.c   the engine table: create, run, kick; work.c requests
 *                                    between threads, soft_mem.c RAM, soft_irq.c routing, soft_state.c save
 *
 * Only the vCPU's own thread touches struct cpu, but for the fields marked [any].
 */
#ifndef HV_ENGINE_SOFT_CPU_H
#define HV_ENGINE_SOFT_CPU_H

#include "hv/engine/engine.h"
#include "hv/engine/soft/insn.h"
#include "hv/engine/soft/lapic.h"

enum { R_RAX, R_RCX, R_RDX, R_RBX, R_RSP, R_RBP, R_RSI, R_RDI };

/* RFLAGS */
#define FL_CF 0x1ull
#define FL_PF 0x4ull
#define FL_AF 0x10ull
#define FL_ZF 0x40ull
#define FL_SF 0x80ull
#define FL_TF 0x100ull
#define FL_IF 0x200ull
#define FL_DF 0x400ull
#define FL_OF 0x800ull
#define FL_IOPL 0x3000ull
#define FL_NT 0x4000ull
#define FL_RF 0x10000ull
#define FL_VM 0x20000ull
#define FL_AC 0x40000ull
#define FL_VIF 0x80000ull
#define FL_VIP 0x100000ull
#define FL_ID 0x200000ull
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

#define CR0_PE 0x1ull
#define CR0_MP 0x2ull
#define CR0_EM 0x4ull
#define CR0_TS 0x8ull
#define CR0_ET 0x10ull
#define CR0_NE 0x20ull
#define CR0_WP 0x10000ull
#define CR0_AM 0x40000ull
#define CR0_NW 0x20000000ull
#define CR0_CD 0x40000000ull
#define CR0_PG 0x80000000ull
#define CR4_VME 0x1ull
#define CR4_PVI 0x2ull
#define CR4_TSD 0x4ull
#define CR4_DE 0x8ull
#define CR4_PSE 0x10ull
#define CR4_PAE 0x20ull
#define CR4_MCE 0x40ull
#define CR4_PGE 0x80ull
#define CR4_PCE 0x100ull
#define CR4_OSFXSR 0x200ull
#define CR4_OSXMMEXCPT 0x400ull
#define CR4_UMIP 0x800ull
#define CR4_LA57 0x1000ull
#define CR4_FSGSBASE 0x10000ull
#define CR4_PCIDE 0x20000ull
#define CR4_OSXSAVE 0x40000ull
#define CR4_SMEP 0x100000ull
#define CR4_SMAP 0x200000ull
#define CR4_PKE 0x400000ull
#define EFER_SCE 0x1ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull
#define EFER_NXE 0x800ull

enum { VEC_DE = 0, VEC_DB = 1, VEC_NMI = 2, VEC_BP = 3, VEC_OF = 4, VEC_BR = 5, VEC_UD = 6,
       VEC_NM = 7, VEC_DF = 8, VEC_TS = 10, VEC_NP = 11, VEC_SS = 12, VEC_GP = 13, VEC_PF = 14,
       VEC_MF = 16, VEC_AC = 17, VEC_MC = 18, VEC_XM = 19 };

/*
 * Every function that may not complete its instruction returns one of these. After
 * X_FAULT c->exc is filled and no architectural state of the instruction has changed
 * (strings: counts are exact). Callers pass it up at once.
 */
/* access() has a macro of this name, with value 1: include its headers now, so that none comes later. */
#include <fcntl.h>
#include <unistd.h>
#undef X_OK
enum { X_OK = 0, X_FAULT = 1, X_LEAVE = 2 /* leave the loop now, RIP is right: c->leave says why */ };

struct soft;

struct seg {                 /* attr in VMX form, as struct vcpu_seg */
    uint64_t base;
    uint32_t limit, attr;
    uint16_t sel;
};
#define SEG_ATTR_DPL(a) (((a) >> 5) & 3)
#define SEG_ATTR_P   0x80u
#define SEG_ATTR_S   0x10u
#define SEG_ATTR_L   0x2000u
#define SEG_ATTR_DB  0x4000u
#define SEG_ATTR_G   0x8000u
#define SEG_ATTR_UNUSABLE 0x10000u

/*
 * Software TLB: direct mapped by linear page, one table for CPL 3 and one for CPL 0-2.
 * A tag is the linear page address; low bits set (TLB_SLOW_*) make it miss every fast
 * compare and send the access to tlb.c: MMIO, a page with code in it (writes), dirty
 * logging. An access of n bytes hits if ((va + n - 1) & PAGE_MASK) == tag at index(va):
 * one compare rejects other pages, slow pages and page crossings alike. The low four bits of slow tags
 * are clear: (va & (PAGE_MASK | 15)) == tag is the same for 16 bytes that must be aligned.
 */
#define TLB_BITS 12
#define TLB_SIZE (1u << TLB_BITS)
#define TLB_INVALID 0xfffull            /* never equal to a page address */
#define TLB_SLOW_MMIO 0x10ull
#define TLB_SLOW_CODE 0x20ull           /* in wtag: the page has decoded code */
#define TLB_SLOW_DIRTY 0x40ull          /* in wtag: first write has to be logged */
#define TLB_SLOW_ROM 0x80ull            /* in wtag: writes are dropped */
#define TLB_SLOW_WATCH 0x100ull         /* DR0-3 watch bytes of the page */
#define TLB_SLOW_ALIGN 0x200ull         /* user code runs with alignment checks: see tlb_check_alignment() */
struct tlb_entry {
    uint64_t rtag, wtag, xtag;          /* read, write, execute */
    uintptr_t addend;                   /* host address = va + addend */
};
enum { TLB_SUPER = 0, TLB_USER = 1, TLB_SUPER_AC = 2 /* CPL < 3 with CR4.SMAP and AC */, TLB_MODES };
/* Parallel to the entries: page address (code keys, dirty log); flags are tlb.c's own. */
struct tlb_phys { uint64_t gpa; uint32_t flags; };

enum cpu_access { ACC_READ, ACC_WRITE, ACC_EXEC };

struct exc { uint8_t vector; bool has_error; bool soft /* INT n, INT3, INTO */; bool ext; uint32_t error; uint64_t cr2; };

/* Bits of c->attention [any]: looked at between blocks; the loop leaves its fast path if any is set. */
enum {
    ATT_KICK = 1,        /* engine_run must return */
    ATT_IRQ = 2,         /* LAPIC or ExtINT may have something */
    ATT_NMI = 4, ATT_INIT = 8, ATT_SIPI = 16,
    ATT_WORK = 32,       /* requests of other threads: drop code, flush TLB (soft.c) */
    ATT_TIMER = 64,
};

union vec { uint8_t u8[64]; uint16_t u16[32]; uint32_t u32[16]; uint64_t u64[8]; float f32[16]; double f64[8]; };

struct x87 {
    long double st[8];       /* physical registers; ST(i) = st[(top + i) & 7]. MMi is the significand of st[i] */
    uint16_t cw, sw, fop;    /* sw holds TOP */
    uint8_t tag;             /* abridged: bit i = physical register i is in use */
    uint64_t fip, fdp;
    uint16_t fcs, fds;
};

#define BLOCK_JUMP_BITS 14      /* 12: a kernel's way through a page fault meets its own entries three times */
struct block;

/* Where RIP leads: block.h. In force while gen is c->map_gen. */
struct jump {
    uint64_t rip, gen;
    const void *code;        /* b->code, or the translator's thunk for blocks without */
    struct block *b;
};
struct jit_slot;
struct lockstep;

struct cpu {
    /* ---- hot: registers and what every block touches ---- */
    uint64_t gpr[16];
    uint64_t rip;            /* call-outs: address of this instruction; in between: start of the running block */
    uint64_t zero;           /* always 0: what an address without base or index reads (op.h) */
    uint64_t next_rip;       /* call-outs: where to go on; they may change it */
    uint64_t rflags;         /* all but the six arithmetic flags; those are in cc, see flags.h */
    uint32_t cc;             /* use cpu_rflags() and cpu_set_rflags() */
    bool code_dropped;       /* block_drop() took a block: the loop leaves the running one at the next instruction */
    uint64_t map_gen;        /* gen[] in force: blocks validated in an older one are looked up again. See map_gen_new() */
    uint32_t mode;           /* MODE_* below; what blocks are keyed by */
    int32_t budget;          /* instructions until the loop calls cpu_attend(); the loop sets it again after that */
    _Atomic uint32_t attention;          /* [any] ATT_* */
    struct tlb_entry *tlb;   /* the table in force: tlb_table[mode & MODE_USER ? TLB_USER : TLB_SUPER] */
    struct seg seg[6];
    struct {                 /* translated code, see translate.h */
        uint64_t page;       /* linear page of the running block */
        const void *resume;  /* of a call-out */
        void *host_rsp;      /* the thread's stack */
        struct jit_slot *slot;           /* left through this one: the loop links it */
        uint64_t temp;
        uint32_t mxcsr, mxcsr_default;
        bool live;           /* XMM registers and MXCSR are in the host's */
        bool x87;            /* the x87 state is in the host's */
        bool x87_ran;        /* since then: an instruction that changes FIP */
    } jit;
    uint8_t cpl;
    uint8_t shadow;          /* SHADOW_*: interrupts are held off for one instruction */
    bool halted;
    uint8_t leave;           /* enum leave_reason */
    /* cpu_attend() met an interrupt that IF=0 holds off: it clears ATT_IRQ and sets this, so that the loop is
     * not stopped at every jump. Whoever sets IF (STI, cpu_set_rflags()) turns it back into ATT_IRQ. */
    bool irq_held;

    struct exc exc;          /* valid after X_FAULT */
    /* A read-modify-write in flight that the fast path could not do in place; see cpu_rmw(). */
    struct {
        uint8_t active, size, seg;
        uint64_t va;
        _Alignas(16) uint8_t buf[16];
        /* Across two pages that are both RAM (else half[0] is NULL): where the halves are, for LOCK. */
        uint8_t *half[2];
        gpa_t half_gpa[2];
        uint8_t first_len;         /* bytes of half[0]; the others are half[1]'s */
        bool half_code[2], stored; /* stored: buf is in memory already, under the lock */
    } rmw;

    /* ---- system ---- */
    struct seg ldtr, tr;
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0, dr[8];
    uint64_t pdpte[4];
    uint64_t star, lstar, cstar, fmask, kernel_gs_base, tsc_aux, pat;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_offset, tsc_adjust, misc_enable, spec_ctrl, mtrr_def;
    uint64_t mtrr_fixed[11], mtrr_var[16], mce[64], mcg_status, mcg_ctl;
    bool nmi_blocked, nmi_pending, in_delivery;
    uint32_t pkru;

    /* ---- vector and floating point ---- */
    _Alignas(64) union vec xmm[32];
    struct x87 x87;
    uint32_t mxcsr;

    struct lapic lapic;
    _Atomic uint8_t sipi_vector;         /* [any] */
    uint8_t mp_state;                    /* enum vcpu_mp_state */

    unsigned vp;
    struct soft *soft;                   /* the engine */
    struct block_cache *blocks;          /* block.c */
    struct jump jump[1u << BLOCK_JUMP_BITS];     /* by RIP, block.h */
    struct code_cache *code;             /* translate.h; NULL: interprets only */
    struct lockstep *lock;               /* lockstep.h; NULL: the rule */
    struct tlb_entry tlb_table[TLB_MODES][TLB_SIZE];
    struct tlb_phys tlb_phys[TLB_MODES][TLB_SIZE];
    uint8_t watch_hit;                   /* DR6 bits of data breakpoints met; the loop raises #DB for them */
    /* Entries filled since the last flush that took them: [0] with local pages, [1] with global ones. */
    uint32_t tlb_used[TLB_MODES][2];     /* lengths of tlb_list */
    uint16_t tlb_list[TLB_MODES][2][TLB_SIZE];
    bool user_aligned;       /* entries of TLB_USER have TLB_SLOW_ALIGN */
    uint64_t tlb_large[2];               /* regions of which they have pieces of large pages: tlb.c */
    uint64_t gen[2], gen_last;           /* translation generations of supervisor and user code */
    uint32_t gen_mode[2];                /* and the modes they are for */
    /* Linear pages, of the lower half of addresses and of the upper, code may have been fetched from in this gen[]: tlb.c */
    struct exec_filter { uint64_t pages[16], large /* regions where those pages were large */; } exec_filter[2][2];
    bool super_exec_local;               /* supervisor code may have been fetched from a page that is not global */
    struct cpuid_leaf *cpuid;
    unsigned cpuid_count;
    uint32_t cpuf[8];                    /* feature words, see cpuid.h */
    uint64_t phys_mask;                  /* address bits a page table entry may have: MAXPHYADDR */
    uint64_t insns, exits_pio, exits_mmio, exits_msr, exits_irq, exits_hlt;   /* counters */
};

/* What a block depends on besides its bytes: kept up to date by cpu_update_mode(). */
enum {
    MODE_CODE32 = 1,        /* CS.D (and not 64-bit) */
    MODE_CODE64 = 2,        /* CS.L in long mode */
    MODE_SS32 = 4,          /* SS.B: stack size outside 64-bit mode */
    MODE_USER = 8,          /* CPL 3 */
    MODE_FLAT = 16,         /* ES CS SS DS: base 0, no limit check needed; always in 64-bit mode */
    MODE_PE = 32, MODE_VM = 64,
    MODE_TF = 128,          /* single step: blocks of one */
    MODE_NOFPU = 256,       /* CR0.TS or EM: see fpu_check */
    MODE_PG = 512,
    MODE_CPL0 = 1024,
    MODE_SMAP = 2048,       /* CPL < 3, CR4.SMAP, !AC: user pages are out of reach of data accesses */
    MODE_SUPER_AC = 4096,   /* CPL < 3, CR4.SMAP, AC: the third TLB table */
    MODE_NOSSE = 8192,      /* !CR4.OSFXSR */
    MODE_FPEXC = 16384,     /* MXCSR leaves an exception unmasked; cpu_update_fp_mode() */
};

enum { SHADOW_STI = 1, SHADOW_SS = 2 /* MOV SS, POP SS: debug traps too */ };
enum leave_reason { LEAVE_NONE, LEAVE_KICK, LEAVE_HALT, LEAVE_SHUTDOWN, LEAVE_ERROR };

/*
 * Translations changed: what was validated for supervisor code (GEN_SUPER), user code or both has to be looked
 * up again. Generations apart, so that a CR3 write costs user code only: the kernel's pages are global.
 */
enum { GEN_SUPER = 1, GEN_USER = 2, GEN_ALL = 3 };
static inline void map_gen_new(struct cpu *c, unsigned which)
{
    if (which & GEN_SUPER)
        c->gen[0] = ++c->gen_last;
    if (which & GEN_USER)
        c->gen[1] = ++c->gen_last;
    c->map_gen = c->gen[c->cpl == 3];
}

/*
 * MXCSR changed, or the rest of the mode. A generation is for one mode: jump[] need not compare it. It differs
 * from what the same privilege level ran in before when a debugger steps, between 32 and 64-bit code, and the like.
 */
static inline void cpu_update_fp_mode(struct cpu *c)
{
    const bool user = c->cpl == 3;
    c->mode = (c->mode & ~(uint32_t)MODE_FPEXC) | ((c->mxcsr & 0x1f80) != 0x1f80 ? MODE_FPEXC : 0);
    if (HV_UNLIKELY(c->mode != c->gen_mode[user])) {
        c->gen_mode[user] = c->mode;
        map_gen_new(c, user ? GEN_USER : GEN_SUPER);
    }
}

/* Recompute mode, tlb and what hangs on them after CR0/CR4/EFER/CS/SS/CPL/TF/AC changed. seg.c */
void cpu_update_mode(struct cpu *c);

/* ---- raising: fill c->exc and return X_FAULT. excp.c ---- */
int cpu_raise(struct cpu *c, unsigned vector);                        /* without error code */
int cpu_raise_err(struct cpu *c, unsigned vector, uint32_t error);    /* with */
int cpu_raise_pf(struct cpu *c, uint64_t va, uint32_t error);
/* Deliver c->exc (a fault of the instruction at c->rip, or a trap after it) through the IDT. Handles
 * double and triple faults itself. X_OK, or X_LEAVE with LEAVE_SHUTDOWN. */
int cpu_deliver_exc(struct cpu *c);
/* Deliver an external interrupt or NMI. Same returns. */
int cpu_deliver_irq(struct cpu *c, unsigned vector);
/* INT n / INT3 / INTO / INT1 as software events; next_rip is the return address. */
int cpu_soft_int(struct cpu *c, unsigned vector, bool int3);

/* ---- flags. flags.h (inline parts) and flags.c ---- */
uint64_t cpu_rflags(struct cpu *c);                                   /* everything, materialised */
void cpu_set_rflags(struct cpu *c, uint64_t v, uint64_t mask);        /* bits of mask; calls cpu_update_mode if TF, AC or VM changed */

/* ---- memory. va is linear; seg only decides #SS or #GP for a non-canonical va ---- */
static inline struct tlb_entry *tlb_at(struct cpu *c, uint64_t va)
{ return &c->tlb[(va >> HV_PAGE_SHIFT) & (TLB_SIZE - 1)]; }

/* Slow paths, tlb.c: walk, fill, MMIO, page crossing, code pages. size 1, 2, 4, 8. */
int cpu_ld_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t *ret);
int cpu_st_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, uint64_t val);
int cpu_rmw_slow(struct cpu *c, unsigned seg, uint64_t va, unsigned size, void **ret);
int cpu_rmw_finish(struct cpu *c);      /* completes one that cpu_rmw_slow bounced; cannot fault */

#define CPU_MEM(bits)                                                                        \
    static inline int cpu_ld##bits(struct cpu *c, unsigned seg, uint64_t va, uint64_t *ret)  \
    {                                                                                        \
        struct tlb_entry *t = tlb_at(c, va);                                                 \
        if (HV_LIKELY(((va + bits / 8 - 1) & HV_PAGE_MASK) == t->rtag)) {                    \
            uint##bits##_t v;                                                                \
            __builtin_memcpy(&v, (void *)(va + t->addend), sizeof(v));                       \
            *ret = v;                                                                        \
            return X_OK;                                                                     \
        }                                                                                    \
        return cpu_ld_slow(c, seg, va, bits / 8, ret);                                       \
    }                                                                                        \
    static inline int cpu_st##bits(struct cpu *c, unsigned seg, uint64_t va, uint64_t val)   \
    {                                                                                        \
        struct tlb_entry *t = tlb_at(c, va);                                                 \
        if (HV_LIKELY(((va + bits / 8 - 1) & HV_PAGE_MASK) == t->wtag)) {                    \
            uint##bits##_t v = (uint##bits##_t)val;                                          \
            __builtin_memcpy((void *)(va + t->addend), &v, sizeof(v));                       \
            return X_OK;                                                                     \
        }                                                                                    \
        return cpu_st_slow(c, seg, va, bits / 8, val);                                       \
    }
CPU_MEM(8)
CPU_MEM(16)
CPU_MEM(32)
CPU_MEM(64)
#undef CPU_MEM

/*
 * A place to read-modify-write size (1..16) bytes: guest RAM itself, so that a host
 * lock-prefixed instruction on *ret is atomic for other vCPUs, or c->rmw.buf holding the
 * present value. Afterwards `if (c->rmw.active) r = cpu_rmw_finish(c)`, also when the
 * instruction decided not to change it. Write permission is checked here.
 */
static inline int cpu_rmw(struct cpu *c, unsigned seg, uint64_t va, unsigned size, void **ret)
{
    struct tlb_entry *t = tlb_at(c, va);
    if (HV_LIKELY(((va + size - 1) & HV_PAGE_MASK) == t->wtag)) {
        *ret = (void *)(va + t->addend);
        return X_OK;
    }
    return cpu_rmw_slow(c, seg, va, size, ret);
}
/* Any length up to a page or so (SSE, x87, FXSAVE); all pages are checked before the first byte moves. */
int cpu_ld_bytes(struct cpu *c, unsigned seg, uint64_t va, void *buf, unsigned len);
int cpu_st_bytes(struct cpu *c, unsigned seg, uint64_t va, const void *buf, unsigned len);
/*
 * Bulk REP: host pointer to va if at least one byte there is plain RAM reachable for acc,
 * *avail = bytes from va to the end of its page; NULL ptr (X_OK) if the slow path has to
 * do it (MMIO, code page). X_FAULT as usual.
 */
int cpu_span(struct cpu *c, unsigned seg, uint64_t va, enum cpu_access acc, void **ret, unsigned *avail);
/* Accesses the CPU itself makes (descriptor tables, TSS, IDT): supervisor whatever the CPL. */
int cpu_sys_ld(struct cpu *c, uint64_t va, unsigned size, uint64_t *ret);
int cpu_sys_st(struct cpu *c, uint64_t va, unsigned size, uint64_t val);
int cpu_sys_rmw_or8(struct cpu *c, uint64_t va, uint8_t bits);       /* accessed and busy bits, atomic */

/* Translate for execution: host pointer to the page, its gpa. X_FAULT: #PF. NULL host: not RAM. */
int cpu_fetch_page(struct cpu *c, uint64_t va, const uint8_t **ret_page, gpa_t *ret_gpa);
void tlb_flush(struct cpu *c, bool keep_global);
/*
 * User code runs with EFLAGS.AC under CR0.AM, or no longer: from here on every access of its
 * takes the slow path, which looks at the address. Rare, so that nothing else pays for it.
 */
void tlb_check_alignment(struct cpu *c, bool on);
/* What such an access of the running instruction has to look at, for a probe that moves no byte. access.c */
int cpu_check_aligned(struct cpu *c, uint64_t va, unsigned len);
void tlb_flush_page(struct cpu *c, uint64_t va);
/* The page of gpa got its first code: fix wtags of this vCPU. */
void tlb_mark_code(struct cpu *c, gpa_t gpa);

/* Called by tlb.c after a write to a page with code: drops blocks over gpa[len] here and on other vCPUs. block.c */
void code_written(struct cpu *c, gpa_t gpa, unsigned len);
/* Drop this vCPU's blocks made from gpa[len]; or all. block.c */
void block_drop(struct cpu *c, gpa_t gpa, uint64_t len);
void block_drop_all(struct cpu *c);
/* The next block_drop_all() also forgets what was there before. While the vCPU is parked. */
void block_forget(struct cpu *c);
int block_cache_new(struct cpu *c);
void block_cache_free(struct cpu *c);
/* Is there code of this vCPU in the page? block.c */
bool block_page_has_code(struct cpu *c, gpa_t gpa);

/* Per-page flags shared by all vCPUs, soft.c: which pages hold code of any vCPU. [any] */
bool soft_page_is_code(struct soft *s, gpa_t gpa);
/*
 * This vCPU is about to have code of this page: remember that it does, and make every
 * vCPU's TLB send writes there to the slow path, before returning. Call it for each vCPU's
 * first block in a page, *before* its bytes are read.
 */
void soft_page_set_code(struct cpu *c, gpa_t gpa);
/* This vCPU's last block of the page is gone. A TLB that sends writes there to the slow path learns of it by the next one. */
void soft_page_clear_code(struct cpu *c, gpa_t gpa);
/* RAM behind gpa, or NULL: page granular. soft.c */
void *soft_ram(struct soft *s, gpa_t gpa, bool *ret_readonly);
/* Ask the other vCPUs to drop code made from gpa[len]; soft.c. Asynchronous: they do it at their next block. */
void soft_post_drop(struct cpu *c, gpa_t gpa, unsigned len);

/* ---- operands, for call-outs. interp.c ---- */
uint64_t cpu_ea(struct cpu *c, const struct x86_insn *in);            /* offset within the segment */
/* Linear address of the memory operand after segment checks (limit, type, canonical). */
int cpu_mem_lin(struct cpu *c, const struct x86_insn *in, unsigned size, enum cpu_access acc, uint64_t *ret);
/* seg:off outside an operand (stack, strings, far pointers). */
int cpu_seg_lin(struct cpu *c, unsigned seg, uint64_t off, unsigned size, enum cpu_access acc, uint64_t *ret);
uint64_t cpu_reg_get(const struct cpu *c, unsigned reg, unsigned size);   /* reg as in X86_OPND_GPR */
void cpu_reg_set(struct cpu *c, unsigned reg, unsigned size, uint64_t v); /* size 4 clears the upper half */
/* Read or write a GPR or memory operand of an instruction (r/m). */
int cpu_opnd_get(struct cpu *c, const struct x86_insn *in, unsigned n, uint64_t *ret);
int cpu_opnd_set(struct cpu *c, const struct x86_insn *in, unsigned n, uint64_t v);
/* Push/pop with the stack width of the mode; size 2, 4, 8. RSP changes only on X_OK. */
int cpu_push(struct cpu *c, unsigned size, uint64_t v);
int cpu_pop(struct cpu *c, unsigned size, uint64_t *ret);

/*
 * Call-outs: everything that is not hot is a function of this type, found through one
 * table a part, indexed by enum x86_op. On entry c->rip is the instruction's address and
 * c->next_rip the following one; lazy flags are valid. Returns X_*.
 */
typedef int op_fn(struct cpu *c, const struct x86_insn *in);
enum op_fn_flags {
    OPF_END = 1,        /* ends a block: changes RIP, mode, paging, IF, or may wait */
    OPF_CPL0 = 2,       /* #GP(0) unless CPL 0: checked before the call */
};
struct op_desc { op_fn *fn; uint8_t flags; };
extern const struct op_desc cpu_sys_ops[X86_OP_COUNT];     /* sysop.c, seg.c: system, far transfers, I/O, segments */
extern const struct op_desc cpu_fpu_ops[X86_OP_COUNT];     /* fpu.c: x87, MMX, SSE..., FXSAVE, LDMXCSR */

/*
 * The loop: run until c->leave != LEAVE_NONE; returns it. interp.c. Between blocks it calls cpu_attend().
 * LEAVE_HALT: c->halted is set (HLT); the engine waits, and calls again; whoever delivers an interrupt or NMI
 * clears c->halted. While it is set the loop calls cpu_attend() once and returns LEAVE_HALT again.
 */
enum leave_reason cpu_loop(struct cpu *c);
/* Attention or budget used up: poll timer, take interrupts, do work. soft.c. X_OK: go on; X_LEAVE. */
int cpu_attend(struct cpu *c);

/* May this CPL use ports port..port+size-1: IOPL, or the TSS bitmap. X_FAULT: #GP(0). io.c */
int cpu_io_check(struct cpu *c, uint16_t port, unsigned size);
/* count elements of size 1, 2, 4 from or to one port, unchecked; data is host memory (guest RAM too). io.c */
void cpu_pio_in(struct cpu *c, uint16_t port, unsigned size, void *data, uint32_t count);
void cpu_pio_out(struct cpu *c, uint16_t port, unsigned size, const void *data, uint32_t count);

/* x87/SSE availability: #UD or #NM as CR0.EM/TS/MP and CR4.OSFXSR say. fpu.c */
int fpu_check_x87(struct cpu *c);
int fpu_check_mmx(struct cpu *c);
int fpu_check_sse(struct cpu *c);
void fpu_reset(struct cpu *c, bool init);
/* The 512-byte legacy area + XSAVE header and components the engine saves; fpu.c */
void fpu_save_section(struct cpu *c, struct save_writer *w);
int fpu_load_section(struct cpu *c, struct load_section *s);

/* MSRs, msr.c: X_OK or X_FAULT (#GP). */
int msr_read(struct cpu *c, uint32_t msr, uint64_t *ret);
int msr_write(struct cpu *c, uint32_t msr, uint64_t val);
void cpuid_read(struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
bool cpu_has(const struct cpu *c, unsigned feature);       /* CPUF_* of cpuid.h */
uint64_t cpu_tsc(struct cpu *c);                           /* guest TSC now */

#endif
