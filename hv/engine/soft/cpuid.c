/*
 * CPUID: the model that the soft engine offers, and answering from the table that was set.
 * SDM volume 2, CPUID; volume 3, 18.17 for leaf 0x15.
 */
#include <errno.h>

#include "hv/engine/soft/cpuid.h"
#include "hv/engine/soft/soft.h"

#define MAX_BASIC 0x16u
#define MAX_EXTENDED 0x80000008u

#define LEAF7_2_BHI_CTRL (1u << 4)

#define BIT(f) (1u << ((f) & 31))

/* Register of each cpuf_word. */
static const struct { uint32_t leaf; uint8_t reg; } words[CPUF_W_COUNT] = {
    [CPUF_W_1C] = { 1, 2 }, [CPUF_W_1D] = { 1, 3 }, [CPUF_W_7B] = { 7, 1 }, [CPUF_W_7C] = { 7, 2 },
    [CPUF_W_7D] = { 7, 3 }, [CPUF_W_81C] = { 0x80000001u, 2 }, [CPUF_W_81D] = { 0x80000001u, 3 },
};

/* What the interpreter executes. No XSAVE and no AVX; SMAP costs more TLB than it is worth by default. */
static const uint16_t offered[] = {
    CPUF_SSE3, CPUF_SSSE3, CPUF_CX16, CPUF_SSE41, CPUF_SSE42, CPUF_X2APIC, CPUF_MOVBE, CPUF_POPCNT,
    CPUF_TSC_DEADLINE, CPUF_RDRAND, CPUF_HYPERVISOR,
    CPUF_FPU, CPUF_DE, CPUF_PSE, CPUF_TSC, CPUF_MSR, CPUF_PAE, CPUF_MCE, CPUF_CX8, CPUF_APIC, CPUF_SEP, CPUF_MTRR,
    CPUF_PGE, CPUF_MCA, CPUF_CMOV, CPUF_PAT, CPUF_PSE36, CPUF_CLFSH, CPUF_MMX, CPUF_FXSR, CPUF_SSE, CPUF_SSE2,
    CPUF_SS,
    CPUF_FSGSBASE, CPUF_TSC_ADJUST, CPUF_BMI1, CPUF_FPDP_EXC_ONLY, CPUF_SMEP, CPUF_BMI2, CPUF_ERMS, CPUF_RDSEED, CPUF_ADX,
    CPUF_UMIP, CPUF_RDPID, CPUF_FSRM,
    CPUF_LAHF, CPUF_LZCNT, CPUF_PREFETCHW, CPUF_SYSCALL, CPUF_NX, CPUF_PDPE1GB, CPUF_RDTSCP, CPUF_LM,
};

static uint32_t offered_word(enum cpuf_word w)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(offered); i++)
        if (offered[i] >> 5 == (int)w)
            v |= BIT(offered[i]);
    return v;
}

/* ---- the model ---- */

struct table { struct cpuid_leaf *leaf; unsigned count; };

static void add(struct table *t, uint32_t leaf, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    t->leaf[t->count++] = (struct cpuid_leaf){ .leaf = leaf, .eax = a, .ebx = b, .ecx = c, .edx = d };
}

static void add_sub(struct table *t, uint32_t leaf, uint32_t sub, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    t->leaf[t->count++] = (struct cpuid_leaf){ .leaf = leaf, .subleaf = sub, .has_subleaf = true,
                                               .eax = a, .ebx = b, .ecx = c, .edx = d };
}

static unsigned ceil_log2(unsigned n)
{
    unsigned bits = 0;
    while ((1u << bits) < n)
        bits++;
    return bits;
}

/* Leaf 4: type 1 data, 2 code, 3 unified; sharing: threads; sets x ways x 64 bytes. */
static void add_cache(struct table *t, uint32_t sub, unsigned type, unsigned level, unsigned sharing, unsigned cores,
                      unsigned ways, unsigned sets)
{
    uint32_t eax = type | level << 5 | 1u << 8 | (sharing - 1) << 14 | ((1u << ceil_log2(cores)) - 1) << 26;
    add_sub(t, 4, sub, eax, (ways - 1) << 22 | 63, sets - 1, level == 3 ? 4 : 0);
}

