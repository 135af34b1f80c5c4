/*
 * The instruction decoder: prefixes, opcode map, ModRM and SIB, operands (insn.h).
 *
 *   [legacy prefixes] [REX | VEX | EVEX] opcode [ModRM [SIB] [disp]] [imm]
 *
 * What an opcode is stands in the tables (decode_tab.c); this file walks the bytes once and
 * knows the rules that hold for all of them. Nothing is read beyond p[len].
 * Source: Intel SDM volume 2, chapter 2 (formats, prefixes, 2.3 VEX, 2.7 EVEX).
 */
#include "hv/engine/soft/insn.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/engine/soft/decode_row.h"

struct dec {
    const uint8_t *p;
    unsigned pos, lim;       /* next byte; how many may be read: min(len, 15) */
    int fail;                /* what running into lim means */
    bool m64;
    uint8_t seg;             /* override, or X86_SEG_COUNT */
    uint8_t r, x, b, w;      /* extension bits, as numbers to add: r, b 0/8(/16 r), x 0/8 */
    uint8_t v;               /* VEX.vvvv with EVEX.V' */
    bool vex, v_used;        /* VEX or EVEX; some operand takes vvvv */
    bool hi;                 /* EVEX: vector registers 16-31 reachable */
    uint8_t is4;
    bool have_is4;
    uint8_t osz, vlen;
};

/* How a byte reads before the opcode. */
enum { PF_NONE, PF_SEG, PF_66, PF_67, PF_LOCK, PF_REPNE, PF_REP, PF_REX };
static const uint8_t prefix_class[256] = {
    [0x26] = PF_SEG, [0x2e] = PF_SEG, [0x36] = PF_SEG, [0x3e] = PF_SEG, [0x64] = PF_SEG, [0x65] = PF_SEG,
    [0x66] = PF_66, [0x67] = PF_67, [0xf0] = PF_LOCK, [0xf2] = PF_REPNE, [0xf3] = PF_REP,
    [0x40 ... 0x4f] = PF_REX,
};

/* 16-bit addressing, SDM volume 2, table 2-1. */
static const struct { uint8_t base, index, seg; } ea16[8] = {
    { 3, 6, X86_SEG_DS }, { 3, 7, X86_SEG_DS }, { 5, 6, X86_SEG_SS }, { 5, 7, X86_SEG_SS },
    { 6, X86_REG_NONE, X86_SEG_DS }, { 7, X86_REG_NONE, X86_SEG_DS }, { 5, X86_REG_NONE, X86_SEG_SS },
    { 3, X86_REG_NONE, X86_SEG_DS },
};

static inline bool more(const struct dec *d, unsigned n)
{
    return HV_LIKELY(d->pos + n <= d->lim);
}

/* n little-endian bytes at pos, zero-extended; the caller has asked more(). */
static inline uint64_t take(struct dec *d, unsigned n)
{
    const uint8_t *p = d->p + d->pos;
    d->pos += n;
    switch (n) {
    case 1: return *p;
    case 2: return get_le16(p);
    case 4: return get_le32(p);
    default: return get_le64(p);
    }
}

static inline int64_t sext(uint64_t v, unsigned bytes)
{
    switch (bytes) {
    case 1: return (int8_t)v;
    case 2: return (int16_t)v;
    case 4: return (int32_t)v;
    default: return (int64_t)v;
    }
}

static inline unsigned size_of(const struct dec *d, const struct x86_insn *in, unsigned code)
{
    if (HV_LIKELY(code < SZ_V))
        return code;
    switch (code) {
    case SZ_V: return d->osz;
    case SZ_Z: return MIN(d->osz, 4);
    case SZ_Y: return d->osz == 8 ? 8 : 4;
    case SZ_X: return d->vlen;
    case SZ_XH: return d->vlen / 2;
    case SZ_XQ: return d->vlen / 4;
    case SZ_XE: return d->vlen / 8;
    case SZ_DUP: return d->vlen == 16 ? 8 : d->vlen;
    case SZ_P: return 2u + d->osz;
    case SZ_2V: return 2u * d->osz;
    case SZ_M: return d->m64 ? 8 : 4;
    case SZ_A: return in->adsize;
    case SZ_DT: return d->m64 ? 10 : 6;
    case SZ_ENV: return d->osz == 2 ? 14 : 28;
    case SZ_FSAVE: return d->osz == 2 ? 94 : 108;
    default: return d->w ? 16 : 8;       /* SZ_C16 */
    }
}

