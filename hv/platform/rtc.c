/*
 * MC146818A (Motorola data sheet) with the century at 0x32 that FADT names. Driven as
 * Linux 6.1 drivers/rtc/rtc-mc146818-lib.c and rtc-cmos.c do.
 *
 * The time is the host's time of day plus an offset, and stands still while the guest
 * sets it (register B SET, or the divider held in reset by register A): then the time
 * registers are plain memory, and what they hold when it runs again gives the new
 * offset. Released from divider reset, the next second comes after half a second.
 *
 * Flags are brought up to date when somebody looks, so an idle clock needs no timer;
 * one is armed only for an enabled interrupt that is not pending already, so a guest
 * that does not read register C gets no second one. Periodic ticks that a late loop missed
 * are not made up for: the flag only says "at least one".
 *
 * The weekday follows from the date and cannot be set apart from it.
 */
#include "hv/platform/rtc.h"

#include <errno.h>
#include <pthread.h>

#include "hv/platform/calendar.h"

#define RTC_MAGIC   0x52544330u
#define RTC_IRQ     8u
#define CMOS_SIZE   128u
#define UIP_NS      244000u            /* UIP is up this long before a second */
#define CRYSTAL_HZ  32768u
#define SEC_PER_DAY 86400

enum { REG_SEC, REG_SEC_ALARM, REG_MIN, REG_MIN_ALARM, REG_HOUR, REG_HOUR_ALARM, REG_WDAY,
       REG_DAY, REG_MONTH, REG_YEAR, REG_A, REG_B, REG_C, REG_D, REG_CENTURY = 0x32 };
enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_DIVIDER_RESET = 0x60, A_RATE = 0x0F };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04,
       B_24H = 0x02, B_INTERRUPTS = B_PIE | B_AIE | B_UIE };
enum { C_IRQ = 0x80, C_PERIODIC = 0x40, C_ALARM = 0x20, C_UPDATE = 0x10 };
#define D_VALID   0x80
#define HOUR_PM   0x80
#define ALARM_ANY 0xC0                 /* this and above match every value */

struct moment { int64_t sec; uint32_t ns; };

struct rtc {
    uint32_t magic;
    struct machine *m;
    struct loop *loop;
    struct loop_timer *timer;
    pthread_mutex_t lock;
    uint8_t cmos[CMOS_SIZE];     /* registers A, B and C (without IRQF) live here as well */
    uint8_t index;
    int64_t offset_sec;          /* what to add to the host's time */
    uint32_t offset_ns;          /* 0..999,999,999 */
    int64_t seen_sec;            /* the second up to which UF and AF are accounted for */
    uint64_t seen_periods;       /* likewise PF */
    bool level;
};

/* ---- time ---- */

static bool set_bit(const struct rtc *t)
{
    return t->cmos[REG_B] & B_SET;
}

