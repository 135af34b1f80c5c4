/*
 * Signatures of file systems, as in the Linux headers named at each and as libblkid prints
 * labels and UUIDs.
 */
#include "hv/fs/probe.h"

#include <errno.h>
#include <stdio.h>

#include "hv/base/endian.h"

#define HEAD (68 * KIB)          /* btrfs has its superblock at 64 KiB */

static const char *const kind_word[PROBE_KIND_COUNT] = {
#define PROBE_WORD(id, word) [PROBE_##id] = word,
    PROBE_KINDS(PROBE_WORD)
#undef PROBE_WORD
};

/* A label of at most len bytes, ended by NUL or padding; nothing in it may steer a terminal. */
static void set_label(struct probe *p, const uint8_t *text, size_t len)
{
    size_t n = strnlen((const char *)text, len);

    n = MIN(n, sizeof(p->label) - 1);
    while (n > 0 && text[n - 1] == ' ') {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        p->label[i] = text[i] < 0x20 || text[i] == 0x7f ? '?' : (char)text[i];
    }
    p->label[n] = '\0';
}

static void set_uuid(struct probe *p, const uint8_t *u)
{
    if (memcmp(u, (uint8_t[16]){ 0 }, 16) == 0) {
        return;
    }
    snprintf(p->uuid, sizeof(p->uuid),
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3],
             u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

bool probe_is_ntfs(const uint8_t s[512])
{
    return memcmp(s + 3, "NTFS    ", 8) == 0;
}

/* A BIOS parameter block that makes sense: Microsoft's FAT specification 1.03, section 3. */
bool probe_is_fat(const uint8_t s[512])
{
    uint16_t bytes = get_le16(s + 11);
    uint8_t cluster = s[13];

    return (s[0] == 0xeb || s[0] == 0xe9) && get_le16(s + 510) == 0xaa55 &&
           (bytes == 512 || bytes == 1024 || bytes == 2048 || bytes == 4096) &&
           cluster && !(cluster & (cluster - 1)) && get_le16(s + 14) && (s[16] == 1 || s[16] == 2) &&
           (s[21] >= 0xf8 || s[21] == 0xf0) && (get_le16(s + 22) || get_le32(s + 36));
}

static void probe_fat(struct probe *p, const uint8_t *b)
{
    bool fat32 = get_le16(b + 22) == 0;
    const uint8_t *ext = b + (fat32 ? 64 : 36);     /* drive, reserved, 0x29, serial, label */
    uint32_t sectors = get_le16(b + 19) ? get_le16(b + 19) : get_le32(b + 32);

    p->size = (uint64_t)sectors * get_le16(b + 11);
    if (ext[2] == 0x29 || ext[2] == 0x28) {
        snprintf(p->uuid, sizeof(p->uuid), "%04X-%04X", get_le16(ext + 5), get_le16(ext + 3));
    }
    if (ext[2] == 0x29 && memcmp(ext + 7, "NO NAME    ", 11) != 0) {
        set_label(p, ext + 7, 11);
    }
}

/* Linux fs/ext4/ext4.h, struct ext4_super_block, at 1024. */
static void probe_ext(struct probe *p, const uint8_t *s)
{
    uint32_t compat = get_le32(s + 0x5c), incompat = get_le32(s + 0x60), ro = get_le32(s + 0x64);
    uint32_t log = get_le32(s + 0x18);
    uint64_t block = log < 7 ? (uint64_t)1024 << log : 1024;
    bool is64 = incompat & 0x80;
    uint64_t blocks = get_le32(s + 4) | (is64 ? (uint64_t)get_le32(s + 0x150) << 32 : 0);
    uint64_t unused = get_le32(s + 0xc) | (is64 ? (uint64_t)get_le32(s + 0x158) << 32 : 0);

    /* What ext3 does not know: everything but filetype, recover, journal_dev, meta_bg. */
    bool ext4 = (incompat & ~0x1eu) || (ro & ~0x7u);
    hv_strlcpy(p->type, ext4 ? "ext4" : compat & 4 ? "ext3" : "ext2", sizeof(p->type));
    if (__builtin_mul_overflow(blocks, block, &p->size)) {
        p->size = 0;
    }
    p->free_bytes = unused <= blocks && p->size ? unused * block : 0;
    p->dirty = incompat & 4;
    set_uuid(p, s + 0x68);
    set_label(p, s + 0x78, 16);
}

static void probe_iso(struct probe *p, const uint8_t *v)
{
    set_label(p, v + 40, 32);
    p->size = (uint64_t)get_le32(v + 80) * get_le16(v + 128);
}

static bool at(const uint8_t *b, size_t have, size_t off, const char *text, size_t len)
{
    return off + len <= have && memcmp(b + off, text, len) == 0;
}

static enum probe_kind look(const uint8_t *b, size_t have, struct probe *p)
{
    /* Swap: the signature ends the first page, whatever its size; mkswap(8). */
    static const uint32_t pages[] = { 4096, 8192, 16384, 65536 };

    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        if (at(b, have, pages[i] - 10, "SWAPSPACE2", 10)) {
            set_uuid(p, b + 1024 + 12);
            set_label(p, b + 1024 + 28, 16);
            p->size = ((uint64_t)get_le32(b + 1024 + 4) + 1) * pages[i];
            return PROBE_SWAP;
        }
    }
    if (have >= 2048 && get_le16(b + 1024 + 0x38) == 0xef53) {
        probe_ext(p, b + 1024);
        return PROBE_EXT;
    }
    if (at(b, have, 0, "XFSB", 4)) {
        set_uuid(p, b + 32);
        set_label(p, b + 108, 12);
        p->size = get_be64(b + 8) <= UINT64_MAX / 65536 ? get_be64(b + 8) * MIN(get_be32(b + 4), 65536u) : 0;
        return PROBE_XFS;
    }
    if (at(b, have, 65536 + 0x40, "_BHRfS_M", 8)) {
        set_uuid(p, b + 65536 + 0x20);
        set_label(p, b + 65536 + 0x12b, 256);
        p->size = get_le64(b + 65536 + 0x70);
        return PROBE_BTRFS;
    }
    for (unsigned sector = 0; sector < 4; sector++) {
        if (at(b, have, sector * 512, "LABELONE", 8) && at(b, have, sector * 512 + 24, "LVM2 001", 8)) {
            const char *u = (const char *)b + sector * 512 + 32;
            snprintf(p->uuid, sizeof(p->uuid), "%.6s-%.4s-%.4s-%.4s-%.4s-%.4s-%.6s", u, u + 6, u + 10, u + 14,
                     u + 18, u + 22, u + 26);
            return PROBE_LVM;
        }
    }
    if (at(b, have, 0, "LUKS\xba\xbe", 6)) {
        hv_strlcpy(p->uuid, (const char *)b + 168, MIN(sizeof(p->uuid), 37));
        return PROBE_LUKS;
    }
    if (at(b, have, 0, "hsqs", 4)) {
        p->size = get_le64(b + 40);
        return PROBE_SQUASHFS;
    }
    if (have >= 1152 && get_le32(b + 1024) == 0xe0f5e1e2) {
        set_uuid(p, b + 1024 + 48);
        set_label(p, b + 1024 + 64, 16);
        return PROBE_EROFS;
    }
    if (have >= 1152 && get_le32(b + 1024) == 0xf2f52010) {
        set_uuid(p, b + 1024 + 108);
        return PROBE_F2FS;
    }
    if (have >= 512 && at(b, have, 3, "EXFAT   ", 8)) {
        return PROBE_EXFAT;
    }
    if (at(b, have, 3, "ReFS\0\0\0\0", 8)) {
        return PROBE_REFS;
    }
    if (have >= 512 && probe_is_ntfs(b)) {
        snprintf(p->uuid, sizeof(p->uuid), "%016llX", (unsigned long long)get_le64(b + 72));
        return PROBE_NTFS;
    }
    /* ISO 9660 volume descriptors, ECMA-119 8: type 1 at sector 16. */
    if (at(b, have, 32768 + 1, "CD001", 5) && b[32768] == 1) {
        probe_iso(p, b + 32768);
        return PROBE_ISO;
    }
    if (have >= 512 && probe_is_fat(b)) {
        probe_fat(p, b);
        return PROBE_FAT;
    }
    return PROBE_NONE;
}

int probe_read(struct disk *d, uint64_t off, uint64_t len, struct probe *ret)
{
    struct probe p = { .kind = PROBE_NONE };
    size_t have = (size_t)MIN(len, HEAD);
    hv_autofree uint8_t *b = hv_alloc(HEAD);

    if (!b) {
        return -ENOMEM;
    }
    int r = have ? disk_read(d, off, b, have) : 0;
    if (r < 0) {
        return r;
    }
    p.kind = look(b, have, &p);
    if (!p.type[0]) {
        hv_strlcpy(p.type, kind_word[p.kind], sizeof(p.type));
    }
    /* UUIDs that are text come from the disk as well. */
    for (char *c = p.uuid; *c; c++) {
        if (*c < 0x20 || *c > 0x7e) {
            *c = '?';
        }
    }
    *ret = p;
    return 0;
}
