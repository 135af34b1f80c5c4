/* Shutdown: one request, one answer; what follows is the guest's own power-off. */
#include "hv/vsp/shutdown.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/vsp/ic.h"
#include "hv/vsp/utf16.h"

#define ANSWER_NS (10 * NS_PER_SEC)
#define REASON_PLANNED 0x80000000u
/* struct shutdown_msg_data */
enum { BODY_REASON = 0, BODY_TIMEOUT = 4, BODY_FLAGS = 8, BODY_TEXT = 12, BODY_TEXT_LEN = 2048, BODY_LEN = 2060 };
enum { FLAG_FORCE = 1, FLAG_RESTART = 2 };

struct shutdown {
    struct ic *ic;
    void (*done)(void *arg, uint32_t status);
    void *arg;
};

static const struct ic_service service = {
    .name = "shutdown",
    .class_id = {{0x31, 0x60, 0x0b, 0x0e, 0x13, 0x52, 0x34, 0x49, 0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb}},
    .instance_id = {{0xf7, 0x0f, 0x65, 0xb6, 0xbc, 0x33, 0x40, 0x48, 0x80, 0x48, 0xe0, 0x67, 0x67, 0x86, 0xf3, 0x93}},
    .type = 3,
    .version = {IC_VERSION(3, 2), IC_VERSION(3, 1), IC_VERSION(3, 0), IC_VERSION(1, 0)},
};

static void on_reply(void *arg, uint32_t status, const uint8_t *body, uint32_t len)
{
    struct shutdown *s = arg;
    void (*done)(void *, uint32_t) = s->done;
    s->done = NULL;
    if (done)
        done(s->arg, status);
}

static const struct ic_ops ops = {.reply = on_reply};

int shutdown_new(struct vmbus *bus, struct shutdown **ret, struct hv_error *e)
{
    struct shutdown *s = hv_alloc(sizeof(*s));
    if (!s)
        return hv_fail(e, HV_NO_RESOURCES, service.name, "out of memory");
    int r = ic_new(bus, &service, &ops, s, &s->ic, e);
    if (r < 0) {
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void shutdown_free(struct shutdown *s)
{
    if (!s)
        return;
    ic_free(s->ic);
    free(s);
}

struct ic *shutdown_ic(struct shutdown *s) { return s ? s->ic : NULL; }

bool shutdown_ready(const struct shutdown *s) { return s && ic_ready(s->ic); }

int shutdown_ask(struct shutdown *s, bool restart, bool force, const char *reason,
                 void (*done)(void *arg, uint32_t status), void *arg)
{
    uint8_t body[BODY_LEN] = {0};
    put_le32(body + BODY_REASON, REASON_PLANNED);
    put_le32(body + BODY_TIMEOUT, ANSWER_NS / NS_PER_SEC);
    put_le32(body + BODY_FLAGS, (force ? FLAG_FORCE : 0) | (restart ? FLAG_RESTART : 0));
    utf16_from_utf8(reason, body + BODY_TEXT, BODY_TEXT_LEN);
    int r = ic_request(s->ic, body, sizeof(body), ANSWER_NS);
    if (r == 0) {
        s->done = done;
        s->arg = arg;
    }
    return r;
}
