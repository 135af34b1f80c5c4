/*
 * A vCPU's state as a whole: reset, INIT, SIPI, struct vcpu_regs, saved sections.
 * SDM volume 3, 10.1 (table 10-1), 9.4.3.
 */
#include <errno.h>

#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

#define MTRR_DEF_WB_ENABLED 0x806ull

static struct seg real_seg(uint16_t sel, uint64_t base, uint32_t attr)
{
    return (struct seg){ .base = base, .limit = 0xffff, .attr = attr, .sel = sel };
}

void soft_cpu_reset(struct cpu *c, bool init)
{
    memset(c->gpr, 0, sizeof(c->gpr));
    c->gpr[2] = CPUID_SIGNATURE;               /* RDX, as cpuid(1).eax; gpr[] is in encoding order */
    c->rip = c->next_rip = 0xfff0;
    cpu_set_rflags(c, 2, UINT64_MAX);
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        c->seg[i] = real_seg(0, 0, 0x93);
    c->seg[X86_SEG_CS] = real_seg(0xf000, 0xffff0000, 0x9b);
    c->ldtr = real_seg(0, 0, 0x82);
    c->tr = real_seg(0, 0, 0x8b);
    c->gdt_base = c->idt_base = 0;
    c->gdt_limit = c->idt_limit = 0xffff;
    c->cpl = 0;
    c->cr0 = CR0_ET | (init ? c->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW);
    c->cr2 = c->cr3 = c->cr4 = c->efer = 0;
    memset(c->dr, 0, sizeof(c->dr));
    c->dr[6] = DR6_INIT;
    c->dr[7] = DR7_INIT;
    c->shadow = 0;
    c->halted = c->nmi_blocked = c->nmi_pending = c->in_delivery = false;
    c->irq_held = false;
    c->rmw.active = 0;
    c->pkru = 0;
    c->mp_state = c->vp == 0 ? VCPU_MP_RUNNABLE : VCPU_MP_WAIT_SIPI;
    if (!init) {
        c->xcr0 = 1;
        c->star = c->lstar = c->cstar = c->fmask = c->kernel_gs_base = c->tsc_aux = 0;
        c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
        c->pat = 0x0007040600070406ull;
        c->misc_enable = MISC_ENABLE_INIT;
        c->spec_ctrl = 0;
        /* The register says "disabled" after a real reset, and firmware turns it on: direct boots have none. */
        c->mtrr_def = MTRR_DEF_WB_ENABLED;
        memset(c->mtrr_fixed, 0, sizeof(c->mtrr_fixed));
        memset(c->mtrr_var, 0, sizeof(c->mtrr_var));
        memset(c->mce, 0, sizeof(c->mce));
        c->mcg_status = c->mcg_ctl = 0;
        c->tsc_adjust = 0;
        c->tsc_offset = -c->soft->reset_tsc;   /* one moment for all vCPUs */
        c->watch_hit = 0;
        atomic_store(&vcpu_of(c)->nmis, 0);    /* those sent to the guest before */
    }
    lapic_reset(&c->lapic, init, c->vp == 0);
    fpu_reset(c, init);
    tlb_flush(c, false);
    cpu_update_mode(c);
}

void soft_cpu_sipi(struct cpu *c, uint8_t vector)
{
    c->seg[X86_SEG_CS] = real_seg((uint16_t)(vector << 8), (uint64_t)vector << 12, 0x9b);
    c->rip = c->next_rip = 0;
    c->mp_state = VCPU_MP_RUNNABLE;
    c->halted = false;
    cpu_update_mode(c);
}

/* ---- struct vcpu_regs ---- */

static struct vcpu_seg seg_out(const struct seg *s)
{
    return (struct vcpu_seg){ .base = s->base, .limit = s->limit, .attr = s->attr, .sel = s->sel };
}

static struct seg seg_in(const struct vcpu_seg *s)
{
    return (struct seg){ .base = s->base, .limit = s->limit, .attr = s->attr & 0x1f0ff, .sel = s->sel };
}

int soft_get_regs(struct vcpu *v, struct vcpu_regs *ret)
{
    struct cpu *c = &v->cpu;
    *ret = (struct vcpu_regs){
        .rip = c->rip, .rflags = cpu_rflags(c),
        .ldtr = seg_out(&c->ldtr), .tr = seg_out(&c->tr),
        .gdt_base = c->gdt_base, .idt_base = c->idt_base, .gdt_limit = c->gdt_limit, .idt_limit = c->idt_limit,
        .cr0 = c->cr0, .cr2 = c->cr2, .cr3 = c->cr3, .cr4 = c->cr4, .cr8 = lapic_get_cr8(&c->lapic),
        .efer = c->efer, .xcr0 = c->xcr0,
    };
    memcpy(ret->gpr, c->gpr, sizeof(ret->gpr));
    memcpy(ret->dr, c->dr, sizeof(ret->dr));
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        ret->seg[i] = seg_out(&c->seg[i]);
    return 0;
}

