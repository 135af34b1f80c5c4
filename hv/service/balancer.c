/*
 * The balancer's one function; see balancer.h for its terms.
 *
 * 1. Every report becomes floor, need and want.
 * 2. Targets by two water-fillings: needs by weighted max-min fairness with the floors as
 *    reservations, then what is left as an equal weighted share of every buffer. Squeezing
 *    all VMs by one factor instead would let one leaking guest make every other one page.
 * 3. Targets become operations: grows as far as free memory covers them (needs before
 *    buffers), then shrinks: urgent ones for what is still missing, or lazy ones that let a
 *    peak be forgotten only after five minutes.
 */
#include "hv/service/balancer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT(name, value) enum { name = (value) }
LIMIT(WEIGHT_LEAST, 100);         /* weight 0 is "least", not "nothing" */
LIMIT(GROW_MOST, 4096);           /* MiB of one grow, which takes about a second */
LIMIT(SHRINK_MOST, 512);          /* MiB of one urgent shrink */
LIMIT(SHRINK_LEAST, 64);          /* below this, surplus is left alone */
LIMIT(GUEST_MARGIN, 64);          /* never ask a guest for its last free MiB */
LIMIT(LAZY_EVERY, 10000);
LIMIT(HOT_FOR, 300000);
LIMIT(HOT_AFTER_WARNING, 10000);
LIMIT(BACK_OFF_FIRST, 60000);
LIMIT(BACK_OFF_MOST, 1800000);
LIMIT(OK_BUFFER_PCT, 80);         /* so much of its buffer is OK; the dead band never shows as Low */
LIMIT(JUMP_SLOT_MS, 300000);
LIMIT(SPIKE_LEAST, 128);
LIMIT(SPIKE_MOST, 4096);
LIMIT(MIB_MOST, 1 << 28);         /* 256 TiB: no size from outside is larger */

const char *const dm_status_words[DM_STATUS_COUNT] = {"", "OK", "Low", "Warning"};
const char *const dm_reason_words[DM_REASON_COUNT] = {
    [DM_WHY_NONE] = "",         [DM_WHY_MAX] = "max",       [DM_WHY_HOST] = "host",
    [DM_WHY_MOVING] = "moving", [DM_WHY_GUEST] = "guest",   [DM_WHY_BOOT] = "boot",
    [DM_WHY_FROZEN] = "frozen", [DM_WHY_STALE] = "stale",   [DM_WHY_GIVING] = "giving",
    [DM_WHY_STATIC] = "static",
};
const char *const dm_source_words[DM_SOURCE_COUNT] = {"hybrid", "commit", "use"};

typedef unsigned __int128 u128;

/* A VM inside one call. */
struct item {
    const struct dm_vm *vm;
    struct dm_plan *plan;
    uint32_t assigned;   /* within limits */
    uint32_t available;  /* at most assigned */
    bool balanced;       /* takes part in the water-fillings */
    bool trusted;        /* its report is fresh */
    bool backing_off;
    uint32_t granted;    /* of a grow */
};

/* One bounded share of fill(): between lo and hi, in proportion to w. */
struct share {
    uint64_t w, lo, hi;
    uint64_t out;
};

struct corner {
    uint64_t at; /* the level where the share leaves lo or reaches hi: at / w */
    uint64_t w;
    bool top;
};

static uint32_t min32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint32_t max32(uint32_t a, uint32_t b) { return a > b ? a : b; }
static uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint32_t clamp32(uint64_t v, uint32_t lo, uint32_t hi)
{
    return v < lo ? lo : v > hi ? hi : (uint32_t)v;
}
static uint32_t grain_down(uint32_t v) { return v - v % DM_GRAIN_MIB; }

uint32_t dm_guest_floor(uint32_t total)
{
    static const struct {
        uint32_t below, base, shift;
    } pieces[] = {{128, 8, 1}, {512, 40, 2}, {2048, 104, 3}, {8192, 232, 4}, {UINT32_MAX, 488, 5}};
    size_t i = 0;
    while (total >= pieces[i].below && i + 1 < sizeof(pieces) / sizeof(pieces[0])) {
        i++;
    }
    return pieces[i].base + (total >> pieces[i].shift);
}

