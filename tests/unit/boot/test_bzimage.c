/* bzImage: what the guest finds in its RAM and registers, and every way a file can be wrong. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>

#include "hv/base/fault.h"
#include "hv/boot/loader.h"
#include "hv/boot/unpack.h"
#include "tests/unit/boot/fixture.h"

#define BP LOADER_BOOT_PARAMS

static void check_entry64(struct vm *v, gpa_t rip)
{
    const struct boot_entry *en = &v->res.entry;

    assert_int_equal(en->mode, BOOT_MODE_LONG64);
    assert_int_equal(en->rip, rip);
    assert_int_equal(en->rsi, BP);
    assert_int_equal(en->rflags, 2);
    assert_int_equal(en->cr0, 0x80000011);
    assert_int_equal(en->cr4, 0x20);
    assert_int_equal(en->efer, 0x500);
    assert_int_equal(en->cs.sel, 0x10);
    assert_int_equal(en->data.sel, 0x18);
    /* Descriptors in the GDT say the same as the segments (machine-platform 3.2). */
    assert_int_equal(ram64(v, en->gdt_base + 0x10), 0x00AF9B000000FFFF);
    assert_int_equal(ram64(v, en->gdt_base + 0x18), 0x00CF93000000FFFF);
    assert_int_equal(ram64(v, en->gdt_base + en->tr.sel), 0x00008B0006000067);
    assert_int_equal(ram64(v, en->gdt_base + en->tr.sel + 8), 0);
    assert_int_equal(en->gdt_limit, 0x2F);
    assert_int_equal(en->tr.base, 0x600);
    assert_int_equal(en->tr.limit, 0x67);
    assert_int_equal(en->tr.attr, 0x8B);
    assert_int_equal(en->ldtr.attr, 0x10000);

    /* Walk the page tables for a few addresses of the first 4 GiB. */
    static const gpa_t AT[] = { 0, 0x7000, 0x1000000, 0x3FFFFFFF, 0x40000000, 0xDFFFF123, 0xFFFFFFFF };
    for (size_t i = 0; i < ARRAY_SIZE(AT); i++) {
        uint64_t l4 = ram64(v, en->cr3 + (AT[i] >> 39) * 8);
        uint64_t l3 = ram64(v, (l4 & HV_PAGE_MASK) + (AT[i] >> 30 & 511) * 8);
        uint64_t l2 = ram64(v, (l3 & HV_PAGE_MASK) + (AT[i] >> 21 & 511) * 8);
        assert_int_equal(l4 & 0xFFF, 3);
        assert_int_equal(l3 & 0xFFF, 3);
        assert_int_equal(l2, (AT[i] & ~(2 * MIB - 1)) | 0x83);
    }
    assert_int_equal(ram64(v, en->cr3 + 8), 0);
}

static void check_text(struct vm *v)
{
    char text[sizeof(ELF_BANNER)];
    assert_int_equal(mem_read(v->m, ELF_PADDR + 0x100, text, sizeof(text)), 0);
    assert_string_equal(text, ELF_BANNER);
}

