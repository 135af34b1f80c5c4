/* A write-back cache of metadata pages; see meta.h for the life of a page. */
#include "hv/disk/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum page_state { CLEAN, DIRTY, TAKEN, STATE_COUNT };

struct page {
    struct page *prev, *next;    /* in the list of its state; CLEAN: oldest use first */
    struct page *chain;          /* same bucket */
    uint64_t no;                 /* offset / page_size */
    enum page_state state;
    uint8_t data[];
};

struct disk_meta {
    struct disk_file *file;
    uint32_t page_size;
    uint64_t max_clean;
    struct page lists[STATE_COUNT];   /* heads of circular lists */
    uint64_t counts[STATE_COUNT];
    struct page **buckets;
    size_t bucket_count;              /* a power of two */
    uint64_t pages;
};

static size_t bucket_of(const struct disk_meta *m, uint64_t no)
{
    return (size_t)((no * 0x9e3779b97f4a7c15u) >> 32) & (m->bucket_count - 1);
}

static void list_remove(struct disk_meta *m, struct page *p)
{
    p->prev->next = p->next;
    p->next->prev = p->prev;
    m->counts[p->state]--;
}

static void list_append(struct disk_meta *m, struct page *p, enum page_state state)
{
    struct page *head = &m->lists[state];

    p->state = state;
    p->prev = head->prev;
    p->next = head;
    head->prev->next = p;
    head->prev = p;
    m->counts[state]++;
}

static void set_state(struct disk_meta *m, struct page *p, enum page_state state)
{
    list_remove(m, p);
    list_append(m, p, state);
}

int disk_meta_new(struct disk_file *f, uint32_t page_size, uint64_t max_clean_bytes,
                  struct disk_meta **ret)
{
    struct disk_meta *m = hv_alloc(sizeof(*m));

    if (!m) {
        return -ENOMEM;
    }
    m->file = disk_file_ref(f);
    m->page_size = page_size;
    m->max_clean = MAX(max_clean_bytes / page_size, 16);
    m->bucket_count = 256;
    m->buckets = hv_alloc_array(m->bucket_count, sizeof(*m->buckets));
    for (int i = 0; i < STATE_COUNT; i++) {
        m->lists[i].prev = m->lists[i].next = &m->lists[i];
    }
    if (!m->buckets) {
        disk_meta_free(m);
        return -ENOMEM;
    }
    *ret = m;
    return 0;
}

void disk_meta_free(struct disk_meta *m)
{
    if (!m) {
        return;
    }
    for (int i = 0; i < STATE_COUNT; i++) {
        for (struct page *p = m->lists[i].next, *next; p != &m->lists[i]; p = next) {
            next = p->next;
            free(p);
        }
    }
    disk_file_unref(m->file);
    free(m->buckets);
    free(m);
}

static struct page *find(struct disk_meta *m, uint64_t no)
{
    struct page *p = m->buckets[bucket_of(m, no)];

    while (p && p->no != no) {
        p = p->chain;
    }
    return p;
}

static void forget(struct disk_meta *m, struct page *p)
{
    struct page **at = &m->buckets[bucket_of(m, p->no)];

    while (*at != p) {
        at = &(*at)->chain;
    }
    *at = p->chain;
    list_remove(m, p);
    m->pages--;
    free(p);
}

/* More buckets keep chains short; failing to get them costs speed only. */
static void grow(struct disk_meta *m)
{
    size_t old_count = m->bucket_count;
    struct page **old = m->buckets, **fresh = hv_alloc_array(old_count * 4, sizeof(*fresh));

    if (!fresh) {
        return;
    }
    m->buckets = fresh;
    m->bucket_count = old_count * 4;
    for (size_t i = 0; i < old_count; i++) {
        for (struct page *p = old[i], *next; p; p = next) {
            size_t b = bucket_of(m, p->no);

            next = p->chain;
            p->chain = fresh[b];
            fresh[b] = p;
        }
    }
    free(old);
}

/* The page, read from the file unless fill is false. NULL with *ret_err set. */
static struct page *get(struct disk_meta *m, uint64_t no, bool fill, int *ret_err)
{
    struct page *p = find(m, no);
    size_t b;

    if (p) {
        if (p->state == CLEAN && m->lists[CLEAN].prev != p) {
            set_state(m, p, CLEAN);
        }
        return p;
    }
    if (m->counts[CLEAN] >= m->max_clean) {
        forget(m, m->lists[CLEAN].next);
    }
    if (m->pages >= m->bucket_count * 2) {
        grow(m);
    }
    p = hv_alloc(sizeof(*p) + m->page_size);
    if (!p) {
        *ret_err = -ENOMEM;
        return NULL;
    }
    if (fill) {
        int r = disk_file_read(m->file, no * m->page_size, p->data, m->page_size);

        if (r < 0) {
            free(p);
            *ret_err = r;
            return NULL;
        }
    }
    p->no = no;
    b = bucket_of(m, no);
    p->chain = m->buckets[b];
    m->buckets[b] = p;
    m->pages++;
    list_append(m, p, CLEAN);
    return p;
}

