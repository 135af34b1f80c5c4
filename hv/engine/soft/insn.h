/*
 * One decoded x86 instruction, and the decoder that makes it.
 *
 * The decoder is table driven and pure: bytes and mode in, struct x86_insn out.
 * It knows the whole map (legacy, 0F, 0F38, 0F3A, 3DNow as #UD, VEX, EVEX), also what
 * the soft CPU does not show in CPUID: length and operands are always right, and
 * the executor decides what is #UD. Used by the interpreter, later by the
 * translator, and by the kvm engine where it must emulate an access.
 * Source: Intel SDM volume 2, chapters 2 and appendix A.
 */
#ifndef HV_ENGINE_SOFT_INSN_H
#define HV_ENGINE_SOFT_INSN_H

#include "hv/base/base.h"

#define X86_MAX_INSN 15

/* X86_OP_<MNEMONIC>, mnemonics as in the SDM; Jcc, SETcc and CMOVcc are one op each with .cc. */
enum x86_op {
    X86_OP_INVALID = 0,
#define X86_OP_ENUM(name) X86_OP_##name,
#include "hv/engine/soft/optable.h"
#undef X86_OP_ENUM
    X86_OP_COUNT
};

enum x86_opnd_kind {
    X86_OPND_NONE,
    X86_OPND_GPR,      /* reg 0..15; size 1: reg 0..15 = AL..R15B, 16..19 = AH CH DH BH */
    X86_OPND_MEM,      /* the insn's base/index/scale/disp/seg */
    X86_OPND_IMM,      /* imm, sign- or zero-extended as the instruction defines, to 64 bits */
    X86_OPND_IMM2,     /* second immediate: ENTER's level, far selector, EXTRQ */
    X86_OPND_REL,      /* imm = signed displacement from the next instruction */
    X86_OPND_SEG,      /* 0..5 = ES CS SS DS FS GS */
    X86_OPND_CR,
    X86_OPND_DR,
    X86_OPND_ST,       /* x87 ST(i) */
    X86_OPND_MMX,
    X86_OPND_XMM,      /* size 16, 32, 64 = XMM, YMM, ZMM (or the part used: see size) */
    X86_OPND_K,
    X86_OPND_TMM,      /* AMX tile */
};

/*
 * Operands are those of the Intel syntax, in its order (destination first), AL of
 * `add al, imm8`, CL or 1 of shifts, DX of IN, XMM0 of BLENDVPS among them; what the syntax
 * does not show (AX of MUL, RSP of PUSH, ECX of RDMSR) is not listed.
 *   strings    MOVS: {MEM ES:rDI, MEM seg:rSI}; CMPS the other way round; STOS, SCAS, INS: ES:rDI;
 *              LODS, OUTS: seg:rSI. Both may be MEM: .seg and .base belong to seg:rSI where there
 *              is one, else they are ES and rDI. XLAT: MEM seg:[rBX], AL is added by the executor.
 *   far        ptr16:xx: {IMM offset, IMM2 selector}; m16:xx: MEM of 4, 6 or 10 bytes, offset first
 *   size       a scalar SSE operand has the size it uses (ADDSS: 4); 0: none or more than 255
 *              bytes (FXSAVE, XSAVE)
 */
struct x86_opnd {
    uint8_t kind;
    uint8_t reg;
    uint8_t size;      /* bytes read or written through this operand; LEA's memory: its adsize */
    uint8_t implicit;  /* not encoded: AL of `add al, imm8`, CL of shifts, ... */
};

enum { X86_SEG_ES, X86_SEG_CS, X86_SEG_SS, X86_SEG_DS, X86_SEG_FS, X86_SEG_GS, X86_SEG_COUNT };
enum { X86_REG_NONE = 0xff, X86_REG_RIP = 0xfe };   /* for base and index */

enum x86_prefix_bits {
    X86_PFX_LOCK = 1, X86_PFX_REPNE = 2 /* F2 */, X86_PFX_REP = 4 /* F3 */,
    X86_PFX_66 = 8, X86_PFX_67 = 16, X86_PFX_SEG = 32, X86_PFX_REX = 64, X86_PFX_VEX = 128,
};

struct x86_insn {
    uint16_t op;           /* enum x86_op */
    uint8_t len;           /* 1..15 */
    uint8_t opsize;        /* effective operand size in bytes: 1, 2, 4, 8 (integer and control instructions) */
    uint8_t adsize;        /* effective address size: 2, 4, 8 */
    uint8_t prefix;        /* enum x86_prefix_bits; of F2 and F3 the last one only */
    uint8_t rex;           /* 0x4x or 0; VEX.RXBW and EVEX.RXBW are folded in */
    uint8_t cc;            /* condition 0..15 of Jcc, SETcc, CMOVcc; of FCMOVcc 0..7: B E BE U NB NE NBE NU */
    uint8_t modrm;
    uint8_t has_modrm;
    uint8_t nopnd;
    uint8_t map;           /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A, ... */
    uint8_t opcode;        /* last opcode byte */
    uint8_t vlen;          /* 0 for legacy SSE, else 16, 32, 64 */
    uint8_t evex;          /* 1 if EVEX encoded */
    uint8_t evex_aaa_z_b;  /* EVEX: aaa | z << 3 | b << 4 | L'L << 5 (rounding if b and mod 3) */
    struct x86_opnd opnd[5];
    uint8_t seg;           /* effective segment of the memory operand, override and SS default applied */
    uint8_t base, index;   /* GPR number, X86_REG_RIP, X86_REG_NONE; VSIB: vector register number */
    uint8_t scale;         /* shift: 0..3 */
    int64_t disp;          /* sign-extended; disp8*N applied; moffs: the whole offset */
    uint64_t imm;
    uint16_t imm2;
};

/*
 * What decides decoding besides the bytes. VEX and EVEX are decoded in 16-bit code too: that
 * they are undefined in real and virtual-8086 mode is for the executor to say, as is CPUID.
 */
enum x86_mode { X86_MODE_16, X86_MODE_32, X86_MODE_64 };   /* CS.D = 0, CS.D = 1, CS.L = 1 */

/*
 * Decode one instruction from p[len] in `mode`.
 *
 * Returns 0; -EAGAIN if it is longer than len (and len < 15: the caller fetches more
 * or faults); -E2BIG if it is longer than 15 bytes (#GP); -EILSEQ if it is undefined
 * (#UD; ret->len is then the bytes consumed so far, LOCK on a non-lockable form included).
 */
int x86_decode(const uint8_t *p, size_t len, enum x86_mode mode, struct x86_insn *ret);

/* "ADD", "VPERMT2W": as in optable.h; "(invalid)" for X86_OP_INVALID. */
const char *x86_op_name(enum x86_op op);

/* Intel-syntax text for logs and test failures; buf[size], returns buf. */
const char *x86_format(const struct x86_insn *in, uint64_t rip, char *buf, size_t size);

#endif
