/*
 * A hostile guest behind key-values, freeze and file copy: the input is a program of steps.
 * Channels are opened and negotiated as drivers do, or not; the host asks; answers are right,
 * nearly right, arbitrary, late, doubled, of every length and with sizes that lie; in between
 * services are taken away, the VM is paused, reset, and saved and loaded with a byte wrong.
 * Besides memory safety: every request of the host ends exactly once, its texts are UTF-8, no
 * list is longer than its limit, no descriptor is left, and a good guest can always begin anew.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/vsp/fcopy.h"
#include "hv/vsp/ic.h"
#include "hv/vsp/kvp.h"
#include "hv/vsp/vss.h"
#include "tests/fuzz/fuzz_bus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { FUZZ_KVP, FUZZ_VSS, FUZZ_FCOPY, FUZZ_CHANNELS };
enum { FUZZ_MESSAGE = 16384, FUZZ_FILE = 20000 };

struct fuzz_message { uint8_t b[FUZZ_MESSAGE]; int len; uint64_t transaction; };

struct fuzz {
    struct fuzz_bus b;
    struct kvp *kvp;
    struct vss *vss;
    struct fcopy *fcopy;
    struct guest_channel c[FUZZ_CHANNELS];
    bool open[FUZZ_CHANNELS];
    struct fuzz_message last[FUZZ_CHANNELS];      /* what the host said last; len -1: nothing */
    unsigned begun, ended, items;
    int source;
    bool damaged;                       /* a state with a byte wrong was loaded */
};

/* How far programs get: a target that is refused at its first step proves nothing. */
static HV_UNUSED struct { unsigned ready, items, sets, frozen, limits, copied, cancelled, faults, loads, timeouts; } fuzz_seen;

/* ---- the host's side ---- */

static void fuzz_utf8(const char *s)
{
    for (const uint8_t *p = (const uint8_t *)s; *p;) {
        unsigned n = *p < 0x80 ? 1 : (*p & 0xE0) == 0xC0 ? 2 : (*p & 0xF0) == 0xE0 ? 3 : (*p & 0xF8) == 0xF0 ? 4 : 0;
        hv_assert(n);
        for (unsigned i = 1; i < n; i++)
            hv_assert((p[i] & 0xC0) == 0x80);
        p += n;
    }
}

static void fuzz_item(void *arg, const char *key, const char *value)
{
    struct fuzz *f = arg;
    hv_assert(key[0]);
    fuzz_utf8(key);
    fuzz_utf8(value);
    f->items++;
    fuzz_seen.items++;
}

static void fuzz_done(void *arg, uint32_t status)
{
    struct fuzz *f = arg;
    f->ended++;
    fuzz_seen.timeouts += status == IC_TIMEOUT;
    hv_assert(f->ended <= f->begun);
}

static void fuzz_set(void *arg, uint32_t status)
{
    fuzz_seen.sets += status == IC_OK;
    fuzz_done(arg, status);
}

static void fuzz_copied(void *arg, uint32_t status, int err)
{
    fuzz_seen.copied += status == IC_OK;
    fuzz_seen.cancelled += status == IC_DISK_FULL;
    fuzz_done(arg, status);
}

static void fuzz_lost(void *arg, bool limit) { fuzz_seen.limits += limit; }

static void fuzz_host(struct fuzz *f)
{
    uint8_t what = (uint8_t)fuzz_take(&f->b, 1);
    char text[64] = "";
    int r = -1;
    for (unsigned i = 0, n = what / 16; i < n; i++)
        text[i] = (char)fuzz_take(&f->b, 1);
    f->begun++;
    switch (what % 8) {
    case 0: case 1:
        f->items = 0;
        r = kvp_list(f->kvp, what / 8 % KVP_POOL_COUNT, fuzz_item, fuzz_done, f);
        break;
    case 2: r = kvp_set(f->kvp, KVP_EXTERNAL, text, "value", fuzz_set, f); break;
    case 3: r = kvp_remove(f->kvp, KVP_EXTERNAL, text, fuzz_done, f); break;
    case 4: r = vss_freeze(f->vss, (1 + fuzz_take(&f->b, 1)) * NS_PER_SEC, fuzz_done, f); break;
    case 5: r = vss_thaw(f->vss, fuzz_done, f); break;
    case 6: {
        struct fcopy_job j = {.fd = fcntl(f->source, F_DUPFD_CLOEXEC, 3), .size = fuzz_take(&f->b, 2) % (2 * FUZZ_FILE), .folder = "/srv",
                              .name = text[0] ? text : "x", .overwrite = what & 8, .done = fuzz_copied, .arg = f};
        hv_assert(j.fd >= 0);
        r = fcopy_start(f->fcopy, &j);
        break;
    }
    default: fcopy_cancel(f->fcopy); break;
    }
    f->begun -= r != 0;
    guest_turn(&f->b.g);
}