/* What the CPU could not be in; also keeps hostile saved states out. */
static int regs_check(const struct cpu *c, const struct vcpu_regs *g)
{
    const bool lma = g->efer & EFER_LMA;
    if (g->cr0 >> 32 || (g->cr0 & CR0_PG && !(g->cr0 & CR0_PE)))
        return -EINVAL;
    if (g->cr4 & ~cpu_cr4_valid(c) || g->efer & ~cpu_efer_valid(c) || g->cr8 > 15)
        return -EINVAL;
    if (lma != (g->efer & EFER_LME && g->cr0 & CR0_PG) || (lma && !(g->cr4 & CR4_PAE)))
        return -EINVAL;
    if (lma && (g->rflags & FL_VM || g->cr3 & ~c->phys_mask & ~0xfffull))
        return -EINVAL;
    if (!lma && g->rip >> 32)
        return -EINVAL;
    if (!cpu_canonical(g->rip) || g->dr[6] >> 32 || g->dr[7] >> 32)
        return -EINVAL;
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        if (lma ? !cpu_canonical(g->seg[i].base) : g->seg[i].base >> 32)
            return -EINVAL;
    return 0;
}

static bool uses_pdptes(const struct vcpu_regs *g)
{
    return g->cr0 & CR0_PG && g->cr4 & CR4_PAE && !(g->efer & EFER_LMA);
}

/* g has passed regs_check(); pdpte is what CR3 names with PAE paging. */
static void apply_regs(struct vcpu *v, const struct vcpu_regs *g, const uint64_t pdpte[4])
{
    struct cpu *c = &v->cpu;
    const uint64_t paging0 = CR0_PG | CR0_WP | CR0_PE;
    const bool flush = ((c->cr0 ^ g->cr0) & paging0) || c->cr3 != g->cr3 || c->cr4 != g->cr4 || c->efer != g->efer ||
                       memcmp(c->dr, g->dr, sizeof(c->dr));

    memcpy(c->gpr, g->gpr, sizeof(c->gpr));
    if (c->rip != g->rip)
        c->rip = c->next_rip = g->rip;
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        c->seg[i] = seg_in(&g->seg[i]);
    c->ldtr = seg_in(&g->ldtr);
    c->tr = seg_in(&g->tr);
    c->gdt_base = g->gdt_base;
    c->idt_base = g->idt_base;
    c->gdt_limit = g->gdt_limit;
    c->idt_limit = g->idt_limit;
    c->cr0 = g->cr0 | CR0_ET;
    c->cr2 = g->cr2;
    c->cr3 = g->cr3;
    c->cr4 = g->cr4;
    c->efer = g->efer;
    memcpy(c->pdpte, pdpte, sizeof(c->pdpte));
    memcpy(c->dr, g->dr, sizeof(c->dr));
    lapic_set_cr8(&c->lapic, g->cr8);
    c->cpl = !(g->cr0 & CR0_PE) ? 0 : g->rflags & FL_VM ? 3 : SEG_ATTR_DPL(g->seg[X86_SEG_SS].attr);
    cpu_set_rflags(c, (g->rflags & RFLAGS_VALID) | 2, UINT64_MAX);
    if (flush)
        tlb_flush(c, false);
    cpu_update_mode(c);
    soft_wake(v, ATT_IRQ);
}

int soft_set_regs(struct vcpu *v, const struct vcpu_regs *g)
{
    uint64_t pdpte[4] = {0};
    int r = regs_check(&v->cpu, g);
    if (!r && uses_pdptes(g) && cpu_pdptes(&v->cpu, g->cr3, pdpte))
        r = -EINVAL;
    if (!r)
        apply_regs(v, g, pdpte);
    return r;
}

/* ---- saved state ---- */

#define SECTION_CPU   "soft-cpu"
#define SECTION_LAPIC "lapic"
#define SECTION_FPU   "fpu"
#define SECTION_VERSION 1

/* Plain 64-bit fields, in the order they are saved. Loading goes through the checks in load_cpu(). */
#define MSR_FIELDS(X) \
    X(star) X(lstar) X(cstar) X(fmask) X(kernel_gs_base) X(tsc_aux) X(pat) X(sysenter_cs) X(sysenter_esp) \
    X(sysenter_eip) X(tsc_adjust) X(misc_enable) X(spec_ctrl) X(mtrr_def) X(mcg_status) X(mcg_ctl)

