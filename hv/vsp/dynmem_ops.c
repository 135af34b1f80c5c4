/*
 * The three operations that move memory, one at a time:
 *
 *   balloon    request ─▶ responses with ranges, the last says so      ranges checked, punched
 *   unballoon  ranges, the last message says so ─▶ response            punched once more before
 *   hot-add    RAM is mapped, range ─▶ pages taken and a result        the rest waits for the next
 */
#include <errno.h>

#include "hv/base/units.h"
#include "hv/vsp/dynmem_impl.h"

static void begin(struct dynmem *d, enum dynmem_op op, uint64_t pages)
{
    d->op = op;
    d->op_pages = pages;
    d->op_got = 0;
    d->op_began_ns = machine_clock_ns(d->machine);
    d->stuck = false;
    vsp_timer_in(&d->timer, PATIENCE_NS);
    log_debug("dynmem", "%s of %llu pages", dynmem_op_word(op), (unsigned long long)pages);
}

/* The operation is over: go on towards the target, now or when the back-off ends. */
void dynmem_finish_op(struct dynmem *d)
{
    dynmem_watch_use(d);
    log_debug("dynmem", "%s: %llu of %llu pages", dynmem_op_word(d->op), (unsigned long long)d->op_got,
              (unsigned long long)d->op_pages);
    if (d->op_got) {
        d->last_op = d->op;
        d->last_pages = d->op == DYNMEM_BALLOON ? -(int64_t)d->op_got : (int64_t)d->op_got;
        d->last_end_ns = machine_clock_ns(d->machine);
        d->last_took_ns = d->last_end_ns - d->op_began_ns;
    }
    d->op = DYNMEM_IDLE;
    d->stuck = false;
    vsp_timer_stop(&d->timer);
    dynmem_step(d);
    if (d->cfg.urgent)
        d->cfg.urgent(d->cfg.arg);
}

static void back_off(struct dynmem *d, uint64_t ns)
{
    d->backoff_until_ns = machine_clock_ns(d->machine) + ns;
}

/* ---- balloon ---- */

static void start_balloon(struct dynmem *d, uint64_t bytes)
{
    uint8_t m[DM_BALLOON_SIZE] = {0};
    uint64_t pages = MIN(bytes / HV_PAGE_SIZE, MAX_BALLOON_PAGES);
    if (!(d->caps & DM_CAP_BALLOON))
        return;
    put_le32(m + DM_BALLOON_PAGES, (uint32_t)pages);
    if (dynmem_send(d, m, DM_BALLOON_REQUEST, sizeof(m)) == 0)
        begin(d, DYNMEM_BALLOON, pages);
}

/* Is all of it memory the guest has and may give? */
static bool may_give(const struct dynmem *d, uint64_t pfn, uint64_t pages)
{
    static const gpa_t high = MEM_HIGH_BASE;
    gpa_t first = pfn << HV_PAGE_SHIFT, end = first + (pages << HV_PAGE_SHIFT);
    return (first < d->cfg.low_bytes && end <= d->cfg.low_bytes) ||
           (first >= high && end <= high + d->cfg.high_bytes) ||
           (first >= d->cfg.hot_base && end <= d->hot_next && mem_is_ram(d->mem, first, end - first));
}

static int punch(struct dynmem *d, uint64_t pfn, uint64_t pages)
{
    return pages ? mem_punch(d->mem, pfn << HV_PAGE_SHIFT, pages << HV_PAGE_SHIFT) : 0;
}

