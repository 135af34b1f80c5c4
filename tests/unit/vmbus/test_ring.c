/* Rings: every length and wrap against a model, room and signals, and a producer that lies. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "hv/base/endian.h"
#include "hv/vmbus/ring.h"
#include "hv/vmbus/vmbus_proto.h"

#define PAGES 3u
#define SIZE  (2 * 4096u)

/* Two views of the same pages: ours writes, theirs reads, or the other way round. */
static struct mem *mem;
static const uint64_t pfn[PAGES] = {7, 3, 12};       /* not adjacent, not in order */

static void put(unsigned off, uint32_t v)
{
    uint8_t b[4];
    put_le32(b, v);
    assert_int_equal(mem_write(mem, 7 * 4096 + off, b, 4), 0);
}

static uint32_t get(unsigned off)
{
    uint8_t b[4];
    assert_int_equal(mem_read(mem, 7 * 4096 + off, b, 4), 0);
    return get_le32(b);
}

static void put_data(uint32_t at, const void *p, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++, at = (at + 1) % SIZE)
        assert_int_equal(mem_write(mem, pfn[1 + at / 4096] * 4096 + at % 4096, (const uint8_t *)p + i, 1), 0);
}

static int setup(void **state)
{
    assert_int_equal(mem_new("ring", -1, &mem, NULL), 0);
    assert_int_equal(mem_add_ram(mem, 0, 1 << 20, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    mem_free(mem);
    return 0;
}

static void every_length_and_place_goes_through(void **state)
{
    static uint8_t src[3000], buf[4096];
    struct ring out, in;
    uint32_t seed = 1;
    assert_int_equal(ring_init(&out, mem, pfn, PAGES, false), 0);
    assert_int_equal(ring_init(&in, mem, pfn, PAGES, true), 0);
    for (uint32_t n = 0; n < 4000; n++) {
        uint32_t len = n % sizeof(src);
        for (uint32_t i = 0; i < len; i++)
            src[i] = (uint8_t)(seed = seed * 1103515245 + 12345);
        uint32_t head = len / 3;
        struct iovec v[2] = {{src, head}, {src + head, len - head}};
        bool signal = false;
        struct ring_packet p;
        assert_int_equal(ring_write(&out, (uint16_t)(n % 13), 1, n, 16, v, 2, &signal), 0);
        assert_true(signal);
        assert_int_equal(ring_read(&in, buf, sizeof(buf), &p), 0);
        assert_int_equal(p.type, n % 13);
        assert_int_equal(p.flags, 1);
        assert_int_equal(p.transaction, n);
        assert_int_equal(p.offset, 16);
        assert_int_equal(p.len, ROUND_UP(16 + len, 8));
        assert_memory_equal(buf + 16, src, len);
        for (uint32_t i = 16 + len; i < p.len; i++)
            assert_int_equal(buf[i], 0);
        ring_consume(&in, &p);
        assert_int_equal(ring_read(&in, buf, sizeof(buf), &p), -EAGAIN);
        assert_false(ring_publish(&in));
        assert_int_equal(get(RING_READ), get(RING_WRITE));
    }
    ring_fini(&in);
    ring_fini(&out);
}

static void a_full_ring_says_how_much_it_waits_for(void **state)
{
    struct ring out, in;
    uint8_t data[1000] = {0}, buf[4096];
    struct iovec v = {data, 1000};
    bool signal;
    put(RING_READ, 0);
    put(RING_WRITE, 0);
    assert_int_equal(ring_init(&out, mem, pfn, PAGES, false), 0);
    assert_int_equal(ring_init(&in, mem, pfn, PAGES, true), 0);
    unsigned n = 0;
    int r;
    while ((r = ring_write(&out, 6, 0, n, 16, &v, 1, &signal)) == 0)
        n++;
    assert_int_equal(r, -EAGAIN);
    assert_int_equal(n, (SIZE - 1) / 1024);          /* 1000 + 16 + 8; never entirely full */
    assert_int_equal(get(RING_PENDING), 1024);
    /* The reader makes room: one is not announced before there is more than was asked for. */
    struct ring_packet p;
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(ring_read(&in, buf, sizeof(buf), &p), 0);
        assert_int_equal(p.transaction, i);
        ring_consume(&in, &p);
        bool told = ring_publish(&in);
        assert_int_equal(told, i == 0);              /* room goes from 1024 to 2048 */
    }
    assert_int_equal(ring_write(&out, 6, 0, 99, 16, &v, 1, &signal), 0);
    /* Too large for any time. */
    static uint8_t big[SIZE];
    struct iovec b = {big, SIZE - 24};
    assert_int_equal(ring_write(&out, 6, 0, 99, 16, &b, 1, &signal), -EMSGSIZE);
    ring_fini(&in);
    ring_fini(&out);
    put(RING_PENDING, 0);
}

static void the_readers_mask_keeps_signals_away(void **state)
{
    struct ring out, in;
    uint8_t data[8] = {0};
    struct iovec v = {data, 8};
    bool signal;
    put(RING_READ, 0);
    put(RING_WRITE, 0);
    assert_int_equal(ring_init(&out, mem, pfn, PAGES, false), 0);
    assert_int_equal(ring_init(&in, mem, pfn, PAGES, true), 0);
    ring_mask(&in, true);
    assert_int_equal(ring_write(&out, 6, 0, 1, 16, &v, 1, &signal), 0);
    assert_false(signal);
    ring_mask(&in, false);
    assert_int_equal(ring_write(&out, 6, 0, 1, 16, &v, 1, &signal), 0);
    assert_true(signal);
    ring_fini(&in);
    ring_fini(&out);
}

static void indices_outside_the_ring_are_refused(void **state)
{
    static const uint32_t bad[] = {SIZE, SIZE + 8, 4, 1, UINT32_MAX, UINT32_MAX & ~7u, 0x80000000};
    uint8_t data[8] = {0}, buf[256];
    struct iovec v = {data, 8};
    struct ring r;
    struct ring_packet p;
    bool signal;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        put(RING_READ, 0);
        put(RING_WRITE, 0);
        assert_int_equal(ring_init(&r, mem, pfn, PAGES, true), 0);
        put(RING_WRITE, bad[i]);
        assert_int_equal(ring_read(&r, buf, sizeof(buf), &p), -EPROTO);
        assert_int_equal(ring_readable(&r), -EPROTO);
        ring_fini(&r);
        put(RING_WRITE, 0);
        assert_int_equal(ring_init(&r, mem, pfn, PAGES, false), 0);
        put(RING_READ, bad[i]);
        assert_int_equal(ring_write(&r, 6, 0, 0, 16, &v, 1, &signal), -EPROTO);
        ring_fini(&r);
    }
    /* Our own index in guest memory is only ever written: what the guest makes of it is its own loss. */
    put(RING_READ, 0);
    put(RING_WRITE, 0);
    assert_int_equal(ring_init(&r, mem, pfn, PAGES, true), 0);
    put(RING_READ, 0xFFFF);
    assert_int_equal(ring_read(&r, buf, sizeof(buf), &p), -EAGAIN);
    ring_fini(&r);
}

