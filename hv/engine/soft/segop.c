/*
 * Instructions on segment registers and descriptor tables: MOV, PUSH and POP of segments,
 * far pointer loads, LAR to VERW, ARPL, the table registers. SDM volume 2, each by name.
 */
#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

/* ---- segment registers ---- */

int op_mov_seg(struct cpu *c, const struct x86_insn *in)
{
    if (in->opnd[0].kind != X86_OPND_SEG)
        return cpu_opnd_set(c, in, 0, c->seg[in->opnd[1].reg].sel);
    const unsigned seg = in->opnd[0].reg;
    if (seg == X86_SEG_CS || seg >= X86_SEG_COUNT)
        return cpu_raise(c, VEC_UD);
    uint64_t v;
    int r = cpu_opnd_get(c, in, 1, &v);
    if (!r)
        r = seg_load(c, seg, (uint16_t)v);
    if (!r && seg == X86_SEG_SS)
        c->shadow = SHADOW_SS;
    return r;
}

int op_push_seg(struct cpu *c, const struct x86_insn *in)
{
    if (in->opnd[0].kind != X86_OPND_SEG)
        return cpu_raise(c, VEC_UD);
    return cpu_push(c, in->opsize, c->seg[in->opnd[0].reg].sel);
}

int op_pop_seg(struct cpu *c, const struct x86_insn *in)
{
    if (in->opnd[0].kind != X86_OPND_SEG || in->opnd[0].reg == X86_SEG_CS)
        return cpu_raise(c, VEC_UD);
    const uint64_t rsp = c->gpr[R_RSP];
    uint64_t v;
    int r = cpu_pop(c, in->opsize, &v);
    if (!r)
        r = seg_load(c, in->opnd[0].reg, (uint16_t)v);
    if (r) {
        c->gpr[R_RSP] = rsp;
        return r;
    }
    if (in->opnd[0].reg == X86_SEG_SS)
        c->shadow = SHADOW_SS;
    return X_OK;
}

/* LDS, LES, LFS, LGS, LSS: offset, then selector. */
int op_lfp(struct cpu *c, const struct x86_insn *in)
{
    static const struct { uint16_t op; uint8_t seg; } which[] = {
        { X86_OP_LDS, X86_SEG_DS }, { X86_OP_LES, X86_SEG_ES }, { X86_OP_LFS, X86_SEG_FS },
        { X86_OP_LGS, X86_SEG_GS }, { X86_OP_LSS, X86_SEG_SS },
    };
    unsigned seg = X86_SEG_DS;
    for (unsigned i = 0; i < ARRAY_SIZE(which); i++)
        if (which[i].op == in->op)
            seg = which[i].seg;
    const unsigned size = in->opsize;
    uint64_t lin, off = 0;
    uint8_t buf[10];
    int r = cpu_mem_lin(c, in, size + 2, ACC_READ, &lin);
    if (!r)
        r = cpu_ld_bytes(c, in->seg, lin, buf, size + 2);
    if (!r)
        r = seg_load(c, seg, (uint16_t)(buf[size] | buf[size + 1] << 8));
    if (r)
        return r;
    memcpy(&off, buf, size);
    cpu_reg_set(c, in->opnd[0].reg, size, off);
    return X_OK;
}

/* ---- questions about selectors ---- */

static void set_zf(struct cpu *c, bool on)
{
    cpu_set_rflags(c, on ? FL_ZF : 0, FL_ZF);
}

/* May a program at CPL with this RPL see the descriptor at all? Conforming code: always. */
static bool visible(const struct cpu *c, uint16_t sel, const struct desc *d)
{
    if (desc_is_code(d) && desc_type(d) & DT_CONFORMING)
        return true;
    return desc_dpl(d) >= c->cpl && desc_dpl(d) >= (sel & 3u);
}

/* Selector operand n of LAR, LSL, VERR, VERW and its descriptor; *ret_ok false: ZF = 0. */
static int probe_operand(struct cpu *c, const struct x86_insn *in, unsigned n, uint16_t *ret_sel, bool *ret_ok,
                         struct desc *ret)
{
    if (!cpu_protected(c))
        return cpu_raise(c, VEC_UD);
    uint64_t v;
    int r = cpu_opnd_get(c, in, n, &v);
    if (r)
        return r;
    *ret_sel = (uint16_t)v;
    *ret_ok = false;
    if (sel_null(*ret_sel))
        return X_OK;
    r = desc_probe(c, *ret_sel, false, ret_ok, ret);
    if (!r && *ret_ok)
        *ret_ok = visible(c, *ret_sel, ret);
    return r;
}

