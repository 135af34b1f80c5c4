/*
 * Dynamic memory with a guest that does as Linux' hv_balloon: memory given is gone from the
 * host's file, memory given back reads as zeros, and whatever is not the guest's to give
 * ends the channel.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "hv/vsp/dynmem.h"
#include "hv/vsp/dynmem_proto.h"
#include "tests/unit/vmbus/guest.h"

#define HOT_BASE ((gpa_t)(5 * GIB))
#define HOT_TOP  ((gpa_t)(9 * GIB))
#define MAX_RAM  (2 * GIB)

static struct guest g;
static struct dynmem *d;
static struct guest_channel *c;
static unsigned events, warnings;
static char event_text[200], event_hint[200];

static uint64_t used_bytes;

static void on_used(void *arg, uint64_t bytes)
{
    used_bytes += bytes;
}

static void on_event(void *arg, bool warning, const char *message, const char *hint)
{
    events++;
    warnings += warning;
    snprintf(event_text, sizeof(event_text), "%s", message);
    snprintf(event_hint, sizeof(event_hint), "%s", hint ? hint : "");
}

static void make(struct guest *gu)
{
    guest_start(gu);
    struct dynmem_config cfg = {.bus = gu->bus, .low_bytes = GUEST_RAM, .hot_base = HOT_BASE, .hot_top = HOT_TOP,
                                .max_bytes = MAX_RAM, .event = on_event, .used = on_used};
    assert_int_equal(dynmem_new(&cfg, &d, NULL), 0);
}

static int setup(void **state)
{
    events = warnings = 0;
    event_text[0] = event_hint[0] = 0;
    make(&g);
    guest_connect(&g);
    return 0;
}

static int teardown(void **state)
{
    dynmem_free(d);
    guest_stop(&g);
    return 0;
}

static void dm_send(enum dm_type type, uint8_t *m, uint16_t len)
{
    put_le16(m, (uint16_t)type);
    put_le16(m + 2, len);
    put_le32(m + 4, 77);
    guest_send(c, 0, m, len);
}

/* The host's next message into m; its type, or -1. */
static int dm_recv(uint8_t *m)
{
    int n = guest_recv(c, NULL, NULL, m, DM_MAX_MESSAGE + 8);
    if (n < 0)
        return -1;
    hv_assert(n >= DM_HEADER && get_le16(m + 2) <= n && n - get_le16(m + 2) < 8);
    return get_le16(m);
}

static bool version(uint32_t v)
{
    uint8_t m[DM_MAX_MESSAGE + 8] = {0};
    put_le32(m + 8, v);
    dm_send(DM_VERSION_REQUEST, m, 16);
    hv_assert(dm_recv(m) == DM_VERSION_RESPONSE && get_le16(m + 2) == 16);
    return get_le64(m + 8) == 1;
}

static void bind(void)
{
    uint8_t m[DM_MAX_MESSAGE + 8] = {0};
    c = guest_open(&g, 1, 5);
    assert_true(version(DM_VERSION_2_0));
    memset(m, 0, sizeof(m));
    m[8] = 0x1F;
    put_le64(m + 24, UINT64_MAX);
    dm_send(DM_CAPABILITIES, m, 32);
    assert_int_equal(dm_recv(m), DM_CAPABILITIES_RESPONSE);
    assert_int_equal(get_le64(m + 8), 1);
    assert_int_equal(dm_recv(m), DM_INFO);
    assert_int_equal(get_le16(m + 2), 32);
    assert_int_equal(get_le64(m + 24), MAX_RAM / 4096);
}

static void report(uint64_t available, uint64_t committed)
{
    uint8_t m[48] = {0};
    put_le64(m + 8, available);
    put_le64(m + 16, committed);
    dm_send(DM_STATUS, m, 48);
}

/* Answer a balloon request with these ranges. */
static void give(const uint64_t *range, uint32_t n, bool more)
{
    uint8_t m[DM_MAX_MESSAGE] = {0};
    put_le32(m + 12, n << 1 | more);
    for (uint32_t i = 0; i < n; i++)
        put_le64(m + 16 + 8 * i, range[i]);
    dm_send(DM_BALLOON_RESPONSE, m, (uint16_t)(16 + 8 * n));
}

