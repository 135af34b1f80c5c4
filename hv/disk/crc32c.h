/* CRC-32C (Castagnoli; reflected 0x82F63B78, initial value and final xor all ones): VHDX's. */
#ifndef HV_DISK_CRC32C_H
#define HV_DISK_CRC32C_H

#include "hv/base/base.h"

/*
 * Continue crc over buf[len]; 0 starts. crc32c(crc32c(0, a, n), b, m) is that of both
 * after each other. Any thread. SSE4.2 where the processor has it.
 */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);
/* The same without the processor's help. For tests. */
uint32_t crc32c_table(uint32_t crc, const void *buf, size_t len);

#endif
