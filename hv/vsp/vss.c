/* Freeze and thaw: see vss.h. */
#include "hv/vsp/vss.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/vsp/ic.h"

/* struct hv_vss_msg: the operation, seven bytes, then by operation (Linux include/uapi/linux/hyperv.h). */
enum { BODY_OP = 0, BODY_LEN = 24 };
enum { OP_HOT_BACKUP = 2, OP_BACKUP_COMPLETE = 4, OP_FREEZE = 5, OP_THAW = 6 };

/* The driver answers at once where there is no daemon, and for a daemon that hangs after 30 s. */
#define ASK_NS  (10 * NS_PER_SEC)
#define THAW_NS (60 * NS_PER_SEC)

#define STATES(X) X(THAWED) X(ASKING) X(FREEZING) X(FROZEN) X(OVERDUE) X(THAWING) X(COMPLETING)
enum vss_state {
#define STATE_ENUM(name) VSS_##name,
    STATES(STATE_ENUM)
#undef STATE_ENUM
    VSS_STATES
};

struct vss {
    struct ic *ic;
    struct vss_config cfg;
    struct vsp_timer limit;
    enum vss_state state;
    uint64_t timeout_ns;                /* of the freeze that begins */
    uint32_t result;                    /* of the thaw, until COMPLETING is over */
    vss_done_fn *done;                  /* NULL: nobody waits (a load, or the guest is thawed for its own sake) */
    void *arg;
};

static const struct ic_service service = {
    .name = "vss",
    .class_id = {{0x29, 0x2e, 0xfa, 0x35, 0x23, 0xea, 0x36, 0x42, 0x96, 0xae, 0x3a, 0x6e, 0xba, 0xcb, 0xa4, 0x40}},
    .instance_id = {{0x40, 0xee, 0x50, 0x24, 0xbf, 0x33, 0xbd, 0x4f, 0x89, 0x2e, 0x9f, 0xb0, 0x6e, 0x92, 0x14, 0xcf}},
    .type = 5,
    .version = {IC_VERSION(5, 0)},
    .only_framework_3 = true,
};

static int send_op(struct vss *v, uint8_t op, enum vss_state next, uint64_t timeout_ns)
{
    uint8_t body[BODY_LEN] = {[BODY_OP] = op};
    int r = ic_request(v->ic, body, sizeof(body), timeout_ns);
    if (r == 0)
        v->state = next;
    return r;
}

static void tell(struct vss *v, uint32_t status)
{
    vss_done_fn *done = v->done;
    v->done = NULL;
    if (done)
        done(v->arg, status);
}

static void send_thaw(struct vss *v)
{
    vsp_timer_stop(&v->limit);
    if (send_op(v, OP_THAW, VSS_THAWING, THAW_NS) < 0) {
        v->state = VSS_THAWED;          /* its channel is gone: on_gone said so */
        tell(v, IC_GONE);
    }
}

static void on_reply(void *arg, uint32_t status, const uint8_t *body, uint32_t len)
{
    struct vss *v = arg;
    if (status == IC_GONE)
        return;                         /* on_gone is next */
    switch (v->state) {
    case VSS_ASKING:
        if (status == IC_OK && send_op(v, OP_FREEZE, VSS_FREEZING, v->timeout_ns) == 0)
            return;
        v->state = VSS_THAWED;
        tell(v, status == IC_OK ? IC_GONE : status == IC_FAIL ? IC_NOT_CONNECTED : status);
        break;
    case VSS_FREEZING:
        if (status == IC_TIMEOUT) {
            v->state = VSS_OVERDUE;     /* it may yet succeed: on_returned thaws */
            tell(v, status);
        } else if (status != IC_OK || !v->done) {
            tell(v, status);            /* some of its file systems may be frozen */
            send_thaw(v);
        } else {
            v->state = VSS_FROZEN;
            vsp_timer_in(&v->limit, VSS_LIMIT_NS);
            tell(v, IC_OK);
        }
        break;
    case VSS_THAWING:
        v->result = status;
        if (send_op(v, OP_BACKUP_COMPLETE, VSS_COMPLETING, ASK_NS) == 0)
            return;
        v->state = VSS_THAWED;
        tell(v, status);
        break;
    case VSS_COMPLETING:
        v->state = VSS_THAWED;
        tell(v, v->result);
        break;
    default:
        break;
    }
}

static void on_returned(void *arg, uint32_t status)
{
    struct vss *v = arg;
    if (v->state == VSS_OVERDUE)
        send_thaw(v);
}

