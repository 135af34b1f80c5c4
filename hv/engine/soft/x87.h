/* What the x87 files share: control and status words, pending exceptions, the saved formats. */
#ifndef HV_ENGINE_SOFT_X87_H
#define HV_ENGINE_SOFT_X87_H

#include "hv/engine/soft/cpu.h"

#define X87_FLAGS 0x3fu            /* IE DE ZE OE UE PE, in SW as flags and in CW as masks */
#define X87_PE 0x20u
#define X87_ES 0x80u               /* an unmasked exception is pending */
#define X87_BUSY 0x8000u           /* copy of ES */
#define X87_C1 0x200u
#define X87_CONDITIONS 0x4700u     /* C0 to C3 */
#define X87_TOP_SHIFT 11
#define X87_TOP_MASK 0x3800u
#define X87_TOP(sw) ((sw) >> X87_TOP_SHIFT & 7)
#define X87_CW_INIT 0x37fu

/* Bits of CW that can be changed; bit 6 always reads as 1. */
static inline uint16_t x87_cw_valid(uint16_t cw)
{
    return (cw & 0x1f3f) | 0x40;
}

/* ES and B follow from the flags and their masks. */
static inline void x87_update_es(struct x87 *f)
{
    f->sw &= (uint16_t)~(X87_ES | X87_BUSY);
    if (f->sw & ~f->cw & X87_FLAGS) {
        f->sw |= X87_ES | X87_BUSY;
    }
}

/*
 * Report a pending exception, as waiting instructions do first. With CR0.NE clear a PC raises
 * IRQ 13 and software asks for IGNNE#: that is not wired here, the exception is ignored.
 */
static inline int x87_check_pending(struct cpu *c)
{
    if (HV_UNLIKELY(c->x87.sw & X87_ES && c->cr0 & CR0_NE)) {
        return cpu_raise(c, VEC_MF);
    }
    return X_OK;
}

/* Between FXSAVE's slots, in order of ST(i), and physical registers; slots are 16 bytes apart. */
void x87_slots_out(const struct x87 *f, uint8_t *slots);
void x87_slots_in(struct x87 *f, const uint8_t *slots);

/* A function that executes the one x87 instruction of this opcode (D8..DF, or 0..7) and ModRM byte, then returns. A
 * memory operand is at [RSI]. */
const void *x87_stub(unsigned opcode, unsigned modrm);

/*
 * Execute the usual case of a common instruction; all exceptions masked, availability checked, size: bytes
 * of its memory operand or 0. X_*, or X87_SLOW: nothing done, it has to go the general way. x87_fast.c
 */
enum { X87_SLOW = -1 };
int x87_try_fast(struct cpu *c, const struct x86_insn *in, unsigned size);

/* FNINIT's state: registers keep their contents. */
void x87_init(struct x87 *f);

#endif
