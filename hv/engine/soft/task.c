/*
 * Hardware task switches between 32-bit and 16-bit TSSs. SDM volume 3, chapter 7; what
 * happens in which order is 7.3.
 *
 * Up to the commit point nothing but memory of the old TSS has changed. From there on the
 * new task is the present one, with selectors whose descriptors are then loaded one after
 * the other: a bad one is a fault of the new task.
 */
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

#define DR6_BT 0x8000ull

/* The fields of a TSS, by offset. 7.2.1, 7.6. */
struct layout {
    uint8_t min_limit, size;       /* size of EIP and general registers */
    uint8_t eip, eflags, gpr, seg, seg_step, segs, ldt;
};
static const struct layout layout32 = { 0x67, 4, 32, 36, 40, 72, 4, 6, 96 };
static const struct layout layout16 = { 0x2b, 2, 14, 16, 18, 34, 2, 4, 42 };

/* Order of the selectors in a TSS. */
static const uint8_t seg_order[] = { X86_SEG_ES, X86_SEG_CS, X86_SEG_SS, X86_SEG_DS, X86_SEG_FS, X86_SEG_GS };

struct task {
    uint64_t cr3, eip, eflags, gpr[8], sel[6], ldt;
    bool trap;
};

static bool is_tss16(unsigned type)
{
    return type == DT_TSS16 || type == DT_TSS16_BUSY;
}

static uint64_t at(uint64_t base, unsigned off)
{
    return (uint32_t)(base + off);
}

/* The TSS descriptor of sel, checked for `why`. */
static int read_target(struct cpu *c, uint16_t sel, const struct task_event *ev, struct desc *d)
{
    const bool back = ev->why == TASK_IRET;
    const unsigned vector = back ? VEC_TS : VEC_GP;
    const uint32_t err = SEL_ERR(sel) | ev->ext;
    if (sel_null(sel) || sel & 4)
        return cpu_raise_err(c, vector, err);
    int r = desc_read(c, sel, false, vector, ev->ext, d);
    if (r)
        return r;
    const unsigned type = desc_type(d);
    const bool ok = back ? type == DT_TSS_BUSY || type == DT_TSS16_BUSY : type == DT_TSS || type == DT_TSS16;
    if (desc_s(d) || !ok)
        return cpu_raise_err(c, vector, err);
    if (!desc_p(d))
        return cpu_raise_err(c, VEC_NP, err);
    if (desc_seg(sel, d).limit < (is_tss16(type) ? layout16 : layout32).min_limit)
        return cpu_raise_err(c, VEC_TS, err);
    return X_OK;
}

static int save_old(struct cpu *c, const struct layout *l, const struct task_event *ev)
{
    uint64_t flags = cpu_rflags(c) | (ev->set_rf ? FL_RF : 0);
    if (ev->why == TASK_IRET)
        flags &= ~FL_NT;
    int r = cpu_sys_st(c, at(c->tr.base, l->eip), l->size, ev->ret);
    if (!r)
        r = cpu_sys_st(c, at(c->tr.base, l->eflags), l->size, flags);
    for (unsigned i = 0; !r && i < 8; i++)
        r = cpu_sys_st(c, at(c->tr.base, l->gpr + i * l->size), l->size, c->gpr[i]);
    for (unsigned i = 0; !r && i < l->segs; i++)
        r = cpu_sys_st(c, at(c->tr.base, l->seg + i * l->seg_step), 2, c->seg[seg_order[i]].sel);
    return r;
}

static int read_new(struct cpu *c, uint64_t base, const struct layout *l, struct task *t)
{
    uint64_t trap = 0;
    *t = (struct task){ .cr3 = c->cr3 };
    int r = cpu_sys_ld(c, at(base, l->eip), l->size, &t->eip);
    if (!r)
        r = cpu_sys_ld(c, at(base, l->eflags), l->size, &t->eflags);
    for (unsigned i = 0; !r && i < 8; i++)
        r = cpu_sys_ld(c, at(base, l->gpr + i * l->size), l->size, &t->gpr[i]);
    for (unsigned i = 0; !r && i < l->segs; i++)
        r = cpu_sys_ld(c, at(base, l->seg + i * l->seg_step), 2, &t->sel[i]);
    if (!r)
        r = cpu_sys_ld(c, at(base, l->ldt), 2, &t->ldt);
    if (!r && l == &layout32) {
        r = cpu_sys_ld(c, at(base, 28), 4, &t->cr3);
        if (!r)
            r = cpu_sys_ld(c, at(base, 100), 2, &trap);
    }
    if (l == &layout16) {          /* upper halves: all ones on the CPUs that wrote any */
        for (unsigned i = 0; i < 8; i++)
            t->gpr[i] |= 0xffff0000;
    }
    t->trap = trap & 1;
    return r;
}

static int set_busy(struct cpu *c, uint64_t desc, bool busy)
{
    uint64_t v;
    int r = cpu_sys_ld(c, at(desc, 5), 1, &v);
    return r ? r : cpu_sys_st(c, at(desc, 5), 1, busy ? v | 2 : v & ~2ull);
}

/* ---- the new task's segments: faults are its own ---- */

