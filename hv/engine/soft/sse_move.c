/* MMX and SSE moves: whole registers, single elements, masked and non-temporal stores. */
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"

static inline int move16(struct cpu *c, const struct x86_insn *in, bool aligned)
{
    int r = vec_ready(c);
    if (HV_UNLIKELY(r)) {
        return r;
    }
    if (in->opnd[0].kind != X86_OPND_XMM) {
        return vec_store_mem(c, in, 16, aligned, xmm_get(c, in->opnd[1].reg));
    }
    __m128i v;
    if (in->opnd[1].kind == X86_OPND_XMM) {
        v = xmm_get(c, in->opnd[1].reg);
    } else if (HV_UNLIKELY((r = vec_load_mem(c, in, 16, aligned, &v)))) {
        return r;
    }
    xmm_set(c, in->opnd[0].reg, v);
    return X_OK;
}

/* MOVAPS, MOVAPD, MOVDQA; MOVNTPS, MOVNTPD, MOVNTDQ, MOVNTDQA: the hint has no effect here. */
int vec_move_aligned(struct cpu *c, const struct x86_insn *in)
{
    return move16(c, in, true);
}

/* MOVUPS, MOVUPD, MOVDQU, LDDQU */
int vec_move_unaligned(struct cpu *c, const struct x86_insn *in)
{
    return move16(c, in, false);
}

/*
 * MOVD, MOVQ, MOVQ2DQ, MOVDQ2Q, MOVNTQ: 4 or 8 bytes from one of XMM, MMX, general register and memory
 * to another; what is wider than the source gets zeros.
 */
int vec_move_word(struct cpu *c, const struct x86_insn *in)
{
    const struct x86_opnd *d = &in->opnd[0], *s = &in->opnd[1];
    bool mmx = d->kind == X86_OPND_MMX || s->kind == X86_OPND_MMX;
    bool xmm = d->kind == X86_OPND_XMM || s->kind == X86_OPND_XMM;
    int r = xmm ? vec_ready(c) : X_OK;
    if (HV_UNLIKELY(r || (mmx && (r = fpu_check_mmx(c))))) {
        return r;
    }
    __m128i v;
    uint64_t g;
    switch (s->kind) {
    case X86_OPND_XMM:
        v = _mm_move_epi64(xmm_get(c, s->reg));
        break;
    case X86_OPND_MMX:
        v = _mm_cvtsi64_si128((int64_t)mmx_get(c, s->reg));
        break;
    case X86_OPND_GPR:
        g = c->gpr[s->reg & 15];
        v = _mm_cvtsi64_si128((int64_t)(s->size == 4 ? (uint32_t)g : g));
        break;
    default:
        r = vec_load_mem(c, in, s->size == 4 ? 4 : 8, false, &v);
        break;
    }
    if (HV_UNLIKELY(r)) {
        return r;
    }
    switch (d->kind) {
    case X86_OPND_XMM:
        xmm_set(c, d->reg, v);
        break;
    case X86_OPND_GPR:
        c->gpr[d->reg & 15] = d->size == 4 ? (uint32_t)low64(v) : low64(v);
        break;
    case X86_OPND_MMX:
        break;
    default:
        r = vec_store_mem(c, in, d->size == 4 ? 4 : 8, false, v);
        if (HV_UNLIKELY(r)) {
            return r;
        }
        break;
    }
    if (mmx) {
        mmx_enter(c);
        if (d->kind == X86_OPND_MMX) {
            mmx_set(c, d->reg, low64(v));
        }
    }
    return X_OK;
}

/* Between registers only the element moves; from memory the rest becomes zero. */
static inline int move_scalar(struct cpu *c, const struct x86_insn *in, unsigned size)
{
    int r = vec_ready(c);
    if (HV_UNLIKELY(r)) {
        return r;
    }
    if (in->opnd[0].kind != X86_OPND_XMM) {
        return vec_store_mem(c, in, size, false, xmm_get(c, in->opnd[1].reg));
    }
    union vec *d = &c->xmm[in->opnd[0].reg];
    if (in->opnd[1].kind == X86_OPND_XMM) {
        __builtin_memcpy(d, &c->xmm[in->opnd[1].reg], size);
        return X_OK;
    }
    __m128i v;
    r = vec_load_mem(c, in, size, false, &v);
    if (HV_LIKELY(!r)) {
        xmm_set(c, in->opnd[0].reg, v);
    }
    return r;
}

