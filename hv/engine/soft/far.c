/*
 * Far transfers: JMP, CALL, RET and IRET across segments, call gates of 16, 32 and 64 bits.
 * SDM volume 2, those pages; volume 3, 5.8 (privilege), 20.2 (virtual-8086 mode).
 */
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

static uint64_t size_mask(unsigned size)
{
    return size == 8 ? UINT64_MAX : (1ull << 8 * size) - 1;
}

/* The far pointer of a JMP or CALL. */
static int far_pointer(struct cpu *c, const struct x86_insn *in, uint16_t *ret_sel, uint64_t *ret_off)
{
    if (in->opnd[0].kind != X86_OPND_MEM) {
        *ret_off = in->imm & size_mask(in->opsize);
        *ret_sel = in->imm2;
        return X_OK;
    }
    uint64_t lin, off, sel;
    uint8_t buf[10] = {0};
    int r = cpu_mem_lin(c, in, in->opsize + 2u, ACC_READ, &lin);
    if (!r)
        r = cpu_ld_bytes(c, in->seg, lin, buf, in->opsize + 2u);
    if (r)
        return r;
    memcpy(&off, buf, 8);
    off &= size_mask(in->opsize);
    sel = buf[in->opsize] | (uint64_t)buf[in->opsize + 1] << 8;
    *ret_off = off;
    *ret_sel = (uint16_t)sel;
    return X_OK;
}

/* Is off inside the code segment d leads to (canonical in 64-bit mode)? Else #GP(0). */
static int check_target(struct cpu *c, const struct desc *d, uint64_t *off)
{
    if (cpu_long(c) && desc_l(d)) {
        if (!cpu_canonical(*off))
            return cpu_raise_err(c, VEC_GP, 0);
        return X_OK;
    }
    *off = (uint32_t)*off;
    if (*off > desc_seg(0, d).limit)
        return cpu_raise_err(c, VEC_GP, 0);
    return X_OK;
}

/* L and D both set mean nothing: #GP. */
static bool bad_long_code(struct cpu *c, const struct desc *d)
{
    return cpu_long(c) && desc_l(d) && desc_db(d);
}

static void enter_code(struct cpu *c, uint16_t sel, const struct desc *d, unsigned cpl, uint64_t off)
{
    struct seg cs = desc_seg((uint16_t)((sel & ~3u) | cpl), d);
    seg_set_cs(c, &cs, cpl);
    c->next_rip = off;
}

static int jump_real(struct cpu *c, uint16_t sel, uint64_t off)
{
    /* In real mode the limit is checked too: unreal code segments have the one they got. */
    if (off > c->seg[X86_SEG_CS].limit)
        return cpu_raise_err(c, VEC_GP, 0);
    seg_set_real(c, X86_SEG_CS, sel);
    cpu_update_mode(c);
    c->next_rip = off;
    return X_OK;
}

/* A direct far transfer to the code segment d at the present CPL. */
static int check_direct(struct cpu *c, uint16_t sel, const struct desc *d)
{
    const unsigned rpl = sel & 3;
    bool ok = desc_is_code(d) && !bad_long_code(c, d);
    if (ok)
        ok = desc_type(d) & DT_CONFORMING ? desc_dpl(d) <= c->cpl : rpl <= c->cpl && desc_dpl(d) == c->cpl;
    if (!ok)
        return cpu_raise_err(c, VEC_GP, SEL_ERR(sel));
    if (!desc_p(d))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(sel));
    return desc_set_accessed(c, d);
}

struct gate { uint16_t sel; uint64_t off; unsigned size, params; };

/* Check the call gate g itself and read where it leads. */
static int open_gate(struct cpu *c, uint16_t gsel, struct desc *g, struct gate *ret, struct desc *code)
{
    const bool lm = cpu_long(c);
    if (desc_dpl(g) < c->cpl || desc_dpl(g) < (gsel & 3u))
        return cpu_raise_err(c, VEC_GP, SEL_ERR(gsel));
    if (!desc_p(g))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(gsel));
    if (lm) {
        int r = desc_read(c, gsel, true, VEC_GP, 0, g);
        if (r)
            return r;
        if (g->hi >> 40 & 0x1f)
            return cpu_raise_err(c, VEC_GP, SEL_ERR(gsel));
    }
    const bool wide = desc_type(g) == DT_CALL;
    *ret = (struct gate){ .sel = (uint16_t)(g->lo >> 16), .size = lm ? 8 : wide ? 4 : 2,
                          .params = lm ? 0 : g->lo >> 32 & 31 };
    ret->off = (g->lo & 0xffff) | (wide ? g->lo >> 32 & 0xffff0000 : 0) | g->hi << 32;
    if (sel_null(ret->sel))
        return cpu_raise_err(c, VEC_GP, 0);
    int r = desc_read(c, ret->sel, false, VEC_GP, 0, code);
    if (r)
        return r;
    if (!desc_is_code(code) || desc_dpl(code) > c->cpl || (lm && (!desc_l(code) || desc_db(code))))
        return cpu_raise_err(c, VEC_GP, SEL_ERR(ret->sel));
    if (!desc_p(code))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(ret->sel));
    return desc_set_accessed(c, code);
}