static void on_limit(void *arg)
{
    struct vss *v = arg;
    if (v->state != VSS_FROZEN)
        return;
    send_thaw(v);
    if (v->cfg.lost)
        v->cfg.lost(v->cfg.arg, true);
}

static void changed(struct vss *v)
{
    if (v->cfg.changed)
        v->cfg.changed(v->cfg.arg);
}

static void on_ready(void *arg) { changed(arg); }

static void on_gone(void *arg)
{
    struct vss *v = arg;
    bool was = v->state == VSS_FROZEN;
    vsp_timer_stop(&v->limit);
    v->state = VSS_THAWED;
    tell(v, IC_GONE);
    if (was && v->cfg.lost)
        v->cfg.lost(v->cfg.arg, false);
    changed(v);
}

static void on_save(void *arg, struct save_writer *w)
{
    struct vss *v = arg;
    save_u8(w, v->state);
    save_u64(w, v->timeout_ns);
    vsp_timer_save(&v->limit, w);
}

static int on_load(void *arg, struct load_section *s)
{
    struct vss *v = arg;
    uint8_t state = load_u8(s);
    uint64_t timeout_ns = load_u64(s);
    v->timeout_ns = MIN(timeout_ns, VSS_LIMIT_NS);
    vsp_timer_load(&v->limit, s);
    const bool sent = state != VSS_THAWED && state != VSS_FROZEN;
    if (s->bad || state >= VSS_STATES || (state != VSS_THAWED && !ic_ready(v->ic)) || (sent && !ic_busy(v->ic)) ||
        (state != VSS_FROZEN && v->limit.due_ns != VSP_TIMER_OFF) || (state == VSS_FROZEN && v->limit.due_ns == VSP_TIMER_OFF))
        return -EINVAL;
    v->state = state;
    return 0;
}

static const struct ic_ops ops = {
    .ready = on_ready, .gone = on_gone, .reply = on_reply, .returned = on_returned, .save = on_save, .load = on_load,
};

int vss_new(struct vmbus *bus, const struct vss_config *cfg, struct vss **ret, struct hv_error *e)
{
    struct vss *v = hv_alloc(sizeof(*v));
    if (!v)
        return hv_fail(e, HV_NO_RESOURCES, service.name, "out of memory");
    v->cfg = *cfg;
    int r = vsp_timer_init(&v->limit, vmbus_machine(bus), on_limit, v);
    if (r == 0)
        r = ic_new(bus, &service, &ops, v, &v->ic, e);
    else
        hv_fail(e, HV_NO_RESOURCES, service.name, "out of memory");
    if (r < 0) {
        vsp_timer_fini(&v->limit);
        free(v);
        return r;
    }
    *ret = v;
    return 0;
}

void vss_free(struct vss *v)
{
    if (!v)
        return;
    v->cfg = (struct vss_config){0};
    ic_free(v->ic);
    tell(v, IC_GONE);
    vsp_timer_fini(&v->limit);
    free(v);
}

struct ic *vss_ic(struct vss *v) { return v ? v->ic : NULL; }
bool vss_ready(const struct vss *v) { return v && ic_ready(v->ic); }
bool vss_frozen(const struct vss *v) { return v && v->state == VSS_FROZEN; }

int vss_freeze(struct vss *v, uint64_t timeout_ns, vss_done_fn *done, void *arg)
{
    if (!ic_ready(v->ic))
        return -ENOTCONN;
    if (v->state == VSS_FROZEN)
        return -EALREADY;
    if (v->state != VSS_THAWED)
        return -EBUSY;
    int r = send_op(v, OP_HOT_BACKUP, VSS_ASKING, ASK_NS);
    if (r == 0) {
        v->timeout_ns = MIN(timeout_ns, VSS_LIMIT_NS);
        v->done = done;
        v->arg = arg;
    }
    return r;
}

int vss_thaw(struct vss *v, vss_done_fn *done, void *arg)
{
    if (!ic_ready(v->ic))
        return -ENOTCONN;
    if (v->state == VSS_THAWED)
        return -EALREADY;
    if (v->state != VSS_FROZEN)
        return -EBUSY;
    int r = send_op(v, OP_THAW, VSS_THAWING, THAW_NS);
    if (r == 0) {
        vsp_timer_stop(&v->limit);
        v->done = done;
        v->arg = arg;
    }
    return r;
}
