/*
 * ACPI fixed hardware (ACPI 6.4, 4.8.2 to 4.8.3).
 *
 *   +0 PM1_STS  write 1 to clear          +4 PM1_CNT  SCI_EN always 1: there is no SMI mode
 *   +2 PM1_EN                             +8 PM_TMR   32 bits, read only
 *
 * The SCI is a level: asserted while an enabled status bit is set. SLP_EN with the
 * SLP_TYP of \_S5 turns the machine off; other sleep types are not offered and do nothing.
 * TMR_STS is set when bit 31 of the timer changes, every 600 seconds; a loop timer is
 * armed only while the guest wants to hear of it.
 */
#include "hv/platform/pm.h"

#include <errno.h>
#include <pthread.h>

#define PM_MAGIC 0x504d3161u

enum { OFF_STS = 0, OFF_EN = 2, OFF_CNT = 4, OFF_TIMER = 8, PM_LEN = 12 };
enum { STS_TIMER = 1 << 0, STS_GLOBAL = 1 << 5, STS_POWER = 1 << 8, STS_SLEEP = 1 << 9,
       STS_RTC = 1 << 10, STS_WAKE = 1 << 15 };
#define STS_ALL (STS_TIMER | STS_GLOBAL | STS_POWER | STS_SLEEP | STS_RTC | STS_WAKE)
#define EN_ALL  (STS_TIMER | STS_GLOBAL | STS_POWER | STS_SLEEP | STS_RTC)
#define CNT_SCI_EN   0x0001u
#define CNT_KEPT     0x1C02u          /* SLP_TYP, BM_RLD */
#define CNT_SLP_EN   0x2000u
#define CNT_SLP_TYP(v) ((v) >> 10 & 7)
#define HALF_WRAP  (UINT64_C(1) << 31)

struct pm {
    uint32_t magic;
    struct machine *m;
    struct loop *loop;
    struct loop_timer *timer;
    uint16_t base;
    pthread_mutex_t lock;
    uint16_t sts, en, cnt;        /* cnt without SCI_EN and SLP_EN */
    uint64_t seen;                /* ticks >> 31 up to which TMR_STS is accounted for */
    bool level;
};

static uint64_t ticks_now(const struct pm *pm)
{
    return (uint64_t)((unsigned __int128)machine_clock_ns(pm->m) * PM_TIMER_HZ / NS_PER_SEC);
}

static void update_line(struct pm *pm)
{
    bool level = pm->sts & pm->en & EN_ALL;
    if (level != pm->level) {
        pm->level = level;
        machine_irq_set(pm->m, PM_SCI_IRQ, level);
    }
}

static void catch_up(struct pm *pm)
{
    uint64_t half = ticks_now(pm) / HALF_WRAP;
    if (half != pm->seen) {
        pm->seen = half;
        pm->sts |= STS_TIMER;
    }
    update_line(pm);
}

static void arm(struct pm *pm)
{
    uint64_t deadline = UINT64_MAX;
    if ((pm->en & STS_TIMER) && !(pm->sts & STS_TIMER)) {
        unsigned __int128 at = (unsigned __int128)(pm->seen + 1) * HALF_WRAP * NS_PER_SEC;
        deadline = machine_deadline(pm->m, (uint64_t)((at + PM_TIMER_HZ - 1) / PM_TIMER_HZ));
    }
    if (deadline == UINT64_MAX) {
        loop_timer_stop(pm->loop, pm->timer);
    } else {
        loop_timer_set(pm->loop, pm->timer, deadline);
    }
}

static void pm_clock(void *dev)
{
    struct pm *pm = dev;
    pthread_mutex_lock(&pm->lock);
    arm(pm);   /* what is overdue comes through the timer, not out of a load */
    pthread_mutex_unlock(&pm->lock);
}

static void pm_timer(void *arg)
{
    struct pm *pm = arg;
    pthread_mutex_lock(&pm->lock);
    if (machine_deadline(pm->m, 0) != UINT64_MAX) {   /* not paused */
        catch_up(pm);
        arm(pm);
    }
    pthread_mutex_unlock(&pm->lock);
}

bool pm_power_button(struct pm *pm)
{
    HV_CHECK(pm, PM_MAGIC);
    pthread_mutex_lock(&pm->lock);
    pm->sts |= STS_POWER;
    update_line(pm);
    bool heard = pm->en & STS_POWER;
    pthread_mutex_unlock(&pm->lock);
    return heard;
}

