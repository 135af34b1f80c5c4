/* The bus seen by a guest: contact, offers, GPADLs, channels and their ends, save and load. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "tests/unit/vmbus/guest.h"

static const struct guid class_a = {{0xA1, 1}}, class_b = {{0xB1, 1}};

/* A device that keeps what it was given and can be told what to say. */
struct device_x {
    struct vmbus_channel *ch;
    unsigned opens, closes, packets, writables, quiesces;
    int answer;
    uint8_t last[8192];
    uint32_t last_len;
    struct vmbus_packet p;
    uint64_t pin_bytes;
    int pin_result;
    bool echo;
};

static int x_open(void *arg, const uint8_t *user) { ((struct device_x *)arg)->opens++; return 0; }
static void x_close(void *arg) { ((struct device_x *)arg)->closes++; }
static void x_quiesce(void *arg) { ((struct device_x *)arg)->quiesces++; }
static void x_writable(void *arg) { ((struct device_x *)arg)->writables++; }

static int x_packet(void *arg, const struct vmbus_packet *p)
{
    struct device_x *x = arg;
    if (x->answer)
        return x->answer;
    x->packets++;
    x->p = *p;
    x->last_len = MIN(p->len, (uint32_t)sizeof(x->last));
    memcpy(x->last, p->payload, x->last_len);
    if (p->type == VMBUS_PKT_GPA_DIRECT) {
        struct vmbus_buffer buf;
        x->pin_result = vmbus_packet_pin(x->ch, p, MEM_WRITE, 1 << 20, &buf);
        if (x->pin_result == 0) {
            static uint8_t fill[1 << 20];
            x->pin_bytes = buf.len;
            memset(fill, 0x5A, buf.len);
            hv_assert(vmbus_buffer_write(&buf, 0, fill, buf.len) == 0);
            hv_assert(vmbus_buffer_write(&buf, buf.len, fill, 1) == -EFAULT);
            vmbus_buffer_unpin(&buf);
        }
    }
    if (x->echo)
        hv_assert(vmbus_complete(x->ch, p->transaction, p->payload, p->len) == 0);
    return 0;
}

static const struct vmbus_channel_ops x_ops = {x_open, x_close, x_packet, x_writable, x_quiesce};

static void offer(struct guest *g, struct device_x *x, const struct guid *class_id, uint8_t instance, uint16_t sub)
{
    struct vmbus_offer o = {.name = "x", .class_id = *class_id, .instance_id = {{0x11, instance}}, .flags = 1,
                            .sub_index = sub};
    *x = (struct device_x){0};
    assert_int_equal(vmbus_offer(g->bus, &o, &x_ops, x, &x->ch, NULL), 0);
}

static struct guest g, g2;
static struct device_x a, b;

static int setup(void **state)
{
    guest_start(&g);
    offer(&g, &a, &class_a, 1, 0);
    offer(&g, &b, &class_b, 2, 0);
    return 0;
}

static int teardown(void **state)
{
    guest_stop(&g);
    return 0;
}