const uint8_t *disk_meta_peek(struct disk_meta *m, uint64_t off, uint32_t *ret_avail, int *ret_err)
{
    uint32_t in = (uint32_t)(off % m->page_size);
    struct page *p = get(m, off / m->page_size, true, ret_err);

    if (!p) {
        return NULL;
    }
    *ret_avail = m->page_size - in;
    return p->data + in;
}

int disk_meta_read(struct disk_meta *m, uint64_t off, void *buf, uint64_t len)
{
    uint8_t *to = buf;

    while (len > 0) {
        uint32_t avail;
        int r = 0;
        const uint8_t *from = disk_meta_peek(m, off, &avail, &r);
        uint64_t n = MIN(len, (uint64_t)avail);

        if (!from) {
            return r;
        }
        memcpy(to, from, n);
        to += n;
        off += n;
        len -= n;
    }
    return 0;
}

int disk_meta_write(struct disk_meta *m, uint64_t off, const void *buf, uint64_t len)
{
    const uint8_t *from = buf;

    while (len > 0) {
        uint32_t in = (uint32_t)(off % m->page_size);
        uint64_t n = MIN(len, (uint64_t)m->page_size - in);
        int r = 0;
        struct page *p = get(m, off / m->page_size, n < m->page_size, &r);

        if (!p) {
            return r;
        }
        memcpy(p->data + in, from, n);
        if (p->state != DIRTY) {
            set_state(m, p, DIRTY);
        }
        from += n;
        off += n;
        len -= n;
    }
    return 0;
}

int disk_meta_write_zero(struct disk_meta *m, uint64_t off, uint64_t len)
{
    for (; len >= m->page_size; off += m->page_size, len -= m->page_size) {
        int r = 0;
        struct page *p = get(m, off / m->page_size, false, &r);

        if (!p) {
            return r;
        }
        memset(p->data, 0, m->page_size);
        if (p->state != DIRTY) {
            set_state(m, p, DIRTY);
        }
    }
    return 0;
}

uint64_t disk_meta_dirty_pages(const struct disk_meta *m)
{
    return m->counts[DIRTY];
}

static int by_offset(const void *a, const void *b)
{
    const struct disk_meta_page *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

int disk_meta_take(struct disk_meta *m, struct disk_meta_page **ret, size_t *ret_count)
{
    size_t n = (size_t)m->counts[DIRTY], i = 0;
    struct disk_meta_page *pages = hv_alloc_array(n ? n : 1, sizeof(*pages));
    uint8_t *copies = hv_alloc_array(n ? n : 1, m->page_size);

    hv_assert(m->counts[TAKEN] == 0);
    if (!pages || !copies) {
        free(pages);
        free(copies);
        return -ENOMEM;
    }
    while (m->counts[DIRTY] > 0) {
        struct page *p = m->lists[DIRTY].next;

        memcpy(copies + i * m->page_size, p->data, m->page_size);
        pages[i].off = p->no * m->page_size;
        pages[i].data = copies + i * m->page_size;    /* one block: settle() frees its start */
        i++;
        set_state(m, p, TAKEN);
    }
    if (n == 0) {
        free(copies);
    }
    qsort(pages, n, sizeof(*pages), by_offset);
    *ret = pages;
    *ret_count = n;
    return 0;
}

void disk_meta_settle(struct disk_meta *m, struct disk_meta_page *pages, size_t count, bool ok)
{
    uint8_t *copies = NULL;

    for (size_t i = 0; i < count; i++) {
        copies = !copies || pages[i].data < copies ? pages[i].data : copies;
    }
    while (m->counts[TAKEN] > 0) {
        set_state(m, m->lists[TAKEN].next, ok ? CLEAN : DIRTY);
    }
    while (m->counts[CLEAN] > m->max_clean) {
        forget(m, m->lists[CLEAN].next);
    }
    free(copies);
    free(pages);
}

void disk_meta_drop(struct disk_meta *m, uint64_t off, uint64_t len)
{
    uint64_t first = off / m->page_size, last = (off + len + m->page_size - 1) / m->page_size;

    if (last - first > m->pages) {   /* cheaper to look at what there is */
        for (int s = 0; s < STATE_COUNT; s++) {
            for (struct page *p = m->lists[s].next, *next; p != &m->lists[s]; p = next) {
                next = p->next;
                if (p->no >= first && p->no < last) {
                    forget(m, p);
                }
            }
        }
        return;
    }
    for (uint64_t no = first; no < last; no++) {
        struct page *p = find(m, no);

        if (p) {
            forget(m, p);
        }
    }
}
