/* The Hyper-V interface as a guest meets it: MSRs, hypercalls, messages and events. The test is the engine. */
#include <errno.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"
#include "hv/hyperv/hyperv.h"
#include "hv/hyperv/hyperv_proto.h"
#include "tests/unit/machine/fake.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#define RAM (16 * MIB)
#define SIMP 0x10000ull
#define SIEFP 0x11000ull

static struct fake f, f2;
static struct mem *mem;
static struct hyperv *hv, *hv2;
static struct hyperv_regs regs;
static uint64_t result, tsc = 23000000;
static unsigned slot_frees, posts, signals, crashes;
static uint32_t last_connection, last_type, last_len;
static uint8_t last_payload[HV_MESSAGE_MAX];
static uint16_t last_flag;
static int answer;

static uint64_t read_tsc(void *arg, unsigned vp) { return tsc; }
static int get_regs(void *arg, unsigned vp, struct hyperv_regs *ret) { *ret = regs; return 0; }
static int set_result(void *arg, unsigned vp, bool long_mode, uint64_t v) { result = v; return 0; }
static void slot_free(void *arg) { slot_frees++; }
static void crashed(void *arg, const struct hyperv_crash *c) { crashes++; }

static int post_message(void *arg, uint32_t connection, uint32_t type, const void *payload, uint32_t len)
{
    posts++;
    last_connection = connection;
    last_type = type;
    last_len = len;
    memcpy(last_payload, payload, len);
    return answer;
}

static int signal_event(void *arg, uint32_t connection, uint16_t flag)
{
    signals++;
    last_connection = connection;
    last_flag = flag;
    return answer;
}

static const struct hyperv_hooks hooks = {read_tsc, get_regs, set_result, post_message, signal_event, slot_free, crashed, NULL, NULL};

static uint64_t tsc_hz = 2300000000;

static struct hyperv *make(struct fake *on)
{
    const struct hyperv_config cfg = {.machine = on->m, .vcpus = 2, .phys_bits = 46, .tsc_hz = tsc_hz,
                                      .apic_hz = 1000000000, .hooks = hooks};
    struct hyperv *h;
    assert_int_equal(hyperv_new(&cfg, &h, NULL), 0);
    return h;
}

static int setup(void **state)
{
    assert_int_equal(mem_new("test", -1, &mem, NULL), 0);
    assert_int_equal(mem_add_ram(mem, 0, RAM, NULL), 0);
    fake_start_mem(&f, mem);
    hv = make(&f);
    machine_reset(f.m);
    answer = 0;
    slot_frees = posts = signals = crashes = 0;
    return 0;
}

static int teardown(void **state)
{
    hyperv_free(hv);
    fake_stop(&f);
    mem_free(mem);
    return 0;
}

static uint64_t rd(uint32_t msr)
{
    uint64_t v = 0xdead;
    assert_int_equal(machine_msr_read(f.m, 1, msr, &v), 0);
    return v;
}
static void wr(uint32_t msr, uint64_t v) { assert_int_equal(machine_msr_write(f.m, 1, msr, v), 0); }
static bool wr_faults(uint32_t msr, uint64_t v) { return machine_msr_write(f.m, 1, msr, v) < 0; }

