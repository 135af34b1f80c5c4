/*
 * 8254 programmable interval timer (Intel 8254 data sheet, order number 231164).
 * Channel 0 is the system timer (ISA line 0), channel 1 counts but drives nothing,
 * channel 2 is gated by port 0x61 bit 0 and read back there at bit 5: Linux and SeaBIOS
 * calibrate the TSC against it (arch/x86/kernel/tsc.c).
 *
 * Nothing ticks. A channel is its count and the tick at which counting began; what it
 * shows is computed from guest time when somebody looks. Only channel 0 needs the loop:
 * one timer, set to the next rise of its output.
 *
 *   fires late by k periods    one pulse now, the k missed ones at half a period's
 *                              distance each, so a guest that counts ticks keeps its
 *                              time without a storm; at most a second is made up for
 *   period below 100 us        the guest gets a pulse each 100 us: no more would reach it
 */
#include "hv/platform/pit.h"

#include <errno.h>
#include <pthread.h>

#define PIT_MAGIC 0x50495430u
#define NEVER     UINT64_MAX
#define MIN_TICKS (PIT_HZ / 10000)       /* shortest distance of two pulses: 100 us */
#define REFRESH_NS 15085u                /* DRAM refresh, seen at port 0x61 bit 4 */

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum { PORT61_GATE2 = 0x01, PORT61_KEPT = 0x0F, PORT61_REFRESH = 0x10, PORT61_OUT2 = 0x20 };
enum { READBACK_NO_COUNT = 0x20, READBACK_NO_STATUS = 0x10 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };

struct channel {
    uint8_t mode;               /* 0..5 */
    uint8_t access;             /* ACCESS_LOW, _HIGH or _BOTH */
    bool bcd;
    bool gate;
    bool loaded;                /* a whole count was written since the control word */
    bool triggered;             /* modes 1 and 5: the gate rose since then */
    bool write_high, read_high; /* ACCESS_BOTH: the high byte is next */
    uint8_t write_low;          /* the low byte while the high one is awaited */
    uint8_t latched;            /* bytes of the latched count still to be read: 0, 1, 2 */
    uint16_t latch;
    bool status_latched;
    uint8_t status;
    uint32_t count;             /* 1..65536; in BCD 1..10000 */
    uint64_t start;             /* tick at which count was loaded */
    uint64_t held;              /* gate low in modes 0 and 4: ticks already counted */
    uint32_t next_count;        /* modes 2 and 3: takes over at next_start, if not 0 */
    uint64_t next_start;
};

enum pit_counter { COUNT_TICKS, COUNT_LATE, COUNT_LOST, PIT_COUNTERS };
static const struct stats_desc pit_desc[PIT_COUNTERS] = {
    [COUNT_TICKS] = { "ticks", "interrupts", "pulses of the system timer's line", STATS_COUNTER },
    [COUNT_LATE] = { "late", "interrupts", "periods missed by a late loop, made up for afterwards",
                     STATS_COUNTER },
    [COUNT_LOST] = { "lost", "interrupts", "periods missed and not made up for", STATS_COUNTER },
};

struct pit {
    uint32_t magic;
    struct machine *m;
    struct loop *loop;
    struct loop_timer *timer;
    pthread_mutex_t lock;
    struct channel ch[3];
    uint8_t port61;
    uint64_t due;               /* tick of the next rise of channel 0's output, or NEVER */
    uint64_t makeup_due;        /* tick of the next late pulse, if any are left */
    uint32_t missed;            /* pulses to make up for */
    uint64_t last_pulse;
    struct stats_table stats;
    _Atomic uint64_t counter[PIT_COUNTERS];
};

/* ---- time ---- */

static uint64_t ticks_now(const struct pit *p)
{
    return (uint64_t)((unsigned __int128)machine_clock_ns(p->m) * PIT_HZ / NS_PER_SEC);
}

