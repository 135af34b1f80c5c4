/*
 * The whole state of a vCPU: power-on, save, load.
 *
 * Saved as the kernel's own structs, which are its stable interface; one section a vCPU:
 * u32 sizes of the structs in order, the structs, u32 MSRs, (u32 index, u64 value) each,
 * u64 deadline, u64 TSC. What is loaded is checked here for framing and by the kernel for
 * sense, as with any write through its interface.
 */
#include <errno.h>
#include <inttypes.h>

#include "hv/engine/kvm/kvm.h"

#define SECTION "kvm-vcpu"
#define SECTION_VERSION 1
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_DEF_WB_ENABLED 0x806ull
#define IA32_APICBASE_BSP 0x100ull

int kvm_msr_read(struct vcpu *v, uint32_t msr, uint64_t *ret)
{
    struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = { .head.nmsrs = 1, .entry.index = msr };
    int r = kvm_ioctl(v->fd, KVM_GET_MSRS, &m);
    if (r != 1)
        return r < 0 ? r : -ENOENT;
    *ret = m.entry.data;
    return 0;
}

int kvm_msr_write(struct vcpu *v, uint32_t msr, uint64_t val)
{
    struct { struct kvm_msrs head; struct kvm_msr_entry entry; } m = {
        .head.nmsrs = 1, .entry = { .index = msr, .data = val } };
    int r = kvm_ioctl(v->fd, KVM_SET_MSRS, &m);
    return r == 1 ? 0 : r < 0 ? r : -EINVAL;
}

/* Read-only ones refuse a write even of the value they have. */
static int msr_restore(struct vcpu *v, uint32_t msr, uint64_t val)
{
    uint64_t now;
    if (kvm_msr_write(v, msr, val) == 0)
        return 0;
    return kvm_msr_read(v, msr, &now) == 0 && now == val ? 0 : -EINVAL;
}

int kvm_state_alloc(const struct kvm *k, struct kvm_state *s)
{
    s->xsave = hv_alloc(k->xsave_len);
    s->msr = hv_alloc_array(KVM_MAX_MSRS, sizeof(*s->msr));
    return s->xsave && s->msr ? 0 : -ENOMEM;
}

void kvm_state_free(struct kvm_state *s)
{
    free(s->xsave);
    free(s->msr);
    s->xsave = NULL;
    s->msr = NULL;
}

int kvm_state_get(struct vcpu *v, struct kvm_state *s)
{
    const struct kvm *k = v->kvm;
    /* MP state first: reading it makes the kernel take INITs and SIPIs that are on their way. */
    const struct { unsigned long request; void *to; } part[] = {
        { KVM_GET_MP_STATE, &s->mp }, { KVM_GET_REGS, &s->regs }, { KVM_GET_SREGS, &s->sregs },
        { KVM_GET_XCRS, &s->xcrs }, { KVM_GET_DEBUGREGS, &s->debugregs }, { KVM_GET_VCPU_EVENTS, &s->events },
        { KVM_GET_LAPIC, &s->lapic }, { k->xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, s->xsave },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(part); i++) {
        int r = kvm_ioctl(v->fd, part[i].request, part[i].to);
        if (r < 0)
            return r;
    }
    for (unsigned i = 0; i < k->msrs; i++)
        if (kvm_msr_read(v, k->msr_index[i], &s->msr[i]) < 0)
            s->msr[i] = 0;
    s->tsc_deadline = 0;
    (void)kvm_msr_read(v, KVM_MSR_TSC_DEADLINE, &s->tsc_deadline);
    return kvm_msr_read(v, KVM_MSR_TSC, &s->tsc);
}