int dynmem_on_balloon(struct dynmem *d, const uint8_t *m, uint32_t len)
{
    uint32_t flags = get_le32(m + DM_BALLOON_FLAGS), ranges = flags >> 1;
    bool more = flags & 1;
    if (d->op != DYNMEM_BALLOON || ranges > (len - DM_BALLOON_RANGES) / 8)
        return -EPROTO;
    uint64_t run = 0, run_pages = 0;        /* adjacent ranges are punched as one, in whichever order they come */
    for (uint32_t i = 0; i < ranges; i++) {
        uint64_t range = get_le64(m + DM_BALLOON_RANGES + 8 * i);
        uint64_t pfn = DM_RANGE_PFN(range), pages = DM_RANGE_PAGES(range);
        if (!pages || !may_give(d, pfn, pages) || pages > d->op_pages - d->op_got ||
            pageset_add(&d->balloon, pfn, pages) < 0)
            return -EPROTO;
        d->op_got += pages;
        if (run_pages && pfn == run + run_pages) {
            run_pages += pages;
        } else if (run_pages && pfn + pages == run) {
            run = pfn;
            run_pages += pages;
        } else {
            (void)punch(d, run, run_pages);   /* if the host refuses, dynmem_enforce() tries again */
            run = pfn;
            run_pages = pages;
        }
    }
    (void)punch(d, run, run_pages);
    vsp_timer_in(&d->timer, PATIENCE_NS);
    dynmem_watch_use(d);
    d->stuck = false;
    if (more)
        return 0;
    if (d->op_got < d->op_pages) {
        char got[SIZE_TEXT], want[SIZE_TEXT];
        d->backoff_ns = d->backoff_ns ? MIN(d->backoff_ns * 2, BACKOFF_MAX_NS) : BACKOFF_NS;
        back_off(d, d->backoff_ns);
        format_sizes(d->op_got * HV_PAGE_SIZE, got, d->op_pages * HV_PAGE_SIZE, want);
        dynmem_event(d, false, NULL, "the guest gave back %s of the %s it was asked for", got, want);
    } else {
        d->backoff_ns = 0;
    }
    dynmem_finish_op(d);
    return 0;
}

/* ---- unballoon ---- */

/* Send what is left of op_pages, message by message, until the ring is full. */
void dynmem_continue_unballoon(struct dynmem *d)
{
    uint8_t m[DM_MAX_MESSAGE];
    while (d->op_got < d->op_pages) {
        uint64_t left = d->op_pages - d->op_got, sum = 0, pfn = 0, n;
        uint32_t ranges = 0;
        memset(m, 0, DM_UNBALLOON_RANGES);
        while (sum < left && ranges < DM_MESSAGE_RANGES &&
               pageset_next(&d->balloon, &pfn, &n, MIN(left - sum, DM_RANGE_MAX_PAGES))) {
            put_le64(m + DM_UNBALLOON_RANGES + 8 * ranges++, DM_RANGE(pfn, n));
            sum += n;
            pfn += n;
        }
        hv_assert(ranges && sum <= left);
        put_le32(m + DM_UNBALLOON_MORE, sum < left);
        put_le32(m + DM_UNBALLOON_COUNT, ranges);
        /* Zeros is what the guest gets, even where it has touched pages that were not its own. */
        for (uint32_t i = 0; i < ranges; i++) {
            uint64_t range = get_le64(m + DM_UNBALLOON_RANGES + 8 * i);
            (void)punch(d, DM_RANGE_PFN(range), DM_RANGE_PAGES(range));
        }
        if (dynmem_send(d, m, DM_UNBALLOON_REQUEST, DM_UNBALLOON_RANGES + 8 * ranges) < 0)
            return;                          /* on_writable() goes on; a dead channel has ended it all */
        for (uint32_t i = 0; i < ranges; i++) {
            uint64_t range = get_le64(m + DM_UNBALLOON_RANGES + 8 * i);
            pageset_remove(&d->balloon, DM_RANGE_PFN(range), DM_RANGE_PAGES(range));
        }
        d->op_got += sum;
    }
}

static void start_unballoon(struct dynmem *d, uint64_t bytes)
{
    begin(d, DYNMEM_UNBALLOON, MIN(MIN(bytes / HV_PAGE_SIZE, d->balloon.count), MAX_OP_PAGES));
    dynmem_continue_unballoon(d);
}

int dynmem_on_unballoon(struct dynmem *d)
{
    if (d->op != DYNMEM_UNBALLOON || d->op_got < d->op_pages)
        return -EPROTO;
    dynmem_finish_op(d);
    return 0;
}

/* ---- hot-add ---- */

