/*
 * Segments: descriptors, loads, stacks by descriptor, and the mode bits that follow from
 * them. SDM volume 3, chapters 3 and 5.
 */
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

/* ---- mode ---- */

static bool flat_data(const struct seg *s, uint32_t must)
{
    /* Present, usable, writable data, expand up. */
    return s->base == 0 && s->limit == UINT32_MAX && (s->attr & (SEG_ATTR_UNUSABLE | 0x9a | DT_DOWN)) == must;
}

static bool all_flat(const struct cpu *c)
{
    const struct seg *cs = &c->seg[X86_SEG_CS];
    /* Readable code; in real mode and after a far jump out of it CS may be writable data. */
    return cs->base == 0 && cs->limit == UINT32_MAX && (cs->attr & (SEG_ATTR_UNUSABLE | 0x92)) == 0x92 &&
           flat_data(&c->seg[X86_SEG_DS], 0x92) && flat_data(&c->seg[X86_SEG_SS], 0x92) &&
           flat_data(&c->seg[X86_SEG_ES], 0x92);
}

void cpu_update_mode(struct cpu *c)
{
    uint32_t m = 0;
    const uint32_t cs = c->seg[X86_SEG_CS].attr;
    if (c->cr0 & CR0_PE)
        m |= MODE_PE;
    if (c->rflags & FL_VM && c->cr0 & CR0_PE)
        m |= MODE_VM;
    if (c->efer & EFER_LMA && cs & SEG_ATTR_L)
        m |= MODE_CODE64 | MODE_FLAT;
    else if (cs & SEG_ATTR_DB)
        m |= MODE_CODE32;
    if (!(m & MODE_CODE64) && c->seg[X86_SEG_SS].attr & SEG_ATTR_DB)
        m |= MODE_SS32;
    if (!(m & MODE_CODE64) && all_flat(c))
        m |= MODE_FLAT;
    if (c->cpl == 3)
        m |= MODE_USER;
    if (c->cpl == 0)
        m |= MODE_CPL0;
    if (c->rflags & FL_TF)
        m |= MODE_TF;
    if (c->cr0 & (CR0_TS | CR0_EM))
        m |= MODE_NOFPU;
    if (c->cr0 & CR0_PG)
        m |= MODE_PG;
    if (!(c->cr4 & CR4_OSFXSR))
        m |= MODE_NOSSE;
    unsigned t = c->cpl == 3 ? TLB_USER : TLB_SUPER;
    if (c->cpl < 3 && c->cr4 & CR4_SMAP) {
        if (c->rflags & FL_AC)
            t = TLB_SUPER_AC, m |= MODE_SUPER_AC;
        else
            m |= MODE_SMAP;
    }
    if (c->cpl == 3 && HV_UNLIKELY(c->user_aligned != (c->rflags & FL_AC && c->cr0 & CR0_AM)))
        tlb_check_alignment(c, !c->user_aligned);
    c->mode = m;
    cpu_update_fp_mode(c);
    c->tlb = c->tlb_table[t];
    c->map_gen = c->gen[c->cpl == 3];
}

/* ---- descriptors ---- */

int desc_probe(struct cpu *c, uint16_t sel, bool wide, bool *ret_ok, struct desc *ret)
{
    const bool ldt = sel & 4;
    const uint64_t base = ldt ? c->ldtr.base : c->gdt_base;
    const uint32_t limit = ldt ? c->ldtr.limit : c->gdt_limit;
    const uint32_t off = sel & 0xfff8u;
    *ret_ok = !(ldt && (c->ldtr.attr & SEG_ATTR_UNUSABLE || !(c->ldtr.attr & SEG_ATTR_P))) &&
              off + (wide ? 15 : 7) <= limit;
    if (!*ret_ok)
        return X_OK;
    struct desc d = { .addr = cpu_long(c) ? base + off : (uint32_t)(base + off) };
    int r = cpu_sys_ld(c, d.addr, 8, &d.lo);
    if (!r && wide)
        r = cpu_sys_ld(c, d.addr + 8, 8, &d.hi);
    if (!r)
        *ret = d;
    return r;
}

int desc_read(struct cpu *c, uint16_t sel, bool wide, unsigned vector, uint32_t ext, struct desc *ret)
{
    bool ok;
    int r = desc_probe(c, sel, wide, &ok, ret);
    if (!r && !ok)
        r = cpu_raise_err(c, vector, SEL_ERR(sel) | ext);
    return r;
}

struct seg desc_seg(uint16_t sel, const struct desc *d)
{
    struct seg s = { .sel = sel };
    s.base = (d->lo >> 16 & 0xffffff) | (d->lo >> 56 & 0xff) << 24 | d->hi << 32;
    s.limit = (uint32_t)((d->lo & 0xffff) | (d->lo >> 32 & 0xf0000));
    s.attr = (uint32_t)(d->lo >> 40) & 0xf0ff;
    if (s.attr & SEG_ATTR_G)
        s.limit = s.limit << 12 | 0xfff;
    return s;
}

int desc_set_accessed(struct cpu *c, const struct desc *d)
{
    return desc_type(d) & DT_ACCESSED ? X_OK : cpu_sys_rmw_or8(c, d->addr + 5, DT_ACCESSED);
}

