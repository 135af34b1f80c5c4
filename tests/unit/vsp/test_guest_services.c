/* Key-values, freeze and file copy against daemons that answer, refuse, hang, die and lie. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/vsp/fcopy.h"
#include "hv/vsp/kvp.h"
#include "hv/vsp/utf16.h"
#include "hv/vsp/vss.h"
#include "tests/unit/vsp/ic_guest.h"

static struct guest g, g2;
static struct kvp *k;
static struct vss *v;
static struct fcopy *f;
static struct { struct kvp *k; struct vss *v; struct fcopy *f; } old;
static unsigned changes, lost_limit, lost_gone, dones, items;
static uint32_t status;
static int err;
static char seen[4096];

static void changed(void *arg) { changes++; }
static void lost(void *arg, bool limit) { limit ? lost_limit++ : lost_gone++; }
static void done(void *arg, uint32_t st) { dones++; status = st; }
static void copied(void *arg, uint32_t st, int e) { dones++; status = st; err = e; }
static void item(void *arg, const char *key, const char *value)
{
    items++;
    snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s=%s;", key, value);
}

enum { KVP_RELID = 1, VSS_RELID, FCOPY_RELID, RING_PAGES = 4 };

static void make(struct guest *gu)
{
    const struct vss_config cfg = {.lost = lost, .changed = changed};
    guest_start(gu);
    assert_int_equal(kvp_new(gu->bus, changed, NULL, &k, NULL), 0);
    assert_int_equal(vss_new(gu->bus, &cfg, &v, NULL), 0);
    assert_int_equal(fcopy_new(gu->bus, changed, NULL, &f, NULL), 0);
}

static void unmake(struct guest *gu)
{
    kvp_free(k);
    vss_free(v);
    fcopy_free(f);
    guest_stop(gu);
}

static int setup(void **state)
{
    changes = lost_limit = lost_gone = dones = items = 0;
    err = 0;
    seen[0] = 0;
    make(&g);
    guest_connect(&g);
    return 0;
}

static int teardown(void **state)
{
    unmake(&g);
    return 0;
}

/* Save, load into a second guest whose channels are where the first one's were. */
static void move(struct save_writer *w)
{
    static uint8_t ram[1 << 20];
    struct load_reader r;
    struct hv_error e = {0};
    vmbus_pause(g.bus);
    machine_clock_pause(g.f.m);
    save_init(w);
    machine_save(g.f.m, w);
    old.k = k, old.v = v, old.f = f;
    make(&g2);
    vmbus_pause(g2.bus);
    machine_clock_pause(g2.f.m);
    for (gpa_t at = 0; at < 64 * MIB; at += sizeof(ram)) {
        mem_read(g.mem, at, ram, sizeof(ram));
        mem_write(g2.mem, at, ram, sizeof(ram));
    }
    assert_int_equal(load_init(&r, w->out.buf, w->out.len, &e), 0);
    if (machine_load(g2.f.m, &r, &e) < 0)
        fail_msg("%s: %s", e.object, e.message);
    machine_clock_resume(g2.f.m);
    vmbus_resume(g2.bus);
    guest_turn(&g2);
    memcpy(g2.ch, g.ch, sizeof(g.ch));
    for (unsigned i = 0; i < g.channels; i++)
        g2.ch[i].g = &g2;
}

static void move_back(struct save_writer *w)
{
    save_fini(w);
    unmake(&g2);
    k = old.k, v = old.v, f = old.f;
}

/* ---- key-values ---- */

static struct guest_channel *kvp_up(void)
{
    struct guest_channel *c = guest_open(&g, KVP_RELID, RING_PAGES);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(4, 0));
    assert_true(kvp_ready(k));
    return c;
}

/* An item as the answer of ENUMERATE, of sizes that may lie. */
static void put_item(struct ic_message *m, const char *key, const char *value)
{
    uint8_t *p = m->b + 28 + 8;
    put_le32(p, 1);
    put_le32(p + 4, utf16_from_utf8(key, p + 12, 512));
    put_le32(p + 8, utf16_from_utf8(value, p + 524, 2048));
}