static int load_ldt(struct cpu *c, uint16_t sel, uint32_t ext)
{
    c->ldtr = (struct seg){ .sel = sel, .attr = SEG_ATTR_UNUSABLE };
    if (sel_null(sel))
        return X_OK;
    struct desc d;
    if (sel & 4)
        return cpu_raise_err(c, VEC_TS, SEL_ERR(sel) | ext);
    int r = desc_read(c, sel, false, VEC_TS, ext, &d);
    if (r)
        return r;
    if (desc_s(&d) || desc_type(&d) != DT_LDT || !desc_p(&d))
        return cpu_raise_err(c, VEC_TS, SEL_ERR(sel) | ext);
    c->ldtr = desc_seg(sel, &d);
    return X_OK;
}

static int load_cs(struct cpu *c, uint16_t sel, uint32_t ext)
{
    if (sel_null(sel))
        return cpu_raise_err(c, VEC_TS, ext);
    struct desc d;
    int r = desc_read(c, sel, false, VEC_TS, ext, &d);
    if (r)
        return r;
    const unsigned rpl = sel & 3;
    if (!desc_is_code(&d) || (desc_type(&d) & DT_CONFORMING ? desc_dpl(&d) > rpl : desc_dpl(&d) != rpl))
        return cpu_raise_err(c, VEC_TS, SEL_ERR(sel) | ext);
    if (!desc_p(&d))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(sel) | ext);
    r = desc_set_accessed(c, &d);
    if (r)
        return r;
    struct seg cs = desc_seg(sel, &d);
    seg_set_cs(c, &cs, rpl);
    return X_OK;
}

static int load_segments(struct cpu *c, const struct task *t, uint32_t ext)
{
    if (t->eflags & FL_VM) {
        c->cpl = 3;
        cpu_update_mode(c);
        for (unsigned i = 0; i < ARRAY_SIZE(seg_order); i++)
            seg_set_real(c, seg_order[i], (uint16_t)t->sel[i]);
        cpu_update_mode(c);
        return load_ldt(c, (uint16_t)t->ldt, ext);
    }
    int r = load_ldt(c, (uint16_t)t->ldt, ext);
    struct seg ss;
    if (!r)
        r = load_cs(c, (uint16_t)t->sel[1], ext);
    if (!r)
        r = seg_check_ss(c, (uint16_t)t->sel[2], c->cpl, VEC_TS, ext, &ss);
    if (r)
        return r;
    c->seg[X86_SEG_SS] = ss;
    for (unsigned i = 0; !r && i < ARRAY_SIZE(seg_order); i++)
        if (seg_order[i] != X86_SEG_CS && seg_order[i] != X86_SEG_SS)
            r = seg_load_data(c, seg_order[i], (uint16_t)t->sel[i], VEC_TS, ext);
    cpu_update_mode(c);
    return r;
}

int task_switch(struct cpu *c, uint16_t sel, const struct task_event *ev)
{
    struct desc d;
    struct task t;
    uint64_t link;
    int r = X_OK;
    if (ev->why == TASK_IRET) {
        r = cpu_sys_ld(c, (uint32_t)c->tr.base, 2, &link);
        sel = (uint16_t)link;
    }
    if (!r)
        r = read_target(c, sel, ev, &d);
    if (r)
        return r;
    const struct layout *from = is_tss16(c->tr.attr & 15) ? &layout16 : &layout32,
                        *to = is_tss16(desc_type(&d)) ? &layout16 : &layout32;
    const struct seg tss = desc_seg(sel, &d);
    const uint16_t old = c->tr.sel;
    if (c->tr.limit < from->min_limit)
        return cpu_raise_err(c, VEC_TS, SEL_ERR(old) | ev->ext);
    r = save_old(c, from, ev);
    if (!r)
        r = read_new(c, tss.base, to, &t);
    if (!r && (ev->why == TASK_JMP || ev->why == TASK_IRET))
        r = set_busy(c, at(c->gdt_base, old & 0xfff8u), false);
    if (!r && ev->why != TASK_IRET)
        r = set_busy(c, d.addr, true);
    if (!r && (ev->why == TASK_CALL || ev->why == TASK_INT))
        r = cpu_sys_st(c, (uint32_t)tss.base, 2, old);
    if (r)
        return r;

    /* Commit. */
    c->tr = tss;
    c->tr.attr |= 2;
    c->cr0 |= CR0_TS;
    if (ev->why == TASK_CALL || ev->why == TASK_INT)
        t.eflags |= FL_NT;
    memcpy(c->gpr, t.gpr, sizeof(t.gpr));
    c->rip = c->next_rip = t.eip;
    for (unsigned i = 0; i < ARRAY_SIZE(seg_order); i++)
        c->seg[seg_order[i]] = (struct seg){ .sel = (uint16_t)t.sel[i], .attr = SEG_ATTR_UNUSABLE };
    cpu_set_rflags(c, (t.eflags & RFLAGS_VALID) | 2, UINT64_MAX);
    if (c->cr0 & CR0_PG && to == &layout32 && t.cr3 != c->cr3)
        r = cpu_set_cr3(c, t.cr3);
    if (!r)
        r = load_segments(c, &t, ev->ext);
    if (!r && c->next_rip > c->seg[X86_SEG_CS].limit)
        r = cpu_raise_err(c, VEC_GP, 0);
    if (!r && ev->has_error) {
        struct stack k = stack_present(c);
        k.err = ev->ext;
        r = stack_push(c, &k, to->size, ev->error);
        if (!r)
            stack_commit(c, &k);
    }
    if (!r && t.trap) {
        c->dr[6] |= DR6_BT;
        r = cpu_raise(c, VEC_DB);
    }
    return r;
}
