/*
 * Floating point as a whole: who may use it, FXSAVE and FXRSTOR, MXCSR, reset, saved state,
 * and the table of every x87, MMX and SSE instruction. SDM volume 1, 8 to 12; volume 3, 2.5, 13.
 */
#include <cpuid.h>
#include <errno.h>

#include "hv/base/endian.h"
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"
#include "hv/engine/soft/x87.h"

unsigned vec_host;

__attribute__((constructor)) static void find_host(void)
{
    static const struct { uint8_t leaf, reg, bit, need; } t[] = {
        { 1, 2, 0, NEED_SSE3 }, { 1, 2, 9, NEED_SSSE3 }, { 1, 2, 19, NEED_SSE41 }, { 1, 2, 20, NEED_SSE42 },
        { 1, 2, 25, NEED_AES }, { 1, 2, 1, NEED_PCLMUL }, { 7, 1, 29, NEED_SHA },
    };
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        unsigned r[4];
        if (__get_cpuid_count(t[i].leaf, 0, &r[0], &r[1], &r[2], &r[3]) && r[t[i].reg] >> t[i].bit & 1) {
            vec_host |= t[i].need;
        }
    }
}

/* ---- checks: SDM volume 3, table 2-2, 13.1 ---- */

int fpu_check_x87(struct cpu *c)
{
    return HV_LIKELY(!(c->cr0 & (CR0_EM | CR0_TS))) ? X_OK : cpu_raise(c, VEC_NM);
}

int fpu_check_mmx(struct cpu *c)
{
    if (HV_UNLIKELY(c->cr0 & (CR0_EM | CR0_TS))) {
        return cpu_raise(c, c->cr0 & CR0_EM ? VEC_UD : VEC_NM);
    }
    return x87_check_pending(c);
}

int fpu_check_sse(struct cpu *c)
{
    if (c->cr0 & CR0_EM || !(c->cr4 & CR4_OSFXSR)) {
        return cpu_raise(c, VEC_UD);
    }
    return c->cr0 & CR0_TS ? cpu_raise(c, VEC_NM) : X_OK;
}

/* ---- operands off the fast path of vec.h ---- */

static int mem_lin(struct cpu *c, const struct x86_insn *in, unsigned size, bool aligned, enum cpu_access acc,
                   uint64_t *ret)
{
    int r = cpu_mem_lin(c, in, size, acc, ret);
    if (!r && aligned && *ret & (size - 1)) {
        return cpu_raise_err(c, VEC_GP, 0);
    }
    return r;
}

/* Sizes an integer access can have go that way: device memory sees one access of that width. */
int vec_load_slow(struct cpu *c, const struct x86_insn *in, unsigned size, bool aligned, __m128i *ret)
{
    uint64_t va, v = 0;
    int r = mem_lin(c, in, size, aligned, ACC_READ, &va);
    if (r) {
        return r;
    }
    switch (size) {
    case 1: r = cpu_ld8(c, in->seg, va, &v); break;
    case 2: r = cpu_ld16(c, in->seg, va, &v); break;
    case 4: r = cpu_ld32(c, in->seg, va, &v); break;
    case 8: r = cpu_ld64(c, in->seg, va, &v); break;
    default: {
        uint8_t buf[16] = { 0 };
        hv_assert(size <= sizeof(buf));
        r = cpu_ld_bytes(c, in->seg, va, buf, size);
        *ret = _mm_loadu_si128((const __m128i *)(const void *)buf);
        return r;
    }
    }
    *ret = _mm_cvtsi64_si128((int64_t)v);
    return r;
}

int vec_store_slow(struct cpu *c, const struct x86_insn *in, unsigned size, bool aligned, __m128i v)
{
    uint64_t va;
    int r = mem_lin(c, in, size, aligned, ACC_WRITE, &va);
    if (r) {
        return r;
    }
    switch (size) {
    case 1: return cpu_st8(c, in->seg, va, low64(v));
    case 2: return cpu_st16(c, in->seg, va, low64(v));
    case 4: return cpu_st32(c, in->seg, va, low64(v));
    case 8: return cpu_st64(c, in->seg, va, low64(v));
    default: hv_assert(size <= 16); return cpu_st_bytes(c, in->seg, va, &v, size);
    }
}

int mmx_source(struct cpu *c, const struct x86_insn *in, unsigned n, __m128i *ret)
{
    const struct x86_opnd *o = &in->opnd[n];
    switch (o->kind) {
    case X86_OPND_MMX: *ret = _mm_cvtsi64_si128((int64_t)mmx_get(c, o->reg)); return X_OK;
    case X86_OPND_IMM: *ret = _mm_cvtsi32_si128((int)(in->imm & 0xff)); return X_OK;
    default: return vec_load_mem(c, in, o->size == 4 ? 4 : 8, false, ret);
    }
}