static void items_are_listed_set_and_removed(void **state)
{
    struct ic_message m;
    char text[600];
    assert_int_equal(kvp_list(k, KVP_AUTO, item, done, NULL), -ENOTCONN);
    struct guest_channel *c = kvp_up();
    assert_int_equal(kvp_list(k, KVP_AUTO, item, done, NULL), 0);
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "h\xC3\xA9", "x y", done, NULL), 0);
    assert_int_equal(kvp_remove(k, KVP_EXTERNAL, "old", done, NULL), 0);
    guest_turn(&g);
    static const char *const have[][2] = {{"OSName", "Linux"}, {"b", ""}, {"", "no key"}, {"c", "\xE2\x82\xAC"}};
    for (unsigned i = 0; i <= 4; i++) {
        assert_true(ic_next(c, &m));
        assert_int_equal(get_le16(m.b + 18), 2580);
        assert_int_equal(m.b[28], 3);
        assert_int_equal(m.b[29], KVP_AUTO);
        assert_int_equal(get_le32(m.b + 32), i);
        if (i < 4)
            put_item(&m, have[i][0], have[i][1]);
        ic_answer(c, &m, i < 4 ? IC_OK : IC_NO_MORE_ITEMS);
        guest_turn(&g);
    }
    assert_int_equal(dones, 1);
    assert_int_equal(status, IC_OK);
    assert_string_equal(seen, "OSName=Linux;b=;c=\xE2\x82\xAC;");
    assert_true(ic_next(c, &m));
    assert_int_equal(m.b[28], 1);
    assert_int_equal(m.b[29], KVP_EXTERNAL);
    assert_int_equal(get_le32(m.b + 32), 1);
    assert_int_equal(get_le32(m.b + 36), 6);
    utf16_to_utf8(m.b + 32 + 12, 512, text, sizeof(text));
    assert_string_equal(text, "h\xC3\xA9");
    utf16_to_utf8(m.b + 32 + 524, 2048, text, sizeof(text));
    assert_string_equal(text, "x y");
    ic_answer(c, &m, IC_OK);
    guest_turn(&g);
    assert_true(ic_next(c, &m));
    assert_int_equal(m.b[28], 2);
    assert_int_equal(get_le32(m.b + 32), 8);
    utf16_to_utf8(m.b + 36, 512, text, sizeof(text));
    assert_string_equal(text, "old");
    ic_answer(c, &m, IC_NO_MORE_ITEMS);
    assert_int_equal(dones, 3);
    assert_int_equal(status, IC_NO_MORE_ITEMS);
}

static void keys_and_values_have_limits(void **state)
{
    char text[3000];
    kvp_up();
    memset(text, 'a', sizeof(text));
    text[KVP_KEY_MAX + 1] = 0;
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, text, "v", done, NULL), -EINVAL);
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "", "v", done, NULL), -EINVAL);
    text[KVP_KEY_MAX] = 0;
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, text, "", done, NULL), 0);
    memset(text, 'a', sizeof(text));
    text[KVP_VALUE_MAX + 1] = 0;
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "k", text, done, NULL), -EINVAL);
    text[KVP_VALUE_MAX] = 0;
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "k", text, done, NULL), 0);
    /* Three bytes a character: the daemon's buffer counts bytes. */
    for (unsigned i = 0; i < 700; i++)
        memcpy(text + 3 * i, "\xE2\x82\xAC", 4);
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "k", text, done, NULL), -EINVAL);
    for (unsigned i = 2; i < KVP_QUEUE_MAX; i++)
        assert_int_equal(kvp_set(k, KVP_EXTERNAL, "k", "v", done, NULL), 0);
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "k", "v", done, NULL), -EBUSY);
}

