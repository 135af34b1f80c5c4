/*
 * A whole VM under a hostile guest: the input is seeds, and each seed is one guest of random
 * machine code, registers, page tables, descriptor tables and interrupt gates, in real, protected
 * and 64-bit mode on two vCPUs, with the whole board attached. While it runs for a few
 * milliseconds the host does what hosts do: types, pauses, resets, presses the button, writes
 * guest memory, switches the dirty log, moves the whole state to another VM.
 *
 * Checked: nothing crashes or asserts, and no guest keeps the host from stopping it: every call
 * returns within STUCK_S seconds, or the process is ended with the seed on stderr.
 *
 * tests/unit/engine_soft/test_hostile.c runs it with fixed seeds. What other threads do in the
 * same microseconds is not part of the seed, so that a run with it repeats most but not all.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"
#include "hv/platform/console.h"
#include "hv/rpc/loop_uv.h"
#include "hv/vm/vm_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define STUCK_S   20u
#define SLICE_NS  (2 * NS_PER_MS)
#define RAM_BYTES (32 * MIB)

/* Where things are in guest memory. */
#define G_GDT    0x1000ull
#define G_IDT    0x2000ull
#define G_TABLES 0x10000ull               /* PML4, PDPT, 4 page directories, 4 page tables */
#define G_PT     (G_TABLES + 6 * HV_PAGE_SIZE)
#define G_CODE   0x100000ull
#define CODE_LEN 0x4000u
#define G_STACK  0x180000ull

static struct {
    struct loop *loop;
    struct loop_timer *timer;
    struct settings settings;
    struct vm *vm;
    int kernel;
    uint64_t rng, seed;
} z;

/* ---- random numbers: splitmix64 ---- */

static uint64_t rnd(void)
{
    uint64_t x = (z.rng += 0x9e3779b97f4a7c15ull);
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}
static unsigned below(unsigned n) { return (unsigned)(rnd() % n); }
static bool one_in(unsigned n) { return below(n) == 0; }

/* An address that somebody may have forgotten about. */
static uint64_t address(void)
{
    static const uint64_t base[] = {
        G_GDT, G_IDT, G_TABLES, G_PT, G_CODE, G_CODE + CODE_LEN, G_STACK, RAM_BYTES, 0, 0xa0000, 0xfec00000, 0xfee00000,
        0xfee000b0, 0xfee00300, 0x100000000, 0x7ffffffff000, 0x800000000000, 0xffff800000000000, 0x200000, 0x400000,
        0x40000000, 0xe0000000, 0xffff, 0x10000,
    };
    uint64_t a = base[below(ARRAY_SIZE(base))] + (uint64_t)((int)below(3) - 1) * HV_PAGE_SIZE;
    switch (below(4)) {
    case 0: return a - below(64);
    case 1: return a + below(HV_PAGE_SIZE);
    case 2: return a + below(64);
    default: return one_in(8) ? rnd() : a;
    }
}

/* ---- guest code ---- */

static unsigned imm(uint8_t *p, uint64_t v, unsigned len)
{
    put_le64(p, v);
    return len;
}