uint32_t dm_demand(const struct dm_vm *vm)
{
    uint32_t a = min32(vm->assigned, MIB_MOST);
    uint64_t taken = (uint64_t)vm->ballooned + vm->offline;
    uint64_t by_commit = vm->committed > taken ? vm->committed - taken : 0;
    uint32_t usable = a - min32(vm->offline, a);
    uint32_t floor = dm_guest_floor(usable);
    uint64_t by_use = (uint64_t)usable - min32(vm->available, usable) + floor;
    uint64_t most = 4ull * min32(vm->max, MIB_MOST);
    uint64_t d = by_use;
    if (vm->source == DM_COMMIT) {
        d = by_commit;
    } else if (vm->source == DM_HYBRID) {
        /* What is committed will be touched, mostly: let it lead use by half, not by more. */
        uint64_t lead = by_use + (by_use / 2 > 256 ? by_use / 2 : 256);
        uint64_t led = min64(by_commit, lead);
        d = led > by_use ? led : by_use;
    }
    /* A guest's floor grows with it: ask for that of the size it will have, or it is chased. */
    uint64_t now = d;
    for (int i = 0; i < 4 && vm->source != DM_COMMIT && d > usable && d < most; i++) {
        d = now + dm_guest_floor((uint32_t)d) - floor;
    }
    return (uint32_t)min64(d, most);
}

void dm_settle(struct dm_memo *memo, uint64_t now, uint64_t ms)
{
    memo->no_shrink_until = now + ms;
}

void dm_answered(struct dm_memo *memo, uint64_t now, uint32_t asked, uint32_t got)
{
    if (got >= asked) {
        memo->back_off_step = 0;
        memo->back_off_until = 0;
        return;
    }
    uint64_t wait = (uint64_t)BACK_OFF_FIRST << memo->back_off_step;
    if (wait >= BACK_OFF_MOST) {
        wait = BACK_OFF_MOST;
    } else {
        memo->back_off_step++;
    }
    memo->back_off_until = now + wait;
}

/* ---- water-filling ---- */

static int corner_order(const void *pa, const void *pb)
{
    const struct corner *a = pa, *b = pb;
    u128 l = (u128)a->at * b->w, r = (u128)b->at * a->w;
    return l < r ? -1 : l > r ? 1 : (int)a->top - (int)b->top;
}

/*
 * Share out total: s[i].out = clamp(level * w, lo, hi) with the one level at which the sum is
 * min(total, sum of hi), and at least the sum of lo. What integer division leaves goes to the
 * first shares that can take it. corner[] has room for 2 n. All w > 0 where lo < hi.
 */
static void fill(struct share *s, size_t n, uint64_t total, struct corner *corner)
{
    uint64_t sum = 0, all = 0;
    size_t nc = 0;
    for (size_t i = 0; i < n; i++) {
        sum += s[i].lo;
        all += s[i].hi;
        if (s[i].lo < s[i].hi) {
            corner[nc++] = (struct corner){.at = s[i].lo, .w = s[i].w};
            corner[nc++] = (struct corner){.at = s[i].hi, .w = s[i].w, .top = true};
        }
    }
    if (total <= sum || total >= all) {
        for (size_t i = 0; i < n; i++) {
            s[i].out = total <= sum ? s[i].lo : s[i].hi;
        }
        return;
    }
    qsort(corner, nc, sizeof(*corner), corner_order);

    /* Rising from corner to corner: `fixed` is what no longer moves, `slope` the weights that do. */
    uint64_t fixed = sum;
    u128 slope = 0;
    size_t k = 0;
    for (;; k++) {
        const struct corner *c = &corner[k];
        /* The sum at this corner is fixed + slope * at / w. */
        if ((u128)fixed * c->w + slope * c->at > (u128)total * c->w) {
            break;
        }
        if (c->top) {
            fixed += c->at;
            slope -= c->w;
        } else {
            fixed -= c->at;
            slope += c->w;
        }
        if (k + 1 == nc) {
            break;
        }
    }
    uint64_t left = total;
    for (size_t i = 0; i < n; i++) {
        uint64_t part = slope ? (uint64_t)((u128)(total - fixed) * s[i].w / slope) : s[i].hi;
        s[i].out = part < s[i].lo ? s[i].lo : part > s[i].hi ? s[i].hi : part;
        left -= s[i].out;
    }
    for (size_t i = 0; i < n && left; i++) {
        uint64_t more = min64(1, s[i].hi - s[i].out);
        /* Only those between their bounds moved with the level and lost a fraction. */
        if (s[i].out > s[i].lo || s[i].lo == 0) {
            s[i].out += more;
            left -= more;
        }
    }
}