static struct dynmem_report now(void)
{
    struct dynmem_report r;
    dynmem_report(d, &r);
    return r;
}

static uint64_t resident(void) { return mem_resident_bytes(g.mem); }

static void fill(gpa_t gpa, uint64_t len, uint8_t v)
{
    static uint8_t buf[1 << 20];
    memset(buf, v, sizeof(buf));
    for (uint64_t at = 0; at < len; at += MIN(len - at, sizeof(buf)))
        assert_int_equal(mem_write(g.mem, gpa + at, buf, MIN(len - at, sizeof(buf))), 0);
}

static bool is_zero(gpa_t gpa, uint64_t len)
{
    static uint8_t buf[1 << 20];
    for (uint64_t at = 0; at < len; at += sizeof(buf)) {
        uint64_t n = MIN(len - at, sizeof(buf));
        hv_assert(mem_read(g.mem, gpa + at, buf, n) == 0);
        if (buf[0] || memcmp(buf, buf + 1, n - 1))
            return false;
    }
    return true;
}

static void versions_and_capabilities(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8] = {0};
    struct hv_error e = {0};
    assert_int_equal(dynmem_set_target(d, 128 * MIB, &e), -EOPNOTSUPP);
    assert_string_equal(e.hint, "in the guest: modprobe hv_balloon");
    c = guest_open(&g, 1, 5);
    assert_false(version(0x00030000));
    assert_false(now().driver);
    assert_true(version(DM_VERSION_0_3));
    put_le64(m + 8, 0x1D);                                  /* no hot-add */
    dm_send(DM_CAPABILITIES, m, 32);
    assert_true(now().driver);
    assert_true(now().can_balloon);
    assert_false(now().can_hot_add);
    guest_close(c);
    c = guest_open(&g, 1, 5);
    assert_true(version(DM_VERSION_1_0));
    guest_close(c);
    bind();
    assert_true(now().can_hot_add);
    assert_int_equal(now().version, DM_VERSION_2_0);
    assert_int_equal(now().assigned, GUEST_RAM);
    report(1000, 5000);
    assert_true(now().reporting);
    assert_int_equal(now().available, 1000 * 4096);
    assert_int_equal(now().demand, 5000 * 4096);
    assert_int_equal(dynmem_set_target(d, MAX_RAM + MIB, &e), -EINVAL);
}

/* 2 MiB pieces and single pages, up and down twenty times; the host's file is what counts. */
static void the_balloon_goes_up_and_down(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    gpa_t from = 64 * MIB;
    bind();
    for (unsigned n = 0; n < 20; n++) {
        fill(from, 64 * MIB, (uint8_t)(n + 1));
        uint64_t before = resident();
        assert_int_equal(dynmem_set_target(d, GUEST_RAM - 64 * MIB, &e), 0);
        guest_turn(&g);
        assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
        assert_int_equal(get_le16(m + 2), 16);
        assert_int_equal(get_le32(m + 8), 64 * 256);
        assert_int_equal(now().op, DYNMEM_BALLOON);
        uint64_t range[512];
        unsigned k = 0;
        for (; k < 31; k++)                                  /* every other one from above */
            range[k] = DM_RANGE((from >> 12) + 512 * (k % 2 ? k : 30 - k + (k % 2 ? 0 : 0)), 512);
        give(range, 31, true);
        assert_int_equal(now().ballooned, 62 * MIB);
        uint32_t left = 512, first = 31 * 512;
        while (left) {                                       /* the last 2 MiB as pages, backwards */
            uint32_t p = MIN(left, 200u);
            for (k = 0; k < p; k++)
                range[k] = DM_RANGE((from >> 12) + first + left - 1 - k, 1);
            left -= p;
            give(range, p, left != 0);
        }
        assert_int_equal(now().op, DYNMEM_IDLE);
        assert_int_equal(now().assigned, GUEST_RAM - 64 * MIB);
        assert_in_range(before - resident(), 64 * MIB - 64 * KIB, 64 * MIB);      /* less pages of the rings */
        assert_true(is_zero(from, 64 * MIB));
        /* The guest touches what is not its own: it does not get that back. */
        fill(from + 5 * MIB, 8192, 0xEE);
        assert_int_equal(dynmem_set_target(d, GUEST_RAM, &e), 0);
        guest_turn(&g);
        uint64_t back = 0;
        bool more = true;
        while (more) {
            assert_int_equal(dm_recv(m), DM_UNBALLOON_REQUEST);
            uint32_t ranges = get_le32(m + 12);
            assert_int_equal(get_le16(m + 2), 16 + 8 * ranges);
            more = get_le32(m + 8) & 1;
            for (uint32_t i = 0; i < ranges; i++)
                back += DM_RANGE_PAGES(get_le64(m + 16 + 8 * i));
        }
        assert_int_equal(back, 64 * 256);
        assert_int_equal(now().op, DYNMEM_UNBALLOON);
        assert_true(is_zero(from, 64 * MIB));
        memset(m, 0, 8);
        dm_send(DM_UNBALLOON_RESPONSE, m, 8);
        assert_int_equal(now().op, DYNMEM_IDLE);
        assert_int_equal(now().assigned, GUEST_RAM);
        assert_int_equal(now().ballooned, 0);
    }
    assert_int_equal(events, 0);
}

