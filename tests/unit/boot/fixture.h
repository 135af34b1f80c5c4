/* Kernels made by hand, and a VM's RAM to load them into. Include after cmocka. */
#ifndef TESTS_UNIT_BOOT_FIXTURE_H
#define TESTS_UNIT_BOOT_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/base/base.h"
#include "hv/base/endian.h"
#include "hv/boot/boot.h"

struct bytes { uint8_t *p; size_t len; };

/* A file in memory with these bytes; -1 for none. */
static inline int file_of(const void *p, size_t len)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(hv_write_all(fd, p, len), 0);
    return fd;
}

/* One boot: its configuration, its RAM, and what came of it. */
struct vm {
    struct layout layout;
    struct boot_config cfg;
    struct mem *m;
    struct boot_result res;
    struct hv_error e;
};

static inline void vm_init(struct vm *v, uint64_t ram)
{
    *v = (struct vm){ 0 };
    assert_int_equal(layout_plan(ram, ram, 46, &v->layout, &v->e), 0);
    v->cfg = (struct boot_config){
        .name = "web1",
        .id = { { 0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff } },
        .vcpus = 2,
        .layout = &v->layout,
        .board = BOOT_BOARD_DEFAULT,
        .kernel_fd = -1,
        .initrd_fd = -1,
        .kernel_name = "vmlinuz",
        .initrd_name = "initrd.img",
    };
    assert_int_equal(mem_new("test", -1, &v->m, NULL), 0);
    assert_int_equal(mem_add_ram(v->m, 0, v->layout.low_bytes, NULL), 0);
    if (v->layout.high_bytes) {
        assert_int_equal(mem_add_ram(v->m, MEM_HIGH_BASE, v->layout.high_bytes, NULL), 0);
    }
}

static inline void vm_fini(struct vm *v)
{
    mem_free(v->m);
    if (v->cfg.kernel_fd >= 0) {
        close(v->cfg.kernel_fd);
    }
    if (v->cfg.initrd_fd >= 0) {
        close(v->cfg.initrd_fd);
    }
}

static inline void vm_kernel(struct vm *v, const void *p, size_t len)
{
    if (v->cfg.kernel_fd >= 0) {
        close(v->cfg.kernel_fd);
    }
    v->cfg.kernel_fd = file_of(p, len);
}

static inline void vm_initrd(struct vm *v, const void *p, size_t len)
{
    if (v->cfg.initrd_fd >= 0) {
        close(v->cfg.initrd_fd);
    }
    v->cfg.initrd_fd = file_of(p, len);
}

static inline int vm_boot(struct vm *v)
{
    hv_error_clear(&v->e);
    return boot_prepare(&v->cfg, v->m, &v->res, &v->e);
}

static inline void vm_boots(struct vm *v)
{
    int r = vm_boot(v);
    if (r != 0) {
        fail_msg("%s: %s (%s)", v->e.object, v->e.message, v->e.hint);
    }
}

/* The boot is refused with this code and a message that has text in it. */
static inline void vm_refuses(struct vm *v, enum hv_code code, const char *text)
{
    int r = vm_boot(v);
    if (r == 0) {
        fail_msg("booted, expected: %s", text);
    }
    if (v->e.code != code || !strstr(v->e.message, text)) {
        fail_msg("expected %s \"%s\", got %s \"%s\"", hv_code_word(code), text, hv_code_word(v->e.code),
                 v->e.message);
    }
    assert_int_equal(hv_code_from_errno(-r), code);
}

static inline uint32_t ram32(struct vm *v, gpa_t gpa)
{
    uint8_t b[4];
    assert_int_equal(mem_read(v->m, gpa, b, sizeof(b)), 0);
    return get_le32(b);
}
static inline uint64_t ram64(struct vm *v, gpa_t gpa)
{
    uint8_t b[8];
    assert_int_equal(mem_read(v->m, gpa, b, sizeof(b)), 0);
    return get_le64(b);
}

/* A vmlinux in small: text at 16 MiB that says what it is, bss behind it, perhaps the PVH note. */
#define ELF_PADDR 0x1000000u
#define ELF_VADDR 0xffffffff81000000u
#define ELF_TEXT_OFF 0x1000u
#define ELF_TEXT_LEN 0x800u
#define ELF_MEM_LEN  0x300000u
#define ELF_PVH_ENTRY (ELF_PADDR + 0x50)
#define ELF_BANNER "Linux version 9.9.9-test (someone@somewhere)"
enum { ELF_PHDR_LOAD = 64, ELF_PHDR_NOTE = 64 + 56, ELF_NOTE_OFF = 0x200 };