/* ---- one VM ---- */

static enum dm_state effective_state(const struct dm_vm *vm)
{
    return vm->state == DM_ACTIVE && vm->report_age_ms > DM_LOST_MS ? DM_STATIC : vm->state;
}

static uint32_t remember_want(struct dm_memo *m, uint64_t now, uint32_t want)
{
    uint64_t slot = now / DM_WINDOW_SLOT_MS + 1;
    if (slot - m->window_slot >= DM_WINDOW_SLOTS) {
        memset(m->window, 0, sizeof(m->window));
        m->window_slot = slot;
    }
    while (m->window_slot < slot) {
        m->window[++m->window_slot % DM_WINDOW_SLOTS] = 0;
    }
    uint32_t *newest = &m->window[slot % DM_WINDOW_SLOTS];
    *newest = max32(*newest, want);
    uint32_t peak = 0;
    for (size_t i = 0; i < DM_WINDOW_SLOTS; i++) {
        peak = max32(peak, m->window[i]);
    }
    return peak;
}

/* Exponential mean with a time constant of 60 s, taken in steps of at most 60 s. */
static void average(struct dm_memo *m, uint64_t now, uint32_t pressure)
{
    uint32_t sample = min32(pressure, 100000) * 100;
    uint64_t dt = now - m->averaged_at;
    if (m->averaged_at == 0 || now < m->averaged_at) {
        m->average_pressure = sample;
    } else {
        int64_t step = ((int64_t)sample - m->average_pressure) * (int64_t)min64(dt, 60000) / 60000;
        m->average_pressure = (uint32_t)(m->average_pressure + step);
    }
    m->averaged_at = now ? now : 1;
}

/* A worse status than Low shows at once, any other after two samples agree. */
static enum dm_status settle_status(struct dm_memo *m, enum dm_status now)
{
    if (now == DM_WARNING || m->status == DM_UNKNOWN || now == m->status_next) {
        m->status = (uint8_t)now;
    }
    m->status_next = (uint8_t)now;
    return m->status;
}

static void unknown(struct dm_plan *p, uint32_t assigned, enum dm_reason why)
{
    p->floor = p->need = p->want = p->target = assigned;
    p->why = why;
    p->buffer_now_pct = DM_NO_BUFFER;
    p->memo.status = p->memo.status_next = DM_UNKNOWN;
    p->memo.warning_since = 0;
}

