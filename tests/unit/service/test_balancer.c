/*
 * The balancer's promises, I1 to I12 of its design: each over many random hosts, and each
 * checked by what an operator would see, not by how it is computed.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/bench/dm_model.h"

enum { MOST = 24, CASES = 20000 };

struct host_case {
    struct dm_host host;
    struct dm_vm vm[MOST];
    size_t n;
};

static uint64_t seed;
static uint32_t rnd(uint32_t below) { return (uint32_t)(model_random(&seed) % below); }

static struct dm_vm random_vm(size_t i)
{
    uint32_t min = 32 + 2 * rnd(1000), startup = min + 2 * rnd(2000), max = startup + 2 * rnd(8000);
    static const uint32_t weights[] = {0, 1, 50, 100, 2500, 5000, 5000, 5000, 9999, 10000};
    struct dm_vm v = {
        .startup = startup, .min = min, .max = max,
        .buffer_pct = rnd(5) ? 20 : 5 + rnd(1996),
        .weight = weights[rnd(10)],
        .source = rnd(3),
        .state = DM_ACTIVE,
        .can_balloon = rnd(10) != 0,
        .can_hot_add = rnd(4) != 0,
    };
    for (size_t k = 0; k < sizeof(v.id); k++) {
        v.id[k] = (uint8_t)model_random(&seed);
    }
    v.id[15] = (uint8_t)i;
    v.assigned = min + rnd(max - min + 1);
    v.available = rnd(v.assigned + 1);
    v.committed = rnd(2 * v.assigned + 1);
    v.ballooned = rnd(2) ? 0 : rnd(4000);
    return v;
}

static uint64_t total_assigned(const struct host_case *c)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        sum += c->vm[i].assigned;
    }
    return sum;
}

static struct host_case random_case(void)
{
    struct host_case c = {.n = 1 + rnd(MOST), .host.now = 1000000 + rnd(1000000)};
    for (size_t i = 0; i < c.n; i++) {
        c.vm[i] = random_vm(i);
    }
    uint64_t sum = total_assigned(&c);
    c.host.pool = sum + rnd((uint32_t)(sum / 2) + 1);
    c.host.free = c.host.pool - sum;
    return c;
}

struct outcome {
    struct dm_plan plan[MOST];
    struct dm_host_plan host;
};

static struct outcome plan_of(const struct host_case *c)
{
    struct outcome o;
    memset(&o, 0xa5, sizeof(o));
    assert_int_equal(dm_plan(&c->host, c->vm, c->n, o.plan, &o.host), 0);
    return o;
}

static void each_case(void (*check)(const struct host_case *c, const struct outcome *o))
{
    seed = 1;
    for (int k = 0; k < CASES; k++) {
        struct host_case c = random_case();
        struct outcome o = plan_of(&c);
        check(&c, &o);
    }
}

static uint64_t sum_of(const struct host_case *c, const struct outcome *o, size_t offset)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        sum += *(const uint32_t *)((const char *)&o->plan[i] + offset);
    }
    return sum;
}
#define SUM(c, o, field) sum_of(c, o, offsetof(struct dm_plan, field))

static void targets_fit(const struct host_case *c, const struct outcome *o)
{
    if (SUM(c, o, floor) <= c->host.pool) {
        assert_true(SUM(c, o, target) <= c->host.pool);
        assert_false(o->host.deficit);
    } else {
        assert_true(o->host.deficit);
        for (size_t i = 0; i < c->n; i++) {
            assert_int_equal(o->plan[i].target, o->plan[i].floor);
        }
    }
}

static void targets_are_between_floor_and_want(const struct host_case *c, const struct outcome *o)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct dm_plan *p = &o->plan[i];
        assert_true(p->floor >= c->vm[i].min);
        assert_true(p->floor <= p->need && p->need <= p->want);
        assert_in_range(p->target, p->floor, p->want);
        assert_true(p->want <= c->vm[i].max || p->want == p->floor);
    }
}

static void nothing_is_left_lying(const struct host_case *c, const struct outcome *o)
{
    uint64_t want = SUM(c, o, want), pool = c->host.pool;
    assert_true(SUM(c, o, target) + c->n >= (pool < want ? pool : want));
}

static void operations_are_covered(const struct host_case *c, const struct outcome *o)
{
    uint64_t given = 0;
    for (size_t i = 0; i < c->n; i++) {
        const struct dm_plan *p = &o->plan[i];
        const struct dm_vm *v = &c->vm[i];
        assert_int_equal(p->action == DM_KEEP, p->amount == 0);
        assert_int_equal(p->amount % DM_GRAIN_MIB, 0);
        if (p->action == DM_GROW) {
            given += p->amount;
            assert_true(v->assigned + p->amount <= v->max);
            assert_true(p->amount - p->hot_add <= v->ballooned);
            assert_int_equal(p->hot_add % DM_HOT_ADD_MIB, 0);
            assert_true(v->can_hot_add || p->hot_add == 0);
        } else if (p->action == DM_SHRINK) {
            assert_true(v->can_balloon);
            assert_true(p->amount + dm_guest_floor(v->assigned) < v->available);
            assert_true(v->assigned - p->amount >= v->min);
            assert_true(v->assigned - p->amount >= p->target);
        }
    }
    assert_true(given <= c->host.free);
}

static void test_I1_targets_fit(void **s) { each_case(targets_fit); }
static void test_I2_bounds(void **s) { each_case(targets_are_between_floor_and_want); }
static void test_I4_work_conserving(void **s) { each_case(nothing_is_left_lying); }
static void test_I10_I11_operations(void **s) { each_case(operations_are_covered); }

/* One fraction of a MiB may go to another VM where the shares change. */
static void assert_not_above(uint32_t a, uint32_t b) { assert_true(a <= b + 2); }

