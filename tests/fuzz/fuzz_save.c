/*
 * Saved-state streams: bytes as they come from a file or another host. Besides memory
 * safety: a stream that load_init accepts has sections that load_find finds, whose
 * bytes read back whole, and which the writer writes again to the same bytes.
 *
 * clang -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE tests/fuzz/fuzz_save.c
 * with the archive of base; tests/unit/base/test_fuzz_save.c runs it with a fixed seed.
 */
#include "hv/base/save.h"

#include "hv/base/endian.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Read a section to its end in fields of mixed widths, then past it. */
static void read_whole(struct load_section s, size_t len)
{
    uint8_t one[3];
    size_t left = len;

    for (unsigned i = 0; left >= 8; i++) {
        switch (i % 4) {
        case 0: load_u8(&s); left -= 1; break;
        case 1: load_u16(&s); left -= 2; break;
        case 2: load_u32(&s); left -= 4; break;
        default: load_bytes(&s, one, sizeof(one)); left -= sizeof(one); break;
        }
    }
    for (; left > 0; left--) {
        load_u8(&s);
    }
    hv_assert(load_done(&s) == 0);
    hv_assert(load_u64(&s) == 0 && load_done(&s) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct load_reader r;
    struct load_section s;
    struct hv_error e = { 0 };
    uint8_t *copy = malloc(len ? len : 1);

    memcpy(copy, data, len);
    int got = load_init(&r, copy, len, &e);
    hv_assert((got < 0) == hv_error_is_set(&e));
    if (got == 0) {
        struct save_writer w;
        save_init(&w);
        for (size_t pos = 8; pos < len;) {
            size_t tag_len = copy[pos];
            char tag[256] = "";
            memcpy(tag, copy + pos + 1, tag_len);
            const uint8_t *fixed = copy + pos + 1 + tag_len;
            uint32_t instance = get_le32(fixed), version = get_le32(fixed + 4), body = get_le32(fixed + 8);
            hv_assert(load_find(&r, tag, instance, &s) == 0);
            hv_assert(s.version == version && s.p == fixed + 12 && s.end == s.p + body);
            read_whole(s, body);
            save_begin(&w, tag, instance, version);
            save_bytes(&w, s.p, body);
            save_end(&w);
            pos += 1 + tag_len + 12 + body;
        }
        hv_assert(save_status(&w) == 0 && w.out.len == len && memcmp(w.out.buf, copy, len) == 0);
        save_fini(&w);
        hv_assert(load_find(&r, "no such section here", 0, &s) < 0);
    }
    free(copy);
    return 0;
}
