/*
 * Multiboot 1 (the specification's version 0.6.96): 32-bit kernels that carry its header, as
 * test suites and hobby systems are built. ELF32 files load by their program headers,
 * others by the header's own addresses (flag 16).
 *
 * Entered in flat 32-bit mode, paging off: EAX = 0x2BADB002, EBX = the information structure.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"
#include "hv/boot/loader.h"

#define HEADER_MAGIC  0x1BADB002u
#define BOOT_MAGIC    0x2BADB002u
#define SEARCH        ((size_t)8192)  /* 3.1: the header lies in the first 8192 bytes, 32-bit aligned */
#define HEADER_LEN    ((size_t)32)
#define FLAG_MEMORY   (1u << 1)       /* asks for what we always give, as does bit 0 */
#define FLAG_ADDRESS  (1u << 16)
#define FLAGS_MUST    0xffffu         /* of these an unknown one means: do not load */

#define EHDR32 52
#define PHDR32 32
#define PHDRS_MAX 64u

#define INFO_MODULE  0x80             /* in the information page */
#define INFO_NAME    0xa0
#define INFO_MAP     0x100
#define INFO_MAP_LEN 24
#define INFO_CMDLINE (INFO_MAP + E820_MAX * INFO_MAP_LEN)
#define INFO_END     (LOADER_PVH + HV_PAGE_SIZE)
static_assert(INFO_CMDLINE + MULTIBOOT_CMDLINE_MAX < HV_PAGE_SIZE, "the information keeps within its page");

/* Offset of the header in head[len], or -1. */
static long find_header(const uint8_t *head, size_t len)
{
    for (size_t i = 0; i + 12 <= len && i < SEARCH; i += 4) {
        if (get_le32(head + i) == HEADER_MAGIC &&
            get_le32(head + i) + get_le32(head + i + 4) + get_le32(head + i + 8) == 0) {
            return (long)i;
        }
    }
    return -1;
}

bool multiboot_detect(const uint8_t *head, size_t len)
{
    if (elf_detect(head, len)) {
        return len > 18 && head[4] == 1 && head[5] == 1 && get_le16(head + 18) == 3;   /* ELF32, i386 */
    }
    long at = find_header(head, len);
    return at >= 0 && (size_t)at + HEADER_LEN <= len && get_le32(head + at + 4) & FLAG_ADDRESS;
}

/* One piece of the file at a physical address, and the zeros after it. */
static int place(const struct blob *b, const struct kernel_target *t, uint64_t off, uint64_t filesz, uint64_t paddr,
                 uint64_t memsz, struct kernel *k, struct hv_error *e)
{
    if (filesz > memsz || off > b->size || filesz > b->size - off) {
        return hv_fail(e, HV_USAGE, b->name, "is truncated: a segment goes on beyond the file's %llu bytes",
                       (unsigned long long)b->size);
    }
    /* Base memory is theirs too, but for the first pages, which hold what we tell them. */
    bool in_base = paddr >= INFO_END && paddr + memsz <= LOADER_EBDA;
    if (paddr < KERNEL_LOWEST && !in_base) {
        return hv_fail(e, HV_UNSUPPORTED, b->name, "wants to be loaded at 0x%llx, where the machine's own tables are",
                       (unsigned long long)paddr);
    }
    if (paddr + memsz > t->low_bytes) {
        return kernel_too_big(t, b->name, paddr + memsz, e);
    }
    k->base = MIN(k->base, paddr);
    k->end = MAX(k->end, paddr + memsz);
    return filesz ? blob_read_guest(b, off, t->m, paddr, filesz, e) : 0;
}

static int load_elf32(const struct blob *b, const struct kernel_target *t, struct kernel *k, struct hv_error *e)
{
    uint8_t h[EHDR32], raw[PHDRS_MAX * PHDR32];
    int r = blob_read(b, 0, h, sizeof(h), e);
    if (r < 0) {
        return r;
    }
    unsigned size = get_le16(h + 42), count = get_le16(h + 44);
    if (size != PHDR32 || count == 0 || count > PHDRS_MAX) {
        return hv_fail(e, HV_USAGE, b->name, "is not a kernel: %u program headers of %u bytes", count, size);
    }
    if ((r = blob_read(b, get_le32(h + 28), raw, count * PHDR32, e)) < 0) {
        return r;
    }
    for (unsigned i = 0; i < count && r == 0; i++) {
        const uint8_t *p = raw + i * PHDR32;
        if (get_le32(p) == 1 && get_le32(p + 20)) {         /* PT_LOAD with memory */
            r = place(b, t, get_le32(p + 4), get_le32(p + 16), get_le32(p + 12), get_le32(p + 20), k, e);
        }
    }
    k->entry = get_le32(h + 24);
    return r;
}

