/* What the files of hv/machine share; nobody else includes it. */
#ifndef HV_MACHINE_IMPL_H
#define HV_MACHINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "hv/base/log.h"
#include "hv/machine/machine.h"

#define MACHINE_MAGIC 0x4d414348u

/*
 * Capacities. What a machine consists of is decided by our code, not by the guest, so
 * running out is our own bug and asserts. A Gen-1 PC with every device uses about
 * 40 port ranges, 5 MMIO windows and 10 MSR ranges.
 */
enum {
    MAX_PORT_RANGES = 255,   /* an index of one byte a port; 0 is "unclaimed" */
    MAX_MMIO_RANGES = 128,
    MAX_MSR_RANGES = 64,
    MAX_IRQ_SINKS = 4,
    MAX_DEVICES = 512,
    MAX_CLOCK_USERS = 128,
};

struct port_range { uint16_t first, last; const struct port_ops *ops; void *dev; };
struct mmio_range { gpa_t first, last; const struct mmio_ops *ops; void *dev; };
struct msr_range { uint32_t first, last; const struct msr_ops *ops; void *dev; };
struct device { const struct device_ops *ops; uint32_t instance; void *dev; };
struct clock_user { void (*fn)(void *dev); void *dev; };

enum machine_counter {
    COUNT_PIO_READ, COUNT_PIO_WRITE, COUNT_MMIO_READ, COUNT_MMIO_WRITE, COUNT_MSR_READ,
    COUNT_MSR_WRITE, COUNT_HYPERCALL, COUNT_MSI, MACHINE_COUNTERS
};

struct machine {
    uint32_t magic;
    struct mem *mem;
    struct loop *loop;
    struct machine_hooks hooks;

    /* Dispatch: written while the vCPUs are parked, then only read. */
    uint8_t port_index[0x10000];          /* 0: unclaimed, else 1 + index into port[] */
    struct port_range port[MAX_PORT_RANGES];
    unsigned ports;
    struct mmio_range mmio[MAX_MMIO_RANGES];   /* ascending, disjoint */
    unsigned mmios;
    struct msr_range msr[MAX_MSR_RANGES];      /* ascending, disjoint */
    unsigned msrs;
    int (*hypercall)(void *dev, unsigned vp);
    void *hypercall_dev;
    struct irq_sink sink[MAX_IRQ_SINKS];
    unsigned sinks;
    struct device device[MAX_DEVICES];
    unsigned devices;
    struct clock_user clock_user[MAX_CLOCK_USERS];
    unsigned clock_users;

    _Atomic uint32_t lines;               /* bit n: line n is asserted */
    _Atomic uint32_t exit_code;

    /* clock.c: frozen is the guest time while paused, CLOCK_RUNNING otherwise. */
    _Atomic uint64_t clock_frozen;
    _Atomic uint64_t clock_origin;        /* host time at which guest time was 0, modulo 2^64 */

    _Atomic uint64_t counter[MACHINE_COUNTERS];
    struct stats_table stats;
    struct stats_registry registry;
    pthread_mutex_t log_lock;             /* only for debug lines about unclaimed accesses */
    struct log_ratelimit log_limit;
};

#define CLOCK_RUNNING UINT64_MAX

/* Tell every clock user that time started or moved. */
void machine_clock_changed(struct machine *m);
/* Freeze the clock at guest time ns. */
void machine_clock_set(struct machine *m, uint64_t ns);

#endif
