/*
 * Where the code caches of all vCPUs lie: one region that is a power of two long and aligned to
 * itself, with a page behind it that cannot be accessed. A worker's system call filter, which can
 * compare an argument once, lets exactly this region become executable (hv/worker/seal.c).
 */
#include <sys/mman.h>

#include "hv/engine/soft/soft.h"
#include "hv/engine/soft/translate.h"

static bool reserve(struct soft *s, size_t need)
{
    size_t len = HV_PAGE_SIZE;
    while (len < need)
        len *= 2;
    const size_t all = 2 * len + HV_PAGE_SIZE;
    uint8_t *p = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    /* Cut to size: what is before the aligned start, and what is behind the guard page. */
    uint8_t *base = (uint8_t *)ROUND_UP((uintptr_t)p, (uintptr_t)len), *end = base + len + HV_PAGE_SIZE;
    if (base > p)
        munmap(p, (size_t)(base - p));
    if (p + all > end)
        munmap(end, (size_t)(p + all - end));
    s->code_base = base;
    s->code_len = len;
    return true;
}

uint8_t *code_region_part(struct soft *s, unsigned vp, size_t size)
{
    size = ROUND_UP(size, (size_t)HV_PAGE_SIZE);
    if (!s->code_base && !reserve(s, size * s->cfg.vcpus))
        return NULL;
    if ((vp + 1) * size > s->code_len)
        return NULL;
    uint8_t *p = s->code_base + vp * size;
    return mprotect(p, size, PROT_READ | PROT_WRITE) == 0 ? p : NULL;
}

void code_region_fini(struct soft *s)
{
    if (s->code_base)
        munmap(s->code_base, s->code_len + HV_PAGE_SIZE);
    s->code_base = NULL;
    s->code_len = 0;
}
