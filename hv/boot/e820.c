/* The boot memory map: RAM as planned, and what the PC keeps for itself below 1 MiB and 4 GiB. */
#include "hv/boot/e820.h"

#include "hv/boot/loader.h"

static void add(struct e820 *m, uint64_t addr, uint64_t end, uint32_t type)
{
    if (end > addr) {
        hv_assert(m->count < E820_MAX);
        m->entry[m->count++] = (struct e820_entry){ addr, end - addr, type };
    }
}

void e820_build(const struct layout *l, struct e820 *ret)
{
    *ret = (struct e820){ 0 };
    add(ret, 0, LOADER_EBDA, E820_RAM);
    add(ret, LOADER_EBDA, 0xA0000, E820_RESERVED);
    /* 0xA0000-0xDFFFF: VGA and option ROMs, a hole. Then our tables. */
    add(ret, LOADER_ACPI, MIB, E820_RESERVED);
    add(ret, MIB, l->low_bytes, E820_RAM);
    add(ret, LAYOUT_IOAPIC_BASE, LAYOUT_IOAPIC_BASE + LAYOUT_IOAPIC_LEN, E820_RESERVED);
    add(ret, LAYOUT_LAPIC_BASE, LAYOUT_LAPIC_BASE + LAYOUT_LAPIC_LEN, E820_RESERVED);
    add(ret, LAYOUT_FIRMWARE_BASE, LAYOUT_FIRMWARE_BASE + LAYOUT_FIRMWARE_LEN, E820_RESERVED);
    add(ret, MEM_HIGH_BASE, MEM_HIGH_BASE + l->high_bytes, E820_RAM);
}
