/* Direct boot, step by step: kernel, initrd, command line, tables, entry state. Contract in boot.h. */
#include "hv/boot/boot.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "hv/base/endian.h"
#include "hv/base/strbuf.h"
#include "hv/boot/acpi.h"
#include "hv/boot/loader.h"

static_assert(LOADER_GDT + 0x100 <= LOADER_TSS, "GDT");
static_assert(LOADER_PAGE_TABLES + 6 * HV_PAGE_SIZE <= LOADER_CMDLINE, "page tables");
static_assert(LOADER_CMDLINE + LOADER_CMDLINE_MAX < LOADER_EBDA, "command line");
static_assert(LOADER_ACPI + LOADER_ACPI_LEN == LOADER_SMBIOS, "SMBIOS is searched from 0xF0000 on");
static_assert(LOADER_SMBIOS + LOADER_SMBIOS_LEN == KERNEL_LOWEST, "1 MiB");

/* A BIOS data area that says what is true: Linux finds the EBDA and the end of base memory by it. */
static int write_bda(const struct boot_board *bd, struct mem *m)
{
    uint8_t bda[0x100] = { 0 }, ebda[16] = { 1 };   /* its own length in KiB */

    put_le16(bda + 0x00, bd->com1 ? 0x3F8 : 0);
    put_le16(bda + 0x02, bd->com2 ? 0x2F8 : 0);
    put_le16(bda + 0x0E, LOADER_EBDA >> 4);
    put_le16(bda + 0x13, LOADER_EBDA / KIB);
    int r = mem_write(m, LOADER_BDA, bda, sizeof(bda));
    return r < 0 ? r : mem_write(m, LOADER_EBDA, ebda, sizeof(ebda));
}

static int write_tables(const struct boot_config *cfg, struct mem *m, struct boot_result *ret,
                        struct hv_error *e)
{
    strbuf_auto acpi = { 0 };
    strbuf_auto smbios = { 0 };

    if (acpi_tables_build(cfg, LOADER_ACPI, &acpi) < 0 || smbios_build(cfg, LOADER_SMBIOS, &smbios) < 0) {
        return hv_fail(e, HV_NO_RESOURCES, cfg->name, "no memory to build the firmware tables");
    }
    hv_assert(acpi.len <= LOADER_ACPI_LEN && smbios.len <= LOADER_SMBIOS_LEN);
    if (mem_write(m, LOADER_ACPI, acpi.buf, acpi.len) < 0 ||
        mem_write(m, LOADER_SMBIOS, smbios.buf, smbios.len) < 0 || write_bda(&cfg->board, m) < 0) {
        return hv_fail(e, HV_FAILED, cfg->name, "no memory below 1 MiB");
    }
    ret->rsdp = LOADER_ACPI;
    ret->smbios = LOADER_SMBIOS;
    return 0;
}

/* Refuses a kernel given as initrd; any other content is for the guest to judge. */
static int check_initrd(const struct blob *b, struct hv_error *e)
{
    uint8_t head[BZIMAGE_HEAD];
    size_t len = MIN(b->size, sizeof(head));

    int r = blob_read(b, 0, head, len, e);
    if (r == 0 && kernel_looks_like(head, len)) {
        r = hv_fail(e, HV_USAGE, b->name, "is a kernel, not an initrd");
        hv_hint(e, "are --kernel and --initrd the wrong way round?");
    }
    return r;
}

/* As high as kernel and protocol allow, so that the kernel has room behind itself. */
static int load_initrd(const struct blob *b, const struct kernel_target *t, const struct kernel *k,
                       gpa_t *ret, struct hv_error *e)
{
    uint64_t top = MIN(t->low_bytes, k->initrd_top);

    if (b->size > MEM_LOW_TOP || top < b->size || ROUND_DOWN(top - b->size, HV_PAGE_SIZE) < k->end) {
        if (top < t->low_bytes) {
            return hv_fail(e, HV_UNSUPPORTED, b->name, "is too large for this kernel, which reads it below 0x%llx",
                           (unsigned long long)top);
        }
        return kernel_too_big(t, b->name, k->end, e);
    }
    gpa_t gpa = ROUND_DOWN(top - b->size, HV_PAGE_SIZE);
    int r = blob_read_guest(b, 0, t->m, gpa, b->size, e);
    if (r == 0) {
        *ret = gpa;
    }
    return r;
}

