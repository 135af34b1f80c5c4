/*
 * The compressions that Linux packs its payload with (Documentation/arch/x86/boot.rst,
 * payload_offset; scripts/Makefile.lib), through libarchive's filters: its raw format
 * hands out the one member. LZO is not in the list: libarchive has no decoder for it of
 * its own here and would start a program, which a worker must never do.
 */
#include <archive.h>
#include <archive_entry.h>

#include "hv/boot/unpack.h"

#include <errno.h>

#include "hv/base/fault.h"

static const struct unpack_format FORMATS[] = {
    { "gzip", { 0x1f, 0x8b }, 2, false, archive_read_support_filter_gzip },
    { "bzip2", { 'B', 'Z', 'h' }, 3, true, archive_read_support_filter_bzip2 },
    { "lzma", { 0x5d, 0x00, 0x00 }, 3, true, archive_read_support_filter_lzma },
    { "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, true, archive_read_support_filter_xz },
    { "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4, true, archive_read_support_filter_lz4 },
    { "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4, true, archive_read_support_filter_zstd },
};

const struct unpack_format *unpack_detect(const uint8_t *head, size_t len)
{
    for (size_t i = 0; i < ARRAY_SIZE(FORMATS); i++) {
        if (len >= FORMATS[i].magic_len && memcmp(head, FORMATS[i].magic, FORMATS[i].magic_len) == 0) {
            return &FORMATS[i];
        }
    }
    return NULL;
}

static int damaged(struct archive *a, const char *name, const char *why, struct hv_error *e)
{
    const char *text = a ? archive_error_string(a) : NULL;
    hv_fail(e, HV_USAGE, name, "the kernel's payload is damaged: %s", text ? text : why);
    hv_hint(e, "fetch or copy the kernel again");
    return -EINVAL;
}

/* What libarchive reads: little at a time, so that the same memory serves all of it. */
#define CHUNK ((size_t)128 * 1024)
struct source {
    const struct blob *b;
    uint64_t off, end;
    struct hv_error *e;
    int r;                    /* of the read that failed */
    uint8_t buf[CHUNK];
};

static la_ssize_t read_chunk(struct archive *a, void *ctx, const void **ret)
{
    struct source *s = ctx;
    const size_t len = MIN(s->end - s->off, CHUNK);

    (void)a;
    if ((s->r = blob_read(s->b, s->off, s->buf, len, s->e)) < 0) {
        return ARCHIVE_FATAL;
    }
    s->off += len;
    *ret = s->buf;
    return (la_ssize_t)len;
}

static int unpack_from(struct source *s, const struct unpack_format *f, uint64_t out_len, unpack_sink *sink,
                       void *ctx, struct hv_error *e)
{
    const char *name = s->b->name;
    struct archive_entry *entry;
    const void *data;
    uint64_t done = 0;
    size_t len;
    la_int64_t at;
    int r;

    struct archive *a = fault_check(FAULT_ALLOC) < 0 ? NULL : archive_read_new();
    if (!a) {
        return hv_fail(e, HV_NO_RESOURCES, name, "no memory to unpack the kernel");
    }
    /* ARCHIVE_WARN: an external program would do it. */
    if (f->enable(a) != ARCHIVE_OK || archive_read_support_format_raw(a) != ARCHIVE_OK) {
        r = -EOPNOTSUPP;
        goto out;
    }
    if (archive_read_open(a, s, NULL, read_chunk, NULL) != ARCHIVE_OK ||
        archive_read_next_header(a, &entry) != ARCHIVE_OK) {
        r = s->r < 0 ? s->r : damaged(a, name, "it does not start right", e);
        goto out;
    }
    while ((r = archive_read_data_block(a, &data, &len, &at)) == ARCHIVE_OK) {
        if (len > out_len - done) {
            r = damaged(NULL, name, "it is longer than it says", e);
            goto out;
        }
        if (len && (r = sink(ctx, done, data, len, e)) != 0) {
            goto out;
        }
        done += len;
    }
    if (s->r < 0) {
        r = s->r;
    } else if (r != ARCHIVE_EOF) {
        r = damaged(a, name, "unpacking failed", e);
    } else {
        r = done == out_len ? 0 : damaged(NULL, name, "it ends early", e);
    }
out:
    archive_read_free(a);
    return r;
}

int unpack(const struct unpack_format *f, const struct blob *b, uint64_t off, uint64_t len,
           uint64_t out_len, unpack_sink *sink, void *ctx, struct hv_error *e)
{
    if (f->size_appended) {
        if (len < 4) {
            return damaged(NULL, b->name, "no room for its size", e);
        }
        len -= 4;
    }
    hv_autofree struct source *s = hv_alloc(sizeof(*s));
    if (!s) {
        return hv_fail(e, HV_NO_RESOURCES, b->name, "no memory to unpack the kernel");
    }
    s->b = b;
    s->off = off;
    s->end = off + len;
    s->e = e;
    return unpack_from(s, f, out_len, sink, ctx, e);
}