/* System types that LAR and LSL accept, a bit each: SDM volume 2, tables 3-53 and 3-56. */
#define LAR_TYPES      0x1a3eu     /* 1 2 3 4 5 9 11 12 */
#define LAR_TYPES_LONG 0x1a04u     /* 2 9 11 12 */
#define LSL_TYPES      0x0a0eu     /* 1 2 3 9 11 */
#define LSL_TYPES_LONG 0x0a04u     /* 2 9 11 */

int op_lar(struct cpu *c, const struct x86_insn *in)
{
    uint16_t sel;
    bool ok;
    struct desc d;
    int r = probe_operand(c, in, 1, &sel, &ok, &d);
    if (r)
        return r;
    if (ok && !desc_s(&d))
        ok = (cpu_long(c) ? LAR_TYPES_LONG : LAR_TYPES) >> desc_type(&d) & 1;
    if (ok)
        cpu_reg_set(c, in->opnd[0].reg, in->opsize, d.lo >> 32 & (in->opsize == 2 ? 0xff00 : 0xffff00));
    set_zf(c, ok);
    return X_OK;
}

int op_lsl(struct cpu *c, const struct x86_insn *in)
{
    uint16_t sel;
    bool ok;
    struct desc d;
    int r = probe_operand(c, in, 1, &sel, &ok, &d);
    if (r)
        return r;
    if (ok && !desc_s(&d))
        ok = (cpu_long(c) ? LSL_TYPES_LONG : LSL_TYPES) >> desc_type(&d) & 1;
    if (ok)
        cpu_reg_set(c, in->opnd[0].reg, in->opsize, desc_seg(sel, &d).limit);
    set_zf(c, ok);
    return X_OK;
}

int op_verr(struct cpu *c, const struct x86_insn *in)
{
    uint16_t sel;
    bool ok;
    struct desc d;
    int r = probe_operand(c, in, 0, &sel, &ok, &d);
    if (!r)
        set_zf(c, ok && desc_s(&d) && (!desc_is_code(&d) || desc_type(&d) & DT_WRITE));
    return r;
}

int op_verw(struct cpu *c, const struct x86_insn *in)
{
    uint16_t sel;
    bool ok;
    struct desc d;
    int r = probe_operand(c, in, 0, &sel, &ok, &d);
    if (!r)
        set_zf(c, ok && desc_is_data(&d) && desc_type(&d) & DT_WRITE);
    return r;
}

int op_arpl(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_protected(c))
        return cpu_raise(c, VEC_UD);
    uint64_t dst, src;
    int r = cpu_opnd_get(c, in, 0, &dst);
    if (!r)
        r = cpu_opnd_get(c, in, 1, &src);
    if (r)
        return r;
    const bool raise = (dst & 3) < (src & 3);
    if (raise)
        r = cpu_opnd_set(c, in, 0, (dst & ~3ull) | (src & 3));
    if (!r)
        set_zf(c, raise);
    return r;
}

/* ---- LDTR and TR ---- */

static bool umip_blocks(const struct cpu *c)
{
    return c->cr4 & CR4_UMIP && c->cpl > 0;
}

int op_sldt(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_protected(c))
        return cpu_raise(c, VEC_UD);
    return umip_blocks(c) ? cpu_raise_err(c, VEC_GP, 0) : cpu_opnd_set(c, in, 0, c->ldtr.sel);
}

int op_str(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_protected(c))
        return cpu_raise(c, VEC_UD);
    return umip_blocks(c) ? cpu_raise_err(c, VEC_GP, 0) : cpu_opnd_set(c, in, 0, c->tr.sel);
}

