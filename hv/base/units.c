/*
 * Reading what operators write. All of it through one scanner of decimal numbers
 * that keeps the fraction exact: 0.1G is 107374182 bytes on every machine, never a
 * double's idea of it.
 *
 * Errors: object is "OPTION VALUE" as the user wrote them, the hint a spelling that
 * would have worked.
 */
#include "hv/base/units.h"

#include <ctype.h>
#include <stdarg.h>
#include <strings.h>

#define MAX_FRACTION 9u              /* digits after the point; 10^9 times 2^64 fits 128 bits */

typedef unsigned __int128 u128;

struct unit {
    const char *name;                /* lower case */
    uint64_t factor;
};

static const struct unit size_units[] = {
    { "b", 1 },
    { "k", KIB }, { "kb", KIB }, { "kib", KIB },
    { "m", MIB }, { "mb", MIB }, { "mib", MIB },
    { "g", GIB }, { "gb", GIB }, { "gib", GIB },
    { "t", TIB }, { "tb", TIB }, { "tib", TIB },
    { "p", TIB << 10 }, { "pb", TIB << 10 }, { "pib", TIB << 10 },
};

static const struct unit duration_units[] = {
    { "ms", NS_PER_MS },
    { "s", NS_PER_SEC },
    { "m", 60 * NS_PER_SEC },
    { "h", 3600 * NS_PER_SEC },
    { "d", 86400 * NS_PER_SEC },
};

/* whole + fraction / scale, then what follows the number. */
struct number {
    uint64_t whole, fraction, scale;      /* scale: 10^digits */
    bool has_fraction, too_large;
    const char *rest;
};

/* false if there is no number at the start (a digit is needed on both sides of a point). */
static bool scan_number(const char *p, struct number *ret)
{
    struct number n = { .scale = 1 };

    if (!isdigit((unsigned char)*p)) {
        return false;
    }
    for (; isdigit((unsigned char)*p); p++) {
        if (__builtin_mul_overflow(n.whole, (uint64_t)10, &n.whole) ||
            __builtin_add_overflow(n.whole, (uint64_t)(*p - '0'), &n.whole)) {
            n.too_large = true;
        }
    }
    if (*p == '.') {
        n.has_fraction = true;
        p++;
        if (!isdigit((unsigned char)*p)) {
            return false;
        }
        for (unsigned digits = 0; isdigit((unsigned char)*p); p++) {
            if (digits++ < MAX_FRACTION) {
                n.fraction = n.fraction * 10 + (uint64_t)(*p - '0');
                n.scale *= 10;
            }
        }
    }
    n.rest = p;
    *ret = n;
    return true;
}

