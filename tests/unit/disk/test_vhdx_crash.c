/*
 * VHDX through crashes: a random load runs on an image that records every write; then the
 * image is rebuilt as a crash after each of them would have left it, with halves of writes
 * and without what no sync had followed. Each must open (reading, and writing: replayed),
 * check clean, and hold in every sector what the last flush acknowledged or something newer.
 *
 * HV_CRASH_CASES bounds the cases looked at a load (default 60, 0: all of them, four ways
 * each). The writes into the log are always among them, in one way or another.
 */
#include "tests/unit/disk/vhdx_fixture.h"

#define PLACE    (64 * KIB)          /* what is looked at lies in places of this size */
#define SECTORS  (PLACE / 512)
#define PLACES   64u
#define VERSIONS 64u

struct version { uint32_t stamp, time; size_t issued; };

struct load {
    struct image_chain chain;
    unsigned leaf;
    uint64_t stride;                 /* from place to place */
    uint32_t sector;
    unsigned flush_pct;              /* of steps */
    unsigned fill;                   /* places written to before all steps */
    /* Newest last; the oldest go once a flush passed them. */
    struct { struct version v[VERSIONS]; unsigned count; } history[PLACES][SECTORS];
    struct { uint32_t time; size_t done; } flushes[4096];
    unsigned flush_count;
    uint32_t time, stamp;
};

static void stamp_sector(uint8_t *p, uint32_t stamp, uint64_t place, uint64_t i)
{
    for (unsigned k = 0; k < 512; k += 8) {
        put_le32(p + k, stamp);
        put_le32(p + k + 4, stamp ? (uint32_t)(place << 16 | i) : 0);
    }
}

static void remember(struct load *l, uint64_t place, uint64_t from, uint64_t count, uint32_t stamp, size_t issued)
{
    for (uint64_t i = from; i < from + count; i++) {
        unsigned n = l->history[place][i].count;

        if (n == VERSIONS) {
            fail_msg("more versions of a sector than the test keeps");
        }
        l->history[place][i].v[n] = (struct version){ stamp, l->time, issued };
        l->history[place][i].count = n + 1;
    }
}

static uint64_t place_at(const struct load *l, uint64_t place)
{
    return place * l->stride;
}

static void write_some(struct load *l, struct disk *d, uint64_t place)
{
    static uint8_t buf[PLACE];
    uint64_t unit = l->sector / 512, from = roll(SECTORS / unit) * unit;
    uint64_t wish = (1 + roll(roll(3) ? 8 : SECTORS)) * unit, count = MIN(SECTORS - from, wish);

    l->stamp++;
    for (uint64_t i = 0; i < count; i++) {
        stamp_sector(buf + i * 512, l->stamp, place, from + i);
    }
    remember(l, place, from, count, l->stamp, memfile_ops(l->chain.m[l->leaf]));
    assert_int_equal(disk_write(d, place_at(l, place) + from * 512, buf, count * 512), 0);
}

/* A whole block, or a part of a place. */
static void zero_some(struct load *l, struct disk *d)
{
    uint32_t block = disk_layer(d, 0)->block_size;
    uint64_t place = roll(PLACES), unit = l->sector / 512, from = roll(SECTORS / unit) * unit;
    size_t issued = memfile_ops(l->chain.m[l->leaf]);

    if (roll(3) == 0) {
        uint64_t wish = (1 + roll(16)) * unit, count = MIN(SECTORS - from, wish);

        remember(l, place, from, count, 0, issued);
        assert_int_equal(disk_zero(d, place_at(l, place) + from * 512, count * 512), 0);
        return;
    }
    uint64_t start = place_at(l, place) / block * block, len = MIN(disk_size(d) - start, (uint64_t)block);
    for (uint64_t p = 0; p < PLACES; p++) {
        if (place_at(l, p) >= start && place_at(l, p) < start + len) {
            remember(l, p, 0, SECTORS, 0, issued);
        }
    }
    /* A fixed disk ignores discards. */
    assert_int_equal((roll(2) && disk_layer(d, 0)->type != DISK_FIXED ? disk_discard : disk_zero)(d, start, len), 0);
}

