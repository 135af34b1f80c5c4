/* VHD against a model: an array of bytes that every operation is done to as well. */
#include "hv/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv/base/endian.h"
#include "tests/unit/roll.h"

#define SIZE (9 * MIB + 512 * 7)

static char dir[] = "/tmp/hv-test-vhd-XXXXXX";

static const char *in_dir(const char *name)
{
    static char paths[4][200];
    static int at;

    at = (at + 1) % 4;
    snprintf(paths[at], sizeof(paths[at]), "%s/%s", dir, name);
    return paths[at];
}

static struct disk *open_disk(const char *path, unsigned flags)
{
    struct hv_error e = { 0 };
    struct disk *d = NULL;

    if (disk_open(path, &(struct disk_options){ .format = -1, .flags = flags }, &d, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return d;
}

static void close_disk(struct disk *d)
{
    struct hv_error e = { 0 };

    if (disk_close(d, &e) < 0) {
        fail_msg("%s", e.message);
    }
}

static void count_problem(void *arg, const struct disk_problem *p)
{
    if (!p->harmless) {
        print_message("problem: %s\n", p->text);
        ++*(int *)arg;
    }
}

static int problems(const char *path)
{
    struct hv_error e = { 0 };
    struct disk_file *f;
    int n = 0;

    assert_int_equal(disk_file_open(path, 0, &f, &e), 0);
    assert_int_equal(disk_check_file(f, -1, count_problem, &n, &e), 0);
    disk_file_unref(f);
    return n;
}

static void compare(struct disk *d, const uint8_t *model, uint64_t size)
{
    uint8_t *all = test_malloc(size);

    assert_int_equal(disk_size(d), size);
    assert_int_equal(disk_read(d, 0, all, size), 0);
    for (uint64_t i = 0; i < size; i++) {
        if (all[i] != model[i]) {
            fail_msg("byte 0x%llx is %02x, not %02x", (unsigned long long)i, all[i], model[i]);
        }
    }
    test_free(all);
}

/* Random writes, zeroing, discards, flushes and reopening; the parent's content shines through. */
static void play(const char *path, uint8_t *model, uint64_t size, int steps)
{
    struct disk *d = open_disk(path, DISK_WRITE);
    static uint8_t buf[600 * KIB];

    for (int i = 0; i < steps; i++) {
        uint64_t off = roll(size), len = 1 + roll(roll(4) ? 20000 : sizeof(buf)), kind = roll(20);

        if (roll(2)) {
            off = off / 512 * 512;
            len = ROUND_UP(len, 512);
        }
        len = MIN(MIN(len, size - off), sizeof(buf));
        if (kind < 12) {
            for (uint64_t k = 0; k < len; k++) {
                buf[k] = (uint8_t)(roll(255) + 1);
            }
            assert_int_equal(disk_write(d, off, buf, len), 0);
            memcpy(model + off, buf, len);
        } else if (kind < 16) {
            len = roll(3) ? len : 5 * MIB;
            len = MIN(len, size - off);
            assert_int_equal(disk_zero(d, off, len), 0);
            memset(model + off, 0, len);
        } else if (kind == 16) {
            assert_int_equal(disk_flush(d), 0);
        } else if (kind == 17) {
            close_disk(d);
            assert_int_equal(problems(path), 0);
            d = open_disk(path, DISK_WRITE);
        } else if (kind == 18) {
            assert_int_equal(disk_read(d, off, buf, len), 0);
            assert_memory_equal(buf, model + off, len);
        } else {
            struct hv_error e = { 0 };
            int r = disk_compact(d, roll(2), NULL, NULL, &e);

            assert_true(r == 0 || r == -EOPNOTSUPP);
        }
    }
    compare(d, model, size);
    close_disk(d);
    assert_int_equal(problems(path), 0);
}

static void create(const char *path, struct disk_create c)
{
    struct hv_error e = { 0 };

    unlink(path);
    c.kind = DISK_VHD;
    if (disk_create(path, &c, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    assert_int_equal(problems(path), 0);
}

static void random_io_equals_the_model(void **state)
{
    static const struct { enum disk_type type; uint32_t block; } rows[] = {
        { DISK_FIXED, 0 }, { DISK_DYNAMIC, 0 }, { DISK_DYNAMIC, 512 * KIB }, { DISK_DYNAMIC, 4 * MIB },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint8_t *model = test_calloc(1, SIZE);

        create(in_dir("a.vhd"), (struct disk_create){ .type = rows[i].type, .block_size = rows[i].block, .size = SIZE });
        play(in_dir("a.vhd"), model, SIZE, 150);
        test_free(model);
    }
}

static void a_chain_of_differencing_disks_equals_the_model(void **state)
{
    uint8_t *model = test_calloc(1, SIZE);
    char name[32], parent[32] = "base.vhd";

    create(in_dir("base.vhd"), (struct disk_create){ .type = DISK_DYNAMIC, .size = SIZE });
    play(in_dir("base.vhd"), model, SIZE, 60);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "child%d.vhd", i);
        create(in_dir(name), (struct disk_create){ .type = DISK_DIFFERENCING, .parent = in_dir(parent),
                                                   .block_size = i % 2 ? 512 * KIB : 0 });
        play(in_dir(name), model, SIZE, 50);
        hv_strlcpy(parent, name, sizeof(parent));
    }
    /* The base was not touched by its children. */
    struct disk *d = open_disk(in_dir("child3.vhd"), 0);
    assert_non_null(disk_layer(d, 4));
    assert_null(disk_layer(d, 5));
    close_disk(d);
    test_free(model);
}

static void growing_moves_the_bat_and_keeps_the_content(void **state)
{
    for (int type = DISK_FIXED; type <= DISK_DYNAMIC; type++) {
        uint64_t size = SIZE;
        uint8_t *model = test_calloc(1, SIZE + 400 * MIB);
        struct hv_error e = { 0 };

        create(in_dir("g.vhd"), (struct disk_create){ .type = (enum disk_type)type, .size = SIZE,
                                                      .block_size = type == DISK_DYNAMIC ? 512 * KIB : 0 });
        for (int i = 0; i < 5; i++) {
            play(in_dir("g.vhd"), model, size, 20);
            struct disk *d = open_disk(in_dir("g.vhd"), DISK_WRITE);

            size += (1 + roll(40000)) * 512 + (uint64_t)i * 20 * MIB;
            if (disk_resize(d, size, &e) < 0) {
                fail_msg("%s", e.message);
            }
            compare(d, model, size);
            assert_int_equal(disk_resize(d, size - 512, &e), type == DISK_FIXED || type == DISK_DYNAMIC ? -EOPNOTSUPP : 0);
            close_disk(d);
            assert_int_equal(problems(in_dir("g.vhd")), 0);
        }
        test_free(model);
    }
}

static void compacting_gives_the_room_back(void **state)
{
    uint8_t *model = test_calloc(1, SIZE);
    struct hv_error e = { 0 };
    struct disk_info before, after;
    struct disk *d;

    create(in_dir("c.vhd"), (struct disk_create){ .type = DISK_DYNAMIC, .size = SIZE, .block_size = 512 * KIB });
    d = open_disk(in_dir("c.vhd"), DISK_WRITE);
    for (uint64_t i = 0; i < SIZE; i++) {
        model[i] = (uint8_t)(i >> 9) | 1;
    }
    assert_int_equal(disk_write(d, 0, model, SIZE), 0);
    assert_int_equal(disk_layer_info(disk_layer(d, 0), true, &before), 0);
    for (int i = 0; i < 18; i += 2) {             /* every second block: by zeros that were written, or not */
        memset(model + (uint64_t)i * 512 * KIB, 0, 512 * KIB);
        if (i % 4) {
            assert_int_equal(disk_write(d, (uint64_t)i * 512 * KIB, model + (uint64_t)i * 512 * KIB, 512 * KIB), 0);
        } else {
            assert_int_equal(disk_zero(d, (uint64_t)i * 512 * KIB, 512 * KIB), 0);
        }
    }
    assert_int_equal(disk_compact(d, true, NULL, NULL, &e), 0);
    assert_int_equal(disk_layer_info(disk_layer(d, 0), true, &after), 0);
    assert_int_equal(before.blocks_present - after.blocks_present, 9);
    assert_true(after.file_size < before.file_size * 6 / 10);
    compare(d, model, SIZE);
    close_disk(d);
    d = open_disk(in_dir("c.vhd"), 0);
    compare(d, model, SIZE);
    close_disk(d);
    assert_int_equal(problems(in_dir("c.vhd")), 0);
    test_free(model);
}

static void a_changed_parent_is_refused_and_can_be_taken_over(void **state)
{
    struct hv_error e = { 0 };
    struct disk *d = NULL;
    struct guid id;

    create(in_dir("p.vhd"), (struct disk_create){ .type = DISK_DYNAMIC, .size = SIZE });
    create(in_dir("q.vhd"), (struct disk_create){ .type = DISK_DIFFERENCING, .parent = in_dir("p.vhd") });
    d = open_disk(in_dir("p.vhd"), DISK_WRITE);
    guid_new(&id);
    assert_int_equal(disk_set_id(d, &id, &e), 0);
    close_disk(d);
    assert_int_equal(disk_open(in_dir("q.vhd"), NULL, &d, &e), -ESTALE);
    assert_non_null(strstr(e.hint, "--set-parent"));
    d = open_disk(in_dir("q.vhd"), DISK_WRITE | DISK_NO_PARENT);
    assert_int_equal(disk_set_parent(d, in_dir("p.vhd"), false, &e), -ESTALE);
    assert_int_equal(disk_set_parent(d, in_dir("p.vhd"), true, &e), 0);
    close_disk(d);
    d = open_disk(in_dir("q.vhd"), 0);
    close_disk(d);
    /* Found beside the child after both moved; not found at all. */
    assert_int_equal(mkdir(in_dir("sub"), 0755), 0);
    assert_int_equal(rename(in_dir("p.vhd"), in_dir("sub/P.VHD")), 0);
    assert_int_equal(disk_open(in_dir("q.vhd"), NULL, &d, &e), -ENOENT);
    assert_int_equal(rename(in_dir("q.vhd"), in_dir("sub/q.vhd")), 0);
    d = open_disk(in_dir("sub/q.vhd"), 0);
    close_disk(d);
}

/* Write value at off of a file. */
static void poke(const char *path, uint64_t off, const void *value, size_t len)
{
    int fd = open(path, O_WRONLY);

    assert_true(fd >= 0 && pwrite(fd, value, len, (off_t)off) == (ssize_t)len);
    close(fd);
}

static int repair(const char *path)
{
    struct hv_error e = { 0 };
    struct disk_file *f;
    int n = 0;

    assert_int_equal(disk_file_open(path, DISK_FILE_WRITE, &f, &e), 0);
    if (disk_repair_file(f, -1, false, count_problem, &n, &e) < 0) {
        fail_msg("%s", e.message);
    }
    disk_file_unref(f);
    return n;
}

static void damage_is_found_and_put_right(void **state)
{
    uint8_t *model = test_malloc(SIZE), entry[4];
    const char *path = in_dir("d.vhd");
    struct stat st;
    struct disk *d;
    char text[200];

    hv_strlcpy(text, path, sizeof(text));
    path = text;
    create(path, (struct disk_create){ .type = DISK_DYNAMIC, .size = SIZE });
    for (uint64_t i = 0; i < SIZE; i++) {
        model[i] = (uint8_t)(i >> 12) | 1;
    }
    d = open_disk(path, DISK_WRITE);
    assert_int_equal(disk_write(d, 0, model, SIZE), 0);
    close_disk(d);
    /* The end footer cut off: opens, is found, is put back. */
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 512), 0);
    d = open_disk(path, 0);
    compare(d, model, SIZE);
    close_disk(d);
    assert_int_equal(problems(path), 1);
    assert_int_equal(repair(path), 1);
    assert_int_equal(problems(path), 0);
    /* The front copy overwritten. */
    poke(path, 0, "xxxxxxxx", 8);
    d = open_disk(path, 0);
    compare(d, model, SIZE);
    close_disk(d);
    assert_int_equal(problems(path), 1);
    assert_int_equal(repair(path), 1);
    /* A header's checksum: refused, put right. */
    poke(path, 512 + 36, "xxxx", 4);
    assert_int_equal(disk_open(path, NULL, &d, NULL), -EINVAL);
    assert_int_equal(problems(path), 1);
    assert_int_equal(repair(path), 1);
    assert_int_equal(problems(path), 0);
    /* Two blocks in one place: each gets its own; nothing else changes. */
    d = open_disk(path, 0);
    close_disk(d);
    int fd = open(path, O_RDONLY);
    assert_true(pread(fd, entry, 4, 1536 + 4) == 4);
    close(fd);
    poke(path, 1536, entry, 4);
    assert_int_equal(problems(path), 1);
    assert_int_equal(repair(path), 1);
    assert_int_equal(problems(path), 0);
    memcpy(model, model + 2 * MIB, 2 * MIB);
    d = open_disk(path, 0);
    compare(d, model, SIZE);
    close_disk(d);
    /* An entry past the end, and one in the header: the blocks are lost, the rest stays. */
    put_be32(entry, 0x10000000);
    poke(path, 1536 + 8, entry, 4);
    put_be32(entry, 2);
    poke(path, 1536 + 12, entry, 4);
    d = open_disk(path, 0);
    assert_int_equal(disk_read(d, 4 * MIB, model, 512), -EUCLEAN);
    close_disk(d);
    assert_int_equal(problems(path), 2);
    assert_int_equal(repair(path), 2);
    assert_int_equal(problems(path), 0);
    test_free(model);
}

