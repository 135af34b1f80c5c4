/*
 * The decoder's tables. Each map is a header of OPC(hex opcode, rows...) entries, read twice:
 * once for the rows, once for the array that points at them.
 *
 *   I(OP, conditions and flags, operands...)   no ModRM byte
 *   M(OP, conditions and flags, operands...)   with ModRM
 *   MM(...), MR(...)                           ModRM, memory or register form only
 *
 * Source: Intel SDM volume 2, appendix A and the instructions' own pages; FMA4, SSE4A,
 * SVM: AMD APM volumes 3 and 4.
 */
#include "hv/engine/soft/decode_row.h"

/* Conditions. */
#define NP      RS_ONLY(RS_PP, 4, 0)
#define P66     RS_ONLY(RS_PP, 4, 1)
#define PF3     RS_ONLY(RS_PP, 4, 2)
#define PF2     RS_ONLY(RS_PP, 4, 3)
#define NP66    ((uint64_t)12 << RS_PP)
#define NF3     ((uint64_t)4 << RS_PP)     /* anything but F3 */
#define NF2     ((uint64_t)8 << RS_PP)
#define RG(n)   RS_ONLY(RS_NNN, 8, n)
#define RGS(m)  ((uint64_t)(0xff & ~(m)) << RS_NNN)    /* any of a bit mask */
#define RM(n)   RS_ONLY(RS_RM, 8, n)
#define RMS(m)  ((uint64_t)(0xff & ~(m)) << RS_RM)
#define W0      RS_ONLY(RS_W, 2, 0)
#define W1      RS_ONLY(RS_W, 2, 1)
#define L0      RS_ONLY(RS_L, 3, 0)
#define L1      RS_ONLY(RS_L, 3, 1)
#define L2      RS_ONLY(RS_L, 3, 2)
#define LGE1    ((uint64_t)1 << RS_L)
#define N64     ((uint64_t)1 << RS_64)     /* not in 64-bit mode */
#define M64     ((uint64_t)1 << RS_NOT64)  /* only there */
#define RB0     RS_ONLY(RS_REXB, 2, 0)
/* Flags. */
#define LK      RF_LOCK
#define BY      RF_BYTE
#define D64     RF_D64
#define F64     RF_F64
#define COND    RF_CC
#define LIG     RF_LIG
#define KZ      (RF_K | RF_Z)
#define KM      RF_K
#define ER      RF_ER
#define SAE     RF_SAE
#define N1      ((uint64_t)1 << RF_ELEM)
#define N2      ((uint64_t)2 << RF_ELEM)
#define N4      ((uint64_t)3 << RF_ELEM)
#define N8      ((uint64_t)4 << RF_ELEM)
#define BC2     (RF_BC | N2)
#define BC4     (RF_BC | N4)
#define BC8     (RF_BC | N8)

#define OP_0(x)
#define OP_1(x, a) OD_##a
#define OP_2(x, a, b) OD_##a, OD_##b
#define OP_3(x, a, b, c) OD_##a, OD_##b, OD_##c
#define OP_4(x, a, b, c, d) OD_##a, OD_##b, OD_##c, OD_##d
#define OP_5(x, a, b, c, d, e) OD_##a, OD_##b, OD_##c, OD_##d, OD_##e
#define OP_PICK(x0, x1, x2, x3, x4, x5, name, ...) name
#define OPNDS(...) OP_PICK(__VA_ARGS__, OP_5, OP_4, OP_3, OP_2, OP_1, OP_0, )(__VA_ARGS__)
#define I(name, at, ...)  { .attr = (at), .op = X86_OP_##name, .opnd = { OPNDS(x, ##__VA_ARGS__) } }
#define M(name, at, ...)  I(name, (at) | RF_MODRM, ##__VA_ARGS__)
#define MM(name, at, ...) M(name, (at) | ((uint64_t)1 << RS_REG), ##__VA_ARGS__)
#define MR(name, at, ...) M(name, (at) | ((uint64_t)1 << RS_MEM), ##__VA_ARGS__)

