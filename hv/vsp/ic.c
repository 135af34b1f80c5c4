/* Integration services: framing, negotiation, one request at a time. See ic.h. */
#include "hv/vsp/ic.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/base/log.h"

#define IC_MAGIC 0x49435356u

/* struct vmbuspipe_hdr, struct icmsg_hdr (Linux include/linux/hyperv.h). */
enum {
    PIPE_TYPE = 0, PIPE_SIZE = 4, PIPE_HEADER = 8,
    MSG_FRAMEWORK = 8, MSG_TYPE = 12, MSG_VERSION = 14, MSG_BODY_SIZE = 18, MSG_STATUS = 20, MSG_ID = 24,
    MSG_FLAGS = 25, MSG_HEADER = 28,
    NEGOTIATE_FRAMEWORKS = 0, NEGOTIATE_MESSAGES = 2, NEGOTIATE_VERSIONS = 8,
};
enum { FLAG_TRANSACTION = 1, FLAG_REQUEST = 2, FLAG_RESPONSE = 4 };
#define TYPE_NEGOTIATE 0u
#define RETRY_NS (100 * NS_PER_MS)      /* until the guest has let go of a channel that is to come back */

enum ic_state { IC_CLOSED, IC_NEGOTIATING, IC_READY, IC_REFUSED, IC_STATES };

struct ic {
    uint32_t magic;
    const struct ic_service *svc;
    const struct ic_ops *ops;
    void *arg;
    struct vmbus *bus;
    struct vmbus_channel *ch;           /* NULL: not offered */
    struct machine *machine;
    struct device_ops device;
    struct vsp_timer timer, retry;
    enum ic_state state;
    bool wanted;                        /* offered, or to be as soon as the guest has let go of it */
    uint32_t framework, version;
    bool busy, waiting;                 /* a packet is with the guest; somebody still waits for it */
    uint64_t transaction;
};

static int transmit(struct ic *ic, uint16_t type, const void *body, uint32_t len)
{
    uint8_t head[MSG_HEADER] = {0};
    put_le32(head + PIPE_TYPE, 1);
    put_le32(head + PIPE_SIZE, MSG_HEADER - PIPE_HEADER + len);
    put_le32(head + MSG_FRAMEWORK, ic->framework);
    put_le16(head + MSG_TYPE, type);
    put_le32(head + MSG_VERSION, ic->version);
    put_le16(head + MSG_BODY_SIZE, (uint16_t)len);
    head[MSG_ID] = (uint8_t)(ic->transaction + 1);
    head[MSG_FLAGS] = FLAG_TRANSACTION | FLAG_REQUEST;
    struct iovec v[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)body, len}};
    int r = vmbus_send_iov(ic->ch, ic->transaction + 1, false, v, 2);
    if (r == 0) {
        ic->transaction++;
        ic->busy = true;
    }
    return r;
}

static void negotiate(struct ic *ic)
{
    uint8_t body[NEGOTIATE_VERSIONS + 4 * 6] = {0};
    unsigned frameworks = 0, messages = 0;
    uint8_t *at = body + NEGOTIATE_VERSIONS;
    ic->framework = IC_VERSION(1, 0);
    ic->version = IC_VERSION(1, 0);
    if (!ic->svc->only_framework_3) {
        put_le32(at, IC_VERSION(1, 0));
        at += 4;
        frameworks++;
    }
    put_le32(at, IC_VERSION(3, 0));
    at += 4;
    frameworks++;
    for (; messages < ARRAY_SIZE(ic->svc->version) && ic->svc->version[messages]; messages++, at += 4)
        put_le32(at, ic->svc->version[messages]);
    put_le16(body + NEGOTIATE_FRAMEWORKS, (uint16_t)frameworks);
    put_le16(body + NEGOTIATE_MESSAGES, (uint16_t)messages);
    ic->state = IC_NEGOTIATING;
    (void)transmit(ic, TYPE_NEGOTIATE, body, (uint32_t)(at - body));    /* a new ring has room */
}

/* ---- the channel ---- */

static int on_open(void *arg, const uint8_t *user)
{
    struct ic *ic = arg;
    ic->busy = ic->waiting = false;
    negotiate(ic);
    return 0;
}

static void finish(struct ic *ic, uint32_t status, const uint8_t *body, uint32_t len)
{
    vsp_timer_stop(&ic->timer);
    ic->waiting = false;
    ic->ops->reply(ic->arg, status, body, len);
}

