/* Heartbeat: a sequence number every two seconds, which the guest returns plus one. */
#include "hv/vsp/heartbeat.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/vsp/ic.h"

#define PERIOD_NS (2 * NS_PER_SEC)
#define PATIENCE  5u                  /* periods without an answer: a busy host makes a slow guest */

struct heartbeat {
    struct ic *ic;
    struct vsp_timer timer;
    void (*changed)(void *arg);
    void *arg;
    enum heartbeat_status status;
    uint64_t sequence, answers;
    unsigned missed;
};

static const struct ic_service service = {
    .name = "heartbeat",
    .class_id = {{0x39, 0x4f, 0x16, 0x57, 0x15, 0x91, 0x78, 0x4e, 0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d}},
    .instance_id = {{0x91, 0x9e, 0x14, 0xfd, 0xe0, 0x82, 0x7d, 0x4a, 0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0}},
    .type = 1,
    .version = {IC_VERSION(3, 0), IC_VERSION(1, 0)},
};

static void set_status(struct heartbeat *h, enum heartbeat_status s)
{
    if (h->status == s)
        return;
    h->status = s;
    if (h->changed)
        h->changed(h->arg);
}

static void beat(void *arg)
{
    struct heartbeat *h = arg;
    uint8_t body[40] = {0};
    vsp_timer_in(&h->timer, PERIOD_NS);
    if (ic_busy(h->ic)) {               /* one at a time: the guest will answer it when it comes back */
        if (++h->missed >= PATIENCE)
            set_status(h, HEARTBEAT_LOST);
        return;
    }
    put_le64(body, h->sequence + 1);
    if (ic_request(h->ic, body, sizeof(body), UINT32_MAX * NS_PER_SEC) == 0)
        h->sequence++;
}

static void on_ready(void *arg)
{
    struct heartbeat *h = arg;
    h->missed = 0;
    beat(h);
}

static void on_gone(void *arg)
{
    struct heartbeat *h = arg;
    vsp_timer_stop(&h->timer);
    set_status(h, HEARTBEAT_NO_CONTACT);
}

static void on_reply(void *arg, uint32_t status, const uint8_t *body, uint32_t len)
{
    struct heartbeat *h = arg;
    if (status == IC_GONE || len < 8 || get_le64(body) != h->sequence + 1)
        return;
    h->answers++;
    h->missed = 0;
    set_status(h, HEARTBEAT_OK);
}

static void on_reset(void *arg)
{
    struct heartbeat *h = arg;
    h->sequence = h->answers = h->missed = 0;
}

static void on_save(void *arg, struct save_writer *w)
{
    struct heartbeat *h = arg;
    save_u8(w, h->status);
    save_u64(w, h->sequence);
    save_u64(w, h->answers);
    save_u32(w, h->missed);
    vsp_timer_save(&h->timer, w);
}

static int on_load(void *arg, struct load_section *s)
{
    struct heartbeat *h = arg;
    uint8_t status = load_u8(s);
    h->sequence = load_u64(s);
    h->answers = load_u64(s);
    h->missed = load_u32(s);
    vsp_timer_load(&h->timer, s);
    if (status >= HEARTBEAT_COUNT || (!ic_ready(h->ic) && h->timer.due_ns != VSP_TIMER_OFF))
        return -EINVAL;
    h->status = status;
    return 0;
}

static const struct ic_ops ops = {
    .ready = on_ready, .gone = on_gone, .reply = on_reply, .save = on_save, .load = on_load, .reset = on_reset,
};

int heartbeat_new(struct vmbus *bus, void (*changed)(void *arg), void *arg, struct heartbeat **ret,
                  struct hv_error *e)
{
    struct heartbeat *h = hv_alloc(sizeof(*h));
    if (!h)
        return hv_fail(e, HV_NO_RESOURCES, service.name, "out of memory");
    h->changed = changed;
    h->arg = arg;
    int r = vsp_timer_init(&h->timer, vmbus_machine(bus), beat, h);
    if (r == 0)
        r = ic_new(bus, &service, &ops, h, &h->ic, e);
    if (r < 0) {
        heartbeat_free(h);
        return r;
    }
    *ret = h;
    return 0;
}

void heartbeat_free(struct heartbeat *h)
{
    if (!h)
        return;
    h->changed = NULL;
    ic_free(h->ic);
    vsp_timer_fini(&h->timer);
    free(h);
}

struct ic *heartbeat_ic(struct heartbeat *s) { return s ? s->ic : NULL; }

enum heartbeat_status heartbeat_status(const struct heartbeat *h) { return h->status; }
uint64_t heartbeat_count(const struct heartbeat *h) { return h->answers; }

const char *heartbeat_word(enum heartbeat_status s)
{
    static const char *const words[] = {
#define HEARTBEAT_WORD(name, word) word,
        HEARTBEATS(HEARTBEAT_WORD)
#undef HEARTBEAT_WORD
    };
    return words[s];
}
