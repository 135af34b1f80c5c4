/*
 * CPUID under kvm: what the kernel supports, without its own leaves (0x4000xxxx), nested
 * virtualization and the performance counters; topology and frequencies of the guest's own.
 * SDM volume 2, CPUID; AMD APM volume 3, appendix E.
 */
#include <errno.h>

#include "hv/engine/kvm/kvm.h"

#define BIT(n) (1u << (n))

#define L1C_MONITOR BIT(3)
#define L1C_VMX BIT(5)
#define L1C_PDCM BIT(15)
#define L1C_X2APIC BIT(21)
#define L1C_TSC_DEADLINE BIT(24)
#define L1C_OSXSAVE BIT(27)
#define L1C_HYPERVISOR BIT(31)
#define L1D_HTT BIT(28)
#define L6A_ARAT BIT(2)
#define L7B_SGX BIT(2)
#define L7B_PT BIT(25)
#define L7C_OSPKE BIT(4)
#define L7C_SGX_LC BIT(30)
#define L7D_AMX (BIT(22) | BIT(24) | BIT(25))
#define L7_1A_AMX BIT(21)
#define L7_1D_AMX BIT(8)
#define XCR0_TILE (BIT(17) | BIT(18))
#define L81C_CMP_LEGACY BIT(1)
#define L81C_SVM BIT(2)
#define L81C_TOPOEXT BIT(22)
#define L81C_PERFCTR (BIT(23) | BIT(24) | BIT(28))

#define MIN_BASIC 0x16u
#define MAX_EXTENDED 0x80000021u

static unsigned ceil_log2(unsigned n)
{
    unsigned bits = 0;
    while ((1u << bits) < n)
        bits++;
    return bits;
}

/* Continued fractions: the last convergent whose numerator fits; off by less than 1/(num*den). */
void kvm_cpuid_ratio(uint64_t hz, uint32_t max, uint32_t *ret_num, uint32_t *ret_den)
{
    uint64_t a = hz, b = KVM_APIC_HZ, n0 = 0, n1 = 1, d0 = 1, d1 = 0;
    while (b) {
        uint64_t q = a / b, rest = a % b, n2 = q * n1 + n0, d2 = q * d1 + d0;
        if (n2 > max || d2 > UINT32_MAX)
            break;
        n0 = n1, n1 = n2, d0 = d1, d1 = d2;
        a = b, b = rest;
    }
    *ret_num = (uint32_t)n1;
    *ret_den = (uint32_t)d1;
}

static bool dropped(uint32_t leaf)
{
    switch (leaf) {
    case 0xa:                                       /* performance counters */
    case 0xb: case 0x1f:                            /* topology: added below */
    case 0x12: case 0x14: case 0x15: case 0x16:     /* SGX, PT, frequencies */
    case 0x8000000a: case 0x8000001d: case 0x8000001e: case 0x8000001f: case 0x80000022:
        return true;                                /* SVM, topology with TOPOEXT, SEV, counters */
    }
    return (leaf & 0xf0000000u) == 0x40000000u || (leaf & 0xc0000000u) == 0xc0000000u;
}

static void adapt(const struct kvm *k, unsigned vp, bool amd, struct cpuid_leaf *l)
{
    const unsigned n = k->vcpus, bits = ceil_log2(n);
    switch (l->leaf) {
    case 0:
        l->eax = MAX(l->eax & 0xff, MIN_BASIC);
        break;
    case 1:
        l->ebx = (l->ebx & 0xff00) | MIN(1u << bits, 255u) << 16 | vp << 24;
        l->ecx &= ~(L1C_MONITOR | L1C_VMX | L1C_PDCM | L1C_OSXSAVE | L1C_TSC_DEADLINE);
        l->ecx |= L1C_HYPERVISOR | L1C_X2APIC | (k->tsc_deadline ? L1C_TSC_DEADLINE : 0);
        l->edx = (l->edx & ~L1D_HTT) | (n > 1 ? L1D_HTT : 0);
        break;
    case 4:                                         /* caches: level 3 of all, the others of one core */
        if (l->eax & 0x1f) {
            unsigned sharing = (l->eax >> 5 & 7) >= 3 ? (1u << bits) - 1 : 0;
            l->eax = (l->eax & 0x3fff) | sharing << 14 | MIN((1u << bits) - 1, 63u) << 26;
        }
        break;
    case 6:
        l->eax = L6A_ARAT;
        l->ebx = l->ecx = l->edx = 0;
        break;
    case 7:
        if (l->subleaf == 0) {
            l->ebx &= ~(L7B_SGX | L7B_PT);
            l->ecx &= ~(L7C_OSPKE | L7C_SGX_LC);
        }
        break;
    case 0x80000000u:
        l->eax = MIN(l->eax, MAX_EXTENDED);
        break;
    case 0x80000001u:
        l->ecx &= ~(L81C_CMP_LEGACY | L81C_SVM | L81C_TOPOEXT | L81C_PERFCTR);
        if (amd && n > 1)
            l->ecx |= L81C_CMP_LEGACY;
        break;
    case 0x80000008u:
        l->eax = (l->eax & 0xff00) | k->phys_bits;
        l->ecx = amd ? bits << 12 | (n - 1) : 0;
        l->edx = 0;
        break;
    }
}

