/* The CPUID leaves of the Hyper-V interface, TLFS 2.4. What is not offered here is refused by its MSR or call. */
#include "hv/hyperv/hyperv_impl.h"

/* Leaf 3, EAX: which MSRs the partition may use. */
#define ACCESS_TIME_REF       (1u << 1)
#define ACCESS_SYNIC          (1u << 2)
#define ACCESS_HYPERCALL      (1u << 5)
#define ACCESS_VP_INDEX       (1u << 6)
#define ACCESS_REFERENCE_TSC  (1u << 9)
#define ACCESS_FREQUENCY      (1u << 11)
#define ACCESS_TSC_INVARIANT  (1u << 15)
/* Leaf 3, EBX: which calls. Never AccessPartitionId or CpuManagement: Linux would take itself for the root. */
#define POST_MESSAGES         (1u << 4)
#define SIGNAL_EVENTS         (1u << 5)
#define EXTENDED_HYPERCALLS   (1u << 20)
/* Leaf 3, EDX */
#define FREQUENCY_MSRS        (1u << 8)
#define CRASH_MSRS            (1u << 10)
/* Leaf 4, EAX: what it should do. Auto-EOI is deprecated: the KVM kernel's local APIC has none. */
#define RELAXED_TIMING        (1u << 5)
#define DEPRECATE_AUTO_EOI    (1u << 9)

void hyperv_cpuid(const struct hyperv_config *cfg, struct hyperv_leaf leaf[HYPERV_LEAVES])
{
    const struct hyperv_leaf all[HYPERV_LEAVES] = {
        /* "Microsoft Hv", and the highest leaf. */
        {0x40000000, {0x4000000a, 0x7263694d, 0x666f736f, 0x76482074}},
        {0x40000001, {0x31237648, 0, 0, 0}},                       /* "Hv#1" */
        {0x40000002, {0x4f7c, 0x000a0000, 0, 0}},                  /* 10.0, build 20348 */
        {0x40000003,
         {ACCESS_TIME_REF | ACCESS_SYNIC | ACCESS_HYPERCALL | ACCESS_VP_INDEX | ACCESS_REFERENCE_TSC |
              ACCESS_FREQUENCY | ACCESS_TSC_INVARIANT,
          POST_MESSAGES | SIGNAL_EVENTS | EXTENDED_HYPERCALLS, 0, FREQUENCY_MSRS | CRASH_MSRS}},
        {0x40000004, {RELAXED_TIMING | DEPRECATE_AUTO_EOI, UINT32_MAX, cfg->phys_bits, 0}},
        {0x40000005, {HYPERV_VCPUS_MAX, HYPERV_VCPUS_MAX, 0, 0}},
        {0x40000006, {0}}, {0x40000007, {0}}, {0x40000008, {0}}, {0x40000009, {0}}, {0x4000000a, {0}},
    };
    memcpy(leaf, all, sizeof(all));
}