static void save_seg(struct save_writer *w, const struct vcpu_seg *s)
{
    save_u64(w, s->base);
    save_u32(w, s->limit);
    save_u32(w, s->attr);
    save_u16(w, s->sel);
}

static struct vcpu_seg load_seg(struct load_section *s)
{
    struct vcpu_seg v = { .base = load_u64(s) };
    v.limit = load_u32(s);
    v.attr = load_u32(s);
    v.sel = load_u16(s);
    return v;
}

static void save_array(struct save_writer *w, const uint64_t *v, size_t count)
{
    for (size_t i = 0; i < count; i++)
        save_u64(w, v[i]);
}

static void load_array(struct load_section *s, uint64_t *v, size_t count)
{
    for (size_t i = 0; i < count; i++)
        v[i] = load_u64(s);
}

static void save_cpu(struct vcpu *v, struct save_writer *w, uint64_t host_tsc)
{
    struct cpu *c = &v->cpu;
    struct vcpu_regs g;
    soft_get_regs(v, &g);
    save_array(w, g.gpr, 16);
    save_u64(w, g.rip);
    save_u64(w, g.rflags);
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        save_seg(w, &g.seg[i]);
    save_seg(w, &g.ldtr);
    save_seg(w, &g.tr);
    const uint64_t system[] = { g.gdt_base, g.gdt_limit, g.idt_base, g.idt_limit, g.cr0, g.cr2, g.cr3, g.cr4,
                                g.cr8, g.efer, g.xcr0 };
    save_array(w, system, ARRAY_SIZE(system));
    save_array(w, g.dr, 8);
    save_array(w, c->pdpte, 4);
#define SAVE_FIELD(f) save_u64(w, c->f);
    MSR_FIELDS(SAVE_FIELD)
#undef SAVE_FIELD
    save_array(w, c->mtrr_fixed, ARRAY_SIZE(c->mtrr_fixed));
    save_array(w, c->mtrr_var, ARRAY_SIZE(c->mtrr_var));
    save_u64(w, tsc_guest_at(c->soft, host_tsc) + c->tsc_offset);
    /* What other threads have asked for and the vCPU not yet seen belongs to the state too. */
    uint32_t att = atomic_load(&c->attention);
    save_u8(w, c->shadow);
    save_u8(w, c->halted);
    save_u8(w, c->nmi_blocked);
    save_u8(w, c->nmi_pending || att & ATT_NMI);
    save_u8(w, c->mp_state);
    save_u8(w, (att & ATT_INIT ? 1 : 0) | (att & ATT_SIPI ? 2 : 0));
    save_u8(w, atomic_load(&c->sipi_vector));
}