static void test_msrs_of_the_partition(void **state)
{
    uint64_t v;
    assert_int_equal(rd(HV_MSR_VP_INDEX), 1);
    assert_true(wr_faults(HV_MSR_VP_INDEX, 0));
    assert_true(wr_faults(HV_MSR_TIME_REF, 0));
    assert_int_equal(rd(HV_MSR_TSC_HZ), 2300000000);
    assert_int_equal(rd(HV_MSR_APIC_HZ), 1000000000);
    assert_int_equal(rd(HV_MSR_SVERSION), 1);
    assert_true(wr_faults(HV_MSR_SVERSION, 1));
    assert_int_equal(machine_msr_read(f.m, 0, 0x40000010, &v), -EINVAL);   /* not offered */
    assert_true(wr_faults(0x400000b0, 1));
    wr(HV_MSR_VP_ASSIST, 0x5001);
    assert_int_equal(rd(HV_MSR_VP_ASSIST), 0x5001);
    wr(HV_MSR_TSC_INVARIANT, 1);
    assert_int_equal(rd(HV_MSR_TSC_INVARIANT), 1);
    assert_true(wr_faults(HV_MSR_TSC_INVARIANT, 2));
    wr(HV_MSR_RESET, 0);
    assert_int_equal(f.event[MACHINE_EVENT_RESET], 0);
    wr(HV_MSR_RESET, 1);
    assert_int_equal(f.event[MACHINE_EVENT_RESET], 1);
}

static void test_hypercall_page_wants_a_name(void **state)
{
    uint8_t page[8];
    wr(HV_MSR_HYPERCALL, 0x7001);
    assert_int_equal(rd(HV_MSR_HYPERCALL), 0x7000);
    wr(HV_MSR_GUEST_OS_ID, 0x8100000000000000);
    wr(HV_MSR_HYPERCALL, 0x7001);
    assert_int_equal(rd(HV_MSR_HYPERCALL), 0x7001);
    assert_int_equal(mem_read(mem, 0x7000, page, sizeof(page)), 0);
    assert_memory_equal(page, "\xe6\xea\xc3\xcc\xcc\xcc\xcc\xcc", 8);
    assert_true(wr_faults(HV_MSR_HYPERCALL, RAM | 1));          /* not RAM */
    assert_true(wr_faults(HV_MSR_HYPERCALL, ~0ull));
    assert_int_equal(rd(HV_MSR_HYPERCALL), 0x7001);
    wr(HV_MSR_GUEST_OS_ID, 0);
    assert_int_equal(rd(HV_MSR_HYPERCALL), 0x7000);
    assert_int_equal(machine_hypercall(f.m, 1), -ENOSYS);
}

static void test_time_of_the_page_is_time_of_the_msr(void **state)
{
    uint8_t page[HV_PAGE_SIZE];
    assert_int_equal(rd(HV_MSR_TIME_REF), 99999);               /* 10 ms of 2.3 GHz, rounded down */
    wr(HV_MSR_REFERENCE_TSC, 0x9001);
    assert_int_equal(mem_read(mem, 0x9000, page, sizeof(page)), 0);
    assert_int_not_equal(get_le32(page), 0);
    for (uint64_t at = 1; at < 1ull << 60; at = at * 3 + 7) {
        tsc = at;
        uint64_t by_page = (uint64_t)((unsigned __int128)tsc * get_le64(page + 8) >> 64) + get_le64(page + 16);
        assert_int_equal(by_page, rd(HV_MSR_TIME_REF));
    }
    tsc = 23000000;
    assert_true(wr_faults(HV_MSR_REFERENCE_TSC, RAM | 1));
}

/* ---- hypercalls ---- */

static unsigned call(uint64_t control, uint64_t input, uint64_t output)
{
    regs = (struct hyperv_regs){.rcx = control, .rdx = input, .r8 = output, .long_mode = true};
    result = ~0ull;
    assert_int_equal(machine_hypercall(f.m, 1), 0);
    return (unsigned)(result & 0xffff);
}

static void hypercalls_on(void)
{
    wr(HV_MSR_GUEST_OS_ID, 0x8100000000000000);
    wr(HV_MSR_HYPERCALL, 0x7001);
}

