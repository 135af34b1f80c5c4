/*
 * Inside the kvm engine: one VM of the Linux kernel's KVM with a split interrupt controller
 * (local APICs in the kernel, PIC and IOAPIC ours), and its vCPUs.
 * Interface of the kernel: Documentation/virt/kvm/api.rst.
 */
#ifndef HV_ENGINE_KVM_H
#define HV_ENGINE_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "hv/engine/engine.h"

#define KVM_MAGIC 0x4b564d48u
#define KVM_MAX_VCPUS 64u
#define KVM_PINS 24u                    /* of the IOAPIC: GSIs reserved for routes */
#define KVM_MAX_SLOTS 128u              /* RAM regions; hot-added ones each take one */
#define KVM_MAX_MSRS 512u               /* indexes the kernel lists: about 120 today */
#define KVM_MAX_CPUID 256u
#define KVM_APIC_HZ UINT64_C(1000000000) /* the in-kernel timer counts nanoseconds */

/* MSRs of the Hyper-V interface: the machine answers, never the kernel. */
#define KVM_MSR_HV_FIRST 0x40000000u
#define KVM_MSR_HV_COUNT 0x200u
#define KVM_MSR_TSC 0x10u
#define SYNC_CALL (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)      /* what a hypercall reads */
#define KVM_MSR_TSC_DEADLINE 0x6e0u

enum kvm_stat {
    KSTAT_EXITS, KSTAT_PIO, KSTAT_MMIO, KSTAT_MSR, KSTAT_HYPERCALL, KSTAT_WINDOW, KSTAT_EXTINT, KSTAT_EOI,
    KSTAT_SIGNAL, KSTAT_KICK, KSTAT_RING, KSTAT_COUNT
};

struct kvm_slot { gpa_t gpa; uint64_t len; uint8_t *hva; bool readonly; uint64_t *dirty; };   /* len 0: free */

/* Architectural state as the kernel gives and takes it. */
struct kvm_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_vcpu_events events;
    struct kvm_lapic_state lapic;
    struct kvm_mp_state mp;
    uint64_t tsc, tsc_deadline;
    uint8_t *xsave;                     /* xsave[kvm.xsave_len] */
    uint64_t *msr;                      /* msr[kvm.msrs], in the order of kvm.msr_index */
};

struct vcpu {
    struct kvm *kvm;
    unsigned vp;
    int fd;
    struct kvm_run *run;
    struct kvm_dirty_gfn *ring;         /* NULL: the log is by bitmaps */
    uint32_t ring_at;                   /* the next entry to take; slot_lock */
    bool unfinished;                    /* the last exit was within an instruction, which the next KVM_RUN completes */
    atomic_bool kicked;
    atomic_int tid;                     /* of the thread inside run(), else 0 */
    pthread_mutex_t ask_lock;           /* guards inside, and the answer */
    pthread_cond_t answered;
    bool inside;                        /* a thread is in run() */
    atomic_bool asked;                  /* somebody waits for the TSC */
    uint64_t answer;
    struct kvm_regs call;               /* of the hypercall that is being answered */
    bool call_long;
    struct kvm_state power_on;
    char group[16];
    struct stats_table table;
    _Atomic uint64_t value[KSTAT_COUNT];
};

struct kvm {
    struct engine engine;
    uint32_t magic;
    struct engine_config cfg;
    struct engine_callbacks cb;
    void *arg;
    int dev_fd, vm_fd;
    size_t run_len, xsave_len;
    unsigned vcpus, phys_bits;
    uint64_t tsc_hz;
    bool sync_regs;                     /* registers come and go with KVM_RUN */
    bool xsave2, tsc_scaling, tsc_deadline, tsc_offset;
    struct vcpu vcpu[KVM_MAX_VCPUS];
    uint32_t msr_index[KVM_MAX_MSRS];
    unsigned msrs;
    atomic_bool extint;                 /* the PIC's INTR line */
    pthread_mutex_t route_lock;
    struct kvm_route { uint64_t addr; uint32_t data; bool level; } route[KVM_PINS];
    pthread_mutex_t slot_lock;
    struct kvm_slot slot[KVM_MAX_SLOTS];
    unsigned max_slots;
    atomic_bool logging;                /* changes with slot_lock held */
    bool dirty_ring;
};

struct kvm *kvm_checked(const struct engine *g);

/* ioctl without EINTR: its result, or -errno. */
int kvm_ioctl(int fd, unsigned long request, const void *arg);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long value);

/* kvm_host.c. Does this host's KVM have all that the engine needs? 0, or a negative errno with e filled. */
int kvm_probe(int kvm_fd, struct hv_error *e);      /* -1: opens the device */
/* Opens /dev/kvm (or takes a duplicate of fd) and checks it. The descriptor, or a negative errno with e filled. */
int kvm_host_open(int fd, struct hv_error *e);
/* Fills k->msr_index with what vCPU 0 can read and a saved state has to carry. */
int kvm_host_msrs(struct kvm *k);