static void more_weight(const struct host_case *c, const struct outcome *o)
{
    struct host_case d = *c;
    size_t i = rnd((uint32_t)c->n);
    d.vm[i].weight = d.vm[i].weight + rnd(10001 - d.vm[i].weight);
    struct outcome q = plan_of(&d);
    bool buffers = SUM(c, o, need) < c->host.pool;
    assert_not_above(o->plan[i].target, q.plan[i].target);
    for (size_t j = 0; j < c->n && !buffers; j++) {
        if (j != i) {
            assert_not_above(q.plan[j].target, o->plan[j].target);
        }
    }
}

static void larger_pool(const struct host_case *c, const struct outcome *o)
{
    struct host_case d = *c;
    d.host.pool += rnd(4000);
    struct outcome q = plan_of(&d);
    for (size_t j = 0; j < c->n; j++) {
        assert_not_above(o->plan[j].target, q.plan[j].target);
    }
}

static void test_I3_weight(void **s) { each_case(more_weight); }
static void test_I9_pool(void **s) { each_case(larger_pool); }

static int by_id(const void *a, const void *b)
{
    return memcmp(((const struct dm_vm *)a)->id, ((const struct dm_vm *)b)->id, 16);
}

static void any_order(const struct host_case *c, const struct outcome *o)
{
    struct host_case d = *c;
    qsort(d.vm, d.n, sizeof(d.vm[0]), by_id);
    struct outcome q = plan_of(&d), again = plan_of(&d);
    assert_memory_equal(&q.host, &again.host, sizeof(q.host));
    assert_memory_equal(q.plan, again.plan, d.n * sizeof(q.plan[0]));
    for (size_t i = 0; i < c->n; i++) {
        struct dm_vm *v = bsearch(&c->vm[i], d.vm, d.n, sizeof(d.vm[0]), by_id);
        assert_memory_equal(&o->plan[i], &q.plan[v - d.vm], sizeof(o->plan[i]));
    }
}
static void test_I6_order(void **s) { each_case(any_order); }

/* A guest that claims endless demand takes what others do not need, and no more than its share. */
static void one_hog(const struct host_case *c, const struct outcome *o)
{
    struct host_case d = *c;
    size_t hog = rnd((uint32_t)c->n);
    d.vm[hog].committed = UINT32_MAX;
    d.vm[hog].available = 0;
    d.vm[hog].source = DM_COMMIT;
    d.vm[hog].max = 1 << 24;
    struct outcome q = plan_of(&d);
    uint64_t floors = SUM(&d, &q, floor), weights = 0;
    for (size_t j = 0; j < d.n; j++) {
        weights += d.vm[j].weight < 100 ? 100 : d.vm[j].weight;
    }
    if (floors > d.host.pool) {
        return;
    }
    for (size_t j = 0; j < d.n; j++) {
        uint64_t w = d.vm[j].weight < 100 ? 100 : d.vm[j].weight;
        /* Of what is left over the floors nobody's weighted share can be less than this. */
        uint64_t share = d.host.pool * w / weights;
        uint64_t above = 0;
        for (size_t k = 0; k < d.n; k++) {
            uint64_t wk = d.vm[k].weight < 100 ? 100 : d.vm[k].weight;
            uint64_t sk = d.host.pool * wk / weights;
            above += k != j && q.plan[k].floor > sk ? q.plan[k].floor - sk : 0;
        }
        uint64_t least = share > above ? share - above : 0;
        uint64_t need = q.plan[j].need;
        assert_true(q.plan[j].target + 2 >= (need < least ? need : least));
    }
}
static void test_I7_I8_isolation(void **s) { each_case(one_hog); }