struct seg seg_flat_code(uint16_t sel, unsigned dpl, bool l)
{
    return (struct seg){ .limit = UINT32_MAX, .sel = sel,
                         .attr = 0x9b | dpl << 5 | SEG_ATTR_G | (l ? SEG_ATTR_L : SEG_ATTR_DB) };
}

struct seg seg_flat_data(uint16_t sel, unsigned dpl)
{
    return (struct seg){ .limit = UINT32_MAX, .sel = sel, .attr = 0x93 | dpl << 5 | SEG_ATTR_G | SEG_ATTR_DB };
}

struct seg seg_null_ss(unsigned cpl)
{
    return (struct seg){ .sel = (uint16_t)cpl, .attr = 0x93 | cpl << 5 | SEG_ATTR_UNUSABLE };
}

/* ---- loads ---- */

void seg_set_real(struct cpu *c, unsigned seg, uint16_t sel)
{
    struct seg *s = &c->seg[seg];
    s->sel = sel;
    s->base = (uint64_t)sel << 4;
    if (c->mode & MODE_VM) {
        s->limit = 0xffff;
        s->attr = 0xf3;
    } else {
        /* Only the base changes: what was left from protected mode stays ("unreal mode"). */
        s->attr &= ~SEG_ATTR_UNUSABLE;
        if (seg == X86_SEG_CS)
            s->attr = (s->attr & ~0x9fu) | 0x9b;
    }
}

int seg_check_ss(struct cpu *c, uint16_t sel, unsigned cpl, unsigned vector, uint32_t ext, struct seg *ret)
{
    if (sel_null(sel))
        return cpu_raise_err(c, vector, ext);
    struct desc d;
    int r = desc_read(c, sel, false, vector, ext, &d);
    if (r)
        return r;
    if ((sel & 3u) != cpl || desc_dpl(&d) != cpl || !desc_is_data(&d) || !(desc_type(&d) & DT_WRITE))
        return cpu_raise_err(c, vector, SEL_ERR(sel) | ext);
    if (!desc_p(&d))
        return cpu_raise_err(c, VEC_SS, SEL_ERR(sel) | ext);
    r = desc_set_accessed(c, &d);
    if (r)
        return r;
    *ret = desc_seg(sel, &d);
    ret->attr |= DT_ACCESSED;
    return X_OK;
}

int seg_load_data(struct cpu *c, unsigned seg, uint16_t sel, unsigned vector, uint32_t ext)
{
    if (sel_null(sel)) {
        c->seg[seg] = (struct seg){ .sel = sel, .attr = SEG_ATTR_UNUSABLE };
        return X_OK;
    }
    struct desc d;
    int r = desc_read(c, sel, false, vector, ext, &d);
    if (r)
        return r;
    const unsigned type = desc_type(&d);
    const bool code = type & DT_CODE;
    if (!desc_s(&d) || (code && !(type & DT_WRITE)))
        return cpu_raise_err(c, vector, SEL_ERR(sel) | ext);
    if (!(code && type & DT_CONFORMING) && (desc_dpl(&d) < (sel & 3u) || desc_dpl(&d) < c->cpl))
        return cpu_raise_err(c, vector, SEL_ERR(sel) | ext);
    if (!desc_p(&d))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(sel) | ext);
    r = desc_set_accessed(c, &d);
    if (r)
        return r;
    c->seg[seg] = desc_seg(sel, &d);
    c->seg[seg].attr |= DT_ACCESSED;
    return X_OK;
}

static int load_ss(struct cpu *c, uint16_t sel)
{
    if (sel_null(sel) && cpu_code64(c) && c->cpl < 3 && (sel & 3u) == c->cpl) {
        c->seg[X86_SEG_SS] = seg_null_ss(c->cpl);
        c->seg[X86_SEG_SS].sel = sel;
        return X_OK;
    }
    struct seg s;
    int r = seg_check_ss(c, sel, c->cpl, VEC_GP, 0, &s);
    if (!r)
        c->seg[X86_SEG_SS] = s;
    return r;
}

int seg_load(struct cpu *c, unsigned seg, uint16_t sel)
{
    int r = X_OK;
    if (!cpu_protected(c))
        seg_set_real(c, seg, sel);
    else
        r = seg == X86_SEG_SS ? load_ss(c, sel) : seg_load_data(c, seg, sel, VEC_GP, 0);
    if (!r)
        cpu_update_mode(c);
    return r;
}

void seg_null_outer(struct cpu *c)
{
    static const uint8_t which[] = { X86_SEG_ES, X86_SEG_DS, X86_SEG_FS, X86_SEG_GS };
    for (unsigned i = 0; i < ARRAY_SIZE(which); i++) {
        struct seg *s = &c->seg[which[i]];
        const bool conforming = (s->attr & (DT_CODE | DT_CONFORMING)) == (DT_CODE | DT_CONFORMING);
        if (!(s->attr & SEG_ATTR_UNUSABLE) && !conforming && SEG_ATTR_DPL(s->attr) < c->cpl)
            *s = (struct seg){ .attr = SEG_ATTR_UNUSABLE, .base = s->base };     /* GS keeps its base */
        else if (s->attr & SEG_ATTR_UNUSABLE && sel_null(s->sel))
            s->sel = 0;
    }
}

