/* Unpacks a bzImage's payload on the host. Private to hv/boot. */
#ifndef HV_BOOT_UNPACK_H
#define HV_BOOT_UNPACK_H

#include "hv/base/error.h"

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
 * Unpack in[in_len] (the payload as the setup header delimits it) to out[out_len], which
 * it has to fill exactly. name: the kernel's, for errors.
 *
 * 0; -EOPNOTSUPP without a message if this libarchive cannot do the format in process;
 * HV_USAGE "payload is damaged".
 */
int unpack(const struct unpack_format *f, const uint8_t *in, size_t in_len, uint8_t *out,
           size_t out_len, const char *name, struct hv_error *e);

#endif
