/*
 * The board under a hostile guest: the input is a program of port and MMIO accesses of any
 * width, time that passes, typing, interrupt acknowledgements, resets, and moves of the
 * whole state. Checked besides memory safety: a state that can be reached is accepted by
 * load, and saving what was loaded gives the same bytes. Damaged states must be refused or
 * lead to a board that is as safe as any.
 *
 * clang -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE tests/fuzz/fuzz_platform.c
 * with the archives of base, machine and platform; tests/unit/platform/test_platform.c runs
 * it with a fixed seed.
 */
#include "hv/platform/console.h"
#include "hv/platform/pic.h"
#include "hv/platform/platform.h"
#include "tests/unit/machine/fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input { const uint8_t *p, *end; };

static uint32_t take(struct input *in, unsigned bytes)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < bytes && in->p < in->end; i++) {
        v |= (uint32_t)*in->p++ << i * 8;
    }
    return v;
}

static void fuzz_intr(void *arg, bool asserted) { *(bool *)arg = asserted; }

static void fuzz_route(void *arg, unsigned pin, uint64_t addr, uint32_t data, bool level, bool masked)
{
    hv_assert(pin < IOAPIC_PINS && addr >> 20 == 0xFEE);
}

struct board { struct fake f; struct platform *p; bool intr; uint64_t seen; };

static void board_start(struct board *b)
{
    *b = (struct board){ 0 };
    fake_start(&b->f);
    struct platform_config cfg = {
        .low_ram = 512 * MIB, .cpus = 2, .uarts = 2, .pm_base = 0x600, .firmware_log = true,
        .exit_port = true, .pic_intr = fuzz_intr, .ioapic_route = fuzz_route, .arg = &b->intr,
    };
    hv_assert(platform_new(b->f.m, &cfg, &b->p, NULL) == 0);
}

static void board_stop(struct board *b)
{
    fake_turn(&b->f);
    platform_free(b->p);
    fake_stop(&b->f);
}

/* Ports worth hitting; a raw port number is drawn now and then. */
static uint16_t choose_port(struct input *in)
{
    static const struct { uint16_t base; uint8_t count; } range[] = {
        { 0x3F8, 8 }, { 0x2F8, 8 }, { 0x20, 2 }, { 0xA0, 2 }, { 0x4D0, 2 }, { 0x40, 4 },
        { 0x61, 1 }, { 0x70, 2 }, { 0x60, 1 }, { 0x64, 1 }, { 0x600, 12 }, { 0x92, 1 },
        { 0xCF8, 4 }, { 0x402, 1 }, { 0x80, 1 }, { 0xF4, 4 },
    };
    uint8_t pick = (uint8_t)take(in, 1);
    if (pick == 0xFF) {
        return (uint16_t)take(in, 2);
    }
    unsigned i = pick % ARRAY_SIZE(range);
    return (uint16_t)(range[i].base + pick / ARRAY_SIZE(range) % range[i].count);
}

/* Save; load into the same board; save again. What `damage` changes only has to be safe. */
static void move_state(struct board *b, struct input *in, unsigned damage)
{
    struct save_writer w, again;
    struct load_reader r;
    machine_clock_pause(b->f.m);
    save_init(&w);
    machine_save(b->f.m, &w);
    hv_assert(save_status(&w) == 0);
    for (unsigned i = 0; i < damage; i++) {
        size_t at = take(in, 2) % w.out.len;
        w.out.buf[at] ^= (char)take(in, 1);
    }
    int n = load_init(&r, w.out.buf, w.out.len, NULL);
    n = n < 0 ? n : machine_load(b->f.m, &r, NULL);
    if (damage == 0) {
        hv_assert(n == 0);
        save_init(&again);
        machine_save(b->f.m, &again);
        hv_assert(again.out.len == w.out.len && !memcmp(again.out.buf, w.out.buf, w.out.len));
        save_fini(&again);
    } else if (n < 0) {
        machine_reset(b->f.m);
    }
    save_fini(&w);
    machine_clock_resume(b->f.m);
}

static void step(struct board *b, struct input *in)
{
    struct machine *m = b->f.m;
    uint8_t buf[64 * 4];
    uint8_t op = (uint8_t)take(in, 1);
    unsigned size = 1u << (op >> 4) % 3;
    switch (op & 15) {
    case 0: case 1: case 2: case 3: {
        uint16_t port = choose_port(in);
        fake_out(&b->f, port, size, take(in, size));
        break;
    }
    case 4: case 5: case 6: fake_in(&b->f, choose_port(in), size); break;
    case 7: {
        uint16_t port = choose_port(in);
        uint32_t count = take(in, 1) % 65;
        for (unsigned i = 0; i < sizeof(buf); i++) {
            buf[i] = (uint8_t)(op * i);
        }
        machine_pio_out(m, port, size, buf, count);
        machine_pio_in(m, port, size, buf, count);
        break;
    }
    case 8: case 9: {
        gpa_t at = IOAPIC_BASE + (op & 0x80 ? take(in, 2) % 0x1010 : (op & 0x40 ? 0x10 : 0));
        put_le32(buf, take(in, 4));
        put_le32(buf + 4, 0);
        machine_mmio_write(m, at, buf, 1 + (op >> 4) % 8);
        break;
    }
    case 10: machine_mmio_read(m, IOAPIC_BASE + take(in, 1), buf, 1 + (op >> 4) % 8); break;
    case 11: fake_advance(&b->f, take(in, 3)); break;
    case 12: fake_stall(&b->f, (uint64_t)take(in, 4) << (op >> 4)); break;
    case 13: {
        struct console *c = platform_console(b->p);
        if (op & 0x80) {
            console_break(c);
        }
        console_input(c, "abcdefghijklmnopqrstuvwxyz0123456789", take(in, 1) % 37);
        console_read(c, &b->seen, buf, sizeof(buf), NULL);
        break;
    }
    case 14:
        if (op & 0x10) {
            int vector = platform_extint_ack(b->p);
            hv_assert(vector >= -1 && vector <= 0xFF);
        } else if (op & 0x20) {
            platform_eoi(b->p, take(in, 1) % IOAPIC_PINS);
        } else if (op & 0x40) {
            platform_power_button(b->p);
        } else {
            machine_irq_set(m, 10, op & 0x80);
        }
        break;
    case 15:
        if (op >> 4 == 15) {
            machine_reset(m);
        } else {
            move_state(b, in, op >> 4 < 4 ? op >> 4 : 0);
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct input in = { data, data + len };
    static struct board b;
    board_start(&b);
    while (in.p < in.end) {
        step(&b, &in);
    }
    move_state(&b, &in, 0);
    board_stop(&b);
    return 0;
}