static void versions_are_negotiated(void **state)
{
    static const struct { uint32_t version; bool good; uint32_t connection; } t[] = {
        {0x00050003, true, 4}, {0x00050002, true, 4}, {0x00050001, true, 4}, {0x00050000, true, 4},
        {0x00040001, true, 0x00040001}, {0x00040000, true, 0x00040000}, {0x00030000, true, 0x00030000},
        {0x00020004, true, 0x00020004}, {0x00060000, false, 0}, {0x00000013, false, 0}, {0x00010001, false, 0},
        {0, false, 0}, {UINT32_MAX, false, 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        assert_int_equal(guest_contact(&g, t[i].version), t[i].good);
        const struct guest_message *m = &g.in[g.ins - 1];
        assert_int_equal(m->len, 16);
        assert_int_equal(m->vp, 1);
        assert_int_equal(get_le32(m->data + VERSION_CONNECTION), t[i].connection);
        assert_int_equal(vmbus_version(g.bus), t[i].good ? t[i].version : 0);
    }
    /* From 5.0 on the SINT has to be ours. */
    uint8_t m[40] = {VMBUS_MSG_INITIATE_CONTACT};
    put_le32(m + CONTACT_VERSION, 0x00050003);
    m[CONTACT_SINT] = 3;
    guest_post(&g, m, sizeof(m));
    assert_int_equal(guest_expect(&g, VMBUS_MSG_VERSION_RESPONSE)[VERSION_SUPPORTED], 0);
    /* A VP there is none of: the answer goes to the first. */
    m[CONTACT_SINT] = 2;
    put_le32(m + CONTACT_VP, GUEST_VPS);
    guest_post(&g, m, sizeof(m));
    assert_int_equal(guest_expect(&g, VMBUS_MSG_VERSION_RESPONSE)[VERSION_SUPPORTED], 1);
    assert_int_equal(g.in[g.ins - 1].vp, 0);
}

static void connections_and_sizes_are_checked(void **state)
{
    uint8_t m[VMBUS_MESSAGE_MAX] = {VMBUS_MSG_REQUEST_OFFERS};
    assert_int_equal(vmbus_post_message(g.bus, 2, 1, m, 8), -ENOENT);
    assert_int_equal(vmbus_post_message(g.bus, 1, 2, m, 8), -EINVAL);
    assert_int_equal(vmbus_post_message(g.bus, 1, 1, m, 7), -EINVAL);
    assert_int_equal(vmbus_post_message(g.bus, 1, 1, m, 241), -EINVAL);
    assert_int_equal(vmbus_signal_event(g.bus, 1, 0), -ENOENT);
    assert_int_equal(vmbus_signal_event(g.bus, 0x2000, 0), -ENOENT);
    assert_int_equal(vmbus_signal_event(g.bus, 0x2001, 1), -ENOENT);
    assert_int_equal(vmbus_signal_event(g.bus, 0x2801, 0), -ENOENT);
    assert_int_equal(vmbus_signal_event(g.bus, 0x2001, 0), 0);
    /* Not connected: nothing is answered. Each type, one byte short: nothing either. */
    guest_post(&g, m, 8);
    assert_null(guest_next(&g));
    guest_connect(&g);
    for (unsigned type = 0; type < 40; type++) {
        put_le32(m, type);
        if (type != VMBUS_MSG_REQUEST_OFFERS && type != VMBUS_MSG_UNLOAD) {
            guest_post(&g, m, 8);
            assert_null(guest_next(&g));
        }
    }
    assert_int_equal(vmbus_version(g.bus), 0x00050003);
}

static void offers_come_once_and_carry_what_drivers_want(void **state)
{
    guest_connect(&g);
    assert_int_equal(g.offers, 2);
    const uint8_t *m = g.offer[0].m;
    assert_memory_equal(m + OFFER_CLASS, class_a.b, 16);
    assert_int_equal(get_le32(m + OFFER_RELID), 1);
    assert_int_equal(get_le32(m + OFFER_CONNECTION), 0x2001);
    assert_int_equal(m[OFFER_MONITOR_ID], 0xFF);
    assert_int_equal(m[OFFER_MONITOR], 0);
    assert_int_equal(get_le16(m + OFFER_DEDICATED), 1);
    guest_post_words(&g, VMBUS_MSG_REQUEST_OFFERS, 8, 0, 0, 0);
    assert_null(guest_next(&g));
    /* Hot-add: told at once. */
    struct device_x c;
    offer(&g, &c, &class_a, 3, 0);
    guest_take_offers(&g);
    assert_int_equal(g.offers, 3);
    assert_int_equal(get_le32(g.offer[2].m + OFFER_RELID), 3);
    struct vmbus_offer again = {.name = "x", .class_id = class_a, .instance_id = {{0x11, 3}}};
    assert_int_equal(vmbus_offer(g.bus, &again, &x_ops, &c, &c.ch, NULL), -EEXIST);
}

static void a_busy_slot_keeps_messages_in_order(void **state)
{
    g.slot_busy = true;
    uint8_t m[40] = {VMBUS_MSG_INITIATE_CONTACT};
    put_le32(m + CONTACT_VERSION, 0x00050003);
    m[CONTACT_SINT] = 2;
    guest_post(&g, m, sizeof(m));
    put_le32(m, VMBUS_MSG_REQUEST_OFFERS);
    guest_post(&g, m, 8);
    assert_int_equal(g.ins, 0);
    g.slot_busy = false;
    vmbus_slot_free(g.bus);
    guest_turn(&g);
    guest_expect(&g, VMBUS_MSG_VERSION_RESPONSE);
    guest_expect(&g, VMBUS_MSG_OFFER);
    guest_expect(&g, VMBUS_MSG_OFFER);
    guest_expect(&g, VMBUS_MSG_ALL_OFFERS_DELIVERED);
    assert_null(guest_next(&g));
}

/* A guest that asks and never takes an answer is told to try again; nothing grows. */
static void a_guest_that_takes_nothing_is_slowed_down(void **state)
{
    guest_connect(&g);
    g.slot_busy = true;
    uint8_t m[40] = {VMBUS_MSG_TL_CONNECT_REQUEST};
    unsigned taken = 0;
    for (unsigned i = 0; i < 10000; i++)
        taken += guest_post(&g, m, sizeof(m)) == 0;
    assert_in_range(taken, 256, 4096);
    assert_int_equal(guest_post(&g, m, sizeof(m)), -EAGAIN);
    /* Without the loop running, the queue on the way in is bounded as well. */
    g.slot_busy = false;
    for (unsigned i = 0; i < 100; i++) {         /* the guest takes all of it now */
        g.ins = g.taken = 0;
        g.slot_room = 100;
        vmbus_slot_free(g.bus);
        guest_turn(&g);
    }
    g.slot_room = 0;
    g.ins = g.taken = 0;
    guest_connect(&g);
    taken = 0;
    while (vmbus_post_message(g.bus, 4, 1, m, 40) == 0)
        taken++;
    assert_in_range(taken, 256, 2048);
    g.ins = g.taken = 0;
    g.slot_busy = true;
    guest_turn(&g);
}

static void packets_go_both_ways(void **state)
{
    uint8_t data[64], back[64];
    uint16_t type;
    uint64_t transaction;
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 4);
    assert_int_equal(a.opens, 1);
    assert_true(vmbus_channel_is_open(a.ch));
    a.echo = true;
    for (unsigned n = 0; n < 1000; n++) {
        memset(data, (int)n, sizeof(data));
        guest_send(c, n, data, sizeof(data));
        assert_int_equal(a.packets, n + 1);
        assert_memory_equal(a.last, data, sizeof(data));
        assert_int_equal(guest_recv(c, &type, &transaction, back, sizeof(back)), 64);
        assert_int_equal(type, VMBUS_PKT_COMPLETION);
        assert_int_equal(transaction, n);
        assert_memory_equal(back, data, 64);
    }
    assert_int_equal(g.signals[1], 1000);
    assert_int_equal(g.signal_vp, 1 % GUEST_VPS);
    guest_close(c);
    assert_int_equal(a.closes, 1);
    assert_int_equal(vmbus_send(a.ch, 0, false, data, 8), -ENOTCONN);
    /* And once more, as a driver that is loaded again. */
    c = guest_open(&g, 1, 4);
    guest_send(c, 7, data, 8);
    assert_int_equal(guest_recv(c, &type, &transaction, back, sizeof(back)), 8);
}