/* Without the TSC, which all vCPUs get at one moment. SREGS (APIC mode) before MSRs, APIC before its deadline. */
int kvm_state_put(struct vcpu *v, const struct kvm_state *s, const char **ret_what)
{
    const struct kvm *k = v->kvm;
    struct kvm_vcpu_events events = s->events;
    events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    const struct { unsigned long request; const void *from; const char *what; } part[] = {
        { KVM_SET_SREGS, &s->sregs, "control registers" }, { KVM_SET_REGS, &s->regs, "registers" },
        { KVM_SET_XCRS, &s->xcrs, "XCR0" }, { KVM_SET_XSAVE, s->xsave, "FPU" },
        { KVM_SET_DEBUGREGS, &s->debugregs, "debug registers" }, { 0 }, { KVM_SET_LAPIC, &s->lapic, "local APIC" },
        { KVM_SET_VCPU_EVENTS, &events, "pending events" }, { KVM_SET_MP_STATE, &s->mp, "MP state" },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(part); i++) {
        int r = 0;
        *ret_what = part[i].what;
        if (part[i].request) {
            r = kvm_ioctl(v->fd, part[i].request, part[i].from);
        } else {
            *ret_what = "MSRs";
            for (unsigned n = 0; n < k->msrs && r == 0; n++)
                r = msr_restore(v, k->msr_index[n], s->msr[n]);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- the TSC ---- */

static int offset_attr(struct vcpu *v, unsigned long request, uint64_t *offset)
{
    struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset };
    return kvm_ioctl(v->fd, request, &attr);
}

/*
 * tsc[vp]: what each would read at this one moment. With offsets (Linux 5.16) their
 * distances are exact; without, the kernel evens out writes of about the same value.
 */
static void tsc_put(struct kvm *k, const uint64_t tsc[KVM_MAX_VCPUS])
{
    uint64_t now, offset;
    if (k->tsc_offset && kvm_msr_read(&k->vcpu[0], KVM_MSR_TSC, &now) == 0 &&
        offset_attr(&k->vcpu[0], KVM_GET_DEVICE_ATTR, &offset) == 0) {
        const uint64_t base = offset + tsc[0] - now;
        for (unsigned i = 0; i < k->vcpus; i++) {
            uint64_t mine = base + (tsc[i] - tsc[0]);
            (void)offset_attr(&k->vcpu[i], KVM_SET_DEVICE_ATTR, &mine);
        }
        return;
    }
    for (unsigned i = 0; i < k->vcpus; i++)
        (void)kvm_msr_write(&k->vcpu[i], KVM_MSR_TSC, tsc[i]);
}

/* All at the moment of vCPU 0's reading. */
static void tsc_align(struct kvm *k, uint64_t tsc[KVM_MAX_VCPUS])
{
    uint64_t first, mine;
    if (!k->tsc_offset || offset_attr(&k->vcpu[0], KVM_GET_DEVICE_ATTR, &first) < 0)
        return;
    for (unsigned i = 1; i < k->vcpus; i++)
        if (offset_attr(&k->vcpu[i], KVM_GET_DEVICE_ATTR, &mine) == 0)
            tsc[i] = tsc[0] + (mine - first);
}

/* ---- power-on ---- */

int kvm_power_on_init(struct vcpu *v)
{
    struct kvm_state *s = &v->power_on;
    const uint64_t rdx = s->regs.rdx;           /* kvm_cpuid_set() */
    int r = kvm_state_get(v, s);
    if (r < 0)
        return r;
    s->regs = (struct kvm_regs){ .rip = 0xfff0, .rflags = 2, .rdx = rdx };
    s->mp.mp_state = v->vp == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
    s->sregs.apic_base = (s->sregs.apic_base & ~IA32_APICBASE_BSP) | (v->vp == 0 ? IA32_APICBASE_BSP : 0);
    /* MTRRs say "disabled" after a real reset, and firmware turns them on: direct boots have none. */
    for (unsigned i = 0; i < v->kvm->msrs; i++)
        if (v->kvm->msr_index[i] == MSR_MTRR_DEF_TYPE)
            s->msr[i] = MTRR_DEF_WB_ENABLED;
    return 0;
}

int kvm_reset(struct kvm *k, const char **ret_what)
{
    static const uint64_t zero[KVM_MAX_VCPUS];
    kvm_reset_routes(k);
    for (unsigned i = 0; i < k->vcpus; i++) {
        int r = kvm_state_put(&k->vcpu[i], &k->vcpu[i].power_on, ret_what);
        if (r < 0)
            return r;
    }
    tsc_put(k, zero);
    return 0;
}

/* ---- save and load ---- */

static const struct part { size_t at, size; } parts[] = {
#define PART(f) { offsetof(struct kvm_state, f), sizeof(((struct kvm_state *)0)->f) }
    PART(regs), PART(sregs), PART(xcrs), PART(debugregs), PART(events), PART(lapic), PART(mp),
#undef PART
};

void kvm_save(struct kvm *k, struct save_writer *w)
{
    uint64_t tsc[KVM_MAX_VCPUS] = { 0 };
    struct kvm_state *all = hv_alloc_array(k->vcpus, sizeof(*all));
    bool ok = all != NULL;
    kvm_settle_eois(k);
    for (unsigned i = 0; i < k->vcpus && ok; i++) {
        ok = kvm_state_alloc(k, &all[i]) == 0 && kvm_state_get(&k->vcpu[i], &all[i]) == 0;
        tsc[i] = all[i].tsc;
    }
    tsc_align(k, tsc);
    /* A vCPU that could not be read leaves no section, and a load of that stream fails. */
    for (unsigned i = 0; i < k->vcpus && ok; i++) {
        save_begin(w, SECTION, i, SECTION_VERSION);
        for (unsigned n = 0; n < ARRAY_SIZE(parts); n++) {
            save_u32(w, (uint32_t)parts[n].size);
            save_bytes(w, (const uint8_t *)&all[i] + parts[n].at, parts[n].size);
        }
        save_u32(w, (uint32_t)k->xsave_len);
        save_bytes(w, all[i].xsave, k->xsave_len);
        save_u32(w, k->msrs);
        for (unsigned n = 0; n < k->msrs; n++) {
            save_u32(w, k->msr_index[n]);
            save_u64(w, all[i].msr[n]);
        }
        save_u64(w, all[i].tsc_deadline);
        save_u64(w, tsc[i]);
        save_end(w);
    }
    for (unsigned i = 0; all && i < k->vcpus; i++)
        kvm_state_free(&all[i]);
    free(all);
}

static int find_msr(const struct kvm *k, uint32_t msr)
{
    for (unsigned i = 0; i < k->msrs; i++)
        if (k->msr_index[i] == msr)
            return (int)i;
    return -1;
}

static int damaged(struct hv_error *e, unsigned vp, const char *what)
{
    return hv_fail(e, HV_FAILED, NULL, "the saved state of vCPU %u does not fit: %s", vp, what);
}

static int load_state(struct vcpu *v, const struct load_reader *r, struct kvm_state *s, struct hv_error *e)
{
    const struct kvm *k = v->kvm;
    struct load_section in;
    if (load_find(r, SECTION, v->vp, &in) < 0 || in.version != SECTION_VERSION)
        return damaged(e, v->vp, "no section '" SECTION "'");
    for (unsigned n = 0; n < ARRAY_SIZE(parts); n++) {
        if (load_u32(&in) != parts[n].size)
            return damaged(e, v->vp, "size of a part");
        load_bytes(&in, (uint8_t *)s + parts[n].at, parts[n].size);
    }
    if (load_u32(&in) != k->xsave_len)
        return damaged(e, v->vp, "this CPU has other extended state (XSAVE)");
    load_bytes(&in, s->xsave, k->xsave_len);
    memcpy(s->msr, v->power_on.msr, k->msrs * sizeof(*s->msr));
    uint32_t count = load_u32(&in);
    if (in.bad || count > KVM_MAX_MSRS)
        return damaged(e, v->vp, "MSRs");
    for (uint32_t n = 0; n < count; n++) {
        uint32_t msr = load_u32(&in);
        uint64_t val = load_u64(&in);
        int at = find_msr(k, msr);
        if (at >= 0)
            s->msr[at] = val;
        else if (val)                           /* a zero in what this host has not is no loss */
            return hv_fail(e, HV_FAILED, NULL, "vCPU %u: this host has no MSR %#" PRIx32, v->vp, msr);
    }
    s->tsc_deadline = load_u64(&in);
    s->tsc = load_u64(&in);
    if (load_done(&in) < 0)
        return damaged(e, v->vp, "length");
    if (s->mp.mp_state > KVM_MP_STATE_SIPI_RECEIVED || s->xcrs.nr_xcrs > KVM_MAX_XCRS)
        return damaged(e, v->vp, "MP state");
    return 0;
}

int kvm_load(struct kvm *k, const struct load_reader *r, struct hv_error *e)
{
    uint64_t tsc[KVM_MAX_VCPUS] = { 0 }, deadline[KVM_MAX_VCPUS] = { 0 };
    int err = 0;
    for (unsigned i = 0; i < k->vcpus && err == 0; i++) {
        struct kvm_state s = { 0 };
        const char *what = "";
        err = kvm_state_alloc(k, &s);
        if (err < 0)
            hv_fail_errno(e, -err, NULL, "cannot load vCPU %u", i);
        if (err == 0)
            err = load_state(&k->vcpu[i], r, &s, e);
        if (err == 0 && (err = kvm_state_put(&k->vcpu[i], &s, &what)) < 0)
            damaged(e, i, what);
        tsc[i] = s.tsc;
        deadline[i] = s.tsc_deadline;
        kvm_state_free(&s);
    }
    if (err < 0)
        return err;
    tsc_put(k, tsc);
    for (unsigned i = 0; i < k->vcpus; i++)
        if (deadline[i])
            (void)kvm_msr_write(&k->vcpu[i], KVM_MSR_TSC_DEADLINE, deadline[i]);
    return 0;
}
