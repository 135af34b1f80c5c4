/*
 * A hostile VHD. The first byte of the input chooses an image (dynamic, child, fixed) and
 * whether checksums are made right again after the rest, patches {u8 place, u16 offset, u8
 * count, bytes}, was applied. A count of 0 cuts the file.
 *
 * Checked besides memory safety: check and dry repair write nothing; what check finds clean
 * opens and stays clean through writes, growing and compacting; what it finds repairable only
 * is clean after repair; what is refused says why.
 *
 * tests/unit/disk/test_fuzz_vhd.c runs it with a fixed seed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/base/endian.h"
#include "hv/disk/disk_impl.h"
#include "hv/disk/vhd.h"
#include "tests/unit/disk/memfile.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { FUZZ_DYNAMIC, FUZZ_CHILD, FUZZ_FIXED, FUZZ_IMAGES, FUZZ_RESEAL = 0x80 };

#define FUZZ_SIZE (3 * MIB + 512)
#define FUZZ_FILE_MAX (64 * MIB)

/* Footer, header, BAT, locators, the first blocks, the end: as vhd_create.c lays them out. */
#ifndef FUZZ_PLACES                      /* fuzz_vhd_*.c: one structure alone */
#define FUZZ_PLACES \
    0, 48, 60, 512, 512 + 16, 512 + 28, 512 + 576, 1536, 1536 + 12, 2048, 4096, 6144, \
    4096 + 512 * KIB, 1 * MIB, 2 * MIB, 3 * MIB
#endif
static const uint64_t fuzz_places[] = { FUZZ_PLACES };

static struct disk *fuzz_must_open(struct memfile *m, unsigned flags)
{
    struct disk_options o = { .format = DISK_VHD, .flags = flags | DISK_NO_PARENT };
    struct hv_error e = { 0 };
    struct disk *d = NULL;

    hv_assert(disk_open_file(memfile_open(m, "/memory/a.vhd", flags & DISK_WRITE ? DISK_FILE_WRITE : 0), &o, &d, &e) == 0);
    return d;
}

static struct memfile *fuzz_create(struct disk_create c, struct disk *parent)
{
    struct memfile *m = memfile_new();
    struct disk_file *f = memfile_open(m, "/memory/a.vhd", DISK_FILE_WRITE);
    struct hv_error e = { 0 };

    c.kind = DISK_VHD;
    hv_assert(disk_create_in(f, &c, parent, &e) == 0);
    disk_file_unref(f);
    return m;
}

static struct memfile *fuzz_image(unsigned kind)
{
    static uint8_t data[64 * KIB];
    struct memfile *base = NULL, *m;
    struct disk *d;

    memset(data, 0x5a, sizeof(data));
    if (kind == FUZZ_CHILD) {
        base = fuzz_create((struct disk_create){ .type = DISK_DYNAMIC, .size = FUZZ_SIZE, .block_size = 512 * KIB }, NULL);
        d = fuzz_must_open(base, 0);
        m = fuzz_create((struct disk_create){ .block_size = 512 * KIB }, d);
        disk_close(d, NULL);
    } else {
        m = fuzz_create((struct disk_create){ .type = kind == FUZZ_FIXED ? DISK_FIXED : DISK_DYNAMIC, .size = FUZZ_SIZE,
                                              .block_size = kind == FUZZ_FIXED ? 0 : 512 * KIB }, NULL);
    }
    d = fuzz_must_open(m, DISK_WRITE);
    hv_assert(disk_write(d, 0, data, 8192) == 0 && disk_write(d, MIB, data, sizeof(data)) == 0 &&
              disk_write(d, FUZZ_SIZE - 512, data, 512) == 0);
    disk_close(d, NULL);
    memfile_free(base);
    return m;
}

static void fuzz_reseal(struct memfile *m, bool fixed)
{
    uint64_t at[2] = { 0, memfile_size(m) - MIN(memfile_size(m), VHD_FOOTER_SIZE) };
    uint8_t footer[VHD_FOOTER_SIZE], header[VHD_HEADER_SIZE];

    for (int i = fixed; i < 2; i++) {
        memfile_read(m, at[i], footer, sizeof(footer));
        vhd_seal_footer(footer);
        memfile_write(m, at[i], footer, sizeof(footer));
    }
    if (!fixed) {
        memfile_read(m, VHD_FOOTER_SIZE, header, sizeof(header));
        vhd_seal_header(header);
        memfile_write(m, VHD_FOOTER_SIZE, header, sizeof(header));
    }
}

static struct memfile *fuzz_patched(const struct memfile *from, const uint8_t *p, size_t len, unsigned how, bool fixed)
{
    struct memfile *m = memfile_copy(from);
    uint64_t whole = memfile_size(m), size = whole;

    while (len >= 4) {
        uint64_t off = fuzz_places[p[0] % ARRAY_SIZE(fuzz_places)] + get_le16(p + 1);
        size_t count = MIN((size_t)p[3], len - 4);

        if (p[3] == 0) {
            size = off;
        } else {
            /* The odd ones count from the end: the footer there. */
            off = p[0] & 0x40 && off < VHD_FOOTER_SIZE ? whole - VHD_FOOTER_SIZE + off : off;
            memfile_write(m, off, p + 4, count);
        }
        p += 4 + count;
        len -= 4 + count;
    }
    memfile_resize(m, MIN(size, FUZZ_FILE_MAX));
    if (how & FUZZ_RESEAL && memfile_size(m) > 4096) {
        fuzz_reseal(m, fixed);
    }
    return m;
}

