/* Partition tables: what is written is read back, by us and by sfdisk; what is broken is bounded. */
#include "tests/unit/fs/fixture.h"

#include <errno.h>

#include "hv/fs/digest.h"
#include "hv/fs/partition.h"

static struct guid guid_of(const char *what)
{
    uint8_t seed[DIGEST_SIZE] = { 7 };
    struct guid g;

    digest_guid(seed, what, false, g.b);
    return g;
}

static void write_gpt(struct disk *d, unsigned n)
{
    struct partition p[8] = { { 0 } };
    struct partition_table t = { .scheme = PARTITION_GPT, .disk_id = guid_of("disk"), .p = p, .n = n };
    struct hv_error e = { 0 };

    for (unsigned i = 0; i < n; i++) {
        p[i] = (struct partition){ .number = i + 1, .offset = (1 + 4 * i) * MIB, .len = 4 * MIB,
                                   .type = partition_gpt_type(PARTITION_LINUX), .id = guid_of(i ? "b" : "a") };
        snprintf(p[i].name, sizeof(p[i].name), "part-%u-\xc3\xa4", i + 1);
    }
    assert_int_equal(partition_write(d, &t, &e), 0);
}

static void test_digest(void **state)
{
    /* RFC 7693 gives BLAKE2b-512 of "abc"; with 32 bytes of result this is what b2sum -l 256 prints. */
    static const uint8_t want[4] = { 0xbd, 0xdd, 0x81, 0x3c };
    uint8_t got[DIGEST_SIZE], again[DIGEST_SIZE], big[1000];
    struct digest d;

    digest_init(&d);
    digest_add(&d, "abc", 3);
    digest_end(&d, got);
    assert_memory_equal(got, want, sizeof(want));
    for (unsigned i = 0; i < sizeof(big); i++) {
        big[i] = (uint8_t)(i * 7);
    }
    digest_init(&d);
    digest_add(&d, big, sizeof(big));
    digest_end(&d, got);
    digest_init(&d);
    for (unsigned at = 0, n = 1; at < sizeof(big); at += n, n = n * 2 + 1) {
        n = (unsigned)MIN(n, sizeof(big) - at);
        digest_add(&d, big + at, n);
    }
    digest_end(&d, again);
    assert_memory_equal(got, again, sizeof(got));
}