static const struct unit *find_unit(const struct unit *units, size_t count, const char *name, bool any_case)
{
    for (size_t i = 0; i < count; i++) {
        if (any_case ? strcasecmp(units[i].name, name) == 0 : strcmp(units[i].name, name) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

/* n units, rounded down to a whole number. false if it does not fit. */
static bool scale_number(const struct number *n, uint64_t factor, uint64_t *ret)
{
    u128 v = (u128)n->whole * factor + (u128)n->fraction * factor / n->scale;

    if (n->too_large || v > UINT64_MAX) {
        return false;
    }
    *ret = (uint64_t)v;
    return true;
}

/* "OPTION VALUE", or whichever of the two there is. */
static void name_object(char *buf, size_t size, const char *object, const char *value)
{
    bool both = object && *object && *value;

    snprintf(buf, size, "%s%s%s", object ? object : "", both ? " " : "", value);
}

static int HV_PRINTF(5, 6) bad_value(struct hv_error *e, const char *object, const char *text,
                                     const char *message, const char *hint, ...)
{
    char name[sizeof(e->object)], value[128];
    va_list ap;

    name_object(name, sizeof(name), object, text);
    int r = hv_fail(e, HV_USAGE, name, "%s", message);
    if (hint) {
        va_start(ap, hint);
        vsnprintf(value, sizeof(value), hint, ap);
        va_end(ap);
        name_object(name, sizeof(name), object, value);
        hv_hint(e, "%s", name);
    }
    return r;
}

/*
 * A bare number, spelled as it was most likely meant: few are gigabytes, many are
 * mebibytes, very many bytes or kibibytes.
 */
static int no_unit(const char *text, const char *sign, const struct number *n, const char *object,
                   struct hv_error *e)
{
    static const char message[] = "a size needs a unit";
    char exact[32];

    if (n->too_large || n->has_fraction || n->whole < 32) {
        return bad_value(e, object, text, message, "%sG", text);
    }
    if (n->whole < MIB) {
        return bad_value(e, object, text, message, "%sM", text);
    }
    if (n->whole < 32 * MIB || n->whole % MIB) {
        return bad_value(e, object, text, message, "%sK", text);
    }
    return bad_value(e, object, text, message, "%s%s", sign, format_size_exact(n->whole, exact, sizeof(exact)));
}

/* text is what to name in errors, p where the number begins, sign "" or "+" or "-". */
static int size_at(const char *text, const char *p, const char *sign, const char *object,
                   uint64_t *ret, struct hv_error *e)
{
    struct number n;

    if (*text == '\0') {
        return bad_value(e, object, text, "a size is missing", "4G");
    }
    if (*p == '-') {
        return bad_value(e, object, text, "a size cannot be negative", NULL);
    }
    if (!scan_number(p, &n)) {
        return bad_value(e, object, text, "this is no size", "%s4G", sign);
    }
    if (*n.rest == '\0') {
        if (n.whole == 0 && n.fraction == 0) {
            *ret = 0;
            return 0;
        }
        return no_unit(text, sign, &n, object, e);
    }
    const struct unit *unit = find_unit(size_units, ARRAY_SIZE(size_units), n.rest, true);
    if (!unit) {
        if (*n.rest == ',' && isdigit((unsigned char)n.rest[1])) {
            return bad_value(e, object, text, "the decimal sign of a size is a point", "%.*s.%s",
                             (int)(n.rest - text), text, n.rest + 1);
        }
        return bad_value(e, object, text, "the units of a size are B, K, M, G, T and P", "%.*sG",
                         (int)(n.rest - text), text);
    }
    if (unit->factor == 1 && n.has_fraction) {
        return bad_value(e, object, text, "a size in bytes is a whole number", NULL);
    }
    uint64_t bytes;
    if (!scale_number(&n, unit->factor, &bytes)) {
        return bad_value(e, object, text, "this size is too large", NULL);
    }
    *ret = bytes;
    return 0;
}

int parse_size(const char *text, const char *object, uint64_t *ret_bytes, struct hv_error *e)
{
    return size_at(text, text, "", object, ret_bytes, e);
}

int parse_size_relative(const char *text, const char *object, int *ret_sign, uint64_t *ret_bytes,
                        struct hv_error *e)
{
    int sign = *text == '+' ? 1 : *text == '-' ? -1 : 0;
    int r = size_at(text, text + (sign != 0), sign > 0 ? "+" : sign < 0 ? "-" : "", object, ret_bytes, e);

    if (r == 0) {
        *ret_sign = sign;
    }
    return r;
}

int parse_duration(const char *text, const char *object, uint64_t *ret_ns, struct hv_error *e)
{
    struct number n;

    if (*text == '\0') {
        return bad_value(e, object, text, "a duration is missing", "5s");
    }
    if (*text == '-') {
        return bad_value(e, object, text, "a duration cannot be negative", NULL);
    }
    if (!scan_number(text, &n)) {
        return bad_value(e, object, text, "this is no duration", "5s");
    }
    if (*n.rest == '\0') {
        if (n.whole == 0 && n.fraction == 0) {
            *ret_ns = 0;
            return 0;
        }
        return bad_value(e, object, text, "a duration needs a unit", "%ss", text);
    }
    /* case counts: M is a size */
    const struct unit *unit = find_unit(duration_units, ARRAY_SIZE(duration_units), n.rest, false);
    if (!unit) {
        return bad_value(e, object, text, "a duration is one number with ms, s, m, h or d", "%.*ss",
                         (int)(n.rest - text), text);
    }
    uint64_t ns;
    if (!scale_number(&n, unit->factor, &ns)) {
        return bad_value(e, object, text, "this duration is too long", NULL);
    }
    *ret_ns = ns;
    return 0;
}

int parse_percent(const char *text, const char *object, uint64_t *ret, struct hv_error *e)
{
    struct number n;

    if (*text == '\0') {
        return bad_value(e, object, text, "a percentage is missing", "20%%");
    }
    if (!scan_number(text, &n) || n.has_fraction || (strcmp(n.rest, "") != 0 && strcmp(n.rest, "%") != 0)) {
        return bad_value(e, object, text, "a percentage is a whole number", "20%%");
    }
    if (n.too_large) {
        return bad_value(e, object, text, "this percentage is too large", NULL);
    }
    *ret = n.whole;
    return 0;
}

int parse_uint(const char *text, const char *object, uint64_t min, uint64_t max, uint64_t *ret,
               struct hv_error *e)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *p = hex ? text + 2 : text;
    unsigned base = hex ? 16 : 10;
    bool too_large = false;
    uint64_t v = 0;
    char message[96];

    if (*text == '\0') {
        return bad_value(e, object, text, "a number is missing", NULL);
    }
    const char *digits = p;
    for (; hex ? isxdigit((unsigned char)*p) : isdigit((unsigned char)*p); p++) {
        unsigned d = isdigit((unsigned char)*p) ? (unsigned)(*p - '0') : (unsigned)(tolower(*p) - 'a') + 10;
        too_large = too_large || __builtin_mul_overflow(v, (uint64_t)base, &v) ||
                    __builtin_add_overflow(v, (uint64_t)d, &v);
    }
    /* a negative number is a number, only out of range */
    bool negative = p == digits && !hex && *p == '-' && isdigit((unsigned char)p[1]);
    if (!negative && (p == digits || *p)) {
        return bad_value(e, object, text, "a whole number is needed", NULL);
    }
    if (negative || too_large || v < min || v > max) {
        uint64_t near = negative || (!too_large && v < min) ? min : max;
        snprintf(message, sizeof(message), "must be from %llu to %llu", (unsigned long long)min,
                 (unsigned long long)max);
        return bad_value(e, object, text, message, "%llu", (unsigned long long)near);
    }
    *ret = v;
    return 0;
}

int parse_switch(const char *text, const char *object, bool *ret, struct hv_error *e)
{
    static const char *const yes[] = { "yes", "true", "1", "enable", "enabled", "On", "ON" };

    if (strcmp(text, "on") == 0 || strcmp(text, "off") == 0) {
        *ret = text[1] == 'n';
        return 0;
    }
    const char *hint = "off";
    for (unsigned i = 0; i < ARRAY_SIZE(yes); i++) {
        if (strcmp(text, yes[i]) == 0) {
            hint = "on";
        }
    }
    return bad_value(e, object, text, "must be on or off", "%s", *text ? hint : "on");
}

static const struct {
    uint64_t factor;
    char letter;
} steps[] = { { TIB << 10, 'P' }, { TIB, 'T' }, { GIB, 'G' }, { MIB, 'M' }, { KIB, 'K' }, { 1, 'B' } };

/* Tenths of a unit, rounded to the nearest, halves up. */
static uint64_t tenths(uint64_t bytes, uint64_t factor)
{
    return (uint64_t)(((u128)bytes * 10 + factor / 2) / factor);
}

static const char *put_tenths(char *buf, size_t size, uint64_t t, char letter)
{
    snprintf(buf, size, "%llu.%llu%c", (unsigned long long)(t / 10), (unsigned long long)(t % 10), letter);
    return buf;
}

/* From a gibibyte up: one decimal, and never 1024.0 of anything. */
static const char *format_large(uint64_t bytes, unsigned i, char *buf, size_t size)
{
    uint64_t t = tenths(bytes, steps[i].factor);

    if (t >= 10240 && i > 0) {
        i--;
        t = tenths(bytes, steps[i].factor);
    }
    return put_tenths(buf, size, t, steps[i].letter);
}

/*
 * Below: a whole number of the unit as it is (512M); what is not whole, from half of
 * the next unit up, in tenths of that (0.6G), else rounded (300M, 5.3M).
 */
static const char *format_small(uint64_t bytes, unsigned i, char *buf, size_t size)
{
    uint64_t f = steps[i].factor, t = tenths(bytes, f);

    if (bytes % f) {
        if (bytes >= steps[i - 1].factor / 2) {
            return put_tenths(buf, size, tenths(bytes, steps[i - 1].factor), steps[i - 1].letter);
        }
        if (t < 100) {
            return put_tenths(buf, size, t, steps[i].letter);
        }
    }
    snprintf(buf, size, "%llu%c", (unsigned long long)((t + 5) / 10), steps[i].letter);
    return buf;
}

const char *format_size(uint64_t bytes, char *buf, size_t size)
{
    unsigned i = 0;

    if (bytes == 0) {
        hv_strlcpy(buf, "0", size);
        return buf;
    }
    while (bytes < steps[i].factor) {
        i++;
    }
    return steps[i].factor >= GIB ? format_large(bytes, i, buf, size) : format_small(bytes, i, buf, size);
}

/* Does what is read of them tell what they are to each other? */
static bool comparable(uint64_t a, const char *at, uint64_t b, const char *bt)
{
    uint64_t x, y;

    if (a == b || MAX(a, b) / 16 >= MIN(a, b)) {
        return true;
    }
    if (parse_size(at, NULL, &x, NULL) < 0 || parse_size(bt, NULL, &y, NULL) < 0) {
        return false;
    }
    return (a == x && b == y) || (at[strlen(at) - 1] == bt[strlen(bt) - 1] && x != y);
}

void format_sizes(uint64_t a, char a_buf[SIZE_TEXT], uint64_t b, char b_buf[SIZE_TEXT])
{
    const uint64_t least = MIN(a, b);
    unsigned i = 0;

    format_size(a, a_buf, SIZE_TEXT);
    format_size(b, b_buf, SIZE_TEXT);
    if (comparable(a, a_buf, b, b_buf)) {
        return;
    }
    /* Whole numbers of the largest unit that both have ten of, or of the next that tells them apart. */
    while (steps[i].factor > 1 && least / 10 < steps[i].factor) {
        i++;
    }
    for (;; i++) {
        const uint64_t x = (tenths(a, steps[i].factor) + 5) / 10, y = (tenths(b, steps[i].factor) + 5) / 10;
        if (x != y || steps[i].factor == 1) {
            snprintf(a_buf, SIZE_TEXT, "%llu%c", (unsigned long long)x, steps[i].letter);
            snprintf(b_buf, SIZE_TEXT, "%llu%c", (unsigned long long)y, steps[i].letter);
            return;
        }
    }
}

const char *format_size_exact(uint64_t bytes, char *buf, size_t size)
{
    if (bytes == 0) {
        hv_strlcpy(buf, "0", size);
        return buf;
    }
    unsigned i = 0;
    while (bytes % steps[i].factor) {
        i++;
    }
    snprintf(buf, size, "%llu%c", (unsigned long long)(bytes / steps[i].factor), steps[i].letter);
    return buf;
}

const char *format_age(uint64_t seconds, char *buf, size_t size)
{
    uint64_t m = seconds / 60, h = m / 60, d = h / 24;

    if (d) {
        snprintf(buf, size, "%llud %02lluh", (unsigned long long)d, (unsigned long long)(h % 24));
    } else if (h) {
        snprintf(buf, size, "%lluh %02llum", (unsigned long long)h, (unsigned long long)(m % 60));
    } else if (m) {
        snprintf(buf, size, "%llum %02llus", (unsigned long long)m, (unsigned long long)(seconds % 60));
    } else {
        snprintf(buf, size, "%llus", (unsigned long long)seconds);
    }
    return buf;
}

const char *format_time_utc(uint64_t wall_ns, char *buf, size_t size)
{
    time_t t = (time_t)(wall_ns / NS_PER_SEC);
    struct tm tm;

    if (size == 0) {
        return buf;
    }
    buf[0] = '\0';
    if (gmtime_r(&t, &tm) && strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        buf[0] = '\0';
    }
    return buf;
}
