/*
 * Filling struct hv_error and translating between its codes, their words and errno.
 *
 * The texts reach terminals, logs and JSON, and parts of them come from users,
 * guests and files: control characters and broken UTF-8 become '?' here, once.
 */
#include "hv/base/error.h"

#include <errno.h>
#include <stdarg.h>

static const struct code_row {
    const char *word;
    int err;
} code_table[HV_CODE_COUNT] = {
#define HV_CODE_ROW(name, exit, text, number) [HV_##name] = { .word = text, .err = number },
    HV_CODES(HV_CODE_ROW)
#undef HV_CODE_ROW
};

/* Length of the well-formed UTF-8 sequence at p (RFC 3629), 0 if there is none. p ends with NUL. */
static size_t utf8_len(const unsigned char *p)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    /* overlong forms, surrogates, beyond U+10FFFF; C1 controls are refused as C0 are */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f) ||
        (p[0] == 0xc2 && p[1] < 0xa0)) {
        return 0;
    }
    return n;
}

static void clean_text(char *s)
{
    unsigned char *p = (unsigned char *)s;

    while (*p) {
        size_t n = utf8_len(p);
        /* a sequence cut by the end of the buffer: drop the rest rather than show '?' */
        if (n == 0 && *p >= 0xc2 && strlen((char *)p) < 4) {
            size_t left = strlen((char *)p), i = 1;
            while (i < left && (p[i] & 0xc0) == 0x80) {
                i++;
            }
            if (i == left) {
                *p = '\0';
                return;
            }
        }
        if (n == 0 || *p < 0x20 || *p == 0x7f) {
            *p++ = '?';
        } else {
            p += n;
        }
    }
}

static void set_object(struct hv_error *e, enum hv_code code, const char *object)
{
    e->code = code;
    hv_strlcpy(e->object, object ? object : "", sizeof(e->object));
    clean_text(e->object);
    e->hint[0] = '\0';
}

int hv_fail(struct hv_error *e, enum hv_code code, const char *object, const char *fmt, ...)
{
    /* HV_OK would make a failure look like success: our own bug */
    hv_assert(code > HV_OK && code < HV_CODE_COUNT);
    if (e) {
        /* arguments may point into e itself: format first */
        char message[sizeof(e->message)];
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(message, sizeof(message), fmt, ap);
        va_end(ap);
        clean_text(message);
        if (object != e->object) {
            set_object(e, code, object);
        } else {
            e->code = code;
            e->hint[0] = '\0';
        }
        memcpy(e->message, message, sizeof(message));
    }
    return -code_table[code].err;
}

int hv_fail_errno(struct hv_error *e, int err, const char *object, const char *fmt, ...)
{
    if (err <= 0) {
        err = EIO;
    }
    if (e) {
        char what[sizeof(e->message)], why[128];
        va_list ap;
        /* EINVAL from the kernel is not the operator's bad value */
        enum hv_code code = err == EINVAL ? HV_FAILED : hv_code_from_errno(err);

        va_start(ap, fmt);
        vsnprintf(what, sizeof(what), fmt, ap);
        va_end(ap);
        hv_fail(e, code, object, "%s: %s", what, strerror_r(err, why, sizeof(why)));
    }
    return -err;
}

void hv_hint(struct hv_error *e, const char *fmt, ...)
{
    va_list ap;

    if (!e) {
        return;
    }
    char hint[sizeof(e->hint)];
    va_start(ap, fmt);
    vsnprintf(hint, sizeof(hint), fmt, ap);
    va_end(ap);
    clean_text(hint);
    memcpy(e->hint, hint, sizeof(hint));
}

bool hv_error_is_set(const struct hv_error *e)
{
    return e && e->code != HV_OK;
}

void hv_error_clear(struct hv_error *e)
{
    if (e) {
        *e = (struct hv_error){ .code = HV_OK };
    }
}

const char *hv_code_word(enum hv_code code)
{
    return (unsigned)code < HV_CODE_COUNT ? code_table[code].word : code_table[HV_FAILED].word;
}

enum hv_code hv_code_from_word(const char *word)
{
    for (unsigned i = 0; word && i < HV_CODE_COUNT; i++) {
        if (strcmp(word, code_table[i].word) == 0) {
            return (enum hv_code)i;
        }
    }
    return HV_FAILED;
}

enum hv_code hv_code_from_errno(int err)
{
    static const struct {
        int err;
        enum hv_code code;
    } map[] = {
        { 0, HV_OK },
        { EINVAL, HV_USAGE },
        { ENOENT, HV_NOT_FOUND },       { ENOTDIR, HV_NOT_FOUND },     { ENODEV, HV_NOT_FOUND },
        { ENXIO, HV_NOT_FOUND },        { ESRCH, HV_NOT_FOUND },
        { EEXIST, HV_CONFLICT },        { EBUSY, HV_CONFLICT },        { ETXTBSY, HV_CONFLICT },
        { ENOTEMPTY, HV_CONFLICT },     { EADDRINUSE, HV_CONFLICT },   { EALREADY, HV_CONFLICT },
        { EACCES, HV_DENIED },          { EPERM, HV_DENIED },          { EROFS, HV_DENIED },
        { ECONNREFUSED, HV_UNREACHABLE }, { ECONNRESET, HV_UNREACHABLE }, { EPIPE, HV_UNREACHABLE },
        { ENOTCONN, HV_UNREACHABLE },   { EHOSTUNREACH, HV_UNREACHABLE }, { ENETUNREACH, HV_UNREACHABLE },
        { ETIMEDOUT, HV_TIMEOUT },      { ETIME, HV_TIMEOUT },
        { ENOMEM, HV_NO_RESOURCES },    { ENOSPC, HV_NO_RESOURCES },   { EDQUOT, HV_NO_RESOURCES },
        { EMFILE, HV_NO_RESOURCES },    { ENFILE, HV_NO_RESOURCES },   { EAGAIN, HV_NO_RESOURCES },
        { EOPNOTSUPP, HV_UNSUPPORTED }, { ENOSYS, HV_UNSUPPORTED },    { ENOTTY, HV_UNSUPPORTED },
        { EPROTONOSUPPORT, HV_UNSUPPORTED },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(map); i++) {
        if (map[i].err == err) {
            return map[i].code;
        }
    }
    return HV_FAILED;
}
