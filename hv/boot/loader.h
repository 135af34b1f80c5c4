/*
 * The loader's own places below 1 MiB (boot.h's picture) and the ways into a
 * loaded kernel. Private to hv/boot.
 */
#ifndef HV_BOOT_LOADER_H
#define HV_BOOT_LOADER_H

#include "hv/boot/boot.h"
#include "hv/boot/e820.h"
#include "hv/boot/kernel.h"

#define LOADER_BDA         ((gpa_t)0x00400)
#define LOADER_GDT         ((gpa_t)0x00500)
#define LOADER_TSS         ((gpa_t)0x00600)
#define LOADER_PVH         ((gpa_t)0x06000)
#define LOADER_BOOT_PARAMS ((gpa_t)0x07000)
#define LOADER_PAGE_TABLES ((gpa_t)0x09000)   /* PML4, PDPT, 4 page directories */
#define LOADER_CMDLINE     ((gpa_t)0x20000)
#define LOADER_CMDLINE_MAX ((uint32_t)0xFFFF) /* what fits before 0x30000, without the NUL */
#define MULTIBOOT_CMDLINE_MAX ((uint32_t)2047)
#define LOADER_EBDA        ((gpa_t)0x9FC00)
#define LOADER_ACPI        ((gpa_t)0xE0000)
#define LOADER_ACPI_LEN    ((uint64_t)0x10000)
#define LOADER_SMBIOS      ((gpa_t)0xF0000)
#define LOADER_SMBIOS_LEN  ((uint64_t)0x10000)

/* What all of them hand to the kernel. */
struct loaded {
    const struct kernel *kernel;
    const struct e820 *e820;
    const char *cmdline;    /* also at LOADER_CMDLINE, but for multiboot */
    gpa_t rsdp;
    gpa_t initrd;
    uint64_t initrd_len;    /* 0: none */
};

/* boot_params, page tables (64-bit only), GDT and TSS; the entry state of a Linux of either width (linux.c). */
int linux_enter(struct mem *m, const struct loaded *l, struct boot_entry *ret);
/* hvm_start_info, GDT and TSS; the entry state of PVH (pvh.c). */
int pvh_enter(struct mem *m, const struct loaded *l, struct boot_entry *ret);

/* Multiboot information, GDT and TSS; the entry state of multiboot (multiboot.c). */
int multiboot_enter(struct mem *m, const struct loaded *l, struct boot_entry *ret);

/*
 * The command line the guest gets: the user's, and "memhp_default_state=online" unless
 * it says something else on that, so that memory that is added comes into use
 * (guest-abi 6.1.8). Goes before a lone "--", after which words are init's.
 * *ret is NUL-terminated, to be freed. HV_USAGE if it is longer than max bytes.
 */
int cmdline_build(const char *user, uint32_t max, char **ret, struct hv_error *e);

/* GDT with flat code at 0x10, data at 0x18, a busy TSS at 0x20; fills the entry's segments. */
int loader_segments(struct mem *m, bool long_mode, struct boot_entry *ret);

#endif