/* Guest time of a tick, rounded up so that ticks_now() has reached it by then. */
static uint64_t tick_ns(uint64_t tick)
{
    unsigned __int128 ns = ((unsigned __int128)tick * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ;
    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

/* ---- one channel ---- */

static uint32_t modulus(const struct channel *c)
{
    return c->bcd ? 10000 : 0x10000;
}

static bool periodic(const struct channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* A count written during a period of mode 2 or 3 takes over at its end. */
static void take_over(struct channel *c, uint64_t now)
{
    if (c->next_count && now >= c->next_start) {
        c->count = c->next_count;
        c->start = c->next_start;
        c->next_count = 0;
    }
}

static uint64_t elapsed(const struct channel *c, uint64_t now)
{
    if (!c->gate && (c->mode == 0 || c->mode == 4)) {
        return c->held;
    }
    return now > c->start ? now - c->start : 0;
}

static bool counting(const struct channel *c)
{
    return c->loaded && ((c->mode != 1 && c->mode != 5) || c->triggered);
}

static bool output(const struct channel *c, uint64_t now)
{
    if (!counting(c)) {
        return c->mode != 0;
    }
    uint64_t d = elapsed(c, now);
    switch (c->mode) {
    case 0: return d >= c->count;
    case 1: return d >= c->count;
    case 2: return !c->gate || d % c->count != c->count - 1 || c->count == 1;
    case 3: return !c->gate || d % c->count < (c->count + 1) / 2;
    default: return d != c->count;
    }
}

/* The counting element, in binary. */
static uint32_t counter(const struct channel *c, uint64_t now)
{
    if (!counting(c)) {
        return c->count % modulus(c);
    }
    uint64_t d = elapsed(c, now);
    if (periodic(c)) {
        if (!c->gate) {
            return c->count % modulus(c);
        }
        uint32_t in_period = (uint32_t)(d % c->count);
        if (c->mode == 3) {
            /* Counts down by two, twice a period. */
            uint32_t high = (c->count + 1) / 2;
            uint32_t in_half = in_period < high ? in_period : in_period - high;
            return ((c->count & ~1u) - 2 * in_half) % modulus(c);
        }
        return (c->count - in_period) % modulus(c);
    }
    /* The others wrap and go on. */
    return (uint32_t)((c->count + modulus(c) - d % modulus(c)) % modulus(c));
}

static uint16_t visible_count(const struct channel *c, uint64_t now)
{
    uint32_t v = counter(c, now) & 0xFFFF;
    if (c->bcd) {
        v = v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
    }
    return (uint16_t)v;
}

static void latch_count(struct channel *c, uint64_t now)
{
    if (!c->latched) {   /* a second latch command changes nothing until the first was read */
        c->latch = visible_count(c, now);
        c->latched = c->access == ACCESS_BOTH ? 2 : 1;
    }
}

static void latch_status(struct channel *c, uint64_t now)
{
    if (!c->status_latched) {
        c->status_latched = true;
        c->status = (uint8_t)((output(c, now) ? STATUS_OUT : 0) |
                              (!c->loaded || c->next_count ? STATUS_NULL : 0) |
                              c->access << 4 | c->mode << 1 | c->bcd);
    }
}

static uint8_t read_channel(struct channel *c, uint64_t now)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t v = c->latched ? c->latch : visible_count(c, now);
    bool high = c->access == ACCESS_HIGH;
    if (c->access == ACCESS_BOTH) {
        high = c->read_high;
        c->read_high = !c->read_high;
    }
    if (c->latched) {
        c->latched--;
    }
    return high ? v >> 8 : v & 0xFF;
}

static void set_count(struct channel *c, uint16_t raw, uint64_t now)
{
    uint32_t v = raw;
    if (c->bcd) {   /* digits above 9 count as what they weigh; the sum stays a legal count */
        v = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
        v %= 10000;
    }
    v = v ? v : modulus(c);
    if (c->loaded && periodic(c) && c->gate) {
        uint64_t d = elapsed(c, now);
        c->next_start = c->start + (d / c->count + 1) * c->count;
        c->next_count = v;
        return;
    }
    c->next_count = 0;
    c->count = v;
    c->start = now;
    c->held = 0;
    c->loaded = true;
}

/* Returns whether a whole count was written. */
static bool write_channel(struct channel *c, uint8_t val, uint64_t now)
{
    if (c->access == ACCESS_LOW) {
        set_count(c, val, now);
    } else if (c->access == ACCESS_HIGH) {
        set_count(c, (uint16_t)(val << 8), now);
    } else if (!c->write_high) {
        c->write_low = val;
        c->write_high = true;
        if (c->mode == 0) {
            c->loaded = false;   /* the first byte stops mode 0 and takes its output low */
            return true;
        }
        return false;
    } else {
        c->write_high = false;
        set_count(c, (uint16_t)(val << 8 | c->write_low), now);
    }
    return true;
}

static void write_control(struct channel *c, uint8_t val)
{
    unsigned mode = (val >> 1) & 7;
    c->mode = (uint8_t)(mode > 5 ? mode - 4 : mode);   /* 6 and 7 are 2 and 3 */
    c->access = (val >> 4) & 3;
    c->bcd = val & 1;
    c->count = MIN(c->count, modulus(c));
    c->loaded = c->triggered = c->write_high = c->read_high = c->status_latched = false;
    c->latched = 0;
    c->next_count = 0;
}

static void set_gate(struct channel *c, bool gate, uint64_t now)
{
    if (gate == c->gate) {
        return;
    }
    if (!gate) {
        c->held = elapsed(c, now);
        c->gate = false;
        return;
    }
    c->gate = true;
    if (c->mode == 0 || c->mode == 4) {
        c->start = now - MIN(c->held, now);   /* goes on where it stopped */
        return;
    }
    c->start = now;                 /* the others start afresh */
    c->triggered = true;
    if (c->next_count) {
        c->count = c->next_count;
        c->next_count = 0;
    }
}

/* ---- channel 0's interrupt ---- */

/* The first rise of the output after tick `now`. */
static uint64_t next_rise(const struct channel *c, uint64_t now)
{
    if (!counting(c)) {
        return NEVER;
    }
    uint64_t d = elapsed(c, now);
    switch (c->mode) {
    case 0: return d < c->count ? c->start + c->count : NEVER;
    case 2:
    case 3: return c->start + (d / c->count + 1) * c->count;
    case 4: return d <= c->count ? c->start + c->count + 1 : NEVER;
    default: return NEVER;   /* channel 0's gate never rises */
    }
}

static void arm(struct pit *p)
{
    uint64_t tick = p->missed ? MIN(p->due, p->makeup_due) : p->due;
    uint64_t deadline = UINT64_MAX;
    if (tick != NEVER) {
        tick = MAX(tick, p->last_pulse + MIN_TICKS);
        deadline = machine_deadline(p->m, tick_ns(tick));
    }
    if (deadline == UINT64_MAX) {
        loop_timer_stop(p->loop, p->timer);
    } else {
        loop_timer_set(p->loop, p->timer, deadline);
    }
}

/* Channel 0 was programmed. */
static void restart(struct pit *p, uint64_t now)
{
    p->missed = 0;
    p->due = next_rise(&p->ch[0], now);
    arm(p);
}

/* Account for the rises up to now. Returns whether the line is to be pulsed. */
static bool advance(struct pit *p, uint64_t now)
{
    struct channel *c = &p->ch[0];
    if (now < p->due) {
        if (p->missed && now >= p->makeup_due) {
            p->missed--;
            return true;
        }
        return false;
    }
    uint64_t rise = p->due;
    take_over(c, rise);          /* a new count begins at such a rise */
    if (periodic(c)) {
        uint64_t late = now > rise ? (now - rise) / c->count : 0;
        p->due = rise + (late + 1) * c->count;
        if (c->count >= MIN_TICKS) {
            uint32_t cap = PIT_HZ / c->count;
            uint64_t room = cap > p->missed ? cap - p->missed : 0;
            uint64_t kept = MIN(late, room);
            p->missed += (uint32_t)kept;
            stats_add(&p->stats, COUNT_LATE, kept);
            stats_add(&p->stats, COUNT_LOST, late - kept);
        }
    } else {
        p->due = next_rise(c, now);
    }
    return true;
}

static void pit_timer(void *arg)
{
    struct pit *p = arg;
    pthread_mutex_lock(&p->lock);
    if (machine_deadline(p->m, 0) != UINT64_MAX) {   /* not paused */
        uint64_t now = ticks_now(p);
        if (p->due != NEVER || p->missed) {
            if (advance(p, now)) {
                p->last_pulse = now;
                p->makeup_due = now + MAX(p->ch[0].count / 2, MIN_TICKS);
                stats_add(&p->stats, COUNT_TICKS, 1);
                machine_irq_pulse(p->m, 0);
            }
        }
        arm(p);
    }
    pthread_mutex_unlock(&p->lock);
}

static void pit_clock(void *dev)
{
    struct pit *p = dev;
    pthread_mutex_lock(&p->lock);
    arm(p);
    pthread_mutex_unlock(&p->lock);
}

/* ---- ports ---- */

static uint32_t pit_in(void *dev, uint16_t port, unsigned size)
{
    struct pit *p = dev;
    unsigned n = port & 3;
    uint8_t val = 0xFF;   /* the control word cannot be read */
    pthread_mutex_lock(&p->lock);
    if (n < 3) {
        uint64_t now = ticks_now(p);
        take_over(&p->ch[n], now);
        val = read_channel(&p->ch[n], now);
    }
    pthread_mutex_unlock(&p->lock);
    return val;
}

static void read_back(struct pit *p, uint8_t val, uint64_t now)
{
    for (unsigned n = 0; n < 3; n++) {
        if (!(val & 2u << n)) {
            continue;
        }
        take_over(&p->ch[n], now);
        if (!(val & READBACK_NO_COUNT)) {
            latch_count(&p->ch[n], now);
        }
        if (!(val & READBACK_NO_STATUS)) {
            latch_status(&p->ch[n], now);
        }
    }
}

static void write_locked(struct pit *p, unsigned n, uint8_t val)
{
    uint64_t now = ticks_now(p);
    if (n == 3 && val >> 6 == 3) {
        read_back(p, val, now);
        return;
    }
    bool command = n == 3;
    if (command) {
        n = val >> 6;
    }
    struct channel *c = &p->ch[n];
    take_over(c, now);
    if (command && (val >> 4 & 3) == ACCESS_LATCH) {
        latch_count(c, now);
        return;
    }
    bool changed = true;
    bool running = c->loaded && periodic(c);
    if (command) {
        write_control(c, val);
        running = false;
    } else {
        changed = write_channel(c, val, now);
    }
    /* A count that only takes over later leaves the next rise where it is. */
    if (n == 0 && changed && !(running && c->next_count)) {
        restart(p, now);
    }
}

static void pit_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct pit *p = dev;
    pthread_mutex_lock(&p->lock);
    write_locked(p, port & 3, (uint8_t)val);
    pthread_mutex_unlock(&p->lock);
}

static uint32_t port61_in(void *dev, uint16_t port, unsigned size)
{
    struct pit *p = dev;
    pthread_mutex_lock(&p->lock);
    uint64_t now = ticks_now(p);
    take_over(&p->ch[2], now);
    uint8_t val = p->port61;
    val |= machine_clock_ns(p->m) / REFRESH_NS & 1 ? PORT61_REFRESH : 0;
    val |= output(&p->ch[2], now) ? PORT61_OUT2 : 0;
    pthread_mutex_unlock(&p->lock);
    return val;
}

static void port61_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct pit *p = dev;
    pthread_mutex_lock(&p->lock);
    uint64_t now = ticks_now(p);
    p->port61 = val & PORT61_KEPT;
    take_over(&p->ch[2], now);
    set_gate(&p->ch[2], val & PORT61_GATE2, now);
    pthread_mutex_unlock(&p->lock);
}