static void garbage_from_some(const struct host_case *c, const struct outcome *o)
{
    /* Stale VMs stay as they are, whatever their last report said. */
    struct host_case d = *c, e = *c;
    for (size_t i = 0; i < c->n; i += 2) {
        d.vm[i].report_age_ms = e.vm[i].report_age_ms = DM_STALE_MS + 1;
        d.vm[i].available = (uint32_t)model_random(&seed);
        d.vm[i].committed = (uint32_t)model_random(&seed);
    }
    struct outcome p = plan_of(&d), q = plan_of(&e);
    for (size_t i = 0; i < c->n; i++) {
        assert_int_equal(p.plan[i].target, q.plan[i].target);
        if (i % 2 == 0) {
            assert_int_equal(p.plan[i].target, c->vm[i].assigned);
            assert_int_equal(p.plan[i].action, DM_KEEP);
            assert_int_equal(p.plan[i].why, DM_WHY_STALE);
        }
    }
}
static void test_I12_stale(void **s) { each_case(garbage_from_some); }

/* Every number a guest or a file can hold: nothing overflows (the sanitized run sees it), all bounds hold. */
static void test_extremes(void **state)
{
    static const uint32_t edge[] = {0, 1, 2, 127, 128, 4096, 1u << 28, INT32_MAX, UINT32_MAX - 1, UINT32_MAX};
    seed = 7;
    for (int k = 0; k < CASES; k++) {
        struct host_case c = {.n = 1 + rnd(4), .host.now = rnd(2) ? rnd(10) : UINT64_MAX / 2};
        for (size_t i = 0; i < c.n; i++) {
            struct dm_vm *v = &c.vm[i];
            uint32_t *f[] = {&v->startup, &v->min, &v->max, &v->buffer_pct, &v->weight, &v->assigned, &v->ballooned,
                             &v->offline, &v->committed, &v->available, &v->report_age_ms, &v->reclaim_mib_s};
            for (size_t j = 0; j < sizeof(f) / sizeof(f[0]); j++) {
                *f[j] = edge[rnd(10)];
            }
            v->id[0] = (uint8_t)i;
            v->state = rnd(DM_STATE_COUNT);
            v->source = rnd(DM_SOURCE_COUNT);
            v->can_balloon = rnd(2);
            v->can_hot_add = rnd(2);
            v->in_flight = rnd(3) ? 0 : rnd(2) ? INT32_MAX : INT32_MIN;
        }
        c.host.pool = rnd(2) ? edge[rnd(10)] : UINT64_MAX / 4096;
        c.host.free = rnd(2) ? edge[rnd(10)] : c.host.pool;
        c.host.pressed = rnd(4) == 0;
        for (int again = 0; again < 3; again++) {
            struct outcome o = plan_of(&c);
            for (size_t i = 0; i < c.n; i++) {
                assert_in_range(o.plan[i].status, 0, DM_STATUS_COUNT - 1);
                assert_true(o.plan[i].action != DM_GROW || o.plan[i].amount <= c.host.free);
                c.vm[i].memo = o.plan[i].memo;
            }
            c.host.memo = o.host.memo;
            c.host.now += 1000;
        }
    }
}

/* ---- over time ---- */

static void add(struct model *m, size_t i, struct dm_vm settings, uint32_t used)
{
    struct model_vm *v = &m->vm[i];
    memcpy(settings.id, v->dm.id, sizeof(settings.id));
    v->dm = settings;
    v->used = used;
    v->committed = used;
}

static struct dm_vm dynamic_vm(uint32_t startup, uint32_t min, uint32_t max)
{
    return (struct dm_vm){.startup = startup, .min = min, .max = max, .buffer_pct = 20, .weight = 5000,
                          .state = DM_ACTIVE, .can_balloon = true, .can_hot_add = true, .assigned = startup};
}

static void run(struct model *m, unsigned seconds)
{
    for (unsigned i = 0; i < seconds; i++) {
        model_step(m);
        if (m->broken) {
            fail_msg("%s at second %llu", m->broken, (unsigned long long)m->clock_s);
        }
    }
}

static uint64_t operations(const struct model *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->n; i++) {
        sum += m->vm[i].ops;
    }
    return sum;
}

static void test_I5_rest(void **state)
{
    seed = 3;
    for (int k = 0; k < 60; k++) {
        struct model m;
        size_t n = 1 + rnd(12);
        uint64_t sum = 0;
        model_init(&m, n, 0, seed);
        for (size_t i = 0; i < n; i++) {
            uint32_t startup = 512 + 2 * rnd(1000), max = startup + 2 * rnd(4000);
            struct dm_vm v = dynamic_vm(startup, 256 + 2 * rnd(100), max);
            v.weight = rnd(10001);
            v.can_hot_add = rnd(3) != 0;
            add(&m, i, v, rnd(max));
            sum += startup;
        }
        m.pool = sum + rnd(3000);
        run(&m, 300 + 10 * 60);
        uint64_t before = operations(&m);
        run(&m, 600);
        assert_int_equal(operations(&m), before);
        model_fini(&m);
    }
}

