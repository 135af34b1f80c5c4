/*
 * Model-specific registers that belong to the CPU. The rest (Hyper-V's) are the machine's:
 * callbacks.msr_read and msr_write. An MSR nobody knows is #GP(0). SDM volume 4.
 */
#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/sys.h"

#define MSR_TSC           0x10
#define MSR_PLATFORM_ID   0x17
#define MSR_APIC_BASE     0x1b
#define MSR_FEATURE_CTL   0x3a
#define MSR_TSC_ADJUST    0x3b
#define MSR_SPEC_CTRL     0x48
#define MSR_PRED_CMD      0x49
#define MSR_UCODE_WRITE   0x79
#define MSR_UCODE_REV     0x8b
#define MSR_MTRR_CAP      0xfe
#define MSR_ARCH_CAP      0x10a
#define MSR_SYSENTER_CS   0x174
#define MSR_SYSENTER_ESP  0x175
#define MSR_SYSENTER_EIP  0x176
#define MSR_MCG_CAP       0x179
#define MSR_MCG_STATUS    0x17a
#define MSR_MISC_ENABLE   0x1a0
#define MSR_MTRR_VAR      0x200
#define MTRR_VAR_COUNT    8
#define MSR_PAT           0x277
#define MSR_MTRR_DEF      0x2ff
#define MSR_TSC_DEADLINE  0x6e0
#define MSR_X2APIC        0x800
#define MSR_X2APIC_END    0x840
#define MSR_EFER          0xc0000080u
#define MSR_STAR          0xc0000081u
#define MSR_LSTAR         0xc0000082u
#define MSR_CSTAR         0xc0000083u
#define MSR_FMASK         0xc0000084u
#define MSR_FS_BASE       0xc0000100u
#define MSR_GS_BASE       0xc0000101u
#define MSR_KERNEL_GS     0xc0000102u
#define MSR_TSC_AUX       0xc0000103u

/* RDCL_NO IBRS_ALL SKIP_L1DFL SSB_NO MDS_NO PSCHANGE_NO TAA_NO SBDR_SSDP_NO FBSDP_NO PSDP_NO BHI_NO PBRSB_NO
 * GDS_NO RFDS_NO ITS_NO: --mitigations fast. */
#define ARCH_CAP_FAST 0x400000000d10e17bull

/*
 * The plain registers: where each lives and which values it takes. `valid`: bits that may be
 * set; canonical: a linear address. feature: what CPUID has to show, or NO_FEATURE.
 */
#define NO_FEATURE 0xffff
static const struct plain { uint32_t msr; uint16_t feature; bool canonical; size_t field; uint64_t valid; } plain[] = {
#define FIELD(f) offsetof(struct cpu, f)
    { MSR_SYSENTER_CS, CPUF_SEP, false, FIELD(sysenter_cs), UINT32_MAX },
    { MSR_SYSENTER_ESP, CPUF_SEP, true, FIELD(sysenter_esp), UINT64_MAX },
    { MSR_SYSENTER_EIP, CPUF_SEP, true, FIELD(sysenter_eip), UINT64_MAX },
    { MSR_STAR, CPUF_SYSCALL, false, FIELD(star), UINT64_MAX },
    { MSR_LSTAR, CPUF_LM, true, FIELD(lstar), UINT64_MAX },
    { MSR_CSTAR, CPUF_LM, true, FIELD(cstar), UINT64_MAX },
    { MSR_FMASK, CPUF_SYSCALL, false, FIELD(fmask), UINT32_MAX },
    { MSR_FS_BASE, CPUF_LM, true, FIELD(seg[X86_SEG_FS].base), UINT64_MAX },
    { MSR_GS_BASE, CPUF_LM, true, FIELD(seg[X86_SEG_GS].base), UINT64_MAX },
    { MSR_KERNEL_GS, CPUF_LM, true, FIELD(kernel_gs_base), UINT64_MAX },
    { MSR_TSC_AUX, CPUF_RDTSCP, false, FIELD(tsc_aux), UINT32_MAX },
    { MSR_SPEC_CTRL, CPUF_SPEC_CTRL, false, FIELD(spec_ctrl), 0x407 },   /* IBRS STIBP SSBD BHI_DIS_S */
    { MSR_MCG_STATUS, CPUF_MCA, false, FIELD(mcg_status), 0x7 },
    { MSR_MISC_ENABLE, NO_FEATURE, false, FIELD(misc_enable), 0x400c51889ull },
    { MSR_MTRR_DEF, CPUF_MTRR, false, FIELD(mtrr_def), 0xcff },
#undef FIELD
};