/* Some writers end the file where the disk does, inside its last block: new blocks do not start there. */
static void a_block_cut_by_the_end_of_the_disk_keeps_its_room(void **state)
{
    const char *path = in_dir("cut.vhd");
    uint64_t size = 3 * MIB + 512, at;
    uint8_t footer[512], entry[4], got[512], want[512];
    struct disk *d;
    int fd;

    (void)state;
    create(path, (struct disk_create){ .kind = DISK_VHD, .type = DISK_DYNAMIC, .size = size, .block_size = 2 * MIB });
    d = open_disk(path, DISK_WRITE);
    memset(want, 'z', sizeof(want));
    assert_int_equal(disk_write(d, size - 512, want, 512), 0);
    close_disk(d);
    fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, footer, 512, 0), 512);
    assert_int_equal(pread(fd, entry, 4, 1536 + 4), 4);
    at = get_be32(entry) * 512ull + 512 + MIB + 512;        /* its bitmap, and what the disk has of it */
    assert_int_equal(ftruncate(fd, (off_t)at), 0);
    assert_int_equal(pwrite(fd, footer, 512, (off_t)at), 512);
    close(fd);
    assert_int_equal(problems(path), 0);
    d = open_disk(path, DISK_WRITE);
    assert_int_equal(disk_write(d, 0, want, 512), 0);
    close_disk(d);
    assert_int_equal(problems(path), 0);
    d = open_disk(path, DISK_WRITE);
    assert_int_equal(disk_read(d, size - 512, got, 512), 0);
    assert_memory_equal(got, want, 512);
    assert_int_equal(disk_resize(d, 5 * MIB, NULL), 0);     /* the block is whole now: it may grow */
    assert_int_equal(disk_read(d, size, got, 512), 0);
    memset(want, 0, sizeof(want));
    assert_memory_equal(got, want, 512);
    close_disk(d);
    assert_int_equal(problems(path), 0);
}