static void start_hot_add(struct dynmem *d, uint64_t bytes)
{
    uint8_t m[DM_HOT_SIZE] = {0};
    gpa_t start = ROUND_UP(d->hot_next, d->hot_align);
    if (d->hot_add_off || d->offline_pages || d->watch_pages || start >= d->cfg.hot_top)
        return;
    /* One block, to see whether the guest can use it; until that is known, no other. */
    uint64_t len = MIN(MIN(bytes, MAX_OP_PAGES * HV_PAGE_SIZE), d->cfg.hot_top - start);
    len = d->puts_online ? len : MIN(len, d->hot_align);
    len = ROUND_DOWN(len, d->hot_align);
    if (!len)
        return;
    struct hv_error e = {0};
    gpa_t from = MAX(d->hot_mapped, start), end = start + len;
    if (end > from) {
        if (mem_add_ram(d->mem, from, end - from, &e) < 0) {
            d->hot_add_off = true;
            dynmem_event(d, true, NULL, "cannot add memory: %s", e.message);
            return;
        }
        d->hot_mapped = end;
    }
    put_le64(m + DM_HOT_RANGE, DM_RANGE(start >> HV_PAGE_SHIFT, len >> HV_PAGE_SHIFT));
    /* Without a region of ours Linux makes one for each addition, which then always fits. */
    if (dynmem_send(d, m, DM_HOT_ADD_REQUEST, sizeof(m)) < 0)
        return;
    d->hot_next = start;
    d->watch = d->own;
    begin(d, DYNMEM_HOT_ADD, len >> HV_PAGE_SHIFT);
}

int dynmem_on_hot_add(struct dynmem *d, const uint8_t *m)
{
    uint32_t added = get_le32(m + DM_HOT_ADDED), result = get_le32(m + DM_HOT_RESULT);
    if (d->op != DYNMEM_HOT_ADD || added > d->op_pages)
        return -EPROTO;
    d->op_got = added;
    d->hot_added_pages += added;
    d->hot_next += (uint64_t)added << HV_PAGE_SHIFT;
    if (added) {
        uint64_t blocks = MAX(added * HV_PAGE_SIZE / HOT_ADD_ALIGN, 1), took = machine_clock_ns(d->machine) - d->op_began_ns;
        d->puts_online = took < ONLINED_NS;
        /* Where some of several were waited for, the next block alone tells. */
        d->watch_pages = took >= blocks * ONLINED_NS ? added : 0;
    }
    if (added < d->op_pages) {
        if (!added && result) {
            d->hot_add_off = true;
            dynmem_event(d, true, "load hv_balloon with hot_add=1, in a kernel with CONFIG_MEMORY_HOTPLUG",
                         "the guest refuses added memory");
        } else {
            back_off(d, RETRY_HOT_ADD_NS);
            dynmem_event(d, false, NULL, "the guest took %u of %llu MiB", added / 256,
                         (unsigned long long)d->op_pages / 256);
        }
    }
    dynmem_finish_op(d);
    return 0;
}

/* ---- which one next ---- */

void dynmem_step(struct dynmem *d)
{
    uint64_t now = assigned_bytes(d), clock = machine_clock_ns(d->machine);
    if (d->state != DM_READY || d->op != DYNMEM_IDLE || !d->target || !vmbus_running(d->cfg.bus))
        return;
    if (d->backoff_until_ns > clock) {
        vsp_timer_in(&d->timer, d->backoff_until_ns - clock);
        return;
    }
    if (now > d->target)
        start_balloon(d, now - d->target);
    else if (now < d->target && d->balloon.count)
        start_unballoon(d, d->target - now);
    else if (now < d->target)
        start_hot_add(d, d->target - now);
}

void dynmem_watch_use(struct dynmem *d)
{
    if (d->enforce.due_ns == VSP_TIMER_OFF && (d->balloon.count || d->hot_mapped > d->hot_next))
        vsp_timer_in(&d->enforce, ENFORCE_NS);
}

uint64_t dynmem_enforce(struct dynmem *d, uint64_t *ret_found)
{
    uint64_t pfn = 0, n;
    uint64_t have = mem_resident_bytes(d->mem), may = assigned_bytes(d);
    if (d->op == DYNMEM_HOT_ADD)
        may += d->op_pages * HV_PAGE_SIZE;      /* it uses the first of it before it answers */
    *ret_found = have > may ? have - may : 0;
    if (have <= may)
        return 0;
    for (; pageset_next(&d->balloon, &pfn, &n, MAX_OP_PAGES); pfn += n)
        (void)punch(d, pfn, n);
    if (d->op != DYNMEM_HOT_ADD)
        (void)punch(d, d->hot_next >> HV_PAGE_SHIFT, (d->hot_mapped - MIN(d->hot_next, d->hot_mapped)) >> HV_PAGE_SHIFT);
    have = mem_resident_bytes(d->mem);
    return have > may ? have - may : 0;
}