static void test_idle_guest_falls_to_its_demand(void **state)
{
    struct model m;
    model_init(&m, 1, 16384, 1);
    struct dm_vm v = dynamic_vm(2048, 512, 8192);
    v.state = DM_BOOT;
    add(&m, 0, v, 300);
    m.vm[0].boots_until = 45;
    run(&m, 44);
    assert_int_equal(m.vm[0].dm.assigned, 2048);
    assert_int_equal(m.plan[0].why, DM_WHY_BOOT);
    assert_int_equal(m.plan[0].status, DM_UNKNOWN);
    run(&m, 900 - 44);
    uint32_t demand = dm_demand(&m.vm[0].dm);
    assert_in_range(m.vm[0].dm.assigned, demand * 12 / 10, demand * 126 / 100 + 64);
    assert_int_equal(m.plan[0].status, DM_OK);
    assert_int_equal(m.vm[0].warning, 0);
    model_fini(&m);
}

static void test_jump_with_free_memory_is_met_in_two_steps(void **state)
{
    struct model m;
    model_init(&m, 1, 16384, 1);
    add(&m, 0, dynamic_vm(1024, 512, 8192), 300);
    run(&m, 100);
    m.vm[0].used += 1024;
    m.vm[0].committed += 1024;
    run(&m, 2);
    assert_true(dm_demand(&m.vm[0].dm) <= m.vm[0].dm.assigned);
    model_fini(&m);
}

static void test_jump_is_met_by_a_donor(void **state)
{
    struct model m;
    model_init(&m, 2, 4096, 1);
    add(&m, 0, dynamic_vm(1024, 512, 4096), 300);
    add(&m, 1, dynamic_vm(3000, 512, 4096), 300);
    m.vm[0].dm.memo.hot_until = 1; /* an old one does not matter */
    run(&m, 1);
    m.vm[0].used += 600;
    m.vm[0].committed += 600;
    run(&m, 5);
    assert_true(dm_demand(&m.vm[0].dm) <= m.vm[0].dm.assigned);
    model_fini(&m);
}

static void test_contention_follows_weights(void **state)
{
    struct model m;
    model_init(&m, 2, 5000, 1);
    struct dm_vm a = dynamic_vm(512, 256, 16384), b = a;
    a.weight = 10000;
    b.weight = 2500;
    a.source = b.source = DM_COMMIT;
    a.can_hot_add = b.can_hot_add = true;
    add(&m, 0, a, 200);
    add(&m, 1, b, 200);
    m.vm[0].committed = m.vm[1].committed = 12000;
    run(&m, 60);
    uint32_t x = m.vm[0].dm.assigned, y = m.vm[1].dm.assigned;
    assert_in_range(x, 4 * y - 4 * DM_HOT_ADD_MIB, 4 * y + 4 * DM_HOT_ADD_MIB);
    assert_int_equal(m.plan[0].status, DM_WARNING);
    assert_int_equal(m.plan[0].why, DM_WHY_HOST);
    assert_int_equal(m.plan[1].why, DM_WHY_HOST);
    model_fini(&m);
}

/* Equal weights: buffers shrink together before anybody's demand goes short. */
static void test_buffers_go_first_and_together(void **state)
{
    struct host_case c = {.n = 3, .host.now = 1000};
    for (size_t i = 0; i < c.n; i++) {
        c.vm[i] = dynamic_vm(2048, 512, 8192);
        c.vm[i].id[0] = (uint8_t)i;
        c.vm[i].assigned = 2048;
        c.vm[i].available = 900 - 100 * (uint32_t)i;
    }
    struct outcome o = plan_of(&c);
    uint64_t need = SUM(&c, &o, need), want = SUM(&c, &o, want);
    c.host.pool = need + (want - need) / 2;
    o = plan_of(&c);
    for (size_t i = 0; i < c.n; i++) {
        const struct dm_plan *p = &o.plan[i];
        assert_true(p->target >= p->need);
        uint32_t part = (p->target - p->need) * 100 / (p->want - p->need);
        assert_in_range(part, 48, 51);
    }
}

static void test_refusing_guest_is_left_alone(void **state)
{
    struct model m;
    model_init(&m, 2, 4096, 1);
    add(&m, 0, dynamic_vm(1024, 512, 4096), 2000);
    add(&m, 1, dynamic_vm(3000, 512, 4096), 300);
    m.vm[1].refuses = true;
    run(&m, 3600);
    assert_in_range(m.vm[1].ops, 1, 12);
    assert_int_equal(m.vm[1].dm.assigned, 3000);
    model_fini(&m);
}

