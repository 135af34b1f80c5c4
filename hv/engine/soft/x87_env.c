/*
 * x87 control: control and status word, environment, whole state, waiting.
 * SDM volume 1, 8.1; volume 2, FLDENV, FNSTENV, FNSAVE, FRSTOR (figures 8-9 to 8-12).
 */
#include "hv/base/endian.h"
#include "hv/engine/soft/vec.h"
#include "hv/engine/soft/vec_ops.h"
#include "hv/engine/soft/x87.h"

void x87_init(struct x87 *f)
{
    f->cw = X87_CW_INIT;
    f->sw = 0;
    f->tag = 0;
    f->fop = f->fcs = f->fds = 0;
    f->fip = f->fdp = 0;
}

int op_FNINIT(struct cpu *c, const struct x86_insn *in)
{
    int r = fpu_check_x87(c);
    if (!r) {
        x87_init(&c->x87);
    }
    return r;
}

int op_FNCLEX(struct cpu *c, const struct x86_insn *in)
{
    int r = fpu_check_x87(c);
    if (!r) {
        c->x87.sw &= 0x7f00;
    }
    return r;
}

/* WAIT: #NM only with both MP and TS. */
int op_FWAIT(struct cpu *c, const struct x86_insn *in)
{
    if ((c->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)) {
        return cpu_raise(c, VEC_NM);
    }
    return x87_check_pending(c);
}

int op_FLDCW(struct cpu *c, const struct x86_insn *in)
{
    __m128i v;
    int r = fpu_check_x87(c);
    if (r || (r = x87_check_pending(c)) || (r = vec_load_slow(c, in, 2, false, &v))) {
        return r;
    }
    c->x87.cw = x87_cw_valid((uint16_t)low64(v));
    x87_update_es(&c->x87);
    return X_OK;
}

static int store16(struct cpu *c, const struct x86_insn *in, uint16_t v)
{
    if (in->opnd[0].kind == X86_OPND_GPR) {
        cpu_reg_set(c, R_RAX, 2, v);        /* FNSTSW AX */
        return X_OK;
    }
    return vec_store_slow(c, in, 2, false, _mm_cvtsi32_si128(v));
}

int op_FNSTCW(struct cpu *c, const struct x86_insn *in)
{
    int r = fpu_check_x87(c);
    return r ? r : store16(c, in, c->x87.cw);
}

int op_FNSTSW(struct cpu *c, const struct x86_insn *in)
{
    int r = fpu_check_x87(c);
    return r ? r : store16(c, in, c->x87.sw);
}

/* ---- environment ---- */

/* The full tag word: 0 valid, 1 zero, 2 special, 3 empty, two bits a physical register. */
static uint16_t full_tags(const struct x87 *f)
{
    uint16_t tw = 0;
    for (unsigned i = 0; i < 8; i++) {
        unsigned t = 3;
        if (f->tag >> i & 1) {
            uint64_t m = get_le64(&f->st[i]);
            uint16_t e = get_le16((const char *)&f->st[i] + 8) & 0x7fff;
            t = e == 0x7fff || (e != 0 && !(m >> 63)) || (e == 0 && m != 0) ? 2 : e == 0 ? 1 : 0;
        }
        tw |= (uint16_t)(t << 2 * i);
    }
    return tw;
}

static uint8_t abridged_tags(uint16_t tw)
{
    uint8_t tag = 0;
    for (unsigned i = 0; i < 8; i++) {
        tag |= (uint8_t)(((tw >> 2 * i & 3) != 3) << i);
    }
    return tag;
}

/* The layout goes by operand size, and by whether selectors mean something (protected mode). */
static bool wide(const struct x86_insn *in)
{
    return in->opsize >= 4;
}

static unsigned env_size(const struct x86_insn *in)
{
    return wide(in) ? 28 : 14;
}

static bool with_selectors(const struct cpu *c)
{
    return c->cr0 & CR0_PE && !(c->rflags & FL_VM);
}

static void env_put(const struct cpu *c, const struct x86_insn *in, uint8_t *p)
{
    const struct x87 *f = &c->x87;
    uint32_t ip = (uint32_t)f->fip, dp = (uint32_t)f->fdp;
    uint32_t lip = ip + ((uint32_t)f->fcs << 4), ldp = dp + ((uint32_t)f->fds << 4);
    uint32_t fop = f->fop & 0x7ff;
    bool sel = with_selectors(c);
    if (wide(in)) {
        put_le32(p, f->cw | 0xffff0000u);
        put_le32(p + 4, f->sw | 0xffff0000u);
        put_le32(p + 8, full_tags(f) | 0xffff0000u);
        put_le32(p + 12, sel ? ip : (lip & 0xffff) | 0xffff0000u);
        put_le32(p + 16, sel ? f->fcs | fop << 16 : (lip & 0xffff0000u) >> 4 | fop);
        put_le32(p + 20, sel ? dp : (ldp & 0xffff) | 0xffff0000u);
        put_le32(p + 24, sel ? f->fds | 0xffff0000u : (ldp & 0xffff0000u) >> 4);
    } else {
        put_le16(p, f->cw);
        put_le16(p + 2, f->sw);
        put_le16(p + 4, full_tags(f));
        put_le16(p + 6, (uint16_t)(sel ? ip : lip));
        put_le16(p + 8, (uint16_t)(sel ? f->fcs : (lip >> 4 & 0xf000) | fop));
        put_le16(p + 10, (uint16_t)(sel ? dp : ldp));
        put_le16(p + 12, (uint16_t)(sel ? f->fds : ldp >> 4 & 0xf000));
    }
}

