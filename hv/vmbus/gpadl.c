/* The table of GPADLs: assembly, checks, look-up. See gpadl.h. */
#include "hv/vmbus/gpadl.h"

#include <errno.h>

#include "hv/base/endian.h"

static struct gpadl *gpadl_new(struct gpadl_table *t, uint32_t relid, uint32_t handle, uint32_t bytes,
                               uint16_t range_count)
{
    struct gpadl *g = hv_alloc(sizeof(*g) + bytes);
    if (!g)
        return NULL;
    g->relid = relid;
    g->handle = handle;
    g->bytes = bytes;
    g->range_count = range_count;
    g->next = t->first;
    t->first = g;
    t->count++;
    t->bytes += bytes;
    return g;
}

int gpadl_begin(struct gpadl_table *t, uint32_t relid, uint32_t handle, uint16_t range_bytes,
                uint16_t range_count, const void *data, uint32_t len, struct gpadl **ret)
{
    /* A range is at least its header and one page. */
    if (range_bytes % 8 || !range_count || range_bytes < 16u * range_count)
        return -EINVAL;
    if (gpadl_find(t, handle))
        return -EEXIST;
    if (t->count >= GPADL_MAX_COUNT || range_bytes > GPADL_MAX_BYTES - t->bytes)
        return -ENOSPC;
    struct gpadl *g = gpadl_new(t, relid, handle, range_bytes, range_count);
    if (!g)
        return -ENOMEM;
    gpadl_add(g, data, len);
    *ret = g;
    return 0;
}

void gpadl_add(struct gpadl *g, const void *data, uint32_t len)
{
    uint32_t n = MIN(len, g->bytes - g->got);
    memcpy((uint8_t *)g->data + g->got, data, n);
    g->got += n;
}

static uint64_t pages_of(uint32_t len, uint32_t offset)
{
    return ((uint64_t)offset + len + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE;
}

int gpadl_check(const struct gpadl *g)
{
    uint32_t words = g->bytes / 8, at = 0;
    for (unsigned i = 0; i < g->range_count; i++) {
        if (at == words)
            return -EINVAL;
        uint32_t len = get_le32(&g->data[at]), offset = get_le32((const uint8_t *)&g->data[at] + 4);
        uint64_t pages = pages_of(len, offset);
        if (!len || offset >= HV_PAGE_SIZE || pages > words - at - 1)
            return -EINVAL;
        at += 1 + (uint32_t)pages;
    }
    return at == words ? 0 : -EINVAL;
}

int gpadl_range(const struct gpadl *g, unsigned i, struct gpadl_range *ret)
{
    uint32_t at = 0;
    if (i >= g->range_count)
        return -ENOENT;
    for (;; i--) {
        uint32_t len = get_le32(&g->data[at]), offset = get_le32((const uint8_t *)&g->data[at] + 4);
        uint32_t pages = (uint32_t)pages_of(len, offset);
        if (i == 0) {
            *ret = (struct gpadl_range){len, offset, &g->data[at + 1], pages};
            return 0;
        }
        at += 1 + pages;
    }
}

struct gpadl *gpadl_find(const struct gpadl_table *t, uint32_t handle)
{
    struct gpadl *g = t->first;
    while (g && g->handle != handle)
        g = g->next;
    return g;
}

void gpadl_remove(struct gpadl_table *t, struct gpadl *g)
{
    struct gpadl **at = &t->first;
    while (*at != g)
        at = &(*at)->next;
    hv_assert(g->users == 0);
    *at = g->next;
    t->count--;
    t->bytes -= g->bytes;
    free(g);
}

void gpadl_remove_all(struct gpadl_table *t, uint32_t relid)
{
    for (struct gpadl *g = t->first, *next; g; g = next) {
        next = g->next;
        if (!relid || g->relid == relid)
            gpadl_remove(t, g);
    }
}

void gpadl_save(const struct gpadl_table *t, struct save_writer *w)
{
    save_u32(w, t->count);
    for (const struct gpadl *g = t->first; g; g = g->next) {
        save_u32(w, g->relid);
        save_u32(w, g->handle);
        save_u32(w, g->bytes);
        save_u32(w, g->got);
        save_u16(w, g->range_count);
        save_u8(w, g->ending);
        save_bytes(w, g->data, g->got);
    }
}

int gpadl_load(struct gpadl_table *t, struct load_section *s)
{
    uint32_t count = load_u32(s);
    if (count > GPADL_MAX_COUNT)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t relid = load_u32(s), handle = load_u32(s), bytes = load_u32(s), got = load_u32(s);
        uint16_t ranges = load_u16(s);
        bool ending = load_u8(s);
        struct gpadl *g;
        if (bytes > UINT16_MAX || got > bytes || got > (size_t)(s->end - s->p) ||
            gpadl_begin(t, relid, handle, (uint16_t)bytes, ranges, s->p, got, &g) < 0)
            return -EINVAL;
        s->p += got;
        g->ending = ending;
        if (gpadl_complete(g) && gpadl_check(g) < 0)
            return -EINVAL;
    }
    return s->bad ? -EINVAL : 0;
}
