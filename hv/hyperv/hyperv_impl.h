/* Shared by the files of this room only. */
#ifndef HV_HYPERV_IMPL_H
#define HV_HYPERV_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "hv/hyperv/hyperv.h"
#include "hv/hyperv/hyperv_proto.h"

#define HYPERV_MAGIC 0x48565431u
#define HYPERV_VCPUS_MAX 64u

#define HYPERV_STATS(X)                                                                     \
    X(CALLS, "hypercalls", "", "hypercalls made")                                           \
    X(BAD_CALLS, "bad_hypercalls", "", "of them refused")                                   \
    X(MESSAGES, "messages", "", "SynIC messages delivered")                                 \
    X(BUSY_SLOTS, "busy_slots", "", "messages that had to wait for their slot")             \
    X(EVENTS, "events", "", "SynIC events delivered")                                       \
    X(LOST_EVENTS, "lost_events", "", "events for a processor whose SynIC is off")          \
    X(DISCARDED, "discarded_pages", "pages", "free pages the guest let go of")
enum hyperv_counter {
#define HYPERV_STAT_ENUM(id, name, unit, help) HYPERV_##id,
    HYPERV_STATS(HYPERV_STAT_ENUM)
#undef HYPERV_STAT_ENUM
    HYPERV_COUNTERS
};

/* One virtual processor's SynIC. `lock` guards it: guest MSRs against messages from other threads. */
struct synic {
    pthread_mutex_t lock;
    uint64_t scontrol, siefp, simp, vp_assist;
    uint64_t sint[HV_SINTS];
    bool waiting;                 /* a message was refused: tell when the slot may be free */
};

struct hyperv {
    uint32_t magic;
    struct hyperv_config cfg;
    struct mem *mem;
    pthread_mutex_t lock;         /* guards the next: written by any vCPU */
    uint64_t guest_os_id, hypercall, reference_tsc, tsc_invariant;
    uint64_t time_offset;         /* 100 ns, modulo 2^64: reference time where the guest's TSC is 0 */
    uint32_t time_sequence;       /* of the reference TSC page: changes with what the page says */
    uint64_t crash_p[5];
    bool has_crash;
    struct hyperv_crash crash;
    struct synic vp[HYPERV_VCPUS_MAX];
    struct stats_table stats;
    _Atomic uint64_t count[HYPERV_COUNTERS];
};

/* synic.c: -EINVAL is #GP(0) to the guest. */
int synic_read(struct hyperv *h, unsigned vp, uint32_t msr, uint64_t *ret);
int synic_write(struct hyperv *h, unsigned vp, uint32_t msr, uint64_t val);
void synic_reset(struct synic *s);
bool synic_valid(const struct synic *s);

/* hypercall.c: machine_add_hypercall's function. */
int hypercall_dispatch(void *dev, unsigned vp);

/* 10^7 / tsc_hz as the fraction of 2^64 that the reference TSC page has (TLFS 12.6). */
uint64_t reference_scale(uint64_t tsc_hz);

#endif
