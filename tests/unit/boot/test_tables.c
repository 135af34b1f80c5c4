/* ACPI and SMBIOS tables: pointers, checksums, contents; iasl takes them apart where it is installed. */
#include "hv/boot/acpi.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "hv/boot/aml.h"
#include "hv/boot/loader.h"
#include "hv/platform/ioapic.h"
#include "hv/platform/pm.h"
#include "hv/platform/reset.h"
#include "tests/unit/boot/fixture.h"

#define BASE LOADER_ACPI

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    while (len--) {
        s = (uint8_t)(s + *p++);
    }
    return s;
}

static struct layout LAYOUT;

static struct boot_config config(unsigned vcpus)
{
    assert_int_equal(layout_plan(6 * GIB, 6 * GIB, 46, &LAYOUT, NULL), 0);
    return (struct boot_config){ .vcpus = vcpus, .layout = &LAYOUT, .board = BOOT_BOARD_DEFAULT };
}

/* The table that XSDT (or the FADT, for DSDT and FACS) points to; checks its length and sum. */
static const uint8_t *table(const struct strbuf *sb, const char *sig, uint32_t *ret_len)
{
    const uint8_t *b = (const uint8_t *)sb->buf, *found = NULL;
    uint64_t xsdt = get_le64(b + 24) - BASE;

    assert_true(xsdt + 36 <= sb->len);
    uint32_t len = get_le32(b + xsdt + 4);
    assert_memory_equal(b + xsdt, "XSDT", 4);
    assert_true(xsdt + len <= sb->len && (len - 36) % 8 == 0);
    assert_int_equal(sum(b + xsdt, len), 0);
    if (strcmp(sig, "DSDT") == 0 || strcmp(sig, "FACS") == 0) {
        const uint8_t *fadt = table(sb, "FACP", &len);
        assert_int_equal(get_le64(fadt + 140), get_le32(fadt + 40));
        found = b + (*sig == 'D' ? get_le32(fadt + 40) : get_le32(fadt + 36)) - BASE;
        assert_memory_equal(found, sig, 4);
    }
    for (uint32_t i = 36; !found && i < len; i += 8) {
        uint64_t at = get_le64(b + xsdt + i) - BASE;
        assert_true(at + 36 <= sb->len);
        if (memcmp(b + at, sig, 4) == 0) {
            found = b + at;
        }
    }
    assert_non_null(found);
    *ret_len = get_le32(found + 4);
    assert_true((size_t)(found - b) + *ret_len <= sb->len);
    assert_int_equal((size_t)(found - b) % 64, 0);
    if (*sig != 'F' || sig[3] != 'S') {
        assert_int_equal(sum(found, *ret_len), 0);
        assert_memory_equal(found + 10, "VRTUALMICROSFT", 14);
    }
    return found;
}

static void test_rsdp(void **state)
{
    struct boot_config cfg = config(1);
    strbuf_auto sb = { 0 };

    assert_int_equal(acpi_tables_build(&cfg, BASE, &sb), 0);
    const uint8_t *b = (const uint8_t *)sb.buf;
    assert_memory_equal(b, "RSD PTR ", 8);
    assert_int_equal(sum(b, 20), 0);
    assert_int_equal(sum(b, 36), 0);
    assert_int_equal(b[15], 2);
    assert_int_equal(get_le32(b + 20), 36);
}

static void test_fadt(void **state)
{
    struct boot_config cfg = config(1);
    strbuf_auto sb = { 0 };
    uint32_t len;

    assert_int_equal(acpi_tables_build(&cfg, BASE, &sb), 0);
    const uint8_t *t = table(&sb, "FACP", &len);
    assert_int_equal(len, 276);
    assert_int_equal(t[8], 6);
    assert_int_equal(get_le16(t + 46), 9);
    assert_int_equal(get_le32(t + 48), 0);             /* no SMI command: always ACPI */
    assert_int_equal(get_le32(t + 56), 0x400);
    assert_int_equal(get_le32(t + 64), 0x404);
    assert_int_equal(get_le32(t + 76), 0x408);
    assert_int_equal(t[88], 4);
    assert_int_equal(t[89], 2);
    assert_int_equal(t[91], 4);
    assert_int_equal(get_le16(t + 109), 0x5);          /* legacy devices, no 8042, no VGA, an RTC */
    uint32_t flags = get_le32(t + 112);
    assert_int_equal(flags & (1u << 4), 0);            /* fixed power button */
    assert_int_not_equal(flags & (1u << 8), 0);        /* 32-bit timer */
    assert_int_not_equal(flags & (1u << 10), 0);       /* reset register */
    assert_int_equal(flags & (1u << 20), 0);           /* not hardware-reduced */
    assert_memory_equal(t + 116, "\x01\x08\x00\x01\xf9\x0c\0\0\0\0\0\0\x06", 13);
    assert_int_equal(get_le64(t + 152), 0x400);
    assert_int_equal(get_le64(t + 176), 0x404);
    assert_int_equal(get_le64(t + 212), 0x408);

    const uint8_t *facs = table(&sb, "FACS", &len);
    assert_int_equal(len, 64);
    assert_int_equal(facs[32], 2);
}