/* Fill in what one VM's report says: everything but target, action and the reason for them. */
static void read_report(struct item *it, uint64_t now)
{
    const struct dm_vm *vm = it->vm;
    struct dm_plan *p = it->plan;
    *p = (struct dm_plan){.memo = vm->memo};
    struct dm_memo *m = &p->memo;

    uint32_t max = min32(vm->max, MIB_MOST), min = min32(vm->min, max);
    uint32_t buffer = clamp32(vm->buffer_pct, 5, 2000);
    uint32_t a = it->assigned = min32(vm->assigned, MIB_MOST);
    it->available = min32(vm->available, a);
    p->band_min = 10000 * 20 / ((100 + buffer) * 21);
    p->band_max = 10000 / (100 + buffer * OK_BUFFER_PCT / 100);

    switch (effective_state(vm)) {
    case DM_BOOT: unknown(p, a, DM_WHY_BOOT); return;
    case DM_FROZEN: unknown(p, a, DM_WHY_FROZEN); return;
    case DM_ACTIVE: break;
    default: unknown(p, a, vm->state == DM_ACTIVE ? DM_WHY_STALE : DM_WHY_STATIC); return;
    }
    it->balanced = true;
    it->trusted = vm->report_age_ms <= DM_STALE_MS;
    it->backing_off = now < m->back_off_until;
    p->demand = dm_demand(vm);
    if (!it->trusted) {
        p->floor = p->need = p->want = a;
        p->why = DM_WHY_STALE;
    } else {
        /* What can never be asked of it (can_give()) is not there for others either. */
        uint32_t kept = a - it->available + dm_guest_floor(a) + GUEST_MARGIN;
        p->floor = it->backing_off || !vm->can_balloon ? a : min32(a, max32(min, kept));
        p->floor = max32(p->floor, min);
        /* A maximum lowered below what is assigned: the floor wins until memory is given back. */
        uint32_t top = max32(max, p->floor);
        p->need = clamp32(p->demand, p->floor, top);
        p->want = clamp32((uint64_t)p->demand * (100 + buffer) / 100, p->need, top);
    }

    /* Pressures and status: of what it has and can use, whatever is planned. */
    uint64_t d = p->demand;
    a -= min32(vm->offline, a);
    p->pressure = a ? (uint32_t)min64(d * 100 / a, UINT32_MAX / 100) : 0;
    average(m, now, p->pressure);
    p->average_pressure = m->average_pressure / 100;
    int64_t full = (int64_t)(d * buffer / 100);
    int64_t have = ((int64_t)a - (int64_t)d) * 100 / (full > 0 ? full : 1);
    p->buffer_now_pct = (int32_t)(have > 100000 ? 100000 : have < -100000 ? -100000 : have);
    enum dm_status s = d > a ? DM_WARNING : have >= OK_BUFFER_PCT ? DM_OK : DM_LOW;
    p->status = settle_status(m, s);

    if (s != DM_WARNING) {
        m->warning_since = 0;
    } else if (!m->warning_since) {
        m->warning_since = now ? now : 1;
    }
    bool short_of = it->available < a / 100 * 3;
    if (short_of || (m->warning_since && now - m->warning_since > HOT_AFTER_WARNING)) {
        m->hot_until = now + HOT_FOR;
    }
}

/* May memory be asked from this VM at all, and how much at most? I10: never more than it has free. */
static uint32_t can_give(const struct item *it, uint64_t now)
{
    const struct dm_vm *vm = it->vm;
    if (!it->trusted || !vm->can_balloon || it->backing_off || vm->in_flight != 0 ||
        now < vm->memo.no_shrink_until) {
        return 0;
    }
    uint32_t keep = dm_guest_floor(it->assigned) + GUEST_MARGIN;
    return it->available > keep ? it->available - keep : 0;
}

/* ---- the host ---- */

static uint64_t spike_pool(const struct dm_host *host, uint64_t pool, uint64_t demand,
                           struct dm_host_memo *m)
{
    uint64_t slot = host->now / JUMP_SLOT_MS + 1;
    size_t slots = sizeof(m->jump) / sizeof(m->jump[0]);
    if (slot - m->jump_slot >= slots) {
        memset(m->jump, 0, sizeof(m->jump));
        m->jump_slot = slot;
    }
    while (m->jump_slot < slot) {
        m->jump[++m->jump_slot % slots] = 0;
    }
    for (size_t i = 0; i < 2; i++) {
        if (m->demand_at[i] && host->now - m->demand_at[i] <= 2000 && demand > m->demand[i]) {
            uint32_t *j = &m->jump[slot % slots];
            *j = max32(*j, (uint32_t)min64(demand - m->demand[i], MIB_MOST));
        }
    }
    m->demand_at[0] = m->demand_at[1];
    m->demand[0] = m->demand[1];
    m->demand_at[1] = host->now ? host->now : 1;
    m->demand[1] = demand;

    uint64_t jump = 0;
    for (size_t i = 0; i < slots; i++) {
        jump = m->jump[i] > jump ? m->jump[i] : jump;
    }
    uint64_t s = pool * 3 / 100;
    s = s < SPIKE_LEAST ? SPIKE_LEAST : s > SPIKE_MOST ? SPIKE_MOST : s;
    jump = min64(jump, pool / 20);
    return jump > s ? jump : s;
}

static uint64_t weight_of(const struct item *it)
{
    return clamp32(it->vm->weight, WEIGHT_LEAST, 10000);
}