/* One instruction, or bytes that may be one. Returns its length, at most 40. */
static unsigned instruction(uint8_t *p)
{
    static const char *const fixed[] = {
        "\xf3\xa4", "\xf3\xa5", "\xf3\xaa", "\xf3\xab", "\xf2\xae", "\xf3\xa6", "\xf3\xac", "\xf3\x6c", "\xf3\x6d",
        "\xf3\x6e", "\xf3\x6f", "\xf3\x48\xa5", "\xf3\x48\xab", "\xfd", "\xfc", "\xfb", "\xfa", "\xf4", "\x8e\xd0",
        "\x8e\xd8", "\x8e\xc0", "\x8e\xe0", "\x17", "\x0f\x01\x38", "\x0f\x01\x10", "\x0f\x01\x18", "\x0f\x22\xd8",
        "\x0f\x22\xc0", "\x0f\x22\xe0", "\x0f\x20\xc0", "\x0f\x20\xd8", "\x0f\x23\xf8", "\x0f\x23\xc0", "\x0f\x30",
        "\x0f\x32", "\x0f\xa2", "\x0f\x31", "\xcf", "\x48\xcf", "\xcb", "\xc3", "\x9d", "\x9c", "\x60", "\x61", "\xc9",
        "\x0f\x05", "\x0f\x07", "\x48\x0f\x07", "\x0f\x34", "\x0f\x35", "\xff\x28", "\xff\x18", "\x0f\xae\x07",
        "\x0f\xae\x0f", "\x0f\xae\x27", "\x0f\xae\x2f", "\xdd\x37", "\xdd\x27", "\xd9\x37", "\xd9\x27", "\x0f\x01\xd1",
        "\xf0\x0f\xc7\x0f", "\xf0\x48\x0f\xc7\x0f", "\xf0\x0f\xb1\x0f", "\xf0\x0f\xc1\x07", "\xf0\x48\x01\x07",
        "\x0f\xab\x07", "\x0f\xbb\x07", "\xee", "\xef", "\xec", "\xed", "\x0f\x00\xd8", "\x0f\x00\xd0", "\x0f\x09",
        "\x66\x0f\x6f\x07", "\x66\x0f\x7f\x07", "\x66\x0f\xf7\xc1", "\x0f\x38\xf0\x07", "\xdb\x2f", "\xdb\x3f",
        "\xcc", "\xf1", "\xce", "\x0f\x0b", "\x0f\x01\xca", "\x0f\x01\xcb", "\x0f\x01\xf8", "\x0f\x06", "\x9b",
    };
    static const uint16_t port[] = {
        0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x40, 0x42, 0x43, 0x61, 0x60, 0x64, 0x70, 0x71, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc,
        0x2f8, 0x600, 0x601, 0x604, 0x608, 0x92, 0xcf8, 0xcf9, 0xcfc, 0x80, 0xed, 0xea, 0xffff,
    };
    static const uint32_t msr[] = {
        0x10, 0x1b, 0x3b, 0x48, 0x6e0, 0x800, 0x802, 0x808, 0x80b, 0x80f, 0x828, 0x830, 0x832, 0x838, 0x83e, 0x83f, 0x1a0,
        0x174, 0x175, 0x176, 0x200, 0x277, 0x2ff, 0x400, 0x40000000, 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000100,
        0xc0000101, 0xc0000102, 0xc0000103, 0xda0,
    };
    unsigned n = 0;
    switch (below(16)) {
    case 0: case 1: case 2: {              /* any bytes */
        unsigned len = 1 + below(15);
        for (unsigned i = 0; i < len; i++)
            p[i] = (uint8_t)rnd();
        return len;
    }
    case 3: case 4: case 5: case 6: {
        if (one_in(4))
            p[n++] = "\x66\x67\x2e\x36\x64\x65\xf0\x48"[below(8)];
        const char *f = fixed[below(ARRAY_SIZE(fixed))];
        do                                 /* no opcode here ends in a zero byte but those of two */
            p[n++] = (uint8_t)*f++;
        while (*f);
        return n;
    }
    case 7: case 8: case 9:                /* mov r32, imm32 or r64, imm64 */
        if (one_in(2)) {
            p[n++] = 0x48;
            p[n++] = (uint8_t)(0xb8 | below(8));
            return n + imm(p + n, address(), 8);
        }
        p[n++] = (uint8_t)(0xb8 | below(8));
        return n + imm(p + n, address(), 4);
    case 10:                               /* mov ecx, small */
        p[n++] = 0xb9;
        return n + imm(p + n, one_in(4) ? rnd() : below(20000), 4);
    case 11:                               /* mov dx, port; in or out, maybe of strings */
        p[n++] = 0x66;
        p[n++] = 0xba;
        n += imm(p + n, port[below(ARRAY_SIZE(port))], 2);
        if (one_in(3))
            p[n++] = 0xf3;
        p[n++] = "\xec\xed\xee\xef\x6c\x6d\x6e\x6f"[below(8)];
        return n;
    case 12:                               /* mov ecx, msr; wrmsr or rdmsr */
        p[n++] = 0xb9;
        n += imm(p + n, msr[below(ARRAY_SIZE(msr))] + (one_in(4) ? below(16) : 0), 4);
        p[n++] = 0x0f;
        p[n++] = one_in(3) ? 0x32 : 0x30;
        return n;
    case 13: case 14:                      /* op [rdi + disp32], with register or immediate of one byte */
        if (one_in(2))
            p[n++] = 0x48;
        p[n++] = (uint8_t)below(0x40);
        p[n++] = (uint8_t)(0x80 | below(8) << 3 | (one_in(2) ? 7 : 6));
        return n + imm(p + n, (uint64_t)((int)below(0x2000) - 0x1000), 4);
    default:                               /* jump: short, near, conditional */
        if (one_in(2)) {
            p[n++] = one_in(2) ? 0xeb : (uint8_t)(0x70 | below(16));
            p[n++] = (uint8_t)rnd();
            return n;
        }
        p[n++] = one_in(2) ? 0xe9 : 0xe8;
        return n + imm(p + n, (uint64_t)((int)below(CODE_LEN) - (int)CODE_LEN / 2), 4);
    }
}

