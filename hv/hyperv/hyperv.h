/*
 * The Hyper-V interface of one partition (TLFS): CPUID leaves, synthetic MSRs, the hypercall
 * page and its calls, reference time, and the SynIC that carries messages and events to
 * virtual processors.
 *
 * What guests find and what not: synthetic timers are not offered, because both engines'
 * local APICs have a TSC deadline; nor are hypercalls for IPIs and TLB flushes.
 */
#ifndef HV_HYPERV_HYPERV_H
#define HV_HYPERV_HYPERV_H

#include "hv/base/error.h"
#include "hv/machine/machine.h"

struct hyperv;

/* A guest's registers at a hypercall: 64-bit code names RCX, RDX, R8; 32-bit code pairs. */
struct hyperv_regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, r8;
    bool long_mode;               /* 64-bit code, not compatibility mode */
};

/* What a crashed guest said: the five parameters, and the tail of its log where it gave one. */
struct hyperv_crash {
    uint64_t p[5];
    char text[4097];              /* printable; "" if there is none */
};

/* Called on a vCPU's thread with no lock held, unless said otherwise. All but read_tsc may be NULL. */
struct hyperv_hooks {
    uint64_t (*read_tsc)(void *arg, unsigned vp);
    int (*get_regs)(void *arg, unsigned vp, struct hyperv_regs *ret);
    int (*set_result)(void *arg, unsigned vp, bool long_mode, uint64_t result);  /* RAX, or EDX:EAX */
    /* HvPostMessage: 0; -ENOENT no such connection; -EAGAIN try again; else invalid. Must copy and not block. */
    int (*post_message)(void *arg, uint32_t connection, uint32_t type, const void *payload, uint32_t len);
    /* HvSignalEvent: 0 or -ENOENT. */
    int (*signal_event)(void *arg, uint32_t connection, uint16_t flag);
    /* A message slot that synic_post() found in use may be free now. Any thread. */
    void (*slot_free)(void *arg);
    /* The guest reported a crash. It may go on: to dump, to reboot. */
    void (*crashed)(void *arg, const struct hyperv_crash *crash);
    /* The guest wrote an MSR that the host's kernel wants to know of too (0x40000118). */
    void (*mirror)(void *arg, unsigned vp, uint32_t msr, uint64_t val);
    void *arg;
};

struct hyperv_config {
    struct machine *machine;
    unsigned vcpus;               /* VP index n is vCPU n, whose APIC ID is n */
    unsigned phys_bits;
    uint64_t tsc_hz, apic_hz;     /* of the guest's TSC; of its local APIC's timer before the divider */
    struct hyperv_hooks hooks;
};

/* Claims its MSRs and the hypercall, registers device "hyperv". */
int hyperv_new(const struct hyperv_config *cfg, struct hyperv **ret, struct hv_error *e);
void hyperv_free(struct hyperv *h);

/* One CPUID leaf of the interface: EAX, EBX, ECX, EDX. */
struct hyperv_leaf { uint32_t leaf, reg[4]; };
#define HYPERV_LEAVES 11
/* The leaves 0x40000000.. to show to every vCPU (TLFS 2.4). */
void hyperv_cpuid(const struct hyperv_config *cfg, struct hyperv_leaf leaf[HYPERV_LEAVES]);

/* Reference time in 100 ns, as the guest reads it (TLFS 12.4): a function of the guest's TSC. */
uint64_t hyperv_reference_time(struct hyperv *h, unsigned vp);
/* GUEST_OS_ID as written by the guest; 0 until it has said who it is. */
uint64_t hyperv_guest_os(struct hyperv *h);
bool hyperv_crash(struct hyperv *h, struct hyperv_crash *ret);   /* the last one since power-on or reset */

/*
 * Put a message (payload[len], len <= 240) into a VP's slot of a SINT and interrupt it
 * (TLFS 11.8). 0; -EAGAIN: the slot is in use or the VP's SynIC is off, hooks.slot_free
 * comes when that may have changed; -EINVAL: no such VP or SINT. Any thread.
 */
int hyperv_post(struct hyperv *h, unsigned vp, unsigned sint, uint32_t type, const void *payload, uint32_t len);
/*
 * Set an event flag (TLFS 11.9) and interrupt the VP if it was clear. 0; -EINVAL: no such VP,
 * SINT or flag; -ENXIO: its SynIC is off: the event is lost, as it is in hardware. Any thread.
 */
int hyperv_signal(struct hyperv *h, unsigned vp, unsigned sint, unsigned flag);

#endif
