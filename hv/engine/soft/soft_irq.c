/*
 * Interrupts on their way to a vCPU: MSIs and IPIs to local APICs, the PIC's ExtINT line,
 * EOIs back to the IOAPIC. SDM volume 3, 11.6 and 11.11.
 */
#include "hv/engine/soft/soft.h"

enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_RESERVED, MODE_NMI, MODE_INIT, MODE_SIPI, MODE_EXTINT };
enum { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS };

void soft_nmi(struct vcpu *v)
{
    atomic_fetch_add(&v->nmis, 1);
    soft_wake(v, ATT_NMI);
}

/* dest values that are not a number; MSI's and xAPIC's 0xff are lapic_matches()' business. */
static void deliver_one(struct vcpu *v, unsigned mode, unsigned vector, bool level)
{
    switch (mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        lapic_accept(&v->cpu.lapic, vector, level);
        break;
    case MODE_NMI:
        soft_nmi(v);
        break;
    case MODE_INIT:
        soft_wake(v, ATT_INIT);
        break;
    case MODE_SIPI:
        atomic_store(&v->cpu.sipi_vector, (uint8_t)vector);
        soft_wake(v, ATT_SIPI);
        break;
    case MODE_EXTINT:
        soft_wake(v, ATT_IRQ);
        break;
    default:                       /* SMI: no SMM here; reserved */
        break;
    }
}

/* Among the APICs of set (bit a vp), the next in turn: a fair choice where hardware looks at priorities. */
static unsigned lowest_choice(struct soft *s, uint64_t set)
{
    uint32_t turn = atomic_fetch_add_explicit(&s->lowest_next, 1, memory_order_relaxed) % s->vcpus;
    uint64_t later = set & (UINT64_MAX << turn);
    return (unsigned)__builtin_ctzll(later ? later : set);
}

static void deliver(struct soft *s, uint64_t set, unsigned mode, unsigned vector, bool level)
{
    if (!set)
        return;
    if (mode == MODE_LOWEST) {
        deliver_one(s->vcpu[lowest_choice(s, set)], mode, vector, level);
        return;
    }
    for (; set; set &= set - 1)
        deliver_one(s->vcpu[__builtin_ctzll(set)], mode, vector, level);
}

static uint64_t matching(struct soft *s, uint32_t dest, bool logical)
{
    uint64_t set = 0;
    for (unsigned i = 0; i < s->vcpus; i++)
        if (lapic_matches(&s->vcpu[i]->cpu.lapic, dest, logical))
            set |= 1ull << i;
    return set;
}

void soft_send_msi(struct soft *s, uint64_t addr, uint32_t data)
{
    if ((addr & 0xfff00000u) != 0xfee00000u)
        return;
    uint32_t dest = addr >> 12 & 0xff;
    bool logical = addr & 4;
    unsigned mode = data >> 8 & 7;
    /* Redirection hint with logical destination: one of the set, SDM 11.11.1. */
    if (addr & 8 && logical && mode == MODE_FIXED)
        mode = MODE_LOWEST;
    deliver(s, matching(s, dest, logical), mode, data & 0xff, data >> 15 & 1);
}

/* ---- lapic_ops ---- */

static void op_wake(struct lapic *l)
{
    soft_wake(vcpu_of(l->owner), ATT_IRQ);
}

static uint64_t op_tsc(struct lapic *l)
{
    return cpu_tsc(l->owner);
}

static void op_ipi(struct lapic *l, uint32_t dest, bool logical, unsigned shorthand, unsigned mode,
                   unsigned vector, bool level, bool assert_)
{
    struct cpu *c = l->owner;
    struct soft *s = c->soft;
    const uint64_t self = 1ull << c->vp, all = s->vcpus == 64 ? UINT64_MAX : (1ull << s->vcpus) - 1;
    if (mode == MODE_INIT && level && !assert_)
        return;                    /* INIT level de-assert: ignored since the Pentium 4 */
    uint64_t set = shorthand == SHORT_SELF ? self : shorthand == SHORT_ALL ? all
                 : shorthand == SHORT_OTHERS ? all & ~self : matching(s, dest, logical);
    /* Only MSIs and the IOAPIC make level interrupts that want a broadcast EOI: 11.6.1, trigger mode. */
    deliver(s, set, mode, vector, false);
}

static void op_eoi_broadcast(struct lapic *l, unsigned vector)
{
    struct cpu *c = l->owner;
    struct soft *s = c->soft;
    for (unsigned pin = 0; pin < SOFT_MAX_PINS; pin++) {
        uint32_t r = atomic_load_explicit(&s->route[pin], memory_order_acquire);
        if (r != (ROUTE_LEVEL | vector) || !s->cb.eoi)
            continue;
        soft_leave_guest(vcpu_of(c));
        s->cb.eoi(s->arg, pin);
        soft_enter_guest(vcpu_of(c));
    }
}

const struct lapic_ops soft_lapic_ops = {
    .wake = op_wake, .tsc = op_tsc, .eoi_broadcast = op_eoi_broadcast, .ipi = op_ipi,
};

/* ---- the IOAPIC's and the PIC's lines ---- */

void soft_set_route(struct soft *s, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked)
{
    if (pin >= SOFT_MAX_PINS)
        return;
    /*
     * A masked pin keeps its vector here: Linux masks a level pin while its interrupt is in
     * service, and the EOI that follows must still clear the pin's remote IRR.
     */
    uint32_t r = level ? ROUTE_LEVEL | (data & 0xff) : 0;
    if (!masked || !level)
        atomic_store_explicit(&s->route[pin], r, memory_order_release);
    else if (data & 0xff)
        atomic_store_explicit(&s->route[pin], r, memory_order_release);
}

void soft_set_extint(struct soft *s, bool asserted)
{
    atomic_store(&s->extint, asserted);
    if (asserted)
        soft_wake(s->vcpu[0], ATT_IRQ);
}
