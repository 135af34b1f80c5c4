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

int unpack(const struct unpack_format *f, const uint8_t *in, size_t in_len, uint64_t out_len,
           const char *name, unpack_sink *sink, void *ctx, struct hv_error *e)
{
    struct archive_entry *entry;
    const void *data;
    uint64_t done = 0;
    size_t len;
    la_int64_t at;
    int r;

    if (f->size_appended) {
        if (in_len < 4) {
            return damaged(NULL, name, "no room for its size", e);
        }
        in_len -= 4;
    }
    struct archive *a = fault_check(FAULT_ALLOC) < 0 ? NULL : archive_read_new();
    if (!a) {
        return hv_fail(e, HV_NO_RESOURCES, name, "no memory to unpack the kernel");
    }
    /* ARCHIVE_WARN: an external program would do it. */
    if (f->enable(a) != ARCHIVE_OK || archive_read_support_format_raw(a) != ARCHIVE_OK) {
        r = -EOPNOTSUPP;
        goto out;
    }
    if (archive_read_open_memory(a, in, in_len) != ARCHIVE_OK ||
        archive_read_next_header(a, &entry) != ARCHIVE_OK) {
        r = damaged(a, name, "it does not start right", e);
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
    if (r != ARCHIVE_EOF) {
        r = damaged(a, name, "unpacking failed", e);
    } else {
        r = done == out_len ? 0 : damaged(NULL, name, "it ends early", e);
    }
out:
    archive_read_free(a);
    return r;
}
