/* What create and convert share: the options that say what a new disk is to be. */
#ifndef VHDTOOL_CMD_CREATE_H
#define VHDTOOL_CMD_CREATE_H

#include "hv/cli/call.h"
#include "hv/disk/disk.h"

/* From --size (else default_size), --type, --block-size, the sector sizes, --azure, --format or
 * the suffix of path. 0 or -EINVAL. */
int create_request(const struct cli_call *c, const char *path, uint64_t default_size, struct disk_create *ret,
                   struct hv_error *e);

#endif