static void a_burst_is_drained_whatever_its_size(void **state)
{
    uint8_t data[8] = {0};
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 16);
    unsigned n = 0;
    while (guest_send_raw(c, VMBUS_PKT_INBAND, 0, n, NULL, 0, data, 8))
        n++;
    assert_true(n > 1000);
    guest_turn(&g);
    assert_int_equal(a.packets, n);
    assert_int_equal(guest_get(&g, c->ring + RING_MASK), 0);
    assert_int_equal(guest_get(&g, c->ring + RING_READ), c->write);
}

static void a_device_that_is_busy_gets_its_packet_again(void **state)
{
    uint8_t data[8] = {42};
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 4);
    a.answer = -EAGAIN;
    guest_send(c, 1, data, 8);
    guest_send(c, 2, data, 8);
    assert_int_equal(a.packets, 0);
    assert_int_equal(guest_get(&g, c->ring + RING_READ), 0);
    a.answer = 0;
    vmbus_channel_resume(a.ch);
    guest_turn(&g);
    assert_int_equal(a.packets, 2);
    assert_int_equal(a.p.transaction, 2);
    guest_send(c, 3, data, 8);
    assert_int_equal(a.packets, 3);
}

static void room_is_waited_for(void **state)
{
    uint8_t data[512] = {0};
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 2);
    unsigned sent = 0, got = 0;
    while (vmbus_send(a.ch, sent + 1, false, data, sizeof(data)) == 0)
        sent++;
    assert_int_equal(sent, 7);
    assert_int_equal(a.writables, 0);
    while (guest_recv(c, NULL, NULL, data, sizeof(data)) >= 0)
        got++;
    assert_int_equal(got, sent);
    assert_true(a.writables >= 1);
    /* A guest that does not honour the pending size: the bus looks by itself. */
    guest_set(&g, guest_in_ring(c) + RING_FEATURES, 0);
    a.writables = 0;
    while (vmbus_send(a.ch, 1, false, data, sizeof(data)) == 0)
        ;
    guest_set(&g, guest_in_ring(c) + RING_READ, guest_get(&g, guest_in_ring(c) + RING_WRITE));
    fake_advance(&g.f, NS_PER_SEC);
    guest_turn(&g);
    assert_true(a.writables >= 1);
}

