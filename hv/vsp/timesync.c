/* Time synchronization: see timesync.h. */
#include "hv/vsp/timesync.h"

#include "hv/base/endian.h"
#include "hv/vsp/ic.h"

#define SAMPLE_NS (5 * NS_PER_SEC)
#define ANSWER_NS (2 * NS_PER_SEC)
/* 1601-01-01 to 1970-01-01 in 100 ns units. */
#define EPOCH_1601 UINT64_C(116444736000000000)
/* struct ictimesync_ref_data (4.0), struct ictimesync_data (before) */
enum { V4_PARENT = 0, V4_REFERENCE = 8, V4_FLAGS = 16, V4_STRATUM = 18, V4_LEN = 24,
       V1_PARENT = 0, V1_FLAGS = 24, V1_LEN = 25 };
enum { FLAG_SYNC = 1, FLAG_SAMPLE = 2 };

struct timesync {
    struct ic *ic;
    struct machine *machine;
    struct vsp_timer timer;
    uint64_t (*reference)(void *arg);
    void *arg;
    bool step;                          /* the next one steps the guest's clock */
    uint64_t samples;
};

static const struct ic_service service = {
    .name = "timesync",
    .class_id = {{0x30, 0xe6, 0x27, 0x95, 0xae, 0xd0, 0x7b, 0x49, 0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf}},
    .instance_id = {{0x17, 0xce, 0xd1, 0x2d, 0x9e, 0x07, 0x3c, 0x40, 0xb3, 0x52, 0xa1, 0x92, 0x1e, 0xe2, 0x07, 0xee}},
    .type = 4,
    .version = {IC_VERSION(4, 0), IC_VERSION(3, 0), IC_VERSION(1, 0)},
};

static void sample(void *arg)
{
    struct timesync *t = arg;
    uint8_t body[V1_LEN > V4_LEN ? V1_LEN : V4_LEN] = {0};
    uint32_t len = V1_LEN;
    uint64_t now = machine_wall_ns(t->machine) / 100 + EPOCH_1601;
    uint8_t flags = t->step ? FLAG_SYNC : FLAG_SAMPLE;
    vsp_timer_in(&t->timer, SAMPLE_NS);
    put_le64(body + V4_PARENT, now);
    if (ic_version(t->ic) == IC_VERSION(4, 0)) {
        put_le64(body + V4_REFERENCE, t->reference(t->arg));
        body[V4_FLAGS] = flags;
        body[V4_STRATUM] = 1;
        len = V4_LEN;
    } else {
        body[V1_FLAGS] = flags;
    }
    if (ic_request(t->ic, body, len, ANSWER_NS) == 0)
        t->step = false;
}

static void on_ready(void *arg)
{
    struct timesync *t = arg;
    t->step = true;
    sample(t);
}

static void on_gone(void *arg) { vsp_timer_stop(&((struct timesync *)arg)->timer); }

static void on_reply(void *arg, uint32_t status, const uint8_t *body, uint32_t len)
{
    struct timesync *t = arg;
    t->samples += status == IC_OK;
}

/* Guest time went on from where it stood: the time of day has moved. */
static void on_clock(void *dev)
{
    struct timesync *t = dev;
    if (!ic_ready(t->ic))
        return;
    t->step = true;
    vsp_timer_in(&t->timer, 0);
}

static void on_save(void *arg, struct save_writer *w)
{
    struct timesync *t = arg;
    save_u64(w, t->samples);
    vsp_timer_save(&t->timer, w);
}

static int on_load(void *arg, struct load_section *s)
{
    struct timesync *t = arg;
    t->samples = load_u64(s);
    vsp_timer_load(&t->timer, s);
    t->step = true;
    return !ic_ready(t->ic) && t->timer.due_ns != VSP_TIMER_OFF ? -22 : 0;
}

static void on_reset(void *arg) { ((struct timesync *)arg)->samples = 0; }

static const struct ic_ops ops = {
    .ready = on_ready, .gone = on_gone, .reply = on_reply, .save = on_save, .load = on_load, .reset = on_reset,
};

int timesync_new(struct vmbus *bus, uint64_t (*reference)(void *arg), void *arg, struct timesync **ret,
                 struct hv_error *e)
{
    struct timesync *t = hv_alloc(sizeof(*t));
    if (!t)
        return hv_fail(e, HV_NO_RESOURCES, service.name, "out of memory");
    t->machine = vmbus_machine(bus);
    t->reference = reference;
    t->arg = arg;
    int r = vsp_timer_init(&t->timer, t->machine, sample, t);
    if (r == 0)
        r = ic_new(bus, &service, &ops, t, &t->ic, e);
    if (r < 0) {
        timesync_free(t);
        return r;
    }
    machine_on_clock(t->machine, on_clock, t);
    *ret = t;
    return 0;
}

void timesync_free(struct timesync *t)
{
    if (!t)
        return;
    ic_free(t->ic);
    vsp_timer_fini(&t->timer);
    free(t);
}

struct ic *timesync_ic(struct timesync *s) { return s ? s->ic : NULL; }

bool timesync_ready(const struct timesync *t) { return t && ic_ready(t->ic); }
uint64_t timesync_count(const struct timesync *t) { return t->samples; }
