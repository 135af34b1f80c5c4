/*
 * What went wrong, in the one form that a person, a script and a log all read
 * (specs/operator-surface, "Exit codes" and "Errors"). Functions return 0 or a
 * negative errno; the sentence travels beside it, filled where the reason is known.
 */
#ifndef HV_BASE_ERROR_H
#define HV_BASE_ERROR_H

#include "hv/base/base.h"

/* code: exit status, word in JSON and varlink, errno that functions return with it. */
#define HV_CODES(X)                          \
    X(OK,            0, "ok",           0)            \
    X(FAILED,        1, "failed",       EIO)          \
    X(USAGE,         2, "usage",        EINVAL)       \
    X(NOT_FOUND,     3, "not-found",    ENOENT)       \
    X(CONFLICT,      4, "conflict",     EBUSY)        \
    X(DENIED,        5, "denied",       EACCES)       \
    X(UNREACHABLE,   6, "unreachable",  ECONNREFUSED) \
    X(TIMEOUT,       7, "timeout",      ETIMEDOUT)    \
    X(NO_RESOURCES,  8, "no-resources", ENOMEM)       \
    X(UNSUPPORTED,   9, "unsupported",  EOPNOTSUPP)   \
    X(PARTIAL,      10, "partial",      EIO)          \
    X(DIFFERS,      11, "differs",      EIO)

enum hv_code {
#define HV_CODE_ENUM(name, exit, word, err) HV_##name = exit,
    HV_CODES(HV_CODE_ENUM)
#undef HV_CODE_ENUM
    HV_CODE_COUNT
};

struct hv_error {
    enum hv_code code;
    char object[160];   /* what it is about: a VM's name, a path, an option; may be empty */
    char message[480];  /* one sentence, values as the user wrote them, no full stop */
    char hint[320];     /* what to try; may be empty */
};

/*
 * Fill e (which may be NULL) and return the negative errno of code, so that
 * callers write `return hv_fail(e, HV_NOT_FOUND, name, "no such VM");`.
 * Overwrites what e held. object may be NULL.
 */
int hv_fail(struct hv_error *e, enum hv_code code, const char *object, const char *fmt, ...)
    HV_PRINTF(4, 5);

/* The same for a failed system call: "fmt: strerror(err)"; the code follows from err (positive). */
int hv_fail_errno(struct hv_error *e, int err, const char *object, const char *fmt, ...)
    HV_PRINTF(4, 5);

/* Add the hint to an error already filled; no-op on NULL. */
void hv_hint(struct hv_error *e, const char *fmt, ...) HV_PRINTF(2, 3);

bool hv_error_is_set(const struct hv_error *e);
void hv_error_clear(struct hv_error *e);

/* "no-resources" and back; hv_code_from_word gives HV_FAILED for an unknown word. */
const char *hv_code_word(enum hv_code code);
enum hv_code hv_code_from_word(const char *word);
enum hv_code hv_code_from_errno(int err);

#endif
