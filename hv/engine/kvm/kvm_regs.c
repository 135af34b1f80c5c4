/*
 * struct vcpu_regs to and from the kernel's structs, and the MP state.
 */
#include <errno.h>

#include "hv/engine/kvm/kvm.h"

static struct vcpu_seg seg_out(const struct kvm_segment *s)
{
    return (struct vcpu_seg){
        .base = s->base, .limit = s->limit, .sel = s->selector,
        .attr = s->type | (uint32_t)s->s << 4 | (uint32_t)s->dpl << 5 | (uint32_t)s->present << 7 |
                (uint32_t)s->avl << 12 | (uint32_t)s->l << 13 | (uint32_t)s->db << 14 | (uint32_t)s->g << 15 |
                (uint32_t)s->unusable << 16,
    };
}

static struct kvm_segment seg_in(const struct vcpu_seg *s)
{
    return (struct kvm_segment){
        .base = s->base, .limit = s->limit, .selector = s->sel, .type = s->attr & 15, .s = s->attr >> 4 & 1,
        .dpl = s->attr >> 5 & 3, .present = s->attr >> 7 & 1, .avl = s->attr >> 12 & 1, .l = s->attr >> 13 & 1,
        .db = s->attr >> 14 & 1, .g = s->attr >> 15 & 1, .unusable = s->attr >> 16 & 1,
    };
}

/* gpr[n] of struct vcpu_regs lives here in struct kvm_regs. */
static const uint16_t gpr_at[16] = {
#define AT(f) offsetof(struct kvm_regs, f)
    AT(rax), AT(rcx), AT(rdx), AT(rbx), AT(rsp), AT(rbp), AT(rsi), AT(rdi),
    AT(r8), AT(r9), AT(r10), AT(r11), AT(r12), AT(r13), AT(r14), AT(r15),
};
/* seg[n], ES CS SS DS FS GS. */
static const uint16_t seg_at[6] = {
#undef AT
#define AT(f) offsetof(struct kvm_sregs, f)
    AT(es), AT(cs), AT(ss), AT(ds), AT(fs), AT(gs),
#undef AT
};

/* ---- of a hypercall: read when it was completed (kvm_run.c), written with the next KVM_RUN ---- */

int kvm_call_get(struct vcpu *v, struct vcpu_call *ret)
{
    hv_assert(kvm_is_mine(v));
    for (unsigned i = 0; i < 16; i++)
        memcpy(&ret->gpr[i], (const uint8_t *)&v->call + gpr_at[i], 8);
    ret->long_mode = v->call_long;
    return 0;
}

int kvm_call_set(struct vcpu *v, const struct vcpu_call *call)
{
    hv_assert(kvm_is_mine(v));
    for (unsigned i = 0; i < 16; i++)
        memcpy((uint8_t *)&v->call + gpr_at[i], &call->gpr[i], 8);
    if (!v->kvm->sync_regs)
        return kvm_ioctl(v->fd, KVM_SET_REGS, &v->call);
    v->run->s.regs.regs = v->call;
    v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
    return 0;
}

/* Registers that only the next KVM_RUN would set. No run ends without one. */
static int settle(struct vcpu *v)
{
    int r = v->run->kvm_dirty_regs ? kvm_ioctl(v->fd, KVM_SET_REGS, &v->call) : 0;
    v->run->kvm_dirty_regs = 0;
    return r;
}

