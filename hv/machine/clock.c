/*
 * Guest time: nanoseconds the machine has run since power-on.
 *
 *   running   guest = host now - origin        (modulo 2^64: a machine loaded on a host
 *   paused    guest = frozen                    that booted later has a negative origin)
 *
 * Readers take no lock. A reader that finds the clock running loads the origin before
 * it looks at the host's clock; a resume stores the origin before it clears `frozen`.
 * So whoever sees the new origin also sees host time after the resume, and guest time
 * never steps back.
 */
#include "hv/machine/machine_impl.h"

static uint64_t host_now(struct machine *m)
{
    return m->hooks.now_ns ? m->hooks.now_ns(m->hooks.arg) : hv_now_ns();
}

uint64_t machine_clock_ns(struct machine *m)
{
    uint64_t frozen = atomic_load_explicit(&m->clock_frozen, memory_order_acquire);
    if (frozen != CLOCK_RUNNING) {
        return frozen;
    }
    uint64_t origin = atomic_load_explicit(&m->clock_origin, memory_order_acquire);
    return host_now(m) - origin;
}

uint64_t machine_deadline(struct machine *m, uint64_t guest_ns)
{
    if (atomic_load_explicit(&m->clock_frozen, memory_order_acquire) != CLOCK_RUNNING) {
        return UINT64_MAX;
    }
    uint64_t origin = atomic_load_explicit(&m->clock_origin, memory_order_acquire);
    uint64_t now = host_now(m);
    uint64_t guest_now = now - origin;
    uint64_t deadline;
    if (guest_ns <= guest_now) {
        return now;
    }
    /* UINT64_MAX means "never" to the caller; what is that far away never comes either. */
    return __builtin_add_overflow(now, guest_ns - guest_now, &deadline) ? UINT64_MAX : deadline;
}

void machine_clock_set(struct machine *m, uint64_t ns)
{
    hv_assert(ns != CLOCK_RUNNING);
    atomic_store_explicit(&m->clock_frozen, ns, memory_order_release);
}

void machine_clock_pause(struct machine *m)
{
    HV_CHECK(m, MACHINE_MAGIC);
    machine_clock_set(m, machine_clock_ns(m));
}

void machine_clock_resume(struct machine *m)
{
    HV_CHECK(m, MACHINE_MAGIC);
    uint64_t frozen = atomic_load(&m->clock_frozen);
    if (frozen == CLOCK_RUNNING) {
        return;
    }
    atomic_store_explicit(&m->clock_origin, host_now(m) - frozen, memory_order_release);
    atomic_store_explicit(&m->clock_frozen, CLOCK_RUNNING, memory_order_release);
    machine_clock_changed(m);
}

void machine_clock_changed(struct machine *m)
{
    for (unsigned i = 0; i < m->clock_users; i++) {
        m->clock_user[i].fn(m->clock_user[i].dev);
    }
}