static void a_list_without_end_ends(void **state)
{
    struct ic_message m;
    struct guest_channel *c = kvp_up();
    assert_int_equal(kvp_list(k, KVP_GUEST, item, done, NULL), 0);
    guest_turn(&g);
    unsigned n = 0;
    for (; ic_next(c, &m); n++) {
        put_item(&m, "k", "v");
        put_le32(m.b + 28 + 8 + 4, UINT32_MAX);           /* sizes that lie */
        put_le32(m.b + 28 + 8 + 8, 0x80000001);
        ic_answer(c, &m, IC_OK);
        guest_turn(&g);
        seen[0] = 0;
    }
    assert_int_equal(n, KVP_ITEMS_MAX);
    assert_int_equal(dones, 1);
    /* Shorter than an item: the list is over. */
    assert_int_equal(kvp_list(k, KVP_GUEST, item, done, NULL), 0);
    guest_turn(&g);
    assert_true(ic_next(c, &m));
    m.len = 28 + 40;
    ic_answer(c, &m, IC_OK);
    assert_int_equal(dones, 2);
}

static void a_daemon_that_hangs_is_said_to_at_once_from_then_on(void **state)
{
    struct ic_message m;
    struct guest_channel *c = kvp_up();
    assert_int_equal(kvp_list(k, KVP_AUTO, item, done, NULL), 0);
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "a", "b", done, NULL), 0);
    guest_turn(&g);
    fake_advance(&g.f, 60 * NS_PER_SEC);
    guest_turn(&g);
    assert_int_equal(dones, 2);
    assert_int_equal(status, IC_TIMEOUT);
    assert_false(kvp_ready(k));
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "a", "b", done, NULL), -ENOTCONN);
    unsigned before = changes;
    assert_true(ic_next(c, &m));
    ic_answer(c, &m, IC_FAIL);                            /* it comes back */
    assert_true(kvp_ready(k) && changes > before);
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "a", "b", done, NULL), 0);
    guest_turn(&g);
    assert_true(ic_next(c, &m));
    guest_close(c);                                       /* and goes */
    assert_int_equal(dones, 3);
    assert_int_equal(status, IC_GONE);
    assert_false(kvp_ready(k));
}

static void a_pause_keeps_requests(void **state)
{
    struct ic_message m;
    struct guest_channel *c = kvp_up();
    vmbus_pause(g.bus);
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "a", "b", done, NULL), 0);
    guest_turn(&g);
    assert_int_equal(dones, 0);
    vmbus_resume(g.bus);
    guest_turn(&g);
    assert_true(ic_next(c, &m));
    ic_answer(c, &m, IC_OK);
    assert_int_equal(dones, 1);
    assert_int_equal(status, IC_OK);
}

/* ---- freeze and thaw ---- */

static struct guest_channel *vss_up(void)
{
    struct guest_channel *c = guest_open(&g, VSS_RELID, RING_PAGES);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(5, 0));
    assert_true(vss_ready(v));
    return c;
}

static void expect_op(struct guest_channel *c, uint8_t op, uint32_t answer)
{
    struct ic_message m;
    assert_true(ic_next(c, &m));
    assert_true(get_le16(m.b + 18) >= 12);
    assert_int_equal(m.b[28], op);
    ic_answer(c, &m, answer);
}

static struct guest_channel *frozen(void)
{
    struct guest_channel *c = vss_up();
    assert_int_equal(vss_freeze(v, 60 * NS_PER_SEC, done, NULL), 0);
    expect_op(c, 2, IC_OK);
    assert_int_equal(dones, 0);
    expect_op(c, 5, IC_OK);
    assert_int_equal(dones, 1);
    assert_int_equal(status, IC_OK);
    assert_true(vss_frozen(v));
    return c;
}

static void a_guest_freezes_and_thaws(void **state)
{
    assert_int_equal(vss_freeze(v, NS_PER_SEC, done, NULL), -ENOTCONN);
    assert_int_equal(vss_thaw(v, done, NULL), -ENOTCONN);
    struct guest_channel *c = frozen();
    assert_int_equal(vss_freeze(v, NS_PER_SEC, done, NULL), -EALREADY);
    assert_int_equal(vss_thaw(v, done, NULL), 0);
    assert_int_equal(vss_thaw(v, done, NULL), -EBUSY);
    assert_false(vss_frozen(v));
    expect_op(c, 6, IC_OK);
    assert_int_equal(dones, 1);
    expect_op(c, 4, IC_FAIL);                             /* what becomes of this one matters to nobody */
    assert_int_equal(dones, 2);
    assert_int_equal(status, IC_OK);
    assert_int_equal(vss_thaw(v, done, NULL), -EALREADY);
}