static void test_unpacked(void **state)
{
    struct bytes bz = bzimage_lz4();
    struct vm v;
    uint8_t line[80], initrd[5000];

    memset(initrd, 'i', sizeof(initrd));
    vm_init(&v, 512 * MIB);
    vm_kernel(&v, bz.p, bz.len);
    vm_initrd(&v, initrd, sizeof(initrd));
    v.cfg.cmdline = "console=ttyS0";
    vm_boots(&v);
    assert_string_equal(v.res.kernel, "Linux 9.9.9-test, bzImage, lz4");
    check_entry64(&v, ELF_PADDR);
    check_text(&v);
    assert_int_equal(v.res.kernel_base, ELF_PADDR);
    assert_int_equal(v.res.kernel_end, ELF_PADDR + ELF_MEM_LEN);

    /* boot_params: the file's header, and what the loader says. */
    uint8_t bp[4096];
    assert_int_equal(mem_read(v.m, BP, bp, sizeof(bp)), 0);
    assert_int_equal(get_le16(bp + 0x1FE), 0xAA55);
    assert_memory_equal(bp + 0x202, "HdrS\x0f\x02", 6);
    assert_int_equal(bp[0x1EF], 0);
    assert_int_equal(bp[0x210], 0xFF);
    assert_int_equal(bp[0x211], 0x01);
    assert_int_equal(get_le64(bp + 0x070), 0xE0000);
    assert_int_equal(get_le32(bp + 0x228), 0x20000);
    assert_int_equal(get_le32(bp + 0x21C), sizeof(initrd));
    assert_int_equal(get_le32(bp + 0x260), BZ_INIT_SIZE);
    assert_int_equal(bp[0x1E8], 7);
    assert_int_equal(get_le64(bp + 0x2D0 + 3 * 20), 0x100000);
    assert_int_equal(get_le64(bp + 0x2D0 + 3 * 20 + 8), 511 * MIB);
    assert_int_equal(get_le32(bp + 0x2D0 + 3 * 20 + 16), 1);

    gpa_t at = get_le32(bp + 0x218);
    assert_int_equal(at, 512 * MIB - 8192);         /* as high as it goes */
    assert_int_equal(v.res.initrd, at);
    uint8_t got[sizeof(initrd)];
    assert_int_equal(mem_read(v.m, at, got, sizeof(got)), 0);
    assert_memory_equal(got, initrd, sizeof(got));

    assert_int_equal(mem_read(v.m, 0x20000, line, sizeof(line)), 0);
    assert_string_equal((char *)line, "console=ttyS0 memhp_default_state=online");

    /* The tables are there, and the BIOS data area knows of the EBDA. */
    assert_int_equal(mem_read(v.m, v.res.rsdp, line, 8), 0);
    assert_memory_equal(line, "RSD PTR ", 8);
    assert_int_equal(mem_read(v.m, v.res.smbios, line, 5), 0);
    assert_memory_equal(line, "_SM3_", 5);
    assert_int_equal(ram32(&v, 0x40E) & 0xFFFF, 0x9FC0);
    assert_int_equal(ram32(&v, 0x413) & 0xFFFF, 639);
    assert_int_equal(ram32(&v, 0x400) & 0xFFFF, 0x3F8);
    vm_fini(&v);
    free(bz.p);
}

/* The guest's decompressor runs: when asked for, and when we do not know the format. */
static void test_guest_unpacks(void **state)
{
    static const uint8_t LZO[64] = { 0x89, 0x4c, 0x5a, 0x4f, 0x00 };
    struct bytes known = bzimage_lz4(), unknown = bzimage_make(LZO, sizeof(LZO));
    struct bytes tiny = bzimage_make(LZO, 3);

    for (int i = 0; i < 3; i++) {
        struct bytes *bz = (struct bytes *[]){ &known, &unknown, &tiny }[i];
        struct vm v;
        uint8_t b[16];
        vm_init(&v, 128 * MIB);
        v.cfg.guest_unpacks = i == 0;
        vm_kernel(&v, bz->p, bz->len);
        vm_boots(&v);
        assert_string_equal(v.res.kernel, "Linux 9.9.9-test, bzImage, unpacks itself");
        check_entry64(&v, ELF_PADDR + 0x200);
        assert_int_equal(mem_read(v.m, ELF_PADDR + BZ_PAYLOAD, b, 3), 0);
        assert_memory_equal(b, bz->p + BZ_PROT_OFF + BZ_PAYLOAD, 3);
        assert_int_equal(v.res.kernel_end, ELF_PADDR + BZ_INIT_SIZE);
        assert_int_equal(v.res.initrd_len, 0);
        assert_int_equal(ram32(&v, BP + 0x218), 0);
        assert_int_equal(ram32(&v, BP + 0x21C), 0);
        vm_fini(&v);
    }
    free(known.p);
    free(unknown.p);
    free(tiny.p);
}

