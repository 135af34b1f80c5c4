/*
 * Kernels as ELF files: what a bzImage unpacks to, a vmlinux, or a small kernel of one's
 * own. Loaded at the physical addresses of their PT_LOADs; the file's words are untrusted.
 *
 * Sources: System V gABI ch. 4-5, psABI x86-64 (EM_X86_64); Xen's public elfnote.h:
 * note 18 (PHYS32_ENTRY) of owner "Xen" is the PVH entry point.
 */
#include "hv/boot/kernel.h"

#include <errno.h>

#include "hv/base/endian.h"

#define EHDR_SIZE 64
#define PHDR_SIZE 56
#define NOTES_MAX ((uint64_t)65536)   /* a vmlinux has about 500 bytes */

enum { PT_LOAD = 1, PT_INTERP = 3, PT_NOTE = 4 };
enum { ET_EXEC = 2, ET_DYN = 3 };
enum { EM_386 = 3, EM_X86_64 = 62 };
enum { XEN_ELFNOTE_PHYS32_ENTRY = 18 };

static const struct { uint16_t machine; const char *name; } MACHINES[] = {
    { 2, "sparc" }, { EM_386, "32-bit x86" }, { 8, "mips" }, { 20, "powerpc" }, { 21, "ppc64" },
    { 22, "s390x" }, { 40, "32-bit arm" }, { 183, "arm64" }, { 243, "riscv" }, { 258, "loongarch" },
};

struct phdr { uint32_t type; uint64_t off, vaddr, paddr, filesz, memsz; };

bool elf_detect(const uint8_t *head, size_t len)
{
    return len >= 4 && memcmp(head, "\x7f" "ELF", 4) == 0;
}

static struct phdr phdr_get(const uint8_t *p)
{
    return (struct phdr){
        .type = get_le32(p), .off = get_le64(p + 8), .vaddr = get_le64(p + 16),
        .paddr = get_le64(p + 24), .filesz = get_le64(p + 32), .memsz = get_le64(p + 40),
    };
}

/* Class, byte order, machine and type: the right computer, and a kernel rather than a program. */
static int check_ehdr(const struct blob *b, const uint8_t *h, struct hv_error *e)
{
    const char *name = NULL;

    if (h[5] != 1 && h[5] != 2) {
        return hv_fail(e, HV_USAGE, b->name, "is a damaged ELF file: byte order %u", h[5]);
    }
    uint16_t machine = h[5] == 1 ? get_le16(h + 18) : get_be16(h + 18);
    if (h[4] == 2 && h[5] == 1 && machine == EM_X86_64) {
        uint16_t type = get_le16(h + 16);
        if (type == ET_EXEC) {
            return 0;
        }
        return hv_fail(e, HV_USAGE, b->name, "is %s, not a kernel",
                       type == ET_DYN ? "a Linux program or library"
                       : type == 1    ? "an object file or kernel module"
                                      : "an ELF file of another kind");
    }
    for (size_t i = 0; i < ARRAY_SIZE(MACHINES); i++) {
        if (machine == MACHINES[i].machine) {
            name = MACHINES[i].name;
        }
    }
    if (machine == EM_386 || machine == EM_X86_64) {
        /* TODO(multiboot kernels): ELF32 for i386 with a multiboot header enters flat 32-bit mode. */
        return hv_fail(e, HV_UNSUPPORTED, b->name, "is a 32-bit ELF file; only 64-bit kernels boot");
    }
    if (name) {
        return hv_fail(e, HV_UNSUPPORTED, b->name, "is an ELF file for %s; this machine is x86-64", name);
    }
    return hv_fail(e, HV_UNSUPPORTED, b->name, "is an ELF file for machine %u; this machine is x86-64",
                   machine);
}

/* One PT_LOAD against the file and the address space that kernels may load into. */
static int check_load(const struct blob *b, uint64_t size, const struct phdr *p, struct hv_error *e)
{
    uint64_t end;

    if (p->filesz > p->memsz) {
        return hv_fail(e, HV_USAGE, b->name, "is a damaged ELF file: a segment is larger than its memory");
    }
    if (p->off > size || p->filesz > size - p->off) {
        return hv_fail(e, HV_USAGE, b->name, "is truncated: a segment goes on beyond the file's %llu bytes",
                       (unsigned long long)size);
    }
    if (p->paddr < KERNEL_LOWEST) {
        return hv_fail(e, HV_UNSUPPORTED, b->name,
                       "wants to be loaded at 0x%llx; kernels load at 1 MiB or above",
                       (unsigned long long)p->paddr);
    }
    if (__builtin_add_overflow(p->paddr, p->memsz, &end) || end > MEM_LOW_TOP) {
        return hv_fail(e, HV_UNSUPPORTED, b->name, "wants to be loaded at 0x%llx, beyond low memory",
                       (unsigned long long)p->paddr);
    }
    return 0;
}