/* ---- the guest's side ---- */

/* As a driver does that has closed it before. */
static void fuzz_driver(struct fuzz *f, unsigned which)
{
    uint32_t relid = which + 1;
    fuzz_close(&f->b, relid);
    fuzz_open(&f->b, relid);
    f->c[which] = (struct guest_channel){.g = &f->b.g, .relid = relid, .connection = relid | VMBUS_SINT << 12,
                                         .pages = FUZZ_RING_PAGES, .ring = f->b.ring[relid]};
    f->open[which] = true;
    f->last[which].len = -1;
}

/* Is what stands at our read index a packet? Always, but after a load of a damaged state: then this one gives up. */
static bool fuzz_sane(struct fuzz *f, unsigned which)
{
    struct guest_channel *c = &f->c[which];
    uint32_t write = guest_get(c->g, guest_in_ring(c) + RING_WRITE), size = guest_ring_size(c);
    uint8_t head[16];
    if (write == c->read)
        return true;
    guest_ring_copy(c, guest_in_ring(c), c->read, head, sizeof(head), false);
    uint32_t total = get_le16(head + 4) * 8u, at = get_le16(head + 2) * 8u, there = write > c->read ? write - c->read : size - c->read + write;
    bool sane = total >= 16 && at >= 16 && at <= total && total + 8 <= there && total - at <= FUZZ_MESSAGE;
    hv_assert(sane || f->damaged);
    f->open[which] = sane;
    return sane;
}

/* The host's next message, if there is one, else its last. */
static bool fuzz_hear(struct fuzz *f, unsigned which)
{
    struct fuzz_message *m = &f->last[which];
    uint64_t transaction;
    if (!f->open[which] || !fuzz_sane(f, which))
        return false;
    int len = guest_recv(&f->c[which], NULL, &transaction, m->b, sizeof(m->b));
    if (len < 0)
        return m->len >= 28;
    m->len = len;
    m->transaction = transaction;
    return len >= 28;
}

static void fuzz_say(struct fuzz *f, unsigned which, uint16_t type, uint64_t transaction, const void *data, uint32_t len)
{
    if (vmbus_running(f->b.g.bus))
        (void)guest_send_raw(&f->c[which], type, 0, transaction, NULL, 0, data, len);
    (void)vmbus_signal_event(f->b.g.bus, f->c[which].connection, 0);
    guest_turn(&f->b.g);
}

static const struct { uint32_t framework, version; } fuzz_versions[FUZZ_CHANNELS] = {
    [FUZZ_KVP] = {IC_VERSION(3, 0), IC_VERSION(4, 0)}, [FUZZ_VSS] = {IC_VERSION(3, 0), IC_VERSION(5, 0)},
    [FUZZ_FCOPY] = {IC_VERSION(3, 0), IC_VERSION(1, 1)},
};

/* The answer a driver would give, with this status. */
static void fuzz_answer(struct fuzz *f, unsigned which, uint32_t status)
{
    if (!fuzz_hear(f, which))
        return;
    struct fuzz_message *m = &f->last[which];
    if (get_le16(m->b + 12) == 0 && m->len >= 44) {
        put_le16(m->b + 28, 1);
        put_le16(m->b + 30, 1);
        put_le32(m->b + 36, fuzz_versions[which].framework);
        put_le32(m->b + 40, fuzz_versions[which].version);
    }
    if (which == FUZZ_KVP && m->len >= 28 + 2580 && m->b[28] == 3) {      /* an item of a list */
        put_le32(m->b + 28 + 8 + 4, 4);
        put_le32(m->b + 28 + 8 + 8, 6);
        put_le16(m->b + 28 + 8 + 12, 'k');
        put_le32(m->b + 28 + 8 + 524, 0xD83Du | (uint32_t)(status + m->transaction) << 16);    /* half a pair, and anything */
    }
    put_le32(m->b + 20, status);
    m->b[25] = 5;
    fuzz_say(f, which, VMBUS_PKT_INBAND, m->transaction, m->b, (uint32_t)m->len);
}

