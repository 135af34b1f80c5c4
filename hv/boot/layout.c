/* The plan of a guest's physical address space; picture in layout.h, rules in DESIGN 5. */
#include "hv/boot/layout.h"

#include <assert.h>
#include <errno.h>

#include "hv/base/units.h"

/* From this much boot RAM on its end matters: 60 GiB of RAM end at 60.5 GiB, safely below Linux' 64 GiB. */
#define ODD_END_FROM (60 * GIB)

static_assert(LAYOUT_MMIO_LOW_BASE >= MEM_LOW_TOP, "low RAM must end below the low window");
static_assert(LAYOUT_MMIO_LOW_BASE + LAYOUT_MMIO_LOW_LEN == LAYOUT_IOAPIC_BASE,
              "the low window ends at the IOAPIC");
static_assert(LAYOUT_FIRMWARE_BASE + LAYOUT_FIRMWARE_LEN == MEM_HIGH_BASE, "up to 4 GiB");

int layout_plan(uint64_t ram_bytes, uint64_t max_bytes, unsigned phys_bits, struct layout *ret,
                struct hv_error *e)
{
    hv_assert(ram_bytes >= MIB && ram_bytes % HV_PAGE_SIZE == 0);
    hv_assert(phys_bits >= 36 && phys_bits <= 52);

    uint64_t space = (uint64_t)1 << phys_bits;
    /* A CPU of 36 bits has no 64 GiB to spare; a quarter serves a frame buffer as well. */
    uint64_t window = MIN(LAYOUT_MMIO_HIGH_LEN, space / 4);
    gpa_t window_base = space - window;
    char want[24], room[24];

    uint64_t low = MIN(ram_bytes, MEM_LOW_TOP);
    uint64_t high = ram_bytes - low;
    if (ram_bytes > ODD_END_FROM && ram_bytes < space) {
        gpa_t end = MEM_HIGH_BASE + high;
        gpa_t odd = ROUND_UP(end, LAYOUT_HOT_ADD_ALIGN);
        if (odd / LAYOUT_HOT_ADD_ALIGN % 2 == 0) {
            odd += LAYOUT_HOT_ADD_ALIGN;
        }
        low -= odd - end;
        high += odd - end;
    }
    if (high > 0 && (high > space || MEM_HIGH_BASE + high > window_base)) {
        hv_fail(e, HV_UNSUPPORTED, "memory",
                "%s of memory do not fit into the CPU's %u-bit physical address space",
                format_size_exact(ram_bytes, want, sizeof(want)), phys_bits);
        uint64_t most = window_base - MEM_HIGH_BASE + MEM_LOW_TOP;
        most -= most > ODD_END_FROM ? LAYOUT_HOT_ADD_ALIGN : 0;   /* the window starts at an even multiple */
        hv_hint(e, "at most %s", format_size_exact(most, room, sizeof(room)));
        return -EOPNOTSUPP;
    }

    /* The range holds Maximum bytes beside the hole below 4 GiB, and is generous to static VMs. */
    gpa_t base = ROUND_UP(MEM_HIGH_BASE + high, LAYOUT_HOT_ADD_ALIGN);
    uint64_t most = MIN(MAX(max_bytes, ram_bytes), space);
    gpa_t top = MAX(ROUND_UP(most + (MEM_HIGH_BASE - low), LAYOUT_HOT_ADD_ALIGN), TIB);
    top = ROUND_DOWN(MIN(top, window_base), LAYOUT_HOT_ADD_ALIGN);
    top = MAX(top, base);

    *ret = (struct layout){
        .phys_bits = phys_bits,
        .ram_bytes = ram_bytes,
        .low_bytes = low,
        .high_bytes = high,
        .hot_add_base = base,
        .hot_add_top = top,
        .mmio_low_base = LAYOUT_MMIO_LOW_BASE,
        .mmio_low_len = LAYOUT_MMIO_LOW_LEN,
        .mmio_high_base = window_base,
        .mmio_high_len = window,
    };
    return 0;
}
