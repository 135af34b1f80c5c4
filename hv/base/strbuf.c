/* A growing byte string. The first failure sticks in err and later calls do nothing. */
#include "hv/base/strbuf.h"

#include <errno.h>

/* Room for len more bytes and the NUL. */
static bool reserve(struct strbuf *sb, size_t len)
{
    size_t need, cap = sb->cap ? sb->cap : 64;

    if (sb->err) {
        return false;
    }
    if (__builtin_add_overflow(sb->len, len, &need) || __builtin_add_overflow(need, (size_t)1, &need)) {
        sb->err = ENOMEM;
        return false;
    }
    if (need <= sb->cap) {
        return true;
    }
    while (cap < need) {
        if (__builtin_mul_overflow(cap, (size_t)2, &cap)) {
            cap = need;
        }
    }
    char *p = hv_realloc_array(sb->buf, cap, 1);
    if (!p) {
        sb->err = ENOMEM;
        return false;
    }
    sb->buf = p;
    sb->cap = cap;
    return true;
}

void strbuf_fini(struct strbuf *sb)
{
    if (sb) {
        free(sb->buf);
        *sb = (struct strbuf){ 0 };
    }
}

void strbuf_reset(struct strbuf *sb)
{
    sb->len = 0;
    sb->err = 0;
    if (sb->buf) {
        sb->buf[0] = '\0';
    }
}

void strbuf_add(struct strbuf *sb, const void *p, size_t len)
{
    if (reserve(sb, len)) {
        if (len) {
            memcpy(sb->buf + sb->len, p, len);
        }
        sb->len += len;
        sb->buf[sb->len] = '\0';
    }
}

void strbuf_adds(struct strbuf *sb, const char *s)
{
    strbuf_add(sb, s, strlen(s));
}

void strbuf_addc(struct strbuf *sb, char c)
{
    strbuf_add(sb, &c, 1);
}

void strbuf_addf(struct strbuf *sb, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    strbuf_vaddf(sb, fmt, ap);
    va_end(ap);
}

void strbuf_vaddf(struct strbuf *sb, const char *fmt, va_list ap)
{
    va_list again;

    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        sb->err = sb->err ? sb->err : EINVAL;
    } else if (reserve(sb, (size_t)n)) {
        vsnprintf(sb->buf + sb->len, (size_t)n + 1, fmt, ap);
        sb->len += (size_t)n;
    }
}

void strbuf_consume(struct strbuf *sb, size_t len)
{
    hv_assert(len <= sb->len);
    if (len) {
        memmove(sb->buf, sb->buf + len, sb->len - len + 1);
        sb->len -= len;
    }
}

char *strbuf_detach(struct strbuf *sb, size_t *ret_len)
{
    char *p = NULL;

    if (!sb->err && (sb->buf || reserve(sb, 0))) {
        sb->buf[sb->len] = '\0';
        if (ret_len) {
            *ret_len = sb->len;
        }
        p = hv_steal(sb->buf);
    }
    strbuf_fini(sb);
    return p;
}
