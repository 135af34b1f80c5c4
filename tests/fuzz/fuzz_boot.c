/*
 * The kernel loader under a hostile file. The first byte of the input chooses what the
 * rest is: a file as it stands, or patches {u16 offset, u8 count, bytes} to a bzImage or
 * ELF file that would boot, so that the fuzzer is past the magic numbers from the start.
 * Checked besides memory safety: what is accepted lies in RAM above 1 MiB with its entry
 * inside, what is refused says why.
 *
 * clang -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE tests/fuzz/fuzz_boot.c
 * with the sources of base, memory and boot, -larchive -lcmocka; -dict=tests/fuzz/boot.dict.
 * tests/unit/boot/test_fuzz.c runs it with a fixed seed.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "hv/boot/blob.h"
#include "hv/boot/loader.h"
#include "tests/unit/boot/fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define RAM (48 * MIB)

enum { FUZZ_RAW, FUZZ_BZIMAGE, FUZZ_ELF, FUZZ_KINDS };

/* A copy of base with the patches applied; may cut the file where a patch has no bytes. */
static struct bytes patched(struct bytes base, const uint8_t *p, size_t len)
{
    struct bytes b = { hv_alloc(base.len), base.len };

    hv_assert(b.p);
    memcpy(b.p, base.p, base.len);
    while (len >= 3) {
        size_t off = get_le16(p), count = MIN(p[2], len - 3);
        if (p[2] == 0) {
            b.len = MIN(b.len, off);
        } else if (off < base.len) {
            memcpy(b.p + off, p + 3, MIN(count, base.len - off));
        }
        p += 3 + count;
        len -= 3 + count;
    }
    return b;
}

static void load(struct mem *m, const uint8_t *file, size_t len, bool guest_unpacks)
{
    struct kernel_target t = { .m = m, .low_bytes = RAM, .ram_bytes = RAM, .guest_unpacks = guest_unpacks };
    struct blob b = blob_from_memory(file, len, "vmlinuz");
    struct kernel k;
    struct hv_error e = { 0 };
    struct boot_entry en;

    if (kernel_load(&b, &t, &k, &e) != 0) {
        hv_assert(hv_error_is_set(&e) && e.message[0]);
        return;
    }
    hv_assert(k.base >= KERNEL_LOWEST && k.base < k.end && k.end <= RAM);
    hv_assert(k.entry >= k.base && k.entry < k.end);
    hv_assert(memchr(k.what, 0, sizeof(k.what)));

    struct e820 map = { .count = 1, .entry = { { 0, RAM, E820_RAM } } };
    struct loaded l = { .kernel = &k, .e820 = &map };
    hv_assert((k.entry_kind == KERNEL_ENTRY_PVH ? pvh_enter : linux_enter)(m, &l, &en) == 0);
    hv_assert(en.rip == k.entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct mem *m;
    static struct bytes bzimage, elf;

    if (!m) {
        hv_assert(mem_new("fuzz", -1, &m, NULL) == 0 && mem_add_ram(m, 0, RAM, NULL) == 0);
        bzimage = bzimage_lz4();
        elf = elf_make(true, true);
    }
    if (len < 1) {
        return 0;
    }
    unsigned kind = data[0] % FUZZ_KINDS;
    bool guest_unpacks = data[0] & 0x80;
    if (kind == FUZZ_RAW) {
        load(m, data + 1, len - 1, guest_unpacks);
        return 0;
    }
    struct bytes file = patched(kind == FUZZ_ELF ? elf : bzimage, data + 1, len - 1);
    load(m, file.p, file.len, guest_unpacks);
    free(file.p);
    return 0;
}