/* Registers that read as a constant. Writes: #GP(0), or dropped where software is known to write them. */
static const struct fixed { uint32_t msr; uint16_t feature; bool drop_writes; uint64_t value; } fixed[] = {
    { MSR_PLATFORM_ID, NO_FEATURE, false, 0 },
    { MSR_FEATURE_CTL, NO_FEATURE, false, 1 },                  /* locked, VMX off */
    { MSR_UCODE_REV, NO_FEATURE, true, 1ull << 32 },            /* 0 is written before CPUID to read it */
    { MSR_MTRR_CAP, CPUF_MTRR, false, MTRR_VAR_COUNT | 1 << 8 | 1 << 10 },   /* fixed ranges, WC */
    { MSR_MCG_CAP, CPUF_MCA, false, 0 },                        /* no banks */
};

static const uint16_t mtrr_fixed_msr[] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e,
                                           0x26f };

static bool shown(const struct cpu *c, uint16_t feature)
{
    return feature == NO_FEATURE || cpu_has(c, feature);
}

static const struct plain *plain_find(const struct cpu *c, uint32_t msr)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plain); i++)
        if (plain[i].msr == msr)
            return shown(c, plain[i].feature) ? &plain[i] : NULL;
    return NULL;
}

static const struct fixed *fixed_find(const struct cpu *c, uint32_t msr)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++)
        if (fixed[i].msr == msr)
            return shown(c, fixed[i].feature) ? &fixed[i] : NULL;
    return NULL;
}

static uint64_t *mtrr_find(struct cpu *c, uint32_t msr)
{
    if (!cpu_has(c, CPUF_MTRR))
        return NULL;
    if (msr >= MSR_MTRR_VAR && msr < MSR_MTRR_VAR + 2 * MTRR_VAR_COUNT)
        return &c->mtrr_var[msr - MSR_MTRR_VAR];
    for (unsigned i = 0; i < ARRAY_SIZE(mtrr_fixed_msr); i++)
        if (mtrr_fixed_msr[i] == msr)
            return &c->mtrr_fixed[i];
    return NULL;
}

/* Memory types 0, 1, 4, 5, 6; PAT also has 7 (UC-). */
static bool types_valid(uint64_t v, unsigned set)
{
    for (unsigned i = 0; i < 8; i++, v >>= 8)
        if ((v & 0xff) > 7 || !(set >> (v & 7) & 1))
            return false;
    return true;
}

bool msr_pat_valid(uint64_t v)
{
    return types_valid(v, 0xf3);
}

static bool mtrr_valid(const struct cpu *c, uint32_t msr, uint64_t v)
{
    if (msr >= MSR_MTRR_VAR && msr < MSR_MTRR_VAR + 2 * MTRR_VAR_COUNT) {
        uint64_t low = msr & 1 ? 0x800 : 0xff;         /* mask: valid bit; base: type */
        return !(v & ~((c->phys_mask & HV_PAGE_MASK) | low)) && (msr & 1 || types_valid(v & 7, 0x73));
    }
    return types_valid(v, 0x73);
}

static bool is_lapic_msr(const struct cpu *c, uint32_t msr)
{
    return msr == MSR_APIC_BASE || (msr == MSR_TSC_DEADLINE && cpu_has(c, CPUF_TSC_DEADLINE)) ||
           (msr >= MSR_X2APIC && msr < MSR_X2APIC_END);
}

static int set_efer(struct cpu *c, uint64_t v)
{
    if (v & ~cpu_efer_valid(c) || ((v ^ c->efer) & EFER_LME && c->cr0 & CR0_PG))
        return cpu_raise_err(c, VEC_GP, 0);
    v = (v & ~EFER_LMA) | (c->efer & EFER_LMA);
    const uint64_t changed = v ^ c->efer;
    c->efer = v;
    if (changed & EFER_NXE)
        tlb_flush(c, false);
    return X_OK;
}

/* SDM 17.17.3: TSC_ADJUST moves with the TSC, and the TSC with it. The APIC timer counts on as before. */
static void move_tsc(struct cpu *c, uint64_t delta)
{
    c->tsc_offset += delta;
    c->tsc_adjust += delta;
    lapic_tsc_moved(&c->lapic, delta);
}

