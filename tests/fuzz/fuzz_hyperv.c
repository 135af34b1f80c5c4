/*
 * The Hyper-V interface under a hostile guest: the input is a program of MSR accesses,
 * hypercalls with inputs in and out of RAM, messages and events from the host while the
 * guest scribbles over the pages they land in, resets, and moves of the whole state to a
 * machine of the same or another TSC frequency. Checked besides memory safety: what a call
 * reports as done is no more than was asked for; a state that can be reached is accepted by
 * load, saves to the same bytes, and tells the same time. Damaged states must be refused or
 * lead to an interface that is as safe as any.
 *
 * make fuzz builds it for libFuzzer; tests/unit/hyperv/test_fuzz_hyperv.c runs it with a fixed seed.
 */
#include <errno.h>

#include "hv/base/units.h"
#include "hv/hyperv/hyperv.h"
#include "hv/hyperv/hyperv_proto.h"
#include "tests/unit/machine/fake.h"

#define FUZZ_RAM   (4 * MIB)
#define FUZZ_VCPUS 2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input { const uint8_t *p, *end; };

static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes && in->p < in->end; i++) {
        v |= (uint64_t)*in->p++ << i * 8;
    }
    return v;
}

/* Two machines on one memory; the guest is in side `now`. */
struct guest {
    struct fake f[2];
    struct hyperv *h[2];
    unsigned now;
    struct mem *mem;
    uint64_t tsc, result;
    struct hyperv_regs regs;
    bool answered;
    int answer;                     /* of the connections */
};

/* What happened in all runs: a test that no longer gets anywhere shows here. */
static struct { unsigned calls_ok, calls_bad, posts, signals, delivered, events, crashes, loads, refused; } fuzz_seen;

static uint64_t fuzz_tsc(void *arg, unsigned vp) { return ((struct guest *)arg)->tsc; }

static int fuzz_regs(void *arg, unsigned vp, struct hyperv_regs *ret)
{
    hv_assert(vp < FUZZ_VCPUS);
    *ret = ((struct guest *)arg)->regs;
    return 0;
}

static int fuzz_result(void *arg, unsigned vp, bool long_mode, uint64_t v)
{
    struct guest *g = arg;
    g->answered = true;
    g->result = v;
    return 0;
}

static int fuzz_post(void *arg, uint32_t connection, uint32_t type, const void *payload, uint32_t len)
{
    uint8_t copy[HV_MESSAGE_MAX];
    hv_assert(len <= sizeof(copy) && connection >> 24 == 0);
    memcpy(copy, payload, len);
    fuzz_seen.posts++;
    return ((struct guest *)arg)->answer;
}

static int fuzz_signal(void *arg, uint32_t connection, uint16_t flag)
{
    hv_assert(connection >> 24 == 0);
    fuzz_seen.signals++;
    return ((struct guest *)arg)->answer;
}

static void fuzz_crashed(void *arg, const struct hyperv_crash *c)
{
    hv_assert(memchr(c->text, 0, sizeof(c->text)));
    fuzz_seen.crashes++;
}

static void guest_start(struct guest *g)
{
    static const uint64_t hz[2] = {2300000000, 2900000123};
    *g = (struct guest){.tsc = 1};
    hv_assert(mem_new("fuzz", -1, &g->mem, NULL) == 0 && mem_add_ram(g->mem, 0, FUZZ_RAM, NULL) == 0);
    for (unsigned i = 0; i < 2; i++) {
        fake_start_mem(&g->f[i], g->mem);
        const struct hyperv_config cfg = {
            .machine = g->f[i].m, .vcpus = FUZZ_VCPUS, .phys_bits = 46, .tsc_hz = hz[i], .apic_hz = 1000000000,
            .hooks = {.read_tsc = fuzz_tsc, .get_regs = fuzz_regs, .set_result = fuzz_result, .post_message = fuzz_post,
                      .signal_event = fuzz_signal, .crashed = fuzz_crashed, .arg = g},
        };
        hv_assert(hyperv_new(&cfg, &g->h[i], NULL) == 0);
        machine_reset(g->f[i].m);
    }
}

static void guest_stop(struct guest *g)
{
    for (unsigned i = 0; i < 2; i++) {
        hyperv_free(g->h[i]);
        fake_stop(&g->f[i]);
    }
    mem_free(g->mem);
}

