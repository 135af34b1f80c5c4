/*
 * The soft engine as a whole: its vCPUs, the RAM it was given, what threads ask of each
 * other. struct cpu (cpu.h) is one vCPU's architecture; struct vcpu is that plus its thread.
 *
 * A vCPU's software TLB and blocks belong to its thread. Others change them by request:
 *
 *   asker   request: flush_req + 1, or a range in work[]; then ATT_WORK in attention
 *   vCPU    at its next block, or when it comes back from a callback or from parking: does it
 *   asker   if it must know that it is done: waits until flush_ack caught up or the vCPU is
 *           not in_guest. in_guest is 0 while parked, outside run() and inside callbacks, so
 *           that nobody waits for a device's lock; going back to 1 looks at the requests
 *           before guest memory is touched again (soft_enter_guest()).
 *
 * A vCPU that waits for another sets its own in_guest to 0 meanwhile: no cycle of waits.
 */
#ifndef HV_ENGINE_SOFT_SOFT_H
#define HV_ENGINE_SOFT_SOFT_H

#include <pthread.h>
#include <stdatomic.h>

#include "hv/engine/soft/cpu.h"

#define SOFT_MAX_VCPUS 64
#define SOFT_MAX_PINS  256         /* IOAPIC pins with a route; far above the 24 there are */
#define SOFT_WORK_MAX  256         /* ranges a vCPU may have waiting; more: drop all its code */

/*
 * Of each page of RAM: which vCPUs have code made from it, who may have it writable in a TLB
 * without passing by the slow path (0 nobody, vp + 1, WRITER_MANY), and the dirty log's mark.
 */
struct soft_page {
    _Atomic uint64_t code;         /* bit a vCPU */
    _Atomic uint8_t writer;
    _Atomic uint8_t dirty;
};
#define WRITER_MANY 0xff

struct soft_slot {
    gpa_t gpa;
    uint64_t len;
    uint8_t *hva;
    bool readonly;
    struct soft_page *page;        /* page[len / HV_PAGE_SIZE] */
};

/*
 * Sorted by gpa. A slot above all others is appended in place; else, or when it is full, the map is
 * replaced as a whole. Readers may hold an old one until all vCPUs are outside run().
 */
struct soft_map {
    struct soft_map *retired_next;
    unsigned cap;
    _Atomic unsigned count;
    struct soft_slot *slot[];
};

enum soft_stat {
    STAT_INSNS, STAT_PIO, STAT_MMIO, STAT_MSR, STAT_IRQ, STAT_HLT, STAT_KICK, STAT_TLB_FLUSH, STAT_CODE_DROP,
    STAT_EXCEPTION, STAT_TRANSLATED, STAT_CODE_BYTES, STAT_CODE_FLUSH, STAT_CODE_BOUND,
    STAT_BLOCK_BYTES, STAT_BLOCK_BOUND, STAT_BLOCK_FLUSH, STAT_LOCKSTEP, STAT_COUNT
};

struct vcpu {
    struct cpu cpu;                /* first: struct cpu * and struct vcpu * convert both ways */
    uint64_t exceptions, tlb_flushes, code_drops, kicks;          /* counters, as those of cpu */
    _Atomic uint64_t value[STAT_COUNT];
    struct stats_table table;
    char group[16];

    _Atomic uint32_t nmis;         /* sent, not yet looked at; ATT_NMI says that there are some */
    _Atomic uint32_t in_guest;
    _Atomic uint64_t flush_req, flush_ack;
    pthread_mutex_t lock;          /* work[] and the parking place */
    pthread_cond_t cond;
    _Atomic bool parked;
    struct { gpa_t gpa; uint64_t len; } work[SOFT_WORK_MAX];
    unsigned work_count;
    bool work_all;

    uint8_t random[256];           /* RDRAND's pool: one getrandom() fills many */
    unsigned random_left;
};

/* Below a struct vcpu: its address is the stack pointer of translated code, so frames of signals go there. */
#define SOFT_VCPU_RED_ZONE (64 * KIB)

struct soft {
    struct engine engine;
    uint32_t magic;
    struct engine_config cfg;
    struct engine_callbacks cb;
    void *arg;
    uint64_t host_tsc_hz, tsc_hz, apic_hz;
    uint64_t tsc_ratio;            /* guest ticks a host tick, 32.32; 0: the same */
    uint64_t tsc_base;             /* host TSC at creation */
    uint64_t reset_tsc;            /* tsc_guest_at() of the last reset: guest TSCs count from there */

    _Atomic(struct soft_map *) map;
    struct soft_map *retired;
    pthread_mutex_t map_lock;      /* writers of map */
    _Atomic bool dirty_log;

    _Atomic bool extint;
    _Atomic uint32_t route[SOFT_MAX_PINS];        /* vector | ROUTE_LEVEL */
    _Atomic uint32_t lowest_next;                 /* rotates lowest-priority delivery */

