/*
 * A hostile VHDX. The first byte of the input chooses an image (dynamic, child, fixed, with a
 * log to replay) and whether checksums are made right again after the rest, patches
 * {u8 place, u16 offset, u8 count, bytes}, was applied; so the fuzzer is past the CRCs from the
 * start. A count of 0 cuts the file.
 *
 * Checked besides memory safety: check and dry repair write nothing; what check finds clean
 * opens, and stays clean through writes, growing and compacting; what it finds repairable
 * only is clean after repair; what is refused says why.
 *
 * tests/unit/disk/test_fuzz_vhdx.c runs it with a fixed seed.
 */
#include "tests/unit/disk/vhdx_fixture.h"

#include "hv/disk/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { FUZZ_DYNAMIC, FUZZ_CHILD, FUZZ_FIXED, FUZZ_DIRTY, FUZZ_IMAGES };
enum { FUZZ_RESEAL = 0x80 };

#define FUZZ_SIZE (6 * MIB)

/* Where a patch's offset counts from: the structures, of images as vhdx_create.c lays them out. */
#ifndef FUZZ_PLACES                      /* fuzz_vhdx_*.c: one structure alone */
#define FUZZ_PLACES \
    0, 64 * KIB, 128 * KIB, 192 * KIB, 256 * KIB, MIB, MIB + 4096, MIB + 12288, 2 * MIB, 2 * MIB + 32, 2 * MIB + 64 * KIB, \
    2 * MIB + 64 * KIB + 512, 3 * MIB, 3 * MIB + 4096 * 8, 4 * MIB, 5 * MIB
#endif
static const uint64_t fuzz_places[] = { FUZZ_PLACES };

static void fuzz_fill(struct image_chain *c, unsigned i)
{
    static uint8_t data[1 << 20];
    struct disk *d = chain_open(c, i, DISK_WRITE);

    memset(data, 0x5a, sizeof(data));
    hv_assert(disk_write(d, 0, data, 8192) == 0);
    hv_assert(disk_write(d, 2 * MIB, data, MIB) == 0);
    hv_assert(disk_write(d, 5 * MIB + 512, data, 512) == 0);
    must_close(d);
}

static struct memfile *fuzz_image(unsigned kind)
{
    struct image_chain c = { 0 };
    struct memfile *m;
    struct disk *d;

    chain_add(&c, (struct disk_create){ .type = kind == FUZZ_FIXED ? DISK_FIXED : DISK_DYNAMIC, .size = FUZZ_SIZE,
                                        .block_size = 1 << 20 });
    if (kind == FUZZ_CHILD) {
        chain_add(&c, (struct disk_create){ .block_size = 1 << 20 });
    }
    fuzz_fill(&c, c.count - 1);
    if (kind == FUZZ_DIRTY) {
        d = chain_open(&c, 0, DISK_WRITE);
        for (uint64_t i = 1; i < 5; i += 2) {
            hv_assert(disk_write(d, i * MIB, "dirty", 5) == 0);
            hv_assert(disk_flush(d) == 0);
        }
        disk_abandon(d);
    }
    m = memfile_copy(c.m[c.count - 1]);
    chain_fini(&c);
    return m;
}

static void fuzz_sum(struct memfile *m, uint64_t off, uint64_t len)
{
    static uint8_t buf[65536];
    uint32_t crc = 0;

    memset(buf, 0, 4);
    memfile_write(m, off + 4, buf, 4);
    for (uint64_t done = 0; done < len; done += sizeof(buf)) {
        uint64_t n = MIN(len - done, sizeof(buf));

        memfile_read(m, off + done, buf, n);
        crc = crc32c(crc, buf, n);
    }
    put_le32(buf, crc);
    memfile_write(m, off + 4, buf, 4);
}

static void fuzz_reseal(struct memfile *m)
{
    uint8_t head[16];

    for (int i = 0; i < 2; i++) {
        fuzz_sum(m, VHDX_HEADER_OFF(i), VHDX_HEADER_SIZE);
        fuzz_sum(m, VHDX_REGIONS_OFF(i), VHDX_REGIONS_SIZE);
    }
    for (uint64_t off = MIB; off < MIB + 64 * KIB; off += 4096) {
        memfile_read(m, off, head, sizeof(head));
        if (memcmp(head, "loge", 4) == 0 && get_le32(head + 8) <= 2 * MIB - off) {
            fuzz_sum(m, off, get_le32(head + 8));
        }
    }
}

static struct memfile *fuzz_patched(const struct memfile *base, const uint8_t *p, size_t len, bool reseal)
{
    struct memfile *m = memfile_copy(base);
    uint64_t size = memfile_size(m);

    while (len >= 4) {
        uint64_t off = fuzz_places[p[0] % ARRAY_SIZE(fuzz_places)] + get_le16(p + 1);
        size_t count = MIN((size_t)p[3], len - 4);

        if (p[3] == 0) {
            size = off;
        } else {
            memfile_write(m, off, p + 4, count);
        }
        p += 4 + count;
        len -= 4 + count;
    }
    if (reseal) {
        fuzz_reseal(m);
    }
    memfile_resize(m, MIN(size, 64 * MIB));
    return m;
}

static struct findings fuzz_check(struct memfile *m, int *ret)
{
    struct disk_file *f = memfile_open(m, "/memory/fuzz.vhdx", 0);
    struct findings fs = { 0 };
    struct hv_error e = { 0 };