/* Single pages that do not touch each other: many messages, more than the ring holds at once. */
static void unballoon_waits_for_room(void **state)
{
    static uint64_t range[16384];
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM - 64 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    for (uint32_t i = 0; i < 16384; i++)
        range[i] = DM_RANGE(8192 + 2 * i, 1);
    for (uint32_t i = 0; i < 16384; i += 256)
        give(range + i, 256, i + 256 < 16384);
    assert_int_equal(now().ballooned, 64 * MIB);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM, &e), 0);
    uint32_t got = 0, messages = 0;
    for (bool more = true; more; messages++) {
        guest_turn(&g);
        assert_int_equal(dm_recv(m), DM_UNBALLOON_REQUEST);
        more = get_le32(m + 8) & 1;
        for (uint32_t i = 0; i < get_le32(m + 12); i++) {
            uint64_t r = get_le64(m + 16 + 8 * i);
            assert_int_equal(DM_RANGE_PAGES(r), 1);
            assert_int_equal(DM_RANGE_PFN(r), 8192 + 2 * got);
            got++;
        }
    }
    assert_int_equal(got, 16384);
    assert_int_equal(messages, (16384 + 509) / 510);
    dm_send(DM_UNBALLOON_RESPONSE, m, 8);
    assert_int_equal(now().assigned, GUEST_RAM);
}

static void a_short_answer_is_not_repeated_at_once(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM - 64 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    uint64_t r = DM_RANGE(8192, 512);
    give(&r, 1, false);
    assert_int_equal(events, 1);
    assert_string_equal(event_text, "the guest gave back 2M of the 64M it was asked for");
    assert_int_equal(now().assigned, GUEST_RAM - 2 * MIB);
    fake_advance(&g.f, 59 * NS_PER_SEC);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM - 64 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), -1);
    fake_advance(&g.f, 2 * NS_PER_SEC);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    assert_int_equal(get_le32(m + 8), 62 * 256);
    give(NULL, 0, false);                                   /* nothing at all */
    fake_advance(&g.f, 100 * NS_PER_SEC);
    assert_int_equal(dm_recv(m), -1);                       /* twice as long now */
    /* Giving is not kept waiting. */
    assert_int_equal(dynmem_set_target(d, GUEST_RAM, &e), 0);
    assert_int_equal(dm_recv(m), DM_UNBALLOON_REQUEST);
}