/* Values that mean something: pages in RAM, at its end, beyond; lengths; anything. */
static uint64_t choose(struct input *in)
{
    uint8_t pick = (uint8_t)take(in, 1);
    switch (pick >> 5) {
    case 0: case 1: return (uint64_t)(pick & 63) << 12 | 1;
    case 2: return (uint64_t)(pick & 31) << 8;
    case 3: return pick & 31;
    case 4: return FUZZ_RAM - 0x1000 * (uint64_t)(pick & 3) + (pick >> 2 & 7);
    case 5: return UINT64_MAX << (pick & 31);
    case 6: return 1ull << (pick & 31) << (pick & 31);
    default: return take(in, 8);
    }
}

static uint32_t choose_msr(struct input *in)
{
    static const uint32_t msr[] = {
        HV_MSR_GUEST_OS_ID, HV_MSR_HYPERCALL, HV_MSR_VP_INDEX, HV_MSR_RESET, HV_MSR_TIME_REF, HV_MSR_REFERENCE_TSC,
        HV_MSR_TSC_HZ, HV_MSR_APIC_HZ, HV_MSR_VP_ASSIST, HV_MSR_SCONTROL, HV_MSR_SVERSION, HV_MSR_SIEFP, HV_MSR_SIMP,
        HV_MSR_EOM, HV_MSR_CRASH_P0, HV_MSR_CRASH_P0 + 3, HV_MSR_CRASH_P0 + 4, HV_MSR_CRASH_CTL, HV_MSR_TSC_INVARIANT,
        HV_MSR_SINT0, HV_MSR_SINT0 + 2, HV_MSR_SINT0 + 15,
    };
    uint8_t pick = (uint8_t)take(in, 1);
    return pick < 2 * ARRAY_SIZE(msr) ? msr[pick % ARRAY_SIZE(msr)] : HV_MSR_FIRST + (uint32_t)take(in, 2) % HV_MSR_COUNT;
}

static void hypercall(struct guest *g, struct input *in, unsigned form)
{
    static const uint16_t codes[] = {0x5c, 0x5d, 0x8001, 0x8003};
    uint8_t pick = (uint8_t)take(in, 1);
    uint64_t control = pick < 0xf0 ? codes[pick & 3] : take(in, 2);
    control |= (uint64_t)(pick >> 2 & 1) << 16;
    if (pick >> 3 & 1) {
        control |= (take(in, 1) & 7) << 32 | (take(in, 1) & 7) << 48;
    } else if (control == 0x8003) {
        control |= 1ull << 32;
    }
    if ((pick >> 4 & 7) == 7) {
        control ^= 1ull << take(in, 1) % 64;
    }
    uint64_t a = choose(in), b = choose(in);
    a = form & 1 ? a & ~7ull : a;
    g->regs = (struct hyperv_regs){.rax = control, .rcx = control, .rdx = a, .r8 = b, .long_mode = true};
    if (form & 2) {
        g->regs = (struct hyperv_regs){.rax = control, .rdx = control >> 32, .rcx = a, .rbx = a >> 32, .rsi = b, .rdi = b >> 32};
    }
    g->answered = false;
    int r = machine_hypercall(g->f[g->now].m, form >> 2 & 1);
    hv_assert(r == (g->answered ? 0 : -ENOSYS));
    if (g->answered) {
        uint32_t status = g->result & 0xffff, done = g->result >> 32 & 0xfff, asked = control >> 32 & 0xfff;
        hv_assert(g->result >> 44 == 0 && (g->result >> 16 & 0xffff) == 0 && status <= HV_STATUS_NO_BUFFERS);
        hv_assert(done <= asked && (status != 0 || done == asked));
        *(status ? &fuzz_seen.calls_bad : &fuzz_seen.calls_ok) += 1;
    }
}

static uint64_t time_of(struct guest *g) { return hyperv_reference_time(g->h[g->now], 0); }

