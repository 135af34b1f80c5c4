/* The bytes of a kernel or initrd: a file that may change under us, or memory. Private to hv/boot. */
#ifndef HV_BOOT_BLOB_H
#define HV_BOOT_BLOB_H

#include "hv/base/error.h"

struct mem;

struct blob {
    int fd;               /* -1: data */
    const uint8_t *data;
    uint64_t size;
    const char *name;     /* for errors */
};

/* fd stays the caller's. Refuses what is not a regular, non-empty file. */
int blob_from_fd(int fd, const char *name, struct blob *ret, struct hv_error *e);
struct blob blob_from_memory(const void *data, uint64_t size, const char *name);

/* Exactly len bytes at off. HV_USAGE "is truncated" past the end, HV_FAILED if the file became shorter. */
int blob_read(const struct blob *b, uint64_t off, void *buf, uint64_t len, struct hv_error *e);

/* The same into guest RAM; pins it in one piece. gpa[len] is RAM (the caller has checked). */
int blob_read_guest(const struct blob *b, uint64_t off, struct mem *m, uint64_t gpa, uint64_t len,
                    struct hv_error *e);

#endif