int mmx_operands(struct cpu *c, const struct x86_insn *in, __m128i *ret_dst, __m128i *ret_src)
{
    int r = fpu_check_mmx(c);
    if (HV_UNLIKELY(r || (r = mmx_source(c, in, 1, ret_src)))) {
        return r;
    }
    mmx_enter(c);
    *ret_dst = _mm_cvtsi64_si128((int64_t)mmx_get(c, in->opnd[0].reg));
    return X_OK;
}

int op_EMMS(struct cpu *c, const struct x86_insn *in)
{
    int r = fpu_check_mmx(c);
    if (!r) {
        c->x87.tag = 0;
    }
    return r;
}

/* ---- MXCSR ---- */

/* Is a result tiny though exact: a denormal in a lane that the operation wrote. */
static bool has_denormal(__m128i v, enum fp_lanes lanes)
{
    union vec u;
    _mm_storeu_si128((__m128i *)(void *)&u, v);
    unsigned n = lanes == LANES_PS ? 4 : lanes == LANES_PD ? 2 : lanes == LANES_NONE ? 0 : 1;
    for (unsigned i = 0; i < n; i++) {
        if (lanes == LANES_SS || lanes == LANES_PS
                ? !(u.u32[i] & 0x7f800000u) && u.u32[i] & 0x7fffffu
                : !(u.u64[i] & 0x7ff0000000000000ull) && u.u64[i] & 0xfffffffffffffull) {
            return true;
        }
    }
    return false;
}

/*
 * SDM 1, 11.5.2 and 11.5.3: an unmasked invalid, denormal or divide exception keeps the operation from
 * being done, so nothing that its result would raise is reported; an unmasked underflow is
 * raised by tiny results even if they are exact.
 *
 * TODO(unbounded exponent): PE beside an unmasked overflow or underflow should say whether the result would
 * be inexact with any exponent allowed; here it is what the masked response says. DPPS and DPPD are several
 * operations in one: flags of the steps before the trapping one are missing, and exact tiny products.
 */