static void what_is_not_the_guests_to_give_ends_the_channel(void **state)
{
    static const struct { uint64_t range[2]; uint32_t n; bool more; } bad[] = {
        {{DM_RANGE(GUEST_RAM >> 12, 1)}, 1, false},              /* past its memory */
        {{DM_RANGE((GUEST_RAM >> 12) - 1, 2)}, 1, false},
        {{DM_RANGE(0xF8000, 1)}, 1, false},                      /* MMIO */
        {{DM_RANGE(HOT_BASE >> 12, 1)}, 1, false},               /* never added */
        {{DM_RANGE(UINT64_C(0xFFFFFFFFFF), 1)}, 1, false},
        {{DM_RANGE(8192, 0)}, 1, false},                         /* none */
        {{DM_RANGE(8192, 257)}, 1, false},                       /* more than asked for */
        {{DM_RANGE(8192, 128), DM_RANGE(8192 + 127, 2)}, 2, false},   /* twice the same */
        {{DM_RANGE(8192, 0xFFFFFF)}, 1, true},
    };
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        bind();
        assert_int_equal(dynmem_set_target(d, GUEST_RAM - MIB, &e), 0);
        assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
        fill(32 * MIB + 2 * MIB, 8192, 9);
        give(bad[i].range, bad[i].n, bad[i].more);
        if (now().driver)
            print_error("row %u\n", i);
        assert_false(is_zero(32 * MIB + 2 * MIB, 8192));
        assert_false(now().driver);
        assert_int_equal(now().assigned, GUEST_RAM);
        guest_close(c);
        g.channels = 0;
        fake_advance(&g.f, 11 * NS_PER_SEC);
    }
    /* Answers to questions nobody asked, ranges that are not in the message, types there are none of. */
    for (unsigned i = 0; i < 14; i++) {
        bind();
        memset(m, 0, sizeof(m));
        if (i == DM_STATUS || i == 4) {
            put_le32(m + 12, 100 << 1);
            i = i == 4 ? 7 : i;
        }
        dm_send(i == DM_STATUS ? 99 : i, m, 48);
        if (now().driver)
            print_error("type %u\n", i);
        assert_false(now().driver);
        guest_close(c);
        g.channels = 0;
        fake_advance(&g.f, 11 * NS_PER_SEC);
    }
}

/* Memory is added: whole, in part, and never again when the guest says so. */
static void memory_is_added(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 300 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);
    assert_int_equal(get_le16(m + 2), 16);
    assert_true(get_le64(m + 8) == DM_RANGE(HOT_BASE >> 12, 128 * 256));      /* one block, to see how it does */
    assert_true(mem_is_ram(g.mem, HOT_BASE, 128 * MIB));
    assert_false(mem_is_ram(g.mem, HOT_BASE + 128 * MIB, 4096));
    assert_int_equal(now().assigned, GUEST_RAM);
    memset(m, 0, 16);
    put_le32(m + 8, 64 * 256);                              /* half of it */
    put_le32(m + 12, 1);
    dm_send(DM_HOT_ADD_RESPONSE, m, 16);
    assert_int_equal(now().assigned, GUEST_RAM + 64 * MIB);
    assert_int_equal(now().visible, GUEST_RAM + 64 * MIB);
    assert_int_equal(dm_recv(m), -1);
    fake_advance(&g.f, 31 * NS_PER_SEC);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);       /* and the rest, from the next block on */
    assert_true(get_le64(m + 8) == DM_RANGE((HOT_BASE + 128 * MIB) >> 12, 128 * 256));
    memset(m, 0, 16);
    put_le32(m + 8, 128 * 256);
    put_le32(m + 12, 1);
    dm_send(DM_HOT_ADD_RESPONSE, m, 16);
    assert_int_equal(now().assigned, GUEST_RAM + 192 * MIB);
    assert_int_equal(now().op, DYNMEM_IDLE);                /* 108 MiB short of the target: less than a block */
    assert_int_equal(dm_recv(m), -1);
    /* It can be ballooned like any other, and comes back before anything is added. */
    fill(HOT_BASE, 2 * MIB, 3);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 190 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    uint64_t r = DM_RANGE(HOT_BASE >> 12, 512);
    give(&r, 1, false);
    assert_true(is_zero(HOT_BASE, 2 * MIB));
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 512 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_UNBALLOON_REQUEST);
    memset(m, 0, 8);
    dm_send(DM_UNBALLOON_RESPONSE, m, 8);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);
    memset(m, 0, 16);
    put_le32(m + 12, 1);                                    /* none, and do not ask again */
    dm_send(DM_HOT_ADD_RESPONSE, m, 16);
    assert_int_equal(warnings, 1);
    assert_false(now().can_hot_add);
    assert_int_equal(dm_recv(m), -1);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 512 * MIB, &e), -EOPNOTSUPP);
    assert_non_null(strstr(e.hint, "hot_add=1"));
    /* The guest restarts with what it boots with. */
    fill(HOT_BASE, MIB, 7);
    vmbus_pause(g.bus);
    machine_reset(g.f.m);
    vmbus_resume(g.bus);
    assert_int_equal(now().assigned, GUEST_RAM);
    assert_false(mem_is_ram(g.mem, HOT_BASE, 4096));
    guest_connect(&g);
    bind();
    assert_true(now().can_hot_add);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 128 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);
    assert_true(is_zero(HOT_BASE, 128 * MIB));
}

