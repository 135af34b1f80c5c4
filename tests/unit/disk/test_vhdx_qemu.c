/*
 * VHDX beside qemu-img, in both directions and in every shape it knows: content equal byte
 * for byte, its check content with ours, a log of ours replayed by it. Skipped without it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv/disk/disk.h"
#include "tests/unit/roll.h"

#define SIZE (41 * MIB + 512 * 3)

static char dir[] = "/tmp/hv-test-vhdx-XXXXXX";
static uint8_t model[SIZE];
HV_PRINTF(1, 2) static int run(const char *fmt, ...)
{
    char cmd[600];
    int n = snprintf(cmd, sizeof(cmd), "cd %s && ", dir);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(cmd + n, sizeof(cmd) - (size_t)n, fmt, ap);
    va_end(ap);
    return system(cmd);
}

static const char *in_dir(const char *name)
{
    static char path[200];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static struct disk *open_disk(const char *name, unsigned flags)
{
    struct hv_error e = { 0 };
    struct disk *d = NULL;

    if (disk_open(in_dir(name), &(struct disk_options){ .format = -1, .flags = flags }, &d, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return d;
}

static void scribble(struct disk *d, unsigned writes)
{
    for (unsigned i = 0; i < writes; i++) {
        uint64_t off = roll(SIZE / 512) * 512, wish = (1 + roll(roll(3) ? 64 : 2000)) * 512, len = MIN(wish, SIZE - off);

        if (roll(5) == 0) {
            assert_int_equal(disk_zero(d, off, len), 0);
            memset(model + off, 0, len);
            continue;
        }
        for (uint64_t k = 0; k < len; k += 8) {
            uint64_t value = roll(UINT64_MAX);

            memcpy(model + off + k, &value, 8);
        }
        assert_int_equal(disk_write(d, off, model + off, len), 0);
    }
}

static void same_as_model(const char *name)
{
    struct disk *d = open_disk(name, 0);
    static uint8_t all[SIZE];

    assert_int_equal(disk_size(d), SIZE);
    assert_int_equal(disk_read(d, 0, all, SIZE), 0);
    assert_true(memcmp(all, model, SIZE) == 0);
    disk_close(d, NULL);
}

static void tell(void *arg, const struct disk_problem *p)
{
    if (!p->harmless) {
        ++*(int *)arg;
        print_message("%s\n", p->text);
    }
}

static void qemu_agrees(const char *name)
{
    struct disk_file *f;
    int n = 0;

    assert_int_equal(disk_file_open(in_dir(name), 0, &f, NULL), 0);
    assert_int_equal(disk_check_file(f, -1, tell, &n, NULL), 0);
    disk_file_unref(f);
    assert_int_equal(n, 0);
    assert_int_equal(run("qemu-img check -q -f vhdx %s", name), 0);
    assert_int_equal(run("qemu-img convert -f vhdx -O raw %s back.raw", name), 0);
    same_as_model("back.raw");
    same_as_model(name);
}

static void test_ours(void **state)
{
    static const uint32_t blocks[] = { 1, 2, 32, 256 };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(blocks) * 2; i++) {
        struct disk_create c = { .kind = DISK_VHDX, .type = i % 2 ? DISK_FIXED : DISK_DYNAMIC, .size = SIZE,
                                 .block_size = blocks[i / 2] << 20 };
        struct hv_error e = { 0 };
        struct disk *d;

        if (c.type == DISK_FIXED && blocks[i / 2] == 256) {
            continue;                        /* a quarter of a GiB really reserved */
        }
        memset(model, 0, sizeof(model));
        assert_int_equal(disk_create(in_dir("a.vhdx"), &c, &e), 0);
        qemu_agrees("a.vhdx");
        d = open_disk("a.vhdx", DISK_WRITE);
        scribble(d, 30);
        assert_int_equal(disk_close(d, &e), 0);
        qemu_agrees("a.vhdx");
        /* As after a crash: qemu replays what our log holds. */
        d = open_disk("a.vhdx", DISK_WRITE);
        for (int k = 0; k < 10; k++) {
            scribble(d, 3);
            assert_int_equal(disk_flush(d), 0);
        }
        disk_abandon(d);
        same_as_model("a.vhdx");
        assert_int_equal(run("qemu-img check -q -r all -f vhdx a.vhdx"), 0);
        qemu_agrees("a.vhdx");
        d = open_disk("a.vhdx", DISK_WRITE);
        assert_int_equal(disk_resize(d, SIZE + 30 * MIB, &e), 0);
        assert_int_equal(disk_resize(d, SIZE, &e), 0);
        if (c.type == DISK_DYNAMIC) {
            assert_int_equal(disk_discard(d, 4 * MIB, 33 * MIB), 0);
            assert_int_equal(disk_zero(d, 4 * MIB, 33 * MIB), 0);
            memset(model + 4 * MIB, 0, 33 * MIB);
            assert_int_equal(disk_compact(d, true, NULL, NULL, &e), 0);
        }
        assert_int_equal(disk_close(d, &e), 0);
        qemu_agrees("a.vhdx");
        unlink(in_dir("a.vhdx"));
    }
}

static void test_theirs(void **state)
{
    static const char *const options[] = {
        "subformat=dynamic,block_size=1M", "subformat=dynamic,block_size=2M", "subformat=dynamic,block_size=32M",
        "subformat=dynamic,block_size=256M", "subformat=fixed,block_size=8M", "subformat=dynamic,log_size=4M",
        "subformat=dynamic,block_state_zero=off",
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        struct hv_error e = { 0 };
        struct disk *d;
        FILE *f = fopen(in_dir("m.raw"), "w");

        memset(model, 0, sizeof(model));
        for (unsigned k = 0; k < 20; k++) {
            uint64_t off = roll(SIZE - 5000);

            for (unsigned b = 0; b < 5000; b++) {
                model[off + b] = (uint8_t)roll(256);
            }
        }
        assert_non_null(f);
        assert_int_equal(fwrite(model, 1, SIZE, f), SIZE);
        fclose(f);
        assert_int_equal(run("qemu-img convert -f raw -O vhdx -o %s m.raw q.vhdx", options[i]), 0);
        qemu_agrees("q.vhdx");
        d = open_disk("q.vhdx", DISK_WRITE);
        scribble(d, 40);
        assert_int_equal(disk_close(d, &e), 0);
        qemu_agrees("q.vhdx");
        unlink(in_dir("q.vhdx"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_ours), cmocka_unit_test(test_theirs) };
    int r;

    if (system("qemu-img --version >/dev/null 2>&1") != 0) {
        printf("no qemu-img: skipped\n");
        return 0;
    }
    hv_assert(mkdtemp(dir));
    r = cmocka_run_group_tests(tests, NULL, NULL);
    run("rm -rf %s", dir);
    return r;
}