/* Without XLF_KERNEL_64 the 32-bit boot protocol: entry at the start, paging off, always unpacks itself. */
static void test_32bit(void **state)
{
    struct bytes bz = bzimage_lz4();
    struct vm v;

    vm_init(&v, 128 * MIB);
    put_le16(bz.p + 0x236, get_le16(bz.p + 0x236) & ~1);
    vm_kernel(&v, bz.p, bz.len);
    vm_boots(&v);
    assert_string_equal(v.res.kernel, "Linux 9.9.9-test, bzImage, unpacks itself");
    const struct boot_entry *en = &v.res.entry;
    assert_int_equal(en->mode, BOOT_MODE_FLAT32);
    assert_int_equal(en->rip, ELF_PADDR);
    assert_int_equal(en->rsi, BP);
    assert_int_equal(en->rbx, 0);
    assert_int_equal(en->rflags, 2);
    assert_int_equal(en->cr0, 0x11);
    assert_int_equal(en->cr4, 0);
    assert_int_equal(en->efer, 0);
    assert_int_equal(en->cs.sel, 0x10);
    assert_int_equal(en->cs.attr, 0xC09B);
    assert_int_equal(en->data.sel, 0x18);
    assert_int_equal(ram32(&v, BP + 0x214), ELF_PADDR);
    assert_int_equal(ram32(&v, BP + 0x228), 0x20000);
    vm_fini(&v);
    free(bz.p);
}

/* A payload that unpacks to something other than an ELF file is the guest's business too. */
static void test_payload_is_no_elf(void **state)
{
    uint8_t flat[256] = { 0xEB, 0xFE };
    struct bytes packed = lz4_legacy(flat, sizeof(flat)), bz = bzimage_make(packed.p, packed.len);
    struct vm v;

    vm_init(&v, 128 * MIB);
    vm_kernel(&v, bz.p, bz.len);
    vm_boots(&v);
    check_entry64(&v, ELF_PADDR + 0x200);
    vm_fini(&v);
    free(packed.p);
    free(bz.p);
}

/*
 * Two lz4 blocks, so that it arrives in two pieces: its text is cut in the middle. Headers that are not in the
 * first piece leave it to the guest.
 */
static void test_pieces(void **state)
{
    struct bytes elf = elf_make(true, false);
    const size_t cuts[] = { ELF_TEXT_OFF + 0x100 + 4, ELF_TEXT_OFF, ELF_PHDR_LOAD + 56, ELF_PHDR_LOAD + 55 };

    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        struct bytes a = lz4_legacy(elf.p, cuts[i]), b = lz4_legacy(elf.p + cuts[i], elf.len - cuts[i]);
        const size_t both = a.len - 4 + b.len - 4;           /* the second one's magic, the first one's length */
        uint8_t *packed = hv_alloc(both);
        memcpy(packed, a.p, a.len - 4);
        memcpy(packed + a.len - 4, b.p + 4, b.len - 4);
        put_le32(packed + both - 4, (uint32_t)elf.len);

        struct bytes bz = bzimage_make(packed, both);
        struct vm v;
        vm_init(&v, 128 * MIB);
        vm_kernel(&v, bz.p, bz.len);
        vm_boots(&v);
        if (cuts[i] >= ELF_PHDR_LOAD + 56) {
            assert_string_equal(v.res.kernel, "Linux 9.9.9-test, bzImage, lz4");
            check_text(&v);
        } else {
            assert_string_equal(v.res.kernel, "Linux 9.9.9-test, bzImage, unpacks itself");
        }
        vm_fini(&v);
        free(bz.p);
        free(packed);
        free(a.p);
        free(b.p);
    }
    free(elf.p);
}

/* What is wrong with the headers is said if the payload is whole, else that it is not. */
static void test_payload_of_another(void **state)
{
    struct bytes elf = elf_make(true, false);
    struct vm v;

    put_le16(elf.p + 18, 183);
    struct bytes packed = lz4_legacy(elf.p, elf.len);
    vm_init(&v, 128 * MIB);
    for (uint32_t more = 0; more < 2; more++) {
        put_le32(packed.p + packed.len - 4, (uint32_t)elf.len + more);
        struct bytes bz = bzimage_make(packed.p, packed.len);
        vm_kernel(&v, bz.p, bz.len);
        vm_refuses(&v, more ? HV_USAGE : HV_UNSUPPORTED, more ? "it ends early" : "is an ELF file for arm64");
        assert_int_equal(ram64(&v, ELF_PADDR), 0);
        free(bz.p);
    }
    vm_fini(&v);
    free(packed.p);
    free(elf.p);
}