static void more_than_was_offered_ends_the_channel(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 128 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);
    memset(m, 0, 16);
    put_le32(m + 8, 128 * 256 + 1);
    put_le32(m + 12, 1);
    dm_send(DM_HOT_ADD_RESPONSE, m, 16);
    assert_int_equal(g.faults, 1);
    assert_int_equal(now().assigned, GUEST_RAM);
}

/* What a guest with so many MiB more keeps for itself, pages more. */
static uint64_t kept_of(uint64_t mb)
{
    return (dynmem_floor(GUEST_RAM + mb * MIB) - dynmem_floor(GUEST_RAM)) / 4096;
}

static void blocks_that_stay_offline_are_noticed(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    report(20000, 60000);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 256 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);
    memset(m, 0, 16);
    put_le32(m + 8, 128 * 256);
    put_le32(m + 12, 1);
    fake_advance(&g.f, 5 * NS_PER_SEC);                     /* it has waited for them in vain */
    dm_send(DM_HOT_ADD_RESPONSE, m, 16);
    assert_int_equal(dm_recv(m), -1);                       /* no more before it is known */
    assert_int_equal(warnings, 0);
    report(20000, 60000 + 128 * 256);                       /* as Linux counts them */
    assert_int_equal(warnings, 1);
    assert_string_equal(event_hint, "boot the guest with memhp_default_state=online");
    assert_int_equal(now().offline, 128 * MIB);
    assert_int_equal(now().demand, 60000 * 4096);           /* not demand */
    assert_false(now().can_hot_add);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 512 * MIB, &e), -EOPNOTSUPP);
    report(20000, 60000 + 128 * 256);
    assert_int_equal(warnings, 1);                          /* said once */
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 64 * MIB, &e), 0);      /* the balloon still works */
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    give(NULL, 0, false);
    /* A program that ends frees as much as a block: its memory was not that of the block. */
    report(20000, 60000 + 128 * 256);
    report(20000 + 128 * 256, 60000);
    report(20000 + 128 * 256, 60000);
    assert_int_equal(now().offline, 128 * MIB);
    report(20000, 60000 + 128 * 256);
    report(20000, 60000 + 128 * 256);
    /* Somebody puts it online: the guest keeps a part for itself, which it counts as committed. */
    uint64_t kept = kept_of(128);
    report(20000 + 128 * 256, 60000 + kept);
    assert_false(now().can_hot_add);
    report(20000 + 128 * 256, 60000 + kept);
    assert_true(now().can_hot_add);
    assert_int_equal(now().offline, 0);
    /* Once bitten: the next is one block again. */
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 512 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);
    assert_int_equal(DM_RANGE_PAGES(get_le64(m + 8)), 128 * 256);
}

