/*
 * A set of guest pages: which ones the host holds in the balloon. Bitmaps of 128 MiB each,
 * made when first needed, so that the worst a guest can do (give back every other page)
 * costs one bit a page.
 */
#ifndef HV_VSP_PAGESET_H
#define HV_VSP_PAGESET_H

#include "hv/base/error.h"
#include "hv/base/save.h"

struct pageset_chunk;
struct pageset {
    struct pageset_chunk **chunk;    /* chunk[chunks], NULL: empty */
    uint32_t chunks;
    uint64_t count;                  /* pages in the set */
};

/* Pages below top (bytes). -ENOMEM. */
int pageset_init(struct pageset *s, gpa_t top);
void pageset_fini(struct pageset *s);
void pageset_clear(struct pageset *s);
/* All of pfn[n] or nothing: -EEXIST if one is in already, -ERANGE above top, -ENOMEM. */
int pageset_add(struct pageset *s, uint64_t pfn, uint64_t n);
/* Pages that are not in are skipped. */
void pageset_remove(struct pageset *s, uint64_t pfn, uint64_t n);
/* The first run at or after *pfn, of at most max pages; false: there is none. */
bool pageset_next(const struct pageset *s, uint64_t *pfn, uint64_t *ret_n, uint64_t max);

void pageset_save(const struct pageset *s, struct save_writer *w);
int pageset_load(struct pageset *s, struct load_section *sec);

#endif
