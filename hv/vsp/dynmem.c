/* Dynamic memory: the channel, start of the protocol, status reports. See dynmem.h. */
#include <errno.h>
#include <stdarg.h>

#include "hv/base/units.h"
#include "hv/vsp/dynmem_impl.h"

void dynmem_event(const struct dynmem *d, bool warning, const char *hint, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_debug("dynmem", "%s", text);
    if (d->cfg.event)
        d->cfg.event(d->cfg.arg, warning, text, hint);
}

/* m[len], header filled here. 0, or as vmbus_send(). */
int dynmem_send(struct dynmem *d, uint8_t *m, enum dm_type type, uint32_t len)
{
    put_le16(m + DM_TYPE, (uint16_t)type);
    put_le16(m + DM_SIZE, (uint16_t)len);
    put_le32(m + DM_TRANSACTION, d->transaction + 1);
    int r = vmbus_send(d->ch, 0, false, m, len);
    if (r == 0)
        d->transaction++;
    return r;
}

/* ---- start of the protocol ---- */

static int on_version(struct dynmem *d, const uint8_t *m)
{
    uint32_t version = get_le32(m + DM_VERSION);
    bool known = version == DM_VERSION_0_3 || version == DM_VERSION_1_0 || version == DM_VERSION_2_0;
    uint8_t a[DM_RESPONSE_SIZE] = {0};
    if (d->state != DM_OPEN)
        return -EPROTO;
    put_le64(a + DM_ACCEPTED, known);
    int r = dynmem_send(d, a, DM_VERSION_RESPONSE, sizeof(a));
    if (r == 0 && known) {
        d->version = version;
        d->state = DM_VERSIONED;
    }
    return r;
}

static int send_info(struct dynmem *d)
{
    uint8_t m[DM_INFO_SIZE] = {0};
    put_le32(m + DM_INFO_LEN, DM_INFO_SIZE - DM_INFO_TYPE);
    put_le32(m + DM_INFO_TYPE, 0);                 /* maximum page count */
    put_le32(m + DM_INFO_DATA_LEN, 8);
    put_le64(m + DM_INFO_DATA, d->cfg.max_bytes / HV_PAGE_SIZE);
    return dynmem_send(d, m, DM_INFO, sizeof(m));
}

static int on_capabilities(struct dynmem *d, const uint8_t *m)
{
    uint64_t caps = get_le64(m + DM_CAPS);
    uint8_t a[DM_RESPONSE_SIZE] = {0};
    if (d->state != DM_VERSIONED)
        return -EPROTO;
    put_le64(a + DM_ACCEPTED, 1);
    int r = dynmem_send(d, a, DM_CAPABILITIES_RESPONSE, sizeof(a));
    if (r < 0)
        return r;
    d->caps = (uint32_t)caps;
    d->hot_align = MAX(MIB << (caps >> DM_CAP_ALIGN_SHIFT & DM_CAP_ALIGN_MASK), HOT_ADD_ALIGN);
    d->hot_add_off = !(caps & DM_CAP_HOT_ADD) || d->hot_align > HOT_ADD_ALIGN_MAX;
    d->state = DM_READY;
    d->ready_ns = machine_clock_ns(d->machine);
    (void)send_info(d);
    log_debug("dynmem", "protocol %u.%u, capabilities 0x%x", d->version >> 16, d->version & 0xFFFF, d->caps);
    dynmem_step(d);
    return 0;
}

/* ---- status ---- */

uint64_t dynmem_floor(uint64_t ram)
{
    static const struct { uint32_t below_mb, base_mb, shift; } part[] = {
        {128, 8, 1}, {512, 40, 2}, {2048, 104, 3}, {8192, 232, 4}, {UINT32_MAX, 488, 5},
    };
    unsigned i = 0;
    while (i + 1 < ARRAY_SIZE(part) && ram >= part[i].below_mb * MIB)
        i++;
    return part[i].base_mb * MIB + (ram >> part[i].shift);
}