/* Targets of the balanced VMs: need by fairness, then buffers. Returns whether even floors do not fit. */
static bool set_targets(struct item *it, size_t n, uint64_t pool, struct share *s, struct corner *corner)
{
    uint64_t floors = 0, needs = 0;
    for (size_t i = 0; i < n; i++) {
        const struct dm_plan *p = it[i].plan;
        s[i] = (struct share){.w = weight_of(&it[i])};
        if (it[i].balanced) {
            s[i].lo = p->floor;
            s[i].hi = p->need;
        }
        floors += s[i].lo;
        needs += s[i].hi;
    }
    fill(s, n, pool, corner);
    for (size_t i = 0; i < n; i++) {
        if (it[i].balanced) {
            it[i].plan->target = (uint32_t)s[i].out;
        }
    }
    if (needs < pool) {
        for (size_t i = 0; i < n; i++) {
            const struct dm_plan *p = it[i].plan;
            uint64_t buffer = it[i].balanced ? p->want - p->need : 0;
            s[i] = (struct share){.w = weight_of(&it[i]) * (buffer ? buffer : 1), .hi = buffer};
        }
        fill(s, n, pool - needs, corner);
        for (size_t i = 0; i < n; i++) {
            if (it[i].balanced) {
                it[i].plan->target += (uint32_t)s[i].out;
            }
        }
    }
    return floors > pool;
}

/* ---- operations ---- */

static int neediest_first(const void *pa, const void *pb)
{
    const struct item *a = *(struct item *const *)pa, *b = *(struct item *const *)pb;
    u128 l = (u128)a->plan->demand * max32(b->assigned, 1);
    u128 r = (u128)b->plan->demand * max32(a->assigned, 1);
    return l > r ? -1 : l < r ? 1 : memcmp(a->vm->id, b->vm->id, sizeof(a->vm->id));
}

/*
 * How much of `amount` the guest can take in: what is ballooned comes back to the MiB, the rest in
 * whole blocks of 128 MiB, rounded up where its maximum and `spare` allow it.
 */
static uint32_t takes_in(const struct item *it, uint32_t amount, uint64_t spare, uint32_t *ret_hot_add)
{
    const struct dm_vm *vm = it->vm;
    uint32_t most = vm->max > it->assigned ? vm->max - it->assigned : 0;
    most = min32(most, (uint32_t)min64(spare, GROW_MOST));
    amount = min32(amount + amount % DM_GRAIN_MIB, grain_down(most));
    *ret_hot_add = 0;
    if (amount <= vm->ballooned) {
        return amount;
    }
    uint32_t rest = amount - vm->ballooned;
    uint32_t room = most - vm->ballooned;
    if (!vm->can_hot_add) {
        return grain_down(vm->ballooned);
    }
    uint32_t hot = (rest + DM_HOT_ADD_MIB - 1) / DM_HOT_ADD_MIB * DM_HOT_ADD_MIB;
    if (hot > room) {
        hot = room / DM_HOT_ADD_MIB * DM_HOT_ADD_MIB;
    }
    *ret_hot_add = hot;
    return grain_down(vm->ballooned) + hot;
}

static bool wants_to_grow(const struct item *it)
{
    const struct dm_plan *p = it->plan;
    uint32_t a = it->assigned;
    if (!it->trusted || p->target <= a) {
        return false;
    }
    return a < p->need || p->target - a >= max32(DM_GRAIN_MIB, a / 50);
}

/*
 * Give free memory: everybody up to their need first, the neediest first, then buffers, which
 * leave the spike pool alone. Returns what remains wanted; *left falls by what was given.
 */