static bool is_call_gate(struct cpu *c, const struct desc *d)
{
    return !desc_s(d) && (desc_type(d) == DT_CALL || (!cpu_long(c) && desc_type(d) == DT_CALL16));
}

/* TSS descriptors and task gates: JMP and CALL switch tasks. SDM volume 3, 7.3. */
static int far_task(struct cpu *c, uint16_t sel, const struct desc *d, enum task_why why)
{
    const unsigned type = desc_type(d);
    if (desc_s(d) || cpu_long(c) || (type != DT_TASK && type != DT_TSS && type != DT_TSS16) ||
        desc_dpl(d) < c->cpl || desc_dpl(d) < (sel & 3u))
        return cpu_raise_err(c, VEC_GP, SEL_ERR(sel));
    if (!desc_p(d))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(sel));
    const struct task_event te = { .why = why, .ret = (uint32_t)c->next_rip };
    return task_switch(c, type == DT_TASK ? (uint16_t)(d->lo >> 16) : sel, &te);
}

int op_jmp_far(struct cpu *c, const struct x86_insn *in)
{
    uint16_t sel;
    uint64_t off;
    int r = far_pointer(c, in, &sel, &off);
    if (r)
        return r;
    if (!cpu_protected(c))
        return jump_real(c, sel, off);
    if (sel_null(sel))
        return cpu_raise_err(c, VEC_GP, 0);
    struct desc d, code;
    r = desc_read(c, sel, false, VEC_GP, 0, &d);
    if (r)
        return r;
    if (desc_s(&d)) {
        r = check_direct(c, sel, &d);
        if (!r)
            r = check_target(c, &d, &off);
        if (!r)
            enter_code(c, sel, &d, c->cpl, off);
        return r;
    }
    if (!is_call_gate(c, &d))
        return far_task(c, sel, &d, TASK_JMP);
    struct gate g;
    r = open_gate(c, sel, &d, &g, &code);
    if (r)
        return r;
    /* A JMP cannot change the CPL. */
    if (!(desc_type(&code) & DT_CONFORMING) && desc_dpl(&code) != c->cpl)
        return cpu_raise_err(c, VEC_GP, SEL_ERR(g.sel));
    r = check_target(c, &code, &g.off);
    if (!r)
        enter_code(c, g.sel, &code, c->cpl, g.off);
    return r;
}

static int push_return(struct cpu *c, struct stack *k, unsigned size)
{
    int r = stack_push(c, k, size, c->seg[X86_SEG_CS].sel);
    return r ? r : stack_push(c, k, size, c->next_rip);
}

/* CALL through a gate to a more privileged level: a stack from the TSS, parameters copied. */
static int call_inner(struct cpu *c, struct gate *g, const struct desc *code)
{
    const unsigned cpl = desc_dpl(code);
    const bool lm = cpu_long(c);
    struct stack old = stack_present(c), k;
    uint64_t params[32], sp;
    uint16_t ss;
    int r = tss_stack(c, cpl, 0, &ss, &sp);
    if (r)
        return r;
    if (lm) {
        k = stack_make(seg_null_ss(cpl), sp, cpl, true, 0);
    } else {
        struct seg seg;
        r = seg_check_ss(c, ss, cpl, VEC_TS, 0, &seg);
        if (r)
            return r;
        k = stack_make(seg, sp, cpl, false, SEL_ERR(ss));
    }
    for (unsigned i = 0; !r && i < g->params; i++)
        r = stack_pop(c, &old, g->size, &params[i]);
    if (!r)
        r = stack_push(c, &k, g->size, c->seg[X86_SEG_SS].sel);
    if (!r)
        r = stack_push(c, &k, g->size, c->gpr[R_RSP]);
    for (unsigned i = g->params; !r && i > 0; i--)
        r = stack_push(c, &k, g->size, params[i - 1]);
    if (!r)
        r = push_return(c, &k, g->size);
    if (!r)
        r = check_target(c, code, &g->off);
    if (r)
        return r;
    stack_commit(c, &k);
    enter_code(c, g->sel, code, cpl, g->off);
    return X_OK;
}

