/*
 * The decoder's tables: what a row says. Private to decode*.c.
 *
 * A map (one-byte, 0F, ..., EVEX map 6) is 256 pointers to lists of rows; the first row
 * whose conditions hold is the instruction. All conditions together are one AND: what is
 * known before the operands are read (prefix, ModRM, W, L, mode) is a word with one bit set
 * a dimension, a row has the bits it does not accept.
 */
#ifndef HV_ENGINE_SOFT_DECODE_ROW_H
#define HV_ENGINE_SOFT_DECODE_ROW_H

#include "hv/engine/soft/insn.h"

#define X86_ROW_OPNDS 5

struct x86_row {
    uint64_t attr;                   /* low half: rejected state bits; high half: RF_* */
    uint16_t op;                     /* enum x86_op; 0 ends the list */
    uint8_t opnd[X86_ROW_OPNDS];     /* enum x86_od, 0 where there is none */
};

/* State bits, one-hot by dimension. */
enum {
    RS_PP = 0,        /* +0 none, +1 66, +2 F3, +3 F2; F2 and F3 win over 66 */
    RS_MEM = 4,
    RS_REG = 5,       /* mod = 3 */
    RS_NNN = 6,       /* ModRM.reg without extension, 8 values */
    RS_RM = 14,       /* ModRM.rm likewise */
    RS_W = 22,        /* REX.W, VEX.W, EVEX.W: 2 values */
    RS_L = 24,        /* 128, 256, 512 */
    RS_NOT64 = 27,
    RS_64 = 28,
    RS_REXB = 29,     /* 2 values */
};
#define RS_ONLY(base, count, val) (((((uint64_t)1 << (count)) - 1) << (base)) & ~((uint64_t)1 << ((base) + (val))))
#define RS_ALL_PP ((uint64_t)15 << RS_PP)

/* Flags. */
#define RF_MODRM  ((uint64_t)1 << 32)
#define RF_BYTE   ((uint64_t)1 << 33)    /* opsize is 1 */
#define RF_D64    ((uint64_t)1 << 34)    /* 64-bit mode: operand size 8, or 2 with 66 */
#define RF_F64    ((uint64_t)1 << 35)    /* 64-bit mode: operand size 8 whatever the prefixes */
#define RF_LOCK   ((uint64_t)1 << 36)    /* LOCK allowed with a memory destination */
#define RF_CC     ((uint64_t)1 << 37)    /* condition in the opcode's low bits */
#define RF_MODR   ((uint64_t)1 << 38)    /* mod is not looked at, rm is a register */
#define RF_LIG    ((uint64_t)1 << 39)    /* vector length ignored: scalar */
#define RF_VSIB   ((uint64_t)1 << 40)
#define RF_SIB    ((uint64_t)1 << 41)    /* memory operand must have a SIB byte (tiles) */
#define RF_K      ((uint64_t)1 << 42)    /* EVEX: may be masked */
#define RF_Z      ((uint64_t)1 << 43)    /* EVEX: may zero */
#define RF_KMUST  ((uint64_t)1 << 44)    /* EVEX: mask k0 is undefined (gather, scatter) */
#define RF_ER     ((uint64_t)1 << 45)    /* EVEX.b with registers: rounding */
#define RF_SAE    ((uint64_t)1 << 46)    /* EVEX.b with registers: suppress exceptions */
#define RF_BC     ((uint64_t)1 << 47)    /* EVEX.b with memory: broadcast of an element */
#define RF_ELEM   48                     /* 3 bits: element size of broadcast and disp8*N: 0, or 1 + log2 */
#define RF_NO66   ((uint64_t)1 << 51)    /* 66 is no operand size here */
#define RF_A64    ((uint64_t)1 << 52)    /* no 16-bit addresses (VSIB) */
#define RF_DISTINCT ((uint64_t)1 << 53)  /* vector operands must differ: gathers */
#define RF_OSZ4   ((uint64_t)1 << 54)    /* operand size 8 means 4: IN, OUT, INS, OUTS */
#define RF_OSZY   ((uint64_t)1 << 55)    /* operand size 8 with W, else 4 */
#define RF_OSZM   ((uint64_t)1 << 56)    /* operand size 8 in 64-bit mode, else 4 */
#define RF_ELEM_SIZE(attr) ((1u << (((attr) >> RF_ELEM) & 7)) >> 1)

/* Where an operand comes from. */
enum x86_osrc {
    OS_NONE,
    OS_RM,        /* ModRM.rm: register of the kind, or memory */
    OS_REG,       /* ModRM.reg */
    OS_VVVV,
    OS_OPC,       /* low 3 bits of the opcode */
    OS_FIX,       /* always this register */
    OS_IMM8, OS_IMM8S, OS_IMM16, OS_IMMZ, OS_IMMV, OS_OFFZ, OS_IMM8_2, OS_IMM16_2, OS_ONE,
    OS_REL8, OS_RELZ, OS_MOFFS, OS_STRSI, OS_STRDI,
    OS_MEMREG,    /* memory at [register], seg DS or override */
    OS_IS4,       /* register in bits 7:4 of an immediate */
};