/* ---- state ---- */

static void pit_reset(void *dev)
{
    struct pit *p = dev;
    pthread_mutex_lock(&p->lock);
    for (unsigned n = 0; n < 3; n++) {
        p->ch[n] = (struct channel){ .mode = 3, .access = ACCESS_BOTH, .count = 0x10000,
                                     .gate = n != 2 };
    }
    p->port61 = 0;
    p->due = NEVER;
    p->missed = 0;
    p->makeup_due = p->last_pulse = 0;
    arm(p);
    pthread_mutex_unlock(&p->lock);
}

static void save_channel(const struct channel *c, struct save_writer *w)
{
    const uint8_t flags[] = { c->mode, c->access, c->bcd, c->gate, c->loaded, c->triggered,
                              c->write_high, c->read_high, c->write_low, c->latched,
                              c->status_latched, c->status };
    save_bytes(w, flags, sizeof(flags));
    save_u16(w, c->latch);
    save_u32(w, c->count);
    save_u64(w, c->start);
    save_u64(w, c->held);
    save_u32(w, c->next_count);
    save_u64(w, c->next_start);
}

static void pit_save(void *dev, struct save_writer *w)
{
    struct pit *p = dev;
    pthread_mutex_lock(&p->lock);
    for (unsigned n = 0; n < 3; n++) {
        save_channel(&p->ch[n], w);
    }
    save_u8(w, p->port61);
    save_u64(w, p->due);
    save_u64(w, p->makeup_due);
    save_u32(w, p->missed);
    save_u64(w, p->last_pulse);
    pthread_mutex_unlock(&p->lock);
}

