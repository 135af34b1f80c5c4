/* Heartbeat, shutdown and time sync against a guest that answers, is late, lies, or goes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "hv/vsp/heartbeat.h"
#include "hv/vsp/shutdown.h"
#include "hv/vsp/timesync.h"
#include "hv/vsp/utf16.h"
#include "tests/unit/vsp/ic_guest.h"

static struct guest g, g2;
static struct heartbeat *h;
static struct shutdown *s;
static struct timesync *t;
static unsigned changes, answers;
static uint32_t answer;
static uint64_t reference = 5000;

static void changed(void *arg) { changes++; }
static void done(void *arg, uint32_t status) { answers++; answer = status; }
static uint64_t ref_time(void *arg) { return reference; }

static void make(struct guest *gu)
{
    guest_start(gu);
    assert_int_equal(heartbeat_new(gu->bus, changed, NULL, &h, NULL), 0);
    assert_int_equal(shutdown_new(gu->bus, &s, NULL), 0);
    assert_int_equal(timesync_new(gu->bus, ref_time, NULL, &t, NULL), 0);
}

static void unmake(struct guest *gu)
{
    heartbeat_free(h);
    shutdown_free(s);
    timesync_free(t);
    guest_stop(gu);
}

static int setup(void **state)
{
    changes = answers = 0;
    make(&g);
    guest_connect(&g);
    return 0;
}

static int teardown(void **state)
{
    unmake(&g);
    return 0;
}

enum { HEARTBEAT_RELID = 1, SHUTDOWN_RELID, TIMESYNC_RELID };

static void beats_are_answered_missed_and_answered_again(void **state)
{
    struct ic_message m;
    assert_int_equal(heartbeat_status(h), HEARTBEAT_NO_CONTACT);
    struct guest_channel *c = guest_open(&g, HEARTBEAT_RELID, 4);
    assert_int_equal(g.offer[0].m[OFFER_FLAGS], 0x11);
    assert_int_equal(get_le32(g.offer[0].m + OFFER_USER), 4);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(3, 0));
    for (unsigned i = 0; i < 10; i++) {
        assert_true(ic_next(c, &m));
        assert_int_equal(get_le16(m.b + 12), 1);
        assert_int_equal(get_le32(m.b + 8), IC_VERSION(3, 0));
        put_le64(m.b + 28, get_le64(m.b + 28) + 1);
        ic_answer(c, &m, 0);
        assert_int_equal(heartbeat_status(h), HEARTBEAT_OK);
        assert_int_equal(heartbeat_count(h), i + 1);
        assert_false(ic_next(c, &m));
        fake_advance(&g.f, 2 * NS_PER_SEC);
    }
    assert_int_equal(changes, 1);
    assert_true(ic_next(c, &m));
    fake_advance(&g.f, 60 * NS_PER_SEC);
    assert_int_equal(heartbeat_status(h), HEARTBEAT_LOST);
    struct ic_message none;
    assert_false(ic_next(c, &none));           /* one at a time, however long */
    put_le64(m.b + 28, get_le64(m.b + 28) + 1);
    ic_answer(c, &m, 0);
    assert_int_equal(heartbeat_status(h), HEARTBEAT_OK);
    /* A pause is not the guest's fault. */
    fake_advance(&g.f, 2 * NS_PER_SEC);
    assert_true(ic_next(c, &m));
    vmbus_pause(g.bus);
    machine_clock_pause(g.f.m);
    fake_advance(&g.f, 1000 * NS_PER_SEC);
    assert_int_equal(heartbeat_status(h), HEARTBEAT_OK);
    machine_clock_resume(g.f.m);
    vmbus_resume(g.bus);
    guest_turn(&g);
    guest_close(c);
    assert_int_equal(heartbeat_status(h), HEARTBEAT_NO_CONTACT);
    fake_advance(&g.f, 100 * NS_PER_SEC);
}

static void a_guest_without_a_common_version_is_left_alone(void **state)
{
    struct ic_message m;
    struct guest_channel *c = guest_open(&g, HEARTBEAT_RELID, 4);
    ic_negotiate(c, 0, 0);
    fake_advance(&g.f, 60 * NS_PER_SEC);
    assert_false(ic_next(c, &m));
    guest_close(c);
    c = guest_open(&g, HEARTBEAT_RELID, 4);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(9, 9));
    assert_false(ic_next(c, &m));
    guest_close(c);
    c = guest_open(&g, HEARTBEAT_RELID, 4);
    ic_negotiate(c, IC_VERSION(1, 0), IC_VERSION(1, 0));
    assert_true(ic_next(c, &m));
    assert_int_equal(heartbeat_status(h), HEARTBEAT_NO_CONTACT);
}