static void make_code(uint8_t *code, unsigned len)
{
    uint8_t one[48] = {0};
    for (unsigned at = 0; at < len;) {
        const unsigned n = instruction(one), part = MIN(n, len - at);
        memcpy(code + at, one, part);
        at += part;
    }
}

/* ---- guest memory ---- */

static void put64(gpa_t gpa, uint64_t v)
{
    uint8_t b[8];
    put_le64(b, v);
    (void)mem_write(vm_mem(z.vm), gpa, b, sizeof(b));
}

static void make_tables(unsigned width)
{
    const uint64_t top = width == 64 ? G_TABLES : 0;
    uint64_t pd = G_TABLES + 2 * HV_PAGE_SIZE;
    if (top)
        put64(G_TABLES, (G_TABLES + HV_PAGE_SIZE) | 7);
    for (unsigned i = 0; i < 4; i++)
        put64(G_TABLES + HV_PAGE_SIZE + 8 * i, (pd + i * HV_PAGE_SIZE) | (top ? 7 : 1));
    for (unsigned i = 0; i < 2048; i++)
        put64(pd + 8 * i, (uint64_t)i << 21 | 0x87);
    /* Four of the first 16 MiB in small pages, some of them at strange places. */
    for (unsigned i = 0; i < 4; i++) {
        put64(pd + 8 * (i < 2 ? i : 2 + below(6)), (G_PT + i * HV_PAGE_SIZE) | 7);
        for (unsigned k = 0; k < 512; k++) {
            uint64_t to = (uint64_t)i << 21 | (uint64_t)k << 12;
            put64(G_PT + i * HV_PAGE_SIZE + 8 * k, to | 7 | (one_in(3) ? 0x100 : 0));
        }
    }
    if (one_in(4))                         /* shared upper half */
        put64(G_TABLES + 8 * (256 + below(256)), one_in(2) ? G_TABLES | 7 : (G_TABLES + HV_PAGE_SIZE) | 7);
    for (unsigned n = below(40); n > 0; n--) {
        uint64_t bits = one_in(3) ? rnd() & 0xfff : 7 | (rnd() & 0x1e0);
        put64(G_TABLES + 8 * below(10 * 512), (address() & HV_PAGE_MASK & 0x3fffffffffffull) | bits |
                                                  (one_in(10) ? rnd() & 0xfff0000000000000ull : 0));
    }
}

