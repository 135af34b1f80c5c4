/*
 * The partition's own MSRs, reference time, crash reports; building, reset, save and load.
 * One table says which MSRs there are; what is not in it, and not the SynIC's, is #GP.
 */
#include "hv/hyperv/hyperv.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"
#include "hv/hyperv/hyperv_impl.h"

#define TSC_HZ_LEAST 10000000u   /* slower, and the page's fraction does not fit: TLFS 12.6 */

/* ---- reference time ---- */

uint64_t reference_scale(uint64_t tsc_hz)
{
    return (uint64_t)(((unsigned __int128)10000000 << 64) / tsc_hz);
}

/* What tsc ticks at tsc_hz are in 100 ns, as the guest computes it from the page. */
static uint64_t scaled(uint64_t tsc, uint64_t tsc_hz)
{
    return (uint64_t)((unsigned __int128)tsc * reference_scale(tsc_hz) >> 64);
}

uint64_t hyperv_reference_time(struct hyperv *h, unsigned vp)
{
    HV_CHECK(h, HYPERV_MAGIC);
    uint64_t tsc = h->cfg.hooks.read_tsc(h->cfg.hooks.arg, vp);
    return scaled(tsc, h->cfg.tsc_hz) + h->time_offset;
}

/* The page a guest computes the same time from, TLFS 12.6: sequence, scale, offset. */
static int fill_tsc_page(struct hyperv *h, uint64_t msr)
{
    uint8_t page[HV_PAGE_SIZE] = {0};
    if (!(msr & HV_PAGE_ENABLE)) {
        return 0;
    }
    put_le32(page, h->time_sequence);
    put_le64(page + 8, reference_scale(h->cfg.tsc_hz));
    put_le64(page + 16, h->time_offset);
    return mem_write(h->mem, msr & ~0xfffull, page, sizeof(page)) ? -EINVAL : 0;
}

/*
 * The saved state comes from an engine whose TSC ran at old_hz. The guest's TSC goes on from
 * its saved value, so that time goes on too only if what it was by the old pace is the
 * offset's to keep. A guest stopped in the middle of reading the page finds another sequence
 * (neither 0 nor all ones: those mean "use the MSR") and reads again. vCPUs are parked.
 */
static int change_pace(struct hyperv *h, uint64_t old_hz)
{
    uint64_t tsc = h->cfg.hooks.read_tsc(h->cfg.hooks.arg, 0);
    h->time_offset += scaled(tsc, old_hz) - scaled(tsc, h->cfg.tsc_hz);
    h->time_sequence = h->time_sequence >= UINT32_MAX - 1 ? 1 : h->time_sequence + 1;
    return fill_tsc_page(h, h->reference_tsc);
}

/* ---- the hypercall page ---- */

/* `out 0xEA, al; ret`, the rest INT3 (DESIGN 4). -EINVAL: not RAM. */
static int fill_hypercall_page(struct hyperv *h, uint64_t msr)
{
    uint8_t page[HV_PAGE_SIZE];
    memset(page, 0xcc, sizeof(page));
    memcpy(page, (const uint8_t[]){0xe6, 0xea, 0xc3}, 3);
    return mem_write(h->mem, msr & ~0xfffull, page, sizeof(page)) ? -EINVAL : 0;
}

/* ---- crash reports, TLFS 2.4.6 ---- */

static void take_crash(struct hyperv *h, uint64_t control)
{
    struct hyperv_crash c = {{0}, ""};
    memcpy(c.p, h->crash_p, sizeof(c.p));
    if (control & HV_CRASH_MESSAGE && c.p[4] < sizeof(c.text) && mem_read(h->mem, c.p[3], c.text, c.p[4]) == 0) {
        for (size_t i = 0; i < c.p[4]; i++) {
            bool plain = (c.text[i] >= ' ' && c.text[i] < 0x7f) || c.text[i] == '\n' || c.text[i] == '\t';
            c.text[i] = plain ? c.text[i] : '?';
        }
    }
    h->crash = c;
    h->has_crash = true;
}

bool hyperv_crash(struct hyperv *h, struct hyperv_crash *ret)
{
    HV_CHECK(h, HYPERV_MAGIC);
    pthread_mutex_lock(&h->lock);
    bool has = h->has_crash;
    *ret = h->crash;
    pthread_mutex_unlock(&h->lock);
    return has;
}

/* ---- MSRs ---- */

static int read_partition(struct hyperv *h, unsigned vp, uint32_t msr, uint64_t *ret)
{
    switch (msr) {
    case HV_MSR_GUEST_OS_ID: *ret = h->guest_os_id; return 0;
    case HV_MSR_HYPERCALL: *ret = h->hypercall; return 0;
    case HV_MSR_VP_INDEX: *ret = vp; return 0;
    case HV_MSR_TIME_REF: *ret = hyperv_reference_time(h, vp); return 0;
    case HV_MSR_REFERENCE_TSC: *ret = h->reference_tsc; return 0;
    case HV_MSR_TSC_HZ: *ret = h->cfg.tsc_hz; return 0;
    case HV_MSR_APIC_HZ: *ret = h->cfg.apic_hz; return 0;
    case HV_MSR_RESET: *ret = 0; return 0;
    case HV_MSR_CRASH_CTL: *ret = HV_CRASH_NOTIFY | HV_CRASH_MESSAGE; return 0;
    case HV_MSR_TSC_INVARIANT: *ret = h->tsc_invariant; return 0;
    default: break;
    }
    if (msr - HV_MSR_CRASH_P0 < ARRAY_SIZE(h->crash_p)) {
        *ret = h->crash_p[msr - HV_MSR_CRASH_P0];
        return 0;
    }
    return -EINVAL;
}