    *ret = disk_check_file(f, DISK_VHDX, add_finding, &fs, &e);
    hv_assert(*ret == 0 || e.message[0]);
    disk_file_unref(f);
    return fs;
}

static int fuzz_open(struct memfile *m, unsigned flags, struct disk **ret)
{
    struct disk_options o = { .format = DISK_VHDX, .flags = flags | DISK_NO_PARENT };
    struct hv_error e = { 0 };
    int r = disk_open_file(memfile_open(m, "/memory/fuzz.vhdx", flags & DISK_WRITE ? DISK_FILE_WRITE : 0), &o, ret, &e);

    hv_assert(r == 0 || e.message[0]);
    return r;
}

static void fuzz_read(struct disk *d)
{
    static const uint64_t at[] = { 0, 8190, MIB, 2 * MIB - 512, 5 * MIB, 5 * MIB + 1000 };
    uint8_t buf[4096];
    struct disk_info info;
    struct disk_extent x;
    uint64_t off = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        if (at[i] < disk_size(d)) {
            disk_read(d, at[i], buf, MIN(sizeof(buf), disk_size(d) - at[i]));
        }
    }
    for (unsigned i = 0; i < 100 && off < disk_size(d) && disk_map(d, off, disk_size(d) - off, &x) == 0; i++) {
        hv_assert(x.len > 0 && x.len <= disk_size(d) - off);
        off += x.len;
    }
    disk_layer_info(disk_layer(d, 0), false, &info);
    hv_assert(memchr(info.note, 0, sizeof(info.note)) && memchr(info.creator, 0, sizeof(info.creator)));
}

/* Errors are the file's fault; a clean image gives none, and stays clean. */
static void fuzz_write(struct memfile *m, bool clean)
{
    struct hv_error e = { 0 };
    struct disk *d = NULL;
    int r = fuzz_open(m, DISK_WRITE, &d);

    hv_assert(r == 0 || !clean);
    if (r < 0) {
        return;
    }
    clean = clean && memfile_size(m) < VHDX_FILE_MAX / 2;    /* a log may ask for a file with no room to grow */
    for (uint64_t off = 0; off + 8192 < disk_size(d) && off < 16 * MIB; off += 1100 * KIB) {
        r = disk_write(d, off, "0123456789abcdef", 16);
        hv_assert(r == 0 || !clean || r == -ENOLINK);
        r = disk_zero(d, off / MIB * MIB, MIN(MIB, disk_size(d) - off / MIB * MIB));
        hv_assert(r == 0 || !clean || r == -ENOLINK);
        r = disk_write(d, (off + 4096) / 4096 * 4096, "0123456789abcdef", 16);
        hv_assert(r == 0 || !clean || r == -ENOLINK);
    }
    r = disk_flush(d);
    hv_assert(r == 0 || !clean);
    if (disk_size(d) < 64 * MIB) {
        r = disk_resize(d, disk_size(d) + 4096 * 999, &e);
        hv_assert(r == 0 || !clean || strstr(e.message, "shared"));
    }
    if (disk_layer(d, 0)->type != DISK_FIXED) {
        r = disk_compact(d, false, NULL, NULL, &e);
        hv_assert(r == 0 || !clean);
    }
    disk_close(d, &e);
    if (clean) {
        struct findings fs = fuzz_check(m, &r);

        if (r < 0 || fs.count) {
            fprintf(stderr, "%s", fs.text);
        }
        hv_assert(r == 0 && fs.count == 0);
    }
}

static void fuzz_repair(struct memfile *m, const struct findings *before)
{
    struct disk_file *f = memfile_open(m, "/memory/fuzz.vhdx", DISK_FILE_WRITE);
    struct findings done = { 0 }, after;
    struct hv_error e = { 0 };
    int r = disk_repair_file(f, DISK_VHDX, false, add_finding, &done, &e);

    hv_assert(r == 0 || e.message[0]);
    disk_file_unref(f);
    after = fuzz_check(m, &r);
    if (before->repairable == before->count + before->harmless && before->count && r == 0 && after.count) {
        fprintf(stderr, "before:\n%sdone:\n%safter:\n%s", before->text, done.text, after.text);
        hv_assert(!"repairable, and not clean after repair");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct memfile *images[FUZZ_IMAGES];
    struct memfile *m, *again;
    struct findings fs;
    struct disk *d;
    int r;

    if (len < 1) {
        return 0;
    }
    for (unsigned i = 0; i < FUZZ_IMAGES && !images[FUZZ_IMAGES - 1]; i++) {
        images[i] = fuzz_image(i);
    }
    m = fuzz_patched(images[data[0] % 0x80 % FUZZ_IMAGES], data + 1, len - 1, data[0] & FUZZ_RESEAL);
    again = memfile_copy(m);
    fs = fuzz_check(m, &r);
    if (fuzz_open(m, 0, &d) == 0) {
        hv_assert(disk_size(d) <= DISK_MAX_SIZE);
        fuzz_read(d);
        disk_close(d, NULL);
    } else {
        hv_assert(r < 0 || fs.count > 0);
    }
    hv_assert(memfile_equal(m, again));
    fuzz_write(m, r == 0 && fs.count == 0);
    if (r == 0) {
        fuzz_repair(again, &fs);
    }
    memfile_free(m);
    memfile_free(again);
    return 0;
}