static bool divider_reset(const struct rtc *t)
{
    return (t->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static bool stopped(const struct rtc *t)
{
    return set_bit(t) || divider_reset(t);
}

static struct moment moment_now(struct rtc *t)
{
    uint64_t wall = machine_wall_ns(t->m);
    uint64_t ns = wall % NS_PER_SEC + t->offset_ns;
    return (struct moment){ (int64_t)(wall / NS_PER_SEC) + t->offset_sec +
                                (int64_t)(ns / NS_PER_SEC), (uint32_t)(ns % NS_PER_SEC) };
}

/* Choose the offset so that it is `to` now. */
static void set_moment(struct rtc *t, struct moment to)
{
    uint64_t wall = machine_wall_ns(t->m);
    int64_t sec = to.sec - (int64_t)(wall / NS_PER_SEC);
    int64_t ns = (int64_t)to.ns - (int64_t)(wall % NS_PER_SEC);
    if (ns < 0) {
        ns += (int64_t)NS_PER_SEC;
        sec--;
    }
    t->offset_sec = sec;
    t->offset_ns = (uint32_t)ns;
}

static uint8_t encode(const struct rtc *t, unsigned v)
{
    return (uint8_t)(t->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned decode(const struct rtc *t, uint8_t v, unsigned min, unsigned max)
{
    unsigned n = t->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
    return n < min ? min : n > max ? max : n;
}

static uint8_t encode_hour(const struct rtc *t, unsigned hour)
{
    if (t->cmos[REG_B] & B_24H) {
        return encode(t, hour);
    }
    return encode(t, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc *t, uint8_t v)
{
    if (t->cmos[REG_B] & B_24H) {
        return decode(t, v, 0, 23);
    }
    return decode(t, v & ~HOUR_PM, 1, 12) % 12 + (v & HOUR_PM ? 12 : 0);
}

static void show_time(struct rtc *t, int64_t sec)
{
    struct civil c = civil_from_seconds(sec);
    unsigned year = (unsigned)(((c.year % 10000) + 10000) % 10000);
    t->cmos[REG_SEC] = encode(t, c.sec);
    t->cmos[REG_MIN] = encode(t, c.min);
    t->cmos[REG_HOUR] = encode_hour(t, c.hour);
    t->cmos[REG_WDAY] = encode(t, c.wday + 1);
    t->cmos[REG_DAY] = encode(t, c.day);
    t->cmos[REG_MONTH] = encode(t, c.month);
    t->cmos[REG_YEAR] = encode(t, year % 100);
    t->cmos[REG_CENTURY] = encode(t, year / 100);
}

static int64_t read_time(const struct rtc *t)
{
    struct civil c = {
        .year = (int)(decode(t, t->cmos[REG_CENTURY], 0, 99) * 100 +
                      decode(t, t->cmos[REG_YEAR], 0, 99)),
        .month = decode(t, t->cmos[REG_MONTH], 1, 12),
        .day = decode(t, t->cmos[REG_DAY], 1, 31),
        .hour = decode_hour(t, t->cmos[REG_HOUR]),
        .min = decode(t, t->cmos[REG_MIN], 0, 59),
        .sec = decode(t, t->cmos[REG_SEC], 0, 59),
    };
    return civil_to_seconds(&c);
}

/* ---- alarm and periodic rate ---- */

static bool alarm_matches(uint8_t alarm, uint8_t now)
{
    return alarm >= ALARM_ANY || alarm == now;
}

/*
 * The first second after `after` at which the alarm goes off, or INT64_MAX if its
 * registers hold no time of day. At most 25 + 2 * 60 + 60 comparisons.
 */
static int64_t next_alarm(const struct rtc *t, int64_t after)
{
    struct civil c = civil_from_seconds(after + 1);
    int64_t midnight = after + 1 - (int64_t)(c.hour * 3600 + c.min * 60 + c.sec);
    int sec_any = -1, min_any = -1;
    for (unsigned i = 60; i-- > 0;) {
        sec_any = alarm_matches(t->cmos[REG_SEC_ALARM], encode(t, i)) ? (int)i : sec_any;
        min_any = alarm_matches(t->cmos[REG_MIN_ALARM], encode(t, i)) ? (int)i : min_any;
    }
    if (sec_any < 0 || min_any < 0) {
        return INT64_MAX;
    }
    /* Today from this very second on, then from each later hour's first match on. */
    for (unsigned h = c.hour; h <= c.hour + 24; h++) {
        if (!alarm_matches(t->cmos[REG_HOUR_ALARM], encode_hour(t, h % 24))) {
            continue;
        }
        bool first_hour = h == c.hour;
        for (unsigned m = first_hour ? c.min : (unsigned)min_any; m < 60; m++) {
            if (!alarm_matches(t->cmos[REG_MIN_ALARM], encode(t, m))) {
                continue;
            }
            bool first_min = first_hour && m == c.min;
            for (unsigned s = first_min ? c.sec : (unsigned)sec_any; s < 60; s++) {
                if (alarm_matches(t->cmos[REG_SEC_ALARM], encode(t, s))) {
                    return midnight + (int64_t)h * 3600 + m * 60 + s;
                }
            }
        }
    }
    return INT64_MAX;
}

/* Crystal cycles a period, 0 if there is none. Rates 1 and 2 are those of 8 and 9. */
static uint32_t period_cycles(const struct rtc *t)
{
    unsigned rate = t->cmos[REG_A] & A_RATE;
    return rate == 0 ? 0 : 1u << (rate < 3 ? rate + 6 : rate - 1);
}

/* How many periods had begun by `now`, modulo 2^64. */
static uint64_t periods(const struct rtc *t, struct moment now)
{
    uint32_t cycles = period_cycles(t);
    if (!cycles) {
        return 0;
    }
    uint32_t in_sec = (uint32_t)((uint64_t)now.ns * CRYSTAL_HZ / NS_PER_SEC);
    return (uint64_t)now.sec * (CRYSTAL_HZ / cycles) + in_sec / cycles;
}

/* ---- flags, line, timer ---- */

static void update_line(struct rtc *t)
{
    bool level = t->cmos[REG_B] & t->cmos[REG_C] & B_INTERRUPTS;
    if (level != t->level) {
        t->level = level;
        machine_irq_set(t->m, RTC_IRQ, level);
    }
}

/* Forget what has happened since: the clock was set, started, or its rate changed. */
static void account_from(struct rtc *t, struct moment now)
{
    t->seen_sec = now.sec;
    t->seen_periods = periods(t, now);
}

/* Bring time registers and flags up to now. */
static struct moment catch_up(struct rtc *t)
{
    struct moment now = moment_now(t);
    if (stopped(t)) {
        return now;
    }
    if (periods(t, now) != t->seen_periods) {
        t->cmos[REG_C] |= C_PERIODIC;
    }
    if (now.sec > t->seen_sec) {
        t->cmos[REG_C] |= C_UPDATE;
        if (next_alarm(t, t->seen_sec) <= now.sec) {
            t->cmos[REG_C] |= C_ALARM;
        }
    }
    account_from(t, now);
    show_time(t, now.sec);
    update_line(t);
    return now;
}

/* Nanoseconds from now to the start of second sec, or to the end of time if that is far. */
static uint64_t until(struct moment now, int64_t sec)
{
    int64_t dist = sec - now.sec;
    return dist > SEC_PER_DAY * 2 ? UINT64_MAX : (uint64_t)dist * NS_PER_SEC - now.ns;
}

static void arm(struct rtc *t, struct moment now)
{
    uint8_t wanted = t->cmos[REG_B] & B_INTERRUPTS;
    uint64_t wait = UINT64_MAX;
    if (!stopped(t) && !t->level) {
        uint32_t cycles = period_cycles(t);
        if ((wanted & B_PIE) && cycles) {
            uint64_t in_sec = (uint64_t)now.ns * CRYSTAL_HZ / NS_PER_SEC;
            uint64_t next = (in_sec / cycles + 1) * cycles;
            wait = MIN(wait, (next * NS_PER_SEC + CRYSTAL_HZ - 1) / CRYSTAL_HZ - now.ns);
        }
        if (wanted & B_UIE) {
            wait = MIN(wait, until(now, now.sec + 1));
        }
        if (wanted & B_AIE) {
            int64_t alarm = next_alarm(t, now.sec);
            wait = alarm == INT64_MAX ? wait : MIN(wait, until(now, alarm));
        }
    }
    uint64_t deadline = UINT64_MAX;
    if (wait != UINT64_MAX) {
        deadline = machine_deadline(t->m, machine_clock_ns(t->m) + wait);
    }
    if (deadline == UINT64_MAX) {
        loop_timer_stop(t->loop, t->timer);
    } else {
        loop_timer_set(t->loop, t->timer, deadline);
    }
}

static void rtc_timer(void *arg)
{
    struct rtc *t = arg;
    pthread_mutex_lock(&t->lock);
    if (machine_deadline(t->m, 0) != UINT64_MAX) {   /* not paused */
        arm(t, catch_up(t));
    }
    pthread_mutex_unlock(&t->lock);
}

static void rtc_clock(void *dev)
{
    struct rtc *t = dev;
    pthread_mutex_lock(&t->lock);
    arm(t, moment_now(t));
    pthread_mutex_unlock(&t->lock);
}

/* ---- registers ---- */

static bool is_time(unsigned reg)
{
    return reg == REG_CENTURY || reg == REG_SEC || reg == REG_MIN ||
           (reg >= REG_HOUR && reg <= REG_YEAR && reg != REG_HOUR_ALARM);
}

/* The clock goes on from what its registers hold. */
static void run_from_registers(struct rtc *t, uint32_t ns)
{
    struct moment now = { read_time(t), ns };
    set_moment(t, now);
    account_from(t, now);
}

static void write_control(struct rtc *t, unsigned reg, uint8_t val)
{
    bool was_stopped = stopped(t);
    bool was_reset = divider_reset(t);
    uint32_t phase = moment_now(t).ns;
    if (reg == REG_A) {
        t->cmos[REG_A] = val & ~A_UIP;
    } else {
        t->cmos[REG_B] = val & B_SET ? val & ~B_UIE : val;
    }
    if (was_stopped && !stopped(t)) {
        run_from_registers(t, was_reset ? (uint32_t)(NS_PER_SEC / 2) : phase);
    } else if (reg == REG_A) {
        t->seen_periods = periods(t, moment_now(t));   /* another rate counts afresh */
    }
}

static void write_register(struct rtc *t, unsigned reg, uint8_t val)
{
    struct moment now = catch_up(t);
    if (reg == REG_A || reg == REG_B) {
        write_control(t, reg, val);
        update_line(t);
    } else if (reg != REG_C && reg != REG_D) {
        t->cmos[reg] = val;
        if (is_time(reg) && !stopped(t)) {
            run_from_registers(t, now.ns);
        }
    }
    arm(t, catch_up(t));
}

static uint8_t read_register(struct rtc *t, unsigned reg)
{
    if (reg > REG_D && reg != REG_CENTURY) {
        return t->cmos[reg];
    }
    struct moment now = catch_up(t);
    uint8_t val = t->cmos[reg];
    if (reg == REG_A && !stopped(t) && now.ns >= NS_PER_SEC - UIP_NS) {
        val |= A_UIP;
    } else if (reg == REG_C) {
        val |= t->level ? C_IRQ : 0;
        t->cmos[REG_C] = 0;
        update_line(t);
        arm(t, now);
    } else if (reg == REG_D) {
        val = D_VALID;
    }
    return val;
}

static uint32_t rtc_in(void *dev, uint16_t port, unsigned size)
{
    struct rtc *t = dev;
    uint8_t val = 0xFF;   /* the index cannot be read */
    pthread_mutex_lock(&t->lock);
    if (port & 1) {
        val = read_register(t, t->index);
    }
    pthread_mutex_unlock(&t->lock);
    return val;
}

static void rtc_out(void *dev, uint16_t port, unsigned size, uint32_t val)
{
    struct rtc *t = dev;
    pthread_mutex_lock(&t->lock);
    if (port & 1) {
        write_register(t, t->index, (uint8_t)val);
    } else {
        t->index = val & (CMOS_SIZE - 1);   /* bit 7 masks NMI, of which there is none */
    }
    pthread_mutex_unlock(&t->lock);
}

void rtc_set_cmos(struct rtc *t, unsigned index, uint8_t val)
{
    HV_CHECK(t, RTC_MAGIC);
    hv_assert(index > REG_D && index < CMOS_SIZE && index != REG_CENTURY);
    pthread_mutex_lock(&t->lock);
    t->cmos[index] = val;
    pthread_mutex_unlock(&t->lock);
}

static void set_cmos16(struct rtc *t, unsigned index, uint64_t val)
{
    uint16_t v = (uint16_t)MIN(val, (uint64_t)0xFFFF);
    rtc_set_cmos(t, index, (uint8_t)v);
    rtc_set_cmos(t, index + 1, (uint8_t)(v >> 8));
}

void rtc_set_memory(struct rtc *t, uint64_t low_bytes, uint64_t high_bytes)
{
    uint64_t extended_kib = low_bytes > MIB ? (low_bytes - MIB) / KIB : 0;
    uint64_t above_16m = low_bytes > 16 * MIB ? (low_bytes - 16 * MIB) / (64 * KIB) : 0;
    uint64_t above_4g = MIN(high_bytes / (64 * KIB), (uint64_t)0xFFFFFF);
    set_cmos16(t, 0x15, 640);                          /* KiB of base memory */
    set_cmos16(t, 0x17, MIN(extended_kib, (uint64_t)63 * 1024));
    set_cmos16(t, 0x30, MIN(extended_kib, (uint64_t)63 * 1024));
    set_cmos16(t, 0x34, above_16m);
    rtc_set_cmos(t, 0x5B, (uint8_t)above_4g);
    set_cmos16(t, 0x5C, above_4g >> 8);
}

void rtc_set_cpus(struct rtc *t, unsigned cpus)
{
    hv_assert(cpus >= 1 && cpus <= 256);
    rtc_set_cmos(t, 0x5F, (uint8_t)(cpus - 1));
}

/* ---- state ---- */

/* A reset leaves time and memory alone (they have a battery); it disables interrupts. */
static void rtc_reset(void *dev)
{
    struct rtc *t = dev;
    pthread_mutex_lock(&t->lock);
    t->cmos[REG_B] &= ~(B_INTERRUPTS | B_SQWE);
    t->cmos[REG_C] = 0;
    t->cmos[0x0F] = 0;      /* shutdown status: an ordinary reset */
    t->index = 0;
    t->level = false;
    arm(t, moment_now(t));
    pthread_mutex_unlock(&t->lock);
}

static void rtc_save(void *dev, struct save_writer *w)
{
    struct rtc *t = dev;
    pthread_mutex_lock(&t->lock);
    save_bytes(w, t->cmos, sizeof(t->cmos));
    save_u8(w, t->index);
    save_u64(w, (uint64_t)t->offset_sec);
    save_u32(w, t->offset_ns);
    save_u64(w, (uint64_t)t->seen_sec);
    save_u64(w, t->seen_periods);
    pthread_mutex_unlock(&t->lock);
}

/* Ten thousand years either way: what the registers can show, with room for the host's date. */
#define MAX_SECONDS (INT64_C(10000) * 366 * SEC_PER_DAY)

static int rtc_load(void *dev, struct load_section *s, struct hv_error *e)
{
    struct rtc *t = dev;
    uint8_t cmos[CMOS_SIZE];
    load_bytes(s, cmos, sizeof(cmos));
    uint8_t index = load_u8(s);
    int64_t offset_sec = (int64_t)load_u64(s);
    uint32_t offset_ns = load_u32(s);
    int64_t seen_sec = (int64_t)load_u64(s);
    uint64_t seen_periods = load_u64(s);
    if (index >= CMOS_SIZE || offset_ns >= NS_PER_SEC || offset_sec < -MAX_SECONDS ||
        offset_sec > MAX_SECONDS || seen_sec < -MAX_SECONDS || seen_sec > MAX_SECONDS ||
        (cmos[REG_A] & A_UIP) || (cmos[REG_C] & ~(C_PERIODIC | C_ALARM | C_UPDATE))) {
        return -EINVAL;
    }
    pthread_mutex_lock(&t->lock);
    memcpy(t->cmos, cmos, sizeof(cmos));
    t->index = index;
    t->offset_sec = offset_sec;
    t->offset_ns = offset_ns;
    t->seen_sec = seen_sec;
    t->seen_periods = seen_periods;
    t->level = cmos[REG_B] & cmos[REG_C] & B_INTERRUPTS;
    pthread_mutex_unlock(&t->lock);
    return 0;
}

void rtc_free(struct rtc *t)
{
    if (!t) {
        return;
    }
    HV_CHECK(t, RTC_MAGIC);
    t->magic = 0;
    loop_timer_free(t->loop, t->timer);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int rtc_new(struct machine *m, int64_t offset_sec, struct rtc **ret)
{
    static const struct port_ops ports = { .in = rtc_in, .out = rtc_out, .max_size = 1 };
    static const struct device_ops device = {
        .tag = "rtc", .version = 1, .reset = rtc_reset, .save = rtc_save, .load = rtc_load,
    };
    struct rtc *t = hv_alloc(sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    t->m = m;
    t->loop = machine_loop(m);
    int r = loop_timer_new(t->loop, rtc_timer, t, &t->timer);
    if (r < 0) {
        free(t);
        return r;
    }
    t->magic = RTC_MAGIC;
    pthread_mutex_init(&t->lock, NULL);
    t->offset_sec = offset_sec < -MAX_SECONDS / 2 ? -MAX_SECONDS / 2
                  : offset_sec > MAX_SECONDS / 2  ? MAX_SECONDS / 2 : offset_sec;
    t->cmos[REG_A] = 0x26;        /* 32768 Hz crystal, periodic rate 1024 Hz */
    t->cmos[REG_B] = B_24H;
    t->cmos[0x14] = 0x02;         /* equipment: a coprocessor, no floppy, no display */
    account_from(t, moment_now(t));
    show_time(t, t->seen_sec);
    machine_add_ports(m, 0x70, 2, &ports, t);
    machine_add_device(m, &device, 0, t);
    machine_on_clock(m, rtc_clock, t);
    *ret = t;
    return 0;
}
