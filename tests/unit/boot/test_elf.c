/* ELF kernels: PVH and 64-bit entry, and files that are something else. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "hv/boot/loader.h"
#include "tests/unit/boot/fixture.h"

static void test_pvh(void **state)
{
    struct bytes elf = elf_make(true, true);
    struct vm v;
    uint8_t initrd[100] = { 7 };
    char line[64];

    vm_init(&v, 6 * GIB);
    vm_kernel(&v, elf.p, elf.len);
    vm_initrd(&v, initrd, sizeof(initrd));
    v.cfg.cmdline = "quiet";
    vm_boots(&v);
    assert_string_equal(v.res.kernel, "Linux 9.9.9-test, ELF, PVH entry");

    const struct boot_entry *en = &v.res.entry;
    assert_int_equal(en->mode, BOOT_MODE_FLAT32);
    assert_int_equal(en->rip, ELF_PVH_ENTRY);
    assert_int_equal(en->cr0, 0x11);
    assert_int_equal(en->cr3, 0);
    assert_int_equal(en->cr4, 0);
    assert_int_equal(en->efer, 0);
    assert_int_equal(en->cs.attr, 0xC09B);
    assert_int_equal(en->data.attr, 0xC093);
    assert_int_equal(ram64(&v, en->gdt_base + en->cs.sel), 0x00CF9B000000FFFF);
    assert_int_equal(en->tr.limit, 0x67);

    gpa_t si = en->rbx;
    assert_int_equal(ram32(&v, si), 0x336EC578);
    assert_int_equal(ram32(&v, si + 4), 1);
    assert_int_equal(ram32(&v, si + 8), 0);
    assert_int_equal(ram32(&v, si + 12), 1);
    gpa_t mod = ram64(&v, si + 16);
    assert_int_equal(ram64(&v, mod), v.res.initrd);
    assert_int_equal(ram64(&v, mod + 8), sizeof(initrd));
    assert_int_equal(mem_read(v.m, ram64(&v, si + 24), line, sizeof(line)), 0);
    assert_string_equal(line, "quiet memhp_default_state=online");
    assert_int_equal(ram64(&v, si + 32), v.res.rsdp);
    gpa_t map = ram64(&v, si + 40);
    assert_int_equal(ram32(&v, si + 48), 8);
    assert_int_equal(ram32(&v, si + 52), 0);
    assert_int_equal(ram64(&v, map + 7 * 24), 4 * GIB);
    assert_int_equal(ram64(&v, map + 7 * 24 + 8), 2560 * MIB);
    assert_int_equal(ram32(&v, map + 7 * 24 + 16), 1);
    assert_int_equal(ram32(&v, map + 7 * 24 + 20), 0);

    close(v.cfg.initrd_fd);
    v.cfg.initrd_fd = -1;
    vm_boots(&v);
    assert_int_equal(ram32(&v, si + 12), 0);
    assert_int_equal(ram64(&v, si + 16), 0);
    vm_fini(&v);
    free(elf.p);
}

/* PVH does not ask for Linux; Linux does not need PVH; neither is nothing. */
static void test_kinds(void **state)
{
    struct vm v;
    vm_init(&v, 128 * MIB);

    struct bytes elf = elf_make(false, true);
    vm_kernel(&v, elf.p, elf.len);
    vm_boots(&v);
    assert_string_equal(v.res.kernel, "ELF kernel, ELF, PVH entry");
    free(elf.p);

    elf = elf_make(true, false);
    vm_kernel(&v, elf.p, elf.len);
    vm_boots(&v);
    assert_int_equal(v.res.entry.mode, BOOT_MODE_LONG64);
    assert_int_equal(v.res.entry.rip, ELF_PADDR);
    assert_int_equal(ram32(&v, LOADER_BOOT_PARAMS + 0x202), 0x53726448);
    assert_int_equal(ram32(&v, LOADER_BOOT_PARAMS + 0x206) & 0xFFFF, 0x020F);
    assert_int_equal(ram32(&v, LOADER_BOOT_PARAMS + 0x238), 2047);
    /* An entry point given as a virtual address means the same place. */
    put_le64(elf.p + 24, ELF_VADDR + 0x10);
    vm_kernel(&v, elf.p, elf.len);
    vm_boots(&v);
    assert_int_equal(v.res.entry.rip, ELF_PADDR + 0x10);
    free(elf.p);

    elf = elf_make(false, false);
    vm_kernel(&v, elf.p, elf.len);
    vm_refuses(&v, HV_UNSUPPORTED, "neither Linux nor one with a PVH entry");
    free(elf.p);
    vm_fini(&v);
}