static void the_guests_wait_for_room_is_ended(void **state)
{
    uint8_t data[504] = {0};
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 2);
    a.answer = -EAGAIN;
    while (guest_send_raw(c, VMBUS_PKT_INBAND, 0, 1, NULL, 0, data, sizeof(data)))
        ;
    guest_turn(&g);
    guest_set(&g, c->ring + RING_PENDING, 528);
    unsigned before = g.signals[1];
    a.answer = 0;
    vmbus_channel_resume(a.ch);
    guest_turn(&g);
    assert_true(g.signals[1] > before);
}

static void gpa_direct_pages_are_pinned_and_written(void **state)
{
    struct { uint8_t h[8 + 8 + 8 * 5]; } e = {{0}};
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 4);
    gpa_t p = guest_pages(&g, 16);
    static const unsigned page[5] = {3, 4, 5, 9, 1};
    put_le32(e.h + 4, 1);                       /* one range */
    put_le32(e.h + 8, 4 * 4096 + 100);
    put_le32(e.h + 12, 1000);
    for (unsigned i = 0; i < 5; i++)
        put_le64(e.h + 16 + 8 * i, (p >> 12) + page[i]);
    assert_true(guest_send_raw(c, VMBUS_PKT_GPA_DIRECT, 1, 5, e.h, sizeof(e.h), "cdb", 4));
    guest_turn(&g);
    assert_int_equal(a.pin_result, 0);
    assert_int_equal(a.pin_bytes, 4 * 4096 + 100);
    assert_true(a.p.wants_completion);
    assert_memory_equal(a.last, "cdb", 4);
    static uint8_t ram[16 * 4096], want[16 * 4096];
    memset(want + 3 * 4096 + 1000, 0x5A, 3 * 4096 - 1000);
    memset(want + 9 * 4096, 0x5A, 4096);
    memset(want + 1 * 4096, 0x5A, 1100);
    assert_int_equal(mem_read(g.mem, p, ram, sizeof(ram)), 0);
    assert_memory_equal(ram, want, sizeof(ram));

    static const struct { uint32_t ranges, len, offset; uint64_t pfn; int result; } t[] = {
        {0, 4096, 0, 1, -EPROTO},          {2, 3 * 4096, 0, 1, -EPROTO},
        {1, 0, 0, 1, -EPROTO},             {1, 4096, 4096, 1, -EPROTO},
        {1, 5 * 4096 + 1, 0, 1, -EPROTO},  {1, UINT32_MAX, 4095, 1, -EPROTO},
        {UINT32_MAX, 4096, 0, 1, -EPROTO}, {1, 4096, 0, UINT64_MAX, -EFAULT},
        {1, 4096, 0, GUEST_RAM >> 12, -EFAULT},
        {1, 4096, 1, (GUEST_RAM >> 12) - 1, -EFAULT},   /* its second page is no RAM */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        memset(&e, 0, sizeof(e));
        put_le32(e.h + 4, t[i].ranges);
        put_le32(e.h + 8, t[i].len);
        put_le32(e.h + 12, t[i].offset);
        put_le64(e.h + 16, t[i].pfn);
        put_le64(e.h + 24, t[i].pfn + 1);
        assert_true(guest_send_raw(c, VMBUS_PKT_GPA_DIRECT, 1, 5, e.h, sizeof(e.h), "cdb", 4));
        guest_turn(&g);
        if (a.pin_result != t[i].result)
            print_error("row %u\n", i);
        assert_int_equal(a.pin_result, t[i].result);
    }
}