static void test_post_message(void **state)
{
    uint8_t in[256] = {0};
    hypercalls_on();
    put_le32(in, 0xff000004);                                   /* 24 bits of it are the connection */
    put_le32(in + 8, 1);
    put_le32(in + 12, 5);
    memcpy(in + 16, "hello", 5);
    assert_int_equal(mem_write(mem, 0x8f00, in, sizeof(in)), 0);
    assert_int_equal(call(0x5c, 0x8f00, 0), HV_STATUS_SUCCESS);
    assert_int_equal(posts, 1);
    assert_int_equal(last_connection, 4);
    assert_int_equal(last_type, 1);
    assert_int_equal(last_len, 5);
    assert_memory_equal(last_payload, "hello", 5);
    answer = -ENOENT;
    assert_int_equal(call(0x5c, 0x8f00, 0), HV_STATUS_INVALID_CONNECTION);
    answer = -EAGAIN;
    assert_int_equal(call(0x5c, 0x8f00, 0), HV_STATUS_NO_BUFFERS);
    answer = 0;
    posts = 0;
    put_le32(in + 12, 241);
    assert_int_equal(mem_write(mem, 0x8f00, in, sizeof(in)), 0);
    assert_int_equal(call(0x5c, 0x8f00, 0), HV_STATUS_INVALID_PARAMETER);
    assert_int_equal(call(0x5c, 0x8f04, 0), HV_STATUS_INVALID_ALIGNMENT);
    assert_int_equal(call(0x5c, 0x8f08, 0), HV_STATUS_INVALID_ALIGNMENT);   /* crosses its page */
    assert_int_equal(call(0x5c, RAM, 0), HV_STATUS_INVALID_PARAMETER);
    assert_int_equal(call(0x5c, ~7ull, 0), HV_STATUS_INVALID_ALIGNMENT);
    assert_int_equal(call(0x1005c, 0x8f00, 0), HV_STATUS_INVALID_INPUT);    /* too long to be fast */
    assert_int_equal(call(0x5c | 1ull << 32, 0x8f00, 0), HV_STATUS_INVALID_INPUT);
    assert_int_equal(call(0x5c | 1ull << 27, 0x8f00, 0), HV_STATUS_INVALID_INPUT);
    assert_int_equal(call(0x5c | 1ull << 63, 0x8f00, 0), HV_STATUS_INVALID_INPUT);
    assert_int_equal(call(0x5c | 1ull << 20, 0x8f00, 0), HV_STATUS_INVALID_INPUT);
    assert_int_equal(posts, 0);
}

static void test_signal_event(void **state)
{
    hypercalls_on();
    assert_int_equal(call(0x1005d, 0x0000000700010002ull, 0), HV_STATUS_SUCCESS);
    assert_int_equal(last_connection, 0x10002);
    assert_int_equal(last_flag, 7);
    uint8_t in[8];
    put_le64(in, 9);
    assert_int_equal(mem_write(mem, 0x8000, in, sizeof(in)), 0);
    assert_int_equal(call(0x5d, 0x8000, 0), HV_STATUS_SUCCESS);
    assert_int_equal(last_connection, 9);
    answer = -ENOENT;
    assert_int_equal(call(0x1005d, 9, 0), HV_STATUS_INVALID_CONNECTION);
    assert_int_equal(call(0x2, 0, 0), HV_STATUS_INVALID_CALL);
    assert_int_equal(call(0xffff, 0, 0), HV_STATUS_INVALID_CALL);
    /* 32-bit code: EDX:EAX, EBX:ECX. */
    answer = 0;
    regs = (struct hyperv_regs){.rax = 0xffffffff0001005dull, .rcx = 0xabcull, .rbx = 3};
    assert_int_equal(machine_hypercall(f.m, 0), 0);
    assert_int_equal(result, 0);
    assert_int_equal(last_connection, 0xabc);
    assert_int_equal(last_flag, 3);
}

