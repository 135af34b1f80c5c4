/*
 * Hypercalls, TLFS 3. The engine traps `out 0xEA, al` of the hypercall page at CPL 0 and calls
 * here; input is copied out of guest memory once, then checked, then used.
 */
#include <errno.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"
#include "hv/hyperv/hyperv_impl.h"

#define LARGE_PAGE (2 * MIB)
#define REPS_MOST 4095u

struct call {
    struct hyperv *h;
    uint64_t control, input, output;
    uint16_t code;
    bool fast;
    uint32_t reps, start;
    uint8_t data[HV_PAGE_SIZE];     /* the input, as long as the table says */
    uint32_t done;                  /* reps completed, including those before start */
};

static enum hv_status post_message(struct call *c)
{
    uint32_t connection = get_le32(c->data) & 0xffffff, len = get_le32(c->data + 12);
    const struct hyperv_hooks *k = &c->h->cfg.hooks;
    if (len > HV_MESSAGE_MAX) {
        return HV_STATUS_INVALID_PARAMETER;
    }
    if (!k->post_message) {
        return HV_STATUS_INVALID_CONNECTION;
    }
    switch (k->post_message(k->arg, connection, get_le32(c->data + 8), c->data + 16, len)) {
    case 0: return HV_STATUS_SUCCESS;
    case -ENOENT: return HV_STATUS_INVALID_CONNECTION;
    case -EAGAIN: return HV_STATUS_NO_BUFFERS;
    default: return HV_STATUS_INVALID_PARAMETER;
    }
}

static enum hv_status signal_event(struct call *c)
{
    const struct hyperv_hooks *k = &c->h->cfg.hooks;
    uint32_t connection = get_le32(c->data) & 0xffffff;
    uint16_t flag = get_le16(c->data + 4);
    bool known = k->signal_event && k->signal_event(k->arg, connection, flag) == 0;
    return known ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_CONNECTION;
}

static enum hv_status query_capabilities(struct call *c)
{
    uint8_t out[8];
    if (c->output % 8) {
        return HV_STATUS_INVALID_ALIGNMENT;
    }
    put_le64(out, HV_EXT_CAPABILITY_COLD_DISCARD);
    return mem_write(c->h->mem, c->output, out, sizeof(out)) ? HV_STATUS_INVALID_PARAMETER : HV_STATUS_SUCCESS;
}

/*
 * Free pages of the guest, which it lets go of until it touches them again (drivers/hv/hv_balloon.c,
 * free page reporting). They stay its own: the host drops what is in them, and they read as zeros.
 * A range is so many pages beyond the first: of 2 MiB, or, since Linux 6.5 where page_reporting_order
 * is below 9, of 4 KiB.
 */
static enum hv_status heat_hint(struct call *c)
{
    if ((c->data[0] & 3) != 2) {
        return HV_STATUS_INVALID_PARAMETER;     /* only "cold discard" means something here */
    }
    for (uint32_t i = c->start; i < c->reps; i++) {
        uint64_t range = get_le64(c->data + 8 + 8 * (size_t)(i - c->start));
        bool large = range & 1 << 11;
        uint64_t page = large ? LARGE_PAGE : HV_PAGE_SIZE;
        uint64_t gpa = range & ~(page - 1), len = ((range & 0x7ff) + 1) * page;
        if ((large && range & 1 << 12) || !mem_is_ram(c->h->mem, gpa, len)) {   /* bit 12: of 1 GiB */
            return HV_STATUS_INVALID_PARAMETER;
        }
        if (mem_punch(c->h->mem, gpa, len) == 0) {
            stats_add(&c->h->stats, HYPERV_DISCARDED, len / HV_PAGE_SIZE);
        }
        c->done = i + 1;
    }
    return HV_STATUS_SUCCESS;
}