static void shutdown_is_asked_and_answered(void **state)
{
    static const struct { bool restart, force; uint32_t flags; } q[] = {{0, 0, 0}, {0, 1, 1}, {1, 0, 2}, {1, 1, 3}};
    struct ic_message m;
    assert_false(shutdown_ready(s));
    assert_int_equal(shutdown_ask(s, false, false, "x", done, NULL), -ENOTCONN);
    struct guest_channel *c = guest_open(&g, SHUTDOWN_RELID, 4);
    assert_false(shutdown_ready(s));
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(3, 2));
    assert_true(shutdown_ready(s));
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(shutdown_ask(s, q[i].restart, q[i].force, "h\xC3\xA9 \xF0\x9F\x98\x80", done, NULL), 0);
        assert_int_equal(shutdown_ask(s, false, false, "", done, NULL), -EBUSY);
        assert_true(ic_next(c, &m));
        assert_int_equal(get_le16(m.b + 18), 2060);
        assert_int_equal(get_le32(m.b + 28 + 8), q[i].flags);
        static const uint8_t text[] = {'h', 0, 0xE9, 0, ' ', 0, 0x3D, 0xD8, 0x00, 0xDE, 0, 0};
        assert_memory_equal(m.b + 28 + 12, text, sizeof(text));
        ic_answer(c, &m, i == 3 ? IC_FAIL : IC_OK);
        assert_int_equal(answers, i + 1);
        assert_int_equal(answer, i == 3 ? IC_FAIL : IC_OK);
    }
    /* Late: told once, and again possible when the guest has answered after all. */
    assert_int_equal(shutdown_ask(s, false, false, "", done, NULL), 0);
    fake_advance(&g.f, 11 * NS_PER_SEC);
    assert_int_equal(answers, 5);
    assert_int_equal(answer, IC_TIMEOUT);
    assert_int_equal(shutdown_ask(s, false, false, "", done, NULL), -EBUSY);
    assert_true(ic_next(c, &m));
    ic_answer(c, &m, 0);
    assert_int_equal(answers, 5);
    assert_int_equal(shutdown_ask(s, false, false, "", done, NULL), 0);
    guest_close(c);
    assert_int_equal(answers, 6);
    assert_int_equal(answer, IC_GONE);
}

static void wrong_answers_do_nothing_or_end_the_channel(void **state)
{
    struct ic_message m;
    struct guest_channel *c = guest_open(&g, SHUTDOWN_RELID, 4);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(3, 2));
    assert_int_equal(shutdown_ask(s, false, false, "", done, NULL), 0);
    assert_true(ic_next(c, &m));
    struct ic_message bad = m;
    bad.transaction++;
    ic_answer(c, &bad, 0);                       /* another transaction */
    bad = m;
    put_le16(bad.b + 12, 9);
    bad.b[25] = 3;
    guest_send(c, bad.transaction, bad.b, 64);   /* no answer at all */
    assert_int_equal(answers, 0);
    guest_send(c, m.transaction, m.b, 20);       /* shorter than a header */
    assert_int_equal(answers, 1);
    assert_int_equal(answer, IC_GONE);
    assert_int_equal(g.faults, 1);
}

static void time_is_stepped_once_and_sampled_then(void **state)
{
    struct ic_message m;
    struct guest_channel *c = guest_open(&g, TIMESYNC_RELID, 4);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(4, 0));
    for (unsigned i = 0; i < 4; i++) {
        assert_true(ic_next(c, &m));
        assert_int_equal(get_le16(m.b + 18), 24);
        assert_true(get_le64(m.b + 28) == g.f.wall / 100 + UINT64_C(116444736000000000));
        assert_int_equal(get_le64(m.b + 36), 5000);
        assert_int_equal(m.b[28 + 16], i == 0 ? 1 : 2);
        ic_answer(c, &m, 0);
        assert_int_equal(timesync_count(t), i + 1);
        fake_advance(&g.f, 5 * NS_PER_SEC);
    }
    assert_true(ic_next(c, &m));
    ic_answer(c, &m, 0);
    vmbus_pause(g.bus);
    machine_clock_pause(g.f.m);
    fake_advance(&g.f, 100 * NS_PER_SEC);
    vmbus_resume(g.bus);
    machine_clock_resume(g.f.m);
    fake_advance(&g.f, NS_PER_MS);
    assert_true(ic_next(c, &m));
    assert_int_equal(m.b[28 + 16], 1);           /* stepped again */
    guest_close(c);
    c = guest_open(&g, TIMESYNC_RELID, 4);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(3, 0));
    assert_true(ic_next(c, &m));
    assert_int_equal(get_le16(m.b + 18), 25);
    assert_int_equal(m.b[28 + 24], 1);
}