/* kvm_cpuid.c */
int kvm_cpuid_get(struct kvm *k, unsigned vp, struct cpuid_leaf **ret, unsigned *ret_count);
int kvm_cpuid_set(struct vcpu *v, const struct cpuid_leaf *leaf, unsigned count);
/* Takes AMX out of t[count] where leaf 0xD has no state for it. How many leaves are left. */
unsigned kvm_cpuid_without_amx(struct cpuid_leaf *t, unsigned count);
/* num/den nearest to hz/KVM_APIC_HZ with num at most max: leaf 0x15. */
void kvm_cpuid_ratio(uint64_t hz, uint32_t max, uint32_t *ret_num, uint32_t *ret_den);

/* kvm_run.c */
int kvm_run_init(struct hv_error *e);
enum engine_stop kvm_run_vcpu(struct vcpu *v, struct hv_error *e);
void kvm_kick(struct vcpu *v);
/* Have a vCPU look at the engine's flags soon, without ending its run. */
void kvm_poke(struct vcpu *v);
/* May this thread use the vCPU's descriptor? Else the call would wait until the guest exits: for ever, if it is idle. */
bool kvm_is_mine(const struct vcpu *v);
/* The guest's TSC. Any thread. */
uint64_t kvm_read_tsc(struct vcpu *v);
void kvm_count(struct vcpu *v, enum kvm_stat s);

/* kvm_irq.c */
void kvm_send_msi(struct kvm *k, uint64_t addr, uint32_t data);
void kvm_set_route(struct kvm *k, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked);
void kvm_reset_routes(struct kvm *k);
void kvm_eoi(struct vcpu *v, unsigned vector);
/* Before a save: ends of interrupts that the kernel has not told yet. All vCPUs are outside their runs. */
void kvm_settle_eois(struct kvm *k);
void kvm_set_extint(struct kvm *k, bool asserted);
/* Before a run: inject what the PIC has, or ask for an exit when it can be. */
void kvm_offer_extint(struct vcpu *v);

/* kvm_memory.c */
/* Make slot i what s says; slot_lock is held, as in the next two. 0, or a negative errno. */
int kvm_slot_tell(struct kvm *k, unsigned i, const struct kvm_slot *s);
int kvm_map(struct kvm *k, gpa_t gpa, uint64_t len, void *hva, bool readonly);
int kvm_unmap(struct kvm *k, gpa_t gpa, uint64_t len);
void kvm_memory_fini(struct kvm *k);
/* The bytes buf[len] of RAM at gpa; false if one of them is not RAM. */
bool kvm_peek(struct kvm *k, gpa_t gpa, void *buf, size_t len);

/* kvm_dirty.c */
#define KVM_BITMAP_WORDS(len) ((size_t)((len) / HV_PAGE_SIZE + 63) / 64)
/* Before the first vCPU: use rings where the kernel has them. HV_KVM_DIRTY_RING=off, for tests: bitmaps. */
void kvm_dirty_ring_init(struct kvm *k);
int kvm_dirty_ring_map(struct vcpu *v);
void kvm_dirty_ring_unmap(struct vcpu *v);
/* A vCPU cannot go on before its ring has room. Any thread. */
int kvm_dirty_ring_full(struct kvm *k);
/* Bring slot i's bitmap up to date; slot_lock is held. */
int kvm_dirty_collect(struct kvm *k, unsigned i);
/* part's bits from those of the slot it was cut from. */
void kvm_dirty_copy(struct kvm_slot *part, const struct kvm_slot *whole);
int kvm_dirty_log(struct kvm *k, bool on);
int kvm_dirty_fetch(struct kvm *k, gpa_t gpa, uint64_t pages, uint64_t *bitmap);
void kvm_host_wrote(struct kvm *k, gpa_t gpa, uint64_t len);

/* kvm_regs.c */
int kvm_regs_get(struct vcpu *v, struct vcpu_regs *ret);
int kvm_regs_set(struct vcpu *v, const struct vcpu_regs *regs);
int kvm_call_get(struct vcpu *v, struct vcpu_call *ret);
int kvm_call_set(struct vcpu *v, const struct vcpu_call *call);
enum vcpu_mp_state kvm_mp_get(struct vcpu *v);
void kvm_mp_set(struct vcpu *v, enum vcpu_mp_state st);

/* kvm_state.c */
int kvm_state_alloc(const struct kvm *k, struct kvm_state *s);
void kvm_state_free(struct kvm_state *s);
int kvm_state_get(struct vcpu *v, struct kvm_state *ret);
/* 0, or -errno with *ret_what naming the part that was refused. */
int kvm_state_put(struct vcpu *v, const struct kvm_state *s, const char **ret_what);
int kvm_msr_read(struct vcpu *v, uint32_t msr, uint64_t *ret);
int kvm_msr_write(struct vcpu *v, uint32_t msr, uint64_t val);
/* Take the present state as that of power-on, with what firmware would have set. */
int kvm_power_on_init(struct vcpu *v);
/* 0, or -errno with *ret_what naming the part that was refused. */
int kvm_reset(struct kvm *k, const char **ret_what);
void kvm_save(struct kvm *k, struct save_writer *w);
int kvm_load(struct kvm *k, const struct load_reader *r, struct hv_error *e);

#endif
