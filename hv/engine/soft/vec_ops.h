/*
 * The vector instructions that exist by the dozen, as lists: each file makes its functions
 * op_<MNEMONIC> from a list by one macro, fpu.c declares them and fills cpu_fpu_ops[].
 * What needs a body of its own is declared below the lists.
 */
#ifndef HV_ENGINE_SOFT_VEC_OPS_H
#define HV_ENGINE_SOFT_VEC_OPS_H

#include "hv/engine/soft/cpu.h"

/* Lane by lane: the MMX form is the low half of the XMM form. X(name, need) */
#define INT_SAME(X)                                                                               \
    X(PADDB, 0) X(PADDW, 0) X(PADDD, 0) X(PADDQ, 0) X(PADDSB, 0) X(PADDSW, 0) X(PADDUSB, 0)       \
    X(PADDUSW, 0) X(PSUBB, 0) X(PSUBW, 0) X(PSUBD, 0) X(PSUBQ, 0) X(PSUBSB, 0) X(PSUBSW, 0)       \
    X(PSUBUSB, 0) X(PSUBUSW, 0) X(PAND, 0) X(PANDN, 0) X(POR, 0) X(PXOR, 0) X(PAVGB, 0)           \
    X(PAVGW, 0) X(PCMPEQB, 0) X(PCMPEQW, 0) X(PCMPEQD, 0) X(PCMPGTB, 0) X(PCMPGTW, 0)             \
    X(PCMPGTD, 0) X(PMADDWD, 0) X(PMAXSW, 0) X(PMAXUB, 0) X(PMINSW, 0) X(PMINUB, 0)               \
    X(PMULHUW, 0) X(PMULHW, 0) X(PMULLW, 0) X(PMULUDQ, 0) X(PSADBW, 0) X(PUNPCKLBW, 0)            \
    X(PUNPCKLWD, 0) X(PUNPCKLDQ, 0) X(PABSB, NEED_SSSE3) X(PABSW, NEED_SSSE3)                     \
    X(PABSD, NEED_SSSE3) X(PMADDUBSW, NEED_SSSE3) X(PMULHRSW, NEED_SSSE3) X(PSIGNB, NEED_SSSE3)   \
    X(PSIGNW, NEED_SSSE3) X(PSIGND, NEED_SSSE3)

/* Likewise, second operand a register, memory or an immediate count. */
#define INT_SHIFT(X)                                                                              \
    X(PSLLW, 0) X(PSLLD, 0) X(PSLLQ, 0) X(PSRAW, 0) X(PSRAD, 0) X(PSRLW, 0) X(PSRLD, 0) X(PSRLQ, 0)

/* First half of the result from the destination, second from the source. */
#define INT_JOIN(X)                                                                               \
    X(PACKSSWB, 0) X(PACKSSDW, 0) X(PACKUSWB, 0) X(PHADDW, NEED_SSSE3) X(PHADDD, NEED_SSSE3)      \
    X(PHADDSW, NEED_SSSE3) X(PHSUBW, NEED_SSSE3) X(PHSUBD, NEED_SSSE3) X(PHSUBSW, NEED_SSSE3)

/* X(name, name of the low-half instruction) */
#define INT_HIGH(X) X(PUNPCKHBW, PUNPCKLBW) X(PUNPCKHWD, PUNPCKLWD) X(PUNPCKHDQ, PUNPCKLDQ)

