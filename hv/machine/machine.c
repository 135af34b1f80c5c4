/*
 * The machine itself: its life, its lists, interrupt lines and events. Dispatch is in
 * dispatch.c, guest time in clock.c, reset and saved state in state.c.
 */
#include "hv/machine/machine_impl.h"

#include <errno.h>

static const struct stats_desc counter_desc[MACHINE_COUNTERS] = {
    [COUNT_PIO_READ] = { "unclaimed_pio_reads", "accesses",
                         "reads of ports no device has", STATS_COUNTER },
    [COUNT_PIO_WRITE] = { "unclaimed_pio_writes", "accesses",
                          "writes to ports no device has", STATS_COUNTER },
    [COUNT_MMIO_READ] = { "unclaimed_mmio_reads", "accesses",
                          "reads of addresses that are neither RAM nor a device", STATS_COUNTER },
    [COUNT_MMIO_WRITE] = { "unclaimed_mmio_writes", "accesses",
                           "writes to addresses that are neither RAM nor a device",
                           STATS_COUNTER },
    [COUNT_MSR_READ] = { "unclaimed_msr_reads", "accesses",
                         "reads of MSRs that do not exist", STATS_COUNTER },
    [COUNT_MSR_WRITE] = { "unclaimed_msr_writes", "accesses",
                          "writes to MSRs that do not exist", STATS_COUNTER },
    [COUNT_HYPERCALL] = { "unclaimed_hypercalls", "calls",
                          "hypercalls without a hypervisor interface", STATS_COUNTER },
    [COUNT_MSI] = { "msis", "messages", "interrupt messages sent by devices", STATS_COUNTER },
};

int machine_new(struct mem *mem, struct loop *loop, const struct machine_hooks *hooks,
                struct machine **ret, struct hv_error *e)
{
    hv_assert(hooks && hooks->event && hooks->msi);
    struct machine *m = hv_alloc(sizeof(*m));
    if (!m) {
        return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory for the machine's tables");
    }
    m->magic = MACHINE_MAGIC;
    m->mem = mem;
    m->loop = loop;
    m->hooks = *hooks;
    m->log_limit = (struct log_ratelimit)LOG_RATELIMIT(20);
    pthread_mutex_init(&m->log_lock, NULL);
    machine_clock_set(m, 0);
    m->stats = (struct stats_table){ .group = "machine", .desc = counter_desc,
                                     .count = MACHINE_COUNTERS, .value = m->counter };
    stats_register(&m->registry, &m->stats);
    *ret = m;
    return 0;
}

void machine_free(struct machine *m)
{
    if (!m) {
        return;
    }
    HV_CHECK(m, MACHINE_MAGIC);
    m->magic = 0;
    pthread_mutex_destroy(&m->log_lock);
    free(m);
}

struct mem *machine_mem(struct machine *m)
{
    return m->mem;
}

struct loop *machine_loop(struct machine *m)
{
    return m->loop;
}

struct stats_registry *machine_stats(struct machine *m)
{
    return &m->registry;
}

void machine_add_hypercall(struct machine *m, int (*fn)(void *dev, unsigned vp), void *dev)
{
    HV_CHECK(m, MACHINE_MAGIC);
    hv_assert(!m->hypercall);
    m->hypercall = fn;
    m->hypercall_dev = dev;
}

void machine_add_irq_sink(struct machine *m, const struct irq_sink *sink)
{
    HV_CHECK(m, MACHINE_MAGIC);
    hv_assert(m->sinks < MAX_IRQ_SINKS);
    m->sink[m->sinks++] = *sink;
}

void machine_add_device(struct machine *m, const struct device_ops *ops, uint32_t instance,
                        void *dev)
{
    HV_CHECK(m, MACHINE_MAGIC);
    hv_assert(m->devices < MAX_DEVICES);
    for (unsigned i = 0; i < m->devices; i++) {
        hv_assert(m->device[i].instance != instance || strcmp(m->device[i].ops->tag, ops->tag));
    }
    m->device[m->devices++] = (struct device){ ops, instance, dev };
}

void machine_on_clock(struct machine *m, void (*fn)(void *dev), void *dev)
{
    HV_CHECK(m, MACHINE_MAGIC);
    hv_assert(m->clock_users < MAX_CLOCK_USERS);
    m->clock_user[m->clock_users++] = (struct clock_user){ fn, dev };
}

/*
 * Sinks hear changes only. One device drives a line, under its own mutex, so two
 * changes of one line reach the sinks in the order in which they were made.
 */
void machine_irq_set(struct machine *m, unsigned irq, bool level)
{
    hv_assert(irq < MACHINE_IRQ_LINES);
    uint32_t bit = UINT32_C(1) << irq;
    uint32_t before = level ? atomic_fetch_or(&m->lines, bit) : atomic_fetch_and(&m->lines, ~bit);
    if (!!(before & bit) == level) {
        return;
    }
    for (unsigned i = 0; i < m->sinks; i++) {
        m->sink[i].set(m->sink[i].dev, irq, level);
    }
}

void machine_irq_pulse(struct machine *m, unsigned irq)
{
    machine_irq_set(m, irq, true);
    machine_irq_set(m, irq, false);
}

void machine_msi(struct machine *m, uint64_t addr, uint32_t data)
{
    stats_add(&m->stats, COUNT_MSI, 1);
    m->hooks.msi(m->hooks.arg, addr, data);
}

void machine_event(struct machine *m, enum machine_event ev)
{
    m->hooks.event(m->hooks.arg, ev);
}

void machine_exit(struct machine *m, uint32_t code)
{
    atomic_store(&m->exit_code, code);
    machine_event(m, MACHINE_EVENT_SHUTDOWN_CODE);
}

uint32_t machine_exit_code(const struct machine *m)
{
    return atomic_load(&m->exit_code);
}

uint64_t machine_wall_ns(struct machine *m)
{
    return m->hooks.wall_ns ? m->hooks.wall_ns(m->hooks.arg) : hv_wall_ns();
}