static void flush_now(struct load *l, struct disk *d)
{
    assert_int_equal(disk_flush(d), 0);
    hv_assert(l->flush_count < ARRAY_SIZE(l->flushes));
    l->flushes[l->flush_count].time = l->time;
    l->flushes[l->flush_count++].done = memfile_ops(l->chain.m[l->leaf]);
}

/* Versions that no crash from now on may show: older than the last one a flush has passed. */
static void forget_old(struct load *l, size_t crash)
{
    uint32_t acked = 0;

    for (unsigned i = 0; i < l->flush_count && l->flushes[i].done <= crash; i++) {
        acked = l->flushes[i].time;
    }
    for (unsigned p = 0; p < PLACES; p++) {
        for (unsigned i = 0; i < SECTORS; i++) {
            unsigned keep = 0, n = l->history[p][i].count;

            while (keep + 1 < n && l->history[p][i].v[keep + 1].time <= acked) {
                keep++;
            }
            memmove(l->history[p][i].v, l->history[p][i].v + keep, (n - keep) * sizeof(struct version));
            l->history[p][i].count = n - keep;
        }
    }
}

static void verify(struct load *l, struct disk *d, size_t crash, const char *what)
{
    static uint8_t buf[PLACE], want[512];

    for (unsigned p = 0; p < PLACES; p++) {
        assert_int_equal(disk_read(d, place_at(l, p), buf, PLACE), 0);
        for (unsigned i = 0; i < SECTORS; i++) {
            bool fine = false;
            uint32_t got = get_le32(buf + i * 512);

            for (unsigned n = 0; n < l->history[p][i].count && !fine; n++) {
                const struct version *v = &l->history[p][i].v[n];

                stamp_sector(want, v->stamp, p, i);
                fine = (n == 0 || v->issued <= crash) && memcmp(want, buf + i * 512, 512) == 0;
            }
            if (!fine) {
                fail_msg("%s: crash after operation %zu: place %u sector %u holds %u; %u versions, oldest %u", what, crash,
                         p, i, got, l->history[p][i].count, l->history[p][i].v[0].stamp);
            }
        }
    }
}

static void look(struct load *l, size_t crash, enum memfile_crash how)
{
    struct memfile *m = memfile_crash(l->chain.m[l->leaf], crash, how, crash * CRASH_COUNT + how);
    struct disk *d;

    must_be_clean(m, "before replay");
    d = chain_open_as(&l->chain, l->leaf, m, 0);
    verify(l, d, crash, "read-only");
    must_close(d);
    d = chain_open_as(&l->chain, l->leaf, m, DISK_WRITE);
    must_be_clean(m, "after replay");
    verify(l, d, crash, "replayed");
    /* Life goes on. */
    assert_int_equal(disk_write(d, place_at(l, 0) + PLACE, "12345678", 8), 0);
    must_close(d);
    must_be_clean(m, "after a write");
    d = chain_open_as(&l->chain, l->leaf, m, 0);
    verify(l, d, crash, "written to");
    must_close(d);
    memfile_free(m);
}

static unsigned long cases_wanted(void)
{
    const char *text = getenv("HV_CRASH_CASES");

    return text ? strtoul(text, NULL, 10) : 60;
}

/* Every operation of the load, or evenly so many of them and the log's, ways taking turns. */
static void crash_everywhere(struct load *l)
{
    const struct memfile *m = l->chain.m[l->leaf];
    size_t ops = memfile_ops(m);
    unsigned long wanted = cases_wanted(), all = (ops + 1) * CRASH_COUNT, next = 0;

    for (unsigned long n = 0; n < all; n++) {
        size_t crash = n / CRASH_COUNT;
        bool in_log = crash > 0 && memfile_wrote(m, crash - 1, MIB, MIB) && n % CRASH_COUNT == crash % CRASH_COUNT;

        if (wanted && n < next && !in_log) {
            continue;
        }
        if (n >= next) {
            next = wanted && wanted < all ? n + 1 + roll(2 * all / wanted) : n + 1;
        }
        forget_old(l, crash);
        look(l, crash, (enum memfile_crash)(n % CRASH_COUNT));
    }
}