static void env_get(struct cpu *c, const struct x86_insn *in, const uint8_t *p)
{
    struct x87 *f = &c->x87;
    unsigned step = wide(in) ? 4 : 2;
    f->cw = x87_cw_valid(get_le16(p));
    f->sw = get_le16(p + step);
    f->tag = abridged_tags(get_le16(p + 2 * step));
    f->fcs = f->fds = 0;
    if (wide(in)) {
        uint32_t second = get_le32(p + 16), fourth = get_le32(p + 24);
        if (with_selectors(c)) {
            f->fip = get_le32(p + 12);
            f->fcs = (uint16_t)second;
            f->fop = second >> 16 & 0x7ff;
            f->fdp = get_le32(p + 20);
            f->fds = (uint16_t)fourth;
        } else {
            f->fip = get_le16(p + 12) | (second << 4 & 0xffff0000u);
            f->fop = second & 0x7ff;
            f->fdp = get_le16(p + 20) | (fourth << 4 & 0xffff0000u);
        }
    } else {
        uint16_t second = get_le16(p + 8), fourth = get_le16(p + 12);
        f->fip = get_le16(p + 6);
        f->fdp = get_le16(p + 10);
        if (with_selectors(c)) {
            f->fcs = second;
            f->fds = fourth;
        } else {
            f->fip |= (uint32_t)(second & 0xf000) << 4;
            f->fdp |= (uint32_t)(fourth & 0xf000) << 4;
            f->fop = second & 0x7ff;
        }
    }
    x87_update_es(f);
}

static int mem_get(struct cpu *c, const struct x86_insn *in, uint8_t *buf, unsigned len)
{
    uint64_t va;
    int r = cpu_mem_lin(c, in, len, ACC_READ, &va);
    return r ? r : cpu_ld_bytes(c, in->seg, va, buf, len);
}

static int mem_put(struct cpu *c, const struct x86_insn *in, const uint8_t *buf, unsigned len)
{
    uint64_t va;
    int r = cpu_mem_lin(c, in, len, ACC_WRITE, &va);
    return r ? r : cpu_st_bytes(c, in->seg, va, buf, len);
}

int op_FNSTENV(struct cpu *c, const struct x86_insn *in)
{
    uint8_t buf[28];
    int r = fpu_check_x87(c);
    if (r) {
        return r;
    }
    env_put(c, in, buf);
    r = mem_put(c, in, buf, env_size(in));
    if (!r) {
        c->x87.cw |= X87_FLAGS;             /* masks all exceptions once they are saved */
        x87_update_es(&c->x87);
    }
    return r;
}

int op_FLDENV(struct cpu *c, const struct x86_insn *in)
{
    uint8_t buf[28];
    int r = fpu_check_x87(c);
    if (r || (r = x87_check_pending(c)) || (r = mem_get(c, in, buf, env_size(in)))) {
        return r;
    }
    env_get(c, in, buf);
    return X_OK;
}

/* Environment, then the registers from ST(0), ten bytes each. */
int op_FNSAVE(struct cpu *c, const struct x86_insn *in)
{
    uint8_t buf[108], slots[128];
    unsigned env = env_size(in);
    int r = fpu_check_x87(c);
    if (r) {
        return r;
    }
    env_put(c, in, buf);
    x87_slots_out(&c->x87, slots);
    for (unsigned i = 0; i < 8; i++) {
        __builtin_memcpy(buf + env + 10 * i, slots + 16 * i, 10);
    }
    r = mem_put(c, in, buf, env + 80);
    if (!r) {
        x87_init(&c->x87);
    }
    return r;
}

int op_FRSTOR(struct cpu *c, const struct x86_insn *in)
{
    uint8_t buf[108], slots[128] = { 0 };
    unsigned env = env_size(in);
    int r = fpu_check_x87(c);
    if (r || (r = x87_check_pending(c)) || (r = mem_get(c, in, buf, env + 80))) {
        return r;
    }
    env_get(c, in, buf);
    for (unsigned i = 0; i < 8; i++) {
        __builtin_memcpy(slots + 16 * i, buf + env + 10 * i, 10);
    }
    x87_slots_in(&c->x87, slots);
    return X_OK;
}
