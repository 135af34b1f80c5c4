/* The time service: the host's time of day, to be stepped to at start and resume, sampled later. guest-abi 6.4.4. */
#ifndef HV_VSP_TIMESYNC_H
#define HV_VSP_TIMESYNC_H

#include "hv/vmbus/vmbus.h"

struct timesync;
struct ic;

/* reference: the partition's reference time now, in 100 ns units: what the guest measures the way with. */
int timesync_new(struct vmbus *bus, uint64_t (*reference)(void *arg), void *arg, struct timesync **ret,
                 struct hv_error *e);
void timesync_free(struct timesync *t);
struct ic *timesync_ic(struct timesync *s);
bool timesync_ready(const struct timesync *t);
uint64_t timesync_count(const struct timesync *t);        /* samples the guest has taken */

#endif
