/*
 * Exceptions, interrupts and software interrupts: delivery through the IVT, 32-bit and
 * 64-bit IDTs. SDM volume 3, chapter 6; 20.1 for real mode.
 *
 * Nothing of the vCPU's registers changes before every check and push has succeeded, so a
 * fault on the way leaves the state of the first event for the second.
 */
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

struct event {
    unsigned vector;
    bool has_error;
    bool soft;                     /* INT n, INT3, INTO: gate DPL counts */
    bool set_rf;                   /* a fault: the instruction is restarted */
    uint32_t error;
    uint32_t ext;                  /* EXT bit for faults on the way: 1 but for software interrupts */
    uint64_t ret;                  /* RIP to push */
};

/* ---- raising ---- */

int cpu_raise(struct cpu *c, unsigned vector)
{
    c->exc = (struct exc){ .vector = (uint8_t)vector };
    return X_FAULT;
}

int cpu_raise_err(struct cpu *c, unsigned vector, uint32_t error)
{
    c->exc = (struct exc){ .vector = (uint8_t)vector, .has_error = true, .error = error };
    return X_FAULT;
}

int cpu_raise_pf(struct cpu *c, uint64_t va, uint32_t error)
{
    c->exc = (struct exc){ .vector = VEC_PF, .has_error = true, .error = error, .cr2 = va };
    return X_FAULT;
}

/* ---- delivery ---- */

static int deliver_real(struct cpu *c, const struct event *ev)
{
    const uint32_t off = ev->vector * 4;
    if (off + 3 > c->idt_limit)
        return cpu_raise_err(c, VEC_GP, ev->vector * 8 + 2);
    uint64_t entry;
    int r = cpu_sys_ld(c, (uint32_t)(c->idt_base + off), 4, &entry);
    struct stack k = stack_present(c);
    if (!r)
        r = stack_push(c, &k, 2, cpu_rflags(c) & 0xffff);
    if (!r)
        r = stack_push(c, &k, 2, c->seg[X86_SEG_CS].sel);
    if (!r)
        r = stack_push(c, &k, 2, ev->ret & 0xffff);
    if (r)
        return r;
    stack_commit(c, &k);
    cpu_set_rflags(c, 0, FL_IF | FL_TF | FL_AC | FL_RF);
    seg_set_real(c, X86_SEG_CS, (uint16_t)(entry >> 16));
    cpu_update_mode(c);
    c->next_rip = entry & 0xffff;
    return X_OK;
}

/* Read the gate of ev; wide: 16 bytes. SDM 6.12.1.2 for the soft interrupt's check. */
static int read_gate(struct cpu *c, const struct event *ev, bool wide, struct desc *g)
{
    const uint32_t err = ev->vector * 8 + 2 + ev->ext, off = ev->vector * (wide ? 16 : 8);
    if (off + (wide ? 15 : 7) > c->idt_limit)
        return cpu_raise_err(c, VEC_GP, err);
    g->hi = 0;
    g->addr = wide ? c->idt_base + off : (uint32_t)(c->idt_base + off);
    int r = cpu_sys_ld(c, g->addr, 8, &g->lo);
    if (!r && wide)
        r = cpu_sys_ld(c, g->addr + 8, 8, &g->hi);
    if (r)
        return r;
    const unsigned type = desc_type(g);
    const bool known = type == DT_INT || type == DT_TRAP ||
                       (!wide && (type == DT_TASK || type == DT_INT16 || type == DT_TRAP16));
    if (desc_s(g) || !known || (ev->soft && desc_dpl(g) < c->cpl))
        return cpu_raise_err(c, VEC_GP, err);
    if (!desc_p(g))
        return cpu_raise_err(c, VEC_NP, err);
    return X_OK;
}

/* The code segment a gate leads to and the CPL it runs at. */
static int gate_code(struct cpu *c, const struct event *ev, uint16_t sel, struct desc *d, unsigned *ret_cpl)
{
    if (sel_null(sel))
        return cpu_raise_err(c, VEC_GP, ev->ext);
    int r = desc_read(c, sel, false, VEC_GP, ev->ext, d);
    if (r)
        return r;
    if (!desc_is_code(d) || desc_dpl(d) > c->cpl || (cpu_long(c) && (!desc_l(d) || desc_db(d))))
        return cpu_raise_err(c, VEC_GP, SEL_ERR(sel) | ev->ext);
    if (!desc_p(d))
        return cpu_raise_err(c, VEC_NP, SEL_ERR(sel) | ev->ext);
    *ret_cpl = desc_type(d) & DT_CONFORMING ? c->cpl : desc_dpl(d);
    return desc_set_accessed(c, d);
}