/* The same with bytes of the input's in it, of another length, for another request, or once more. */
static void fuzz_twisted(struct fuzz *f, unsigned which)
{
    uint8_t twist = (uint8_t)fuzz_take(&f->b, 1);
    if (!fuzz_hear(f, which))
        return;
    struct fuzz_message *m = &f->last[which];
    uint32_t len = (uint32_t)m->len;
    m->b[25] = twist & 1 ? (uint8_t)fuzz_take(&f->b, 1) : 5;
    if (twist & 2)
        put_le32(m->b + 20, (uint32_t)fuzz_take(&f->b, 4));
    if (twist & 4)
        len = (uint32_t)fuzz_take(&f->b, 2) % 9000;
    for (unsigned n = twist & 8 ? (unsigned)fuzz_take(&f->b, 1) : 0; n; n--) {
        uint32_t at = (uint32_t)fuzz_take(&f->b, 2) % FUZZ_MESSAGE;
        m->b[twist & 128 ? at % 48 : at] = (uint8_t)fuzz_take(&f->b, 1);
    }
    fuzz_say(f, which, twist & 16 ? (uint16_t)fuzz_take(&f->b, 1) : VMBUS_PKT_INBAND, twist & 32 ? fuzz_take(&f->b, 1) : m->transaction, m->b, len);
    if (twist & 64)
        fuzz_say(f, which, VMBUS_PKT_INBAND, m->transaction, m->b, len);
}

/* ---- the machine ---- */

static void fuzz_devices(struct fuzz *f)
{
    const struct vss_config cfg = {.lost = fuzz_lost};
    hv_assert(kvp_new(f->b.g.bus, NULL, NULL, &f->kvp, NULL) == 0);
    hv_assert(vss_new(f->b.g.bus, &cfg, &f->vss, NULL) == 0);
    hv_assert(fcopy_new(f->b.g.bus, NULL, NULL, &f->fcopy, NULL) == 0);
}

static void fuzz_machine_reset(struct fuzz *f)
{
    fuzz_reset(&f->b);
    memset(f->open, 0, sizeof(f->open));
}

static void fuzz_state(struct fuzz *f)
{
    uint32_t at = (uint32_t)fuzz_take(&f->b, 2);
    bool flip = at & 0x8000;
    f->damaged |= flip;
    if (fuzz_save_load(&f->b, flip ? at : 0, flip ? (uint8_t)(1 + fuzz_take(&f->b, 1) % 255) : 0))
        fuzz_seen.loads++;
    else
        memset(f->open, 0, sizeof(f->open));
}