/* XMM only, no floating-point exceptions. X(name, bytes of a memory operand, need) */
#define INT_XMM(X)                                                                                \
    X(PUNPCKLQDQ, 16, 0) X(PUNPCKHQDQ, 16, 0) X(ANDPS, 16, 0) X(ANDPD, 16, 0) X(ANDNPS, 16, 0)    \
    X(ANDNPD, 16, 0) X(ORPS, 16, 0) X(ORPD, 16, 0) X(XORPS, 16, 0) X(XORPD, 16, 0)                \
    X(UNPCKLPS, 16, 0) X(UNPCKLPD, 16, 0) X(UNPCKHPS, 16, 0) X(UNPCKHPD, 16, 0) X(RCPPS, 16, 0)   \
    X(RSQRTPS, 16, 0) X(RCPSS, 4, 0) X(RSQRTSS, 4, 0) X(MOVDDUP, 8, NEED_SSE3)                    \
    X(MOVSHDUP, 16, NEED_SSE3) X(MOVSLDUP, 16, NEED_SSE3) X(PACKUSDW, 16, NEED_SSE41)             \
    X(PCMPEQQ, 16, NEED_SSE41) X(PMAXSB, 16, NEED_SSE41) X(PMAXSD, 16, NEED_SSE41)                \
    X(PMAXUW, 16, NEED_SSE41) X(PMAXUD, 16, NEED_SSE41) X(PMINSB, 16, NEED_SSE41)                 \
    X(PMINSD, 16, NEED_SSE41) X(PMINUW, 16, NEED_SSE41) X(PMINUD, 16, NEED_SSE41)                 \
    X(PMULDQ, 16, NEED_SSE41) X(PMULLD, 16, NEED_SSE41) X(PHMINPOSUW, 16, NEED_SSE41)             \
    X(PMOVSXBW, 8, NEED_SSE41) X(PMOVSXBD, 4, NEED_SSE41) X(PMOVSXBQ, 2, NEED_SSE41)              \
    X(PMOVSXWD, 8, NEED_SSE41) X(PMOVSXWQ, 4, NEED_SSE41) X(PMOVSXDQ, 8, NEED_SSE41)              \
    X(PMOVZXBW, 8, NEED_SSE41) X(PMOVZXBD, 4, NEED_SSE41) X(PMOVZXBQ, 2, NEED_SSE41)              \
    X(PMOVZXWD, 8, NEED_SSE41) X(PMOVZXWQ, 4, NEED_SSE41) X(PMOVZXDQ, 8, NEED_SSE41)              \
    X(PCMPGTQ, 16, NEED_SSE42) X(AESENC, 16, NEED_AES) X(AESENCLAST, 16, NEED_AES)                \
    X(AESDEC, 16, NEED_AES) X(AESDECLAST, 16, NEED_AES) X(AESIMC, 16, NEED_AES)                   \
    X(SHA1MSG1, 16, NEED_SHA) X(SHA1MSG2, 16, NEED_SHA) X(SHA1NEXTE, 16, NEED_SHA)                \
    X(SHA256MSG1, 16, NEED_SHA) X(SHA256MSG2, 16, NEED_SHA)

/* XMM only, with an immediate, no floating-point exceptions. X(name, need) */
#define INT_IMM(X)                                                                                \
    X(PSHUFD, 0) X(PSHUFHW, 0) X(PSHUFLW, 0) X(SHUFPS, 0) X(SHUFPD, 0) X(BLENDPS, NEED_SSE41)     \
    X(BLENDPD, NEED_SSE41) X(PBLENDW, NEED_SSE41) X(MPSADBW, NEED_SSE41)                          \
    X(PCLMULQDQ, NEED_PCLMUL) X(AESKEYGENASSIST, NEED_AES) X(SHA1RNDS4, NEED_SHA)

/* XMM only, XMM0 is a third operand. X(name, need) */
#define INT_XMM0(X)                                                                               \
    X(PBLENDVB, NEED_SSE41) X(BLENDVPS, NEED_SSE41) X(BLENDVPD, NEED_SSE41) X(SHA256RNDS2, NEED_SHA)

/* Floating point under MXCSR. X(name, bytes of a memory operand, lanes for underflow, need) */
#define FP_XMM(X)                                                                                 \
    X(ADDSS, 4, LANES_SS, 0) X(ADDSD, 8, LANES_SD, 0) X(ADDPS, 16, LANES_PS, 0)                   \
    X(ADDPD, 16, LANES_PD, 0) X(SUBSS, 4, LANES_SS, 0) X(SUBSD, 8, LANES_SD, 0)                   \
    X(SUBPS, 16, LANES_PS, 0) X(SUBPD, 16, LANES_PD, 0) X(MULSS, 4, LANES_SS, 0)                  \
    X(MULSD, 8, LANES_SD, 0) X(MULPS, 16, LANES_PS, 0) X(MULPD, 16, LANES_PD, 0)                  \
    X(DIVSS, 4, LANES_SS, 0) X(DIVSD, 8, LANES_SD, 0) X(DIVPS, 16, LANES_PS, 0)                   \
    X(DIVPD, 16, LANES_PD, 0) X(MINSS, 4, LANES_NONE, 0) X(MINSD, 8, LANES_NONE, 0)               \
    X(MINPS, 16, LANES_NONE, 0) X(MINPD, 16, LANES_NONE, 0) X(MAXSS, 4, LANES_NONE, 0)            \
    X(MAXSD, 8, LANES_NONE, 0) X(MAXPS, 16, LANES_NONE, 0) X(MAXPD, 16, LANES_NONE, 0)            \
    X(SQRTSS, 4, LANES_NONE, 0) X(SQRTSD, 8, LANES_NONE, 0) X(SQRTPS, 16, LANES_NONE, 0)          \
    X(SQRTPD, 16, LANES_NONE, 0) X(CVTSS2SD, 4, LANES_NONE, 0) X(CVTSD2SS, 8, LANES_SS, 0)        \
    X(CVTPS2PD, 8, LANES_NONE, 0) X(CVTPD2PS, 16, LANES_PS, 0) X(CVTDQ2PS, 16, LANES_NONE, 0)     \
    X(CVTDQ2PD, 8, LANES_NONE, 0) X(CVTPS2DQ, 16, LANES_NONE, 0) X(CVTTPS2DQ, 16, LANES_NONE, 0)  \
    X(CVTPD2DQ, 16, LANES_NONE, 0) X(CVTTPD2DQ, 16, LANES_NONE, 0)                                \
    X(ADDSUBPS, 16, LANES_PS, NEED_SSE3) X(ADDSUBPD, 16, LANES_PD, NEED_SSE3)                     \
    X(HADDPS, 16, LANES_PS, NEED_SSE3) X(HADDPD, 16, LANES_PD, NEED_SSE3)                         \
    X(HSUBPS, 16, LANES_PS, NEED_SSE3) X(HSUBPD, 16, LANES_PD, NEED_SSE3)