/* The header's own addresses: header, load, load end, bss end, entry (3.1.3). */
static int load_flat(const struct blob *b, const struct kernel_target *t, const uint8_t *h, uint64_t at,
                     struct kernel *k, struct hv_error *e)
{
    uint32_t header = get_le32(h + 12), load = get_le32(h + 16), load_end = get_le32(h + 20), bss = get_le32(h + 24);
    if (load > header || header - load > at || (load_end && load_end < load) || (bss && bss < load_end)) {
        return hv_fail(e, HV_USAGE, b->name, "has a damaged multiboot header: its addresses contradict each other");
    }
    uint64_t off = at - (header - load);
    uint64_t filesz = load_end ? load_end - load : b->size - off;
    k->entry = get_le32(h + 28);
    return place(b, t, off, filesz, load, bss ? MAX((uint64_t)(bss - load), filesz) : filesz, k, e);
}

int multiboot_load(const struct blob *b, const struct kernel_target *t, struct kernel *ret, struct hv_error *e)
{
    hv_autofree uint8_t *head = hv_alloc(SEARCH);
    struct kernel k = {.entry_kind = KERNEL_ENTRY_MULTIBOOT, .base = UINT64_MAX, .cmdline_max = MULTIBOOT_CMDLINE_MAX,
                       .initrd_top = MEM_LOW_TOP};
    size_t len = MIN(b->size, SEARCH);
    if (!head) {
        return hv_fail(e, HV_NO_RESOURCES, b->name, "no memory to load the kernel");
    }
    int r = blob_read(b, 0, head, len, e);
    if (r < 0) {
        return r;
    }
    bool elf = elf_detect(head, len);
    long at = find_header(head, len);
    if (at < 0) {
        hv_fail(e, HV_UNSUPPORTED, b->name, "is a 32-bit ELF file without a multiboot header");
        hv_hint(e, "64-bit kernels, and 32-bit ones with that header, boot");
        return -EOPNOTSUPP;
    }
    uint32_t flags = get_le32(head + at + 4);
    if (flags & FLAGS_MUST & ~(1u | FLAG_MEMORY)) {
        return hv_fail(e, HV_UNSUPPORTED, b->name, "asks its loader for what this one has not: multiboot flags 0x%x", flags);
    }
    r = flags & FLAG_ADDRESS && (size_t)at + HEADER_LEN <= len ? load_flat(b, t, head + at, (uint64_t)at, &k, e)
        : elf                                                  ? load_elf32(b, t, &k, e)
                                                               : hv_fail(e, HV_USAGE, b->name, "is not a kernel");
    if (r < 0) {
        return r;
    }
    if (k.end == 0 || k.entry < k.base || k.entry >= k.end) {
        return hv_fail(e, HV_USAGE, b->name, "is a damaged kernel: its entry point is outside what is loaded");
    }
    snprintf(k.what, sizeof(k.what), "multiboot kernel, %s", elf ? "ELF32" : "flat");
    *ret = k;
    return 0;
}

int multiboot_enter(struct mem *m, const struct loaded *l, struct boot_entry *ret)
{
    static const char name[] = "hv";
    uint8_t page[HV_PAGE_SIZE] = {0};
    struct boot_entry en = {.mode = BOOT_MODE_FLAT32, .rip = l->kernel->entry, .rax = BOOT_MAGIC, .rbx = LOADER_PVH,
                            .rflags = 2, .cr0 = 0x11};
    uint64_t upper = 0;
    uint8_t *map = page + INFO_MAP;
    for (unsigned i = 0; i < l->e820->count; i++) {
        const struct e820_entry *a = &l->e820->entry[i];
        put_le32(map, INFO_MAP_LEN - 4);                    /* of what follows this word */
        put_le64(map + 4, a->addr);
        put_le64(map + 12, a->len);
        put_le32(map + 20, a->type);
        map += INFO_MAP_LEN;
        if (a->addr == KERNEL_LOWEST && a->type == E820_RAM) {
            upper = a->len / KIB;
        }
    }
    put_le32(page, 1u | 1u << 2 | 1u << 6 | 1u << 9 | (l->initrd_len ? 1u << 3 : 0));
    put_le32(page + 4, LOADER_EBDA / KIB);
    put_le32(page + 8, (uint32_t)MIN(upper, UINT32_MAX));
    put_le32(page + 16, LOADER_PVH + INFO_CMDLINE);
    hv_strlcpy((char *)page + INFO_CMDLINE, l->cmdline, MULTIBOOT_CMDLINE_MAX + 1);
    if (l->initrd_len) {
        put_le32(page + 20, 1);
        put_le32(page + 24, LOADER_PVH + INFO_MODULE);
        put_le32(page + INFO_MODULE, (uint32_t)l->initrd);
        put_le32(page + INFO_MODULE + 4, (uint32_t)(l->initrd + l->initrd_len));
        put_le32(page + INFO_MODULE + 8, LOADER_PVH + INFO_NAME);
    }
    put_le32(page + 44, (uint32_t)(map - page - INFO_MAP));
    put_le32(page + 48, LOADER_PVH + INFO_MAP);
    put_le32(page + 64, LOADER_PVH + INFO_NAME);
    memcpy(page + INFO_NAME, name, sizeof(name));
    int r = mem_write(m, LOADER_PVH, page, sizeof(page));
    if (r == 0) {
        r = loader_segments(m, false, &en);
    }
    if (r == 0) {
        *ret = en;
    }
    return r;
}