static inline struct bytes elf_make(bool linux_banner, bool pvh)
{
    struct bytes b = { hv_alloc(ELF_TEXT_OFF + ELF_TEXT_LEN), ELF_TEXT_OFF + ELF_TEXT_LEN };
    uint8_t *p = b.p;

    assert_non_null(p);
    memcpy(p, "\x7f" "ELF\x02\x01\x01", 7);
    put_le16(p + 16, 2);
    put_le16(p + 18, 62);
    put_le32(p + 20, 1);
    put_le64(p + 24, ELF_PADDR);
    put_le64(p + 32, 64);
    put_le16(p + 52, 64);
    put_le16(p + 54, 56);
    put_le16(p + 56, pvh ? 2 : 1);

    uint8_t *ph = p + ELF_PHDR_LOAD;
    put_le32(ph, 1);
    put_le64(ph + 8, ELF_TEXT_OFF);
    put_le64(ph + 16, ELF_VADDR);
    put_le64(ph + 24, ELF_PADDR);
    put_le64(ph + 32, ELF_TEXT_LEN);
    put_le64(ph + 40, ELF_MEM_LEN);
    if (pvh) {
        ph = p + ELF_PHDR_NOTE;
        put_le32(ph, 4);
        put_le64(ph + 8, ELF_NOTE_OFF);
        put_le64(ph + 32, 44);
        uint8_t *n = p + ELF_NOTE_OFF;      /* a GNU note of odd length before it */
        put_le32(n, 4);
        put_le32(n + 4, 3);
        put_le32(n + 8, 3);
        memcpy(n + 12, "GNU\0abc", 7);
        n += 20;
        put_le32(n, 4);
        put_le32(n + 4, 8);
        put_le32(n + 8, 18);
        memcpy(n + 12, "Xen", 4);
        put_le64(n + 16, ELF_PVH_ENTRY);
    }
    memset(p + ELF_TEXT_OFF, 0x90, ELF_TEXT_LEN);
    if (linux_banner) {
        memcpy(p + ELF_TEXT_OFF + 0x100, ELF_BANNER, sizeof(ELF_BANNER));
    }
    return b;
}

/* lz4's legacy frame with one block of literals only: no compressor needed. Size appended, as Linux does. */
static inline struct bytes lz4_legacy(const uint8_t *in, size_t len)
{
    struct bytes b = { hv_alloc(len + len / 255 + 64), 0 };
    uint8_t *p = b.p;

    assert_non_null(p);
    memcpy(p, "\x02\x21\x4c\x18", 4);
    uint8_t *start = p + 8, *q = start;
    assert_true(len >= 15);
    *q++ = 0xF0;
    size_t left = len - 15;
    for (; left >= 255; left -= 255) {
        *q++ = 255;
    }
    *q++ = (uint8_t)left;
    memcpy(q, in, len);
    q += len;
    put_le32(p + 4, (uint32_t)(q - start));
    put_le32(q, (uint32_t)len);
    b.len = (size_t)(q + 4 - p);
    return b;
}

/* A bzImage around a payload: one setup sector behind the boot sector, protocol 2.15. */
#define BZ_PROT_OFF 1024u
#define BZ_PAYLOAD  0x300u     /* in the protected-mode part */
#define BZ_INIT_SIZE 0x800000u
#define BZ_VERSION_STRING "9.9.9-test (someone@somewhere) #1 SMP"

static inline struct bytes bzimage_make(const uint8_t *payload, size_t len)
{
    size_t prot = ROUND_UP(BZ_PAYLOAD + len, 16);
    struct bytes b = { hv_alloc(BZ_PROT_OFF + prot), BZ_PROT_OFF + prot };
    uint8_t *p = b.p;

    assert_non_null(p);
    memcpy(p, "MZ", 2);
    p[0x1F1] = 1;
    put_le32(p + 0x1F4, (uint32_t)(prot / 16));
    put_le16(p + 0x1FE, 0xAA55);
    p[0x200] = 0xEB;
    p[0x201] = 0x6A;                        /* header ends at 0x26C */
    memcpy(p + 0x202, "HdrS", 4);
    put_le16(p + 0x206, 0x020F);
    put_le16(p + 0x20E, 0x300 - 0x200);     /* version string at 0x300 */
    p[0x211] = 0x01;
    put_le32(p + 0x22C, 0x7FFFFFFF);
    put_le32(p + 0x230, 0x200000);
    p[0x234] = 1;
    put_le16(p + 0x236, 0x7F);
    put_le32(p + 0x238, 2047);
    put_le32(p + 0x248, BZ_PAYLOAD);
    put_le32(p + 0x24C, (uint32_t)len);
    put_le64(p + 0x258, ELF_PADDR);
    put_le32(p + 0x260, BZ_INIT_SIZE);
    memcpy(p + 0x300, BZ_VERSION_STRING, sizeof(BZ_VERSION_STRING));
    memset(p + BZ_PROT_OFF, 0xF4, BZ_PAYLOAD);
    memcpy(p + BZ_PROT_OFF + BZ_PAYLOAD, payload, len);
    return b;
}

/* The usual one: an lz4 payload with a small vmlinux. */
static inline struct bytes bzimage_lz4(void)
{
    struct bytes elf = elf_make(true, true);
    struct bytes packed = lz4_legacy(elf.p, elf.len);
    struct bytes bz = bzimage_make(packed.p, packed.len);
    free(elf.p);
    free(packed.p);
    return bz;
}

#endif
