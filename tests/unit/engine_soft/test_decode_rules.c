/*
 * The decoder, by rules that hold for every input: it never reads past the buffer, asks for
 * more exactly while more is needed, knows the 15-byte limit, gives the same answer twice,
 * reaches every operation of the table, and formats into any buffer.
 */
#include "hv/engine/soft/insn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <sys/mman.h>

static uint64_t rnd_state;
static uint64_t rnd(void)
{
    uint64_t z = (rnd_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 16 bytes that often are a long instruction: prefixes, an escape, then anything. */
static void make(uint8_t *p)
{
    static const uint8_t prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x64, 0x48, 0x41, 0x4f };
    uint64_t a = rnd(), b = rnd();
    unsigned n = 0;

    memcpy(p, &a, 8);
    memcpy(p + 8, &b, 8);
    for (uint64_t k = rnd(); (k & 3) == 3 && n < 14; k >>= 2) {
        p[n++] = prefixes[rnd() % ARRAY_SIZE(prefixes)];
    }
    static const uint8_t heads[] = { 0x0f, 0x0f, 0xc4, 0xc5, 0x62, 0 };
    unsigned h = rnd() % ARRAY_SIZE(heads);
    if (heads[h]) {
        p[n] = heads[h];
    }
    if (heads[h] == 0x62) {
        p[n + 1] = (uint8_t)((p[n + 1] & 0xf0) | (1 + rnd() % 3));
        p[n + 2] |= 4;
    }
}

/* A page whose end is the end of the world. */
static uint8_t *guarded_page(void)
{
    uint8_t *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(mprotect(p + 4096, 4096, PROT_NONE), 0);
    return p;
}

static void never_reads_past_the_end_and_asks_for_more_exactly(void **state)
{
    uint8_t *page = guarded_page();
    (void)state;

    rnd_state = 1;
    for (unsigned i = 0; i < 300000; i++) {
        uint8_t bytes[16];
        struct x86_insn full, part;
        enum x86_mode mode = (enum x86_mode)(i % 3);
        make(bytes);
        int r = x86_decode(bytes, 15, mode, &full);
        assert_int_not_equal(r, -EAGAIN);
        assert_in_range(full.len, r ? 0 : 1, 15);
        for (unsigned n = 0; n <= 15; n++) {
            uint8_t *p = page + 4096 - n;
            memcpy(p, bytes, n);
            int q = x86_decode(p, n, mode, &part);
            if (!r && n < full.len) {
                assert_int_equal(q, -EAGAIN);
            } else if (!r) {
                assert_int_equal(q, 0);
                assert_memory_equal(&part, &full, sizeof(full));
            } else if (r == -E2BIG) {
                assert_true(q == -EAGAIN || (n == 15 && q == -E2BIG));
            } else {
                assert_true(q == -EILSEQ || q == -EAGAIN);
            }
        }
    }
    munmap(page, 8192);
}

static void fifteen_bytes_are_the_limit(void **state)
{
    uint8_t b[32];
    struct x86_insn in;
    (void)state;

    memset(b, 0x66, sizeof(b));
    b[14] = 0x90;
    assert_int_equal(x86_decode(b, sizeof(b), X86_MODE_64, &in), 0);
    assert_int_equal(in.len, 15);
    b[14] = 0x66;
    b[15] = 0x90;
    assert_int_equal(x86_decode(b, sizeof(b), X86_MODE_64, &in), -E2BIG);
    assert_int_equal(x86_decode(b, 15, X86_MODE_64, &in), -E2BIG);
    assert_int_equal(x86_decode(b, 14, X86_MODE_64, &in), -EAGAIN);
    assert_int_equal(x86_decode(b, 0, X86_MODE_64, &in), -EAGAIN);
    /* Too long because of its last immediate byte. */
    memset(b, 0x2e, sizeof(b));
    memcpy(b + 5, "\x48\x81\x84\x88\0\0\0\0\0\0\0", 11);
    assert_int_equal(x86_decode(b, sizeof(b), X86_MODE_64, &in), -E2BIG);
    assert_int_equal(x86_decode(b + 2, sizeof(b) - 2, X86_MODE_64, &in), 0);
    assert_int_equal(in.len, 15);
}

/* Mark what every opcode of a map decodes to behind these bytes. */
static void sweep(enum x86_mode mode, const uint8_t *head, unsigned n, bool *seen)
{
    uint8_t b[16];

    for (unsigned op = 0; op < 256; op++) {
        for (unsigned modrm = 0; modrm < 256; modrm++) {
            struct x86_insn in;
            memset(b, 0x24, sizeof(b));
            memcpy(b, head, n);
            b[n] = (uint8_t)op;
            b[n + 1] = (uint8_t)modrm;
            if (x86_decode(b, sizeof(b), mode, &in) == 0) {
                assert_in_range(in.op, 1, X86_OP_COUNT - 1);
                assert_in_range(in.nopnd, 0, 5);
                seen[in.op] = true;
            }
        }
    }
}

static void every_operation_is_reachable(void **state)
{
    static bool seen[X86_OP_COUNT];
    static const uint8_t pps[] = { 0, 0x66, 0xf3, 0xf2 };
    uint8_t h[8];
    (void)state;

    for (unsigned pp = 0; pp < 4; pp++) {
        for (unsigned rex = 0; rex < 2; rex++) {
            for (unsigned map = 0; map < 4; map++) {
                unsigned n = 0;
                if (pps[pp]) {
                    h[n++] = pps[pp];
                }
                if (rex) {
                    h[n++] = 0x48;
                }
                if (map) {
                    h[n++] = 0x0f;
                }
                if (map > 1) {
                    h[n++] = map == 2 ? 0x38 : 0x3a;
                }
                sweep(X86_MODE_64, h, n, seen);
                if (!rex) {
                    sweep(X86_MODE_32, h, n, seen);
                }
            }
        }
        for (unsigned map = 1; map <= 6; map++) {
            for (unsigned f = 0; f < 16; f++) {
                bool unused_v = f & 1, w = f & 2;
                if (map <= 3) {
                    memcpy(h, (uint8_t[]){ 0xc4, (uint8_t)(0xe0 | map), (uint8_t)(w << 7 | (unused_v ? 0x78 : 0x28) | (f & 4) | pp) }, 3);
                    sweep(X86_MODE_64, h, 3, seen);
                }
                for (unsigned aaa = 0; aaa < 2; aaa++) {
                    h[0] = 0x62;
                    h[1] = (uint8_t)(0xf0 | map);
                    h[2] = (uint8_t)(w << 7 | (unused_v ? 0x78 : 0x28) | 4 | pp);
                    h[3] = (uint8_t)(8 | aaa | (f & 4 ? 0x40 : 0) | (f & 8 ? 0x20 : 0));
                    sweep(X86_MODE_64, h, 4, seen);
                }
            }
        }
    }
    for (unsigned op = 1; op < X86_OP_COUNT; op++) {
        if (!seen[op]) {
            fail_msg("no bytes decode to %s", x86_op_name((enum x86_op)op));
        }
    }
}

static void text_fits_any_buffer(void **state)
{
    (void)state;
    rnd_state = 2;
    for (unsigned i = 0; i < 30000; i++) {
        uint8_t bytes[16];
        struct x86_insn in;
        char whole[256], text[64];
        make(bytes);
        if (x86_decode(bytes, 15, (enum x86_mode)(i % 3), &in)) {
            continue;
        }
        assert_ptr_equal(x86_format(&in, rnd(), whole, sizeof(whole)), whole);
        uint64_t rip = rnd();
        x86_format(&in, rip, whole, sizeof(whole));
        size_t size = i % sizeof(text);
        memset(text, 0x55, sizeof(text));
        x86_format(&in, rip, text, size);
        if (size) {
            assert_int_equal(text[MIN(size - 1, strlen(whole))], '\0');
            assert_memory_equal(text, whole, MIN(size - 1, strlen(whole)));
        }
        for (size_t k = size; k < sizeof(text); k++) {
            assert_int_equal(text[k], 0x55);
        }
    }
    assert_string_equal(x86_op_name(X86_OP_VPERMT2W), "VPERMT2W");
    assert_string_equal(x86_op_name(X86_OP_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_reads_past_the_end_and_asks_for_more_exactly),
        cmocka_unit_test(fifteen_bytes_are_the_limit),
        cmocka_unit_test(every_operation_is_reachable),
        cmocka_unit_test(text_fits_any_buffer),
    };
    return cmocka_run_group_tests_name("decoder rules", tests, NULL, NULL);
}
