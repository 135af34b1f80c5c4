/*
 * Shared by the slow architectural parts (seg.c, far.c, excp.c, sysop.c, msr.c): descriptors,
 * explicit stacks, the call-outs of the table in sysop.c.
 */
#ifndef HV_ENGINE_SOFT_SYS_H
#define HV_ENGINE_SOFT_SYS_H

#include "hv/engine/soft/cpu.h"

#define DR6_INIT 0xffff0ff0ull
#define DR6_BD   0x2000ull
#define DR6_BS   0x4000ull
#define DR7_INIT 0x400ull
#define DR7_GD   0x2000ull
#define RFLAGS_VALID 0x3f7fd7ull
/* Fast strings; BTS and PEBS not available. */
#define MISC_ENABLE_INIT 0x1801ull

/* System descriptor types, SDM table 3-2. */
enum {
    DT_TSS16 = 1, DT_LDT = 2, DT_TSS16_BUSY = 3, DT_CALL16 = 4, DT_TASK = 5, DT_INT16 = 6, DT_TRAP16 = 7,
    DT_TSS = 9, DT_TSS_BUSY = 11, DT_CALL = 12, DT_INT = 14, DT_TRAP = 15,
};
/* Code and data types. */
#define DT_CODE       0x8u
#define DT_CONFORMING 0x4u         /* code; data: expand down */
#define DT_DOWN       0x4u
#define DT_WRITE      0x2u         /* data; code: readable */
#define DT_ACCESSED   0x1u

struct desc { uint64_t lo, hi; uint64_t addr; };      /* hi: of 16-byte system descriptors */
static inline unsigned desc_type(const struct desc *d) { return d->lo >> 40 & 15; }
static inline bool desc_s(const struct desc *d) { return d->lo >> 44 & 1; }
static inline unsigned desc_dpl(const struct desc *d) { return d->lo >> 45 & 3; }
static inline bool desc_p(const struct desc *d) { return d->lo >> 47 & 1; }
static inline bool desc_l(const struct desc *d) { return d->lo >> 53 & 1; }
static inline bool desc_db(const struct desc *d) { return d->lo >> 54 & 1; }
static inline bool desc_is_code(const struct desc *d) { return desc_s(d) && desc_type(d) & DT_CODE; }
static inline bool desc_is_data(const struct desc *d) { return desc_s(d) && !(desc_type(d) & DT_CODE); }

static inline bool cpu_canonical(uint64_t va) { return (uint64_t)((int64_t)(va << 16) >> 16) == va; }
static inline bool cpu_long(const struct cpu *c) { return c->efer & EFER_LMA; }
static inline bool cpu_code64(const struct cpu *c) { return c->mode & MODE_CODE64; }
static inline bool cpu_protected(const struct cpu *c) { return (c->mode & (MODE_PE | MODE_VM)) == MODE_PE; }

/* Selectors as error codes: RPL is replaced by IDT and EXT bits. */
#define SEL_ERR(sel) ((uint32_t)(sel) & 0xfffcu)
static inline bool sel_null(uint16_t sel) { return !(sel & 0xfffc); }

/* ---- descriptors, seg.c ---- */
/* Read the descriptor of sel (wide: 16 bytes); outside its table: `vector` with SEL_ERR(sel) | ext. */
int desc_read(struct cpu *c, uint16_t sel, bool wide, unsigned vector, uint32_t ext, struct desc *ret);
/* The same, saying so instead of faulting: *ret_ok. X_FAULT only for a page fault (LAR, LSL, VERR...). */
int desc_probe(struct cpu *c, uint16_t sel, bool wide, bool *ret_ok, struct desc *ret);
struct seg desc_seg(uint16_t sel, const struct desc *d);
int desc_set_accessed(struct cpu *c, const struct desc *d);
/* Load ES, SS, DS, FS or GS in the present mode. SDM volume 2, MOV. */
int seg_load(struct cpu *c, unsigned seg, uint16_t sel);
/* ES, DS, FS or GS in protected mode; what is wrong with sel is `vector`, not present #NP. */
int seg_load_data(struct cpu *c, unsigned seg, uint16_t sel, unsigned vector, uint32_t ext);
/* Check sel as SS for privilege cpl: the descriptor, or a null one where allowed; faults with vector. */
int seg_check_ss(struct cpu *c, uint16_t sel, unsigned cpl, unsigned vector, uint32_t ext, struct seg *ret);
void seg_set_real(struct cpu *c, unsigned seg, uint16_t sel);    /* real and virtual-8086 mode */
void seg_null_outer(struct cpu *c);          /* after a return outwards: drop what the new CPL may not have */
/* Set CS and CPL, and what follows from them. */
void seg_set_cs(struct cpu *c, const struct seg *cs, unsigned cpl);
struct seg seg_flat_code(uint16_t sel, unsigned dpl, bool l);    /* SYSCALL and SYSENTER */
struct seg seg_flat_data(uint16_t sel, unsigned dpl);
struct seg seg_null_ss(unsigned cpl);        /* 64-bit mode */

