/*
 * What any machine has, whichever devices it is made of: dispatch tables for ports,
 * MMIO, MSRs and hypercalls, interrupt lines, the MSI sink, the guest clock, and the
 * list of what is saved and reset. Tables are filled before the vCPUs start (or while
 * they are quiesced) and then only read, so dispatch takes no lock.
 *
 * A device handler runs on a vCPU's thread and takes its device's own mutex, nothing
 * else; it never calls into another device while holding it, but for irq_set,
 * machine_msi and loop_*, which take no device lock that could wait for ours.
 */
#ifndef HV_MACHINE_MACHINE_H
#define HV_MACHINE_MACHINE_H

#include "hv/base/error.h"
#include "hv/base/loop.h"
#include "hv/base/save.h"
#include "hv/base/stats.h"
#include "hv/memory/memory.h"

#define MACHINE_IRQ_LINES 24      /* GSIs: the IOAPIC's pins */

struct machine;

/* Port handlers get single elements of size 1, 2 or 4; wider than the device: the machine splits (see below). */
struct port_ops {
    uint32_t (*in)(void *dev, uint16_t port, unsigned size);
    void (*out)(void *dev, uint16_t port, unsigned size, uint32_t val);
    /* Optional bulk forms for REP INS/OUTS of count elements; without them the machine loops. */
    void (*in_bulk)(void *dev, uint16_t port, unsigned size, void *data, uint32_t count);
    void (*out_bulk)(void *dev, uint16_t port, unsigned size, const void *data, uint32_t count);
    unsigned max_size;            /* 1, 2 or 4; a wider access is split into accesses of this size */
};
struct mmio_ops {
    uint64_t (*read)(void *dev, uint64_t off, unsigned size);             /* size 1, 2, 4, 8 */
    void (*write)(void *dev, uint64_t off, unsigned size, uint64_t val);
};
/* -EINVAL: #GP(0). */
struct msr_ops {
    int (*read)(void *dev, unsigned vp, uint32_t msr, uint64_t *ret);
    int (*write)(void *dev, unsigned vp, uint32_t msr, uint64_t val);
};
/* Consumes interrupt lines: the IOAPIC and the PIC both listen to every GSI they have. Level semantics:
 * called on each change. Must not block; may be called from any thread with a device lock held. */
struct irq_sink { void (*set)(void *dev, unsigned gsi, bool level); void *dev; };

/* A device's part in save, load and reset. Called with vCPUs parked and I/O drained. Loads check every field. */
struct device_ops {
    const char *tag;              /* section tag, e.g. "uart" */
    uint32_t version;
    void (*reset)(void *dev);     /* power-on state; the machine's lines have been lowered */
    void (*save)(void *dev, struct save_writer *w);                       /* fields only */
    int (*load)(void *dev, struct load_section *s, struct hv_error *e);   /* s->version <= version */
};

/* What a device asks of whoever runs the machine (hv/vm). Any thread; must not block. */
enum machine_event {
    MACHINE_EVENT_POWER_OFF,      /* S5 */
    MACHINE_EVENT_RESET,          /* reset port, ACPI reset register, keyboard controller */
    MACHINE_EVENT_SHUTDOWN_CODE,  /* payload's exit port: value in machine_exit_code() (tests only) */
};
struct machine_hooks {
    void (*event)(void *arg, enum machine_event ev);
    void (*msi)(void *arg, uint64_t addr, uint32_t data);
    void *arg;
    /* Host time, monotonic and of day. NULL: hv_now_ns and hv_wall_ns; tests drive their own.
     * now_ns must be the time base of the loop's timers. */
    uint64_t (*now_ns)(void *arg);
    uint64_t (*wall_ns)(void *arg);
};

int machine_new(struct mem *mem, struct loop *loop, const struct machine_hooks *hooks,
                struct machine **ret, struct hv_error *e);
void machine_free(struct machine *m);
struct mem *machine_mem(struct machine *m);
struct loop *machine_loop(struct machine *m);

/* Overlapping ranges are our own bug (assert). dev outlives the machine's use of it. */
void machine_add_ports(struct machine *m, uint16_t first, unsigned count, const struct port_ops *ops, void *dev);
void machine_add_mmio(struct machine *m, gpa_t gpa, uint64_t len, const struct mmio_ops *ops, void *dev);
void machine_add_msrs(struct machine *m, uint32_t first, uint32_t count, const struct msr_ops *ops, void *dev);
void machine_add_hypercall(struct machine *m, int (*fn)(void *dev, unsigned vp), void *dev);
void machine_add_irq_sink(struct machine *m, const struct irq_sink *sink);
void machine_add_device(struct machine *m, const struct device_ops *ops, uint32_t instance, void *dev);

/* Dispatch, from engine callbacks. Unclaimed ports and MMIO read all-ones, writes are dropped, both counted. */
void machine_pio_in(struct machine *m, uint16_t port, unsigned size, void *data, uint32_t count);
void machine_pio_out(struct machine *m, uint16_t port, unsigned size, const void *data, uint32_t count);
void machine_mmio_read(struct machine *m, gpa_t gpa, void *data, unsigned len);
void machine_mmio_write(struct machine *m, gpa_t gpa, const void *data, unsigned len);
int machine_msr_read(struct machine *m, unsigned vp, uint32_t msr, uint64_t *ret);
int machine_msr_write(struct machine *m, unsigned vp, uint32_t msr, uint64_t val);
int machine_hypercall(struct machine *m, unsigned vp);             /* -ENOSYS: #UD */

/* Drive a line (GSI numbers; the PIT's IRQ0 is GSI 2 at the IOAPIC: the sinks map, devices use ISA numbers). */
void machine_irq_set(struct machine *m, unsigned irq, bool level);
void machine_irq_pulse(struct machine *m, unsigned irq);           /* an edge: high, then low */
void machine_msi(struct machine *m, uint64_t addr, uint32_t data);
void machine_event(struct machine *m, enum machine_event ev);
/* The payload's exit port: keeps code, then MACHINE_EVENT_SHUTDOWN_CODE. */
void machine_exit(struct machine *m, uint32_t code);
uint32_t machine_exit_code(const struct machine *m);

/*
 * The guest clock: nanoseconds of guest run time since power-on. Stands still while
 * the machine is paused, goes on from the saved value after a load. Device models
 * take all their time from it; machine_deadline() turns its time into loop time.
 */
/* A new machine is paused at 0; a loaded one is paused at the saved time. Reset leaves the clock alone. */
uint64_t machine_clock_ns(struct machine *m);
uint64_t machine_deadline(struct machine *m, uint64_t guest_ns);   /* hv_now_ns() time; UINT64_MAX while paused */
void machine_clock_pause(struct machine *m);
void machine_clock_resume(struct machine *m);    /* devices re-arm their timers: see below */
/* Called after the clock started or moved (resume, load): a device with timers re-arms them. */
void machine_on_clock(struct machine *m, void (*fn)(void *dev), void *dev);
/* The host's time of day, nanoseconds since 1970: what the RTC starts from. */
uint64_t machine_wall_ns(struct machine *m);

void machine_reset(struct machine *m);           /* every device, in order of registration */
void machine_save(struct machine *m, struct save_writer *w);
/* Pauses the clock. After a failure the machine is a mixture: reset it or throw it away. */
int machine_load(struct machine *m, const struct load_reader *r, struct hv_error *e);

struct stats_registry *machine_stats(struct machine *m);

#endif
