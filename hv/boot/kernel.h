/* Kernel files: which kind they are, and loading them into guest RAM. Private to hv/boot. */
#ifndef HV_BOOT_KERNEL_H
#define HV_BOOT_KERNEL_H

#include "hv/base/error.h"
#include "hv/boot/blob.h"
#include "hv/boot/layout.h"
#include "hv/memory/memory.h"

/* Everything below is the loader's own (boot.h's picture) and the PC's; kernels load above. */
#define KERNEL_LOWEST ((gpa_t)0x100000)

/* setup_header of boot_params: 0x1F1 up to where edd_mbr_sig_buffer starts (boot.rst, zero page). */
#define SETUP_HEADER_OFF ((unsigned)0x1F1)
#define SETUP_HEADER_END ((unsigned)0x290)
#define SETUP_HEADER_MAX (SETUP_HEADER_END - SETUP_HEADER_OFF)

enum kernel_entry {
    KERNEL_ENTRY_LINUX64,   /* startup_64, RSI = boot_params */
    KERNEL_ENTRY_LINUX32,   /* startup_32, paging off, ESI = boot_params */
    KERNEL_ENTRY_PVH,       /* 32-bit, EBX = hvm_start_info */
    KERNEL_ENTRY_MULTIBOOT, /* 32-bit, EAX = magic, EBX = multiboot information */
};

/* Where to load to. */
struct kernel_target {
    struct mem *m;
    uint64_t low_bytes;     /* RAM from 0 to here */
    uint64_t ram_bytes;     /* all of it, for messages */
    uint64_t initrd_len;    /* 0: none */
    bool guest_unpacks;
};

/* A kernel that has been loaded. */
struct kernel {
    enum kernel_entry entry_kind;
    gpa_t entry;
    gpa_t base, end;                    /* RAM it uses until it has built its own maps */
    uint8_t header[SETUP_HEADER_MAX];   /* the bzImage's setup header; zeros if there was none */
    uint32_t cmdline_max;               /* bytes without the NUL */
    uint64_t initrd_top;                /* first address that the initrd must stay below */
    char what[96];
};

/*
 * Find out what b is, check it and load it. Errors as boot_prepare() documents them.
 */
int kernel_load(const struct blob *b, const struct kernel_target *t, struct kernel *ret,
                struct hv_error *e);

/* True if head[len] is a known kernel file: to tell an initrd given in its place. */
bool kernel_looks_like(const uint8_t *head, size_t len);

/* "needs at least 96M, the VM has 64M" with the option as hint, for something that ends at end. */
int kernel_too_big(const struct kernel_target *t, const char *name, uint64_t end, struct hv_error *e);

/*
 * bzImage (bzimage.c). head[len] is the file's start, at least BZIMAGE_HEAD bytes of it
 * unless the file is shorter.
 */
#define BZIMAGE_HEAD ((size_t)0x290)
bool bzimage_detect(const uint8_t *head, size_t len);
int bzimage_load(const struct blob *b, const struct kernel_target *t, struct kernel *ret,
                 struct hv_error *e);

/* Multiboot 1 (multiboot.c): an ELF32 file for i386, or any file whose header has its addresses. */
bool multiboot_detect(const uint8_t *head, size_t len);
int multiboot_load(const struct blob *b, const struct kernel_target *t, struct kernel *ret, struct hv_error *e);

/* ELF (elf_load.c). */
struct elf_kernel {
    gpa_t base, end;        /* physical extent of PT_LOADs, memsz included */
    gpa_t entry;            /* physical */
    bool has_pvh;
    gpa_t pvh_entry;        /* Xen note 18, within a PT_LOAD and below 4 GiB */
};
/* What a file's headers ask for. */
#define ELF_PHDRS_MAX 64u             /* a vmlinux has 5 */
struct elf_plan {
    struct elf_kernel kernel;
    struct { uint64_t off, len; gpa_t gpa; } part[ELF_PHDRS_MAX];      /* bytes of the file and where they go */
    unsigned parts;
};
bool elf_detect(const uint8_t *head, size_t len);
/*
 * Read and check the headers of a file of `size` bytes, of which b has at least the first.
 * 0; 1 without a message if the program headers are beyond those. A PVH note beyond them is
 * not found.
 */
int elf_plan(const struct blob *b, uint64_t size, const struct kernel_target *t, struct elf_plan *ret,
             struct hv_error *e);
/* Load what is in data[len], the file's bytes at off. RAM is zeroed: pages of zeros are not written. */
int elf_place(const struct elf_plan *p, const struct kernel_target *t, uint64_t off, const uint8_t *data,
              size_t len, const char *name, struct hv_error *e);
/* A kernel given as an ELF file: PVH where it has the note, else Linux' 64-bit entry. */
int elf_kernel_load(const struct blob *b, const struct kernel_target *t, struct kernel *ret,
                    struct hv_error *e);

#endif
