/* The synthetic keyboard: start, keys, a driver that goes, and packets that make no sense. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "hv/vsp/keyboard.h"
#include "tests/unit/vmbus/guest.h"

static struct guest g;
static struct keyboard *k;

static int setup(void **state)
{
    guest_start(&g);
    assert_int_equal(keyboard_new(g.bus, &k, NULL), 0);
    guest_connect(&g);
    return 0;
}

static int teardown(void **state)
{
    keyboard_free(k);
    guest_stop(&g);
    return 0;
}

static uint32_t ask(struct guest_channel *c, uint32_t version)
{
    uint8_t m[64] = {1};
    put_le32(m + 4, version);
    guest_send(c, 1, m, 8);
    assert_int_equal(guest_recv(c, NULL, NULL, m, sizeof(m)), 8);
    assert_int_equal(get_le32(m), 2);
    return get_le32(m + 4);
}

static void keys_reach_the_guest(void **state)
{
    static const struct { uint16_t make; bool e0, e1, down; uint32_t info; } t[] = {
        {0x1E, 0, 0, 1, 0}, {0x1E, 0, 0, 0, 2}, {0x1D, 1, 0, 1, 4}, {0x1D, 1, 0, 0, 6}, {0x1D, 0, 1, 1, 8}};
    uint8_t m[64];
    assert_int_equal(keyboard_key(k, 1, false, false, true), -ENOTCONN);
    struct guest_channel *c = guest_open(&g, 1, 9);
    assert_false(keyboard_ready(k));
    assert_int_equal(ask(c, 0x00020000), 0);
    assert_false(keyboard_ready(k));
    assert_int_equal(ask(c, 0x00010000), 1);
    assert_true(keyboard_ready(k));
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        assert_int_equal(keyboard_key(k, t[i].make, t[i].e0, t[i].e1, t[i].down), 0);
        assert_int_equal(guest_recv(c, NULL, NULL, m, sizeof(m)), 16);
        assert_int_equal(get_le32(m), 3);
        assert_int_equal(get_le16(m + 4), t[i].make);
        assert_int_equal(get_le32(m + 8), t[i].info);
    }
    unsigned n = 0;
    while (keyboard_key(k, 2, false, false, true) == 0)
        n++;
    assert_true(n > 500);
    while (guest_recv(c, NULL, NULL, m, sizeof(m)) > 0)
        n--;
    assert_int_equal(n, 0);
    assert_int_equal(keyboard_key(k, 2, false, false, true), 0);
    guest_close(c);
    assert_false(keyboard_ready(k));
    c = guest_open(&g, 1, 9);
    memset(m, 9, sizeof(m));
    guest_send(c, 1, m, 8);
    assert_int_equal(g.faults, 1);
    assert_int_equal(keyboard_key(k, 2, false, false, true), -ENOTCONN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(keys_reach_the_guest, setup, teardown)};
    return cmocka_run_group_tests_name("vsp/keyboard", tests, NULL, NULL);
}
