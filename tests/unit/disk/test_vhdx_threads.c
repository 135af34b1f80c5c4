/* Writers, a discarder, a reader and a flusher on one VHDX at once; then as after a crash. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "hv/disk/disk.h"

#define WRITERS 4
#define ROUNDS  150
#define BLOCKS  8u                   /* of each writer */

static char dir[] = "/tmp/hv-test-vhdx-XXXXXX";

struct worker {
    pthread_t thread;
    struct disk *d;
    unsigned no;
    uint8_t value[BLOCKS * 4];       /* what each quarter of its blocks holds now */
    int failed;
};

static _Atomic bool done;

static uint64_t place(const struct worker *w, unsigned quarter)
{
    return ((uint64_t)w->no * BLOCKS) * MIB + quarter * (MIB / 4);
}

/* Own blocks, beside those of others in the same BAT page and bitmap. */
static void *write_and_discard(void *arg)
{
    struct worker *w = arg;
    static _Thread_local uint8_t buf[MIB / 4], back[MIB / 4];
    uint64_t seed = 88172645463325252u + w->no;

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned q = (unsigned)((seed = seed * 6364136223846793005u + 1) >> 33) % (BLOCKS * 4);

        if (i % 7 == 6) {
            q = q / 4 * 4;
            w->failed += disk_zero(w->d, place(w, q), MIB) != 0;
            memset(w->value + q, 0, 4);
        } else {
            memset(buf, (int)(i % 255 + 1), sizeof(buf));
            w->failed += disk_write(w->d, place(w, q), buf, sizeof(buf)) != 0;
            w->value[q] = (uint8_t)(i % 255 + 1);
        }
        memset(buf, w->value[q], sizeof(buf));
        w->failed += disk_read(w->d, place(w, q), back, sizeof(back)) != 0 || memcmp(buf, back, sizeof(buf)) != 0;
    }
    return NULL;
}

static void *flush_all_the_time(void *arg)
{
    struct worker *w = arg;

    while (!done) {
        w->failed += disk_flush(w->d) != 0;
    }
    return NULL;
}

static void *map_all_the_time(void *arg)
{
    struct worker *w = arg;
    struct disk_extent x;

    while (!done) {
        for (uint64_t off = 0; off < disk_size(w->d); off += x.len) {
            if (disk_map(w->d, off, disk_size(w->d) - off, &x) < 0) {
                w->failed++;
                break;
            }
        }
    }
    return NULL;
}

static struct disk *open_it(const char *path, unsigned flags)
{
    struct hv_error e = { 0 };
    struct disk *d = NULL;

    if (disk_open(path, &(struct disk_options){ .format = -1, .flags = flags }, &d, &e) < 0) {
        fail_msg("%s: %s", e.object, e.message);
    }
    return d;
}

static void verify(struct disk *d, const struct worker *w)
{
    static uint8_t buf[MIB / 4];

    for (unsigned i = 0; i < WRITERS; i++) {
        for (unsigned q = 0; q < BLOCKS * 4; q++) {
            assert_int_equal(disk_read(d, place(&w[i], q), buf, sizeof(buf)), 0);
            for (unsigned k = 0; k < sizeof(buf); k++) {
                assert_int_equal(buf[k], w[i].value[q]);
            }
        }
    }
}

static void count(void *arg, const struct disk_problem *p)
{
    *(int *)arg += !p->harmless;
}

static void test_threads(void **state)
{
    struct hv_error e = { 0 };
    char base[100], child[100];
    struct worker w[WRITERS + 2] = { 0 };
    struct disk_create c = { .kind = DISK_VHDX, .type = DISK_DYNAMIC, .size = WRITERS * BLOCKS * MIB };
    struct disk_file *f;
    struct disk *d;
    int problems = 0;

    (void)state;
    snprintf(base, sizeof(base), "%s/base.vhdx", dir);
    snprintf(child, sizeof(child), "%s/child.vhdx", dir);
    assert_int_equal(disk_create(base, &c, &e), 0);
    c = (struct disk_create){ .kind = DISK_VHDX, .type = DISK_DIFFERENCING, .parent = base, .block_size = 1 << 20 };
    assert_int_equal(disk_create(child, &c, &e), 0);
    d = open_it(child, DISK_WRITE);
    for (unsigned i = 0; i < WRITERS + 2; i++) {
        w[i].d = d;
        w[i].no = i;
        assert_int_equal(pthread_create(&w[i].thread, NULL, i < WRITERS ? write_and_discard : i == WRITERS ? flush_all_the_time
                                                                                                           : map_all_the_time,
                                        &w[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS + 2; i++) {
        done = i >= WRITERS;
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].failed, 0);
    }
    verify(d, w);
    assert_int_equal(disk_flush(d), 0);
    disk_abandon(d);
    d = open_it(child, 0);
    verify(d, w);
    disk_close(d, NULL);
    d = open_it(child, DISK_WRITE);
    verify(d, w);
    assert_int_equal(disk_close(d, &e), 0);
    assert_int_equal(disk_file_open(child, 0, &f, &e), 0);
    assert_int_equal(disk_check_file(f, -1, count, &problems, &e), 0);
    assert_int_equal(problems, 0);
    disk_file_unref(f);
    unlink(child);
    unlink(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };
    int r;

    hv_assert(mkdtemp(dir));
    r = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return r;
}