int fp_trap(struct cpu *c, uint32_t raised, __m128i result, enum fp_lanes lanes)
{
    const uint32_t before = MXCSR_IE | MXCSR_DE | MXCSR_ZE;
    uint32_t unmasked = ~(c->mxcsr >> 7) & MXCSR_FLAGS;
    if (raised & unmasked & before) {
        raised &= before;
    } else if (unmasked & MXCSR_UE && has_denormal(result, lanes)) {
        raised |= MXCSR_UE;
    }
    c->mxcsr |= raised;
    if (!(raised & unmasked)) {
        return X_OK;
    }
    return cpu_raise(c, c->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}

int op_LDMXCSR(struct cpu *c, const struct x86_insn *in)
{
    __m128i v;
    int r = vec_ready(c);
    if (r || (r = vec_load_mem(c, in, 4, false, &v))) {
        return r;
    }
    if (low64(v) & ~(uint64_t)MXCSR_MASK) {
        return cpu_raise_err(c, VEC_GP, 0);
    }
    c->mxcsr = (uint32_t)low64(v);
    cpu_update_fp_mode(c);
    return X_OK;
}

int op_STMXCSR(struct cpu *c, const struct x86_insn *in)
{
    int r = vec_ready(c);
    return r ? r : vec_store_mem(c, in, 4, false, _mm_cvtsi32_si128((int)c->mxcsr));
}

/* ---- FXSAVE, FXRSTOR: SDM 1, 10.5, table 10-2 ---- */

#define FX_XMM 160
#define FX_SIZE 512

/* Bytes of the image that are written and read: 16 XMM registers in 64-bit mode, else 8. */
static unsigned fx_used(const struct cpu *c)
{
    return FX_XMM + 16 * (c->mode & MODE_CODE64 ? 16 : 8);
}

static void fx_put(const struct cpu *c, uint8_t p[static FX_SIZE], bool wide)
{
    const struct x87 *f = &c->x87;
    put_le16(p, f->cw);
    put_le16(p + 2, f->sw);
    p[4] = f->tag;
    p[5] = 0;
    put_le16(p + 6, f->fop);
    put_le64(p + 8, f->fip);
    put_le64(p + 16, f->fdp);
    if (!wide) {
        put_le32(p + 12, f->fcs);
        put_le32(p + 20, f->fds);
    }
    put_le32(p + 24, c->mxcsr);
    put_le32(p + 28, MXCSR_MASK);
    x87_slots_out(f, p + 32);
    for (unsigned i = 0; i < 8; i++) {
        memset(p + 32 + 16 * i + 10, 0, 6);
    }
    for (unsigned i = 0; i < 16; i++) {
        memcpy(p + FX_XMM + 16 * i, &c->xmm[i], 16);
    }
}

static void fx_get(struct cpu *c, const uint8_t p[static FX_SIZE], bool wide, unsigned xmms)
{
    struct x87 *f = &c->x87;
    f->cw = x87_cw_valid(get_le16(p));
    f->sw = get_le16(p + 2);
    f->tag = p[4];
    f->fop = get_le16(p + 6) & 0x7ff;
    f->fip = wide ? get_le64(p + 8) : get_le32(p + 8);
    f->fdp = wide ? get_le64(p + 16) : get_le32(p + 16);
    f->fcs = wide ? 0 : get_le16(p + 12);
    f->fds = wide ? 0 : get_le16(p + 20);
    x87_update_es(f);
    c->mxcsr = get_le32(p + 24);
    cpu_update_fp_mode(c);
    x87_slots_in(f, p + 32);
    for (unsigned i = 0; i < xmms; i++) {
        memcpy(&c->xmm[i], p + FX_XMM + 16 * i, 16);
    }
}

static int fx_lin(struct cpu *c, const struct x86_insn *in, enum cpu_access acc, uint64_t *ret)
{
    if (c->cr0 & (CR0_EM | CR0_TS)) {
        return cpu_raise(c, VEC_NM);
    }
    int r = cpu_mem_lin(c, in, FX_SIZE, acc, ret);
    if (!r && *ret & 15) {             /* #AC where that is on and the address is worse: SDM FXSAVE */
        r = cpu_check_aligned(c, *ret, FX_SIZE);
        return r ? r : cpu_raise_err(c, VEC_GP, 0);
    }
    return r;
}

/* The last 96 bytes are left to software. */
int op_FXSAVE(struct cpu *c, const struct x86_insn *in)
{
    uint8_t buf[FX_SIZE];
    uint64_t va;
    int r = fx_lin(c, in, ACC_WRITE, &va);
    if (r) {
        return r;
    }
    fx_put(c, buf, in->opsize == 8);
    return cpu_st_bytes(c, in->seg, va, buf, fx_used(c));
}

int op_FXRSTOR(struct cpu *c, const struct x86_insn *in)
{
    uint8_t buf[FX_SIZE];
    uint64_t va;
    int r = fx_lin(c, in, ACC_READ, &va);
    if (r || (r = cpu_ld_bytes(c, in->seg, va, buf, FX_SIZE))) {
        return r;
    }
    if (get_le32(buf + 24) & ~MXCSR_MASK) {
        return cpu_raise_err(c, VEC_GP, 0);
    }
    fx_get(c, buf, in->opsize == 8, c->mode & MODE_CODE64 ? 16 : 8);
    return X_OK;
}

/* ---- life ---- */

/* Power-on values; INIT changes nothing here. SDM volume 3, table 10-1. */
void fpu_reset(struct cpu *c, bool init)
{
    if (init) {
        return;
    }
    memset(&c->x87, 0, sizeof(c->x87));
    c->x87.cw = 0x40;
    c->x87.tag = 0xff;
    memset(c->xmm, 0, sizeof(c->xmm));
    c->mxcsr = MXCSR_DEFAULT;
    cpu_update_fp_mode(c);
}

/*
 * Saved: which components follow, as in XCR0 (x87 and SSE: 3), selectors of the last x87
 * instruction, and the image FXSAVE64 makes. Fields only, the section is the caller's.
 */
#define COMPONENTS 3

void fpu_save_section(struct cpu *c, struct save_writer *w)
{
    uint8_t buf[FX_SIZE] = { 0 };
    fx_put(c, buf, true);
    save_u64(w, COMPONENTS);
    save_u16(w, c->x87.fcs);
    save_u16(w, c->x87.fds);
    save_bytes(w, buf, sizeof(buf));
}

int fpu_load_section(struct cpu *c, struct load_section *s)
{
    uint8_t buf[FX_SIZE];
    uint64_t components = load_u64(s);
    uint16_t fcs = load_u16(s), fds = load_u16(s);
    load_bytes(s, buf, sizeof(buf));
    if (s->bad || components != COMPONENTS || get_le32(buf + 24) & ~MXCSR_MASK) {
        return -EINVAL;
    }
    fx_get(c, buf, true, 16);
    c->x87.fcs = fcs;
    c->x87.fds = fds;
    return 0;
}

/* ---- the table ---- */

#define ENTRY(name, ...) [X86_OP_##name] = { op_##name, 0 },
#define X87(name) [X86_OP_##name] = { x87_exec, 0 },
#define MOVE(name, fn) [X86_OP_##name] = { fn, 0 },

const struct op_desc cpu_fpu_ops[X86_OP_COUNT] = {
    INT_SAME(ENTRY) INT_SHIFT(ENTRY) INT_JOIN(ENTRY) INT_HIGH(ENTRY) INT_XMM(ENTRY) INT_IMM(ENTRY)
    INT_XMM0(ENTRY) FP_XMM(ENTRY) FP_IMM(ENTRY) FP_COMPARE(ENTRY) FP_TO_GPR(ENTRY) FP_FROM_GPR(ENTRY)
    FP_TO_MMX(ENTRY) STR_OPS(ENTRY)
    ENTRY(CVTPI2PS) ENTRY(CVTPI2PD) ENTRY(PSHUFB) ENTRY(PSHUFW) ENTRY(PALIGNR) ENTRY(PSLLDQ) ENTRY(PSRLDQ)
    ENTRY(PTEST) ENTRY(INSERTPS)

    MOVE(MOVAPS, vec_move_aligned) MOVE(MOVAPD, vec_move_aligned) MOVE(MOVDQA, vec_move_aligned)
    MOVE(MOVNTPS, vec_move_aligned) MOVE(MOVNTPD, vec_move_aligned) MOVE(MOVNTDQ, vec_move_aligned)
    MOVE(MOVNTDQA, vec_move_aligned)
    MOVE(MOVUPS, vec_move_unaligned) MOVE(MOVUPD, vec_move_unaligned) MOVE(MOVDQU, vec_move_unaligned)
    MOVE(LDDQU, vec_move_unaligned)
    MOVE(MOVD, vec_move_word) MOVE(MOVQ, vec_move_word) MOVE(MOVQ2DQ, vec_move_word)
    MOVE(MOVDQ2Q, vec_move_word) MOVE(MOVNTQ, vec_move_word)
    MOVE(MOVLPS, vec_move_low) MOVE(MOVLPD, vec_move_low) MOVE(MOVHPS, vec_move_high) MOVE(MOVHPD, vec_move_high)
    ENTRY(MOVSS) ENTRY(MOVSD) ENTRY(MOVHLPS) ENTRY(MOVLHPS) ENTRY(MASKMOVQ) ENTRY(MASKMOVDQU)
    MOVE(PMOVMSKB, vec_movmsk) MOVE(MOVMSKPS, vec_movmsk) MOVE(MOVMSKPD, vec_movmsk)
    MOVE(PEXTRB, vec_extract) MOVE(PEXTRW, vec_extract) MOVE(PEXTRD, vec_extract) MOVE(PEXTRQ, vec_extract)
    MOVE(EXTRACTPS, vec_extract)
    MOVE(PINSRB, vec_insert) MOVE(PINSRW, vec_insert) MOVE(PINSRD, vec_insert) MOVE(PINSRQ, vec_insert)

    ENTRY(EMMS) ENTRY(LDMXCSR) ENTRY(STMXCSR) ENTRY(FXSAVE) ENTRY(FXRSTOR)

    X87(F2XM1) X87(FABS) X87(FADD) X87(FADDP) X87(FBLD) X87(FBSTP) X87(FCHS) X87(FCMOVCC) X87(FCOM) X87(FCOMI)
    X87(FCOMIP) X87(FCOMP) X87(FCOMPP) X87(FCOS) X87(FDECSTP) X87(FDIV) X87(FDIVP) X87(FDIVR) X87(FDIVRP)
    X87(FFREE) X87(FFREEP) X87(FIADD) X87(FICOM) X87(FICOMP) X87(FIDIV) X87(FIDIVR) X87(FILD) X87(FIMUL)
    X87(FINCSTP) X87(FIST) X87(FISTP) X87(FISTTP) X87(FISUB) X87(FISUBR) X87(FLD) X87(FLD1) X87(FLDL2E)
    X87(FLDL2T) X87(FLDLG2) X87(FLDLN2) X87(FLDPI) X87(FLDZ) X87(FMUL) X87(FMULP) X87(FNOP) X87(FPATAN)
    X87(FPREM) X87(FPREM1) X87(FPTAN) X87(FRNDINT) X87(FSCALE) X87(FSIN) X87(FSINCOS) X87(FSQRT) X87(FST)
    X87(FSTP) X87(FSUB) X87(FSUBP) X87(FSUBR) X87(FSUBRP) X87(FTST) X87(FUCOM) X87(FUCOMI) X87(FUCOMIP)
    X87(FUCOMP) X87(FUCOMPP) X87(FXAM) X87(FXCH) X87(FXTRACT) X87(FYL2X) X87(FYL2XP1)
    ENTRY(FNINIT) ENTRY(FNCLEX) ENTRY(FLDCW) ENTRY(FNSTCW) ENTRY(FNSTSW) ENTRY(FNSTENV) ENTRY(FLDENV)
    ENTRY(FNSAVE) ENTRY(FRSTOR) ENTRY(FWAIT)
};