static void gpadls_are_checked(void **state)
{
    guest_connect(&g);
    uint8_t m[VMBUS_MESSAGE_MAX] = {VMBUS_MSG_GPADL_HEADER};
    static const struct { uint16_t bytes, ranges; uint32_t len, offset, relid; } bad[] = {
        {0, 1, 4096, 0, 1},   {16, 0, 4096, 0, 1},  {8, 1, 4096, 0, 1},    {17, 1, 4096, 0, 1},
        {16, 2, 4096, 0, 1},  {16, 1, 0, 0, 1},     {16, 1, 4096, 4096, 1}, {16, 1, 4096, 1, 1},
        {24, 1, 4096, 0, 1},  {16, 1, 4096, 0, 9},  {16, 1, 4096, 0, 0},    {16, 1, UINT32_MAX, 0, 1},
        {16, 65535, 4096, 0, 1},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        put_le32(m + MSG_RELID, bad[i].relid);
        put_le32(m + GPADL_HANDLE, 100 + i);
        put_le16(m + GPADL_RANGE_BYTES, bad[i].bytes);
        put_le16(m + GPADL_RANGE_COUNT, bad[i].ranges);
        put_le32(m + GPADL_RANGES, bad[i].len);
        put_le32(m + GPADL_RANGES + 4, bad[i].offset);
        guest_post(&g, m, 20 + 24);
        const uint8_t *r = guest_next(&g);
        if (!r || get_le32(r + GPADL_STATUS) == 0)
            print_error("row %u\n", i);
        assert_non_null(r);
        assert_int_not_equal(get_le32(r + GPADL_STATUS), 0);
    }
    /* Bodies that nothing waits for, and more bytes than were announced. */
    guest_post_words(&g, VMBUS_MSG_GPADL_BODY, 240, 0, 12345, 0);
    assert_null(guest_next(&g));
    uint32_t h = guest_gpadl(&g, 1, guest_pages(&g, 1000), 1000);
    assert_int_not_equal(h, 0);
    guest_post_words(&g, VMBUS_MSG_GPADL_BODY, 240, 0, h, 0);
    assert_null(guest_next(&g));
    guest_post_words(&g, VMBUS_MSG_GPADL_TEARDOWN, 16, 1, h, 0);
    guest_expect(&g, VMBUS_MSG_GPADL_TORNDOWN);
    guest_post_words(&g, VMBUS_MSG_GPADL_TEARDOWN, 16, 1, h, 0);
    assert_null(guest_next(&g));
    /* There is an end to them. */
    unsigned n = 0;
    while (guest_gpadl(&g, 1, 0x100000, 1) && n < 100000) {
        n++;
        g.ins = g.taken = 0;
    }
    assert_in_range(n, 1000, 4096);
}

