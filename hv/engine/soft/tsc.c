/*
 * The guest's TSC: the host's, from an origin of its own, scaled only if the guest was
 * promised another frequency (a machine that came from another host).
 *
 * Its frequency has to be right to a few parts per million, as guests skip their own
 * calibration: CPUID leaf 0x40000010 of the hypervisor below or leaf 0x15 where they say it
 * and a measurement agrees, else the measurement, against CLOCK_MONOTONIC_RAW.
 */
#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include "hv/base/log.h"
#include "hv/engine/soft/soft.h"

#define MEASURE_NS   (20 * NS_PER_MS)
#define MEASURE_RUNS 2

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

static uint64_t measure(void)
{
    uint64_t best_err = UINT64_MAX, hz = 0;
    for (int run = 0; run < MEASURE_RUNS; run++) {
        uint64_t t0, n0, t1, n1;
        uint64_t err = both(&t0, &n0);
        struct timespec nap = { .tv_nsec = (long)MEASURE_NS };
        clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        err += both(&t1, &n1);
        if (err < best_err && n1 > n0) {
            best_err = err;
            hz = (uint64_t)((unsigned __int128)(t1 - t0) * NS_PER_SEC / (n1 - n0));
        }
    }
    return hz;
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

/* Processors run at whole MHz: what is that close to one is one, measured with a few ppm of noise. */
static uint64_t nominal(uint64_t hz)
{
    uint64_t mhz = (hz + 500000) / 1000000 * 1000000, diff = hz > mhz ? hz - mhz : mhz - hz;
    return diff < hz / 250000 ? mhz : hz;
}

static uint64_t host_hz;

static void find_host_hz(void)
{
    uint64_t measured = measure(), said = announced();
    uint64_t diff = said > measured ? said - measured : measured - said;
    host_hz = said && diff < said / 2000 ? said : nominal(measured);
    log_debug("soft", "host TSC: measured %llu Hz, CPUID says %llu Hz", (unsigned long long)measured,
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
