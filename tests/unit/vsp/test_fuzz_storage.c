/* The fuzz target of the storage controller with fixed seeds; and rings that move while they are read. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "tests/fuzz/fuzz_storage.c"

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % below;
}

static uint32_t driver_starts(uint8_t *program, uint32_t len)
{
    program[len++] = 0x81;                                    /* contact */
    program[len++] = 1;                                       /* the primary channel and its set-up */
    for (unsigned c = 1; c <= FUZZ_SUBS; c++)
        program[len++] = (uint8_t)(2 + 16 * c);               /* open the others */
    return len;
}

/* Seven of eight programs are of steps that are whole, mostly commands, so that they get far. */
static void hostile_guests_hurt_themselves_only(void **state)
{
    static uint8_t program[4000];
    const char *runs = getenv("HV_FUZZ_RUNS"), *from = getenv("HV_SEED");      /* make check-slow */
    unsigned n_runs = runs ? (unsigned)strtoul(runs, NULL, 10) : 1500;
    seed += from ? strtoul(from, NULL, 10) : 0;
    for (unsigned n = 0; n < n_runs; n++) {
        static const uint8_t usual[] = {8, 9, 10, 8, 9, 10, 8, 9, 10, 8, 9, 11, 12, 13, 14, 15, 2, 3, 7, 14};
        uint32_t len = 0;
        len = driver_starts(program, 0);
        while (len < sizeof(program) - 80 && rnd(200)) {
            uint8_t op = rnd(12) ? (uint8_t)(usual[rnd(sizeof(usual))] | rnd(16) << 4) : (uint8_t)rnd(256);
            bool command = op % 16 >= 8 && op % 16 <= 10, right = command && rnd(3);
            program[len++] = op;
            if (command) {
                program[len++] = right ? 0 : (uint8_t)rnd(256);
                program[len++] = (uint8_t)rnd(256);
            }
            /* What the rest of a right step takes is known; in wild programs the next step may begin in it. */
            static const uint8_t takes[16] = {[6] = 65, [7] = 2, [8] = 20, [9] = 20, [10] = 20};
            uint32_t rest = n % 8 == 0 ? rnd(40) : op % 16 == 15 ? 1 + (op >> 7) * 2u : takes[op % 16];
            for (uint32_t i = 0; i < rest; i++)
                program[len++] = (uint8_t)(op % 16 == 6 && i == 0 ? 16 : right || rnd(3) == 0 ? rnd(256) : rnd(4));
            bool gone = op >= 0x80 && (op % 16 == 15 || op >= 0xee);      /* likely reset */
            if (n % 8 && (gone || rnd(20) == 0))
                len = driver_starts(program, len);
        }
        LLVMFuzzerTestOneInput(program, len);
    }
    print_message("runs that read %u, wrote %u, failed a command %u, broke a channel %u; sub-channels %u, steps with "
                  "commands under way %u, loads %u, refused %u\n", fuzz_seen.reads, fuzz_seen.writes, fuzz_seen.errors,
                  fuzz_seen.faults, fuzz_seen.subs, fuzz_seen.hanging, fuzz_seen.loads, fuzz_seen.refused);
    if (n_runs >= 1000) {
        assert_true(fuzz_seen.reads > 200 && fuzz_seen.writes > 100 && fuzz_seen.errors > 200 && fuzz_seen.faults > 200);
        assert_true(fuzz_seen.subs > n_runs && fuzz_seen.hanging > 1000 && fuzz_seen.loads > 500 && fuzz_seen.refused > 10);
    }
}

/* ---- every command ---- */

/* All opcodes with all lengths, with data and without, on a disk and a DVD: one answer each, of a known kind. */
static void every_opcode_and_length_is_answered(void **state)
{
    static struct fuzz f;
    struct guest *g = &f.b.g;
    f = (struct fuzz){.s = NULL};
    fuzz_begin(&f);
    guest_connect(g);
    struct guest_channel *c = guest_open(g, get_le32(g->offer[0].m + OFFER_RELID), 4);
    unsigned good = 0, sense = 0, refused = 0;
    for (unsigned n = 0; n < 256 * 21 * 4; n++) {
        uint8_t x[PKT_GPA_RANGES - PKT_HEADER + 16] = {0}, a[VSTOR_LEN] = {0};
        uint64_t transaction;
        uint8_t op = (uint8_t)(n / 4 % 256), len = (uint8_t)(n / 1024);
        put_le32(x + PKT_GPA_COUNT - PKT_HEADER, 1);
        put_le32(x + 8, 4096);
        put_le64(x + 16, FUZZ_DATA >> HV_PAGE_SHIFT);
        put_le32(a + VSTOR_OPERATION, VSTOR_EXECUTE_SRB);
        a[SRB_LUN] = n & 1;
        a[SRB_CDB_LEN] = len;
        a[SRB_DATA_IN] = n & 2 ? SRB_READ : SRB_WRITE;
        put_le32(a + SRB_DATA_LEN, n % 3 ? 4096 : 0);
        a[SRB_CDB] = op;
        a[SRB_CDB + 4] = a[SRB_CDB + 8] = 1;
        bool direct = n % 3 != 0;
        assert_true(guest_send_raw(c, direct ? VMBUS_PKT_GPA_DIRECT : VMBUS_PKT_INBAND, PKT_FLAG_COMPLETION, n, x,
                                   direct ? sizeof(x) : 0, a, sizeof(a)));
        guest_turn(g);
        disk_queue_drain(f.queue);
        assert_int_equal(guest_recv(c, NULL, &transaction, a, sizeof(a)), VSTOR_LEN);
        assert_int_equal(transaction, n);
        assert_int_equal(guest_recv(c, NULL, NULL, a, sizeof(a)), -1);
        good += a[SRB_STATUS] == SRB_OK;
        sense += a[SRB_STATUS] == (SRB_ERROR | SRB_AUTOSENSE) && a[SRB_SENSE] == 0x70;
        refused += a[SRB_STATUS] == SRB_INVALID_REQUEST && (len == 0 || len > 16);
        assert_int_equal(good + sense + refused, n + 1);
    }
    print_message("%u done, %u with sense data, %u refused\n", good, sense, refused);
    assert_true(good > 500 && g->faults == 0);
    fuzz_end(&f);
}