static int write_partition(struct hyperv *h, uint32_t msr, uint64_t val)
{
    switch (msr) {
    case HV_MSR_GUEST_OS_ID:
        h->guest_os_id = val;
        if (val == 0) {
            h->hypercall &= ~HV_PAGE_ENABLE;    /* TLFS 3.13: who has no name calls nobody */
        }
        return 0;
    case HV_MSR_HYPERCALL:
        if (h->guest_os_id == 0) {
            val &= ~HV_PAGE_ENABLE;
        }
        if (val & HV_PAGE_ENABLE && fill_hypercall_page(h, val) != 0) {
            return -EINVAL;
        }
        h->hypercall = val & ~2ull;             /* bit 1, locked, is not offered */
        return 0;
    case HV_MSR_REFERENCE_TSC:
        if (fill_tsc_page(h, val) != 0) {
            return -EINVAL;
        }
        h->reference_tsc = val;
        return 0;
    case HV_MSR_TSC_INVARIANT:
        if (val & ~1ull) {
            return -EINVAL;
        }
        h->tsc_invariant = val;
        return 0;
    default: break;
    }
    if (msr - HV_MSR_CRASH_P0 < ARRAY_SIZE(h->crash_p)) {
        h->crash_p[msr - HV_MSR_CRASH_P0] = val;
        return 0;
    }
    return -EINVAL;
}

static bool of_synic(uint32_t msr)
{
    return (msr >= HV_MSR_SCONTROL && msr < HV_MSR_SINT0 + HV_SINTS) || msr == HV_MSR_VP_ASSIST;
}

static int msr_read(void *dev, unsigned vp, uint32_t msr, uint64_t *ret)
{
    struct hyperv *h = dev;
    HV_CHECK(h, HYPERV_MAGIC);
    if (of_synic(msr)) {
        return synic_read(h, vp, msr, ret);
    }
    pthread_mutex_lock(&h->lock);
    int r = read_partition(h, vp, msr, ret);
    pthread_mutex_unlock(&h->lock);
    return r;
}

static int msr_write(void *dev, unsigned vp, uint32_t msr, uint64_t val)
{
    struct hyperv *h = dev;
    HV_CHECK(h, HYPERV_MAGIC);
    const struct hyperv_hooks *k = &h->cfg.hooks;
    if (of_synic(msr)) {
        return synic_write(h, vp, msr, val);
    }
    if (msr == HV_MSR_RESET) {
        if (val & 1) {
            machine_event(h->cfg.machine, MACHINE_EVENT_RESET);
        }
        return 0;
    }
    pthread_mutex_lock(&h->lock);
    bool crash = msr == HV_MSR_CRASH_CTL && val & HV_CRASH_NOTIFY;
    int r = 0;
    if (crash) {
        take_crash(h, val);
    } else if (msr != HV_MSR_CRASH_CTL) {
        r = write_partition(h, msr, val);
    }
    pthread_mutex_unlock(&h->lock);
    if (crash && k->crashed) {
        k->crashed(k->arg, &h->crash);
    }
    if (r == 0 && msr == HV_MSR_TSC_INVARIANT && k->mirror) {
        k->mirror(k->arg, vp, msr, val);
    }
    return r;
}

uint64_t hyperv_guest_os(struct hyperv *h)
{
    HV_CHECK(h, HYPERV_MAGIC);
    pthread_mutex_lock(&h->lock);
    uint64_t id = h->guest_os_id;
    pthread_mutex_unlock(&h->lock);
    return id;
}

/* ---- reset, save, load ---- */

static void reset(void *dev)
{
    struct hyperv *h = dev;
    h->guest_os_id = h->hypercall = h->reference_tsc = h->tsc_invariant = 0;
    h->time_offset = 0;
    h->time_sequence = 1;
    memset(h->crash_p, 0, sizeof(h->crash_p));
    h->has_crash = false;
    for (unsigned i = 0; i < h->cfg.vcpus; i++) {
        synic_reset(&h->vp[i]);
    }
}

