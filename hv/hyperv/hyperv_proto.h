/* Numbers of the Hyper-V interface as the TLFS defines them (Linux: arch/x86/include/asm/hyperv-tlfs.h). */
#ifndef HV_HYPERV_HYPERV_PROTO_H
#define HV_HYPERV_HYPERV_PROTO_H

/* Synthetic MSRs, TLFS appendix C */
enum {
    HV_MSR_GUEST_OS_ID   = 0x40000000, HV_MSR_HYPERCALL    = 0x40000001, HV_MSR_VP_INDEX     = 0x40000002,
    HV_MSR_RESET         = 0x40000003, HV_MSR_TIME_REF     = 0x40000020, HV_MSR_REFERENCE_TSC = 0x40000021,
    HV_MSR_TSC_HZ        = 0x40000022, HV_MSR_APIC_HZ      = 0x40000023, HV_MSR_VP_ASSIST    = 0x40000073,
    HV_MSR_SCONTROL      = 0x40000080, HV_MSR_SVERSION     = 0x40000081, HV_MSR_SIEFP        = 0x40000082,
    HV_MSR_SIMP          = 0x40000083, HV_MSR_EOM          = 0x40000084, HV_MSR_SINT0        = 0x40000090,
    HV_MSR_CRASH_P0      = 0x40000100, HV_MSR_CRASH_CTL    = 0x40000105, HV_MSR_TSC_INVARIANT = 0x40000118,
};
#define HV_MSR_FIRST 0x40000000u
#define HV_MSR_COUNT 0x200u

#define HV_PAGE_ENABLE    1ull            /* bit 0 of every MSR that names a page */
#define HV_SINT_VECTOR    0xffull         /* TLFS 11.7.3 */
#define HV_SINT_MASKED    (1ull << 16)
#define HV_SINT_AUTO_EOI  (1ull << 17)
#define HV_SINT_POLLING   (1ull << 18)
#define HV_SINT_RESET     HV_SINT_MASKED
#define HV_SINTS          16u
#define HV_SIM_SLOT       256u            /* bytes of a message slot and of a SINT's event flags */
#define HV_EVENT_FLAGS    2048u
#define HV_MESSAGE_MAX    240u
#define HV_MESSAGE_PENDING 1u             /* byte 5 of a slot */

#define HV_CRASH_NOTIFY   (1ull << 63)
#define HV_CRASH_MESSAGE  (1ull << 62)

/* Hypercalls, TLFS 3 and appendix A */
enum {
    HV_CALL_POST_MESSAGE = 0x005c, HV_CALL_SIGNAL_EVENT = 0x005d,
    HV_EXT_CALL_QUERY_CAPABILITIES = 0x8001, HV_EXT_CALL_HEAT_HINT = 0x8003,
};
#define HV_EXT_CAPABILITY_COLD_DISCARD (1ull << 8)
enum hv_status {
    HV_STATUS_SUCCESS = 0, HV_STATUS_INVALID_CALL = 2, HV_STATUS_INVALID_INPUT = 3, HV_STATUS_INVALID_ALIGNMENT = 4,
    HV_STATUS_INVALID_PARAMETER = 5, HV_STATUS_INVALID_PORT = 17, HV_STATUS_INVALID_CONNECTION = 18,
    HV_STATUS_NO_BUFFERS = 19,
};

#endif