static void test_truncated(void **state)
{
    struct bytes elf = elf_make(true, true);
    struct vm v;

    vm_init(&v, 128 * MIB);
    vm_kernel(&v, elf.p, elf.len);
    for (size_t len = elf.len - 1; len >= 4; len--) {
        assert_int_equal(ftruncate(v.cfg.kernel_fd, (off_t)len), 0);
        vm_refuses(&v, HV_USAGE, "is truncated");
    }
    vm_fini(&v);
    free(elf.p);
}

static void test_fields(void **state)
{
    enum { L = ELF_PHDR_LOAD, N = ELF_NOTE_OFF };
    static const struct { unsigned off, bytes; uint64_t val; enum hv_code code; const char *text; } T[] = {
        { 4, 1, 1, HV_UNSUPPORTED, "is a 32-bit ELF file" },
        { 5, 1, 7, HV_USAGE, "byte order 7" },
        { 5, 1, 2, HV_UNSUPPORTED, "is an ELF file for machine 15872" },
        { 18, 2, 183, HV_UNSUPPORTED, "is an ELF file for arm64; this machine is x86-64" },
        { 18, 2, 3, HV_UNSUPPORTED, "is a 32-bit ELF file" },
        { 16, 2, 3, HV_USAGE, "is a Linux program or library" },
        { 16, 2, 1, HV_USAGE, "is an object file or kernel module" },
        { 16, 2, 4, HV_USAGE, "is an ELF file of another kind" },
        { 24, 8, 0, HV_USAGE, "its entry point is outside" },
        { 24, 8, ELF_PADDR + ELF_MEM_LEN, HV_USAGE, "its entry point is outside" },
        { 32, 8, UINT64_MAX, HV_USAGE, "is truncated" },
        { 54, 2, 32, HV_USAGE, "2 program headers of 32 bytes" },
        { 56, 2, 0, HV_USAGE, "0 program headers" },
        { 56, 2, 65, HV_USAGE, "65 program headers" },
        { L, 4, 3, HV_USAGE, "is a Linux program, not a kernel" },
        { L, 4, 0, HV_USAGE, "has nothing to load" },
        { L + 8, 8, UINT64_MAX, HV_USAGE, "is truncated: a segment" },
        { L + 24, 8, 0, HV_UNSUPPORTED, "wants to be loaded at 0x0; kernels load at 1 MiB" },
        { L + 24, 8, 0xFFFFF, HV_UNSUPPORTED, "kernels load at 1 MiB" },
        { L + 24, 8, UINT64_MAX - 10, HV_UNSUPPORTED, "beyond low memory" },
        { L + 24, 8, 0xDFF00000, HV_UNSUPPORTED, "beyond low memory" },
        { L + 24, 8, 0x10000000, HV_NO_RESOURCES, "needs at least 259M of memory, the VM has 128M" },
        { L + 32, 8, ELF_MEM_LEN + 1, HV_USAGE, "a segment is larger than its memory" },
        { L + 32, 8, ELF_MEM_LEN, HV_USAGE, "is truncated: a segment" },
        { L + 40, 8, UINT64_MAX, HV_UNSUPPORTED, "beyond low memory" },
        { N + 20 + 16, 8, 0, HV_USAGE, "its PVH entry is outside" },
        { N + 20 + 16, 8, UINT64_MAX, HV_USAGE, "its PVH entry is outside" },
    };
    struct bytes elf = elf_make(true, true);
    struct vm v;

    vm_init(&v, 128 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(T); i++) {
        uint8_t was[8], now[8];
        memcpy(was, elf.p + T[i].off, T[i].bytes);
        put_le64(now, T[i].val);
        memcpy(elf.p + T[i].off, now, T[i].bytes);
        vm_kernel(&v, elf.p, elf.len);
        vm_refuses(&v, T[i].code, T[i].text);
        memcpy(elf.p + T[i].off, was, T[i].bytes);
    }
    vm_fini(&v);
    free(elf.p);
}