static void opens_are_checked(void **state)
{
    guest_connect(&g);
    gpa_t p = guest_pages(&g, 8);
    uint32_t h = guest_gpadl(&g, 1, p, 8), other = guest_gpadl(&g, 2, p, 8);
    uint32_t outside = guest_gpadl(&g, 1, GUEST_RAM - 4096, 8);
    assert_int_not_equal(guest_open_raw(&g, 1, 999, 0, 4), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, other, 0, 4), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, outside, 0, 4), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, h, GUEST_VPS, 4), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, h, 0, 0), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, h, 0, 1), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, h, 0, 7), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, h, 0, 8), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, h, 0, UINT32_MAX), 0);
    assert_int_not_equal(guest_open_raw(&g, 5, h, 0, 4), 0);
    assert_int_equal(a.opens, 0);
    assert_int_equal(guest_open_raw(&g, 1, h, 0xFFFFFFFF, 2), 0);
    assert_int_not_equal(guest_open_raw(&g, 1, h, 0, 4), 0);      /* it is open */
    assert_int_equal(a.opens, 1);
    uint8_t d[8] = {0};
    assert_int_equal(vmbus_send(a.ch, 0, false, d, 8), 0);
    assert_int_equal(g.signals[1], 0);                            /* it wanted none */
}

static void modify_moves_the_interrupts(void **state)
{
    uint8_t d[8] = {0};
    guest_connect(&g);
    guest_open(&g, 1, 4);
    guest_post_words(&g, VMBUS_MSG_MODIFY_CHANNEL, 16, 1, 3, 0);
    assert_int_equal(get_le32(guest_expect(&g, VMBUS_MSG_MODIFY_RESPONSE) + MODIFY_STATUS), 0);
    assert_int_equal(vmbus_send(a.ch, 0, false, d, 8), 0);
    assert_int_equal(g.signal_vp, 3);
    guest_post_words(&g, VMBUS_MSG_MODIFY_CHANNEL, 16, 1, GUEST_VPS, 0);
    assert_int_not_equal(get_le32(guest_expect(&g, VMBUS_MSG_MODIFY_RESPONSE) + MODIFY_STATUS), 0);
    guest_post_words(&g, VMBUS_MSG_MODIFY_CHANNEL, 16, 2, 0, 0);
    assert_int_not_equal(get_le32(guest_expect(&g, VMBUS_MSG_MODIFY_RESPONSE) + MODIFY_STATUS), 0);
}

static void a_rescinded_device_goes_when_the_guest_lets_go(void **state)
{
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 4);
    vmbus_withdraw(a.ch);
    assert_int_equal(a.closes, 1);
    assert_int_equal(get_le32(guest_expect(&g, VMBUS_MSG_RESCIND) + MSG_RELID), 1);
    /* Its instance and relid are in use until then. */
    struct vmbus_offer o = {.name = "x", .class_id = class_a, .instance_id = {{0x11, 1}}};
    assert_int_equal(vmbus_offer(g.bus, &o, &x_ops, &a, &a.ch, NULL), -EEXIST);
    guest_post_words(&g, VMBUS_MSG_CLOSE, 12, 1, 0, 0);
    guest_post_words(&g, VMBUS_MSG_RELID_RELEASED, 12, 2, 0, 0);      /* not rescinded */
    guest_post_words(&g, VMBUS_MSG_RELID_RELEASED, 12, c->relid, 0, 0);
    offer(&g, &a, &class_a, 1, 0);
    guest_take_offers(&g);
    assert_int_equal(g.offers, 3);
    assert_int_equal(get_le32(g.offer[2].m + OFFER_RELID), 1);
    guest_open(&g, 1, 4);
    assert_int_equal(a.opens, 1);
}

static void a_broken_channel_is_dead_until_it_is_closed(void **state)
{
    uint8_t d[8] = {0};
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 4), *c2 = guest_open(&g, 2, 4);
    guest_set(&g, c->ring + RING_WRITE, 0x12345);
    vmbus_signal_event(g.bus, c->connection, 0);
    guest_turn(&g);
    assert_int_equal(a.closes, 1);
    assert_int_equal(g.faults, 1);
    assert_string_equal(g.fault, "x: ring indices or a packet that make no sense");
    assert_int_not_equal(guest_open_raw(&g, 1, c->gpadl, 0, 4), 0);
    /* Others do not notice. */
    guest_send(c2, 1, d, 8);
    assert_int_equal(b.packets, 1);
    guest_close(c);
    guest_open(&g, 1, 4);
    assert_int_equal(a.opens, 2);
    /* A device may find it broken too. */
    a.answer = -EPROTO;
    guest_send(&g.ch[2], 1, d, 8);
    assert_int_equal(a.closes, 2);
}