static void a_disk_in_use_says_by_whom(void **state)
{
    struct hv_error e = { 0 };
    struct disk *d, *other = NULL;
    char pid[32];

    create(in_dir("u.vhd"), (struct disk_create){ .type = DISK_DYNAMIC, .size = SIZE });
    d = open_disk(in_dir("u.vhd"), DISK_WRITE);
    assert_int_equal(disk_open(in_dir("u.vhd"), NULL, &other, &e), -EBUSY);
    snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
    assert_non_null(strstr(e.message, pid));
    assert_int_equal(disk_open(in_dir("u.vhd"), &(struct disk_options){ .format = -1, .flags = DISK_SHARED }, &other, &e), 0);
    disk_close(other, NULL);
    close_disk(d);
    /* Readers do not keep readers out; they keep a writer out. */
    d = open_disk(in_dir("u.vhd"), 0);
    other = open_disk(in_dir("u.vhd"), 0);
    disk_close(other, NULL);
    assert_int_equal(disk_open(in_dir("u.vhd"), &(struct disk_options){ .format = -1, .flags = DISK_WRITE }, &other, &e), -EBUSY);
    close_disk(d);
}

static int make_dir(void **state)
{
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_io_equals_the_model),
        cmocka_unit_test(a_chain_of_differencing_disks_equals_the_model),
        cmocka_unit_test(growing_moves_the_bat_and_keeps_the_content),
        cmocka_unit_test(compacting_gives_the_room_back),
        cmocka_unit_test(a_changed_parent_is_refused_and_can_be_taken_over),
        cmocka_unit_test(damage_is_found_and_put_right),
        cmocka_unit_test(a_block_cut_by_the_end_of_the_disk_keeps_its_room),
        cmocka_unit_test(a_disk_in_use_says_by_whom),
    };

    return cmocka_run_group_tests_name("vhd", tests, make_dir, remove_dir);
}