int op_call_far(struct cpu *c, const struct x86_insn *in)
{
    uint16_t sel;
    uint64_t off;
    int r = far_pointer(c, in, &sel, &off);
    if (r)
        return r;
    struct stack k = stack_present(c);
    if (!cpu_protected(c)) {
        r = push_return(c, &k, in->opsize);
        if (!r)
            r = jump_real(c, sel, off);
        if (!r)
            stack_commit(c, &k);
        return r;
    }
    if (sel_null(sel))
        return cpu_raise_err(c, VEC_GP, 0);
    struct desc d, code;
    r = desc_read(c, sel, false, VEC_GP, 0, &d);
    if (r)
        return r;
    struct gate g = { .sel = sel, .off = off, .size = in->opsize };
    if (desc_s(&d)) {
        r = check_direct(c, sel, &d);
        code = d;
    } else if (is_call_gate(c, &d)) {
        r = open_gate(c, sel, &d, &g, &code);
        if (!r && !(desc_type(&code) & DT_CONFORMING) && desc_dpl(&code) < c->cpl)
            return call_inner(c, &g, &code);
    } else {
        return far_task(c, sel, &d, TASK_CALL);
    }
    if (!r)
        r = push_return(c, &k, g.size);
    if (!r)
        r = check_target(c, &code, &g.off);
    if (r)
        return r;
    stack_commit(c, &k);
    enter_code(c, g.sel, &code, c->cpl, g.off);
    return X_OK;
}

/* ---- returns ---- */

/* The code segment a RET or IRET goes to: RPL is the new CPL, never more privileged. */
static int check_return(struct cpu *c, uint16_t sel, uint64_t *off, struct desc *d)
{
    if (sel_null(sel))
        return cpu_raise_err(c, VEC_GP, 0);
    int r = desc_read(c, sel, false, VEC_GP, 0, d);
    if (r)
        return r;
    const unsigned rpl = sel & 3;
    bool ok = desc_is_code(d) && !bad_long_code(c, d) && rpl >= c->cpl;
    if (ok)
        ok = desc_type(d) & DT_CONFORMING ? desc_dpl(d) <= rpl : desc_dpl(d) == rpl;
    if (!ok)
        return cpu_raise_err(c, VEC_GP, SEL_ERR(sel));
    if (!desc_p(d))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(sel));
    r = desc_set_accessed(c, d);
    return r ? r : check_target(c, d, off);
}

/* SS for a return to privilege cpl; code64: the target is 64-bit code. */
static int check_return_ss(struct cpu *c, uint16_t ss, unsigned cpl, bool code64, struct seg *ret)
{
    if (sel_null(ss) && code64 && cpl < 3 && (ss & 3u) == cpl) {
        *ret = seg_null_ss(cpl);
        ret->sel = ss;
        return X_OK;
    }
    return seg_check_ss(c, ss, cpl, VEC_GP, 0, ret);
}

static void commit_return(struct cpu *c, uint16_t sel, const struct desc *d, uint64_t rip, const struct stack *k)
{
    const unsigned cpl = sel & 3;
    const bool outer = cpl > c->cpl;
    stack_commit(c, k);
    enter_code(c, sel, d, cpl, rip);
    if (outer)
        seg_null_outer(c);
}

int op_ret_far(struct cpu *c, const struct x86_insn *in)
{
    const unsigned size = in->opsize;
    const uint64_t release = in->nopnd && in->opnd[0].kind == X86_OPND_IMM ? in->imm & 0xffff : 0;
    struct stack k = stack_present(c);
    uint64_t rip, sel, sp, ss;
    int r = stack_pop(c, &k, size, &rip);
    if (!r)
        r = stack_pop(c, &k, size, &sel);
    if (r)
        return r;
    sel &= 0xffff;
    if (!cpu_protected(c)) {
        r = jump_real(c, (uint16_t)sel, rip);
        if (!r) {
            k.sp = (k.sp & ~k.mask) | ((k.sp + release) & k.mask);
            stack_commit(c, &k);
        }
        return r;
    }
    struct desc d;
    r = check_return(c, (uint16_t)sel, &rip, &d);
    if (r)
        return r;
    k.sp = (k.sp & ~k.mask) | ((k.sp + release) & k.mask);
    const unsigned cpl = sel & 3;
    const bool code64 = cpu_long(c) && desc_l(&d);
    if (cpl > c->cpl) {
        struct seg seg;
        r = stack_pop(c, &k, size, &sp);
        if (!r)
            r = stack_pop(c, &k, size, &ss);
        if (!r)
            r = check_return_ss(c, (uint16_t)ss, cpl, code64, &seg);
        if (r)
            return r;
        k = stack_make(seg, sp, cpl, code64, 0);
        k.sp = (k.sp & ~k.mask) | ((k.sp + release) & k.mask);
    }
    commit_return(c, (uint16_t)sel, &d, rip, &k);
    return X_OK;
}

/* ---- IRET ---- */