static void on_close(void *arg)
{
    struct ic *ic = arg;
    ic->state = IC_CLOSED;
    ic->busy = false;
    if (ic->waiting)
        finish(ic, IC_GONE, NULL, 0);
    if (ic->ops->gone)
        ic->ops->gone(ic->arg);
}

static bool has_version(const struct ic *ic, uint32_t v)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ic->svc->version) && ic->svc->version[i]; i++)
        if (ic->svc->version[i] == v)
            return true;
    return false;
}

/* The guest leaves one framework and one message version, or none. */
static void negotiated(struct ic *ic, const uint8_t *body, uint32_t len)
{
    bool some = len >= NEGOTIATE_VERSIONS + 8 && get_le16(body + NEGOTIATE_FRAMEWORKS) == 1 &&
                get_le16(body + NEGOTIATE_MESSAGES) == 1;
    uint32_t framework = some ? get_le32(body + NEGOTIATE_VERSIONS) : 0;
    uint32_t version = some ? get_le32(body + NEGOTIATE_VERSIONS + 4) : 0;
    if ((framework != IC_VERSION(1, 0) && framework != IC_VERSION(3, 0)) || !has_version(ic, version)) {
        ic->state = IC_REFUSED;
        log_debug("vsp", "%s: no common version", ic->svc->name);
        return;
    }
    ic->framework = framework;
    ic->version = version;
    ic->state = IC_READY;
    log_debug("vsp", "%s: version %u.%u", ic->svc->name, version & 0xFFFF, version >> 16);
    if (ic->ops->ready)
        ic->ops->ready(ic->arg);
}

static int on_packet(void *arg, const struct vmbus_packet *p)
{
    struct ic *ic = arg;
    if (p->type != VMBUS_PKT_INBAND || p->len < MSG_HEADER)
        return -EPROTO;
    /* Answers to something else are of a request that is forgotten. */
    if (!ic->busy || p->transaction != ic->transaction || !(p->payload[MSG_FLAGS] & FLAG_RESPONSE))
        return 0;
    ic->busy = false;
    const uint8_t *body = p->payload + MSG_HEADER;
    uint32_t len = p->len - MSG_HEADER;
    uint16_t type = get_le16(p->payload + MSG_TYPE);
    if (type == TYPE_NEGOTIATE && ic->state == IC_NEGOTIATING)
        negotiated(ic, body, len);
    else if (type == ic->svc->type && ic->waiting)
        finish(ic, get_le32(p->payload + MSG_STATUS), body, len);
    else if (type == ic->svc->type && ic->ops->returned)
        ic->ops->returned(ic->arg, get_le32(p->payload + MSG_STATUS));
    return 0;
}

static void on_writable(void *arg)
{
    struct ic *ic = arg;
    if (ic->ops->writable)
        ic->ops->writable(ic->arg);
}

static const struct vmbus_channel_ops channel_ops = {
    .open = on_open, .close = on_close, .packet = on_packet, .writable = on_writable,
};

static void on_timeout(void *arg)
{
    struct ic *ic = arg;
    if (ic->waiting)
        finish(ic, IC_TIMEOUT, NULL, 0);     /* still busy: the guest has the packet */
}

int ic_request(struct ic *ic, const void *body, uint32_t len, uint64_t timeout_ns)
{
    HV_CHECK(ic, IC_MAGIC);
    hv_assert(len <= IC_MAX_BODY);
    if (ic->state != IC_READY)
        return -ENOTCONN;
    if (ic->busy || ic->waiting)
        return -EBUSY;
    int r = transmit(ic, ic->svc->type, body, len);
    if (r == 0) {
        ic->waiting = true;
        vsp_timer_in(&ic->timer, timeout_ns);
    }
    return r;
}

bool ic_open(const struct ic *ic) { return ic && vmbus_channel_is_open(ic->ch); }
bool ic_ready(const struct ic *ic) { return ic && ic->state == IC_READY; }
bool ic_busy(const struct ic *ic) { return ic->busy; }
bool ic_stalled(const struct ic *ic) { return ic->state == IC_READY && ic->busy && !ic->waiting; }
bool ic_offered(const struct ic *ic) { return ic && ic->wanted; }
uint32_t ic_version(const struct ic *ic) { return ic->state == IC_READY ? ic->version : 0; }

