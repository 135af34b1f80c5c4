/* The ring, its readers, and typing. */
#include "hv/platform/console.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

struct watcher { struct console *c; struct console_watch w, *drop; unsigned output, room; };

static void on_output(void *arg)
{
    struct watcher *t = arg;
    t->output++;
    if (t->drop) {
        console_unwatch(t->c, t->drop);
    }
}

static void on_room(void *arg) { ((struct watcher *)arg)->room++; }

static void watch(struct watcher *t, struct console *c)
{
    *t = (struct watcher){ .c = c, .w = { on_output, on_room, t, NULL } };
    console_watch(c, &t->w);
}

static void readers_keep_their_own_position(void **state)
{
    struct fake f;
    struct console *c;
    char buf[16];
    uint64_t a = 0, b = 0, lost = 0;
    fake_start(&f);
    assert_int_equal(console_new(&f.loop, &c), 0);
    assert_int_equal(console_read(c, &a, buf, sizeof(buf), &lost), 0);
    console_put(c, "hello", 5);
    assert_int_equal(console_read(c, &a, buf, 3, &lost), 3);
    assert_memory_equal(buf, "hel", 3);
    console_put(c, " you", 4);
    assert_int_equal(console_read(c, &a, buf, sizeof(buf), &lost), 6);
    assert_memory_equal(buf, "lo you", 6);
    assert_int_equal(console_read(c, &b, buf, sizeof(buf), &lost), 9);
    assert_int_equal(a, 9);
    assert_int_equal(b, 9);
    assert_int_equal(lost, 0);
    a = 1000;                                   /* not there yet */
    assert_int_equal(console_read(c, &a, buf, sizeof(buf), &lost), 0);
    assert_int_equal(a, 9);
    console_free(c);
    fake_stop(&f);
}

/* Against the simplest model there is: an array of everything ever written. */
static void slow_reader_loses_the_oldest(void **state)
{
    struct fake f;
    struct console *c;
    static uint8_t all[3 * 256 * 1024 + 4096], out[256 * 1024];
    size_t len = 0;
    uint64_t pos = 100, lost = 0;
    uint32_t seed = 12345;
    fake_start(&f);
    assert_int_equal(console_new(&f.loop, &c), 0);
    while (len + 4096 < sizeof(all)) {
        seed = seed * 1664525 + 1013904223;
        size_t n = seed >> 8 & 4095;
        for (size_t i = 0; i < n; i++) {
            all[len + i] = (uint8_t)((len + i) * 31 >> 3);
        }
        console_put(c, all + len, n);
        len += n;
        assert_int_equal(console_end(c), len);
    }
    assert_int_equal(console_start(c), len - CONSOLE_RING_SIZE);
    size_t got = console_read(c, &pos, out, sizeof(out), &lost);
    assert_int_equal(got, CONSOLE_RING_SIZE);
    assert_int_equal(lost, len - CONSOLE_RING_SIZE - 100);
    assert_int_equal(pos, len);
    assert_memory_equal(out, all + len - CONSOLE_RING_SIZE, CONSOLE_RING_SIZE);
    /* One put of more than the ring keeps its tail. */
    console_put(c, all, CONSOLE_RING_SIZE + 77);
    pos = console_start(c);
    assert_int_equal(console_read(c, &pos, out, sizeof(out), NULL), CONSOLE_RING_SIZE);
    assert_memory_equal(out, all + 77, CONSOLE_RING_SIZE);
    console_free(c);
    fake_stop(&f);
}

static void output_is_announced_once_a_turn(void **state)
{
    struct fake f;
    struct console *c;
    struct watcher a, b;
    fake_start(&f);
    assert_int_equal(console_new(&f.loop, &c), 0);
    watch(&a, c);
    watch(&b, c);
    for (int i = 0; i < 1000; i++) {
        console_put(c, "x", 1);
    }
    assert_int_equal(f.posted, 1);
    fake_turn(&f);
    assert_int_equal(a.output, 1);
    assert_int_equal(b.output, 1);
    assert_int_equal(a.room, 0);
    fake_turn(&f);
    assert_int_equal(a.output, 1);
    console_put(c, "y", 1);
    fake_turn(&f);
    assert_int_equal(a.output, 2);
    console_free(c);
    fake_stop(&f);
}

static void watchers_may_go_while_told(void **state)
{
    for (unsigned who = 0; who < 3; who++) {   /* the one told first drops itself, the next, the last */
        struct fake f;
        struct console *c;
        struct watcher t[3];
        fake_start(&f);
        assert_int_equal(console_new(&f.loop, &c), 0);
        for (int i = 2; i >= 0; i--) {
            watch(&t[i], c);                   /* told in order 0, 1, 2 */
        }
        t[0].drop = &t[who].w;
        console_put(c, "x", 1);
        fake_turn(&f);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(t[i].output, i == 0 || i != who);
        }
        t[0].drop = NULL;
        console_put(c, "x", 1);
        fake_turn(&f);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(t[i].output, 1 + (i != who) - (i == who && i != 0));
        }
        console_free(c);
        fake_stop(&f);
    }
}

static void count(void *dev) { ++*(unsigned *)dev; }

static void typing_has_back_pressure(void **state)
{
    struct fake f;
    struct console *c;
    struct watcher t;
    static uint8_t text[CONSOLE_QUEUE_SIZE + 100];
    unsigned ready = 0;
    fake_start(&f);
    assert_int_equal(console_new(&f.loop, &c), 0);
    watch(&t, c);
    console_set_device(c, count, &ready);
    for (unsigned i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t)(i * 7);
    }
    assert_int_equal(console_take(c), -1);
    assert_int_equal(console_input(c, text, sizeof(text)), CONSOLE_QUEUE_SIZE);
    assert_int_equal(ready, 1);
    assert_int_equal(console_input(c, text, 1), 0);
    assert_false(console_break(c));
    assert_int_equal(ready, 1);
    for (unsigned i = 0; i < CONSOLE_QUEUE_SIZE; i++) {
        assert_int_equal(console_take(c), text[i]);
        fake_turn(&f);
        assert_int_equal(t.room, i + 1 >= CONSOLE_QUEUE_SIZE / 2);   /* once, at half */
    }
    assert_int_equal(console_take(c), -1);
    assert_true(console_break(c));
    assert_int_equal(console_input(c, "\xff", 1), 1);
    assert_int_equal(console_take(c), CONSOLE_BREAK);
    assert_int_equal(console_take(c), 0xFF);
    fake_turn(&f);
    assert_int_equal(t.room, 1);
    assert_int_equal(t.output, 0);
    console_free(c);
    fake_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_keep_their_own_position),
        cmocka_unit_test(slow_reader_loses_the_oldest),
        cmocka_unit_test(output_is_announced_once_a_turn),
        cmocka_unit_test(watchers_may_go_while_told),
        cmocka_unit_test(typing_has_back_pressure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