/* Every compression that Linux knows and libarchive writes; lz4 is made by hand above. */
static void test_compressions(void **state)
{
    static const struct { const char *name; int (*add)(struct archive *); bool appended; } T[] = {
        { "gzip", archive_write_add_filter_gzip, false }, { "bzip2", archive_write_add_filter_bzip2, true },
        { "xz", archive_write_add_filter_xz, true }, { "lzma", archive_write_add_filter_lzma, true },
        { "zstd", archive_write_add_filter_zstd, true },
    };
    for (size_t i = 0; i < ARRAY_SIZE(T); i++) {
        struct bytes elf = elf_make(true, false);
        uint8_t packed[16384];
        size_t used = 0;
        struct archive *a = archive_write_new();
        struct archive_entry *en = archive_entry_new();

        assert_int_equal(T[i].add(a), ARCHIVE_OK);
        archive_write_set_format_raw(a);
        archive_write_set_bytes_per_block(a, 0);
        archive_write_open_memory(a, packed, sizeof(packed), &used);
        archive_entry_set_filetype(en, AE_IFREG);
        archive_write_header(a, en);
        assert_int_equal(archive_write_data(a, elf.p, elf.len), elf.len);
        archive_write_close(a);
        archive_write_free(a);
        archive_entry_free(en);
        assert_true(used > 0 && used + 4 < sizeof(packed));
        if (T[i].appended) {
            put_le32(packed + used, (uint32_t)elf.len);
            used += 4;
        }

        struct bytes bz = bzimage_make(packed, used);
        struct vm v;
        vm_init(&v, 128 * MIB);
        vm_kernel(&v, bz.p, bz.len);
        vm_boots(&v);
        assert_non_null(strstr(v.res.kernel, T[i].name));
        check_text(&v);
        vm_fini(&v);

        /* One wrong byte in the middle: every one of these formats has a checksum or a structure to tell,
         * and where it does not, the result is still an ELF file that fits or an error, never a crash. */
        bz.p[BZ_PROT_OFF + BZ_PAYLOAD + used / 2] ^= 0x55;
        vm_init(&v, 128 * MIB);
        vm_kernel(&v, bz.p, bz.len);
        if (vm_boot(&v) != 0) {
            assert_int_equal(v.e.code, HV_USAGE);
            assert_true(v.e.message[0]);
        }
        vm_fini(&v);
        free(bz.p);
        free(elf.p);
    }
}

static void test_damaged_payload(void **state)
{
    struct bytes elf = elf_make(true, true), packed = lz4_legacy(elf.p, elf.len);
    struct vm v;

    vm_init(&v, 128 * MIB);
    for (int delta = -1; delta <= 1; delta += 2) {           /* shorter and longer than it says */
        put_le32(packed.p + packed.len - 4, (uint32_t)elf.len + (uint32_t)delta);
        struct bytes bz = bzimage_make(packed.p, packed.len);
        vm_kernel(&v, bz.p, bz.len);
        vm_refuses(&v, HV_USAGE, delta < 0 ? "payload is damaged: it is longer than it says"
                                           : "payload is damaged: it ends early");
        free(bz.p);
    }
    static const uint32_t CLAIMS[] = { 0, UINT32_MAX, (1u << 30) + 1 };
    for (size_t i = 0; i < ARRAY_SIZE(CLAIMS); i++) {
        put_le32(packed.p + packed.len - 4, CLAIMS[i]);
        struct bytes bz = bzimage_make(packed.p, packed.len);
        vm_kernel(&v, bz.p, bz.len);
        vm_refuses(&v, HV_USAGE, "claims to unpack to");
        free(bz.p);
    }
    put_le32(packed.p + packed.len - 4, 1u << 30);           /* a claim that the VM has no room for */
    struct bytes bz = bzimage_make(packed.p, packed.len);
    vm_kernel(&v, bz.p, bz.len);
    vm_refuses(&v, HV_NO_RESOURCES, "needs at least 1040M of memory, the VM has 128M");
    free(bz.p);

    put_le32(packed.p + packed.len - 4, (uint32_t)elf.len);
    put_le32(packed.p + 4, 0x7fffffff);                      /* an impossible lz4 block */
    bz = bzimage_make(packed.p, packed.len);
    vm_kernel(&v, bz.p, bz.len);
    vm_refuses(&v, HV_USAGE, "payload is damaged");
    assert_string_equal(v.e.object, "vmlinuz");
    assert_true(v.e.hint[0]);
    free(bz.p);
    vm_fini(&v);
    free(elf.p);
    free(packed.p);
}

