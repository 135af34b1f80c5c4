/*
 * What is this file? The kinds we boot, and the ones people give by mistake: each gets
 * a sentence that says what it is and what to do.
 */
#include "hv/boot/kernel.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"

/* Enough for every magic below, CD001 being the farthest. */
#define HEAD_MAX ((size_t)0x8010)

/* Room that any Linux needs beside its image and initrd to get to user space. */
#define LINUX_SLACK (32 * MIB)

struct foreign {
    uint32_t off;
    uint8_t len;
    const char *magic;
    enum hv_code code;
    const char *what, *hint;
};

/* Order matters: an arm64 Image may start with "MZ" too. */
static const struct foreign FOREIGN[] = {
    /* Documentation/arm64/booting.rst, riscv/boot-image-header.rst: magic2 at 0x38. */
    { 0x38, 4, "ARM\x64", HV_UNSUPPORTED, "is a kernel for arm64; this machine is x86-64",
      "the Debian package linux-image-amd64 has one for x86-64" },
    { 0x38, 4, "RSC\x05", HV_UNSUPPORTED, "is a kernel for riscv64; this machine is x86-64",
      "the Debian package linux-image-amd64 has one for x86-64" },
    { 0x24, 4, "\x18\x28\x6f\x01", HV_UNSUPPORTED, "is a kernel for 32-bit arm; this machine is x86-64",
      "the Debian package linux-image-amd64 has one for x86-64" },
    { 0x04, 4, "zimg", HV_UNSUPPORTED, "is an EFI zboot image, which only a UEFI firmware starts", "" },
    { 0x00, 4, "\x27\x05\x19\x56", HV_UNSUPPORTED, "is a U-Boot image, not a kernel for a PC", "" },
    { 0x00, 4, "\xd0\x0d\xfe\xed", HV_UNSUPPORTED, "is a device tree, not a kernel", "" },
    { 0x00, 2, "\x1f\x8b", HV_USAGE, "is gzip-compressed, not a kernel image",
      "unpack it first: zcat FILE > vmlinux" },
    { 0x00, 6, "\xfd" "7zXZ\0", HV_USAGE, "is xz-compressed, not a kernel image",
      "unpack it first: xzcat FILE > vmlinux" },
    { 0x00, 4, "\x28\xb5\x2f\xfd", HV_USAGE, "is zstd-compressed, not a kernel image",
      "unpack it first: zstdcat FILE > vmlinux" },
    { 0x00, 4, "\x02\x21\x4c\x18", HV_USAGE, "is lz4-compressed, not a kernel image",
      "unpack it first: lz4cat FILE > vmlinux" },
    { 0x00, 3, "BZh", HV_USAGE, "is bzip2-compressed, not a kernel image",
      "unpack it first: bzcat FILE > vmlinux" },
    { 0x00, 6, "070701", HV_USAGE, "is an initrd (cpio archive), not a kernel", "give it with --initrd" },
    { 0x00, 8, "!<arch>\n", HV_USAGE, "is a package or library archive, not a kernel",
      "unpack it first: dpkg-deb -x FILE FOLDER; the kernel is FOLDER/boot/vmlinuz-*" },
    { 0x00, 8, "vhdxfile", HV_USAGE, "is a disk, not a kernel", "give it with --disk" },
    { 0x00, 8, "conectix", HV_USAGE, "is a disk, not a kernel", "give it with --disk" },
    { 0x00, 4, "QFI\xfb", HV_USAGE, "is a qcow2 disk, not a kernel",
      "make a VHDX of it: vhdtool create NEW.vhdx --from FILE" },
    { 0x8001, 5, "CD001", HV_USAGE, "is a CD image, not a kernel", "give it with --dvd" },
    { 0x00, 2, "#!", HV_USAGE, "is a script, not a kernel", "" },
};

/* PE machine values (PE/COFF specification, "Machine Types") for EFI programs. */
static const struct { uint16_t machine; const char *name; } PE_MACHINES[] = {
    { 0x014c, "i386" }, { 0x01c2, "32-bit arm" }, { 0x5064, "riscv64" },
    { 0x6264, "loongarch64" }, { 0x8664, "x86-64" }, { 0xaa64, "arm64" },
};