static void test_cold_pages_go_back_to_the_host(void **state)
{
    uint8_t in[40] = {0}, byte = 1;
    hypercalls_on();
    assert_int_equal(call(0x8001, 0, 0x8000), HV_STATUS_SUCCESS);
    assert_int_equal(mem_read(mem, 0x8000, in, 8), 0);
    assert_int_equal(get_le64(in), HV_EXT_CAPABILITY_COLD_DISCARD);
    assert_int_equal(call(0x8001, 0, 0x8004), HV_STATUS_INVALID_ALIGNMENT);
    assert_int_equal(call(0x8001, 0, RAM), HV_STATUS_INVALID_PARAMETER);
    for (gpa_t gpa = 4 * MIB; gpa < 10 * MIB; gpa += HV_PAGE_SIZE) {
        assert_int_equal(mem_write(mem, gpa, &byte, 1), 0);
    }
    uint64_t before = mem_resident_bytes(mem);
    put_le64(in, 2);
    put_le64(in + 8, 4 * MIB | 1 << 11 | 1);                    /* two large pages */
    put_le64(in + 16, 8 * MIB | 1 << 11);
    assert_int_equal(mem_write(mem, 0x8000, in, 24), 0);
    assert_int_equal(call(0x8003 | 2ull << 32, 0x8000, 0), HV_STATUS_SUCCESS);
    assert_int_equal(result >> 32, 2);                          /* or Linux asks for ever */
    assert_int_equal(before - mem_resident_bytes(mem), 6 * MIB);
    assert_int_equal(mem_read(mem, 5 * MIB, &byte, 1), 0);
    assert_int_equal(byte, 0);
    /* Gone on with at the second range; beyond RAM; no count; more than a page of them. */
    assert_int_equal(call(0x8003 | 2ull << 32 | 1ull << 48, 0x8000, 0), HV_STATUS_SUCCESS);
    assert_int_equal(result >> 32, 2);
    put_le64(in + 16, 14 * MIB | 1 << 11 | 1);
    assert_int_equal(mem_write(mem, 0x8000, in, 24), 0);
    assert_int_equal(call(0x8003 | 2ull << 32, 0x8000, 0), HV_STATUS_INVALID_PARAMETER);
    assert_int_equal(result >> 32, 1);
    put_le64(in + 8, 4 * MIB | 1 << 11 | 1 << 12);               /* of 1 GiB */
    assert_int_equal(mem_write(mem, 0x8000, in, 24), 0);
    assert_int_equal(call(0x8003 | 1ull << 32, 0x8000, 0), HV_STATUS_INVALID_PARAMETER);
    /* Small pages: 3 of them from an odd one on; one that is not RAM's. */
    for (gpa_t gpa = 4 * MIB; gpa < 4 * MIB + 6 * HV_PAGE_SIZE; gpa += HV_PAGE_SIZE) {
        assert_int_equal(mem_write(mem, gpa, (uint8_t[]){1}, 1), 0);
    }
    before = mem_resident_bytes(mem);
    put_le64(in + 8, (4 * MIB + HV_PAGE_SIZE) | 2);
    assert_int_equal(mem_write(mem, 0x8000, in, 24), 0);
    assert_int_equal(call(0x8003 | 1ull << 32, 0x8000, 0), HV_STATUS_SUCCESS);
    assert_int_equal(before - mem_resident_bytes(mem), 3 * HV_PAGE_SIZE);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(mem_read(mem, 4 * MIB + i * HV_PAGE_SIZE, &byte, 1), 0);
        assert_int_equal(byte != 0, i < 1 || i > 3);
    }
    put_le64(in + 8, (RAM - HV_PAGE_SIZE) | 1);
    assert_int_equal(mem_write(mem, 0x8000, in, 24), 0);
    assert_int_equal(call(0x8003 | 1ull << 32, 0x8000, 0), HV_STATUS_INVALID_PARAMETER);
    assert_int_equal(call(0x8003, 0x8000, 0), HV_STATUS_INVALID_INPUT);
    assert_int_equal(call(0x8003 | 2ull << 32 | 2ull << 48, 0x8000, 0), HV_STATUS_INVALID_INPUT);
    assert_int_equal(call(0x8003 | 600ull << 32, 0x8000, 0), HV_STATUS_INVALID_ALIGNMENT);
    assert_int_equal(call(0x8003 | 4095ull << 32 | 4094ull << 48, 0x8000, 0), HV_STATUS_INVALID_ALIGNMENT);
}

