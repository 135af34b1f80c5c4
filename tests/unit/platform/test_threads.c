/*
 * Two vCPU threads and the loop at once, on a real loop: nothing sent or typed is lost or
 * reordered, the timer ticks meanwhile, and (under ThreadSanitizer) nobody races.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "hv/base/endian.h"
#include "hv/platform/console.h"
#include "hv/platform/platform.h"
#include "hv/platform/uart.h"
#include "hv/rpc/loop_uv.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#define SENT  60000u              /* by each vCPU; together less than the ring keeps */
#define TYPED 60000u
#define DEADLINE (60 * NS_PER_SEC)

struct board {
    struct loop *loop;
    struct machine *m;
    struct platform *p;
    struct loop_post done;
    struct loop_timer *timer;
    struct console_watch watch;
    _Atomic unsigned running, received, ticks, intr;
    /* loop thread */
    unsigned typed;
    uint64_t pos;
    unsigned next[2], seen, lost;
    bool disorder;
};
struct cpu { struct board *b; unsigned id; bool disorder; };

static void out8(struct board *b, uint16_t port, uint8_t v) { machine_pio_out(b->m, port, 1, &v, 1); }

static uint8_t in8(struct board *b, uint16_t port)
{
    uint8_t v;
    machine_pio_in(b->m, port, 1, &v, 1);
    return v;
}

/* vCPU id sends 0..127 or 128..255 over and over; vCPU 0 reads what is typed as well. */
static void *cpu_main(void *arg)
{
    struct cpu *c = arg;
    struct board *b = c->b;
    unsigned sent = 0, got = 0;
    uint64_t end = hv_now_ns() + DEADLINE;
    while ((sent < SENT || (c->id == 0 && got < TYPED)) && hv_now_ns() < end) {
        if (sent < SENT) {
            out8(b, 0x3F8, (uint8_t)(c->id * 128 + sent++ % 128));
        }
        if (c->id == 0 && (in8(b, 0x3FD) & 1)) {
            c->disorder |= in8(b, 0x3F8) != got++ % 251;
        }
        switch (sent % 16) {
        case 0: in8(b, 0x61); break;
        case 1: in8(b, 0x40); break;
        case 2: out8(b, 0x70, 0x0C), in8(b, 0x71); break;
        case 3: if (platform_extint_ack(b->p) >= 0) out8(b, 0x20, 0x20); break;
        case 4: platform_eoi(b->p, 9); break;
        case 5: in8(b, 0x3FA); break;
        case 6: in8(b, 0x408); break;
        case 7: out8(b, 0x43, 0x34), out8(b, 0x40, 0), out8(b, 0x40, (uint8_t)(4 + c->id)); break;
        }
    }
    atomic_store(&b->received, MAX(got, atomic_load(&b->received)));
    if (atomic_fetch_sub(&b->running, 1) == 1) {
        loop_post(b->loop, &b->done);
    }
    return NULL;
}

static void on_output(void *arg)
{
    struct board *b = arg;
    uint8_t buf[4096];
    uint64_t lost = 0;
    for (size_t n; (n = console_read(platform_console(b->p), &b->pos, buf, sizeof(buf), &lost)) > 0;) {
        for (size_t i = 0; i < n; i++) {
            unsigned id = buf[i] / 128;
            b->disorder |= buf[i] % 128 != b->next[id];
            b->next[id] = (b->next[id] + 1) % 128;
        }
        b->seen += (unsigned)n;
    }
    b->lost += (unsigned)lost;
}

static void type(void *arg)
{
    struct board *b = arg;
    while (b->typed < TYPED) {
        uint8_t c = (uint8_t)(b->typed % 251);
        if (!console_input(platform_console(b->p), &c, 1)) {
            break;   /* `room` comes */
        }
        b->typed++;
    }
}

static void tick(void *arg)
{
    struct board *b = arg;
    type(b);
    platform_power_button(b->p);
    loop_timer_set(b->loop, b->timer, hv_now_ns() + NS_PER_MS);
}

static void stop(void *arg) { loop_uv_stop(((struct board *)arg)->loop); }
static void on_event(void *arg, enum machine_event ev) {}
static void on_msi(void *arg, uint64_t addr, uint32_t data) { atomic_fetch_add(&((struct board *)arg)->ticks, 1); }
static void on_intr(void *arg, bool asserted) { atomic_fetch_add(&((struct board *)arg)->intr, 1); }

static void vcpus_and_loop_together(void **state)
{
    static struct board b;
    struct cpu cpu[2] = { { &b, 0, false }, { &b, 1, false } };
    pthread_t thread[2];
    struct machine_hooks hooks = { .event = on_event, .msi = on_msi, .arg = &b };
    struct platform_config cfg = { .low_ram = GIB, .cpus = 2, .pic_intr = on_intr, .arg = &b };
    assert_int_equal(loop_uv_new(&b.loop), 0);
    assert_int_equal(machine_new(NULL, b.loop, &hooks, &b.m, NULL), 0);
    assert_int_equal(platform_new(b.m, &cfg, &b.p, NULL), 0);
    assert_int_equal(loop_timer_new(b.loop, tick, &b, &b.timer), 0);
    b.done = (struct loop_post){ .fn = stop, .arg = &b };
    b.watch = (struct console_watch){ on_output, type, &b, NULL };
    console_watch(platform_console(b.p), &b.watch);
    machine_clock_resume(b.m);
    static const struct { uint16_t port; uint8_t val; } seq[] = {
        { 0x20, 0x11 }, { 0x21, 0x30 }, { 0x21, 0x04 }, { 0x21, 0x01 }, { 0x21, 0x00 },
        { 0x43, 0x34 }, { 0x40, 0x00 }, { 0x40, 0x04 }, { 0x70, 0x0B }, { 0x71, 0x42 },
        { 0x3FA, 0x81 }, { 0x3FB, 0x03 }, { 0x3FC, 0x0B }, { 0x3F9, 0x07 }, { 0x403, 0x01 },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(seq); i++) {
        out8(&b, seq[i].port, seq[i].val);
    }
    static const uint8_t rte[][2][4] = {
        { { 0x14 }, { 0x30 } }, { { 0x18 }, { 0x34 } }, { { 0x20 }, { 0x38 } }, { { 0x22 }, { 0x39, 0x80 } },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rte); i++) {
        machine_mmio_write(b.m, IOAPIC_BASE, rte[i][0], 4);
        machine_mmio_write(b.m, IOAPIC_BASE + 0x10, rte[i][1], 4);
    }
    loop_timer_set(b.loop, b.timer, 0);
    atomic_store(&b.running, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, cpu_main, &cpu[i]), 0);
    }
    loop_uv_run(b.loop);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
    }
    on_output(&b);
    assert_int_equal(b.seen, 2 * SENT);
    assert_int_equal(b.lost, 0);
    assert_false(b.disorder);
    assert_int_equal(b.received, TYPED);
    assert_false(cpu[0].disorder);
    assert_true(b.ticks > 0);
    assert_true(b.intr > 0);
    loop_timer_free(b.loop, b.timer);
    platform_free(b.p);
    machine_free(b.m);
    loop_uv_free(b.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(vcpus_and_loop_together) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
