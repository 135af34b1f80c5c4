/*
 * Sizes, durations, percentages and plain integers as operators write and read
 * them (specs/operator-surface, rules 4 and 5). Errors name the value and the fix.
 */
#ifndef HV_BASE_UNITS_H
#define HV_BASE_UNITS_H

#include "hv/base/error.h"

/* "512M", "1.5T", "2GiB", "64KB" (all powers of 1024), "0" -> bytes. A bare number is refused
 * with the likely spelling as hint. object: the option or key to name in the error. */
int parse_size(const char *text, const char *object, uint64_t *ret_bytes, struct hv_error *e);

/* The same with a leading + or -: *ret_sign is 0 (absolute), +1 or -1. */
int parse_size_relative(const char *text, const char *object, int *ret_sign, uint64_t *ret_bytes,
                        struct hv_error *e);

/* "500ms", "2s", "5m", "1h", "7d", "1.5h" -> nanoseconds. */
int parse_duration(const char *text, const char *object, uint64_t *ret_ns, struct hv_error *e);

/* "20" or "20%". */
int parse_percent(const char *text, const char *object, uint64_t *ret, struct hv_error *e);

/* Decimal, or 0x hex; whole string; min..max inclusive. */
int parse_uint(const char *text, const char *object, uint64_t min, uint64_t max, uint64_t *ret,
               struct hv_error *e);

/* "on"/"off". */
int parse_switch(const char *text, const char *object, bool *ret, struct hv_error *e);

/* "4.0G", "512M", "0.6G" style for people; buf[size], returns buf. At least 24 bytes. */
const char *format_size(uint64_t bytes, char *buf, size_t size);
/*
 * Two sizes of one sentence, so that they can be compared: as format_size() writes them, unless rounding hides which is
 * the larger ("0.7G of 704M"); then both in one unit ("722M", "704M"). Each buffer has 32 bytes.
 */
#define SIZE_TEXT 32
void format_sizes(uint64_t a, char a_buf[SIZE_TEXT], uint64_t b, char b_buf[SIZE_TEXT]);
/* The shortest text that parse_size reads back to the same number: "1536M", "1G". */
const char *format_size_exact(uint64_t bytes, char *buf, size_t size);
/* "3h 12m", "12d 04h", "45s". */
const char *format_age(uint64_t seconds, char *buf, size_t size);
/* "2026-11-20T23:20:06Z". */
const char *format_time_utc(uint64_t wall_ns, char *buf, size_t size);

#endif
