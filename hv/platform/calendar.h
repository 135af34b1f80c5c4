/* Days and dates of the proleptic Gregorian calendar. */
#ifndef HV_PLATFORM_CALENDAR_H
#define HV_PLATFORM_CALENDAR_H

#include "hv/base/base.h"

struct civil { int year; unsigned month, day, hour, min, sec, wday; };   /* month, day from 1; Sunday is 0 */

/* Seconds since 1970 of a date; day may exceed the month and runs on into the next. */
int64_t civil_to_seconds(const struct civil *c);
struct civil civil_from_seconds(int64_t sec);

#endif