/* A file cut anywhere is refused with a sentence, whatever the place. */
static void test_truncated(void **state)
{
    struct bytes bz = bzimage_lz4();
    struct vm v;

    vm_init(&v, 128 * MIB);
    vm_kernel(&v, bz.p, bz.len);
    vm_boots(&v);
    for (size_t len = bz.len; len-- > 0;) {
        assert_int_equal(ftruncate(v.cfg.kernel_fd, (off_t)len), 0);
        assert_int_not_equal(vm_boot(&v), 0);
        assert_int_equal(v.e.code, HV_USAGE);
        const char *want = len == 0       ? "is empty"
                           : len >= 0x206 ? "is truncated"
                           : len >= 2     ? "is truncated: a kernel is longer than"
                                          : "is not a kernel";
        if (!strstr(v.e.message, want)) {
            fail_msg("%zu bytes: \"%s\", expected \"%s\"", len, v.e.message, want);
        }
    }
    vm_fini(&v);
    free(bz.p);
}

/* Each field of the header on its own. */
static void test_header_fields(void **state)
{
    static const struct { unsigned off, bytes; uint64_t val; enum hv_code code; const char *text; } T[] = {
        { 0x206, 2, 0x020B, HV_UNSUPPORTED, "is too old: boot protocol 2.11, 2.12 (Linux 3.8) or newer" },
        { 0x206, 2, 0x0000, HV_UNSUPPORTED, "is too old: boot protocol 0.00" },
        { 0x211, 1, 0x00, HV_USAGE, "does not load high" },
        { 0x1F1, 1, 0xFF, HV_USAGE, "is truncated" },
        { 0x1F1, 1, 0x00, HV_USAGE, "is truncated" },            /* 0 means 4 sectors */
        { 0x1F4, 4, 0, HV_USAGE, "its kernel part has 0 bytes" },
        { 0x1F4, 4, UINT32_MAX, HV_USAGE, "is truncated" },
        { 0x248, 4, UINT32_MAX, HV_USAGE, "its payload is outside" },
        { 0x24C, 4, UINT32_MAX, HV_USAGE, "its payload is outside" },
        { 0x258, 8, 0x90000, HV_USAGE, "wants to be loaded at 0x90000" },
        { 0x258, 8, 0x1000001, HV_USAGE, "wants to be loaded at 0x1000001" },
        { 0x258, 8, 0xFFFFFFFFFFFFF000, HV_USAGE, "wants to be loaded at" },
        { 0x258, 8, 0x100000000, HV_USAGE, "wants to be loaded at" },
    };
    struct bytes bz = bzimage_lz4();
    struct vm v;

    vm_init(&v, 128 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(T); i++) {
        uint8_t was[8], now[8];
        memcpy(was, bz.p + T[i].off, T[i].bytes);
        put_le64(now, T[i].val);
        memcpy(bz.p + T[i].off, now, T[i].bytes);
        vm_kernel(&v, bz.p, bz.len);
        vm_refuses(&v, T[i].code, T[i].text);
        assert_string_equal(v.e.object, "vmlinuz");
        memcpy(bz.p + T[i].off, was, T[i].bytes);
    }
    vm_fini(&v);
    free(bz.p);
}