/* ---- SynIC ---- */

static void synic_on(void)
{
    wr(HV_MSR_SIMP, SIMP | 1);
    wr(HV_MSR_SIEFP, SIEFP | 1);
    wr(HV_MSR_SINT0 + 2, 0xf3);
    wr(HV_MSR_SCONTROL, 1);
}

static uint32_t slot_word(unsigned off)
{
    uint8_t b[4];
    assert_int_equal(mem_read(mem, SIMP + 0x200 + off, b, 4), 0);
    return get_le32(b);
}

static void test_message_slot(void **state)
{
    assert_int_equal(rd(HV_MSR_SINT0 + 2), 0x10000);
    assert_true(wr_faults(HV_MSR_SINT0, 15));
    assert_int_equal(hyperv_post(hv, 1, 2, 1, "abc", 3), -EAGAIN);
    assert_int_equal(slot_frees, 0);
    synic_on();
    assert_int_equal(slot_frees, 1);                            /* switched on: try again */
    assert_int_equal(hyperv_post(hv, 1, 2, 1, "abc", 3), 0);
    assert_int_equal(f.msis, 1);
    assert_int_equal(f.msi[0].addr, 0xfee01000);
    assert_int_equal(f.msi[0].data, 0xf3);
    assert_int_equal(slot_word(0), 1);
    assert_int_equal(slot_word(4), 3);
    assert_int_equal(slot_word(16), 'a' | 'b' << 8 | 'c' << 16);
    /* Busy: the pending flag, and EOM brings us back. */
    assert_int_equal(hyperv_post(hv, 1, 2, 1, "def", 3), -EAGAIN);
    assert_int_equal(slot_word(4), 3 | HV_MESSAGE_PENDING << 8);
    assert_int_equal(f.msis, 1);
    assert_int_equal(mem_write(mem, SIMP + 0x200, "\0\0\0", 4), 0);
    wr(HV_MSR_EOM, 0);
    assert_int_equal(slot_frees, 2);
    wr(HV_MSR_EOM, 0);
    assert_int_equal(slot_frees, 2);
    assert_int_equal(hyperv_post(hv, 1, 2, 1, "def", 3), 0);
    assert_int_equal(slot_word(4), 3);
    assert_int_equal(hyperv_post(hv, 2, 2, 1, "", 0), -EINVAL);
    assert_int_equal(hyperv_post(hv, 0, 16, 1, "", 0), -EINVAL);
    assert_int_equal(hyperv_post(hv, 0, 2, 1, "", 241), -EINVAL);
    /* A page that is not RAM is as good as none. */
    wr(HV_MSR_SIMP, ~0ull);
    assert_int_equal(hyperv_post(hv, 1, 2, 1, "abc", 3), -EAGAIN);
}

static void test_event_flags(void **state)
{
    assert_int_equal(hyperv_signal(hv, 1, 2, 77), -ENXIO);
    synic_on();
    assert_int_equal(hyperv_signal(hv, 1, 2, 77), 0);
    uint8_t b;
    assert_int_equal(mem_read(mem, SIEFP + 0x200 + 77 / 8, &b, 1), 0);
    assert_int_equal(b, 1 << 77 % 8);
    assert_int_equal(f.msis, 1);
    assert_int_equal(hyperv_signal(hv, 1, 2, 77), 0);           /* still set: no second interrupt */
    assert_int_equal(f.msis, 1);
    wr(HV_MSR_SINT0 + 2, 0x100f3);
    assert_int_equal(hyperv_signal(hv, 1, 2, 2047), 0);
    assert_int_equal(f.msis, 1);                                /* masked */
    assert_int_equal(hyperv_signal(hv, 1, 2, 2048), -EINVAL);
    assert_int_equal(hyperv_signal(hv, 9, 2, 0), -EINVAL);
}

