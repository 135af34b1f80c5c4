/* Block devices as targets: what one is, who uses it, and that it is nobody. */
#ifndef VHDTOOL_DEVICE_H
#define VHDTOOL_DEVICE_H

#include "vhdtool/vhdtool.h"

struct device {
    char model[128];             /* "Samsung SSD 860", "/srv/x.img (loop)"; "unknown" */
    uint64_t size;
    uint32_t sector;             /* logical, bytes */
};

bool device_is(const char *path);
/*
 * Open path for writing, exclusively: the kernel lets nobody mount it meanwhile. -EBUSY with where it
 * is mounted, or what else uses it.
 */
int device_open(const char *path, struct device *ret, int *ret_fd, struct hv_error *e);
/* Have the kernel read the partition table again. Best effort. */
void device_reread(int fd);

#endif