/* The memory form of ModRM: base, index, scale, disp and segment of in. */
static int decode_ea(struct dec *d, struct x86_insn *in, uint64_t attr)
{
    unsigned mod = in->modrm >> 6, rm = in->modrm & 7, disp = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    uint8_t seg = X86_SEG_DS;

    in->base = in->index = X86_REG_NONE;
    if (HV_UNLIKELY(in->adsize == 2)) {
        if (attr & (RF_A64 | RF_SIB))
            return -EILSEQ;
        disp = mod;                      /* 1: disp8, 2: disp16 */
        if (mod == 0 && rm == 6) {
            disp = 2;
        } else {
            in->base = ea16[rm].base;
            in->index = ea16[rm].index;
            seg = ea16[rm].seg;
        }
    } else {
        if (rm == 4) {
            if (!more(d, 1))
                return d->fail;
            uint8_t sib = (uint8_t)take(d, 1);
            unsigned index = ((sib >> 3) & 7) | d->x;
            if (attr & RF_VSIB) {
                in->index = (uint8_t)(index | (d->hi ? d->v & 16 : 0));
                in->scale = sib >> 6;
            } else if (index != 4) {
                in->index = (uint8_t)index;
                in->scale = sib >> 6;
            }
            rm = sib & 7;
            if (rm == 5 && mod == 0)
                disp = 4;
            else
                in->base = (uint8_t)(rm | d->b);
        } else {
            if (attr & (RF_VSIB | RF_SIB))
                return -EILSEQ;
            if (rm == 5 && mod == 0) {
                disp = 4;
                if (d->m64)
                    in->base = X86_REG_RIP;
            } else {
                in->base = (uint8_t)(rm | d->b);
            }
        }
        if (in->base == 4 || in->base == 5)
            seg = X86_SEG_SS;
    }
    if (disp) {
        if (!more(d, disp))
            return d->fail;
        in->disp = sext(take(d, disp), disp);
    }
    in->seg = d->seg != X86_SEG_COUNT ? d->seg : seg;
    return 0;
}

/* Number of the register an operand names, by kind; -EILSEQ if there is none. */
static inline int reg_check(const struct dec *d, const struct x86_insn *in, struct x86_opnd *o, unsigned low, unsigned ext)
{
    switch (o->kind) {
    case X86_OPND_GPR:
        o->reg = (uint8_t)(low | (ext & 8));
        if (o->size == 1 && low >= 4 && !(in->rex | d->vex))
            o->reg = (uint8_t)(low + 12);
        return ext & 16 ? -EILSEQ : 0;
    case X86_OPND_SEG:
        o->reg = (uint8_t)low;
        return 0;
    case X86_OPND_CR:
        o->reg = (uint8_t)(low | ext);
        /* CR0, 2, 3, 4, 8 exist. */
        return (0x11d >> o->reg) & 1 ? 0 : -EILSEQ;
    case X86_OPND_DR:
        o->reg = (uint8_t)low;
        return ext ? -EILSEQ : 0;
    case X86_OPND_ST:
    case X86_OPND_MMX:
        o->reg = (uint8_t)low;
        return 0;
    case X86_OPND_XMM:
        o->reg = (uint8_t)(low | ext);
        return 0;
    default:                             /* K, TMM: eight of them */
        o->reg = (uint8_t)low;
        return ext ? -EILSEQ : 0;
    }
}

static inline int imm(struct dec *d, struct x86_insn *in, unsigned bytes, bool sign)
{
    if (!more(d, bytes))
        return d->fail;
    uint64_t v = take(d, bytes);
    in->imm = sign ? (uint64_t)sext(v, bytes) : v;
    return 0;
}

static int imm2(struct dec *d, struct x86_insn *in, unsigned bytes)
{
    if (!more(d, bytes))
        return d->fail;
    in->imm2 = (uint16_t)take(d, bytes);
    return 0;
}

/* An implicit memory operand at [reg], string or XLAT. */
static void implicit_mem(const struct dec *d, struct x86_insn *in, struct x86_opnd *o, unsigned reg, uint8_t seg)
{
    o->implicit = 1;
    in->index = X86_REG_NONE;
    in->base = (uint8_t)reg;
    in->seg = seg;
}