static void test_crash_report(void **state)
{
    struct hyperv_crash c;
    assert_false(hyperv_crash(hv, &c));
    assert_int_equal(rd(HV_MSR_CRASH_CTL), HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
    assert_int_equal(mem_write(mem, 0x4000, "Kernel panic\n\x01", 14), 0);
    wr(HV_MSR_CRASH_P0 + 3, 0x4000);
    wr(HV_MSR_CRASH_P0 + 4, 14);
    wr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
    assert_int_equal(crashes, 1);
    assert_true(hyperv_crash(hv, &c));
    assert_string_equal(c.text, "Kernel panic\n?");
    wr(HV_MSR_CRASH_P0 + 4, 4097);                              /* longer than agreed: numbers only */
    wr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
    assert_true(hyperv_crash(hv, &c));
    assert_string_equal(c.text, "");
    assert_int_equal(c.p[4], 4097);
    wr(HV_MSR_CRASH_P0 + 3, ~0ull);
    wr(HV_MSR_CRASH_P0 + 4, 4096);
    wr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
    assert_int_equal(crashes, 3);
}

static void test_reset_forgets_everything(void **state)
{
    hypercalls_on();
    synic_on();
    machine_reset(f.m);
    static const uint32_t zero[] = {HV_MSR_GUEST_OS_ID, HV_MSR_HYPERCALL, HV_MSR_REFERENCE_TSC, HV_MSR_SIMP,
                                    HV_MSR_SIEFP, HV_MSR_SCONTROL, HV_MSR_VP_ASSIST};
    for (size_t i = 0; i < ARRAY_SIZE(zero); i++) {
        assert_int_equal(rd(zero[i]), 0);
    }
    assert_int_equal(rd(HV_MSR_SINT0 + 2), 0x10000);
}

static void test_save_and_load(void **state)
{
    struct hv_error e = {0};
    hypercalls_on();
    synic_on();
    wr(HV_MSR_VP_ASSIST, 0x6001);
    fake_start_mem(&f2, mem);
    hv2 = make(&f2);
    assert_int_equal(fake_move(&f, &f2, &e), 0);
    uint64_t v;
    assert_int_equal(machine_msr_read(f2.m, 1, HV_MSR_HYPERCALL, &v), 0);
    assert_int_equal(v, 0x7001);
    assert_int_equal(machine_msr_read(f2.m, 1, HV_MSR_SINT0 + 2, &v), 0);
    assert_int_equal(v, 0xf3);
    assert_int_equal(hyperv_post(hv2, 1, 2, 1, "abc", 3), 0);
    hyperv_free(hv2);
    fake_stop(&f2);
}

/* The TSC keeps its value over a move and changes its pace: reference time must do neither a step nor a stop. */
static void test_time_goes_on_at_another_pace(void **state)
{
    struct hv_error e = {0};
    uint8_t page[HV_PAGE_SIZE];
    uint64_t before, after;
    wr(HV_MSR_REFERENCE_TSC, 0x9001);
    assert_int_equal(mem_read(mem, 0x9000, page, sizeof(page)), 0);
    uint32_t sequence = get_le32(page);
    tsc = 2300000000ull * 86400;                                /* a day */
    before = rd(HV_MSR_TIME_REF);
    fake_start_mem(&f2, mem);
    tsc_hz = 2900000000;
    hv2 = make(&f2);
    tsc_hz = 2300000000;
    assert_int_equal(fake_move(&f, &f2, &e), 0);
    assert_int_equal(machine_msr_read(f2.m, 1, HV_MSR_TIME_REF, &after), 0);
    assert_int_equal(after, before);
    tsc += 2900000000ull * 10;
    assert_int_equal(machine_msr_read(f2.m, 1, HV_MSR_TIME_REF, &after), 0);
    assert_in_range(after - before, 99999999, 100000000);       /* ten seconds of the new pace */
    assert_int_equal(mem_read(mem, 0x9000, page, sizeof(page)), 0);
    assert_int_not_equal(get_le32(page), sequence);
    assert_int_not_equal(get_le32(page), 0);
    assert_int_equal((uint64_t)((unsigned __int128)tsc * get_le64(page + 8) >> 64) + get_le64(page + 16), after);
    /* Reset: the TSC begins again, and so does time. */
    machine_reset(f2.m);
    tsc = 29000000;
    assert_int_equal(machine_msr_read(f2.m, 1, HV_MSR_TIME_REF, &after), 0);
    assert_int_equal(after, 99999);
    tsc = 23000000;
    hyperv_free(hv2);
    fake_stop(&f2);
}

/* What no write could have set is refused on load: a TSC that stands still, a page outside RAM. */
static void test_loaded_fields_are_checked(void **state)
{
    static const struct { uint64_t was, now; } damage[] = {
        {2300000000, 0}, {2300000000, 10000000}, {0x9001, RAM | 1}, {0x7001, ~0ull & ~2ull}, {0x7001, 0x7003},
    };
    hypercalls_on();
    wr(HV_MSR_REFERENCE_TSC, 0x9001);
    for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
        struct save_writer w;
        struct load_reader r;
        uint8_t was[8];
        save_init(&w);
        machine_save(f.m, &w);
        put_le64(was, damage[i].was);
        uint8_t *at = memmem(w.out.buf, w.out.len, was, sizeof(was));
        assert_non_null(at);
        fake_start_mem(&f2, mem);
        hv2 = make(&f2);
        assert_int_equal(load_init(&r, w.out.buf, w.out.len, NULL), 0);
        assert_int_equal(machine_load(f2.m, &r, NULL), 0);
        put_le64(at, damage[i].now);
        assert_true(machine_load(f2.m, &r, NULL) < 0);
        save_fini(&w);
        hyperv_free(hv2);
        fake_stop(&f2);
    }
}