static uint64_t grow(struct item **order, size_t n, bool pressed, uint64_t spike, uint64_t *left)
{
    uint64_t unmet = 0;
    for (int buffers = 0; buffers <= 1; buffers++) {
        for (size_t i = 0; i < n; i++) {
            struct item *it = order[i];
            struct dm_plan *p = it->plan;
            if (!wants_to_grow(it)) {
                continue;
            }
            uint32_t aim = buffers ? p->target : min32(p->target, p->need);
            uint32_t have = it->assigned + it->granted;
            uint32_t coming = it->vm->in_flight > 0 ? (uint32_t)it->vm->in_flight : 0;
            if (aim <= have + coming) {
                continue;
            }
            uint64_t usable = !buffers ? *left : *left > spike ? *left - spike : 0;
            uint32_t given = 0, hot = 0;
            if (!pressed && it->vm->in_flight <= 0) {
                given = takes_in(it, aim - it->assigned, usable + it->granted, &hot);
            }
            if (given > it->granted) {
                *left -= given - it->granted;
                it->granted = given;
                p->hot_add = hot;
                p->action = DM_GROW;
                p->amount = given;
            }
            have = it->assigned + it->granted;
            /*
             * What no free memory would cure (no hot-add, an answer on its way) is not the host's lack.
             * What would: the wish, rounded up to the blocks it comes in, or no donor gives the rest of a block.
             */
            uint32_t could = takes_in(it, p->target - it->assigned, UINT64_MAX, &hot);
            if (buffers && p->target > have + coming && could > it->granted + coming) {
                unmet += max32(p->target - have - coming, could - it->granted - coming);
            }
        }
    }
    return unmet;
}

static uint32_t surplus_of(const struct item *it)
{
    const struct dm_plan *p = it->plan;
    return it->balanced && it->assigned > p->target ? it->assigned - p->target : 0;
}

/* Somebody waits: take in proportion to what each has above its target. */
static void shrink_urgent(struct item *it, size_t n, uint64_t now, uint64_t missing, struct share *s,
                          struct corner *corner)
{
    for (size_t i = 0; i < n; i++) {
        const struct dm_plan *p = it[i].plan;
        uint32_t surplus = surplus_of(&it[i]);
        uint32_t most = min32(SHRINK_MOST, it[i].assigned / 10 + 64);
        if (it[i].vm->reclaim_mib_s) {
            most = min32(most, max32(it[i].vm->reclaim_mib_s, DM_GRAIN_MIB));
        }
        /* A guest that was close to its end keeps its whole buffer, if not more than its fair share. */
        bool spared = now < p->memo.hot_until && p->target >= p->need;
        if (spared) {
            surplus = it[i].balanced && it[i].assigned > p->want ? it[i].assigned - p->want : 0;
        }
        most = min32(most, min32(surplus, can_give(&it[i], now)));
        s[i] = (struct share){.w = surplus ? surplus : 1, .hi = grain_down(most)};
    }
    fill(s, n, missing + missing / 20, corner);
    for (size_t i = 0; i < n; i++) {
        uint32_t take = (uint32_t)s[i].out;
        take = min32(take + take % DM_GRAIN_MIB, (uint32_t)s[i].hi);
        if (take && it[i].plan->action == DM_KEEP) {
            it[i].plan->action = DM_SHRINK;
            it[i].plan->urgent = true;
            it[i].plan->amount = take;
        }
    }
}

/* Nobody waits: collect what no peak of the last five minutes needed, in small steps. */
static void shrink_lazy(struct item *it, uint64_t now, uint32_t peak)
{
    struct dm_plan *p = it->plan;
    uint32_t a = it->assigned;
    uint64_t keep = (uint64_t)max32(p->target, peak) * 105 / 100;
    keep = min64(keep, max32(it->vm->max, p->target));
    uint32_t step = max32(SHRINK_LEAST, a / 20);
    if (p->action != DM_KEEP || a < keep + step || now < p->memo.hot_until ||
        (p->memo.last_lazy && now - p->memo.last_lazy < LAZY_EVERY)) {
        return;
    }
    uint32_t take = grain_down(min32(step, can_give(it, now)));
    if (take >= min32(step, SHRINK_LEAST)) {
        p->action = DM_SHRINK;
        p->amount = take;
        p->memo.last_lazy = now ? now : 1;
    }
}

