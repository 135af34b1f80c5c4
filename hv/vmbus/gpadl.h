/*
 * GPADLs: guest memory that the guest describes once and names by a handle afterwards.
 * The description arrives in one header and any number of bodies and is a byte stream:
 *
 *   per range: u32 bytes, u32 offset into the first page, u64 pfn[ceil((offset + bytes) / 4096)]
 *
 * Addresses are checked when they are pinned, not here. Loop thread only. guest-abi 5.5.
 */
#ifndef HV_VMBUS_GPADL_H
#define HV_VMBUS_GPADL_H

#include "hv/base/error.h"
#include "hv/base/save.h"

/*
 * What a guest may have at a time. A ring a channel and two buffers a network adapter are
 * far below; the bytes are host memory (a description of 16 MiB takes 32 KiB).
 */
#define GPADL_MAX_COUNT 2048u
#define GPADL_MAX_BYTES (16u << 20)

struct gpadl_range {
    uint32_t len, offset;        /* bytes */
    const uint64_t *pfn;         /* pfn[pages], owned by the GPADL */
    uint32_t pages;
};

struct gpadl {
    uint32_t relid, handle;
    uint16_t range_count;
    uint32_t bytes, got;         /* of the description: announced, arrived */
    unsigned users;              /* rings and VSPs that hold it; it stays until they let go */
    bool ending;                 /* the guest has torn it down: answer when users is 0 */
    struct gpadl *next;
    uint64_t data[];             /* the stream, in host byte order of its u64s on x86 */
};

struct gpadl_table {
    struct gpadl *first;
    uint32_t count, bytes;
};

/*
 * A header message's description: range_bytes in all, of which data[len] came with it.
 * 0 and *ret; ret->got == ret->bytes: it is complete, see gpadl_check().
 * -EINVAL: no whole ranges; -EEXIST: the handle is in use; -ENOSPC: too many; -ENOMEM.
 */
int gpadl_begin(struct gpadl_table *t, uint32_t relid, uint32_t handle, uint16_t range_bytes,
                uint16_t range_count, const void *data, uint32_t len, struct gpadl **ret);
/* A body's data[len]; what goes beyond the announced bytes is ignored. */
void gpadl_add(struct gpadl *g, const void *data, uint32_t len);
static inline bool gpadl_complete(const struct gpadl *g) { return g->got == g->bytes; }
/* Do the bytes hold exactly range_count sound ranges? 0 or -EINVAL. */
int gpadl_check(const struct gpadl *g);
/* Range i of a complete, checked GPADL: 0, or -ENOENT past the last. */
int gpadl_range(const struct gpadl *g, unsigned i, struct gpadl_range *ret);

struct gpadl *gpadl_find(const struct gpadl_table *t, uint32_t handle);
void gpadl_remove(struct gpadl_table *t, struct gpadl *g);
/* Those of one channel, or with relid 0 all. Nobody uses them any more. */
void gpadl_remove_all(struct gpadl_table *t, uint32_t relid);

void gpadl_save(const struct gpadl_table *t, struct save_writer *w);
int gpadl_load(struct gpadl_table *t, struct load_section *s);

#endif
