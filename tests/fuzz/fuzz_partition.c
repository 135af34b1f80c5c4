/*
 * Partition tables and signatures from a stranger. The first byte chooses what the rest is: bytes
 * of a disk from its start, or patches to a GPT or an MBR with logical partitions. Checksums of a
 * patched GPT are put right where the second bit says so. What is accepted lies on the disk.
 */
#include "hv/fs/partition.h"
#include "tests/fuzz/fuzz_fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define PARTITION_IMAGE (4 * MIB)

static void make_gpt(struct fuzz_bytes *b)
{
    struct partition p[2] = {
        { .number = 1, .offset = MIB, .len = MIB, .type = partition_gpt_type(PARTITION_ESP), .name = "one" },
        { .number = 5, .offset = 2 * MIB, .len = MIB, .type = partition_gpt_type(PARTITION_LINUX), .name = "two" } };
    struct partition_table t = { .scheme = PARTITION_GPT, .p = p, .n = 2 };
    struct disk *d = fuzz_disk(b);

    hv_assert(partition_write(d, &t, NULL) == 0);
    disk_close(d, NULL);
}

static void make_mbr(struct fuzz_bytes *b)
{
    static const struct { unsigned sector, entry; uint8_t type; uint32_t first, count; } e[] = {
        { 0, 0, 0x83, 64, 100 }, { 0, 1, 0x0f, 1024, 4096 }, { 1024, 0, 0x83, 8, 100 }, { 1024, 1, 0x05, 512, 512 },
        { 1536, 0, 0x83, 8, 100 } };

    for (unsigned i = 0; i < ARRAY_SIZE(e); i++) {
        uint8_t *p = b->p + e[i].sector * 512;
        put_le16(p + 510, 0xaa55);
        p[446 + 16 * e[i].entry + 4] = e[i].type;
        put_le32(p + 446 + 16 * e[i].entry + 8, e[i].first);
        put_le32(p + 446 + 16 * e[i].entry + 12, e[i].count);
    }
}

static void fix_crc(uint8_t *h, const uint8_t *entries)
{
    uint64_t bytes = (uint64_t)get_le32(h + 80) * get_le32(h + 84);

    if (bytes <= 64 * KIB) {
        put_le32(h + 88, partition_crc32(0, entries, bytes));
    }
    put_le32(h + 16, 0);
    put_le32(h + 16, partition_crc32(0, h, MIN(get_le32(h + 12), 512u)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct fuzz_bytes base[3], image;
    static const uint16_t units[] = { 0, 1, 4, 128, 192, 1015, 1019, 1023 };
    struct partition_table t;
    struct hv_error e = { 0 };

    if (!image.p) {
        image = (struct fuzz_bytes){ hv_alloc(PARTITION_IMAGE + 8192), PARTITION_IMAGE };
        for (unsigned i = 0; i < 3; i++) {
            base[i] = (struct fuzz_bytes){ hv_alloc(PARTITION_IMAGE), PARTITION_IMAGE };
            hv_assert(base[i].p && image.p);
        }
        make_gpt(&base[1]);
        make_mbr(&base[2]);
    }
    if (len < 1) {
        return 0;
    }
    unsigned which = data[0] % 3;
    memcpy(image.p, base[which].p, PARTITION_IMAGE);
    if (which == 0) {
        memcpy(image.p, data + 1, MIN(len - 1, (size_t)PARTITION_IMAGE));
    } else {
        fuzz_patch(&image, units, ARRAY_SIZE(units), data + 1, len - 1);
        if (data[0] & 0x80) {
            fix_crc(image.p + 512, image.p + 1024);
        }
    }
    struct disk *d = fuzz_disk(&image);
    if (partition_read(d, &t, &e) == 0) {
        hv_assert(memchr(t.note, 0, sizeof(t.note)));
        for (unsigned i = 0; i < t.n; i++) {
            struct probe p;
            hv_assert(t.p[i].len <= PARTITION_IMAGE && t.p[i].offset <= PARTITION_IMAGE - t.p[i].len);
            hv_assert(memchr(t.p[i].name, 0, sizeof(t.p[i].name)));
            hv_assert(probe_read(d, t.p[i].offset, t.p[i].len, &p) == 0);
            partition_type_name(&t, &t.p[i]);
        }
        if (t.scheme != PARTITION_NONE) {
            partition_write(d, &t, &e);              /* may refuse; must not go astray */
        }
        partition_table_fini(&t);
    } else {
        hv_assert(e.message[0]);
    }
    struct probe p;
    hv_assert(probe_read(d, 0, PARTITION_IMAGE, &p) == 0 && memchr(p.label, 0, sizeof(p.label)));
    disk_close(d, NULL);
    return 0;
}