static void without_a_daemon_it_is_said_at_once(void **state)
{
    struct guest_channel *c = vss_up();
    assert_int_equal(vss_freeze(v, NS_PER_SEC, done, NULL), 0);
    expect_op(c, 2, IC_FAIL);
    assert_int_equal(status, IC_NOT_CONNECTED);
    assert_int_equal(vss_freeze(v, NS_PER_SEC, done, NULL), 0);
}

static void what_could_not_be_frozen_is_thawed(void **state)
{
    struct ic_message m;
    struct guest_channel *c = vss_up();
    assert_int_equal(vss_freeze(v, 5 * NS_PER_SEC, done, NULL), 0);
    expect_op(c, 2, IC_OK);
    expect_op(c, 5, IC_FAIL);
    assert_int_equal(dones, 1);
    assert_int_equal(status, IC_FAIL);
    expect_op(c, 6, IC_OK);
    expect_op(c, 4, IC_OK);
    assert_int_equal(dones, 1);
    /* Too late: said at once, thawed when it comes. */
    assert_int_equal(vss_freeze(v, 5 * NS_PER_SEC, done, NULL), 0);
    expect_op(c, 2, IC_OK);
    assert_true(ic_next(c, &m));
    fake_advance(&g.f, 6 * NS_PER_SEC);
    assert_int_equal(dones, 2);
    assert_int_equal(status, IC_TIMEOUT);
    assert_int_equal(vss_freeze(v, NS_PER_SEC, done, NULL), -EBUSY);
    ic_answer(c, &m, IC_OK);
    expect_op(c, 6, IC_OK);
    expect_op(c, 4, IC_OK);
    assert_int_equal(vss_freeze(v, NS_PER_SEC, done, NULL), 0);
}

static void nobody_stays_frozen_for_ever(void **state)
{
    struct guest_channel *c = frozen();
    fake_advance(&g.f, VSS_LIMIT_NS - NS_PER_SEC);
    assert_true(vss_frozen(v));
    fake_advance(&g.f, 2 * NS_PER_SEC);
    assert_false(vss_frozen(v));
    assert_int_equal(lost_limit, 1);
    expect_op(c, 6, IC_OK);
    expect_op(c, 4, IC_OK);
    assert_int_equal(vss_thaw(v, done, NULL), -EALREADY);
}

static void a_guest_that_dies_frozen_is_told(void **state)
{
    struct guest_channel *c = frozen();
    guest_close(c);
    assert_int_equal(lost_gone, 1);
    assert_false(vss_frozen(v));
    c = vss_up();
    assert_int_equal(vss_freeze(v, NS_PER_SEC, done, NULL), 0);
    expect_op(c, 2, IC_OK);
    guest_close(c);                                       /* in the middle of it */
    assert_int_equal(status, IC_GONE);
    assert_int_equal(lost_gone, 1);
}

static void frozen_survives_a_load_and_an_unfinished_freeze_does_not(void **state)
{
    struct save_writer w;
    struct guest_channel *c = frozen();
    move(&w);
    assert_true(vss_frozen(v));
    assert_int_equal(vss_thaw(v, done, NULL), 0);
    expect_op(&g2.ch[c - g.ch], 6, IC_OK);
    expect_op(&g2.ch[c - g.ch], 4, IC_OK);
    assert_int_equal(status, IC_OK);
    move_back(&w);
}