/* The block as the guest sees it; registers are little-endian and side by side. */
static uint32_t pm_in(void *dev, uint16_t port, unsigned size)
{
    struct pm *pm = dev;
    unsigned off = port - pm->base;
    pthread_mutex_lock(&pm->lock);
    catch_up(pm);
    uint64_t low = pm->sts | (uint64_t)pm->en << 16 | (uint64_t)(pm->cnt | CNT_SCI_EN) << 32;
    uint32_t timer = (uint32_t)ticks_now(pm);
    pthread_mutex_unlock(&pm->lock);
    /* off + size <= 12. A read across 8 takes its bytes from both halves. */
    uint64_t val = off >= OFF_TIMER ? (uint64_t)timer >> (off - OFF_TIMER) * 8 : low >> off * 8;
    if (off > OFF_TIMER - 4 && off < OFF_TIMER) {
        val |= (uint64_t)timer << (OFF_TIMER - off) * 8;
    }
    return (uint32_t)val;
}

/* The bits of val[size bytes at off] that fall on the 16-bit register at reg, and which those are. */
static uint16_t slice(unsigned reg, unsigned off, unsigned size, uint32_t val, uint16_t *ret_mask)
{
    uint64_t mask = (UINT64_C(1) << size * 8) - 1, bits = val & mask;
    int shift = ((int)off - (int)reg) * 8;
    if (shift <= -64 || shift >= 16) {
        *ret_mask = 0;
        return 0;
    }
    *ret_mask = (uint16_t)(shift >= 0 ? mask << shift : mask >> -shift);
    return (uint16_t)(shift >= 0 ? bits << shift : bits >> -shift);
}

static void pm_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct pm *pm = dev;
    unsigned off = port - pm->base;
    uint16_t mask;
    pthread_mutex_lock(&pm->lock);
    catch_up(pm);
    pm->sts &= ~slice(OFF_STS, off, size, val, &mask);
    uint16_t bits = slice(OFF_EN, off, size, val, &mask);
    pm->en = (uint16_t)((pm->en & ~mask) | (bits & EN_ALL));
    bits = slice(OFF_CNT, off, size, val, &mask);
    pm->cnt = (uint16_t)((pm->cnt & ~mask) | (bits & CNT_KEPT));
    bool off_now = (bits & CNT_SLP_EN) && CNT_SLP_TYP(pm->cnt) == PM_SLP_TYP_S5;
    update_line(pm);
    arm(pm);
    pthread_mutex_unlock(&pm->lock);
    if (off_now) {
        machine_event(pm->m, MACHINE_EVENT_POWER_OFF);
    }
}

static void pm_reset(void *dev)
{
    struct pm *pm = dev;
    pthread_mutex_lock(&pm->lock);
    pm->sts = pm->en = pm->cnt = 0;
    pm->seen = ticks_now(pm) / HALF_WRAP;
    pm->level = false;
    arm(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void pm_save(void *dev, struct save_writer *w)
{
    struct pm *pm = dev;
    pthread_mutex_lock(&pm->lock);
    save_u16(w, pm->sts);
    save_u16(w, pm->en);
    save_u16(w, pm->cnt);
    save_u64(w, pm->seen);
    pthread_mutex_unlock(&pm->lock);
}

static int pm_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct pm *pm = dev;
    uint16_t sts = load_u16(s), en = load_u16(s), cnt = load_u16(s);
    uint64_t seen = load_u64(s);
    if ((sts & ~STS_ALL) || (en & ~EN_ALL) || (cnt & ~CNT_KEPT) ||
        seen > ticks_now(pm) / HALF_WRAP) {
        return -EINVAL;
    }
    pthread_mutex_lock(&pm->lock);
    pm->sts = sts;
    pm->en = en;
    pm->cnt = cnt;
    pm->seen = seen;
    pm->level = sts & en & EN_ALL;
    pthread_mutex_unlock(&pm->lock);
    return 0;
}

void pm_free(struct pm *pm)
{
    if (!pm) {
        return;
    }
    HV_CHECK(pm, PM_MAGIC);
    pm->magic = 0;
    loop_timer_free(pm->loop, pm->timer);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}

int pm_new(struct machine *m, uint16_t base, struct pm **ret)
{
    static const struct port_ops ports = { .in = pm_in, .out = pm_out, .max_size = 4 };
    static const struct device_ops device = {
        .tag = "pm", .version = 1, .reset = pm_reset, .save = pm_save, .load = pm_load,
    };
    struct pm *pm = hv_alloc(sizeof(*pm));
    if (!pm) {
        return -ENOMEM;
    }
    pm->m = m;
    pm->loop = machine_loop(m);
    pm->base = base;
    int r = loop_timer_new(pm->loop, pm_timer, pm, &pm->timer);
    if (r < 0) {
        free(pm);
        return r;
    }
    pm->magic = PM_MAGIC;
    pthread_mutex_init(&pm->lock, NULL);
    machine_add_ports(m, base, PM_LEN, &ports, pm);
    machine_add_device(m, &device, 0, pm);
    machine_on_clock(m, pm_clock, pm);
    *ret = pm;
    return 0;
}