/* What the tables say of the usual board is what the devices do. */
static void test_board_is_the_platform(void **state)
{
    const struct boot_board bd = BOOT_BOARD_DEFAULT;

    assert_int_equal(bd.pm_base, PM_BASE);
    assert_int_equal(bd.s5_type, PM_SLP_TYP_S5);
    assert_int_equal(bd.sci_irq, PM_SCI_IRQ);
    assert_int_equal(bd.reset_port, RESET_PORT);
    assert_int_equal(bd.reset_value, RESET_VALUE);
    assert_int_equal(LAYOUT_IOAPIC_BASE, IOAPIC_BASE);
}

/* The board decides what the FADT says of it. */
static void test_fadt_follows_the_board(void **state)
{
    struct boot_config cfg = config(1);
    strbuf_auto sb = { 0 };
    uint32_t len;

    cfg.board.i8042 = true;
    cfg.board.rtc = false;
    cfg.board.pm_base = 0x600;
    cfg.board.sci_irq = 10;
    cfg.board.reset_port = 0x64;
    cfg.board.reset_value = 0xFE;
    assert_int_equal(acpi_tables_build(&cfg, BASE, &sb), 0);
    const uint8_t *t = table(&sb, "FACP", &len);
    assert_int_equal(get_le16(t + 109), 0x27);
    assert_int_equal(t[108], 0);
    assert_int_equal(get_le32(t + 56), 0x600);
    assert_int_equal(get_le64(t + 212), 0x608);
    assert_int_equal(get_le16(t + 46), 10);
    assert_int_equal(get_le64(t + 120), 0x64);
    assert_int_equal(t[128], 0xFE);
    t = table(&sb, "APIC", &len);
    assert_memory_equal(t + len - 6 - 10, "\x02\x0a\x00\x0a\x0a\0\0\0\x0d\0", 10);
}

static void test_madt(void **state)
{
    for (unsigned vcpus = 1; vcpus <= BOOT_VCPUS_MAX; vcpus++) {
        struct boot_config cfg = config(vcpus);
        strbuf_auto sb = { 0 };
        uint32_t len;
        unsigned cpus = 0, ioapics = 0, overrides = 0, nmis = 0;

        assert_int_equal(acpi_tables_build(&cfg, BASE, &sb), 0);
        assert_true(sb.len <= LOADER_ACPI_LEN);
        const uint8_t *t = table(&sb, "APIC", &len);
        assert_int_equal(get_le32(t + 36), 0xFEE00000);
        assert_int_equal(get_le32(t + 40), 1);
        for (uint32_t i = 44; i < len; i += t[i + 1]) {
            const uint8_t *en = t + i;
            assert_true(en[1] >= 2 && i + en[1] <= len);
            switch (en[0]) {
            case 0:
                assert_int_equal(en[1], 8);
                assert_int_equal(en[2], cpus);
                assert_int_equal(en[3], cpus);
                assert_int_equal(get_le32(en + 4), 1);
                cpus++;
                break;
            case 1:
                assert_memory_equal(en, "\x01\x0c\x00\x00\x00\x00\xc0\xfe\0\0\0\0", 12);
                ioapics++;
                break;
            case 2:
                assert_memory_equal(en, overrides ? "\x02\x0a\x00\x09\x09\0\0\0\x0d\0"
                                                  : "\x02\x0a\x00\x00\x02\0\0\0\0\0", 10);
                overrides++;
                break;
            case 4:
                assert_memory_equal(en, "\x04\x06\xff\0\0\x01", 6);
                nmis++;
                break;
            default:
                fail_msg("MADT entry of type %u", en[0]);
            }
        }
        assert_int_equal(cpus, vcpus);
        assert_int_equal(ioapics, 1);
        assert_int_equal(overrides, 2);
        assert_int_equal(nmis, 1);
    }
}