/* Ask for `mb` MiB, see how many MiB come in one request, and answer it after so long. */
static uint64_t add(uint64_t mb, uint64_t seconds)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    int r = dynmem_set_target(d, GUEST_RAM + mb * MIB, &e);
    if (r < 0 || dm_recv(m) != DM_HOT_ADD_REQUEST)
        return 0;
    uint64_t pages = DM_RANGE_PAGES(get_le64(m + 8));
    memset(m, 0, 16);
    put_le32(m + 8, (uint32_t)pages);
    put_le32(m + 12, 1);
    fake_advance(&g.f, seconds * NS_PER_SEC);
    dm_send(DM_HOT_ADD_RESPONSE, m, 16);
    return pages / 256;
}

/* What programs do meanwhile looks like anything: a late answer is believed whatever they did. */
static void a_loaded_guest_gets_one_block_that_stays_offline(void **state)
{
    bind();
    report(40000, 90000);
    assert_int_equal(add(1024, 5), 128);
    report(70000, 90000 - 30000 + 128 * 256);               /* one ended */
    assert_int_equal(now().offline, 128 * MIB);
    for (unsigned i = 0; i < 400; i++) {                    /* they come and go, by 16 MiB each */
        uint64_t x = (i * 7919u % 30) * 16 * 256;
        report(10000 + x, 120000 + 128 * 256 - x);
        assert_int_equal(add(1024, 0), 0);
    }
    assert_int_equal(now().hot_added, 128 * MIB);
    assert_int_equal(warnings, 1);
}

static void a_guest_that_is_slow_goes_on_getting_memory(void **state)
{
    bind();
    report(20000, 60000);
    assert_int_equal(add(128, 8), 128);                     /* put online, but it took its time */
    report(20000 + 126 * 256, 60000 + kept_of(128));
    assert_int_equal(now().offline, 0);
    assert_int_equal(warnings, 0);
    assert_int_equal(add(768, 3), 128);                     /* in time: now several at once */
    report(20000 + 250 * 256, 60000 + kept_of(256));
    assert_int_equal(add(768, 9), 512);                     /* slow, but not 5 s for each of four */
    report(20000, 60000 + 128 * 256 + 500 * 256);           /* used at once */
    assert_int_equal(now().offline, 0);
    assert_int_equal(add(1024, 1), 128);                    /* not sure of it any more */
    assert_int_equal(warnings, 0);
}

/* Somebody has switched it off while the guest ran. */
static void a_guest_that_stops_putting_blocks_online_is_noticed(void **state)
{
    bind();
    report(20000, 60000);
    assert_int_equal(add(128, 0), 128);
    report(20000 + 126 * 256, 60000 + kept_of(128));
    assert_int_equal(add(640, 20), 512);
    report(20000, 60000 + 638 * 256);
    assert_int_equal(now().offline, 512 * MIB);
    assert_int_equal(add(1024, 0), 0);
    report(20000 + 500 * 256, 60000);                       /* no more can be offline than is committed */
    assert_int_equal(now().offline, 0);
}

static void a_guest_that_never_answers_is_said_so_once(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM - MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    fake_advance(&g.f, 600 * NS_PER_SEC);
    assert_int_equal(warnings, 1);
    assert_true(now().stuck);
    assert_int_equal(dm_recv(m), -1);
    uint64_t r = DM_RANGE(8192, 256);
    give(&r, 1, false);                                     /* late, but good */
    assert_false(now().stuck);
    assert_int_equal(now().assigned, GUEST_RAM - MIB);
}

static void a_driver_that_goes_takes_its_pages_along(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM - MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    uint64_t r = DM_RANGE(8192, 256);
    give(&r, 1, false);
    assert_int_equal(now().assigned, GUEST_RAM - MIB);
    guest_close(c);
    assert_int_equal(now().assigned, GUEST_RAM);
    assert_int_equal(now().target, 0);
    bind();
    assert_int_equal(dm_recv(m), -1);
}

