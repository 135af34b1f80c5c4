/*
 * PVH entry (Xen public headers, arch-x86/hvm/start_info.h; machine-platform 3.3): 32-bit
 * protected mode, paging off, EBX = hvm_start_info.
 */
#include <assert.h>

#include "hv/base/endian.h"
#include "hv/boot/loader.h"

#define START_INFO_MAGIC 0x336EC578u
#define MEMMAP_LEN       24

#define CR0_FLAT ((uint64_t)0x11)   /* ET, PE */

/* One page: the structure, its one module, its map. */
#define MODULE_OFF 0x40
#define MEMMAP_OFF 0x80
static_assert(MEMMAP_OFF + E820_MAX * MEMMAP_LEN <= HV_PAGE_SIZE, "start info keeps within its page");

int pvh_enter(struct mem *m, const struct loaded *l, struct boot_entry *ret)
{
    uint8_t page[MEMMAP_OFF + E820_MAX * MEMMAP_LEN] = { 0 };
    struct boot_entry en = {
        .mode = BOOT_MODE_FLAT32,
        .rip = l->kernel->entry,
        .rbx = LOADER_PVH,
        .rflags = 2,
        .cr0 = CR0_FLAT,
    };
    int r;

    put_le32(page, START_INFO_MAGIC);
    put_le32(page + 4, 1);                                  /* version 1: has the map */
    if (l->initrd_len) {
        put_le32(page + 12, 1);
        put_le64(page + 16, LOADER_PVH + MODULE_OFF);
        put_le64(page + MODULE_OFF, l->initrd);
        put_le64(page + MODULE_OFF + 8, l->initrd_len);
    }
    put_le64(page + 24, LOADER_CMDLINE);
    put_le64(page + 32, l->rsdp);
    put_le64(page + 40, LOADER_PVH + MEMMAP_OFF);
    put_le32(page + 48, l->e820->count);
    for (unsigned i = 0; i < l->e820->count; i++) {
        uint8_t *p = page + MEMMAP_OFF + i * MEMMAP_LEN;
        put_le64(p, l->e820->entry[i].addr);
        put_le64(p + 8, l->e820->entry[i].len);
        put_le32(p + 16, l->e820->entry[i].type);
    }
    if ((r = mem_write(m, LOADER_PVH, page, sizeof(page))) < 0 ||
        (r = loader_segments(m, false, &en)) < 0) {
        return r;
    }
    *ret = en;
    return 0;
}
