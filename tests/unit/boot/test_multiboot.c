/* Multiboot kernels, as ELF32 and by the header's own addresses; damaged ones are refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "hv/base/units.h"
#include "hv/boot/loader.h"
#include "tests/unit/boot/fixture.h"

enum { HEADER = 0x80, PHDR = 52, FILE_LEN = 0x400, LOAD = 0x200000 };

static void put_header(uint8_t *p, uint32_t flags)
{
    put_le32(p, 0x1BADB002);
    put_le32(p + 4, flags);
    put_le32(p + 8, 0u - 0x1BADB002u - flags);
}

/* An ELF32 with one segment: the file's bytes from 0x100 on, at LOAD, and as much again of zeros. */
static void make_elf(uint8_t f[FILE_LEN])
{
    memset(f, 0, FILE_LEN);
    memcpy(f, "\x7f" "ELF\1\1\1", 7);
    put_le16(f + 16, 2);
    put_le16(f + 18, 3);
    put_le32(f + 24, LOAD + 8);
    put_le32(f + 28, PHDR);
    put_le16(f + 42, 32);
    put_le16(f + 44, 1);
    put_le32(f + PHDR, 1);
    put_le32(f + PHDR + 4, 0x100);
    put_le32(f + PHDR + 8, LOAD);
    put_le32(f + PHDR + 12, LOAD);
    put_le32(f + PHDR + 16, FILE_LEN - 0x100);
    put_le32(f + PHDR + 20, 2 * (FILE_LEN - 0x100));
    put_header(f + HEADER, 3);
    memcpy(f + 0x100, "kernel!", 7);
}

static void test_elf32(void **state)
{
    uint8_t f[FILE_LEN], text[16];
    struct vm v;
    make_elf(f);
    vm_init(&v, 128 * MIB);
    v.cfg.cmdline = "one two";
    vm_kernel(&v, f, sizeof(f));
    vm_initrd(&v, "module", 6);
    vm_boots(&v);
    assert_int_equal(v.res.entry.mode, BOOT_MODE_FLAT32);
    assert_int_equal(v.res.entry.rip, LOAD + 8);
    assert_int_equal(v.res.entry.rax, 0x2BADB002);
    assert_int_equal(mem_read(v.m, LOAD, text, 8), 0);
    assert_string_equal((char *)text, "kernel!");
    gpa_t info = v.res.entry.rbx;
    uint32_t flags = ram32(&v, info);
    assert_int_equal(flags & 0x4d, 0x4d);                       /* memory, command line, modules, map */
    assert_int_equal(ram32(&v, info + 8), 127 * 1024);
    assert_int_equal(mem_read(v.m, ram32(&v, info + 16), text, 16), 0);
    assert_string_equal((char *)text, "vmlinuz one two");
    assert_int_equal(ram32(&v, info + 20), 1);
    gpa_t mod = ram32(&v, info + 24);
    assert_int_equal(mem_read(v.m, ram32(&v, mod), text, 6), 0);
    assert_memory_equal(text, "module", 6);
    assert_int_equal(ram32(&v, mod + 4) - ram32(&v, mod), 6);
    /* The map: as long as it says, its first range from 0. */
    uint32_t len = ram32(&v, info + 44);
    gpa_t map = ram32(&v, info + 48);
    uint64_t ram = 0;
    for (gpa_t p = map; p < map + len; p += ram32(&v, p) + 4) {
        ram += ram32(&v, p + 20) == 1 ? ram32(&v, p + 12) : 0;
    }
    assert_in_range(ram, 127 * MIB, 128 * MIB);
    vm_fini(&v);
}

static void test_flat(void **state)
{
    uint8_t f[FILE_LEN] = {0}, text[8];
    struct vm v;
    put_header(f + HEADER, 1 << 16);
    put_le32(f + HEADER + 12, 0x8000 + HEADER);                 /* the file's start lies at 0x8000 */
    put_le32(f + HEADER + 16, 0x8000);
    put_le32(f + HEADER + 20, 0);                               /* to its end */
    put_le32(f + HEADER + 24, 0x9000);
    put_le32(f + HEADER + 28, 0x8100);
    memcpy(f + 0x100, "kernel!", 8);
    vm_init(&v, 128 * MIB);
    vm_kernel(&v, f, sizeof(f));
    vm_boots(&v);
    assert_int_equal(v.res.entry.rip, 0x8100);
    assert_int_equal(mem_read(v.m, 0x8100, text, 8), 0);
    assert_string_equal((char *)text, "kernel!");
    static const struct { unsigned off; uint32_t val; enum hv_code code; const char *what; } bad[] = {
        {12, 0x7fff, HV_USAGE, "contradict"}, {16, 0x9000, HV_USAGE, "contradict"}, {20, 0x7000, HV_USAGE, "contradict"},
        {28, 0x7fff, HV_USAGE, "entry point"}, {24, 0xf0000, HV_UNSUPPORTED, "own tables"},
        {20, 0x8401, HV_USAGE, "truncated"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint8_t g[FILE_LEN];
        memcpy(g, f, sizeof(g));
        put_le32(g + HEADER + bad[i].off, bad[i].val);
        vm_kernel(&v, g, sizeof(g));
        vm_refuses(&v, bad[i].code, bad[i].what);
    }
    vm_fini(&v);
}

static void test_damaged_elf(void **state)
{
    static const struct { unsigned off; uint32_t val; enum hv_code code; const char *what; } bad[] = {
        {24, LOAD - 1, HV_USAGE, "entry point"}, {28, 0x3f0, HV_USAGE, "truncated"}, {44, 0, HV_USAGE, "0 program headers"},
        {PHDR, 0, HV_USAGE, "entry point"}, {PHDR + 4, 0x200, HV_USAGE, "truncated"}, {PHDR + 12, 0x1000, HV_UNSUPPORTED, "own tables"},
        {PHDR + 16, 0x10000, HV_USAGE, "truncated"}, {PHDR + 20, 0x7f000000, HV_NO_RESOURCES, "needs at least"},
        {PHDR + 12, 0xfffffff0, HV_UNSUPPORTED, "does not fit"}, {HEADER, 0, HV_UNSUPPORTED, "without a multiboot header"},
    };
    struct vm v;
    vm_init(&v, 128 * MIB);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint8_t f[FILE_LEN];
        make_elf(f);
        put_le32(f + bad[i].off, bad[i].val);
        vm_kernel(&v, f, sizeof(f));
        vm_refuses(&v, bad[i].code, bad[i].what);
    }
    uint8_t f[FILE_LEN];
    make_elf(f);
    put_header(f + HEADER, 4);                                  /* a video mode, and we must know how */
    vm_kernel(&v, f, sizeof(f));
    vm_refuses(&v, HV_UNSUPPORTED, "multiboot flags 0x4");
    for (size_t len = FILE_LEN - 1; len >= 20; len--) {
        make_elf(f);
        vm_kernel(&v, f, len);
        assert_true(boot_prepare(&v.cfg, v.m, &v.res, &v.e) < 0);
    }
    vm_fini(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elf32), cmocka_unit_test(test_flat), cmocka_unit_test(test_damaged_elf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