int op_MOVSS(struct cpu *c, const struct x86_insn *in)
{
    return move_scalar(c, in, 4);
}

int op_MOVSD(struct cpu *c, const struct x86_insn *in)
{
    return move_scalar(c, in, 8);
}

/* One half of a register from or to memory: the low (0) or the high (1) quadword. */
static inline int move_half(struct cpu *c, const struct x86_insn *in, unsigned half)
{
    int r = vec_ready(c);
    if (HV_UNLIKELY(r)) {
        return r;
    }
    __m128i v;
    if (in->opnd[0].kind != X86_OPND_XMM) {
        v = _mm_cvtsi64_si128((int64_t)c->xmm[in->opnd[1].reg].u64[half]);
        return vec_store_mem(c, in, 8, false, v);
    }
    r = vec_load_mem(c, in, 8, false, &v);
    if (HV_LIKELY(!r)) {
        c->xmm[in->opnd[0].reg].u64[half] = low64(v);
    }
    return r;
}

/* MOVLPS, MOVLPD */
int vec_move_low(struct cpu *c, const struct x86_insn *in)
{
    return move_half(c, in, 0);
}

/* MOVHPS, MOVHPD */
int vec_move_high(struct cpu *c, const struct x86_insn *in)
{
    return move_half(c, in, 1);
}

int op_MOVHLPS(struct cpu *c, const struct x86_insn *in)
{
    int r = vec_ready(c);
    if (!r) {
        c->xmm[in->opnd[0].reg].u64[0] = c->xmm[in->opnd[1].reg].u64[1];
    }
    return r;
}

int op_MOVLHPS(struct cpu *c, const struct x86_insn *in)
{
    int r = vec_ready(c);
    if (!r) {
        c->xmm[in->opnd[0].reg].u64[1] = c->xmm[in->opnd[1].reg].u64[0];
    }
    return r;
}

/*
 * Store the bytes whose mask byte has bit 7 set at seg:rDI. Runs of bytes are written one
 * after the other; a fault between them leaves some done, and the restart does them again:
 * SDM MASKMOVDQU leaves the order open.
 */
static int store_masked(struct cpu *c, const struct x86_insn *in, const uint8_t *src, const uint8_t *mask,
                        unsigned size)
{
    uint64_t off = c->gpr[R_RDI], va;
    if (in->adsize < 8) {
        off &= in->adsize == 4 ? UINT32_MAX : UINT16_MAX;
    }
    /* The memory operand is implied: DS, or the override that the decoder put in seg. */
    unsigned seg = in->prefix & X86_PFX_SEG ? in->seg : X86_SEG_DS;
    int aligned = cpu_seg_lin(c, seg, off, 1, ACC_WRITE, &va);
    if (!aligned && (aligned = cpu_check_aligned(c, va, 8))) {
        return aligned;
    }
    for (unsigned i = 0; i < size; i++) {
        unsigned n = 0;
        /* With alignment checks on, byte by byte: a run is no operand of its own. */
        while (i + n < size && mask[i + n] & 0x80 && !(n && c->user_aligned)) {
            n++;
        }
        if (n) {
            int r = cpu_seg_lin(c, seg, off + i, n, ACC_WRITE, &va);
            if (r || (r = cpu_st_bytes(c, seg, va, src + i, n))) {
                return r;
            }
            i += n;
        }
    }
    return X_OK;
}

int op_MASKMOVDQU(struct cpu *c, const struct x86_insn *in)
{
    int r = vec_ready(c);
    return r ? r : store_masked(c, in, c->xmm[in->opnd[0].reg].u8, c->xmm[in->opnd[1].reg].u8, 16);
}

int op_MASKMOVQ(struct cpu *c, const struct x86_insn *in)
{
    int r = fpu_check_mmx(c);
    if (r) {
        return r;
    }
    uint64_t src = mmx_get(c, in->opnd[0].reg), mask = mmx_get(c, in->opnd[1].reg);
    mmx_enter(c);
    return store_masked(c, in, (const uint8_t *)&src, (const uint8_t *)&mask, 8);
}