static void make_gates(unsigned width)
{
    static const uint8_t type[] = {0xe, 0xf, 0xe, 0xf, 0xe, 5, 6, 0xc};
    for (unsigned i = 0; i < 256; i++) {
        uint64_t to = G_CODE + below(CODE_LEN);
        unsigned attr = 0x80 | (one_in(2) ? 0x60 : 0) | (one_in(8) ? type[below(sizeof(type))] : 0xe);
        uint64_t v = (to & 0xffff) | 0x10ull << 16 | (uint64_t)attr << 40 | (to >> 16 & 0xffff) << 48;
        if (one_in(64))
            v ^= 1ull << below(64);
        if (width == 64) {
            put64(G_IDT + 16 * i, v | (uint64_t)(one_in(4) ? below(8) : 0) << 32);
            put64(G_IDT + 16 * i + 8, one_in(64) ? rnd() : 0);
        } else {
            put64(G_IDT + 8 * i, v);
        }
    }
    const uint64_t desc[] = {
        0, 0, width == 64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull, 0x00cf93000000ffffull, 0x00cf9b000000ffffull,
        0x00cff3000000ffffull, width == 64 ? 0x00affb000000ffffull : 0x00cffb000000ffffull, 0x000093000000ffffull,
        0x0000890018000067ull, 0, 0x00cf97000000ffffull, 0x000085000028ffffull, 0x00009b000000ffffull,
    };
    for (unsigned i = 0; i < 32; i++)
        put64(G_GDT + 8 * i, i < ARRAY_SIZE(desc) && !one_in(20) ? desc[i] : rnd());
    for (unsigned i = 0; i < 16; i++)      /* TSS at 0x1800 */
        put64(G_GDT + 0x800 + 8 * i, one_in(3) ? address() : G_STACK + 0x1000 * i);
}

/* ---- registers ---- */

static struct vcpu_seg flat(uint16_t sel, uint32_t attr)
{
    return (struct vcpu_seg){ .limit = UINT32_MAX, .attr = attr, .sel = sel };
}

static void make_regs(struct vm *vm, unsigned vp, unsigned width)
{
    const struct engine_ops *ops = vm->engine->ops;
    struct vcpu *v = vm->vcpu[vp].vcpu;
    struct vcpu_regs r;
    ops->get_regs(v, &r);
    for (unsigned i = 0; i < 16; i++)
        r.gpr[i] = width == 64 ? address() : (uint32_t)address();
    r.rip = G_CODE + below(CODE_LEN);
    r.gpr[4] = one_in(8) ? address() : G_STACK + 0x8000 * vp + below(64);
    r.rflags = 2 | (rnd() & (one_in(8) ? 0x3f7fd5 : 0x3ed5));
    r.cr0 = 0x11 | (width > 16 ? 1ull << 31 : 0) | (rnd() & 0x5002e);
    r.cr4 = 0x20 | (rnd() & 0x690);
    r.efer = width == 64 ? 0x501 | (one_in(2) ? 0x800 : 0) : one_in(2) ? 0x800 : 0;
    r.cr3 = width == 64 ? G_TABLES : G_TABLES + HV_PAGE_SIZE;
    if (width == 33) {                     /* without PAE: the directories read as two-level tables */
        r.cr3 = G_TABLES + 2 * HV_PAGE_SIZE;
        r.cr4 = 0x10;
    }
    for (unsigned i = 0; i < 6; i++)
        r.seg[i] = flat(0x18, 0xc093);
    r.seg[1] = flat(0x10, width == 64 ? 0xa09b : 0xc09b);
    if (one_in(4)) {                       /* user */
        r.seg[1] = flat(0x33, width == 64 ? 0xa0fb : 0xc0fb);
        for (unsigned i = 0; i < 6; i++)
            if (i != 1)
                r.seg[i] = flat(0x2b, 0xc0f3);
        r.rflags |= one_in(2) ? 0x3000 : 0;
    }
    if (width == 16) {
        r.cr0 = 0x10;
        r.cr4 = r.efer = 0;
        for (unsigned i = 0; i < 6; i++)
            r.seg[i] = (struct vcpu_seg){ .base = G_CODE, .limit = one_in(2) ? 0xffff : UINT32_MAX, .attr = 0x93,
                                          .sel = (uint16_t)(G_CODE >> 4) };
        r.rip = below(CODE_LEN);
    }
    for (unsigned n = one_in(3) ? below(4) : 0; n > 0; n--) {
        struct vcpu_seg *s = &r.seg[below(6)];
        s->base = one_in(2) ? (uint32_t)rnd() : below(0x2000);
        s->limit = one_in(2) ? (uint32_t)rnd() : below(0x10000);
        s->attr ^= 1u << below(17);
    }
    r.gdt_base = G_GDT;
    r.gdt_limit = (uint16_t)(one_in(4) ? rnd() : 0xff);
    r.idt_base = width == 16 ? 0 : G_IDT;
    r.idt_limit = (uint16_t)(one_in(8) ? rnd() : 0xfff);
    r.tr = (struct vcpu_seg){ .base = G_GDT + 0x800, .limit = one_in(3) ? below(0x3000) : 0x67, .attr = 0x8b, .sel = 0x40 };
    if (one_in(4)) {
        r.dr[7] = (rnd() & 0xffff00ff) | 0x400;
        for (unsigned i = 0; i < 4; i++)
            r.dr[i] = address();
    }
    r.cr8 = one_in(4) ? below(16) : 0;
    if (ops->set_regs(v, &r) == 0)         /* refused combinations leave what there was */
        ops->set_mp(v, one_in(16) ? VCPU_MP_HALTED : VCPU_MP_RUNNABLE);
}