/* ---- a stack other than the present one, or before it becomes so; seg.c ---- */
struct stack {
    struct seg ss;
    uint64_t sp, mask;             /* mask: what SP moves within */
    unsigned cpl;                  /* privilege of its accesses */
    bool flat;                     /* 64-bit: no base, no limit */
    uint32_t err;                  /* error code of its #SS */
};
struct stack stack_present(struct cpu *c);
struct stack stack_make(struct seg ss, uint64_t sp, unsigned cpl, bool flat, uint32_t err);
int stack_push(struct cpu *c, struct stack *k, unsigned size, uint64_t v);
int stack_pop(struct cpu *c, struct stack *k, unsigned size, uint64_t *ret);
/* Make it the present one: SS and RSP (the part its width covers). */
void stack_commit(struct cpu *c, const struct stack *k);
/* SS:SP for privilege cpl from the TSS; in long mode RSPn or, n = 4 + i, ISTi. X_FAULT: #TS. */
int tss_stack(struct cpu *c, unsigned n, uint32_t ext, uint16_t *ret_ss, uint64_t *ret_sp);

/* ---- control registers, cr.c ---- */
uint64_t cpu_cr4_valid(const struct cpu *c);
uint64_t cpu_efer_valid(const struct cpu *c);
int cpu_set_cr0(struct cpu *c, uint64_t v);  /* X_FAULT: #GP(0) */
int cpu_set_cr3(struct cpu *c, uint64_t v);
int cpu_set_cr4(struct cpu *c, uint64_t v);
int cpu_pdptes(struct cpu *c, uint64_t cr3, uint64_t ret[4]);
bool msr_pat_valid(uint64_t v);

/* ---- task switches, task.c ---- */
enum task_why { TASK_JMP, TASK_CALL, TASK_IRET, TASK_INT };
struct task_event {
    enum task_why why;
    uint32_t ret;                  /* EIP the old task goes on at */
    bool set_rf, has_error;        /* TASK_INT: of the event */
    uint32_t error, ext;
};
/*
 * Switch to the task of the TSS `sel` (TASK_IRET: the link in the present one). Faults before the switch leave
 * everything as it was; later ones happen in the new task: c->rip and c->next_rip are then its EIP.
 */
int task_switch(struct cpu *c, uint16_t sel, const struct task_event *ev);

/* ---- call-outs ---- */
op_fn op_mov_seg, op_push_seg, op_pop_seg, op_lfp, op_arpl, op_lar, op_lsl, op_verr, op_verw, op_lldt, op_sldt,
      op_ltr, op_str;                                                             /* segop.c */
op_fn op_jmp_far, op_call_far, op_ret_far, op_iret;                               /* far.c */
op_fn op_syscall, op_sysret, op_sysenter, op_sysexit, op_swapgs, op_fsgsbase;     /* syscall.c */
op_fn op_mov_cr, op_mov_dr, op_lmsw, op_smsw, op_clts;                            /* cr.c */
op_fn op_lgdt, op_lidt, op_sgdt, op_sidt;                                         /* segop.c */
op_fn op_in, op_out;                                                              /* io.c */

#endif