/* Say: available equals assigned, always. The floor guard keeps what the guest needs to live. */
static void test_lying_guest_keeps_its_floor(void **state)
{
    struct host_case c = {.n = 1, .host = {.now = 1000000, .pool = 8192, .free = 0}};
    c.vm[0] = dynamic_vm(4096, 64, 8192);
    uint32_t taken = 0;
    for (int i = 0; i < 2000; i++) {
        c.vm[0].available = c.vm[0].assigned;
        c.vm[0].committed = 0;
        struct outcome o = plan_of(&c);
        if (o.plan[0].action == DM_SHRINK) {
            c.vm[0].assigned -= o.plan[0].amount;
            taken += o.plan[0].amount;
        }
        c.vm[0].memo = o.plan[0].memo;
        c.host.memo = o.host.memo;
        c.host.now += 1000;
    }
    assert_true(taken > 0);
    assert_true(c.vm[0].assigned >= dm_guest_floor(c.vm[0].assigned));
}

static void test_demand_of_one_guest(void **state)
{
    struct dm_vm v = dynamic_vm(2048, 512, 8192);
    v.available = 1000;
    v.committed = 3000;
    v.source = DM_USE;
    assert_int_equal(dm_demand(&v), 2048 - 1000 + 360);
    v.source = DM_COMMIT;
    assert_int_equal(dm_demand(&v), 3000);
    v.source = DM_HYBRID; /* commit leads by half of use at most */
    /* ... and 2112 MiB of guest keep 4 MiB more for themselves than 2048 do. */
    assert_int_equal(dm_demand(&v), 1408 + 704 + 4);
    v.committed = 1500;
    assert_int_equal(dm_demand(&v), 1500);
    v.committed = 100;
    assert_int_equal(dm_demand(&v), 1408);
    v.ballooned = 5000; /* more than committed: never below nothing */
    v.source = DM_COMMIT;
    assert_int_equal(dm_demand(&v), 0);
    v.ballooned = 0;
    v.committed = UINT32_MAX;
    assert_int_equal(dm_demand(&v), 4 * 8192);
}

static void test_guest_floor_is_the_drivers(void **state)
{
    static const uint32_t at[][2] = {{16, 16}, {32, 24}, {128, 72}, {512, 168}, {2048, 360}, {8192, 744}, {32768, 1512}};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        assert_int_equal(dm_guest_floor(at[i][0]), at[i][1]);
    }
}

static void test_status(void **state)
{
    /* Low shows after two samples, Warning at once. */
    struct host_case c = {.n = 1, .host = {.now = 1000, .pool = 1000}};
    c.vm[0] = dynamic_vm(1000, 512, 1000);
    c.vm[0].source = DM_COMMIT;
    static const struct {
        uint32_t demand;
        enum dm_status shown;
        int32_t buffer;
    } step[] = {{500, DM_OK, 500}, {900, DM_OK, 55}, {900, DM_LOW, 55}, {500, DM_LOW, 500}, {900, DM_LOW, 55},
                {1001, DM_WARNING, 0}, {1100, DM_WARNING, -45}, {862, DM_WARNING, 80}, {862, DM_OK, 80}};
    for (size_t i = 0; i < sizeof(step) / sizeof(step[0]); i++) {
        c.vm[0].available = 600;
        c.vm[0].committed = step[i].demand;
        struct outcome o = plan_of(&c);
        assert_int_equal(o.plan[0].demand, step[i].demand);
        assert_int_equal(o.plan[0].status, step[i].shown);
        assert_int_equal(o.plan[0].buffer_now_pct, step[i].buffer);
        c.vm[0].memo = o.plan[0].memo;
    }
    c.vm[0].buffer_pct = 20;
    struct outcome o = plan_of(&c);
    assert_int_equal(o.plan[0].band_min, 79);
    assert_int_equal(o.plan[0].band_max, 86);
}

static void test_back_off_doubles(void **state)
{
    struct dm_memo m = {0};
    static const uint64_t waits[] = {60, 120, 240, 480, 960, 1800, 1800};
    for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
        dm_answered(&m, 1000000, 100, 50);
        assert_int_equal(m.back_off_until, 1000000 + 1000 * waits[i]);
    }
    dm_answered(&m, 1000000, 100, 100);
    assert_int_equal(m.back_off_until, 0);
    dm_answered(&m, 1000000, 100, 0);
    assert_int_equal(m.back_off_until, 1060000);
}

static void test_silent_guest_becomes_static(void **state)
{
    struct host_case c = {.n = 1, .host = {.now = 1000, .pool = 4096, .free = 3000}};
    c.vm[0] = dynamic_vm(1024, 512, 4096);
    c.vm[0].report_age_ms = DM_LOST_MS + 1;
    struct outcome o = plan_of(&c);
    assert_int_equal(o.plan[0].status, DM_UNKNOWN);
    assert_int_equal(o.plan[0].buffer_now_pct, DM_NO_BUFFER);
    assert_int_equal(o.host.pool, 4096 - 1024);
}

