/*
 * Memory, strings, clocks and assertions: the small things of base.h.
 * Every allocation of the project passes here (or strbuf.c) and so the
 * fault-injection gate.
 */
#include "hv/base/base.h"

#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

#include "hv/base/fault.h"

void hv_assert_fail(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "%s: %s:%d: %s: assertion failed: %s\n", program_invocation_short_name, file,
            line, func, expr);
    abort();
}

void hv_cleanup_free(void *p)
{
    void *q;

    memcpy(&q, p, sizeof(q));
    free(q);
}

void hv_cleanup_close(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        errno = saved;
    }
}

static bool alloc_fails(void)
{
    int r = fault_check(FAULT_ALLOC);

    if (HV_UNLIKELY(r < 0)) {
        errno = -r;
        return true;
    }
    return false;
}

void *hv_alloc(size_t len)
{
    return alloc_fails() ? NULL : calloc(1, len ? len : 1);
}

void *hv_alloc_array(size_t count, size_t len)
{
    size_t total;

    return __builtin_mul_overflow(count, len, &total) ? NULL : hv_alloc(total);
}

void *hv_realloc_array(void *p, size_t count, size_t len)
{
    size_t total;

    if (__builtin_mul_overflow(count, len, &total) || alloc_fails()) {
        return NULL;
    }
    /* realloc to 0 frees p on glibc, and the caller could not tell that from a failure */
    return realloc(p, total ? total : 1);
}

char *hv_strdup(const char *s)
{
    return alloc_fails() ? NULL : strdup(s);
}

char *hv_asprintf(const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;

    if (alloc_fails()) {
        return NULL;
    }
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return n < 0 ? NULL : s;
}

bool hv_strlcpy(char *dst, const char *src, size_t size)
{
    size_t len = strlen(src);

    if (size == 0) {
        return false;
    }
    size_t n = MIN(len, size - 1);
    memcpy(dst, src, n);
    dst[n] = '\0';
    return n == len;
}

bool hv_is_zero(const void *p, size_t len)
{
    const uint8_t *b = p;

    return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

int hv_hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    hv_assert(clock_gettime(id, &ts) == 0);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t hv_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t hv_wall_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}