/* The physical address of an entry point given either way, or 0. */
static gpa_t entry_of(const struct phdr *ph, unsigned n, uint64_t addr)
{
    for (unsigned i = 0; i < n; i++) {
        if (ph[i].type == PT_LOAD && addr >= ph[i].paddr && addr - ph[i].paddr < ph[i].memsz) {
            return addr;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (ph[i].type == PT_LOAD && addr >= ph[i].vaddr && addr - ph[i].vaddr < ph[i].memsz) {
            return ph[i].paddr + (addr - ph[i].vaddr);
        }
    }
    return 0;
}

/* Walk one PT_NOTE for the PVH entry. A malformed note ends the walk: notes are optional. */
static int find_pvh(const struct blob *b, const struct phdr *p, uint64_t *ret_addr, struct hv_error *e)
{
    if (p->filesz < 12 || p->filesz > NOTES_MAX || p->off > b->size || p->filesz > b->size - p->off) {
        return 0;
    }
    size_t len = (size_t)p->filesz;
    hv_autofree uint8_t *n = hv_alloc(len);
    if (!n) {
        return hv_fail(e, HV_NO_RESOURCES, b->name, "no memory to load the kernel");
    }
    int r = blob_read(b, p->off, n, len, e);
    if (r < 0) {
        return r;
    }
    for (size_t pos = 0; len - pos >= 12;) {
        uint32_t namesz = get_le32(n + pos), descsz = get_le32(n + pos + 4);
        uint32_t type = get_le32(n + pos + 8);
        size_t left = len - pos - 12;
        if (namesz > left || descsz > left) {
            return 0;
        }
        size_t name_pad = ROUND_UP((size_t)namesz, 4), desc_pad = ROUND_UP((size_t)descsz, 4);
        if (name_pad > left || desc_pad > left - name_pad) {
            return 0;
        }
        const uint8_t *name = n + pos + 12, *desc = name + name_pad;
        if (type == XEN_ELFNOTE_PHYS32_ENTRY && namesz == 4 && memcmp(name, "Xen", 4) == 0 &&
            (descsz == 4 || descsz == 8)) {
            *ret_addr = descsz == 4 ? get_le32(desc) : get_le64(desc);
            return 1;
        }
        pos += 12 + name_pad + desc_pad;
    }
    return 0;
}

int elf_plan(const struct blob *b, uint64_t size, const struct kernel_target *t, struct elf_plan *ret,
             struct hv_error *e)
{
    uint8_t h[EHDR_SIZE], raw[ELF_PHDRS_MAX * PHDR_SIZE];
    struct phdr ph[ELF_PHDRS_MAX];
    struct elf_plan plan = { .kernel.base = UINT64_MAX };
    struct elf_kernel *k = &plan.kernel;
    uint64_t pvh = 0;

    if (b->size < EHDR_SIZE) {
        return hv_fail(e, HV_USAGE, b->name, "is truncated: %llu bytes of an ELF header",
                       (unsigned long long)b->size);
    }
    int r = blob_read(b, 0, h, sizeof(h), e);
    if (r < 0 || (r = check_ehdr(b, h, e)) < 0) {
        return r;
    }
    uint64_t phoff = get_le64(h + 32);
    unsigned phentsize = get_le16(h + 54), phnum = get_le16(h + 56);
    if (phentsize != PHDR_SIZE || phnum == 0 || phnum > ELF_PHDRS_MAX) {
        return hv_fail(e, HV_USAGE, b->name, "is not a kernel: %u program headers of %u bytes", phnum,
                       phentsize);
    }
    if (b->size < size && (phoff > b->size || phnum * PHDR_SIZE > b->size - phoff)) {
        return 1;
    }
    if ((r = blob_read(b, phoff, raw, phnum * PHDR_SIZE, e)) < 0) {
        return r;
    }
    for (unsigned i = 0; i < phnum; i++) {
        ph[i] = phdr_get(raw + i * PHDR_SIZE);
        if (ph[i].type == PT_INTERP) {
            return hv_fail(e, HV_USAGE, b->name, "is a Linux program, not a kernel");
        }
    }
    for (unsigned i = 0; i < phnum; i++) {
        if (ph[i].type != PT_LOAD || ph[i].memsz == 0) {
            continue;
        }
        if ((r = check_load(b, size, &ph[i], e)) < 0) {
            return r;
        }
        k->base = MIN(k->base, ph[i].paddr);
        k->end = MAX(k->end, ph[i].paddr + ph[i].memsz);
        /* RAM is zeroed, so only file bytes are written; what of memsz is beyond them stays untouched. */
        plan.part[plan.parts].off = ph[i].off;
        plan.part[plan.parts].len = ph[i].filesz;
        plan.part[plan.parts++].gpa = ph[i].paddr;
    }
    if (k->end == 0) {
        return hv_fail(e, HV_USAGE, b->name, "is not a kernel: the ELF file has nothing to load");
    }
    if (k->end > t->low_bytes) {
        return kernel_too_big(t, b->name, k->end, e);
    }
    k->entry = entry_of(ph, phnum, get_le64(h + 24));
    if (k->entry == 0) {
        return hv_fail(e, HV_USAGE, b->name, "is a damaged ELF file: its entry point is outside its segments");
    }
    for (unsigned i = 0; i < phnum && !k->has_pvh; i++) {
        if (ph[i].type == PT_NOTE) {
            if ((r = find_pvh(b, &ph[i], &pvh, e)) < 0) {
                return r;
            }
            k->has_pvh = r > 0;
        }
    }
    if (k->has_pvh && (k->pvh_entry = entry_of(ph, phnum, pvh)) == 0) {
        return hv_fail(e, HV_USAGE, b->name, "is a damaged ELF file: its PVH entry is outside its segments");
    }
    *ret = plan;
    return 0;
}

int elf_place(const struct elf_plan *p, const struct kernel_target *t, uint64_t off, const uint8_t *data,
              size_t len, const char *name, struct hv_error *e)
{
    for (unsigned i = 0; i < p->parts; i++) {
        const uint64_t from = MAX(off, p->part[i].off), to = MIN(off + len, p->part[i].off + p->part[i].len);
        if (from >= to) {
            continue;
        }
        const gpa_t gpa = p->part[i].gpa + (from - p->part[i].off);
        struct mem_pin pin;
        if (mem_pin(t->m, gpa, to - from, MEM_WRITE, &pin) < 0) {
            return hv_fail(e, HV_FAILED, name, "no memory at guest address 0x%llx", (unsigned long long)gpa);
        }
        for (uint64_t pos = 0, n; pos < to - from; pos += n) {
            const uint8_t *src = data + (from - off) + pos;
            n = MIN(HV_PAGE_SIZE - (gpa + pos) % HV_PAGE_SIZE, to - from - pos);
            if (!hv_is_zero(src, n)) {
                memcpy((uint8_t *)pin.hva + pos, src, n);
            }
        }
        mem_unpin(&pin);
    }
    return 0;
}

/* "Linux version 6.1.0..." from the loaded image, for a vmlinux without the PVH note. */
static int find_banner(struct mem *m, const struct elf_kernel *k, char *ret, size_t size)
{
    static const char BANNER[] = "Linux version ";
    struct mem_pin pin;

    if (mem_pin(m, k->base, k->end - k->base, MEM_READ, &pin) < 0) {
        return -ENOENT;
    }
    size_t len = (size_t)pin.len;
    const char *at = memmem(pin.hva, len, BANNER, sizeof(BANNER) - 1);
    if (at) {
        at += sizeof(BANNER) - 1;
        size_t left = len - (size_t)(at - (const char *)pin.hva), n = 0;
        while (n < left && n + 1 < size && at[n] > ' ' && at[n] < 0x7f) {
            ret[n] = at[n];
            n++;
        }
        ret[n] = '\0';
    }
    mem_unpin(&pin);
    return at ? 0 : -ENOENT;
}

int elf_kernel_load(const struct blob *b, const struct kernel_target *t, struct kernel *ret,
                    struct hv_error *e)
{
    struct elf_plan plan;
    char version[64] = "";

    int r = elf_plan(b, b->size, t, &plan, e);
    for (unsigned i = 0; r == 0 && i < plan.parts; i++) {
        r = blob_read_guest(b, plan.part[i].off, t->m, plan.part[i].gpa, plan.part[i].len, e);
    }
    if (r < 0) {
        return r;
    }
    const struct elf_kernel elf = plan.kernel;
    bool is_linux = find_banner(t->m, &elf, version, sizeof(version)) == 0;
    if (!elf.has_pvh && !is_linux) {
        hv_fail(e, HV_UNSUPPORTED, b->name, "is an ELF file, but neither Linux nor one with a PVH entry");
        hv_hint(e, "a kernel of one's own needs the Xen ELF note PHYS32_ENTRY (type 18)");
        return -EOPNOTSUPP;
    }
    *ret = (struct kernel){
        .entry_kind = elf.has_pvh ? KERNEL_ENTRY_PVH : KERNEL_ENTRY_LINUX64,
        .entry = elf.has_pvh ? elf.pvh_entry : elf.entry,
        .base = elf.base,
        .end = elf.end,
        .cmdline_max = 2047,       /* COMMAND_LINE_SIZE of x86 less the NUL */
        .initrd_top = MEM_LOW_TOP,
    };
    snprintf(ret->what, sizeof(ret->what), "%s%s, ELF, %s entry", is_linux ? "Linux " : "ELF kernel",
             version, elf.has_pvh ? "PVH" : "64-bit");
    return 0;
}