/* Two VMs with fixed demand and the free memory given: who gets it? */
static struct host_case two(uint32_t demand0, uint32_t demand1, uint64_t pool, uint64_t unused)
{
    struct host_case c = {.n = 2, .host = {.now = 1000000, .pool = pool, .free = unused}};
    for (size_t i = 0; i < 2; i++) {
        c.vm[i] = dynamic_vm(1000, 512, 4000);
        c.vm[i].id[0] = (uint8_t)i;
        c.vm[i].source = DM_COMMIT;
        c.vm[i].committed = (i ? demand1 : demand0) + 2000;
        c.vm[i].available = 700;
        c.vm[i].ballooned = 2000; /* comes back to the MiB */
    }
    return c;
}

static void test_needs_come_before_buffers(void **state)
{
    /* The first lacks buffer and is the needier of nothing; the second is short by 400. */
    struct host_case c = two(1000, 1400, 8000, 400);
    struct outcome o = plan_of(&c);
    assert_int_equal(o.plan[1].action, DM_GROW);
    assert_int_equal(o.plan[1].amount, 400);
    assert_int_equal(o.plan[0].action, DM_KEEP);
    assert_int_equal(o.plan[0].why, DM_WHY_HOST);
    /* Both short: the one with the larger pressure first. */
    c = two(1300, 1400, 8000, 500);
    o = plan_of(&c);
    assert_int_equal(o.plan[1].amount, 400);
    assert_int_equal(o.plan[0].amount, 100);
}

static void test_buffers_leave_the_spike_pool(void **state)
{
    struct host_case c = two(1000, 500, 8000, 300);
    struct outcome o = plan_of(&c);
    assert_int_equal(o.host.spike_pool, 8000 * 3 / 100);
    assert_int_equal(o.plan[0].action, DM_GROW);
    assert_int_equal(o.plan[0].amount, 300 - 240);
    /* A need may take all of it. */
    c = two(2000, 500, 8000, 300);
    o = plan_of(&c);
    assert_int_equal(o.plan[0].amount, 300);
}

/*
 * A guest that lacks less than a block of hot-add, next to one with more than it wants, and free
 * memory between the two sizes: the donor gives until the whole block fits.
 */
static void test_donors_make_room_for_a_whole_block(void **state)
{
    struct host_case c = {.n = 2, .host = {.now = 1000000, .pool = 1452, .free = 240}};
    c.vm[0] = dynamic_vm(640, 256, 1152);
    c.vm[1] = dynamic_vm(640, 256, 1152);
    c.vm[0].id[0] = 1;
    c.vm[0].assigned = 768;
    c.vm[0].available = 768 - 731 + dm_guest_floor(768);
    c.vm[1].assigned = 444;
    c.vm[1].available = 444 - 275 + dm_guest_floor(444);
    c.vm[1].ballooned = 196;
    c.vm[1].memo.last_lazy = c.host.now;               /* of its own accord it gives nothing yet */
    struct outcome o = plan_of(&c);
    assert_true(o.plan[0].target > 768);
    assert_int_equal(o.plan[0].action, DM_KEEP);
    assert_int_equal(o.plan[1].action, DM_SHRINK);
    c.vm[1].assigned -= o.plan[1].amount;
    c.vm[1].available -= o.plan[1].amount;
    c.vm[1].ballooned += o.plan[1].amount;
    c.host.free += o.plan[1].amount;
    o = plan_of(&c);
    assert_int_equal(o.plan[0].action, DM_GROW);
    assert_int_equal(o.plan[0].hot_add, 128);
}

static void test_donors_give_what_is_missing_and_little_more(void **state)
{
    struct host_case c = two(1100, 500, 8000, 50);
    c.vm[1].assigned = 3000;
    c.vm[1].available = 2400;
    struct outcome o = plan_of(&c);
    assert_int_equal(o.plan[1].action, DM_SHRINK);
    assert_true(o.plan[1].urgent);
    assert_int_equal(o.plan[1].why, DM_WHY_GIVING);
    /* Missing: 1320 - 1050 for the first, and the spike pool; at most a tenth of 3000 and 64. */
    assert_int_equal(o.plan[1].amount, 364);
    c.vm[1].reclaim_mib_s = 6; /* a guest that gives single pages is not asked for more than it can */
    assert_int_equal(plan_of(&c).plan[1].amount, 6);
    c.vm[1].reclaim_mib_s = 0;
    c.host.free = 50 + 290;
    o = plan_of(&c);
    uint64_t missing = o.host.unmet + o.host.spike_pool - (c.host.free - o.plan[0].amount);
    assert_in_range(o.plan[1].amount, missing, missing * 105 / 100 + DM_GRAIN_MIB);
}