static uint64_t pushed_flags(struct cpu *c, const struct event *ev)
{
    return cpu_rflags(c) | (ev->set_rf ? FL_RF : 0);
}

static void enter_handler(struct cpu *c, const struct stack *k, uint16_t sel, const struct desc *code, unsigned cpl,
                          unsigned gate_type, uint64_t rip)
{
    struct seg cs = desc_seg((uint16_t)((sel & ~3u) | cpl), code);
    stack_commit(c, k);
    cpu_set_rflags(c, 0, FL_TF | FL_NT | FL_RF | FL_VM | (gate_type & 1 ? 0 : FL_IF));
    seg_set_cs(c, &cs, cpl);
    c->next_rip = rip;
}

static int deliver_protected(struct cpu *c, const struct event *ev)
{
    struct desc g, code;
    unsigned cpl;
    int r = read_gate(c, ev, false, &g);
    if (r)
        return r;
    const unsigned type = desc_type(&g);
    const uint16_t sel = (uint16_t)(g.lo >> 16);
    if (type == DT_TASK) {
        const struct task_event te = { .why = TASK_INT, .ret = (uint32_t)ev->ret, .set_rf = ev->set_rf,
                                       .has_error = ev->has_error, .error = ev->error, .ext = ev->ext };
        return task_switch(c, sel, &te);
    }
    r = gate_code(c, ev, sel, &code, &cpl);
    if (r)
        return r;

    const bool vm = c->mode & MODE_VM, inner = cpl < c->cpl;
    const unsigned size = type == DT_INT16 || type == DT_TRAP16 ? 2 : 4;
    const uint64_t rip = size == 4 ? (g.lo & 0xffff) | (g.lo >> 32 & 0xffff0000) : g.lo & 0xffff;
    if (vm && cpl != 0)
        return cpu_raise_err(c, VEC_GP, SEL_ERR(sel) | ev->ext);
    struct stack k = stack_present(c);
    k.err = ev->ext;
    if (inner) {
        uint16_t ss;
        uint64_t sp;
        struct seg seg;
        r = tss_stack(c, cpl, ev->ext, &ss, &sp);
        if (!r)
            r = seg_check_ss(c, ss, cpl, VEC_TS, ev->ext, &seg);
        if (r)
            return r;
        k = stack_make(seg, sp, cpl, false, SEL_ERR(ss) | ev->ext);
        if (vm) {
            static const uint8_t order[] = { X86_SEG_GS, X86_SEG_FS, X86_SEG_DS, X86_SEG_ES };
            for (unsigned i = 0; !r && i < ARRAY_SIZE(order); i++)
                r = stack_push(c, &k, size, c->seg[order[i]].sel);
        }
        if (!r)
            r = stack_push(c, &k, size, c->seg[X86_SEG_SS].sel);
        if (!r)
            r = stack_push(c, &k, size, c->gpr[R_RSP]);
    }
    if (!r)
        r = stack_push(c, &k, size, pushed_flags(c, ev));
    if (!r)
        r = stack_push(c, &k, size, c->seg[X86_SEG_CS].sel);
    if (!r)
        r = stack_push(c, &k, size, ev->ret);
    if (!r && ev->has_error)
        r = stack_push(c, &k, size, ev->error);
    if (r)
        return r;
    if (rip > desc_seg(sel, &code).limit)
        return cpu_raise_err(c, VEC_GP, ev->ext);
    if (vm) {
        static const uint8_t data[] = { X86_SEG_ES, X86_SEG_DS, X86_SEG_FS, X86_SEG_GS };
        for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
            c->seg[data[i]] = (struct seg){ .attr = SEG_ATTR_UNUSABLE };
    }
    enter_handler(c, &k, sel, &code, cpl, type, rip);
    return X_OK;
}

/* SDM 6.14 */
static int deliver_long(struct cpu *c, const struct event *ev)
{
    struct desc g, code;
    unsigned cpl;
    int r = read_gate(c, ev, true, &g);
    const uint16_t sel = (uint16_t)(g.lo >> 16);
    if (!r)
        r = gate_code(c, ev, sel, &code, &cpl);
    if (r)
        return r;
    const uint64_t rip = (g.lo & 0xffff) | (g.lo >> 32 & 0xffff0000) | g.hi << 32;
    if (!cpu_canonical(rip))
        return cpu_raise_err(c, VEC_GP, ev->ext);

    const unsigned ist = g.lo >> 32 & 7;
    uint64_t sp = c->gpr[R_RSP];
    uint16_t unused;
    if (ist)
        r = tss_stack(c, 3 + ist, ev->ext, &unused, &sp);
    else if (cpl < c->cpl)
        r = tss_stack(c, cpl, ev->ext, &unused, &sp);
    if (r)
        return r;
    struct seg ss = cpl < c->cpl ? seg_null_ss(cpl) : c->seg[X86_SEG_SS];
    struct stack k = stack_make(ss, sp & ~15ull, cpl, true, ev->ext);
    const uint64_t frame[] = { c->seg[X86_SEG_SS].sel, c->gpr[R_RSP], pushed_flags(c, ev), c->seg[X86_SEG_CS].sel,
                               ev->ret, ev->error };
    for (unsigned i = 0; !r && i < (ev->has_error ? 6 : 5); i++)
        r = stack_push(c, &k, 8, frame[i]);
    if (r)
        return r;
    enter_handler(c, &k, sel, &code, cpl, desc_type(&g), rip);
    return X_OK;
}

