/*
 * CPUID of the soft engine: the model it offers, and feature tests on what the guest was shown.
 *
 * A CPUF_* is word << 5 | bit: the word is one CPUID register, kept in cpu.cpuf[word] when the
 * table is set, so that a test is one load. SDM volume 2, CPUID.
 */
#ifndef HV_ENGINE_SOFT_CPUID_H
#define HV_ENGINE_SOFT_CPUID_H

#include "hv/engine/engine.h"

/* leaf, subleaf, register (0 EAX .. 3 EDX) of each word, in order of enum cpuf_word. */
enum cpuf_word {
    CPUF_W_1C, CPUF_W_1D, CPUF_W_7B, CPUF_W_7C, CPUF_W_7D, CPUF_W_81C, CPUF_W_81D, CPUF_W_COUNT
};
#define CPUF(word, bit) ((word) << 5 | (bit))

enum cpuf {
    CPUF_SSE3 = CPUF(CPUF_W_1C, 0), CPUF_PCLMULQDQ = CPUF(CPUF_W_1C, 1), CPUF_MONITOR = CPUF(CPUF_W_1C, 3),
    CPUF_SSSE3 = CPUF(CPUF_W_1C, 9), CPUF_FMA = CPUF(CPUF_W_1C, 12), CPUF_CX16 = CPUF(CPUF_W_1C, 13),
    CPUF_PCID = CPUF(CPUF_W_1C, 17), CPUF_SSE41 = CPUF(CPUF_W_1C, 19), CPUF_SSE42 = CPUF(CPUF_W_1C, 20),
    CPUF_X2APIC = CPUF(CPUF_W_1C, 21), CPUF_MOVBE = CPUF(CPUF_W_1C, 22), CPUF_POPCNT = CPUF(CPUF_W_1C, 23),
    CPUF_TSC_DEADLINE = CPUF(CPUF_W_1C, 24), CPUF_AES = CPUF(CPUF_W_1C, 25), CPUF_XSAVE = CPUF(CPUF_W_1C, 26),
    CPUF_OSXSAVE = CPUF(CPUF_W_1C, 27), CPUF_AVX = CPUF(CPUF_W_1C, 28), CPUF_RDRAND = CPUF(CPUF_W_1C, 30),
    CPUF_HYPERVISOR = CPUF(CPUF_W_1C, 31),

    CPUF_FPU = CPUF(CPUF_W_1D, 0), CPUF_VME = CPUF(CPUF_W_1D, 1), CPUF_DE = CPUF(CPUF_W_1D, 2),
    CPUF_PSE = CPUF(CPUF_W_1D, 3), CPUF_TSC = CPUF(CPUF_W_1D, 4), CPUF_MSR = CPUF(CPUF_W_1D, 5),
    CPUF_PAE = CPUF(CPUF_W_1D, 6), CPUF_MCE = CPUF(CPUF_W_1D, 7), CPUF_CX8 = CPUF(CPUF_W_1D, 8),
    CPUF_APIC = CPUF(CPUF_W_1D, 9), CPUF_SEP = CPUF(CPUF_W_1D, 11), CPUF_MTRR = CPUF(CPUF_W_1D, 12),
    CPUF_PGE = CPUF(CPUF_W_1D, 13), CPUF_MCA = CPUF(CPUF_W_1D, 14), CPUF_CMOV = CPUF(CPUF_W_1D, 15),
    CPUF_PAT = CPUF(CPUF_W_1D, 16), CPUF_PSE36 = CPUF(CPUF_W_1D, 17), CPUF_CLFSH = CPUF(CPUF_W_1D, 19),
    CPUF_MMX = CPUF(CPUF_W_1D, 23), CPUF_FXSR = CPUF(CPUF_W_1D, 24), CPUF_SSE = CPUF(CPUF_W_1D, 25),
    CPUF_SSE2 = CPUF(CPUF_W_1D, 26), CPUF_SS = CPUF(CPUF_W_1D, 27), CPUF_HTT = CPUF(CPUF_W_1D, 28),

    CPUF_FSGSBASE = CPUF(CPUF_W_7B, 0), CPUF_TSC_ADJUST = CPUF(CPUF_W_7B, 1), CPUF_BMI1 = CPUF(CPUF_W_7B, 3),
    CPUF_AVX2 = CPUF(CPUF_W_7B, 5), CPUF_SMEP = CPUF(CPUF_W_7B, 7), CPUF_BMI2 = CPUF(CPUF_W_7B, 8),
    CPUF_ERMS = CPUF(CPUF_W_7B, 9), CPUF_INVPCID = CPUF(CPUF_W_7B, 10), CPUF_FPDP_EXC_ONLY = CPUF(CPUF_W_7B, 6),
    CPUF_ZERO_FCS_FDS = CPUF(CPUF_W_7B, 13), CPUF_RDSEED = CPUF(CPUF_W_7B, 18), CPUF_ADX = CPUF(CPUF_W_7B, 19),
    CPUF_SMAP = CPUF(CPUF_W_7B, 20), CPUF_CLFLUSHOPT = CPUF(CPUF_W_7B, 23), CPUF_CLWB = CPUF(CPUF_W_7B, 24),
    CPUF_SHA = CPUF(CPUF_W_7B, 29),

    CPUF_UMIP = CPUF(CPUF_W_7C, 2), CPUF_PKU = CPUF(CPUF_W_7C, 3), CPUF_OSPKE = CPUF(CPUF_W_7C, 4),
    CPUF_LA57 = CPUF(CPUF_W_7C, 16), CPUF_RDPID = CPUF(CPUF_W_7C, 22), CPUF_MOVDIRI = CPUF(CPUF_W_7C, 27),
    CPUF_MOVDIR64B = CPUF(CPUF_W_7C, 28),

    CPUF_FSRM = CPUF(CPUF_W_7D, 4), CPUF_SERIALIZE = CPUF(CPUF_W_7D, 14), CPUF_SPEC_CTRL = CPUF(CPUF_W_7D, 26),
    CPUF_STIBP = CPUF(CPUF_W_7D, 27), CPUF_ARCH_CAP = CPUF(CPUF_W_7D, 29), CPUF_SSBD = CPUF(CPUF_W_7D, 31),

    CPUF_LAHF = CPUF(CPUF_W_81C, 0), CPUF_LZCNT = CPUF(CPUF_W_81C, 5), CPUF_PREFETCHW = CPUF(CPUF_W_81C, 8),
    CPUF_SYSCALL = CPUF(CPUF_W_81D, 11), CPUF_NX = CPUF(CPUF_W_81D, 20), CPUF_PDPE1GB = CPUF(CPUF_W_81D, 26),
    CPUF_RDTSCP = CPUF(CPUF_W_81D, 27), CPUF_LM = CPUF(CPUF_W_81D, 29),
};

/* EAX of leaf 1 of the model offered; also RDX after reset. Family 6, model 143, stepping 8. */
#define CPUID_SIGNATURE 0x000806f8u

struct cpu;
/* Take over a table (copied), as engine_ops.set_cpuid: 0 or -ENOMEM. */
int cpuid_set(struct cpu *c, const struct cpuid_leaf *leaf, unsigned count);
/* What the engine offers vCPU vp of cfg; tsc_hz and crystal_hz are what leaf 0x15 says. Caller frees *ret. */
int cpuid_model(const struct engine_config *cfg, unsigned vp, uint64_t tsc_hz, uint64_t crystal_hz,
                struct cpuid_leaf **ret, unsigned *ret_count);

#endif
