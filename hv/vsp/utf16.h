/* UTF-8 and UTF-16LE, as the integration services carry text. */
#ifndef HV_VSP_UTF16_H
#define HV_VSP_UTF16_H

#include "hv/base/base.h"

/*
 * text to out[size] with a terminator, cut at a character that does not fit; what is no
 * UTF-8 becomes U+FFFD. Returns the bytes written, terminator included; out[size] is
 * not touched beyond them. size is even and at least 2.
 */
uint32_t utf16_from_utf8(const char *text, void *out, uint32_t size);
/*
 * in[len] up to its terminator or end, to out[size], always terminated and cut at a
 * character that does not fit. What is no UTF-16 becomes U+FFFD.
 */
void utf16_to_utf8(const void *in, uint32_t len, char *out, size_t size);

#endif
