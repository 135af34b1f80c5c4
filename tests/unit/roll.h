/* Random numbers that are the same in every run (xorshift), unless HV_SEED says otherwise. */
#ifndef TESTS_UNIT_ROLL_H
#define TESTS_UNIT_ROLL_H

#include <stdlib.h>

#include "hv/base/base.h"

static uint64_t roll_seed = 88172645463325252u;

/* HV_SEED chooses other loads than the one of every run. */
static HV_UNUSED void seed_from_environment(void)
{
    const char *text = getenv("HV_SEED");

    if (text) {
        roll_seed ^= strtoull(text, NULL, 10) * 0x9e3779b97f4a7c15u;
    }
}

/* 0 .. n-1, n > 0 */
static HV_UNUSED uint64_t roll(uint64_t n)
{
    roll_seed ^= roll_seed << 13;
    roll_seed ^= roll_seed >> 7;
    roll_seed ^= roll_seed << 17;
    return (roll_seed >> 8) % n;
}

#endif
