/*
 * Log lines on stderr, one a call, ready for journald: fields first, prose second.
 * Code below hv/worker and hv/service logs only at debug, per subsystem, when
 * HV_DEBUG names it ("vmbus,dynmem", "all").
 */
#ifndef HV_BASE_LOG_H
#define HV_BASE_LOG_H

#include "hv/base/base.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* program: "hvd", "hv-worker: web1"; copied. Reads HV_DEBUG. Call once, before threads. */
void log_init(const char *program);

void log_at(enum log_level level, const char *fmt, ...) HV_PRINTF(2, 3);
#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)

bool log_debug_on(const char *subsystem);
void log_debug_line(const char *subsystem, const char *fmt, ...) HV_PRINTF(2, 3);
#define log_debug(subsystem, ...) \
    do { if (HV_UNLIKELY(log_debug_on(subsystem))) log_debug_line(subsystem, __VA_ARGS__); } while (0)

/* At most `burst` lines each `interval_ns`; says how many it swallowed. For what a guest can trigger. */
struct log_ratelimit { uint64_t interval_ns, window_start_ns; unsigned burst, used, missed; };
#define LOG_RATELIMIT(n) { .interval_ns = 10 * NS_PER_SEC, .burst = (n) }
bool log_ratelimit_ok(struct log_ratelimit *rl);

#endif
