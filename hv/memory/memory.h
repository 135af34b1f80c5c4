/*
 * The guest physical address space: RAM regions backed by one memfd, the pins
 * through which host code touches them, and what must happen afterwards.
 *
 * Host code writes guest RAM only between mem_pin(WRITE) and mem_unpin() (DESIGN 6):
 * unpin marks the pages dirty and has the engine drop code made from them before any
 * completion is signalled. mem_write() does the three steps for small copies.
 */
#ifndef HV_MEMORY_MEMORY_H
#define HV_MEMORY_MEMORY_H

#include "hv/base/error.h"

/* The layout of DESIGN 5. */
#define MEM_LOW_TOP    ((gpa_t)0xE0000000)   /* low RAM ends here at most */
#define MEM_HIGH_BASE  ((gpa_t)0x100000000)  /* RAM above 4 GiB starts here */

struct mem;

enum mem_access { MEM_READ, MEM_WRITE };

struct mem_pin {
    struct mem *m;
    gpa_t gpa;
    uint64_t len;
    enum mem_access access;
    void *hva;
};

/* Told of RAM that appears, goes, or was written by the host. Any may be NULL. */
struct mem_listener {
    int (*map)(void *arg, gpa_t gpa, uint64_t len, void *hva, bool readonly);
    int (*unmap)(void *arg, gpa_t gpa, uint64_t len);
    void (*written)(void *arg, gpa_t gpa, uint64_t len);
    void *arg;
};

/* fd: a memfd to use (DESIGN 9), ours from now on, or -1 to make one. name: for /proc/PID/maps. */
int mem_new(const char *name, int fd, struct mem **ret, struct hv_error *e);
void mem_free(struct mem *m);
int mem_fd(const struct mem *m);

/* One listener (the engine, bound by hv/vm); told at once of the regions already there. */
int mem_set_listener(struct mem *m, const struct mem_listener *l);

/* Add RAM: len and gpa multiples of a page, no overlap (-EEXIST). Reads as zeros. */
int mem_add_ram(struct mem *m, gpa_t gpa, uint64_t len, struct hv_error *e);
/* Add a read-only image (firmware) of its own memory; writes by the guest are dropped. */
int mem_add_rom(struct mem *m, gpa_t gpa, const void *image, uint64_t len, struct hv_error *e);
int mem_remove(struct mem *m, gpa_t gpa, uint64_t len);
/* Give pages back to the host; they read as zeros afterwards. Whole pages within RAM. */
int mem_punch(struct mem *m, gpa_t gpa, uint64_t len);
/* Zero all RAM (reset); no part of it lies on a file then. vCPUs are parked. */
int mem_clear(struct mem *m);

/*
 * Smart paging (paging.c): RAM whose pages are those of a file. Contents stay where a guest has them, and so do
 * host addresses; but nobody may be at them meanwhile: vCPUs are parked and devices at rest for out, in and drop.
 */
#define MEM_PAGED_RANGES 2             /* below the hole under 4 GiB, and above */
struct mem_range { gpa_t gpa; uint64_t len; };
/*
 * Have range[n], in ascending order, each within one region and never written since it was clear, lie on fd, one
 * after the other from its start; fd becomes m's, also on failure. Its blocks should be there: a page that the
 * file system has no space for ends the process (SIGBUS).
 */
int mem_page_out(struct mem *m, int fd, const struct mem_range *range, unsigned n, struct hv_error *e);
/* The next bytes (whole pages) of it, from below, become memory again. 0, or what the file answers. */
int mem_page_in(struct mem *m, uint64_t bytes);
/* All of it becomes memory again, with zeros. */
int mem_page_drop(struct mem *m);
/* How much lies on the file, and where: returns how many ranges. */
uint64_t mem_paged(const struct mem *m);
unsigned mem_paged_ranges(const struct mem *m, struct mem_range ret[MEM_PAGED_RANGES]);

/*
 * Make gpa[len] reachable at pin->hva. One pin stays within one region.
 * -EFAULT if the range is not all RAM (or ROM for MEM_READ); len 0 is -EINVAL.
 * Any thread. Every pin is unpinned, by anybody, exactly once.
 */
int mem_pin(struct mem *m, gpa_t gpa, uint64_t len, enum mem_access access, struct mem_pin *ret);
void mem_unpin(struct mem_pin *pin);
/*
 * For pins that are held long (rings): off[len] of a MEM_WRITE pin was written and stays
 * pinned. Tells the listener what mem_unpin() would.
 */
void mem_pin_written(const struct mem_pin *pin, uint64_t off, uint64_t len);

/* Copies; may span regions; all or nothing checked first. 0 or -EFAULT. */
int mem_read(struct mem *m, gpa_t gpa, void *buf, uint64_t len);
int mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len);

bool mem_is_ram(struct mem *m, gpa_t gpa, uint64_t len);
/* Regions in ascending order: 0, or -ENOENT past the last. */
int mem_region(struct mem *m, unsigned i, gpa_t *ret_gpa, uint64_t *ret_len, bool *ret_rom);
uint64_t mem_ram_bytes(struct mem *m);
/* Bytes of the memfd the host really holds (st_blocks * 512). */
uint64_t mem_resident_bytes(struct mem *m);

#endif
