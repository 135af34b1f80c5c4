/*
 * A year starts in March here, so that the leap day comes last and month lengths follow
 * one formula: days before month m (0 is March) are (153 m + 2) / 5. 400 years ("era")
 * are 146,097 days; 719,468 days lie between 1 March of the year 0 and 1 January 1970.
 */
#include "hv/platform/calendar.h"

#define DAYS_PER_ERA 146097
#define DAYS_TO_1970 719468
#define SEC_PER_DAY  86400

int64_t civil_to_seconds(const struct civil *c)
{
    int64_t year = c->month <= 2 ? c->year - 1 : c->year;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t in_era = year - era * 400;
    int64_t month = (c->month + 9) % 12;
    int64_t day = (153 * month + 2) / 5 + c->day - 1;
    int64_t days = era * DAYS_PER_ERA + in_era * 365 + in_era / 4 - in_era / 100 + day -
                   DAYS_TO_1970;
    return days * SEC_PER_DAY + c->hour * 3600 + c->min * 60 + c->sec;
}

struct civil civil_from_seconds(int64_t sec)
{
    int64_t days = (sec >= 0 ? sec : sec - (SEC_PER_DAY - 1)) / SEC_PER_DAY;
    unsigned in_day = (unsigned)(sec - days * SEC_PER_DAY);
    int64_t z = days + DAYS_TO_1970;
    int64_t era = (z >= 0 ? z : z - (DAYS_PER_ERA - 1)) / DAYS_PER_ERA;
    int64_t doe = z - era * DAYS_PER_ERA;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / (DAYS_PER_ERA - 1)) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t month = (5 * doy + 2) / 153;
    int64_t wday = (days + 4) % 7;   /* 1 January 1970 was a Thursday */
    return (struct civil){
        .year = (int)(yoe + era * 400 + (month >= 10)),
        .month = (unsigned)(month < 10 ? month + 3 : month - 9),
        .day = (unsigned)(doy - (153 * month + 2) / 5 + 1),
        .hour = in_day / 3600, .min = in_day / 60 % 60, .sec = in_day % 60,
        .wday = (unsigned)(wday < 0 ? wday + 7 : wday),
    };
}
