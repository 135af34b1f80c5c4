/* Key-values: a queue of requests over one channel. See kvp.h. */
#include "hv/vsp/kvp.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/vsp/ic.h"
#include "hv/vsp/utf16.h"

/* The driver gives its daemon 30 s; but it says nothing at all once its daemon has gone. */
#define ANSWER_NS (15 * NS_PER_SEC)

/* struct hv_kvp_msg on the wire: u8 operation, u8 pool, u16; then by operation (Linux include/uapi/linux/hyperv.h). */
enum { OP_SET = 1, OP_DELETE = 2, OP_ENUMERATE = 3 };
enum { BODY_OP = 0, BODY_POOL = 1, BODY_DATA = 4, BODY_LEN = 2580 };
/* struct hv_kvp_exchg_msg_value */
enum { VALUE_TYPE = 0, VALUE_KEY_SIZE = 4, VALUE_SIZE = 8, VALUE_KEY = 12, VALUE_KEY_LEN = 512, VALUE_TEXT = 524,
       VALUE_TEXT_LEN = 2048, VALUE_LEN = 2572 };
enum { DELETE_KEY_SIZE = 0, DELETE_KEY = 4, ENUM_INDEX = 0, ENUM_VALUE = 4 };
static_assert(BODY_DATA + ENUM_VALUE + VALUE_LEN == BODY_LEN, "a body is as long as its longest");
#define REG_SZ 1u

struct request {
    uint8_t op, pool;
    uint32_t index;
    char *key, *value;
    kvp_item_fn *item;
    kvp_done_fn *done;
    void *arg;
    struct request *next;
};

struct kvp {
    struct ic *ic;
    struct loop *loop;
    struct loop_post post;              /* begins what waits: never from within a caller's function */
    void (*changed)(void *arg);
    void *arg;
    struct request *first;              /* under way, if the channel is busy with it */
    unsigned count;
    bool under_way;
};

static const struct ic_service service = {
    .name = "kvp",
    .class_id = {{0xe7, 0xf4, 0xa0, 0xa9, 0x45, 0x5a, 0x96, 0x4d, 0xb8, 0x27, 0x8a, 0x84, 0x1e, 0x8c, 0x03, 0xe6}},
    .instance_id = {{0x19, 0xf9, 0x2f, 0x24, 0xdb, 0x07, 0x80, 0x41, 0x9c, 0x2e, 0xb8, 0x6c, 0xb6, 0x8c, 0x8c, 0x55}},
    .type = 2,
    .version = {IC_VERSION(4, 0), IC_VERSION(3, 0)},
};

const char *kvp_pool_word(enum kvp_pool p)
{
    static const char *const words[] = {
#define KVP_POOL_WORD(name, word) word,
        KVP_POOLS(KVP_POOL_WORD)
#undef KVP_POOL_WORD
    };
    return words[p];
}

/* ---- the queue ---- */

static void request_free(struct request *q)
{
    free(q->key);
    free(q->value);
    free(q);
}

/* The first one is over. */
static void finish(struct kvp *k, uint32_t status)
{
    struct request *q = k->first;
    k->first = q->next;
    k->count--;
    k->under_way = false;
    q->done(q->arg, status);
    request_free(q);
    loop_post(k->loop, &k->post);
}

static void fail_all(struct kvp *k, uint32_t status)
{
    while (k->first)
        finish(k, status);
}

static int transmit(struct kvp *k, const struct request *q)
{
    uint8_t body[BODY_LEN] = {0}, *data = body + BODY_DATA;
    body[BODY_OP] = q->op;
    body[BODY_POOL] = q->pool;
    switch (q->op) {
    case OP_SET:
        put_le32(data + VALUE_TYPE, REG_SZ);
        put_le32(data + VALUE_KEY_SIZE, utf16_from_utf8(q->key, data + VALUE_KEY, VALUE_KEY_LEN));
        put_le32(data + VALUE_SIZE, utf16_from_utf8(q->value, data + VALUE_TEXT, VALUE_TEXT_LEN));
        break;
    case OP_DELETE:
        put_le32(data + DELETE_KEY_SIZE, utf16_from_utf8(q->key, data + DELETE_KEY, VALUE_KEY_LEN));
        break;
    default:
        put_le32(data + ENUM_INDEX, q->index);
    }
    return ic_request(k->ic, body, sizeof(body), ANSWER_NS);
}

static void begin(void *arg)
{
    struct kvp *k = arg;
    if (!k->first || k->under_way || (ic_busy(k->ic) && !ic_stalled(k->ic)))
        return;
    int r = transmit(k, k->first);
    if (r == 0)
        k->under_way = true;
    else if (r != -EAGAIN)              /* paused: on_writable comes */
        fail_all(k, r == -EBUSY ? IC_TIMEOUT : IC_GONE);
}

static bool fits(const char *text, uint32_t max, bool empty)
{
    uint8_t buf[VALUE_TEXT_LEN + 8];
    uint32_t len = utf16_from_utf8(text, buf, sizeof(buf)) / 2 - 1;
    /* The daemon stores UTF-8 in as many bytes. */
    return len <= max && (len || empty) && strlen(text) <= 2 * max;
}

