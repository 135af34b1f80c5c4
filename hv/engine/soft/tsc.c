/*
 * The guest's TSC: the host's, from an origin of its own, scaled only if the guest was
 * promised another frequency (a machine that came from another host).
 *
 * Its frequency has to be right to a few parts per million, as guests skip their own
 * calibration: CPUID leaf 0x40000010 of the hypervisor below or leaf 0x15 where they say it
 * and a measurement agrees, else the measurement, against CLOCK_MONOTONIC_RAW. Every start of a
 * machine waits for it, so it goes on only until its answer is good enough.
 */
#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include "hv/base/log.h"
#include "hv/engine/soft/soft.h"

#define PPM(n) (1000000 / (n))     /* what a frequency is divided by for n parts per million of it */

uint64_t tsc_host_now(void)
{
    return __rdtsc();
}

static uint64_t raw_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* One reading of both clocks, the closest of a few; returns how far apart the TSC reads around it were. */
static uint64_t both(uint64_t *tsc, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;
    *tsc = *ns = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t a = __rdtsc(), n = raw_ns(), b = __rdtsc();
        if (b - a < best) {
            best = b - a;
            *tsc = a + (b - a) / 2;
            *ns = n;
        }
    }
    return best;
}

/* What CPUID says, or 0. */
static uint64_t announced(void)
{
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (c >> 31) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010 && a < 0x40010000) {
            __cpuid(0x40000010, a, b, c, d);
            if (a)
                return (uint64_t)a * 1000;
        }
    }
    if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
        return (uint64_t)c * b / a;
    return 0;
}

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

static uint64_t host_hz;

/*
 * Of most processors a few milliseconds tell the frequency: it is what CPUID says (500 ppm are no accident), or
 * so close to a whole number of MHz that it is that one. Others take until the readings' own uncertainty is small.
 */
static void find_host_hz(void)
{
    static const uint64_t naps_ns[] = { 4 * NS_PER_MS, 16 * NS_PER_MS, 40 * NS_PER_MS };
    const uint64_t said = announced();
    uint64_t t0, n0, t1, n1, hz = 0;
    const uint64_t err = both(&t0, &n0);
    for (size_t i = 0; i < ARRAY_SIZE(naps_ns); i++) {
        struct timespec nap = { .tv_nsec = (long)naps_ns[i] };
        clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        const uint64_t unsure = (err + both(&t1, &n1)) / 2;    /* ticks, of t1 - t0 */
        if (n1 <= n0)
            continue;
        hz = (uint64_t)((unsigned __int128)(t1 - t0) * NS_PER_SEC / (n1 - n0));
        const uint64_t mhz = (hz + 500000) / 1000000 * 1000000;
        if (unsure > (t1 - t0) / PPM(20))
            continue;              /* the host was busy elsewhere at every reading */
        host_hz = said && distance(said, hz) < said / PPM(500) ? said : distance(mhz, hz) < hz / PPM(4) ? mhz : 0;
        if (host_hz || unsure < (t1 - t0) / PPM(4))
            break;
    }
    if (!host_hz)
        host_hz = hz;
    log_debug("soft", "host TSC: measured %llu Hz, CPUID says %llu Hz", (unsigned long long)hz,
              (unsigned long long)said);
}

uint64_t tsc_host_hz(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_host_hz);
    return host_hz;
}

uint64_t tsc_guest_at(const struct soft *s, uint64_t host)
{
    uint64_t ticks = host - s->tsc_base;
    return s->tsc_ratio ? (uint64_t)((unsigned __int128)ticks * s->tsc_ratio >> 32) : ticks;
}

uint64_t cpu_tsc(struct cpu *c)
{
    return tsc_guest_at(c->soft, __rdtsc()) + c->tsc_offset;
}