void seg_set_cs(struct cpu *c, const struct seg *cs, unsigned cpl)
{
    c->seg[X86_SEG_CS] = *cs;
    c->seg[X86_SEG_CS].attr |= DT_ACCESSED;
    c->cpl = (uint8_t)cpl;
    cpu_update_mode(c);
}

/* ---- stacks ---- */

struct stack stack_make(struct seg ss, uint64_t sp, unsigned cpl, bool flat, uint32_t err)
{
    return (struct stack){ .ss = ss, .sp = sp, .cpl = cpl, .flat = flat, .err = err,
                           .mask = flat ? UINT64_MAX : ss.attr & SEG_ATTR_DB ? UINT32_MAX : 0xffff };
}

struct stack stack_present(struct cpu *c)
{
    return stack_make(c->seg[X86_SEG_SS], c->gpr[R_RSP], c->cpl, cpu_code64(c), 0);
}

static int stack_lin(struct cpu *c, const struct stack *k, uint64_t off, unsigned size, uint64_t *ret)
{
    if (k->flat) {
        if (!cpu_canonical(off) || !cpu_canonical(off + size - 1))
            return cpu_raise_err(c, VEC_SS, k->err);
        *ret = off;
        return X_OK;
    }
    const uint64_t last = off + size - 1;
    bool ok = !(k->ss.attr & SEG_ATTR_UNUSABLE);
    if ((k->ss.attr & (DT_CODE | DT_DOWN)) == DT_DOWN)
        ok = ok && off > k->ss.limit && last <= (k->ss.attr & SEG_ATTR_DB ? UINT32_MAX : 0xffff);
    else
        ok = ok && last <= k->ss.limit;
    if (!ok)
        return cpu_raise_err(c, VEC_SS, k->err);
    *ret = (uint32_t)(k->ss.base + off);
    return X_OK;
}

int stack_push(struct cpu *c, struct stack *k, unsigned size, uint64_t v)
{
    uint64_t off = (k->sp - size) & k->mask, lin;
    int r = stack_lin(c, k, off, size, &lin);
    if (!r)
        r = tlb_st_cpl(c, k->cpl, X86_SEG_SS, lin, size, v);
    if (!r)
        k->sp = (k->sp & ~k->mask) | off;
    return r;
}

int stack_pop(struct cpu *c, struct stack *k, unsigned size, uint64_t *ret)
{
    uint64_t off = k->sp & k->mask, lin;
    int r = stack_lin(c, k, off, size, &lin);
    if (!r)
        r = tlb_ld_cpl(c, k->cpl, X86_SEG_SS, lin, size, ret);
    if (!r)
        k->sp = (k->sp & ~k->mask) | ((off + size) & k->mask);
    return r;
}

void stack_commit(struct cpu *c, const struct stack *k)
{
    c->seg[X86_SEG_SS] = k->ss;
    c->gpr[R_RSP] = k->flat ? k->sp : (c->gpr[R_RSP] & ~k->mask) | (k->sp & k->mask);
    if (!k->flat && k->mask == UINT32_MAX)
        c->gpr[R_RSP] = (uint32_t)k->sp;
}

int tss_stack(struct cpu *c, unsigned n, uint32_t ext, uint16_t *ret_ss, uint64_t *ret_sp)
{
    const unsigned type = c->tr.attr & 15;
    const uint32_t err = SEL_ERR(c->tr.sel) | ext;
    uint64_t v, sp;
    int r;
    if (cpu_long(c)) {
        /* RSP0 at 4, IST1 at 36. */
        uint32_t off = n < 4 ? 4 + 8 * n : 36 + 8 * (n - 4);
        if (off + 7 > c->tr.limit)
            return cpu_raise_err(c, VEC_TS, err);
        r = cpu_sys_ld(c, c->tr.base + off, 8, &sp);
        if (r)
            return r;
        *ret_ss = 0;
        *ret_sp = sp;
        return X_OK;
    }
    if (type == DT_TSS || type == DT_TSS_BUSY) {
        uint32_t off = 4 + 8 * n;
        if (off + 5 > c->tr.limit)
            return cpu_raise_err(c, VEC_TS, err);
        r = cpu_sys_ld(c, (uint32_t)(c->tr.base + off), 4, &sp);
        if (!r)
            r = cpu_sys_ld(c, (uint32_t)(c->tr.base + off + 4), 2, &v);
    } else {
        uint32_t off = 2 + 4 * n;
        if (off + 3 > c->tr.limit)
            return cpu_raise_err(c, VEC_TS, err);
        r = cpu_sys_ld(c, (uint32_t)(c->tr.base + off), 2, &sp);
        if (!r)
            r = cpu_sys_ld(c, (uint32_t)(c->tr.base + off + 2), 2, &v);
    }
    if (r)
        return r;
    *ret_ss = (uint16_t)v;
    *ret_sp = sp;
    return X_OK;
}