/* ---- the host's side ---- */

static void must(int r, const struct hv_error *e)
{
    if (r < 0) {
        fprintf(stderr, "fuzz_guest: seed %#llx: %s\n", (unsigned long long)z.seed, e->message);
        abort();
    }
}

/* A bare kernel with a PVH entry, whose code is random too: what a guest that resets itself comes back to. */
static void make_kernel(void)
{
    uint8_t k[0x1000] = {0};
    static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    memcpy(k, ident, sizeof(ident));
    put_le16(k + 16, 2);
    put_le16(k + 18, 62);
    put_le32(k + 20, 1);
    put_le64(k + 24, G_CODE);
    put_le64(k + 32, 64);
    put_le16(k + 52, 64);
    put_le16(k + 54, 56);
    put_le16(k + 56, 2);
    uint8_t *ph = k + 64;
    put_le32(ph, 1);
    put_le32(ph + 4, 7);
    put_le64(ph + 8, 0x200);
    put_le64(ph + 16, G_CODE);
    put_le64(ph + 24, G_CODE);
    put_le64(ph + 32, 0xe00);
    put_le64(ph + 40, 0x2000);
    ph += 56;
    put_le32(ph, 4);
    put_le64(ph + 8, 0x180);
    put_le64(ph + 32, 20);
    put_le32(k + 0x180, 4);
    put_le32(k + 0x184, 4);
    put_le32(k + 0x188, 18);
    memcpy(k + 0x18c, "Xen", 4);
    put_le32(k + 0x190, G_CODE);
    make_code(k + 0x200, 0xe00);
    if (pwrite(z.kernel, k, sizeof(k), 0) != (ssize_t)sizeof(k))
        abort();
}

static void on_timer(void *arg) { loop_uv_stop(z.loop); }

static void run_loop(uint64_t ns)
{
    loop_timer_set(z.loop, z.timer, hv_now_ns() + ns);
    loop_uv_run(z.loop);
}

static struct vm *fresh_vm(void)
{
    struct hv_error e = {0};
    struct vm *vm;
    const struct vm_config cfg = { .name = "hostile", .settings = &z.settings, .kernel_fd = z.kernel, .initrd_fd = -1,
                                   .loop = z.loop };
    must(vm_new(&cfg, &vm, &e), &e);
    return vm;
}

/* Running or paused, whatever it was. */
static void have_vm(void)
{
    struct hv_error e = {0};
    if (z.vm && (vm_state(z.vm) == VM_OFF || one_in(200))) {
        vm_free(z.vm);
        z.vm = NULL;
    }
    if (!z.vm) {
        z.vm = fresh_vm();
        must(vm_start(z.vm, one_in(2), &e), &e);
    }
}

static void move_state(void)
{
    struct hv_error e = {0};
    struct save_writer w;
    struct load_reader r;
    if (vm_state(z.vm) == VM_RUNNING && vm_pause(z.vm, &e) < 0)
        return;
    save_init(&w);
    must(vm_save(z.vm, &w, &e), &e);
    vm_free(z.vm);
    z.vm = fresh_vm();
    must(load_init(&r, w.out.buf, w.out.len, &e), &e);
    must(vm_load(z.vm, &r, &e), &e);       /* a state that a guest can reach is one that loads */
    save_fini(&w);
}

