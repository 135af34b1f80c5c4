/* A TIME of rule 5: a clock time, a date and time, or a duration ago. Local time unless it ends in Z. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "hv/base/units.h"
#include "hvctl/hvctl.h"

static bool digits(const char **p, unsigned n, int *ret)
{
    int v = 0;
    for (unsigned i = 0; i < n; i++, (*p)++) {
        if (**p < '0' || **p > '9') {
            return false;
        }
        v = v * 10 + (**p - '0');
    }
    *ret = v;
    return true;
}

/* "22:20" or "22:20:05". */
static bool clock_time(const char **p, struct tm *tm)
{
    tm->tm_sec = 0;
    if (!digits(p, 2, &tm->tm_hour) || *(*p)++ != ':' || !digits(p, 2, &tm->tm_min)) {
        return false;
    }
    if (**p == ':') {
        (*p)++;
        if (!digits(p, 2, &tm->tm_sec)) {
            return false;
        }
    }
    return tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 61;
}

static bool date_time(const char *text, struct tm *tm)
{
    const char *p = text;
    if (!digits(&p, 4, &tm->tm_year) || *p++ != '-' || !digits(&p, 2, &tm->tm_mon) || *p++ != '-' ||
        !digits(&p, 2, &tm->tm_mday)) {
        return false;
    }
    tm->tm_year -= 1900;
    tm->tm_mon -= 1;
    if (tm->tm_mon < 0 || tm->tm_mon > 11 || tm->tm_mday < 1 || tm->tm_mday > 31) {
        return false;
    }
    if (!*p) {
        return true;
    }
    if (*p++ != 'T' || !clock_time(&p, tm)) {
        return false;
    }
    tm->tm_isdst = *p == 'Z' ? 0 : -1;
    p += *p == 'Z';
    return !*p;
}

int time_parse(const char *text, const char *object, uint64_t now_ns, int64_t *ret_ms, struct hv_error *e)
{
    time_t now = (time_t)(now_ns / NS_PER_SEC);
    struct tm tm;
    const char *p = text;
    uint64_t ago;

    localtime_r(&now, &tm);
    tm.tm_isdst = -1;
    if (clock_time(&p, &tm) && !*p) {
        time_t t = mktime(&tm);
        if (t > now) {                      /* later than now: yesterday's */
            localtime_r(&now, &tm);
            p = text;
            clock_time(&p, &tm);
            tm.tm_mday--;
            tm.tm_isdst = -1;
            t = mktime(&tm);
        }
        *ret_ms = (int64_t)t * 1000;
        return 0;
    }
    tm = (struct tm){.tm_isdst = -1};
    if (date_time(text, &tm)) {
        bool utc = text[strlen(text) - 1] == 'Z';
        *ret_ms = (int64_t)(utc ? timegm(&tm) : mktime(&tm)) * 1000;
        return 0;
    }
    if (parse_duration(text, object, &ago, NULL) == 0) {
        *ret_ms = (int64_t)((now_ns - MIN(ago, now_ns)) / NS_PER_MS);
        return 0;
    }
    char full[120];
    snprintf(full, sizeof(full), "%s %s", object, text);
    hv_fail(e, HV_USAGE, full, "not a time");
    hv_hint(e, "%s 22:20, %s 2026-11-20T22:20, %s 24h", object, object, object);
    return -EINVAL;
}