/* ---- rings that move ---- */

static struct { _Atomic uint32_t *ring; _Atomic bool stop; _Atomic uint64_t moves; } racer;

/*
 * Another vCPU of the guest: indices and words of packets change all the time, mostly to sound values.
 * As with any guest's, no thread sanitizer hears of its accesses.
 */
__attribute__((no_sanitize_thread)) static void *race(void *arg)
{
    uint32_t words = 2 * FUZZ_RING_PAGES * (uint32_t)HV_PAGE_SIZE / 4, x = 1;
    while (!atomic_load(&racer.stop)) {
        x = x * 1664525 + 1013904223;
        uint32_t pick = x >> 8, page = HV_PAGE_SIZE / 4;
        if (pick % 4 == 0)                                    /* the guest's write index, the host's read index */
            atomic_store(&racer.ring[pick % 8 == 0 ? RING_WRITE / 4 : FUZZ_RING_PAGES * page + RING_READ / 4],
                         pick % 1024 == 4 ? pick : pick / 64 % ((FUZZ_RING_PAGES - 1) * HV_PAGE_SIZE) & ~7u);
        else if (pick % 4 == 1)                               /* somewhere in a packet */
            atomic_store(&racer.ring[page + pick / 64 % (words / 2 - page)], x % 64);
        else if (pick % 64 == 2)
            atomic_store(&racer.ring[RING_MASK / 4 + pick / 64 % 2], x % 4096);
        atomic_fetch_add_explicit(&racer.moves, 1, memory_order_relaxed);
    }
    return NULL;
}

static void rings_move_while_they_are_read(void **state)
{
    static struct fuzz f;
    struct mem_pin pin;
    pthread_t thread;
    f = (struct fuzz){.s = NULL};
    fuzz_begin(&f);
    fuzz_contact(&f.b);
    fuzz_start(&f);
    assert_int_equal(mem_pin(f.b.g.mem, f.b.ring[1], 2 * FUZZ_RING_PAGES * HV_PAGE_SIZE, MEM_WRITE, &pin), 0);
    racer.ring = pin.hva;
    assert_int_equal(pthread_create(&thread, NULL, race, NULL), 0);
    unsigned turns = 0;
    for (unsigned n = 0; n < 3000 || ((racer.moves < 100000 || !f.b.g.faults) && n < 10000000); n++) {
        uint8_t program[24];
        for (unsigned i = 0; i < sizeof(program); i++)
            program[i] = (uint8_t)(i < 1 ? 0 : rnd(40));
        f.b.p = program;
        f.b.end = program + sizeof(program);
        fuzz_command(&f, 1);
        if (n % 16 == 0)
            disk_queue_drain(f.queue);
        if (n % 32 == 31) {                                   /* dead by now, as like as not: once more */
            disk_queue_drain(f.queue);
            fuzz_close(&f.b, 1);
            fuzz_open(&f.b, 1);
        }
        turns++;
    }
    atomic_store(&racer.stop, true);
    pthread_join(thread, NULL);
    mem_unpin(&pin);
    print_message("%u turns while a ring moved %llu times: it broke %u times at least\n", turns, (unsigned long long)racer.moves,
                  f.b.g.faults);
    assert_true(f.b.g.faults > 0);
    fuzz_good_guest(&f);
    fuzz_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_guests_hurt_themselves_only),
        cmocka_unit_test(every_opcode_and_length_is_answered),
        cmocka_unit_test(rings_move_while_they_are_read),
    };
    return cmocka_run_group_tests_name("vsp/fuzz_storage", tests, NULL, NULL);
}
