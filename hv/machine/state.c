/*
 * Reset, save and load of the whole machine: its own section ("machine": guest time and
 * the level of every line), then one section a device, in order of registration.
 */
#include "hv/machine/machine_impl.h"

#include <errno.h>

#define MACHINE_VERSION 1

void machine_reset(struct machine *m)
{
    HV_CHECK(m, MACHINE_MAGIC);
    for (unsigned irq = 0; irq < MACHINE_IRQ_LINES; irq++) {
        machine_irq_set(m, irq, false);
    }
    for (unsigned i = 0; i < m->devices; i++) {
        const struct device *d = &m->device[i];
        if (d->ops->reset) {
            d->ops->reset(d->dev);
        }
    }
}

void machine_save(struct machine *m, struct save_writer *w)
{
    HV_CHECK(m, MACHINE_MAGIC);
    save_begin(w, "machine", 0, MACHINE_VERSION);
    save_u64(w, machine_clock_ns(m));
    save_u32(w, atomic_load(&m->lines));
    save_end(w);
    for (unsigned i = 0; i < m->devices; i++) {
        const struct device *d = &m->device[i];
        if (!d->ops->save) {
            continue;
        }
        save_begin(w, d->ops->tag, d->instance, d->ops->version);
        d->ops->save(d->dev, w);
        save_end(w);
    }
}

static int load_self(struct machine *m, const struct load_reader *r, struct hv_error *e)
{
    struct load_section s;
    if (load_find(r, "machine", 0, &s) < 0) {
        return hv_fail(e, HV_USAGE, "machine", "the saved state has no section for the machine");
    }
    if (s.version != MACHINE_VERSION) {
        return hv_fail(e, HV_UNSUPPORTED, "machine",
                       "saved by a version this one does not know (section version %u)",
                       s.version);
    }
    uint64_t clock = load_u64(&s);
    uint32_t lines = load_u32(&s);
    /* 2^62 ns is 146 years of run time: anything above is not a time we have written. */
    if (load_done(&s) < 0 || clock >> 62 || lines >> MACHINE_IRQ_LINES) {
        return hv_fail(e, HV_USAGE, "machine", "the machine's section of the saved state is damaged");
    }
    machine_clock_set(m, clock);
    atomic_store(&m->lines, lines);   /* the sinks' sections carry what they have seen of them */
    return 0;
}

static int load_device(const struct device *d, const struct load_reader *r, struct hv_error *e)
{
    struct load_section s;
    if (load_find(r, d->ops->tag, d->instance, &s) < 0) {
        return hv_fail(e, HV_USAGE, d->ops->tag, "the saved state has no section for device %s %u",
                       d->ops->tag, d->instance);
    }
    if (s.version == 0 || s.version > d->ops->version) {
        return hv_fail(e, HV_UNSUPPORTED, d->ops->tag,
                       "saved by a newer version (section version %u, this one knows %u)",
                       s.version, d->ops->version);
    }
    hv_error_clear(e);
    int n = d->ops->load(d->dev, &s, e);
    if (n == 0) {
        n = load_done(&s);
    }
    if (n < 0 && !(e && hv_error_is_set(e))) {
        hv_fail(e, HV_USAGE, d->ops->tag, "the section of device %s %u is damaged", d->ops->tag,
                d->instance);
    }
    return n;
}

int machine_load(struct machine *m, const struct load_reader *r, struct hv_error *e)
{
    HV_CHECK(m, MACHINE_MAGIC);
    struct hv_error own = { 0 };
    e = e ? e : &own;
    machine_clock_pause(m);
    int n = load_self(m, r, e);
    for (unsigned i = 0; n == 0 && i < m->devices; i++) {
        if (m->device[i].ops->load) {
            n = load_device(&m->device[i], r, e);
        }
    }
    if (n == 0) {
        machine_clock_changed(m);
    }
    return n;
}