struct fuzz_findings { unsigned count, repairable; char text[1024]; };

static void fuzz_problem(void *arg, const struct disk_problem *p)
{
    struct fuzz_findings *fs = arg;

    fs->count += !p->harmless;
    fs->repairable += p->repairable;
    if (!p->harmless) {
        snprintf(fs->text, sizeof(fs->text), "%s", p->text);
    }
}

static struct fuzz_findings fuzz_check(struct memfile *m, bool repair, bool dry)
{
    struct disk_file *f = memfile_open(m, "/memory/a.vhd", repair && !dry ? DISK_FILE_WRITE : 0);
    struct fuzz_findings fs = { 0 };
    struct hv_error e = { 0 };
    int r = repair ? disk_repair_file(f, DISK_VHD, dry, fuzz_problem, &fs, &e)
                   : disk_check_file(f, DISK_VHD, fuzz_problem, &fs, &e);

    hv_assert(r == 0 || e.message[0]);
    disk_file_unref(f);
    return fs;
}

static int fuzz_open(struct memfile *m, unsigned flags, struct disk **ret)
{
    struct disk_options o = { .format = DISK_VHD, .flags = flags | DISK_NO_PARENT };
    struct hv_error e = { 0 };
    int r = disk_open_file(memfile_open(m, "/memory/a.vhd", flags & DISK_WRITE ? DISK_FILE_WRITE : 0), &o, ret, &e);

    hv_assert(r == 0 || e.message[0]);
    if (r < 0 && getenv("HV_FUZZ_SAY")) {
        fprintf(stderr, "%s\n", e.message);
    }
    return r;
}

static void fuzz_use(struct memfile *m, bool clean)
{
    uint8_t buf[4096];
    struct hv_error e = { 0 };
    struct disk_info info;
    struct disk *d = NULL;
    struct disk_extent x;
    uint64_t off = 0, size;
    int r = fuzz_open(m, DISK_WRITE, &d);

    hv_assert(r == 0 || !clean);
    if (r < 0) {
        return;
    }
    size = disk_size(d);
    disk_layer_info(disk_layer(d, 0), false, &info);
    hv_assert(memchr(info.note, 0, sizeof(info.note)) && memchr(info.creator, 0, sizeof(info.creator)));
    for (unsigned i = 0; i < 100 && off < size && disk_map(d, off, size - off, &x) == 0; i++) {
        hv_assert(x.len > 0 && x.len <= size - off);
        off += x.len;
    }
    for (off = 0; off + sizeof(buf) <= size && off < 8 * MIB; off += 300 * KIB) {
        r = disk_read(d, off, buf, sizeof(buf));
        hv_assert(r == 0 || !clean || r == -ENOLINK);
        r = disk_write(d, off / 512 * 512, buf, sizeof(buf));
        hv_assert(r == 0 || !clean);
        r = disk_zero(d, off, MIN(size - off, 520 * KIB));
        hv_assert(r == 0 || !clean || r == -ENOLINK);
    }
    r = disk_flush(d);
    hv_assert(r == 0 || !clean);
    if (size < 32 * MIB && disk_resize(d, size + 40 * MIB, &e) < 0) {
        hv_assert(!clean || strstr(e.message, "saved state") || strstr(e.message, "not whole"));
    }
    if (disk_layer(d, 0)->type != DISK_FIXED && disk_compact(d, false, NULL, NULL, &e) < 0) {
        hv_assert(!clean || strstr(e.message, "saved state"));
    }
    disk_close(d, &e);
    if (clean) {
        struct fuzz_findings fs = fuzz_check(m, false, false);

        if (fs.count) {
            fprintf(stderr, "no longer clean: %s\n", fs.text);
        }
        hv_assert(fs.count == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct memfile *images[FUZZ_IMAGES];
    struct fuzz_findings fs, dry;
    struct memfile *m, *before;
    unsigned kind;

    if (len < 1) {
        return 0;
    }
    kind = (data[0] & 0x3f) % FUZZ_IMAGES;
    if (!images[kind]) {
        images[kind] = fuzz_image(kind);
    }
    m = fuzz_patched(images[kind], data + 1, len - 1, data[0], kind == FUZZ_FIXED);
    before = memfile_copy(m);
    fs = fuzz_check(m, false, false);
    dry = fuzz_check(m, true, true);
    hv_assert(memfile_equal(m, before) && dry.count == fs.count);
    memfile_free(before);
    if (fs.count && fs.count == fs.repairable) {
        struct memfile *mended = memfile_copy(m);

        fuzz_check(mended, true, false);
        fs = fuzz_check(mended, false, false);
        if (fs.count) {
            fprintf(stderr, "left after repair: %s\n", fs.text);
        }
        hv_assert(fs.count == 0);
        fuzz_use(mended, true);
        memfile_free(mended);
        fs.count = 1;
    }
    fuzz_use(m, fs.count == 0);
    memfile_free(m);
    return 0;
}
