/* Sets of pages: see pageset.h. */
#include "hv/vsp/pageset.h"

#include <errno.h>

#define CHUNK_PAGES 32768u               /* 128 MiB */
#define CHUNK_WORDS (CHUNK_PAGES / 64)

struct pageset_chunk { uint32_t count; uint64_t bit[CHUNK_WORDS]; };

int pageset_init(struct pageset *s, gpa_t top)
{
    uint64_t chunks = ROUND_UP(top >> HV_PAGE_SHIFT, CHUNK_PAGES) / CHUNK_PAGES;
    *s = (struct pageset){0};
    hv_assert(chunks <= UINT32_MAX);
    s->chunk = hv_alloc_array(chunks ? chunks : 1, sizeof(*s->chunk));
    s->chunks = (uint32_t)chunks;
    return s->chunk ? 0 : -ENOMEM;
}

void pageset_clear(struct pageset *s)
{
    for (uint32_t i = 0; s->chunk && i < s->chunks; i++) {
        free(s->chunk[i]);
        s->chunk[i] = NULL;
    }
    s->count = 0;
}

void pageset_fini(struct pageset *s)
{
    pageset_clear(s);
    free(s->chunk);
    *s = (struct pageset){0};
}

/* The part of pfn[n] that lies in the word of pfn. */
static uint64_t word_mask(uint64_t pfn, uint64_t n, uint64_t *ret_n)
{
    uint64_t bit = pfn % 64, k = MIN(n, 64 - bit);
    *ret_n = k;
    return (k == 64 ? UINT64_MAX : (UINT64_C(1) << k) - 1) << bit;
}

static uint64_t *word_of(const struct pageset *s, uint64_t pfn)
{
    struct pageset_chunk *c = s->chunk[pfn / CHUNK_PAGES];
    return c ? &c->bit[pfn % CHUNK_PAGES / 64] : NULL;
}

int pageset_add(struct pageset *s, uint64_t pfn, uint64_t n)
{
    uint64_t end, k;
    if (__builtin_add_overflow(pfn, n, &end) || end > (uint64_t)s->chunks * CHUNK_PAGES)
        return -ERANGE;
    for (uint64_t p = pfn; p < end; p += k) {
        uint64_t mask = word_mask(p, end - p, &k);
        const uint64_t *w = word_of(s, p);
        if (w && *w & mask)
            return -EEXIST;
    }
    for (uint64_t c = pfn / CHUNK_PAGES; c * CHUNK_PAGES < end; c++)
        if (!s->chunk[c] && !(s->chunk[c] = hv_alloc(sizeof(struct pageset_chunk))))
            return -ENOMEM;
    for (uint64_t p = pfn; p < end; p += k) {
        *word_of(s, p) |= word_mask(p, end - p, &k);
        s->chunk[p / CHUNK_PAGES]->count += (uint32_t)k;
    }
    s->count += n;
    return 0;
}

void pageset_remove(struct pageset *s, uint64_t pfn, uint64_t n)
{
    uint64_t end = MIN(pfn + n, (uint64_t)s->chunks * CHUNK_PAGES), k;
    for (uint64_t p = pfn; p < end; p += k) {
        uint64_t mask = word_mask(p, end - p, &k), *w = word_of(s, p);
        if (!w)
            continue;
        uint32_t had = (uint32_t)__builtin_popcountll(*w & mask);
        *w &= ~mask;
        s->count -= had;
        s->chunk[p / CHUNK_PAGES]->count -= had;
        if (had && !s->chunk[p / CHUNK_PAGES]->count) {
            free(s->chunk[p / CHUNK_PAGES]);
            s->chunk[p / CHUNK_PAGES] = NULL;
        }
    }
}

/* First page at or after p whose being in the set is `in`; the top if there is none. */
static uint64_t scan(const struct pageset *s, uint64_t p, bool in)
{
    uint64_t top = (uint64_t)s->chunks * CHUNK_PAGES;
    while (p < top) {
        const struct pageset_chunk *c = s->chunk[p / CHUNK_PAGES];
        if (!c) {
            if (!in)
                return p;
            p = (p / CHUNK_PAGES + 1) * CHUNK_PAGES;
            continue;
        }
        uint64_t w = c->bit[p % CHUNK_PAGES / 64];
        w = (in ? w : ~w) >> p % 64;
        if (w)
            return p + (uint64_t)__builtin_ctzll(w);
        p = (p / 64 + 1) * 64;
    }
    return top;
}

bool pageset_next(const struct pageset *s, uint64_t *pfn, uint64_t *ret_n, uint64_t max)
{
    uint64_t first = scan(s, *pfn, true);
    if (first >= (uint64_t)s->chunks * CHUNK_PAGES)
        return false;
    uint64_t end = scan(s, first, false);
    *pfn = first;
    *ret_n = MIN(end - first, max);
    return true;
}

void pageset_save(const struct pageset *s, struct save_writer *w)
{
    uint64_t pfn = 0, n;
    for (; pageset_next(s, &pfn, &n, UINT32_MAX); pfn += n) {
        save_u64(w, pfn);
        save_u32(w, (uint32_t)n);
    }
    save_u64(w, UINT64_MAX);
}

int pageset_load(struct pageset *s, struct load_section *sec)
{
    pageset_clear(s);
    for (;;) {
        uint64_t pfn = load_u64(sec);
        if (sec->bad)
            return -EINVAL;
        if (pfn == UINT64_MAX)
            return 0;
        uint32_t n = load_u32(sec);
        int r = n ? pageset_add(s, pfn, n) : -EINVAL;
        if (r < 0)
            return r == -ENOMEM ? r : -EINVAL;
    }
}
