/*
 * Where things lie in a guest's physical address space (DESIGN 5), planned once when
 * the VM starts and the same for every consumer: RAM, e820, the DSDT's windows, the
 * range that dynamic memory may hot-add into, SMBIOS.
 *
 *   0            low RAM                      low_bytes (at most MEM_LOW_TOP)
 *   0xF8000000   low MMIO window of VMBus     128 MiB less the interrupt controllers
 *   0xFEC00000   IOAPIC, LAPIC, BIOS image
 *   4 GiB        boot RAM                     high_bytes
 *   hot_add_base hot-add range (address space only, nothing allocated)
 *   mmio_high_*  high MMIO window of VMBus    the top 64 GiB below 2^phys_bits
 */
#ifndef HV_BOOT_LAYOUT_H
#define HV_BOOT_LAYOUT_H

#include "hv/base/error.h"
#include "hv/memory/memory.h"

/* hyperv-guest-abi 4.1: windows lie below the TPM's place at 0xFED40000, where Linux would cut them. */
#define LAYOUT_MMIO_LOW_BASE ((gpa_t)0xF8000000)
#define LAYOUT_MMIO_LOW_LEN  ((uint64_t)0x06C00000)   /* up to the IOAPIC */
#define LAYOUT_MMIO_HIGH_LEN (64 * GIB)

#define LAYOUT_IOAPIC_BASE ((gpa_t)0xFEC00000)
#define LAYOUT_IOAPIC_LEN  ((uint64_t)0x1000)
#define LAYOUT_LAPIC_BASE  ((gpa_t)0xFEE00000)
#define LAYOUT_LAPIC_LEN   ((uint64_t)0x100000)
/* KVM's identity-map page and TSS pages on older Intel hosts, then the BIOS image. */
#define LAYOUT_FIRMWARE_BASE ((gpa_t)0xFFFBC000)
#define LAYOUT_FIRMWARE_LEN  ((uint64_t)0x44000)

/* Granule of hv_balloon's hot-add, and the memory block size Linux has to keep (guest-abi 6.1.8). */
#define LAYOUT_HOT_ADD_ALIGN (128 * MIB)

struct layout {
    unsigned phys_bits;
    uint64_t ram_bytes;                       /* low_bytes + high_bytes: exactly what was asked for */
    uint64_t low_bytes;                       /* RAM at 0 */
    uint64_t high_bytes;                      /* RAM at MEM_HIGH_BASE; may be 0 */
    gpa_t hot_add_base, hot_add_top;          /* multiples of LAYOUT_HOT_ADD_ALIGN; equal: none */
    gpa_t mmio_low_base, mmio_high_base;
    uint64_t mmio_low_len, mmio_high_len;
};

/*
 * Plan the address space of a VM.
 *
 * ram_bytes   boot RAM; a multiple of a page, at least 1 MiB
 * max_bytes   the Maximum of Dynamic Memory; ram_bytes or less for a static VM
 * phys_bits   physical address width that the guest's CPUID shows, 36..52
 *
 * Where boot RAM would end at 64 GiB or above, Linux sizes its memory blocks by that
 * end and hot-add only works with 128 MiB blocks, so the end is then put on an odd
 * multiple of 128 MiB: low RAM gives up less than 256 MiB for it, the sum stays.
 *
 * 0, or HV_UNSUPPORTED when the RAM does not fit below the high window.
 */
int layout_plan(uint64_t ram_bytes, uint64_t max_bytes, unsigned phys_bits, struct layout *ret,
                struct hv_error *e);

#endif
