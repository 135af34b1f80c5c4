/* Unpacks a bzImage's payload on the host. Private to hv/boot. */
#ifndef HV_BOOT_UNPACK_H
#define HV_BOOT_UNPACK_H

#include "hv/boot/blob.h"

struct archive;

struct unpack_format {
    const char *name;        /* "lz4" */
    uint8_t magic[6];
    uint8_t magic_len;
    bool size_appended;      /* 4 bytes of length follow the stream; gzip ends with its own */
    int (*enable)(struct archive *a);
};

/* The format that head[len] starts with, or NULL: not one of those we can unpack in process. */
const struct unpack_format *unpack_detect(const uint8_t *head, size_t len);

/* The most a kernel may claim to unpack to: allyesconfig vmlinux images stay below half of it. */
#define UNPACK_MAX ((uint64_t)1 << 30)

/*
 * Takes data[len], the bytes at off of what is unpacked; they come in order, without gaps,
 * and are gone afterwards. 0, or anything else to end it with that.
 */
typedef int unpack_sink(void *ctx, uint64_t off, const uint8_t *data, size_t len, struct hv_error *e);

/*
 * Unpack the len bytes of b at off (the payload as the setup header delimits it) piece by
 * piece to sink; it has to be out_len bytes.
 *
 * 0; what sink ended it with; -EOPNOTSUPP without a message, and before the first piece, if
 * this libarchive cannot do the format in process; HV_USAGE "payload is damaged"; as
 * blob_read().
 */
int unpack(const struct unpack_format *f, const struct blob *b, uint64_t off, uint64_t len,
           uint64_t out_len, unpack_sink *sink, void *ctx, struct hv_error *e);

#endif