static void what_is_touched_in_the_balloon_is_taken_again(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    fill(0, GUEST_RAM, 1);
    /* bind() again made rings within it: they are zeros now, so open anew. */
    guest_post_words(&g, VMBUS_MSG_UNLOAD, 8, 0, 0, 0);
    guest_expect(&g, VMBUS_MSG_UNLOAD_RESPONSE);
    g.next_page = GUEST_POOL;
    fill(GUEST_POOL, MIB, 0);
    guest_connect(&g);
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM - 128 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    uint64_t r = DM_RANGE(128 * 256, 128 * 256);
    give(&r, 1, false);
    uint64_t found = 1;
    assert_int_equal(dynmem_enforce(d, &found), 0);
    assert_int_equal(found, 0);
    fill(200 * MIB, 8 * MIB, 1);
    assert_int_equal(resident(), GUEST_RAM - 120 * MIB);
    assert_int_equal(dynmem_enforce(d, &found), 0);
    assert_int_equal(found, 8 * MIB);
    assert_int_equal(resident(), GUEST_RAM - 128 * MIB);
    /* By itself too, again and again, and said once. */
    unsigned said = events;
    for (unsigned i = 0; i < 3; i++) {
        fill(200 * MIB, 8 * MIB, 1);
        assert_int_equal(resident(), GUEST_RAM - 120 * MIB);
        used_bytes = 0;
        fake_advance(&g.f, 1100 * NS_PER_MS);
        assert_int_equal(resident(), GUEST_RAM - 128 * MIB);
        assert_int_equal(used_bytes, 8 * MIB);
    }
    assert_int_equal(events, said + 1);
    assert_non_null(strstr(event_text, "had given back"));
}

static void through_a_load(void)
{
    struct save_writer w;
    struct load_reader rd;
    struct hv_error e = {0};
    vmbus_pause(g.bus);
    machine_clock_pause(g.f.m);
    save_init(&w);
    machine_save(g.f.m, &w);
    assert_int_equal(load_init(&rd, w.out.buf, w.out.len, &e), 0);
    assert_int_equal(machine_load(g.f.m, &rd, &e), 0);
    save_fini(&w);
    machine_clock_resume(g.f.m);
    vmbus_resume(g.bus);
    guest_turn(&g);
}

/* Saved and loaded between each request and its answer: added, taken in two parts, given back. */
static void what_is_under_way_goes_on_after_a_load(void **state)
{
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 128 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);
    through_a_load();
    assert_int_equal(now().op, DYNMEM_HOT_ADD);
    assert_int_equal(now().assigned, GUEST_RAM);
    assert_int_equal(dm_recv(m), -1);                     /* not asked a second time */
    memset(m, 0, 16);
    put_le32(m + 8, 128 * 256);
    put_le32(m + 12, 1);
    dm_send(DM_HOT_ADD_RESPONSE, m, 16);
    assert_int_equal(now().assigned, GUEST_RAM + 128 * MIB);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 124 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    through_a_load();
    give((const uint64_t[]){DM_RANGE(8192, 512)}, 1, true);
    through_a_load();
    assert_int_equal(now().ballooned, 2 * MIB);
    give((const uint64_t[]){DM_RANGE(HOT_BASE >> 12, 512)}, 1, false);
    assert_int_equal(now().assigned, GUEST_RAM + 124 * MIB);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 128 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_UNBALLOON_REQUEST);
    through_a_load();
    assert_int_equal(now().op, DYNMEM_UNBALLOON);
    assert_int_equal(dm_recv(m), -1);
    dm_send(DM_UNBALLOON_RESPONSE, m, 8);
    assert_int_equal(now().op, DYNMEM_IDLE);
    assert_int_equal(now().assigned, GUEST_RAM + 128 * MIB);
    assert_int_equal(g.faults, 0);
}