static bool load_flag(struct load_section *s, bool *ret)
{
    uint8_t v = load_u8(s);
    *ret = v;
    return v <= 1;
}

static bool load_channel(struct channel *c, unsigned n, uint64_t now, struct load_section *s)
{
    bool ok = true;
    c->mode = load_u8(s);
    c->access = load_u8(s);
    ok &= load_flag(s, &c->bcd);
    ok &= load_flag(s, &c->gate);
    ok &= load_flag(s, &c->loaded);
    ok &= load_flag(s, &c->triggered);
    ok &= load_flag(s, &c->write_high);
    ok &= load_flag(s, &c->read_high);
    c->write_low = load_u8(s);
    c->latched = load_u8(s);
    ok &= load_flag(s, &c->status_latched);
    c->status = load_u8(s);
    c->latch = load_u16(s);
    c->count = load_u32(s);
    c->start = load_u64(s);
    c->held = load_u64(s);
    c->next_count = load_u32(s);
    c->next_start = load_u64(s);
    return ok && c->mode <= 5 && c->access >= ACCESS_LOW && c->access <= ACCESS_BOTH &&
           (n == 2 || c->gate) && c->latched <= 2 && c->count >= 1 && c->count <= modulus(c) &&
           c->start <= now && c->held <= now && c->next_count <= modulus(c) &&
           (!c->next_count || (periodic(c) && c->next_start > c->start &&
                               c->next_start <= now + 0x10000));
}