/* An EFI program without a Linux setup header. */
static int fail_pe(const struct blob *b, const uint8_t *head, size_t len, struct hv_error *e)
{
    uint32_t pe = len >= 0x40 ? get_le32(head + 0x3c) : UINT32_MAX;
    const char *arch = NULL;

    if (pe <= len - 6 && pe < len && memcmp(head + pe, "PE\0\0", 4) == 0) {
        for (size_t i = 0; i < ARRAY_SIZE(PE_MACHINES); i++) {
            if (get_le16(head + pe + 4) == PE_MACHINES[i].machine) {
                arch = PE_MACHINES[i].name;
            }
        }
    }
    if (arch && strcmp(arch, "x86-64") != 0) {
        return hv_fail(e, HV_UNSUPPORTED, b->name, "is an EFI program for %s; this machine is x86-64", arch);
    }
    return hv_fail(e, HV_UNSUPPORTED, b->name,
                   "is an EFI or DOS program without a Linux setup header, not a kernel");
}

bool kernel_looks_like(const uint8_t *head, size_t len)
{
    return bzimage_detect(head, len) || elf_detect(head, len) || multiboot_detect(head, len);
}

int kernel_load(const struct blob *b, const struct kernel_target *t, struct kernel *ret,
                struct hv_error *e)
{
    size_t len = MIN(b->size, HEAD_MAX);
    hv_autofree uint8_t *head = hv_alloc(HEAD_MAX);

    if (!head) {
        return hv_fail(e, HV_NO_RESOURCES, b->name, "no memory to load the kernel");
    }
    int r = blob_read(b, 0, head, len, e);
    if (r < 0) {
        return r;
    }
    if (bzimage_detect(head, len)) {
        return bzimage_load(b, t, ret, e);
    }
    if (multiboot_detect(head, len)) {
        return multiboot_load(b, t, ret, e);
    }
    if (elf_detect(head, len)) {
        return elf_kernel_load(b, t, ret, e);
    }
    for (size_t i = 0; i < ARRAY_SIZE(FOREIGN); i++) {
        const struct foreign *f = &FOREIGN[i];
        if (len >= f->off + f->len && memcmp(head + f->off, f->magic, f->len) == 0) {
            r = hv_fail(e, f->code, b->name, "%s", f->what);
            if (*f->hint) {
                hv_hint(e, "%s", f->hint);
            }
            return r;
        }
    }
    if (len >= 2 && memcmp(head, "MZ", 2) == 0) {
        return len < SETUP_HEADER_END
                   ? hv_fail(e, HV_USAGE, b->name, "is truncated: a kernel is longer than %zu bytes", len)
                   : fail_pe(b, head, len, e);
    }
    hv_fail(e, HV_USAGE, b->name, "is not a kernel: neither a Linux bzImage nor an ELF file nor a multiboot one");
    hv_hint(e, "Debian's kernels are /boot/vmlinuz-*");
    return -EINVAL;
}

int kernel_too_big(const struct kernel_target *t, const char *name, uint64_t end, struct hv_error *e)
{
    char need[24], has[24], hint[24];
    uint64_t all;

    if (__builtin_add_overflow(end, t->initrd_len, &all) || all > MEM_LOW_TOP - LINUX_SLACK) {
        return hv_fail(e, HV_UNSUPPORTED, name, "does not fit into the memory below 3.5G");
    }
    /* Twice the initrd: packed as loaded, and unpacked by the guest; it needs that much at least. */
    hv_fail(e, HV_NO_RESOURCES, name, "needs at least %s of memory, the VM has %s",
            format_size_exact(ROUND_UP(all, MIB), need, sizeof(need)),
            format_size_exact(t->ram_bytes, has, sizeof(has)));
    hv_hint(e, "--memory %s",
            format_size_exact(ROUND_UP(all + t->initrd_len + LINUX_SLACK, 32 * MIB), hint, sizeof(hint)));
    return -ENOMEM;
}