static enum dm_reason reason_of(const struct item *it)
{
    const struct dm_vm *vm = it->vm;
    const struct dm_plan *p = it->plan;
    if (!it->balanced || !it->trusted) {
        return p->why;
    }
    if (p->action == DM_SHRINK || vm->in_flight < 0) {
        return DM_WHY_GIVING;
    }
    uint32_t buffer = clamp32(vm->buffer_pct, 5, 2000);
    uint64_t full = (uint64_t)p->demand * (100 + buffer) / 100;
    uint32_t usable = it->assigned - min32(vm->offline, it->assigned);
    if (usable + usable / 50 >= full) {
        return DM_WHY_NONE;
    }
    if (p->action == DM_GROW || vm->in_flight > 0) {
        return DM_WHY_MOVING;
    }
    if (p->target < p->want) {
        return DM_WHY_HOST;
    }
    if (it->assigned + DM_HOT_ADD_MIB > vm->max) {
        return DM_WHY_MAX;
    }
    bool stuck = it->backing_off || (!vm->can_hot_add && vm->ballooned < DM_GRAIN_MIB);
    return stuck ? DM_WHY_GUEST : wants_to_grow(it) ? DM_WHY_HOST : DM_WHY_NONE;
}

static int by_id(const void *pa, const void *pb)
{
    const struct item *a = pa, *b = pb;
    return memcmp(a->vm->id, b->vm->id, sizeof(a->vm->id));
}

int dm_plan(const struct dm_host *host, const struct dm_vm *vm, size_t n, struct dm_plan *plan,
            struct dm_host_plan *ret_host)
{
    size_t room = n ? n : 1;
    struct item *it = calloc(room, sizeof(*it));
    struct item **order = calloc(room, sizeof(struct item *));
    struct share *s = calloc(room, sizeof(*s));
    struct corner *corner = calloc(2 * room, sizeof(*corner));
    int r = it && order && s && corner ? 0 : -ENOMEM;
    if (r) {
        goto out;
    }
    struct dm_host_plan h = {.pool = host->pool, .memo = host->memo};
    uint64_t averages = 0, balanced = 0;

    for (size_t i = 0; i < n; i++) {
        it[i] = (struct item){.vm = &vm[i], .plan = &plan[i]};
    }
    qsort(it, n, sizeof(*it), by_id);
    for (size_t i = 0; i < n; i++) {
        read_report(&it[i], host->now);
        order[i] = &it[i];
        int64_t moving = it[i].vm->in_flight;
        h.in_flight_in += moving > 0 ? (uint64_t)moving : 0;
        h.in_flight_out += moving < 0 ? (uint64_t)-moving : 0;
        if (!it[i].balanced) {
            h.pool -= min64(h.pool, it[i].assigned + (moving > 0 ? (uint64_t)moving : 0));
            continue;
        }
        balanced++;
        averages += it[i].plan->memo.average_pressure;
        h.demand += it[i].plan->demand;
        h.assigned += it[i].assigned;
    }
    h.average_pressure = balanced ? (uint32_t)(averages / balanced / 100) : 0;
    uint64_t holds = h.assigned + host->free;
    h.current_pressure = holds ? (uint32_t)min64(h.demand * 100 / holds, UINT32_MAX) : 0;

    h.deficit = set_targets(it, n, h.pool, s, corner);
    uint64_t surplus = 0;
    for (size_t i = 0; i < n; i++) {
        surplus += surplus_of(&it[i]);
    }
    h.spike_pool = spike_pool(host, h.pool, h.demand, &h.memo);

    uint64_t left = host->free;
    qsort(order, n, sizeof(struct item *), neediest_first);
    h.unmet = grow(order, n, host->pressed, h.spike_pool, &left);

    uint64_t missing = h.unmet + h.spike_pool;
    uint64_t there = left + h.in_flight_out;
    if (host->pressed) {
        missing = there + surplus; /* other programs need it more than any buffer beyond its target */
    }
    if (balanced && missing > there) {
        shrink_urgent(it, n, host->now, missing - there, s, corner);
    }
    for (size_t i = 0; i < n; i++) {
        struct dm_plan *p = it[i].plan;
        if (it[i].balanced && it[i].trusted) {
            uint32_t peak = remember_want(&p->memo, host->now, p->want);
            if (missing <= there) {
                shrink_lazy(&it[i], host->now, peak);
            }
        }
        p->why = reason_of(&it[i]);
    }
    *ret_host = h;
out:
    free(it);
    free(order);
    free(s);
    free(corner);
    return r;
}