static int pit_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct pit *p = dev;
    struct channel ch[3] = { 0 };
    uint64_t now = ticks_now(p);   /* the machine's clock is loaded before its devices */
    bool ok = true;
    for (unsigned n = 0; n < 3; n++) {
        ok &= load_channel(&ch[n], n, now, s);
    }
    uint8_t port61 = load_u8(s);
    uint64_t due = load_u64(s), makeup_due = load_u64(s);
    uint32_t missed = load_u32(s);
    uint64_t last_pulse = load_u64(s);
    /* Two periods of the longest count is as far ahead as a rise can lie; any time back is late. */
    ok = ok && !(port61 & ~PORT61_KEPT) && (port61 & PORT61_GATE2) == ch[2].gate &&
         (due == NEVER || (due <= now + 0x20000 && counting(&ch[0]))) &&
         makeup_due <= now + 0x10000 && missed <= PIT_HZ / MIN_TICKS && last_pulse <= now;
    if (!ok) {
        return -EINVAL;
    }
    pthread_mutex_lock(&p->lock);
    memcpy(p->ch, ch, sizeof(ch));
    p->port61 = port61;
    p->due = due;
    p->makeup_due = makeup_due;
    p->missed = missed;
    p->last_pulse = last_pulse;
    pthread_mutex_unlock(&p->lock);
    return 0;
}

void pit_free(struct pit *p)
{
    if (!p) {
        return;
    }
    HV_CHECK(p, PIT_MAGIC);
    p->magic = 0;
    loop_timer_free(p->loop, p->timer);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int pit_new(struct machine *m, struct pit **ret)
{
    static const struct port_ops ports = { .in = pit_in, .out = pit_out, .max_size = 1 };
    static const struct port_ops port61 = { .in = port61_in, .out = port61_out, .max_size = 1 };
    static const struct device_ops device = {
        .tag = "pit", .version = 1, .reset = pit_reset, .save = pit_save, .load = pit_load,
    };
    struct pit *p = hv_alloc(sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    p->m = m;
    p->loop = machine_loop(m);
    int r = loop_timer_new(p->loop, pit_timer, p, &p->timer);
    if (r < 0) {
        free(p);
        return r;
    }
    p->magic = PIT_MAGIC;
    pthread_mutex_init(&p->lock, NULL);
    p->stats = (struct stats_table){ .group = "pit", .desc = pit_desc, .count = PIT_COUNTERS,
                                     .value = p->counter };
    stats_register(machine_stats(m), &p->stats);
    pit_reset(p);
    machine_add_ports(m, 0x40, 4, &ports, p);
    machine_add_ports(m, 0x61, 1, &port61, p);
    machine_add_device(m, &device, 0, p);
    machine_on_clock(m, pit_clock, p);
    *ret = p;
    return 0;
}
