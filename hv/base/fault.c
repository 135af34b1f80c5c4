/* Fault injection: counters and triggers a kind, armed by tests or HV_FAULT. */
#include "hv/base/fault.h"

#include <errno.h>
#include <stdatomic.h>

_Atomic bool fault_armed;

static struct {
    _Atomic uint64_t nth, calls;
    _Atomic int err;
} state[FAULT_KIND_COUNT];

static const struct {
    const char *name;
    int err;                    /* when none is named */
} kinds[FAULT_KIND_COUNT] = {
    [FAULT_ALLOC] = { "alloc", ENOMEM }, [FAULT_READ] = { "read", EIO },
    [FAULT_WRITE] = { "write", EIO },    [FAULT_SYNC] = { "sync", EIO },
    [FAULT_OPEN] = { "open", EIO },      [FAULT_RENAME] = { "rename", EIO },
};

static const struct {
    const char *name;
    int err;
} errors[] = {
    { "EIO", EIO },       { "ENOSPC", ENOSPC }, { "ENOMEM", ENOMEM }, { "EDQUOT", EDQUOT },
    { "EACCES", EACCES }, { "EROFS", EROFS },   { "ENOENT", ENOENT }, { "EMFILE", EMFILE },
    { "EAGAIN", EAGAIN }, { "EPIPE", EPIPE },
};

void fault_arm(enum fault_kind kind, uint64_t nth, int err)
{
    bool any = false;

    hv_assert((unsigned)kind < FAULT_KIND_COUNT);
    atomic_store(&state[kind].calls, 0);
    atomic_store(&state[kind].err, err > 0 ? err : kinds[kind].err);
    atomic_store(&state[kind].nth, nth);
    for (unsigned i = 0; i < FAULT_KIND_COUNT; i++) {
        any = any || atomic_load(&state[i].nth) != 0;
    }
    atomic_store(&fault_armed, any);
}

/* One "kind=nth[:ERROR]". Anything else is a mistake in a test: say so and stop. */
static void arm_one(const char *item)
{
    for (unsigned k = 0; k < FAULT_KIND_COUNT; k++) {
        size_t n = strlen(kinds[k].name);
        if (strncmp(item, kinds[k].name, n) != 0 || item[n] != '=') {
            continue;
        }
        char *end;
        uint64_t nth = strtoull(item + n + 1, &end, 10);
        if (end == item + n + 1) {
            break;
        }
        if (*end == '\0') {
            fault_arm((enum fault_kind)k, nth, 0);
            return;
        }
        for (unsigned i = 0; *end == ':' && i < ARRAY_SIZE(errors); i++) {
            if (strcmp(end + 1, errors[i].name) == 0) {
                fault_arm((enum fault_kind)k, nth, errors[i].err);
                return;
            }
        }
        break;
    }
    fprintf(stderr, "HV_FAULT: '%s' is not KIND=N[:ERROR]\n", item);
    exit(2);
}

void fault_arm_from_environment(void)
{
    const char *text = getenv("HV_FAULT");

    if (!text || !*text) {
        return;
    }
    char copy[256], *save = NULL;
    hv_strlcpy(copy, text, sizeof(copy));
    for (char *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        arm_one(item);
    }
}

uint64_t fault_calls(enum fault_kind kind)
{
    hv_assert((unsigned)kind < FAULT_KIND_COUNT);
    return atomic_load(&state[kind].calls);
}

int fault_check_slow(enum fault_kind kind)
{
    uint64_t nth = atomic_load(&state[kind].nth);

    if (nth == 0) {
        return 0;
    }
    return atomic_fetch_add(&state[kind].calls, 1) + 1 == nth ? -atomic_load(&state[kind].err) : 0;
}