/* Byte strings that Debian's kernel has loaded (machine-platform 4.1). */
static void test_dsdt_bytes(void **state)
{
    static const char S5[] = "\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00";
    static const char CPU[] = "\x5b\x82\x1a" "CP00\x08_HID\x0d" "ACPI0007\0\x08_UID\0";
    static const char COM1[] = "\x5b\x82\x2b" "COM1\x08_HID\x0c\x41\xd0\x05\x01\x08_UID\x01\x08_CRS\x11\x10\x0a\x0d"
                               "\x47\x01\xf8\x03\xf8\x03\x01\x08\x22\x10\x00\x79\x00";
    static const char RTC[] = "\x5b\x82\x25RTC_\x08_HID\x0c\x41\xd0\x0b\x00\x08_CRS\x11\x10\x0a\x0d"
                              "\x47\x01\x70\x00\x70\x00\x01\x02\x22\x00\x01\x79\x00";
    struct boot_config cfg = config(2);
    strbuf_auto sb = { 0 };

    dsdt_build(&cfg, &sb);
    assert_int_equal(sb.err, 0);
    assert_memory_equal(sb.buf, S5, sizeof(S5) - 1);
    assert_non_null(memmem(sb.buf, sb.len, CPU, sizeof(CPU) - 1));
    assert_non_null(memmem(sb.buf, sb.len, COM1, sizeof(COM1) - 1));
    assert_non_null(memmem(sb.buf, sb.len, RTC, sizeof(RTC) - 1));
    assert_non_null(memmem(sb.buf, sb.len, "\x47\x01\xea\x00\xea\x00\x01\x01", 8));   /* DESIGN 4 */
    assert_null(memmem(sb.buf, sb.len, "_S4_", 4));
    assert_null(memmem(sb.buf, sb.len, "VMBus", 5));
    assert_null(memmem(sb.buf, sb.len, "KBD_", 4));
}

static void test_vmbus_has_the_windows(void **state)
{
    struct boot_config cfg = config(1);
    strbuf_auto sb = { 0 };
    uint8_t low[26] = { 0x87, 0x17, 0x00, 0x00, 0x0C, 0x01 }, high[46] = { 0x8A, 0x2B, 0x00, 0x00, 0x0C, 0x01 };

    put_le32(low + 10, 0xF8000000);
    put_le32(low + 14, 0xFEBFFFFF);
    put_le32(low + 22, 0x06C00000);
    put_le64(high + 14, ((uint64_t)1 << 46) - 64 * GIB);
    put_le64(high + 22, ((uint64_t)1 << 46) - 1);
    put_le64(high + 38, 64 * GIB);
    cfg.board.vmbus = true;
    dsdt_build(&cfg, &sb);
    assert_non_null(memmem(sb.buf, sb.len, "\x0dVMBus", 7));
    assert_non_null(memmem(sb.buf, sb.len, low, sizeof(low)));
    assert_non_null(memmem(sb.buf, sb.len, high, sizeof(high)));
}

/* aml: a package length takes one byte up to 63, two up to 4095, three beyond, itself counted */
static void test_aml_lengths(void **state)
{
    for (size_t body = 0; body < 5000; body++) {
        strbuf_auto sb = { 0 };
        struct aml_mark m = aml_scope(&sb, "_SB_");
        for (size_t i = 0; i < body; i++) {
            strbuf_addc(&sb, (char)0xA5);
        }
        aml_end(&sb, m);
        const uint8_t *p = (const uint8_t *)sb.buf;
        size_t n = (p[1] >> 6) + 1u, len = n == 1 ? p[1] : p[1] & 0xFu;
        assert_int_equal(p[0], 0x10);
        for (size_t i = 1; i < n; i++) {
            len |= (size_t)p[1 + i] << (4 + 8 * (i - 1));
        }
        assert_int_equal(len, body + 4 + n);
        assert_int_equal(sb.len, 1 + len);
        assert_true(n == (len <= 63 ? 1 : len <= 4095 ? 2 : 3));
        assert_memory_equal(p + 1 + n, "_SB_", 4);
    }
}