static void a_freeze_under_way_is_undone_after_a_load(void **state)
{
    struct save_writer w;
    struct ic_message m;
    struct guest_channel *c = vss_up();
    assert_int_equal(vss_freeze(v, 60 * NS_PER_SEC, done, NULL), 0);
    expect_op(c, 2, IC_OK);
    assert_true(ic_next(c, &m));
    move(&w);
    ic_answer(&g2.ch[c - g.ch], &m, IC_OK);
    assert_false(vss_frozen(v));
    expect_op(&g2.ch[c - g.ch], 6, IC_OK);
    move_back(&w);
}

/* ---- file copy ---- */

static uint8_t source[200001], target[200001];

static int source_fd(size_t len)
{
    int fd = memfd_create("source", MFD_CLOEXEC);
    for (size_t i = 0; i < len; i++)
        source[i] = (uint8_t)(i * 7 + i / 6144);
    assert_int_equal(write(fd, source, len), len);
    return fd;
}

static struct fcopy_job job(size_t len, const char *folder, const char *name)
{
    return (struct fcopy_job){.fd = source_fd(len), .size = len, .folder = folder, .name = name, .overwrite = true,
                              .done = copied};
}

/* The guest's next answer needs this much room at any moment the host may wake it. */
static struct guest_channel *watched;
static void check_room(struct guest *gu, unsigned flag)
{
    if (watched && flag == watched->relid)
        assert_true(guest_room(watched) > 16 + 28 + 6196 + 8);
}

static struct guest_channel *fcopy_up(void)
{
    struct guest_channel *c = guest_open(&g, FCOPY_RELID, RING_PAGES);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(1, 1));
    assert_true(fcopy_ready(f));
    return c;
}

static void expect_start(struct guest_channel *c, const char *folder, const char *name, uint32_t flags, uint32_t answer)
{
    struct ic_message m;
    char text[800];
    assert_true(ic_next(c, &m));
    assert_int_equal(get_le16(m.b + 18), 1088);
    assert_int_equal(get_le32(m.b + 28), 0);
    utf16_to_utf8(m.b + 28 + 36, 520, text, sizeof(text));
    assert_string_equal(text, name);
    utf16_to_utf8(m.b + 28 + 556, 520, text, sizeof(text));
    assert_string_equal(text, folder);
    assert_int_equal(get_le32(m.b + 28 + 1076), flags);
    ic_answer(c, &m, answer);
    guest_turn(c->g);
}

static void expect_short(struct guest_channel *c, uint32_t op, uint32_t answer)
{
    struct ic_message m;
    assert_true(ic_next(c, &m));
    assert_int_equal(get_le32(m.b + 28), op);
    ic_answer(c, &m, answer);
    guest_turn(c->g);
}

static void a_file_arrives_whole(void **state)
{
    static const size_t sizes[] = {0, 1, 6144, 6145, sizeof(source)};
    struct ic_message m;
    struct guest_channel *c = fcopy_up();
    uint64_t at, size;
    watched = c;
    g.on_signal = check_room;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct fcopy_job j = job(sizes[i], "/srv/x", "data");
        j.parents = i == 1;
        assert_int_equal(fcopy_start(f, &j), 0);
        expect_start(c, "/srv/x/", "data", i == 1 ? 3 : 1, IC_OK);
        memset(target, 0xAA, sizeof(target));
        uint64_t end = 0;
        while (ic_next(c, &m) && get_le32(m.b + 28) == 1) {
            uint64_t off = get_le64(m.b + 28 + 40);
            uint32_t n = get_le32(m.b + 28 + 48);
            assert_int_equal(get_le16(m.b + 18), 6196);
            assert_true(off == end && n >= 1 && n <= 6144 && off + n <= sizes[i]);
            memcpy(target + off, m.b + 28 + 52, n);
            end = off + n;
            ic_answer(c, &m, IC_OK);
            guest_turn(&g);
            fcopy_progress(f, &at, &size);
            assert_true(at == end && size == sizes[i]);
        }
        assert_int_equal(end, sizes[i]);
        assert_memory_equal(target, source, sizes[i]);
        assert_int_equal(get_le32(m.b + 28), 2);
        assert_int_equal(dones, i);
        ic_answer(c, &m, IC_OK);
        assert_int_equal(dones, i + 1);
        assert_int_equal(status, IC_OK);
        fcopy_progress(f, &at, &size);
        assert_true(at == 0 && size == 0);
    }
    watched = NULL;
}