/* Any byte of the header set to anything: it boots or it is refused, with RAM intact either way. */
static void test_header_bytes(void **state)
{
    struct bytes bz = bzimage_lz4();
    static const uint8_t VALS[] = { 0x00, 0x01, 0x7F, 0x80, 0xFF };
    struct vm v;
    unsigned booted = 0, refused = 0;

    vm_init(&v, 64 * MIB);
    for (int unpacks = 0; unpacks < 2; unpacks++) {
        v.cfg.guest_unpacks = unpacks;
        for (unsigned off = 0x1F1; off < 0x290; off++) {
            for (size_t i = 0; i < ARRAY_SIZE(VALS); i++) {
                uint8_t was = bz.p[off];
                bz.p[off] = VALS[i];
                vm_kernel(&v, bz.p, bz.len);
                if (vm_boot(&v) == 0) {
                    assert_true(v.res.kernel_base >= MIB && v.res.kernel_end <= 64 * MIB);
                    assert_true(v.res.entry.rip >= v.res.kernel_base && v.res.entry.rip < v.res.kernel_end);
                    booted++;
                } else {
                    assert_true(hv_error_is_set(&v.e) && v.e.message[0]);
                    refused++;
                }
                bz.p[off] = was;
            }
        }
    }
    assert_true(booted > 100 && refused > 100);
    vm_fini(&v);
    free(bz.p);
}

static void test_too_little_memory(void **state)
{
    struct bytes bz = bzimage_lz4();
    struct vm v;
    static uint8_t initrd[6 * MIB];

    initrd[0] = 1;
    /* Kernel to 19 MiB when unpacked here, to 24 MiB when the guest does it. */
    vm_init(&v, 17 * MIB);
    vm_kernel(&v, bz.p, bz.len);
    vm_refuses(&v, HV_NO_RESOURCES, "needs at least 19M of memory, the VM has 17M");
    assert_string_equal(v.e.hint, "--memory 64M");
    v.cfg.guest_unpacks = true;
    vm_refuses(&v, HV_NO_RESOURCES, "needs at least 24M of memory, the VM has 17M");
    vm_fini(&v);

    vm_init(&v, 24 * MIB);
    vm_kernel(&v, bz.p, bz.len);
    vm_boots(&v);
    vm_initrd(&v, initrd, sizeof(initrd));
    vm_refuses(&v, HV_NO_RESOURCES, "needs at least 25M of memory, the VM has 24M");
    assert_string_equal(v.e.object, "initrd.img");
    vm_fini(&v);
    vm_init(&v, 25 * MIB);
    vm_kernel(&v, bz.p, bz.len);
    vm_initrd(&v, initrd, sizeof(initrd));
    vm_boots(&v);
    assert_int_equal(v.res.initrd, 19 * MIB);
    vm_fini(&v);
    free(bz.p);
}

/* The kernel's own limit for the initrd's end, and large RAM. */
static void test_initrd_below_limit(void **state)
{
    struct bytes bz = bzimage_lz4();
    struct vm v;
    uint8_t initrd[10000] = { 1 };

    vm_init(&v, 6 * GIB);
    vm_kernel(&v, bz.p, bz.len);
    vm_initrd(&v, initrd, sizeof(initrd));
    vm_boots(&v);
    assert_int_equal(v.res.initrd, 0x80000000 - 0x3000);
    assert_int_equal(ram32(&v, BP + 0x1E8) & 0xFF, 8);
    assert_int_equal(ram64(&v, BP + 0x2D0 + 7 * 20), 4 * GIB);
    assert_int_equal(ram64(&v, BP + 0x2D0 + 7 * 20 + 8), 2560 * MIB);

    put_le32(bz.p + 0x22C, 0x37FFFFFF);
    vm_kernel(&v, bz.p, bz.len);
    vm_boots(&v);
    assert_int_equal(v.res.initrd, 0x38000000 - 0x3000);
    put_le32(bz.p + 0x22C, 0x1000000);
    vm_kernel(&v, bz.p, bz.len);
    vm_refuses(&v, HV_UNSUPPORTED, "is too large for this kernel");
    vm_fini(&v);
    free(bz.p);
}

