/*
 * Reset, save and load of dynamic memory. Memory that was added is removed by a reset: the
 * new kernel sees what it boots with. A load finds it mapped (hv/vm does that, before RAM's
 * contents) and checks that it is.
 */
#include <errno.h>

#include "hv/vsp/dynmem_impl.h"

/* vCPUs are parked and nothing is pinned: rings and I/O have ended before. */
static void reset(void *dev)
{
    struct dynmem *d = dev;             /* the bus has closed the channel: on_close() did the rest */
    for (unsigned i = 0;;) {
        gpa_t gpa;
        uint64_t len;
        bool rom;
        if (mem_region(d->mem, i, &gpa, &len, &rom) < 0)
            break;
        if (rom || gpa < d->cfg.hot_base || gpa >= d->cfg.hot_top || mem_remove(d->mem, gpa, len) < 0)
            i++;
    }
    d->hot_next = d->hot_mapped = d->cfg.hot_base;
    d->hot_added_pages = 0;
    d->hot_add_off = false;
    d->transaction = 0;
    pageset_clear(&d->balloon);
    vsp_timer_stop(&d->enforce);
}

static void save(void *dev, struct save_writer *w)
{
    const struct dynmem *d = dev;
    uint64_t now = machine_clock_ns(d->machine);
    save_u8(w, d->state);
    save_u32(w, d->version);
    save_u32(w, d->caps);
    save_u64(w, d->hot_align);
    save_u8(w, d->hot_add_off);
    save_u32(w, d->transaction);
    pageset_save(&d->balloon, w);
    save_u64(w, d->hot_next);
    save_u64(w, d->hot_mapped);
    save_u64(w, d->hot_added_pages);
    save_u64(w, d->target);
    save_u8(w, d->op);
    save_u64(w, d->op_pages);
    save_u64(w, d->op_got);
    save_u8(w, d->stuck);
    save_u64(w, d->backoff_until_ns > now ? d->backoff_until_ns - now : 0);
    save_u64(w, d->backoff_ns);
    save_u64(w, d->reports);
    save_u64(w, d->available_pages);
    save_u64(w, d->committed_pages);
    save_u64(w, d->own.committed);
    save_u64(w, d->watch_pages);
    save_u64(w, d->watch.available);
    save_u64(w, d->watch.committed);
    save_u64(w, d->offline_pages);
    vsp_timer_save(&d->timer, w);
}

static bool good(const struct dynmem *d)
{
    const struct dynmem_config *c = &d->cfg;
    uint64_t pfn = 0, n;
    if ((d->state == DM_CLOSED) == vmbus_channel_is_open(d->ch) || d->op >= DYNMEM_OP_COUNT ||
        (d->op != DYNMEM_IDLE && d->state != DM_READY) || d->op_got > d->op_pages ||
        d->op_pages > MAX(MAX_OP_PAGES, MAX_BALLOON_PAGES))
        return false;
    if (d->state == DM_READY && (d->hot_align < HOT_ADD_ALIGN || d->hot_align & (d->hot_align - 1)))
        return false;
    if (d->hot_next < c->hot_base || d->hot_next > d->hot_mapped || d->hot_mapped > MAX(c->hot_top, c->hot_base) ||
        d->hot_next % HV_PAGE_SIZE || d->hot_mapped % HV_PAGE_SIZE ||
        d->hot_added_pages > (d->hot_next - c->hot_base) / HV_PAGE_SIZE ||
        d->balloon.count > boot_bytes(d) / HV_PAGE_SIZE + d->hot_added_pages ||
        d->op_pages - d->op_got > (d->op == DYNMEM_UNBALLOON ? d->balloon.count : UINT64_MAX))
        return false;
    for (gpa_t at = c->hot_base; at < d->hot_next; at += HOT_ADD_ALIGN)
        if (d->hot_added_pages && !mem_is_ram(d->mem, at, HV_PAGE_SIZE) && d->hot_align == HOT_ADD_ALIGN)
            return false;
    for (; pageset_next(&d->balloon, &pfn, &n, UINT32_MAX); pfn += n)
        if (!mem_is_ram(d->mem, pfn << HV_PAGE_SHIFT, n << HV_PAGE_SHIFT))
            return false;
    return true;
}

static uint64_t load_capped(struct load_section *s, uint64_t max)
{
    uint64_t v = load_u64(s);
    return MIN(v, max);
}

static int load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct dynmem *d = dev;
    uint64_t now = machine_clock_ns(d->machine);
    d->state = load_u8(s);
    d->version = load_u32(s);
    d->caps = load_u32(s);
    d->hot_align = load_u64(s);
    d->hot_add_off = load_u8(s);
    d->transaction = load_u32(s);
    int r = pageset_load(&d->balloon, s);
    if (r < 0)
        return r;
    d->hot_next = load_u64(s);
    d->hot_mapped = load_u64(s);
    d->hot_added_pages = load_u64(s);
    d->target = load_u64(s);
    d->op = load_u8(s);
    d->op_pages = load_u64(s);
    d->op_got = load_u64(s);
    d->stuck = load_u8(s);
    d->backoff_until_ns = now + load_capped(s, BACKOFF_MAX_NS);
    d->backoff_ns = load_capped(s, BACKOFF_MAX_NS);
    d->reports = load_u64(s);
    d->available_pages = load_capped(s, UINT64_C(1) << 40);
    d->committed_pages = load_capped(s, UINT64_C(1) << 40);
    d->own = (struct dynmem_own){.committed = load_capped(s, UINT64_C(1) << 40)};
    d->report_ns = d->ready_ns = d->op_began_ns = now;
    d->reported_assigned = assigned_bytes(d);
    d->watch_pages = load_capped(s, MAX_OP_PAGES);
    d->watch.available = load_capped(s, UINT64_C(1) << 41);
    d->watch.committed = load_capped(s, UINT64_C(1) << 40);
    d->offline_pages = load_capped(s, MAX_OP_PAGES);
    vsp_timer_load(&d->timer, s);
    if (s->bad || d->state >= DM_STATES || !good(d)) {
        d->state = DM_CLOSED;
        d->op = DYNMEM_IDLE;
        return -EINVAL;
    }
    dynmem_watch_use(d);
    return 0;
}

const struct device_ops dynmem_device_ops = {
    .tag = "dynmem", .version = 1, .reset = reset, .save = save, .load = load,
};