static void add_brand(struct table *t)
{
    char brand[48] = "hv soft processor";
    uint32_t v[12];
    memcpy(v, brand, sizeof(v));
    for (unsigned i = 0; i < 3; i++)
        add(t, 0x80000002u + i, v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
}

int cpuid_model(const struct engine_config *cfg, unsigned vp, uint64_t tsc_hz, uint64_t crystal_hz,
                struct cpuid_leaf **ret, unsigned *ret_count)
{
    struct table t = { .leaf = hv_alloc_array(48, sizeof(*t.leaf)) };
    if (!t.leaf)
        return -ENOMEM;
    const unsigned n = cfg->vcpus, core_bits = ceil_log2(n);
    uint32_t leaf7d = offered_word(CPUF_W_7D);
    if (!cfg->mitigations_guest)
        leaf7d |= BIT(CPUF_ARCH_CAP) | BIT(CPUF_SPEC_CTRL) | BIT(CPUF_STIBP) | BIT(CPUF_SSBD);

    add(&t, 0, MAX_BASIC, 0x756e6547, 0x6c65746e, 0x49656e69);     /* GenuineIntel */
    add(&t, 1, CPUID_SIGNATURE, vp << 24 | MIN(1u << core_bits, 255u) << 16 | 8 << 8, offered_word(CPUF_W_1C),
        offered_word(CPUF_W_1D) | (n > 1 ? BIT(CPUF_HTT) : 0));
    add(&t, 2, 0x00feff01, 0, 0, 0);                               /* see leaf 4 */
    add_cache(&t, 0, 1, 1, 1, n, 12, 64);                          /* 48 KiB */
    add_cache(&t, 1, 2, 1, 1, n, 8, 64);                           /* 32 KiB */
    add_cache(&t, 2, 3, 2, 1, n, 16, 2048);                        /* 2 MiB */
    add_cache(&t, 3, 3, 3, 1u << core_bits, n, 16, 16384);         /* 16 MiB, shared by all */
    add_sub(&t, 4, 4, 0, 0, 0, 0);
    add(&t, 6, 4, 0, 0, 0);                                        /* ARAT: the APIC timer never stops */
    add_sub(&t, 7, 0, cfg->mitigations_guest ? 0 : 2, offered_word(CPUF_W_7B), offered_word(CPUF_W_7C), leaf7d);
    if (!cfg->mitigations_guest)
        add_sub(&t, 7, 2, 0, 0, 0, LEAF7_2_BHI_CTRL);              /* else Linux clears branch history by loops */
    add_sub(&t, 0xb, 0, 0, 1, 0x100, vp);
    add_sub(&t, 0xb, 1, core_bits, n, 0x201, vp);
    add_sub(&t, 0xb, 2, 0, 0, 2, vp);
    /* TSC = crystal * EBX / EAX; the APIC timer counts the crystal. Guests work in kHz: see soft.c for the ratio. */
    add(&t, 0x15, 1, (uint32_t)(tsc_hz / crystal_hz), (uint32_t)crystal_hz, 0);
    uint32_t mhz = (uint32_t)((tsc_hz + 500000) / 1000000);
    add(&t, 0x16, mhz, mhz, 100, 0);

    add(&t, 0x80000000u, MAX_EXTENDED, 0, 0, 0);
    add(&t, 0x80000001u, 0, 0, offered_word(CPUF_W_81C), offered_word(CPUF_W_81D));
    add_brand(&t);
    add(&t, 0x80000006u, 0, 0, 2048u << 16 | 8u << 12 | 64, 0);
    add(&t, 0x80000007u, 0, 0, 0, 1u << 8);                        /* invariant TSC */
    add(&t, 0x80000008u, cfg->phys_bits | 48u << 8, 0, 0, 0);
    *ret = t.leaf;
    *ret_count = t.count;
    return 0;
}

/* ---- the table in force ---- */

static const struct cpuid_leaf *find(const struct cpu *c, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < c->cpuid_count; i++) {
        const struct cpuid_leaf *l = &c->cpuid[i];
        if (l->leaf == leaf && (!l->has_subleaf || l->subleaf == subleaf))
            return l;
    }
    return NULL;
}

int cpuid_set(struct cpu *c, const struct cpuid_leaf *leaf, unsigned count)
{
    struct cpuid_leaf *copy = hv_alloc_array(count, sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    memcpy(copy, leaf, count * sizeof(*copy));
    free(c->cpuid);
    c->cpuid = copy;
    c->cpuid_count = count;
    for (unsigned w = 0; w < CPUF_W_COUNT; w++) {
        const struct cpuid_leaf *l = find(c, words[w].leaf, 0);
        const uint32_t regs[4] = { l ? l->eax : 0, l ? l->ebx : 0, l ? l->ecx : 0, l ? l->edx : 0 };
        c->cpuf[w] = regs[words[w].reg];
    }
    const struct cpuid_leaf *phys = find(c, 0x80000008u, 0);
    unsigned bits = phys && (phys->eax & 0xff) >= 32 && (phys->eax & 0xff) <= 52 ? phys->eax & 0xff : 36;
    c->phys_mask = ((1ull << bits) - 1) & HV_PAGE_MASK;
    return 0;
}

bool cpu_has(const struct cpu *c, unsigned feature)
{
    return c->cpuf[feature >> 5] >> (feature & 31) & 1;
}

static uint32_t max_of(const struct cpu *c, uint32_t range)
{
    const struct cpuid_leaf *l = find(c, range, 0);
    return l ? l->eax : 0;
}

void cpuid_read(struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
    /* Out of its range, or of a range that is not there: the highest basic leaf answers, as on Intel's. */
    const uint32_t range = leaf & 0xc0000000u, basic = max_of(c, 0);
    uint32_t max = range == 0 ? basic : range == 0x80000000u ? max_of(c, 0x80000000u)
                 : range == 0x40000000u ? max_of(c, leaf & 0xffffff00u) : 0;
    const struct cpuid_leaf *l = find(c, leaf, subleaf);
    if (!l && (leaf > max || max < range))
        l = find(c, leaf = basic, subleaf);
    memset(ret, 0, 4 * sizeof(*ret));
    if (l) {
        ret[0] = l->eax;
        ret[1] = l->ebx;
        ret[2] = l->ecx;
        ret[3] = l->edx;
    } else if (leaf == 0xb || leaf == 0x1f) {
        /* Levels that do not exist: type 0, the level and the APIC ID still there. */
        const struct cpuid_leaf *first = find(c, leaf, 0);
        ret[2] = subleaf & 0xff;
        ret[3] = first ? first->edx : 0;
    }
    if (leaf == 1) {
        ret[2] &= ~BIT(CPUF_OSXSAVE);
        if (c->cr4 & CR4_OSXSAVE)
            ret[2] |= BIT(CPUF_OSXSAVE);
        if (!lapic_enabled(&c->lapic))
            ret[3] &= ~BIT(CPUF_APIC);
    } else if (leaf == 7 && subleaf == 0) {
        ret[2] &= ~BIT(CPUF_OSPKE);
        if (c->cr4 & CR4_PKE)
            ret[2] |= BIT(CPUF_OSPKE);
    }
}