static void save(void *dev, struct save_writer *w)
{
    struct hyperv *h = dev;
    const uint64_t v[] = {h->guest_os_id, h->hypercall, h->reference_tsc, h->tsc_invariant, h->cfg.tsc_hz};
    for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
        save_u64(w, v[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(h->crash_p); i++) {
        save_u64(w, h->crash_p[i]);
    }
    save_u32(w, h->cfg.vcpus);
    for (unsigned n = 0; n < h->cfg.vcpus; n++) {
        const struct synic *s = &h->vp[n];
        const uint64_t page[] = {s->scontrol, s->siefp, s->simp, s->vp_assist};
        for (size_t i = 0; i < ARRAY_SIZE(page); i++) {
            save_u64(w, page[i]);
        }
        for (size_t i = 0; i < HV_SINTS; i++) {
            save_u64(w, s->sint[i]);
        }
        save_u32(w, s->waiting);
    }
    save_u64(w, h->time_offset);
    save_u32(w, h->time_sequence);
}

/* A page a guest switched on is in its RAM: both MSRs refuse any other. */
static bool page_valid(const struct hyperv *h, uint64_t msr)
{
    return !(msr & HV_PAGE_ENABLE) || mem_is_ram(h->mem, msr & ~0xfffull, HV_PAGE_SIZE);
}

static int load(void *dev, struct load_section *sec, struct hv_error *e)
{
    struct hyperv *h = dev;
    uint64_t v[5];
    for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
        v[i] = load_u64(sec);
    }
    for (size_t i = 0; i < ARRAY_SIZE(h->crash_p); i++) {
        h->crash_p[i] = load_u64(sec);
    }
    if (load_u32(sec) != h->cfg.vcpus || sec->bad) {
        return hv_fail(e, HV_CONFLICT, "hyperv", "the saved state has another number of processors");
    }
    bool ok = !(v[1] & 2) && v[3] <= 1 && (v[0] || !(v[1] & HV_PAGE_ENABLE)) && page_valid(h, v[1]) &&
              page_valid(h, v[2]) && v[4] > TSC_HZ_LEAST;
    for (unsigned n = 0; n < h->cfg.vcpus; n++) {
        struct synic *s = &h->vp[n];
        s->scontrol = load_u64(sec);
        s->siefp = load_u64(sec);
        s->simp = load_u64(sec);
        s->vp_assist = load_u64(sec);
        for (size_t i = 0; i < HV_SINTS; i++) {
            s->sint[i] = load_u64(sec);
        }
        s->waiting = load_u32(sec) != 0;
        ok &= synic_valid(s);
    }
    /* Version 1 had no offset: its time was the TSC's alone. */
    uint64_t offset = sec->version >= 2 ? load_u64(sec) : 0;
    uint32_t sequence = sec->version >= 2 ? load_u32(sec) : 1;
    if (sec->bad || !ok || sequence == 0 || sequence == UINT32_MAX) {
        reset(h);
        return hv_fail(e, HV_FAILED, "hyperv", "its saved state is not valid");
    }
    h->guest_os_id = v[0];
    h->hypercall = v[1];
    h->reference_tsc = v[2];
    h->tsc_invariant = v[3];
    h->time_offset = offset;
    h->time_sequence = sequence;
    if (v[4] != h->cfg.tsc_hz && change_pace(h, v[4]) != 0) {
        return hv_fail(e, HV_FAILED, "hyperv", "its saved reference TSC page is not in memory");
    }
    return 0;
}

static const struct stats_desc counters[] = {
#define HYPERV_STAT_DESC(id, name, unit, help) {name, unit, help, STATS_COUNTER},
    HYPERV_STATS(HYPERV_STAT_DESC)
#undef HYPERV_STAT_DESC
};
static const struct device_ops device = {.tag = "hyperv", .version = 2, .reset = reset, .save = save, .load = load};
static const struct msr_ops msrs = {msr_read, msr_write};

int hyperv_new(const struct hyperv_config *cfg, struct hyperv **ret, struct hv_error *e)
{
    hv_assert(cfg->vcpus >= 1 && cfg->vcpus <= HYPERV_VCPUS_MAX && cfg->tsc_hz > TSC_HZ_LEAST && cfg->hooks.read_tsc);
    struct hyperv *h = hv_alloc(sizeof(*h));
    if (!h) {
        return hv_fail(e, HV_NO_RESOURCES, "hyperv", "out of memory");
    }
    h->magic = HYPERV_MAGIC;
    h->cfg = *cfg;
    h->mem = machine_mem(cfg->machine);
    h->time_sequence = 1;
    pthread_mutex_init(&h->lock, NULL);
    for (unsigned i = 0; i < HYPERV_VCPUS_MAX; i++) {
        pthread_mutex_init(&h->vp[i].lock, NULL);
        synic_reset(&h->vp[i]);
    }
    h->stats = (struct stats_table){"hyperv", counters, HYPERV_COUNTERS, h->count, NULL};
    stats_register(machine_stats(cfg->machine), &h->stats);
    machine_add_msrs(cfg->machine, HV_MSR_FIRST, HV_MSR_COUNT, &msrs, h);
    machine_add_hypercall(cfg->machine, hypercall_dispatch, h);
    machine_add_device(cfg->machine, &device, 0, h);
    *ret = h;
    return 0;
}

void hyperv_free(struct hyperv *h)
{
    if (!h) {
        return;
    }
    HV_CHECK(h, HYPERV_MAGIC);
    for (unsigned i = 0; i < HYPERV_VCPUS_MAX; i++) {
        pthread_mutex_destroy(&h->vp[i].lock);
    }
    pthread_mutex_destroy(&h->lock);
    h->magic = 0;
    free(h);
}