/* The balloon's share of a report: what it took is committed and not available, also what is on its way back. */
static uint64_t in_balloon(const struct dynmem *d)
{
    return d->balloon.count + (d->op == DYNMEM_UNBALLOON ? d->op_got : 0);
}

static bool near(uint64_t from, uint64_t to, int64_t by)
{
    int64_t off = (int64_t)(to - from) - by;
    return off <= (int64_t)ONLINE_NOISE && off >= -(int64_t)ONLINE_NOISE;
}

static void came_online(struct dynmem *d, uint64_t pages)
{
    d->offline_pages -= pages;
    d->online_pages = 0;
    if (!d->offline_pages)
        dynmem_event(d, false, NULL, "the memory that was added is in use now");
    dynmem_step(d);
}

/* Is the difference between two reports that of so many pages put online? The larger guest keeps more for itself. */
static bool looks_online(const struct dynmem *d, const struct dynmem_own *from, uint64_t pages, int64_t available, int64_t committed)
{
    uint64_t offline = (d->offline_pages + d->watch_pages) * HV_PAGE_SIZE;
    uint64_t has = d->reported_assigned - MIN(offline, d->reported_assigned);
    int64_t kept = (int64_t)((dynmem_floor(has + pages * HV_PAGE_SIZE) - dynmem_floor(has)) / HV_PAGE_SIZE);
    return near(from->available, d->own.available, available) && near(from->committed, d->own.committed, committed + kept);
}

/*
 * Did what was added come into use? A guest's two numbers cannot tell in general: Linux counts
 * blocks that it could not put online as committed (guest-abi 6.1.8), which is what a program that
 * fills blocks that are online looks like. So:
 *
 *   - An addition is answered at once, or after Linux' driver has waited for it in vain: that tells
 *     (dynmem_on_hot_add()), and this report, the first after it, says otherwise only where it is
 *     that of a guest at rest with the addition in use. Its page structs cost 1/64.
 *   - Put online later by hand, blocks go from committed to available between two reports. That
 *     counts where the reports around it are at rest.
 *   - No more can be offline than is committed.
 */
static void watch_online(struct dynmem *d, struct dynmem_own old)
{
    const uint64_t block = HOT_ADD_ALIGN / HV_PAGE_SIZE;
    uint64_t n = d->watch_pages;
    if (n) {
        bool came = looks_online(d, &d->watch, n, (int64_t)(n - n / 64), 0) || d->own.committed < n;
        d->watch_pages = 0;
        if (!came) {
            char size[24];
            d->offline_pages += n;
            dynmem_event(d, true, "boot the guest with memhp_default_state=online",
                         "%s were added and the guest does not put them online: no more is added",
                         format_size(n * HV_PAGE_SIZE, size, sizeof(size)));
        }
        dynmem_step(d);
    }
    if (!d->offline_pages)
        return;
    d->own.rests = near(old.available, d->own.available, 0) && near(old.committed, d->own.committed, 0);
    uint64_t more = d->own.available > old.available ? ROUND_DOWN(d->own.available - old.available + block / 2, block) : 0;
    if (d->own.committed < d->offline_pages)
        came_online(d, d->offline_pages);
    else if (d->online_pages && d->own.rests)
        came_online(d, d->online_pages);
    else if (old.rests && more && more <= d->offline_pages && looks_online(d, &old, more, (int64_t)more, -(int64_t)more))
        d->online_pages = more;
    else
        d->online_pages = 0;
}

/* Does it need more than it has, by what it uses or by what it has promised its programs? */
static bool is_short(const struct dynmem *d)
{
    uint64_t has = d->reported_assigned, available = d->available_pages * HV_PAGE_SIZE;
    uint64_t used = has - MIN(available, has) + dynmem_floor(has);
    return used > has || d->own.committed * HV_PAGE_SIZE > has;
}