static void names_have_limits(void **state)
{
    char folder[300] = "/", name[300];
    fcopy_up();
    static const char *const bad[][2] = {{"srv", "x"}, {"/srv", ""}, {"/srv", "a/b"}, {"/", "."}, {"/", ".."}, {"", "x"}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct fcopy_job j = job(1, bad[i][0], bad[i][1]);
        assert_int_equal(fcopy_start(f, &j), -EINVAL);
        assert_int_equal(fcntl(j.fd, F_GETFD), -1);       /* it was taken */
    }
    memset(folder + 1, 'd', 200);
    memset(name, 'n', sizeof(name));
    name[FCOPY_PATH_MAX - 201] = 0;
    struct fcopy_job j = job(1, folder, name);
    assert_int_equal(fcopy_start(f, &j), -ENAMETOOLONG);
    name[FCOPY_PATH_MAX - 202] = 0;
    j = job(1, folder, name);
    assert_int_equal(fcopy_start(f, &j), 0);
    j = job(1, "/", "x");
    assert_int_equal(fcopy_start(f, &j), -EBUSY);
}

static void refusals_have_reasons(void **state)
{
    struct guest_channel *c = fcopy_up();
    struct fcopy_job j = job(10, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(c, "/", "x", 1, IC_EXISTS);
    assert_int_equal(status, IC_EXISTS);
    /* It fails: a daemon that answers the probe could not; without one, there is none. */
    j = job(10, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(c, "/", "x", 1, IC_FAIL);
    expect_start(c, "/", ".", 0, IC_EXISTS);
    assert_int_equal(status, IC_FAIL);
    j = job(10, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(c, "/", "x", 1, IC_FAIL);
    expect_start(c, "/", ".", 0, IC_FAIL);
    assert_int_equal(status, IC_NOT_CONNECTED);
    assert_int_equal(dones, 3);
}

static void what_fails_in_the_middle_is_removed(void **state)
{
    struct ic_message m;
    struct guest_channel *c = fcopy_up();
    struct fcopy_job j = job(20000, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(c, "/", "x", 1, IC_OK);
    expect_short(c, 1, IC_OK);
    expect_short(c, 1, IC_DISK_FULL);
    assert_int_equal(dones, 0);
    expect_short(c, 3, IC_OK);
    assert_int_equal(status, IC_DISK_FULL);
    /* The source is shorter than it was. */
    j = job(20000, "/", "x");
    assert_int_equal(ftruncate(j.fd, 7000), 0);
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(c, "/", "x", 1, IC_OK);
    expect_short(c, 1, IC_OK);
    expect_short(c, 1, IC_OK);
    expect_short(c, 3, IC_OK);
    assert_int_equal(status, IC_INVALID);
    assert_int_equal(err, 0);
    /* Given up by the host, with a request under way. */
    j = job(20000, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(c, "/", "x", 1, IC_OK);
    fcopy_cancel(f);
    fcopy_cancel(f);
    expect_short(c, 1, IC_OK);
    assert_int_equal(dones, 2);
    assert_int_equal(fcopy_start(f, &(struct fcopy_job){.fd = source_fd(1), .folder = "/", .name = "x"}), -EBUSY);
    expect_short(c, 3, IC_OK);
    assert_int_equal(dones, 3);
    assert_int_equal(status, IC_CANCELLED);
    /* It hangs, and answers in the end. */
    j = job(20000, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(c, "/", "x", 1, IC_OK);
    assert_true(ic_next(c, &m));
    fake_advance(&g.f, 60 * NS_PER_SEC);
    assert_int_equal(status, IC_TIMEOUT);
    assert_false(fcopy_ready(f));
    ic_answer(c, &m, IC_OK);
    guest_turn(&g);
    expect_short(c, 3, IC_OK);
    assert_int_equal(dones, 4);
    /* A START that was refused late leaves nothing to remove: CANCEL would remove what was there before. */
    j = job(20000, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    assert_true(ic_next(c, &m));
    fake_advance(&g.f, 60 * NS_PER_SEC);
    ic_answer(c, &m, IC_EXISTS);
    guest_turn(&g);
    assert_false(ic_next(c, &m));
    /* The guest goes. */
    j = job(20000, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    guest_close(c);
    assert_int_equal(dones, 6);
    assert_int_equal(status, IC_GONE);
}

static void a_copy_ends_with_a_load(void **state)
{
    struct save_writer w;
    struct ic_message m;
    struct guest_channel *c = fcopy_up();
    struct fcopy_job j = job(20000, "/", "x");
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(c, "/", "x", 1, IC_OK);
    assert_true(ic_next(c, &m));
    move(&w);
    ic_answer(&g2.ch[c - g.ch], &m, IC_OK);
    guest_turn(&g2);
    expect_short(&g2.ch[c - g.ch], 3, IC_OK);
    j = job(0, "/", "y");
    assert_int_equal(fcopy_start(f, &j), 0);
    expect_start(&g2.ch[c - g.ch], "/", "y", 1, IC_OK);
    expect_short(&g2.ch[c - g.ch], 2, IC_OK);
    assert_int_equal(status, IC_OK);
    move_back(&w);
}

/* ---- offers ---- */

static void a_service_is_taken_away_and_comes_back(void **state)
{
    struct guest_channel *c = kvp_up();
    assert_int_equal(kvp_set(k, KVP_EXTERNAL, "a", "b", done, NULL), 0);
    guest_turn(&g);
    ic_offer(kvp_ic(k), false);
    guest_turn(&g);
    assert_false(ic_offered(kvp_ic(k)) || kvp_ready(k) || ic_open(kvp_ic(k)));
    assert_int_equal(status, IC_GONE);
    const uint8_t *r = guest_expect(&g, VMBUS_MSG_RESCIND);
    uint32_t relid = get_le32(r + MSG_RELID);
    assert_int_equal(relid, c->relid);
    ic_offer(kvp_ic(k), true);                            /* the guest has not let go of it yet */
    fake_advance(&g.f, NS_PER_SEC);
    assert_null(guest_next(&g));
    guest_post_words(&g, VMBUS_MSG_GPADL_TEARDOWN, VMBUS_SIZE_GPADL_TEARDOWN, relid, c->gpadl, 0);
    (void)guest_expect(&g, VMBUS_MSG_GPADL_TORNDOWN);
    guest_post_words(&g, VMBUS_MSG_RELID_RELEASED, VMBUS_SIZE_RELID_RELEASED, relid, 0, 0);
    fake_advance(&g.f, NS_PER_SEC);
    guest_turn(&g);
    r = guest_expect(&g, VMBUS_MSG_OFFER);
    c = guest_open(&g, get_le32(r + OFFER_RELID), RING_PAGES);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(4, 0));
    assert_true(kvp_ready(k));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(items_are_listed_set_and_removed), TEST(keys_and_values_have_limits), TEST(a_list_without_end_ends),
        TEST(a_daemon_that_hangs_is_said_to_at_once_from_then_on), TEST(a_pause_keeps_requests),
        TEST(a_guest_freezes_and_thaws), TEST(without_a_daemon_it_is_said_at_once), TEST(what_could_not_be_frozen_is_thawed),
        TEST(nobody_stays_frozen_for_ever), TEST(a_guest_that_dies_frozen_is_told),
        TEST(frozen_survives_a_load_and_an_unfinished_freeze_does_not), TEST(a_freeze_under_way_is_undone_after_a_load),
        TEST(a_file_arrives_whole), TEST(names_have_limits), TEST(refusals_have_reasons),
        TEST(what_fails_in_the_middle_is_removed), TEST(a_copy_ends_with_a_load),
        TEST(a_service_is_taken_away_and_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