    uint8_t *code_base;                           /* code caches of all vCPUs, code_region.c; NULL: none */
    size_t code_len;

    unsigned vcpus;
    struct vcpu *vcpu[SOFT_MAX_VCPUS];
};
#define SOFT_MAGIC 0x54464f53u
#define ROUTE_LEVEL 0x100u

static inline struct vcpu *vcpu_of(struct cpu *c) { return (struct vcpu *)(void *)c; }

/* ---- memory map, soft_mem.c. [any] ---- */
struct soft_slot *soft_slot_at(struct soft *s, gpa_t gpa);
struct soft_page *soft_page_at(struct soft *s, gpa_t gpa);       /* NULL: not RAM */
int soft_map_ram(struct soft *s, gpa_t gpa, uint64_t len, void *hva, bool readonly);
int soft_unmap_ram(struct soft *s, gpa_t gpa, uint64_t len);
void soft_map_fini(struct soft *s);
int soft_dirty_log(struct soft *s, bool on);
int soft_dirty_fetch(struct soft *s, gpa_t gpa, uint64_t pages, uint64_t *bitmap);
/* The CPU itself is about to write this page (page table bits): log it. */
void soft_mark_dirty(struct soft *s, gpa_t gpa);
/*
 * A vCPU's TLB is about to hold the page writable: note it, and answer which TLB_SLOW_* bits
 * the write tag must carry. `writing`: now, so the dirty mark is set and not asked for.
 */
uint64_t soft_write_tag_bits(struct cpu *c, gpa_t gpa, bool writing);

/* ---- requests between threads, work.c ---- */
/* Have vCPU v flush its TLB; returns at once. soft_flush_wait() waits until it has, see the head. [any] */
void soft_flush_post(struct vcpu *v);
void soft_flush_wait(struct soft *s, struct vcpu *self /* or NULL */);
/* Have the parked vCPU v drop all code and forget how much room it came to need. */
void soft_forget_post(struct vcpu *v);
/* Have every vCPU with code made from gpa[len] drop it, but for `self`. Asynchronous. [any] */
void soft_drop_post(struct soft *s, struct vcpu *self, gpa_t gpa, uint64_t len);
void soft_enter_guest(struct vcpu *v);           /* [vcpu] before touching guest memory */
void soft_leave_guest(struct vcpu *v);           /* [vcpu] before callbacks and parking */
void soft_do_work(struct vcpu *v);               /* [vcpu] drop ranges, between blocks only */
void soft_wake(struct vcpu *v, uint32_t attention);              /* set bits, unpark. [any] */
/* Wait until attention is set or guest TSC reaches deadline (UINT64_MAX: no deadline). [vcpu] */
void soft_park(struct vcpu *v, uint64_t deadline);

/* ---- tlb.c, beyond cpu.h ---- */
void tlb_init(struct cpu *c);
/* As an access at privilege level cpl, which may differ from the present one (stack switches). */
int tlb_ld_cpl(struct cpu *c, unsigned cpl, unsigned seg, uint64_t va, unsigned size, uint64_t *ret);
int tlb_st_cpl(struct cpu *c, unsigned cpl, unsigned seg, uint64_t va, unsigned size, uint64_t val);

/* ---- interrupts, soft_irq.c ---- */
extern const struct lapic_ops soft_lapic_ops;
void soft_send_msi(struct soft *s, uint64_t addr, uint32_t data);
void soft_set_route(struct soft *s, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked);
void soft_set_extint(struct soft *s, bool asserted);
void soft_nmi(struct vcpu *v);

/* The local APIC was written: have the loop look how far off its timer is, if it is armed. */
static inline void soft_timer_changed(struct cpu *c)
{
    if (c->lapic.timer_next_tsc != UINT64_MAX)
        atomic_fetch_or_explicit(&c->attention, ATT_TIMER, memory_order_relaxed);
}

/* ---- state, soft_state.c ---- */
void soft_cpu_reset(struct cpu *c, bool init);   /* power-on, or INIT (SDM table 10-1) */
void soft_cpu_sipi(struct cpu *c, uint8_t vector);
int soft_get_regs(struct vcpu *v, struct vcpu_regs *ret);
int soft_set_regs(struct vcpu *v, const struct vcpu_regs *regs);
void soft_save(struct engine *g, struct save_writer *w);
int soft_load(struct engine *g, const struct load_reader *r, struct hv_error *e);

/* ---- guest TSC, tsc.c ---- */
uint64_t tsc_host_hz(void);                      /* measured or known, once a process */
uint64_t tsc_guest_at(const struct soft *s, uint64_t host);      /* without a vCPU's offset */
uint64_t tsc_host_now(void);

/* ---- random numbers for RDRAND and RDSEED; false if the host has none now ---- */
bool soft_random(struct vcpu *v, void *buf, unsigned len);

#endif