static int load_cpu(struct vcpu *v, struct load_section *s, uint64_t host_tsc, struct hv_error *e)
{
    struct cpu *c = &v->cpu;
    struct vcpu_regs g = {0};
    load_array(s, g.gpr, 16);
    g.rip = load_u64(s);
    g.rflags = load_u64(s);
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        g.seg[i] = load_seg(s);
    g.ldtr = load_seg(s);
    g.tr = load_seg(s);
    uint64_t system[11];
    load_array(s, system, ARRAY_SIZE(system));
    g.gdt_base = system[0];
    g.gdt_limit = (uint16_t)system[1];
    g.idt_base = system[2];
    g.idt_limit = (uint16_t)system[3];
    g.cr0 = system[4];
    g.cr2 = system[5];
    g.cr3 = system[6];
    g.cr4 = system[7];
    g.cr8 = system[8];
    g.efer = system[9];
    g.xcr0 = system[10];
    load_array(s, g.dr, 8);
    uint64_t pdpte[4];
    load_array(s, pdpte, 4);
    struct {
#define FIELD(f) uint64_t f;
        MSR_FIELDS(FIELD)
#undef FIELD
    } m;
#define LOAD_FIELD(f) m.f = load_u64(s);
    MSR_FIELDS(LOAD_FIELD)
#undef LOAD_FIELD
    uint64_t fixed[ARRAY_SIZE(c->mtrr_fixed)], var[ARRAY_SIZE(c->mtrr_var)];
    load_array(s, fixed, ARRAY_SIZE(fixed));
    load_array(s, var, ARRAY_SIZE(var));
    uint64_t tsc = load_u64(s);
    uint8_t shadow = load_u8(s), halted = load_u8(s), blocked = load_u8(s), nmi = load_u8(s), mp = load_u8(s),
            pending = load_u8(s), sipi = load_u8(s);
    int r = load_done(s);
    if (r || mp > VCPU_MP_HALTED || g.xcr0 != c->xcr0 || !cpu_canonical(m.lstar) || !cpu_canonical(m.cstar) ||
        !cpu_canonical(m.kernel_gs_base) || !cpu_canonical(m.sysenter_esp) || !cpu_canonical(m.sysenter_eip) ||
        m.tsc_aux >> 32 || !msr_pat_valid(m.pat))
        return hv_fail(e, HV_FAILED, "soft-cpu", "saved state of vCPU %u is not valid", c->vp);
    if (regs_check(c, &g))
        return hv_fail(e, HV_FAILED, "soft-cpu", "saved registers of vCPU %u are not valid", c->vp);
    /* The PDPTEs as they were loaded: guest memory may hold others by now. */
    for (unsigned i = 0; i < 4; i++)
        pdpte[i] &= c->phys_mask | 0xfff;
    apply_regs(v, &g, pdpte);
#define SET_FIELD(f) c->f = m.f;
    MSR_FIELDS(SET_FIELD)
#undef SET_FIELD
    memcpy(c->mtrr_fixed, fixed, sizeof(fixed));
    memcpy(c->mtrr_var, var, sizeof(var));
    c->tsc_offset = tsc - tsc_guest_at(c->soft, host_tsc);
    c->shadow = shadow != 0;
    c->halted = halted != 0;
    c->nmi_blocked = blocked != 0;
    c->nmi_pending = nmi != 0;
    c->mp_state = mp;
    atomic_store(&c->sipi_vector, sipi);
    atomic_store(&v->nmis, 0);
    atomic_fetch_and(&c->attention, ATT_KICK);
    atomic_fetch_or(&c->attention,
                    ATT_WORK | ATT_IRQ | (pending & 1 ? ATT_INIT : 0u) | (pending & 2 ? ATT_SIPI : 0u));
    tlb_flush(c, false);
    block_drop_all(c);
    cpu_update_mode(c);
    return 0;
}

void soft_save(struct engine *g, struct save_writer *w)
{
    struct soft *s = CONTAINER_OF(g, struct soft, engine);
    HV_CHECK(s, SOFT_MAGIC);
    const uint64_t host = tsc_host_now();      /* one moment for all: TSCs stay in step */
    for (unsigned i = 0; i < s->vcpus; i++) {
        save_begin(w, SECTION_CPU, i, SECTION_VERSION);
        save_cpu(s->vcpu[i], w, host);
        save_end(w);
        save_begin(w, SECTION_LAPIC, i, SECTION_VERSION);
        lapic_save(&s->vcpu[i]->cpu.lapic, w);
        save_end(w);
        save_begin(w, SECTION_FPU, i, SECTION_VERSION);
        fpu_save_section(&s->vcpu[i]->cpu, w);
        save_end(w);
    }
}

static int find(const struct load_reader *r, const char *tag, unsigned i, struct load_section *ret,
                struct hv_error *e)
{
    if (load_find(r, tag, i, ret))
        return hv_fail(e, HV_FAILED, tag, "saved state has no section \"%s\" for vCPU %u", tag, i);
    if (ret->version != SECTION_VERSION)
        return hv_fail(e, HV_UNSUPPORTED, tag, "saved state has version %u of section \"%s\"", ret->version, tag);
    return 0;
}

int soft_load(struct engine *g, const struct load_reader *rd, struct hv_error *e)
{
    struct soft *s = CONTAINER_OF(g, struct soft, engine);
    HV_CHECK(s, SOFT_MAGIC);
    const uint64_t host = tsc_host_now();
    struct load_section sec;
    if (!load_find(rd, SECTION_CPU, s->vcpus, &sec))
        return hv_fail(e, HV_CONFLICT, "soft-cpu", "saved state has more than %u vCPUs", s->vcpus);
    for (unsigned i = 0; i < s->vcpus; i++) {
        struct vcpu *v = s->vcpu[i];
        int r = find(rd, SECTION_CPU, i, &sec, e);
        if (!r)
            r = load_cpu(v, &sec, host, e);
        if (!r)
            r = find(rd, SECTION_LAPIC, i, &sec, e);
        if (!r)
            r = lapic_load(&v->cpu.lapic, &sec, e);      /* after the TSC: timers are relative to it */
        if (!r)
            r = find(rd, SECTION_FPU, i, &sec, e);
        if (!r && fpu_load_section(&v->cpu, &sec))
            r = hv_fail(e, HV_FAILED, SECTION_FPU, "saved FPU state of vCPU %u is not valid", i);
        if (r)
            return r;
    }
    return 0;
}
