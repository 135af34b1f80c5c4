/*
 * Linux' 64-bit and 32-bit boot protocols (Documentation/arch/x86/boot.rst, the sections of these names;
 * boot_params: Documentation/arch/x86/zero-page.rst, offsets also in machine-platform 3.2).
 */
#include "hv/base/endian.h"
#include "hv/boot/loader.h"

#define BOOT_PARAMS_LEN 4096

/* Offsets in boot_params. */
enum {
    ACPI_RSDP_ADDR = 0x070, EXT_RAMDISK_IMAGE = 0x0C0, EXT_RAMDISK_SIZE = 0x0C4, EXT_CMD_LINE_PTR = 0x0C8,
    E820_ENTRIES = 0x1E8, VID_MODE = 0x1FA, BOOT_FLAG = 0x1FE, HEADER = 0x202, VERSION = 0x206,
    TYPE_OF_LOADER = 0x210, LOADFLAGS = 0x211, CODE32_START = 0x214, RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21C, CMD_LINE_PTR = 0x228, CMDLINE_SIZE = 0x238, SETUP_DATA = 0x250, E820_TABLE = 0x2D0,
};
#define E820_ENTRY_LEN 20

/* loadflags */
#define LOADED_HIGH  0x01
#define KASLR_FLAG   0x02
#define CAN_USE_HEAP 0x80

#define CR0_FLAT ((uint64_t)0x11)         /* ET, PE */
#define CR0_LONG ((uint64_t)0x80000011)   /* PG, ET, PE */
#define CR4_PAE  ((uint64_t)0x20)
#define EFER_LONG ((uint64_t)0x500)       /* LME, LMA */

#define PTE_TABLE ((uint64_t)0x03)        /* present, writable */
#define PTE_2M    ((uint64_t)0x83)

static int write_boot_params(struct mem *m, const struct loaded *l)
{
    uint8_t bp[BOOT_PARAMS_LEN] = { 0 };

    memcpy(bp + SETUP_HEADER_OFF, l->kernel->header, SETUP_HEADER_MAX);
    /* For an ELF file without a setup header these make one; for the others they change nothing. */
    put_le16(bp + BOOT_FLAG, 0xAA55);
    memcpy(bp + HEADER, "HdrS", 4);
    if (get_le16(bp + VERSION) == 0) {
        put_le16(bp + VERSION, 0x020F);
        put_le32(bp + CMDLINE_SIZE, l->kernel->cmdline_max);
    }
    put_le16(bp + VID_MODE, 0xFFFF);      /* "normal" */
    bp[TYPE_OF_LOADER] = 0xFF;
    /* Nobody has moved the kernel, so it must not take KASLR for done; no heap: no setup code runs. */
    bp[LOADFLAGS] = (uint8_t)((bp[LOADFLAGS] | LOADED_HIGH) & ~(KASLR_FLAG | CAN_USE_HEAP));
    put_le32(bp + CODE32_START, (uint32_t)l->kernel->base);
    put_le64(bp + SETUP_DATA, 0);

    put_le32(bp + RAMDISK_IMAGE, (uint32_t)l->initrd);
    put_le32(bp + RAMDISK_SIZE, (uint32_t)l->initrd_len);
    put_le32(bp + EXT_RAMDISK_IMAGE, (uint32_t)(l->initrd >> 32));
    put_le32(bp + EXT_RAMDISK_SIZE, (uint32_t)(l->initrd_len >> 32));
    put_le32(bp + CMD_LINE_PTR, (uint32_t)LOADER_CMDLINE);
    put_le32(bp + EXT_CMD_LINE_PTR, 0);
    put_le64(bp + ACPI_RSDP_ADDR, l->rsdp);

    bp[E820_ENTRIES] = (uint8_t)l->e820->count;
    for (unsigned i = 0; i < l->e820->count; i++) {
        uint8_t *p = bp + E820_TABLE + i * E820_ENTRY_LEN;
        put_le64(p, l->e820->entry[i].addr);
        put_le64(p + 8, l->e820->entry[i].len);
        put_le32(p + 16, l->e820->entry[i].type);
    }
    return mem_write(m, LOADER_BOOT_PARAMS, bp, sizeof(bp));
}

/* Identity map of the first 4 GiB with 2 MiB pages. */
static int write_page_tables(struct mem *m)
{
    uint8_t table[HV_PAGE_SIZE] = { 0 };
    gpa_t pdpt = LOADER_PAGE_TABLES + HV_PAGE_SIZE, pd = pdpt + HV_PAGE_SIZE;

    put_le64(table, pdpt | PTE_TABLE);
    int r = mem_write(m, LOADER_PAGE_TABLES, table, sizeof(table));
    if (r < 0) {
        return r;
    }
    for (unsigned i = 0; i < 4; i++) {
        put_le64(table + i * 8, (pd + i * HV_PAGE_SIZE) | PTE_TABLE);
    }
    if ((r = mem_write(m, pdpt, table, sizeof(table))) < 0) {
        return r;
    }
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned k = 0; k < 512; k++) {
            put_le64(table + k * 8, (i * GIB + k * (2 * MIB)) | PTE_2M);
        }
        if ((r = mem_write(m, pd + i * HV_PAGE_SIZE, table, sizeof(table))) < 0) {
            return r;
        }
    }
    return 0;
}

int linux_enter(struct mem *m, const struct loaded *l, struct boot_entry *ret)
{
    const bool is_64bit = l->kernel->entry_kind == KERNEL_ENTRY_LINUX64;
    struct boot_entry en = is_64bit ? (struct boot_entry){
        .mode = BOOT_MODE_LONG64,
        .rip = l->kernel->entry,
        .rsi = LOADER_BOOT_PARAMS,
        .rflags = 2,
        .cr0 = CR0_LONG,
        .cr3 = LOADER_PAGE_TABLES,
        .cr4 = CR4_PAE,
        .efer = EFER_LONG,
    } : (struct boot_entry){                  /* EBP, EDI and EBX are 0, interrupts off */
        .mode = BOOT_MODE_FLAT32,
        .rip = l->kernel->entry,
        .rsi = LOADER_BOOT_PARAMS,
        .rflags = 2,
        .cr0 = CR0_FLAT,
    };
    int r;

    if ((r = write_boot_params(m, l)) < 0 || (is_64bit && (r = write_page_tables(m)) < 0) ||
        (r = loader_segments(m, is_64bit, &en)) < 0) {
        return r;
    }
    *ret = en;
    return 0;
}