/* Sizes above 64 are computed. */
enum {
    SZ_V = 0x80,  /* operand size 2, 4, 8 */
    SZ_Z,         /* operand size, at most 4 */
    SZ_Y,         /* 8 with W, else 4 */
    SZ_X, SZ_XH, SZ_XQ, SZ_XE,   /* vector length, its half, quarter, eighth */
    SZ_DUP,       /* MOVDDUP memory: 8, or the vector length if more than 16 */
    SZ_P,         /* far pointer: 2 + operand size */
    SZ_2V,        /* BOUND */
    SZ_M,         /* 8 in 64-bit mode, else 4 */
    SZ_A,         /* address size */
    SZ_DT,        /* descriptor table register: 10 in 64-bit mode, else 6 */
    SZ_ENV, SZ_FSAVE,
    SZ_C16,       /* CMPXCHG8B: 8, 16 with W */
};

struct x86_odesc { uint8_t src, kind, size, msize /* 0: as size */, reg; };

/* The operand codes, used by rows: name, source, kind, size of a register, of memory, register. */
#define X86_OPND_CODES(OD)                                                                       \
    OD(Eb, RM, GPR, 1, 0, 0) OD(Ew, RM, GPR, 2, 0, 0) OD(Ed, RM, GPR, 4, 0, 0)                   \
    OD(Eq, RM, GPR, 8, 0, 0) OD(Ev, RM, GPR, SZ_V, 0, 0) OD(Ez, RM, GPR, SZ_Z, 0, 0)             \
    OD(Ey, RM, GPR, SZ_Y, 0, 0) OD(Em, RM, GPR, SZ_M, 0, 0) OD(Ea, RM, GPR, SZ_A, 0, 0)          \
    OD(EvMw, RM, GPR, SZ_V, 2, 0) OD(EdMb, RM, GPR, 4, 1, 0) OD(EdMw, RM, GPR, 4, 2, 0)          \
    OD(Mp, RM, GPR, 0, SZ_P, 0) OD(M2v, RM, GPR, 0, SZ_2V, 0) OD(Mdt, RM, GPR, 0, SZ_DT, 0)      \
    OD(Mb, RM, GPR, 0, 1, 0) OD(M0, RM, GPR, 0, 0, 0) OD(Mt, RM, GPR, 0, 10, 0) OD(Menv, RM, GPR, 0, SZ_ENV, 0)           \
    OD(Mfs, RM, GPR, 0, SZ_FSAVE, 0) OD(Mc, RM, GPR, 0, SZ_C16, 0) OD(Mo, RM, GPR, 0, 16, 0)     \
    OD(M48, RM, GPR, 0, 48, 0) OD(Mz, RM, GPR, 0, 64, 0) OD(Mlea, RM, GPR, 0, SZ_A, 0)           \
    OD(Gb, REG, GPR, 1, 0, 0) OD(Gw, REG, GPR, 2, 0, 0) OD(Gd, REG, GPR, 4, 0, 0)                \
    OD(Gv, REG, GPR, SZ_V, 0, 0) OD(Gy, REG, GPR, SZ_Y, 0, 0) OD(Gm, REG, GPR, SZ_M, 0, 0)       \
    OD(Ga, REG, GPR, SZ_A, 0, 0) OD(By, VVVV, GPR, SZ_Y, 0, 0)                                   \
    OD(Sw, REG, SEG, 2, 0, 0) OD(Cm, REG, CR, SZ_M, 0, 0) OD(Dm, REG, DR, SZ_M, 0, 0)            \
    OD(Zb, OPC, GPR, 1, 0, 0) OD(Zv, OPC, GPR, SZ_V, 0, 0)                                       \
    OD(AL, FIX, GPR, 1, 0, 0) OD(CL, FIX, GPR, 1, 0, 1) OD(AX, FIX, GPR, 2, 0, 0)                \
    OD(DX, FIX, GPR, 2, 0, 2) OD(rAX, FIX, GPR, SZ_V, 0, 0) OD(zAX, FIX, GPR, SZ_Z, 0, 0)        \
    OD(SES, FIX, SEG, 2, 0, 0) OD(SCS, FIX, SEG, 2, 0, 1) OD(SSS, FIX, SEG, 2, 0, 2)             \
    OD(SDS, FIX, SEG, 2, 0, 3) OD(SFS, FIX, SEG, 2, 0, 4) OD(SGS, FIX, SEG, 2, 0, 5)             \
    OD(Ib, IMM8, IMM, 1, 0, 0) OD(Ibs, IMM8S, IMM, SZ_V, 0, 0) OD(Iw, IMM16, IMM, 2, 0, 0)       \
    OD(Iz, IMMZ, IMM, SZ_V, 0, 0) OD(Iv, IMMV, IMM, SZ_V, 0, 0) OD(One, ONE, IMM, 1, 0, 0)       \
    OD(Ibb, IMM8S, IMM, 1, 0, 0) OD(Ioff, OFFZ, IMM, SZ_Z, 0, 0)                                 \
    OD(Ib2, IMM8_2, IMM2, 1, 0, 0) OD(Iw2, IMM16_2, IMM2, 2, 0, 0)                               \
    OD(Jb, REL8, REL, SZ_V, 0, 0) OD(Jz, RELZ, REL, SZ_V, 0, 0)                                  \
    OD(Ob, MOFFS, MEM, 1, 0, 0) OD(Ov, MOFFS, MEM, SZ_V, 0, 0)                                   \
    OD(Xb, STRSI, MEM, 1, 0, 0) OD(Xv, STRSI, MEM, SZ_V, 0, 0) OD(Xz, STRSI, MEM, SZ_Z, 0, 0)    \
    OD(Yb, STRDI, MEM, 1, 0, 0) OD(Yv, STRDI, MEM, SZ_V, 0, 0) OD(Yz, STRDI, MEM, SZ_Z, 0, 0)    \
    OD(MBX, MEMREG, MEM, 1, 0, 3)                                                                \
    OD(ST0, FIX, ST, 10, 0, 0) OD(STi, RM, ST, 10, 0, 0)                                         \
    OD(P4, REG, MMX, 4, 0, 0) OD(P8, REG, MMX, 8, 0, 0) OD(Q8, RM, MMX, 8, 0, 0) OD(Q4, RM, MMX, 4, 0, 0)                  \
    OD(V2, REG, XMM, 2, 0, 0) OD(V4, REG, XMM, 4, 0, 0) OD(V8, REG, XMM, 8, 0, 0)                \
    OD(V16, REG, XMM, 16, 0, 0) OD(V32, REG, XMM, 32, 0, 0) OD(V64, REG, XMM, 64, 0, 0)          \
    OD(Vx, REG, XMM, SZ_X, 0, 0) OD(Vh, REG, XMM, SZ_XH, 0, 0) OD(Vq, REG, XMM, SZ_XQ, 0, 0)     \
    OD(H2, VVVV, XMM, 2, 0, 0) OD(H4, VVVV, XMM, 4, 0, 0) OD(H8, VVVV, XMM, 8, 0, 0)             \
    OD(H16, VVVV, XMM, 16, 0, 0) OD(Hx, VVVV, XMM, SZ_X, 0, 0) OD(Hh, VVVV, XMM, SZ_XH, 0, 0)    \
    OD(Hq, VVVV, XMM, SZ_XQ, 0, 0)                                                               \
    OD(W1b, RM, XMM, 1, 0, 0) OD(W2, RM, XMM, 2, 0, 0) OD(W4, RM, XMM, 4, 0, 0)                  \
    OD(W8, RM, XMM, 8, 0, 0) OD(W16, RM, XMM, 16, 0, 0) OD(W32, RM, XMM, 32, 0, 0)               \
    OD(W64, RM, XMM, 64, 0, 0) OD(Wx, RM, XMM, SZ_X, 0, 0) OD(Wh, RM, XMM, SZ_XH, 0, 0)          \
    OD(Wq, RM, XMM, SZ_XQ, 0, 0) OD(We, RM, XMM, SZ_XE, 0, 0) OD(Wdup, RM, XMM, SZ_X, SZ_DUP, 0) \
    OD(W16M4, RM, XMM, 16, 4, 0) OD(WxM4, RM, XMM, 4, 4, 0)                                      \
    OD(Lx, IS4, XMM, SZ_X, 0, 0) OD(L4, IS4, XMM, 4, 0, 0) OD(L8, IS4, XMM, 8, 0, 0)             \
    OD(XMM0, FIX, XMM, 16, 0, 0)                                                                 \
    OD(Kg, REG, K, 8, 0, 0) OD(Kh, VVVV, K, 8, 0, 0) OD(Kr, RM, K, 8, 0, 0)                      \
    OD(Kr1, RM, K, 1, 0, 0) OD(Kr2, RM, K, 2, 0, 0) OD(Kr4, RM, K, 4, 0, 0)                      \
    OD(Tg, REG, TMM, 0, 0, 0) OD(Th, VVVV, TMM, 0, 0, 0) OD(Tr, RM, TMM, 0, 0, 0)

enum x86_od {
    OD_NONE,
#define X86_OD_ENUM(name, src, kind, size, msize, reg) OD_##name,
    X86_OPND_CODES(X86_OD_ENUM)
#undef X86_OD_ENUM
    OD_COUNT
};

extern const struct x86_odesc x86_odesc[OD_COUNT];

extern const struct x86_row *const x86_map_base[256], *const x86_map_0f[256], *const x86_map_0f38[256],
    *const x86_map_0f3a[256], *const x86_map_vex0f[256], *const x86_map_vex0f38[256],
    *const x86_map_vex0f3a[256], *const x86_map_evex0f[256], *const x86_map_evex0f38[256],
    *const x86_map_evex0f3a[256], *const x86_map_evex5[256], *const x86_map_evex6[256];

#endif