static void io_in_flight_delays_the_answer(void **state)
{
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 4);
    vmbus_channel_hold(a.ch);
    vmbus_channel_hold(a.ch);
    guest_post_words(&g, VMBUS_MSG_CLOSE, 12, 1, 0, 0);
    guest_post_words(&g, VMBUS_MSG_GPADL_TEARDOWN, 16, 1, c->gpadl, 0);
    assert_null(guest_next(&g));
    vmbus_channel_release(a.ch);
    assert_null(guest_next(&g));
    vmbus_channel_release(a.ch);
    guest_expect(&g, VMBUS_MSG_GPADL_TORNDOWN);
    c = guest_open(&g, 1, 4);
    vmbus_channel_hold(a.ch);
    guest_post_words(&g, VMBUS_MSG_UNLOAD, 8, 0, 0, 0);
    assert_null(guest_next(&g));
    vmbus_channel_release(a.ch);
    guest_expect(&g, VMBUS_MSG_UNLOAD_RESPONSE);
}

static void unload_and_reset_forget_everything(void **state)
{
    guest_connect(&g);
    guest_open(&g, 1, 4);
    guest_post_words(&g, VMBUS_MSG_UNLOAD, 8, 0, 0, 0);
    guest_expect(&g, VMBUS_MSG_UNLOAD_RESPONSE);
    assert_int_equal(a.closes, 1);
    assert_int_equal(vmbus_version(g.bus), 0);
    guest_connect(&g);
    assert_int_equal(g.offers, 2);
    struct guest_channel *c = guest_open(&g, 1, 4);
    g.slot_busy = true;
    vmbus_signal_event(g.bus, c->connection, 0);
    uint8_t m[40] = {VMBUS_MSG_TL_CONNECT_REQUEST};
    vmbus_post_message(g.bus, 4, 1, m, 40);
    vmbus_pause(g.bus);
    assert_int_equal(a.quiesces, 1);
    machine_reset(g.f.m);
    assert_int_equal(a.closes, 2);
    g.slot_busy = false;
    vmbus_resume(g.bus);
    guest_turn(&g);
    assert_null(guest_next(&g));
    guest_connect(&g);
    guest_open(&g, 1, 4);
    assert_int_equal(a.opens, 3);
}

static void nothing_happens_while_paused(void **state)
{
    uint8_t d[8] = {0};
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 4);
    vmbus_pause(g.bus);
    guest_send(c, 1, d, 8);
    assert_int_equal(a.packets, 0);
    vmbus_resume(g.bus);
    guest_turn(&g);
    assert_int_equal(a.packets, 1);
}

