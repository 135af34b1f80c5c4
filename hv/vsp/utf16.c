/* Text between UTF-8 and UTF-16LE; hostile bytes become U+FFFD, one each. */
#include "hv/vsp/utf16.h"

#include "hv/base/endian.h"

#define REPLACEMENT 0xFFFDu

/* One code point from *p; moves it on. */
static uint32_t utf8_next(const char **p)
{
    const uint8_t *s = (const uint8_t *)*p;
    uint32_t c = s[0], min;
    unsigned more;
    *p += 1;
    if (c < 0x80)
        return c;
    if (c >= 0xC2 && c <= 0xDF) {
        more = 1, c &= 0x1F, min = 0x80;
    } else if ((c & 0xF0) == 0xE0) {
        more = 2, c &= 0x0F, min = 0x800;
    } else if (c >= 0xF0 && c <= 0xF4) {
        more = 3, c &= 0x07, min = 0x10000;
    } else {
        return REPLACEMENT;
    }
    for (unsigned i = 1; i <= more; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return REPLACEMENT;         /* the terminator ends here too */
        c = c << 6 | (s[i] & 0x3F);
    }
    if (c < min || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return REPLACEMENT;
    *p += more;
    return c;
}

uint32_t utf16_from_utf8(const char *text, void *out, uint32_t size)
{
    uint8_t *o = out;
    uint32_t at = 0;
    hv_assert(size >= 2 && size % 2 == 0);
    while (*text) {
        uint32_t c = utf8_next(&text), need = c >= 0x10000 ? 4 : 2;
        if (at + need + 2 > size)
            break;
        if (need == 4) {
            put_le16(o + at, (uint16_t)(0xD800 + ((c - 0x10000) >> 10)));
            put_le16(o + at + 2, (uint16_t)(0xDC00 + ((c - 0x10000) & 0x3FF)));
        } else {
            put_le16(o + at, (uint16_t)c);
        }
        at += need;
    }
    put_le16(o + at, 0);
    return at + 2;
}

void utf16_to_utf8(const void *in, uint32_t len, char *out, size_t size)
{
    const uint8_t *s = in;
    size_t at = 0;
    hv_assert(size > 0);
    for (uint32_t i = 0; i + 1 < len; i += 2) {
        uint32_t c = get_le16(s + i);
        uint8_t b[4];
        unsigned n;
        if (!c)
            break;
        if (c >= 0xD800 && c <= 0xDBFF && i + 3 < len && (get_le16(s + i + 2) & 0xFC00) == 0xDC00) {
            c = 0x10000 + ((c - 0xD800) << 10) + (get_le16(s + i + 2) & 0x3FFu);
            i += 2;
        } else if (c >= 0xD800 && c <= 0xDFFF) {
            c = REPLACEMENT;
        }
        if (c < 0x80) {
            b[0] = (uint8_t)c, n = 1;
        } else if (c < 0x800) {
            b[0] = (uint8_t)(0xC0 | c >> 6), b[1] = (uint8_t)(0x80 | (c & 0x3F)), n = 2;
        } else if (c < 0x10000) {
            b[0] = (uint8_t)(0xE0 | c >> 12), b[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
            b[2] = (uint8_t)(0x80 | (c & 0x3F)), n = 3;
        } else {
            b[0] = (uint8_t)(0xF0 | c >> 18), b[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
            b[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F)), b[3] = (uint8_t)(0x80 | (c & 0x3F)), n = 4;
        }
        if (at + n >= size)
            break;
        memcpy(out + at, b, n);
        at += n;
    }
    out[at] = 0;
}
