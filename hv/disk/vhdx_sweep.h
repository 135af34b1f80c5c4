/* The whole BAT at once: for check, repair and compact. */
#ifndef HV_DISK_VHDX_SWEEP_H
#define HV_DISK_VHDX_SWEEP_H

#include "hv/disk/vhdx.h"

enum vhdx_fault_kind {
    VHDX_FAULT_RESERVED,         /* bits that must be zero are not */
    VHDX_FAULT_STATE,            /* 4 or 5 */
    VHDX_FAULT_PLACE,            /* the room is where none may be: `where` */
    VHDX_FAULT_PARTIAL,          /* partly present in a disk without a parent */
    VHDX_FAULT_SLOT,             /* a bitmap's slot holds what none may */
    VHDX_FAULT_NO_BITMAP,        /* partly present, and the chunk has no bitmap */
    VHDX_FAULT_OVERLAP,          /* with the room of `other`; entry is the offset */
    VHDX_FAULT_COUNT
};

/* A block's number, or with this bit a bitmap's chunk. */
#define VHDX_ROOM_BITMAP 0x80000000u
static_assert(DISK_MAX_SIZE / VHDX_BLOCK_MIN < VHDX_ROOM_BITMAP, "the number of a block leaves the bit free");
static_assert(VHDX_FILE_MAX / VHDX_UNIT <= UINT32_MAX, "a place in MiB fits 32 bits");

struct vhdx_fault {
    enum vhdx_fault_kind kind;
    uint32_t what, other;
    uint64_t index, entry;
    const char *where;
};

/* Negative ends the sweep. */
typedef int vhdx_fault_fn(void *arg, const struct vhdx_fault *x);

struct vhdx_room {
    uint32_t mib;                /* where, in units of 1 MiB */
    uint32_t what;
};

struct vhdx_usage {
    struct vhdx_room *rooms;     /* by place; without those of bad entries */
    size_t count;
    uint64_t used;               /* bytes, each counted once */
    uint64_t end;                /* behind the last room */
    uint64_t absent;             /* entries that are not zero but name no room */
};

/* v needs file, file_size, header, regions, md and its geometry; nothing of it may be dirty. */
int vhdx_sweep(struct vhdx *v, vhdx_fault_fn *fn, void *arg, struct vhdx_usage *ret);
void vhdx_usage_fini(struct vhdx_usage *u);
/* The same before a change: a fault refuses it, with a sentence. */
int vhdx_survey(struct vhdx *v, struct vhdx_usage *ret, struct hv_error *e);
/* Bytes of file a room takes; less than a block where the disk ends in it. */
uint64_t vhdx_room_bytes(const struct vhdx *v, const struct vhdx_room *x);
/* "block 17 (sectors 71303168 to 71368703)", "bitmap 0". */
const char *vhdx_room_name(const struct vhdx *v, uint32_t what, char *buf, size_t size);
/* What is said of a fault, and whether repair can do something about it. */
bool vhdx_fault_text(const struct vhdx *v, const struct vhdx_fault *x, char *buf, size_t size);

#endif