/* The same with an immediate. */
#define FP_IMM(X)                                                                                 \
    X(CMPSS, 4, LANES_NONE, 0) X(CMPSD, 8, LANES_NONE, 0) X(CMPPS, 16, LANES_NONE, 0)             \
    X(CMPPD, 16, LANES_NONE, 0) X(ROUNDSS, 4, LANES_NONE, NEED_SSE41)                             \
    X(ROUNDSD, 8, LANES_NONE, NEED_SSE41) X(ROUNDPS, 16, LANES_NONE, NEED_SSE41)                  \
    X(ROUNDPD, 16, LANES_NONE, NEED_SSE41) X(DPPS, 16, LANES_PS, NEED_SSE41)                      \
    X(DPPD, 16, LANES_PD, NEED_SSE41)

/* Comparisons into flags. X(name, bytes) */
#define FP_COMPARE(X) X(COMISS, 4) X(COMISD, 8) X(UCOMISS, 4) X(UCOMISD, 8)
/* To a general register. X(name, bytes) */
#define FP_TO_GPR(X) X(CVTSS2SI, 4) X(CVTTSS2SI, 4) X(CVTSD2SI, 8) X(CVTTSD2SI, 8)
/* From a general register or memory of 4 or 8 bytes. */
#define FP_FROM_GPR(X) X(CVTSI2SS) X(CVTSI2SD)
/* To an MMX register by way of the XMM instruction. X(name, XMM instruction, bytes) */
#define FP_TO_MMX(X)                                                                              \
    X(CVTPS2PI, CVTPS2DQ, 8) X(CVTTPS2PI, CVTTPS2DQ, 8) X(CVTPD2PI, CVTPD2DQ, 16)                 \
    X(CVTTPD2PI, CVTTPD2DQ, 16)
/* Strings: X(name, explicit lengths, index) */
#define STR_OPS(X)                                                                                \
    X(PCMPESTRI, true, true) X(PCMPESTRM, true, false) X(PCMPISTRI, false, true) X(PCMPISTRM, false, false)

#define VEC_DECLARE(name, ...) op_fn op_##name;
INT_SAME(VEC_DECLARE)
INT_SHIFT(VEC_DECLARE)
INT_JOIN(VEC_DECLARE)
INT_HIGH(VEC_DECLARE)
INT_XMM(VEC_DECLARE)
INT_IMM(VEC_DECLARE)
INT_XMM0(VEC_DECLARE)
FP_XMM(VEC_DECLARE)
FP_IMM(VEC_DECLARE)
FP_COMPARE(VEC_DECLARE)
FP_TO_GPR(VEC_DECLARE)
FP_FROM_GPR(VEC_DECLARE)
FP_TO_MMX(VEC_DECLARE)
STR_OPS(VEC_DECLARE)
#undef VEC_DECLARE

/* sse_int.c, sse_shuffle.c */
op_fn op_PSHUFB, op_PSHUFW, op_PALIGNR, op_PSLLDQ, op_PSRLDQ, op_PTEST, op_INSERTPS;
/* sse_arith.c */
op_fn op_CVTPI2PS, op_CVTPI2PD;
/* sse_move.c */
op_fn vec_move_aligned, vec_move_unaligned, vec_move_word, op_MOVSS, op_MOVSD, vec_move_low, vec_move_high,
    op_MOVHLPS, op_MOVLHPS, op_MASKMOVQ, op_MASKMOVDQU;
/* sse_insert.c */
op_fn vec_movmsk, vec_extract, vec_insert;
/* fpu.c */
op_fn op_EMMS, op_LDMXCSR, op_STMXCSR, op_FXSAVE, op_FXRSTOR;
/* x87.c, x87_env.c */
op_fn x87_exec, op_FNINIT, op_FNCLEX, op_FLDCW, op_FNSTCW, op_FNSTSW, op_FNSTENV, op_FLDENV, op_FNSAVE,
    op_FRSTOR, op_FWAIT;

#endif
