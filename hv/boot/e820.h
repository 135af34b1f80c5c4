/* The memory map a guest is told at boot (machine-platform 2). Private to hv/boot. */
#ifndef HV_BOOT_E820_H
#define HV_BOOT_E820_H

#include "hv/base/base.h"
#include "hv/boot/layout.h"

enum { E820_RAM = 1, E820_RESERVED = 2 };

#define E820_MAX 16   /* boot_params holds 128; ours has 8 */

struct e820 {
    unsigned count;
    struct e820_entry { uint64_t addr, len; uint32_t type; } entry[E820_MAX];
};

/* Sorted, without overlaps; what is not listed is a hole. */
void e820_build(const struct layout *l, struct e820 *ret);

#endif