/* Notes are optional: one that is broken is as one that is not there. */
static void test_broken_notes(void **state)
{
    enum { N = ELF_NOTE_OFF };
    static const struct { unsigned off; uint32_t val; } T[] = {
        { N, UINT32_MAX }, { N + 4, UINT32_MAX }, { N, 1000 }, { N + 20, 5 }, { N + 24, 7 }, { N + 24, 12 },
        { N + 28, 17 }, { N + 32, 0x6e6579 }, { ELF_PHDR_NOTE + 8, UINT32_MAX }, { ELF_PHDR_NOTE + 32, 4 },
        { ELF_PHDR_NOTE + 32, 43 }, { ELF_PHDR_NOTE + 36, 1 },
    };
    struct bytes elf = elf_make(true, true);
    struct vm v;

    vm_init(&v, 128 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(T); i++) {
        uint32_t was = get_le32(elf.p + T[i].off);
        put_le32(elf.p + T[i].off, T[i].val);
        vm_kernel(&v, elf.p, elf.len);
        vm_boots(&v);
        assert_int_equal(v.res.entry.mode, BOOT_MODE_LONG64);
        put_le32(elf.p + T[i].off, was);
    }
    put_le32(elf.p + N + 24, 4);                     /* a 4-byte address will do */
    put_le32(elf.p + ELF_PHDR_NOTE + 32, 40);
    vm_kernel(&v, elf.p, elf.len);
    vm_boots(&v);
    assert_int_equal(v.res.entry.rip, ELF_PVH_ENTRY);
    vm_fini(&v);
    free(elf.p);
}

/* A refused file has written nothing to the guest's RAM above 1 MiB. */
static void test_refusal_writes_nothing(void **state)
{
    struct bytes elf = elf_make(true, true);
    struct vm v;

    put_le64(elf.p + ELF_NOTE_OFF + 20 + 16, 0);
    vm_init(&v, 128 * MIB);
    vm_kernel(&v, elf.p, elf.len);
    vm_refuses(&v, HV_USAGE, "its PVH entry is outside");
    assert_int_equal(ram64(&v, ELF_PADDR), 0);
    vm_fini(&v);
    free(elf.p);
}

static void test_foreign(void **state)
{
    static const struct { unsigned off, len; const char *magic; enum hv_code code; const char *text; } T[] = {
        { 0x38, 4, "ARM\x64", HV_UNSUPPORTED, "is a kernel for arm64; this machine is x86-64" },
        { 0x38, 4, "RSC\x05", HV_UNSUPPORTED, "is a kernel for riscv64" },
        { 0, 3, "\x1f\x8b\x08", HV_USAGE, "is gzip-compressed" },
        { 0, 6, "\xfd" "7zXZ\0", HV_USAGE, "is xz-compressed" },
        { 0, 4, "\x28\xb5\x2f\xfd", HV_USAGE, "is zstd-compressed" },
        { 0, 6, "070701", HV_USAGE, "is an initrd (cpio archive), not a kernel" },
        { 0, 8, "!<arch>\n", HV_USAGE, "is a package" },
        { 0, 8, "vhdxfile", HV_USAGE, "is a disk" },
        { 0x8001, 5, "CD001", HV_USAGE, "is a CD image" },
        { 0, 2, "#!", HV_USAGE, "is a script" },
        { 0, 2, "MZ", HV_UNSUPPORTED, "is an EFI or DOS program" },
        { 0, 5, "hello", HV_USAGE, "is not a kernel: neither" },
    };
    struct vm v;
    static uint8_t file[0x9000];

    vm_init(&v, 128 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(T); i++) {
        memset(file, 0, sizeof(file));
        memcpy(file + T[i].off, T[i].magic, T[i].len);
        vm_kernel(&v, file, sizeof(file));
        vm_refuses(&v, T[i].code, T[i].text);
    }
    /* PE headers, also where the pointer to them points nowhere. */
    static const struct { uint32_t pe; uint16_t machine; const char *text; } PE[] = {
        { 0x80, 0xaa64, "is an EFI program for arm64" }, { 0x80, 0x8664, "is an EFI or DOS program" },
        { 0x80, 0x1234, "is an EFI or DOS program" }, { 0x7FFFFFFF, 0xaa64, "is an EFI or DOS program" },
        { 0xFFFFFFFF, 0xaa64, "is an EFI or DOS program" }, { 0x800C, 0xaa64, "is an EFI or DOS program" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(PE); i++) {
        memset(file, 0, sizeof(file));
        memcpy(file, "MZ", 2);
        put_le32(file + 0x3c, PE[i].pe);
        if (PE[i].pe < sizeof(file) - 6) {
            memcpy(file + PE[i].pe, "PE\0\0", 4);
            put_le16(file + PE[i].pe + 4, PE[i].machine);
        }
        vm_kernel(&v, file, sizeof(file));
        vm_refuses(&v, HV_UNSUPPORTED, PE[i].text);
    }
    vm_fini(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pvh), cmocka_unit_test(test_kinds), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_fields), cmocka_unit_test(test_broken_notes),
        cmocka_unit_test(test_refusal_writes_nothing), cmocka_unit_test(test_foreign),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
