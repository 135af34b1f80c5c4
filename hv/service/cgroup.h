/* Limits of memory that the service's control groups set: in a container, or a slice of systemd's. */
#ifndef HV_SERVICE_CGROUP_H
#define HV_SERVICE_CGROUP_H

#include "hv/base/base.h"

struct cgroup_memory {
    uint64_t limit;              /* bytes; UINT64_MAX: none */
    uint64_t available;          /* of them, page cache that can go counted as such; UINT64_MAX: no limit */
};

/*
 * The tightest of all groups from the process' own up to the top.
 *
 * membership   text of /proc/self/cgroup
 * mount        where the hierarchies are mounted, /sys/fs/cgroup
 *
 * Version 2 alone, version 1, and both beside each other (cgroups(7)). What cannot be read sets no limit.
 */
struct cgroup_memory cgroup_memory(const char *membership, const char *mount);

#endif
