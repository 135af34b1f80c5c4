/*
 * The few firmware-configuration items that test kernels read to learn what machine they
 * are on (QEMU's docs/specs/fw_cfg): signature, memory size, processors. There is no
 * firmware here that needs more.
 */
#ifndef HV_PLATFORM_FW_CFG_H
#define HV_PLATFORM_FW_CFG_H

#include "hv/machine/machine.h"

struct fw_cfg;

/* Claims ports 0x510 and 0x511. */
int fw_cfg_new(struct machine *m, uint64_t ram_bytes, unsigned cpus, struct fw_cfg **ret, struct hv_error *e);
void fw_cfg_free(struct fw_cfg *f);

#endif
