/*
 * The only view the rest of the project has of a CPU engine (DESIGN 3). An engine
 * runs vCPUs against guest memory and calls back for what the machine has to
 * answer; it never knows a device. `kvm` and `soft` implement this table.
 *
 * Threads: each vCPU is run by one thread, which alone calls the vcpu functions
 * marked [vcpu]; everything else may be called from any thread unless marked
 * [quiesced]: all vCPUs are outside engine_run().
 */
#ifndef HV_ENGINE_ENGINE_H
#define HV_ENGINE_ENGINE_H

#include "hv/base/error.h"
#include "hv/base/save.h"
#include "hv/base/stats.h"

struct engine;
struct vcpu;

enum engine_kind { ENGINE_AUTO, ENGINE_KVM, ENGINE_SOFT };

/* Capability bits; above the engine they choose CPUID leaves only. */
enum engine_caps {
    ENGINE_CAP_STIMER      = 1 << 0,  /* synthetic timers may be offered */
    ENGINE_CAP_DIRTY_LOG   = 1 << 1,
    ENGINE_CAP_TSC_SCALING = 1 << 2,  /* guest TSC frequency can differ from the host's */
};

/* What the engine asks of the machine. Called on a vCPU's thread, no engine lock held. */
struct engine_callbacks {
    /* count elements of size (1, 2, 4) bytes each: >1 for REP INS/OUTS, to one port. */
    void (*pio_in)(void *arg, unsigned vp, uint16_t port, unsigned size, void *data, uint32_t count);
    void (*pio_out)(void *arg, unsigned vp, uint16_t port, unsigned size, const void *data,
                    uint32_t count);
    /* len 1..8, within one page; not RAM. */
    void (*mmio_read)(void *arg, unsigned vp, gpa_t gpa, void *data, unsigned len);
    void (*mmio_write)(void *arg, unsigned vp, gpa_t gpa, const void *data, unsigned len);
    /* MSRs that the engine does not own (0x40000000..0x400001ff and what machine.h holds).
     * 0, or -ENOENT / -EINVAL: the guest gets #GP(0). */
    int (*msr_read)(void *arg, unsigned vp, uint32_t msr, uint64_t *ret);
    int (*msr_write)(void *arg, unsigned vp, uint32_t msr, uint64_t val);
    /* `out 0xEA, al` at CPL 0 (DESIGN 4). Registers through get_call/set_call, or get_regs/set_regs.
     * 0, or -ENOSYS: #UD. */
    int (*hypercall)(void *arg, unsigned vp);
    /* A level-triggered vector of this IOAPIC pin got its EOI. */
    void (*eoi)(void *arg, unsigned pin);
    /* The PIC's INTA cycle: the vector, or -1 if nothing is pending. */
    int (*extint_ack)(void *arg);
};

/* Why engine_run returned. */
enum engine_stop {
    ENGINE_STOP_KICKED,      /* vcpu_kick() */
    ENGINE_STOP_SHUTDOWN,    /* triple fault: reset the machine */
    ENGINE_STOP_ERROR,       /* e says what; the vCPU cannot go on */
};

/* Architectural state. Segment attributes in VMX form: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, DB 14, G 15, unusable 16. */
struct vcpu_seg { uint64_t base; uint32_t limit, attr; uint16_t sel; };
struct vcpu_regs {
    uint64_t gpr[16];               /* RAX RCX RDX RBX RSP RBP RSI RDI R8..R15 */
    uint64_t rip, rflags;
    struct vcpu_seg seg[6];         /* ES CS SS DS FS GS */
    struct vcpu_seg ldtr, tr;
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
    uint64_t dr[8];
};
/* What a hypercall needs of them. */
struct vcpu_call { uint64_t gpr[16]; bool long_mode; };
enum vcpu_mp_state { VCPU_MP_RUNNABLE, VCPU_MP_WAIT_SIPI, VCPU_MP_HALTED };

/* CPUID as the guest sees it: all leaves are listed; absent leaves read as the highest basic leaf does. */
struct cpuid_leaf { uint32_t leaf, subleaf; bool has_subleaf; uint32_t eax, ebx, ecx, edx; };

struct engine_config {
    unsigned vcpus;                 /* 1..64 */
    unsigned phys_bits;             /* MAXPHYADDR shown to the guest */
    uint64_t tsc_hz;                /* 0: the engine's own (see engine_tsc_hz) */
    int kvm_fd;                     /* kvm only: /dev/kvm, stays the caller's; 0 or -1: the engine opens it */
    bool mitigations_guest;         /* soft only: true = let the guest mitigate as on unknown hardware */
};