static int on_status(struct dynmem *d, const uint8_t *m)
{
    if (d->state != DM_READY)
        return -EPROTO;
    /* Two numbers of its own choosing: nothing is derived from them but reports. */
    d->available_pages = MIN(get_le64(m + DM_AVAILABLE), UINT64_C(1) << 40);
    d->committed_pages = MIN(get_le64(m + DM_COMMITTED), UINT64_C(1) << 40);
    struct dynmem_own before = d->own;
    uint64_t balloon = in_balloon(d);
    d->own = (struct dynmem_own){.available = d->available_pages + balloon,
                                 .committed = d->committed_pages - MIN(balloon, d->committed_pages)};
    d->report_ns = machine_clock_ns(d->machine);
    d->reported_assigned = assigned_bytes(d);
    d->reports++;
    watch_online(d, before);
    if (d->cfg.urgent && is_short(d) && d->report_ns - d->urgent_ns >= URGENT_NS) {
        d->urgent_ns = d->report_ns;
        d->cfg.urgent(d->cfg.arg);
    }
    return 0;
}

/* ---- the channel ---- */

static int on_open(void *arg, const uint8_t *user)
{
    struct dynmem *d = arg;
    d->state = DM_OPEN;
    return 0;
}

/*
 * The driver went, or the kernel did. What it had given is the guest's own again (a new kernel
 * sees all of boot RAM), what was added stays.
 */
static void on_close(void *arg)
{
    struct dynmem *d = arg;
    d->state = DM_CLOSED;
    d->version = d->caps = 0;
    pageset_clear(&d->balloon);
    d->op = DYNMEM_IDLE;
    d->stuck = false;
    d->reports = d->available_pages = d->committed_pages = 0;
    d->own = (struct dynmem_own){0};
    d->watch_pages = d->offline_pages = d->online_pages = 0;
    d->puts_online = false;
    d->backoff_ns = d->backoff_until_ns = 0;
    d->target = 0;
    d->told_of_use = false;
    vsp_timer_stop(&d->timer);
}

static int on_packet(void *arg, const struct vmbus_packet *p)
{
    static const uint16_t size[DM_TYPE_COUNT] = {
        [DM_VERSION_REQUEST] = DM_VERSION_REQUEST_SIZE, [DM_CAPABILITIES] = DM_CAPS_SIZE,
        [DM_STATUS] = DM_STATUS_SIZE,                   [DM_BALLOON_RESPONSE] = DM_BALLOON_RANGES,
        [DM_UNBALLOON_RESPONSE] = DM_HEADER,            [DM_HOT_ADD_RESPONSE] = DM_HOT_RESPONSE_SIZE,
    };
    struct dynmem *d = arg;
    if (p->type != VMBUS_PKT_INBAND || p->len < DM_HEADER)
        return -EPROTO;
    const uint8_t *m = p->payload;
    unsigned type = get_le16(m + DM_TYPE), len = get_le16(m + DM_SIZE);
    if (type >= DM_TYPE_COUNT || !size[type] || len < size[type] || len > p->len)
        return -EPROTO;
    switch ((enum dm_type)type) {
    case DM_VERSION_REQUEST: return on_version(d, m);
    case DM_CAPABILITIES: return on_capabilities(d, m);
    case DM_STATUS: return on_status(d, m);
    case DM_BALLOON_RESPONSE: return dynmem_on_balloon(d, m, len);
    case DM_UNBALLOON_RESPONSE: return dynmem_on_unballoon(d);
    case DM_HOT_ADD_RESPONSE: return dynmem_on_hot_add(d, m);
    default: return -EPROTO;
    }
}

static void on_writable(void *arg)
{
    struct dynmem *d = arg;
    vmbus_channel_resume(d->ch);
    if (d->op == DYNMEM_UNBALLOON)
        dynmem_continue_unballoon(d);
    else
        dynmem_step(d);
}

static const struct vmbus_channel_ops channel_ops = {
    .open = on_open, .close = on_close, .packet = on_packet, .writable = on_writable,
};

