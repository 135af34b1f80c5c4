/* Saved-state framing: what is written reads back, and hostile streams are refused. */
#include "hv/base/save.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include "hv/base/endian.h"
#include "hv/base/fault.h"

static void two_sections(struct save_writer *w)
{
    save_init(w);
    save_begin(w, "uart", 0, 3);
    save_u8(w, 0x12);
    save_u16(w, 0x3456);
    save_u32(w, 0x789abcde);
    save_u64(w, 0x1122334455667788);
    save_bytes(w, "ring", 4);
    save_end(w);
    save_begin(w, "uart", 1, 1);
    save_end(w);
}

static void round_trip(void **state)
{
    struct save_writer w;
    struct load_reader r;
    struct load_section s;
    char ring[4];

    two_sections(&w);
    assert_int_equal(save_status(&w), 0);
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, NULL), 0);
    assert_int_equal(load_find(&r, "uart", 0, &s), 0);
    assert_int_equal(s.version, 3);
    assert_int_equal(load_u8(&s), 0x12);
    assert_int_equal(load_u16(&s), 0x3456);
    assert_int_equal(load_u32(&s), 0x789abcde);
    assert_int_equal(load_done(&s), -EINVAL);        /* bytes left over */
    assert_int_equal(load_u64(&s), 0x1122334455667788);
    load_bytes(&s, ring, 4);
    assert_memory_equal(ring, "ring", 4);
    assert_int_equal(load_done(&s), 0);
    assert_int_equal(load_find(&r, "uart", 1, &s), 0);
    assert_int_equal(load_done(&s), 0);
    assert_int_equal(load_find(&r, "uart", 2, &s), -ENOENT);
    assert_int_equal(load_find(&r, "uar", 0, &s), -ENOENT);
    assert_int_equal(load_find(&r, "uartx", 0, &s), -ENOENT);
    save_fini(&w);
    save_fini(&w);
}

static void layout_is_the_documented_one(void **state)
{
    static const uint8_t want[] = { 'H', 'V', 'S', 'A', 'V', 'E', '1', '\n', 2, 'i', 'o', 4, 3, 2, 1, 8, 7, 6, 5,
                                    3, 0, 0, 0, 0xaa, 0xcc, 0xbb };
    struct save_writer w;

    save_init(&w);
    save_begin(&w, "io", 0x01020304, 0x05060708);
    save_u8(&w, 0xaa);
    save_u16(&w, 0xbbcc);
    save_end(&w);
    assert_int_equal(w.out.len, sizeof(want));
    assert_memory_equal(w.out.buf, want, sizeof(want));
    save_fini(&w);
}

static void reading_past_the_end_gives_zeros_and_sticks(void **state)
{
    struct save_writer w;
    struct load_reader r;
    struct load_section s;
    uint8_t b[4] = { 1, 1, 1, 1 };

    save_init(&w);
    save_begin(&w, "a", 0, 1);
    save_u16(&w, 0xffff);
    save_u8(&w, 0xff);
    save_end(&w);
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, NULL), 0);
    assert_int_equal(load_find(&r, "a", 0, &s), 0);
    assert_int_equal(load_u32(&s), 0);
    assert_true(s.bad);
    assert_int_equal(load_u8(&s), 0);                /* although a byte is there */
    load_bytes(&s, b, 4);
    assert_int_equal(get_le32(b), 0);
    assert_int_equal(load_done(&s), -EINVAL);
    assert_int_equal(load_find(&r, "a", 0, &s), 0);
    load_bytes(&s, b, SIZE_MAX > 4 ? 3 : 0);
    assert_int_equal(load_done(&s), 0);
    save_fini(&w);
}

static void every_truncation_is_refused_or_whole(void **state)
{
    struct save_writer w;
    struct load_reader r;
    size_t whole = 0;

    two_sections(&w);
    for (size_t len = 0; len < w.out.len; len++) {
        struct hv_error e = { 0 };
        uint8_t *copy = malloc(len ? len : 1);       /* exact size: a read too far is seen by ASan */
        memcpy(copy, w.out.buf, len);
        int got = load_init(&r, copy, len, &e);
        if (got == 0) {
            whole++;                                 /* the cuts between sections */
        } else {
            assert_int_equal(got, -EINVAL);
            assert_true(hv_error_is_set(&e));
        }
        free(copy);
    }
    assert_int_equal(whole, 2);
    save_fini(&w);
}

static int load_with(const struct save_writer *w, size_t pos, uint8_t value, struct hv_error *e)
{
    struct load_reader r;
    uint8_t *copy = malloc(w->out.len);
    memcpy(copy, w->out.buf, w->out.len);
    copy[pos] = value;
    int got = load_init(&r, copy, w->out.len, e);
    free(copy);
    return got;
}

static void damage_is_refused(void **state)
{
    struct save_writer w;
    struct hv_error e = { 0 };

    two_sections(&w);
    assert_int_equal(load_with(&w, 6, '2', &e), -EINVAL);
    assert_non_null(strstr(e.message, "newer version"));
    assert_int_equal(load_with(&w, 8, 0, &e), -EINVAL);      /* no tag */
    assert_int_equal(load_with(&w, 8, 255, &e), -EINVAL);    /* tag too long */
    assert_int_equal(load_with(&w, 9, '\n', &e), -EINVAL);   /* control character in a tag */
    assert_int_equal(load_with(&w, 9, 0xff, &e), -EINVAL);
    assert_int_equal(load_with(&w, 8 + 5 + 8 + 3, 0xff, &e), -EINVAL);  /* length 0xff000013 */
    assert_non_null(strstr(e.message, "cut or damaged"));
    save_fini(&w);
}

static void repeated_sections_are_refused(void **state)
{
    struct save_writer w;
    struct load_reader r;
    struct hv_error e = { 0 };

    two_sections(&w);
    save_begin(&w, "uart", 0, 9);
    save_end(&w);
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, &e), -EINVAL);
    assert_non_null(strstr(e.message, "uart 0 twice"));
    save_fini(&w);
}

static void too_many_sections_are_refused(void **state)
{
    struct save_writer w;
    struct load_reader r;

    save_init(&w);
    for (uint32_t i = 0; i < SAVE_MAX_SECTIONS; i++) {
        save_begin(&w, "x", i, 1);
        save_end(&w);
    }
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, NULL), 0);
    save_begin(&w, "x", SAVE_MAX_SECTIONS, 1);
    save_end(&w);
    assert_int_equal(load_init(&r, w.out.buf, w.out.len, NULL), -EINVAL);
    save_fini(&w);
}

static void every_failed_allocation_is_reported(void **state)
{
    uint64_t n = 1;

    for (;; n++) {
        struct save_writer w;
        fault_arm(FAULT_ALLOC, n, ENOMEM);
        two_sections(&w);
        bool fired = fault_calls(FAULT_ALLOC) >= n;
        fault_arm(FAULT_ALLOC, 0, 0);
        assert_int_equal(save_status(&w), fired ? -ENOMEM : 0);
        save_fini(&w);
        if (!fired) {
            break;
        }
    }
    assert_true(n > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(layout_is_the_documented_one),
        cmocka_unit_test(reading_past_the_end_gives_zeros_and_sticks),
        cmocka_unit_test(every_truncation_is_refused_or_whole),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(repeated_sections_are_refused),
        cmocka_unit_test(too_many_sections_are_refused),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests_name("base/save", tests, NULL, NULL);
}
