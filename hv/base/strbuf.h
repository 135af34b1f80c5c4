/* A growing byte string that is always NUL-terminated. Errors stick: check once at the end. */
#ifndef HV_BASE_STRBUF_H
#define HV_BASE_STRBUF_H

#include <stdarg.h>

#include "hv/base/base.h"

struct strbuf { char *buf; size_t len, cap; int err; };   /* {0} is an empty one */

void strbuf_fini(struct strbuf *sb);
void strbuf_reset(struct strbuf *sb);
void strbuf_add(struct strbuf *sb, const void *p, size_t len);
void strbuf_adds(struct strbuf *sb, const char *s);
void strbuf_addc(struct strbuf *sb, char c);
void strbuf_addf(struct strbuf *sb, const char *fmt, ...) HV_PRINTF(2, 3);
void strbuf_vaddf(struct strbuf *sb, const char *fmt, va_list ap) HV_PRINTF(2, 0);
void strbuf_consume(struct strbuf *sb, size_t len);       /* drop len bytes from the front */
/* Hands out the buffer ("" if empty) and empties sb; NULL if an allocation had failed. Free with free(). */
char *strbuf_detach(struct strbuf *sb, size_t *ret_len);
#define strbuf_auto hv_cleanup(strbuf_fini) struct strbuf

#endif