/* Whatever a guest writes: answers, no more. The sanitized run looks closer. */
static void test_random_guest(void **state)
{
    uint64_t s = 42;
    static const uint64_t edge[] = {0, 1, 0x7001, SIMP | 1, RAM - 4096 + 1, RAM | 1, ~0ull, ~0xfffull, 1ull << 63, 0x10000};
    for (int i = 0; i < 300000; i++) {
        s = s * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t r = s >> 17;
        uint64_t val = r & 64 ? edge[r % 10] : s;
        uint32_t msr = HV_MSR_FIRST + (uint32_t)(r >> 7) % HV_MSR_COUNT;
        uint64_t v;
        switch (r % 8) {
        case 0: case 1: case 2: (void)machine_msr_write(f.m, r >> 9 & 1, msr, val); break;
        case 3: (void)machine_msr_read(f.m, r >> 9 & 1, msr, &v); break;
        case 4: (void)hyperv_post(hv, r >> 9 & 3, r >> 11 & 15, (uint32_t)s, "x", 1); break;
        case 5: (void)hyperv_signal(hv, r >> 9 & 3, r >> 11 & 15, r >> 20 & 4095); break;
        default:
            static const uint16_t code[] = {0x5c, 0x5d, 0x8001, 0x8003};
            regs = (struct hyperv_regs){.rcx = code[r >> 8 & 3] | (r & 2048 ? s & ~0xffffull : 0), .rdx = val & ~7ull,
                                        .r8 = s & 0xfffff8, .long_mode = true};
            (void)machine_hypercall(f.m, 0);
        }
    }
}

#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_msrs_of_the_partition), T(test_hypercall_page_wants_a_name), T(test_time_of_the_page_is_time_of_the_msr),
        T(test_post_message), T(test_signal_event), T(test_cold_pages_go_back_to_the_host), T(test_message_slot),
        T(test_event_flags), T(test_crash_report), T(test_reset_forgets_everything), T(test_save_and_load),
        T(test_time_goes_on_at_another_pace), T(test_loaded_fields_are_checked),
        T(test_random_guest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
