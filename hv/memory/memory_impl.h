/* Shared by the files of this room only. */
#ifndef HV_MEMORY_IMPL_H
#define HV_MEMORY_IMPL_H

#include <pthread.h>

#include "hv/memory/memory.h"

#define MEM_MAGIC 0x4d454d31u
#define MEM_MAX_REGIONS 1024     /* boot RAM, ROMs, and one a hot-added block batch */

struct region {
    gpa_t gpa;
    uint64_t len;
    uint8_t *hva;
    bool rom;
    _Atomic uint32_t pins;
};

/* RAM that lies on a file. It changes while vCPUs and devices stand still, on the loop's thread. */
struct paging {
    int fd;                              /* -1: none does */
    unsigned n;
    struct mem_range piece[MEM_PAGED_RANGES];
    uint64_t total, moved;               /* bytes of the file; below `moved` they are in the memfd again */
};

struct mem {
    uint32_t magic;
    int fd;
    pthread_rwlock_t lock;               /* guards region[] and count */
    struct region *region[MEM_MAX_REGIONS];
    unsigned count;
    struct mem_listener listener;
    struct paging paging;
};

/* The region that holds gpa, or NULL. Lock held. */
struct region *mem_region_at(const struct mem *m, gpa_t gpa);
bool mem_range_ok(gpa_t gpa, uint64_t len);
/* What every mapping of RAM is given. */
void mem_advise(void *hva, uint64_t len);
/* paging.c: give back gpa[len], which is RAM, whatever it lies on. 0 or -errno. */
int mem_give_back(struct mem *m, gpa_t gpa, uint64_t len);

#endif
