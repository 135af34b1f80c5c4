/*
 * GUIDs. Microsoft stores the first three groups little-endian and the rest as
 * written (MS-DTYP 2.3.4.2), which is what struct guid holds.
 */
#include "hv/base/guid.h"

#include <errno.h>
#include <sys/random.h>

/* Byte of struct guid behind the n-th pair of digits of the text. */
static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
/* A dash precedes these pairs. */
#define DASH_BEFORE ((1u << 4) | (1u << 6) | (1u << 8) | (1u << 10))

static void (*source)(void *arg, struct guid *ret);
static void *source_arg;

void guid_set_source(void (*fn)(void *arg, struct guid *ret), void *arg)
{
    source = fn;
    source_arg = arg;
}

int guid_new(struct guid *ret)
{
    struct guid g;

    if (source) {
        source(source_arg, ret);
        return 0;
    }
    if (getrandom(g.b, sizeof(g.b), 0) != (ssize_t)sizeof(g.b)) {
        return errno ? -errno : -EIO;
    }
    g.b[7] = (uint8_t)((g.b[7] & 0x0f) | 0x40);     /* RFC 4122 4.1.3: version 4 */
    g.b[8] = (uint8_t)((g.b[8] & 0x3f) | 0x80);     /* RFC 4122 4.1.1: variant */
    *ret = g;
    return 0;
}

int guid_parse(const char *text, struct guid *ret)
{
    struct guid g;
    bool braces = *text == '{';

    text += braces;
    for (unsigned i = 0; i < 16; i++) {
        if (DASH_BEFORE >> i & 1 && *text++ != '-') {
            return -EINVAL;
        }
        int high = hv_hex_digit(text[0]), low = high < 0 ? -1 : hv_hex_digit(text[1]);
        if (low < 0) {
            return -EINVAL;
        }
        g.b[order[i]] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (braces && *text++ != '}') {
        return -EINVAL;
    }
    if (*text) {
        return -EINVAL;
    }
    *ret = g;
    return 0;
}

static const char *format(const struct guid *g, char *buf, const char *digits)
{
    char *p = buf;

    for (unsigned i = 0; i < 16; i++) {
        if (DASH_BEFORE >> i & 1) {
            *p++ = '-';
        }
        *p++ = digits[g->b[order[i]] >> 4];
        *p++ = digits[g->b[order[i]] & 15];
    }
    *p = '\0';
    return buf;
}

const char *guid_format(const struct guid *g, char buf[GUID_TEXT_SIZE])
{
    return format(g, buf, "0123456789abcdef");
}

const char *guid_format_upper(const struct guid *g, char buf[GUID_TEXT_SIZE])
{
    return format(g, buf, "0123456789ABCDEF");
}

bool guid_equal(const struct guid *a, const struct guid *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

bool guid_is_zero(const struct guid *g)
{
    return guid_equal(g, &(struct guid){ { 0 } });
}
