/*
 * The decoder under arbitrary bytes, beside Zydis. Input: a mode byte, then code. Every
 * offset is decoded from a heap block that ends where the bytes end, so that a read past it
 * is seen; an answer that differs from Zydis' and is not a listed exception aborts.
 *
 * clang -O1 -g -fsanitize=fuzzer,address,undefined -std=gnu17 -D_GNU_SOURCE -I. -Wno-initializer-overrides \
 *   tests/fuzz/fuzz_decode.c tests/tools/zydis_compare.c tests/tools/zydis_except.c \
 *   hv/engine/soft/{decode,decode_tab,insn_format}.c hv/base/{base,fault,file}.c -lZydis
 */
#include "tests/tools/zydis_compare.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void one(struct zcmp *c, const uint8_t *p, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);
    const char *what;
    char text[200];
    struct x86_insn shorter;

    hv_assert(exact);
    memcpy(exact, p, len);
    if (zcmp_one(c, exact, len, &what) == ZCMP_DIFFERENT) {
        zcmp_print(c, exact, len, what);
        abort();
    }
    if (!c->r) {
        hv_assert(c->in.len >= 1 && c->in.len <= X86_MAX_INSN && c->in.len <= len);
        hv_assert(c->in.op > X86_OP_INVALID && c->in.op < X86_OP_COUNT && c->in.nopnd <= ARRAY_SIZE(c->in.opnd));
        hv_assert(x86_decode(exact, c->in.len - 1u, c->mode, &shorter) == -EAGAIN);
        hv_assert(*x86_format(&c->in, 0x1000, text, sizeof(text)));
    } else {
        hv_assert(c->r == -EAGAIN || c->r == -E2BIG || c->r == -EILSEQ);
        hv_assert(c->r != -EAGAIN || len < X86_MAX_INSN);
    }
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct zcmp c[3];

    if (!len)
        return 0;
    struct zcmp *z = &c[data[0] % 3];
    static bool ready;
    for (unsigned m = 0; m < 3 && !ready; m++)
        zcmp_init(&c[m], (enum x86_mode)m);
    ready = true;
    for (size_t i = 1; i < len && i < 64; i++)
        one(z, data + i, MIN(len - i, (size_t)X86_MAX_INSN));
    return 0;
}