static void test_nothing_is_taken_twice(void **state)
{
    /* What is already on its way out counts. */
    struct host_case c = two(1100, 500, 8000, 50);
    c.n = 3;
    c.vm[1].assigned = 3000;
    c.vm[1].available = 2400;
    c.vm[2] = c.vm[1];
    c.vm[2].id[0] = 2;
    assert_true(plan_of(&c).plan[2].urgent);
    c.vm[1].in_flight = -600;
    struct outcome o = plan_of(&c);
    assert_int_equal(o.host.in_flight_out, 600);
    assert_int_equal(o.plan[1].action, DM_KEEP);
    assert_false(o.plan[2].urgent);
}

static void test_guest_near_its_end_keeps_its_buffer(void **state)
{
    struct host_case c = two(500, 500, 8000, 4000);
    c.vm[0].assigned = c.vm[1].assigned = 2000;
    c.vm[0].available = c.vm[1].available = 1500;
    c.vm[0].memo.hot_until = c.host.now + 1000;
    struct outcome o = plan_of(&c);
    assert_int_equal(o.plan[0].action, DM_KEEP);
    assert_int_equal(o.plan[1].action, DM_SHRINK);
    assert_false(o.plan[1].urgent);
    assert_int_equal(o.plan[1].amount, 100);
    /* Steps of surplus are ten seconds apart. */
    c.vm[1].memo = o.plan[1].memo;
    c.host.now += 9000;
    assert_int_equal(plan_of(&c).plan[1].action, DM_KEEP);
    c.host.now += 1000;
    assert_int_equal(plan_of(&c).plan[1].action, DM_SHRINK);
    /* After a boot or a reset nothing is taken for a minute. */
    dm_settle(&c.vm[1].memo, c.host.now, DM_SETTLE_MS);
    assert_int_equal(plan_of(&c).plan[1].action, DM_KEEP);
    c.host.now += DM_SETTLE_MS;
    assert_int_equal(plan_of(&c).plan[1].action, DM_SHRINK);
    /* Even where another VM waits it keeps its buffer, while its need is met... */
    struct host_case d = two(1500, 500, 8000, 0);
    d.vm[1].assigned = 3000;
    d.vm[1].available = 2400;
    d.vm[1].memo.hot_until = d.host.now + 1000;
    struct outcome hot = plan_of(&d);
    for (int i = 0; i < 20 && hot.plan[1].action == DM_SHRINK; i++) {
        assert_true(d.vm[1].assigned - hot.plan[1].amount >= hot.plan[1].want);
        d.vm[1].assigned -= hot.plan[1].amount;
        d.vm[1].available -= hot.plan[1].amount;
        hot = plan_of(&d);
    }
    assert_int_equal(hot.plan[1].action, DM_KEEP);
    d.vm[1].assigned = 3000;
    d.vm[1].available = 2400;
    /* ... but not to hold more than its fair share of a host that is short. */
    d.vm[1].committed = 2000 + 5000;
    d.vm[0].max = d.vm[1].max = 12000;
    d.vm[0].committed = 2000 + 5000;
    d.host.pool = 4000;
    assert_int_equal(plan_of(&d).plan[1].action, DM_SHRINK);
    /* A guest with almost nothing available becomes one of those. */
    c.vm[1].available = 50;
    o = plan_of(&c);
    assert_true(o.plan[1].memo.hot_until > c.host.now);
}

static void test_pressed_host_gives_nothing_and_takes_surplus(void **state)
{
    struct host_case c = two(1100, 500, 8000, 4000);
    c.vm[1].assigned = 3000;
    c.vm[1].available = 2400;
    c.host.pressed = true;
    struct outcome o = plan_of(&c);
    assert_int_equal(o.plan[0].action, DM_KEEP);
    assert_int_equal(o.plan[0].why, DM_WHY_HOST);
    assert_int_equal(o.plan[1].action, DM_SHRINK);
    assert_true(o.plan[1].urgent);
}

static void test_peak_is_remembered_five_minutes(void **state)
{
    struct host_case c = two(2000, 500, 8000, 6000);
    c.n = 1;
    c.vm[0].assigned = 2600;
    c.vm[0].available = 2000;
    for (int t = 0; t < 400; t++) {
        c.vm[0].committed = 2000 + (t == 0 ? 2000 : 500);
        struct outcome o = plan_of(&c);
        assert_int_equal(o.plan[0].action, t < 291 ? DM_KEEP : o.plan[0].action);
        if (o.plan[0].action == DM_SHRINK) {
            assert_in_range(t, 291, 300);
            return;
        }
        c.vm[0].memo = o.plan[0].memo;
        c.host.now += 1000;
    }
    fail_msg("the surplus was never collected");
}