static int decode_opnd(struct dec *d, struct x86_insn *in, uint64_t attr, const struct x86_odesc *od, struct x86_opnd *o)
{
    o->kind = od->kind;
    switch (od->src) {
    case OS_RM:
        if (in->modrm >= 0xc0 || (attr & RF_MODR)) {
            o->size = (uint8_t)size_of(d, in, od->size);
            unsigned ext = d->b;
            if (od->kind == X86_OPND_XMM && d->hi)
                ext |= (unsigned)d->x << 1;
            else if (od->kind == X86_OPND_K)
                ext = 0;                 /* B is ignored */
            return reg_check(d, in, o, in->modrm & 7, ext);
        }
        o->kind = X86_OPND_MEM;
        o->size = (uint8_t)size_of(d, in, od->msize ? od->msize : od->size);
        return 0;
    case OS_REG:
        o->size = (uint8_t)size_of(d, in, od->size);
        return reg_check(d, in, o, (in->modrm >> 3) & 7, d->r);
    case OS_VVVV:
        d->v_used = true;
        o->size = (uint8_t)size_of(d, in, od->size);
        /* Outside 64-bit mode bit 3 is ignored, but checked where vvvv is not used. */
        return reg_check(d, in, o, d->v & 7, d->m64 ? d->v & 24 : 0);
    case OS_OPC:
        o->size = (uint8_t)size_of(d, in, od->size);
        return reg_check(d, in, o, in->opcode & 7, d->b);
    case OS_FIX:
        o->size = (uint8_t)size_of(d, in, od->size);
        o->reg = od->reg;
        o->implicit = 1;
        return 0;
    case OS_ONE:
        o->size = 1;
        o->implicit = 1;
        in->imm = 1;
        return 0;
    case OS_IMM8:
        o->size = 1;
        if (d->have_is4) {               /* VEX: a register and an immediate share the byte */
            in->imm = d->is4 & 15;
            return 0;
        }
        return imm(d, in, 1, false);
    case OS_IMM8S:
        o->size = (uint8_t)size_of(d, in, od->size);
        return imm(d, in, 1, true);
    case OS_IMM16:
        o->size = 2;
        return imm(d, in, 2, false);
    case OS_IMMZ:
        o->size = d->osz;
        return imm(d, in, MIN(d->osz, 4), true);
    case OS_IMMV:
        o->size = d->osz;
        return imm(d, in, d->osz, false);
    case OS_OFFZ:
        o->size = (uint8_t)size_of(d, in, od->size);
        return imm(d, in, o->size, false);
    case OS_IMM8_2:
    case OS_IMM16_2:
        o->size = od->size;
        return imm2(d, in, od->size);
    case OS_REL8:
        o->size = d->osz;
        return imm(d, in, 1, true);
    case OS_RELZ:
        o->size = d->osz;
        return imm(d, in, MIN(d->osz, 4), true);
    case OS_MOFFS:
        o->size = (uint8_t)size_of(d, in, od->size);
        in->base = in->index = X86_REG_NONE;
        in->seg = d->seg != X86_SEG_COUNT ? d->seg : X86_SEG_DS;
        if (!more(d, in->adsize))
            return d->fail;
        in->disp = (int64_t)take(d, in->adsize);
        return 0;
    case OS_STRSI:
    case OS_MEMREG:
        o->size = (uint8_t)size_of(d, in, od->size);
        implicit_mem(d, in, o, od->src == OS_STRSI ? 6 : od->reg, d->seg != X86_SEG_COUNT ? d->seg : X86_SEG_DS);
        return 0;
    case OS_STRDI:
        o->size = (uint8_t)size_of(d, in, od->size);
        o->implicit = 1;
        if (in->base != 6)               /* CMPS has had its rSI, MOVS gets it next */
            implicit_mem(d, in, o, 7, X86_SEG_ES);
        return 0;
    case OS_IS4:
        if (!d->have_is4) {
            if (!more(d, 1))
                return d->fail;
            d->is4 = (uint8_t)take(d, 1);
            d->have_is4 = true;
        }
        o->size = (uint8_t)size_of(d, in, od->size);
        o->reg = d->m64 ? d->is4 >> 4 : (d->is4 >> 4) & 7;
        return 0;
    default:
        return -EILSEQ;
    }
}