static void services_go_on_after_a_load(void **state)
{
    static uint8_t ram[1 << 20];
    struct ic_message m;
    struct guest_channel *c = guest_open(&g, HEARTBEAT_RELID, 4), *d = guest_open(&g, SHUTDOWN_RELID, 4);
    ic_negotiate(c, IC_VERSION(3, 0), IC_VERSION(3, 0));
    ic_negotiate(d, IC_VERSION(3, 0), IC_VERSION(3, 2));
    assert_true(ic_next(c, &m));
    vmbus_pause(g.bus);
    machine_clock_pause(g.f.m);
    struct save_writer w;
    save_init(&w);
    machine_save(g.f.m, &w);
    struct heartbeat *oldh = h;
    struct shutdown *olds = s;
    struct timesync *oldt = t;
    make(&g2);
    vmbus_pause(g2.bus);
    for (gpa_t at = 0; at < 64 * MIB; at += sizeof(ram)) {
        mem_read(g.mem, at, ram, sizeof(ram));
        mem_write(g2.mem, at, ram, sizeof(ram));
    }
    struct load_reader r;
    struct hv_error e = {0};
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, &e), 0);
    assert_int_equal(machine_load(g2.f.m, &r, &e), 0);
    machine_clock_resume(g2.f.m);
    vmbus_resume(g2.bus);
    guest_turn(&g2);
    g2.ch[0] = *c;
    g2.ch[1] = *d;
    g2.ch[0].g = g2.ch[1].g = &g2;
    put_le64(m.b + 28, get_le64(m.b + 28) + 1);
    ic_answer(&g2.ch[0], &m, 0);
    assert_int_equal(heartbeat_status(h), HEARTBEAT_OK);
    fake_advance(&g2.f, 2 * NS_PER_SEC);
    assert_true(ic_next(&g2.ch[0], &m));
    assert_true(shutdown_ready(s));
    assert_int_equal(shutdown_ask(s, false, false, "", done, NULL), 0);
    assert_true(ic_next(&g2.ch[1], &m));
    save_fini(&w);
    unmake(&g2);
    h = oldh, s = olds, t = oldt;
}

static void text_survives_and_rubbish_does_not_hurt(void **state)
{
    static const char *const good[] = {"", "a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "mixed \xC3\xA9 text"};
    uint8_t wide[64];
    char back[64];
    for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
        uint32_t n = utf16_from_utf8(good[i], wide, sizeof(wide));
        utf16_to_utf8(wide, n, back, sizeof(back));
        assert_string_equal(back, good[i]);
    }
    assert_int_equal(utf16_from_utf8("abcdef", wide, 6), 6);         /* cut: two and the end */
    utf16_to_utf8(wide, 6, back, sizeof(back));
    assert_string_equal(back, "ab");
    static const char *const bad[] = {"\xFF", "\xC0\x80", "\xE2\x82", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\x80"};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        utf16_from_utf8(bad[i], wide, sizeof(wide));
        assert_int_equal(get_le16(wide), 0xFFFD);
    }
    uint64_t seed = 3;
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t noise[40];
        for (unsigned k = 0; k < sizeof(noise); k++)
            noise[k] = (uint8_t)((seed = seed * 6364136223846793005ull + 1) >> 33);
        utf16_to_utf8(noise, 1 + i % 40, back, 1 + i % 64);
        assert_true(strlen(back) < 1 + i % 64);
        noise[39] = 0;
        utf16_from_utf8((char *)noise, wide, sizeof(wide));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(beats_are_answered_missed_and_answered_again),
        T(a_guest_without_a_common_version_is_left_alone),
        T(shutdown_is_asked_and_answered),
        T(wrong_answers_do_nothing_or_end_the_channel),
        T(time_is_stepped_once_and_sampled_then),
        T(services_go_on_after_a_load),
        cmocka_unit_test(text_survives_and_rubbish_does_not_hurt),
    };
    return cmocka_run_group_tests_name("vsp/ic", tests, NULL, NULL);
}