static void test_crc(void **state)
{
    assert_int_equal(partition_crc32(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(partition_crc32(partition_crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
}

static void test_gpt(void **state)
{
    struct mem_disk m = mem_disk_new(64 * MIB);
    struct partition_table t;
    struct hv_error e = { 0 };
    char out[4096];

    write_gpt(m.d, 3);
    assert_int_equal(partition_read(m.d, &t, &e), 0);
    assert_int_equal(t.scheme, PARTITION_GPT);
    assert_int_equal(t.n, 3);
    assert_string_equal(t.note, "");
    assert_int_equal(t.p[2].number, 3);
    assert_int_equal(t.p[2].offset, 9 * MIB);
    assert_int_equal(t.p[2].len, 4 * MIB);
    assert_string_equal(t.p[1].name, "part-2-\xc3\xa4");
    assert_string_equal(partition_type_name(&t, &t.p[0]), "Linux file system");
    assert_false(t.backup_misplaced);
    partition_table_fini(&t);
    if (run_command(out, sizeof(out), "sfdisk -V %s 2>&1", m.path) != 127) {
        assert_int_equal(run_command(out, sizeof(out), "sfdisk -V -q %s 2>&1", m.path), 0);
        assert_int_equal(run_command(out, sizeof(out), "sfdisk -d %s 2>&1", m.path), 0);
        assert_non_null(strstr(out, "start=        2048, size=        8192, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4"));
        assert_non_null(strstr(out, "name=\"part-1-"));
    }
    mem_disk_free(&m);
}

/* Either copy may be damaged anywhere; the other one is used, and it is said. */
static void test_gpt_copies(void **state)
{
    static const uint64_t at[] = { 512 + 3, 512 + 40, 512 + 57, 1024 + 33 };

    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        struct mem_disk m = mem_disk_new(64 * MIB);
        struct partition_table t;
        struct hv_error e = { 0 };
        uint8_t b;

        write_gpt(m.d, 2);
        assert_int_equal(disk_read(m.d, at[i], &b, 1), 0);
        b ^= 0x40;
        assert_int_equal(disk_write(m.d, at[i], &b, 1), 0);
        assert_int_equal(partition_read(m.d, &t, &e), 0);
        assert_int_equal(t.scheme, PARTITION_GPT);
        assert_int_equal(t.n, 2);
        assert_non_null(strstr(t.note, "read from the backup"));
        partition_table_fini(&t);

        /* And the backup too: nothing is left, and it is no empty disk either. */
        assert_int_equal(disk_zero(m.d, 64 * MIB - 512, 512), 0);
        assert_int_equal(partition_read(m.d, &t, &e), -EINVAL);
        assert_non_null(strstr(e.message, "both its headers"));
        mem_disk_free(&m);
    }
}

static void test_gpt_backup_gone(void **state)
{
    struct mem_disk m = mem_disk_new(64 * MIB);
    struct partition_table t;
    struct hv_error e = { 0 };

    write_gpt(m.d, 2);
    assert_int_equal(disk_zero(m.d, 64 * MIB - 512, 512), 0);
    assert_int_equal(partition_read(m.d, &t, &e), 0);
    assert_non_null(strstr(t.note, "backup header is damaged"));
    partition_table_fini(&t);
    assert_int_equal(ftruncate(m.fd, 80 * MIB), 0);
    struct mem_disk grown = mem_disk_of(dup(m.fd));
    assert_int_equal(partition_read(grown.d, &t, &e), 0);
    assert_true(t.backup_misplaced);
    /* Writing the same table moves the backup to the new end. */
    assert_int_equal(partition_write(grown.d, &t, &e), 0);
    partition_table_fini(&t);
    assert_int_equal(partition_read(grown.d, &t, &e), 0);
    assert_string_equal(t.note, "");
    assert_int_equal(t.n, 2);
    assert_int_equal(t.end_usable, 80 * MIB - 33 * 512);
    partition_table_fini(&t);
    mem_disk_free(&grown);
    mem_disk_free(&m);
}

static void test_mbr(void **state)
{
    struct mem_disk m = mem_disk_new(64 * MIB);
    struct partition p[2] = {
        { .number = 1, .offset = MIB, .len = 8 * MIB, .mbr_type = 0x83, .active = true },
        { .number = 3, .offset = 16 * MIB, .len = 16 * MIB, .mbr_type = 0x82 } };
    struct partition_table t = { .scheme = PARTITION_MBR, .mbr_id = 0xdeadbeef, .p = p, .n = 2 }, got;
    struct hv_error e = { 0 };
    char out[4096];

    assert_int_equal(disk_write(m.d, 0, "BOOT", 4), 0);
    assert_int_equal(partition_write(m.d, &t, &e), 0);
    assert_int_equal(partition_read(m.d, &got, &e), 0);
    assert_int_equal(got.scheme, PARTITION_MBR);
    assert_int_equal(got.mbr_id, 0xdeadbeef);
    assert_int_equal(got.n, 2);
    assert_true(got.p[0].active);
    assert_int_equal(got.p[1].number, 3);
    assert_int_equal(got.p[1].offset, 16 * MIB);
    partition_table_fini(&got);
    assert_int_equal(disk_read(m.d, 0, out, 4), 0);
    assert_memory_equal(out, "BOOT", 4);
    if (run_command(out, sizeof(out), "sfdisk -d %s 2>&1", m.path) != 127) {
        assert_non_null(strstr(out, "label-id: 0xdeadbeef"));
        assert_non_null(strstr(out, "size=       16384, type=83, bootable"));
    }
    p[1].offset = 5 * MIB;
    assert_int_equal(partition_write(m.d, &t, &e), -EINVAL);
    p[1].offset = 60 * MIB;
    assert_int_equal(partition_write(m.d, &t, &e), -ENOSPC);
    mem_disk_free(&m);
}

static void put_entry(uint8_t *s, unsigned i, uint8_t type, uint32_t first, uint32_t count)
{
    s[446 + 16 * i + 4] = type;
    put_le32(s + 446 + 16 * i + 8, first);
    put_le32(s + 446 + 16 * i + 12, count);
    put_le16(s + 510, 0xaa55);
}

static void test_logical(void **state)
{
    struct mem_disk m = mem_disk_new(64 * MIB);
    struct partition_table t;
    struct hv_error e = { 0 };
    uint8_t s[512] = { 0 };

    put_entry(s, 0, 0x05, 2048, 100000);
    assert_int_equal(disk_write(m.d, 0, s, 512), 0);
    memset(s, 0, 512);
    put_entry(s, 0, 0x83, 64, 1000);
    put_entry(s, 1, 0x05, 4096, 2000);
    assert_int_equal(disk_write(m.d, 2048 * 512, s, 512), 0);
    memset(s, 0, 512);
    put_entry(s, 0, 0x82, 128, 500);
    assert_int_equal(disk_write(m.d, (2048 + 4096) * 512, s, 512), 0);
    assert_int_equal(partition_read(m.d, &t, &e), 0);
    assert_int_equal(t.n, 3);
    assert_true(t.p[0].extended);
    assert_int_equal(t.p[1].number, 5);
    assert_int_equal(t.p[1].offset, (2048 + 64) * 512);
    assert_int_equal(t.p[2].number, 6);
    assert_int_equal(t.p[2].offset, (2048 + 4096 + 128) * 512);
    assert_int_equal(partition_write(m.d, &t, &e), -EOPNOTSUPP);
    partition_table_fini(&t);

    /* A chain that points to itself ends. */
    put_entry(s, 1, 0x05, 4096, 2000);
    assert_int_equal(disk_write(m.d, (2048 + 4096) * 512, s, 512), 0);
    assert_int_equal(partition_read(m.d, &t, &e), 0);
    assert_in_range(t.n, 3, 2 + PARTITION_LOGICAL);
    assert_non_null(strstr(t.note, "does not end"));
    partition_table_fini(&t);
    mem_disk_free(&m);
}

static void test_none(void **state)
{
    struct mem_disk m = mem_disk_new(MIB);
    struct partition_table t;
    struct hv_error e = { 0 };

    assert_int_equal(partition_read(m.d, &t, &e), 0);
    assert_int_equal(t.scheme, PARTITION_NONE);
    mem_disk_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest),          cmocka_unit_test(test_crc),
        cmocka_unit_test(test_gpt),             cmocka_unit_test(test_gpt_copies),
        cmocka_unit_test(test_gpt_backup_gone), cmocka_unit_test(test_mbr),
        cmocka_unit_test(test_logical),         cmocka_unit_test(test_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