struct engine_ops {
    const char *name;               /* "soft", "kvm" */
    int (*create)(const struct engine_config *cfg, const struct engine_callbacks *cb, void *arg,
                  struct engine **ret, struct hv_error *e);
    void (*destroy)(struct engine *g);
    unsigned (*caps)(const struct engine *g);
    uint64_t (*tsc_hz)(const struct engine *g);
    uint64_t (*apic_hz)(const struct engine *g);   /* what the local APIC timer counts, before its divider */
    /* Map len bytes of host memory at hva as RAM at gpa. [quiesced] or a range not yet mapped. */
    int (*map)(struct engine *g, gpa_t gpa, uint64_t len, void *hva, bool readonly);
    int (*unmap)(struct engine *g, gpa_t gpa, uint64_t len);       /* [quiesced] */
    int (*set_cpuid)(struct engine *g, unsigned vp, const struct cpuid_leaf *leaf, unsigned count);
    /* What the engine can offer, before the machine adds hypervisor leaves. Caller frees *ret. */
    int (*get_cpuid)(struct engine *g, unsigned vp, struct cpuid_leaf **ret, unsigned *ret_count);
    void (*send_msi)(struct engine *g, uint64_t addr, uint32_t data);
    /* What pin of the IOAPIC sends; level: report its EOI through callbacks.eoi. masked: no route. */
    void (*set_route)(struct engine *g, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked);
    void (*set_extint)(struct engine *g, bool asserted);           /* the PIC's INTR line, to vp 0 */
    void (*nmi)(struct engine *g, unsigned vp);
    /* Host code wrote or punched these bytes: drop code made from them, on every vCPU, and log them as dirty (DESIGN 6). */
    void (*drop_code)(struct engine *g, gpa_t gpa, uint64_t len);
    /* Dirty log over RAM: start/stop, and fetch-and-clear into bitmap[], one bit a page. */
    int (*dirty_log)(struct engine *g, bool on);
    int (*dirty_fetch)(struct engine *g, gpa_t gpa, uint64_t pages, uint64_t *bitmap);
    struct vcpu *(*vcpu)(struct engine *g, unsigned vp);
    enum engine_stop (*run)(struct vcpu *v, struct hv_error *e);   /* [vcpu] */
    void (*kick)(struct vcpu *v);   /* makes a running or halted vCPU, or its next run, return soon */
    int (*get_regs)(struct vcpu *v, struct vcpu_regs *ret);        /* [vcpu] or [quiesced], as the next three */
    int (*set_regs)(struct vcpu *v, const struct vcpu_regs *regs);
    /* Inside callbacks.hypercall: the same of general registers alone, much cheaper. NULL: not in this engine. */
    int (*get_call)(struct vcpu *v, struct vcpu_call *ret);
    int (*set_call)(struct vcpu *v, const struct vcpu_call *call);
    enum vcpu_mp_state (*get_mp)(struct vcpu *v);
    void (*set_mp)(struct vcpu *v, enum vcpu_mp_state st);
    uint64_t (*read_tsc)(struct vcpu *v);                          /* guest TSC now; any thread */
    /* Power-on state: registers, LAPIC, MSRs; AP waits for SIPI. Guest memory is not touched. [quiesced] */
    void (*reset)(struct engine *g);
    /* Everything architectural of every vCPU incl. LAPIC page, MSRs, FPU, MP state, TSC. [quiesced]
     * The TSC is saved as a value; after load it goes on from there. */
    void (*save)(struct engine *g, struct save_writer *w);
    int (*load)(struct engine *g, const struct load_reader *r, struct hv_error *e);
    /* The guest wrote an MSR of the machine's that the host's kernel must know of too. Optional. [vcpu] */
    void (*mirror_msr)(struct vcpu *v, uint32_t msr, uint64_t val);
    void (*stats)(struct engine *g, struct stats_registry *r);     /* exits by kind, instructions, ... */
    /* Optional: the region whose pages turn executable while guests run, as the worker's sandbox has to
     * know it: a power of two, aligned to itself, an inaccessible page behind it. *ret_len 0: none. */
    void (*code_region)(const struct engine *g, const void **ret_base, size_t *ret_len);
};

struct engine { const struct engine_ops *ops; };

extern const struct engine_ops engine_soft, engine_kvm;

/*
 * The engine for `kind`; ENGINE_AUTO is kvm only where VT-x/AMD-V backs /dev/kvm, else
 * soft. NULL with e filled (code unsupported) if it cannot serve here.
 */
const struct engine_ops *engine_choose(enum engine_kind kind, struct hv_error *e);
/*
 * The same for a process that can open nothing: kvm_fd is an open /dev/kvm, which with
 * ENGINE_AUTO the caller found to be backed by hardware; -1: as above.
 */
const struct engine_ops *engine_choose_fd(enum engine_kind kind, int kvm_fd, struct hv_error *e);
/* get_call and set_call, or what stands for them in an engine without. As those: inside callbacks.hypercall. */
int engine_get_call(struct engine *g, struct vcpu *v, struct vcpu_call *ret);
int engine_set_call(struct engine *g, struct vcpu *v, const struct vcpu_call *call);
/* One sentence on what backs /dev/kvm and what auto takes; for `host doctor`. */
const char *engine_describe(char *buf, size_t size);

#endif