static void test_aml_integers(void **state)
{
    static const struct { uint64_t val; const char *enc; size_t len; } T[] = {
        { 0, "\x00", 1 }, { 1, "\x01", 1 }, { 2, "\x0a\x02", 2 }, { 255, "\x0a\xff", 2 },
        { 256, "\x0b\x00\x01", 3 }, { 65536, "\x0c\0\0\x01\0", 5 },
        { (uint64_t)1 << 32, "\x0e\0\0\0\0\x01\0\0\0", 9 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(T); i++) {
        strbuf_auto sb = { 0 };
        aml_name_int(&sb, "_UID", T[i].val);
        assert_int_equal(sb.len, 5 + T[i].len);
        assert_memory_equal(sb.buf + 5, T[i].enc, T[i].len);
    }
}

/* iasl reads each table without an error, and the DSDT it wrote compiles to our very bytes. */
static int run(const char *dir, const char *tool, const char *a, const char *b, const char *c)
{
    char *argv[] = { (char *)tool, (char *)a, (char *)b, (char *)c, NULL };
    char *log = hv_asprintf("%s/log", dir);
    posix_spawn_file_actions_t fa;
    pid_t pid;
    int st;

    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&fa, 1, 2);
    posix_spawn_file_actions_addchdir_np(&fa, dir);
    int r = posix_spawnp(&pid, tool, &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    free(log);
    if (r != 0) {
        return -r;
    }
    assert_int_equal(waitpid(pid, &st, 0), pid);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 255;
}

static void test_iasl(void **state)
{
    static const char *const SIGS[] = { "XSDT", "FACP", "FACS", "APIC", "WAET", "DSDT" };
    char dir[] = "/tmp/test_tables.XXXXXX";
    struct boot_config cfg = config(64);
    strbuf_auto sb = { 0 };
    uint32_t len;
    char *log = NULL, *path, *bin;
    size_t log_len;

    assert_non_null(mkdtemp(dir));
    if (run(dir, "iasl", "-v", NULL, NULL) == -ENOENT) {
        rmdir(dir);
        print_message("no iasl on this machine\n");
        skip();
    }
    cfg.board.com2 = cfg.board.i8042 = true;    /* VMBus is apart: iasl refuses its lower-case _HID */
    assert_int_equal(acpi_tables_build(&cfg, BASE, &sb), 0);
    char *logpath = hv_asprintf("%s/log", dir);
    for (size_t i = 0; i < ARRAY_SIZE(SIGS); i++) {
        const uint8_t *t;
        if (strcmp(SIGS[i], "XSDT") == 0) {
            t = (const uint8_t *)sb.buf + (get_le64(sb.buf + 24) - BASE);
            len = get_le32(t + 4);
        } else {
            t = table(&sb, SIGS[i], &len);
        }
        path = hv_asprintf("%s/t.aml", dir);
        assert_int_equal(hv_replace_file(path, t, len, 0600), 0);
        assert_int_equal(run(dir, "iasl", "-d", "t.aml", NULL), 0);
        assert_int_equal(hv_read_file(logpath, MIB, &log, &log_len), 0);
        if (strcasestr(log, "error") || strcasestr(log, "warning")) {
            fail_msg("%s: %s", SIGS[i], log);
        }
        free(log);
        /* And back: the same bytes, but for the compiler's own id and the checksum. */
        assert_int_equal(run(dir, "iasl", "-p", "back", "t.dsl"), 0);
        bin = hv_asprintf("%s/back.aml", dir);
        assert_int_equal(hv_read_file(bin, MIB, &log, &log_len), 0);
        assert_int_equal(log_len, len);
        if (memcmp(SIGS[i], "FACS", 4) == 0) {
            assert_memory_equal(log, t, len);
        } else {
            assert_memory_equal(log + 10, t + 10, 18);
            assert_memory_equal(log + 36, t + 36, len - 36);
        }
        free(log);
        unlink(path);
        unlink(bin);
        free(path);
        free(bin);
    }
    unlink(logpath);
    free(logpath);
    path = hv_asprintf("%s/t.dsl", dir);
    unlink(path);
    free(path);
    rmdir(dir);
}

/* Walk the structures: lengths, terminators, unique handles, type 127 last. Returns the one of type. */
static const uint8_t *smbios_find(const struct strbuf *sb, unsigned type, unsigned nth)
{
    const uint8_t *b = (const uint8_t *)sb->buf, *p = b + get_le64(b + 16) - LOADER_SMBIOS;
    const uint8_t *end = p + get_le32(b + 12), *found = NULL;
    uint16_t handles[32];
    unsigned count = 0;

    assert_true(end == b + sb->len);
    while (p < end) {
        assert_true(end - p >= 6 && p[1] >= 4 && p[1] + 2 <= end - p);
        uint16_t handle = get_le16(p + 2);
        for (unsigned i = 0; i < count; i++) {
            assert_int_not_equal(handles[i], handle);
        }
        assert_true(count < ARRAY_SIZE(handles));
        handles[count++] = handle;
        if (p[0] == type && nth-- == 0) {
            found = p;
        }
        bool last = p[0] == 127;
        for (p += p[1]; p[0] || p[1]; p++) {
            assert_true(end - p >= 2);
        }
        p += 2;
        assert_int_equal(last, p == end);
    }
    return found;
}

static const char *smbios_string(const uint8_t *s, unsigned off)
{
    const char *t = (const char *)s + s[1];
    if (s[off] == 0) {
        return "";
    }
    for (unsigned n = s[off]; n > 1; n--) {
        assert_true(*t);
        t += strlen(t) + 1;
    }
    return t;
}

static void test_smbios(void **state)
{
    struct boot_config cfg = config(3);
    strbuf_auto sb = { 0 };

    cfg.cpuid_1_eax = 0x000306a9;
    assert_int_equal(guid_parse("00112233-4455-6677-8899-aabbccddeeff", &cfg.id), 0);
    assert_int_equal(smbios_build(&cfg, LOADER_SMBIOS, &sb), 0);
    const uint8_t *b = (const uint8_t *)sb.buf;
    assert_memory_equal(b, "_SM3_", 5);
    assert_int_equal(b[6], 24);
    assert_int_equal(sum(b, 24), 0);
    assert_true(sb.len <= LOADER_SMBIOS_LEN);

    const uint8_t *s = smbios_find(&sb, 1, 0);
    assert_string_equal(smbios_string(s, 4), "Microsoft Corporation");
    assert_string_equal(smbios_string(s, 5), "Virtual Machine");
    assert_string_equal(smbios_string(s, 6), "7.0");
    assert_string_equal(smbios_string(s, 7), "00112233-4455-6677-8899-AABBCCDDEEFF");
    assert_memory_equal(s + 8, "\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff", 16);
    s = smbios_find(&sb, 2, 0);
    assert_string_equal(smbios_string(s, 5), "Virtual Machine");
    s = smbios_find(&sb, 3, 0);
    assert_string_equal(smbios_string(s, 8), "");      /* no asset tag: not Azure */
    s = smbios_find(&sb, 4, 0);
    assert_int_equal(get_le32(s + 8), 0x000306a9);
    assert_int_equal(s[0x23], 3);
    s = smbios_find(&sb, 17, 0);
    assert_int_equal(get_le16(s + 0x0C), 6144);
    s = smbios_find(&sb, 19, 0);
    assert_int_equal(get_le32(s + 4), 0);
    assert_int_equal(get_le32(s + 8), 0xE0000000 / 1024 - 1);
    s = smbios_find(&sb, 19, 1);
    assert_int_equal(get_le32(s + 4), 0x400000);
    assert_int_equal(get_le32(s + 8), 0x400000 + 2560 * 1024 - 1);
    for (size_t i = 0; i < 6; i++) {
        assert_non_null(smbios_find(&sb, (const unsigned[]){ 0, 1, 16, 17, 32, 127 }[i], 0));
    }
}

/* From 32 GiB, 2 TiB and 4 TiB on other fields hold the sizes. */
static void test_smbios_large(void **state)
{
    struct boot_config cfg = config(1);
    strbuf_auto sb = { 0 };

    assert_int_equal(layout_plan(8 * TIB + 128 * MIB, 0, 46, &LAYOUT, NULL), 0);
    assert_int_equal(smbios_build(&cfg, LOADER_SMBIOS, &sb), 0);
    const uint8_t *s = smbios_find(&sb, 16, 0);
    assert_int_equal(get_le32(s + 7), 0x80000000);
    assert_int_equal(get_le64(s + 0xF), 8 * TIB + 128 * MIB);
    s = smbios_find(&sb, 17, 0);
    assert_int_equal(get_le16(s + 0x0C), 0x7FFF);
    assert_int_equal(get_le32(s + 0x1C), 8 * 1024 * 1024 + 128);
    s = smbios_find(&sb, 19, 1);
    assert_int_equal(get_le32(s + 4), UINT32_MAX);
    assert_int_equal(get_le64(s + 0x0F), 4 * GIB);
    assert_int_equal(get_le64(s + 0x17), MEM_HIGH_BASE + LAYOUT.high_bytes - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rsdp), cmocka_unit_test(test_fadt), cmocka_unit_test(test_board_is_the_platform),
        cmocka_unit_test(test_fadt_follows_the_board),
        cmocka_unit_test(test_madt), cmocka_unit_test(test_dsdt_bytes), cmocka_unit_test(test_vmbus_has_the_windows),
        cmocka_unit_test(test_aml_lengths), cmocka_unit_test(test_aml_integers), cmocka_unit_test(test_iasl),
        cmocka_unit_test(test_smbios), cmocka_unit_test(test_smbios_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