/* Multiboot's begins with the kernel's own name and is nobody else's business (its section 3.3). */
static int make_cmdline(const struct boot_config *cfg, const struct kernel *k, char **ret, struct hv_error *e)
{
    const char *user = cfg->cmdline ? cfg->cmdline : "", *name = cfg->kernel_name ? cfg->kernel_name : "kernel";
    if (k->entry_kind != KERNEL_ENTRY_MULTIBOOT) {
        return cmdline_build(user, MIN(k->cmdline_max, LOADER_CMDLINE_MAX), ret, e);
    }
    if (strlen(name) + strlen(user) + 1 > k->cmdline_max) {
        return hv_fail(e, HV_USAGE, "cmdline", "is longer than the %u bytes this kernel takes", k->cmdline_max);
    }
    return asprintf(ret, "%s%s%s", name, *user ? " " : "", user) < 0
               ? hv_fail(e, HV_NO_RESOURCES, cfg->name, "no memory for the command line") : 0;
}

static int (*const enter[])(struct mem *m, const struct loaded *l, struct boot_entry *ret) = {
    [KERNEL_ENTRY_LINUX64] = linux_enter,
    [KERNEL_ENTRY_LINUX32] = linux_enter,
    [KERNEL_ENTRY_PVH] = pvh_enter,
    [KERNEL_ENTRY_MULTIBOOT] = multiboot_enter,
};

int boot_prepare(const struct boot_config *cfg, struct mem *m, struct boot_result *ret, struct hv_error *e)
{
    struct blob kernel_file, initrd_file = { 0 };
    struct kernel_target target = {
        .m = m,
        .low_bytes = cfg->layout->low_bytes,
        .ram_bytes = cfg->layout->ram_bytes,
        .guest_unpacks = cfg->guest_unpacks,
    };
    struct kernel kernel;
    struct e820 e820;
    struct boot_result res = { 0 };
    hv_autofree char *cmdline = NULL;
    int r;

    hv_assert(cfg->vcpus >= 1 && cfg->vcpus <= BOOT_VCPUS_MAX);
    if (cfg->kernel_fd < 0) {
        hv_fail(e, HV_UNSUPPORTED, cfg->name, "has no kernel to boot, and this version has no firmware");
        hv_hint(e, "--kernel PATH --initrd PATH");
        return -EOPNOTSUPP;
    }
    if ((r = blob_from_fd(cfg->kernel_fd, cfg->kernel_name ? cfg->kernel_name : "kernel", &kernel_file, e)) < 0) {
        return r;
    }
    if (cfg->initrd_fd >= 0) {
        r = blob_from_fd(cfg->initrd_fd, cfg->initrd_name ? cfg->initrd_name : "initrd", &initrd_file, e);
        if (r < 0 || (r = check_initrd(&initrd_file, e)) < 0) {
            return r;
        }
        target.initrd_len = initrd_file.size;
    }
    if ((r = kernel_load(&kernel_file, &target, &kernel, e)) < 0) {
        return r;
    }
    if (cfg->initrd_fd >= 0 && (r = load_initrd(&initrd_file, &target, &kernel, &res.initrd, e)) < 0) {
        return r;
    }
    r = make_cmdline(cfg, &kernel, &cmdline, e);
    if (r < 0 || (r = write_tables(cfg, m, &res, e)) < 0) {
        return r;
    }

    e820_build(cfg->layout, &e820);
    struct loaded loaded = {
        .kernel = &kernel,
        .e820 = &e820,
        .cmdline = cmdline,
        .rsdp = res.rsdp,
        .initrd = res.initrd,
        .initrd_len = target.initrd_len,
    };
    bool apart = kernel.entry_kind == KERNEL_ENTRY_MULTIBOOT;    /* may have been loaded there */
    if ((!apart && mem_write(m, LOADER_CMDLINE, cmdline, strlen(cmdline) + 1) < 0) ||
        enter[kernel.entry_kind](m, &loaded, &res.entry) < 0) {
        return hv_fail(e, HV_FAILED, cfg->name, "no memory below 1 MiB");
    }
    hv_strlcpy(res.kernel, kernel.what, sizeof(res.kernel));
    res.kernel_base = kernel.base;
    res.kernel_end = kernel.end;
    res.initrd_len = target.initrd_len;
    *ret = res;
    return 0;
}