static int machine_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    struct soft *s = c->soft;
    int r = -1;
    if (s->cb.msr_read) {
        c->exits_msr++;
        soft_leave_guest(vcpu_of(c));
        r = s->cb.msr_read(s->arg, c->vp, msr, ret);
        soft_enter_guest(vcpu_of(c));
    }
    return r ? cpu_raise_err(c, VEC_GP, 0) : X_OK;
}

static int machine_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    struct soft *s = c->soft;
    int r = -1;
    if (s->cb.msr_write) {
        c->exits_msr++;
        soft_leave_guest(vcpu_of(c));
        r = s->cb.msr_write(s->arg, c->vp, msr, val);
        soft_enter_guest(vcpu_of(c));
    }
    return r ? cpu_raise_err(c, VEC_GP, 0) : X_OK;
}

int msr_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    if (is_lapic_msr(c, msr))
        return lapic_msr_read(&c->lapic, msr, ret) ? cpu_raise_err(c, VEC_GP, 0) : X_OK;
    const struct plain *p = plain_find(c, msr);
    if (p) {
        memcpy(ret, (const char *)c + p->field, sizeof(*ret));
        return X_OK;
    }
    const struct fixed *f = fixed_find(c, msr);
    if (f) {
        *ret = f->value;
        return X_OK;
    }
    const uint64_t *m = mtrr_find(c, msr);
    if (m) {
        *ret = *m;
        return X_OK;
    }
    switch (msr) {
    case MSR_TSC:
        *ret = cpu_tsc(c);
        return X_OK;
    case MSR_TSC_ADJUST:
        if (!cpu_has(c, CPUF_TSC_ADJUST))
            break;
        *ret = c->tsc_adjust;
        return X_OK;
    case MSR_PAT:
        *ret = c->pat;
        return X_OK;
    case MSR_EFER:
        *ret = c->efer;
        return X_OK;
    case MSR_ARCH_CAP:
        if (!cpu_has(c, CPUF_ARCH_CAP))
            break;
        *ret = c->soft->cfg.mitigations_guest ? 0 : ARCH_CAP_FAST;
        return X_OK;
    default:
        break;
    }
    return machine_read(c, msr, ret);
}

static int lapic_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    const uint64_t base = c->lapic.base_msr;
    if (msr == MSR_APIC_BASE && val & ~(c->phys_mask | 0xfff))
        return cpu_raise_err(c, VEC_GP, 0);
    if (lapic_msr_write(&c->lapic, msr, val))
        return cpu_raise_err(c, VEC_GP, 0);
    soft_timer_changed(c);
    if (c->lapic.base_msr != base)
        tlb_flush(c, false);       /* its page moved, came or went */
    return X_OK;
}

int msr_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    if (is_lapic_msr(c, msr))
        return lapic_write(c, msr, val);
    const struct plain *p = plain_find(c, msr);
    if (p) {
        if (val & ~p->valid || (p->canonical && !cpu_canonical(val)))
            return cpu_raise_err(c, VEC_GP, 0);
        memcpy((char *)c + p->field, &val, sizeof(val));
        return X_OK;
    }
    const struct fixed *f = fixed_find(c, msr);
    if (f)
        return f->drop_writes ? X_OK : cpu_raise_err(c, VEC_GP, 0);
    uint64_t *m = mtrr_find(c, msr);
    if (m) {
        if (!mtrr_valid(c, msr, val))
            return cpu_raise_err(c, VEC_GP, 0);
        *m = val;
        return X_OK;
    }
    switch (msr) {
    case MSR_TSC:
        move_tsc(c, val - cpu_tsc(c));
        return X_OK;
    case MSR_TSC_ADJUST:
        if (!cpu_has(c, CPUF_TSC_ADJUST))
            break;
        move_tsc(c, val - c->tsc_adjust);
        return X_OK;
    case MSR_PAT:
        if (!msr_pat_valid(val))
            return cpu_raise_err(c, VEC_GP, 0);
        c->pat = val;
        return X_OK;
    case MSR_EFER:
        return set_efer(c, val);
    case MSR_PRED_CMD:
        if (!cpu_has(c, CPUF_SPEC_CTRL) || val & ~1ull)
            break;
        return X_OK;
    case MSR_UCODE_WRITE:
        return X_OK;               /* an update that changes nothing, as hypervisors answer */
    default:
        break;
    }
    return machine_write(c, msr, val);
}