static int deliver(struct cpu *c, const struct event *ev)
{
    int r = !(c->cr0 & CR0_PE) ? deliver_real(c, ev) : cpu_long(c) ? deliver_long(c, ev) : deliver_protected(c, ev);
    if (!r) {
        c->shadow = 0;
        c->halted = false;
    }
    return r;
}

/* ---- double and triple faults: SDM table 6-5 ---- */

enum klass { BENIGN, CONTRIBUTORY, PAGE };

static enum klass klass_of(unsigned vector)
{
    switch (vector) {
    case VEC_DE: case VEC_TS: case VEC_NP: case VEC_SS: case VEC_GP: return CONTRIBUTORY;
    case VEC_PF: return PAGE;
    default: return BENIGN;
    }
}

static struct event event_of(struct cpu *c, const struct exc *x)
{
    struct event ev = { .vector = x->vector, .has_error = x->has_error, .error = x->error, .ext = 1, .ret = c->rip,
                        .set_rf = x->vector != VEC_DB && !x->soft };
    if (x->vector == VEC_PF) {
        c->cr2 = x->cr2;
    } else if (x->vector == VEC_DB) {
        c->dr[7] &= ~DR7_GD;       /* the causes in DR6 are set by whoever raised it */
    }
    return ev;
}

/*
 * A task entered with T set in its TSS traps, which may enter another such task: benign for the table, and
 * without end if somebody clears the busy bits. Nothing else looks at this vCPU meanwhile, so the trap
 * is lost beyond so many; the switch before it is complete.
 */
#define TASK_TRAPS_MAX 16

/* Deliver ev, and what happens on the way. `first`: what kind of event it is for the table. */
static int deliver_event(struct cpu *c, struct event ev, enum klass first)
{
    for (unsigned benign = 0;;) {
        int r = deliver(c, &ev);
        if (r != X_OK && klass_of(c->exc.vector) == BENIGN && ++benign > TASK_TRAPS_MAX) {
            c->shadow = 0;
            c->halted = false;
            r = X_OK;
        }
        if (r == X_OK) {
            c->rip = c->next_rip;
            return X_OK;
        }
        struct exc second = c->exc;
        enum klass k = klass_of(second.vector);
        if (ev.vector == VEC_DF && !ev.soft && k != BENIGN) {
            c->leave = LEAVE_SHUTDOWN;
            return X_LEAVE;
        }
        bool dbl = (first == CONTRIBUTORY && k == CONTRIBUTORY) || (first == PAGE && k != BENIGN);
        if (second.vector == VEC_PF)
            c->cr2 = second.cr2;
        if (dbl) {
            ev = (struct event){ .vector = VEC_DF, .has_error = true, .ext = 1, .ret = c->rip };
            first = BENIGN;
        } else {
            ev = event_of(c, &second);
            first = k;
        }
    }
}

int cpu_deliver_exc(struct cpu *c)
{
    struct exc x = c->exc;
    vcpu_of(c)->exceptions++;
    struct event ev = event_of(c, &x);
    return deliver_event(c, ev, klass_of(x.vector));
}

int cpu_deliver_irq(struct cpu *c, unsigned vector)
{
    struct event ev = { .vector = vector, .ext = 1, .ret = c->rip };
    c->exits_irq++;
    int r = deliver_event(c, ev, BENIGN);
    if (r == X_OK && vector == VEC_NMI)
        c->nmi_blocked = true;
    return r;
}

int cpu_soft_int(struct cpu *c, unsigned vector, bool int3)
{
    if (c->mode & MODE_VM && !int3 && (c->rflags & FL_IOPL) != FL_IOPL)
        return cpu_raise_err(c, VEC_GP, 0);
    /* INT1 is an exception by its own opcode: no DPL check (SDM volume 2, INT). */
    const bool icebp = int3 && vector == VEC_DB;
    struct event ev = { .vector = vector, .soft = !icebp, .ext = icebp, .ret = c->next_rip };
    return deliver(c, &ev);
}