int kvm_regs_get(struct vcpu *v, struct vcpu_regs *ret)
{
    struct kvm_regs r = { 0 };
    struct kvm_sregs s = { 0 };
    struct kvm_debugregs d = { 0 };
    struct kvm_xcrs x = { 0 };
    hv_assert(kvm_is_mine(v));
    int err = settle(v);
    if (err == 0)
        err = kvm_ioctl(v->fd, KVM_GET_REGS, &r);
    if (err == 0)
        err = kvm_ioctl(v->fd, KVM_GET_SREGS, &s);
    if (err == 0)
        err = kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &d);
    if (err == 0)
        err = kvm_ioctl(v->fd, KVM_GET_XCRS, &x);
    if (err < 0)
        return err;
    *ret = (struct vcpu_regs){
        .rip = r.rip, .rflags = r.rflags, .ldtr = seg_out(&s.ldt), .tr = seg_out(&s.tr),
        .gdt_base = s.gdt.base, .gdt_limit = s.gdt.limit, .idt_base = s.idt.base, .idt_limit = s.idt.limit,
        .cr0 = s.cr0, .cr2 = s.cr2, .cr3 = s.cr3, .cr4 = s.cr4, .cr8 = s.cr8, .efer = s.efer,
        .xcr0 = x.nr_xcrs ? x.xcrs[0].value : 1,
        .dr = { d.db[0], d.db[1], d.db[2], d.db[3], 0, 0, d.dr6, d.dr7 },
    };
    for (unsigned i = 0; i < 16; i++)
        memcpy(&ret->gpr[i], (const uint8_t *)&r + gpr_at[i], 8);
    for (unsigned i = 0; i < 6; i++)
        ret->seg[i] = seg_out((const void *)((const uint8_t *)&s + seg_at[i]));
    return 0;
}

int kvm_regs_set(struct vcpu *v, const struct vcpu_regs *g)
{
    struct kvm_regs r = { .rip = g->rip, .rflags = g->rflags };
    struct kvm_sregs s = { 0 };
    struct kvm_debugregs d = { .dr6 = g->dr[6], .dr7 = g->dr[7] };
    struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = g->xcr0 } };
    hv_assert(kvm_is_mine(v));
    v->run->kvm_dirty_regs = 0;
    int err = kvm_ioctl(v->fd, KVM_GET_SREGS, &s);      /* APIC base and what is being injected stay */
    if (err < 0)
        return err;
    for (unsigned i = 0; i < 16; i++)
        memcpy((uint8_t *)&r + gpr_at[i], &g->gpr[i], 8);
    for (unsigned i = 0; i < 6; i++) {
        struct kvm_segment seg = seg_in(&g->seg[i]);
        memcpy((uint8_t *)&s + seg_at[i], &seg, sizeof(seg));
    }
    memcpy(d.db, g->dr, sizeof(d.db));
    s.ldt = seg_in(&g->ldtr);
    s.tr = seg_in(&g->tr);
    s.gdt = (struct kvm_dtable){ .base = g->gdt_base, .limit = g->gdt_limit };
    s.idt = (struct kvm_dtable){ .base = g->idt_base, .limit = g->idt_limit };
    s.cr0 = g->cr0;
    s.cr2 = g->cr2;
    s.cr3 = g->cr3;
    s.cr4 = g->cr4;
    s.cr8 = g->cr8;
    s.efer = g->efer;
    err = kvm_ioctl(v->fd, KVM_SET_SREGS, &s);
    if (err == 0)
        err = kvm_ioctl(v->fd, KVM_SET_REGS, &r);
    if (err == 0)
        err = kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &d);
    if (err == 0)
        err = kvm_ioctl(v->fd, KVM_SET_XCRS, &x);
    return err;
}

enum vcpu_mp_state kvm_mp_get(struct vcpu *v)
{
    struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };
    hv_assert(kvm_is_mine(v));
    (void)kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp);
    switch (mp.mp_state) {
    case KVM_MP_STATE_HALTED: return VCPU_MP_HALTED;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED: return VCPU_MP_WAIT_SIPI;
    default: return VCPU_MP_RUNNABLE;
    }
}

void kvm_mp_set(struct vcpu *v, enum vcpu_mp_state st)
{
    struct kvm_mp_state mp = { .mp_state = st == VCPU_MP_HALTED      ? KVM_MP_STATE_HALTED
                                           : st == VCPU_MP_WAIT_SIPI ? KVM_MP_STATE_INIT_RECEIVED
                                                                     : KVM_MP_STATE_RUNNABLE };
    hv_assert(kvm_is_mine(v));
    (void)kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
}