/* C5 and C4, after the first byte: fills extension bits, the map, pp (as RS_PP) and L. */
static int decode_vex(struct dec *d, struct x86_insn *in, bool three, unsigned *ret_pp, unsigned *ret_l)
{
    if (!more(d, three ? 3 : 2))
        return d->fail;
    uint8_t a = (uint8_t)take(d, 1), b = a;
    in->map = 1;
    if (three) {
        b = (uint8_t)take(d, 1);
        in->map = a & 31;
        d->w = b >> 7;
        d->x = a & 0x40 ? 0 : 8;
        d->b = a & 0x20 ? 0 : 8;
    }
    d->r = a & 0x80 ? 0 : 8;
    d->v = (~b >> 3) & 15;
    if (!d->m64)
        d->b = 0;
    *ret_l = (b >> 2) & 1;
    *ret_pp = b & 3;
    return in->map < 1 || in->map > 3 ? -EILSEQ : 0;
}

/* 62, after the first byte. */
static int decode_evex(struct dec *d, struct x86_insn *in, unsigned *ret_pp, unsigned *ret_l)
{
    if (!more(d, 4))
        return d->fail;
    uint8_t p0 = (uint8_t)take(d, 1), p1 = (uint8_t)take(d, 1), p2 = (uint8_t)take(d, 1);
    in->map = p0 & 7;
    in->evex = 1;
    in->evex_aaa_z_b = (uint8_t)((p2 & 7) | (p2 >> 4 & 8) | (p2 & 0x10) | (p2 & 0x60));
    d->hi = true;
    d->w = p1 >> 7;
    d->r = (uint8_t)((p0 & 0x80 ? 0 : 8) | (p0 & 0x10 ? 0 : 16));
    d->x = p0 & 0x40 ? 0 : 8;
    d->b = p0 & 0x20 ? 0 : 8;
    d->v = (uint8_t)(((~p1 >> 3) & 15) | (p2 & 8 ? 0 : 16));
    if (!d->m64) {
        d->r = d->b = 0;
        if (d->v & 16)
            return -EILSEQ;
    }
    *ret_l = (p2 >> 5) & 3;
    *ret_pp = p1 & 3;
    if ((p0 & 8) || !(p1 & 4) || in->map == 0 || in->map == 4 || in->map == 7)
        return -EILSEQ;
    return 0;
}

static const struct x86_row *const *const legacy_maps[4] = { x86_map_base, x86_map_0f, x86_map_0f38, x86_map_0f3a };
static const struct x86_row *const *const vex_maps[4] = { NULL, x86_map_vex0f, x86_map_vex0f38, x86_map_vex0f3a };
static const struct x86_row *const *const evex_maps[8] = {
    NULL, x86_map_evex0f, x86_map_evex0f38, x86_map_evex0f3a, NULL, x86_map_evex5, x86_map_evex6, NULL,
};

/* What EVEX's aaa, z and b ask for must be what the row allows; SDM volume 2, 2.7.11. */
static int evex_check(const struct x86_insn *in, uint64_t attr)
{
    unsigned aaa = in->evex_aaa_z_b & 7;
    bool z = in->evex_aaa_z_b & 8, b = in->evex_aaa_z_b & 16, mem = in->modrm < 0xc0;

    if (aaa && !(attr & RF_K))
        return -EILSEQ;
    if (z && (!aaa || !(attr & RF_Z) || in->opnd[0].kind == X86_OPND_MEM))
        return -EILSEQ;
    if (!aaa && (attr & RF_KMUST))
        return -EILSEQ;
    if (b && !(attr & (mem ? RF_BC : RF_ER | RF_SAE)))
        return -EILSEQ;
    return 0;
}

/* Registers that must differ: gathers' destination, index and mask; tiles; complex multiplies' destination. */
static int distinct_check(const struct x86_insn *in, uint64_t attr)
{
    const struct x86_opnd *o = in->opnd;

    if (attr & RF_VSIB) {
        if (o[0].reg == in->index)
            return -EILSEQ;
        if (in->nopnd == 3 && (o[0].reg == o[2].reg || o[2].reg == in->index))
            return -EILSEQ;
        return 0;
    }
    for (unsigned i = 1; i < 3; i++) {
        if (o[i].kind == o[0].kind && o[i].reg == o[0].reg)
            return -EILSEQ;
    }
    if (o[0].kind == X86_OPND_TMM && o[1].reg == o[2].reg)
        return -EILSEQ;
    return 0;
}