/* A system descriptor in the GDT whose type is one of `types` (a bit each). */
static int read_system(struct cpu *c, uint16_t sel, uint32_t types, struct desc *d)
{
    if (sel & 4)
        return cpu_raise_err(c, VEC_GP, SEL_ERR(sel));
    int r = desc_read(c, sel, cpu_long(c), VEC_GP, 0, d);
    if (r)
        return r;
    if (desc_s(d) || !(types >> desc_type(d) & 1) || d->hi >> 40 & 0x1f)
        return cpu_raise_err(c, VEC_GP, SEL_ERR(sel));
    if (!desc_p(d))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(sel));
    if (!cpu_canonical(desc_seg(sel, d).base))
        return cpu_raise_err(c, VEC_GP, SEL_ERR(sel));
    return X_OK;
}

int op_lldt(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_protected(c))
        return cpu_raise(c, VEC_UD);
    uint64_t v;
    int r = c->cpl ? cpu_raise_err(c, VEC_GP, 0) : cpu_opnd_get(c, in, 0, &v);
    if (r)
        return r;
    const uint16_t sel = (uint16_t)v;
    if (sel_null(sel)) {
        c->ldtr = (struct seg){ .sel = sel, .attr = SEG_ATTR_UNUSABLE };
        return X_OK;
    }
    struct desc d;
    r = read_system(c, sel, 1u << DT_LDT, &d);
    if (!r)
        c->ldtr = desc_seg(sel, &d);
    return r;
}

int op_ltr(struct cpu *c, const struct x86_insn *in)
{
    if (!cpu_protected(c))
        return cpu_raise(c, VEC_UD);
    uint64_t v;
    int r = c->cpl ? cpu_raise_err(c, VEC_GP, 0) : cpu_opnd_get(c, in, 0, &v);
    if (r)
        return r;
    const uint16_t sel = (uint16_t)v;
    if (sel_null(sel))
        return cpu_raise_err(c, VEC_GP, 0);
    struct desc d;
    r = read_system(c, sel, 1u << DT_TSS | (cpu_long(c) ? 0 : 1u << DT_TSS16), &d);
    if (!r)
        r = cpu_sys_rmw_or8(c, d.addr + 5, 2);
    if (!r) {
        c->tr = desc_seg(sel, &d);
        c->tr.attr |= 2;           /* busy */
    }
    return r;
}

/* ---- GDTR and IDTR ---- */

static int load_table(struct cpu *c, const struct x86_insn *in, uint64_t *ret_base, uint16_t *ret_limit)
{
    const unsigned size = cpu_code64(c) ? 8 : 4;
    uint64_t lin, base = 0;
    uint8_t buf[10];
    int r = cpu_mem_lin(c, in, 2 + size, ACC_READ, &lin);
    if (!r)
        r = cpu_ld_bytes(c, in->seg, lin, buf, 2 + size);
    if (r)
        return r;
    memcpy(&base, buf + 2, size);
    if (size == 8 && !cpu_canonical(base))
        return cpu_raise_err(c, VEC_GP, 0);
    if (size == 4 && in->opsize == 2)
        base &= 0xffffff;
    *ret_base = base;
    *ret_limit = (uint16_t)(buf[0] | buf[1] << 8);
    return X_OK;
}

static int store_table(struct cpu *c, const struct x86_insn *in, uint64_t base, uint16_t limit)
{
    if (umip_blocks(c))
        return cpu_raise_err(c, VEC_GP, 0);
    const unsigned size = cpu_code64(c) ? 8 : 4;
    uint64_t lin;
    uint8_t buf[10] = { (uint8_t)limit, (uint8_t)(limit >> 8) };
    memcpy(buf + 2, &base, size);
    int r = cpu_mem_lin(c, in, 2 + size, ACC_WRITE, &lin);
    return r ? r : cpu_st_bytes(c, in->seg, lin, buf, 2 + size);
}

int op_lgdt(struct cpu *c, const struct x86_insn *in) { return load_table(c, in, &c->gdt_base, &c->gdt_limit); }
int op_lidt(struct cpu *c, const struct x86_insn *in) { return load_table(c, in, &c->idt_base, &c->idt_limit); }
int op_sgdt(struct cpu *c, const struct x86_insn *in) { return store_table(c, in, c->gdt_base, c->gdt_limit); }
int op_sidt(struct cpu *c, const struct x86_insn *in) { return store_table(c, in, c->idt_base, c->idt_limit); }
