/*
 * Makes a VM bootable: puts a kernel, its initrd, the command line, ACPI and SMBIOS
 * tables into guest RAM and says in which state the boot processor starts. No
 * firmware runs: the guest enters its kernel directly (machine-platform 2-5).
 *
 * Below 1 MiB the loader lays out:
 *
 *   0x00400  BIOS data area: COM ports, EBDA segment, size of base memory
 *   0x00500  GDT          0x00600  TSS            0x06000  hvm_start_info (PVH)
 *   0x07000  boot_params  0x09000  page tables    0x20000  command line
 *   0xE0000  ACPI         0xF0000  SMBIOS
 */
#ifndef HV_BOOT_BOOT_H
#define HV_BOOT_BOOT_H

#include "hv/base/error.h"
#include "hv/base/guid.h"
#include "hv/boot/layout.h"
#include "hv/memory/memory.h"

#define BOOT_VCPUS_MAX 64   /* what engine.h takes; APIC ids are vp indices, so type 0 MADT entries do */

/* What the tables tell the guest of the board. BOOT_BOARD_DEFAULT is the machine of machine-platform 4. */
struct boot_board {
    uint16_t pm_base;         /* PM1a: event block +0, control +4, PM timer +8 */
    uint8_t sci_irq;          /* ISA number; level, active high */
    uint8_t s5_type;          /* SLP_TYP that means power off */
    uint16_t reset_port;      /* I/O port that resets when reset_value is written */
    uint8_t reset_value;
    uint16_t hypercall_port;  /* DESIGN 4; reserved in the DSDT so that nobody drives a device there */
    bool com1, com2, rtc, pic, i8042;
    bool vmbus;               /* announce VMOD/VMBS with the layout's MMIO windows */
};
#define BOOT_BOARD_DEFAULT                                                                \
    { .pm_base = 0x400, .sci_irq = 9, .s5_type = 5, .reset_port = 0xCF9, .reset_value = 6, \
      .hypercall_port = 0xEA, .com1 = true, .rtc = true, .pic = true }

struct boot_config {
    const char *name;            /* the VM, for errors; may be NULL */
    struct guid id;              /* SMBIOS system UUID */
    unsigned vcpus;              /* 1..BOOT_VCPUS_MAX */
    uint32_t cpuid_1_eax;        /* processor signature for SMBIOS type 4; 0 if not known */
    const struct layout *layout;
    struct boot_board board;

    int kernel_fd;               /* a regular file; read with pread only, its offset is not touched */
    int initrd_fd;               /* or -1 */
    const char *kernel_name;     /* as the user wrote it, for errors */
    const char *initrd_name;
    const char *cmdline;         /* NULL is "" */
    bool guest_unpacks;          /* enter a bzImage's own decompressor even if we could unpack it */
};

enum boot_mode {
    BOOT_MODE_RESET,   /* the reset vector: leave the engine's power-on state as it is */
    BOOT_MODE_FLAT32,  /* 32-bit protected mode, paging off (PVH, 32-bit Linux; later multiboot) */
    BOOT_MODE_LONG64,  /* 64-bit mode on the loader's identity map of the first 4 GiB */
};

/* attr is in VMX form, as struct vcpu_seg has it. */
struct boot_seg {
    uint64_t base;
    uint32_t limit, attr;
    uint16_t sel;
};

/*
 * State of vp 0 at its first instruction; everything not named is as after a reset,
 * with general registers 0. The other vCPUs wait for their SIPI.
 */
struct boot_entry {
    enum boot_mode mode;
    uint64_t rip, rax, rbx, rsi, rflags;
    uint64_t cr0, cr3, cr4, efer;
    struct boot_seg cs, data;    /* data: DS ES SS FS GS */
    struct boot_seg tr, ldtr;
    uint64_t gdt_base;
    uint16_t gdt_limit;          /* the IDT is base 0, limit 0 */
};

struct boot_result {
    struct boot_entry entry;
    char kernel[96];             /* "Linux 6.1.0-56-cloud-amd64, bzImage, lz4 unpacked": for info logs */
    gpa_t kernel_base, kernel_end;
    gpa_t initrd;
    uint64_t initrd_len;         /* 0: none */
    gpa_t rsdp, smbios;          /* entry points */
};

/*
 * Fill guest RAM and say how to enter it.
 *
 * m has RAM as cfg->layout says, one region from 0 to low_bytes, all zeros (fresh, or after
 * mem_clear() on a reset); vCPUs are parked. May be called again for every reset: files are
 * read anew. Uses pread and fstat; starts no process, opens nothing.
 *
 * 0; on failure e says what is wrong with which file and what to try, and RAM is undefined:
 * HV_USAGE (damaged or foreign file, command line too long), HV_UNSUPPORTED (a kernel of
 * another machine or too old), HV_NO_RESOURCES (the VM's RAM is too small, or the host's).
 */
int boot_prepare(const struct boot_config *cfg, struct mem *m, struct boot_result *ret,
                 struct hv_error *e);

#endif