/* ---- the machine ---- */

static void ic_reset(void *dev)
{
    struct ic *ic = dev;                /* the bus has closed the channel */
    ic->transaction = 0;
    if (ic->ops->reset)
        ic->ops->reset(ic->arg);
}

static void ic_save(void *dev, struct save_writer *w)
{
    struct ic *ic = dev;
    save_u8(w, ic->state);
    save_u32(w, ic->framework);
    save_u32(w, ic->version);
    save_u8(w, ic->busy);
    save_u8(w, ic->waiting);
    save_u64(w, ic->transaction);
    vsp_timer_save(&ic->timer, w);
    if (ic->ops->save)
        ic->ops->save(ic->arg, w);
}

static int ic_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct ic *ic = dev;
    uint8_t state = load_u8(s);
    ic->framework = load_u32(s);
    ic->version = load_u32(s);
    ic->busy = load_u8(s);
    ic->waiting = load_u8(s);
    ic->transaction = load_u64(s);
    vsp_timer_load(&ic->timer, s);
    if (s->bad || state >= IC_STATES || (state == IC_CLOSED) == vmbus_channel_is_open(ic->ch) ||
        (state == IC_READY && !has_version(ic, ic->version)) || (ic->waiting && state != IC_READY))
        return -EINVAL;
    ic->state = state;
    return ic->ops->load ? ic->ops->load(ic->arg, s) : 0;
}

/* ---- the offer ---- */

static int make_offer(struct ic *ic, struct hv_error *e)
{
    const struct ic_service *svc = ic->svc;
    struct vmbus_offer o = {
        .name = svc->name, .class_id = svc->class_id, .instance_id = svc->instance_id,
        .flags = VMBUS_OFFER_ENUMERATE | VMBUS_OFFER_NAMED_PIPE, .pipe_mode = VMBUS_PIPE_MESSAGE,
    };
    return vmbus_offer(ic->bus, &o, &channel_ops, ic, &ic->ch, e);
}

static void try_offer(void *arg)
{
    struct ic *ic = arg;
    if (ic->wanted && !ic->ch && make_offer(ic, NULL) < 0)
        vsp_timer_in(&ic->retry, RETRY_NS);
}

void ic_offer(struct ic *ic, bool offered)
{
    HV_CHECK(ic, IC_MAGIC);
    if (ic->wanted == offered)
        return;
    ic->wanted = offered;
    if (offered) {
        try_offer(ic);
        return;
    }
    struct vmbus_channel *ch = ic->ch;
    vsp_timer_stop(&ic->retry);
    ic->ch = NULL;
    vmbus_withdraw(ch);
}

int ic_new(struct vmbus *bus, const struct ic_service *svc, const struct ic_ops *ops, void *arg, struct ic **ret,
           struct hv_error *e)
{
    struct ic *ic = hv_alloc(sizeof(*ic));
    if (!ic)
        return hv_fail(e, HV_NO_RESOURCES, svc->name, "out of memory");
    *ic = (struct ic){.magic = IC_MAGIC, .svc = svc, .ops = ops, .arg = arg, .bus = bus, .machine = vmbus_machine(bus),
                      .wanted = true};
    int r = vsp_timer_init(&ic->timer, ic->machine, on_timeout, ic);
    if (r == 0)
        r = vsp_timer_init(&ic->retry, ic->machine, try_offer, ic);
    if (r < 0)
        hv_fail(e, HV_NO_RESOURCES, svc->name, "out of memory");
    else
        r = make_offer(ic, e);
    if (r < 0) {
        vsp_timer_fini(&ic->timer);
        vsp_timer_fini(&ic->retry);
        free(ic);
        return r;
    }
    ic->device = (struct device_ops){.tag = svc->name, .version = 1, .reset = ic_reset, .save = ic_save,
                                     .load = ic_load};
    machine_add_device(ic->machine, &ic->device, 0, ic);
    *ret = ic;
    return 0;
}

void ic_free(struct ic *ic)
{
    if (!ic)
        return;
    HV_CHECK(ic, IC_MAGIC);
    ic->waiting = false;                /* nobody is left to be told */
    vmbus_withdraw(ic->ch);
    vsp_timer_fini(&ic->timer);
    vsp_timer_fini(&ic->retry);
    ic->magic = 0;
    free(ic);
}