/* Which flags IRET may change at this privilege. */
static uint64_t iret_mask(const struct cpu *c, unsigned size)
{
    uint64_t m = FL_ARITH | FL_TF | FL_DF | FL_NT;
    const unsigned iopl = c->rflags >> 12 & 3;
    if (size >= 4)
        m |= FL_RF | FL_AC | FL_ID;
    if (c->cpl <= iopl)
        m |= FL_IF;
    if (c->cpl == 0) {
        m |= FL_IOPL;
        if (size >= 4)
            m |= FL_VIF | FL_VIP;
    }
    return m;
}

static int iret_real(struct cpu *c, unsigned size)
{
    struct stack k = stack_present(c);
    uint64_t rip, sel, flags;
    int r = stack_pop(c, &k, size, &rip);
    if (!r)
        r = stack_pop(c, &k, size, &sel);
    if (!r)
        r = stack_pop(c, &k, size, &flags);
    if (!r)
        r = jump_real(c, (uint16_t)sel, rip);
    if (r)
        return r;
    stack_commit(c, &k);
    uint64_t mask = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_NT | (size >= 4 ? FL_RF | FL_AC | FL_ID : 0);
    cpu_set_rflags(c, flags, mask | (c->mode & MODE_VM ? 0 : FL_IOPL));
    return X_OK;
}

/* From CPL 0 to virtual-8086 mode. */
static int iret_to_v86(struct cpu *c, struct stack *k, uint64_t rip, uint16_t cs, uint64_t flags)
{
    static const uint8_t order[] = { X86_SEG_SS, X86_SEG_ES, X86_SEG_DS, X86_SEG_FS, X86_SEG_GS };
    uint64_t sp, sel[ARRAY_SIZE(order)];
    int r = stack_pop(c, k, 4, &sp);
    for (unsigned i = 0; !r && i < ARRAY_SIZE(order); i++)
        r = stack_pop(c, k, 4, &sel[i]);
    if (r)
        return r;
    if ((rip & UINT32_MAX) > 0xffff)
        return cpu_raise_err(c, VEC_GP, 0);
    c->cpl = 3;
    cpu_set_rflags(c, flags, FL_ARITH | FL_TF | FL_IF | FL_DF | FL_NT | FL_RF | FL_AC | FL_ID | FL_IOPL | FL_VM |
                             FL_VIF | FL_VIP);
    cpu_update_mode(c);
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        seg_set_real(c, order[i], (uint16_t)sel[i]);
    seg_set_real(c, X86_SEG_CS, cs);
    c->gpr[R_RSP] = (uint32_t)sp;
    cpu_update_mode(c);
    c->next_rip = rip & 0xffff;
    return X_OK;
}

static int iret_protected(struct cpu *c, unsigned size)
{
    if (c->rflags & FL_NT) {
        if (cpu_long(c))
            return cpu_raise_err(c, VEC_GP, 0);
        const struct task_event te = { .why = TASK_IRET, .ret = (uint32_t)c->next_rip };
        return task_switch(c, 0, &te);
    }
    struct stack k = stack_present(c);
    uint64_t rip, sel, flags, sp, ss;
    int r = stack_pop(c, &k, size, &rip);
    if (!r)
        r = stack_pop(c, &k, size, &sel);
    if (!r)
        r = stack_pop(c, &k, size, &flags);
    if (r)
        return r;
    sel &= 0xffff;
    if (flags & FL_VM && size == 4 && c->cpl == 0 && !cpu_long(c))
        return iret_to_v86(c, &k, rip, (uint16_t)sel, flags);

    struct desc d;
    r = check_return(c, (uint16_t)sel, &rip, &d);
    if (r)
        return r;
    const unsigned cpl = sel & 3;
    const bool code64 = cpu_long(c) && desc_l(&d);
    if (cpl > c->cpl || cpu_code64(c)) {
        struct seg seg;
        r = stack_pop(c, &k, size, &sp);
        if (!r)
            r = stack_pop(c, &k, size, &ss);
        if (!r)
            r = check_return_ss(c, (uint16_t)ss, cpl, code64, &seg);
        if (r)
            return r;
        k = stack_make(seg, sp, cpl, code64, 0);
    }
    const uint64_t mask = iret_mask(c, size);
    commit_return(c, (uint16_t)sel, &d, rip, &k);
    cpu_set_rflags(c, flags, mask);
    return X_OK;
}

int op_iret(struct cpu *c, const struct x86_insn *in)
{
    int r;
    if (c->mode & MODE_VM && (c->rflags & FL_IOPL) != FL_IOPL)
        r = cpu_raise_err(c, VEC_GP, 0);
    else
        r = cpu_protected(c) ? iret_protected(c, in->opsize) : iret_real(c, in->opsize);
    if (r == X_OK && c->nmi_blocked) {
        c->nmi_blocked = false;
        if (c->nmi_pending)
            atomic_fetch_or(&c->attention, ATT_NMI);
    }
    return r;
}