/* While the guest runs. */
static void disturb(void)
{
    struct vm *vm = z.vm;
    const struct engine_ops *ops = vm->engine->ops;
    uint64_t bitmap[RAM_BYTES / HV_PAGE_SIZE / 64];
    uint8_t bytes[300];
    switch (below(16)) {
    case 0: (void)console_input(vm_console(vm), "hello\x03\x1b[A", 9); break;
    case 1: (void)console_break(vm_console(vm)); break;
    case 2: (void)vm_power_button(vm); break;
    case 3: (void)vm_reset(vm, NULL); break;
    case 4: (void)vm_pause(vm, NULL); break;
    case 5: (void)vm_resume(vm, NULL); break;
    case 6: case 7:
        make_code(bytes, sizeof(bytes));
        (void)mem_write(vm_mem(vm), G_CODE + below(CODE_LEN), bytes, 1 + below(sizeof(bytes)));
        break;
    case 8: (void)ops->dirty_log(vm->engine, one_in(2)); break;
    case 9: (void)ops->dirty_fetch(vm->engine, 0, RAM_BYTES / HV_PAGE_SIZE, bitmap); break;
    case 10: ops->send_msi(vm->engine, one_in(4) ? rnd() : 0xfee00000 | (rnd() & 0xfffff), (uint32_t)rnd()); break;
    case 11: ops->nmi(vm->engine, below(vm->vcpus)); break;
    case 12: ops->kick(vm->vcpu[below(vm->vcpus)].vcpu); break;
    case 13: machine_irq_set(vm_machine(vm), below(MACHINE_IRQ_LINES), one_in(2)); break;
    case 14:
        if (one_in(8))
            move_state();
        break;
    default: ops->drop_code(vm->engine, address() & 0x3ffffff, 1 + below(0x3000)); break;
    }
}

static void one_guest(uint64_t seed)
{
    static const unsigned widths[] = {64, 64, 64, 64, 32, 33, 16};
    uint8_t code[CODE_LEN];
    z.seed = z.rng = seed;
    alarm(STUCK_S);
    if (one_in(8) || !z.vm)
        make_kernel();
    have_vm();
    if (vm_state(z.vm) == VM_RUNNING)
        (void)vm_pause(z.vm, NULL);
    const unsigned width = widths[below(ARRAY_SIZE(widths))];
    make_code(code, sizeof(code));
    (void)mem_write(vm_mem(z.vm), G_CODE, code, sizeof(code));
    make_tables(width);
    make_gates(width);
    for (unsigned i = 0; i < z.vm->vcpus; i++)
        make_regs(z.vm, i, i ? widths[below(ARRAY_SIZE(widths))] : width);
    (void)vm_resume(z.vm, NULL);
    for (unsigned n = 1 + below(4); n > 0; n--) {
        run_loop(SLICE_NS / 2 + below((unsigned)SLICE_NS));
        if (vm_state(z.vm) == VM_OFF)
            break;
        disturb();
    }
    alarm(0);
}

static void stuck(int sig)
{
    char text[100];
    int n = snprintf(text, sizeof(text), "fuzz_guest: seed %#llx keeps the host waiting\n", (unsigned long long)z.seed);
    (void)!write(STDERR_FILENO, text, (size_t)n);
    abort();
}

static void set_up(void)
{
    struct hv_error e = {0};
    signal(SIGALRM, stuck);
    settings_init(&z.settings);
    must(setting_set_text(&z.settings, setting_find("memory.startup"), "32M", &e), &e);
    must(setting_set_text(&z.settings, setting_find("processor.cpus"), "2", &e), &e);
    must(setting_set_text(&z.settings, setting_find("engine"), "soft", &e), &e);
    z.kernel = memfd_create("kernel", MFD_CLOEXEC);
    must(loop_uv_new(&z.loop), &e);
    must(loop_timer_new(z.loop, on_timer, NULL, &z.timer), &e);
}

static HV_UNUSED void tear_down(void)
{
    vm_free(z.vm);
    loop_timer_free(z.loop, z.timer);
    loop_uv_free(z.loop);
    settings_fini(&z.settings);
    close(z.kernel);
    memset(&z, 0, sizeof(z));
}

/* Each eight bytes of input are one guest. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!z.loop)
        set_up();
    for (size_t i = 0; i + 8 <= MIN(len, (size_t)64); i += 8)
        one_guest(get_le64(data + i));
    return 0;
}