/* Save; load on the same side or the other; save again. What `damage` changes only has to be safe. */
static void move_state(struct guest *g, struct input *in, bool across, unsigned damage)
{
    struct save_writer w, again;
    struct load_reader r;
    uint64_t before = time_of(g);
    machine_clock_pause(g->f[g->now].m);
    save_init(&w);
    machine_save(g->f[g->now].m, &w);
    hv_assert(save_status(&w) == 0);
    for (unsigned i = 0; i < damage; i++) {
        size_t at = (size_t)take(in, 2) % w.out.len;
        w.out.buf[at] ^= (char)take(in, 1);
    }
    machine_clock_resume(g->f[g->now].m);
    g->now ^= across;
    struct machine *m = g->f[g->now].m;
    machine_clock_pause(m);
    int n = load_init(&r, w.out.buf, w.out.len, NULL);
    n = n < 0 ? n : machine_load(m, &r, NULL);
    if (damage == 0) {
        hv_assert(n == 0 && time_of(g) == before);
        save_init(&again);
        machine_save(m, &again);
        hv_assert(again.out.len == w.out.len && (across || !memcmp(again.out.buf, w.out.buf, w.out.len)));
        save_fini(&again);
        fuzz_seen.loads++;
    } else if (n < 0) {
        machine_reset(m);
        fuzz_seen.refused++;
    }
    save_fini(&w);
    machine_clock_resume(m);
}

/* A guest that has done what a driver does first: most programs want to get beyond it. */
static void set_up(struct guest *g)
{
    static const struct { uint32_t msr; uint64_t val; } first[] = {
        {HV_MSR_GUEST_OS_ID, 0x8100000000000000}, {HV_MSR_HYPERCALL, 0x1001}, {HV_MSR_REFERENCE_TSC, 0x2001},
        {HV_MSR_SIMP, 0x3001}, {HV_MSR_SIEFP, 0x4001}, {HV_MSR_SINT0 + 2, 0xf3}, {HV_MSR_SCONTROL, 1},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(first) * FUZZ_VCPUS; i++) {
        hv_assert(machine_msr_write(g->f[g->now].m, i % FUZZ_VCPUS, first[i / FUZZ_VCPUS].msr, first[i / FUZZ_VCPUS].val) == 0);
    }
}

static void step(struct guest *g, struct input *in)
{
    struct machine *m = g->f[g->now].m;
    struct hyperv *h = g->h[g->now];
    uint8_t op = (uint8_t)take(in, 1), buf[HV_MESSAGE_MAX + 1] = {op};
    unsigned vp = op >> 4 & 1;
    uint64_t v;
    switch (op & 15) {
    case 0: case 1: case 2: {
        uint32_t msr = choose_msr(in);
        uint64_t val = choose(in);
        if (machine_msr_write(m, vp, msr, val) == 0 && msr - HV_MSR_SINT0 < HV_SINTS) {
            hv_assert(machine_msr_read(m, vp, msr, &v) == 0 && v == val);
        }
        break;
    }
    case 3: (void)machine_msr_read(m, vp, choose_msr(in), &v); break;
    case 4: case 5: case 6: hypercall(g, in, op >> 4); break;
    case 7:
        fuzz_seen.delivered += hyperv_post(h, (unsigned)take(in, 1) % 3, op >> 4 & 8 ? (unsigned)take(in, 1) % 20 : 2,
                                           (uint32_t)take(in, 1), buf, (uint32_t)take(in, 1) % (sizeof(buf) + 1)) == 0;
        break;
    case 8:
        fuzz_seen.events += hyperv_signal(h, (unsigned)take(in, 1) % 3, op >> 4 & 8 ? (unsigned)take(in, 1) % 20 : 2,
                                          (unsigned)take(in, 2) % 2100) == 0;
        break;
    case 9: case 10: {              /* the guest writes its memory: inputs, slots, flags */
        uint8_t bytes[16];
        put_le64(bytes, choose(in));
        put_le64(bytes + 8, choose(in));
        (void)mem_write(g->mem, choose(in) & ~7ull, bytes, sizeof(bytes));
        break;
    }
    case 11: (void)mem_write(g->mem, 0x3200, (uint8_t[16]){0}, 16); break;     /* the slot is read */
    case 12: g->tsc += take(in, 1 + (op >> 4) % 6); break;
    case 13: set_up(g); break;
    case 14: move_state(g, in, op >> 7, op >> 4 & 4 ? op >> 4 & 3 : 0); break;
    case 15:
        if (op == 0xff) {
            machine_reset(m);
        } else {
            (void)machine_msr_write(m, vp, HV_MSR_EOM, 0);
        }
        break;
    }
    g->answer = op & 0x80 ? 0 : op & 0x40 ? -ENOENT : op & 0x20 ? -EAGAIN : -EINVAL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct input in = {data, data + len};
    static struct guest g;
    guest_start(&g);
    while (in.p < in.end) {
        step(&g, &in);
    }
    move_state(&g, &in, false, 0);
    move_state(&g, &in, true, 0);
    guest_stop(&g);
    return 0;
}