/* Everything of the guest's goes on in another process; devices come in another order there. */
static void saved_and_loaded_channels_go_on(void **state)
{
    uint8_t d[16] = {1, 2, 3}, back[64];
    struct device_x a2, b2;
    guest_connect(&g);
    struct guest_channel *c = guest_open(&g, 1, 4);
    guest_open(&g, 2, 4);
    struct device_x sub;
    offer(&g, &sub, &class_a, 1, 1);
    guest_take_offers(&g);
    guest_open(&g, 3, 2);
    a.echo = true;
    for (unsigned i = 0; i < 100; i++) {
        guest_send(c, i, d, 16);
        guest_recv(c, NULL, NULL, back, sizeof(back));
    }
    g.slot_busy = true;
    guest_post_words(&g, VMBUS_MSG_GPADL_TEARDOWN, 16, 7, 7, 0);
    uint8_t m[40] = {VMBUS_MSG_TL_CONNECT_REQUEST};
    guest_post(&g, m, 40);
    vmbus_pause(g.bus);
    assert_int_equal(vmbus_post_message(g.bus, 4, 1, m, 40), 0);      /* on its way in */
    guest_send_raw(c, VMBUS_PKT_INBAND, 0, 777, NULL, 0, d, 16);      /* and a packet nobody has read */
    struct save_writer w;
    save_init(&w);
    machine_save(g.f.m, &w);
    assert_int_equal(save_status(&w), 0);

    guest_start(&g2);
    vmbus_pause(g2.bus);
    /* b's offer comes first, a's after the load, as sub-channels do. */
    offer(&g2, &b2, &class_b, 2, 0);
    static uint8_t ram[1 << 20];
    for (gpa_t at = 0; at < 64 * MIB; at += sizeof(ram)) {
        mem_read(g.mem, at, ram, sizeof(ram));
        mem_write(g2.mem, at, ram, sizeof(ram));
    }
    struct load_reader r;
    struct hv_error e = {0};
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, &e), 0);
    assert_int_equal(machine_load(g2.f.m, &r, &e), 0);
    offer(&g2, &a2, &class_a, 1, 0);
    assert_int_equal(vmbus_channel_relid(a2.ch), 1);
    assert_int_equal(vmbus_channel_relid(b2.ch), 2);
    assert_true(vmbus_channel_is_open(a2.ch) && vmbus_channel_is_open(b2.ch));
    assert_int_equal(a2.opens, 0);
    a2.echo = true;
    vmbus_resume(g2.bus);
    guest_turn(&g2);
    assert_int_equal(a2.packets, 1);
    assert_int_equal(a2.p.transaction, 777);
    guest_expect(&g2, VMBUS_MSG_TL_CONNECT_RESULT);
    /* The sub-channel nobody made again is taken from the guest; what came in before is answered. */
    assert_int_equal(get_le32(guest_expect(&g2, VMBUS_MSG_RESCIND) + MSG_RELID), 3);
    guest_expect(&g2, VMBUS_MSG_TL_CONNECT_RESULT);
    g2.ch[0] = g.ch[0];
    g2.ch[0].g = &g2;
    g2.version = g.version;
    uint64_t transaction;
    assert_int_equal(guest_recv(&g2.ch[0], NULL, &transaction, back, sizeof(back)), 16);
    assert_int_equal(transaction, 777);
    guest_send(&g2.ch[0], 5, d, 16);
    assert_int_equal(guest_recv(&g2.ch[0], NULL, NULL, back, sizeof(back)), 16);
    guest_close(&g2.ch[0]);

    /* Damage: every byte of the section changed, one at a time; never worse than a refusal. */
    guest_stop(&g2);
    for (size_t at = 8; at < w.out.len; at += 1 + at / 400) {
        uint8_t old = (uint8_t)w.out.buf[at];
        w.out.buf[at] = (char)(old ^ 0xFF);
        guest_start(&g2);
        vmbus_pause(g2.bus);
        struct hv_error e2 = {0};
        if (load_init(&r, w.out.buf, w.out.len, &e2) == 0 && machine_load(g2.f.m, &r, &e2) == 0) {
            vmbus_resume(g2.bus);
            guest_turn(&g2);
        }
        guest_stop(&g2);
        w.out.buf[at] = (char)old;
    }
    save_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(versions_are_negotiated),
        T(connections_and_sizes_are_checked),
        T(offers_come_once_and_carry_what_drivers_want),
        T(a_busy_slot_keeps_messages_in_order),
        T(a_guest_that_takes_nothing_is_slowed_down),
        T(packets_go_both_ways),
        T(a_burst_is_drained_whatever_its_size),
        T(a_device_that_is_busy_gets_its_packet_again),
        T(room_is_waited_for),
        T(the_guests_wait_for_room_is_ended),
        T(gpa_direct_pages_are_pinned_and_written),
        T(gpadls_are_checked),
        T(opens_are_checked),
        T(modify_moves_the_interrupts),
        T(a_rescinded_device_goes_when_the_guest_lets_go),
        T(a_broken_channel_is_dead_until_it_is_closed),
        T(io_in_flight_delays_the_answer),
        T(unload_and_reset_forget_everything),
        T(nothing_happens_while_paused),
        T(saved_and_loaded_channels_go_on),
    };
    return cmocka_run_group_tests_name("vmbus/vmbus", tests, NULL, NULL);
}
