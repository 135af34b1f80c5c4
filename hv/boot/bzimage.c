/*
 * Linux bzImage (Documentation/arch/x86/boot.rst; offsets also in machine-platform 3.2).
 *
 *   0x000            boot sector, setup header at 0x1F1, setup code: not used
 *   (setup_sects+1)  the protected-mode part, syssize * 16 bytes: 32-bit entry at its start,
 *     * 512          64-bit entry at +0x200 (xloadflags), which unpack the payload at payload_offset: the kernel proper, an ELF
 *                    file with its relocations behind it, packed
 *
 * The payload is unpacked here where we know its format: that saves the guest a hundred
 * million instructions at the price of text KASLR. Otherwise the guest does it itself, and
 * so does every 32-bit kernel.
 */
#include "hv/boot/kernel.h"

#include <errno.h>

#include "hv/base/endian.h"
#include "hv/base/units.h"
#include "hv/boot/unpack.h"

/* Offsets in the file; the same in boot_params. */
enum {
    SETUP_SECTS = 0x1F1, SYSSIZE = 0x1F4, BOOT_FLAG = 0x1FE, JUMP_LEN = 0x201, HEADER = 0x202,
    VERSION = 0x206, KERNEL_VERSION = 0x20E, LOADFLAGS = 0x211, INITRD_ADDR_MAX = 0x22C,
    XLOADFLAGS = 0x236, CMDLINE_SIZE = 0x238, PAYLOAD_OFFSET = 0x248, PAYLOAD_LENGTH = 0x24C,
    PREF_ADDRESS = 0x258, INIT_SIZE = 0x260, HEADER_FIXED_END = 0x264,
};
#define LOADED_HIGH   0x01
#define XLF_KERNEL_64 0x01
#define ENTRY_64      0x200

/* 2.12 brought xloadflags, which tell 64-bit kernels from 32-bit ones (Linux 3.8). */
#define VERSION_MIN 0x020C

struct bzimage {
    uint64_t prot_off, prot_len;         /* the protected-mode part in the file */
    uint32_t payload_off, payload_len;   /* within it */
    uint64_t pref_address;
    uint32_t init_size, cmdline_size, initrd_addr_max;
    bool is_64bit;
    char version[64];
};

bool bzimage_detect(const uint8_t *head, size_t len)
{
    return len >= HEADER + 4 && get_le16(head + BOOT_FLAG) == 0xAA55 && memcmp(head + HEADER, "HdrS", 4) == 0;
}

/* The version string, at the start of the setup part + kernel_version; for people only. */
static void read_version(const struct blob *b, const uint8_t *h, char *ret, size_t size)
{
    uint64_t off = (uint64_t)get_le16(h + KERNEL_VERSION) + 0x200;
    char text[64];

    ret[0] = '\0';
    if (off == 0x200 || off > b->size || b->size - off < sizeof(text) ||
        blob_read(b, off, text, sizeof(text), NULL) < 0) {
        return;
    }
    size_t n = 0;
    while (n + 1 < size && n < sizeof(text) && text[n] > ' ' && text[n] < 0x7f) {
        ret[n] = text[n];
        n++;
    }
    ret[n] = '\0';
}

/* Read and check the setup header into k->header and bz. Nothing of it is believed later without these checks. */
static int parse(const struct blob *b, struct kernel *k, struct bzimage *bz, struct hv_error *e)
{
    uint8_t h[BZIMAGE_HEAD] = { 0 };
    size_t have = MIN(b->size, sizeof(h));

    int r = blob_read(b, 0, h, have, e);
    if (r < 0) {
        return r;
    }
    if (have < HEADER_FIXED_END) {
        return hv_fail(e, HV_USAGE, b->name, "is truncated within its setup header: %zu bytes", have);
    }
    unsigned version = get_le16(h + VERSION);
    if (version < VERSION_MIN) {
        return hv_fail(e, HV_UNSUPPORTED, b->name,
                       "is too old: boot protocol %u.%02u, 2.12 (Linux 3.8) or newer is needed",
                       version >> 8, version & 0xff);
    }
    bz->is_64bit = get_le16(h + XLOADFLAGS) & XLF_KERNEL_64;
    if (!(h[LOADFLAGS] & LOADED_HIGH)) {
        return hv_fail(e, HV_USAGE, b->name, "is damaged: a bzImage that does not load high");
    }
    unsigned sects = h[SETUP_SECTS] ? h[SETUP_SECTS] : 4;
    bz->prot_off = (sects + 1) * (uint64_t)512;
    bz->prot_len = get_le32(h + SYSSIZE) * (uint64_t)16;
    if (bz->prot_len < ENTRY_64 + 16) {
        return hv_fail(e, HV_USAGE, b->name, "is damaged: its kernel part has %llu bytes",
                       (unsigned long long)bz->prot_len);
    }
    if (b->size < bz->prot_off + bz->prot_len) {
        hv_fail(e, HV_USAGE, b->name, "is truncated: %llu of %llu bytes", (unsigned long long)b->size,
                (unsigned long long)(bz->prot_off + bz->prot_len));
        hv_hint(e, "fetch or copy the kernel again");
        return -EINVAL;
    }
    bz->payload_off = get_le32(h + PAYLOAD_OFFSET);
    bz->payload_len = get_le32(h + PAYLOAD_LENGTH);
    if (bz->payload_off > bz->prot_len || bz->payload_len > bz->prot_len - bz->payload_off) {
        return hv_fail(e, HV_USAGE, b->name, "is damaged: its payload is outside the kernel part");
    }
    bz->pref_address = get_le64(h + PREF_ADDRESS);
    bz->init_size = get_le32(h + INIT_SIZE);
    bz->cmdline_size = get_le32(h + CMDLINE_SIZE);
    bz->initrd_addr_max = get_le32(h + INITRD_ADDR_MAX);
    /* The alignment is 2 MiB in every 64-bit kernel, 16 MiB in Debian's 32-bit one; a page is what our own maps need. */
    if (bz->pref_address < KERNEL_LOWEST || bz->pref_address >= MEM_LOW_TOP ||
        bz->pref_address % HV_PAGE_SIZE != 0) {
        return hv_fail(e, HV_USAGE, b->name, "is damaged: it wants to be loaded at 0x%llx",
                       (unsigned long long)bz->pref_address);
    }
    read_version(b, h, bz->version, sizeof(bz->version));

    /* boot.rst: the header ends at 0x202 + the displacement of the jump at 0x200. */
    size_t end = MIN((size_t)HEADER + h[JUMP_LEN], have);
    end = MIN(MAX(end, (size_t)HEADER_FIXED_END), (size_t)SETUP_HEADER_END);
    memcpy(k->header, h + SETUP_HEADER_OFF, end - SETUP_HEADER_OFF);
    return 0;
}