static void test_cmdline_limits(void **state)
{
    struct bytes bz = bzimage_lz4();
    struct vm v;

    put_le32(bz.p + 0x238, 30);
    vm_init(&v, 128 * MIB);
    vm_kernel(&v, bz.p, bz.len);
    v.cfg.cmdline = "quiet";
    vm_refuses(&v, HV_USAGE, "this kernel takes 30");
    put_le32(bz.p + 0x238, UINT32_MAX);                    /* ours then: 64 KiB */
    vm_kernel(&v, bz.p, bz.len);
    vm_boots(&v);
    char *line = hv_alloc(70000);
    memset(line, 'x', 69999);
    v.cfg.cmdline = line;
    vm_refuses(&v, HV_USAGE, "this kernel takes 65535");
    free(line);
    vm_fini(&v);
    free(bz.p);
}

static void test_files(void **state)
{
    struct bytes bz = bzimage_lz4();
    struct vm v;
    int p[2];

    vm_init(&v, 128 * MIB);
    vm_refuses(&v, HV_UNSUPPORTED, "has no kernel to boot");
    v.cfg.kernel_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    vm_refuses(&v, HV_USAGE, "is a folder");
    close(v.cfg.kernel_fd);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    v.cfg.kernel_fd = p[0];
    vm_refuses(&v, HV_USAGE, "is not a regular file");
    close(p[1]);
    vm_kernel(&v, bz.p, bz.len);
    vm_initrd(&v, "", 0);
    vm_refuses(&v, HV_USAGE, "is empty");
    assert_string_equal(v.e.object, "initrd.img");
    vm_initrd(&v, bz.p, bz.len);
    vm_refuses(&v, HV_USAGE, "is a kernel, not an initrd");
    /* The file's offset is nobody's business. */
    assert_int_equal(lseek(v.cfg.kernel_fd, 100, SEEK_SET), 100);
    close(v.cfg.initrd_fd);
    v.cfg.initrd_fd = -1;
    vm_boots(&v);
    assert_int_equal(lseek(v.cfg.kernel_fd, 0, SEEK_CUR), 100);
    /* A reset loads again what is there then. */
    assert_int_equal(mem_clear(v.m), 0);
    vm_boots(&v);
    check_text(&v);
    vm_fini(&v);
    free(bz.p);
}

/* The n-th allocation or read fails, for all n: an error each time, and then it boots. */
static void test_faults(void **state)
{
    static const struct { enum fault_kind kind; int err; enum hv_code code; } T[] = {
        { FAULT_ALLOC, ENOMEM, HV_NO_RESOURCES }, { FAULT_READ, EIO, HV_FAILED },
    };
    struct bytes bz = bzimage_lz4();
    uint8_t initrd[100] = { 1 };
    struct vm v;

    vm_init(&v, 128 * MIB);
    vm_kernel(&v, bz.p, bz.len);
    vm_initrd(&v, initrd, sizeof(initrd));
    for (size_t i = 0; i < ARRAY_SIZE(T); i++) {
        unsigned n = 0;
        int r;
        do {
            fault_arm(T[i].kind, ++n, T[i].err);
            r = vm_boot(&v);
            fault_arm(T[i].kind, 0, 0);
            if (r != 0 && (v.e.code != T[i].code || !v.e.message[0])) {
                fail_msg("call %u: %s: %s", n, hv_code_word(v.e.code), v.e.message);
            }
        } while (r != 0 && n < 1000);
        assert_int_equal(r, 0);
        assert_true(n > 3);
    }
    vm_fini(&v);
    free(bz.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unpacked), cmocka_unit_test(test_pieces), cmocka_unit_test(test_payload_of_another),
        cmocka_unit_test(test_guest_unpacks), cmocka_unit_test(test_32bit),
        cmocka_unit_test(test_payload_is_no_elf), cmocka_unit_test(test_compressions),
        cmocka_unit_test(test_damaged_payload), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_header_fields), cmocka_unit_test(test_header_bytes),
        cmocka_unit_test(test_too_little_memory), cmocka_unit_test(test_initrd_below_limit),
        cmocka_unit_test(test_cmdline_limits), cmocka_unit_test(test_files), cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
