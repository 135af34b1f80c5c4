/*
 * Functions that have no safe use here: each becomes a compile error.
 * After git's banned.h, which showed that a list like this keeps itself.
 */
#ifndef HV_BASE_BANNED_H
#define HV_BASE_BANNED_H

/* Standard headers declare these names; include them before the names are gone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HV_BANNED(name, instead) sorry_##name##_is_banned_use_##instead

#undef strcpy
#define strcpy(...)   HV_BANNED(strcpy, hv_strlcpy)
#undef strncpy
#define strncpy(...)  HV_BANNED(strncpy, hv_strlcpy)
#undef strcat
#define strcat(...)   HV_BANNED(strcat, hv_asprintf)
#undef strncat
#define strncat(...)  HV_BANNED(strncat, hv_asprintf)
#undef sprintf
#define sprintf(...)  HV_BANNED(sprintf, snprintf)
#undef vsprintf
#define vsprintf(...) HV_BANNED(vsprintf, vsnprintf)
#undef strtok
#define strtok(...)   HV_BANNED(strtok, strtok_r)
#undef atoi
#define atoi(...)     HV_BANNED(atoi, parse_uint)
#undef atol
#define atol(...)     HV_BANNED(atol, parse_uint)
#undef gmtime
#define gmtime(...)   HV_BANNED(gmtime, gmtime_r)
#undef localtime
#define localtime(...) HV_BANNED(localtime, localtime_r)
#undef ctime
#define ctime(...)    HV_BANNED(ctime, strftime)
#undef asctime
#define asctime(...)  HV_BANNED(asctime, strftime)
#undef rand
#define rand(...)     HV_BANNED(rand, getrandom)
#undef tmpnam
#define tmpnam(...)   HV_BANNED(tmpnam, mkstemp)
#undef gets
#define gets(...)     HV_BANNED(gets, getline)

#endif
