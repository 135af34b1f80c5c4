/* FAT: what fat_make writes passes fsck.fat and reads back the same. */
#include "tests/unit/fs/fixture.h"

#include <errno.h>

#include "hv/fs/fat.h"

static uint8_t *bytes(size_t n)
{
    uint8_t *p = hv_alloc(n ? n : 1);

    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(i * 31 + (i >> 9));
    }
    return p;
}

static void check_size(uint64_t size)
{
    struct mem_disk m = mem_disk_new(size + 3 * MIB);
    struct fat_file f[] = {
        { .path = (char *)"EFI", .dir = true, .mtime = { 1700000001, 0 } },
        { .path = (char *)"EFI/BOOT/BOOTX64.EFI", .len = 300000, .mtime = { 1700000001, 0 } },
        { .path = (char *)"loader/entries/debian-6.1.0-28-amd64.conf", .len = 77 },
        { .path = (char *)"loader/entries/debian-6.1.0-29-amd64.conf", .len = 78 },
        { .path = (char *)"empty.txt", .len = 0 },
        { .path = (char *)"a name with \xc3\xa4 and many characters, more than thirteen of them.txt", .len = 5 },
        { .path = (char *)"UPPER.TXT", .len = 513 },
    };
    struct fat_make mk = { .label = "esp", .serial = 0x1234abcd, .time_s = 1700000000, .zeroed = true,
                           .files = f, .n = ARRAY_SIZE(f) };
    struct hv_error e = { 0 };
    struct fs *fs;
    struct probe p;
    char out[4096];

    for (unsigned i = 0; i < ARRAY_SIZE(f); i++) {
        f[i].data = bytes(f[i].len);
    }
    assert_int_equal(fat_make(m.d, MIB, size, &mk, &e), 0);
    assert_int_equal(probe_read(m.d, MIB, size, &p), 0);
    assert_int_equal(p.kind, PROBE_FAT);
    assert_string_equal(p.label, "ESP");
    assert_string_equal(p.uuid, "1234-ABCD");
    assert_int_equal(fs_open(m.d, MIB, size, false, &fs, &e), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(f); i++) {
        uint8_t *got = hv_alloc(f[i].len + 10);
        size_t n, have = 0;
        uint64_t ino;
        struct fs_stat st;
        assert_int_equal(fs_walk(fs, f[i].path, true, &ino), 0);
        assert_int_equal(fs->ops->stat(fs, ino, &st), 0);
        assert_int_equal(S_ISDIR(st.mode), f[i].dir);
        if (!f[i].dir) {
            assert_int_equal(st.size, f[i].len);
            do {
                assert_int_equal(fs->ops->read(fs, ino, have, got + have, 100001, &n), 0);
                have += n;
            } while (n);
            assert_int_equal(have, f[i].len);
            assert_memory_equal(got, f[i].data, have);
        }
        free(got);
        free(f[i].data);
    }
    assert_int_equal(fs_close(fs), 0);
    if (run_command(out, sizeof(out), "command -v fsck.fat") == 0) {
        run_command(out, sizeof(out), "dd if=%s of=/tmp/hv-test-fat.%d bs=1M skip=1 count=%u 2>/dev/null; "
                    "fsck.fat -n /tmp/hv-test-fat.%d 2>&1; s=$?; rm -f /tmp/hv-test-fat.%d; exit $s", m.path,
                    (int)getpid(), (unsigned)(size / MIB), (int)getpid(), (int)getpid());
        if (!strstr(out, "11 files")) { print_message("%s", out); }
        assert_null(strstr(out, "differences"));
        assert_non_null(strstr(out, "11 files"));
    }
    mem_disk_free(&m);
}

static void test_sizes(void **state)
{
    static const uint64_t sizes[] = { 4 * MIB, 32 * MIB, 33 * MIB, 34 * MIB, 48 * MIB, 100 * MIB, 512 * MIB };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        check_size(sizes[i]);
    }
}

static void test_refused(void **state)
{
    struct mem_disk m = mem_disk_new(40 * MIB);
    struct fat_file twice[] = { { .path = (char *)"a" }, { .path = (char *)"A" } };
    struct fat_file up[] = { { .path = (char *)"x/../../y" } };
    struct fat_make mk = { .label = "", .zeroed = true, .files = twice, .n = 2 };
    struct hv_error e = { 0 };

    assert_int_equal(fat_make(m.d, 0, 40 * MIB, &mk, &e), -EEXIST);
    mk.files = up;
    mk.n = 1;
    assert_int_equal(fat_make(m.d, 0, 40 * MIB, &mk, &e), -EINVAL);
    mk.files = (struct fat_file[]){ { .path = (char *)"big", .len = 41 * MIB } };
    assert_int_equal(fat_make(m.d, 0, 40 * MIB, &mk, &e), -ENOSPC);
    mem_disk_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sizes), cmocka_unit_test(test_refused) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