static void on_timer(void *arg)
{
    struct dynmem *d = arg;
    if (d->op == DYNMEM_IDLE) {
        dynmem_step(d);
        return;
    }
    if (!d->stuck)
        dynmem_event(d, true, NULL, "the guest does not answer a request to %s",
                     d->op == DYNMEM_BALLOON ? "give memory back" : "take memory");
    d->stuck = true;
}

static void on_enforce(void *arg)
{
    struct dynmem *d = arg;
    uint64_t found;
    (void)dynmem_enforce(d, &found);
    if (found && d->cfg.used)
        d->cfg.used(d->cfg.arg, found);
    /* While memory is being added the guest uses what is not counted yet; ROM is not counted either. */
    if (d->op != DYNMEM_HOT_ADD && found > ENFORCE_SLACK && !d->told_of_use) {
        d->told_of_use = true;
        dynmem_event(d, true, NULL, "the guest used memory that it had given back: it was taken again");
    }
    dynmem_watch_use(d);
}

/* ---- for others ---- */

int dynmem_new(const struct dynmem_config *cfg, struct dynmem **ret, struct hv_error *e)
{
    static const struct vmbus_offer offer = {
        .name = "dynmem",
        .class_id = {{0xdc, 0x74, 0x50, 0x52, 0x85, 0x89, 0xe2, 0x46, 0x80, 0x57, 0xa3, 0x07, 0xdc, 0x18, 0xa5, 0x02}},
        .instance_id = {{0x72, 0xfd, 0xcc, 0x1e, 0x41, 0x4b, 0xef, 0x45, 0xb7, 0x3a, 0x4a, 0x6e, 0x44, 0xc1, 0x29, 0x24}},
        .flags = VMBUS_OFFER_ENUMERATE,
    };
    struct dynmem *d = hv_alloc(sizeof(*d));
    if (!d)
        return hv_fail(e, HV_NO_RESOURCES, offer.name, "out of memory");
    d->magic = DYNMEM_MAGIC;
    d->cfg = *cfg;
    d->machine = vmbus_machine(cfg->bus);
    d->mem = machine_mem(d->machine);
    d->hot_next = d->hot_mapped = cfg->hot_base;
    int r = pageset_init(&d->balloon, MAX(MEM_HIGH_BASE + cfg->high_bytes, cfg->hot_top));
    if (r == 0)
        r = vsp_timer_init(&d->timer, d->machine, on_timer, d);
    if (r == 0)
        r = vsp_timer_init(&d->enforce, d->machine, on_enforce, d);
    if (r < 0)
        hv_fail(e, HV_NO_RESOURCES, offer.name, "out of memory");
    if (r == 0)
        r = vmbus_offer(cfg->bus, &offer, &channel_ops, d, &d->ch, e);
    if (r < 0) {
        dynmem_free(d);
        return r;
    }
    machine_add_device(d->machine, &dynmem_device_ops, 0, d);
    *ret = d;
    return 0;
}

void dynmem_free(struct dynmem *d)
{
    if (!d)
        return;
    HV_CHECK(d, DYNMEM_MAGIC);
    vmbus_withdraw(d->ch);
    vsp_timer_fini(&d->timer);
    vsp_timer_fini(&d->enforce);
    pageset_fini(&d->balloon);
    d->magic = 0;
    free(d);
}