static void test_why(void **state)
{
    struct host_case c = two(3900, 500, 16000, 8000);
    c.vm[0].assigned = 3990;
    c.vm[0].available = 700;
    assert_int_equal(plan_of(&c).plan[0].why, DM_WHY_MAX);
    c = two(1100, 500, 16000, 8000);
    assert_int_equal(plan_of(&c).plan[0].why, DM_WHY_MOVING);
    c.vm[0].can_hot_add = false;
    c.vm[0].ballooned = 0;
    c.vm[0].committed -= 2000;
    assert_int_equal(plan_of(&c).plan[0].why, DM_WHY_GUEST);
    c.vm[0].state = DM_FROZEN;
    assert_int_equal(plan_of(&c).plan[0].why, DM_WHY_FROZEN);
    c.vm[0].state = DM_STATIC;
    assert_int_equal(plan_of(&c).plan[0].why, DM_WHY_STATIC);
    c = two(500, 500, 16000, 8000);
    assert_int_equal(plan_of(&c).plan[0].why, DM_WHY_GIVING);
    c.vm[0].assigned = 620;
    c.vm[0].available = 400;
    assert_int_equal(plan_of(&c).plan[0].why, DM_WHY_NONE);
}

static void test_spike_pool_learns_jumps(void **state)
{
    struct host_case c = two(500, 500, 40000, 30000);
    struct outcome o = plan_of(&c);
    assert_int_equal(o.host.spike_pool, 1200);
    c.host.memo = o.host.memo;
    c.host.now += 1000;
    c.vm[0].committed += 1700;
    o = plan_of(&c);
    assert_int_equal(o.host.spike_pool, 1700);
    c.host.memo = o.host.memo;
    c.host.now += 59 * 60 * 1000; /* remembered for an hour, not longer */
    assert_int_equal(plan_of(&c).host.spike_pool, 1700);
    c.host.now += 7 * 60 * 1000;
    assert_int_equal(plan_of(&c).host.spike_pool, 1200);
}

/* Random loads, boots, refusals and short answers: the ledger holds at every second. */
static void test_ledger_holds_under_random_load(void **state)
{
    seed = 11;
    for (int k = 0; k < 20; k++) {
        struct model m;
        size_t n = 2 + rnd(20);
        uint64_t sum = 0;
        model_init(&m, n, 0, seed);
        for (size_t i = 0; i < n; i++) {
            uint32_t startup = 512 + 2 * rnd(1000);
            struct dm_vm v = dynamic_vm(startup, 256, startup + 2 * rnd(4000));
            v.state = DM_BOOT;
            v.can_hot_add = rnd(4) != 0;
            v.weight = rnd(10001);
            add(&m, i, v, 100);
            m.vm[i].boots_until = rnd(100);
            m.vm[i].refuses = rnd(10) == 0;
            m.vm[i].short_1_in = rnd(2) ? 0 : 20;
            m.vm[i].inflate = rnd(4) ? 512 : 6;
            sum += startup;
        }
        m.pool = sum + rnd(2000);
        for (int t = 0; t < 2000; t++) {
            size_t i = rnd((uint32_t)n);
            m.vm[i].used = rnd(m.vm[i].dm.assigned + 500);
            m.vm[i].committed = m.vm[i].used + rnd(1000);
            run(&m, 1);
        }
        model_fini(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_I1_targets_fit),
        cmocka_unit_test(test_I2_bounds),
        cmocka_unit_test(test_I3_weight),
        cmocka_unit_test(test_I4_work_conserving),
        cmocka_unit_test(test_I5_rest),
        cmocka_unit_test(test_I6_order),
        cmocka_unit_test(test_I7_I8_isolation),
        cmocka_unit_test(test_I9_pool),
        cmocka_unit_test(test_I10_I11_operations),
        cmocka_unit_test(test_I12_stale),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_idle_guest_falls_to_its_demand),
        cmocka_unit_test(test_jump_with_free_memory_is_met_in_two_steps),
        cmocka_unit_test(test_jump_is_met_by_a_donor),
        cmocka_unit_test(test_contention_follows_weights),
        cmocka_unit_test(test_buffers_go_first_and_together),
        cmocka_unit_test(test_refusing_guest_is_left_alone),
        cmocka_unit_test(test_lying_guest_keeps_its_floor),
        cmocka_unit_test(test_demand_of_one_guest),
        cmocka_unit_test(test_guest_floor_is_the_drivers),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_back_off_doubles),
        cmocka_unit_test(test_silent_guest_becomes_static),
        cmocka_unit_test(test_needs_come_before_buffers),
        cmocka_unit_test(test_buffers_leave_the_spike_pool),
        cmocka_unit_test(test_donors_make_room_for_a_whole_block),
        cmocka_unit_test(test_donors_give_what_is_missing_and_little_more),
        cmocka_unit_test(test_nothing_is_taken_twice),
        cmocka_unit_test(test_guest_near_its_end_keeps_its_buffer),
        cmocka_unit_test(test_pressed_host_gives_nothing_and_takes_surplus),
        cmocka_unit_test(test_peak_is_remembered_five_minutes),
        cmocka_unit_test(test_why),
        cmocka_unit_test(test_spike_pool_learns_jumps),
        cmocka_unit_test(test_ledger_holds_under_random_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
