/*
 * Fault injection: the n-th allocation or I/O call of a kind fails. Tests arm it
 * in process, or through HV_FAULT="alloc=17" / "write=3:ENOSPC" in the environment.
 * Costs one relaxed load when not armed.
 */
#ifndef HV_BASE_FAULT_H
#define HV_BASE_FAULT_H

#include "hv/base/base.h"

enum fault_kind { FAULT_ALLOC, FAULT_READ, FAULT_WRITE, FAULT_SYNC, FAULT_OPEN, FAULT_RENAME, FAULT_KIND_COUNT };

extern _Atomic bool fault_armed;
/* The nth call from now (1 = next) fails with err (positive errno); 0 disarms. */
void fault_arm(enum fault_kind kind, uint64_t nth, int err);
void fault_arm_from_environment(void);
uint64_t fault_calls(enum fault_kind kind);        /* calls seen since arming */
int fault_check_slow(enum fault_kind kind);
/* 0, or the negative errno this call has to fail with. */
static inline int fault_check(enum fault_kind kind)
{ return HV_LIKELY(!fault_armed) ? 0 : fault_check_slow(kind); }

#endif