static void fuzz_step(struct fuzz *f)
{
    static const uint32_t statuses[] = {IC_OK, IC_OK, IC_OK, IC_FAIL, IC_NO_MORE_ITEMS, IC_EXISTS, IC_DISK_FULL, IC_INVALID};
    struct guest *g = &f->b.g;
    uint8_t op = (uint8_t)fuzz_take(&f->b, 1);
    unsigned which = op / 16 % FUZZ_CHANNELS;
    struct ic *ic = which == FUZZ_KVP ? kvp_ic(f->kvp) : which == FUZZ_VSS ? vss_ic(f->vss) : fcopy_ic(f->fcopy);
    g->ins = g->taken = 0;
    switch (op % 16) {
    case 0: fuzz_driver(f, which); break;
    case 1:
        fuzz_driver(f, which);
        fuzz_answer(f, which, IC_OK);
        break;
    case 2: case 3: case 4: case 5: fuzz_answer(f, which, IC_OK); break;
    case 6: fuzz_answer(f, which, statuses[fuzz_take(&f->b, 1) % ARRAY_SIZE(statuses)]); break;
    case 7: case 8: fuzz_twisted(f, which); break;
    case 9: case 10: case 11: fuzz_host(f); break;
    case 12: fake_advance(&g->f, (1 + fuzz_take(&f->b, 1) * (op & 0x80 ? 8 : 1)) * NS_PER_SEC); break;
    case 13:
        if (op & 0x80) {
            uint8_t m[VMBUS_SIZE_RELID_RELEASED] = {VMBUS_MSG_RELID_RELEASED};
            ic_offer(ic, !ic_offered(ic));
            put_le32(m + MSG_RELID, which + 1);
            fuzz_post(&f->b, m, sizeof(m));         /* it lets go of it, if it was taken away */
        } else {
            vmbus_pause(g->bus);
            fuzz_host(f);
            vmbus_resume(g->bus);
        }
        guest_turn(g);
        break;
    case 14:
        if (op & 0x80) {
            fuzz_machine_reset(f);
            fuzz_contact(&f->b);
        }
        break;
    default: fuzz_state(f); break;
    }
    guest_turn(g);
    hv_assert(f->items <= KVP_ITEMS_MAX);
    fuzz_seen.ready += kvp_ready(f->kvp);
    fuzz_seen.frozen += vss_frozen(f->vss);
    fuzz_seen.faults += g->faults != 0;
}

/* Whatever it did: after a reset a guest connects, and a file arrives. */
static void fuzz_good_guest(struct fuzz *f)
{
    static const struct guid class_id = {{0xe3, 0x4b, 0xd1, 0x34, 0xe4, 0xde, 0xc8, 0x41, 0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77, 0xc1, 0x92}};
    struct guest *g = &f->b.g;
    ic_offer(fcopy_ic(f->fcopy), true);
    fuzz_machine_reset(f);
    fake_advance(&g->f, NS_PER_SEC);
    hv_assert(f->begun == f->ended);
    g->ins = g->taken = g->channels = g->offers = 0;
    g->next_page = GUEST_POOL + 4 * MIB;
    guest_connect(g);
    f->c[FUZZ_FCOPY] = *guest_open(g, guest_find(g, &class_id), FUZZ_RING_PAGES);
    f->open[FUZZ_FCOPY] = true;
    f->last[FUZZ_FCOPY].len = -1;
    fuzz_answer(f, FUZZ_FCOPY, IC_OK);
    hv_assert(fcopy_ready(f->fcopy));
    struct fcopy_job j = {.fd = fcntl(f->source, F_DUPFD_CLOEXEC, 3), .size = FUZZ_FILE, .folder = "/", .name = "x", .done = fuzz_copied,
                          .arg = f};
    unsigned before = fuzz_seen.copied;
    f->begun++;
    hv_assert(fcopy_start(f->fcopy, &j) == 0);
    for (unsigned n = 0; n < 2 + (FUZZ_FILE + 6143) / 6144; n++)
        fuzz_answer(f, FUZZ_FCOPY, IC_OK);
    hv_assert(fuzz_seen.copied == before + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct fuzz f;
    f = (struct fuzz){.b = {.p = data, .end = data + len}, .source = memfd_create("source", MFD_CLOEXEC)};
    hv_assert(f.source >= 0 && ftruncate(f.source, FUZZ_FILE) == 0);
    guest_start(&f.b.g);
    fuzz_devices(&f);
    fuzz_contact(&f.b);
    for (unsigned n = 0; f.b.p < f.b.end && n < 600; n++)
        fuzz_step(&f);
    fuzz_good_guest(&f);
    kvp_free(f.kvp);
    vss_free(f.vss);
    fcopy_free(f.fcopy);
    hv_assert(f.begun == f.ended);
    guest_stop(&f.b.g);
    close(f.source);
    /* No descriptor of a copy is left: the next two are those that were free before. */
    int a = fcntl(0, F_DUPFD_CLOEXEC, 3), b = fcntl(0, F_DUPFD_CLOEXEC, 3);
    hv_assert(a < 0 || (a == f.source && b == f.source + 1));
    if (a >= 0) {
        close(a);
        close(b);
    }
    return 0;
}