static const struct call_desc {
    uint16_t code;
    bool fast_ok, rep;
    uint16_t input;                 /* bytes of input; of a rep call before the list */
    enum hv_status (*run)(struct call *c);
} calls[] = {
    {HV_CALL_POST_MESSAGE, false, false, 16 + HV_MESSAGE_MAX, post_message},
    {HV_CALL_SIGNAL_EVENT, true, false, 8, signal_event},
    {HV_EXT_CALL_QUERY_CAPABILITIES, false, false, 0, query_capabilities},
    {HV_EXT_CALL_HEAT_HINT, false, true, 8, heat_hint},
};

static const struct call_desc *find(uint16_t code)
{
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        if (calls[i].code == code) {
            return &calls[i];
        }
    }
    return NULL;
}

/* The control word's form, and the input into c->data. TLFS 3.7, 3.8. */
static enum hv_status take_input(struct call *c, const struct call_desc *d)
{
    bool reserved = c->control & (0x1full << 27 | 0xfull << 44 | 0xfull << 60);
    bool header = c->control >> 17 & 0x3ff;
    if (reserved || header || (c->fast && !d->fast_ok) || d->rep != (c->reps > 0) || (!d->rep && c->start) ||
        (d->rep && c->start >= c->reps)) {
        return HV_STATUS_INVALID_INPUT;
    }
    uint64_t len = d->input + (d->rep ? 8ull * c->reps : 0);
    if (c->fast) {
        put_le64(c->data, c->input);
        put_le64(c->data + 8, c->output);
        return HV_STATUS_SUCCESS;
    }
    if (c->input % 8) {
        return HV_STATUS_INVALID_ALIGNMENT;
    }
    if (len && c->input % HV_PAGE_SIZE + len > HV_PAGE_SIZE) {
        return HV_STATUS_INVALID_ALIGNMENT;     /* may not cross a page */
    }
    /* A call that is gone on with has its list where it was: skip what is done. */
    uint64_t skip = d->rep ? 8ull * c->start : 0;
    int r = d->input ? mem_read(c->h->mem, c->input, c->data, d->input) : 0;
    if (r == 0 && d->rep) {
        r = mem_read(c->h->mem, c->input + d->input + skip, c->data + d->input, len - d->input - skip);
    }
    return r ? HV_STATUS_INVALID_PARAMETER : HV_STATUS_SUCCESS;
}

int hypercall_dispatch(void *dev, unsigned vp)
{
    struct hyperv *h = dev;
    HV_CHECK(h, HYPERV_MAGIC);
    const struct hyperv_hooks *k = &h->cfg.hooks;
    struct hyperv_regs r;
    pthread_mutex_lock(&h->lock);
    bool on = h->hypercall & HV_PAGE_ENABLE;
    pthread_mutex_unlock(&h->lock);
    if (!on || !k->get_regs || !k->set_result || k->get_regs(k->arg, vp, &r) != 0) {
        return -ENOSYS;                         /* #UD, as without the page there is no such instruction */
    }
    struct call c = {.h = h};
    if (r.long_mode) {
        c.control = r.rcx;
        c.input = r.rdx;
        c.output = r.r8;
    } else {
        c.control = r.rdx << 32 | (uint32_t)r.rax;
        c.input = r.rbx << 32 | (uint32_t)r.rcx;
        c.output = r.rdi << 32 | (uint32_t)r.rsi;
    }
    c.code = (uint16_t)c.control;
    c.fast = c.control >> 16 & 1;
    c.reps = c.control >> 32 & 0xfff;
    c.start = c.control >> 48 & 0xfff;

    const struct call_desc *d = find(c.code);
    enum hv_status st = d ? take_input(&c, d) : HV_STATUS_INVALID_CALL;
    if (st == HV_STATUS_SUCCESS) {
        c.done = c.start;
        st = d->run(&c);
    }
    stats_add(&h->stats, HYPERV_CALLS, 1);
    if (st != HV_STATUS_SUCCESS) {
        stats_add(&h->stats, HYPERV_BAD_CALLS, 1);
    }
    uint64_t result = (uint64_t)st | (uint64_t)(c.done & REPS_MOST) << 32;
    return k->set_result(k->arg, vp, r.long_mode, result) == 0 ? 0 : -ENOSYS;
}