/* The payload on its way into RAM. */
struct placing {
    const struct kernel_target *t;
    const char *name;
    uint64_t image_len;
    struct elf_plan plan;
    int refused;              /* by its headers; said when all of it turns out to be undamaged */
    struct hv_error why;
};

static int place(void *ctx, uint64_t off, const uint8_t *data, size_t len, struct hv_error *e)
{
    struct placing *p = ctx;

    if (off == 0) {
        struct blob head = blob_from_memory(data, len, p->name);
        p->refused = elf_detect(data, len) ? elf_plan(&head, p->image_len, p->t, &p->plan, &p->why) : 1;
        if (p->refused > 0) {
            return 1;
        }
    }
    return p->refused ? 0 : elf_place(&p->plan, p->t, off, data, len, p->name, e);
}

/*
 * Unpack the payload, an ELF file, to where it says. 0, 1 if this kernel has to unpack
 * itself (nothing was written), or an error. *ret_format names the compression.
 */
static int load_unpacked(const struct blob *b, const struct kernel_target *t, const struct bzimage *bz,
                         struct elf_kernel *elf, const char **ret_format, struct hv_error *e)
{
    struct placing p = { .t = t, .name = b->name };
    const uint64_t off = bz->prot_off + bz->payload_off;
    uint8_t head[16], size[4];
    int r;

    if (bz->payload_len < sizeof(head)) {
        return 1;
    }
    if ((r = blob_read(b, off, head, sizeof(head), e)) < 0 ||
        (r = blob_read(b, off + bz->payload_len - sizeof(size), size, sizeof(size), e)) < 0) {
        return r;
    }
    const struct unpack_format *f = unpack_detect(head, sizeof(head));
    if (!f) {
        return 1;
    }
    *ret_format = f->name;
    p.image_len = get_le32(size);
    if (p.image_len == 0 || p.image_len > UNPACK_MAX) {
        return hv_fail(e, HV_USAGE, b->name, "the kernel's payload is damaged: it claims to unpack to %llu bytes",
                       (unsigned long long)p.image_len);
    }
    /* Most of it will be RAM of the guest. */
    if (bz->pref_address + p.image_len / 2 > t->low_bytes) {
        return kernel_too_big(t, b->name, bz->pref_address + p.image_len, e);
    }
    r = unpack(f, b, off, bz->payload_len, p.image_len, place, &p, e);
    if (r == -EOPNOTSUPP) {
        r = 1;
    }
    if (r == 0 && p.refused) {
        r = p.refused;
        if (e) {
            *e = p.why;
        }
    }
    *elf = p.plan.kernel;
    return r;
}

int bzimage_load(const struct blob *b, const struct kernel_target *t, struct kernel *ret,
                 struct hv_error *e)
{
    struct kernel k = { .entry_kind = KERNEL_ENTRY_LINUX64 };
    struct bzimage bz;
    struct elf_kernel elf = { 0 };
    const char *format = "unknown";

    int r = parse(b, &k, &bz, e);
    if (r < 0) {
        return r;
    }
    k.cmdline_max = bz.cmdline_size;
    k.initrd_top = (uint64_t)bz.initrd_addr_max + 1;

    r = t->guest_unpacks || !bz.is_64bit ? 1 : load_unpacked(b, t, &bz, &elf, &format, e);
    if (r < 0) {
        return r;
    }
    bool unpacked = r == 0;
    if (unpacked) {
        k.entry = elf.entry;
        k.base = elf.base;
        k.end = elf.end;
    } else {
        /* init_size: what the decompressor and the unpacked kernel need from the load address on. */
        k.base = bz.pref_address;
        k.end = k.base + MAX((uint64_t)bz.init_size, bz.prot_len);
        k.entry = bz.is_64bit ? k.base + ENTRY_64 : k.base;
        k.entry_kind = bz.is_64bit ? KERNEL_ENTRY_LINUX64 : KERNEL_ENTRY_LINUX32;
        if (k.end > t->low_bytes) {
            return kernel_too_big(t, b->name, k.end, e);
        }
        if ((r = blob_read_guest(b, bz.prot_off, t->m, k.base, bz.prot_len, e)) < 0) {
            return r;
        }
    }
    snprintf(k.what, sizeof(k.what), "Linux %s, bzImage, %s", bz.version,
             unpacked ? format : "unpacks itself");
    *ret = k;
    return 0;
}