static void run(struct load *l, unsigned steps)
{
    struct memfile *m = l->chain.m[l->leaf];
    struct disk *d;

    memfile_record(m);
    d = chain_open(&l->chain, l->leaf, DISK_WRITE);
    for (unsigned i = 0; i < l->fill; i++) {
        l->time++;
        write_some(l, d, i);
    }
    for (unsigned i = 0; i < steps; i++) {
        uint64_t kind = roll(20);

        l->time++;
        if (roll(100) < l->flush_pct) {
            flush_now(l, d);
        } else if (kind < 15) {
            write_some(l, d, roll(PLACES));
        } else if (kind < 19) {
            zero_some(l, d);
        } else {
            must_close(d);
            l->flushes[l->flush_count].time = l->time;
            l->flushes[l->flush_count++].done = memfile_ops(m);
            d = chain_open(&l->chain, l->leaf, DISK_WRITE);
        }
    }
    must_close(d);
    crash_everywhere(l);
}

static struct load *load_new(uint64_t stride, uint32_t sector)
{
    struct load *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    l->stride = stride;
    l->sector = sector;
    l->flush_pct = 20;
    for (unsigned p = 0; p < PLACES; p++) {
        remember(l, p, 0, SECTORS, 0, 0);
    }
    return l;
}

static void load_free(struct load *l)
{
    chain_fini(&l->chain);
    free(l);
}

static void test_dynamic(void **state)
{
    (void)state;
    for (int sector = 512; sector <= 4096; sector += 3584) {
        struct load *l = load_new(2 * PLACE, (uint32_t)sector);

        chain_add(&l->chain, (struct disk_create){ .type = DISK_DYNAMIC, .size = PLACES * l->stride, .block_size = 1 << 20,
                                                   .logical_sector = l->sector });
        run(l, 120);
        load_free(l);
    }
}

static void test_fixed(void **state)
{
    struct load *l = load_new(2 * PLACE, 512);

    (void)state;
    chain_add(&l->chain, (struct disk_create){ .type = DISK_FIXED, .size = PLACES * l->stride, .block_size = 1 << 20 });
    run(l, 60);
    load_free(l);
}

static void test_differencing(void **state)
{
    (void)state;
    for (int sector = 512; sector <= 4096; sector += 3584) {
        struct load *l = load_new(2 * PLACE, (uint32_t)sector);
        static uint8_t buf[PLACE];
        struct disk *d;

        chain_add(&l->chain, (struct disk_create){ .type = DISK_DYNAMIC, .size = PLACES * l->stride, .block_size = 4 << 20,
                                                   .logical_sector = l->sector });
        d = chain_open(&l->chain, 0, DISK_WRITE);
        l->stamp = 1;
        for (unsigned p = 0; p < PLACES; p++) {
            if (p % 3 == 0) {
                continue;
            }
            for (unsigned i = 0; i < SECTORS; i++) {
                stamp_sector(buf + i * 512, l->stamp, p, i);
                l->history[p][i].v[0].stamp = l->stamp;
            }
            assert_int_equal(disk_write(d, place_at(l, p), buf, PLACE), 0);
        }
        must_close(d);
        chain_add(&l->chain, (struct disk_create){ .block_size = 1 << 20 });
        l->leaf = 1;
        run(l, 120);
        load_free(l);
    }
}

/* Places whose entries lie in BAT pages of their own: flushes of many pages, a log that wraps. */
static void test_wide(void **state)
{
    struct load *l = load_new(512 * MIB, 512);

    (void)state;
    chain_add(&l->chain, (struct disk_create){ .type = DISK_DYNAMIC, .size = PLACES * l->stride, .block_size = 1 << 20 });
    run(l, 300);
    load_free(l);
}

/*
 * The same of a child, whose blocks also need a bitmap in another page and its slot in a third:
 * more pages a flush than an entry takes, so that a crash may keep a part of them.
 */
static void test_wide_differencing(void **state)
{
    struct load *l = load_new(4 * GIB + 3 * MIB, 512);

    (void)state;
    chain_add(&l->chain, (struct disk_create){ .type = DISK_DYNAMIC, .size = PLACES * l->stride, .block_size = 32 << 20 });
    chain_add(&l->chain, (struct disk_create){ .block_size = 1 << 20 });
    l->leaf = 1;
    l->flush_pct = 5;
    l->fill = PLACES;
    run(l, 100);
    load_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dynamic), cmocka_unit_test(test_fixed), cmocka_unit_test(test_differencing),
        cmocka_unit_test(test_wide), cmocka_unit_test(test_wide_differencing),
    };

    seed_from_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