/* In the middle of everything, a hundred pages each way; then the stream damaged byte by byte. */
static void saved_and_loaded_in_the_middle(void **state)
{
    static uint8_t ram[1 << 20];
    uint8_t m[DM_MAX_MESSAGE + 8];
    struct hv_error e = {0};
    bind();
    assert_int_equal(dynmem_set_target(d, GUEST_RAM + 128 * MIB, &e), 0);
    assert_int_equal(dm_recv(m), DM_HOT_ADD_REQUEST);
    memset(m, 0, 16);
    put_le32(m + 8, 128 * 256);
    put_le32(m + 12, 1);
    dm_send(DM_HOT_ADD_RESPONSE, m, 16);
    assert_int_equal(dynmem_set_target(d, GUEST_RAM, &e), 0);
    assert_int_equal(dm_recv(m), DM_BALLOON_REQUEST);
    uint64_t r[2] = {DM_RANGE(8192, 512), DM_RANGE(HOT_BASE >> 12, 512)};
    give(r, 2, true);
    vmbus_pause(g.bus);
    machine_clock_pause(g.f.m);
    struct save_writer w;
    struct load_reader rd;
    save_init(&w);
    machine_save(g.f.m, &w);
    struct dynmem *old = d;
    static struct guest g2;
    struct guest_channel *old_c = c;
    for (size_t at = 0; at < w.out.len; at += at < 9 ? 9 : 1 + at / 300) {
        if (at)
            w.out.buf[at] ^= 0x55;
        make(&g2);
        vmbus_pause(g2.bus);
        assert_int_equal(mem_add_ram(g2.mem, HOT_BASE, 128 * MIB, NULL), 0);
        for (gpa_t p = 0; p < 32 * MIB; p += sizeof(ram)) {
            mem_read(g.mem, p, ram, sizeof(ram));
            if (ram[0] || memcmp(ram, ram + 1, sizeof(ram) - 1))
                mem_write(g2.mem, p, ram, sizeof(ram));
        }
        struct hv_error e2 = {0};
        int res = load_init(&rd, w.out.buf, w.out.len, &e2);
        if (res == 0)
            res = machine_load(g2.f.m, &rd, &e2);
        if (!at) {
            struct guest keep = g;
            if (res)
                print_error("%s: %s\n", e2.object, e2.message);
            assert_int_equal(res, 0);
            machine_clock_resume(g2.f.m);
            vmbus_resume(g2.bus);
            guest_turn(&g2);
            g2.ch[0] = *old_c;
            g2.ch[0].g = &g2;
            c = &g2.ch[0];
            assert_int_equal(now().ballooned, 4 * MIB);
            uint64_t rest[1] = {DM_RANGE(16384, 124 * 256)};
            give(rest, 1, false);
            assert_int_equal(g2.faults, 0);
            assert_int_equal(now().assigned, GUEST_RAM);
            (void)keep;
        } else if (res == 0) {
            machine_clock_resume(g2.f.m);
            vmbus_resume(g2.bus);
            guest_turn(&g2);
            fake_advance(&g2.f, 10 * NS_PER_SEC);
        }
        dynmem_free(d);
        guest_stop(&g2);
        if (at)
            w.out.buf[at] ^= 0x55;
    }
    d = old;
    c = old_c;
    save_fini(&w);
}

static void the_floor_is_linux_own(void **state)
{
    static const struct { uint32_t ram, floor; } t[] = {{16, 16}, {32, 24}, {128, 72}, {512, 168}, {2048, 360},
                                                        {8192, 744}, {32768, 1512}};
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
        assert_int_equal(dynmem_floor(t[i].ram * MIB), t[i].floor * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(versions_and_capabilities),
        T(the_balloon_goes_up_and_down),
        T(unballoon_waits_for_room),
        T(a_short_answer_is_not_repeated_at_once),
        T(what_is_not_the_guests_to_give_ends_the_channel),
        T(memory_is_added),
        T(more_than_was_offered_ends_the_channel),
        T(blocks_that_stay_offline_are_noticed),
        T(a_loaded_guest_gets_one_block_that_stays_offline),
        T(a_guest_that_is_slow_goes_on_getting_memory),
        T(a_guest_that_stops_putting_blocks_online_is_noticed),
        T(a_guest_that_never_answers_is_said_so_once),
        T(a_driver_that_goes_takes_its_pages_along),
        T(what_is_touched_in_the_balloon_is_taken_again),
        T(what_is_under_way_goes_on_after_a_load),
        T(saved_and_loaded_in_the_middle),
        cmocka_unit_test(the_floor_is_linux_own),
    };
    return cmocka_run_group_tests_name("vsp/dynmem", tests, NULL, NULL);
}