static unsigned operand_size(const struct dec *d, const struct x86_insn *in, enum x86_mode mode, uint64_t attr)
{
    /* As a mandatory prefix 66 says nothing about sizes. */
    bool p66 = (in->prefix & X86_PFX_66) && !(attr & RF_NO66) && (attr & RS_ALL_PP) != RS_ONLY(RS_PP, 4, 1);
    unsigned osz;

    if (HV_UNLIKELY(attr & (RF_OSZY | RF_OSZM)))
        return d->m64 && (d->w || (attr & RF_OSZM)) ? 8 : 4;
    if (!d->m64)
        return (mode == X86_MODE_32) != p66 ? 4 : 2;
    if (d->w || (attr & RF_F64))
        osz = 8;
    else if (attr & RF_D64)
        osz = p66 ? 2 : 8;
    else
        osz = p66 ? 2 : 4;
    return attr & RF_OSZ4 ? MIN(osz, 4) : osz;
}

/* Everything after prefixes and opcode: pick the row, read ModRM, displacement, immediates. */
static int decode_body(struct dec *d, struct x86_insn *in, enum x86_mode mode, const struct x86_row *row, unsigned pp,
                       unsigned ll)
{
    uint32_t state = 1u << (RS_PP + pp) | 1u << (RS_W + d->w) | 1u << (d->m64 ? RS_64 : RS_NOT64) |
                     1u << (RS_REXB + (d->b != 0));

    if (!row)
        return -EILSEQ;
    bool bc_reg = false;
    if (row->attr & RF_MODRM) {
        if (!more(d, 1))
            return d->fail;
        in->modrm = (uint8_t)take(d, 1);
        in->has_modrm = 1;
        state |= 1u << (RS_NNN + ((in->modrm >> 3) & 7)) | 1u << (RS_RM + (in->modrm & 7)) |
                 1u << (in->modrm >= 0xc0 ? RS_REG : RS_MEM);
        bc_reg = in->modrm >= 0xc0 && (in->evex_aaa_z_b & 16);
    }
    if (bc_reg)
        ll = 2;                          /* L'L is the rounding mode, the length 512 */
    else if (ll == 3)
        return -EILSEQ;
    state |= 1u << (RS_L + ll);

    while (row->op && ((uint32_t)row->attr & state))
        row++;
    if (!row->op)
        return -EILSEQ;

    uint64_t attr = row->attr;
    in->op = row->op;
    if (attr & RF_CC) {
        /* FCMOVcc, the only one of the one-byte map with ModRM: DA and DB, ModRM.reg 0 to 3. */
        bool fcmov = in->map == 0 && in->has_modrm;
        in->cc = fcmov ? (uint8_t)((in->opcode & 1) << 2 | (in->modrm >> 3 & 3)) : in->opcode & 15;
    }
    d->osz = (uint8_t)operand_size(d, in, mode, attr);
    in->opsize = attr & RF_BYTE ? 1 : d->osz;
    if (d->vex)
        in->vlen = d->vlen = attr & RF_LIG ? 16 : (uint8_t)(16u << ll);

    if (in->has_modrm && in->modrm < 0xc0 && !(attr & RF_MODR)) {
        int r = decode_ea(d, in, attr);
        if (r)
            return r;
    }
    unsigned n = 0;
    for (; n < X86_ROW_OPNDS && row->opnd[n]; n++) {
        int r = decode_opnd(d, in, attr, &x86_odesc[row->opnd[n]], &in->opnd[n]);
        if (r)
            return r;
    }
    in->nopnd = (uint8_t)n;

    if (HV_UNLIKELY(in->prefix & X86_PFX_LOCK)) {
        if (!(attr & RF_LOCK) || in->opnd[0].kind != X86_OPND_MEM)
            return -EILSEQ;
    }
    if (HV_UNLIKELY(d->vex)) {
        /* Unused vvvv must be 1111b; V' belongs to a vector index where there is one. */
        if (!d->v_used && (d->v & (attr & RF_VSIB ? 15 : 31)))
            return -EILSEQ;
        if (attr & RF_DISTINCT) {
            int r = distinct_check(in, attr);
            if (r)
                return r;
        }
        if (in->evex) {
            int r = evex_check(in, attr);
            if (r)
                return r;
            unsigned elem = RF_ELEM_SIZE(attr), scale = 0;
            for (unsigned i = 0; i < n; i++) {
                if (in->opnd[i].kind != X86_OPND_MEM)
                    continue;
                if (in->evex_aaa_z_b & 16)
                    in->opnd[i].size = (uint8_t)elem;
                scale = elem && !(attr & RF_BC) ? elem : in->opnd[i].size;
            }
            if (in->modrm >> 6 == 1)
                in->disp *= (int64_t)scale;      /* disp8*N, SDM volume 2, 2.7.5 */
        }
    }
    return 0;
}