/*
 * AMX needs registers that a process has to ask the kernel for (arch_prctl), and we do not: leaf
 * 0xD then leaves them out, yet kernels show AMX itself. SDM volume 1, 18.3.
 */
unsigned kvm_cpuid_without_amx(struct cpuid_leaf *t, unsigned count)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        if (t[i].leaf == 0xd && t[i].subleaf == 0 && (t[i].eax & XCR0_TILE) == XCR0_TILE)
            return count;
    for (unsigned i = 0; i < count; i++) {
        struct cpuid_leaf l = t[i];
        if (l.leaf == 0x1d || l.leaf == 0x1e)
            continue;
        if (l.leaf == 7 && l.subleaf == 0) {
            l.edx &= ~L7D_AMX;
        } else if (l.leaf == 7 && l.subleaf == 1) {
            l.eax &= ~L7_1A_AMX;
            l.edx &= ~L7_1D_AMX;
        }
        t[n++] = l;
    }
    return n;
}

static void add(struct cpuid_leaf *t, unsigned *n, struct cpuid_leaf l)
{
    t[(*n)++] = l;
}

int kvm_cpuid_get(struct kvm *k, unsigned vp, struct cpuid_leaf **ret, unsigned *ret_count)
{
    hv_autofree struct kvm_cpuid2 *in = hv_alloc(sizeof(*in) + KVM_MAX_CPUID * sizeof(in->entries[0]));
    struct cpuid_leaf *t = hv_alloc_array(KVM_MAX_CPUID, sizeof(*t));
    if (!in || !t) {
        free(t);
        return -ENOMEM;
    }
    in->nent = KVM_MAX_CPUID - 8;
    int r = kvm_ioctl(k->dev_fd, KVM_GET_SUPPORTED_CPUID, in);
    if (r < 0) {
        free(t);
        return r;
    }
    unsigned n = 0;
    bool amd = false;
    for (uint32_t i = 0; i < in->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &in->entries[i];
        if (e->function == 0)                       /* AuthenticAMD, HygonGenuine */
            amd = e->ecx == 0x444d4163 || e->ecx == 0x656e6975;
        if (dropped(e->function))
            continue;
        struct cpuid_leaf l = { .leaf = e->function, .subleaf = e->index,
                                .has_subleaf = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                .eax = e->eax, .ebx = e->ebx, .ecx = e->ecx, .edx = e->edx };
        adapt(k, vp, amd, &l);
        add(t, &n, l);
    }
    n = kvm_cpuid_without_amx(t, n);
    const unsigned bits = ceil_log2(k->vcpus);
    add(t, &n, (struct cpuid_leaf){ 0xb, 0, true, 0, 1, 0x100, vp });
    add(t, &n, (struct cpuid_leaf){ 0xb, 1, true, bits, k->vcpus, 0x201, vp });
    add(t, &n, (struct cpuid_leaf){ 0xb, 2, true, 0, 0, 2, vp });
    /*
     * TSC = crystal * EBX / EAX, and the APIC timer counts the crystal. Linux multiplies EBX
     * by kHz in 32 bits, which bounds EBX.
     */
    uint32_t num, den;
    kvm_cpuid_ratio(k->tsc_hz, (uint32_t)(UINT32_MAX / (KVM_APIC_HZ / 1000)), &num, &den);
    add(t, &n, (struct cpuid_leaf){ 0x15, 0, false, den, num, (uint32_t)KVM_APIC_HZ, 0 });
    const uint32_t mhz = (uint32_t)((k->tsc_hz + 500000) / 1000000);
    add(t, &n, (struct cpuid_leaf){ 0x16, 0, false, mhz, mhz, 100, 0 });
    *ret = t;
    *ret_count = n;
    return 0;
}

int kvm_cpuid_set(struct vcpu *v, const struct cpuid_leaf *leaf, unsigned count)
{
    if (count > KVM_MAX_CPUID)
        return -E2BIG;
    hv_autofree struct kvm_cpuid2 *out = hv_alloc(sizeof(*out) + count * sizeof(out->entries[0]));
    if (!out)
        return -ENOMEM;
    out->nent = count;
    for (unsigned i = 0; i < count; i++) {
        out->entries[i] = (struct kvm_cpuid_entry2){
            .function = leaf[i].leaf, .index = leaf[i].subleaf,
            .flags = leaf[i].has_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = leaf[i].eax, .ebx = leaf[i].ebx, .ecx = leaf[i].ecx, .edx = leaf[i].edx,
        };
    }
    int r = kvm_ioctl(v->fd, KVM_SET_CPUID2, out);
    if (r == 0)
        for (unsigned i = 0; i < count; i++)
            if (leaf[i].leaf == 1)
                v->power_on.regs.rdx = leaf[i].eax;     /* RDX after reset, SDM 10.1.2 */
    return r;
}