/* Eight opcodes alike: h0..h7, h8..hF. */
#define OPC_LO(h, ...)                                                                     \
    OPC(h##0, __VA_ARGS__) OPC(h##1, __VA_ARGS__) OPC(h##2, __VA_ARGS__) OPC(h##3, __VA_ARGS__) \
    OPC(h##4, __VA_ARGS__) OPC(h##5, __VA_ARGS__) OPC(h##6, __VA_ARGS__) OPC(h##7, __VA_ARGS__)
#define OPC_HI(h, ...)                                                                     \
    OPC(h##8, __VA_ARGS__) OPC(h##9, __VA_ARGS__) OPC(h##A, __VA_ARGS__) OPC(h##B, __VA_ARGS__) \
    OPC(h##C, __VA_ARGS__) OPC(h##D, __VA_ARGS__) OPC(h##E, __VA_ARGS__) OPC(h##F, __VA_ARGS__)

#define X86_ODESC(name, osrc, okind, osize, omsize, oreg) \
    [OD_##name] = { OS_##osrc, X86_OPND_##okind, osize, omsize, oreg },
const struct x86_odesc x86_odesc[OD_COUNT] = { X86_OPND_CODES(X86_ODESC) };

#define ROWS(map, x, ...) static const struct x86_row map##_##x[] = { __VA_ARGS__, { .op = 0 } };

#define OPC(x, ...) ROWS(base, x, __VA_ARGS__)
#include "hv/engine/soft/decode_base.h"
#include "hv/engine/soft/decode_x87.h"
#undef OPC
#define OPC(x, ...) [0x##x] = base_##x,
const struct x86_row *const x86_map_base[256] = {
#include "hv/engine/soft/decode_base.h"
#include "hv/engine/soft/decode_x87.h"
};
#undef OPC

#define OPC(x, ...) ROWS(of, x, __VA_ARGS__)
#include "hv/engine/soft/decode_0f.h"
#undef OPC
#define OPC(x, ...) [0x##x] = of_##x,
const struct x86_row *const x86_map_0f[256] = {
#include "hv/engine/soft/decode_0f.h"
};
#undef OPC

#define OPC(x, ...) ROWS(of38, x, __VA_ARGS__)
#include "hv/engine/soft/decode_0f38.h"
#undef OPC
#define OPC(x, ...) [0x##x] = of38_##x,
const struct x86_row *const x86_map_0f38[256] = {
#include "hv/engine/soft/decode_0f38.h"
};
#undef OPC

#define OPC(x, ...) ROWS(of3a, x, __VA_ARGS__)
#include "hv/engine/soft/decode_0f3a.h"
#undef OPC
#define OPC(x, ...) [0x##x] = of3a_##x,
const struct x86_row *const x86_map_0f3a[256] = {
#include "hv/engine/soft/decode_0f3a.h"
};
#undef OPC

#define OPC(x, ...) ROWS(vex0f, x, __VA_ARGS__)
#include "hv/engine/soft/decode_vex0f.h"
#undef OPC
#define OPC(x, ...) [0x##x] = vex0f_##x,
const struct x86_row *const x86_map_vex0f[256] = {
#include "hv/engine/soft/decode_vex0f.h"
};
#undef OPC

#define OPC(x, ...) ROWS(vex0f38, x, __VA_ARGS__)
#include "hv/engine/soft/decode_vex0f38.h"
#undef OPC
#define OPC(x, ...) [0x##x] = vex0f38_##x,
const struct x86_row *const x86_map_vex0f38[256] = {
#include "hv/engine/soft/decode_vex0f38.h"
};
#undef OPC

#define OPC(x, ...) ROWS(vex0f3a, x, __VA_ARGS__)
#include "hv/engine/soft/decode_vex0f3a.h"
#undef OPC
#define OPC(x, ...) [0x##x] = vex0f3a_##x,
const struct x86_row *const x86_map_vex0f3a[256] = {
#include "hv/engine/soft/decode_vex0f3a.h"
};
#undef OPC

#define OPC(x, ...) ROWS(evex0f, x, __VA_ARGS__)
#include "hv/engine/soft/decode_evex0f.h"
#undef OPC
#define OPC(x, ...) [0x##x] = evex0f_##x,
const struct x86_row *const x86_map_evex0f[256] = {
#include "hv/engine/soft/decode_evex0f.h"
};
#undef OPC

#define OPC(x, ...) ROWS(evex0f38, x, __VA_ARGS__)
#include "hv/engine/soft/decode_evex0f38.h"
#undef OPC
#define OPC(x, ...) [0x##x] = evex0f38_##x,
const struct x86_row *const x86_map_evex0f38[256] = {
#include "hv/engine/soft/decode_evex0f38.h"
};
#undef OPC

#define OPC(x, ...) ROWS(evex0f3a, x, __VA_ARGS__)
#include "hv/engine/soft/decode_evex0f3a.h"
#undef OPC
#define OPC(x, ...) [0x##x] = evex0f3a_##x,
const struct x86_row *const x86_map_evex0f3a[256] = {
#include "hv/engine/soft/decode_evex0f3a.h"
};
#undef OPC

#define OPC(x, ...) ROWS(evex5, x, __VA_ARGS__)
#include "hv/engine/soft/decode_evex5.h"
#undef OPC
#define OPC(x, ...) [0x##x] = evex5_##x,
const struct x86_row *const x86_map_evex5[256] = {
#include "hv/engine/soft/decode_evex5.h"
};
#undef OPC

#define OPC(x, ...) ROWS(evex6, x, __VA_ARGS__)
#include "hv/engine/soft/decode_evex6.h"
#undef OPC
#define OPC(x, ...) [0x##x] = evex6_##x,
const struct x86_row *const x86_map_evex6[256] = {
#include "hv/engine/soft/decode_evex6.h"
};
#undef OPC