/* A descriptor that does not fit what is there. */
static void wrong_descriptors_are_refused(void **state)
{
    static const struct { uint16_t offset8, len8; uint32_t write; int want; } t[] = {
        {2, 3, 32, 0},              /* 24 bytes and the trailer */
        {2, 3, 24, -EPROTO},        /* the trailer is missing */
        {2, 2, 16, -EPROTO},        /* shorter than any packet */
        {2, 2, 8, -EPROTO},
        {2, 1, 64, -EPROTO},        /* shorter than a descriptor */
        {2, 0, 64, -EPROTO},
        {1, 3, 64, -EPROTO},        /* the payload in the descriptor */
        {0, 3, 64, -EPROTO},
        {3, 3, 64, 0},              /* no payload */
        {4, 3, 64, -EPROTO},        /* the payload past the end */
        {2, 0xFFFF, 64, -EPROTO},
        {2, 7, 64, 0},
        {2, 8, 64, -EPROTO},
        {2, 40, 4096, -EMSGSIZE},   /* larger than the buffer */
    };
    uint8_t buf[256];
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        struct ring r;
        struct ring_packet p;
        uint8_t d[16] = {6};
        put_le16(d + 2, t[i].offset8);
        put_le16(d + 4, t[i].len8);
        put(RING_READ, SIZE - 8);              /* the descriptor wraps */
        put(RING_WRITE, (SIZE - 8 + t[i].write) % SIZE);
        put_data(SIZE - 8, d, 16);
        assert_int_equal(ring_init(&r, mem, pfn, PAGES, true), 0);
        int got = ring_read(&r, buf, sizeof(buf), &p);
        if (got != t[i].want)
            print_error("row %u\n", i);
        assert_int_equal(got, t[i].want);
        ring_fini(&r);
    }
}

static void pages_that_are_no_ram_are_refused(void **state)
{
    struct ring r;
    static const uint64_t outside[] = {1, 2, 0x100}, huge[] = {1, UINT64_MAX, 2}, two[] = {255, 256, 257};
    assert_int_equal(ring_init(&r, mem, outside, 3, true), -EFAULT);
    assert_int_equal(ring_init(&r, mem, huge, 3, true), -EFAULT);
    assert_int_equal(ring_init(&r, mem, two, 3, true), -EFAULT);
    assert_int_equal(ring_init(&r, mem, pfn, 1, true), -EINVAL);
    assert_int_equal(ring_init(&r, mem, pfn, RING_MAX_PAGES + 1, true), -EINVAL);
    /* Nothing stays pinned. */
    assert_int_equal(mem_remove(mem, 0, 1 << 20), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_and_place_goes_through),
        cmocka_unit_test(a_full_ring_says_how_much_it_waits_for),
        cmocka_unit_test(the_readers_mask_keeps_signals_away),
        cmocka_unit_test(indices_outside_the_ring_are_refused),
        cmocka_unit_test(wrong_descriptors_are_refused),
        cmocka_unit_test(pages_that_are_no_ram_are_refused),
    };
    return cmocka_run_group_tests_name("vmbus/ring", tests, setup, teardown);
}