int x86_decode(const uint8_t *p, size_t len, enum x86_mode mode, struct x86_insn *ret)
{
    struct x86_insn *in = ret;
    struct dec d = {
        .p = p, .lim = (unsigned)MIN(len, (size_t)X86_MAX_INSN), .m64 = mode == X86_MODE_64, .seg = X86_SEG_COUNT,
        .fail = len >= X86_MAX_INSN ? -E2BIG : -EAGAIN,
    };
    const struct x86_row *const *map = x86_map_base;
    unsigned pp = 0, ll = 0;
    uint8_t rex = 0, op;
    int r = 0;

    *in = (struct x86_insn){ .base = X86_REG_NONE, .index = X86_REG_NONE, .seg = X86_SEG_DS };
    for (;;) {
        if (!more(&d, 1)) {
            r = d.fail;
            goto out;
        }
        op = p[d.pos++];
        unsigned class = prefix_class[op];
        if (class == PF_NONE)
            break;
        if (class == PF_REX) {
            if (!d.m64)
                break;
            rex = op;                    /* counts only if the opcode follows */
            continue;
        }
        rex = 0;
        switch (class) {
        case PF_SEG:
            in->prefix |= X86_PFX_SEG;
            if (op >= 0x64)
                d.seg = (uint8_t)(X86_SEG_FS + (op - 0x64));
            else if (!d.m64)
                d.seg = (uint8_t)(X86_SEG_ES + ((op - 0x26) >> 3));
            break;
        case PF_66: in->prefix |= X86_PFX_66; break;
        case PF_67: in->prefix |= X86_PFX_67; break;
        case PF_LOCK: in->prefix |= X86_PFX_LOCK; break;
        case PF_REPNE: in->prefix = (uint8_t)((in->prefix & ~X86_PFX_REP) | X86_PFX_REPNE); break;
        default: in->prefix = (uint8_t)((in->prefix & ~X86_PFX_REPNE) | X86_PFX_REP); break;
        }
    }
    in->adsize = d.m64 ? 8 : mode == X86_MODE_32 ? 4 : 2;
    if (in->prefix & X86_PFX_67)
        in->adsize = d.m64 ? 4 : in->adsize ^ 6;
    if (rex) {
        in->prefix |= X86_PFX_REX;
        in->rex = rex;
        d.w = (rex >> 3) & 1;
        d.r = (uint8_t)(rex << 1) & 8;
        d.x = (uint8_t)(rex << 2) & 8;
        d.b = (uint8_t)(rex << 3) & 8;
    }

    bool vex = (op == 0xc4 || op == 0xc5 || op == 0x62);
    if (HV_UNLIKELY(vex) && !d.m64) {
        if (!more(&d, 1)) {
            r = d.fail;
            goto out;
        }
        vex = p[d.pos] >= 0xc0;          /* else LES, LDS, BOUND */
    }
    if (HV_UNLIKELY(vex)) {
        if (rex || (in->prefix & (X86_PFX_66 | X86_PFX_REP | X86_PFX_REPNE | X86_PFX_LOCK))) {
            r = -EILSEQ;
            goto out;
        }
        d.vex = true;
        in->prefix |= X86_PFX_VEX;
        r = op == 0x62 ? decode_evex(&d, in, &pp, &ll) : decode_vex(&d, in, op == 0xc4, &pp, &ll);
        if (r)
            goto out;
        in->rex = (uint8_t)(0x40 | d.w << 3 | (d.r & 8) >> 1 | d.x >> 2 | d.b >> 3);
        map = in->evex ? evex_maps[in->map] : vex_maps[in->map];
        op = (uint8_t)take(&d, 1);
    } else {
        if (op == 0x0f) {
            if (!more(&d, 1)) {
                r = d.fail;
                goto out;
            }
            op = (uint8_t)take(&d, 1);
            in->map = 1;
            if (op == 0x38 || op == 0x3a) {
                if (!more(&d, 1)) {
                    r = d.fail;
                    goto out;
                }
                in->map = op == 0x38 ? 2 : 3;
                op = (uint8_t)take(&d, 1);
            }
            map = legacy_maps[in->map];
        }
        /* Numbered as in VEX. */
        pp = in->prefix & X86_PFX_REP ? 2 : in->prefix & X86_PFX_REPNE ? 3 : in->prefix & X86_PFX_66 ? 1 : 0;
    }
    in->opcode = op;
    r = decode_body(&d, in, mode, map[op], pp, ll);
out:
    in->len = (uint8_t)d.pos;
    return r;
}