static int add(struct kvp *k, struct request **ret, uint8_t op, enum kvp_pool pool, const char *key, const char *value)
{
    hv_assert(pool < KVP_POOL_COUNT);
    if (!kvp_ready(k))
        return -ENOTCONN;
    if (k->count == KVP_QUEUE_MAX)
        return -EBUSY;
    if ((key && !fits(key, KVP_KEY_MAX, false)) || (value && !fits(value, KVP_VALUE_MAX, true)))
        return -EINVAL;
    struct request *q = hv_alloc(sizeof(*q)), **at = &k->first;
    if (!q)
        return -ENOMEM;
    *q = (struct request){.op = op, .pool = (uint8_t)pool};
    if ((key && !(q->key = hv_strdup(key))) || (value && !(q->value = hv_strdup(value)))) {
        request_free(q);
        return -ENOMEM;
    }
    while (*at)
        at = &(*at)->next;
    *at = q;
    k->count++;
    loop_post(k->loop, &k->post);
    *ret = q;
    return 0;
}

int kvp_list(struct kvp *k, enum kvp_pool pool, kvp_item_fn *item, kvp_done_fn *done, void *arg)
{
    struct request *q;
    int r = add(k, &q, OP_ENUMERATE, pool, NULL, NULL);
    if (r == 0) {
        q->item = item;
        q->done = done;
        q->arg = arg;
    }
    return r;
}

int kvp_set(struct kvp *k, enum kvp_pool pool, const char *key, const char *value, kvp_done_fn *done, void *arg)
{
    struct request *q;
    int r = add(k, &q, OP_SET, pool, key, value);
    if (r == 0) {
        q->done = done;
        q->arg = arg;
    }
    return r;
}

int kvp_remove(struct kvp *k, enum kvp_pool pool, const char *key, kvp_done_fn *done, void *arg)
{
    struct request *q;
    int r = add(k, &q, OP_DELETE, pool, key, NULL);
    if (r == 0) {
        q->done = done;
        q->arg = arg;
    }
    return r;
}

/* ---- the guest ---- */

/* One item of a list, and on to the next; false: there are no more. */
static bool take_item(struct kvp *k, struct request *q, const uint8_t *body, uint32_t len)
{
    char key[VALUE_KEY_LEN / 2 * 3 + 1], value[VALUE_TEXT_LEN / 2 * 3 + 1];
    if (len < BODY_LEN)
        return false;
    const uint8_t *v = body + BODY_DATA + ENUM_VALUE;
    utf16_to_utf8(v + VALUE_KEY, MIN(get_le32(v + VALUE_KEY_SIZE), (uint32_t)VALUE_KEY_LEN), key, sizeof(key));
    utf16_to_utf8(v + VALUE_TEXT, MIN(get_le32(v + VALUE_SIZE), (uint32_t)VALUE_TEXT_LEN), value, sizeof(value));
    if (key[0])
        q->item(q->arg, key, value);
    return ++q->index < KVP_ITEMS_MAX;
}

static void on_reply(void *arg, uint32_t status, const uint8_t *body, uint32_t len)
{
    struct kvp *k = arg;
    struct request *q = k->first;
    if (!q || !k->under_way)            /* of before a load */
        return;
    if (status != IC_OK || q->op != OP_ENUMERATE) {
        finish(k, q->op == OP_ENUMERATE && status == IC_NO_MORE_ITEMS ? IC_OK : status);
    } else if (take_item(k, q, body, len)) {
        k->under_way = false;
        loop_post(k->loop, &k->post);
    } else {
        finish(k, IC_OK);
    }
}

static void on_returned(void *arg, uint32_t status)
{
    struct kvp *k = arg;
    loop_post(k->loop, &k->post);
    if (k->changed)
        k->changed(k->arg);
}

static void on_writable(void *arg)
{
    struct kvp *k = arg;
    loop_post(k->loop, &k->post);
}

static void on_ready(void *arg)
{
    struct kvp *k = arg;
    if (k->changed)
        k->changed(k->arg);
}

static void on_gone(void *arg)
{
    struct kvp *k = arg;
    fail_all(k, IC_GONE);
    if (k->changed)
        k->changed(k->arg);
}

static const struct ic_ops ops = {.ready = on_ready, .gone = on_gone, .reply = on_reply, .returned = on_returned,
                                 .writable = on_writable};

int kvp_new(struct vmbus *bus, void (*changed)(void *arg), void *arg, struct kvp **ret, struct hv_error *e)
{
    struct kvp *k = hv_alloc(sizeof(*k));
    if (!k)
        return hv_fail(e, HV_NO_RESOURCES, service.name, "out of memory");
    k->changed = changed;
    k->arg = arg;
    k->loop = machine_loop(vmbus_machine(bus));
    k->post = (struct loop_post){.fn = begin, .arg = k};
    int r = ic_new(bus, &service, &ops, k, &k->ic, e);
    if (r < 0) {
        free(k);
        return r;
    }
    *ret = k;
    return 0;
}

void kvp_free(struct kvp *k)
{
    if (!k)
        return;
    k->changed = NULL;
    ic_free(k->ic);
    fail_all(k, IC_GONE);
    loop_post_cancel(k->loop, &k->post);
    free(k);
}

struct ic *kvp_ic(struct kvp *k) { return k ? k->ic : NULL; }
bool kvp_ready(const struct kvp *k) { return k && ic_ready(k->ic) && !ic_stalled(k->ic); }