int dynmem_set_target(struct dynmem *d, uint64_t bytes, struct hv_error *e)
{
    HV_CHECK(d, DYNMEM_MAGIC);
    char want[SIZE_TEXT], have[SIZE_TEXT];
    bytes = ROUND_DOWN(bytes, HV_PAGE_SIZE);
    const uint64_t now = assigned_bytes(d), most = MAX(d->cfg.max_bytes, boot_bytes(d));
    if (bytes > most) {
        format_sizes(bytes, want, most, have);
        return hv_fail(e, HV_USAGE, "memory", "%s is more than its maximum, %s", want, have);
    }
    if (bytes && d->state != DM_READY) {
        hv_fail(e, HV_UNSUPPORTED, "memory", "the guest has no dynamic memory driver running");
        hv_hint(e, "in the guest: modprobe hv_balloon");
        return -EOPNOTSUPP;
    }
    if (bytes && bytes < now && !(d->caps & DM_CAP_BALLOON))
        return hv_fail(e, HV_UNSUPPORTED, "memory", "the guest's driver cannot give memory back");
    if (bytes > now + d->balloon.count * HV_PAGE_SIZE && (d->hot_add_off || d->offline_pages)) {
        hv_fail(e, HV_UNSUPPORTED, "memory", d->offline_pages ? "the guest does not put added memory online"
                                                              : "the guest refuses added memory");
        hv_hint(e, d->offline_pages ? "boot the guest with memhp_default_state=online"
                                    : "in the guest: modprobe -r hv_balloon; modprobe hv_balloon hot_add=1");
        return -EOPNOTSUPP;
    }
    if (bytes >= now)
        d->backoff_until_ns = 0;        /* it was about taking, this is giving */
    d->target = bytes;
    dynmem_step(d);
    return 0;
}

void dynmem_set_max(struct dynmem *d, uint64_t bytes)
{
    HV_CHECK(d, DYNMEM_MAGIC);
    if (bytes == d->cfg.max_bytes)
        return;
    d->cfg.max_bytes = bytes;
    if (d->state == DM_READY)
        (void)send_info(d);
}

void dynmem_report(const struct dynmem *d, struct dynmem_report *ret)
{
    HV_CHECK(d, DYNMEM_MAGIC);
    *ret = (struct dynmem_report){
        .driver = d->state == DM_READY,
        .reporting = d->reports != 0,
        .version = d->version,
        .assigned = assigned_bytes(d),
        .visible = boot_bytes(d) + d->hot_added_pages * HV_PAGE_SIZE,
        .ballooned = d->balloon.count * HV_PAGE_SIZE,
        .hot_added = d->hot_added_pages * HV_PAGE_SIZE,
        .available = d->available_pages * HV_PAGE_SIZE,
        .committed = d->committed_pages * HV_PAGE_SIZE,
        .demand = (d->own.committed - MIN(d->offline_pages, d->own.committed)) * HV_PAGE_SIZE,
        .offline = d->offline_pages * HV_PAGE_SIZE,
        .target = d->target,
        .driver_age_ns = d->state == DM_READY ? machine_clock_ns(d->machine) - d->ready_ns : 0,
        .report_age_ns = d->reports ? machine_clock_ns(d->machine) - d->report_ns : 0,
        .reported_assigned = d->reported_assigned,
        .reports = d->reports,
        .last_op = d->last_op,
        .last_bytes = d->last_pages * (int64_t)HV_PAGE_SIZE,
        .last_took_ns = d->last_took_ns,
        .last_ago_ns = d->last_op ? machine_clock_ns(d->machine) - d->last_end_ns : 0,
        .op = d->op,
        .can_balloon = d->state == DM_READY && d->caps & DM_CAP_BALLOON,
        .can_hot_add = d->state == DM_READY && !d->hot_add_off && !d->offline_pages && d->hot_next < d->cfg.hot_top,
        .stuck = d->stuck,
    };
}

uint64_t dynmem_ballooned(const struct dynmem *d, gpa_t gpa, uint64_t len)
{
    uint64_t end = (gpa + len) >> HV_PAGE_SHIFT, sum = 0, n;
    HV_CHECK(d, DYNMEM_MAGIC);
    for (uint64_t pfn = gpa >> HV_PAGE_SHIFT; pfn < end && pageset_next(&d->balloon, &pfn, &n, end - pfn); pfn += n)
        if (pfn < end)
            sum += MIN(n, end - pfn);
    return sum * HV_PAGE_SIZE;
}

const char *dynmem_op_word(enum dynmem_op op)
{
    static const char *const words[] = {
#define DYNMEM_OP_WORD(name, word) word,
        DYNMEM_OPS(DYNMEM_OP_WORD)
#undef DYNMEM_OP_WORD
    };
    return words[op];
}
