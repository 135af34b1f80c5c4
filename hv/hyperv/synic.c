/*
 * The synthetic interrupt controller, TLFS 11: message slots and event flags in two guest
 * pages a VP, sixteen interrupt sources.
 *
 *   message   slot free? write it, its type last, interrupt        busy: pending bit, wait for EOM
 *   event     set the flag; was it clear? interrupt
 *
 * Both pages are shared with a hostile guest: nothing is read back but the type and the
 * flags' old values, both atomically.
 */
#include <errno.h>

#include "hv/base/endian.h"
#include "hv/hyperv/hyperv_impl.h"

#define PAGE_OF(msr) ((msr) & ~0xfffull)

void synic_reset(struct synic *s)
{
    s->scontrol = s->siefp = s->simp = s->vp_assist = 0;
    s->waiting = false;
    for (unsigned i = 0; i < HV_SINTS; i++) {
        s->sint[i] = HV_SINT_RESET;
    }
}

static bool sint_valid(uint64_t v)
{
    /* Vectors below 16 are the CPU's own exceptions; masked, any value may stand there. TLFS 11.7.3. */
    return v & HV_SINT_MASKED || (v & HV_SINT_VECTOR) >= 16;
}

bool synic_valid(const struct synic *s)
{
    bool ok = true;
    for (unsigned i = 0; i < HV_SINTS; i++) {
        ok &= sint_valid(s->sint[i]);
    }
    return ok;
}

static uint64_t *page_msr(struct synic *s, uint32_t msr)
{
    switch (msr) {
    case HV_MSR_SCONTROL: return &s->scontrol;
    case HV_MSR_SIEFP: return &s->siefp;
    case HV_MSR_SIMP: return &s->simp;
    case HV_MSR_VP_ASSIST: return &s->vp_assist;
    default: return msr - HV_MSR_SINT0 < HV_SINTS ? &s->sint[msr - HV_MSR_SINT0] : NULL;
    }
}

int synic_read(struct hyperv *h, unsigned vp, uint32_t msr, uint64_t *ret)
{
    struct synic *s = &h->vp[vp];
    if (msr == HV_MSR_SVERSION || msr == HV_MSR_EOM) {
        *ret = msr == HV_MSR_SVERSION;
        return 0;
    }
    const uint64_t *p = page_msr(s, msr);
    if (!p) {
        return -EINVAL;
    }
    pthread_mutex_lock(&s->lock);
    *ret = *p;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int synic_write(struct hyperv *h, unsigned vp, uint32_t msr, uint64_t val)
{
    struct synic *s = &h->vp[vp];
    uint64_t *p = page_msr(s, msr);
    if ((!p && msr != HV_MSR_EOM) || (msr - HV_MSR_SINT0 < HV_SINTS && !sint_valid(val))) {
        return -EINVAL;
    }
    pthread_mutex_lock(&s->lock);
    if (p) {
        *p = val;
    }
    /* The end of a message frees its slot; so may switching the SynIC on. */
    bool tell = s->waiting;
    s->waiting = false;
    pthread_mutex_unlock(&s->lock);
    if (tell && h->cfg.hooks.slot_free) {
        h->cfg.hooks.slot_free(h->cfg.hooks.arg);
    }
    return 0;
}

static void interrupt(struct hyperv *h, unsigned vp, uint64_t sint)
{
    if (!(sint & (HV_SINT_MASKED | HV_SINT_POLLING))) {
        machine_msi(h->cfg.machine, 0xfee00000ull | (uint64_t)vp << 12, (uint32_t)(sint & HV_SINT_VECTOR));
    }
}

int hyperv_post(struct hyperv *h, unsigned vp, unsigned sint, uint32_t type, const void *payload, uint32_t len)
{
    HV_CHECK(h, HYPERV_MAGIC);
    if (vp >= h->cfg.vcpus || sint >= HV_SINTS || len > HV_MESSAGE_MAX || type == 0) {
        return -EINVAL;
    }
    struct synic *s = &h->vp[vp];
    struct mem_pin pin;
    int r = -EAGAIN;
    pthread_mutex_lock(&s->lock);
    uint64_t config = s->sint[sint];
    bool on = s->scontrol & HV_PAGE_ENABLE && s->simp & HV_PAGE_ENABLE;
    if (on && mem_pin(h->mem, PAGE_OF(s->simp) + sint * HV_SIM_SLOT, HV_SIM_SLOT, MEM_WRITE, &pin) == 0) {
        uint8_t *slot = pin.hva;
        _Atomic uint32_t *slot_type = (_Atomic uint32_t *)slot;
        bool free_now = atomic_load_explicit(slot_type, memory_order_acquire) == 0;
        if (!free_now) {
            atomic_fetch_or((_Atomic uint8_t *)(slot + 5), HV_MESSAGE_PENDING);
            /* The guest may have freed it before it could see the flag: then no EOM comes. */
            free_now = atomic_load(slot_type) == 0;
        }
        if (free_now) {
            memcpy(slot + 16, payload, len);
            slot[4] = (uint8_t)len;
            slot[5] = 0;
            put_le16(slot + 6, 0);
            put_le64(slot + 8, 0);
            atomic_store_explicit(slot_type, type, memory_order_release);
            r = 0;
        }
        mem_unpin(&pin);
    }
    s->waiting |= r == -EAGAIN;
    pthread_mutex_unlock(&s->lock);
    if (r == 0) {
        stats_add(&h->stats, HYPERV_MESSAGES, 1);
        interrupt(h, vp, config);
    } else {
        stats_add(&h->stats, HYPERV_BUSY_SLOTS, 1);
    }
    return r;
}

int hyperv_signal(struct hyperv *h, unsigned vp, unsigned sint, unsigned flag)
{
    HV_CHECK(h, HYPERV_MAGIC);
    if (vp >= h->cfg.vcpus || sint >= HV_SINTS || flag >= HV_EVENT_FLAGS) {
        return -EINVAL;
    }
    struct synic *s = &h->vp[vp];
    struct mem_pin pin;
    bool was_set = true;
    int r = -ENXIO;
    pthread_mutex_lock(&s->lock);
    uint64_t config = s->sint[sint];
    bool on = s->scontrol & HV_PAGE_ENABLE && s->siefp & HV_PAGE_ENABLE;
    if (on && mem_pin(h->mem, PAGE_OF(s->siefp) + sint * HV_SIM_SLOT + flag / 8, 1, MEM_WRITE, &pin) == 0) {
        uint8_t bit = (uint8_t)(1u << flag % 8);
        was_set = atomic_fetch_or((_Atomic uint8_t *)pin.hva, bit) & bit;
        mem_unpin(&pin);
        r = 0;
    }
    pthread_mutex_unlock(&s->lock);
    stats_add(&h->stats, r == 0 ? HYPERV_EVENTS : HYPERV_LOST_EVENTS, 1);
    if (!was_set) {
        interrupt(h, vp, config);
    }
    return r;
}
